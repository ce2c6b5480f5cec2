"""A walk through one update of Dreamer in JAX, for shared/diff: the agent's own functions, one after the other."""

import jax
import numpy as np

from replications.dreamer import agent_jax
from replications.dreamer.model_jax import initial_state
from replications.dreamer.walk import spec
from shared.diff.walk import ACTIONS, Arrays, imagined
from shared.diff.walk_jax import QUICK, arrays, captured, devices, stored
from shared.layers_jax import named_parameters, with_parameters

HEADS = ("decoder", "reward", "continuation")


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        self.agent = agent_jax.DreamerAgent(config, {}, spec(task, ACTIONS), seed=np.random.SeedSequence(5))
        first = self.agent.parameters() if parameters is None else parameters
        settings = self.agent.settings
        self.networks = with_parameters(self.agent.networks, devices(first))
        self.moments = agent_jax.first_moments(settings, self.networks)

        def step(networks, moments, given):
            grads, losses = agent_jax.gradients(settings, networks, **given)
            networks, moments, norms = agent_jax.update(settings, networks, moments, grads)
            return networks, moments, losses, named_parameters(grads), norms

        def filtered(model, image, action, noise):
            embed = model.encoder(image)
            post, prior = model.latent.observe(embed, action, noise, initial_state(model.latent, len(image)))
            features = model.latent.features(post)
            heads = {name: getattr(model, name) for name in HEADS if getattr(model, name) is not None}
            return embed, prior, post, {name: head(features) for name, head in heads.items()}

        def dreamt(networks, post, draws):
            model = networks.model
            start = agent_jax.imagination_starts(model, post)
            features, actions = agent_jax.imagine_behaviour(model, networks.actor, start, **draws)
            values = {} if networks.value is None else {"value": networks.value(features)}
            return features, actions, values | {"reward": model.reward(features)}

        compiled = (jax.jit(function, compiler_options=QUICK) for function in (step, filtered, dreamt))
        self.step, self.filtered, self.dreamt = compiled

    def parameters(self) -> Arrays:
        return arrays(named_parameters(self.networks))

    def entries(self, rows: Arrays) -> Arrays:
        batch = stored(rows, np.zeros((*rows["reward"].shape, 64, 64, 3), np.uint8))
        learn, agent = agent_jax.learn_step.__wrapped__, self.agent
        found = captured(
            agent_jax, "gradients", lambda: learn(agent.settings, agent.networks, agent.moments, agent.key, batch)
        )
        return {name: found[name] for name in ("action", "reward", "terminal")}

    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        embed, prior, post, _ = self.run(image, entries, noise)
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        _, _, post, heads = self.run(image, entries, noise)
        found = {f"heads / {name}": np.array(value) for name, value in heads.items()}
        if self.networks.actor is None:
            return found
        draws = devices({name: noise[name] for name in ("action_noise", "latent_noise")})
        features, actions, values = self.dreamt(self.networks, post, draws)
        found |= imagined(np.array(features), np.array(actions))
        return found | {f"imagination / {name}": np.array(value) for name, value in values.items()}

    def run(self, image: np.ndarray, entries: Arrays, noise: Arrays):
        given = devices({"image": image, "action": entries["action"], "noise": noise["noise"]})
        return self.filtered(self.networks.model, **given)

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        given = devices({**entries, "image": image, **noise})
        self.networks, self.moments, losses, grads, norms = self.step(self.networks, self.moments, given)
        return arrays(losses), arrays(grads), arrays(norms)
