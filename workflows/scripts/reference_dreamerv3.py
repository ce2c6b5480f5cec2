"""Make the published data of DreamerV3's figures from the authors' own score files, small enough to keep.

    python -m workflows.scripts.reference_dreamerv3 --source ../shared/reference

SOURCE holds the scores folders of danijar/dreamerv3 (e3f0224) as dreamerv3/, of its 2023 state (8fa35f8) as
dreamerv3_2023/, of danijar/dreamerv2 (07d906e) as dreamerv2/, and results/dreamerv3 of nicklashansen/tdmpc2 (e9f5932)
as tdmpc2/. Written below data/reference, all dreamerv3_*.csv: games (what scores are measured by), finals (a row per
run) and curves (mean and deviation over seeds). dreamerv3_tables.csv, printed numbers, was typed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from shared.checkpoint import write_whole
from shared.config import ROOT, shown
from shared.errors import UserError, cli
from workflows.scripts.reference_dreamerv2 import curves, exact, rounded, runs_of

TARGET = ROOT / "data" / "reference"
FOLDERS = "dreamerv2/, dreamerv3/, dreamerv3_2023/ and tdmpc2/"
DIGITS = 4  # significant, of means and deviations of curves
SAME_TASK = {"ball_in_cup_catch": "cup_catch"}
# Where the gamer's scores of DreamerV3's baselines.yaml are not those of DreamerV2's baselines.json: Alien's random
# play, and James Bond, whose row had slipped by a column there.
OTHERWISE = {"atari_alien": {"random": 227.8}, "atari_james_bond": {"random": 29.0, "gamer": 302.8}}
BINS = {"atari": (5_000_000, 200_000_000), "atari100k": (10_000, 400_000), "proprio": (10_000, 500_000),
        "vision": (20_000, 1_000_000)}  # fmt: skip  # suite -> env steps of a bin that is kept, and of the whole axis


class Scores(NamedTuple):
    """One file of published runs: what it is of, and which of its points make a final score."""

    suite: str
    method: str
    file: str
    after: float  # env steps; points beyond them count
    sure: bool = True  # whether that window gives the printed numbers; else it is our choice


FILES = (
    Scores("atari", "dreamerv3-2024", "dreamerv3/atari57-dreamerv3.json.gz", 197_999_999),
    Scores("atari", "ppo", "dreamerv3/atari57-ppo_fixhp.json.gz", 197_999_999),
    Scores("atari", "muzero", "dreamerv3/atari57-muzero.json.gz", np.inf),  # the last point, wherever it lies
    Scores("atari100k", "dreamerv3-2024", "dreamerv3/atari100k-dreamerv3.json.gz", 390_000),
    Scores("atari100k", "ppo", "dreamerv3/atari100k-ppo_fixhp.json.gz", 390_000, sure=False),
    Scores("proprio", "dreamerv3-2023", "dreamerv3/dmc_proprio-dreamerv3.json.gz", 469_999),
    *(
        Scores("proprio", name, f"dreamerv3/dmc_proprio-{file}.json.gz", 450_000, sure=False)
        for name, file in {"ppo": "ppo_fixhp", "ddpg": "ddpg", "dmpo": "dmpo", "d4pg": "d4pg", "mpo": "mpo"}.items()
    ),
    Scores("vision", "dreamerv3-2024", "dreamerv3/dmc_vision-dreamerv3.json.gz", 960_000),
    *(
        Scores("vision", name, f"dreamerv3/dmc_vision-{file}.json.gz", 950_000)
        for name, file in {"ppo": "ppo_fixhp", "sac": "sac", "curl": "curl", "drqv2": "drqv2"}.items()
    ),
    Scores("vision", "dreamerv3-2023", "dreamerv3_2023/dmcvision_dreamerv3.json.gz", 719_999),
)


def published(scores: Scores, source: Path) -> pd.DataFrame:
    """A row per run and point of one file: task, method, seed, env_steps, value; empty bins are left out."""
    runs = runs_of(source / scores.file, FOLDERS).dropna(subset="value")
    task = runs["task"].str.removeprefix("dmc_").replace(SAME_TASK)
    return runs.assign(task=task, method=scores.method)


def finals(runs: pd.DataFrame, after: float) -> pd.DataFrame:
    """A row per run that has a point beyond `after`: the mean of those. after: inf takes the last point of each run."""
    if np.isinf(after):
        kept = runs.loc[runs.groupby(["task", "seed"])["env_steps"].idxmax()]
    else:
        kept = runs[runs["env_steps"] > after]
    found = kept.groupby(["method", "task", "seed"])["value"].mean().rename("score")
    return found.reset_index()


def games(source: Path) -> pd.DataFrame:
    """A row per game of the 57: random play and the gamer."""
    path = source / "dreamerv2" / "baselines.json"
    if not path.is_file():
        raise UserError(f"--source: no file {path}; give a folder with {FOLDERS} in it")
    known = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(published(FILES[0], source)["task"].unique())
    rows = [
        {"task": task, "random": known[task]["random"], "gamer": known[task]["human_gamer"], **OTHERWISE.get(task, {})}
        for task in names
    ]
    return pd.DataFrame(rows)


def independent(source: Path, tasks: list[str], last: float) -> pd.DataFrame:
    """The curves of another group, as published() has rows. Their files are named with hyphens."""
    found = []
    for task in tasks:
        path = source / "tdmpc2" / f"{task.replace('_', '-')}.csv"
        if not path.is_file():
            raise UserError(f"--source: no file {path}; give a folder with {FOLDERS} in it")
        rows = pd.read_csv(path).rename(columns={"step": "env_steps", "reward": "value"})
        found.append(rows[rows["env_steps"] <= last].assign(task=task, method="dreamerv3-tdmpc2"))
    return pd.concat(found, ignore_index=True)


def grid(suite: str) -> np.ndarray:
    """Right borders of the bins that are kept of a suite, the left border of the first one among them."""
    width, last = BINS[suite]
    return np.arange(0, last + 1, width)


def tables(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that is made."""
    yield "games", exact(games(source))
    ends, lines = [], []
    for scores in FILES:
        runs = published(scores, source)
        ends.append(finals(runs, scores.after).assign(suite=scores.suite))
        lines.append(curves(runs, grid(scores.suite)).assign(suite=scores.suite))
        if (scores.suite, scores.method) == ("proprio", "dreamerv3-2023"):
            others = independent(source, sorted(runs["task"].unique()), BINS["proprio"][1])
            lines.append(curves(others, grid("proprio")).assign(suite="proprio"))
    yield "finals", exact(pd.concat(ends, ignore_index=True)[["suite", "method", "task", "seed", "score"]])
    columns = ["suite", "method", "task", "env_steps", "mean", "std", "seeds"]
    yield "curves", rounded(pd.concat(lines, ignore_index=True)[columns], DIGITS)


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflows.scripts.reference_dreamerv3", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with the authors' score files")
    parser.add_argument("--target", type=Path, default=TARGET, help="where to write (default: data/reference)")
    options = parser.parse_args(arguments)
    for name, data in tables(options.source):
        path = options.target / f"dreamerv3_{name}.csv"
        write_whole(path, data)
        print(f"{shown(path)}: {len(data.splitlines()) - 1} rows, {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
