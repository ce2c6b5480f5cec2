"""A run that is killed at any moment and started again gives exactly the numbers of an uninterrupted one.

Real training processes on the toy task, real SIGKILL. Checkpoints fall inside episodes here, so that environments, the
agent's belief and half an episode of replay have to come back too. tests/envs holds the same for dm_control's episodes.
The moments are taken in torch, whose processes start quickly; two of them again in JAX.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from shared import claim
from shared.config import ROOT
from shared.results import read_run
from tests import tiny

MOMENTS = [
    "update:5",
    "write:episode*:4",
    "write:step_*.h5:2",
    "write:step_*.json:1",
    "write:*.partial:1",
    "step:40",
    "update:6",
    "write:*.safetensors:1",
    "write:seed_3.h5:1",
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference")
    config = tiny.write_config(folder / "config.yaml")
    done = tiny.train(config, folder / "seed_3.h5")
    assert done.returncode == 0, done.stderr
    return folder / "seed_3.h5"


def test_the_same_seed_gives_the_same_bits(reference, tmp_path):
    config = tiny.write_config(tmp_path / "config.yaml")
    assert tiny.train(config, tmp_path / "seed_3.h5").returncode == 0
    tiny.assert_same(tmp_path / "seed_3.h5", reference)


def test_workers_do_not_change_the_numbers(reference, tmp_path):
    config = tiny.write_config(tmp_path / "config.yaml")
    done = tiny.train(config, tmp_path / "seed_3.h5", "--workers", "2")
    assert done.returncode == 0, done.stderr
    tiny.assert_same(tmp_path / "seed_3.h5", reference)


def test_another_seed_gives_other_numbers(reference, tmp_path):
    config = tiny.write_config(tmp_path / "config.yaml")
    assert tiny.train(config, tmp_path / "seed_4.h5", seed=4).returncode == 0
    with pytest.raises(AssertionError, match="differs"):
        tiny.assert_same(tmp_path / "seed_4.h5", reference)


def test_killed_at_every_kind_of_moment_in_turn(reference, tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    for moment in MOMENTS:
        done = tiny.train(config, out, die=moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr)
        assert not out.exists(), f"a file under the final name after a kill at {moment}"
    done = tiny.train(config, out)
    assert done.returncode == 0, done.stderr
    assert "continuing at" in done.stderr
    tiny.assert_same(out, reference)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "seed_3.h5", "seed_3.safetensors"]


def test_killed_and_resumed_in_jax(tmp_path, monkeypatch):
    """The processes share what XLA compiled, which spares minutes; the uninterrupted run compiles it."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    changes = {"schedule__total_env_steps": 600, "schedule__evaluate_every_env_steps": 240}
    config, jax = tiny.write_config(tmp_path / "config.yaml", **changes), ("--framework", "jax")
    done = tiny.train(config, tmp_path / "whole.h5", *jax)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "seed_3.h5"
    for moment in ("update:9", "step:40"):
        done = tiny.train(config, out, *jax, die=moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr)
    done = tiny.train(config, out, *jax)
    assert done.returncode == 0, done.stderr
    assert "continuing at" in done.stderr
    tiny.assert_same(out, tmp_path / "whole.h5")


def test_killed_at_random_moments_by_another_process(reference, tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    chance = random.Random(0)
    command = [
        sys.executable,
        "-m",
        "replications.planet.train",
        "--config",
        str(config),
        "--task",
        "toy_reach",
        "--seed",
        "3",
        "--out",
        str(out),
        "--threads",
        "1",
    ]
    kills = 0
    while kills < 3:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for_a_new_checkpoint(tmp_path / "seed_3.ckpt", process)
            time.sleep(chance.uniform(0, 0.5))
            if process.poll() is not None:
                break  # it finished before the blow fell
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
    assert kills, "the run was over before it could be killed once; make it longer"
    assert out.exists() or tiny.train(config, out).returncode == 0
    tiny.assert_same(out, reference)


def wait_for_a_new_checkpoint(folder, process):
    """Until this process, and not one before it, has written something: it is in the middle of its work."""
    before, deadline = set(folder.glob("step_*")), time.monotonic() + 120
    while set(folder.glob("step_*")) <= before and process.poll() is None:
        assert time.monotonic() < deadline, f"no checkpoint appeared in {folder} within two minutes"
        time.sleep(0.01)


def test_killed_while_it_tidies_up_after_itself(reference, tmp_path):
    """The result is there by then: the next start says so and removes what is left."""
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    assert tiny.train(config, out, die="rmtree:1").returncode == -signal.SIGKILL
    assert out.exists() and (tmp_path / "seed_3.ckpt").exists()
    done = tiny.train(config, out)
    assert done.returncode == 0 and "is complete" in done.stderr
    tiny.assert_same(out, reference)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "seed_3.h5", "seed_3.safetensors"]


def test_two_processes_cannot_write_one_run(reference, tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    with claim.only_writer(out):
        second = tiny.train(config, out)
    assert second.returncode == 2 and "being trained by another process" in second.stderr
    assert not (tmp_path / "seed_3.ckpt").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "no manifest", "replay"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(reference, tmp_path, damage):
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    assert tiny.train(config, out, die="update:20").returncode == -signal.SIGKILL
    checkpoints = sorted((tmp_path / "seed_3.ckpt").glob("step_*.h5"))
    assert len(checkpoints) == 2
    newest, data = checkpoints[-1], checkpoints[-1].read_bytes()
    if damage == "truncate":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        newest.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "no manifest":
        newest.with_suffix(".json").unlink()
    else:
        episode = sorted((tmp_path / "seed_3.ckpt" / "replay").glob("*.h5"))[0]
        episode.write_bytes(episode.read_bytes()[:-10])
    done = tiny.train(config, out)
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr
    if damage != "replay":  # the damaged episode is in both checkpoints: there the run starts anew, and says that
        assert f"continuing at {int(checkpoints[0].stem[5:]):,}" in done.stderr
    tiny.assert_same(out, reference)


def test_another_config_does_not_continue_the_old_checkpoint_and_does_not_delete_it(reference, tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml", planner__horizon=2), tmp_path / "seed_3.h5"
    assert tiny.train(config, out, die="update:12").returncode == -signal.SIGKILL
    done = tiny.train(tiny.write_config(tmp_path / "config.yaml"), out)
    assert done.returncode == 0 and "continuing" not in done.stderr and "set aside" in done.stderr
    tiny.assert_same(out, reference)
    assert list((tmp_path / "seed_3.ckpt.stale").glob("step_*.h5"))


def test_other_threads_are_told_because_they_change_the_numbers(tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    assert tiny.train(config, out, die="update:12").returncode == -signal.SIGKILL
    done = tiny.train(config, out, "--threads", "2")
    assert done.returncode == 0 and "threads was 1 and is 2 now" in done.stderr
    assert [session["threads"] for session in read_run(out).provenance["sessions"]] == [1, 2]


def test_the_same_place_for_another_seed_is_refused_and_nothing_is_lost(tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml"), tmp_path / "seed_3.h5"
    assert tiny.train(config, out, die="update:12").returncode == -signal.SIGKILL
    before = sorted(p.name for p in (tmp_path / "seed_3.ckpt").rglob("*"))
    done = tiny.train(config, out, seed=4)
    assert done.returncode == 2 and "seed" in done.stderr
    assert sorted(p.name for p in (tmp_path / "seed_3.ckpt").rglob("*")) == before
