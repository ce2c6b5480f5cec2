"""Running statistics that bring returns, advantages and rewards to one size, and target networks to a slow pace.

DreamerV3 divides returns by the range between their 5th and 95th percentile; DreamerV2 could divide rewards by a
running magnitude. The state (an array or two) lives in the agent. Read optimisers.py next.
"""

from shared.formulas._backend import check_shapes, namespace


def percentile(x, q):
    """The value below which q percent of all elements lie, interpolated linearly.

        i = q / 100 * (n - 1),    p = x_(floor i) + (i - floor i) * (x_(floor i + 1) - x_(floor i))    (x sorted)

    Args:
      x: values, any shape, n >= 1 elements.
      q: percent, 0 to 100, a number.
    Returns:
      (), unit of x; NaN if any element is. Gradients flow to the two elements in question; the papers stop them.
    Raises:
      ValueError: q is outside 0 to 100, or x is empty.
    Source: DreamerV3, return normaliser (percentiles 5 and 95); authors' code embodied/jax/utils.py.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"percentile: q is {q}, expected 0 to 100 (percent, not a fraction)")
    xp = namespace(x)
    ordered = xp.sort(xp.reshape(x, (-1,)))
    count = ordered.shape[0]
    if count == 0:
        raise ValueError(f"percentile: x is empty, shape {tuple(x.shape)}")
    position = q / 100 * (count - 1)
    below = int(position)
    above = min(below + 1, count - 1)
    largest = ordered[-1]                                     # NaN sorts last: a diverged value must not go unseen
    value = ordered[below] + (position - below) * (ordered[above] - ordered[below])
    return xp.where(largest == largest, value, largest)


def ema(old, new, rate):
    """Exponential moving average; of weights: a slowly moving target network (Polyak averaging).

        ema = (1 - rate) * old + rate * new

    Args:
      old: the average so far, (...).
      new: what joins it, (...).
      rate: share of `new`, in [0, 1], a number: 0 keeps `old`, 1 copies `new`, both exactly for finite values.
    Returns:
      (...), unit of the values. Gradients flow to both; the papers stop them.
    Raises:
      ValueError: the shapes differ.
    Source: DreamerV3, return normaliser (rate 0.01) and slow critic (0.02), authors' code embodied/jax/utils.py;
      DreamerV2, target critic (1, every 100 updates), agent.py.
    """
    check_shapes("ema", old=old, new=new)
    namespace(old, new)
    return (1 - rate) * old + rate * new


def debias(average, weight, rate):
    """An average that began at 0, freed of the zeros it began with.

        debias = average / max(weight, rate)

    Args:
      average: `ema` of values, from 0, (...).
      weight: the same average of ones, (), so 1 - (1 - rate)^updates.
      rate: rate of both averages, > 0, a number; guards the division before the first update.
    Returns:
      (...), unit of the values. Gradients flow to average.
    Raises:
      ValueError: rate is not positive.
    Source: authors' code of DreamerV3, embodied/jax/utils.py (option debias; off for returns).
    """
    if not rate > 0:
        raise ValueError(f"debias: rate is {rate}, expected the positive rate of the average")
    namespace(average, weight)
    return average / _at_least(weight, rate)


def return_range(low, high, limit):
    """What returns are divided by: their spread, but never less than a limit, so that small returns stay small.

        S = max(limit, high - low)

    Args:
      low, high: running percentiles of the returns, (...).
      limit: smallest range, > 0, unit of the returns (DreamerV3: 1).
    Returns:
      S, (...), unit of the returns. Gradients flow where the spread exceeds the limit; the papers stop them.
    Raises:
      ValueError: the shapes differ.
    Source: DreamerV3, return normaliser (limit 1); authors' code embodied/jax/utils.py.
    """
    check_shapes("return_range", low=low, high=high)
    namespace(low, high)
    return _at_least(high - low, limit)


def moments_std(mean, mean_square, limit):
    """Standard deviation from running first and second moments, never less than a limit.

        std = max(limit, sqrt(max(0, mean_square - mean^2)))

    Args:
      mean, mean_square: running moments, (...).
      limit: smallest standard deviation, > 0, unit of the mean.
    Returns:
      (...), unit of the mean. Meant to be called outside of differentiation.
    Raises:
      ValueError: the shapes differ.
    Source: authors' code of DreamerV3, embodied/jax/utils.py (option meanstd, an ablation).
    """
    check_shapes("moments_std", mean=mean, mean_square=mean_square)
    xp = namespace(mean, mean_square)
    return _at_least(xp.sqrt(_at_least(mean_square - mean * mean, 0.0)), limit)


def magnitude_scaled(x, magnitude, eps):
    """Rewards divided by their running mean size.

        y = x / (magnitude + eps),    magnitude <- ema(magnitude, mean |x|, 1 - momentum)

    Args:
      x: rewards, (...).
      magnitude: running mean of |x|, (), 1 before the first update (momentum 1, DreamerV2's setting, leaves it there).
      eps: guard, > 0, unit of x (DreamerV2: 1e-8).
    Returns:
      y, (...), no unit. Gradients flow to x.
    Raises:
      TypeError: x and magnitude come from different libraries.
    Source: authors' code of DreamerV2 (reward normaliser, configs.yaml: momentum 1, so off in the published runs).
    """
    namespace(x, magnitude)
    return x / (magnitude + eps)


def _at_least(x, limit):
    xp = namespace(x)
    return xp.maximum(x, xp.zeros_like(x) + limit)            # not full_like: integers would cut the limit down
