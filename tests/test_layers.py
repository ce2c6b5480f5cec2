"""The layers of layers_torch.py that are not torch.nn's own, against torch.nn's."""

import pytest
import torch
from torch import nn

from shared.layers_torch import ConvTranspose2d


@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (6, 2), (4, 4), (7, 3), (3, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_transposed_convolution_and_its_gradients_are_torchs(kernel, stride, memory_format):
    ours, theirs = (cls(4, 3, kernel, stride).double() for cls in (ConvTranspose2d, nn.ConvTranspose2d))
    ours.load_state_dict(theirs.state_dict())
    found = []
    for layer in (ours, theirs):
        generator = torch.Generator().manual_seed(0)
        y = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64).contiguous(memory_format=memory_format)
        x = layer(y.requires_grad_())
        slope = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        found.append((x, *torch.autograd.grad(x, (y, layer.weight, layer.bias), slope)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_transposed_convolution_may_be_a_constant():
    """In a frozen decoder the gradient passes on to the features alone."""
    layer = ConvTranspose2d(2, 1, 4, 2).requires_grad_(False)
    y = torch.ones(1, 2, 3, 3, requires_grad=True)
    layer(y).sum().backward()
    torch.testing.assert_close(y.grad[0, :, 1, 1], layer.weight.sum((1, 2, 3)))
