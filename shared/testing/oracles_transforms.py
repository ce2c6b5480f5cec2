"""Slow, obvious symlog, bins and two-hot codes, from the definitions; see oracles.py. NumPy float64 in and out."""

import math
from fractions import Fraction

import numpy as np

DIGITS = 40


def _by_mpmath(function, x):
    """A function of one mpmath number, elementwise, rounded once at the end."""
    import mpmath

    with mpmath.workdps(DIGITS):
        values = [float(function(mpmath, mpmath.mpf(v))) for v in np.ravel(x).tolist()]
    return np.reshape(np.array(values), np.shape(x))


def symlog(x):
    """sign(x) log(1 + |x|) with 40 digits; log1p because 1 + 1e-300 needs 300."""
    return _by_mpmath(lambda mp, v: mp.sign(v) * mp.log1p(abs(v)), x)


def symexp(x):
    """sign(x) (exp(|x|) - 1) with 40 digits."""
    return _by_mpmath(lambda mp, v: mp.sign(v) * mp.expm1(abs(v)), x)


def ulps(got, expected, dtype):
    """Distance in units of the last place of the expected number, in a dtype."""
    spacing = np.spacing(np.abs(expected).astype(dtype)).astype(np.float64)
    return np.abs(got.astype(np.float64) - expected) / spacing


def twohot(x, bins):
    """By binary search and scatter, one number at a time; the shares are exact."""
    x, bins = np.asarray(x, np.float64), np.asarray(bins, np.float64)
    result = np.zeros((*x.shape, len(bins)))
    for index in np.ndindex(x.shape):
        value = min(max(x[index], bins[0]), bins[-1])
        above = int(np.searchsorted(bins, value, side="right"))          # the first bin beyond the value
        if above == len(bins):
            result[(*index, -1)] = 1
            continue
        exact, low, high = (Fraction(float(v)) for v in (value, bins[above - 1], bins[above]))
        result[(*index, above - 1)] = float((high - exact) / (high - low))
        result[(*index, above)] = float((exact - low) / (high - low))
    return result


def twohot_even(x, low, high, count):
    """Over evenly spaced bins, by position: the form that rlax has (which adds 1e-5 to the width it divides by)."""
    position = (np.clip(x, low, high) - low) / (high - low) * (count - 1)
    result = np.zeros((*np.shape(x), count))
    for index in np.ndindex(np.shape(x)):
        below = math.floor(position[index])
        result[(*index, below)] = 1 - (position[index] - below)
        if below + 1 < count:
            result[(*index, below + 1)] = position[index] - below
    return result


def mean(probs, bins):
    """Expectation over the last axis, exact."""
    rows = np.reshape(probs, (-1, len(bins)))
    sums = [float(sum(Fraction(p) * Fraction(b) for p, b in zip(row, bins, strict=True))) for row in rows.tolist()]
    return np.reshape(np.array(sums), np.shape(probs)[:-1])


def softmax(logits):
    """One row at a time, with sums that do not round."""
    rows = np.reshape(logits, (-1, np.shape(logits)[-1]))
    result = []
    for row in rows.tolist():
        weights = [math.exp(v - max(row)) for v in row]
        total = math.fsum(weights)
        result.append([w / total for w in weights])
    return np.reshape(np.array(result), np.shape(logits))
