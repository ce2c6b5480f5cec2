"""The one way to make an environment: make_env(task name, sizes). Importing this file imports no simulator.

toy_* are the small tasks of toy.py and catch.py, atari_* are games (atari.py), crafter_reward is Crafter (crafter.py);
every other name is domain_task of dm_control's suite (dmc.py), or PlaNet's cup_catch. Read next: spec.py for the rows,
vector.py for several environments at once.
"""

import difflib
from typing import Literal

from shared.envs import atari, catch, crafter, dmc, toy
from shared.envs.spec import Env
from shared.errors import UserError

TOYS = (*toy.TASKS, catch.TASK)


def make_env(
    task: str,
    *,
    size: int,
    camera: int,
    action_repeat: int,
    time_limit_env_steps: int,
    shadow_size: int | None = None,
    pipeline: atari.Pipeline | None = None,
    observations: Literal["image", "vectors"] = "image",
) -> Env:
    """One environment of this task; the arguments are those of dmc.DMC, and the pipeline of atari.Atari.

    The toy tasks, games and Crafter have no camera and cast no shadow: they ignore `camera` and `shadow_size`. Only
    games have a pipeline, and they need one. With vectors (dmc.Vectors) no picture is drawn; games, Crafter and Catch
    show images all the same.
    Raises:
      UserError: unknown task, impossible size, no OpenGL library, or no package crafter; says what to do.
    """
    _check_sizes(task, size, action_repeat, time_limit_env_steps, shadow_size)
    check_task(task, drawn=observations == "image")
    common = {"size": size, "action_repeat": action_repeat, "time_limit_env_steps": time_limit_env_steps}
    if task == catch.TASK:
        return catch.Catch(task, **common)
    if is_crafter(task):
        return crafter.Crafter(task, **common)
    if task in toy.TASKS:
        return toy.Toy(task, vectors=observations == "vectors", **common)
    if not is_game(task) and observations == "vectors":
        limits = {"action_repeat": action_repeat, "time_limit_env_steps": time_limit_env_steps}
        return dmc.Vectors(task, **limits)
    if not is_game(task):
        return dmc.DMC(task, camera=camera, shadow_size=shadow_size, **common)
    if pipeline is None:
        raise UserError(f"task {task!r} is a game, and games need an Atari pipeline; take a task such as walker_walk")
    return atari.Atari(task, pipeline=pipeline, **common)


def is_game(task: str) -> bool:
    """Whether a task's name is that of a game, which has discrete actions and an Atari pipeline."""
    return task.startswith(atari.PREFIX)


def is_crafter(task: str) -> bool:
    """Whether a task is Crafter, which shows images, has 17 actions and ends with a death."""
    return task == crafter.TASK


def has_choices(task: str) -> bool:
    """Whether a task's actions are one of several (one-hot), not a vector of numbers: games, Crafter and Catch."""
    return is_game(task) or is_crafter(task) or task == catch.TASK


def may_end(task: str) -> bool:
    """Whether an episode may end before its time limit: control tasks never do."""
    return is_game(task) or is_crafter(task) or task in TOYS


def libraries(task: str) -> tuple[str, ...]:
    """The distributions that move and draw the task's world."""
    if task in TOYS:
        return ()
    if is_crafter(task):
        return ("crafter", "opensimplex", "pillow")  # rules; landscape; textures and the dark
    return ("ale-py", "pillow") if is_game(task) else ("mujoco", "dm_control")


def check_task(task: str, *, drawn: bool = True) -> None:
    """Raise UserError for a task that does not exist; only the simulator that its name points to is imported.

    drawn: whether dm_control is to draw it, and must be able to.
    """
    if task in TOYS or is_crafter(task) or (is_game(task) and atari.find(task) is not None):
        return
    known = atari.tasks() if is_game(task) else {}
    if not is_game(task) and not task.startswith(("toy_", "crafter")):
        known = {**dmc.tasks(drawn=drawn), **dmc.ALIASES}
    if task not in known:
        raise UserError(_unknown(task, [*known, *TOYS, crafter.TASK]))


def _check_sizes(task: str, size: int, action_repeat: int, time_limit_env_steps: int, shadow_size: int | None) -> None:
    for name, value in (("size", size), ("action_repeat", action_repeat), ("shadow_size", shadow_size)):
        if value is not None and value < 1:
            raise UserError(f"make_env: {name} {value} for task {task!r} must be at least 1")
    if time_limit_env_steps < action_repeat:
        raise UserError(
            f"make_env: time_limit_env_steps {time_limit_env_steps} is shorter than one decision of task {task!r}"
            f" (action_repeat {action_repeat}); raise it or lower the repeat"
        )


def _unknown(task: str, known: list[str]) -> str:
    near = difflib.get_close_matches(task, known, n=5, cutoff=0.6)
    meant = f"did you mean {', '.join(near)}?" if near else "nothing has a similar name."
    return (
        f"unknown task {task!r}; {meant} Tasks are named domain_task as in dm_control (walker_walk), or atari_pong, "
        "crafter_reward or toy_reach."
    )
