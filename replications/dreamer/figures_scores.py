"""Dreamer's final scores from run files: the bars of Figure 6 and the table of Appendix G, both beside the published.

A final score is the mean over seeds and the test episodes of the last bin of a curve: ten, after 4,905,000 env steps
of 5M, where the bin before ends.
shared/figures/tables.py has the cells and the rule of the verdicts.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from replications.dreamer.figures_curves import BLUE, PURPLE
from replications.dreamer.figures_published import (
    A3C,
    D4PG,
    DREAMER,
    FINAL,
    LAST_ENV_STEPS,
    PLANET,
    TASKS,
    averages,
    length_note,
    read_table,
    score,
)
from shared.figures.binned import last_bin
from shared.figures.command import Drawn, Request
from shared.figures.page import INK, MARGIN, QUIET, Page, styled
from shared.figures.panels import Handles, legend
from shared.figures.sources import by_curve, mixtures, origin_note
from shared.figures.tables import FONT, ROW, RULE, Cell, detail_table, draw_table, markdown, number

OURS = {"dreamer": DREAMER, "planet": PLANET}  # variant -> the published column that it stands beside
COLORS = {"dreamer": BLUE, "planet": PURPLE}
MARKS = {  # published score -> how its tick looks
    DREAMER: {"color": "#003A5D", "linestyle": "-", "linewidth": 1.6},
    PLANET: {"color": "#4A2A43", "linestyle": "-", "linewidth": 1.6},
    D4PG: {"color": "#333333", "linestyle": (0, (2.5, 1)), "linewidth": 1.0},
    A3C: {"color": "#333333", "linestyle": (0, (0.8, 0.8)), "linewidth": 1.0},
}
FRAMEWORKS = ("torch", "jax")
AVERAGE = "average"
LEFT, BAR_HEIGHT, NAMES_HEIGHT = 0.5, 2.5, 1.2  # inches


def scores(request: Request) -> pd.DataFrame:
    """Our final scores: a row per variant, framework and task, beside the published score; then their averages.

    Averages (task "average") are means over the tasks that have a score; `tasks` counts them.
    """
    table, curves, mixed = read_table(request.reference), by_curve(request.sources), mixtures(request.sources)
    rows = []
    for variant, published in OURS.items():
        for framework in [f for f in FRAMEWORKS if any(key[:2] == (f, variant) for key in curves)] or ["–"]:
            tasks = [
                _row(curves.get((framework, variant, task), []), (framework, variant, task), request, mixed, table)
                for task in TASKS
            ]
            rows += [*tasks, _average(tasks, published, framework)]
    return pd.DataFrame(rows)


def _row(sources, key: tuple[str, str, str], request: Request, mixed: Mapping, table: pd.DataFrame) -> dict:
    """One score of ours beside its published counterpart."""
    framework, variant, task = key
    cell = Cell(sources, max(request.seeds or 0, len(sources)), key in mixed, last_bin(sources))
    published, numbers = score(table, OURS[variant], task), cell.numbers()
    return {
        "kind": "ours",
        "method": OURS[variant],
        "framework": framework,
        "task": task,
        **numbers,
        "published": published,
        "difference": numbers["score"] - published,
        "tasks": 1,
        "seeds": len(cell.seeds),
        "expected_seeds": cell.expected_seeds,
        "test_episodes": max(map(len, cell.seeds), default=0),
        "env_steps": cell.env_steps if cell.sources else math.nan,
        "verdict": cell.verdict(published, LAST_ENV_STEPS, request.scale),
        "origin": "run files",
    }


def _average(tasks: Sequence[Mapping], method: str, framework: str) -> dict:
    """The mean over the tasks that have a score, beside the published mean over the same tasks."""
    scored = [row for row in tasks if not math.isnan(row["score"])]
    count = len(scored)
    mean = sum(row["score"] for row in scored) / count if count else math.nan
    published = sum(row["published"] for row in scored) / count if count else math.nan
    return {
        "kind": "ours",
        "method": method,
        "framework": framework,
        "task": AVERAGE,
        "score": mean,
        "published": published,
        "difference": mean - published,
        "tasks": count,
        "verdict": f"{count} of {len(TASKS)} tasks" if count else "NOT RUN",
        "origin": "run files",
    }


def published_rows(request: Request) -> pd.DataFrame:
    """The published scores and their recomputed averages, as rows of kind published."""
    table = read_table(request.reference)
    means = averages(table).assign(task=AVERAGE, origin="recomputed from the scores per task")
    return pd.concat([table.assign(tasks=1), means], ignore_index=True).assign(kind="published")


# ------------------------------------------------------------------------------------------------ Figure 6


def figure_6(request: Request) -> Drawn:
    """Bars of our final scores on 20 tasks and on average, with the published scores as strokes.

    Numbers: a row per bar (kind ours) and per stroke (kind published).
    """
    ours, published = scores(request), published_rows(request)
    shown = ours[ours["score"].notna()]
    bars = list(dict.fromkeys(zip(shown["method"], shown["framework"], strict=True)))
    entries, strokes = _legends(bars)
    legend_height = 0.135 * max(len(entries), len(strokes)) + 0.1
    notes = [
        f"Bar: mean over seeds and the {FINAL} of finished runs; "
        "whisker: one standard deviation over seeds. A task without bars was not run. Average: mean over the tasks "
        "that have a bar; their number stands above it.",
        "Strokes: the table of Appendix G (arXiv 1912.01603 v3), means of 5 seeds: Dreamer after 5M env "
        "steps, made by the TF1 code as variant dreamer is set; PlaNet (with action repeat 2) after 5M; D4PG from "
        "pixels and A3C from states after 100M, which are others' agents. Averages recomputed from the tasks: "
        + ", ".join(f"{row.method} {row.score:.2f} over {row.tasks}" for row in averages_of(published))
        + " tasks. D4PG and A3C have no quadruped tasks, so that their averages are not over the same tasks.",
        *length_note(request.sources),
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    with styled():
        body = legend_height + NAMES_HEIGHT + BAR_HEIGHT + 0.2
        page = Page("Dreamer, Figure 6: final scores on 20 tasks", request.scale, body, notes)
        axes = page.axes(LEFT, legend_height + NAMES_HEIGHT, page.width - LEFT - MARGIN, BAR_HEIGHT)
        _bars(axes, request, ours, published, bars)
        legend(page, LEFT, legend_height, entries)
        legend(page, LEFT + 3.2, legend_height, strokes)
    return Drawn(page.figure, pd.concat([published, ours], ignore_index=True), {})


def averages_of(published: pd.DataFrame) -> list:
    """The published averages, as named tuples."""
    return list(published[published["task"] == AVERAGE].itertuples())


def _bars(axes: Axes, request: Request, ours: pd.DataFrame, published: pd.DataFrame, bars: Sequence) -> None:
    names = {**TASKS, AVERAGE: "Average"}
    spread = _deviations(request)
    width = 0.8 / max(len(bars), 1)
    for place, task in enumerate(names):
        at = place + 0.5 * (task == AVERAGE)
        rows = ours[ours["task"] == task].set_index(["method", "framework"])
        for rank, (method, framework) in enumerate(bars):
            variant = next(variant for variant, name in OURS.items() if name == method)
            value, x = rows.at[(method, framework), "score"], at - 0.4 + width * (rank + 0.5)
            axes.bar(x, value, 0.92 * width, color=COLORS[variant][framework], alpha=0.85)
            deviation = spread.get((framework, variant, task), math.nan)
            if not math.isnan(deviation):
                axes.errorbar(x, value, deviation, color=INK, linewidth=0.6, capsize=1.2, capthick=0.6)
            if task == AVERAGE and not math.isnan(value):
                count = f"{rows.at[(method, framework), 'tasks']:.0f}"
                axes.text(x, value + 8, count, ha="center", fontsize=5.2, color=QUIET)
        for row in published[published["task"] == task].itertuples():
            axes.plot([at - 0.44, at + 0.44], [row.score] * 2, solid_capstyle="butt", zorder=3, **MARKS[row.method])
    axes.axvline(len(TASKS) - 0.25, color="#BBBBBB", linewidth=0.6)
    ticks = [*range(len(TASKS)), len(TASKS) + 0.5]
    axes.set_xticks(ticks, list(names.values()), rotation=55, ha="right", rotation_mode="anchor", fontsize=6.2)
    axes.set(xlim=(-0.6, len(TASKS) + 1.1), ylim=(0, 1040), yticks=range(0, 1001, 200))
    axes.set_ylabel("final test return", labelpad=2)
    axes.grid(axis="x", visible=False)


def _deviations(request: Request) -> dict[tuple[str, str, str], float]:
    """Standard deviation over seeds of the seeds' final scores; NaN for one seed."""
    found = {}
    for key, sources in by_curve(request.sources).items():
        seeds = [episodes.mean() for episodes in Cell(sources, 0, False, last_bin(sources)).seeds]
        found[key] = float(pd.Series(seeds).std(ddof=0)) if len(seeds) > 1 else math.nan
    return found


def _legends(bars: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, Handles]], list[tuple[str, Handles]]]:
    variants = {name: variant for variant, name in OURS.items()}
    ours = [
        (f"{method}, ours: {framework}", (Patch(color=COLORS[variants[method]][framework], alpha=0.85),))
        for method, framework in bars
    ]
    missing = [method for method in OURS.values() if method not in {name for name, _ in bars}]
    ours += [(f"{method}: NOT RUN", (Patch(color="#D0D0D0"),)) for method in missing]
    return ours, [(f"{method}, published", (Line2D([], [], **style),)) for method, style in MARKS.items()]


# ------------------------------------------------------------------------------------------------ Appendix G


def table_1(request: Request) -> Drawn:
    """The published scores and ours, a row per task, and our scores in detail with verdicts.

    Numbers: kind is published or ours; score is the mean over seeds x test episodes, low and high its bootstrap
    interval, difference the distance to the published score of the same method.
    """
    ours, published = scores(request), published_rows(request)
    frame = pd.concat([published, ours], ignore_index=True)
    header, rows = _wide(published, ours)
    detail = ours[(ours["task"] != AVERAGE) & (ours["verdict"] != "NOT RUN")]
    detail_header, details = detail_table(detail.replace({"task": TASKS}))
    notes = [
        "Published: table of Appendix G (arXiv 1912.01603 v3), means of 5 seeds; Dreamer and PlaNet (action repeat 2) "
        "after 5M env steps, A3C (from states) and D4PG (from pixels) after 100M. Its averages are recomputed from the "
        "rows and agree with the printed ones: "
        + ", ".join(f"{row.method} {row.score:.4f}" for row in averages_of(published))
        + "; over 20 tasks, A3C and D4PG over 18. Ours: means over seeds × the "
        f"{FINAL} of finished runs; averages over the tasks that have a score, with their "
        "number where it is not 20. Interval: bootstrap of seeds, then of episodes within a seed; none for one seed.",
        RULE,
        *length_note(request.sources),
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    body = ROW * (len(rows) + len(details) + 2) + 0.03 + 0.45
    with styled():
        page = Page("Dreamer, table of Appendix G: final test return", request.scale, body, notes)
        below = draw_table(page, body, header, rows, rules_before=(len(rows) - 1,), strong_rows=(len(rows) - 1,))
        if details:
            draw_table(page, below - 0.22, detail_header, details, left_columns=(0, 1, 2, 10))
        else:
            page.text(MARGIN, below - 0.3, "No run of ours: NOT RUN", fontsize=FONT, color=QUIET)
    return Drawn(page.figure, frame, {".md": _markdown(header, rows, detail_header, details, notes).encode()})


def _wide(published: pd.DataFrame, ours: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """A row per task and one of averages: the published columns, then ours per framework."""
    columns = [(name, rows.set_index("task")) for name, rows in published.groupby("method", sort=False)]
    columns += [
        (f"{method}, ours ({framework})".replace(" (–)", ""), rows.set_index("task"))
        for (method, framework), rows in ours.groupby(["method", "framework"], sort=False)
    ]
    lines = []
    for task, name in {**TASKS, AVERAGE: "Average"}.items():
        cells = [number(rows["score"].get(task, math.nan), 2) for _, rows in columns]
        if task == AVERAGE:
            counts = [rows["tasks"].get(task, 0) for _, rows in columns]
            cells = [
                cell + (f" ({count:.0f})" if 0 < count < len(TASKS) else "")
                for cell, count in zip(cells, counts, strict=True)
            ]
        lines.append([name, *cells])
    return ["task", *(name for name, _ in columns)], lines


def _markdown(header, rows, detail_header, details, notes: Sequence[str]) -> str:
    """The same as Markdown."""
    tables = [markdown(header, rows), markdown(detail_header, details, left_columns=(0, 1, 2, 10))]
    return "\n".join(["# Dreamer, table of Appendix G: final test return\n", *tables, *(f"{note}\n" for note in notes)])
