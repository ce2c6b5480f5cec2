"""Episodes on disk: one HDF5 file per episode, whole or absent, and slices read straight from it.

Each column is one contiguous, uncompressed dataset, so rows [a, b) are one run of bytes: HDF5 is asked once where a
column starts, then a slice is one pread (15 times faster than reading it through h5py). Read buffer.py next.
"""

import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from shared.checkpoint import hdf5_image, remove_leftovers, write_whole
from shared.errors import UserError

Part = tuple[str, int, np.ndarray]  # column, first row, C-contiguous array (rows, ...) to fill


@dataclass(frozen=True)
class EpisodeFile:
    """What a checkpoint knows of an episode file, enough to recognise it."""

    rows: int
    size: int  # bytes
    crc32: int


class EpisodeFolder:
    """The episode files `episode_<number>.h5` of one replay memory; with another kind, `<kind>_<number>.h5`."""

    def __init__(self, folder: Path, kind: str = "episode"):
        self.folder, self.kind = Path(folder), kind
        self._starts: dict[int, dict[str, int]] = {}  # episode -> column -> byte offset in its file

    def path(self, episode: int) -> Path:
        return self.folder / f"{self.kind}_{episode:08d}.h5"

    def write(self, episode: int, columns: Mapping[str, np.ndarray]) -> EpisodeFile:
        """Write one complete episode, columns (rows, ...), atomically."""

        def fill(file: h5py.File) -> None:
            for key, column in columns.items():
                file.create_dataset(key, data=column)

        data = hdf5_image(fill)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path(episode), data)
        self._starts.pop(episode, None)
        rows = len(next(iter(columns.values())))
        return EpisodeFile(rows=rows, size=len(data), crc32=zlib.crc32(data))

    def verify(self, episode: int, expected: EpisodeFile) -> None:
        """Raise UserError unless the file is there with the expected size and checksum.

        Any other OSError passes: a disk that does not answer now is no damaged file.
        """
        path = self.path(episode)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"replay: {self.kind} file {path} is missing; {WAY_OUT}") from None
        if len(data) != expected.size:
            raise UserError(
                f"replay: {self.kind} file {path} has {len(data)} bytes, expected {expected.size}; {WAY_OUT}"
            )
        if zlib.crc32(data) != expected.crc32:
            raise UserError(f"replay: {self.kind} file {path} is damaged (its crc32 differs); {WAY_OUT}")

    def read(self, episode: int, parts: Iterable[Part]) -> None:
        """Fill each part with consecutive rows of a column.

        Raises:
            UserError: the file is missing, truncated or not HDF5.
        """
        path = self.path(episode)
        try:
            starts = self._starts.get(episode) or self._find_starts(episode)
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise UserError(f"replay: {self.kind} file {path} cannot be read ({error}); {WAY_OUT}") from error
        try:
            for key, first, target in parts:
                offset = starts[key] + first * (target.nbytes // len(target))
                if os.preadv(descriptor, [target], offset) != target.nbytes:
                    raise UserError(f"replay: {self.kind} file {path} is truncated; {WAY_OUT}")
        finally:
            os.close(descriptor)

    def remove(self, *, before: int = 0, since: int | None = None) -> None:
        """Delete leftovers of a killed writer and the files of episodes < `before` and >= `since`."""
        self._delete(lambda episode: episode < before or (since is not None and episode >= since))

    def keep(self, episodes: Collection[int]) -> None:
        """Delete leftovers of a killed writer and the files of all other episodes."""
        self._delete(lambda episode: episode not in episodes)

    def _delete(self, unwanted: Callable[[int], bool]) -> None:
        remove_leftovers(self.folder)
        for path in self.folder.glob(f"{self.kind}_*.h5"):
            match = re.fullmatch(rf"{self.kind}_(\d+)\.h5", path.name)
            if match and unwanted(int(match[1])):
                path.unlink(missing_ok=True)
                self._starts.pop(int(match[1]), None)

    def _find_starts(self, episode: int) -> dict[str, int]:
        try:
            with h5py.File(self.path(episode), "r") as file:
                starts = {key: file[key].id.get_offset() for key in file}
        except FileNotFoundError:
            raise
        except OSError as error:  # h5py's word for a file that is not HDF5 or is truncated
            raise ValueError(error) from error
        self._starts[episode] = starts
        return starts


WAY_OUT = "run the same command again: it falls back to an older checkpoint (or delete the run's .ckpt folder)"
