"""Categorical latents: KL, log-probability, entropy, unimix. Properties K1 to K5 and K13 of the categorical side."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.distributions import categorical_entropy, categorical_log_prob
from shared.formulas.divergences import categorical_kl
from shared.formulas.sampling import unimix
from shared.testing import oracles
from shared.testing import oracles_distributions as exact
from tests.formulas.strategies import SHAPES, exact_arrays, exact_same_shape

CLASSES = 3                                    # the most that strategies.SHAPES has on its last axis
MIXES = {mix: (lambda logits, mix=mix: unimix(logits, mix)) for mix in (0.0, 2**-7, 0.5, 1.0)}     # exact in float32
KL_FROM_MIXED = {mix: (lambda p, q, mix=mix: categorical_kl(p, unimix(q, mix))) for mix in (2**-7, 0.5)}
EXTREME = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]])
# weights 1, 1, 2 and 1, 2, 1: p = (1/4, 1/4, 1/2), q = (1/4, 1/2, 1/4)
P, Q = np.log([[1.0, 1.0, 2.0]]), np.log([[1.0, 2.0, 1.0]])


def rounding(eps, *logits):
    """What a sum of p (log p - log q) may be off. A logarithm carries eps (spread of the logits + K), as a difference
    from the largest and a sum of K terms; so do the weights, relatively, but p |log p| <= 1 / e keeps that small."""
    spread = max(float(np.max(x) - np.min(x)) for x in logits)
    return 4 * eps * (CLASSES + spread)


def eighths(low, high):
    """Logits in multiples of 1/8: sums with other such numbers are exact in float32."""
    shapes = st.sampled_from(SHAPES)
    return shapes.flatmap(lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(8 * low, 8 * high))).map(
        lambda x: x / 8
    )


# By hand


def test_kl_by_hand(run):
    # 1/4 log 1 + 1/4 log(1/2) + 1/2 log 2 = log(2) / 4;   rows of two: p = (1/2, 1/2), q = (1/4, 3/4):
    # 1/2 log 2 + 1/2 log(2/3) = log(4/3) / 2, and the other way 1/4 log(1/2) + 3/4 log(3/2)
    assert_allclose(run(categorical_kl, P, Q), [math.log(2) / 4], rtol=1e-14)
    got = run(categorical_kl, np.log([[1.0, 1.0], [1.0, 3.0]]), np.log([[1.0, 3.0], [1.0, 1.0]]))
    assert_allclose(got, [math.log(4 / 3) / 2, math.log(0.5) / 4 + 0.75 * math.log(1.5)], rtol=1e-14)


def test_kl_sums_the_classes_and_keeps_the_other_axes(run):
    logits_p, logits_q = np.zeros((2, 5, 4)), np.broadcast_to(np.log([1.0, 1.0, 1.0, 5.0]), (2, 5, 4))
    # p uniform over 4, q = (1, 1, 1, 5) / 8: 3/4 log 2 + 1/4 log(2/5)
    expected = 0.75 * math.log(2) + 0.25 * math.log(0.4)
    assert_allclose(run(categorical_kl, logits_p, logits_q), np.full((2, 5), expected), rtol=1e-14)


def test_log_prob_by_hand(run):
    # log p_2 = log(1/2); a soft label (1/2, 1/2, 0) gives (log 1/4 + log 1/4) / 2; a sum of labels is not normalised
    got = run(categorical_log_prob, [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [1.0, 0.0, 2.0]], np.repeat(P, 3, axis=0))
    assert_allclose(got, [-math.log(2), -math.log(4), -math.log(4) - 2 * math.log(2)], rtol=1e-14)


def test_entropy_by_hand(run):
    # 1/4 log 4 + 1/4 log 4 + 1/2 log 2 = 3/2 log 2;   uniform over 3: log 3;   certain: 0
    got = run(categorical_entropy, [P[0], [7.0, 7.0, 7.0], [1e4, 0.0, 0.0]])
    assert_allclose(got, [1.5 * math.log(2), math.log(3), 0], rtol=1e-14)


def test_unimix_by_hand(run):
    # weights 1, 3 mixed with a fifth of (1/2, 1/2): 0.8 * (1/4, 3/4) + 0.1 = (0.3, 0.7)
    assert_allclose(run(lambda x: unimix(x, 0.2), np.log([[1.0, 3.0]])), np.log([[0.3, 0.7]]), rtol=1e-14)
    # DreamerV3's 1 % of a certain latent of 32 classes: 0.01 / 32 for each loser, 0.99 more for the winner
    got = run(lambda x: unimix(x, 0.01), [[1e4] + [0.0] * 31])
    assert_allclose(got, np.log([[0.99 + 0.01 / 32] + [0.01 / 32] * 31]), rtol=1e-14)
    # (1 time step, 2 latents, 3 classes): uniform stays uniform
    assert_allclose(run(MIXES[0.5], np.zeros((1, 2, 3))), np.full((1, 2, 3), -math.log(3)), rtol=1e-14)


def test_unimix_of_nothing_and_of_everything(run):
    logits = np.log([[1.0, 3.0]])
    assert_allclose(run(MIXES[0.0], logits), np.log([[0.25, 0.75]]), rtol=1e-14)
    assert_allclose(run(MIXES[1.0], logits), np.log([[0.5, 0.5]]), rtol=1e-14)
    assert_array_equal(run(MIXES[0.0], [[1e4, -1e4]]), [[0.0, -2e4]])


def test_float32_stays_float32(run):
    x = np.ones((2, 3), np.float32)
    assert run(categorical_kl, x, x).dtype == np.float32
    assert run(categorical_log_prob, x, x).dtype == np.float32
    assert run(categorical_entropy, x).dtype == np.float32
    assert {run(function, x).dtype for function in MIXES.values()} == {np.dtype(np.float32)}


# KL: properties


@pytest.mark.property("K1")
@given(exact_same_shape((-100, 100), (-100, 100)))
def test_kl_is_never_negative(run_any, logits):
    assert run_any(categorical_kl, *logits).min() >= -rounding(run_any.eps, *logits)


@pytest.mark.property("K1", "K4")
@given(eighths(-100, 100), st.integers(-800, 800))
def test_kl_of_equal_distributions_is_exactly_zero(run_any, logits, eighth):
    """Also where the logits differ by a constant, here added without rounding."""
    assert_array_equal(run_any(categorical_kl, logits, logits + eighth / 8), np.zeros(logits.shape[:-1]))


@pytest.mark.property("K1")
@given(exact_arrays((2, CLASSES), -2, 2), st.integers(0, CLASSES - 1), st.sampled_from([-0.5, 0.5, 4.0]))
def test_kl_is_positive_once_a_class_differs(run_any, logits, k, change):
    """Class k and the others keep at least e^-4 / 3 each, so the KL is at least 1e-4 beside roundings of 1e-5."""
    other = logits.copy()
    other[:, k] += change
    assert run_any(categorical_kl, logits, other).min() > 1e-4
    assert run_any(categorical_kl, other, logits).min() > 1e-4


@pytest.mark.property("K2")
@given(exact_same_shape((-50, 50), (-50, 50)))
def test_kl_equals_torch_distributions(run_any, logits):
    tolerance = rounding(run_any.eps, *logits)
    assert_allclose(run_any(categorical_kl, *logits), exact.categorical_kl_by_torch(*logits), rtol=0, atol=tolerance)


@pytest.mark.property("K2", "K13")
@given(exact_same_shape((-1e4, 1e4), (-1e4, 1e4)))
@example((EXTREME, EXTREME[::-1].copy()))
def test_kl_equals_its_definition_with_50_digits(run_any, logits):
    """Finite up to logits of 1e4, where probabilities underflow in every dtype."""
    tolerance = rounding(run_any.eps, *logits)
    assert_allclose(run_any(categorical_kl, *logits), exact.categorical_kl(*logits), rtol=0, atol=tolerance)


@pytest.mark.property("K2")
def test_kl_equals_monte_carlo(run_any):
    """Within 4 standard errors of 200,000 draws (seed fixed, so this never flickers)."""
    logits_p, logits_q = np.array([[0.3, -1.2, 0.9, 0.0]]), np.array([[-0.5, 0.4, 1.1, -0.2]])
    log_p, log_q = exact.log_softmax(logits_p)[0], exact.log_softmax(logits_q)[0]
    draws = np.random.default_rng(1).choice(4, size=200_000, p=np.exp(log_p))
    sample = (log_p - log_q)[draws]
    error = abs(run_any(categorical_kl, logits_p, logits_q)[0] - sample.mean())
    assert error < 4 * sample.std() / len(sample) ** 0.5


@pytest.mark.property("K3")
@given(exact_arrays((2, 3), -20, 20), exact_arrays((2, 3), -20, 20))
def test_kl_is_additive_over_independent_categoricals(run_any, logits_p, logits_q):
    """Two independent categoricals of 3 classes are one of 9, whose logits are the sums. float32 rounds those sums to
    eps * 20, as if logits differed by that."""
    joint_p, joint_q = ((x[0][:, None] + x[1][None, :]).reshape(1, 9) for x in (logits_p, logits_q))
    separate = run_any(categorical_kl, logits_p, logits_q).sum()
    tolerance = 4 * rounding(run_any.eps, joint_p, joint_q)
    assert_allclose(run_any(categorical_kl, joint_p, joint_q)[0], separate, rtol=0, atol=tolerance)


@pytest.mark.property("K4")
@given(exact_arrays((2, 3), -20, 20), exact_arrays((2, 3), -20, 20), st.permutations(range(3)))
def test_kl_does_not_depend_on_the_order_of_the_classes(run_any, logits_p, logits_q, order):
    moved = run_any(categorical_kl, logits_p[:, order], logits_q[:, order])
    tolerance = 2 * rounding(run_any.eps, logits_p, logits_q)
    assert_allclose(moved, run_any(categorical_kl, logits_p, logits_q), rtol=0, atol=tolerance)


@pytest.mark.property("K4")
@given(eighths(-16, 16), st.integers(-800, 800), st.integers(-800, 800))
def test_kl_does_not_see_a_constant_added_to_the_logits(run_any, logits, one, two):
    """Bit for bit, as the sums here are exact. (-logits is another distribution, not a shifted one.)"""
    moved = run_any(categorical_kl, logits + one / 8, -logits + two / 8)
    assert_array_equal(moved, run_any(categorical_kl, logits, -logits))


@pytest.mark.property("K5")
def test_kl_is_asymmetric(run_any):
    """p = (1/2, 1/2), q = (1/10, 9/10): KL(p, q) = log(5) / 2 + log(5/9) / 2 = 0.51; KL(q, p) = 0.37."""
    p, q = np.log([[1.0, 1.0]]), np.log([[1.0, 9.0]])
    assert_allclose(run_any(categorical_kl, p, q), [0.5 * math.log(25 / 9)], rtol=32 * run_any.eps)
    backward = 0.1 * math.log(0.2) + 0.9 * math.log(1.8)
    assert_allclose(run_any(categorical_kl, q, p), [backward], rtol=32 * run_any.eps)


# KL: gradients


def test_kl_gradients_by_hand(grad):
    # to logits_p: p (log p - log q - KL); to logits_q: q - p. Here KL = log(2) / 4 and log p - log q = 0, -log 2, log 2
    to_p, to_q = grad(categorical_kl, P, Q)
    unit = math.log(2) / 4
    assert_allclose(to_p, [[0.25 * -unit, 0.25 * -5 * unit, 0.5 * 3 * unit]], rtol=1e-13)
    assert_allclose(to_q, [[0, 0.25, -0.25]], rtol=1e-14, atol=1e-16)


def test_kl_gradients_equal_finite_differences(grad):
    logits_p, logits_q = np.random.default_rng(2).normal(size=(2, 2, 3))
    expected = oracles.finite_difference(exact.categorical_kl, logits_p, logits_q)
    for got, difference in zip(grad(categorical_kl, logits_p, logits_q), expected, strict=True):
        assert_allclose(got, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.property("K13")
def test_gradients_at_extreme_logits_are_exact(grad_any):
    # All mass on class 0 (p) and on class 1 (q): to q, q - p; to p, nothing, since no other class has mass to gain from
    to_p, to_q = grad_any(categorical_kl, [[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]])
    assert_array_equal(to_p, [[0.0, 0.0, 0.0]])
    assert_array_equal(to_q, [[-1.0, 1.0, 0.0]])


# Log-probability and entropy


@given(exact_same_shape((0, 4), (-1e4, 1e4)))
def test_log_prob_equals_its_definition_with_50_digits(run_any, arguments):
    x, logits = arguments
    tolerance = (1 + x.sum()) * rounding(run_any.eps, logits)
    expected = exact.categorical_log_prob(x, logits)
    assert_allclose(run_any(categorical_log_prob, x, logits), expected, rtol=0, atol=tolerance)


def test_log_prob_of_classes_equals_torch_distributions(run_any):
    import torch

    logits, classes = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 3, 0])
    expected = torch.distributions.Categorical(logits=torch.tensor(logits)).log_prob(torch.tensor(classes)).numpy()
    got = run_any(categorical_log_prob, np.eye(4)[classes], logits)
    assert_allclose(got, expected, rtol=0, atol=2 * rounding(run_any.eps, logits))


@given(exact_arrays((2, 3), -20, 20), st.lists(st.integers(0, 2), min_size=2, max_size=2))
def test_log_prob_gradient_is_target_minus_probability(grad_any, logits, classes):
    x = np.eye(3)[classes]
    to_x, to_logits = grad_any(categorical_log_prob, x, logits)
    expected = x - np.exp(exact.log_softmax(logits))
    assert_allclose(to_logits, expected, rtol=0, atol=8 * grad_any.eps)
    assert_allclose(to_x, exact.log_softmax(logits), rtol=0, atol=rounding(grad_any.eps, logits))


@given(exact_same_shape((-1e4, 1e4)))
@example((EXTREME,))
def test_entropy_equals_its_definition_with_50_digits_and_keeps_its_bounds(run_any, values):
    """p |log p| is at most 1 / e per class, so the error is a few eps whatever the logits."""
    (logits,) = values
    got = run_any(categorical_entropy, logits)
    assert_allclose(got, exact.categorical_entropy(logits), rtol=0, atol=16 * run_any.eps)
    assert got.min() >= 0
    assert got.max() <= math.log(logits.shape[-1]) + 8 * run_any.eps


@given(exact_arrays((2, 3), -20, 20))
def test_entropy_gradient_equals_its_closed_form(grad_any, logits):
    """dH / d logits_k = -p_k (log p_k + H)."""
    log_p = exact.log_softmax(logits)
    expected = -np.exp(log_p) * (log_p + exact.categorical_entropy(logits)[:, None])
    assert_allclose(grad_any(categorical_entropy, logits)[0], expected, rtol=0, atol=32 * grad_any.eps)


def test_entropy_gradient_at_extreme_logits_is_zero(grad_any):
    assert_array_equal(grad_any(categorical_entropy, [[1e4, -1e4, 0.0], [5.0, 5.0, -1e4]])[0][0], [0.0, 0.0, 0.0])


# Unimix


@pytest.mark.property("K13")
@given(exact_arrays((3, 3), -1e4, 1e4), st.sampled_from([2**-7, 0.5]))
@example(EXTREME, 2**-7)
def test_unimix_equals_its_definition_and_is_normalised(run_any, logits, mix):
    got = run_any(MIXES[mix], logits)
    assert_allclose(got, exact.unimix(logits, mix), rtol=8 * run_any.eps, atol=16 * run_any.eps)
    assert_allclose(np.exp(got.astype(np.float64)).sum(-1), 1, rtol=32 * run_any.eps)


@pytest.mark.property("K13")
@given(exact_arrays((3, 3), -1e4, 1e4), exact_arrays((3, 3), -1e4, 1e4), st.sampled_from(list(KL_FROM_MIXED)))
@example(EXTREME, EXTREME[::-1].copy(), 2**-7)
def test_unimix_bounds_every_probability_below_and_the_kl_above(run_any, logits_p, logits_q, mix):
    """log q >= log(mix / K), hence KL(p, q) <= log(K / mix) for every p."""
    bound = math.log(CLASSES / mix)
    assert run_any(MIXES[mix], logits_q).min() >= -bound * (1 + 4 * run_any.eps)
    kl = run_any(KL_FROM_MIXED[mix], logits_p, logits_q)
    assert np.isfinite(kl).all()
    assert kl.max() <= bound + rounding(run_any.eps, [0.0, bound])
    assert kl.min() >= -rounding(run_any.eps, [0.0, bound])


@pytest.mark.property("K13")
def test_unimix_bound_is_reached_by_a_certain_posterior(run_any):
    # p certain of class 0, the prior's logits certain of class 1: KL = log(3 / mix) exactly
    kl = run_any(KL_FROM_MIXED[2**-7], [[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]])
    assert_allclose(kl, [math.log(3 * 2**7)], rtol=8 * run_any.eps)


def test_unimix_gradient_equals_its_closed_form(grad_any):
    """d log m_0 / d logits_j = (1 - mix) p_0 (1[j = 0] - p_j) / m_0."""
    logits = np.array([[0.25, -1.5, 2.0], [3.0, 3.0, -8.0]])
    jacobian, mixed = exact.softmax_jacobian(logits), np.exp(exact.unimix(logits, 0.5))
    (got,) = grad_any(first_of_mixed, logits)
    assert_allclose(got, 0.5 * jacobian[:, 0] / mixed[:, :1], rtol=32 * grad_any.eps, atol=8 * grad_any.eps)


def first_of_mixed(logits):
    return unimix(logits, 0.5)[..., 0]


@pytest.mark.property("K13")
def test_unimix_gradients_at_extreme_logits_are_zero(grad_any):
    for function in (first_of_mixed, MIXES[1.0]):
        assert_array_equal(grad_any(function, [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])[0], np.zeros((2, 3)))


# Errors


@pytest.mark.parametrize("mix", [-0.01, 1.01, float("nan")])
def test_mix_must_be_a_share(mix):
    with pytest.raises(ValueError, match=f"unimix: mix is {mix}, expected 0 to 1"):
        unimix(np.zeros((1, 2)), mix)


def test_shapes_must_agree(run):
    with pytest.raises(ValueError, match=r"categorical_kl: .*logits_p \(2, 3\).*logits_q \(3,\)"):
        run(categorical_kl, np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match=r"categorical_log_prob: .*x \(2, 3\).*logits \(1, 3\)"):
        run(categorical_log_prob, np.zeros((2, 3)), np.zeros((1, 3)))


def test_entropy_needs_an_array():
    with pytest.raises(TypeError, match="arrays of one library"):
        categorical_entropy(0.0)
