"""DreamerV2's networks in JAX: the world model, the actor and the critic.

Paper: Section 2. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features.
The twin of model_torch.py: same names, same order, torch's weight layouts and parameter names, so that one file of
parameters serves both. Noise is always an argument. Read top to bottom, then agent_jax.py.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from shared.formulas.distributions import (
    categorical_entropy,
    categorical_log_prob,
    truncated_normal,
    truncated_normal_entropy,
    truncated_normal_log_prob,
)
from shared.formulas.sampling import categorical_sample, reparameterise, straight_through, truncated_normal_sample
from shared.layers_jax import Conv2d, ConvTranspose2d, LayerNorm, Linear, scan_time

# sample (..., S, K) and logit (..., S, K); or sample, mean and std (..., S). Always belief (..., D).
State = dict[str, Array]
Norm = LayerNorm | eqx.nn.Identity
NORM_EPSILON = 1e-3  # Keras' own
UPDATE_BIAS = -1.0  # of the GRU: at first it rather keeps its state
ACTION_LIMIT = 1 - 1e-6  # code: common/dists.py, a sampled action stays this far inside its box


def make_norms(kind: str, sizes: list[int]) -> list[Norm]:
    """A LayerNorm for each layer, or nothing."""
    return [LayerNorm(size, NORM_EPSILON) if kind == "layer" else eqx.nn.Identity() for size in sizes]


class MLP(eqx.Module):
    """Dense layers, each with ELU, perhaps with a LayerNorm before it. (..., inputs) -> (..., units)."""

    layers: list[Linear]
    norms: list[Norm]

    def __init__(self, inputs: int, units: int, layers: int, norm: str):
        self.layers = [Linear(inputs if i == 0 else units, units) for i in range(layers)]
        self.norms = make_norms(norm, [units] * layers)

    def __call__(self, x: Array) -> Array:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.elu(norm(layer(x)))
        return x

    def split(self, embed: Array) -> Array:
        """The first layer's part for the last inputs alone, with the bias: computed once for all time steps."""
        first = self.layers[0]
        return embed @ first.weight[:, first.weight.shape[1] - embed.shape[-1] :].T + first.bias

    def resume(self, x: Array, embed_part: Array) -> Array:
        """__call__(concatenate([x, embed])) from x and split(embed), for one layer."""
        (first,), (norm,) = self.layers, self.norms
        return jax.nn.elu(norm(embed_part + x @ first.weight[:, : x.shape[-1]].T))


class NormGRU(eqx.Module):
    """A GRU whose gates are normalised together and whose reset gate acts on the candidate.

        r, c, u = LayerNorm(W [x, h] + b)      c = tanh(sigmoid(r) * c)      u = sigmoid(u - 1)
        h' = u * c + (1 - u) * h

    Source: code, common/nets.py:317-347; golden rssm_steps (gru_*).
    """

    linear: Linear
    norm: Norm

    def __init__(self, inputs: int, units: int, *, norm: bool):
        self.linear = Linear(inputs + units, 3 * units)
        self.norm = LayerNorm(3 * units, NORM_EPSILON) if norm else eqx.nn.Identity()

    def __call__(self, x: Array, h: Array) -> Array:
        reset, candidate, update = jnp.split(self.norm(self.linear(jnp.concatenate([x, h], -1))), 3, axis=-1)
        candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
        update = jax.nn.sigmoid(update + UPDATE_BIAS)
        return update * candidate + (1 - update) * h


class CategoricalHead(eqx.Module):
    """S categorical latents of K classes. (..., inputs) -> {logit (..., S, K)}."""

    linear: Linear
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, config, inputs: int):
        self.linear = Linear(inputs, config.stoch_size * config.classes)
        self.shape = (config.stoch_size, config.classes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"logit": self.shape}

    def __call__(self, x: Array) -> State:
        return {"logit": self.linear(x).reshape(*x.shape[:-1], *self.shape)}

    @staticmethod
    def sample(stats: State, noise: Array) -> Array:
        """One-hot (..., S, K), with the gradient of the probabilities. noise: uniform (..., S)."""
        probs = jax.nn.softmax(stats["logit"], -1)
        return straight_through(categorical_sample(probs, noise), probs)


class GaussianHead(eqx.Module):
    """S Gaussian latents, the ablation. (..., inputs) -> {mean, std}, each (..., S).

    Rows [:S] of the matrix make the mean, rows [S:] the std. Source: code, common/nets.py:146-160.
    """

    linear: Linear
    size: int = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    min_std: float = eqx.field(static=True)

    def __init__(self, config, inputs: int):
        self.linear = Linear(inputs, 2 * config.stoch_size)
        self.size, self.kind, self.min_std = config.stoch_size, config.std, config.min_std

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.size,), "std": (self.size,)}

    def __call__(self, x: Array) -> State:
        mean, raw = jnp.split(self.linear(x), 2, axis=-1)
        std = 2 * jax.nn.sigmoid(raw / 2) if self.kind == "sigmoid" else jax.nn.softplus(raw)
        return {"mean": mean, "std": std + self.min_std}

    @staticmethod
    def sample(stats: State, noise: Array) -> Array:
        """(..., S), with the gradients of mean and std. noise: standard normal (..., S)."""
        return reparameterise(stats["mean"], stats["std"], noise)


HEADS = {"categorical": CategoricalHead, "gaussian": GaussianHead}


class RSSM(eqx.Module):
    """Deterministic path h_t (GRU) and stochastic latent z_t (categorical, or Gaussian).

        prior      h_t = GRU(D1(z_{t-1}, a_{t-1}), h_{t-1})       z_t ~ p(z_t | D2(h_t))
        posterior                                                 z_t ~ q(z_t | D3(h_t, embed_t))

    The belief h_t is shared by both. Source: DreamerV2 Section 2.1; code, common/nets.py:12-160.
    """

    transition_in: MLP
    gru: NormGRU
    prior_hidden: MLP
    prior_head: CategoricalHead | GaussianHead
    posterior_hidden: MLP
    posterior_head: CategoricalHead | GaussianHead
    deter_size: int = eqx.field(static=True)
    sample_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, config, embed_size: int, action_size: int):
        deter, hidden, head = config.deter_size, config.hidden_size, HEADS[config.latents]
        sample = (config.stoch_size, config.classes) if config.latents == "categorical" else (config.stoch_size,)
        self.deter_size, self.sample_shape = deter, sample
        self.transition_in = MLP(math.prod(sample) + action_size, hidden, 1, config.norm)
        self.gru = NormGRU(hidden, deter, norm=config.gru_norm)
        self.prior_hidden = MLP(deter, hidden, 1, config.norm)
        self.prior_head = head(config, hidden)
        self.posterior_hidden = MLP(deter + embed_size, hidden, 1, config.norm)
        self.posterior_head = head(config, hidden)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**self.prior_head.shapes, "sample": self.sample_shape, "belief": (self.deter_size,)}

    @property
    def feature_size(self) -> int:
        return math.prod(self.sample_shape) + self.deter_size

    def prior(self, previous: State, action: Array, noise: Array) -> State:
        """One step without an observation: z_t ~ p(z_t | h_t). Noise (..., S), uniform or, for Gaussians, normal."""
        belief = self._advance(previous, action)
        stats = self.prior_head(self.prior_hidden(belief))
        return {**stats, "sample": self.prior_head.sample(stats, noise), "belief": belief}

    def posterior(self, previous: State, action: Array, embed: Array, noise: Array) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior has no sample."""
        belief = self._advance(previous, action)
        stats = self.posterior_head(self.posterior_hidden(jnp.concatenate([belief, embed], -1)))
        post = {**stats, "sample": self.posterior_head.sample(stats, noise), "belief": belief}
        return post, self._prior_of(belief)

    def observe(self, embed: Array, action: Array, noise: Array, state: State) -> tuple[State, State]:
        """Filter a sequence: embed (B, T, E), action that led to each row (B, T, A), noise (B, T, S), state (B, ...).

        The scan does only what depends on the sample before it; the embedding's half of D3 and the whole prior are
        computed for all steps at once. Equals `posterior` applied T times (a test says so).
        """

        def step(carry: State, row: tuple[Array, ...]) -> tuple[State, State]:
            embed_part, action, noise = row
            belief = self._advance(carry, action)
            stats = self.posterior_head(self.posterior_hidden.resume(belief, embed_part))
            carry = {"sample": self.posterior_head.sample(stats, noise), "belief": belief}
            return carry, {**stats, **carry}

        carry = {name: state[name] for name in ("sample", "belief")}
        post = scan_time(step, carry, (self.posterior_hidden.split(embed), action, noise))
        return post, self._prior_of(post["belief"])

    def features(self, state: State) -> Array:
        """What the heads read: (..., F), the flattened sample first."""
        return jnp.concatenate([self._flat(state["sample"]), state["belief"]], -1)

    def _advance(self, previous: State, action: Array) -> Array:
        x = self.transition_in(jnp.concatenate([self._flat(previous["sample"]), action], -1))
        return self.gru(x, previous["belief"])

    def _prior_of(self, belief: Array) -> State:
        return {**self.prior_head(self.prior_hidden(belief)), "belief": belief}

    def _flat(self, sample: Array) -> Array:
        """(..., S, K) -> (..., S * K); Gaussian samples (..., S) stay."""
        return sample.reshape(*sample.shape[: -len(self.sample_shape)], -1)


def initial_state(latent: RSSM, *batch: int) -> State:
    """The state before the first step: zeros everywhere, logits and stds included. Each (*batch, ...)."""
    dtype = jax.tree.leaves(eqx.filter(latent, eqx.is_array))[0].dtype
    return {name: jnp.zeros((*batch, *shape), dtype) for name, shape in latent.shapes.items()}


def imagine(latent: RSSM, state: State, action: Array, noise: Array) -> State:
    """Roll the prior open loop: state (B, ...), action (B, T, A), noise (B, T, S) -> states (B, T, ...)."""

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, State]:
        state = latent.prior(state, *row)
        return state, state

    return scan_time(step, state, (action, noise))


class Encoder(eqx.Module):
    """Four convolutions, kernel 4, stride 2, no padding, ELU: 64 -> 31 -> 14 -> 6 -> 2. (..., 64, 64, C) -> (..., E).

    Channels depth * (1, 2, 4, 8), perhaps normalised; flattened in the order height, width, channel, E = 32 * depth.
    Source: code, common/nets.py:183-233.
    """

    convs: list[Conv2d]
    norms: list[Norm]
    embed_size: int = eqx.field(static=True)

    def __init__(self, channels: int, depth: int, norm: str):
        sizes = [channels, depth, 2 * depth, 4 * depth, 8 * depth]
        self.convs = [Conv2d(i, o, 4, 2) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        self.norms = make_norms(norm, sizes[1:])
        self.embed_size = 4 * 8 * depth

    def __call__(self, image: Array) -> Array:
        x = image.reshape(-1, *image.shape[-3:])
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.elu(norm(conv(x)))
        return x.reshape(*image.shape[:-3], self.embed_size)


class Decoder(eqx.Module):
    """Dense layer, then four transposed convolutions, stride 2: 1 -> 5 -> 13 -> 30 -> 64. (..., F) -> (..., 64, 64, C).

    Kernels 5, 5, 6, 6; channels 32 * depth, then depth * (4, 2, 1) with ELU, then C linear. The output is the mean of a
    Gaussian with standard deviation 1. Source: code, common/nets.py:236-293.
    """

    dense: Linear
    deconvs: list[ConvTranspose2d]
    norms: list[Norm]

    def __init__(self, feature_size: int, channels: int, depth: int, norm: str):
        sizes = [32 * depth, 4 * depth, 2 * depth, depth, channels]
        self.dense = Linear(feature_size, sizes[0])
        self.deconvs = [
            ConvTranspose2d(i, o, k, 2) for i, o, k in zip(sizes[:-1], sizes[1:], (5, 5, 6, 6), strict=True)
        ]
        self.norms = make_norms(norm, sizes[1:-1])

    def __call__(self, features: Array) -> Array:
        x = self.dense(features.reshape(-1, features.shape[-1]))
        first, *others = self.deconvs
        # On a 1 x 1 input a transposed convolution is a matrix product: (N, I) @ (I, kh * kw * O).
        kernel = first.weight.transpose(0, 2, 3, 1)  # (I, kh, kw, O)
        x = (x @ kernel.reshape(kernel.shape[0], -1)).reshape(-1, *kernel.shape[1:]) + first.bias
        for norm, deconv in zip(self.norms, others, strict=True):
            x = deconv(jax.nn.elu(norm(x)))
        return x.reshape(*features.shape[:-1], *x.shape[1:])


class ScalarHead(eqx.Module):
    """A number from the features: mean of a Gaussian with standard deviation 1, or log-odds. (..., F) -> (...)."""

    hidden: MLP
    out: Linear

    def __init__(self, feature_size: int, units: int, layers: int, norm: str):
        self.hidden = MLP(feature_size, units, layers, norm)
        self.out = Linear(units, 1)

    def __call__(self, features: Array) -> Array:
        return self.out(self.hidden(features))[..., 0]


class WorldModel(eqx.Module):
    """The parts together, for images of C channels. discount gives log-odds; it may be None."""

    encoder: Encoder
    latent: RSSM
    decoder: Decoder
    reward: ScalarHead
    discount: ScalarHead | None

    def __init__(self, config, channels: int, action_size: int):
        units, norm = config.dense_units, config.norm
        self.encoder = Encoder(channels, config.encoder_depth, norm)
        self.latent = RSSM(config, self.encoder.embed_size, action_size)
        feature_size = self.latent.feature_size
        self.decoder = Decoder(feature_size, channels, config.encoder_depth, norm)
        self.reward = ScalarHead(feature_size, units, config.reward_layers, norm)
        self.discount = ScalarHead(feature_size, units, config.discount_layers, norm) if config.discount_head else None


class Actor(eqx.Module):
    """The policy p(a | features). Discrete: a one-hot categorical; continuous: a normal distribution cut to [-1, 1].

    Samples carry the gradient of the probabilities (straight-through) or of location and scale (reparameterised).
    Source: code, common/nets.py:350-389, common/dists.py.
    """

    hidden: MLP
    out: Linear
    size: int = eqx.field(static=True)
    discrete: bool = eqx.field(static=True)
    init_std: float = eqx.field(static=True)
    min_std: float = eqx.field(static=True)

    def __init__(self, config, behaviour, feature_size: int, act_spec):
        """Rows [:A] (location) and [A:] (scale) have the first values of two matrices, as the authors' code has it."""
        self.size, self.discrete = act_spec.size, act_spec.discrete
        self.init_std, self.min_std = behaviour.init_std, behaviour.min_std
        self.hidden = MLP(feature_size, config.dense_units, config.actor_layers, config.norm)
        outputs = self.size if self.discrete else 2 * self.size
        self.out = Linear(config.dense_units, outputs, fans=(config.dense_units, self.size))

    def __call__(self, features: Array) -> Array | tuple[Array, Array]:
        """Logits (..., A) of a discrete action; else location and scale, each (..., A), before cutting."""
        raw = self.out(self.hidden(features))
        return raw if self.discrete else truncated_normal(*jnp.split(raw, 2, axis=-1), self.init_std, self.min_std)

    def sample(self, features: Array, noise: Array) -> Array:
        """An action (..., A). noise: uniform (...) where discrete, uniform (..., A) where continuous."""
        if self.discrete:
            probs = jax.nn.softmax(self(features), -1)
            return straight_through(categorical_sample(probs, noise), probs)
        sample = truncated_normal_sample(*self(features), -1.0, 1.0, noise)
        return straight_through(jnp.clip(sample, -ACTION_LIMIT, ACTION_LIMIT), sample)

    def mode(self, features: Array) -> Array:
        """The likeliest action (..., A)."""
        if self.discrete:
            return jax.nn.one_hot(self(features).argmax(-1), self.size, dtype=features.dtype)
        return jnp.clip(self(features)[0], -ACTION_LIMIT, ACTION_LIMIT)

    def judge(self, features: Array, action: Array) -> tuple[Array, Array]:
        """Log-probability of an action (..., A), and the entropy of the policy, each (...) in nats.

        A discrete action is a constant to its log-probability; a continuous one is what the caller makes of it.
        """
        if self.discrete:
            logits = self(features)
            return categorical_log_prob(lax.stop_gradient(action), logits), categorical_entropy(logits)
        loc, scale = self(features)
        log_prob = truncated_normal_log_prob(action, loc, scale, -1.0, 1.0)
        return log_prob.sum(-1), truncated_normal_entropy(loc, scale, -1.0, 1.0).sum(-1)


class Critic(ScalarHead):
    """v(features): what rewards a state and its future are worth, the mean of a Gaussian with standard deviation 1."""

    def __init__(self, config, feature_size: int):
        super().__init__(feature_size, config.dense_units, config.critic_layers, config.norm)
