"""What the torch walks of all papers do in the same way: NumPy to tensors and back, gradients by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from shared.diff.walk import Arrays, Captured, flat


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """float64 tensors."""
    return {name: torch.from_numpy(np.array(value, np.float64)) for name, value in arrays.items()}


def arrays(tree: Mapping[str, torch.Tensor]) -> Arrays:
    """NumPy copies of tensors."""
    return {name: np.array(value.detach().numpy()) for name, value in tree.items()}


def gradients(named: Any) -> Arrays:
    """Copies of the gradients of (name, parameter) pairs; zeros where a parameter had no part."""
    return {
        name: np.zeros(tuple(p.shape)) if p.grad is None else np.array(p.grad.detach().numpy()) for name, p in named
    }


def captured(agent: Any, method: str, rows: Mapping[str, np.ndarray], image: np.ndarray) -> Arrays:
    """What agent.learn hands to one of its methods when it is given replayed rows: the arrays in it, by name.

    image: uint8 (B, T, H, W, C), whatever it shows: the agent's own reading of it may draw noise.
    """

    def stop(**inputs: Any) -> Any:
        raise Captured(inputs)

    own = agent.__dict__.get(method)
    setattr(agent, method, stop)
    try:
        agent.learn({**rows, "image": image})
    except Captured as found:
        given = flat(found.inputs)
        return arrays({name: value for name, value in given.items() if isinstance(value, torch.Tensor)})
    finally:
        agent.__dict__.pop(method) if own is None else setattr(agent, method, own)
    raise ValueError(f"captured: learn never called {method}")
