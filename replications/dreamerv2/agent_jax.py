"""DreamerV2's agent in JAX: fit the world model, and in it, by imagination, an actor and a critic (learn); act.

Paper: Section 2, Algorithm 1. The twin of agent_torch.py; the functions below the class are pure, and each of `learn`,
`act` and `predict` is one compiled function of them. Those at the end, from `model_objective` on, are the method. Read
model_jax.py first.
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

from replications.dreamerv2.config import Behaviour, Config, Loss, Model, Optimisers
from replications.dreamerv2.model_jax import Actor, Critic, State, WorldModel, imagine, initial_state
from shared.device_jax import prepare as prepare
from shared.device_jax import set_exact_arithmetic, to_numpy
from shared.errors import UserError
from shared.formulas.divergences import balanced, categorical_kl, floor_nats, gaussian_kl
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob
from shared.formulas.images import centre
from shared.formulas.normalization import ema
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.sampling import categorical_sample
from shared.formulas.schedules import linear
from shared.formulas.sequences import previous_actions, reset_where_first
from shared.layers_jax import initialise, named_parameters, with_parameters
from shared.training.agent import Acted, Arrays, Carry, Learned

Batch = dict[str, Array]  # rows by name, as in shared/envs/spec.py
LEARNERS = ("model", "actor", "critic")  # each with its own Adam; the target critic is only ever copied to
WHITE = 255


class Settings(NamedTuple):
    """The groups of the config that a compiled function depends on; agents of equal settings share their functions."""

    model: Model
    loss: Loss
    behaviour: Behaviour
    optimisers: Optimisers


class Now(NamedTuple):
    """The numbers of an update that the updates before it decide."""

    mix: float  # of the actor's two gradients, as actor_objective takes it
    entropy_scale: float
    target_share: float  # how far the target critic moves to the critic afterwards


class Networks(eqx.Module):
    """All parameters of an agent."""

    model: WorldModel
    actor: Actor
    critic: Critic
    target_critic: Critic

    @classmethod
    def make(cls, config: Config, obs_spec, act_spec) -> "Networks":
        """Networks of zeros for a config."""
        model = WorldModel(config.model, obs_spec["image"].shape[-1], act_spec.size)
        features = model.latent.feature_size
        actor = Actor(config.model, config.behaviour, features, act_spec)
        return cls(model, actor, Critic(config.model, features), Critic(config.model, features))


class DreamerV2Agent:
    """World model, actor, critic and its slow copy, their optimisers and one source of noise.

    See shared/training/agent.py. The target critic starts from first values of its own and becomes a copy of the critic
    with the end of the first update.
    """

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        set_exact_arithmetic()
        self.config, self.act_spec, self.device = config, act_spec, device
        self.settings = Settings(**{name: getattr(config, name) for name in Settings._fields})
        init_seed, noise_seed = (int(s.generate_state(1, np.uint32)[0]) for s in seed.spawn(2))
        with jax.default_device(jax.devices("cpu")[0]):  # on the CPU: the same weights on every device
            networks = initialise(Networks.make(config, obs_spec, act_spec), jax.random.key(init_seed))
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
        """Filter one step; training episodes draw from the policy at the sampled posterior, others take its mode.

        Rows that end an episode get a zero action where all do: nothing will execute it.
        """
        num_envs = len(obs["is_first"])
        if obs["is_last"].all():
            return Acted(np.zeros((num_envs, self.act_spec.size), np.float32), carry, {})
        if explore and self.config.exploration.policy == "random":
            self.key, action = random_step(self.networks.actor, self.key, num_envs)
            return Acted(np.array(action), carry, {})
        seen = {name: obs[name] for name in ("image", "is_first")}
        carry = jax.device_put(dict(carry), self.place)  # else act_step is compiled anew for zeros, and for NumPy's
        self.key, carry = act_step(self.settings, self.networks, self.key, carry, seen, explore=explore)
        return Acted(np.array(carry["action"]), carry, {})

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One update: a step of the world model, then, in the updated model, one of the actor and one of the critic.

        A chunk starts from the zero state, and the action that led to its first row is unknown to it: zero.
        """
        rows = {name: batch[name] for name in ("image", "action", "is_first", "reward", "is_terminal")}
        now = self.now()
        self.networks, self.moments, self.key, metrics = learn_step(
            self.settings, self.networks, self.moments, self.key, rows, now,
            constant_actions=self.actions_are_constants(now.mix),
        )  # fmt: skip
        self.updates += 1
        return Learned(metrics, {})

    def now(self) -> Now:
        """Where this update stands in the run."""
        share = target_share(self.config.behaviour, self.updates)
        return Now(self.ramp("gradient_mix"), self.ramp("entropy"), share)

    def actions_are_constants(self, mix: float) -> bool:
        """Whether the actor's loss has no path through imagined actions, so that imagination needs no gradient."""
        behaviour, discrete = self.config.behaviour, self.act_spec.discrete
        if behaviour.actor_gradient == "reinforce":
            return discrete or behaviour.stop_action
        return behaviour.actor_gradient == "both" and discrete and mix == 0

    def ramp(self, name: str) -> float:
        """Where a ramp of the behaviour stands at this update."""
        ramp = getattr(self.config.behaviour, name)
        return linear(self.config.env_steps(self.updates), ramp.start, ramp.end, ramp.over_env_steps)

    # ------------------------------------------------------------------------------------- pictures and persistence

    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8."""
        seen = {name: batch[name] for name in ("image", "action", "is_first")}
        self.key, prediction = predict_step(self.settings, self.networks.model, self.key, seen, context=context)
        return {"truth": np.array(batch["image"]), "prediction": np.array(prediction)}

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
    settings: Settings, networks: Networks, key: Array, carry: State, obs: Batch, *, explore: bool
) -> tuple[Array, State]:
    """One decision for N environments: the next key, and the carry with the action in it, (N, A)."""
    key, latent_key, action_key = jax.random.split(key, 3)
    model, actor, num_envs = networks.model, networks.actor, len(obs["image"])
    previous = {name: reset_where_first(value, obs["is_first"]) for name, value in carry.items()}
    led_here, noise = previous.pop("action"), latent_noise(settings.model, latent_key, num_envs)
    state, _ = model.latent.posterior(previous, led_here, model.encoder(preprocessed(obs["image"])), noise)
    features = model.latent.features(state)
    action = actor.sample(features, action_noise(actor, action_key, num_envs)) if explore else actor.mode(features)
    return key, {**state, "action": action}


@functools.partial(jax.jit, static_argnames="num_envs")
def random_step(actor: Actor, key: Array, num_envs: int) -> tuple[Array, Array]:
    """The next key, and actions uniform over the classes or over the box, (N, A): the ablation of random data."""
    key, noise_key = jax.random.split(key)
    noise = action_noise(actor, noise_key, num_envs)
    return key, categorical_sample(jnp.ones((num_envs, actor.size)), noise) if actor.discrete else 2 * noise - 1


# ------------------------------------------------------------------------------------------------------------ learning


@functools.partial(
    jax.jit, static_argnames=("settings", "constant_actions"), donate_argnames=("networks", "moments", "key")
)
def learn_step(
    settings: Settings, networks: Networks, moments: Any, key: Array, batch: Batch, now: Now, *, constant_actions: bool
) -> tuple[Networks, Any, Array, dict[str, Array]]:
    """One update: the new networks, moments and key, and the named losses and norms of gradients."""
    key, noise_key = jax.random.split(key)
    inputs = {
        "image": preprocessed(batch["image"]),
        "action": previous_actions(batch["action"], batch["is_first"]),
        "reward": batch["reward"],
        "discount": settings.behaviour.discount * (~batch["is_terminal"]).astype(jnp.float32),
    }
    noise = learning_noise(settings, networks, noise_key, *batch["reward"].shape)
    networks, moments, metrics = update(
        settings, networks, moments, now, constant_actions=constant_actions, **inputs, **noise
    )
    return networks, moments, key, metrics


def update(
    settings: Settings,
    networks: Networks,
    moments: dict[str, Any],
    now: Now,
    *,
    constant_actions: bool,
    discount: Array,
    action_noise: Array,
    imagined_noise: Array,
    **inputs: Array,
) -> tuple[Networks, dict[str, Any], dict[str, Array]]:
    """One update from the inputs of model_objective and the noise of imagine_behaviour. The named losses and norms.

    Imagination starts from the posterior states before the model's step. The targets, both losses and the baseline
    are of the actor, critic and target critic before theirs.
    """

    def explain(model: WorldModel) -> tuple[Array, tuple[dict[str, Array], State]]:
        total, *rest = model_objective(model, settings.loss, discount=discount, **inputs)
        return total, rest

    model, actor, critic, target_critic = (getattr(networks, name) for name in (*LEARNERS, "target_critic"))
    grads, (metrics, post) = jax.grad(explain, has_aux=True)(model)
    model, *model_step = step(settings.optimisers, "model", model, moments["model"], grads)
    starts = imagination_starts(model, settings.behaviour, {**post, "discount": discount})
    (actor_grads, critic_grads), losses = behaviour_gradients(
        settings, Networks(model, actor, critic, target_critic), starts, now, constant_actions=constant_actions,
        action_noise=action_noise, latent_noise=imagined_noise,
    )  # fmt: skip
    actor, *actor_step = step(settings.optimisers, "actor", actor, moments["actor"], actor_grads)
    critic, *critic_step = step(settings.optimisers, "critic", critic, moments["critic"], critic_grads)
    target_critic = jax.tree.map(lambda slow, fast: ema(slow, fast, now.target_share), target_critic, critic)
    moments, norms = zip(model_step, actor_step, critic_step, strict=True)
    metrics |= losses | {f"{name}_grad_norm": norm for name, norm in zip(LEARNERS, norms, strict=True)}
    return Networks(model, actor, critic, target_critic), dict(zip(LEARNERS, moments, strict=True)), metrics


def behaviour_gradients(
    settings: Settings, networks: Networks, starts: State, now: Now, *, constant_actions: bool, **noise: Array
) -> tuple[tuple[Actor, Critic], dict[str, Array]]:
    """The gradients of actor and critic, shaped like them, and the losses by name.

    starts: from imagination_starts. noise: as for imagine_behaviour.
    """
    model, target_critic, behaviour = networks.model, networks.target_critic, settings.behaviour
    start_discount = starts["discount"]
    starts = {name: value for name, value in starts.items() if name != "discount"}

    def imagined(actor: Actor) -> tuple[Array, ...]:
        features, actions = imagine_behaviour(model, actor, starts, **noise)
        return features, actions, *imagined_rewards(model, behaviour, features, start_discount)

    constant = imagined(networks.actor) if constant_actions else None

    def losses(learners: tuple[Actor, Critic]) -> tuple[Array, dict[str, Array]]:
        actor, critic = learners
        trajectory = imagined(actor) if constant is None else constant
        actor_loss, critic_loss, metrics = behaviour_objectives(
            actor, critic, target_critic, behaviour, *trajectory, mix=now.mix, entropy_scale=now.entropy_scale
        )
        return actor_loss + critic_loss, metrics  # no parameter is in both

    return jax.grad(losses, has_aux=True)((networks.actor, networks.critic))


def step(settings: Optimisers, name: str, part: Any, moments: Any, grads: Any) -> tuple[Any, Any, Array]:
    """Clip and apply one learner's gradient: weight decay, then Adam. The part, its moments, the norm before clipping.

    All but the norm, (), are shaped as before.
    """
    changes, moments = make_optimiser(settings, name).update(grads, moments, part)
    return optax.apply_updates(part, changes), moments, optax.tree.norm(grads)


def target_share(behaviour: Behaviour, updates: int) -> float:
    """How far the target critic moves to the critic: every so many updates by a fraction, with the first fully."""
    if updates % behaviour.target_every:
        return 0.0
    return behaviour.target_fraction if updates else 1.0


def learning_noise(settings: Settings, networks: Networks, key: Array, size: int, length: int) -> dict[str, Array]:
    """Of the filter: noise (B, T, S). Of imagination: imagined_noise (H, N, S), action_noise as the actor's.

    N: where imagination starts, B * T or B * (T - 1); see imagination_starts.
    """
    filter_key, imagined_key, action_key = jax.random.split(key, 3)
    horizon = settings.behaviour.horizon
    count = size * (length - spared_rows(networks.model, settings.behaviour))
    return {
        "noise": latent_noise(settings.model, filter_key, size, length),
        "imagined_noise": latent_noise(settings.model, imagined_key, horizon, count),
        "action_noise": action_noise(networks.actor, action_key, horizon, count),
    }


def latent_noise(config: Model, key: Array, *batch: int) -> Array:
    """What the latent model takes, (*batch, S): uniform for categoricals, standard normal for Gaussians."""
    draw = jax.random.uniform if config.latents == "categorical" else jax.random.normal
    return draw(key, (*batch, config.stoch_size))


def action_noise(actor: Actor, key: Array, *batch: int) -> Array:
    """What Actor.sample takes: uniform, (*batch) for discrete actions, (*batch, A) for continuous ones."""
    return jax.random.uniform(key, batch if actor.discrete else (*batch, actor.size))


@functools.partial(jax.jit, static_argnames=("settings", "context"))
def predict_step(
    settings: Settings, model: WorldModel, key: Array, batch: Batch, *, context: int
) -> tuple[Array, Array]:
    """`DreamerV2Agent.predict` as a pure function: the next key, and the film that is predicted."""
    key, noise_key = jax.random.split(key)
    action = previous_actions(batch["action"], batch["is_first"])
    size, length = action.shape[:2]
    noise, latent = latent_noise(settings.model, noise_key, size, length), model.latent
    embed = model.encoder(preprocessed(batch["image"][:, :context]))
    seen, _ = latent.observe(embed, action[:, :context], noise[:, :context], initial_state(latent, size))
    last = {name: value[:, -1] for name, value in seen.items()}
    dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
    features = jnp.concatenate([latent.features(seen), latent.features(dreamt)], 1)
    return key, jnp.clip(jnp.round((model.decoder(features) + 0.5) * WHITE), 0, WHITE).astype(jnp.uint8)


def preprocessed(image: Array) -> Array:
    """uint8 (..., H, W, C) -> float32 in [-0.5, 0.5]."""
    return centre(image.astype(jnp.float32))


def first_moments(settings: Settings, networks: Networks) -> dict[str, Any]:
    """Of every optimiser, before the first update."""
    return {name: make_optimiser(settings.optimisers, name).init(getattr(networks, name)) for name in LEARNERS}


def make_optimiser(settings: Optimisers, name: str) -> optax.GradientTransformation:
    """One learner's: clipping by the global norm, Adam with Keras' epsilon, and a decay whatever the learning rate."""

    def epsilon(updates: Array) -> Array:
        # optax adds epsilon after the bias correction of v, Keras before it: this makes them equal.
        return settings.epsilon / jnp.sqrt(1 - settings.beta2 ** (updates + 1))

    own = getattr(settings, name)
    return optax.chain(
        optax.clip_by_global_norm(own.clip_norm),
        optax.inject_hyperparams(optax.adam)(own.learning_rate, settings.beta1, settings.beta2, eps=epsilon),
        optax.add_decayed_weights(-settings.weight_decay),  # after the learning rate, so it takes no part in it
    )


# ---------------------------------------------------------------------------------------------------------- the method


def model_objective(
    model: WorldModel, loss: Loss, *, image: Array, action: Array, reward: Array, discount: Array, noise: Array
) -> tuple[Array, dict[str, Array], State]:
    """What the world model minimises, Equation 2: the negative evidence lower bound, its KL balanced.

    A head outside loss.gradient_heads learns from constant features and teaches the latent model nothing.

    Args:
      model, loss: the WorldModel and its Loss settings.
      image: (B, T, 64, 64, C) in [-0.5, 0.5], network input and target alike. reward: (B, T), of the row, as stored.
      action: (B, T, A), the action that LED to each row. discount: (B, T), gamma, 0 where the world ended.
      noise: (B, T, S), uniform, or standard normal for Gaussian latents.
    Returns:
      The total (); the named terms, each a mean over (B, T) in nats; the posterior states, each part (B, T, ...).
    Source: code, agent.py:105-134.
    """
    post, prior = model.latent.observe(model.encoder(image), action, noise, initial_state(model.latent, len(action)))
    features = model.latent.features(post)
    seen = {name: features if name in loss.gradient_heads else lax.stop_gradient(features) for name in HEAD_NAMES}
    target = jnp.tanh(reward) if loss.reward_transform == "tanh" else reward
    image_log_prob = gaussian_log_prob(image, model.decoder(seen["image"]), 1.0).sum((-3, -2, -1))
    kl, divergence = model_divergence(loss, post, prior)
    terms = {
        "image": (loss.image_scale, -image_log_prob.mean()),
        "reward": (loss.reward_scale, -gaussian_log_prob(target, model.reward(seen["reward"]), 1.0).mean()),
        "divergence": (loss.divergence_scale, divergence),
    }
    if model.discount is not None:
        likely = bernoulli_log_prob(discount, model.discount(seen["discount"]))
        terms["discount"] = (loss.discount_scale, -likely.mean())
    total = sum(scale * term for scale, term in terms.values())
    metrics = {f"{name}_loss": term for name, (_, term) in terms.items()}
    return total, {"loss": total, "kl": kl.mean(), **metrics}, post


def model_divergence(loss: Loss, post: State, prior: State) -> tuple[Array, Array]:
    """The KL between posterior and prior, (B, T), and the scalar that the world model minimises, both in nats.

    The prior learns loss.kl_balance of it and the posterior the rest. A balance of 0.5 is a case of its own: nothing is
    stopped, so both learn all of it, and every time step has its free nats. Source: code, common/nets.py:162-180.
    """
    names = ("logit",) if "logit" in post else ("mean", "std")
    divergence_of = categorical_kl if "logit" in post else gaussian_kl

    def floored(p: tuple[Array, ...], q: tuple[Array, ...]) -> Array:
        kl = divergence_of(*p, *q).sum(-1)
        if loss.free_nats_of == "mean" and loss.kl_balance != 0.5:
            return floor_nats(kl.mean(), loss.free_nats)
        return floor_nats(kl, loss.free_nats).mean()

    p, q = (tuple(state[name] for name in names) for state in (post, prior))
    divergence = floored(p, q) if loss.kl_balance == 0.5 else balanced(floored, p, q, loss.kl_balance)
    return lax.stop_gradient(divergence_of(*p, *q).sum(-1)), divergence


HEAD_NAMES = ("image", "reward", "discount")


def spared_rows(model: WorldModel, behaviour: Behaviour) -> int:
    """Rows at the end of a chunk that no imagination starts from."""
    return int(behaviour.starts == "but_last" and model.discount is not None)


def imagination_starts(model: WorldModel, behaviour: Behaviour, rows: State) -> State:
    """Where imagination starts, constants: each part (B, T, ...) as (N, ...), the batch's rows in order."""
    length = rows["belief"].shape[1] - spared_rows(model, behaviour)
    rows = {name: lax.stop_gradient(value[:, :length]) for name, value in rows.items()}
    return {name: value.reshape(-1, *value.shape[2:]) for name, value in rows.items()}


def imagine_behaviour(
    model: WorldModel, actor: Actor, start: State, *, action_noise: Array, latent_noise: Array
) -> tuple[Array, Array]:
    """Let the actor act in the model for H steps.

        row        0       1      ...    H - 1     H
        feature    start   s_1           s_{H-1}   s_H
        action     a_0     a_1           a_{H-1}             chosen in the row's state, leads to the next

    The actor reads constant features: a gradient reaches an action through the states it led to, not through what later
    actions made of them.

    Args:
      model, actor: the networks.
      start: each part (N, ...).
      action_noise: (H, N), or (H, N, A) for continuous actions: see Actor.sample. latent_noise: (H, N, S).
    Returns:
      The features (H + 1, N, F), the start's first; the actions (H, N, A).
    Source: code, agent.py:136-164.
    """

    def advance(state: State, row: tuple[Array, Array]) -> tuple[State, tuple[Array, Array]]:
        action_noise, latent_noise = row
        action = actor.sample(lax.stop_gradient(model.latent.features(state)), action_noise)
        state = model.latent.prior(state, action, latent_noise)
        return state, (model.latent.features(state), action)

    features, actions = lax.scan(advance, start, (action_noise, latent_noise))[1]
    return jnp.concatenate([model.latent.features(start)[None], features]), actions


def imagined_rewards(
    model: WorldModel, behaviour: Behaviour, features: Array, start_discount: Array
) -> tuple[Array, Array]:
    """Reward and discount of imagined states, each (H + 1, N): of the state itself, not of the one it leads to.

    start_discount: of the replayed rows that imagination starts from, (N,); gamma, 0 where the world ended. The head's
    discounts hold gamma already. Without a head every discount is gamma.
    """
    reward = model.reward(features)
    if model.discount is None:
        return reward, jnp.full_like(reward, behaviour.discount)
    discount = jax.nn.sigmoid(model.discount(features))
    if behaviour.start_discount == "replayed":
        discount = jnp.concatenate([start_discount[None], discount[1:]])
    return reward, discount


def imagined_returns(behaviour: Behaviour, reward: Array, discount: Array, value: Array) -> tuple[Array, Array]:
    """Returns of all states but the last, and what share of them is left when the trajectory is there: each (H, N).

    reward, discount, value: (H + 1, N), the value by the target critic. Gradients flow through the returns, Equation 4,
    to all three; weights are constants. Source: code, agent.py:229-334.
    """
    returns = lambda_return(reward[:-1], discount[:-1], value[1:], behaviour.lambda_)
    return returns, lax.stop_gradient(discount_weights(discount[:-1]))


def behaviour_objectives(
    actor: Actor,
    critic: Critic,
    target_critic: Critic,
    behaviour: Behaviour,
    features: Array,
    actions: Array,
    reward: Array,
    discount: Array,
    *,
    mix: float,
    entropy_scale: float,
) -> tuple[Array, Array, dict[str, Array]]:
    """The losses of actor and critic, each (), from one imagined trajectory, and what to record of it.

    features (H + 1, N, F), actions (H, N, A), reward and discount (H + 1, N); mix and entropy_scale as actor_objective.
    """
    slow, value = target_critic(features), critic(lax.stop_gradient(features[:-1]))
    returns, weights = imagined_returns(behaviour, reward, discount, slow)
    baseline = lax.stop_gradient(slow[:-1] if behaviour.baseline == "target" else value)
    trajectory = (features, actions, returns, weights, baseline)
    actor_loss, entropy = actor_objective(actor, behaviour, *trajectory, mix=mix, entropy_scale=entropy_scale)
    critic_loss = critic_objective(value, returns, weights)
    metrics = {
        "actor_loss": actor_loss,
        "critic_loss": critic_loss,
        "actor_entropy": entropy,
        "imagined_return": returns.mean(),
    }
    return actor_loss, critic_loss, metrics


def actor_objective(
    actor: Actor,
    behaviour: Behaviour,
    features: Array,
    actions: Array,
    returns: Array,
    weights: Array,
    baseline: Array,
    *,
    mix: float,
    entropy_scale: float,
) -> tuple[Array, Array]:
    """What the actor minimises, Equation 6: the negative return and entropy.

        row t      pi(a_t | s_t)   v(s_t)   w_t   R_t        of the paper and OLD, t = 0 .. H - 1
                   pi(a_t | s_t)   v(s_t)   w_t   R_{t+1}    shifted (HEAD), t = 0 .. H - 2

    reinforce: log pi(a_t) times what the return exceeds the baseline by, a constant (with stop_action the action too);
    dynamics: the return, whose gradient comes through the model; both: (1 - mix) of the former, the action never
    stopped, and mix of the latter.

    Args:
      actor, behaviour: the Actor and the Behaviour settings.
      features: (H + 1, N, F). actions: (H, N, A), chosen there. returns, weights: (H, N), from imagined_returns.
      baseline: v(s_t), (H, N), a constant.
      mix, entropy_scale: where their ramps stand.
    Returns:
      The loss (), and the mean entropy of the policy in nats, ().
    Source: code, agent.py:252-310; OLD/models.py:197-252.
    """
    rows = len(returns) - int(behaviour.shifted)
    paid = returns[int(behaviour.shifted) :]
    constant = behaviour.actor_gradient == "reinforce" and behaviour.stop_action
    chosen = lax.stop_gradient(actions) if constant else actions
    log_prob, entropy = actor.judge(lax.stop_gradient(features[:rows]), chosen[:rows])
    reinforce = log_prob * lax.stop_gradient(paid - baseline[:rows])
    gains = {"reinforce": reinforce, "dynamics": paid, "both": mix * paid + (1 - mix) * reinforce}
    gain = gains[behaviour.actor_gradient]
    return -(weights[:rows] * (gain + entropy_scale * entropy)).mean(), entropy.mean()


def critic_objective(value: Array, returns: Array, weights: Array) -> Array:
    """What the critic minimises, Equation 5: -log N(returns; value, 1), weighted; () in nats.

    value: v(s_t) of constant features, returns and weights: constants, all (H, N).
    """
    return -(weights * gaussian_log_prob(lax.stop_gradient(returns), value, 1.0)).mean()
