"""Uniform random actions: what fills the replay before learning starts. The same protocol as every agent."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.envs.spec import ActSpec
from shared.training.agent import Acted, Arrays, Carry, Learned


class RandomAgent:
    """Actions uniform in the box [-1, 1]^A, or a uniform one-hot. Carries and learns nothing."""

    def __init__(self, act_spec: ActSpec, seed: np.random.SeedSequence):
        self._spec = act_spec
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def initial_carry(self, num_envs: int) -> Carry:
        return {}

    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        num_envs = len(obs["is_first"])
        if self._spec.discrete:
            action = np.eye(self._spec.size, dtype=np.float32)[self._generator.integers(self._spec.size, size=num_envs)]
        else:
            action = self._generator.uniform(-1, 1, (num_envs, self._spec.size)).astype(np.float32)
        return Acted(action, carry, {})

    def learn(self, batch: Arrays) -> Learned:
        return Learned({}, {})

    def save(self) -> Mapping[str, Any]:
        return {"generator": self._generator.bit_generator.state}

    def load(self, state: Mapping[str, Any]) -> None:
        self._generator.bit_generator.state = state["generator"]
