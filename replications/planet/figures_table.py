"""PlaNet's Table 1 from run files: published scores, ours per framework, CEM on the true simulator, and verdicts.

shared/figures/tables.py has the rule of the verdicts; figures_published.py the published numbers.
"""

import math
from collections.abc import Sequence

import pandas as pd

from replications.planet.figures_published import (
    EPISODE_ENV_STEPS,
    PLANET,
    SIMULATOR,
    TASKS,
    entry,
    length_note,
    origins,
    read_reference,
)
from shared.figures.command import Drawn, Request
from shared.figures.curves import random_returns
from shared.figures.page import Page, styled
from shared.figures.sources import Source, by_curve, mixtures, origin_note
from shared.figures.tables import ROW, RULE, Cell, detail_table, draw_table, markdown, number

OURS = {"rssm": PLANET, "simulator": SIMULATOR}  # variant -> the published row that it stands beside
NAMES = {"rssm": "PlaNet (RSSM)", "simulator": SIMULATOR}


def table_1(request: Request) -> Drawn:
    """The published Table 1 beside our final scores, with the rule of the verdicts.

    Numbers: a row per method and task; kind is published, ours or random; score is the mean over seeds x test episodes
    of the last evaluation of finished runs, low and high its bootstrap interval, difference the distance to the
    published score of the same method.
    """
    reference = read_reference(request.reference)
    published = reference.assign(kind="published", env_steps=reference["episodes"] * EPISODE_ENV_STEPS)
    tables = [published, _our_rows(request, reference), _random_rows(request.sources)]
    frame = pd.concat([table for table in tables if len(table)], ignore_index=True)
    header, rows, first_ours = _wide(frame)
    detail_header, details = detail_table(frame[frame["kind"] == "ours"].replace({"task": TASKS}))
    notes = [
        f"Published: {origins(reference)} (means over 5 seeds × 10 test episodes; data efficiency: episodes of D4PG "
        "per episode of PlaNet to the same score). Ours: mean over seeds × test episodes of the "
        "last evaluation of finished runs; interval of that mean: bootstrap of seeds, then of "
        f"episodes within a seed; none for one seed. {SIMULATOR}: the planner with the simulator itself in place of a "
        "model, nothing is learned; an upper bound. Random: mean return of the runs' own random prefill.",
        RULE,
        *length_note(request.sources),
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    body = ROW * (len(rows) + len(details) + 2) + 0.03 * (len(details) // len(TASKS)) + 0.47
    with styled():
        page = Page("PlaNet, Table 1: final test return", request.scale, body, notes)
        ours = [index for index, row in enumerate(rows) if ", ours" in row[0]]
        below = draw_table(page, body, header, rows, left_columns=(0, 1), rules_before=(first_ours,), strong_rows=ours)
        groups = range(len(TASKS), len(details), len(TASKS))
        draw_table(page, below - 0.22, detail_header, details, left_columns=(0, 1, 2, 10), rules_before=groups)
    return Drawn(page.figure, frame, {".md": _markdown(header, rows, frame, notes).encode()})


def _our_rows(request: Request, reference: pd.DataFrame) -> pd.DataFrame:
    """Every method of OURS on all six tasks, for every framework that has runs of it."""
    curves, mixed = by_curve(request.sources), mixtures(request.sources)
    rows = []
    for variant, published_name in OURS.items():
        for framework in sorted({key[0] for key in curves if key[1] == variant}, reverse=True) or ["–"]:
            for task in TASKS:
                key = (framework, variant, task)
                runs = curves.get(key, [])
                cell = Cell(runs, max(request.seeds or 0, len(runs)), key in mixed)
                published = entry(reference, published_name, task)
                rows.append(_our_row(cell, NAMES[variant], framework, published, request.scale))
    return pd.DataFrame(rows)


def _our_row(cell: Cell, name: str, framework: str, published: dict, scale: str) -> dict[str, object]:
    """One score of ours beside its published counterpart."""
    numbers, score = cell.numbers(), float(published["score"])
    return {
        "kind": "ours",
        "method": name,
        "input": published["input"],
        "framework": framework,
        "task": published["task"],
        **numbers,
        "published": score,
        "difference": numbers["score"] - score,
        "seeds": len(cell.seeds),
        "expected_seeds": cell.expected_seeds,
        "test_episodes": max(map(len, cell.seeds), default=0),
        "env_steps": cell.env_steps if cell.sources else math.nan,
        "verdict": cell.verdict(score, int(published["episodes"]) * EPISODE_ENV_STEPS, scale),
        "origin": "run files",
    }


def _random_rows(sources: Sequence[Source]) -> pd.DataFrame:
    """Mean return of the random prefill, per task with runs that have one."""
    rows = []
    for task in TASKS:
        returns = random_returns(source for source in sources if source.task == task)
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
        more = group["at_least"].eq(True).map({True: "+", False: ""})
        scores = dict(zip(group["task"], group["score"].map(number) + more, strict=True))
        idle = kind == "ours" and (group["verdict"] == "NOT RUN").all()
        cells = ["NOT RUN" if idle else scores.get(task, number(math.nan)) for task in TASKS]
        suffix = {"published": ", published", "ours": f", ours ({where})".replace(" (–)", "")}
        first_ours += kind == "published"
        rows.append([method + suffix.get(kind, ""), group["input"].iloc[0], *cells])
    return header, rows, first_ours


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """The numbers of table_1 as Markdown: the published layout, ours in detail, the rule and the notes."""
    tables = [
        markdown(header, rows, left_columns=(0, 1)),
        markdown(*detail_table(frame[frame["kind"] == "ours"]), left_columns=(0, 1, 2, 10)),
    ]
    return "\n".join(["# PlaNet, Table 1: final test return\n", *tables, *(f"{note}\n" for note in notes)])
