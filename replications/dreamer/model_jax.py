"""Dreamer's networks in JAX: the world model, the actor and the value.

Paper: Sections 2 and 4, Appendix A. Shapes: B batch, T time, E embedding, D deter, S stoch, A action, F features.
The twin of model_torch.py: same names, same order, torch's weight layouts and parameter names, so that one file of
parameters serves both. Noise is always an argument. Read top to bottom, then agent_jax.py.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from shared.formulas.distributions import categorical_log_prob, tanh_normal, tanh_normal_log_prob
from shared.formulas.sampling import categorical_sample, reparameterise, score_through, straight_through
from shared.layers_jax import Conv2d, ConvTranspose2d, Linear, scan_time

State = dict[str, Array]  # mean, std, sample (..., S), belief (..., D)
ACTIVATIONS = {"relu": jax.nn.relu, "elu": jax.nn.elu}


class MLP(eqx.Module):
    """Dense layers with activation. (..., inputs) -> (..., units)."""

    layers: list[Linear]
    activation: str = eqx.field(static=True)

    def __init__(self, inputs: int, units: int, layers: int, activation: str):
        self.layers = [Linear(inputs if i == 0 else units, units) for i in range(layers)]
        self.activation = activation

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = ACTIVATIONS[self.activation](layer(x))
        return x

    def split(self, embed: Array) -> Array:
        """The first layer's part for the last inputs alone, with the bias: computed once for all time steps."""
        first = self.layers[0]
        return embed @ first.weight[:, first.weight.shape[1] - embed.shape[-1] :].T + first.bias

    def resume(self, x: Array, embed_part: Array) -> Array:
        """__call__(concatenate([x, embed])) from x and split(embed)."""
        activation = ACTIVATIONS[self.activation]
        x = activation(embed_part + x @ self.layers[0].weight[:, : x.shape[-1]].T)
        for layer in self.layers[1:]:
            x = activation(layer(x))
        return x


class GaussianHead(eqx.Module):
    """Mean and standard deviation of a diagonal Gaussian: std = softplus(linear + shift) + min_std.

    Rows [:S] of the matrix make the mean, rows [S:] the std. joint False gives them the first values of two matrices.
    """

    linear: Linear
    min_std: float = eqx.field(static=True)
    shift: float = eqx.field(static=True)

    def __init__(self, inputs: int, size: int, min_std: float, *, joint: bool, shift: float = 0.0):
        self.linear = Linear(inputs, 2 * size, fans=None if joint else (inputs, size))
        self.min_std, self.shift = min_std, shift

    def __call__(self, x: Array) -> tuple[Array, Array]:
        mean, raw = jnp.split(self.linear(x), 2, axis=-1)
        return mean, jax.nn.softplus(raw + self.shift) + self.min_std


class BlockGRU(eqx.Module):
    """TensorFlow's GRUBlockCell (TF1): the reset gate acts on h BEFORE the candidate's matrix product.

        r, u = sigmoid(W [x, h] + b)       c = tanh(W' [x, r * h] + b')       h' = u * h + (1 - u) * c

    The gates' biases start at 1. Source: TF1 code, models/rssm.py; golden gru_block of PlaNet.
    """

    gates: Linear
    candidate: Linear

    def __init__(self, inputs: int, units: int):
        self.gates = Linear(inputs + units, 2 * units, first_bias=1.0)
        self.candidate = Linear(inputs + units, units)

    def __call__(self, x: Array, h: Array) -> Array:
        reset, update = jnp.split(jax.nn.sigmoid(self.gates(jnp.concatenate([x, h], -1))), 2, axis=-1)
        candidate = jnp.tanh(self.candidate(jnp.concatenate([x, reset * h], -1)))
        return update * h + (1 - update) * candidate


class KerasGRU(eqx.Module):
    """Keras' GRUCell (TF2): the reset gate acts on the candidate's matrix product AFTER it.

        z, r = sigmoid(W x + b + U h + d)       c = tanh(W' x + b' + r * (U' h + d'))       h' = z * h + (1 - z) * c

    Glorot input kernel, orthogonal recurrent one, zero biases. Source: TF2 code, models.py; golden rssm_cell.
    """

    inputs: Linear
    recurrent: Linear

    def __init__(self, inputs: int, units: int):
        self.inputs = Linear(inputs, 3 * units)
        self.recurrent = Linear(units, 3 * units, initial="orthogonal")

    def __call__(self, x: Array, h: Array) -> Array:
        update_x, reset_x, candidate_x = jnp.split(self.inputs(x), 3, axis=-1)
        update_h, reset_h, candidate_h = jnp.split(self.recurrent(h), 3, axis=-1)
        update, reset = jax.nn.sigmoid(update_x + update_h), jax.nn.sigmoid(reset_x + reset_h)
        candidate = jnp.tanh(candidate_x + reset * candidate_h)
        return update * h + (1 - update) * candidate


GRUS = {"block": BlockGRU, "keras": KerasGRU}


class RSSM(eqx.Module):
    """Deterministic path h_t (GRU) and stochastic latent s_t (Gaussian).

        prior      h_t = GRU(D1(s_{t-1}, a_{t-1}), h_{t-1})       s_t ~ p(s_t | D2(h_t))
        posterior                                                 s_t ~ q(s_t | D3(h_t, embed_t))

    The belief h_t is shared by both. Source: Dreamer Section 4; TF1 code, models/rssm.py; TF2 code, models.py.
    """

    transition_in: MLP
    gru: BlockGRU | KerasGRU
    prior_hidden: MLP
    prior_head: GaussianHead
    posterior_hidden: MLP
    posterior_head: GaussianHead
    stoch_size: int = eqx.field(static=True)
    deter_size: int = eqx.field(static=True)

    def __init__(self, config, embed_size: int, action_size: int):
        stoch, deter, hidden = config.stoch_size, config.deter_size, config.hidden_size
        self.stoch_size, self.deter_size = stoch, deter
        self.transition_in = MLP(stoch + action_size, hidden, 1, config.activation)
        self.gru = GRUS[config.gru](hidden, deter)
        self.prior_hidden = MLP(deter, hidden, 1, config.activation)
        self.prior_head = GaussianHead(hidden, stoch, config.min_std, joint=config.joint_heads)
        self.posterior_hidden = MLP(deter + embed_size, hidden, 1, config.activation)
        self.posterior_head = GaussianHead(hidden, stoch, config.min_std, joint=config.joint_heads)

    @property
    def sizes(self) -> dict[str, int]:
        return {"mean": self.stoch_size, "std": self.stoch_size, "sample": self.stoch_size, "belief": self.deter_size}

    @property
    def feature_size(self) -> int:
        return self.stoch_size + self.deter_size

    def prior(self, previous: State, action: Array, noise: Array) -> State:
        """One step without an observation: s_t ~ p(s_t | h_t). All (..., size); noise (..., S)."""
        return self._prior_from(self._advance(previous, action), noise)

    def posterior(self, previous: State, action: Array, embed: Array, noise: Array) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior draws no sample."""
        belief = self._advance(previous, action)
        mean, std = self.posterior_head(self.posterior_hidden(jnp.concatenate([belief, embed], -1)))
        post = {"mean": mean, "std": std, "sample": reparameterise(mean, std, noise), "belief": belief}
        return post, self._prior_from(belief, jnp.zeros_like(mean))

    def observe(self, embed: Array, action: Array, noise: Array, state: State) -> tuple[State, State]:
        """Filter a sequence: embed (B, T, E), action that led to each row (B, T, A), noise (B, T, S), state (B, .).

        The scan does only what depends on the sample before it; the embedding's half of D3 and the whole prior are
        computed for all steps at once. Equals `posterior` applied T times (a test says so).
        """

        def step(carry: State, row: tuple[Array, ...]) -> tuple[State, tuple[Array, ...]]:
            embed_part, action, noise = row
            belief = self._advance(carry, action)
            mean, std = self.posterior_head(self.posterior_hidden.resume(belief, embed_part))
            carry = {"sample": reparameterise(mean, std, noise), "belief": belief}
            return carry, (belief, mean, std, carry["sample"])

        carry = {name: state[name] for name in ("sample", "belief")}
        rows = (self.posterior_hidden.split(embed), action, noise)
        belief, mean, std, sample = scan_time(step, carry, rows)
        post = {"mean": mean, "std": std, "sample": sample, "belief": belief}
        return post, self._prior_from(belief, jnp.zeros_like(mean))

    def features(self, state: State) -> Array:
        """What the heads read: (..., S + D)."""
        return jnp.concatenate([state["sample"], state["belief"]], -1)

    def _advance(self, previous: State, action: Array) -> Array:
        x = self.transition_in(jnp.concatenate([previous["sample"], action], -1))
        return self.gru(x, previous["belief"])

    def _prior_from(self, belief: Array, noise: Array) -> State:
        mean, std = self.prior_head(self.prior_hidden(belief))
        return {"mean": mean, "std": std, "sample": reparameterise(mean, std, noise), "belief": belief}


def initial_state(latent, *batch: int) -> State:
    """The state before the first step: zeros everywhere, the std included. Each (*batch, size)."""
    dtype = jax.tree.leaves(eqx.filter(latent, eqx.is_array))[0].dtype
    return {name: jnp.zeros((*batch, size), dtype) for name, size in latent.sizes.items()}


def imagine(latent, state: State, action: Array, noise: Array) -> State:
    """Roll the prior open loop: state (B, .), action (B, T, A), noise (B, T, S) -> states (B, T, .)."""

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, State]:
        state = latent.prior(state, *row)
        return state, state

    return scan_time(step, state, (action, noise))


class Encoder(eqx.Module):
    """Four convolutions, kernel 4, stride 2, no padding, ReLU: 64 -> 31 -> 14 -> 6 -> 2. (..., 64, 64, 3) -> (..., E).

    Channels depth * (1, 2, 4, 8); flattened in the order height, width, channel, E = 32 * depth.
    Source: TF1 code, networks/conv.py; TF2 code, models.py.
    """

    convs: list[Conv2d]
    embed_size: int = eqx.field(static=True)

    def __init__(self, depth: int):
        channels = [3, depth, 2 * depth, 4 * depth, 8 * depth]
        self.convs = [Conv2d(i, o, 4, 2) for i, o in zip(channels[:-1], channels[1:], strict=True)]
        self.embed_size = 4 * 8 * depth

    def __call__(self, image: Array) -> Array:
        x = image.reshape(-1, *image.shape[-3:])
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x.reshape(*image.shape[:-3], self.embed_size)


class Decoder(eqx.Module):
    """Dense layer, then four transposed convolutions, stride 2: 1 -> 5 -> 13 -> 30 -> 64. (..., F) -> (..., 64, 64, 3).

    Kernels 5, 5, 6, 6; channels 32 * depth, then depth * (4, 2, 1) with ReLU, then 3 linear. The output is the mean
    of a Gaussian with standard deviation 1. Source: TF1 code, networks/conv.py; TF2 code, models.py.
    """

    dense: Linear
    deconvs: list[ConvTranspose2d]

    def __init__(self, feature_size: int, depth: int):
        channels = [32 * depth, 4 * depth, 2 * depth, depth, 3]
        self.dense = Linear(feature_size, channels[0])
        self.deconvs = [
            ConvTranspose2d(i, o, k, 2) for i, o, k in zip(channels[:-1], channels[1:], (5, 5, 6, 6), strict=True)
        ]

    def __call__(self, features: Array) -> Array:
        x = self.dense(features.reshape(-1, features.shape[-1]))
        first, *others = self.deconvs
        # On a 1 x 1 input a transposed convolution is a matrix product: (N, I) @ (I, kh * kw * O).
        kernel = first.weight.transpose(0, 2, 3, 1)  # (I, kh, kw, O)
        x = (x @ kernel.reshape(kernel.shape[0], -1)).reshape(-1, *kernel.shape[1:]) + first.bias
        for deconv in others:
            x = deconv(jax.nn.relu(x))
        return x.reshape(*features.shape[:-1], *x.shape[1:])


class ScalarHead(eqx.Module):
    """A number from the features: mean of a Gaussian with standard deviation 1, or log-odds. (..., F) -> (...)."""

    hidden: MLP
    out: Linear

    def __init__(self, feature_size: int, units: int, layers: int, activation: str):
        self.hidden = MLP(feature_size, units, layers, activation)
        self.out = Linear(units, 1)

    def __call__(self, features: Array) -> Array:
        return self.out(self.hidden(features))[..., 0]


class ContrastiveHead(eqx.Module):
    """Predicts the features from the image: a diagonal Gaussian. Embedding (..., E) -> mean and std, (..., F).

    Source: TF1 code, scripts/configs.py (cpc_head), networks/basic.py.
    """

    hidden: MLP
    head: GaussianHead

    def __init__(self, config, embed_size: int, feature_size: int):
        self.hidden = MLP(embed_size, config.dense_units, config.contrastive_layers, config.activation)
        shift = math.log(math.expm1(config.contrastive_init_std))
        minimum, joint = config.contrastive_min_std, config.joint_heads
        self.head = GaussianHead(config.dense_units, feature_size, minimum, joint=joint, shift=shift)

    def __call__(self, embed: Array) -> tuple[Array, Array]:
        return self.head(self.hidden(embed))


class WorldModel(eqx.Module):
    """The parts together. continuation gives the log-odds that the episode goes on; it and contrastive may be None."""

    encoder: Encoder
    latent: RSSM
    decoder: Decoder
    reward: ScalarHead
    continuation: ScalarHead | None
    contrastive: ContrastiveHead | None

    def __init__(self, config, action_size: int):
        units, activation = config.dense_units, config.activation
        self.encoder = Encoder(config.encoder_depth)
        self.latent = RSSM(config, self.encoder.embed_size, action_size)
        feature_size = self.latent.feature_size
        self.decoder = Decoder(feature_size, config.encoder_depth)
        self.reward = ScalarHead(feature_size, units, config.reward_layers, activation)
        self.continuation = self.contrastive = None
        if config.continuation:
            self.continuation = ScalarHead(feature_size, units, config.continuation_layers, activation)
        if config.contrastive:
            self.contrastive = ContrastiveHead(config, self.encoder.embed_size, feature_size)


class Actor(eqx.Module):
    """The policy q(a | features). Continuous: the tanh of a Gaussian sample; discrete: a one-hot categorical sample.

    Equation 7 needs the gradient through a sample: reparameterised; or one of two stand-ins for a discrete one
    (behaviour.action_gradient). Source: TF1 code, networks/basic.py, distributions/; TF2 code, models.py, tools.py.
    """

    hidden: MLP
    out: Linear
    size: int = eqx.field(static=True)
    discrete: bool = eqx.field(static=True)
    behaviour: object = eqx.field(static=True)

    def __init__(self, config, behaviour, feature_size: int, act_spec):
        self.size, self.discrete, self.behaviour = act_spec.size, act_spec.discrete, behaviour
        self.hidden = MLP(feature_size, config.dense_units, config.actor_layers, config.activation)
        outputs = self.size if self.discrete else 2 * self.size
        two = not self.discrete and not config.joint_heads
        self.out = Linear(config.dense_units, outputs, fans=(config.dense_units, self.size) if two else None)

    def __call__(self, features: Array) -> Array | tuple[Array, Array]:
        """Logits (..., A) of a discrete action; else mean and std, each (..., A), of the Gaussian before the tanh."""
        raw = self.out(self.hidden(features))
        if self.discrete:
            return raw
        raw_mean, raw_std = jnp.split(raw, 2, axis=-1)
        settings = self.behaviour
        return tanh_normal(raw_mean, raw_std, settings.mean_scale, settings.init_std, settings.min_std)

    def sample(self, features: Array, noise: Array) -> Array:
        """An action (..., A). noise: standard normal (..., A); uniform (...) where discrete."""
        if not self.discrete:
            return jnp.tanh(reparameterise(*self(features), noise))
        logits = self(features)
        probs = jax.nn.softmax(logits, -1)
        drawn = categorical_sample(probs, noise)
        if self.behaviour.action_gradient == "straight":
            return straight_through(drawn, probs)
        return score_through(drawn, categorical_log_prob(drawn, logits))

    def mode(self, features: Array, noise: Array | None) -> Array:
        """The likeliest action (..., A); of a continuous one the likeliest of K samples.

        noise: standard normal (K, ..., A); None where discrete. The density is that of the action, the Jacobian of the
        tanh included: with a wide Gaussian it is highest at the ends of the box.
        """
        if self.discrete:
            logits = self(features)
            return jax.nn.one_hot(logits.argmax(-1), self.size, dtype=logits.dtype)
        mean, std = (jnp.broadcast_to(x, noise.shape) for x in self(features))
        actions = jnp.tanh(reparameterise(mean, std, noise))
        best = tanh_normal_log_prob(actions, mean, std).sum(-1).argmax(0)  # (...)
        return jnp.take_along_axis(actions, best[None, ..., None], 0)[0]


class Value(ScalarHead):
    """v(features): what rewards a state and its future are worth, the mean of a Gaussian with standard deviation 1."""

    def __init__(self, config, feature_size: int):
        super().__init__(feature_size, config.dense_units, config.value_layers, config.activation)
