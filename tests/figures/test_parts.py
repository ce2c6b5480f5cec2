"""The parts of a figure: labels that keep apart, counts as people write them, frames and errors of a strip."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from shared.figures.aggregate import bootstrap_interval, deviation_band, mean, seed_interval
from shared.figures.page import Page, human
from shared.figures.panels import spread
from shared.figures.tables import markdown, number
from shared.figures.video import error_image, frame_errors, shown_frames


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (950, "950"), (1500, "1.5k"), (40_000, "40k"), (999_999, "1M"), (1_000_000, "1M"), (2_345_678, "2.35M")],
)
def test_counts_as_people_write_them(count, words):
    assert human(count) == words


def test_labels_far_apart_stay():
    assert spread([900, 100, 500], gap=60) == [900, 100, 500]


def test_close_labels_move_apart_around_their_mean():
    # 100 and 120 with gap 60: around 110
    assert spread([120, 100], gap=60) == [140, 80]
    # three in a cluster around 110, the fourth stays
    assert_allclose(spread([100, 110, 120, 500], gap=60), [50, 110, 170, 500])


def test_spread_labels_keep_order_and_gap():
    values = np.random.default_rng(0).uniform(0, 300, size=12)
    placed = np.array(spread(values.tolist(), gap=30))
    assert (np.argsort(placed) == np.argsort(values)).all()
    assert np.diff(np.sort(placed)).min() >= 30 - 1e-9
    assert_allclose(placed.mean(), values.mean())


@pytest.mark.parametrize(
    ("length", "context", "frames"),
    [
        (50, 5, [1, 2, 3, 4, 5, 6, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
        (12, 5, [1, 2, 3, 4, 5, 6, 10]),
        (8, 3, [1, 2, 3, 4, 5]),
        (5, 5, [1, 2, 3, 4, 5]),
    ],
)
def test_frames_of_the_strip(length, context, frames):
    assert shown_frames(length, context) == frames


def test_frame_errors_by_hand():
    truth = np.zeros((1, 3, 2, 2, 3), np.uint8)
    truth[0, 2] = 255  # black, black, white; the model saw two
    prediction = np.zeros_like(truth)
    prediction[0, 1, 0, 0, 0] = 255  # one of twelve values wrong
    errors = frame_errors(truth, prediction, context=2)
    assert_allclose(errors["error"], [0, 1 / 12, 1])
    assert_allclose(errors["copy_error"], [np.nan, np.nan, 1])
    assert errors["context"].tolist() == [True, True, False]


def test_no_error_is_white():
    assert (error_image(np.zeros((2, 2))) == 255).all()
    assert error_image(np.ones((1, 1))).max() < 30


def test_numbers_and_markdown():
    assert number(float("nan")) == "–" and number(-3.4) == "−3" and number(3.4, sign=True) == "+3"
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| :--- | ---: |\n| x | 1 |\n"


def test_deviation_band_by_hand():
    # mean 5, deviations 3, 1, 1, 3: variance (9 + 1 + 1 + 9) / 4 = 5
    assert_allclose(deviation_band(np.array([2.0, 4.0, 6.0, 8.0])), (5 - 5**0.5, 5 + 5**0.5))


def test_an_interval_needs_two_seeds_on_every_task():
    two, one = [np.zeros(3), np.ones(3)], [np.zeros(3)]
    assert seed_interval([two], mean) == (0.0, 1.0)
    for strata in ([one], [two, one], []):
        assert np.isnan(seed_interval(strata, mean)).all()


def test_tasks_of_shared_agents_are_drawn_together():
    # agent 0 scores 0 on both tasks, agent 1 scores 1: the mean is 0, 1/2 or 1, never a quarter
    tasks = [[np.zeros(2), np.ones(2)]] * 2
    draw = {"repetitions": 200, "level": 0.2}
    assert bootstrap_interval(tasks, mean, np.random.default_rng(0), shared_agents=True, **draw) == (0.5, 0.5)
    apart = bootstrap_interval(tasks, mean, np.random.default_rng(0), repetitions=200, level=0.8)
    assert apart == (0.25, 0.75), "1/16, 4/16, 6/16, 4/16, 1/16 on 0, 1/4, ..., 1"
    with pytest.raises(ValueError, match=r"shared agents, but \[2, 1\] seeds per task"):
        bootstrap_interval([tasks[0], tasks[0][:1]], mean, np.random.default_rng(0), shared_agents=True)


def test_a_page_grows_with_its_notes():
    short, long = Page("t", "paper", 1.0, ["one line"]), Page("t", "paper", 1.0, ["many words " * 60])
    assert long.height > short.height and long.width == short.width
