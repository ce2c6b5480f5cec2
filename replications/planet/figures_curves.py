"""PlaNet's learning curves from run files: Figures 4, 5, 7, 8, 9 and the code states by one function; Figure 6.

What differs between the first six is data: CURVES. The parts of a panel are in shared/figures/panels.py.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.lines import Line2D

from replications.planet.figures_published import (
    EPISODE_ENV_STEPS,
    EPISODE_TICKS,
    LINE_COLOR,
    LINES,
    TASKS,
    entry,
    length_note,
    levels,
    mean_levels,
    origins,
    read_reference,
)
from shared.figures.aggregate import BOOTSTRAP_SEED, LEVEL, REPETITIONS
from shared.figures.command import Drawn, Request
from shared.figures.curves import MEAN
from shared.figures.joint import task_views
from shared.figures.page import INK, Page, styled
from shared.figures.panels import (
    RANDOM_COLOR,
    RANDOM_STYLE,
    Handles,
    Method,
    draw_panel,
    episode_axis,
    in_order,
    legend,
    method_handles,
    panel_head,
    panel_status,
    single_seeds,
)
from shared.figures.sources import Source, by_curve, origin_note

# Hue = method, lightness = framework; apart for colour-blind readers too. PlaNet itself is blue everywhere.
BLUE = {"torch": "#0072B2", "jax": "#56B4E9"}
ORANGE = {"torch": "#D55E00", "jax": "#E69F00"}
PURPLE = {"torch": "#8A4F7D", "jax": "#CC79A7"}
GREEN = {"torch": "#00704F", "jax": "#4FC3A1"}
LEFT, WIDTH, HEIGHT, ACROSS = 0.5, 1.85, 1.35, 2.27  # inches: first panel, its size, from one panel to the next
AXIS_HEIGHT, LEGEND_LINE = 0.45, 0.135  # inches

Runs = Mapping[tuple[str, str], Sequence[Source]]  # (framework, variant) -> the seeds of one curve


@dataclass(frozen=True)
class Curves:
    """One figure of six panels: its title, the variants it compares, and what its page must say besides."""

    title: str
    methods: Mapping[str, Method]
    notes: tuple[str, ...] = ()
    of_what: str = ""  # follows "collected training episodes" on the x axis


CURVES = {
    "figure_4": Curves(
        "Figure 4: model variants and model-free agents",
        {
            "rssm": Method("PlaNet (RSSM)", "RSSM", BLUE),
            "ssm": Method("Stochastic (SSM)", "SSM", ORANGE),
            "deterministic": Method("Deterministic (GRU)", "GRU", PURPLE),
            "deterministic-fair": Method("GRU, prior trained", "GRU+prior", GREEN),
        },
        (
            "Deterministic (GRU) is the authors' recipe: the mean instead of a sample, and no divergence, so that the "
            "layers behind the prior's mean, in which the planner searches, are never trained. GRU, prior trained: "
            "ours, not in the paper; the divergence stays.",
        ),
    ),
    "figure_5": Curves(
        "Figure 5: agent designs",
        {
            "rssm": Method("PlaNet", "PlaNet", BLUE),
            "random-collection": Method("Random collection", "collection", ORANGE),
            "random-shooting": Method("Random shooting", "shooting", PURPLE),
            "gradient-planner": Method("Planning by gradient", "gradient", GREEN),
        },
        (
            "Random collection: training episodes from random actions, test episodes planned. Random shooting: the "
            "best of the first candidates, without refinement. Planning by gradient: ours, not in the paper.",
        ),
    ),
    "figure_7": Curves(
        "Figure 7: one agent on all tasks, per task",
        {
            "rssm": Method("Separate agents", "separate", BLUE),
            "joint": Method("Single agent", "single", ORANGE),
        },
        (
            "Single agent: one agent and one replay for all tasks, whose episodes take turns; the x axis counts "
            "those of one task.",
            "The paper has 4 seeds in this figure.",
        ),
        of_what=" of the task",
    ),
    "figure_8": Curves(
        "Figure 8: latent overshooting",
        {
            "rssm": Method("RSSM", "RSSM", BLUE),
            "overshooting": Method("RSSM + overshooting", "RSSM+os", ORANGE),
            "drnn": Method("DRNN", "DRNN", PURPLE),
            "drnn-overshooting": Method("DRNN + overshooting", "DRNN+os", GREEN),
        },
        ("Scale and distance of the overshooting are not published: ours, in experiments.yaml.",),
    ),
    "figure_9": Curves(
        "Figure 9: activation functions",
        {
            "rssm": Method("PlaNet, ReLU", "ReLU", BLUE),
            "elu": Method("PlaNet, ELU", "ELU", ORANGE),
            "ssm": Method("SSM, ReLU", "SSM ReLU", PURPLE),
            "ssm-elu": Method("SSM, ELU", "SSM ELU", GREEN),
        },
    ),
    "code_states": Curves(
        "code states: what the authors released, and when",
        {
            "rssm": Method("Last commit (July 2019)", "last", BLUE),
            "camera-ready": Method("Camera-ready (May 2019)", "camera-ready", ORANGE),
            "first-release": Method("First release (February 2019)", "first", PURPLE),
        },
        ("Ours: the paper has no such figure. Its curves most likely come from the camera-ready state.",),
    ),
}
SEPARATE_OR_SINGLE = CURVES["figure_7"].methods


def curve_drawing(name: str) -> Callable[[Request], Drawn]:
    """The function that draws one figure of CURVES."""
    return functools.partial(curve_figure, CURVES[name])


def curve_figure(curves: Curves, request: Request) -> Drawn:
    """Test return over collected training episodes on six tasks, one panel each.

    Numbers: a row per plotted point, columns of shared.figures.panels; kind is curve (all seeds), seed, random or
    published. Below five seeds, or with unfinished runs, every seed is drawn for itself.
    """
    reference = read_reference(request.reference)
    sources = [view for source in request.sources for view in task_views(source)]
    of_task = {task: {key[:2]: found for key, found in by_curve(sources).items() if key[2] == task} for task in TASKS}
    status = {task: panel_status(of_task[task], curves.methods, request.seeds) for task in TASKS}
    axis = episode_axis(sources, request.scale, EPISODE_TICKS, EPISODE_ENV_STEPS, curves.of_what)
    heads = [max(len(status[task]) for task in list(TASKS)[start : start + 3]) for start in (0, 3)]  # lines, per row
    methods, lines = _legend_entries(curves.methods, sources, reference)
    legend_height = LEGEND_LINE * max(len(methods), len(lines)) + 0.1
    bottoms = [legend_height + AXIS_HEIGHT + HEIGHT + 0.4 + 0.1 * heads[1], legend_height + AXIS_HEIGHT]
    notes = [
        "Line: median; band: percentiles 5 to 95 over seeds × test episodes of one evaluation. Thin lines: median of "
        f"one seed. {_interval_note('median')} Dashed: an unfinished run, or a point that not all seeds have reached. "
        "Horizontal lines: final scores (means) of D4PG, A3C (from states, not pixels) and PlaNet itself, from "
        f"{origins(reference)}. Random: median return of the runs' own random prefill.",
        *curves.notes,
        *_one_seed_note(of_task, curves.methods),
        *_closing_notes(request, sources),
    ]
    tables = []
    with styled():
        page = Page(f"PlaNet, {curves.title}", request.scale, bottoms[0] + HEIGHT + 0.24 + 0.1 * heads[0], notes)
        for index, task in enumerate(TASKS):
            row, column = divmod(index, 3)
            axes = page.axes(LEFT + column * ACROSS, bottoms[row], WIDTH, HEIGHT)
            tables.append(draw_panel(axes, axis, task, of_task[task], curves.methods, levels(reference, task)))
            panel_head(axes, TASKS[task], status[task])
            axes.tick_params(labelbottom=row == 1, labelleft=column == 0)
            if column == 0:
                axes.set_ylabel("test return", labelpad=2)
        page.text(page.width / 2, legend_height + 0.06, axis.label, ha="center", color=INK, fontsize=7)
        legend(page, LEFT, legend_height, methods)
        legend(page, LEFT + 1.35 * ACROSS, legend_height, lines)
    return Drawn(page.figure, pd.concat(tables, ignore_index=True), {})


def figure_6(request: Request) -> Drawn:
    """One agent on all tasks against one agent per task: the mean over tasks, in one panel.

    Numbers: as those of the other curves, with the mean instead of the median; low and high are one standard deviation
    below and above it, over tasks x seeds x test episodes. task is "mean".
    """
    reference, methods = read_reference(request.reference), SEPARATE_OR_SINGLE
    sources = [view for source in request.sources for view in task_views(source)]
    runs: dict[tuple[str, str], list[Source]] = {}
    for source in sources:
        runs.setdefault(source.key[:2], []).append(source)
    status = panel_status(runs, methods, request.seeds, characters=100, pooled=True)
    axis = episode_axis(sources, request.scale, EPISODE_TICKS, EPISODE_ENV_STEPS, " per task")
    entries, lines = _legend_entries(methods, sources, reference)
    legend_height = LEGEND_LINE * max(len(entries), len(lines)) + 0.1
    bottom, left, width, height = legend_height + AXIS_HEIGHT, 1.6, 4.0, 2.4
    notes = [
        "Line: mean; band: one standard deviation to either side, over tasks × seeds × test episodes of one evaluation "
        "(tasks differ, and that is in it). Thin lines: mean of one seed over its tasks. "
        f"{_interval_note('mean')} Tasks are not resampled; those of one single agent are drawn together. "
        "Dashed: an unfinished run, or a point that not all runs have reached. Horizontal "
        f"lines: means over six tasks of {origins(reference)}. Random: mean return of the random prefill.",
        CURVES["figure_7"].notes[0],
        *_unequal_tasks_note(runs, methods),
        *_one_seed_note({"": runs}, methods),
        *_closing_notes(request, sources),
    ]
    with styled():
        title = "PlaNet, Figure 6: one agent on all tasks, mean over tasks"
        page = Page(title, request.scale, bottom + height + 0.3 + 0.1 * len(status), notes)
        axes = page.axes(left, bottom, width, height)
        numbers = draw_panel(axes, axis, "mean", runs, methods, mean_levels(reference), MEAN)
        panel_head(axes, "Mean over tasks", status)
        axes.set_ylabel("test return", labelpad=2)
        page.text(left + width / 2, legend_height + 0.06, axis.label, ha="center", color=INK, fontsize=7)
        legend(page, LEFT, legend_height, entries)
        legend(page, LEFT + 1.35 * ACROSS, legend_height, lines)
    return Drawn(page.figure, numbers, {})


def _legend_entries(
    methods: Mapping[str, Method], sources: Sequence[Source], reference: pd.DataFrame
) -> tuple[list[tuple[str, Handles]], list[tuple[str, Handles]]]:
    """Legend entries: methods; published levels, the random return and the mark of an interval."""
    entries = []
    for method, style in LINES.items():
        published = entry(reference, method, next(iter(TASKS)))
        words = f"{method}, published: {published['input']}, {int(published['episodes']):,} episodes"
        entries.append((words, (Line2D([], [], color=LINE_COLOR, linestyle=style, linewidth=0.9),)))
    if sources:
        line = Line2D([], [], color=RANDOM_COLOR, linestyle=RANDOM_STYLE, linewidth=1.1)
        entries.append(("random actions", (line,)))
    return method_handles(methods, {source.key[:2] for source in sources}), entries


def _interval_note(center: str) -> str:
    return (
        f"Bar at the end of a curve: {LEVEL:.0%} bootstrap interval of its last {center} (seeds drawn with "
        f"replacement, then episodes within a seed; {REPETITIONS} draws from NumPy's default generator with seed "
        f"{BOOTSTRAP_SEED})."
    )


def _one_seed_note(of_task: Mapping[str, Runs], methods: Mapping[str, Method]) -> list[str]:
    """Which curves rest on one seed and therefore have no interval."""
    words = single_seeds(of_task.values(), methods)
    meaning = "Such a curve has no interval: its band is the spread of one seed's test episodes and says nothing about"
    return [f"{words} {meaning} other seeds."] if words else []


def _unequal_tasks_note(runs: Runs, methods: Mapping[str, Method]) -> list[str]:
    """A warning where the curves of a mean over tasks do not have the same tasks."""
    tasks = {key: tuple(task for task in TASKS if task in {run.task for run in runs[key]}) for key in runs}
    if len(set(tasks.values())) < 2:
        return []
    parts = [
        f"{methods[variant].short} ({framework}): {', '.join(TASKS[task] for task in tasks[framework, variant])}"
        for framework, variant in in_order(tasks, methods)
    ]
    return [f"UNEQUAL TASKS, so the curves cannot be compared: {'; '.join(parts)}."]


def _closing_notes(request: Request, sources: Sequence[Source]) -> list[str]:
    return [*length_note(sources), *request.notes, origin_note(request.sources, request.scale)]
