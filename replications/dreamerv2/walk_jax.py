"""A walk through one update of DreamerV2 in JAX, for shared/diff: the agent's own functions, one after the other."""

import functools

import jax
import numpy as np

from replications.dreamerv2 import agent_jax
from replications.dreamerv2.model_jax import initial_state
from replications.dreamerv2.walk import specs
from shared.diff.walk import ACTIONS, Arrays, imagined
from shared.diff.walk_jax import QUICK, arrays, captured, devices, replaced, stored
from shared.layers_jax import named_parameters, with_parameters

HEADS = ("decoder", "reward", "discount")


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        obs_spec, act_spec = specs(config, task, ACTIONS)
        self.image_shape = obs_spec["image"].shape
        self.agent = agent_jax.DreamerV2Agent(config, obs_spec, act_spec, seed=np.random.SeedSequence(5))
        first = self.agent.parameters() if parameters is None else parameters
        settings, behaviour = self.agent.settings, config.behaviour
        self.networks = with_parameters(self.agent.networks, devices(first))
        self.moments = agent_jax.first_moments(settings, self.networks)

        def step(networks, moments, now, given, constant_actions):
            slopes, own = {}, agent_jax.step

            def recorded(settings, name, part, moments, grads):
                slopes.update({f"{name}.{key}": value for key, value in named_parameters(grads).items()})
                return own(settings, name, part, moments, grads)

            with replaced(agent_jax, "step", recorded):
                state = agent_jax.update(settings, networks, moments, now, constant_actions=constant_actions, **given)
            return *state, slopes

        def filtered(model, image, action, noise):
            embed = model.encoder(image)
            post, prior = model.latent.observe(embed, action, noise, initial_state(model.latent, len(image)))
            features = model.latent.features(post)
            heads = {name: getattr(model, name) for name in HEADS if getattr(model, name) is not None}
            return embed, prior, post, {name: head(features) for name, head in heads.items()}

        def dreamt(networks, post, row_discount, draws):
            model = networks.model
            starts = agent_jax.imagination_starts(model, behaviour, {**post, "discount": row_discount})
            start_discount = starts.pop("discount")
            features, actions = agent_jax.imagine_behaviour(model, networks.actor, starts, **draws)
            reward, discount = agent_jax.imagined_rewards(model, behaviour, features, start_discount)
            critics = {"critic": networks.critic(features), "target critic": networks.target_critic(features)}
            return features, actions, {"reward": reward, "discount": discount, **critics}

        compiled = functools.partial(jax.jit, compiler_options=QUICK)
        self.step = compiled(step, static_argnames="constant_actions")
        self.filtered, self.dreamt = compiled(filtered), compiled(dreamt)

    def parameters(self) -> Arrays:
        return arrays(named_parameters(self.networks))

    def entries(self, rows: Arrays) -> Arrays:
        agent, now = self.agent, self.agent.now()
        batch = stored(rows, np.zeros((*rows["reward"].shape, *self.image_shape), np.uint8))

        def learn():
            agent_jax.learn_step.__wrapped__(
                agent.settings, agent.networks, agent.moments, agent.key, batch, now,
                constant_actions=agent.actions_are_constants(now.mix),
            )  # fmt: skip

        found = captured(agent_jax, "update", learn)
        return {name: found[name] for name in ("action", "reward", "discount")}

    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        embed, prior, post, _ = self.run(image, entries, noise)
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        _, _, post, heads = self.run(image, entries, noise)
        found = {f"heads / {name}": np.array(value) for name, value in heads.items()}
        draws = devices({"action_noise": noise["action_noise"], "latent_noise": noise["imagined_noise"]})
        features, actions, values = self.dreamt(self.networks, post, devices(entries)["discount"], draws)
        found |= imagined(np.array(features), np.array(actions))
        return found | {f"imagination / {name}": np.array(value) for name, value in values.items()}

    def run(self, image: np.ndarray, entries: Arrays, noise: Arrays):
        given = devices({"image": image, "action": entries["action"], "noise": noise["noise"]})
        return self.filtered(self.networks.model, **given)

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        given, agent, now = devices({**entries, "image": image, **noise}), self.agent, self.agent.now()
        self.networks, self.moments, metrics, slopes = self.step(
            self.networks, self.moments, now, given, constant_actions=agent.actions_are_constants(now.mix)
        )
        agent.updates += 1
        found = arrays(metrics)
        norms = {name: value for name, value in found.items() if name.endswith("_norm")}
        return {name: value for name, value in found.items() if name not in norms}, arrays(slopes), norms
