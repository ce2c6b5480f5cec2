"""A run file reads back as written, also after a kill and a resume; what cannot be read is told with a way out."""

import errno
import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from shared.checkpoint import load_tree, save_tree
from shared.errors import UserError, explain
from shared.results import COUNTERS, METRICS, TABLES, RunWriter, list_runs, partial_path, read_run

IDENTITY = {
    "paper": "planet", "framework": "torch", "variant": "rssm", "task": "cartpole_swingup", "seed": 3, "scale": "smoke",
}
CONFIG = "model:\n  deter_size: 200\n  free_nats: 3.0  # é\n"
OVERRIDES = [{"key": "planner.candidates", "value": 10, "layer": "scale smoke"}]
PROVENANCE = {
    "git_commit": "abc", "git_dirty": "", "git_diff_sha256": "0", "code_digest": "d1", "command": "python -m x",
    "started": "2026-01-01T00:00:00+00:00", "device": "cpu", "threads": 2, "seeds": '{"seed": 3}',
    "packages": "numpy==2.4.6\ntorch==2.13.0", "git_diff": "",
}


def make(path: Path, **changes) -> RunWriter:
    options = {
        "identity": IDENTITY, "config_text": CONFIG, "overrides": OVERRIDES, "provenance": PROVENANCE,
        "total_env_steps": 2000,
    }
    return RunWriter(path, **(options | changes))


class Lazy:
    """A scalar on a device: reading it waits for the device, so it may be read only when the file is written."""

    def __init__(self, value: float):
        self.value, self.reads = value, 0

    def __float__(self) -> float:
        self.reads += 1
        return self.value


def fill(writer: RunWriter, first: int, last: int) -> None:
    """Rows as a run of `last` segments adds them."""
    for number in range(first, last):
        at = {"env_steps": number * 100, "updates": number * 10}
        writer.add("train/episode", **at, agent_steps=number * 50, episode=number, length=50, **{"return": number / 3})
        writer.add("learn/update", **at, loss=Lazy(1 / (1 + number)), kl=np.float32(0.1) * number)
        if number % 2:
            writer.add("eval/episode", **at, episode=0, length=50, **{"return": -number})
        writer.add("time/segment", **at, wall_seconds=0.5, learn_seconds=0.25)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "smoke/planet/torch/rssm/cartpole_swingup/seed_3.h5"


# ---------------------------------------------------------------------------------------------- write and read


def test_a_complete_run_reads_back(path):
    writer = make(path)
    fill(writer, 1, 6)
    writer.finish()
    run = read_run(path)
    assert run.attrs == {"schema": 1, **IDENTITY, "status": "complete", "total_env_steps": 2000, "env_steps": 500}
    assert run.config_text == CONFIG
    assert run.config_sha256 == hashlib.sha256(CONFIG.encode()).hexdigest()
    assert run.overrides == OVERRIDES
    assert run.video is None
    expected = {
        "env_steps": [100, 200, 300, 400, 500], "agent_steps": [50, 100, 150, 200, 250],
        "updates": [10, 20, 30, 40, 50],
        "episode": [1, 2, 3, 4, 5], "return": [1 / 3, 2 / 3, 1.0, 4 / 3, 5 / 3], "length": [50] * 5,
    }
    pd.testing.assert_frame_equal(run.tables["train/episode"], pd.DataFrame(expected), check_like=True)
    assert run.tables["eval/episode"]["return"].tolist() == [-1.0, -3.0, -5.0]
    assert run.tables["learn/update"]["loss"].tolist() == [1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]


def test_provenance_reads_back(path):
    make(path).finish()
    provenance = read_run(path).provenance
    assert {name: provenance[name] for name in PROVENANCE} == PROVENANCE
    (session,) = provenance["sessions"]
    assert session["code_digest"] == "d1" and session["started"] == PROVENANCE["started"]
    assert provenance["finished"] > provenance["started"] and 0 <= provenance["wall_seconds"] < 60


def test_every_dataset_says_unit_and_meaning_and_has_its_type(path):
    writer = make(path)
    fill(writer, 1, 3)
    writer.finish()
    with h5py.File(path) as file:
        for table in TABLES:
            for name, column in file[table].items():
                assert (column.attrs["unit"], column.attrs["meaning"]) == METRICS[name]
                assert column.dtype == (np.int64 if name in COUNTERS else np.float64), name
                assert column.ndim == 1


def test_four_lines_of_pandas_read_a_curve_without_this_repository(path):
    """The lines of results/README.md."""
    writer = make(path)
    fill(writer, 1, 6)
    writer.finish()
    with h5py.File(path) as file:
        curve = pd.DataFrame({name: column[()] for name, column in file["train/episode"].items()})
    curve = curve.set_index("env_steps")["return"]
    assert curve.loc[300] == 1.0


def test_a_run_without_rows_has_its_columns(path):
    make(path).flush()
    run = read_run(partial_path(path))
    assert {table: tuple(sorted(frame)) for table, frame in run.tables.items()} == {
        table: tuple(sorted(columns)) for table, columns in TABLES.items()
    }
    assert all(len(frame) == 0 for frame in run.tables.values())
    assert run.attrs["env_steps"] == 0
    assert run.tables["train/episode"]["env_steps"].dtype == np.int64


def test_lazy_values_are_read_once_and_only_when_written(path):
    writer, value = make(path), Lazy(2.5)
    writer.add("learn/update", updates=1, env_steps=8, loss=value)
    assert value.reads == 0
    writer.flush()
    writer.save()
    writer.finish()
    assert value.reads == 1
    assert read_run(path).tables["learn/update"]["loss"].tolist() == [2.5]


@pytest.mark.parametrize("column", ["loss", "grad_norm", "actor_loss", "critic_loss", "value_grad_norm"])
def test_a_diverged_run_is_refused_and_names_the_update(path, column):
    writer = make(path)
    good = {"loss": 1.0, "grad_norm": 1.0, "actor_loss": -1.0, "critic_loss": 1.0, "value_grad_norm": 1.0}
    writer.add("learn/update", updates=6, env_steps=5, **good)
    writer.add("learn/update", updates=7, env_steps=5, **{**good, column: float("nan")})
    with pytest.raises(UserError, match=f"{column} is nan at update 7"):
        writer.finish()
    assert not path.exists()


def test_counters_are_exact_and_nan_survives(path):
    writer = make(path)
    writer.add("learn/update", updates=2**53 + 1, env_steps=np.int64(2**60 + 1), reward_loss=np.nan, kl=float("inf"))
    writer.finish()
    (row,) = read_run(path).tables["learn/update"].to_dict("records")
    assert (row["updates"], row["env_steps"]) == (2**53 + 1, 2**60 + 1)
    assert np.isnan(row["reward_loss"]) and row["kl"] == np.inf


def test_partial_then_complete(path):
    writer = make(path)
    fill(writer, 1, 3)
    writer.flush()
    assert read_run(partial_path(path)).attrs["status"] == "running"
    assert not path.exists()
    fill(writer, 3, 5)
    writer.flush()
    assert len(read_run(partial_path(path)).tables["train/episode"]) == 4
    writer.finish()
    assert read_run(path).attrs["status"] == "complete"
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_video_reads_back_and_is_compressed(path):
    truth = np.zeros((2, 10, 64, 64, 3), np.uint8)
    truth[:, :, :8] = 255
    video = {"truth": truth, "prediction": truth[::-1] // 2, "context": 5, "source": "test episode, first start"}
    make(path).finish(video)
    got = read_run(path).video
    assert got.keys() == video.keys()
    np.testing.assert_array_equal(got["truth"], truth)
    np.testing.assert_array_equal(got["prediction"], video["prediction"])
    assert (got["context"], got["source"]) == (5, video["source"])
    with h5py.File(path) as file:
        assert file["video/truth"].compression == "gzip"
        assert file["video/truth"].id.get_storage_size() < truth.nbytes / 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((1, 2, 4, 4, 3), np.float32)}, "truth is float32"),
        ({"prediction": np.zeros((1, 3, 4, 4, 3), np.uint8)}, r"prediction is uint8 \(1, 3, 4, 4, 3\)"),
        ({"fps": 3}, "fps"),
    ],
)
def test_a_video_of_another_form_is_refused_and_nothing_is_written(path, change, message):
    frames = np.zeros((1, 2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        make(path).finish({"truth": frames, "prediction": frames, "context": 1, "source": "x"} | change)
    assert not path.exists()


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        ("learn/updates", {"updates": 1, "env_steps": 1}, "unknown table 'learn/updates'"),
        ("learn/update", {"updates": 1, "env_steps": 1, "image_lss": 1.0}, r"unknown columns \['image_lss'\]"),
        ("learn/update", {"updates": 1, "loss": 1.0}, r"lacks columns \['env_steps'\]"),
        ("train/episode", {"env_steps": 1}, "lacks columns"),
    ],
)
def test_unknown_tables_and_columns_are_refused(path, table, columns, message):
    with pytest.raises(ValueError, match=message):
        make(path).add(table, **columns)


def test_the_columns_of_a_table_do_not_change_in_a_run(path):
    writer = make(path)
    writer.add("learn/update", updates=1, env_steps=1, loss=1.0)
    with pytest.raises(ValueError, match=r"got columns \['env_steps', 'kl', 'updates'\], expected .*'loss'"):
        writer.add("learn/update", updates=2, env_steps=2, kl=1.0)


def test_a_counter_that_is_no_integer_is_refused_at_once(path):
    with pytest.raises(TypeError, match="float"):
        make(path).add("learn/update", updates=1.5, env_steps=1)


def test_an_identity_must_be_whole(path):
    with pytest.raises(ValueError, match="identity"):
        make(path, identity={name: value for name, value in IDENTITY.items() if name != "seed"})


def damaged(path: Path, kind: str) -> None:
    make(path).finish()
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "text":
        path.write_text("a,b\n1,2\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "schema":
        with h5py.File(path, "a") as file:
            file.attrs["schema"] = 7
    elif kind == "table":
        with h5py.File(path, "a") as file:
            del file["eval/episode"]
    elif kind == "another":
        with h5py.File(path, "w") as file:
            file["image"] = 3


DAMAGES = {
    "truncated": "truncated or damaged.*delete it and run",
    "text": "not an HDF5 file.*delete it",
    "empty": "not an HDF5 file",
    "missing": "does not exist; run",
    "folder": "is a folder",
    "schema": "has schema 7, this code reads schema 1; check out",
    "table": "is damaged",
    "another": "no run file",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_file_that_cannot_be_read_is_told_with_its_way_out(path, kind):
    damaged(path, kind)
    with pytest.raises(UserError, match=DAMAGES[kind]) as caught:
        read_run(path)
    assert str(path) in str(caught.value)


# ---------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("what", ["flush", "finish"])
def test_a_full_disk_leaves_the_partial_file_as_it_was(path, monkeypatch, what):
    writer = make(path)
    fill(writer, 1, 3)
    writer.flush()
    before = partial_path(path).read_bytes()
    fill(writer, 3, 5)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(os, "fsync", full)
        getattr(writer, what)()
    assert "the disk is full" in explain(caught.value) and path.name in explain(caught.value)
    assert [one.name for one in path.parent.iterdir()] == [partial_path(path).name]
    assert partial_path(path).read_bytes() == before
    writer.finish()  # nothing was lost in memory
    assert len(read_run(path).tables["train/episode"]) == 4


@pytest.mark.parametrize("flushes", [0, 2])
def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(tmp_path, path, flushes):
    """All but /time and the times in /provenance, dataset by dataset, bit by bit."""
    straight = make(tmp_path / "straight.h5")
    fill(straight, 1, 9)
    straight.finish()

    killed = make(path)
    fill(killed, 1, 5)
    save_tree(tmp_path / "tree.h5", killed.save())
    fill(killed, 5, 7)  # lost
    for _ in range(flushes):
        killed.flush()
    resumed = make(path)
    resumed.load(load_tree(tmp_path / "tree.h5"))
    fill(resumed, 5, 9)
    resumed.finish()

    with h5py.File(tmp_path / "straight.h5") as left, h5py.File(path) as right:
        names = {table: set(left[table]) for table in TABLES}
        assert names == {table: set(right[table]) for table in TABLES}
        for table in ("train/episode", "eval/episode", "learn/update"):
            for name in names[table]:
                assert left[table][name].dtype == right[table][name].dtype
                assert left[table][name][()].tobytes() == right[table][name][()].tobytes()
        assert left["config"][()] == right["config"][()]
        assert dict(left.attrs) == dict(right.attrs)


def test_a_run_resumed_before_its_first_row_may_still_fix_its_columns(path):
    writer = make(path)
    writer.load(make(path).save())
    fill(writer, 1, 3)
    writer.finish()
    assert list(read_run(path).tables["learn/update"]["loss"]) == [1 / 2, 1 / 3]


def test_sessions_and_wall_time_add_up(path, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("shared.results.time.monotonic", lambda: next(clock))
    first = make(path)  # at 0
    tree = first.save()  # at 10
    assert tree["wall_seconds"] == 10
    second = make(path, provenance=PROVENANCE | {"started": "2026-01-02T00:00:00+00:00", "code_digest": "d2"})
    second.load(tree)  # the clock of the second session starts at 30
    second.finish()  # at 40
    run = read_run(path)
    assert run.provenance["wall_seconds"] == 20
    assert run.provenance["started"] == PROVENANCE["started"]
    assert [session["code_digest"] for session in run.provenance["sessions"]] == ["d1", "d2"]
    assert run.provenance["code_digest"] == "d2"
    assert run.code_digests == ("d1", "d2")


def test_saved_rows_do_not_change_when_the_run_goes_on(path):
    writer = make(path)
    fill(writer, 1, 3)
    tree = writer.save()
    fill(writer, 3, 5)
    writer.save()
    assert len(tree["tables"]["learn/update"]["loss"]) == 2


# ---------------------------------------------------------------------------------------------- the list of runs


def place(root: Path, **identity) -> Path:
    one = IDENTITY | identity
    folders = [str(one[name]) for name in ("scale", "paper", "framework", "variant", "task")]
    return root.joinpath(*folders, f"seed_{one['seed']}.h5")


def write(root: Path, *, segments: int, complete: bool, **identity) -> Path:
    writer = make(place(root, **identity), identity=IDENTITY | identity)
    fill(writer, 1, segments + 1)
    if complete:
        writer.finish()
    else:
        writer.flush()
    return writer.path


def test_runs_are_listed_with_how_far_they_came(tmp_path):
    write(tmp_path, segments=20, complete=True, seed=0)
    write(tmp_path, segments=5, complete=False, seed=1)
    write(tmp_path, segments=20, complete=True, seed=2, paper="dreamer", scale="laptop")
    finished = write(tmp_path, segments=2, complete=True, seed=4)
    make(finished, identity=IDENTITY | {"seed": 4}).flush()  # a leftover beside the complete file
    checkpoint = place(tmp_path, seed=0).with_suffix(".ckpt") / "seed_9.h5"
    make(checkpoint).finish()  # a checkpoint folder is not searched
    damaged(place(tmp_path, seed=5), "text")
    (tmp_path / "smoke/planet/figure_4.csv").write_text("x")

    runs = list_runs(tmp_path)
    assert runs["seed"].tolist() == [2, 0, 1, 4, 5]
    assert runs["status"].tolist() == ["complete", "complete", "running", "complete", "unreadable"]
    assert runs["env_steps"].tolist()[:4] == [2000, 2000, 500, 200]
    assert set(runs["scale"]) == {"smoke", "laptop"} and runs["paper"].tolist()[-1] == "planet"
    assert (runs["code_digest"].tolist()[0], runs["git_commit"].tolist()[0]) == ("d1", "abc")
    assert "not an HDF5 file" in runs["problem"].tolist()[-1] and runs["problem"].tolist()[0] == ""

    assert list_runs(tmp_path, paper="dreamer")["seed"].tolist() == [2]
    assert list_runs(tmp_path, scale="smoke", task="cartpole_swingup")["seed"].tolist() == [0, 1, 4, 5]
    assert list_runs(tmp_path / "smoke", variant="ssm").empty


def test_no_runs_is_an_empty_table_with_columns(tmp_path):
    runs = list_runs(tmp_path / "nowhere")
    assert runs.empty and {"paper", "status", "env_steps", "total_env_steps", "code_digest"} <= set(runs)


def test_overrides_are_json(path):
    make(path).finish()
    with h5py.File(path) as file:
        assert json.loads(file["config"].attrs["overrides"]) == OVERRIDES
