"""Inputs of a walk through one update of PlaNet (shared/diff): replayed rows, image and noise, in NumPy."""

import numpy as np

from shared.diff.walk import Arrays

FREE_NATS = 0.05  # nats at most, about what an untrained KL is: with 3 its gradient would be 0, and a bug in it unseen


def prepare(values: dict) -> dict:
    """The config that is walked: as it is, but for free nats that would hide the divergence."""
    loss = values["loss"]
    return {**values, "loss": {**loss, "free_nats": min(loss["free_nats"], FREE_NATS)}}


def draw(config, task: str, random: np.random.Generator, size: int, length: int, actions: int) -> dict[str, Arrays]:
    """{rows, image, noise}: rows as replay stores them, an episode starting inside the second chunk."""
    stoch, rows = config.model.stoch_size, length - (config.loss.alignment == "leaving")
    noise = {"noise": random.normal(size=(size, rows, stoch))}
    if config.loss.overshoots:
        noise["overshooting_noise"] = random.normal(size=(size, rows, config.loss.overshooting_distance + 1, stoch))
    is_first = np.zeros((size, length), bool)
    is_first[-1, 1] = True
    stored = random.uniform(-1, 1, (size, length + 1, actions)).astype(np.float32)
    return {
        "rows": {
            "action": stored[:, 1:],
            "action_before": stored[:, 0],
            "is_first": is_first,
            "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        },
        "image": random.uniform(-0.5, 0.5, (size, rows, 64, 64, 3)),
        "noise": noise,
    }
