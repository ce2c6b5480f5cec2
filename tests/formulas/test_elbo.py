"""Log-likelihoods and the bound they form with the KL: properties E1 (one step), E4, E6."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.divergences import gaussian_kl
from shared.formulas.elbo import gaussian_log_prob
from shared.testing import oracles
from tests.formulas.strategies import floats, same_shape


def unit_log_prob(x, mean):
    """PlaNet's likelihood of images and rewards: variance 1."""
    return gaussian_log_prob(x, mean, 1.0)


def test_unit_gaussian_by_hand(run):
    # log N(0; 0, 1) = -log(2 pi) / 2 = -0.9189385;   log N(3; 1, 1) = -2 - 0.9189385
    assert_allclose(run(unit_log_prob, [0.0, 3.0], [0.0, 1.0]), [-0.9189385332046727, -2.9189385332046727], rtol=1e-15)


def test_wide_gaussian_by_hand(run):
    # log N(3; 1, 2) = -(2/2)^2 / 2 - log 2 - 0.9189385 = -2.1120857
    expected = [-0.5 - math.log(2) - 0.9189385332046727]
    assert_allclose(run(gaussian_log_prob, [3.0], [1.0], [2.0]), expected, rtol=1e-15)
    assert_allclose(run(lambda x, m: gaussian_log_prob(x, m, 2), [3.0], [1.0]), expected, rtol=1e-15)


def test_sum_over_pixels_and_mean_over_batch_and_time_are_the_callers(run):
    """E6: the formula reduces nothing, so the convention is visible: log-probabilities of P pixels add up."""
    image = np.zeros((2, 3, 4, 4, 3))
    got = run(unit_log_prob, image, image + 1)
    assert got.shape == image.shape
    assert_allclose(got.sum((2, 3, 4)).mean(), 48 * (-0.5 - 0.9189385332046727), rtol=1e-14)


def test_float32_stays_float32(run):
    x = np.ones((2, 2), np.float32)
    assert run(unit_log_prob, x, x).dtype == np.float32
    assert run(gaussian_log_prob, x, x, x).dtype == np.float32


@given(same_shape((-1e6, 1e6), (-1e6, 1e6), (1e-3, 1e3)))
def test_log_prob_equals_scipy(run, parameters):
    assert_allclose(run(gaussian_log_prob, *parameters), oracles.gaussian_log_prob(*parameters), rtol=1e-12, atol=1e-12)


FIXED_STD = {std: (lambda x, mean, std=std: gaussian_log_prob(x, mean, std)) for std in (0.01, 1, 30.0)}


@given(same_shape((-1e3, 1e3), (-1e3, 1e3)), st.sampled_from(list(FIXED_STD)))
def test_a_number_as_std_equals_an_array_of_it(run, parameters, std):
    x, mean = parameters
    got = run(FIXED_STD[std], x, mean)
    assert_allclose(got, oracles.gaussian_log_prob(x, mean, std), rtol=1e-12, atol=1e-12)


def test_density_integrates_to_one(run):
    x = np.linspace(-14.0, 16.0, 30_001)
    assert_allclose(np.exp(run(lambda x: gaussian_log_prob(x, x * 0 + 1, 1.5), x)).sum() * 1e-3, 1.0, rtol=1e-9)


def test_log_prob_gradients_by_hand(grad):
    # log N(3; 1, 2): d/dx = -(3 - 1) / 4, d/dmean = 1/2, d/dstd = 4/8 - 1/2 = 0
    assert_allclose(np.concatenate(grad(gaussian_log_prob, [3.0], [1.0], [2.0])), [-0.5, 0.5, 0.0], atol=1e-15)
    # unit variance: the error itself
    assert_allclose(np.concatenate(grad(unit_log_prob, [3.0], [1.0])), [-2.0, 2.0], rtol=1e-15)


def elbo(x, mean_q, std_q, slope, std_x):
    """Exact bound of z ~ N(0, 1), x | z ~ N(slope z, std_x) under q = N(mean_q, std_q)."""
    expected_log_prob = gaussian_log_prob(x, slope * mean_q, std_x) - 0.5 * (slope * std_q / std_x) ** 2
    return expected_log_prob - gaussian_kl(mean_q, std_q, 0.0, 1.0)


@given(floats(-5, 5), floats(-3, 3), floats(0.1, 3), floats(-3, 3), floats(0.1, 3))
def test_bound_stays_below_the_evidence_and_touches_it_at_the_exact_posterior(run, x, slope, std_x, mean_q, std_q):
    """E1, one step of a linear-Gaussian model, whose evidence and posterior are known."""
    evidence = oracles.gaussian_log_prob(x, 0.0, math.hypot(slope, std_x))
    precision = 1 + (slope / std_x) ** 2
    exact_mean, exact_std = slope * x / std_x**2 / precision, precision**-0.5
    parameters = np.array([[value, value] for value in (x, slope, std_x)])
    x_, slope_, std_x_ = parameters
    bound, tight = run(elbo, x_, [mean_q, exact_mean], [std_q, exact_std], slope_, std_x_)
    assert bound <= evidence + 1e-9 * (1 + abs(evidence))
    assert_allclose(tight, evidence, rtol=1e-9, atol=1e-9)   # terms of up to (5 / 0.1)^2 cancel: 1e-12 absolute


@given(st.permutations(range(4)))
def test_terms_do_not_depend_on_batch_order(run, order):
    """E6."""
    x, mean = np.random.default_rng(0).normal(size=(2, 4, 3))
    assert_array_equal(run(unit_log_prob, x[order], mean[order]), run(unit_log_prob, x, mean)[order])


def test_shapes_must_agree(run):
    """A reward (B, T) against a mean (B, T, 1) would broadcast to (B, T, T) or so, and train on nonsense."""
    with pytest.raises(ValueError, match="gaussian_log_prob: .*x .*mean .*broadcast explicitly"):
        run(unit_log_prob, np.zeros((2, 3)), np.zeros((2, 3, 1)))
