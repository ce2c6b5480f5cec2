"""PlaNet's curves beyond Figure 4: whose runs a figure takes, one agent on all tasks, intervals, both frameworks."""

import dataclasses
import fnmatch
import math
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest
from matplotlib.lines import Line2D
from numpy.testing import assert_allclose

from replications.planet import figures
from replications.planet.figures_curves import CURVES
from replications.planet.figures_published import TASKS
from shared.config import ROOT
from shared.errors import UserError
from shared.figures.joint import task_views
from shared.figures.page import texts
from shared.figures.sources import load_runs
from tests.figures.planet_runs import write_joint_run, write_simulator_run
from tests.figures.test_planet_figures import DRAW, command, page_text, request
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

SIX_PANELS = list(CURVES)


def curve(numbers, **where):
    """Rows of pooled points, by column values."""
    rows = numbers[numbers["kind"] == "curve"]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows


def on_all_tasks(make_run, **options):
    return [make_run(task, **options) for task in TASKS]


# ------------------------------------------------------------------------------------------------ whose runs


@pytest.mark.parametrize("name", SIX_PANELS)
def test_a_figure_draws_its_variants_and_leaves_the_others_out(make_run, results, tmp_path, name):
    drawn = set(CURVES[name].methods)
    others = {variant for curves in CURVES.values() for variant in curves.methods} - drawn
    for variant in (drawn | {min(others), max(others)}) - {"joint"}:
        make_run(variant=variant)
    write_joint_run(results)
    status, stem = command(name, tmp_path, "--results-root", results / "paper")
    assert status == 0
    numbers = stem.with_suffix(".csv").read_text()
    for variant in drawn:
        assert CURVES[name].methods[variant].name in numbers
    sources = stem.with_suffix(".json").read_text()
    assert not any(f"/{variant}/" in sources for variant in others)


def test_a_run_of_another_figure_is_no_mistake_and_is_told(make_run, results, tmp_path, capsys):
    paths = [make_run(), make_run(variant="elu"), write_simulator_run(results, "cheetah_run", score=600.0)]
    assert command("figure_4", tmp_path, "--runs", *paths)[0] == 0
    assert "figure_4: 1 runs (2 of other figures left out)" in capsys.readouterr().out


def test_mixed_code_in_another_figures_curve_does_not_matter(make_run, tmp_path):
    odd = make_run(variant="elu", seed=1, provenance={"code_digest": "beef" * 16})
    paths = [make_run(), make_run(variant="elu"), odd]
    assert command("figure_4", tmp_path, "--runs", *paths)[0] == 0
    assert command("figure_9", tmp_path, "--runs", *paths)[0] == 2


@pytest.mark.parametrize("name", sorted(set(figures.FIGURES) & set(read_experiments("planet"))))
def test_the_variants_of_a_figure_are_those_of_its_experiment(name):
    runs = planned_runs("planet", name, read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml"))
    planned, drawn = {run.variant for run in runs}, figures.FIGURES[name].variants
    assert {pattern for pattern in drawn if not fnmatch.filter(planned, pattern)} == set(), "drawn and not planned"
    assert {one for one in planned if not any(fnmatch.fnmatchcase(one, pattern) for pattern in drawn)} == set()


def test_every_experiment_has_a_figure():
    assert set(read_experiments("planet")) <= set(figures.FIGURES)


@pytest.mark.parametrize("name", SIX_PANELS)
def test_methods_of_one_figure_have_a_hue_each_and_a_lightness_per_framework(name):
    colors = [color for method in CURVES[name].methods.values() for color in method.colors.values()]
    assert len(set(colors)) == len(colors) == 2 * len(CURVES[name].methods)
    shorts = [method.short for method in CURVES[name].methods.values()]
    assert len(set(shorts)) == len(shorts)


def test_our_own_variants_are_marked_as_such(make_run):
    run = make_run()
    assert "ours, not in the paper" in page_text(DRAW["figure_4"](request([run])).figure).replace("\n", " ")
    assert "ours, not in the paper" in page_text(DRAW["figure_5"](request([run])).figure).replace("\n", " ")
    assert "the paper has no such figure" in page_text(DRAW["code_states"](request([run])).figure).replace("\n", " ")


# ------------------------------------------------------------------------------------------------ one agent, all tasks


def test_the_views_of_a_joint_run_count_their_own_episodes(results):
    (source,) = load_runs([write_joint_run(results)], paper="planet", tasks=["all_tasks"], variants=["joint"])
    views = task_views(source)
    assert [view.task for view in views] == list(TASKS)
    walker = views[5]
    train, test = walker.run.tables["train/episode"], walker.run.tables["eval/episode"]
    # episodes 6, 12, ... of the run; each has 1000 env steps
    assert train["episode"].tolist() == [6 * n for n in range(1, 26)]
    assert train["env_steps"].tolist() == [1000 * n for n in range(1, 26)]
    assert test["env_steps"].tolist() == [5000, 5000, 15000, 15000, 25000, 25000]
    assert test["episode"].tolist() == [10, 11] * 3
    assert (walker.env_steps, walker.total_env_steps) == (25_000, 25_000)
    assert walker.values["schedule"]["prefill_env_steps"] == 5000
    assert walker.path == source.path and walker.config == source.config


def test_evaluations_within_one_round_of_the_tasks_are_one_point(results):
    # two tasks, prefill of one round; at the end of round 2 and again after the first task's next episode
    path = write_joint_run(results, tasks=("cheetah_run", "walker_walk"), prefill_rounds=1, rounds=3, every=1, trials=1)
    (source,) = load_runs([path], paper="planet", tasks=["all_tasks"], variants=["joint"])
    table = source.run.tables["eval/episode"]
    table.loc[table["env_steps"] == 6000, "env_steps"] = 5000  # cheetah has had 3 episodes, walker 2
    cheetah, walker = (view.run.tables["eval/episode"] for view in task_views(source))
    assert cheetah["env_steps"].tolist() == [1000, 2000, 3000] and cheetah["return"].tolist() == [0, 20, 40]
    assert walker["env_steps"].tolist() == [1000, 2000] and walker["return"].tolist() == [100, 140], "the later one"


def test_a_run_of_one_task_is_its_own_view(make_run):
    (source,) = load_runs([make_run()], paper="planet", tasks=["*"], variants=["*"])
    # every config of PlaNet names the joint tasks, whether or not the run plays them
    source = dataclasses.replace(source, values={**source.values, "environment": {"joint_tasks": list(TASKS)}})
    assert task_views(source) == [source]


def test_a_joint_run_that_does_not_name_its_tasks_is_refused(results, tmp_path, capsys):
    path = write_joint_run(results, joint_tasks=False)
    assert command("figure_7", tmp_path, "--runs", path)[0] == 2
    message = capsys.readouterr().err
    assert str(path) in message and "no environment.joint_tasks" in message and "make the run again" in message
    with pytest.raises(UserError, match="joint_tasks"):
        DRAW["figure_6"](request([path]))


def test_figure_7_by_hand(make_run, results):
    paths = [write_joint_run(results, seed=0), write_joint_run(results, seed=1), make_run("cheetah_run")]
    drawn = DRAW["figure_7"](request(paths))
    # cheetah is task 2: evaluation e pools 200 + 20 e + {0, 1, 10, 11}
    single = curve(drawn.numbers, task="cheetah_run", method="Single agent")
    assert single["episodes"].tolist() == [5, 15, 25] and single["env_steps"].tolist() == [5000, 15000, 25000]
    assert_allclose(single["median"].astype(float), [205.5, 225.5, 245.5])
    assert_allclose(single["low"].astype(float), [200.15, 220.15, 240.15])  # 0.05 * 3 = 0.15 from first to second
    assert single["seeds"].tolist() == [2, 2, 2] and single["returns"].tolist() == [4, 4, 4]
    separate = curve(drawn.numbers, task="cheetah_run", method="Separate agents")
    assert_allclose(separate["median"].astype(float), [1.5, 101.5, 201.5])
    assert len(curve(drawn.numbers, method="Single agent")) == 6 * 3
    words = texts(drawn.figure)
    assert words.count("separate: NOT RUN") == 5 and "NOT RUN" not in words
    assert "single (torch): 2 seeds × 2 test episodes" in words
    # prefill of task k returns 10 k, of the separate agent 10, 20, ..., 50; walker has the joint runs only
    random = drawn.numbers[drawn.numbers["kind"] == "random"].set_index("task")["median"]
    assert random["walker_walk"] == 50 and random["cheetah_run"] == 20


def test_figure_6_by_hand(make_run, results):
    paths = [write_joint_run(results, seed=seed) for seed in (0, 1)] + on_all_tasks(make_run)
    drawn = DRAW["figure_6"](request(paths))
    assert len([axes for axes in drawn.figure.axes if axes.get_ylabel()]) == 1, "one panel"
    single = curve(drawn.numbers, method="Single agent")
    # 100 task + 20 e + 10 seed + trial: means 250, 20 e, 5, 0.5; variances 100^2 * 35 / 12, 0, 25, 0.25
    deviation = math.sqrt(1e4 * 35 / 12 + 25 + 0.25)
    assert_allclose(single["mean"].astype(float), [255.5, 275.5, 295.5])
    assert_allclose(single["low"].astype(float), np.array([255.5, 275.5, 295.5]) - deviation)
    assert_allclose(single["high"].astype(float), np.array([255.5, 275.5, 295.5]) + deviation)
    assert single["episodes"].tolist() == [5, 15, 25], "per task"
    assert single["tasks"].tolist() == [6] * 3 and single["returns"].tolist() == [24] * 3
    separate = curve(drawn.numbers, method="Separate agents")
    assert_allclose(separate["mean"].astype(float), [1.5, 101.5, 201.5])
    assert_allclose(separate["high"].astype(float), np.array([1.5, 101.5, 201.5]) + math.sqrt(1.25))
    published = drawn.numbers[drawn.numbers["kind"] == "published"].set_index("method")["mean"]
    assert published.to_dict() == {"D4PG": 881.0, "A3C": 267.0, "PlaNet": 816.0}
    words = texts(drawn.figure)
    assert "single (torch): 6 tasks × 2 seeds × 2 test episodes" in words
    assert "separate (torch): 6 tasks × 1 seed × 4 test episodes" in words
    assert "UNEQUAL" not in page_text(drawn.figure)


def test_tasks_of_one_agent_are_resampled_together(results, make_run):
    joint = [write_joint_run(results, seed=seed) for seed in (0, 1)]
    (last,) = curve(DRAW["figure_6"](request(joint)).numbers).tail(1).to_dict("records")
    # both seeds 0, one of each, both seeds 1: 290.5, 295.5 or 300.5, and half a point of trials. Drawn task by task,
    # the interval would be some six points wide.
    assert 290 <= last["interval_low"] <= 291 and 300 <= last["interval_high"] <= 301
    separate = [path for seed in (0, 1) for path in on_all_tasks(make_run, seed=seed, returns=lambda s, e, k: 10.0 * s)]
    (last,) = curve(DRAW["figure_6"](request(separate)).numbers).tail(1).to_dict("records")
    assert 1 < last["interval_low"] < 3 and 7 < last["interval_high"] < 9, "six tasks, each with its own two agents"


def test_a_mean_over_other_tasks_is_no_comparison(make_run, results):
    drawn = DRAW["figure_6"](request([write_joint_run(results), make_run("cheetah_run")]))
    said = page_text(drawn.figure).replace("\n", " ")
    assert "UNEQUAL TASKS, so the curves cannot be compared: separate (torch): Cheetah Run; single" in said
    assert "separate (torch): 1 task × 1 seed × 4 test episodes" in texts(drawn.figure)
    alone = DRAW["figure_6"](request([make_run("cheetah_run")]))
    assert "separate (torch): 1 task × 1 seed × 4 test episodes" in texts(alone.figure)


def test_unfinished_and_missing_runs_of_figure_6_are_counted_in_runs(make_run, results):
    running = write_joint_run(results, seed=1, complete=False)
    paths = [write_joint_run(results), running, *on_all_tasks(make_run)]
    words = texts(DRAW["figure_6"](request(paths, seeds=5)).figure)
    assert "partial: 1 of 5 runs, 25k of 25k env steps" in words, "two joint runs, one finished"
    assert "partial: 6 of 30 runs" in words, "one seed on six tasks of five"


# ------------------------------------------------------------------------------------------------ few seeds


def test_the_interval_of_the_last_point_by_hand(make_run):
    paths = [make_run(seed=seed, returns=lambda s, e, k: 100.0 * s + e) for seed in (0, 1)]
    points = curve(DRAW["figure_4"](request(paths)).numbers)
    # without spread inside a seed the resampled median is 2, 52 or 102, with probability 1/4, 1/2, 1/4
    assert points["interval_low"].tolist()[:2] == pytest.approx([math.nan] * 2, nan_ok=True)
    assert (points["interval_low"].tolist()[2], points["interval_high"].tolist()[2]) == (2.0, 102.0)


def test_the_interval_is_drawn_at_the_end_of_the_curve(make_run):
    paths = [make_run(seed=seed, returns=lambda s, e, k: 100.0 * s + e) for seed in (0, 1)]
    panel = DRAW["figure_4"](request(paths)).figure.axes[2]
    bars = [line for line in panel.lines if line.get_marker() == "_"]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in bars] == [([25, 25], [2, 102])]


def test_one_seed_claims_no_interval_and_the_page_says_so(make_run):
    paths = [make_run(), *(make_run(variant="ssm", seed=seed) for seed in (0, 1))]
    drawn = DRAW["figure_4"](request(paths))
    points = curve(drawn.numbers)
    has = points.groupby("method")["interval_low"].count().to_dict()
    assert has == {"PlaNet (RSSM)": 0, "Stochastic (SSM)": 1}
    said = page_text(drawn.figure).replace("\n", " ")
    assert "One seed only: RSSM (torch). Such a curve has no interval" in said and "seed 20190604" in said


def test_one_seed_in_one_panel_is_told_as_that(make_run):
    paths = [make_run(), make_run(seed=1), make_run("walker_walk")]
    said = page_text(DRAW["figure_4"](request(paths)).figure).replace("\n", " ")
    assert "One seed only in at least one panel: RSSM (torch)" in said
    assert "One seed only" not in page_text(DRAW["figure_4"](request(paths[:2])).figure)


def test_figures_of_the_same_runs_have_the_same_interval(make_run):
    paths = [make_run(seed=seed) for seed in range(3)]
    columns = ["interval_low", "interval_high"]
    first, second = (curve(DRAW[name](request(paths)).numbers)[columns].tail(1) for name in ("figure_4", "figure_8"))
    assert first.to_numpy().tolist() == second.to_numpy().tolist() and first.notna().all().all()


@pytest.mark.parametrize(("seeds", "thin"), [(1, 0), (2, 4), (5, 0)])
def test_few_seeds_are_thin_lines_in_both_frameworks(make_run, seeds, thin):
    paths = [make_run(seed=seed, framework=name) for seed in range(seeds) for name in ("torch", "jax")]
    panel = DRAW["figure_9"](request(paths)).figure.axes[2]
    assert len([line for line in panel.lines if line.get_linewidth() == 0.5]) == thin


# ------------------------------------------------------------------------------------------------ both frameworks


def test_curves_of_which_the_same_is_to_be_said_share_a_line(make_run):
    variants = CURVES["figure_8"].methods
    paths = [make_run(variant=variant, framework=name) for variant in variants for name in ("torch", "jax")]
    words = texts(DRAW["figure_8"](request(paths)).figure)
    assert "all (torch, jax): 1 seed × 4 test episodes" in words
    paths[-1] = make_run(variant="drnn-overshooting", framework="torch", seed=1)
    words = texts(DRAW["figure_8"](request(paths)).figure)
    assert "DRNN+os (torch): 2 seeds × 4 test episodes" in words
    assert any(line.startswith("RSSM, RSSM+os, DRNN (torch, jax)") for line in words)


def test_the_legend_has_a_stroke_per_framework(make_run):
    figure = DRAW["figure_5"](request([make_run(framework=name) for name in ("torch", "jax")])).figure
    figure.canvas.draw()
    legend = figure.axes[6].get_legend()
    strokes = [line.get_color() for line in legend.findobj(Line2D) if line.get_linestyle() == "-"]
    assert strokes[:2] == ["#0072B2", "#56B4E9"]
    assert [text.get_text() for text in legend.get_texts()] == [
        "PlaNet, ours: torch, jax",
        "Random collection: NOT RUN",
        "Random shooting: NOT RUN",
        "Planning by gradient: NOT RUN",
    ]


# ------------------------------------------------------------------------------------------------ the workflow


def test_every_experiment_is_a_target_by_its_own_name():
    rules = (ROOT / "workflows" / "planet.smk").read_text()
    assert [name for name in read_experiments("planet") if f"rule planet_{name}:\n" not in rules] == []


@pytest.mark.parametrize("name", [*SIX_PANELS, "figure_6"])
def test_the_caption_of_the_curves_knows_every_figure_of_them(name):
    text = (ROOT / "workflows" / "report" / "planet_curves.rst").read_text()
    job = SimpleNamespace(wildcards={"figure": name, "scale": "paper"})
    caption = jinja2.Template(text, undefined=jinja2.StrictUndefined).render(snakemake=job)
    assert ("code states" if name == "code_states" else f"Figure {name.removeprefix('figure_')}") in caption
    assert ("standard deviation" in " ".join(caption.split())) == (name == "figure_6")
