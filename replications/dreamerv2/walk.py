"""Inputs of a walk through one update of DreamerV2 (shared/diff): replayed rows, image and noise, in NumPy."""

import numpy as np

from shared.diff.walk import Arrays
from shared.envs.spec import ActSpec, ArraySpec
from shared.envs.suite import has_choices, is_game


def specs(config, task: str, actions: int) -> tuple[dict[str, ArraySpec], ActSpec]:
    """What is seen and done in a task: games are grey where the config says so, and their actions one-hot."""
    channels = 1 if is_game(task) and config.environment.atari.grayscale else 3
    return {"image": ArraySpec((64, 64, channels), "uint8")}, ActSpec(actions, discrete=has_choices(task))


FREE_NATS = 0.05  # nats at most, about what an untrained KL is: with 3 its gradient would be 0, and a bug in it unseen


def prepare(values: dict) -> dict:
    """The config that is walked: as it is, but for free nats that would hide the divergence."""
    loss = values["loss"]
    return {**values, "loss": {**loss, "free_nats": min(loss["free_nats"], FREE_NATS)}}


def draw(config, task: str, random: np.random.Generator, size: int, length: int, actions: int) -> dict[str, Arrays]:
    """{rows, image, noise}: an episode starts inside the second chunk, the world ends in the first."""
    obs_spec, act_spec = specs(config, task, actions)
    model, behaviour = config.model, config.behaviour
    latent = random.uniform if model.latents == "categorical" else random.normal
    is_first, is_terminal = np.zeros((size, length), bool), np.zeros((size, length), bool)
    is_first[-1, 1] = is_terminal[0, -1] = True
    stored = random.uniform(-1, 1, (size, length + 1, actions))
    if act_spec.discrete:
        stored = np.eye(actions)[random.integers(0, actions, (size, length + 1))]
    spared = behaviour.starts == "but_last" and model.discount_head
    starts = (behaviour.horizon, size * (length - spared))
    return {
        "rows": {
            "action": stored[:, 1:].astype(np.float32),
            "action_before": stored[:, 0].astype(np.float32),
            "is_first": is_first,
            "is_terminal": is_terminal,
            "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        },
        "image": random.uniform(-0.5, 0.5, (size, length, *obs_spec["image"].shape)),
        "noise": {
            "noise": latent(size=(size, length, model.stoch_size)),
            "imagined_noise": latent(size=(*starts, model.stoch_size)),
            "action_noise": random.uniform(size=starts if act_spec.discrete else (*starts, actions)),
        },
    }
