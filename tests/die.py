"""Run a paper's trainer and kill its process, as by `kill -9`, at a named moment:

    python -m tests.die PAPER MOMENT arguments...

MOMENT is `update:N` (after the N-th gradient step), `step:N` (after the N-th environment step), `write:PATTERN:N` (when
the N-th file whose name matches has its bytes in place but not yet its name), or `rmtree:N` (when the N-th folder has
lost its first file).
"""

import fnmatch
import importlib
import os
import shutil
import signal
import sys

COUNTS: dict[str, int] = {}


def die_at(moment: str, number: int) -> None:
    COUNTS[moment] = COUNTS.get(moment, 0) + 1
    if COUNTS[moment] == number:
        os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name: str, moment: str, number: int) -> None:
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        result = original(*args, **kwargs)
        die_at(moment, number)
        return result

    setattr(owner, name, wrapped)


def before_rename(pattern: str, number: int) -> None:
    original = os.replace

    def wrapped(source, target, **kwargs):
        if fnmatch.fnmatch(os.path.basename(target), pattern):
            die_at("write", number)
        return original(source, target, **kwargs)

    os.replace = wrapped


def half_removed(number: int):
    def rmtree(folder, **kwargs):
        next(path for path in sorted(folder.rglob("*")) if path.is_file()).unlink()
        die_at("rmtree", number)

    return rmtree


def main() -> int:
    paper, moment, *arguments = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = arguments[arguments.index("--threads") + 1]  # before torch is imported below
    train = importlib.import_module(f"replications.{paper}.train")
    kind, *details = moment.split(":")
    if kind == "write":
        before_rename(details[0], int(details[1]))
    elif kind == "rmtree":
        shutil.rmtree = half_removed(int(details[0]))
    elif kind == "update":
        module = train.framework_module(train.parse(arguments).framework)
        (agent,) = (value for name, value in vars(module).items() if name.lower() == f"{paper}agent")
        after(agent, "learn", moment, int(details[0]))
    elif kind == "step":
        from shared.envs.vector import VectorEnv

        after(VectorEnv, "step", moment, int(details[0]))
    else:
        raise SystemExit(f"unknown moment {moment!r}")
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
