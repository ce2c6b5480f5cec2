"""Make the published data of Dreamer's figures from the authors' own files: unchanged numbers, one table each.

    python -m workflows.scripts.reference_dreamer --source ../shared/reference

SOURCE holds the scores folders of danijar/dreamer (56d4d44) and danijar/dreamerv2 (07d906e) as dreamer/ and dreamerv2/.
Written below data/reference: dreamer_tf2_curves.csv and dreamer_lines.csv. The table of Appendix G is in no such file:
dreamer_table_1.csv was typed, and is checked here against the two of its columns that the authors' file has.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from shared.checkpoint import write_whole
from shared.config import ROOT, shown
from shared.errors import UserError, cli

TARGET = ROOT / "data" / "reference"
ORIGIN = "danijar/dreamerv2 @ 07d906e, scores/baselines.json"
LINES = {  # key -> method, env steps: the guide lines of games. A3C, D4PG and PlaNet are in dreamer_table_1.csv.
    "dqn_sticky_2e8": ("DQN, sticky actions", 200_000_000),
    "rainbow_sticky_2e8": ("Rainbow, sticky actions", 200_000_000),
    "simple_determ_4e5": ("SimPLe, no sticky actions", 400_000),
}
CHECKED = {"a3c_100m_proprio": "A3C", "d4pg_100m": "D4PG"}  # key -> column of the typed table
SLIPPED = "atari_james_bond"  # its row in dreamerv2/baselines.json has slipped columns


def task_of(name: str) -> str:
    """Our name of a task: dmc_cup_catch is cup_catch, games keep atari_."""
    return name.removeprefix("dmc_")


def curves(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """A row per run and bin: task, seed, env_steps, return. Empty bins are left out."""
    rows = []
    for run in runs:
        if run["method"] != "dreamer" or len(run["xs"]) != len(run["ys"]):
            raise UserError(f"dreamer.json: a run of {run['method']} with {len(run['xs'])} x, {len(run['ys'])} y")
        pairs = zip(run["xs"], run["ys"], strict=True)
        rows += [(task_of(run["task"]), int(run["seed"]), int(x), y) for x, y in pairs if y is not None]
    return pd.DataFrame(rows, columns=["task", "seed", "env_steps", "return"]).sort_values(
        ["task", "seed", "env_steps"]
    )


def lines(baselines: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A row per method and game: method, input, env_steps, task, score, origin."""
    rows = [
        (method, "pixels", steps, game, scores[key], ORIGIN)
        for key, (method, steps) in LINES.items()
        for game, scores in sorted(baselines.items())
        if key in scores and game != SLIPPED
    ]
    return pd.DataFrame(rows, columns=["method", "input", "env_steps", "task", "score", "origin"])


def check_table(table: pd.DataFrame, baselines: dict[str, dict[str, float]]) -> None:
    """Raise UserError where the typed table differs from the authors' file."""
    scores = table.set_index(["method", "task"])["score"]
    for task, row in baselines.items():
        for key, method in CHECKED.items():
            typed = scores.get((method, task_of(task)), math.nan)
            if not math.isclose(typed, row[key], abs_tol=1e-9):
                raise UserError(
                    f"dreamer_table_1.csv: {method} on {task_of(task)} is {typed}, baselines.json says {row[key]}; "
                    "one of them was mistyped, look at the paper"
                )


def read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"--source: no file {path}; give a folder with dreamer/ and dreamerv2/ in it")
    return json.loads(path.read_text(encoding="utf-8"))


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflows.scripts.reference_dreamer", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with the authors' score files")
    parser.add_argument("--target", type=Path, default=TARGET, help="where to write (default: data/reference)")
    options = parser.parse_args(arguments)
    baselines = {name: read(options.source / name / "baselines.json") for name in ("dreamer", "dreamerv2")}
    check_table(pd.read_csv(TARGET / "dreamer_table_1.csv"), baselines["dreamer"])
    tables = {
        "dreamer_tf2_curves.csv": curves(read(options.source / "dreamer" / "dreamer.json")),
        "dreamer_lines.csv": lines(baselines["dreamerv2"]),
    }
    for name, table in tables.items():
        write_whole(options.target / name, table.to_csv(index=False, lineterminator="\n").encode())
        print(f"{shown(options.target / name)}: {len(table)} rows")


if __name__ == "__main__":
    sys.exit(main())
