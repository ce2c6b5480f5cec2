"""Run the trainer and kill its process, as by `kill -9`, at a named moment: python -m tests.die MOMENT arguments...

MOMENT is `update:N` (after the N-th gradient step), `step:N` (after the N-th environment step), or `write:PART:N` (when
the N-th file whose name contains PART has its bytes in place but not yet its name).
"""

import os
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


def before_rename(part: str, number: int) -> None:
    original = os.replace

    def wrapped(source, target, **kwargs):
        if part in os.path.basename(target):
            die_at("write", number)
        return original(source, target, **kwargs)

    os.replace = wrapped


def main() -> int:
    moment, *arguments = sys.argv[1:]
    kind, *details = moment.split(":")
    if kind == "write":
        before_rename(details[0], int(details[1]))
    elif kind == "update":
        from replications.planet.agent_torch import PlanetAgent

        after(PlanetAgent, "learn", moment, int(details[0]))
    elif kind == "step":
        from shared.envs.vector import VectorEnv

        after(VectorEnv, "step", moment, int(details[0]))
    else:
        raise SystemExit(f"unknown moment {moment!r}")
    from replications.planet import train

    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
