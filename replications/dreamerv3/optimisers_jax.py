"""DreamerV3's optimisers in JAX: LaProp with adaptive clipping for all parameters, or (2023) an Adam for each learner.

The counterpart of optimisers_torch.py, which has classes. A learner is a network: model, actor or critic.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from replications.dreamerv3.config import Adams, LaProp, Optimisers

ROW = 256  # numbers; few enough for small tensors, many enough for few rows


def first_moments(settings: Optimisers, learners: dict[str, Any]) -> Any:
    """Of every optimiser, before the first update."""
    if settings.order == "joint":
        return laprop_moments(learners)
    moments = {name: jax.eval_shape(make_adam(settings.adam, name).init, x) for name, x in learners.items()}
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), moments)


def step(
    settings: Optimisers, learners: dict[str, Any], slopes: dict[str, Any], moments: Any, updates: int
) -> tuple[dict[str, Any], Any, dict[str, Array]]:
    """Apply the gradients of some learners. They and all moments afterwards; norms before clipping, each ()."""
    if settings.order == "joint":
        learners, moments, norm = laprop_step(settings.laprop, learners, slopes, moments, updates)
        return learners, moments, {"grad_norm": norm}
    moments, norms = dict(moments), {}
    for name, learner in learners.items():
        changes, moments[name] = make_adam(settings.adam, name).update(slopes[name], moments[name])
        learners = {**learners, name: optax.apply_updates(learner, changes)}
        norms[f"{name}_grad_norm"] = optax.tree.norm(slopes[name])
    return learners, moments, norms


def in_rows(tree: Any) -> Array:
    """All tensors as one matrix (R, 256): each begins a row of its own, zeros fill up its last.

    XLA compiles a few operations on it sooner than a few on every tensor.
    """
    leaves = jax.tree.leaves(tree)
    filled = [part for x in leaves for part in (x.reshape(-1), jnp.zeros(-x.size % ROW, x.dtype))]
    return jnp.concatenate(filled).reshape(-1, ROW)


def from_rows(rows: Array, like: Any) -> Any:
    """The tensors of such a matrix, shaped like those of a tree."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([-(-x.size // ROW) * ROW for x in leaves])
    parts = zip(jnp.split(rows.reshape(-1), ends[:-1]), leaves, strict=True)
    return jax.tree.unflatten(structure, [part[: x.size].reshape(x.shape) for part, x in parts])


def laprop_moments(parameters: Any) -> dict[str, Array]:
    """Both moments of LaProp, in rows."""
    rows = jax.eval_shape(in_rows, parameters)
    return {name: np.zeros(rows.shape, rows.dtype) for name in ("m", "v")}


def laprop_step(
    settings: LaProp, parameters: Any, slopes: Any, moments: dict[str, Array], updates: int
) -> tuple[Any, dict[str, Array], Array]:
    """LaProp with adaptive clipping by every tensor's own norm: parameters, moments, norm of the whole gradient before.

    The formulas of shared/formulas/optimisers.py on rows, for a number of updates that is an array.
    """
    leaves = jax.tree.leaves(parameters)
    owner = np.repeat(np.arange(len(leaves)), [-(-x.size // ROW) for x in leaves])  # of a row: its tensor
    x, slope = in_rows(parameters), in_rows(slopes)
    size, norm = (jnp.sqrt(jax.ops.segment_sum((y * y).sum(1), owner, len(leaves))) for y in (x, slope))
    allowed = settings.adaptive_clip * jnp.maximum(size, settings.least_norm)
    slope = slope / jnp.maximum(norm / allowed, 1)[owner, None]
    # 1 - beta^t without a difference of nearly equal numbers, which float32 does not survive
    first, second = (-jnp.expm1((updates + 1) * math.log(beta)) for beta in (settings.beta1, settings.beta2))
    v = settings.beta2 * moments["v"] + (1 - settings.beta2) * slope * slope
    scaled = jnp.where(v > 0, slope / (jnp.sqrt(v / second) + settings.epsilon), 0)
    m = settings.beta1 * moments["m"] + (1 - settings.beta1) * scaled
    rate = settings.learning_rate
    if settings.warmup_updates:
        rate = rate * jnp.minimum(updates / settings.warmup_updates, 1.0)
    return from_rows(x - rate / first * m, parameters), {"m": m, "v": v}, jnp.sqrt((norm * norm).sum())


def make_adam(settings: Adams, name: str) -> optax.GradientTransformation:
    """The 2023 agent's for one learner: its gradient is clipped by its own norm."""
    own = getattr(settings, name)
    return optax.chain(
        optax.clip_by_global_norm(own.clip_norm),
        optax.adam(own.learning_rate, settings.beta1, settings.beta2, eps=own.epsilon),
    )
