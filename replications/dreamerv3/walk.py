"""Inputs of a walk through one update of DreamerV3 (shared/diff): replayed rows and noise, in NumPy."""

import numpy as np

from replications.dreamerv3.config import FLAGS
from shared.diff.walk import Arrays
from shared.envs.spec import ActSpec, ArraySpec
from shared.envs.suite import has_choices, is_game

FREE_NATS = 0.05  # nats at most, about what an untrained KL is: with 1 its gradient would be 0, and a bug in it unseen
VECTORS = {"height": ArraySpec((), "float32"), "velocity": ArraySpec((4,), "float32")}  # a scalar and a vector


def prepare(values: dict) -> dict:
    """The config that is walked: as it is, but for free nats that would hide the divergence."""
    loss = values["loss"]
    return {**values, "loss": {**loss, "free_nats": min(loss["free_nats"], FREE_NATS)}}


def specs(config, task: str, actions: int) -> tuple[dict[str, ArraySpec], ActSpec]:
    """What is seen and done in a task: vectors or images, as the config says; games have one-hot actions."""
    side, grey = config.environment.size, is_game(task) and config.environment.atari.grayscale
    image = {"image": ArraySpec((side, side, 1 if grey else 3), "uint8")}
    seen = image if config.environment.observations == "image" else VECTORS
    return seen, ActSpec(actions, discrete=has_choices(task))


def draw(config, task: str, random: np.random.Generator, size: int, length: int, actions: int) -> dict[str, Arrays]:
    """{rows, image, noise}: windows with their context and memo; an episode begins inside the second, one ends."""
    (obs_spec, act_spec), context = specs(config, task, actions), config.batch.context
    stored, (latents, classes) = (size, context + length), (config.model.stoch_size, config.size.classes)
    flags = {name: np.zeros(stored, bool) for name in FLAGS}
    flags["is_first"][-1, context + 1] = flags["is_last"][0, -1] = flags["is_terminal"][0, -1] = True
    action = random.uniform(-1.5, 1.5, (*stored, actions))
    if act_spec.discrete:
        action = np.eye(actions)[random.integers(0, actions, stored)]
    seen = {
        key: random.integers(0, 256, (*stored, *spec.shape), np.uint8)
        if spec.dtype == "uint8"
        else random.uniform(-2, 2, (*stored, *spec.shape)).astype(np.float32)
        for key, spec in obs_spec.items()
    }
    imagined = (config.behaviour.horizon, size * (config.behaviour.imagine_last or length))
    kind = {"size": imagined} if act_spec.discrete else {"size": (*imagined, actions)}
    return {
        "rows": {
            **seen,
            "action": action.astype(np.float32),
            "reward": random.uniform(0, 4, stored).astype(np.float32),
            **flags,
            "deter": random.uniform(-1, 1, (*stored, config.size.deter_size)).astype(np.float32),
            "stoch": random.integers(0, classes, (*stored, latents)).astype(np.uint8),
        },
        "image": np.zeros(0),
        "noise": {
            "noise": random.uniform(size=(size, length, latents)),
            "imagined_noise": random.uniform(size=(*imagined, latents)),
            "action_noise": (random.uniform if act_spec.discrete else random.normal)(**kind),
        },
    }


def moved_from_first(parameters: Arrays) -> Arrays:
    """First weights and a little more, so that no layer is zero and the slow critic is none of the critic."""
    random = np.random.default_rng(1)
    return {name: x + 0.05 * random.normal(size=np.shape(x)) for name, x in parameters.items()}


def unflat(entries: Arrays) -> dict:
    """Entries as an update takes them: obs and state in groups of their own."""
    found: dict = {}
    for name, value in entries.items():
        group, space, key = name.partition(" ")
        if space:
            found.setdefault(group, {})[key] = value
        else:
            found[name] = value
    return found
