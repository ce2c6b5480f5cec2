"""Which golden files are tested where, and which wait for an agent that does not exist yet.

`claims` reads the marks of all test modules off their syntax trees; LATER lists the rest with the issue that will take
it. test_ledger.py complains of every case that is in neither.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from tests.golden.loading import PAPERS, cases, find

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Claim:
    """The cases of a paper whose file, and whose name within the file, begin so."""

    paper: str
    prefix: str
    case: str = ""

    def __str__(self):
        return "-".join(part for part in (self.paper, self.prefix, self.case) if part)

    def cases(self, folder):
        return find(folder, self.paper, self.prefix, self.case)


# Networks, and what runs through networks: claim -> issue. An entry goes when its test comes.
LATER: dict[Claim, int] = {}

# Tested as far as formulas go; the same numbers through the agent's own networks are still to come.
PARTLY: dict[Claim, int] = {}


def claims(folder=TESTS):
    """What @pytest.mark.golden(prefix, case=..., paper=...) claims in the modules test_<paper>_*.py of a folder."""
    found = set()
    for paper in PAPERS:
        for path in folder.glob(f"test_{paper}_*.py"):
            found |= {Claim(**{"paper": paper, **mark}) for mark in _marks(ast.parse(path.read_text()))}
    return found


def _marks(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.golden":
            (prefix,) = node.args
            words = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
            yield {"prefix": ast.literal_eval(prefix), **words}


def unknown(folder, known):
    """The names of all cases below a folder that no claim covers, by file."""
    covered = {case for claim in known for case in claim.cases(folder)}
    names = []
    for path in sorted(Path(folder).rglob("*.npz")):
        name, held = str(path.relative_to(folder)), cases(path)
        names += [f"{name} case {case.name}".removesuffix(" case ") for case in held if case not in covered]
        names += [] if held else [f"{name} (empty)"]
    return names
