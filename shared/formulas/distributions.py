"""Densities, entropies and parameter maps of the categorical latents and of the policies.

Each continuous policy of the papers is a map from two network outputs to parameters (`tanh_normal`, `truncated_normal`,
`bounded_normal`) and a density. A tanh-normal has no entropy in closed form, and Dreamer uses none; a bounded normal is
a plain Gaussian with `gaussian_log_prob` and `gaussian_entropy`. Read sampling.py next.
"""

import math

from shared.formulas._backend import check_shapes, erf, namespace
from shared.formulas._math import log_softmax, sigmoid, softplus
from shared.formulas.elbo import HALF_LOG_TWO_PI, gaussian_log_prob

ACTION_LIMIT = 1 - 2.0**-24                    # code: clips at 0.99999997, in float32 the largest number below 1
BOUNDED_STD_SHIFT = 2.0                        # code: embodied/jax/heads.py; the first std is 0.88 of its range


def categorical_log_prob(x, logits):
    """Log-probability of a class; of a distribution over classes, the negative cross-entropy.

        log p = sum_k x_k * log_softmax(logits)_k

    Args:
      x: one-hot class, or target probabilities such as a two-hot code, (..., K).
      logits: unnormalised log-probabilities, (..., K), finite.
    Returns:
      Nats, (...), <= 0. Gradient to logits x - softmax(logits) where x sums to 1.
    Raises:
      ValueError: the shapes differ.
    Source: discrete policies and latents of DreamerV2 and DreamerV3; DreamerV3's two-hot heads (authors' code
      embodied/jax/outs.py).
    """
    check_shapes("categorical_log_prob", x=x, logits=logits)
    return namespace(x, logits).sum(x * log_softmax(logits), axis=-1)


def categorical_entropy(logits):
    """Entropy of a categorical distribution.

        H = -sum_k p_k log p_k,    p = softmax(logits)

    Args:
      logits: unnormalised log-probabilities, (..., K), finite.
    Returns:
      Nats, (...), 0 to log K. Gradients flow to logits.
    Raises:
      TypeError: logits is no array.
    Source: actor losses of DreamerV2 and DreamerV3 (entropy regulariser).
    """
    xp = namespace(logits)
    log_p = log_softmax(logits)
    return -xp.sum(xp.exp(log_p) * log_p, axis=-1)


def gaussian_entropy(std):
    """Entropy of a Gaussian, elementwise.

        H = log(std) + (log(2 pi) + 1) / 2

    Args:
      std: standard deviation, > 0, (...).
    Returns:
      Nats, (...). Gradient 1 / std.
    Raises:
      TypeError: std is no array.
    Source: DreamerV3, actor loss (entropy regulariser of the bounded normal).
    """
    return namespace(std).log(std) + (HALF_LOG_TWO_PI + 0.5)


def bernoulli_entropy(logits):
    """Entropy of a binary event, elementwise.

        H = -p log p - (1 - p) log(1 - p),    p = sigmoid(logits)

    Args:
      logits: log-odds, (...).
    Returns:
      Nats, (...), 0 to log 2. Gradient -logits * p * (1 - p).
    Raises:
      TypeError: logits is no array.
    Source: Cover and Thomas 2006, section 2.1; a diagnostic of continuation heads, in no loss of the papers.
    """
    return sigmoid(logits) * softplus(-logits) + sigmoid(-logits) * softplus(logits)


def tanh_normal(raw_mean, raw_std, mean_scale, init_std, min_std):
    """Parameters of Dreamer's policy before the tanh, from the outputs of its network.

        mean = c * tanh(raw_mean / c),    std = softplus(raw_std + log(exp(init_std) - 1)) + min_std

    Args:
      raw_mean, raw_std: network outputs, (..., A).
      mean_scale: c, largest mean, > 0, a number (Dreamer: 5).
      init_std: std, less min_std, at raw_std = 0, > 0, a number (Dreamer: 5).
      min_std: smallest std, a number (Dreamer: 1e-4).
    Returns:
      (mean, std), each (..., A). The action is tanh of a Gaussian sample. Gradients flow to both outputs.
    Raises:
      ValueError: the shapes differ.
    Source: Dreamer, action head; authors' code networks/basic.py (TF1), models.py (TF2).
    """
    check_shapes("tanh_normal", raw_mean=raw_mean, raw_std=raw_std)
    xp = namespace(raw_mean, raw_std)
    raw_init_std = init_std + math.log(-math.expm1(-init_std))          # log(exp(s) - 1), no overflow
    return mean_scale * xp.tanh(raw_mean / mean_scale), softplus(raw_std + raw_init_std) + min_std


def tanh_normal_log_prob(action, mean, std):
    """Log-density of an action that is the tanh of a Gaussian sample, elementwise.

        log p = log N(z; mean, std) - 2 * (log 2 - z - softplus(-2 z)),    z = atanh(action)

    Args:
      action: in [-1, 1], (..., A); values beyond +-(1 - 2^-24) count as that.
      mean, std: parameters before the tanh, (..., A), std > 0.
    Returns:
      Nats, (..., A); the caller sums over A. Gradients flow to all arguments, to action only inside the limit.
    Raises:
      ValueError: the shapes differ.
    Source: Dreamer, action head; authors' code tools.py (TF2); Haarnoja et al. 2018, appendix C.
    """
    check_shapes("tanh_normal_log_prob", action=action, mean=mean, std=std)
    xp = namespace(action, mean, std)
    # Not clip: libraries differ in its gradient at the limit.
    above = xp.where(action <= -ACTION_LIMIT, xp.full_like(action, -ACTION_LIMIT), action)
    z = xp.atanh(xp.where(above >= ACTION_LIMIT, xp.full_like(action, ACTION_LIMIT), above))
    log_slope = 2 * (math.log(2) - z - softplus(-2 * z))      # of tanh at z
    return gaussian_log_prob(z, mean, std) - log_slope


def truncated_normal(raw_mean, raw_std, init_std, min_std):
    """Parameters of DreamerV2's continuous policy, from the outputs of its network.

        loc = tanh(raw_mean),    scale = 2 * sigmoid((raw_std + init_std) / 2) + min_std

    Args:
      raw_mean, raw_std: network outputs, (..., A).
      init_std: added to raw_std, a number (DreamerV2: 0).
      min_std: smallest scale, a number (DreamerV2: 0.1).
    Returns:
      (loc, scale), each (..., A): loc in [-1, 1]. Gradients flow to both outputs.
    Raises:
      ValueError: the shapes differ.
    Source: authors' code of DreamerV2, common/nets.py (distribution trunc_normal).
    """
    check_shapes("truncated_normal", raw_mean=raw_mean, raw_std=raw_std)
    return namespace(raw_mean, raw_std).tanh(raw_mean), 2 * sigmoid((raw_std + init_std) / 2) + min_std


def truncated_normal_log_prob(x, loc, scale, low, high):
    """Log-density of a Gaussian that is cut to an interval and renormalised, elementwise.

        log p = log N(x; loc, scale) - log Z,    Z = F(high) - F(low)    inside [low, high],    else -infinity

    Args:
      x: value, (...).
      loc, scale: parameters before cutting, (...), loc in [low, high] (beyond, Z cancels), scale > 0.
      low, high: ends of the interval, numbers.
    Returns:
      Nats, (...). Gradients flow to x, loc and scale.
    Raises:
      ValueError: the shapes differ.
    Source: DreamerV2, continuous control; authors' code common/dists.py.
    """
    check_shapes("truncated_normal_log_prob", x=x, loc=loc, scale=scale)
    xp = namespace(x, loc, scale)
    log_prob = gaussian_log_prob(x, loc, scale) - xp.log(_mass(loc, scale, low, high))
    return xp.where((x < low) | (x > high), xp.full_like(log_prob, -math.inf), log_prob)


def truncated_normal_entropy(loc, scale, low, high):
    """Entropy of a Gaussian that is cut to an interval and renormalised, elementwise.

        H = log(scale Z) + (log(2 pi) + 1) / 2 + (a phi(a) - b phi(b)) / (2 Z),    a, b = (low, high - loc) / scale

    Args:
      loc, scale: parameters before cutting, (...), loc in [low, high], scale > 0.
      low, high: ends of the interval, numbers.
    Returns:
      Nats, (...), at most log(high - low). Gradients flow to loc and scale.
    Raises:
      ValueError: the shapes differ.
    Source: DreamerV2, continuous control; authors' code common/dists.py.
    """
    check_shapes("truncated_normal_entropy", loc=loc, scale=scale)
    xp = namespace(loc, scale)
    mass = _mass(loc, scale, low, high)
    a, b = (low - loc) / scale, (high - loc) / scale
    ends = a * xp.exp(-0.5 * a * a - HALF_LOG_TWO_PI) - b * xp.exp(-0.5 * b * b - HALF_LOG_TWO_PI)
    return xp.log(scale * mass) + (HALF_LOG_TWO_PI + 0.5) + ends / (2 * mass)


def bounded_normal(raw_mean, raw_std, min_std, max_std):
    """Parameters of DreamerV3's continuous policy, a plain Gaussian, from the outputs of its network.

        mean = tanh(raw_mean),    std = (max_std - min_std) * sigmoid(raw_std + 2) + min_std

    Args:
      raw_mean, raw_std: network outputs, (..., A).
      min_std, max_std: range of the std, numbers (DreamerV3: 0.1 and 1).
    Returns:
      (mean, std), each (..., A). Samples are not clipped; the environment does. Gradients flow to both outputs.
    Raises:
      ValueError: the shapes differ, or the range of the std is empty.
    Source: authors' code of DreamerV3, embodied/jax/heads.py (bounded_normal).
    """
    if not 0 <= min_std < max_std:
        raise ValueError(f"bounded_normal: std from {min_std} to {max_std}, expected 0 <= min_std < max_std")
    check_shapes("bounded_normal", raw_mean=raw_mean, raw_std=raw_std)
    spread = (max_std - min_std) * sigmoid(raw_std + BOUNDED_STD_SHIFT)
    return namespace(raw_mean, raw_std).tanh(raw_mean), spread + min_std


def _mass(loc, scale, low, high):
    """Probability of the interval under N(loc, scale). No cancellation for loc inside: the two terms differ in sign."""
    width = scale * math.sqrt(2)
    return 0.5 * (erf((high - loc) / width) - erf((low - loc) / width))
