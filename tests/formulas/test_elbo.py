"""Log-likelihoods, the contrastive bound, and the bound of one step: properties E1 and E6. test_elbo_exact.py has the
bound of sequences, test_overshooting.py latent overshooting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import namespace
from shared.formulas.divergences import gaussian_kl
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob, info_nce
from shared.testing import oracles
from shared.testing import oracles_distributions as exact_oracles
from tests.formulas.strategies import exact, exact_arrays, exact_same_shape


def unit_log_prob(x, mean):
    """PlaNet's likelihood of images and rewards: variance 1."""
    return gaussian_log_prob(x, mean, 1.0)


# Gaussian


def test_unit_gaussian_by_hand(run):
    # log N(0; 0, 1) = -log(2 pi) / 2 = -0.9189385;   log N(3; 1, 1) = -2 - 0.9189385
    assert_allclose(run(unit_log_prob, [0.0, 3.0], [0.0, 1.0]), [-0.9189385332046727, -2.9189385332046727], rtol=1e-15)


def test_wide_gaussian_by_hand(run):
    # log N(3; 1, 2) = -(2/2)^2 / 2 - log 2 - 0.9189385 = -2.1120857
    expected = [-0.5 - math.log(2) - 0.9189385332046727]
    assert_allclose(run(gaussian_log_prob, [3.0], [1.0], [2.0]), expected, rtol=1e-15)
    assert_allclose(run(lambda x, m: gaussian_log_prob(x, m, 2), [3.0], [1.0]), expected, rtol=1e-15)


@given(exact_same_shape((-1e6, 1e6), (-1e6, 1e6), (2**-10, 2**10)))
def test_log_prob_equals_scipy(run_any, parameters):
    """The difference of two exact numbers is rounded once, so the square is good to a few eps whatever the distance."""
    got, expected = run_any(gaussian_log_prob, *parameters), oracles.gaussian_log_prob(*parameters)
    assert_allclose(got, expected, rtol=8 * run_any.eps, atol=16 * run_any.eps)


FIXED_STD = {std: (lambda x, mean, std=std: gaussian_log_prob(x, mean, std)) for std in (0.01, 1, 30.0)}


@given(exact_arrays((2, 3), -1e3, 1e3), exact_arrays((2, 3), -1e3, 1e3), st.sampled_from(list(FIXED_STD)))
def test_a_number_as_std_equals_an_array_of_it(run_any, x, mean, std):
    got, expected = run_any(FIXED_STD[std], x, mean), oracles.gaussian_log_prob(x, mean, std)
    assert_allclose(got, expected, rtol=8 * run_any.eps, atol=16 * run_any.eps)


def test_density_integrates_to_one(run):
    x = np.linspace(-14.0, 16.0, 30_001)
    assert_allclose(np.exp(run(lambda x: gaussian_log_prob(x, x * 0 + 1, 1.5), x)).sum() * 1e-3, 1.0, rtol=1e-9)


def test_log_prob_gradients_by_hand(grad):
    # log N(3; 1, 2): d/dx = -(3 - 1) / 4, d/dmean = 1/2, d/dstd = 4/8 - 1/2 = 0
    assert_allclose(np.concatenate(grad(gaussian_log_prob, [3.0], [1.0], [2.0])), [-0.5, 0.5, 0.0], atol=1e-15)
    # unit variance: the error itself
    assert_allclose(np.concatenate(grad(unit_log_prob, [3.0], [1.0])), [-2.0, 2.0], rtol=1e-15)


# Binary events


def test_bernoulli_log_prob_by_hand(run):
    # p = 3/4: log p, log(1 - p), and for a soft label 1/4 a quarter of one and three quarters of the other
    got = run(bernoulli_log_prob, [1.0, 0.0, 0.25], [math.log(3)] * 3)
    assert_allclose(got, [math.log(0.75), math.log(0.25), 0.25 * math.log(0.75) + 0.75 * math.log(0.25)], rtol=1e-14)


def test_bernoulli_log_prob_of_certainty_by_hand(run_any):
    # right: 0, wrong: the logit itself; a soft label takes its share of that
    got = run_any(bernoulli_log_prob, [1.0, 0.0, 0.0, 1.0, 0.25], [1e4, -1e4, 1e4, -1e4, 1e4])
    assert_array_equal(got, [0, 0, -1e4, -1e4, -7500])


@given(exact_same_shape((0, 1), (-80, 80)))
def test_bernoulli_log_prob_equals_its_definition_with_50_digits(run_any, parameters):
    """Two terms of one sign: relative precision, also where the right answer is near certain, exp(-80) for float32."""
    x, logits = parameters
    got, expected = run_any(bernoulli_log_prob, x, logits), exact_oracles.bernoulli_log_prob(x, logits)
    tiny = 100 * float(np.finfo(run_any.dtype).tiny)          # JAX treats subnormals as zero
    assert_allclose(got, expected, rtol=16 * run_any.eps, atol=tiny)


@pytest.mark.parametrize("event", [0.0, 1.0])
def test_rare_errors_keep_their_digits(run_any, event):
    """-exp(-|logit|) for a prediction that is right and sure, which x * logit - softplus(logit) would cancel away."""
    logits = np.array([20.0, 40.0, 60.0]) * (2 * event - 1)
    got = run_any(bernoulli_log_prob, np.full(3, event), logits)
    assert_allclose(got, -np.log1p(np.exp([-20.0, -40.0, -60.0])), rtol=16 * run_any.eps)


def test_bernoulli_log_prob_equals_torch(run):
    import torch

    x, logits = np.random.default_rng(0).random(6), np.random.default_rng(1).normal(size=6)
    cross_entropy = torch.nn.BCEWithLogitsLoss(reduction="none")(torch.tensor(logits), torch.tensor(x))
    assert_allclose(run(bernoulli_log_prob, x, logits), -cross_entropy.numpy(), rtol=1e-14)


@given(exact_arrays((4,), 0, 1), exact_arrays((4,), -1e4, 1e4))
def test_bernoulli_gradients_are_the_logits_and_the_error(grad_any, x, logits):
    to_x, to_logits = grad_any(bernoulli_log_prob, x, logits)
    assert_allclose(to_x, logits, rtol=4 * grad_any.eps, atol=2 * grad_any.eps)
    assert_allclose(to_logits, x - exact_oracles.sigmoid(logits), rtol=0, atol=4 * grad_any.eps)


# Contrastive


def test_info_nce_by_hand(run):
    # true pair f = 3 among 3, 1, 4: log 3/8;   second column: f = 2 among 2, 2, 6: log 2/10
    got = run(info_nce, np.log([3.0, 2.0]), np.log([[3.0, 2.0], [1.0, 2.0], [4.0, 6.0]]))
    assert_allclose(got, np.log([3 / 8, 0.2]), rtol=1e-14)


def test_info_nce_of_one_pair(run):
    """No batch axis: log 3/(3 + 1 + 4)."""
    assert_allclose(run(info_nce, np.log(3.0), np.log([3.0, 1.0, 4.0])), math.log(3 / 8), rtol=1e-14)


def test_info_nce_of_indistinguishable_candidates_is_minus_log_n(run):
    """Nothing is known: the bound, log N higher, is 0. One candidate: always right."""
    assert_allclose(run(info_nce, [[1e4, -1e4]], np.tile([1e4, -1e4], (5, 1, 1))), [[-math.log(5)] * 2], rtol=1e-10)
    assert_array_equal(run(info_nce, [[3.0, -2.0]], [[[3.0, -2.0]]]), [[0.0, 0.0]])


@given(exact_arrays((4, 3), -1e4, 1e4))
def test_info_nce_is_never_positive_and_is_the_log_softmax_of_the_true_pair(run_any, candidates):
    got = run_any(info_nce, candidates[0], candidates)
    expected = exact_oracles.log_softmax(candidates.T)[:, 0]
    spread = 2 * np.abs(candidates).max()                      # top + log(sum) rounds at the size of the top
    assert_allclose(got, expected, rtol=0, atol=2 * run_any.eps * (8 + spread))
    assert got.max() <= 2 * run_any.eps * (8 + spread)


def test_info_nce_stays_below_the_mutual_information(run_any):
    """Exactly, by enumeration: x, y binary with p(x = y) = 7/8; the best critic is p(y | x) / p(y), 7/4 or 1/4. With
    one true y and N - 1 fair ones the bound is the mean over 2^N cases; MI = log 2 - H(1/8) = 0.316 nats."""
    mutual = math.log(2) + 0.875 * math.log(0.875) + 0.125 * math.log(0.125)
    bounds = []
    for count in (1, 2, 4, 8):
        agree = (np.arange(2**count)[None, :] >> np.arange(count)[:, None]) & 1          # of candidate j with x
        share = np.where(agree[0], 0.875, 0.125) * 0.5 ** (count - 1)
        log_f = np.log(np.where(agree, 1.75, 0.25))
        bounds.append(share @ run_any(info_nce, log_f[0], log_f) + math.log(count))
    assert abs(bounds[0]) < 4 * run_any.eps
    # N = 2: both agree (7/16) 1.75 of 3.5, only the true one (7/16) 1.75 of 2, only the other (1/16) 1/4 of 2, none 1/2
    two = 0.5 * math.log(2) + 7 / 16 * math.log(7 / 8) + 1 / 16 * math.log(1 / 8)
    assert_allclose(bounds[1], two, rtol=32 * run_any.eps)
    assert np.diff(bounds).min() > 0.01                        # more candidates, tighter
    assert bounds[-1] < mutual - 0.01


def test_info_nce_gradients_by_hand(grad):
    # 1 to the true pair, minus the candidates' shares (3, 1, 4) / 8: through the candidates, where it is one of them
    to_positive, to_candidates = grad(info_nce, np.log([3.0]), np.log([[3.0], [1.0], [4.0]]))
    assert_allclose(to_positive, [1.0], rtol=1e-15)
    assert_allclose(to_candidates, [[-3 / 8], [-1 / 8], [-1 / 2]], rtol=1e-14)


@pytest.mark.parametrize("positive, candidates", [((2,), (5, 3)), ((2,), (2,)), ((), ()), ((2, 3), (5, 2))])
def test_info_nce_needs_candidates_over_the_shape_of_the_pair(run, positive, candidates):
    with pytest.raises(ValueError, match=r"info_nce: positive .* and candidates .* do not fit; expected \(...\) and "):
        run(info_nce, np.zeros(positive), np.zeros(candidates))


# The bound of one step


def elbo(x, mean_q, std_q, slope, std_x):
    """Exact bound of z ~ N(0, 1), x | z ~ N(slope z, std_x) under q = N(mean_q, std_q)."""
    expected_log_prob = gaussian_log_prob(x, slope * mean_q, std_x) - 0.5 * (slope * std_q / std_x) ** 2
    return expected_log_prob - gaussian_kl(mean_q, std_q, 0.0, 1.0)


@pytest.mark.property("E1")
@given(exact(-5, 5), exact(-3, 3), exact(2**-3, 3), exact(-3, 3), exact(2**-3, 3))
def test_bound_stays_below_the_evidence_and_touches_it_at_the_exact_posterior(run_any, x, slope, std_x, mean_q, std_q):
    """One step of a linear-Gaussian model. Squares of up to (5 + 3 * 3) / std_x cancel to the evidence."""
    evidence = oracles.gaussian_log_prob(x, 0.0, math.hypot(slope, std_x))
    precision = 1 + (slope / std_x) ** 2
    exact_mean, exact_std = slope * x / std_x**2 / precision, precision**-0.5
    x_, slope_, std_x_ = np.array([[value, value] for value in (x, slope, std_x)])
    bound, tight = run_any(elbo, x_, [mean_q, exact_mean], [std_q, exact_std], slope_, std_x_)
    tolerance = 16 * run_any.eps * (1 + (14 / std_x) ** 2)
    assert bound <= evidence + tolerance
    assert_allclose(tight, evidence, rtol=0, atol=tolerance)


# Reductions


IMAGES = (2, 3, 4, 4, 3)                       # batch, time, height, width, channels


def image_term(image, mean):
    """The papers' convention: sum over pixels and channels, mean over batch and time."""
    terms = gaussian_log_prob(image, mean, 1.0)
    xp = namespace(terms)
    return xp.mean(xp.sum(terms, axis=(2, 3, 4)))


@pytest.mark.property("E6")
def test_sum_over_pixels_and_mean_over_batch_and_time_are_the_callers(run_any):
    """The formula reduces nothing, so the convention is visible: errors of 1 in 48 pixels, in every picture."""
    image = np.zeros(IMAGES)
    assert run_any(unit_log_prob, image, image + 1).shape == IMAGES
    expected = 48 * (-0.5 - 0.9189385332046727)
    assert_allclose(run_any(image_term, image, image + 1), expected, rtol=8 * run_any.eps)


@pytest.mark.property("E6")
@pytest.mark.parametrize("axis, times", [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2)])
def test_more_pixels_weigh_more_and_more_pictures_do_not(run_any, axis, times):
    """Every axis doubled in turn: batch and time leave the term alone, pixels and channels double it."""
    image, mean = np.random.default_rng(0).normal(size=(2, *IMAGES))
    doubled = run_any(image_term, np.concatenate([image] * 2, axis), np.concatenate([mean] * 2, axis))
    assert_allclose(doubled, times * run_any(image_term, image, mean), rtol=32 * run_any.eps)


@pytest.mark.property("E6")
@given(st.permutations(range(4)))
def test_terms_do_not_depend_on_batch_order(run_any, order):
    x, mean, std = np.random.default_rng(0).uniform(0.5, 2, size=(3, 4, 3))
    for function, arguments in ((gaussian_log_prob, (x, mean, std)), (bernoulli_log_prob, (x / 2, mean)),
                                (gaussian_kl, (x, std, mean, std))):
        moved = run_any(function, *(a[order] for a in arguments))
        assert_allclose(moved, run_any(function, *arguments)[order], rtol=4 * run_any.eps)


# Types and shapes


def test_float32_stays_float32(run):
    x = np.ones((2, 2), np.float32)
    assert run(unit_log_prob, x, x).dtype == run(gaussian_log_prob, x, x, x).dtype == np.float32
    assert run(bernoulli_log_prob, x, x).dtype == run(info_nce, x, x[None]).dtype == np.float32


@pytest.mark.parametrize("function, odd", [(gaussian_log_prob, 0), (gaussian_log_prob, 1), (gaussian_log_prob, 2),
                                           (bernoulli_log_prob, 0), (bernoulli_log_prob, 1)])  # fmt: skip
def test_shapes_must_agree(run, function, odd):
    """A reward (B, T) against a mean (B, 1) would broadcast, and train on nonsense."""
    count = 3 if function is gaussian_log_prob else 2
    with pytest.raises(ValueError, match=rf"{function.__name__}: .*\(2, 1\).*broadcast explicitly"):
        run(function, *(np.ones((2, 1) if i == odd else (2, 3)) for i in range(count)))


def test_libraries_do_not_mix():
    import torch

    with pytest.raises(TypeError, match="arrays of one library"):
        bernoulli_log_prob(np.zeros(2), torch.zeros(2))
    with pytest.raises(TypeError, match="arrays of one library"):
        info_nce(np.zeros(2), torch.zeros(3, 2))
