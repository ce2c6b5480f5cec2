"""Dreamer in torch and in JAX, in turns: ms per update, what its parts take, and ms per action.

    python -m benchmarks.dreamer --out results/benchmarks/dreamer.json --speeds data/speeds.csv
    (about eight minutes on two cores, most of it for the paper's update)

An action is the policy's (`act`) or, with variant planet, the planner's (`plan`). The parts of an update, each with its
gradient: `model`, `actor` (imagination and the way back through it) and `value`; `imagination` is the actor's way
forward alone. `yardstick` is the setting at which peers were measured: depth 8, deter
100, stoch 20, hidden and dense 100, batch 16 x 32, six actions (official TF2 492 ms, sheeprl 640 ms, on two cores of
the same kind of machine; see README.md here). Read timing.py for how it measures.
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
from replications.dreamer import agent_jax, agent_torch
from replications.dreamer.config import Config
from shared.config import ROOT, build, read_yaml
from shared.errors import cli
from shared.layers_torch import frozen

YARDSTICK = {
    "model": {"encoder_depth": 8, "deter_size": 100, "stoch_size": 20, "hidden_size": 100, "dense_units": 100},
    "batch": {"size": 16, "length": 32},
}
MODULES = {"torch": agent_torch, "jax": agent_jax}
ACTIONS_OF = {"ms_per_policy_action": "act", "ms_per_planned_action": "plan"}


def configs() -> dict[str, tuple[Config, Config | None]]:
    """Name -> configs of variants dreamer and planet: the repository's scales, and the yardstick without a planner."""
    values = read_yaml(ROOT / "replications" / "dreamer" / "paper.yaml")
    for group, changes in YARDSTICK.items():
        values[group] |= changes
    scales = {
        name: tuple(scale_config(Config, "dreamer", variant, name) for variant in ("dreamer", "planet"))
        for name in SCALES
    }
    return scales | {"yardstick": (build(Config, values, where="the yardstick"), None)}


def make_agent(framework: str, config: Config, device: str):
    agent_class = MODULES[framework].DreamerAgent
    return agent_class(config, {}, CONTROL, seed=np.random.SeedSequence(0), device=device)


def inputs(config: Config) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random inputs of model_objective; random start states and noise of imagine_behaviour."""
    random, (size, length) = np.random.default_rng(0), (config.batch.size, config.batch.length)
    count, horizon, stoch = size * length, config.behaviour.horizon, config.model.stoch_size
    chunk = {
        "image": random.uniform(-0.5, 0.5, (size, length, 64, 64, 3)),
        "action": random.uniform(-1, 1, (size, length, ACTIONS)),
        "reward": random.uniform(0, 1, (size, length)),
        "terminal": np.zeros((size, length)),
        "noise": random.normal(size=(size, length, stoch)),
    }
    dream = {
        "start": random.normal(size=(count, config.model.deter_size + 3 * stoch)),
        "action_noise": random.normal(size=(horizon, count, ACTIONS)),
        "latent_noise": random.normal(size=(horizon, count, stoch)),
    }
    return tuple({name: value.astype(np.float32) for name, value in part.items()} for part in (chunk, dream))


def states(config: Config, start):
    """The start states' parts out of one array (N, .)."""
    stoch = config.model.stoch_size
    parts = {"mean": slice(0, stoch), "std": slice(stoch, 2 * stoch), "sample": slice(2 * stoch, 3 * stoch)}
    return {name: start[:, columns] for name, columns in {**parts, "belief": slice(3 * stoch, None)}.items()}


def torch_parts(config: Config, device: str) -> Functions:
    """Name of a part of the update -> its computation in torch."""
    agent = make_agent("torch", config, device)
    chunk, dream = (
        {name: torch.from_numpy(value).to(device) for name, value in part.items()} for part in inputs(config)
    )
    start, settings = states(config, dream.pop("start")), config.behaviour
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def imagined() -> torch.Tensor:
        return agent_torch.imagine_behaviour(agent.model, agent.actor, start, **dream)[0]

    def model() -> None:
        agent_torch.model_objective(agent.model, config.loss, **chunk)[0].backward()
        wait()

    def imagination() -> None:
        with torch.no_grad():
            imagined()
        wait()

    def actor() -> None:
        with frozen(agent.model, agent.value):
            agent_torch.actor_objective(agent.model, agent.value, settings, imagined())[0].backward()
        wait()

    with torch.no_grad():
        features = imagined()
        _, returns, weights = agent_torch.actor_objective(agent.model, agent.value, settings, features)

    def value() -> None:
        agent_torch.value_objective(agent.value, features, returns, weights).backward()
        wait()

    return {"model": model, "imagination": imagination, "actor": actor, "value": value}


def jax_parts(config: Config, device: str) -> Functions:
    """Name of a part of the update -> its computation in JAX, compiled."""
    agent = make_agent("jax", config, device)
    chunk, dream = ({name: jnp.asarray(value) for name, value in part.items()} for part in inputs(config))
    start, settings, networks = states(config, dream.pop("start")), config.behaviour, agent.networks

    def imagined(actor, networks, start, dream):
        return agent_jax.imagine_behaviour(networks.model, actor, start, **dream)[0]

    def explain(model, chunk):
        return agent_jax.model_objective(model, config.loss, **chunk)[0]

    def behave(actor, networks, start, dream):
        features = imagined(actor, networks, start, dream)
        return agent_jax.actor_objective(networks.model, networks.value, settings, features)[0]

    features = jax.jit(imagined)(networks.actor, networks, start, dream)
    score = functools.partial(agent_jax.actor_objective, behaviour=settings)
    _, returns, weights = jax.jit(score)(networks.model, networks.value, features=features)
    compiled = {
        "model": (jax.jit(jax.grad(explain)), (networks.model, chunk)),
        "imagination": (jax.jit(imagined), (networks.actor, networks, start, dream)),
        "actor": (jax.jit(jax.grad(behave)), (networks.actor, networks, start, dream)),
        "value": (jax.jit(jax.grad(agent_jax.value_objective)), (networks.value, features, returns, weights)),
    }
    return {
        name: functools.partial(lambda function, arguments: jax.block_until_ready(function(*arguments)), *call)
        for name, call in compiled.items()
    }


def measure(device: str, seconds: float, names: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """name (act_laptop, ...) -> what agents.in_turns gives; at the yardstick also the parts of an update."""
    results: dict[str, dict[str, object]] = {}
    for scale, (config, searching) in configs().items():
        if scale not in names:
            continue
        chunks = batch(config.batch.size, config.batch.length)
        agents = {framework: make_agent(framework, config, device) for framework in FRAMEWORKS}
        functions = {
            name: {"act": acting(agent, rows(1)), "update": learning(agent, chunks)} for name, agent in agents.items()
        }
        found = in_turns(functions, seconds)
        if searching is not None:
            planners = {framework: make_agent(framework, searching, device) for framework in FRAMEWORKS}
            found |= in_turns({name: {"plan": acting(agent, rows(1))} for name, agent in planners.items()}, seconds)
        else:
            found |= in_turns({"torch": torch_parts(config, device), "jax": jax_parts(config, device)}, seconds)
        results |= {f"{what}_{scale}": times for what, times in found.items()}
    return results


@cli
def main(arguments: list[str]) -> None:
    run("dreamer", arguments, __doc__.splitlines()[0], (*SCALES, "yardstick"), measure, actions_of=ACTIONS_OF)


if __name__ == "__main__":
    sys.exit(main())
