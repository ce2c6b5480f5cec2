"""How much of a replay may be held in RAM: by hand-made accounts of a machine, and by a replay on a small one."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.replay import memory
from shared.replay.buffer import Replay

GREY = {"image": ArraySpec((64, 64, 1), "uint8")}
ROW_BYTES = 4096 + 4 + 3 + 4 * 18  # image, reward, three flags, 18 actions
GIB = 2**30


def make(folder, *, capacity_rows=2_000_000, memory_rows=2_000_000) -> Replay:
    sizes = {"capacity_rows": capacity_rows, "memory_rows": memory_rows}
    return Replay(folder / "replay", GREY, ActSpec(18, discrete=True), seed=np.random.SeedSequence(0), **sizes)


def store(replay: Replay, episodes: int, rows: int = 10) -> None:
    for _ in range(episodes):
        for index in range(rows):
            flags = {"is_first": index == 0, "is_last": index == rows - 1, "is_terminal": False}
            replay.append(
                {
                    "image": np.zeros((1, 64, 64, 1), np.uint8),
                    "reward": np.zeros(1, np.float32),
                    "action": np.zeros((1, 18), np.float32),
                    **{name: np.array([value]) for name, value in flags.items()},
                }
            )


@pytest.fixture
def machine(monkeypatch):
    """Sets what is free: bytes of memory, and bytes of disk."""

    def of(free, disk=10**15):
        usage = namedtuple("Usage", "total used free")
        monkeypatch.setattr(memory, "free_bytes", lambda: free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * disk, disk, disk))

    return of


# ------------------------------------------------------------------------------------------------ what fits


def test_a_replay_of_atari_at_the_papers_size(tmp_path, machine):
    """2 million rows of 4175 bytes are 8.35 GB: on 24 GiB, of which 22 are free, all of it may stay in memory."""
    machine(22 * GIB)
    replay = make(tmp_path)
    said = replay.fit(50_000_000)
    assert replay._memory.limit == 2_000_000
    assert "2,000,000 rows of 4,175 bytes, 8.3 GB; 23.6 GB of memory are free" in said
    assert "all of them stay in memory" in said and "disk" not in said


def test_what_does_not_fit_is_read_from_disk_and_this_is_told(tmp_path, machine):
    """8 GB free: half of it has room for 4e9 / 4175 = 958,083 rows."""
    machine(8e9)
    replay = make(tmp_path)
    said = replay.fit(50_000_000)
    assert replay._memory.limit == 958_083
    assert "8.0 GB of memory are free, half for it: 958,083 of them stay in memory" in said
    assert "the rest is read from disk" in said


@pytest.mark.parametrize(
    ("sizes", "rows", "words"),
    [
        ({}, 1000, "up to 1,000 rows of 4,175 bytes, 4.2 MB"),  # a short run needs little
        ({"capacity_rows": None}, 3_000_000, "up to 3,000,000 rows"),  # no limit but the run's length
        ({"memory_rows": 5000}, 10_000, "5,000 of them stay in memory"),  # the config may ask for less than fits
    ],
)
def test_the_least_of_run_capacity_and_config_counts(tmp_path, machine, sizes, rows, words):
    machine(100e9)
    assert words in make(tmp_path, **sizes).fit(rows)


def test_where_nobody_tells_what_is_free_the_config_decides(tmp_path, machine):
    machine(np.inf)
    replay = make(tmp_path)
    assert "nobody tells how much memory is free" in replay.fit(50_000_000)
    assert replay._memory.limit == 2_000_000


def test_episodes_beyond_what_fits_are_on_disk_and_can_be_drawn(tmp_path, machine):
    machine(2 * 25 * ROW_BYTES)  # room for 25 rows: two episodes of ten
    replay = make(tmp_path)
    replay.fit(10_000)
    machine(np.inf)
    store(replay, 5)
    assert (replay.rows, replay._memory.rows) == (50, 20)
    assert replay.sample(20, 10)["image"].shape == (20, 10, 64, 64, 1)


def test_a_machine_that_comes_to_its_end_holds_no_more_and_does_not_lose_anything(tmp_path, machine):
    machine(np.inf)
    replay = make(tmp_path)
    store(replay, 3)
    machine(memory.RESERVE_BYTES - 1)  # another run has grown
    store(replay, 3)
    assert (replay.rows, replay._memory.rows) == (60, 30)
    machine(np.inf)
    store(replay, 1)
    assert replay._memory.rows == 30  # it stays small: nobody knows how long the other run needs
    replay.sample(20, 10)


def test_a_disk_that_is_too_small_is_refused_before_the_run(tmp_path, machine):
    machine(100e9, disk=5e9)
    with pytest.raises(UserError, match=r"come to 8\.3 GB.*5\.0 GB.*larger disk.*replay.capacity_rows"):
        make(tmp_path).fit(50_000_000)
    assert "1,000,000 rows" in make(tmp_path, capacity_rows=1_000_000).fit(50_000_000)  # 4.2 GB


def test_episodes_that_are_there_already_need_no_more_disk(tmp_path, machine):
    replay = make(tmp_path)
    store(replay, 2)
    files = sum(path.stat().st_size for path in (tmp_path / "replay").iterdir())
    machine(100e9, disk=40 * ROW_BYTES - files)  # for a run of 40 rows in all
    replay.fit(40)
    with pytest.raises(UserError, match="larger disk"):
        replay.fit(41)


# ------------------------------------------------------------------------------------------------ what is free


def accounts(root, *, meminfo="MemTotal: 9000 kB\nMemAvailable:    8000 kB\n", groups=None, cgroup="0::/a/b\n"):
    """A machine's files below root; groups: path below sys/fs/cgroup -> {file: text}."""
    files = {"proc/meminfo": meminfo, "proc/self/cgroup": cgroup}
    for path, texts in (groups or {}).items():
        files |= {f"sys/fs/cgroup/{path}/{name}": text for name, text in texts.items()}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def version_2(limit, used, files=0):
    stat = f"anon 77\ninactive_file {files}\nactive_file 10\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def version_1(limit, used, files=0):
    stat = f"cache 1\ninactive_file 0\ntotal_inactive_file {files}\ntotal_active_file 10\n"
    return {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat}


def test_without_control_groups_the_machine_decides(tmp_path):
    assert memory.free_bytes(accounts(tmp_path)) == 8000 * 1024


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"a/b": version_2("max", 5)}, 8_192_000),
        ({"a/b": version_2(1_000_000, 600_000)}, 400_010),
        ({"a/b": version_2(1_000_000, 600_000, files=90)}, 400_100),  # copies of files can go
        ({"a/b": version_2("max", 5), "a": version_2(900_000, 700_000)}, 200_010),  # a group above is tighter
        ({"": version_2(500_000, 100_000)}, 400_010),  # in a container the own path is often not to be seen
        ({"a/b": version_2(1_000, 5_000)}, 0),
    ],
)
def test_control_groups_of_version_2(tmp_path, groups, expected):
    assert memory.free_bytes(accounts(tmp_path, groups=groups)) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"memory/a/b": version_1(2**63 - 4096, 5)}, 8_192_000),
        ({"memory/a/b": version_1(1_000_000, 600_000, files=90)}, 400_100),
        ({"memory": version_1(700_000, 600_000)}, 100_010),
        ({"cpu/a/b": version_1(1, 1)}, 8_192_000),  # another controller's
    ],
)
def test_control_groups_of_version_1(tmp_path, groups, expected):
    lines = "5:cpu:/a/b\n4:memory:/a/b\n0::/\n"
    assert memory.free_bytes(accounts(tmp_path, groups=groups, cgroup=lines)) == expected


def test_a_machine_that_is_no_linux_tells_what_it_has_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}[name])
    assert memory.free_bytes(tmp_path) == 4_096_000

    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.sysconf", unknown)
    assert memory.free_bytes(tmp_path) == np.inf


def test_this_machine_has_memory():
    assert 10**6 < memory.free_bytes() < 10**14
