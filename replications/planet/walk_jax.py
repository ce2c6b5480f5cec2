"""A walk through one update of PlaNet in JAX, for shared/diff: the agent's own functions, one after the other."""

import jax
import numpy as np

from replications.planet import agent_jax
from replications.planet.model_jax import initial_state
from shared.diff.walk import ACTIONS, Arrays
from shared.diff.walk_jax import QUICK, arrays, captured, devices, stored
from shared.envs.spec import ActSpec
from shared.layers_jax import named_parameters, with_parameters


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        self.agent = agent_jax.PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(5))
        first = self.agent.parameters() if parameters is None else parameters
        self.model = with_parameters(self.agent.model, devices(first))
        self.moments = agent_jax.make_optimiser(config.optimiser).init(self.model)
        self.loss = config.loss

        def step(model, moments, given):
            grads, losses = agent_jax.gradients(model, config.loss, **given)
            model, moments, norm = agent_jax.update(config.optimiser, model, moments, grads)
            return model, moments, losses, named_parameters(grads), norm

        def filtered(model, image, action, noise):
            embed = model.encoder(image)
            post, prior = model.latent.observe(embed, action, noise, initial_state(model.latent, len(image)))
            features = model.latent.features(post)
            return embed, prior, post, {"image": model.decoder(features), "reward": model.reward(features)}

        self.step, self.filtered = (jax.jit(function, compiler_options=QUICK) for function in (step, filtered))

    def parameters(self) -> Arrays:
        return arrays(named_parameters(self.model))

    def entries(self, rows: Arrays) -> Arrays:
        batch = stored(rows, np.zeros((*rows["reward"].shape, 64, 64, 3), np.uint8))
        learn, agent = agent_jax.learn_step.__wrapped__, self.agent
        found = captured(
            agent_jax, "gradients", lambda: learn(agent.settings, agent.model, agent.moments, agent.key, batch)
        )
        return {name: found[name] for name in ("action", "reward")}

    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        embed, prior, post, _ = self.run(image, entries, noise)
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        return {f"heads / {name}": np.array(value) for name, value in self.run(image, entries, noise)[3].items()}

    def run(self, image: np.ndarray, entries: Arrays, noise: Arrays):
        given = devices({"image": image, "action": entries["action"], "noise": noise["noise"]})
        return self.filtered(self.model, **given)

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        given = devices({**entries, "image": image, **noise})
        self.model, self.moments, losses, grads, norm = self.step(self.model, self.moments, given)
        return arrays(losses), arrays(grads), {"grad_norm": np.array(norm)}
