"""Dreamer's published numbers: averages recomputed, curves as the fact sheet tells them, files as the authors made."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from numpy.testing import assert_allclose

from replications.dreamer.figures_published import (
    CURVE_ORIGIN,
    GAMES,
    LINES,
    REFERENCE,
    RELEASED,
    TASKS,
    averages,
    guide_lines,
    levels,
    read_curves,
    read_table,
    released_average,
    released_curve,
)
from shared.config import ROOT
from shared.errors import UserError
from workflows.scripts import reference_dreamer

AUTHORS = ROOT.parent / "shared" / "reference"  # the authors' files, where this machine has them
CURVES = REFERENCE.with_name(RELEASED)
# The fact sheet's numbers of the released curves: at 1.005M and 2.005M env steps, last bin of all runs (mean, std)
SHEET = {
    "acrobot_swingup": (409.8, 483.4, 465.8, 43.8),
    "cartpole_balance": (988.3, 974.2, 641.4, 325.4),
    "cartpole_swingup": (855.3, 857.3, 868.7, 3.5),
    "finger_spin": (514.6, 463.2, 433.5, 140.2),
    "quadruped_walk": (445.9, 820.6, 926.4, 13.2),
    "walker_walk": (955.6, 969.3, 955.8, 33.0),
}


def test_the_averages_of_appendix_g_are_those_of_its_rows():
    """823.39 and 332.97 over 20 tasks, 786.32 (printed, cut) and 243.70 over the 18 without a quadruped."""
    found = averages(read_table(REFERENCE)).set_index("method")
    assert found["tasks"].to_dict() == {"A3C": 18, "D4PG": 18, "PlaNet": 20, "Dreamer": 20}
    for method, printed in {"Dreamer": 823.39, "PlaNet": 332.97, "D4PG": 786.32, "A3C": 243.70}.items():
        assert 0 <= found.at[method, "score"] + 1e-9 - printed < 0.01
    table = read_table(REFERENCE)
    without = table[~table["task"].str.startswith("quadruped")].groupby("method")["score"].mean()
    assert_allclose([without["Dreamer"], without["PlaNet"]], [813.77, 341.12], atol=0.005)


def changed(tmp_path: Path, before: str, after: str) -> Path:
    text = REFERENCE.read_text()
    assert text.count(before) == 1
    path = tmp_path / REFERENCE.name
    path.write_text(text.replace(before, after))
    return path


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("cheetah_run,894.56", "cheetah_run,849.56", r"Dreamer column has the mean 821\.14.*, printed is 823\.39"),
        ("average,786.32", "average,786.42", "D4PG column"),
        ("Dreamer,pixels,5000000,cup_catch,", "Dreamer,pixels,5000000,cup_throw,", "Dreamer on cup_catch"),
        ("method,input", "way,input", "expected method"),
    ],
)  # fmt: skip
def test_a_table_that_was_changed_is_refused(tmp_path, before, after, words):
    with pytest.raises(UserError, match=words):
        read_table(changed(tmp_path, before, after))


def test_the_released_curves_are_a_hundred_runs():
    rows = read_curves(CURVES)
    runs = rows.groupby(["task", "seed"])["env_steps"].agg(["min", "max"])
    assert len(runs) == 100 and set(rows["task"]) == set(TASKS)
    assert (runs["min"] == 5000).all() and (runs["max"] < 4_905_000).sum() == 13
    assert set((rows["env_steps"] - 5000) % 100_000) == {0}


@pytest.mark.parametrize("task", sorted(SHEET))
def test_a_released_curve_is_as_the_sheet_tells_it(task):
    first, second, last, deviation = SHEET[task]
    curve = released_curve(CURVES, task, "black")
    points = curve.points[curve.points["seed"] == "all"].set_index("env_steps")
    assert_allclose([points.at[1_005_000, "center"], points.at[2_005_000, "center"]], [first, second], atol=0.051)
    runs = read_curves(CURVES)
    ends = runs[runs["task"] == task].sort_values("env_steps").groupby("seed")["return"].last()
    assert_allclose([ends.mean(), ends.std(ddof=0)], [last, deviation], atol=0.051)
    assert curve.origin == CURVE_ORIGIN and len(points) == 50
    assert_allclose(points["high"] - points["center"], points["center"] - points["low"])


def test_the_released_curves_average_to_the_sheets_numbers():
    average = released_average(CURVES)
    assert_allclose(average.loc[[1_005_000, 2_005_000, 4_905_000]], [699.6, 788.1, 806.1], atol=0.051)
    assert_allclose(average.max(), 827.1, atol=0.051)
    ends = read_curves(CURVES).sort_values("env_steps").groupby(["task", "seed"])["return"].last()
    assert_allclose(ends.groupby("task").mean().mean(), 805.5, atol=0.051)


def test_lines_of_a_panel_are_the_tasks_scores():
    table = read_table(REFERENCE)
    found = {level.method: level.score for level in levels(table, "hopper_hop", {"Dreamer": "b", "D4PG": "k"})}
    assert found == {"Dreamer": 368.97, "D4PG": 242.0}
    assert [level.method for level in levels(table, "quadruped_run", {"Dreamer": "b", "D4PG": "k"})] == ["Dreamer"]
    pong = {level.method: level.score for level in guide_lines(REFERENCE.with_name(LINES), "atari_pong")}
    assert pong == {
        "DQN, sticky actions, 200M frames": 16.61,
        "Rainbow, sticky actions, 200M frames": 20.18,
        "SimPLe, no sticky actions, 400k frames": 5.2,
    }
    assert all(len(guide_lines(REFERENCE.with_name(LINES), game)) == 3 for game in GAMES)


@pytest.mark.skipif(not (AUTHORS / "dreamer").is_dir(), reason=f"no authors' files in {AUTHORS}")
def test_the_files_are_made_from_the_authors_own(tmp_path):
    assert reference_dreamer.main(["--source", str(AUTHORS), "--target", str(tmp_path)]) == 0
    for name in (RELEASED, LINES):
        assert (tmp_path / name).read_bytes() == REFERENCE.with_name(name).read_bytes()


def test_a_typed_score_that_the_authors_file_does_not_have_is_told():
    table = pd.DataFrame({"method": ["D4PG", "A3C"], "task": ["cup_catch"] * 2, "score": [980.5, 104.7]})
    theirs = {"dmc_cup_catch": {"d4pg_100m": 980.5, "a3c_100m_proprio": 104.7}}
    reference_dreamer.check_table(table, theirs)
    with pytest.raises(UserError, match=r"A3C on cup_catch is 104\.8.*says 104\.7"):
        reference_dreamer.check_table(table.replace(104.7, 104.8), theirs)


def test_the_script_says_which_file_is_missing(tmp_path, capsys):
    (tmp_path / "dreamer").mkdir()
    shutil.copy(REFERENCE, tmp_path / "dreamer" / "other.json")
    assert reference_dreamer.main(["--source", str(tmp_path)]) == 2
    assert "baselines.json" in capsys.readouterr().err


def test_empty_bins_are_left_out_and_tasks_have_our_names():
    runs = [{"task": "dmc_cup_catch", "method": "dreamer", "seed": "1", "xs": [5000.0, 105000.0], "ys": [1.5, None]}]
    assert reference_dreamer.curves(runs).values.tolist() == [["cup_catch", 1, 5000, 1.5]]
    with pytest.raises(UserError, match="a run of planet"):
        reference_dreamer.curves([{**runs[0], "method": "planet"}])
