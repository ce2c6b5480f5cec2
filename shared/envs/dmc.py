"""dm_control's suite as pixels, as PlaNet sees it: one camera, an action repeat, the reward summed.

Source: PlaNet, Appendix A; authors' code scripts/tasks.py and control/wrappers.py (wrapper order: simulator, repeat,
time limit in decisions, image). Rendering is the slow part on a machine without a GPU; see DMC. Read gl.py next.
"""

import importlib
import logging

import numpy as np

from shared.envs import gl
from shared.envs.spec import ActSpec, ArraySpec, Row, check_action, make_row
from shared.errors import UserError

BOUNDED = 1e6  # MuJoCo's "no limit" is 1e10
SEED_WORDS = 8  # 256 bits of the SeedSequence seed the task's RandomState
ALIASES = {"cup_catch": "ball_in_cup_catch"}  # PlaNet's name of the task


def tasks() -> dict[str, tuple[str, str]]:
    """Every task of the suite: domain_task -> (domain, task)."""
    gl.prepare()
    suite = importlib.import_module("dm_control.suite")
    return {f"{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}


def _load(task: str):
    """dm_control's own environment of this task."""
    domain, name = tasks()[ALIASES.get(task, task)]
    suite = importlib.import_module("dm_control.suite")
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # MuJoCo warns about an attribute in the suite's own models
    try:
        return suite.load(domain, name, task_kwargs={"random": 0})
    finally:
        absl.setLevel(level)


class DMC:
    """One task of dm_control's suite, seen as an image.

    Args:
      task: "domain_task", e.g. "walker_walk"; or "cup_catch".
      size: height and width of the image, pixels.
      camera: number of the camera in the task's model; -1 is the free camera.
      action_repeat: R, env steps per decision; their rewards are summed, the image is drawn once, after the last.
      time_limit_env_steps: an episode has at most time_limit_env_steps // R decisions (1000 and R = 6: 996 env
        steps), and ends where dm_control ends it. Neither limit is terminal; a discount of 0 is.
      shadow_size: width of the shadow map, pixels. None keeps the suite's 2048; 512 draws three times as fast in
        software and moves a few pixels at the edges of shadows.

    Actions in [-1, 1] are mapped affinely to the task's own box. It IS [-1, 1] in all of PlaNet's tasks, where the
    action is passed on unchanged; quadruped is the one domain of the suite where it is not.
    An episode is a pure function of its seed and actions: the task's RandomState is seeded anew at every reset, and
    nothing else in the suite is random. Tests compare used environments with new ones bit by bit.
    """

    def __init__(
        self,
        task: str,
        *,
        size: int,
        camera: int,
        action_repeat: int,
        time_limit_env_steps: int,
        shadow_size: int | None = None,
    ):
        self._task = task
        self._env = _load(task)
        box = self._env.action_spec()
        if np.any(box.maximum - box.minimum > BOUNDED):
            raise UserError(f"task {task!r} takes unbounded actions, and [-1, 1] cannot be mapped to them")
        self._centre, self._half = (box.maximum + box.minimum) / 2, (box.maximum - box.minimum) / 2
        self._camera = self._make_camera(size, camera, shadow_size)
        self._repeat = action_repeat
        self._limit = time_limit_env_steps // action_repeat
        self._decisions: int | None = None  # of the running episode; None where no episode runs
        self.obs_spec = {"image": ArraySpec((size, size, 3), "uint8")}
        self.act_spec = ActSpec(box.shape[0])

    def _make_camera(self, size: int, camera: int, shadow_size: int | None):
        """A camera that is kept, on a buffer as small as the image. The pixels are those of physics.render.

        physics.render would make a camera and its scene for each image, and clear and resolve 640 x 480 pixels.
        """
        model = self._env.physics.model
        if not -1 <= camera < model.ncam:
            raise UserError(f"task {self._task!r}: no camera {camera}; it has 0 to {model.ncam - 1}, and -1 is free")
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        if shadow_size is not None:
            model.vis.quality.shadowsize = shadow_size
        engine = importlib.import_module("dm_control.mujoco.engine")
        try:
            return engine.Camera(self._env.physics, size, size, camera)  # makes the context: it reads the three sizes
        except Exception as error:  # OpenGL, EGL and MuJoCo each raise their own
            raise gl.cannot_draw(gl.prepare(), error) from error

    def reset(self, seed: np.random.SeedSequence) -> Row:
        self._restart(seed)
        return make_row(self._draw(), 0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        reward, last, terminal, env_steps = self._advance(action)
        return make_row(self._draw(), reward, first=False, last=last, terminal=terminal, env_steps=env_steps)

    def replay(self, seed: np.random.SeedSequence, actions: np.ndarray) -> Row:
        """The row that reset(seed) and step through actions (T, A) lead to, drawing only that row."""
        if len(actions) == 0:
            return self.reset(seed)
        self._restart(seed)
        for action in actions[:-1]:
            self._advance(action)
        return self.step(actions[-1])

    def close(self) -> None:
        """Free the simulator and its OpenGL context now: at the interpreter's exit it would be too late for OSMesa."""
        if self._env is not None:
            self._camera = None
            self._env.physics.free()
            self._env = None

    def _restart(self, seed: np.random.SeedSequence) -> None:
        self._env.task.random.seed(seed.generate_state(SEED_WORDS))
        self._env.reset()
        self._decisions = 0

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool, int]:
        """Apply the action for R env steps, fewer where the episode ends: summed reward, last, terminal, env steps."""
        action = check_action(f"task {self._task!r}", action, self._half.shape)
        if self._decisions is None:
            raise ValueError(f"task {self._task!r}: the episode is over; call reset first")
        control = self._centre + self._half * action.astype(np.float64)
        reward, env_steps, ended = 0.0, 0, False
        while env_steps < self._repeat and not ended:
            arrived = self._env.step(control)
            reward += arrived.reward
            env_steps += 1
            ended = arrived.last()
        self._decisions += 1
        last = ended or self._decisions >= self._limit
        if last:
            self._decisions = None
        return reward, last, ended and arrived.discount == 0.0, env_steps

    def _draw(self) -> dict[str, np.ndarray]:
        return {"image": np.array(self._camera.render())}  # a copy: the camera draws into one buffer
