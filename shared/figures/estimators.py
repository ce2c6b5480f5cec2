"""Bias and variance of gradients through a categorical sample: plot and table of shared/testing/estimators.py.

    python -m shared.figures.estimators --numbers F.csv --figure F.pdf --sources F.json

Writes .pdf, .png and the table as .md. The numbers are a study of formulas, not runs, so no scale is stamped on it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from shared.checkpoint import write_whole
from shared.errors import UserError, cli
from shared.figures.command import IMAGES, Drawn
from shared.figures.page import INK, Page, image_bytes, styled
from shared.figures.sources import SHORT, file_sha256, sources_json
from shared.figures.tables import ROW, draw_table, markdown, read_measured

COLUMNS = ("reward", "share", "classes", "problem", "estimator", "temperature", "bias", "bias_error", "variance")
COLUMNS += ("cosine", "samples", "seed", "code")
KEYS = ["estimator", "temperature"]
REFERENCE = "straight-through"  # drawn in every column
UNBIASED = ("score function", "score function, baseline")  # by construction; their bias is rounding
FAMILIES = {
    "One draw": (REFERENCE, *UNBIASED, "score through"),
    "Gumbel-softmax": ("Gumbel-softmax",),
    "Straight-through Gumbel": ("straight-through Gumbel",),
}
COLORS = {
    REFERENCE: INK,
    "score function": "#0072B2",
    "score function, baseline": "#56B4E9",
    "score through": "#CC79A7",
}
HEAT = ("#F2B134", "#DD7A1B", "#A8440E", "#5A1E05")  # cold is light
PLOTTED_SHARE, TABLE_CLASSES = 0.5, 32
AVERAGED = np.array([1, 10, 100, 1000, 10_000])  # draws
LIMITS = {"bias": (2e-4, 3), "variance": (4e-3, 6e2), "error": (1e-3, 6e2)}
LABELS = {"bias": "squared bias / |g|²", "variance": "variance / |g|²", "error": "bias² + variance / draws"}
RESOLVED = 2  # Monte-Carlo standard errors; a smaller bias is not told from zero
MEDIAN_ERROR = 1.25  # standard error of a median over that of a mean, normal distribution
ROUNDING = 1e-20  # below: zero up to rounding of float64


def read_numbers(path: Path) -> pd.DataFrame:
    """The study's table; UserError where it is not one."""
    frame = read_measured("--numbers", path, COLUMNS, "shared.testing.estimators")
    return frame.assign(temperature=frame["temperature"].fillna(0))  # 0: none


def summarise(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Median and quartiles over problems; noise: the Monte-Carlo error of the median bias.

    names: what tells one line's points apart, KEYS among them.
    """
    groups = frame.groupby(list(names))
    parts = {
        f"{column}{suffix}": groups[column].quantile(level)
        for column in ("bias", "variance", "cosine", "error")
        if column in frame
        for suffix, level in (("_low", 0.25), ("", 0.5), ("_high", 0.75))
    }
    parts["noise"] = groups["bias_error"].agg(lambda error: MEDIAN_ERROR * error.median() / len(error) ** 0.5)
    return pd.DataFrame(parts).reset_index()


def total_error(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows for every number of averaged draws: error = bias^2 + variance / draws."""
    return pd.concat(
        [frame.assign(draws=count, error=frame["bias"] + frame["variance"] / count) for count in AVERAGED],
        ignore_index=True,
    )


# The plot


def plot(frame: pd.DataFrame) -> Drawn:
    """Bias, variance and total error, a column per family; below, the table of one number of classes."""
    network = frame[(frame["reward"] == "network") & np.isclose(frame["share"], PLOTTED_SHARE)]
    by_classes = summarise(network, [*KEYS, "classes"])
    by_draws = summarise(total_error(network[network["classes"] == TABLE_CLASSES]), [*KEYS, "draws"])
    header, rows, full = table(frame)
    height, width, left, across, down = 1.22, 1.95, 0.52, 2.24, 1.58
    table_height = ROW * (len(rows) + 1) + 0.55
    with styled():
        body = table_height + 3 * down + 0.1
        page = Page("Gradients through a categorical sample: bias and variance", "", body, _notes(frame))
        for column, (family, names) in enumerate(FAMILIES.items()):
            for row, quantity in enumerate(LIMITS):
                bottom = table_height + (2 - row) * down + 0.25
                axes = page.axes(left + column * across, bottom, width, height)
                points, x = (by_draws, "draws") if quantity == "error" else (by_classes, "classes")
                _panel(axes, points, x, quantity, names)
                axes.tick_params(labelleft=column == 0)
                if row == 0:
                    axes.set_title(family, pad=4)
                if column == 0:
                    axes.set_ylabel(LABELS[quantity], labelpad=2)
                if quantity == "bias" and column == 0:
                    words = "score function, with and\nwithout baseline: exactly 0"
                    axes.text(0.03, 0.05, words, transform=axes.transAxes, fontsize=5.8, color=COLORS[UNBIASED[0]])
                if quantity == "error":
                    axes.legend(loc="upper right", fontsize=5.6, borderaxespad=0.1, labelspacing=0.25)
        page.text(left, table_height - 0.2, _table_title(frame), fontsize=7, fontweight="bold", color=INK)
        draw_table(page, table_height - 0.3, header, rows, rules_before=_family_starts(rows))
    return Drawn(page.figure, full, {".md": _markdown(frame, full).encode()})


def _panel(axes: Axes, points: pd.DataFrame, x: str, quantity: str, names: Sequence[str]) -> None:
    axes.set_xscale("log", base=2 if x == "classes" else 10)
    axes.set_yscale("log")
    axes.set_ylim(*LIMITS[quantity])
    if REFERENCE not in names:
        _line(axes, points[points["estimator"] == REFERENCE], x, quantity, COLORS[REFERENCE], REFERENCE, faint=True)
    for name in names:
        of_name = points[points["estimator"] == name]
        temperatures = sorted(of_name["temperature"].unique())
        for heat, temperature in zip(HEAT, temperatures, strict=False):
            color = COLORS.get(name, heat)
            label = f"temperature {temperature:g}" if temperature else name
            _line(axes, of_name[of_name["temperature"] == temperature], x, quantity, color, label)
    ticks = sorted(points[x].unique())
    axes.set_xticks(ticks, [f"{tick:g}" if x == "classes" else f"$10^{{{np.log10(tick):.0f}}}$" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("classes" if x == "classes" else f"draws averaged ({TABLE_CLASSES} classes)", labelpad=1)


def _line(axes: Axes, points: pd.DataFrame, x: str, quantity: str, color: str, label: str, faint=False) -> None:
    """Median over problems with quartiles; hollow at the limit of resolution where a bias is not told from zero."""
    points = points.sort_values(x)
    if quantity == "bias" and points["bias"].max() < ROUNDING and not points["noise"].any():
        return
    floor = RESOLVED * points["noise"] if quantity == "bias" else np.full(len(points), LIMITS[quantity][0] / 10)
    hidden = np.asarray(points[quantity] < floor)
    middle = np.maximum(points[quantity], floor)
    low, high = np.maximum(points[f"{quantity}_low"], LIMITS[quantity][0] / 10), points[f"{quantity}_high"]
    look = {"color": color, "linestyle": (0, (2, 1.5)) if faint else "-", "alpha": 0.55 if faint else 1}
    axes.plot(points[x], middle, linewidth=1.1, label=label, **look)
    spread = np.array([middle - np.minimum(low, middle), np.maximum(high, middle) - middle])
    if not faint:
        axes.errorbar(
            points[x][~hidden],
            middle[~hidden],
            spread[:, ~hidden],
            fmt="o",
            color=color,
            markersize=2.2,
            elinewidth=0.7,
        )
        axes.plot(points[x][hidden], middle[hidden], "v", color=color, markersize=3, markerfacecolor="white")


def _notes(frame: pd.DataFrame) -> list[str]:
    problems, samples = frame["problem"].nunique(), int(frame["samples"].iloc[0])
    linear = frame[(frame["reward"] == "linear") & (frame["estimator"] == REFERENCE)]["bias"].max()
    return [
        "g: exact gradient of E[f(z)] with respect to the logits of one categorical z, by enumeration. Logits: unit "
        "normal. f: a random tanh network with one hidden layer, half of whose input varies with z (share 1/2, "
        "plotted), or a 32nd of it, as with 32 latents side by side. Line and bar: median and quartiles over "
        f"{problems} random problems. Baseline: the expected reward. Score through: Dreamer's discrete actions, the "
        "score function carried by the sample through the gradient of f.",
        "Estimators of one draw are enumerated and carry no noise; those with Gumbel noise come from "
        f"{samples:,} draws per problem, seed {frame['seed'].iloc[0]}. Hollow triangle: a median bias below {RESOLVED} "
        "standard errors, drawn there. Check: for a linear f the squared bias of straight-through is at most "
        f"{linear:.0e}, rounding.",
        f"Code {str(frame['code'].iloc[0])[:SHORT]}.",
    ]


# The table


def table(frame: pd.DataFrame) -> tuple[list[str], list[list[str]], pd.DataFrame]:
    """Header and rows for TABLE_CLASSES classes, both shares of the network; and the summary of everything."""
    full = summarise(frame, ["reward", "share", "classes", *KEYS])
    chosen = full[(full["reward"] == "network") & (full["classes"] == TABLE_CLASSES)]
    shares = sorted(chosen["share"].unique(), reverse=True)
    header = ["estimator"] + [f"{name}, {_fraction(s)}" for s in shares for name in ("bias²", "variance", "cosine")]
    rows = []
    for names in FAMILIES.values():
        of_family = chosen[chosen["estimator"].isin(names)]
        keys = sorted({tuple(key) for key in of_family[KEYS].to_numpy()}, key=lambda key: (names.index(key[0]), key[1]))
        for name, temperature in keys:
            cells = [f"{name}, temperature {temperature:g}" if temperature else name]
            for share in shares:
                at = (of_family[KEYS] == [name, temperature]).all(axis=1) & (of_family["share"] == share)
                cells += _cells(of_family[at].iloc[0])
            rows.append(cells)
    return header, rows, full


def _cells(entry: pd.Series) -> list[str]:
    """Bias, variance and cosine in words a table can hold."""
    bias = _short(entry["bias"])
    if entry["noise"] and entry["bias"] < RESOLVED * entry["noise"]:
        bias = f"< {_short(RESOLVED * entry['noise'])}"
    return [bias, _short(entry["variance"]), f"{min(entry['cosine'], 1):.3f}"]


def _short(value: float) -> str:
    """Two significant digits, or all before the point."""
    if abs(value) < ROUNDING:
        return "0"
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:#.2g}"


def _fraction(share: float) -> str:
    return f"share 1/{round(1 / share)}"


def _family_starts(rows: Sequence[Sequence[str]]) -> list[int]:
    names = [next(f for f, members in FAMILIES.items() if row[0].split(", temp")[0] in members) for row in rows]
    return [index for index in range(1, len(names)) if names[index] != names[index - 1]]


def _table_title(frame: pd.DataFrame) -> str:
    return f"{TABLE_CLASSES} classes: medians over {frame['problem'].nunique()} problems, in units of |g|²"


def _markdown(frame: pd.DataFrame, full: pd.DataFrame) -> str:
    """The drawn table, and the summary of every setting and number of classes."""
    header, rows, _ = table(frame)
    values = ["bias", "bias_low", "bias_high", "variance", "cosine", "noise"]
    every = [
        [*(str(entry[name]) for name in ("reward", "share", "classes", "estimator")), f"{entry['temperature'] or '–'}"]
        + [_short(entry[name]) for name in values]
        for entry in full.to_dict("records")
    ]
    parts = [
        "# Gradients through a categorical sample\n",
        f"{_table_title(frame)}.\n",
        markdown(header, rows),
        "## Every setting\n\nMedian and quartiles over problems; noise: Monte-Carlo error of the median bias.\n",
        markdown(["reward", "share", "classes", *KEYS, *values], every, left_columns=(0, 3)),
        *(f"{note}\n" for note in _notes(frame)),
    ]
    return "\n".join(parts)


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m shared.figures.estimators", description="Draw the study of gradient estimators."
    )
    parser.add_argument("--numbers", type=Path, required=True, help="CSV of shared.testing.estimators to read")
    parser.add_argument("--figure", type=Path, required=True, help="image to write; .pdf, .png and .md all appear")
    parser.add_argument("--sources", type=Path, required=True, help="JSON of what the figure rests on, to write")
    asked = parser.parse_args(arguments)
    if asked.figure.suffix not in IMAGES:
        raise UserError(f"--figure {asked.figure}: expected a name ending in .pdf or .png")
    frame = read_numbers(asked.numbers)
    drawn = plot(frame)
    code = str(frame["code"].iloc[0])
    title, origin = "Gradients through a categorical sample", f"code: {code}"
    files = {asked.figure.with_suffix(s): image_bytes(drawn.figure, s, title=title, origin=origin) for s in IMAGES}
    files |= {asked.figure.with_suffix(suffix): data for suffix, data in drawn.further.items()}
    numbers = {"path": str(asked.numbers), "sha256": file_sha256(asked.numbers)}
    settings = {name: int(frame[name].iloc[0]) for name in ("samples", "seed")}
    files[asked.sources] = sources_json((), figure="estimators", numbers=numbers, code_digest=code, **settings)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    print(f"estimators: wrote {', '.join(str(path) for path in files)}")


if __name__ == "__main__":
    sys.exit(main())
