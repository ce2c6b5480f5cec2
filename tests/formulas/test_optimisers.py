"""TensorFlow's Adam and clipping by the global norm: property A2. LaProp and adaptive clipping: test_laprop.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.optimisers import adam_tf, clip_by_global_norm
from shared.testing import oracles
from tests.formulas.strategies import arrays

PLANET = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-4}


def first_step(param, grad, m, v):
    return adam_tf(param, grad, m, v, 1, **PLANET)


def clip_pair(first, second):
    return clip_by_global_norm([first, second], 10.0)


@pytest.mark.property("A2")
def test_first_step_by_hand(run):
    # g = 2: m = 0.2, v = 0.004, rate = 1e-3 * sqrt(0.001) / 0.1 = 3.1622777e-4;
    # step = rate * 0.2 / (sqrt(0.004) + 1e-4) = 9.9842136e-4. With a bias-corrected epsilon: 9.9995e-4.
    param, m, v = run(first_step, [1.0], [2.0], [0.0], [0.0])
    assert_allclose([m.item(), v.item()], [0.2, 0.004], rtol=1e-12)
    assert_allclose(1 - param.item(), 9.98421357e-4, rtol=1e-8)


@pytest.mark.property("A2")
def test_second_step_by_hand(run):
    # lr 1, beta1 = beta2 = 1/2, eps 1; m = 4, v = 16, g = 8:  m = 6, v = 40,  rate = sqrt(3/4) / (3/4)
    param, m, v = run(lambda *x: adam_tf(*x, 2, 1.0, 0.5, 0.5, 1.0), [0.0], [8.0], [4.0], [16.0])
    assert_allclose([m.item(), v.item()], [6.0, 40.0], rtol=1e-15)
    assert_allclose(param.item(), -(0.75**-0.5) * 6 / (40**0.5 + 1), rtol=1e-14)


def test_zero_gradient_moves_nothing_at_the_start(run):
    param, m, v = run(first_step, [1.5], [0.0], [0.0], [0.0])
    assert (param.item(), m.item(), v.item()) == (1.5, 0.0, 0.0)


@pytest.mark.property("A2")
@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1.0, 1e15])
def test_many_steps_equal_torch_with_its_epsilon_converted(run, scale):
    """A2, over gradients so small that epsilon rules and so large that it does not matter."""
    rng = np.random.default_rng(0)
    param, grads = rng.normal(size=3), scale * rng.normal(size=(6, 3))
    expected = oracles.adam_by_torch(param, grads, **PLANET)
    m = v = np.zeros(3)
    for t, grad in enumerate(grads, start=1):
        param, m, v = run(lambda *x, t=t: adam_tf(*x, t, **PLANET), param, grad, m, v)
        assert_allclose(param, expected[t - 1], rtol=1e-12)


@pytest.mark.property("A2")
def test_tiny_epsilon_is_safe_in_float32(run):
    """A2: gradients of 1e-18 square to 1e-36, near the end of float32; epsilon 1e-20 must not give 0/0."""
    x = np.array([1e-18, 0.0], np.float32)
    param, _, _ = run(lambda *x: adam_tf(*x, 1, 1e-3, 0.9, 0.999, 1e-20), 0 * x, x, 0 * x, 0 * x)
    assert param.dtype == np.float32
    assert np.isfinite(param).all()


def test_clipping_by_hand(run):
    # |(3, 4)| and |12| together: norm 13 -> factor 10/13
    (first, second), norm = run(clip_pair, [3.0, 4.0], [[12.0]])
    assert_allclose(norm, 13.0, rtol=1e-15)
    assert_allclose(first, [30 / 13, 40 / 13], rtol=1e-15)
    assert_allclose(second, [[120 / 13]], rtol=1e-15)


def test_small_and_zero_gradients_pass_unchanged(run):
    (first, second), norm = run(clip_pair, [3.0, 4.0], [[0.0]])
    assert_array_equal(first, [3.0, 4.0])
    assert norm == 5
    (first, second), norm = run(clip_pair, [0.0, 0.0], [[0.0]])
    assert_array_equal(first, [0.0, 0.0])
    assert norm == 0


@given(st.tuples(arrays((3,), -1e6, 1e6), arrays((2, 2), -1e6, 1e6)))
def test_clipping_keeps_direction_and_obeys_the_limit(run, grads):
    (first, second), norm = run(clip_pair, *grads)
    together, clipped = (np.concatenate([a.ravel(), b.ravel()]) for a, b in (grads, (first, second)))
    assert_allclose(norm, np.linalg.norm(together), rtol=1e-12, atol=1e-150)   # squares below 1e-308 vanish
    assert np.linalg.norm(clipped) <= 10 * (1 + 1e-12)
    assert_allclose(clipped * max(norm, 10), together * 10, rtol=1e-12, atol=1e-300)


def test_clipping_equals_torch():
    import torch

    rng = np.random.default_rng(0)
    grads = [rng.normal(size=(4, 3)) * 30, rng.normal(size=5)]
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    expected = torch.nn.utils.clip_grad_norm_(parameters, 10.0)
    clipped, norm = clip_by_global_norm(grads, 10.0)
    assert_allclose(norm, expected.item(), rtol=1e-12)
    for got, parameter in zip(clipped, parameters, strict=True):
        assert_allclose(got, parameter.grad.numpy(), rtol=1e-6)          # torch adds 1e-6 to the norm


@pytest.mark.parametrize("limit", [0, -0.5, float("nan")])
def test_limits_must_be_positive(limit):
    with pytest.raises(ValueError, match=f"clip_by_global_norm: limit must be positive, got {limit}"):
        clip_by_global_norm([np.ones(2)], limit)


def test_limits_below_one_are_limits():
    (clipped,), norm = clip_by_global_norm([np.array([3.0, 4.0])], 0.5)
    assert norm == 5
    assert_allclose(clipped, [0.3, 0.4], rtol=1e-15)


def test_a_list_without_gradients_is_refused():
    with pytest.raises(ValueError, match="clip_by_global_norm: the list of gradients is empty"):
        clip_by_global_norm([], 1.0)


def test_step_counts_from_one():
    x = np.zeros(2)
    with pytest.raises(ValueError, match="adam_tf: step counts from 1"):
        adam_tf(x, x, x, x, 0, **PLANET)


@pytest.mark.parametrize("place", range(4))
def test_shapes_must_agree(place):
    state = [np.zeros(2)] * 4
    state[place] = np.zeros(3)
    with pytest.raises(ValueError, match="adam_tf: .*param .*grad .*m .*v"):
        adam_tf(*state, 1, **PLANET)
