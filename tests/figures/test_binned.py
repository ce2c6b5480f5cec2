"""Curves as Dreamer's authors draw them: bins of env steps, means of runs, their deviation. Also grids of panels."""

import math

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from shared.figures.binned import SeedMeans, bin_width, seed_means
from shared.figures.curves import COUNTS, POINT, collected
from shared.figures.grid import ABOVE, BETWEEN, STATUS_LINE, Grid
from shared.figures.panels import env_step_axis, fitted_span
from shared.figures.sources import load_runs


def returns(*rows):
    """Test episodes as (seed, env steps, return)."""
    frame = pd.DataFrame(rows, columns=["seed", "env_steps", "return"])
    return frame.assign(task="a", episodes=frame["env_steps"] // 1000)


def pooled(points):
    return points[points["seed"] == "all"]


def test_a_run_is_averaged_within_a_bin_before_the_runs_are():
    # seed 0 has three episodes in the second bin (mean 20), seed 1 one (60): the mean of runs is 40, of episodes 30
    rows = [(0, 5000, 0.0), (0, 6000, 10.0), (0, 7000, 20.0), (0, 8000, 30.0), (1, 5000, 4.0), (1, 9000, 60.0)]
    points = pooled(seed_means(returns(*rows), 10_000, 2))
    assert_allclose(points["center"].astype(float), [2.0, 40.0])
    # population deviation over two runs: half of their distance
    assert_allclose(points["low"].astype(float), [0.0, 20.0])
    assert_allclose(points["high"].astype(float), [4.0, 60.0])
    assert points["returns"].tolist() == [2, 4] and points["seeds"].tolist() == [2, 2]


def test_a_bin_is_open_on_the_left_and_closed_on_the_right_and_drawn_at_its_right_edge():
    steps = [5000, 5001, 15_000, 15_001, 25_000, 25_001, 31_000]
    points = pooled(seed_means(returns(*((0, step, float(rank)) for rank, step in enumerate(steps))), 10_000, 1))
    # {5000}, (5000, 15000], (15000, 25000], (25000, 35000]: the last one ends with the last evaluation
    assert points["env_steps"].tolist() == [5000, 15_000, 25_000, 31_000]
    assert_allclose(points["center"].astype(float), [0.0, 1.5, 3.5, 5.5])


def test_a_bin_of_tests_at_one_moment_is_drawn_there():
    rows = [(0, 0, 1.0), (1, 0, 1.0), (0, 14, 2.0), (1, 14, 4.0), (0, 25, 3.0), (1, 27, 5.0), (0, 40, 9.0)]
    points = seed_means(returns(*rows), 10, 2)
    # 14 for both; 25 and 27 stand for their bin, (20, 30], together, and each for itself in its own line
    assert pooled(points)["env_steps"].tolist() == [0, 14, 30, 40]
    assert points[points["seed"] == "0"]["env_steps"].tolist() == [0, 14, 25, 40]
    assert points[points["seed"] == "1"]["env_steps"].tolist() == [0, 14, 27]


def test_an_empty_bin_is_no_point():
    points = pooled(seed_means(returns((0, 0, 1.0), (0, 30, 2.0)), 10, 1))
    assert points["env_steps"].tolist() == [0, 30]


def test_bins_equal_a_plain_loop_over_all_points():
    rng = np.random.default_rng(0)
    rows = [(seed, int(step), float(rng.normal())) for seed in range(4) for step in rng.integers(100, 5000, 40)]
    points, first = pooled(seed_means(returns(*rows), 137, 4)), min(step for _, step, _ in rows)
    expected = []
    for edge in range(first, 5300, 137):
        means = []
        for seed in range(4):
            inside = [r for s, x, r in rows if s == seed and edge - 137 < x <= edge]
            means += [sum(inside) / len(inside)] if inside else []
        if means:
            expected.append((np.mean(means), np.std(means) if len(means) > 1 else math.nan))
    assert_allclose(points["center"].astype(float), [mean for mean, _ in expected])
    assert_allclose((points["high"] - points["center"]).astype(float), [std for _, std in expected])


def test_one_run_has_neither_band_nor_interval_and_several_have_an_interval_at_the_end():
    alone = pooled(seed_means(returns((0, 0, 1.0), (0, 10, 2.0)), 10, 1))
    assert alone[["low", "high", "interval_low", "interval_high"]].isna().all(axis=None)
    both = pooled(seed_means(returns((0, 0, 1.0), (0, 10, 2.0), (1, 0, 5.0), (1, 10, 6.0)), 10, 2))
    assert both["interval_low"].isna().tolist() == [True, False]
    assert (both["interval_low"].iloc[-1], both["interval_high"].iloc[-1]) == (2.0, 6.0)  # two seeds: the ends


def test_points_that_not_all_runs_have_reached_are_dashed():
    rows = [(0, 0, 1.0), (0, 10, 2.0), (1, 0, 5.0)]
    points = seed_means(returns(*rows), 10, 2, {1})
    assert pooled(points)["dashed"].tolist() == [False, True]
    assert points[points["seed"] == "1"]["dashed"].tolist() == [True]
    assert pooled(seed_means(returns(*rows), 10, 2, {0, 1}))["dashed"].all(), "no run is finished"


def test_runs_give_their_points_up_to_the_last_env_step_asked_for(make_run):
    sources = load_runs([make_run(total=5_000_000)], paper="planet", tasks=["*"], variants=["*"])
    assert bin_width(sources) == 100_000 and bin_width([], 7) == 7
    points = SeedMeans(10_000, last=15_000).curve(sources)
    assert list(points.columns) == [*POINT, *COUNTS]
    assert pooled(points)["env_steps"].tolist() == [5000, 15_000]
    assert SeedMeans(10_000, last=1).curve(sources).empty


def test_the_axis_of_env_steps_is_the_published_one_at_scale_paper_and_fits_the_runs_elsewhere(make_run):
    sources = load_runs([make_run(total=25_000)], paper="planet", tasks=["*"], variants=["*"])
    paper, small = (env_step_axis(sources, scale, (0, 1_000_000, 2_000_000)) for scale in ("paper", "laptop"))
    assert (paper.last, list(paper.labels)) == (2_000_000, ["0", "1M", "2M"])
    assert (small.first, small.last, small.labels[-1]) == (0, 25_000, "25k")
    assert list(small.ticks) == sorted(set(small.ticks)) and paper.column == small.column == "env_steps"
    assert env_step_axis([], "smoke", (0, 10)).last == 10


def test_a_fitted_span_holds_all_values_and_zero():
    span = fitted_span([-20.7, 19.5, math.nan])
    assert span.low < -20.7 and span.high > 19.5 and 0 in span.ticks
    above = fitted_span([26_475.0])
    assert above.low == 0 and above.high > 26_475 and all(0 <= tick <= above.high for tick in above.ticks)
    empty = fitted_span([])
    assert empty.low < empty.high


@pytest.mark.parametrize("count", [1, 4, 5, 8, 20])
def test_panels_of_a_grid_do_not_meet(count):
    heads = [index % 3 for index in range(count)]
    grid = Grid(heads, columns=4, width=1.3, height=1.0, left=0.5, across=1.7, labels=0.2, foot=0.7)
    boxes = [grid.place(index) for index in range(count)]
    tops = [bottom + height + ABOVE + STATUS_LINE * lines for (_, bottom, _, height), lines in
            zip(boxes, heads, strict=True)]  # fmt: skip
    assert max(tops) <= grid.body + 1e-9
    for index, (left, bottom, width, _) in enumerate(boxes):
        if (index + 1) % 4 and index + 1 < count:
            assert left + width < boxes[index + 1][0]
        if index + 4 < count:
            assert bottom >= tops[index + 4] + BETWEEN - 1e-9, "the row below ends under this panel"
        needed = 0.2 if grid.lowest(index) else 0.0
        under = [tops[other] for other in range(count) if boxes[other][1] < bottom]
        assert bottom - needed >= max(under, default=0.7) - 1e-9, "labels have room"


def test_training_episodes_can_stand_in_for_tests(make_run):
    path = make_run(training=lambda seed, number: float(number))
    (source,) = load_runs([path], paper="planet", tasks=["*"], variants=["*"])
    assert collected(source)["return"].tolist() == list(range(1, 26))
    curve = SeedMeans(10_000, episodes=collected).curve([source])
    # 25 episodes end at 1000, 2000, ...: the first alone, 2 to 11, 12 to 21, 22 to 25
    assert_allclose(pooled(curve)["center"].astype(float), [1, 6.5, 16.5, 23.5])
