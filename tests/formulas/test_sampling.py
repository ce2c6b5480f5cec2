"""Reparameterised Gaussian: property S6."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.sampling import reparameterise
from tests.formulas.strategies import same_shape


def test_sample_by_hand(run):
    assert_array_equal(run(reparameterise, [1.0, 1.0], [2.0, 2.0], [0.0, -1.5]), [1.0, -2.0])


def test_std_may_be_a_number(run):
    assert_array_equal(run(lambda mean, noise: reparameterise(mean, 0.5, noise), [1.0], [2.0]), [2.0])


@given(same_shape((-1e3, 1e3), (1e-3, 1e3), (-6, 6)))
def test_noise_is_recovered(run, parameters):
    """The limit of zero noise, and the inverse."""
    mean, std, noise = parameters
    assert_allclose(run(reparameterise, mean, std, 0 * noise), mean, rtol=0, atol=1e-300)   # JAX flushes subnormals
    sample = run(reparameterise, mean, std, noise)
    assert_allclose((sample - mean) / std, noise, atol=1e-8)  # a mean of 1e3 leaves 1e-13 of a std of 1e-3


def test_samples_have_the_mean_and_std_asked_for(run):
    noise = np.random.default_rng(0).normal(size=100_000)
    sample = run(reparameterise, np.full(100_000, 3.0), np.full(100_000, 0.5), noise)
    assert abs(sample.mean() - 3) < 4 * 0.5 / 100_000**0.5    # 4 standard errors, seed fixed
    assert abs(sample.std() - 0.5) < 4 * 0.5 / 200_000**0.5


def test_gradient_is_one_to_the_mean_and_the_noise_to_std(grad):
    """S6."""
    mean, std, noise = grad(reparameterise, [1.0, 2.0], [0.1, 3.0], [-0.7, 1.3])
    assert_array_equal(mean, [1.0, 1.0])
    assert_array_equal(std, [-0.7, 1.3])
    assert_array_equal(noise, [0.1, 3.0])


def test_shapes_must_agree(run):
    with pytest.raises(ValueError, match="reparameterise: .*mean .*std .*noise"):
        run(reparameterise, np.zeros((2, 3)), np.ones((2, 3)), np.zeros((3,)))
