"""DreamerV2 in torch and in JAX, in turns: ms per update, what its parts take, and ms per action.

    python -m benchmarks.dreamerv2 --out results/benchmarks/dreamerv2.json --speeds data/speeds.csv
    (about ten minutes on two cores, most of it for the paper's update)

The scales are those of the games: grey images, 18 actions, Reinforce. `yardstick` is the setting at which peers were
measured: the last commit with the gradient through the model, colour images and six continuous actions, depth 8, deter
and hidden 128, 16 x 16 classes, dense 128, batch 16 x 32 (official TF2 972 ms, sheeprl 903 ms, on two cores of the same
kind of machine; see README.md here). Its number of parameters, 1,027,362, tells that it is that setting.

The parts of an update, each with its gradient: `model`, `actor` (imagination, the heads read on it, and the way back
through both) and `critic`; `imagination` is the actor's way forward alone. Read timing.py for how it measures.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.agents import (
    ACTIONS,
    CONTROL,
    FRAMEWORKS,
    SCALES,
    Functions,
    acting,
    batch,
    in_turns,
    learning,
    rows,
    run,
    scale_config,
)
from replications.dreamerv2 import agent_jax, agent_torch
from replications.dreamerv2.config import Config
from shared.config import build, resolve
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import cli
from shared.layers_torch import frozen

YARDSTICK = {
    "model": {
        "encoder_depth": 8,
        "deter_size": 128,
        "hidden_size": 128,
        "stoch_size": 16,
        "classes": 16,
        "dense_units": 128,
    },
    "behaviour": {"actor_gradient": "dynamics"},  # the code's own choice for continuous actions
    "batch": {"size": 16, "length": 32},
}
ENTROPY_SCALE, MIX = 1e-4, 0.0  # any: they cost nothing
GAME = {"spec": ActSpec(18, discrete=True), "channels": 1}
DMC = {"spec": CONTROL, "channels": 3}
MODULES = {"torch": agent_torch, "jax": agent_jax}


def configs() -> dict[str, Config]:
    """Name -> config: the repository's scales and the yardstick."""
    values = resolve("dreamerv2", "last-commit", {"name": "yardstick"})["values"]
    for group, changes in YARDSTICK.items():
        values[group] |= changes
    scales = {name: scale_config(Config, "dreamerv2", "dreamerv2", name) for name in SCALES}
    return scales | {"yardstick": build(Config, values, where="the yardstick")}


def make_agent(framework: str, config: Config, device: str, *, spec: ActSpec, channels: int):
    agent_class, obs_spec = MODULES[framework].DreamerV2Agent, {"image": ArraySpec((64, 64, channels), "uint8")}
    return agent_class(config, obs_spec, spec, seed=np.random.SeedSequence(0), device=device)


def inputs(config: Config) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random inputs of model_objective; random start states and noise of imagine_behaviour."""
    random, (size, length) = np.random.default_rng(0), (config.batch.size, config.batch.length)
    count, horizon, stoch = size * length, config.behaviour.horizon, config.model.stoch_size
    classes, discount = config.model.classes, config.behaviour.discount
    chunk = {
        "image": random.uniform(-0.5, 0.5, (size, length, 64, 64, DMC["channels"])),
        "action": random.uniform(-1, 1, (size, length, ACTIONS)),
        "reward": random.uniform(0, 1, (size, length)),
        "discount": np.full((size, length), discount),
        "noise": random.uniform(size=(size, length, stoch)),
    }
    dream = {
        "logit": random.normal(size=(count, stoch, classes)),
        "sample": np.eye(classes)[random.integers(classes, size=(count, stoch))],
        "belief": random.normal(size=(count, config.model.deter_size)),
        "discount": np.full(count, discount),
        "action_noise": random.uniform(size=(horizon, count, ACTIONS)),
        "latent_noise": random.uniform(size=(horizon, count, stoch)),
    }
    return tuple({name: value.astype(np.float32) for name, value in part.items()} for part in (chunk, dream))


def torch_parts(config: Config, device: str) -> Functions:
    """Name of a part of the update -> its computation in torch."""
    agent = make_agent("torch", config, device, **DMC)
    chunk, start = (
        {name: torch.from_numpy(value).to(device) for name, value in part.items()} for part in inputs(config)
    )
    noise = {name: start.pop(name) for name in ("action_noise", "latent_noise")}
    start_discount, settings = start.pop("discount"), config.behaviour
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def trajectory() -> tuple[torch.Tensor, ...]:
        features, actions = agent_torch.imagine_behaviour(agent.model, agent.actor, start, **noise)
        reward, discount = agent_torch.imagined_rewards(agent.model, settings, features, start_discount)
        value = agent.target_critic(features)
        returns, weights = agent_torch.imagined_returns(settings, reward, discount, value)
        return features, actions, returns, weights, value[:-1].detach()

    def model() -> None:
        agent_torch.model_objective(agent.model, config.loss, **chunk)[0].backward()
        wait()

    def imagination() -> None:
        with torch.no_grad():
            trajectory()
        wait()

    def actor() -> None:
        with frozen(agent.model, agent.target_critic):
            scales = {"mix": MIX, "entropy_scale": ENTROPY_SCALE}
            agent_torch.actor_objective(agent.actor, settings, *trajectory(), **scales)[0].backward()
        wait()

    with torch.no_grad():
        features, _, returns, weights, _ = trajectory()

    def critic() -> None:
        agent_torch.critic_objective(agent.critic(features[:-1]), returns, weights).backward()
        wait()

    return {"model": model, "imagination": imagination, "actor": actor, "critic": critic}


def jax_parts(config: Config, device: str) -> Functions:
    """Name of a part of the update -> its computation in JAX, compiled."""
    agent = make_agent("jax", config, device, **DMC)
    chunk, start = ({name: jnp.asarray(value) for name, value in part.items()} for part in inputs(config))
    noise = {name: start.pop(name) for name in ("action_noise", "latent_noise")}
    settings, networks = config.behaviour, agent.networks

    def trajectory(actor, networks, start, noise):
        state = {name: value for name, value in start.items() if name != "discount"}
        features, actions = agent_jax.imagine_behaviour(networks.model, actor, state, **noise)
        reward, discount = agent_jax.imagined_rewards(networks.model, settings, features, start["discount"])
        value = networks.target_critic(features)
        returns, weights = agent_jax.imagined_returns(settings, reward, discount, value)
        return features, actions, returns, weights, jax.lax.stop_gradient(value[:-1])

    def explain(model, chunk):
        return agent_jax.model_objective(model, config.loss, **chunk)[0]

    def behave(actor, networks, start, noise):
        scales = {"mix": MIX, "entropy_scale": ENTROPY_SCALE}
        return agent_jax.actor_objective(actor, settings, *trajectory(actor, networks, start, noise), **scales)[0]

    def judge(critic, features, returns, weights):
        return agent_jax.critic_objective(critic(features[:-1]), returns, weights)

    dream = (networks.actor, networks, start, noise)
    features, _, returns, weights, _ = jax.jit(trajectory)(*dream)
    compiled = {
        "model": (jax.jit(jax.grad(explain)), (networks.model, chunk)),
        "imagination": (jax.jit(trajectory), dream),
        "actor": (jax.jit(jax.grad(behave)), dream),
        "critic": (jax.jit(jax.grad(judge)), (networks.critic, features, returns, weights)),
    }
    return {
        name: functools.partial(lambda function, arguments: jax.block_until_ready(function(*arguments)), *call)
        for name, call in compiled.items()
    }


def measure(device: str, seconds: float, names: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """name (act_laptop, ...) -> what agents.in_turns gives; at the yardstick also the parts of an update."""
    results: dict[str, dict[str, object]] = {}
    for scale, config in configs().items():
        if scale not in names:
            continue
        kind = DMC if scale == "yardstick" else GAME
        chunks = batch(config.batch.size, config.batch.length, **kind)
        agents = {framework: make_agent(framework, config, device, **kind) for framework in FRAMEWORKS}
        functions = {
            name: {"act": acting(agent, rows(1, **kind)), "update": learning(agent, chunks)}
            for name, agent in agents.items()
        }
        found = in_turns(functions, seconds)
        if scale == "yardstick":
            found |= in_turns({"torch": torch_parts(config, device), "jax": jax_parts(config, device)}, seconds)
        results |= {f"{what}_{scale}": times for what, times in found.items()}
    return results


@cli
def main(arguments: list[str]) -> None:
    run("dreamerv2", arguments, __doc__.splitlines()[0], (*SCALES, "yardstick"), measure)


if __name__ == "__main__":
    sys.exit(main())
