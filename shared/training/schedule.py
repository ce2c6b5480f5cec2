"""When the loop learns, evaluates and saves: pure arithmetic on two counters of the loop.

Evaluations and checkpoints go by env_steps (simulator steps, action repeat included). Updates go by env_steps too
(Schedule: PlaNet, Dreamer, DreamerV2) or by rows (RatioSchedule: DreamerV3). What is owed is a function of the counter
alone, so that resuming can neither lose nor repeat an update. Read loop.py next.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from shared.config import Strict


class Dates:
    """Evaluations and checkpoints of either plan. A fresh run stands at before = -1."""

    total_env_steps: int
    prefill_env_steps: int  # the first evaluation and the first checkpoint fall here
    evaluate_every_env_steps: int
    checkpoint_every_env_steps: int

    def evaluation_due(self, before: int, after: int) -> bool:
        """True if an evaluation point lies in (before, after]: the end of prefill, every period after it, the end."""
        return self._crossed(before, after, self.evaluate_every_env_steps) or before < self.total_env_steps <= after

    def checkpoint_due(self, before: int, after: int) -> bool:
        """True if a checkpoint lies in (before, after]; the end of the run needs none."""
        return self._crossed(before, after, self.checkpoint_every_env_steps) and after < self.total_env_steps

    def _crossed(self, before: int, after: int, every: int) -> bool:
        """Whether a multiple of `every`, counted from the end of prefill, lies in (before, after]."""
        if after < self.prefill_env_steps:
            return False
        start = self.prefill_env_steps
        return before < start or (after - start) // every > (before - start) // every


class Schedule(Dates, Strict):
    """Cadence of one run.

    Updates owed at env step x:  0 before prefill_env_steps, then
    pretrain_updates + updates_per_learn * floor((x - prefill_env_steps) / learn_every_env_steps).
    """

    total_env_steps: PositiveInt
    prefill_env_steps: NonNegativeInt
    learn_every_env_steps: PositiveInt
    updates_per_learn: PositiveInt
    pretrain_updates: NonNegativeInt
    evaluate_every_env_steps: PositiveInt
    checkpoint_every_env_steps: PositiveInt
    learns_by: ClassVar[Literal["env_steps"]] = "env_steps"  # the counter of the loop that updates_due looks at

    def updates_due(self, before: int, after: int) -> int:
        """Updates owed for moving the env-step counter from before to after.

        Additive: due(a, b) + due(b, c) == due(a, c). A fresh run stands at before = -1.
        """
        return self._updates(after) - self._updates(before)

    @property
    def random_until(self) -> int:
        """Below this count of env steps the actions are random."""
        return self.prefill_env_steps

    def _updates(self, env_steps: int) -> int:
        if env_steps < self.prefill_env_steps:
            return 0
        periods = (env_steps - self.prefill_env_steps) // self.learn_every_env_steps
        return self.pretrain_updates + self.updates_per_learn * periods


class RatioSchedule(Strict):
    """The settings of a run that learns in proportion to the rows that it receives (DreamerV3's train ratio)."""

    total_env_steps: PositiveInt
    train_ratio: PositiveInt  # replayed steps per row received, rows of all environments and resets included
    fill_windows: PositiveInt  # windows in replay before the first update
    evaluate_every_env_steps: PositiveInt
    checkpoint_every_env_steps: PositiveInt

    def plan(self, envs: int, *, window: int, steps: int, random_fill: bool) -> "RatioPlan":
        """The plan of a run.

        Args:
          envs: environments that are played side by side.
          window: rows of a window, context included.
          steps: replayed by one update, B T, context left out.
          random_fill: whether actions are random until the first update; otherwise they are the untrained agent's.
        """
        return RatioPlan(
            total_env_steps=self.total_env_steps,
            evaluate_every_env_steps=self.evaluate_every_env_steps,
            checkpoint_every_env_steps=self.checkpoint_every_env_steps,
            train_ratio=self.train_ratio,
            steps=steps,
            first_update=envs * (window - 1) + self.fill_windows,
            random_fill=random_fill,
        )


@dataclass(frozen=True)
class RatioPlan(Dates):
    """Cadence of one such run.

    Updates owed at row x:  0 before first_update, then 1 + floor((x - first_update) train_ratio / steps).
    Source: DreamerV3, authors' code embodied/run/train.py:25,70-79 (with elements.when.Ratio, which carries fractions
    over and catches up nothing from before the first update). The rows come one by one, and updates fall between them.
    """

    total_env_steps: int
    evaluate_every_env_steps: int
    checkpoint_every_env_steps: int
    train_ratio: int
    steps: int  # replayed by one update, B T
    first_update: int  # the row that completes the last window that the fill asks for
    random_fill: bool
    prefill_env_steps: ClassVar[int] = 0
    learns_by: ClassVar[Literal["rows"]] = "rows"

    @property
    def random_until(self) -> int:
        """Below this count of rows the actions are random."""
        return self.first_update if self.random_fill else 0

    def updates_due(self, before: int, after: int) -> int:
        """Updates owed for moving the counter of rows from before to after. Additive, as Schedule's."""
        return self._updates(after) - self._updates(before)

    def _updates(self, rows: int) -> int:
        if rows < self.first_update:
            return 0
        return 1 + (rows - self.first_update) * self.train_ratio // self.steps
