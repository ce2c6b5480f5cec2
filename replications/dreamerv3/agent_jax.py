"""DreamerV3's agent in JAX: the world model, and in it, by imagination, an actor and a critic, learned in one step.

Paper: Methods. The twin of agent_torch.py; the functions below the class are pure, and each of `learn`, `act` and
`predict` is one compiled function of them. What is learned stands in objectives_jax.py, which is to be read first, and
how in optimisers_jax.py.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from replications.dreamerv3.config import FLAGS, LEARNERS, Batch, Behaviour, Config, Loss, Model, Optimisers, Size
from replications.dreamerv3.latent_jax import State, imagine
from replications.dreamerv3.layers_jax import exact, filled, initialise
from replications.dreamerv3.model_jax import Actor, Critic, WorldModel, image_keys
from replications.dreamerv3.objectives_jax import (
    behaviour_objectives,
    continuation_target,
    imagination_starts,
    imagine_behaviour,
    imagined_rewards,
    model_objective,
    replay_value_objective,
    through_model,
)
from replications.dreamerv3.optimisers_jax import first_moments, step
from shared.device_jax import prepare as prepare
from shared.device_jax import set_exact_arithmetic, to_numpy
from shared.envs.spec import ArraySpec, ObsSpec
from shared.errors import UserError
from shared.formulas.normalization import ema
from shared.formulas.sequences import previous_actions, reset_where_first
from shared.layers_jax import named_parameters, with_parameters
from shared.training.agent import Acted, Arrays, Carry, Learned

Rows = dict[str, Array]  # by name, as in shared/envs/spec.py
WHITE = 255


class Settings(NamedTuple):
    """What of the config a compiled function depends on; agents of equal settings share their functions."""

    model: Model
    size: Size
    loss: Loss
    behaviour: Behaviour
    optimisers: Optimisers
    batch: Batch
    mixed: bool  # bfloat16 for matrix products

    @classmethod
    def of(cls, config: Config, device: str) -> "Settings":
        groups = {name: getattr(config, name) for name in cls._fields if name != "mixed"}
        return cls(**groups, mixed=config.precision == "mixed" and device == "cuda")


class Networks(eqx.Module):
    """All parameters of an agent."""

    model: WorldModel
    actor: Actor
    critic: Critic
    slow_critic: Critic

    @classmethod
    def make(cls, config: Config, obs_spec, act_spec, key: Array) -> "Networks":
        """Networks with their first values for a config; the slow critic is a copy of the critic."""
        model = WorldModel(config.model, config.size, obs_spec, act_spec.size)
        features = model.latent.feature_size
        learners = (
            model, Actor(config.model, config.size, features, act_spec), Critic(config.model, config.size, features)
        )  # fmt: skip
        model, actor, critic = initialise(learners, config.model.first_values, key)
        return cls(model, actor, critic, jax.tree.map(lambda x: jax.device_put(np.array(x)), critic))

    def learners(self) -> dict[str, eqx.Module]:
        return {name: getattr(self, name) for name in LEARNERS}


class DreamerV3Agent:
    """World model, actor, critic and its slow copy, their optimiser, return statistics and one source of noise.

    See shared/training/agent.py. memo: the latent state of every row, deter (N, D) float32 and stoch (N, S) uint8, the
    classes. Replay keeps it beside the row; a window starts from that of the row before it, and `learn` renews it.
    """

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        set_exact_arithmetic()
        self.config, self.obs_spec, self.act_spec, self.device = config, obs_spec, act_spec, device
        self.settings = Settings.of(config, device)
        init_seed, noise_seed = (int(s.generate_state(1, np.uint32)[0]) for s in seed.spawn(2))
        with jax.default_device(jax.devices("cpu")[0]):  # on the CPU: the same weights on every device
            networks = Networks.make(config, obs_spec, act_spec, jax.random.key(init_seed))
        self.place = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        self.networks = self.placed(networks)
        self.moments = self.placed(first_moments(config.optimisers, networks.learners()))
        first = config.behaviour.first_statistics()
        self.normaliser = self.placed({name: filled(value) for name, value in first.items()})
        self.key = self.placed(jax.random.key(noise_seed))
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        state = initial_state(self.networks.model, num_envs)
        return {**state, "action": jnp.zeros((num_envs, self.act_spec.size))}

    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step and draw an action, whether to explore or not: the authors always draw.

        A continuous action is cut to [-1, 1]; the latent model divides it by max(1, |a|), which is the same.
        """
        seen = {name: obs[name] for name in (*self.obs_spec, "is_first")}
        carry = self.placed(dict(carry))  # else act_step is compiled anew for zeros, and for NumPy's
        self.key, carry, memo = act_step(self.settings, self.networks, self.key, carry, seen)
        return Acted(np.array(carry["action"]), carry, jax.tree.map(to_numpy, memo))

    @property
    def memo_spec(self) -> ObsSpec:
        """What one row's memo is."""
        if not self.config.batch.context:
            return {}
        deter, stoch = self.config.size.deter_size, self.config.model.stoch_size
        return {"deter": ArraySpec((deter,), "float32"), "stoch": ArraySpec((stoch,), "uint8")}

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One update on windows (B, context + T). The memo is that of the T rows.

        Without context a window begins as an episode does.
        """
        rows = {name: batch[name] for name in (*self.obs_spec, "action", "reward", *FLAGS)}
        stored = {name: batch[name][:, 0] for name in self.memo_spec}
        self.networks, self.moments, self.normaliser, self.key, metrics, memo = learn_step(
            self.settings, self.networks, self.moments, self.normaliser, self.key, rows, stored, self.updates
        )
        self.updates += 1
        return Learned(metrics, jax.tree.map(to_numpy, memo))

    # ------------------------------------------------------------------------------------- pictures and persistence

    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8.

        Raises:
          UserError: the agent sees no images.
        """
        if not image_keys(self.obs_spec):
            raise UserError(
                "predict: this agent sees vectors, of which there are no pictures; take a variant with images"
            )
        rows = {name: batch[name] for name in (*self.obs_spec, "action", "is_first")}
        self.key, prediction = predict_step(self.settings, self.networks.model, self.key, rows, context=context)
        return {"truth": np.array(batch[image_keys(self.obs_spec)[0]]), "prediction": np.array(prediction)}

    def parameters(self) -> Arrays:
        """Name -> float32 array in torch's layouts: what the safetensors file of a run holds."""
        return {name: to_numpy(value) for name, value in named_parameters(self.networks).items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimiser, statistics and noise stay as they are."""
        self.networks = self.placed(with_parameters(self.networks, parameters))

    def save(self) -> Mapping[str, Any]:
        return {
            "parameters": self.parameters(),
            "optimiser": [to_numpy(leaf) for leaf in jax.tree.leaves(self.moments)],
            "normaliser": {name: to_numpy(value) for name, value in self.normaliser.items()},
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
        self.moments = self.placed(jax.tree.unflatten(structure, [jnp.asarray(x) for x in state["optimiser"]]))
        self.normaliser = self.placed({name: jnp.asarray(value) for name, value in state["normaliser"].items()})
        self.key = self.placed(jax.random.wrap_key_data(jnp.asarray(state["generator"])))
        self.updates = int(state["updates"])

    # ------------------------------------------------------------------------------------------------------ helpers

    def placed(self, tree: Any) -> Any:
        return jax.device_put(tree, self.place)


# -------------------------------------------------------------------------------------------------------------- acting


@functools.partial(jax.jit, static_argnames="num_envs")
def initial_state(model: WorldModel, num_envs: int) -> State:
    """The latent state before the first step, each part (N, ...)."""
    return model.latent.initial(num_envs)


@functools.partial(jax.jit, static_argnames="settings")
def act_step(
    settings: Settings, networks: Networks, key: Array, carry: State, obs: Rows
) -> tuple[Array, State, dict[str, Array]]:
    """One decision for N environments: the next key, the carry with the action in it, (N, A), and the memo."""
    key, latent_key, action_key = jax.random.split(key, 3)
    model, actor = arithmetic(settings, (networks.model, networks.actor))
    latent, first = model.latent, obs["is_first"]
    led_here = reset_where_first(carry["action"], first)
    noise = jax.random.uniform(latent_key, (len(first), settings.model.stoch_size))
    tokens = model.encoder(preprocessed(model, obs))
    state, _ = latent.posterior(latent.restarted(carry, first), led_here, tokens, noise)
    action = actor.sample(actor(latent.features(state)), action_noise(actor, action_key, len(first)))
    carry = {"deter": state["deter"], "stoch": state["stoch"], "action": jnp.clip(action, -1, 1)}
    return key, carry, memo(settings, state)


def memo(settings: Settings, state: State) -> dict[str, Array]:
    """A latent state as replay keeps it; none where windows do not start from one."""
    if not settings.batch.context:
        return {}
    return {"deter": exact(state["deter"]), "stoch": state["stoch"].argmax(-1).astype(jnp.uint8)}


# ------------------------------------------------------------------------------------------------------------ learning


@functools.partial(jax.jit, static_argnames="settings", donate_argnames=("networks", "moments", "normaliser", "key"))
def learn_step(
    settings: Settings,
    networks: Networks,
    moments: Any,
    normaliser: dict[str, Array],
    key: Array,
    rows: Rows,
    stored: State,
    updates: int,
) -> tuple[Networks, Any, dict[str, Array], Array, dict[str, Array], dict[str, Array]]:
    """One update: the new networks, moments, statistics and key; losses and norms by name; the memo of the T rows.

    rows: windows (B, context + T, ...). stored: the memo of their first row, (B, ...).
    """
    key, noise_key = jax.random.split(key)
    before = rows["action"][:, 0] if settings.batch.context else None
    rows = {name: value[:, settings.batch.context :] for name, value in rows.items()}
    if not settings.batch.context:
        rows["is_first"] = rows["is_first"].at[:, 0].set(True)
    inputs = {
        "obs": preprocessed(networks.model, rows),
        "action": previous_actions(rows["action"], rows["is_first"], before),
        **{name: rows[name] for name in ("reward", *FLAGS)},
        "state": start(settings, networks.model, stored, len(rows["reward"])),
    }
    noise = learning_noise(settings, networks.actor, noise_key, *rows["reward"].shape)
    networks, moments, normaliser, metrics, post = update(
        settings, networks, moments, normaliser, updates, **inputs, **noise
    )
    return networks, moments, normaliser, key, metrics, memo(settings, post)


def start(settings: Settings, model: WorldModel, stored: State, size: int) -> State:
    """The state before the rows to learn from, (B, ...): stored with the row before, or the initial one."""
    if not settings.batch.context:
        return model.latent.initial(size)
    return {"deter": stored["deter"], "stoch": jax.nn.one_hot(stored["stoch"], settings.size.classes)}


def update(
    settings: Settings,
    networks: Networks,
    moments: Any,
    normaliser: dict[str, Array],
    updates: int,
    *,
    reward: Array,
    is_last: Array,
    is_terminal: Array,
    action_noise: Array,
    imagined_noise: Array,
    **inputs: Any,
) -> tuple[Networks, Any, dict[str, Array], dict[str, Array], State]:
    """One update from the inputs of model_objective and the noise of imagine_behaviour.

    joint: all losses are of the networks before the update, which is one step of one optimiser. sequential (2023):
    imagination happens in the updated model, from the states before.

    Returns: networks, moments and statistics after it; losses and norms by name; the posterior.
    """
    inputs |= {"reward": reward, "continuation": continuation_target(settings.behaviour, is_terminal)}
    noise = {"action_noise": action_noise, "latent_noise": imagined_noise}
    slow = arithmetic(settings, networks.slow_critic)

    def explain(model: WorldModel) -> tuple[Array, tuple[dict[str, Array], State]]:
        total, *rest = model_objective(arithmetic(settings, model), settings.loss, **inputs)
        return total, rest

    def behave(learners: dict[str, Any], post: State) -> tuple[Array, Array, dict[str, Array], dict[str, Array]]:
        starts = imagination_starts(settings.behaviour, {**post, "is_terminal": is_terminal})
        return learn_behaviour(settings, arithmetic(settings, learners), slow, normaliser, starts, **noise)

    def everything(learners: dict[str, Any]) -> tuple[Array, tuple[dict[str, Array], State, dict[str, Array]]]:
        total, (metrics, post) = explain(learners["model"])
        behaviour_loss, returns, after, found = behave(learners, post)
        total, metrics = total + behaviour_loss, metrics | found
        if settings.loss.replay_value_scale:
            critic = arithmetic(settings, learners["critic"])
            features = networks.model.latent.features(post)
            value = replayed_values(settings, critic, slow, features, reward, is_last, is_terminal, returns[0])
            total, metrics = total + settings.loss.replay_value_scale * value, metrics | {"replay_value_loss": value}
        return total, (metrics, post, after)

    def behaviour_alone(pair: dict[str, Any], model: WorldModel, post: State) -> tuple[Array, tuple[dict, dict]]:
        loss, _, after, found = behave({"model": model, **pair}, post)
        return loss, (found, after)

    learners = networks.learners()
    if settings.optimisers.order == "joint":
        slopes, (metrics, post, normaliser) = jax.grad(everything, has_aux=True)(learners)
        learners, moments, norms = step(settings.optimisers, learners, slopes, moments, updates)
        metrics |= norms
    else:
        model = {"model": learners.pop("model")}
        slopes, (metrics, post) = jax.grad(explain, has_aux=True)(model["model"])
        model, moments, norm = step(settings.optimisers, model, {"model": slopes}, moments, updates)
        slopes, (losses, normaliser) = jax.grad(behaviour_alone, has_aux=True)(learners, model["model"], post)
        learners, moments, norms = step(settings.optimisers, learners, slopes, moments, updates)
        learners, metrics = {**model, **learners}, metrics | norm | losses | norms
    share = slow_share(settings, updates)
    slow = jax.tree.map(lambda old, new: ema(old, new, share), networks.slow_critic, learners["critic"])
    return Networks(**learners, slow_critic=slow), moments, normaliser, metrics, post


def learn_behaviour(
    settings: Settings,
    learners: Mapping[str, Any],
    slow_critic: Critic,
    normaliser: dict[str, Array],
    starts: State,
    **noise: Array,
) -> tuple[Array, Array, dict[str, Array], dict[str, Array]]:
    """The scaled losses of actor and critic, (); returns (H, N), constants; the statistics after; what to record.

    starts: from imagination_starts. noise: as for imagine_behaviour.
    """
    behaviour, is_terminal = settings.behaviour, starts["is_terminal"]
    model, actor, critic = lax.stop_gradient(learners["model"]), learners["actor"], learners["critic"]
    imagining = actor if through_model(behaviour, actor) else lax.stop_gradient(actor)
    features, actions = imagine_behaviour(model, imagining, starts, **noise)
    reward, discount = imagined_rewards(model, behaviour, features, is_terminal)
    actor_loss, critic_loss, returns, after, metrics = behaviour_objectives(
        actor, critic, slow_critic, behaviour, normaliser, features, actions, reward, discount
    )
    loss = settings.loss
    return loss.actor_scale * actor_loss + loss.critic_scale * critic_loss, returns, after, metrics


def replayed_values(
    settings: Settings,
    critic: Critic,
    slow_critic: Critic,
    features: Array,
    reward: Array,
    is_last: Array,
    is_terminal: Array,
    returns: Array,
) -> Array:
    """replay_value_objective of the rows that imagination started from; returns (N,), imagined there."""
    rows = settings.behaviour.imagine_last or reward.shape[1]
    features = features if settings.loss.replay_value_gradient else lax.stop_gradient(features)
    parts = (x[:, -rows:] for x in (features, reward, is_last, is_terminal))
    return replay_value_objective(critic, slow_critic, settings.behaviour, *parts, returns.reshape(-1, rows))


def slow_share(settings: Settings, updates: int) -> Array | float:
    """What share of the critic joins its slow copy; in the 2023 agent all of it with the first update."""
    rate = settings.behaviour.slow_rate
    return rate if settings.optimisers.order == "joint" else jnp.where(updates == 0, 1.0, rate)


def learning_noise(settings: Settings, actor: Actor, key: Array, size: int, length: int) -> dict[str, Array]:
    """Of the filter: noise (B, T, S). Of imagination: imagined_noise (H, N, S), action_noise as the actor's."""
    horizon, latents, discrete = settings.behaviour.horizon, settings.model.stoch_size, actor.discrete
    count = size * (settings.behaviour.imagine_last or length)
    shapes = {
        "noise": (size, length, latents),
        "imagined_noise": (horizon, count, latents),
        "action_noise": (horizon, count) if discrete else (horizon, count, actor.size),
    }
    # One draw for all: every shape of random numbers costs XLA half a second to compile.
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    draws = jnp.split(jax.random.uniform(key, (ends[-1],)), ends[:-1])
    noise = {name: draw.reshape(shape) for draw, (name, shape) in zip(draws, shapes.items(), strict=True)}
    return noise if discrete else noise | {"action_noise": normal(noise["action_noise"])}


def normal(uniform: Array) -> Array:
    """Standard normal numbers from uniform ones in [0, 1), as JAX makes its own: by the inverse error function."""
    inside = 1 - 2.0**-24  # erfinv of one is infinite
    return math.sqrt(2) * lax.erf_inv(jnp.clip(2 * uniform - 1, -inside, inside))


def action_noise(actor: Actor, key: Array, *batch: int) -> Array:
    """What Actor.sample takes: uniform (*batch) for discrete actions, standard normal (*batch, A) for others."""
    if actor.discrete:
        return jax.random.uniform(key, batch)
    return jax.random.normal(key, (*batch, actor.size))


@functools.partial(jax.jit, static_argnames=("settings", "context"))
def predict_step(settings: Settings, model: WorldModel, key: Array, rows: Rows, *, context: int) -> tuple[Array, Array]:
    """`DreamerV3Agent.predict` as a pure function: the next key, and the film that is predicted."""
    key, noise_key = jax.random.split(key)
    action, latent = previous_actions(rows["action"], rows["is_first"]), model.latent
    size, length = action.shape[:2]
    noise = jax.random.uniform(noise_key, (size, length, settings.model.stoch_size))
    tokens = model.encoder({key: value[:, :context] for key, value in preprocessed(model, rows).items()})
    seen = (tokens, action[:, :context], rows["is_first"][:, :context], noise[:, :context])
    post, _ = latent.observe(*seen, latent.initial(size))
    last = {name: value[:, -1] for name, value in post.items()}
    dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
    found = model.decoder({name: jnp.concatenate([post[name], dreamt[name]], 1) for name in ("deter", "stoch")})
    film = found[model.encoder.images[0]]
    return key, jnp.clip(jnp.round(film * WHITE), 0, WHITE).astype(jnp.uint8)


def preprocessed(model: WorldModel, obs: Rows) -> dict[str, Array]:
    """Observations by key: images in [0, 1], vectors as they are; all float32."""
    images = {key: obs[key].astype(jnp.float32) / WHITE for key in model.encoder.images}
    return images | {key: obs[key].astype(jnp.float32) for key, _ in model.encoder.vectors}


def arithmetic(settings: Settings, networks: Any) -> Any:
    """Networks as they compute: matrices in bfloat16 on a GPU, where the config says so; nothing else changes."""
    if not settings.mixed:
        return networks
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim > 1 else x, networks)
