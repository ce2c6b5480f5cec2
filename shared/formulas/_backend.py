"""The only file of the core that knows which array library is running.

Formulas ask `namespace` for the functions of the array API standard, and this file for what the standard lacks.
Read divergences.py next: it shows how a formula looks.
"""

import sys

import array_api_compat.numpy


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


def stop_gradient(x):
    """x, treated as a constant by automatic differentiation. The identity in NumPy."""
    library = _library(x)
    if library == "torch":
        return x.detach()
    if library == "jax":
        return sys.modules["jax"].lax.stop_gradient(x)
    return x


def indices(count, like):
    """0, 1, ..., count - 1, (count,), integers of the type and on the device of `like`."""
    xp = namespace(like)
    if _library(like) == "torch":
        return xp.arange(count, dtype=like.dtype, device=like.device)
    return xp.arange(count, dtype=like.dtype)


def check_shapes(function, **arrays):
    """Raise ValueError unless all arrays have one shape. Numbers and arrays of shape () fit every shape."""
    shapes = {name: tuple(x.shape) for name, x in arrays.items() if getattr(x, "shape", ()) != ()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{function}: arguments of one shape expected, got {listed}; "
            "broadcast explicitly, so that a missing axis cannot pass unnoticed"
        )
