"""Gaussian KL and free nats: properties K1 to K3, K5, K9. test_categorical.py and test_balancing.py have the rest."""

import math

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.testing import oracles
from tests.formulas.strategies import SHAPES, exact_arrays, exact_same_shape, gaussians

# One function object per floor, so that JAX compiles each once.
FLOORS = {nats: (lambda value, nats=nats: floor_nats(value, nats)) for nats in (0.0, 1.0, 3.0)}
SQUARED_FLOORS = {nats: (lambda value, nats=nats: floor_nats(value, nats) ** 2) for nats in FLOORS}


def floored_kl(*parameters):
    return floor_nats(gaussian_kl(*parameters), 3.0)


def exact_gaussians(shapes=SHAPES):
    """(mean_p, std_p, mean_q, std_q) of one shape, in numbers that float32 holds exactly."""
    bounds = [(-1e3, 1e3), (2**-7, 2**7)] * 2
    return st.sampled_from(shapes).flatmap(lambda shape: st.tuples(*(exact_arrays(shape, *bound) for bound in bounds)))


# By hand


def test_kl_of_shifted_unit_gaussians_is_half_the_squared_distance(run):
    # KL(N(3, 1), N(1, 1)) = 2^2 / 2 = 2
    assert_allclose(run(gaussian_kl, [3.0], [1.0], [1.0], [1.0]), [2.0], rtol=1e-15)


def test_kl_of_widths_by_hand_in_both_directions(run):
    # KL(N(0, 1), N(0, 2)) = log 2 + 1/8 - 1/2 = 0.318147;   KL(N(0, 2), N(0, 1)) = -log 2 + 4/2 - 1/2 = 0.806853.  (K5)
    got = run(gaussian_kl, [0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [2.0, 1.0])
    assert_allclose(got, [math.log(2) - 0.375, 1.5 - math.log(2)], rtol=1e-14)


def test_kl_of_mean_and_width_by_hand(run):
    # p = N(1, 2), q = N(-2, 4): log 2 + (4 + 9) / 32 - 1/2 = 0.599397
    assert_allclose(run(gaussian_kl, [1.0], [2.0], [-2.0], [4.0]), [math.log(2) + 13 / 32 - 0.5], rtol=1e-14)


def test_kl_is_per_dimension_and_keeps_every_axis(run):
    got = run(gaussian_kl, np.ones((2, 3, 4)), np.ones((2, 3, 4)), np.zeros((2, 3, 4)), np.ones((2, 3, 4)))
    assert_array_equal(got, np.full((2, 3, 4), 0.5))


def test_kl_from_the_standard_normal_takes_numbers(run):
    got = run(lambda m, s: gaussian_kl(m, s, 0.0, 1.0), [1.0, 0.0], [1.0, 2.0])
    assert_allclose(got, [0.5, 1.5 - math.log(2)], rtol=1e-14)


def test_unit_widths_may_both_be_numbers(run):
    # half the squared distance, as above
    assert_allclose(run(lambda p, q: gaussian_kl(p, 1.0, q, 1.0), [3.0], [1.0]), [2.0], rtol=1e-15)


def test_float32_stays_float32(run):
    x = np.full((2, 2), 0.5, np.float32)
    assert run(gaussian_kl, x, x, x + 1, x).dtype == np.float32
    assert run(lambda v: floor_nats(v, 3), x).dtype == np.float32


# Limits and properties


@pytest.mark.property("K1")
@given(exact_gaussians())
def test_kl_is_never_negative(run_any, parameters):
    """Near equality terms of the size of 1 cancel and leave a few roundings."""
    assert run_any(gaussian_kl, *parameters).min() >= -4 * run_any.eps


@pytest.mark.property("K1")
@given(exact_same_shape((-1e6, 1e6), (2**-20, 2**20)))
def test_kl_of_equal_gaussians_is_exactly_zero(run_any, parameters):
    assert_array_equal(run_any(gaussian_kl, *parameters, *parameters), np.zeros(parameters[0].shape))


@pytest.mark.property("K1")
@given(exact_same_shape((-8, 8), (2**-3, 8)), st.sampled_from([2**-3, 1.0, 8.0]))
def test_kl_is_positive_once_a_parameter_differs(run_any, parameters, change):
    """Ranges such that float32 sees the smallest change: 1/64 beside 8, and a KL of 1/128 beside terms of 1."""
    mean, std = parameters
    assert run_any(gaussian_kl, mean, std, mean + std * change, std).min() > 0
    assert run_any(gaussian_kl, mean, std, mean, std * (1 + change)).min() > 0
    assert run_any(gaussian_kl, mean, std * (1 + change), mean, std).min() > 0


@given(gaussians())
def test_kl_does_not_depend_on_origin_and_unit(run, parameters):
    """Shifting all means and scaling everything describes the same two distributions."""
    mean_p, std_p, mean_q, std_q = parameters
    moved = run(gaussian_kl, 2 * mean_p + 1, 2 * std_p, 2 * mean_q + 1, 2 * std_q)
    # The shift rounds means of up to 2e3 to 2e-13; divided by std >= 0.02 and squared beside distances of up to 1e5.
    assert_allclose(moved, run(gaussian_kl, *parameters), rtol=1e-8, atol=1e-9)


@pytest.mark.property("K3")
def test_kl_is_additive_over_independent_dimensions(run_any):
    """The sum over dimensions is the KL of the joint Gaussian, here from its covariance matrices."""
    import torch
    from torch.distributions import MultivariateNormal, kl_divergence

    rng = np.random.default_rng(0)
    mean_p, mean_q = rng.normal(size=(2, 5, 4))
    std_p, std_q = np.exp(rng.normal(size=(2, 5, 4)))
    p, q = (MultivariateNormal(torch.tensor(m), torch.diag_embed(torch.tensor(s) ** 2)) for m, s in
            ((mean_p, std_p), (mean_q, std_q)))
    got = run_any(gaussian_kl, mean_p, std_p, mean_q, std_q).sum(-1)
    # inputs rounded to the dtype move a squared distance by at most 4 eps (|m_p| + |m_q|) / |m_p - m_q| of itself
    assert_allclose(got, kl_divergence(p, q).numpy(), rtol=100 * run_any.eps)


@pytest.mark.property("K5")
@given(exact_same_shape((-8, 8), (2**-3, 8)))
def test_kl_is_asymmetric(run_any, parameters):
    """Half as wide is not twice as wide: KL(N(m, s), N(m, 2 s)) = log 2 - 3/8, the other way 3/2 - log 2."""
    mean, std = parameters
    forward = run_any(gaussian_kl, mean, std, mean, 2 * std)
    backward = run_any(gaussian_kl, mean, 2 * std, mean, std)
    assert_allclose(forward, math.log(2) - 0.375, rtol=8 * run_any.eps)
    assert_allclose(backward, 1.5 - math.log(2), rtol=8 * run_any.eps)


# Oracles


@pytest.mark.property("K2")
@given(exact_gaussians())
def test_kl_equals_torch_distributions(run_any, parameters):
    """Each of the terms 1, ratio^2, distance^2 and log carries a few eps of its own size; the sum is at least theirs,
    except near equality, where 1 is the largest term."""
    got, expected = run_any(gaussian_kl, *parameters), oracles.gaussian_kl(*parameters)
    target(float(np.max(np.abs(got - expected) / (1 + expected))) / run_any.eps, label="error of the KL in eps")
    assert_allclose(got, expected, rtol=8 * run_any.eps, atol=8 * run_any.eps)


@pytest.mark.property("K2")
@pytest.mark.parametrize("parameters", [(0, 1, 0, 1), (0.25, 0.75, -0.5, 1.875), (5, 3, 4, 0.875), (-2, 0.1, -2, 0.2)])
def test_kl_equals_its_defining_integral(run_any, parameters):
    """Without any closed form; the quadrature is good to 1e-10."""
    got = run_any(gaussian_kl, *([float(x)] for x in parameters))
    expected = oracles.gaussian_kl_by_quadrature(*parameters)
    assert_allclose(got, [expected], rtol=1e-9 + 8 * run_any.eps, atol=1e-10 + 8 * run_any.eps)


@pytest.mark.property("K2")
def test_kl_equals_monte_carlo(run_any):
    """Within 4 standard errors of 200,000 draws (seed fixed, so this never flickers)."""
    mean_p, std_p, mean_q, std_q = 0.3, 0.7, -0.5, 1.9
    x = np.random.default_rng(1).normal(mean_p, std_p, 200_000)
    sample = oracles.gaussian_log_prob(x, mean_p, std_p) - oracles.gaussian_log_prob(x, mean_q, std_q)
    error = abs(run_any(gaussian_kl, [mean_p], [std_p], [mean_q], [std_q])[0] - sample.mean())
    assert error < 4 * sample.std() / len(sample) ** 0.5


# Gradients


def test_kl_gradients_by_hand(grad):
    # p = N(1, 2), q = N(-2, 4): d/dmean_p = 3/16, d/dstd_p = 2/16 - 1/2, d/dmean_q = -3/16, d/dstd_q = 1/4 - 13/64
    got = grad(gaussian_kl, [1.0], [2.0], [-2.0], [4.0])
    assert_allclose(np.concatenate(got), [3 / 16, -3 / 8, -3 / 16, 1 / 4 - 13 / 64], rtol=1e-14)


def test_kl_gradients_equal_finite_differences(grad):
    rng = np.random.default_rng(2)
    mean_p, mean_q = rng.normal(size=(2, 3, 2))
    std_p, std_q = rng.uniform(0.3, 2, (2, 3, 2))
    differences = oracles.finite_difference(oracles.gaussian_kl, mean_p, std_p, mean_q, std_q)
    for got, expected in zip(grad(gaussian_kl, mean_p, std_p, mean_q, std_q), differences, strict=True):
        assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_kl_of_extreme_widths_is_finite_where_the_answer_is(run):
    # ratio 1e-200: its square is 0, its log is not: log(1e200) - 1/2;   equal widths, 2 apart in their unit: 2^2 / 2
    got = run(gaussian_kl, [0.0, 2e-200, 2e200], [1e-100, 1e-200, 1e200], [0.0, 0.0, 0.0], [1e100, 1e-200, 1e200])
    assert_allclose(got, [200 * math.log(10) - 0.5, 2.0, 2.0], rtol=1e-14)


# Free nats


def test_floor_by_hand(run):
    assert_array_equal(run(lambda v: floor_nats(v, 3.0), [-1.0, 0.0, 3.0, 3.5, 1e6]), [3.0, 3.0, 3.0, 3.5, 1e6])


def test_floor_gradient_by_hand(grad):
    # At equality a plain maximum would give 1/2.
    (got,) = grad(lambda v: floor_nats(v, 3.0), [-5.0, 2.999, 3.0, 3.001, 100.0])
    assert_array_equal(got, [0.0, 0.0, 0.0, 1.0, 1.0])


@pytest.mark.property("K9")
@given(exact_same_shape((-1e6, 1e6)), st.sampled_from(list(FLOORS)))
def test_floor_is_the_larger_of_the_two(run_any, values, nats):
    (value,) = values
    got = run_any(FLOORS[nats], value)
    assert got.min() >= nats
    tiny = float(np.finfo(run_any.dtype).tiny)                # JAX treats subnormals as zero
    assert_allclose(got, np.maximum(value, nats), rtol=0, atol=tiny)


@pytest.mark.property("K9")
@given(exact_arrays((4,), -16, 16), st.sampled_from(list(FLOORS)))
def test_floor_passes_the_whole_gradient_above_and_none_elsewhere(grad_any, value, nats):
    value[0] = nats                                           # equality, which chance does not bring
    (got,) = grad_any(SQUARED_FLOORS[nats], value)
    # d max(v, f)^2 / dv = 2 v above the floor, 0 at and below it. JAX sees subnormals as 0: at a floor of 0 not above.
    above = value > max(nats, float(np.finfo(grad_any.dtype).tiny))
    assert_array_equal(got[above], 2 * value[above])
    assert_array_equal(got[value <= nats], 0)


@pytest.mark.property("K9")
@given(exact_gaussians([(4,)]))
def test_kl_below_the_floor_has_exactly_zero_gradient_in_all_parameters(grad_any, parameters):
    """Through the KL; above the floor the gradient is the unclipped one, bit for bit."""
    above = oracles.gaussian_kl(*parameters) > 3 * (1 + 64 * grad_any.eps)
    below = oracles.gaussian_kl(*parameters) < 3 * (1 - 64 * grad_any.eps)
    floored, free = grad_any(floored_kl, *parameters), grad_any(gaussian_kl, *parameters)
    for got, unclipped in zip(floored, free, strict=True):
        assert_array_equal(got[below], 0)
        assert_array_equal(got[above], unclipped[above])


def test_floor_lets_nan_through(run):
    """A diverged model must not look like one that costs its free nats."""
    assert np.isnan(run(lambda v: floor_nats(v, 3.0), [np.nan])).all()


# Errors


@pytest.mark.parametrize("odd", range(4))
def test_shapes_must_agree(run, odd):
    """(1, 3) among (2, 3) would broadcast, whichever argument it is."""
    with pytest.raises(ValueError, match=r"gaussian_kl: .*mean_p .*std_p .*mean_q .*std_q .*broadcast explicitly"):
        run(gaussian_kl, *(np.ones((1, 3) if i == odd else (2, 3)) for i in range(4)))


def test_floor_needs_an_array():
    with pytest.raises(TypeError, match="arrays of one library"):
        floor_nats(2.0, 3.0)
