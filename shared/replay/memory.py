"""What of a replay is held in RAM: what fits, computed and told before a run, never found out by the kernel's killer.

Rows that are not held are read from their files, which costs time and changes no number. Read buffer.py first.
"""

import os
import shutil
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.replay.columns import Columns
from shared.replay.storage import EpisodeFolder, Part

SHARE = 0.5  # ours: of the memory that is free at the start; the rest is for the learner and for other runs
RESERVE_BYTES = 2 * 10**9  # ours: where less is free, no more is held; another run may have grown since the start


class EpisodeMemory:
    """The most recently used episodes in RAM, at most `limit` rows."""

    def __init__(self, limit: int):
        self.limit = limit
        self.rows = 0
        self._episodes: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    def add(self, episode: int, columns: dict[str, np.ndarray]) -> None:
        self.shrink(free_bytes())
        self._episodes[episode] = columns
        self.rows += len(columns["reward"])
        while self.rows > self.limit:
            self.discard(next(iter(self._episodes)))

    def get(self, episode: int) -> dict[str, np.ndarray] | None:
        if episode in self._episodes:
            self._episodes.move_to_end(episode)
        return self._episodes.get(episode)

    def discard(self, episode: int) -> None:
        columns = self._episodes.pop(episode, None)
        self.rows -= 0 if columns is None else len(columns["reward"])

    def has_room(self, rows: int) -> bool:
        """Whether an old episode may come in without driving another out (draws are uniform: that would only churn)."""
        return self.rows + rows <= self.limit

    def shrink(self, free: float) -> None:
        """Hold no more than now from here on, if the machine has come to the end of its memory."""
        if free < RESERVE_BYTES:
            self.limit = min(self.limit, self.rows)

    def clear(self) -> None:
        self._episodes.clear()
        self.rows = 0


def read(
    held: EpisodeMemory, folder: EpisodeFolder, episode: int, rows: int, columns: Columns, parts: Iterable[Part]
) -> None:
    """Fill each part with rows of one episode of so many rows: from memory, else from its file.

    An old episode comes into memory where it has room; otherwise only what is asked for is read.
    """
    there = held.get(episode)
    if there is None and held.has_room(rows):
        there = {key: np.empty((rows, *shape), dtype) for key, (dtype, shape) in columns.items()}
        folder.read(episode, [(key, 0, column) for key, column in there.items()])
        held.add(episode, there)
    if there is None:
        folder.read(episode, parts)
    else:
        for key, first, target in parts:
            target[...] = there[key][first : first + len(target)]


def rows_that_fit(rows: int, row_bytes: int, free: float) -> int:
    """How many of `rows` rows may be held in RAM when so many bytes of it are free."""
    return rows if rows * row_bytes <= SHARE * free else int(SHARE * free) // row_bytes


def told(rows: int, row_bytes: int, held: int, free: float) -> str:
    """One sentence for a person: what the replay may come to, and what of it is in RAM."""
    room = "nobody tells how much memory is free" if free == np.inf else f"{size(free)} of memory are free, half for it"
    what = "all" if held >= rows else f"{held:,}"
    rest = "" if held >= rows else "; the rest is read from disk, which takes longer and changes no number"
    return (
        f"replay: up to {rows:,} rows of {row_bytes:,} bytes, {size(rows * row_bytes)}; {room}: {what} of them stay in "
        f"memory{rest}"
    )


def check_disk(folder: Path, needed: int) -> None:
    """Raise UserError if the disk has no room for so many bytes of episodes, those already there included."""
    there = sum(path.stat().st_size for path in folder.glob("*.h5"))
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    if needed > there + free:
        raise UserError(
            f"replay: the episodes of this run come to {size(needed)}, and the disk of {nearest} has "
            f"{size(there + free)} for them; free some space, choose an --out on a larger disk, or lower "
            "replay.capacity_rows in the config"
        )


def size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def free_bytes(root: Path = Path("/")) -> float:
    """Memory that may still be taken, infinite where nobody tells: the machine's, or the least of its control groups'.

    What is only a copy of files counts as free: the kernel lets go of it. root: where /proc and /sys lie.
    """
    return min(_machine_bytes(root), *(_group_bytes(folder) for folder in _groups(root)), np.inf)


def _machine_bytes(root: Path) -> float:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return float(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))  # all there is
    except (OSError, ValueError, AttributeError):
        return np.inf


def _groups(root: Path) -> list[Path]:
    """The folders that tell the limits of this process: its control group and those above it, version 1 or 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mount = root / "sys/fs/cgroup" / controllers
            own = mount / path.strip("/")
            folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(mount)]
    return folders


def _group_bytes(folder: Path) -> float:
    """What one control group leaves: its limit, less what is used and cannot be let go of."""
    for limit_file, used_file in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            limit, used = (folder / limit_file).read_text().strip(), int((folder / used_file).read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit == "max":
            return np.inf
        files = sum(int(facts.get(name, 0)) for name in ("inactive_file", "active_file"))
        total = sum(int(facts.get(f"total_{name}", 0)) for name in ("inactive_file", "active_file"))
        return max(float(int(limit) - used + max(files, total)), 0.0)
    return np.inf
