"""What the loop needs from an agent: five methods, NumPy in and NumPy out. Read loop.py next.

Agents never see the environment, the replay, the clock, the logger or each other. Differences between the papers are
data (Schedule) or live inside `act` and `learn`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, SupportsFloat

import numpy as np

from shared.envs.spec import ObsSpec

Arrays = Mapping[str, np.ndarray]  # rows as drawn in shared/envs/spec.py
Carry = Mapping[str, Any]  # an agent's recurrent state by name; the loop never looks inside


class Acted(NamedTuple):
    """action: (N, A) float32, continuous in [-1, 1] or one-hot. memo: (N, ...), stored in replay beside the row."""

    action: np.ndarray
    carry: Carry
    memo: Arrays


class Learned(NamedTuple):
    """metrics: scalars that may still live on a device; only the recorder calls float(), on the updates it writes.

    memo: (B, T, ...), overwrites the memo of the T rows that were learned from; {} for agents without one.
    """

    metrics: Mapping[str, SupportsFloat]
    memo: Arrays


class Agent(Protocol):
    """The five methods. A carry is a mapping of arrays: a checkpoint writes it as NumPy, and `act` takes that back."""

    def initial_carry(self, num_envs: int) -> Carry:
        """Belief before the first observation of num_envs episodes."""

    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Update the belief with the rows obs (N, ...) and choose. Rows with is_first restart their carry."""

    def learn(self, batch: Arrays) -> Learned:
        """One gradient update on (B, T) rows: world model and, where there is one, behaviour."""

    def save(self) -> Mapping[str, Any]:
        """Everything needed to continue bit-exactly: parameters, optimisers, generators, counters."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what save returned."""


class Remembers(Protocol):
    """What an agent with memos has beside the five methods; its replay is shared/replay/streams.py.

    A batch for its `learn` has one context row before the T rows to learn from: every column is (B, 1 + T, ...), and
    every memo, as it is stored at the context row, (B, 1, ...).
    """

    memo_spec: ObsSpec  # name -> shape and dtype of one row's memo


class Dreams(Protocol):
    """A second, separate protocol for the figures that show predictions."""

    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """truth and prediction, (B, T, H, W, C) uint8.

        truth: the batch's images as the model sees them. prediction: reconstructed for the first `context` rows,
        imagined from the actions alone after.
        """


class Weights(Protocol):
    """Another one: parameters by name, for the safetensors file beside a finished run."""

    def parameters(self) -> Arrays:
        """Name -> float32 array, in torch's layouts."""
