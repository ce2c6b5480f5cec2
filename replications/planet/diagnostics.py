"""State diagnostics (Figure 11): what a finished, frozen PlaNet knows of positions, velocities and reward.

    FOLDER=results/smoke/planet/torch/rssm/cartpole_swingup
    python -m replications.planet.diagnostics --run $FOLDER/seed_0.h5 --out $FOLDER/seed_0.diagnostics.h5

Small networks learn to read the simulator's own states from the latent features of filtered episodes; the model is not
touched. On held-out episodes they then read the features that the model imagines after a few frames of context. The
features come from diagnostics_torch.py or diagnostics_jax.py; figures_states.py draws what is written here.
"""

import argparse
import functools
import importlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.random import PCG64, Generator, SeedSequence
from safetensors.numpy import load_file

from replications.planet.config import Config, Model
from replications.planet.train import framework_module
from shared import errors, provenance
from shared.checkpoint import hdf5_image, write_whole
from shared.config import ROOT, build
from shared.envs.dmc import DMC
from shared.envs.vector import VectorEnv
from shared.errors import UserError
from shared.figures.sources import file_sha256
from shared.formulas.images import quantise
from shared.formulas.optimisers import adam_tf
from shared.formulas.sequences import previous_actions
from shared.results import IDENTITY, Run, read_run
from shared.training.evaluate import record
from shared.training.random_agent import RandomAgent

SCHEMA = 1
KINDS = ("agent", "random")  # who plays the episodes: the agent without exploration; uniform random actions
STREAMS = ("agent", "planning", "random", "actions", "noise", "networks")
STREAM = 1000  # these streams are children of the run's seed that training does not use
REWARD = "reward"  # of arriving at a row
# ours: sizes and fit of the small networks; the paper says only that they are small.
UNITS = (100, 100)  # of the two hidden layers
PASSES = 100  # over the training rows: few rows are not learned by heart
BATCH, LEARNING_RATE = 250, 1e-3
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
CODE = ("shared/config.py", "shared/formulas", "shared/envs", "shared/training")

Rows = Mapping[str, np.ndarray]
Series = dict[str, np.ndarray]  # component of the state -> (E, T, K)


@dataclass(frozen=True)
class Diagnostics:
    """A diagnostics file in memory: identity of the run, settings, and held-out series, one episode per kind.

    truth, prediction, filtered: component -> (E, T, K). The prediction is filtered for `context` rows, imagined after.
    spread: component -> (K,), standard deviation in the training episodes.
    """

    path: Path
    attrs: dict[str, Any]
    truth: Series
    prediction: Series
    filtered: Series
    spread: dict[str, np.ndarray]


# ------------------------------------------------------------------------------------------------ small networks


Layers = list[tuple[np.ndarray, np.ndarray]]  # weight (inputs, outputs) and bias of each dense layer


def forward(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """Inputs (B, F) of every dense layer, ReLU between them, and the output (B, K) last."""
    values = [x]
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        values.append(x if number == len(layers) - 1 else np.maximum(x, 0))
        x = values[-1]
    return values


def gradients(layers: Layers, x: np.ndarray, y: np.ndarray) -> Layers:
    """Gradient of the mean squared error over (B, K), in the shapes of the layers."""
    *inputs, output = forward(layers, x)
    slope, found = 2 * (output - y) / y.size, []
    for (weight, _), value in zip(reversed(layers), reversed(inputs), strict=True):
        found.append((value.T @ slope, slope.sum(0)))
        slope = (slope @ weight.T) * (value > 0)  # the ReLU before this layer; unused for the first
    return found[::-1]


def fit(inputs: np.ndarray, targets: np.ndarray, generator: Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A small network from features (M, F) to states (M, K), as a function of features (..., F).

    Two hidden layers of ReLU, Adam on the mean squared error; both ends are standardised by the training rows, a
    component that never changes is left as it is.
    """
    ends = [(rows.mean(0), np.where(rows.std(0) > 0, rows.std(0), 1)) for rows in (inputs, targets)]
    x, y = ((rows - mean) / std for rows, (mean, std) in zip((inputs, targets), ends, strict=True))
    x, y = x.astype(np.float32), y.astype(np.float32)
    sizes = [x.shape[1], *UNITS, y.shape[1]]
    layers = [glorot(generator, *shape) for shape in zip(sizes[:-1], sizes[1:], strict=True)]
    moments = [[(np.zeros_like(part), np.zeros_like(part)) for part in layer] for layer in layers]
    for step in range(1, PASSES * len(x) // BATCH + 1):
        rows = generator.integers(len(x), size=BATCH)
        for number, grads in enumerate(gradients(layers, x[rows], y[rows])):
            updated = [
                adam_tf(part, grad, *moment, step, LEARNING_RATE, BETA1, BETA2, EPSILON)
                for part, grad, moment in zip(layers[number], grads, moments[number], strict=True)
            ]
            layers[number] = tuple(part for part, _, _ in updated)
            moments[number] = [(m, v) for _, m, v in updated]
    (x_mean, x_std), (y_mean, y_std) = ends
    return lambda features: forward(layers, (features - x_mean) / x_std)[-1] * y_std + y_mean


def glorot(generator: Generator, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight uniform in +-sqrt(6 / (inputs + outputs)), and a zero bias."""
    limit = np.sqrt(6 / (inputs + outputs))
    weight = generator.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
    return weight, np.zeros(outputs, np.float32)


# ------------------------------------------------------------------------------------------------ episodes


def episodes(agent: Any, envs: VectorEnv) -> dict[str, np.ndarray]:
    """One whole episode per environment, without exploration: rows and actions, (N, T, ...)."""
    rows = record(agent, envs)
    assert rows["is_last"][:, -1].all(), "episodes of different length: a task that ends by itself"
    return rows


def states_of(rows: Rows) -> Series:
    """The simulator's states by component, and the reward, each (N, T, K)."""
    found = {name.removeprefix("state/"): value for name, value in rows.items() if name.startswith("state/")}
    return {**found, REWARD: rows["reward"][..., None].astype(np.float64)}


def features_of(
    latent_features: Callable[..., np.ndarray], sizes: Model, rows: Rows, generator: Generator, contexts: Sequence[int]
) -> list[np.ndarray]:
    """Latent features (N, T, F) for each number of context rows, all with the same noise; episode by episode."""
    actions, found = previous_actions(rows["action"], rows["is_first"]), [[] for _ in contexts]
    for image, action in zip(rows["image"], actions, strict=True):
        uniform = generator.random(image.shape, np.float32)
        pixels = quantise(image.astype(np.float32), sizes.image_bits, uniform)[None]
        noise = generator.standard_normal((1, len(image), sizes.stoch_size), np.float32)
        for features, context in zip(found, contexts, strict=True):
            features.append(latent_features(pixels, action[None], noise, context=context)[0])
    return [np.stack(features) for features in found]


# ------------------------------------------------------------------------------------------------ one run


def diagnose(options: argparse.Namespace) -> None:
    """Play, fit, predict, write: config.evaluation.episodes training episodes and one held-out episode of each kind."""
    run = finished(options.run)
    config = build(Config, yaml.safe_load(run.config_text)["values"], where=str(options.run))
    framework, task, video = run.attrs["framework"], run.attrs["task"], config.video
    options.device = framework_module(framework).prepare(options.device, options.threads)
    seed = SeedSequence(run.attrs["seed"], spawn_key=(STREAM,))
    seeds = dict(zip(STREAMS, seed.spawn(len(STREAMS)), strict=True))
    played = {}
    for kind in KINDS:
        envs = VectorEnv(make_env(config, task), config.evaluation.episodes + 1, seeds[kind])
        try:
            if kind == "agent":
                agent = restored(options, config, framework, envs, seeds["planning"])
            player = agent if kind == "agent" else RandomAgent(envs.act_spec, seeds["actions"])
            played[kind] = episodes(player, envs)
        finally:
            envs.close()
    rows = {key: np.concatenate([played[kind][key][:-1] for kind in KINDS]) for key in played["agent"]}
    held_out = {
        key: np.concatenate([played[kind][key][-1:, : video.length] for kind in KINDS]) for key in played["agent"]
    }
    noise, networks = (Generator(PCG64(seeds[name])) for name in ("noise", "networks"))
    module = importlib.import_module(f"replications.planet.diagnostics_{framework}")
    latent_features = functools.partial(module.latent_features, agent.model)
    (seen,) = features_of(latent_features, config.model, rows, noise, [rows["reward"].shape[1]])
    filtered, dreamt = features_of(latent_features, config.model, held_out, noise, [video.length, video.context])
    truth, targets = states_of(held_out), states_of(rows)
    read = {name: fit(flat(seen), flat(value), networks) for name, value in targets.items()}
    write(
        options,
        run,
        attrs={"context": video.context, "training_episodes": len(KINDS) * config.evaluation.episodes},
        series={
            "truth": truth,
            "prediction": {name: read[name](dreamt) for name in truth},
            "filtered": {name: read[name](filtered) for name in truth},
        },
        spread={name: flat(value).std(0) for name, value in targets.items()},
    )


def flat(series: np.ndarray) -> np.ndarray:
    """(N, T, K) -> (N * T, K)."""
    return series.reshape(-1, series.shape[-1])


def make_env(config: Config, task: str) -> Callable[[], DMC]:
    """The run's environment, with the simulator's states in its rows."""
    return functools.partial(DMC, task, **config.environment.of_task(task), states=True)


def finished(path: Path) -> Run:
    """The run, if it has a model of one task and is complete."""
    run = read_run(path)
    where, task = f"--run {path}", run.attrs["task"]
    if run.attrs["status"] != "complete":
        raise UserError(f"{where}: the run is not finished, so it has no parameters yet; finish it first")
    if run.attrs["framework"] not in ("torch", "jax"):
        raise UserError(f"{where}: a run of framework {run.attrs['framework']} has no model; give one of torch or jax")
    if task not in yaml.safe_load(run.config_text)["values"]["environment"]["action_repeat"]:
        raise UserError(f"{where}: task {task!r} is no single task; give the run of an agent that has one")
    return run


def restored(options: argparse.Namespace, config: Config, framework: str, envs: VectorEnv, seed: SeedSequence) -> Any:
    """The agent with the parameters that lie beside the run; UserError where they are missing or do not fit."""
    path = options.run.with_suffix(".safetensors")
    if not path.is_file():
        raise UserError(f"{path}: no such file; the parameters of a finished run belong beside {options.run}")
    seen = {"image": envs.obs_spec["image"]}  # not the states
    agent = framework_module(framework).PlanetAgent(config, seen, envs.act_spec, seed=seed, device=options.device)
    try:
        parameters = load_file(path)
    except Exception as error:  # the library's own exception has no public name
        raise UserError(f"{path}: not a safetensors file ({error}); train the run again") from error
    have, want = ({name: value.shape for name, value in tree.items()} for tree in (parameters, agent.parameters()))
    wrong = [name for name in {**want, **have} if have.get(name) != want.get(name)]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{path}: {name} has shape {have.get(name)}, the config of {options.run} wants {want.get(name)} "
            f"({len(wrong)} such); the two files are not of one run"
        )
    agent.load_parameters(parameters)
    return agent


# ------------------------------------------------------------------------------------------------ file


def write(
    options: argparse.Namespace,
    run: Run,
    *,
    attrs: Mapping[str, Any],
    series: Mapping[str, Series],
    spread: Mapping[str, np.ndarray],
) -> None:
    """The file of one run's diagnostics, whole or not at all."""
    facts = provenance.collect(
        command=options.command,
        device=options.device,
        threads=options.threads,
        seeds={"seed": int(run.attrs["seed"]), "stream": STREAM, "streams": STREAMS},
        code_paths=code_paths(str(run.attrs["framework"])),
        renderer=os.environ.get("MUJOCO_GL", "none"),
        libraries=[str(run.attrs["framework"]), "numpy", "mujoco", "dm_control"],
    )
    settings = {"units": UNITS, "passes": PASSES, "batch": BATCH, "learning_rate": LEARNING_RATE}

    def fill(file: h5py.File) -> None:
        file.attrs.update({"schema": SCHEMA, **{name: run.attrs[name] for name in IDENTITY}, **attrs})
        file.attrs.update({"kinds": json.dumps(KINDS), "settings": json.dumps(settings)})
        file.attrs.update({"run_sha256": file_sha256(options.run), "config_sha256": run.config_sha256})
        file.create_group("provenance").attrs.update(facts)
        for name, components in series.items():
            for component, value in components.items():
                file.create_dataset(f"{name}/{component}", data=value)
        for component, value in spread.items():
            file[f"truth/{component}"].attrs["spread"] = value

    data = hdf5_image(fill)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, data)
    print(f"wrote {options.out}")


def read_diagnostics(path: Path) -> Diagnostics:
    """Read what `write` wrote; UserError where it is something else."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA or "truth" not in file:
                raise UserError(f"{path}: no state diagnostics of schema {SCHEMA}; delete it and make it again")
            series = {
                name: {component: node[()] for component, node in file[name].items()}
                for name in ("truth", "prediction", "filtered")
            }
            spread = {component: node.attrs["spread"] for component, node in file["truth"].items()}
            attrs = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; python -m replications.planet.diagnostics makes it") from None
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and make it again") from error
    return Diagnostics(path=Path(path), attrs=attrs, spread=spread, **series)


def code_paths(framework: str) -> list[Path]:
    """The code that decides the numbers, the run's own parameters aside."""
    own = ("config.py", f"model_{framework}.py", f"agent_{framework}.py", f"diagnostics_{framework}.py")
    folder = Path(__file__).parent
    return [*(ROOT / path for path in CODE), *(folder / name for name in own), Path(__file__)]


@errors.cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m replications.planet.diagnostics", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="finished run, its .safetensors beside it")
    parser.add_argument("--out", type=Path, required=True, help="file to write, ....diagnostics.h5")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="auto: cuda if there is one")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        raise UserError(f"--threads {options.threads}: expected a whole number of at least 1")
    if not options.out.name.endswith(".diagnostics.h5"):
        raise UserError(f"--out {options.out}: expected a name that ends in .diagnostics.h5 (a run file ends in .h5)")
    options.command = shlex.join(["python", "-m", "replications.planet.diagnostics", *arguments])
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read by the libraries when they are first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    diagnose(options)


if __name__ == "__main__":
    sys.exit(main())
