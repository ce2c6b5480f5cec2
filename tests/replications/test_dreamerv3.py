"""DreamerV3's agent in torch: the behaviour of every agent, and what is DreamerV3's own.

The numbers of the authors' code are in tests/golden/test_dreamerv3_model.py.
"""

import numpy as np
import pytest
import torch

from replications.dreamerv3 import agent_torch, model_torch
from replications.dreamerv3.agent_torch import DreamerV3Agent
from replications.dreamerv3.config import Config
from shared.config import build, paper_folder, read_yaml
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.testing import agent_suite
from tests import tiny_dreamerv3

ACTIONS = 3
IMAGE = {"image": ArraySpec((64, 64, 3), "uint8")}
VECTORS = {"height": ArraySpec((), "float32"), "velocity": ArraySpec((4,), "float32")}
GAMES = {"atari", "atari-2024", "atari100k"}
VARIANTS = (
    "dreamerv3",
    "proprio-2024",
    "proprio-2023",
    "vision",
    "vision-2024",
    "vision-2023",
    "atari",
    "atari-2024",
    "atari100k",
    "advantage-normalisation",
    "huber-heads",
    "no-reward-value-gradients",
    "no-reconstruction-gradients",
    "no-symlog-inputs",
)
# The authors draw every action, also where they do not learn.
CHECKS = [check for check in agent_suite.CHECKS if check is not agent_suite.exploration_changes_actions]


def spec_of(variant):
    if variant.startswith("vision"):
        return IMAGE
    if variant.startswith("atari"):
        return {"image": ArraySpec((64, 64, 3 if variant.startswith("atari100k") else 1), "uint8")}
    return VECTORS


def make_config(variant="dreamerv3", **changes) -> Config:
    return build(Config, tiny_dreamerv3.values(variant, **changes), where="a test")


def make_agent(variant="dreamerv3", seed=0, **changes) -> DreamerV3Agent:
    torch.set_num_threads(1)
    spec, config = ActSpec(ACTIONS, discrete=variant in GAMES), make_config(variant, **changes)
    return DreamerV3Agent(config, spec_of(variant), spec, seed=np.random.SeedSequence(seed))


def make_batch(variant="dreamerv3", seed=0, size=3, length=6, **changes):
    """Windows as replay gives them, with the row of context that the variant's windows have."""
    config, random = make_config(variant, **changes), np.random.default_rng(seed)
    context, discrete = config.batch.context, variant in GAMES
    length += context
    flags = np.zeros((size, length), bool)
    shape = (size, length)
    if discrete:
        action = np.eye(ACTIONS, dtype=np.float32)[random.integers(ACTIONS, size=shape)]
    else:
        action = random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)
    rows = {
        "action": action,
        "reward": random.uniform(0, 4, shape).astype(np.float32),
        "is_first": flags.copy(),
        "is_last": flags.copy(),
        "is_terminal": flags.copy(),
    }
    for key, spec in spec_of(variant).items():
        drawn = random.normal(size=(*shape, *spec.shape))
        if len(spec.shape) == 3:  # large squares: noise of single pixels looks always the same
            squares = random.integers(0, 256, (*shape, 4, 4, spec.shape[-1]))
            drawn = squares.repeat(16, axis=2).repeat(16, axis=3)
        rows[key] = drawn.astype(spec.dtype)
    if context:
        sizes = config.size
        rows["deter"] = random.uniform(-1, 1, (*shape, sizes.deter_size)).astype(np.float32)
        rows["stoch"] = random.integers(0, sizes.classes, (*shape, config.model.stoch_size)).astype(np.uint8)
    return rows


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    check(lambda seed: make_agent(variant, seed), lambda seed: make_batch(variant, seed))
