"""A PlaNet configuration so small that a whole run takes seconds, and a run of it in a process of its own."""

import os
from pathlib import Path

import h5py
import numpy as np

from shared.config import ROOT, read_yaml, replace, write_resolved
from tests import nursery

CHANGES = {
    "environment.time_limit_env_steps": 120,
    "model.stoch_size": 4,
    "model.deter_size": 8,
    "model.hidden_size": 8,
    "model.encoder_depth": 2,
    "model.reward_layers": 1,
    "model.reward_units": 8,
    "planner.horizon": 3,
    "planner.iterations": 2,
    "planner.candidates": 10,
    "planner.elites": 3,
    "batch.size": 3,
    "batch.length": 6,
    "replay.chunks_per_refresh": 7,
    "schedule.total_env_steps": 1200,
    "schedule.prefill_env_steps": 240,
    "schedule.learn_every_env_steps": 120,
    "schedule.updates_per_learn": 4,
    "schedule.pretrain_updates": 3,
    "schedule.evaluate_every_env_steps": 360,
    "schedule.checkpoint_every_env_steps": 130,  # no multiple of an episode: checkpoints fall inside episodes
    "evaluation.episodes": 2,
    "video.sequences": 1,
    "video.length": 8,
}


def values(**changes):
    """The paper's values made tiny; further changes by dotted key, dots written as two underscores."""
    tree = read_yaml(ROOT / "replications" / "planet" / "paper.yaml")
    for key, value in {**CHANGES, **{key.replace("__", "."): value for key, value in changes.items()}}.items():
        replace(tree, key, value, where="tests/tiny.py")
    tree["environment"]["action_repeat"] |= {"toy_reach": 4, "toy_terminal": 4}
    return tree


def write_config(path: Path, **changes) -> Path:
    write_resolved(
        path, {"paper": "planet", "variant": "rssm", "scale": "smoke", "overrides": [], "values": values(**changes)}
    )
    return path


def train(
    config: Path,
    out: Path,
    *extra: str,
    die: str = "",
    task: str = "toy_reach",
    seed: int = 3,
    paper: str = "planet",
):
    """One training process. `die` names a moment for tests/die.py; the result has returncode, stdout and stderr."""
    module, start = ("tests.die", [paper, die]) if die else (f"replications.{paper}.train", [])
    named = ["--config", str(config), "--task", task, "--seed", str(seed), "--out", str(out), "--threads", "1"]
    # A run of seconds, before which XLA would think for half a minute.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
    return nursery.child(module, [*start, *named, *extra], {**os.environ, "PYTHONPATH": str(ROOT), **quick})


def content(path: Path) -> dict[str, np.ndarray | str]:
    """Everything a run claims: curves, video and parameters; not its name, the clock or the machine's facts."""
    out: dict[str, np.ndarray | str] = {}
    with h5py.File(path, "r") as file:
        for group in ("train", "eval", "learn", *({"video"} & file.keys())):  # without images there is no video
            file[group].visititems(
                lambda name, node, group=group: (
                    out.update({f"{group}/{name}": node[()]}) if isinstance(node, h5py.Dataset) else None
                )
            )
    out["parameters"] = np.frombuffer(path.with_suffix(".safetensors").read_bytes(), np.uint8)
    return out


def assert_same(got: Path, expected: Path) -> None:
    """Bit by bit; names the first curve and row that differ."""
    one, other = content(got), content(expected)
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=f"{name} differs")
