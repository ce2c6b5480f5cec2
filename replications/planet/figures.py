"""PlaNet's published figures from run files: figure_4, table_1, figure_10.

Each takes a Request and returns Drawn: the figure and the table of its plotted numbers. The parts are in
shared/figures; the published numbers in data/reference/planet_table_1.csv.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from shared.errors import UserError, cli
from shared.figures.command import Drawn, Request, figure_command
from shared.figures.curves import env_steps_per_episode, random_returns
from shared.figures.page import INK, MARGIN, QUIET, WIDTH, Page, human, styled
from shared.figures.panels import (
    RANDOM_COLOR,
    RANDOM_STYLE,
    Level,
    Method,
    draw_panel,
    episode_axis,
    legend,
    method_handles,
    panel_head,
    panel_status,
)
from shared.figures.sources import Source, by_curve, mixtures, origin_note
from shared.figures.tables import ROW, RULE, Cell, detail_table, draw_table, markdown, number
from shared.figures.video import ERROR_COLUMNS, animation, draw_strip, frame_errors, notice, strip_sizes

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference" / "planet_table_1.csv"
REFERENCE_COLUMNS = ["method", "input", "episodes", "task", "score", "origin"]
TASKS = {  # in the published order
    "cartpole_swingup": "Cartpole Swing Up",
    "reacher_easy": "Reacher Easy",
    "cheetah_run": "Cheetah Run",
    "finger_spin": "Finger Spin",
    "cup_catch": "Cup Catch",
    "walker_walk": "Walker Walk",
}
METHODS = {  # hue = method, lightness = framework; apart for colour-blind readers too
    "rssm": Method("PlaNet (RSSM)", "RSSM", {"torch": "#0072B2", "jax": "#56B4E9"}),
    "ssm": Method("Stochastic (SSM)", "SSM", {"torch": "#D55E00", "jax": "#E69F00"}),
    "deterministic": Method("Deterministic (GRU)", "GRU", {"torch": "#8A4F7D", "jax": "#CC79A7"}),
}
BASELINES = {  # published method -> colour and line
    "D4PG": ("#333333", "-"),
    "A3C": ("#333333", (0, (4, 1.2, 1, 1.2))),
    "PlaNet": ("#009E73", (0, (5, 1.5))),
}
MAIN = "rssm"
EPISODE_TICKS = (5, 250, 500, 750, 1000)  # collected training episodes, as published
EPISODE_ENV_STEPS = 1000  # of a published episode
VIDEO_METHODS = ("PlaNet", "PlaNet + overshooting", "Deterministic (GRU)", "Stochastic (SSM)")
VIDEO_TASK = "cheetah_run"


def figure_4(request: Request) -> Drawn:
    """Model variants and model-free agents on six tasks: test return over collected training episodes.

    Numbers: a row per plotted point, columns of shared.figures.panels; kind is curve (all seeds), seed, random or
    published. Below five seeds, or with unfinished runs, every seed is drawn for itself.
    """
    reference, curves = read_reference(request.reference), by_curve(request.sources)
    runs = {task: {key[:2]: found for key, found in curves.items() if key[2] == task} for task in TASKS}
    status = {task: panel_status(runs[task], METHODS, request.seeds) for task in TASKS}
    axis = episode_axis(request.sources, request.scale, EPISODE_TICKS, EPISODE_ENV_STEPS)
    heads = [max(len(status[task]) for task in list(TASKS)[start : start + 3]) for start in (0, 3)]  # lines, per row
    left, width, height, across, axis_height = 0.5, 1.85, 1.35, 2.27, 0.45
    methods, levels = _figure_4_handles(reference, {key[:2] for key in curves})
    legend_height = 0.135 * max(len(methods), len(levels)) + 0.1
    bottoms = [legend_height + axis_height + height + 0.4 + 0.1 * heads[1], legend_height + axis_height]
    tables = []
    with styled():
        page = Page(
            "PlaNet, Figure 4: model variants and model-free agents",
            request.scale,
            bottoms[0] + height + 0.24 + 0.1 * heads[0],
            _figure_4_notes(request, reference),
        )
        for index, task in enumerate(TASKS):
            row, column = divmod(index, 3)
            axes = page.axes(left + column * across, bottoms[row], width, height)
            tables.append(draw_panel(axes, axis, task, runs[task], METHODS, _levels(reference, task)))
            panel_head(axes, TASKS[task], status[task])
            axes.tick_params(labelbottom=row == 1, labelleft=column == 0)
            if column == 0:
                axes.set_ylabel("test return", labelpad=2)
        page.text(page.width / 2, legend_height + 0.06, axis.label, ha="center", color=INK, fontsize=7)
        legend(page, left, legend_height, methods)
        legend(page, left + 1.2 * across, legend_height, levels)
    return Drawn(page.figure, pd.concat(tables, ignore_index=True), {})


def _levels(reference: pd.DataFrame, task: str) -> list[Level]:
    entries = [(_entry(reference, method, task), look) for method, look in BASELINES.items()]
    return [Level(entry["method"], float(entry["score"]), *look, entry["origin"]) for entry, look in entries]


def _figure_4_handles(
    reference: pd.DataFrame, drawn: set[tuple[str, str]]
) -> tuple[list[tuple[str, Line2D]], list[tuple[str, Line2D]]]:
    """Legend entries: methods; published levels and the random return. drawn: (framework, variant) with runs."""
    handles = []
    for method, (color, style) in BASELINES.items():
        entry = _entry(reference, method, next(iter(TASKS)))
        words = f"{method}, published: {entry['input']}, {int(entry['episodes']):,} episodes"
        handles.append((words, Line2D([], [], color=color, linestyle=style, linewidth=0.9)))
    if drawn:
        handles.append(("random actions", Line2D([], [], color=RANDOM_COLOR, linestyle=RANDOM_STYLE, linewidth=1.1)))
    return method_handles(METHODS, drawn), handles


def _figure_4_notes(request: Request, reference: pd.DataFrame) -> list[str]:
    return [
        "Line: median; band: percentiles 5 to 95 over seeds × test episodes of one evaluation. Thin lines: median of "
        "one seed. Dashed: an unfinished run, or a point that not all seeds have reached. Horizontal lines: final "
        "scores (means) of D4PG, A3C (from states, not pixels) and PlaNet itself, from "
        f"{_origins(reference)}. Random: median return of the runs' own random prefill.",
        *_length_note(request.sources),
        *request.notes,
        origin_note(request.sources, request.scale),
    ]


def _length_note(sources: Sequence[Source]) -> list[str]:
    """A warning where episodes are shorter than published, so that returns cannot reach 1000."""
    known = {round(steps) for steps in map(env_steps_per_episode, sources) if not math.isnan(steps)}
    if known <= {EPISODE_ENV_STEPS}:
        return []
    lengths = ", ".join(map(str, sorted(known)))
    return [
        f"Episodes of these runs have {lengths} env steps instead of {EPISODE_ENV_STEPS}, and a return is at most the "
        "number of env steps: published scores are out of reach by construction."
    ]


# ------------------------------------------------------------------------------------------------ Table 1


def table_1(request: Request) -> Drawn:
    """The published Table 1 beside our final scores, with the rule of the verdicts.

    Numbers: a row per method and task; kind is published, ours or random; score is the mean over seeds x test episodes
    of the last evaluation of finished runs, low and high its bootstrap interval, difference the distance to the
    published PlaNet.
    """
    reference = read_reference(request.reference)
    tables = [_published_rows(reference), _our_rows(request, reference), _random_rows(request.sources)]
    frame = pd.concat([table for table in tables if len(table)], ignore_index=True)
    header, rows, first_ours = _wide(frame)
    detail_header, details = detail_table(frame[frame["kind"] == "ours"].replace({"task": TASKS}))
    notes = [
        f"Published: {_origins(reference)} (PlaNet: mean over 5 seeds × 10 test episodes). Ours: mean over seeds × "
        "test episodes of the last evaluation of finished runs; interval of that mean: bootstrap of seeds, then of "
        "episodes within a seed. Random: mean return of the runs' own random prefill.",
        RULE,
        *_length_note(request.sources),
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    body = ROW * (len(rows) + len(details) + 2) + 0.03 * (len(details) // len(TASKS)) + 0.47
    with styled():
        page = Page("PlaNet, Table 1: final test return", request.scale, body, notes)
        ours = [index for index, row in enumerate(rows) if ", ours" in row[0]]
        below = draw_table(page, body, header, rows, left_columns=(0, 1), rules_before=(first_ours,), strong_rows=ours)
        groups = range(len(TASKS), len(details), len(TASKS))
        draw_table(page, below - 0.22, detail_header, details, left_columns=(0, 1, 9), rules_before=groups)
    return Drawn(page.figure, frame, {".md": _markdown(header, rows, frame, notes).encode()})


def _published_rows(reference: pd.DataFrame) -> pd.DataFrame:
    return reference.assign(kind="published", env_steps=reference["episodes"] * EPISODE_ENV_STEPS)


def _our_rows(request: Request, reference: pd.DataFrame) -> pd.DataFrame:
    """PlaNet (RSSM) on all six tasks, for every framework that has runs."""
    curves, mixed = by_curve(request.sources), mixtures(request.sources)
    rows = []
    for framework in sorted({key[0] for key in curves}) or ["–"]:
        for task in TASKS:
            key = (framework, MAIN, task)
            runs = curves.get(key, [])
            cell = Cell(runs, max(request.seeds or 0, len(runs)), key in mixed)
            entry = _entry(reference, "PlaNet", task)
            published, env_steps = float(entry["score"]), int(entry["episodes"]) * EPISODE_ENV_STEPS
            numbers = cell.numbers()
            rows.append(
                {
                    "kind": "ours",
                    "method": METHODS[MAIN].name,
                    "input": "pixels",
                    "framework": framework,
                    "task": task,
                    **numbers,
                    "published": published,
                    "difference": numbers["score"] - published,
                    "seeds": len(cell.seeds),
                    "expected_seeds": cell.expected_seeds,
                    "test_episodes": max(map(len, cell.seeds), default=0),
                    "env_steps": cell.env_steps,
                    "verdict": cell.verdict(published, env_steps, request.scale),
                    "origin": "run files",
                }
            )
    return pd.DataFrame(rows)


def _random_rows(sources: Sequence[Source]) -> pd.DataFrame:
    """Mean return of the random prefill, per task with runs."""
    rows = []
    for task in TASKS:
        returns = np.concatenate([random_returns(source) for source in sources if source.task == task] or [[]])
        if len(returns):
            rows.append(
                {
                    "kind": "random",
                    "method": "random actions",
                    "input": "none",
                    "task": task,
                    "score": returns.mean(),
                    "test_episodes": len(returns),
                    "origin": "prefill of the run files",
                }
            )
    return pd.DataFrame(rows)


def _wide(frame: pd.DataFrame) -> tuple[list[str], list[list[str]], int]:
    """Header and rows of the published layout, a method per row, and the number of our first row."""
    header, rows, first_ours = ["method", "input", *TASKS.values()], [], 0
    for (kind, method, where), group in frame.groupby(["kind", "method", frame["framework"].fillna("")], sort=False):
        scores = dict(zip(group["task"], group["score"], strict=True))
        idle = kind == "ours" and (group["verdict"] == "NOT RUN").all()
        cells = ["NOT RUN" if idle else number(scores.get(task, math.nan)) for task in TASKS]
        suffix = {"published": ", published", "ours": f", ours ({where})".replace(" (–)", "")}
        name = method + suffix.get(kind, "")
        first_ours += kind == "published"
        rows.append([name, group["input"].iloc[0], *cells])
    return header, rows, first_ours


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """The numbers of table_1 as Markdown: the published layout, ours in detail, the rule and the notes."""
    tables = [
        markdown(header, rows, left_columns=(0, 1)),
        markdown(*detail_table(frame[frame["kind"] == "ours"]), left_columns=(0, 1, 9)),
    ]
    return "\n".join(["# PlaNet, Table 1: final test return\n", *tables, *(f"{note}\n" for note in notes)])


# ------------------------------------------------------------------------------------------------ Figure 10


def figure_10(request: Request) -> Drawn:
    """Open-loop video prediction: truth, prediction and error after five context frames; first sequence of one run.

    Numbers: the error of every frame of every sequence of that run, columns of shared.figures.video.frame_errors.
    """
    source = video_source(request.sources)
    title, notes = "PlaNet, Figure 10: open-loop video prediction", []
    frame, strip = pd.DataFrame(columns=ERROR_COLUMNS), 0.0
    left, row_height = 0.92, 0.27
    width = WIDTH - left - MARGIN
    if source is not None:
        video = source.run.video
        frame = frame_errors(video["truth"], video["prediction"], video["context"])
        strip = strip_sizes(video["truth"].shape[1], video["context"], width)[1]
        title += f", {TASKS[source.task]}" + ("" if source.task == VIDEO_TASK else f" (published: {TASKS[VIDEO_TASK]})")
        notes.append(_video_note(source, frame))
    idle = VIDEO_METHODS if source is None else VIDEO_METHODS[1:]
    below = strip + row_height * len(idle)
    with styled():
        footer = origin_note([source] if source else request.sources, request.scale)
        page = Page(title, request.scale, below, [*notes, *request.notes, footer])
        if source is not None:
            name = f"{VIDEO_METHODS[0]}\nours, {source.key[0]}"
            page.text(MARGIN, below - 0.06, name, fontsize=7, fontweight="bold", color=INK, va="top")
            below = draw_strip(page, below, left, width, video["truth"][0], video["prediction"][0], video["context"])
        for method in idle:
            page.rule(MARGIN, page.width - MARGIN, below, 0.4, "#DDDDDD")
            below -= row_height
            page.text(MARGIN, below + 0.09, method, fontsize=7, fontweight="bold", color=QUIET)
            page.text(1.8, below + 0.09, _why_no_video(method, request.sources), fontsize=7, color=QUIET)
    return Drawn(page.figure, frame, {".gif": _gif(source, request)})


def video_source(sources: Sequence[Source]) -> Source | None:
    """The run whose video is shown: the published task if there is one, else the first in order; the lowest seed."""
    order = [VIDEO_TASK, *TASKS]
    candidates = [source for source in sources if source.run.video is not None and source.key[1] == MAIN]
    return min(candidates, key=lambda source: (order.index(source.task), source.seed, source.key), default=None)


def _why_no_video(method: str, sources: Sequence[Source]) -> str:
    """What stands in place of a strip."""
    unfinished = any(source.key[1] == MAIN and not source.complete for source in sources)
    return "partial: the video comes with the finished run" if method == VIDEO_METHODS[0] and unfinished else "NOT RUN"


def _video_note(source: Source, frame: pd.DataFrame) -> str:
    """How to read the strip; the mean error beside the yardstick that repeats the last context frame."""
    imagined, sequences = frame[~frame["context"]], frame["sequence"].nunique()
    return (
        "Above the columns: frame, counted from 1. Error: mean absolute difference over colour channels, images in "
        "[0, 1]; the darkest colour stands for 0.5 and more. Within the context the prediction is the reconstruction. "
        f"Shown: sequence 1 of {sequences}, seed {source.seed} ({source.run.video['source']}). Mean error of the "
        f"{len(imagined) // sequences} imagined frames over all sequences: {imagined['error'].mean():.4f}; of "
        f"repeating the last context frame instead: {imagined['copy_error'].mean():.4f}."
    )


def _gif(source: Source | None, request: Request) -> bytes:
    """The same sequence, moving; without a video a card that says so."""
    if source is None:
        words = _why_no_video(VIDEO_METHODS[0], request.sources)
        return notice("PlaNet: open-loop video prediction", words, request.scale)
    video, steps, commits = source.run.video, human(source.env_steps), ", ".join(source.commits)
    return animation(
        video["truth"][0],
        video["prediction"][0],
        video["context"],
        scale=request.scale,
        title=f"PlaNet ({source.key[0]}), {TASKS[source.task]}",
        footer=f"scale {request.scale}, seed {source.seed}, {steps} env steps, commit {commits}",
    )


# ------------------------------------------------------------------------------------------------ command line


def read_reference(path: Path) -> pd.DataFrame:
    """Published scores, a row per method and task; UserError where a column, method or task is missing."""
    frame = pd.read_csv(path)
    if list(frame.columns) != REFERENCE_COLUMNS:
        raise UserError(
            f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(REFERENCE_COLUMNS)}; "
            f"the published numbers are in {REFERENCE}"
        )
    have = set(zip(frame["method"], frame["task"], strict=True))
    missing = [f"{method} on {task}" for method in BASELINES for task in TASKS if (method, task) not in have]
    if missing:
        raise UserError(f"{path}: no score for {', '.join(missing)}; restore the file from git")
    return frame


def _entry(reference: pd.DataFrame, method: str, task: str) -> Mapping[str, object]:
    return reference[(reference["method"] == method) & (reference["task"] == task)].iloc[0].to_dict()


def _origins(reference: pd.DataFrame) -> str:
    return "; ".join(sorted(reference["origin"].unique()))


FIGURES = {"figure_4": figure_4, "table_1": table_1, "figure_10": figure_10}


@cli
def main(arguments: list[str]) -> None:
    figure_command(arguments, FIGURES, paper="planet", tasks=list(TASKS), variants=list(METHODS), reference=REFERENCE)


if __name__ == "__main__":
    sys.exit(main())
