"""How good the verdict's rule is on the published seeds: false alarms and power, per release and number of seeds."""

from collections.abc import Sequence

import numpy as np

from shared.diff.compare import TaskPair, finals_of
from shared.diff.grid import edges_for, on_grid
from shared.diff.groups import of_release
from shared.diff.outcome import SAME, Outcome, Table
from shared.diff.published import named
from shared.diff.rule import HALF, LEAST_SEEDS, RULE, WEAKNESSES, false_alarms, false_alarms_over_tasks, power
from shared.figures.aggregate import LEVEL

SEEDS = (1, 2, 3, 5)  # as ours


def measured(selectors: Sequence[str]) -> Outcome:
    """A row per release and number of seeds: false alarms of the seeds against each other, and power."""
    alarms, chances = [], []
    for release in (r for selector in selectors for r in named(selector)):
        (points,) = of_release(release).points.values()
        curves = [on_grid(task, table, edges_for(table, table)) for task, table in points.groupby("task")]
        curves = [c for c in curves if len(c.final) >= LEAST_SEEDS]
        scores, starts = [c.final for c in curves], [c.start for c in curves]
        scaled = finals_of([TaskPair(c.task, c, c) for c in curves])[1]
        told = set()
        for seeds in SEEDS:
            found = false_alarms(scores, seeds, starts)
            if found.tasks and (found.seeds, found.left) not in told:
                told.add((found.seeds, found.left))
                row = (release.name, found.tasks, found.seeds, found.left, found.splits, found.rate)
                row += (false_alarms_over_tasks(scaled, seeds) if len(scaled) > 1 else None,)
                alarms.append(row)
            if curves:
                medians = [
                    float(np.median([power(s, seeds, b, w) for s, b in zip(scores, starts, strict=True)]))
                    for w in WEAKNESSES
                ]
                enough = float(np.mean([power(s, seeds, b, HALF) >= 0.8 for s, b in zip(scores, starts, strict=True)]))
                chances.append((release.name, len(curves), seeds, *medians, enough))
    weak = tuple(f"{w:.0%} less gain" for w in WEAKNESSES)
    columns = ("release", "tasks", "as ours", "as the band", "splits", "false alarms", "over tasks")
    note = f"Share of splits of the published seeds in which the rule cries wolf; nominal {1 - LEVEL:.0%}."
    tables = [
        Table("False alarms, measured", columns, alarms, note),
        Table("Power, one task (median over tasks)", ("release", "tasks", "our seeds", *weak, "tasks with 80% at half"),
              chances, "Chance of 'below' for a learner that gains so much less."),
    ]  # fmt: skip
    rates = np.array([row[5] for row in alarms])
    weights = np.array([row[1] for row in alarms])
    mean = float(np.average(rates, weights=weights)) if len(rates) else float("nan")
    extremes = f"from {rates.min(initial=1):.1%} to {rates.max(initial=0):.1%}"
    reason = f"false alarms {mean:.1%} over all (nominal {1 - LEVEL:.0%}), {extremes}"
    facts = {"mean": mean}
    return Outcome("results", ", ".join(selectors), "their own seeds", SAME, reason, tables, [], [RULE], facts)
