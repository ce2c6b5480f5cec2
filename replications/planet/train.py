"""Train one PlaNet agent: composition of the parts and the command line, nothing else.

    FOLDER=results/smoke/planet/torch/rssm/cartpole_swingup
    python -m replications.planet.train --config $FOLDER/config.yaml --task cartpole_swingup --framework torch \\
        --seed 0 --out $FOLDER/seed_0.h5

The config is a resolved one (shared/config.py); the workflow writes it. Read agent_torch.py for what is trained.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

from replications.planet import simulator
from replications.planet.config import Config
from shared import config as configs
from shared import errors, launch, runner
from shared.config import ALL_TASKS
from shared.envs.joint import Joint, common_specs
from shared.envs.spec import Env
from shared.envs.suite import make_env
from shared.errors import UserError


def framework_module(framework: str):
    """The agent's module in one framework: the one place that names frameworks."""
    match framework:
        case "torch":
            from replications.planet import agent_torch as module
        case "jax":
            from replications.planet import agent_jax as module
        case _:
            raise UserError(
                f"--framework {framework!r}: PlaNet stands in torch and in jax; use one of them, or numpy for CEM on "
                "the true simulator"
            )
    return module


def tasks_of(config: Config, task: str) -> tuple[str, ...]:
    """The tasks of one run: its own, or all of them where one agent learns all.

    Raises:
      UserError: one of them has no action repeat.
    """
    known = config.environment.action_repeat
    tasks = config.environment.joint_tasks if task == ALL_TASKS else (task,)
    for one in tasks:
        if one not in known:
            raise UserError(
                f"task {one!r}: the config has no environment.action_repeat for it{configs.did_you_mean(one, known)}; "
                f"it has {', '.join(known)}, and {ALL_TASKS} for environment.joint_tasks. To train another, "
                "add it there with its action repeat"
            )
    return tasks


def check_rounds(config: Config, tasks: Sequence[str]) -> None:
    """Raise UserError where one agent's tasks would not all have had as many episodes at an evaluation."""
    if len(tasks) == 1:
        return
    once = len(tasks) * config.environment.time_limit_env_steps
    for name in ("prefill_env_steps", "evaluate_every_env_steps", "total_env_steps"):
        value = getattr(config.schedule, name)
        if value % once:
            raise UserError(
                f"schedule.{name} = {value}: with {len(tasks)} tasks in turn it must be a multiple of {once} env steps "
                f"(an episode of each), for example {max(once, value // once * once)}"
            )


def maker(config: Config, tasks: Sequence[str]) -> Callable[[], Env]:
    """What makes one environment of a run."""
    makes = {task: functools.partial(make_env, task, **config.environment.of_task(task)) for task in tasks}
    if len(tasks) == 1:
        return makes[tasks[0]]
    return functools.partial(Joint, list(makes.values()), common_specs(makes))


def make_parts(config: Config, options: argparse.Namespace) -> runner.Parts:
    """Environments, replay, agents, each with its own stream of the seed."""
    tasks = tasks_of(config, options.task)
    return launch.make_parts(
        config,
        options,
        framework_module(options.framework).PlanetAgent,
        maker(config, tasks),
        action_repeat=min(config.environment.action_repeat[task] for task in tasks),
        # leaving: the reward of a chunk's last row lies one row further
        batch_length=config.batch.length + (config.loss.alignment == "leaving"),
        evaluation_episodes=config.evaluation.episodes * len(tasks),  # of each task, one after the other
    )


def train(options: argparse.Namespace) -> None:
    """Check everything a person can get wrong, then run."""
    if options.framework == "numpy":
        simulator.play(options)  # on the CPU, whatever --device says
        return
    resolved = configs.read_resolved(options.config)
    if resolved["variant"].startswith(simulator.VARIANTS):
        raise UserError(
            f"{options.config}: variant {resolved['variant']!r} plans in the true simulator and learns nothing; use "
            f"--framework numpy instead of {options.framework}"
        )
    config = configs.build(Config, resolved["values"], where=str(options.config))
    check_rounds(config, tasks_of(config, options.task))
    options.device = framework_module(options.framework).prepare(options.device, options.threads)
    parts = functools.partial(make_parts, config, options)
    launch.run(options, resolved, config.schedule.total_env_steps, parts, ("mujoco", "dm_control"))


def parse(arguments: list[str]) -> argparse.Namespace:
    frameworks = "torch, jax, or numpy: CEM on the simulator"
    return launch.parse("planet", arguments, summary=__doc__.splitlines()[0], frameworks=frameworks)


@errors.cli
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    launch.limit_threads(options.threads)
    train(options)


if __name__ == "__main__":
    sys.exit(main())
