"""Sampling as a function of parameters and noise; the noise is drawn by the caller (design: decision 10).

The same noise gives the same sample in NumPy, torch and JAX, which is what makes whole models comparable. Gradients
through samples: reparameterisation (Gaussian latents), straight-through (categorical latents). Read planning.py next.
"""

import math

from shared.formulas._backend import (
    check_shapes,
    cumulative_sum,
    erf,
    erfinv,
    indices,
    namespace,
    on_last_axis,
    stop_gradient,
)
from shared.formulas._math import log_softmax, softmax

LARGEST_BELOW_ONE = 1 - 2.0**-24               # in float32; erfinv(1) would be infinite


def reparameterise(mean, std, noise):
    """A Gaussian sample as a differentiable function of its parameters.

        sample = mean + std * noise,    noise ~ N(0, 1)

    Args:
      mean: mean, (..., S).
      std: standard deviation, > 0, (..., S) or a number.
      noise: standard normal draws of the caller, (..., S).
    Returns:
      (..., S), unit of the mean. Gradient 1 to mean and `noise` to std.
    Raises:
      ValueError: the arrays differ in shape.
    Source: Kingma and Welling 2014, section 2.4; latents of PlaNet and Dreamer.
    """
    check_shapes("reparameterise", mean=mean, std=std, noise=noise)
    namespace(mean, std, noise)                               # refuses a mixture of libraries
    return mean + std * noise


def truncated_normal_sample(loc, scale, low, high, uniform):
    """A sample of a normal distribution cut to an interval, as a differentiable function of its parameters.

        sample = F^{-1}(F(low) + u * (F(high) - F(low))),    F the distribution function of N(loc, scale)

    Args:
      loc: mean before cutting, in [low, high], (...).
      scale: standard deviation before cutting, > 0, (...).
      low, high: ends of the interval, numbers (DreamerV2's actions: -1 and 1).
      uniform: draws of the caller, in [0, 1), (...).
    Returns:
      (...), in [low, high], unit of loc. Gradients flow to loc, scale and uniform. In tails beyond 5.42 scales, further
      than float32 can go, the sample is loc +- 5.42 scale, and so is its gradient. At the ends of the interval the
      libraries pass all, half or nothing of it. # ours: the authors' code clips 1e-6 inside and passes the gradient on.
    Raises:
      ValueError: the arrays differ in shape.
    Source: DreamerV2, continuous control (truncated normal policy); authors' code common/dists.py.
    """
    check_shapes("truncated_normal_sample", loc=loc, scale=scale, uniform=uniform)
    xp = namespace(loc, scale, uniform)
    width = scale * math.sqrt(2)
    least = erf((low - loc) / width)
    share = least + uniform * (erf((high - loc) / width) - least)
    share = xp.clip(share, -LARGEST_BELOW_ONE, LARGEST_BELOW_ONE)
    return xp.clip(loc + width * erfinv(share), low, high)


def unimix(logits, mix):
    """Log-probabilities of a categorical distribution mixed with the uniform one, so that none is ever impossible.

        log p_k = log((1 - mix) * softmax(logits)_k + mix / K)

    Args:
      logits: unnormalised log-probabilities, (..., K), finite.
      mix: share of the uniform distribution, in [0, 1], a number (DreamerV3: 0.01).
    Returns:
      (..., K), nats, normalised, >= log(mix / K). Gradients flow to logits.
    Raises:
      ValueError: mix is outside [0, 1].
    Source: DreamerV3, latents (1 % unimix; in the 2023 and 2024 code actions too); authors' code embodied/jax/outs.py.
    """
    if not 0 <= mix <= 1:
        raise ValueError(f"unimix: mix is {mix}, expected 0 to 1 (the share of the uniform distribution)")
    if mix == 0:
        return log_softmax(logits)
    return namespace(logits).log((1 - mix) * softmax(logits) + mix / logits.shape[-1])


def categorical_sample(probs, uniform):
    """A one-hot sample by inversion of the cumulative distribution.

        k = the first class with p_0 + ... + p_k > u * (p_0 + ... + p_{K-1})

    Args:
      probs: probabilities, (..., K), >= 0; their sum may deviate from 1 by rounding.
      uniform: draws of the caller, in [0, 1), (...): one per categorical.
    Returns:
      (..., K), one-hot, dtype of probs; a class of probability 0 is never drawn. NaN in probs or uniform makes its row
      NaN, so that a diverged model shows. No gradient: see `straight_through`.
    Raises:
      ValueError: uniform does not have the shape of probs without its last axis.
    Source: Devroye 1986, section III.2; latents of DreamerV2 and DreamerV3 (there drawn by the library).
    """
    if tuple(uniform.shape) != tuple(probs.shape[:-1]):
        raise ValueError(
            f"categorical_sample: probs {tuple(probs.shape)} and uniform {tuple(uniform.shape)} do not fit; "
            "expected (..., K) and (...)"
        )
    xp = namespace(probs, uniform)
    probs = stop_gradient(probs)
    cumulative = cumulative_sum(probs, axis=-1)               # rounded, so not always ascending
    target = uniform[..., None] * cumulative[..., -1:]
    possible = probs > 0
    k = on_last_axis(indices(probs.shape[-1], probs), probs)
    last = xp.max(xp.where(possible, k, xp.zeros_like(probs)), axis=-1, keepdims=True)
    hit = possible & ((cumulative > target) | (k == last))
    first = xp.min(xp.where(hit, k, xp.full_like(probs, math.inf)), axis=-1, keepdims=True)
    return xp.where(xp.isnan(target), target, xp.astype(k == first, probs.dtype))


def straight_through(sample, probs):
    """A sample that passes its gradient on to the probabilities it was drawn from: biased, but of low variance.

        forward: sample,    backward: probs

    Args:
      sample: one-hot draws (or any function of a draw), (..., K).
      probs: what stands in for it in the backward pass, (..., K).
    Returns:
      (..., K): exactly `sample`, with the gradient of probs; none to sample.
    Raises:
      ValueError: the shapes differ.
    Source: Bengio et al. 2013; latents of DreamerV2 (authors' code common/dists.py) and DreamerV3.
    """
    check_shapes("straight_through", sample=sample, probs=probs)
    namespace(sample, probs)
    return stop_gradient(sample) + (probs - stop_gradient(probs))


def score_through(sample, log_prob):
    """A sample whose gradient is that of its log-probability: the score function, inside a rollout.

        forward: sample,    backward: sample * gradient of log_prob

    Args:
      sample: one-hot draws, (..., K).
      log_prob: log-probability of each draw, nats, (...).
    Returns:
      (..., K): exactly `sample`; gradients flow to log_prob only.
    Raises:
      ValueError: log_prob does not have the shape of sample without its last axis.
    Source: Dreamer's discrete actions, TF1 code distributions/one_hot.py (gradient "score"; the paper says
      straight-through).
    """
    if tuple(log_prob.shape) != tuple(sample.shape[:-1]):
        raise ValueError(
            f"score_through: sample {tuple(sample.shape)} and log_prob {tuple(log_prob.shape)} do not fit; "
            "expected (..., K) and (...)"
        )
    namespace(sample, log_prob)
    sample = stop_gradient(sample)
    return sample + sample * (log_prob - stop_gradient(log_prob))[..., None]
