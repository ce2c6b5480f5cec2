"""Catch: the smallest game that is played from pixels. A ball falls; a paddle below moves left, stays or moves right.

The task is Catch of Mnih et al., "Recurrent Models of Visual Attention" (2014), and of DeepMind's bsuite, played as a
game is: balls fall one after another (reward 1 for each caught, -1 for each missed), and the fifth miss ends it
(is_terminal). It has what an agent for Atari must deal with (discrete actions, credit seven decisions after the move
that earned it, an early end) and learns within minutes where a game of Atari takes hours: no simulator, no emulator.
"""

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec, Row, check_choice, make_row

TASK = "toy_catch"
CELLS = 8  # columns and rows of the board
LIVES = 5  # misses that end a game
MOVES = (-1, 0, 1)  # of the paddle, per env step; one action each
BALL = (255, 255, 255)
PADDLE = (255, 96, 32)
BOARD = (24, 32, 64)


class Catch:
    """One board of 8 x 8 cells, drawn as (size, size, 3). Actions are one-hot: left, stay, right.

    A ball starts in the top row of a random column and falls one row per env step, so that it arrives after 7. The
    paddle is one cell in the bottom row and can reach every ball whose fall it watches from its beginning. Played at
    random a game lasts about 45 env steps, with a return of -4.3; never missing, an episode of 200 env steps has a
    return of 25. The time limit is no end of the world.
    """

    def __init__(self, task: str, *, size: int, action_repeat: int, time_limit_env_steps: int):
        self.obs_spec = {"image": ArraySpec((size, size, 3), "uint8")}
        self.act_spec = ActSpec(len(MOVES), discrete=True)
        self._task, self._repeat = task, action_repeat
        self._limit = time_limit_env_steps // action_repeat
        self._edges = np.arange(CELLS + 1) * size // CELLS
        self._decisions: int | None = None  # of the running game; None where none runs
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._paddle = self._ball = self._height = self._misses = 0

    def reset(self, seed: np.random.SeedSequence) -> Row:
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._decisions, self._misses = 0, 0
        self._paddle = int(self._generator.integers(CELLS))
        self._drop()
        return make_row(self._observe(), 0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        move = MOVES[check_choice(f"task {self._task!r}", action, len(MOVES))]
        if self._decisions is None:
            raise ValueError(f"task {self._task!r}: the episode is over; call reset first")
        reward, env_steps = 0.0, 0
        while env_steps < self._repeat and self._misses < LIVES:
            reward += self._advance(move)
            env_steps += 1
        self._decisions += 1
        terminal = self._misses >= LIVES
        last = terminal or self._decisions >= self._limit
        if last:
            self._decisions = None
        return make_row(self._observe(), reward, first=False, last=last, terminal=terminal, env_steps=env_steps)

    def close(self) -> None:
        self._decisions = None

    def _advance(self, move: int) -> float:
        """One env step: the paddle moves, the ball falls. A ball in the bottom row is gone with the next step."""
        self._paddle = min(max(self._paddle + move, 0), CELLS - 1)
        if self._height == 0:
            self._drop()
            return 0.0
        self._height -= 1
        if self._height > 0:
            return 0.0
        caught = self._ball == self._paddle
        self._misses += not caught
        return 1.0 if caught else -1.0

    def _drop(self) -> None:
        self._ball, self._height = int(self._generator.integers(CELLS)), CELLS - 1

    def _observe(self) -> dict[str, np.ndarray]:
        image = np.empty((*(self._edges[-1],) * 2, 3), np.uint8)
        image[:] = BOARD
        self._fill(image, self._height, self._ball, BALL)
        self._fill(image, 0, self._paddle, PADDLE)  # over a caught ball; a missed one lies beside it
        return {"image": image}

    def _fill(self, image: np.ndarray, height: int, column: int, colour: tuple[int, int, int]) -> None:
        row = CELLS - 1 - height
        down, across = slice(*self._edges[row : row + 2]), slice(*self._edges[column : column + 2])
        image[down, across] = colour
