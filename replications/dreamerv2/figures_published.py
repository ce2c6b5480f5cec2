"""What is published of DreamerV2's figures: games, tasks, released runs, printed tables, and the recipes between them.

The numbers are in data/reference/dreamerv2_*.csv, made from the authors' score files by
workflows/scripts/reference_dreamerv2.py. figures_curves.py and figures_scores.py draw them beside ours.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shared.errors import UserError
from shared.figures.panels import Published
from shared.figures.scores import AGGREGATES, Anchors, games_first, seeds_first

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference" / "dreamerv2_games.csv"
FINALS, CURVES, START = "dreamerv2_finals.csv", "dreamerv2_curves.csv", "dreamerv2_start.csv"
AVERAGES, TABLES = "dreamerv2_aggregates.csv", "dreamerv2_tables.csv"
BESIDE = (FINALS, CURVES, START, AVERAGES, TABLES)
COLUMNS = {
    REFERENCE.name: ["task", "random", "gamer", "record", "gamer_in_file", "iqn", "rainbow", "c51", "dqn", "simple"],
    FINALS: ["method", "task", "seed", "score", "env_steps", "last"],
    CURVES: ["method", "task", "env_steps", "mean", "std", "seeds"],
    START: ["task", "env_steps", *map(str, range(3, 11))],
    AVERAGES: ["statistic", "method", "env_steps", "mean", "std", "seeds"],
    TABLES: ["table", "method", *AGGREGATES, "better", "worse", "tied", "origin"],
}
GAMES = 55
JAMES_BOND = "atari_james_bond"
TABLE_FRAMES = 199_000_000  # of the printed tables; a run that ended before counts with its last value
LAST_FRAMES = 200_000_000
START_FRAMES = 20_000_000  # for which every released seed is kept
BIN = 1_000_000  # frames of a released bin
CONTROL_BIN, HUMANOID_BIN = 30_000, 300_000  # env steps
OTHERS = {"iqn": "IQN", "rainbow": "Rainbow", "c51": "C51", "dqn": "DQN"}  # column -> name, as published
TITLES = {
    "gamer_median": "Gamer median",
    "gamer_mean": "Gamer mean",
    "record_mean": "Record mean",
    "clipped_record_mean": "Clipped record mean",
}
CONTROL_TASKS = (
    *("acrobot_swingup", "cartpole_balance", "cartpole_balance_sparse", "cartpole_swingup", "cartpole_swingup_sparse"),
    *("cheetah_run", "cup_catch", "finger_spin", "finger_turn_easy", "finger_turn_hard", "hopper_hop", "hopper_stand"),
    *("pendulum_swingup", "quadruped_run", "quadruped_walk", "reacher_easy", "reacher_hard", "walker_run"),
    *("walker_stand", "walker_walk"),
)
HUMANOID, MONTEZUMA = "humanoid_walk", "atari_montezuma_revenge"
CATCH = "toy_catch"  # ours (shared/envs/catch.py): nothing is published
ORIGIN = "danijar/dreamerv2 @ 07d906e, scores"
DOPAMINE = "Dopamine's sticky-action runs, as danijar/dreamerv3 @ 8fa35f8 keeps them"
SPELLING = {
    "hero": "HERO",
    "qbert": "Q*bert",
    "ms_pacman": "Ms Pacman",
    "up_n_down": "Up n Down",
    "montezuma_revenge": "Montezuma",
}


def read(reference: Path, name: str) -> pd.DataFrame:
    """One published table from the folder of --reference; UserError where its columns are not those expected."""
    return _read(reference.with_name(name))


@functools.lru_cache(maxsize=32)
def _read(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype={"seed": str} if path.name == FINALS else None)
    if list(frame.columns) != COLUMNS[path.name]:
        raise UserError(
            f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(COLUMNS[path.name])}; restore the file "
            "from git, or make it anew with workflows.scripts.reference_dreamerv2"
        )
    return frame


def games(reference: Path) -> pd.DataFrame:
    """The 55 games with what their scores are measured by, in the published order."""
    frame = read(reference, REFERENCE.name)
    if len(frame) != GAMES:
        raise UserError(f"{reference}: {len(frame)} games, expected {GAMES}; restore the file from git")
    return frame


def title(task: str) -> str:
    """A task's name for a panel: atari_james_bond is James Bond."""
    name = task.removeprefix("atari_").removeprefix("toy_")
    return SPELLING.get(name) or name.replace("_", " ").title()


def anchors(table: pd.DataFrame, gamer: str = "gamer") -> Anchors:
    """What the scores of the table's games are measured by. gamer: the column with the repair, or gamer_in_file."""
    return Anchors(*(table[name].to_numpy(dtype=float) for name in ("random", gamer, "record")))


def released(reference: Path, methods: Sequence[str], column: str = "score") -> np.ndarray:
    """Final scores of released runs, (S, 55): seeds of all the methods, games in the published order."""
    frame = read(reference, FINALS)
    frame = frame[frame["method"].isin(methods)]
    wide = frame.pivot(index=["method", "seed"], columns="task", values=column)
    return wide[games(reference)["task"]].to_numpy()


def recipes(reference: Path) -> pd.DataFrame:
    """The four averages of the released runs, by the recipe that gives Table 1 and by others that come to mind.

    A row per agent and recipe: agent, recipe, seeds, the columns of AGGREGATES, and *_std over seeds where they come
    last.
    """
    table = games(reference)
    repaired, slipped = anchors(table), anchors(table, "gamer_in_file")
    paper, schedules = released(reference, ["dreamerv2"]), released(reference, ["schedules"])
    rows = [
        ("DreamerV2", "Table 1's: at 199M or the last before; seeds first", paper, repaired, seeds_first),
        ("DreamerV2 (schedules)", "the same", schedules, repaired, seeds_first),
        ("DreamerV2", "caption of Table K.1: games first", paper, repaired, games_first),
        ("DreamerV2 (schedules)", "caption of Table K.1: games first", schedules, repaired, games_first),
        ("DreamerV2", "James Bond's gamer as in the file, 29.0", paper, slipped, seeds_first),
        ("DreamerV2 (schedules)", "James Bond's gamer as in the file, 29.0", schedules, slipped, seeds_first),
        ("DreamerV2", "last value of every run", released(reference, ["dreamerv2"], "last"), repaired, seeds_first),
        ("DreamerV2", "with the three seeds named nosched", released(reference, ["dreamerv2", "nosched"]), repaired,
         seeds_first),
    ]  # fmt: skip
    found = []
    for agent, recipe, scores, measure, of in rows:
        values = of(scores, measure)
        row = {"agent": agent, "recipe": recipe, "seeds": len(scores)}
        row |= {name: float(np.mean(value)) for name, value in values.items()}
        if of is games_first:
            row |= {f"{name}_std": float(np.std(value)) for name, value in values.items()}
        found.append(row)
    for column, name in OTHERS.items():
        values = seeds_first(table[[column]].to_numpy(dtype=float).T, repaired)
        found.append({"agent": name, "recipe": "final scores of the baselines' file", "seeds": 5, **values})
    return pd.DataFrame(found)


def printed(reference: Path, table: str) -> pd.DataFrame:
    """One printed table: a row per agent, columns of AGGREGATES."""
    frame = read(reference, TABLES)
    return frame[frame["table"] == table].reset_index(drop=True)


def curve(reference: Path, method: str, task: str, name: str, color: str, style: object) -> Published | None:
    """A released curve of one task: mean over seeds and one deviation; None where there is none."""
    frame = read(reference, CURVES)
    frame = frame[(frame["method"] == method) & (frame["task"] == task)]
    return published_curve(frame, name, color, style, ORIGIN if method not in OTHERS else DOPAMINE)


def average_curve(reference: Path, method: str, statistic: str, name: str, color: str, style: object) -> Published:
    """A released curve of one average over games: mean over seeds and one deviation; None where there is none."""
    frame = read(reference, AVERAGES)
    frame = frame[(frame["method"] == method) & (frame["statistic"] == statistic)]
    return published_curve(frame, name, color, style, ORIGIN if method not in OTHERS else DOPAMINE)


def published_curve(frame: pd.DataFrame, name: str, color: str, style: object, origin: str) -> Published | None:
    """Rows with env_steps, mean, std and seeds as points for shared.figures.panels; None without rows."""
    if frame.empty:
        return None
    points = pd.DataFrame(
        {
            "seed": "all",
            "episodes": math.nan,
            "env_steps": frame["env_steps"].astype(float),
            "center": frame["mean"],
            "low": frame["mean"] - frame["std"],
            "high": frame["mean"] + frame["std"],
            "seeds": frame["seeds"],
        }
    )
    return Published(name, points.reset_index(drop=True), color, style, origin)


def start_seeds(reference: Path, task: str, name: str, color: str, style: object, last: float) -> Published | None:
    """Every released seed of a game up to `last` frames: points with their seed, and the mean and deviation of all."""
    frame = read(reference, START)
    frame = frame[(frame["task"] == task) & (frame["env_steps"] <= last)]
    if frame.empty:
        return None
    seeds = frame.set_index("env_steps").drop(columns="task")
    whole = pd.DataFrame(
        {"mean": seeds.mean(axis=1), "std": seeds.std(axis=1, ddof=0), "seeds": seeds.count(axis=1)}
    ).reset_index()
    pooled = published_curve(whole, name, color, style, ORIGIN)
    single = seeds.stack().rename("center").rename_axis(["env_steps", "seed"]).reset_index().assign(seeds=1)
    return Published(name, pd.concat([pooled.points, single], ignore_index=True), color, style, ORIGIN)
