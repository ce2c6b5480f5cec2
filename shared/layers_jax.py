"""The layers of the JAX models, their first values, and their parameters by name: what torch.nn is to the torch models.

Weights have torch's layouts and names, so that one file of parameters serves both frameworks. A layer is made of zeros;
`initialise` gives a whole network its first values. The networks of a paper are in its own model_jax.py.
"""

import functools
import math
from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Initial = Literal["glorot", "orthogonal", "ones"]


class Linear(eqx.Module):
    """x W^T + b. weight (outputs, inputs), as in torch. fans: what Glorot takes for the fans of the weight."""

    weight: Array
    bias: Array
    fans: tuple[int, int] = eqx.field(static=True)
    first_bias: float = eqx.field(static=True)
    initial: Initial = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        fans: tuple[int, int] | None = None,
        first_bias: float = 0.0,
        initial: Initial = "glorot",
    ):
        self.weight = jnp.zeros((outputs, inputs))
        self.bias = jnp.zeros(outputs)
        self.fans, self.first_bias, self.initial = fans or (inputs, outputs), first_bias, initial

    def __call__(self, x: Array) -> Array:
        return x @ self.weight.T + self.bias


class Conv2d(eqx.Module):
    """Convolution without padding. weight (outputs, inputs, k, k), as in torch; images are (N, H, W, C)."""

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True)
    fans: tuple[int, int] = eqx.field(static=True)
    first_bias: float = eqx.field(static=True)
    initial: Initial = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        self.weight = jnp.zeros((outputs, inputs, kernel, kernel))
        self.bias = jnp.zeros(outputs)
        self.stride, self.first_bias, self.initial = stride, 0.0, "glorot"
        self.fans = (inputs * kernel**2, outputs * kernel**2)

    def __call__(self, x: Array) -> Array:
        return convolve(x, self.weight, self.stride) + self.bias


class ConvTranspose2d(eqx.Module):
    """Transposed convolution without padding. weight (inputs, outputs, k, k), as in torch; images are (N, H, W, C)."""

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True)
    fans: tuple[int, int] = eqx.field(static=True)
    first_bias: float = eqx.field(static=True)
    initial: Initial = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        self.weight = jnp.zeros((inputs, outputs, kernel, kernel))
        self.bias = jnp.zeros(outputs)
        self.stride, self.first_bias, self.initial = stride, 0.0, "glorot"
        self.fans = (inputs * kernel**2, outputs * kernel**2)

    def __call__(self, x: Array) -> Array:
        return spread(x, self.weight, self.stride) + self.bias


class LayerNorm(eqx.Module):
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis. weight, bias (size,), as in torch."""

    weight: Array
    bias: Array
    epsilon: float = eqx.field(static=True)
    first_bias: float = eqx.field(static=True)
    initial: Initial = eqx.field(static=True)

    def __init__(self, size: int, epsilon: float):
        self.weight = jnp.zeros(size)
        self.bias = jnp.zeros(size)
        self.epsilon, self.first_bias, self.initial = epsilon, 0.0, "ones"

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scale = lax.rsqrt((centred * centred).mean(-1, keepdims=True) + self.epsilon)
        return centred * scale * self.weight + self.bias


# A convolution and its transpose: each is the gradient of the other, and both have the same gradient for the weight.
# Written out because on a CPU the gradients that JAX derives take up to ten times as long.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, weight: Array, stride: int) -> Array:
    """(N, H, W, I) -> (N, H', W', O) by weight (O, I, k, k), without padding: H' = (H - k) // stride + 1."""
    layout = ("NHWC", "OIHW", "NHWC")
    return lax.conv_general_dilated(x, weight, (stride, stride), "VALID", dimension_numbers=layout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def spread(y: Array, weight: Array, stride: int) -> Array:
    """The transpose of `convolve`: (N, H', W', O) -> (N, H, W, I) by weight (O, I, k, k), H = (H' - 1) stride + k.

    Row `stride * i + p` of the result reads only every stride-th row of the kernel, from p on; so do columns. These
    phases are stride^2 small kernels: one convolution without gaps makes the channels of all, then they become pixels.
    """
    outputs, inputs, kernel, _ = weight.shape
    taps = -(-kernel // stride)  # of a phase; the last one has zeros where stride does not divide k
    gap, margin = taps * stride - kernel, taps - 1
    weight = jnp.pad(weight, ((0, 0), (0, 0), (0, gap), (0, gap)))
    weight = jnp.flip(weight.reshape(outputs, inputs, taps, stride, taps, stride), (2, 4))
    weight = weight.transpose(2, 4, 0, 3, 5, 1).reshape(taps, taps, outputs, stride * stride * inputs)
    y = jnp.pad(y, ((0, 0), (margin, margin), (margin, margin), (0, 0)))  # by hand: XLA's own padding is slower
    x = lax.conv_general_dilated(y, weight, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    size, height, width, _ = x.shape
    x = x.reshape(size, height, width, stride, stride, inputs).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(size, stride * height, stride * width, inputs)[:, : stride * height - gap, : stride * width - gap]


def weight_gradient(x: Array, y: Array, kernel: int, stride: int) -> Array:
    """Of `convolve` at x for the cotangent y, (O, I, k, k): a convolution over the images with y as its kernel."""
    height, width = (stride * (size - 1) + kernel for size in y.shape[1:3])  # what the kernel reached of x
    gaps = {"rhs_dilation": (stride, stride), "dimension_numbers": ("CHWN", "IHWO", "CNHW")}
    return lax.conv_general_dilated(x[:, :height, :width], y, (1, 1), "VALID", **gaps)


def convolve_backward(stride: int, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = inputs
    back = spread(gradient, weight, stride)
    unread = [(0, whole - part) for whole, part in zip(x.shape, back.shape, strict=True)]  # the kernel stopped short
    return jnp.pad(back, unread), weight_gradient(x, gradient, weight.shape[-1], stride)


def spread_backward(stride: int, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    y, weight = inputs
    return convolve(gradient, weight, stride), weight_gradient(gradient, y, weight.shape[-1], stride)


convolve.defvjp(lambda x, weight, stride: (convolve(x, weight, stride), (x, weight)), convolve_backward)
spread.defvjp(lambda y, weight, stride: (spread(y, weight, stride), (y, weight)), spread_backward)


LAYERS = (Linear, Conv2d, ConvTranspose2d, LayerNorm)


def initialise(module, key: Array):
    """Every layer's first values, all from one key.

    glorot: kernels uniform in +-sqrt(6 / (fan_in + fan_out)), TensorFlow's default. orthogonal: the columns, or in a
    wide matrix the rows, are orthonormal, uniformly distributed. ones: norms change nothing at first. Biases are the
    layer's first bias.
    """
    is_layer = lambda part: isinstance(part, LAYERS)  # noqa: E731
    parts, structure = jax.tree.flatten(module, is_leaf=is_layer)
    ends = np.cumsum([part.weight.size for part in parts])
    # One draw for all: every shape of random numbers costs XLA half a second to compile.
    draws = np.split(np.asarray(jax.random.uniform(key, (ends[-1],), minval=-1.0)), ends[:-1])
    rules = {"glorot": glorot, "orthogonal": orthogonal, "ones": lambda part, draw: np.ones_like(draw)}
    filled = []
    for part, draw in zip(parts, draws, strict=True):
        weight = jnp.asarray(rules[part.initial](part, draw.reshape(part.weight.shape)))
        bias = jnp.full_like(part.bias, part.first_bias)
        filled.append(eqx.tree_at(lambda x: (x.weight, x.bias), part, (weight, bias)))
    return jax.tree.unflatten(structure, filled)


def glorot(layer, draw: np.ndarray) -> np.ndarray:
    """A weight from numbers uniform in [-1, 1), of its shape."""
    return np.float32(math.sqrt(6 / sum(layer.fans))) * draw


def orthogonal(layer, draw: np.ndarray) -> np.ndarray:
    """A weight from numbers uniform in [-1, 1), of its shape: they become Gaussian, then a QR decomposition."""
    inside = 1 - 2.0**-24  # erfinv of one is infinite
    gaussian = np.asarray(jax.scipy.special.erfinv(np.clip(draw, -inside, inside)), np.float64)
    tall = gaussian if draw.shape[0] >= draw.shape[1] else gaussian.T
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))  # else the distribution is not uniform
    return (q if draw.shape[0] >= draw.shape[1] else q.T).astype(np.float32)


def scan_time(step, carry, rows):
    """`lax.scan` over the second axis: rows (B, T, .) in, rows (B, T, .) out; the last carry is dropped."""
    time_first = jax.tree.map(lambda x: x.swapaxes(0, 1), rows)
    return jax.tree.map(lambda x: x.swapaxes(0, 1), lax.scan(step, carry, time_first)[1])


def named_parameters(module) -> dict[str, Array]:
    """All arrays by torch's names: attributes, list positions and keys, joined by dots."""
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(module, eqx.is_array))[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def with_parameters(module, parameters: Mapping[str, np.ndarray]):
    """The module with other values, by name; all of them, each of the shape that is there.

    Raises:
      ValueError: names or shapes differ from the module's.
    """
    current = named_parameters(module)
    if current.keys() != parameters.keys():
        raise ValueError(f"with_parameters: names differ: {sorted(current.keys() ^ parameters.keys())}")
    for name, value in parameters.items():
        if tuple(np.shape(value)) != current[name].shape:
            raise ValueError(f"with_parameters: {name} is {np.shape(value)}, expected {current[name].shape}")
    leaves, structure = jax.tree.flatten(module)
    assert len(leaves) == len(current), (len(leaves), len(current))
    return jax.tree.unflatten(structure, [jnp.asarray(parameters[name]) for name in current])
