"""Read the golden files: .npz of numbers that the authors' code produced (format: data/golden/<paper>/README.md).

A folder may hold the files directly or in a subfolder per paper; tests are chosen by the beginning of the file's name,
so that further cases in the same format can be dropped in. Mark a test with @pytest.mark.golden("kl_free_nats") and
take the argument `case`.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def find(folder, prefix, paper="planet"):
    """The files of one kind, sorted by name: those of folder/<paper>/ and those of the folder itself."""
    folder = Path(folder)
    paths = [*folder.glob(f"{prefix}*.npz"), *(folder / paper).glob(f"{prefix}*.npz")]
    return sorted(paths, key=lambda path: (path.name, str(path)))


@dataclass(frozen=True)
class Case:
    """One golden file, read when a test asks for it."""

    path: Path

    @property
    def name(self):
        return self.path.stem

    def load(self):
        """All arrays of the file, by name. Nothing pickled is ever read."""
        with np.load(self.path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def options(arrays):
    """The options of a case: its `meta`, "key=value key=value", parsed; {} without one.

    Values may contain blanks (dicts, prose), so the text is split where a new key begins. Numbers, booleans and dicts
    become Python values, a number followed by prose the number; everything else stays text.
    """
    if "meta" not in arrays:
        return {}
    parts = re.split(r"(?:^|\s)([A-Za-z_]\w*)=", str(arrays["meta"]))[1:]
    return {key: _value(text.strip()) for key, text in zip(parts[::2], parts[1::2], strict=True)}


def weights(arrays, prefix="w/"):
    """The arrays under a prefix, by the rest of their names: weights ("w/") or their gradients ("g_w/")."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        number = re.match(r"-?\d+(?=[\s;])", text)            # a number followed by prose, else a word (relu)
        return int(number[0]) if number else text
