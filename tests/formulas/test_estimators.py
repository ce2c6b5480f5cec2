"""Gradients through a categorical sample, against the exact one by enumeration: property S7 and the estimator study."""

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from shared.formulas.sampling import categorical_sample
from shared.testing import estimators, oracles
from shared.testing.estimators import (
    by_gumbel_softmax,
    by_score,
    by_score_through,
    by_score_with_baseline,
    by_straight_through,
    by_straight_through_gumbel,
    enumerated_quality,
    exact_gradient,
    gradients,
    random_problem,
    sampled_quality,
)

DRAWS = 40_000
ROUNDING = 1e-20  # a squared relative error of 1e-10: far above float64's rounding, far below any bias here


def problem_of(weight, logits=(0.0, 0.0), shift=0.0, linear=False):
    """A reward tanh(w_k + shift), or w_k + shift, of class k."""
    import torch

    one = [[float(w)] for w in weight]
    parts = (list(map(float, logits)), one, [shift], [1.0])
    return estimators.Problem(*(torch.tensor(part, dtype=torch.float64) for part in parts), linear=linear)


def drawn_problem(seed=0, classes=5, share=0.5, reward="network"):
    return random_problem(np.random.default_rng(seed), classes, share, reward)


def sampled_gradients(estimator, problem):
    """Estimates at draws of the formula that models use, (DRAWS, K)."""
    import torch

    uniform = torch.tensor(np.random.default_rng(1).uniform(size=DRAWS))
    sample = categorical_sample(problem.logits.softmax(-1).repeat(DRAWS, 1), uniform)
    return gradients(lambda logits: estimator(problem, logits, sample), problem, DRAWS)


def gumbel_gradients(estimator, problem, temperature):
    import torch

    gumbel = torch.tensor(np.random.default_rng(2).gumbel(size=(DRAWS, len(problem.logits))))
    return gradients(lambda logits: estimator(problem, logits, gumbel, temperature), problem, DRAWS)


def standard_errors_off(each, expected):
    """The largest |mean - expected| over components, in standard errors."""
    return np.max(np.abs(each.mean(0) - expected) / (each.std(0, ddof=1) / len(each) ** 0.5))


# The exact gradient


def test_exact_gradient_by_hand():
    # p = (1/2, 1/2), rewards 3 and 1: d/dl_0 = p_0 (r_0 - E r) = 1/2 (3 - 2)
    assert_allclose(exact_gradient(problem_of([3, 1], linear=True)), [0.5, -0.5], rtol=1e-15)


@pytest.mark.parametrize("reward", ["network", "linear"])
def test_exact_gradient_equals_finite_differences_of_the_enumerated_expectation(reward):
    problem = drawn_problem(reward=reward)
    weight, shift, readout = (x.numpy() for x in (problem.weight, problem.shift, problem.readout))

    def expectation(logits):
        total = 0.0
        for k, p in enumerate(np.exp(logits) / np.exp(logits).sum()):
            hidden = weight[k] + shift
            total += p * ((hidden if reward == "linear" else np.tanh(hidden)) @ readout)
        return total

    (expected,) = oracles.finite_difference(expectation, problem.logits.numpy())
    assert_allclose(exact_gradient(problem), expected, atol=1e-9)  # step 1e-6: rounding 1e-10, truncation 1e-12


# One draw: no noise, for every class is enumerated


def test_straight_through_by_hand():
    # Rewards tanh(1) and 0 at p = (1/2, 1/2): exact 1/4 tanh(1) (1, -1). Straight-through uses the slope at the draw:
    # 1/4 (1 - tanh(1)^2) (1, -1) or 1/4 (1, -1), each half of the time.
    exact, slopes = math.tanh(1), (1 - math.tanh(1) ** 2, 1.0)
    got = enumerated_quality(by_straight_through, problem_of([1, 0]))
    assert_allclose(got["bias"], (sum(slopes) / 2 / exact - 1) ** 2, rtol=1e-12)  # 0.0046
    assert_allclose(got["variance"], ((slopes[1] - slopes[0]) / 2 / exact) ** 2, rtol=1e-12)  # 0.145
    assert_allclose(got["cosine"], 1, rtol=1e-12)  # with two classes there is one direction


def test_score_function_by_hand():
    # Rewards 3 and 1 at p = (1/2, 1/2): estimates 3 (1/2, -1/2) and 1 (-1/2, 1/2), mean (1/2, -1/2) = g, |g|^2 = 1/2;
    # variance E|.|^2 - |g|^2 = (9/2 + 1/2) / 2 - 1/2 = 2. Less the mean reward 2: both estimates are (1/2, -1/2).
    problem = problem_of([3, 1], linear=True)
    plain, less = (enumerated_quality(e, problem) for e in (by_score, by_score_with_baseline))
    assert_allclose([plain["variance"], less["variance"]], [2 / 0.5, 0], atol=1e-15)
    assert max(plain["bias"], less["bias"]) < ROUNDING


@pytest.mark.property("S7")
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 17]), st.sampled_from([1 / 32, 1 / 2, 1]))
def test_score_function_is_unbiased_with_and_without_baseline(seed, classes, share):
    problem = drawn_problem(seed, classes, share)
    size = np.square(exact_gradient(problem)).sum()  # the bias is rounding of rewards of the size of 1
    assert enumerated_quality(by_score, problem)["bias"] * size < ROUNDING
    assert enumerated_quality(by_score_with_baseline, problem)["bias"] * size < ROUNDING


@pytest.mark.property("S7")
@pytest.mark.parametrize("estimator", [by_straight_through, by_score_through])
def test_straight_through_is_biased_unless_the_reward_is_linear(estimator):
    """The witness: a nonlinear reward; and the only case without bias."""
    assert enumerated_quality(estimator, drawn_problem(reward="network"))["bias"] > 0.01
    assert enumerated_quality(estimator, drawn_problem(reward="linear"))["bias"] < ROUNDING


def test_straight_through_of_a_linear_reward_does_not_even_vary():
    assert enumerated_quality(by_straight_through, drawn_problem(reward="linear"))["variance"] < ROUNDING


@pytest.mark.parametrize("classes", [2, 5, 16])
def test_baseline_lowers_the_variance_of_equally_likely_classes_by_a_known_amount(classes):
    # |z - p|^2 = 1 - 1/K at every class, so the expected reward is the best baseline and saves (E r)^2 (1 - 1/K)
    reward = np.random.default_rng(3).normal(1, 1, classes)
    problem = problem_of(reward, np.zeros(classes), linear=True)
    plain, less = (enumerated_quality(e, problem)["variance"] for e in (by_score, by_score_with_baseline))
    size = np.square(exact_gradient(problem)).sum()
    assert_allclose((plain - less) * size, reward.mean() ** 2 * (1 - 1 / classes), rtol=1e-10)


def test_baseline_can_raise_the_variance_where_the_rewarded_class_is_the_likely_one():
    # p = (0.9, 0.1), rewards 1 and 0. |z - p|^2 = 0.02 or 1.62, |g|^2 = 2 * 0.09^2 = 0.0162.
    # Plain: 0.9 * 1 * 0.02 - 0.0162 = 0.0018. Less 0.9: 0.9 * 0.01 * 0.02 + 0.1 * 0.81 * 1.62 - 0.0162 = 0.1152.
    problem = problem_of([1, 0], (math.log(9), 0), linear=True)
    got = [enumerated_quality(e, problem)["variance"] * 0.0162 for e in (by_score, by_score_with_baseline)]
    assert_allclose(got, [0.0018, 0.1152], rtol=1e-10)


def test_variance_of_the_score_function_grows_with_the_classes_and_that_of_straight_through_does_not():
    """What the report's reading says, for the medians of its own first eight problems."""

    def median(estimator, classes):
        problems = [drawn_problem([0, classes, problem], classes) for problem in range(8)]
        return np.median([enumerated_quality(estimator, problem)["variance"] for problem in problems])

    assert median(by_score_with_baseline, 64) > 8 * median(by_score_with_baseline, 4)
    assert median(by_straight_through, 64) < 2 * median(by_straight_through, 4)


# Sampled


@pytest.mark.property("S7")
@pytest.mark.parametrize("estimator", [by_score, by_score_with_baseline])
def test_score_function_passes_a_z_test(estimator):
    problem = drawn_problem()
    assert standard_errors_off(sampled_gradients(estimator, problem), exact_gradient(problem)) < 4


@pytest.mark.property("S7")
@pytest.mark.parametrize("estimator", [by_straight_through, by_score_through])
def test_biased_estimators_of_one_draw_fail_the_z_test_by_their_enumerated_bias(estimator):
    problem = drawn_problem()
    each = sampled_gradients(estimator, problem)
    assert standard_errors_off(each, exact_gradient(problem)) > 10
    probs = problem.logits.softmax(-1).numpy()
    classes = gradients(lambda logits: estimator(problem, logits, problem.classes()), problem, len(probs))
    assert standard_errors_off(each, probs @ classes) < 4


@pytest.mark.parametrize(("estimator", "slope_at"), [(by_gumbel_softmax, 0.75), (by_straight_through_gumbel, 1.0)])
def test_gumbel_estimators_by_hand(estimator, slope_at):
    # Noise (2 log 3, 0) at temperature 2: relaxed sample (3/4, 1/4), hard sample (1, 0). d z_0 / d l_0 = 3/4 * 1/4 / 2,
    # times the slope of tanh(z_0): at the relaxed sample, or straight through at the hard one.
    import torch

    problem, gumbel = problem_of([1, 0]), torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    (got,) = gradients(lambda logits: estimator(problem, logits, gumbel, 2.0), problem, 1)
    expected = (1 - math.tanh(slope_at) ** 2) * 3 / 32
    assert_allclose(got, [expected, -expected], rtol=1e-12)


@pytest.mark.parametrize("estimator", [by_gumbel_softmax, by_straight_through_gumbel])
def test_gumbel_estimators_fail_the_z_test(estimator):
    problem = drawn_problem()
    assert standard_errors_off(gumbel_gradients(estimator, problem, 1.0), exact_gradient(problem)) > 10


def test_temperature_trades_bias_for_variance():
    problem = drawn_problem()
    each = [gumbel_gradients(by_gumbel_softmax, problem, temperature) for temperature in (0.3, 1.0, 3.0)]
    bias = [np.square(e.mean(0) - exact_gradient(problem)).sum() for e in each]
    variance = [e.var(0).sum() for e in each]
    assert all(2 * cold < hot for cold, hot in itertools.pairwise(bias))
    assert all(cold > 2 * hot for cold, hot in itertools.pairwise(variance))


def test_both_gumbel_estimators_agree_where_the_reward_is_linear():
    """The hard sample only enters through the slope of the reward, and a linear one has the same everywhere."""
    problem = drawn_problem(reward="linear")
    soft, hard = (gumbel_gradients(e, problem, 0.5) for e in (by_gumbel_softmax, by_straight_through_gumbel))
    assert_allclose(soft, hard, atol=1e-12)


def test_sampled_quality_finds_the_enumerated_one_within_its_errors():
    """Straight-through with its draw made by the Gumbel-max trick: one estimator, judged by both judges."""

    def by_gumbel_max(problem, logits, gumbel, temperature):
        return by_straight_through(problem, logits, problem.classes()[(problem.logits + gumbel).argmax(-1)])

    problem = drawn_problem()
    gumbel = np.random.default_rng(4).gumbel(size=(DRAWS, 5))
    expected = enumerated_quality(by_straight_through, problem)
    got = sampled_quality(by_gumbel_max, problem, gumbel, 1.0)
    for name in ("bias", "variance", "cosine"):
        assert 0 < got[f"{name}_error"] < 0.1 * expected[name]
        assert abs(got[name] - expected[name]) < 4 * got[f"{name}_error"]


def test_monte_carlo_errors_are_the_scatter_of_repetitions():
    problem, rng = drawn_problem(), np.random.default_rng(5)
    every = [sampled_quality(by_gumbel_softmax, problem, rng.gumbel(size=(400, 5)), 1.0) for _ in range(60)]
    for name in ("bias", "variance", "cosine"):
        scatter = np.std([quality[name] for quality in every])  # of 60: known to 9 %
        assert 0.6 < np.median([quality[f"{name}_error"] for quality in every]) / scatter < 1.6


def test_square_of_a_mean_is_estimated_from_products_of_different_rows():
    # rows 1, 3, -2: (1*3 + 1*-2 + 3*-2) / 3 = -5/3, though the square of their mean is 4/9
    assert_allclose(estimators._square_of_mean(np.array([[1.0], [3.0], [-2.0]])), -5 / 3, rtol=1e-15)


# The study


def test_share_splits_the_mean_square_of_the_input_between_sample_and_rest():
    half, little = (drawn_problem(share=share) for share in (1 / 2, 1 / 32))
    assert_allclose(half.weight, 4 * little.weight)  # sqrt(16)
    assert_allclose(half.shift, little.shift * (16 / 31) ** 0.5)
    assert_allclose(half.logits, little.logits)
    whole = drawn_problem(classes=4000, share=1.0)
    assert abs(np.square(whole.weight.numpy()).mean() - 1) < 0.02 and not whole.shift.any()  # 5 standard errors


def test_the_study_writes_the_same_bytes_twice_and_another_seed_others(tmp_path, monkeypatch):
    monkeypatch.setattr(estimators, "CLASSES", (2, 3))
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        path = tmp_path / f"{name}.csv"
        options = ["--samples", "45", "--problems", "1", "--seed", str(seed)]
        assert estimators.main(["--numbers", str(path), *options]) == 0
        tables.append(path.read_text())
    assert tables[0] == tables[1]
    numbers = [pd.read_csv(io.StringIO(tables[index]))["variance"] for index in (0, 2)]
    assert (numbers[0] != numbers[1]).all()
    # 2 numbers of classes, two shares with 4 + 2 * 4 estimators, the linear reward with 4; 45 draws are 20 * 2
    assert tables[0].count("\n") == 1 + 2 * (2 * 12 + 4)
    assert ",40,0," in tables[0].splitlines()[1]


@pytest.mark.parametrize("option", [["--samples", "39"], ["--problems", "0"], ["--seed", "-1"]])
def test_a_study_of_nothing_is_refused(option, tmp_path, capsys):
    assert estimators.main(["--numbers", str(tmp_path / "n.csv"), *option]) == 2
    assert "--samples >= 40" in capsys.readouterr().err and not list(tmp_path.iterdir())
