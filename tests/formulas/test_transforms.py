"""symlog, symexp and the bins built with them: properties T1, T6. The two-hot code: test_twohot.py."""

import math

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.transforms import symexp, symexp_bins, symlog
from shared.testing import oracles_transforms as definitions
from tests.formulas.strategies import exact, exact_arrays

E = math.e
SIZE = (4,)                                     # one shape: JAX compiles once
SUBNORMAL = 1.2e-38                             # what float32 and JAX take for zero

# Units in the last place by which one call may miss the true value: glibc, Sleef and numpy stay below 1, XLA's float32
# has 2.5 (log1p) and 5.6 (expm1), measured over 1.5 million numbers.
ULPS = 8

numbers = exact_arrays(SIZE, -1e8, 1e8)
small_numbers = exact_arrays(SIZE, -1, 1)


def round_trip(x):
    return symexp(symlog(x))


# By hand


def test_symlog_by_hand(run):
    # log(1 + 1) = 0.693..., log(1 + 3) = 2 log 2, log(1 + (e - 1)) = 1
    got = run(symlog, [0.0, 1.0, -3.0, E - 1, 1 - E])
    assert_allclose(got, [0, math.log(2), -2 * math.log(2), 1, -1], rtol=1e-15)


def test_symexp_by_hand(run):
    # exp(log 4) - 1 = 3
    got = run(symexp, [0.0, 1.0, -1.0, 2.0, -2 * math.log(2)])
    assert_allclose(got, [0, E - 1, 1 - E, E * E - 1, -3], rtol=1e-15)


def test_small_numbers_pass_unchanged(run):
    """log(1 + x) = x - x^2 / 2: below 1e-17 nothing of the square is left, and 1 + x would have lost x."""
    x = [1e-17, -1e-17, 1e-30, -1e-300]
    assert_array_equal(run(symlog, x), x)
    assert_array_equal(run(symexp, x), x)


def test_infinite_and_missing_numbers(run):
    assert_array_equal(run(symlog, [np.inf, -np.inf, np.nan]), [np.inf, -np.inf, np.nan])
    assert_array_equal(run(symexp, [np.inf, -np.inf, np.nan]), [np.inf, -np.inf, np.nan])


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_symexp_overflows_to_infinity_of_its_sign(run_any):
    """float32 ends at log(3.4e38) = 88.7, float64 at 709.8."""
    got = run_any(symexp, np.array([88.0, -88.0, 89.0, -89.0, 710.0, -710.0]))
    assert_allclose(got[:2], [math.expm1(88), -math.expm1(88)], rtol=100 * run_any.eps)
    assert_array_equal(np.isinf(got[2:4]), run_any.dtype == np.float32)
    assert_array_equal(got[4:], [np.inf, -np.inf])


@pytest.mark.parametrize("function", [symlog, symexp])
def test_shape_and_float32_stay(run, function):
    for shape in [(), (1,), (2, 3, 1)]:
        got = run(function, np.full(shape, 0.5, np.float32))
        assert got.shape == shape and got.dtype == np.float32


@pytest.mark.parametrize("function", [symlog, symexp])
def test_an_array_is_needed(function):
    for x in (2.0, None):
        with pytest.raises(TypeError, match="arrays of one library, got none"):
            function(x)
    with pytest.raises(TypeError, match="builtins is not supported"):
        function([1.0])


# T1


@given(numbers, st.sampled_from([symlog, symexp]))
def test_values_equal_forty_digits(run_any, x, function):
    if function is symexp:
        x = np.float32(x / 2**23).astype(np.float64)                          # up to 12: 1.6e5
    expected = getattr(definitions, function.__name__)(x)
    error = definitions.ulps(run_any(function, x), expected, run_any.dtype)
    assert np.all(error[np.abs(x) > SUBNORMAL] <= ULPS), error


# symexp turns an absolute error of symlog into a relative one of 1 + |x|. Up to 1e8 symlog stays below 32, where an ulp
# is 16 eps; an ulp of x may be as little as eps / 2. So each ulp that symlog errs becomes up to 32 of x. Measured over
# 1.5 million numbers: 16 (numpy, torch, and XLA in float64: symlog errs by half an ulp), 17 (XLA in float32). For
# |x| <= 1 the factor is at most log(1 + x) (1 + x) / x = 1.4; measured 1, 1, 3, and 6 in XLA's float32.
ROUND_TRIP_ULPS, SMALL_ROUND_TRIP_ULPS = 32, 16


@pytest.mark.property("T1")
@given(numbers)
@example(np.array([16654843.0, -16654843.0, 32916902.0, 1e8]))                # the worst found
def test_symexp_undoes_symlog(run_any, x):
    error = definitions.ulps(run_any(round_trip, x), x, run_any.dtype)[np.abs(x) > SUBNORMAL]
    target(float(np.max(error, initial=0)), label="error of the round trip in ulp")
    assert np.all(error <= ROUND_TRIP_ULPS), error


@pytest.mark.property("T1")
@given(small_numbers)
def test_symexp_undoes_symlog_of_small_numbers_closely(run_any, x):
    error = definitions.ulps(run_any(round_trip, x), x, run_any.dtype)[np.abs(x) > SUBNORMAL]
    assert np.all(error <= SMALL_ROUND_TRIP_ULPS), error


@pytest.mark.property("T1")
@given(numbers)
def test_both_are_odd(run_any, x):
    """To the bit."""
    assert_array_equal(run_any(symlog, -x), -run_any(symlog, x))
    assert_array_equal(run_any(symexp, -x / 1e8), -run_any(symexp, x / 1e8))


@pytest.mark.property("T1")
@given(numbers, exact(2**-12, 1))
def test_symlog_strictly_rises(run_any, x, step):
    """By (1 + |x|) * step it rises by at least log(1 + step) / 2 = 1e-4; float32 errs by 2.5 ulp of up to 18, 5e-6."""
    higher = np.float32(x + (1 + np.abs(x)) * step).astype(np.float64)
    assert np.all(run_any(symlog, higher) > run_any(symlog, x))


@pytest.mark.property("T1")
@given(numbers)
def test_symlog_never_enlarges(run_any, x):
    """|symlog(x)| <= |x|, to the bit where symlog is rounded well; XLA's float32 is allowed its errors."""
    assert np.all(np.abs(run_any(symlog, x)) <= np.abs(x) * (1 + ULPS * run_any.eps))


@pytest.mark.property("T1")
@given(numbers)
@example(np.zeros(SIZE))
def test_slope_of_symlog(grad_any, x):
    """1 / (1 + |x|), from three operations, each rounded."""
    (got,) = grad_any(symlog, x)
    assert_allclose(got, 1 / (1 + np.abs(x)), rtol=3 * grad_any.eps)


@given(exact_arrays(SIZE, -20, 20))
@example(np.zeros(SIZE))
def test_slope_of_symexp(grad_any, x):
    """exp(|x|); XLA derives it as expm1(x) + 1."""
    (got,) = grad_any(symexp, x)
    assert_allclose(got, np.exp(np.abs(x)), rtol=2 * ULPS * grad_any.eps)


@pytest.mark.property("T1")
@pytest.mark.parametrize("function", [symlog, symexp])
def test_slope_at_zero_is_one(grad, function):
    """sign(x) log(1 + |x|), differentiated as it stands, has 0 there. So has a maximum that gives a tie to one side."""
    (got,) = grad(function, [0.0, -0.0, 5e-324, -1e-300])
    assert_array_equal(got, [1.0, 1.0, 1.0, 1.0])


def test_slope_of_an_overflow_is_no_nan(grad):
    (got,) = grad(symexp, [800.0, -800.0])
    assert_array_equal(got, [np.inf, np.inf])


# Bins

COUNTS = [2, 3, 4, 5, 9, 16, 41, 254, 255]


@pytest.mark.property("T6")
def test_bins_by_hand():
    # grid -2, -1, 0 and its mirror image, symexp of it
    near, far = E - 1, E * E - 1
    assert_allclose(symexp_bins(5, -2.0, 2.0), [-far, -near, 0, near, far], rtol=1e-15)
    # even: grid -2, 0 and its mirror image, so two zeros
    assert_allclose(symexp_bins(4, -2.0, 2.0), [-far, 0, 0, far], rtol=1e-15)
    # three values on either side: -2, -1, 0, 0, 1, 2
    assert_allclose(symexp_bins(6, -2, 2), [-far, -near, 0, 0, near, far], rtol=1e-15)


def test_fewest_bins_are_the_ends():
    assert_allclose(symexp_bins(2, -1.0, 1.0), [1 - E, E - 1], rtol=1e-15)
    assert_allclose(symexp_bins(3, -1.0, 1.0), [1 - E, 0, E - 1], rtol=1e-15)


@pytest.mark.property("T6")
@pytest.mark.parametrize("count", COUNTS)
def test_bins_are_symmetric_and_rise_between_ends_of_half_a_billion(count):
    bins = symexp_bins(count, -20.0, 20.0)
    assert bins.shape == (count,) and bins.dtype == np.float64
    assert_array_equal(bins, -bins[::-1])                                     # to the bit: uniform sums cancel
    assert_allclose(bins[[0, -1]], [-4.8516519e8, 4.8516519e8], rtol=1e-8)    # exp(20) - 1 = 485165194.4
    steps = np.diff(bins)
    centre = count // 2 - 1                                                   # of an even count: between the zeros
    expected_ties = [centre] if count % 2 == 0 and count > 2 else []
    assert np.flatnonzero(steps == 0).tolist() == expected_ties and np.all(steps >= 0)


@pytest.mark.property("T6")
@pytest.mark.parametrize("count", COUNTS)
def test_odd_bins_are_symexp_of_an_even_grid_and_even_ones_are_not(count):
    """The trap: TorchRL spaces every count evenly; for an even count that is another support, without zero."""
    grid = definitions.symexp(np.linspace(-20.0, 20.0, count))
    bins = symexp_bins(count, -20.0, 20.0)
    if count % 2 or count == 2:
        # the grid's points err by up to an ulp of 20, 16 eps, which symexp turns into a relative error
        assert_allclose(bins, grid, rtol=1e-14)
    else:
        assert 0 in bins and 0 not in grid
        assert not np.allclose(bins, grid, rtol=0.01)


@given(st.integers(2, 300), st.floats(0.5, 40))
def test_bins_equal_forty_digits(count, high):
    bins = symexp_bins(count, -high, high)
    half = bins[: (count + 1) // 2]
    grid = -high * (1 - np.arange(len(half)) / max(len(half) - 1, 1))
    assert_allclose(half, definitions.symexp(grid), rtol=1e-13, atol=1e-14)   # the grid errs by 2 ulp of up to 40
    assert_array_equal(bins[-len(half) :], -half[::-1])


@pytest.mark.parametrize("count", [1, 0, -3, 2.5])
def test_bins_need_a_whole_number_of_at_least_two(count):
    with pytest.raises(ValueError, match=rf"^symexp_bins: count is {count}, expected a whole number of at least 2"):
        symexp_bins(count, -20.0, 20.0)


@pytest.mark.parametrize("low, high", [(-20.0, 19.0), (20.0, -20.0), (0.0, 0.0), (0.0, 20.0), (np.nan, np.nan)])
def test_bins_need_symmetric_ends(low, high):
    with pytest.raises(ValueError, match=rf"^symexp_bins: ends {low} and {high}, expected symmetric ones"):
        symexp_bins(255, low, high)
