"""PlaNet in torch and in JAX, in turns: ms per update and per planned action, and how near that is to the ceiling.

    python -m benchmarks.planet --out results/benchmarks/planet.json --speeds data/speeds.csv
    (about six minutes on two cores, of which JAX compiles for one and the paper's update takes three)

Both frameworks get the same threads and take turns, so the ratio torch / JAX of each round is a fair one. The paper's
planner (12 / 10 / 1000 / 100) is measured at the size at which peers were (reward head 2 x 200, action dimension 6:
748 ms for JAX, 863 to 868 ms for torch on two cores without AVX-512, see the README) and at the pinned one (3 x 300).
Read timing.py for how it measures.
"""

import argparse
import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.agents import ACTIONS, FRAMEWORKS, SCALES, batch, rows, scale_config, words, write_speeds
from benchmarks.timing import compare, report
from replications.planet import agent_jax, agent_torch
from replications.planet.config import Config
from shared.config import ROOT, build, read_yaml
from shared.envs.spec import ActSpec
from shared.errors import cli

PEERS_HEAD = {"reward_layers": 2, "reward_units": 200}
MODULES: Mapping[str, ModuleType] = {"torch": agent_torch, "jax": agent_jax}


def peers_config() -> Config:
    values = read_yaml(ROOT / "replications" / "planet" / "paper.yaml")
    values["model"] |= PEERS_HEAD
    return build(Config, values, where="the peers' setting")


def make_agent(framework: str, config: Config, device: str):
    agent_class = MODULES[framework].PlanetAgent
    return agent_class(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(0), device=device)


def acting(framework: str, config: Config, device: str):
    agent, obs = make_agent(framework, config, device), rows(1)
    carry = agent.initial_carry(1)
    return lambda: agent.act(obs, carry, explore=True)  # ends with a copy to NumPy, so it waits for the device


def learning(framework: str, config: Config, device: str):
    agent = make_agent(framework, config, device)
    chunks = batch(config.batch.size, config.batch.length)
    return lambda: agent.learn(chunks).metrics["loss"].item()


def planner_gflop(config: Config) -> float:
    """Multiplications and additions of one plan's matrix products, in 10^9."""
    model, plan = config.model, config.planner
    gru = 3 * model.deter_size * (model.hidden_size + model.deter_size)
    prior = model.hidden_size * (model.stoch_size + ACTIONS + model.deter_size + 2 * model.stoch_size)
    head = model.reward_units * (
        model.stoch_size + model.deter_size + (model.reward_layers - 1) * model.reward_units + 1
    )
    return 2 * (gru + prior + head) * plan.horizon * plan.iterations * plan.candidates / 1e9


def measure(device: str, seconds: float) -> dict[str, dict[str, object]]:
    """name (act_laptop, ...) -> {"torch": times, "jax": times, "torch_over_jax": the ratio of their rounds}."""
    results: dict[str, dict[str, object]] = {}
    configs = {name: scale_config(Config, "planet", "rssm", name) for name in SCALES}
    for scale, config in {**configs, "peers": peers_config()}.items():
        for what, make in (("act", acting), ("update", learning)):
            if (what, scale) == ("update", "peers"):
                continue  # the planner alone was compared
            functions = {framework: make(framework, config, device) for framework in FRAMEWORKS}
            times, ratios = compare(functions, {"torch_over_jax": ("torch", "jax")}, seconds)
            if what == "act":
                gflop = planner_gflop(config)
                times = {name: {**t, "gflop": gflop, "gflops": gflop / t["min"]} for name, t in times.items()}
            results[f"{what}_{scale}"] = {**times, **ratios}
    return results


def speeds(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, object]]:
    """PlaNet's rows of data/speeds.csv."""
    return [
        {
            "framework": framework,
            "scale": scale,
            "ms_per_update": 1000 * results[f"update_{scale}"][framework]["median"],
            "ms_per_planned_action": 1000 * results[f"act_{scale}"][framework]["median"],
        }
        for framework in FRAMEWORKS
        for scale in SCALES
    ]



@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planet", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--speeds", type=Path, help="also renew PlaNet's rows of this table (data/speeds.csv)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="per function")
    options = parser.parse_args(arguments)
    device = agent_torch.prepare(options.device, options.threads)
    agent_jax.prepare(device, options.threads)  # the same device, or an error
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"threads": options.threads, **measure(device, options.seconds)}
    full = report("planet", results, options.out, device=device)
    if options.speeds:
        source = f"{options.out or 'benchmarks/planet.py'} and environments.json, {datetime.date.today()}"
        where = words(device, options.threads, full)
        write_speeds(options.speeds, "planet", speeds(full["results"]), where, source)


if __name__ == "__main__":
    sys.exit(main())
