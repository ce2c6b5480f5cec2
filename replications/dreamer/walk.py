"""Inputs of a walk through one update of Dreamer (shared/diff): replayed rows, image and noise, in NumPy."""

import numpy as np

from shared.diff.walk import Arrays
from shared.envs.spec import ActSpec
from shared.envs.suite import has_choices


def spec(task: str, actions: int) -> ActSpec:
    """The actions of a task: one-hot in games and Catch."""
    return ActSpec(actions, discrete=has_choices(task))


FREE_NATS = 0.05  # nats at most, about what an untrained KL is: with 3 its gradient would be 0, and a bug in it unseen


def prepare(values: dict) -> dict:
    """The config that is walked: as it is, but for free nats that would hide the divergence."""
    loss = values["loss"]
    return {**values, "loss": {**loss, "free_nats": min(loss["free_nats"], FREE_NATS)}}


def draw(config, task: str, random: np.random.Generator, size: int, length: int, actions: int) -> dict[str, Arrays]:
    """{rows, image, noise}: an episode starts inside the second chunk, the world ends in the first, if it can end."""
    stoch, discrete, ends = config.model.stoch_size, spec(task, actions).discrete, config.model.continuation
    is_first, is_terminal = np.zeros((size, length), bool), np.zeros((size, length), bool)
    is_first[-1, 1], is_terminal[0, -1] = True, ends
    stored = random.uniform(-1, 1, (size, length + 1, actions))
    if discrete:
        stored = np.eye(actions)[random.integers(0, actions, (size, length + 1))]
    noise = {"noise": random.normal(size=(size, length, stoch))}
    if config.behaviour.learner == "actor":
        shape = (config.behaviour.horizon, size * (length - ends))
        noise["latent_noise"] = random.normal(size=(*shape, stoch))
        noise["action_noise"] = random.uniform(size=shape) if discrete else random.normal(size=(*shape, actions))
    return {
        "rows": {
            "action": stored[:, 1:].astype(np.float32),
            "action_before": stored[:, 0].astype(np.float32),
            "is_first": is_first,
            "is_terminal": is_terminal,
            "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        },
        "image": random.uniform(-0.5, 0.5, (size, length, 64, 64, 3)),
        "noise": noise,
    }
