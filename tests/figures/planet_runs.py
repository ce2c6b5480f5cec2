"""Synthetic PlaNet runs of another shape than an agent's on one task: one agent on all tasks, and a planner alone."""

from pathlib import Path

import yaml

from shared.results import RunWriter
from tests.figures.conftest import IDENTITY, PROVENANCE

TASKS = ("cartpole_swingup", "reacher_easy", "cheetah_run", "finger_spin", "cup_catch", "walker_walk")


def joint_return(seed: int, evaluation: int, task: int, trial: int) -> float:
    """Tasks lie 100 apart, evaluations 20, seeds 10, trials 1."""
    return 100.0 * task + 20.0 * evaluation + 10.0 * seed + trial


def write_joint_run(
    results: Path,
    *,
    seed: int = 0,
    framework: str = "torch",
    scale: str = "paper",
    rounds: int = 25,
    prefill_rounds: int = 5,
    every: int = 10,
    trials: int = 2,
    tasks: tuple[str, ...] = TASKS,
    joint_tasks: bool = True,
    complete: bool = True,
    returns=joint_return,
) -> Path:
    """One agent whose episodes of 1000 env steps take turns over the tasks, evaluated every `every` rounds of them."""
    identity = {
        **IDENTITY,
        "variant": "joint",
        "framework": framework,
        "scale": scale,
        "task": "all_tasks",
        "seed": seed,
    }
    values = {
        "schedule": {"prefill_env_steps": prefill_rounds * len(tasks) * 1000},
        "evaluation": {"episodes": trials},
    }
    if joint_tasks:
        values["environment"] = {"joint_tasks": list(tasks)}
    writer = RunWriter(
        results / scale / "planet" / framework / "joint" / "all_tasks" / f"seed_{seed}.h5",
        identity=identity,
        config_text=yaml.safe_dump({"paper": "planet", "values": values}),
        overrides=[],
        provenance=PROVENANCE,
        total_env_steps=rounds * len(tasks) * 1000,
    )
    common = {"length": 250, "updates": 0}
    for episode in range(1, rounds * len(tasks) + 1):
        score = 10.0 * ((episode - 1) % len(tasks))  # of task k: 10 k
        steps = episode * 1000
        row = {"env_steps": steps, "agent_steps": steps // 4, "episode": episode, "return": score}
        writer.add("train/episode", **row, **common)
    for evaluation, after in enumerate(range(prefill_rounds, rounds + 1, every)):
        for place in range(trials * len(tasks)):
            score = returns(seed, evaluation, place // trials, place % trials)
            row = {"env_steps": after * len(tasks) * 1000, "episode": place, "return": score}
            writer.add("eval/episode", **row, **common)
    if not complete:
        writer.flush()
        return writer.partial
    writer.finish()
    return writer.path


def write_simulator_run(results: Path, task: str, *, seed: int = 0, variant: str = "simulator", score: float) -> Path:
    """A planner on the true simulator: four test episodes around the score, no training."""
    identity = {**IDENTITY, "variant": variant, "framework": "numpy", "task": task, "seed": seed}
    writer = RunWriter(
        results / "paper" / "planet" / "numpy" / variant / task / f"seed_{seed}.h5",
        identity=identity,
        config_text=yaml.safe_dump({"paper": "planet", "values": {"planner": {"horizon": 12}}}),
        overrides=[],
        provenance=PROVENANCE,
        total_env_steps=0,
    )
    for place, offset in enumerate((-3.0, -1.0, 1.0, 3.0)):
        row = {"env_steps": 0, "episode": place, "return": score + offset, "length": 250, "updates": 0}
        writer.add("eval/episode", **row)
    writer.finish()
    return writer.path
