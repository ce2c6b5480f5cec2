"""dm_control in numbers: against dm_control itself driven by a plain loop, without any OpenGL."""

import numpy as np
import pytest

from shared.envs.dmc import Vectors
from shared.envs.spec import ROW_DTYPES
from shared.envs.suite import make_env
from shared.errors import UserError

SIZES = {"size": 64, "camera": 0, "observations": "vectors"}
SEED = np.random.SeedSequence(5, spawn_key=(1, 2))
# Section 1.1 of the sheet; numbers that an agent sees, counted by hand in dm_control's tasks.
PROPRIO = {
    "acrobot_swingup": 6,
    "cup_catch": 8,
    "cartpole_balance": 5,
    "cartpole_balance_sparse": 5,
    "cartpole_swingup": 5,
    "cartpole_swingup_sparse": 5,
    "cheetah_run": 17,
    "finger_spin": 9,
    "finger_turn_easy": 12,
    "finger_turn_hard": 12,
    "hopper_hop": 15,
    "hopper_stand": 15,
    "pendulum_swingup": 3,
    "reacher_easy": 6,
    "reacher_hard": 6,
    "walker_run": 24,
    "walker_stand": 24,
    "walker_walk": 24,
}


def make(task="walker_walk", action_repeat=2, time_limit_env_steps=1000):
    return make_env(task, action_repeat=action_repeat, time_limit_env_steps=time_limit_env_steps, **SIZES)


def plain(domain, task):
    """dm_control's own environment, in the first state of SEED."""
    from dm_control import suite

    return suite.load(domain, task, task_kwargs={"random": np.random.RandomState(SEED.generate_state(8))})


@pytest.mark.parametrize(("task", "numbers"), PROPRIO.items())
def test_every_proprioceptive_task_shows_its_numbers_and_no_image(task, numbers):
    env = make(task)
    row = env.reset(SEED)
    assert sum(int(np.prod(spec.shape)) for spec in env.obs_spec.values()) == numbers
    assert row.keys() == env.obs_spec.keys() | ROW_DTYPES.keys()
    for name, spec in env.obs_spec.items():
        assert (row[name].shape, str(row[name].dtype)) == (spec.shape, spec.dtype) and spec.dtype == "float32"
    env.close()


def test_rows_are_dm_controls_own_observations_rewards_and_ends():
    env, oracle = make("walker_walk", time_limit_env_steps=1000), plain("walker", "walk")
    assert {name: spec.shape for name, spec in env.obs_spec.items()} == {
        "orientations": (14,), "height": (), "velocity": (9,)
    }  # fmt: skip
    row, seen, reward = env.reset(SEED), oracle.reset().observation, 0.0
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 6)).astype(np.float32):
        for name, value in seen.items():
            np.testing.assert_array_equal(row[name], np.float32(value), err_msg=name)
        np.testing.assert_array_equal(row["reward"], np.float32(reward))
        row, arrived = env.step(action), [oracle.step(action) for _ in range(2)]
        seen, reward = arrived[-1].observation, sum(step.reward for step in arrived)
    env.close()
    oracle.physics.free()


def test_the_time_limit_is_no_terminal_state():
    env = make("pendulum_swingup", action_repeat=4, time_limit_env_steps=10)
    env.reset(SEED)
    rows = [env.step(np.zeros(1)) for _ in range(2)]
    assert [bool(row["is_last"]) for row in rows] == [False, True] and not rows[-1]["is_terminal"]
    env.close()


def test_rows_do_not_change_afterwards():
    env = make("cheetah_run")
    row = env.reset(SEED)
    before = {key: value.copy() for key, value in row.items()}
    for _ in range(3):
        env.step(np.ones(6))
    for key, value in before.items():
        np.testing.assert_array_equal(row[key], value, err_msg=key)
    env.close()


def test_an_episode_is_a_function_of_its_seed_and_actions():
    used, new = make("reacher_easy"), make("reacher_easy")
    used.reset(np.random.SeedSequence(77))
    for _ in range(4):
        used.step(np.ones(2))
    for row, other in zip(*[[env.reset(SEED), env.step(np.ones(2))] for env in (used, new)], strict=True):
        for key in row:
            np.testing.assert_array_equal(row[key], other[key], err_msg=key)
    used.close()
    new.close()


def test_no_renderer_is_needed(python):
    code = (
        "import sys, numpy as np\nfrom shared.envs.suite import make_env\n"
        f"env = make_env('cartpole_swingup', action_repeat=2, time_limit_env_steps=1000, **{SIZES})\n"
        "print(sorted(env.reset(np.random.SeedSequence(0)))[:3])"
    )
    answer = python(code, MUJOCO_GL="off")
    assert answer.stdout.strip() == "['env_steps', 'is_first', 'is_last']", answer.stderr


def test_a_task_with_unbounded_actions_is_refused():
    with pytest.raises(UserError, match="unbounded actions"):
        Vectors("lqr_lqr_2_1", action_repeat=1, time_limit_env_steps=100)
