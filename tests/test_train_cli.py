"""What a person is told who asks for something impossible: one message, status 2, no traceback, nothing left behind."""

import numpy as np
import pytest

from replications.planet import train
from shared.config import write_resolved
from tests import tiny


def call(tmp_path, capsys, *, config=None, task="toy_reach", seed="3", out=None, extra=(), **changes):
    """Run the command line in this process: (status, what it said on stderr)."""
    config = config or tiny.write_config(tmp_path / "config.yaml", **changes)
    out = out or tmp_path / "new" / "seed_3.h5"
    arguments = ["--config", str(config), "--task", task, "--seed", seed, "--out", str(out), "--threads", "1", *extra]
    try:
        status = train.main(arguments)
    except SystemExit as error:  # argparse's own refusal
        status = error.code
    return status, capsys.readouterr().err


def assert_told(tmp_path, result, *words):
    status, said = result
    assert status == 2, (status, said)
    assert "Traceback" not in said
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    assert not (tmp_path / "new").exists(), "a mistake left something behind"


def test_an_unknown_task_names_its_neighbours(tmp_path, capsys):
    assert_told(tmp_path, call(tmp_path, capsys, task="cartpole_swinup"), "cartpole_swinup", "cartpole_swingup")


def test_an_unknown_framework(tmp_path, capsys):
    assert_told(tmp_path, call(tmp_path, capsys, extra=["--framework", "jaxx"]), "jaxx", "torch")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"planner__elites": 11}, ["elites (11)", "candidates (10)"]),
        ({"batch__length": 40}, ["batch.length (needs 40 rows)", "an episode of"]),
        ({"video__context": 8}, ["context (8)", "length (8)"]),
        ({"schedule__prefill_env_steps": 100}, ["prefill_env_steps (100)", "120 env steps"]),
        (
            {"loss__overshooting_scale": 1.0, "loss__overshooting_distance": 1},
            ["overshooting_distance (1)", "at least 2"],
        ),
        ({"planner__std": "paper", "planner__elites": 1}, ["elites (1)", "at least 2"]),
    ],
)
def test_impossible_sizes(tmp_path, capsys, changes, words):
    assert_told(tmp_path, call(tmp_path, capsys, **changes), *words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("horizn", 12, ["planner.horizn", "horizon"]),
        ("horizon", "twelve", ["planner.horizon", "twelve"]),
        ("horizon", -1, ["planner.horizon", "-1"]),
    ],
)
def test_unknown_keys_and_wrong_values(tmp_path, capsys, key, value, words):
    values = tiny.values()
    values["planner"][key] = value
    resolved = {"paper": "planet", "variant": "rssm", "scale": "smoke", "overrides": [], "values": values}
    write_resolved(tmp_path / "config.yaml", resolved)
    assert_told(tmp_path, call(tmp_path, capsys, config=tmp_path / "config.yaml"), *words)


def test_a_missing_config_file(tmp_path, capsys):
    assert_told(tmp_path, call(tmp_path, capsys, config=tmp_path / "none.yaml"), "none.yaml")


@pytest.mark.parametrize(("seed", "extra"), [("-1", ()), ("3", ["--threads", "0"]), ("3", ["--workers", "-2"])])
def test_impossible_numbers(tmp_path, capsys, seed, extra):
    assert_told(tmp_path, call(tmp_path, capsys, seed=seed, extra=extra), "expected a whole number")


def test_a_name_that_is_no_result_file(tmp_path, capsys):
    assert_told(tmp_path, call(tmp_path, capsys, out=tmp_path / "new" / "seed_3.txt"), "seed_3.txt", ".h5")


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    status, said = call(tmp_path, capsys, out=tmp_path / "file" / "seed_3.h5")
    assert status == 2 and "choose another --out" in said and "Traceback" not in said


def test_a_result_of_another_schema_is_not_overwritten(tmp_path, capsys):
    import h5py

    out = tmp_path / "seed_3.h5"
    with h5py.File(out, "w") as file:
        file.attrs["schema"] = 99
    before = out.read_bytes()
    status, said = call(tmp_path, capsys, out=out)
    assert status == 2 and "schema" in said and "99" in said
    assert out.read_bytes() == before


def test_a_full_disk_is_told_and_leaves_no_file_under_the_final_name(tmp_path, capsys, monkeypatch):
    import errno
    import os

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, said = call(tmp_path, capsys, out=tmp_path / "seed_3.h5")
    assert status == 2 and "disk is full" in said and "Traceback" not in said
    assert not (tmp_path / "seed_3.h5").exists()


def test_a_diverged_run_is_no_result(tmp_path, capsys, monkeypatch):
    from replications.planet.agent_torch import PlanetAgent

    learn = PlanetAgent.learn

    def diverge(self, batch):
        learned = learn(self, batch)
        return learned._replace(metrics={**learned.metrics, "loss": np.nan}) if self.updates > 3 else learned

    monkeypatch.setattr(PlanetAgent, "learn", diverge)
    status, said = call(tmp_path, capsys, out=tmp_path / "seed_3.h5")
    assert status == 2 and "diverged" in said and "update 4" in said
    assert not (tmp_path / "seed_3.h5").exists()


def test_a_traceback_can_be_asked_for(tmp_path, capsys):
    with pytest.raises(Exception, match="toy_nowhere"):
        call(tmp_path, capsys, task="toy_nowhere", extra=["--traceback"])
