"""Percentiles, moving averages and what divides returns and rewards: properties N1 to N3."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.checkpoint import load_tree, save_tree
from shared.formulas.normalization import debias, ema, magnitude_scaled, moments_std, percentile, return_range
from tests.formulas.strategies import exact, exact_arrays, exact_same_shape

SUBNORMAL = 1.2e-38                             # what float32 and JAX take for zero
QUANTILES = (0, 1, 5, 25, 37.5, 50, 200 / 3, 95, 99.9, 100)
RATES = (0.0, 0.01, 0.25, 1.0)

# One function object per number, so that JAX compiles each once.
PERCENTILE = {q: (lambda x, q=q: percentile(x, q)) for q in (0, 5, 37.5, 50, 95, 100)}
EMA = {rate: (lambda old, new, rate=rate: ema(old, new, rate)) for rate in RATES}
DEBIAS = {rate: (lambda average, weight, rate=rate: debias(average, weight, rate)) for rate in RATES if rate}
RANGE = {limit: (lambda low, high, limit=limit: return_range(low, high, limit)) for limit in (1.0, 1e-8)}
STD = {limit: (lambda mean, square, limit=limit: moments_std(mean, square, limit)) for limit in (0.5, 1e-8)}
SCALED = {eps: (lambda x, magnitude, eps=eps: magnitude_scaled(x, magnitude, eps)) for eps in (1e-8, 1.0)}


def percentiles(x):
    """All at once: one compilation per shape."""
    return tuple(percentile(x, q) for q in QUANTILES)


def all_percentiles(run_any, x):
    return np.array(run_any(percentiles, x), np.float64)


# Percentiles


def test_percentile_by_hand(run):
    # sorted 10, 20, 40: i = 0.95 * 2 = 1.9, so 20 + 0.9 * 20 = 38;   i = 0.05 * 2 = 0.1, so 10 + 0.1 * 10 = 11
    assert_allclose(run(PERCENTILE[95], [40.0, 10.0, 20.0]), 38, rtol=1e-15)
    assert_allclose(run(PERCENTILE[5], [40.0, 10.0, 20.0]), 11, rtol=1e-15)
    # four numbers: i = 1.5;   five: i = 2
    assert_array_equal(run(PERCENTILE[50], [4.0, 1.0, 8.0, 2.0]), 3)
    assert_array_equal(run(PERCENTILE[50], [4.0, 1.0, 8.0, 2.0, 3.0]), 3)
    # i = 0.375 * 4 = 1.5, between 2 and 3
    assert_array_equal(run(PERCENTILE[37.5], [4.0, 1.0, 8.0, 2.0, 3.0]), 2.5)


def test_ends_are_the_smallest_and_the_largest_exactly(run):
    x = [[0.3, -0.7], [0.1, 1e9]]
    assert_array_equal(run(PERCENTILE[0], x), -0.7)
    assert_array_equal(run(PERCENTILE[100], x), 1e9)


def test_the_largest_is_exact_beside_a_number_that_would_swallow_it(run):
    """-1e20 + (1 + 1e20) = 0: the 100th percentile must not be interpolated."""
    assert run(lambda x: percentile(x, 100), [1.0, -1e20]) == 1.0


def test_percentile_of_one_element_is_the_element(run):
    assert_array_equal(run(percentiles, [[0.3]]), [0.3] * len(QUANTILES))
    assert_array_equal(run(percentiles, np.array(0.3)), [0.3] * len(QUANTILES))


def test_percentile_is_over_all_elements_and_keeps_float32(run):
    x = np.arange(23, -1, -1, dtype=np.float32).reshape(2, 3, 4)
    got = run(PERCENTILE[50], x)
    assert got.shape == () and got.dtype == np.float32 and got == 11.5


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (4, 5), (21,), (101,)])
def test_percentiles_equal_those_of_numpy(run_any, shape):
    """Tied and untied numbers. Rounding: the difference of neighbours, its product and the sum."""
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=shape), rng.integers(-2, 3, size=shape) * 1.0):
        x = x.astype(run_any.dtype).astype(np.float64)
        expected = np.percentile(x, QUANTILES)
        assert_allclose(all_percentiles(run_any, x), expected, rtol=0, atol=3 * run_any.eps * np.max(np.abs(x)))


@given(exact_arrays((7,), -1e3, 1e3), exact_arrays((7,), -1e3, 1e3), st.permutations(range(7)))
def test_percentiles_rise_with_q_and_with_the_numbers_and_ignore_their_order(run_any, x, other, order):
    got = all_percentiles(run_any, x)
    slack = 3 * run_any.eps * 1e3
    assert np.all(np.diff(got) >= -slack)
    assert np.all(np.abs(got[[0, -1]] - [x.min(), x.max()]) <= SUBNORMAL)
    assert_array_equal(all_percentiles(run_any, x[list(order)]), got)
    assert np.all(all_percentiles(run_any, np.maximum(x, other)) >= got - slack)


@pytest.mark.property("N1")
@given(exact_arrays((7,), -1e3, 1e3), st.sampled_from([0.5, 2.0, -1.0, -4.0]), st.sampled_from([0.0, 64.0, -1024.0]))
def test_percentiles_move_with_origin_and_unit(run_any, x, factor, shift):
    """p(a x + b, q) = a p(x, q) + b; for a < 0 the order turns round, and 100 - q takes the place of q."""
    moved = np.float32(factor * x + shift).astype(np.float64)          # rounded for both dtypes
    scale = abs(factor) * 1e3 + abs(shift)
    of_x = np.percentile(x, [100 - q if factor < 0 else q for q in QUANTILES])
    slack = (3 * run_any.eps + np.finfo(np.float32).eps) * scale
    assert_allclose(all_percentiles(run_any, moved), factor * of_x + shift, rtol=0, atol=slack)


def test_gradient_goes_to_the_two_neighbours_where_they_stand(grad):
    # sorted 10, 20, 40; i = 1.9: 0.1 of the gradient to 20, 0.9 to 40
    (got,) = grad(PERCENTILE[95], [[40.0], [10.0], [20.0]])
    assert_allclose(got, [[0.9], [0], [0.1]], rtol=1e-14)


@pytest.mark.parametrize("q", [-1e-9, 100.001, np.nan])
def test_percent_is_from_0_to_100(q):
    with pytest.raises(ValueError, match=rf"^percentile: q is {q}, expected 0 to 100 \(percent, not a fraction\)"):
        percentile(np.ones(3), q)


def test_percentile_needs_an_element(run):
    with pytest.raises(ValueError, match=r"^percentile: x is empty, shape \(2, 0\)"):
        run(PERCENTILE[50], np.zeros((2, 0)))


# Moving averages


def test_average_by_hand(run):
    # 0.75 * 8 + 0.25 * -4
    assert_array_equal(run(EMA[0.25], [8.0, 0.0], [-4.0, 4.0]), [5.0, 1.0])


@pytest.mark.property("N2")
@given(exact_same_shape((-1e6, 1e6), (-1e6, 1e6)))
def test_rate_zero_keeps_and_rate_one_copies_exactly(run_any, pair):
    """A target network copied at its first update equals its source to the bit. JAX takes subnormals for zero."""
    old, new = pair
    assert_allclose(run_any(EMA[0.0], old, new), old, rtol=0, atol=SUBNORMAL)
    assert_allclose(run_any(EMA[1.0], old, new), new, rtol=0, atol=SUBNORMAL)


@pytest.mark.property("N1", "N2")
@pytest.mark.parametrize("rate", [0.01, 0.25])
def test_average_of_a_constant_converges_geometrically(run_any, rate):
    """After n steps (1 - rate)^n of the distance is left. A step rounds four times, and earlier errors shrink."""
    old, new, steps = np.array([5.0, -2.0]), np.array([1.0, 3.0]), 40
    average = old
    for n in range(1, steps + 1):
        average = run_any(EMA[rate], average, new)
        expected = new + (1 - rate) ** n * (old - new)
        assert_allclose(average, expected, rtol=0, atol=2 * n * run_any.eps * 5)


@given(exact_same_shape((-1e6, 1e6), (-1e6, 1e6)), st.sampled_from([0.01, 0.25]))
def test_average_lies_between(run_any, pair, rate):
    old, new = pair
    got = run_any(EMA[rate], old, new)
    slack = 2 * run_any.eps * np.maximum(np.abs(old), np.abs(new)) + np.finfo(np.float32).tiny   # subnormals vanish
    assert np.all(got >= np.minimum(old, new) - slack) and np.all(got <= np.maximum(old, new) + slack)


def test_gradients_of_the_average_are_its_weights(grad):
    old, new = grad(EMA[0.25], [1.0, 2.0], [3.0, 5.0])
    assert_array_equal(old, [0.75, 0.75])
    assert_array_equal(new, [0.25, 0.25])


def test_average_of_other_shapes_is_refused(run):
    with pytest.raises(ValueError, match=r"^ema: .*old \(2,\), new \(2, 1\)"):
        run(EMA[0.25], np.zeros(2), np.zeros((2, 1)))


# Averages that begin at zero


def test_debiased_by_hand(run):
    # two updates of rate 0.25 towards 16 from 0: 4, 7; weights 1/4, 7/16
    assert_array_equal(run(DEBIAS[0.25], [7.0, -7.0], np.array(7 / 16)), [16.0, -16.0])


@pytest.mark.property("N1")
def test_before_the_first_update_the_rate_guards_the_division(run):
    """Nothing seen, weight 0: 0 / rate. From the first update on the weight is at least the rate."""
    assert_array_equal(run(DEBIAS[0.01], [0.0], np.array(0.0)), [0.0])
    assert_array_equal(run(DEBIAS[0.25], [4.0], np.array(0.125)), [16.0])
    assert_array_equal(run(DEBIAS[0.25], [4.0], np.array(0.25)), [16.0])
    assert_array_equal(run(DEBIAS[0.25], [4.0], np.array(0.5)), [8.0])


@pytest.mark.property("N1")
@pytest.mark.parametrize("rate", [0.01, 0.25])
def test_debiased_average_of_a_constant_is_the_constant_at_once(run_any, rate):
    """Debias on: the constant after every update. Off: 1 - (1 - rate)^n of it."""
    constant, average, weight = np.array([12.0, -0.5]), np.zeros(2), np.array(0.0)
    for n in range(1, 11):
        average, weight = run_any(EMA[rate], average, constant), run_any(EMA[rate], weight, np.array(1.0))
        seen = -np.expm1(n * np.log1p(-rate))                          # 1 - (1 - rate)^n
        assert_allclose(average, seen * constant, rtol=4 * n * run_any.eps)
        assert_allclose(run_any(DEBIAS[rate], average, weight), constant, rtol=4 * n * run_any.eps)


def test_gradient_of_the_debiased_average(grad):
    assert_array_equal(grad(DEBIAS[0.25], [1.0, 2.0], np.array(0.5))[0], [2.0, 2.0])


@pytest.mark.parametrize("rate", [0.0, -0.1, np.nan])
def test_debias_needs_a_positive_rate(rate):
    with pytest.raises(ValueError, match=rf"^debias: rate is {rate}, expected the positive rate of the average"):
        debias(np.zeros(2), np.array(0.5), rate)


# Ranges and standard deviations


def test_range_by_hand(run):
    assert_array_equal(run(RANGE[1.0], [-2.0, 0.25, 3.0, 5.0], [4.0, 0.5, 4.0, 2.0]), [6.0, 1.0, 1.0, 1.0])


@pytest.mark.property("N1")
@given(exact_same_shape((-1e6, 1e6), (-1e6, 1e6)), st.sampled_from(list(RANGE)))
@example((np.array([0.0]), np.array([0.0])), 1e-8)
def test_range_is_never_below_its_limit(run_any, pair, limit):
    got = run_any(RANGE[limit], *pair)
    assert np.all(got >= run_any.dtype(limit))
    assert_allclose(got, np.maximum(pair[1] - pair[0], limit), rtol=run_any.eps)


def spread_of_returns(x):
    return return_range(percentile(x, 5), percentile(x, 95), 1e-8)


@pytest.mark.property("N1")
@given(exact_arrays((7,), -1e3, 1e3), st.sampled_from([0.5, 8.0, -4.0]), exact(-64, 64))
def test_range_of_returns_scales_with_their_unit_and_ignores_their_origin(run_any, x, factor, shift):
    """The range of a x + b is |a| times that of x. The limit, 1e-8, decides nothing but equal numbers."""
    moved = np.float32(factor * x + shift).astype(np.float64)          # rounded for both dtypes
    spread, of_moved = (float(run_any(spread_of_returns, y)) for y in (x, moved))
    slack = (8 * run_any.eps + np.finfo(np.float32).eps) * (abs(factor) * 1e3 + 64)
    assert abs(of_moved - abs(factor) * spread) <= slack


def test_gradient_of_the_range_is_zero_below_the_limit(grad):
    low, high = grad(RANGE[1.0], [0.0, 0.0], [0.5, 3.0])
    assert_array_equal(low, [0.0, -1.0])
    assert_array_equal(high, [0.0, 1.0])


def test_std_by_hand(run):
    # 13 - 3^2 = 4;   0.25 - 0 -> 0.5;   0.01 -> 0.1, below the limit;   1 - 2^2 < 0 (rounding in the averages) -> limit
    assert_array_equal(run(STD[0.5], [3.0, 0.0, 0.0, 2.0], [13.0, 0.25, 0.01, 1.0]), [2.0, 0.5, 0.5, 0.5])


@pytest.mark.property("N1")
def test_std_of_averaged_moments_is_that_of_the_numbers(run):
    """The mean of x and of x^2, as `ema` with rate 1 leaves them, against numpy's own."""
    x = np.random.default_rng(0).normal(3, 2, size=(50, 4))
    got = run(STD[1e-8], x.mean(0), (x * x).mean(0))
    assert_allclose(got, x.std(0), rtol=1e-13)              # 13 - 9 loses a digit of sixteen


def test_missing_statistics_are_not_hidden(run):
    """A maximum with a limit must not turn a diverged statistic into a healthy one."""
    nan = np.array([np.nan])
    assert np.isnan(run(RANGE[1.0], nan, np.zeros(1))).all()
    assert np.isnan(run(STD[0.5], np.zeros(1), nan)).all()
    assert np.isnan(run(DEBIAS[0.25], np.ones(1), np.array(np.nan))).all()
    assert np.isnan(run(EMA[0.25], nan, np.zeros(1))).all()


@pytest.mark.parametrize("function, names", [(RANGE[1.0], "low .*high"), (STD[0.5], "mean .*mean_square")])
def test_statistics_of_other_shapes_are_refused(run, function, names):
    with pytest.raises(ValueError, match=rf"^(return_range|moments_std): .*{names} \(2, 1\)"):
        run(function, np.zeros(2), np.zeros((2, 1)))


# Rewards


def test_scaled_rewards_by_hand(run):
    # (6, -2) / (3 + 1)
    assert_array_equal(run(SCALED[1.0], [6.0, -2.0], np.array(3.0)), [1.5, -0.5])


@pytest.mark.property("N3")
@given(exact_same_shape((-1e6, 1e6)))
def test_momentum_one_leaves_rewards_as_they_are(run_any, values):
    """DreamerV2's published setting: the magnitude stays at 1, whatever is seen, and 1 + 1e-8 is 1 to within 1e-8."""
    (reward,) = values
    magnitude = run_any(EMA[0.0], np.array(1.0), np.mean(np.abs(reward)))
    assert magnitude == 1
    assert_allclose(run_any(SCALED[1e-8], reward, magnitude), reward, rtol=1.1e-8, atol=SUBNORMAL)


def test_running_magnitude_brings_rewards_to_size_one(run):
    """The limit of a long run with another momentum: the mean size of what comes out is 1."""
    reward, magnitude = np.array([30.0, -10.0]), np.array(1.0)
    for _ in range(200):
        magnitude = run(EMA[0.25], magnitude, np.mean(np.abs(reward)))
    assert_allclose(np.mean(np.abs(run(SCALED[1e-8], reward, magnitude))), 1, rtol=1e-8)


def test_gradient_of_scaled_rewards(grad):
    assert_array_equal(grad(SCALED[1.0], [6.0, -2.0], np.array(3.0))[0], [0.25, 0.25])


def test_rewards_and_magnitude_come_from_one_library():
    import torch

    with pytest.raises(TypeError, match="arrays of one library"):
        magnitude_scaled(torch.ones(2), np.ones(()), 1e-8)


@pytest.mark.parametrize("function, arguments", [
    (EMA[0.25], 2), (RANGE[1.0], 2), (STD[0.5], 2), (DEBIAS[0.25], 2), (SCALED[1e-8], 2)
])  # fmt: skip
def test_float32_and_shape_stay(run, function, arguments):
    got = run(function, *[np.ones((2, 3), np.float32)] * arguments)
    assert got.dtype == np.float32 and got.shape == (2, 3)


# The state of a normaliser is two arrays that the agent keeps


def updated(state, returns):
    """DreamerV3's return normaliser: the percentiles 5 and 95, averaged with rate 0.01."""
    low, high = state
    return ema(low, percentile(returns, 5), 0.01), ema(high, percentile(returns, 95), 0.01)


@pytest.mark.property("N1")
def test_normaliser_approaches_the_range_of_its_returns(run):
    """Of constant returns 0, 1, ..., 20: percentiles 1 and 19, from 0. Without debiasing, so slowly: 1 - 0.99^n."""
    returns, state = np.arange(21.0), (np.array(0.0), np.array(0.0))
    for n in range(1, 21):
        state = run(updated, state, returns)
        grown = 1 - 0.99**n
        assert_allclose(state, [grown, 19 * grown], rtol=1e-13)
        assert_allclose(run(RANGE[1.0], *state), max(1, 18 * grown), rtol=1e-13)


@pytest.mark.property("N1")
def test_normaliser_goes_on_from_a_checkpoint_to_the_bit(run_any, tmp_path):
    returns = np.random.default_rng(0).normal(size=(6, 8, 3)) * np.exp(np.arange(6))[:, None, None]
    state = straight = (np.array(0.0), np.array(0.0))
    for batch in returns:
        straight = run_any(updated, straight, batch)
    for batch in returns[:3]:
        state = run_any(updated, state, batch)
    save_tree(tmp_path / "state.h5", {"low": state[0], "high": state[1]})
    loaded = load_tree(tmp_path / "state.h5")
    state = (loaded["low"], loaded["high"])
    for batch in returns[3:]:
        state = run_any(updated, state, batch)
    assert_array_equal(state, straight)
    assert [x.dtype for x in state] == [run_any.dtype] * 2


def test_a_diverged_value_is_not_hidden_by_a_low_percentile(run):
    assert np.isnan(run(lambda x: percentile(x, 5), [1.0, 2.0, np.nan, 3.0]))
