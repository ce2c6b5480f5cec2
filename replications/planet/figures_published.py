"""What is published of PlaNet's figures: tasks, scores of Table 1 and how their lines look, length of episodes.

The numbers are in data/reference/planet_table_1.csv. figures_curves.py and figures_table.py draw them beside ours.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.errors import UserError
from shared.figures.curves import env_steps_per_episode
from shared.figures.panels import Level
from shared.figures.sources import Source

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
PLANET = "PlaNet"
SIMULATOR = "CEM + true simulator"
METHODS = ("A3C", "D4PG", PLANET, SIMULATOR, "Data efficiency over D4PG")
LINES = {"D4PG": "-", "A3C": (0, (4, 1.2, 1, 1.2)), PLANET: (0, (5, 1.5))}  # method -> line in the panels
LINE_COLOR = "#333333"
EPISODE_TICKS = (5, 250, 500, 750, 1000)  # collected training episodes
EPISODE_ENV_STEPS = 1000
EPISODE_LENGTHS = {996, 1000}  # env steps; 996 where an action is repeated six times (cup catch in the older code)


def read_reference(path: Path) -> pd.DataFrame:
    """Published scores, a row per method and task; UserError where a column, method or task is missing.

    Columns REFERENCE_COLUMNS and at_least: the score is printed with a "+". Of the data efficiency, the score is a
    factor: episodes of D4PG per episode of PlaNet.
    """
    frame = pd.read_csv(path)
    if list(frame.columns) != REFERENCE_COLUMNS:
        raise UserError(
            f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(REFERENCE_COLUMNS)}; "
            f"the published numbers are in {REFERENCE}"
        )
    have = set(zip(frame["method"], frame["task"], strict=True))
    missing = [f"{method} on {task}" for method in METHODS for task in TASKS if (method, task) not in have]
    if missing:
        raise UserError(f"{path}: no score for {', '.join(missing)}; restore the file from git")
    printed = frame["score"].astype(str)
    return frame.assign(score=printed.str.removesuffix("+").astype(float), at_least=printed.str.endswith("+"))


def entry(reference: pd.DataFrame, method: str, task: str) -> Mapping[str, object]:
    """The row of one published score."""
    return reference[(reference["method"] == method) & (reference["task"] == task)].iloc[0].to_dict()


def levels(reference: pd.DataFrame, task: str) -> list[Level]:
    """The published scores of one task as horizontal lines."""
    rows = {method: entry(reference, method, task) for method in LINES}
    return [Level(name, float(row["score"]), LINE_COLOR, LINES[name], row["origin"]) for name, row in rows.items()]


def mean_levels(reference: pd.DataFrame) -> list[Level]:
    """The published scores averaged over the six tasks."""
    means = reference[reference["task"].isin(TASKS)].groupby("method")["score"].mean()
    origin = f"mean over six tasks of {origins(reference)}"
    return [Level(name, float(means[name]), LINE_COLOR, LINES[name], origin) for name in LINES]


def origins(reference: pd.DataFrame) -> str:
    """Where the published scores come from, in words."""
    return "; ".join(sorted(reference["origin"].unique()))


def length_note(sources: Sequence[Source]) -> list[str]:
    """A warning where episodes are shorter than published, so that returns cannot reach 1000."""
    known = {round(steps) for steps in map(env_steps_per_episode, sources) if not math.isnan(steps)}
    if known <= EPISODE_LENGTHS:
        return []
    lengths = ", ".join(map(str, sorted(known)))
    return [
        f"Episodes of these runs have {lengths} env steps instead of {EPISODE_ENV_STEPS}, and a return is at most the "
        "number of env steps: published scores are out of reach by construction."
    ]
