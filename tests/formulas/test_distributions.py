"""Densities, entropies and parameter maps of binary events and of the continuous policies. test_categorical.py and
test_truncated_normal.py have those distributions, test_elbo.py the Gaussian density."""

import math

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.distributions import (
    bernoulli_entropy,
    bounded_normal,
    gaussian_entropy,
    tanh_normal,
    tanh_normal_log_prob,
    truncated_normal,
)
from shared.testing import oracles_distributions as exact
from tests.formulas.strategies import exact_arrays, exact_same_shape

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
LIMIT = 1 - 2.0**-24                           # beyond it, actions count as it


def dreamer_policy(raw_mean, raw_std):
    return tanh_normal(raw_mean, raw_std, 5.0, 5.0, 1e-4)


def dreamerv2_policy(raw_mean, raw_std):
    return truncated_normal(raw_mean, raw_std, 0.0, 0.1)


def dreamerv3_policy(raw_mean, raw_std):
    return bounded_normal(raw_mean, raw_std, 0.1, 1.0)


POLICIES = {"dreamer": dreamer_policy, "dreamerv2": dreamerv2_policy, "dreamerv3": dreamerv3_policy}
STD_OF = {name: (lambda *raw, policy=policy: policy(*raw)[1]) for name, policy in POLICIES.items()}
MEAN_OF = {name: (lambda *raw, policy=policy: policy(*raw)[0]) for name, policy in POLICIES.items()}


# Gaussian and binary entropy


def test_gaussian_entropy_by_hand(run):
    # log(std) + log(2 pi e) / 2; std = 1 / sqrt(2 pi e) has entropy 0
    got = run(gaussian_entropy, [1.0, 2.0, 1 / math.sqrt(2 * math.pi * math.e)])
    expected = [1.4189385332046727, 1.4189385332046727 + math.log(2), 0]
    assert_allclose(got, expected, rtol=1e-14, atol=1e-15)


@given(exact_same_shape((2**-20, 2**20)))
def test_gaussian_entropy_equals_scipy(run_any, values):
    from scipy import stats

    (std,) = values
    got = run_any(gaussian_entropy, std)
    assert_allclose(got, stats.norm.entropy(0, std), rtol=4 * run_any.eps, atol=4 * run_any.eps)


def test_gaussian_entropy_gradient_is_one_over_std(grad_any):
    assert_allclose(grad_any(gaussian_entropy, [0.25, 1.0, 8.0])[0], [4.0, 1.0, 0.125], rtol=2 * grad_any.eps)


def test_bernoulli_entropy_by_hand(run):
    # p = 1/2: log 2;   p = 3/4 or 1/4: 1/4 log 4 + 3/4 log(4/3);   certain: 0
    three_quarters = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    got = run(bernoulli_entropy, [0.0, math.log(3), -math.log(3), 1e4, -1e4])
    assert_allclose(got, [math.log(2), three_quarters, three_quarters, 0, 0], rtol=1e-14)


@given(exact_same_shape((-80, 80)))
def test_bernoulli_entropy_equals_its_definition_with_50_digits(run_any, values):
    """Relative precision in both tails, where it is |logit| * exp(-|logit|): exp makes eps * |logit| of that relative.
    Up to 80, so that float32 has exp(-|logit|)."""
    (logits,) = values
    got, expected = run_any(bernoulli_entropy, logits), exact.bernoulli_entropy(logits)
    assert (np.abs(got - expected) <= 8 * run_any.eps * (2 + np.abs(logits)) * expected).all()
    assert got.min() >= 0
    assert got.max() <= math.log(2) * (1 + 8 * run_any.eps)


def test_bernoulli_entropy_gradient_by_hand(grad_any):
    # -logit p (1 - p): 0 at 0; -+ log 3 * 3/16 at p = 3/4, 1/4; 0 where certain
    (got,) = grad_any(bernoulli_entropy, [0.0, math.log(3), -math.log(3), 1e4, -1e4])
    expected = [0, -math.log(3) * 3 / 16, math.log(3) * 3 / 16, 0, 0]
    assert_allclose(got, expected, rtol=32 * grad_any.eps, atol=2 * grad_any.eps)


# Dreamer: tanh of a Gaussian


def test_tanh_normal_by_hand(run):
    # 5 tanh(5 / 5) = 3.8079708; std at 0: 5 + 1e-4; elsewhere log(1 + e^r (e^5 - 1)) + 1e-4, here r = log 2
    mean, std = run(dreamer_policy, [0.0, 5.0, -5.0], [0.0, math.log(2), 0.0])
    assert_allclose(mean, [0.0, 3.8079707797788243, -3.8079707797788243], rtol=1e-14)
    assert_allclose(std, [5.0001, math.log(2 * math.exp(5) - 1) + 1e-4, 5.0001], rtol=1e-14)


def test_tanh_normal_with_other_constants_by_hand(run):
    # 2 tanh(1 / 2); softplus(0 + log(e^{1/2} - 1)) = 1/2, and 3 more
    mean, std = run(lambda m, s: tanh_normal(m, s, 2.0, 0.5, 3.0), [1.0], [0.0])
    assert_allclose(np.concatenate([mean, std]), [2 * math.tanh(0.5), 3.5], rtol=1e-14)


def test_a_huge_initial_std_does_not_overflow(run):
    assert_allclose(run(lambda m, s: tanh_normal(m, s, 5.0, 1e3, 0.0)[1], [0.0], [-1.0]), [999.0], rtol=1e-14)


def test_tanh_normal_log_prob_by_hand(run):
    # a = 0: log N(0; m, s), slope 1.   a = 3/5: z = log(1.6 / 0.4) / 2 = log 2, slope 1 - 9/25 = 16/25
    got = run(tanh_normal_log_prob, [0.0, 0.0, 0.6], [0.0, 3.0, math.log(2)], [1.0, 1.0, 0.5])
    expected = [-HALF_LOG_TWO_PI, -4.5 - HALF_LOG_TWO_PI, -HALF_LOG_TWO_PI + math.log(2) - math.log(16 / 25)]
    assert_allclose(got, expected, rtol=1e-14)


def test_actions_at_and_beyond_the_limit_count_as_the_limit(run_any):
    # a = 1 - e with e = 2^-24: z = log((2 - e) / e) / 2 = 8.66, and the slope there 1 - a^2 = e (2 - e)
    e = 2.0**-24
    z, slope = 0.5 * math.log((2 - e) / e), e * (2 - e)
    expected = -0.5 * z * z - HALF_LOG_TWO_PI - math.log(slope)
    got = run_any(tanh_normal_log_prob, [LIMIT, 1.0, 7.0, -1.0, -LIMIT], np.zeros(5), np.ones(5))
    assert_allclose(got, np.full(5, expected), rtol=16 * run_any.eps)


@given(exact_same_shape((-1 + 2**-10, 1 - 2**-10), (-5, 5), (2**-4, 8)))
def test_tanh_normal_log_prob_equals_the_change_of_variables(run_any, parameters):
    """z is off by 2 eps (1 + |z|), |z| < 4; over std and squared. The slope's logarithm is of the same size as z."""
    action, mean, std = parameters
    distance = (np.abs(np.arctanh(action)) + np.abs(mean)) / std
    tolerance = 8 * run_any.eps * (4 + distance * (1 + distance))
    got = run_any(tanh_normal_log_prob, *parameters)
    assert (np.abs(got - exact.tanh_normal_log_prob(*parameters)) <= tolerance).all()


def test_tanh_normal_log_prob_equals_torch_distributions(run):
    import torch
    from torch.distributions import Normal, TransformedDistribution
    from torch.distributions.transforms import TanhTransform

    rng = np.random.default_rng(0)
    action, mean, std = rng.uniform(-0.99, 0.99, 8), rng.normal(size=8), rng.uniform(0.3, 2, 8)
    theirs = TransformedDistribution(Normal(torch.tensor(mean), torch.tensor(std)), [TanhTransform()])
    got = run(tanh_normal_log_prob, action, mean, std)
    assert_allclose(got, theirs.log_prob(torch.tensor(action)).numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (0.7, 0.3), (-2.0, 0.5), (1.0, 3.0)])
def test_tanh_normal_density_integrates_to_one(run_any, mean, std):
    """Over the action, substituting a = tanh(z) for an even spread of nodes; up to z = +-8.5, short of the limit."""
    z = np.linspace(-8.5, 8.5, 4001)
    density = np.exp(run_any(tanh_normal_log_prob, np.tanh(z), np.full(z.shape, mean), np.full(z.shape, std)))
    inside = 0.5 * (math.erf((8.5 - mean) / std / 2**0.5) + math.erf((8.5 + mean) / std / 2**0.5))
    total = np.trapezoid(density.astype(np.float64) * (1 - np.tanh(z) ** 2), z)
    # float32 rounds tanh(z) to 2^-25: up to 40 % of 1 - |a| at |z| = 8.5, where little of the mass lies
    assert_allclose(total, inside, rtol=1e-6 if run_any.eps < 1e-10 else 2e-2)


def test_tanh_normal_gradients_by_hand(grad_any):
    # at a = 3/5, z = log 2, m = 0, s = 1: d/dmean = z, d/dstd = z^2 - 1, d/da = (-z + 2 a) / (1 - a^2)
    z = math.log(2)
    got = np.concatenate(grad_any(tanh_normal_log_prob, [0.6], [0.0], [1.0]))
    assert_allclose(got, [(1.2 - z) * 25 / 16, z, z * z - 1], rtol=64 * grad_any.eps)


def test_an_action_of_nan_is_seen(run):
    assert np.isnan(run(tanh_normal_log_prob, [np.nan], [0.0], [1.0])).all()


def test_gradients_at_and_beyond_the_limit_are_finite_and_none_to_the_action(grad_any):
    actions = [1.0, -3.0, LIMIT, -LIMIT]
    to_action, to_mean, to_std = grad_any(tanh_normal_log_prob, actions, np.zeros(4), np.full(4, 2.0))
    z = 0.5 * math.log(2**25 - 1)                              # of the limit; d/dmean = +-z / 4, d/dstd = z^2 / 8 - 1/2
    assert_array_equal(to_action, np.zeros(4))
    assert_allclose(to_mean, np.multiply(z / 4, [1, -1, 1, -1]), rtol=16 * grad_any.eps)
    assert_allclose(to_std, np.full(4, z * z / 8 - 0.5), rtol=16 * grad_any.eps)


# DreamerV2: truncated normal


def test_truncated_normal_by_hand(run):
    # tanh(1) = 0.7615942; 2 sigmoid(0) + 0.1 = 1.1; 2 sigmoid(log 9 / 2) = 2 * 3/4
    loc, scale = run(dreamerv2_policy, [0.0, 1.0], [0.0, math.log(9)])
    assert_allclose(loc, [0.0, 0.7615941559557649], rtol=1e-14)
    assert_allclose(scale, [1.1, 1.6], rtol=1e-14)
    scale = run(lambda m, s: truncated_normal(m, s, math.log(9), 0.2)[1], [0.0], [0.0])         # the same by init_std
    assert_allclose(scale, [1.7], rtol=1e-14)


# DreamerV3: bounded normal


def test_bounded_normal_by_hand(run):
    # tanh(1); std 0.9 sigmoid(r + 2) + 0.1: r = -2 gives 0.55, r = -2 + log 3 gives 0.9 * 3/4 + 0.1, r = 0 gives 0.893
    mean, std = run(dreamerv3_policy, [0.0, 1.0, -1.0], [-2.0, math.log(3) - 2, 0.0])
    assert_allclose(mean, [0.0, 0.7615941559557649, -0.7615941559557649], rtol=1e-14)
    assert_allclose(std, [0.55, 0.775, 0.9 / (1 + math.exp(-2)) + 0.1], rtol=1e-14)
    std = run(lambda m, s: bounded_normal(m, s, 0.0, 4.0)[1], [0.0], [-2.0])
    assert_allclose(std, [2.0], rtol=1e-14)


@pytest.mark.parametrize("std", [(-0.1, 1.0), (1.0, 1.0), (1.0, 0.5), (0.1, float("nan"))])
def test_the_range_of_the_std_must_not_be_empty(std):
    with pytest.raises(ValueError, match=f"bounded_normal: std from {std[0]} to {std[1]}, expected 0 <= min_std"):
        bounded_normal(np.zeros(1), np.zeros(1), *std)


# All policies


BOUNDS = {"dreamer": (5, 1e-4, math.inf), "dreamerv2": (1, 0.1, 2.1), "dreamerv3": (1, 0.1, 1.0)}


@pytest.mark.parametrize("name", POLICIES)
@given(exact_arrays((4,), -1e4, 1e4), exact_arrays((4,), -1e4, 1e4))
def test_parameters_stay_in_their_range_whatever_the_network_says(run_any, name, raw_mean, raw_std):
    mean, std = run_any(POLICIES[name], raw_mean, raw_std)
    most, least_std, most_std = BOUNDS[name]
    assert np.abs(mean).max() <= most
    assert least_std * (1 - run_any.eps) <= std.min() and std.max() <= most_std * (1 + 2 * run_any.eps)
    assert np.isfinite(mean).all() and np.isfinite(std).all()


@pytest.mark.parametrize("name", POLICIES)
def test_parameters_at_extreme_outputs_by_hand(run_any, name):
    mean, std = run_any(POLICIES[name], [1e4, -1e4], [1e4, -1e4])
    most, least_std, most_std = BOUNDS[name]
    assert_allclose(mean, [most, -most], rtol=2 * run_any.eps)
    # Dreamer's std has no ceiling: softplus(1e4 + log(e^5 - 1)) = 1e4 + 4.99324
    top = 1e4 + math.log(math.expm1(5)) + 1e-4 if most_std == math.inf else most_std
    assert_allclose(std, [top, least_std], rtol=4 * run_any.eps)


@pytest.mark.parametrize("name", POLICIES)
def test_gradients_of_the_parameters_equal_their_closed_forms(grad_any, name):
    """tanh' = 1 - tanh^2 in every mean; softplus' = sigmoid and sigmoid' = p (1 - p) in the std."""
    raw_mean, raw_std = np.array([0.0, 1.0, -0.5]), np.array([0.0, 1.0, -3.0])
    scale = {"dreamer": 5.0}.get(name, 1.0)
    inner = {"dreamer": raw_std + math.log(math.expm1(5)), "dreamerv2": raw_std / 2, "dreamerv3": raw_std + 2}[name]
    p = exact.sigmoid(inner)
    slope = {"dreamer": p, "dreamerv2": p * (1 - p), "dreamerv3": 0.9 * p * (1 - p)}[name]
    to_mean, to_std = grad_any(MEAN_OF[name], raw_mean, raw_std)
    assert_allclose(to_mean, 1 - np.tanh(raw_mean / scale) ** 2, rtol=16 * grad_any.eps)
    assert_array_equal(to_std, 0)
    to_mean, to_std = grad_any(STD_OF[name], raw_mean, raw_std)
    assert_array_equal(to_mean, 0)
    assert_allclose(to_std, slope, rtol=32 * grad_any.eps)


@pytest.mark.parametrize("name", POLICIES)
def test_gradients_at_extreme_outputs_are_finite(grad_any, name):
    to_mean, _ = grad_any(MEAN_OF[name], [1e4, -1e4], [1e4, -1e4])
    assert_array_equal(to_mean, [0.0, 0.0])
    _, to_std = grad_any(STD_OF[name], [1e4, -1e4], [1e4, -1e4])
    assert_array_equal(to_std, [1.0 if name == "dreamer" else 0.0, 0.0])


# Types and shapes


def test_float32_stays_float32(run):
    x = np.full((2, 2), 0.5, np.float32)
    assert run(gaussian_entropy, x).dtype == run(bernoulli_entropy, x).dtype == np.float32
    assert run(tanh_normal_log_prob, x, x, x).dtype == np.float32
    for policy in POLICIES.values():
        assert [part.dtype for part in run(policy, x, x)] == [np.float32] * 2


TWO_ARGUMENTS = {
    "tanh_normal: .*raw_mean": dreamer_policy,
    "truncated_normal: .*raw_mean": dreamerv2_policy,
    "bounded_normal: .*raw_mean": dreamerv3_policy,
}


@pytest.mark.parametrize("message", TWO_ARGUMENTS)
def test_two_shapes_must_agree(run, message):
    with pytest.raises(ValueError, match=rf"{message} \(2, 3\).* \(2,\)"):
        run(TWO_ARGUMENTS[message], np.ones((2, 3)), np.ones(2))


@pytest.mark.parametrize("odd", range(3))
def test_three_shapes_must_agree(run, odd):
    with pytest.raises(ValueError, match=r"tanh_normal_log_prob: .*\(1, 3\)"):
        run(tanh_normal_log_prob, *(np.full((1, 3) if i == odd else (2, 3), 0.5) for i in range(3)))


def test_entropies_need_an_array():
    for function in (gaussian_entropy, bernoulli_entropy):
        with pytest.raises(TypeError, match="arrays of one library"):
            function(1.0)
