"""Refitting of the cross-entropy method: property P1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.planning import refit
from shared.testing import oracles

CANDIDATES, HORIZON, ACTION = 12, 3, 2


def paper(actions, returns):
    return refit(actions, returns, 4, std="paper")


def code(actions, returns):
    return refit(actions, returns, 4, std="code")


FORMS = {"paper": paper, "code": code}


def planner(seed, ties=True):
    """Candidates, and returns with many ties among them."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(size=CANDIDATES)
    return rng.normal(size=(CANDIDATES, HORIZON, ACTION)), np.round(returns) if ties else returns


def test_both_forms_by_hand(run):
    # Best three of five: actions 1, 2, 6. Mean 3; deviations 2, 1, 3.
    # paper: (2 + 1 + 3) / (3 - 1) = 3;    code: sqrt((4 + 1 + 9) / 3 + 1e-6) = 2.1602471
    actions, returns = np.array([1.0, 50.0, 2.0, -70.0, 6.0]).reshape(5, 1, 1), [3.0, 0.0, 1.0, -2.0, 9.0]
    mean, spread = run(lambda a, r: refit(a, r, 3, std="paper"), actions, returns)
    assert_allclose([mean.item(), spread.item()], [3.0, 3.0], rtol=1e-15)
    mean, spread = run(lambda a, r: refit(a, r, 3, std="code"), actions, returns)
    assert_allclose([mean.item(), spread.item()], [3.0, (14 / 3 + 1e-6) ** 0.5], rtol=1e-15)


def test_ties_go_to_the_lower_index(run):
    """Sixty candidates of equal return, long enough for an unstable sort to show: the first five are kept."""
    actions = np.arange(60.0).reshape(60, 1, 1)
    mean, _ = run(lambda a, r: refit(a, r, 5, std="code"), actions, np.ones(60))
    assert mean.item() == 2.0
    mean, _ = run(lambda a, r: refit(a, r, 3, std="code"), actions, np.arange(60) % 30.0)
    assert mean.item() == (29 + 59 + 28) / 3


def test_nan_returns_rank_last(run):
    mean, _ = run(lambda a, r: refit(a, r, 2, std="code"), np.arange(4.0).reshape(4, 1, 1), [np.nan, 0.0, -np.inf, 1.0])
    assert mean.item() == 2.0


def test_one_elite_is_random_shooting(run):
    """The best candidate itself, with the width that the variance floor leaves."""
    actions, returns = planner(0, ties=False)
    mean, spread = run(lambda a, r: refit(a, r, 1, std="code"), actions, returns)
    assert_array_equal(mean, actions[returns.argmax()])
    assert_allclose(spread, 1e-3, rtol=1e-12)


def test_all_elites_are_the_population(run):
    actions, returns = planner(0)
    mean, spread = run(lambda a, r: refit(a, r, CANDIDATES, std="code"), actions, returns)
    assert_allclose(mean, actions.mean(0), rtol=1e-12)
    assert_allclose(spread, np.sqrt(actions.var(0) + 1e-6), rtol=1e-12)


@pytest.mark.parametrize("std", FORMS)
@given(seed=st.integers(0, 2**32 - 1))
def test_refit_equals_a_sorted_list(run, std, seed):
    got, expected = run(FORMS[std], *planner(seed)), oracles.refit(*planner(seed), 4, std)
    assert_allclose(got[0], expected[0], rtol=1e-12, atol=1e-14)
    assert_allclose(got[1], expected[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("std", FORMS)
def test_batch_of_planners_equals_one_planner_each(run, std):
    """(N, J, H, A): the released code mixes them up."""
    actions, returns = (np.stack(x) for x in zip(*(planner(seed) for seed in range(3)), strict=True))
    means, spreads = run(FORMS[std], actions, returns)
    assert means.shape == spreads.shape == (3, HORIZON, ACTION)
    for n in range(3):
        mean, spread = run(FORMS[std], actions[n], returns[n])
        assert_allclose(means[n], mean, rtol=1e-14)
        assert_allclose(spreads[n], spread, rtol=1e-14)


@pytest.mark.property("P1")
@given(st.integers(0, 2**32 - 1), st.permutations(range(CANDIDATES)))
def test_order_of_candidates_does_not_matter_without_ties(run, seed, order):
    actions, returns = planner(seed, ties=False)
    for got, expected in zip(run(code, actions[order], returns[order]), run(code, actions, returns), strict=True):
        assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.property("P1")
@given(st.integers(0, 2**32 - 1))
def test_elites_are_better_than_the_population(run, seed):
    """P1: with the return stored as the action, the mean of the elites' actions is their mean return."""
    _, returns = planner(seed)
    mean, _ = run(code, returns[:, None, None], returns)
    assert mean.item() >= returns.mean()


@pytest.mark.property("P1")
@given(st.integers(0, 2**32 - 1))
def test_the_plan_stays_inside_the_box_of_its_candidates(run, seed):
    """Clipped candidates give a clipped plan. (A planner of no iterations: tests/replications/test_planet.py.)"""
    actions, returns = planner(seed)
    clipped = np.clip(2 * actions, -1, 1)
    mean, _ = run(code, clipped, returns)
    assert np.abs(mean).max() <= 1


@pytest.mark.property("P1")
@pytest.mark.parametrize("std", FORMS)
def test_iterations_converge_on_a_quadratic(run, std):
    """P1: 200 candidates, 20 elites, 12 iterations find the optimum to the width of the variance floor."""
    rng, goal = np.random.default_rng(0), np.array([[0.3, -0.7], [0.5, 0.1]])
    mean, spread = np.zeros((2, 2)), np.ones((2, 2))
    for _ in range(12):
        actions = mean + spread * rng.normal(size=(200, 2, 2))
        returns = -((actions - goal) ** 2).sum((1, 2))
        mean, spread = run(lambda a, r: refit(a, r, 20, std=std), actions, returns)
    assert_allclose(mean, goal, atol=5e-3)
    assert spread.max() < 5e-3


def test_float32_stays_float32(run):
    actions, returns = planner(0)
    for x in run(code, actions.astype(np.float32), returns.astype(np.float32)):
        assert x.dtype == np.float32


@pytest.mark.parametrize("elites, std", [(0, "code"), (13, "code"), (1, "paper"), (13, "paper")])
def test_impossible_elites_are_refused(run, elites, std):
    with pytest.raises(ValueError, match=f"refit: elites is {elites}, expected . to 12"):
        run(lambda a, r: refit(a, r, elites, std=std), *planner(0))


def test_unknown_form_of_std_is_refused():
    with pytest.raises(ValueError, match='refit: std must be "paper" or "code", got \'mad\''):
        refit(*planner(0), 4, std="mad")


def test_two_elites_have_a_spread_in_both_forms():
    # Actions 1 and 3: mean 2, deviations 1 and 1: (1 + 1) / (2 - 1) = 2 and sqrt((1 + 1) / 2 + 1e-6).
    actions, returns = np.array([1.0, 3.0, 9.0]).reshape(3, 1, 1), np.array([1.0, 2.0, 0.0])
    assert refit(actions, returns, 2, std="paper")[1].item() == 2.0
    assert_allclose(refit(actions, returns, 2, std="code")[1].item(), 1.000001**0.5, rtol=1e-15)


def test_shapes_must_fit_together():
    actions, returns = planner(0)
    with pytest.raises(ValueError, match="refit: actions .* and returns .* do not fit"):
        refit(actions, returns[None], 4, std="code")
    with pytest.raises(ValueError, match="refit: actions .* and returns .* do not fit"):
        refit(actions[0], returns, 4, std="code")
    with pytest.raises(ValueError, match="refit: actions .* and returns .* do not fit"):
        refit(actions[0], returns[0], 4, std="code")
