"""The shift from stored rows (action chosen here) to model inputs (action that led here)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from shared.formulas.sequences import previous_actions
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


def test_shapes_must_fit_together():
    action, is_first, before = chunk(0)
    with pytest.raises(ValueError, match=r"previous_actions: action .* and is_first .* do not fit"):
        previous_actions(action, is_first.T)
    with pytest.raises(ValueError, match=r"previous_actions: before must be \(B, A\) = \(3, 2\), got \(2, 3\)"):
        previous_actions(action, is_first, before.T)
