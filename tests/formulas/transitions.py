"""Inputs of lambda-returns and how exact their outputs must be; shared by the test_returns*.py."""

import numpy as np
from hypothesis import strategies as st

from shared.testing import oracles_returns as definitions
from tests.formulas.strategies import exact_arrays

SHAPES = [(1,), (3, 2), (5, 1, 2)]              # one step, a batch, more axes: JAX compiles for each
UNDERFLOW = 1e-28                               # float32 and JAX drop what lies below 1e-38; times 1e6 and a few steps
ROW = st.integers(0, SHAPES[-1][0] - 1)         # taken modulo the number of steps


def transitions_of(shape):
    """reward, discount, next value, lambda: one row per transition."""
    return st.tuples(*(exact_arrays(shape, *bounds) for bounds in [(-1e6, 1e6), (0, 1), (-1e6, 1e6), (0, 1)]))


def several(count):
    """Tuples of transitions of one shape."""
    return st.sampled_from(SHAPES).flatmap(lambda shape: st.tuples(*[transitions_of(shape)] * count))


TRANSITIONS = st.sampled_from(SHAPES).flatmap(transitions_of)


def random_transitions(*shape):
    """Numbers that float32 holds exactly, seed fixed."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=shape), rng.random(shape), rng.normal(size=shape), rng.random(shape)
    return [x.astype(np.float32).astype(np.float64) for x in drawn]


def rounding(transitions, eps):
    """The most by which a return may err: its terms are products and sums that round at most 4 times in their own row,
    and 3 times in each row above it, by eps / 2 each; 2 + 1.5 T, made 3 + 2 T for the rounding of arguments."""
    return (3 + 2 * len(transitions[0])) * eps * definitions.magnitude(*transitions) + UNDERFLOW


def assert_rounded(got, expected, transitions, eps):
    share = np.max(np.abs(got - np.asarray(expected, np.float64)) / rounding(transitions, eps))
    assert share <= 1, f"error of {share:.3g} times the bound: got {got.tolist()}, expected {expected.tolist()}"
