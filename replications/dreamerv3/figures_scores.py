"""DreamerV3's final scores from run files: Tables 6, 9, 11 and 12, and Figure 1, beside the published.

A final score of ours is the mean over a finished run's training episodes of the last env steps, then over seeds, as the
published ones are. Ours in these tables are of the agent that made the published numbers: 2024's, and for control from
vectors 2023's. shared/figures/scores.py has the formulas, figures_published.py the recipes.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from replications.dreamerv3.figures_curves import AGENT_FIGURES, STYLES, agent, of_agent
from replications.dreamerv3.figures_published import (
    NAMES,
    ORIGIN,
    REFERENCE,
    STATISTICS,
    SUITES,
    Suite,
    finals,
    printed_elsewhere,
    read,
    recomputed,
    statistic,
    tasks_of,
    title,
)
from shared.figures.binned import bin_width
from shared.figures.command import Drawn, Request
from shared.figures.curves import collected
from shared.figures.page import INK, MARGIN, QUIET, Page, styled
from shared.figures.sources import Source, by_curve, mixtures, origin_note
from shared.figures.tables import FONT, ROW, RULE, Cell, detail_table, draw_table, markdown, number

FRAMEWORKS = ("torch", "jax")
TABLES = {"table_6": "atari", "table_9": "atari100k", "table_11": "proprio", "table_12": "vision"}
RECIPES = {  # how the released runs give the printed numbers
    "atari": "a run's bins of 0.4M frames from 198M to 200M, then its game's seeds (3 to 6 of the file), then the "
    "gamer's scale, then games; MuZero: the last point of its one curve.",
    "atari100k": "a run's training episodes that end after 390K frames (8 of 130 runs have none and are left out), "
    "then seeds, then the gamer's scale, then games. PPO: the same, our choice.",
    "proprio": "a run's last three bins (470K, 480K, 490K env steps), then its five seeds, then tasks. Other methods: "
    "whatever lies beyond 450K env steps, our choice; the printed numbers are not known to us.",
    "vision": "a run's training episodes that end after 960K env steps, then its seeds (8 to 10), then tasks. Other "
    "methods: evaluations beyond 950K.",
}
FURTHER = {
    "atari": "Alien's random play is 227.8 and James Bond is measured from 29.0 to 302.8, as DreamerV3's own file has "
    "it (DreamerV2's averages need other numbers).",
    "atari100k": "SimPLe, SPR, TWM and IRIS stand in the printed table alone. The 2024 code's configuration selects "
    "the sticky, grey environment by mistake; whether the published runs had it is not known. Ours is the one meant.",
    "proprio": "The printed table is of the 2023 agent, although the paper describes 2024's: its numbers are those of "
    "a file released with the 2023 code. In the copy we read, the labels of mean and median are swapped.",
    "vision": "In the copy we read, the labels of mean and median are swapped. The paper says five seeds and 16 "
    "environments; the file has ten seeds, and their episodes end 8 at a time: ours of the 2024 agent has 8 too.",
}
ELSEWHERE = {"procgen": ("ProcGen", "normalised mean, 16 tasks"), "dmlab": ("DMLab", "capped mean, 30 tasks"),
             "minecraft": ("Minecraft", "return, diamond")}  # fmt: skip
OTHER_NAMES = {**NAMES, "ppg": "PPG", "impala": "IMPALA", "rainbow": "Rainbow"}
GREYS = ("#9A9A9A", "#B8B8B8", "#CFCFCF")


def final(suite: Suite, sources: Sequence[Source], request: Request, mixed: bool = False) -> Cell:
    """Our final score of one task: as many last env steps as the published has, or a fiftieth of shorter runs.

    Runs are averaged first, as the recipes do: episodes of games differ in length, so that seeds have more or fewer.
    """
    window = suite.window if request.scale == "paper" else bin_width(sources, suite.window)
    return Cell(sources, max(request.seeds or 0, len(sources)), mixed, window, collected, runs_first=True)


def our_scores(suite: Suite, request: Request, framework: str) -> pd.Series:
    """Our final scores by task, in the order of tasks_of; NaN where no run is finished."""
    runs = by_curve(request.sources)
    return pd.Series(
        {
            task: final(suite, runs.get((framework, suite.variant, task), []), request).numbers()["score"]
            for task in tasks_of(request.reference, suite.name)
        }
    )


def frameworks_of(suite: Suite, request: Request) -> list[str]:
    """The frameworks that have runs of a suite's agent."""
    return [name for name in FRAMEWORKS if any(source.key[:2] == (name, suite.variant) for source in request.sources)]


def our_statistic(suite: Suite, request: Request, scores: pd.Series, name: str) -> float:
    """Mean or median over a suite's tasks; NaN while a task has no score."""
    if scores.isna().any():
        return math.nan
    return float(statistic(request.reference, suite.name, name)(scores.to_numpy()))


# ------------------------------------------------------------------------------------------------ tables


def score_table(name: str) -> Callable[[Request], Drawn]:
    """The function that draws one table of TABLES."""
    return functools.partial(_score_table, name, SUITES[TABLES[name]])


def _score_table(name: str, suite: Suite, request: Request) -> Drawn:
    """Final scores task by task: published columns, and ours.

    Numbers: kind is published (a row per task and method), ours (as the detail table has them), recomputed or printed
    (a row per statistic and method, task is mean or median).
    """
    tasks = tasks_of(request.reference, suite.name)
    methods = [suite.published, *suite.others]
    tables = {method: finals(request.reference, suite.name, method) for method in methods}
    own = _our_rows(suite, request, tables[suite.published]["mean"])
    scores = {framework: our_scores(suite, request, framework) for framework in frameworks_of(suite, request)}
    measured = read(request.reference, REFERENCE.name).set_index("task") if suite.games else None
    header = [
        "game" if suite.games else "task",
        *(("random", "gamer") if suite.games else ()),
        *(NAMES[suite.published], "deviation", "seeds"),
        *(NAMES[method] for method in suite.others),
        *(f"ours, {agent(suite.variant)} ({framework})" for framework in scores),
    ]
    lines = []
    for task in tasks:
        of = tables[suite.published].loc[task]
        known = [_score(measured.at[task, column]) for column in ("random", "gamer")] if suite.games else []
        lines.append(
            [
                *(title(task), *known, _score(of["mean"]), _score(of["std"]), f"{of['seeds']:.0f}"),
                *(_score(tables[method].at[task, "mean"]) for method in suite.others),
                *(_score(scores[framework][task]) for framework in scores),
            ]
        )
    lines += _statistic_lines(suite, request, scores)
    notes = [
        f"Which agent: the published column is of the {agent(suite.variant)}, and so are ours (variant "
        f"{suite.variant}); the last commit's runs are in dreamerv3_{AGENT_FIGURES[suite.name]}.",
        f"Released runs: {ORIGIN}. Final score: {RECIPES[suite.name]} Deviation: population, over seeds.",
        FURTHER[suite.name],
        "Ours: training episodes of a finished run's last env steps, as many as the published has (a fiftieth of "
        "shorter runs), counted from its last episode; each run's mean, then that of seeds. Mean and median are given "
        "when every task has a score. " + RULE,
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    numbers = pd.concat([_published_rows(suite, request, tables), own], ignore_index=True)
    return _page(name, suite, request, numbers, (header, lines, len(tasks)), own, notes)


def _page(name: str, suite: Suite, request: Request, numbers: pd.DataFrame, main, own: pd.DataFrame, notes) -> Drawn:
    """The table, ours with verdicts below it, and the same as Markdown."""
    header, lines, rule = main
    what = f"Table {name.removeprefix('table_')}: final scores, {suite.words}"
    detail_header, details = detail_table(own.assign(task=own["task"].map(title))) if len(own) else ([], [])
    body = ROW * (len(lines) + 1) + 0.36 + (ROW * (len(details) + 1) + 0.35 if details else 0.2)
    with styled():
        page = Page(f"DreamerV3, {what}", request.scale, body, notes)
        below = draw_table(page, body, header, lines, rules_before=(rule,), strong_rows=(rule, rule + 2))
        if details:
            draw_table(page, below - 0.22, detail_header, details, left_columns=(0, 1, 2, 10))
        else:
            page.text(MARGIN, below - 0.2, f"No run of ours ({suite.variant}): NOT RUN", fontsize=FONT, color=QUIET)
    tables = [markdown(header, lines)] + ([markdown(detail_header, details, (0, 1, 2, 10))] if details else [])
    text = "\n".join([f"# DreamerV3, {what}\n", *tables, *(f"{note}\n" for note in notes)])
    return Drawn(page.figure, numbers, {".md": text.encode()})


def _statistic_lines(suite: Suite, request: Request, scores: dict[str, pd.Series]) -> list[list[str]]:
    """Mean and median over tasks, recomputed, and below each what is printed."""
    again = recomputed(request.reference)
    again = again[again["suite"] == suite.name].set_index("method")
    percent, lines = " %" if suite.games else "", []
    blank = [""] * (2 if suite.games else 0)
    for name in STATISTICS:
        what = f"gamer {name}" if suite.games else f"task {name}"
        values = [_aggregate(again.at[method, name], percent) for method in (suite.published, *suite.others)]
        ours = [_aggregate(our_statistic(suite, request, scores[framework], name), percent) for framework in scores]
        lines.append([f"{what}, recomputed", *blank, values[0], "", "", *values[1:], *ours])
        printed = [again.at[method, f"printed_{name}"] for method in (suite.published, *suite.others)]
        shown = [_aggregate(value, percent, 0) for value in printed]
        lines.append([f"{what}, printed", *blank, shown[0], "", "", *shown[1:], *([""] * len(scores))])
    return lines


def _published_rows(suite: Suite, request: Request, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = [
        table.reset_index().rename(columns={"mean": "score"}).assign(kind="published", method=NAMES[method])
        for method, table in tables.items()
    ]
    again = recomputed(request.reference)
    for row in again[again["suite"] == suite.name].to_dict("records"):
        for name in STATISTICS:
            for kind, value in (("recomputed", row[name]), ("printed", row[f"printed_{name}"])):
                one = {"kind": kind, "method": NAMES[row["method"]], "task": name, "score": value}
                rows.append(pd.DataFrame([one]))
    found = pd.concat(rows, ignore_index=True)
    return found[["kind", "method", "task", "score", "std", "seeds"]]


def _our_rows(suite: Suite, request: Request, published: pd.Series) -> pd.DataFrame:
    """Our final scores task by task beside the published means, with verdicts."""
    rows, mixed, runs = [], mixtures(request.sources), by_curve(request.sources)
    for framework, variant, task in sorted(runs, key=lambda key: (FRAMEWORKS.index(key[0]), key[2])):
        if task not in published.index or variant != suite.variant:
            continue
        sources = runs[framework, variant, task]
        cell = final(suite, sources, request, (framework, variant, task) in mixed)
        numbers = cell.numbers()
        rows.append(
            {
                "kind": "ours",
                "method": of_agent(variant).name,
                "framework": framework,
                "task": task,
                **numbers,
                "published": published[task],
                "difference": numbers["score"] - published[task],
                "seeds": len(cell.seeds),
                "expected_seeds": cell.expected_seeds,
                "test_episodes": max(map(len, cell.seeds), default=0),
                "env_steps": cell.env_steps,
                "verdict": cell.verdict(published[task], _comparable(suite), request.scale),
                "origin": "run files",
            }
        )
    return pd.DataFrame(rows)


def _comparable(suite: Suite) -> int:
    """Env steps that a run must have: where the published final score's window begins."""
    return suite.env_steps - suite.window


def _score(value: float) -> str:
    """A score: one decimal where it is small."""
    return number(value, 1 if abs(value) < 100 else 0)


def _aggregate(value: float, percent: str, digits: int = 1) -> str:
    return number(value, digits) + ("" if math.isnan(value) else percent)


# ------------------------------------------------------------------------------------------------ Figure 1


def figure_1(request: Request) -> Drawn:
    """Bars: one aggregate per benchmark, of the published agent, others, and ours when every task has a score.

    Numbers: a row per bar: suite, statistic, kind (recomputed, printed or ours), method, framework, value.
    """
    rows = [row for suite in SUITES.values() for row in _bars(suite, request)]
    rows += [
        {"suite": row["suite"], "statistic": row["statistic"], "kind": "printed", "method": OTHER_NAMES[row["method"]],
         "color": STYLES["dreamerv3-2024"][0] if row["method"].startswith("dreamerv3") else GREYS[0],
         "value": row["value"]}
        for row in printed_elsewhere(request.reference).to_dict("records")
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    notes = [
        "Dark: DreamerV3's released runs (publ.: published), recomputed as in Tables 6, 9, 11 and 12, with the agent "
        "that made them: 2024's, and for control from vectors 2023's. Grey: other methods, from the same files. "
        "Coloured: ours, of the same agent, when every task of a suite has a finished run. Which aggregate the paper's "
        "figure shows is not known to us: medians of games and means of control tasks are our choice.",
        "ProcGen, DMLab and Minecraft: printed numbers, out of scope here (Table 2 has the reasons). BSuite, out "
        "of scope too, and Crafter, which has a figure of its own, have no number in our source.",
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    across, height, gap = 1.78, 1.0, 0.8
    with styled():
        page = Page("DreamerV3, Figure 1: one agent on many benchmarks", request.scale, 2 * (height + gap), notes)
        for place, suite in enumerate([*SUITES, *ELSEWHERE]):
            row, column = divmod(place, 4)
            axes = page.axes(0.4 + across * column, gap - 0.36 + (height + gap) * (1 - row), 1.4, height)
            draw_bars(axes, suite, frame[frame["suite"] == suite])
    return Drawn(page.figure, frame.drop(columns="color"), {})


def _bars(suite: Suite, request: Request) -> list[dict]:
    name = "median" if suite.games else "mean"
    again = recomputed(request.reference)
    again = again[again["suite"] == suite.name].set_index("method")
    best = max(suite.others, key=lambda method: again.at[method, name])
    shown = [suite.published, *dict.fromkeys((best, "ppo"))]
    rows = [
        {"suite": suite.name, "statistic": name, "kind": "recomputed", "method": NAMES[method],
         "value": again.at[method, name], "color": STYLES[method][0] if rank == 0 else GREYS[rank - 1]}
        for rank, method in enumerate(shown)
    ]  # fmt: skip
    for framework in frameworks_of(suite, request) or ["–"]:
        scores = our_scores(suite, request, framework)
        row = {"suite": suite.name, "statistic": name, "kind": "ours", "method": of_agent(suite.variant).name}
        value = our_statistic(suite, request, scores, name)
        colors = of_agent(suite.variant).colors
        counts = {"tasks": int(scores.notna().sum()), "of": len(scores)}
        rows.append({**row, **counts, "framework": framework, "value": value,
                     "color": colors.get(framework, GREYS[2])})  # fmt: skip
    return rows


def draw_bars(axes, suite: str, rows: pd.DataFrame) -> None:
    """The bars of one benchmark, a row of the numbers each; the suite is one of SUITES or of ELSEWHERE."""
    known = SUITES.get(suite)
    words, below = (known.title, "") if known else ELSEWHERE[suite]
    if known:
        below = "gamer median, %" if known.games else "mean return"
        words = known.title.partition(",")[0]
    labels = []
    for place, row in enumerate(rows.to_dict("records")):
        value = row["value"]
        if not math.isnan(value):
            axes.bar(place, value, 0.74, color=row["color"])
            axes.text(place, value, f"{value:.0f}" if known else f"{value:.1f}", ha="center", va="bottom", fontsize=6)
        labels.append(_bar_label(row, known))
    axes.set_xticks(range(len(labels)), labels, fontsize=5.2 if len(labels) <= 4 else 4.2)  # words as wide as a bar
    axes.tick_params(axis="x", length=0, pad=2)
    top = np.nanmax(rows["value"])
    axes.set(xlim=(-0.6, max(len(labels), 4) - 0.4), ylim=(0, 1.18 * top))
    axes.set_title(words, fontsize=7.5, fontweight="bold", loc="left", pad=11, color=INK)
    axes.annotate(below, (0, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", fontsize=5.8,
                  color=QUIET)  # fmt: skip
    axes.grid(axis="x", visible=False)


def _bar_label(row: dict, known: Suite | None) -> str:
    """Who, and whose numbers: three short lines."""
    name = row["method"].replace("DreamerV3, ", "").replace(" agent", "")
    dreamer = row["method"].startswith("DreamerV3")
    if not known:
        return f"{'Dreamer' if dreamer else name}\nprinted"
    if row["kind"] != "ours":
        return f"Dreamer\n{name}\npubl." if dreamer else f"{name}\npubl."
    if row["framework"] == "–":
        return f"ours\n{name}\nNOT RUN"
    few = f"\n{row['tasks']:.0f} of {row['of']:.0f}" if math.isnan(row["value"]) else ""
    return f"ours\n{name}\n{row['framework']}{few}"
