"""Env steps per second of dm_control: by renderer (EGL, OSMesa), by rendering setting, and by worker processes.

`python -m benchmarks.environments [--tasks ...] [--seconds 6] [--out FILE.json]`. One process per OpenGL backend,
because dm_control chooses it at import. Method and output: timing.py; what the settings mean: shared/envs/dmc.py.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import timing
from shared.envs import gl
from shared.envs.suite import make_env
from shared.envs.vector import VectorEnv
from shared.errors import UserError, cli

REPEAT = {"cartpole_swingup": 8, "walker_walk": 2}  # PlaNet's action repeats; 4 for its other tasks but finger_spin
SIZE = 64
ENVS = 2  # stepped together where workers are compared


def _plain(task: str, *, draw: bool) -> Callable[[], object]:
    """One decision with dm_control alone: the action repeat, then physics.render (or nothing)."""
    gl.prepare()
    suite = importlib.import_module("dm_control.suite")
    env = suite.load(*task.rsplit("_", 1), task_kwargs={"random": 0})
    generator = np.random.default_rng(0)
    shape, repeat = env.action_spec().shape, REPEAT.get(task, 4)

    def decide() -> None:
        action = generator.uniform(-1, 1, shape)
        for _ in range(repeat):
            env.step(action)
        if draw:
            env.physics.render(SIZE, SIZE, camera_id=0)

    return decide


def _ours(task: str, count: int, workers: int, shadow_size: int | None) -> tuple[Callable[[], object], VectorEnv]:
    """One decision in each of `count` environments of this repository."""
    limits = {"action_repeat": REPEAT.get(task, 4), "time_limit_env_steps": 1000}
    make = functools.partial(make_env, task, size=SIZE, camera=0, shadow_size=shadow_size, **limits)
    envs = VectorEnv(make, count, np.random.SeedSequence(0), workers=workers)
    envs.reset()
    generator = np.random.default_rng(0)
    return lambda: envs.step(generator.uniform(-1, 1, (count, envs.act_spec.size))), envs


def _measure(task: str, seconds: float) -> dict[str, dict[str, float]]:
    """All settings of one task with the backend of this process; rates in env steps per second."""
    functions = {
        "physics only": _plain(task, draw=False),
        "plain physics.render": _plain(task, draw=True),
    }
    settings = {"kept camera": (1, 0, None), "kept camera, shadow 512": (1, 0, 512)}
    for workers in (0, 1, 2):
        settings[f"{ENVS} environments, {workers} workers"] = (ENVS, workers, None)
        settings[f"{ENVS} environments, {workers} workers, shadow 512"] = (ENVS, workers, 512)
    opened = {name: _ours(task, *setting) for name, setting in settings.items()}
    functions |= {name: function for name, (function, _) in opened.items()}
    try:
        times = timing.interleave(functions, seconds)
    finally:
        for _, envs in opened.values():
            envs.close()
    steps = {name: REPEAT.get(task, 4) * settings.get(name, (1,))[0] for name in functions}
    return {name: {"env_steps_per_second": steps[name] / time["median"], **time} for name, time in times.items()}


def _measure_in_child(backend: str, tasks: list[str], seconds: float) -> dict[str, object]:
    """The measurements with one backend, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.environments", "--here", "--seconds", str(seconds), "--tasks", *tasks]
    child = subprocess.run(command, env=os.environ | {"MUJOCO_GL": backend}, capture_output=True, text=True)
    if child.returncode:
        return {"not measured": child.stderr.strip()}
    return json.loads(child.stdout)


@cli
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(REPEAT), help="tasks of dm_control, domain_task")
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each setting, seconds")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--here", action="store_true", help="only measure, with the backend of this process")
    options = parser.parse_args(arguments)
    if options.seconds <= 0:
        raise UserError(f"benchmarks.environments: --seconds {options.seconds} must be positive")
    if options.here:
        print(json.dumps({"renderer": gl.check(), **{task: _measure(task, options.seconds) for task in options.tasks}}))
        return 0
    results = {name: _measure_in_child(name, options.tasks, options.seconds) for name in ("egl", "osmesa")}
    timing.report("environments", results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
