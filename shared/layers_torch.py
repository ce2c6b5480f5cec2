"""The first values of the torch models, as TensorFlow gives them, what torch.nn has slower on a CPU, and two tools.

The twin of layers_jax.py. The networks of a paper are in its own model_torch.py.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def glorot_(weight: Tensor, generator: torch.Generator, fans: tuple[int, int] | None = None) -> None:
    """TensorFlow's default initialiser: uniform in +-sqrt(6 / (fan_in + fan_out)). fans overrides the shape's own."""
    fan_in, fan_out = fans or nn.init._calculate_fan_in_and_fan_out(weight)
    limit = math.sqrt(6 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-limit, limit, generator=generator)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Glorot-uniform kernels and zero biases everywhere, then what a module says of itself (`reset`)."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            glorot_(part.weight, generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if hasattr(part, "reset"):
            part.reset(generator)


def tanh(x: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2 x) - 1: equal to 1e-7 in float32, and faster than torch.tanh on a CPU."""
    return torch.sigmoid(2 * x).mul(2).sub_(1)


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn's, without padding and with a kernel of at least its stride, by a faster way forward on a CPU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__(inputs, outputs, kernel, stride)

    def forward(self, y: Tensor) -> Tensor:
        if y.device.type != "cpu":
            return super().forward(y)
        return Spread.apply(y, self.weight, self.bias, self.stride[0])


class Spread(torch.autograd.Function):
    """`spread` with the gradients of a transposed convolution, which torch computes faster than those of its steps."""

    @staticmethod
    def forward(ctx, y: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(y, weight)
        ctx.stride = stride
        return spread(y, weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, weight = ctx.saved_tensors
        settings = ([ctx.stride] * 2, [0, 0], [1, 1], True, [0, 0], 1)  # stride, padding, dilation, transposed, ...
        needed = list(ctx.needs_input_grad[:3])
        back = torch.ops.aten.convolution_backward(gradient, y, weight, [weight.shape[1]], *settings, needed)
        return *back, None


def spread(y: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """A transposed convolution: (N, I, H', W') -> (N, O, H, W) by weight (I, O, k, k), H = (H' - 1) stride + k.

    Row `stride * i + p` of the result reads only every stride-th row of the kernel, from p on; so do columns. These
    phases are stride^2 small kernels: one convolution without gaps makes the channels of all, then they become pixels.
    """
    kernel = weight.shape[-1]
    taps = -(-kernel // stride)  # of a phase; the last one has zeros where stride does not divide k
    gap = taps * stride - kernel
    weight = F.pad(weight, (0, gap, 0, gap)).unflatten(3, (taps, stride)).unflatten(2, (taps, stride)).flip((2, 4))
    weight = weight.permute(1, 3, 5, 0, 2, 4).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    x = F.conv2d(y, weight, bias.repeat_interleave(stride**2), padding=taps - 1)
    height, width = (stride * (size - 1) + kernel for size in y.shape[2:])
    return F.pixel_shuffle(x, stride)[:, :, :height, :width]


@contextlib.contextmanager
def frozen(*modules: nn.Module | None) -> Iterator[None]:
    """Inside, these networks are constants: a gradient passes through them and none is left in them."""
    parameters = [parameter for module in modules if module is not None for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def stack_time(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """States of one step after the other, each part (B, ...), as one with a time axis, (B, T, ...)."""
    return {name: torch.stack([state[name] for state in states], 1) for name in states[0]}
