"""Statistics of few seeds: medians, percentile bands, interquartile mean, stratified bootstrap.

Pure NumPy on returns; every random draw comes from a Generator that the caller passes, or from the stated seed of
`seed_interval`. curves.py and tables.py use it.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

Statistic = Callable[[np.ndarray], float]
BOOTSTRAP_SEED = 20190604  # any fixed number; every interval starts from it, so that none depends on another
REPETITIONS = 2000  # bootstrap samples
LEVEL = 0.95  # of every interval


def mean(scores: np.ndarray) -> float:
    """Arithmetic mean of all entries. scores: any shape."""
    return float(np.mean(_finite("mean", scores)))


def median(scores: np.ndarray) -> float:
    """Median of all entries (mean of the middle two for an even count). scores: any shape."""
    return float(np.median(_finite("median", scores)))


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half: the floor(n / 4) smallest and as many of the largest entries are left out.

    scores: any shape, n entries. Returns a number in the unit of the scores.
    Source: Agarwal et al. 2021, arXiv 2108.13264, Section 4.3.
    """
    ordered = np.sort(_finite("interquartile_mean", scores), axis=None)
    cut = ordered.size // 4
    return float(np.mean(ordered[cut : ordered.size - cut]))


def percentile_band(scores: np.ndarray, low: float = 5, high: float = 95) -> tuple[float, float]:
    """Two percentiles of all entries, linear between order statistics. low, high: percent, 0 to 100."""
    if not 0 <= low <= high <= 100:
        raise ValueError(f"percentile_band: low {low} and high {high} must satisfy 0 <= low <= high <= 100")
    lower, upper = np.percentile(_finite("percentile_band", scores), [low, high])
    return float(lower), float(upper)


def bootstrap_interval(
    strata: Sequence[Sequence[np.ndarray]],
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    repetitions: int = REPETITIONS,
    level: float = LEVEL,
    shared_agents: bool = False,
) -> tuple[float, float]:
    """Percentile interval of a statistic of seeds x episodes, each task resampled for itself.

    One repetition draws, in every stratum, N seeds with replacement and then M episodes with replacement within each
    drawn seed, and applies the statistic to all drawn scores together. Seeds are drawn whole because the episodes of
    one seed share one trained agent and are not independent.

    Args:
        strata: per task, per seed, the (M,) scores of its episodes; the counts may differ. (N, M) arrays will do.
        statistic: maps a flat array of scores to a number.
        rng: the only source of randomness; the same state gives the same interval.
        repetitions: bootstrap samples.
        level: coverage aimed at, in (0, 1).
        shared_agents: seed i of every task is the same agent, so that one draw of seeds serves all tasks.
    Returns:
        (low, high) in the unit of the scores. One seed with one episode gives an interval of width 0.
    Source: Agarwal et al. 2021, arXiv 2108.13264, Section 4.1 (stratified bootstrap), with episodes as a second level.
    """
    if not 0 < level < 1:
        raise ValueError(f"bootstrap_interval: level {level} must lie between 0 and 1")
    tasks = [[_finite("bootstrap_interval", seed) for seed in seeds] for seeds in strata]
    if not tasks or any(not seeds or any(seed.ndim != 1 for seed in seeds) for seeds in tasks):
        shapes = [[seed.shape for seed in seeds] for seeds in tasks]
        raise ValueError(f"bootstrap_interval: expected episodes within seeds within tasks, got shapes {shapes}")
    if shared_agents and len({len(seeds) for seeds in tasks}) > 1:
        raise ValueError(f"bootstrap_interval: shared agents, but {[len(seeds) for seeds in tasks]} seeds per task")
    values = []
    for _ in range(repetitions):
        common = _draw(len(tasks[0]), rng) if shared_agents else None
        scores = [part for seeds in tasks for part in _resample(seeds, common, rng)]
        values.append(statistic(np.concatenate(scores)))
    return percentile_band(np.array(values), 50 * (1 - level), 50 * (1 + level))


def seed_interval(
    strata: Sequence[Sequence[np.ndarray]], statistic: Statistic, *, shared_agents: bool = False
) -> tuple[float, float]:
    """bootstrap_interval at LEVEL from generator BOOTSTRAP_SEED; NaN where a task has fewer than two seeds.

    One seed shows how its episodes differ, not how another seed would have fared: no interval is claimed from it.
    """
    if not strata or min(map(len, strata)) < 2:
        return math.nan, math.nan
    return bootstrap_interval(strata, statistic, np.random.default_rng(BOOTSTRAP_SEED), shared_agents=shared_agents)


def deviation_band(scores: np.ndarray) -> tuple[float, float]:
    """Mean minus and plus one standard deviation of all entries (divided by their number, not one less)."""
    scores = _finite("deviation_band", scores)
    return float(scores.mean() - scores.std()), float(scores.mean() + scores.std())


def bin_to_grid(steps: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Index of the nearest grid point of every step; a step half-way between two goes to the lower one.

    Seeds are evaluated at slightly different env steps where episodes end early; a common grid makes them comparable.
    steps: (P,) and grid: (G,) increasing, the same unit. Returns (P,) integers in [0, G).
    """
    grid = np.asarray(grid, dtype=np.float64)
    if grid.size == 0 or np.any(np.diff(grid) <= 0):
        raise ValueError(f"bin_to_grid: the grid must be increasing and not empty, got {grid.tolist()}")
    borders = 0.5 * (grid[1:] + grid[:-1])
    return np.searchsorted(borders, np.asarray(steps, dtype=np.float64), side="left")


def _draw(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(count, size=count)


def _resample(seeds: Sequence[np.ndarray], drawn: np.ndarray | None, rng: np.random.Generator) -> list[np.ndarray]:
    """One bootstrap draw of one task: seeds first (unless drawn already), then episodes within each drawn seed."""
    drawn = _draw(len(seeds), rng) if drawn is None else drawn
    # A single episode is drawn as it is: drawing one of one takes nothing from the generator, only time.
    return [seeds[i] if seeds[i].size == 1 else seeds[i][_draw(seeds[i].size, rng)] for i in drawn]


def _finite(who: str, scores: np.ndarray) -> np.ndarray:
    """The scores as float64, refused when empty or not finite: a NaN would hide in every average."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size == 0 or not np.all(np.isfinite(scores)):
        raise ValueError(f"{who}: expected finite scores, got {scores.size} of which {np.isnan(scores).sum()} are NaN")
    return scores
