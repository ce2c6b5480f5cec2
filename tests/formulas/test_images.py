"""Image preprocessing: property D1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.images import centre, dequantise, dequantise_uint8, quantise
from shared.testing import oracles

PIXELS = np.arange(256)
QUANTISE = {bits: (lambda image, bits=bits: quantise(image, bits)) for bits in range(1, 9)}
NOISY = {bits: (lambda image, noise, bits=bits: quantise(image, bits, noise)) for bits in range(1, 9)}
DISPLAY = {bits: (lambda image, bits=bits: dequantise_uint8(image, bits)) for bits in range(1, 9)}


@pytest.mark.property("D1")
def test_centre_by_hand(run):
    # 51 = 255 / 5 -> 0.2 - 0.5
    assert_allclose(run(centre, [0.0, 51.0, 127.5, 255.0]), [-0.5, -0.3, 0.0, 0.5], rtol=1e-15, atol=1e-16)


@pytest.mark.property("D1")
def test_five_bits_by_hand(run):
    # 0..7 -> level 0 -> -0.5;   100 -> level 12 -> 12/32 - 1/2 = -0.125;   255 -> level 31 -> 15/32
    got = run(QUANTISE[5], [0.0, 7.0, 8.0, 100.0, 128.0, 255.0])
    assert_array_equal(got, [-0.5, -0.5, -0.46875, -0.125, 0.0, 0.46875])


def test_noise_fills_one_level(run):
    assert_array_equal(run(NOISY[5], [100.0, 100.0], [0.0, 0.5]), [-0.125, -0.125 + 0.5 / 32])


@pytest.mark.property("D1")
def test_display_by_hand(run):
    # -0.125 + half a level -> level 12 -> 96;   beyond the range: clipped
    assert_array_equal(run(DISPLAY[5], [-0.125, -0.109375, -0.5, 0.4999, -3.0, 3.0]), [96, 96, 0, 248, 0, 255])


def test_level_by_hand(run):
    assert_array_equal(run(lambda x: dequantise(x, 5), [-0.125, -0.109375, 0.49]), [12 / 32, 12 / 32, 31 / 32])


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_pixel_equals_integer_arithmetic(run, bits, dtype):
    """Exactly, also in float32: all numbers are sums of powers of two."""
    got = run(QUANTISE[bits], PIXELS.astype(dtype))
    assert got.dtype == dtype
    assert_array_equal(got, oracles.quantise(PIXELS, bits))
    assert_array_equal(run(DISPLAY[bits], got), PIXELS >> (8 - bits) << (8 - bits))


def test_display_is_uint8(run):
    assert run(DISPLAY[5], [0.0]).dtype == np.uint8


@pytest.mark.property("D1")
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_range_and_round_trip_with_noise(run, bits, seed):
    """D1: one call maps 0..255 into [-0.5, 0.5); noise never changes the level. Noise stays below 1 - 1e-9, where
    x + 1/2 still lies below the next level in float64."""
    noise = np.random.default_rng(seed).uniform(0, 1 - 1e-9, 256)
    x = run(NOISY[bits], PIXELS.astype(float), noise)
    assert x.min() >= -0.5 and x.max() < 0.5
    assert_array_equal(run(DISPLAY[bits], x), PIXELS >> (8 - bits) << (8 - bits))


@pytest.mark.property("D1")
def test_preprocessing_twice_is_seen(run):
    """D1: the second time would leave a black image (all values within one level), so it must not happen."""
    once = run(QUANTISE[5], PIXELS.astype(float))
    assert np.ptp(run(QUANTISE[5], once)) <= 1 / 32


@pytest.mark.property("D1")
def test_centring_keeps_every_pixel_apart_within_its_range(run_any):
    """256 increasing levels from -0.5 to 0.5, 1/255 apart. XLA multiplies by 1/255, so white may be 0.5 + eps / 2."""
    got = run_any(centre, PIXELS.astype(float))
    assert got.dtype == run_any.dtype
    assert_allclose([got[0], got[-1]], [-0.5, 0.5], rtol=run_any.eps)
    assert_allclose(np.diff(got.astype(np.float64)), 1 / 255, rtol=0, atol=run_any.eps)


@pytest.mark.property("D1")
def test_centring_twice_is_seen(run):
    """The second time would leave a picture of one grey: all values within 1/255."""
    assert np.ptp(run(centre, run(centre, PIXELS.astype(float)))) <= 1 / 255


def test_gradient_of_centring_is_one_level(grad):
    assert_allclose(grad(centre, [3.0, 250.0])[0], 1 / 255, rtol=1e-15)


def test_gradient_reaches_only_the_noise(grad):
    image, noise = grad(NOISY[5], [3.0, 77.0], [0.2, 0.9])
    assert_array_equal(image, 0)
    assert_allclose(noise, 1 / 32)


@pytest.mark.parametrize("function", [quantise, dequantise, dequantise_uint8])
def test_integers_are_refused(run, function):
    with pytest.raises(ValueError, match=f"{function.__name__}: image is .*uint8, expected floating point"):
        run(lambda image: function(image, 5), np.zeros((2, 2), np.uint8))


def test_centring_refuses_integers(run):
    with pytest.raises(ValueError, match="centre: image is .*uint8, expected floating point"):
        run(centre, np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize("function", [quantise, dequantise, dequantise_uint8])
@pytest.mark.parametrize("bits", [0, 9])
def test_impossible_bits_are_refused(function, bits):
    with pytest.raises(ValueError, match=f"{function.__name__}: bits is {bits}, expected 1 to 8"):
        function(np.zeros((2, 2)), bits)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="quantise: .*image .*noise"):
        quantise(np.zeros((2, 2)), 5, np.zeros(2))
