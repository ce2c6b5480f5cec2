"""Floating-point types, and how far computed numbers lie from exact ones: for the numerics report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpmath import mpf

from shared.testing.numerics_exact import Exact


@dataclass(frozen=True)
class Kind:
    """A floating-point type: bits after the binary point, exponents of the smallest and largest normal numbers."""

    name: str
    bits: int
    least_exponent: int
    largest_exponent: int

    @property
    def eps(self) -> float:
        """Distance from 1 to the next number: the rounding that errors are counted in."""
        return 2.0**-self.bits

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return 2.0**self.least_exponent

    @property
    def smallest(self) -> float:
        """The smallest number above 0, subnormal."""
        return math.ldexp(1.0, self.least_exponent - self.bits)

    @property
    def largest(self) -> float:
        return math.ldexp(2 - self.eps, self.largest_exponent)

    @property
    def below_one(self) -> float:
        return 1 - self.eps / 2

    def exponent(self, size: np.ndarray) -> np.ndarray:
        """Of numbers >= 0: the power of two below; of subnormal ones that of the smallest normal number."""
        return np.maximum(np.frexp(np.minimum(size, self.largest))[1] - 1, self.least_exponent)

    def spacing(self, size: np.ndarray) -> np.ndarray:
        """Distance between neighbours around numbers >= 0."""
        return np.ldexp(1.0, self.exponent(size) - self.bits)

    def round(self, x) -> np.ndarray:
        """The nearest numbers of this type, as float64. Booleans and integers stay."""
        x = np.asarray(x)
        if x.dtype != np.float64:
            return x
        return x.astype(self.dtype()).astype(np.float64)

    def dtype(self):
        if self.name != "bfloat16":
            return np.dtype(self.name)
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)


FLOAT64 = Kind("float64", 52, -1022, 1023)
FLOAT32 = Kind("float32", 23, -126, 127)
BFLOAT16 = Kind("bfloat16", 7, -126, 127)


@dataclass(frozen=True)
class Reference:
    """Exact numbers as sums of two float64, which hold 32 digits, and the scales of their errors; all (N,)."""

    value: np.ndarray
    rest: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> "Reference":
        results: list[Exact] = [x for array in arrays for x in array.ravel()]
        value = np.array([float(x.value) for x in results])
        rest = [float(x.value - mpf(v)) if np.isfinite(v) else 0.0 for x, v in zip(results, value, strict=True)]
        return cls(value, np.array(rest), np.array([float(x.scale) for x in results]))


@dataclass(frozen=True)
class Distance:
    """Of computed numbers from exact ones; all (N,), infinite where the computed one is not finite and should be.

    absolute: |got - exact|. relative: the same in units of |exact|. ulp: in steps between neighbouring numbers of the
    type. roundings: in units of the type's eps times the scale of the unavoidable error (numerics_exact.Exact), after
    taking off what a flush of numbers below the smallest normal one to zero may cost.
    """

    absolute: np.ndarray
    relative: np.ndarray
    ulp: np.ndarray
    roundings: np.ndarray


def distance(got: np.ndarray, exact: Reference, kind: Kind, flushed: float) -> Distance:
    """flushed: what flushing to zero may cost, in units of the smallest normal number."""
    size = np.abs(exact.value)
    with np.errstate(all="ignore"):
        overflown = (size >= kind.largest * (1 + kind.eps / 4)) & np.isinf(got) & (got * exact.value > 0)
        error = np.abs((got - exact.value) - exact.rest)
        error = np.where(overflown | (got == exact.value) & np.isinf(got), 0.0, error)
        error = np.where(np.isfinite(error), error, np.inf)
        excess = np.maximum(error - flushed * kind.tiny, 0.0)
        far = np.abs(places(got, kind) - places(exact.value, kind))
        ulp = np.where(error <= size / 2, error / kind.spacing(size), np.where(np.isfinite(error), far, np.inf))
    return Distance(error, _ratio(error, size), ulp, _ratio(excess, kind.eps * exact.scale))


def _ratio(error: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """error / unit; no error is 0 in every unit, any error infinite in units of 0."""
    with np.errstate(all="ignore"):
        return np.where(error == 0, 0.0, np.where(np.isinf(error), np.inf, error / unit))


def places(x: np.ndarray, kind: Kind) -> np.ndarray:
    """Position in the row of all numbers of a type, where neighbours differ by 1."""
    size = np.minimum(np.abs(x), kind.largest)
    binade = kind.exponent(size) - kind.least_exponent
    return np.sign(x) * (binade * 2.0**kind.bits + size / kind.spacing(size) + np.isinf(x))
