"""Config level: which hyperparameters of two configurations differ, with the source of each, most consequential first.

A configuration is a paper's paper.yaml, a variant of it, a resolved config.yaml, or the one that a run file holds. Read
next: ledger.py, the same across papers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.config import ROOT, for_task, leaves, paper_folder, read_yaml, resolve
from shared.diff.consequence import MEANING, ORDER, consequence, rank
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME, Outcome, Table
from shared.errors import UserError
from shared.results import read_run

# A line of paper.yaml, as tests/test_pins.py has it: `name: value  # paper|code|ours: where`, or the head of a group.
LEAF = re.compile(r"^(?P<indent> *)(?P<key>[a-z0-9_]+): +\S.*? +# (?P<kind>paper|code|ours): (?P<text>\S.*)$")
GROUP = re.compile(r"^(?P<indent> *)(?P<key>[a-z0-9_]+): *(#.*)?$")
INDENT = 2
ABSENT = "(no such key)"
PAPER_SCALE = {"name": "paper"}


@dataclass(frozen=True)
class Settings:
    """Every value of a configuration by dotted key, and where each comes from (paper, code or ours, and the place)."""

    name: str
    paper: str
    values: Mapping[str, Any]
    sources: Mapping[str, str]


def sources_of(text: str) -> dict[str, str]:
    """Dotted key -> "paper: Appendix A" of a paper.yaml's text. Lines of another form have no source."""
    found: dict[str, str] = {}
    groups: list[str] = []
    for line in text.splitlines():
        match = LEAF.match(line) or GROUP.match(line)
        if not match or line.lstrip().startswith("#"):
            continue
        groups[len(match["indent"]) // INDENT :] = [match["key"]]
        if match.re is LEAF:
            found[".".join(groups)] = f"{match['kind']}: {match['text']}"
    return found


def of_paper(
    paper: str,
    variant: str | None = None,
    task: str | None = None,
    scale: Mapping[str, Any] | None = None,
    *,
    root: Path = ROOT,
) -> Settings:
    """A paper's values, perhaps of a variant, narrowed to a task, at a scale (None: scale paper, which changes none).

    Raises:
      UserError: no such paper or variant.
    """
    text = (paper_folder(paper, root=root) / "paper.yaml").read_text(encoding="utf-8")
    if variant is None:
        tree: dict[str, Any] = {"values": read_yaml(paper_folder(paper, root=root) / "paper.yaml"), "overrides": []}
    else:
        tree = resolve(paper, variant, scale or PAPER_SCALE, root=root)
    if task is not None:
        tree = for_task(tree, task)
    name = "/".join(part for part in (paper, variant, task) if part)
    return Settings(name, paper, *valued(tree, sources_of(text), variant, (scale or PAPER_SCALE)["name"]))


def of_resolved(resolved: Mapping[str, Any], name: str, *, root: Path = ROOT) -> Settings:
    """A resolved configuration as a config.yaml or a run file holds it; sources are those of today's paper.yaml."""
    missing = {"paper", "variant", "scale", "overrides", "values"} - set(resolved)
    if missing:
        raise UserError(f"{name}: no resolved config: it lacks {', '.join(sorted(missing))}")
    path = root / "replications" / str(resolved["paper"]) / "paper.yaml"
    sources = sources_of(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Settings(name, resolved["paper"], *valued(resolved, sources, resolved["variant"], resolved["scale"]))


def valued(
    tree: Mapping[str, Any], sources: Mapping[str, str], variant: str | None, scale: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and sources by dotted key; an override's source is its layer."""
    values = dict(leaves(tree["values"], where="values"))
    layers = {entry["key"]: entry["layer"] for entry in tree["overrides"]}
    told = {"variant": f"variant {variant} of experiments.yaml", "scale": f"ours: scale {scale}"}
    return values, {key: told[layers[key]] if key in layers else sources.get(key, "not told") for key in values}


def read(path: Path, *, root: Path = ROOT) -> Settings:
    """The configuration in a file: paper.yaml, config.yaml, or a run file.

    Raises:
      UserError: no such file, or none of these.
    """
    path = Path(path)
    if path.suffix in (".h5", ".partial"):
        return of_resolved(yaml.safe_load(read_run(path).config_text), f"config of {path}", root=root)
    content = read_yaml(path)
    if "values" in content:
        return of_resolved(content, str(path), root=root)
    values = dict(leaves(content, where=str(path)))
    sources = sources_of(path.read_text(encoding="utf-8"))
    return Settings(str(path), path.parent.name, values, {key: sources.get(key, "not told") for key in values})


def differences(a: Settings, b: Settings) -> list[tuple[Any, ...]]:
    """Rows of key, class, value of A, value of B, source of A, source of B; most consequential first."""
    rows = []
    for key in a.values.keys() | b.values.keys():
        one, other = a.values.get(key, ABSENT), b.values.get(key, ABSENT)
        if type(one) is type(other) and one == other:
            continue
        if {type(one), type(other)} == {int, float} and one == other:  # 1 and 1.0
            continue
        rows.append((key, consequence(key), null(one), null(other), a.sources.get(key, ""), b.sources.get(key, "")))
    return sorted(rows, key=lambda row: rank(row[0], row[2], row[3]))


def null(value: Any) -> Any:
    """A YAML null as the word, which a dash (nothing here) is not."""
    return "null" if value is None else value


COLUMNS = ("key", "decides", "A", "B", "source of A", "source of B")


def compare(a: Settings, b: Settings) -> Outcome:
    """The outcome for two configurations. Those of two papers share few keys: the ledger sets them side by side."""
    rows, shared = differences(a, b), a.values.keys() & b.values.keys()
    if not shared:
        reason = "they have no key in common"
        return Outcome("config", a.name, b.name, NOT_COMPARABLE, reason)
    decisive = [row for row in rows if row[1] != "no number"]
    same = len(shared) - sum(row[2] != ABSENT and row[3] != ABSENT for row in rows)
    if not rows:
        reason = f"all {len(shared)} values are equal"
    elif not decisive:
        reason = f"{len(rows)} values differ, none of which changes what is learned; {same} are equal"
    else:
        first = decisive[0]
        reason = (
            f"{len(rows)} values differ, {same} are equal. First in consequence: {first[0]} ({MEANING[first[1]]}) is "
            f"{first[2]} in A and {first[3]} in B"
        )
    notes = []
    if a.paper != b.paper:
        notes = [
            "Two papers call one thing by two keys; `python -m shared.diff ledger` sets their values side by side."
        ]
    counts = {name: sum(row[1] == name for row in rows) for name in ORDER}
    table = Table("Values that differ, most consequential first", COLUMNS, rows)
    facts = {"keys": [row[0] for row in rows], "by_class": {name: n for name, n in counts.items() if n}, "equal": same}
    return Outcome(
        "config", a.name, b.name, DIFFERS if rows else SAME, reason, [table] if rows else [], [], notes, facts
    )
