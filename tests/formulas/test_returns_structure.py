"""Lambda-returns cut, joined, batched, looped, scanned and over long horizons: properties L10 to L13, L17. Also the
recursion of affine maps beneath them.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import reverse_scan
from shared.formulas.returns import lambda_return
from shared.testing import oracles_returns as definitions
from tests.formulas.strategies import exact_arrays
from tests.formulas.transitions import ROW, SHAPES, TRANSITIONS, assert_rounded, random_transitions, several

# Cutting, joining and reordering


@pytest.mark.property("L10")
@given(TRANSITIONS, ROW)
def test_returns_of_the_last_rows_need_only_the_last_rows(run_any, transitions, row):
    row %= len(transitions[0])
    whole, part = run_any(lambda_return, *transitions)[row:], run_any(lambda_return, *(x[row:] for x in transitions))
    assert_rounded(part, whole, [x[row:] for x in transitions], run_any.eps)


BOUNDARY = {"discount": 1, "lambda_": 3}         # which argument is 0 in the last row of the first segment


@pytest.mark.property("L11")
@given(several(2), st.sampled_from([None, *BOUNDARY]))
def test_two_segments_joined_are_the_whole(run_any, pair, boundary):
    """At an episode's end (discount 0) and where the average is cut (lambda 0) segments are independent; elsewhere the
    first ends with what the second begins with: the same mixture of value and return."""
    first, second = pair
    if boundary:
        first[BOUNDARY[boundary]][-1] = 0
    joined = [np.concatenate(arguments) for arguments in zip(first, second, strict=True)]
    later = run_any(lambda_return, *second)
    if not boundary:
        first[2][-1] = (1 - first[3][-1]) * first[2][-1] + first[3][-1] * later[0]
    got = np.concatenate([run_any(lambda_return, *first), later])
    assert_rounded(got, run_any(lambda_return, *joined), joined, 2 * run_any.eps)       # both sides round


@pytest.mark.property("L12")
@given(TRANSITIONS, st.permutations(range(2)))
def test_order_and_axes_of_the_batch_change_nothing_else(run_any, transitions, order):
    """The order: to the bit. A new axis of length 1: another shape may be compiled into other roundings."""
    whole = run_any(lambda_return, *transitions)
    with_axis = run_any(lambda_return, *(x[:, None] for x in transitions))
    assert_rounded(with_axis[:, 0], whole, transitions, 2 * run_any.eps)
    if whole.ndim > 1:
        assert_array_equal(run_any(lambda_return, *(x[..., order] for x in transitions)), whole[..., order])


def column_by_column(*transitions):
    """lambda_return through the library's own vmap over axis 1; NumPy has none, so there it is a loop."""
    library = type(transitions[0]).__module__.partition(".")[0]
    if library == "torch":
        import torch

        return torch.func.vmap(lambda_return, in_dims=1, out_dims=1)(*transitions)
    if library in ("jax", "jaxlib"):
        import jax

        return jax.vmap(lambda_return, in_axes=1, out_axes=1)(*transitions)
    xp = transitions[0].__array_namespace__()
    return xp.stack([lambda_return(*(x[:, i] for x in transitions)) for i in range(transitions[0].shape[1])], axis=1)


def batch_first(*transitions):
    """What a caller does whose arrays are (B, T)."""
    return lambda_return(*(x.T for x in transitions)).T


@pytest.mark.property("L12")
def test_vmap_and_batch_first_equal_the_batch(run_any):
    transitions = random_transitions(6, 4)
    whole = run_any(lambda_return, *transitions)
    assert_rounded(run_any(column_by_column, *transitions), whole, transitions, 2 * run_any.eps)
    assert_rounded(run_any(batch_first, *(x.T for x in transitions)).T, whole, transitions, 2 * run_any.eps)


# Loops and scans


def by_loop(reward, discount, next_value, lambda_):
    """The recursion in the library at hand, one row after the other."""
    following, rows = next_value[-1, ...], []
    for t in range(reward.shape[0] - 1, -1, -1):
        mixed = (1 - lambda_[t, ...]) * next_value[t, ...] + lambda_[t, ...] * following
        following = reward[t, ...] + discount[t, ...] * mixed
        rows.append(following)
    return tuple(rows[::-1])


@pytest.mark.property("L13")
@pytest.mark.parametrize("steps", [1, 12])
def test_scan_equals_loop_equals_associative_scan(run_any, steps):
    transitions = random_transitions(steps, 3)
    got = run_any(lambda_return, *transitions)
    loop = np.stack(run_any(by_loop, *transitions))
    assert_rounded(got, loop, transitions, 2 * run_any.eps)          # both sides round
    assert_rounded(got, definitions.from_associative_scan(*transitions), transitions, run_any.eps)


def affine(offset, slope, last):
    """y_t = offset_t + slope_t * y_{t+1}."""
    return reverse_scan(lambda y, a, b: a + b * y, last, (offset, slope))


def test_recursion_of_affine_maps_by_hand(run):
    # y_2 = 3 + 0.5 * 8 = 7;   y_1 = 2 - 1 * 7 = -5;   y_0 = 1 + 2 * -5 = -9
    assert_array_equal(run(affine, [1.0, 2.0, 3.0], [2.0, -1.0, 0.5], np.array(8.0)), [-9.0, -5.0, 7.0])


@given(
    st.sampled_from(SHAPES).flatmap(
        lambda shape: st.tuples(
            exact_arrays(shape, -1e3, 1e3), exact_arrays(shape, -1, 1), exact_arrays(shape[1:], -1e3, 1e3)
        )
    )
)
def test_recursion_of_affine_maps_solves_its_linear_equations(run_any, arguments):
    """|y| <= (T + 1) * 1e3, and T roundings of that size add up on either side."""
    steps = len(arguments[0])
    got, expected = run_any(affine, *arguments), definitions.affine_recursion(*arguments)
    assert_allclose(got, expected, rtol=0, atol=2 * steps * (steps + 1) * 1e3 * run_any.eps)


def test_gradients_of_the_recursion_of_affine_maps_by_hand(grad):
    # y_1 = o_1 + s_1 y_2, y_0 = o_0 + s_0 y_1; sum = o_0 + (1 + s_0) (o_1 + s_1 y_2) with s_0 = 2, o_1 = 3, s_1 = 0.5,
    # y_2 = 8: y_1 = 7; d/do = (1, 3), d/ds = (7, 3 * 8), d/dy_2 = 3 * 0.5
    offset, slope, last = grad(affine, [1.0, 3.0], [2.0, 0.5], np.array(8.0))
    assert_array_equal(offset, [1.0, 3.0])
    assert_array_equal(slope, [7.0, 24.0])
    assert_array_equal(last, 1.5)


def equations(jaxpr):
    """Names of all primitives of a jaxpr, inner ones included."""
    names = []
    for equation in jaxpr.eqns:
        names.append(equation.primitive.name)
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            names += equations(inner) if hasattr(inner, "eqns") else []
    return names


def test_jax_runs_one_scan_whatever_the_horizon():
    """Not unrolled: the program of 512 steps is as long as that of 8, backwards too."""
    import jax

    def programs(steps):
        rows = [jax.numpy.ones((steps, 3))] * 4
        gradient = jax.grad(lambda *x: lambda_return(*x).sum(), argnums=(0, 1, 2, 3))
        return equations(jax.make_jaxpr(lambda_return)(*rows).jaxpr), equations(jax.make_jaxpr(gradient)(*rows).jaxpr)

    forward, backward = programs(512)
    assert forward.count("scan") == 1 and backward.count("scan") == 2
    assert (forward, backward) == programs(8)


# Long horizons


@pytest.mark.property("L17")
def test_a_thousand_undiscounted_rewards_add_up_exactly(run_any):
    """T = 1024, d = 1, lambda = 1: G_t = (T - t) r, exact in every dtype where r is a power of two; the largest r
    brings G_0 to half of the largest number."""
    steps = 1024
    largest = 2.0 ** (np.finfo(run_any.dtype).maxexp - 11)
    reward = np.tile([1.0, -1.0, largest, -largest], (steps, 1))
    ones = np.ones(reward.shape)
    got = run_any(lambda_return, reward, ones, 0 * ones, ones)
    assert_array_equal(got, np.arange(steps, 0, -1)[:, None] * reward)


@pytest.mark.property("L17")
def test_long_horizons_stay_accurate(run_any):
    """T = 1024, every pair of d = 0.999, 1, 0 and lambda = 0, 0.95, 1: errors stay within the bound of short ones."""
    pairs = np.array([(d, lam) for d in (0.999, 1.0, 0.0) for lam in (0.0, 0.95, 1.0)], np.float32).astype(np.float64)
    reward, _, next_value, _ = random_transitions(1024, len(pairs))
    discount, lambda_ = (np.tile(column, (1024, 1)) for column in pairs.T)
    got = run_any(lambda_return, reward, discount, next_value, lambda_)
    offset, slope = reward + discount * (1 - lambda_) * next_value, discount * lambda_
    expected = definitions.affine_recursion(offset, slope, next_value[-1])
    assert np.all(np.isfinite(got))
    assert_rounded(got, expected, (reward, discount, next_value, lambda_), 2 * run_any.eps)     # both sides round


@pytest.mark.property("L17")
def test_gradients_over_long_horizons_are_finite(grad_any):
    """d G_0 / d r_s = d^s with lambda = 1: summed over t, (1 - d^(s+1)) / (1 - d), at most T for d = 1."""
    steps, discount = 1024, 0.9990234375                        # 1 - 2^-10, exact in float32
    ones = np.ones((steps, 2))
    got = grad_any(lambda_return, ones, ones * [discount, 1.0], ones, ones)
    assert all(np.all(np.isfinite(g)) for g in got)
    expected = np.stack([(1 - discount ** np.arange(1, steps + 1)) / (1 - discount), np.arange(1, steps + 1)], axis=1)
    assert_allclose(got[0], expected, rtol=2 * steps * grad_any.eps)
