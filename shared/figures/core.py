"""How exact the formulas are: plot and table of the numbers that shared/testing/numerics.py measures.

    python -m shared.figures.core --numbers F.csv --sources F.json --figure OUT.pdf [--precision F.csv]

Writes .pdf, .png and the full table as .md. The numbers are of formulas, not of runs, so no scale is stamped on them.
With --precision an update in mixed precision stands below them (mixed_precision.py).
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from shared.checkpoint import write_whole
from shared.errors import UserError, cli
from shared.figures import mixed_precision
from shared.figures.command import IMAGES, Drawn
from shared.figures.page import INK, MARGIN, QUIET, WARNING, Page, image_bytes, styled
from shared.figures.sources import SHORT
from shared.figures.tables import markdown, read_measured

COLUMNS = ("formula", "quantity", "family", "library", "precision", "worst_relative_error", "worst_ulp")
COLUMNS += ("worst_roundings", "tolerance", "within", "flushed", "where")
LINE = ["formula", "quantity"]
COLORS = {"numpy": "#222222", "torch": "#D55E00", "torch compiled": "#E69F00", "jax": "#0072B2"}
MARKERS = {"float64": "o", "float32": "s", "bfloat16 to float32": "^", "bfloat16": "D"}
PLACES = {"numpy": 0.27, "torch": 0.09, "torch compiled": -0.09, "jax": -0.27}  # within a line, upwards
TABLE = {"float64": "float64", "float32": "float32", "bfloat16 to float32": "bfloat16, cast"}
TITLE = "Numerics of the formulas: worst error on hard inputs"
LEAST, MOST = 0.01, 1e4  # roundings; what is outside stands at the edge
HEIGHT, FONT = 0.122, 5.4  # inches per line, points
MODULE, NAME, LEFT, RIGHT = MARGIN, 0.86, 2.3, 4.3  # inches: columns of the page
STATED, FIRST, STEP, ULP = 4.58, 5.02, 0.84, 0.36  # right edges of the table's columns, from the page's left
FOOT, HEAD, LEGEND = 0.28, 0.3, 0.28  # inches below and above the lines


def read_numbers(path: Path) -> pd.DataFrame:
    """The measured table; UserError where it is not one."""
    return read_measured("--numbers", path, COLUMNS, "shared.testing.numerics")


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per formula, quantity, library and precision: the worst of all families.

    promised: some family has a tolerance there; the worst roundings are then those of the promised families alone.
    unpromised: the worst roundings of the others. beyond: a tolerance is exceeded. Relative error and ulp leave out the
    family "subnormal", where flushing to zero makes them 1 and more.
    """
    promised, normal = frame["tolerance"].notna(), frame["family"].ne("subnormal")
    frame = frame.assign(
        promised=promised,
        beyond=frame["within"].astype(str).eq("False"),
        unpromised=frame["worst_roundings"].where(~promised),
        worst_roundings=frame["worst_roundings"].where(promised),
        worst_relative_error=frame["worst_relative_error"].where(normal),
        worst_ulp=frame["worst_ulp"].where(normal),
    )
    worst = ["worst_relative_error", "worst_ulp", "worst_roundings", "unpromised", "tolerance"]
    flags = ["promised", "beyond", "flushed"]
    return frame.groupby([*LINE, "library", "precision"], sort=False)[[*worst, *flags]].max().reset_index()


# The picture


def plot(frame: pd.DataFrame, facts: Mapping[str, object], mixed: pd.DataFrame | None = None) -> Drawn:
    """One line per value and gradient: dots against the tolerance at the left, plain errors as numbers at the right.

    mixed: what replications/dreamerv3/precision.py measured, drawn below.
    """
    worst = summarise(frame)
    groups = dict(list(worst.groupby(LINE, sort=False)))
    lines = list(groups)
    top, notes = HEIGHT * len(lines), _notes(frame, facts)
    foot = FOOT + (0 if mixed is None else mixed_precision.height(mixed))
    with styled():
        own = [] if mixed is None else mixed_precision.notes(mixed)
        page = Page(TITLE, "", foot + top + HEAD + LEGEND, [*notes[:-1], *own, notes[-1]])
        axes = page.axes(LEFT, foot, RIGHT - LEFT, top)
        _prepare(axes, len(lines))
        for rank, line in enumerate(lines):
            of_line, y = groups[line], len(lines) - 1 - rank
            _dots(axes, y, of_line)
            _names(page, foot + HEIGHT * (y + 0.5), line, lines[rank - 1] if rank else None, of_line)
            _cells(page, foot + HEIGHT * (y + 0.5), of_line)
        _head(page, foot + top)
        _legend(page, foot + top + HEAD, worst)
        if mixed is not None:
            mixed_precision.draw(page, 0.0, mixed)
    words = _markdown(frame, worst, facts) + ("" if mixed is None else "\n" + mixed_precision.as_markdown(mixed))
    return Drawn(page.figure, frame, {".md": words.encode()})


def _prepare(axes: Axes, count: int) -> None:
    axes.set(xscale="log", xlim=(LEAST / 1.6, MOST * 1.6), ylim=(-0.5, count - 0.5), yticks=[])
    ticks = 10.0 ** np.arange(np.log10(LEAST), np.log10(MOST) + 1)
    labels = [f"≤{LEAST:g}", *(f"{tick:g}" for tick in ticks[1:-1]), f"≥{MOST:g}"]
    axes.set_xticks(ticks, labels, fontsize=FONT)
    axes.minorticks_off()
    axes.set_xlabel("error in roundings (eps × scale)", fontsize=FONT + 0.6, labelpad=1)
    axes.grid(visible=True, axis="x")


def _dots(axes: Axes, y: int, of_line: pd.DataFrame) -> None:
    """The tolerance as a bar, results as dots: hollow where nothing is promised, red where the bar is left."""
    tolerance = of_line["tolerance"].min()
    axes.barh(y, max(tolerance, LEAST) - LEAST / 2, left=LEAST / 2, height=0.86, color="#E8EDE4", zorder=0.5)
    axes.plot([max(tolerance, LEAST)] * 2, [y - 0.43, y + 0.43], color="#5B7F4B", linewidth=0.9, zorder=1)
    for row in of_line[of_line["tolerance"] > tolerance].to_dict("records"):
        place = y + PLACES[row["library"]]
        axes.plot([row["tolerance"]] * 2, [place - 0.1, place + 0.1], color=COLORS[row["library"]], linewidth=0.9)
    for row in of_line.to_dict("records"):
        at, color = y + PLACES[row["library"]], COLORS[row["library"]]
        size = 2.4 if row["precision"] == "bfloat16 to float32" else 2.0
        for value, filled in ((row["worst_roundings"], True), (row["unpromised"], False)):
            if np.isnan(value):
                continue
            ink = WARNING if row["beyond"] and filled else color
            face = ink if filled else "white"
            axes.plot(
                np.clip(value, LEAST, MOST), at, MARKERS[row["precision"]], color=ink, markerfacecolor=face,
                markersize=size, markeredgewidth=0.4, zorder=3 if filled else 2, clip_on=False,
            )  # fmt: skip


def _names(page: Page, height: float, line: tuple[str, str], above: tuple[str, str] | None, of_line) -> None:
    module, name = line[0].split(".", 1)
    style = {"fontsize": FONT, "va": "center_baseline"}
    if above is None or above[0].split(".", 1)[0] != module:
        page.rule(MARGIN, page.width - MARGIN, height + HEIGHT / 2, 0.35, "#BBBBBB")
        page.text(MODULE, height, module.lstrip("_"), color=QUIET, **style)
    color = WARNING if of_line["beyond"].any() else INK
    words = name if line[1] == "value" else "    gradient"
    page.text(NAME, height, words, color=color, **style)
    flushing = of_line[of_line["flushed"]]["library"].unique()
    for index, library in enumerate(flushing):
        page.text(LEFT - 0.1 - 0.09 * index, height, "0", color=COLORS[library], ha="center", **style)


def _cells(page: Page, height: float, of_line: pd.DataFrame) -> None:
    style = {"fontsize": FONT, "va": "center_baseline", "ha": "right"}
    page.text(STATED, height, f"{of_line['tolerance'].min():g}", color="#41632F", **style)
    for index, precision in enumerate(TABLE):
        at = FIRST + STEP * index
        cells = of_line[of_line["precision"] == precision]
        if len(cells):
            page.text(at, height, short(cells["worst_relative_error"].max()), color=INK, **style)
            page.text(at + ULP, height, short(cells["worst_ulp"].max()), color=INK, **style)


def _head(page: Page, height: float) -> None:
    style = {"fontsize": FONT, "fontweight": "bold", "color": INK, "va": "bottom"}
    page.text(NAME, height + 0.03, "formula", **style)
    page.text(LEFT - 0.06, height + 0.03, "flushes", ha="right", **style)
    page.text(STATED, height + 0.03, "stated", ha="right", **style)
    for index, name in enumerate(TABLE.values()):
        at = FIRST + STEP * index
        page.text(at + ULP, height + 0.12, name, ha="right", **style)
        page.text(at, height + 0.03, "relative", ha="right", **style)
        page.text(at + ULP, height + 0.03, "ulp", ha="right", **style)


def _legend(page: Page, height: float, worst: pd.DataFrame) -> None:
    axes = page.axes(LEFT, height, 1, LEGEND)
    axes.set_axis_off()
    libraries = [name for name in COLORS if name in set(worst["library"])]
    handles = [Line2D([], [], color=COLORS[name], marker="o", linestyle="", markersize=2.4) for name in libraries]
    shapes = [Line2D([], [], color=QUIET, marker=mark, linestyle="", markersize=2.4) for mark in MARKERS.values()]
    shapes[-1].set_markerfacecolor("white")
    names = [*libraries, *(name.replace("bfloat16 to float32", "bfloat16, cast to float32") for name in MARKERS)]
    names[-1] = "bfloat16 throughout"
    axes.legend(
        handles + shapes, names, ncols=4, loc="upper left", fontsize=FONT, handletextpad=0.1, columnspacing=1.0,
        borderaxespad=0,
    )  # fmt: skip


def _notes(frame: pd.DataFrame, facts: Mapping[str, object]) -> list[str]:
    judged = frame["tolerance"].notna()
    beyond = int(frame["within"].astype(str).eq("False").sum())
    compiled = "" if facts["compiled"] else " torch compiled: left out at this scale."
    return [
        f"Reference: {facts['digits']} digits of mpmath, written from the definitions, on the inputs as rounded to the "
        "type. Dots: worst |error| in units of eps × scale, where scale is the error if every intermediate result were "
        "wrong by its own size; bar: stated tolerance, the same number in every precision. Of "
        f"{int(judged.sum())} measurements {beyond or 'none'} lie{'s' if beyond < 2 else ''} beyond it.{compiled}",
        "Right: worst relative error and worst distance in units in the last place, over libraries and inputs. Where "
        "terms cancel (a KL near 0) they say how little is left of the terms; the dots judge the formula. Short "
        "coloured bar: a tolerance of one library. Hollow: nothing is promised (bfloat16 throughout, shown for "
        "elementwise formulas; exceptions of torch compiled). A coloured 0: that library takes subnormal numbers for "
        "0, as the tolerance allows; relative error and ulp leave such results out, and exact zeros.",
        f"Commit {str(facts['git_commit'])[:SHORT]}{' (dirty)' if facts['git_dirty'] else ''}; code "
        f"{str(facts['code_digest'])[:SHORT]}; {facts['libraries']}; {facts['cpu']}; {str(facts['started'])[:10]}.",
    ]


def short(value: float) -> str:
    """Two digits at most: 0, 0.5, 12, 3e+08."""
    if value == 0 or np.isinf(value):
        return "0" if value == 0 else "∞"
    if 0.095 <= value < 999.5:
        return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


# The full table


def _markdown(frame: pd.DataFrame, worst: pd.DataFrame, facts: Mapping[str, object]) -> str:
    """Every library and precision; then the families that are beyond or not promised, tolerances, formulas left out."""
    columns = list(worst.groupby(["library", "precision"], sort=False).groups)
    rows = []
    for (formula, quantity), of_line in worst.groupby(LINE, sort=False):
        found = {(row["library"], row["precision"]): _cell(row) for row in of_line.to_dict("records")}
        tolerance = f"{of_line['tolerance'].min():g}"
        rows.append([formula, quantity, tolerance, *(found.get(column, "–") for column in columns)])
    header = [*LINE, "tolerance", *(f"{library} {precision}" for library, precision in columns)]
    tolerances = [
        [name, f"{of['roundings']:g}", of["why"], f"{of['flushed']:g}", of["why_flushed"], _exception(of)]
        for name, of in facts["tolerances"].items()
    ]
    words = ["formula", "roundings", "because", "flushed", "because", "exception"]
    left_out = [[name, why] for name, why in facts["without_rounding"].items()]
    return "\n".join(
        [
            "# Numerics of the formulas\n",
            *(f"{note}\n" for note in _notes(frame, facts)),
            "Cells: relative error / ulp / roundings.\n",
            markdown(header, rows, left_columns=(0, 1)),
            "## Tolerances\n\n|error| ≤ roundings × eps × scale + flushed × smallest normal number\n",
            markdown(words, tolerances, left_columns=(0, 2, 4, 5)),
            "## Without rounding\n",
            markdown(["formula", "because"], left_out, left_columns=(0, 1)),
        ]
    )


def _cell(row: Mapping[str, object]) -> str:
    roundings = row["worst_roundings"] if row["promised"] else row["unpromised"]
    mark = " **beyond**" if row["beyond"] else "" if row["promised"] else " (not promised)"
    return f"{short(row['worst_relative_error'])} / {short(row['worst_ulp'])} / {short(roundings)}{mark}"


def _exception(entry: Mapping[str, object]) -> str:
    parts = []
    for special in entry["specials"]:
        number = "nothing promised" if special["roundings"] is None else f"{special['roundings']:g}"
        families = f" on {', '.join(special['families'])}" if special["families"] else ""
        parts.append(f"{special['library']} {special['precision']}{families}: {number} ({special['why']})")
    return "; ".join(parts) or "–"


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m shared.figures.core", description="Draw the rounding errors of every formula."
    )
    parser.add_argument("--numbers", type=Path, required=True, help="CSV written by shared.testing.numerics")
    parser.add_argument("--sources", type=Path, required=True, help="JSON written by shared.testing.numerics")
    parser.add_argument("--figure", type=Path, required=True, help="image to write; .pdf, .png and .md all appear")
    parser.add_argument(
        "--precision", type=Path, nargs="*", default=(), help="CSV written by replications.dreamerv3.precision"
    )
    asked = parser.parse_args(arguments)
    if asked.figure.suffix not in IMAGES:
        raise UserError(f"--figure {asked.figure}: expected a name ending in .pdf or .png")
    frame = read_numbers(asked.numbers)
    if not asked.sources.is_file():
        raise UserError(f"--sources {asked.sources}: no such file; write it with python -m shared.testing.numerics")
    facts = json.loads(asked.sources.read_text())
    measured = [mixed_precision.read_precision(path) for path in asked.precision]
    drawn = plot(frame, facts, pd.concat(measured) if measured else None)
    origin = f"commit: {facts['git_commit']}; code: {facts['code_digest']}"
    title = "core, numerics"
    files = {
        asked.figure.with_suffix(suffix): image_bytes(drawn.figure, suffix, title=title, origin=origin)
        for suffix in IMAGES
    }
    files |= {asked.figure.with_suffix(suffix): data for suffix, data in drawn.further.items()}
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    print(f"numerics: wrote {', '.join(str(path) for path in files)}")


if __name__ == "__main__":
    sys.exit(main())
