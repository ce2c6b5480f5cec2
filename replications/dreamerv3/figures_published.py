"""What is published of DreamerV3's figures: suites, tasks, curves, final scores, printed numbers, and their recipes.

The numbers are in data/reference/dreamerv3_*.csv, made from the authors' score files by
workflows/scripts/reference_dreamerv3.py. No curve is of the last commit's agent: those of control from vectors are of
the 2023 agent, all others of 2024's. Which one is part of a method's name, here and on every figure.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shared.errors import UserError
from shared.figures.panels import Published
from shared.figures.scores import Anchors, gamer_mean, gamer_median, normalised

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference" / "dreamerv3_games.csv"
FINALS, CURVES, TABLES = "dreamerv3_finals.csv", "dreamerv3_curves.csv", "dreamerv3_tables.csv"
BESIDE = (FINALS, CURVES, TABLES)
COLUMNS = {
    REFERENCE.name: ["task", "random", "gamer"],
    FINALS: ["suite", "method", "task", "seed", "score"],
    CURVES: ["suite", "method", "task", "env_steps", "mean", "std", "seeds"],
    TABLES: ["table", "suite", "method", "statistic", "value", "origin"],
}
ORIGIN = "danijar/dreamerv3 @ e3f0224, scores"
OLDER = "danijar/dreamerv3 @ 8fa35f8, scores/data"
INDEPENDENT = "nicklashansen/tdmpc2 @ e9f5932, results/dreamerv3"
NAMES = {  # method of the files -> name; the agents of DreamerV3 by the state of the code that ran
    "dreamerv3-2024": "DreamerV3, 2024 agent",
    "dreamerv3-2023": "DreamerV3, 2023 agent",
    "dreamerv3-tdmpc2": "DreamerV3, another group",
    "muzero": "MuZero",
    "ppo": "PPO",
    "ddpg": "DDPG",
    "dmpo": "DMPO",
    "d4pg": "D4PG",
    "mpo": "MPO",
    "sac": "SAC",
    "curl": "CURL",
    "drqv2": "DrQ-v2",
}
STATISTICS = {"mean": "mean", "median": "median"}
SPELLING = {
    "hero": "HERO",
    "qbert": "Q*bert",
    "ms_pacman": "Ms Pacman",
    "up_n_down": "Up n Down",
    "montezuma_revenge": "Montezuma",
    "crafter_reward": "Crafter",
    "cartpole_balance_sparse": "Cartpole Balance Sp.",
    "cartpole_swingup_sparse": "Cartpole Swingup Sp.",
}


@dataclass(frozen=True)
class Suite:
    """A benchmark of the paper: its published agent, our variants of it and of the last commit's, its budget."""

    name: str  # in the files
    title: str
    published: str  # method of the files whose agent made the published curve; "" where our source has no number
    variant: str  # ours of the same agent
    last_commit: str  # ours of the last commit's
    others: Sequence[str]
    env_steps: int
    bin: int  # env steps that one kept point stands for
    window: int  # env steps before the end whose training episodes make our final score
    games: bool = False

    @property
    def words(self) -> str:
        """The title within a sentence."""
        return self.title if self.games else self.title[0].lower() + self.title[1:]


SUITES = {
    "atari": Suite(
        *("atari", "Atari, 57 games", "dreamerv3-2024", "atari-2024", "atari", ("ppo", "muzero")),
        *(200_000_000, 5_000_000, 2_000_000, True),
    ),
    "atari100k": Suite(
        *("atari100k", "Atari100k, 26 games", "dreamerv3-2024", "atari100k-2024", "atari100k", ("ppo",)),
        *(400_000, 10_000, 10_000, True),
    ),
    "proprio": Suite(
        *("proprio", "Control from vectors, 18 tasks", "dreamerv3-2023", "proprio-2023", "dreamerv3"),
        *(("ppo", "ddpg", "dmpo", "d4pg", "mpo"), 500_000, 10_000, 30_000),
    ),
    "vision": Suite(
        *("vision", "Control from pixels, 20 tasks", "dreamerv3-2024", "vision-2024", "vision"),
        *(("ppo", "sac", "curl", "drqv2"), 1_000_000, 20_000, 40_000),
    ),
}
CRAFTER = Suite("crafter", "Crafter", "", "crafter", "crafter", (), 1_000_000, 20_000, 0)  # nothing is published


def read(reference: Path, name: str) -> pd.DataFrame:
    """One published table from the folder of --reference; UserError where its columns are not those expected."""
    return _read(reference.with_name(name))


@functools.lru_cache(maxsize=32)
def _read(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path)
    if list(frame.columns) != COLUMNS[path.name]:
        raise UserError(
            f"{path}: columns {', '.join(frame.columns)}, expected {', '.join(COLUMNS[path.name])}; restore the file "
            "from git, or make it anew with workflows.scripts.reference_dreamerv3"
        )
    return frame


def tasks_of(reference: Path, suite: str) -> list[str]:
    """The tasks of a suite, sorted: those that its published agent was run on."""
    frame = read(reference, FINALS)
    return sorted(frame.loc[(frame["suite"] == suite) & (frame["method"] == SUITES[suite].published), "task"].unique())


def anchors(reference: Path, tasks: Sequence[str]) -> Anchors:
    """Random play and the gamer of some games."""
    table = read(reference, REFERENCE.name).set_index("task")
    missing = [task for task in tasks if task not in table.index]
    if missing:
        raise UserError(f"{reference}: no row for {', '.join(missing)}; restore the file from git")
    return Anchors(*(table.loc[list(tasks), name].to_numpy(dtype=float) for name in ("random", "gamer")))


def statistic(reference: Path, suite: str, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Mean or median over the tasks of a suite: (..., K) -> (...). Of games: of gamer-normalised scores, percent."""
    if SUITES[suite].games:
        measure = anchors(reference, tasks_of(reference, suite))
        of = {"mean": gamer_mean, "median": gamer_median}[name]
        return lambda scores: 100 * of(scores, measure)
    of = {"mean": np.mean, "median": np.median}[name]
    return lambda scores: of(scores, axis=-1)


def finals(reference: Path, suite: str, method: str) -> pd.DataFrame:
    """Final scores of released runs: a row per task, in the order of tasks_of: mean, std (population) and seeds."""
    frame = read(reference, FINALS)
    frame = frame[(frame["suite"] == suite) & (frame["method"] == method)]
    table = frame.groupby("task")["score"].agg(mean="mean", std=lambda values: values.std(ddof=0), seeds="size")
    return table.reindex(tasks_of(reference, suite))


def recomputed(reference: Path) -> pd.DataFrame:
    """Mean and median over tasks of every suite and method with final scores, seeds averaged first, beside the printed.

    Columns: suite, method, tasks, seeds (fewest and most of a task), mean, median, printed_mean, printed_median (NaN
    where our source does not have them).
    """
    printed = read(reference, TABLES).pivot(index=["suite", "method"], columns="statistic", values="value")
    rows = []
    for suite in SUITES.values():
        released = [suite.published, *suite.others, *(["dreamerv3-2023"] if suite.name == "vision" else [])]
        for method in released:
            table = finals(reference, suite.name, method)
            scores = table["mean"].to_numpy()
            row = {"suite": suite.name, "method": method, "tasks": len(table), "seeds": _counts(table["seeds"])}
            for name in STATISTICS:
                row[name] = float(statistic(reference, suite.name, name)(scores))
            for name in STATISTICS:
                known = (suite.name, method) in printed.index
                row[f"printed_{name}"] = printed.at[(suite.name, method), name] if known else math.nan
            rows.append(row)
    return pd.DataFrame(rows)


def printed_elsewhere(reference: Path) -> pd.DataFrame:
    """What is printed of benchmarks that are out of scope here: rows of TABLES."""
    frame = read(reference, TABLES)
    return frame[~frame["suite"].isin(SUITES)].reset_index(drop=True)


def percent(reference: Path, task: str, score: float) -> float:
    """A game's score, percent of the gamer's."""
    measure = anchors(reference, [task])
    return float(100 * normalised(np.array([score]), measure.random, measure.gamer)[0])


def title(task: str) -> str:
    """A task's name for a panel: atari_james_bond is James Bond."""
    name = task.removeprefix("atari_")
    return SPELLING.get(name) or name.replace("_", " ").title()


def curve(reference: Path, suite: str, method: str, task: str, color: str, style: object) -> Published | None:
    """A released curve of one task: mean over seeds and one deviation; None where there is none."""
    frame = read(reference, CURVES)
    frame = frame[(frame["suite"] == suite) & (frame["method"] == method) & (frame["task"] == task)]
    return _published(frame, suite, method, color, style)


def average_curve(reference: Path, suite: str, method: str, name: str, color: str, style: object) -> Published | None:
    """A released curve of the mean or median over a suite's tasks, made of the tasks' mean curves; without a band.

    A task without a value in a bin counts with its last one before.
    """
    frame = read(reference, CURVES)
    frame = frame[(frame["suite"] == suite) & (frame["method"] == method)]
    tasks = tasks_of(reference, suite)
    if set(frame["task"]) < set(tasks):
        return None
    wide = frame.pivot(index="env_steps", columns="task", values="mean")[tasks].ffill().dropna()
    seeds = int(frame["seeds"].max())
    found = pd.DataFrame(
        {"env_steps": wide.index, "mean": statistic(reference, suite, name)(wide.to_numpy()), "seeds": seeds}
    )
    return _published(found.assign(std=np.nan), suite, method, color, style)


def _published(frame: pd.DataFrame, suite: str, method: str, color: str, style: object) -> Published | None:
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
    return Published(f"{NAMES[method]}, released", points.reset_index(drop=True), color, style, origin(suite, method))


def origin(suite: str, method: str) -> str:
    """Where the numbers of a method come from."""
    if method == "dreamerv3-tdmpc2":
        return INDEPENDENT
    return OLDER if (suite, method) == ("vision", "dreamerv3-2023") else ORIGIN


def _counts(seeds: pd.Series) -> str:
    low, high = int(seeds.min()), int(seeds.max())
    return str(low) if low == high else f"{low}–{high}"
