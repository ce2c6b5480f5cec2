"""DreamerV3's runs from the command line: tiny ones, from vectors, pixels and games, killed and resumed; what is told.

tests/test_resume.py holds the moments of a kill for the code that all papers share; here it is DreamerV3's own state
that has to come back: streams of several environments, latents written back, the online queue, return statistics.
"""

import functools
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from replications.dreamerv3 import train
from replications.dreamerv3.config import Config
from shared import launch
from shared.config import ROOT, build, write_resolved
from shared.envs.spec import ActSpec
from shared.envs.suite import libraries
from shared.replay.streams import StreamReplay
from shared.results import read_run
from tests import tiny, tiny_dreamerv3

# Episodes end by their time limit, after 30 decisions; two environments play five of them each.
SHORT = {
    "environment__time_limit_env_steps": 60,
    "environment__action_repeat": 2,
    "schedule__total_env_steps": 600,
    "schedule__evaluate_every_env_steps": 240,
}
# Two environments, windows of 1 + 6 rows, 18 of them in replay: 2 * 6 + 18; then one update every 6 rows.
FIRST_UPDATE, ROWS_PER_UPDATE, ROWS = 30, 6, 2 * 5 * 31


def values(variant="dreamerv3", **changes):
    return tiny_dreamerv3.values(variant, **{**SHORT, **changes})


def write_config(path, variant="dreamerv3", **changes):
    resolved = {"paper": "dreamerv3", "variant": variant, "scale": "smoke", "overrides": []}
    write_resolved(path, {**resolved, "values": values(variant, **changes)})
    return path


def run(config, out, *extra, **options):
    return tiny.train(config, out, *extra, paper="dreamerv3", **options)


def make_config(variant="dreamerv3", **changes) -> Config:
    return build(Config, values(variant, **changes), where="test")


def make_parts(tmp_path, task="toy_reach", variant="dreamerv3", extra=(), **changes):
    path = write_config(tmp_path / "config.yaml", variant, **changes)
    arguments = ["--config", str(path), "--task", task, "--seed", "0", "--out", str(tmp_path / "x.h5"), *extra]
    options = train.parse(arguments)
    options.device = "cpu"
    return train.make_parts(make_config(variant, **changes), options)


def close(parts):
    for envs in (parts.envs, parts.evaluation_envs, parts.video_envs):
        if envs is not None:
            envs.close()


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(
    ("framework", "variant", "task"),
    [
        ("torch", "dreamerv3", "toy_reach"),
        ("torch", "vision", "toy_reach"),
        ("torch", "proprio-2023", "toy_terminal"),
        ("torch", "atari", "atari_pong"),
        ("jax", "dreamerv3", "toy_reach"),
    ],
)
def test_a_run_is_whole_and_continues_to_the_bit_after_a_kill(tmp_path, monkeypatch, framework, variant, task):
    if framework == "jax":
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    config, chosen = write_config(tmp_path / "config.yaml", variant), ("--framework", framework)
    done = run(config, tmp_path / "whole.h5", *chosen, task=task)
    assert done.returncode == 0, done.stderr
    for moment in ("update:15", "step:60") if (framework, variant) == ("torch", "dreamerv3") else ("update:15",):
        done = run(config, tmp_path / "seed_3.h5", *chosen, task=task, die=moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr)
    done = run(config, tmp_path / "seed_3.h5", *chosen, task=task)
    assert done.returncode == 0 and "continuing at" in done.stderr, done.stderr
    tiny.assert_same(tmp_path / "seed_3.h5", tmp_path / "whole.h5")
    assert_whole(tmp_path / "whole.h5", framework, variant, task)


class Fell(Exception):
    """A process that ended in the middle of its work."""


def test_a_replay_on_disk_that_forgets_continues_to_the_bit(tmp_path, monkeypatch):
    """Chunks of 16 rows, of which about three are live; the runs above end before their first chunk is complete."""
    monkeypatch.setattr(train, "StreamReplay", functools.partial(StreamReplay, chunk_rows=16))
    config = write_config(tmp_path / "config.yaml", replay__capacity_rows=40, replay__memory_rows=20)
    arguments = ["--config", str(config), "--task", "toy_reach", "--seed", "3", "--threads", "1", "--out"]
    assert train.main([*arguments, str(tmp_path / "whole.h5")]) == 0
    agent, calls = train.framework_module("torch").DreamerV3Agent, []
    learn = agent.learn
    for falls_at in (9, 14, 20):

        def fall(self, batch, falls_at=falls_at):
            calls.append(batch)
            if len(calls) == falls_at:
                raise Fell
            return learn(self, batch)

        calls.clear()
        monkeypatch.setattr(agent, "learn", fall)
        with pytest.raises(Fell):
            train.main([*arguments, str(tmp_path / "seed_3.h5")])
        kept = sorted((tmp_path / "seed_3.ckpt" / "replay").glob("chunk_*.h5"))
    assert len(list((tmp_path / "seed_3.ckpt" / "replay").glob("memo_*.h5"))) > 2
    assert int(kept[0].stem[6:]) > 0  # the oldest are gone
    monkeypatch.setattr(agent, "learn", learn)
    assert train.main([*arguments, str(tmp_path / "seed_3.h5")]) == 0
    tiny.assert_same(tmp_path / "seed_3.h5", tmp_path / "whole.h5")


def assert_whole(path, framework, variant, task):
    """Everything that a run of SHORT is to have: curves, finite losses, a video where there are images, all parts."""
    result, game = read_run(path), task.startswith("atari_")
    assert result.attrs["task"] == task and result.attrs["paper"] == "dreamerv3"
    curves = result.tables
    for name in ("loss", "actor_loss", "critic_loss", "actor_entropy"):
        assert np.isfinite(curves["learn/update"][name]).all()
    assert (curves["learn/update"]["actor_entropy"].diff().dropna() != 0).any()  # the actor moves
    if task == "toy_reach":
        assert len(curves["learn/update"]) == 1 + (ROWS - FIRST_UPDATE) // ROWS_PER_UPDATE
        assert curves["train/episode"]["env_steps"].tolist() == [x for k in range(1, 6) for x in (120 * k, 120 * k)]
        assert curves["train/episode"]["length"].tolist() == [30] * 10
        assert sorted(set(curves["eval/episode"]["env_steps"])) == [0, 240, 480, 600]
    if variant in ("dreamerv3", "proprio-2023"):
        assert result.video is None
    else:
        size = result.video["truth"].shape
        assert size == (1, 8, 64, 64, 1 if game else 3)
    parameters = load_file(path.with_suffix(".safetensors"))
    assert {name.split(".")[0] for name in parameters} == {"model", "actor", "critic", "slow_critic"}
    named = result.provenance["sessions"][0]["libraries"]
    assert f"{framework} " in named and "numpy " in named
    assert ("ale-py " in named) == game and "dm_control " not in named  # a toy needs numpy alone


def test_workers_do_not_change_the_numbers(tmp_path):
    """They play the training environments too, of which there are several."""
    config = write_config(tmp_path / "config.yaml", evaluation__episodes=2)
    for name, workers in (("one", "0"), ("two", "2")):
        done = run(config, tmp_path / f"{name}.h5", "--workers", workers)
        assert done.returncode == 0, done.stderr
    tiny.assert_same(tmp_path / "one.h5", tmp_path / "two.h5")


@pytest.mark.parametrize(
    ("variant", "task"),
    [("dreamerv3", "cartpole_swingup"), ("atari100k-2024", "atari_breakout"), ("crafter", "crafter_reward")],
)
def test_tasks_of_the_suites_run(tmp_path, variant, task):
    changes = {"schedule__total_env_steps": 160, "schedule__evaluate_every_env_steps": 160}
    path = write_config(tmp_path / "config.yaml", variant, **changes)
    arguments = ["--config", str(path), "--seed", "3", "--threads", "1"]
    assert train.main([*arguments, "--task", task, "--out", str(tmp_path / "seed_3.h5")]) == 0
    result = read_run(tmp_path / "seed_3.h5")
    assert np.isfinite(result.tables["learn/update"]["loss"]).all()
    named = result.provenance["sessions"][0]["libraries"]
    assert all(f"{name} " in named for name in libraries(task))


# ------------------------------------------------------------------------------------------------ the parts


def test_replay_and_plan_are_the_configs(tmp_path):
    parts = make_parts(tmp_path)
    try:
        assert isinstance(parts.replay, StreamReplay) and parts.envs.count == 2
        assert (parts.plan.first_update, parts.plan.train_ratio, parts.plan.steps) == (FIRST_UPDATE, 3, 18)
        assert parts.batch == (3, 6) and parts.video_envs is None and parts.plan.random_until == 0
        rows, carry = parts.envs.reset(), parts.agent.initial_carry(2)
        for _ in range(20):
            acted = parts.agent.act(rows, carry, explore=True)
            carry = acted.carry
            stored = {k: v for k, v in rows.items() if k != "env_steps"}
            parts.replay.append({**stored, "action": acted.action, **acted.memo})
            rows = parts.envs.step(acted.action)
        batch = parts.replay.sample(3, 6)
        assert batch["position"].shape == (3, 7, 2) and batch["deter"].shape == (3, 1, 16)
        before = batch["window"].copy()
        learned = parts.agent.learn(batch)
        assert learned.memo["deter"].shape == (3, 6, 16)
        parts.replay.update(before, learned.memo)
    finally:
        close(parts)


def test_the_papers_plan_of_every_suite():
    """Section 1 of the sheet: rows at the first update, rows per update (1024 over the ratio)."""
    expected = {
        "dreamerv3": (2048, 2),
        "proprio-2024": (1040, 2),
        "proprio-2023": (4 * 63 + 1024, 2),
        "vision": (2048, 2),
        "atari": (2048, 32),
        "atari-2024": (1040, 32),
        "atari100k": (1088, 8),
        "atari100k-2024": (80, 4),
        "crafter": (1088, 2),
    }
    for variant, (first, per_update) in expected.items():
        config = build(Config, paper_values(variant), where=variant)
        plan = train.plan(config)
        assert (plan.first_update, plan.steps / plan.train_ratio) == (first, per_update), variant
        assert (plan.random_until > 0) == (variant == "proprio-2023")


def paper_values(variant):
    from shared.config import paper_folder, read_yaml, resolve

    if variant == "dreamerv3":
        return read_yaml(paper_folder("dreamerv3") / "paper.yaml")
    return resolve("dreamerv3", variant, {"name": "paper"})["values"]


def test_games_are_seen_as_the_sheet_says():
    """Section 1.1: grey from resized colours, bilinear, maximum of two frames, sticky, up to 30 no-ops, no lives."""
    pipeline = train.pipeline(make_config("atari").environment)
    assert (pipeline.colours, pipeline.resize, pipeline.max_pool) == ("grey_of_resized", "bilinear", True)
    assert pipeline.noops == (0, 30) and pipeline.sticky == 0.25 and pipeline.full_actions and pipeline.draw_end
    assert pipeline.time_limit_is_terminal and not pipeline.life_loss_ends and pipeline.least_decisions == 0
    assert train.pipeline(make_config("atari-2024").environment).noops == (0, 0)
    hundred = train.pipeline(make_config("atari100k").environment)
    assert (hundred.colours, hundred.sticky, hundred.full_actions) == ("rgb", 0.0, False)


def test_a_game_is_played_by_one_environment_where_the_suite_says_so(tmp_path):
    parts = make_parts(tmp_path, "atari_breakout", "atari100k", environment__parallel=1)
    try:
        assert parts.envs.count == 1 and parts.envs.act_spec == ActSpec(4, discrete=True)
        assert parts.envs.obs_spec["image"].shape == (64, 64, 3) and parts.video_envs is not None
    finally:
        close(parts)


# ------------------------------------------------------------------------------------------------ what is told


def call(tmp_path, capsys, task="toy_reach", extra=(), variant="dreamerv3", **changes):
    config = write_config(tmp_path / "config.yaml", variant, **changes)
    out = tmp_path / "new" / "seed_3.h5"
    arguments = ["--config", str(config), "--task", task, "--seed", "3", "--out", str(out), "--threads", "1", *extra]
    return train.main(arguments), capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "walker_wlak"}, ["walker_wlak", "did you mean", "walker_walk"]),
        ({"task": "atari_pong"}, ["atari_pong", "observations is vectors", "atari100k"]),
        ({"task": "atari_pong", "variant": "vision-2024"}, ["atari_pong", "vision-2024", "60 env steps", "take atari"]),
        ({"task": "walker_walk", "variant": "atari100k"}, ["walker_walk", "settings of games", "dreamerv3 or vision"]),
        ({"task": "crafter_reward"}, ["crafter_reward", "observations is vectors", "variant crafter"]),
        ({"task": "crafter_reward", "variant": "vision"}, ["settings of control", "60 env steps", "variant crafter"]),
        ({"task": "crafter_reward", "variant": "atari"}, ["settings of games", "repeat 2", "take variant crafter"]),
        ({"task": "walker_walk", "variant": "crafter"}, ["walker_walk", "settings of Crafter", "dreamerv3 or vision"]),
        ({"task": "atari_pong", "variant": "crafter"}, ["atari_pong", "settings of Crafter", "atari or atari100k"]),
        ({"extra": ["--framework", "numpy"]}, ["numpy", "torch and in jax"]),
        ({"schedule__fill_windows": 1024}, ["about 300 rows", "after 1,036", "schedule.fill_windows"]),
        ({"exploration__prefill": "random"}, ["exploration.prefill: random", "batch.context: 0"]),
        ({"schedule__train_ratio": 0}, ["schedule.train_ratio"]),
    ],
)
def test_mistakes_are_told_in_one_message_and_leave_nothing(tmp_path, capsys, options, words):
    status, said = call(tmp_path, capsys, **options)
    assert status == 2 and "Traceback" not in said, said
    for word in words:
        assert word in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_code_that_decides_numbers_is_listed_and_exists(framework):
    paths = launch.code_paths("dreamerv3", framework)
    assert all(path.exists() for path in paths)
    named = {str(path.relative_to(ROOT)) for path in paths}
    other = {"torch": "jax", "jax": "torch"}[framework]
    folder = (ROOT / "replications" / "dreamerv3").glob("*.py")
    own = {path for path in folder if not path.name.startswith(("__init__", "figures", "precision", "walk"))}
    own = {str(path.relative_to(ROOT)) for path in own if not path.name.endswith(f"_{other}.py")}
    assert len(own) >= 5 and named >= {f"shared/device_{framework}.py", "shared/replay"} | own
    assert not any(name.endswith(f"_{other}.py") for name in named)
