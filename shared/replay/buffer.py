"""Replay memory: whole episodes in, batches of consecutive rows out, drawn as PlaNet and Dreamers 1 and 2 draw them.

Framework-free. Running episodes live in memory, complete ones on disk (storage.py) with the most recently used in
memory. Everything that decides a later sample is in save(), so a resumed run draws the same numbers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shared.envs.spec import ActSpec, ObsSpec, Rows
from shared.errors import UserError
from shared.replay import memory
from shared.replay.columns import check_rows, jsonable, row_bytes, row_columns
from shared.replay.memory import EpisodeMemory
from shared.replay.storage import EpisodeFile, EpisodeFolder


class Replay:
    """Stores episodes and samples chunks.

    One chunk per drawn episode; its first row is uniform over all rows that leave room for it, both ends included,
    unless `ends` or `prioritise_ends` says otherwise. Row convention: shared/envs/spec.py.
    """

    def __init__(
        self,
        folder: Path,
        obs_spec: ObsSpec,
        act_spec: ActSpec,
        *,
        seed: np.random.SeedSequence,
        capacity_rows: int | None,
        memory_rows: int,
        older: int | None = None,
        recent: int = 0,
        chunks_per_refresh: int = 1,
        pool: int | None = None,
        shuffle_chunks: int = 0,
        prefetch_chunks: int = 0,
        replacement: bool = False,
        ends: Literal["included", "excluded"] = "included",
        prioritise_ends: Literal["none", "clipped", "slack"] = "none",
        least_rows: int = 1,
    ):
        """
        Args:
            folder: where the episode files go; belongs to this memory alone.
            seed: of all draws.
            capacity_rows: live rows, at most; beyond it the oldest episodes go, never the newest. None: no limit.
            memory_rows: rows of complete episodes held in RAM, at most; fewer where they do not fit (fit, memory.py).
                Changes speed only, never a number.
            older, recent: episodes in the pool, at most: random older ones, and ones new since the last refresh.
                With recent 0 no episode counts as new: all are drawn alike. With older None there is no pool: every
                chunk is from any live episode, all with the same probability.
            chunks_per_refresh: chunks drawn from one pool.
            pool: episodes in the pool in all, older ones filling it up. None: older + recent.
            shuffle_chunks, prefetch_chunks: how late a draw is used: it goes into a buffer of the first size, from
                which a random one is taken for each new one, and then into a queue of the second length. 0: at once.
            replacement: every draw is from the whole pool, not from what is left of a permutation of it.
            ends: whether a chunk may reach the last row of its episode. "excluded" as in Dreamer's TensorFlow 2 code,
                whose model therefore never sees how an episode ends.
            prioritise_ends: whether a first row may be drawn where no room is left for the chunk, which is then moved
                back to end with its episode: never, from all rows of the episode ("clipped": the last chunk is as
                likely as T others), or from one more ("slack": T + 1). Source: DreamerV2's code, OLD and HEAD.
            least_rows: shorter episodes are not kept.
        """
        limits = {"older": (older, 1), "recent": (recent, 0), "chunks_per_refresh": (chunks_per_refresh, 1)}
        limits["least_rows"] = (least_rows, 1)
        for name, (value, least) in limits.items():
            if value is not None and value < least:
                raise UserError(f"Replay: {name} is {value}, expected at least {least}; raise it in the config")
        self._columns = row_columns(obs_spec, act_spec)
        self._folder = EpisodeFolder(folder)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        pooled = older is not None
        self._order = EpisodeOrder(older, recent, chunks_per_refresh, pool, replacement) if pooled else UniformOrder()
        self._spared = int(ends == "excluded")  # rows at the end of an episode that no chunk reaches
        self._prioritise_ends, self._least_rows = prioritise_ends, least_rows
        self._delay = Delay(shuffle_chunks, prefetch_chunks)
        self._capacity_rows = capacity_rows
        self._memory = EpisodeMemory(memory_rows)
        self._files: dict[int, EpisodeFile] = {}  # live episodes, numbered in order of completion
        self._next = 0  # number of the next episode to complete
        self._running: list[list[dict[str, np.ndarray]]] | None = None  # per env, the rows so far

    @property
    def episodes(self) -> int:
        """Complete live episodes."""
        return len(self._files)

    @property
    def rows(self) -> int:
        """Rows of complete live episodes."""
        return sum(file.rows for file in self._files.values())

    def fit(self, rows: int) -> str:
        """Hold no more in RAM than fits there; tells a person what comes of it in a run of about so many rows.

        Raises:
            UserError: the disk has no room for their files.
        """
        rows = rows if self._capacity_rows is None else min(rows, self._capacity_rows)
        each, free = row_bytes(self._columns), memory.free_bytes()
        memory.check_disk(self._folder.folder, rows * each)
        self._memory.limit = memory.rows_that_fit(self._memory.limit, each, free)
        return memory.told(rows, each, min(rows, self._memory.limit), free)

    def append(self, rows: Rows) -> None:
        """Add one row per environment; an episode becomes visible to sample() with its is_last row.

        Args:
            rows: (N, ...) of the observation keys, reward, is_first, is_last, is_terminal and action.
        """
        count = check_rows(rows, self._columns)
        if self._running is None:
            self._running = [[] for _ in range(count)]
        if count != len(self._running):
            raise ValueError(f"append: {count} environments, expected {len(self._running)} as before")
        for env, episode in enumerate(self._running):
            if (is_first := bool(rows["is_first"][env])) != (not episode):
                raise ValueError(
                    f"append: environment {env} has is_first {is_first} after {len(episode)} rows of its episode; "
                    "the first row of an episode, and no other, must have it"
                )
        for env, episode in enumerate(self._running):
            episode.append({key: np.array(rows[key][env]) for key in self._columns})
            if rows["is_last"][env]:
                self._store({key: np.stack([row[key] for row in episode]) for key in self._columns})
                episode.clear()

    def sample(self, batch_size: int, length: int) -> dict[str, np.ndarray]:
        """Draw chunks of consecutive rows of one episode each.

        Returns:
            every column as (B, T, ...), and action_before (B, A): the action of the row before the chunk, zeros where
            the chunk opens its episode. The arrays are new and belong to the caller.
        Raises:
            UserError: no complete episode has `length` rows to draw from, or there is none yet.
        """
        if not self._files and length >= 1:
            running = max(map(len, self._running or []), default=0)
            raise UserError(
                f"sample: no complete episode of at least {self._least_rows} rows yet, the longest running one has "
                f"{running} rows: raise schedule.prefill_env_steps in the config, so that episodes end before the "
                "first update"
            )
        longest = max((file.rows - self._spared for file in self._files.values()), default=0)
        if not 1 <= length <= longest:
            spared = ", its last one spared" if self._spared else ""
            raise UserError(
                f"sample: batch length {length} exceeds the longest stored episode ({longest} rows{spared}) or is "
                "below 1; collect longer episodes or lower the batch length in the config"
            )
        batch = {key: np.empty((batch_size, length, *shape), dtype) for key, (dtype, shape) in self._columns.items()}
        before = np.zeros((batch_size, *self._columns["action"][1]), np.float32)
        for index in range(batch_size):
            episode, first = self._delay.next(lambda: self._draw(length), self._rng)
            while episode not in self._files or self._files[episode].rows < first + length:  # evicted while it waited
                episode, first = self._delay.next(lambda: self._draw(length), self._rng)
            parts = [(key, first, column[index]) for key, column in batch.items()]
            if first > 0:
                parts.append(("action", first - 1, before[index : index + 1]))
            self._read(episode, parts)
        return {**batch, "action_before": before}

    def save(self) -> dict[str, Any]:
        """Everything that decides later samples, except the rows of complete episodes, which are in their files."""
        files = list(self._files.values())
        return {
            "columns": jsonable(self._columns),
            "first": self._next - len(files),  # number of the oldest live episode
            "next": self._next,
            "rows": np.array([file.rows for file in files], np.int64),
            "sizes": np.array([file.size for file in files], np.int64),
            "crc32": np.array([file.crc32 for file in files], np.uint32),
            "rng": self._rng.bit_generator.state,
            "order": self._order.save(),
            "delay": self._delay.save(),
            "running": None if self._running is None else [self._pack(episode) for episode in self._running],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Return to a saved state: verify its files, then delete those of episodes completed after it.

        Raises:
            UserError: a needed file is missing or damaged (nothing is deleted then: an older state may still load).
        """
        if state["columns"] != jsonable(self._columns):
            raise UserError(
                f"replay: {self._folder.folder} holds columns {state['columns']}, expected {jsonable(self._columns)}; "
                "delete the run's .ckpt folder or use the config that it was made with"
            )
        facts = zip(state["rows"].tolist(), state["sizes"].tolist(), state["crc32"].tolist(), strict=True)
        files = {number: EpisodeFile(*fact) for number, fact in enumerate(facts, state["first"])}
        for number, file in files.items():
            self._folder.verify(number, file)
        self._folder.remove(since=state["next"])
        self._files, self._next = files, state["next"]
        self._rng.bit_generator.state = state["rng"]
        self._order.load(state["order"])
        self._delay.load(state["delay"])
        self._memory.clear()  # numbers of deleted episodes will be used again
        running = state["running"]
        self._running = None if running is None else [self._unpack(columns) for columns in running]

    def forget(self, state: Mapping[str, Any]) -> None:
        """Delete the files of episodes evicted before `state`, the replay state of the oldest kept checkpoint."""
        self._folder.remove(before=state["first"])

    def _draw(self, length: int) -> tuple[int, int]:
        """An episode, and the first row of a chunk of it."""
        rows = length + self._spared
        episode = self._order.draw(self._files, rows, self._rng)
        last = self._files[episode].rows - rows
        beyond = {"none": 0, "clipped": length - 1, "slack": length}[self._prioritise_ends]
        return episode, min(int(self._rng.integers(last + beyond + 1)), last)

    def _store(self, columns: dict[str, np.ndarray]) -> None:
        """A complete episode goes to disk and to memory; the oldest ones leave the live set when there are too many."""
        if len(columns["reward"]) < self._least_rows:
            return
        if self._next == 0:
            self._folder.remove(since=0)  # files of an abandoned run that never reached a checkpoint
        self._files[self._next] = self._folder.write(self._next, columns)
        self._memory.add(self._next, columns)
        self._next += 1
        if self._capacity_rows is not None:
            excess = self.rows - self._capacity_rows
            while excess > 0 and len(self._files) > 1:
                oldest = next(iter(self._files))
                excess -= self._files.pop(oldest).rows  # its file stays until forget(): an older checkpoint may need it
                self._memory.discard(oldest)

    def _read(self, episode: int, parts: list[tuple[str, int, np.ndarray]]) -> None:
        rows = self._files[episode].rows
        memory.read(self._memory, self._folder, episode, rows, self._columns, parts)

    def _pack(self, episode: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {
            key: np.array([row[key] for row in episode], dtype).reshape(len(episode), *shape)
            for key, (dtype, shape) in self._columns.items()
        }

    def _unpack(self, columns: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        return [{key: np.array(columns[key][row]) for key in self._columns} for row in range(len(columns["reward"]))]


class EpisodeOrder:
    """Which episode the next chunk comes from.

        refresh:  pool = up to `recent` episodes new since the last refresh + up to `older` random older ones
                  (with `pool`: older ones fill it up to that number)
        then:     permutations of the pool, one chunk per episode, until chunks_per_refresh chunks are out; refresh.
                  (with `replacement`: any episode of the pool for each chunk)

    An episode counts as new for one refresh only. Episodes evicted or too short for the asked length are passed over.
    Source: PlaNet, authors' code tools/numpy_episodes.py (the `recent` loader; with `pool`, the older `scan` loader).
    Dreamer, the same file (`recent` 0) and tf2/tools.py:173-185 (`recent` 0 and `replacement`).
    """

    def __init__(
        self,
        older: int,
        recent: int,
        chunks_per_refresh: int,
        pool: int | None = None,
        replacement: bool = False,
    ):
        self.older, self.recent, self.chunks_per_refresh, self.pool = older, recent, chunks_per_refresh, pool
        self.replacement = replacement
        self._pool: list[int] = []
        self._rest: list[int] = []  # what is left of the current permutation, next one last
        self._chunks_left = 0
        self._seen = 0  # episodes numbered from here on are new

    def draw(self, files: Mapping[int, EpisodeFile], length: int, rng: np.random.Generator) -> int:
        """The next episode with at least `length` rows; at least one of `files` must have them."""
        if self._chunks_left == 0:
            self._refresh(files, length, rng)
        while True:
            while self._rest:
                episode = self._rest.pop()
                if episode in files and files[episode].rows >= length:
                    self._chunks_left -= 1
                    return episode
            if not any(episode in files and files[episode].rows >= length for episode in self._pool):
                self._refresh(files, length, rng)
            self._rest = self._round(rng)

    def save(self) -> dict[str, Any]:
        return {
            "pool": np.array(self._pool, np.int64),
            "rest": np.array(self._rest, np.int64),
            "chunks_left": self._chunks_left,
            "seen": self._seen,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self._pool, self._rest = state["pool"].tolist(), state["rest"].tolist()
        self._chunks_left, self._seen = state["chunks_left"], state["seen"]

    def _round(self, rng: np.random.Generator) -> list[int]:
        """The next episodes to draw, last one first."""
        if self.replacement:
            return [self._pool[int(rng.integers(len(self._pool)))]]
        return rng.permutation(self._pool).tolist()

    def _refresh(self, files: Mapping[int, EpisodeFile], length: int, rng: np.random.Generator) -> None:
        long_enough = [episode for episode, file in files.items() if file.rows >= length]
        since = self._seen if self.recent else max(files) + 1  # episodes numbered from here on are new
        old = rng.permutation([episode for episode in long_enough if episode < since])
        new = rng.permutation([episode for episode in long_enough if episode >= since])[: self.recent]
        old = old[: self.older if self.pool is None else max(self.pool - len(new), 0)]
        self._pool = [*old.astype(np.int64).tolist(), *new.astype(np.int64).tolist()]
        self._rest = []
        self._chunks_left = self.chunks_per_refresh
        self._seen = max(files) + 1


class UniformOrder:
    """Any live episode, each with the same probability at every draw, whatever its length.

    Episodes too short for the asked length are passed over. Source: DreamerV2, authors' code common/replay.py:91-117.
    """

    def draw(self, files: Mapping[int, EpisodeFile], length: int, rng: np.random.Generator) -> int:
        """An episode with at least `length` rows; at least one of `files` must have them."""
        first = next(iter(files))  # live episodes are numbered without gaps: the oldest go first
        while True:
            episode = first + int(rng.integers(len(files)))
            if files[episode].rows >= length:
                return episode

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore: a draw depends on the episodes alone."""


class Delay:
    """Draws that are used later, in another order: a shuffle buffer, then a queue.

    The buffer is filled before anything leaves it; then a random entry leaves for each that comes. With sizes 0 a draw
    passes at once and no random number is used. Source: PlaNet, authors' code of May 2019 and before (tf.data's shuffle
    of 5000 chunks and prefetch of 20 batches), which made new episodes reach the model some 100 updates late.
    """

    def __init__(self, shuffle: int, queue: int):
        self.shuffle, self.queue = shuffle, queue
        self._shuffled: list[tuple[int, int]] = []
        self._queued: deque[tuple[int, int]] = deque()

    def next(self, draw: Callable[[], tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
        """The next draw to use; `draw` makes new ones."""
        while len(self._queued) <= self.queue:
            self._queued.append(self._from_buffer(draw, rng))
        return self._queued.popleft()

    def _from_buffer(self, draw: Callable[[], tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
        if self.shuffle == 0:
            return draw()
        while len(self._shuffled) < self.shuffle:
            self._shuffled.append(draw())
        place = int(rng.integers(self.shuffle))
        chosen, self._shuffled[place] = self._shuffled[place], draw()
        return chosen

    def save(self) -> dict[str, Any]:
        return {name: np.array(list(held), np.int64).reshape(-1, 2) for name, held in self._held().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self._shuffled = [tuple(entry) for entry in state["shuffled"].tolist()]
        self._queued = deque(tuple(entry) for entry in state["queued"].tolist())

    def _held(self) -> dict[str, Iterable[tuple[int, int]]]:
        return {"shuffled": self._shuffled, "queued": self._queued}
