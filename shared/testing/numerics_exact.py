"""Exact numbers with the scale of their unavoidable error, and functions of numbers as functions of arrays (mpmath).

The tools of numerics_references.py and numerics_gradients.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf


class Exact(NamedTuple):
    """A value, and how far it moves if every intermediate result moves by its own size: the sum of |t * dvalue/dt|.

    Times the rounding of a dtype, the scale is the error that cannot be avoided when each step of the equation is
    rounded once. Without cancellation and steep functions it is |value|.
    """

    value: mpf
    scale: mpf


def exact(value: mpf) -> Exact:
    return Exact(value, abs(value))


def terms(*parts: mpf) -> Exact:
    """A sum: its error is that of its terms, however small they leave it."""
    return Exact(mp.fsum(parts), mp.fsum(parts, absolute=True))


def noisier(result: Exact, *more: mpf) -> Exact:
    """The same value with further sources of error."""
    return Exact(result.value, mp.fsum([result.scale, *more], absolute=True))


def scaled(factor: mpf, *results: Exact) -> Exact:
    """factor * sum of the results."""
    return Exact(factor * mp.fsum(r.value for r in results), abs(factor) * mp.fsum(r.scale for r in results))


def elementwise(function: Callable) -> Callable:
    """A function of numbers as a function of arrays of one shape; returns a list of arrays, one per output."""

    def over(*arrays: np.ndarray) -> list[np.ndarray]:
        outputs: list[list[Exact]] = []
        for numbers in zip(*(array.ravel() for array in arrays), strict=True):
            outputs.append(as_list(function(*numbers)))
        return [as_array(column, arrays[0].shape) for column in zip(*outputs, strict=True)]

    return over


def rowwise(function: Callable) -> Callable:
    """A function of rows (the last axis; arrays without it give one number per row) as a function of arrays (N, K).

    It returns, for each output, one Exact or a row of them.
    """

    def over(*arrays: np.ndarray) -> list[np.ndarray]:
        results = [as_list(function(*(array[row] for array in arrays))) for row in range(arrays[0].shape[0])]
        return [as_array(sum((as_list(r) for r in column), []), (-1,)) for column in zip(*results, strict=True)]

    return over


def as_list(results) -> list:
    """Outputs as a list: an Exact counts as one."""
    return [results] if isinstance(results, Exact) else list(results)


def as_array(results: Sequence[Exact], shape: tuple[int, ...]) -> np.ndarray:
    """An object array of Exact; NumPy would take the pairs apart."""
    array = np.empty(len(results), dtype=object)
    for index, result in enumerate(results):
        array[index] = result
    return array.reshape(shape)


def over_time(function: Callable) -> Callable:
    """A function of columns (time first) as a function of arrays (T, B)."""

    def over(*arrays: np.ndarray) -> list[np.ndarray]:
        columns = [as_list(function(*(array[:, b] for array in arrays))) for b in range(arrays[0].shape[1])]
        return [np.stack([as_array(c, (-1,)) for c in outputs], axis=1) for outputs in zip(*columns, strict=True)]

    return over


class Softmax:
    """Log-probabilities of a row of logits: log_p, p, and the scale of the error of log_p, all lists."""

    def __init__(self, logits: Sequence[mpf]):
        top = max(logits)
        total = mp.fsum(mp.exp(x - top) for x in logits)
        self.log_p = [x - top - mp.log(total) for x in logits]
        self.p = [mp.exp(x) for x in self.log_p]
        common = 1 + mp.log(total) + mp.fsum(p * (top - x) for p, x in zip(self.p, logits, strict=True))
        self.noise = [top - x + common for x in logits]
        self.log_sum = top + mp.log(total)
        self.log_sum_noise = abs(top) + common
