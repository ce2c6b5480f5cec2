"""Replay memory of streams: rows in, windows of consecutive rows out, across the ends of episodes (DreamerV3).

A row may carry a memo (an agent's latents there), which is given out with the window that begins at it and is written
anew after every update. Framework-free. Rows lie in chunks: complete ones on disk and, as far as they fit, in memory.
Everything that decides a later sample, memos included, is in save() and its files, so a resumed run draws the same
numbers. Read columns.py and storage.py for what is stored and where.
"""

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.envs.spec import ActSpec, ObsSpec, Row, Rows
from shared.errors import UserError
from shared.replay import memory
from shared.replay.columns import check_rows, jsonable, of_specs, row_bytes, row_columns
from shared.replay.memory import EpisodeMemory
from shared.replay.storage import EpisodeFile, EpisodeFolder

CHUNK_ROWS = 1024  # code: of one stream; here of all streams together, so that a checkpoint stays small


class StreamReplay:
    """Stores N streams of rows and samples windows.

    The streams take turns, so row r of all, counted from 0, is row r // N of stream r mod N, and the window that begins
    there holds rows r, r + N, r + 2 N, ... The windows are numbered by their first rows:

        complete windows   0 .. count - N (window - 1) - 1        window = context + length
        live windows       the last capacity_rows of them; each draw is uniform over them

    With `online`, every window-th window of a stream is drawn once before any is drawn at random, so that new rows are
    learned from soon after they came (not the context row of each). The first is that of a stream's second row.
    Source: DreamerV3, authors' code embodied/core/replay.py. Row convention: shared/envs/spec.py.
    """

    def __init__(
        self,
        folder: Path,
        obs_spec: ObsSpec,
        act_spec: ActSpec,
        *,
        streams: int,
        seed: np.random.SeedSequence,
        length: int,
        context: int,
        capacity_rows: int,
        memory_rows: int,
        online: bool,
        memo_spec: ObsSpec,
        chunk_rows: int = CHUNK_ROWS,
    ):
        """
        Args:
            folder: where the files go; belongs to this memory alone.
            streams: N, environments whose rows come in turn.
            seed: of all draws.
            length: T, rows of a window that are learned from.
            context: rows before them, 0 or 1.
            capacity_rows: live windows, at most; beyond it the oldest go.
            memory_rows: rows of complete chunks held in RAM, at most; fewer where they do not fit (fit, memory.py).
                Changes speed only, never a number.
            online: whether new windows are drawn before random ones.
            memo_spec: name, shape and dtype of what an agent stores beside a row; {} if nothing.
            chunk_rows: rows of a file, about.
        """
        limits = {"streams": (streams, 1), "length": (length, 1), "context": (context, 0)}
        for name, (value, least) in (limits | {"capacity_rows": (capacity_rows, 1)}).items():
            if value < least:
                raise UserError(f"StreamReplay: {name} is {value}, expected at least {least}; raise it in the config")
        self._columns, self._memo_columns = row_columns(obs_spec, act_spec), of_specs(memo_spec)
        self._streams, self._length, self._context, self._online = streams, length, context, online
        self._window = context + length
        self._capacity = capacity_rows
        self._turns = -(-chunk_rows // streams)  # rows of one stream in a chunk
        self._chunks, self._notes = EpisodeFolder(folder, "chunk"), EpisodeFolder(folder, "memo")
        self._memory = EpisodeMemory(memory_rows)
        self._spill = False  # memos lie in scratch files: they do not fit in RAM
        self._scratch: dict[str, np.ndarray] = {}  # those files, (chunks, rows, ...), where there are any
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._queue: deque[int] = deque()  # windows to draw before any other
        self._count = 0  # rows so far
        self._ended = np.ones(streams, bool)  # the row before was is_last, or there was none
        self._files: dict[int, EpisodeFile] = {}  # complete live chunks
        self._running: dict[str, np.ndarray] = {}  # the chunk that is being filled
        self._memos: dict[int, dict[str, np.ndarray]] = {}  # of all live chunks
        self._noted: dict[int, tuple[int, EpisodeFile]] = {}  # chunk -> file of its memos as they are now
        self._next_note = 0  # number of the next such file
        self._saved: set[int] = set()  # files of the newest state that was saved or loaded

    @property
    def windows(self) -> int:
        """Live windows: those that a random draw may give."""
        return self._complete - self._oldest

    @property
    def _complete(self) -> int:
        return max(0, self._count - self._streams * (self._window - 1))

    @property
    def _oldest(self) -> int:
        """The oldest live window; its first row is the oldest live row."""
        return max(0, self._complete - self._capacity)

    @property
    def _rows(self) -> int:
        """Rows of a chunk."""
        return self._streams * self._turns

    def fit(self, rows: int) -> str:
        """Hold no more in RAM than fits there; tells a person what comes of it in a run of about so many rows.

        Raises:
            UserError: the disk has no room for the files, in which memos stand three times while a checkpoint is made,
                and once more where they do not fit in RAM.
        """
        rows, free = min(rows, self._capacity), memory.free_bytes()
        stored, noted = row_bytes(self._columns), row_bytes(self._memo_columns)
        self._memory.limit = memory.rows_that_fit(self._memory.limit, stored + noted, free)
        self._spill = self._memory.limit < rows
        memory.check_disk(self._chunks.folder, rows * (stored + (3 + self._spill) * noted))
        return memory.told(rows, stored + noted, min(rows, self._memory.limit), free)

    def append(self, rows: Rows) -> None:
        """Add the next rows, of the streams in turn; one by one or many at once makes no difference.

        Args:
            rows: (rows, ...) of the observation keys, reward, is_first, is_last, is_terminal, action, and the memo.
        """
        for index in range(check_rows(rows, {**self._columns, **self._memo_columns})):
            self._append({key: column[index] for key, column in rows.items()})

    def sample(self, batch_size: int, length: int) -> dict[str, np.ndarray]:
        """Draw windows.

        Returns:
            every column as (B, context + T, ...), is_first of whose first rows is True, whatever it was; every memo as
            (B, context, ...), as it is stored there; and window (B,), for update().
            The arrays are new and belong to the caller.
        Raises:
            UserError: no window is complete.
        """
        if length != self._length:
            raise ValueError(f"sample: batch length {length}, expected {self._length}, the length of this memory")
        if self.windows == 0:
            raise UserError(
                f"sample: no window of {self._window} rows is complete after {self._count} rows of {self._streams} "
                "environments; raise schedule.fill_windows or lower the batch length in the config"
            )
        starts = np.array([self._draw() for _ in range(batch_size)], np.int64)
        batch = {
            key: np.empty((batch_size, self._window, *shape), dtype) for key, (dtype, shape) in self._columns.items()
        }
        for index, start in enumerate(starts.tolist()):
            for chunk, first, at, count in self._pieces(start, self._window):
                self._read(chunk, [(key, first, column[index, at : at + count]) for key, column in batch.items()])
        batch["is_first"][:, 0] = True  # code: embodied/core/replay.py:278-292
        return {**batch, **self._context_memos(starts), "window": starts}

    def update(self, window: np.ndarray, memo: Mapping[str, np.ndarray]) -> None:
        """Write memos anew, of the T rows that were learned from; what is no longer stored is passed over.

        Args:
            window: (B,), as sample() gave it. memo: (B, T, ...).
        """
        for name, (dtype, shape) in self._memo_columns.items():
            expected = (len(window), self._length, *shape)
            if name not in memo or memo[name].shape != expected or memo[name].dtype != dtype:
                got = f"{memo[name].dtype} {memo[name].shape}" if name in memo else "missing"
                raise ValueError(f"update: memo {name} is {got}, expected {dtype} {expected}")
        for index, start in enumerate(window.tolist()):
            for chunk, first, at, count in self._pieces(start + self._context * self._streams, self._length):
                if chunk in self._memos:
                    for name, column in self._memos[chunk].items():
                        column[first : first + count] = memo[name][index, at : at + count]
                    self._noted.pop(chunk, None)

    def save(self) -> dict[str, Any]:
        """Everything that decides later samples, except what is in files: complete chunks, and their memos as of now.

        The files of memos that changed since the last state are written by this.
        """
        for chunk in self._files if self._memo_columns else ():
            if chunk not in self._noted:
                self._noted[chunk] = (self._next_note, self._notes.write(self._next_note, self._memos[chunk]))
                self._next_note += 1
        notes = [self._noted[chunk] for chunk in self._files if self._memo_columns]
        self._saved = {number for number, _ in notes}
        current = self._memos.get(self._count // self._rows, {}) if self._running else {}
        return {
            **self._form(),
            "count": self._count,
            "ended": self._ended.copy(),
            "first": next(iter(self._files), self._count // self._rows),  # number of the oldest live chunk
            "chunks": _facts(self._files.values()),
            "next_memo": self._next_note,
            "memo_files": np.array([number for number, _ in notes], np.int64),
            "memos": _facts(file for _, file in notes),
            "rng": self._rng.bit_generator.state,
            "queue": np.array(self._queue, np.int64),
            "running": {key: column.copy() for key, column in self._running.items()},
            "running_memo": {name: np.array(column) for name, column in current.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Return to a saved state: verify its files, then delete those that were written after it.

        Raises:
            UserError: a needed file is missing or damaged (nothing is deleted then: an older state may still load).
        """
        for name, value in self._form().items():
            if state[name] != value:
                raise UserError(
                    f"replay: {self._chunks.folder} holds {name} {state[name]}, expected {value}; delete the run's "
                    ".ckpt folder or use the config that it was made with"
                )
        files = dict(enumerate(_files(state["chunks"]), state["first"]))
        numbers = state["memo_files"].tolist()
        noted = dict(zip(files, zip(numbers, _files(state["memos"]), strict=True), strict=False))
        for chunk, file in files.items():
            self._chunks.verify(chunk, file)
        for number, file in noted.values():
            self._notes.verify(number, file)
        self._chunks.remove(since=state["first"] + len(files))
        self._notes.remove(since=state["next_memo"])
        self._files, self._noted, self._next_note, self._saved = files, noted, state["next_memo"], set(numbers)
        self._count, self._ended = state["count"], state["ended"].copy()
        self._queue = deque(state["queue"].tolist())
        self._rng.bit_generator.state = state["rng"]
        self._memory.clear()  # numbers of deleted chunks will be used again
        self._memos = {chunk: self._new_memo(chunk) for chunk in files}
        for chunk, (number, _) in noted.items():
            self._notes.read(number, [(name, 0, column) for name, column in self._memos[chunk].items()])
        self._running = {}
        if state["running"]:
            self._open(self._count // self._rows)
            for saved, columns in (
                ("running", self._running),
                ("running_memo", self._memos[self._count // self._rows]),
            ):
                for key, column in columns.items():
                    column[...] = state[saved][key]

    def forget(self, state: Mapping[str, Any]) -> None:
        """Delete the files that neither the newest state needs nor `state`, that of the oldest kept checkpoint."""
        self._chunks.remove(before=state["first"])
        self._notes.keep(self._saved | set(state["memo_files"].tolist()))

    def _append(self, row: Row) -> None:
        turn, stream = divmod(self._count, self._streams)
        if bool(row["is_first"]) != self._ended[stream]:
            raise ValueError(
                f"append: environment {stream} has is_first {bool(row['is_first'])} at its row {turn}; "
                "the first row of an episode, and no other, must have it"
            )
        chunk, slot = divmod(turn, self._turns)
        if not self._running:
            self._open(chunk)
        place = stream * self._turns + slot
        for columns in (self._running, self._memos[chunk]):
            for key, column in columns.items():
                column[place] = row[key]
        self._ended[stream] = row["is_last"]
        before = self._complete
        self._count += 1
        if (
            self._online
            and self._complete > before
            and (before // self._streams + self._window - 1) % self._window == 0
        ):
            self._queue.append(before)
        if self._count % self._rows == 0:
            self._store(chunk)

    def _open(self, chunk: int) -> None:
        """An empty chunk, to be filled."""
        self._running = {key: np.zeros((self._rows, *shape), dtype) for key, (dtype, shape) in self._columns.items()}
        self._memos[chunk] = self._new_memo(chunk)

    def _store(self, chunk: int) -> None:
        """A complete chunk goes to disk and to memory; the oldest ones leave when they hold no live row."""
        if chunk == 0:  # files of an abandoned run that never reached a checkpoint
            self._chunks.remove(since=0)
            self._notes.remove(since=0)
        self._files[chunk] = self._chunks.write(chunk, self._running)
        self._memory.add(chunk, self._running)
        self._running = {}
        while (oldest := next(iter(self._files))) * self._rows + self._rows <= self._oldest:
            del self._files[oldest]  # the file stays until forget(): an older checkpoint may need it
            self._memory.discard(oldest)
            del self._memos[oldest]
            self._noted.pop(oldest, None)

    def _draw(self) -> int:
        while self._queue:
            if (start := self._queue.popleft()) >= self._oldest:
                return start
        return int(self._rng.integers(self._oldest, self._complete))

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Where `length` rows of one stream lie, from row `start` of all on: chunk, place in it, offset, how many."""
        turn, stream = divmod(start, self._streams)
        at = 0
        while at < length:
            chunk, slot = divmod(turn + at, self._turns)
            count = min(self._turns - slot, length - at)
            yield chunk, stream * self._turns + slot, at, count
            at += count

    def _read(self, chunk: int, parts: list[tuple[str, int, np.ndarray]]) -> None:
        if chunk in self._files:
            memory.read(self._memory, self._chunks, chunk, self._rows, self._columns, parts)
        else:
            for key, first, target in parts:
                target[...] = self._running[key][first : first + len(target)]

    def _context_memos(self, starts: np.ndarray) -> dict[str, np.ndarray]:
        memos = {
            name: np.empty((len(starts), self._context, *shape), dtype)
            for name, (dtype, shape) in self._memo_columns.items()
        }
        for index, start in enumerate(starts.tolist()):
            for chunk, first, at, count in self._pieces(start, self._context):
                for name, column in memos.items():
                    column[index, at : at + count] = self._memos[chunk][name][first : first + count]
        return memos

    def _new_memo(self, chunk: int) -> dict[str, np.ndarray]:
        """Memos of one chunk, zero: in RAM, or in scratch files, which are gone when nobody uses them any more."""
        if not self._spill:
            return {name: np.zeros((self._rows, *shape), dtype) for name, (dtype, shape) in self._memo_columns.items()}
        if not self._scratch:
            self._open_scratch()
        memo = {name: column[chunk % len(column)] for name, column in self._scratch.items()}
        for column in memo.values():
            column[...] = 0  # a chunk that is gone has left its own
        return memo

    def _open_scratch(self) -> None:
        """One file per memo for all live chunks: a mapped file stays open, and a process may not open very many.

        Nothing is written yet, so the files take up no more of the disk than their chunks need.
        """
        live = self._capacity + self._streams * (self._window - 1)  # rows, when a chunk has just been completed
        chunks = -(-live // self._rows) + 1
        self._notes.folder.mkdir(parents=True, exist_ok=True)
        for name, (dtype, shape) in self._memo_columns.items():
            with tempfile.TemporaryFile(dir=self._notes.folder) as file:
                self._scratch[name] = np.memmap(file, dtype, "w+", shape=(chunks, self._rows, *shape))

    def _form(self) -> dict[str, Any]:
        """What two memories must have in common for one to go on where the other stood."""
        return {
            "columns": jsonable(self._columns),
            "memo_columns": jsonable(self._memo_columns),
            "streams": self._streams,
            "turns": self._turns,
            "window": self._window,
        }


def _facts(files) -> dict[str, np.ndarray]:
    files = list(files)
    return {
        "rows": np.array([file.rows for file in files], np.int64),
        "sizes": np.array([file.size for file in files], np.int64),
        "crc32": np.array([file.crc32 for file in files], np.uint32),
    }


def _files(facts: Mapping[str, np.ndarray]) -> list[EpisodeFile]:
    columns = (facts[name].tolist() for name in ("rows", "sizes", "crc32"))
    return [EpisodeFile(*fact) for fact in zip(*columns, strict=True)]
