"""The one file that knows the library: trees keep their types, mixtures and rows of odd lengths are refused."""

import warnings
from collections import namedtuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from shared.formulas._backend import indices, is_torch, reverse_scan, stop_gradient_tree
from shared.formulas.normalization import return_range
from shared.formulas.planning import refit
from shared.formulas.returns import lambda_return
from shared.formulas.sampling import categorical_sample
from shared.formulas.transforms import twohot

Pair = namedtuple("Pair", "left right")


def test_is_torch_says_true_or_false():
    assert is_torch(torch.zeros(1)) is True
    assert is_torch(np.zeros(1)) is False and is_torch(2.0) is False


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tree_keeps_the_types_of_its_branches(kind):
    tree = {"a": kind([np.ones(1), kind([np.zeros(1)])]), "b": Pair(np.ones(2), [np.zeros(2)])}
    stopped = stop_gradient_tree(tree)
    assert type(stopped["a"]) is type(stopped["a"][1]) is kind
    assert type(stopped["b"]) is Pair and type(stopped["b"].right) is list
    np.testing.assert_array_equal(stopped["b"].left, np.ones(2))


def test_a_scan_refuses_a_mixture_of_libraries():
    with pytest.raises(TypeError, match=r"arrays of one library, got \['numpy', 'torch'\]"):
        reverse_scan(lambda y, row: y, np.zeros(1), (torch.zeros(2, 1),))


@pytest.mark.parametrize("make", [np.zeros, torch.zeros], ids=["numpy", "torch"])
def test_a_scan_refuses_rows_of_different_lengths(make):
    with pytest.raises(ValueError, match="zip"):
        reverse_scan(lambda y, one, other: y + one + other, make(1), (make((3, 1)), make((2, 1))))


@pytest.mark.parametrize("make", [torch.ones, jnp.ones], ids=["torch", "jax"])
def test_returns_refuse_a_mixture_of_libraries_before_they_compute(make):
    """Also one that torch or JAX would compute with: the share as a NumPy array."""
    rows = make((3, 1))
    with pytest.raises(TypeError, match="namespace: expected arrays of one library"):
        lambda_return(rows, rows, rows, np.full((3, 1), 0.9, np.float32))


def test_bins_are_searched_for_transposed_values_without_a_warning_of_torch():
    bins, values = torch.arange(4.0), torch.tensor([[0.25, 1.0, 2.5], [0.5, 3.0, 1.75]]).T
    assert not values.is_contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = twohot(values, bins)
    assert torch.equal(got, twohot(values.contiguous(), bins))


def test_indices_lie_on_the_device_of_their_model():
    assert indices(3, torch.zeros(2, dtype=torch.int64, device="meta")).device.type == "meta"


def test_nan_makes_its_row_of_a_sample_nan(run):
    """A row in which a probability or the draw is NaN, and no other."""
    probs = [[0.2, np.nan, 0.3, 0.0], [0.2, 0.5, 0.3, 0.0], [0.2, 0.5, 0.3, 0.0]]
    got = run(categorical_sample, probs, [0.1, np.nan, 0.1])
    assert np.isnan(got[:2]).all() and got[2].tolist() == [1, 0, 0, 0]


def test_a_limit_is_not_cut_down_to_an_integer():
    for make in (np.array, torch.tensor):
        assert float(return_range(make([0]), make([0]), 0.5)[0]) == 0.5


def test_the_best_of_unsigned_returns_cannot_be_asked_for():
    with pytest.raises(ValueError, match="refit: returns are uint8, expected floating point"):
        refit(np.zeros((4, 1, 1)), np.arange(4, dtype=np.uint8), 1, std="code")


def test_a_sample_is_no_part_of_torchs_graph():
    probs = torch.tensor([[0.25, 0.75]], requires_grad=True)
    assert not categorical_sample(probs, torch.tensor([0.5])).requires_grad
