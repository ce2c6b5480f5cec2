"""DreamerV3's networks in JAX: the world model around its latents, the actor and the critic.

Paper: Methods. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features, G blocks.
The twin of model_torch.py: same names, same order, torch's weight layouts and parameter names, so that one file of
parameters serves both. Noise is always an argument. Read latent_jax.py before it and objectives_jax.py after it; the
formulas are in shared/formulas.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from replications.dreamerv3.latent_jax import RSSM, State
from replications.dreamerv3.layers_jax import MLP, BlockLinear, Conv, Dense, Linear, Norm, exact, pooled
from shared.formulas.distributions import (
    bounded_normal,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
)
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.sampling import categorical_sample, reparameterise, unimix
from shared.formulas.transforms import symexp, symexp_bins, symlog, twohot, twohot_mean

Observations = Mapping[str, Array]  # by key: images (..., H, W, C) in [0, 1], vectors (..., n) or numbers (...)
BIN_END = 20.0  # two-hot codes reach from symexp(-20) to symexp(20)
HUBER_WIDTH = 1.0  # within it a Huber loss is quadratic
HALF_LOG_TWO_PI_E = 0.5 * math.log(2 * math.pi * math.e)  # the entropy of a normal distribution with std 1, nats


class Stages(NamedTuple):
    """How images shrink to 4 x 4, or 6 x 6, and grow again."""

    kernel: int
    multiples: tuple[int, ...]  # channels of every stage, in multiples of the depth
    outer: bool  # the first stage works at full resolution
    pooled: bool  # convolutions keep the size and a maximum of 2 x 2 halves it; else they have stride 2


STAGES = {
    "pool": Stages(5, (2, 3, 4, 4), outer=False, pooled=True),  # the last commit
    "stride": Stages(5, (1, 2, 3, 4, 4), outer=True, pooled=False),  # 2024, the paper
    "kernel4": Stages(4, (1, 2, 4, 8), outer=False, pooled=False),  # 2023
}


# ----------------------------------------------------------------------------------------------- encoder and decoder


def image_keys(obs_spec: Mapping) -> list[str]:
    """Observations with three axes, sorted."""
    return sorted(key for key, spec in obs_spec.items() if len(spec.shape) == 3)


def vector_shapes(obs_spec: Mapping) -> dict[str, tuple[int, ...]]:
    """The shape of every other observation, by sorted key; that of a number is ()."""
    return {key: tuple(obs_spec[key].shape) for key in sorted(obs_spec) if len(obs_spec[key].shape) < 3}


def flat(x: Array, shape: tuple[int, ...]) -> Array:
    """(..., *shape) -> (..., n)."""
    return x.reshape(*x.shape[: x.ndim - len(shape)], math.prod(shape))


class ImageEncoder(eqx.Module):
    """Convolutions, each with norm and SiLU: (N, H, W, C) -> (N, E), flattened in the order height, width, channel.

    Source: code, dreamerv3/rssm.py:179-250 (pool), 2024/nets.py (stride), 2023/nets.py (kernel4); golden encoder.
    """

    convs: list[Conv]
    norms: list[Norm]
    stages: Stages = eqx.field(static=True)
    embed_size: int = eqx.field(static=True)

    def __init__(self, config, size, image_size: int, channels: int):
        self.stages = STAGES[config.convolutions]
        sizes = [channels, *(multiple * size.image_depth for multiple in self.stages.multiples)]
        bias, kernel = config.norm == "rms", self.stages.kernel
        self.convs = [Conv(i, o, kernel, bias=bias) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        self.norms = [Norm(config.norm, size) for size in sizes[1:]]
        halvings = len(self.stages.multiples) - self.stages.outer
        self.embed_size = (image_size // 2**halvings) ** 2 * sizes[-1]

    def __call__(self, x: Array) -> Array:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i == 0 and self.stages.outer:
                x = conv(x)
            elif self.stages.pooled:
                x = pooled(conv(x))
            else:
                x = conv.halving(x)
            x = norm(x)
        return x.reshape(len(x), -1)


class Encoder(eqx.Module):
    """Observations -> tokens (..., E): vectors, squeezed by symlog, through an MLP; images through convolutions."""

    mlp: MLP | None
    convs: ImageEncoder | None
    images: tuple[str, ...] = eqx.field(static=True)
    vectors: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    symlog: bool = eqx.field(static=True)
    order: str = eqx.field(static=True)
    embed_size: int = eqx.field(static=True)

    def __init__(self, config, size, obs_spec: Mapping):
        shapes = vector_shapes(obs_spec)
        self.images, self.vectors, self.symlog = tuple(image_keys(obs_spec)), tuple(shapes.items()), config.symlog
        self.order = config.embedding
        self.mlp = self.convs = None
        self.embed_size = 0
        if self.vectors:
            inputs = sum(map(math.prod, shapes.values()))
            self.mlp = MLP(inputs, size.units, config.vector_layers, config.norm)
            self.embed_size += size.units
        if self.images:
            channels = sum(obs_spec[key].shape[-1] for key in self.images)
            self.convs = ImageEncoder(config, size, obs_spec[self.images[0]].shape[0], channels)
            self.embed_size += self.convs.embed_size

    def __call__(self, obs: Observations) -> Array:
        parts = []
        if self.vectors:
            vectors = jnp.concatenate([flat(obs[key], shape) for key, shape in self.vectors], -1)
            parts.append(self.mlp(symlog(vectors) if self.symlog else vectors))
        if self.images:
            image = jnp.concatenate([obs[key] for key in self.images], -1) - 0.5
            parts.append(self.convs(image.reshape(-1, *image.shape[-3:])).reshape(*image.shape[:-3], -1))
        return jnp.concatenate(parts if self.order == "vectors_first" else parts[::-1], -1)


class BlockStart(eqx.Module):
    """The first, small image of a decoder: (N, D) and (N, S * K) -> (N, h, w, C).

    Each block of the state makes channels of its own; the sample goes through two layers; norm and SiLU of the sum.
    """

    deter_in: BlockLinear
    stoch_hidden: Dense
    stoch_in: Linear
    norm: Norm
    side: int = eqx.field(static=True)

    def __init__(self, config, size, stoch: int, side: int, channels: int):
        self.side = side
        self.deter_in = BlockLinear(size.deter_size, side * side * channels, config.blocks)
        self.stoch_hidden = Dense(stoch, 2 * size.units, config.norm)
        self.stoch_in = Linear(2 * size.units, side * side * channels)
        self.norm = Norm(config.norm, channels)

    def __call__(self, deter: Array, stoch: Array) -> Array:
        count, place = len(deter), (self.side, self.side)
        x = self.deter_in(deter)  # (G, N, h * w * C / G)
        x = x.reshape(len(x), count, *place, -1).transpose(1, 2, 3, 0, 4).reshape(count, *place, -1)
        return self.norm(x + self.stoch_in(self.stoch_hidden(stoch)).reshape(count, *place, -1))


class DenseStart(eqx.Module):
    """The same of the 2023 agent: one layer, (N, F) -> (N, h, w, C)."""

    linear: Linear
    side: int = eqx.field(static=True)

    def __init__(self, config, size, stoch: int, side: int, channels: int):
        self.side = side
        self.linear = Linear(size.deter_size + stoch, side * side * channels)

    def __call__(self, deter: Array, stoch: Array) -> Array:
        x = self.linear(jnp.concatenate([deter, stoch], -1))
        return x.reshape(len(x), self.side, self.side, -1)


STARTS = {"block": BlockStart, "dense": DenseStart}


class ImageDecoder(eqx.Module):
    """From the latent state to pixels: (N, D), (N, S * K) -> (N, H, W, C), the mean of each, around [0, 1].

    A small image, then the encoder's stages backwards, doubled by repeating pixels (pool) or by transposed convolution;
    norm and SiLU after each but the last, whose sigmoid keeps it in [0, 1] (2023: + 0.5 instead).
    Source: code, dreamerv3/rssm.py:253-359, 2024/nets.py, 2023/nets.py; golden decoder.
    """

    start: BlockStart | DenseStart
    convs: list[Conv]
    norms: list[Norm]
    out: Conv
    stages: Stages = eqx.field(static=True)
    sigmoid: bool = eqx.field(static=True)

    def __init__(self, config, size, stoch: int, image_size: int, channels: int):
        self.stages, self.sigmoid = STAGES[config.convolutions], config.gru == "block"
        multiples = [size.image_depth * multiple for multiple in reversed(self.stages.multiples)]
        side = image_size // 2 ** (len(multiples) - self.stages.outer)
        self.start = STARTS[config.gru](config, size, stoch, side, multiples[0])
        bias, kernel = config.norm == "rms", self.stages.kernel
        pairs = list(zip(multiples[:-1], multiples[1:], strict=True))
        self.convs = [Conv(i, o, kernel, bias=bias) for i, o in pairs]
        self.norms = [Norm(config.norm, o) for o in multiples[1:]]
        self.out = Conv(multiples[-1], channels, kernel)

    def __call__(self, deter: Array, stoch: Array) -> Array:
        x = self.start(deter, stoch)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(self._doubled(conv, x))
        x = exact(self.out(x) if self.stages.outer else self._doubled(self.out, x))
        return jax.nn.sigmoid(x) if self.sigmoid else x + 0.5

    def _doubled(self, conv: Conv, x: Array) -> Array:
        return conv.of_doubled(x) if self.stages.pooled else conv.spreading(x)


class VectorDecoder(eqx.Module):
    """From the latent state to vectors: (..., F) -> {key: (..., *shape)}, in symlog space where the config says so."""

    mlp: MLP
    heads: dict[str, Linear]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)

    def __init__(self, config, size, features: int, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = tuple(shapes.items())
        self.mlp = MLP(features, size.units, config.vector_layers, config.norm)
        self.heads = {key: Linear(size.units, math.prod(shape)) for key, shape in shapes.items()}

    def __call__(self, features: Array) -> dict[str, Array]:
        x = self.mlp(features)
        return {key: exact(self.heads[key](x)).reshape(*x.shape[:-1], *shape) for key, shape in self.shapes}


class Decoder(eqx.Module):
    """The latent state -> {key: prediction of an observation}, images (..., H, W, C) around [0, 1]."""

    vectors: VectorDecoder | None
    images: ImageDecoder | None
    channels: tuple[tuple[str, int], ...] = eqx.field(static=True)
    order: str = eqx.field(static=True)

    def __init__(self, config, size, obs_spec: Mapping):
        # code: the decoder has images in the order of the specification, the encoder sorts them
        self.channels = tuple((key, spec.shape[-1]) for key, spec in obs_spec.items() if len(spec.shape) == 3)
        self.order = config.decoder_reads
        stoch, vectors = config.stoch_size * size.classes, vector_shapes(obs_spec)
        self.images = self.vectors = None
        if vectors:
            self.vectors = VectorDecoder(config, size, size.deter_size + stoch, vectors)
        if self.channels:
            image_size = obs_spec[self.channels[0][0]].shape[0]
            self.images = ImageDecoder(config, size, stoch, image_size, sum(count for _, count in self.channels))

    def __call__(self, state: State) -> dict[str, Array]:
        deter, stoch = state["deter"], state["stoch"].reshape(*state["stoch"].shape[:-2], -1)
        found = {}
        if self.vectors is not None:
            found |= self.vectors(
                jnp.concatenate([stoch, deter] if self.order == "stoch_first" else [deter, stoch], -1)
            )
        if self.images is not None:
            image = self.images(*(x.reshape(-1, x.shape[-1]) for x in (deter, stoch)))
            image = image.reshape(*deter.shape[:-1], *image.shape[1:])
            ends = np.cumsum([count for _, count in self.channels])[:-1]
            names = (key for key, _ in self.channels)
            found |= dict(zip(names, jnp.split(image, ends, axis=-1), strict=True))
        return found


# ------------------------------------------------------------------------------------------------------------- heads


class TwoHot(eqx.Module):
    """A number as a distribution over 255 bins between -5e8 and 5e8. It has no parameters.

    symexp_twohot: bins grow exponentially, and the mean of the distribution is the prediction. symlog_twohot (2023):
    bins are even, the target is squeezed by symlog, and symexp of the mean is the prediction.
    Source: code, embodied/jax/heads.py:132-144, outs.py:273-330, 2023/jaxutils.py; golden heads, twohot, v2023_extras.
    """

    outputs: int = eqx.field(static=True)
    even: bool = eqx.field(static=True)
    bins: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, config):
        self.outputs, self.even = config.bins, config.scalars == "symlog_twohot"
        even = np.linspace(-BIN_END, BIN_END, config.bins)
        self.bins = tuple((even if self.even else symexp_bins(config.bins, -BIN_END, BIN_END)).tolist())

    def mean(self, logits: Array) -> Array:
        """The prediction, (..., K) -> (...)."""
        mean = twohot_mean(jax.nn.softmax(logits, -1), jnp.asarray(self.bins, logits.dtype))
        return symexp(mean) if self.even else mean

    def loss(self, logits: Array, target: Array, other: Array | None = None, scale: float = 0.0) -> Array:
        """Cross-entropy to a target (...), and `scale` times that to another, in nats, (...). Both are constants."""
        code = self.code(lax.stop_gradient(target))
        code = code if other is None else code + scale * self.code(lax.stop_gradient(other))
        return -categorical_log_prob(code, logits)

    def code(self, target: Array) -> Array:
        """(...) -> two weights, the rest zeros, (..., K)."""
        return twohot(symlog(target) if self.even else target, jnp.asarray(self.bins, target.dtype))


class Huber(eqx.Module):
    """An ablation: a number as it is, under a loss that is quadratic up to 1 and linear beyond."""

    outputs: int = eqx.field(static=True)

    def __init__(self, config):
        self.outputs = 1

    def mean(self, raw: Array) -> Array:
        """The prediction, (..., 1) -> (...)."""
        return raw[..., 0]

    def loss(self, raw: Array, target: Array, other: Array | None = None, scale: float = 0.0) -> Array:
        """As TwoHot.loss, with sqrt(d^2 + 1) - 1 of the distance d.

        # ours: the authors' configuration says `huber`, and no formula is known to us; this is its smooth form.
        """
        loss = self._distance_loss(raw, target)
        return loss if other is None else loss + scale * self._distance_loss(raw, other)

    def _distance_loss(self, raw: Array, target: Array) -> Array:
        distance = self.mean(raw) - lax.stop_gradient(target)
        return jnp.sqrt(distance * distance + HUBER_WIDTH**2) - HUBER_WIDTH


SCALARS = {"symexp_twohot": TwoHot, "symlog_twohot": TwoHot, "huber": Huber}


class ScalarHead(eqx.Module):
    """A number from the features; how, `scalar` says. The first prediction is 0."""

    scalar: TwoHot | Huber
    hidden: MLP
    out: Linear

    def __init__(self, config, size, features: int, layers: int):
        self.scalar = SCALARS[config.scalars](config)
        self.hidden = MLP(features, size.units, layers, config.norm)
        self.out = Linear(size.units, self.scalar.outputs + config.spare_outputs, first_scale=0.0)

    def __call__(self, features: Array) -> Array:
        """(..., F) -> (..., K), what scalar.mean and scalar.loss take."""
        return exact(self.out(self.hidden(features)))[..., : self.scalar.outputs]


class BinaryHead(eqx.Module):
    """Log-odds that the world goes on. (..., F) -> (...)."""

    hidden: MLP
    out: Linear

    def __init__(self, config, size, features: int, layers: int):
        self.hidden = MLP(features, size.units, layers, config.norm)
        self.out = Linear(size.units, 1)

    def __call__(self, features: Array) -> Array:
        return exact(self.out(self.hidden(features)))[..., 0]


class WorldModel(eqx.Module):
    """The parts together. config: the group model. size: what model.size names. obs_spec: shapes by key."""

    encoder: Encoder
    latent: RSSM
    decoder: Decoder
    reward: ScalarHead
    continuation: BinaryHead

    def __init__(self, config, size, obs_spec: Mapping, action_size: int):
        self.encoder = Encoder(config, size, obs_spec)
        self.latent = RSSM(config, size, self.encoder.embed_size, action_size)
        features = self.latent.feature_size
        self.decoder = Decoder(config, size, obs_spec)
        self.reward = ScalarHead(config, size, features, config.reward_layers)
        self.continuation = BinaryHead(config, size, features, config.continuation_layers)


class Actor(eqx.Module):
    """The policy p(a | features): one-hot if discrete; else a normal distribution, whose samples may leave [-1, 1].

    The environment clips them, and so does, in effect, the latent model.
    Source: code, embodied/jax/heads.py:101-155; golden heads, bounded_normal, unimix_categorical.
    """

    hidden: MLP
    out: Linear  # logits, or means
    std: Linear | None
    size: int = eqx.field(static=True)
    discrete: bool = eqx.field(static=True)
    mix: float = eqx.field(static=True)
    stds: tuple[float, float] = eqx.field(static=True)

    def __init__(self, config, size, feature_size: int, act_spec):
        self.size, self.discrete, self.mix = act_spec.size, act_spec.discrete, config.actor_unimix
        self.stds = config.min_std, config.max_std
        self.hidden = MLP(feature_size, size.units, config.actor_layers, config.norm)
        self.out, std = (Linear(size.units, self.size, first_scale=config.actor_scale) for _ in range(2))
        self.std = None if self.discrete else std

    def __call__(self, features: Array) -> tuple[Array, ...]:
        """Log-probabilities of a discrete action, (..., A); or mean and standard deviation, each (..., A)."""
        x = self.hidden(features)
        if self.discrete:
            return (unimix(exact(self.out(x)), self.mix),)
        return bounded_normal(exact(self.out(x)), exact(self.std(x)), *self.stds)

    def sample(self, policy: tuple[Array, ...], noise: Array) -> Array:
        """An action (..., A) of what __call__ gave. noise: uniform (...) where discrete, normal (..., A) where not."""
        if self.discrete:
            return categorical_sample(jnp.exp(policy[0]), noise)
        return reparameterise(*policy, noise)

    def judge(self, policy: tuple[Array, ...], action: Array) -> tuple[Array, Array]:
        """Log-probability of an action (..., A), and the policy's entropy, each (...) in nats."""
        if self.discrete:
            return categorical_log_prob(action, policy[0]), categorical_entropy(policy[0])
        return gaussian_log_prob(action, *policy).sum(-1), gaussian_entropy(policy[1]).sum(-1)

    def entropy_range(self) -> tuple[float, float]:
        """The least and the largest entropy of a policy, nats: certain or uniform; all stds the least or the largest.

        The uniform share of a discrete policy, which keeps it from being certain, is not counted.
        """
        if self.discrete:
            return 0.0, math.log(self.size)
        least, most = (self.size * (HALF_LOG_TWO_PI_E + math.log(std)) for std in self.stds)
        return least, most


class Critic(ScalarHead):
    """v(features): what rewards a state and its future are worth."""

    def __init__(self, config, size, feature_size: int):
        super().__init__(config, size, feature_size, config.critic_layers)
