"""How far an update in mixed precision is from the same one in float32: its losses, and the gradient of every module.

    python -m replications.dreamerv3.precision --numbers F.csv [--size tiny]

First weights, moved a little, and a control task seen as vectors and as an image; torch and JAX take the same weights,
rows and noise, on the CPU. Everything is measured twice. Draws "free": uniform noise as an update has it, so that
rounding lets some latents fall into another class. Draws "held": the same noise at its ends, where no rounding changes
a class. shared/figures/core.py draws the numbers.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from replications.dreamerv3 import walk
from replications.dreamerv3.config import Config
from shared.checkpoint import write_whole
from shared.config import build, replace, resolve
from shared.diff.walk import ACTIONS, Arrays
from shared.envs.spec import ArraySpec
from shared.errors import cli

TASK = "cartpole_swingup"  # decides that actions are continuous, and nothing else
SEED = 0
SIZES = {  # name -> what is not as in paper.yaml; every size has rows enough for an episode's end and beginning
    "tiny": {
        **{"sizes.1m.deter_size": 32, "sizes.1m.units": 16, "sizes.1m.image_depth": 2, "model.size": "1m"},
        **{"model.stoch_size": 8, "model.blocks": 4, "model.bins": 41, "behaviour.horizon": 5},
        **{"batch.size": 4, "batch.length": 8},
    },
    "1m": {"model.size": "1m", "batch.size": 8, "batch.length": 32},
}
FRAMEWORKS = ("torch", "jax")
MODULES = {  # name on the page -> how the names of its parameters begin
    "encoder": "model.encoder.",
    "latent model": "model.latent.",
    "decoder": "model.decoder.",
    "reward": "model.reward.",
    "continuation": "model.continuation.",
    "actor": "actor.",
    "critic": "critic.",
}
IMAGE = ArraySpec((64, 64, 3), "uint8")
SQUARE = 16  # pixels of one colour: noise of single pixels looks always the same to convolutions
NEARLY_ONE = 0.9999  # inside the last class, whose share is more


class Measured(NamedTuple):
    """One update: losses by name, gradients by parameter, and the classes of the posterior, (B, T, S)."""

    losses: Arrays
    gradients: Arrays
    classes: np.ndarray


def make_config(size: str) -> Config:
    """The paper's values at a size of SIZES, with no more free nats than let the divergence be seen."""
    values = resolve("dreamerv3", "dreamerv3", {"name": "paper"})["values"]
    for key, value in SIZES[size].items():
        replace(values, key, value, where="replications/dreamerv3/precision.py")
    return build(Config, walk.prepare(values), where="replications/dreamerv3/precision.py")


def draw(config: Config) -> tuple[dict[str, ArraySpec], Any, Arrays, dict[str, Arrays]]:
    """(what is seen, what is done, rows, {draws: noise}): vectors of the walk of shared/diff, and an image beside."""
    obs_spec, act_spec = walk.specs(config, TASK, ACTIONS)
    random, batch = np.random.default_rng(SEED), config.batch
    drawn = walk.draw(config, TASK, random, batch.size, batch.length, ACTIONS)
    squares = random.integers(0, 256, (batch.size, batch.context + batch.length, 4, 4, IMAGE.shape[-1]), np.uint8)
    rows = {**drawn["rows"], "image": squares.repeat(SQUARE, axis=2).repeat(SQUARE, axis=3)}
    free = {name: x.astype(np.float32) for name, x in drawn["noise"].items()}
    held = {name: x if name == "action_noise" else np.float32(NEARLY_ONE) * (x > 0.5) for name, x in free.items()}
    return {**obs_spec, "image": IMAGE}, act_spec, rows, {"held": held, "free": free}


def measure(size: str, frameworks: Sequence[str] = FRAMEWORKS) -> pd.DataFrame:
    """A row per framework, draws and number; see `compared`."""
    config = make_config(size)
    *specs, rows, noises = draw(config)
    first = walk.moved_from_first(side("torch").first_parameters(config, specs))
    parameters = {name: np.asarray(x, np.float32) for name, x in first.items()}
    facts = {"device": "cpu", "size": size, "windows": config.batch.size, "rows": config.batch.length}
    found = []
    for framework in frameworks:
        inputs = (config, specs, parameters, rows, noises)
        exact, mixed = (side(framework).updates(*inputs, mixed=x) for x in (False, True))
        for draws in noises:
            of_all = compared(exact[draws], mixed[draws])
            found += [{"framework": framework, "draws": draws, **row, **facts} for row in of_all]
    return pd.DataFrame(found)


def side(framework: str) -> ModuleType:
    """The file with `updates` in a framework."""
    return importlib.import_module(f"replications.dreamerv3.precision_{framework}")


def compared(exact: Measured, mixed: Measured) -> Iterator[dict[str, Any]]:
    """Rows of kind loss (both values), gradient (both norms, of a module), classes (their number, those that differ).

    relative: |difference| / |float32's|, in the Euclidean norm. cosine: between both gradients.
    """
    for name, value in exact.losses.items():
        values = {"float32": float(value), "mixed": float(mixed.losses[name])}
        yield {"kind": "loss", "name": name, **values, "relative": apart(value, mixed.losses[name]), "cosine": None}
    for module, begin in MODULES.items():
        ours, theirs = (joined(slopes, begin) for slopes in (mixed.gradients, exact.gradients))
        norms = {"float32": float(np.linalg.norm(theirs)), "mixed": float(np.linalg.norm(ours))}
        cosine = float(ours @ theirs) / (norms["float32"] * norms["mixed"])
        yield {"kind": "gradient", "name": module, **norms, "relative": apart(theirs, ours), "cosine": cosine}
    differ = int((exact.classes != mixed.classes).sum())
    number = exact.classes.size
    shown = {"float32": number, "mixed": differ, "relative": differ / number, "cosine": None}
    yield {"kind": "classes", "name": "classes of the posterior", **shown}


def apart(exact: np.ndarray, other: np.ndarray) -> float:
    """|other - exact| / |exact|."""
    return float(np.linalg.norm(np.subtract(other, exact, dtype=np.float64)) / np.linalg.norm(exact))


def joined(slopes: Mapping[str, np.ndarray], begin: str) -> np.ndarray:
    """The gradient of all parameters whose names begin so, as one vector in float64."""
    parts = [np.ravel(value).astype(np.float64) for name, value in sorted(slopes.items()) if name.startswith(begin)]
    return np.concatenate(parts)


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m replications.dreamerv3.precision", description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=Path, required=True, help="CSV to write")
    parser.add_argument("--size", choices=SIZES, default="1m", help="tiny: seconds")
    asked = parser.parse_args(arguments)
    frame = measure(asked.size)
    asked.numbers.parent.mkdir(parents=True, exist_ok=True)
    write_whole(asked.numbers, frame.to_csv(index=False, lineterminator="\n").encode())
    print(f"precision: {len(frame)} rows; wrote {asked.numbers}")


if __name__ == "__main__":
    sys.exit(main())
