"""One side of the number level, in a process of its own: read the question, walk, write the answer.

    python -m shared.diff.side --paper planet --framework torch --question Q.h5 --answer A.h5 [--folder C] [--ask Q]

With --ask the question is made here first, from the config in it: inputs, first parameters. --folder is a copy of
replications/<paper>, read in place of the original; files that it lacks are taken from there. Nothing is pickled.
"""

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from shared.checkpoint import load_tree, save_tree
from shared.config import ROOT, build
from shared.diff.walk import ACTIONS, LENGTH, SIZE, influence, places
from shared.errors import UserError, cli

SEED = 0  # of the inputs


def overlay(paper: str, folder: Path) -> None:
    """From here on replications.<paper> is the folder, and the original for what it lacks."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a copy of replications/{paper}")
    name, start = f"replications.{paper}", ROOT / "replications" / paper / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, start, submodule_search_locations=[str(folder), str(start.parent)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def part(paper: str, name: str) -> Any:
    """A module of a replication, by name."""
    try:
        return importlib.import_module(f"replications.{paper}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"replications.{paper}.{name}":
            raise
        raise UserError(
            f"replications/{paper} has no {name}.py: its numbers cannot be walked (shared/diff/README.md)"
        ) from None


def ask(paper: str, framework: str, question: dict[str, Any]) -> dict[str, Any]:
    """The question with inputs and parameters: those that this side's agent starts from."""
    config = typed(paper, question)
    drawn = part(paper, "walk").draw(config, question["task"], np.random.default_rng(SEED), SIZE, LENGTH, ACTIONS)
    walk = part(paper, f"walk_{framework}").Walk(config, question["task"], None)
    parameters = {name: np.asarray(value, np.float64) for name, value in walk.parameters().items()}
    return {**question, **drawn, "parameters": parameters}


def typed(paper: str, question: dict[str, Any]) -> Any:
    """The paper's config object."""
    values = part(paper, "walk").prepare(json.loads(question["values"]))
    return build(part(paper, "config").Config, values, where="the question")


def answer(paper: str, framework: str, question: dict[str, Any]) -> dict[str, Any]:
    """places of the first update, influence, and losses and parameters after each of the updates in `marks`."""
    started = time.perf_counter()
    config, task = typed(paper, question), question["task"]
    parameters = {name: np.asarray(value) for name, value in question["parameters"].items()}
    walk = part(paper, f"walk_{framework}").Walk(config, task, parameters)
    inputs = (question["image"], question["rows"], question["noise"])
    reach = influence(walk, *inputs)
    found = places(walk, *inputs)
    marks, growth = question["marks"], {}
    entries = walk.entries(question["rows"])
    losses = {name.partition(" / ")[2]: value for name, value in found.items() if name.startswith(("loss", "norms"))}
    for update in range(1, max(marks) + 1):
        if update > 1:
            values, _, norms = walk.update(question["image"], entries, question["noise"])
            losses = values | norms
        if update in marks:
            growth[str(update)] = {"losses": numbers(losses), "parameters": numbers(walk.parameters())}
    seconds = time.perf_counter() - started
    return {"places": numbers(found), "influence": reach, "growth": growth, "seconds": seconds}


def numbers(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """float64 arrays, in the same order."""
    return {name: np.array(value, dtype=np.float64) for name, value in arrays.items()}


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m shared.diff.side", description=__doc__.splitlines()[0])
    parser.add_argument("--paper", required=True)
    parser.add_argument("--framework", required=True, choices=("torch", "jax"))
    parser.add_argument("--question", type=Path, required=True, help="tree of values, task, marks and inputs")
    parser.add_argument("--answer", type=Path, required=True, help="tree to write")
    parser.add_argument("--folder", type=Path, help="a copy of replications/<paper>")
    parser.add_argument("--ask", type=Path, help="make inputs and parameters, and write the whole question here")
    options = parser.parse_args(arguments)
    os.environ["JAX_ENABLE_X64"] = "1"  # before the agents' modules import JAX
    if options.folder:
        overlay(options.paper, options.folder.resolve())
    question = load_tree(options.question)
    if options.ask:
        question = ask(options.paper, options.framework, question)
        save_tree(options.ask, question)
    save_tree(options.answer, answer(options.paper, options.framework, question))


if __name__ == "__main__":
    sys.exit(main())
