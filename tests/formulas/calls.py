"""Calls of every formula that takes arrays, with ordinary arguments: for what holds for the core as a whole.

Batch axes are 4 and 5, so that no two axes agree by accident. After a comma: another way through the same formula.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.formulas import (
    distributions,
    divergences,
    elbo,
    images,
    normalization,
    optimisers,
    planning,
    returns,
    sampling,
    sequences,
    transforms,
)

RNG = np.random.default_rng(0)
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-4}
LAPROP = {"lr": 4e-5, "beta1": 0.9, "beta2": 0.999, "eps": 1e-20}


def real(*shape):
    return RNG.normal(size=shape)


def positive(*shape):
    return RNG.uniform(0.3, 2.0, shape)


def share(*shape):
    return RNG.uniform(0.01, 0.99, shape)


def simplex(*shape):
    return RNG.dirichlet(np.ones(shape[-1]), shape[:-1])


def one_hot(*shape):
    return np.eye(shape[-1])[RNG.integers(shape[-1], size=shape[:-1])]


@dataclass(frozen=True)
class Call:
    """function(*arguments): the formula, with its numbers filled in.

    rigid: places of the arguments whose shape the others fix; with one axis more, they must be refused.
    """

    function: Callable
    arguments: tuple[np.ndarray, ...]
    rigid: tuple[int, ...]


def call(function, *arguments, rigid=None):
    return Call(function, arguments, tuple(range(len(arguments))) if rigid is None else rigid)


def overshooting(post_mean, post_std, prior_mean, prior_std, mask):
    return elbo.overshooting_kl(post_mean, post_std, prior_mean, prior_std, mask, 0.5)


def clip_two(first, second):
    return optimisers.clip_by_global_norm([first, second], 1.0)


def balance(post, prior):
    return divergences.balanced(divergences.categorical_kl, post, prior, 0.8)


def balance_gaussians(post_mean, post_std, prior_mean, prior_std):
    def kl(post, prior):
        return divergences.gaussian_kl(*post, *prior)

    return divergences.balanced(kl, (post_mean, post_std), (prior_mean, prior_std), 0.8)


BINS = transforms.symexp_bins(9, -3, 3)
MASK = elbo.overshooting_mask(5, 2, np.array([5, 3, 4, 1]))
PIXELS = np.floor(RNG.uniform(0, 256, (4, 5)))

CALLS = {
    "distributions.categorical_log_prob": call(distributions.categorical_log_prob, simplex(4, 5, 3), real(4, 5, 3)),
    "distributions.categorical_entropy": call(distributions.categorical_entropy, real(4, 5, 3)),
    "distributions.gaussian_entropy": call(distributions.gaussian_entropy, positive(4, 5)),
    "distributions.bernoulli_entropy": call(distributions.bernoulli_entropy, real(4, 5)),
    "distributions.tanh_normal": call(
        lambda m, s: distributions.tanh_normal(m, s, 5.0, 5.0, 1e-4), real(4, 5), real(4, 5)
    ),
    "distributions.tanh_normal_log_prob": call(
        distributions.tanh_normal_log_prob, share(4, 5), real(4, 5), positive(4, 5)
    ),
    "distributions.truncated_normal": call(
        lambda m, s: distributions.truncated_normal(m, s, 0.0, 0.1), real(4, 5), real(4, 5)
    ),
    "distributions.truncated_normal_log_prob": call(
        lambda x, m, s: distributions.truncated_normal_log_prob(x, m, s, -1.0, 1.0),
        share(4, 5), share(4, 5), positive(4, 5),
    ),
    "distributions.truncated_normal_entropy": call(
        lambda m, s: distributions.truncated_normal_entropy(m, s, -1.0, 1.0), share(4, 5), positive(4, 5)
    ),
    "distributions.bounded_normal": call(
        lambda m, s: distributions.bounded_normal(m, s, 0.1, 1.0), real(4, 5), real(4, 5)
    ),
    "divergences.categorical_kl": call(divergences.categorical_kl, real(4, 5, 3), real(4, 5, 3)),
    "divergences.gaussian_kl": call(divergences.gaussian_kl, real(4, 5), positive(4, 5), real(4, 5), positive(4, 5)),
    "divergences.balanced": call(balance, real(4, 5, 3), real(4, 5, 3)),
    "divergences.floor_nats": call(lambda x: divergences.floor_nats(x, 0.2), real(4, 5)),
    "elbo.gaussian_log_prob": call(elbo.gaussian_log_prob, real(4, 5), real(4, 5), positive(4, 5)),
    "elbo.bernoulli_log_prob": call(elbo.bernoulli_log_prob, share(4, 5), real(4, 5)),
    "elbo.info_nce": call(elbo.info_nce, real(5), real(4, 5), rigid=(0,)),
    "elbo.overshooting_starts": call(elbo.overshooting_starts, real(4, 5, 3)),
    "elbo.overshooting_windows": call(lambda x: elbo.overshooting_windows(x, 2), real(4, 5, 3)),
    "elbo.overshooting_mask": call(lambda lengths: elbo.overshooting_mask(5, 2, lengths), np.array([5, 3, 4, 1])),
    "elbo.overshooting_kl": call(
        overshooting, real(4, 5, 3), positive(4, 5, 3), real(4, 5, 3, 3), positive(4, 5, 3, 3), MASK
    ),
    "images.centre": call(images.centre, PIXELS),
    "images.quantise": call(lambda image, noise: images.quantise(image, 5, noise), PIXELS, share(4, 5)),
    "images.dequantise": call(lambda image: images.dequantise(image, 5), share(4, 5) - 0.5),
    "images.dequantise_uint8": call(lambda image: images.dequantise_uint8(image, 5), share(4, 5) - 0.5),
    "normalization.percentile": call(lambda x: normalization.percentile(x, 95.0), real(4, 5)),
    "normalization.ema": call(lambda old, new: normalization.ema(old, new, 0.02), real(4, 5), real(4, 5)),
    "normalization.debias": call(lambda x, w: normalization.debias(x, w, 0.01), real(4), share(), rigid=()),
    "normalization.return_range": call(lambda low, high: normalization.return_range(low, high, 1.0), real(4), real(4)),
    "normalization.moments_std": call(lambda m, s: normalization.moments_std(m, s, 1e-8), share(4), 1 + share(4)),
    "normalization.magnitude_scaled": call(
        lambda x, m: normalization.magnitude_scaled(x, m, 1e-8), real(4), positive(), rigid=()
    ),
    "optimisers.clip_by_global_norm": call(clip_two, real(4, 5), real(3), rigid=()),
    "optimisers.adam_tf": call(
        lambda *state: optimisers.adam_tf(*state, 3, **ADAM), real(4, 5), real(4, 5), real(4, 5), positive(4, 5)
    ),
    "optimisers.adaptive_clip": call(lambda p, g: optimisers.adaptive_clip(p, g, 0.3, 1e-3), real(4, 5), real(4, 5)),
    "optimisers.laprop": call(
        lambda *state: optimisers.laprop(*state, 3, **LAPROP), real(4, 5), real(4, 5), real(4, 5), positive(4, 5)
    ),
    "planning.refit": call(lambda a, r: planning.refit(a, r, 3, std="code"), real(2, 5, 4, 3), real(2, 5)),
    "returns.lambda_return": call(
        returns.lambda_return, real(5, 4), share(5, 4), real(5, 4), share(5, 4)
    ),
    "returns.discount_weights": call(returns.discount_weights, share(5, 4)),
    "sampling.reparameterise": call(sampling.reparameterise, real(4, 5), positive(4, 5), real(4, 5)),
    "sampling.truncated_normal_sample": call(
        lambda m, s, u: sampling.truncated_normal_sample(m, s, -1.0, 1.0, u), share(4, 5), positive(4, 5), share(4, 5)
    ),
    "sampling.unimix": call(lambda logits: sampling.unimix(logits, 0.01), real(4, 5, 3)),
    "sampling.categorical_sample": call(sampling.categorical_sample, simplex(4, 5, 3), share(4, 5)),
    "sampling.straight_through": call(sampling.straight_through, one_hot(4, 5, 3), simplex(4, 5, 3)),
    "sampling.score_through": call(sampling.score_through, one_hot(4, 5, 3), -positive(4, 5)),
    "sequences.previous_actions": call(
        sequences.previous_actions, real(4, 5, 3), RNG.random((4, 5)) < 0.3, real(4, 3)
    ),
    "sequences.reset_where_first": call(
        sequences.reset_where_first, real(4, 5), np.array([True, False, False, True]), rigid=(1,)
    ),
    "transforms.symlog": call(transforms.symlog, real(4, 5)),
    "transforms.symexp": call(transforms.symexp, real(4, 5)),
    "transforms.twohot": call(transforms.twohot, real(4, 5), BINS, rigid=(1,)),
    "transforms.twohot_mean": call(transforms.twohot_mean, simplex(4, 5, 9), BINS, rigid=(1,)),
    "transforms.twohot_mean, even": call(transforms.twohot_mean, simplex(4, 5, 8), np.delete(BINS, 4), rigid=(1,)),
    "divergences.balanced, Gaussian": call(balance_gaussians, real(4, 5), positive(4, 5), real(4, 5), positive(4, 5)),
    "elbo.gaussian_log_prob, unit": call(lambda x, mean: elbo.gaussian_log_prob(x, mean, 1.0), real(4, 5), real(4, 5)),
    "images.quantise, no noise": call(lambda image: images.quantise(image, 5), PIXELS),
    "optimisers.laprop, nesterov": call(
        lambda *state: optimisers.laprop(*state, 3, **LAPROP, nesterov=True),
        real(4, 5), real(4, 5), real(4, 5), positive(4, 5),
    ),
    "planning.refit, paper": call(
        lambda a, r: planning.refit(a, r, 3, std="paper"), real(2, 5, 4, 3), real(2, 5)
    ),
    "returns.lambda_return, number": call(
        lambda r, d, v: returns.lambda_return(r, d, v, 0.95), real(5, 4), share(5, 4), real(5, 4)
    ),
    "sampling.unimix, none": call(lambda logits: sampling.unimix(logits, 0), real(4, 5, 3)),
    "sampling.unimix, all": call(lambda logits: sampling.unimix(logits, 1), real(4, 5, 3)),
    "sequences.previous_actions, no row before": call(
        sequences.previous_actions, real(4, 5, 3), RNG.random((4, 5)) < 0.3
    ),
}  # fmt: skip
