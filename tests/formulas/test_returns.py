"""Lambda-returns by hand, by definition, their algebra, size and gradients: properties L1 to L9, L14.

Loops, scans, joins and long horizons: test_returns_structure.py; the papers' assemblies: test_returns_of_papers.py.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.returns import lambda_return
from shared.testing import oracles
from shared.testing import oracles_returns as definitions
from tests.formulas.strategies import exact, exact_arrays
from tests.formulas.transitions import (
    ROW,
    SHAPES,
    TRANSITIONS,
    UNDERFLOW,
    assert_rounded,
    random_transitions,
    rounding,
    several,
    transitions_of,
)

# By hand


def with_number(number):
    return lambda r, d, v: lambda_return(r, d, v, number)


HALF, ZERO, ONE = with_number(0.5), with_number(0), with_number(1)


def test_two_steps_by_hand(run):
    # R_1 = 2 + 0.5 * 8 = 6 (bootstrap);   R_0 = 1 + 0.5 * (0.5 * 4 + 0.5 * 6) = 3.5
    assert_array_equal(run(HALF, [1.0, 2.0], [0.5, 0.5], [4.0, 8.0]), [3.5, 6.0])


def test_unequal_discounts_and_lambdas_by_hand(run):
    # R_2 = -1 + 0.25 * 8 = 1;   R_1 = 2 + 0.5 * (0.25 * 16 + 0.75 * 1) = 4.375;
    # R_0 = 3 + 1 * (0.5 * 4 + 0.5 * 4.375) = 7.1875
    got = run(lambda_return, [3.0, 2.0, -1.0], [1.0, 0.5, 0.25], [4.0, 16.0, 8.0], [0.5, 0.75, 0.125])
    assert_array_equal(got, [7.1875, 4.375, 1.0])


def test_one_step_by_hand_whatever_lambda(run):
    # T = 1: only the bootstrap is left. 2 + 0.5 * 4 = 4
    for function in (ZERO, HALF, ONE):
        assert_array_equal(run(function, [[2.0]], [[0.5]], [[4.0]]), [[4.0]])


@pytest.mark.property("L1", "L2")
def test_ends_of_lambda_by_hand(run):
    # one step: 1 + 0.5 * 4, 2 + 0.5 * 8;   all steps: R_1 = 6, R_0 = 1 + 0.5 * 6
    assert_array_equal(run(ZERO, [1.0, 2.0], [0.5, 0.5], [4.0, 8.0]), [3.0, 6.0])
    assert_array_equal(run(ONE, [1.0, 2.0], [0.5, 0.5], [4.0, 8.0]), [4.0, 6.0])


def test_lambda_may_be_an_array_of_no_axis(run):
    """As it comes out of a traced configuration."""
    assert_array_equal(run(lambda_return, [1.0, 2.0], [0.5, 0.5], [4.0, 8.0], np.array(0.5)), [3.5, 6.0])


def test_every_axis_but_the_first_is_batch(run):
    transitions = random_transitions(3, 2, 4)
    got = run(lambda_return, *transitions)
    assert got.shape == (3, 2, 4)
    assert_allclose(got[:, 1, 2], run(lambda_return, *(x[:, 1, 2] for x in transitions)), rtol=1e-14)


def test_float32_stays_float32(run):
    x = np.full((2, 3), 0.5, np.float32)
    assert run(lambda_return, x, x, x, x).dtype == np.float32
    assert run(HALF, x, x, x).dtype == np.float32


def test_nan_reaches_its_own_past_and_column_only(run):
    """A diverged model must be seen, not averaged away."""
    reward = np.zeros((3, 2))
    reward[1, 0] = np.nan
    got = run(HALF, reward, np.full((3, 2), 0.5), np.zeros((3, 2)))
    assert_array_equal(np.isnan(got), [[True, False], [True, False], [False, False]])


# Definitions


# A reward that moves a discounted value off the middle between two float32, by less than float64 can tell.
OFF_THE_MIDDLE = [-(2.0**-126)], [float(np.float32(0.47781092))], [1.5], [0.0]


@pytest.mark.property("L1")
@given(TRANSITIONS)
@example(tuple(np.array(x) for x in OFF_THE_MIDDLE))
def test_lambda_zero_is_the_one_step_target_exactly(run_any, transitions):
    """Exactly: to the bit, with the product rounded before the sum or (fused, as compilers like) not."""
    reward, discount, next_value, _ = transitions
    got = run_any(lambda_return, reward, discount, next_value, np.zeros(reward.shape))
    twice, once = definitions.one_step(reward, discount, next_value, run_any.dtype)
    assert np.all(np.minimum(np.abs(got - twice), np.abs(got - once)) <= UNDERFLOW)


@pytest.mark.parametrize("below", [Fraction(0), Fraction(1, 2**90), Fraction(1, 2**30)])
def test_the_oracle_rounds_once(below):
    """Also just off the middle between two float32, where the way by float64 would round twice."""
    middle = Fraction(1) + Fraction(3, 2**24)
    even, odd = np.float32(1 + 4 / 2**24), np.float32(1 + 2 / 2**24)
    assert definitions.nearest(middle - below, np.float32) == (odd if below else even)
    assert definitions.nearest(middle + below, np.float32) == even


@pytest.mark.property("L2")
@given(TRANSITIONS)
def test_lambda_one_is_the_discounted_sum_with_bootstrap(run_any, transitions):
    reward, discount, next_value, _ = transitions
    ones = np.ones(reward.shape)
    expected = definitions.monte_carlo(reward, discount, next_value)
    got = run_any(lambda_return, reward, discount, next_value, ones)
    assert_rounded(got, expected, (reward, discount, next_value, ones), run_any.eps)


@pytest.mark.property("L3")
@given(TRANSITIONS)
def test_return_is_the_mixture_of_n_step_returns(run_any, transitions):
    got, expected = run_any(lambda_return, *transitions), definitions.n_step_mixture(*transitions)
    error = np.abs(got - expected) / rounding(transitions, run_any.eps)
    target(float(np.max(error)), label="error as a share of the bound")
    assert_rounded(got, expected, transitions, run_any.eps)


@pytest.mark.property("L3")
def test_shares_of_n_step_returns_by_hand(run):
    # lambda = 0.5, no discount, no reward: shares 1/2, 1/4 and (the rest) 1/4 of the values 16, 32 and 64
    assert_array_equal(run(HALF, [0.0] * 3, [1.0] * 3, [16.0, 32.0, 64.0])[0], 8 + 8 + 16)


@pytest.mark.property("L4")
@given(TRANSITIONS)
def test_recursion_holds_between_neighbouring_rows(run_any, transitions):
    reward, discount, next_value, lambda_ = transitions
    got = run_any(lambda_return, *transitions).astype(np.float64)
    following = np.concatenate([got[1:], next_value[-1:]])
    expected = reward + discount * ((1 - lambda_) * next_value + lambda_ * following)
    assert_rounded(got, expected, transitions, run_any.eps)


# Algebra


@pytest.mark.property("L5")
@given(TRANSITIONS, st.sampled_from([(1.0, 1.0), (2.0, -0.5), (-3.0, 0.25)]))
def test_return_is_linear_in_rewards_and_values(run_any, transitions, factors):
    reward, discount, next_value, lambda_ = transitions
    other, other_value = next_value[::-1], reward[::-1]
    a, b = factors
    combined = (a * reward + b * other, discount, a * next_value + b * other_value, lambda_)
    separate = a * run_any(lambda_return, *transitions).astype(np.float64)
    separate += b * run_any(lambda_return, other, discount, other_value, lambda_).astype(np.float64)
    # Three returns err, each by at most the bound for the sum of the sizes.
    sizes = [abs(a * x) + abs(b * y) for x, y in ((reward, other), (next_value, other_value))]
    bounding = (sizes[0], discount, sizes[1], lambda_)
    assert_rounded(run_any(lambda_return, *combined), separate, bounding, 3 * run_any.eps)


@pytest.mark.property("L6")
@given(TRANSITIONS, ROW, st.sampled_from([0, 2]), exact(0, 1e6))
def test_return_never_falls_when_a_reward_or_a_value_rises(run_any, transitions, row, which, rise):
    """To the bit: rounded products with numbers >= 0 and rounded sums never fall."""
    raised = [x.copy() for x in transitions]
    raised[which][row % len(raised[which])] += rise
    assert np.all(run_any(lambda_return, *raised) >= run_any(lambda_return, *transitions))


@pytest.mark.property("L7")
@given(several(2), ROW)
def test_the_past_leaves_a_return_as_it_is(run_any, pair, row):
    """To the bit."""
    transitions, others = pair
    row %= len(transitions[0])
    changed = [np.concatenate([other[:row], x[row:]]) for x, other in zip(transitions, others, strict=True)]
    assert_array_equal(run_any(lambda_return, *changed)[row:], run_any(lambda_return, *transitions)[row:])


@pytest.mark.property("L7")
@given(several(2), ROW)
def test_termination_hides_everything_after_it(run_any, pair, row):
    """To the bit: discount 0 in a row cuts its own next value and lambda, and all later rows."""
    before, others = pair
    row %= len(before[0])
    before[1][row] = 0
    first_hidden = (row + 1, row + 1, row, row)
    after = [np.concatenate([x[:n], other[n:]]) for x, other, n in zip(before, others, first_hidden, strict=True)]
    assert_array_equal(run_any(lambda_return, *after)[: row + 1], run_any(lambda_return, *before)[: row + 1])


@pytest.mark.property("L7")
@pytest.mark.parametrize("which", ["reward", "discount", "next_value", "lambda_"])
def test_the_future_matters_until_termination(run, which):
    """The witness without which the two tests above would hold for a constant."""
    names = ["reward", "discount", "next_value", "lambda_"]
    transitions = dict(zip(names, np.full((4, 3), 0.5), strict=True))
    transitions["next_value"] = np.array([3.0, 2.0, 1.0])
    base = run(lambda_return, *transitions.values())
    transitions[which] = transitions[which] + [0, 0.25, 0]
    assert np.all(run(lambda_return, *transitions.values())[:2] != base[:2])


# Size


@pytest.mark.property("L8")
@given(st.sampled_from(SHAPES), exact(-1e6, 1e6), exact(0, 0.875), exact(0, 1))
def test_constant_rewards_and_their_value_are_a_fixed_point(run_any, shape, reward, discount, lambda_):
    """c + d c / (1 - d) = c / (1 - d), whatever lambda."""
    value = reward / (1 - discount)
    transitions = [np.full(shape, x) for x in (reward, discount, value, lambda_)]
    assert_rounded(run_any(lambda_return, *transitions), transitions[2], transitions, run_any.eps)


@pytest.mark.property("L9")
@given(st.sampled_from(SHAPES).flatmap(lambda shape: st.tuples(*[exact_arrays(shape, -1e3, 1e3)] * 3)), exact(0, 1))
def test_return_stays_within_geometric_series(run_any, arrays, discount):
    """An n-step return of rewards and values in [m, M] lies between m and M times 1 + d + ... + d^n; a mixture between
    the extremes over n = 1, ..., T - t."""
    reward, next_value, lambda_ = arrays[0], arrays[1], np.abs(arrays[2]) / 1e3
    transitions = (reward, np.full(reward.shape, discount), next_value, lambda_)
    low, high = min(reward.min(), next_value.min()), max(reward.max(), next_value.max())
    series = np.cumsum(discount ** np.arange(len(reward) + 1))[1:]                       # n = 1, ..., T
    got, slack = run_any(lambda_return, *transitions), rounding(transitions, run_any.eps)
    for t in range(len(reward)):
        reachable = series[: len(reward) - t]
        assert np.all(got[t] <= np.max(high * reachable) + slack[t])
        assert np.all(got[t] >= np.min(low * reachable) - slack[t])


# Gradients


def weighted(weight, *transitions):
    return weight * lambda_return(*transitions)


@pytest.mark.property("L14")
@given(st.sampled_from([(1,), (4,)]).flatmap(transitions_of))
def test_every_gradient_of_every_return_by_hand(grad_any, transitions):
    """d G_t / d r_s = product of d lambda from t to s - 1, 0 for s < t; likewise for discounts, values and lambdas."""
    steps = len(transitions[0])
    copies = [np.repeat(x[:, None], steps, axis=1) for x in transitions]                # column t asks for G_t
    got = grad_any(weighted, np.eye(steps), *copies)[1:]
    # To rewards and values: at most 1. To discounts and lambdas: a value or a return, which have the errors of returns.
    size = np.max(definitions.magnitude(*transitions)) + np.max(np.abs(transitions[2]))
    bounds = np.array([1, size, 1, size]) * (3 + 2 * steps) * grad_any.eps + UNDERFLOW
    rows = zip(("r", "d", "v", "lambda"), got, definitions.jacobian(*transitions), bounds, strict=True)
    for name, gradient, expected, bound in rows:
        assert_allclose(gradient.T, expected, rtol=0, atol=bound, err_msg=f"d G / d {name}")


@pytest.mark.property("L14")
def test_gradients_equal_finite_differences(grad):
    transitions = random_transitions(4, 2)
    expected = oracles.finite_difference(lambda_return, *transitions)
    for got, difference in zip(grad(lambda_return, *transitions), expected, strict=True):
        assert_allclose(got, difference, rtol=1e-7, atol=1e-8)      # step 1e-6: eps / step = 2e-10, cubic terms 1e-12


# Errors


@pytest.mark.parametrize("odd", range(4))
def test_shapes_must_agree(run, odd):
    transitions = [np.zeros((2, 3))] * 4
    transitions[odd] = np.zeros((2, 1))
    with pytest.raises(ValueError, match=r"^lambda_return: .*reward \(.*discount \(.*next_value \(.*lambda_ \("):
        run(lambda_return, *transitions)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
def test_a_time_axis_is_needed(run, shape):
    with pytest.raises(ValueError, match=r"^lambda_return: expected \(T, \*batch\) with T >= 1, .*got shape \("):
        run(lambda_return, *[np.zeros(shape)] * 4)


@pytest.mark.parametrize("discount", [0.9, np.array(0.9)])
def test_a_discount_for_all_steps_must_be_written_out(discount):
    with pytest.raises(ValueError, match=r"^lambda_return: expected \(T, \*batch\) .* got shape \(\)$"):
        lambda_return(np.ones(2), discount, np.ones(2), 0.5)


def test_a_mixture_of_libraries_is_refused():
    import torch

    with pytest.raises(TypeError, match="arrays of one library"):
        lambda_return(torch.ones(2), np.ones(2), torch.ones(2), 0.5)
