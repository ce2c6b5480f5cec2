"""Dreamer's runs from the command line: tiny ones, on the toy task and on a game, killed and resumed, and what is told.

tests/test_resume.py holds the moments of a kill for the code that all papers share; here it is Dreamer's own state that
has to come back: three optimisers, the actor's belief, discrete actions, episodes of the emulator.
"""

import signal

import numpy as np
import pytest

from replications.dreamer import train
from replications.dreamer.config import Config
from shared import launch
from shared.config import ROOT, build, read_variants, resolve, write_resolved
from shared.envs.spec import ActSpec
from shared.results import read_run
from tests import tiny, tiny_dreamer
from workflows.scripts.plan import read_scale

SHORT = {"schedule__total_env_steps": 600, "schedule__evaluate_every_env_steps": 240}
# A game's tiny episodes end by their time limit, after 30 decisions; a run of 600 env steps is 5 episodes.
GAME = {"environment__time_limit_env_steps": 120, **SHORT}


def write_config(path, variant="dreamer", **changes):
    resolved = {"paper": "dreamer", "variant": variant, "scale": "smoke", "overrides": []}
    write_resolved(path, {**resolved, "values": tiny_dreamer.values(variant, **changes)})
    return path


def run(config, out, *extra, **options):
    return tiny.train(config, out, *extra, paper="dreamer", **options)


def make_config(variant="dreamer", **changes) -> Config:
    return build(Config, tiny_dreamer.values(variant, **changes), where="test")


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(
    ("framework", "variant", "task"),
    [("torch", "dreamer", "toy_reach"), ("torch", "atari", "atari_pong"), ("jax", "atari", "atari_pong")],
)
def test_a_run_is_whole_and_continues_to_the_bit_after_a_kill(tmp_path, monkeypatch, framework, variant, task):
    if framework == "jax":
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    config = write_config(tmp_path / "config.yaml", variant, **(GAME if variant == "atari" else SHORT))
    chosen = ("--framework", framework)
    done = run(config, tmp_path / "whole.h5", *chosen, task=task)
    assert done.returncode == 0, done.stderr
    for moment in ("update:9", "step:40") if framework == "torch" else ("update:9",):  # JAX starts slowly
        done = run(config, tmp_path / "seed_3.h5", *chosen, task=task, die=moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr)
    done = run(config, tmp_path / "seed_3.h5", *chosen, task=task)
    assert done.returncode == 0 and "continuing at" in done.stderr, done.stderr
    tiny.assert_same(tmp_path / "seed_3.h5", tmp_path / "whole.h5")
    result = read_run(tmp_path / "whole.h5")
    assert result.attrs["task"] == task and result.attrs["paper"] == "dreamer"
    curves = result.tables
    # 240 env steps at random, then 3 updates and 4 more every 120 env steps until 600
    assert len(curves["learn/update"]) == 3 + 3 * 4
    assert curves["train/episode"]["env_steps"].tolist() == [120, 240, 360, 480, 600]
    assert sorted(set(curves["eval/episode"]["env_steps"])) == [240, 480, 600]
    for name in ("loss", "actor_loss", "value_loss"):
        assert np.isfinite(curves["learn/update"][name]).all()
    named = result.provenance["sessions"][0]["libraries"]
    assert f"{framework} " in named and "numpy " in named
    assert ("ale-py " in named) == (variant == "atari") and "dm_control " not in named  # a toy needs numpy alone


def test_workers_do_not_change_the_numbers(tmp_path):
    config = write_config(tmp_path / "config.yaml", "atari", **GAME, evaluation__episodes=2)
    for name, workers in (("one", "0"), ("two", "2")):
        done = run(config, tmp_path / f"{name}.h5", "--workers", workers, task="atari_breakout")
        assert done.returncode == 0, done.stderr
    tiny.assert_same(tmp_path / "one.h5", tmp_path / "two.h5")


# ------------------------------------------------------------------------------------------------ schedule


@pytest.mark.parametrize("variant", read_variants("dreamer"))
def test_updates_and_data_at_scale_paper_are_in_the_codes_ratio(variant):
    """TF1: for 100 updates at least one episode and 500 decisions, first at least 5 and 2500; a test per 1000 updates.

    Of games, whose episodes have no fixed length, only the decisions are ours to choose (README.md, deviations).
    """
    values = resolve("dreamer", variant, read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml"))["values"]
    plan, repeat = values["schedule"], values["environment"]["action_repeat"]
    collected, first = plan["learn_every_env_steps"] // repeat, plan["prefill_env_steps"] // repeat
    assert plan["updates_per_learn"] == 100
    assert plan["evaluate_every_env_steps"] == 10 * plan["learn_every_env_steps"]
    if variant.startswith("atari"):
        assert (collected, first) == (500, 10_000)
        return
    episode = 1000 // repeat
    assert collected == max(500, episode) and collected % episode == 0
    assert first == max(2500, 5 * episode) and first % episode == 0


# ------------------------------------------------------------------------------------------------ environments


def test_a_lost_life_ends_training_episodes_alone():
    config = make_config("atari").environment
    training, evaluation = (train.pipeline(config, training=training) for training in (True, False))
    assert training.life_loss_ends and not evaluation.life_loss_ends
    assert vars(training) == {**vars(evaluation), "life_loss_ends": True}
    off = make_config("atari", environment__atari__life_loss_ends_training=False).environment
    assert train.pipeline(off, training=True) == train.pipeline(off, training=False)


def test_learning_and_evaluation_have_their_own_environments(tmp_path):
    config = write_config(tmp_path / "config.yaml", "atari", **GAME)
    arguments = ["--config", str(config), "--task", "atari_breakout", "--seed", "0", "--out", str(tmp_path / "x.h5")]
    options = train.parse(arguments)
    options.device = "cpu"
    parts = train.make_parts(make_config("atari", **GAME), options)
    try:
        for envs, ends in ((parts.envs, True), (parts.evaluation_envs, False), (parts.video_envs, False)):
            (env,) = envs._groups[0]._envs.values()
            assert env._pipeline.life_loss_ends == ends
        assert parts.envs.act_spec == ActSpec(4, discrete=True)  # Breakout's own
        assert parts.batch == (3, 6) and parts.evaluation_episodes == 1
    finally:
        for envs in (parts.envs, parts.evaluation_envs, parts.video_envs):
            envs.close()


def test_random_actions_of_a_discrete_task_are_one_hot_and_uniform():
    from shared.training.random_agent import RandomAgent

    agent = RandomAgent(ActSpec(4, discrete=True), np.random.SeedSequence(0))
    action = agent.act({"is_first": np.zeros(4000, bool)}, {}, explore=True).action
    assert action.dtype == np.float32 and set(np.unique(action)) == {0.0, 1.0} and (action.sum(1) == 1).all()
    assert np.abs(action.sum(0) - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


def test_quadruped_is_seen_by_its_own_camera():
    environment = make_config().environment
    cameras = {
        task: train.maker(environment, task, training=True).keywords["camera"]
        for task in ("quadruped_run", "quadruped_walk", "walker_walk")
    }
    assert cameras == {"quadruped_run": 2, "quadruped_walk": 2, "walker_walk": 0}
    assert train.maker(environment, "walker_walk", training=True).keywords["pipeline"] is None


# ------------------------------------------------------------------------------------------------ what is told


def call(tmp_path, capsys, task="toy_reach", extra=(), variant="dreamer", **changes):
    config = write_config(tmp_path / "config.yaml", variant, **changes)
    out = tmp_path / "new" / "seed_3.h5"
    arguments = ["--config", str(config), "--task", task, "--seed", "3", "--out", str(out), "--threads", "1", *extra]
    return train.main(arguments), capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "cartpole_swinup"}, ["cartpole_swinup", "did you mean", "cartpole_swingup"]),
        ({"task": "atari_pnog"}, ["atari_pnog", "atari_pong"]),
        ({"task": "atari_pong", "variant": "planet"}, ["atari_pong", "learner: actor"]),
        ({"task": "crafter_reward", "variant": "planet"}, ["crafter_reward", "learner: actor"]),
        ({"task": "toy_catch", "variant": "planet"}, ["toy_catch", "learner: actor"]),
        ({"task": "atari_pong"}, ["atari_pong", "model.continuation is false", "variant atari"]),
        ({"task": "crafter_reward"}, ["crafter_reward", "model.continuation is false"]),
        ({"task": "toy_catch"}, ["toy_catch", "model.continuation is false", "variant atari"]),
        (
            {"task": "walker_walk", "variant": "atari"},
            [
                "walker_walk",
                "model.continuation is true",
                "action_noise is 0.0",
                "variant for control tasks",
                "dreamer",
            ],
        ),
        (
            {"task": "walker_walk", "model__continuation": True},
            ["walker_walk", "model.continuation is true", "action_noise is 0.3"],
        ),
        ({"extra": ["--framework", "numpy"]}, ["numpy", "torch and in jax"]),
        ({"batch__length": 70}, ["batch.length (needs 70 rows)", "61 rows"]),
    ],
)
def test_mistakes_are_told_in_one_message_and_leave_nothing(tmp_path, capsys, options, words):
    status, said = call(tmp_path, capsys, **options)
    assert status == 2 and "Traceback" not in said, said
    for word in words:
        assert word in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("variant", "task"),
    [("dreamer", "toy_reach"), ("planet", "toy_reach"), ("atari", "toy_catch"), ("atari", "atari_pong")],
)
def test_a_variant_that_suits_its_task_is_not_refused(variant, task):
    train.check(make_config(variant), task)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_code_that_decides_numbers_is_listed_and_exists(framework):
    paths = launch.code_paths("dreamer", framework)
    assert all(path.exists() for path in paths)
    named = {str(path.relative_to(ROOT)) for path in paths}
    assert {f"shared/device_{framework}.py", "shared/envs", f"replications/dreamer/model_{framework}.py"} <= named
    other = {"torch": "jax", "jax": "torch"}[framework]
    assert not any(name.endswith(f"_{other}.py") for name in named)
