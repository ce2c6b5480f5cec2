"""Crafter: against the package itself, the same in every process, both ends, what is paid, errors, a late import."""

import functools
import sys

import numpy as np
import pytest

from shared.envs.crafter import LEAST_SIZE
from shared.envs.spec import ROW_DTYPES, ActSpec
from shared.envs.suite import libraries, make_env, may_end
from shared.envs.vector import VectorEnv
from shared.errors import UserError

ACTIONS = 17
DO, SLEEP = 5, 6  # in the package's order
SEED = np.random.SeedSequence(1)


def make(size=64, action_repeat=1, time_limit_env_steps=10_000):
    limits = {"action_repeat": action_repeat, "time_limit_env_steps": time_limit_env_steps}
    return make_env("crafter_reward", size=size, camera=0, **limits)


def one_hot(choice):
    return np.eye(ACTIONS, dtype=np.float32)[choice]


def choices(count, seed=0):
    return np.random.default_rng(seed).integers(ACTIONS, size=count)


def play(env, choices, seed=SEED):
    """Rows of one episode, up to its end or as far as the choices go."""
    rows = [env.reset(seed)]
    for choice in choices:
        if rows[-1]["is_last"]:
            break
        rows.append(env.step(one_hot(choice)))
    return rows


@pytest.fixture(scope="module")
def life():
    """An episode that is played at random until the player dies."""
    return play(make(), choices(2000))


def test_rows_have_the_packages_own_pictures_and_rewards(life):
    package = pytest.importorskip("crafter")
    env = package.Env(size=(64, 64), seed=int(SEED.generate_state(1)[0]))
    np.testing.assert_array_equal(life[0]["image"], env.reset())
    for row, choice in zip(life[1:10], choices(9), strict=True):  # from the tenth step on creatures come and go
        image, reward, _, _ = env.step(choice)
        np.testing.assert_array_equal(row["image"], image)
        assert row["reward"] == np.float32(reward)


def test_rows_obey_the_convention_and_a_picture_is_nine_cells_wide(life):
    env = make()
    assert env.act_spec == ActSpec(ACTIONS, discrete=True) and env.obs_spec["image"].shape == (64, 64, 3)
    for row in life:
        assert {key: str(row[key].dtype) for key in ROW_DTYPES} == ROW_DTYPES
        assert row["image"].shape == (64, 64, 3) and row["image"].dtype == np.uint8
    image = life[0]["image"]
    assert not image[63].any() and not image[:, 63].any()  # 9 cells of 7 pixels
    assert image[:49, :63].any(-1).all() and not image[49:, :63].any(-1).all()  # the world, and below it the inventory
    assert [row["is_first"].item() for row in life] == [True] + [False] * (len(life) - 1)
    assert [int(row["env_steps"]) for row in life] == [0] + [1] * (len(life) - 1)


def test_an_episode_is_a_function_of_its_seed_also_in_another_process_and_after_a_stop(life):
    """Creatures come and go every tenth step, in the package by their addresses in memory; see order_creatures."""
    make_one = functools.partial(make, time_limit_env_steps=10_000)
    stop, end = 60, len(life) - 1
    drawn = one_hot(choices(2000))[:, None]
    here, there = VectorEnv(make_one, 1, SEED), VectorEnv(make_one, 1, SEED, workers=1)
    try:
        here.reset()
        for action in drawn[:stop]:
            here.step(action)
        there.load(here.save())
        for action in drawn[stop:end]:
            one, other = here.step(action), there.step(action)
            assert all(np.array_equal(one[key], other[key]) for key in one)
            if one["is_last"].all():
                break
    finally:
        here.close(), there.close()


def test_another_seed_is_another_world(life):
    assert not np.array_equal(make().reset(np.random.SeedSequence(2))["image"], life[0]["image"])


def test_death_is_terminal_and_costs_what_health_was_left(life):
    assert len(life) < 2000 and [bool(row["is_terminal"]) for row in life] == [False] * (len(life) - 1) + [True]
    assert life[-1]["is_last"] and not any(row["is_last"] for row in life[:-1])
    # nine of nine health are lost at a tenth each, some of it after it had come back; beside that whole achievements
    total = sum(float(row["reward"]) for row in life)
    assert total + 0.9 == pytest.approx(round(total + 0.9), abs=1e-5)


def test_a_time_limit_is_no_end_of_the_world():
    env = make(action_repeat=2, time_limit_env_steps=7)
    rows = play(env, [SLEEP] * 10)
    assert [bool(row["is_last"]) for row in rows] == [False, False, False, True]
    assert not rows[-1]["is_terminal"] and [int(row["env_steps"]) for row in rows] == [0, 2, 2, 2]
    with pytest.raises(ValueError, match="call reset first"):
        env.step(one_hot(0))


def test_a_repeat_applies_the_action_again_adds_rewards_and_stops_at_death():
    repeated = play(make(action_repeat=3), choices(500))
    single = play(make(), choices(500).repeat(3))
    lengths = [int(row["env_steps"]) for row in repeated]
    assert sum(lengths) == len(single) - 1 and set(lengths[1:-1]) == {3} and lengths[-1] < 3
    for row, arrived in zip(repeated, np.cumsum(lengths), strict=True):
        np.testing.assert_array_equal(row["image"], single[arrived]["image"])
    totals = [sum(float(row["reward"]) for row in rows) for rows in (repeated, single)]
    assert totals[0] == pytest.approx(totals[1], abs=1e-5) and repeated[-1]["is_terminal"]


def test_an_achievement_is_paid_when_it_is_unlocked_and_not_again():
    """The player faces grass, which gives a sapling one time in ten."""
    env = make()
    rows = play(env, [DO] * 60)
    assert [float(row["reward"]) for row in rows].count(1.0) == 1
    assert env._env._player.achievements["collect_sapling"] > 1


def test_a_size_that_has_no_room_for_digits_is_refused():
    assert make(size=LEAST_SIZE).reset(SEED)["image"].shape == (LEAST_SIZE, LEAST_SIZE, 3)
    with pytest.raises(UserError, match=f"size {LEAST_SIZE - 1}; take at least {LEAST_SIZE} pixels"):
        make(size=LEAST_SIZE - 1)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(ACTIONS), "not one-hot"),
        (np.full(ACTIONS, 1.0), "not one-hot"),
        (np.eye(6)[0], "expected"),
        (2 * np.eye(ACTIONS)[0], "outside"),
    ],
)
def test_a_wrong_action_is_refused(action, message):
    with pytest.raises(ValueError, match=message):
        make().step(action)


def test_an_episode_that_has_not_begun_takes_no_action():
    with pytest.raises(ValueError, match="call reset first"):
        make().step(one_hot(0))


def test_what_a_run_must_know_of_it():
    assert may_end("crafter_reward")
    assert libraries("crafter_reward") == ("crafter", "opensimplex", "pillow")


def test_the_package_is_imported_when_an_environment_is_made(python):
    sizes = {"size": 64, "camera": 0, "action_repeat": 1, "time_limit_env_steps": 100}
    code = (
        "import sys; from shared.envs.suite import check_task, make_env; check_task('crafter_reward');"
        f"make_env('toy_reach', **{sizes}); print('crafter' in sys.modules); make_env('crafter_reward', **{sizes});"
        "names = ('crafter', 'dm_control', 'mujoco', 'OpenGL', 'ale_py', 'torch', 'jax');"
        "print([name for name in names if name in sys.modules])"
    )
    answer = python(code, MUJOCO_GL="off")
    assert answer.stdout.split("\n")[:2] == ["False", "['crafter']"], answer.stderr


@pytest.mark.parametrize("missing", ["crafter", "opensimplex"])
def test_without_the_package_it_is_told_how_to_install_it(monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == "crafter"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"needs the package crafter, and {missing} is not installed; `make env`"):
        make()
