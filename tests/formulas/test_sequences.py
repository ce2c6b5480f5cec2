"""The shift from stored rows (action chosen here) to model inputs (action that led here), and what a start forgets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from shared.formulas.sequences import previous_actions, reset_where_first
from shared.testing import oracles


def chunk(seed, batch=3, steps=5, size=2):
    rng = np.random.default_rng(seed)
    action, before = rng.normal(size=(batch, steps, size)), rng.normal(size=(batch, size))
    return action, rng.random((batch, steps)) < 0.3, before


def test_shift_by_hand(run):
    # A chunk that begins in mid-episode (before = 9) and crosses into a new episode at row 2.
    action = np.array([[[1.0], [2.0], [3.0], [4.0]]])
    got = run(previous_actions, action, [[False, False, True, False]], [[9.0]])
    assert_array_equal(got[0, :, 0], [9.0, 1.0, 0.0, 3.0])


def test_without_the_row_before_the_chunk_starts_from_zero(run):
    got = run(previous_actions, np.array([[[1.0], [2.0]]]), [[False, False]])
    assert_array_equal(got[0, :, 0], [0.0, 1.0])


def test_one_row(run):
    assert_array_equal(run(previous_actions, [[[5.0]]], [[False]], [[9.0]]), [[[9.0]]])
    assert_array_equal(run(previous_actions, [[[5.0]]], [[True]], [[9.0]]), [[[0.0]]])


@given(st.integers(0, 2**32 - 1))
def test_shift_equals_row_by_row(run, seed):
    assert_array_equal(run(previous_actions, *chunk(seed)), oracles.previous_actions(*chunk(seed)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_chunk_cut_in_two_gives_the_same_rows(run, seed, cut):
    """What `before` is for: the second half gets the last action of the first."""
    action, is_first, before = chunk(seed)
    whole = run(previous_actions, action, is_first, before)
    tail = oracles.previous_actions(action[:, cut:], is_first[:, cut:], action[:, cut - 1])
    assert_array_equal(whole[:, cut:], tail)
    assert_array_equal(run(previous_actions, action[:, 1:], is_first[:, 1:], action[:, 0]), whole[:, 1:])


def test_nothing_crosses_the_start_of_an_episode(run, grad):
    """Not even NaN: the row before a start may hold anything."""
    is_first = [[False, True, False]]
    got = run(previous_actions, [[[np.nan], [2.0], [3.0]]], is_first, [[0.0]])
    assert_array_equal(got[0, :, 0], [0.0, 0.0, 2.0])
    action, before = grad(lambda a, b, f: previous_actions(a, f, b), [[[1.0], [2.0], [3.0]]], [[9.0]], is_first)
    assert_array_equal(action[0, :, 0], [0.0, 1.0, 0.0])
    assert_array_equal(before, [[1.0]])


def test_float32_stays_float32(run):
    action, is_first, before = chunk(0)
    assert run(previous_actions, action.astype(np.float32), is_first, before.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("action", "is_first"), [((3, 5), (3, 5)), ((3, 5, 2), (5, 3)), ((3, 5, 2), (3,)), ((3, 5, 2, 1), (3, 5))]
)
def test_shapes_of_a_chunk_must_fit_together(action, is_first):
    with pytest.raises(ValueError, match=r"previous_actions: action .* and is_first .* do not fit"):
        previous_actions(np.zeros(action), np.zeros(is_first, bool))


@pytest.mark.parametrize("shape", [(2, 3), (3,), (3, 1), (1, 2), (3, 5, 2)])
def test_the_row_before_must_fit(shape):
    action, is_first, _ = chunk(0)
    with pytest.raises(ValueError, match=r"previous_actions: before must be \(B, A\) = \(3, 2\), got"):
        previous_actions(action, is_first, np.zeros(shape))


# reset_where_first


def test_reset_by_hand(run):
    is_first = [True, False, True]
    assert_array_equal(run(reset_where_first, [1.0, 2.0, 3.0], is_first), [0.0, 2.0, 0.0])
    state = np.arange(1.0, 13.0).reshape(3, 2, 2)
    assert_array_equal(run(reset_where_first, state, is_first), state * np.array([0.0, 1.0, 0.0])[:, None, None])


def test_integers_are_reset_too(run):
    got = run(reset_where_first, np.array([[3, 4], [5, 6]], np.int32), [False, True])
    assert got.tolist() == [[3, 4], [0, 0]] and got.dtype == np.int32


def test_nothing_of_a_forgotten_state_is_left(run, grad):
    """Not even NaN, nor a gradient: multiplying by 0 would keep the NaN."""
    is_first = [True, False]
    assert_array_equal(run(reset_where_first, [[np.nan, np.inf], [1.0, 2.0]], is_first), [[0.0, 0.0], [1.0, 2.0]])
    (got,) = grad(lambda state, first: reset_where_first(state, first) * 3, [[np.nan, 1.0], [1.0, 2.0]], is_first)
    assert_array_equal(got, [[0.0, 0.0], [3.0, 3.0]])


@given(st.integers(0, 2**32 - 1), st.sampled_from([(4,), (4, 3), (4, 2, 3)]))
def test_reset_equals_row_by_row(run_any, seed, shape):
    rng = np.random.default_rng(seed)
    state, is_first = rng.normal(size=shape).astype(np.float32).astype(np.float64), rng.random(4) < 0.5
    expected = np.stack([np.zeros(shape[1:]) if first else row for row, first in zip(state, is_first, strict=True)])
    got = run_any(reset_where_first, state, is_first)
    assert_array_equal(got, expected)
    assert got.dtype == run_any.dtype


@pytest.mark.parametrize(
    ("state", "is_first"), [((3, 2), (2,)), ((2, 3), (2, 3)), ((2, 3), (2, 1)), ((), (1,)), ((3,), ())]
)
def test_a_start_is_one_bool_per_row(state, is_first):
    with pytest.raises(ValueError, match="reset_where_first: state .* and is_first .* do not fit"):
        reset_where_first(np.zeros(state), np.zeros(is_first, bool))
