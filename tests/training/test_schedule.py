"""The cadence: hand-counted cases of PlaNet's numbers, and the property that makes resuming exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import ROOT, build, read_yaml
from shared.training.schedule import Schedule

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
