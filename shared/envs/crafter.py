"""Crafter: an open world seen from above, in which an agent eats, drinks, sleeps, fights and makes tools, to survive.

The simulator is Hafner's own package (crafter 1.8.3; "Benchmarking the Spectrum of Agent Capabilities", 2021), one of
DreamerV3's domains: 1 in a step that unlocks one of 22 achievements, and a tenth of the change in health in every step.
It is imported when an environment is made. Which achievements were unlocked (the "Crafter score") is not recorded: a
row has no place for it. Source of the wrapping: the authors' DreamerV3, embodied/envs/crafter.py. Read spec.py first.
"""

import importlib

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec, Row, check_choice, make_row
from shared.errors import UserError

TASK = "crafter_reward"
LEAST_SIZE = 18  # pixels: nine cells across, and a digit of the inventory needs a cell of two


class Crafter:
    """One world of 64 x 64 cells, of which the image (size, size, 3) shows 9 x 7 above the inventory.

    Args:
      task: "crafter_reward".
      size: height and width of the image, pixels.
      action_repeat: R, env steps per decision, fewer where the episode ends; rewards are summed. The authors' is 1.
      time_limit_env_steps: an episode has at most time_limit_env_steps // R decisions; the package's own limit, 10,000
        env steps, is not used. Only death is terminal (health 0, the package's discount 0), no limit is.

    The 17 actions are one-hot, in the package's order. An episode is a pure function of its seed, its actions and the
    size: a picture of the night is drawn with the world's own random numbers, one per pixel. For that reason there is
    no `replay` that would skip pictures. Every reset makes the package's environment anew, as its seed belongs to that;
    a new world takes a second (noise of every cell, in Python), a step 1.6 ms.
    Raises:
      UserError: the package is not installed, or the image is too small to be drawn.
    """

    def __init__(self, task: str, *, size: int, action_repeat: int, time_limit_env_steps: int):
        if size < LEAST_SIZE:
            raise UserError(f"task {task!r} cannot be drawn with size {size}; take at least {LEAST_SIZE} pixels")
        self._package = package(task)
        self.obs_spec = {"image": ArraySpec((size, size, 3), "uint8")}
        self.act_spec = ActSpec(len(self._package.constants.actions), discrete=True)
        self._task, self._repeat = task, action_repeat
        self._limit = time_limit_env_steps // action_repeat
        self._decisions: int | None = None  # of the running episode; None where none runs
        self._env = None

    def reset(self, seed: np.random.SeedSequence) -> Row:
        drawn = int(seed.generate_state(1)[0])
        self._env = self._package.Env(size=self.obs_spec["image"].shape[:2], length=None, seed=drawn)
        order_creatures(self._env)
        self._decisions = 0
        return self._row(self._env.reset(), 0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        choice = check_choice(f"task {self._task!r}", action, self.act_spec.size)
        if self._decisions is None:
            raise ValueError(f"task {self._task!r}: the episode is over; call reset first")
        reward, env_steps, dead = 0.0, 0, False
        while env_steps < self._repeat and not dead:
            image, earned, _, facts = self._env.step(choice)
            reward += earned
            env_steps += 1
            dead = facts["discount"] == 0
        self._decisions += 1
        last = dead or self._decisions >= self._limit
        if last:
            self._decisions = None
        return self._row(image, reward, first=False, last=last, terminal=dead, env_steps=env_steps)

    def close(self) -> None:
        self._env = self._decisions = None

    def _row(self, image: np.ndarray, reward: float, **facts: bool | int) -> Row:
        return make_row({"image": image}, reward, **facts)


def order_creatures(env) -> None:
    """Let the package see the creatures of a chunk by their place, from now on.

    It keeps them in a set, whose order follows addresses in memory, and draws by that order which one disappears:
    without this the same seed and actions are two episodes in two processes. No two creatures have the same place.
    """
    balance = env._balance_chunk

    def in_order(chunk, creatures):
        balance(chunk, sorted(creatures, key=lambda creature: tuple(creature.pos)))

    env._balance_chunk = in_order


def package(task: str):
    """The module crafter; UserError where it, or something that it needs, is not installed."""
    try:
        return importlib.import_module("crafter")
    except ModuleNotFoundError as error:
        raise UserError(
            f"task {task!r} needs the package crafter, and {error.name} is not installed; `make env` installs it, or "
            "`python -m pip install -r requirements.lock` in your environment"
        ) from error
