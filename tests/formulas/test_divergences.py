"""Gaussian KL and free nats: properties K1 to K3, K5, K9, K10."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, target
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.testing import oracles
from tests.formulas.strategies import gaussians, same_shape

# One function object per floor, so that JAX compiles each once.
FLOORS = {nats: (lambda value, nats=nats: floor_nats(value, nats)) for nats in (0.0, 1.0, 3.0)}

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


def test_float32_stays_float32(run):
    x = np.full((2, 2), 0.5, np.float32)
    assert run(gaussian_kl, x, x, x + 1, x).dtype == np.float32
    assert run(lambda v: floor_nats(v, 3), x).dtype == np.float32


# Limits and properties


@given(gaussians())
def test_kl_is_never_negative(run, parameters):
    """K1. Rounding: cancellation of terms of the size of 1 leaves a few 1e-16."""
    assert run(gaussian_kl, *parameters).min() >= -1e-15


@given(same_shape((-1e6, 1e6), (1e-6, 1e6)))
def test_kl_of_equal_gaussians_is_exactly_zero(run, parameters):
    """K1."""
    assert_array_equal(run(gaussian_kl, *parameters, *parameters), np.zeros(parameters[0].shape))


@given(gaussians(), st.sampled_from([1e-3, 0.1, 10.0]))
def test_kl_is_positive_once_a_parameter_differs(run, parameters, change):
    """K1: the "only if"."""
    mean, std, _, _ = parameters
    assert run(gaussian_kl, mean, std, mean + std * change, std).min() > 0
    assert run(gaussian_kl, mean, std, mean, std * (1 + change)).min() > 0


@given(gaussians())
def test_kl_does_not_depend_on_origin_and_unit(run, parameters):
    """Shifting all means and scaling everything describes the same two distributions."""
    mean_p, std_p, mean_q, std_q = parameters
    moved = run(gaussian_kl, 2 * mean_p + 1, 2 * std_p, 2 * mean_q + 1, 2 * std_q)
    # The shift rounds means of up to 2e3 to 2e-13; divided by std >= 0.02 and squared beside distances of up to 1e5.
    assert_allclose(moved, run(gaussian_kl, *parameters), rtol=1e-8, atol=1e-9)


def test_kl_is_additive_over_independent_dimensions(run):
    """K3: the sum over dimensions is the KL of the joint Gaussian, here from its covariance matrices."""
    import torch
    from torch.distributions import MultivariateNormal, kl_divergence

    rng = np.random.default_rng(0)
    mean_p, mean_q = rng.normal(size=(2, 5, 4))
    std_p, std_q = np.exp(rng.normal(size=(2, 5, 4)))
    p, q = (MultivariateNormal(torch.tensor(m), torch.diag_embed(torch.tensor(s) ** 2)) for m, s in
            ((mean_p, std_p), (mean_q, std_q)))
    assert_allclose(run(gaussian_kl, mean_p, std_p, mean_q, std_q).sum(-1), kl_divergence(p, q).numpy(), rtol=1e-12)


# Oracles


@given(gaussians())
def test_kl_equals_torch_distributions(run, parameters):
    """K2. atol: torch subtracts log(ratio^2) from ratio^2 - 1, so near zero both carry a few 1e-16."""
    got, expected = run(gaussian_kl, *parameters), oracles.gaussian_kl(*parameters)
    target(float(np.max(np.abs(got - expected) / (1 + expected))), label="relative error of the KL")
    assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("parameters", [(0, 1, 0, 1), (0.3, 0.7, -0.5, 1.9), (5, 3, 4, 0.9), (-2, 0.1, -2, 0.2)])
def test_kl_equals_its_defining_integral(run, parameters):
    """K2, without any closed form."""
    got = run(gaussian_kl, *([float(x)] for x in parameters))
    assert_allclose(got, [oracles.gaussian_kl_by_quadrature(*parameters)], rtol=1e-9, atol=1e-10)


def test_kl_equals_monte_carlo(run):
    """K2: within 4 standard errors of 200,000 draws (seed fixed, so this never flickers)."""
    mean_p, std_p, mean_q, std_q = 0.3, 0.7, -0.5, 1.9
    x = np.random.default_rng(1).normal(mean_p, std_p, 200_000)
    sample = oracles.gaussian_log_prob(x, mean_p, std_p) - oracles.gaussian_log_prob(x, mean_q, std_q)
    error = abs(run(gaussian_kl, [mean_p], [std_p], [mean_q], [std_q])[0] - sample.mean())
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


# Free nats


def test_floor_by_hand(run):
    assert_array_equal(run(lambda v: floor_nats(v, 3.0), [-1.0, 0.0, 3.0, 3.5, 1e6]), [3.0, 3.0, 3.0, 3.5, 1e6])


def test_planets_clip_is_the_floor_less_the_free_nats(run):
    """K10: max(0, KL - 3), either way of writing it."""
    kl = [0.0, 2.0, 3.0, 4.0, 10.0]
    assert_array_equal(run(lambda v: floor_nats(v, 3.0) - 3.0, kl), [0.0, 0.0, 0.0, 1.0, 7.0])
    assert_array_equal(run(lambda v: floor_nats(v - 3.0, 0.0), kl), [0.0, 0.0, 0.0, 1.0, 7.0])


def test_floor_gradient_is_zero_up_to_the_floor_and_one_above(grad):
    """K9. At equality a plain maximum would give 1/2."""
    (got,) = grad(lambda v: floor_nats(v, 3.0), [-5.0, 2.999, 3.0, 3.001, 100.0])
    assert_array_equal(got, [0.0, 0.0, 0.0, 1.0, 1.0])


def test_kl_below_the_floor_has_exactly_zero_gradient_in_all_parameters(grad):
    """K9, through the KL: entry 0 costs 0.5 nats, entry 1 costs 8."""
    parameters = [[1.0, 4.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    floored = grad(lambda *x: floor_nats(gaussian_kl(*x), 3.0), *parameters)
    for got, free in zip(floored, grad(gaussian_kl, *parameters), strict=True):
        assert got[0] == 0
        assert got[1] == free[1]


@given(same_shape((-1e6, 1e6)), st.sampled_from(list(FLOORS)))
def test_floor_is_the_larger_of_the_two(run, values, nats):
    """K9."""
    (value,) = values
    got = run(FLOORS[nats], value)
    assert_allclose(got, np.maximum(value, nats), rtol=0, atol=1e-300)       # JAX treats subnormals as zero


@given(same_shape((0, 6)), st.sampled_from(list(FLOORS)))
def test_order_of_mean_and_floor_obeys_jensen(run, values, nats):
    """K10: the four papers differ in this order, so it must be visible that it matters."""
    (kl,) = values
    floor_first = run(FLOORS[nats], kl).mean()
    mean_first = run(FLOORS[nats], np.mean(kl, keepdims=True)).item()
    assert mean_first <= floor_first + 1e-12
    assume(kl.min() >= nats or kl.max() <= nats)
    assert_allclose(mean_first, floor_first, rtol=1e-12)


def test_floor_lets_nan_through(run):
    """A diverged model must not look like one that costs its free nats."""
    assert np.isnan(run(lambda v: floor_nats(v, 3.0), [np.nan])).all()


# Errors


def test_shapes_must_agree(run):
    with pytest.raises(ValueError, match=r"gaussian_kl: .*mean_p \(2,\).*mean_q \(2, 1\)"):
        run(gaussian_kl, [0.0, 0.0], [1.0, 1.0], [[0.0], [0.0]], [[1.0], [1.0]])


def test_floor_needs_an_array():
    with pytest.raises(TypeError, match="arrays of one library"):
        floor_nats(2.0, 3.0)
