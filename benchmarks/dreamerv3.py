"""DreamerV3 in torch and in JAX, in turns: ms per update, what its parts take, ms per action; starts and memory.

    python -m benchmarks.dreamerv3 --out results/benchmarks/dreamerv3.json --speeds data/speeds.csv
    (eleven minutes on two cores with --seconds 2)

Settings: the repository's scales learn from vectors (24 numbers, as walker's), and `smoke_pixels` and `laptop_pixels`
from images. The others are named after what is observed, the model size and the batch: those of 8 x 32 are where peers
were measured, with the last commit's convolutions, six continuous actions and imagination from all rows. The numbers of
parameters in the results, 686,846 from pixels and 640,867 from vectors at size 1M, tell that they are those settings.

The parts of an update, at 8 x 32 and size 1M: `model` (its loss and gradient), `imagination` (forward alone: no
gradient passes it), `behaviour` (losses and gradients of actor and critic on what was imagined), `replayed` (the
critic's loss on replayed states) and `optimiser`. Where peers were measured each framework is also started twice, alone
(start.py): until an update is done, with an empty compilation cache and with a filled one, and the peak of its memory.
Read timing.py for how it measures.
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
    in_turns,
    learning,
    run,
    scale_config,
)
from benchmarks.agents import rows as image_rows
from benchmarks.start import starts
from replications.dreamerv3 import agent_jax, agent_torch, objectives_jax, objectives_torch, optimisers_jax
from replications.dreamerv3.config import LEARNERS, Config
from shared.config import build, resolve
from shared.envs.spec import ArraySpec
from shared.errors import cli

NUMBERS = 24  # that a walker observes
VARIANTS = {"vectors": "dreamerv3", "pixels": "vision"}
SIZED = {  # setting -> what is observed, size, batch
    "vectors_1m_8x32": ("vectors", "1m", 8, 32),
    "pixels_1m_8x32": ("pixels", "1m", 8, 32),
    "vectors_1m_16x64": ("vectors", "1m", 16, 64),
    "pixels_1m_16x64": ("pixels", "1m", 16, 64),
    "vectors_12m_8x32": ("vectors", "12m", 8, 32),
    "pixels_12m_8x32": ("pixels", "12m", 8, 32),
}  # scale paper is size 12M from vectors at 16 x 64
SETTINGS = (*SCALES, "smoke_pixels", "laptop_pixels", *SIZED)
IN_PARTS = ("vectors_1m_8x32", "pixels_1m_8x32")
STARTED = (*IN_PARTS, "laptop", "pixels_12m_8x32")
# In the table of speeds a scale is as slow as its runs from pixels. Scale paper has sizes from 12M to 200M: no row.
SPEEDS_OF = {"smoke": "smoke_pixels", "laptop": "laptop_pixels"}
MODULES = {"torch": agent_torch, "jax": agent_jax}
SLOPE = 1e-3  # any gradient: the optimiser takes as long


def make_config(setting: str) -> Config:
    """The numbers of one setting."""
    if setting not in SIZED:
        scale, _, kind = setting.partition("_")
        return scale_config(Config, "dreamerv3", VARIANTS[kind or "vectors"], scale)
    kind, size, batch, length = SIZED[setting]
    values = resolve("dreamerv3", VARIANTS[kind], {"name": "benchmark"})["values"]
    values["model"] |= {"size": size}
    values["batch"] |= {"size": batch, "length": length}
    return build(Config, values, where=setting)


def rows(config: Config, *shape: int) -> dict[str, np.ndarray]:
    """Random rows of experience with a memo, each (*shape, ...)."""
    random, found = np.random.default_rng(1), image_rows(*shape)
    if config.environment.observations == "vectors":
        found.pop("image")
        found["vector"] = random.normal(size=(*shape, NUMBERS)).astype(np.float32)
    stoch = random.integers(config.size.classes, size=(*shape, config.model.stoch_size), dtype=np.uint8)
    return {
        **found,
        "deter": random.uniform(-1, 1, (*shape, config.size.deter_size)).astype(np.float32),
        "stoch": stoch,
    }


def batch(config: Config) -> dict[str, np.ndarray]:
    """What the replay gives the agent to learn from."""
    return rows(config, config.batch.size, config.batch.context + config.batch.length)


def make_agent(framework: str, config: Config, device: str):
    obs_spec = {
        name: ArraySpec(value.shape[1:], str(value.dtype))
        for name, value in rows(config, 1).items()
        if name in ("image", "vector")
    }
    agent_class = MODULES[framework].DreamerV3Agent
    return agent_class(config, obs_spec, CONTROL, seed=np.random.SeedSequence(0), device=device)


def learned_parameters(agent: agent_torch.DreamerV3Agent) -> int:
    """How many numbers are learned: all but the slow critic's."""
    return sum(value.size for name, value in agent.parameters().items() if not name.startswith("slow_critic"))


def inputs(config: Config) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random inputs of model_objective, start states of imagination, and its noise.

    Of the model's inputs `obs` is a dict, images in [0, 1]; deter and stoch are the state before.
    """
    random, (size, length) = np.random.default_rng(0), (config.batch.size, config.batch.length)
    chunk = rows(config, size, length)
    key = "image" if "image" in chunk else "vector"
    seen = chunk[key].astype(np.float32) / (agent_torch.WHITE if key == "image" else 1)
    one_hot = np.eye(config.size.classes, dtype=np.float32)[chunk["stoch"]]
    model = {
        key: seen,
        "action": chunk["action"],
        "reward": chunk["reward"],
        "is_first": chunk["is_first"],
        "continuation": np.ones((size, length), np.float32),
        "noise": random.uniform(size=(size, length, config.model.stoch_size)).astype(np.float32),
        "deter": chunk["deter"][:, 0],
        "stoch": one_hot[:, 0],
    }
    chosen = slice(-config.behaviour.imagine_last, None)
    state = {"deter": chunk["deter"], "stoch": one_hot, "is_terminal": chunk["is_terminal"]}
    state = {name: value[:, chosen].reshape(-1, *value.shape[2:]) for name, value in state.items()}
    count, horizon = len(state["deter"]), config.behaviour.horizon
    noise = {
        "action_noise": random.normal(size=(horizon, count, ACTIONS)).astype(np.float32),
        "latent_noise": random.uniform(size=(horizon, count, config.model.stoch_size)).astype(np.float32),
    }
    return model, state, noise


def model_inputs(arrays: dict) -> dict:
    """The arrays as model_objective names them."""
    arrays = dict(arrays)
    key = "image" if "image" in arrays else "vector"
    return {"obs": {key: arrays.pop(key)}, "state": {name: arrays.pop(name) for name in ("deter", "stoch")}, **arrays}


def torch_parts(config: Config, device: str) -> Functions:
    """Name of a part of the update -> its computation in torch."""
    agent = make_agent("torch", config, device)
    chunk, state, noise = (
        {name: torch.from_numpy(np.ascontiguousarray(value)).to(device) for name, value in part.items()}
        for part in inputs(config)
    )
    chunk, is_terminal, behaviour = model_inputs(chunk), state.pop("is_terminal"), config.behaviour
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    learners = [parameter for name in LEARNERS for parameter in agent.parts[name].parameters()]
    slopes = [torch.full_like(parameter, SLOPE) for parameter in learners]

    def forget() -> None:
        for parameter in learners:
            parameter.grad = None

    def model() -> None:
        with agent.arithmetic():
            total = objectives_torch.model_objective(agent.model, config.loss, **chunk)[0]
        total.backward()
        forget()
        wait()

    def imagined() -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), agent.arithmetic():
            features, actions = objectives_torch.imagine_behaviour(agent.model, agent.actor, state, **noise)
            return features, actions, *objectives_torch.imagined_rewards(agent.model, behaviour, features, is_terminal)

    def imagination() -> None:
        imagined()
        wait()

    trajectory = imagined()
    networks = (agent.actor, agent.critic, agent.slow_critic, behaviour)

    def act_and_judge() -> None:
        with agent.arithmetic():
            actor, critic, *_ = objectives_torch.behaviour_objectives(*networks, agent.normaliser, *trajectory)
        (actor + critic).backward()
        forget()
        wait()

    shape = (config.batch.size, -1)
    features, flags = trajectory[0][0].unflatten(0, shape), is_terminal.unflatten(0, shape)
    reward, returns = trajectory[2][0].unflatten(0, shape), trajectory[2][1].unflatten(0, shape)

    def replayed() -> None:
        seen = features.detach().requires_grad_()
        with agent.arithmetic():
            value = objectives_torch.replay_value_objective(*networks[1:], seen, reward, flags, flags, returns)
        value.backward()
        forget()
        wait()

    def optimiser() -> None:
        for parameter, slope in zip(learners, slopes, strict=True):
            parameter.grad = slope
        agent.step(*LEARNERS)
        wait()

    return {
        "model": model,
        "imagination": imagination,
        "behaviour": act_and_judge,
        "replayed": replayed,
        "optimiser": optimiser,
    }


def jax_parts(config: Config, device: str) -> Functions:
    """Name of a part of the update -> its computation in JAX, compiled."""
    agent = make_agent("jax", config, device)
    chunk, state, noise = ({name: jnp.asarray(value) for name, value in part.items()} for part in inputs(config))
    settings, behaviour, learners = agent.settings, config.behaviour, agent.networks.learners()
    chunk, slow = model_inputs(chunk), agent.networks.slow_critic
    cast = functools.partial(agent_jax.arithmetic, settings)

    def explain(model, chunk):
        return objectives_jax.model_objective(cast(model), config.loss, **chunk)[0]

    def imagined(model, actor, state, noise):
        model, start = cast(model), {name: value for name, value in state.items() if name != "is_terminal"}
        features, actions = objectives_jax.imagine_behaviour(model, cast(actor), start, **noise)
        return features, actions, *objectives_jax.imagined_rewards(model, behaviour, features, state["is_terminal"])

    def act_and_judge(pair, slow, normaliser, trajectory):
        actor, critic = cast(pair)
        losses = objectives_jax.behaviour_objectives(actor, critic, cast(slow), behaviour, normaliser, *trajectory)
        return losses[0] + losses[1]

    def judge(critic_and_features, slow, reward, flags, returns):
        critic, features = critic_and_features
        objective = objectives_jax.replay_value_objective
        return objective(cast(critic), cast(slow), behaviour, features, reward, flags, flags, returns)

    def improve(learners, slopes, moments, updates):
        return optimisers_jax.step(settings.optimisers, learners, slopes, moments, updates)

    dream = (learners["model"], learners["actor"], state, noise)
    trajectory, shape = jax.jit(imagined)(*dream), (config.batch.size, -1)
    features = trajectory[0][0].reshape(*shape, trajectory[0].shape[-1])
    reward, returns, flags = (x.reshape(shape) for x in (*trajectory[2][:2], state["is_terminal"]))
    slopes = jax.tree.map(lambda x: jnp.full_like(x, SLOPE), learners)
    pair = (learners["actor"], learners["critic"])
    compiled = {
        "model": (jax.jit(jax.grad(explain)), (learners["model"], chunk)),
        "imagination": (jax.jit(imagined), dream),
        "behaviour": (jax.jit(jax.grad(act_and_judge)), (pair, slow, agent.normaliser, trajectory)),
        "replayed": (jax.jit(jax.grad(judge)), ((pair[1], features), slow, reward, flags, returns)),
        "optimiser": (jax.jit(improve), (learners, slopes, agent.moments, 1)),
    }
    return {
        name: functools.partial(lambda function, arguments: jax.block_until_ready(function(*arguments)), *call)
        for name, call in compiled.items()
    }


def measure(device: str, seconds: float, names: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """name (act_laptop, ...) -> what agents.in_turns gives; parameters_..., start_... -> framework -> start.starts."""
    results: dict[str, dict[str, object]] = {}
    for setting in SETTINGS:
        if setting not in names:
            continue
        config = make_config(setting)
        chunks, one = batch(config), rows(config, 1)
        agents = {framework: make_agent(framework, config, device) for framework in FRAMEWORKS}
        results[f"parameters_{setting}"] = {"learned": learned_parameters(agents["torch"])}
        functions = {
            name: {"act": acting(agent, one), "update": learning(agent, chunks)} for name, agent in agents.items()
        }
        found = in_turns(functions, seconds)
        del agents, functions
        if setting in IN_PARTS:
            found |= in_turns({"torch": torch_parts(config, device), "jax": jax_parts(config, device)}, seconds)
        if setting in STARTED:
            threads = torch.get_num_threads()
            found["start"] = {name: starts(name, config, chunks, device, threads) for name in FRAMEWORKS}
        results |= {f"{what}_{setting}": times for what, times in found.items()}
    return results


@cli
def main(arguments: list[str]) -> None:
    run("dreamerv3", arguments, __doc__.splitlines()[0], SETTINGS, measure, SPEEDS_OF)


if __name__ == "__main__":
    sys.exit(main())
