"""Figures 11 and 12 of PlaNet from synthetic files: the numbers by hand, and what a page must say on its face."""

import json

import h5py
import numpy as np
import pytest
import yaml

from replications.planet import diagnostics, figures_planner, figures_states
from replications.planet.figures_published import REFERENCE, TASKS
from shared.errors import UserError
from shared.figures.command import Request
from shared.figures.page import image_bytes, texts
from shared.figures.sources import check_mixture, check_scale, file_sha256, load_runs
from shared.results import RunWriter
from tests.figures.conftest import PROVENANCE


def cell_name(horizon, iterations, candidates, elites):
    return f"simulator-h{horizon:02}-i{iterations:02}-j{candidates:04}-k{elites:04}"


def write_cell(root, setting, *, returns=(100.0, 300.0), seed=0, task="cheetah_run", complete=True, scale="paper"):
    """A run of one planner setting (horizon, iterations, candidates, elites)."""
    names = ("horizon", "iterations", "candidates", "elites")
    identity = {"paper": "planet", "framework": "numpy", "variant": cell_name(*setting), "task": task, "scale": scale}
    writer = RunWriter(
        root / identity["variant"] / f"seed_{seed}.h5",
        identity={**identity, "seed": seed},
        config_text=yaml.safe_dump({"values": {"planner": dict(zip(names, setting, strict=True))}}),
        overrides=[],
        provenance=PROVENANCE,
        total_env_steps=0,
    )
    for episode, score in enumerate(returns):
        writer.add("eval/episode", env_steps=0, updates=0, episode=episode, length=250, **{"return": score})
    (writer.finish if complete else writer.flush)()
    return writer.path if complete else writer.partial


def request(paths, *, scale=None, variants=("simulator-h*",)):
    sources = load_runs(paths, paper="planet", tasks=list(TASKS), variants=list(variants))
    return Request(sources, check_scale(sources, scale), None, REFERENCE, check_mixture(sources, allow=True))


def page_text(figure):
    return " ".join(" ".join(texts(figure)).split())


def panels(figure):
    """The axes of the heat maps, without the colour bar."""
    return [axes for axes in figure.axes if axes.images]


# ------------------------------------------------------------------------------------------------ Figure 12


def test_a_cell_is_the_mean_over_seeds_and_episodes(tmp_path):
    paths = [
        write_cell(tmp_path, (8, 10, 1000, 100), returns=(100, 300), seed=0),
        write_cell(tmp_path, (8, 10, 1000, 100), returns=(500, 700), seed=1),
        write_cell(tmp_path, (8, 10, 1000, 50), returns=(7, 9)),
    ]
    numbers = figures_planner.figure_12(request(paths)).numbers.set_index("elites")
    assert numbers.loc[100, ["mean", "low", "high", "seeds", "episodes"]].tolist() == [400, 100, 700, 2, 4]
    assert numbers.loc[50, ["mean", "low", "high", "seeds", "episodes"]].tolist() == [8, 7, 9, 1, 2]
    assert numbers["fraction"].to_dict() == {50: 0.05, 100: 0.1} and not numbers["unfinished"].any()


def test_the_page_has_the_published_panels_and_the_cell_in_its_place(tmp_path):
    figure = figures_planner.figure_12(request([write_cell(tmp_path, (8, 15, 300, 90))])).figure
    found = panels(figure)
    assert len(found) == 20 and [axes.get_title(loc="left") for axes in found[:5]] == [
        f"horizon {h}" for h in (6, 8, 10, 12, 14)
    ]
    filled = [index for index, axes in enumerate(found) if np.isfinite(axes.images[0].get_array().filled(np.nan)).any()]
    assert filled == [2 * 5 + 1]  # third row: keep 0.3; second column: horizon 8
    means = found[11].images[0].get_array().filled(np.nan)
    assert means[3, 1] == 200 and np.isnan(np.delete(means.ravel(), 3 * 4 + 1)).all()
    assert [label.get_text() for label in found[15].get_xticklabels()] == ["100", "300", "500", "1000"]
    assert [label.get_text() for label in found[15].get_yticklabels()] == ["3", "5", "10", "15"]
    assert "keep 0.5" in found[15].get_ylabel()


def test_all_panels_share_one_colour_scale(tmp_path):
    paths = [
        write_cell(tmp_path, (6, 3, 100, 5), returns=(132.0,)),
        write_cell(tmp_path, (8, 15, 1000, 500), returns=(837.0,)),
    ]
    figure = figures_planner.figure_12(request(paths)).figure
    assert {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels(figure)} == {(132.0, 837.0)}


def test_the_page_says_what_is_missing_unfinished_and_published(tmp_path):
    paths = [write_cell(tmp_path, (6, 3, 100, 5)), write_cell(tmp_path, (8, 3, 100, 5), complete=False)]
    drawn = figures_planner.figure_12(request(paths))
    said = page_text(drawn.figure)
    for words in ("2 of 320 cells", "out: no run", "132 to 837", "horizon is about 8", "6 is too short", "200*"):
        assert words in said, words
    assert drawn.numbers["unfinished"].tolist() == [False, True]
    crosses = sum(len(axes.lines) for axes in panels(drawn.figure))
    assert crosses == 320 - 2


def test_a_smaller_grid_and_another_task_are_told(tmp_path):
    paths = [
        write_cell(tmp_path, (h, 1, 10, k), task="cartpole_swingup", scale="smoke") for h in (2, 3) for k in (1, 5)
    ]
    figure = figures_planner.figure_12(request(paths)).figure
    said = page_text(figure)
    assert len(panels(figure)) == 4 and "4 of 4 cells" in said
    assert "smaller grid than the published one" in said and "Cartpole Swing Up (published: Cheetah Run)" in said


def test_an_empty_page_is_the_published_layout():
    drawn = figures_planner.figure_12(request([], scale="paper"))
    assert len(panels(drawn.figure)) == 20 and drawn.numbers.empty and "0 of 320 cells" in page_text(drawn.figure)
    assert list(drawn.numbers.columns) == figures_planner.NUMBERS


def test_many_configs_are_counted_and_few_are_named(tmp_path):
    few = [write_cell(tmp_path, (h, 3, 100, 5)) for h in (6, 8)]
    assert "2 configs" not in page_text(figures_planner.figure_12(request(few)).figure)
    many = [*few, *(write_cell(tmp_path, (h, 3, 100, 5)) for h in (10, 12, 14))]
    assert "5 configs" in page_text(figures_planner.figure_12(request(many)).figure)


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_the_same_runs_make_the_same_bytes(tmp_path, suffix):
    path = write_cell(tmp_path, (6, 3, 100, 5))
    one, other = (
        image_bytes(figures_planner.figure_12(request([path])).figure, suffix, title="t", origin="o") for _ in "ab"
    )
    assert one == other


# ------------------------------------------------------------------------------------------------ Figure 11

CONTEXT = 3


def write_diagnostics(run, *, offset=2.0, length=9):
    """Series of two episodes beside a run: truth 10 e + k + t, predicted `offset` too large after the context."""
    episode, frame = np.arange(2.0)[:, None, None], np.arange(float(length))[None, :, None]
    source = load_runs([run], paper="planet", tasks=list(TASKS), variants=["rssm"])[0]
    path = run.with_suffix(".diagnostics.h5")
    with h5py.File(path, "w") as file:
        identity = {name: source.run.attrs[name] for name in ("framework", "variant", "task", "seed", "scale")}
        file.attrs.update({"schema": diagnostics.SCHEMA, **identity, "context": CONTEXT, "training_episodes": 20})
        file.attrs.update({"kinds": json.dumps(["agent", "random"]), "run_sha256": file_sha256(run)})
        file.attrs["settings"] = json.dumps({"units": [100, 100], "passes": 100})
        for component, size in (("position", 2), ("reward", 1), ("velocity", 4)):
            truth = 10 * episode + np.arange(size) + frame
            imagined = truth + offset * (frame >= CONTEXT)
            for name, value in (("truth", truth), ("prediction", imagined), ("filtered", truth + 0.5)):
                file[f"{name}/{component}"] = value
            file[f"truth/{component}"].attrs["spread"] = np.full(size, 4.0)
    return path


def state_request(paths, **options):
    return request(paths, variants=("rssm",), **options)


def series_of(axes):
    return [line.get_ydata().tolist() for line in axes.lines]


def test_every_number_has_a_panel_with_truth_prediction_and_shaded_context(make_run):
    run = make_run()
    write_diagnostics(run)
    figure = figures_states.figure_11(state_request([run])).figure
    found = [axes for axes in figure.axes if axes.lines]
    names = ["position 1", "position 2", "velocity 1", "velocity 2", "velocity 3", "velocity 4", "reward"]
    assert [axes.get_title(loc="left") for axes in found] == names
    # velocity 2 of the agent's episode: 1 + t, and 2 too large from frame 4 on
    truth = [1.0 + t for t in range(9)]
    assert series_of(found[3]) == [truth, [v + 2 * (t >= CONTEXT) for t, v in enumerate(truth)]]
    (shade,) = found[3].patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (0.5, 3.5)


def test_the_table_has_every_run_episode_and_frame(make_run):
    runs = [make_run(), make_run(framework="jax"), make_run(seed=1)]
    for run in runs:
        write_diagnostics(run)
    numbers = figures_states.figure_11(state_request(runs)).numbers
    assert list(numbers.columns) == figures_states.NUMBERS and len(numbers) == 3 * 2 * 7 * 9
    row = numbers.query("framework == 'jax' and episode == 'random' and component == 'velocity' and index == 3")
    assert row["truth"].tolist() == [12.0 + t for t in range(9)]
    assert row["context"].tolist() == [True] * 3 + [False] * 6 and row["frame"].tolist() == list(range(1, 10))
    assert (row["prediction"] - row["truth"]).tolist() == [0] * 3 + [2] * 6 and (
        row["filtered"] - row["truth"] == 0.5
    ).all()


def test_errors_are_told_in_units_of_the_variance(make_run):
    run = make_run()
    write_diagnostics(run)
    said = page_text(figures_states.figure_11(state_request([run])).figure)
    # imagined: (2 / 4)^2 = 0.25; filtered: (0.5 / 4)^2 = 0.0156
    assert "torch cheetah_run seed 0 0.25 imagined against 0.02 filtered" in said
    for words in ("The model is frozen", "20 training episodes", "3 frames of context", "Cheetah Run"):
        assert words in said, words


def test_each_framework_has_its_block_of_the_lowest_seed(make_run):
    runs = [make_run(seed=2), make_run(seed=1), make_run(framework="jax", seed=2)]
    for run in runs:
        write_diagnostics(run)
    figure = figures_states.figure_11(state_request(runs)).figure
    said = page_text(figure)
    assert "torch, seed 1: held-out episode" in said and "jax, seed 2: held-out episode" in said
    assert "torch, seed 2:" not in said and len([axes for axes in figure.axes if axes.lines]) == 14


def test_runs_without_diagnostics_are_named(make_run):
    with_file, without = make_run(), make_run(seed=1)
    write_diagnostics(with_file)
    assert "No diagnostics file beside torch/rssm/cheetah_run seed 1." in page_text(
        figures_states.figure_11(state_request([with_file, without])).figure
    )
    empty = figures_states.figure_11(state_request([without]))
    assert "NOT RUN" in page_text(empty.figure) and list(empty.numbers.columns) == figures_states.NUMBERS
    assert "NOT RUN" in page_text(figures_states.figure_11(state_request([], scale="smoke")).figure)


def test_diagnostics_of_another_state_of_the_run_are_refused(make_run):
    run = make_run()
    write_diagnostics(run)
    make_run(evaluations=2)
    with pytest.raises(UserError, match="made from another run"):
        figures_states.figure_11(state_request([run]))


def test_a_number_that_never_changes_does_not_count(make_run):
    run = make_run()
    path = write_diagnostics(run)
    with h5py.File(path, "a") as file:
        file["truth/velocity"].attrs["spread"] = np.array([4.0, 0.0, 4.0, 4.0])
    assert figures_states.unexplained(diagnostics.read_diagnostics(path), "prediction") == pytest.approx(0.25)
