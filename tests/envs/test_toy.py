"""The toy tasks: hand-checked motion, reward and picture; the row convention; both ways to end."""

import numpy as np
import pytest

from shared.envs.spec import ROW_DTYPES
from shared.envs.suite import make_env


def make(task="toy_reach", size=64, action_repeat=2, time_limit_env_steps=20):
    limits = {"action_repeat": action_repeat, "time_limit_env_steps": time_limit_env_steps}
    return make_env(task, size=size, camera=0, **limits)


def centre_of_red(image):
    """Where the dot is, in the arena's coordinates, from the picture."""
    red = image[..., 0].astype(float)
    axis = (np.arange(len(red)) + 0.5) / len(red) * 2 - 1
    return np.array([(red.sum(0) * axis).sum(), -(red.sum(1) * axis).sum()]) / red.sum()


def test_one_decision_by_hand():
    # The action (1, 0) moves the dot by 2 * 0.04 to the right; each of the two steps earns 1 - distance / sqrt(2).
    env = make()
    start = centre_of_red(env.reset(np.random.SeedSequence(0))["image"])
    row = env.step(np.array([1.0, 0.0]))
    np.testing.assert_allclose(centre_of_red(row["image"]), start + [0.08, 0.0], atol=0.005)
    expected = sum(1 - np.hypot(start[0] + 0.04 * k, start[1]) / np.sqrt(2) for k in (1, 2))
    np.testing.assert_allclose(row["reward"], expected, atol=0.01)
    assert row["env_steps"] == 2


def test_rows_obey_the_convention_until_the_time_limit():
    env = make(action_repeat=3, time_limit_env_steps=20)
    rows = [env.reset(np.random.SeedSequence(1))]
    while not rows[-1]["is_last"]:
        rows.append(env.step(np.zeros(2)))
    assert len(rows) == 1 + 20 // 3
    assert [bool(row["is_first"]) for row in rows] == [True] + [False] * 6
    assert not any(row["is_terminal"] for row in rows)
    assert [int(row["env_steps"]) for row in rows] == [0] + [3] * 6
    assert rows[0]["reward"] == 0
    for row in rows:
        assert row["image"].shape == (64, 64, 3) and row["image"].dtype == np.uint8
        assert {key: str(row[key].dtype) for key in ROW_DTYPES} == ROW_DTYPES
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.zeros(2))


def go_to_the_spot(env, seed):
    row = env.reset(np.random.SeedSequence(seed))
    rows = [row]
    while not row["is_last"]:
        row = env.step(np.clip(-10 * centre_of_red(row["image"]), -1, 1))
        rows.append(row)
    return rows


def test_toy_terminal_ends_when_the_dot_touches_the_spot_inside_a_repeat():
    for seed in range(20):
        rows = go_to_the_spot(make("toy_terminal", action_repeat=4, time_limit_env_steps=1000), seed)
        assert rows[-1]["is_terminal"] and 1 <= rows[-1]["env_steps"] <= 4
        assert not any(row["is_terminal"] for row in rows[:-1])
        if rows[-1]["env_steps"] < 4:
            return
    raise AssertionError("no episode ended inside a repeat")


def test_a_policy_that_looks_at_the_picture_earns_more_than_a_random_one():
    env = make(time_limit_env_steps=100)
    generator = np.random.default_rng(0)
    seen = sum(row["reward"] for row in go_to_the_spot(env, 0))
    env.reset(np.random.SeedSequence(0))
    blind = sum(env.step(generator.uniform(-1, 1, 2))["reward"] for _ in range(50))
    assert seen > 80 > 70 > blind


def test_an_episode_is_a_function_of_its_seed_also_in_a_used_environment():
    def play(env, seed):
        generator = np.random.default_rng(0)
        rows = [env.reset(np.random.SeedSequence(seed))]
        return rows + [env.step(generator.uniform(-1, 1, 2)) for _ in range(3)]

    used = make()
    play(used, 1)
    for fresh_row, used_row in zip(play(make(), 0), play(used, 0), strict=True):
        for key in fresh_row:
            np.testing.assert_array_equal(fresh_row[key], used_row[key])
    assert not np.array_equal(play(used, 0)[0]["image"], play(used, 1)[0]["image"])


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_picture_has_the_size_asked_for(size):
    env = make(size=size)
    assert env.reset(np.random.SeedSequence(0))["image"].shape == env.obs_spec["image"].shape == (size, size, 3)


def test_in_numbers_it_is_the_same_world():
    limits = {"size": 64, "camera": 0, "action_repeat": 2, "time_limit_env_steps": 20}
    pixels, numbers = make(), make_env("toy_reach", observations="vectors", **limits)
    assert {name: (spec.shape, spec.dtype) for name, spec in numbers.obs_spec.items()} == {
        "position": ((2,), "float32"),
        "distance": ((), "float32"),
    }
    seed = np.random.SeedSequence(4)
    seen, row = pixels.reset(seed), numbers.reset(seed)
    for _ in range(3):
        assert "image" not in row and row["position"].dtype == row["distance"].dtype == np.float32
        np.testing.assert_allclose(row["position"], centre_of_red(seen["image"]), atol=0.01)
        np.testing.assert_allclose(row["distance"], np.hypot(*row["position"]), rtol=1e-6)
        assert row["reward"] == seen["reward"]
        seen, row = pixels.step(np.array([-1.0, 0.5])), numbers.step(np.array([-1.0, 0.5]))
