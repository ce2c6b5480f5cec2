"""DreamerV3's layers in torch: what its networks are built of. Shapes: N rows, G blocks; images (N, C, H, W)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = {"rms": 1e-4, "layer": 1e-3}  # of a norm
TRUNCATION = 2.0  # standard deviations
TRUNCATED_STD = 0.87962566  # of a standard normal cut at +-2


def exact(x: Tensor) -> Tensor:
    """At least float32: norms, distributions and losses are never computed in bfloat16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def activate(x: Tensor) -> Tensor:
    """The one non-linearity of all layers."""
    return F.silu(x)


class Norm(nn.Module):
    """x / sqrt(mean x^2 + 1e-4) * weight over the last axis (rms), or a LayerNorm (layer); then SiLU.

    Source: code, embodied/jax/nets.py:361-402; golden layers.
    """

    def __init__(self, kind: str, size: int):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.normalised(x))

    def normalised(self, x: Tensor) -> Tensor:
        """Without the SiLU."""
        if self.kind == "layer":
            return F.layer_norm(exact(x), self.weight.shape, self.weight, self.bias, EPSILON[self.kind])
        return F.rms_norm(exact(x), self.weight.shape, self.weight, EPSILON[self.kind])


class Dense(nn.Module):
    """Linear, norm, SiLU: (..., inputs) -> (..., units). Before a LayerNorm there is no bias."""

    def __init__(self, inputs: int, units: int, norm: str):
        super().__init__()
        self.linear = nn.Linear(inputs, units, bias=norm == "rms")
        self.norm = Norm(norm, units)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class MLP(nn.Module):
    """Dense layers, one after the other. (..., inputs) -> (..., units)."""

    def __init__(self, inputs: int, units: int, layers: int, norm: str):
        super().__init__()
        self.layers = nn.ModuleList([Dense(inputs if i == 0 else units, units, norm) for i in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def after_first(self, x: Tensor) -> Tensor:
        """The rest, from what the first layer's matrix has made."""
        x = self.layers[0].norm(x)
        for layer in self.layers[1:]:
            x = layer(x)
        return x


class BlockLinear(nn.Module):
    """G matrices side by side, each for its part of the input: weight (G, inputs / G, outputs / G), bias (outputs,).

    Source: code, embodied/jax/nets.py (BlockLinear); golden layers (bl_*).
    """

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (G, N, outputs / G): the caller puts the blocks where it needs them."""
        blocks, inputs, outputs = self.weight.shape
        return torch.baddbmm(self.bias.view(blocks, 1, outputs), in_blocks(x, blocks), self.weight)


def in_blocks(x: Tensor, blocks: int) -> Tensor:
    """(N, G * n) -> (G, N, n), a view."""
    return x.unflatten(-1, (blocks, -1)).transpose(0, 1)


def joined(x: Tensor) -> Tensor:
    """(G, N, n) -> (N, G * n)."""
    return x.transpose(0, 1).flatten(1)


def over_channels(norm, x: Tensor) -> Tensor:
    """A function of the last axis, applied to the channels of (N, C, H, W)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Conv(nn.Conv2d):
    """Convolutions with TensorFlow's padding "same": kernel 5 with stride 2 has one zero before and two after."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True):
        super().__init__(inputs, outputs, kernel, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel_size[0] // 2)

    def halving(self, x: Tensor) -> Tensor:
        """With stride 2: (N, I, 2 H, 2 W) -> (N, O, H, W)."""
        if self.kernel_size[0] % 2:
            return F.conv2d(F.pad(x, (1, 2, 1, 2)), self.weight, self.bias, stride=2)
        return F.conv2d(x, self.weight, self.bias, stride=2, padding=1)

    def spreading(self, x: Tensor) -> Tensor:
        """Of pixels put at (2 i + 1, 2 j + 1) of zeros: (N, I, H, W) -> (N, O, 2 H, 2 W), a transposed convolution.

        Source: golden layers (convT5s2, convT4s2): torch's has the kernel flipped, and one row and column too many.
        """
        weight = self.weight.flip(2, 3).transpose(0, 1)
        y = F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)
        return y[..., : 2 * x.shape[-2], : 2 * x.shape[-1]]

    def of_doubled(self, x: Tensor) -> Tensor:
        """Of an image whose pixels are repeated 2 x 2: (N, I, H, W) -> (N, O, 2 H, 2 W).

        A kernel of 5 sees three pixels of the small image in either direction. Which of its five weights fall on the
        same one depends on whether the row is even or odd; so four kernels of 3, applied to the small image, do the
        same with 9 products for 25.
        """
        taps = self.weight.new_tensor(DOUBLED_TAPS)
        weight = torch.einsum("atm,bsn,oimn->oabits", taps, taps, self.weight)
        bias = self.bias[:, None].expand(-1, 4).reshape(-1)
        return F.pixel_shuffle(F.conv2d(x, weight.flatten(0, 2), bias, padding=1), 2)


# of_doubled: [parity of the row][pixel of the small image][weight of the kernel]
DOUBLED_TAPS = (
    ((1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)),
    ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)),
)


@torch.no_grad()
def initialise(module: nn.Module, kind: str, generator: torch.Generator) -> None:
    """First weights: normal, cut at two standard deviations; biases 0, scales of norms 1.

    fan_in: std sqrt(1 / inputs), times a layer's `first_scale`; the inputs of a block layer are those of all blocks.
    fan_average: std sqrt(first_scale * 2 / (inputs + outputs)). Source: code, embodied/jax/nets.py:144-197; 2023.
    """
    for part in module.modules():
        if not isinstance(part, (nn.Linear, nn.Conv2d, BlockLinear)):
            continue
        scale = getattr(part, "first_scale", 1.0)
        if isinstance(part, BlockLinear):
            blocks, inputs, outputs = part.weight.shape
            fan_in, fan_out = blocks * inputs, blocks * outputs
        else:
            outputs, inputs = part.weight.shape[:2]
            space = part.weight[0, 0].numel()
            fan_in, fan_out = space * inputs, space * outputs
        std = math.sqrt(scale * 2 / (fan_in + fan_out)) if kind == "fan_average" else scale / math.sqrt(fan_in)
        nn.init.trunc_normal_(part.weight, 0.0, 1.0, -TRUNCATION, TRUNCATION, generator)
        part.weight.mul_(std / TRUNCATED_STD)
        if part.bias is not None:
            part.bias.zero_()
