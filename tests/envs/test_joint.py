"""Several tasks behind one environment: which task comes when, padded actions, and the same rows as the tasks alone."""

import functools

import numpy as np
import pytest

from shared.envs.joint import Joint, common_specs
from shared.envs.spec import ActSpec, ArraySpec, make_row
from shared.envs.suite import make_env
from shared.envs.vector import VectorEnv
from shared.errors import UserError

LIMITS = {"size": 64, "camera": 0, "action_repeat": 2, "time_limit_env_steps": 8}
SEED = np.random.SeedSequence(3)


class Narrow:
    """One action entry; its image shows the number of its task, its reward is the action it was given."""

    def __init__(self, number=7, discrete=False, size=2):
        self.obs_spec = {"image": ArraySpec((size, size, 3), "uint8")}
        self.act_spec = ActSpec(1, discrete)
        self.number, self.size = number, size
        self.closed = 0

    def _row(self, reward, **flags):
        image = np.full((self.size, self.size, 3), self.number, np.uint8)
        return make_row({"image": image}, reward, last=False, terminal=False, **flags)

    def reset(self, seed):
        return self._row(0.0, first=True, env_steps=0)

    def step(self, action):
        assert action.shape == (1,)
        return self._row(action[0], first=False, env_steps=1)

    def close(self):
        self.closed += 1


def toys():
    return {task: functools.partial(make_env, task, **LIMITS) for task in ("toy_reach", "toy_terminal")}


def join(makes):
    """What makes an environment of these tasks."""
    return functools.partial(Joint, list(makes.values()), common_specs(makes))


def test_tasks_come_in_turn_and_environments_that_are_reset_together_play_the_same():
    envs = VectorEnv(join({str(number): functools.partial(Narrow, number) for number in range(3)}), 2, SEED)
    assert [envs.reset()["image"][:, 0, 0, 0].tolist() for _ in range(5)] == [[k, k] for k in (0, 1, 2, 0, 1)]


def test_actions_are_as_long_as_the_longest_and_cut_per_task():
    makes = {"toy_reach": toys()["toy_reach"], "narrow": functools.partial(Narrow, size=64)}
    assert common_specs(makes)[1] == ActSpec(2)
    env = join(makes)()
    env.reset(np.random.SeedSequence(0, spawn_key=(0, 1)))
    assert env.step(np.array([0.25, -1.0], np.float32))["reward"] == 0.25  # the second entry goes nowhere
    with pytest.raises(ValueError, match=r"Joint.step: action has shape \(1,\), expected \(2,\)"):
        env.step(np.zeros(1, np.float32))


def test_rows_are_those_of_the_task_alone_and_a_resumed_run_goes_on():
    makes = toys()
    joint = VectorEnv(join(makes), 1, SEED)
    alone = [VectorEnv(make, 1, SEED) for make in makes.values()]
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 1, 2)).astype(np.float32)
    for episode in range(4):
        expected = alone[episode % 2]
        for env in alone:  # they count their episodes too
            env.reset()
        got = joint.reset()
        wanted = expected.load(expected.save())
        for action in actions[:3]:
            for name in wanted:
                np.testing.assert_array_equal(got[name], wanted[name])
            got, wanted = joint.step(action), expected.step(action)
    state = joint.save()
    resumed = VectorEnv(join(makes), 1, SEED)
    rows = resumed.load(state)
    for name in got:
        np.testing.assert_array_equal(rows[name], got[name])
    np.testing.assert_array_equal(resumed.step(actions[3])["image"], joint.step(actions[3])["image"])


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(UserError, match="'b' takes discrete actions; leave it out of joint_tasks"):
        common_specs({"a": Narrow, "b": functools.partial(Narrow, discrete=True)})
    with pytest.raises(UserError, match=r"'b' shows .*\(4, 4, 3\).*'a' shows .*leave one"):
        common_specs({"a": Narrow, "b": functools.partial(Narrow, size=4)})


def test_environments_are_made_when_their_task_comes_up_and_all_are_freed():
    made = []

    def make(number):
        made.append(Narrow(number))
        return made[-1]

    makes = join({str(number): functools.partial(make, number) for number in range(3)})
    made.clear()
    env = makes()
    assert not made
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.zeros(1, np.float32))
    for episode in (0, 2, 3):
        env.reset(np.random.SeedSequence(0, spawn_key=(0, episode)))
    assert [one.number for one in made] == [0, 2]
    env.close()
    env.close()
    assert [one.closed for one in made] == [1, 1]
