"""PlaNet's published figures, from run files: figure_4, table_1, figure_10.

Each function returns the figure and the table of plotted numbers; the command line writes them with their sources.
shared/figures has the parts; papers' numbers are in data/reference/planet_table_1.csv.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from shared.errors import UserError, cli
from shared.figures.aggregate import median
from shared.figures.curves import (
    draw_curve,
    env_steps_per_episode,
    learning_curve,
    random_returns,
    spread,
    status_lines,
)
from shared.figures.page import INK, MARGIN, QUIET, Page, human, image_bytes, styled, write_all
from shared.figures.sources import (
    Source,
    by_curve,
    check_mixture,
    check_scale,
    file_sha256,
    find_runs,
    load_runs,
    origin_metadata,
    origin_note,
    sources_json,
    table_csv,
)
from shared.figures.tables import RULE, Cell, detail_table, draw_table, markdown, number
from shared.figures.video import animation, draw_strip, frame_errors, notice

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference" / "planet_table_1.csv"
REFERENCE_COLUMNS = ["method", "input", "episodes", "task", "score", "origin"]
TASKS = {                                   # in the published order
    "cartpole_swingup": "Cartpole Swing Up",
    "reacher_easy": "Reacher Easy",
    "cheetah_run": "Cheetah Run",
    "finger_spin": "Finger Spin",
    "cup_catch": "Cup Catch",
    "walker_walk": "Walker Walk",
}
METHODS = {                                 # variant -> published name, short name
    "rssm": ("PlaNet (RSSM)", "RSSM"),
    "ssm": ("Stochastic (SSM)", "SSM"),
    "deterministic": ("Deterministic (GRU)", "GRU"),
}
COLORS = {                                  # hue = method, lightness = framework; safe for colour-blind readers
    ("rssm", "torch"): "#0072B2",
    ("rssm", "jax"): "#56B4E9",
    ("ssm", "torch"): "#D55E00",
    ("ssm", "jax"): "#E69F00",
    ("deterministic", "torch"): "#8A4F7D",
    ("deterministic", "jax"): "#CC79A7",
}
BASELINES = {"D4PG": ("#333333", "-"), "A3C": ("#333333", (0, (4, 1.2, 1, 1.2))), "PlaNet": ("#009E73", (0, (5, 1.5)))}
PUBLISHED_TICKS = (5, 250, 500, 750, 1000)  # collected training episodes
PUBLISHED_EPISODE_ENV_STEPS = 1000
RANDOM_COLOR = "#999999"
VIDEO_METHODS = ("PlaNet", "PlaNet + overshooting", "Deterministic (GRU)", "Stochastic (SSM)")
VIDEO_VARIANT = "rssm"


# ------------------------------------------------------------------------------------------------ Figure 4


def figure_4(
    sources: Sequence[Source], reference: pd.DataFrame, *, scale: str, seeds: int | None = None, notes: Sequence[str] = ()
) -> tuple[Figure, pd.DataFrame]:
    """PlaNet against its model variants and model-free agents: test return over collected training episodes.

    Args:
        sources: runs of one scale. reference: Table 1 as published. seeds: how many were planned per curve; None takes
        those that were found. notes: printed under the figure (what is mixed).
    Returns: the figure, and one row per plotted point: kind (curve, seed, random, published), task, method, framework,
        seed, episodes, env_steps, median, low, high, seeds, returns, dashed, origin.
    """
    curves = by_curve(sources)
    axis = _episode_axis(sources, scale)
    lines = 1 + max((len(_panel_status(curves, task, seeds)) for task in TASKS), default=1)
    panel_width, panel_height, pitch_x = 1.78, 1.32, 2.36
    pitch_y = panel_height + 0.30 + 0.1 * lines
    legend_height, axis_height = 0.62, 0.44
    with styled():
        page = Page(
            "PlaNet, Figure 4: model variants and model-free agents", scale,
            2 * pitch_y + legend_height + axis_height,
            [
                "Line: median; band: percentiles 5 to 95 over seeds × test episodes of one evaluation (thin lines: median of one "
                "seed; dashed: unfinished run, or not all seeds have got there). D4PG, A3C and PlaNet's own final score: "
                f"{_origins(reference)}; A3C saw the state instead of pixels. Random: median return of the runs' own prefill.",
                *_returns_note(sources), *notes, origin_note(sources, scale),
            ],
        )
        tables = []
        for index, task in enumerate(TASKS):
            row, column = divmod(index, 3)
            bottom = legend_height + axis_height + (1 - row) * pitch_y
            axes = page.axes(0.42 + column * pitch_x, bottom, panel_width, panel_height)
            tables.append(_panel(axes, task, curves, reference, axis))
            _panel_head(axes, task, _panel_status(curves, task, seeds))
            axes.tick_params(labelbottom=row == 1, labelleft=True)
        page.text(0.42 + pitch_x + panel_width / 2, legend_height + 0.04, axis.label, ha="center", color=INK)
        _legend(page, curves, reference)
    return page.figure, pd.concat(tables, ignore_index=True)


class EpisodeAxis:
    """The x axis: collected training episodes, published ticks at scale paper, fitted (with env steps) elsewhere."""

    def __init__(self, first: float, last: float, ticks: Sequence[float], labels: Sequence[str], label: str):
        self.first, self.last, self.ticks, self.labels, self.label = first, last, ticks, labels, label


def _episode_axis(sources: Sequence[Source], scale: str) -> EpisodeAxis:
    """Axis of all panels: as published, or from the prefill to the end that the runs are planned for."""
    known = [steps for steps in map(env_steps_per_episode, sources) if not math.isnan(steps)]
    each = max(known, default=PUBLISHED_EPISODE_ENV_STEPS)
    label = f"collected training episodes (one episode = {each:.0f} env steps)"
    if scale == "paper" or not known:
        return EpisodeAxis(5, 1000, PUBLISHED_TICKS, [str(tick) for tick in PUBLISHED_TICKS], label)
    first = min(source.values["schedule"]["prefill_env_steps"] for source in sources) / each
    last = max(source.total_env_steps for source in sources) / each
    inner = [tick for tick in _round_ticks(last) if first + 0.12 * (last - first) < tick < last - 0.12 * (last - first)]
    ticks = [first, *inner, last]
    return EpisodeAxis(first, last, ticks, [f"{tick:.3g}\n{human(tick * each)}" for tick in ticks], f"{label}; below: env steps")


def _round_ticks(last: float) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, about four up to last."""
    power = 10 ** math.floor(math.log10(max(last, 1)))
    step = next(s * power for s in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5) if last / (s * power) <= 5)
    return [step * i for i in range(1, int(last / step) + 1)]


def _panel(
    axes: Axes, task: str, curves: dict[tuple[str, str, str], list[Source]], reference: pd.DataFrame, axis: EpisodeAxis
) -> pd.DataFrame:
    """One task: curves, horizontal lines with their values at the right; returns the plotted numbers."""
    axes.set(xlim=(axis.first, axis.last), ylim=(0, 1000), yticks=range(0, 1001, 250))
    axes.set_xticks(axis.ticks, axis.labels)
    tables, labels = [], []
    for method, (color, style) in BASELINES.items():
        score = _score(reference, method, task)
        axes.axhline(score, color=color, linestyle=style, linewidth=0.8, zorder=1.5)
        labels.append((score, color))
        tables.append(pd.DataFrame([{
            "kind": "published", "task": task, "method": method, "median": score, "origin": _origins(reference)}]))
    for (framework, variant, of_task), runs in curves.items():
        if of_task == task:
            points = learning_curve(runs)
            draw_curve(axes, points, COLORS[variant, framework])
            points["kind"] = np.where(points["seed"] == "all", "curve", "seed")
            tables.append(points.assign(task=task, method=METHODS[variant][0], framework=framework, origin="run files"))
    random = np.concatenate([random_returns(run) for key, runs in curves.items() if key[2] == task for run in runs] or [[]])
    if len(random):
        axes.axhline(median(random), color=RANDOM_COLOR, linestyle=":", linewidth=1.0, zorder=1.5)
        labels.append((median(random), RANDOM_COLOR))
        tables.append(pd.DataFrame([{
            "kind": "random", "task": task, "method": "random actions", "median": median(random),
            "returns": len(random), "origin": "prefill of the run files"}]))
    if not any(key[2] == task for key in curves):
        axes.text(0.5, 0.5, "NOT RUN", transform=axes.transAxes, ha="center", va="center", fontsize=13,
                  fontweight="bold", color="#B5B5B5", bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})
    for (value, color), y in zip(labels, spread([value for value, _ in labels], gap=62), strict=True):
        axes.annotate(f"{value:.0f}", (1, y), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", fontsize=5.8, color=color, va="center", annotation_clip=False)
    columns = ["kind", "task", "method", "framework", "seed", "episodes", "env_steps", "median", "low", "high", "seeds",
               "returns", "dashed", "origin"]
    return pd.concat([table for table in tables if len(table)], ignore_index=True).reindex(columns=columns)


def _panel_status(
    curves: dict[tuple[str, str, str], list[Source]], task: str, seeds: int | None
) -> list[tuple[str, str]]:
    """(words, colour) of the lines under a panel's title."""
    here = {key: runs for key, runs in curves.items() if key[2] == task}
    lines = []
    for (framework, variant, _), runs in here.items():
        name = f"{METHODS[variant][1]} ({framework})"
        lines += [(words, COLORS[variant, framework]) for words in status_lines(name, runs, seeds)]
    missing = [short for variant, (_, short) in METHODS.items() if variant not in {key[1] for key in here}]
    if missing:
        lines.append((f"{', '.join(missing)}: NOT RUN", QUIET))
    return lines


def _panel_head(axes: Axes, task: str, lines: Sequence[tuple[str, str]]) -> None:
    """Title and status above the axes, the last line nearest to them."""
    for number_, (words, color) in enumerate([(TASKS[task], None), *lines][::-1]):
        head = color is None
        axes.annotate(words, (0, 1), xycoords="axes fraction", xytext=(0, 4 + 7.2 * number_), textcoords="offset points",
                      fontsize=8 if head else 5.8, fontweight="bold" if head else "normal", color=INK if head else color)


def _legend(page: Page, curves: dict[tuple[str, str, str], list[Source]], reference: pd.DataFrame) -> None:
    """Methods at the left, horizontal lines at the right, in one legend below the panels."""
    handles = []
    for variant, (name, _) in METHODS.items():
        frameworks = sorted({key[0] for key in curves if key[1] == variant})
        for framework in frameworks:
            color = COLORS[variant, framework]
            handles.append((f"{name}, ours, {framework}", (Patch(color=color, alpha=0.18, linewidth=0), Line2D([], [], color=color))))
        if not frameworks:
            handles.append((f"{name}: NOT RUN", Line2D([], [], color="#CCCCCC")))
    for method, (color, style) in BASELINES.items():
        entry = reference[reference["method"] == method].iloc[0]
        words = f"{method}, published: {entry['input']}, {int(entry['episodes']):,} episodes"
        handles.append((words, Line2D([], [], color=color, linestyle=style, linewidth=0.9)))
    if curves:
        handles.append(("random actions", Line2D([], [], color=RANDOM_COLOR, linestyle=":", linewidth=1.1)))
    axes = page.axes(0.3, 0.02, page.width - 0.6, 0.55)
    axes.set_axis_off()
    axes.legend([handle for _, handle in handles], [words for words, _ in handles], loc="center", ncol=3)


def _returns_note(sources: Sequence[Source]) -> list[str]:
    """A warning where episodes are shorter than published, so that returns cannot reach 1000."""
    lengths = sorted({round(steps) for steps in map(env_steps_per_episode, sources) if not math.isnan(steps)})
    if all(length == PUBLISHED_EPISODE_ENV_STEPS for length in lengths):
        return []
    shown = ", ".join(map(str, lengths))
    return [f"Episodes of these runs have {shown} env steps instead of {PUBLISHED_EPISODE_ENV_STEPS}; a return is at most "
            "the number of env steps, so published scores are out of reach by construction."]


# ------------------------------------------------------------------------------------------------ Table 1


def table_1(
    sources: Sequence[Source], reference: pd.DataFrame, *, scale: str, seeds: int | None = None, notes: Sequence[str] = ()
) -> tuple[Figure, pd.DataFrame]:
    """The published Table 1 beside our final scores.

    Arguments as of figure_4. Returns the figure, and one row per method and task: kind (published, ours, random), method,
    input, episodes, framework, task, score (mean over seeds x test episodes of the last evaluation), median, iqm, low, high
    (interval of the mean), published (PlaNet), difference, seeds, expected_seeds, test_episodes, env_steps, verdict, origin.
    """
    frame = pd.concat([_published_rows(reference), _our_rows(sources, reference, scale, seeds), _random_rows(sources)])
    frame = frame.reset_index(drop=True)
    header, rows, first_ours = _wide(frame)
    detail_header, details = detail_table(frame[frame["kind"] == "ours"].replace({"task": TASKS}))
    body = 0.165 * (len(rows) + len(details)) + 1.25
    with styled():
        page = Page(
            "PlaNet, Table 1: final test return", scale, body,
            [
                f"Published: {_origins(reference)} (PlaNet: mean over 5 seeds × 10 test episodes). Ours: mean over seeds × test "
                "episodes of the last evaluation of finished runs; interval of the mean: bootstrap by seeds, then episodes within "
                "a seed. Random: mean return of the runs' own prefill.",
                RULE, *_returns_note(sources), *notes, origin_note(sources, scale),
            ],
        )
        edges = [MARGIN, 2.02, 2.52, *np.linspace(2.52, page.width - MARGIN, 7)[1:]]
        below = draw_table(page, body - 0.02, header, rows, [edges[0], *edges[1:]], left_columns=(0, 1),
                           rules_before=(first_ours,), strong_rows=range(first_ours, len(rows)))
        edges = np.cumsum([MARGIN, 1.12, 0.62, 0.58, 0.42, 0.86, 0.66, 0.5, 0.54, 0.58, 1.08])
        draw_table(page, below - 0.22, detail_header, details, edges, left_columns=(0, 1, 9))
    return page.figure, frame


def _published_rows(reference: pd.DataFrame) -> pd.DataFrame:
    return reference.assign(kind="published", env_steps=reference["episodes"] * PUBLISHED_EPISODE_ENV_STEPS)


def _our_rows(sources: Sequence[Source], reference: pd.DataFrame, scale: str, seeds: int | None) -> pd.DataFrame:
    """PlaNet (RSSM) for every framework that has runs, all six tasks each."""
    curves = by_curve(sources)
    mixed = {note.split(" ")[3] for note in check_mixture(sources, allow=True)}
    frameworks = sorted({key[0] for key in curves}) or ["–"]
    rows = []
    for framework in frameworks:
        for task in TASKS:
            key = (framework, VIDEO_VARIANT, task)
            runs = curves.get(key, [])
            cell = Cell(runs, max(seeds or 0, len(runs)), "/".join(key) in mixed)
            published = _score(reference, "PlaNet", task)
            numbers = cell.numbers()
            entry = reference[(reference["method"] == "PlaNet") & (reference["task"] == task)].iloc[0]
            rows.append({
                "kind": "ours", "method": "PlaNet (RSSM)", "input": "pixels", "framework": framework, "task": task, **numbers,
                "published": published, "difference": numbers["score"] - published, "seeds": len(cell.seeds),
                "expected_seeds": cell.expected_seeds, "test_episodes": max((len(s) for s in cell.seeds), default=0),
                "env_steps": cell.env_steps, "origin": "run files",
                "verdict": cell.verdict(published, int(entry["episodes"]) * PUBLISHED_EPISODE_ENV_STEPS, scale),
            })
    return pd.DataFrame(rows)


def _random_rows(sources: Sequence[Source]) -> pd.DataFrame:
    """Mean return of the random prefill, per task with runs."""
    rows = []
    for task in TASKS:
        returns = np.concatenate([random_returns(source) for source in sources if source.task == task] or [[]])
        if len(returns):
            rows.append({"kind": "random", "method": "random actions", "task": task, "score": float(np.mean(returns)),
                         "test_episodes": len(returns), "origin": "prefill of the run files"})
    return pd.DataFrame(rows)


def _wide(frame: pd.DataFrame) -> tuple[list[str], list[list[str]], int]:
    """Header and rows of the published layout, a method per row; and the number of the first row of ours."""
    header = ["method", "input", *("\u2009".join(name.split(" ", 1)) for name in TASKS.values())]
    rows, first_ours = [], 0
    for (kind, method, framework), group in frame.groupby(
        ["kind", "method", frame["framework"].fillna("")], sort=False
    ):
        scores = dict(zip(group["task"], group["score"], strict=True))
        name = {"published": f"{method}", "random": "random actions"}.get(kind, f"{method}, ours, {framework}")
        seen = {"random": "none"}.get(kind, group["input"].iloc[0])
        if kind == "published":
            first_ours = len(rows) + 1
        nothing = kind == "ours" and (group["verdict"] == "NOT RUN").all()
        cells = ["NOT RUN" if nothing else number(scores.get(task, math.nan)) for task in TASKS]
        rows.append([name, seen, *cells])
    return header, rows, first_ours


def table_1_markdown(frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """The numbers of table_1 as Markdown: the published layout, then ours in detail, then the rule and the notes."""
    header, rows, _ = _wide(frame)
    detail_header, details = detail_table(frame[frame["kind"] == "ours"])
    parts = ["# PlaNet, Table 1: final test return", markdown(header, rows), markdown(detail_header, details)]
    return "\n".join([*parts, *(f"{note}\n" for note in (RULE, *notes))])


# ------------------------------------------------------------------------------------------------ Figure 10


def video_source(sources: Sequence[Source]) -> Source | None:
    """The run whose video is shown: the published task if there is one, else the first; the lowest seed."""
    order = ["cheetah_run", *TASKS]
    with_video = [s for s in sources if s.run.video is not None and s.key[1] == VIDEO_VARIANT]
    return min(with_video, key=lambda s: (order.index(s.task), s.seed, s.key[0]), default=None)


def figure_10(
    sources: Sequence[Source], *, scale: str, notes: Sequence[str] = ()
) -> tuple[Figure, pd.DataFrame]:
    """Open-loop video prediction: truth, prediction and error after five context frames; first sequence of one run.

    Returns: the figure, and the error of every frame of every sequence of that run (see video.frame_errors).
    """
    source = video_source(sources)
    task = TASKS[source.task] if source else "no run with a video"
    body = (2.55 if source else 0.55) + 0.34 * (len(VIDEO_METHODS) - 1)
    words = [
        "Numbers above the columns: frame, counted from 1. Error: mean absolute difference over colour channels, images in "
        "[0, 1]; the darkest colour stands for 0.5 and more.",
    ]
    frame = pd.DataFrame(columns=["sequence", "frame", "context", "error", "copy_error"])
    if source:
        frame = frame_errors(source.run.video["truth"], source.run.video["prediction"], source.run.video["context"])
        words.append(_video_note(source, frame))
    with styled():
        title = f"PlaNet, Figure 10: open-loop video prediction, {task}" + ("" if task == "Cheetah Run" else " (published: Cheetah Run)")
        page = Page(title, scale, body, [*words, *notes, origin_note([source] if source else [], scale)])
        below = body
        if source:
            page.text(MARGIN, below - 0.10, f"PlaNet, {source.key[0]}", fontsize=7, fontweight="bold", color=INK)
            video = source.run.video
            below = draw_strip(page, body, 0.92, page.width - 0.92 - MARGIN, video["truth"][0], video["prediction"][0], video["context"])
        for name in VIDEO_METHODS[1:] if source else VIDEO_METHODS:
            below -= 0.30
            page.text(MARGIN, below + 0.08, name, fontsize=7, fontweight="bold", color=QUIET)
            page.text(1.7, below + 0.08, "NOT RUN", fontsize=7, color=QUIET)
            page.rule(MARGIN, page.width - MARGIN, below, 0.4, "#DDDDDD")
    return page.figure, frame


def _video_note(source: Source, frame: pd.DataFrame) -> str:
    """The mean error of the imagined frames beside the yardstick that repeats the last context frame."""
    imagined = frame[~frame["context"]]
    video = source.run.video
    return (
        f"{video['source'] or 'sequence'}: the first of {len(video['truth'])}; seed {source.seed}. Mean error of the "
        f"{len(imagined) // len(video['truth'])} imagined frames, all sequences: {imagined['error'].mean():.4f}; of repeating the "
        f"last context frame: {imagined['copy_error'].mean():.4f}. Within the context the prediction is the reconstruction."
    )


def figure_10_gif(sources: Sequence[Source], *, scale: str) -> bytes:
    """The sequence of figure_10 as an animation."""
    source = video_source(sources)
    if source is None:
        return notice("PlaNet: open-loop video prediction", "NOT RUN: no finished run with a video", scale)
    video = source.run.video
    return animation(
        video["truth"][0], video["prediction"][0], video["context"],
        title=f"PlaNet, {source.key[0]}: {TASKS[source.task]}", scale=scale,
        footer=f"scale {scale}, seed {source.seed}, {human(source.env_steps)} env steps, commit {', '.join(source.commits)}",
    )


# ------------------------------------------------------------------------------------------------ command line


def read_reference(path: Path) -> pd.DataFrame:
    """Published scores: a row per method and task. UserError where a column, method or task is missing."""
    if not path.is_file():
        raise UserError(f"--reference {path}: no such file; the published numbers are in data/reference/planet_table_1.csv")
    frame = pd.read_csv(path)
    if list(frame.columns) != REFERENCE_COLUMNS:
        raise UserError(f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(REFERENCE_COLUMNS)}")
    have = set(zip(frame["method"], frame["task"], strict=True))
    missing = [f"{method} on {task}" for method in BASELINES for task in TASKS if (method, task) not in have]
    if missing:
        raise UserError(f"{path}: no score for {', '.join(missing)}; restore the file from git")
    return frame


def _score(reference: pd.DataFrame, method: str, task: str) -> float:
    return float(reference.loc[(reference["method"] == method) & (reference["task"] == task), "score"].iloc[0])


def _origins(reference: pd.DataFrame) -> str:
    return "; ".join(sorted(reference["origin"].unique()))
