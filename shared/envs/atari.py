"""Atari games of the Arcade Learning Environment: one pipeline from frames to rows, which each paper configures.

    reset    the emulator starts anew with the episode's seed, then some actions that do nothing
    step     an action for R frames; the rewards add up; the last two frames are looked at
    image    the larger of the two, pixel by pixel; then smaller, and grey where asked for

Sources, which differ in the fields of Pipeline: authors' code of Dreamer (control/wrappers.py, scripts/tasks.py), of
DreamerV2 (common/envs.py) and of DreamerV3 (embodied/envs/atari.py). Read spec.py for the rows first.
"""

import importlib
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec, Row, check_choice, make_row
from shared.errors import UserError

PREFIX = "atari_"
SCREEN = (210, 160)  # pixels, height and width
POOLED = 2  # frames
LUMINANCE = np.array([0.299, 0.587, 1 - (0.299 + 0.587)])  # of red, green, blue (ITU-R BT.601); adds up to 1
SEEDS = 2**31  # the emulator takes a seed below this


@dataclass(frozen=True)
class Pipeline:
    """What the papers do differently between the emulator and the agent. No field has a default: a paper says each.

    colours: red, green and blue; the emulator's own grey; or grey from the resized colours, cut off to whole numbers.
    resize: Pillow's bilinear filter, or the mean over the area that a pixel covers (as OpenCV has it).
    max_pool: the image is the pixelwise maximum of the last two frames looked at; else it is the last one.
    draw_end: the frame with which a game ends is looked at. Where it is not, an image may show what was before.
    sticky: probability that the emulator repeats the action before, at every frame.
    full_actions: all 18 actions; else those that do something in this game.
    noops: an episode opens with so many frames without action, at least and at most; uniform.
    life_loss_ends: a lost life ends the episode, as the end of the game does.
    least_decisions: an end before so many decisions is passed over, and the emulator goes on.
    time_limit_is_terminal: an episode cut off by its time limit counts as one whose world ended.
    """

    colours: Literal["rgb", "grey", "grey_of_resized"]
    resize: Literal["bilinear", "area"]
    max_pool: bool
    draw_end: bool
    sticky: float
    full_actions: bool
    noops: tuple[int, int]
    life_loss_ends: bool
    least_decisions: int
    time_limit_is_terminal: bool


def tasks() -> dict[str, str]:
    """Every game: atari_ and its name in the emulator -> that name, e.g. atari_ms_pacman -> ms_pacman."""
    return {PREFIX + game: game for game in importlib.import_module("ale_py.roms").get_all_rom_ids()}


def find(task: str) -> str | None:
    """The emulator's name of a task's game; underscores do not matter (atari_james_bond is jamesbond)."""
    bare = {name.replace("_", ""): game for name, game in tasks().items()}
    return bare.get(task.replace("_", "")) if task.startswith(PREFIX) else None


class Atari:
    """One game. Actions are one-hot; the image is (size, size, 3), or (size, size, 1) where it is grey.

    Args:
      task: "atari_pong".
      size: height and width of the image, pixels.
      action_repeat: R, frames per decision, fewer where the game ends. A frame is an env step; frames without action
        at the start of an episode are not counted.
      time_limit_env_steps: an episode has at most time_limit_env_steps // R decisions.
      pipeline: the rest.

    An episode is a pure function of its seed and actions, sticky actions included: every reset loads the game again,
    because only then does the emulator take a new seed (0.1 s; a reset alone goes on with the old random numbers).
    ale-py's vector environment is used nowhere: it has none but the area filter, so its frames are not those of Dreamer
    and DreamerV3. They are those of DreamerV2 where an episode does not begin with actions that do nothing, and but for
    its last image (tests/envs/test_atari.py).
    """

    def __init__(self, task: str, *, size: int, action_repeat: int, time_limit_env_steps: int, pipeline: Pipeline):
        game = find(task)
        if game is None:
            raise UserError(f"task {task!r} is no Atari game; the emulator has {', '.join(tasks())}")
        self._task, self._size, self._pipeline = task, size, pipeline
        self._repeat, self._limit = action_repeat, time_limit_env_steps // action_repeat
        ale_py, roms = importlib.import_module("ale_py"), importlib.import_module("ale_py.roms")
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else it greets at every game
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", pipeline.sticky)
        self._rom = roms.get_rom_path(game)
        self._ale.loadROM(self._rom)
        self._actions = self._ale.getLegalActionSet() if pipeline.full_actions else self._ale.getMinimalActionSet()
        self._grey = pipeline.colours == "grey"
        self._look = self._ale.getScreenGrayscale if self._grey else self._ale.getScreenRGB
        self._frames: deque[np.ndarray] = deque(maxlen=POOLED if pipeline.max_pool else 1)
        self._area = [area_weights(length, size) for length in SCREEN]
        self._decisions: int | None = None  # of the running episode; None where no episode runs
        self._lives = 0
        self.act_spec = ActSpec(len(self._actions), discrete=True)
        self.obs_spec = {"image": ArraySpec((size, size, 3 if pipeline.colours == "rgb" else 1), "uint8")}

    def reset(self, seed: np.random.SeedSequence) -> Row:
        self._restart(seed)
        return self._row(0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        return self._row(**self._advance(action), first=False)

    def replay(self, seed: np.random.SeedSequence, actions: np.ndarray) -> Row:
        """The row that reset(seed) and step through actions (T, A) lead to; no image is made but its own."""
        if len(actions) == 0:
            return self.reset(seed)
        self._restart(seed)
        for action in actions[:-1]:
            self._advance(action)
        return self.step(actions[-1])

    def close(self) -> None:
        self._ale = self._look = self._decisions = None

    def _restart(self, seed: np.random.SeedSequence) -> None:
        generator = np.random.Generator(np.random.PCG64(seed))
        self._ale.setInt("random_seed", int(generator.integers(SEEDS)))
        self._ale.loadROM(self._rom)
        self._ale.reset_game()
        least, most = self._pipeline.noops
        for _ in range(generator.integers(least, most + 1)):
            self._ale.act(0)
            if self._ale.game_over():
                self._ale.reset_game()
        self._lives, self._decisions = self._ale.lives(), 0
        self._frames.extend([self._look()] * POOLED)

    def _advance(self, action: np.ndarray) -> dict[str, float | bool | int]:
        """Apply the action for R frames, fewer where the game ends; what the row says of it."""
        choice = self._choice(action)
        if self._decisions is None:
            raise ValueError(f"task {self._task!r}: the episode is over; call reset first")
        reward, env_steps, ended = 0.0, 0, False
        while env_steps < self._repeat and not ended:
            reward += self._ale.act(choice)
            env_steps += 1
            ended = self._ends()
            if env_steps > self._repeat - POOLED and (self._pipeline.draw_end or not ended):
                self._frames.append(self._look())
        self._decisions += 1
        over = ended and self._decisions >= self._pipeline.least_decisions
        late = self._decisions >= self._limit
        if over or late:
            self._decisions = None
        terminal = over or (late and self._pipeline.time_limit_is_terminal)
        return {"reward": reward, "last": over or late, "terminal": terminal, "env_steps": env_steps}

    def _ends(self) -> bool:
        lives, before = self._ale.lives(), self._lives
        self._lives = lives
        return self._ale.game_over() or (self._pipeline.life_loss_ends and lives < before)

    def _choice(self, action: np.ndarray):
        return self._actions[check_choice(f"task {self._task!r}", action, self.act_spec.size)]

    def _row(self, reward: float, **facts: bool | int) -> Row:
        return make_row({"image": self._image()}, reward, **facts)

    def _image(self) -> np.ndarray:
        """The frames looked at last, as the agent sees them: (size, size, C) uint8."""
        image = self._shrink(np.maximum.reduce(list(self._frames)))
        if self._grey:
            return image[..., None]
        if self._pipeline.colours == "grey_of_resized":
            return (image * LUMINANCE).sum(-1, keepdims=True).astype(np.uint8)
        return image

    def _shrink(self, frame: np.ndarray) -> np.ndarray:
        if self._pipeline.resize == "area":
            rows, columns = self._area
            return np.rint(np.einsum("ih,hw...,jw->ij...", rows, frame, columns, optimize=True)).astype(np.uint8)
        pillow = importlib.import_module("PIL.Image")
        return np.array(pillow.fromarray(frame).resize((self._size, self._size), pillow.Resampling.BILINEAR))


def area_weights(length: int, size: int) -> np.ndarray:
    """(size, length): how much of each old pixel lies under each new one; rows add up to 1."""
    edges = np.arange(size + 1)[:, None] * (length / size)
    pixels = np.arange(length)[None, :]
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(covered, 0.0) / (length / size)
