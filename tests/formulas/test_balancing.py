"""Balancing of the KL, and the order of sum, floor and mean: four papers, four orders. Properties K6 to K12."""

import math
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import namespace, stop_gradient
from shared.formulas.divergences import balanced, categorical_kl, floor_nats, gaussian_kl
from shared.testing import oracles
from shared.testing import oracles_distributions as exact
from tests.formulas.strategies import exact_arrays

ALPHAS = (0.0, 0.8, 1.0)
LOGITS = (2, 2, 3)                             # two time steps, two latents, three classes
FREE_NATS = 1.0                                # DreamerV3's
Gaussian = namedtuple("Gaussian", "mean std")
TOTAL = {}                                     # alpha: the balanced KL as a function of two arrays; one object each


def over_latents(kl):
    return namespace(kl).sum(kl, axis=-1)


def latents(post, prior):
    """KL per time step: classes and latents summed, as DreamerV2 and DreamerV3 have it."""
    return over_latents(categorical_kl(post, prior))


for _alpha in ALPHAS:
    TOTAL[_alpha] = lambda post, prior, alpha=_alpha: balanced(latents, post, prior, alpha)


def logits_pair(size=8):
    return st.tuples(exact_arrays(LOGITS, -size, size), exact_arrays(LOGITS, -size, size))


def closed_form_gradients(post, prior):
    """d KL / d logits of the summed KL: p (log p - log q - KL) to the posterior, q - p to the prior."""
    log_p, log_q = exact.log_softmax(post), exact.log_softmax(prior)
    p = np.exp(log_p)
    return p * (log_p - log_q - exact.categorical_kl(post, prior)[..., None]), np.exp(log_q) - p


# Balancing


def test_balanced_by_hand(run):
    # KL(N(3, 1), N(1, 1)) = 2 on either side of the sum: 0.8 * 2 + 0.2 * 2
    def total(mean_p, std_p, mean_q, std_q):
        return balanced(lambda p, q: gaussian_kl(*p, *q), (mean_p, std_p), (mean_q, std_q), 0.8)

    assert_allclose(run(total, [3.0], [1.0], [1.0], [1.0]), [2.0], rtol=1e-15)


def test_balanced_gradient_by_hand(grad):
    # plain gradients at means of 3 and 1 are 2 and -2: a fifth to the posterior, four fifths to the prior
    def total(post, prior):
        return balanced(lambda p, q: 0.5 * (p - q) ** 2, post, prior, 0.8)           # KL of unit Gaussians

    assert_allclose(np.concatenate(grad(total, [3.0], [1.0])), [0.4, -1.6], rtol=1e-14)


@pytest.mark.property("K6")
@given(logits_pair(), st.sampled_from(ALPHAS))
def test_balancing_does_not_change_the_value(run_any, logits, alpha):
    """Two products and a sum round three times."""
    plain = run_any(latents, *logits)
    assert_allclose(run_any(TOTAL[alpha], *logits), plain, rtol=4 * run_any.eps)


@pytest.mark.property("K7")
@given(logits_pair(), st.sampled_from(ALPHAS))
def test_balancing_splits_the_gradient(grad_any, logits, alpha):
    """alpha times the plain gradient to the prior, 1 - alpha to the posterior; exactly none at 0 and at 1."""
    to_post, to_prior = grad_any(TOTAL[alpha], *logits)
    plain_post, plain_prior = closed_form_gradients(*logits)
    # logarithms of up to 16 carry eps of that; times p <= 1
    assert_allclose(to_post, (1 - alpha) * plain_post, rtol=0, atol=128 * grad_any.eps)
    assert_allclose(to_prior, alpha * plain_prior, rtol=0, atol=32 * grad_any.eps)
    if alpha == 1:
        assert_array_equal(to_post, 0)
    if alpha == 0:
        assert_array_equal(to_prior, 0)


def dreamerv2_loss(post, prior, forward, balance):
    """The mapping of DreamerV2's code (common/nets.py), with a flag that turns the KL around: which of the two comes
    first, and which share its side gets."""
    left, right = (prior, post) if forward else (post, prior)
    mix = balance if forward else 1 - balance
    return mix * latents(left, stop_gradient(right)) + (1 - mix) * latents(stop_gradient(left), right)


V2 = {flag: (lambda post, prior, flag=flag: dreamerv2_loss(post, prior, flag, 0.8)) for flag in (False, True)}
OURS = {
    False: TOTAL[0.8],
    True: lambda post, prior: balanced(lambda post, prior: latents(prior, post), post, prior, 0.8),
}


@pytest.mark.property("K8")
@pytest.mark.parametrize("forward", [False, True])
def test_alpha_is_the_share_of_the_prior_for_either_direction_of_dreamerv2(run_any, forward):
    """forward=False (the paper) is `balanced` with alpha = balance; forward=True the same of the reversed KL."""
    post, prior = np.random.default_rng(0).normal(size=(2, *LOGITS))
    got, expected = run_any(OURS[forward], post, prior), run_any(V2[forward], post, prior)
    assert_allclose(got, expected, rtol=16 * run_any.eps)
    first, second = (prior, post) if forward else (post, prior)
    assert_allclose(got, exact.categorical_kl(first, second).sum(-1), rtol=128 * run_any.eps)


@pytest.mark.property("K8")
@pytest.mark.parametrize("forward", [False, True])
def test_either_direction_of_dreamerv2_gives_the_prior_four_fifths(grad_any, forward):
    post, prior = np.random.default_rng(0).normal(size=(2, *LOGITS))
    to_post, to_prior = grad_any(OURS[forward], post, prior)
    for got, expected in zip((to_post, to_prior), grad_any(V2[forward], post, prior), strict=True):
        assert_allclose(got, expected, rtol=0, atol=16 * grad_any.eps)
    plain = closed_form_gradients(prior, post)[::-1] if forward else closed_form_gradients(post, prior)
    assert_allclose(to_post, 0.2 * plain[0], rtol=0, atol=64 * grad_any.eps)
    assert_allclose(to_prior, 0.8 * plain[1], rtol=0, atol=64 * grad_any.eps)


def test_trees_of_statistics_keep_their_shape(grad):
    """Posterior and prior may be dicts, lists and tuples, also named ones, balanced as one."""
    def total(mean_p, std_p, mean_q, std_q):
        def kl(p, q):
            return gaussian_kl(p["mean"], p["more"][0], q["mean"], q["more"][0])

        return balanced(kl, {"mean": mean_p, "more": [std_p]}, {"mean": mean_q, "more": (std_q,)}, 0.25)

    # plain gradients of N(1, 2) from N(-2, 4): 3/16, -3/8, -3/16, 1/4 - 13/64 (test_divergences.py)
    expected = [0.75 * 3 / 16, 0.75 * -3 / 8, 0.25 * -3 / 16, 0.25 * (1 / 4 - 13 / 64)]
    assert_allclose(np.concatenate(grad(total, [1.0], [2.0], [-2.0], [4.0])), expected, rtol=1e-14)

    def named(*parameters):
        return balanced(lambda p, q: gaussian_kl(*p, *q), Gaussian(*parameters[:2]), Gaussian(*parameters[2:]), 0.25)

    assert_allclose(np.concatenate(grad(named, [1.0], [2.0], [-2.0], [4.0])), expected, rtol=1e-14)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_must_be_a_share(alpha):
    with pytest.raises(ValueError, match=f"balanced: alpha is {alpha}, expected 0 to 1"):
        balanced(categorical_kl, np.zeros(2), np.zeros(2), alpha)


# Who clips how


def mean_nats(kl):
    return namespace(kl).mean(kl)


def planet(kl):
    """mean of max(0, KL_t - free)"""
    return mean_nats(floor_nats(kl - FREE_NATS, 0.0))


def dreamer(kl):
    """max(mean KL, free); DreamerV2 with free_avg the same"""
    return floor_nats(mean_nats(kl), FREE_NATS)


def dreamerv3(kl):
    """mean of max(KL_t, free)"""
    return mean_nats(floor_nats(kl, FREE_NATS))


def test_the_four_orders_by_hand(run):
    # KL of 0.5 and 3.5 nats, 1 free: PlaNet (0 + 2.5) / 2;  Dreamer max(2, 1);  DreamerV3 (1 + 3.5) / 2
    assert [run(f, [0.5, 3.5]).item() for f in (planet, dreamer, dreamerv3)] == [1.25, 2.0, 2.25]


def test_the_four_orders_have_different_gradients_by_hand(grad):
    # 0.2 and 1.4 nats, mean 0.8: below Dreamer's floor, so nothing learns there; step 1 learns in PlaNet and DreamerV3
    assert_array_equal(grad(dreamer, [0.2, 1.4])[0], [0.0, 0.0])
    assert_array_equal(grad(planet, [0.2, 1.4])[0], [0.0, 0.5])
    assert_array_equal(grad(dreamerv3, [0.2, 1.4])[0], [0.0, 0.5])
    # 0.5 and 3.5: the mean is above, so that Dreamer pushes the step below its free nats too
    assert_array_equal(grad(dreamer, [0.5, 3.5])[0], [0.5, 0.5])
    assert_array_equal(grad(dreamerv3, [0.5, 3.5])[0], [0.0, 0.5])


@pytest.mark.property("K10")
@given(exact_arrays((2, 3), 0, 4))
def test_mean_first_is_at_most_floor_first_and_planet_removes_the_free_nats(run_any, kl):
    """Jensen, for the convex max(., free). A mean of 6 values up to 4 rounds to 6 * 4 eps."""
    tolerance = 24 * run_any.eps
    assert run_any(dreamer, kl) <= run_any(dreamerv3, kl) + tolerance
    assert_allclose(run_any(planet, kl), run_any(dreamerv3, kl) - FREE_NATS, rtol=0, atol=tolerance)


@pytest.mark.property("K10")
@given(exact_arrays((2, 3), 0, 1), st.booleans())
def test_the_orders_coincide_when_all_steps_are_on_one_side(run_any, share, above):
    kl = FREE_NATS + 3 * share if above else FREE_NATS * share
    tolerance = 24 * run_any.eps
    assert_allclose(run_any(dreamer, kl), run_any(dreamerv3, kl), rtol=0, atol=tolerance)
    expected = run_any(mean_nats, kl) if above else FREE_NATS
    assert_allclose(run_any(dreamer, kl), expected, rtol=0, atol=tolerance)
    assert_allclose(run_any(planet, kl), expected - FREE_NATS, rtol=0, atol=tolerance)


@pytest.mark.property("K10")
def test_the_orders_differ_when_steps_are_on_both_sides(run_any):
    # the inequality is strict: 0.5 and 3.5 as by hand, 0.25 apart
    assert run_any(dreamerv3, [0.5, 3.5]) - run_any(dreamer, [0.5, 3.5]) == 0.25


def sum_then_floor(post, prior):
    """DreamerV3: latents summed, then clipped."""
    return floor_nats(latents(post, prior), FREE_NATS)


def floor_then_sum(post, prior):
    """What DreamerV3 does not do."""
    return over_latents(floor_nats(categorical_kl(post, prior), FREE_NATS))


@pytest.mark.property("K11")
def test_latents_are_summed_before_they_are_clipped(run_any):
    # two latents of KL((9, 1) / 10, (1, 9) / 10) = 0.8 log 9 = 1.76 and of 0: 1.76 as a sum, 1.76 + 1 one by one
    post, prior = np.log([[[9.0, 1.0], [1.0, 1.0]]]), np.log([[[1.0, 9.0], [1.0, 1.0]]])
    nats = 0.8 * math.log(9)
    assert_allclose(run_any(sum_then_floor, post, prior), [nats], rtol=32 * run_any.eps)
    assert_allclose(run_any(floor_then_sum, post, prior), [nats + 1], rtol=32 * run_any.eps)


@pytest.mark.property("K11")
def test_many_small_latents_learn_together_and_not_alone(grad_any):
    # two latents of KL((3, 1) / 4, (1, 1) / 2) = 3/4 log 3/2 + 1/4 log 1/2 = 0.13 and of 1.76: alone the first is free
    post, prior = np.log([[[3.0, 1.0], [9.0, 1.0]]]), np.log([[[1.0, 1.0], [1.0, 9.0]]])
    together, alone = grad_any(sum_then_floor, post, prior), grad_any(floor_then_sum, post, prior)
    for got, clipped, free in zip(together, alone, closed_form_gradients(post, prior), strict=True):
        assert_allclose(got, free, rtol=0, atol=32 * grad_any.eps)
        assert_array_equal(clipped[0, 0], 0)
        assert_allclose(clipped[0, 1], free[0, 1], rtol=0, atol=32 * grad_any.eps)


# DreamerV3's two terms


def dyn(post, prior):
    return latents(stop_gradient(post), prior)


def rep(post, prior):
    return latents(post, stop_gradient(prior))


def weighted(post, prior):
    """The authors' weights: 1 for the dynamics, 0.1 for the representation."""
    return 1.0 * dyn(post, prior) + 0.1 * rep(post, prior)


def unweighted(post, prior):
    return dyn(post, prior) + rep(post, prior)


@pytest.mark.property("K12")
@given(logits_pair())
def test_dynamics_and_representation_term_are_both_the_kl(run_any, logits):
    plain = run_any(latents, *logits)
    assert_array_equal(run_any(dyn, *logits), plain)
    assert_array_equal(run_any(rep, *logits), plain)
    assert_array_equal(run_any(unweighted, *logits), 2 * plain)
    assert_allclose(run_any(weighted, *logits), 1.1 * plain, rtol=8 * run_any.eps)


@pytest.mark.property("K12")
@given(logits_pair())
def test_weights_scale_the_gradient_of_their_own_side(grad_any, logits):
    """1 to the prior, 0.1 to the posterior: `balanced` with alpha = 1 / 1.1, times 1.1."""
    to_post, to_prior = grad_any(weighted, *logits)
    plain_post, plain_prior = grad_any(unweighted, *logits)
    assert_allclose(to_post, 0.1 * plain_post, rtol=0, atol=16 * grad_any.eps)
    assert_allclose(to_prior, plain_prior, rtol=0, atol=16 * grad_any.eps)
    expected_post, expected_prior = closed_form_gradients(*logits)
    assert_allclose(plain_post, expected_post, rtol=0, atol=128 * grad_any.eps)
    assert_allclose(plain_prior, expected_prior, rtol=0, atol=32 * grad_any.eps)


# Free nats of the balanced KL


def floored(post, prior):
    return balanced(sum_then_floor, post, prior, 0.8)


@pytest.mark.property("K9")
@given(logits_pair(2))
def test_a_balanced_kl_below_the_floor_moves_neither_side(grad_any, logits):
    """Step 1 has a KL far above the floor. Where the KL is within rounding of the floor, either is right. (The compiler
    adds up in another order: gradients of at most 16 carry a few eps of that.)"""
    logits[0][1, 0], logits[1][1, 0] = [8.0, -8.0, 0.0], [-8.0, 8.0, 0.0]
    kl = exact.categorical_kl(*logits).sum(-1)
    below, above = kl < FREE_NATS - 64 * grad_any.eps, kl > FREE_NATS + 64 * grad_any.eps
    assert above[1]
    for got, free in zip(grad_any(floored, *logits), grad_any(TOTAL[0.8], *logits), strict=True):
        assert_array_equal(got[below], 0)
        assert_allclose(got[above], free[above], rtol=0, atol=64 * grad_any.eps)


def test_gradients_of_a_floored_balanced_kl_equal_finite_differences(grad):
    """Against the loss with the constants written out: the stopped side is an argument that is not moved."""
    post, prior = np.random.default_rng(3).normal(size=(2, 1, 2, 3))

    def loss(p, q):
        return np.maximum(exact.categorical_kl(p, q).sum(-1), 0.2)

    to_post, to_prior = grad(lambda p, q: balanced(lambda a, b: floor_nats(latents(a, b), 0.2), p, q, 0.8), post, prior)
    plain_post, plain_prior = oracles.finite_difference(loss, post, prior)
    assert np.abs(plain_prior).max() > 0.1                    # above its floor, so that something is compared
    assert_allclose(to_post, 0.2 * plain_post, rtol=1e-6, atol=1e-8)
    assert_allclose(to_prior, 0.8 * plain_prior, rtol=1e-6, atol=1e-8)
