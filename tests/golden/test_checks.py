"""The comparison itself: what it must let pass, and what not."""

import numpy as np
import pytest

from tests.golden.checks import close, evaluate, gradient_close


def test_results_and_gradients_by_name(library):
    # y = x^2 c: dy/dx = 2 x c = 12 for x = 2, c = 3
    inputs = {"x": np.array([2.0]), "c": np.array([3.0])}
    results, gradients = evaluate(library, lambda x, c: {"y": x * x * c}, inputs, "y", ("x",))
    assert results == {"y": [12.0]}
    assert gradients == ({"x": [12.0]} if hasattr(library, "gradients") else {})


def test_an_input_that_is_not_used_has_gradient_zero(library):
    inputs = {"x": np.ones(2), "unused": np.ones(2)}
    _, gradients = evaluate(library, lambda x, unused: {"y": x}, inputs, "y", tuple(inputs))
    assert all(gradient.any() == (name == "x") for name, gradient in gradients.items())


def test_float32_is_refused(library):
    with pytest.raises(AssertionError, match="float32"):
        evaluate(library, lambda x: {"y": x}, {"x": np.ones(2, np.float32)})


@pytest.mark.parametrize(
    ("got", "expected"),
    [([1.0, 2.1], [1.0, 2.0]), ([np.nan], [1.0]), ([1.0], [np.nan]), ([np.inf], [1.0]), (1.0, [1.0]), ([[1.0]], [1.0])],
)
@pytest.mark.parametrize("compare", [close, gradient_close])
def test_what_differs_does_not_pass(compare, got, expected):
    with pytest.raises(AssertionError):
        compare(np.array(got), np.array(expected), 1e-3)


def test_small_rows_are_compared_by_their_own_size():
    expected = np.array([[1e3, 1e3], [1.0, 1.0], [1.0, 1.0], [0.0, 1e-9]])
    gradient_close(expected + [[0.1], [1e-4], [1e-4], [1e-4]], expected, 1.01e-4)   # the last: like an ordinary row
    with pytest.raises(AssertionError, match="1 of 8"):
        gradient_close(expected + [[0], [0], [2e-4], [0]] * np.array([0, 1]), expected, 1.01e-4)


def test_zeros_must_be_zeros():
    with pytest.raises(AssertionError):
        gradient_close(np.full(3, 1e-12), np.zeros(3), 1e-3)
