"""make_env: names, aliases, and messages for what a person can get wrong."""

import numpy as np
import pytest

from shared.envs.suite import TOYS, has_choices, make_env
from shared.errors import UserError

SIZES = {"size": 64, "camera": 0, "action_repeat": 4, "time_limit_env_steps": 1000}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cartpole_swingpu", "cartpole_swingup"),
        ("ball_in_cup", "ball_in_cup_catch"),
        ("cupcatch", "cup_catch"),
        ("cheetah-run", "cheetah_run"),
        ("point_mass_esy", "point_mass_easy"),
    ],
)
def test_an_unknown_task_is_answered_with_near_names(typed, meant, renderer):
    with pytest.raises(UserError, match=rf"unknown task '{typed}'; did you mean .*{meant}"):
        make_env(typed, **SIZES)


def test_an_unknown_toy_needs_no_renderer_to_be_told(python):
    code = f"from shared.envs.suite import make_env; make_env('toy_raech', **{SIZES})"
    answer = python(code, MUJOCO_GL="off")
    assert "unknown task 'toy_raech'; did you mean toy_reach, toy_catch?" in answer.stderr


@pytest.mark.parametrize("typed", ["crafter", "crafter_rewrad", "crafter_noreward"])
def test_an_unknown_task_of_crafter_needs_no_renderer_and_no_dm_control(typed, python):
    code = (
        "import sys; from shared.envs.suite import make_env\n"
        f"try: make_env('{typed}', **{SIZES})\n"
        "finally: print('dm_control' in sys.modules)"
    )
    answer = python(code, MUJOCO_GL="off")
    assert f"unknown task '{typed}'; did you mean crafter_reward?" in answer.stderr and answer.stdout == "False\n"


def test_a_name_like_no_other_is_still_told_how_names_look(renderer):
    with pytest.raises(UserError, match="nothing has a similar name.*walker_walk"):
        make_env("qqqqqq", **SIZES)


def test_cup_catch_is_ball_in_cup_catch(renderer):
    seed = np.random.SeedSequence(0)
    images = []
    for task in ("cup_catch", "ball_in_cup_catch"):
        env = make_env(task, **SIZES, shadow_size=64)
        images.append(env.reset(seed)["image"])
        env.close()
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("name", ["size", "action_repeat", "shadow_size"])
def test_sizes_below_one_are_refused_by_name(name):
    with pytest.raises(UserError, match=f"{name} 0 for task 'toy_reach' must be at least 1"):
        make_env("toy_reach", **{**SIZES, name: 0})


def test_an_episode_shorter_than_one_decision_is_refused():
    with pytest.raises(UserError, match="time_limit_env_steps 3 is shorter than one decision"):
        make_env("toy_reach", **{**SIZES, "time_limit_env_steps": 3})


def test_a_toy_imports_no_simulator(python):
    code = (
        "import sys; from shared.envs.suite import make_env;"
        f"make_env('toy_reach', **{SIZES});"
        "print([name for name in ('dm_control', 'mujoco', 'OpenGL', 'torch', 'jax') if name in sys.modules])"
    )
    assert python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("task", TOYS)
def test_what_has_choices_is_what_the_environment_says(task):
    assert has_choices(task) == make_env(task, **SIZES).act_spec.discrete


def test_games_and_crafter_have_choices_and_control_tasks_have_not():
    assert has_choices("atari_pong") and has_choices("crafter_reward") and not has_choices("walker_walk")
