"""Which runs a figure needs at a scale: experiments.yaml (task, variant, seed) cut down by scale.yaml.

Pure functions; used by workflows/common.smk and by cost.py, preview.py and status.py. A grid (PlaNet's Figure 12) is
written out by shared/config.py. Read next: cost.py.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from shared.config import (
    ALL_TASKS,
    ROOT,
    Grid,
    Strict,
    build,
    did_you_mean,
    listing,
    paper_folder,
    papers,
    read_yaml,
    resolve,
    shown,
    variants_by_experiment,
)
from shared.errors import UserError

Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]  # part of a result path
Pattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9*][a-z0-9*_-]*$")]  # of variants, as in a shell
Tasks = Annotated[tuple[Word, ...], Field(min_length=1)]
Framework = Literal["torch", "jax"]


class Special(Strict):
    """Where a variant is run, if not on the experiment's tasks in the scale's frameworks; no scale changes it."""

    tasks: Tasks | None = None
    frameworks: Annotated[tuple[Literal["torch", "jax", "numpy"], ...], Field(min_length=1)] | None = None


class Experiment(Strict):
    """One published figure or table: what is trained for it."""

    source: str  # where it stands in the paper
    caption: str
    expect: str  # what success looks like
    tasks: Tasks
    seeds: PositiveInt  # runs per task and variant; their seeds are 0, 1, ...
    variants: dict[Word, dict[str, Any]] = {}
    grid: Grid | None = None  # further variants
    special: dict[Pattern, Special] = {}  # variant -> what differs

    @model_validator(mode="after")
    def something_is_run(self):
        if not self.variants and self.grid is None:
            raise ValueError("no variants and no grid; name at least one variant")
        return self


class Scale(Strict):
    """A size of the whole: everything, or a part of it with smaller numbers."""

    name: Word
    purpose: str
    frameworks: Annotated[tuple[Framework, ...], Field(min_length=1)]
    tasks: dict[str, Tasks] | None  # paper, or paper/experiment -> the only tasks trained; null: every experiment's own
    max_seeds: PositiveInt | None
    overrides: dict[str, dict[str, Any]]  # paper, or paper/variant (a shell pattern) -> values of its paper.yaml
    left_out: dict[str, tuple[Pattern, ...]] = {}  # paper -> variants not run
    grids: dict[str, dict[Word, dict[str, list[Any]]]] = {}  # paper -> experiment -> axis of its grid -> fewer values


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
    planned = variants_by_experiment(paper, scale, root=root)
    specials = specials_of(experiment, planned[figure], where=f"experiments.yaml of {paper}, {figure}")
    left_out = variants_left_out(paper, {name for variants in planned.values() for name in variants}, scale)
    variants = [variant for variant in planned[figure] if variant not in left_out]
    usual = usual_tasks(paper, figure, experiments, scale)
    tasks = {variant: specials[variant].tasks or tuple(usual) for variant in variants}
    frameworks = {variant: specials[variant].frameworks or tuple(scale["frameworks"]) for variant in variants}
    check_tasks(paper, tasks, scale, root=root)
    seeds = min(experiment.seeds, scale["max_seeds"] or experiment.seeds)
    return [
        Run(scale["name"], paper, framework, variant, task, seed)
        for framework in dict.fromkeys(name for names in frameworks.values() for name in names)
        for variant in variants
        if framework in frameworks[variant]
        for task in tasks[variant]
        for seed in range(seeds)
    ]


def specials_of(experiment: Experiment, variants: Iterable[str], *, where: str) -> dict[str, Special]:
    """Variant -> what is special about it, nothing for most; UserError for a pattern that fits no variant."""
    found = dict.fromkeys(variants, Special())
    for pattern, special in experiment.special.items():
        fitting = [variant for variant in found if fnmatchcase(variant, pattern)]
        if not fitting:
            raise UserError(f"{where}, special: {pattern!r} fits no variant; it has {listing(found)}")
        found |= dict.fromkeys(fitting, special)
    return found


def variants_left_out(paper: str, variants: set[str], scale: Mapping[str, Any]) -> set[str]:
    """The variants that a scale does not run; UserError for a pattern that fits none."""
    found = set()
    for pattern in scale.get("left_out", {}).get(paper, ()):
        fitting = {variant for variant in variants if fnmatchcase(variant, pattern)}
        if not fitting:
            raise UserError(
                f"left_out of scale {scale['name']}: {pattern!r} fits no variant of {paper}"
                f"{did_you_mean(pattern, variants)}; it has {listing(variants)}"
            )
        found |= fitting
    return found


def usual_tasks(paper: str, figure: str, experiments: Mapping[str, Experiment], scale: Mapping[str, Any]) -> Tasks:
    """The tasks of an experiment at a scale; UserError where the scale names an experiment that is not there."""
    chosen = scale["tasks"] or {}
    for key in chosen:
        of, _, experiment = key.partition("/")
        if of == paper and experiment and experiment not in experiments:
            raise UserError(
                f"tasks of scale {scale['name']}: {key!r} is no experiment of {paper}"
                f"{did_you_mean(experiment, experiments)}; it has {listing(experiments)}"
            )
    return chosen.get(f"{paper}/{figure}", chosen.get(paper, experiments[figure].tasks))


def known_tasks(paper: str, *, root: Path = ROOT) -> tuple[set[str], str]:
    """The tasks that a paper can be run on, and where they stand: those with an action repeat of their own, or, where
    all tasks have the same, those of its experiments."""
    folder = paper_folder(paper, root=root)
    repeats = read_yaml(folder / "paper.yaml")["environment"]["action_repeat"]
    if isinstance(repeats, Mapping):
        return set(repeats), f"{shown(folder / 'paper.yaml')}, environment.action_repeat,"
    experiments = read_experiments(paper, root=root).values()
    return {task for experiment in experiments for task in experiment.tasks}, shown(folder / "experiments.yaml")


def check_tasks(paper: str, tasks: Mapping[str, Tasks], scale: Mapping[str, Any], *, root: Path = ROOT) -> None:
    """Raise UserError for a task that the paper does not know: it could not be run. tasks: by variant."""
    path = paper_folder(paper, root=root) / "paper.yaml"
    known, where = known_tasks(paper, root=root)
    played = {task for names in tasks.values() for task in names if task != ALL_TASKS}
    for variant in (variant for variant, names in tasks.items() if ALL_TASKS in names):
        joint = resolve(paper, variant, scale, root=root)["values"]["environment"].get("joint_tasks")
        if not joint:
            raise UserError(
                f"variant {variant!r} of {paper}: task {ALL_TASKS} needs environment.joint_tasks, the list of its "
                f"tasks; add it to {shown(path)} or to the variant"
            )
        played |= set(joint)
    for task in sorted(played - set(known)):
        raise UserError(
            f"scale {scale['name']} or experiments.yaml of {paper}: unknown task {task!r}"
            f"{did_you_mean(task, known)}; {where} has {listing(known)}"
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
