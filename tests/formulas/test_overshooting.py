"""Latent overshooting, PlaNet Eq. 7: properties O1 to O7, and E4 of its mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import namespace, stop_gradient
from shared.formulas.divergences import gaussian_kl
from shared.formulas.elbo import overshooting_kl, overshooting_mask, overshooting_starts, overshooting_windows
from shared.testing import oracles
from tests.formulas.strategies import exact_arrays

BATCH, STEPS, DISTANCE, SIZE = 3, 5, 3, 2
LENGTHS = np.array([5, 3, 1])
FREE = 0.25                                    # nats; float32 holds it exactly
# Two dimensions of squared distances up to (6 / 0.2)^2 / 2, each with some eps of itself
ROUNDING = 2 * 8 * 450


def statistics(seed=0):
    """Posterior and open-loop prior statistics of random values, such that float32 holds them exactly."""
    rng = np.random.default_rng(seed)
    post, prior = (BATCH, STEPS, SIZE), (BATCH, STEPS, DISTANCE + 1, SIZE)
    values = rng.normal(size=post), rng.uniform(0.2, 2, post), rng.normal(size=prior), rng.uniform(0.2, 2, prior)
    return tuple(np.clip(x, -3, 3).astype(np.float32).astype(np.float64) for x in values)


def masked_kl(post_mean, post_std, prior_mean, prior_std, lengths):
    mask = overshooting_mask(STEPS, DISTANCE, lengths)
    return overshooting_kl(post_mean, post_std, prior_mean, prior_std, mask, FREE)


WITH_NATS = {
    nats: (lambda *x, nats=nats: overshooting_kl(*x[:4], overshooting_mask(STEPS, DISTANCE, x[4]), nats))
    for nats in (0.0, 3.0)
}

# By hand


def open_loop(observation, action):
    """A cell without parameters: the state is the observation (posterior), or the state before plus the action (prior).
    All predictions, (B, T, 4)."""
    state, predictions = overshooting_starts(observation), []
    actions = overshooting_windows(action, 3)
    for d in range(4):
        state = state + actions[:, :, d]
        predictions.append(state)
    return namespace(state).stack(predictions, axis=2)


def mask_of_six(lengths):
    return overshooting_mask(6, 3, lengths)


@pytest.mark.property("O1", "O3")
def test_the_authors_table_by_hand(run_any):
    """The authors' example: sequences of length 6 and 2, distance 3, the cell above. Were rollouts to start from the
    prior one step earlier, start 2 would begin with 10.1 + 0.2 instead of the posterior's 20 + 0.2."""
    observation = [[10.0, 20.0, 30.0, 40.0, 50.0, 60.0], [70.0, 80.0, 0.0, 0.0, 0.0, 0.0]]
    action = [[0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [9.0, 0.7, 0.0, 0.0, 0.0, 0.0]]
    # start t, row t: the observation of t - 1 (0 before the first), plus the actions of t, of t and t + 1, ...
    prior = [
        [[0, 0.1, 0.3, 0.6], [10.1, 10.3, 10.6, 11], [20.2, 20.5, 20.9, 21.4], [30.3, 30.7, 31.2, 0],
         [40.4, 40.9, 0, 0], [50.5, 0, 0, 0]],
        [[9, 9.7, 0, 0], [70.7, 0, 0, 0], *[[0] * 4] * 4],
    ]  # fmt: skip
    posterior = [
        [[10, 20, 30, 40], [20, 30, 40, 50], [30, 40, 50, 60], [40, 50, 60, 0], [50, 60, 0, 0], [60, 0, 0, 0]],
        [[70, 80, 0, 0], [80, 0, 0, 0], *[[0] * 4] * 4],
    ]
    mask = run_any(mask_of_six, np.array([6, 2]))
    assert_array_equal(mask[0], [[1, 1, 1, 1]] * 3 + [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    assert_array_equal(mask[1], [[1, 1, 0, 0], [1, 0, 0, 0]] + [[0, 0, 0, 0]] * 4)
    assert_array_equal(run_any(windows_of_three, observation), posterior)
    assert_allclose(np.where(mask, run_any(open_loop, observation, action), 0), prior, rtol=4 * run_any.eps)


def windows_of_three(x):
    return overshooting_windows(x, 3)


def test_windows_starts_and_mask_by_hand(run):
    # in the manner of the authors' test: one sequence 10, 20, 30 of length 3, one 70, 80 of length 2
    x = [[10.0, 20.0, 30.0], [70.0, 80.0, 99.0]]
    windows = run(lambda x: overshooting_windows(x, 2), x)
    assert_array_equal(windows[0], [[10, 20, 30], [20, 30, 0], [30, 0, 0]])
    assert_array_equal(windows[1], [[70, 80, 99], [80, 99, 0], [99, 0, 0]])
    assert_array_equal(run(overshooting_starts, x), [[0, 10, 20], [0, 70, 80]])
    mask = run(lambda lengths: overshooting_mask(3, 2, lengths), [3, 2])
    assert_array_equal(mask[0], [[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    assert_array_equal(mask[1], [[1, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_overshooting_kl_by_hand(run):
    # Unit variances: KL = (difference of means)^2 / 2. Posterior means 0, 2, 5; all priors 1; 0.5 nats free:
    # targets (t, d): [0, 2], [2, 5], [5, -]  ->  KL [0.5, 0.5], [0.5, 8], [8, -]  ->  [0, 0], [0, 7.5], [7.5, 0]
    def kl(post_mean, post_std, prior_mean, prior_std, lengths):
        return overshooting_kl(post_mean, post_std, prior_mean, prior_std, overshooting_mask(3, 1, lengths), 0.5)

    got = run(kl, [[[0.0], [2.0], [5.0]]], np.ones((1, 3, 1)), np.ones((1, 3, 2, 1)), np.ones((1, 3, 2, 1)), [3])
    assert_allclose(got, [[[0, 0], [0, 7.5], [7.5, 0]]], atol=1e-15)


@pytest.mark.property("O3")
def test_the_gradient_of_a_rollout_reaches_the_posterior_it_starts_from(grad_any):
    """Each of the first five posteriors starts one rollout of four predictions, the last one none; action t is applied
    in every prediction that reaches it: from starts t - 3 ... t, in those of 1, 2, 3 and 4 steps."""
    to_observation, to_action = grad_any(open_loop, [[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]], [[0.5] * 6])
    assert_array_equal(to_observation, [[4, 4, 4, 4, 4, 0]])
    assert_array_equal(to_action, [[4, 7, 9, 10, 10, 10]])


# Limits


@pytest.mark.property("O2")
@given(st.integers(0, 2**32 - 1))
def test_distance_one_is_the_plain_bound(run_any, seed):
    """Index d = 0 is the ordinary KL of posterior and one-step prior."""
    post_mean, post_std, prior_mean, prior_std = statistics(seed)
    got = run_any(masked_kl, *statistics(seed), np.full(BATCH, STEPS))[:, :, 0]
    plain = run_any(gaussian_kl, post_mean, post_std, prior_mean[:, :, 0], prior_std[:, :, 0]).sum(-1)
    assert_allclose(got, np.maximum(plain - FREE, 0), rtol=0, atol=ROUNDING * run_any.eps)
    theirs = oracles.gaussian_kl(post_mean, post_std, prior_mean[:, :, 0], prior_std[:, :, 0]).sum(-1)
    assert_allclose(got, np.maximum(theirs - FREE, 0), rtol=0, atol=ROUNDING * run_any.eps)


def test_distance_may_exceed_the_sequence(run):
    windows = run(lambda x: overshooting_windows(x, 3), [[1.0, 2.0]])
    assert_array_equal(windows, [[[1, 2, 0, 0], [2, 0, 0, 0]]])
    assert run(lambda lengths: overshooting_mask(2, 3, lengths), [9]).sum() == 3


def test_distance_zero_is_the_sequence_itself(run):
    assert_array_equal(run(lambda x: overshooting_windows(x, 0), [[1.0, 2.0]]), [[[1], [2]]])


def mask_of_five(lengths):
    return overshooting_mask(5, 3, lengths)


@pytest.mark.property("O4")
@given(st.lists(st.integers(0, 7), min_size=3, max_size=3))
def test_mask_counts_the_pairs_inside_each_sequence(run_any, lengths):
    """Of L steps, max(0, L - d) have a target d steps ahead; lengths beyond the chunk count as the chunk."""
    expected = [[max(0, min(length, 5) - d) for d in range(4)] for length in lengths]
    assert_array_equal(run_any(mask_of_five, np.array(lengths)).sum(1), expected)


# Oracle


@pytest.mark.property("O7")
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, STEPS), min_size=BATCH, max_size=BATCH))
def test_batched_starts_equal_nested_loops(run_any, seed, lengths):
    expected = oracles.overshooting_kl(*statistics(seed), lengths, FREE)
    got = run_any(masked_kl, *statistics(seed), np.array(lengths))
    assert_allclose(got, expected, rtol=0, atol=ROUNDING * run_any.eps)


@pytest.mark.property("O7")
@pytest.mark.parametrize("nats", [0.0, 3.0])
def test_batched_starts_equal_nested_loops_for_other_free_nats(run_any, nats):
    got = run_any(WITH_NATS[nats], *statistics(), LENGTHS)
    expected = oracles.overshooting_kl(*statistics(), LENGTHS, nats)
    assert_allclose(got, expected, rtol=0, atol=ROUNDING * run_any.eps)
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(expected == 0)


@pytest.mark.property("O7", "O3")
@given(exact_arrays((2, 6), -8, 8), exact_arrays((2, 6), -1, 1))
def test_batched_rollouts_equal_nested_loops(run_any, observation, action):
    """Sums of up to 5 numbers."""
    expected = np.zeros((2, 6, 4))
    for b, t, d in np.ndindex(expected.shape):
        start = observation[b, t - 1] if t > 0 else 0.0
        expected[b, t, d] = start + sum(action[b, t : t + d + 1])
    assert_allclose(run_any(open_loop, observation, action), expected, rtol=0, atol=64 * run_any.eps)


@pytest.mark.property("E4")
def test_masking_removes_exactly_the_masked_terms(run_any):
    """Every entry is the full computation's, or 0."""
    full = run_any(masked_kl, *statistics(), np.full(BATCH, STEPS))
    mask = run_any(mask_of_five, LENGTHS)
    assert_array_equal(run_any(masked_kl, *statistics(), LENGTHS), np.where(mask, full, 0))


# Padding and gradients


def padded(garbage):
    """The statistics with every entry that no valid target or prediction needs replaced by garbage."""
    post_mean, post_std, prior_mean, prior_std = statistics()
    beyond = np.arange(STEPS)[None] >= LENGTHS[:, None]
    ahead = (np.arange(STEPS)[:, None] + np.arange(DISTANCE + 1))[None] >= LENGTHS[:, None, None]
    for x, where in ((post_mean, beyond), (post_std, beyond), (prior_mean, ahead), (prior_std, ahead)):
        x[where] = garbage
    return (post_mean, post_std, prior_mean, prior_std), (beyond, beyond, ahead, ahead)


@pytest.mark.property("O5")
@pytest.mark.parametrize("garbage", [0.0, -1.0, 1e30, np.inf, np.nan])
def test_padding_never_reaches_the_value(run_any, garbage):
    """Zero is what the released code pads with: 0/0 there, and a loss of NaN."""
    got = run_any(masked_kl, *padded(garbage)[0], LENGTHS)
    assert_array_equal(got, run_any(masked_kl, *statistics(), LENGTHS))


@pytest.mark.property("O5")
@pytest.mark.parametrize("garbage", [0.0, -1.0, 1e30, np.inf, np.nan])
def test_padding_never_reaches_a_gradient(grad_any, garbage):
    """Gradients of valid entries are unmoved, those of padded entries exactly zero."""
    arguments, holes = padded(garbage)
    clean = grad_any(masked_kl, *statistics(), LENGTHS)
    for got, expected, hole in zip(grad_any(masked_kl, *arguments, LENGTHS), clean, holes, strict=True):
        assert_array_equal(got, expected)
        assert_array_equal(got[hole], 0)


def test_gradients_equal_finite_differences(grad):
    expected = oracles.finite_difference(lambda *x: oracles.overshooting_kl(*x, LENGTHS, FREE), *statistics())
    for got, difference in zip(grad(masked_kl, *statistics(), LENGTHS), expected, strict=True):
        assert_allclose(got, difference, rtol=1e-6, atol=1e-6)


def stopped_ahead(post_mean, post_std, prior_mean, prior_std, lengths):
    """PlaNet's loss: the plain divergence with, the others without a gradient to the posterior."""
    plain = masked_kl(post_mean, post_std, prior_mean, prior_std, lengths)[:, :, 0]
    ahead = masked_kl(stop_gradient(post_mean), stop_gradient(post_std), prior_mean, prior_std, lengths)[:, :, 1:]
    xp = namespace(plain)
    return xp.sum(plain) + xp.sum(ahead)


def plain_only(*arguments):
    return masked_kl(*arguments)[:, :, 0]


@pytest.mark.property("O6")
def test_stopped_posteriors_learn_from_the_plain_bound_only_and_change_nothing_else(grad_any):
    """PlaNet stops the gradient of the posterior side for d >= 1; the prior side does not notice."""
    stopped = grad_any(stopped_ahead, *statistics(), LENGTHS)
    plain, free = grad_any(plain_only, *statistics(), LENGTHS), grad_any(masked_kl, *statistics(), LENGTHS)
    tolerance = ROUNDING / 0.2 * grad_any.eps                 # a KL's gradient is its size over a std of 0.2 or more
    for side in (0, 1):
        assert_allclose(stopped[side], plain[side], rtol=0, atol=tolerance)
        assert np.abs(free[side] - plain[side]).max() > 0.1
    for side in (2, 3):
        assert_allclose(stopped[side], free[side], rtol=0, atol=tolerance)


def test_starts_pass_their_gradient_to_the_step_before(grad):
    (got,) = grad(lambda x: overshooting_starts(x) * overshooting_starts(x), [[1.0, 2.0, 3.0]])
    assert_array_equal(got, [[2.0, 4.0, 0.0]])               # the last posterior starts no rollout


# Errors


def test_negative_distance_is_refused():
    with pytest.raises(ValueError, match="overshooting_windows: distance must be >= 0"):
        overshooting_windows(np.zeros((1, 2)), -1)
    with pytest.raises(ValueError, match="overshooting_mask: distance must be >= 0"):
        overshooting_mask(2, -1, np.array([2]))


def test_missing_time_axis_is_refused():
    with pytest.raises(ValueError, match=r"overshooting_starts: expected \(B, T, ...\), got shape \(4,\)"):
        overshooting_starts(np.zeros(4))
    with pytest.raises(ValueError, match=r"overshooting_windows: expected \(B, T, ...\)"):
        overshooting_windows(np.zeros(4), 1)
    with pytest.raises(ValueError, match=r"overshooting_mask: lengths must be \(B,\)"):
        overshooting_mask(3, 1, np.zeros((2, 3), int))


def test_shapes_must_fit_together():
    post_mean, post_std, prior_mean, prior_std = statistics()
    mask = overshooting_mask(STEPS, DISTANCE, LENGTHS)
    with pytest.raises(ValueError, match="overshooting_kl: post .* prior .* mask .* do not fit"):
        overshooting_kl(post_mean, post_std, prior_mean, prior_std, mask[:, :, :2], 0.0)
    for odd in (lambda x: x[..., 0], lambda x: x[..., :1]):  # no latent axis, or one that would broadcast
        with pytest.raises(ValueError, match="overshooting_kl: post .* prior .* mask .* do not fit"):
            overshooting_kl(odd(post_mean), odd(post_std), prior_mean, prior_std, mask, 0.0)
    with pytest.raises(ValueError, match="overshooting_kl: post .* prior .* mask .* do not fit"):
        overshooting_kl(post_mean[..., 0], post_std[..., 0], prior_mean[..., 0], prior_std[..., 0], mask, 0.0)
    with pytest.raises(ValueError, match="overshooting_kl: .*post_mean.*post_std"):
        overshooting_kl(post_mean, post_std[:, :1], prior_mean, prior_std, mask, 0.0)
    with pytest.raises(ValueError, match="overshooting_kl: .*prior_mean.*prior_std"):
        overshooting_kl(post_mean, post_std, prior_mean, prior_std[..., :1], mask, 0.0)
