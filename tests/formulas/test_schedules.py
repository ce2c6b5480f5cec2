"""Schedules over trainer steps, updates and agent steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.formulas.schedules import exponential, fires, horizon_discount, linear, linear_ramp, warmup

STEPS = st.integers(0, 10**8)
VALUES = st.floats(-1e3, 1e3, allow_nan=False)

# PlaNet


def test_collection_schedule_by_hand():
    """The released numbers: after 5000, every 5000, batch 50: first in the 101st update, then every 100."""
    due = [update for update in range(350) if fires(50 * update, 5000, 5000, -1, 50)]
    assert due == [100, 200, 300]


def test_schedule_ends_at_until():
    assert fires(10, 0, 5, 11, 1)
    assert not fires(10, 0, 5, 10, 1)
    assert fires(10, 0, 5, 0, 1)                              # 0 and below: no end
    assert fires(0, 0, 5, 1, 1)
    assert not fires(5, 0, 5, 1, 1)                           # 1 is an end


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 40))
def test_one_update_in_each_period_fires(after, every_updates, batch):
    """Whenever the period is a multiple of the batch: exactly one update of each period, the first at `after`."""
    every = every_updates * batch
    due = [fires(after + batch * update, after, every, -1, batch) for update in range(3 * every_updates)]
    assert due == ([True] + [False] * (every_updates - 1)) * 3
    assert not any(fires(step, after, every, -1, batch) for step in range(after))


def test_ramps_by_hand():
    assert [linear_ramp(step, 100, 0.0) for step in (0, 25, 100, 1000)] == [0.0, 0.25, 1.0, 1.0]
    assert [linear_ramp(step, -100, 0.25) for step in (0, 25, 100, 1000)] == [1.0, 0.75, 0.25, 0.25]
    assert linear_ramp(0, 0, 0.0) == linear_ramp(10**9, 0, 0.0) == 1.0
    assert [linear_ramp(step, 1, 0.0) for step in (0, 1)] == [0.0, 1.0]      # the shortest ramps
    assert [linear_ramp(step, -1, 0.0) for step in (0, 1)] == [1.0, 0.0]
    assert [linear_ramp(step, -0.5, 0.0) for step in (0, 1)] == [1.0, 0.0]   # shorter than one step: a switch


@given(STEPS, st.integers(-10**5, 10**5), st.floats(0, 1))
def test_ramp_stays_in_range_and_moves_one_way(step, ramp, floor):
    here, later = linear_ramp(step, ramp, floor), linear_ramp(step + 1, ramp, floor)
    assert floor <= here <= 1
    assert here <= later if ramp >= 0 else here >= later


# DreamerV3's warm-up


def test_warmup_by_hand():
    assert [warmup(step, 4) for step in (0, 1, 4, 5)] == [0.0, 0.25, 1.0, 1.0]
    assert [warmup(step, 1) for step in (0, 1)] == [0.0, 1.0]
    assert warmup(0, 0) == 1.0                                # no warm-up


def test_the_first_update_of_dreamerv3_moves_nothing():
    assert warmup(0, 1000) == 0.0
    assert warmup(1, 1000) == 1e-3


@given(STEPS, st.integers(1, 10**5))
def test_warmup_is_the_share_passed_and_stays_at_one(step, duration):
    assert warmup(step, duration) == (step / duration if step < duration else 1.0)


# Lines


def test_lines_by_hand():
    # DreamerV2's first entropy schedule on Atari: 3e-3 to 3e-4 over 2.5e6 agent steps; halfway 1.65e-3.
    assert linear(1_250_000, 3e-3, 3e-4, 2_500_000) == pytest.approx(1.65e-3, rel=1e-14)
    assert [linear(step, 10.0, 2.0, 4) for step in (-3, 0, 1, 3, 4, 99)] == [10.0, 10.0, 8.0, 4.0, 2.0, 2.0]
    assert linear(0.25, 0.0, 1.0, 0.5) == 0.5                 # durations below 1 are durations


@given(VALUES, VALUES, st.integers(1, 10**6), st.integers(0, 10**6))
def test_lines_meet_their_ends_exactly_and_stay_between_them(start, end, duration, step):
    assert linear(0, start, end, duration) == start
    assert linear(duration, start, end, duration) == linear(duration + step, start, end, duration) == end
    between = linear(step, start, end, duration)
    slack = 1e-12 * (abs(start) + abs(end))                   # of rounding a weighted mean
    assert min(start, end) - slack <= between <= max(start, end) + slack


@given(VALUES, VALUES, st.integers(2, 10**6))
def test_lines_are_straight(start, end, half):
    """The middle of the way is the middle of the values."""
    assert linear(half, start, end, 2 * half) == pytest.approx((start + end) / 2, rel=1e-12, abs=1e-9)


# Exponential approach


def test_exponential_by_hand():
    # 5 -> 1: the distance 4 halves in every 10 steps.
    assert [exponential(step, 5.0, 1.0, 10) for step in (0, 10, 20, 30)] == [5.0, 3.0, 2.0, 1.5]
    assert exponential(0.25, 1.0, 0.0, 0.25) == 0.5           # half-lives below 1 are half-lives


@given(VALUES, VALUES, st.integers(1, 10**5), st.integers(0, 10**5))
def test_distance_to_the_end_halves_in_every_half_life(start, end, half_life, step):
    here = exponential(step, start, end, half_life) - end
    later = exponential(step + half_life, start, end, half_life) - end
    assert later == pytest.approx(here / 2, abs=1e-12 * (1 + abs(end)))


# Horizons


def test_horizons_by_hand():
    assert horizon_discount(1) == 0.0                         # nothing beyond the next reward
    assert horizon_discount(2) == 0.5
    assert horizon_discount(333) == pytest.approx(0.996996996996997, rel=1e-15)   # 332 / 333


@given(st.floats(1, 1e6))
def test_the_horizon_is_the_sum_of_all_weights(steps):
    """1 + gamma + gamma^2 + ... = 1 / (1 - gamma). For 1e6 steps 1 - gamma is known to 1e-16 / 1e-6."""
    assert 1 / (1 - horizon_discount(steps)) == pytest.approx(steps, rel=1e-9)


# Errors


@pytest.mark.parametrize(
    ("schedule", "arguments", "words"),
    [
        (fires, (0, 0, 0, -1, 50), "fires: every and batch must be positive, got every=0, batch=50"),
        (fires, (0, 0, -1, -1, 50), "fires: every and batch must be positive, got every=-1, batch=50"),
        (fires, (0, 0, 50, -1, 0), "fires: every and batch must be positive, got every=50, batch=0"),
        (fires, (0, 0, 50, -1, -1), "fires: every and batch must be positive, got every=50, batch=-1"),
        (linear_ramp, (-1, 10, 0.0), "linear_ramp: step must be >= 0, got -1"),
        (warmup, (-1, 10), "warmup: step and duration must be >= 0, got step=-1, duration=10"),
        (warmup, (1, -1), "warmup: step and duration must be >= 0, got step=1, duration=-1"),
        (linear, (1, 0.0, 1.0, 0), "linear: duration must be positive, got 0"),
        (linear, (1, 0.0, 1.0, -0.5), "linear: duration must be positive, got -0.5"),
        (linear, (1, 0.0, 1.0, math.nan), "linear: duration must be positive, got nan"),
        (exponential, (1, 0.0, 1.0, 0), "exponential: half_life must be positive, got 0"),
        (exponential, (1, 0.0, 1.0, -0.5), "exponential: half_life must be positive, got -0.5"),
        (exponential, (1, 0.0, 1.0, math.nan), "exponential: half_life must be positive, got nan"),
        (horizon_discount, (0.9,), "horizon_discount: steps must be >= 1, got 0.9"),
        (horizon_discount, (math.nan,), "horizon_discount: steps must be >= 1, got nan"),
    ],
)
def test_bad_arguments_are_refused(schedule, arguments, words):
    with pytest.raises(ValueError, match=words):
        schedule(*arguments)
