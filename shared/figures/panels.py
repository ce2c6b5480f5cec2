"""A panel of learning curves: an axis of training, reference lines with their values, a head that states the runs.

curves.py computes and draws one curve; a paper's figures.py arranges panels on a Page.
"""

import functools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from shared.figures.binned import SeedMeans
from shared.figures.curves import (
    MEDIAN,
    Summary,
    draw_curve,
    env_steps_per_episode,
    random_returns,
    status_words,
)
from shared.figures.page import INK, QUIET, Page, human
from shared.figures.sources import Source

RANDOM_COLOR = "#999999"
RANDOM_STYLE = ":"
LABEL_GAP = 62  # of 1000 units of return between two values at the right edge: what their font needs in a panel
LABEL_HEIGHT = 1.35  # inches, of that panel
HEAD_LINE = 7.2  # points
HEAD_CHARACTERS = 52  # of a status line over one panel and the gap to the next
NOT_RUN_COLOR = "#D0D0D0"
COLUMNS = [
    *("kind", "task", "method", "framework", "seed", "episodes", "env_steps", "center", "low", "high"),
    *("interval_low", "interval_high", "tasks", "seeds", "returns", "dashed", "origin"),
]


@dataclass(frozen=True)
class Method:
    """A method that has, or could have, runs: its name in this figure, a short one, and a colour per framework."""

    name: str
    short: str
    colors: Mapping[str, str]


@dataclass(frozen=True)
class Level:
    """A published score, drawn as a horizontal line."""

    method: str
    score: float
    color: str
    style: object
    origin: str


@dataclass(frozen=True)
class Published:
    """A published learning curve with its own seeds, drawn as a line with a band; points as those of our curves."""

    method: str
    points: pd.DataFrame
    color: str
    style: object
    origin: str


@dataclass(frozen=True)
class Axis:
    """The x axis of all panels: training, counted by a column of the points (episodes or env_steps)."""

    first: float
    last: float
    ticks: Sequence[float]
    labels: Sequence[str]
    label: str
    column: str


@dataclass(frozen=True)
class Span:
    """The y axis of a panel, in units of return."""

    low: float
    high: float
    ticks: Sequence[float]


CONTROL = Span(0, 1000, range(0, 1001, 250))  # of every task of the DeepMind Control Suite


def episode_axis(
    sources: Sequence[Source], scale: str, published_ticks: Sequence[int], env_steps: int, of_what: str = ""
) -> Axis:
    """As published at scale paper; elsewhere from the prefill to the planned end of the runs, with env steps below.

    env_steps: of a published episode, used where no run says. of_what: follows "collected training episodes".
    """
    known = [steps for steps in map(env_steps_per_episode, sources) if not math.isnan(steps)]
    each = max(known, default=env_steps)
    label = f"collected training episodes{of_what} (one episode = {each:.0f} env steps)"
    if scale == "paper" or not known:
        labels = [str(tick) for tick in published_ticks]
        return Axis(published_ticks[0], published_ticks[-1], published_ticks, labels, label, "episodes")
    first = min(source.values["schedule"]["prefill_env_steps"] for source in sources) / each
    last = max(source.total_env_steps for source in sources) / each
    room = 0.12 * (last - first)
    ticks = [first, *(tick for tick in _round_ticks(last) if first + room < tick < last - room), last]
    labels = [f"{tick:.3g}\n{human(tick * each)}" for tick in ticks]
    return Axis(first, last, ticks, labels, f"{label}; second line: env steps{of_what}", "episodes")


def env_step_axis(sources: Sequence[Source], scale: str, published_ticks: Sequence[int]) -> Axis:
    """As published at scale paper; elsewhere from 0 to the longest planned run."""
    last = max((source.total_env_steps for source in sources), default=0)
    label = "env steps (action repeat included)"
    if scale == "paper" or not last:
        ticks = list(published_ticks)
    else:
        ticks = [0, *(tick for tick in _round_ticks(last) if tick < 0.88 * last), last]
    return Axis(0, ticks[-1], ticks, [human(tick) for tick in ticks], label, "env_steps")


def draw_panel(
    axes: Axes,
    axis: Axis,
    task: str,
    runs: Mapping[tuple[str, str], Sequence[Source]],
    methods: Mapping[str, Method],
    levels: Sequence[Level],
    summary: Summary | SeedMeans = MEDIAN,
    published: Sequence[Published] = (),
    span: Span = CONTROL,
) -> pd.DataFrame:
    """Curves, published levels and curves and the random return of one task; returns the plotted numbers.

    The random return is that of the runs' prefill; where a lost life ends its episodes (random_returns) it is left out.
    runs: (framework, variant) -> the seeds of that curve; empty for a task that was not run. methods: by variant, in
    the order of drawing. Columns are COLUMNS, with `center` under the name of the summary.
    """
    axes.set(xlim=(axis.first, axis.last), ylim=(span.low, span.high), yticks=span.ticks)
    axes.set_xticks(axis.ticks, axis.labels)
    rows, marks = [], []
    for level in levels:
        _level(axes, marks, level.score, level.color, level.style, 0.9)
        rows.append({"kind": "published", "method": level.method, "center": level.score, "origin": level.origin})
    random = random_returns(source for sources in runs.values() for source in sources)
    if len(random):
        _level(axes, marks, summary.center(random), RANDOM_COLOR, RANDOM_STYLE, 1.1)
        rows.append(
            {
                "kind": "random",
                "method": "random actions",
                "center": summary.center(random),
                "returns": len(random),
                "origin": "prefill of the run files",
            }
        )
    tables = [pd.DataFrame(rows)]
    for curve in published:
        _published_curve(axes, curve, axis.column)
        kind = np.where(curve.points["seed"] == "all", "published curve", "published seed")
        tables.append(curve.points.assign(kind=kind, method=curve.method, origin=curve.origin))
    for rank, (framework, variant) in enumerate(in_order(runs, methods)):
        points = summary.curve(runs[framework, variant])
        draw_curve(axes, points, methods[variant].colors[framework], rank, axis.column)
        kind = np.where(points["seed"] == "all", "curve", "seed")
        tables.append(points.assign(kind=kind, method=methods[variant].name, framework=framework, origin="run files"))
    if not runs:
        _not_run(axes, [level.score for level in levels], span)
    _write_marks(axes, marks, span)
    filled = [table for table in tables if len(table)]
    numbers = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=COLUMNS)
    return numbers.assign(task=task).reindex(columns=COLUMNS).rename(columns={"center": summary.name})


def in_order(keys: Iterable[tuple[str, str]], methods: Mapping[str, Method]) -> list[tuple[str, str]]:
    """(framework, variant) in the order of the methods; torch before JAX, as in the colours."""
    order = [(framework, variant) for variant, method in methods.items() for framework in method.colors]
    return sorted(keys, key=order.index)


def panel_status(
    runs: Mapping[tuple[str, str], Sequence[Source]],
    methods: Mapping[str, Method],
    seeds: int | None,
    *,
    characters: int = HEAD_CHARACTERS,
    pooled: bool = False,
    episodes: bool = True,
) -> list[tuple[str, object]]:
    """(words, colour) of the lines below a panel's title: seeds, progress, and what was not run.

    Curves of which the same is to be said share a line; a panel without any run has none. seeds: planned per curve.
    characters: of a line. pooled: the panel pools tasks, which are counted too. episodes: count those of one test.
    """
    wrap = functools.partial(textwrap.wrap, width=characters, subsequent_indent="   ")
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for key in in_order(runs, methods):
        alike.setdefault(status_words(runs[key], seeds, pooled, episodes), []).append(key)
    lines = []
    for (words, *states), keys in alike.items():
        color = _darker(methods[keys[0][1]].colors[keys[0][0]]) if len(keys) == 1 else INK
        whole = f"{_names(keys, methods)}: {words}"
        wrapped = wrap(whole)
        lines += [(line, color) for line in (*wrapped, *(part for state in states for part in wrap(state)))]
    missing = [method.short for variant, method in methods.items() if variant not in {key[1] for key in runs}]
    absent = textwrap.wrap(f"{', '.join(missing)}: NOT RUN", characters) if runs and missing else []
    return lines + [(line, QUIET) for line in absent]


def _names(keys: Sequence[tuple[str, str]], methods: Mapping[str, Method]) -> str:
    """RSSM, SSM (torch, jax); GRU (torch): short names, those of the same frameworks together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for variant in dict.fromkeys(variant for _, variant in keys):
        groups.setdefault(tuple(f for f, v in keys if v == variant), []).append(methods[variant].short)
    if len(groups) == 1 and len(methods) == len(*groups.values()) > 1:
        return f"all ({', '.join(*groups)})"
    return "; ".join(f"{', '.join(names)} ({', '.join(frameworks)})" for frameworks, names in groups.items())


def single_seeds(panels: Iterable[Mapping[tuple[str, str], Sequence[Source]]], methods: Mapping[str, Method]) -> str:
    """Which curves rest on one seed, in words; empty where none does. panels: the runs of each."""
    seeds: dict[tuple[str, str], list[int]] = {}  # per panel with runs
    for runs in panels:
        for key, sources in runs.items():
            seeds.setdefault(key, []).append(len({source.seed for source in sources}))
    single = in_order((key for key, counts in seeds.items() if 1 in counts), methods)
    if not single:
        return ""
    names = [f"{methods[variant].short} ({framework})" for framework, variant in single]
    where = "" if all(set(seeds[key]) == {1} for key in single) else " in at least one panel"
    return f"One seed only{where}: {', '.join(names)}."


def fitted_span(values: Iterable[float]) -> Span:
    """A y axis around the values and zero, for tasks whose returns have no common limit."""
    values = [0.0, *(value for value in values if not math.isnan(value))]
    room = 0.06 * (max(values) - min(values)) or 1.0
    low, high = min(values) - (min(values) < 0) * room, max(values) + room
    ticks = MaxNLocator(4).tick_values(low, high)
    return Span(low, high, [tick for tick in ticks if low <= tick <= high])


def panel_head(axes: Axes, title: str, lines: Sequence[tuple[str, object]], size: float = 8) -> None:
    """Title and status lines above the axes. size: of the title, in points."""
    for rank, (words, color) in enumerate(reversed(lines)):
        _above(axes, words, 4 + HEAD_LINE * rank, fontsize=5.8, color=color)
    _above(axes, title, 5 + HEAD_LINE * len(lines), fontsize=size, fontweight="bold", color=INK)


Handles = tuple[Line2D, ...]


def method_handles(methods: Mapping[str, Method], drawn: Iterable[tuple[str, str]]) -> list[tuple[str, Handles]]:
    """Legend entries (words, handles), one per method with a stroke per framework; drawn: (framework, variant)."""
    drawn = set(drawn)
    entries = []
    for variant, method in methods.items():
        found = [framework for framework in method.colors if (framework, variant) in drawn]
        strokes = tuple(Line2D([], [], color=method.colors[framework]) for framework in found)
        words = f"{method.name}, ours: {', '.join(found)}" if found else f"{method.name}: NOT RUN"
        entries.append((words, strokes or (Line2D([], [], color=NOT_RUN_COLOR),)))
    return entries


def legend(page: Page, left: float, height: float, entries: Sequence[tuple[str, Line2D | Handles]]) -> None:
    """One column of legend entries in the lowest part of the page's body; left and height in inches."""
    axes = page.axes(left, 0, 1, height)
    axes.set_axis_off()
    axes.legend(
        [handles for _, handles in entries],
        [words for words, _ in entries],
        loc="upper left",
        borderaxespad=0.2,
        handlelength=3.2,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.4)},
    )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions near the values, in the same order, at least gap apart: labels that do not overlap.

    Neighbours that are too close move apart around their common mean (pool adjacent violators).
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    blocks: list[tuple[float, list[int]]] = []  # (mean of value - rank * gap, members)
    for rank, index in enumerate(order):
        block = (values[index] - rank * gap, [index])
        while blocks and blocks[-1][0] > block[0]:
            base, members = blocks.pop()
            total = base * len(members) + block[0] * len(block[1])
            block = (total / (len(members) + len(block[1])), members + block[1])
        blocks.append(block)
    bases = [base for base, members in blocks for _ in members]
    placed = {index: base + rank * gap for rank, (base, index) in enumerate(zip(bases, order, strict=True))}
    return [placed[index] for index in range(len(values))]


def _level(axes: Axes, marks: list[tuple[float, str]], value: float, color: str, style: object, width: float) -> None:
    axes.axhline(value, color=color, linestyle=style, linewidth=width, zorder=1.5)
    marks.append((value, color))


def _published_curve(axes: Axes, curve: Published, x: str) -> None:
    """Line and band over the published seeds, behind our curves."""
    pooled = curve.points[curve.points["seed"] == "all"]
    axes.fill_between(pooled[x], pooled["low"], pooled["high"], color=curve.color, alpha=0.10, linewidth=0, zorder=1.2)
    axes.plot(pooled[x], pooled["center"], color=curve.color, linestyle=curve.style, linewidth=0.9, zorder=1.8)


def _write_marks(axes: Axes, marks: Sequence[tuple[float, str]], span: Span) -> None:
    """The values of the horizontal lines at the right edge."""
    gap = LABEL_GAP * _height_share(axes) * (span.high - span.low) / 1000
    for (value, color), y in zip(marks, spread([value for value, _ in marks], gap), strict=True):
        axes.annotate(
            f"{value:.0f}",
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            color=color,
            textcoords="offset points",
            fontsize=5.8,
            va="center",
            annotation_clip=False,
        )


def _height_share(axes: Axes) -> float:
    """How much lower than LABEL_HEIGHT the axes are, as a factor."""
    inches = axes.get_position().height * axes.figure.get_figheight()
    return LABEL_HEIGHT / inches


def _not_run(axes: Axes, occupied: Sequence[float], span: Span) -> None:
    """NOT RUN, in the middle of the widest free stretch between the horizontal lines."""
    borders = np.sort([span.low, *occupied, span.high])
    widest = int(np.argmax(np.diff(borders)))
    x, y = np.mean(axes.get_xlim()), borders[widest : widest + 2].mean()
    axes.text(
        x,
        y,
        "NOT RUN",
        ha="center",
        va="center",
        fontsize=13,
        fontweight="bold",
        color="#B5B5B5",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


def _darker(color: str) -> tuple[float, float, float]:
    """The colour of a line made readable as small text."""
    red, green, blue = to_rgb(color)
    return 0.7 * red, 0.7 * green, 0.7 * blue


def _above(axes: Axes, words: str, points: float, **style) -> None:
    axes.annotate(words, (0, 1), xycoords="axes fraction", xytext=(0, points), textcoords="offset points", **style)


def _round_ticks(last: float) -> list[float]:
    """Multiples up to last of 1, 2, 2.5 or 5 times a power of ten, at most five."""
    power = 10 ** math.floor(math.log10(max(last, 1)))
    step = next(part * power for part in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5) if last / (part * power) <= 5)
    return [step * count for count in range(1, int(last / step) + 1)]
