"""Keep the finished runs of one paper and scale: small files under results/evidence/, committed with the repository.

    python -m workflows.scripts.evidence --scale workflows/profiles/laptop/scale.yaml --paper planet

Copies every complete run file (the same values, compressed) and its resolved config, draws the figures from the copies,
and lists the runs with commit, machine, command and wall time in runs.csv. Videos, which are most of a file, are kept
of the lowest seed of a curve alone: figures show that one.
What they show and do not show a person writes, in README.md there.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

from shared.config import ROOT
from shared.errors import UserError, cli
from shared.results import list_runs, read_run
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

FACTS = (
    *("git_commit", "git_dirty", "code_digest", "command", "started", "wall_seconds"),
    *("cpu", "gpu", "device", "threads", "renderer", "libraries"),
)
PACKED_FROM_BYTES = 4096  # shorter arrays are smaller as they are


def pack(source: Path, target: Path, without: str | None = None) -> None:
    """The same groups, values and attributes, with every long array compressed: about half the bytes.

    without: a group at the top that is left out.

    Series are kept as float64 but come from float32, so that whole bytes of them are zero; shuffling lines those up.
    """

    def copy(old: h5py.Group, new: h5py.Group) -> None:
        new.attrs.update(old.attrs)
        for name, node in old.items():
            if node.name == f"/{without}":
                continue
            if isinstance(node, h5py.Group):
                copy(node, new.create_group(name))
            elif node.shape and node.dtype.kind in "biuf" and node.nbytes >= PACKED_FROM_BYTES:
                packed = new.create_dataset(name, data=node[()], shuffle=True, compression="gzip", compression_opts=9)
                packed.attrs.update(node.attrs)
            else:
                old.copy(node, new, name)

    with h5py.File(source) as old, h5py.File(target, "w") as new:
        copy(old, new)


def copy_runs(source: Path, target: Path, paper: str) -> list[Path]:
    """Complete run files and their configs, by their paths below the scale's folder."""
    runs = list_runs(source, paper=paper)
    complete = runs[runs["status"] == "complete"]
    if complete.empty:
        raise UserError(f"no complete run of {paper} below {source}; evidence is made of complete runs only")
    curves = complete["path"].map(lambda path: str(Path(path).parent))
    lowest = complete["seed"] == complete.groupby(curves)["seed"].transform("min")
    copies = []
    for path, filmed in zip(map(Path, complete["path"]), lowest, strict=True):
        copy = target / path.relative_to(source / paper)
        copy.parent.mkdir(parents=True, exist_ok=True)
        pack(path, copy, without=None if filmed else "video")
        shutil.copyfile(path.with_name("config.yaml"), copy.with_name("config.yaml"))
        if (more := path.with_suffix(".diagnostics.h5")).exists():  # of PlaNet's Figure 11
            pack(more, copy.with_suffix(".diagnostics.h5"))
        copies.append(copy)
    return copies


def draw(paper: str, figure: str, scale: Mapping[str, Any], runs: list[Path], folder: Path) -> None:
    """One figure of the copied runs; the print version is left out to stay small."""
    seeds = len({run.seed for run in planned_runs(paper, figure, scale)})
    target = folder / figure
    call = [
        *(sys.executable, "-m", f"replications.{paper}.figures", figure, "--runs", *map(str, runs)),
        *("--scale", scale["name"], "--seeds", str(seeds), "--figure", f"{target}.pdf"),
        *("--numbers", f"{target}.csv", "--sources", f"{target}.json"),
    ]
    if subprocess.run(call, cwd=ROOT, check=False).returncode != 0:
        raise UserError(f"could not draw {paper} {figure}; the message above says why")
    target.with_suffix(".pdf").unlink()


def facts(path: Path) -> dict[str, Any]:
    run = read_run(path)
    identity = {name: run.attrs[name] for name in ("task", "variant", "framework", "seed", "env_steps", "status")}
    return {**identity, **{name: run.provenance.get(name, "") for name in FACTS}}


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflows.scripts.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=Path, required=True, help="a scale.yaml")
    parser.add_argument("--paper", required=True, help="for example planet")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the runs are (default: results)")
    parser.add_argument("--figures", nargs="+", help="which to draw (default: all with a run), for example figure_4")
    options = parser.parse_args(arguments)
    scale = read_scale(options.scale)
    experiments = read_experiments(options.paper)
    if unknown := set(options.figures or ()) - set(experiments):
        raise UserError(f"--figures {', '.join(sorted(unknown))}: {options.paper} has {', '.join(experiments)}")
    folder = options.results / "evidence" / options.paper / scale["name"]
    runs = copy_runs(options.results / scale["name"], folder, options.paper)
    kept = {path.parent.parent.name for path in runs}
    for figure in options.figures or experiments:
        planned = {run.variant for run in planned_runs(options.paper, figure, scale)}
        if kept & planned:  # a figure without any run would be a page of NOT RUN
            draw(options.paper, figure, scale, runs, folder)
    pd.DataFrame([facts(path) for path in runs]).to_csv(folder / "runs.csv", index=False)
    print(f"{len(runs)} runs kept in {folder}; now say in {folder}/README.md what they show")


if __name__ == "__main__":
    sys.exit(main())
