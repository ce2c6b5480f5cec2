"""Statistics of two groups of runs: aggregates over tasks, probability of improvement, bootstrap of a difference.

Scores come as one array per task, (S,), in one order of tasks. A bootstrap draws the seeds of every task for itself, on
both sides (stratified), from the same generator every time (shared/figures/aggregate.py). The aggregates are rliable's,
and a test compares them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from shared.figures.aggregate import BOOTSTRAP_SEED, LEVEL, REPETITIONS

Scores = Sequence[np.ndarray]  # per task, (..., S): leading axes are bootstrap draws


def task_means(scores: Scores) -> np.ndarray:
    """(..., K): mean over the seeds of each of K tasks."""
    return np.stack([np.mean(task, axis=-1) for task in scores], axis=-1)


def mean(scores: Scores) -> np.ndarray:
    """Mean over tasks of the means over seeds, (...)."""
    return task_means(scores).mean(axis=-1)


def median(scores: Scores) -> np.ndarray:
    """Median over tasks of the means over seeds, (...)."""
    return np.median(task_means(scores), axis=-1)


def interquartile_mean(scores: Scores) -> np.ndarray:
    """Mean of the middle half of all runs of all tasks, (...): floor(n / 4) are left out at either end.

    Source: Agarwal et al. 2021, arXiv 2108.13264, Section 4.3; shared/figures/aggregate.py, the same for one array.
    """
    ordered = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def optimality_gap(scores: Scores, goal: float = 1.0) -> np.ndarray:
    """How far all runs of all tasks fall short of a goal on average, (...): mean of max(goal - score, 0)."""
    return np.maximum(goal - np.concatenate(scores, axis=-1), 0).mean(axis=-1)


AGGREGATES: dict[str, Callable[[Scores], np.ndarray]] = {
    "mean": mean,
    "median": median,
    "interquartile mean": interquartile_mean,
    "optimality gap": optimality_gap,
}


def improvement(a: Scores, b: Scores) -> np.ndarray:
    """Probability that a run of A scores above a run of B, mean over tasks, (...); a tie counts half.

    Source: Agarwal et al. 2021, Section 4.3 (probability of improvement): the Mann-Whitney statistic over its pairs.
    """
    tasks = []
    for one, other in zip(a, b, strict=True):
        gap = one[..., :, None] - other[..., None, :]
        tasks.append(((gap > 0) + 0.5 * (gap == 0)).mean(axis=(-2, -1)))
    return np.mean(tasks, axis=0)


def draws(scores: Scores, rng: np.random.Generator, repetitions: int = REPETITIONS) -> list[np.ndarray]:
    """Bootstrap samples, per task (R, S): the seeds of each task drawn with replacement."""
    return [task[rng.integers(len(task), size=(repetitions, len(task)))] for task in map(np.asarray, scores)]


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of bootstrap values; NaN where they are not numbers."""
    values = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def estimate(
    a: Scores, b: Scores, statistic: Callable[[Scores, Scores], np.ndarray], *, repetitions: int = REPETITIONS
) -> tuple[float, float, float]:
    """A statistic of both sides with its stratified bootstrap interval: (value, low, high).

    No interval (NaN) where a task has one seed on either side: one seed says nothing of another.
    """
    value = float(statistic([np.asarray(x, float) for x in a], [np.asarray(x, float) for x in b]))
    if min(len(task) for task in (*a, *b)) < 2:
        return value, float("nan"), float("nan")
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = statistic(draws(a, rng, repetitions), draws(b, rng, repetitions))
    return (value, *interval(drawn))


def difference(statistic: Callable[[Scores], np.ndarray]) -> Callable[[Scores, Scores], np.ndarray]:
    """A minus B of a statistic of one side."""
    return lambda a, b: statistic(a) - statistic(b)
