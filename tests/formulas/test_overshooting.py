"""Latent overshooting, PlaNet Eq. 7: properties O1 to O7, E4."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import stop_gradient
from shared.formulas.divergences import gaussian_kl
from shared.formulas.elbo import overshooting_kl, overshooting_mask, overshooting_starts, overshooting_windows
from shared.testing import oracles

BATCH, STEPS, DISTANCE, SIZE = 3, 5, 3, 2
LENGTHS = np.array([5, 3, 1])


def statistics(seed=0):
    """Posterior and open-loop prior statistics of random values."""
    rng = np.random.default_rng(seed)
    post, prior = (BATCH, STEPS, SIZE), (BATCH, STEPS, DISTANCE + 1, SIZE)
    return rng.normal(size=post), rng.uniform(0.2, 2, post), rng.normal(size=prior), rng.uniform(0.2, 2, prior)


def masked_kl(post_mean, post_std, prior_mean, prior_std, lengths):
    mask = overshooting_mask(STEPS, DISTANCE, lengths)
    return overshooting_kl(post_mean, post_std, prior_mean, prior_std, mask, 0.3)


# By hand


def test_windows_starts_and_mask_by_hand(run):
    """O1, in the manner of the authors' test: one sequence 10, 20, 30 of length 3, one 70, 80 of length 2."""
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


def test_rollouts_start_from_posteriors(run):
    """O3, with a mock cell: transition = state + action, posterior = observation. Were the rollout to start from the
    prior at t-1, start 2 would give 10.1 + 0.2 + ... instead of 20 + 0.2 + ..."""
    observation, action = [[10.0, 20.0, 30.0, 40.0]], [[0.0, 0.1, 0.2, 0.3]]

    def open_loop(observation, action):
        state, predictions = overshooting_starts(observation), []
        actions = overshooting_windows(action, 1)
        for d in range(2):
            state = state + actions[:, :, d]
            predictions.append(state)
        return tuple(predictions)

    one, two = run(open_loop, observation, action)
    assert_allclose(one, [[0.0, 10.1, 20.2, 30.3]], rtol=1e-15)
    assert_allclose(two[:, :3], [[0.1, 10.3, 20.5]], rtol=1e-15)


# Limits


def test_distance_one_is_the_plain_bound(run):
    """O2: index d = 0 is the ordinary KL of posterior and one-step prior."""
    post_mean, post_std, prior_mean, prior_std = statistics()
    got = run(masked_kl, *statistics(), np.full(BATCH, STEPS))[:, :, 0]
    plain = run(gaussian_kl, post_mean, post_std, prior_mean[:, :, 0], prior_std[:, :, 0]).sum(-1)
    assert_allclose(got, np.maximum(plain - 0.3, 0), rtol=1e-12, atol=1e-15)


def test_distance_may_exceed_the_sequence(run):
    windows = run(lambda x: overshooting_windows(x, 3), [[1.0, 2.0]])
    assert_array_equal(windows, [[[1, 2, 0, 0], [2, 0, 0, 0]]])
    assert run(lambda lengths: overshooting_mask(2, 3, lengths), [9]).sum() == 3


def test_distance_zero_is_the_sequence_itself(run):
    assert_array_equal(run(lambda x: overshooting_windows(x, 0), [[1.0, 2.0]]), [[[1], [2]]])


def mask_of_five(lengths):
    return overshooting_mask(5, 3, lengths)


@given(st.lists(st.integers(0, 7), min_size=3, max_size=3))
def test_mask_counts_the_pairs_inside_each_sequence(run, lengths):
    """O4: of L steps, max(0, L - d) have a target d steps ahead."""
    expected = [sum(max(0, min(length, 5) - d) for d in range(4)) for length in lengths]
    assert_array_equal(run(mask_of_five, np.array(lengths)).sum((1, 2)), expected)


# Oracle


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, STEPS), min_size=BATCH, max_size=BATCH))
def test_batched_starts_equal_nested_loops(run, seed, lengths):
    """O7. Terms of up to 1e2 are summed over two dimensions."""
    expected = oracles.overshooting_kl(*statistics(seed), lengths, 0.3)
    assert_allclose(run(masked_kl, *statistics(seed), np.array(lengths)), expected, rtol=1e-12, atol=1e-13)


def test_masking_removes_exactly_the_masked_terms(run):
    """E4: every entry is the full computation's, or 0."""
    full = run(masked_kl, *statistics(), np.full(BATCH, STEPS))
    mask = run(lambda lengths: overshooting_mask(STEPS, DISTANCE, lengths), LENGTHS)
    assert_array_equal(run(masked_kl, *statistics(), LENGTHS), np.where(mask, full, 0))


# Padding and gradients


def padded(garbage):
    """The statistics with every entry that no valid target or prediction needs replaced by garbage."""
    post_mean, post_std, prior_mean, prior_std = statistics()
    beyond = np.arange(STEPS)[None] >= LENGTHS[:, None]
    ahead = (np.arange(STEPS)[:, None] + np.arange(DISTANCE + 1))[None] >= LENGTHS[:, None, None]
    for x, where in ((post_mean, beyond), (post_std, beyond), (prior_mean, ahead), (prior_std, ahead)):
        x[where] = garbage
    return (post_mean, post_std, prior_mean, prior_std), (beyond, beyond, ahead, ahead)


@pytest.mark.parametrize("garbage", [0.0, -1.0, 1e30, np.inf, np.nan])
def test_padding_never_reaches_the_value(run, garbage):
    """O5. Zero is what the released code pads with: 0/0 there, and a loss of NaN."""
    assert_array_equal(run(masked_kl, *padded(garbage)[0], LENGTHS), run(masked_kl, *statistics(), LENGTHS))


@pytest.mark.parametrize("garbage", [0.0, -1.0, 1e30, np.inf, np.nan])
def test_padding_never_reaches_a_gradient(grad, garbage):
    """O5: gradients of valid entries are unmoved, those of padded entries exactly zero."""
    arguments, holes = padded(garbage)
    clean = grad(masked_kl, *statistics(), LENGTHS)
    for got, expected, hole in zip(grad(masked_kl, *arguments, LENGTHS), clean, holes, strict=True):
        assert_array_equal(got, expected)
        assert_array_equal(got[hole], 0)


def test_gradients_equal_finite_differences(grad):
    expected = oracles.finite_difference(lambda *x: oracles.overshooting_kl(*x, LENGTHS, 0.3), *statistics())
    for got, difference in zip(grad(masked_kl, *statistics(), LENGTHS), expected, strict=True):
        assert_allclose(got, difference, rtol=1e-6, atol=1e-6)


def test_constant_posteriors_receive_nothing_and_change_nothing_else(grad):
    """O6: PlaNet stops the gradient of the posterior side."""
    stopped = grad(lambda m, s, *rest: masked_kl(stop_gradient(m), stop_gradient(s), *rest), *statistics(), LENGTHS)
    free = grad(masked_kl, *statistics(), LENGTHS)
    assert_array_equal(stopped[0], 0)
    assert_array_equal(stopped[1], 0)
    assert_array_equal(stopped[2], free[2])
    assert_array_equal(stopped[3], free[3])
    assert np.abs(free[0]).max() > 0.1


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
    with pytest.raises(ValueError, match="overshooting_kl: .*post_mean.*post_std"):
        overshooting_kl(post_mean, post_std[:, :1], prior_mean, prior_std, mask, 0.0)
