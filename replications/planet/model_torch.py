"""PlaNet's world model in torch: encoder, latent dynamics, image decoder, reward head.

Paper: Section 3 and Appendix A. Shapes: B batch, T time, E embedding, D deter, S stoch, A action, F features.
Noise is always an argument. Read top to bottom, then agent_torch.py; the formulas are in shared/formulas.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.formulas.sampling import reparameterise
from shared.layers_torch import ConvTranspose2d, glorot_, initialise, stack_time, tanh

State = dict[str, Tensor]  # mean, std, sample (..., S) and the model's deterministic parts
ACTIVATIONS = {"relu": F.relu, "elu": F.elu}


class MLP(nn.Module):
    """Dense layers with activation. (..., inputs) -> (..., units)."""

    def __init__(self, inputs: int, units: int, layers: int, activation: str):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs if i == 0 else units, units) for i in range(layers)])
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return x

    def split(self, embed: Tensor) -> Tensor:
        """The first layer's part for the last inputs alone, with the bias: computed once for all time steps."""
        first = self.layers[0]
        return F.linear(embed, first.weight[:, first.in_features - embed.shape[-1] :], first.bias)

    def resume(self, x: Tensor, embed_part: Tensor) -> Tensor:
        """forward(cat([x, embed])) from x and split(embed)."""
        x = self.activation(embed_part + F.linear(x, self.layers[0].weight[:, : x.shape[-1]]))
        for layer in self.layers[1:]:
            x = self.activation(layer(x))
        return x


class GaussianHead(nn.Module):
    """Mean and standard deviation of a diagonal Gaussian: std = softplus(linear) + min_std.

    The authors' two linear layers in one matrix: rows [:S] make the mean, rows [S:] the std.
    """

    def __init__(self, inputs: int, size: int, min_std: float):
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * size)
        self.min_std = min_std

    def reset(self, generator: torch.Generator) -> None:
        glorot_(self.linear.weight, generator, (self.linear.in_features, self.linear.out_features // 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.linear(x).chunk(2, dim=-1)
        return mean, F.softplus(raw.contiguous()) + self.min_std  # ten times slower on the strided half


class GRU(nn.Module):
    """TensorFlow's GRUBlockCell: the reset gate acts on h BEFORE the candidate's matrix product.

        r, u = sigmoid(W [x, h] + b)       c = tanh(W' [x, r * h] + b')       h' = u * h + (1 - u) * c

    Not torch.nn.GRUCell. The gates' biases start at 1. Source: code, models/rssm.py; golden gru_block.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.gates = nn.Linear(inputs + units, 2 * units)
        self.candidate = nn.Linear(inputs + units, units)

    def reset(self, generator: torch.Generator) -> None:
        nn.init.ones_(self.gates.bias)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        # In place where autograd allows it: a third faster than with new tensors, and planning is little else.
        reset, update = self.gates(torch.cat([x, h], -1)).sigmoid_().chunk(2, dim=-1)
        candidate = tanh(self.candidate(torch.cat([x, reset * h], -1)))
        return torch.lerp(candidate, h, update)


class RSSM(nn.Module):
    """Deterministic path h_t (GRU) and stochastic latent s_t (Gaussian).

        prior      h_t = GRU(D1(s_{t-1}, a_{t-1}), h_{t-1})       s_t ~ p(s_t | D2(h_t))
        posterior                                                 s_t ~ q(s_t | D3(h_t, embed_t))

    The belief h_t is shared by both. With future_rnn False the prior reads D1 instead of h_t (first release).
    Source: PlaNet Equation 4; code, models/rssm.py.
    """

    def __init__(self, config, embed_size: int, action_size: int):
        super().__init__()
        stoch, deter, hidden, layers = config.stoch_size, config.deter_size, config.hidden_size, config.hidden_layers
        self.sizes = {"mean": stoch, "std": stoch, "sample": stoch, "belief": deter}
        self.feature_size = stoch + deter
        self.mean_only, self.future_rnn = config.mean_only, config.future_rnn
        self.transition_in = MLP(stoch + action_size, hidden, layers, config.activation)
        self.gru = GRU(hidden, deter)
        prior_inputs = deter if config.future_rnn else hidden
        self.prior_hidden = MLP(prior_inputs, hidden, layers, config.activation)
        self.prior_head = GaussianHead(hidden, stoch, config.min_std)
        self.posterior_hidden = MLP(deter + embed_size, hidden, layers, config.activation)
        self.posterior_head = GaussianHead(hidden, stoch, config.min_std)

    def prior(self, previous: State, action: Tensor, noise: Tensor) -> State:
        """One step without an observation: s_t ~ p(s_t | h_t). All (..., size); noise (..., S)."""
        x, belief = self._advance(previous, action)
        return self._prior_from(x, belief, noise)

    def posterior(self, previous: State, action: Tensor, embed: Tensor, noise: Tensor) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior draws no sample."""
        x, belief = self._advance(previous, action)
        mean, std = self.posterior_head(self.posterior_hidden(torch.cat([belief, embed], -1)))
        post = {"mean": mean, "std": std, "sample": self._sample(mean, std, noise), "belief": belief}
        return post, self._prior_from(x, belief, torch.zeros_like(mean))

    def observe(self, embed: Tensor, action: Tensor, noise: Tensor, state: State) -> tuple[State, State]:
        """Filter a sequence: embed (B, T, E), action that led to each row (B, T, A), noise (B, T, S), state (B, .).

        The loop does only what depends on the sample before it; the embedding's half of D3 and the whole prior are
        computed for all steps at once. Equals `posterior` applied T times (a test says so).
        """
        embed_part = self.posterior_hidden.split(embed)
        xs, beliefs, means, stds, samples = [], [], [], [], []
        for t in range(embed.shape[1]):
            x, belief = self._advance(state, action[:, t])
            mean, std = self.posterior_head(self.posterior_hidden.resume(belief, embed_part[:, t]))
            state = {"sample": self._sample(mean, std, noise[:, t]), "belief": belief}
            for rows, value in zip(
                (xs, beliefs, means, stds, samples), (x, belief, mean, std, state["sample"]), strict=True
            ):
                rows.append(value)
        x, belief, mean, std, sample = (torch.stack(rows, 1) for rows in (xs, beliefs, means, stds, samples))
        post = {"mean": mean, "std": std, "sample": sample, "belief": belief}
        return post, self._prior_from(x, belief, torch.zeros_like(mean))

    def features(self, state: State) -> Tensor:
        """What the heads read: (..., S + D)."""
        return torch.cat([state["sample"], state["belief"]], -1)

    def _advance(self, previous: State, action: Tensor) -> tuple[Tensor, Tensor]:
        x = self.transition_in(torch.cat([previous["sample"], action], -1))
        return x, self.gru(x, previous["belief"])

    def _prior_from(self, x: Tensor, belief: Tensor, noise: Tensor) -> State:
        mean, std = self.prior_head(self.prior_hidden(belief if self.future_rnn else x))
        return {"mean": mean, "std": std, "sample": self._sample(mean, std, noise), "belief": belief}

    def _sample(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        return mean if self.mean_only else reparameterise(mean, std, noise)


class SSM(nn.Module):
    """Purely stochastic state-space model: only the sample is carried.

        prior      s_t ~ p(s_t | s_{t-1}, a_{t-1})       posterior   s_t ~ q(s_t | prior mean, prior std, embed_t)

    Methods and shapes are the RSSM's. Source: PlaNet Section 3, Figure 2b; code, models/ssm.py.
    """

    def __init__(self, config, embed_size: int, action_size: int):
        super().__init__()
        stoch, hidden, layers = config.stoch_size, config.hidden_size, config.hidden_layers
        self.sizes = {"mean": stoch, "std": stoch, "sample": stoch}
        self.feature_size = stoch
        self.mean_only = config.mean_only
        self.prior_hidden = MLP(stoch + action_size, hidden, layers, config.activation)
        self.prior_head = GaussianHead(hidden, stoch, config.min_std)
        self.posterior_hidden = MLP(2 * stoch + embed_size, hidden, layers, config.activation)
        self.posterior_head = GaussianHead(hidden, stoch, config.min_std)

    def prior(self, previous: State, action: Tensor, noise: Tensor) -> State:
        mean, std = self.prior_head(self.prior_hidden(torch.cat([previous["sample"], action], -1)))
        return {"mean": mean, "std": std, "sample": self._sample(mean, std, noise)}

    def posterior(self, previous: State, action: Tensor, embed: Tensor, noise: Tensor) -> tuple[State, State]:
        prior = self.prior(previous, action, torch.zeros_like(previous["mean"]))
        hidden = self.posterior_hidden(torch.cat([prior["mean"], prior["std"], embed], -1))
        mean, std = self.posterior_head(hidden)
        return {"mean": mean, "std": std, "sample": self._sample(mean, std, noise)}, prior

    def observe(self, embed: Tensor, action: Tensor, noise: Tensor, state: State) -> tuple[State, State]:
        return filter_sequence(self, embed, action, noise, state)

    def features(self, state: State) -> Tensor:
        return state["sample"]

    def _sample(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        return mean if self.mean_only else reparameterise(mean, std, noise)


class DRNN(nn.Module):
    """Two GRUs with a stochastic sequence between them; the prior is the same network on a zero embedding.

        e_t = GRU_enc([embed_t, a_{t-1}, s_{t-1}], e_{t-1})     s_t ~ q(s_t | e_t, s_{t-1}, d_{t-1})
        d_t = GRU_dec(s_t, d_{t-1})                             features d_t

    Methods and shapes are the RSSM's; its hidden layer is always ReLU. Source: PlaNet Appendix D; code, models/drnn.py.
    """

    def __init__(self, config, embed_size: int, action_size: int):
        super().__init__()
        stoch, deter, hidden = config.stoch_size, config.deter_size, config.hidden_size
        self.sizes = {"mean": stoch, "std": stoch, "sample": stoch, "encoder": deter, "decoder": deter}
        self.feature_size = deter
        self.embed_size, self.mean_only = embed_size, config.mean_only
        self.encoder_gru = GRU(embed_size + action_size + stoch, deter)
        self.hidden = MLP(deter + stoch + deter, hidden, config.hidden_layers, "relu")
        self.head = GaussianHead(hidden, stoch, config.min_std)
        self.decoder_gru = GRU(stoch, deter)

    def prior(self, previous: State, action: Tensor, noise: Tensor) -> State:
        blind = torch.zeros(*action.shape[:-1], self.embed_size, dtype=action.dtype, device=action.device)
        return self._step(previous, action, blind, noise)

    def posterior(self, previous: State, action: Tensor, embed: Tensor, noise: Tensor) -> tuple[State, State]:
        prior = self.prior(previous, action, torch.zeros_like(previous["mean"]))
        return self._step(previous, action, embed, noise), prior

    def observe(self, embed: Tensor, action: Tensor, noise: Tensor, state: State) -> tuple[State, State]:
        return filter_sequence(self, embed, action, noise, state)

    def features(self, state: State) -> Tensor:
        return state["decoder"]

    def _step(self, previous: State, action: Tensor, embed: Tensor, noise: Tensor) -> State:
        encoder = self.encoder_gru(torch.cat([embed, action, previous["sample"]], -1), previous["encoder"])
        mean, std = self.head(self.hidden(torch.cat([encoder, previous["sample"], previous["decoder"]], -1)))
        sample = mean if self.mean_only else reparameterise(mean, std, noise)
        decoder = self.decoder_gru(sample, previous["decoder"])
        return {"mean": mean, "std": std, "sample": sample, "encoder": encoder, "decoder": decoder}


LATENTS = {"rssm": RSSM, "ssm": SSM, "drnn": DRNN}


def initial_state(latent: nn.Module, *batch: int) -> State:
    """The state before the first step: zeros everywhere, the std included. Each (*batch, size)."""
    like = next(latent.parameters())
    return {name: like.new_zeros(*batch, size) for name, size in latent.sizes.items()}


def filter_sequence(latent, embed: Tensor, action: Tensor, noise: Tensor, state: State) -> tuple[State, State]:
    """`posterior` applied to every row in turn, (B, T, .) -> posterior and prior states (B, T, .)."""
    posts, priors = [], []
    for t in range(embed.shape[1]):
        state, prior = latent.posterior(state, action[:, t], embed[:, t], noise[:, t])
        posts.append(state)
        priors.append(prior)
    return stack_time(posts), stack_time(priors)


def imagine(latent, state: State, action: Tensor, noise: Tensor) -> State:
    """Roll the prior open loop: state (B, .), action (B, T, A), noise (B, T, S) -> states (B, T, .)."""
    states = []
    for t in range(action.shape[1]):
        state = latent.prior(state, action[:, t], noise[:, t])
        states.append(state)
    return stack_time(states)


class Encoder(nn.Module):
    """Four convolutions, kernel 4, stride 2, no padding, ReLU: 64 -> 31 -> 14 -> 6 -> 2. (..., 64, 64, 3) -> (..., E).

    Channels depth * (1, 2, 4, 8); flattened in the order height, width, channel, E = 32 * depth.
    Source: code, networks/conv_ha.py.
    """

    def __init__(self, depth: int):
        super().__init__()
        channels = [3, depth, 2 * depth, 4 * depth, 8 * depth]
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 4, 2) for i, o in zip(channels[:-1], channels[1:], strict=True)])
        self.embed_size = 4 * 8 * depth

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(0, -4).permute(0, 3, 1, 2)  # a view: rows of pixels ARE torch's channels_last
        for conv in self.convs:
            x = F.relu(conv(x))
        return x.permute(0, 2, 3, 1).reshape(*image.shape[:-3], self.embed_size)


class Decoder(nn.Module):
    """Dense layer, then four transposed convolutions, stride 2: 1 -> 5 -> 13 -> 30 -> 64. (..., F) -> (..., 64, 64, 3).

    Kernels 5, 5, 6, 6; channels 32 * depth, then depth * (4, 2, 1) with ReLU, then 3 linear. The output is the mean
    of a Gaussian with standard deviation 1. Source: code, networks/conv_ha.py.
    """

    def __init__(self, feature_size: int, depth: int):
        super().__init__()
        channels = [32 * depth, 4 * depth, 2 * depth, depth, 3]
        self.dense = nn.Linear(feature_size, channels[0])
        self.deconvs = nn.ModuleList(
            [ConvTranspose2d(i, o, k, 2) for i, o, k in zip(channels[:-1], channels[1:], (5, 5, 6, 6), strict=True)]
        )

    def forward(self, features: Tensor) -> Tensor:
        x = self.dense(features.flatten(0, -2))
        first, *others = self.deconvs
        # On a 1 x 1 input a transposed convolution is a matrix product: (N, I) @ (I, kh * kw * O).
        kernel = first.weight.permute(0, 2, 3, 1)  # (I, kh, kw, O)
        x = x @ kernel.reshape(kernel.shape[0], -1)
        x = x.view(-1, *kernel.shape[1:]).permute(0, 3, 1, 2) + first.bias[:, None, None]
        for deconv in others:
            x = deconv(F.relu(x))
        return x.permute(0, 2, 3, 1).unflatten(0, features.shape[:-1])


class RewardHead(nn.Module):
    """Mean of a Gaussian with standard deviation 1 over the reward. (..., F) -> (...)."""

    def __init__(self, feature_size: int, units: int, layers: int, activation: str):
        super().__init__()
        self.hidden = MLP(feature_size, units, layers, activation)
        self.mean = nn.Linear(units, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.mean(self.hidden(features)).squeeze(-1)


class WorldModel(nn.Module):
    """The parts together. Every parameter is trained by the one optimiser of agent_torch.py."""

    def __init__(self, config, action_size: int, generator: torch.Generator):
        super().__init__()
        self.encoder = Encoder(config.encoder_depth)
        self.latent = LATENTS[config.latent](config, self.encoder.embed_size, action_size)
        self.decoder = Decoder(self.latent.feature_size, config.encoder_depth)
        self.reward = RewardHead(self.latent.feature_size, config.reward_units, config.reward_layers, config.activation)
        initialise(self, generator)
        self.to(memory_format=torch.channels_last)
