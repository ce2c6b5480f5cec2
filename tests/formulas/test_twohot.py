"""The two-hot code and its expectation: properties T2 to T5, T7 to T9."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._backend import namespace
from shared.formulas.distributions import categorical_log_prob
from shared.formulas.transforms import symexp_bins, twohot, twohot_mean
from shared.testing import oracles_transforms as definitions
from tests.conftest import DEFAULT_GOLDEN
from tests.formulas.strategies import exact, exact_arrays

END = float(np.float32(4.8516519e8))            # the last of DreamerV3's bins
# Rounded to float32, so that both dtypes see the same bins; rounding keeps them symmetric.
BINS = {n: symexp_bins(n, -20.0, 20.0).astype(np.float32).astype(np.float64) for n in (2, 5, 16, 255)}
SIZE = (3,)                                     # one shape: JAX compiles once per count of bins
UNEVEN = np.array([-4.0, -1.0, 0.0, 0.0, 2.0, 10.0])


def targets(bins):
    """Numbers near zero, anywhere, outside, and exactly on bins."""
    anywhere = st.one_of(exact(-2, 2), exact(-END, END), exact(-(2.0**40), 2.0**40), st.sampled_from(bins.tolist()))
    return st.tuples(hnp.arrays(np.float64, SIZE, elements=anywhere), st.just(bins))


TARGETS = st.sampled_from(list(BINS.values())).flatmap(targets)


def decoded(x, bins):
    return twohot_mean(twohot(x, bins), bins)


def size(x, bins):
    """The larger of the two bins around x: what the rounding of the mean of its code is proportional to."""
    above = np.clip(np.searchsorted(bins, x, side="right"), 1, len(bins) - 1)
    return np.maximum(np.abs(bins[above]), np.abs(bins[above - 1]))


# A share errs by eps (subtraction, division), its complement by half an eps more, a product by eps / 2: twice 2 eps at
# the most, of which the parts of the two bins add up to less than 3.
MEAN_ROUNDING = 3


# By hand


def test_weights_by_hand(run):
    # 1 lies half way from 0 to 2; -3.25 three quarters of the way from -1 to -4; 9 seven eighths from 2 to 10
    got = run(twohot, [1.0, -3.25, 9.0], UNEVEN)
    assert_array_equal(got, [[0, 0, 0, 0.5, 0.5, 0], [0.75, 0.25, 0, 0, 0, 0], [0, 0, 0, 0, 0.125, 0.875]])


@pytest.mark.property("T3")
def test_targets_outside_count_as_the_ends(run):
    got = run(twohot, [-4.5, -np.inf, 10.5, np.inf], UNEVEN)
    assert_array_equal(got, np.eye(6)[[0, 0, 5, 5]])


@pytest.mark.property("T4")
def test_targets_on_bins_are_one_hot(run):
    # zero lies on two bins; the upper one takes it
    assert_array_equal(run(twohot, UNEVEN, UNEVEN), np.eye(6)[[0, 1, 3, 3, 4, 5]])


def test_negative_zero_is_zero(run):
    assert_array_equal(run(twohot, [-0.0], UNEVEN), np.eye(6)[[3]])
    assert_array_equal(run(twohot, [0.0], -UNEVEN[::-1].copy()), np.eye(6)[[3]])     # bins -10, -2, -0, -0, 1, 4


def test_two_bins_suffice(run):
    bins = np.array([-1.0, 3.0])
    assert_array_equal(run(twohot, [-2.0, 0.0, 3.0, 4.0], bins), [[1, 0], [0.75, 0.25], [0, 1], [0, 1]])
    assert_array_equal(run(decoded, [0.0], np.array([-3.0, 3.0])), [0.0])


@pytest.mark.parametrize("shape", [(), (2, 1, 2)])
def test_the_code_adds_an_axis_and_the_mean_takes_it(run, shape):
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape) / 4 - 1
    code = run(twohot, x, BINS[5])
    assert code.shape == (*shape, 5)
    assert run(twohot_mean, code, BINS[5]).shape == shape
    assert_allclose(code, definitions.twohot(x, BINS[5]), rtol=0, atol=1e-15)


def test_float32_stays_float32(run):
    x, bins = np.full((2, 3), 0.5, np.float32), np.array([-1, 0, 1], np.float32)
    code = run(twohot, x, bins)
    assert code.dtype == np.float32
    assert run(twohot_mean, code, bins).dtype == np.float32


def test_a_missing_target_is_not_hidden(run):
    """A diverged return must reach the loss; its neighbours in the batch are as they were."""
    got = run(twohot, [np.nan, 1.0], UNEVEN)
    assert np.isnan(got[0]).any() and np.isnan(got[0].sum())
    assert_array_equal(got[1], [0, 0, 0, 0.5, 0.5, 0])
    assert np.isnan(run(decoded, [np.nan], BINS[5])).all()


def test_mean_by_hand(run):
    # 0.5 * -8 + 0.125 * -1 + 0.25 * 1 + 0.125 * 8 = -2.875, whatever the weight of zero
    odd, even = np.array([-8.0, -1, 0, 1, 8]), np.array([-8.0, -1, 1, 8])
    assert_array_equal(run(twohot_mean, [[0.5, 0.125, 7.0, 0.25, 0.125]], odd), [-2.875])
    assert_array_equal(run(twohot_mean, [[0.5, 0.125, 0.25, 0.125]], even), [-2.875])


def test_mean_is_the_expectation_over_any_bins(run):
    """Symmetric ones are what it is made for, not what it rests on. -0.5 + 0.5 + 2;   -2 - 0.25 + 0.25 + 1.25"""
    assert_array_equal(run(twohot_mean, [0.5, 0.25, 0.25], np.array([-1.0, 2, 8])), 2)
    assert_array_equal(run(twohot_mean, [0.5, 0.25, 0.125, 0.125], np.array([-4.0, -1, 2, 10])), -0.75)


def test_mean_of_one_bin_is_that_bin(run):
    for bins in (BINS[2], BINS[255]):
        assert_array_equal(run(twohot_mean, np.eye(len(bins)), bins), bins)


# T2 to T5, T8, T9


@pytest.mark.property("T2")
@given(TARGETS)
def test_weights_are_a_distribution_over_two_neighbours(run_any, arguments):
    got = run_any(twohot, *arguments).astype(np.float64)
    assert np.all((got >= 0) & (got <= 1))
    assert_allclose(got.sum(-1), 1, rtol=0, atol=run_any.eps)                       # share + (1 - share) rounds once
    for row in got:
        (used,) = np.nonzero(row)
        assert len(used) == 1 or (len(used) == 2 and used[1] == used[0] + 1)


@pytest.mark.property("T3")
@given(TARGETS)
def test_mean_of_the_code_is_the_target(run_any, arguments):
    x, bins = arguments
    error = np.abs(run_any(decoded, x, bins) - np.clip(x, bins[0], bins[-1]))
    assert np.all(error <= MEAN_ROUNDING * run_any.eps * size(x, bins)), (x, error)


@pytest.mark.property("T3")
@given(exact_arrays(SIZE, -END, END))
def test_mean_of_the_code_is_the_target_to_a_millionth(run_any, x):
    """With DreamerV3's bins, whose neighbours differ by a factor of 1.2 to 2.2 (between 0 and the first, the share is
    relative itself): 7 eps, in float32 8e-7. atol: subnormal numbers."""
    assert_allclose(run_any(decoded, x, BINS[255]), x, rtol=1e-6, atol=1e-37)


@pytest.mark.property("T4")
@pytest.mark.parametrize("count", [16, 255])
def test_every_bin_is_one_hot_and_decodes_to_itself(run_any, count):
    bins = BINS[count]
    chosen = np.arange(count)
    if count == 16:
        chosen[7] = 8                                                               # the lower of the two zeros
    assert_array_equal(run_any(twohot, bins, bins), np.eye(count)[chosen])
    assert_array_equal(run_any(decoded, bins, bins), bins)


@pytest.mark.property("T5")
@pytest.mark.parametrize("count", [*BINS, 4, 9, 41, 254])
def test_uniform_probabilities_decode_to_exactly_zero(run_any, count):
    """A head that starts at zero predicts zero: also compiled, where products may not be rounded before they are added
    (fused), and for any weight that all bins share, since 1 / K rounds."""
    bins = symexp_bins(count, -20.0, 20.0).astype(run_any.dtype)
    weights = np.array([1 / count, 0.3, 0.7, 1 / 3])
    assert_array_equal(run_any(twohot_mean, np.repeat(weights[:, None], count, axis=1), bins), np.zeros(4))


def head(logits, bins):
    """What DreamerV3's critic predicts."""
    xp = namespace(logits)
    weights = xp.exp(logits)
    return twohot_mean(weights / xp.sum(weights, axis=-1, keepdims=True), bins)


@pytest.mark.property("T5")
@pytest.mark.parametrize("count", [16, 255])
def test_a_head_initialised_with_zeros_predicts_exactly_zero(run_any, count):
    assert_array_equal(run_any(head, np.zeros((2, count)), BINS[count]), np.zeros(2))


@given(st.sampled_from([5, 16]).flatmap(lambda n: st.tuples(exact_arrays((3, n), 0, 1), st.just(BINS[n]))))
def test_mean_equals_an_exact_sum(run_any, arguments):
    """K terms, each rounded in a product and at most K sums. 1e-28: subnormal probabilities, times the last bin."""
    probs, bins = arguments
    scale = np.sum(probs * np.abs(bins), axis=-1)
    got = run_any(twohot_mean, probs, bins)
    assert np.all(np.abs(got - definitions.mean(probs, bins)) <= len(bins) * run_any.eps * scale + 1e-28)


@pytest.mark.property("T8")
@given(TARGETS)
def test_weight_moves_up_with_the_target(run_any, arguments):
    """Sorted targets: the share of bins up to any k never grows, so the mean never falls."""
    x, bins = np.sort(arguments[0]), arguments[1]
    below = np.cumsum(run_any(twohot, x, bins).astype(np.float64), axis=-1)
    assert np.all(np.diff(below, axis=0) <= run_any.eps)                            # the sums err as T2's
    mean = run_any(decoded, x, bins).astype(np.float64)
    slack = MEAN_ROUNDING * run_any.eps * size(x, bins)
    assert np.all(np.diff(mean) >= -(slack[1:] + slack[:-1]))


@pytest.mark.property("T9")
@given(TARGETS)
def test_code_equals_search_and_scatter(run_any, arguments):
    """The share errs by its subtraction and its division; on a bin there is nothing to round."""
    assert_allclose(run_any(twohot, *arguments), definitions.twohot(*arguments), rtol=0, atol=2 * run_any.eps)


EVENLY = np.linspace(-4.0, 4.0, 9)


@pytest.mark.property("T9")
@given(exact_arrays(SIZE, -5, 5))
def test_code_over_even_bins_equals_the_form_of_rlax(run_any, x):
    """rlax's transform_to_2hot (not installed) spaces bins evenly in a transformed space, here the identity. It adds
    1e-5 to the width of a bin, which moves its weights by as much."""
    expected = definitions.twohot_even(x, -4.0, 4.0, 9)
    assert_allclose(run_any(twohot, x, EVENLY), expected, rtol=0, atol=2 * run_any.eps)


@pytest.mark.property("T9")
@pytest.mark.parametrize("case", ["bins255", "bins9", "bins16_even"])
def test_code_and_loss_equal_the_authors_of_dreamerv3(library, case):
    """data/golden/dreamerv3/twohot.npz: outs.TwoHot.loss in float32. Targets to 2 eps of a share; losses are sums of K
    log-probabilities of up to 100."""
    with np.load(DEFAULT_GOLDEN / "dreamerv3" / "twohot.npz", allow_pickle=False) as file:
        names = ("target", "bins", "logits", "target_twohot", "loss")
        target, bins, logits, code, expected = (file[f"{case}/{name}"].astype(np.float64) for name in names)
    assert_allclose(library(twohot, target, bins), code, rtol=0, atol=1e-6)
    assert_allclose(library(loss, logits, target, bins), expected, rtol=1e-5)


# The loss and gradients


def loss(logits, x, bins):
    """DreamerV3's reward and critic loss."""
    return -categorical_log_prob(twohot(x, bins), logits)


@pytest.mark.property("T7")
@given(exact_arrays((3, 5), -8, 8), targets(BINS[5]))
def test_loss_is_smallest_where_the_prediction_is_the_code(run, logits, arguments):
    """Gibbs: the cross-entropy is at least the entropy of the code, and reaches it at its logarithm, whose mean is the
    target. A weight of 0 has the logarithm -1e4: exp(-1e4) = 0."""
    x, bins = arguments
    code = definitions.twohot(x, bins)
    best = np.where(code > 0, np.log(np.maximum(code, 1e-300)), -1e4)
    least = run(loss, best, x, bins)
    entropy = -np.sum(code * np.where(code > 0, best, 0), axis=-1)
    assert_allclose(least, entropy, rtol=1e-12, atol=1e-12)
    assert np.all(run(loss, logits, x, bins) >= least - 1e-12)
    assert np.all(run(loss, best + logits * np.eye(5)[0], x, bins) >= least - 1e-12)


@pytest.mark.property("T7")
@given(exact_arrays((3, 5), -8, 8), targets(BINS[5]))
def test_gradient_of_the_loss_is_prediction_minus_code(grad_any, logits, arguments):
    """A softmax of 5 classes rounds some 10 times; the code twice."""
    got = grad_any(loss, logits, *arguments)[0]
    expected = definitions.softmax(logits) - definitions.twohot(*arguments)
    assert_allclose(got, expected, rtol=0, atol=12 * grad_any.eps)


def coded(weight, x, bins):
    return weight * twohot(x, bins)


def test_gradient_to_the_target_by_hand(grad):
    # from 2 to 10 the upper weight grows by 1 / 8 per unit, the lower one falls as fast; outside nothing moves
    x, weight = np.array([9.0, 11.0, -5.0]), np.tile([1.0, 2, 3, 4, 5, 16], (3, 1))
    assert_array_equal(grad(coded, weight, x, UNEVEN)[1], [(16 - 5) / 8, 0, 0])


def test_gradient_to_the_target_at_the_end_bins_is_that_of_the_inside(grad):
    """Weights 0, 1, 2, 3, 4 on bins -2, ..., 2: slope 1, also exactly at -2 and 2."""
    weight = np.tile(np.arange(5.0), (2, 1))
    assert_array_equal(grad(coded, weight, [-2.0, 2.0], np.arange(-2.0, 3))[1], [1, 1])


def test_gradients_of_the_mean_by_hand(grad):
    bins, probs = np.array([-8.0, -1, 0, 1, 8]), np.array([[0.5, 0.125, 0.25, 0.0, 0.125], [0.0, 0.0, 0.0, 1.0, 0.0]])
    to_probs, to_bins = grad(twohot_mean, probs, bins)
    assert_array_equal(to_probs, [bins, bins])
    assert_array_equal(to_bins, probs.sum(0))


# Errors


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 2), (1, 3)])
def test_bins_are_a_vector_of_at_least_two(run, shape):
    with pytest.raises(ValueError, match=r"^twohot: bins must be \(K,\) with K >= 2, got shape \("):
        run(twohot, np.zeros(3), np.zeros(shape))


@pytest.mark.parametrize("probs, bins", [((2, 3), (4,)), ((3, 2), (3,)), ((1,), (1,)), ((2, 2), (2, 2)), ((2, 3), ())])
def test_mean_needs_one_probability_per_bin(run, probs, bins):
    with pytest.raises(ValueError, match=r"^twohot_mean: probs \(.*\) and bins \(.*\) do not fit; expected"):
        run(twohot_mean, np.zeros(probs), np.zeros(bins))
