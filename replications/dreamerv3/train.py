"""Train one DreamerV3 agent: composition of the parts and the command line, nothing else.

    FOLDER=results/smoke/dreamerv3/torch/dreamerv3/walker_walk
    python -m replications.dreamerv3.train --config $FOLDER/config.yaml --task walker_walk --framework torch \\
        --seed 0 --out $FOLDER/seed_0.h5

The config is a resolved one (shared/config.py); the workflow writes it. Read objectives_torch.py for what is learned
and agent_torch.py for how.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from numpy.random import SeedSequence

from replications.dreamerv3.config import Config, Environment
from shared import config as configs
from shared import errors, launch, runner
from shared.envs import atari
from shared.envs.spec import Env
from shared.envs.suite import TOYS, check_task, is_crafter, is_game, libraries, may_end
from shared.envs.vector import VectorEnv
from shared.errors import UserError
from shared.replay.streams import StreamReplay
from shared.training.agent import Remembers
from shared.training.schedule import RatioPlan


def framework_module(framework: str):
    """The agent's module in one framework: the one place that names frameworks."""
    match framework:
        case "torch":
            from replications.dreamerv3 import agent_torch as module
        case "jax":
            from replications.dreamerv3 import agent_jax as module
        case _:
            raise UserError(f"--framework {framework!r}: DreamerV3 stands in torch and in jax; use one of them")
    return module


def maker(environment: Environment, task: str) -> Callable[[], Env]:
    """What makes one environment of a run: the same to learn in and to evaluate in."""
    return launch.maker(environment, task, pipeline(environment))


def pipeline(environment: Environment) -> atari.Pipeline:
    """The frames of a game as DreamerV3 sees them (embodied/envs/atari.py)."""
    settings = environment.atari
    return atari.Pipeline(
        colours="grey_of_resized" if settings.grayscale else "rgb",
        resize=settings.resize,
        max_pool=settings.max_pool,
        draw_end=True,  # code: a frame is looked at before the end of the game is
        sticky=settings.sticky,
        full_actions=settings.full_action_space,
        noops=(0, settings.noop_max),
        life_loss_ends=False,  # code: lives are not used
        least_decisions=0,
        time_limit_is_terminal=settings.time_limit_is_terminal,
    )


def check(config: Config, task: str, variant: str) -> None:
    """Refuse what a config that is whole in itself cannot do with a task, and a suite's settings for another's tasks.

    variant: its name, which tells the suite (experiments.yaml).
    """
    vectors = config.environment.observations == "vectors"
    check_task(task, drawn=not vectors)
    if is_game(task) and vectors:
        raise UserError(
            f"--task {task}: environment.observations is vectors, as for control, and a game shows images; take a "
            "variant for games such as atari100k, or a control task such as walker_walk"
        )
    if is_crafter(task) and vectors:
        raise UserError(
            f"--task {task}: environment.observations is vectors, as for control, and Crafter shows images; take "
            "variant crafter, or a control task such as walker_walk"
        )
    limit = f"episodes of up to {config.environment.time_limit_env_steps:,} env steps"
    if is_game(task) and variant.startswith("vision"):
        raise UserError(
            f"--task {task}: variant {variant} has the settings of control from pixels ({limit}, after which a game "
            "would count as lost); take atari or atari100k, or a control task such as walker_walk"
        )
    if variant.startswith("atari") and not may_end(task):
        raise UserError(
            f"--task {task}: variant {variant} has the settings of games ({limit}); take dreamerv3 or vision, or a "
            "game such as atari_pong"
        )
    if is_crafter(task) and variant.startswith(("vision", "atari")):
        raise UserError(
            f"--task {task}: variant {variant} has the settings of {'games' if variant[0] == 'a' else 'control'} "
            f"({limit}, action repeat {config.environment.action_repeat}); take variant crafter"
        )
    if variant.startswith("crafter") and not is_crafter(task) and task not in TOYS:
        raise UserError(
            f"--task {task}: variant {variant} has the settings of Crafter ({limit}, action repeat "
            f"{config.environment.action_repeat}); take dreamerv3 or vision for control, atari or atari100k for a "
            "game, or task crafter_reward"
        )
    rows = config.schedule.total_env_steps // config.environment.action_repeat
    if plan(config).first_update >= rows:
        raise UserError(
            f"schedule.total_env_steps ({config.schedule.total_env_steps:,}) are about {rows:,} rows, and the first "
            f"update comes after {plan(config).first_update:,}; lower schedule.fill_windows, environment.parallel or "
            "batch.length, or raise schedule.total_env_steps"
        )


def window(config: Config) -> int:
    """Rows of a window of replay: those that are learned from, and their context."""
    return config.batch.context + config.batch.length


def plan(config: Config) -> RatioPlan:
    """When a run learns."""
    return config.schedule.plan(
        config.environment.parallel,
        window=window(config),
        steps=config.batch.size * config.batch.length,
        random_fill=config.exploration.prefill == "random",
    )


def make_replay(config: Config, folder: Path, agent: Remembers, envs: VectorEnv, seed: SeedSequence) -> StreamReplay:
    """The replay memory of a run: one stream of rows per environment, memos of the agent beside them."""
    return StreamReplay(
        folder,
        envs.obs_spec,
        envs.act_spec,
        streams=envs.count,
        seed=seed,
        length=config.batch.length,
        context=config.batch.context,
        memo_spec=agent.memo_spec,
        **config.replay.model_dump(),
    )


def make_parts(config: Config, options: argparse.Namespace) -> runner.Parts:
    """Environments, replay, agents, each with its own stream of the seed."""
    return launch.make_parts(
        config,
        options,
        framework_module(options.framework).DreamerV3Agent,
        maker(config.environment, options.task),
        action_repeat=config.environment.action_repeat,
        parallel=config.environment.parallel,
        plan=plan(config),
        make_replay=functools.partial(make_replay, config),
    )


def train(options: argparse.Namespace) -> None:
    """Check everything a person can get wrong, then run."""
    resolved = configs.read_resolved(options.config)
    config = configs.build(Config, resolved["values"], where=str(options.config))
    check(config, options.task, resolved["variant"])
    options.device = framework_module(options.framework).prepare(options.device, options.threads)
    parts = functools.partial(make_parts, config, options)
    launch.run(options, resolved, config.schedule.total_env_steps, parts, libraries(options.task))


def parse(arguments: list[str]) -> argparse.Namespace:
    return launch.parse("dreamerv3", arguments, summary=__doc__.splitlines()[0], frameworks="torch or jax")


@errors.cli
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    launch.limit_threads(options.threads)
    train(options)


if __name__ == "__main__":
    sys.exit(main())
