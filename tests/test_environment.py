"""One environment, said three times the same: requirements.lock, pyproject.toml, environment.yml; and its set-up.

The script is run for real against interpreters made for the purpose; nothing is downloaded.
"""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "workflows/scripts/setup.sh"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)$")  # exact, and no local version such as +cpu


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    """name -> version of pinned requirements; a line of any other form, or a repeated name, is an AssertionError."""
    found = {}
    for line in lines:
        match = PIN.match(line)
        assert match, f"not an exact pin: {line!r}"
        name = canonical(match[1])
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def lock() -> dict[str, str]:
    return pins(line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#"))


def direct() -> dict[str, str]:
    return pins(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_every_direct_dependency_is_in_the_lock_at_the_same_version():
    assert direct().items() <= lock().items()


def test_environment_yml_has_exactly_the_lock():
    (with_pip,) = [entry["pip"] for entry in conda()["dependencies"] if isinstance(entry, dict)]
    assert pins(with_pip) == lock()


def test_environment_yml_has_the_python_and_the_gl_libraries():
    names = [entry for entry in conda()["dependencies"] if isinstance(entry, str)]
    assert "python=3.11" in names
    assert {re.split("[<=>]", name)[0] for name in names} >= {"libegl", "mesalib", "make", "pip"}
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == "==3.11.*"


def test_the_environment_that_runs_these_tests_is_the_lock():
    """A version without its local part: torch 2.13.0+cpu is torch 2.13.0."""
    have = {canonical(d.name): d.version.partition("+")[0] for d in importlib.metadata.distributions() if d.name}
    wrong = {name: (version, have.get(name)) for name, version in lock().items() if have.get(name) != version}
    assert wrong == {}, "name: (locked, installed)"
    assert sys.version_info[:2] == (3, 11)


def test_the_lock_holds_what_the_packages_ask_for():
    """No installed package misses a dependency: the lock leaves nothing out."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ set-up

FAKE = """#!/bin/sh
# A Python that answers what setup.sh asks, and whose venv holds itself. FAKE_* decide how it fails.
case "$*" in
  *version_info*) echo "${FAKE_VERSION:-3.11}" ;;
  *"import venv, ensurepip"*) [ -z "$FAKE_NO_VENV" ] ;;
  --version) echo "Python 3.11 (fake)" ;;
  "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip install"*) echo "$*" >> installs.log; [ -z "$FAKE_SLEEP" ] || sleep "$FAKE_SLEEP"; [ -z "$FAKE_PIP_FAILS" ] ;;
  "-m pip check"*) true ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the set-up script, a lock, and a fake python3.11 in bin/."""
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)
    (tmp_path / "requirements.lock").write_text("numpy==1.0\n")
    fake = tmp_path / "bin" / "python3.11"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return tmp_path


def environment(checkout, **variables):
    base = {"PATH": f"{checkout / 'bin'}:/usr/bin:/bin", "HOME": str(checkout), "SETUP_NEEDED_MB": "1"}
    return {**base, **variables}


def set_up(checkout, **variables):
    command, env = ["bash", str(checkout / SCRIPT)], environment(checkout, **variables)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def installs(checkout) -> int:
    log = checkout / "installs.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_set_up_once_per_lock(checkout):
    assert set_up(checkout)[0] == 0
    assert set_up(checkout) == (0, "")
    assert installs(checkout) == 1
    (checkout / "requirements.lock").write_text("numpy==2.0\n")
    assert set_up(checkout)[0] == 0
    assert installs(checkout) == 2


def test_an_extra_index_is_passed_on(checkout):
    assert set_up(checkout, TORCH_INDEX="https://example.org/cpu")[0] == 0
    assert "--extra-index-url https://example.org/cpu" in (checkout / "installs.log").read_text()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_set_up_does_not_pass_for_whole(checkout, signal_number):
    command, env = ["bash", str(checkout / SCRIPT)], environment(checkout, FAKE_SLEEP="30")
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, start_new_session=True)
    for _ in range(200):
        if installs(checkout):
            break
        time.sleep(0.05)
    assert (checkout / ".venv" / "bin" / "python").exists(), "the venv is there, half made"
    os.killpg(process.pid, signal_number)
    process.communicate(timeout=20)
    assert set_up(checkout)[0] == 0
    assert installs(checkout) == 2
    assert (checkout / ".venv" / ".lock-stamp").is_file()


def test_a_failed_download_is_not_whole(checkout):
    status, message = set_up(checkout, FAKE_PIP_FAILS="1")
    assert status == 2
    assert "check the network" in message and "same command again" in message
    assert not (checkout / ".venv" / ".lock-stamp").exists()


def test_a_wrong_python_is_told(checkout):
    (checkout / "bin" / "python3").symlink_to(checkout / "bin" / "python3.11")
    status, message = set_up(checkout, FAKE_VERSION="3.9", PATH=f"{checkout / 'bin'}:{tools(checkout)}")
    assert status == 2
    assert "Python 3.11 is needed" in message and "python3.11 is 3.9" in message
    assert "apt-get install python3.11 python3.11-venv" in message and "environment.yml" in message


def test_a_python_given_by_hand_is_the_only_candidate(checkout):
    status, message = set_up(checkout, PYTHON="/nowhere/python")
    assert status == 2 and "no /nowhere/python here" in message


def test_no_python_at_all_is_told(checkout):
    (checkout / "bin" / "python3.11").unlink()
    status, message = set_up(checkout, PATH=str(tools(checkout)))
    assert status == 2 and "Python 3.11 is needed and was not found" in message


def test_a_python_without_venv_is_told(checkout):
    status, message = set_up(checkout, FAKE_NO_VENV="1")
    assert status == 2 and "apt-get install python3.11-venv" in message


def test_a_full_disk_is_told_before_anything_is_downloaded(checkout):
    status, message = set_up(checkout, SETUP_NEEDED_MB="999999999")
    assert status == 2 and installs(checkout) == 0
    assert "the disk is too full" in message and "df -h" in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_told(checkout):
    checkout.chmod(0o555)
    status, message = set_up(checkout)
    checkout.chmod(0o755)
    assert status == 2 and "is not writable" in message


def tools(checkout) -> Path:
    """A folder with what setup.sh needs from the system, and no Python."""
    folder = checkout / "tools"
    folder.mkdir(exist_ok=True)
    for name in ("bash", "sh", "sha256sum", "cut", "head", "df", "awk", "rm", "mv", "cp", "mkdir", "dirname", "flock"):
        found = shutil.which(name, path="/usr/bin:/bin")
        if found and not (folder / name).exists():
            (folder / name).symlink_to(found)
    return folder
