"""Where a number comes from: commit, uncommitted changes, packages, hardware, command and seeds of a run.

Stored under /provenance of every run file (shared/results.py). Nothing here may fail because a tool is missing: what
cannot be known is "unknown". No environment variables are stored but the three that change numbers or speed.
"""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DIFF_LIMIT_BYTES = 200_000
GIT_TIMEOUT_SECONDS = 20
GPU_TIMEOUT_SECONDS = 20
ENVIRONMENT = ("MUJOCO_GL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
UNKNOWN = "unknown"


def collect(
    *,
    command: str,
    device: str,
    threads: int,
    seeds: Mapping[str, Any],
    code_paths: Iterable[Path],
    renderer: str = "none",
    libraries: Iterable[str] = (),
    root: Path = ROOT,
) -> dict[str, Any]:
    """Attributes and texts of /provenance, as str and int.

    Args:
        command: how the run was started.
        device: where it computes, "cpu" or "cuda".
        threads: CPU threads it was given.
        seeds: named seeds of the run, json-able.
        code_paths: folders or files whose code decides the numbers (shared/ and the replication).
        renderer: what draws the images ("egl", "osmesa"), "none" without simulator images.
        libraries: names of the distributions whose version may change the numbers.
        root: of the repository.
    """
    gpu, driver = _gpu()
    return {
        **git_state(root),
        "code_digest": code_digest(code_paths),
        "command": command.encode(errors="replace").decode(),
        "started": now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "gpu": gpu,
        "driver": driver,
        "device": device,
        "threads": threads,
        "renderer": renderer,
        "libraries": ", ".join(f"{name} {_version(name)}" for name in libraries),
        "seeds": json.dumps(seeds, sort_keys=True),
        "environment": json.dumps({name: os.environ[name] for name in ENVIRONMENT if name in os.environ}),
        "environment_yml_sha256": _sha256(root / "environment.yml"),
        "packages": _packages(),
    }


def now() -> str:
    """The present, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_digest(paths: Iterable[Path]) -> str:
    """sha256 over the syntax trees of all *.py in files and folders: comments, docstrings and layout do not count.

    A changed constant, a moved file and a renamed function do. Independent of where the repository lies; comparable
    between runs of one Python version, which the lock pins.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(path).resolve() for path in paths):
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            tree = ast.parse(file.read_bytes(), filename=str(file))
            _strip_docstrings(tree)
            name = file.relative_to(path.parent).as_posix()
            digest.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())), *_]:
                    del node.body[0]


def git_state(root: Path) -> dict[str, Any]:
    """Commit and uncommitted changes ("" is a clean tree). Works outside git, without commits and without git."""
    git = ["git", "--no-optional-locks", "-C", str(root)]
    commit = _output([*git, "rev-parse", "HEAD"])
    changed = _output([*git, "diff", "--name-only", "-z", "HEAD"])
    untracked = _output([*git, "ls-files", "--others", "--exclude-standard", "-z", "*.py"])
    diff = _output([*git, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD"])
    if commit is None or changed is None or untracked is None or diff is None:
        return {"git_commit": UNKNOWN, "git_dirty": UNKNOWN, "git_diff_sha256": UNKNOWN, "git_diff": ""}
    counts = changed.count(b"\0"), untracked.count(b"\0")
    text = diff[:DIFF_LIMIT_BYTES].decode(errors="replace")
    if len(diff) > DIFF_LIMIT_BYTES:
        text += f"\n[cut: {len(diff)} bytes in all]\n"
    return {
        "git_commit": commit.decode().strip(),
        "git_dirty": f"{counts[0]} changed, {counts[1]} untracked *.py" if any(counts) else "",
        "git_diff_sha256": hashlib.sha256(diff).hexdigest(),
        "git_diff": text.replace("\0", "?"),
    }


def _gpu() -> tuple[str, str]:
    """Names and driver version by nvidia-smi; "none" where there is no such program."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GPU_TIMEOUT_SECONDS, check=False)
    except FileNotFoundError:
        return "none", "none"
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN, UNKNOWN
    if done.returncode != 0:
        return UNKNOWN, UNKNOWN
    cards = [line.rsplit(", ", 1) for line in done.stdout.decode(errors="replace").splitlines() if ", " in line]
    return ", ".join(name for name, _ in cards) or "none", ", ".join(sorted({driver for _, driver in cards})) or "none"


def _cpu() -> str:
    """Model and number of CPUs that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or platform.machine() or UNKNOWN}, {count} CPUs"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def _packages() -> str:
    """Installed distributions as sorted name==version lines."""
    found = {(dist.name or UNKNOWN, dist.version) for dist in importlib.metadata.distributions()}
    return "\n".join(f"{name}=={version}" for name, version in sorted(found, key=lambda item: item[0].lower()))


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return UNKNOWN


def _output(command: list[str]) -> bytes | None:
    """What a command prints, None where it cannot be run, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
