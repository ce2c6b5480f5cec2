"""Which runs stand behind a figure: finding them, refusing what must not be mixed, and naming them on the page.

A figure shows only runs of one paper and one scale, and only runs of one code and one config within one curve.
shared/results.py reads the files; curves.py and tables.py draw what is loaded here.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from shared.errors import UserError
from shared.results import Run, list_runs, partial_path, read_run

SHORT = 7  # characters of a hash on the page


@dataclass(frozen=True)
class Source:
    """One run file, complete or not, and what a figure asks of it."""

    path: Path
    sha256: str
    run: Run
    values: Mapping[str, Any]  # of the resolved configuration

    @property
    def key(self) -> tuple[str, str, str]:
        """(framework, variant, task): runs with the same key are the seeds of one curve."""
        return tuple(str(self.run.attrs[name]) for name in ("framework", "variant", "task"))

    @property
    def task(self) -> str:
        return str(self.run.attrs["task"])

    @property
    def seed(self) -> int:
        return int(self.run.attrs["seed"])

    @property
    def scale(self) -> str:
        return str(self.run.attrs["scale"])

    @property
    def complete(self) -> bool:
        return self.run.attrs["status"] == "complete"

    @property
    def total_env_steps(self) -> int:
        return int(self.run.attrs["total_env_steps"])

    @property
    def env_steps(self) -> int:
        """How far the run has got."""
        return int(self.run.attrs["env_steps"])

    @property
    def commits(self) -> list[str]:
        """Short commits of all sessions, marked where the working tree had changes that the commit does not show."""
        pairs = [(session["git_commit"], session["git_dirty"]) for session in self.run.provenance["sessions"]]
        return sorted({f"{commit[:SHORT]}{'' if dirty in ('', 'unknown') else ' (dirty)'}" for commit, dirty in pairs})

    @property
    def code(self) -> str:
        """Digest of the code; of every session's code where it changed while the run was interrupted."""
        return "+".join(self.run.code_digests)

    @property
    def config(self) -> str:
        """Hash of the resolved configuration."""
        return str(self.run.config_sha256)

    def describe(self) -> dict[str, object]:
        """What the sources file of a figure says about this run."""
        names = ("framework", "variant", "task", "seed", "scale", "status", "env_steps", "total_env_steps")
        facts = ("git_commit", "git_dirty", "started", "finished")
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            **{name: self.run.attrs[name] for name in names},
            **{name: str(self.run.provenance[name]) for name in facts},
            "code_digests": list(self.run.code_digests),
            "config_sha256": self.config,
        }


def find_runs(root: Path, *, paper: str, scale: str | None) -> tuple[list[Path], list[str]]:
    """Every readable run of a paper below a results folder, finished or not, and a note on each that is damaged."""
    if not root.is_dir():
        raise UserError(f"--results-root {root}: no such folder; give results/SCALE, as in results/smoke")
    listed = list_runs(root, paper=paper, scale=scale)
    damaged = listed["status"] == "unreadable"
    for problem in listed.loc[damaged, "problem"]:
        print(f"warning: left out: {problem}", file=sys.stderr)
    notes = [f"UNREADABLE and left out: {path}" for path in listed.loc[damaged, "path"]]
    return [Path(path) for path in listed.loc[~damaged, "path"]], notes


def load_runs(paths: Iterable[Path], *, paper: str, tasks: Sequence[str], variants: Sequence[str]) -> list[Source]:
    """Read run files and refuse what this figure cannot show.

    tasks, variants: the names that the paper's figures know; shell patterns such as simulator-h* will do. Raises
    UserError for a missing file, another paper, another task or variant, several scales, or the same seed twice.
    Sorted by framework, variant, task, seed.
    """
    sources = [_load(Path(path)) for path in paths]
    for source in sources:
        attrs = source.run.attrs
        if attrs["paper"] != paper:
            raise UserError(f"{source.path}: a run of {attrs['paper']!r}, expected {paper!r}; leave it out of --runs")
        for name, known in (("task", tasks), ("variant", variants)):
            if not any(fnmatchcase(attrs[name], pattern) for pattern in known):
                raise UserError(
                    f"{source.path}: {name} {attrs[name]!r} is in no figure of {paper}; they have {', '.join(known)}. "
                    f"Leave the run out, or give the {name} a name and a colour in replications/{paper}/figures.py"
                )
    scales = sorted({source.scale for source in sources})
    if len(scales) > 1:
        raise UserError(f"runs of several scales ({', '.join(scales)}) in one figure; give the runs of one scale")
    seen: dict[tuple, Source] = {}
    for source in sources:
        first = seen.setdefault((*source.key, source.seed), source)
        if first is not source:
            raise UserError(f"{first.path} and {source.path} are the same run (seed {source.seed}); give one of them")
    return sorted(sources, key=lambda source: (*source.key, source.seed))


def check_scale(sources: Sequence[Source], scale: str | None) -> str:
    """The one scale of the figure; UserError where --scale and the runs disagree or neither says it."""
    found = sources[0].scale if sources else scale
    if found is None:
        raise UserError("no runs were given, so the scale is unknown; say --scale smoke, laptop or paper")
    if scale is not None and scale != found:
        raise UserError(f"--scale {scale}, but the runs are of scale {found} (first: {sources[0].path})")
    return found


def of_variants(sources: Sequence[Source], variants: Sequence[str]) -> list[Source]:
    """The runs that one figure shows, by the names or shell patterns of its variants."""
    return [source for source in sources if any(fnmatchcase(source.key[1], pattern) for pattern in variants)]


def by_curve(sources: Sequence[Source]) -> dict[tuple[str, str, str], list[Source]]:
    """(framework, variant, task) -> the seeds of that curve."""
    curves: dict[tuple[str, str, str], list[Source]] = {}
    for source in sources:
        curves.setdefault(source.key, []).append(source)
    return curves


def mixtures(sources: Sequence[Source]) -> dict[tuple[str, str, str], list[str]]:
    """Curves whose seeds come from different code or configs -> what is mixed, in words."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for key, runs in by_curve(sources).items():
        for kind in ("code", "config"):
            groups: dict[str, list[int]] = {}
            for run in runs:
                groups.setdefault(getattr(run, kind), []).append(run.seed)
            if len(groups) > 1 or any("+" in digest for digest in groups):
                parts = "; ".join(f"{_short(digest)}: seeds {_list(seeds)}" for digest, seeds in sorted(groups.items()))
                found.setdefault(key, []).append(f"MIXED {kind} in {'/'.join(key)} ({parts})")
    return found


def check_mixture(sources: Sequence[Source], *, allow: bool) -> list[str]:
    """Notes on mixed curves; UserError unless that is allowed.

    Seeds of one curve are averaged, so a difference in code or settings would hide in their spread.
    """
    notes = [note for group in mixtures(sources).values() for note in group]
    if notes and not allow:
        raise UserError(
            f"{'; '.join(notes)}. One curve averages its seeds, which must differ in nothing else; rerun the odd ones, "
            "give only one group, or say --allow-mixed-code to draw the mixture and print it under the figure"
        )
    return notes


def origin_note(sources: Sequence[Source], scale: str) -> str:
    """The footer: scale, seeds, env steps, framework, commits, configs and dates of the runs drawn."""
    if not sources:
        return f"Scale {scale}. No run found."
    frameworks = sorted({source.key[0] for source in sources})
    seeds = sorted({source.seed for source in sources})
    totals = sorted({source.total_env_steps for source in sources})
    parts = [
        f"Scale {scale}",
        f"framework {', '.join(frameworks)}",
        f"seeds {_list(seeds)}",
        f"planned env steps per run {', '.join(f'{total:,}' for total in totals)}",
        f"commit {', '.join(sorted({commit for source in sources for commit in source.commits}))}",
        f"code {', '.join(sorted({_short(source.code) for source in sources}))}",
        f"config {', '.join(sorted({_short(source.config) for source in sources}))}",
        f"runs of {_dates(sources)}",
    ]
    return "; ".join(parts) + "."


def origin_metadata(sources: Sequence[Source]) -> str:
    """Full hashes for the image's metadata."""
    commits = sorted({str(source.run.provenance["git_commit"]) for source in sources})
    return f"commits: {', '.join(commits)}; configs: {', '.join(sorted({source.config for source in sources}))}"


def sources_json(sources: Sequence[Source], **more: object) -> bytes:
    """The sources file of a figure: every run with its hashes, and whatever else the figure rests on."""
    content = {**more, "runs": [source.describe() for source in sources]}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def table_csv(frame: pd.DataFrame) -> bytes:
    """A table as CSV, the same bytes every time; numbers in full precision."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(path: Path) -> Source:
    partial = partial_path(path)
    if not path.is_file() and partial.is_file():
        raise UserError(f"{path}: this run is not finished; give {partial} to draw what is there, or finish it first")
    run = read_run(path)
    return Source(path, file_sha256(path), run, (yaml.safe_load(run.config_text) or {}).get("values", {}))


def _dates(sources: Sequence[Source]) -> str:
    """First and last day on which one of the runs was started or written, as ISO dates."""
    days = {str(source.run.provenance[name])[:10] for source in sources for name in ("started", "finished")}
    return min(days) if len(days) == 1 else f"{min(days)} to {max(days)}"


def _short(digest: str) -> str:
    """A hash for the page; several, joined by +, each short."""
    return "+".join(part[:SHORT] for part in digest.split("+"))


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
