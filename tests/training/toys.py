"""Small stand-ins for the parts that the loop drives: they write down what happened to them."""

import numpy as np

from shared.envs.spec import ActSpec
from shared.training.agent import Acted, Learned


class CountingEnvs:
    """N environments of `length` agent steps, `repeat` env steps each; the reward of step t is t."""

    def __init__(self, count=1, length=4, repeat=3):
        self.count, self.length, self.repeat = count, length, repeat
        self.act_spec = ActSpec(2)
        self.time = None
        self.actions = []

    def rows(self):
        time, first = self.time, self.time == 0
        return {
            "image": np.zeros((self.count, 1), np.uint8),
            "reward": np.where(first, 0, time).astype(np.float32),
            "is_first": first.copy(),
            "is_last": time == self.length,
            "is_terminal": np.zeros(self.count, bool),
            "env_steps": np.where(first, 0, self.repeat),
        }

    def reset(self):
        self.time = np.zeros(self.count, np.int64)
        return self.rows()

    def step(self, action):
        self.actions.append(np.array(action))
        self.time = np.where(self.time == self.length, 0, self.time + 1)
        return self.rows()


class Recorder:
    """Agent and replay in one: a list of what was asked of it."""

    def __init__(self, name="agent", log=None):
        self.name = name
        self.log = [] if log is None else log
        self.seen = 0

    def initial_carry(self, num_envs):
        return {"calls": np.zeros(num_envs)}

    def act(self, obs, carry, *, explore):
        self.log.append((self.name, "act", explore))
        carry = {"calls": carry["calls"] + 1} if carry else carry
        return Acted(np.full((len(obs["is_first"]), 2), 0.5, np.float32), carry, {})

    def learn(self, batch):
        self.log.append((self.name, "learn", batch))
        return Learned({"loss": 1.0}, {})

    def append(self, rows):
        self.log.append((self.name, "append", rows))

    def sample(self, batch_size, length):
        return (batch_size, length)
