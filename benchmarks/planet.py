"""PlaNet in torch: milliseconds per update and per planned action, and how near that is to the machine's ceiling.

    python -m benchmarks.planet --out results/benchmarks/planet.json            (about three minutes on two cores)

The planner of the paper (12 / 10 / 1000 / 100) is measured at the size at which peers were (reward head 2 x 200, action
dimension 6: 748 ms for JAX, 863 to 868 ms for torch on two cores without AVX-512, see the README) and at the pinned one
(3 x 300). Read timing.py for how it measures.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from benchmarks.timing import interleave, report
from replications.planet.agent_torch import PlanetAgent, prepare
from replications.planet.config import Config
from shared.config import ROOT, build, read_yaml, resolve
from shared.envs.spec import ActSpec

ACTIONS = 6  # cheetah_run and walker_walk
PEERS_HEAD = {"reward_layers": 2, "reward_units": 200}


def scale_config(name: str) -> Config:
    """PlaNet's numbers at one of the repository's scales."""
    scale = yaml.safe_load((ROOT / "workflows" / "profiles" / name / "scale.yaml").read_text())
    return build(Config, resolve("planet", "rssm", scale)["values"], where=f"scale {name}")


def peers_config() -> Config:
    values = read_yaml(ROOT / "replications" / "planet" / "paper.yaml")
    values["model"] |= PEERS_HEAD
    return build(Config, values, where="the peers' setting")


def make_agent(config: Config, device: str) -> PlanetAgent:
    return PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(0), device=device)


def rows(*shape: int) -> dict[str, np.ndarray]:
    """Random rows of experience."""
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (*shape, 64, 64, 3), np.uint8),
        "action": random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32),
        "reward": random.uniform(0, 1, shape).astype(np.float32),
        "is_first": np.zeros(shape, bool),
        "is_last": np.zeros(shape, bool),
    }


def acting(config: Config, device: str):
    agent, obs = make_agent(config, device), rows(1)
    carry = agent.initial_carry(1)
    return lambda: agent.act(obs, carry, explore=True)  # ends with a copy to NumPy, so it waits for the device


def learning(config: Config, device: str):
    agent = make_agent(config, device)
    batch = rows(config.batch.size, config.batch.length)
    batch["action_before"] = np.zeros((config.batch.size, ACTIONS), np.float32)
    return lambda: agent.learn(batch).metrics["loss"].item()


def planner_gflop(config: Config) -> float:
    """Multiplications and additions of one plan's matrix products, in 10^9."""
    model, plan = config.model, config.planner
    gru = 3 * model.deter_size * (model.hidden_size + model.deter_size)
    prior = model.hidden_size * (model.stoch_size + ACTIONS + model.deter_size + 2 * model.stoch_size)
    head = model.reward_units * (
        model.stoch_size + model.deter_size + (model.reward_layers - 1) * model.reward_units + 1
    )
    return 2 * (gru + prior + head) * plan.horizon * plan.iterations * plan.candidates / 1e9


def measure(device: str, seconds: float, paper_update: bool) -> Mapping[str, Mapping[str, float]]:
    configs = {"peers": peers_config(), "paper": scale_config("paper"), "laptop": scale_config("laptop")}
    functions = {f"act_{name}": acting(config, device) for name, config in configs.items()}
    functions["update_laptop"] = learning(configs["laptop"], device)
    functions["update_smoke"], functions["act_smoke"] = (
        make(scale_config("smoke"), device) for make in (learning, acting)
    )
    if paper_update:
        functions["update_paper"] = learning(configs["paper"], device)
    times = {name: dict(result) for name, result in interleave(functions, seconds).items()}
    for name, config in configs.items():
        gflop = planner_gflop(config)
        times[f"act_{name}"] |= {"gflop": gflop, "gflops": gflop / times[f"act_{name}"]["min"]}
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planet", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="per function")
    parser.add_argument("--paper-update", action="store_true", help="also 50 x 50 at full width: 10 s each on a CPU")
    options = parser.parse_args()
    device = prepare(options.device, options.threads)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    report("planet", measure(device, options.seconds, options.paper_update), options.out, device=device)


if __name__ == "__main__":
    sys.exit(main())
