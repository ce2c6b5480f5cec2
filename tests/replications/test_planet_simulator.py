"""CEM on the true simulator: the authors' numbers, the same numbers with any number of workers, resume, messages."""

import argparse
import functools
import os
import signal

import numpy as np
import pytest
from numpy.random import SeedSequence

from replications.planet import simulator, train
from replications.planet.config import Planner
from shared.checkpoint import Checkpoints
from shared.config import build, write_resolved
from shared.envs.dmc import Simulator
from shared.errors import UserError
from shared.results import list_runs, read_run
from tests import tiny
from tests.conftest import DEFAULT_GOLDEN

SMALL = {
    "environment__time_limit_env_steps": 80,
    "batch__length": 3,
    "video__length": 6,
    "planner__candidates": 8,
    "evaluation__episodes": 2,
}


def settings(**changes) -> Planner:
    values = {**tiny.values()["planner"], **changes}
    return build(Planner, values, where="a test")


def write_config(path, variant="simulator", **changes):
    values = tiny.values(**{**SMALL, **changes})
    write_resolved(path, {"paper": "planet", "variant": variant, "scale": "smoke", "overrides": [], "values": values})
    return path


def call(tmp_path, *extra, out=None, task="cheetah_run", seed="5", **changes):
    """Exit status of the command line; the result is `out`."""
    config = write_config(tmp_path / "config.yaml", **changes)
    out = out or tmp_path / "seed_5.h5"
    options = ["--config", str(config), "--task", task, "--seed", seed, "--out", str(out)]
    return train.main([*options, "--framework", "numpy", *extra])


def returns(path):
    return read_run(path).tables["eval/episode"]["return"].tolist()


# ------------------------------------------------------------------------------------------------ planning


@pytest.mark.parametrize("name", ["cem_a", "cem_clip", "cem_iter0", "cem_topall"])
def test_plan_is_the_authors_planner(name):
    """Golden numbers: x' = A x + B a + c, reward -|x' - goal|^2 of the state after the action."""
    golden = np.load(DEFAULT_GOLDEN / "planet" / f"{name}.npz")
    world = {key: golden[key].astype(np.float64) for key in ("A", "B", "c", "goal", "x0", "noise")}

    def rewards(actions):
        x, earned = np.tile(world["x0"], (len(actions), 1)), []
        for action in actions.swapaxes(0, 1):
            x = x @ world["A"].T + action @ world["B"].T + world["c"]
            earned.append(-((x - world["goal"]) ** 2).sum(1))
        return np.stack(earned, 1)

    chosen = settings(elites=int(golden["topk"]), candidates=int(golden["amount"]))
    for iterations in range(len(world["noise"]) + 1):
        mean, std = simulator.plan(rewards, world["noise"][:iterations], chosen)
        if iterations:
            np.testing.assert_allclose(mean, golden["mean_per_iter"][iterations - 1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(std, golden["stddev_per_iter"][iterations - 1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(mean, golden["plan"], rtol=1e-4, atol=1e-5)


def test_later_rewards_count_less_with_a_discount():
    # Two candidates: one earns 1 now, the other 1.5 a step later. With discount 0.5 the first is better.
    noise = np.array([[[[0.25], [0.0]], [[-0.5], [0.0]]]])  # (I, J, H, A)
    rewards = lambda actions: np.array([[1.0, 0.0], [0.0, 1.5]])  # noqa: E731
    for discount, best in ((1.0, -0.5), (0.5, 0.25)):
        mean, _ = simulator.plan(rewards, noise, settings(elites=1, candidates=2, discount=discount))
        assert mean[0, 0] == best


def test_a_candidate_that_breaks_the_physics_is_the_worst():
    noise = np.array([[[[0.25]], [[-0.5]]]])
    mean, _ = simulator.plan(lambda actions: np.array([[np.nan], [-9.0]]), noise, settings(elites=1, candidates=2))
    assert mean[0, 0] == -0.5


def make(limit=40):
    return functools.partial(Simulator, "cheetah_run", action_repeat=4, time_limit_env_steps=limit)


def test_planning_earns_more_than_chance():
    # 20 decisions of the cheetah: standing still (no iteration) earns next to nothing.
    scores = []
    for iterations in (0, 2):
        player = simulator.Player(make(80), settings(iterations=iterations, candidates=30, horizon=6, elites=5), 0)
        generator = np.random.Generator(np.random.PCG64(1))
        scores.append(player.episode(SeedSequence(2), generator, lambda env_steps: None))
        player.close()
    (idle, _), (planned, decisions) = scores
    assert decisions == 20 and idle < 0.5 and planned > 4


def test_a_copy_follows_the_episodes_of_the_real_simulator():
    # reacher: the target lies in the model, so a copy that missed the second episode's start would earn for the first.
    real = Simulator("reacher_easy", action_repeat=4, time_limit_env_steps=1000)
    copy = simulator.Copy(functools.partial(Simulator, "reacher_easy", action_repeat=4, time_limit_env_steps=1000))
    for seed in SeedSequence(3).spawn(2):
        real.restart(seed)
        copy.rewards(seed, real.state(), np.zeros((2, 3, 2)))
        target = [one._env.physics.named.model.geom_pos["target"] for one in (real, copy.simulator)]
        np.testing.assert_array_equal(*target)
    real.close()
    copy.close()


def test_workers_compute_the_same_numbers_and_a_dead_one_is_told():
    noise = np.random.default_rng(0).uniform(-1, 1, (5, 3, 6))
    real, here, there = make()(), simulator.Copy(make()), simulator.Copies(make(), 2)
    try:
        seed = SeedSequence(4)
        real.restart(seed)
        for _ in range(2):
            state = real.state()
            expected = here.rewards(seed, state, noise)
            np.testing.assert_array_equal(there.rewards(seed, state, noise), expected)
            real.advance(noise[0, 0])
        assert there.rewards(seed, state, noise[:1]).shape == (1, 3)  # a worker with nothing to do
        for process in list(there.pool._processes.values()):
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="fewer --workers"):
            there.rewards(seed, state, noise)
    finally:
        for one in (real, here, there):
            one.close()


# ------------------------------------------------------------------------------------------------ runs


def test_a_run_holds_the_returns_of_its_episodes_and_nothing_is_left_beside_it(tmp_path):
    folder = tmp_path / "smoke" / "planet" / "numpy" / "simulator" / "cheetah_run"
    assert call(tmp_path, out=folder / "seed_5.h5") == 0
    run = read_run(folder / "seed_5.h5")
    table = run.tables["eval/episode"]
    assert table["episode"].tolist() == [0, 1] and table["length"].tolist() == [20, 20]
    assert (table["env_steps"] == 0).all() and (table["updates"] == 0).all()
    assert ((table["return"] > 0) & (table["return"] < 80)).all() and table["return"].nunique() == 2
    assert run.attrs["framework"] == "numpy" and run.attrs["status"] == "complete" and run.video is None
    assert len(run.tables["train/episode"]) == len(run.tables["learn/update"]) == 0
    assert run.provenance["renderer"] == "none" and "mujoco" in run.provenance["libraries"]
    assert list_runs(tmp_path, framework="numpy")["variant"].tolist() == ["simulator"]
    assert [path.name for path in folder.iterdir()] == ["seed_5.h5"]


def test_the_seed_decides_and_a_complete_run_is_not_played_again(tmp_path, capsys):
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert call(tmp_path, out=tmp_path / f"{name}.h5", seed=seed, evaluation__episodes=1) == 0
    first, again, other = (returns(tmp_path / f"{name}.h5") for name in "abc")
    assert first == again and not set(first) & set(other)
    before = (tmp_path / "a.h5").read_bytes()
    assert call(tmp_path, out=tmp_path / "a.h5", evaluation__episodes=1) == 0
    assert "is complete" in capsys.readouterr().err and (tmp_path / "a.h5").read_bytes() == before


def test_an_interrupted_run_continues_after_its_last_episode(tmp_path, capsys, monkeypatch):
    assert call(tmp_path, out=tmp_path / "whole.h5") == 0
    save = Checkpoints.save

    def interrupted(self, step, tree):
        save(self, step, tree)
        raise KeyboardInterrupt

    out = tmp_path / "cut.h5"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        assert call(tmp_path, out=out) == 130
    assert not out.exists() and (tmp_path / "cut.ckpt").exists()
    played = []
    episode = simulator.Player.episode

    def counted(self, seed, generator, step):
        played.append(seed.spawn_key)
        return episode(self, seed, generator, step)

    monkeypatch.setattr(simulator.Player, "episode", counted)
    assert call(tmp_path, out=out) == 0
    assert "continuing after 1 episodes" in capsys.readouterr().err
    assert len(played) == 1 and returns(out) == returns(tmp_path / "whole.h5")
    assert len(read_run(out).provenance["sessions"]) == 2 and not (tmp_path / "cut.ckpt").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "toy_reach"}, ["'toy_reach' is none of dm_control's suite", "cartpole_swingup"]),
        ({"task": "cartpole_swinup"}, ["'cartpole_swinup'", "did you mean 'cartpole_swingup'"]),
        ({"variant": "rssm"}, ["variant 'rssm' trains a model", "--framework torch or jax"]),
        ({"planner__method": "gradient"}, ["'gradient'", "set cem"]),
        ({"seed": "-1"}, ["--seed -1", "at least 0"]),
    ],
)
def test_what_cannot_be_played_is_told_and_leaves_nothing(tmp_path, capsys, changes, words):
    assert call(tmp_path, out=tmp_path / "new" / "seed_5.h5", **changes) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_no_result_file(tmp_path, capsys):
    assert call(tmp_path, out=tmp_path / "seed_5.txt") == 2
    assert ".h5" in capsys.readouterr().err


def test_play_takes_what_the_trainers_command_line_gives(tmp_path):
    """train.py hands its own options over where the framework is numpy; further ones do not matter."""
    options = argparse.Namespace(
        config=write_config(tmp_path / "config.yaml", evaluation__episodes=1), task="cheetah_run", seed=5,
        out=tmp_path / "seed_5.h5", workers=0, command="a test", framework="numpy", threads=2, device="auto",
    )  # fmt: skip
    simulator.play(options)
    assert len(returns(tmp_path / "seed_5.h5")) == 1
