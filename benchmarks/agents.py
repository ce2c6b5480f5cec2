"""What the benchmarks of agents share: configs of a scale, random experience, the command line, the table of speeds.

Read next: planet.py, dreamer.py, dreamerv2.py, dreamerv3.py.
"""

import argparse
import csv
import datetime
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel

from benchmarks.timing import compare, report
from shared import device_jax, device_torch
from shared.config import ROOT, build, resolve
from shared.envs.spec import ActSpec
from shared.errors import UserError

ACTIONS = 6  # cheetah_run and walker_walk
CONTROL = ActSpec(ACTIONS)
SCALES = ("smoke", "laptop", "paper")
FRAMEWORKS = ("torch", "jax")
OWN_SPEEDS = dict(zip(SCALES, SCALES, strict=True))
SPEEDS_IN_MS = ("ms_per_update", "ms_per_planned_action", "ms_per_policy_action")  # columns of data/speeds.csv
POLICY = {"ms_per_policy_action": "act"}
PLANNED = {"ms_per_planned_action": "act"}
Typed = TypeVar("Typed", bound=BaseModel)
Functions = dict[str, Callable[[], object]]


def scale_config(kind: type[Typed], paper: str, variant: str, scale: str) -> Typed:
    """The numbers of one variant at one of the repository's scales."""
    layers = yaml.safe_load((ROOT / "workflows" / "profiles" / scale / "scale.yaml").read_text())
    return build(kind, resolve(paper, variant, layers)["values"], where=f"{paper}, {variant}, scale {scale}")


def rows(*shape: int, spec: ActSpec = CONTROL, channels: int = 3) -> dict[str, np.ndarray]:
    """Random rows of experience, each (*shape, ...)."""
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (*shape, 64, 64, channels), np.uint8),
        "action": actions(random, *shape, spec=spec),
        "reward": random.uniform(0, 1, shape).astype(np.float32),
        "is_first": np.zeros(shape, bool),
        "is_last": np.zeros(shape, bool),
        "is_terminal": np.zeros(shape, bool),
    }


def actions(random: np.random.Generator, *shape: int, spec: ActSpec) -> np.ndarray:
    """Random actions, (*shape, A)."""
    if spec.discrete:
        return np.eye(spec.size, dtype=np.float32)[random.integers(spec.size, size=shape)]
    return random.uniform(-1, 1, (*shape, spec.size)).astype(np.float32)


def batch(size: int, length: int, *, spec: ActSpec = CONTROL, channels: int = 3) -> dict[str, np.ndarray]:
    """What the replay gives an agent to learn from: rows, and the action before each chunk."""
    before = np.zeros((size, spec.size), np.float32)
    return {**rows(size, length, spec=spec, channels=channels), "action_before": before}


def acting(agent: Any, obs: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """One decision for one environment. It ends with a copy to NumPy, so it waits for the device."""
    carry = agent.initial_carry(1)
    return lambda: agent.act(obs, carry, explore=True)


def learning(agent: Any, chunks: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """One update, until the loss is there."""
    return lambda: agent.learn(chunks).metrics["loss"].item()


def in_turns(functions: Mapping[str, Functions], seconds: float) -> dict[str, dict[str, object]]:
    """What is measured -> {"torch": times, "jax": times, "torch_over_jax": the ratio of their rounds}.

    functions: framework -> what is measured -> what to call.
    """
    results: dict[str, dict[str, object]] = {}
    for what in functions[FRAMEWORKS[0]]:
        pair = {framework: functions[framework][what] for framework in FRAMEWORKS}
        times, ratios = compare(pair, {"torch_over_jax": FRAMEWORKS}, seconds)
        results[what] = {**times, **ratios}
    return results


Measure = Callable[[str, float, tuple[str, ...]], Mapping[str, Mapping[str, object]]]


def run(
    paper: str,
    arguments: list[str],
    summary: str,
    settings: Iterable[str],
    measure: Measure,
    speeds_of: Mapping[str, str] = OWN_SPEEDS,
    actions_of: Mapping[str, str] = POLICY,
) -> None:
    """The command line of an agent's benchmark.

    Args:
      settings: every setting there is: SCALES, and those at which peers were measured.
      measure: device, seconds per function, settings to measure -> update_laptop, act_laptop and so on -> times.
      speeds_of: scale -> the setting whose times are its row of the table of speeds; other scales have no row.
      actions_of: the table's columns of actions -> what was measured for them; others stay empty.
    """
    settings, needed = tuple(settings), speeds_of.values()
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{paper}", description=summary)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument(
        "--speeds", type=Path, help=f"also renew this paper's rows of this table; needs {', '.join(needed)}"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="per function")
    parser.add_argument("--scales", nargs="+", default=settings, choices=settings)
    options = parser.parse_args(arguments)
    if options.speeds and not set(needed) <= set(options.scales):
        raise UserError(f"--speeds needs --scales {' '.join(needed)} among others; leave --scales out, or --speeds")
    device = device_torch.prepare(options.device, options.threads)
    device_jax.prepare(device, options.threads)  # the same device, or an error
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"threads": options.threads, **measure(device, options.seconds, tuple(options.scales))}
    full = report(paper, results, options.out, device=device)
    if options.speeds:
        source = f"{options.out or f'benchmarks/{paper}.py'} and environments.json, {datetime.date.today()}"
        where = words(device, options.threads, full)
        write_speeds(options.speeds, paper, speeds(full["results"], speeds_of, actions_of), where, source)


def speeds(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    speeds_of: Mapping[str, str],
    actions_of: Mapping[str, str],
) -> list[dict[str, object]]:
    """One paper's rows of data/speeds.csv: framework, scale and what was measured; speeds_of, actions_of as for run."""
    columns = {"ms_per_update": "update", **actions_of}
    return [
        {
            "framework": framework,
            "scale": scale,
            **{column: 1000 * results[f"{what}_{setting}"][framework]["median"] for column, what in columns.items()},
        }
        for framework in FRAMEWORKS
        for scale, setting in speeds_of.items()
    ]


def write_speeds(path: Path, paper: str, ours: Iterable[Mapping[str, Any]], where: str, source: str) -> None:
    """Replace one paper's rows of this kind of device in data/speeds.csv; the simulator's speed stays what it was.

    Args:
      ours: framework, scale, ms_per_update and ms_per_planned_action or ms_per_policy_action of each new row.
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
            **{column: f"{row[column]:.3g}" if column in row else "" for column in SPEEDS_IN_MS},
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
