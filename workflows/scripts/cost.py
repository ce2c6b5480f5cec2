"""What a scale costs before anyone starts it: runs, env steps, updates, actions and hours.

    python -m workflows.scripts.cost --scale workflows/profiles/paper/scale.yaml        (make cost SCALE=paper)

Hours come from measured speeds in data/speeds.csv (benchmarks/ writes them); where nothing was measured it says so.
The table is also written to results/<scale>/cost.csv.
"""

import argparse
import functools
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from shared.config import ALL_TASKS, ROOT, build, resolve, shown
from shared.errors import UserError, cli
from shared.training.schedule import RatioSchedule, Schedule
from workflows.scripts.plan import Run, all_runs, read_scale

SPEEDS = ROOT / "data" / "speeds.csv"
SPEED_COLUMNS = [
    "paper", "framework", "device", "scale", "ms_per_update", "ms_per_planned_action", "ms_per_policy_action",
    "env_steps_per_s", "source",
]  # fmt: skip
SPEEDS_IN_MS = ("ms_per_update", "ms_per_planned_action", "ms_per_policy_action")
NOT_MEASURED = "not measured"


class Work(NamedTuple):
    """What one run does, evaluation included."""

    env_steps: int
    updates: int
    planned_actions: int = 0  # chosen by search in the model
    policy_actions: int = 0  # chosen by a learned policy

    def hours(self, speed: Mapping[str, float]) -> float:
        """Wall-clock hours when learning, acting and simulating take turns; NaN where a speed is not measured."""
        counts = (self.updates, self.planned_actions, self.policy_actions)
        ms = sum(count * speed[name] for count, name in zip(counts, SPEEDS_IN_MS, strict=True) if count)
        return (ms / 1000 + self.env_steps / speed["env_steps_per_s"]) / 3600


def work_of(values: Mapping[str, Any], task: str, framework: str) -> Work:
    """The work of one run with these resolved values.

    Evaluations happen at the end of prefill, every period after it, and at the end of the run. Collecting by noise
    plans nothing; without a behaviour to learn (PlaNet), or with behaviour.learner planner, every other action is the
    planner's. In framework numpy nothing is learned and every candidate is tried in the simulator: only its env
    steps count. One agent for all tasks plays an equal number of episodes of each. A planned action counts the same
    whatever the planner's settings: variants with another planner or overshooting cost less or more than they say.
    """
    world, episodes = values["environment"], values["evaluation"]["episodes"]
    total, prefill, every, updates = learning(values)
    if framework == "numpy":
        tried = math.prod(values["planner"][name] for name in ("horizon", "iterations", "candidates"))
        return Work(env_steps=episodes * world["time_limit_env_steps"] * (1 + tried), updates=0)
    collected_by_plan = values.get("exploration", {}).get("collect", "planner") == "planner"
    tasks = world["joint_tasks"] if task == ALL_TASKS else [task]
    repeats = world["action_repeat"]  # of each task, or one for all
    repeat = statistics.harmonic_mean([repeats[one] if isinstance(repeats, Mapping) else repeats for one in tasks])
    learned = max(0, total - prefill)
    evaluations = 1 + math.ceil(learned / every)
    test_steps = evaluations * episodes * len(tasks) * world["time_limit_env_steps"]
    planned = values.get("behaviour", {"learner": "planner"}).get("learner") == "planner"
    actions = round((learned * collected_by_plan + test_steps) / repeat)
    return Work(total + test_steps, updates, **{"planned_actions" if planned else "policy_actions": actions})


def learning(values: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Env steps in all, of prefill and between evaluations, and updates in all.

    Where updates go by rows, an episode is taken to last until its time limit: it has a row per decision, and one more.
    """
    schedule, world = values["schedule"], values["environment"]
    if "train_ratio" not in schedule:
        plan = build(Schedule, schedule, where="schedule")
        updates = plan.updates_due(-1, plan.total_env_steps)
        return plan.total_env_steps, plan.prefill_env_steps, plan.evaluate_every_env_steps, updates
    settings, batch = build(RatioSchedule, schedule, where="schedule"), values["batch"]
    steps, window = batch["size"] * batch["length"], batch["context"] + batch["length"]
    plan = settings.plan(world["parallel"], window=window, steps=steps, random_fill=False)
    total = settings.total_env_steps
    rows = total // world["action_repeat"] + total // world["time_limit_env_steps"]
    return total, 0, settings.evaluate_every_env_steps, plan.updates_due(-1, rows)


def read_speeds(path: Path = SPEEDS) -> pd.DataFrame:
    """Measured speeds, one row per paper, framework, device and scale; empty cells are not measured."""
    if not path.is_file():
        return pd.DataFrame(columns=SPEED_COLUMNS)
    table = pd.read_csv(path, comment="#")
    if list(table.columns) != SPEED_COLUMNS:
        raise UserError(f"{shown(path)}: columns are {list(table.columns)}, expected {SPEED_COLUMNS}")
    for column in (*SPEEDS_IN_MS, "env_steps_per_s"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = table[column][table[column].notna() & ~(numbers > 0)]
        if len(bad):
            raise UserError(
                f"{shown(path)}, line {bad.index[0] + 2}: {column} = {bad.iloc[0]!r}, expected a number > 0, or nothing"
            )
        table[column] = numbers
    return table


def cost_table(runs: Iterable[Run], scale: Mapping[str, Any], speeds: pd.DataFrame) -> pd.DataFrame:
    """One row per paper, framework and measured device (or one that says not measured)."""
    groups: dict[tuple[str, str], list[Work]] = defaultdict(list)
    values_of = functools.cache(lambda paper, variant: resolve(paper, variant, scale)["values"])
    for run in runs:
        groups[run.paper, run.framework].append(work_of(values_of(run.paper, run.variant), run.task, run.framework))
    rows = []
    for (paper, framework), works in groups.items():
        same = (speeds["paper"] == paper) & (speeds["framework"] == framework) & (speeds["scale"] == scale["name"])
        totals = {
            "paper": paper,
            "framework": framework,
            "scale": scale["name"],
            "runs": len(works),
            **{name: sum(getattr(work, name) for work in works) for name in Work._fields},
        }
        measured = 0
        for _, speed in speeds[same].iterrows():
            hours = [work.hours(speed) for work in works]
            if math.isnan(sum(hours)):
                continue
            measured += 1
            rows.append(
                {
                    **totals,
                    "device": speed["device"],
                    "hours_per_run": rounded(sum(hours) / len(hours)),
                    "hours": rounded(sum(hours)),
                    "source": speed["source"],
                }
            )
        if not measured:
            rows.append({**totals, "device": "", "hours_per_run": NOT_MEASURED, "hours": NOT_MEASURED, "source": ""})
    return pd.DataFrame(rows)


def rounded(hours: float) -> str:
    """Two significant digits, written as a person writes them."""
    return f"{hours:,.2f}" if hours < 1 else f"{hours:,.1f}" if hours < 10 else f"{float(f'{hours:.2g}'):,.0f}"


def render(table: pd.DataFrame, scale: Mapping[str, Any]) -> str:
    """The table for a person."""
    lines = [f"scale {scale['name']}: {scale['purpose']}"]
    for row in table.to_dict("records"):
        lines.append(
            f"  {row['paper']} {row['framework']}: {row['runs']} run{'s' * (row['runs'] != 1)}, "
            f"{row['env_steps']:,} env steps "
            f"(evaluation included), {row['updates']:,} updates, {row['planned_actions']:,} planned actions, "
            f"{row['policy_actions']:,} of a policy"
        )
        if row["hours"] == NOT_MEASURED:
            lines.append(f"    hours: {NOT_MEASURED} at this scale (no row in {shown(SPEEDS)})")
        else:
            lines.append(
                f"    about {row['hours']} hours one after another ({row['hours_per_run']} per run) on {row['device']}"
                f"; speeds: {row['source']}"
            )
    return "\n".join(lines)


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflows.scripts.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=Path, required=True, help="a scale.yaml")
    scale = read_scale(parser.parse_args(arguments).scale)
    table = cost_table(all_runs(scale), scale, read_speeds())
    folder = ROOT / "results" / scale["name"]
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "cost.csv", index=False)
    print(render(table, scale))


if __name__ == "__main__":
    sys.exit(main())
