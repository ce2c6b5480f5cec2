"""Transformations that let one set of hyperparameters meet rewards of any size: DreamerV3's symlog and two-hot code.

Read normalization.py next.
"""

import numpy as np

from shared.formulas._backend import namespace, on_last_axis, reached, two_entries


def symlog(x):
    """Logarithm of both signs: linear near zero, logarithmic far from it.

        symlog(x) = sign(x) * log(1 + |x|)

    Args:
      x: any real number, (...).
    Returns:
      (...), the inverse of `symexp`. Gradient 1 / (1 + |x|), 1 at zero (the authors' product of sign and logarithm
      has 0 there).
    Raises:
      TypeError: x is no array.
    Source: DreamerV3, symlog observations and vector decoder; symexp two-hot bins.
    """
    sign = _sign(x)
    return sign * namespace(x).log1p(sign * x)


def symexp(x):
    """Exponential of both signs.

        symexp(x) = sign(x) * (exp(|x|) - 1)

    Args:
      x: any real number, (...); beyond 88 in float32 the result is infinite.
    Returns:
      (...), the inverse of `symlog`. Gradient exp(|x|), 1 at zero.
    Raises:
      TypeError: x is no array.
    Source: DreamerV3, symlog observations and vector decoder; symexp two-hot bins.
    """
    sign = _sign(x)
    return sign * namespace(x).expm1(sign * x)


def _sign(x):
    """1 or -1; 1 at zero, where 0 would hide the gradient."""
    return 1 - 2 * namespace(x).astype(x < 0, x.dtype)


def symexp_bins(count, low, high):
    """Supports of a two-hot distribution, exponentially spaced and exactly symmetric.

        b = symexp(linspace(low, high, count))    (odd count)

    The negative half is built and mirrored, as the authors do. An even count therefore has TWO zero bins in the middle,
    unlike symexp of an even grid.

    Args:
      count: number of bins K, >= 2 (DreamerV3: 255).
      low, high: ends of the grid before symexp, low = -high < 0 (DreamerV3: -20 and 20, so that bins end at 4.85e8).
    Returns:
      (K,), NumPy float64, ascending; the agent converts it once. No gradient.
    Raises:
      ValueError: count is below 2, or the ends are not symmetric.
    Source: DreamerV3, reward and value heads; authors' code embodied/jax/heads.py.
    """
    if not isinstance(count, (int, np.integer)) or count < 2:
        raise ValueError(f"symexp_bins: count is {count}, expected a whole number of at least 2")
    if not (high > 0 and low == -high):
        raise ValueError(f"symexp_bins: ends {low} and {high}, expected symmetric ones: low = -high < 0, e.g. -20, 20")
    half = symexp(np.linspace(low, 0, (count + 1) // 2))
    return np.concatenate([half, -half[: count // 2][::-1]])


def twohot(x, bins):
    """A number as weights of its two neighbouring bins: a one-hot code without rounding.

        w_k = (b_{k+1} - x) / (b_{k+1} - b_k),    w_{k+1} = (x - b_k) / (b_{k+1} - b_k)    for b_k <= x < b_{k+1}

    Args:
      x: numbers to encode, (...); beyond the ends they count as the end bin.
      bins: b_k, (K,), K >= 2, ascending, unit of x; equal neighbours are allowed, but not at the upper end.
    Returns:
      w_k, (..., K), >= 0, sum 1 up to rounding, 0 for all other bins. Gradients flow to x inside the range; the papers
      stop them, for x is a target. NaN stays NaN.
    Raises:
      ValueError: bins is not (K,) with K >= 2.
    Source: DreamerV3, reward and value heads; authors' code embodied/jax/outs.py; Bellemare et al. 2017 (projection).
    """
    if bins.ndim != 1 or bins.shape[0] < 2:
        raise ValueError(f"twohot: bins must be (K,) with K >= 2, got shape {tuple(bins.shape)}")
    xp = namespace(x, bins)
    count = bins.shape[0]
    x = xp.where(x < bins[0], bins[0], xp.where(x > bins[-1], bins[-1], x))
    below = xp.clip(reached(bins, x) - 1, 0, count - 2)
    left, right = (xp.reshape(xp.take(bins, xp.reshape(k, (-1,)), axis=0), x.shape) for k in (below, below + 1))
    # Each weight from its own distance: 1 - upper would keep no digit of a small lower weight.
    return two_entries(below, (right - x) / (right - left), (x - left) / (right - left), count)


def twohot_mean(probs, bins):
    """Expectation of a distribution over symmetric bins, summed in pairs from the centre outwards.

        mean = p_c b_c + sum_j (p_{c-j} b_{c-j} + p_{c+j} b_{c+j})

    Ends of +-5e8 cancel pair by pair before they meet the small bins: uniform probabilities give exactly 0, so that a
    zero-initialised head predicts 0. (The authors' sum does so too, until a compiler fuses its products and sums.)

    Args:
      probs: p_k, (..., K), >= 0, sum 1.
      bins: b_k, (K,), K >= 2, as `symexp_bins` makes them.
    Returns:
      (...), unit of the bins. Gradients flow to probs and bins.
    Raises:
      ValueError: bins is not (K,), or K differs from the last axis of probs.
    Source: DreamerV3, reward and value heads; authors' code embodied/jax/outs.py.
    """
    if bins.ndim != 1 or bins.shape[0] < 2 or probs.shape[-1] != bins.shape[0]:
        raise ValueError(
            f"twohot_mean: probs {tuple(probs.shape)} and bins {tuple(bins.shape)} do not fit; "
            "expected (..., K) and (K,) with K >= 2"
        )
    xp = namespace(probs, bins)
    half = bins.shape[0] // 2
    b = on_last_axis(bins, probs)
    left, b_left = xp.flip(probs[..., :half], axis=-1), xp.flip(b[..., :half], axis=-1)
    right, b_right = probs[..., -half:], b[..., -half:]
    # left * b_left + right * b_right as products that vanish by themselves for equal probabilities of opposite bins
    pairs = (right - left) * b_right + left * (b_right + b_left)
    total = xp.sum(pairs, axis=-1)
    return total if bins.shape[0] % 2 == 0 else total + probs[..., half] * b[..., half]
