"""What an environment shows and takes: specs, rows and the Env protocol. The only file of envs that the loop imports.

The row convention below is obeyed by every environment, by the replay buffer and by every agent.
Read next: vector.py (several environments at once), then dmc.py (pixels of dm_control) or toy.py (tests).

    row t      obs_t   reward_t   is_first_t   is_last_t   is_terminal_t   env_steps_t   action_t
               ^seen   ^received                                           ^spent        ^chosen HERE, by the caller;
                        on arriving at obs_t (0 where is_first)                           its effect is row t+1

An episode is a row with is_first, further rows, and a row with is_last; the action of the last row has no effect.
is_terminal: the world ended (no future reward exists). A time-out has is_last without is_terminal.
env_steps: simulator steps spent to reach the row; 0 where is_first, then the action repeat, fewer if the episode
ended inside a repeat. Agent steps (decisions) are rows without is_first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Row = Mapping[str, np.ndarray]  # observations, and the six of ROW_DTYPES
Rows = Mapping[str, np.ndarray]  # the same with a leading (N,), one entry per environment
ROW_DTYPES = {
    "reward": "float32",
    "is_first": "bool",
    "is_last": "bool",
    "is_terminal": "bool",
    "env_steps": "int64",
}


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one observation, without batch or time."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ActSpec:
    """An action has `size` entries: in [-1, 1] each, or one-hot where discrete."""

    size: int
    discrete: bool = False


ObsSpec = Mapping[str, ArraySpec]  # {"image": ArraySpec((64, 64, 3), "uint8")}


class Env(Protocol):
    """One environment. An episode is a pure function of its seed and its actions, also in another process.

    An environment may also have `replay(seed, actions) -> Row`, equal to reset and step through actions (T, A) but
    free to skip the images nobody sees; vector.py uses it to continue from a checkpoint.
    """

    obs_spec: ObsSpec
    act_spec: ActSpec

    def reset(self, seed: np.random.SeedSequence) -> Row:
        """Start the episode that belongs to this seed; returns its first row."""

    def step(self, action: np.ndarray) -> Row:
        """Apply one action (A,) float32 in [-1, 1] for the whole action repeat; returns the row arrived at."""

    def close(self) -> None:
        """Free what the environment holds; may be called twice."""


def make_row(obs: Mapping[str, np.ndarray], reward: float, *, first: bool, last: bool, terminal: bool, env_steps: int):
    """One row in the dtypes of the convention."""
    values = {"reward": reward, "is_first": first, "is_last": last, "is_terminal": terminal, "env_steps": env_steps}
    return {**obs, **{key: np.array(value, ROW_DTYPES[key]) for key, value in values.items()}}


def check_action(where: str, action: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The action as float32; ValueError unless it has this shape and lies in [-1, 1] (NaN does not)."""
    action = np.asarray(action, np.float32)
    if action.shape != shape:
        raise ValueError(f"{where}: action has shape {action.shape}, expected {shape}")
    inside = np.abs(action) <= 1.0
    if not inside.all():
        value = action[~inside].flat[0]
        raise ValueError(f"{where}: action {value} is outside [-1, 1]; clip or squash it before it is applied")
    return action


def check_choice(where: str, action: np.ndarray, count: int) -> int:
    """The index that a one-hot action of `count` entries chooses; ValueError unless it is one-hot."""
    action = check_action(where, action, (count,))
    if np.count_nonzero(action) != 1 or action.max() != 1.0:
        raise ValueError(f"{where}: action {action} is not one-hot: one entry must be 1, all others 0")
    return int(action.argmax())
