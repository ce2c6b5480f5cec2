"""Episodes without exploration and without learning: their returns, or all their rows."""

import numpy as np

from shared.training.agent import Agent


def evaluate(agent: Agent, envs, episodes: int) -> list[tuple[float, int]]:
    """Play `episodes` fresh episodes, envs.count at a time.

    Returns: (undiscounted return, length in agent steps) per episode, in the order of rounds and environments; what a
    last round plays beyond the number asked is not counted.
    """
    results: list[tuple[float, int]] = []
    while len(results) < episodes:
        rows, carry = envs.reset(), agent.initial_carry(envs.count)
        returns, lengths, done = np.zeros(envs.count), np.zeros(envs.count, np.int64), rows["is_last"].copy()
        while not done.all():
            acted = agent.act(rows, carry, explore=False)
            carry = acted.carry
            rows = envs.step(acted.action)
            returns += np.where(done, 0, rows["reward"])
            lengths += ~done
            done |= rows["is_last"]
        results.extend((float(r), int(n)) for r, n in zip(returns, lengths, strict=True))
    return results[:episodes]


def record(agent: Agent, envs, length: int | None = None) -> dict[str, np.ndarray]:
    """Play a fresh episode per environment and keep it: rows and the actions chosen at them, (N, T, ...).

    length: rows to keep; None: until the first of the episodes ends.
    """
    rows, carry, columns = envs.reset(), agent.initial_carry(envs.count), []
    while True:
        acted = agent.act(rows, carry, explore=False)
        carry = acted.carry
        columns.append({**rows, "action": acted.action})
        if rows["is_last"].any() if length is None else len(columns) == length:
            return {key: np.stack([column[key] for column in columns], 1) for key in columns[0]}
        rows = envs.step(acted.action)
