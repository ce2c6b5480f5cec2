"""Configuration: one paper.yaml per paper, a variant, a scale, resolved into one mapping and built into a typed model.

Layers, in order: replications/<paper>/paper.yaml (the claim), the overrides of a scale for the paper (smoke and laptop
only), the variant named in experiments.yaml, the overrides of the scale for that variant. So a scale does not undo what
a variant is, unless it names it. A mistake is a UserError that names the file, the key, the value and the way out.
Read next: replications/planet/paper.yaml, replications/planet/config.py (types and units).
"""

import copy
import difflib
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from shared.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ALL_TASKS = "all_tasks"  # the task of a run in which one agent learns all of environment.joint_tasks
RESOLVED_KEYS = {"paper", "variant", "scale", "overrides", "values"}
NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?")
KINDS = {bool: "true or false", int: "a whole number", float: "a decimal number", str: "text", list: "a list"}


class Strict(BaseModel):
    """Base of every config model: no silent conversion, no change after construction, no unknown key."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Batch(Strict):
    """What one update learns from. This group and the next two are the same in every paper."""

    size: PositiveInt  # B, chunks
    length: PositiveInt  # T, rows


class Evaluation(Strict):
    """How many episodes one evaluation plays."""

    episodes: PositiveInt


class Video(Strict):
    """What the film at the end of a run shows."""

    sequences: PositiveInt
    context: PositiveInt  # frames that the model sees
    length: PositiveInt  # frames in all

    @model_validator(mode="after")
    def context_inside(self):
        if self.context >= self.length:
            raise ValueError(f"context ({self.context}) must be shorter than length ({self.length}) frames")
        return self


Model = TypeVar("Model", bound=BaseModel)
Values = Annotated[list[Any], Field(min_length=1)]


class Grid(Strict):
    """Variants by the dozen: every combination of the values on the axes, named by its values."""

    name: str  # of a variant, as for str.format, a place for each value: "h{:02}-k{:04}"
    axes: Annotated[dict[str, Values], Field(min_length=1)]  # "key" -> values; "key, key" -> lists of values


class Cell(dict):
    """The overrides of one combination of a grid, by dotted key. Its variant is named by them, so they stay."""


# ------------------------------------------------------------------------------------------------ layers


def resolve(paper: str, variant: str, scale: Mapping[str, Any], *, root: Path = ROOT) -> dict[str, Any]:
    """The values one run uses, and how they differ from the paper's.

    Args:
      paper: a folder of replications/ with a paper.yaml.
      variant: a name under `variants` of that paper's experiments.yaml.
      scale: a scale.yaml as loaded. Used are its `name`, `overrides[paper]`, `overrides["paper/PATTERN"]` where the
        shell pattern fits the variant, and `grids[paper]`.
    Returns:
      {"paper", "variant", "scale", "overrides": [{"key", "value", "layer"}], "values"}. `layer` is "variant" or
      "scale"; an override that repeats the value below it is not listed. Keys are sorted, so that the order of lines
      in a file means nothing: two equal results are the same run.
    """
    folder = paper_folder(paper, root=root)
    values = read_yaml(folder / "paper.yaml")
    known = read_variants(paper, scale, root=root)
    if variant not in known:
        raise UserError(
            f"{shown(folder / 'experiments.yaml')}: no variant {variant!r}{did_you_mean(variant, known)}; "
            f"it has {listing(known)}"
        )
    name = scale.get("name", "unnamed")
    shrunk = scale.get("overrides") or {}
    layers = (
        ("scale", f"scale {name}, overrides.{paper}", shrunk.get(paper) or {}),
        ("variant", f"experiments.yaml of {paper}, variant {variant}", known[variant]),
        *(("scale", f"scale {name}, overrides.{key}", shrunk[key]) for key in named(shrunk, paper, variant, known)),
    )
    claimed = dict(leaves(values, where=paper))
    fixed = known[variant] if isinstance(known[variant], Cell) else {}
    layer_of = {}
    for layer, where, changes in layers:
        for key, value in leaves(changes, where=where):
            if layer_of.get(key) == "variant" and fixed.get(key, value) != value:
                raise UserError(
                    f"{where}: {key} = {value!r} would make the name of {variant} untrue, which a grid gave it; write "
                    "a pattern that does not fit it, or cut the grid down by `grids`"
                )
            replace(values, key, value, where=where)
            layer_of[key] = layer
    used = dict(leaves(values, where=paper))
    overrides = [
        {"key": key, "value": used[key], "layer": layer_of[key]}
        for key in sorted(layer_of)
        if (type(used[key]), used[key]) != (type(claimed[key]), claimed[key])
    ]
    return {
        "paper": paper,
        "variant": variant,
        "scale": name,
        "overrides": overrides,
        "values": in_order(values),
    }


def named(overrides: Mapping[str, Any], paper: str, variant: str, known: Iterable[str]) -> list[str]:
    """The keys PAPER/PATTERN of a scale's overrides that fit a variant; UserError for one that fits none at all."""
    keys = [key for key in overrides if key.startswith(f"{paper}/")]
    patterns = {key: key.removeprefix(f"{paper}/") for key in keys}
    for key, pattern in patterns.items():
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UserError(
                f"overrides of the scale: {key!r} fits no variant of {paper}{did_you_mean(pattern, known)}; "
                f"it has {listing(known)}"
            )
    return [key for key, pattern in patterns.items() if fnmatchcase(variant, pattern)]


def for_task(resolved: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The resolved config of one task: a group with one entry per task (action_repeat) keeps only this task's entry,
    so that a value of another task is no part of this run."""

    def narrow(tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        return {key: narrow(value) for key, value in tree.items() if task not in tree or key == task}

    values = narrow(resolved["values"])
    kept = dict(leaves(values, where=task))
    return {**resolved, "overrides": [o for o in resolved["overrides"] if o["key"] in kept], "values": values}


def paper_folder(paper: str, *, root: Path = ROOT) -> Path:
    """replications/<paper>, if a paper stands there."""
    folder = root / "replications" / paper
    if not (folder / "paper.yaml").is_file():
        known = papers(root=root)
        raise UserError(f"no paper {paper!r}{did_you_mean(paper, known)}; the repository has {listing(known)}")
    return folder


def papers(*, root: Path = ROOT) -> list[str]:
    """Names of the papers that stand in replications/, sorted."""
    return sorted(path.parent.name for path in (root / "replications").glob("*/paper.yaml"))


def read_variants(paper: str, scale: Mapping[str, Any] | None = None, *, root: Path = ROOT) -> dict[str, dict]:
    """Every variant of a paper's experiments.yaml with its overrides, grids written out. A name means one thing in the
    whole paper, because it is a folder of the result path. scale: as for resolve; None cuts no grid down."""
    found: dict[str, tuple[str, dict]] = {}
    for experiment, variants in variants_by_experiment(paper, scale, root=root).items():
        for variant, changes in variants.items():
            first, before = found.setdefault(variant, (experiment, changes))
            if before != changes:
                path = paper_folder(paper, root=root) / "experiments.yaml"
                raise UserError(
                    f"{shown(path)}: variant {variant!r} means {before} in {first} and {changes} in {experiment}; "
                    "give one of them another name"
                )
    return {variant: changes for variant, (_, changes) in found.items()}


def variants_by_experiment(
    paper: str, scale: Mapping[str, Any] | None = None, *, root: Path = ROOT
) -> dict[str, dict[str, dict]]:
    """Experiment -> variant -> overrides. `grids[paper]` of the scale replaces axes: experiment -> axis -> values."""
    path = paper_folder(paper, root=root) / "experiments.yaml"
    contents = read_yaml(path)
    cuts = ((scale or {}).get("grids") or {}).get(paper) or {}
    for experiment in cuts:
        if not (contents.get(experiment) or {}).get("grid"):
            having = [name for name, content in contents.items() if content.get("grid")]
            raise UserError(
                f"grids of the scale: no experiment {experiment!r} with a grid in {shown(path)}"
                f"{did_you_mean(experiment, having)}; there is {listing(having)}"
            )
    found = {}
    for experiment, content in contents.items():
        variants = {variant: changes or {} for variant, changes in (content.get("variants") or {}).items()}
        if content.get("grid"):
            where = f"{shown(path)}, {experiment}, grid"
            variants |= expand(build(Grid, content["grid"], where=where), cuts.get(experiment, {}), where=where)
        found[experiment] = variants
    return found


def expand(grid: Grid, cut: Mapping[str, list], *, where: str) -> dict[str, Cell]:
    """Name -> overrides by dotted key, for every combination of a grid; cut has other values for some of its axes."""
    for axis in cut:
        if axis not in grid.axes:
            raise UserError(f"{where}: no axis {axis!r}{did_you_mean(axis, grid.axes)}; it has {listing(grid.axes)}")
    axes = {**grid.axes, **cut}
    found: dict[str, Cell] = {}
    for point in itertools.product(*axes.values()):
        changes = Cell()
        for axis, value in zip(axes, point, strict=True):
            keys = axis.split(", ")
            values = [value] if len(keys) == 1 else value
            if not isinstance(values, list) or len(values) != len(keys):
                raise UserError(f"{where}: {value!r} on axis {axis!r}, expected a list of {len(keys)} values")
            changes.update(zip(keys, values, strict=True))
        try:
            name = grid.name.format(*changes.values())
        except (IndexError, KeyError, ValueError) as error:
            raise UserError(
                f"{where}: name {grid.name!r} cannot hold the values {list(changes.values())} ({error}); write a place "
                "such as {} or {:02} for each"
            ) from None
        if name in found:
            raise UserError(f"{where}: two combinations are called {name!r}; the name needs a place for every value")
        found[name] = changes
    return found


def leaves(tree: Mapping[str, Any], *, where: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested mappings; a list is a leaf."""
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: expected keys with values, got {tree!r}; write for example model: {{deter_size: 8}}")
    for key, value in tree.items():
        dotted = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, where=where, above=f"{dotted}.")
        else:
            yield dotted, value


def replace(values: dict[str, Any], dotted: str, value: Any, *, where: str) -> None:
    """Put value at the dotted key, which must exist and hold the same kind."""
    *groups, last = dotted.split(".")
    at = values
    for depth, part in enumerate([*groups, last]):
        if not isinstance(at, Mapping):
            parent = ".".join(dotted.split(".")[:depth])
            raise UserError(f"{where}: {parent} is one value ({at!r}), not a group; write {parent}: VALUE")
        if part not in at:
            have = [key for key, _ in leaves(values, where=where)]
            hint = did_you_mean(dotted, have) or did_you_mean_last(part, have)
            raise UserError(f"{where}: the paper has no key {dotted!r}{hint}; an override may only change a key it has")
        if depth < len(groups):
            at = at[part]
    before = at[last]
    if isinstance(before, Mapping):
        inside = listing(f"{dotted}.{key}" for key in before)
        raise UserError(f"{where}: {dotted} is a group, got {value!r}; name the value inside it: {inside}")
    if not same_kind(before, value):
        raise UserError(
            f"{where}: {dotted} = {value!r} is {kind(value)}, the paper has {kind(before)} ({before!r})"
            f"{yaml_trap(value, kind(before))}"
        )
    at[last] = value


def same_kind(before: Any, value: Any) -> bool:
    """May an override put value where before stood? null fits anything; a whole number fits a number."""
    if before is None or value is None:
        return True
    if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
        return True
    return type(before) is type(value)


def in_order(tree: Any) -> Any:
    """The same tree with sorted keys."""
    return {key: in_order(tree[key]) for key in sorted(tree)} if isinstance(tree, Mapping) else tree


# ------------------------------------------------------------------------------------------------ typed models


def build(cls: type[Model], values: Mapping[str, Any], *, where: str) -> Model:
    """values as a cls, strictly; where names their origin in messages (a file, usually)."""
    try:
        # Through JSON, so that a YAML list fits a tuple while text still fits no number.
        return cls.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = [problem(cls, values, entry) for entry in error.errors()]
    raise UserError(f"{where}: " + "; ".join(dict.fromkeys(problems)))


def problem(cls: type[BaseModel], values: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """One pydantic error in a person's words: key, value, expected, way out."""
    location = [part for part in entry["loc"] if isinstance(part, int) or part in keys_on(values, entry["loc"])]
    key = ".".join(map(str, location or entry["loc"]))
    if entry["type"] == "missing":
        dotted = ".".join(map(str, entry["loc"]))
        return f"key {dotted!r} is missing; add it (no value has a default in Python)"
    if entry["type"] == "extra_forbidden":
        fields = fields_at(cls, entry["loc"][:-1])
        return f"unknown key {key!r}{did_you_mean(str(entry['loc'][-1]), fields)}; known here: {listing(fields)}"
    if entry["type"] in ("value_error", "assertion_error"):
        reason = str(entry["ctx"]["error"]) if "error" in entry.get("ctx", {}) else entry["msg"]
        return f"{key}: {reason}" if key else reason
    value = value_at(values, location)
    expected = entry["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{key} = {value!r}: expected {expected}, got {kind(value)}{yaml_trap(value, expected)}"


def keys_on(values: Any, path: Iterable[Any]) -> set[Any]:
    """The parts of a pydantic location that are keys of values (the others name branches of a union)."""
    found, at = set(), values
    for part in path:
        if isinstance(at, Mapping) and part in at:
            found.add(part)
            at = at[part]
        elif isinstance(at, list) and isinstance(part, int):
            at = at[part]
    return found


def value_at(values: Any, path: Iterable[Any]) -> Any:
    """The value at a path of keys and indices."""
    for part in path:
        values = values[part]
    return values


def fields_at(cls: Any, path: Iterable[Any]) -> list[str]:
    """Field names of the model found by walking path from cls; [] where the walk leaves the models."""
    for part in path:
        field = getattr(cls, "model_fields", {}).get(part)
        cls = field.annotation if field is not None else None
    return sorted(getattr(cls, "model_fields", {}))


# ------------------------------------------------------------------------------------------------ files


class UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice (YAML would silently keep the second)."""


def unique_mapping(loader: UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping node as a dict; a repeated key or a key that is no text is an error."""
    pairs: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in pairs:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is written twice; keep one", key_node.start_mark
            )
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key_node.value!r} is read as {kind(key)}; put it in quotes", key_node.start_mark
            )
        pairs[key] = loader.construct_object(value_node, deep=True)
    return pairs


UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique_mapping)


@functools.lru_cache(maxsize=32)
def parsed(text: str) -> Any:
    """The content of a YAML text; the same object every time, so copy what you change."""
    return yaml.load(text, Loader=UniqueKeys)  # a SafeLoader: no code runs


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of keys and values."""
    try:
        content = copy.deepcopy(parsed(Path(path).read_text(encoding="utf-8")))  # a grid reads one file 320 times
    except FileNotFoundError:
        raise UserError(f"no file {shown(path)}; check the path (run from the repository's root)") from None
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)}: not UTF-8 text; is this the right file?") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{shown(path)}{line}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown(path)}: expected keys with values, got {kind(content)}")
    return content


def to_text(resolved: Mapping[str, Any]) -> str:
    """A resolved config as YAML text: what config.yaml holds and what a result file stores."""
    return yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True, width=120)


def write_resolved(path: Path, resolved: Mapping[str, Any]) -> None:
    """Write a resolved config; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(to_text(resolved), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_resolved(path: Path) -> dict[str, Any]:
    """Read what write_resolved wrote."""
    resolved = read_yaml(path)
    if set(resolved) != RESOLVED_KEYS:
        raise UserError(
            f"{shown(path)}: not a resolved config (it has {listing(resolved)}, expected {listing(RESOLVED_KEYS)}); "
            "make one with `snakemake --profile workflows/profiles/smoke FOLDER/config.yaml` or shared.config.resolve"
        )
    return resolved


# ------------------------------------------------------------------------------------------------ words


def kind(value: Any) -> str:
    """What a YAML value is, in a person's words."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a group of keys"
    return KINDS.get(type(value), type(value).__name__)


def yaml_trap(value: Any, expected: str) -> str:
    """The way out where YAML 1.1 reads something else than a person means; empty if that is not the trouble."""
    if isinstance(value, str) and NUMBER.fullmatch(value) and any(w in expected for w in ("number", "integer")):
        number = float(value.replace("_", ""))
        if number == int(number) and any(w in expected for w in ("whole", "integer")):
            return f"; YAML 1.1 reads {value} as text: write {int(number):_}"
        mantissa, _, exponent = f"{number:e}".partition("e")
        mantissa = mantissa.rstrip("0")
        mantissa += "0" if mantissa.endswith(".") else ""
        return f"; YAML 1.1 reads {value} as text: write {mantissa}e{exponent[0]}{int(exponent[1:])}"
    if isinstance(value, bool) and any(w in expected for w in ("text", "string", "'")):
        return "; YAML 1.1 reads yes, no, on and off as true or false: put the word in quotes"
    return ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the nearest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def did_you_mean_last(word: str, known: Iterable[str]) -> str:
    """The same by the last part of dotted keys: a right name in the wrong group."""
    by_last = {key.rpartition(".")[2]: key for key in known}
    close = difflib.get_close_matches(word, list(by_last), n=1, cutoff=0.6)
    return f", did you mean {by_last[close[0]]!r}?" if close else ""


def listing(words: Iterable[str]) -> str:
    """Words, sorted, with commas; "nothing" if there are none."""
    return ", ".join(sorted(map(str, words))) or "nothing"


def shown(path: Path) -> str:
    """A path as a person types it from the repository's root."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(ROOT))
    except ValueError:
        return str(path)
