"""The truncated normal distribution of DreamerV2's continuous policy: density, entropy, sample."""

import math

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.distributions import truncated_normal_entropy, truncated_normal_log_prob
from shared.formulas.sampling import truncated_normal_sample
from shared.testing import oracles
from shared.testing import oracles_distributions as exact
from tests.formulas.strategies import exact_arrays, exact_same_shape

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
PHI_1 = math.exp(-0.5) / math.sqrt(2 * math.pi)               # the unit Gaussian's density at 1
MASS_1 = math.erf(1 / math.sqrt(2))                           # its probability of [-1, 1], 0.6827
HELD = -5.419983174916868                      # quantile of 2^-25 of the unit Gaussian: -erfinv(1 - 2^-24) * sqrt(2)
LOW, HIGH = -1.0, 1.0                          # DreamerV2's actions
DRAWS = 20_000


def below_one(run_any):
    """The largest number below 1, the largest draw."""
    return float(np.nextafter(run_any.dtype(1), run_any.dtype(0)))


def unit_cut_log_prob(x, loc, scale):
    return truncated_normal_log_prob(x, loc, scale, LOW, HIGH)


def unit_cut_entropy(loc, scale):
    return truncated_normal_entropy(loc, scale, LOW, HIGH)


# Density and entropy


def test_truncated_log_prob_by_hand(run):
    # N(0, 1) on [-1, 1]: density phi(x) / 0.6827;   half a Gaussian, N(1, 1/2) on [-1, 1]: at 1, 2 N(1) less 2 % tail;
    # outside: no probability
    half = 0.5 * math.erf(4 / math.sqrt(2))                    # [-4 sigma, 0]
    got = run(unit_cut_log_prob, [0.0, 1.0, -1.0, 1.0, 1.0001, -1.0001], [0, 0, 0, 1.0, 0, 0], [1, 1, 1, 0.5, 1, 1.0])
    log_z = math.log(MASS_1)
    expected = [-HALF_LOG_TWO_PI - log_z, math.log(PHI_1) - log_z, math.log(PHI_1) - log_z,
                -HALF_LOG_TWO_PI + math.log(2) - math.log(half), -math.inf, -math.inf]  # fmt: skip
    assert_allclose(got, expected, rtol=1e-14)


def test_truncated_entropy_by_hand(run):
    # N(0, 1) on [-1, 1]: log Z + (log(2 pi) + 1) / 2 - phi(1) / Z, since a phi(a) - b phi(b) = -2 phi(1)
    expected = math.log(MASS_1) + HALF_LOG_TWO_PI + 0.5 - PHI_1 / MASS_1
    assert_allclose(run(unit_cut_entropy, [0.0], [1.0]), [expected], rtol=1e-14)


def test_other_ends_of_the_interval_by_hand(run):
    # N(2, 1) on [2, 3]: half of [-1, 1]; entropy with a = 0: log(Z / 2) + (log(2 pi) + 1) / 2 - phi(1) / Z
    log_prob = run(lambda x, m, s: truncated_normal_log_prob(x, m, s, 2.0, 3.0), [2.0, 1.9], [2.0, 2.0], [1.0, 1.0])
    assert_allclose(log_prob, [-HALF_LOG_TWO_PI - math.log(MASS_1 / 2), -math.inf], rtol=1e-14)
    entropy = run(lambda m, s: truncated_normal_entropy(m, s, 2.0, 3.0), [2.0], [1.0])
    assert_allclose(entropy, [math.log(MASS_1 / 2) + HALF_LOG_TWO_PI + 0.5 - PHI_1 / MASS_1], rtol=1e-14)


@given(exact_same_shape((-1, 1), (-1, 1), (2**-4, 16)))
def test_truncated_log_prob_equals_its_definition_with_50_digits(run_any, parameters):
    """A distance of up to 32 scales is squared; the probability of the interval is a sum of two terms of one sign."""
    x, loc, scale = parameters
    distance = (np.abs(x) + np.abs(loc)) / scale
    tolerance = 8 * run_any.eps * (4 + distance**2)
    expected = exact.truncated_normal_log_prob(x, loc, scale, LOW, HIGH)
    assert (np.abs(run_any(unit_cut_log_prob, *parameters) - expected) <= tolerance).all()


@pytest.mark.parametrize("loc, scale", [(0.0, 1.1), (0.9, 0.1), (-1.0, 2.0), (0.25, 0.01), (1.0, 100.0)])
def test_truncated_density_integrates_to_one(run_any, loc, scale):
    """By the trapezoidal rule in 20,000 steps, whose error is (step / scale)^2 or so: 1e-4 for the narrowest."""
    x = np.linspace(LOW, HIGH, 20_001)
    density = np.exp(run_any(unit_cut_log_prob, x, np.full(x.shape, loc), np.full(x.shape, scale)).astype(np.float64))
    assert_allclose(np.trapezoid(density, x), 1, rtol=1e-4)


@given(exact_arrays((3,), -1, 1), exact_arrays((3,), 2**-4, 4))
def test_truncated_entropy_equals_the_integral_and_is_at_most_the_uniform_ones(run_any, loc, scale):
    """Quadrature to 1e-9. In the formula terms of the size of 1 and of log(scale), up to 3, are added."""
    got = run_any(unit_cut_entropy, loc, scale)
    expected = exact.truncated_normal_entropy(loc, scale, LOW, HIGH)
    assert_allclose(got, expected, rtol=0, atol=1e-9 + 32 * run_any.eps)
    assert got.max() <= math.log(HIGH - LOW) + 32 * run_any.eps


NARROW, WIDE = 2.0**-30, 2.0**30               # their squares, and one over them, are far from overflow in float32


def test_a_very_narrow_one_is_a_gaussian_and_a_very_wide_one_uniform(run_any):
    """loc = 1/4 inside; loc = 1 and -1 at an end, where half of the Gaussian is left: twice the density."""
    loc, scale = [0.25, 1.0, -1.0, 0.25], [NARROW, NARROW, NARROW, WIDE]
    top = -math.log(NARROW) - HALF_LOG_TWO_PI
    got = run_any(unit_cut_log_prob, [0.25, 1.0, -1.0, 0.75], loc, scale)
    assert_allclose(got, [top, top + math.log(2), top + math.log(2), -math.log(2)], rtol=32 * run_any.eps)
    whole = math.log(NARROW) + HALF_LOG_TWO_PI + 0.5
    got = run_any(unit_cut_entropy, loc, scale)
    assert_allclose(got, [whole, whole - math.log(2), whole - math.log(2), math.log(2)], rtol=32 * run_any.eps)
    got = run_any(unit_cut, loc, scale, [0.5, 0.5, 0.5, 0.75])
    assert_allclose(got, [0.25, 1, -1, 0.5], rtol=32 * run_any.eps, atol=2 * NARROW)


def test_gradients_of_a_very_narrow_and_a_very_wide_one(grad_any):
    """Entropy log(scale) + ...: 1 / scale. Wide: log 2, nothing (its ends cancel: some eps / scale is left)."""
    to_loc, to_scale = grad_any(unit_cut_entropy, [0.25, 0.25], [NARROW, WIDE])
    assert_allclose(to_scale, [1 / NARROW, 0], rtol=8 * grad_any.eps, atol=8 * grad_any.eps / WIDE)
    assert_allclose(to_loc, [0, 0], rtol=0, atol=8 * grad_any.eps)
    for got in grad_any(unit_cut_log_prob, [0.5, 0.5], [0.25, 0.25], [NARROW, WIDE]):
        assert np.isfinite(got).all()


def test_truncated_gradients_equal_finite_differences(grad):
    x, loc, scale = np.array([0.5, -0.9, 0.99]), np.array([0.0, 0.8, -1.0]), np.array([1.1, 0.4, 2.0])
    expected = oracles.finite_difference(
        lambda *a: exact.truncated_normal_log_prob(*a, LOW, HIGH), x, loc, scale, step=1e-5
    )
    for got, difference in zip(grad(unit_cut_log_prob, x, loc, scale), expected, strict=True):
        assert_allclose(got, difference, rtol=1e-6, atol=1e-8)
    expected = oracles.finite_difference(
        lambda *a: exact.truncated_normal_entropy(*a, LOW, HIGH), loc, scale, step=1e-4
    )
    for got, difference in zip(grad(unit_cut_entropy, loc, scale), expected, strict=True):
        assert_allclose(got, difference, rtol=1e-5, atol=1e-5)          # of a quadrature


def test_truncated_gradients_outside_the_interval_are_zero_and_not_nan(grad_any):
    for got in grad_any(unit_cut_log_prob, [2.0, -7.0], [0.5, -0.5], [0.5, 2.0]):
        assert_array_equal(got, [0.0, 0.0])


# Sample


def unit_cut(loc, scale, uniform):
    return truncated_normal_sample(loc, scale, LOW, HIGH, uniform)


def quantile_rounding(eps, loc, scale, sample):
    """The share, at most 1 and off by 4 eps, goes through erfinv, whose slope is sqrt(pi)/2 exp(e^2)."""
    distance = (sample - loc) / scale
    return 8 * eps * (1 + scale * np.exp(0.5 * distance**2))


def test_truncated_sample_by_hand(run):
    # u = 1/2 of a symmetric density is its middle, u = 0 the lower end; x = 1/2 of N(0, 1) on [-1, 1] has
    # u = (F(1/2) - F(-1)) / (F(1) - F(-1)), F(x) = (1 + erf(x / sqrt 2)) / 2
    half, one = math.erf(0.5 / math.sqrt(2)), math.erf(1 / math.sqrt(2))
    share = (half + one) / (2 * one)
    got = run(unit_cut, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.0, share])
    assert_allclose(got, [0.0, -1.0, 0.5], atol=1e-14)
    # N(2, 2) on [1, 3] is the same, twice as wide: [-1/2, 1/2] scales, so u = 1/2 + erf(1/4) / erf(1/2) / 2 gives 2.5
    share = 0.5 + 0.5 * math.erf(0.25 / math.sqrt(2)) / half
    got = run(lambda m, s, u: truncated_normal_sample(m, s, 1.0, 3.0, u), [2.0], [2.0], [share])
    assert_allclose(got, [2.5], rtol=1e-14)


@given(exact_same_shape((-1, 1), (2**-1, 16), (0, 1)))
def test_truncated_sample_equals_the_quantile_of_scipy(run_any, parameters):
    """No end is beyond 4 scales here: float32 sees the tails."""
    loc, scale, uniform = parameters
    uniform = np.minimum(uniform, below_one(run_any))
    got = run_any(unit_cut, loc, scale, uniform)
    expected = exact.truncated_normal_quantile(loc, scale, -1, 1, uniform)
    assert (np.abs(got - expected) <= quantile_rounding(run_any.eps, loc, scale, expected)).all()
    assert np.abs(got).max() <= 1


@given(exact_arrays((4,), -1, 1), exact_arrays((4,), 2**-20, 1e4), exact_arrays((4,), 0, 1))
def test_truncated_sample_stays_inside_and_within_the_held_tails(run_any, loc, scale, uniform):
    uniform = np.minimum(uniform, below_one(run_any))
    got = run_any(unit_cut, loc, scale, uniform)
    assert np.abs(got).max() <= 1
    assert (np.abs(got - loc) <= -HELD * scale * (1 + 1e-6) + 2 * run_any.eps).all()


def test_tails_are_held_at_their_beginning(run_any):
    # N(1, 1/64) on [-1, 1]: the lower end is 128 scales away, u = 0 is held at 5.42; N(-1, 1/64) the other way round
    got = run_any(unit_cut, [1.0, -1.0], [2**-6, 2**-6], [0.0, below_one(run_any)])
    assert_allclose(got, [1 + HELD / 64, -1 - HELD / 64], rtol=1e-6)


def test_truncated_samples_follow_the_distribution(run_any):
    """Draws at the centres of 20,000 equal shares: their mean and variance are the truncated density's, by scipy."""
    from scipy import stats

    uniform = (np.arange(DRAWS) + 0.5) / DRAWS
    sample = run_any(unit_cut, np.full(DRAWS, 0.5), np.full(DRAWS, 0.75), uniform).astype(np.float64)
    theirs = stats.truncnorm(-2, 2 / 3, 0.5, 0.75)
    # the midpoint rule is off by the share's step squared; in float32 each sample by 1e-6, either way
    assert_allclose([sample.mean(), sample.var()], [theirs.mean(), theirs.var()], rtol=1e-6)


def test_truncated_gradients_equal_implicit_differentiation(grad_any):
    loc = np.array([0.0, 0.5, -0.75, 0.25, 0.875])
    scale, uniform = np.array([1.0, 0.5, 0.75, 2.0, 8.0]), np.array([0.5, 0.25, 0.875, 0.0625, 0.9375])
    expected = exact.truncated_normal_quantile_slopes(loc, scale, -1, 1, uniform)
    # errors of the share as in quantile_rounding, here in exp(e^2) itself: scales up to 8 of 1e2 eps
    for got, slope in zip(grad_any(unit_cut, loc, scale, uniform), expected, strict=False):
        assert_allclose(got, slope, rtol=0, atol=512 * grad_any.eps)


def test_gradients_of_the_held_tails_move_with_the_gaussian(grad_any):
    # sample = loc + HELD * scale there: 1 to loc, HELD to scale, none to the draw
    to_loc, to_scale, to_uniform = grad_any(unit_cut, [1.0], [2**-6], [0.0])
    assert_allclose(to_loc, [1.0], rtol=1e-6)
    assert_allclose(to_scale, [HELD], rtol=1e-6)
    assert_array_equal(to_uniform, [0.0])


# Types and shapes


def test_float32_stays_float32(run):
    x = np.full((2, 2), 0.5, np.float32)
    assert run(unit_cut_log_prob, x, x, x).dtype == run(unit_cut_entropy, x, x).dtype == np.float32
    assert run(unit_cut, x, x, x).dtype == np.float32


@pytest.mark.parametrize("function, count", [(unit_cut_log_prob, 3), (unit_cut_entropy, 2), (unit_cut, 3)])
def test_shapes_must_agree(run, function, count):
    name = {unit_cut_log_prob: "log_prob", unit_cut_entropy: "entropy", unit_cut: "sample"}[function]
    for odd in range(count):
        with pytest.raises(ValueError, match=rf"truncated_normal_{name}: .*\(2, 1\).*broadcast explicitly"):
            run(function, *(np.full((2, 1) if i == odd else (2, 3), 0.5) for i in range(count)))
