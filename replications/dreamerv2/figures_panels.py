"""One panel of DreamerV2's curves: a task or an average over 55 games, released curves behind ours.

figures_curves.py says what each figure shows and arranges the panels on a page.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from replications.dreamerv2.figures_published import GAMES, anchors, games
from shared.figures.binned import SeedMeans
from shared.figures.command import Request
from shared.figures.curves import COUNTS, POINT, draw_curve, evaluations
from shared.figures.page import INK, QUIET, human
from shared.figures.panels import (
    COLUMNS,
    CONTROL,
    Axis,
    Level,
    Method,
    Published,
    Span,
    fitted_span,
    in_order,
    panel_status,
)
from shared.figures.scores import aggregate_curves
from shared.figures.sources import Source

Runs = Mapping[tuple[str, str], Sequence[Source]]  # (framework, variant) -> the runs of one curve


@dataclass(frozen=True)
class Panel:
    """What one panel shows: a task, or an average over games."""

    name: str
    title: str
    axis: Axis
    runs: Runs
    methods: Mapping[str, Method]
    published: Sequence[Published]
    levels: Sequence[Level] = ()
    average: bool = False


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


def sizes_of(panels: int) -> Sizes:
    if panels == 1:
        return Sizes(1, 1.5, 4.6, 4.2, 2.3, 90)
    if panels <= 4:
        return Sizes(4, 0.48, 1.69, 1.3, 1.15, 36)
    if panels <= 20:
        return Sizes(5, 0.48, 1.35, 0.98, 0.8, 32, 6.2)
    return Sizes(6, 0.48, 1.125, 0.78, 0.62, 26, 6.4)


def draw(axes: Axes, panel: Panel, summary: SeedMeans, request: Request) -> pd.DataFrame:
    """One panel: released curves behind ours; returns the plotted numbers, columns COLUMNS of shared.figures.panels."""
    axes.set(xlim=(panel.axis.first, panel.axis.last))
    axes.set_xticks(panel.axis.ticks, panel.axis.labels)
    tables = []
    for level in panel.levels:
        axes.axhline(level.score, color=level.color, linestyle=level.style, linewidth=0.7, zorder=1.5)
        row = {"kind": "published", "method": level.method, "center": level.score, "origin": level.origin}
        tables.append(pd.DataFrame([row]))
    for line in panel.published:
        _released(axes, line)
        kind = np.where(line.points["seed"] == "all", "published curve", "published seed")
        tables.append(line.points.assign(kind=kind, method=line.method, origin=line.origin))
    for rank, key in enumerate(in_order(panel.runs, panel.methods)):
        points = _points(panel, panel.runs[key], summary, request)
        method = panel.methods[key[1]]
        draw_curve(axes, points, method.colors[key[0]], rank, "env_steps")
        kind = np.where(points["seed"] == "all", "curve", "seed")
        tables.append(points.assign(kind=kind, method=method.name, framework=key[0], origin="run files"))
    tables = [table for table in tables if len(table)]
    shown = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    _vertical(axes, panel, shown)
    return shown.assign(task=panel.name).reindex(columns=COLUMNS)


def _points(panel: Panel, sources: Sequence[Source], summary: SeedMeans, request: Request) -> pd.DataFrame:
    """Our points in a panel: of the task, or of an average over all 55 games, and none while a game is missing."""
    if not panel.average:
        return summary.curve(sources)
    table = games(request.reference)
    seeds = whole_seeds(sources, list(table["task"]))
    runs = [source for source in sources if source.seed in seeds and len(evaluations(source))]
    if not runs:
        return pd.DataFrame(columns=[*POINT, *COUNTS])
    tests = pd.concat([evaluations(source) for source in runs], ignore_index=True).rename(columns={"return": "value"})
    reached = min(source.env_steps for source in runs)
    played = tests.loc[tests["env_steps"] <= min(reached, summary.last), "env_steps"]
    grid = np.unique(np.ceil(played.to_numpy() / summary.width)) * summary.width  # the bins with a test in them
    found = aggregate_curves(tests, grid, list(table["task"]), anchors(table))
    found = found[found["statistic"] == panel.name]
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
            "tasks": GAMES,
            "seeds": found["seeds"],
            "returns": math.nan,
            "dashed": not all(source.complete for source in runs),
        }
    ).reset_index(drop=True)


def whole_seeds(sources: Sequence[Source], tasks: Sequence[str]) -> set[int]:
    """Seeds that have a run with test episodes on every task."""
    have: dict[int, set[str]] = {}
    for source in sources:
        if len(evaluations(source)):
            have.setdefault(source.seed, set()).add(source.task)
    return {seed for seed, found in have.items() if found >= set(tasks)}


def _released(axes: Axes, line: Published) -> None:
    """A released curve: line and band, or a thin line per seed where seeds are given."""
    pooled = line.points[line.points["seed"] == "all"]
    x = pooled["env_steps"]
    if line.points["seed"].nunique() > 1:
        for _, seed in line.points[line.points["seed"] != "all"].groupby("seed"):
            axes.plot(seed["env_steps"], seed["center"], color=line.color, linewidth=0.4, alpha=0.45, zorder=1.4)
    else:
        axes.fill_between(x, pooled["low"], pooled["high"], color=line.color, alpha=0.10, linewidth=0, zorder=1.2)
    axes.plot(x, pooled["center"], color=line.color, linestyle=line.style, linewidth=0.9, zorder=1.8)


def _vertical(axes: Axes, panel: Panel, shown: pd.DataFrame) -> None:
    """The y axis: 0 to 1000 on control tasks, else around what is drawn."""
    span = CONTROL
    if panel.average or panel.name.startswith("atari_"):
        within = shown[~(shown["env_steps"] > panel.axis.last)]
        values = pd.concat([within[name] for name in ("center", "low", "high") if name in within])
        span = fitted_span(values.astype(float)) if len(values) else Span(0, 1, (0, 1))
    axes.set(ylim=(span.low, span.high))
    axes.set_yticks(span.ticks, [human(tick) for tick in span.ticks])


def status(panel: Panel, request: Request, sizes: Sizes) -> list[tuple[str, object]]:
    """The lines below a panel's title: what of ours is in it."""
    if not panel.runs:
        return [("published data alone" if panel.published else "NOT RUN", QUIET)]
    if not panel.average:
        few = sizes.columns < 5
        return panel_status(panel.runs, panel.methods, request.seeds, characters=sizes.characters, episodes=few)
    every, lines = list(games(request.reference)["task"]), []
    for framework, variant in in_order(panel.runs, panel.methods):
        seeds = len(whole_seeds(panel.runs[framework, variant], every))
        words = f"{panel.methods[variant].short} ({framework}): {seeds} seed{'s' * (seeds != 1)}"
        lines += [(words, INK)] if seeds else []
    most = max(len({source.task for source in sources} & set(every)) for sources in panel.runs.values())
    return lines or [(f"ours: {most} of {GAMES} games", QUIET)]
