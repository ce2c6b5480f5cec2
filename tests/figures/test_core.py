"""The numerics figure from a small invented measurement: what is drawn where, and what must stand on its face."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from shared.figures import core, mixed_precision
from shared.figures.page import WARNING, texts

FACTS = {
    "git_commit": "0123456789abcdef",
    "git_dirty": "",
    "code_digest": "c0de" * 16,
    "libraries": "numpy 2.0, torch 2.1",
    "cpu": "a processor, 2 CPUs",
    "started": "2026-11-21T10:00:00+00:00",
    "digits": 50,
    "compiled": False,
    "tolerances": {
        "returns.sum, value": {
            "roundings": 4.0,
            "why": "few steps",
            "flushed": 8.0,
            "why_flushed": "few arguments",
            "specials": [
                {"library": "jax", "precision": "float64", "families": [], "roundings": 150.0, "why": "its log1p"},
                {"library": "torch", "precision": "float32", "families": ["far"], "roundings": None, "why": "erf"},
            ],
        }
    },
    "without_rounding": {"sequences.shift": "moves entries"},
}


def row(formula, roundings, *, quantity="value", family="ordinary", library="torch", precision="float32", **more):
    tolerance = more.get("tolerance", 4.0)
    return {
        "formula": formula,
        "quantity": quantity,
        "family": family,
        "library": library,
        "precision": precision,
        "worst_relative_error": 1e-7 * roundings,
        "worst_ulp": 2.0 * roundings,
        "worst_roundings": roundings,
        "tolerance": tolerance,
        "within": None if np.isnan(tolerance) else roundings <= tolerance,
        "flushed": False,
        "where": "result 0[0]",
    } | more


ROWS = [
    row("returns.sum", 0.5),
    row("returns.sum", 3.0, family="ties"),
    row("returns.sum", 1.0, family="subnormal", worst_relative_error=1.0, worst_ulp=8e6, flushed=True),
    row("returns.sum", 60.0, library="jax", precision="float64", tolerance=150.0),
    row("returns.sum", 0.0, library="numpy", precision="float64"),
    row("returns.sum", 7.0, quantity="gradient"),
    row("returns.sum", 90.0, precision="bfloat16", tolerance=np.nan),
    row("transforms.log", 1e9, library="jax"),
    row("transforms.log", 2.0, library="torch", precision="bfloat16 to float32"),
]


@pytest.fixture
def command(tmp_path):
    pd.DataFrame(ROWS).to_csv(tmp_path / "numbers.csv", index=False)
    (tmp_path / "sources.json").write_text(json.dumps(FACTS))

    def run(stem, *more):
        paths = {"numbers": "numbers.csv", "sources": "sources.json", "figure": f"{stem}.pdf"}
        return core.main([f"--{option}={tmp_path / name}" for option, name in paths.items()] + [*more])

    return run


def precision_row(kind, name, relative, cosine=np.nan, *, framework="torch", draws="held"):
    values = {"float32": 1.0, "mixed": 1.0, "relative": relative, "cosine": cosine}
    facts = {"device": "cpu", "size": "tiny", "windows": 4, "rows": 8}
    return {"framework": framework, "draws": draws, "kind": kind, "name": name, **values, **facts}


PRECISION = [
    precision_row("loss", "loss", 0.0),
    precision_row("loss", "replay_value_loss", 0.0123, framework="jax"),
    precision_row("gradient", "latent model", 0.0342, 0.98765, framework="jax", draws="free"),
    precision_row("classes", "classes of the posterior", 0.067, draws="free"),
]


def drawn(rows=ROWS, **facts):
    return core.plot(pd.DataFrame(rows), FACTS | facts)


def dots(figure) -> list[tuple[float, float, str, str]]:
    """(roundings, line from above, colour, face) of every dot."""
    axes = figure.axes[0]
    count = round(axes.get_ylim()[1] + 0.5)
    return [
        (line.get_xdata()[0], count - 1 - round(line.get_ydata()[0]), to_hex(line.get_color()), face)
        for line in axes.lines
        if line.get_marker() not in ("", "None")
        for face in ["white" if to_hex(line.get_markerfacecolor()) == "#ffffff" else "filled"]
    ]


def test_the_worst_of_all_families_counts():
    worst = core.summarise(pd.DataFrame(ROWS)).set_index([*core.LINE, "library", "precision"])
    entry = worst.loc[("returns.sum", "value", "torch", "float32")]
    assert (entry["worst_roundings"], entry["beyond"], entry["flushed"]) == (3.0, False, True)
    # relative error and ulp are those of "ties", not of the flushed subnormal numbers
    assert entry["worst_relative_error"] == pytest.approx(3e-7) and entry["worst_ulp"] == 6.0


def test_what_has_no_tolerance_is_hollow_and_does_not_count_as_beyond():
    worst = core.summarise(pd.DataFrame(ROWS)).set_index([*core.LINE, "library", "precision"])
    entry = worst.loc[("returns.sum", "value", "torch", "bfloat16")]
    assert np.isnan(entry["worst_roundings"]) and entry["unpromised"] == 90.0 and not entry["beyond"]
    assert (90.0, 0, core.COLORS["torch"].lower(), "white") in dots(drawn().figure)


def test_dots_stand_on_their_line_in_the_colour_of_their_library():
    found = dots(drawn().figure)
    assert (3.0, 0, core.COLORS["torch"].lower(), "filled") in found
    assert (60.0, 0, core.COLORS["jax"].lower(), "filled") in found
    assert (2.0, 2, core.COLORS["torch"].lower(), "filled") in found
    assert (core.LEAST, 0, core.COLORS["numpy"].lower(), "filled") in found, "no error stands at the left edge"


def test_what_is_beyond_its_tolerance_is_red_and_told():
    figure = drawn().figure
    assert {(x, y) for x, y, color, _ in dots(figure) if color == WARNING.lower()} == {(7.0, 1), (core.MOST, 2)}
    words = " ".join(texts(figure)).replace("\n", " ")
    assert "Of 8 measurements 2 lie beyond it." in words
    fine = " ".join(texts(drawn(ROWS[:2]).figure))
    assert "Of 2 measurements none lies beyond it." in fine


def test_one_librarys_own_tolerance_has_its_own_mark():
    marks = [line for line in drawn().figure.axes[0].lines if list(line.get_xdata()) == [150.0, 150.0]]
    assert [line.get_color() for line in marks] == [core.COLORS["jax"]]


def test_page_says_reference_origin_and_what_was_left_out():
    words = " ".join(texts(drawn().figure)).replace("\n", " ")
    for part in ("50 digits", "torch compiled: left out at this scale", "Commit 0123456; code c0dec0d", "2026-11-21"):
        assert part in words, part
    assert "smoke" not in words
    assert "left out at this scale" not in " ".join(texts(drawn(compiled=True).figure))


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.5, "0.5"), (1.26, "1.3"), (12.4, "12"), (426, "426"), (3e8, "3e8"), (2e-16, "2e-16"), (np.inf, "∞")],
)
def test_numbers_are_short(value, words):
    assert core.short(value) == words


def test_command_writes_three_files_that_are_the_same_every_time(command, tmp_path):
    assert command("one") == command("two") == 0
    for suffix in (".pdf", ".png", ".md"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes(), suffix
    width, _ = Image.open(tmp_path / "one.png").size
    assert width > 1500
    table = (tmp_path / "one.md").read_text()
    assert "| returns.sum | value | 4 | 3e-7 / 6 / 3 |" in table
    assert "100 / 2e9 / 1e9 **beyond**" in table
    assert "9e-6 / 180 / 90 (not promised)" in table
    assert "jax float64: 150 (its log1p); torch float32 on far: nothing promised (erf)" in table
    assert "| sequences.shift | moves entries |" in table


def test_an_update_in_mixed_precision_stands_below(tmp_path, command):
    """In the order of the file; what was not measured is a dash. The formulas stay as they are without it."""
    figure = core.plot(pd.DataFrame(ROWS), FACTS, pd.DataFrame(PRECISION)).figure
    words = texts(figure)
    numbers = ("1.2 %", "3.4 %", "0.98765", "6.7 %")
    for expected in (*numbers, "world model", "replay value", "latent model", "that differ"):
        assert words.count(expected) == 1, expected
    assert "JAX, draws free" in words and "torch, draws held" in words
    assert "on a CPU (torch by its autocast for CPUs), not on a GPU" in " ".join(words).replace("\n", " ")
    assert dots(figure) == dots(drawn().figure)
    assert mixed_precision.words_of(pd.DataFrame(PRECISION), ("gradient", "latent model")) == [
        "–", "–", "–", "–", "–", "–", "3.4 %", "0.98765",
    ]  # fmt: skip
    without = " ".join(texts(drawn().figure))
    assert "mixed precision" not in without.lower()
    pd.DataFrame(PRECISION).to_csv(tmp_path / "precision.csv", index=False)
    assert command("with", "--precision", str(tmp_path / "precision.csv")) == 0
    page = (tmp_path / "with.md").read_text()
    assert "| gradients | latent model | – | – | – | – | – | – | 3.4 % | 0.98765 |" in page


def test_precision_of_something_else_is_refused(tmp_path, capsys, command):
    pd.DataFrame(PRECISION).drop(columns="cosine").to_csv(tmp_path / "precision.csv", index=False)
    assert command("f", "--precision", str(tmp_path / "precision.csv")) == 2
    assert "no column cosine; write it with python -m replications.dreamerv3.precision" in capsys.readouterr().err
    assert command("f", "--precision", str(tmp_path / "absent.csv")) == 2
    assert "absent.csv: no such file" in capsys.readouterr().err


def test_numbers_of_something_else_are_refused(tmp_path, capsys, command):
    (tmp_path / "numbers.csv").write_text("formula,family\nx,y\n")
    assert command("f") == 2
    assert "no column quantity, library" in capsys.readouterr().err
    (tmp_path / "numbers.csv").unlink()
    assert command("f") == 2
    assert "shared.testing.numerics" in capsys.readouterr().err


def test_an_image_of_another_kind_and_missing_sources_are_refused(tmp_path, capsys, command):
    arguments = [f"--numbers={tmp_path / 'numbers.csv'}", f"--sources={tmp_path / 'sources.json'}"]
    assert core.main([*arguments, f"--figure={tmp_path / 'f.jpg'}"]) == 2
    assert ".pdf or .png" in capsys.readouterr().err
    (tmp_path / "sources.json").unlink()
    assert command("f") == 2
    assert "sources.json: no such file" in capsys.readouterr().err
