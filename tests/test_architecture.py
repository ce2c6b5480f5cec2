"""Who may import whom: the arrows of shared/README.md, read off the syntax trees. Also names, docstrings, calls.

`complaints` judges one file; the tests at the end plant a violation of every rule, so that the judge is judged too.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("shared", "replications", "workflows", "benchmarks")
FORBIDDEN_FOLDERS = {"torch", "jax", "math", "numpy"}  # a folder of that name would shadow the library
JAX = {"jax", "jaxlib", "equinox", "optax"}

# What a file may import of this repository, by the beginning of its path. The longest match counts.
MAY_IMPORT = {
    "shared/": ("shared.errors",),
    "shared/errors.py": (),
    "shared/device_": ("shared.errors", "shared.host_memory"),
    "shared/results.py": ("shared.errors", "shared.checkpoint", "shared.provenance"),
    "shared/claim.py": ("shared.errors", "shared.checkpoint", "shared.results"),
    "shared/runner.py": ("shared",),
    "shared/launch.py": ("shared",),
    "shared/formulas/": ("shared.formulas", "shared.errors"),
    "shared/envs/": ("shared.envs", "shared.errors"),
    "shared/replay/": ("shared.replay", "shared.envs.spec", "shared.errors", "shared.checkpoint"),
    "shared/training/": ("shared.training", "shared.envs.spec", "shared.errors", "shared.config"),
    "shared/figures/": ("shared.figures", "shared.results", "shared.errors", "shared.config", "shared.checkpoint"),
    "shared/testing/": ("shared",),
    "shared/diff/": ("shared",),
    "workflows/": ("workflows", "shared"),
    "benchmarks/": ("benchmarks", "shared", "replications"),
}
AGENT_MAY_IMPORT = ("shared.formulas", "shared.training.agent", "shared.envs.spec", "shared.errors")
# The same for a file of replications/<paper>/; its own package is always allowed.
PAPER_MAY_IMPORT = {
    "shared/": ("shared.errors",),
    "config.py": ("shared.config", "shared.training.schedule", "shared.errors"),
    "layers_torch": ("shared.layers_torch", "shared.errors"),
    "layers_jax": ("shared.layers_jax", "shared.errors"),
    "latent_torch": ("shared.formulas", "shared.layers_torch", "shared.errors"),  # DreamerV3: a part of its model
    "latent_jax": ("shared.formulas", "shared.layers_jax", "shared.errors"),
    "model_torch": ("shared.formulas", "shared.layers_torch", "shared.errors"),
    "model_jax": ("shared.formulas", "shared.layers_jax", "shared.errors"),
    "objectives_torch": ("shared.formulas", "shared.layers_torch", "shared.errors"),
    "objectives_jax": ("shared.formulas", "shared.errors"),
    "optimisers_torch": ("shared.formulas", "shared.device_torch", "shared.errors"),
    "optimisers_jax": ("shared.errors",),
    "agent_torch": (*AGENT_MAY_IMPORT, "shared.device_torch", "shared.layers_torch"),
    "agent_jax": (*AGENT_MAY_IMPORT, "shared.device_jax", "shared.layers_jax"),
    "figures": ("shared.results", "shared.figures", "shared.errors", "shared.config"),
    "train.py": ("shared",),
    "simulator.py": ("shared",),  # PlaNet: a program of its own, as train.py is
    "diagnostics": ("shared",),
    "walk": ("shared",),  # what shared/diff asks of a replication, by its name
    "precision": ("shared",),  # DreamerV3: a program of its own, for the numerics report
}
FORMULAS_LIBRARIES = {"numpy", "array_api_compat", "scipy"}  # scipy inside functions: the special functions of NumPy
NO_CALLS = {
    "torch.load": "unpickles: parameters are safetensors",
    "torch.manual_seed": "global seeding: an agent owns its torch.Generator",
    "np.random.seed": "global seeding: pass a numpy Generator or SeedSequence",
    "random.seed": "global seeding: pass a numpy Generator or SeedSequence",
    "os.system": "a shell: use subprocess with a list",
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all imported modules; `from a import b` counts as a.b, which covers a and b being a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def starts(name: str, prefixes) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def allowed_here(path: str) -> tuple[str, ...]:
    """Modules of this repository that the file may import."""
    parts = path.split("/")
    if parts[0] == "replications" and len(parts) > 2:
        own = (f"replications.{parts[1]}",)
        return own + next((names for begin, names in PAPER_MAY_IMPORT.items() if parts[2].startswith(begin)), ())
    matches = [begin for begin in MAY_IMPORT if path.startswith(begin)]
    return MAY_IMPORT[max(matches, key=len)] if matches else ()


def library_complaints(path: str, names: set[str]) -> Iterator[str]:
    """torch and jax only where the file's name says so, and never both."""
    top = {name.partition(".")[0] for name in names}
    if path.startswith(("shared/testing/", "benchmarks/")):
        return
    name = Path(path).name
    if "torch" in top and not name.endswith("_torch.py"):
        yield "imports torch; only *_torch.py may"
    if top & JAX and not name.endswith("_jax.py"):
        yield f"imports {', '.join(sorted(top & JAX))}; only *_jax.py may"
    if path.startswith("shared/formulas/"):
        foreign = top - FORMULAS_LIBRARIES - set(sys.stdlib_module_names) - {"shared"}
        if foreign:
            yield f"imports {', '.join(sorted(foreign))}; formulas know numpy, scipy and array_api_compat only"


def call_complaints(tree: ast.AST) -> Iterator[str]:
    """Calls that could run foreign code or draw from a hidden state."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield f"line {node.lineno}: {node.func.id} runs text as code"
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node).replace("numpy.", "np.")
            if name in NO_CALLS:
                yield f"line {node.lineno}: {name}: {NO_CALLS[name]}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield f"line {node.value.lineno}: allow_pickle loads code"


def docstring_complaints(path: str, tree: ast.Module) -> Iterator[str]:
    docstring = ast.get_docstring(tree)
    if not docstring:
        yield "has no module docstring"
    if Path(path).name == "__init__.py" and len(tree.body) > (1 if docstring else 0):
        yield "an __init__.py holds its docstring and nothing else (no re-exports)"


def complaints(path: str, source: str) -> list[str]:
    """What is wrong with one file; path is relative to the repository's root."""
    tree = ast.parse(source, filename=path)
    names = set(imports(tree))
    found = [*docstring_complaints(path, tree), *library_complaints(path, names), *call_complaints(tree)]
    allowed = allowed_here(path)
    for name in sorted(names):
        top = name.partition(".")[0]
        if name.startswith("."):
            found.append(f"relative import {name}; write the full name")
        if top in ("pickle", "cloudpickle", "dill", "joblib", "shelve"):
            found.append(f"imports {top}; nothing here is pickled")
        if top == "tests" or (top in CODE and not starts(name, allowed)):
            found.append(f"imports {name}; may import {', '.join(allowed) or 'nothing of this repository'}")
    return found


def code_files() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for folder in CODE for path in (ROOT / folder).rglob("*.py"))


# ------------------------------------------------------------------------------------------------ the repository


def test_there_is_code_to_judge():
    assert {"shared/errors.py", "shared/config.py", "replications/planet/config.py"} <= set(code_files())


@pytest.mark.parametrize("path", code_files())
def test_file_obeys_the_arrows(path):
    assert complaints(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py")))
def test_every_test_module_says_what_it_is_about(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))


def test_no_folder_shadows_a_library():
    folders = {p.name for top in (*CODE, "tests") for p in (ROOT / top).rglob("*") if p.is_dir()}
    assert not folders & FORBIDDEN_FOLDERS


def test_every_package_folder_has_an_init():
    folders = {(ROOT / path).parent for path in code_files() if not path.startswith("benchmarks")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("paper", sorted(p.parent.name for p in (ROOT / "replications").glob("*/paper.yaml")))
def test_a_replication_has_the_files_that_a_reader_expects(paper):
    folder = ROOT / "replications" / paper
    wanted = {"README.md", "paper.yaml", "experiments.yaml", "config.py", "train.py", "figures.py"}
    assert wanted <= {path.name for path in folder.iterdir()}
    assert list(folder.glob("model_*.py")) and list(folder.glob("agent_*.py"))
    assert (ROOT / "workflows" / f"{paper}.smk").is_file()


# ------------------------------------------------------------------------------------------------ the judge


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("replications/dreamer/agent_torch.py", "from replications.planet import model_torch", "replications.planet"),
        ("replications/dreamer/train.py", "import replications.planet.train", "replications.planet.train"),
        ("shared/runner.py", "from replications.planet import train", "replications.planet.train"),
        ("shared/diff/numbers.py", "from replications.planet import walk", "replications.planet.walk"),
        ("shared/diff/numbers.py", "import torch", "only *_torch.py"),
        ("shared/figures/curves.py", "def f():\n    import replications", "imports replications"),
        ("shared/formulas/returns.py", "import torch", "only *_torch.py"),
        ("shared/formulas/returns.py", "import pandas", "formulas know numpy"),
        ("shared/formulas/returns.py", "from shared.envs import spec", "shared.envs.spec"),
        ("shared/replay/buffer.py", "import jax.numpy as jnp", "only *_jax.py"),
        ("shared/training/loop.py", "from shared.replay.buffer import Replay", "shared.replay.buffer"),
        ("shared/training/loop.py", "from shared.envs.vector import VectorEnv", "shared.envs.vector"),
        ("replications/planet/train.py", "import torch", "only *_torch.py"),
        ("replications/planet/model_torch.py", "import torch, jax", "only *_jax.py"),
        ("replications/planet/model_jax.py", "import torch", "only *_torch.py"),
        ("replications/planet/agent_torch.py", "from shared.replay.buffer import Replay", "shared.replay"),
        ("replications/planet/agent_torch.py", "from shared.envs.dmc import make", "shared.envs.dmc"),
        ("replications/planet/figures.py", "from shared.runner import execute", "shared.runner"),
        ("shared/config.py", "from workflows.scripts import plan", "workflows.scripts.plan"),
        ("shared/config.py", "from tests import conftest", "tests.conftest"),
        ("shared/envs/dmc.py", "from . import spec", "relative import"),
        ("shared/checkpoint.py", "import pickle", "pickle"),
        ("shared/checkpoint.py", "import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle"),
        ("replications/planet/agent_torch.py", "import torch\ntorch.load('x')", "safetensors"),
        ("replications/planet/agent_torch.py", "import torch\ntorch.manual_seed(0)", "global seeding"),
        ("shared/envs/toy.py", "import numpy\nnumpy.random.seed(0)", "global seeding"),
        ("shared/envs/toy.py", "eval('1')", "runs text as code"),
        ("shared/envs/__init__.py", "from shared.envs.spec import Env", "no re-exports"),
    ],
)
def test_a_planted_violation_is_found(path, source, words):
    assert any(words in complaint for complaint in complaints(path, f'"""Doc."""\n{source}\n'))


def test_a_missing_docstring_is_found():
    assert complaints("shared/envs/toy.py", "import numpy\n") == ["has no module docstring"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("shared/training/loop.py", "from shared.envs.spec import Env"),
        ("replications/planet/agent_torch.py", "import torch\nfrom shared.formulas import planning"),
        ("replications/planet/train.py", "from replications.planet import config\nimport shared.runner"),
        ("shared/testing/oracles.py", "def f():\n    import torch, jax"),
        ("replications/planet/walk_torch.py", "import torch\nfrom shared.diff.walk import Arrays"),
        ("shared/envs/toy.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert complaints(path, f'"""Doc."""\n{source}\n') == []
