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
    return [functools.partial(make_env, task, **LIMITS) for task in ("toy_reach", "toy_terminal")]


def narrow_ones(count=3):
    return [functools.partial(Narrow, number) for number in range(count)]


def tasks_of(turn, count, resets):
    """The number of the task that every environment shows, per reset."""
    makes = narrow_ones()
    specs = common_specs(makes)
    envs = VectorEnv(functools.partial(Joint, makes, specs, turn=turn), count, SEED)
    return [envs.reset()["image"][:, 0, 0, 0].tolist() for _ in range(resets)]


def test_training_plays_the_tasks_in_turn():
    assert tasks_of("episode", 1, 5) == [[0], [1], [2], [0], [1]]


def test_evaluation_gives_each_environment_one_task_for_good():
    assert tasks_of("environment", 6, 3) == [[0, 1, 2, 0, 1, 2]] * 3


def test_actions_are_as_long_as_the_longest_and_cut_per_task():
    makes = [*toys()[:1], functools.partial(Narrow, size=64)]
    specs = common_specs(makes)
    assert specs[1] == ActSpec(2)
    env = Joint(makes, specs, turn="episode")
    env.reset(np.random.SeedSequence(0, spawn_key=(0, 1)))
    assert env.step(np.array([0.25, -1.0], np.float32))["reward"] == 0.25  # the second entry goes nowhere
    with pytest.raises(ValueError, match=r"Joint.step: action has shape \(1,\), expected \(2,\)"):
        env.step(np.zeros(1, np.float32))


def test_rows_are_those_of_the_task_alone_and_a_resumed_run_goes_on():
    makes = toys()
    joint = VectorEnv(functools.partial(Joint, makes, common_specs(makes), turn="episode"), 1, SEED)
    alone = [VectorEnv(make, 1, SEED) for make in makes]
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
    resumed = VectorEnv(functools.partial(Joint, makes, common_specs(makes), turn="episode"), 1, SEED)
    rows = resumed.load(state)
    for name in got:
        np.testing.assert_array_equal(rows[name], got[name])
    np.testing.assert_array_equal(resumed.step(actions[3])["image"], joint.step(actions[3])["image"])


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(UserError, match="task 2 takes discrete actions"):
        common_specs([Narrow, functools.partial(Narrow, discrete=True)])
    with pytest.raises(UserError, match=r"task 2 shows .*\(4, 4, 3\).*the first"):
        common_specs([Narrow, functools.partial(Narrow, size=4)])


def test_environments_are_made_when_their_task_comes_up_and_all_are_freed():
    made = []

    def make(number):
        made.append(Narrow(number))
        return made[-1]

    makes = [functools.partial(make, number) for number in range(3)]
    specs = common_specs(makes)
    made.clear()
    env = Joint(makes, specs, turn="episode")
    assert not made
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.zeros(1, np.float32))
    for episode in (0, 2, 3):
        env.reset(np.random.SeedSequence(0, spawn_key=(0, episode)))
    assert [one.number for one in made] == [0, 2]
    env.close()
    env.close()
    assert [one.closed for one in made] == [1, 1]
