"""Errors that speak to a person, and the command-line border where they are printed.

Everything a user can get wrong raises UserError with the thing, the value, what was expected and the way out.
Programming mistakes stay ordinary exceptions with their traceback.
"""

import errno
import functools
import os
import sys
from collections.abc import Callable

MACHINE_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space (`df -h .`) and run the same command again: it continues",
    errno.EROFS: "this file system is read-only; choose a writable folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again: it continues",
}


class UserError(Exception):
    """A mistake in the input or a limit of the machine, told in words that let a person mend it."""


def explain(error: BaseException) -> str | None:
    """One message for an error that a person can mend, None for a bug in this repository."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{MACHINE_ERRORS[error.errno]}"
    return None


def cli(main: Callable[[list[str]], int | None]) -> Callable[[list[str] | None], int]:
    """Wrap a command line: explained errors end with status 2 and no traceback.

    The wrapped function takes the arguments without the program's name and returns an exit status (None is 0).
    `--traceback` among the arguments, or REPRO_TRACEBACK=1, shows the traceback as well.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        arguments = list(sys.argv[1:] if argv is None else argv)
        wants_traceback = "--traceback" in arguments or os.environ.get("REPRO_TRACEBACK") == "1"
        try:
            return main([a for a in arguments if a != "--traceback"]) or 0
        except KeyboardInterrupt:
            message = "interrupted; the same command continues from the last checkpoint (or starts again without one)"
            print(message, file=sys.stderr)
            return 130
        except (UserError, OSError) as error:
            message = explain(error)
            if message is None or wants_traceback:
                raise
            print(f"error: {message}", file=sys.stderr)
            return 2

    return run
