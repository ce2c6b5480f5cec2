"""Make the published data of DreamerV2's figures from the authors' own score files, small enough to keep.

    python -m workflows.scripts.reference_dreamerv2 --source ../shared/reference

SOURCE holds the scores folders of danijar/dreamerv2 (07d906e) as dreamerv2/ and of danijar/dreamerv3 (8fa35f8) as
dreamerv3_2023/. Written below data/reference, all dreamerv2_*.csv: games (what scores are measured by, as the file has
it), finals (a row per run), curves (mean and deviation over seeds), start (every seed's first frames) and aggregates
(the four averages over games, per frame). dreamerv2_tables.csv, the printed tables, was typed.
"""

import argparse
import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shared.checkpoint import write_whole
from shared.config import ROOT, shown
from shared.errors import UserError, cli
from shared.figures.scores import Anchors, aggregate_curves, value_at

TARGET = ROOT / "data" / "reference"
FOLDERS = "dreamerv2/ and dreamerv3_2023/"
MILLION = 1_000_000
TABLE_FRAMES = 199 * MILLION  # of the paper's table: half of the runs have no later bin
# Ends of bins: every million up to ten, where runs of ours may end; then every five.
GRID = np.array([*range(1, 11), *range(15, 196, 5), 199]) * MILLION
START = 20 * MILLION  # frames for which every seed is kept
DIGITS = 5  # significant, of means and deviations of curves
BASELINES = {"iqn": "iqn_sticky_2e8", "rainbow": "rainbow_sticky_2e8", "c51": "c51_sticky_2e8",
             "dqn": "dqn_sticky_2e8", "simple": "simple_determ_4e5"}  # fmt: skip
DOPAMINE = ("iqn", "rainbow", "c51", "dqn")
SAME_GAME = {"atari_jamesbond": "atari_james_bond"}  # as Dopamine writes it
SLIPPED = "atari_james_bond"  # its row has slipped by a column: the gamer's score stands under an agent's name
SLIPPED_TO = "dqn_determ_2e8"
RUN_SETS = {"dreamerv2": "atari-dreamerv2.json", "schedules": "atari-dreamerv2-schedules.json"}


def runs_of(path: Path, folders: str = FOLDERS) -> pd.DataFrame:
    """A row per run and bin: task, method, seed, env_steps, value (NaN: empty bin). folders: of --source."""
    if not path.is_file():
        raise UserError(f"--source: no file {path}; give a folder with {folders} in it")
    read = gzip.open if path.suffix == ".gz" else open
    with read(path, "rt", encoding="utf-8") as file:
        runs: list[dict[str, Any]] = json.load(file)
    frames = [
        pd.DataFrame({"env_steps": run["xs"], "value": run["ys"]}).assign(
            task=SAME_GAME.get(run["task"], run["task"]), method=run["method"], seed=run["seed"]
        )
        for run in runs
    ]
    return pd.concat(frames, ignore_index=True).astype({"value": float, "env_steps": float})


def games(baselines: dict[str, dict[str, float]], tasks: list[str]) -> pd.DataFrame:
    """A row per game: random, gamer and record, the gamer as the file has it, and final scores of other agents.

    gamer is gamer_in_file but for SLIPPED, where it is the number that stands one column further.
    """
    columns = {"random": "random", "gamer": "human_gamer", "record": "human_record", "gamer_in_file": "human_gamer"}
    rows = [
        {"task": task, **{name: baselines[task].get(key) for name, key in {**columns, **BASELINES}.items()}}
        for task in tasks
    ]
    table = pd.DataFrame(rows)
    row = baselines[SLIPPED]
    if not row["human_gamer"] < row[SLIPPED_TO]:
        raise UserError(
            f"baselines.json: {SLIPPED} has human_gamer {row['human_gamer']} and {SLIPPED_TO} {row[SLIPPED_TO]}; "
            "expected the slipped row, 29.0 and 302.8. If the authors have mended their file, take the repair out here"
        )
    table.loc[table["task"] == SLIPPED, "gamer"] = row[SLIPPED_TO]
    return table


def finals(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per run: its score at TABLE_FRAMES or, if it ended before, its last; and the last it has at all."""
    rows = []
    for (method, task, seed), run in runs.groupby(["method", "task", "seed"]):
        steps, values = run["env_steps"].to_numpy(), run["value"].to_numpy()
        taken = float(steps[steps <= TABLE_FRAMES].max())
        score, last = value_at(steps, values, TABLE_FRAMES), value_at(steps, values, math.inf)
        rows.append((method, task, seed, score, taken, last))
    return pd.DataFrame(rows, columns=["method", "task", "seed", "score", "env_steps", "last"])


def curves(runs: pd.DataFrame, grid: np.ndarray) -> pd.DataFrame:
    """A row per method, task and bin: mean and deviation over the seeds that have it, each averaged over the bin."""
    place = np.searchsorted(grid, runs["env_steps"].to_numpy(), side="left")
    kept = runs[place < len(grid)].assign(env_steps=grid[place[place < len(grid)]]).dropna(subset="value")
    per_seed = kept.groupby(["method", "task", "env_steps", "seed"])["value"].mean()
    table = per_seed.groupby(["method", "task", "env_steps"]).agg(
        mean="mean", std=lambda values: values.std(ddof=0), seeds="size"
    )
    return table.reset_index()


def start(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per game and bin of the first frames, a column per seed."""
    early = runs[(runs["method"] == "dreamerv2") & (runs["env_steps"] <= START)].astype({"seed": int})
    return early.pivot_table(index=["task", "env_steps"], columns="seed", values="value").reset_index()


def aggregates(sets: dict[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """A row per statistic, method and million frames: mean and deviation over seeds of the average over games."""
    grid = np.arange(1, 200) * MILLION
    anchors = Anchors(*(table[name].to_numpy() for name in ("random", "gamer", "record")))
    found = []
    for method, runs in sets.items():
        curve = aggregate_curves(runs.dropna(subset="value"), grid, list(table["task"]), anchors)
        found.append(curve.assign(method=method))
    return pd.concat(found, ignore_index=True)[["statistic", "method", "env_steps", "mean", "std", "seeds"]]


def exact(table: pd.DataFrame) -> bytes:
    """CSV with every digit."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def rounded(table: pd.DataFrame, digits: int = DIGITS) -> bytes:
    """CSV with so many significant digits and whole env steps."""
    table = table.copy()
    if "env_steps" in table:
        table["env_steps"] = table["env_steps"].astype(int)
    return table.to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g").encode()


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflows.scripts.reference_dreamerv2", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with the authors' score files")
    parser.add_argument("--target", type=Path, default=TARGET, help="where to write (default: data/reference)")
    options = parser.parse_args(arguments)
    own, older = options.source / "dreamerv2", options.source / "dreamerv3_2023"
    atari = runs_of(own / RUN_SETS["dreamerv2"])
    schedules = runs_of(own / RUN_SETS["schedules"]).assign(method="schedules")
    dopamine = pd.concat([runs_of(older / f"atari200m_{name}.json.gz") for name in DOPAMINE], ignore_index=True)
    dopamine["env_steps"] += (
        MILLION  # x is where an iteration of a million frames begins; everywhere else it ends there
    )
    tasks = sorted(atari["task"].unique())
    dopamine = dopamine[dopamine["task"].isin(tasks)]
    table = games(json.loads((own / "baselines.json").read_text(encoding="utf-8")), tasks)
    montezuma = runs_of(own / "montezuma-dreamerv2.json").assign(method="montezuma")
    control = runs_of(own / "dmc-vision-dreamerv2.json")
    control = control[control["task"].str.startswith("dmc_")].assign(method="control")
    humanoid = runs_of(own / "humanoid-dreamerv2.json").assign(method="humanoid")
    for runs in (control, humanoid):
        runs["task"] = runs["task"].str.removeprefix("dmc_")
    revenge = dopamine[dopamine["method"].isin(["iqn", "rainbow"]) | (dopamine["task"] == "atari_montezuma_revenge")]
    drawn = pd.concat([atari[atari["method"] == "dreamerv2"], montezuma, revenge], ignore_index=True)
    tables = {
        "games": exact(table),
        "finals": exact(finals(pd.concat([atari, schedules], ignore_index=True))),
        "curves": rounded(
            pd.concat(
                [
                    curves(drawn, GRID),
                    curves(control, np.sort(control["env_steps"].unique())),
                    curves(humanoid, np.sort(humanoid["env_steps"].unique())),
                ],
                ignore_index=True,
            )
        ),
        "start": rounded(start(atari)),
        "aggregates": rounded(
            aggregates(
                {
                    "dreamerv2": atari[atari["method"] == "dreamerv2"],
                    **{name: dopamine[dopamine["method"] == name] for name in DOPAMINE},
                },
                table,
            )
        ),
    }
    for name, data in tables.items():
        path = options.target / f"dreamerv2_{name}.csv"
        write_whole(path, data)
        print(f"{shown(path)}: {len(data.splitlines()) - 1} rows, {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
