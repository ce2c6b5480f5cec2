"""Dreamer's networks in torch: the world model, the actor and the value.

Paper: Sections 2 and 4, Appendix A. Shapes: B batch, T time, E embedding, D deter, S stoch, A action, F features.
Noise is always an argument. Read top to bottom, then agent_torch.py; the formulas are in shared/formulas.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.formulas.distributions import categorical_log_prob, tanh_normal, tanh_normal_log_prob
from shared.formulas.sampling import categorical_sample, reparameterise, score_through, straight_through
from shared.layers_torch import ConvTranspose2d, glorot_, initialise, tanh

State = dict[str, Tensor]  # mean, std, sample (..., S), belief (..., D)
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
    """Mean and standard deviation of a diagonal Gaussian: std = softplus(linear + shift) + min_std.

    Rows [:S] of the matrix make the mean, rows [S:] the std. joint False gives them the first values of two matrices.
    """

    def __init__(self, inputs: int, size: int, min_std: float, *, joint: bool, shift: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * size)
        self.min_std, self.joint, self.shift = min_std, joint, shift

    def reset(self, generator: torch.Generator) -> None:
        if not self.joint:
            glorot_(self.linear.weight, generator, (self.linear.in_features, self.linear.out_features // 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.linear(x).chunk(2, dim=-1)
        return mean, F.softplus(raw + self.shift) + self.min_std  # the sum is contiguous: softplus is ten times faster


class BlockGRU(nn.Module):
    """TensorFlow's GRUBlockCell (TF1): the reset gate acts on h BEFORE the candidate's matrix product.

        r, u = sigmoid(W [x, h] + b)       c = tanh(W' [x, r * h] + b')       h' = u * h + (1 - u) * c

    The gates' biases start at 1. Source: TF1 code, models/rssm.py; golden gru_block of PlaNet.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.gates = nn.Linear(inputs + units, 2 * units)
        self.candidate = nn.Linear(inputs + units, units)

    def reset(self, generator: torch.Generator) -> None:
        nn.init.ones_(self.gates.bias)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset, update = self.gates(torch.cat([x, h], -1)).sigmoid_().chunk(2, dim=-1)
        candidate = tanh(self.candidate(torch.cat([x, reset * h], -1)))
        return torch.lerp(candidate, h, update)


class KerasGRU(nn.Module):
    """Keras' GRUCell (TF2): the reset gate acts on the candidate's matrix product AFTER it.

        z, r = sigmoid(W x + b + U h + d)       c = tanh(W' x + b' + r * (U' h + d'))       h' = z * h + (1 - z) * c

    Glorot input kernel, orthogonal recurrent one, zero biases. Source: TF2 code, models.py; golden rssm_cell.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.inputs = nn.Linear(inputs, 3 * units)
        self.recurrent = nn.Linear(units, 3 * units)

    def reset(self, generator: torch.Generator) -> None:
        nn.init.orthogonal_(self.recurrent.weight, generator=generator)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        sizes = [2 * h.shape[-1], h.shape[-1]]
        gates_x, candidate_x = self.inputs(x).split(sizes, -1)
        gates_h, candidate_h = self.recurrent(h).split(sizes, -1)
        update, reset = (gates_x + gates_h).sigmoid_().chunk(2, dim=-1)
        return torch.lerp(tanh(candidate_x + reset * candidate_h), h, update)


GRUS = {"block": BlockGRU, "keras": KerasGRU}


class RSSM(nn.Module):
    """Deterministic path h_t (GRU) and stochastic latent s_t (Gaussian).

        prior      h_t = GRU(D1(s_{t-1}, a_{t-1}), h_{t-1})       s_t ~ p(s_t | D2(h_t))
        posterior                                                 s_t ~ q(s_t | D3(h_t, embed_t))

    The belief h_t is shared by both. Source: Dreamer Section 4; TF1 code, models/rssm.py; TF2 code, models.py.
    """

    def __init__(self, config, embed_size: int, action_size: int):
        super().__init__()
        stoch, deter, hidden = config.stoch_size, config.deter_size, config.hidden_size
        self.sizes = {"mean": stoch, "std": stoch, "sample": stoch, "belief": deter}
        self.feature_size = stoch + deter
        self.transition_in = MLP(stoch + action_size, hidden, 1, config.activation)
        self.gru = GRUS[config.gru](hidden, deter)
        self.prior_hidden = MLP(deter, hidden, 1, config.activation)
        self.prior_head = GaussianHead(hidden, stoch, config.min_std, joint=config.joint_heads)
        self.posterior_hidden = MLP(deter + embed_size, hidden, 1, config.activation)
        self.posterior_head = GaussianHead(hidden, stoch, config.min_std, joint=config.joint_heads)

    def prior(self, previous: State, action: Tensor, noise: Tensor) -> State:
        """One step without an observation: s_t ~ p(s_t | h_t). All (..., size); noise (..., S)."""
        return self._prior_from(self._advance(previous, action), noise)

    def posterior(self, previous: State, action: Tensor, embed: Tensor, noise: Tensor) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior draws no sample."""
        belief = self._advance(previous, action)
        mean, std = self.posterior_head(self.posterior_hidden(torch.cat([belief, embed], -1)))
        post = {"mean": mean, "std": std, "sample": reparameterise(mean, std, noise), "belief": belief}
        return post, self._prior_from(belief, torch.zeros_like(mean))

    def observe(self, embed: Tensor, action: Tensor, noise: Tensor, state: State) -> tuple[State, State]:
        """Filter a sequence: embed (B, T, E), action that led to each row (B, T, A), noise (B, T, S), state (B, .).

        The loop does only what depends on the sample before it; the embedding's half of D3 and the whole prior are
        computed for all steps at once. Equals `posterior` applied T times (a test says so).
        """
        embed_part = self.posterior_hidden.split(embed)
        beliefs, means, stds, samples = [], [], [], []
        for t in range(embed.shape[1]):
            belief = self._advance(state, action[:, t])
            mean, std = self.posterior_head(self.posterior_hidden.resume(belief, embed_part[:, t]))
            state = {"sample": reparameterise(mean, std, noise[:, t]), "belief": belief}
            for rows, value in zip((beliefs, means, stds, samples), (belief, mean, std, state["sample"]), strict=True):
                rows.append(value)
        belief, mean, std, sample = (torch.stack(rows, 1) for rows in (beliefs, means, stds, samples))
        post = {"mean": mean, "std": std, "sample": sample, "belief": belief}
        return post, self._prior_from(belief, torch.zeros_like(mean))

    def features(self, state: State) -> Tensor:
        """What the heads read: (..., S + D)."""
        return torch.cat([state["sample"], state["belief"]], -1)

    def _advance(self, previous: State, action: Tensor) -> Tensor:
        x = self.transition_in(torch.cat([previous["sample"], action], -1))
        return self.gru(x, previous["belief"])

    def _prior_from(self, belief: Tensor, noise: Tensor) -> State:
        mean, std = self.prior_head(self.prior_hidden(belief))
        return {"mean": mean, "std": std, "sample": reparameterise(mean, std, noise), "belief": belief}


def initial_state(latent: nn.Module, *batch: int) -> State:
    """The state before the first step: zeros everywhere, the std included. Each (*batch, size)."""
    like = next(latent.parameters())
    return {name: like.new_zeros(*batch, size) for name, size in latent.sizes.items()}


def imagine(latent, state: State, action: Tensor, noise: Tensor) -> State:
    """Roll the prior open loop: state (B, .), action (B, T, A), noise (B, T, S) -> states (B, T, .)."""
    states = []
    for t in range(action.shape[1]):
        state = latent.prior(state, action[:, t], noise[:, t])
        states.append(state)
    return {name: torch.stack([state[name] for state in states], 1) for name in states[0]}


class Encoder(nn.Module):
    """Four convolutions, kernel 4, stride 2, no padding, ReLU: 64 -> 31 -> 14 -> 6 -> 2. (..., 64, 64, 3) -> (..., E).

    Channels depth * (1, 2, 4, 8); flattened in the order height, width, channel, E = 32 * depth.
    Source: TF1 code, networks/conv.py; TF2 code, models.py.
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
    of a Gaussian with standard deviation 1. Source: TF1 code, networks/conv.py; TF2 code, models.py.
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


class ScalarHead(nn.Module):
    """A number from the features: mean of a Gaussian with standard deviation 1, or log-odds. (..., F) -> (...)."""

    def __init__(self, feature_size: int, units: int, layers: int, activation: str):
        super().__init__()
        self.hidden = MLP(feature_size, units, layers, activation)
        self.out = nn.Linear(units, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.hidden(features)).squeeze(-1)


class ContrastiveHead(nn.Module):
    """Predicts the features from the image: a diagonal Gaussian. Embedding (..., E) -> mean and std, (..., F).

    Source: TF1 code, scripts/configs.py (cpc_head), networks/basic.py.
    """

    def __init__(self, config, embed_size: int, feature_size: int):
        super().__init__()
        self.hidden = MLP(embed_size, config.dense_units, config.contrastive_layers, config.activation)
        shift = math.log(math.expm1(config.contrastive_init_std))
        minimum, joint = config.contrastive_min_std, config.joint_heads
        self.head = GaussianHead(config.dense_units, feature_size, minimum, joint=joint, shift=shift)

    def forward(self, embed: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.hidden(embed))


class WorldModel(nn.Module):
    """The parts together. continuation gives the log-odds that the episode goes on; it and contrastive may be None."""

    def __init__(self, config, action_size: int, generator: torch.Generator):
        super().__init__()
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
        initialise(self, generator)
        self.to(memory_format=torch.channels_last)


class Actor(nn.Module):
    """The policy q(a | features). Continuous: the tanh of a Gaussian sample; discrete: a one-hot categorical sample.

    Equation 7 needs the gradient through a sample: reparameterised; or one of two stand-ins for a discrete one
    (behaviour.action_gradient). Source: TF1 code, networks/basic.py, distributions/; TF2 code, models.py, tools.py.
    """

    def __init__(self, config, behaviour, feature_size: int, act_spec, generator: torch.Generator):
        super().__init__()
        self.size, self.discrete, self.behaviour = act_spec.size, act_spec.discrete, behaviour
        self.joint = config.joint_heads
        self.hidden = MLP(feature_size, config.dense_units, config.actor_layers, config.activation)
        self.out = nn.Linear(config.dense_units, self.size if self.discrete else 2 * self.size)
        initialise(self, generator)

    def reset(self, generator: torch.Generator) -> None:
        if not self.discrete and not self.joint:
            glorot_(self.out.weight, generator, (self.out.in_features, self.size))

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (..., A) of a discrete action; else mean and std, each (..., A), of the Gaussian before the tanh."""
        raw = self.out(self.hidden(features))
        if self.discrete:
            return raw
        raw_mean, raw_std = raw.chunk(2, dim=-1)
        settings = self.behaviour
        return tanh_normal(raw_mean, raw_std, settings.mean_scale, settings.init_std, settings.min_std)

    def sample(self, features: Tensor, noise: Tensor) -> Tensor:
        """An action (..., A). noise: standard normal (..., A); uniform (...) where discrete."""
        if not self.discrete:
            return torch.tanh(reparameterise(*self(features), noise))
        logits = self(features)
        probs = torch.softmax(logits, -1)
        drawn = categorical_sample(probs, noise)
        if self.behaviour.action_gradient == "straight":
            return straight_through(drawn, probs)
        return score_through(drawn, categorical_log_prob(drawn, logits))

    def mode(self, features: Tensor, noise: Tensor | None) -> Tensor:
        """The likeliest action (..., A); of a continuous one the likeliest of K samples.

        noise: standard normal (K, ..., A); None where discrete. The density is that of the action, the Jacobian of the
        tanh included: with a wide Gaussian it is highest at the ends of the box.
        """
        if self.discrete:
            logits = self(features)
            return F.one_hot(logits.argmax(-1), self.size).to(logits.dtype)
        mean, std = (x.expand_as(noise) for x in self(features))
        actions = torch.tanh(reparameterise(mean, std, noise))
        best = tanh_normal_log_prob(actions, mean, std).sum(-1).argmax(0)  # (...)
        return actions.gather(0, best[None, ..., None].expand(1, *actions.shape[1:]))[0]


class Value(ScalarHead):
    """v(features): what rewards a state and its future are worth, the mean of a Gaussian with standard deviation 1."""

    def __init__(self, config, feature_size: int, generator: torch.Generator):
        super().__init__(feature_size, config.dense_units, config.value_layers, config.activation)
        initialise(self, generator)
