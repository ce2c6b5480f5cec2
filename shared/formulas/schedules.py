"""Schedules: numbers that change with the number of updates or steps. Plain numbers, no arrays.

PlaNet's trainer steps (`fires`, `linear_ramp`) count sequences, not updates: every update adds the batch size (code:
training/trainer.py). The settings are in each replication's paper.yaml.
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
    Source: authors' code of PlaNet, tools/schedule.py; PlaNet appendix A (C = 100 updates).
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
    Source: authors' code of PlaNet, tools/schedule.py.
    """
    if step < 0:
        raise ValueError(f"linear_ramp: step must be >= 0, got {step}")
    if ramp == 0:
        return 1.0
    passed = min(step / abs(ramp), 1.0)
    return max(passed if ramp > 0 else 1.0 - passed, floor)


def warmup(step, duration):
    """A factor that rises from 0 to 1.

        warmup = min(step / duration, 1),    1 if duration = 0

    Args:
      step: updates before this one, >= 0 (so the first update's factor is 0: DreamerV3's first step moves nothing).
      duration: length of the rise, updates, >= 0 (DreamerV3: 1000).
    Returns:
      float in [0, 1], no unit. No gradient.
    Raises:
      ValueError: step or duration is negative.
    Source: DreamerV3, optimiser (authors' code dreamerv3/agent.py); DreamerV2 common/other.py (warmup).
    """
    if step < 0 or duration < 0:
        raise ValueError(f"warmup: step and duration must be >= 0, got step={step}, duration={duration}")
    return min(step / duration, 1.0) if duration else 1.0


def linear(step, start, end, duration):
    """A straight line from one value to another, then constant.

        value = (1 - s) * start + s * end,    s = min(max(step / duration, 0), 1)

    Args:
      step: updates or agent steps; negative counts as 0.
      start, end: values at 0 and from `duration` on, any unit.
      duration: length of the line, unit of step, > 0.
    Returns:
      float, unit of the values. No gradient.
    Raises:
      ValueError: duration is not positive.
    Source: DreamerV2, first version: actor entropy and gradient mixing (authors' code common/other.py, linear);
      DreamerV3 dreamerv3/agent.py (annealing, off); Dreamer, exploration on Atari (TF1).
    """
    if not duration > 0:
        raise ValueError(f"linear: duration must be positive, got {duration}")
    share = min(max(step / duration, 0.0), 1.0)
    return (1 - share) * start + share * end


def exponential(step, start, end, half_life):
    """An exponential approach from one value to another.

        value = (start - end) * 2^(-step / half_life) + end

    Args:
      step: updates or agent steps, >= 0.
      start, end: value at 0 and limit, any unit.
      half_life: steps in which the distance halves, > 0.
    Returns:
      float, unit of the values. No gradient.
    Raises:
      ValueError: half_life is not positive.
    Source: Dreamer, exploration noise (TF2 dreamer.py, option expl_decay, off); DreamerV2 common/other.py (exp).
    """
    if not half_life > 0:
        raise ValueError(f"exponential: half_life must be positive, got {half_life}")
    return (start - end) * 2.0 ** (-step / half_life) + end


def horizon_discount(steps):
    """The discount factor whose effective horizon is a number of steps.

        gamma = 1 - 1 / steps

    Args:
      steps: effective horizon, agent steps, >= 1 (DreamerV3: 333).
    Returns:
      float in [0, 1), no unit. No gradient.
    Raises:
      ValueError: steps is below 1.
    Source: DreamerV3 (1 - 1/333; dreamerv3/agent.py); DreamerV2 common/other.py (horizon).
    """
    if not steps >= 1:
        raise ValueError(f"horizon_discount: steps must be >= 1, got {steps}")
    return 1 - 1 / steps
