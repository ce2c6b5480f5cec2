"""A DreamerV3 agent alone in its process: seconds from the start until it learns, seconds per update, peak of memory.

    python -m benchmarks.start torch cpu 2 JOB        (dreamerv3.py writes the folder JOB and reads what is printed)

It imports one framework alone, as a training run does. Read dreamerv3.py first.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.timing import GROUP_SECONDS, MIB, summary, watched
from replications.dreamerv3.config import Config
from shared.config import ROOT
from shared.envs.spec import ActSpec, ArraySpec

SECONDS, LEAST = 3.0, 3  # updates go on for so long, and at least for so many groups


def starts(framework: str, config: Config, batch: Mapping[str, np.ndarray], device: str, threads: int) -> dict:
    """Two starts of one process after the other: the first with an empty compilation cache, the second with its.

    torch keeps nothing between starts; its second one tells how much disk and page cache matter.

    Args:
      config: of the agent. batch: what it learns from; of its observations those whose names are not an agent's own.
    Returns:
      "first" and "second" -> seconds since the process was started: "imported", "made", "acted", "ready" (an update is
      done); "first_update": seconds of the first, in which JAX compiles; "update": of later ones, as timing.interleave
      gives them; "peak_memory_mib"; "clean": 1 if other processes left the machine alone all the time, else 0;
      "groups": 1.
    """
    found = {}
    with TemporaryDirectory() as folder:
        job, cache = Path(folder, "job"), Path(folder, "cache")
        job.mkdir()
        (job / "config.json").write_text(config.model_dump_json(by_alias=True))
        np.savez(job / "batch.npz", **batch)
        # A folder of the user's own is what device_jax.keep_compiled leaves alone; it keeps all programs, as ours does.
        kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        command = [sys.executable, "-m", "benchmarks.start", framework, device, str(threads), str(job)]
        for name in ("first", "second"):
            began, printed = time.time(), []

            def start(printed=printed) -> None:
                printed.append(subprocess.check_output(command, cwd=ROOT, env={**os.environ, **kept}, text=True))

            _, clean = watched(start)
            told = json.loads(printed[0])
            since = {what: moment - began for what, moment in told.pop("moments").items()}
            found[name] = {**since, **told, "groups": 1, "clean": int(clean)}
    return found


def main(framework: str, device: str, threads: int, job: Path) -> None:
    """Import, make, act, learn; print the moments of the clock, the seconds of updates and the peak of memory."""
    moments = {}
    if framework == "torch":
        from replications.dreamerv3 import agent_torch as module
    else:
        from replications.dreamerv3 import agent_jax as module
    device = module.prepare(device, threads)
    moments["imported"] = time.time()
    config = Config.model_validate_json((job / "config.json").read_text())
    with np.load(job / "batch.npz") as file:
        batch = dict(file)
    observed = {name: batch[name] for name in batch if name in ("image", "vector")}
    obs_spec = {name: ArraySpec(x.shape[2:], str(x.dtype)) for name, x in observed.items()}
    act_spec = ActSpec(batch["action"].shape[-1])
    agent = module.DreamerV3Agent(config, obs_spec, act_spec, seed=np.random.SeedSequence(0), device=device)
    moments["made"] = time.time()
    rows = {name: batch[name][:1, 0] for name in (*observed, "is_first")}
    agent.act(rows, agent.initial_carry(1), explore=True)
    moments["acted"] = time.time()

    def update() -> None:
        agent.learn(batch).metrics["loss"].item()

    first_update, _ = watched(update)
    moments["ready"] = time.time()
    second, _ = watched(update)
    began, groups = time.perf_counter(), []
    while len(groups) < LEAST or time.perf_counter() - began < SECONDS:
        groups.append(watched(update, max(1, round(GROUP_SECONDS / second))))
    found = {"first_update": first_update, "update": summary(groups), "peak_memory_mib": peak_memory_mib()}
    print(json.dumps({"moments": moments, **found}))


def peak_memory_mib() -> float:
    """Largest resident memory of this program; getrusage would count that of the process which started it, too."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / MIB


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
