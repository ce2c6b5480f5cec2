"""Dreamer's agent in JAX: fit the world model, and in it, by imagination, an actor and a value (learn); act.

Paper: Sections 2 and 3, Algorithm 1. The twin of agent_torch.py; the functions below the class are pure, and each of
`learn`, `act` and `predict` is one compiled function of them. Those at the end, from `model_objective` on, are the
method. Read model_jax.py first.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from replications.dreamer.config import Behaviour, Config, Exploration, Loss, Model, Optimisers, Planner
from replications.dreamer.model_jax import Actor, State, Value, WorldModel, imagine, initial_state
from shared.device_jax import prepare as prepare
from shared.device_jax import set_exact_arithmetic, to_numpy, uniform
from shared.errors import UserError
from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob, info_nce
from shared.formulas.images import centre, dequantise_uint8, quantise
from shared.formulas.planning import refit
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.sampling import categorical_sample
from shared.formulas.schedules import linear
from shared.formulas.sequences import previous_actions
from shared.layers_jax import initialise, named_parameters, scan_time, with_parameters
from shared.training.agent import Acted, Arrays, Carry, Learned

Batch = dict[str, Array]  # rows by name, as in shared/envs/spec.py


class Settings(NamedTuple):
    """The groups of the config that a compiled function depends on; agents of equal settings share their functions."""

    model: Model
    loss: Loss
    behaviour: Behaviour
    optimisers: Optimisers
    planner: Planner
    exploration: Exploration


class Networks(eqx.Module):
    """All parameters of an agent. The planner has neither actor nor value; a Networks of gradients has its shape."""

    model: WorldModel
    actor: Actor | None
    value: Value | None

    @classmethod
    def make(cls, config: Config, act_spec) -> "Networks":
        """Networks of zeros for a config."""
        model, behaviour = WorldModel(config.model, act_spec.size), config.behaviour
        features, actor, value = model.latent.feature_size, None, None
        if behaviour.learner == "actor":
            actor = Actor(config.model, behaviour, features, act_spec)
        if behaviour.value:
            value = Value(config.model, features)
        return cls(model, actor, value)


class DreamerAgent:
    """World model, actor, value, their optimisers and one source of noise. See shared/training/agent.py.

    With behaviour.learner planner there is neither actor nor value (None): PlaNet with this world model. With
    behaviour.value false there is no value.
    """

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        """
        Raises:
          UserError: the planner is asked for discrete actions, which it cannot choose.
        """
        set_exact_arithmetic()
        if config.behaviour.learner == "planner" and act_spec.discrete:
            raise UserError(
                "behaviour.learner planner searches continuous actions and the task's are discrete; use learner actor, "
                "or a control task"
            )
        self.config, self.act_spec, self.device = config, act_spec, device
        self.settings = Settings(**{name: getattr(config, name) for name in Settings._fields})
        init_seed, noise_seed = (int(s.generate_state(1, np.uint32)[0]) for s in seed.spawn(2))
        with jax.default_device(jax.devices("cpu")[0]):  # on the CPU: the same weights on every device
            networks = initialise(Networks.make(config, act_spec), jax.random.key(init_seed))
        self.place = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        self.networks = jax.device_put(networks, self.place)
        self.moments = jax.device_put(first_moments(self.settings, self.networks), self.place)
        self.key = jax.device_put(jax.random.key(noise_seed), self.place)
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        state = initial_state(self.networks.model.latent, num_envs)
        return {**state, "action": jnp.zeros((num_envs, self.act_spec.size))}

    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step, choose from the sampled posterior; training episodes explore.

        Rows that end an episode get a zero action where all do: nothing will execute it.
        """
        if obs["is_last"].all():
            return Acted(np.zeros((len(obs["is_first"]), self.act_spec.size), np.float32), carry, {})
        seen = {name: obs[name] for name in ("image", "is_first")}
        epsilon = self.config.exploration.epsilon
        share = linear(self.updates, epsilon.start, epsilon.end, epsilon.decay_updates)
        carry = jax.device_put(dict(carry), self.place)  # else the first call is compiled apart from the others
        self.key, carry = act_step(
            self.settings, self.networks, self.key, carry, seen, share if explore else epsilon.evaluation,
            explore=explore,
        )  # fmt: skip
        return Acted(np.array(carry["action"]), carry, {})

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One update: world model, actor and value, each by its own Adam step with its own clipped gradient."""
        names = ("image", "action", "action_before", "is_first", "reward", "is_terminal")
        self.networks, self.moments, self.key, metrics = learn_step(
            self.settings, self.networks, self.moments, self.key, {name: batch[name] for name in names}
        )
        self.updates += 1
        return Learned(metrics, {})

    # ------------------------------------------------------------------------------------- pictures and persistence

    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8.

        Both in image_bits bits per channel, as the authors display them.
        """
        seen = {name: batch[name] for name in ("image", "action", "action_before", "is_first")}
        self.key, images = predict_step(self.settings, self.networks.model, self.key, seen, context=context)
        return {name: np.array(image) for name, image in images.items()}

    def parameters(self) -> Arrays:
        """Name -> float32 array in torch's layouts: what the safetensors file of a run holds."""
        return {name: to_numpy(value) for name, value in named_parameters(self.networks).items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimisers and noise stay as they are."""
        self.networks = jax.device_put(with_parameters(self.networks, parameters), self.place)

    def save(self) -> Mapping[str, Any]:
        return {
            "parameters": self.parameters(),
            "optimiser": [to_numpy(leaf) for leaf in jax.tree.leaves(self.moments)],
            "generator": to_numpy(jax.random.key_data(self.key)),
            "updates": self.updates,
            "device": self.device,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what save returned.

        Raises:
          UserError: it was saved on another kind of device, whose results cannot be continued bit by bit here.
        """
        if state["device"] != self.device:
            raise UserError(
                f"it was made on {state['device']} and this run is on {self.device}: their roundings differ; "
                f"give --device {state['device']}, or another --out to start anew"
            )
        self.load_parameters(state["parameters"])
        structure = jax.tree.structure(self.moments)
        moments = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in state["optimiser"]])
        self.moments = jax.device_put(moments, self.place)
        self.key = jax.device_put(jax.random.wrap_key_data(jnp.asarray(state["generator"])), self.place)
        self.updates = int(state["updates"])


# -------------------------------------------------------------------------------------------------------------- acting


@functools.partial(jax.jit, static_argnames=("settings", "explore"))
def act_step(
    settings: Settings, networks: Networks, key: Array, carry: State, obs: Batch, epsilon: float, *, explore: bool
) -> tuple[Array, State]:
    """One decision for N environments: the next key, and the carry with the action in it, (N, A)."""
    key, image_key, post_key, choice_key, explore_key = jax.random.split(key, 5)
    previous = {name: jnp.where(obs["is_first"][:, None], 0.0, value) for name, value in carry.items()}
    image = preprocessed(settings.model, obs["image"], image_key)
    noise = jax.random.normal(post_key, (len(image), settings.model.stoch_size))
    state = filter_step(networks.model, image, previous.pop("action"), previous, noise)
    size = carry["action"].shape[-1]
    action = choose(settings, networks, state, choice_key, size, explore=explore)
    if networks.actor is not None and networks.actor.discrete:
        action = randomised(action, epsilon, explore_key)
    elif explore:
        action = action + settings.exploration.action_noise * jax.random.normal(explore_key, action.shape)
    return key, {**state, "action": jnp.clip(action, -1, 1)}


def filter_step(model: WorldModel, image: Array, action: Array, previous: State, noise: Array) -> State:
    """The posterior after one more image (N, H, W, C), reached from `previous` by `action` (N, A)."""
    return model.latent.posterior(previous, action, model.encoder(image), noise)[0]


def choose(settings: Settings, networks: Networks, state: State, key: Array, size: int, *, explore: bool) -> Array:
    """What the actor or the planner does in a state, (N, A), before any exploration noise."""
    model, actor, num_envs = networks.model, networks.actor, len(state["sample"])
    if actor is None:
        return plan(model, settings.planner, state, **planner_noise(settings, key, num_envs, size))[0][:, 0]
    features = model.latent.features(state)
    if explore and settings.exploration.policy == "sample":
        return actor.sample(features, action_noise(actor, key, num_envs))
    if actor.discrete:
        return actor.mode(features, None)
    return actor.mode(features, jax.random.normal(key, (settings.behaviour.mode_samples, num_envs, size)))


def randomised(action: Array, epsilon: Array, key: Array) -> Array:
    """One-hot actions (N, A), each replaced by a uniform one with probability epsilon."""
    whether_key, which_key = jax.random.split(key)
    random = jax.random.uniform(whether_key, (len(action),)) < epsilon
    drawn = categorical_sample(jnp.ones_like(action), jax.random.uniform(which_key, (len(action),)))
    return jnp.where(random[:, None], drawn, action)


def planner_noise(settings: Settings, key: Array, num_envs: int, action_size: int) -> dict[str, Array]:
    """Standard normal, for every iteration: action_noise (I, N, J, H, A) and latent_noise (I, N * J, H, S)."""
    plan = settings.planner
    action_key, latent_key = jax.random.split(key)
    return {
        "action_noise": jax.random.normal(
            action_key, (plan.iterations, num_envs, plan.candidates, plan.horizon, action_size)
        ),
        "latent_noise": jax.random.normal(
            latent_key, (plan.iterations, num_envs * plan.candidates, plan.horizon, settings.model.stoch_size)
        ),
    }


# ------------------------------------------------------------------------------------------------------------ learning


@functools.partial(jax.jit, static_argnames="settings", donate_argnames=("networks", "moments", "key"))
def learn_step(
    settings: Settings, networks: Networks, moments: Any, key: Array, batch: Batch
) -> tuple[Networks, Any, Array, dict[str, Array]]:
    """One update: the new networks, moments and key, and the named losses and norms of gradients."""
    key, image_key, noise_key = jax.random.split(key, 3)
    inputs = {
        "image": preprocessed(settings.model, batch["image"], image_key),
        "action": previous_actions(batch["action"], batch["is_first"], batch["action_before"]),
        "reward": batch["reward"],
        "terminal": batch["is_terminal"].astype(jnp.float32),
    }
    noise = learning_noise(settings, networks.actor, noise_key, *batch["reward"].shape)
    grads, metrics = gradients(settings, networks, **inputs, **noise)
    networks, moments, norms = update(settings, networks, moments, grads)
    return networks, moments, key, metrics | norms


def gradients(
    settings: Settings,
    networks: Networks,
    *,
    action_noise: Array | None = None,
    latent_noise: Array | None = None,
    **inputs: Array,
) -> tuple[Networks, dict[str, Array]]:
    """The gradients, all taken with the present weights, shaped like the networks, and the named losses.

    inputs as for model_objective; action_noise and latent_noise as for imagine_behaviour, without a planner.
    """
    model, actor, value = networks.model, networks.actor, networks.value

    def explain(model: WorldModel) -> tuple[Array, tuple[dict[str, Array], State]]:
        total, *rest = model_objective(model, settings.loss, **inputs)
        return total, rest

    model_grads, (metrics, post) = jax.grad(explain, has_aux=True)(model)
    if actor is None:
        return Networks(model_grads, None, None), metrics

    def behave(actor: Actor) -> tuple[Array, tuple[Array, Array, Array]]:
        start = imagination_starts(model, post)
        features, _ = imagine_behaviour(model, actor, start, action_noise=action_noise, latent_noise=latent_noise)
        total, returns, weights = actor_objective(model, value, settings.behaviour, features)
        return total, (features, returns, weights)

    (actor_loss, (features, returns, weights)), actor_grads = jax.value_and_grad(behave, has_aux=True)(actor)
    metrics |= {"actor_loss": actor_loss, "imagined_return": returns.mean()}
    if value is None:
        return Networks(model_grads, actor_grads, None), metrics
    value_loss, value_grads = jax.value_and_grad(value_objective)(value, features, returns, weights)
    return Networks(model_grads, actor_grads, value_grads), metrics | {"value_loss": value_loss}


def update(
    settings: Settings, networks: Networks, moments: Any, grads: Networks
) -> tuple[Networks, Any, dict[str, Array]]:
    """Clip and apply the gradients, each group by its own norm: networks, moments, and the norms before clipping."""
    parts, slopes, after, norms = grouped(settings.loss, networks), grouped(settings.loss, grads), {}, {}
    for name, part in parts.items():
        optimiser = make_optimiser(settings.optimisers, name)
        changes, after[name] = optimiser.update(slopes[name], moments[name], part)
        parts[name] = optax.apply_updates(part, changes)
        norms[f"{name}_grad_norm"] = optax.tree.norm(slopes[name])
    return ungrouped(parts), after, norms


def learning_noise(settings: Settings, actor: Actor | None, key: Array, size: int, length: int) -> dict[str, Array]:
    """Of the filter: noise (B, T, S). Of imagination: latent_noise (H, N, S), and action_noise as the actor's.

    N: where imagination starts, B * T or, with a continuation head, B * (T - 1). The latent noise is standard
    normal, one row of it for the whole batch with shared_latent_noise.
    """
    filter_key, latent_key, action_key = jax.random.split(key, 3)
    stoch, behaviour = settings.model.stoch_size, settings.behaviour
    rows = 1 if behaviour.shared_latent_noise else size
    noise = {"noise": jnp.broadcast_to(jax.random.normal(filter_key, (rows, length, stoch)), (size, length, stoch))}
    if actor is not None:
        count = size * (length - 1 if settings.model.continuation else length)
        rows = 1 if behaviour.shared_latent_noise else count
        latent = jax.random.normal(latent_key, (behaviour.horizon, rows, stoch))
        noise["latent_noise"] = jnp.broadcast_to(latent, (behaviour.horizon, count, stoch))
        noise["action_noise"] = action_noise(actor, action_key, behaviour.horizon, count)
    return noise


def action_noise(actor: Actor, key: Array, *batch: int) -> Array:
    """What Actor.sample takes: standard normal (*batch, A); uniform (*batch) for discrete actions."""
    return jax.random.uniform(key, batch) if actor.discrete else jax.random.normal(key, (*batch, actor.size))


@functools.partial(jax.jit, static_argnames=("settings", "context"))
def predict_step(
    settings: Settings, model: WorldModel, key: Array, batch: Batch, *, context: int
) -> tuple[Array, dict[str, Array]]:
    """`DreamerAgent.predict` as a pure function: the next key, and the two films."""
    key, image_key, noise_key = jax.random.split(key, 3)
    action = previous_actions(batch["action"], batch["is_first"], batch["action_before"])
    size, length = action.shape[:2]
    noise = jax.random.normal(noise_key, (size, length, settings.model.stoch_size))
    embed = model.encoder(preprocessed(settings.model, batch["image"][:, :context], image_key))
    latent = model.latent
    seen, _ = latent.observe(embed, action[:, :context], noise[:, :context], initial_state(latent, size))
    last = {name: value[:, -1] for name, value in seen.items()}
    dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
    features = jnp.concatenate([latent.features(seen), latent.features(dreamt)], 1)
    bits = settings.model.image_bits
    images = {"truth": quantise(batch["image"].astype(jnp.float32), bits), "prediction": model.decoder(features)}
    return key, {name: dequantise_uint8(image, bits) for name, image in images.items()}


def preprocessed(config: Model, image: Array, key: Array) -> Array:
    """uint8 (..., H, W, C) -> float32: levels and uniform noise within a level, drawn anew (TF1); or /255 (TF2)."""
    image = image.astype(jnp.float32)
    return quantise(image, config.image_bits, uniform(key, image.shape)) if config.dequantise else centre(image)


def grouped(loss: Loss, networks: Networks) -> dict[str, Any]:
    """The parameters, or their gradients, by optimiser: each part's, and the decoder's where the image is no
    gradient head."""
    model = networks.model
    parts = {"model": model, "actor": networks.actor, "value": networks.value}
    if "image" not in loss.gradient_heads:
        parts |= {"model": eqx.tree_at(decoder_of, model, None), "decoder": model.decoder}
    return {name: part for name, part in parts.items() if part is not None}


def ungrouped(parts: dict[str, Any]) -> Networks:
    """What `grouped` has taken apart."""
    model = parts["model"]
    if "decoder" in parts:
        model = eqx.tree_at(decoder_of, model, parts["decoder"], is_leaf=lambda part: part is None)
    return Networks(model, parts.get("actor"), parts.get("value"))


def decoder_of(model: WorldModel) -> Any:
    return model.decoder


def first_moments(settings: Settings, networks: Networks) -> dict[str, Any]:
    """Of every optimiser, before the first update."""
    parts = grouped(settings.loss, networks)
    return {name: make_optimiser(settings.optimisers, name).init(part) for name, part in parts.items()}


def make_optimiser(settings: Optimisers, name: str) -> optax.GradientTransformation:
    """One group's: clipping by its global norm, then Adam with TensorFlow's epsilon."""

    def epsilon(updates: Array) -> Array:
        # optax adds epsilon after the bias correction of v, TensorFlow before it: this makes them equal.
        return settings.epsilon / jnp.sqrt(1 - settings.beta2 ** (updates + 1))

    own = getattr(settings, name)
    adam = optax.inject_hyperparams(optax.adam)(own.learning_rate, settings.beta1, settings.beta2, eps=epsilon)
    return optax.chain(optax.clip_by_global_norm(own.clip_norm), adam)


# ---------------------------------------------------------------------------------------------------------- the method


def model_objective(
    model: WorldModel, loss: Loss, *, image: Array, action: Array, reward: Array, terminal: Array, noise: Array
) -> tuple[Array, dict[str, Array], State]:
    """What the world model minimises: the negative evidence lower bound, or the contrastive one in its place.

    A head outside loss.gradient_heads learns from constant features and teaches the latent model nothing.

    Args:
      model, loss: the WorldModel and its Loss settings.
      image: (B, T, 64, 64, 3) in [-0.5, 0.5], network input and target alike. reward: (B, T), of the row, as stored.
      action: (B, T, A), the action that LED to each row. terminal: (B, T), 1 where the world ended, else 0.
      noise: (B, T, S), standard normal.
    Returns:
      The total (); the named terms, each a mean over (B, T) in nats; the posterior states, each part (B, T, .).
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    embed = model.encoder(image)
    post, prior = model.latent.observe(embed, action, noise, initial_state(model.latent, len(action)))
    features = model.latent.features(post)
    kl = gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)  # (B, T)
    if loss.free_nats_of == "step":
        divergence = floor_nats(kl - loss.free_nats, 0.0).mean()
    else:
        divergence = floor_nats(kl.mean(), loss.free_nats)
    target = jnp.tanh(reward) if loss.reward_transform == "tanh" else reward
    seen = features if "image" in loss.gradient_heads else lax.stop_gradient(features)
    terms = {
        "image": (loss.image_scale, -gaussian_log_prob(image, model.decoder(seen), 1.0).sum((-3, -2, -1)).mean()),
        "reward": (loss.reward_scale, -gaussian_log_prob(target, model.reward(features), 1.0).mean()),
        "divergence": (loss.divergence_scale, divergence),
    }
    if model.contrastive is not None:
        bound = contrastive_bound(*model.contrastive(embed), features, contrastive_shifts(loss, *kl.shape))
        terms["contrastive"] = (loss.contrastive_scale, -bound.mean())
    if model.continuation is not None:
        target = loss.continuation_target_scale * (1 - terminal)
        terms["continuation"] = (
            loss.continuation_scale, -bernoulli_log_prob(target, model.continuation(features)).mean()
        )  # fmt: skip
    total = sum(scale * term for scale, term in terms.values())
    metrics = {f"{name}_loss": term for name, (_, term) in terms.items()}
    return total, {"loss": total, "kl": kl.mean(), **metrics}, post


def contrastive_shifts(loss: Loss, size: int, length: int) -> list[tuple[int, int]]:
    """By how much the features are shifted along batch and time to make the candidates; (0, 0) is among them."""
    if loss.contrastive_negatives == "batch":
        return [(i, 0) for i in range(size)]
    if loss.contrastive_negatives == "time":
        return [(0, i) for i in range(length)]
    batch, time = loss.contrastive_batch_shifts, loss.contrastive_time_shifts
    return [(i - batch // 2, j - time // 2) for i in range(batch) for j in range(time)]


def contrastive_bound(mean: Array, std: Array, features: Array, shifts: list[tuple[int, int]]) -> Array:
    """How much likelier the features are, given their image, than others of the batch, (B, T) in nats.

    mean, std: what the image predicts of the features, (B, T, F). The features are shifted against the prediction (the
    paper: the observations) and wrap around. Source: TF1 code, training/utility.py (compute_cpc_loss).
    """

    @jax.checkpoint  # else the gradient keeps every shift's features: a gigabyte
    def log_prob(shift: Array) -> Array:
        return gaussian_log_prob(jnp.roll(features, shift, (0, 1)), mean, std).sum(-1)

    candidates = lax.map(log_prob, jnp.asarray(shifts))  # (shifts, B, T)
    return info_nce(candidates[shifts.index((0, 0))], candidates)


def imagination_starts(model: WorldModel, post: State) -> State:
    """The states that imagination starts from, constants: each part (N, .), the batch's rows in order.

    With a continuation head the last row of each sequence is left out, which may be the end of the world.
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    last = -1 if model.continuation is not None else None
    return {name: lax.stop_gradient(x[:, :last]).reshape(-1, x.shape[-1]) for name, x in post.items()}


def imagine_behaviour(
    model: WorldModel, actor: Actor, start: State, *, action_noise: Array, latent_noise: Array
) -> tuple[Array, Array]:
    """Let the actor act in the model for H steps.

    The actor reads constant features: a gradient reaches an action through the states it led to, not through what later
    actions made of them.

    Args:
      model, actor: the networks.
      start: each part (N, .).
      action_noise: (H, N, A), or (H, N) for discrete actions: see Actor.sample. latent_noise: (H, N, S).
    Returns:
      The features AFTER each action (H, N, F), the start not among them; the actions (H, N, A).
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, tuple[Array, Array]]:
        action_noise, latent_noise = row
        action = actor.sample(lax.stop_gradient(model.latent.features(state)), action_noise)
        state = model.latent.prior(state, action, latent_noise)
        return state, (model.latent.features(state), action)

    return lax.scan(step, start, (action_noise, latent_noise))[1]


def actor_objective(
    model: WorldModel, value: Value | None, behaviour: Behaviour, features: Array
) -> tuple[Array, Array, Array]:
    """What the actor minimises: the negative imagined return, Equation 7.

    Reward and value are read at the same state. The value of the last state but one (bootstrap early) or of the last
    follows the last return. Without a value the return is the discounted sum of the rewards until the horizon.

    Args:
      model, value: their heads; value None without one. behaviour: its settings.
      features: imagined, (H, N, F).
    Returns:
      The loss (); returns and weights, each (H - 1, N), constants, as value_objective takes them (H without a value).
      Gradients flow through rewards, values, predicted discounts; not through weights.
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    reward = model.reward(features)
    if value is None:
        discount = jnp.full_like(reward, behaviour.no_value_discount)
        returns = lambda_return(reward, discount, jnp.zeros_like(reward), 1.0)
        return -returns.mean(), lax.stop_gradient(returns), jnp.ones_like(returns)
    worth = value(features)
    if model.continuation is None:
        discount = jnp.full_like(reward, behaviour.discount)
    else:
        discount = jax.nn.sigmoid(model.continuation(features))
    following = worth[1:] if behaviour.bootstrap == "last" else jnp.concatenate([worth[1:-1], worth[-2:-1]])
    returns = lambda_return(reward[:-1], discount[:-1], following, behaviour.lambda_)
    weights = lax.stop_gradient(discount_weights(discount[:-1])) if behaviour.weights else jnp.ones_like(returns)
    return -(weights * returns).mean(), lax.stop_gradient(returns), weights


def value_objective(value: Value, features: Array, returns: Array, weights: Array) -> Array:
    """What the value minimises: -log N(returns; value, 1), weighted, Equation 8; () in nats.

    features: imagined, (H, N, F), constants. returns, weights: (H - 1, N), from actor_objective.
    """
    return -(weights * gaussian_log_prob(returns, value(features[:-1]), 1.0)).mean()


def plan(model: WorldModel, planner, state: State, action_noise: Array, latent_noise: Array) -> tuple[Array, Array]:
    """PlaNet's planner, the cross-entropy method over action sequences (PlaNet, Algorithm 2).

    One rollout per candidate and iteration, all candidates of all environments in one batch. Statistics are those of
    the clipped actions; the belief starts at N(0, 1) at every decision.

    Args:
      model, planner: the WorldModel and the Planner settings.
      state: before every environment's decision, each part (N, .).
      action_noise: (I, N, J, H, A). latent_noise: (I, N * J, H, S). Standard normal.
    Returns:
      mean and std of the actions (N, H, A) after the last iteration. The plan is the mean.
    """
    num_envs, candidates = action_noise.shape[1:3]
    start = {name: jnp.repeat(value, candidates, axis=0) for name, value in state.items()}

    def iteration(belief: tuple[Array, Array], noise: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        mean, std = belief
        actions = jnp.clip(mean[:, None] + std[:, None] * noise[0], -1, 1)  # (N, J, H, A)
        returns = planned_return(model, planner, start, actions.reshape(-1, *actions.shape[2:]), noise[1])
        return refit(actions, returns.reshape(num_envs, candidates), planner.elites, std=planner.std), None

    mean = jnp.zeros((num_envs, *action_noise.shape[3:]), action_noise.dtype)
    return lax.scan(iteration, (mean, jnp.ones_like(mean)), (action_noise, latent_noise))[0]


def planned_return(model: WorldModel, planner, state: State, action: Array, noise: Array) -> Array:
    """Discounted sum of the predicted mean rewards of the states after each action, (M,).

    state: each part (M, .), action: (M, H, A), noise: (M, H, S). The published discount is 1.
    """

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, Array]:
        state = model.latent.prior(state, *row)
        return state, model.reward(model.latent.features(state))  # in here: states need not be stacked

    rewards = scan_time(step, state, (action, noise))  # (M, H)
    return (rewards * planner.discount ** jnp.arange(rewards.shape[1], dtype=rewards.dtype)).sum(1)
