"""Dreamer's Figure 4 from run files: the final return against the imagination horizon, a panel per task."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from replications.dreamer.figures_curves import LEGEND_LINE, METHODS, panel_grid
from replications.dreamer.figures_published import FINAL, NAMES, length_note, panel_tasks
from shared.figures.binned import last_bin
from shared.figures.command import Drawn, Request
from shared.figures.page import INK, Page, styled
from shared.figures.panels import NOT_RUN_COLOR, legend, panel_head
from shared.figures.sources import Source, by_curve, origin_note
from shared.figures.tables import Cell

TASKS = ("cartpole_swingup", "acrobot_swingup", "hopper_hop", "walker_walk")
TICKS = (10, 20, 30, 40)  # published
HORIZONS = [f"{variant}-h*" for variant in METHODS]
FRAMEWORKS = ("torch", "jax")
STYLES = {"dreamer": "-", "no-value": (0, (4, 1.5)), "planet": (0, (1, 1))}
COLUMNS = ["method", "framework", "task", "horizon", "seeds", "expected_seeds", "mean", "low", "high", "env_steps"]


def method_of(variant: str) -> str:
    """no-value-h20 is a setting of no-value."""
    return variant.rpartition("-h")[0] if "-h" in variant else variant


def horizon_of(source: Source) -> int:
    """Agent steps that a run looks ahead: of its planner, or of its imagination."""
    group = "planner" if method_of(source.key[1]) == "planet" else "behaviour"
    return int(source.values[group]["horizon"])


def figure_4(request: Request) -> Drawn:
    """Final test return over the horizon, with and without a learned value, beside online planning.

    Numbers: a row per point, columns COLUMNS; mean over seeds of the last test returns of finished runs (a bin of
    their curves), low and high one standard deviation over seeds away (NaN for one seed).
    """
    tasks = panel_tasks(TASKS, request.sources)
    points = pd.DataFrame(_points(request.sources, request.seeds), columns=COLUMNS)
    drawn = {(row.method, row.framework) for row in points[points["seeds"] > 0].itertuples()}
    entries = [_entry(variant, drawn) for variant in METHODS]
    legend_height = LEGEND_LINE * len(entries) + 0.1
    grid = panel_grid([0] * len(tasks), 4, legend_height)
    known = points.loc[points["seeds"] > 0, "horizon"]
    ticks = [*TICKS, *(end for end in {known.min(), known.max()} if min(abs(end - tick) for tick in TICKS) > 4)]
    with styled():
        title = "Dreamer, Figure 4: final return and the horizon"
        page = Page(title, request.scale, grid.body, _notes(request, points, tasks))
        for index, task in enumerate(tasks):
            axes = page.axes(*grid.place(index))
            _panel(axes, points[points["task"] == task])
            axes.set(xlim=(min(ticks) - 3, max(ticks) + 3), ylim=(0, 1000), yticks=range(0, 1001, 250))
            axes.set_xticks(ticks)
            panel_head(axes, NAMES[task], [])
            axes.tick_params(labelbottom=grid.lowest(index), labelleft=index % grid.columns == 0)
            if index % grid.columns == 0:
                axes.set_ylabel("final test return", labelpad=2)
        page.text(page.width / 2, legend_height + 0.04, "horizon (agent steps)", ha="center", color=INK, fontsize=7)
        legend(page, grid.left, legend_height, entries)
    return Drawn(page.figure, points, {})


def _points(sources: Sequence[Source], seeds: int | None) -> list[dict]:
    """One row per curve of runs, in the order of methods, frameworks and horizons."""
    rows = []
    for (framework, variant, task), runs in by_curve(sources).items():
        cell = Cell(runs, max(seeds or 0, len(runs)), False, last_bin(runs))
        means = pd.Series([episodes.mean() for episodes in cell.seeds], dtype=float)
        deviation = means.std(ddof=0) if len(means) > 1 else math.nan
        rows.append(
            {
                "method": METHODS[method_of(variant)].name,
                "framework": framework,
                "task": task,
                "horizon": horizon_of(runs[0]),
                "seeds": len(means),
                "expected_seeds": cell.expected_seeds,
                "mean": means.mean(),
                "low": means.mean() - deviation,
                "high": means.mean() + deviation,
                "env_steps": cell.env_steps,
            }
        )
    order = [method.name for method in METHODS.values()]
    return sorted(
        rows,
        key=lambda row: (
            order.index(row["method"]),
            FRAMEWORKS.index(row["framework"]),
            list(NAMES).index(row["task"]),
            row["horizon"],
        ),
    )


def _panel(axes: Axes, points: pd.DataFrame) -> None:
    """Lines with error bars; a panel without a finished run says so."""
    found = points[points["seeds"] > 0]
    if found.empty:
        words = "NOT RUN" if points.empty else "partial"
        axes.text(
            0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=12, fontweight="bold",
            color="#B5B5B5",
        )  # fmt: skip
    shift = 0.0
    for variant, method in METHODS.items():
        for framework, rows in found[found["method"] == method.name].groupby("framework"):
            at, color = rows["horizon"] + shift, method.colors[framework]
            axes.plot(at, rows["mean"], color=color, linestyle=STYLES[variant], linewidth=1.0)
            for whole, face in ((True, color), (False, "white")):
                dots = (rows["seeds"] >= rows["expected_seeds"]) == whole
                axes.plot(at[dots], rows["mean"][dots], "o", color=color, markerfacecolor=face, markersize=2.8)
            banded = rows[rows["low"].notna()]
            axes.vlines(banded["horizon"] + shift, banded["low"], banded["high"], color=color, linewidth=0.8)
            shift += 0.35


def _entry(variant: str, drawn: set[tuple[str, str]]) -> tuple[str, tuple[Line2D, ...]]:
    method = METHODS[variant]
    found = [framework for framework in method.colors if (method.name, framework) in drawn]
    strokes = tuple(Line2D([], [], color=method.colors[f], linestyle=STYLES[variant]) for f in found)
    if not found:
        return f"{method.name}: NOT RUN", (Line2D([], [], color=NOT_RUN_COLOR),)
    return f"{method.name}, ours: {', '.join(found)}", strokes


def _notes(request: Request, points: pd.DataFrame, tasks: Sequence[str]) -> list[str]:
    missing = [task for task in TASKS if task not in set(points["task"])]
    return [
        f"Point: mean over seeds of the {FINAL} of finished runs; bar: "
        "one standard deviation over seeds, none for one seed. Hollow: some of the planned seeds are not there. "
        "Points of one horizon are drawn side by side. Horizon: agent steps that are imagined, 15 being Dreamer's own; "
        "for PlaNet those that are planned, 12 being its own.",
        "The paper's numbers are not published. Its first panel is Cartpole Swingup; the other tasks, and that "
        "PlaNet's planning horizon follows the axis, are our choice.",
        *([f"NOT RUN: {', '.join(NAMES[task] for task in missing)}."] if missing else []),
        *length_note(request.sources),
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
