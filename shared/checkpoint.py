"""Whole files or none: atomic writing, trees of arrays in HDF5, and checkpoints that fall back to the one before.

A checkpoint is data only (arrays, text, numbers): nothing in it is pickled, so loading cannot run code.
Replay files and run files are written by the same two functions: read shared/replay/buffer.py, shared/results.py next.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shared.errors import UserError

ARRAY_DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
IMAGE_GROWTH_BYTES = 1 << 22  # an HDF5 image in memory grows by whole blocks; small blocks copy large images often


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill, a crash or a full disk leaves the old content (or none), never a part.

    The bytes go to `<path>.tmp`, reach the disk (fsync) and take the final name in one step (rename).
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete the `.tmp` files that a killed writer left in the folder."""
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


def hdf5_image(fill: Callable[[h5py.File], None]) -> bytes:
    """The bytes of the HDF5 file that `fill` fills. Equal content gives equal bytes: no times are stored."""
    with h5py.File("image", "w", driver="core", backing_store=False, block_size=IMAGE_GROWTH_BYTES) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def save_tree(path: Path, tree: Any) -> None:
    """Save nested mappings and lists of NumPy arrays, str, int, float, bool and None, atomically.

    Args:
        path: the file to write.
        tree: keys are str, ints of any size, arrays of bool, int, uint and float dtypes.
    Raises:
        TypeError: a leaf of another type; the message names its path in the tree.
    """
    write_whole(Path(path), tree_image(tree))


def tree_image(tree: Any) -> bytes:
    """The HDF5 bytes of a tree: /tree is its JSON skeleton, /arrays/<n> its arrays (attr `path` says where)."""
    arrays: list[tuple[str, np.ndarray]] = []
    text = json.dumps(_skeleton(tree, "", arrays)).encode()

    def fill(file: h5py.File) -> None:
        file.create_dataset("tree", data=np.frombuffer(text, np.uint8))
        group = file.create_group("arrays")
        for number, (path, array) in enumerate(arrays):
            group.create_dataset(str(number), data=array).attrs["path"] = json.dumps(path)

    return hdf5_image(fill)


def load_tree(path: Path) -> Any:
    """Load what save_tree saved: equal types, dtypes, shapes and bits.

    Raises:
        UserError: not such a file, or a damaged one.
    """
    try:
        with h5py.File(path, "r") as file:
            skeleton = json.loads(file["tree"][()].tobytes())
            return _tree(skeleton, file["arrays"])
    except FileNotFoundError:
        raise UserError(f"load_tree: {path} does not exist; expected a checkpoint file") from None
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"load_tree: {path} is no checkpoint or is damaged ({error}); delete it: an older one will be used"
        ) from error


class Checkpoints:
    """The two checkpoints of a run: `step_<n>.h5`, each with a manifest `step_<n>.json` (size, sha256).

    A checkpoint counts only if its manifest is there and agrees with the file. Kept are the one saved last and the one
    that the run came from (saved before it, or offered last by candidates): pass the replay state of the latter to
    Replay.forget after each save.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] | None = None):
        self.folder = Path(folder)
        self.say = say or (lambda message: print(message, file=sys.stderr))
        self._origin: int | None = None  # step of the checkpoint that the run came from; None: it started anew

    def steps(self) -> list[int]:
        """Steps of the checkpoints in the folder, newest first, verified or not."""
        found = (re.fullmatch(r"step_(\d+)\.h5", path.name) for path in self.folder.glob("step_*.h5"))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def save(self, step: int, tree: Any) -> None:
        """Save a checkpoint; then delete all others but the one that the run came from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        data = tree_image(tree)
        manifest = {"step": step, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        path = self._path(step)
        write_whole(path, data)
        try:
            write_whole(path.with_suffix(".json"), json.dumps(manifest).encode())
        except BaseException:
            path.unlink()
            raise
        past = [] if self._origin is None else [old for old in self.steps() if old < step and old <= self._origin]
        kept = {self._path(one).stem for one in [step, *past[:1]]}
        for other in self.folder.glob("step_*"):
            if other.stem not in kept:
                other.unlink(missing_ok=True)
        self._origin = step

    def candidates(self) -> Iterator[tuple[int, Any]]:
        """Checkpoints that verify, newest first; a bad one is told through `say` with what is used instead.

        A caller that cannot use a candidate (its replay files are bad) says so itself and takes the next.
        """
        steps = self.steps()
        for step, older in zip(steps, [*steps[1:], None][: len(steps)], strict=True):
            try:
                tree = self._verified(step)
            except UserError as error:
                instead = "no older one is left: starting anew" if older is None else f"trying the one of step {older}"
                self.say(f"warning: {error}; {instead}")
            else:
                self._origin = step
                yield step, tree
        self._origin = None

    def latest(self) -> tuple[int, Any] | None:
        """The newest checkpoint that verifies, or None."""
        return next(self.candidates(), None)

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:012d}.h5"

    def _verified(self, step: int) -> Any:
        path = self._path(step)
        try:
            data = path.read_bytes()
            manifest = json.loads(path.with_suffix(".json").read_bytes())
            expected = (manifest["size"], manifest["sha256"])
        except FileNotFoundError:
            raise UserError(f"checkpoint {path} has no manifest (stopped while it was written)") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"checkpoint {path} has a damaged manifest") from None
        except OSError as error:
            raise UserError(f"checkpoint {path} cannot be read ({error})") from error
        if len(data) != expected[0]:
            raise UserError(f"checkpoint {path} has {len(data)} bytes, expected {expected[0]}")
        if hashlib.sha256(data).hexdigest() != expected[1]:
            raise UserError(f"checkpoint {path} is damaged: its sha256 differs from the manifest")
        return load_tree(path)


def _skeleton(node: Any, path: str, arrays: list[tuple[str, np.ndarray]]) -> Any:
    """JSON form of a tree: mappings become {"mapping": ...}, arrays {"array": n} and are appended to `arrays`."""
    if node is None or type(node) in (str, int, float, bool):
        return node
    if type(node) is list:
        return [_skeleton(child, f"{path}/{index}", arrays) for index, child in enumerate(node)]
    if isinstance(node, Mapping):
        for key in node:
            if type(key) is not str:
                raise TypeError(f"save_tree: key {key!r} at {path or '/'} is a {type(key).__name__}, expected str")
        return {"mapping": {key: _skeleton(child, f"{path}/{key}", arrays) for key, child in node.items()}}
    if type(node) is np.ndarray and node.dtype.name in ARRAY_DTYPES:
        arrays.append((path, node))
        return {"array": len(arrays) - 1}
    dtype = f" of dtype {node.dtype}" if isinstance(node, np.ndarray) else ""
    raise TypeError(
        f"save_tree: {path or '/'} is a {type(node).__module__}.{type(node).__qualname__}{dtype}; expected a mapping, "
        "a list, a NumPy array of numbers or bool, str, int, float, bool or None (wrap a NumPy scalar in np.asarray)"
    )


def _tree(skeleton: Any, arrays: h5py.Group) -> Any:
    if isinstance(skeleton, list):
        return [_tree(child, arrays) for child in skeleton]
    if isinstance(skeleton, dict):
        if "array" in skeleton:
            return arrays[str(skeleton["array"])][...]
        return {key: _tree(child, arrays) for key, child in skeleton["mapping"].items()}
    return skeleton


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some network file systems cannot sync a folder; there the rename is merely atomic."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
