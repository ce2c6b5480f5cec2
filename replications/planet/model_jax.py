"""PlaNet's world model in JAX: encoder, latent dynamics, image decoder, reward head.

Paper: Section 3 and Appendix A. Shapes: B batch, T time, E embedding, D deter, S stoch, A action, F features.
The twin of model_torch.py: same names, same order, torch's weight layouts and parameter names, so that one file of
parameters serves both. Noise is always an argument. Read top to bottom, then agent_jax.py.
"""


import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from shared.formulas.sampling import reparameterise
from shared.layers_jax import Conv2d, ConvTranspose2d, Linear, scan_time

State = dict[str, Array]  # mean, std, sample (..., S) and the model's deterministic parts
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
    """Mean and standard deviation of a diagonal Gaussian: std = softplus(linear) + min_std.

    The authors' two linear layers in one matrix: rows [:S] make the mean, rows [S:] the std.
    """

    linear: Linear
    min_std: float = eqx.field(static=True)

    def __init__(self, inputs: int, size: int, min_std: float):
        self.linear = Linear(inputs, 2 * size, fans=(inputs, size))
        self.min_std = min_std

    def __call__(self, x: Array) -> tuple[Array, Array]:
        mean, raw = jnp.split(self.linear(x), 2, axis=-1)
        return mean, jax.nn.softplus(raw) + self.min_std


class GRU(eqx.Module):
    """TensorFlow's GRUBlockCell: the reset gate acts on h BEFORE the candidate's matrix product.

        r, u = sigmoid(W [x, h] + b)       c = tanh(W' [x, r * h] + b')       h' = u * h + (1 - u) * c

    Not torch.nn.GRUCell. The gates' biases start at 1. Source: code, models/rssm.py; golden gru_block.
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


class RSSM(eqx.Module):
    """Deterministic path h_t (GRU) and stochastic latent s_t (Gaussian).

        prior      h_t = GRU(D1(s_{t-1}, a_{t-1}), h_{t-1})       s_t ~ p(s_t | D2(h_t))
        posterior                                                 s_t ~ q(s_t | D3(h_t, embed_t))

    The belief h_t is shared by both. With future_rnn False the prior reads D1 instead of h_t (first release).
    Source: PlaNet Equation 4; code, models/rssm.py.
    """

    transition_in: MLP
    gru: GRU
    prior_hidden: MLP
    prior_head: GaussianHead
    posterior_hidden: MLP
    posterior_head: GaussianHead
    stoch_size: int = eqx.field(static=True)
    deter_size: int = eqx.field(static=True)
    mean_only: bool = eqx.field(static=True)
    future_rnn: bool = eqx.field(static=True)

    def __init__(self, config, embed_size: int, action_size: int):
        stoch, deter, hidden, layers = config.stoch_size, config.deter_size, config.hidden_size, config.hidden_layers
        self.stoch_size, self.deter_size = stoch, deter
        self.mean_only, self.future_rnn = config.mean_only, config.future_rnn
        self.transition_in = MLP(stoch + action_size, hidden, layers, config.activation)
        self.gru = GRU(hidden, deter)
        prior_inputs = deter if config.future_rnn else hidden
        self.prior_hidden = MLP(prior_inputs, hidden, layers, config.activation)
        self.prior_head = GaussianHead(hidden, stoch, config.min_std)
        self.posterior_hidden = MLP(deter + embed_size, hidden, layers, config.activation)
        self.posterior_head = GaussianHead(hidden, stoch, config.min_std)

    @property
    def sizes(self) -> dict[str, int]:
        return {"mean": self.stoch_size, "std": self.stoch_size, "sample": self.stoch_size, "belief": self.deter_size}

    @property
    def feature_size(self) -> int:
        return self.stoch_size + self.deter_size

    def prior(self, previous: State, action: Array, noise: Array) -> State:
        """One step without an observation: s_t ~ p(s_t | h_t). All (..., size); noise (..., S)."""
        x, belief = self._advance(previous, action)
        return self._prior_from(x, belief, noise)

    def posterior(self, previous: State, action: Array, embed: Array, noise: Array) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior draws no sample."""
        x, belief = self._advance(previous, action)
        mean, std = self.posterior_head(self.posterior_hidden(jnp.concatenate([belief, embed], -1)))
        post = {"mean": mean, "std": std, "sample": self._sample(mean, std, noise), "belief": belief}
        return post, self._prior_from(x, belief, jnp.zeros_like(mean))

    def observe(self, embed: Array, action: Array, noise: Array, state: State) -> tuple[State, State]:
        """Filter a sequence: embed (B, T, E), action that led to each row (B, T, A), noise (B, T, S), state (B, .).

        The scan does only what depends on the sample before it; the embedding's half of D3 and the whole prior are
        computed for all steps at once. Equals `posterior` applied T times (a test says so).
        """

        def step(carry: State, row: tuple[Array, ...]) -> tuple[State, tuple[Array, ...]]:
            embed_part, action, noise = row
            x, belief = self._advance(carry, action)
            mean, std = self.posterior_head(self.posterior_hidden.resume(belief, embed_part))
            carry = {"sample": self._sample(mean, std, noise), "belief": belief}
            return carry, (x, belief, mean, std, carry["sample"])

        carry = {name: state[name] for name in ("sample", "belief")}
        rows = scan_time(step, carry, (self.posterior_hidden.split(embed), action, noise))
        x, belief, mean, std, sample = rows
        post = {"mean": mean, "std": std, "sample": sample, "belief": belief}
        return post, self._prior_from(x, belief, jnp.zeros_like(mean))

    def features(self, state: State) -> Array:
        """What the heads read: (..., S + D)."""
        return jnp.concatenate([state["sample"], state["belief"]], -1)

    def _advance(self, previous: State, action: Array) -> tuple[Array, Array]:
        x = self.transition_in(jnp.concatenate([previous["sample"], action], -1))
        return x, self.gru(x, previous["belief"])

    def _prior_from(self, x: Array, belief: Array, noise: Array) -> State:
        mean, std = self.prior_head(self.prior_hidden(belief if self.future_rnn else x))
        return {"mean": mean, "std": std, "sample": self._sample(mean, std, noise), "belief": belief}

    def _sample(self, mean: Array, std: Array, noise: Array) -> Array:
        return mean if self.mean_only else reparameterise(mean, std, noise)


class SSM(eqx.Module):
    """Purely stochastic state-space model: only the sample is carried.

        prior      s_t ~ p(s_t | s_{t-1}, a_{t-1})       posterior   s_t ~ q(s_t | prior mean, prior std, embed_t)

    Methods and shapes are the RSSM's. Source: PlaNet Section 3, Figure 2b; code, models/ssm.py.
    """

    prior_hidden: MLP
    prior_head: GaussianHead
    posterior_hidden: MLP
    posterior_head: GaussianHead
    stoch_size: int = eqx.field(static=True)
    mean_only: bool = eqx.field(static=True)

    def __init__(self, config, embed_size: int, action_size: int):
        stoch, hidden, layers = config.stoch_size, config.hidden_size, config.hidden_layers
        self.stoch_size, self.mean_only = stoch, config.mean_only
        self.prior_hidden = MLP(stoch + action_size, hidden, layers, config.activation)
        self.prior_head = GaussianHead(hidden, stoch, config.min_std)
        self.posterior_hidden = MLP(2 * stoch + embed_size, hidden, layers, config.activation)
        self.posterior_head = GaussianHead(hidden, stoch, config.min_std)

    @property
    def sizes(self) -> dict[str, int]:
        return {"mean": self.stoch_size, "std": self.stoch_size, "sample": self.stoch_size}

    @property
    def feature_size(self) -> int:
        return self.stoch_size

    def prior(self, previous: State, action: Array, noise: Array) -> State:
        mean, std = self.prior_head(self.prior_hidden(jnp.concatenate([previous["sample"], action], -1)))
        return {"mean": mean, "std": std, "sample": self._sample(mean, std, noise)}

    def posterior(self, previous: State, action: Array, embed: Array, noise: Array) -> tuple[State, State]:
        prior = self.prior(previous, action, jnp.zeros_like(previous["mean"]))
        hidden = self.posterior_hidden(jnp.concatenate([prior["mean"], prior["std"], embed], -1))
        mean, std = self.posterior_head(hidden)
        return {"mean": mean, "std": std, "sample": self._sample(mean, std, noise)}, prior

    def observe(self, embed: Array, action: Array, noise: Array, state: State) -> tuple[State, State]:
        return filter_sequence(self, embed, action, noise, state)

    def features(self, state: State) -> Array:
        return state["sample"]

    def _sample(self, mean: Array, std: Array, noise: Array) -> Array:
        return mean if self.mean_only else reparameterise(mean, std, noise)


class DRNN(eqx.Module):
    """Two GRUs with a stochastic sequence between them; the prior is the same network on a zero embedding.

        e_t = GRU_enc([embed_t, a_{t-1}, s_{t-1}], e_{t-1})     s_t ~ q(s_t | e_t, s_{t-1}, d_{t-1})
        d_t = GRU_dec(s_t, d_{t-1})                             features d_t

    Methods and shapes are the RSSM's; its hidden layer is always ReLU. Source: PlaNet Appendix D; code, models/drnn.py.
    """

    encoder_gru: GRU
    hidden: MLP
    head: GaussianHead
    decoder_gru: GRU
    stoch_size: int = eqx.field(static=True)
    deter_size: int = eqx.field(static=True)
    embed_size: int = eqx.field(static=True)
    mean_only: bool = eqx.field(static=True)

    def __init__(self, config, embed_size: int, action_size: int):
        stoch, deter, hidden = config.stoch_size, config.deter_size, config.hidden_size
        self.stoch_size, self.deter_size = stoch, deter
        self.embed_size, self.mean_only = embed_size, config.mean_only
        self.encoder_gru = GRU(embed_size + action_size + stoch, deter)
        self.hidden = MLP(deter + stoch + deter, hidden, config.hidden_layers, "relu")
        self.head = GaussianHead(hidden, stoch, config.min_std)
        self.decoder_gru = GRU(stoch, deter)

    @property
    def sizes(self) -> dict[str, int]:
        stoch, deter = self.stoch_size, self.deter_size
        return {"mean": stoch, "std": stoch, "sample": stoch, "encoder": deter, "decoder": deter}

    @property
    def feature_size(self) -> int:
        return self.deter_size

    def prior(self, previous: State, action: Array, noise: Array) -> State:
        return self._step(previous, action, jnp.zeros((*action.shape[:-1], self.embed_size), action.dtype), noise)

    def posterior(self, previous: State, action: Array, embed: Array, noise: Array) -> tuple[State, State]:
        prior = self.prior(previous, action, jnp.zeros_like(previous["mean"]))
        return self._step(previous, action, embed, noise), prior

    def observe(self, embed: Array, action: Array, noise: Array, state: State) -> tuple[State, State]:
        return filter_sequence(self, embed, action, noise, state)

    def features(self, state: State) -> Array:
        return state["decoder"]

    def _step(self, previous: State, action: Array, embed: Array, noise: Array) -> State:
        encoder = self.encoder_gru(jnp.concatenate([embed, action, previous["sample"]], -1), previous["encoder"])
        hidden = self.hidden(jnp.concatenate([encoder, previous["sample"], previous["decoder"]], -1))
        mean, std = self.head(hidden)
        sample = mean if self.mean_only else reparameterise(mean, std, noise)
        decoder = self.decoder_gru(sample, previous["decoder"])
        return {"mean": mean, "std": std, "sample": sample, "encoder": encoder, "decoder": decoder}


LATENTS = {"rssm": RSSM, "ssm": SSM, "drnn": DRNN}


def initial_state(latent, *batch: int) -> State:
    """The state before the first step: zeros everywhere, the std included. Each (*batch, size)."""
    dtype = jax.tree.leaves(eqx.filter(latent, eqx.is_array))[0].dtype
    return {name: jnp.zeros((*batch, size), dtype) for name, size in latent.sizes.items()}


def filter_sequence(latent, embed: Array, action: Array, noise: Array, state: State) -> tuple[State, State]:
    """`posterior` applied to every row in turn, (B, T, .) -> posterior and prior states (B, T, .)."""

    def step(state: State, row: tuple[Array, ...]) -> tuple[State, tuple[State, State]]:
        embed, action, noise = row
        post, prior = latent.posterior(state, action, embed, noise)
        return post, (post, prior)

    return scan_time(step, state, (embed, action, noise))


def imagine(latent, state: State, action: Array, noise: Array) -> State:
    """Roll the prior open loop: state (B, .), action (B, T, A), noise (B, T, S) -> states (B, T, .)."""

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, State]:
        state = latent.prior(state, *row)
        return state, state

    return scan_time(step, state, (action, noise))


class Encoder(eqx.Module):
    """Four convolutions, kernel 4, stride 2, no padding, ReLU: 64 -> 31 -> 14 -> 6 -> 2. (..., 64, 64, 3) -> (..., E).

    Channels depth * (1, 2, 4, 8); flattened in the order height, width, channel, E = 32 * depth.
    Source: code, networks/conv_ha.py.
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
    of a Gaussian with standard deviation 1. Source: code, networks/conv_ha.py.
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


class RewardHead(eqx.Module):
    """Mean of a Gaussian with standard deviation 1 over the reward. (..., F) -> (...)."""

    hidden: MLP
    mean: Linear

    def __init__(self, feature_size: int, units: int, layers: int, activation: str):
        self.hidden = MLP(feature_size, units, layers, activation)
        self.mean = Linear(units, 1)

    def __call__(self, features: Array) -> Array:
        return self.mean(self.hidden(features))[..., 0]


class WorldModel(eqx.Module):
    """The parts together. Every parameter is trained by the one optimiser of agent_jax.py."""

    encoder: Encoder
    latent: RSSM | SSM | DRNN
    decoder: Decoder
    reward: RewardHead

    def __init__(self, config, action_size: int):
        self.encoder = Encoder(config.encoder_depth)
        self.latent = LATENTS[config.latent](config, self.encoder.embed_size, action_size)
        self.decoder = Decoder(self.latent.feature_size, config.encoder_depth)
        self.reward = RewardHead(self.latent.feature_size, config.reward_units, config.reward_layers, config.activation)
