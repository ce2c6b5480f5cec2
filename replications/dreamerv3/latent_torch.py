"""DreamerV3's latent model in torch: a recurrent path in blocks, and one-hot latents beside it.

Paper: Methods. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features, G blocks.
Noise is always an argument. Read layers_torch.py before it and model_torch.py after it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.dreamerv3.layers_torch import MLP, BlockLinear, Dense, Norm, exact, in_blocks, joined
from shared.formulas.sampling import categorical_sample, straight_through, unimix
from shared.layers_torch import stack_time, tanh

# deter (..., D), stoch (..., S, K), and logit (..., S, K), of which the distribution is made by RSSM.log_probs.
State = dict[str, Tensor]
UPDATE_BIAS = -1.0  # of the GRU: at first it rather keeps its state


class BlockGRU(nn.Module):
    """The recurrent state's next value; each of G parts of the state has its own gates, and sees all inputs.

        x  = [D1(h), D2(z), D3(a / max(1, |a|))]        y = silu(norm(W1_g [h_g, x]))  of every block g, norm over all
        r, c, u = W2_g y_g      c = tanh(sigmoid(r) c)      u = sigmoid(u - 1)      h' = u c + (1 - u) h

    Source: code, dreamerv3/rssm.py (_core); golden rssm_steps.
    """

    def __init__(self, config, size, stoch: int, action_size: int):
        super().__init__()
        deter, units, blocks, norm = size.deter_size, size.units, config.blocks, config.norm
        self.blocks = blocks
        self.deter_in = Dense(deter, units, norm)
        self.stoch_in = Dense(stoch, units, norm)
        self.action_in = Dense(action_size, units, norm)
        inputs = [deter + blocks * 3 * units] + [deter] * (config.dynamics_layers - 1)
        self.hidden = nn.ModuleList([BlockLinear(n, deter, blocks) for n in inputs])
        self.norms = nn.ModuleList([Norm(norm, deter) for _ in inputs])
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def weights(self) -> tuple[Tensor, Tensor]:
        """The first block layer's weights for the state, (G, D / G, D / G), and for x, (G, 3 units, D / G).

        Cut once for a whole rollout: the gradient of a cut is as large as the weights.
        """
        weight = self.hidden[0].weight
        own = weight.shape[-1]
        return weight[:, :own], weight[:, own:]

    def action_part(self, action: Tensor) -> Tensor:
        """What depends on the action alone, (..., A) -> (..., units): computed once for all time steps."""
        return self.action_in(within_box(action))

    def forward(self, deter: Tensor, stoch: Tensor, action_part: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """deter (N, D), stoch (N, S * K), what action_part and weights gave -> deter (N, D)."""
        of_state, of_inputs = weights
        x = torch.cat([self.deter_in(deter), self.stoch_in(stoch), action_part], -1)
        before = in_blocks(deter, self.blocks)
        bias = self.hidden[0].bias.view(self.blocks, 1, -1)
        seen = torch.baddbmm(bias, x.expand(self.blocks, -1, -1), of_inputs)
        x = self.norms[0](joined(torch.baddbmm(seen, before, of_state)))
        for layer, norm in zip(self.hidden[1:], self.norms[1:], strict=True):
            x = norm(joined(layer(x)))
        return joined(gated(self.gates(x), before))


class DenseGRU(nn.Module):
    """The same of the 2023 agent: one matrix, whose gates are normalised together, and no branches before it.

        x = silu(norm(W1 [z, a / max(1, |a|)]))        r, c, u = norm(W2 [h, x])        h' as above

    Source: code, 2023/nets.py:17-187; golden v2023_extras (rssm).
    """

    def __init__(self, config, size, stoch: int, action_size: int):
        super().__init__()
        deter, units, norm = size.deter_size, size.units, config.norm
        self.inputs = Dense(stoch + action_size, units, norm)
        self.gates = nn.Linear(deter + units, 3 * deter, bias=norm == "rms")
        self.norm = Norm(norm, 3 * deter)

    def weights(self) -> tuple[()]:
        """Nothing: no matrix is cut."""
        return ()

    def action_part(self, action: Tensor) -> Tensor:
        """What depends on the action alone: (..., A) itself, divided by max(1, |a|)."""
        return within_box(action)

    def forward(self, deter: Tensor, stoch: Tensor, action_part: Tensor, weights: tuple[()]) -> Tensor:
        """deter (N, D), stoch (N, S * K), what action_part gave -> deter (N, D)."""
        x = self.inputs(torch.cat([stoch, action_part], -1))
        gates = self.norm.normalised(self.gates(torch.cat([deter, x], -1)))
        return gated(gates, deter)


def within_box(action: Tensor) -> Tensor:
    """An action (..., A) divided by max(1, |a|), a constant."""
    return action / action.detach().abs().clamp(min=1)


def gated(gates: Tensor, deter: Tensor) -> Tensor:
    """The GRU's update: gates (..., 3 n), reset, candidate and update one after the other; deter (..., n)."""
    reset, candidate, update = exact(gates).chunk(3, dim=-1)
    return torch.lerp(deter, tanh(torch.sigmoid(reset) * candidate), torch.sigmoid(update + UPDATE_BIAS))


GRUS = {"block": BlockGRU, "dense": DenseGRU}


class RSSM(nn.Module):
    """Deterministic path h_t (GRU) and stochastic latent z_t (S one-hot vectors of K classes).

        prior      h_t = GRU(h_{t-1}, z_{t-1}, a_{t-1})       z_t ~ p(z_t | h_t)
        posterior                                             z_t ~ q(z_t | h_t, tokens_t)

    A hundredth of every distribution is uniform (`unimix`). Source: DreamerV3, Methods; code, dreamerv3/rssm.py:16-176.
    """

    def __init__(self, config, size, embed_size: int, action_size: int):
        super().__init__()
        deter, units, norm = size.deter_size, size.units, config.norm
        self.sample_shape, self.mix = (config.stoch_size, size.classes), config.unimix
        stoch = config.stoch_size * size.classes
        self.deter_size, self.feature_size = deter, deter + stoch
        self.gru = GRUS[config.gru](config, size, stoch, action_size)
        self.prior_hidden = MLP(deter, units, config.prior_layers, norm)
        self.prior_head = nn.Linear(units, stoch)
        self.posterior_hidden = MLP(deter + embed_size, units, config.posterior_layers, norm)
        self.posterior_head = nn.Linear(units, stoch)
        self.initial_deter = nn.Parameter(torch.zeros(deter)) if config.gru == "dense" else None

    def initial(self, *batch: int) -> State:
        """The state before the first step, (*batch, ...): zeros; or (2023) a learned one with its prior's mode."""
        if self.initial_deter is None:
            zeros = self.prior_head.weight.new_zeros(*batch, self.feature_size)
            deter, stoch = zeros.split([self.deter_size, self.feature_size - self.deter_size], -1)
            return {"deter": deter, "stoch": stoch.unflatten(-1, self.sample_shape)}
        deter = torch.tanh(self.initial_deter)
        stoch = F.one_hot(self.prior_logit(deter).argmax(-1), self.sample_shape[-1]).to(deter.dtype)
        return {"deter": deter.expand(*batch, -1), "stoch": stoch.expand(*batch, -1, -1)}

    def restarted(self, state: State, first: Tensor) -> State:
        """The initial state where an episode starts, first (N,) bool; the state itself elsewhere."""
        initial = self.initial(*first.shape)
        return {
            "deter": torch.where(first[:, None], initial["deter"], state["deter"]),
            "stoch": torch.where(first[:, None, None], initial["stoch"], state["stoch"]),
        }

    def prior(self, previous: State, action: Tensor, noise: Tensor) -> State:
        """One step without an observation: z_t ~ p(z_t | h_t). action (N, A), noise uniform (N, S)."""
        return self.prior_step(previous, self.gru.action_part(action), noise, self.gru.weights())

    def prior_step(self, previous: State, action_part: Tensor, noise: Tensor, weights: tuple[Tensor, Tensor]) -> State:
        """`prior`, from what the GRU computes once for many steps."""
        deter = self.gru(previous["deter"], previous["stoch"].flatten(-2), action_part, weights)
        logit = self.prior_logit(deter)
        return {"deter": deter, "stoch": self.sample(logit, noise), "logit": logit}

    def posterior(self, previous: State, action: Tensor, tokens: Tensor, noise: Tensor) -> tuple[State, State]:
        """One step with an observation: (posterior, prior). The posterior is carried on; the prior has no sample."""
        part, weights = self.gru.action_part(action), self.gru.weights()
        deter = self.gru(previous["deter"], previous["stoch"].flatten(-2), part, weights)
        logit = self._logit(self.posterior_head, self.posterior_hidden(torch.cat([deter, tokens], -1)))
        post = {"deter": deter, "stoch": self.sample(logit, noise), "logit": logit}
        return post, {"deter": deter, "logit": self.prior_logit(deter)}

    def observe(
        self, tokens: Tensor, action: Tensor, is_first: Tensor, noise: Tensor, state: State
    ) -> tuple[State, State]:
        """Filter a sequence: tokens (B, T, E), action that led to each row (B, T, A), is_first (B, T), noise (B, T, S).

        state: before the first row, each part (B, ...). Where is_first the state is the initial one; the action there
        is the caller's. The loop does only what depends on the sample before it: the action's branch, the tokens' half
        of the posterior and the whole prior are computed for all steps at once. Equals `restarted` and `posterior`
        applied T times (a test says so).
        """
        first = self.posterior_hidden.layers[0].linear
        of_deter, of_tokens = first.weight.split([self.deter_size, tokens.shape[-1]], 1)
        token_part = F.linear(tokens, of_tokens, first.bias).unbind(1)
        action_part, weights = self.gru.action_part(action).unbind(1), self.gru.weights()
        initial, restart = self.initial(len(tokens)), is_first.unbind(1)
        deter, stoch = state["deter"], state["stoch"].flatten(-2)
        deters, logits, samples = [], [], []
        for t in range(tokens.shape[1]):
            anew = restart[t][:, None]
            deter = torch.where(anew, initial["deter"], deter)
            stoch = torch.where(anew, initial["stoch"].flatten(-2), stoch)
            deter = self.gru(deter, stoch, action_part[t], weights)
            hidden = self.posterior_hidden.after_first(token_part[t] + F.linear(deter, of_deter))
            logit = self._logit(self.posterior_head, hidden)
            sample = self.sample(logit, noise[:, t])
            stoch = sample.flatten(-2)
            deters.append(deter)
            logits.append(logit)
            samples.append(sample)
        post = {"deter": torch.stack(deters, 1), "stoch": torch.stack(samples, 1), "logit": torch.stack(logits, 1)}
        return post, {"deter": post["deter"], "logit": self.prior_logit(post["deter"])}

    def prior_logit(self, deter: Tensor) -> Tensor:
        """Logits of the prior, (..., D) -> (..., S, K)."""
        return self._logit(self.prior_head, self.prior_hidden(deter))

    def log_probs(self, logit: Tensor) -> Tensor:
        """Log-probabilities of the latents, (..., S, K): the uniform share is in them."""
        return unimix(logit, self.mix)

    def sample(self, logit: Tensor, noise: Tensor) -> Tensor:
        """One-hot (..., S, K), with the gradient of the probabilities. noise: uniform (..., S)."""
        probs = self.log_probs(logit).exp()
        return straight_through(categorical_sample(probs, noise), probs)

    def features(self, state: State) -> Tensor:
        """What the heads read: (..., F), the deterministic part first."""
        return torch.cat([state["deter"], state["stoch"].flatten(-2)], -1)

    def _logit(self, head: nn.Linear, x: Tensor) -> Tensor:
        return exact(head(x)).unflatten(-1, self.sample_shape)


def imagine(latent: RSSM, state: State, action: Tensor, noise: Tensor) -> State:
    """Roll the prior open loop: state (B, ...), action (B, T, A), noise (B, T, S) -> states (B, T, ...)."""
    states = []
    for t in range(action.shape[1]):
        state = latent.prior(state, action[:, t], noise[:, t])
        states.append(state)
    return stack_time(states)
