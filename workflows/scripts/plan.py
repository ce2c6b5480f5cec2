"""Which runs a figure needs at a scale: experiments.yaml (task, variant, seed) cut down by scale.yaml.

Pure functions; used by workflows/common.smk and by cost.py, preview.py and status.py. Read next: cost.py.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, StringConstraints

from shared.config import ROOT, Strict, build, did_you_mean, listing, paper_folder, papers, read_yaml, shown
from shared.errors import UserError

Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]  # part of a result path
Tasks = Annotated[tuple[Word, ...], Field(min_length=1)]
Framework = Literal["torch", "jax"]


class Experiment(Strict):
    """One published figure or table: what is trained for it."""

    source: str  # where it stands in the paper
    caption: str
    expect: str  # what success looks like
    tasks: Tasks
    seeds: PositiveInt  # runs per task and variant; their seeds are 0, 1, ...
    variants: Annotated[dict[Word, dict[str, Any]], Field(min_length=1)]


class Scale(Strict):
    """A size of the whole: everything, or a part of it with smaller numbers."""

    name: Word
    purpose: str
    frameworks: Annotated[tuple[Framework, ...], Field(min_length=1)]
    tasks: dict[str, Tasks] | None  # paper -> the only tasks trained; null trains every experiment's own
    max_seeds: PositiveInt | None
    overrides: dict[str, dict[str, Any]]  # paper -> values of its paper.yaml


class Run(NamedTuple):
    """One training run; its fields are the folders of its path."""

    scale: str
    paper: str
    framework: str
    variant: str
    task: str
    seed: int

    @property
    def folder(self) -> str:
        return f"results/{self.scale}/{self.paper}/{self.framework}/{self.variant}/{self.task}"

    @property
    def file(self) -> str:
        return f"{self.folder}/seed_{self.seed}.h5"


def read_scale(path: str | Path) -> dict[str, Any]:
    """A scale.yaml, checked."""
    path = Path(path)
    content = read_yaml(path)
    build(Scale, content, where=shown(path))
    folder = path.resolve().parent.name
    if content["name"] != folder:
        raise UserError(
            f"{shown(path)}: name is {content['name']!r}, its folder {folder!r}; they must agree, because the name is "
            "the first folder of every result"
        )
    return content


def read_experiments(paper: str, *, root: Path = ROOT) -> dict[str, Experiment]:
    """The experiments of a paper, checked."""
    path = paper_folder(paper, root=root) / "experiments.yaml"
    contents = read_yaml(path)
    return {name: build(Experiment, content, where=f"{shown(path)}, {name}") for name, content in contents.items()}


def planned_runs(paper: str, figure: str, scale: Mapping[str, Any], *, root: Path = ROOT) -> list[Run]:
    """Every run that one figure needs at a scale, in the order of the files."""
    experiments = read_experiments(paper, root=root)
    if figure not in experiments:
        raise UserError(
            f"experiments.yaml of {paper}: no experiment {figure!r}{did_you_mean(figure, experiments)}; "
            f"it has {listing(experiments)}"
        )
    experiment = experiments[figure]
    tasks = (scale["tasks"] or {}).get(paper, experiment.tasks)
    check_tasks(paper, tasks, scale, root=root)
    seeds = min(experiment.seeds, scale["max_seeds"] or experiment.seeds)
    return [
        Run(scale["name"], paper, framework, variant, task, seed)
        for framework in scale["frameworks"]
        for variant in experiment.variants
        for task in tasks
        for seed in range(seeds)
    ]


def check_tasks(paper: str, tasks: Iterable[str], scale: Mapping[str, Any], *, root: Path = ROOT) -> None:
    """Raise UserError for a task that the paper has no action repeat for: it could not be run."""
    path = paper_folder(paper, root=root) / "paper.yaml"
    known = read_yaml(path)["environment"]["action_repeat"]
    for task in tasks:
        if task not in known:
            raise UserError(
                f"scale {scale['name']} or experiments.yaml of {paper}: unknown task {task!r}"
                f"{did_you_mean(task, known)}; {shown(path)}, environment.action_repeat, has {listing(known)}"
            )


def all_runs(scale: Mapping[str, Any], *, root: Path = ROOT) -> list[Run]:
    """Every run of every paper at a scale, each once (figures share runs)."""
    runs: Iterable[Run] = (
        run
        for paper in papers(root=root)
        for figure in read_experiments(paper, root=root)
        for run in planned_runs(paper, figure, scale, root=root)
    )
    return list(dict.fromkeys(runs))
