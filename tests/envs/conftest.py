"""Fixtures of the environment tests: a renderer, or a skip that says why there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.envs import gl
from shared.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def renderer() -> str:
    """The OpenGL backend in use, e.g. "egl: llvmpipe (...)"."""
    try:
        return gl.check()
    except UserError as error:
        pytest.skip(f"no OpenGL on this machine: {error}")


@pytest.fixture
def python():
    """Run code (or a module) in a fresh process at the repository's root: python(code, NAME=value) -> its result."""

    def run(code: str, *, module: bool = False, **environment: str | None) -> subprocess.CompletedProcess:
        merged = {**os.environ, **environment}
        env = {key: value for key, value in merged.items() if value is not None}
        flag = "-m" if module else "-c"
        return subprocess.run(
            [sys.executable, flag, code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    return run
