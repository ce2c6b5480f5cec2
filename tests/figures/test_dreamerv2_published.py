"""DreamerV2's published numbers: Table 1 recomputed, the finding beside it, curves, and files as the authors made."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from replications.dreamerv2.figures_published import (
    AVERAGES,
    BESIDE,
    CONTROL_TASKS,
    CURVES,
    FINALS,
    JAMES_BOND,
    LAST_FRAMES,
    MONTEZUMA,
    REFERENCE,
    START,
    TABLE_FRAMES,
    TABLES,
    anchors,
    average_curve,
    curve,
    games,
    printed,
    read,
    recipes,
    released,
    start_seeds,
    title,
)
from shared.config import ROOT
from shared.errors import UserError
from shared.figures.scores import AGGREGATES, gamer_mean, seeds_first
from workflows.scripts import reference_dreamerv2

AUTHORS = ROOT.parent / "shared" / "reference"  # the authors' files, where this machine has them
NAMES = list(AGGREGATES)
SHEET = {  # the fact sheet's finals: mean and deviation over 8 seeds, mean of 4 seeds with schedules
    "atari_alien": (3967, 1728, 3469),
    "atari_asteroids": (41526, 73064, 8580),
    "atari_atlantis": (978778, 47725, 1004695),
    "atari_james_bond": (40445, 22261, 27795),
    "atari_qbert": (94688, 105863, 105918),
    "atari_road_runner": (203576, 112192, 289998),
    "atari_skiing": (-9299, 602, -9037),
    "atari_zaxxon": (50699, 5618, 57648),
}


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return recipes(REFERENCE)


def row(found: pd.DataFrame, agent: str, recipe: str) -> pd.Series:
    (one,) = [row for _, row in found.iterrows() if row["agent"] == agent and row["recipe"].startswith(recipe)]
    return one


# ------------------------------------------------------------------------------------------------ Table 1


@pytest.mark.parametrize("agent", ["DreamerV2", "DreamerV2 (schedules)", "IQN", "Rainbow", "C51", "DQN"])
def test_the_released_runs_give_the_printed_table_1(found, agent):
    """2.15, 11.33, 0.44, 0.28; with schedules 2.64, 10.45, 0.43, 0.28; and the four agents beside it."""
    again = found[found["agent"] == agent].iloc[0]
    table = printed(REFERENCE, "table_1").set_index("method")
    assert [f"{again[name]:.2f}" for name in NAMES] == [f"{table.at[agent, name]:.2f}" for name in NAMES]


def test_table_1_to_four_digits(found):
    """The fact sheet's own recomputation, from the same files by other hands."""
    assert_allclose(found.iloc[0][NAMES].astype(float), [2.1465, 11.3271, 0.4384, 0.2796], atol=6e-5)
    assert_allclose(found.iloc[1][NAMES].astype(float), [2.6403, 10.4500, 0.4276, 0.2830], atol=6e-5)
    assert found["seeds"].tolist()[:2] == [8, 4]


def test_the_captions_own_recipe_gives_another_median(found):
    caption = row(found, "DreamerV2", "caption of Table K.1")
    assert_allclose([caption["gamer_median"], caption["gamer_median_std"]], [1.787, 0.249], atol=5e-4)
    assert_allclose([caption["clipped_record_mean"], caption["clipped_record_mean_std"]], [0.276, 0.009], atol=5e-4)
    # means are linear: the order changes nothing
    assert_allclose(caption[["gamer_mean", "record_mean"]].astype(float), found.iloc[0][["gamer_mean", "record_mean"]]
                    .astype(float), rtol=1e-12)  # fmt: skip


def test_recipes_that_do_not_match_are_those_of_the_sheet(found):
    last = row(found, "DreamerV2", "last value")[NAMES].astype(float)
    assert_allclose(last, [2.137, 11.00, 0.429, 0.271], atol=5e-3)
    eleven = row(found, "DreamerV2", "with the three seeds")
    assert eleven["seeds"] == 11
    assert_allclose(eleven[NAMES].astype(float), [2.235, 10.97, 0.437, 0.280], atol=5e-3)


def test_james_bond_is_repaired_and_only_he(found):
    table = games(REFERENCE)
    odd = table[table["gamer"] != table["gamer_in_file"]]
    assert odd[["task", "gamer", "gamer_in_file", "random"]].to_numpy().tolist() == [[JAMES_BOND, 302.8, 29.0, 7.0]]
    slipped = row(found, "DreamerV2 (schedules)", "James Bond")
    assert_allclose(slipped["gamer_mean"], 31.7, atol=0.05)
    # by hand: the one game's share moves from (40445.47 - 7) / 295.8 to (40445.47 - 7) / 22, over 55 games
    bond = released(REFERENCE, ["dreamerv2"]).mean(axis=0)[list(table["task"]).index(JAMES_BOND)]
    moved = ((bond - 7) / 22 - (bond - 7) / 295.8) / 55
    both = row(found, "DreamerV2", "James Bond")["gamer_mean"], found.iloc[0]["gamer_mean"]
    assert_allclose(both[0] - both[1], moved, rtol=1e-9)


@pytest.mark.parametrize("task", SHEET)
def test_final_scores_are_those_of_the_sheet(task):
    at = list(games(REFERENCE)["task"]).index(task)
    runs, schedules = released(REFERENCE, ["dreamerv2"])[:, at], released(REFERENCE, ["schedules"])[:, at]
    assert_array_equal(np.round([runs.mean(), runs.std(), schedules.mean()]), SHEET[task])


def test_a_run_counts_at_199_million_or_with_its_last_value():
    finals = read(REFERENCE, FINALS)
    assert finals.groupby("method").size().to_dict() == {"dreamerv2": 440, "nosched": 165, "schedules": 220}
    assert finals["env_steps"].max() == TABLE_FRAMES
    assert (finals.query("method == 'dreamerv2'")["env_steps"] < 195_000_000).sum() == 20, "as the figures' notes say"
    early = finals[finals["env_steps"] < TABLE_FRAMES]
    assert_array_equal(early["score"], early["last"])


def test_a_missing_game_or_column_is_told(tmp_path):
    few, other = tmp_path / "few" / REFERENCE.name, tmp_path / "other" / REFERENCE.name
    for path in (few, other):
        path.parent.mkdir()
    few.write_text("\n".join(line for line in REFERENCE.read_text().splitlines() if "atari_pong" not in line))
    with pytest.raises(UserError, match="54 games, expected 55"):
        games(few)
    other.write_text(REFERENCE.read_text().replace("gamer_in_file", "gamer_file"))
    with pytest.raises(UserError, match="expected task, random, gamer, record, gamer_in_file"):
        games(other)


# ------------------------------------------------------------------------------------------------ curves


def test_curves_end_where_the_sheet_says():
    control = [curve(REFERENCE, "control", task, "", "", "-").points.iloc[-1] for task in CONTROL_TASKS]
    assert {point["env_steps"] for point in control} == {1_980_000.0}
    finals = np.array([point["center"] for point in control])
    assert_allclose([finals.mean(), np.median(finals)], [787.3, 847.1], atol=0.06)
    deviations = {task: point["high"] - point["center"] for task, point in zip(CONTROL_TASKS, control, strict=True)}
    assert_allclose([deviations["cup_catch"], deviations["walker_walk"]], [372.0, 22.1], atol=0.06)
    humanoid = curve(REFERENCE, "humanoid", "humanoid_walk", "", "", "-").points
    whole = humanoid[humanoid["seeds"] == 10].iloc[-1]  # the sheet's 805 is over the runs' own last bins
    assert whole["env_steps"] == 42_600_000 and abs(whole["center"] - 805) < 15
    revenge = curve(REFERENCE, "montezuma", MONTEZUMA, "", "", "-").points.iloc[-1]
    assert revenge["env_steps"] == TABLE_FRAMES and revenge["seeds"] == 6
    assert curve(REFERENCE, "montezuma", "atari_pong", "", "", "-") is None


def test_averages_end_with_the_captions_recipe(found):
    """The curves of Figure 4 average games per seed: their last point is the caption's number, not Table 1's."""
    caption = row(found, "DreamerV2", "caption of Table K.1")
    for name in AGGREGATES:
        last = average_curve(REFERENCE, "dreamerv2", name, "", "", "-").points.iloc[-1]
        assert last["env_steps"] == TABLE_FRAMES
        assert_allclose(last["center"], caption[name], rtol=1e-4)
        assert_allclose(last["high"] - last["center"], caption[f"{name}_std"], rtol=1e-3)
    assert set(read(REFERENCE, AVERAGES)["method"]) == {"dreamerv2", "iqn", "rainbow", "c51", "dqn"}


def test_dopamines_curves_end_at_the_baselines_final_scores():
    """The same runs in two of the authors' files: the mean of the last iterations is near the final score."""
    table = games(REFERENCE).set_index("task")
    for task in ("atari_pong", "atari_alien", JAMES_BOND):
        last = curve(REFERENCE, "iqn", task, "", "", "-").points.iloc[-1]
        assert last["env_steps"] == TABLE_FRAMES
        assert_allclose(last["center"], table.at[task, "iqn"], rtol=0.1)


def test_the_first_frames_have_every_seed():
    shown = start_seeds(REFERENCE, "atari_pong", "", "", "-", 3_000_000).points
    assert sorted(set(shown["seed"]) - {"all"}, key=int) == [str(seed) for seed in range(3, 11)]
    first = shown[(shown["env_steps"] == 1_000_000)]
    seeds = first[first["seed"] != "all"]["center"].astype(float)
    assert_allclose(first[first["seed"] == "all"]["center"].astype(float), seeds.mean())
    assert start_seeds(REFERENCE, "atari_pong", "", "", "-", 500_000) is None


def test_games_are_named_and_measured_above_random():
    table = games(REFERENCE)
    assert [title(task) for task in ("atari_qbert", "atari_hero", JAMES_BOND, "walker_walk")] == [
        "Q*bert", "HERO", "James Bond", "Walker Walk"
    ]  # fmt: skip
    assert len({title(task) for task in table["task"]}) == 55
    gamer = seeds_first(table[["gamer"]].to_numpy().T, anchors(table))
    assert gamer["gamer_median"] == gamer["gamer_mean"] == 1.0
    assert gamer_mean(table["random"].to_numpy(), anchors(table)) == 0.0


def test_printed_tables_are_complete():
    assert len(printed(REFERENCE, "table_1")) == 6 and len(printed(REFERENCE, "table_2")) == 7
    counted = read(REFERENCE, TABLES).dropna(subset="better")
    assert_array_equal(counted[["better", "worse", "tied"]].sum(axis=1), 55)


# ------------------------------------------------------------------------------------------------ where they come from


def test_published_data_stay_small():
    size = sum(REFERENCE.with_name(name).stat().st_size for name in (REFERENCE.name, *BESIDE))
    assert size < 1_000_000


@pytest.mark.skipif(not AUTHORS.is_dir(), reason="the authors' files are not on this machine")
def test_the_data_are_made_from_the_authors_files(tmp_path):
    assert reference_dreamerv2.main(["--source", str(AUTHORS), "--target", str(tmp_path)]) == 0
    for name in (REFERENCE.name, FINALS, CURVES, START, AVERAGES):
        assert (tmp_path / name).read_bytes() == REFERENCE.with_name(name).read_bytes(), name


def test_a_missing_source_is_told(tmp_path, capsys):
    assert reference_dreamerv2.main(["--source", str(tmp_path), "--target", str(tmp_path)]) == 2
    assert "give a folder with dreamerv2/ and dreamerv3_2023/ in it" in capsys.readouterr().err


def test_a_mended_row_is_told():
    tasks = ["atari_james_bond"]
    whole = dict.fromkeys(
        ["random", "human_record", "iqn_sticky_2e8", "rainbow_sticky_2e8", "c51_sticky_2e8", "dqn_sticky_2e8"], 1.0
    )
    slipped = {"atari_james_bond": {**whole, "human_gamer": 29.0, "dqn_determ_2e8": 302.8}}
    table = reference_dreamerv2.games(slipped, tasks)
    assert table[["gamer", "gamer_in_file"]].to_numpy().tolist() == [[302.8, 29.0]]
    mended = {"atari_james_bond": {**whole, "human_gamer": 302.8, "dqn_determ_2e8": 29.0}}
    with pytest.raises(UserError, match="take the repair out"):
        reference_dreamerv2.games(mended, tasks)


def test_released_bins_are_averaged_within_the_grid_and_over_seeds():
    runs = pd.DataFrame(
        [
            ("m", "a", 0, 1, 2.0),
            ("m", "a", 0, 2, 4.0),
            ("m", "a", 1, 2, 7.0),
            ("m", "a", 1, 3, np.nan),
            ("m", "a", 1, 9, 1),
        ],
        columns=["method", "task", "seed", "env_steps", "value"],
    )
    found = reference_dreamerv2.curves(runs, np.array([2, 4]))
    # bin up to 2: seed 0 has (2 + 4) / 2 = 3, seed 1 has 7; bin up to 4: nothing; 9 lies beyond
    assert found.to_numpy().tolist() == [["m", "a", 2, 5.0, 2.0, 2]]
    assert LAST_FRAMES > TABLE_FRAMES == reference_dreamerv2.TABLE_FRAMES
