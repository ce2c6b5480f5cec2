"""The evidence lower bound, assembled from our formulas, against models whose evidence is known: properties E1 to E5.

Evidence - bound = KL(q(z_1..T), p(z_1..T | x_1..T)): zero at the exact posterior, which looks back from the end
(smoothing), and positive for a posterior that sees no future (filtering), such as every latent model of the papers.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import namespace
from shared.formulas._math import logsumexp
from shared.formulas.distributions import categorical_log_prob
from shared.formulas.divergences import categorical_kl, gaussian_kl
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.sampling import reparameterise
from shared.testing import oracles, oracles_state_space
from shared.testing.oracles_state_space import Chain, HiddenMarkov, LinearGaussian
from tests.formulas.strategies import exact, exact_arrays

STEPS, STATES, SYMBOLS = 4, 3, 2
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(3)        # exact for polynomials of degree 5; ours have 2
WEIGHTS = WEIGHTS / WEIGHTS.sum()
WALK = LinearGaussian(start_mean=0.5, start_std=1.0, slope=0.9, step_std=0.5, gain=1.5, noise_std=0.7)
SEEN = np.array([0.3, -1.0, 2.0, 1.1])


# The linear-Gaussian bound


def gaussian_terms(x, mean_x, std_x, mean_q, std_q, mean_p, std_p, weight):
    """E_q[log p(x_t | z_t)] - E_q[KL(q(z_t | z_{t-1}), p(z_t | z_{t-1}))], (T,); all (T, N), N nodes of z."""
    terms = gaussian_log_prob(x, mean_x, std_x) - gaussian_kl(mean_q, std_q, mean_p, std_p)
    return namespace(x).sum(weight * terms, axis=-1)


def on_nodes(model, x, chain):
    """Arguments of `gaussian_terms`: a Gaussian of mean m and std s has its nodes at m + s * NODES."""
    steps = len(x)
    mean, covariance = oracles_state_space.chain_moments(chain)
    z = mean[:, None] + np.sqrt(np.diag(covariance))[:, None] * NODES
    before = np.concatenate([np.zeros((1, len(NODES))), z[:-1]])
    prior = oracles_state_space.prior_chain(model, steps)
    columns = [x, np.full(steps, model.noise_std), chain.std, prior.std]
    x, std_x, std_q, std_p = (np.repeat(column[:, None], len(NODES), axis=1) for column in columns)
    mean_q, mean_p = (c.slope[:, None] * before + c.offset[:, None] for c in (chain, prior))
    return x, model.gain * z, std_x, mean_q, std_q, mean_p, std_p, np.tile(WEIGHTS, (steps, 1))


def rounding(eps, x, mean_x, std_x, mean_q, std_q, mean_p, std_p, weight):
    """A squared distance (a - b)^2 / s^2 of numbers with an error of eps is off by some eps of (|a| + |b|)^2 / s^2."""
    sizes = ((np.abs(x) + np.abs(mean_x)) / std_x) ** 2 + ((np.abs(mean_q) + np.abs(mean_p)) / std_p) ** 2
    return 8 * eps * float(np.sum(weight * (4 + sizes + (std_q / std_p) ** 2)))


def check_gap(run_any, model, x, chain, gap):
    """Evidence - bound is `gap`."""
    evidence = oracles_state_space.kalman_filter(model, x)[2]
    arguments = on_nodes(model, x, chain)
    bound = float(run_any(gaussian_terms, *arguments).astype(np.float64).sum())
    assert_allclose(evidence - bound, gap, rtol=0, atol=rounding(run_any.eps, *arguments))


def models():
    """Widths of 1/4 and more: a distance of 16 is 64 of them, whose square float32 knows to 1e-3."""
    wide, centre = exact(0.25, 2), exact(-2, 2)
    return st.builds(LinearGaussian, centre, wide, exact(-1.5, 1.5), wide, centre, wide)


def observations():
    return exact_arrays((STEPS,), -4, 4)


@given(models(), observations(), st.lists(st.booleans(), min_size=STEPS, max_size=STEPS))
def test_kalman_filter_and_smoother_equal_the_joint_density(model, x, missing):
    """The oracle, by its second solution: one Gaussian of all states and observations."""
    x = np.where(missing, np.nan, x)
    evidence = oracles_state_space.kalman_filter(model, x)[2]
    assert_allclose(evidence, oracles_state_space.evidence_by_joint_density(model, x), rtol=1e-8, atol=1e-8)
    (mean, variance), covariance = oracles_state_space.rts_smoother(model, x)
    theirs, matrix = oracles_state_space.posterior_by_joint_density(model, x)
    assert_allclose(mean, theirs, rtol=1e-8, atol=1e-8)
    assert_allclose(variance, np.diag(matrix), rtol=1e-8)
    assert_allclose(covariance, np.diag(matrix, 1), rtol=1e-8, atol=1e-10)


@pytest.mark.property("E1")
@given(models(), observations())
def test_gaussian_bound_is_the_evidence_at_the_smoothing_posterior(run_any, model, x):
    check_gap(run_any, model, x, oracles_state_space.smoothing_chain(model, x), 0.0)


@pytest.mark.property("E1")
@given(models(), observations(), exact_arrays((STEPS,), -2, 2), exact_arrays((STEPS,), -1, 1),
       exact_arrays((STEPS,), 0.25, 2))  # fmt: skip
def test_gaussian_bound_lacks_the_divergence_from_the_posterior(run_any, model, x, offset, slope, std):
    """For every q in the family, hence below the evidence for every q but one."""
    chain = Chain(offset, slope * (np.arange(STEPS) > 0), std)
    gap = oracles_state_space.gap_by_joint_density(model, x, chain)
    assert gap > -1e-9
    check_gap(run_any, model, x, chain, gap)


@pytest.mark.property("E1")
@pytest.mark.parametrize("step", range(STEPS))
def test_gaussian_bound_is_strictly_below_the_evidence_beside_the_posterior(run_any, step):
    """Chain rule: moving one conditional by half its std costs 1/2 (1/2)^2 nats, doubling its std 3/2 - log 2."""
    chain = oracles_state_space.smoothing_chain(WALK, SEEN)
    here = np.arange(STEPS) == step
    check_gap(run_any, WALK, SEEN, chain._replace(offset=chain.offset + 0.5 * here * chain.std), 0.125)
    check_gap(run_any, WALK, SEEN, chain._replace(std=chain.std * (1 + here)), 1.5 - math.log(2))


@pytest.mark.property("E1")
@given(models(), observations())
def test_filtering_posterior_leaves_a_gap(run_any, model, x):
    chain = oracles_state_space.filtering_chain(model, x)
    gap = oracles_state_space.gap_by_joint_density(model, x, chain)
    assert gap > -1e-9
    check_gap(run_any, model, x, chain, gap)
    assert oracles_state_space.gap_by_joint_density(model, x[:1], Chain(*(part[:1] for part in chain))) < 1e-9


@pytest.mark.property("E1")
def test_filtering_posterior_is_strictly_worse_than_the_smoothing_one(run_any):
    """WALK, where every observation says something on the state before it: some tenths of a nat."""
    chain = oracles_state_space.filtering_chain(WALK, SEEN)
    evidence = oracles_state_space.evidence_by_joint_density(WALK, SEEN)
    bound = run_any(gaussian_terms, *on_nodes(WALK, SEEN, chain)).astype(np.float64).sum()
    smoothing = oracles_state_space.smoothing_chain(WALK, SEEN)
    best = run_any(gaussian_terms, *on_nodes(WALK, SEEN, smoothing)).astype(np.float64).sum()
    assert_allclose(best, evidence, rtol=64 * run_any.eps)
    assert evidence - bound > 0.1


# The Markov bound


def markov_terms(start, move, emit, x, q_start, q_moves):
    """The same for states of K classes, (T,): expectations are sums over the marginals of q. x: one-hot symbols (T, M);
    start, q_start (K,); move (K, K), emit (K, M); q_moves (T - 1, K, K). Log-probabilities."""
    xp = namespace(start)
    marginal = xp.exp(q_start)
    terms = [xp.sum(marginal * observed(x[0, :], emit)) - categorical_kl(q_start, start)]
    for t in range(q_moves.shape[0]):
        kl = xp.sum(marginal * categorical_kl(q_moves[t, :, :], move))
        marginal = xp.sum(marginal[:, None] * xp.exp(q_moves[t, :, :]), axis=0)
        terms.append(xp.sum(marginal * observed(x[t + 1, :], emit)) - kl)
    return xp.stack(terms)


def observed(symbol, emit):
    """log p(x_t | z_t) for every state, (K,); a row of zeros stands for no observation."""
    xp = namespace(emit)
    return categorical_log_prob(xp.stack([symbol] * emit.shape[0]), emit)


def markov_bound(run_any, hmm, x, start, moves):
    one_hot = np.array([np.eye(SYMBOLS)[symbol] if symbol >= 0 else np.zeros(SYMBOLS) for symbol in x])
    return run_any(markov_terms, *hmm, one_hot, start, moves).astype(np.float64)


def markov_rounding(eps):
    """Logits within +-3: log-probabilities up to 8, two for each of 4 steps, with some eps each."""
    return 2 * STEPS * 8 * 8 * eps


def log_probs(*shape):
    return exact_arrays(shape, -3, 3).map(oracles_state_space.log_normalised)


def markov_models():
    return st.builds(HiddenMarkov, log_probs(STATES), log_probs(STATES, STATES), log_probs(STATES, SYMBOLS))


def symbols():
    return st.lists(st.integers(0, SYMBOLS - 1), min_size=STEPS, max_size=STEPS)


@given(markov_models(), st.lists(st.integers(-1, SYMBOLS - 1), min_size=STEPS, max_size=STEPS))
def test_forward_algorithm_equals_enumeration(hmm, x):
    """The oracle, by its second solution: all 81 paths, and the posterior as a chain."""
    joint = oracles_state_space.path_log_probs(hmm, x)
    evidence = oracles_state_space.log_sum(list(joint.values()))
    assert_allclose(oracles_state_space.forward(hmm, x), evidence, rtol=1e-12, atol=1e-12)
    start, moves = oracles_state_space.posterior_chain(hmm, x)
    for path, log_prob in joint.items():
        log_q = oracles_state_space.chain_log_prob(start, moves, path)
        assert_allclose(log_q, log_prob - evidence, rtol=1e-10, atol=1e-10)


@pytest.mark.property("E2")
@given(markov_models(), symbols())
def test_markov_bound_is_the_evidence_at_the_exact_posterior(run_any, hmm, x):
    bound = markov_bound(run_any, hmm, x, *oracles_state_space.posterior_chain(hmm, x)).sum()
    assert_allclose(bound, oracles_state_space.forward(hmm, x), rtol=0, atol=markov_rounding(run_any.eps))


@pytest.mark.property("E2")
@given(markov_models(), symbols(), log_probs(STATES), log_probs(STEPS - 1, STATES, STATES))
def test_markov_bound_lacks_the_divergence_from_the_posterior(run_any, hmm, x, start, moves):
    """For every q, and so it is at most the evidence."""
    evidence, gap = oracles_state_space.forward(hmm, x), oracles_state_space.gap_by_enumeration(hmm, x, start, moves)
    bound = markov_bound(run_any, hmm, x, start, moves).sum()
    assert_allclose(bound, evidence - gap, rtol=0, atol=markov_rounding(run_any.eps))
    assert bound <= evidence + markov_rounding(run_any.eps)


@pytest.mark.property("E3")
@given(markov_models(), symbols(), log_probs(STATES), log_probs(STEPS - 1, STATES, STATES))
def test_bound_rises_with_every_exact_step_of_expectation_maximisation(run_any, hmm, x, start, moves):
    """E: q becomes the exact posterior, and the bound the evidence. M: the model becomes the best for that q."""
    bounds = [markov_bound(run_any, hmm, x, start, moves).sum()]
    for _ in range(2):
        start, moves = oracles_state_space.posterior_chain(hmm, x)
        bounds.append(markov_bound(run_any, hmm, x, start, moves).sum())
        assert_allclose(bounds[-1], oracles_state_space.forward(hmm, x), rtol=0, atol=markov_rounding(run_any.eps))
        hmm = oracles_state_space.maximisation(hmm, x)
        bounds.append(markov_bound(run_any, hmm, x, start, moves).sum())
    assert np.diff(bounds).min() >= -4 * markov_rounding(run_any.eps)          # logarithms of up to 30 instead of 8


@pytest.mark.property("E3")
def test_expectation_maximisation_does_improve(run_any):
    """So that the test above is not one of a standstill."""
    rng = np.random.default_rng(0)
    hmm = HiddenMarkov(*(oracles_state_space.log_normalised(rng.normal(size=s)) for s in ((3,), (3, 3), (3, 2))))
    x, q = [0, 1, 1, 0], oracles_state_space.log_normalised(np.zeros((4, 3, 3)))
    before = markov_bound(run_any, hmm, x, q[0, 0], q[1:]).sum()
    posterior = oracles_state_space.posterior_chain(hmm, x)
    expected = markov_bound(run_any, hmm, x, *posterior).sum()
    maximised = markov_bound(run_any, oracles_state_space.maximisation(hmm, x), x, *posterior).sum()
    assert before + 0.1 < expected < maximised - 0.1


# Sums over time, masks


@pytest.mark.property("E4")
@given(models(), observations())
def test_gaussian_bound_is_a_sum_of_steps(run_any, model, x):
    """q's later conditionals belong to later terms: a shorter sequence has the same terms, one less."""
    chain = oracles_state_space.filtering_chain(model, x)
    full = on_nodes(model, x, chain)
    short = on_nodes(model, x[:-1], Chain(*(part[:-1] for part in chain)))
    terms = run_any(gaussian_terms, *full)
    assert terms.shape == (STEPS,)
    assert_allclose(run_any(gaussian_terms, *short), terms[:-1], rtol=0, atol=rounding(run_any.eps, *full))


def masked_terms(x, mean_x, std_x, mean_q, std_q, mean_p, std_p, weight, seen, valid):
    """`gaussian_terms` where some observations are missing and some steps are padding, whatever stands there."""
    xp = namespace(x)
    log_prob = xp.where(seen, gaussian_log_prob(xp.where(seen, x, 0.0), mean_x, std_x), 0.0)
    kl = gaussian_kl(mean_q, std_q, mean_p, std_p)
    return xp.sum(xp.where(valid, weight * (log_prob - kl), 0.0), axis=-1)


@pytest.mark.property("E4")
@given(models(), observations(), st.integers(0, STEPS - 1))
def test_masking_a_step_removes_exactly_its_term(run_any, model, x, step):
    arguments = on_nodes(model, x, oracles_state_space.filtering_chain(model, x))
    everywhere = np.ones((STEPS, len(NODES)), bool)
    here = np.arange(STEPS)[:, None] == step
    full = run_any(masked_terms, *arguments, everywhere, everywhere)
    assert_allclose(full, run_any(gaussian_terms, *arguments), rtol=0, atol=rounding(run_any.eps, *arguments))
    kept = run_any(masked_terms, *arguments, everywhere, everywhere & ~here)
    assert_array_equal(kept, np.where(here[:, 0], 0, full))


@pytest.mark.property("E4")
@given(models(), observations(), st.integers(0, STEPS - 1))
def test_masking_an_observation_gives_the_evidence_of_the_others(run_any, model, x, step):
    """At the exact posterior given the others, with NaN in the place of the missing one."""
    x[step] = np.nan
    arguments = on_nodes(model, x, oracles_state_space.smoothing_chain(model, x))
    everywhere = np.ones((STEPS, len(NODES)), bool)
    bound = run_any(masked_terms, *arguments, ~np.isnan(arguments[0]), everywhere).astype(np.float64).sum()
    evidence = oracles_state_space.evidence_by_joint_density(model, x)
    tolerance = rounding(run_any.eps, np.nan_to_num(arguments[0]), *arguments[1:])
    assert_allclose(bound, evidence, rtol=0, atol=tolerance)


@pytest.mark.property("E4")
@given(markov_models(), symbols(), st.integers(0, STEPS - 1))
def test_markov_bound_without_an_observation_is_the_evidence_of_the_others(run_any, hmm, x, step):
    x[step] = -1
    bound = markov_bound(run_any, hmm, x, *oracles_state_space.posterior_chain(hmm, x)).sum()
    assert_allclose(bound, oracles_state_space.forward(hmm, x), rtol=0, atol=markov_rounding(run_any.eps))


# Importance weighting


def log_weights(x, mean_q, std_q, noise):
    """log p(x, z) / q(z) of z ~ N(0, 1), x ~ N(z, 1/2), with z drawn from q."""
    z = reparameterise(mean_q, std_q, noise)
    return gaussian_log_prob(x, z, 0.5) + gaussian_log_prob(z, z * 0, 1.0) - gaussian_log_prob(z, mean_q, std_q)


def iwae_of_gaussian(x, mean_q, std_q, noise):
    """log of the mean of K weights, last axis."""
    return logsumexp(log_weights(x, mean_q, std_q, noise), axis=-1) - math.log(x.shape[-1])


@pytest.mark.property("E5")
def test_importance_weighted_bound_grows_with_the_number_of_samples(run_any):
    """4000 groups of 1, 2, 4, 8, 16 of the same draws (seed fixed). By Jensen, halving a group never gains, group by
    group; that it loses on average is significant, the plain bound is met at K = 1, the evidence is not passed."""
    noise = np.random.default_rng(0).normal(size=(4000, 16))
    x, mean_q, std_q = 1.5, 0.25, 0.75
    means, errors, previous = [], [], None
    for size in (1, 2, 4, 8, 16):
        draws = noise.reshape(-1, size)
        got = run_any(iwae_of_gaussian, *(np.full(draws.shape, v) for v in (x, mean_q, std_q)), draws)
        groups = got.astype(np.float64).reshape(4000, -1).mean(-1)              # 4000 independent estimates
        means.append(groups.mean())
        errors.append(groups.std() / 4000**0.5)
        if previous is not None:
            gain = groups - previous
            assert gain.min() > -256 * run_any.eps                              # weights of up to e^30 beside 1
            assert gain.mean() > 4 * gain.std() / 4000**0.5
        previous = groups
    evidence = oracles.gaussian_log_prob(x, 0.0, 1.25**0.5)
    # E_q[log p(x | z)] = log N(1.5; 0.25, 0.5) - 0.75^2 / (2 * 0.25), and the KL of q from N(0, 1)
    plain = oracles.gaussian_log_prob(x, mean_q, 0.5) - 1.125 - oracles.gaussian_kl(mean_q, std_q, 0.0, 1.0)
    assert abs(means[0] - plain) < 4 * errors[0]
    assert means[-1] < evidence + 4 * errors[-1]
    assert evidence - means[-1] < 0.2 * (evidence - means[0])


def iwae_of_classes(start, emit, symbol, log_q, chosen):
    """One value per tuple of K classes; start, log_q (N, K, C), emit (N, K, C, M), symbol (N, K, C, M), chosen one-hot
    (N, K, C)."""
    xp = namespace(start)
    likelihood = xp.sum(chosen * categorical_log_prob(symbol, emit), axis=-1)
    log_weight = likelihood + categorical_log_prob(chosen, start) - categorical_log_prob(chosen, log_q)
    return logsumexp(log_weight, axis=-1) - math.log(start.shape[1])


@pytest.mark.property("E5")
def test_importance_weighted_bound_of_classes_grows_by_enumeration(run_any):
    """Exact expectations over all tuples of K = 1 ... 4 draws of a state with three classes: no chance involved."""
    rng = np.random.default_rng(3)
    start, log_q = oracles_state_space.log_normalised(rng.normal(size=(2, STATES)))
    emit = oracles_state_space.log_normalised(rng.normal(size=(STATES, SYMBOLS)))
    bounds = []
    for size in range(1, 5):
        tuples = np.array(list(itertools.product(range(STATES), repeat=size)))
        lead = tuples.shape
        got = run_any(
            iwae_of_classes, np.broadcast_to(start, (*lead, STATES)), np.broadcast_to(emit, (*lead, STATES, SYMBOLS)),
            np.broadcast_to([0.0, 1.0], (*lead, STATES, SYMBOLS)), np.broadcast_to(log_q, (*lead, STATES)),
            np.eye(STATES)[tuples],
        )  # fmt: skip
        bounds.append(np.sum(np.exp(log_q[tuples].sum(-1)) * got))
    assert np.diff(bounds).min() > 1e-4
    assert bounds[-1] < oracles_state_space.log_sum(start + emit[:, 1]) - 1e-4
    plain = np.exp(log_q) @ (start + emit[:, 1] - log_q)
    assert_allclose(bounds[0], plain, rtol=64 * run_any.eps)
