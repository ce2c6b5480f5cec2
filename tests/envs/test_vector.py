"""Several environments at once: the same numbers in this process and in workers, continued exactly, and no hang."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shared.envs.spec import ActSpec, ArraySpec, make_row
from shared.envs.suite import make_env
from shared.envs.vector import VectorEnv
from shared.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SEED = np.random.SeedSequence(7, spawn_key=(3,))
TOY = functools.partial(make_env, "toy_reach", size=16, camera=0, action_repeat=2, time_limit_env_steps=8)
TOY_TERMINAL = functools.partial(make_env, "toy_terminal", size=16, camera=0, action_repeat=3, time_limit_env_steps=60)
DMC = functools.partial(
    make_env, "reacher_easy", size=64, camera=0, action_repeat=4, time_limit_env_steps=24, shadow_size=64
)


@pytest.fixture
def vector():
    """VectorEnv that is closed at the end of the test: vector(make, count, workers=0, seed=SEED)."""
    opened = []

    def make_vector(make, count, workers=0, seed=SEED):
        opened.append(VectorEnv(make, count, seed, workers=workers))
        return opened[-1]

    yield make_vector
    for envs in opened:
        envs.close()


def actions(envs, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, envs.count, envs.act_spec.size)).astype(np.float32)


def play(envs, count):
    return [envs.reset(), *(envs.step(action) for action in actions(envs, count))]


def assert_same(rows, others):
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            assert row[key].dtype == other[key].dtype
            np.testing.assert_array_equal(row[key], other[key], err_msg=key)


@pytest.mark.parametrize(("make", "workers"), [(TOY, 1), (TOY, 2), (TOY_TERMINAL, 5)])
def test_workers_equal_in_process(vector, make, workers):
    assert_same(play(vector(make, 3), 30), play(vector(make, 3, workers), 30))


def test_workers_equal_in_process_for_dm_control(vector, renderer):
    assert_same(play(vector(DMC, 2), 10), play(vector(DMC, 2, 2), 10))


def test_each_environment_and_episode_has_the_seed_of_its_indices(vector):
    envs = vector(TOY, 2)
    rows = play(envs, 5)  # 4 decisions an episode, so the last row begins the second episode
    assert rows[5]["is_first"].all()
    single = TOY()
    for index in range(2):
        for episode, row in ((0, rows[0]), (1, rows[5])):
            seed = np.random.SeedSequence(7, spawn_key=(3, index, episode))
            np.testing.assert_array_equal(single.reset(seed)["image"], row["image"][index])
    starts = {row["image"][index].tobytes() for row in (rows[0], rows[5]) for index in range(2)}
    assert len(starts) == 4


def test_adding_environments_does_not_change_the_first_ones(vector):
    two, three = vector(TOY, 2).reset(), vector(TOY, 3).reset()
    np.testing.assert_array_equal(two["image"], three["image"][:2])


def test_after_is_last_the_action_is_ignored_and_the_next_episode_begins(vector):
    envs, others = vector(TOY, 2), vector(TOY, 2)
    assert play(envs, 4)[-1]["is_last"].all() and play(others, 4)[-1]["is_last"].all()
    row = envs.step(np.full((2, 2), np.nan))
    assert row["is_first"].all() and not row["is_last"].any()
    assert (row["env_steps"] == 0).all() and (row["reward"] == 0).all()
    assert_same([row], [others.step(np.ones((2, 2)))])


def test_environments_end_their_episodes_independently(vector):
    rows = play(vector(TOY_TERMINAL, 4), 60)
    first = np.array([row["is_first"] for row in rows])
    last = np.array([row["is_last"] for row in rows])
    np.testing.assert_array_equal(first[1:], last[:-1])


def test_reset_begins_the_next_episode_everywhere(vector):
    envs = vector(TOY, 2)
    first, again = envs.reset(), envs.reset()
    assert not np.array_equal(first["image"], again["image"])
    assert envs.save()["episode"].tolist() == [1, 1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("make", "decisions"), [(TOY, 0), (TOY, 4), (TOY_TERMINAL, 33), (DMC, 9)])
def test_a_loaded_state_continues_to_the_bit(vector, make, decisions, workers, request):
    if make is DMC:
        request.getfixturevalue("renderer")
    envs = vector(make, 2, workers)
    row = play(envs, decisions)[-1]
    state = envs.save()
    more = actions(envs, 8, seed=1)
    expected = [envs.step(action) for action in more]
    fresh = vector(make, 2, workers)
    for continued in (fresh, envs):  # a new process's environments, and those that went on meanwhile
        assert_same([row], [continued.load(state)])
        assert_same(expected, [continued.step(action) for action in more])
    assert_same([envs.save()], [fresh.save()])


def test_a_state_is_small_arrays_without_objects(vector):
    envs = vector(TOY, 2)
    play(envs, 3)
    state = envs.save()
    assert {key: (value.shape, str(value.dtype)) for key, value in state.items()} == {
        "episode": ((2,), "int64"),
        "length": ((2,), "int64"),
        "action": ((2, 3, 2), "float32"),
    }


def test_a_state_does_not_change_when_the_caller_reuses_its_action_array(vector):
    envs = vector(TOY, 1)
    envs.reset()
    action = np.full((1, 2), 0.5, np.float32)
    envs.step(action)
    action[:] = -1
    assert envs.save()["action"].tolist() == [[[0.5, 0.5]]]


def test_a_state_of_another_number_of_environments_is_refused(vector):
    envs = vector(TOY, 2)
    envs.reset()
    with pytest.raises(UserError, match="another number of environments"):
        vector(TOY, 3).load(envs.save())


def test_methods_before_reset_and_after_close_are_refused(vector):
    envs = vector(TOY, 2)
    with pytest.raises(ValueError, match="VectorEnv.step: no episode is running; call reset first"):
        envs.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="VectorEnv.save: no episode is running"):
        envs.save()
    envs.close()
    envs.close()
    with pytest.raises(ValueError, match="closed"):
        envs.reset()


@pytest.mark.parametrize("action", [np.zeros(2), np.zeros((3, 2)), np.full((2, 2), 1.5), np.full((2, 2), np.nan)])
def test_a_bad_action_is_refused_before_any_environment_moves(vector, action):
    envs, others = vector(TOY, 2), vector(TOY, 2)
    envs.reset(), others.reset()
    with pytest.raises(ValueError, match="VectorEnv.step: action"):
        envs.step(action)
    assert_same([envs.step(np.zeros((2, 2)))], [others.step(np.zeros((2, 2)))])


@pytest.mark.parametrize(("count", "workers"), [(0, 0), (2, -1)])
def test_impossible_counts_are_refused(count, workers):
    with pytest.raises(UserError, match=f"count {count} .* workers {workers}"):
        VectorEnv(TOY, count, SEED, workers=workers)


def test_an_unknown_task_is_told_from_inside_a_worker_too():
    with pytest.raises(UserError, match="unknown task 'toy_raech'; did you mean toy_reach"):
        VectorEnv(functools.partial(TOY.func, "toy_raech", **TOY.keywords), 2, SEED, workers=2)


class Troubled:
    """An environment that misbehaves on an action above 0.5: "raise", "die" or "sleep"."""

    obs_spec = {"state": ArraySpec((1,), "float32")}
    act_spec = ActSpec(1)

    def __init__(self, trouble: str):
        self.trouble = trouble

    def reset(self, seed):
        return make_row({"state": np.zeros(1, np.float32)}, 0, first=True, last=False, terminal=False, env_steps=0)

    def step(self, action):
        if action[0] > 0.5 and self.trouble == "raise":
            raise ZeroDivisionError("the joint came off")
        if action[0] > 0.5 and self.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if action[0] > 0.5 and self.trouble == "sleep":
            time.sleep(3600)
        threads = np.array([float(os.environ["OMP_NUM_THREADS"])], np.float32)
        return make_row({"state": threads}, 1, first=False, last=False, terminal=False, env_steps=1)

    def close(self):
        pass


def test_a_worker_has_one_thread_and_this_process_keeps_its_own(vector, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("LP_NUM_THREADS", raising=False)
    envs = vector(functools.partial(Troubled, ""), 2, 2)
    envs.reset()
    assert envs.step(np.zeros((2, 1)))["state"].tolist() == [[1.0], [1.0]]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "LP_NUM_THREADS" not in os.environ


def test_a_worker_that_dies_is_named_and_nothing_hangs(vector):
    envs = vector(functools.partial(Troubled, "die"), 4, 2)
    envs.reset()
    with pytest.raises(UserError, match=r"environment worker 1 \(environments 2, 3\) was killed by signal 9"):
        envs.step(np.array([[0.0], [0.0], [0.0], [1.0]]))
    with pytest.raises(ValueError, match="closed"):
        envs.step(np.zeros((4, 1)))


def test_an_error_in_a_worker_comes_with_its_traceback_and_its_name(vector):
    envs = vector(functools.partial(Troubled, "raise"), 3, 3)
    envs.reset()
    with pytest.raises(RuntimeError, match=r"(?s)worker 1 \(environments 1\) failed.*the joint came off"):
        envs.step(np.array([[0.0], [1.0], [0.0]]))


def test_close_ends_a_stuck_worker(vector, monkeypatch):
    monkeypatch.setattr("shared.envs.vector.SECONDS_TO_STOP", 0.3)
    envs = vector(functools.partial(Troubled, "sleep"), 2, 2)
    envs.reset()
    processes = [group._process.pid for group in envs._groups]
    for group in envs._groups:
        group.send([(index, np.ones(1, np.float32)) for index in group.indices])
    start = time.monotonic()
    envs.close()
    assert time.monotonic() - start < 5
    assert not any(os.path.exists(f"/proc/{pid}") for pid in processes)


RUN_FOREVER = """
import functools, numpy as np
from shared.envs.suite import make_env
from shared.envs.vector import VectorEnv
if __name__ == "__main__":
    make = functools.partial(make_env, "toy_reach", size=16, camera=0, action_repeat=2, time_limit_env_steps=8)
    envs = VectorEnv(make, 2, np.random.SeedSequence(0), workers=2)
    envs.reset()
    print(*(group._process.pid for group in envs._groups), flush=True)
    try:
        while True:
            envs.step(np.zeros((2, 2)))
    finally:
        envs.close()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_killed_parent_leave_no_worker_behind(tmp_path, how):
    script = tmp_path / "forever.py"
    script.write_text(RUN_FOREVER)
    parent = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as a terminal does: everyone in the foreground gets it
        else:
            parent.kill()
        _, errors = parent.communicate(timeout=20)
    finally:
        parent.kill()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    if how == signal.SIGINT:
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt"), errors
