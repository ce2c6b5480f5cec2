"""DreamerV2's figures from synthetic runs: numbers by hand, and what a figure must say on its face."""

import fnmatch
import json
import math
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from replications.dreamerv2 import figures
from replications.dreamerv2.figures_curves import CURVES
from replications.dreamerv2.figures_published import BESIDE, CONTROL_TASKS, HUMANOID, MONTEZUMA, REFERENCE, games, title
from replications.dreamerv2.figures_video import FILMS, in_color
from shared.config import ROOT
from shared.figures.command import Request
from shared.figures.page import texts
from shared.figures.sources import check_mixture, check_scale, load_runs
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

DRAW = {name: item.draw for name, item in figures.FIGURES.items()}
EXPERIMENTS = read_experiments("dreamerv2")
PAPER_SCALE = ROOT / "workflows" / "profiles" / "paper" / "scale.yaml"
GAMES = tuple(games(REFERENCE)["task"])
TABLE = games(REFERENCE).set_index("task")
CAPTIONS = {
    **dict.fromkeys(CURVES, "dreamerv2_curves"),
    **dict.fromkeys(FILMS, "dreamerv2_films"),
    **dict.fromkeys(("figure_1", "figure_e1"), "dreamerv2_scores"),
    **dict.fromkeys(("table_1", "table_2", "table_k1"), "dreamerv2_tables"),
}
NAMES = {"figure_a1": "Figure A.1", "figure_a2": "Figure A.2", "table_k1": "Table K.1", "control": "control tasks",
         "versions": "versions of the code", "start": "first frames",
         "catch": "Catch"}  # fmt: skip
ALIKE = ("figure_g1", "figure_h1", "figure_i1", "figure_j1", "versions")  # drawn as figure_f1 is, sixty panels each
LONGEST_ARGUMENT = 128 * 1024  # bytes of one argument on Linux; the workflow hands a whole command to bash as one


@pytest.fixture
def run(make_run):
    """A run of DreamerV2 with one test episode per evaluation: 100 e + 10 s at 5, 15 and 25 k env steps."""

    def make(task="atari_pong", variant="dreamerv2", **options):
        return make_run(task, paper="dreamerv2", variant=variant, **{"test_episodes": 1, **options})

    return make


@pytest.fixture
def all_games(run):
    """Runs of one seed on all 55 games that end with a share of the gamer's score: 0, then 1/2 + s, 1 + 2 s gamers."""

    def make(seed=0, **options):
        def returns(task):
            low, high = TABLE.at[task, "random"], TABLE.at[task, "gamer"]
            return lambda s, e, k: float(low + (high - low) * e * (0.5 + s))

        return [run(task, seed=seed, returns=returns(task), **options) for task in GAMES]

    return make


def request(paths, *, scale="paper", seeds=None, allow=False) -> Request:
    sources = load_runs(paths, paper="dreamerv2", tasks=figures.known_tasks(), variants=["*"])
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
    assert set(EXPERIMENTS) == set(DRAW) == set(CAPTIONS)
    figures_of_the_paper = ("1", "4", "5", "a1", "a2", "b1", "b2", "e1", "f1", "g1", "h1", "i1", "j1")
    published = {f"figure_{name}" for name in figures_of_the_paper} | {"table_1", "table_2", "table_k1"}
    assert set(EXPERIMENTS) == published | {"control", "versions", "catch", "start"}


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_the_variants_of_a_figure_are_those_of_its_experiment(name):
    runs = planned_runs("dreamerv2", name, read_scale(PAPER_SCALE))
    planned, drawn = {one.variant for one in runs}, figures.FIGURES[name].variants
    assert {pattern for pattern in drawn if not fnmatch.filter(planned, pattern)} == set(), "drawn and not planned"
    assert {one for one in planned if one not in drawn} == set()
    assert len(" ".join(one.file for one in runs)) + 2000 < LONGEST_ARGUMENT


@pytest.mark.parametrize("name", list(CURVES))
def test_the_panels_of_a_figure_are_the_tasks_of_its_experiment(name):
    tasks, curves = CURVES[name].tasks, CURVES[name]
    assert (GAMES if tuple(tasks) in (("*",), ()) else tuple(tasks)) == EXPERIMENTS[name].tasks
    assert curves.seeds == EXPERIMENTS[name].seeds
    if not curves.pairs:  # in Figure 5 no panel has two ablations
        colors = [color for method in curves.methods.values() for color in method.colors.values()]
        assert len(set(colors)) == len(colors), "a hue per method, a lightness per framework"


def test_the_games_and_tasks_are_those_of_the_published_files():
    assert EXPERIMENTS["figure_f1"].tasks == GAMES and len(GAMES) == 55
    assert EXPERIMENTS["control"].tasks == CONTROL_TASKS and len(CONTROL_TASKS) == 20
    assert EXPERIMENTS["figure_b2"].tasks == (MONTEZUMA,) and EXPERIMENTS["figure_a2"].tasks == (HUMANOID,)


@pytest.mark.parametrize("name", list(DRAW))
def test_a_figure_without_runs_says_so_and_shows_what_is_published(name):
    drawn = DRAW[name](request([]))
    assert "NOT RUN" in words(drawn.figure) and "No run found" in words(drawn.figure)
    if name not in (*FILMS, "start", "catch"):  # the last has no published runs
        kinds = set(drawn.numbers["kind"])
        assert kinds & {"published", "published curve", "printed"}


@pytest.mark.parametrize("name", [name for name in DRAW if name not in ALIKE])
def test_a_figure_of_a_smoke_run_is_stamped(run, name):
    variant = figures.FIGURES[name].variants[0]
    task = {"control": "walker_walk", "catch": "toy_catch"}.get(name, "atari_pong")
    drawn = DRAW[name](request([run(task, variant, scale="smoke")], scale="smoke"))
    assert "smoke: not a result" in words(drawn.figure)


@pytest.mark.parametrize("name", list(CAPTIONS))
def test_a_caption_knows_its_figure(name):
    text = (ROOT / "workflows" / "report" / f"{CAPTIONS[name]}.rst").read_text()
    job = SimpleNamespace(wildcards={"figure": name, "scale": "paper"})
    caption = jinja2.Template(text, undefined=jinja2.StrictUndefined).render(snakemake=job)
    kind, _, which = name.partition("_")
    letter = which[0].upper() + "." + which[1:] if which[:1].isalpha() else which
    assert f"DreamerV2, {NAMES.get(name, f'{kind.capitalize()} {letter}')}**" in " ".join(caption.split())


# ------------------------------------------------------------------------------------------------ curves


def test_a_curve_is_the_mean_of_runs_in_bins_with_one_standard_deviation(run):
    paths = [run("walker_walk", "control", seed=seed, every=40) for seed in (0, 1)]
    numbers = DRAW["control"](request(paths)).numbers
    curve = rows(numbers, kind="curve", task="walker_walk")
    # evaluations at 5, 45 and 85 k env steps; bins of 30k after the first: one each, drawn where its evaluations were
    assert curve["env_steps"].tolist() == [5000, 45_000, 85_000]
    assert_allclose(curve["mean"].astype(float), [5.0, 105.0, 205.0])
    assert_allclose(curve["low"].astype(float), [0.0, 100.0, 200.0])


def test_the_grid_has_55_games_and_four_averages_with_released_curves(run):
    drawn = DRAW["figure_f1"](request([run()]))
    lines = rows(drawn.numbers, kind="published curve")
    assert lines.groupby("method")["task"].nunique().to_dict() == dict.fromkeys(
        ("DreamerV2, released", "IQN", "Rainbow"), 59
    )
    page = texts(drawn.figure)
    assert page.count("published data alone") == 54 and page.count("ours: 1 of 55 games") == 4
    assert set(rows(drawn.numbers, kind="curve")["task"]) == {"atari_pong"}


def test_averages_of_ours_by_hand(all_games):
    drawn = DRAW["figure_4"](request([*all_games(0), *all_games(1)]))
    curve = rows(drawn.numbers, kind="curve", task="gamer_median").sort_values("env_steps")
    # seed s is at e (1/2 + s) gamers in every game; all three tests lie in the first bin of a million: their mean
    assert curve["env_steps"].tolist() == [1_000_000]
    assert_allclose(curve[["mean", "low", "high"]].astype(float), [[1.0, 0.5, 1.5]])
    assert_allclose(rows(drawn.numbers, kind="curve", task="gamer_mean")["mean"].astype(float), [1.0])
    assert "V2 (torch): 2 seeds" in texts(drawn.figure)


def test_averages_wait_for_every_game(all_games):
    paths = all_games(0)
    drawn = DRAW["figure_4"](request(paths[:-1]))
    assert rows(drawn.numbers, kind="curve").empty
    assert texts(drawn.figure).count("ours: 54 of 55 games") == 4


def test_a_small_scale_has_its_own_axis_where_it_was_run(run):
    drawn = DRAW["figure_g1"](request([run(scale="laptop", total=50_000)], scale="laptop"))
    axes = dict(zip([*map(title, GAMES)], drawn.figure.axes, strict=False))
    assert axes["Pong"].get_xlim() == (0, 50_000) and axes["Alien"].get_xlim() == (0, 200e6)
    assert "the released curve begins beyond its end" in words(drawn.figure)


def test_figure_5_pairs_an_ablation_with_the_printed_values(all_games):
    drawn = DRAW["figure_5"](request([*all_games(0), *all_games(0, variant="gaussian-latents")]))
    printed = rows(drawn.numbers, kind="published")["mean"].tolist()
    assert printed == [0.25, 0.19, 0.25, 0.16, 0.25, 0.01, 0.25, 0.24]
    curves = rows(drawn.numbers, kind="curve")
    assert curves["method"].tolist() == ["DreamerV2", "Gaussian latents", "DreamerV2", "DreamerV2", "DreamerV2"]


def test_the_first_frames_are_drawn_beside_every_released_seed(run):
    paths = [run(evaluations=4, every=1000), run("atari_boxing", evaluations=4, every=1000)]
    drawn = DRAW["start"](request(paths))
    assert set(drawn.numbers["task"]) == {"atari_boxing", "atari_pong"}
    released = rows(drawn.numbers, kind="published seed", task="atari_pong")
    # our runs have reached 3.005 M frames: three released bins of eight seeds
    assert released.groupby("seed").size().to_dict() == {str(seed): 3 for seed in range(3, 11)}
    assert len(rows(drawn.numbers, kind="curve", task="atari_pong")) == 4, "bins a fiftieth of what is there"


def test_the_first_frames_end_where_the_released_ones_are_kept(run):
    path = run(evaluations=3, every=1, episode=10_000_000)  # tests at 50, 60 and 70 M frames
    drawn = DRAW["start"](request([path, run("atari_boxing")]))
    limits = [axes.get_xlim()[1] for axes in drawn.figure.axes[:2]]
    assert limits == [25_000, 20_000_000] and rows(drawn.numbers, kind="curve", task="atari_pong").empty


def test_another_task_of_a_small_scale_has_a_panel_of_its_own(run):
    drawn = DRAW["figure_b2"](request([run(variant="montezuma", scale="smoke")], scale="smoke"))
    assert "Not a task of this figure, but the one run at this scale: Pong." in words(drawn.figure)
    assert [axes.get_xlim()[1] for axes in drawn.figure.axes[:2]] == [200e6, 25_000]


def test_an_unfinished_run_is_told_with_its_progress(run):
    page = words(DRAW["figure_b2"](request([run(MONTEZUMA, "montezuma", complete=False, total=10**8)], seeds=6)).figure)
    assert "partial: 0 of 6 seeds, 25k of 100M env steps" in page


# ------------------------------------------------------------------------------------------------ tables and bars


def test_table_1_shows_printed_recomputed_and_ours(all_games):
    drawn = DRAW["table_1"](request([*all_games(0), *all_games(1, framework="jax")]))
    page, text = words(drawn.figure), drawn.further[".md"].decode()
    for part in ("2.146", "11.327", "1.787 ± 0.249", "42.261", "all four agree", "differs: median", "NOT RUN"):
        assert part in page and part in text
    assert "by the caption's own recipe the gamer median is 1.79 ± 0.25 instead of 2.15" in page
    assert "the gamer's 302.8 stands under dqn_determ_2e8 and 29.0 in its place" in page
    ours = rows(drawn.numbers, kind="ours", agent="DreamerV2").set_index("framework")
    # a million frames before the end hold all three tests: 0, 1/2 + s, 1 + 2 s gamers
    assert_allclose(ours.loc["torch", ["gamer_median", "gamer_mean"]].astype(float), 0.5)
    assert_allclose(ours.loc["jax", ["gamer_median", "gamer_mean"]].astype(float), 1.5)
    agree = rows(drawn.numbers, kind="recomputed")
    assert len(agree) == 12 and agree["seeds"].tolist()[:8] == [8, 4, 8, 4, 8, 4, 8, 11]


def test_a_table_gives_no_average_while_a_game_is_missing(all_games):
    paths = all_games(0)[:7]
    for name in ("table_1", "table_2"):
        drawn = DRAW[name](request(paths))
        assert "7 of 55 games" in texts(drawn.figure)
        assert rows(drawn.numbers, kind="ours")["gamer_median"].isna().all()


def test_table_2_has_the_printed_ablations_and_counts(run):
    page = texts(DRAW["table_2"](request([run(variant="no-reinforce")])).figure)
    assert {"No Image Gradients", "0.31", "51 / 3 / 1", "1 of 55 games"} <= set(page)
    assert page.count("NOT RUN") == 6


def test_table_k1_sets_ours_beside_the_published_game_by_game(run):
    drawn = DRAW["table_k1"](request([run(returns=lambda s, e, k: 7.0), run("atari_alien", framework="jax")]))
    published = rows(drawn.numbers, kind="published", method="DreamerV2").set_index("task")["score"]
    assert len(published) == 55
    assert_allclose(published["atari_gravitar"], 3789, atol=0.5)
    ours = rows(drawn.numbers, kind="ours").set_index("task")
    assert ours["score"].to_dict() == {"atari_pong": 7.0, "atari_alien": 100.0}
    assert_allclose(ours.at["atari_pong", "difference"], 7.0 - published["atari_pong"])
    page = texts(drawn.figure)
    assert "303 *" in page and "not comparable: 25k of 200M env steps" in page
    assert "ours (jax)" in drawn.further[".md"].decode()


def test_figure_1_has_a_bar_per_published_agent_and_ours_when_whole(all_games):
    numbers = DRAW["figure_1"](request(all_games(0))).numbers
    bars = rows(numbers, kind="published").set_index("agent")
    assert_allclose(bars["gamer_median"], [2.146, 1.472, 1.288, 0.653, 0.098], atol=6e-4)
    assert bars["games"].tolist() == [55, 55, 55, 55, 26]
    assert_allclose(rows(numbers, kind="ours")["gamer_median"], [0.5])
    (axes,) = DRAW["figure_1"](request([*all_games(0), *all_games(3, framework="jax")])).figure.axes
    assert axes.get_ylim()[1] > 3.6, "3.50 of JAX, with its number above it"
    few = DRAW["figure_1"](request(all_games(0)[:3]))
    assert math.isnan(rows(few.numbers, kind="ours")["gamer_median"].iloc[0])
    assert "DreamerV2 3 of 55 games ours, torch" in words(few.figure)


def test_differences_are_sorted_and_ours_are_dots(run):
    level = TABLE.at["atari_pong", "iqn"]
    numbers = DRAW["figure_e1"](request([run(returns=lambda s, e, k: float(level))])).numbers
    against = rows(numbers, method="IQN")
    bars = rows(against, kind="published")["difference"]
    assert len(bars) == 55 and bars.is_monotonic_decreasing
    # James Bond, by hand: (40445.47 - 3165.7) / (302.8 - 7)
    best = rows(against, kind="published").iloc[0]
    assert best["task"] == "atari_james_bond" and best["difference"] == pytest.approx(126.03, abs=0.01)
    dots = rows(against, kind="ours")
    assert dots["task"].tolist() == ["atari_pong"] and dots["difference"].tolist() == [0.0]
    assert numbers["method"].unique().tolist() == ["IQN", "Rainbow", "C51", "DQN"]


# ------------------------------------------------------------------------------------------------ video


def test_frames_of_two_episodes_are_shown_for_every_framework(run, make_video):
    truth, prediction = (video.repeat(2, axis=0)[..., :1] for video in make_video())
    paths = [run(MONTEZUMA, "montezuma", framework=name, video=(truth, prediction)) for name in ("torch", "jax")]
    drawn = DRAW["figure_b1"](request(paths))
    page = texts(drawn.figure)
    assert [text.split("\n")[0] for text in page if text.startswith("Episode ")] == ["Episode 1", "Episode 2"] * 2
    assert_allclose(rows(drawn.numbers, context=False)["error"].astype(float), 0.2)
    assert drawn.further[".gif"][:6] == b"GIF89a"


def test_grey_becomes_three_equal_channels():
    grey = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert np.array_equal(in_color(grey)[..., 2], grey[..., 0]) and in_color(grey).shape == (1, 2, 2, 3)
    assert in_color(np.zeros((1, 2, 2, 3))).shape == (1, 2, 2, 3)


def test_a_partial_run_has_no_video_yet(run):
    page = words(DRAW["figure_a1"](request([run(HUMANOID, "humanoid", complete=False)])).figure)
    assert "partial: the video comes with the finished run" in page


# ------------------------------------------------------------------------------------------------ command line


def test_the_command_writes_picture_numbers_and_sources_with_every_published_file(run, tmp_path):
    run(variant="schedules"), run(variant="no-layer-norm")
    root = run().parents[4]
    status, stem = command("table_1", tmp_path, "--results-root", root)
    assert status == 0 and {path.suffix for path in tmp_path.glob("table_1.*")} == {
        ".pdf", ".png", ".csv", ".json", ".md"
    }  # fmt: skip
    content = json.loads(stem.with_suffix(".json").read_text())
    assert {one["variant"] for one in content["runs"]} == {"dreamerv2", "schedules"}
    assert {path.rpartition("/")[2] for path in content["beside"]} == set(BESIDE)
    assert Image.open(stem.with_suffix(".png")).width == pytest.approx(7.2 * 220, abs=1)


def test_the_same_runs_give_the_same_bytes(run, tmp_path):
    path = run()
    for folder in ("one", "two"):
        assert command("figure_4", tmp_path / folder, "--runs", path)[0] == 0
    for suffix in (".png", ".csv", ".json"):
        one, two = ((tmp_path / folder / "figure_4").with_suffix(suffix) for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_every_task_of_an_experiment_can_be_drawn():
    """The command refuses runs of tasks that it has no name for: a figure's own tasks must be among those it knows."""
    tasks = {task for experiment in EXPERIMENTS.values() for task in experiment.tasks}
    assert tasks <= set(figures.known_tasks())
