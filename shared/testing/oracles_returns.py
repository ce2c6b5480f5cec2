"""Slow, obvious returns and discount weights, from the definitions; see oracles.py.

Where it costs nothing they compute with fractions, so that the only rounding in a comparison is the formula's own.
All take and return NumPy float64, (T, *batch).
"""

from fractions import Fraction
from math import prod

import numpy as np


def _each_column(function, *arrays, rounded=float):
    """Apply a function of lists of T fractions to every column of arrays (T, *batch); each result is rounded once."""
    shape = arrays[0].shape
    columns = [np.reshape(x, (shape[0], -1)).T.tolist() for x in arrays]
    results = [function(*([Fraction(x) for x in column] for column in group)) for group in zip(*columns, strict=True)]
    return np.array([[rounded(x) for x in column] for column in results]).T.reshape(shape)


def nearest(fraction, dtype):
    """The number of a dtype (float64 or float32) nearest to a Fraction, ties to even: rounded once. By way of float64
    a fraction just off the middle of two float32 becomes the middle, and the second rounding may take the wrong one.
    For fractions well inside the range of the dtype."""
    near = np.dtype(dtype).type(float(fraction))          # a tie itself is a float64, so here it has gone to even
    beside = np.nextafter(near, [-np.inf, np.inf], dtype=dtype)
    return min(near, *beside, key=lambda x: abs(Fraction(float(x)) - fraction))


def n_step_mixture(reward, discount, next_value, lambda_):
    """The lambda-return as its name says: an average of the 1-step, 2-step, ... returns, O(T^3), exact.

    The n-step return is the sum of n discounted rewards and the discounted value of the state then reached. Its share
    is the chance to stop after exactly n steps, if after step s one stops with probability 1 - lambda_s, and for
    certain at the end.
    """

    def n_step(r, d, v, t, n):
        return sum(prod(d[t : t + k]) * r[t + k] for k in range(n)) + prod(d[t : t + n]) * v[t + n - 1]

    def column(r, d, v, lam):
        returns = []
        for t in range(len(r)):
            left = len(r) - t
            share = [prod(lam[t : t + n - 1]) * (1 - lam[t + n - 1]) for n in range(1, left)]
            share.append(prod(lam[t : t + left - 1]))
            assert sum(share) == 1
            returns.append(sum(w * n_step(r, d, v, t, n) for n, w in enumerate(share, start=1)))
        return returns

    return _each_column(column, reward, discount, next_value, lambda_)


def monte_carlo(reward, discount, next_value):
    """Discounted sum of all rewards to come, and of the value where the data end. Exact."""

    def column(r, d, v):
        steps = len(r)
        tail = v[-1]
        return [sum(prod(d[t:s]) * r[s] for s in range(t, steps)) + prod(d[t:]) * tail for t in range(steps)]

    return _each_column(column, reward, discount, next_value)


def one_step(reward, discount, next_value, dtype):
    """(r + d v rounded twice, r + d v rounded once) in a dtype: with and without a rounded product in between."""
    r, d, v = (x.astype(dtype) for x in (reward, discount, next_value))
    once = _each_column(
        lambda *rows: [a + b * c for a, b, c in zip(*rows, strict=True)], reward, discount, next_value,
        rounded=lambda x: float(nearest(x, dtype)),
    )
    return (r + d * v).astype(np.float64), once


def from_td_errors(reward, discount, next_value, lambda_):
    """Value plus the decaying sum of temporal-difference errors: the "forward equals backward view" identity of Sutton
    and Barto, section 12.1, on which generalised advantage estimation rests. Exact. The value of the first state
    cancels, so any will do."""

    def column(r, d, v, lam):
        value = [Fraction(7), *v[:-1]]
        error = [r[s] + d[s] * v[s] - value[s] for s in range(len(r))]
        decay = [d[s] * lam[s] for s in range(len(r))]
        return [value[t] + sum(prod(decay[t:s]) * error[s] for s in range(t, len(r))) for t in range(len(r))]

    return _each_column(column, reward, discount, next_value, lambda_)


def from_associative_scan(reward, discount, next_value, lambda_):
    """Composition of affine maps in logarithmic depth, by jax.lax.associative_scan in float64."""
    import jax

    def compose(later, earlier):
        return earlier[0] + earlier[1] * later[0], earlier[1] * later[1]

    maps = (reward + discount * (1 - lambda_) * next_value, discount * lambda_)
    with jax.enable_x64(True):
        offset, slope = jax.lax.associative_scan(compose, jax.tree.map(jax.numpy.asarray, maps), reverse=True)
    return np.asarray(offset) + np.asarray(slope) * next_value[-1]


def magnitude(reward, discount, next_value, lambda_):
    """The returns, were every reward and value positive: what rounding errors are proportional to."""
    total, rows = np.abs(next_value[-1]), []
    for r, d, v, lam in list(zip(reward, discount, next_value, lambda_, strict=True))[::-1]:
        total = abs(r) + abs(d) * ((1 - lam) * abs(v) + lam * total)
        rows.append(total)
    return np.stack(rows[::-1])


def jacobian(reward, discount, next_value, lambda_):
    """d G_t / d x_s of one column, for x = reward, discount, next_value, lambda_: four matrices [t, s], by hand."""
    steps = len(reward)
    mixture = n_step_mixture(reward, discount, next_value, lambda_)
    following = np.append(mixture[1:], next_value[-1])
    result = np.zeros((4, steps, steps))
    for t in range(steps):
        for s in range(t, steps):
            reach = np.prod(discount[t:s] * lambda_[t:s])
            on_value = discount[s] * (1 if s == steps - 1 else 1 - lambda_[s])     # the last value bootstraps too
            on_discount = (1 - lambda_[s]) * next_value[s] + lambda_[s] * following[s]
            on_lambda = discount[s] * (following[s] - next_value[s])
            result[:, t, s] = reach * np.array([1, on_discount, on_value, on_lambda])
    return result


def dreamerv3(last, term, reward, boot, discount, lambda_):
    """DreamerV3's return of replayed or imagined steps, by walking forward from each. T rows in, T - 1 rows out.

    Row s of every argument is about the state s: the reward on entering it, whether it ends its sequence (`last`, by
    time limit or by death), the chance that it is the death of the agent (`term`), its value (`boot`).
    """
    returns = np.zeros((len(reward) - 1, *reward.shape[1:]))
    for index in np.ndindex(returns.shape):
        start, column = index[0], index[1:]
        weight = 1.0
        for s in range(start + 1, len(reward)):
            here = (s, *column)
            returns[index] += weight * reward[here]
            weight *= discount * (1 - term[here])
            if last[here] or s == len(reward) - 1:
                returns[index] += weight * boot[here]
                break
            returns[index] += weight * (1 - lambda_) * boot[here]
            weight *= lambda_
    return returns


def discount_weights(discount):
    """Products of all earlier discounts. Exact."""
    return _each_column(lambda d: [prod(d[:t], start=Fraction(1)) for t in range(len(d))], discount)


def affine_recursion(offset, slope, last):
    """The solution of y_t = offset_t + slope_t y_{t+1} as a system of linear equations, one column at a time."""
    from scipy.linalg import solve_triangular

    result = np.zeros(offset.shape)
    for column in np.ndindex(offset.shape[1:]):
        here = (slice(None), *column)
        right = offset[here].copy()
        right[-1] += slope[here][-1] * last[column]
        result[here] = solve_triangular(np.eye(len(offset)) - np.diag(slope[here][:-1], k=1), right)
    return result
