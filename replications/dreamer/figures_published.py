"""What is published of Dreamer's figures: tasks, the table of Appendix G, curves of the later code, guide lines.

The numbers are data/reference/dreamer_*.csv; data/README.md tells where they come from. The paper's own curves are not
published as numbers; the curves of the TF2 code are, and belong to variant tf2 alone.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.errors import UserError
from shared.figures.binned import seed_means
from shared.figures.curves import env_steps_per_episode
from shared.figures.page import human
from shared.figures.panels import Level, Published
from shared.figures.sources import Source

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference" / "dreamer_table_1.csv"
RELEASED, LINES = "dreamer_tf2_curves.csv", "dreamer_lines.csv"  # beside it
COLUMNS = ["method", "input", "env_steps", "task", "score", "origin"]
TASKS = {  # in the published order
    "acrobot_swingup": "Acrobot Swingup",
    "cartpole_balance": "Cartpole Balance",
    "cartpole_balance_sparse": "Cartpole Balance Sparse",
    "cartpole_swingup": "Cartpole Swingup",
    "cartpole_swingup_sparse": "Cartpole Swingup Sparse",
    "cheetah_run": "Cheetah Run",
    "cup_catch": "Cup Catch",
    "finger_spin": "Finger Spin",
    "finger_turn_easy": "Finger Turn Easy",
    "finger_turn_hard": "Finger Turn Hard",
    "hopper_hop": "Hopper Hop",
    "hopper_stand": "Hopper Stand",
    "pendulum_swingup": "Pendulum Swingup",
    "quadruped_run": "Quadruped Run",
    "quadruped_walk": "Quadruped Walk",
    "reacher_easy": "Reacher Easy",
    "reacher_hard": "Reacher Hard",
    "walker_run": "Walker Run",
    "walker_stand": "Walker Stand",
    "walker_walk": "Walker Walk",
}
GAMES = {
    "atari_boxing": "Boxing",
    "atari_breakout": "Breakout",
    "atari_kung_fu_master": "Kung Fu Master",
    "atari_pong": "Pong",
    "atari_seaquest": "Seaquest",
}
NAMES = {**TASKS, **GAMES}
DREAMER, PLANET, D4PG, A3C = "Dreamer", "PlaNet", "D4PG", "A3C"
LAST_ENV_STEPS = 5_000_000  # of the table's Dreamer and PlaNet
EPISODE_ENV_STEPS = 1000
CURVE_BIN = 100_000  # env steps between two points of a published curve, the first at 5000
FINAL = "test episodes of the last bin of a curve (of 5M env steps those after 4,905,000: ten)"  # make a final score
CURVE_SEEDS = 5
CURVE_ORIGIN = "danijar/dreamer @ 56d4d44, scores/dreamer.json"
CUT = 0.01  # printed averages are cut after two decimals
LEVEL_STYLE = {D4PG: "-", A3C: (0, (4, 1.2, 1, 1.2)), PLANET: (0, (5, 1.5)), DREAMER: (0, (5, 1.5))}
GUIDE_STYLE = dict(zip(("DQN, sticky actions", "Rainbow, sticky actions", "SimPLe, no sticky actions"),
                       ("-", (0, (5, 1.5)), (0, (1, 1.2))), strict=True))  # fmt: skip
LINE_COLOR = "#333333"


@functools.lru_cache(maxsize=4)
def read_table(path: Path) -> pd.DataFrame:
    """Appendix G: a row per method and task, columns COLUMNS; its averages are recomputed, not read.

    Raises:
        UserError: a column or a score is missing, or a printed average is not that of its column.
    """
    frame = pd.read_csv(path)
    if list(frame.columns) != COLUMNS:
        raise UserError(
            f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(COLUMNS)}; the published numbers are in "
            f"{REFERENCE}"
        )
    printed, scores = frame[frame["task"] == "average"], frame[frame["task"] != "average"]
    have = set(zip(scores["method"], scores["task"], strict=True))
    missing = [f"{method} on {task}" for method in (DREAMER, PLANET) for task in TASKS if (method, task) not in have]
    if missing or not {DREAMER, PLANET, D4PG, A3C} <= set(printed["method"]):
        raise UserError(f"{path}: no score for {', '.join(missing) or 'an average'}; restore the file from git")
    computed = scores.groupby("method")["score"].mean()
    for method, average in zip(printed["method"], printed["score"], strict=True):
        if not 0 <= computed[method] + 1e-9 - average < CUT:
            raise UserError(
                f"{path}: the {method} column has the mean {computed[method]:.4f}, printed is {average}; one of the "
                "scores was mistyped, restore the file from git"
            )
    return scores.reset_index(drop=True)


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over its tasks of each method: columns method, score, tasks (20; 18 where the quadruped is missing)."""
    means = table.groupby("method", sort=False)["score"].agg(score="mean", tasks="size")
    return means.reset_index()


def score(table: pd.DataFrame, method: str, task: str) -> float:
    """One published final score; NaN where there is none."""
    found = table[(table["method"] == method) & (table["task"] == task)]
    return float(found["score"].iloc[0]) if len(found) else math.nan


def levels(table: pd.DataFrame, task: str, colors: Mapping[str, str]) -> list[Level]:
    """Published final scores of one task as horizontal lines. colors: method -> colour, in the order of drawing."""
    rows = table[table["task"] == task].set_index("method")
    return [
        Level(method, float(rows.at[method, "score"]), color, LEVEL_STYLE[method], rows.at[method, "origin"])
        for method, color in colors.items()
        if method in rows.index
    ]


def guide_lines(path: Path, task: str) -> list[Level]:
    """Published final scores of other methods on a game."""
    rows = read_lines(path)
    rows = rows[rows["task"] == task].set_index("method")
    return [
        Level(f"{method}, {human(rows.at[method, 'env_steps'])} frames", float(rows.at[method, "score"]), LINE_COLOR,
              style, rows.at[method, "origin"])
        for method, style in GUIDE_STYLE.items()
        if method in rows.index
    ]  # fmt: skip


@functools.lru_cache(maxsize=4)
def read_lines(path: Path) -> pd.DataFrame:
    """Final scores of other methods on games, columns COLUMNS."""
    frame = pd.read_csv(path)
    if list(frame.columns) != COLUMNS:
        raise UserError(f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(COLUMNS)}; restore the file")
    return frame


@functools.lru_cache(maxsize=4)
def read_curves(path: Path) -> pd.DataFrame:
    """The released test returns of the TF2 code: columns task, seed, env_steps, return; a row per run and bin."""
    frame = pd.read_csv(path)
    expected = ["task", "seed", "env_steps", "return"]
    if list(frame.columns) != expected or set(frame["task"]) != set(TASKS):
        raise UserError(f"{path}: expected columns {', '.join(expected)} and 20 tasks; restore the file from git")
    return frame


def released_curve(path: Path, task: str, color: str) -> Published:
    """The released curve of one task: five seeds of the TF2 code, mean and one standard deviation."""
    return Published("Dreamer, TF2 code, released", _released_points(path, task), color, (0, (1, 1)), CURVE_ORIGIN)


@functools.lru_cache(maxsize=32)
def _released_points(path: Path, task: str) -> pd.DataFrame:
    """The points of one released curve: columns of seed_means. Kept for the next figure of a process."""
    rows = read_curves(path)
    rows = rows[rows["task"] == task].assign(episodes=math.nan)
    return seed_means(rows, CURVE_BIN, CURVE_SEEDS)


def length_note(sources: Iterable[Source]) -> list[str]:
    """A warning where control episodes are shorter than published, so that returns cannot reach 1000."""
    control = [source for source in sources if source.task in TASKS]
    known = {round(steps) for steps in map(env_steps_per_episode, control) if not math.isnan(steps)}
    if known <= {EPISODE_ENV_STEPS}:
        return []
    return [
        f"Episodes of these runs have {', '.join(map(str, sorted(known)))} env steps instead of {EPISODE_ENV_STEPS}, "
        "and a return is at most the number of env steps: published scores are out of reach by construction."
    ]


def panel_tasks(tasks: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """The tasks of a figure's panels: its own; where none of them was run, the paper's others that were, too."""
    run = {source.task for source in sources}
    return [*tasks, *(task for task in NAMES if task in run and not run & set(tasks))]


def released_average(path: Path) -> pd.Series:
    """The released curves averaged over runs of a task, then over 20 tasks; by env steps."""
    per_task = read_curves(path).groupby(["task", "env_steps"])["return"].mean()
    return per_task.groupby("env_steps").mean()
