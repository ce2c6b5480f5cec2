"""Replay: chunks per second from RAM and from disk, against the memcpy of the same bytes; and what storing costs.

`python -m benchmarks.replay [--episodes 60] [--rows 251] [--seconds 4] [--out FILE.json]`. Disk means the operating
system's page cache where it fits. Method and output: timing.py; what is measured: shared/replay/buffer.py.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from benchmarks import timing
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError, cli
from shared.replay.buffer import Replay

BATCH, LENGTH = 50, 50  # PlaNet's
OBS = {"image": ArraySpec((64, 64, 3), "uint8")}
ACT = ActSpec(6)


def open_replay(folder: Path, memory_rows: int) -> Replay:
    return Replay(
        folder,
        OBS,
        ACT,
        seed=np.random.SeedSequence(0),
        older=500,
        recent=500,
        chunks_per_refresh=1000,
        capacity_rows=None,
        memory_rows=memory_rows,
    )


def append_episode(replay: Replay, rows: int) -> None:
    """One episode of one environment, written to disk at its end."""
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    for row in range(rows):
        last = np.array([row == rows - 1])
        replay.append(
            {
                "image": image,
                "reward": np.zeros(1, np.float32),
                "action": np.zeros((1, ACT.size), np.float32),
                "is_first": np.array([row == 0]),
                "is_last": last,
                "is_terminal": np.array([False]),
            }
        )


def through_h5py(folder: Path, episodes: int, rows: int) -> dict[str, np.ndarray]:
    """The same chunks read with h5py alone: what a reader without byte offsets pays."""
    rng = np.random.default_rng(0)
    batch = {"image": np.empty((BATCH, LENGTH, 64, 64, 3), np.uint8)}
    batch["action"] = np.empty((BATCH, LENGTH, ACT.size), np.float32)
    batch |= {key: np.empty((BATCH, LENGTH), bool) for key in ("is_first", "is_last", "is_terminal")}
    batch["reward"] = np.empty((BATCH, LENGTH), np.float32)
    for index in range(BATCH):
        first = int(rng.integers(rows - LENGTH + 1))
        with h5py.File(folder / f"episode_{rng.integers(episodes):08d}.h5", "r") as file:
            for key, column in batch.items():
                file[key].read_direct(column, np.s_[first : first + LENGTH], np.s_[index])
    return batch


def measure(folder: Path, episodes: int, rows: int, seconds: float) -> dict[str, object]:
    replay = open_replay(folder / "replay", 10**9)
    for _ in range(episodes):
        append_episode(replay, rows)
    from_disk = open_replay(folder / "replay", 0)
    state = replay.save()
    from_disk.load(state)
    other = open_replay(folder / "other", 0)
    source, target = (np.ones((BATCH, LENGTH, 64, 64, 3), np.uint8) for _ in range(2))
    times = timing.interleave(
        {
            "memcpy of the images": lambda: np.copyto(target, source),
            "sample from RAM": lambda: replay.sample(BATCH, LENGTH),
            "sample from disk": lambda: from_disk.sample(BATCH, LENGTH),
            "the same chunks with h5py": lambda: through_h5py(folder / "replay", episodes, rows),
            f"append an episode of {rows} rows": lambda: append_episode(other, rows),
            f"load (verify {episodes} episodes)": lambda: from_disk.load(state),
        },
        seconds,
    )
    memcpy = times["memcpy of the images"]["median"]
    for name in ("sample from RAM", "sample from disk", "the same chunks with h5py"):
        median = times[name]["median"]
        times[name] |= {
            "chunks_per_second": BATCH / median,
            "rows_per_second": BATCH * LENGTH / median,
            "times_memcpy": median / memcpy,
        }
    stored = sum(path.stat().st_size for path in (folder / "replay").iterdir())
    return {"batch": [BATCH, LENGTH], "episodes": episodes, "rows_per_episode": rows, "bytes_on_disk": stored, **times}


@cli
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=60, help="episodes stored; 60 of 251 rows are 185 MB")
    parser.add_argument("--rows", type=int, default=251, help="rows per episode; 251 at action repeat 4")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each setting, seconds")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args(arguments)
    if options.rows < LENGTH or options.episodes < 1 or options.seconds <= 0:
        raise UserError(f"benchmarks.replay: needs --rows of at least {LENGTH}, --episodes and --seconds above 0")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        results = measure(Path(folder), options.episodes, options.rows, options.seconds)
    timing.report("replay", results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
