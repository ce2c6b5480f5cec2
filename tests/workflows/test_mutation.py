"""Mutation testing: operators by example, a small package whose tests catch what they should, the kept result."""

import ast
import json
import re
import subprocess
import sys

import pytest

from shared.config import ROOT
from shared.errors import UserError
from workflows.scripts.mutants import OPERATORS, mutants, occurrences
from workflows.scripts.mutation import SETTINGS, joined, module_digest, read_settings
from workflows.scripts.mutation_tests import Calls

EVIDENCE = ROOT / "results" / "evidence" / "core" / "mutation.json"


def changes(source: str, operator: str = "") -> set[str]:
    """The changed lines of all mutants of one kind, without cosmic-ray's spaces."""
    found = mutants("m", source)
    return {re.sub(r"\s+", "", mutant.after) for mutant in found if mutant.operator.startswith(operator)}


@pytest.mark.parametrize(
    ("source", "operator", "expected"),
    [
        ("y = a - b", "ReplaceBinaryOperator", {"y=a+b"}),
        ("y = a * b / c", "ReplaceBinaryOperator", {"y=a/b/c", "y=a*b*c"}),
        ("y = a**2", "ReplaceBinaryOperator", {"y=a*2"}),
        ("y = a <= b", "ReplaceComparisonOperator", {"y=a<b"}),
        ("y = a == b", "ReplaceComparisonOperator", {"y=a!=b"}),
        ("y = sum(x, axis=-1)", "NumberReplacer", {"y=sum(x,axis=-2)", "y=sum(x,axis=-0)"}),
        ("y = sum(x, axis=-1)", "ReplaceUnaryOperator", {"y=sum(x,axis=1)"}),
        ("y = sum(x, axis=-1)", "DropArgument", {"y=sum(x)"}),
        ("y = a and b", "ReplaceAndWithOr", {"y=aorb"}),
        ("y = stop_gradient(x) + f(a, b)", "CallToArgument", {"y=(x)+f(a,b)", "y=stop_gradient(x)+(a)"}),
        ("y = x.detach()[0]", "CallToArgument", {"y=x[0]"}),
        ("y = where(c, a, b)", "SwapArguments", {"y=where(a,c,b)", "y=where(c,b,a)"}),
        ("y = xp.maximum(a, b)", "SwapArguments", set()),
        ("def f(a): return a", "ChangeReturn", {"deff(a):return-(a)"}),
        ("def f(a, b): return a, b", "ChangeReturn", {"deff(a,b):returnb,a"}),
        ("if a: raise ValueError('no')", "DropRaise", {"ifa:pass"}),
        ("if a: raise ValueError('no')", "AddNot", {"ifnota:raiseValueError('no')"}),
    ],
)
def test_operators_by_example(source, operator, expected):
    assert changes(source, operator) == expected


def test_texts_of_errors_docstrings_and_imports_stay():
    source = '"""1 + 1 = 2."""\nfrom a import b as c\nif x:\n    raise ValueError(f"{x + 1} is not {x < 2}", 3)\n'
    assert {mutant.operator for mutant in mutants("m", source)} == {"AddNot", "DropRaise"}


def test_no_two_mutants_and_no_mutant_and_original_are_the_same_program():
    source = (ROOT / "shared" / "formulas" / "divergences.py").read_text()
    trees = [ast.dump(ast.parse(mutant.source)) for mutant in mutants("m", source)]
    assert len(trees) > 50
    assert len({ast.dump(ast.parse(source)), *trees}) == len(trees) + 1


def test_every_kind_of_operator_finds_something_in_the_formulas():
    """Else it would be a promise without content."""
    sources = [path.read_text() for path in (ROOT / "shared" / "formulas").glob("*.py")]
    used = {name for name, kind in OPERATORS.items() if any(occurrences(kind(), source) for source in sources)}
    kinds = {name.partition("_")[0] for name in OPERATORS}
    assert {name.partition("_")[0] for name in used} == kinds


def test_a_mutant_meets_the_tests_that_call_its_function_and_a_constant_all():
    calls = Calls({"t.py::a": ["m f"], "t.py::b": ["m f", "m g"], "t.py::c": []}, {})
    assert calls.tests_of("m", "g") == {"t.py::b"}
    assert calls.tests_of("m", "f") == {"t.py::a", "t.py::b"}
    assert calls.tests_of("m", "") == {"t.py::a", "t.py::b", "t.py::c"}


# ------------------------------------------------------------------------------------------------ a small package

CODE = """
LIMIT = 3


def double(x):
    return x * 2


def never_tested(x):
    return x + 1


def forever(n):
    while n < LIMIT:
        n = n + 1
    return n
"""
TESTS = """
import pytest
from small import code

@pytest.fixture(params=["numpy", "torch"])
def run(request):
    return request.param

def test_double(run):
    assert code.double(3) == (6 if run == "numpy" else code.double(3.0))

def test_forever():
    assert code.forever(0) == code.forever(1) == 3
"""
CONFTEST = """
import hypothesis

hypothesis.settings.register_profile("ci", max_examples=1)
hypothesis.settings.load_profile("ci")
"""
TOML = """
required_score = {score}
modules = ["small.code"]
tests = ["test_*.py"]
without = ["test_other.py"]
preload = ["pytest"]

[[equivalent]]
module = "small.code"
function = "never_tested"
changes = ["return x + 1 -> return x - 1"]
why = "nobody calls it"
"""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """The command on a package of three functions: (process, content of the result file)."""
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "small").mkdir()
    for name, text in {
        "small/__init__.py": "", "small/code.py": CODE, "test_small.py": TESTS, "conftest.py": CONFTEST,
        "pytest.ini": "[pytest]\n", "test_other.py": "def test_not_run(): assert False",
        "mutation.toml": TOML.format(score=0.99),
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "workflows.scripts.mutation", "--out", "out.json", "--settings", "mutation.toml"]
    paths = [str(folder), *sys.path]
    done = subprocess.run(
        [*command, "--workers", "2"], cwd=folder, env={"PYTHONPATH": ":".join(filter(None, paths)), "PATH": ""},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done, json.loads((folder / "out.json").read_text())


def test_untested_code_survives_and_tested_code_does_not(campaign):
    _, content = campaign
    survived = {mutant["function"] for mutant in content["survivors"]}
    assert survived == {"never_tested"}
    assert content["modules"]["small.code"].items() >= content["total"].items()
    total = content["total"]
    assert total["mutants"] == total["killed"] + total["timeout"] + total["survived"]


def test_an_endless_loop_is_killed_by_its_time_limit(campaign):
    """n - 1 and n + 0 never reach the limit."""
    assert campaign[1]["total"]["timeout"] == 2


def test_reasons_are_taken_from_the_settings(campaign):
    reasons = {mutant["after"]: mutant["why"] for mutant in campaign[1]["survivors"]}
    assert reasons.pop("return x - 1") == "nobody calls it"
    assert set(reasons.values()) == {""}
    assert campaign[1]["total"]["equivalent"] == 1


def test_a_score_below_the_required_one_fails(campaign):
    done, content = campaign
    assert content["total"]["score"] < 0.99
    assert done.returncode == 2
    assert "below the required 99%" in done.stderr


def test_a_reason_given_twice_is_refused(tmp_path):
    entry = TOML.partition("[[equivalent]]")[2]
    (tmp_path / "m.toml").write_text(TOML.format(score=1) + "[[equivalent]]" + entry)
    with pytest.raises(UserError, match="small.code never_tested .* is explained twice"):
        read_settings(tmp_path / "m.toml")


# ------------------------------------------------------------------------------------------------ the kept result


@pytest.fixture
def kept():
    assert EVIDENCE.exists(), f"{EVIDENCE.name} is missing, and the README claims its score: make mutants writes it"
    return json.loads(EVIDENCE.read_text(encoding="utf-8"))


def test_settings_name_every_formula_file():
    files = {path.stem for path in (ROOT / "shared" / "formulas").glob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in read_settings(SETTINGS).modules} == files


def test_at_least_95_percent_of_the_mutants_were_killed(kept):
    assert kept["total"]["mutants"] > 1000
    assert kept["total"]["score"] >= 0.95 == read_settings(SETTINGS).required_score
    assert set(kept["modules"]) == set(read_settings(SETTINGS).modules)


def test_the_score_is_that_of_the_code_as_it_is(kept):
    """Comments and docstrings may change; a module whose code has changed is to be mutated anew: make mutants
    ARGS="--modules shared.formulas.NAME"."""
    assert [name for name, module in kept["modules"].items() if module["code_digest"] != module_digest(name)] == []


def test_modules_can_be_measured_anew_one_by_one():
    def module(name, killed, survived, commit):
        counts = {"mutants": killed + survived, "killed": killed, "timeout": 0, "survived": survived, "equivalent": 0}
        survivors = [{"module": name, "line": line} for line in range(survived)]
        return {"git_commit": commit, "modules": {name: counts}, "survivors": survivors, "total": counts}

    kept = joined(module("a", 8, 2, "old"), module("b", 10, 0, "old"))
    assert kept["total"] == {
        "mutants": 20, "killed": 18, "timeout": 0, "survived": 2, "equivalent": 0, "score": 0.9,
    }  # fmt: skip
    again = joined(kept, module("a", 9, 1, "new"))
    assert again["total"]["score"] == 0.95 and again["git_commit"] == "new"
    assert again["modules"].keys() == {"a", "b"} and again["survivors"] == [{"module": "a", "line": 0}]


def test_every_survivor_is_explained(kept):
    assert [mutant for mutant in kept["survivors"] if not mutant["why"]] == []
    assert len(kept["survivors"]) == kept["total"]["survived"]


def test_no_explanation_is_left_over(kept):
    """A reason whose mutant no longer survives, or no longer exists, goes."""
    survivors = {(m["module"], m["function"], f"{m['before']} -> {m['after']}") for m in kept["survivors"]}
    assert read_settings(SETTINGS).equivalent.keys() - survivors == set()


def test_the_readme_has_the_score(kept):
    text = " ".join((ROOT / "shared" / "formulas" / "README.md").read_text(encoding="utf-8").split())
    total = kept["total"]
    assert f"{total['killed'] + total['timeout']} of {total['mutants']} mutants" in text
