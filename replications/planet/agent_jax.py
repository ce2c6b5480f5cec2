"""PlaNet's agent in JAX: fit the world model (learn), plan in it by CEM (act).

Paper: Sections 2 and 3, Algorithms 1 and 2. The twin of agent_torch.py; the functions below the class are pure, and
each of `learn`, `act` and `predict` is one compiled function of them. Read model_jax.py first.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from replications.planet.config import Config, Exploration, Loss, Model, Optimiser, Planner
from replications.planet.model_jax import State, WorldModel, imagine, initial_state
from shared.device_jax import prepare as prepare
from shared.device_jax import set_exact_arithmetic, to_numpy, uniform
from shared.errors import UserError
from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import (
    gaussian_log_prob,
    overshooting_kl,
    overshooting_mask,
    overshooting_starts,
    overshooting_windows,
)
from shared.formulas.images import dequantise_uint8, quantise
from shared.formulas.planning import refit
from shared.formulas.sequences import previous_actions
from shared.layers_jax import initialise, named_parameters, scan_time, with_parameters
from shared.training.agent import Acted, Arrays, Carry, Learned

Batch = dict[str, Array]  # rows by name, as in shared/envs/spec.py
TINY = 1e-8  # keeps a gradient of zero from dividing by zero


def unit_gaussian(target: Array, mean: Array) -> Array:
    """-log N(target; mean, 1), elementwise."""
    return -gaussian_log_prob(target, mean, 1.0)


def squared_error(target: Array, mean: Array) -> Array:
    """(target - mean)^2, elementwise: twice the gradient of unit_gaussian."""
    return jnp.square(target - mean)


COSTS = {"unit_gaussian": unit_gaussian, "squared_error": squared_error}


class Settings(NamedTuple):
    """The groups of the config that a compiled function depends on; agents of equal settings share their functions."""

    model: Model
    loss: Loss
    optimiser: Optimiser
    planner: Planner
    exploration: Exploration


class PlanetAgent:
    """World model, optimiser, planner and their one source of noise. See shared/training/agent.py for the methods."""

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        set_exact_arithmetic()
        self.config, self.act_spec, self.device = config, act_spec, device
        self.settings = Settings(config.model, config.loss, config.optimiser, config.planner, config.exploration)
        init_seed, noise_seed = (int(s.generate_state(1, np.uint32)[0]) for s in seed.spawn(2))
        with jax.default_device(jax.devices("cpu")[0]):  # on the CPU: the same weights on every device
            model = initialise(WorldModel(config.model, act_spec.size), jax.random.key(init_seed))
        self.place = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        self.model = jax.device_put(model, self.place)
        self.moments = jax.device_put(make_optimiser(config.optimiser).init(self.model), self.place)
        self.key = jax.device_put(jax.random.key(noise_seed), self.place)
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        state = initial_state(self.model.latent, num_envs)
        return {**state, "action": jnp.zeros((num_envs, self.act_spec.size))}

    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step, plan from the sampled posterior, take the plan's first action; noise only when exploring.

        Rows that end an episode get a zero action without planning: nothing will execute it.
        """
        if obs["is_last"].all():
            return Acted(np.zeros((len(obs["is_first"]), self.act_spec.size), np.float32), carry, {})
        seen = {name: obs[name] for name in ("image", "is_first")}
        carry = jax.device_put(dict(carry), self.place)  # else the first call is compiled apart from the others
        self.key, carry = act_step(self.settings, self.model, self.key, carry, seen, explore=explore)
        return Acted(np.array(carry["action"]), carry, {})

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One Adam step on the whole objective, the gradient's global norm clipped first."""
        names = ("image", "action", "action_before", "is_first", "reward")
        self.model, self.moments, self.key, metrics = learn_step(
            self.settings, self.model, self.moments, self.key, {name: batch[name] for name in names}
        )
        self.updates += 1
        return Learned(metrics, {})

    # ------------------------------------------------------------------------------------- pictures and persistence

    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8.

        Both in image_bits bits per channel, as the authors display them.
        """
        seen = {name: batch[name] for name in ("image", "action", "action_before", "is_first")}
        self.key, images = predict_step(self.settings, self.model, self.key, seen, context=context)
        return {name: np.array(image) for name, image in images.items()}

    def parameters(self) -> Arrays:
        """Name -> float32 array in torch's layouts: what the safetensors file of a run holds."""
        return {name: to_numpy(value) for name, value in named_parameters(self.model).items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimiser and noise stay as they are."""
        self.model = jax.device_put(with_parameters(self.model, parameters), self.place)

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


@functools.partial(jax.jit, static_argnames=("settings", "explore"))
def act_step(
    settings: Settings, model: WorldModel, key: Array, carry: State, obs: Batch, *, explore: bool
) -> tuple[Array, State]:
    """One decision for N environments: the next key, and the carry with the action in it, (N, A)."""
    key, image_key, post_key, plan_key, explore_key = jax.random.split(key, 5)
    num_envs = len(obs["is_first"])
    previous = {name: jnp.where(obs["is_first"][:, None], 0.0, value) for name, value in carry.items()}
    image = dequantised(obs["image"], settings.model.image_bits, image_key)
    noise = jax.random.normal(post_key, (num_envs, settings.model.stoch_size))
    state = filter_step(model, image, previous.pop("action"), previous, noise)
    action = jnp.zeros_like(carry["action"])
    if not explore or settings.exploration.collect == "planner":
        noises = planner_noise(settings, plan_key, num_envs, action.shape[-1])
        action = plan(model, settings.planner, state, **noises)[0][:, 0]
    if explore:
        action = action + settings.exploration.action_noise * jax.random.normal(explore_key, action.shape)
    return key, {**state, "action": jnp.clip(action, -1, 1)}


def filter_step(model: WorldModel, image: Array, action: Array, previous: State, noise: Array) -> State:
    """The posterior after one more image (N, H, W, C), reached from `previous` by `action` (N, A)."""
    return model.latent.posterior(previous, action, model.encoder(image), noise)[0]


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


def plan(
    model: WorldModel, settings: Planner, state: State, action_noise: Array, latent_noise: Array
) -> tuple[Array, Array]:
    """The planned actions and their spread, each (N, H, A), from a state, each part (N, .), and planner_noise."""
    start = {name: jnp.repeat(value, action_noise.shape[2], axis=0) for name, value in state.items()}
    search = {"cem": plan_by_refitting, "gradient": plan_by_gradient}[settings.method]
    return search(model, settings, start, action_noise, latent_noise)


def plan_by_refitting(
    model: WorldModel, settings: Planner, start: State, action_noise: Array, latent_noise: Array
) -> tuple[Array, Array]:
    """Algorithm 2: the cross-entropy method over action sequences.

    One rollout per candidate and iteration, all candidates of all environments in one batch. Statistics are those
    of the clipped actions; the belief starts at N(0, 1) at every decision.
    Args: the state before every candidate, each part (N * J, .); noise as from planner_noise.
    Returns: mean and std (N, H, A) after the last iteration. The plan is the mean.
    """
    num_envs, candidates = action_noise.shape[1:3]

    def iteration(belief: tuple[Array, Array], noise: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        mean, std = belief
        actions = jnp.clip(mean[:, None] + std[:, None] * noise[0], -1, 1)  # (N, J, H, A)
        returns = imagined_return(model, settings, start, actions.reshape(-1, *actions.shape[2:]), noise[1])
        return refit(actions, returns.reshape(num_envs, candidates), settings.elites, std=settings.std), None

    mean = jnp.zeros((num_envs, *action_noise.shape[3:]), action_noise.dtype)
    return lax.scan(iteration, (mean, jnp.ones_like(mean)), (action_noise, latent_noise))[0]


def plan_by_gradient(
    model: WorldModel, settings: Planner, start: State, action_noise: Array, latent_noise: Array
) -> tuple[Array, Array]:
    """Gradient ascent on the imagined return, J random starts: an extra of ours, not in the paper.

    I - 1 steps, each of root mean square step_size per candidate and clipped to the box, with fresh latent noise
    for each; the last imagination only chooses the best candidate. Arguments and result as plan_by_refitting.
    """

    def total(actions: Array, noise: Array) -> Array:
        return imagined_return(model, settings, start, actions, noise).sum()

    def iteration(actions: Array, noise: Array) -> tuple[Array, None]:
        slope = jax.grad(total)(actions, noise)
        size = jnp.sqrt(jnp.square(slope).mean((1, 2), keepdims=True))
        return jnp.clip(actions + settings.step_size * slope / (size + TINY), -1, 1), None

    actions = jnp.clip(action_noise[0].reshape(-1, *action_noise.shape[3:]), -1, 1)  # (N * J, H, A)
    actions = lax.scan(iteration, actions, latent_noise[:-1])[0]
    returns = imagined_return(model, settings, start, actions, latent_noise[-1])
    actions = actions.reshape(action_noise.shape[1:])
    best = returns.reshape(actions.shape[:2]).argmax(1)
    mean = actions[jnp.arange(len(best)), best]
    return mean, jnp.zeros_like(mean)


def imagined_return(model: WorldModel, settings: Planner, state: State, action: Array, noise: Array) -> Array:
    """Discounted sum of the predicted mean rewards of the states after each action, (M,).

    state: each part (M, .), action: (M, H, A), noise: (M, H, S). The published discount is 1.
    """

    def step(state: State, row: tuple[Array, Array]) -> tuple[State, Array]:
        state = model.latent.prior(state, *row)
        return state, model.reward(model.latent.features(state))  # in here: states need not be stacked, a sixth faster

    rewards = scan_time(step, state, (action, noise))  # (M, H)
    return (rewards * settings.discount ** jnp.arange(rewards.shape[1], dtype=rewards.dtype)).sum(1)


@functools.partial(jax.jit, static_argnames="settings", donate_argnames=("model", "moments", "key"))
def learn_step(
    settings: Settings, model: WorldModel, moments: Any, key: Array, batch: Batch
) -> tuple[WorldModel, Any, Array, dict[str, Array]]:
    """One update: the new model, moments and key, and the named terms of the objective."""
    key, image_key, noise_key = jax.random.split(key, 3)
    data = entries(batch, settings.loss.alignment)
    data["image"] = dequantised(data["image"], settings.model.image_bits, image_key)
    noise = model_noise(settings, noise_key, *data["reward"].shape)
    grads, metrics = gradients(model, settings.loss, **data, **noise)
    model, moments, norm = update(settings.optimiser, model, moments, grads)
    return model, moments, key, {**metrics, "grad_norm": norm}


def gradients(model: WorldModel, loss: Loss, **inputs: Array) -> tuple[WorldModel, dict[str, Array]]:
    """The gradient of the objective, shaped like the model, and the objective's named terms."""
    return jax.grad(objective, has_aux=True)(model, loss, **inputs)


def update(settings: Optimiser, model: WorldModel, moments: Any, grads: WorldModel) -> tuple[WorldModel, Any, Array]:
    """Clip and apply the gradient: the new model and moments, and the global norm before clipping, ()."""
    changes, moments = make_optimiser(settings).update(grads, moments, model)
    return optax.apply_updates(model, changes), moments, optax.tree.norm(grads)


def model_noise(settings: Settings, key: Array, size: int, length: int) -> dict[str, Array]:
    """Standard normal: noise (B, T, S), and overshooting_noise (B, T, D + 1, S) where overshooting is on."""
    key, overshooting_key = jax.random.split(key)
    stoch, loss = settings.model.stoch_size, settings.loss
    noise = {"noise": jax.random.normal(key, (size, length, stoch))}
    if loss.overshoots:
        shape = (size, length, loss.overshooting_distance + 1, stoch)
        noise["overshooting_noise"] = jax.random.normal(overshooting_key, shape)
    return noise


@functools.partial(jax.jit, static_argnames=("settings", "context"))
def predict_step(
    settings: Settings, model: WorldModel, key: Array, batch: Batch, *, context: int
) -> tuple[Array, dict[str, Array]]:
    """`PlanetAgent.predict` as a pure function: the next key, and the two films."""
    key, image_key, noise_key = jax.random.split(key, 3)
    action = previous_actions(batch["action"], batch["is_first"], batch["action_before"])
    size, length = action.shape[:2]
    noise = jax.random.normal(noise_key, (size, length, settings.model.stoch_size))
    bits = settings.model.image_bits
    embed = model.encoder(dequantised(batch["image"][:, :context], bits, image_key))
    latent = model.latent
    seen, _ = latent.observe(embed, action[:, :context], noise[:, :context], initial_state(latent, size))
    last = {name: value[:, -1] for name, value in seen.items()}
    dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
    features = jnp.concatenate([latent.features(seen), latent.features(dreamt)], 1)
    images = {"truth": quantise(batch["image"].astype(jnp.float32), bits), "prediction": model.decoder(features)}
    return key, {name: dequantise_uint8(image, bits) for name, image in images.items()}


def dequantised(image: Array, bits: int, key: Array) -> Array:
    """uint8 (..., H, W, C) -> float32 in [-0.5, 0.5): fewer bits, then uniform noise within a level, drawn anew."""
    return quantise(image.astype(jnp.float32), bits, uniform(key, image.shape))


def entries(rows: Batch, alignment: str) -> Batch:
    """What the objective takes from replayed rows: image, the action that led to it, and the reward to predict.

    arriving: row t's own reward and the stored action before it, (B, T, ...) from (B, T, ...).
    leaving: the reward of the step that leaves row t, which row t + 1 holds, and no action before the chunk: (B, T - 1,
      ...). Source: code, the two older states; README.md, "Three states of the code".
    """
    image, reward = rows["image"], rows["reward"]
    if alignment == "arriving":
        before = previous_actions(rows["action"], rows["is_first"], rows["action_before"])
        return {"image": image, "action": before, "reward": reward}
    before = previous_actions(rows["action"], rows["is_first"])
    return {"image": image[:, :-1], "action": before[:, :-1], "reward": reward[:, 1:]}


def make_optimiser(settings: Optimiser) -> optax.GradientTransformation:
    """Clipping by the global norm, then Adam over all parameters with TensorFlow's epsilon."""

    def learning_rate(updates: Array) -> Array:
        return settings.learning_rate * jnp.minimum(updates * (1 / settings.ramp_updates), 1.0)

    def epsilon(updates: Array) -> Array:
        # optax adds epsilon after the bias correction of v, TensorFlow before it: this makes them equal.
        return settings.epsilon / jnp.sqrt(1 - settings.beta2 ** (updates + 1))

    rate = learning_rate if settings.ramp_updates else settings.learning_rate
    adam = optax.inject_hyperparams(optax.adam)(rate, settings.beta1, settings.beta2, eps=epsilon)
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def objective(model, loss, *, image, action, reward, noise, overshooting_noise=None) -> tuple[Array, dict[str, Array]]:
    """What PlaNet minimises: Equation 3 with free nats, and the terms weighted (the paper: the reward by 10).

    Args:
      model, loss: the WorldModel and its Loss settings.
      image: (B, T, 64, 64, 3) in [-0.5, 0.5), network input and target alike. reward: (B, T), to predict from each row.
      action: (B, T, A), the action that LED to each row. noise: (B, T, S), standard normal.
      overshooting_noise: (B, T, D + 1, S), or None without overshooting.
    Returns: the total (), and the named terms, each a mean over (B, T) in nats (squared_error: squared units).
    Source: code, training/utility.py, compute_objectives.
    """
    post, prior = model.latent.observe(model.encoder(image), action, noise, initial_state(model.latent, len(action)))
    features = model.latent.features(post)
    kl = gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)  # (B, T)
    removed = 0.0 if loss.keep_free_nats else loss.free_nats
    cost = COSTS[loss.likelihood]
    terms = {
        "image": (loss.image_scale, cost(image, model.decoder(features)).sum((-3, -2, -1)).mean()),
        "reward": (loss.reward_scale, cost(reward, model.reward(features)).mean()),
        "divergence": (loss.divergence_scale, (floor_nats(kl, loss.free_nats) - removed).mean()),  # clipped per entry
    }
    if loss.global_prior_scale > 0:
        spread = gaussian_kl(post["mean"], post["std"], 0.0, 1.0).sum(-1)
        terms["global_prior"] = (loss.global_prior_scale, spread.mean())
    if loss.overshoots:
        kl_ahead, reward_ahead = overshooting(model, loss, post, action, reward, overshooting_noise)
        terms["overshooting"] = (loss.overshooting_scale, kl_ahead)
        terms["overshooting_reward"] = (loss.overshooting_reward_scale, reward_ahead)
    total = sum(scale * term for scale, term in terms.values() if scale > 0)
    metrics = {f"{name}_loss": term for name, (_, term) in terms.items()}
    return total, {"loss": total, "kl": kl.mean(), **metrics}


def overshooting(
    model, loss, post: State, action: Array, reward: Array, noise: Array
) -> tuple[Array, Array]:
    """Latent overshooting, Equation 7: the divergence and the reward loss of open-loop predictions, each () in nats.

    From the posterior before every row the prior is rolled over D + 1 actions; the posteriors reached are constants (no
    gradient), the starting states are not. Entries beyond the end of the sequence count 0. overshooting_mean all:
    predictions of 2 .. D steps, mean over all entries; valid: of 2 .. D + 1 steps, over those inside the sequence.
    Source: code, training/utility.py, tools/overshooting.py (last commit; first release).
    """
    size, length, steps = noise.shape[:3]
    distance = steps - 1

    def flat(x: Array) -> Array:
        return x.reshape(size * length, *x.shape[2:])

    def unflat(x: Array) -> Array:
        return x.reshape(size, length, *x.shape[1:])

    start = {name: flat(overshooting_starts(value)) for name, value in post.items()}
    actions = flat(overshooting_windows(action, distance))  # (B * T, D + 1, A)
    rolled = imagine(model.latent, start, actions, flat(noise))
    mean, std = (unflat(rolled[name]) for name in ("mean", "std"))  # (B, T, D + 1, S)
    mask = overshooting_mask(length, distance, jnp.full((size,), length))
    post_mean, post_std = lax.stop_gradient((post["mean"], post["std"]))
    kl = overshooting_kl(post_mean, post_std, mean, std, mask, loss.free_nats)
    if loss.keep_free_nats:
        kl = kl + loss.free_nats * mask
    ahead = slice(1, -1 if loss.overshooting_mean == "all" else None)
    entries = mask[:, :, ahead].size if loss.overshooting_mean == "all" else mask[:, :, ahead].sum()
    miss = jnp.zeros_like(kl)
    if loss.overshooting_reward_scale > 0:
        predicted = unflat(model.reward(model.latent.features(rolled)))
        miss = COSTS[loss.likelihood](overshooting_windows(reward, distance), predicted)
        miss = jnp.where(mask, miss, 0.0)
    return kl[:, :, ahead].sum() / entries, miss[:, :, ahead].sum() / entries
