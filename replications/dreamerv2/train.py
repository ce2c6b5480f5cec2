"""Train one DreamerV2 agent: composition of the parts and the command line, nothing else.

    FOLDER=results/smoke/dreamerv2/torch/dreamerv2/atari_pong
    python -m replications.dreamerv2.train --config $FOLDER/config.yaml --task atari_pong --framework torch \\
        --seed 0 --out $FOLDER/seed_0.h5

The config is a resolved one (shared/config.py); the workflow writes it. Read agent_torch.py for what is trained.
"""

import argparse
import functools
import sys
from collections.abc import Callable

from replications.dreamerv2.config import Config, Environment
from shared import config as configs
from shared import errors, launch, runner
from shared.envs import atari
from shared.envs.spec import Env
from shared.envs.suite import check_task, has_choices, libraries, may_end
from shared.errors import UserError


def framework_module(framework: str):
    """The agent's module in one framework: the one place that names frameworks."""
    match framework:
        case "torch":
            from replications.dreamerv2 import agent_torch as module
        case "jax":
            from replications.dreamerv2 import agent_jax as module
        case _:
            raise UserError(f"--framework {framework!r}: DreamerV2 stands in torch and in jax; use one of them")
    return module


def maker(environment: Environment, task: str, *, training: bool) -> Callable[[], Env]:
    """What makes one environment of a run: to learn in, or to evaluate in."""
    return launch.maker(environment, task, pipeline(environment, training=training))


def pipeline(environment: Environment, *, training: bool) -> atari.Pipeline:
    """The frames of a game as DreamerV2 sees them (common/envs.py, class Atari, around gym's AtariPreprocessing)."""
    settings = environment.atari
    return atari.Pipeline(
        colours="grey" if settings.grayscale else "rgb",
        resize=settings.resize,
        max_pool=settings.max_pool,
        draw_end=False,  # code: a frame that ends a game is not looked at
        sticky=settings.sticky,
        full_actions=settings.full_action_space,
        noops=(min(1, settings.noop_max), settings.noop_max),
        life_loss_ends=training and settings.life_loss_ends_training,
        least_decisions=0,
        time_limit_is_terminal=False,  # code: a time-out is no end of the world
    )


def check(config: Config, task: str) -> None:
    """Refuse what a config that is whole in itself cannot do with a task."""
    check_task(task)
    if has_choices(task) and not config.model.discount_head:
        raise UserError(
            f"--task {task}: model.discount_head is false, as for control tasks, so imagination would not know that a "
            "game ends; take a variant for games such as dreamerv2, or a control task such as walker_walk"
        )
    if config.model.discount_head and not may_end(task):
        raise UserError(
            f"--task {task}: this config is for games (model.discount_head is true, episodes last up to "
            f"{config.environment.time_limit_env_steps:,} env steps), and a control task never ends before its time "
            "limit; take variant control, or a game such as atari_pong"
        )


def make_parts(config: Config, options: argparse.Namespace) -> runner.Parts:
    """Environments, replay, agents, each with its own stream of the seed."""
    return launch.make_parts(
        config,
        options,
        framework_module(options.framework).DreamerV2Agent,
        maker(config.environment, options.task, training=True),
        action_repeat=config.environment.action_repeat,
        evaluation_make=maker(config.environment, options.task, training=False),
    )


def train(options: argparse.Namespace) -> None:
    """Check everything a person can get wrong, then run."""
    resolved = configs.read_resolved(options.config)
    config = configs.build(Config, resolved["values"], where=str(options.config))
    check(config, options.task)
    options.device = framework_module(options.framework).prepare(options.device, options.threads)
    parts = functools.partial(make_parts, config, options)
    launch.run(options, resolved, config.schedule.total_env_steps, parts, libraries(options.task))


def parse(arguments: list[str]) -> argparse.Namespace:
    return launch.parse("dreamerv2", arguments, summary=__doc__.splitlines()[0], frameworks="torch or jax")


@errors.cli
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    launch.limit_threads(options.threads)
    train(options)


if __name__ == "__main__":
    sys.exit(main())
