"""The place of one run on disk: who may write there, what is finished, and what belongs to another run.

A run's files lie beside its result `seed_0.h5`: `seed_0.h5.partial`, `seed_0.safetensors`, `seed_0.ckpt/`. Nothing that
another configuration left is ever deleted: it is set aside and named. Used by shared/runner.py.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.checkpoint import write_whole
from shared.errors import UserError
from shared.results import partial_path, read_run


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoints and the replay of an unfinished run live, beside its result file."""
    return out.with_suffix(".ckpt")


@contextlib.contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold `<out>.lock` so that no second process writes the same run; the system lets go of it if this one dies.

    Raises:
      UserError: another process holds it, or the folder cannot be made or written.
    """
    path = out.with_name(out.name + ".lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except BlockingIOError:
        raise UserError(
            f"{out} is being trained by another process (it holds {path}); wait for it or stop it"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write in {out.parent}: {error}; choose another --out") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path) -> int:
    """An open, exclusively locked file that still is the one at `path`. BlockingIOError if another holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner removed it between our open and our lock


def clear_way(out: Path, identity: Mapping[str, Any], config_text: str, say: Callable[[str], None]) -> bool:
    """Prepare to write `out`, under the lock. False if it is there already, complete and of this very run.

    What an earlier run with another config left unfinished is set aside under a new name, which `say` is told.
    Raises:
      UserError: `out`, or the unfinished run beside it, is one of another task, seed or framework.
    """
    folder = checkpoint_folder(out)
    if out.exists():
        found = read_run(out)
        if found.config_text != config_text or any(found.attrs[name] != value for name, value in identity.items()):
            raise UserError(
                f"{out} holds another run (task, seed or config differ); move it away or choose another --out"
            )
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that died between its last two steps
        partial_path(out).unlink(missing_ok=True)
        return False
    note = folder / "identity.json"
    mine = {**identity, "config": config_text}
    theirs = json.loads(note.read_text()) if note.exists() else None
    if theirs is not None and theirs != mine:
        differing = [name for name in identity if theirs.get(name) != identity[name]]
        if differing:
            raise UserError(
                f"{folder} is an unfinished run with "
                f"{', '.join(f'{n} {theirs.get(n)!r}' for n in differing)}, asked was "
                f"{', '.join(f'{n} {identity[n]!r}' for n in differing)}; choose another --out, or move the folder away"
            )
        set_aside(out, "of another configuration", say)
    folder.mkdir(parents=True, exist_ok=True)
    if theirs != mine:
        write_whole(note, json.dumps(mine, sort_keys=True, indent=1).encode())
    return True


def set_aside(out: Path, why: str, say: Callable[[str], None]) -> None:
    """Move the unfinished run beside `out` (checkpoints, partial result, parameters) to `<name>.ckpt.stale[.k]`."""
    folder = checkpoint_folder(out)
    names = (folder.with_name(f"{folder.name}.stale{f'.{k}' if k else ''}") for k in range(10_000))
    target = next(name for name in names if not name.exists())
    folder.rename(target)
    for path in (partial_path(out), out.with_suffix(".safetensors")):
        if path.exists():
            path.rename(target / path.name)
    say(f"set aside the unfinished run {why}: {target} (delete it when you do not need it)")
