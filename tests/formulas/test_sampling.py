"""Sampling as a function of parameters and noise: properties S1 to S7. unimix is tested in test_categorical.py, the
truncated normal distribution in test_truncated_normal.py."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas import sampling
from shared.formulas._backend import namespace, stop_gradient
from shared.formulas._math import log_softmax
from shared.formulas.distributions import categorical_log_prob
from shared.formulas.sampling import (
    categorical_sample,
    reparameterise,
    score_through,
    straight_through,
)
from shared.testing import oracles_distributions as exact
from tests.formulas.strategies import exact_arrays, exact_same_shape

DRAWS = 20_000


def below_one(run_any):
    """The largest number below 1, the largest draw."""
    return float(np.nextafter(run_any.dtype(1), run_any.dtype(0)))


def dot(x, y):
    return namespace(x, y).sum(x * y, axis=-1)


# Gaussian


def test_sample_by_hand(run):
    assert_array_equal(run(reparameterise, [1.0, 1.0], [2.0, 2.0], [0.0, -1.5]), [1.0, -2.0])


def test_std_may_be_a_number(run):
    assert_array_equal(run(lambda mean, noise: reparameterise(mean, 0.5, noise), [1.0], [2.0]), [2.0])


@given(exact_same_shape((-1e3, 1e3), (2**-10, 1e3), (-6, 6)))
def test_noise_is_recovered(run_any, parameters):
    """The limit of zero noise, and the inverse. JAX flushes subnormals."""
    mean, std, noise = parameters
    assert_allclose(run_any(reparameterise, mean, std, 0 * noise), mean, rtol=0, atol=np.finfo(run_any.dtype).tiny)
    sample = run_any(reparameterise, mean, std, noise).astype(np.float64)
    tolerance = 4 * run_any.eps * (np.abs(mean) / std + np.abs(noise) + 1)
    assert (np.abs((sample - mean) / std - noise) <= tolerance).all()


def test_samples_have_the_mean_and_std_asked_for(run_any):
    noise = np.random.default_rng(0).normal(size=100_000)
    sample = run_any(reparameterise, np.full(100_000, 3.0), np.full(100_000, 0.5), noise).astype(np.float64)
    assert abs(sample.mean() - 3) < 4 * 0.5 / 100_000**0.5    # 4 standard errors, seed fixed
    assert abs(sample.std() - 0.5) < 4 * 0.5 / 200_000**0.5


@pytest.mark.property("S6")
@given(exact_arrays((4,), -100, 100), exact_arrays((4,), 2**-7, 100), exact_arrays((4,), -6, 6))
def test_gradient_is_one_to_the_mean_and_the_noise_to_std(grad_any, mean, std, noise):
    to_mean, to_std, to_noise = grad_any(reparameterise, mean, std, noise)
    assert_array_equal(to_mean, np.ones(4))
    assert_allclose(to_std, noise, rtol=0, atol=np.finfo(grad_any.dtype).tiny)
    assert_array_equal(to_noise, std)


# Categorical: one-hot by inversion


def test_categorical_sample_by_hand(run):
    # p = (1/4, 1/2, 1/4): class 0 below u = 1/4, class 1 from there to 3/4, class 2 from there on
    uniform = [0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999]
    got = run(categorical_sample, np.tile([0.25, 0.5, 0.25], (6, 1)), uniform)
    assert_array_equal(got, np.eye(3)[[0, 0, 1, 1, 2, 2]])


def test_probabilities_need_not_be_normalised_by_hand(run):
    # weights 1, 2, 1: the same, since u meets their sum; a single class is certain
    got = run(categorical_sample, np.tile([1.0, 2.0, 1.0], (3, 1)), [0.2499, 0.25, 0.75])
    assert_array_equal(got, np.eye(3)[[0, 1, 2]])
    assert_array_equal(run(categorical_sample, [[[0.5], [2.0]]], [[0.0, 0.9999]]), [[[1.0], [1.0]]])


def test_every_leading_axis_has_its_own_draw(run):
    # (2 time steps, 3 latents, 2 classes), p = (1/2, 1/2) throughout
    uniform = np.array([[0.1, 0.6, 0.1], [0.6, 0.6, 0.1]])
    got = run(categorical_sample, np.full((2, 3, 2), 0.5), uniform)
    assert_array_equal(got[..., 1], uniform > 0.5)
    assert_array_equal(got.sum(-1), np.ones((2, 3)))


def test_classes_of_probability_zero_are_never_drawn(run_any):
    # zero classes first, between and last, at u = 0, at u just below 1, and where u meets a boundary
    probs = np.array([0.0, 0.25, 0.0, 0.0, 0.75, 0.0, 0.0])
    uniform = [0.0, 0.25, below_one(run_any)]
    got = run_any(categorical_sample, np.tile(probs, (3, 1)), uniform)
    assert_array_equal(got, np.eye(7)[[1, 4, 4]])


def running_sums_in_parallel(x, axis):
    """As a GPU adds up: in log2(K) rounds, so that neighbours are rounded differently and need not grow."""
    step = 1
    while step < x.shape[axis]:
        x = x + np.concatenate([np.zeros_like(x[..., :step]), x[..., :-step]], axis)
        step *= 2
    return x


def test_classes_of_probability_zero_are_never_drawn_where_running_sums_do_not_grow(monkeypatch):
    """Draws exactly where a zero class's running sum exceeds the one before it by a rounding."""
    monkeypatch.setattr(sampling, "cumulative_sum", running_sums_in_parallel)
    rng = np.random.default_rng(0)
    probs = (rng.random((1000, 32)) * (rng.random((1000, 32)) < 0.5)).astype(np.float32)
    probs[:, 0] += np.float32(2**-10)                         # some class is possible
    sums = running_sums_in_parallel(probs, -1)
    row, k = np.nonzero((np.diff(sums, axis=-1) > 0) & (probs[:, 1:] == 0))
    assert len(row) > 100
    drawn = categorical_sample(probs[row], sums[row, k] / sums[row, -1])
    assert_array_equal(drawn.sum(-1), np.ones(len(row)))
    assert (probs[row] * drawn).sum(-1).min() > 0


@given(
    hnp.arrays(np.int64, (2, 5), elements=st.integers(0, 8)).filter(lambda w: w.sum(-1).min() > 0),
    hnp.arrays(np.int64, (2,), elements=st.integers(0, 63)),
)
def test_sample_equals_inversion_in_exact_arithmetic(run_any, weights, uniform):
    """Weights in 1/32 and draws in 1/64: their sums and products are exact in float32, ties included."""
    got = run_any(categorical_sample, weights / 32, uniform / 64)
    expected = [exact.categorical_draw(row / 32, u / 64) for row, u in zip(weights, uniform, strict=True)]
    assert_array_equal(got, expected)


@given(exact_arrays((3, 33), 0, 1), exact_arrays((3,), 0, 1), st.sampled_from([0.25, 1.0, 3.0]))
def test_sample_is_one_hot_and_possible_whatever_the_rounding(run_any, probs, uniform, scale):
    """33 classes, so that their sum rounds; zeros are frequent. Scaling by 1/4 changes nothing at all."""
    probs[:, 7] += 2**-10                                     # some class is possible
    uniform = np.minimum(uniform, below_one(run_any))
    got = run_any(categorical_sample, probs * scale, uniform)
    assert_array_equal(np.sort(got, axis=-1), np.tile(np.eye(33)[-1], (3, 1)))
    tiny = float(np.finfo(run_any.dtype).tiny)                # JAX treats subnormals as zero
    assert (probs[got == 1] * scale >= tiny).all()
    if scale == 0.25:
        assert_array_equal(got, run_any(categorical_sample, probs, uniform))


@given(exact_arrays((5,), 0, 1), exact_arrays((6,), 0, 1))
def test_a_larger_draw_never_gives_an_earlier_class(run_any, probs, uniform):
    uniform = np.sort(np.minimum(uniform, below_one(run_any)))
    drawn = run_any(categorical_sample, np.tile(probs + 2**-10, (6, 1)), uniform).argmax(-1)
    assert (np.diff(drawn) >= 0).all()


@pytest.mark.property("S3")
def test_sample_frequencies_match_the_probabilities(run_any):
    """Chi-square, seed fixed; the impossible class is never drawn."""
    from scipy import stats

    probs = np.array([0.05, 0.2, 0.0, 0.6, 0.15])
    uniform = np.random.default_rng(0).random(DRAWS).astype(np.float32).astype(np.float64)
    counts = run_any(categorical_sample, np.tile(probs, (DRAWS, 1)), np.minimum(uniform, below_one(run_any))).sum(0)
    assert counts.sum() == DRAWS
    assert counts[2] == 0
    possible = probs > 0
    assert stats.chisquare(counts[possible], DRAWS * probs[possible]).pvalue > 1e-3


def test_a_sample_passes_no_gradient(grad):
    def weighted(probs, uniform, weight):
        return categorical_sample(probs, uniform) * weight

    to_probs, to_uniform, to_weight = grad(weighted, [[0.25, 0.75]], [0.5], [[3.0, 5.0]])
    assert_array_equal(to_probs, [[0.0, 0.0]])
    assert_array_equal(to_uniform, [0.0])
    assert_array_equal(to_weight, [[0.0, 1.0]])


# Straight-through


def probabilities(logits):
    return namespace(logits).exp(log_softmax(logits))


def sampled(logits, uniform):
    """A categorical latent as DreamerV2 and V3 have it."""
    probs = probabilities(logits)
    return straight_through(categorical_sample(probs, uniform), probs)


def sampled_dot(logits, uniform, weight):
    return dot(sampled(logits, uniform), weight)


def most_likely_dot(logits, weight):
    """The mode instead of a sample."""
    xp, probs = namespace(logits), probabilities(logits)
    mode = xp.astype(probs == xp.max(probs, axis=-1, keepdims=True), probs.dtype)
    return dot(straight_through(mode, probs), weight)


def detached_dot(logits, uniform, weight):
    return sampled_dot(stop_gradient(logits), uniform, weight)


def test_straight_through_has_the_value_of_the_sample(run):
    assert_array_equal(run(straight_through, [0.0, 1.0], [0.3, 0.7]), [0.0, 1.0])


def test_straight_through_gradient_by_hand(grad):
    # that of weights 5 and 7 goes to the probabilities as it is, none to the sample; to the weights, the sample
    def weighted(sample, probs, weight):
        return straight_through(sample, probs) * weight

    got = grad(weighted, [0.0, 1.0], [0.3, 0.7], [5.0, 7.0])
    assert_array_equal(got, [[0.0, 0.0], [5.0, 7.0], [0.0, 1.0]])


@pytest.mark.property("S1")
@given(exact_arrays((4, 5), -1e4, 1e4), exact_arrays((4,), 0, 1))
@example(np.log([[0.1, 0.2, 0.3, 0.2, 0.2]] * 4), np.array([0.0, 0.1, 0.5, 1.0]))
def test_forward_value_is_exactly_one_hot(run_any, logits, uniform):
    uniform = np.minimum(uniform, below_one(run_any))
    got = run_any(sampled, logits, uniform)
    assert set(np.unique(got)) <= {0.0, 1.0}
    assert_array_equal(got.sum(-1), np.ones(4))


@pytest.mark.property("S2")
@given(exact_arrays((2, 3), -8, 8), exact_arrays((2,), 0, 1), exact_arrays((2, 3), -4, 4))
def test_backward_is_the_softmax_jacobian_whatever_was_drawn(grad_any, logits, uniform, weight):
    """J^T g, the same for every draw, bit for bit; none to the draw. Three terms of at most 4, with roundings each."""
    uniform = np.minimum(uniform, below_one(grad_any))
    to_logits, to_uniform, to_weight = grad_any(sampled_dot, logits, uniform, weight)
    expected = np.einsum("...ij,...i->...j", exact.softmax_jacobian(logits), weight)
    assert_allclose(to_logits, expected, rtol=0, atol=64 * grad_any.eps)
    assert_array_equal(to_uniform, [0.0, 0.0])
    assert_array_equal(to_weight.sum(-1), [1.0, 1.0])         # the sample
    assert_array_equal(grad_any(sampled_dot, logits, 1 - uniform / 2 - 2**-10, weight)[0], to_logits)


@pytest.mark.property("S4")
def test_the_mode_has_the_same_backward(grad_any):
    rng = np.random.default_rng(0)
    logits, weight, uniform = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.random(4)
    from_mode, mode = grad_any(most_likely_dot, logits, weight)
    assert_array_equal(mode, np.eye(3)[logits.argmax(-1)])
    assert_allclose(from_mode, grad_any(sampled_dot, logits, uniform, weight)[0], rtol=0, atol=4 * grad_any.eps)


@pytest.mark.property("S5")
def test_detached_probabilities_receive_nothing(grad_any):
    rng = np.random.default_rng(0)
    to_logits, _, sample = grad_any(detached_dot, rng.normal(size=(4, 3)), rng.random(4), rng.normal(size=(4, 3)))
    assert_array_equal(to_logits, np.zeros((4, 3)))
    assert_array_equal(sample.sum(-1), np.ones(4))


# Score function


def bandit(logits, uniform, reward):
    """REINFORCE: reward of the drawn arm times its log-probability, one estimate per row."""
    sample = categorical_sample(probabilities(logits), uniform)
    return stop_gradient(dot(sample, reward)) * categorical_log_prob(sample, logits)


def bandit_through(logits, uniform, reward):
    """The same by `score_through`, inside the sample."""
    sample = categorical_sample(probabilities(logits), uniform)
    return dot(score_through(sample, categorical_log_prob(sample, logits)), reward)


BANDITS = {"log-probability": bandit, "score_through": bandit_through}
LOGITS, REWARD = np.array([0.5, -0.5, 1.0, 0.0]), np.array([1.0, -2.0, 0.5, 4.0])


DRAWN = [[0.0, 1.0], [1.0, 0.0]]


def test_score_through_has_the_value_of_the_sample(run):
    assert_array_equal(run(score_through, DRAWN, [-0.7, -0.1]), DRAWN)
    assert_array_equal(run(score_through, [[DRAWN]], [[[-0.7, -0.1]]]), [[DRAWN]])           # more leading axes


def test_score_through_gradient_by_hand(grad):
    # 0 * 5 + 1 * 7 for the row that drew class 1, and 5 for the one that drew class 0
    def weighted(sample, log_prob, weight):
        return score_through(sample, log_prob) * weight

    to_sample, to_log_prob, to_weight = grad(weighted, DRAWN, [-0.7, -0.1], [[5.0, 7.0], [5.0, 7.0]])
    assert_array_equal(to_sample, np.zeros((2, 2)))
    assert_array_equal(to_log_prob, [7.0, 5.0])
    assert_array_equal(to_weight, DRAWN)


@pytest.mark.property("S7")
@pytest.mark.parametrize("name", BANDITS)
def test_the_score_function_is_unbiased(grad_any, name):
    """Mean of 20,000 estimates within 4 standard errors of the gradient by enumeration (seed fixed)."""
    uniform = np.random.default_rng(1).random(DRAWS).astype(np.float32).astype(np.float64)
    logits, reward = np.tile(LOGITS, (DRAWS, 1)), np.tile(REWARD, (DRAWS, 1))
    estimates = grad_any(BANDITS[name], logits, np.minimum(uniform, below_one(grad_any)), reward)[0].astype(np.float64)
    error = np.abs(estimates.mean(0) - exact.expected_reward_gradient(LOGITS, REWARD))
    assert (error < 4 * estimates.std(0) / DRAWS**0.5).all()
    assert estimates.std(0).min() > 0.1                       # the estimates do scatter, so the test can fail


def straight_through_reward(logits, sample, slope):
    """Reward (slope . x)^2 + slope . x of a given draw: not linear in the draw."""
    total = dot(straight_through(sample, probabilities(logits)), slope)
    return total * total + total


def straight_through_linear(logits, sample, slope):
    return dot(straight_through(sample, probabilities(logits)), slope)


@pytest.mark.property("S7")
def test_straight_through_is_biased_unless_the_reward_is_linear(grad_any):
    """By enumeration of all draws: sum_k p_k (gradient given draw k), against the gradient of sum_k p_k reward_k."""
    p, logits, slope = np.exp(exact.log_softmax(LOGITS[None])[0]), np.tile(LOGITS, (4, 1)), np.tile(REWARD, (4, 1))
    linear, curved = (
        p @ grad_any(function, logits, np.eye(4), slope)[0].astype(np.float64)
        for function in (straight_through_linear, straight_through_reward)
    )
    assert_allclose(linear, exact.expected_reward_gradient(LOGITS, REWARD), rtol=0, atol=64 * grad_any.eps)
    average = exact.straight_through_expectation(LOGITS, lambda x: (2 * x @ REWARD + 1) * REWARD)
    assert_allclose(curved, average, rtol=0, atol=512 * grad_any.eps)
    bias = curved - exact.expected_reward_gradient(LOGITS, REWARD**2 + REWARD)
    assert np.abs(bias).max() > 0.5


# Types and shapes


def test_float32_stays_float32(run):
    x, uniform = np.full((2, 3), 0.25, np.float32), np.full((2,), 0.5, np.float32)
    assert run(reparameterise, x, x, x).dtype == np.float32
    assert run(categorical_sample, x, uniform).dtype == run(straight_through, x, x).dtype == np.float32
    assert run(score_through, x, uniform).dtype == np.float32


@pytest.mark.parametrize("function, odd", [(reparameterise, 0), (reparameterise, 1), (reparameterise, 2),
                                           (straight_through, 0), (straight_through, 1)])  # fmt: skip
def test_shapes_must_agree(run, function, odd):
    count = 3 if function is reparameterise else 2
    with pytest.raises(ValueError, match=rf"{function.__name__}: .*\(2, 1\).*broadcast explicitly"):
        run(function, *(np.ones((2, 1) if i == odd else (2, 3)) for i in range(count)))


@pytest.mark.parametrize("function", [categorical_sample, score_through])
@pytest.mark.parametrize("shape", [(2, 3), (2, 1), (1,), ()])
def test_there_is_one_draw_per_categorical(run, function, shape):
    with pytest.raises(ValueError, match=rf"{function.__name__}: .* \(2, 3\) and .* do not fit; expected \(..., K\)"):
        run(function, np.ones((2, 3)), np.zeros(shape))


def test_libraries_do_not_mix():
    import torch

    with pytest.raises(TypeError, match="arrays of one library"):
        reparameterise(np.zeros(2), np.ones(2), torch.zeros(2))
    with pytest.raises(TypeError, match="arrays of one library"):
        score_through(np.ones((2, 1)), torch.zeros(2))
