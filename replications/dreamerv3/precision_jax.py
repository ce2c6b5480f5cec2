"""One update in float32 and in mixed precision, in JAX, for precision.py."""

from collections.abc import Mapping

import jax
import numpy as np

from replications.dreamerv3 import agent_jax
from replications.dreamerv3.config import FLAGS
from replications.dreamerv3.precision import SEED, Measured
from shared.diff.walk import Arrays
from shared.diff.walk_jax import QUICK, replaced
from shared.layers_jax import named_parameters


def updates(
    config, specs, parameters: Arrays, rows: Arrays, noises: Mapping[str, Arrays], *, mixed: bool
) -> dict[str, Measured]:
    """{draws: one update from these weights}. mixed: as on a GPU, on the CPU."""
    agent = agent_jax.DreamerV3Agent(config, *specs, seed=np.random.SeedSequence(SEED))
    agent.load_parameters(parameters)
    settings = agent.settings._replace(mixed=mixed)

    def learn(networks, moments, normaliser, key, rows, stored, noise):
        slopes = {}

        def step(settings, learners, grads, moments, updates):
            for name in grads:
                slopes.update({f"{name}.{key}": x for key, x in named_parameters(grads[name]).items()})
            return learners, moments, {}

        with replaced(agent_jax, "step", step), replaced(agent_jax, "learning_noise", lambda *_: noise):
            found = agent_jax.learn_step.__wrapped__(settings, networks, moments, normaliser, key, rows, stored, 0)
        *_, metrics, memo = found
        return {name: x for name, x in metrics.items() if name.endswith("loss")}, slopes, memo["stoch"]

    state = (agent.networks, agent.moments, agent.normaliser, agent.key)
    seen = {name: rows[name] for name in (*specs[0], "action", "reward", *FLAGS)}
    stored = {name: rows[name][:, 0] for name in agent.memo_spec}
    run = jax.jit(learn, compiler_options=QUICK)  # it runs twice: compiling is what takes the time
    return {draws: Measured(*jax.device_get(run(*state, seen, stored, noise))) for draws, noise in noises.items()}
