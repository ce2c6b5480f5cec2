"""A page of many tasks: a panel for each, and for averages over all of them; published curves behind ours.

A paper says which panels there are and what is published (replications/*/figures_curves.py); how one is drawn, what
stands above it and how they are arranged is here. panels.py has the parts, grid.py the places, binned.py the curves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from shared.figures.binned import SeedMeans
from shared.figures.command import Drawn, Request
from shared.figures.curves import COUNTS, POINT, draw_curve, evaluations
from shared.figures.grid import Grid
from shared.figures.page import INK, QUIET, Page, human, styled
from shared.figures.panels import (
    COLUMNS,
    Axis,
    Handles,
    Level,
    Method,
    Published,
    Span,
    fitted_span,
    in_order,
    legend,
    panel_head,
    panel_status,
)
from shared.figures.sources import Source

Runs = Mapping[tuple[str, str], Sequence[Source]]  # (framework, variant) -> the runs of one curve
LABELS, AXIS_LABEL, LEGEND_LINE = 0.2, 0.22, 0.135  # inches


@dataclass(frozen=True)
class Average:
    """One number per bin for many tasks together.

    tasks: all that it is over; a seed counts when it has run every one. curve: (returns, grid) -> env_steps, mean, std,
    seeds. Returns are rows task, seed, env_steps, value; the grid has the right borders of bins.
    """

    tasks: Sequence[str]
    curve: Callable[[pd.DataFrame, np.ndarray], pd.DataFrame]


@dataclass(frozen=True)
class Panel:
    """What one panel shows: a task, or an average over tasks. span: of the y axis; None fits what is drawn."""

    name: str
    title: str
    axis: Axis
    runs: Runs
    methods: Mapping[str, Method]
    published: Sequence[Published] = ()
    levels: Sequence[Level] = ()
    average: Average | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Sizes:
    """Inches of panels that stand in so many columns, characters of a status line above one, points of its title."""

    columns: int
    left: float
    across: float
    width: float
    height: float
    characters: int
    title: float = 8


@dataclass(frozen=True)
class Words:
    """What stands on the page beside the panels. legend: its columns, each a list of (words, handles)."""

    title: str
    notes: Sequence[str]
    label: str  # of the x axis
    legend: Sequence[Sequence[tuple[str, Handles]]]
    value: str = "test return"  # on the y axis
    left: Sequence[float] = (0.48, 3.7)  # inches, of the legend's columns


def sizes_of(panels: int) -> Sizes:
    if panels == 1:
        return Sizes(1, 1.5, 4.6, 4.2, 2.3, 90)
    if panels <= 4:
        return Sizes(4, 0.48, 1.69, 1.3, 1.15, 36)
    if panels <= 6:
        return Sizes(3, 0.48, 2.25, 1.8, 1.15, 44)
    if panels <= 22:
        return Sizes(5, 0.48, 1.35, 0.98, 0.8, 32, 6.2)
    return Sizes(6, 0.48, 1.125, 0.78, 0.62, 26, 6.4)


def draw_suite(request: Request, panels: Sequence[Panel], summary: SeedMeans, axis: Axis, words: Words) -> Drawn:
    """All panels on one page. axis: of panels whose tick labels need not be repeated.

    Numbers: a row per plotted point, columns of shared.figures.panels with the centre under the name of the summary;
    kind is curve (all seeds), seed, published curve, published seed or published (a level).
    """
    sizes = sizes_of(len(panels))
    tests = summary.episodes is evaluations
    heads = [status(panel, request.seeds, sizes, tests=tests) for panel in panels]
    legend_height = LEGEND_LINE * max(map(len, words.legend)) + 0.1
    grid = Grid(
        heads=[len(head) for head in heads] or [0],
        columns=sizes.columns,
        width=sizes.width,
        height=sizes.height,
        left=sizes.left,
        across=sizes.across,
        labels=LABELS,
        foot=legend_height + AXIS_LABEL,
    )
    tables = []
    with styled():
        page = Page(words.title, request.scale, grid.body, words.notes)
        for index, panel in enumerate(panels):
            axes = page.axes(*grid.place(index))
            tables.append(draw(axes, panel, summary))
            panel_head(axes, panel.title, heads[index], sizes.title)
            axes.tick_params(labelbottom=grid.lowest(index) or panel.axis.last != axis.last)
            if index % sizes.columns == 0:
                axes.set_ylabel("average" if panel.average else words.value)
                axes.yaxis.set_label_coords(-0.33 / sizes.width, 0.5)
        if not panels:
            page.text(page.width / 2, grid.body / 2, "NOT RUN", ha="center", fontsize=13, color="#B5B5B5")
        page.text(page.width / 2, legend_height + 0.04, words.label, ha="center", color=INK, fontsize=7)
        for left, entries in zip(words.left, words.legend, strict=False):
            if entries:
                legend(page, left, legend_height, entries)
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return Drawn(page.figure, numbers.rename(columns={"center": summary.name}), {})


def draw(axes: Axes, panel: Panel, summary: SeedMeans) -> pd.DataFrame:
    """One panel: published curves behind ours; returns the plotted numbers, columns COLUMNS of panels.py."""
    axes.set(xlim=(panel.axis.first, panel.axis.last))
    axes.set_xticks(panel.axis.ticks, panel.axis.labels)
    tables = []
    for level in panel.levels:
        axes.axhline(level.score, color=level.color, linestyle=level.style, linewidth=0.7, zorder=1.5)
        row = {"kind": "published", "method": level.method, "center": level.score, "origin": level.origin}
        tables.append(pd.DataFrame([row]))
    for line in panel.published:
        _published(axes, line)
        kind = np.where(line.points["seed"] == "all", "published curve", "published seed")
        tables.append(line.points.assign(kind=kind, method=line.method, origin=line.origin))
    for rank, key in enumerate(in_order(panel.runs, panel.methods)):
        points = _points(panel, panel.runs[key], summary)
        method = panel.methods[key[1]]
        draw_curve(axes, points, method.colors[key[0]], rank, "env_steps")
        kind = np.where(points["seed"] == "all", "curve", "seed")
        tables.append(points.assign(kind=kind, method=method.name, framework=key[0], origin="run files"))
    tables = [table for table in tables if len(table)]
    shown = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    _vertical(axes, panel, shown)
    return shown.assign(task=panel.name).reindex(columns=COLUMNS)


def status(panel: Panel, seeds: int | None, sizes: Sizes, *, tests: bool = True) -> list[tuple[str, object]]:
    """The lines below a panel's title: what of ours is in it. seeds: planned per curve. tests: count test episodes."""
    if not panel.runs:
        return [("published data alone" if panel.published else "NOT RUN", QUIET)]
    if panel.average is None:
        few = sizes.columns < 5 and tests
        tasks = {source.task for sources in panel.runs.values() for source in sources}
        pooled = len(tasks) > 1
        return panel_status(
            panel.runs, panel.methods, seeds, characters=sizes.characters, pooled=pooled, episodes=few and not pooled
        )
    every, lines = list(panel.average.tasks), []
    for framework, variant in in_order(panel.runs, panel.methods):
        whole = len(whole_seeds(panel.runs[framework, variant], every))
        words = f"{panel.methods[variant].short} ({framework}): {whole} seed{'s' * (whole != 1)}"
        lines += [(words, INK)] if whole else []
    most = max(len({source.task for source in sources} & set(every)) for sources in panel.runs.values())
    noun = "games" if all(task.startswith("atari_") for task in every) else "tasks"
    return lines or [(f"ours: {most} of {len(every)} {noun}", QUIET)]


def whole_seeds(
    sources: Sequence[Source], tasks: Sequence[str], episodes: Callable[[Source], pd.DataFrame] = evaluations
) -> set[int]:
    """Seeds that have a run with returns on every task. episodes: as SeedMeans has it."""
    have: dict[int, set[str]] = {}
    for source in sources:
        if len(episodes(source)):
            have.setdefault(source.seed, set()).add(source.task)
    return {seed for seed, found in have.items() if found >= set(tasks)}


def _points(panel: Panel, sources: Sequence[Source], summary: SeedMeans) -> pd.DataFrame:
    """Our points in a panel: of the task, or of an average, and none while one of its tasks is missing."""
    if panel.average is None:
        return summary.curve(sources)
    seeds = whole_seeds(sources, panel.average.tasks, summary.episodes)
    runs = [source for source in sources if source.seed in seeds and source.task in panel.average.tasks]
    tables = [table for source in runs if len(table := summary.episodes(source))]
    if not tables:
        return pd.DataFrame(columns=[*POINT, *COUNTS])
    returns = pd.concat(tables, ignore_index=True).rename(columns={"return": "value"})
    reached = min(source.env_steps for source in runs)
    played = returns.loc[returns["env_steps"] <= min(reached, summary.last), "env_steps"]
    grid = np.unique(np.ceil(played.to_numpy() / summary.width)) * summary.width  # the bins with a return in them
    found = panel.average.curve(returns, grid)
    spread = found["std"].where(found["seeds"] > 1)
    return pd.DataFrame(
        {
            "seed": "all",
            "episodes": math.nan,
            "env_steps": found["env_steps"],
            "center": found["mean"],
            "low": found["mean"] - spread,
            "high": found["mean"] + spread,
            "interval_low": math.nan,
            "interval_high": math.nan,
            "tasks": len(panel.average.tasks),
            "seeds": found["seeds"],
            "returns": math.nan,
            "dashed": not all(source.complete for source in runs),
        }
    ).reset_index(drop=True)


def _published(axes: Axes, line: Published) -> None:
    """A published curve: line and band, or a thin line per seed where seeds are given."""
    pooled = line.points[line.points["seed"] == "all"]
    x = pooled["env_steps"]
    if line.points["seed"].nunique() > 1:
        for _, seed in line.points[line.points["seed"] != "all"].groupby("seed"):
            axes.plot(seed["env_steps"], seed["center"], color=line.color, linewidth=0.4, alpha=0.45, zorder=1.4)
    else:
        axes.fill_between(x, pooled["low"], pooled["high"], color=line.color, alpha=0.10, linewidth=0, zorder=1.2)
    axes.plot(x, pooled["center"], color=line.color, linestyle=line.style, linewidth=0.9, zorder=1.8)


def _vertical(axes: Axes, panel: Panel, shown: pd.DataFrame) -> None:
    """The y axis: the panel's own, or around what is drawn within the x axis."""
    span = panel.span
    if span is None:
        within = shown[~(shown["env_steps"] > panel.axis.last)]
        values = pd.concat([within[name] for name in ("center", "low", "high") if name in within])
        span = fitted_span(values.astype(float)) if len(values) else Span(0, 1, (0, 1))
    axes.set(ylim=(span.low, span.high))
    axes.set_yticks(span.ticks, [human(tick) for tick in span.ticks])
