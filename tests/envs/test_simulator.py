"""dm_control without a picture: copies of a running episode earn what the episode earns, to the bit."""

import numpy as np
import pytest

from shared.envs.dmc import Simulator
from shared.errors import UserError
from tests.envs.test_dmc import PLANET, SEED, actions


@pytest.fixture
def simulator():
    """Simulators of one task; closed at the end of the test."""
    opened = []

    def make(task, **changes):
        settings = {"action_repeat": PLANET.get(task, 2), "time_limit_env_steps": 1000, **changes}
        opened.append(Simulator(task, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.mark.property("D2")
@pytest.mark.parametrize("task", PLANET)
def test_a_copy_earns_exactly_what_the_episode_earns(task, simulator):
    # The copy was used for another episode and for other plans, and gets the state in the middle of this episode.
    real, copy = simulator(task), simulator(task)
    copy.restart(np.random.SeedSequence(99))
    copy.rewards(copy.state(), actions(copy, 3, seed=1))
    for one in (real, copy):
        one.restart(SEED)
    chosen = actions(real, 60)
    for action in chosen[:5]:
        real.advance(action)
    state = real.state()
    copy.rewards(state, actions(copy, 4, seed=2))
    expected = [real.advance(action)[0] for action in chosen[5:]]
    np.testing.assert_array_equal(copy.rewards(state, chosen[5:]), expected)
    np.testing.assert_array_equal(copy.state(), real.state())


def test_the_state_alone_is_no_copy_where_a_task_writes_into_its_model(simulator):
    real, other = simulator("reacher_easy"), simulator("reacher_easy")  # the target lies in the model
    real.restart(SEED)
    other.restart(np.random.SeedSequence(99))
    state, chosen = real.state(), actions(real, 3)
    for action in chosen:
        real.advance(action)
    other.rewards(state, chosen)
    np.testing.assert_array_equal(other.state(), real.state())
    assert not np.array_equal(other.observation()["to_target"], real.observation()["to_target"])
    other.restart(SEED)
    other.rewards(state, chosen)
    np.testing.assert_array_equal(other.observation()["to_target"], real.observation()["to_target"])


def test_rewards_do_not_look_at_the_clock(simulator):
    real, copy = simulator("cartpole_swingup", time_limit_env_steps=16), simulator("cartpole_swingup")
    for one in (real, copy):
        one.restart(SEED)
    chosen = actions(real, 200)
    earned = real.rewards(copy.state(), chosen)
    assert (earned > 0).all()  # 1600 env steps: beyond dm_control's own limit as well
    with pytest.raises(ValueError, match="the episode is over"):
        real.advance(chosen[0])


def test_nothing_is_earned_after_a_termination_and_nothing_is_known_after_a_breakdown(simulator, monkeypatch):
    from dm_control.rl.control import PhysicsError

    copy = simulator("cartpole_swingup", action_repeat=2)
    copy.restart(SEED)
    state, chosen = copy.state(), actions(copy, 4)
    whole = copy.rewards(state, chosen)
    ends = iter([None, None, 0.0])
    with monkeypatch.context() as patch:
        patch.setattr(copy._env.task, "get_termination", lambda physics: next(ends))
        earned = copy.rewards(state, chosen)
    assert earned[0] == whole[0] and 0 < earned[1] < whole[1] and (earned[2:] == 0).all()
    steps = iter([None, None, PhysicsError("bad state")])

    def breaks(physics):
        if next(steps) is not None:
            raise PhysicsError("bad state")

    with monkeypatch.context() as patch:
        patch.setattr(copy._env.task, "after_step", breaks)
        earned = copy.rewards(state, chosen)
    assert earned[0] == whole[0] and np.isnan(earned[1:]).all()
    np.testing.assert_array_equal(copy.rewards(state, chosen), whole)


@pytest.mark.parametrize("task", ["toy_reach", "cartpole_swing"])
def test_a_task_without_physics_is_refused(task):
    with pytest.raises(UserError, match=f"{task!r} is none of dm_control's suite"):
        Simulator(task, action_repeat=1, time_limit_env_steps=10)


@pytest.mark.parametrize("lost", ["os.environ['MUJOCO_GL'] = 'off'", "gl.PROBES = dict.fromkeys(gl.PROBES, str)"])
def test_a_simulator_needs_no_opengl(python, lost):
    # str() is "", a reason and not None: no backend answers.
    code = (
        f"import os, numpy as np\nfrom shared.envs import dmc, gl\n{lost}\nwanted = os.environ.get('MUJOCO_GL')\n"
        "one = dmc.Simulator('cheetah_run', action_repeat=4, time_limit_env_steps=8)\n"
        "one.restart(np.random.SeedSequence(0)); print(one.advance(np.ones(6))[3])\n"
        "assert os.environ.get('MUJOCO_GL') == wanted\n"
        "try: dmc.DMC('cheetah_run', size=64, camera=0, action_repeat=4, time_limit_env_steps=8)\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    answer = python(code, MUJOCO_GL=None)
    assert answer.stdout.split() == ["4", "UserError"], answer.stderr
