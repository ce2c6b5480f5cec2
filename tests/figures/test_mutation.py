"""The table of mutation scores: counts and percentages as given, every survivor with its reason."""

import json

import pytest
from PIL import Image

from shared.figures import mutation
from shared.figures.page import texts


def survivor(why, line=7):
    return {
        "module": "shared.formulas.returns", "function": "lambda_return", "line": line, "operator": "NumberReplacer",
        "before": "a | b", "after": "a & b", "why": why,
    }  # fmt: skip


def counts(mutants, killed, timeout, survived, equivalent):
    names = ("mutants", "killed", "timeout", "survived", "equivalent")
    score = (killed + timeout) / mutants
    return dict(zip(names, (mutants, killed, timeout, survived, equivalent), strict=True)) | {"score": score}


SAME = "the two are the same number"


@pytest.fixture
def content():
    return {
        "tool": "cosmic-ray 8.7.0",
        "git_commit": "0123456789abcdef",
        "git_dirty": "",
        "started": "2026-11-21T10:00:00+00:00",
        "wall_seconds": 1500,
        "total": counts(300, 290, 1, 9, 8),
        "modules": {
            "shared.formulas.returns": counts(200, 198, 0, 2, 2),
            "shared.formulas.sampling": counts(100, 92, 1, 7, 6),
        },
        "survivors": [survivor(SAME), survivor(SAME, line=9), survivor("")],
    }


@pytest.fixture
def command(content, tmp_path):
    scores = tmp_path / "mutation.json"
    scores.write_text(json.dumps(content))
    outputs = {"--table": "t.md", "--numbers": "t.csv", "--picture": "t.png"}
    arguments = ["--scores", str(scores)]
    for option, name in outputs.items():
        arguments += [option, str(tmp_path / "made" / name)]
    return arguments


def test_the_worst_module_comes_first_and_the_total_last(content):
    # returns: 198 of 200; sampling: 92 + 1 of 100; total: 290 + 1 of 300
    assert mutation.cells(mutation.numbers(content)) == [
        ["sampling", "100", "92", "1", "7", "6", "93.0%"],
        ["returns", "200", "198", "0", "2", "2", "99.0%"],
        ["total", "300", "290", "1", "9", "8", "97.0%"],
    ]


def test_reasons_are_counted_and_a_missing_one_is_said(content):
    assert mutation.reasons(content) == [
        f"returns.lambda_return, 2 survived: {SAME}",
        "returns.lambda_return, 1 survived: NOT EXPLAINED",
    ]


def test_the_picture_says_scores_reasons_and_origin(content):
    shown = " ".join(texts(mutation.draw(content)))
    for words in ("93.0%", "97.0%", SAME, "NOT EXPLAINED", "commit 0123456", "25 minutes"):
        assert words in shown


def test_the_command_writes_three_files(command, tmp_path):
    assert mutation.main(command) == 0
    with Image.open(tmp_path / "made" / "t.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "made" / "t.csv").read_text().splitlines()[-1] == "total,300,290,1,9,8,0.97"
    table = (tmp_path / "made" / "t.md").read_text()
    assert "| returns:9 | `a \\| b` | `a & b` | the two are the same number |" in table


@pytest.mark.parametrize(("damage", "words"), [(None, "no such file"), ("{}", "no entry git_commit")])
def test_what_is_no_result_is_refused(command, tmp_path, capsys, damage, words):
    (tmp_path / "mutation.json").unlink()
    if damage:
        (tmp_path / "mutation.json").write_text(damage)
    assert mutation.main(command) == 2
    assert words in capsys.readouterr().err
