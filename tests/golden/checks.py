"""How golden numbers are computed in one of the libraries and compared. We compute in float64, so what is left is the
rounding of the authors' float32."""

import numpy as np

from tests.compilation import QUICK

FLOAT32_ROUNDING = np.finfo(np.float32).eps


def evaluate(library, function, inputs, loss=None, to=()):
    """(results, gradients) of function(**inputs) -> {name: array}, as NumPy arrays by name.

    gradients are those of the sum of results[loss] with respect to the inputs named in `to`; NumPy has none: {}.
    A library's own call and .gradients would do, but let JAX compile three times what is compiled once here.
    """
    to = to if hasattr(library, "gradients") else ()
    fixed, wanted = {name: x for name, x in inputs.items() if name not in to}, {name: inputs[name] for name in to}
    run = _with_jax if hasattr(library, "jit") else _with_torch if hasattr(library, "compiled") else _with_numpy
    results, gradients = run(library, function, fixed, wanted, loss)
    return _as_numpy(results), _as_numpy(gradients)


def _convert(library, arrays):
    return {name: library.convert(x) for name, x in arrays.items()}


def _with_numpy(library, function, fixed, wanted, loss):
    return function(**_convert(library, fixed)), {}


def _with_jax(library, function, fixed, wanted, loss):
    def total(wanted, fixed):
        results = function(**fixed, **wanted)
        return results[loss].sum() if wanted else 0.0, results

    with library.settings() as jax:                           # the conversion too, else it is to float32
        fixed, wanted = _convert(library, fixed), _convert(library, wanted)
        run = jax.value_and_grad(total, has_aux=True) if wanted else lambda *x: (total(*x), {})
        run = jax.jit(run, compiler_options=QUICK) if library.jit else run
        (_, results), gradients = run(wanted, fixed)
        return results, gradients


def _with_torch(library, function, fixed, wanted, loss):
    import torch

    leaves = {name: x.requires_grad_() for name, x in _convert(library, wanted).items()}
    results = function(**_convert(library, fixed), **leaves)
    if not wanted:
        return results, {}
    gradients = torch.autograd.grad(results[loss].sum(), list(leaves.values()), materialize_grads=True)
    return results, dict(zip(leaves, gradients, strict=True))


def _as_numpy(arrays):
    found = {name: x.detach().numpy() if hasattr(x, "detach") else np.asarray(x) for name, x in arrays.items()}
    assert all(x.dtype != np.float32 for x in found.values()), "a result in float32, where float64 was put in"
    return found


def close(got, expected, tolerance, name=""):
    """Within `tolerance`, absolutely for entries below 1 and relatively above: a sum of terms of the size of 1 that
    cancel is known to the rounding of the terms. `tolerance` may be an array."""
    _compare(got, expected, tolerance * np.maximum(1, np.abs(expected)), name)


def gradient_close(got, expected, tolerance, name=""):
    """Within `tolerance` of the largest entry along the last axis (of a scalar or vector: of all entries), because
    small entries of a row are differences of its large ones. A row that cancels as a whole is known to the rounding of
    an ordinary row: the median of those that are more than rounding."""
    rows = np.max(np.abs(expected), axis=-1, keepdims=True) if np.ndim(expected) > 1 else np.max(np.abs(expected))
    ordinary = rows[rows > FLOAT32_ROUNDING * np.max(rows)]
    _compare(got, expected, tolerance * np.maximum(rows, np.median(ordinary) if ordinary.size else 0), name)


def all_close(got, expected, tolerance, compare=close):
    """`compare` for everything in the mapping `got`, by name."""
    for name, x in got.items():
        compare(x, expected[name], tolerance, name)


def _compare(got, expected, allowed, name):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, in the file {expected.shape}"
    with np.errstate(invalid="ignore"):                       # inf - inf
        right = (np.abs(got - expected) <= allowed) | (got == expected) | (np.isnan(got) & np.isnan(expected))
    wrong = ~right
    assert right.all(), (
        f"{name}: {wrong.sum()} of {wrong.size} entries differ; ours {got[wrong][:3]}, in the file "
        f"{expected[wrong][:3]}, allowed difference {np.broadcast_to(allowed, wrong.shape)[wrong][:3]}"
    )
