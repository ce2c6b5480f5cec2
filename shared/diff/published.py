"""Published learning curves: every release through one loader into one tidy table.

A release is PAPER/VERSION/SUITE; data/reference/published.yaml says for each which files hold it, at which commit and
checksum, and how it is to be read. Exact values come from the authors' files where a copy is at hand: the folder in
REFERENCE_DIR, or ../shared/reference beside the repository. Else the derived tables in data/reference serve: means over
1/25 of the release's length, and final scores, both made from those files (workflows/scripts/reference_published.py).
"""

import functools
import gzip
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shared.config import ROOT, did_you_mean, listing, read_yaml
from shared.errors import UserError

DATA = ROOT / "data" / "reference"
REGISTRY, CURVES, FINALS = DATA / "published.yaml", DATA / "published_curves.csv.gz", DATA / "published_finals.csv"
BESIDE = ROOT.parent / "shared" / "reference"
BINS = 25  # of a derived curve
COLUMNS = ("paper", "version", "suite", "task", "seed", "env_steps", "return", "protocol")
# How others write a task -> how this repository does.
TASKS = {"ball_in_cup_catch": "cup_catch", "atari_jamesbond": "atari_james_bond"}
PSEUDO = "stats_"  # begins the names of records that are no task (DreamerV2's control file)


@dataclass(frozen=True)
class Release:
    """One set of published curves. end: env steps; final: (after, until, what where a run has nothing there)."""

    name: str
    files: dict[str, str]  # path below the reference folder -> sha256
    origin: dict[str, str]
    method: str
    returns: str
    protocol: str
    end: int
    final: dict[str, Any]
    variants: tuple[str, ...]
    note: str

    @property
    def paper(self) -> str:
        return self.name.split("/")[0]

    @property
    def version(self) -> str:
        return self.name.split("/")[1]

    @property
    def suite(self) -> str:
        return self.name.split("/")[2]


@functools.lru_cache(maxsize=1)
def releases() -> dict[str, Release]:
    """Every release by name, in the order of the registry."""
    entries = read_yaml(REGISTRY)["releases"]
    return {name: Release(name, **{**entry, "variants": tuple(entry["variants"])}) for name, entry in entries.items()}


def named(selector: str) -> list[Release]:
    """The releases that PAPER[/VERSION[/SUITE]] fits; parts may be shell patterns.

    Raises:
      UserError: none.
    """
    parts = (selector.split("/") + ["*", "*"])[:3]
    found = [r for r in releases().values() if all(map(fnmatchcase, (r.paper, r.version, r.suite), parts))]
    if not found:
        raise UserError(
            f"published:{selector}: no such release{did_you_mean(selector, releases())}; there is {listing(releases())}"
        )
    return found


def folder() -> Path | None:
    """Where the authors' files are: REFERENCE_DIR, or the copy beside the repository; None without.

    Raises:
      UserError: REFERENCE_DIR names no folder.
    """
    asked = os.environ.get("REFERENCE_DIR")
    if asked:
        if not Path(asked).is_dir():
            raise UserError(
                f"REFERENCE_DIR={asked}: no such folder; unset it to use the derived tables in data/reference"
            )
        return Path(asked)
    return BESIDE if BESIDE.is_dir() else None


def load(release: Release, *, source: Path | None | str = "auto") -> pd.DataFrame:
    """The tidy table of one release: COLUMNS, sorted by task, seed, env_steps (where what was averaged ends).

    source: the folder of the authors' files; None for the derived table; auto takes the files if they are there. The
    attribute `exact` of the frame's attrs says which it was.
    """
    found = folder() if source == "auto" else source
    exact = found is not None and all((Path(found) / name).is_file() for name in release.files)
    table = from_files(release, Path(found)) if exact else derived(release)
    table = table.assign(paper=release.paper, version=release.version, suite=release.suite, protocol=release.protocol)
    table = table[list(COLUMNS)].sort_values(["task", "seed", "env_steps"], ignore_index=True)
    table.attrs["exact"] = exact
    return table


def from_files(release: Release, source: Path) -> pd.DataFrame:
    """task, seed, env_steps, return from the authors' files, their quirks mended; empty bins are left out.

    Raises:
      UserError: a file is not the one that the registry knows.
    """
    frames = []
    for name, sha256 in release.files.items():
        data = (source / name).read_bytes()
        check(source / name, data, sha256)
        frames += of_csv(name, data) if name.endswith(".csv") else of_json(release, name, data)
    table = pd.concat(frames, ignore_index=True)
    return table[np.isfinite(table["return"])]


def check(path: Path, data: bytes, sha256: str) -> None:
    """UserError where the bytes are not those of the pinned commit."""
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise UserError(
            f"{path}: sha256 {got[:12]}…, expected {sha256[:12]}… (data/reference/published.yaml); it is not the file "
            "of the pinned commit: obtain it again with `make published`"
        )


def of_json(release: Release, name: str, data: bytes) -> list[pd.DataFrame]:
    """The release's runs in one of the authors' JSON files: a list of {task, method, seed, xs, ys}."""
    runs = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    return [
        pd.DataFrame({"env_steps": run["xs"], "return": run["ys"]}, dtype=float).assign(
            task=task_name(run["task"]), seed=seed_number(run["seed"])
        )
        for run in runs
        if run["method"] == release.method and not run["task"].startswith(PSEUDO)
    ]


def of_csv(name: str, data: bytes) -> list[pd.DataFrame]:
    """One task of the independent runs: step, reward, seed; the task is the file's name."""
    table = pd.read_csv(pd.io.common.BytesIO(data)).rename(columns={"step": "env_steps", "reward": "return"})
    return [table.assign(task=task_name(Path(name).stem.replace("-", "_"))).astype({"env_steps": float})]


def task_name(name: str) -> str:
    """Our name of a task: dmc_ is left out, games keep atari_."""
    name = name.removeprefix("dmc_")
    return TASKS.get(name, name)


def seed_number(seed: Any) -> int:
    """A seed as a number: 3, "3" and "indir1_3" are 3."""
    return int(re.search(r"(\d+)$", str(seed))[1])


@functools.lru_cache(maxsize=1)
def derived_curves() -> pd.DataFrame:
    """The derived curves of all releases, as they lie in data/reference."""
    return pd.read_csv(CURVES, dtype={"release": "category", "task": "category"})


def derived(release: Release) -> pd.DataFrame:
    """task, seed, env_steps, return of the derived table."""
    table = derived_curves()
    table = table[table["release"] == release.name].drop(columns="release")
    return table.assign(task=table["task"].astype(str), env_steps=table["env_steps"].astype(float))


def binned(table: pd.DataFrame, end: float, bins: int = BINS) -> pd.DataFrame:
    """Mean of each run in (left, right] of equal bins up to `end`, at the right border; later values are left out."""
    width = end / bins
    place = np.ceil(table["env_steps"].to_numpy() / width).astype(int)
    kept = table.assign(env_steps=np.maximum(place, 1) * width)[place <= bins]
    return kept.groupby(["task", "seed", "env_steps"], sort=True)["return"].mean().reset_index()


def finals(release: Release, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row per run: task, seed, final, by the authors' recipe; from the file of finals where curves are derived."""
    table = load(release) if table is None else table
    if not table.attrs.get("exact", True):
        kept = pd.read_csv(FINALS)
        return kept.loc[kept["release"] == release.name, ["task", "seed", "final"]].reset_index(drop=True)
    after, until, otherwise = (release.final[key] for key in ("after", "until", "otherwise"))
    rows = []
    for (task, seed), run in table.groupby(["task", "seed"], sort=True):
        values = run.loc[(run["env_steps"] > after) & (run["env_steps"] <= until), "return"]
        if values.empty and otherwise == "last":
            values = run.loc[run["env_steps"] <= until, "return"].tail(1)
        if len(values):
            rows.append((task, seed, float(values.mean())))
    return pd.DataFrame(rows, columns=["task", "seed", "final"])


def matching(paper: str, variant: str, task: str) -> list[Release]:
    """The releases whose agent a variant of ours is set as, and which have the task."""
    return [r for r in releases().values() if r.paper == paper and variant in r.variants and task in tasks(r.name)]


@functools.lru_cache(maxsize=64)
def tasks(name: str) -> tuple[str, ...]:
    """Tasks of a release, from the derived tables."""
    return tuple(sorted(derived(releases()[name])["task"].unique()))


def tidy(selectors: Sequence[str] = ("*",)) -> pd.DataFrame:
    """One table of several releases."""
    return pd.concat([load(release) for selector in selectors for release in named(selector)], ignore_index=True)
