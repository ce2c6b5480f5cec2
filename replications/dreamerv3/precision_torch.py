"""One update in float32 and in mixed precision, in torch, for precision.py."""

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch

from replications.dreamerv3.agent_torch import DreamerV3Agent
from replications.dreamerv3.precision import SEED, Measured
from shared.device_torch import to_numpy
from shared.diff.walk import Arrays


def first_parameters(config, specs) -> Arrays:
    """First weights by name, which both frameworks take."""
    return DreamerV3Agent(config, *specs, seed=np.random.SeedSequence(SEED)).parameters()


def updates(
    config, specs, parameters: Arrays, rows: Arrays, noises: Mapping[str, Arrays], *, mixed: bool
) -> dict[str, Measured]:
    """{draws: one update from these weights}. mixed: as on a GPU, by autocast of the CPU."""
    arithmetic = (lambda: torch.autocast("cpu", torch.bfloat16)) if mixed else contextlib.nullcontext
    return {draws: update(config, specs, parameters, rows, noise, arithmetic) for draws, noise in noises.items()}


def update(
    config, specs, parameters: Arrays, rows: Arrays, noise: Arrays, arithmetic: Callable[[], AbstractContextManager]
) -> Measured:
    """A new agent's `learn` with this noise, up to the gradients."""
    agent, slopes = DreamerV3Agent(config, *specs, seed=np.random.SeedSequence(SEED)), {}

    def step(*names: str) -> dict[str, torch.Tensor]:
        for name in names:
            for key, parameter in agent.parts[name].named_parameters():
                slopes[f"{name}.{key}"] = to_numpy(parameter.grad)
        return {}

    agent.load_parameters(parameters)
    agent.arithmetic = arithmetic
    agent.step, agent.learning_noise = step, lambda *shape: {name: torch.tensor(x) for name, x in noise.items()}
    learned = agent.learn(rows)
    losses = {name: to_numpy(x) for name, x in learned.metrics.items() if name.endswith("loss")}
    return Measured(losses, slopes, learned.memo["stoch"])
