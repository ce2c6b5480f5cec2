"""From a command line to a finished run: what the train.py of every paper does in the same way.

A paper's train.py names its agents, its environments and what can be wrong with them; the options, the streams of the
seed, the run's name, its facts and the order of the checks stand here. Read next: runner.py, which does the work.
"""

import argparse
import functools
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.random import SeedSequence

from shared import claim, provenance, runner
from shared import config as configs
from shared.config import ROOT
from shared.envs.atari import Pipeline
from shared.envs.spec import Env
from shared.envs.suite import is_game, make_env
from shared.envs.vector import VectorEnv
from shared.errors import UserError
from shared.replay.buffer import Replay
from shared.replay.streams import StreamReplay
from shared.results import RunWriter
from shared.training.progress import Display
from shared.training.random_agent import RandomAgent
from shared.training.schedule import RatioPlan, Schedule

STREAMS = ("environment", "evaluation", "video", "replay", "agent", "prefill")


def parse(paper: str, arguments: list[str], *, summary: str, frameworks: str) -> argparse.Namespace:
    """The options of a paper's train.py, and its whole command line as `command`.

    Raises:
      UserError: a number or a name that no run can have.
    """
    parser = argparse.ArgumentParser(prog=f"python -m replications.{paper}.train", description=summary)
    parser.add_argument("--config", type=Path, required=True, help="resolved config (the workflow writes it)")
    parser.add_argument("--task", required=True, help="for example cartpole_swingup")
    parser.add_argument("--framework", default="torch", help=frameworks)
    parser.add_argument(
        "--seed", type=int, required=True, help="a whole number >= 0; every random stream derives from it"
    )
    parser.add_argument("--out", type=Path, required=True, help="result file, .h5; appears when the run is complete")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of the learner")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="auto: cuda if there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that play several environments; 0: none")
    options = parser.parse_args(arguments)
    for name, least in (("seed", 0), ("threads", 1), ("workers", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: expected a whole number of at least {least}")
    if options.out.suffix != ".h5":
        raise UserError(f"--out {options.out}: expected a name that ends in .h5")
    options.command = shlex.join(["python", "-m", f"replications.{paper}.train", *arguments])
    return options


def limit_threads(threads: int) -> None:
    """Tell the libraries, which read it when they are first imported: call this before an agent's module is."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two runs may share the machine


def maker(environment: Any, task: str, pipeline: Pipeline) -> Callable[[], Env]:
    """What makes one environment of a run.

    Args:
      environment: a paper's group of that name: size, camera_of, action_repeat, time_limit_env_steps, shadow_size, and
        observations where a paper has others than images.
      pipeline: of games; other tasks do not read it.
    """
    settings = {
        "size": environment.size,
        "camera": environment.camera_of(task),
        "action_repeat": environment.action_repeat,
        "time_limit_env_steps": environment.time_limit_env_steps,
        "shadow_size": environment.shadow_size,
    }
    if hasattr(environment, "observations"):
        settings["observations"] = environment.observations
    return functools.partial(make_env, task, **settings, pipeline=pipeline if is_game(task) else None)


def make_parts(
    config: Any,
    options: argparse.Namespace,
    agent_class: Callable[..., Any],
    make: Callable[[], Env],
    *,
    action_repeat: int,
    evaluation_make: Callable[[], Env] | None = None,
    batch_length: int | None = None,
    evaluation_episodes: int | None = None,
    parallel: int = 1,
    plan: Schedule | RatioPlan | None = None,
    make_replay: Callable[[Path, Any, VectorEnv, SeedSequence], Replay | StreamReplay] | None = None,
) -> runner.Parts:
    """Environments, replay and agents, each with its own stream of the seed.

    Args:
      config: a paper's config, which has the groups replay, schedule, batch, evaluation and video.
      agent_class: takes config, specs, seed and device.
      action_repeat: env steps per decision; of several tasks the least.
      make: makes one environment to learn in; evaluation_make one for evaluation and video, where it is another.
      batch_length, evaluation_episodes: where they are not the config's.
      parallel: environments to learn in, side by side; options.workers play them too, where they are several.
      plan: where it is not config.schedule itself.
      make_replay: of a folder, the agent, its environments and a seed; None: of episodes, by config.replay.
    Without images there is nothing to make a video of.
    """
    seeds = dict(zip(STREAMS, SeedSequence(options.seed).spawn(len(STREAMS)), strict=True))
    held_out = evaluation_make or make
    workers = options.workers if parallel > 1 else 0  # a process for a single one would only wait
    envs = VectorEnv(make, parallel, seeds["environment"], workers=workers)
    agent = agent_class(config, envs.obs_spec, envs.act_spec, seed=seeds["agent"], device=options.device)
    folder, seed = claim.checkpoint_folder(options.out) / "replay", seeds["replay"]
    if make_replay is None:
        replay = Replay(folder, envs.obs_spec, envs.act_spec, seed=seed, **config.replay.model_dump())
    else:
        replay = make_replay(folder, agent, envs, seed)
    seen = "image" in envs.obs_spec
    return runner.Parts(
        agent=agent,
        prefill=RandomAgent(envs.act_spec, seeds["prefill"]),
        envs=envs,
        evaluation_envs=VectorEnv(held_out, config.evaluation.episodes, seeds["evaluation"], workers=options.workers),
        video_envs=VectorEnv(held_out, config.video.sequences, seeds["video"]) if seen else None,
        replay=replay,
        rows=config.schedule.total_env_steps // action_repeat,
        plan=plan or config.schedule,
        batch=(config.batch.size, batch_length or config.batch.length),
        evaluation_episodes=evaluation_episodes or config.evaluation.episodes,
        video=(config.video.context, config.video.length),
    )


def run(
    options: argparse.Namespace,
    resolved: Mapping[str, Any],
    total_env_steps: int,
    make: Callable[[], runner.Parts],
    libraries: Iterable[str],
) -> None:
    """Claim the place, build the parts and train to the end; say so where that was done before.

    Args:
      resolved: the resolved config, as read from its file.
      make: makes the parts, once the place is claimed.
      libraries: distributions beside the framework and numpy whose version may change the numbers.
    """
    identity = identity_of(options, resolved)
    display = Display(label(identity), total_env_steps)
    text = configs.to_text(resolved)
    with claim.only_writer(options.out):
        if not claim.clear_way(options.out, identity, text, display.say):
            display.say(f"{options.out} is complete; delete it to train again")
            return
        parts = make()
        writer = RunWriter(
            options.out,
            identity=identity,
            config_text=text,
            overrides=resolved["overrides"],
            provenance=facts(options, resolved["paper"], libraries),
            total_env_steps=total_env_steps,
        )
        runner.Runner(parts, writer, options.out, display).execute()


def identity_of(options: argparse.Namespace, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Which run this is: the names that its file and its path have."""
    identity = {name: resolved[name] for name in ("paper", "variant", "scale")}
    return identity | {name: getattr(options, name) for name in ("framework", "task", "seed")}


def label(identity: Mapping[str, Any]) -> str:
    """A run's name on every line of its log."""
    return "/".join(str(identity[name]) for name in ("paper", "framework", "variant", "task", "seed"))


def facts(options: argparse.Namespace, paper: str, libraries: Iterable[str]) -> dict[str, object]:
    """Provenance of this session; the environments are made, so the renderer is known."""
    return provenance.collect(
        command=options.command,
        device=options.device,
        threads=options.threads,
        seeds={"seed": options.seed, "streams": STREAMS},
        code_paths=code_paths(paper, options.framework),
        renderer=os.environ.get("MUJOCO_GL", "none"),
        libraries=[options.framework, "numpy", *libraries],
    )


def code_paths(paper: str, framework: str) -> list[Path]:
    """The code that decides a run's numbers: what draws figures, compares, tests or writes results is left out."""
    files = ("config.py", "launch.py", "runner.py", "checkpoint.py", *framework_files(framework))
    folder, other_programs = ROOT / "replications" / paper, ("walk_", "precision_", "diagnostics_")
    return [
        *(ROOT / "shared" / name for name in (*files, "formulas", "training", "envs", "replay")),
        *(folder / name for name in ("config.py", "train.py")),
        *(path for path in folder.glob(f"*_{framework}.py") if not path.name.startswith(other_programs)),
    ]


def framework_files(framework: str) -> list[str]:
    """The files of shared/ that agents and models of one framework use."""
    return sorted(path.name for path in (ROOT / "shared").glob(f"*_{framework}.py"))
