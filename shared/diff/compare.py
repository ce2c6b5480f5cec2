"""Result level: two groups of runs, or a group and published seeds, on one grid; differences, intervals, and a verdict.

Reads groups.py (what the curves are), grid.py (one grid), statistics.py (intervals) and rule.py (inside, below, above).
What cannot be compared is told with its reason; the numbers are shown all the same, for orientation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shared.config import ROOT
from shared.diff import statistics
from shared.diff.grid import BINS, Curves, horizon, pair, threshold
from shared.diff.groups import EVALUATION, TRAINING, Group
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME, Outcome, Plot, Table
from shared.diff.rule import (
    ABOVE,
    BELOW,
    INSIDE,
    LEAST_SEEDS,
    RULE,
    TOO_FEW,
    WEAKNESSES,
    band,
    false_alarms,
    false_alarms_over_tasks,
    power,
    power_over_tasks,
    verdict,
    verdict_over_tasks,
)
from shared.figures.aggregate import LEVEL
from shared.figures.curves import GAME

LEAST_LENGTH = 0.5  # of the longer side's env steps that the shorter must have
GAMES = tuple(ROOT / "data" / "reference" / f"{paper}_games.csv" for paper in ("dreamerv2", "dreamerv3"))  # 55, 57
CONTROL_SCALE = 1000.0  # the highest return of an episode of a control task


@dataclass(frozen=True)
class TaskPair:
    """One task: ours and the reference on one grid."""

    task: str
    ours: Curves
    reference: Curves

    @property
    def enough(self) -> bool:
        """Whether both sides have the seeds that the rule wants."""
        return min(len(self.ours.final), len(self.reference.final)) >= LEAST_SEEDS


def kind_of(a: Group, b: Group) -> str | None:
    """What returns both sides have: of evaluation episodes, else of training episodes; None if neither fits."""
    return next((kind for kind in (EVALUATION, TRAINING) if kind in a.points and kind in b.points), None)


def obstacles(a: Group, b: Group) -> list[str]:
    """Why the two cannot be compared, each with its kind first (units, scale, protocol, version, tasks, mixture)."""
    found = []
    if not a.tasks & b.tasks:
        return [f"tasks: none in common ({few(a.tasks)}; {few(b.tasks)})"]
    if a.unit != b.unit:
        found.append(f"units: {a.name} counts {a.unit}, {b.name} {b.unit}")
    if a.scale != b.scale:
        found.append(f"scale: {a.name} is of scale {a.scale}, {b.name} of scale {b.scale}")
    if kind_of(a, b) is None:
        told = [f"{group.name} has returns of {' and '.join(group.points)} episodes" for group in (a, b)]
        found.append("protocol: " + ", ".join(told))
    ours, published = (a, b) if b.published else (b, a)
    if published.published and not ours.published:
        if ours.paper != published.paper:
            found.append(f"version: {ours.name} is {ours.paper}, {published.name} {published.paper}")
        elif ours.version not in published.variants:
            fits = ", ".join(published.variants) or "no variant of ours"
            found.append(
                f"version: {published.name} was made by the agent that {fits} is set as, {ours.name} is {ours.version}"
            )
    found += [f"mixture: {fault}" for group in (a, b) for fault in group.faults]
    lengths = [median_length(group, a.tasks & b.tasks) for group in (a, b)]
    if min(lengths) < LEAST_LENGTH * max(lengths):
        found.append(f"length: {a.name} goes to {lengths[0]:,.0f} env steps, {b.name} to {lengths[1]:,.0f}")
    return found


def few(tasks: set[str]) -> str:
    """Some names of many."""
    names = sorted(tasks)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def points_of(group: Group, kind: str | None) -> pd.DataFrame:
    """The group's returns of a kind, or of the kind that it has."""
    return group.points[kind] if kind in group.points else next(iter(group.points.values()))


def median_length(group: Group, tasks: set[str]) -> float:
    """Env steps that the group's runs have, median over tasks."""
    points = points_of(group, EVALUATION)
    return float(np.median([horizon(table) for task, table in points.groupby("task") if task in tasks] or [0.0]))


def compare(a: Group, b: Group, *, plots: bool | tuple[str, ...] = True) -> Outcome:
    """The outcome for two groups. The reference, whose seeds judge the other, is B, or A if only A is published.

    plots: all (True), none, or those named: curves, differences, power.
    """
    ours, reference = (b, a) if a.published and not b.published else (a, b)
    why_not = obstacles(a, b)
    notes = [f"{group.name}: {note}" for group in (a, b) for note in group.notes]
    if not a.tasks & b.tasks:
        return Outcome("results", a.name, b.name, NOT_COMPARABLE, why_not[0], notes=notes)
    kind = kind_of(a, b)
    tables = [points_of(group, kind) for group in (ours, reference)]
    shared = sorted(set(tables[0]["task"]) & set(tables[1]["task"]))
    pairs = [TaskPair(task, *pair(task, *tables)) for task in shared]
    verdicts = [verdict(p.ours.final, p.reference.final, p.reference.start) for p in pairs]
    over, scale_note = over_tasks(pairs)
    found, reason = conclude(pairs, verdicts, over)
    if why_not:
        found, reason = NOT_COMPARABLE, "; ".join(why_not)
        notes.insert(0, "Not comparable: the numbers below are for orientation, their verdicts say nothing.")
    names = (ours.name, reference.name)
    notes += [
        f"Judged: {names[0]}, by the seeds of {names[1]}. Returns of {kind or 'different'} episodes; grid of at most "
        f"{BINS} bins of env steps, up to where the shorter side ends; final: the last tenth. Intervals: {LEVEL:.0%}, "
        "seeds drawn anew within each task (stratified bootstrap). " + scale_note,
        RULE,
    ]
    if {ours.paper, ours.version} != {reference.paper, reference.version} and not reference.published:
        notes.append(f"Two agents: {ours.paper}/{ours.version} and {reference.paper}/{reference.version}.")
    outcome_tables = [
        finals_table(pairs, verdicts),
        curves_table(pairs),
        aggregates_table(pairs),
        quality_table(pairs),
    ]
    pictures: list[Plot] = []
    if plots:
        from shared.diff.plots import curves_plot, forest_plot, power_plot  # in here: matplotlib is slow to import

        makers = {"curves": curves_plot, "differences": forest_plot, "power": power_plot}
        made = [make(pairs, *names) for name, make in makers.items() if plots is True or name in plots]
        pictures = [picture for picture in made if picture is not None]
    counts = {name: sum(v == name for v, _ in verdicts) for name in (INSIDE, BELOW, ABOVE, TOO_FEW)}
    facts = {
        "obstacles": why_not,
        "over_tasks": over[0],
        "counts": counts,
        "tasks": {p.task: v for p, (v, _) in zip(pairs, verdicts, strict=True)},
    }
    return Outcome("results", a.name, b.name, found, reason, outcome_tables, pictures, notes, facts)


def conclude(pairs: Sequence[TaskPair], verdicts: Sequence[tuple[str, str]], over: tuple[str, str]) -> tuple[str, str]:
    """Same, differs or not comparable from the tasks' verdicts and that over tasks, with the sentence that says why."""
    judged = [(p.task, v) for p, (v, _) in zip(pairs, verdicts, strict=True) if v != TOO_FEW]
    out = [(task, v) for task, v in judged if v != INSIDE]
    if len(pairs) == 1:
        ((found, why),) = verdicts
        told = f"{pairs[0].task}: {found} ({why})"
        return (NOT_COMPARABLE if found == TOO_FEW else SAME if found == INSIDE else DIFFERS), told
    if not judged and over[0] == TOO_FEW:
        return NOT_COMPARABLE, f"{TOO_FEW} on any of {len(pairs)} tasks"
    by_chance = tail(len(out), len(judged), 1 - LEVEL)
    tasks = f"{len(out)} of {len(judged)} tasks outside ({', '.join(f'{t} {v}' for t, v in out) or 'none'})"
    left = f", {len(pairs) - len(judged)} with {TOO_FEW}" if len(judged) < len(pairs) else ""
    whole = f"over tasks {over[0]} ({over[1]})"
    differs = over[0] in (BELOW, ABOVE) or (out and by_chance < 1 - LEVEL)
    chance = f"; so many or more by chance: {by_chance:.2g}" if out else ""
    return (DIFFERS if differs else SAME), f"{whole}; {tasks}{left}{chance}"


def tail(count: int, trials: int, rate: float) -> float:
    """Chance of at least `count` successes among so many trials."""
    return sum(math.comb(trials, i) * rate**i * (1 - rate) ** (trials - i) for i in range(count, trials + 1))


def scaled(pairs: Sequence[TaskPair]) -> tuple[list[TaskPair], list[tuple[float, float]], str]:
    """Tasks whose returns have one scale, (offset, unit) for each, and what the scale is."""
    if all(p.task.startswith(GAME) for p in pairs):
        tables = [pd.read_csv(path).set_index("task") for path in GAMES]
        games = max(tables, key=lambda table: sum(p.task in table.index for p in pairs))  # the first, where both do
        kept = [p for p in pairs if p.task in games.index]
        units = [(games.loc[p.task, "random"], games.loc[p.task, "gamer"] - games.loc[p.task, "random"]) for p in kept]
        left = len(pairs) - len(kept)
        return (
            kept,
            units,
            "Over tasks: gamer-normalised" + (f", {left} games without a gamer's score left out." * (left > 0)),
        )
    if any(p.task.startswith(GAME) for p in pairs):
        return [], [], "Over tasks: nothing, games and control tasks have no common scale."
    return list(pairs), [(0.0, CONTROL_SCALE)] * len(pairs), "Over tasks: returns over 1000."


def finals_of(pairs: Sequence[TaskPair]) -> tuple[list[np.ndarray], list[np.ndarray], list[TaskPair]]:
    """Final scores of both sides on one scale, per task."""
    kept, units, _ = scaled(pairs)
    sides = [
        [(curves.final - low) / size for curves, (low, size) in zip(side, units, strict=True)]
        for side in ([p.ours for p in kept], [p.reference for p in kept])
    ]
    return sides[0], sides[1], kept


def over_tasks(pairs: Sequence[TaskPair]) -> tuple[tuple[str, str], str]:
    """The verdict over tasks, of those with enough seeds, and the note on their scale."""
    note = scaled(pairs)[2]
    enough = [p for p in pairs if p.enough]
    ours, reference, _ = finals_of(enough) if enough else ([], [], [])
    return verdict_over_tasks(ours, reference), note


# ---------------------------------------------------------------------------------------------------------- tables


def finals_table(pairs: Sequence[TaskPair], verdicts: Sequence[tuple[str, str]]) -> Table:
    """Final scores, their difference, probability of improvement and the verdict, a row per task."""
    rows = []
    for p, (found, why) in zip(pairs, verdicts, strict=True):
        one, other = p.ours.final, p.reference.final
        gap = statistics.estimate([one], [other], statistics.difference(statistics.mean))
        better = statistics.estimate([one], [other], statistics.improvement)
        where = band(other, len(one), p.reference.start) if len(other) > 1 else (math.nan, math.nan)
        rows.append(
            (p.task, float(p.ours.edges[-1]), len(one), len(other), one.mean(), other.mean(), *gap, *where, *better)
            + (found, why)
        )
    columns = ("task", "env steps", "seeds", "seeds ref.", "final", "final ref.", "difference", "low", "high")
    columns += ("band low", "band high", "P(better)", "P low", "P high", "verdict", "why")
    return Table("Final scores", columns, rows, "Reward; difference: ours minus the reference; a dash: one seed only.")


def curves_table(pairs: Sequence[TaskPair]) -> Table:
    """Area under the curve and time to threshold, a row per task."""
    rows = []
    for p in pairs:
        gap = statistics.estimate([p.ours.area], [p.reference.area], statistics.difference(statistics.mean))
        level = threshold(p.reference)
        times = [curves.reach(level) for curves in (p.ours, p.reference)]
        reached = [f"{int(np.isfinite(t).sum())} of {len(t)}" for t in times]
        middle = [float(np.median(t)) for t in times]
        rows.append(
            (p.task, p.ours.area.mean(), p.reference.area.mean(), *gap, level, *middle, *reached, p.ours.short)
            + (p.reference.short,)
        )
    columns = ("task", "area", "area ref.", "difference", "low", "high", "threshold", "env steps to it", "ref. to it")
    columns += ("reached", "reached ref.", "short runs", "short ref.")
    note = (
        "Area: mean return on the way. Threshold: 80% of the reference's gain; env steps: median over seeds, ∞ if not."
    )
    return Table("Learning curves", columns, rows, note)


def aggregates_table(pairs: Sequence[TaskPair]) -> Table:
    """Aggregates over tasks of both sides, differences with intervals, and the probability of improvement."""
    ours, reference, kept = finals_of(pairs)
    rows = []
    if kept:
        for name, statistic in statistics.AGGREGATES.items():
            gap = statistics.estimate(ours, reference, statistics.difference(statistic))
            rows.append((name, float(statistic(ours)), float(statistic(reference)), *gap))
        better = statistics.estimate(ours, reference, statistics.improvement)
        rows.append(("probability of improvement", None, None, *better))
    columns = ("over tasks", "ours", "reference", "difference", "low", "high")
    return Table("Aggregates of final scores", columns, rows, f"{len(kept)} tasks; {scaled(pairs)[2]}")


def quality_table(pairs: Sequence[TaskPair]) -> Table:
    """How often the rule is wrong about the reference's own seeds, and what it would notice with the seeds at hand."""
    published = [p.reference.final for p in pairs if len(p.reference.final) >= LEAST_SEEDS]
    if not published:
        return Table("The rule on these seeds", ("what", "value"), [], f"No task has {LEAST_SEEDS} reference seeds.")
    seeds = max(1, int(np.median([len(p.ours.final) for p in pairs])))
    starts = [p.reference.start for p in pairs if len(p.reference.final) >= LEAST_SEEDS]
    alarms = false_alarms(published, seeds, starts)
    rows = [
        ("false alarms, nominal", 1 - LEVEL),
        (f"false alarms, measured ({alarms.seeds} seeds against {alarms.left})", alarms.rate),
        ("tasks and splits that this rests on", f"{alarms.tasks} tasks, {alarms.splits} splits"),
    ]
    for weakness in WEAKNESSES:
        chances = [power(p, seeds, s, weakness) for p, s in zip(published, starts, strict=True)]
        rows.append((f"power, one task (median), {weakness:.0%} less gain, {seeds} seeds", np.median(chances)))
    _, reference, kept = finals_of([p for p in pairs if len(p.reference.final) >= LEAST_SEEDS])
    if len(kept) > 1:
        units = scaled(kept)[1]
        rows.append(("false alarms over tasks, measured", false_alarms_over_tasks(reference, seeds)))
        begins = [(p.reference.start - low) / size for p, (low, size) in zip(kept, units, strict=True)]
        for weakness in WEAKNESSES:
            rows.append(
                (f"power, over {len(kept)} tasks, {weakness:.0%} less gain, {seeds} seeds",
                 power_over_tasks(reference, seeds, begins, weakness))
            )  # fmt: skip
    return Table("The rule on these seeds", ("what", "value"), rows)
