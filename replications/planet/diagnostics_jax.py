"""What PlaNet's model holds in its latent state, in JAX: seen for a while, then imagined. Used by diagnostics.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from replications.planet.model_jax import WorldModel, imagine, initial_state


def latent_features(
    model: WorldModel, image: np.ndarray, action: np.ndarray, noise: np.ndarray, *, context: int
) -> np.ndarray:
    """Features of the posterior for `context` rows, then of the prior rolled from the actions alone, (B, T, F).

    image: (B, T, H, W, C) in [-0.5, 0.5), read up to the context. action: (B, T, A) that led to each row. noise:
    (B, T, S), standard normal.
    """
    return np.array(_features(model, image[:, :context], action, noise, context=context))


@functools.partial(jax.jit, static_argnames="context")
def _features(model: WorldModel, seen: Array, action: Array, noise: Array, *, context: int) -> Array:
    latent = model.latent
    start = initial_state(latent, len(action))
    states, _ = latent.observe(model.encoder(seen), action[:, :context], noise[:, :context], start)
    features = [latent.features(states)]
    if context < action.shape[1]:
        last = {name: value[:, -1] for name, value in states.items()}
        features.append(latent.features(imagine(latent, last, action[:, context:], noise[:, context:])))
    return jnp.concatenate(features, 1)
