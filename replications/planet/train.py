"""Train one PlaNet agent: composition of the parts and the command line, nothing else.

    FOLDER=results/smoke/planet/torch/rssm/cartpole_swingup
    python -m replications.planet.train --config $FOLDER/config.yaml --task cartpole_swingup --framework torch \\
        --seed 0 --out $FOLDER/seed_0.h5

The config is a resolved one (shared/config.py); the workflow writes it. Read agent_torch.py for what is trained.
"""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from numpy.random import SeedSequence

from replications.planet import simulator
from replications.planet.config import Config
from shared import claim, errors, provenance, runner
from shared import config as configs
from shared.config import ALL_TASKS, ROOT
from shared.envs.joint import Joint, common_specs
from shared.envs.spec import Env
from shared.envs.suite import make_env
from shared.envs.vector import VectorEnv
from shared.errors import UserError
from shared.replay.buffer import Replay
from shared.results import RunWriter
from shared.training.progress import Display
from shared.training.random_agent import RandomAgent

STREAMS = ("environment", "evaluation", "video", "replay", "agent", "prefill")


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


def code_paths(framework: str) -> list[Path]:
    """The code that decides a run's numbers: what draws figures, tests or writes results is left out."""
    device = f"device_{framework}.py"
    shared = ("config.py", "runner.py", "checkpoint.py", device, "formulas", "training", "envs", "replay")
    own = ("config.py", f"model_{framework}.py", f"agent_{framework}.py", "train.py")
    return [*(ROOT / "shared" / name for name in shared), *(ROOT / "replications" / "planet" / name for name in own)]


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
    seeds = dict(zip(STREAMS, SeedSequence(options.seed).spawn(len(STREAMS)), strict=True))
    tasks = tasks_of(config, options.task)
    make = maker(config, tasks)
    envs = VectorEnv(make, 1, seeds["environment"])  # one: a process of its own would only wait
    replay = Replay(
        claim.checkpoint_folder(options.out) / "replay",
        envs.obs_spec,
        envs.act_spec,
        seed=seeds["replay"],
        **config.replay.model_dump(),
    )
    agent_class = framework_module(options.framework).PlanetAgent
    return runner.Parts(
        agent=agent_class(config, envs.obs_spec, envs.act_spec, seed=seeds["agent"], device=options.device),
        prefill=RandomAgent(envs.act_spec, seeds["prefill"]),
        envs=envs,
        evaluation_envs=VectorEnv(make, config.evaluation.episodes, seeds["evaluation"], workers=options.workers),
        video_envs=VectorEnv(make, config.video.sequences, seeds["video"]),
        replay=replay,
        plan=config.schedule,
        # leaving: the reward of a chunk's last row lies one row further
        batch=(config.batch.size, config.batch.length + (config.loss.alignment == "leaving")),
        evaluation_episodes=config.evaluation.episodes * len(tasks),  # of each task, one after the other
        video=(config.video.context, config.video.length),
    )


def train(options: argparse.Namespace) -> None:
    """Check everything a person can get wrong, then claim the place, build the parts and run."""
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
    identity = {name: resolved[name] for name in ("paper", "variant", "scale")}
    identity |= {"framework": options.framework, "task": options.task, "seed": options.seed}
    label = "/".join(str(identity[name]) for name in ("paper", "framework", "variant", "task", "seed"))
    display = Display(label, config.schedule.total_env_steps)
    text = configs.to_text(resolved)
    with claim.only_writer(options.out):
        if not claim.clear_way(options.out, identity, text, display.say):
            display.say(f"{options.out} is complete; delete it to train again")
            return
        parts = make_parts(config, options)
        writer = RunWriter(
            options.out,
            identity=identity,
            config_text=text,
            overrides=resolved["overrides"],
            provenance=facts(options),
            total_env_steps=config.schedule.total_env_steps,
        )
        runner.Runner(parts, writer, options.out, display).execute()


def facts(options: argparse.Namespace) -> dict[str, object]:
    """Provenance of this session; the environments are made, so the renderer is known."""
    return provenance.collect(
        command=options.command,
        device=options.device,
        threads=options.threads,
        seeds={"seed": options.seed, "streams": STREAMS},
        code_paths=code_paths(options.framework),
        renderer=os.environ.get("MUJOCO_GL", "none"),
        libraries=[options.framework, "numpy", "mujoco", "dm_control"],
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m replications.planet.train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="resolved config (the workflow writes it)")
    parser.add_argument("--task", required=True, help="for example cartpole_swingup")
    parser.add_argument("--framework", default="torch", help="torch, jax, or numpy: CEM on the simulator")
    parser.add_argument(
        "--seed", type=int, required=True, help="a whole number >= 0; every random stream derives from it"
    )
    parser.add_argument("--out", type=Path, required=True, help="result file, .h5; appears when the run is complete")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of the learner")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="auto: cuda if there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that play evaluation; 0: none")
    options = parser.parse_args(arguments)
    for name, least in (("seed", 0), ("threads", 1), ("workers", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: expected a whole number of at least {least}")
    if options.out.suffix != ".h5":
        raise UserError(f"--out {options.out}: expected a name that ends in .h5")
    return options


@errors.cli
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    options.command = shlex.join(["python", "-m", "replications.planet.train", *arguments])
    # Read by the libraries when they are first imported, which happens in make_agent.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two runs may share the machine
    train(options)


if __name__ == "__main__":
    sys.exit(main())
