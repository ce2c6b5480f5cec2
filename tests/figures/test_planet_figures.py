"""PlaNet's figures from synthetic runs: the numbers by hand, and what a figure must say on its face."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from numpy.testing import assert_allclose
from PIL import Image

from replications.planet import figures, figures_published
from replications.planet.figures_table import table_1
from replications.planet.figures_video import figure_10
from shared.errors import UserError
from shared.figures.command import Request
from shared.figures.page import texts
from shared.figures.sources import check_mixture, check_scale, load_runs
from tests.figures.conftest import COMMIT, PROVENANCE
from tests.figures.planet_runs import write_simulator_run

DRAW = {name: item.draw for name, item in figures.FIGURES.items()}
OF_AGENTS = sorted(set(DRAW) - {"figure_11", "figure_12"})  # these have tests of their own
figure_4 = DRAW["figure_4"]


def request(paths, *, scale=None, seeds=None, allow=False) -> Request:
    sources = load_runs(paths, paper="planet", tasks=[*figures.TASKS, "all_tasks"], variants=["*"])
    notes = check_mixture(sources, allow=allow)
    return Request(sources, check_scale(sources, scale), seeds, figures.REFERENCE, notes)


def command(name: str, folder: Path, *arguments) -> tuple[int, Path]:
    """Exit status of the command line, and the stem of its outputs."""
    stem = folder / name
    outputs = [f"--figure={stem}.pdf", f"--numbers={stem}.csv", f"--sources={stem}.json"]
    return figures.main([name, *map(str, arguments), *outputs]), stem


def page_text(figure) -> str:
    return "\n".join(texts(figure))


# ------------------------------------------------------------------------------------------------ Figure 4, numbers


def test_points_are_medians_and_percentiles_over_seeds_and_episodes(make_run):
    drawn = figure_4(request([make_run(seed=0), make_run(seed=1)]))
    curve = drawn.numbers[drawn.numbers["kind"] == "curve"]
    # evaluation e pools 100 e + {0, 1, 2, 3, 10, 11, 12, 13}: median 6.5, percentile 5 at 0.05 * 7 = 0.35 of the way
    # from the first to the second value, percentile 95 at 0.65 of the way from the seventh to the eighth
    assert curve["episodes"].tolist() == [5, 15, 25]
    assert curve["env_steps"].tolist() == [5000, 15000, 25000]
    assert_allclose(curve["median"].astype(float), [6.5, 106.5, 206.5])
    assert_allclose(curve["low"].astype(float), [0.35, 100.35, 200.35])
    assert_allclose(curve["high"].astype(float), [12.65, 112.65, 212.65])
    assert curve["seeds"].tolist() == [2, 2, 2] and curve["returns"].tolist() == [8, 8, 8]
    assert not curve["dashed"].any()


def test_each_seed_has_its_own_median(make_run):
    numbers = figure_4(request([make_run(seed=0), make_run(seed=3)])).numbers
    single = numbers[numbers["kind"] == "seed"]
    assert single["seed"].tolist() == ["0"] * 3 + ["3"] * 3
    assert_allclose(single["median"].astype(float), [1.5, 101.5, 201.5, 31.5, 131.5, 231.5])


def test_random_line_is_the_median_of_the_prefill(make_run):
    numbers = figure_4(request([make_run(seed=0)])).numbers
    # the prefill's returns are 10, 20, 30, 40, 50; episodes of the agent (500) do not count
    assert numbers.loc[numbers["kind"] == "random", "median"].tolist() == [30.0]


def test_published_lines_stand_on_every_panel_with_their_origin(make_run):
    numbers = figure_4(request([make_run()])).numbers
    published = numbers[numbers["kind"] == "published"]
    assert len(published) == 18 and set(published["origin"]) == {"arXiv 1811.04551 v5, Table 1"}
    walker = published[published["task"] == "walker_walk"].set_index("method")["median"]
    assert walker.to_dict() == {"D4PG": 968.0, "A3C": 311.0, "PlaNet": 951.0}


def test_seeds_evaluated_a_little_apart_share_a_point(make_run):
    numbers = figure_4(request([make_run(seed=0), make_run(seed=1, every=9)])).numbers
    curve = numbers[numbers["kind"] == "curve"]
    # seed 0 at 5, 15, 25 episodes, seed 1 at 5, 14, 23: the middle of both
    assert curve["episodes"].tolist() == [5, 14.5, 24] and curve["seeds"].tolist() == [2, 2, 2]


def test_frameworks_are_separate_curves(make_run):
    drawn = figure_4(request([make_run(seed=0), make_run(seed=0, framework="jax")]))
    curve = drawn.numbers[drawn.numbers["kind"] == "curve"]
    assert curve.groupby("framework")["median"].first().to_dict() == {"jax": 1.5, "torch": 1.5}
    assert "PlaNet (RSSM), ours: torch, jax" in texts(drawn.figure)
    assert "RSSM (torch, jax): 1 seed × 4 test episodes" in texts(drawn.figure)
    torch, jax = (line.get_color() for line in drawn.figure.axes[2].lines if line.get_linewidth() == 1.4)
    assert (torch, jax) == ("#0072B2", "#56B4E9")


# ------------------------------------------------------------------------------------------------ Figure 4, its face


def test_missing_panels_and_methods_say_not_run(make_run):
    drawn = figure_4(request([make_run("cheetah_run")]))
    words = texts(drawn.figure)
    assert words.count("NOT RUN") == 5  # the other panels
    assert "SSM, GRU, GRU+prior: NOT RUN" in words
    for name in ("Stochastic (SSM)", "Deterministic (GRU)", "GRU, prior trained"):
        assert f"{name}: NOT RUN" in words
    assert set(drawn.numbers.loc[drawn.numbers["kind"] == "curve", "task"]) == {"cheetah_run"}


def test_a_figure_without_any_run_is_all_not_run():
    words = texts(figure_4(request([], scale="paper")).figure)
    assert words.count("NOT RUN") == 6 and "Scale paper. No run found." in words


def test_a_panel_tells_seeds_and_test_episodes(make_run):
    words = texts(figure_4(request([make_run(seed=s) for s in range(3)])).figure)
    assert "RSSM (torch): 3 seeds × 4 test episodes" in words
    assert not any(line.startswith("partial") for line in words)


def test_unfinished_runs_are_dashed_and_counted(make_run):
    done = [make_run(seed=s, evaluations=3, every=20, total=1_000_000) for s in (0, 1)]
    running = make_run(seed=2, evaluations=2, every=35, total=1_000_000, complete=False)
    drawn = figure_4(request([*done, running]))
    assert "partial: 2 of 3 seeds, 40k of 1M env steps" in texts(drawn.figure)
    numbers = drawn.numbers
    curve = numbers[numbers["kind"] == "curve"]
    assert curve["seeds"].tolist() == [3, 2, 3] and curve["dashed"].tolist() == [False, True, False]
    assert (
        numbers.loc[numbers["seed"] == "2", "dashed"].all() and not numbers.loc[numbers["seed"] == "0", "dashed"].any()
    )
    panel = drawn.figure.axes[2]
    assert any(line.is_dashed() for line in panel.lines if line.get_linewidth() == 0.5)


def test_a_seed_that_was_planned_and_is_missing_is_counted(make_run):
    assert "partial: 1 of 5 seeds" in texts(figure_4(request([make_run()], seeds=5)).figure)


def test_a_run_that_was_never_evaluated_is_drawn_as_such(make_run):
    running = make_run(evaluations=0, total=1_000_000, complete=False)
    drawn = figure_4(request([running]))
    assert "RSSM (torch): 1 seed × 0 test episodes" in texts(drawn.figure)
    assert "partial: 0 of 1 seeds, 5k of 1M env steps" in texts(drawn.figure)
    assert not (drawn.numbers["kind"] == "curve").any()


def test_scale_paper_has_the_published_axis_and_others_fit_the_runs(make_run):
    drawn = figure_4(request([make_run()]))
    assert drawn.figure.axes[0].get_xlim() == (5, 1000)
    assert [tick.get_text() for tick in drawn.figure.axes[3].get_xticklabels()] == ["5", "250", "500", "750", "1000"]
    drawn = figure_4(request([make_run(scale="laptop")]))
    assert drawn.figure.axes[0].get_xlim() == (5, 25)
    assert [tick.get_text() for tick in drawn.figure.axes[3].get_xticklabels()][-1] == "25\n25k"
    assert drawn.figure.axes[0].get_ylim() == (0, 1000)


def test_short_episodes_are_told(make_run):
    words = page_text(figure_4(request([make_run(scale="smoke", episode=200)])).figure)
    assert "Episodes of these runs have 200 env steps instead of 1000" in words.replace("\n", " ")
    words = page_text(figure_4(request([make_run(episode=996, task="cup_catch")])).figure)
    assert "Episodes of these runs" not in words, "166 times six env steps is a published length"


# ------------------------------------------------------------------------------------------------ every figure's face


@pytest.mark.parametrize("name", OF_AGENTS)
def test_the_scale_is_on_the_face(make_run, make_video, name):
    words = {
        scale: texts(DRAW[name](request([make_run(scale=scale, video=make_video(8))])).figure)
        for scale in ("smoke", "laptop", "paper")
    }
    assert "smoke: not a result" in words["smoke"]
    assert "laptop: reduced sizes, not the paper's setting" in words["laptop"]
    assert not any("smoke" in line or "laptop" in line for line in words["paper"])


@pytest.mark.parametrize("name", OF_AGENTS)
def test_the_footer_names_the_runs(make_run, make_video, name):
    path = make_run(seed=0, video=make_video(), provenance={"git_dirty": "2 changed, 0 untracked *.py"})
    with h5py.File(path) as file:
        config = file["config"].attrs["sha256"]
        day = file["provenance"].attrs["finished"][:10]
    words = page_text(DRAW[name](request([path])).figure).replace("\n", " ")
    for part in ("Scale paper", "framework torch", "seeds 0", "25,000", f"{COMMIT[:7]} (dirty)", config[:7], day):
        assert part in words, part


@pytest.mark.parametrize("name", OF_AGENTS)
def test_no_text_is_clipped_or_overlaps(make_run, make_video, name):
    video = make_video(12)
    paths = [
        make_run(task, seed, framework=framework, video=video, learning_rate=1e-3 * (1 + seed))
        for framework in ("torch", "jax")
        for task in ("cheetah_run", "walker_walk")
        for seed in (0, 1)
    ]
    paths.append(make_run("cup_catch", 0, total=1_000_000, complete=False))
    figure = DRAW[name](request(paths, allow=True, seeds=5)).figure
    figure.canvas.draw()
    items = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t.get_alpha() is None]
    boxes = [item.get_window_extent() for item in items]
    width, height = figure.canvas.get_width_height()
    for item, box in zip(items, boxes, strict=True):
        assert min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height, item.get_text()
    for index, box in enumerate(boxes):
        for other in range(index):
            width = min(box.x1, boxes[other].x1) - max(box.x0, boxes[other].x0)
            height = min(box.y1, boxes[other].y1) - max(box.y0, boxes[other].y0)
            assert width <= 1 or height <= 3, (items[index].get_text(), items[other].get_text())


# ------------------------------------------------------------------------------------------------ Table 1


def constant(value):
    return lambda seed, evaluation, episode: value + seed - 2.0  # seeds 0 to 4: value - 2, ..., value + 2


def ours(drawn, task="cheetah_run", method="PlaNet (RSSM)"):
    numbers = drawn.numbers[drawn.numbers["kind"] == "ours"]
    return numbers[(numbers["task"] == task) & (numbers["method"] == method)].iloc[0]


def test_score_is_the_mean_of_the_last_evaluation(make_run):
    entry = ours(table_1(request([make_run(seed=0), make_run(seed=1)])))
    # last evaluation: 200 + {0, 1, 2, 3} and 200 + {10, 11, 12, 13}; two cut at each end leave 202, 203, 210, 211
    assert (entry["score"], entry["median"], entry["iqm"]) == (206.5, 206.5, 206.5)
    assert entry["published"] == 662 and entry["difference"] == 206.5 - 662
    assert entry["seeds"] == 2 and entry["test_episodes"] == 4 and entry["env_steps"] == 25000
    assert 200 <= entry["low"] < 206.5 < entry["high"] <= 213


def test_one_seed_has_no_interval(make_run):
    entry = ours(table_1(request([make_run()])))
    assert np.isnan(entry["low"]) and np.isnan(entry["high"]) and entry["score"] == 201.5


@pytest.mark.parametrize(
    ("score", "seeds", "verdict"),
    [
        (662, 5, "consistent"),
        (600, 5, "below: 600 vs 662"),
        (700, 5, "above: 700 vs 662"),
        (600, 4, "too few seeds to say"),
    ],
)
def test_verdicts_at_the_published_length(make_run, score, seeds, verdict):
    paths = [make_run(seed=s, evaluations=2, every=995, returns=constant(score)) for s in range(seeds)]
    assert ours(table_1(request(paths)))["verdict"] == verdict


def test_cem_on_the_true_simulator_has_a_row_and_a_verdict(results):
    paths = [write_simulator_run(results, "cheetah_run", seed=seed, score=654.0 + seed) for seed in range(5)]
    paths += [write_simulator_run(results, "cup_catch", seed=seed, score=900.0) for seed in range(5)]
    drawn = table_1(request(paths))
    cheetah, cup = ours(drawn, "cheetah_run", "CEM + true simulator"), ours(drawn, "cup_catch", "CEM + true simulator")
    # seeds 654, ..., 658 with episodes at -3, -1, 1, 3 around them
    assert (cheetah["score"], cheetah["published"], cheetah["framework"]) == (656, 656, "numpy")
    assert (cheetah["seeds"], cheetah["test_episodes"], cheetah["env_steps"]) == (5, 4, 0)
    assert cheetah["verdict"] == "consistent" and cup["verdict"] == "below: 900 vs 993"
    assert ours(drawn)["verdict"] == "NOT RUN", "PlaNet itself"
    lines = drawn.further[".md"].decode().splitlines()
    assert "| CEM + true simulator, ours (numpy) | state | – | – | 656 | – | 900 | – |" in lines


def test_each_framework_has_its_rows(make_run):
    drawn = table_1(request([make_run(), make_run(framework="jax", seed=1)]))
    rows = drawn.numbers[(drawn.numbers["kind"] == "ours") & (drawn.numbers["task"] == "cheetah_run")]
    assert rows.groupby("framework")["score"].first().dropna().to_dict() == {"torch": 201.5, "jax": 211.5}


def test_verdicts_that_compare_nothing(make_run):
    def verdict(*paths, task="cheetah_run", **options):
        return ours(table_1(request(paths, **options)), task)["verdict"]

    run = make_run()
    assert verdict(run) == "not comparable: 25k of 1M env steps"
    assert verdict(run, task="walker_walk") == "NOT RUN"
    assert verdict(make_run(scale="smoke")) == "not comparable: scale smoke"
    assert verdict(make_run(seed=1, total=1_000_000, complete=False)) == "partial: 25k of 1M env steps"
    long = [make_run(seed=s, evaluations=2, every=995, learning_rate=1e-3 + 1e-3 * (s == 4)) for s in range(5)]
    assert verdict(*long, allow=True) == "not comparable: mixed code"


def test_unfinished_seeds_do_not_count_as_final(make_run):
    entry = ours(table_1(request([make_run(seed=0), make_run(seed=1, total=1_000_000, complete=False)])))
    assert entry["score"] == 201.5 and (entry["seeds"], entry["expected_seeds"]) == (1, 2)


def test_the_table_as_markdown_and_on_its_face(make_run):
    drawn = table_1(request([make_run()]))
    lines = drawn.further[".md"].decode().splitlines()
    assert "| A3C, published | proprio | 558 | 285 | 214 | 129 | 105 | 311 |" in lines
    assert "| PlaNet (RSSM), ours (torch) | pixels | – | – | 202 | – | – | – |" in lines
    assert "| Data efficiency over D4PG, published | factor | 250 | 40 | 500+ | 300 | 100 | 90 |" in lines
    assert any("the published score lies inside" in line for line in lines)
    words = texts(drawn.figure)
    assert "CEM + true simulator, published" in words
    # five tasks of PlaNet and six of CEM in the detail, six cells of CEM in the published layout
    assert words.count("NOT RUN") == 5 + 6 + 6


# ------------------------------------------------------------------------------------------------ Figure 10


def test_figure_10_takes_the_published_task_and_says_which_it_has(make_run, make_video):
    cartpole = make_run("cartpole_swingup", 0, video=make_video(8))
    assert "Cartpole Swing Up (published: Cheetah Run)" in page_text(figure_10(request([cartpole])).figure)
    cheetah = make_run("cheetah_run", 1, video=make_video(8))
    title = texts(figure_10(request([cartpole, cheetah])).figure)[0]
    assert title == "PlaNet, Figure 10: open-loop video prediction, Cheetah Run"


def test_figure_10_rows_columns_and_errors(make_run, make_video):
    drawn = figure_10(request([make_run(video=make_video())]))
    assert len(drawn.figure.axes) == 2 * 2  # truth, model; context and open loop
    words = texts(drawn.figure)
    assert all(str(frame) in words for frame in (1, 2, 3, 4, 5, 6, 10, 15, 20, 25, 30, 35, 40, 45, 50))
    assert words.count("NOT RUN") == 3
    assert words.count("0.000") == 5 and words.count("0.200") == 10
    late = drawn.numbers[drawn.numbers["frame"] == 6].iloc[0]
    # brightness 10 against the last context frame's 8
    assert_allclose([late["error"], late["copy_error"]], [0.2, 2 / 255])
    assert drawn.numbers["context"].sum() == 5 and len(drawn.numbers) == 50


def test_figure_10_shows_each_model_of_its_own_run(make_run, make_video):
    variants = ("rssm", "overshooting", "deterministic", "ssm")
    paths = [make_run(variant=v, framework=f, video=make_video(12)) for v in variants for f in ("torch", "jax")]
    drawn = figure_10(request(paths))
    words = texts(drawn.figure)
    assert len(drawn.figure.axes) == 4 * 2 * 2 and "NOT RUN" not in words
    for name in ("PlaNet", "PlaNet +\novershooting", "Deterministic\n(GRU)", "Stochastic\n(SSM)"):
        assert f"{name}\nours, torch,\nseed 0" in words
    assert words.count("context: seen by the model") == 1, "one head above all strips"
    said = page_text(drawn.figure).replace("\n", " ")
    assert "Shown is torch where a method has runs of both frameworks" in said
    assert "Each run plays its own held-out episodes" in said
    assert drawn.numbers.groupby(["method", "framework"]).size().tolist() == [12] * 8, "numbers of both frameworks"


def test_figure_10_names_the_frames_again_where_they_change(make_run, make_video):
    paths = [make_run(video=make_video(12)), make_run(variant="ssm", framework="jax", video=make_video(8, context=3))]
    words = texts(figure_10(request(paths)).figure)
    assert words.count("context: seen by the model") == 2 and words.count("NOT RUN") == 2
    assert "Stochastic\n(SSM)\nours, jax,\nseed 0" in words


def test_figure_10_keeps_to_one_task(make_run, make_video):
    paths = [make_run(video=make_video(8)), make_run("walker_walk", variant="ssm", video=make_video(8))]
    drawn = figure_10(request(paths))
    words = texts(drawn.figure)
    assert set(drawn.numbers["task"]) == {"cheetah_run"} and words.count("NOT RUN") == 2
    assert "no video of this task in its 1 runs" in words


def test_the_film_has_a_frame_per_image_and_a_border_that_turns(make_run, make_video, tmp_path):
    film = tmp_path / "film.gif"
    film.write_bytes(figure_10(request([make_run(video=make_video(12))])).further[".gif"])
    with Image.open(film) as image:
        assert image.n_frames == 12 and image.info["loop"] == 0
        borders = []
        for frame in range(12):
            image.seek(frame)
            borders.append(image.convert("RGB").getpixel((11, 100)))
    blue, orange = (0, 114, 178), (213, 94, 0)
    assert borders == [blue] * 5 + [orange] * 7


def test_without_a_video_everything_says_so(make_run, tmp_path):
    drawn = figure_10(request([], scale="paper"))
    assert texts(drawn.figure).count("NOT RUN") == 4 and not len(drawn.numbers)
    assert drawn.further[".gif"].startswith(b"GIF89a")
    running = figure_10(request([make_run(complete=False)]))
    assert "partial: the video comes with the finished run" in texts(running.figure)


# ------------------------------------------------------------------------------------------------ command line


@pytest.mark.parametrize(("name", "further"), [("figure_4", ()), ("table_1", (".md",)), ("figure_10", (".gif",))])
def test_files_of_the_command_line_are_the_same_every_time(make_run, make_video, tmp_path, name, further):
    path = make_run(video=make_video(8))
    status, first = command(name, tmp_path / "a", "--runs", path, "--scale", "paper")
    assert status == 0
    assert command(name, tmp_path / "b", "--runs", path)[0] == 0
    for suffix in (".pdf", ".png", ".csv", ".json", *further):
        data = first.with_suffix(suffix).read_bytes()
        assert len(data) > 100 and data == (tmp_path / "b" / name).with_suffix(suffix).read_bytes(), suffix
    assert sorted(p.suffix for p in first.parent.iterdir()) == sorted([".pdf", ".png", ".csv", ".json", *further])


def test_numbers_and_sources_say_what_was_drawn(make_run, tmp_path):
    path = make_run(seed=7, provenance={"git_dirty": "1 changed"})
    _, stem = command("figure_4", tmp_path, "--runs", path)
    with open(stem.with_suffix(".csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "curve"]
    assert [float(row["median"]) for row in rows] == [71.5, 171.5, 271.5]
    content = json.loads(stem.with_suffix(".json").read_text())
    (run,) = content["runs"]
    assert run["path"] == str(path) and run["seed"] == 7 and run["status"] == "complete"
    assert run["git_commit"] == COMMIT and run["git_dirty"] == "1 changed"
    assert run["code_digests"] == [PROVENANCE["code_digest"]] and len(run["sha256"]) == len(run["config_sha256"]) == 64
    assert len(content["reference"]["sha256"]) == 64
    with Image.open(stem.with_suffix(".png")) as image:
        assert COMMIT in image.text["Description"] and run["config_sha256"] in image.text["Description"]
    assert b"CreationDate" not in stem.with_suffix(".pdf").read_bytes()


@pytest.mark.parametrize("what", ["code", "config"])
def test_seeds_of_different_code_or_config_are_not_mixed(make_run, tmp_path, capsys, what):
    odd = {"provenance": {"code_digest": "beef" * 16}} if what == "code" else {"learning_rate": 2e-3}
    paths = [make_run(seed=0), make_run(seed=1, **odd)]
    status, stem = command("figure_4", tmp_path, "--runs", *paths)
    message = capsys.readouterr().err
    assert status == 2 and f"MIXED {what} in torch/rssm/cheetah_run" in message and "--allow-mixed-code" in message
    assert list(tmp_path.glob("figure_4*")) == []
    assert command("figure_4", tmp_path, "--runs", *paths, "--allow-mixed-code")[0] == 0
    assert any(f"MIXED {what}" in note for note in json.loads(stem.with_suffix(".json").read_text())["notes"])
    drawn = figure_4(request(paths, allow=True))
    assert f"MIXED {what} in torch/rssm/cheetah_run" in page_text(drawn.figure)


def test_different_code_in_different_curves_is_no_mixture(make_run):
    paths = [make_run("cheetah_run"), make_run("walker_walk", provenance={"code_digest": "beef" * 16})]
    assert request(paths).notes == []


def test_a_results_folder_is_drawn_with_what_it_has(make_run, results, tmp_path):
    make_run(seed=0)
    make_run(seed=1, complete=False, total=1_000_000)
    broken = make_run(seed=2)
    broken.write_bytes(broken.read_bytes()[:1000])
    status, stem = command("figure_4", tmp_path, "--results-root", results / "paper", "--seeds", 4)
    content = json.loads(stem.with_suffix(".json").read_text())
    assert status == 0 and [run["seed"] for run in content["runs"]] == [0, 1]
    assert content["notes"] == [f"UNREADABLE and left out: {broken}"]


def test_mistakes_are_told_without_a_traceback(make_run, tmp_path, capsys):
    def told(*arguments, name="figure_4"):
        status, _ = command(name, tmp_path / "out", *arguments)
        message = capsys.readouterr().err
        assert status == 2 and message.startswith("error: ") and "Traceback" not in message
        return message

    run, running = make_run(seed=0), make_run(seed=1, complete=False)
    other_schema = make_run(seed=2)
    with h5py.File(other_schema, "r+") as file:
        file.attrs["schema"] = 99
    text = tmp_path / "notes.h5"
    text.write_text("hello")
    assert "nothing.h5" in told("--runs", "nothing.h5")
    assert f"give {running}" in told("--runs", str(running).removesuffix(".partial"))
    assert "schema 99" in told("--runs", other_schema)
    assert "notes.h5" in told("--runs", text)
    assert "a run of 'dreamer', expected 'planet'" in told("--runs", make_run(paper="dreamer"))
    assert "task 'hopper_hop' is in no figure of planet; they have cartpole" in told("--runs", make_run("hopper_hop"))
    unknown = told("--runs", make_run(variant="gru"))
    assert "variant 'gru' is in no figure of planet; they have rssm, ssm" in unknown
    assert "give the variant a name and a colour in replications/planet/figures.py" in unknown
    assert "several scales (paper, smoke)" in told("--runs", run, make_run(scale="smoke"))
    assert "--scale smoke, but the runs are of scale paper" in told("--runs", run, "--scale", "smoke")
    assert "the same run (seed 0)" in told("--runs", run, run)
    assert "say --scale" in told("--runs")
    assert "no such folder" in told("--results-root", tmp_path / "nowhere")
    assert "nowhere.csv: no such file" in told("--runs", run, "--reference", tmp_path / "nowhere.csv")
    assert not (tmp_path / "out").exists()


def test_a_figure_needs_an_image_name(make_run, tmp_path, capsys):
    arguments = [
        "figure_4",
        "--runs",
        str(make_run()),
        f"--figure={tmp_path}/a.jpeg",
        "--numbers=a.csv",
        "--sources=a.json",
    ]
    assert figures.main(arguments) == 2 and "a.jpeg: expected a name ending in .pdf or .png" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ published numbers


def test_published_numbers_add_up():
    frame = figures_published.read_reference(figures.REFERENCE)
    factors = frame[frame["input"] == "factor"].set_index("task")
    assert factors["score"].tolist() == [250, 40, 500, 300, 100, 90] and factors["at_least"].sum() == 1
    scores = frame[frame["input"] != "factor"].pivot(index="method", columns="task", values="score")
    assert scores.shape == (4, 6) and list(figures.TASKS) == [task for task in figures.TASKS if task in scores.columns]
    assert scores.loc["PlaNet"].mean() == 816.0
    # sums of the table's rows, added by hand
    assert scores.sum(axis=1).to_dict() == {"A3C": 1602, "D4PG": 5286, "PlaNet": 4896, "CEM + true simulator": 5282}


def test_a_reference_with_a_hole_is_refused(tmp_path):
    path = tmp_path / "reference.csv"
    frame = pd.read_csv(figures.REFERENCE)
    frame.drop(columns="origin").to_csv(path, index=False)
    with pytest.raises(UserError, match="expected method, input, episodes, task, score, origin"):
        figures_published.read_reference(path)
    frame[(frame["method"] != "D4PG") | (frame["task"] != "cup_catch")].to_csv(path, index=False)
    with pytest.raises(UserError, match="no score for D4PG on cup_catch"):
        figures_published.read_reference(path)
