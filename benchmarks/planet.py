"""PlaNet in torch and in JAX, in turns: ms per update and per planned action, and how near that is to the ceiling.

    python -m benchmarks.planet --out results/benchmarks/planet.json --speeds data/speeds.csv
    (about six minutes on two cores, of which JAX compiles for one and the paper's update takes three)

Both frameworks get the same threads and take turns, so the ratio torch / JAX of each round is a fair one. The paper's
planner (12 / 10 / 1000 / 100) is measured at the size at which peers were (reward head 2 x 200, action dimension 6:
748 ms for JAX, 863 to 868 ms for torch on two cores without AVX-512, see the README) and at the pinned one (3 x 300).
Read timing.py for how it measures.
"""

import sys
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from benchmarks.agents import (
    ACTIONS,
    CONTROL,
    FRAMEWORKS,
    PLANNED,
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
from replications.planet import agent_jax, agent_torch
from replications.planet.config import Config
from shared.config import ROOT, build, read_yaml
from shared.errors import cli

PEERS_HEAD = {"reward_layers": 2, "reward_units": 200}
MODULES: Mapping[str, ModuleType] = {"torch": agent_torch, "jax": agent_jax}


def peers_config() -> Config:
    values = read_yaml(ROOT / "replications" / "planet" / "paper.yaml")
    values["model"] |= PEERS_HEAD
    return build(Config, values, where="the peers' setting")


def make_agent(framework: str, config: Config, device: str):
    agent_class = MODULES[framework].PlanetAgent
    return agent_class(config, {}, CONTROL, seed=np.random.SeedSequence(0), device=device)


def planner_gflop(config: Config) -> float:
    """Multiplications and additions of one plan's matrix products, in 10^9."""
    model, plan = config.model, config.planner
    gru = 3 * model.deter_size * (model.hidden_size + model.deter_size)
    prior = model.hidden_size * (model.stoch_size + ACTIONS + model.deter_size + 2 * model.stoch_size)
    head = model.reward_units * (
        model.stoch_size + model.deter_size + (model.reward_layers - 1) * model.reward_units + 1
    )
    return 2 * (gru + prior + head) * plan.horizon * plan.iterations * plan.candidates / 1e9


def measure(device: str, seconds: float, names: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """name (act_laptop, ...) -> what agents.in_turns gives, and what the planner reaches."""
    results: dict[str, dict[str, object]] = {}
    configs = {name: scale_config(Config, "planet", "rssm", name) for name in SCALES}
    for scale, config in {**configs, "peers": peers_config()}.items():
        if scale not in names:
            continue
        functions = {framework: work(scale, make_agent(framework, config, device)) for framework in FRAMEWORKS}
        found = in_turns(functions, seconds)
        gflop = planner_gflop(config)
        found["act"] |= {
            framework: {**found["act"][framework], "gflop": gflop, "gflops": gflop / found["act"][framework]["min"]}
            for framework in FRAMEWORKS
        }
        results |= {f"{what}_{scale}": times for what, times in found.items()}
    return results


def work(scale: str, agent) -> Functions:
    """What is measured of an agent; of the peers the planner alone was compared."""
    size, length = agent.config.batch.size, agent.config.batch.length
    functions = {"act": acting(agent, rows(1)), "update": learning(agent, batch(size, length))}
    return {"act": functions["act"]} if scale == "peers" else functions


@cli
def main(arguments: list[str]) -> None:
    run("planet", arguments, __doc__.splitlines()[0], (*SCALES, "peers"), measure, actions_of=PLANNED)


if __name__ == "__main__":
    sys.exit(main())
