"""dm_control's suite as pixels, as PlaNet sees it: one camera, an action repeat, the reward summed; or as vectors.

Simulator is a task without a picture: it can be copied, and a planner can ask what actions would earn. DMC adds the
camera and the rows of spec.py; Vectors has rows of what the suite itself tells an agent. Source: PlaNet, Appendix A;
authors' code scripts/tasks.py and control/wrappers.py (wrapper order: simulator, repeat, time limit in decisions,
image). Rendering is the slow part on a machine without a GPU; see DMC. Read gl.py next.
"""

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator

import numpy as np

from shared.envs import gl
from shared.envs.spec import ActSpec, ArraySpec, Row, check_action, make_row
from shared.errors import UserError

BOUNDED = 1e6  # MuJoCo's "no limit" is 1e10
SEED_WORDS = 8  # 256 bits of the SeedSequence seed the task's RandomState
ALIASES = {"cup_catch": "ball_in_cup_catch"}  # PlaNet's name of the task


def tasks(*, drawn: bool = True) -> dict[str, tuple[str, str]]:
    """Every task of the suite: domain_task -> (domain, task). drawn: whether it must be possible to draw them here."""
    if drawn:
        gl.prepare()
    with _without_picture():
        suite = importlib.import_module("dm_control.suite")
    return {f"{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}


@contextlib.contextmanager
def _without_picture() -> Iterator[None]:
    """Import dm_control here, even where nothing can be drawn; where something can, it may be drawn later."""
    try:
        gl.prepare()
    except UserError:
        wanted = os.environ.get("MUJOCO_GL")
        os.environ["MUJOCO_GL"] = gl.SWITCHED_OFF[0]  # read once, when dm_control is first imported
        try:
            yield
        finally:
            os.environ.pop("MUJOCO_GL")
            os.environ.update({} if wanted is None else {"MUJOCO_GL": wanted})
    else:
        yield


def _load(task: str):
    """dm_control's own environment of this task."""
    with _without_picture():
        suite = importlib.import_module("dm_control.suite")
    known = {f"{domain}_{name}": (domain, name) for domain, name in suite.ALL_TASKS}
    if ALIASES.get(task, task) not in known:
        raise UserError(
            f"task {task!r} is none of dm_control's suite: it has no physics to plan in and no states to read; "
            "take a task such as cartpole_swingup"
        )
    domain, name = known[ALIASES.get(task, task)]
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # MuJoCo warns about an attribute in the suite's own models
    try:
        return suite.load(domain, name, task_kwargs={"random": 0})
    finally:
        absl.setLevel(level)


class Simulator:
    """One task of dm_control's suite without a picture. It needs no OpenGL.

    Args:
      task: "domain_task", e.g. "walker_walk"; or "cup_catch".
      action_repeat: R, env steps per decision; their rewards are summed.
      time_limit_env_steps: an episode has at most time_limit_env_steps // R decisions (1000 and R = 6: 996 env
        steps), and ends where dm_control ends it. Neither limit is terminal; a discount of 0 is.

    Actions in [-1, 1] are mapped affinely to the task's own box. It IS [-1, 1] in all of PlaNet's tasks, where the
    action is passed on unchanged; quadruped is the one domain of the suite where it is not.
    An episode is a pure function of its seed and actions: the task's RandomState is seeded anew at every reset, and
    nothing else in the suite is random. Tests compare used environments with new ones bit by bit.

    A copy of a running episode is a second Simulator that was restarted with the same seed (what the task has drawn
    into the model or keeps for itself is then the same) and is given the `state` of the first.
    Raises:
      UserError: no such task in the suite, or one with unbounded actions.
    """

    def __init__(self, task: str, *, action_repeat: int, time_limit_env_steps: int):
        self._task = task
        self._env = _load(task)
        box = self._env.action_spec()
        if np.any(box.maximum - box.minimum > BOUNDED):
            raise UserError(f"task {task!r} takes unbounded actions, and [-1, 1] cannot be mapped to them")
        self._centre, self._half = (box.maximum + box.minimum) / 2, (box.maximum - box.minimum) / 2
        self._repeat = action_repeat
        self._limit = time_limit_env_steps // action_repeat
        self._decisions: int | None = None  # of the running episode; None where no episode runs
        self.act_spec = ActSpec(box.shape[0])

    def restart(self, seed: np.random.SeedSequence) -> None:
        """Start the episode that belongs to this seed."""
        self._env.task.random.seed(seed.generate_state(SEED_WORDS))
        self._env.reset()
        self._decisions = 0

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, int]:
        """Apply the action for R env steps, fewer where the episode ends: summed reward, last, terminal, env steps."""
        control = self._control(action)
        if self._decisions is None:
            raise ValueError(f"task {self._task!r}: the episode is over; call reset first")
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

    def state(self) -> np.ndarray:
        """Where the physics stands: positions, velocities, activations, time, inputs, and the solver's warm start."""
        return self._env.physics.get_state(self._everything())

    def rewards(self, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """What each of the actions (H, A) would earn from a state on, (H,): the rewards that `advance` would return.

        The clock is not looked at, as a planner in a learned model has none either: beyond the end of an episode the
        physics goes on. Where the task ends by itself (never in PlaNet's tasks), nothing more is earned.
        This simulator's own episode is lost: ask a copy. NaN where the physics breaks down, from there on.
        """
        physics, earned = self._env.physics, np.zeros(len(actions))
        physics.set_state(state, self._everything())
        mujoco = importlib.import_module("mujoco")
        mujoco.mj_step1(physics.model.ptr, physics.data.ptr)  # as dm_control leaves the physics after every step
        self._decisions = None
        diverged = importlib.import_module("dm_control.rl.control").PhysicsError
        try:
            for step, action in enumerate(actions):
                earned[step], ended = self._try(action)
                if ended:
                    break
        except diverged:
            earned[step:] = np.nan
        return earned

    def observation(self) -> dict[str, np.ndarray]:
        """The suite's own observation of the state, by its names (position, velocity, ...), each flat, float64."""
        seen = self._env.task.get_observation(self._env.physics)
        return {name: np.array(value, np.float64).reshape(-1) for name, value in seen.items()}

    def close(self) -> None:
        """Free the simulator."""
        if self._env is not None:
            self._env.physics.free()
            self._env = None

    def _control(self, action: np.ndarray) -> np.ndarray:
        action = check_action(f"task {self._task!r}", action, self._half.shape)
        return self._centre + self._half * action.astype(np.float64)

    def _try(self, action: np.ndarray) -> tuple[float, bool]:
        """What `advance` does to the physics, without clock and observation: summed reward, and whether it is over."""
        task, physics, control, reward = self._env.task, self._env.physics, self._control(action), 0.0
        substeps = round(self._env.control_timestep() / physics.timestep())
        for _ in range(self._repeat):
            task.before_step(control, physics)
            physics.step(substeps)
            task.after_step(physics)
            reward += task.get_reward(physics)
            if task.get_termination(physics) is not None:
                return reward, True
        return reward, False

    @staticmethod
    def _everything() -> int:
        """MuJoCo's name of all that decides the next step."""
        return int(importlib.import_module("mujoco").mjtState.mjSTATE_INTEGRATION)


class Vectors(Simulator):
    """One task of dm_control's suite in numbers: a Simulator in rows, without a picture. It needs no OpenGL.

    Rows hold the suite's own observation by its names, float32; what is a scalar there has shape (), all else is flat.
    Args: as for Simulator. Source: DreamerV3, authors' code embodied/envs/dmc.py (proprioceptive control).
    """

    def __init__(self, task: str, *, action_repeat: int, time_limit_env_steps: int):
        super().__init__(task, action_repeat=action_repeat, time_limit_env_steps=time_limit_env_steps)
        self.obs_spec = {name: ArraySpec(value.shape, "float32") for name, value in self._numbers().items()}

    def reset(self, seed: np.random.SeedSequence) -> Row:
        self.restart(seed)
        return make_row(self._numbers(), 0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        reward, last, terminal, env_steps = self.advance(action)
        return make_row(self._numbers(), reward, first=False, last=last, terminal=terminal, env_steps=env_steps)

    def _numbers(self) -> dict[str, np.ndarray]:
        seen = self._env.task.get_observation(self._env.physics)
        return {name: self._number(value) for name, value in seen.items()}

    @staticmethod
    def _number(value) -> np.ndarray:
        value = np.array(value, np.float32)  # a copy: some are views of the physics
        return value if value.ndim == 0 else value.reshape(-1)


class DMC(Simulator):
    """One task of dm_control's suite, seen as an image: a Simulator with a camera, in rows.

    Args:
      task, action_repeat, time_limit_env_steps: as for Simulator. The image is drawn once per decision, at its end.
      size: height and width of the image, pixels.
      camera: number of the camera in the task's model; -1 is the free camera.
      shadow_size: width of the shadow map, pixels. None keeps the suite's 2048; 512 draws three times as fast in
        software and moves a few pixels at the edges of shadows.
      states: rows also hold `observation`, each entry under "state/NAME". For diagnostics: no agent here looks at it.
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
        states: bool = False,
    ):
        gl.prepare()  # says what is missing, before anything is loaded
        super().__init__(task, action_repeat=action_repeat, time_limit_env_steps=time_limit_env_steps)
        self._states = states
        self._camera = self._make_camera(size, camera, shadow_size)
        shapes = {name: value.shape for name, value in self._state_rows().items()}
        self.obs_spec = {
            "image": ArraySpec((size, size, 3), "uint8"),
            **{name: ArraySpec(shape, "float64") for name, shape in shapes.items()},
        }

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
        self.restart(seed)
        return make_row(self._draw(), 0.0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action: np.ndarray) -> Row:
        reward, last, terminal, env_steps = self.advance(action)
        return make_row(self._draw(), reward, first=False, last=last, terminal=terminal, env_steps=env_steps)

    def replay(self, seed: np.random.SeedSequence, actions: np.ndarray) -> Row:
        """The row that reset(seed) and step through actions (T, A) lead to, drawing only that row."""
        if len(actions) == 0:
            return self.reset(seed)
        self.restart(seed)
        for action in actions[:-1]:
            self.advance(action)
        return self.step(actions[-1])

    def close(self) -> None:
        """Free the simulator and its OpenGL context now: at the interpreter's exit it would be too late for OSMesa."""
        self._camera = None
        super().close()

    def _draw(self) -> dict[str, np.ndarray]:
        return {"image": np.array(self._camera.render()), **self._state_rows()}  # a copy: the camera has one buffer

    def _state_rows(self) -> dict[str, np.ndarray]:
        if not self._states:
            return {}
        return {f"state/{name}": value for name, value in self.observation().items()}
