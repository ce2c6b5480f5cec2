"""Read the golden files: .npz of numbers that the authors' code produced (format: data/golden/<paper>/README.md).

Mark a test of tests/golden/test_<paper>_*.py with @pytest.mark.golden("lambda_return") and take the argument `case`:
the test runs once for every case in every file of that paper whose name begins so. With case="streamnorm" it takes
only those cases of a file whose own names begin so, with paper="planet" the files of that paper. Further files in the
same format can be dropped in.

A file is one case, with names such as `prev_stoch` or `w/rssm/gru/bias`; or, if EVERY name in it reads CASE/NAME
(`num_cases` apart), it holds several.

A folder (--golden-dir) may hold the files in a subfolder per paper, or directly. A file belongs to
1. the paper whose name its folder has; in a folder of another name,
2. every paper that has tests for the file's name, except that,
3. where papers use one name for different formats, the contents decide (TELLTALES below).
Files that no test takes are complained of: test_ledger.py.
"""

import ast
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PAPERS = ("planet", "dreamer", "dreamerv2", "dreamerv3")

# Beginnings of file names that several papers use, and names in such a file that only this paper's format has (one of
# them suffices). adam_clip is not here: PlaNet's and Dreamer's are one format, and both papers' tests run.
TELLTALES = {
    "lambda_return": {"dreamer": {"has_bootstrap"}, "dreamerv2": {"hp_axis"}, "dreamerv3": {"boot"}},
    "kl_free_nats": {"planet": {"kl_clipped"}, "dreamer": {"div"}},
    "rssm_cell": {"planet": {"prev_sample"}, "dreamer": {"prev_stoch"}},
    "rssm_steps": {"dreamerv2": {"hp_std_act"}, "dreamerv3": {"hp_blocks"}},
    "conv_small": {"planet": {"w/encoder/conv1/kernel"}, "dreamer": {"w/encoder/h1/kernel"}},
    "conv_full": {"planet": {"reward_mean"}, "dreamer": {"action_mean"}},
    "misc": {"dreamer": {"image_out"}, "dreamerv2": {"schedule", "mag", "dx"}},
    "optimizer": {"dreamerv2": {"hp_clip"}, "dreamerv3": {"hp_agc"}},
}


def find(folder, paper, prefix, case=""):
    """The cases of one kind, sorted by file: those of folder/<paper>/ and those of the folder itself."""
    folder = Path(folder)
    paths = [*folder.glob(f"{prefix}*.npz"), *(folder / paper).glob(f"{prefix}*.npz")]
    paths = sorted((path for path in paths if _belongs(path, paper, prefix)), key=lambda path: (path.name, str(path)))
    return [found for path in paths for found in cases(path) if found.name.startswith(case)]


def cases(path):
    """All cases of a file."""
    names = [name for name in _names(path) if name != "num_cases"]
    if not all("/" in name for name in names):
        return [Case(path)]
    return [Case(path, name) for name in dict.fromkeys(name.partition("/")[0] for name in names)]


def _belongs(path, paper, prefix):
    home = path.absolute().parent.name
    if home in PAPERS:
        return home == paper
    if prefix not in TELLTALES:
        return True
    names = _names(path)
    return not TELLTALES[prefix].get(paper, set()).isdisjoint([*names, *(name.partition("/")[2] for name in names)])


def _names(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive.files
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file that NumPy can read: {error}") from error


@dataclass(frozen=True)
class Case:
    """One set of numbers, read when a test asks for it."""

    path: Path
    name: str = ""                                            # within its file; "" where the file is one case

    @property
    def id(self):
        return f"{self.path.stem}.{self.name}" if self.name else self.path.stem

    def load(self):
        """All arrays of the case, by name. Nothing pickled is ever read."""
        begin = f"{self.name}/" if self.name else ""
        with np.load(self.path, allow_pickle=False) as archive:
            return {name.removeprefix(begin): archive[name] for name in archive.files if name.startswith(begin)}

    def double(self):
        """The same with all floating-point arrays in float64."""
        return {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in self.load().items()}


def options(arrays):
    """The options of a case: its `meta`, "key=value key=value", parsed, or its arrays hp_KEY; {} without any.

    Values of `meta` may contain blanks (dicts, prose), so the text is split where a new key begins. Numbers, booleans
    and dicts become Python values, a number followed by prose the number; everything else stays text.
    """
    parts = re.split(r"(?:^|\s)([A-Za-z_]\w*)=", str(arrays.get("meta", "")))[1:]
    found = {key: _value(text.strip()) for key, text in zip(parts[::2], parts[1::2], strict=True)}
    return found | {key: x.tolist() for key, x in weights(arrays, "hp_").items()}


def take(arrays, *names):
    """Some of the arrays, in this order."""
    return {name: arrays[name] for name in names}


def weights(arrays, prefix="w/"):
    """The arrays under a prefix, by the rest of their names: weights ("w/", "param:"), gradients ("g_w/", "grad:")."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        number = re.match(r"-?\d+(\.\d+)?(?=[\s;])", text)    # a number followed by prose, else a word (relu)
        return ast.literal_eval(number[0]) if number else text
