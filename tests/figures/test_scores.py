"""Scores of many games: numbers by hand, limits, and the orders in which seeds and games are averaged."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from shared.figures.scores import (
    AGGREGATES,
    Anchors,
    aggregate_curves,
    clipped_record_mean,
    gamer_mean,
    gamer_median,
    games_first,
    normalised,
    on_grid,
    record_mean,
    seeds_first,
    seeds_first_curve,
    value_at,
)

# Three games: random 0, 10, -20; gamer 10, 20, 0; record 100, 20, 20.
ANCHORS = Anchors(np.array([0.0, 10.0, -20.0]), np.array([10.0, 20.0, 0.0]), np.array([100.0, 20.0, 20.0]))


def test_random_play_is_zero_and_the_reference_is_one():
    assert_array_equal(normalised(ANCHORS.random, ANCHORS.random, ANCHORS.gamer), [0, 0, 0])
    assert_array_equal(normalised(ANCHORS.gamer, ANCHORS.random, ANCHORS.gamer), [1, 1, 1])


def test_aggregates_by_hand():
    scores = np.array([50.0, 40.0, -10.0])
    # by the gamer: 50/10 = 5, 30/10 = 3, 10/20 = 0.5; by the record: 50/100 = 0.5, 30/10 = 3 (clipped 1), 10/40 = 0.25
    assert gamer_median(scores, ANCHORS) == 3.0
    assert_allclose(gamer_mean(scores, ANCHORS), 8.5 / 3)
    assert_allclose(record_mean(scores, ANCHORS), 3.75 / 3)
    assert_allclose(clipped_record_mean(scores, ANCHORS), 1.75 / 3)


def test_a_median_of_an_even_number_of_games_lies_between_two():
    two = Anchors(ANCHORS.random[:2], ANCHORS.gamer[:2], ANCHORS.record[:2])
    assert gamer_median(np.array([50.0, 40.0]), two) == 4.0


def test_scores_below_random_are_negative_and_not_clipped():
    # -100/100 = -1, 0, 0
    assert_allclose(clipped_record_mean(np.array([-100.0, 10.0, -20.0]), ANCHORS), -1 / 3)


@pytest.mark.parametrize("name", AGGREGATES)
def test_an_affine_change_of_a_games_unit_changes_nothing(name):
    scores = np.random.default_rng(1).normal(size=(4, 3)) * 30
    scale, shift = np.array([3.0, 0.1, 7.0]), np.array([5.0, -2.0, 100.0])
    moved = Anchors(*(scale * anchor + shift for anchor in (ANCHORS.random, ANCHORS.gamer, ANCHORS.record)))
    assert_allclose(AGGREGATES[name](scale * scores + shift, moved), AGGREGATES[name](scores, ANCHORS), rtol=1e-12)


@pytest.mark.parametrize("name", AGGREGATES)
def test_leading_axes_are_kept_and_the_order_of_games_does_not_matter(name):
    scores = np.random.default_rng(2).normal(size=(2, 5, 3)) * 30
    found = AGGREGATES[name](scores, ANCHORS)
    assert found.shape == (2, 5)
    order = [2, 0, 1]
    turned = Anchors(ANCHORS.random[order], ANCHORS.gamer[order], ANCHORS.record[order])
    assert_allclose(AGGREGATES[name](scores[..., order], turned), found, rtol=1e-12)


def test_the_order_of_averaging_matters_for_median_and_clipping_alone():
    scores = np.array([[0.0, 10.0, 0.0], [20.0, 30.0, -20.0]])
    # by the gamer: seed 0: 0, 0, 1; seed 1: 2, 2, 0; means: 1, 1, 0.5
    first, per_seed = seeds_first(scores, ANCHORS), games_first(scores, ANCHORS)
    assert first["gamer_median"] == 1.0
    assert_array_equal(per_seed["gamer_median"], [0, 2])
    # by the record: seed 0: 0, 0, 0.5; seed 1: 0.2, 2 -> 1, 0; means: 0.1, 1, 0.25
    assert_allclose(first["clipped_record_mean"], 1.35 / 3)
    assert_allclose(per_seed["clipped_record_mean"], [0.5 / 3, 1.2 / 3])
    for name in ("gamer_mean", "record_mean"):
        assert_allclose(first[name], per_seed[name].mean(), rtol=1e-12)


def test_scores_that_cannot_be_averaged_are_refused():
    with pytest.raises(ValueError, match="1 scores are not finite"):
        gamer_mean(np.array([1.0, np.nan, 1.0]), ANCHORS)
    with pytest.raises(ValueError, match=r"scores \(2,\)"):
        gamer_mean(np.array([1.0, 2.0]), ANCHORS)
    with pytest.raises(ValueError, match=r"gamer must be finite and above random.*\[1\]"):
        Anchors(ANCHORS.random, np.array([10.0, 10.0, 0.0]), ANCHORS.record)
    with pytest.raises(ValueError, match=r"record must be finite and above random.*\[2\]"):
        Anchors(ANCHORS.random, ANCHORS.gamer, np.array([100.0, 20.0, np.nan]))


def test_a_curve_that_ends_early_keeps_its_last_value():
    steps, values = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
    assert value_at(steps, values, 2.0) == 20.0
    assert value_at(steps, values, 2.9) == 20.0
    assert value_at(steps, values, 99.0) == 30.0
    assert value_at(steps, np.array([10.0, np.nan, 30.0]), 2.0) == 10.0
    with pytest.raises(ValueError, match="no value up to step 0.5"):
        value_at(steps, values, 0.5)


def points(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["task", "seed", "env_steps", "value"])


def test_on_grid_averages_within_a_bin_and_carries_the_last_value_on():
    frame = points(("a", 0, 5, 1.0), ("a", 0, 10, 3.0), ("a", 0, 11, 7.0), ("b", 0, 30, 4.0), ("b", 0, 31, 9.0))
    # bins end at 10, 20, 30: a has 1 and 3, then 7, then nothing; b has nothing until 30; 31 lies beyond
    found = on_grid(frame, np.array([10, 20, 30]), ["a", "b"])
    assert_array_equal(found, [[[2, np.nan], [7, np.nan], [7, 4]]])
    with pytest.raises(ValueError, match="seed 0 has no value of c"):
        on_grid(frame, np.array([10, 20, 30]), ["a", "c"])


def test_aggregate_curves_by_hand():
    two = Anchors(np.zeros(2), np.array([10.0, 10.0]), np.array([20.0, 40.0]))
    frame = points(
        *(("a", 0, 10, 10.0), ("b", 0, 10, 20.0), ("b", 0, 20, 80.0)),
        *(("a", 1, 10, 30.0), ("b", 1, 10, 40.0), ("a", 1, 20, 50.0), ("b", 1, 20, 0.0)),
    )
    table = aggregate_curves(frame, np.array([5, 10, 20]), ["a", "b"], two).set_index(["statistic", "env_steps"])
    # gamer: seed 0: (1, 2) then (1, 8); seed 1: (3, 4) then (5, 0): medians 1.5, 3.5, then 4.5, 2.5
    assert table.loc[("gamer_median", 10)].tolist() == [2.5, 1.0, 2]
    assert table.loc[("gamer_median", 20)].tolist() == [3.5, 1.0, 2]
    # record: seed 0: (0.5, 0.5) then (0.5, 2); seed 1: (1.5, 1) then (2.5, 0); clipped: 0.5, 1; 0.75, 0.5
    assert table.loc[("clipped_record_mean", 20), "mean"] == 0.625
    assert table.loc[("record_mean", 20), "mean"] == 1.25
    assert ("gamer_median", 5) not in table.index  # nobody has a value yet


def test_seeds_first_curves_by_hand():
    frame = points(
        *(("a", 0, 10, 10.0), ("b", 0, 10, 20.0), ("b", 0, 20, 80.0)),
        *(("a", 1, 10, 30.0), ("b", 1, 10, 40.0), ("a", 1, 20, 50.0), ("b", 1, 20, 0.0)),
    )
    table = seeds_first_curve(frame, np.array([5, 10, 20]), ["a", "b"], lambda scores: scores.max(axis=-1))
    # means over seeds: a 20, b 30; then (a's 10 holds) 30 and 40: the larger one of each
    assert table[["env_steps", "mean", "seeds"]].to_numpy().tolist() == [[10, 30, 2], [20, 40, 2]]
    assert table["std"].isna().all()
    # the order matters: per seed the maxima at 20 are 80 and 50, their mean 65


def test_without_a_record_the_gamers_averages_remain():
    two = Anchors(np.zeros(2), np.array([10.0, 20.0]))
    assert gamer_mean(np.array([10.0, 60.0]), two) == 2.0
    with pytest.raises(ValueError, match="gamer must be finite and above random"):
        Anchors(np.zeros(2), np.array([10.0, 0.0]))
