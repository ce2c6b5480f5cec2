"""Several tasks in turn behind the interface of one environment: what one agent for all tasks lives in.

Source: PlaNet, Appendix C; authors' code control/wrappers.py:397-426 (actions padded to the largest box and cut per
task; images alone tell the tasks apart). Read suite.py for how one task is made.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from shared.envs.spec import ActSpec, Env, ObsSpec, Row, check_action
from shared.errors import UserError


def common_specs(makes: Mapping[str, Callable[[], Env]]) -> tuple[ObsSpec, ActSpec]:
    """What all tasks show, and the action that all can be driven with: as long as the longest.

    makes: task -> what makes it; each environment is made once, and freed.
    Raises:
      UserError: the tasks show different things, or one takes discrete actions, which cannot be padded.
    """
    shown, sizes = {}, []
    for task, make in makes.items():
        env = make()
        shown[task] = dict(env.obs_spec)
        sizes.append(env.act_spec.size)
        discrete = env.act_spec.discrete
        env.close()
        first = next(iter(shown))
        if discrete:
            raise UserError(f"one agent for all tasks: {task!r} takes discrete actions; leave it out of joint_tasks")
        if shown[task] != shown[first]:
            raise UserError(
                f"one agent for all tasks: {task!r} shows {shown[task]}, {first!r} shows {shown[first]}; leave one of "
                "them out of joint_tasks"
            )
    return shown[first], ActSpec(max(sizes))


class Joint:
    """One of several tasks per episode; an environment is made when its task first comes up.

    Args:
      makes: one maker per task; all show the same observations.
      specs: of `common_specs`; a task takes the first entries of an action and ignores the rest.

    Episode k is of task k mod n, by the seed that vector.py gives it, whose spawn key ends in k. So several
    environments that are reset together play one task side by side, and n such rounds test every task.
    """

    def __init__(self, makes: Sequence[Callable[[], Env]], specs: tuple[ObsSpec, ActSpec]):
        self._makes = list(makes)
        self._envs: dict[int, Env] = {}
        self._env: Env | None = None  # of the running episode
        self.obs_spec, self.act_spec = specs

    def reset(self, seed: np.random.SeedSequence) -> Row:
        self._choose(seed)
        return self._env.reset(seed)

    def step(self, action: np.ndarray) -> Row:
        if self._env is None:
            raise ValueError("Joint: no episode is running; call reset first")
        action = check_action("Joint.step", action, (self.act_spec.size,))
        return self._env.step(action[: self._env.act_spec.size])

    def replay(self, seed: np.random.SeedSequence, actions: np.ndarray) -> Row:
        """The row that reset(seed) and step through actions (T, A) lead to."""
        self._choose(seed)
        actions = actions[:, : self._env.act_spec.size]
        if hasattr(self._env, "replay"):
            return self._env.replay(seed, actions)
        row = self._env.reset(seed)
        for action in actions:
            row = self._env.step(action)
        return row

    def close(self) -> None:
        envs, self._envs, self._env = self._envs, {}, None
        for env in envs.values():
            env.close()

    def _choose(self, seed: np.random.SeedSequence) -> None:
        task = seed.spawn_key[-1] % len(self._makes)
        if task not in self._envs:
            self._envs[task] = self._makes[task]()
        self._env = self._envs[task]
