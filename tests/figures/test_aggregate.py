"""Statistics of few seeds: numbers by hand, limits, and scipy as an independent oracle."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from shared.figures.aggregate import bin_to_grid, bootstrap_interval, interquartile_mean, mean, median, percentile_band

SCORES = np.array([[4.0, 1.0, 100.0, 3.0], [2.0, 5.0, 7.0, 6.0]])


def test_mean_and_median_by_hand():
    # sorted: 1 2 3 4 | 5 6 7 100; mean 128 / 8, median between 4 and 5
    assert mean(SCORES) == 16.0
    assert median(SCORES) == 4.5


def test_interquartile_mean_by_hand():
    # eight values: two cut at each end, (3 + 4 + 5 + 6) / 4
    assert interquartile_mean(SCORES) == 4.5


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 50])
def test_interquartile_mean_equals_scipys_trimmed_mean(size):
    scores = np.random.default_rng(size).normal(size=size)
    assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25), rtol=1e-12)


def test_percentile_band_by_hand():
    # 0, 10, ..., 200: percentile p lies at p / 100 * 20 steps of 10
    assert percentile_band(np.arange(0, 201, 10)) == (10.0, 190.0)
    assert percentile_band(np.array([3.0])) == (3.0, 3.0)
    # two values, linear between them
    assert_allclose(percentile_band(np.array([0.0, 100.0]), 5, 95), (5, 95))


def test_percentiles_out_of_order_are_refused():
    with pytest.raises(ValueError, match="low 95 and high 5"):
        percentile_band(SCORES, 95, 5)


@pytest.mark.parametrize("function", [mean, median, interquartile_mean, percentile_band])
@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_empty_or_nonfinite_scores_are_refused(function, scores):
    with pytest.raises(ValueError, match="expected finite scores"):
        function(np.array(scores))


def test_bootstrap_of_one_constant_is_a_point():
    assert bootstrap_interval([np.full((5, 10), 7.0)], mean, np.random.default_rng(0), repetitions=50) == (7.0, 7.0)


def test_bootstrap_of_two_seeds_takes_three_values():
    # seeds 0 and 1 without spread inside: means 0, 0.5, 1 with probability 1/4, 1/2, 1/4. The 20 and 80 % quantiles are
    # 0 and 1, the 30 and 70 % quantiles 0.5.
    tables = [np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])]
    assert bootstrap_interval(tables, mean, np.random.default_rng(1), level=0.6) == (0.0, 1.0)
    assert bootstrap_interval(tables, mean, np.random.default_rng(1), level=0.4) == (0.5, 0.5)


def test_bootstrap_draws_episodes_only_within_their_seed():
    # one seed: its two episodes are drawn with replacement, as above
    tables = [[np.array([0.0, 1.0])]]
    assert bootstrap_interval(tables, mean, np.random.default_rng(2), level=0.6) == (0.0, 1.0)


def test_bootstrap_keeps_tasks_apart():
    # each task is constant: however seeds are drawn, half of the scores are 0 and half 10
    tables = [np.zeros((3, 2)), np.full((3, 2), 10.0)]
    assert bootstrap_interval(tables, mean, np.random.default_rng(3), repetitions=50) == (5.0, 5.0)


def test_bootstrap_weighs_tasks_by_their_episodes_and_takes_uneven_seeds():
    tables = [[np.zeros(1), np.zeros(3)], [np.full(4, 8.0)]]
    low, high = bootstrap_interval(tables, mean, np.random.default_rng(4), repetitions=400)
    # first task contributes 2, 4 or 6 zeros (two seeds of 1 or 3 episodes drawn), the second four eights
    assert_allclose((low, high), (32 / 10, 32 / 6))


def test_bootstrap_of_seeds_equals_scipys():
    scores = np.random.default_rng(5).normal(600, 80, size=12)
    ours = bootstrap_interval([scores[:, None]], mean, np.random.default_rng(6), repetitions=4000)
    oracle = stats.bootstrap((scores,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(7))
    assert_allclose(ours, oracle.confidence_interval, atol=0.12 * scores.std())


def test_bootstrap_repeats_with_its_generator_and_no_other():
    tables = [np.random.default_rng(8).normal(size=(4, 5))]
    np.random.seed(0)
    first = bootstrap_interval(tables, median, np.random.default_rng(9), repetitions=200)
    np.random.seed(1)
    assert bootstrap_interval(tables, median, np.random.default_rng(9), repetitions=200) == first
    assert bootstrap_interval(tables, median, np.random.default_rng(10), repetitions=200) != first


@pytest.mark.parametrize("strata", [[], [[]], [np.zeros(3)], [np.zeros((2, 2, 2))]])
def test_bootstrap_refuses_other_shapes(strata):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(strata, mean, np.random.default_rng(0))


def test_bootstrap_refuses_a_level_in_percent():
    with pytest.raises(ValueError, match="level 95"):
        bootstrap_interval([np.zeros((2, 2))], mean, np.random.default_rng(0), level=95)


def test_steps_go_to_the_nearest_grid_point_and_ties_to_the_lower():
    assert bin_to_grid([0, 4, 5, 6, 10, 14, 16, 99], [0, 10, 20]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("grid", [[], [1, 1], [2, 1]])
def test_a_grid_that_does_not_increase_is_refused(grid):
    with pytest.raises(ValueError, match="increasing"):
        bin_to_grid([1], grid)
