"""DreamerV2's runs from the command line: tiny ones, on a toy task and on games, killed and resumed; and what is told.

tests/test_resume.py holds the moments of a kill for the code that all papers share; here it is DreamerV2's own state
that has to come back: three optimisers, the target critic, categorical latents, grey images, replay without a pool.
"""

import signal
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from replications.dreamerv2 import train
from replications.dreamerv2.config import Config
from shared import launch
from shared.config import ROOT, build, write_resolved
from shared.envs.spec import ActSpec
from shared.results import read_run
from tests import tiny, tiny_dreamerv2

# Episodes end by their time limit, after 30 decisions; a run of 600 env steps is 5 episodes.
SHORT = {
    "environment__time_limit_env_steps": 120,
    "schedule__total_env_steps": 600,
    "schedule__evaluate_every_env_steps": 240,
}
CONTROL = {"environment__action_repeat": 4}  # as games have it, so that a run has as many rows


def values(variant="dreamerv2", **changes):
    return tiny_dreamerv2.values(variant, **{**SHORT, **changes})


def write_config(path, variant="dreamerv2", **changes):
    resolved = {"paper": "dreamerv2", "variant": variant, "scale": "smoke", "overrides": []}
    write_resolved(path, {**resolved, "values": values(variant, **changes)})
    return path


def run(config, out, *extra, **options):
    return tiny.train(config, out, *extra, paper="dreamerv2", **options)


def make_config(variant="dreamerv2", **changes) -> Config:
    return build(Config, values(variant, **changes), where="test")


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(
    ("framework", "variant", "task"),
    [("torch", "control", "toy_reach"), ("torch", "dreamerv2", "atari_pong"), ("jax", "dreamerv2", "atari_pong")],
)
def test_a_run_is_whole_and_continues_to_the_bit_after_a_kill(tmp_path, monkeypatch, framework, variant, task):
    if framework == "jax":
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    config = write_config(tmp_path / "config.yaml", variant, **(CONTROL if variant == "control" else {}))
    chosen = ("--framework", framework)
    done = run(config, tmp_path / "whole.h5", *chosen, task=task)
    assert done.returncode == 0, done.stderr
    assert f"up to 150 rows of {4175 if task == 'atari_pong' else 12_303:,} bytes" in done.stderr
    for moment in ("update:9", "step:100") if framework == "torch" else ("update:9",):  # JAX starts slowly
        done = run(config, tmp_path / "seed_3.h5", *chosen, task=task, die=moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr)
    done = run(config, tmp_path / "seed_3.h5", *chosen, task=task)
    assert done.returncode == 0 and "continuing at" in done.stderr, done.stderr
    tiny.assert_same(tmp_path / "seed_3.h5", tmp_path / "whole.h5")
    assert_whole(tmp_path / "whole.h5", framework, task)


def assert_whole(path, framework, task):
    """Everything that a run of SHORT is to have: curves, finite losses, frames of the world's colours, all parts."""
    result = read_run(path)
    assert result.attrs["task"] == task and result.attrs["paper"] == "dreamerv2"
    curves = result.tables
    # 240 env steps at random, then 3 updates and 4 more every 120 env steps until 600
    assert len(curves["learn/update"]) == 3 + 3 * 4
    assert curves["train/episode"]["env_steps"].tolist() == [120, 240, 360, 480, 600]
    assert sorted(set(curves["eval/episode"]["env_steps"])) == [240, 480, 600]
    for name in ("loss", "actor_loss", "critic_loss", "actor_entropy", "critic_grad_norm"):
        assert np.isfinite(curves["learn/update"][name]).all()
    assert (curves["learn/update"]["actor_entropy"].diff().dropna() != 0).any()  # the actor moves
    game = task.startswith("atari_")
    assert ("discount_loss" in curves["learn/update"]) == game
    assert result.video["truth"].shape == (1, 8, 64, 64, 1 if game else 3)
    parameters = load_file(path.with_suffix(".safetensors"))
    assert {name.split(".")[0] for name in parameters} == {"model", "actor", "critic", "target_critic"}
    named = result.provenance["sessions"][0]["libraries"]
    assert f"{framework} " in named and "numpy " in named
    assert ("ale-py " in named) == game and "dm_control " not in named  # a toy needs numpy alone


@pytest.mark.parametrize("variant", ["gaussian-latents", "schedules", "random-data", "last-commit"])
def test_variants_of_games_run(tmp_path, variant):
    """From the command line to a file, in this process: what differs lies in the agent, which its own tests hold."""
    once = {"schedule__total_env_steps": 360, "schedule__evaluate_every_env_steps": 360}
    write_config(tmp_path / "config.yaml", variant, **once)
    arguments = ["--config", str(tmp_path / "config.yaml"), "--seed", "3", "--threads", "1"]
    assert train.main([*arguments, "--task", "atari_breakout", "--out", str(tmp_path / "seed_3.h5")]) == 0
    assert np.isfinite(read_run(tmp_path / "seed_3.h5").tables["learn/update"]["loss"]).all()


def test_workers_do_not_change_the_numbers(tmp_path):
    config = write_config(tmp_path / "config.yaml", evaluation__episodes=2)
    for name, workers in (("one", "0"), ("two", "2")):
        done = run(config, tmp_path / f"{name}.h5", "--workers", workers, task="atari_breakout")
        assert done.returncode == 0, done.stderr
    tiny.assert_same(tmp_path / "one.h5", tmp_path / "two.h5")


# ------------------------------------------------------------------------------------------------ environments


def test_games_are_seen_as_the_sheet_says():
    """Section 1 of the sheet, and of paper.yaml: grey, area filter, maximum of two frames, sticky, up to 30 no-ops."""
    pipeline = train.pipeline(make_config().environment, training=True)
    assert (pipeline.colours, pipeline.resize, pipeline.max_pool, pipeline.sticky) == ("grey", "area", True, 0.25)
    assert pipeline.noops == (1, 30) and pipeline.full_actions and not pipeline.draw_end
    assert pipeline.least_decisions == 0 and not pipeline.life_loss_ends and not pipeline.time_limit_is_terminal
    assert train.pipeline(make_config(environment__atari__noop_max=0).environment, training=True).noops == (0, 0)
    assert train.pipeline(make_config(environment__atari__grayscale=False).environment, training=True).colours == "rgb"


def test_a_lost_life_ends_training_episodes_alone_and_only_where_it_is_asked_for():
    config = make_config(environment__atari__life_loss_ends_training=True).environment
    training, evaluation = (train.pipeline(config, training=training) for training in (True, False))
    assert training.life_loss_ends and not evaluation.life_loss_ends
    assert vars(training) == {**vars(evaluation), "life_loss_ends": True}


@pytest.mark.parametrize(("variant", "actions"), [("dreamerv2", 18), ("last-commit", 4)])
def test_learning_and_evaluation_have_their_own_environments(tmp_path, variant, actions):
    """Breakout: all 18 actions, or the four that do something in it. Images are grey."""
    config = make_config(variant, environment__atari__life_loss_ends_training=True)
    path = write_config(tmp_path / "config.yaml", variant, environment__atari__life_loss_ends_training=True)
    arguments = ["--config", str(path), "--task", "atari_breakout", "--seed", "0", "--out", str(tmp_path / "x.h5")]
    options = train.parse(arguments)
    options.device = "cpu"
    parts = train.make_parts(config, options)
    try:
        for envs, ends in ((parts.envs, True), (parts.evaluation_envs, False), (parts.video_envs, False)):
            (env,) = envs._groups[0]._envs.values()
            assert env._pipeline.life_loss_ends == ends
        assert parts.envs.act_spec == ActSpec(actions, discrete=True)
        assert parts.envs.obs_spec["image"].shape == (64, 64, 1)
        assert parts.batch == (3, 6) and parts.evaluation_episodes == 1
    finally:
        for envs in (parts.envs, parts.evaluation_envs, parts.video_envs):
            envs.close()


def test_the_replay_is_the_configs(tmp_path):
    """Its settings reach it under the same names: an unknown one would be refused, a swapped one drawn otherwise."""
    path = write_config(tmp_path / "config.yaml")
    arguments = ["--config", str(path), "--task", "atari_pong", "--seed", "0", "--out", str(tmp_path / "x.h5")]
    options = train.parse(arguments)
    options.device = "cpu"
    parts = train.make_parts(make_config(replay__capacity_rows=50), options)
    try:
        rows, ends = parts.envs.reset(), 0
        while ends < 3:  # episodes of 31 rows: with 50 rows one stays
            action = np.eye(18, dtype=np.float32)[:1]
            action = np.where(rows["is_last"][:, None], np.float32(0), action)
            parts.replay.append({**{k: v for k, v in rows.items() if k != "env_steps"}, "action": action})
            ends += int(rows["is_last"][0])
            rows = parts.envs.step(action)
        assert (parts.replay.episodes, parts.replay.rows) == (1, 31)
    finally:
        for envs in (parts.envs, parts.evaluation_envs, parts.video_envs):
            envs.close()


# ------------------------------------------------------------------------------------------------ what is told


def call(tmp_path, capsys, task="atari_pong", extra=(), variant="dreamerv2", **changes):
    config = write_config(tmp_path / "config.yaml", variant, **changes)
    out = tmp_path / "new" / "seed_3.h5"
    arguments = ["--config", str(config), "--task", task, "--seed", "3", "--out", str(out), "--threads", "1", *extra]
    return train.main(arguments), capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "atari_pnog"}, ["atari_pnog", "atari_pong"]),
        ({"task": "cartpole_swinup", "variant": "control"}, ["cartpole_swinup", "did you mean", "cartpole_swingup"]),
        ({"task": "walker_walk"}, ["walker_walk", "model.discount_head is true", "variant control"]),
        ({"variant": "control"}, ["atari_pong", "model.discount_head is false", "such as dreamerv2"]),
        ({"variant": "control", "task": "crafter_reward"}, ["crafter_reward", "model.discount_head is false"]),
        ({"variant": "control", "task": "toy_catch"}, ["toy_catch", "model.discount_head is false"]),
        ({"extra": ["--framework", "numpy"]}, ["numpy", "torch and in jax"]),
        ({"model__discount_head": False}, ["loss.gradient_heads names discount"]),
        ({"video__context": 8}, ["context (8)", "length (8)"]),
        (
            {"variant": "control", "task": "toy_reach", "batch__length": 70, **CONTROL},
            ["batch.length (70 rows)", "an episode (31 rows at action repeat 4)"],
        ),
    ],
)
def test_mistakes_are_told_in_one_message_and_leave_nothing(tmp_path, capsys, options, words):
    status, said = call(tmp_path, capsys, **options)
    assert status == 2 and "Traceback" not in said, said
    for word in words:
        assert word in said
    assert not (tmp_path / "new").exists()


def test_chunks_that_no_game_fills_are_told_when_learning_begins(tmp_path, capsys):
    status, said = call(tmp_path, capsys, batch__length=70)
    assert status == 2 and "Traceback" not in said
    assert "batch length 70 exceeds the longest stored episode (31 rows)" in said


def test_a_disk_that_the_replay_would_fill_is_told_before_the_run(tmp_path, capsys, monkeypatch):
    """2,000,000 rows of 4175 bytes are 8.35 GB; the tiny settings keep the paper's length and replay here."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=8_000_000_000))
    sizes = {"schedule__total_env_steps": 200_000_000, "replay__capacity_rows": 2_000_000}
    status, said = call(tmp_path, capsys, **sizes)
    assert status == 2 and "Traceback" not in said
    assert "come to 8.3 GB" in said and "has 8.0 GB for them" in said and "replay.capacity_rows" in said
    assert not list((tmp_path / "new").glob("**/*.h5"))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_code_that_decides_numbers_is_listed_and_exists(framework):
    paths = launch.code_paths("dreamerv2", framework)
    assert all(path.exists() for path in paths)
    named = {str(path.relative_to(ROOT)) for path in paths}
    assert {f"shared/device_{framework}.py", "shared/envs", f"replications/dreamerv2/model_{framework}.py"} <= named
    other = {"torch": "jax", "jax": "torch"}[framework]
    assert not any(name.endswith(f"_{other}.py") for name in named)
