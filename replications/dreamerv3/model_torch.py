"""DreamerV3's networks in torch: the world model around its latents, the actor and the critic.

Paper: Methods. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features, G blocks.
Noise is always an argument. Read latent_torch.py before it and objectives_torch.py after it; the formulas are in
shared/formulas.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.dreamerv3.latent_torch import RSSM, State
from replications.dreamerv3.layers_torch import MLP, BlockLinear, Conv, Dense, Norm, exact, initialise, over_channels
from shared.formulas.distributions import (
    bounded_normal,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
)
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.sampling import categorical_sample, reparameterise, unimix
from shared.formulas.transforms import symexp, symexp_bins, symlog, twohot, twohot_mean

Observations = Mapping[str, Tensor]  # by key: images (..., H, W, C) in [0, 1], vectors (..., n) or numbers (...)
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


def flat(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(..., *shape) -> (..., n)."""
    return x.reshape(*x.shape[: x.ndim - len(shape)], math.prod(shape))


class ImageEncoder(nn.Module):
    """Convolutions, each with norm and SiLU: (N, C, H, W) -> (N, E), flattened in the order height, width, channel.

    Source: code, dreamerv3/rssm.py:179-250 (pool), 2024/nets.py (stride), 2023/nets.py (kernel4); golden encoder.
    """

    def __init__(self, config, size, image_size: int, channels: int):
        super().__init__()
        self.stages = STAGES[config.convolutions]
        sizes = [channels, *(multiple * size.image_depth for multiple in self.stages.multiples)]
        bias, kernel = config.norm == "rms", self.stages.kernel
        self.convs = nn.ModuleList([Conv(i, o, kernel, bias=bias) for i, o in zip(sizes[:-1], sizes[1:], strict=True)])
        self.norms = nn.ModuleList([Norm(config.norm, size) for size in sizes[1:]])
        halvings = len(self.stages.multiples) - self.stages.outer
        self.embed_size = (image_size // 2**halvings) ** 2 * sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i == 0 and self.stages.outer:
                x = conv(x)
            elif self.stages.pooled:
                x = F.max_pool2d(conv(x), 2)
            else:
                x = conv.halving(x)
            x = over_channels(norm, x)
        return x.permute(0, 2, 3, 1).flatten(1)


class Encoder(nn.Module):
    """Observations -> tokens (..., E): vectors, squeezed by symlog, through an MLP; images through convolutions."""

    def __init__(self, config, size, obs_spec: Mapping):
        super().__init__()
        self.images, self.vectors, self.symlog = image_keys(obs_spec), vector_shapes(obs_spec), config.symlog
        self.order = config.embedding
        self.mlp = self.convs = None
        self.embed_size = 0
        if self.vectors:
            inputs = sum(map(math.prod, self.vectors.values()))
            self.mlp = MLP(inputs, size.units, config.vector_layers, config.norm)
            self.embed_size += size.units
        if self.images:
            channels = sum(obs_spec[key].shape[-1] for key in self.images)
            self.convs = ImageEncoder(config, size, obs_spec[self.images[0]].shape[0], channels)
            self.embed_size += self.convs.embed_size

    def forward(self, obs: Observations) -> Tensor:
        parts = []
        if self.vectors:
            vectors = torch.cat([flat(obs[key], shape) for key, shape in self.vectors.items()], -1)
            parts.append(self.mlp(symlog(vectors) if self.symlog else vectors))
        if self.images:
            image = torch.cat([obs[key] for key in self.images], -1) - 0.5
            x = image.flatten(0, -4).permute(0, 3, 1, 2)  # a view: rows of pixels ARE torch's channels_last
            parts.append(self.convs(x).unflatten(0, image.shape[:-3]))
        return torch.cat(parts if self.order == "vectors_first" else parts[::-1], -1)


class BlockStart(nn.Module):
    """The first, small image of a decoder: (N, D) and (N, S * K) -> (N, C, h, w).

    Each block of the state makes channels of its own; the sample goes through two layers; norm and SiLU of the sum.
    """

    def __init__(self, config, size, stoch: int, side: int, channels: int):
        super().__init__()
        self.side, self.channels = side, channels
        self.deter_in = BlockLinear(size.deter_size, side * side * channels, config.blocks)
        self.stoch_hidden = Dense(stoch, 2 * size.units, config.norm)
        self.stoch_in = nn.Linear(2 * size.units, side * side * channels)
        self.norm = Norm(config.norm, channels)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        place = (self.side, self.side)
        x = self.deter_in(deter).unflatten(-1, (*place, -1))  # (G, N, h, w, C / G)
        x = x.permute(1, 2, 3, 0, 4).flatten(-2)
        x = self.norm(x + self.stoch_in(self.stoch_hidden(stoch)).unflatten(-1, (*place, -1)))
        return x.permute(0, 3, 1, 2)


class DenseStart(nn.Module):
    """The same of the 2023 agent: one layer, (N, F) -> (N, C, h, w)."""

    def __init__(self, config, size, stoch: int, side: int, channels: int):
        super().__init__()
        self.side = side
        self.linear = nn.Linear(size.deter_size + stoch, side * side * channels)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        x = self.linear(torch.cat([deter, stoch], -1))
        return x.unflatten(-1, (self.side, self.side, -1)).permute(0, 3, 1, 2)


STARTS = {"block": BlockStart, "dense": DenseStart}


class ImageDecoder(nn.Module):
    """From the latent state to pixels: (N, D), (N, S * K) -> (N, C, H, W), the mean of each, around [0, 1].

    A small image, then the encoder's stages backwards, doubled by repeating pixels (pool) or by transposed convolution;
    norm and SiLU after each but the last, whose sigmoid keeps it in [0, 1] (2023: + 0.5 instead).
    Source: code, dreamerv3/rssm.py:253-359, 2024/nets.py, 2023/nets.py; golden decoder.
    """

    def __init__(self, config, size, stoch: int, image_size: int, channels: int):
        super().__init__()
        self.stages, self.sigmoid = STAGES[config.convolutions], config.gru == "block"
        multiples = [size.image_depth * multiple for multiple in reversed(self.stages.multiples)]
        side = image_size // 2 ** (len(multiples) - self.stages.outer)
        self.start = STARTS[config.gru](config, size, stoch, side, multiples[0])
        bias, kernel = config.norm == "rms", self.stages.kernel
        pairs = list(zip(multiples[:-1], multiples[1:], strict=True))
        self.convs = nn.ModuleList([Conv(i, o, kernel, bias=bias) for i, o in pairs])
        self.norms = nn.ModuleList([Norm(config.norm, o) for o in multiples[1:]])
        self.out = Conv(multiples[-1], channels, kernel)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        x = self.start(deter, stoch)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = over_channels(norm, self._doubled(conv, x))
        x = exact(self.out(x) if self.stages.outer else self._doubled(self.out, x))
        return torch.sigmoid(x) if self.sigmoid else x + 0.5

    def _doubled(self, conv: Conv, x: Tensor) -> Tensor:
        return conv.of_doubled(x) if self.stages.pooled else conv.spreading(x)


class VectorDecoder(nn.Module):
    """From the latent state to vectors: (..., F) -> {key: (..., *shape)}, in symlog space where the config says so."""

    def __init__(self, config, size, features: int, shapes: Mapping[str, tuple[int, ...]]):
        super().__init__()
        self.shapes = dict(shapes)
        self.mlp = MLP(features, size.units, config.vector_layers, config.norm)
        self.heads = nn.ModuleDict({key: nn.Linear(size.units, math.prod(shape)) for key, shape in shapes.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        x = self.mlp(features)
        return {key: exact(head(x)).reshape(*x.shape[:-1], *self.shapes[key]) for key, head in self.heads.items()}


class Decoder(nn.Module):
    """The latent state -> {key: prediction of an observation}, images (..., H, W, C) around [0, 1]."""

    def __init__(self, config, size, obs_spec: Mapping):
        super().__init__()
        # code: the decoder has images in the order of the specification, the encoder sorts them
        self.channels = {key: spec.shape[-1] for key, spec in obs_spec.items() if len(spec.shape) == 3}
        self.order = config.decoder_reads
        stoch, vectors = config.stoch_size * size.classes, vector_shapes(obs_spec)
        self.images = self.vectors = None
        if vectors:
            self.vectors = VectorDecoder(config, size, size.deter_size + stoch, vectors)
        if self.channels:
            image_size = obs_spec[next(iter(self.channels))].shape[0]
            self.images = ImageDecoder(config, size, stoch, image_size, sum(self.channels.values()))

    def forward(self, state: State) -> dict[str, Tensor]:
        deter, stoch = state["deter"], state["stoch"].flatten(-2)
        found = {}
        if self.vectors is not None:
            found |= self.vectors(torch.cat([stoch, deter] if self.order == "stoch_first" else [deter, stoch], -1))
        if self.images is not None:
            image = self.images(deter.flatten(0, -2), stoch.flatten(0, -2)).permute(0, 2, 3, 1)
            image = image.unflatten(0, deter.shape[:-1])
            found |= dict(zip(self.channels, image.split(list(self.channels.values()), -1), strict=True))
        return found


# ------------------------------------------------------------------------------------------------------------- heads


class TwoHot(nn.Module):
    """A number as a distribution over 255 bins between -5e8 and 5e8. It has no parameters.

    symexp_twohot: bins grow exponentially, and the mean of the distribution is the prediction. symlog_twohot (2023):
    bins are even, the target is squeezed by symlog, and symexp of the mean is the prediction.
    Source: code, embodied/jax/heads.py:132-144, outs.py:273-330, 2023/jaxutils.py; golden heads, twohot, v2023_extras.
    """

    def __init__(self, config):
        super().__init__()
        self.outputs, self.even = config.bins, config.scalars == "symlog_twohot"
        even = torch.linspace(-BIN_END, BIN_END, config.bins, dtype=torch.float64)
        bins = even if self.even else torch.from_numpy(symexp_bins(config.bins, -BIN_END, BIN_END))
        self.register_buffer("bins", bins.to(torch.get_default_dtype()), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """The prediction, (..., K) -> (...)."""
        mean = twohot_mean(torch.softmax(logits, -1), self.bins)
        return symexp(mean) if self.even else mean

    def loss(self, logits: Tensor, target: Tensor, other: Tensor | None = None, scale: float = 0.0) -> Tensor:
        """Cross-entropy to a target (...), and `scale` times that to another, in nats, (...). Both are constants."""
        code = self.code(target.detach())
        return -categorical_log_prob(code if other is None else code + scale * self.code(other.detach()), logits)

    def code(self, target: Tensor) -> Tensor:
        """(...) -> two weights, the rest zeros, (..., K)."""
        return twohot(symlog(target) if self.even else target, self.bins)


class Huber(nn.Module):
    """An ablation: a number as it is, under a loss that is quadratic up to 1 and linear beyond."""

    outputs = 1

    def __init__(self, config):
        super().__init__()

    def mean(self, raw: Tensor) -> Tensor:
        """The prediction, (..., 1) -> (...)."""
        return raw.squeeze(-1)

    def loss(self, raw: Tensor, target: Tensor, other: Tensor | None = None, scale: float = 0.0) -> Tensor:
        """As TwoHot.loss, with sqrt(d^2 + 1) - 1 of the distance d.

        # ours: the authors' configuration says `huber`, and no formula is known to us; this is its smooth form.
        """
        loss = self._distance_loss(raw, target)
        return loss if other is None else loss + scale * self._distance_loss(raw, other)

    def _distance_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        return ((self.mean(raw) - target.detach()).square() + HUBER_WIDTH**2).sqrt() - HUBER_WIDTH


SCALARS = {"symexp_twohot": TwoHot, "symlog_twohot": TwoHot, "huber": Huber}


class ScalarHead(nn.Module):
    """A number from the features; how, `scalar` says. The first prediction is 0."""

    def __init__(self, config, size, features: int, layers: int):
        super().__init__()
        self.scalar = SCALARS[config.scalars](config)
        self.hidden = MLP(features, size.units, layers, config.norm)
        self.out = nn.Linear(size.units, self.scalar.outputs + config.spare_outputs)
        self.out.first_scale = 0.0

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) -> (..., K), what scalar.mean and scalar.loss take."""
        return exact(self.out(self.hidden(features)))[..., : self.scalar.outputs]


class BinaryHead(nn.Module):
    """Log-odds that the world goes on. (..., F) -> (...)."""

    def __init__(self, config, size, features: int, layers: int):
        super().__init__()
        self.hidden = MLP(features, size.units, layers, config.norm)
        self.out = nn.Linear(size.units, 1)

    def forward(self, features: Tensor) -> Tensor:
        return exact(self.out(self.hidden(features))).squeeze(-1)


class WorldModel(nn.Module):
    """The parts together. config: the group model. size: what model.size names. obs_spec: shapes by key."""

    def __init__(self, config, size, obs_spec: Mapping, action_size: int, generator: torch.Generator):
        super().__init__()
        self.encoder = Encoder(config, size, obs_spec)
        self.latent = RSSM(config, size, self.encoder.embed_size, action_size)
        features = self.latent.feature_size
        self.decoder = Decoder(config, size, obs_spec)
        self.reward = ScalarHead(config, size, features, config.reward_layers)
        self.continuation = BinaryHead(config, size, features, config.continuation_layers)
        initialise(self, config.first_values, generator)
        self.to(memory_format=torch.channels_last)


class Actor(nn.Module):
    """The policy p(a | features): one-hot if discrete; else a normal distribution, whose samples may leave [-1, 1].

    The environment clips them, and so does, in effect, the latent model.
    Source: code, embodied/jax/heads.py:101-155; golden heads, bounded_normal, unimix_categorical.
    """

    def __init__(self, config, size, feature_size: int, act_spec, generator: torch.Generator):
        super().__init__()
        self.size, self.discrete, self.mix = act_spec.size, act_spec.discrete, config.actor_unimix
        self.stds = config.min_std, config.max_std
        self.hidden = MLP(feature_size, size.units, config.actor_layers, config.norm)
        self.out = nn.Linear(size.units, self.size)  # logits, or means
        self.out.first_scale = config.actor_scale
        self.std = None
        if not self.discrete:
            self.std = nn.Linear(size.units, self.size)
            self.std.first_scale = config.actor_scale
        initialise(self, config.first_values, generator)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Log-probabilities of a discrete action, (..., A); or mean and standard deviation, each (..., A)."""
        x = self.hidden(features)
        if self.discrete:
            return (unimix(exact(self.out(x)), self.mix),)
        return bounded_normal(exact(self.out(x)), exact(self.std(x)), *self.stds)

    def sample(self, policy: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        """An action (..., A) of what forward gave. noise: uniform (...) where discrete, normal (..., A) where not."""
        if self.discrete:
            return categorical_sample(policy[0].exp(), noise)
        return reparameterise(*policy, noise)

    def judge(self, policy: tuple[Tensor, ...], action: Tensor) -> tuple[Tensor, Tensor]:
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

    def __init__(self, config, size, feature_size: int, generator: torch.Generator):
        super().__init__(config, size, feature_size, config.critic_layers)
        initialise(self, config.first_values, generator)
