"""Trees come back to the bit, files are whole or absent, and a bad checkpoint falls back to the one before it."""

import errno
import json
import math
import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.checkpoint import Checkpoints, hdf5_image, load_tree, save_tree, tree_image, write_whole
from shared.errors import UserError


def assert_equal_trees(left, right, path: str = "") -> None:
    """Equal types, keys in order, dtypes, shapes and bits."""
    assert type(left) is type(right), (path, left, right)
    if isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            assert_equal_trees(left[key], right[key], f"{path}/{key}")
    elif isinstance(left, list):
        assert len(left) == len(right), path
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_equal_trees(*pair, f"{path}/{index}")
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape), path
        assert left.tobytes() == right.tobytes(), path
    elif isinstance(left, float):
        assert left.hex() == right.hex(), path
    else:
        assert left == right, path


DTYPES = [np.bool_, *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8", ">f4", ">i8"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
leaves = st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | st.floats() | st.text() | arrays
trees = st.recursive(
    leaves,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tree=trees)
def test_trees_come_back_equal_to_the_bit(tree, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tree.h5"
    save_tree(path, tree)
    assert_equal_trees(tree, load_tree(path))


def test_the_awkward_leaves_by_name(tmp_path):
    generator = np.random.Generator(np.random.PCG64(7))
    generator.integers(5)  # leaves half of a draw in the buffer
    tree = {
        "rng": generator.bit_generator.state,  # integers of 128 bits
        "a/b": {".": 1, "": 2, "encoder.weight": np.eye(2), "array": 3, "mapping": {"array": 0}},
        "float": [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1],
        "int": [2**64, -(2**127), True, 1, 0, False],
        "0-d": [np.array(3.5, np.float32), np.array(True), np.array(-1)],
        "empty": [np.zeros((0, 3), np.float32), [], {}, ""],
        "nan bits": np.array([0x7FF8000000000001], np.uint64).view(np.float64),
        "text": "null \0, surrogate \ud800, é",
    }
    save_tree(tmp_path / "t.h5", tree)
    got = load_tree(tmp_path / "t.h5")
    assert_equal_trees(tree, got)
    resumed = np.random.Generator(np.random.PCG64(0))
    resumed.bit_generator.state = got["rng"]
    np.testing.assert_array_equal(resumed.integers(1000, size=9), generator.integers(1000, size=9))


def test_arrays_of_any_memory_layout(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    tree = {"transposed": base.T, "strided": base[::2, ::-3], "broadcast": np.broadcast_to(base[0], (3, 6))}
    save_tree(tmp_path / "t.h5", tree)
    for key, value in load_tree(tmp_path / "t.h5").items():
        np.testing.assert_array_equal(value, tree[key])


class Color(int):
    pass


@pytest.mark.parametrize(
    ("leaf", "named"),
    [
        (np.float64(1), "numpy.float64"),
        (np.int64(1), "numpy.int64"),
        ((1, 2), "builtins.tuple"),
        ({1}, "builtins.set"),
        (b"bytes", "builtins.bytes"),
        (Color(1), "Color"),
        (np.array(["a"]), "dtype <U1"),
        (np.array([None]), "dtype object"),
        (np.zeros(1, np.longdouble), "dtype float128"),
        (np.zeros(1, "f4,f4"), "dtype"),
        (np.ma.zeros(1), "MaskedArray"),
        (1j, "complex"),
        (len, "builtin_function"),
    ],
)
def test_an_unsupported_leaf_is_named_with_its_path(tmp_path, leaf, named):
    with pytest.raises(TypeError, match=f"/agent/moments/1 is a .*{named}"):
        save_tree(tmp_path / "t.h5", {"agent": {"moments": [0, leaf]}})
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_no_text_is_named_with_its_path(tmp_path):
    with pytest.raises(TypeError, match="key 3 at /a is a int"):
        save_tree(tmp_path / "t.h5", {"a": {3: 1}})


def test_equal_trees_give_equal_bytes():
    tree = {"a": np.arange(9.0), "b": [1, "x", {"c": np.array(True)}]}
    assert tree_image(tree) == tree_image({"a": np.arange(9.0), "b": [1, "x", {"c": np.array(True)}]})


def test_large_images_are_exact():
    array = np.random.default_rng(0).integers(0, 256, 9_000_000, dtype=np.uint8)
    image = hdf5_image(lambda file: file.create_dataset("a", data=array))
    assert array.nbytes < len(image) < array.nbytes + 10_000  # whole blocks in memory, but not in the file


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"text", None])
def test_a_file_that_is_no_tree_is_told(tmp_path, content):
    path = tmp_path / "t.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["other"] = 1
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"load_tree: .*t\.h5"):
        load_tree(path)
    with pytest.raises(UserError, match="does not exist"):
        load_tree(tmp_path / "nowhere.h5")


# ---------------------------------------------------------------------------------------------- whole files or none


class Killed(BaseException):
    """Stands for whatever ends a program between two system calls."""


def failing(error: BaseException, after: int = 0, then=None):
    """A function that works `after` times, then raises."""
    calls = []

    def call(*args):
        calls.append(args)
        if len(calls) > after:
            raise error
        return then(*args)

    return call


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Killed()])
def test_an_interrupted_write_keeps_the_old_content(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    write_whole(path, b"old")
    monkeypatch.setattr(os, step, failing(error))
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"old")]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


# ---------------------------------------------------------------------------------------------- two checkpoints


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    return Checkpoints(tmp_path / "run.ckpt", say=said.append)


def again(checkpoints: Checkpoints) -> Checkpoints:
    """What the next process sees."""
    return Checkpoints(checkpoints.folder, say=checkpoints.say)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def both(*steps: int) -> list[str]:
    return [f"step_{step:012d}.{ending}" for step in steps for ending in ("h5", "json")]


def test_no_checkpoint_is_none(checkpoints, said):
    assert checkpoints.latest() is None
    assert checkpoints.steps() == [] == said


def test_the_newest_two_are_kept_and_offered_newest_first(checkpoints, said):
    for step in (5, 90, 1000, 20_000):
        checkpoints.save(step, {"step": step, "array": np.arange(step % 7)})
    assert names(checkpoints) == both(1000, 20_000)
    assert [step for step, _ in again(checkpoints).candidates()] == [20_000, 1000]
    step, tree = again(checkpoints).latest()
    assert step == tree["step"] == 20_000
    assert said == []


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def lose_manifest(path):
    path.with_suffix(".json").unlink()


def spoil_manifest(path):
    path.with_suffix(".json").write_text('{"size": 3')


def manifest_of_another(path):
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": "0" * 64}))


DAMAGES = {
    truncate: "bytes, expected",
    flip: "sha256 differs",
    lose_manifest: "no manifest",
    spoil_manifest: "damaged manifest",
    manifest_of_another: "sha256 differs",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_falls_back_and_is_told(checkpoints, said, damage):
    checkpoints.save(10, {"step": 10})
    checkpoints.save(20, {"step": 20})
    damage(checkpoints.folder / "step_000000000020.h5")
    assert again(checkpoints).latest() == (10, {"step": 10})
    (message,) = said
    assert "step_000000000020.h5" in message and DAMAGES[damage] in message and "step 10" in message


def test_two_damaged_ones_start_anew(checkpoints, said):
    checkpoints.save(10, {})
    checkpoints.save(20, {})
    flip(checkpoints.folder / "step_000000000020.h5")
    truncate(checkpoints.folder / "step_000000000010.h5")
    fresh = again(checkpoints)
    assert fresh.latest() is None
    assert len(said) == 2 and "step 10" in said[0] and "starting anew" in said[1]
    fresh.save(15, {"step": 15})
    assert names(fresh) == both(15)


def test_a_caller_may_refuse_a_candidate_and_take_the_next(checkpoints):
    checkpoints.save(10, {"good": True})
    checkpoints.save(20, {"good": False})
    chosen = next(step for step, tree in again(checkpoints).candidates() if tree["good"])
    assert chosen == 10


@pytest.mark.parametrize("step", [15, 20, 25])
def test_after_a_fall_back_the_good_one_outlives_the_bad_one(checkpoints, step):
    checkpoints.save(10, {"step": 10})
    checkpoints.save(20, {"step": 20})
    flip(checkpoints.folder / "step_000000000020.h5")
    resumed = again(checkpoints)
    assert resumed.latest() == (10, {"step": 10})
    resumed.save(step, {"step": step, "life": 2})
    assert names(resumed) == both(10, step)
    assert [one for one, _ in again(checkpoints).candidates()] == [step, 10]


@pytest.mark.parametrize("call", [0, 1], ids=["the tree", "its manifest"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Killed()])
def test_a_save_that_fails_leaves_the_old_ones_untouched(checkpoints, monkeypatch, call, error):
    checkpoints.save(10, {"step": 10})
    checkpoints.save(20, {"step": 20})
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(os, "replace", failing(error, after=call, then=os.replace))
        checkpoints.save(30, {"step": 30})
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    checkpoints.save(30, {"step": 30})
    assert names(checkpoints) == both(20, 30)


def test_killed_at_any_system_call_a_good_one_remains(checkpoints, monkeypatch, said):
    """SIGKILL runs no clean-up: whatever is on disk at each rename must still lead to a good checkpoint."""
    checkpoints.save(10, {"step": 10})
    checkpoints.save(20, {"step": 20})
    seen, replace, unlink = [], os.replace, type(checkpoints.folder).unlink

    def snapshot():
        seen.append({path.name: path.read_bytes() for path in checkpoints.folder.iterdir()})

    monkeypatch.setattr(os, "replace", lambda *args: (snapshot(), replace(*args), snapshot()))
    monkeypatch.setattr(type(checkpoints.folder), "unlink", lambda *a, **k: (snapshot(), unlink(*a, **k), snapshot()))
    checkpoints.save(30, {"step": 30})
    monkeypatch.undo()
    assert len(seen) == 8  # two renames, two deleted files, before and after
    for number, snapshot_files in enumerate(seen):
        folder = checkpoints.folder.parent / f"killed_{number}"
        folder.mkdir()
        for name, data in snapshot_files.items():
            (folder / name).write_bytes(data)
        step, tree = Checkpoints(folder, say=said.append).latest()
        assert step == tree["step"] == (20 if number < 3 else 30)


def test_leftovers_of_a_killed_save_are_removed_by_the_next(checkpoints):
    checkpoints.save(10, {})
    (checkpoints.folder / "step_000000000020.h5.tmp").write_bytes(b"part")
    checkpoints.save(20, {})
    assert names(checkpoints) == both(10, 20)


def test_warnings_go_to_stderr_by_default(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, {})
    truncate(tmp_path / "step_000000000010.h5")
    assert Checkpoints(tmp_path).latest() is None
    assert "warning: checkpoint" in capsys.readouterr().err
