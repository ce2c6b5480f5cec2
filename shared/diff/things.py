"""What A and B are: from the words of a command line to configs, parameter files, implementations, runs, groups.

planet, dreamer/atari                       config of a paper, or of a variant       (config:dreamer/atari/atari_pong)
some/config.yaml, replications/planet/paper.yaml                                     config in a file
planet/torch                                an implementation                        (code:planet/torch=COPY)
some/seed_0.safetensors                     a parameter file
some/seed_0.h5, some/seed_0.h5.partial      a run file
planet/torch/rssm, planet/torch/rssm/cartpole_swingup     a group of runs below --results, any part a shell pattern
a folder with run files                     the same, of what lies below it
published:dreamerv3/2024/dmc_vision[/TASK]  published curves
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config import ROOT, papers, read_variants
from shared.diff import configs, groups, published
from shared.diff.numbers import FRAMEWORKS, Side
from shared.errors import UserError
from shared.results import list_runs

CONFIG, PARAMETERS, CODE, RUN, GROUP = "config", "parameter file", "implementation", "run file", "group of runs"
PREFIXES = ("config", "code", "runs", "published")


@dataclass(frozen=True)
class Thing:
    """One side of a comparison: its kind, the words for it, and what they stand for."""

    kind: str
    name: str
    content: Any


def parse(words: str, *, results: Path, scale: Mapping[str, Any] | None) -> Thing:
    """What the words name.

    Args:
      results: folder below which runs are looked for. scale: at which a variant's config is resolved; None: paper.
    Raises:
      UserError: nothing of that name; the message lists what could be meant.
    """
    prefix, colon, rest = words.partition(":")
    if colon and prefix in PREFIXES:
        return {"config": of_config, "code": of_code, "runs": of_runs, "published": of_published}[prefix](
            rest, results, scale
        )
    path = Path(words)
    if path.is_file() or path.suffix in (".h5", ".partial", ".safetensors", ".yaml", ".yml"):
        return of_file(path)
    parts = words.split("/")
    if parts[0] in papers():
        if len(parts) == 1:
            return of_config(words, results, scale)
        if parts[1].partition("=")[0] in FRAMEWORKS and len(parts) == 2 or "=" in parts[1]:
            return of_code(words, results, scale)
        if parts[1] in (*FRAMEWORKS, "numpy", "*"):
            return of_runs(words, results, scale)
        return of_config(words, results, scale)
    if path.is_dir():
        return of_folder(path)
    raise UserError(
        f"{words!r} is no file, folder, paper or selector. Papers here: {', '.join(papers())}; frameworks: "
        f"{', '.join(FRAMEWORKS)}; else published:PAPER/VERSION/SUITE, runs:, config: or code: (shared/diff/README.md)"
    )


def of_file(path: Path) -> Thing:
    """By its suffix: parameters, a run, or a config."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return Thing(PARAMETERS, str(path), path)
    if path.suffix in (".h5", ".partial"):
        return Thing(RUN, str(path), path)
    if path.suffix in (".yaml", ".yml"):
        return Thing(CONFIG, str(path), configs.read(path))
    raise UserError(f"{path}: expected .yaml (config), .safetensors (parameters), .h5 or .h5.partial (run)")


def as_group(thing: Thing) -> Thing:
    """A run file as a group of one run; a group as it is."""
    return thing if thing.kind == GROUP else Thing(GROUP, thing.name, groups.of_paths([thing.content], thing.name))


def of_config(words: str, results: Path, scale: Mapping[str, Any] | None) -> Thing:
    """PAPER, PAPER/VARIANT or PAPER/VARIANT/TASK."""
    paper, *rest = words.split("/")
    if len(rest) > 2:
        raise UserError(f"config:{words}: expected PAPER, PAPER/VARIANT or PAPER/VARIANT/TASK")
    if paper in papers() and rest and rest[0] not in read_variants(paper):
        named = sorted(name for name in read_variants(paper) if "-h0" not in name)
        raise UserError(f"{words}: {paper} has no variant {rest[0]!r}; it has {', '.join(named)}")
    if scale is not None and not rest:
        raise UserError(f"config:{words}: a scale goes with a variant; name one, as in {words}/VARIANT")
    return Thing(CONFIG, words, configs.of_paper(paper, *(rest + [None] * (2 - len(rest))), scale))


def of_code(words: str, results: Path, scale: Mapping[str, Any] | None) -> Thing:
    """PAPER/FRAMEWORK, or PAPER/FRAMEWORK=FOLDER for a copy."""
    name, equals, folder = words.partition("=")
    paper, _, framework = name.partition("/")
    if paper not in papers() or framework not in FRAMEWORKS:
        raise UserError(
            f"code:{words}: expected PAPER/FRAMEWORK with {', '.join(papers())} and {', '.join(FRAMEWORKS)}"
        )
    if equals and not Path(folder).is_dir():
        raise UserError(f"code:{words}: no folder {folder}")
    side = Side(paper, framework, Path(folder) if equals else None)
    return Thing(CODE, side.name, side)


def of_runs(words: str, results: Path, scale: Mapping[str, Any] | None) -> Thing:
    """PAPER/FRAMEWORK/VARIANT[/TASK] below the results; ROOT given as PAPER/...@ROOT."""
    selector, at, root = words.partition("@")
    return Thing(GROUP, words, groups.find(selector, Path(root) if at else results))


def of_folder(path: Path) -> Thing:
    """Every run below a folder."""
    listed = list_runs(path)
    paths = [Path(p) for p in listed.loc[listed["status"] != "unreadable", "path"]]
    if not paths:
        raise UserError(f"{path}: no run file below it (seed_<n>.h5)")
    return Thing(GROUP, str(path), groups.of_paths(paths, str(path)))


def of_published(words: str, results: Path, scale: Mapping[str, Any] | None) -> Thing:
    """PAPER/VERSION/SUITE[/TASK]: exactly one release."""
    parts = words.split("/")
    found = published.named("/".join(parts[:3]))
    if len(found) > 1:
        raise UserError(f"published:{words}: several releases ({', '.join(r.name for r in found)}); name one")
    return Thing(GROUP, f"published:{words}", groups.of_release(found[0], parts[3] if len(parts) > 3 else "*"))


def default_scale() -> Path:
    """The scale at which implementations are walked unless another is named."""
    return ROOT / "workflows" / "profiles" / "smoke" / "scale.yaml"
