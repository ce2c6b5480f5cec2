"""The code digest sees code and nothing else; provenance is collected whatever is missing, without secrets."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from shared import provenance
from shared.provenance import code_digest, collect

SOURCE = '''"""Module."""

import math  # why not


class Model:
    """Docstring."""

    size: int = 3

    def area(self, width: float = 1.0) -> float:
        """Longer
        docstring."""
        return math.pi * width  # a comment


async def wait():
    """Waits."""
'''


def write(folder: Path, text: str = SOURCE, name: str = "shared/model.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder / "shared"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module."""', ""),
        ("  # why not", "  # another reason"),
        ('    """Docstring."""\n', ""),
        ("Longer\n        docstring.", "Shorter."),
        ('"""Waits."""', '"""Waits, it is said."""'),
        ("\n\n\nclass", "\n\n\n# a heading\n\n\nclass"),
        ("math.pi * width  #", "(math.pi *\n                width)  #"),
        ('"""Docstring."""', "'Docstring.'"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path, old, new):
    assert old in SOURCE
    reference = code_digest([write(tmp_path / "a")])
    assert code_digest([write(tmp_path / "b", SOURCE.replace(old, new))]) == reference


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 3", "= 4"),
        ("1.0", "1"),
        ("area", "surface"),
        ("math.pi * width", "width * math.pi"),
        ("math.pi * width", "'text'"),
        ("async def", "def"),
        ("size: int", "size: float"),
        ("import math", "import cmath as math"),
        ("    size: int = 3\n", '    size: int = 3\n    "not a docstring"\n'),
    ],
)
def test_any_change_of_code_counts(tmp_path, old, new):
    assert old in SOURCE
    reference = code_digest([write(tmp_path / "a")])
    assert code_digest([write(tmp_path / "b", SOURCE.replace(old, new))]) != reference


def test_a_first_statement_that_is_no_text_is_code(tmp_path):
    first, second = (write(tmp_path / name, f"def act():\n    {name}()\n") for name in ("go", "stop"))
    assert code_digest([first]) != code_digest([second])


def test_files_count_by_name_and_only_python(tmp_path):
    folder = write(tmp_path)
    reference = code_digest([folder])
    (folder / "notes.txt").write_text("no code")
    assert code_digest([folder]) == reference
    write(tmp_path, "", "shared/new/empty.py")
    added = code_digest([folder])
    assert added != reference
    (folder / "new/empty.py").rename(folder / "new/other.py")
    assert code_digest([folder]) not in (added, reference)


def test_the_order_of_paths_does_not_count_but_their_content_does(tmp_path):
    first, second = write(tmp_path), write(tmp_path, "x = 1\n", "planet/train.py").parent / "planet"
    assert code_digest([first, second]) == code_digest([second, first]) != code_digest([first])
    assert code_digest([second]) != code_digest([first])


def test_this_repository_has_a_digest():
    root = Path(provenance.__file__).parent
    digest = code_digest([root])
    assert len(digest) == 64 and digest == code_digest([root])


# ---------------------------------------------------------------------------------------------- collect


def gather(root: Path, **changes) -> dict:
    options = {
        "command": "python -m replications.planet.train --seed 0", "device": "cpu", "threads": 2,
        "seeds": {"seed": 0, "entropy": 2**100}, "root": root,
        "code_paths": [Path(provenance.__file__).parent / "replay"],
    }
    return collect(**(options | changes))


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    (tmp_path / "environment.yml").write_text("name: x\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_commit(repository):
    facts = gather(repository)
    assert facts["git_commit"] == git(repository, "rev-parse", "HEAD")
    assert (facts["git_dirty"], facts["git_diff"]) == ("", "")
    assert facts["git_diff_sha256"] == hashlib.sha256(b"").hexdigest()
    assert facts["environment_yml_sha256"] == hashlib.sha256(b"name: x\n").hexdigest()


def test_changes_are_stored_and_untracked_code_is_counted(repository):
    (repository / "code.py").write_text("x = 2\n")
    (repository / "new.py").write_text("y = 1\n")
    (repository / "notes.txt").write_text("not code\n")
    facts = gather(repository)
    assert facts["git_dirty"] == "1 changed, 1 untracked *.py"
    assert "-x = 1\n+x = 2\n" in facts["git_diff"]
    assert facts["git_diff_sha256"] == hashlib.sha256(facts["git_diff"].encode()).hexdigest()


def test_staged_changes_count(repository):
    (repository / "code.py").write_text("x = 2\n")
    git(repository, "add", "code.py")
    assert "+x = 2" in gather(repository)["git_diff"]


def test_a_long_diff_is_cut_but_its_hash_is_of_the_whole(repository, monkeypatch):
    monkeypatch.setattr(provenance, "DIFF_LIMIT_BYTES", 300)
    (repository / "code.py").write_text("".join(f"x{i} = {i}\n" for i in range(1000)))
    whole = subprocess.run(["git", "-C", str(repository), "diff", "HEAD"], capture_output=True, check=True).stdout
    facts = gather(repository)
    assert facts["git_diff"].startswith(whole[:300].decode())
    assert f"[cut: {len(whole)} bytes in all]" in facts["git_diff"] and len(facts["git_diff"]) < 400
    assert facts["git_diff_sha256"] == hashlib.sha256(whole).hexdigest()


def test_a_diff_of_odd_bytes_can_be_stored(repository):
    (repository / "code.py").write_bytes(b"x = '\xff\xfe\x01'\n")
    assert "\0" not in gather(repository)["git_diff"]
    gather(repository)["git_diff"].encode()


def test_outside_git_and_without_commits(tmp_path):
    expected = dict.fromkeys(["git_commit", "git_dirty", "git_diff_sha256"], "unknown") | {"git_diff": ""}
    for _ in range(2):
        facts = gather(tmp_path)
        assert {name: facts[name] for name in expected} == expected
        assert facts["environment_yml_sha256"] == "unknown"
        git(tmp_path, "init", "-q")


def missing(*_, **__):
    raise FileNotFoundError("no such program")


def hanging(*_, **__):
    raise subprocess.TimeoutExpired("program", 1)


@pytest.mark.parametrize(("run", "gpu"), [(missing, "none"), (hanging, "unknown")])
def test_missing_or_hanging_programs_are_survived(repository, monkeypatch, run, gpu):
    monkeypatch.setattr(subprocess, "run", run)
    facts = gather(repository)
    assert (facts["git_commit"], facts["gpu"], facts["driver"]) == ("unknown", gpu, gpu)


def test_cards_and_driver_are_read(monkeypatch):
    answer = b"NVIDIA H100 80GB HBM3, 570.1\nNVIDIA H100 80GB HBM3, 570.1\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=answer))
    assert provenance._gpu() == ("NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3", "570.1")


def test_only_three_environment_variables_are_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("SOME_TOKEN", "very-private-value")
    facts = gather(tmp_path)
    assert json.loads(facts["environment"]) == {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "2"}
    assert "very-private-value" not in json.dumps(facts)


def test_everything_can_be_an_attribute_or_a_text(tmp_path):
    facts = gather(tmp_path, command="python --out results/\udcff.h5")
    assert all(type(value) in (str, int) for value in facts.values())
    for value in facts.values():
        str(value).encode()
    assert json.loads(facts["seeds"]) == {"seed": 0, "entropy": 2**100}
    lines = facts["packages"].splitlines()
    assert any(line.startswith("numpy==") for line in lines) and len(lines) == len(set(lines))
    assert facts["cpu"].endswith(" CPUs") and facts["started"].endswith("+00:00") and facts["threads"] == 2
