"""The command line that all papers' figures share: choose runs, draw, and write the image with its numbers and sources.

    python -m replications.PAPER.figures NAME --runs F1.h5 F2.h5 --figure OUT.pdf --numbers OUT.csv --sources OUT.json

Nothing is written before everything is drawn; every file appears whole or not at all.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from shared.checkpoint import write_whole
from shared.errors import UserError
from shared.figures.page import image_bytes
from shared.figures.sources import (
    Source,
    check_mixture,
    check_scale,
    file_sha256,
    find_runs,
    load_runs,
    of_variants,
    origin_metadata,
    sources_json,
    table_csv,
)

IMAGES = (".pdf", ".png")


@dataclass(frozen=True)
class Request:
    """What a figure is asked to show: runs of one scale, already checked for mixtures."""

    sources: Sequence[Source]
    scale: str
    seeds: int | None  # planned per curve; None takes those found
    reference: Path
    notes: Sequence[str]  # to print under the figure: mixtures, unreadable files


@dataclass(frozen=True)
class Drawn:
    """A figure, the table of its plotted numbers, and further files by suffix (".md", ".gif")."""

    figure: Figure
    numbers: pd.DataFrame
    further: Mapping[str, bytes]


@dataclass(frozen=True)
class Item:
    """A figure or table of a paper: how it is drawn, and of which variants (names or shell patterns)."""

    draw: Callable[[Request], Drawn]
    variants: Sequence[str]


def figure_command(
    arguments: Sequence[str],
    figures: Mapping[str, Item],
    *,
    paper: str,
    tasks: Sequence[str],
    reference: Path,
    beside: Sequence[str] = (),
) -> None:
    """Parse the arguments, draw one figure, write its files.

    A figure shows the runs of its own variants; runs of variants that only other figures have are left out, all others
    refused. tasks: the names that runs may have. reference: default of --reference. beside: names of further files of
    published numbers, which the figures read from the folder of --reference.
    """
    asked = _parse(arguments, figures, paper, reference)
    published = [asked.reference, *(asked.reference.with_name(name) for name in beside)]
    for path in published:
        if not path.is_file():
            raise UserError(f"--reference {path}: no such file; leave it out to use {reference}")
    paths, notes = list(asked.runs or ()), []
    if asked.results_root:
        paths, notes = find_runs(asked.results_root, paper=paper, scale=asked.scale)
    known = list(dict.fromkeys(variant for item in figures.values() for variant in item.variants))
    loaded, item = load_runs(paths, paper=paper, tasks=tasks, variants=known), figures[asked.name]
    scale, sources = check_scale(loaded, asked.scale), of_variants(loaded, item.variants)
    notes += check_mixture(sources, allow=asked.allow_mixed_code)
    drawn = item.draw(Request(sources, scale, asked.seeds, asked.reference, notes))
    origin = origin_metadata(sources)
    title = f"{paper}, {asked.name}, scale {scale}"
    files = {
        asked.figure.with_suffix(suffix): image_bytes(drawn.figure, suffix, title=title, origin=origin)
        for suffix in IMAGES
    }
    files |= {asked.figure.with_suffix(suffix): data for suffix, data in drawn.further.items()}
    files[asked.numbers] = table_csv(drawn.numbers)
    files[asked.sources] = sources_json(
        sources,
        figure=asked.name,
        paper=paper,
        scale=scale,
        notes=list(notes),
        reference={"path": _shown(asked.reference), "sha256": file_sha256(asked.reference)},
        beside={_shown(path): file_sha256(path) for path in published[1:]},
    )
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    others = f" ({len(loaded) - len(sources)} of other figures left out)" if len(loaded) > len(sources) else ""
    print(f"{asked.name}: {len(sources)} runs{others}, scale {scale}; wrote {', '.join(str(path) for path in files)}")


def _shown(path: Path) -> str:
    """A path as typed from the working folder, so that the file reads the same on every machine."""
    return str(path.resolve().relative_to(Path.cwd())) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def _parse(arguments: Sequence[str], figures: Mapping[str, object], paper: str, reference: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m replications.{paper}.figures",
        description="Draw one figure or table of the paper from run files.",
    )
    parser.add_argument("name", choices=list(figures), help="which figure or table")
    runs = parser.add_mutually_exclusive_group(required=True)
    runs.add_argument("--runs", type=Path, nargs="*", metavar="F.h5", help="run files, finished or .partial")
    runs.add_argument("--results-root", type=Path, help="a folder such as results/laptop: draw what is there")
    parser.add_argument("--scale", help="smoke, laptop or paper; must agree with the runs (default: theirs)")
    parser.add_argument("--seeds", type=int, help="seeds planned per curve (default: those found)")
    parser.add_argument("--figure", type=Path, required=True, help="image to write; .pdf and .png both appear")
    parser.add_argument("--numbers", type=Path, required=True, help="CSV of the plotted numbers to write")
    parser.add_argument("--sources", type=Path, required=True, help="JSON of the runs behind the figure to write")
    parser.add_argument("--reference", type=Path, default=reference, help="CSV of the published numbers")
    parser.add_argument(
        "--allow-mixed-code", action="store_true", help="draw curves of several codes or configs, and say so"
    )
    asked = parser.parse_args(arguments)
    if asked.figure.suffix not in IMAGES:
        raise UserError(f"--figure {asked.figure}: expected a name ending in .pdf or .png")
    return asked
