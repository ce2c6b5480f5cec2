"""Wrong versions of a file, one change each: the operators of cosmic-ray that suit formulas, and five of our own.

Not mutated: docstrings, imports, and what follows `raise` (the text of errors; dropping the whole line is a mutant).
mutation.py runs the tests on them.
"""

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

# One replacement per operator, the nearest: a far one is noticed by any test and would only raise the score.
STOCK = (
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("FloorDiv_Div", "Mod_FloorDiv", "BitAnd_BitOr", "BitOr_BitAnd")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot"),
    *("NumberReplacer", "ZeroIterationForLoop"),
)
SYMMETRIC = ("namespace", "maximum", "logaddexp", "min", "max")  # the order of their arguments has no meaning
SKIPPED = {"raise_stmt", "import_from", "import_name", "fstring"}


class Rewrite(Operator):
    """An operator that replaces a whole syntax node by one of several texts."""

    def variants(self, node) -> Iterator[str]:
        raise NotImplementedError

    def mutation_positions(self, node):
        return [(node.start_pos, node.end_pos) for _ in self.variants(node)]

    def mutate(self, node, index):
        return parso.parse(node.get_first_leaf().prefix + list(self.variants(node))[index])

    @classmethod
    def examples(cls):
        return ()


class CallToArgument(Rewrite):
    """f(x, y) becomes x: stop_gradient(x), xp.exp(x), check_shapes("f", x=x) vanish."""

    def variants(self, node):
        for head, arguments, tail in _calls(node):
            if arguments and not _is_named(arguments[0]):
                yield f"({_code(arguments[0])}){tail}"
            elif not arguments and "." in head:
                yield f"{head.rpartition('.')[0]}{tail}"


class SwapArguments(Rewrite):
    """f(x, y) becomes f(y, x), one pair of neighbours at a time, where the order has a meaning."""

    def variants(self, node):
        for head, arguments, tail in _calls(node):
            if head.rpartition(".")[2] in SYMMETRIC:
                continue
            texts = [_code(argument) for argument in arguments]
            for i in range(1, len(texts)):
                if not _is_named(arguments[i]) and not _is_named(arguments[i - 1]):
                    swapped = [*texts[: i - 1], texts[i], texts[i - 1], *texts[i + 1 :]]
                    yield f"{head}({', '.join(swapped)}){tail}"


class DropArgument(Rewrite):
    """f(x, axis=0) becomes f(x)."""

    def variants(self, node):
        for head, arguments, tail in _calls(node):
            for argument in arguments:
                if _is_named(argument):
                    kept = ", ".join(_code(other) for other in arguments if other is not argument)
                    yield f"{head}({kept}){tail}"


class ChangeReturn(Rewrite):
    """return x becomes return -(x); return x, y becomes return y, x."""

    def variants(self, node):
        if node.type == "return_stmt":
            value = node.children[1]
            if value.type.startswith("testlist"):
                first, second, *rest = [_code(child) for child in value.children if _code(child) != ","]
                yield f"return {', '.join([second, first, *rest])}"
            else:
                yield f"return -({_code(value)})"


class DropRaise(Rewrite):
    """raise becomes pass: every refusal needs a test."""

    def variants(self, node):
        if node.type == "raise_stmt":
            yield "pass"


OWN = (CallToArgument, SwapArguments, DropArgument, ChangeReturn, DropRaise)
OPERATORS = {name: OperatorProvider()[name] for name in STOCK} | {operator.__name__: operator for operator in OWN}


@dataclass(frozen=True)
class Mutant:
    """One changed version of a module. function: the top-level function that holds the change, "" for none."""

    module: str
    function: str
    line: int
    operator: str
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        return f"{self.before} -> {self.after}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What names a mutant as long as its line is not edited, wherever the line stands."""
        return self.module, self.function, self.change


def mutants(module: str, source: str) -> list[Mutant]:
    """Every mutant of one file, in order of lines. Those with the syntax tree of another, or none, are left out."""
    seen, found = {ast.dump(ast.parse(source))}, []
    functions = {
        line: node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    for name, kind in OPERATORS.items():
        for occurrence, line in occurrences(kind(), source):
            changed = mutate_code(source, kind(), occurrence)
            try:
                tree = ast.dump(ast.parse(changed))
            except SyntaxError:
                continue
            if tree not in seen:
                seen.add(tree)
                before, after = _change(source, changed)
                found.append(Mutant(module, functions.get(line, ""), line, name, before, after, changed))
    return sorted(found, key=lambda mutant: mutant.line)


def occurrences(operator: Operator, source: str) -> list[tuple[int, int]]:
    """(occurrence as cosmic-ray counts, line) of every change that is wanted."""
    count, found = 0, []
    for node in ast_nodes(get_ast(source)):
        for (line, _), _ in operator.mutation_positions(node):
            if not _is_skipped(node.parent if node.type == "raise_stmt" else node):
                found.append((count, line))
            count += 1
    return found


def _is_skipped(node) -> bool:
    if node is not None and node.parent is not None and node.parent.type == "parameters":
        return True  # the star of keyword-only parameters
    while node is not None:
        if node.type in SKIPPED:
            return True
        node = node.parent
    return False


def _change(source: str, changed: str) -> tuple[str, str]:
    """The lines that differ, before and after, each as one text."""
    old, new = source.splitlines(), changed.splitlines()
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    blocks = [code for code in codes if code[0] != "equal"]
    return _joined(old[blocks[0][1] : blocks[-1][2]]), _joined(new[blocks[0][3] : blocks[-1][4]])


def _joined(lines: list[str]) -> str:
    return " ".join(re.sub(r"\s+# .*", "", line).strip() for line in lines)


def _calls(node) -> Iterator[tuple[str, list, str]]:
    """(what is called, its arguments, what follows) for every call in a chain a.b(c).d(e)."""
    if node.type not in ("atom_expr", "power"):
        return
    for i, child in enumerate(node.children):
        if child.type == "trailer" and child.children[0].value == "(":
            inside = child.children[1:-1]
            if inside and inside[0].type == "arglist":
                inside = [part for part in inside[0].children if _code(part) != ","]
            head = "".join(part.get_code() for part in node.children[:i])
            yield head.strip(), inside, "".join(part.get_code() for part in node.children[i + 1 :])


def _is_named(argument) -> bool:
    """axis=0, *arrays, **arrays, and the loop of a generator: what cannot change places or stand alone."""
    return argument.type == "argument"


def _code(node) -> str:
    return node.get_code(include_prefix=False)
