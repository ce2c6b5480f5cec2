"""Training processes that need not import torch: one process has done so and forks each of them.

    python -m tests.nursery          (started by `child`, spoken to over its standard input and output)

Importing takes three seconds, more than half of most of these runs, and tests make a hundred of them. A forked child is
a process of its own that can be killed like any other; it has the environment, arguments and files of a command line,
and starts where `python -m replications.PAPER.train` has just imported its modules. JAX is not imported here: it reads
its settings from the environment of the child. tests/test_resume.py starts trainers from a command line too.
"""

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from shared.config import ROOT

LIMIT_SECONDS = 300  # of one trainer; then it is killed, and its status is -SIGALRM


class Nursery:
    """A process that forks trainers, one after the other."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.close)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def run(self, module: str, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
        """What `subprocess.run([python, "-m", module, *arguments])` would give, with its text output."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            job = {"module": module, "arguments": arguments, "environment": environment}
            job |= {"out": str(out), "err": str(err)}
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the process that forks trainers ended with status {self.process.wait()} at {job}")
            return subprocess.CompletedProcess(arguments, json.loads(answer), out.read_text(), err.read_text())


@functools.cache
def nursery() -> Nursery:
    """This process's own."""
    return Nursery()


def child(module: str, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    return nursery().run(module, arguments, environment)


def become(job: dict) -> int:
    """In the child: turn into the process that was asked for. Returns its status."""
    signal.alarm(LIMIT_SECONDS)
    for number, path in ((1, job["out"]), (2, job["err"])):
        target = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(target, number)
        os.close(target)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115  the process's own
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = [job["module"], *job["arguments"]]
    main = importlib.import_module(job["module"]).main
    return main() if job["module"] == "tests.die" else main(job["arguments"])


def serve() -> None:
    """Fork a child per line of standard input and answer with its status, as subprocess has it, until input ends."""
    for paper in ("planet", "dreamer", "dreamerv2", "dreamerv3"):
        importlib.import_module(f"replications.{paper}.train")
        importlib.import_module(f"replications.{paper}.agent_torch")
    importlib.import_module("torch._dynamo")  # which torch's optimisers import when the first one is made
    assert "jax" not in sys.modules
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in iter(requests.readline, ""):
        pid = os.fork()
        if pid == 0:
            requests.close()
            answers.close()
            sys.exit(become(json.loads(line)))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
