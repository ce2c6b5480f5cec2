"""What the JAX walks of all papers do in the same way: NumPy to arrays and back, a function replaced to look inside."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from shared.diff.walk import Arrays, Captured, flat

# A walk is compiled once and runs up to a hundred times on tiny networks: compiling is what takes the time.
# JAX_DISABLE_MOST_OPTIMIZATIONS=1, as in smoke runs, shortens that further and makes every update slower.
LEVEL = 0 if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1" else 1
QUICK = {"xla_backend_optimization_level": LEVEL, "xla_cpu_use_fusion_emitters": False}


def devices(values: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """float64 arrays of JAX."""
    return {name: jnp.asarray(np.array(value, np.float64)) for name, value in values.items()}


def stored(rows: Mapping[str, np.ndarray], image: np.ndarray) -> dict[str, Array]:
    """Replayed rows and their uint8 images as JAX has them, each in its own dtype."""
    return {name: jnp.asarray(value) for name, value in {**rows, "image": image}.items()}


def arrays(tree: Mapping[str, Array]) -> Arrays:
    """NumPy copies."""
    return {name: np.array(value) for name, value in tree.items()}


@contextlib.contextmanager
def replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Inside, a module's function is another one."""
    own = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, own)


def captured(module: Any, name: str, call: Callable[[], Any]) -> Arrays:
    """What `call` hands to a function of the module by keyword, as arrays; the call must not be compiled."""

    def stop(*_: Any, **inputs: Any) -> Any:
        raise Captured(inputs)

    with replaced(module, name, stop):
        try:
            call()
        except Captured as found:
            return arrays({key: value for key, value in flat(found.inputs).items() if hasattr(value, "shape")})
    raise ValueError(f"captured: {name} was never called")
