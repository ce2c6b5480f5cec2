"""Dreamer's figures from synthetic runs: numbers by hand, and what a figure must say on its face."""

import fnmatch
import json
import math
from types import SimpleNamespace

import jinja2
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from replications.dreamer import figures
from replications.dreamer.figures_curves import CURVES
from replications.dreamer.figures_horizon import figure_4, horizon_of
from replications.dreamer.figures_published import GAMES, NAMES, REFERENCE, TASKS
from replications.dreamer.figures_scores import figure_6, table_1
from replications.dreamer.figures_time import side_by_side_time
from replications.dreamer.figures_video import figure_5
from shared.config import ROOT, resolve
from shared.figures.command import Request
from shared.figures.page import texts
from shared.figures.sources import check_mixture, check_scale, load_runs
from shared.training.schedule import Schedule
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

DRAW = {name: item.draw for name, item in figures.FIGURES.items()}
EXPERIMENTS = read_experiments("dreamer")
SLOW = ("cartpole_swingup", "repeat-8")
PAPER_SCALE = ROOT / "workflows" / "profiles" / "paper" / "scale.yaml"
CAPTIONS = {
    **dict.fromkeys(CURVES, "dreamer_curves"), "figure_4": "dreamer_scores", "figure_5": "dreamer_figure_5",
    "figure_6": "dreamer_scores", "table_1": "dreamer_table_1",
    "side_by_side_time": "dreamer_time",
}  # fmt: skip


@pytest.fixture
def run(make_run):
    """A run of Dreamer with one test episode per evaluation, as published: 100 e + 10 s at 5, 15 and 25 k env steps.

    The last two are the curve's last bin, so that the final score is 150 + 10 s.
    """

    def make(task="cartpole_swingup", variant="dreamer", **options):
        options = {"test_episodes": 1, "total": 5_000_000, **options}
        if "-h" in variant or variant.startswith(("dreamer", "no-value", "planet")):
            horizon = int(variant.partition("-h")[2] or 0)
            values = {"behaviour": {"horizon": horizon or 15}, "planner": {"horizon": horizon or 12}}
            options = {"values": values, **options}
        return make_run(task, paper="dreamer", variant=variant, **options)

    return make


def request(paths, *, scale="paper", seeds=None, allow=False) -> Request:
    sources = load_runs(paths, paper="dreamer", tasks=list(NAMES), variants=["*"])
    notes = check_mixture(sources, allow=allow)
    return Request(sources, check_scale(sources, scale), seeds, REFERENCE, notes)


def command(name, folder, *arguments):
    stem = folder / name
    outputs = [f"--figure={stem}.pdf", f"--numbers={stem}.csv", f"--sources={stem}.json"]
    return figures.main([name, *map(str, arguments), *outputs]), stem


def words(figure) -> str:
    """Everything on the page, line breaks as spaces."""
    return " ".join("\n".join(texts(figure)).split())


def rows(numbers, **where):
    for name, value in where.items():
        numbers = numbers[numbers[name] == value]
    return numbers


# ------------------------------------------------------------------------------------------------ of what


def test_every_experiment_has_a_figure_and_every_figure_an_experiment():
    assert EXPERIMENTS.keys() == DRAW.keys()
    published = {f"figure_{number}" for number in range(4, 13)} | {"table_1"}
    assert set(EXPERIMENTS) == published | {"lineages", "side_by_side", "side_by_side_time"}


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_the_variants_of_a_figure_are_those_of_its_experiment(name):
    scale = read_scale(PAPER_SCALE)
    planned = {one.variant for one in planned_runs("dreamer", name, scale)}
    drawn = figures.FIGURES[name].variants
    assert {pattern for pattern in drawn if not fnmatch.filter(planned, pattern)} == set(), "drawn and not planned"
    assert {one for one in planned if not any(fnmatch.fnmatchcase(one, pattern) for pattern in drawn)} == set()


@pytest.mark.parametrize("name", list(CURVES))
def test_the_panels_of_a_figure_are_the_tasks_of_its_experiment(name):
    assert tuple(CURVES[name].tasks) == EXPERIMENTS[name].tasks
    assert CURVES[name].seeds == EXPERIMENTS[name].seeds
    colors = [color for method in CURVES[name].methods.values() for color in method.colors.values()]
    assert len(set(colors)) == len(colors), "a hue per method, a lightness per framework"


def test_the_grids_have_the_twenty_tasks():
    assert all(EXPERIMENTS[name].tasks == tuple(TASKS) for name in ("figure_10", "figure_11", "table_1", "lineages"))
    assert len(TASKS) == 20 and EXPERIMENTS["figure_9"].tasks == tuple(GAMES)


@pytest.mark.parametrize("name", list(DRAW))
def test_a_figure_without_runs_says_so_and_shows_what_is_published(name):
    drawn = DRAW[name](request([]))
    assert "NOT RUN" in words(drawn.figure) and "No run found" in words(drawn.figure)
    if name not in ("figure_4", "figure_5", "side_by_side", "side_by_side_time"):  # nothing is published
        assert (drawn.numbers["kind"] == "published").any()


@pytest.mark.parametrize("name", list(DRAW))
def test_a_figure_of_a_smoke_run_is_stamped(run, name):
    others = {"figure_9": ("atari_pong", "atari"), **dict.fromkeys(("side_by_side", "side_by_side_time"), SLOW)}
    task, variant = others.get(name, ("cartpole_swingup", "dreamer"))
    drawn = DRAW[name](request([run(task, variant, scale="smoke")], scale="smoke"))
    assert "smoke: not a result" in words(drawn.figure)


@pytest.mark.parametrize("name", list(CAPTIONS))
def test_a_caption_knows_its_figure(name):
    text = (ROOT / "workflows" / "report" / f"{CAPTIONS[name]}.rst").read_text()
    job = SimpleNamespace(wildcards={"figure": name, "scale": "paper"})
    caption = jinja2.Template(text, undefined=jinja2.StrictUndefined).render(snakemake=job)
    expected = {"lineages": "code lineages", "side_by_side": "side by side", "table_1": "table of Appendix G"}
    expected["side_by_side_time"] = "side by side in time"
    assert f"Dreamer, {expected.get(name, name.replace('figure_', 'Figure '))}**" in caption


# ------------------------------------------------------------------------------------------------ time


def test_episodes_stand_at_the_minutes_of_training_without_tests(run):
    planner = {"values": {"planner": {"horizon": 12, "candidates": 1000, "iterations": 10}}}
    segments = [(5000, 60.0, 0.0), (15_000, 700.0, 100.0)]  # the first ten thousand env steps train for ten minutes
    paths = [
        run(*SLOW, segments=segments, scale="laptop"),
        run(SLOW[0], "planet-repeat-8", segments=[(15_000, 7200.0, 0.0)], scale="laptop", **planner),
    ]
    drawn = side_by_side_time(request(paths, scale="laptop"))
    ours = rows(drawn.numbers, variant="repeat-8").set_index("env_steps")
    assert ours.loc[[5000, 10_000, 15_000], "minutes"].tolist() == [1.0, 6.0, 11.0]
    assert ours.loc[16_000:, "minutes"].isna().all() and len(ours.loc[16_000:]) == 10, "no time after a checkpoint"
    assert ours.loc[5000, "return"] == 50 and ours.loc[5000, "mean"] == 30, "prefill: 10, 20, ... 50"
    assert rows(drawn.numbers, variant="planet-repeat-8").set_index("env_steps").loc[15_000, "minutes"] == 120
    page = words(drawn.figure)
    assert "PlaNet (online planning): 1,000 sequences, 10 times per decision." in page and "tests not counted" in page
    assert "PlaNet: NOT RUN" in words(side_by_side_time(request(paths[:1], scale="laptop")).figure)


def test_a_run_without_times_says_so(run):
    drawn = side_by_side_time(request([run(*SLOW)]))
    assert "no time recorded yet" in words(drawn.figure) and drawn.numbers["minutes"].isna().all()


# ------------------------------------------------------------------------------------------------ curves


def test_a_curve_is_the_mean_of_runs_in_bins_with_one_standard_deviation(run):
    numbers = DRAW["figure_10"](request([run(seed=0), run(seed=1)])).numbers
    curve = rows(numbers, kind="curve", task="cartpole_swingup")
    # seed s plays 10 s at 5k, then 100 + 10 s and 200 + 10 s in one bin of 100k env steps
    assert curve["env_steps"].tolist() == [5000, 25_000]
    assert_allclose(curve["mean"].astype(float), [5.0, 155.0])
    assert_allclose(curve["low"].astype(float), [0.0, 150.0])
    assert_allclose(curve["high"].astype(float), [10.0, 160.0])
    assert rows(numbers, kind="random")["mean"].tolist() == [30.0], "prefill episodes 10, 20, ... 50"


def test_a_twenty_task_grid_has_the_table_as_lines(run):
    numbers = DRAW["figure_10"](request([run()])).numbers
    lines = rows(numbers, kind="published")
    assert lines.groupby("method")["task"].nunique().to_dict() == {"Dreamer": 20, "PlaNet": 20, "D4PG": 18, "A3C": 18}
    assert rows(lines, method="Dreamer", task="cup_catch")["mean"].tolist() == [962.48]


def test_the_released_curves_stand_beside_the_code_that_made_them_only(run):
    """TF2's scores are drawn where variant tf2 is, the paper's table where variant dreamer is, and the page says so."""
    for name in CURVES:
        drawn = DRAW[name](request([]))
        released = drawn.numbers["kind"].eq("published curve")
        assert released.any() == ("tf2" in CURVES[name].methods), name
        assert ("Dreamer" in set(rows(drawn.numbers, kind="published")["method"])) == (
            "dreamer" in CURVES[name].methods
        )
    lineages = DRAW["lineages"](request([run(variant="tf2")]))
    assert rows(lineages.numbers, kind="published curve")["task"].nunique() == 20
    assert "scores/dreamer.json), which is how variant tf2 is set and no other" in words(lineages.figure)
    assert "Dreamer's were made by the TF1 code as variant dreamer is set" in words(lineages.figure)
    assert "D4PG and A3C are others' agents" in words(DRAW["figure_10"](request([])).figure)
    for name in CURVES:  # bins of ten episodes are those of the TF2 scores
        page = words(DRAW[name](request([])).figure)
        assert ("(released: 100k, ten episodes)" in page) == (name == "lineages")
    assert "700 at 1.0M, 788 at 2.0M, 806 at 4.9M env steps" in words(lineages.figure)


def test_figure_7_ends_at_two_million_env_steps_at_scale_paper(run):
    options = {"evaluations": 4, "every": 1000, "total": 5_000_000}
    paths = [run("acrobot_swingup", **options)]
    curve = rows(DRAW["figure_7"](request(paths)).numbers, kind="curve")
    assert curve["env_steps"].max() < 2_000_000 and len(curve) == 2
    assert len(rows(DRAW["figure_10"](request(paths)).numbers, kind="curve")) == 4
    small = run("acrobot_swingup", **options, scale="laptop")
    assert len(rows(DRAW["figure_7"](request([small], scale="laptop")).numbers, kind="curve")) == 4


def test_a_curve_above_a_low_axis_is_not_cut_off(run):
    def top(returns, seed):
        drawn = DRAW["figure_7"](request([run("acrobot_swingup", returns=returns, seed=seed)]))
        return drawn.figure.axes[0].get_ylim()[1]

    assert top(lambda *_: 350.0, 0) == 600
    assert top(lambda *_: 700.0, 1) == 1000


def test_atari_has_guide_lines_and_dmlab_is_out_of_scope_with_the_reason(run):
    drawn = DRAW["figure_9"](request([run("atari_pong", "atari"), run("atari_pong", "atari-straight")]))
    page = words(drawn.figure)
    assert {"DeepMind Lab", "OUT OF SCOPE"} <= set(
        texts(drawn.figure)
    ) and "only a source tree to build with Bazel" in page
    lines = rows(drawn.numbers, kind="published")
    assert lines.groupby("task").size().to_dict() == dict.fromkeys(GAMES, 3)
    assert "IMPALA's guide line is in none of the authors' files" in page
    low, high = next(axes for axes in drawn.figure.axes if axes.get_ylim()[1] > 200 * 1.03).get_ylim()
    assert low <= 0 < high


def test_random_actions_are_no_line_where_a_lost_life_ends_their_episodes(run):
    """The prefill's returns are then of one life; curves are of whole games."""
    for seed, ends in enumerate((True, False)):
        values = {"environment": {"atari": {"life_loss_ends_training": ends}}}
        drawn = DRAW["figure_9"](request([run("atari_breakout", "atari", seed=seed, values=values)]))
        assert rows(drawn.numbers, kind="random")["mean"].tolist() == ([] if ends else [30.0])
        assert ("random actions" in texts(drawn.figure)) != ends
        page = words(drawn.figure)
        assert ("No line of random actions on games: training episodes" in page) == ends
        assert ("Random: mean return of the runs' own random prefill" in page) != ends
    control = run(values={"environment": {"atari": {"life_loss_ends_training": True}}})
    assert len(rows(DRAW["figure_12"](request([control])).numbers, kind="random")) == 1


def test_figures_show_the_task_of_a_small_scale_that_is_none_of_theirs(run):
    path = run("cartpole_swingup", scale="smoke")
    drawn = DRAW["figure_7"](request([path], scale="smoke"))
    assert "Not a task of this figure, but the only one run at this scale: Cartpole Swingup." in words(drawn.figure)
    both = DRAW["figure_7"](request([path, run("walker_walk", scale="smoke")], scale="smoke"))
    assert "Cartpole Swingup" not in words(both.figure)


def test_one_seed_has_no_band_and_short_episodes_are_told(run):
    page = words(DRAW["figure_12"](request([run(episode=400)])).figure)
    assert "One seed only: R=2 (torch). Such a curve has neither band nor interval." in page
    assert "Episodes of these runs have 400 env steps instead of 1000" in page
    assert "The paper has 2 seeds in this figure." in page


def test_an_unfinished_run_is_told_with_its_progress(run):
    page = words(DRAW["figure_8"](request([run(complete=False), run(seed=1)], seeds=5)).figure)
    assert "partial: 1 of 5 seeds, 25k of 5M env" in page


# ------------------------------------------------------------------------------------------------ scores


def evaluated_at_scale_paper() -> list[int]:
    """Env steps of the evaluations of a run at scale paper, told by its schedule."""
    plan = Schedule(**resolve("dreamer", "dreamer", read_scale(PAPER_SCALE))["values"]["schedule"])
    episodes = range(1000, plan.total_env_steps + 1, 1000)
    return [steps for steps in episodes if plan.evaluation_due(steps - 1000 if steps > 1000 else -1, steps)]


def test_a_final_score_is_the_last_bin_of_the_curve_at_the_cadence_of_scale_paper(run):
    points = evaluated_at_scale_paper()
    assert points[:3] == [5000, 15_000, 25_000] and points[-3:] == [4_985_000, 4_995_000, 5_000_000]
    options = {"evaluated_at": points, "returns": lambda seed, e, k: points[e] / 1000 + 10 * seed}
    paths = [run(**options), run(seed=1, **options)]
    ours = rows(table_1(request(paths)).numbers, kind="ours", task="cartpole_swingup", framework="torch").iloc[0]
    # after 4,905,000, which is the last of the bin before: 4,915 to 4,995 and 5,000; seed 1 has ten more
    score = (sum(range(4915, 5000, 10)) + 5000) / 10 + 5
    assert ours["test_episodes"] == 10
    assert ours["score"] == pytest.approx(score)
    assert ours["published"] == 833.66 and ours["difference"] == pytest.approx(score - 833.66)
    curve = rows(DRAW["figure_10"](request(paths)).numbers, kind="curve", task="cartpole_swingup")
    assert len(curve) == 51 and curve["mean"].iloc[-1] == pytest.approx(score)
    assert figure_4(request(paths)).numbers["mean"].tolist() == [pytest.approx(score)]


def test_averages_are_over_the_tasks_that_have_a_score(run):
    paths = [run("cup_catch"), run("cartpole_swingup", seed=1)]
    for draw in (table_1, figure_6):
        numbers = draw(request(paths)).numbers
        ours = rows(numbers, kind="ours", task="average", method="Dreamer").iloc[0]
        assert (ours["tasks"], ours["score"]) == (2, pytest.approx((150.0 + 160.0) / 2))
        assert ours["published"] == pytest.approx((962.48 + 833.66) / 2), "of the same two tasks"
        published = rows(numbers, kind="published", task="average").set_index("method")["score"]
        assert_allclose(published[["Dreamer", "PlaNet", "D4PG"]], [823.3925, 332.972, 786.3278], atol=1e-4)


def test_the_table_says_its_averages_and_writes_markdown(run):
    drawn = table_1(request([run()]))
    page, text = words(drawn.figure), drawn.further[".md"].decode()
    for part in ("A3C 243.7000, D4PG 786.3278, PlaNet 332.9720, Dreamer 823.3925", "786.33 (18)", "823.39", "332.97"):
        assert part in page and part in text
    assert "not comparable: 25k of 5M env steps" in page


def test_a_verdict_needs_the_published_env_steps_and_seeds(run):
    options = {"evaluations": 2, "every": 4995, "returns": lambda seed, e, k: 830.0 + seed}
    verdicts = rows(table_1(request([run(seed=s, **options) for s in range(5)])).numbers, task="cartpole_swingup")
    assert rows(verdicts, kind="ours", method="Dreamer")["verdict"].tolist() == ["below: 832 vs 834"]


def test_bars_carry_the_scores_and_strokes_the_table(run):
    drawn = figure_6(request([run(), run(seed=1), run(variant="planet", framework="jax")]))
    axes = drawn.figure.axes[0]
    heights = sorted(bar.get_height() for bar in axes.patches if not math.isnan(bar.get_height()))
    assert_allclose(heights, [150.0, 150.0, 155.0, 155.0])  # one task, and the average of that task
    strokes = {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    assert {365.26, 91.7, 41.9, 3.21} <= strokes
    assert "Averages recomputed from the tasks: A3C 243.70 over 18, D4PG 786.33 over 18" in words(drawn.figure)


# ------------------------------------------------------------------------------------------------ horizons


def test_points_stand_at_the_horizon_of_their_config(run):
    paths = [run(), run(variant="dreamer-h40"), run(variant="planet"), run(variant="planet-h10"), run(seed=1)]
    numbers = figure_4(request(paths, seeds=2)).numbers
    found = {(row.method, row.horizon): (row.mean, row.seeds) for row in numbers.itertuples()}
    assert found[("Dreamer", 15)] == (155.0, 2) and found[("Dreamer", 40)] == (150.0, 1)
    assert {horizon for method, horizon in found if method.startswith("PlaNet")} == {10, 12}
    assert rows(numbers, horizon=15)["low"].tolist() == [150.0] and rows(numbers, horizon=40)["low"].isna().all()


def test_the_horizon_is_the_planners_only_where_it_plans(run):
    values = {"behaviour": {"horizon": 7}, "planner": {"horizon": 9}}
    for variant, horizon in (("no-value", 7), ("planet", 9)):
        (source,) = request([run(variant=variant, values=values)]).sources
        assert horizon_of(source) == horizon


def test_an_unfinished_run_is_no_final_return(run):
    drawn = figure_4(request([run(complete=False)]))
    assert drawn.numbers["seeds"].tolist() == [0] and drawn.numbers["mean"].isna().all()
    assert "partial" in texts(drawn.figure)


# ------------------------------------------------------------------------------------------------ video


def test_two_episodes_are_shown_for_every_framework(run, make_video):
    truth, prediction = (video.repeat(2, axis=0) for video in make_video())
    paths = [run("walker_walk", framework=name, video=(truth, prediction)) for name in ("torch", "jax")]
    drawn = figure_5(request(paths))
    page = texts(drawn.figure)
    assert [text.split("\n")[0] for text in page if text.startswith("Episode ")] == ["Episode 1", "Episode 2"] * 2
    imagined = rows(drawn.numbers, context=False)
    assert len(imagined) == 2 * 2 * 45
    assert_allclose(imagined["error"].astype(float), 0.2)
    assert drawn.further[".gif"][:6] == b"GIF89a"


def test_a_partial_run_has_no_video_yet(run):
    page = words(figure_5(request([run("walker_walk", complete=False)])).figure)
    assert "partial: the video comes with the finished run" in page


# ------------------------------------------------------------------------------------------------ command line


def test_the_command_writes_picture_numbers_and_sources_with_every_published_file(run, tmp_path):
    run(variant="planet"), run(variant="tf2")
    root = run().parents[4]
    status, stem = command("table_1", tmp_path, "--results-root", root)
    assert status == 0 and {path.suffix for path in tmp_path.glob("table_1.*")} == {
        ".pdf", ".png", ".csv", ".json", ".md"
    }  # fmt: skip
    content = json.loads(stem.with_suffix(".json").read_text())
    assert {one["variant"] for one in content["runs"]} == {"dreamer", "planet"}
    assert [path.rpartition("/")[2] for path in content["beside"]] == ["dreamer_lines.csv", "dreamer_tf2_curves.csv"]
    assert Image.open(stem.with_suffix(".png")).width == pytest.approx(7.2 * 220, abs=1)


def test_a_missing_file_beside_the_reference_is_told(run, tmp_path, capsys):
    copy = tmp_path / REFERENCE.name
    copy.write_text(REFERENCE.read_text())
    status, _ = command("figure_10", tmp_path, "--runs", run(), "--reference", copy)
    assert status == 2 and "dreamer_tf2_curves.csv: no such file" in capsys.readouterr().err
