"""Every row tells its origin: its columns are functions of (stream, turn), so that any window can be judged."""

import itertools
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.checkpoint import load_tree, save_tree
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.replay import memory
from shared.replay.streams import StreamReplay


@pytest.fixture(autouse=True, scope="module")
def a_machine_with_room():
    """What is held in memory depends on the replay alone, whatever runs beside these tests (see test_memory.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda: np.inf)
        yield


OBS = {"image": ArraySpec((2, 2, 1), "uint8"), "height": ArraySpec((), "float32")}
MEMO = {"deter": ArraySpec((3,), "float32"), "stoch": ArraySpec((2,), "uint8")}
OPEN_FILES = Path("/proc/self/fd")
EPISODE = 5  # rows of every episode; stream n begins n rows into one, so that streams end at different times


def make(folder: Path, seed: int = 0, **changes) -> StreamReplay:
    options = {"streams": 2, "length": 3, "context": 1, "capacity_rows": 10**6, "memory_rows": 10**6}
    options |= {"online": False, "memo_spec": MEMO, "chunk_rows": 8}
    return StreamReplay(folder, OBS, ActSpec(2), seed=np.random.SeedSequence(seed), **(options | changes))


def row(stream: int, turn: int) -> dict[str, np.ndarray]:
    code, phase = 1000 * stream + turn, (turn + stream) % EPISODE
    return {
        "image": np.array([stream, turn % 256, turn // 256, 7], np.uint8).reshape(2, 2, 1),
        "height": np.float32(-code),
        "reward": np.float32(code),
        "is_first": np.bool_(turn == 0 or phase == 0),
        "is_last": np.bool_(phase == EPISODE - 1),
        "is_terminal": np.bool_(phase == EPISODE - 1 and stream % 2 == 1),
        "action": np.array([code + 0.5, 3.0], np.float32),  # as sampled: not always inside [-1, 1]
    }


def memo(stream: int, turn: int, version: int = 0) -> dict[str, np.ndarray]:
    """What an agent notes beside a row, and after update `version` of it."""
    code = 1000 * stream + turn
    return {"deter": np.array([code, version, 1], np.float32), "stoch": np.array([turn % 256, version % 256], np.uint8)}


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([one[key] for one in rows]) for key in rows[0]}


def feed(replay: StreamReplay, first: int, stop: int, *, streams: int = 2, memos: bool = True) -> None:
    """Turns first .. stop - 1 of every stream."""
    for turn in range(first, stop):
        rows = [row(n, turn) | (memo(n, turn) if memos else {}) for n in range(streams)]
        replay.append(stack(rows))


def origins(batch: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(stream, first turn) of every window, by its first reward."""
    codes = batch["reward"][:, 0].astype(int).tolist()
    return [divmod(code, 1000) for code in codes]


def check_windows(batch: dict[str, np.ndarray], window: int, streams: int) -> None:
    """Every window is `window` consecutive rows of one stream, with is_first at the front and the number it claims."""
    for number, (stream, first) in enumerate(origins(batch)):
        expected = stack([row(stream, first + t) for t in range(window)])
        expected["is_first"][0] = True
        for key, column in expected.items():
            assert batch[key].dtype == column.dtype
            np.testing.assert_array_equal(batch[key][number], column, err_msg=key)
        assert batch["window"][number] == first * streams + stream


def versions(batch: dict[str, np.ndarray]) -> list[int]:
    """How often each window's context row was written anew; the rest of its memo must be its own."""
    for number, (stream, first) in enumerate(origins(batch)):
        expected = memo(stream, first, int(batch["deter"][number, 0, 1]))
        for name, value in expected.items():
            np.testing.assert_array_equal(batch[name][number], value[None], err_msg=name)
    return batch["deter"][:, 0, 1].astype(int).tolist()


def written(batch: dict[str, np.ndarray], length: int, version: int) -> dict[str, np.ndarray]:
    """Memos that an update gives back: of the `length` last rows of every window."""
    skip = batch["reward"].shape[1] - length
    return stack([stack([memo(n, first + skip + t, version) for t in range(length)]) for n, first in origins(batch)])


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


# ---------------------------------------------------------------------------------------------- what comes out


@pytest.mark.property("R1")
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_windows_are_live_rows_of_one_stream_for_any_history(data):
    """Any number of streams, rows one by one, eviction, little or much RAM, small and large chunks."""
    number = st.integers
    streams, length, context = data.draw(number(1, 4)), data.draw(number(1, 6)), data.draw(number(0, 1))
    capacity, window = data.draw(number(1, 60), "capacity_rows"), length + context
    options = {"chunk_rows": data.draw(number(1, 30)), "memory_rows": data.draw(st.sampled_from([0, 12, 10**6]))}
    options["online"] = data.draw(st.booleans(), "online")
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder), streams=streams, length=length, context=context, capacity_rows=capacity, **options)
        if data.draw(st.booleans(), "fit"):
            replay.fit(100)  # with memory_rows below that, memos lie in scratch files
        for count in range(1, data.draw(number(1, 100), "rows")):
            turn, stream = divmod(count - 1, streams)
            replay.append(stack([row(stream, turn) | memo(stream, turn)]))
            complete = max(0, count - streams * (window - 1))
            assert replay.windows == min(complete, capacity)
        if replay.windows == 0:
            with pytest.raises(UserError, match=f"no window of {window} rows is complete"):
                replay.sample(2, length)
            return
        for version in range(1, 4):
            batch = replay.sample(3, length)
            check_windows(batch, window, streams)
            assert (batch["window"] >= complete - replay.windows).all() and (batch["window"] < complete).all()
            assert batch["deter"].shape == (3, context, 3)
            if context:
                versions(batch)
            replay.update(batch["window"], written(batch, length, version))


def test_a_window_runs_across_the_end_of_an_episode(tmp_path):
    """Rows 3 to 6 of stream 0, whose first episode has rows 0 to 4."""
    replay = make(tmp_path, streams=1)
    feed(replay, 0, 7, streams=1)
    batch = next(one for one in iter(lambda: replay.sample(1, 3), None) if one["window"][0] == 3)
    assert batch["is_first"][0].tolist() == [True, False, True, False]  # the first one by rule, the third by nature
    assert batch["is_last"][0].tolist() == [False, True, False, False]
    np.testing.assert_array_equal(batch["reward"][0], [3, 4, 5, 6])
    np.testing.assert_array_equal(batch["action"][0, :, 0], [3.5, 4.5, 5.5, 6.5])
    np.testing.assert_array_equal(batch["deter"], [[[3, 0, 1]]])


@pytest.mark.property("R1")
def test_draws_are_uniform_over_all_live_windows_of_all_streams(tmp_path):
    replay = make(tmp_path, capacity_rows=12)
    feed(replay, 0, 20)  # 40 rows, 34 complete windows, 12 of them live
    drawn = Counter(replay.sample(6000, 3)["window"].tolist())
    assert sorted(drawn) == list(range(22, 34))
    assert stats.chisquare(list(drawn.values())).pvalue > 0.01


def test_batches_are_new_arrays_that_the_caller_may_change(tmp_path):
    replay = make(tmp_path)
    feed(replay, 0, 9)
    batch = replay.sample(4, 3)
    for column in batch.values():
        column[...] = 0
    check_windows(batch := replay.sample(8, 3), 4, 2)
    assert versions(batch) == [0] * 8


def test_appended_rows_may_be_reused_by_the_environment(tmp_path):
    replay, buffer = make(tmp_path, streams=1), stack([row(0, 0) | memo(0, 0)])
    for turn in range(6):
        for key, value in stack([row(0, turn) | memo(0, turn)]).items():
            buffer[key][...] = value
        replay.append(buffer)
    batch = replay.sample(8, 3)
    check_windows(batch, 4, 1)
    assert versions(batch) == [0] * 8


def test_rows_one_by_one_or_a_turn_at_once_are_the_same(tmp_path):
    whole, single = make(tmp_path / "whole", online=True), make(tmp_path / "single", online=True)
    feed(whole, 0, 15)
    for turn, stream in itertools.product(range(15), range(2)):
        single.append(stack([row(stream, turn) | memo(stream, turn)]))
    for _ in range(5):
        assert_same(whole.sample(4, 3), single.sample(4, 3))


# ---------------------------------------------------------------------------------------------- the online queue


def test_every_row_but_the_first_is_drawn_online_once_and_before_any_random_draw(tmp_path):
    replay = make(tmp_path, online=True)
    feed(replay, 0, 13)  # windows of four rows from turns 1, 5 and 9 of each stream
    queued = [(n, turn) for turn in (1, 5, 9) for n in (0, 1)]
    assert origins(replay.sample(4, 3)) == queued[:4]
    assert origins(replay.sample(2, 3)) == queued[4:]
    later = origins(replay.sample(40, 3))
    assert len(set(later)) > 6  # random ones
    feed(replay, 13, 17)
    assert origins(replay.sample(3, 3))[:2] == [(0, 13), (1, 13)]


def test_without_the_queue_the_first_draws_are_random(tmp_path):
    replay = make(tmp_path)
    feed(replay, 0, 100)
    assert origins(replay.sample(4, 3)) != [(0, 1), (1, 1), (0, 5), (1, 5)]


def test_a_queued_window_that_is_gone_is_passed_over(tmp_path):
    replay = make(tmp_path, online=True, capacity_rows=4)
    feed(replay, 0, 21)  # 36 complete windows, those from turn 16 and 17 on live; queued: turns 1, 5, 9, 13, 17
    assert origins(replay.sample(2, 3)) == [(0, 17), (1, 17)]


# ---------------------------------------------------------------------------------------------- memos


def test_a_memo_that_is_written_back_comes_with_the_next_window_that_begins_there(tmp_path):
    replay = make(tmp_path, streams=1)
    feed(replay, 0, 12, streams=1)  # chunk 0 is complete, chunk 1 is being filled
    batch = next(one for one in iter(lambda: replay.sample(1, 3), None) if one["window"][0] == 5)
    replay.update(batch["window"], written(batch, 3, 1))  # turns 6, 7 and 8: in both chunks
    seen = {}
    for _ in range(200):
        batch = replay.sample(4, 3)
        seen |= dict(zip(batch["window"].tolist(), versions(batch), strict=True))
    assert seen == {turn: int(turn in (6, 7, 8)) for turn in range(9)}


def test_where_two_windows_of_a_batch_overlap_the_later_one_counts(tmp_path):
    replay = make(tmp_path, streams=1)
    feed(replay, 0, 9, streams=1)
    notes = {"deter": np.zeros((2, 3, 3), np.float32), "stoch": np.zeros((2, 3, 2), np.uint8)}
    notes["deter"][:, :, 1] = [[1], [2]]
    replay.update(np.array([1, 2]), notes)  # of turns 2, 3, 4 and of 3, 4, 5
    seen = {}
    for _ in range(100):
        batch = replay.sample(4, 3)
        seen |= dict(zip(batch["window"].tolist(), batch["deter"][:, 0, 1].tolist(), strict=True))
    assert seen == {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2}


def test_memos_of_rows_that_are_gone_are_passed_over(tmp_path):
    replay = make(tmp_path, streams=1, capacity_rows=6)
    feed(replay, 0, 10, streams=1)
    batch = replay.sample(2, 3)
    feed(replay, 10, 60, streams=1)
    replay.update(batch["window"], written(batch, 3, 9))
    assert versions(replay.sample(20, 3)) == [0] * 20


@pytest.mark.parametrize("wrong", ["missing", "length", "dtype"])
def test_a_memo_of_another_kind_is_refused(tmp_path, wrong):
    replay = make(tmp_path)
    feed(replay, 0, 9)
    batch = replay.sample(2, 3)
    notes = written(batch, 3, 1)
    if wrong == "missing":
        del notes["stoch"]
    elif wrong == "length":
        notes["stoch"] = notes["stoch"][:, :2]
    else:
        notes["stoch"] = notes["stoch"].astype(np.float32)
    with pytest.raises(ValueError, match="update: memo stoch is "):
        replay.update(batch["window"], notes)


# ---------------------------------------------------------------------------------------------- going on


def learn(replay: StreamReplay, version: int) -> dict[str, np.ndarray]:
    batch = replay.sample(3, 3)
    replay.update(batch["window"], written(batch, 3, version))
    return batch


def test_a_replay_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    """Twice from the same one: to go on, and to fall before the next checkpoint is whole, must leave what it needs."""
    straight = make(tmp_path / "run", online=True, capacity_rows=30)
    for step in range(1, 9):
        feed(straight, 3 * step - 3, 3 * step)
        if step > 2:
            learn(straight, step)
        if step == 5:
            older = straight.save()
    save_tree(tmp_path / "8.h5", straight.save())
    straight.forget(older)
    tail = [learn_on(straight, step) for step in range(8, 14)]
    straight.save()  # the memos are written, and the run is killed before the checkpoint is
    for _ in range(2):
        resumed = make(tmp_path / "run", seed=99, online=True, capacity_rows=30)
        resumed.load(load_tree(tmp_path / "8.h5"))
        for step, expected in zip(range(8, 14), tail, strict=True):
            assert_same(learn_on(resumed, step), expected)


def learn_on(replay: StreamReplay, step: int) -> dict[str, np.ndarray]:
    feed(replay, 3 * step, 3 * step + 3)
    learn(replay, step)
    return learn(replay, step + 100)


def test_the_checkpoint_before_the_newest_can_still_be_used(tmp_path):
    replay = make(tmp_path / "run")
    feed(replay, 0, 12)
    learn(replay, 1)
    older = replay.save()
    expected = [learn(replay, version) for version in range(2, 8)]
    feed(replay, 12, 24)
    replay.save()
    replay.forget(older)
    again = make(tmp_path / "run", seed=5)
    again.load(older)
    for version, batch in zip(range(2, 8), expected, strict=True):
        assert_same(learn(again, version), batch)


def test_forgetting_deletes_what_neither_kept_checkpoint_needs(tmp_path):
    replay, before = make(tmp_path, streams=1, capacity_rows=10), None
    for step in range(6):
        feed(replay, 16 * step, 16 * step + 16, streams=1)
        for version in range(20):
            learn(replay, version)
        state = replay.save()
        if before is not None:
            replay.forget(before)
            needed = {f"memo_{n:08d}.h5" for one in (before, state) for n in one["memo_files"].tolist()}
            assert {path.name for path in tmp_path.glob("memo_*.h5")} == needed
            first = before["first"]
            assert min(int(path.stem[6:]) for path in tmp_path.glob("chunk_*.h5")) == first
        before = state
    assert first > 0


def test_memos_that_did_not_change_are_not_written_again(tmp_path):
    replay = make(tmp_path)
    feed(replay, 0, 12)
    one, other = replay.save(), replay.save()
    np.testing.assert_array_equal(one["memo_files"], other["memo_files"])
    learn(replay, 1)
    assert replay.save()["next_memo"] > other["next_memo"]


@pytest.mark.parametrize(
    ("kind", "damage"), [*itertools.product(["chunk", "memo"], ["missing", "truncated", "flipped"])]
)
def test_a_damaged_file_is_told_and_nothing_is_deleted(tmp_path, kind, damage):
    replay = make(tmp_path)
    feed(replay, 0, 12)
    state = replay.save()
    feed(replay, 12, 24)
    replay.save()
    path = sorted(tmp_path.glob(f"{kind}_*.h5"))[0]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=f"{kind} file .*{path.name}"):
        make(tmp_path).load(state)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("change", [{"streams": 1}, {"length": 4}, {"memo_spec": {}}, {"chunk_rows": 16}])
def test_a_state_of_another_kind_is_refused(tmp_path, change):
    replay = make(tmp_path)
    feed(replay, 0, 12)
    with pytest.raises(UserError, match="delete the run's .ckpt folder"):
        make(tmp_path, **change).load(replay.save())


def test_files_of_an_abandoned_run_are_removed(tmp_path):
    abandoned = make(tmp_path)
    feed(abandoned, 0, 40)
    abandoned.save()
    replay = make(tmp_path)
    feed(replay, 0, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunk_00000000.h5", "chunk_00000001.h5"]


def test_without_memos_nothing_is_written_but_chunks(tmp_path):
    replay = make(tmp_path, memo_spec={}, context=0, length=4)
    feed(replay, 0, 12, memos=False)
    state = replay.save()
    assert {path.name[:5] for path in tmp_path.iterdir()} == {"chunk"}
    again = make(tmp_path, memo_spec={}, context=0, length=4, seed=3)
    again.load(state)
    assert_same(again.sample(5, 4), replay.sample(5, 4))


# ---------------------------------------------------------------------------------------------- room, and messages


def test_little_memory_changes_no_number(tmp_path):
    roomy, poor = make(tmp_path / "roomy"), make(tmp_path / "poor", memory_rows=0)
    assert "all of them stay in memory" in roomy.fit(48)
    assert "the rest is read from disk" in poor.fit(48)
    for replay in (roomy, poor):
        feed(replay, 0, 24)
    assert not list((tmp_path / "poor").glob("tmp*"))  # scratch files have no name
    for version in range(6):
        assert_same(learn(poor, version), learn(roomy, version))
    state = poor.save()
    again = make(tmp_path / "poor", memory_rows=0)
    again.fit(48)
    again.load(state)
    assert_same(learn(again, 7), learn(roomy, 7))


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="nobody tells here which files are open")
def test_memos_that_do_not_fit_keep_one_file_open_each_not_one_for_every_chunk(tmp_path):
    """A process may open 1024 files on many machines, and a run of the paper's size has thousands of chunks."""
    poor, roomy = (make(tmp_path / name, memory_rows=rows, capacity_rows=60) for name, rows in (("p", 9), ("r", 10**6)))
    poor.fit(400)
    before = len(list(OPEN_FILES.iterdir()))
    for part in range(10):  # 50 chunks, of which ten are live: their places in the files are taken again
        for replay in (poor, roomy):
            feed(replay, 20 * part, 20 * part + 20)
        for version in range(4):
            assert_same(learn(poor, version), learn(roomy, version))
    assert len(list(OPEN_FILES.iterdir())) == before + len(MEMO)
    again = make(tmp_path / "p", memory_rows=9, capacity_rows=60)
    again.fit(400)
    again.load(poor.save())
    assert_same(learn(again, 9), learn(roomy, 9))


def test_memory_and_disk_are_told_with_the_memos_in(tmp_path, monkeypatch):
    """A row of 4 + 4 + 4 + 3 + 8 bytes, and a memo of 12 + 2."""
    assert make(tmp_path).fit(10**6).startswith("replay: up to 1,000,000 rows of 37 bytes, 37.0 MB")
    assert "up to 50 rows" in make(tmp_path, capacity_rows=50).fit(1000)
    needed = []
    monkeypatch.setattr(memory, "check_disk", lambda folder, rows: needed.append(rows))
    make(tmp_path).fit(1000)
    make(tmp_path, memory_rows=10).fit(1000)  # the memos as they are lie on disk too, beside those of three checkpoints
    assert needed == [1000 * (23 + 3 * 14), 1000 * (23 + 4 * 14)]


@pytest.mark.parametrize(
    ("change", "text"),
    [({"streams": 0}, "streams is 0"), ({"length": 0}, "length is 0"), ({"capacity_rows": 0}, "capacity_rows is 0")],
)
def test_impossible_sizes_are_told(tmp_path, change, text):
    with pytest.raises(UserError, match=text):
        make(tmp_path, **change)


def test_rows_that_do_not_fit_are_refused(tmp_path):
    replay = make(tmp_path)
    with pytest.raises(ValueError, match=r"missing columns \['deter', 'stoch'\]"):
        replay.append(stack([row(0, 0), row(1, 0)]))
    with pytest.raises(ValueError, match="environment 0 has is_first False at its row 0"):
        replay.append(stack([row(0, 1) | memo(0, 1), row(1, 0) | memo(1, 0)]))
    feed(replay, 0, 5)
    with pytest.raises(ValueError, match="batch length 5, expected 3"):
        replay.sample(1, 5)
