"""DreamerV3's layers in JAX: what its networks are built of.

The twin of layers_torch.py: same names, torch's weight layouts and parameter names. Shapes: N rows, G blocks; images
are (N, H, W, C).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.special import erf, erfinv

from shared.layers_jax import convolve, spread

EPSILON = {"rms": 1e-4, "layer": 1e-3}  # of a norm
TRUNCATION = 2.0  # standard deviations
TRUNCATED_STD = 0.87962566  # of a standard normal cut at +-2


def exact(x: Array) -> Array:
    """At least float32: norms, distributions and losses are never computed in bfloat16."""
    return x.astype(jnp.float32) if x.dtype in (jnp.bfloat16, jnp.float16) else x


def activate(x: Array) -> Array:
    """The one non-linearity of all layers."""
    return jax.nn.silu(x)


def affine(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x W^T + b, computed in the weight's precision. weight: (outputs, inputs)."""
    y = x.astype(weight.dtype) @ weight.T
    return y if bias is None else biased(y, bias)


def biased(y: Array, bias: Array) -> Array:
    """y + bias, in y's precision, but added in the bias's: its gradient, a sum over all rows and pixels, has that too.

    In bfloat16 a sum of more than some hundred terms stands still (on a CPU up to nine tenths of a gradient was lost).
    """
    return (y.astype(bias.dtype) + bias).astype(y.dtype)


def filled(value: float, *shape: int) -> Array:
    """An array of one number; made by NumPy, because XLA would compile a program for every shape."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    # np.zeros takes no memory before somebody writes
    return jax.device_put(np.full(shape, value, dtype) if value else np.zeros(shape, dtype))


class Linear(eqx.Module):
    """`affine` with its parameters; a factor of their first values."""

    weight: Array
    bias: Array | None
    first_scale: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, first_scale: float = 1.0):
        self.weight = filled(0, outputs, inputs)
        self.bias = filled(0, outputs) if bias else None
        self.first_scale = first_scale

    def __call__(self, x: Array) -> Array:
        return affine(x, self.weight, self.bias)


class Norm(eqx.Module):
    """x / sqrt(mean x^2 + 1e-4) * weight over the last axis (rms), or a LayerNorm (layer); then SiLU.

    Source: code, embodied/jax/nets.py:361-402; golden layers.
    """

    weight: Array
    bias: Array | None
    kind: str = eqx.field(static=True)

    def __init__(self, kind: str, size: int):
        self.kind = kind
        self.weight = filled(1, size)
        self.bias = filled(0, size) if kind == "layer" else None

    def __call__(self, x: Array) -> Array:
        return activate(self.normalised(x))

    def normalised(self, x: Array) -> Array:
        """Without the SiLU."""
        x = exact(x)
        if self.kind == "layer":
            x = x - x.mean(-1, keepdims=True)
        y = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON[self.kind]) * self.weight
        return y if self.bias is None else y + self.bias


class Dense(eqx.Module):
    """Linear, norm, SiLU: (..., inputs) -> (..., units). Before a LayerNorm there is no bias."""

    linear: Linear
    norm: Norm

    def __init__(self, inputs: int, units: int, norm: str):
        self.linear = Linear(inputs, units, bias=norm == "rms")
        self.norm = Norm(norm, units)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.linear(x))


class MLP(eqx.Module):
    """Dense layers, one after the other. (..., inputs) -> (..., units)."""

    layers: list[Dense]

    def __init__(self, inputs: int, units: int, layers: int, norm: str):
        self.layers = [Dense(inputs if i == 0 else units, units, norm) for i in range(layers)]

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def after_first(self, x: Array) -> Array:
        """The rest, from what the first layer's matrix has made."""
        x = self.layers[0].norm(x)
        for layer in self.layers[1:]:
            x = layer(x)
        return x


class BlockLinear(eqx.Module):
    """G matrices side by side, each for its part of the input: weight (G, inputs / G, outputs / G), bias (outputs,).

    Source: code, embodied/jax/nets.py (BlockLinear); golden layers (bl_*).
    """

    weight: Array
    bias: Array

    def __init__(self, inputs: int, outputs: int, blocks: int):
        self.weight = filled(0, blocks, inputs // blocks, outputs // blocks)
        self.bias = filled(0, outputs)

    def __call__(self, x: Array) -> Array:
        """(N, inputs) -> (G, N, outputs / G): the caller puts the blocks where it needs them."""
        blocks = len(self.weight)
        y = in_blocks(x.astype(self.weight.dtype), blocks) @ self.weight
        return biased(y, self.bias.reshape(blocks, 1, -1))


def in_blocks(x: Array, blocks: int) -> Array:
    """(N, G * n) -> (G, N, n)."""
    return x.reshape(len(x), blocks, -1).swapaxes(0, 1)


def joined(x: Array) -> Array:
    """(G, N, n) -> (N, G * n)."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


class Conv(eqx.Module):
    """Convolutions with TensorFlow's padding "same": kernel 5 with stride 2 has one zero before and two after.

    weight (outputs, inputs, k, k), as in torch; images are (N, H, W, C).
    """

    weight: Array
    bias: Array | None

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True):
        self.weight = filled(0, outputs, inputs, kernel, kernel)
        self.bias = filled(0, outputs) if bias else None

    def __call__(self, x: Array) -> Array:
        margin = self.weight.shape[-1] // 2
        return self._biased(convolve(self._padded(x, margin, margin), self.weight, 1))

    def halving(self, x: Array) -> Array:
        """With stride 2: (N, 2 H, 2 W, I) -> (N, H, W, O)."""
        return self._biased(convolve(self._padded(x, 1, 1 + self.weight.shape[-1] % 2), self.weight, 2))

    def spreading(self, x: Array) -> Array:
        """Of pixels put at (2 i + 1, 2 j + 1) of zeros: (N, H, W, I) -> (N, 2 H, 2 W, O), a transposed convolution.

        Source: golden layers (convT5s2, convT4s2): its usual form has the kernel flipped, and rows too many.
        """
        weight = jnp.flip(self.weight, (2, 3)).swapaxes(0, 1)
        y = spread(x.astype(weight.dtype), weight, 2)
        return self._biased(y[:, 1 : 1 + 2 * x.shape[1], 1 : 1 + 2 * x.shape[2]])

    def of_doubled(self, x: Array) -> Array:
        """Of an image whose pixels are repeated 2 x 2: (N, H, W, I) -> (N, 2 H, 2 W, O).

        A kernel of 5 sees three pixels of the small image in either direction. Which of its five weights fall on the
        same one depends on whether the row is even or odd; so four kernels of 3, applied to the small image, do the
        same with 9 products for 25.
        """
        outputs, inputs = self.weight.shape[:2]
        taps = jnp.asarray(DOUBLED_TAPS, self.weight.dtype)
        weight = jnp.einsum("atm,bsn,oimn->aboits", taps, taps, self.weight).reshape(-1, inputs, 3, 3)
        y = convolve(self._padded(x, 1, 1), weight, 1)
        size, height, width, _ = y.shape
        y = y.reshape(size, height, width, 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
        return self._biased(y.reshape(size, 2 * height, 2 * width, outputs))

    def _padded(self, x: Array, before: int, after: int) -> Array:
        return jnp.pad(x.astype(self.weight.dtype), ((0, 0), (before, after), (before, after), (0, 0)))

    def _biased(self, y: Array) -> Array:
        return y if self.bias is None else biased(y, self.bias)


# of_doubled: [parity of the row][pixel of the small image][weight of the kernel]
DOUBLED_TAPS = (
    ((1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)),
    ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)),
)


def pooled(x: Array) -> Array:
    """The largest of every 2 x 2 pixels: (N, 2 H, 2 W, C) -> (N, H, W, C). Equal pixels share the gradient."""
    size, height, width, channels = x.shape
    return x.reshape(size, height // 2, 2, width // 2, 2, channels).max((2, 4))


def initialise(module, kind: str, key: Array):
    """First weights: normal, cut at two standard deviations; biases 0, scales of norms 1.

    fan_in: std sqrt(1 / inputs), times a layer's `first_scale`; the inputs of a block layer are those of all blocks.
    fan_average: std sqrt(first_scale * 2 / (inputs + outputs)). Source: code, embodied/jax/nets.py:144-197; 2023.
    """
    is_layer = lambda part: isinstance(part, (Linear, Conv, BlockLinear))  # noqa: E731
    parts, structure = jax.tree.flatten(module, is_leaf=is_layer)
    sizes = [part.weight.size if is_layer(part) else 0 for part in parts]
    # One draw for all: every shape of random numbers costs XLA half a second to compile.
    draws = np.asarray(jax.random.uniform(key, (sum(sizes),), minval=-1.0))
    found = []
    for part, draw in zip(parts, np.split(draws, np.cumsum(sizes)[:-1]), strict=True):
        if is_layer(part):
            cut = math.sqrt(2) * erfinv(draw * erf(TRUNCATION / math.sqrt(2)))  # normal, within +-2
            weight = (first_std(part, kind) / TRUNCATED_STD * cut).reshape(part.weight.shape)
            part = eqx.tree_at(lambda x: x.weight, part, jax.device_put(weight.astype(part.weight.dtype)))
        found.append(part)
    return jax.tree.unflatten(structure, found)


def first_std(layer: Linear | Conv | BlockLinear, kind: str) -> float:
    """The standard deviation of a layer's first weights; see initialise."""
    scale = getattr(layer, "first_scale", 1.0)
    if isinstance(layer, BlockLinear):
        blocks, inputs, outputs = layer.weight.shape
        fan_in, fan_out = blocks * inputs, blocks * outputs
    else:
        outputs, inputs, *space = layer.weight.shape
        fan_in, fan_out = math.prod(space) * inputs, math.prod(space) * outputs
    return math.sqrt(scale * 2 / (fan_in + fan_out)) if kind == "fan_average" else scale / math.sqrt(fan_in)
