"""Published curves: quirks of each file, the authors' printed averages, and what serves where no copy is at hand."""

import gzip
import json

import numpy as np
import pytest

from shared.config import read_yaml
from shared.diff import published
from shared.errors import UserError
from workflows.scripts import obtain_published, reference_published

HERE = published.folder()
needs_files = pytest.mark.skipif(HERE is None, reason="no copy of the authors' files: set REFERENCE_DIR")
# Release -> (runs with a final score, tasks, mean over tasks, median over tasks): the papers' tables, or the sheet's.
PRINTED = {
    "dreamer/tf2/dmc_vision": (100, 20, 805.5, None),
    "dreamerv2/control/dmc_vision": (100, 20, 787.3, 847.1),
    "dreamerv2/humanoid/dmc_vision": (10, 1, 805, None),
    "dreamerv2/montezuma/atari": (6, 1, 2313, None),
    "dreamerv3/2024/dmc_vision": (197, 20, 786.1, 861.2),
    "dreamerv3/2024/dmc_proprio": (90, 18, 753.5, 870.6),
    "dreamerv3/2023/dmc_vision": (99, 20, 739.6, 808.5),
}


def release(name):
    return published.releases()[name]


@pytest.mark.parametrize("name", PRINTED)
def test_the_final_scores_average_to_what_is_printed(name):
    """From the derived table of finals, so it needs no copy of the files."""
    table = published.load(release(name), source=None)
    finals = published.finals(release(name), table)
    means = finals.groupby("task")["final"].mean()
    runs, tasks, mean, median = PRINTED[name]
    assert (len(finals), len(means)) == (runs, tasks)
    assert means.mean() == pytest.approx(mean, abs=0.06 if mean < 800 else 0.5)
    assert median is None or means.median() == pytest.approx(median, abs=0.06)


@needs_files
@pytest.mark.parametrize("name", ["dreamerv3/2023/dmc_vision", "dreamerv2/control/dmc_vision"])
def test_derived_and_exact_tables_tell_the_same(name):
    exact, derived = published.load(release(name)), published.load(release(name), source=None)
    assert exact.attrs["exact"] and not derived.attrs["exact"]
    assert list(exact.columns) == list(derived.columns) == list(published.COLUMNS)
    again = published.binned(exact, release(name).end)
    np.testing.assert_allclose(derived["return"], again["return"], rtol=1e-4)
    np.testing.assert_array_equal(derived["env_steps"], again["env_steps"])
    key = ["task", "seed"]
    one, other = (published.finals(release(name), t).set_index(key)["final"] for t in (exact, derived))
    np.testing.assert_allclose(one, other.loc[one.index], rtol=1e-7)


@needs_files
def test_the_derived_tables_are_what_the_script_makes(monkeypatch):
    few = {name: release(name) for name in ("dreamer/tf2/dmc_vision", "dreamerv3/2023/dmc_proprio")}
    monkeypatch.setattr(reference_published, "releases", lambda: few)
    curves, scores = reference_published.tables(HERE)
    kept = published.derived_curves()
    for name in few:
        ours, theirs = (t[t["release"] == name]["return"].to_numpy() for t in (curves, kept))
        np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    text = gzip.decompress(reference_published.compressed(curves)).decode()
    assert text.splitlines()[0] == "release,task,seed,env_steps,return"


@needs_files
def test_what_the_readme_says_of_each_file_holds():
    assert published.folder() == HERE
    two = published.load(release("dreamerv2/dreamerv2/atari"))
    assert sorted(two["seed"].unique()) == list(range(3, 11)) and two["env_steps"].max() == 200e6
    assert sorted(published.load(release("dreamerv2/nosched/atari"))["seed"].unique()) == [0, 1, 2]
    control = published.load(release("dreamerv2/control/dmc_vision"))
    assert not control["task"].str.startswith("stats").any() and "cup_catch" in set(control["task"])
    assert set(published.load(release("dreamerv2/humanoid/dmc_vision"))["seed"]) == set(range(10))
    vision = published.load(release("dreamerv3/2024/dmc_vision"))
    runs = vision.groupby("task")["seed"].nunique()
    assert runs["finger_turn_hard"] == 9 and runs["reacher_hard"] == 8 and "cup_catch" in runs.index
    one, other = (published.load(release(f"dreamerv3/{year}/dmc_proprio")) for year in ("2024", "2023"))
    np.testing.assert_allclose(one["return"], other["return"], rtol=1e-6, atol=1e-9)  # the later file has six digits
    dogs = published.load(release("dreamerv3/independent/dmc_proprio"))
    assert dogs["task"].nunique() == 39 and dogs.groupby("task")["seed"].nunique().max() == 3


def test_games_are_called_as_ours_are(tmp_path):
    runs = [
        {"task": "atari_jamesbond", "method": "dreamerv3", "seed": 0, "xs": [4e5, 8e5, 12e5], "ys": [None, 2.0, 3.0]},
        {"task": "stats_normalized_mean", "method": "dreamerv3", "seed": 0, "xs": [1], "ys": [1.0]},
        {"task": "atari_pong", "method": "ppo", "seed": 0, "xs": [1], "ys": [1.0]},
    ]
    frames = published.of_json(release("dreamerv3/2024/atari"), "x.json", json.dumps(runs).encode())
    (frame,) = frames
    assert set(frame["task"]) == {"atari_james_bond"} and np.isnan(frame["return"]).sum() == 1
    assert published.seed_number("indir1_7") == 7


def test_bins_hold_what_ends_in_them():
    table = published.pd.DataFrame(
        {"task": "t", "seed": 0, "env_steps": [0.0, 1.0, 100.0, 101.0, 250.0], "return": [0.0, 2.0, 4.0, 6.0, 9.0]}
    )
    got = published.binned(table, 200, bins=2)
    assert got["env_steps"].tolist() == [100, 200] and got["return"].tolist() == [2.0, 6.0]


def test_a_file_of_another_commit_is_refused(tmp_path):
    name = next(iter(release("dreamer/tf2/dmc_vision").files))
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("[]")
    with pytest.raises(UserError, match="not the file of the pinned commit"):
        published.load(release("dreamer/tf2/dmc_vision"), source=tmp_path)


def test_a_wrong_folder_or_release_is_told(monkeypatch):
    monkeypatch.setenv("REFERENCE_DIR", "/nowhere/at/all")
    with pytest.raises(UserError, match="no such folder"):
        published.folder()
    with pytest.raises(UserError, match="no such release"):
        published.named("dreamerv4")


def test_every_release_is_pinned():
    for entry in read_yaml(published.REGISTRY)["releases"].values():
        assert set(entry["origin"]) == {"repository", "commit", "folder"} and len(entry["origin"]["commit"]) >= 7
        assert all(len(sha256) == 64 for sha256 in entry["files"].values())
        assert entry["returns"] in ("evaluation", "training")


@needs_files
def test_files_are_obtained_from_a_mirror_or_by_their_address(tmp_path, monkeypatch):
    """A folder laid out as GitHub's addresses stands for the network."""
    few = {name: release(name) for name in ("dreamer/tf2/dmc_vision", "dreamerv2/montezuma/atari")}
    monkeypatch.setattr(obtain_published, "releases", lambda: few)
    came = obtain_published.obtain(tmp_path / "copied", "http://127.0.0.1:9", HERE)
    assert set(came.values()) == {"mirror"}
    for one in few.values():
        for name in one.files:
            url = obtain_published.address(f"{tmp_path}/host", one, name)
            path = published.Path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((HERE / name).read_bytes())
    host = f"file://{tmp_path}/host"
    came = obtain_published.obtain(tmp_path / "fetched", host, None)
    assert all(url.startswith(host) for url in came.values())
    assert set(obtain_published.obtain(tmp_path / "fetched", host, None).values()) == {"kept"}
    with pytest.raises(UserError, match="REFERENCE_DIR=FOLDER"):
        obtain_published.obtain(tmp_path / "none", "file:///nowhere", None)
