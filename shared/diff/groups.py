"""Groups of learning curves: our runs of one paper, framework and variant, or a published release. One kind of thing.

A group knows in what its returns were measured (evaluation or training episodes), its scale, its paper and version, so
that compare.py can refuse what does not fit. Env steps are simulator steps, action repeat included, everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from shared.diff import published
from shared.errors import UserError
from shared.figures.curves import evaluations, lives_are_episodes
from shared.figures.sources import Source, load_runs, mixtures
from shared.results import METRICS, list_runs, read_run

EVALUATION, TRAINING = "evaluation", "training"
UNIT = METRICS["env_steps"][0]
POINTS = ["task", "seed", "env_steps", "return"]
PARTS = ("paper", "framework", "variant", "task")


@dataclass(frozen=True)
class Group:
    """Curves of several seeds and tasks.

    name: as asked for. version: our variant, or the release's version. scale: smoke, laptop or paper; published is
    paper. points: kind of returns -> task, seed, env_steps, return (undiscounted). unit: of env_steps. variants: of
    ours that a release's agent is set as; empty for runs. faults: why its own curves must not be averaged.
    """

    name: str
    paper: str
    version: str
    scale: str
    points: Mapping[str, pd.DataFrame]
    unit: str = UNIT
    framework: str = ""
    published: bool = False
    variants: tuple[str, ...] = ()
    protocol: str = ""
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    sources: tuple[Source, ...] = field(default=(), repr=False)

    @property
    def tasks(self) -> set[str]:
        return {task for table in self.points.values() for task in table["task"]}


def of_release(release: published.Release, task: str = "*") -> Group:
    """A published release as a group; task: a name or a shell pattern."""
    table = published.load(release)
    exact = table.attrs["exact"]
    table = table[[fnmatchcase(name, task) for name in table["task"]]][POINTS]
    if table.empty:
        raise UserError(
            f"published:{release.name}: no task {task!r}; it has {', '.join(published.tasks(release.name))}"
        )
    notes = [release.note] if release.note else []
    if not exact:
        notes.append(f"derived table: means over {release.end // published.BINS:,} env steps")
    return Group(
        name=f"published:{release.name}" + ("" if task == "*" else f"/{task}"),
        paper=release.paper,
        version=release.version,
        scale="paper",
        points={release.returns: table},
        published=True,
        variants=release.variants,
        protocol=release.protocol,
        notes=tuple(notes),
    )


def of_paths(paths: Sequence[Path], name: str) -> Group:
    """Run files as a group: of one paper, framework, variant and scale, any tasks and seeds, finished or not.

    Raises:
      UserError: none, several of these, the same run twice, or a file that is no run.
    """
    if not paths:
        raise UserError(f"{name}: no run file")
    papers = {Path(path): None for path in paths}
    first = load_one(next(iter(papers)))
    paper = first.run.attrs["paper"]
    sources = load_runs(papers, paper=paper, tasks=["*"], variants=["*"])
    for part in ("framework", "variant"):
        found = sorted({str(source.run.attrs[part]) for source in sources})
        if len(found) > 1:
            raise UserError(f"{name}: runs of several {part}s ({', '.join(found)}); name one")
    mixed = tuple(note for notes in mixtures(sources).values() for note in notes)
    units = sorted({unit_of(source.path) for source in sources})
    if len(units) > 1:
        raise UserError(f"{name}: runs that count env steps in {' and in '.join(units)}; give those of one unit")
    tables = {EVALUATION: [evaluations(source)[POINTS] for source in sources]}
    if not any(map(lives_are_episodes, sources)):
        tables[TRAINING] = [training(source) for source in sources]
    points = {kind: pd.concat(parts, ignore_index=True) for kind, parts in tables.items()}
    unfinished = [f"{source.task} seed {source.seed}" for source in sources if not source.complete]
    return Group(
        name=name,
        paper=paper,
        version=str(first.run.attrs["variant"]),
        scale=first.scale,
        points={kind: table for kind, table in points.items() if len(table)},
        unit=units[0],
        framework=str(first.run.attrs["framework"]),
        notes=(f"unfinished: {', '.join(unfinished)}",) if unfinished else (),
        faults=mixed,
        sources=tuple(sources),
    )


def unit_of(path: Path) -> str:
    """The unit that a run file itself says its env steps have."""
    with h5py.File(path, "r") as file:
        return str(file["eval/episode/env_steps"].attrs["unit"])


def load_one(path: Path) -> Source:
    """One run file, whatever its paper."""
    paper = read_run(path).attrs["paper"]
    (source,) = load_runs([path], paper=paper, tasks=["*"], variants=["*"])
    return source


def training(source: Source) -> pd.DataFrame:
    """Training episodes of one run, the random prefill included."""
    table = source.run.tables["train/episode"]
    return pd.DataFrame(
        {
            "task": source.task,
            "seed": source.seed,
            "env_steps": table["env_steps"].to_numpy(dtype=np.float64),
            "return": table["return"].to_numpy(dtype=np.float64),
        }
    )


def find(selector: str, root: Path) -> Group:
    """The runs below root that PAPER/FRAMEWORK/VARIANT[/TASK] fits; parts may be shell patterns, missing ones are any.

    Raises:
      UserError: no such run, or several papers, frameworks, variants or scales.
    """
    if not root.is_dir():
        raise UserError(f"--results {root}: no such folder; give one that has run files, for example results/laptop")
    parts = dict(zip(PARTS, selector.split("/"), strict=False))
    listed = list_runs(root)
    listed = listed[listed["status"] != "unreadable"]
    fits = [
        all(fnmatchcase(str(row[part]), pattern) for part, pattern in parts.items()) for _, row in listed.iterrows()
    ]
    paths = [Path(path) for path in listed.loc[fits, "path"]]
    if not paths:
        there = sorted({"/".join(str(row[part]) for part in PARTS) for _, row in listed.iterrows()})
        raise UserError(f"runs:{selector}: none below {root}; there is {', '.join(there) or 'no run at all'}")
    return of_paths(paths, f"runs:{selector} in {root}")
