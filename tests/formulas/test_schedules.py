"""PlaNet's schedules over trainer steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.formulas.schedules import fires, linear_ramp


def test_collection_schedule_by_hand():
    """The released numbers: after 5000, every 5000, batch 50: first in the 101st update, then every 100."""
    due = [update for update in range(350) if fires(50 * update, 5000, 5000, -1, 50)]
    assert due == [100, 200, 300]


def test_schedule_ends_at_until():
    assert fires(10, 0, 5, 11, 1)
    assert not fires(10, 0, 5, 10, 1)
    assert fires(10, 0, 5, 0, 1)                              # 0 and below: no end


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


@given(st.integers(0, 10**8), st.integers(-10**5, 10**5), st.floats(0, 1))
def test_ramp_stays_in_range_and_moves_one_way(step, ramp, floor):
    here, later = linear_ramp(step, ramp, floor), linear_ramp(step + 1, ramp, floor)
    assert floor <= here <= 1
    assert here <= later if ramp >= 0 else here >= later


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="fires: every and batch must be positive, got every=0, batch=50"):
        fires(0, 0, 0, -1, 50)
    with pytest.raises(ValueError, match="linear_ramp: step must be >= 0, got -1"):
        linear_ramp(-1, 10, 0.0)
