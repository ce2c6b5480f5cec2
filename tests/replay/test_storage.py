"""Episode files: any slice is what was written, a file is whole or absent, damage is named."""

import errno
import os

import h5py
import numpy as np
import pytest

from shared.errors import UserError
from shared.replay.storage import EpisodeFolder


def columns(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "image": rng.integers(0, 256, (rows, 4, 4, 3), dtype=np.uint8),
        "reward": rng.standard_normal(rows).astype(np.float32),
        "is_first": np.arange(rows) == 0,
        "action": rng.standard_normal((rows, 2)).astype(np.float32),
    }


def read(folder: EpisodeFolder, episode: int, key: str, first: int, like: np.ndarray) -> np.ndarray:
    target = np.empty_like(like)
    folder.read(episode, [(key, first, target)])
    return target


def test_any_slice_of_any_column_is_what_was_written(tmp_path):
    folder, stored = EpisodeFolder(tmp_path), columns(9)
    folder.write(3, stored)
    for key, column in stored.items():
        for first in range(9):
            for last in range(first + 1, 10):
                got = read(folder, 3, key, first, column[first:last])
                np.testing.assert_array_equal(got, column[first:last])


def test_another_process_reads_the_file_with_h5py_alone(tmp_path):
    stored = columns(5)
    EpisodeFolder(tmp_path).write(0, stored)
    with h5py.File(tmp_path / "episode_00000000.h5") as file:
        for key, column in stored.items():
            assert file[key].dtype == column.dtype
            np.testing.assert_array_equal(file[key][()], column)


def test_equal_episodes_give_equal_files(tmp_path):
    first, second = EpisodeFolder(tmp_path / "a"), EpisodeFolder(tmp_path / "b")
    assert first.write(0, columns(7)) == second.write(0, columns(7))
    assert first.path(0).read_bytes() == second.path(0).read_bytes()


def test_a_rewritten_episode_of_another_length_is_read_at_its_own_offsets(tmp_path):
    folder = EpisodeFolder(tmp_path)
    for rows in (4, 9):
        stored = columns(rows)
        folder.write(0, stored)
        np.testing.assert_array_equal(read(folder, 0, "action", 1, stored["action"][1:]), stored["action"][1:])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        EpisodeFolder(tmp_path).write(0, columns(5))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_rewrite_leaves_the_old_file(tmp_path, monkeypatch):
    folder = EpisodeFolder(tmp_path)
    facts = folder.write(0, columns(5))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError) as caught:
        folder.write(0, columns(6))
    assert caught.value.filename == str(folder.path(0))  # so that the message can name the file
    folder.verify(0, facts)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_00000000.h5"]


def damage_missing(path):
    path.unlink()


def damage_truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_one_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_one_bit])
def test_verify_names_a_damaged_file(tmp_path, damage):
    folder = EpisodeFolder(tmp_path)
    facts = folder.write(0, columns(5))
    folder.verify(0, facts)
    damage(folder.path(0))
    with pytest.raises(UserError, match=r"episode_00000000\.h5.*older checkpoint"):
        folder.verify(0, facts)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("damage", [damage_missing, lambda path: path.write_bytes(path.read_bytes()[:2500])])
def test_a_file_lost_during_the_run_is_named(tmp_path, damage, known):
    folder, stored = EpisodeFolder(tmp_path), columns(50)
    folder.write(0, stored)
    if known:
        read(folder, 0, "reward", 0, stored["reward"])
    damage(folder.path(0))
    with pytest.raises(UserError, match=r"episode_00000000\.h5"):
        read(folder, 0, "reward", 0, stored["reward"])


def test_remove_takes_old_ones_new_ones_and_leftovers_only(tmp_path):
    folder = EpisodeFolder(tmp_path)
    for episode in range(6):
        folder.write(episode, columns(2))
    (tmp_path / "episode_00000002.h5.tmp").write_bytes(b"part")
    (tmp_path / "episode_notes.h5").write_bytes(b"not ours")
    folder.remove(before=2, since=4)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"episode_00000002.h5", "episode_00000003.h5", "episode_notes.h5"}
