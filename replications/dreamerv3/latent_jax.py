"""DreamerV3's latent model in JAX: a recurrent path in blocks, and one-hot latents beside it.

Paper: Methods. Shapes: B batch, T time, E embedding, D deter, S latents, K classes, A action, F features, G blocks.
The twin of latent_torch.py: same names, same order, torch's weight layouts and parameter names. Noise is
always an argument. Read layers_jax.py before it and model_jax.py after it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax

from replications.dreamerv3.layers_jax import (
    MLP,
    BlockLinear,
    Dense,
    Linear,
    Norm,
    affine,
    exact,
    filled,
    in_blocks,
    joined,
)
from shared.formulas.sampling import categorical_sample, straight_through, unimix
from shared.layers_jax import scan_time

# deter (..., D), stoch (..., S, K), and logit (..., S, K), of which the distribution is made by RSSM.log_probs.
State = dict[str, Array]
UPDATE_BIAS = -1.0  # of the GRU: at first it rather keeps its state


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
