"""Catch: the picture is what is played, hand-checked falls, both ends, the row convention, errors."""

import numpy as np
import pytest

from shared.envs.catch import BALL, PADDLE
from shared.envs.spec import ROW_DTYPES
from shared.envs.suite import make_env, may_end

LEFT, STAY, RIGHT = np.eye(3, dtype=np.float32)


def make(size=64, action_repeat=1, time_limit_env_steps=200):
    limits = {"action_repeat": action_repeat, "time_limit_env_steps": time_limit_env_steps}
    return make_env("toy_catch", size=size, camera=0, **limits)


def cell(image, colour):
    """(row from the top, column) of the board's cell of this colour, from the picture; None where there is none."""
    rows, columns = np.nonzero((image == colour).all(-1))
    side = len(image) / 8
    return (int(rows.mean() // side), int(columns.mean() // side)) if len(rows) else None


def play(env, seed, policy):
    rows = [env.reset(np.random.SeedSequence(seed))]
    while not rows[-1]["is_last"]:
        rows.append(env.step(policy(rows[-1]["image"])))
    return rows


def follow(image):
    ball, paddle = cell(image, BALL), cell(image, PADDLE)
    if ball is None or ball[1] == paddle[1]:
        return STAY
    return LEFT if ball[1] < paddle[1] else RIGHT


def test_a_ball_falls_a_row_per_step_and_is_paid_in_the_bottom_row():
    env = make()
    rows = [env.reset(np.random.SeedSequence(3))]
    (_, column), start = cell(rows[0]["image"], BALL), cell(rows[0]["image"], PADDLE)
    assert cell(rows[0]["image"], BALL)[0] == 0 and start[0] == 7
    rows += [env.step(STAY) for _ in range(7)]
    assert [cell(row["image"], BALL) for row in rows[:7]] == [(height, column) for height in range(7)]
    assert [float(row["reward"]) for row in rows] == [0.0] * 7 + [1.0 if column == start[1] else -1.0]
    assert cell(env.step(STAY)["image"], BALL)[0] == 0  # the next one


def test_the_paddle_moves_a_column_and_stops_at_the_walls():
    env = make()
    env.reset(np.random.SeedSequence(0))
    assert cell([env.step(LEFT) for _ in range(8)][-1]["image"], PADDLE) == (7, 0)
    assert cell(env.step(RIGHT)["image"], PADDLE) == (7, 1)
    assert cell(env.step(STAY)["image"], PADDLE) == (7, 1)
    assert cell([env.step(RIGHT) for _ in range(9)][-1]["image"], PADDLE) == (7, 7)


def test_who_watches_the_picture_catches_every_ball_until_the_time_limit():
    rows = play(make(), 0, follow)
    assert len(rows) == 201 and not rows[-1]["is_terminal"]
    assert sum(float(row["reward"]) for row in rows) == 25.0  # one after 7 steps, then one every 8


def test_the_fifth_miss_ends_the_world_also_inside_a_repeat():
    def flee(image):
        ball = cell(image, BALL)
        return LEFT if ball is not None and ball[1] >= 4 else RIGHT

    rows = play(make(action_repeat=2), 1, flee)
    assert rows[-1]["is_terminal"] and sum(float(row["reward"]) for row in rows) == -5.0
    assert not any(row["is_terminal"] for row in rows[:-1])
    assert sum(int(row["env_steps"]) for row in rows) == 7 + 4 * 8
    assert rows[-1]["env_steps"] == 1


def test_rows_obey_the_convention_and_an_episode_is_a_function_of_its_seed():
    generator = np.random.default_rng(0)
    choices = generator.integers(3, size=30)
    env = make(size=32)
    played = []
    for _ in range(2):
        rows = [env.reset(np.random.SeedSequence(5))] + [env.step(np.eye(3)[choice]) for choice in choices]
        played.append(rows)
    for row, again in zip(*played, strict=True):
        assert {key: str(row[key].dtype) for key in ROW_DTYPES} == ROW_DTYPES
        assert row["image"].shape == (32, 32, 3) and row["image"].dtype == np.uint8
        assert all(np.array_equal(row[key], again[key]) for key in row)
    assert may_end("toy_catch") and not may_end("cup_catch")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0.0, 0.0, 0.0], "not one-hot"),
        ([0.5, 0.0, 0.0], "not one-hot"),
        ([1.0, 0.0], "expected"),
        ([2, 0, 0], "outside"),
    ],
)
def test_a_wrong_action_is_refused(action, message):
    env = make()
    env.reset(np.random.SeedSequence(0))
    with pytest.raises(ValueError, match=message):
        env.step(np.array(action))


def test_a_game_that_is_over_takes_no_action():
    with pytest.raises(ValueError, match="call reset first"):
        make().step(STAY)
