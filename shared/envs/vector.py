"""N environments stepped together, in this process or in worker processes, with the same numbers either way.

Episode k of environment i has the seed (entropy, spawn_key + (i, k)), whoever computes it; a checkpoint holds k and the
actions since the episode began, and load() replays them. Read spec.py for the rows first.
"""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

import numpy as np

from shared.envs.spec import Env, Row, Rows, check_action
from shared.errors import UserError

# One core per worker. The software rasteriser's own threads (LP) bring nothing beside other workers.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
SECONDS_TO_STOP = 5.0  # a worker that does not end by itself within this time is killed

Start = tuple[np.random.SeedSequence, np.ndarray]  # an episode's seed and the actions (T, A) to replay
Order = tuple[int, Start | np.ndarray]  # environment, and what it does: start an episode or take an action (A,)


def _obey(env: Env, order: Start | np.ndarray) -> Row:
    """Carry out one order on one environment."""
    if isinstance(order, np.ndarray):
        return env.step(order)
    seed, actions = order
    if len(actions) and hasattr(env, "replay"):
        return env.replay(seed, actions)
    row = env.reset(seed)
    for action in actions:
        row = env.step(action)
    return row


class _Here:
    """Environments in this process."""

    def __init__(self, make: Callable[[], Env], indices: list[int]):
        self.indices = indices
        self._envs = {index: make() for index in indices}
        first = self._envs[indices[0]]
        self.specs = (dict(first.obs_spec), first.act_spec)
        self._rows: list[Row] = []

    def send(self, orders: list[Order]) -> None:
        self._rows = [_obey(self._envs[index], order) for index, order in orders]

    def receive(self) -> list[Row]:
        return self._rows

    def close(self) -> None:
        for env in self._envs.values():
            env.close()
        self._envs = {}


def _serve(connection: Connection, make: Callable[[], Env], indices: list[int]) -> None:
    """Body of a worker: environments that obey orders until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    group = None
    try:
        group = _Here(make, indices)
        answer = ("specs", group.specs)
        while True:
            connection.send(answer)
            group.send(connection.recv())
            answer = ("rows", group.receive())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        _tell(connection, ("user error", str(error)))
    except Exception:
        _tell(connection, ("error", traceback.format_exc()))
    finally:
        if group is not None:
            group.close()


def _tell(connection: Connection, answer: tuple) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        connection.send(answer)


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """What a process started here inherits: one thread, and SIGINT blocked even before its first line runs."""
    resource_tracker.ensure_running()  # else starting it would unblock SIGINT
    before = {key: os.environ.get(key) for key in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # last: a Ctrl-C meanwhile is raised here


class _Worker:
    """Environments in one spawned process; the same interface as _Here, and send returns at once."""

    def __init__(self, make: Callable[[], Env], indices: list[int], name: str):
        self.indices = indices
        self._name = f"{name} (environments {', '.join(map(str, indices))})"
        spawn = multiprocessing.get_context("spawn")
        self._connection, other = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(other, make, indices), name=name, daemon=True)
        with _worker_environment():
            self._process.start()
        other.close()  # so that the worker's death closes the pipe
        self._specs = None

    @property
    def specs(self) -> tuple:
        if self._specs is None:
            self._specs = self.receive()
        return self._specs

    def send(self, orders: list[Order]) -> None:
        try:
            self._connection.send(orders)
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def receive(self) -> list[Row]:
        try:
            kind, answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if kind == "user error":
            raise UserError(answer)
        if kind == "error":
            raise RuntimeError(f"{self._name} failed:\n{answer}")
        return answer

    def _death(self) -> UserError:
        self._process.join(SECONDS_TO_STOP)
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit status {code}"
        return UserError(
            f"{self._name} {how}; if the machine is short of memory use fewer workers (0 needs no process)."
            " The same command continues from the last checkpoint."
        )

    def close(self) -> None:
        self._connection.close()  # the worker reads the end of the pipe and leaves
        self._process.join(SECONDS_TO_STOP)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


class VectorEnv:
    """N independent environments of one kind, each with its own stream of episode seeds.

    Args:
      make: makes one environment; a functools.partial of a module-level function, so that a worker can make it too.
      count: N.
      seed: of all episodes: episode k of environment i has SeedSequence(seed.entropy, spawn_key + (i, k)).
      workers: 0 steps in this process, k in k spawned processes (at most N) with one thread each.
    After any error in an environment the VectorEnv is closed: continue from a checkpoint.
    """

    def __init__(self, make: Callable[[], Env], count: int, seed: np.random.SeedSequence, *, workers: int = 0):
        if count < 1 or workers < 0:
            raise UserError(f"VectorEnv: count {count} must be at least 1 and workers {workers} at least 0")
        self.count = count
        self._seed = seed
        self._episode = np.full(count, -1, np.int64)  # index of each environment's running episode
        self._actions: list[list[np.ndarray]] = [[] for _ in range(count)]  # since that episode began
        self._ended = np.zeros(count, bool)  # the previous row was is_last
        self._groups: list[_Here | _Worker] = []
        with self._closed_on_error():
            if workers == 0:
                self._groups.append(_Here(make, list(range(count))))
            for number, indices in enumerate(np.array_split(np.arange(count), min(workers, count)) if workers else ()):
                self._groups.append(_Worker(make, indices.tolist(), f"environment worker {number}"))
            self.obs_spec, self.act_spec = [group.specs for group in self._groups][0]

    def reset(self) -> Rows:
        """Start the next episode in every environment, also where one is running."""
        return self._perform([self._next_episode(index) for index in range(self.count)])

    def step(self, action: np.ndarray) -> Rows:
        """Rows arrived at by action (N, A) in [-1, 1].

        An environment whose previous row was is_last starts its next episode instead: its action is ignored, and its
        row is is_first with env_steps 0 and reward 0.
        """
        self._check_running("step")
        action = np.array(action, np.float32)
        if action.shape == (self.count, self.act_spec.size):
            action[self._ended] = 0.0
        check_action("VectorEnv.step", action, (self.count, self.act_spec.size))
        orders = []
        for index in range(self.count):
            if self._ended[index]:
                orders.append(self._next_episode(index))
            else:
                orders.append(action[index])
                self._actions[index].append(action[index])
        return self._perform(orders)

    def save(self) -> dict[str, np.ndarray]:
        """Where the environments stand: episode (N,), actions since it began (N, T, A), their number, length (N,)."""
        self._check_running("save")
        length = np.array([len(actions) for actions in self._actions], np.int64)
        action = np.zeros((self.count, length.max(), self.act_spec.size), np.float32)
        for index, actions in enumerate(self._actions):
            if actions:
                action[index, : len(actions)] = actions
        return {"episode": self._episode.copy(), "length": length, "action": action}

    def load(self, state: Mapping[str, np.ndarray]) -> Rows:
        """Return to a saved state by replaying its actions; returns the rows at which the environments then stand."""
        episode, length, action = (np.asarray(state[key]) for key in ("episode", "length", "action"))
        expected = (self.count, length.max(initial=0), self.act_spec.size)
        if episode.shape != (self.count,) or length.shape != (self.count,) or action.shape != expected:
            raise UserError(
                f"VectorEnv.load: the state holds {len(episode)} environments with actions {action.shape}, expected"
                f" {expected}; it belongs to another task or another number of environments"
            )
        self._episode = episode.astype(np.int64)
        self._actions = [list(action[i, : length[i]].astype(np.float32)) for i in range(self.count)]
        return self._perform([(self._episode_seed(i), action[i, : length[i]]) for i in range(self.count)])

    def close(self) -> None:
        """Free the environments and end the workers; may be called twice, and does not wait for a stuck worker."""
        groups, self._groups = self._groups, []
        for group in groups:
            group.close()

    def _next_episode(self, index: int) -> Start:
        self._episode[index] += 1
        self._actions[index] = []
        return self._episode_seed(index), np.zeros((0, self.act_spec.size), np.float32)

    def _episode_seed(self, index: int) -> np.random.SeedSequence:
        key = (*self._seed.spawn_key, index, int(self._episode[index]))
        return np.random.SeedSequence(self._seed.entropy, spawn_key=key, pool_size=self._seed.pool_size)

    def _perform(self, orders: list[Start | np.ndarray]) -> Rows:
        """Give every environment its order and stack the rows in the order of the environments."""
        self._check_open()
        with self._closed_on_error():
            for group in self._groups:
                group.send([(index, orders[index]) for index in group.indices])
            rows = [row for group in self._groups for row in group.receive()]
        stacked = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        self._ended = stacked["is_last"].copy()
        return stacked

    def _check_running(self, method: str) -> None:
        self._check_open()
        if (self._episode < 0).any():
            raise ValueError(f"VectorEnv.{method}: no episode is running; call reset first")

    def _check_open(self) -> None:
        if not self._groups:
            raise ValueError("VectorEnv: it is closed (by close, or after an error in an environment)")

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # Ctrl-C too: no worker may be left behind, and no half-read answer
            self.close()
            raise
