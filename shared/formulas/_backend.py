"""The only file of the core that knows which array library is running.

Formulas ask `namespace` for the functions of the array API standard, and this file for what the standard lacks.
Read divergences.py next: it shows how a formula looks.
"""

import sys

import array_api_compat.numpy
import numpy as np


def _library(x):
    """"numpy", "torch", "jax" or "array_api_strict", by the module of the type; a number belongs to none (None)."""
    if isinstance(x, (bool, int, float)):                     # numpy.float64 is a float too: it mixes with any array
        return None
    name = type(x).__module__.partition(".")[0]
    return "jax" if name == "jaxlib" else name


def namespace(*arrays):
    """The array API namespace that all arrays share. Numbers and None are skipped.

    Decided by module name, because `array_api_compat.array_namespace` makes torch.compile warn on every trace.
    """
    libraries = {name for name in (_library(x) for x in arrays if x is not None) if name is not None}
    if not libraries and any(isinstance(x, np.generic) for x in arrays):
        libraries = {"numpy"}                                 # NumPy's reductions return scalars, not arrays
    if len(libraries) != 1:
        raise TypeError(
            f"namespace: expected arrays of one library, got {sorted(libraries) or 'none'}; "
            "convert the arguments to one library before calling a formula"
        )
    (library,) = libraries
    if library == "torch":
        from array_api_compat import torch  # torch itself is loaded already: the caller holds a tensor

        return torch
    if library == "jax":
        return sys.modules["jax"].numpy
    if library == "numpy":
        return array_api_compat.numpy
    if library == "array_api_strict":
        return sys.modules["array_api_strict"]
    raise TypeError(f"namespace: {library} is not supported; pass NumPy, torch or JAX arrays")


def is_torch(x):
    """Whether x is a tensor of torch, which has fused forms of some functions."""
    return _library(x) == "torch"


def stop_gradient(x):
    """x, treated as a constant by automatic differentiation. The identity in NumPy."""
    library = _library(x)
    if library == "torch":
        return x.detach()
    if library == "jax":
        return sys.modules["jax"].lax.stop_gradient(x)
    return x


def stop_gradient_tree(tree):
    """`stop_gradient` of every array in nested tuples (also named), lists and dicts."""
    if isinstance(tree, dict):
        return {name: stop_gradient_tree(branch) for name, branch in tree.items()}
    if isinstance(tree, (tuple, list)):
        branches = [stop_gradient_tree(branch) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return stop_gradient(tree)


def reverse_scan(step, last, rows):
    """y_t = step(y_{t+1}, *row_t) for t = T-1, ..., 0, with y_T = last.

    rows: arrays (T, *batch), T >= 1; row_t holds the t-th entry of each.  last: (*batch).  Returns (T, *batch).
    A Python loop says it best, but `jax.jit` unrolls it: 64 steps take 3 s to compile and then run 8 times slower.
    """
    if _library(last) == "jax":

        def body(y, row):
            y = step(y, *row)
            return y, y

        return sys.modules["jax"].lax.scan(body, last, rows, reverse=True)[1]
    xp = namespace(last, *rows)
    # unbind: one node in torch's graph of gradients, not T
    entries = [x.unbind(0) if _library(x) == "torch" else [x[t, ...] for t in range(x.shape[0])] for x in rows]
    y, done = last, []
    for row in reversed(list(zip(*entries, strict=True))):
        y = step(y, *row)
        done.append(y)
    return xp.stack(done[::-1], axis=0)


def cumulative_sum(x, axis):
    """Sums of the first 1, 2, ... entries along an axis."""
    # torch by its own name: array_api_compat's makes torch.compile warn on every trace
    return x.cumsum(axis) if _library(x) == "torch" else namespace(x).cumulative_sum(x, axis=axis)


def cumulative_prod(x, axis):
    """Products of the first 1, 2, ... entries along an axis."""
    return x.cumprod(axis) if _library(x) == "torch" else namespace(x).cumulative_prod(x, axis=axis)


def reached(bins, x):
    """How many of the ascending bins (K,) lie at or below each x (...), integers (...)."""
    if _library(x) == "torch":
        x = x.contiguous()                                    # torch warns of others
    return namespace(bins, x).searchsorted(bins, x, side="right")


def two_entries(index, first, second, count):
    """Rows of `count` zeros but `first` at index and `second` at index + 1. All (...); returns (..., count)."""
    index, first, second = index[..., None], first[..., None], second[..., None]
    xp = namespace(index, first, second)
    if _library(first) == "torch":             # four times as fast as comparing every entry, compiled or not
        rows = first.new_zeros((*first.shape[:-1], count))
        return rows.scatter(-1, xp.concat([index, index + 1], axis=-1), xp.concat([first, second], axis=-1))
    k = on_last_axis(indices(count, index), index)
    return xp.where(k == index, first, xp.where(k == index + 1, second, xp.zeros_like(second)))


def on_last_axis(vector, like):
    """A vector (K,) with leading axes of length 1, so that it meets `like` (..., K) without implicit rank promotion."""
    return namespace(vector).reshape(vector, (1,) * (like.ndim - 1) + (-1,))


def erf(x):
    """The error function, elementwise."""
    library = _library(x)
    if library == "torch":
        return x.erf()
    if library == "jax":
        return sys.modules["jax"].lax.erf(x)
    return _by_scipy("erf", x)


def erfinv(x):
    """The inverse of the error function, elementwise, for x in (-1, 1)."""
    library = _library(x)
    if library == "torch":
        return x.erfinv()
    if library == "jax":
        return sys.modules["jax"].lax.erf_inv(x)
    return _by_scipy("erfinv", x)


def _by_scipy(name, x):
    """A special function of scipy, for NumPy and for libraries that lie on it."""
    from scipy import special

    return namespace(x).asarray(getattr(special, name)(np.asarray(x)))


def indices(count, like):
    """0, 1, ..., count - 1, (count,), integers of the type and on the device of `like`."""
    xp = namespace(like)
    if _library(like) == "torch":
        return xp.arange(count, dtype=like.dtype, device=like.device)
    return xp.arange(count, dtype=like.dtype)


def check_shapes(function, **arrays):
    """Raise ValueError unless all arrays have one shape. Numbers and arrays of shape () fit every shape."""
    arrays = {name: x for name, x in arrays.items() if not isinstance(x, (int, float))}     # torch.compile: no hasattr
    shapes = {name: tuple(x.shape) for name, x in arrays.items() if x.shape != ()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{function}: arguments of one shape expected, got {listed}; "
            "broadcast explicitly, so that a missing axis cannot pass unnoticed"
        )
