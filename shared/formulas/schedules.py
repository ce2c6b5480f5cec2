"""Schedules over PlaNet's trainer steps: when to collect an episode, and a linear ramp. Plain numbers, no arrays.

A trainer step counts sequences, not updates: every update adds the batch size
(code: training/trainer.py). The agent's settings of these numbers are in replications/planet/paper.yaml.
"""


def fires(step, after, every, until, batch):
    """Whether a periodic action is due in the update that starts at `step`.

        fires = step >= after  and  (until <= 0 or step < until)  and  (step - after) mod every < batch

    Args:
      step: trainer steps (sequences) before this update, a multiple of batch.
      after: first trainer step that fires.
      every: period, trainer steps, > 0.
      until: first trainer step that no longer fires; <= 0 = never ends.
      batch: trainer steps per update, > 0.
    Returns:
      bool. No gradient.
    Raises:
      ValueError: every or batch is not positive.
    Source: authors' code tools/schedule.py (`binary`); PlaNet Algorithm 1 (C = 100 updates).
    """
    if every <= 0 or batch <= 0:
        raise ValueError(f"fires: every and batch must be positive, got every={every}, batch={batch}")
    return step >= after and (until <= 0 or step < until) and (step - after) % every < batch


def linear_ramp(step, ramp, floor):
    """A factor that rises from 0 to 1, or falls from 1 to 0, over a number of trainer steps.

        ramp = 0: 1,    ramp > 0: min(step / ramp, 1),    ramp < 0: 1 - min(step / |ramp|, 1);    at least `floor`

    Args:
      step: trainer steps, >= 0.
      ramp: length of the ramp, trainer steps; the sign says its direction.
      floor: smallest value returned, in [0, 1].
    Returns:
      float in [floor, 1], no unit. No gradient.
    Raises:
      ValueError: step is negative.
    Source: authors' code tools/schedule.py (`linear`).
    """
    if step < 0:
        raise ValueError(f"linear_ramp: step must be >= 0, got {step}")
    if ramp == 0:
        return 1.0
    passed = min(step / abs(ramp), 1.0)
    return max(passed if ramp > 0 else 1.0 - passed, floor)
