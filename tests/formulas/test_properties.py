"""The ledger of the 74 properties that the core must have: each is claimed by a test, or stands here with the reason.

A test claims what it holds by @pytest.mark.property("L1", "L2"). What each name means: the list of properties that came
with the project (L returns, K divergences, E bound, O overshooting, S sampling, T transforms, N normalisers, A and P
optimisers and planner, C weights, R replay, D data, X cross-framework).
"""

import ast
import functools
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
COUNTS = {
    "L": 17, "K": 13, "E": 6, "O": 7, "S": 7, "T": 9, "N": 3, "A": 2, "P": 1, "C": 1, "R": 1, "D": 2, "X": 5,
}  # fmt: skip
PROPERTIES = {f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)}
WHOLE_AGENTS = "compares whole agents in torch and JAX: held where both twins of a replication exist"
ELSEWHERE = {
    "X1": WHOLE_AGENTS,
    "X2": WHOLE_AGENTS,
    "X3": WHOLE_AGENTS,
    "X5": WHOLE_AGENTS,
}


def claims(source: str) -> dict[str, list[str]]:
    """property -> the test functions of a file that claim it."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.property":
                for argument in decorator.args:
                    found.setdefault(ast.literal_eval(argument), []).append(node.name)
    return found


@functools.cache
def all_claims() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, tests in claims(path.read_text(encoding="utf-8")).items():
            found.setdefault(name, []).extend(f"{path.relative_to(TESTS)}::{test}" for test in tests)
    return found


def test_there_are_74_properties():
    assert len(PROPERTIES) == 74


def test_claims_are_read_off_decorators():
    source = """
@pytest.mark.property("L1", "K2")
@given(st.integers())
def test_one(run, seed): ...

@pytest.mark.property("L1")
def test_two(): ...

@pytest.mark.property("E1")
def helper(): ...
"""
    assert claims(source) == {"L1": ["test_one", "test_two"], "K2": ["test_one"]}


def test_every_claim_names_a_property():
    """A mistyped name would claim nothing."""
    assert {name: tests for name, tests in all_claims().items() if name not in PROPERTIES} == {}


def test_every_property_is_held_by_a_test_or_has_a_reason():
    assert sorted(PROPERTIES - all_claims().keys() - ELSEWHERE.keys()) == []


def test_a_property_that_a_test_holds_needs_no_reason():
    assert sorted(ELSEWHERE.keys() & all_claims().keys()) == []
