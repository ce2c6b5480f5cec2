"""Atari: every frame of fixed action sequences against the emulator driven by hand, for each paper's pipeline.

The hand-written players below know the emulator and Pillow only, and follow the authors' code of their paper.
"""

import functools

import ale_py
import numpy as np
import pytest
from ale_py import roms
from ale_py._ale_py import ALEVectorInterface
from PIL import Image

from replications.dreamer import config as dreamer_config
from replications.dreamer import train as dreamer_train
from replications.dreamerv2 import config as dreamerv2_config
from replications.dreamerv2 import train as dreamerv2_train
from shared.config import ROOT, build, resolve
from shared.envs import atari
from shared.envs.atari import Atari, Pipeline
from shared.envs.spec import ROW_DTYPES
from shared.envs.suite import make_env
from shared.envs.vector import VectorEnv
from shared.errors import UserError
from workflows.scripts.plan import read_scale

COMMON = {"max_pool": True, "sticky": 0.25, "time_limit_is_terminal": False}
DREAMER = Pipeline(
    colours="rgb",
    resize="bilinear",
    draw_end=False,
    full_actions=False,
    noops=(1, 29),
    life_loss_ends=True,
    least_decisions=50,
    **COMMON,
)
DREAMERV2 = Pipeline(
    colours="grey",
    resize="area",
    draw_end=False,
    full_actions=True,
    noops=(1, 30),
    life_loss_ends=False,
    least_decisions=0,
    **COMMON,
)
DREAMERV3 = Pipeline(
    colours="grey_of_resized",
    resize="bilinear",
    draw_end=True,
    full_actions=True,
    noops=(0, 30),
    life_loss_ends=False,
    least_decisions=0,
    **{**COMMON, "time_limit_is_terminal": True},
)
SEED = np.random.SeedSequence(5, spawn_key=(2,))


PAPERS = {
    "dreamer": (DREAMER, dreamer_config.Config, dreamer_train.pipeline),
    "dreamerv2": (DREAMERV2, dreamerv2_config.Config, dreamerv2_train.pipeline),
}


def change(pipeline, **changes):
    return Pipeline(**{**vars(pipeline), **changes})


def make(game="pong", pipeline=DREAMER, *, size=64, decisions=27_000):
    return Atari(f"atari_{game}", size=size, action_repeat=4, time_limit_env_steps=4 * decisions, pipeline=pipeline)


def choices(count, actions, seed=0):
    return np.random.default_rng(seed).integers(actions, size=count)


def play(env, chosen, seed=SEED):
    """Rows until the episode or the choices end."""
    rows = [env.reset(seed)]
    for choice in chosen:
        if rows[-1]["is_last"]:
            break
        rows.append(env.step(np.eye(env.act_spec.size, dtype=np.float32)[choice]))
    return rows


def assert_same(rows, others):
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            assert row[key].dtype == other[key].dtype
            np.testing.assert_array_equal(row[key], other[key], err_msg=key)


# ------------------------------------------------------------------------------------------------ played by hand


def emulator(game, sticky, seed):
    """The game at its first frame, and the generator that draws the number of no-ops."""
    generator = np.random.Generator(np.random.PCG64(seed))
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("random_seed", int(generator.integers(2**31)))
    ale.loadROM(roms.get_rom_path(game))
    ale.reset_game()
    return ale, generator


def bilinear(frame, size):
    return np.array(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR))


def area(frame, size):
    """Every old pixel becomes 32 x 2 equal ones, of which 105 x 5 make a new one."""
    assert size == 64
    fine = np.repeat(np.repeat(frame, 32, 0), 2, 1)
    return np.rint(fine.reshape(64, 105, 64, 5, *frame.shape[2:]).mean((1, 3))).astype(np.uint8)


def by_hand_of_dreamer(game, chosen, *, grey=False, shrink=bilinear, most_noops=29, lives_count=True, full=False, seed):
    """(image, reward, done, frames) per row: two buffers by place in the repeat, their maximum kept in the first."""
    ale, generator = emulator(game, 0.25, seed)
    look = ale.getScreenGrayscale if grey else ale.getScreenRGB
    actions = ale.getLegalActionSet() if full else ale.getMinimalActionSet()
    for _ in range(generator.integers(1, most_noops + 1)):
        ale.act(0)
    buffers = [look(), np.zeros_like(look())]
    lives = ale.lives()
    rows = [(shrink(buffers[0], 64), 0.0, False, 0)]
    for choice in chosen:
        total, frames = 0.0, 0
        for frame in range(4):
            total += ale.act(actions[choice])
            frames += 1
            done = ale.game_over() or (lives_count and ale.lives() < lives)
            lives = ale.lives()
            if done:
                break
            if frame >= 2:
                buffers[frame - 2] = look()
        buffers[0] = np.maximum(buffers[0], buffers[1])
        rows.append((shrink(buffers[0], 64), total, done, frames))
        if done:
            break
    return rows


def by_hand_of_dreamerv3(game, chosen, *, seed):
    """The same for DreamerV3: a list of the frames looked at, newest first, also the last one of a game."""
    ale, generator = emulator(game, 0.25, seed)
    actions = ale.getLegalActionSet()
    for _ in range(generator.integers(0, 31)):
        ale.act(0)
    looked, rows = [ale.getScreenRGB()], []

    def image():
        small = bilinear(np.max(looked[:2], axis=0), 64)
        weights = 0.299, 0.587, 1 - (0.299 + 0.587)
        return sum(small[..., i] * weight for i, weight in enumerate(weights)).astype(np.uint8)

    rows.append((image(), 0.0, False, 0))
    for choice in chosen:
        total, frames = 0.0, 0
        while frames < 4 and not ale.game_over():
            total += ale.act(actions[choice])
            frames += 1
            if frames in (3, 4):
                looked.insert(0, ale.getScreenRGB())
        rows.append((image(), total, ale.game_over(), frames))
        if ale.game_over():
            break
    return rows


BY_HAND = {
    "dreamer": (DREAMER, by_hand_of_dreamer),
    "dreamerv2": (
        DREAMERV2,
        functools.partial(by_hand_of_dreamer, grey=True, shrink=area, most_noops=30, lives_count=False, full=True),
    ),
    "dreamerv3": (DREAMERV3, by_hand_of_dreamerv3),
}


def check(paper, game, decisions, number):
    """Play one episode both ways; the rows, once they are the same."""
    pipeline, by_hand = BY_HAND[paper]
    env, seed = make(game, change(pipeline, least_decisions=0)), np.random.SeedSequence(number)
    chosen = choices(decisions, env.act_spec.size, seed=number)
    rows, expected = play(env, chosen, seed), by_hand(game, chosen, seed=seed)
    assert len(rows) == len(expected)
    for row, (image, reward, done, frames) in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row["image"].squeeze(), image)
        assert (row["reward"], row["is_last"], row["is_terminal"]) == (reward, done, done)
        assert row["env_steps"] == frames
    return rows


@pytest.mark.parametrize("paper", BY_HAND)
@pytest.mark.parametrize(("game", "decisions"), [("pong", 60), ("breakout", 600)])
def test_every_frame_is_that_of_the_emulator_played_by_hand(paper, game, decisions):
    for number in range(2):
        assert check(paper, game, decisions, number)[-1]["is_last"] == (game == "breakout")


def test_every_frame_where_an_end_cuts_a_repeat_short_in_every_way():
    episodes = [
        check("dreamer", game, 300, n) for game, n in (("demon_attack", 0), ("demon_attack", 2), ("assault", 0))
    ]
    episodes.append(check("dreamer", "demon_attack", 300, 3))
    assert all(rows[-1]["is_last"] for rows in episodes)
    assert {int(rows[-1]["env_steps"]) for rows in episodes} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("paper", "variant"), [("dreamer", "atari"), ("dreamer", "atari-straight"), ("dreamerv2", "dreamerv2")]
)
def test_the_pipelines_held_here_are_those_that_train_at_scale_paper(paper, variant):
    expected, config_class, pipeline = PAPERS[paper]
    scale = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
    values = resolve(paper, variant, scale)["values"]
    environment = build(config_class, values, where=f"{paper}, {variant}").environment
    assert pipeline(environment, training=True) == expected
    assert (environment.action_repeat, environment.time_limit_env_steps) == (4, 4 * 27_000)


# ------------------------------------------------------------------------------------------------ ale-py's own vector


def of_vector(seed, chosen, *, colour=False):
    """Images and rewards of ale-py's vector environment, without no-ops, with the same emulator seed."""
    own = np.random.Generator(np.random.PCG64(seed)).integers(2**31)
    settings = {"frame_skip": 4, "stack_num": 1, "img_height": 64, "img_width": 64, "grayscale": not colour}
    settings |= {"maxpool": True, "noop_max": 0, "use_fire_reset": False, "reward_clipping": False}
    settings |= {"repeat_action_probability": 0.25, "full_action_space": True, "num_threads": 1}
    envs = ALEVectorInterface(roms.get_rom_path("breakout"), 1, **settings)
    images, rewards, over = [envs.reset([0], [int(own)])[0][0, 0]], [0.0], False
    for choice in chosen:
        envs.send(np.array([choice], np.int32), np.ones(1, np.float32))
        image, reward, terminal, *_ = envs.recv()
        images.append(image[0, 0])
        rewards.append(float(reward[0]))
        over = bool(terminal[0])
        if over:
            break
    return images, rewards, over


def test_ale_vector_environment_gives_the_same_grey_frames_until_a_game_ends_and_then_others():
    """So it could play DreamerV2's episodes but for their last image."""
    env, seed = make("breakout", change(DREAMERV2, noops=(0, 0))), np.random.SeedSequence(1)
    chosen = choices(700, 18, seed=1)
    rows = play(env, chosen, seed)
    images, rewards, over = of_vector(seed, chosen)
    assert over and len(rows) == len(images) and rows[-1]["is_terminal"]
    np.testing.assert_array_equal([float(row["reward"]) for row in rows], rewards)
    same = [np.array_equal(row["image"][..., 0], image) for row, image in zip(rows, images, strict=True)]
    assert all(same[:-1]) and not same[-1]


def test_ale_vector_environment_is_not_used_because_its_frames_are_not_those_of_dreamer_and_dreamerv3():
    """It knows the area filter alone: Dreamer and DreamerV3 resize bilinearly."""
    chosen = choices(20, 18)
    rows = play(make("breakout", change(DREAMER, noops=(0, 0), full_actions=True)), chosen)
    images, rewards, _ = of_vector(SEED, chosen, colour=True)
    assert [float(row["reward"]) for row in rows] == rewards  # the same game
    assert all(not np.array_equal(row["image"], image) for row, image in zip(rows, images, strict=True))
    rows = play(make("breakout", change(DREAMERV3, noops=(0, 0))), chosen)
    images, rewards, _ = of_vector(SEED, chosen)
    assert [float(row["reward"]) for row in rows] == rewards
    assert all(not np.array_equal(row["image"][..., 0], image) for row, image in zip(rows, images, strict=True))


# ------------------------------------------------------------------------------------------------ rows and episodes


@pytest.mark.parametrize(("pipeline", "channels"), [(DREAMER, 3), (DREAMERV2, 1), (DREAMERV3, 1)])
def test_rows_obey_the_convention(pipeline, channels):
    env = make(pipeline=pipeline, decisions=5)
    rows = play(env, choices(9, env.act_spec.size))
    assert [bool(row["is_first"]) for row in rows] == [True] + [False] * 5
    assert [bool(row["is_last"]) for row in rows] == [False] * 5 + [True]
    assert [int(row["env_steps"]) for row in rows] == [0] + [4] * 5
    for row in rows:
        assert row["image"].shape == env.obs_spec["image"].shape == (64, 64, channels)
        assert row["image"].dtype == np.uint8
        assert {key: str(row[key].dtype) for key in ROW_DTYPES} == ROW_DTYPES
    with pytest.raises(ValueError, match="the episode is over; call reset first"):
        env.step(np.eye(env.act_spec.size)[0])


def test_a_time_limit_is_terminal_in_dreamerv3_alone():
    for pipeline, terminal in ((DREAMER, False), (DREAMERV2, False), (DREAMERV3, True)):
        assert play(make(pipeline=pipeline, decisions=3), [0, 1, 2])[-1]["is_terminal"] == terminal


@pytest.mark.property("D2")
@pytest.mark.parametrize("pipeline", [DREAMER, DREAMERV2, DREAMERV3])
def test_an_episode_is_a_function_of_its_seed_and_actions(pipeline):
    used, fresh = make(pipeline=pipeline), make(pipeline=pipeline)
    chosen = choices(40, used.act_spec.size)
    play(used, choices(25, used.act_spec.size, seed=1), np.random.SeedSequence(8))
    rows = play(fresh, chosen)
    assert_same(play(used, chosen), rows)
    assert_same([used.replay(SEED, np.eye(used.act_spec.size, dtype=np.float32)[chosen])], rows[-1:])
    assert_same([used.replay(SEED, np.zeros((0, used.act_spec.size), np.float32))], rows[:1])
    other = play(used, chosen, np.random.SeedSequence(8))
    assert any(not np.array_equal(a["image"], b["image"]) for a, b in zip(other, rows, strict=True))


def test_a_seed_decides_over_sticky_actions():
    pipeline = change(DREAMER, noops=(4, 4))
    chosen = choices(40, 6)
    sticky = [play(make(pipeline=pipeline), chosen, np.random.SeedSequence(k)) for k in range(2)]
    assert any(not np.array_equal(a["image"], b["image"]) for a, b in zip(*sticky, strict=True))
    obedient = change(pipeline, sticky=0.0)
    assert_same(*(play(make(pipeline=obedient), chosen, np.random.SeedSequence(k)) for k in range(2)))


def test_workers_and_a_loaded_state_give_the_same_rows():
    """In another process, and after a checkpoint; the pipeline travels with what makes the environment."""
    kind = functools.partial(
        make_env,
        "atari_breakout",
        size=64,
        camera=0,
        action_repeat=4,
        time_limit_env_steps=400,
        pipeline=change(DREAMER, least_decisions=10),
    )
    here, there = VectorEnv(kind, 2, SEED), VectorEnv(kind, 2, SEED, workers=1)
    steps = np.eye(4, dtype=np.float32)[np.random.default_rng(0).integers(4, size=(60, 2))]
    try:
        assert_same([here.reset()], [there.reset()])
        rows = [here.step(step) for step in steps]
        assert_same(rows, [there.step(step) for step in steps])
        assert any(row["is_last"].any() for row in rows[:-1])  # a second episode has begun
        assert_same([there.load(here.save())], rows[-1:])
        assert_same([here.step(steps[0])], [there.step(steps[0])])
    finally:
        here.close()
        there.close()


@pytest.mark.parametrize("noops", [(0, 0), (1, 29)])
def test_an_episode_opens_with_noops_that_are_not_counted(noops):
    env = make("pong", change(DREAMER, noops=noops, sticky=0.0))
    counts = set()
    for number in range(25):
        row = env.reset(np.random.SeedSequence(number))
        assert row["env_steps"] == 0
        counts.add(env._ale.getEpisodeFrameNumber())
    start = min(counts) - noops[0]
    assert len(counts) > 5 * noops[1] / 10 and max(counts) - start <= noops[1], counts


# ------------------------------------------------------------------------------------------------ ends


def test_a_lost_life_ends_training_and_nothing_else():
    chosen = choices(600, 4)
    training = play(make("breakout", change(DREAMER, least_decisions=0)), chosen)
    evaluation = play(make("breakout", change(DREAMER, least_decisions=0, life_loss_ends=False)), chosen)
    assert training[-1]["is_last"] and training[-1]["is_terminal"]
    assert evaluation[-1]["is_last"] and evaluation[-1]["is_terminal"] and len(evaluation) > 2 * len(training)
    assert_same(training[:-1], evaluation[: len(training) - 1])


def test_an_early_end_is_passed_over():
    chosen = choices(600, 4)
    soon = play(make("breakout", change(DREAMER, least_decisions=0)), chosen)
    lost = len(soon) - 1  # decisions until the first life is lost
    assert 0 < lost < 50
    late = play(make("breakout", DREAMER), chosen)
    assert len(late) - 1 >= 50 and late[-1]["is_terminal"] and not any(row["is_last"] for row in late[:-1])
    assert late[lost]["env_steps"] == soon[lost]["env_steps"]  # the life cut its decision short all the same
    np.testing.assert_array_equal(late[lost]["image"], soon[lost]["image"])


def test_an_early_game_over_is_passed_over_and_nothing_happens_until_it_counts():
    chosen = choices(900, 4)
    whole = change(DREAMER, life_loss_ends=False, least_decisions=0)
    over = len(play(make("breakout", whole), chosen)) - 1
    rows = play(make("breakout", change(whole, least_decisions=over + 5)), chosen)
    assert len(rows) == 1 + over + 5 and rows[-1]["is_terminal"] and not any(row["is_last"] for row in rows[:-1])
    assert all(row["reward"] == 0 and row["env_steps"] == 1 for row in rows[over + 1 :])
    assert_same(
        [{"image": row["image"]} for row in rows[over:-1]], [{"image": row["image"]} for row in rows[over + 1 :]]
    )


# ------------------------------------------------------------------------------------------------ parts and messages


def test_area_weights_by_hand():
    # 5 pixels onto 2: each new one covers 2.5 old ones, and the middle one goes half to each.
    np.testing.assert_allclose(atari.area_weights(5, 2), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]], rtol=1e-12)


def test_max_pool_shows_what_flickers():
    env, last = make(pipeline=DREAMER), make(pipeline=change(DREAMER, max_pool=False))
    chosen = choices(30, 6)
    pooled, single = (np.stack([row["image"] for row in play(one, chosen)]).astype(int) for one in (env, last))
    assert (pooled >= single - 1).all()  # Pillow rounds twice
    assert (pooled > single).any()


@pytest.mark.parametrize("action", [np.zeros(6), np.full(6, 1 / 6), [1, 1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0, 0]])
def test_an_action_that_is_not_one_hot_is_refused(action):
    env = make()
    env.reset(SEED)
    with pytest.raises(ValueError, match="'atari_pong': action .* is not one-hot"):
        env.step(np.asarray(action, np.float32))


def test_the_action_set_is_the_games_own_or_all_18():
    assert make().act_spec.size == 6 and make(pipeline=DREAMERV2).act_spec.size == 18
    assert make().act_spec.discrete


@pytest.mark.parametrize("task", ["atari_james_bond", "atari_jamesbond", "atari_mspacman", "atari_ms_pacman"])
def test_underscores_in_a_games_name_do_not_matter(task):
    assert atari.find(task) in ("jamesbond", "ms_pacman")


def test_an_unknown_game_is_answered_with_near_names():
    settings = {"size": 64, "camera": 0, "action_repeat": 4, "time_limit_env_steps": 400}
    with pytest.raises(UserError, match=r"unknown task 'atari_pnog'; did you mean .*atari_pong"):
        make_env("atari_pnog", **settings, pipeline=DREAMER)
    with pytest.raises(UserError, match="'atari_pong' is a game, and games need an Atari pipeline"):
        make_env("atari_pong", **settings)
    with pytest.raises(UserError, match="'pong' is no Atari game"):
        Atari("pong", size=64, action_repeat=4, time_limit_env_steps=400, pipeline=DREAMER)


def test_close_may_be_called_twice():
    env = make()
    env.reset(SEED)
    env.close()
    env.close()
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.eye(6, dtype=np.float32)[0])
