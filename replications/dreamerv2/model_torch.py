"""DreamerV2's networks in torch: the world model, the actor and the critic.

Paper: Section 2. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features.
Noise is always an argument. Read top to bottom, then agent_torch.py; the formulas are in shared/formulas.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.formulas.distributions import (
    categorical_entropy,
    categorical_log_prob,
    truncated_normal,
    truncated_normal_entropy,
    truncated_normal_log_prob,
)
from shared.formulas.sampling import categorical_sample, reparameterise, straight_through, truncated_normal_sample
from shared.layers_torch import ConvTranspose2d, glorot_, initialise, stack_time, tanh

# sample (..., S, K) and logit (..., S, K); or sample, mean and std (..., S). Always belief (..., D).
State = dict[str, Tensor]
NORM_EPSILON = 1e-3  # Keras' own
UPDATE_BIAS = -1.0  # of the GRU: at first it rather keeps its state
ACTION_LIMIT = 1 - 1e-6  # code: common/dists.py, a sampled action stays this far inside its box


def make_norms(kind: str, sizes: list[int]) -> nn.ModuleList:
    """A LayerNorm for each layer, or nothing."""
    return nn.ModuleList([nn.LayerNorm(size, NORM_EPSILON) if kind == "layer" else nn.Identity() for size in sizes])


class MLP(nn.Module):
    """Dense layers, each with ELU, perhaps with a LayerNorm before it. (..., inputs) -> (..., units)."""

    def __init__(self, inputs: int, units: int, layers: int, norm: str):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs if i == 0 else units, units) for i in range(layers)])
        self.norms = make_norms(norm, [units] * layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.elu(norm(layer(x)))
        return x

    def split(self, embed: Tensor) -> Tensor:
        """The first layer's part for the last inputs alone, with the bias: computed once for all time steps."""
        first = self.layers[0]
        return F.linear(embed, first.weight[:, first.in_features - embed.shape[-1] :], first.bias)

    def resume(self, x: Tensor, embed_part: Tensor) -> Tensor:
        """forward(cat([x, embed])) from x and split(embed), for one layer."""
        (first,), (norm,) = self.layers, self.norms
        return F.elu(norm(embed_part + F.linear(x, first.weight[:, : x.shape[-1]])))


class NormGRU(nn.Module):
    """A GRU whose gates are normalised together and whose reset gate acts on the candidate.

        r, c, u = LayerNorm(W [x, h] + b)      c = tanh(sigmoid(r) * c)      u = sigmoid(u - 1)
        h' = u * c + (1 - u) * h

    Source: code, common/nets.py:317-347; golden rssm_steps (gru_*).
    """

    def __init__(self, inputs: int, units: int, *, norm: bool):
        super().__init__()
        self.linear = nn.Linear(inputs + units, 3 * units)
        self.norm = nn.LayerNorm(3 * units, NORM_EPSILON) if norm else nn.Identity()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset, candidate, update = self.norm(self.linear(torch.cat([x, h], -1))).chunk(3, dim=-1)
        candidate = tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(h, candidate, torch.sigmoid(update + UPDATE_BIAS))


class CategoricalHead(nn.Module):
    """S categorical latents of K classes. (..., inputs) -> {logit (..., S, K)}."""

    def __init__(self, config, inputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, config.stoch_size * config.classes)
        self.shapes = {"logit": (config.stoch_size, config.classes)}

    def forward(self, x: Tensor) -> State:
        return {"logit": self.linear(x).unflatten(-1, self.shapes["logit"])}

    @staticmethod
    def sample(stats: State, noise: Tensor) -> Tensor:
        """One-hot (..., S, K), with the gradient of the probabilities. noise: uniform (..., S)."""
        probs = torch.softmax(stats["logit"], -1)
        return straight_through(categorical_sample(probs, noise), probs)


class GaussianHead(nn.Module):
    """S Gaussian latents, the ablation. (..., inputs) -> {mean, std}, each (..., S).

    Rows [:S] of the matrix make the mean, rows [S:] the std. Source: code, common/nets.py:146-160.
    """

    def __init__(self, config, inputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * config.stoch_size)
        self.kind, self.min_std = config.std, config.min_std
        self.shapes = {"mean": (config.stoch_size,), "std": (config.stoch_size,)}

    def forward(self, x: Tensor) -> State:
        mean, raw = self.linear(x).chunk(2, dim=-1)
        std = 2 * torch.sigmoid(raw / 2) if self.kind == "sigmoid" else F.softplus(raw)
        return {"mean": mean, "std": std + self.min_std}

    @staticmethod
    def sample(stats: State, noise: Tensor) -> Tensor:
        """(..., S), with the gradients of mean and std. noise: standard normal (..., S)."""
        return reparameterise(stats["mean"], stats["std"], noise)


HEADS = {"categorical": CategoricalHead, "gaussian": GaussianHead}


class RSSM(nn.Module):
    """Deterministic path h_t (GRU) and stochastic latent z_t (categorical, or Gaussian).

        prior      h_t = GRU(D1(z_{t-1}, a_{t-1}), h_{t-1})       z_t ~ p(z_t | D2(h_t))
        posterior                                                 z_t ~ q(z_t | D3(h_t, embed_t))

    The belief h_t is shared by both. Source: DreamerV2 Section 2.1; code, common/nets.py:12-160.
    """

    def __init__(self, config, embed_size: int, action_size: int):
        super().__init__()
        deter, hidden, head = config.deter_size, config.hidden_size, HEADS[config.latents]
        sample = (config.stoch_size, config.classes) if config.latents == "categorical" else (config.stoch_size,)
        sample_size = torch.Size(sample).numel()
        self.feature_size = sample_size + deter
        self.transition_in = MLP(sample_size + action_size, hidden, 1, config.norm)
        self.gru = NormGRU(hidden, deter, norm=config.gru_norm)
        self.prior_hidden = MLP(deter, hidden, 1, config.norm)
        self.prior_head = head(config, hidden)
        self.posterior_hidden = MLP(deter + embed_size, hidden, 1, config.norm)
        self.posterior_head = head(config, hidden)
        self.shapes = {**self.prior_head.shapes, "sample": sample, "belief": (deter,)}

    def prior(self, previous: State, action: Tensor, noise: Tensor) -> State:
        """One step without an observation: z_t ~ p(z_t | h_t). Noise (..., S), uniform or, for Gaussians, normal."""
        belief = self._advance(previous, action)
        stats = self.prior_head(self.prior_hidden(belief))
        return {**stats, "sample": self.prior_head.sample(stats, noise), "belief": belief}

    def posterior(self, previous: State, action: Tensor, embed: Tensor, noise: Tensor) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior has no sample."""
        belief = self._advance(previous, action)
        stats = self.posterior_head(self.posterior_hidden(torch.cat([belief, embed], -1)))
        post = {**stats, "sample": self.posterior_head.sample(stats, noise), "belief": belief}
        return post, self._prior_of(belief)

    def observe(self, embed: Tensor, action: Tensor, noise: Tensor, state: State) -> tuple[State, State]:
        """Filter a sequence: embed (B, T, E), action that led to each row (B, T, A), noise (B, T, S), state (B, ...).

        The loop does only what depends on the sample before it; the embedding's half of D3 and the whole prior are
        computed for all steps at once. Equals `posterior` applied T times (a test says so).
        """
        embed_part = self.posterior_hidden.split(embed)
        states = []
        for t in range(embed.shape[1]):
            belief = self._advance(state, action[:, t])
            stats = self.posterior_head(self.posterior_hidden.resume(belief, embed_part[:, t]))
            state = {**stats, "sample": self.posterior_head.sample(stats, noise[:, t]), "belief": belief}
            states.append(state)
        post = stack_time(states)
        return post, self._prior_of(post["belief"])

    def features(self, state: State) -> Tensor:
        """What the heads read: (..., F), the flattened sample first."""
        return torch.cat([self._flat(state["sample"]), state["belief"]], -1)

    def _advance(self, previous: State, action: Tensor) -> Tensor:
        x = self.transition_in(torch.cat([self._flat(previous["sample"]), action], -1))
        return self.gru(x, previous["belief"])

    def _prior_of(self, belief: Tensor) -> State:
        return {**self.prior_head(self.prior_hidden(belief)), "belief": belief}

    def _flat(self, sample: Tensor) -> Tensor:
        """(..., S, K) -> (..., S * K); Gaussian samples (..., S) stay."""
        return sample.flatten(-len(self.shapes["sample"]))


def initial_state(latent: RSSM, *batch: int) -> State:
    """The state before the first step: zeros everywhere, logits and stds included. Each (*batch, ...)."""
    like = next(latent.parameters())
    return {name: like.new_zeros(*batch, *shape) for name, shape in latent.shapes.items()}


def imagine(latent: RSSM, state: State, action: Tensor, noise: Tensor) -> State:
    """Roll the prior open loop: state (B, ...), action (B, T, A), noise (B, T, S) -> states (B, T, ...)."""
    states = []
    for t in range(action.shape[1]):
        state = latent.prior(state, action[:, t], noise[:, t])
        states.append(state)
    return stack_time(states)


class Encoder(nn.Module):
    """Four convolutions, kernel 4, stride 2, no padding, ELU: 64 -> 31 -> 14 -> 6 -> 2. (..., 64, 64, C) -> (..., E).

    Channels depth * (1, 2, 4, 8), perhaps normalised; flattened in the order height, width, channel, E = 32 * depth.
    Source: code, common/nets.py:183-233.
    """

    def __init__(self, channels: int, depth: int, norm: str):
        super().__init__()
        sizes = [channels, depth, 2 * depth, 4 * depth, 8 * depth]
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 4, 2) for i, o in zip(sizes[:-1], sizes[1:], strict=True)])
        self.norms = make_norms(norm, sizes[1:])
        self.embed_size = 4 * 8 * depth

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(0, -4).permute(0, 3, 1, 2)  # a view: rows of pixels ARE torch's channels_last
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.elu(over_channels(norm, conv(x)))
        return x.permute(0, 2, 3, 1).reshape(*image.shape[:-3], self.embed_size)


class Decoder(nn.Module):
    """Dense layer, then four transposed convolutions, stride 2: 1 -> 5 -> 13 -> 30 -> 64. (..., F) -> (..., 64, 64, C).

    Kernels 5, 5, 6, 6; channels 32 * depth, then depth * (4, 2, 1) with ELU, then C linear. The output is the mean of a
    Gaussian with standard deviation 1. Source: code, common/nets.py:236-293.
    """

    def __init__(self, feature_size: int, channels: int, depth: int, norm: str):
        super().__init__()
        sizes = [32 * depth, 4 * depth, 2 * depth, depth, channels]
        self.dense = nn.Linear(feature_size, sizes[0])
        self.deconvs = nn.ModuleList(
            [ConvTranspose2d(i, o, k, 2) for i, o, k in zip(sizes[:-1], sizes[1:], (5, 5, 6, 6), strict=True)]
        )
        self.norms = make_norms(norm, sizes[1:-1])

    def forward(self, features: Tensor) -> Tensor:
        x = self.dense(features.flatten(0, -2))
        first, *others = self.deconvs
        # On a 1 x 1 input a transposed convolution is a matrix product: (N, I) @ (I, kh * kw * O).
        kernel = first.weight.permute(0, 2, 3, 1)  # (I, kh, kw, O)
        x = x @ kernel.reshape(kernel.shape[0], -1)
        x = x.view(-1, *kernel.shape[1:]).permute(0, 3, 1, 2) + first.bias[:, None, None]
        for norm, deconv in zip(self.norms, others, strict=True):
            x = deconv(F.elu(over_channels(norm, x)))
        return x.permute(0, 2, 3, 1).unflatten(0, features.shape[:-1])


def over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm of the last axis, applied to the channels of (N, C, H, W)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ScalarHead(nn.Module):
    """A number from the features: mean of a Gaussian with standard deviation 1, or log-odds. (..., F) -> (...)."""

    def __init__(self, feature_size: int, units: int, layers: int, norm: str):
        super().__init__()
        self.hidden = MLP(feature_size, units, layers, norm)
        self.out = nn.Linear(units, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.hidden(features)).squeeze(-1)


class WorldModel(nn.Module):
    """The parts together, for images of C channels. discount gives log-odds; it may be None."""

    def __init__(self, config, channels: int, action_size: int, generator: torch.Generator):
        super().__init__()
        units, norm = config.dense_units, config.norm
        self.encoder = Encoder(channels, config.encoder_depth, norm)
        self.latent = RSSM(config, self.encoder.embed_size, action_size)
        feature_size = self.latent.feature_size
        self.decoder = Decoder(feature_size, channels, config.encoder_depth, norm)
        self.reward = ScalarHead(feature_size, units, config.reward_layers, norm)
        self.discount = ScalarHead(feature_size, units, config.discount_layers, norm) if config.discount_head else None
        initialise(self, generator)
        self.to(memory_format=torch.channels_last)


class Actor(nn.Module):
    """The policy p(a | features). Discrete: a one-hot categorical; continuous: a normal distribution cut to [-1, 1].

    Samples carry the gradient of the probabilities (straight-through) or of location and scale (reparameterised).
    Source: code, common/nets.py:350-389, common/dists.py.
    """

    def __init__(self, config, behaviour, feature_size: int, act_spec, generator: torch.Generator):
        super().__init__()
        self.size, self.discrete = act_spec.size, act_spec.discrete
        self.init_std, self.min_std = behaviour.init_std, behaviour.min_std
        self.hidden = MLP(feature_size, config.dense_units, config.actor_layers, config.norm)
        self.out = nn.Linear(config.dense_units, self.size if self.discrete else 2 * self.size)
        initialise(self, generator)

    def reset(self, generator: torch.Generator) -> None:
        """Rows [:A] (location) and [A:] (scale) have the first values of two matrices, as the authors' code has it."""
        glorot_(self.out.weight, generator, (self.out.in_features, self.size))

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (..., A) of a discrete action; else location and scale, each (..., A), before cutting."""
        raw = self.out(self.hidden(features))
        return raw if self.discrete else truncated_normal(*raw.chunk(2, dim=-1), self.init_std, self.min_std)

    def sample(self, features: Tensor, noise: Tensor) -> Tensor:
        """An action (..., A). noise: uniform (...) where discrete, uniform (..., A) where continuous."""
        if self.discrete:
            probs = torch.softmax(self(features), -1)
            return straight_through(categorical_sample(probs, noise), probs)
        sample = truncated_normal_sample(*self(features), -1.0, 1.0, noise)
        return straight_through(sample.clamp(-ACTION_LIMIT, ACTION_LIMIT), sample)

    def mode(self, features: Tensor) -> Tensor:
        """The likeliest action (..., A)."""
        if self.discrete:
            return F.one_hot(self(features).argmax(-1), self.size).to(features.dtype)
        return self(features)[0].clamp(-ACTION_LIMIT, ACTION_LIMIT)

    def judge(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of an action (..., A), and the entropy of the policy, each (...) in nats.

        A discrete action is a constant to its log-probability; a continuous one is what the caller makes of it.
        """
        if self.discrete:
            logits = self(features)
            return categorical_log_prob(action.detach(), logits), categorical_entropy(logits)
        loc, scale = self(features)
        log_prob = truncated_normal_log_prob(action, loc, scale, -1.0, 1.0)
        return log_prob.sum(-1), truncated_normal_entropy(loc, scale, -1.0, 1.0).sum(-1)


class Critic(ScalarHead):
    """v(features): what rewards a state and its future are worth, the mean of a Gaussian with standard deviation 1."""

    def __init__(self, config, feature_size: int, generator: torch.Generator):
        super().__init__(feature_size, config.dense_units, config.critic_layers, config.norm)
        initialise(self, generator)
