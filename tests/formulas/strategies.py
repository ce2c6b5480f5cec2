"""Hypothesis strategies for formulas. Few shapes, many values: JAX compiles once per shape."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SHAPES = [(1,), (1, 1), (2, 3), (3, 1, 2)]     # batch of one, one time step, one dimension, extra leading axes


def floats(low, high):
    """float64 values in [low, high]: zero, subnormal and extreme values included."""
    return st.floats(low, high, allow_nan=False)


def exact(low, high):
    """Values in [low, high] that float32 holds exactly, so that both dtypes compute with the same numbers."""
    return st.floats(low, high, allow_nan=False, width=32)


def exact_arrays(shape, low, high):
    return hnp.arrays(np.float64, shape, elements=exact(low, high))


def exact_same_shape(*bounds):
    """Like `same_shape`, for `run_any`. Bounds must be exact in float32 (0.01 is not, 2**-7 is)."""
    return st.sampled_from(SHAPES).flatmap(lambda shape: st.tuples(*(exact_arrays(shape, *bound) for bound in bounds)))


def arrays(shape, low, high):
    return hnp.arrays(np.float64, shape, elements=floats(low, high))


def same_shape(*bounds):
    """Arrays of one shape, one per (low, high)."""
    return st.sampled_from(SHAPES).flatmap(lambda shape: st.tuples(*(arrays(shape, *bound) for bound in bounds)))


def gaussians(low=-1e3, high=1e3, least=1e-2, most=1e2):
    """(mean_p, std_p, mean_q, std_q) of one shape."""
    return same_shape((low, high), (least, most), (low, high), (least, most))
