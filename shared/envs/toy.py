"""Toy tasks for tests: a red dot, pushed by a 2-D action, earns more the nearer it is to the green spot in the middle.

They obey the row convention of spec.py like dm_control's tasks do, cost microseconds and need nothing but numpy.
In numbers instead of a picture, an agent sees the dot's position and its distance to the middle.
toy_reach always runs to its time limit; toy_terminal ends (is_terminal) when the dot touches the spot.
"""

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec, Row, check_action, make_row

TASKS = ("toy_reach", "toy_terminal")
SPEED = 0.04  # distance per env step under a full action; the arena is [-1, 1]^2
DOT_RADIUS = 0.15
SPOT_RADIUS = 0.25
FARTHEST = np.sqrt(2.0)  # from the middle to a corner: where the reward is 0


class Toy:
    """A dot in the arena [-1, 1]^2; reward per env step = 1 - distance / sqrt(2), in [0, 1]."""

    def __init__(self, task: str, *, size: int, action_repeat: int, time_limit_env_steps: int, vectors: bool = False):
        self._vectors = vectors
        self.obs_spec = {"image": ArraySpec((size, size, 3), "uint8")}
        if vectors:
            self.obs_spec = {"position": ArraySpec((2,), "float32"), "distance": ArraySpec((), "float32")}
        self.act_spec = ActSpec(2)
        self._ends_at_spot = task == "toy_terminal"
        self._repeat = action_repeat
        self._limit = time_limit_env_steps // action_repeat
        self._decisions: int | None = None  # of the running episode; None where no episode runs
        self._position = np.zeros(2)
        axis = (np.arange(size) + 0.5) / size * 2 - 1
        self._x, self._y = axis[None, :], -axis[:, None]
        self._softness = 2 / size  # the edge of a disc is one pixel wide
        self._spot = self._disc(np.zeros(2), SPOT_RADIUS)

    def reset(self, seed: np.random.SeedSequence) -> Row:
        self._decisions = 0
        generator = np.random.Generator(np.random.PCG64(seed))
        self._position = generator.uniform(0.5, 0.9, 2) * generator.choice([-1.0, 1.0], 2)
        return make_row(self._observe(), 0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        action = check_action("toy", action, (2,)).astype(np.float64)
        if self._decisions is None:
            raise ValueError("toy: the episode is over; call reset first")
        reward, env_steps, terminal = 0.0, 0, False
        while env_steps < self._repeat and not terminal:
            self._position = np.clip(self._position + SPEED * action, -1.0, 1.0)
            distance = float(np.sqrt(np.sum(self._position**2)))
            reward += 1.0 - distance / FARTHEST
            env_steps += 1
            terminal = self._ends_at_spot and distance < SPOT_RADIUS
        self._decisions += 1
        last = terminal or self._decisions >= self._limit
        if last:
            self._decisions = None
        return make_row(self._observe(), reward, first=False, last=last, terminal=terminal, env_steps=env_steps)

    def close(self) -> None:
        self._decisions = None

    def _observe(self) -> dict[str, np.ndarray]:
        if self._vectors:
            return {
                "position": self._position.astype(np.float32),
                "distance": np.array(np.sqrt(np.sum(self._position**2)), np.float32),
            }
        dot = self._disc(self._position, DOT_RADIUS)
        blue = np.full_like(dot, 0.2)
        image = np.stack([dot, self._spot * (1 - dot), blue], axis=-1)
        return {"image": np.rint(image * 255).astype(np.uint8)}

    def _disc(self, centre: np.ndarray, radius: float) -> np.ndarray:
        distance = np.sqrt((self._x - centre[0]) ** 2 + (self._y - centre[1]) ** 2)
        return np.clip((radius - distance) / self._softness + 0.5, 0.0, 1.0)
