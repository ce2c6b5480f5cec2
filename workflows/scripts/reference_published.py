"""Make the derived tables of the published curves, small enough to keep, from the authors' own files.

    python -m workflows.scripts.reference_published --source ../shared/reference

Written to data/reference: published_curves.csv.gz (of every run of every release in published.yaml, means over 1/25 of
the release's length, five digits) and published_finals.csv (a row per run: its final score by the authors' recipe).
"""

import argparse
import gzip
import sys
from pathlib import Path

import pandas as pd

from shared.checkpoint import write_whole
from shared.config import shown
from shared.diff.published import CURVES, DATA, FINALS, binned, finals, load, releases
from shared.errors import UserError, cli


def tables(source: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The derived curves and the final scores of every release."""
    curves, scores = [], []
    for release in releases().values():
        missing = [name for name in release.files if not (source / name).is_file()]
        if missing:
            raise UserError(f"--source {source}: no {missing[0]}; `make published` obtains what {release.name} needs")
        table = load(release, source=source)
        curves.append(binned(table, release.end).assign(release=release.name))
        scores.append(finals(release, table).assign(release=release.name))
    columns = ["release", "task", "seed"]
    curve = pd.concat(curves, ignore_index=True)[[*columns, "env_steps", "return"]]
    return curve.astype({"env_steps": int}), pd.concat(scores, ignore_index=True)[[*columns, "final"]]


def compressed(table: pd.DataFrame) -> bytes:
    """The same bytes every time: no clock in the head."""
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.5g")
    return gzip.compress(text.encode(), 9, mtime=0)


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflows.scripts.reference_published", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with the authors' score files")
    parser.add_argument("--target", type=Path, default=DATA, help="where to write (default: data/reference)")
    options = parser.parse_args(arguments)
    curves, scores = tables(options.source)
    for name, data in (
        (CURVES.name, compressed(curves)),
        (FINALS.name, scores.to_csv(index=False, lineterminator="\n", float_format="%.8g").encode()),
    ):
        write_whole(options.target / name, data)
        print(f"{shown(options.target / name)}: {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
