"""A run that is killed at any moment and started again gives exactly the numbers of an uninterrupted one.

Real training processes on the toy task, real SIGKILL. Checkpoints fall inside episodes here, so that environments, the
agent's belief and half an episode of replay have to come back too. tests/envs holds the same for dm_control's episodes.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from shared.config import ROOT
from tests import tiny

MOMENTS = ["update:5", "write:episode:4", "write:step_:2", "write:.json:1", "write:.partial:1", "step:40", "update:6"]


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
            wait_for((tmp_path / "seed_3.ckpt" / "replay"), process)
            time.sleep(chance.uniform(0, 1.5))
            if process.poll() is not None:
                break  # it finished before the blow fell
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
    assert kills, "the run was over before it could be killed once; make it longer"
    assert out.exists() or tiny.train(config, out).returncode == 0
    tiny.assert_same(out, reference)


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, f"{path} did not appear within a minute"
        time.sleep(0.02)


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


def test_another_config_does_not_continue_the_old_checkpoint(reference, tmp_path):
    config, out = tiny.write_config(tmp_path / "config.yaml", planner__horizon=2), tmp_path / "seed_3.h5"
    assert tiny.train(config, out, die="update:12").returncode == -signal.SIGKILL
    done = tiny.train(tiny.write_config(tmp_path / "config.yaml"), out)
    assert done.returncode == 0 and "continuing" not in done.stderr
    tiny.assert_same(out, reference)
    assert (tmp_path / "seed_3.ckpt.stale").is_dir()
