"""log, softplus, sigmoid, logsumexp, log_softmax, softmax: what every density of the core stands on."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas._math import log, log_softmax, logsumexp, sigmoid, softmax, softplus
from shared.testing import oracles_distributions as exact
from tests.formulas import strategies

TAIL = 80                                      # exp(-80) = 2e-35: float32 still has it with all its digits


def over_first(x):
    return logsumexp(x, axis=0)


def over_last(x):
    return logsumexp(x, axis=-1)


def first_class(logits):
    return log_softmax(logits)[..., 0]


def first_probability(logits):
    return softmax(logits)[..., 0]


def normaliser(logits):
    return logsumexp(log_softmax(logits), axis=-1)


# By hand


def test_softplus_by_hand(run):
    # log(1 + 1) = log 2;   log(1 + 3) = log 4;   log(1 + 1/3) = log 4 - log 3
    got = run(softplus, [0.0, math.log(3), -math.log(3)])
    assert_allclose(got, [math.log(2), math.log(4), math.log(4) - math.log(3)], rtol=1e-15)


def test_sigmoid_by_hand(run):
    # 1 / (1 + 1);   1 / (1 + 1/3) = 3/4;   1 / (1 + 3) = 1/4
    assert_allclose(run(sigmoid, [0.0, math.log(3), -math.log(3)]), [0.5, 0.75, 0.25], rtol=1e-15)


def test_logsumexp_by_hand_along_either_axis(run):
    # rows: log(1 + 3 + 4) = log 8 and log(2 + 2 + 6) = log 10;   columns: log(1 + 2), log(3 + 2), log(4 + 6)
    x = np.log([[1.0, 3.0, 4.0], [2.0, 2.0, 6.0]])
    assert_allclose(run(over_last, x), np.log([8, 10]), rtol=1e-15)
    assert_allclose(run(over_first, x), np.log([3, 5, 10]), rtol=1e-15)


def test_log_softmax_by_hand_normalises_the_last_axis(run):
    # weights 1, 3, 4 and 2, 2, 6: probabilities 1/8, 3/8, 1/2 and 1/5, 1/5, 3/5
    logits, expected = np.log([[1.0, 3.0, 4.0], [2.0, 2.0, 6.0]]), [[0.125, 0.375, 0.5], [0.2, 0.2, 0.6]]
    assert_allclose(np.exp(run(log_softmax, logits)), expected, rtol=1e-14)
    assert_allclose(run(softmax, logits), expected, rtol=1e-14)


def test_log_of_arrays_and_of_numbers(run):
    assert_allclose(run(log, [1.0, 10.0]), [0.0, 2.302585092994046], rtol=1e-15)
    assert log(10.0) == log(10) == math.log(10)


def test_large_arguments_by_hand(run):
    # exp(1e4) overflows in both dtypes: the forms must not need it
    assert_array_equal(run(softplus, [1e4, -1e4]), [1e4, 0.0])
    assert_array_equal(run(sigmoid, [1e4, -1e4]), [1.0, 0.0])
    assert_allclose(run(over_last, [[1e4, 1e4], [-1e4, -1e4]]), [1e4 + math.log(2), -1e4 + math.log(2)], rtol=1e-15)
    assert_array_equal(run(over_last, [[1e4, -1e4]]), [1e4])
    assert_array_equal(run(log_softmax, [[1e4, -1e4], [-1e4, 1e4]]), [[0.0, -2e4], [-2e4, 0.0]])
    assert_array_equal(run(softmax, [[1e4, -1e4], [-1e4, 1e4]]), [[1.0, 0.0], [0.0, 1.0]])


def test_float32_stays_float32(run):
    x = np.ones((2, 3), np.float32)
    functions = log, softplus, sigmoid, over_last, log_softmax, softmax
    assert {run(function, x).dtype for function in functions} == {np.dtype(np.float32)}


# Against 50 digits


@given(strategies.exact_same_shape((-TAIL, 1e4)))
@example((np.array([[-TAIL, 1e-3, -1e-3]]),))
def test_softplus_keeps_its_relative_precision_in_both_tails(run_any, values):
    """A rounding each of exp and log1p, each within 2 ulp in every library."""
    (x,) = values
    assert_allclose(run_any(softplus, x), exact.softplus(x), rtol=8 * run_any.eps)


@given(strategies.exact_same_shape((-TAIL, TAIL)))
def test_sigmoid_keeps_its_relative_precision_in_both_tails(run_any, values):
    """exp turns the absolute error of its argument, eps * softplus, into a relative one."""
    (x,) = values
    got, expected = run_any(sigmoid, x), exact.sigmoid(x)
    assert (np.abs(got - expected) <= 4 * run_any.eps * (2 + np.abs(x)) * expected).all()


@given(strategies.exact_same_shape((-1e4, 1e4)))
def test_logsumexp_equals_its_definition(run_any, values):
    """Each of at most 3 terms adds an eps to a sum of at least 1; the result is rounded once more."""
    (x,) = values
    assert_allclose(run_any(over_last, x), exact.logsumexp(x), rtol=4 * run_any.eps, atol=16 * run_any.eps)


@given(strategies.exact_same_shape((-1e4, 1e4)))
def test_log_softmax_equals_its_definition_and_is_normalised(run_any, values):
    (logits,) = values
    got = run_any(log_softmax, logits)
    assert_allclose(got, exact.log_softmax(logits), rtol=4 * run_any.eps, atol=16 * run_any.eps)
    # an error of eps * |log p| costs eps * p |log p|, at most eps / e, per class
    assert_allclose(np.exp(got.astype(np.float64)).sum(-1), 1, rtol=16 * run_any.eps)
    assert got.max() <= 0


@given(strategies.exact_same_shape((-1e4, 1e4)))
def test_softmax_equals_its_definition_and_is_normalised(run_any, values):
    """exp turns an error of eps * |shift| into a relative one, and exp(-|shift|) |shift| <= 1 / e."""
    (logits,) = values
    got = run_any(softmax, logits)
    assert_allclose(got, exact.softmax(logits), rtol=0, atol=8 * run_any.eps)
    assert_allclose(got.astype(np.float64).sum(-1), 1, rtol=8 * run_any.eps)
    assert got.min() >= 0


@given(strategies.exact_same_shape((-1e4, 1e4)))
def test_logsumexp_of_log_softmax_is_zero(run_any, values):
    (logits,) = values
    assert_allclose(run_any(normaliser, logits), 0, atol=32 * run_any.eps)          # two passes of the above


# Gradients


def test_gradients_by_hand(grad_any):
    # softplus' = sigmoid;   sigmoid' = p (1 - p);   logsumexp' = softmax;   d log p_0 = (1 - p_0, -p_1, -p_2)
    eps = grad_any.eps
    x = [0.0, math.log(3), -math.log(3)]
    assert_allclose(grad_any(softplus, x)[0], [0.5, 0.75, 0.25], rtol=8 * eps)
    assert_allclose(grad_any(sigmoid, x)[0], [0.25, 0.1875, 0.1875], rtol=8 * eps)
    logits = np.log([[1.0, 3.0, 4.0], [2.0, 2.0, 6.0]])
    assert_allclose(grad_any(over_last, logits)[0], [[0.125, 0.375, 0.5], [0.2, 0.2, 0.6]], rtol=8 * eps)
    assert_allclose(grad_any(first_class, logits)[0], [[0.875, -0.375, -0.5], [0.8, -0.2, -0.6]], rtol=8 * eps)
    # d p_0 = p_0 (1 - p_0, -p_1, -p_2)
    expected = [[7 / 64, -3 / 64, -4 / 64], [0.16, -0.04, -0.12]]
    assert_allclose(grad_any(first_probability, logits)[0], expected, rtol=16 * eps)


def test_gradients_at_ties_are_shared_equally(grad_any):
    """The largest entry is subtracted; were its gradient not stopped or wrong, ties would show it first."""
    assert_allclose(grad_any(over_last, [[2.0, 2.0, 2.0, 2.0]])[0], np.full((1, 4), 0.25), rtol=8 * grad_any.eps)
    assert_allclose(grad_any(first_class, [[2.0, 2.0]])[0], [[0.5, -0.5]], rtol=8 * grad_any.eps)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_gradients_of_huge_arguments_are_finite(grad_any, size):
    assert_array_equal(grad_any(softplus, [size, -size])[0], [1.0, 0.0])
    assert_array_equal(grad_any(sigmoid, [size, -size])[0], [0.0, 0.0])
    assert_array_equal(grad_any(over_last, [[size, -size]])[0], [[1.0, 0.0]])
    assert_array_equal(grad_any(first_class, [[size, -size]])[0], [[0.0, 0.0]])
    assert_array_equal(grad_any(first_class, [[-size, size]])[0], [[1.0, -1.0]])
    assert_array_equal(grad_any(first_probability, [[-size, size]])[0], [[0.0, 0.0]])


def test_numbers_are_refused():
    for function in (softplus, sigmoid, over_last, log_softmax, softmax):
        with pytest.raises(TypeError, match="arrays of one library"):
            function(1.0)
