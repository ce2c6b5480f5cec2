"""DreamerV3's networks in JAX: the world model, the actor and the critic.

Paper: Methods. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features, G blocks.
The twin of model_torch.py: same names, same order, torch's weight layouts and parameter names, so that one file of
parameters serves both. Noise is always an argument. Read layers_jax.py before it and agent_jax.py after it; the
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

from replications.dreamerv3.layers_jax import (
    MLP,
    BlockLinear,
    Conv,
    Dense,
    Linear,
    Norm,
    affine,
    exact,
    filled,
    in_blocks,
    joined,
    pooled,
)
from shared.formulas.distributions import (
    bounded_normal,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
)
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.sampling import categorical_sample, reparameterise, straight_through, unimix
from shared.formulas.transforms import symexp, symexp_bins, symlog, twohot, twohot_mean
from shared.layers_jax import scan_time

# deter (..., D), stoch (..., S, K), and logit (..., S, K), of which the distribution is made by RSSM.log_probs.
State = dict[str, Array]
Observations = Mapping[str, Array]  # by key: images (..., H, W, C) in [0, 1], vectors (..., n) or numbers (...)
UPDATE_BIAS = -1.0  # of the GRU: at first it rather keeps its state
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


# ------------------------------------------------------------------------------------------------------ latent model


class BlockGRU(eqx.Module):
    """The recurrent state's next value; each of G parts of the state has its own gates, and sees all inputs.

        x  = [D1(h), D2(z), D3(a / max(1, |a|))]        y = silu(norm(W1_g [h_g, x]))  of every block g, norm over all
        r, c, u = W2_g y_g      c = tanh(sigmoid(r) c)      u = sigmoid(u - 1)      h' = u c + (1 - u) h

    Source: code, dreamerv3/rssm.py (_core); golden rssm_steps.
    """

    deter_in: Dense
    stoch_in: Dense
    action_in: Dense
    hidden: list[BlockLinear]
    norms: list[Norm]
    gates: BlockLinear
    blocks: int = eqx.field(static=True)

    def __init__(self, config, size, stoch: int, action_size: int):
        deter, units, blocks, norm = size.deter_size, size.units, config.blocks, config.norm
        self.blocks = blocks
        self.deter_in = Dense(deter, units, norm)
        self.stoch_in = Dense(stoch, units, norm)
        self.action_in = Dense(action_size, units, norm)
        inputs = [deter + blocks * 3 * units] + [deter] * (config.dynamics_layers - 1)
        self.hidden = [BlockLinear(n, deter, blocks) for n in inputs]
        self.norms = [Norm(norm, deter) for _ in inputs]
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def weights(self) -> tuple[Array, Array]:
        """The first block layer's weights for the state, (G, D / G, D / G), and for x, (3 units, D).

        All blocks see the same x, so theirs are one matrix. Cut once for a whole rollout.
        """
        weight = self.hidden[0].weight
        own = weight.shape[-1]
        return weight[:, :own], weight[:, own:].swapaxes(0, 1).reshape(weight.shape[1] - own, -1)

    def action_part(self, action: Array) -> Array:
        """What depends on the action alone, (..., A) -> (..., units): computed once for all time steps."""
        return self.action_in(within_box(action))

    def __call__(self, deter: Array, stoch: Array, action_part: Array, weights: tuple[Array, Array]) -> Array:
        """deter (N, D), stoch (N, S * K), what action_part and weights gave -> deter (N, D)."""
        of_state, of_inputs = weights
        x = jnp.concatenate([self.deter_in(deter), self.stoch_in(stoch), action_part], -1)
        before = in_blocks(deter, self.blocks)
        seen = affine(x, of_inputs.T, self.hidden[0].bias)
        x = self.norms[0](seen + joined(before.astype(of_state.dtype) @ of_state))
        for layer, norm in zip(self.hidden[1:], self.norms[1:], strict=True):
            x = norm(joined(layer(x)))
        return joined(gated(self.gates(x), before))


class DenseGRU(eqx.Module):
    """The same of the 2023 agent: one matrix, whose gates are normalised together, and no branches before it.

        x = silu(norm(W1 [z, a / max(1, |a|)]))        r, c, u = norm(W2 [h, x])        h' as above

    Source: code, 2023/nets.py:17-187; golden v2023_extras (rssm).
    """

    inputs: Dense
    gates: Linear
    norm: Norm

    def __init__(self, config, size, stoch: int, action_size: int):
        deter, units, norm = size.deter_size, size.units, config.norm
        self.inputs = Dense(stoch + action_size, units, norm)
        self.gates = Linear(deter + units, 3 * deter, bias=norm == "rms")
        self.norm = Norm(norm, 3 * deter)

    def weights(self) -> tuple[()]:
        """Nothing: no matrix is cut."""
        return ()

    def action_part(self, action: Array) -> Array:
        """What depends on the action alone: (..., A) itself, divided by max(1, |a|)."""
        return within_box(action)

    def __call__(self, deter: Array, stoch: Array, action_part: Array, weights: tuple[()]) -> Array:
        """deter (N, D), stoch (N, S * K), what action_part gave -> deter (N, D)."""
        x = self.inputs(jnp.concatenate([stoch, action_part], -1))
        gates = self.norm.normalised(self.gates(jnp.concatenate([deter, x], -1)))
        return gated(gates, deter)


def within_box(action: Array) -> Array:
    """An action (..., A) divided by max(1, |a|), a constant."""
    return action / jnp.maximum(lax.stop_gradient(jnp.abs(action)), 1)


def gated(gates: Array, deter: Array) -> Array:
    """The GRU's update: gates (..., 3 n), reset, candidate and update one after the other; deter (..., n)."""
    reset, candidate, update = jnp.split(exact(gates), 3, axis=-1)
    candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
    return deter + jax.nn.sigmoid(update + UPDATE_BIAS) * (candidate - deter)


GRUS = {"block": BlockGRU, "dense": DenseGRU}


class RSSM(eqx.Module):
    """Deterministic path h_t (GRU) and stochastic latent z_t (S one-hot vectors of K classes).

        prior      h_t = GRU(h_{t-1}, z_{t-1}, a_{t-1})       z_t ~ p(z_t | h_t)
        posterior                                             z_t ~ q(z_t | h_t, tokens_t)

    A hundredth of every distribution is uniform (`unimix`). Source: DreamerV3, Methods; code, dreamerv3/rssm.py:16-176.
    """

    initial_deter: Array | None
    gru: BlockGRU | DenseGRU
    prior_hidden: MLP
    prior_head: Linear
    posterior_hidden: MLP
    posterior_head: Linear
    sample_shape: tuple[int, int] = eqx.field(static=True)
    mix: float = eqx.field(static=True)
    deter_size: int = eqx.field(static=True)
    feature_size: int = eqx.field(static=True)

    def __init__(self, config, size, embed_size: int, action_size: int):
        deter, units, norm = size.deter_size, size.units, config.norm
        self.sample_shape, self.mix = (config.stoch_size, size.classes), config.unimix
        stoch = config.stoch_size * size.classes
        self.deter_size, self.feature_size = deter, deter + stoch
        self.gru = GRUS[config.gru](config, size, stoch, action_size)
        self.prior_hidden = MLP(deter, units, config.prior_layers, norm)
        self.prior_head = Linear(units, stoch)
        self.posterior_hidden = MLP(deter + embed_size, units, config.posterior_layers, norm)
        self.posterior_head = Linear(units, stoch)
        self.initial_deter = filled(0, deter) if config.gru == "dense" else None

    def initial(self, *batch: int) -> State:
        """The state before the first step, (*batch, ...): zeros; or (2023) a learned one with its prior's mode."""
        shapes = {"deter": (*batch, self.deter_size), "stoch": (*batch, *self.sample_shape)}
        if self.initial_deter is None:
            return {name: jnp.zeros(shape, self.prior_head.bias.dtype) for name, shape in shapes.items()}
        deter = jnp.tanh(self.initial_deter)
        stoch = jax.nn.one_hot(self.prior_logit(deter).argmax(-1), self.sample_shape[-1], dtype=deter.dtype)
        return {"deter": jnp.broadcast_to(deter, shapes["deter"]), "stoch": jnp.broadcast_to(stoch, shapes["stoch"])}

    def restarted(self, state: State, first: Array) -> State:
        """The initial state where an episode starts, first (N,) bool; the state itself elsewhere."""
        return self._restarted(state, first, self.initial(*first.shape))

    def prior(self, previous: State, action: Array, noise: Array) -> State:
        """One step without an observation: z_t ~ p(z_t | h_t). action (N, A), noise uniform (N, S)."""
        return self.prior_step(previous, self.gru.action_part(action), noise, self.gru.weights())

    def prior_step(self, previous: State, action_part: Array, noise: Array, weights: tuple[Array, ...]) -> State:
        """`prior`, from what the GRU computes once for many steps."""
        deter = self.gru(previous["deter"], self._flat(previous["stoch"]), action_part, weights)
        logit = self.prior_logit(deter)
        return {"deter": deter, "stoch": self.sample(logit, noise), "logit": logit}

    def posterior(self, previous: State, action: Array, tokens: Array, noise: Array) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior has no sample."""
        part, weights = self.gru.action_part(action), self.gru.weights()
        deter = self.gru(previous["deter"], self._flat(previous["stoch"]), part, weights)
        logit = self._logit(self.posterior_head, self.posterior_hidden(jnp.concatenate([deter, tokens], -1)))
        post = {"deter": deter, "stoch": self.sample(logit, noise), "logit": logit}
        return post, {"deter": deter, "logit": self.prior_logit(deter)}

    def observe(self, tokens: Array, action: Array, is_first: Array, noise: Array, state: State) -> tuple[State, State]:
        """Filter a sequence: tokens (B, T, E), action that led to each row (B, T, A), is_first (B, T), noise (B, T, S).

        state: before the first row, each part (B, ...). Where is_first the state is the initial one; the action there
        is the caller's. The scan does only what depends on the sample before it: the action's branch, the tokens' half
        of the posterior and the whole prior are computed for all steps at once. Equals `restarted` and `posterior`
        applied T times (a test says so).
        """
        first = self.posterior_hidden.layers[0].linear
        of_deter, of_tokens = first.weight[:, : self.deter_size], first.weight[:, self.deter_size :]
        weights, initial = self.gru.weights(), self.initial(len(tokens))

        def step(carry: State, row: tuple[Array, ...]) -> tuple[State, State]:
            anew, action_part, token_part, noise = row
            carry = self._restarted(carry, anew, initial)
            deter = self.gru(carry["deter"], self._flat(carry["stoch"]), action_part, weights)
            hidden = self.posterior_hidden.after_first(token_part + affine(deter, of_deter))
            logit = self._logit(self.posterior_head, hidden)
            carry = {"deter": deter, "stoch": self.sample(logit, noise)}
            return carry, {**carry, "logit": logit}

        rows = (is_first, self.gru.action_part(action), affine(tokens, of_tokens, first.bias), noise)
        post = scan_time(step, {name: state[name] for name in ("deter", "stoch")}, rows)
        return post, {"deter": post["deter"], "logit": self.prior_logit(post["deter"])}

    def prior_logit(self, deter: Array) -> Array:
        """Logits of the prior, (..., D) -> (..., S, K)."""
        return self._logit(self.prior_head, self.prior_hidden(deter))

    def log_probs(self, logit: Array) -> Array:
        """Log-probabilities of the latents, (..., S, K): the uniform share is in them."""
        return unimix(logit, self.mix)

    def sample(self, logit: Array, noise: Array) -> Array:
        """One-hot (..., S, K), with the gradient of the probabilities. noise: uniform (..., S)."""
        probs = jnp.exp(self.log_probs(logit))
        return straight_through(categorical_sample(probs, noise), probs)

    def features(self, state: State) -> Array:
        """What the heads read: (..., F), the deterministic part first."""
        return jnp.concatenate([state["deter"], self._flat(state["stoch"])], -1)

    def _logit(self, head: Linear, x: Array) -> Array:
        return exact(head(x)).reshape(*x.shape[:-1], *self.sample_shape)

    def _flat(self, stoch: Array) -> Array:
        """(..., S, K) -> (..., S * K)."""
        return stoch.reshape(*stoch.shape[:-2], -1)

    def _restarted(self, state: State, first: Array, initial: State) -> State:
        return {
            "deter": jnp.where(first[:, None], initial["deter"], state["deter"]),
            "stoch": jnp.where(first[:, None, None], initial["stoch"], state["stoch"]),
        }


def imagine(latent: RSSM, state: State, action: Array, noise: Array) -> State:
    """Roll the prior open loop: state (B, ...), action (B, T, A), noise (B, T, S) -> states (B, T, ...)."""

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, State]:
        after = latent.prior(state, *row)
        return {name: after[name] for name in state}, after

    return scan_time(step, {name: state[name] for name in ("deter", "stoch")}, (action, noise))


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
