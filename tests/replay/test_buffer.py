"""Every row tells its origin: its columns are functions of (life, episode, row), so that any chunk can be judged."""

import errno
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.checkpoint import load_tree, save_tree, tree_image
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.replay import memory
from shared.replay.buffer import Replay


@pytest.fixture(autouse=True, scope="module")
def a_machine_with_room():
    """What is held in memory depends on the replay alone, whatever runs beside these tests (see test_memory.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda: np.inf)
        yield


OBS = {"image": ArraySpec((2, 2, 3), "uint8"), "speed": ArraySpec((2,), "float32")}
ACT = ActSpec(2)


def make(folder: Path, seed: int = 0, **changes) -> Replay:
    options = {"older": 500, "recent": 500, "chunks_per_refresh": 1000, "capacity_rows": None, "memory_rows": 10**6}
    return Replay(folder, OBS, ACT, seed=np.random.SeedSequence(seed), **(options | changes))


def row(episode: int, index: int, length: int, life: int = 0) -> dict[str, np.ndarray]:
    """Row `index` of an episode of `length` rows. `life` distinguishes runs that store other things."""
    code = life * 100_000 + episode * 100 + index
    image = np.array([life, episode % 256, index % 256] * 4, np.uint8).reshape(2, 2, 3)
    return {
        "image": image,
        "speed": np.array([code, -code], np.float32),
        "reward": np.float32(code),
        "is_first": np.bool_(index == 0),
        "is_last": np.bool_(index == length - 1),
        "is_terminal": np.bool_(index == length - 1 and episode % 2 == 1),
        "action": np.array([code + 0.5, life], np.float32),
    }


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([one[key] for one in rows]) for key in rows[0]}


def feed(replay: Replay, lengths: list[int], *, first: int = 0, life: int = 0, stop: int | None = None) -> None:
    """Append whole episodes of one environment, numbered from `first`; the last one only up to row `stop`."""
    for episode, length in enumerate(lengths, first):
        last = episode == first + len(lengths) - 1
        for index in range(length if stop is None or not last else stop):
            replay.append(stack([row(episode, index, length, life)]))


def origins(batch: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(episode, first row) of every chunk, by its first reward."""
    codes = batch["reward"][:, 0].astype(int)
    return [(code % 100_000 // 100, code % 100) for code in codes.tolist()]


def check_chunks(batch: dict[str, np.ndarray], lengths: dict[int, int], length: int, life: int = 0) -> None:
    """Every chunk is `length` consecutive rows of one episode of `lengths`, and has the action before it."""
    for number, (episode, first) in enumerate(origins(batch)):
        assert episode in lengths, (episode, sorted(lengths))
        assert first + length <= lengths[episode]
        expected = stack([row(episode, first + t, lengths[episode], life) for t in range(length)])
        for key, column in expected.items():
            assert batch[key].dtype == column.dtype
            np.testing.assert_array_equal(batch[key][number], column)
        before = row(episode, first - 1, lengths[episode], life)["action"] if first else np.zeros(2, np.float32)
        np.testing.assert_array_equal(batch["action_before"][number], before)


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype
        np.testing.assert_array_equal(left[key], right[key])


# ---------------------------------------------------------------------------------------------- what comes out


@pytest.mark.property("R1")
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_chunks_are_rows_of_live_episodes_for_any_history(data):
    """Several environments, any lengths, eviction, little or much RAM; checked against lists of rows."""
    number = st.integers
    envs = data.draw(number(1, 3), "envs")
    capacity = data.draw(st.none() | number(5, 60), "capacity_rows")
    limits = {name: data.draw(number(1, 4), name) for name in ("older", "recent")}
    limits["chunks_per_refresh"] = data.draw(number(1, 12), "chunks_per_refresh")
    limits["memory_rows"] = data.draw(st.sampled_from([0, 12, 10**6]), "memory_rows")
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder), capacity_rows=capacity, **limits)
        episodes = [(env, 0, data.draw(number(1, 9))) for env in range(envs)]  # (episode, row, length) per env
        started, live = envs, {}
        for _ in range(data.draw(number(5, 60), "steps")):
            replay.append(stack([row(*episode) for episode in episodes]))
            for env, (episode, index, length) in enumerate(episodes):
                episodes[env] = (episode, index + 1, length)
                if index + 1 == length:
                    live[episode] = length
                    episodes[env] = (started, 0, data.draw(number(1, 9)))
                    started += 1
                    while capacity is not None and sum(live.values()) > capacity and len(live) > 1:
                        live.pop(next(iter(live)))
            assert (replay.episodes, replay.rows) == (len(live), sum(live.values()))
            length = data.draw(number(1, 9))
            if length > max(live.values(), default=0):
                with pytest.raises(UserError, match=f"batch length {length}" if live else "no complete episode"):
                    replay.sample(2, length)
            else:
                check_chunks(replay.sample(3, length), live, length)


@pytest.mark.property("R1")
def test_offsets_are_uniform_over_all_valid_ones_both_ends_included(tmp_path):
    replay = make(tmp_path)
    feed(replay, [12])
    firsts = Counter(first for _, first in origins(replay.sample(8000, 5)))
    assert sorted(firsts) == list(range(8))  # 0 .. 12 - 5
    assert stats.chisquare(list(firsts.values())).pvalue > 0.01


def test_batches_are_new_arrays_that_the_caller_may_change(tmp_path):
    replay = make(tmp_path)
    feed(replay, [6])
    batch = replay.sample(2, 6)
    for column in batch.values():
        column[...] = 0
    check_chunks(replay.sample(2, 6), {0: 6}, 6)


def test_appended_rows_may_be_reused_by_the_environment(tmp_path):
    replay, buffer = make(tmp_path), stack([row(0, 0, 4)])
    for index in range(4):
        for key, value in stack([row(0, index, 4)]).items():
            buffer[key][...] = value
        replay.append(buffer)
    check_chunks(replay.sample(3, 4), {0: 4}, 4)


def test_episodes_are_numbered_in_order_of_completion(tmp_path):
    replay = make(tmp_path)
    for index in range(3):  # environment 1 ends first, although environment 0 comes first in the row
        replay.append(stack([row(7, index, 3), row(8, index, 2) if index < 2 else row(9, 0, 1)]))
    rewards = [replay.sample(1, 1)["reward"] for _ in range(3)]
    assert {int(reward.item()) // 100 for reward in rewards} == {7, 8, 9}
    assert replay.save()["rows"].tolist() == [2, 3, 1]


# ---------------------------------------------------------------------------------------------- the order of episodes


def test_one_chunk_per_episode_and_permutation(tmp_path):
    replay = make(tmp_path)
    feed(replay, [5] * 10)
    rounds = [[episode for episode, _ in origins(replay.sample(10, 5))] for _ in range(4)]
    assert all(sorted(one) == list(range(10)) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 4


def test_new_episodes_wait_for_the_refresh_and_then_all_come(tmp_path):
    replay = make(tmp_path, older=3, recent=100, chunks_per_refresh=8)
    feed(replay, [4] * 5)
    assert {episode for episode, _ in origins(replay.sample(6, 4))} == set(range(5))
    feed(replay, [4] * 5, first=5)
    assert all(episode < 5 for episode, _ in origins(replay.sample(2, 4)))  # now 8 chunks are out: a new pool
    drawn = [episode for episode, _ in origins(replay.sample(8, 4))]  # 3 older and 5 new make one permutation
    assert {5, 6, 7, 8, 9} <= set(drawn) and len(set(drawn)) == 8


def test_an_episode_is_new_for_one_refresh_only(tmp_path):
    # one older episode per pool, five seen once: they share the one place; a new one comes for sure
    replay = make(tmp_path, older=1, recent=100, chunks_per_refresh=6)
    feed(replay, [4] * 5)
    assert {episode for episode, _ in origins(replay.sample(6, 4))} == set(range(5))
    feed(replay, [4], first=5)
    assert 5 in {episode for episode, _ in origins(replay.sample(6, 4))}
    pools = [{episode for episode, _ in origins(replay.sample(6, 4))} for _ in range(40)]
    assert all(len(pool) == 1 for pool in pools)
    assert set.union(*pools) == set(range(6))


def test_a_pool_is_filled_up_with_older_ones(tmp_path):
    """Eleven a look, up to six of them new, as the authors' older loader: 6 + 5, then 2 + 9, then 11 old ones."""
    replay = make(tmp_path, older=1, recent=6, pool=11, chunks_per_refresh=11)
    feed(replay, [3] * 20)
    replay.sample(11, 1)  # the very first look: all are new, six are taken, twice over
    feed(replay, [3] * 7, first=20)
    looks = []
    for new in (range(20, 27), range(27, 29), ()):
        if len(new) == 2:
            feed(replay, [3] * 2, first=27)
        drawn = [episode for episode, _ in origins(replay.sample(11, 1))]
        assert len(set(drawn)) == 11
        looks.append(len(set(drawn) & set(new)))
    assert looks == [6, 2, 0]


def test_a_draw_waits_in_the_buffer_and_the_queue(tmp_path):
    """What lay in a buffer of 40 and a queue of 8 comes out, the queue first, the buffer in random order."""
    options = {"older": 100, "recent": 100, "chunks_per_refresh": 1}
    for seed in range(20):
        replay = make(tmp_path / str(seed), seed, shuffle_chunks=40, prefetch_chunks=8, **options)
        feed(replay, [1])
        replay.sample(1, 1)
        feed(replay, [1] * 60, first=1)  # from here on nearly every draw is one of these
        drawn = [episode for episode, _ in origins(replay.sample(400, 1))]
        assert drawn[:8] == [0] * 8
        old = [place for place, episode in enumerate(drawn) if episode == 0]
        assert 48 <= len(old) <= 48 + 25  # and some of the 352 new draws, of which one in 61 is episode 0
        assert 8 + 20 < np.mean(old[8:48]) < 8 + 65  # they leave the buffer after 40 further draws on average
    at_once = make(tmp_path / "none", **options)
    feed(at_once, [1])
    at_once.sample(1, 1)
    feed(at_once, [1] * 60, first=1)
    assert origins(at_once.sample(1, 1))[0][0] > 0


def test_every_draw_leaves_the_buffer_once(tmp_path):
    """Nothing is lost and nothing doubled: with 10 episodes of one row in permutations, 1000 chunks are 100 of each,
    up to what still waits."""
    replay = make(tmp_path, shuffle_chunks=13, prefetch_chunks=3, chunks_per_refresh=10)
    feed(replay, [1] * 10)
    counts = Counter(episode for episode, _ in origins(replay.sample(1000, 1)))
    assert sum(counts.values()) == 1000
    assert all(100 - 3 <= counts[episode] <= 100 + 3 for episode in range(10))


def test_recent_limits_the_new_ones(tmp_path):
    replay = make(tmp_path, older=500, recent=2, chunks_per_refresh=50)
    feed(replay, [4] * 9)
    assert len({episode for episode, _ in origins(replay.sample(50, 4))}) == 2
    assert len({episode for episode, _ in origins(replay.sample(50, 4))}) == 9  # all are older ones now


def test_short_episodes_are_passed_over_and_a_pool_of_short_ones_is_renewed(tmp_path):
    replay = make(tmp_path, older=2, recent=2, chunks_per_refresh=100)
    feed(replay, [3, 9, 3, 9, 3])
    replay.sample(4, 2)  # a pool for length 2, maybe of short episodes only
    assert {episode for episode, _ in origins(replay.sample(20, 9))} <= {1, 3}


def test_the_longest_episode_decides_what_can_be_asked(tmp_path):
    replay = make(tmp_path)
    feed(replay, [5, 7], stop=6)  # the second one still runs
    with pytest.raises(UserError, match=r"batch length 6 .*\(5 rows\).*lower the batch length"):
        replay.sample(1, 6)
    with pytest.raises(UserError, match="batch length 0"):
        replay.sample(1, 0)
    check_chunks(replay.sample(4, 5), {0: 5}, 5)


def test_without_a_complete_episode_more_random_data_is_asked_for(tmp_path):
    replay = make(tmp_path)
    with pytest.raises(UserError, match=r"no complete episode.*has 0 rows: raise schedule\.prefill_env_steps"):
        replay.sample(1, 3)
    feed(replay, [7], stop=4)
    with pytest.raises(UserError, match=r"no complete episode.*has 4 rows: raise schedule\.prefill_env_steps"):
        replay.sample(1, 3)
    with pytest.raises(UserError, match="batch length 0"):
        replay.sample(1, 0)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("older", 0, 1), ("recent", -1, 0), ("chunks_per_refresh", 0, 1), ("least_rows", 0, 1)],
)
def test_impossible_pools_are_refused(tmp_path, name, value, least):
    with pytest.raises(UserError, match=f"{name} is {value}, expected at least {least}"):
        make(tmp_path, **{name: value})


def test_without_recent_ones_a_new_episode_is_drawn_like_any_other(tmp_path):
    """Three of ten a look, whether or not they are new: Dreamer's loader. All are seen, none more often."""
    replay = make(tmp_path, older=3, recent=0, chunks_per_refresh=3)
    feed(replay, [4] * 5)
    replay.sample(3, 4)
    feed(replay, [4] * 5, first=5)
    looks = [[episode for episode, _ in origins(replay.sample(3, 4))] for _ in range(1000)]
    assert all(len(set(look)) == 3 for look in looks)
    counts = Counter(episode for look in looks for episode in look)
    assert sorted(counts) == list(range(10))
    assert max(abs(count - 300) for count in counts.values()) < 5 * np.sqrt(1000 * 0.3 * 0.7)


def test_draws_with_replacement_are_independent(tmp_path):
    """Dreamer's TensorFlow 2 loader: the next episode is each with the same probability, the last one included."""
    replay = make(tmp_path, recent=0, replacement=True, chunks_per_refresh=100)
    feed(replay, [1] * 5)
    drawn = [episode for episode, _ in origins(replay.sample(5000, 1))]
    pairs = Counter(zip(drawn[:-1:2], drawn[1::2], strict=True))
    assert len(pairs) == 25 and stats.chisquare(list(pairs.values())).pvalue > 0.01


def test_with_replacement_new_episodes_wait_for_the_refresh(tmp_path):
    replay = make(tmp_path, recent=0, replacement=True, chunks_per_refresh=100)
    feed(replay, [1])
    replay.sample(1, 1)
    feed(replay, [1] * 60, first=1)
    drawn = [episode for episode, _ in origins(replay.sample(150, 1))]
    assert drawn[:99] == [0] * 99 and drawn[99:].count(0) < 10


def test_chunks_that_spare_the_end(tmp_path):
    """Five of twelve rows begin at 0 .. 6 and never reach row 11; an episode of five rows has no such chunk."""
    replay = make(tmp_path, ends="excluded")
    feed(replay, [5])
    with pytest.raises(UserError, match=r"batch length 5 exceeds .*\(4 rows, its last one spared\)"):
        replay.sample(1, 5)
    feed(replay, [12], first=1)
    counts = Counter(origins(replay.sample(7000, 5)))
    assert sorted(counts) == [(1, first) for first in range(7)]
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


# ----------------------------------------------------------------------------------------------------- DreamerV2

UNIFORM = {"older": None, "recent": 0, "chunks_per_refresh": 1}


def test_every_live_episode_is_drawn_alike_whatever_its_length_and_at_once(tmp_path):
    """Lengths 3 to 40; the oldest has gone (57 of 58 rows may stay), the newest is there with the next draw."""
    replay = make(tmp_path, **UNIFORM, capacity_rows=57)
    feed(replay, [3, 40, 5, 3, 7])
    assert replay.episodes == 4
    drawn = [episode for episode, _ in origins(replay.sample(8000, 3))]
    pairs = Counter(zip(drawn[:-1:2], drawn[1::2], strict=True))
    assert {episode for pair in pairs for episode in pair} == {1, 2, 3, 4}
    assert len(pairs) == 16 and stats.chisquare(list(pairs.values())).pvalue > 0.01
    feed(replay, [3], first=5)
    assert 5 in {episode for episode, _ in origins(replay.sample(40, 3))}


def test_uniform_draws_pass_over_what_is_too_short(tmp_path):
    replay = make(tmp_path, **UNIFORM)
    feed(replay, [4, 9, 4, 8])
    assert {episode for episode, _ in origins(replay.sample(100, 8))} == {1, 3}


@pytest.mark.parametrize(("how", "last"), [("clipped", 5 / 12), ("slack", 6 / 13)])
def test_the_last_chunk_is_likelier(tmp_path, how, last):
    """Five of twelve rows: 0 .. 11 (or 12) is drawn and brought down to 7, so 7 stands for five (or six) of them."""
    replay = make(tmp_path, **UNIFORM, prioritise_ends=how)
    feed(replay, [12])
    counts = Counter(first for _, first in origins(replay.sample(9000, 5)))
    assert sorted(counts) == list(range(8))
    expected = [9000 * (1 - last) / 7] * 7 + [9000 * last]
    assert stats.chisquare([counts[first] for first in range(8)], expected).pvalue > 0.01


def test_an_episode_as_long_as_a_chunk_has_one_first_row(tmp_path):
    for how in ("none", "clipped", "slack"):
        replay = make(tmp_path / how, **UNIFORM, prioritise_ends=how)
        feed(replay, [5])
        assert set(origins(replay.sample(50, 5))) == {(0, 0)}


def test_short_episodes_are_not_kept(tmp_path):
    replay = make(tmp_path, **UNIFORM, least_rows=4)
    feed(replay, [3, 4, 1, 5])
    assert (replay.episodes, replay.rows) == (2, 9)
    assert {episode for episode, _ in origins(replay.sample(60, 2))} == {1, 3}


# ---------------------------------------------------------------------------------------------- seeds and memory


def test_numbers_depend_on_the_seed_and_not_on_memory(tmp_path):
    def draws(name: str, **options) -> list[dict[str, np.ndarray]]:
        replay, batches = make(tmp_path / name, **options), []
        for start in range(0, 20, 5):
            feed(replay, [4, 9, 6, 7, 5], first=start)
            batches += [replay.sample(6, 4) for _ in range(3)]
        return batches

    reference = draws("all")
    for memory_rows in (0, 8, 40):
        for left, right in zip(reference, draws(f"memory_{memory_rows}", memory_rows=memory_rows), strict=True):
            assert_same(left, right)
    other = draws("seed", seed=1)
    assert any(not np.array_equal(a["reward"], b["reward"]) for a, b in zip(reference, other, strict=True))


def test_memory_holds_the_last_used_episodes_within_its_rows(tmp_path):
    replay = make(tmp_path, memory_rows=20)
    feed(replay, [6] * 8)
    for _ in range(10):
        replay.sample(5, 6)
        assert replay._memory.rows == 18 == rows_in_memory(replay)


def test_memory_lets_go_of_evicted_and_of_abandoned_episodes(tmp_path):
    replay = make(tmp_path, capacity_rows=12)
    feed(replay, [6] * 4)
    assert replay._memory.rows == 12 == rows_in_memory(replay)
    replay.load(replay.save())
    assert replay._memory.rows == 0 == rows_in_memory(replay)
    replay.sample(5, 6)
    assert replay._memory.rows == 12 == rows_in_memory(replay)


def rows_in_memory(replay: Replay) -> int:
    return sum(len(episode["reward"]) for episode in replay._memory._episodes.values())


# ---------------------------------------------------------------------------------------------- save and load


def through_a_file(folder: Path, state: dict) -> dict:
    save_tree(folder / "state.h5", state)
    return load_tree(folder / "state.h5")


@pytest.mark.parametrize("drawn", [0, 1, 7, 24, 25, 26])  # before, within and at the end of a pool of 25 chunks
@pytest.mark.parametrize("memory_rows", [0, 10**6])
@pytest.mark.parametrize(
    "delay",
    [
        {},
        {"pool": 4, "shuffle_chunks": 12, "prefetch_chunks": 5},
        {"recent": 0, "replacement": True, "ends": "excluded", "prefetch_chunks": 5},
        {"older": None, "prioritise_ends": "slack", "least_rows": 5},
    ],
)
def test_save_load_continue_equals_continue(tmp_path, drawn, memory_rows, delay):
    options = {"older": 3, "recent": 4, "chunks_per_refresh": 25, "memory_rows": memory_rows, **delay}
    replay = make(tmp_path / "replay", **options)
    feed(replay, [5, 6, 7, 8], stop=3)
    if drawn:
        replay.sample(drawn, 4)
    state = through_a_file(tmp_path, replay.save())

    def go_on(replay: Replay) -> list[dict[str, np.ndarray]]:
        batches = [replay.sample(3, 4)]
        for index in range(3, 8):  # the running episode ends
            replay.append(stack([row(3, index, 8)]))
        batches += [replay.sample(9, 4) for _ in range(5)]
        feed(replay, [4, 5], first=4)
        return [*batches, *(replay.sample(9, 4) for _ in range(5))]

    expected = go_on(replay)
    resumed = make(tmp_path / "replay", seed=99, **options | {"memory_rows": 12})
    resumed.load(state)
    for left, right in zip(expected, go_on(resumed), strict=True):
        assert_same(left, right)


def test_a_saved_state_does_not_change_when_the_memory_does(tmp_path):
    replay = make(tmp_path)
    feed(replay, [4, 5], stop=2)
    replay.sample(1, 3)
    state = replay.save()
    before = tree_image(state)
    replay.append(stack([row(1, 2, 5)]))
    replay.sample(5, 3)
    assert tree_image(state) == before != tree_image(replay.save())


@pytest.mark.property("R1")
def test_nothing_newer_than_the_state_comes_back(tmp_path):
    replay = make(tmp_path / "replay", chunks_per_refresh=5)
    feed(replay, [5] * 3)
    state = replay.save()
    feed(replay, [5] * 4, first=3)
    replay.load(state)  # the same object: its RAM knows episodes 3 to 6
    assert len(list((tmp_path / "replay").iterdir())) == 3
    assert {episode for episode, _ in origins(replay.sample(60, 5))} == {0, 1, 2}
    feed(replay, [5] * 4, first=3, life=1)  # other episodes take the numbers 3 to 6
    for _ in range(20):
        batch = replay.sample(7, 5)
        new = batch["reward"][:, 0] >= 100_000
        assert np.array_equal(batch["image"][new][..., 0], np.ones_like(batch["image"][new][..., 0]))
        assert all(episode < 3 for episode, _ in np.array(origins(batch))[~new])


def test_leftovers_of_a_killed_writer_go_at_load(tmp_path):
    replay = make(tmp_path)
    feed(replay, [5])
    state = replay.save()
    (tmp_path / "episode_00000001.h5.tmp").write_bytes(b"part of an episode")
    replay.load(state)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_00000000.h5"]


def test_a_run_without_checkpoint_starts_in_an_empty_folder(tmp_path):
    feed(make(tmp_path), [5] * 4, life=1)
    replay = make(tmp_path)
    feed(replay, [6])
    assert [path.name for path in tmp_path.iterdir()] == ["episode_00000000.h5"]
    check_chunks(replay.sample(5, 6), {0: 6}, 6)


def test_a_state_before_the_first_row_can_be_loaded(tmp_path):
    replay = make(tmp_path / "replay")
    state = through_a_file(tmp_path, replay.save())
    feed(replay, [5, 6])
    replay.load(state)
    assert (replay.episodes, replay.rows, list((tmp_path / "replay").iterdir())) == (0, 0, [])
    feed(replay, [5])
    check_chunks(replay.sample(2, 5), {0: 5}, 5)


@pytest.mark.parametrize("damage", ["missing", "truncated", "one bit"])
def test_a_bad_file_is_named_and_an_older_state_still_loads(tmp_path, damage):
    replay = make(tmp_path)
    feed(replay, [5, 5])
    older = replay.save()
    feed(replay, [5, 5], first=2)
    newer = replay.save()
    feed(replay, [5], first=4)
    path = tmp_path / "episode_00000003.h5"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-9] if damage == "truncated" else data)
    resumed = make(tmp_path)
    with pytest.raises(UserError, match=r"episode_00000003\.h5"):
        resumed.load(newer)
    assert (tmp_path / "episode_00000004.h5").exists()  # nothing is deleted by a load that fails
    resumed.load(older)
    assert {path.name for path in tmp_path.iterdir()} == {"episode_00000000.h5", "episode_00000001.h5"}
    check_chunks(resumed.sample(6, 4), {0: 5, 1: 5}, 4)


def test_a_state_of_other_columns_is_refused(tmp_path):
    replay = make(tmp_path)
    feed(replay, [5])
    other = Replay(
        tmp_path,
        {"image": ArraySpec((4, 4, 3), "uint8")},
        ACT,
        seed=np.random.SeedSequence(0),
        older=1,
        recent=1,
        chunks_per_refresh=1,
        capacity_rows=None,
        memory_rows=0,
    )
    with pytest.raises(UserError, match=r"holds columns .*expected"):
        other.load(replay.save())


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=2, max_size=12),
    cut=st.integers(0, 60),
    capacity=st.none() | st.just(15),
)
def test_a_run_cut_at_any_row_goes_on_as_if_it_had_not_been(lengths, cut, capacity):
    """State at row `cut`, then the run goes on for a while and dies; the next one starts from the state."""
    rows = [row(episode, index, length) for episode, length in enumerate(lengths) for index in range(length)]
    cut = min(cut, len(rows))
    options = {"older": 2, "recent": 2, "chunks_per_refresh": 3, "capacity_rows": capacity, "memory_rows": 10}

    def play(replay: Replay, part: list) -> list[dict[str, np.ndarray]]:
        batches = []
        for one in part:
            replay.append(stack([one]))
            if replay.episodes:
                batches.append(replay.sample(2, 1))
        return batches

    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder, "replay"), **options)
        play(replay, rows[:cut])
        state = through_a_file(Path(folder), replay.save())
        expected = play(replay, rows[cut:])
        resumed = make(Path(folder, "replay"), **options)
        resumed.load(state)
        for left, right in zip(expected, play(resumed, rows[cut:]), strict=True):
            assert_same(left, right)


# ---------------------------------------------------------------------------------------------- eviction and disk


def files(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("episode_")) for path in folder.glob("*.h5"))


def test_the_oldest_go_first_and_their_files_wait_for_forget(tmp_path):
    replay = make(tmp_path, capacity_rows=12, memory_rows=0)
    feed(replay, [4] * 3)
    older = replay.save()
    feed(replay, [4] * 2, first=3)
    assert (replay.episodes, replay.rows) == (3, 12)
    check_chunks(replay.sample(30, 4), {2: 4, 3: 4, 4: 4}, 4)
    replay.forget(older)
    assert files(tmp_path) == [0, 1, 2, 3, 4]  # the older checkpoint needs 0 and 1
    newer = replay.save()
    replay.forget(newer)
    assert files(tmp_path) == [2, 3, 4]
    replay.load(newer)
    check_chunks(replay.sample(30, 4), {2: 4, 3: 4, 4: 4}, 4)


def test_an_evicted_episode_is_back_after_loading_an_older_state(tmp_path):
    replay = make(tmp_path, capacity_rows=8)
    feed(replay, [4] * 2)
    state = replay.save()
    expected = replay.sample(8, 4)
    feed(replay, [4] * 2, first=2)
    replay.load(state)
    assert_same(expected, replay.sample(8, 4))


def test_the_newest_episode_stays_even_beyond_capacity(tmp_path):
    replay = make(tmp_path, capacity_rows=5)
    feed(replay, [4, 9])
    assert (replay.episodes, replay.rows) == (1, 9)
    check_chunks(replay.sample(3, 9), {1: 9}, 9)


def test_a_pool_of_evicted_episodes_is_renewed(tmp_path):
    replay = make(tmp_path, capacity_rows=8, chunks_per_refresh=1000)
    feed(replay, [4] * 2)
    replay.sample(1, 4)
    feed(replay, [4] * 2, first=2)
    check_chunks(replay.sample(9, 4), {2: 4, 3: 4}, 4)


def test_a_full_disk_leaves_the_memory_as_it_was(tmp_path, monkeypatch):
    replay = make(tmp_path)
    feed(replay, [4])
    state = replay.save()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "replace", full)
        feed(replay, [4], first=1)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_00000000.h5"]
    assert (replay.episodes, replay.rows) == (1, 4)
    replay.load(state)
    feed(replay, [4], first=1)
    check_chunks(replay.sample(4, 4), {0: 4, 1: 4}, 4)


# ---------------------------------------------------------------------------------------------- the border


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop("reward"), r"missing columns \['reward'\]"),
        (lambda rows: rows.update(env_steps=np.zeros(1, np.int64)), r"unknown columns \['env_steps'\]"),
        (lambda rows: rows.update(image=rows["image"].astype(np.float32)), "image is float32.*expected uint8"),
        (lambda rows: rows.update(action=np.zeros((1, 3), np.float32)), r"action is float32 \(1, 3\)"),
        (lambda rows: rows.update(is_first=np.array([False])), "is_first False after 0 rows"),
    ],
)
def test_append_refuses_what_is_not_a_row(tmp_path, change, message):
    rows = stack([row(0, 0, 5)])
    change(rows)
    with pytest.raises(ValueError, match=message):
        make(tmp_path).append(rows)


def test_append_refuses_a_second_first_row_and_another_number_of_environments(tmp_path):
    replay = make(tmp_path)
    replay.append(stack([row(0, 0, 5)]))
    with pytest.raises(ValueError, match="is_first True after 1 rows"):
        replay.append(stack([row(0, 0, 5)]))
    with pytest.raises(ValueError, match="2 environments, expected 1"):
        replay.append(stack([row(0, 1, 5)] * 2))
