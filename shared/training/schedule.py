"""When the loop learns, evaluates and saves: pure arithmetic on the env-step counter.

Every count here is in env_steps (simulator steps, action repeat included), so that resuming can neither lose nor
repeat an update. Read loop.py next.
"""

from pydantic import NonNegativeInt, PositiveInt

from shared.config import Strict


class Schedule(Strict):
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

    def updates_due(self, before: int, after: int) -> int:
        """Updates owed for moving the env-step counter from before to after.

        Additive: due(a, b) + due(b, c) == due(a, c). A fresh run stands at before = -1.
        """
        return self._updates(after) - self._updates(before)

    def evaluation_due(self, before: int, after: int) -> bool:
        """True if an evaluation point lies in (before, after]: the end of prefill, every period after it, the end."""
        return self._crossed(before, after, self.evaluate_every_env_steps) or before < self.total_env_steps <= after

    def checkpoint_due(self, before: int, after: int) -> bool:
        """True if a checkpoint lies in (before, after]; the end of the run needs none."""
        return self._crossed(before, after, self.checkpoint_every_env_steps) and after < self.total_env_steps

    def _updates(self, env_steps: int) -> int:
        if env_steps < self.prefill_env_steps:
            return 0
        periods = (env_steps - self.prefill_env_steps) // self.learn_every_env_steps
        return self.pretrain_updates + self.updates_per_learn * periods

    def _crossed(self, before: int, after: int, every: int) -> bool:
        """Whether a multiple of `every`, counted from the end of prefill, lies in (before, after]."""
        if after < self.prefill_env_steps:
            return False
        start = self.prefill_env_steps
        return before < start or (after - start) // every > (before - start) // every
