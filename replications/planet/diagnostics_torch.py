"""What PlaNet's model holds in its latent state, in torch: seen for a while, then imagined. Used by diagnostics.py."""

import numpy as np
import torch

from replications.planet.model_torch import WorldModel, imagine, initial_state


@torch.no_grad()
def latent_features(
    model: WorldModel, image: np.ndarray, action: np.ndarray, noise: np.ndarray, *, context: int
) -> np.ndarray:
    """Features of the posterior for `context` rows, then of the prior rolled from the actions alone, (B, T, F).

    image: (B, T, H, W, C) in [-0.5, 0.5), read up to the context. action: (B, T, A) that led to each row. noise:
    (B, T, S), standard normal.
    """
    device = next(model.parameters()).device
    seen, action, noise = (torch.as_tensor(part, device=device) for part in (image[:, :context], action, noise))
    latent = model.latent
    start = initial_state(latent, len(action))
    states, _ = latent.observe(model.encoder(seen), action[:, :context], noise[:, :context], start)
    features = [latent.features(states)]
    if context < action.shape[1]:
        last = {name: value[:, -1] for name, value in states.items()}
        features.append(latent.features(imagine(latent, last, action[:, context:], noise[:, context:])))
    return torch.cat(features, 1).cpu().numpy()
