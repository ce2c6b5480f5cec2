"""The figure of gradient estimators from a small invented study: numbers by hand, and what must stand on its face."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from shared.figures import estimators
from shared.figures.page import texts

NAMES = [name for names in estimators.FAMILIES.values() for name in names]
CODE = "c0de" * 16


def study() -> pd.DataFrame:
    """Three problems with bias 1, 2, 4 and variance 30, 10, 20 tenths of the number of the estimator."""
    rows, settings = [], [("network", 0.5), ("network", 1 / 32), ("linear", 0.5)]
    for (reward, share), classes in itertools.product(settings, [2, 32]):
        for number, name in enumerate(NAMES, start=1):
            for temperature in (0.5, 2.0) if "umbel" in name else (np.nan,):
                for problem, (bias, variance) in enumerate([(1, 30), (2, 10), (4, 20)]):
                    zero = name in estimators.UNBIASED or reward == "linear"
                    rows.append(
                        {
                            "reward": reward,
                            "share": share,
                            "classes": classes,
                            "problem": problem,
                            "estimator": name,
                            "temperature": temperature,
                            "bias": 1e-31 if zero else bias / 10 * number,
                            "bias_error": 0.01 if "umbel" in name else 0.0,
                            "variance": variance / 10 * number,
                            "cosine": 0.9 + 0.01 * problem,
                            "samples": 4000,
                            "seed": 7,
                            "code": CODE,
                        }
                    )
    return pd.DataFrame(rows)


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "study.csv"
    study().to_csv(path, index=False)
    return path


def command(numbers, stem) -> int:
    return estimators.main(["--numbers", str(numbers), f"--figure={stem}.pdf", f"--sources={stem}.json"])


def test_median_and_quartiles_over_problems(numbers):
    line = estimators.summarise(estimators.read_numbers(numbers), ["reward", "share", "classes", *estimators.KEYS])
    line = line[(line["reward"] == "network") & (line["estimator"] == "Gumbel-softmax")].iloc[0]
    # estimator number 5, bias (1, 2, 4) / 2: median 1, quartiles half-way to the neighbours
    assert_allclose([line["bias_low"], line["bias"], line["bias_high"]], [0.75, 1.0, 1.5])
    assert_allclose([line["variance_low"], line["variance"], line["variance_high"]], [7.5, 10.0, 12.5])
    assert_allclose(line["cosine"], 0.91)
    assert_allclose(line["noise"], 1.25 * 0.01 / 3**0.5)


def test_averaging_draws_divides_the_variance_and_leaves_the_bias():
    frame = pd.DataFrame({"bias": [0.5], "variance": [20.0]})
    error = estimators.total_error(frame).set_index("draws")["error"]
    assert_allclose(error[[1, 10, 10_000]], [20.5, 2.5, 0.502])


def test_table_has_every_estimator_at_both_shares(numbers):
    header, rows, _ = estimators.table(estimators.read_numbers(numbers))
    assert header[1:4] == ["bias², share 1/2", "variance, share 1/2", "cosine, share 1/2"]
    assert header[4] == "bias², share 1/32"
    assert [row[0] for row in rows] == [
        *NAMES[:4],
        *(f"{name}, temperature {t}" for name in NAMES[4:] for t in ("0.5", "2")),
    ]
    assert rows[0][1:] == ["0.20", "2.0", "0.910"] * 2
    assert rows[1][1:4] == ["0", "4.0", "0.910"]  # 1e-31 is rounding
    assert rows[4][1:3] == ["1.0", "10"]


def test_a_bias_within_its_noise_is_only_bounded(numbers):
    frame = estimators.read_numbers(numbers)
    frame["bias_error"] *= 300  # 3, for biases around 1: the bound is 2 * 1.25 * 3 / sqrt(3) = 4.3
    rows = estimators.table(frame)[1]
    assert rows[4][1] == "< 4.3" and rows[0][1] == "0.20"


def test_cosines_of_the_table_do_not_exceed_one(numbers):
    frame = estimators.read_numbers(numbers).assign(cosine=1.003)
    assert {row[3] for row in estimators.table(frame)[1]} == {"1.000"}


def test_page_says_what_was_done(numbers):
    words = "\n".join(texts(estimators.plot(estimators.read_numbers(numbers)).figure))
    for part in ("exactly 0", "temperature 0.5", "4,000 draws", "seed 7", "3 random problems", "Code c0dec0d."):
        assert part in words, part
    assert "straight-through is at most 1e-31" in words.replace("\n", " ")
    assert "smoke" not in words


def test_a_bias_of_rounding_is_told_in_words_and_not_drawn(numbers):
    figure = estimators.plot(estimators.read_numbers(numbers)).figure
    bias, variance = figure.axes[0], figure.axes[1]
    assert len([line for line in bias.lines if line.get_linewidth() == 1.1]) == 2  # straight-through, score through
    assert len([line for line in variance.lines if line.get_linewidth() == 1.1]) == 4


def test_command_writes_four_files_that_are_the_same_every_time(numbers, tmp_path):
    assert command(numbers, tmp_path / "one") == command(numbers, tmp_path / "two") == 0
    for suffix in (".pdf", ".png", ".md", ".json"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes(), suffix
    sources = json.loads((tmp_path / "one.json").read_text())
    assert sources["code_digest"] == CODE and sources["samples"] == 4000 and sources["seed"] == 7
    assert sources["numbers"]["path"] == str(numbers) and len(sources["numbers"]["sha256"]) == 64
    width, height = Image.open(tmp_path / "one.png").size
    assert width > 1500 and height > width
    table = (tmp_path / "one.md").read_text()
    assert "| straight-through | 0.20 |" in table and "| linear | 0.5 | 32 | score function | – | 0 |" in table


def test_numbers_of_something_else_are_refused(tmp_path, capsys):
    path = tmp_path / "other.csv"
    path.write_text("classes,bias\n2,1\n")
    assert command(path, tmp_path / "f") == 2
    assert "no column reward, share" in capsys.readouterr().err
    assert command(tmp_path / "none.csv", tmp_path / "f") == 2
    assert "shared.testing.estimators" in capsys.readouterr().err


def test_an_image_of_another_kind_is_refused(numbers, tmp_path, capsys):
    arguments = ["--numbers", str(numbers), "--figure", str(tmp_path / "f.jpg"), "--sources", str(tmp_path / "f.json")]
    assert estimators.main(arguments) == 2
    assert ".pdf or .png" in capsys.readouterr().err
