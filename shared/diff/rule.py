"""The rule by which a learner is called inside, below or above the published seeds, its false alarms and its power.

RULE is printed with every verdict. Scores are final scores, one per seed, in the unit of the return. The band is where
the mean of k further seeds of the published agent would fall, were its seeds normal with unknown mean and spread:

    mean(p) +- t(n - 1) * std(p) * sqrt(1 / n + 1 / k)            p: the n published seeds, std with n - 1

and at least LEAST_REACH of what the published agent gains to either side: five seeds that all reach 1000 would else
make 990 an alarm.
Seeds are not normal, so how often the rule cries wolf is measured, not assumed: `false_alarms` sets the published seeds
against each other. `power` says what it would notice.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shared.figures.aggregate import BOOTSTRAP_SEED, LEVEL

INSIDE, BELOW, ABOVE, TOO_FEW = "inside the band", "below", "above", "too few seeds to say"
LEAST_SEEDS = 3  # on either side
HALF = 0.5  # of what the published agent gains: the weakness that an "inside" must be able to exclude
LEAST_POWER = 0.8  # chance of noticing it
LEAST_REACH = 0.02  # of what the published agent gains: a band is never narrower, whatever its seeds have in common
WEAKNESSES = (0.1, 0.25, HALF, 0.75)
SPLITS = 300  # of the published seeds against each other, at most
DRAWS = 1000  # of the resampled seeds that power is measured with
RULE = (
    f"Verdict per task, first that applies: {TOO_FEW} (fewer than {LEAST_SEEDS} seeds on a side); below or above (the "
    "mean final score lies outside the band in which the mean of as many further published seeds would fall with "
    f"{LEVEL:.0%}: mean ± t(n−1) · std · √(1/n + 1/k), at least {LEAST_REACH:.0%} of the published gain); {TOO_FEW} "
    f"(inside, but a learner that gains only {HALF:.0%} of what the published one gains would be noticed with a chance "
    f"below {LEAST_POWER:.0%}); inside the band. Over tasks: the same for the mean over tasks, degrees of freedom by "
    "Welch and Satterthwaite."
)


class Band(NamedTuple):
    """Where the mean of k further seeds would fall."""

    low: float
    high: float


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.stats import t  # in here: slow to import

    return float(t.ppf(0.5 * (1 + level), freedom))


def reach(published: np.ndarray, seeds: int, start: float) -> np.ndarray:
    """Half the width of the band, (...). published: (..., n), n at least 2. start: what the agent scores unlearned."""
    n = published.shape[-1]
    spread = t_quantile(n - 1) * published.std(axis=-1, ddof=1) * math.sqrt(1 / n + 1 / seeds)
    return np.maximum(spread, LEAST_REACH * np.abs(published.mean(axis=-1) - start))


def band(published: np.ndarray, seeds: int, start: float) -> Band:
    """The band for the mean of `seeds` further runs. published: (n,), n at least 2."""
    published = np.asarray(published, dtype=np.float64)
    half = float(reach(published, seeds, start))
    return Band(float(published.mean()) - half, float(published.mean()) + half)


def band_over_tasks(published: Sequence[np.ndarray], seeds: Sequence[int]) -> Band:
    """The band for the mean over tasks of the means of so many further runs each."""
    parts = np.array([np.var(p, ddof=1) * (1 / len(p) + 1 / k) for p, k in zip(published, seeds, strict=True)])
    center = float(np.mean([np.mean(p) for p in published]))
    total = parts.sum()
    if total == 0:
        return Band(center, center)
    freedom = total**2 / sum(part**2 / (len(p) - 1) for part, p in zip(parts, published, strict=True))
    half = t_quantile(freedom) * math.sqrt(total) / len(published)
    return Band(center - half, center + half)


def side(mean: float, where: Band) -> str:
    """Below, above or inside."""
    return BELOW if mean < where.low else ABOVE if mean > where.high else INSIDE


def verdict(ours: np.ndarray, published: np.ndarray, start: float) -> tuple[str, str]:
    """(verdict, why) of one task. start: what the published agent scores before it has learned."""
    k, n = len(ours), len(published)
    if min(k, n) < LEAST_SEEDS:
        return TOO_FEW, f"{k} of ours, {n} in the reference, {LEAST_SEEDS} wanted"
    where = band(published, k, start)
    found = side(float(np.mean(ours)), where)
    if found != INSIDE:
        return found, f"{np.mean(ours):.4g} against {where.low:.4g} to {where.high:.4g}"
    chance = power(published, k, start, HALF)
    if chance < LEAST_POWER:
        return TOO_FEW, f"inside, but half the gain would be noticed in {chance:.0%} of cases only"
    return INSIDE, f"{np.mean(ours):.4g} in {where.low:.4g} to {where.high:.4g}"


def verdict_over_tasks(ours: Sequence[np.ndarray], published: Sequence[np.ndarray]) -> tuple[str, str]:
    """(verdict, why) of the mean over tasks; scores must have one scale. The caller leaves tasks with few seeds out."""
    if not ours or min(len(x) for x in (*ours, *published)) < LEAST_SEEDS:
        return TOO_FEW, f"no task with {LEAST_SEEDS} seeds on both sides"
    where = band_over_tasks(published, [len(x) for x in ours])
    mean = float(np.mean([np.mean(x) for x in ours]))
    return side(mean, where), f"{mean:.4g} against {where.low:.4g} to {where.high:.4g}"


# ------------------------------------------------------------------------------------------------ false alarms, power


def splits(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Ways to take k of n seeds as "ours", (W, k): all of them, or SPLITS drawn where there are more."""
    if math.comb(n, k) <= SPLITS:
        return np.array(list(itertools.combinations(range(n), k)))
    return np.array([rng.choice(n, k, replace=False) for _ in range(SPLITS)])


def outside(ours: np.ndarray, published: np.ndarray, start: float) -> np.ndarray:
    """Whether the mean of ours (W, k) is outside the band of published (W, n), (W,)."""
    return np.abs(ours.mean(axis=-1) - published.mean(axis=-1)) > reach(published, ours.shape[-1], start)


class FalseAlarms(NamedTuple):
    """How often the rule calls published seeds outside the band of the others."""

    rate: float  # mean over tasks and splits
    seeds: int  # taken as ours
    left: int  # that made the band
    tasks: int
    splits: int


def false_alarms(published: Sequence[np.ndarray], seeds: int, starts: Sequence[float]) -> FalseAlarms:
    """The published seeds against each other: `seeds` of each task (at most half) as ours, the rest as the band.

    Tasks with fewer than four seeds cannot be split. The nominal rate is 1 - LEVEL.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    rates, counts, sizes = [], 0, []
    for scores, start in zip(published, starts, strict=True):
        n = len(scores)
        if n < 4:
            continue
        k = max(1, min(seeds, n // 2))
        chosen = splits(n, k, rng)
        mask = np.zeros((len(chosen), n), dtype=bool)
        np.put_along_axis(mask, chosen, True, axis=1)
        every = np.broadcast_to(scores, mask.shape)
        rates.append(outside(every[mask].reshape(-1, k), every[~mask].reshape(-1, n - k), start).mean())
        counts += len(chosen)
        sizes.append((k, n - k))
    if not rates:
        return FalseAlarms(math.nan, 0, 0, 0, 0)
    k, left = (int(np.median(column)) for column in zip(*sizes, strict=True))
    return FalseAlarms(float(np.mean(rates)), k, left, len(rates), counts)


def false_alarms_over_tasks(published: Sequence[np.ndarray], seeds: int) -> float:
    """The same for the verdict over tasks: in every task some seeds as ours, drawn SPLITS times. NaN without a task."""
    from scipy.stats import t  # in here: slow to import

    rng = np.random.default_rng(BOOTSTRAP_SEED)
    gaps, variances, weights = np.zeros(SPLITS), np.zeros(SPLITS), np.zeros(SPLITS)
    usable = [np.asarray(scores, np.float64) for scores in published if len(scores) >= 4]
    for scores in usable:
        n = len(scores)
        k = max(1, min(seeds, n // 2))
        mixed = rng.permuted(np.broadcast_to(scores, (SPLITS, n)), axis=1)
        part = mixed[:, k:].var(axis=1, ddof=1) * (1 / (n - k) + 1 / k)
        gaps += mixed[:, :k].mean(axis=1) - mixed[:, k:].mean(axis=1)
        variances += part
        weights += part**2 / (n - k - 1)
    if not usable:
        return math.nan
    freedom = np.maximum(variances**2 / np.maximum(weights, 1e-300), 1)
    return float((np.abs(gaps) > t.ppf(0.5 * (1 + LEVEL), freedom) * np.sqrt(variances)).mean())


def power(published: np.ndarray, seeds: int, start: float, weakness: float) -> float:
    """Chance that the rule calls a weaker learner below: one that loses a share of what the published one gains.

    Its seeds are drawn from the published ones and moved down by weakness * (mean - start); those that make the band
    are drawn anew as well. weakness 0 gives half of the false alarms of resampled seeds.
    """
    published = np.asarray(published, dtype=np.float64)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    n = len(published)
    band_of = published[rng.integers(n, size=(DRAWS, n))]
    ours = published[rng.integers(n, size=(DRAWS, seeds))] - weakness * (published.mean() - start)
    return float((ours.mean(axis=1) < band_of.mean(axis=1) - reach(band_of, seeds, start)).mean())


def power_over_tasks(
    published: Sequence[np.ndarray], seeds: int, starts: Sequence[float], weakness: float, repetitions: int = DRAWS
) -> float:
    """The same for the verdict over tasks, every task's learner weaker by the same share of its gain."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    gaps, variances, weights = np.zeros(repetitions), np.zeros(repetitions), np.zeros(repetitions)
    for scores, start in zip(published, starts, strict=True):
        n = len(scores)
        band_of = scores[rng.integers(n, size=(repetitions, n))]
        ours = scores[rng.integers(n, size=(repetitions, seeds))] - weakness * (scores.mean() - start)
        part = band_of.var(axis=1, ddof=1) * (1 / n + 1 / seeds)
        gaps += ours.mean(axis=1) - band_of.mean(axis=1)
        variances += part
        weights += part**2 / (n - 1)
    freedom = variances**2 / np.maximum(weights, 1e-300)
    from scipy.stats import t  # in here: slow to import

    low = gaps < -t.ppf(0.5 * (1 + LEVEL), np.maximum(freedom, 1)) * np.sqrt(variances)
    return float(low.mean())
