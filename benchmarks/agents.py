"""What the benchmarks of agents share: configs of a scale, random experience, and the table of speeds.

Read next: planet.py, dreamer.py.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel

from shared.config import ROOT, build, resolve
from shared.errors import UserError

ACTIONS = 6  # cheetah_run and walker_walk
SCALES = ("smoke", "laptop", "paper")
FRAMEWORKS = ("torch", "jax")
Typed = TypeVar("Typed", bound=BaseModel)


def scale_config(kind: type[Typed], paper: str, variant: str, scale: str) -> Typed:
    """The numbers of one variant at one of the repository's scales."""
    layers = yaml.safe_load((ROOT / "workflows" / "profiles" / scale / "scale.yaml").read_text())
    return build(kind, resolve(paper, variant, layers)["values"], where=f"{paper}, {variant}, scale {scale}")


def rows(*shape: int) -> dict[str, np.ndarray]:
    """Random rows of experience with continuous actions, each (*shape, ...)."""
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (*shape, 64, 64, 3), np.uint8),
        "action": random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32),
        "reward": random.uniform(0, 1, shape).astype(np.float32),
        "is_first": np.zeros(shape, bool),
        "is_last": np.zeros(shape, bool),
        "is_terminal": np.zeros(shape, bool),
    }


def batch(size: int, length: int) -> dict[str, np.ndarray]:
    """What the replay gives an agent to learn from: rows, and the action before each chunk."""
    return {**rows(size, length), "action_before": np.zeros((size, ACTIONS), np.float32)}


def write_speeds(path: Path, paper: str, ours: Iterable[Mapping[str, Any]], where: str, source: str) -> None:
    """Replace one paper's rows of this kind of device in data/speeds.csv; the simulator's speed stays what it was.

    Args:
      ours: framework, scale, ms_per_update and ms_per_planned_action of each new row.
      where: the device in words, "cpu, ..." or "cuda, ...".
    Raises:
      UserError: the file has no row of a scale from which to take the simulator's speed.
    """
    lines = path.read_text().splitlines()
    notes = [line for line in lines if line.startswith("#")]
    table = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    simulator = {row["scale"]: row["env_steps_per_s"] for row in reversed(table) if row["framework"] != "numpy"}
    if missing := set(SCALES) - simulator.keys():
        raise UserError(f"{path}: no row of scale {', '.join(sorted(missing))}; restore it from git")
    device = where.partition(",")[0]
    mine = [
        {
            "paper": paper,
            "framework": row["framework"],
            "device": where,
            "scale": row["scale"],
            "ms_per_update": f"{row['ms_per_update']:.3g}",
            "ms_per_planned_action": f"{row['ms_per_planned_action']:.3g}",
            "env_steps_per_s": simulator[row["scale"]],
            "source": source,
        }
        for row in ours
    ]
    replaced = {(paper, row["framework"], device) for row in mine}
    others = [row for row in table if (row["paper"], row["framework"], row["device"].partition(",")[0]) not in replaced]
    with path.open("w", newline="") as file:
        file.writelines(f"{note}\n" for note in notes)
        writer = csv.DictWriter(file, fieldnames=list(mine[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(others + mine)


def words(device: str, threads: int, full: Mapping[str, Any]) -> str:
    """The device of a report in words, for the table of speeds."""
    hardware, gflops = full["hardware"], full["ceilings"]["matmul_1024"]["gflops"]
    machine = hardware["gpu"] if device == "cuda" else f"{threads} threads on an {hardware['cpu']}"
    return f"{device}, {machine} ({gflops:.0f} GFLOP/s in a 1024^3 product)"
