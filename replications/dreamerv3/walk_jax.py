"""A walk through one update of DreamerV3 in JAX, for shared/diff: the agent's own functions, one after the other."""

import jax
import jax.numpy as jnp
import numpy as np

from replications.dreamerv3 import agent_jax, objectives_jax
from replications.dreamerv3.walk import moved_from_first, specs, unflat
from shared.diff.walk import ACTIONS, Arrays, flat, imagined
from shared.diff.walk_jax import QUICK, arrays, captured, devices, replaced
from shared.layers_jax import named_parameters

NOISES = ("noise", "imagined_noise", "action_noise")
MEMO = ("deter", "stoch")


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        self.agent = agent_jax.DreamerV3Agent(config, *specs(config, task, ACTIONS), seed=np.random.SeedSequence(5))
        self.agent.load_parameters(moved_from_first(self.agent.parameters()) if parameters is None else parameters)
        settings, behaviour = self.agent.settings, config.behaviour

        def step(networks, moments, normaliser, updates, given):
            slopes, own = {}, agent_jax.step

            def recorded(settings, learners, grads, moments, updates):
                for name in grads:
                    slopes.update({f"{name}.{key}": x for key, x in named_parameters(grads[name]).items()})
                return own(settings, learners, grads, moments, updates)

            with replaced(agent_jax, "step", recorded):
                state = agent_jax.update(settings, networks, moments, normaliser, updates, **given)
            return *state, slopes

        def filtered(model, obs, action, is_first, noise, state):
            embed = model.encoder(obs)
            post, prior = model.latent.observe(embed, action, is_first, noise, state)
            features = model.latent.features(post)
            heads = {"decoder": model.decoder(post), "reward": model.reward(features)}
            return embed, prior, post, {**heads, "continuation": model.continuation(features)}

        def dreamt(networks, post, is_terminal, draws):
            model = networks.model
            starts = objectives_jax.imagination_starts(behaviour, {**post, "is_terminal": is_terminal})
            ends = starts.pop("is_terminal")
            features, actions = objectives_jax.imagine_behaviour(model, networks.actor, starts, **draws)
            reward, discount = objectives_jax.imagined_rewards(model, behaviour, features, ends)
            return features, actions, {"reward": reward, "discount": discount, "critic": networks.critic(features)}

        compiled = (jax.jit(function, compiler_options=QUICK) for function in (step, filtered, dreamt))
        self.step, self.filtered, self.dreamt = compiled

    def parameters(self) -> Arrays:
        return arrays(named_parameters(self.agent.networks))

    def entries(self, rows: Arrays) -> Arrays:
        agent = self.agent
        batch = {name: jnp.asarray(value) for name, value in rows.items() if name not in MEMO}
        memo = {name: jnp.asarray(rows[name][:, 0]) for name in MEMO}

        def learn():
            agent_jax.learn_step.__wrapped__(
                agent.settings, agent.networks, agent.moments, agent.normaliser, agent.key, batch, memo, 0
            )

        found = captured(agent_jax, "update", learn)
        return {name: value for name, value in found.items() if name not in NOISES}

    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        embed, prior, post, _ = self.run(entries, noise)
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        _, _, post, heads = self.run(entries, noise)
        found = {f"heads / {name}": np.array(value) for name, value in flat(heads).items()}
        draws = devices({"action_noise": noise["action_noise"], "latent_noise": noise["imagined_noise"]})
        features, actions, values = self.dreamt(self.agent.networks, post, jnp.asarray(entries["is_terminal"]), draws)
        found |= imagined(np.array(features), np.array(actions))
        return found | {f"imagination / {name}": np.array(value) for name, value in values.items()}

    def run(self, entries: Arrays, noise: Arrays):
        given = inputs(entries)
        seen = {name: given[name] for name in ("obs", "action", "is_first", "state")}
        return self.filtered(self.agent.networks.model, **seen, noise=devices({"noise": noise["noise"]})["noise"])

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        agent, given = self.agent, inputs(entries) | devices(noise)
        agent.networks, agent.moments, agent.normaliser, metrics, _, slopes = self.step(
            agent.networks, agent.moments, agent.normaliser, agent.updates, given
        )
        agent.updates += 1
        found = arrays(metrics)
        norms = {name: value for name, value in found.items() if name.endswith("_norm")}
        return {name: value for name, value in found.items() if name not in norms}, arrays(slopes), norms


def inputs(entries: Arrays) -> dict:
    """Entries as the update takes them: float64, flags as they are."""
    made = {
        name: jnp.asarray(value) if value.dtype == bool else devices({name: value})[name]
        for name, value in entries.items()
    }
    return unflat(made)
