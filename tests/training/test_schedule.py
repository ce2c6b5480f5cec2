"""The cadence: hand-counted cases of PlaNet's numbers, and the property that makes resuming exact."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import ROOT, build, read_yaml
from shared.training.schedule import RatioSchedule, Schedule

PAPER = build(Schedule, read_yaml(ROOT / "replications/planet/paper.yaml")["schedule"], where="paper.yaml")


def test_planet_pretrains_100_updates_and_then_100_after_every_episode():
    assert PAPER.updates_due(-1, 0) == 0
    assert PAPER.updates_due(0, 4999) == 0
    assert PAPER.updates_due(4992, 5000) == 100
    assert PAPER.updates_due(5000, 5999) == 0
    assert PAPER.updates_due(5992, 6000) == 100


def test_planet_has_made_99_500_updates_before_its_1000th_episode():
    assert PAPER.updates_due(-1, 999_000) == 99_500


def test_planet_evaluates_after_5_15_25_episodes_and_at_the_end():
    due = [episode for episode in range(1, 1001) if PAPER.evaluation_due(1000 * episode - 1000, 1000 * episode)]
    assert due == [*range(5, 1000, 10), 1000]


def test_the_last_step_needs_no_checkpoint():
    due = [episode for episode in range(1, 1001) if PAPER.checkpoint_due(1000 * episode - 1000, 1000 * episode)]
    assert due == [*range(5, 1000, 5)]


def plans():
    small = st.integers(1, 40)
    return st.builds(
        Schedule,
        total_env_steps=st.integers(1, 300),
        prefill_env_steps=st.integers(0, 60),
        learn_every_env_steps=small,
        updates_per_learn=small,
        pretrain_updates=st.integers(0, 9),
        evaluate_every_env_steps=small,
        checkpoint_every_env_steps=small,
    )


@given(plans(), st.lists(st.integers(-1, 400), min_size=3, max_size=3).map(sorted))
def test_updates_are_additive_over_any_split(plan, points):
    a, b, c = points
    assert plan.updates_due(a, b) + plan.updates_due(b, c) == plan.updates_due(a, c)


@given(plans(), st.lists(st.integers(-1, 400), min_size=3, max_size=3).map(sorted))
def test_an_evaluation_is_due_in_a_span_if_it_is_due_in_one_of_its_parts(plan, points):
    a, b, c = points
    assert plan.evaluation_due(a, c) == (plan.evaluation_due(a, b) or plan.evaluation_due(b, c))


@pytest.mark.parametrize("field", ["learn_every_env_steps", "total_env_steps", "evaluate_every_env_steps"])
def test_a_cadence_of_zero_is_refused(field):
    with pytest.raises(Exception, match=field):
        build(Schedule, {**PAPER.model_dump(), field: 0}, where="a test")


# ------------------------------------------------------------------------------------------------ DreamerV3: by rows


def ratio(train_ratio, envs=16, fill=1024, *, random_fill=False, window=65, steps=1024):
    settings = RatioSchedule(
        total_env_steps=500_000,
        train_ratio=train_ratio,
        fill_windows=fill,
        evaluate_every_env_steps=10_000,
        checkpoint_every_env_steps=50_000,
    )
    return settings.plan(envs, window=window, steps=steps, random_fill=random_fill)


@pytest.mark.parametrize(
    ("envs", "fill", "rows"),
    [(16, 1024, 2048), (1, 1024, 1088), (16, 16, 1040), (1, 16, 80)],  # HEAD and 2024, section 1 step 2 of the sheet
)
def test_the_first_update_comes_with_the_window_that_fills_the_replay(envs, fill, rows):
    plan = ratio(512, envs, fill)
    assert (plan.updates_due(-1, rows - 1), plan.updates_due(rows - 1, rows)) == (0, 1)


def test_a_ratio_of_512_is_an_update_every_other_row_and_one_of_32_every_32_rows():
    assert [ratio(512).updates_due(2048, 2048 + rows) for rows in (1, 2, 3, 4)] == [0, 1, 1, 2]
    assert [ratio(32).updates_due(2048, 2048 + rows) for rows in (31, 32, 63, 64)] == [0, 1, 1, 2]


def test_fractions_of_an_update_are_carried_over_as_the_authors_do():
    """elements.when.Ratio, written out: what is owed moves the mark by whole updates only."""
    for train_ratio in (96, 512, 1024, 1536, 2500):
        plan, mark, owed = ratio(train_ratio), None, []
        for row in range(2048, 2200):
            repeats = 1 if mark is None else int((row - mark) * Fraction(train_ratio, 1024))
            mark = row if mark is None else mark + repeats / Fraction(train_ratio, 1024)
            owed.append(repeats)
        assert [plan.updates_due(row - 1, row) for row in range(2048, 2200)] == owed


def test_random_actions_fill_the_replay_only_where_asked():
    assert ratio(512, random_fill=True).random_until == 2048
    assert ratio(512).random_until == 0


def test_a_run_by_rows_is_evaluated_and_saved_by_env_steps_from_the_first_on():
    plan = ratio(512)
    assert plan.evaluation_due(-1, 0) and plan.checkpoint_due(-1, 0)
    assert not plan.evaluation_due(0, 9_999) and plan.evaluation_due(9_999, 10_031)
    assert plan.evaluation_due(499_990, 500_022) and not plan.checkpoint_due(499_990, 500_022)
