"""Do two implementations compute the same? Compare named tensors in order and name the first that parts.

Used by the parity tests of torch against JAX (tests/replications/test_*_parity.py).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """How far two tensors of one name are apart: relative to the largest entry of the second."""

    name: str
    relative: float
    largest: float
    where: tuple[int, ...]

    def __str__(self) -> str:
        if self.where == () and np.isfinite(self.relative):
            return f"{self.name} differs by {self.relative:.2e} of its size ({self.largest:.3g})"
        return (
            f"{self.name} differs by {self.relative:.2e} of its largest entry ({self.largest:.3g}), most at index "
            f"{self.where}"
        )


def difference(name: str, got, expected) -> Difference:
    """The largest |got - expected| over the largest |expected|; infinite where shapes or non-finite entries differ."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        return Difference(f"{name} (shapes {got.shape} and {expected.shape})", np.inf, np.nan, ())
    if got.size == 0:
        return Difference(name, 0.0, 0.0, ())
    gap = np.abs(got - expected)
    alike = (got == expected) | (np.isnan(got) & np.isnan(expected))
    gap = np.where(alike, 0.0, np.where(np.isfinite(gap), gap, np.inf))
    where = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
    largest = float(np.nanmax(np.abs(expected), initial=0.0))
    worst = float(gap.max())
    return Difference(name, worst / largest if largest else worst, largest, where)


def first_difference(got: Mapping, expected: Mapping, tolerance: float) -> Difference | None:
    """The first tensor, in the order of `expected`, that differs by more than `tolerance`; None if none does.

    Raises:
      ValueError: the names differ.
    """
    if got.keys() != expected.keys():
        raise ValueError(f"first_difference: only one side has {sorted(got.keys() ^ expected.keys())}")
    for name in expected:
        found = difference(name, got[name], expected[name])
        if not found.relative <= tolerance:
            return found
    return None


def assert_same(got: Mapping, expected: Mapping, tolerance: float, what: str) -> None:
    """AssertionError with the first tensor that differs, how many others do, and the largest difference of all."""
    first = first_difference(got, expected, tolerance)
    if first is None:
        return
    found = [difference(name, got[name], expected[name]) for name in expected]
    apart = [d for d in found if not d.relative <= tolerance]
    worst = max(apart, key=lambda d: d.relative)
    raise AssertionError(
        f"{what}: {first}; tolerance {tolerance:.0e}. {len(apart)} of {len(found)} tensors differ, most of all {worst}"
    )
