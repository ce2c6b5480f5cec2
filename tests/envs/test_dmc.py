"""dm_control as pixels: against dm_control itself driven by a plain loop, and the ends of episodes."""

import numpy as np
import pytest

from shared.envs.dmc import DMC, tasks
from shared.envs.spec import ROW_DTYPES
from shared.errors import UserError

PLANET = {  # task: action repeat (authors' code, scripts/tasks.py, last commit)
    "cartpole_swingup": 8,
    "reacher_easy": 4,
    "cheetah_run": 4,
    "finger_spin": 2,
    "cup_catch": 4,
    "walker_walk": 2,
}
SEED = np.random.SeedSequence(5, spawn_key=(1, 2))

pytestmark = pytest.mark.usefixtures("renderer")


@pytest.fixture
def make():
    """DMC with small defaults; closed at the end of the test."""
    opened = []

    def make(task="cartpole_swingup", **changes):
        settings = {"size": 64, "camera": 0, "action_repeat": 2, "time_limit_env_steps": 1000, "shadow_size": 64}
        opened.append(DMC(task, **{**settings, **changes}))
        return opened[-1]

    yield make
    for env in opened:
        env.close()


def actions(env, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, env.act_spec.size)).astype(np.float32)


def play(env, seed, count=2):
    return [env.reset(seed), *(env.step(action) for action in actions(env, count))]


def assert_same_rows(rows, others):
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            np.testing.assert_array_equal(row[key], other[key], err_msg=key)


def plain(task):
    """dm_control's own environment, in the first state of SEED."""
    from dm_control import suite

    domain, name = tasks()[{"cup_catch": "ball_in_cup_catch"}.get(task, task)]
    env = suite.load(domain, name, task_kwargs={"random": np.random.RandomState(SEED.generate_state(8))})
    env.reset()
    return env


@pytest.mark.property("D2")
@pytest.mark.parametrize("task", PLANET)
def test_rows_equal_a_plain_loop_over_dm_control_to_the_bit(task, make):
    # The oracle: a new environment, physics.render at each image, rewards added up by hand. Ours was used before.
    env, oracle = make(task, action_repeat=PLANET[task], shadow_size=None), plain(task)
    play(env, np.random.SeedSequence(99), 1)
    row = env.reset(SEED)
    np.testing.assert_array_equal(row["image"], oracle.physics.render(64, 64, camera_id=0))
    for action in actions(env, 2):
        row = env.step(action)
        reward = sum(oracle.step(action).reward for _ in range(PLANET[task]))
        np.testing.assert_array_equal(row["image"], oracle.physics.render(64, 64, camera_id=0))
        assert row["reward"] == np.float32(reward)
        assert row["env_steps"] == PLANET[task]
    oracle.physics.free()


@pytest.mark.parametrize("task", PLANET)
def test_planets_episodes_have_1000_env_steps(task, make):
    env = make(task, action_repeat=PLANET[task])
    decisions = 1000 // PLANET[task]
    assert decisions * PLANET[task] == 1000
    chosen = actions(env, decisions)
    assert not env.replay(SEED, chosen[:-1])["is_last"]
    row = env.step(chosen[-1])
    assert row["is_last"] and not row["is_terminal"] and row["env_steps"] == PLANET[task]


def test_the_limit_counts_whole_decisions(make):
    env = make(action_repeat=6)  # 166 decisions = 996 env steps
    assert not env.replay(SEED, actions(env, 165))["is_last"]
    row = env.step(np.zeros(1))
    assert row["is_last"] and row["env_steps"] == 6


def test_dm_controls_own_limit_ends_the_episode_inside_a_repeat_and_is_not_terminal(make):
    env = make(action_repeat=7, time_limit_env_steps=5000)  # 142 * 7 = 994, so the 143rd decision has 6 steps
    assert not env.replay(SEED, actions(env, 142))["is_last"]
    row = env.step(np.zeros(1))
    assert row["is_last"] and not row["is_terminal"] and row["env_steps"] == 6


@pytest.mark.parametrize(("discount", "terminal"), [(0.0, True), (1.0, False)])
def test_only_a_discount_of_zero_is_terminal(make, monkeypatch, discount, terminal):
    env = make(action_repeat=4)
    env.reset(SEED)
    steps = iter([None, None, None, None, None, discount])  # ends in the second of the second decision's steps
    monkeypatch.setattr(env._env.task, "get_termination", lambda physics: next(steps))
    assert not env.step(np.zeros(1))["is_last"]
    row = env.step(np.zeros(1))
    assert row["is_last"] and row["is_terminal"] == terminal and row["env_steps"] == 2


@pytest.mark.property("D2")
def test_the_repeat_is_whole_again_after_an_episode_that_ended_inside_one(make):
    env = make(action_repeat=8, time_limit_env_steps=2000)
    env._env._step_limit = 12
    env.reset(SEED)
    assert [int(env.step(np.zeros(1))["env_steps"]) for _ in range(2)] == [8, 4]
    env._env._step_limit = 1000
    assert_same_rows(play(env, SEED), play(make(action_repeat=8), SEED))


def test_rows_obey_the_convention(make):
    env = make(time_limit_env_steps=6)
    rows = play(env, SEED, 3)
    assert [bool(row["is_first"]) for row in rows] == [True, False, False, False]
    assert [bool(row["is_last"]) for row in rows] == [False, False, False, True]
    assert rows[0]["reward"] == 0 and rows[0]["env_steps"] == 0
    for row in rows:
        assert {key: str(row[key].dtype) for key in ROW_DTYPES} == ROW_DTYPES
        image = row["image"]
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert not np.shares_memory(rows[0]["image"], rows[1]["image"])
    with pytest.raises(ValueError, match="'cartpole_swingup': the episode is over; call reset first"):
        env.step(np.zeros(1))


@pytest.mark.parametrize(
    "task",  # one of each domain whose tasks write into the model at the start of an episode
    [
        "finger_turn_hard",
        "fish_swim",
        "manipulator_insert_peg",
        "point_mass_hard",
        "quadruped_escape",
        "stacker_stack_4",
        "swimmer_swimmer6",
    ],
)
def test_an_episode_leaves_nothing_behind_in_the_model(task, make):
    used = make(task)
    play(used, np.random.SeedSequence(99))
    assert_same_rows(play(make(task), SEED), play(used, SEED))


def test_replay_equals_reset_and_steps(make):
    env = make("reacher_easy")
    chosen = actions(env, 20)
    rows = [env.reset(SEED), *(env.step(action) for action in chosen)]
    for count in (0, 1, 20):
        assert_same_rows([rows[count]], [env.replay(SEED, chosen[:count])])
    following = env.step(chosen[0])
    env.replay(SEED, chosen)
    assert_same_rows([following], [env.step(chosen[0])])


def test_another_seed_is_another_episode(make):
    env = make("reacher_easy")
    images = [env.reset(np.random.SeedSequence(0, spawn_key=key))["image"] for key in ((0, 0), (0, 1), (1, 0))]
    assert len({image.tobytes() for image in images}) == 3


def test_a_small_shadow_map_moves_few_pixels(make):
    full, small = make("walker_walk", shadow_size=None), make("walker_walk", shadow_size=512)
    for row, other in zip(play(full, SEED, 6), play(small, SEED, 6), strict=True):
        assert row["reward"] == other["reward"]
        difference = np.abs(row["image"].astype(int) - other["image"].astype(int))
        assert difference.mean() < 0.1 and (difference.max(-1) > 10).mean() < 0.01


def test_the_box_of_quadruped_is_reached_at_plus_and_minus_one(make):
    env = make("quadruped_walk")
    box = env._env.action_spec()
    assert box.maximum.max() == pytest.approx(1.1) and box.minimum.max() == pytest.approx(-0.8)
    for action, bound in ((1.0, box.maximum), (-1.0, box.minimum), (0.0, (box.maximum + box.minimum) / 2)):
        env.reset(SEED)
        env.step(np.full(env.act_spec.size, action))
        np.testing.assert_allclose(env._env.physics.control(), bound, atol=1e-12)


@pytest.mark.parametrize("value", [1.5, np.nan])
def test_an_impossible_action_is_refused(make, value):
    env = make()
    env.reset(SEED)
    with pytest.raises(ValueError, match="'cartpole_swingup': action .* outside"):
        env.step(np.array([value]))


def test_unbounded_actions_are_refused(make):
    with pytest.raises(UserError, match="'lqr_lqr_2_1' takes unbounded actions"):
        make("lqr_lqr_2_1")


def test_a_camera_that_is_not_there_is_refused(make):
    with pytest.raises(UserError, match="'cartpole_swingup': no camera 7; it has 0 to 1"):
        make(camera=7)


@pytest.mark.parametrize("size", [32, 100])
def test_another_size_and_camera_equal_physics_render(make, size):
    env, oracle = make(size=size, camera=1, shadow_size=None), plain("cartpole_swingup")
    np.testing.assert_array_equal(env.reset(SEED)["image"], oracle.physics.render(size, size, camera_id=1))
    oracle.physics.free()


def test_close_may_be_called_twice(make):
    env = make()
    env.close()
    env.close()


@pytest.mark.parametrize("close", ["env.close()", "pass"])
def test_a_process_ends_quietly(python, close):
    code = (
        "from shared.envs.suite import make_env; import numpy as np\n"
        "env = make_env('walker_walk', size=64, camera=0, action_repeat=2, time_limit_env_steps=1000)\n"
        f"env.reset(np.random.SeedSequence(0))\n{close}"
    )
    answer = python(code)
    assert answer.returncode == 0 and answer.stderr == "", answer.stderr


def test_states_are_the_suites_own_observation_and_change_nothing_else(make):
    env, plain_env, oracle = make("reacher_easy", states=True), make("reacher_easy"), plain("reacher_easy")
    rows = play(env, SEED)
    bare = [{key: value for key, value in row.items() if not key.startswith("state/")} for row in rows]
    assert_same_rows(bare, play(plain_env, SEED))
    for row, action in zip(rows, [None, *actions(env, 2)], strict=True):
        seen = oracle.task.get_observation(oracle.physics)
        for _ in range(2 if action is not None else 0):
            seen = oracle.step(action).observation
        assert [key for key in row if key.startswith("state/")] == [f"state/{name}" for name in seen]
        for name, value in seen.items():
            np.testing.assert_array_equal(row[f"state/{name}"], np.ravel(value))
    assert {name: spec.shape for name, spec in env.obs_spec.items()} == {
        "image": (64, 64, 3), "state/position": (2,), "state/to_target": (2,), "state/velocity": (2,)
    }  # fmt: skip
    oracle.physics.free()
