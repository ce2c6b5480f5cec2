"""The one training loop: a generator of events that drives any agent and does no I/O.

Order within one turn: act on the rows at hand, tell which episodes ended, store the rows, learn where it is due, then
what else is due (evaluation, checkpoint), then step the environments. A checkpoint therefore always falls between a
stored row and the next step. Read agent.py and schedule.py first; shared/runner.py consumes the events.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np

from shared.training.agent import Agent, Carry
from shared.training.schedule import RatioPlan, Schedule


@dataclass(frozen=True)
class Counters:
    """Where a run stands.

    env_steps counts simulator steps of all environments, action repeat included; agent_steps counts decisions; rows
    counts what came of them and of resets: an episode of n decisions has n + 1 rows.
    """

    env_steps: int = 0
    agent_steps: int = 0
    updates: int = 0
    episodes: int = 0
    rows: int = 0


@dataclass(frozen=True)
class EpisodeEnded:
    """`length` in agent steps; `episode_return` is the undiscounted sum of rewards."""

    counters: Counters
    episode_return: float
    length: int


@dataclass(frozen=True)
class UpdateDone:
    counters: Counters
    metrics: Mapping[str, SupportsFloat]


@dataclass(frozen=True)
class EvaluationDue:
    counters: Counters


@dataclass(frozen=True)
class CheckpointDue:
    """`progress` is what `interact(start=...)` needs to go on from here; agent, envs and replay save themselves."""

    counters: Counters
    progress: "Progress"


Event = EpisodeEnded | UpdateDone | EvaluationDue | CheckpointDue


@dataclass(frozen=True)
class Progress:
    """The loop's own state between storing a row and stepping the environments."""

    counters: Counters
    action: np.ndarray  # (N, A), chosen and stored, not yet executed
    carry: Carry
    returns: np.ndarray  # (N,), of the running episodes
    lengths: np.ndarray  # (N,), agent steps

    def tree(self) -> dict[str, Any]:
        """As nested NumPy arrays, for a checkpoint."""
        return {
            "counters": vars(self.counters).copy(),
            "action": self.action,
            "carry": {name: to_numpy(value) for name, value in self.carry.items()},
            "returns": self.returns.copy(),
            "lengths": self.lengths.copy(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Progress":
        return cls(Counters(**tree["counters"]), tree["action"], tree["carry"], tree["returns"], tree["lengths"])


def to_numpy(value: Any) -> np.ndarray:
    """A NumPy copy of an array of any library, wherever it lives."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.array(value)


def interact(
    agent: Agent,
    prefill: Agent,
    envs,
    replay,
    plan: Schedule | RatioPlan,
    *,
    batch_size: int,
    batch_length: int,
    start: Progress | None = None,
) -> Iterator[Event]:
    """Drive one agent to plan.total_env_steps.

    Args:
      agent, prefill: the learner, and the agent that acts before plan.random_until (it may be the same object).
      envs: a VectorEnv. replay: append(rows), sample(B, T) and, where the agent learns memos, update(window, memo). All
        already restored when `start` is given.
      batch_size, batch_length: B chunks of T rows per update.
      start: where a checkpoint left off; None starts afresh.
    Yields: events in the order in which they happened. The consumer may evaluate and save between two of them.
    """
    if start is None:
        rows, before = envs.reset(), -1
        progress = Progress(
            Counters(),
            np.zeros((envs.count, envs.act_spec.size), np.float32),
            agent.initial_carry(envs.count),
            np.zeros(envs.count),
            np.zeros(envs.count, np.int64),
        )
    else:
        progress, before = start, start.counters.env_steps
        rows = envs.step(progress.action)
    while True:
        progress, ended = arrive(progress, rows)
        actor = prefill if getattr(progress.counters, plan.learns_by) < plan.random_until else agent
        acted = actor.act(rows, progress.carry if actor is agent else {}, explore=True)
        action = np.where(rows["is_last"][:, None], np.float32(0), acted.action)
        stored = {**{k: v for k, v in rows.items() if k != "env_steps"}, "action": action, **acted.memo}
        progress = replace(progress, action=action, carry=acted.carry if actor is agent else progress.carry)
        yield from ended
        for some, owed in portions(stored, plan, before, progress.counters):
            replay.append(some)
            for _ in range(owed):
                batch = replay.sample(batch_size, batch_length)
                learned = agent.learn(batch)
                if learned.memo:
                    replay.update(batch["window"], learned.memo)
                progress = replace(progress, counters=count(progress.counters, updates=1))
                yield UpdateDone(progress.counters, learned.metrics)
        after = progress.counters.env_steps
        if plan.evaluation_due(before, after):
            yield EvaluationDue(progress.counters)
        if plan.checkpoint_due(before, after):
            yield CheckpointDue(progress.counters, progress)
        if after >= plan.total_env_steps:
            return
        before = after
        rows = envs.step(progress.action)


def portions(
    rows: Mapping[str, np.ndarray], plan: Schedule | RatioPlan, before: int, now: Counters
) -> Iterator[tuple[Mapping[str, np.ndarray], int]]:
    """The rows of a turn in the order in which they are stored, and the updates owed after each part of them.

    All rows at once where updates go by env steps, else one row after the other. before: env steps of the last turn.
    """
    if plan.learns_by == "env_steps":
        yield rows, plan.updates_due(before, now.env_steps)
        return
    number = len(rows["is_first"])
    for index, seen in enumerate(range(now.rows - number, now.rows)):
        yield {key: column[index : index + 1] for key, column in rows.items()}, plan.updates_due(seen, seen + 1)


def arrive(progress: Progress, rows: Mapping[str, np.ndarray]) -> tuple[Progress, list[EpisodeEnded]]:
    """Count the rows just received; the episodes that ended with them."""
    first, last = rows["is_first"], rows["is_last"]
    returns = np.where(first, 0.0, progress.returns + rows["reward"])
    lengths = np.where(first, 0, progress.lengths + 1)
    spent = {"env_steps": int(rows["env_steps"].sum()), "agent_steps": int((~first).sum()), "rows": len(first)}
    counters = count(progress.counters, **spent)
    ended = []
    for index in np.flatnonzero(last):
        counters = count(counters, episodes=1)
        ended.append(EpisodeEnded(counters, float(returns[index]), int(lengths[index])))
    return replace(progress, counters=counters, returns=returns, lengths=lengths), ended


def count(counters: Counters, **more: int) -> Counters:
    """Counters moved on by the named amounts."""
    return replace(counters, **{name: getattr(counters, name) + amount for name, amount in more.items()})
