"""CEM on the true simulator: Table 1's upper bound and the planner study of Figure 12. Nothing is learned or drawn.

    FOLDER=results/smoke/planet/numpy/simulator/cartpole_swingup
    python -m replications.planet.train --config $FOLDER/config.yaml --task cartpole_swingup --framework numpy \\
        --seed 0 --out $FOLDER/seed_0.h5 --workers 4

The agent's planner (Algorithm 2) with the simulator in place of the model: what a candidate earns is tried out in a
copy of the running episode. Read agent_torch.py for the planner in the model, shared/envs/dmc.py for the copies.
"""

import argparse
import contextlib
import functools
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from replications.planet.config import Config, Planner
from shared import claim, launch, provenance
from shared import config as configs
from shared.checkpoint import Checkpoints
from shared.config import ROOT
from shared.envs.dmc import Simulator
from shared.errors import UserError
from shared.formulas.planning import refit
from shared.results import RunWriter
from shared.training.progress import Display

STREAMS = ("environment", "planner")
VARIANTS = "simulator"  # how the names of its variants begin
CODE = ("shared/config.py", "shared/formulas", "shared/envs")  # with config.py and this file: what decides the numbers


def plan(
    rewards: Callable[[np.ndarray], np.ndarray], noise: np.ndarray, settings: Planner
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2: the cross-entropy method over action sequences, each tried out once; the belief starts at N(0, 1).

    Args:
      rewards: what candidates (J, H, A) earn, (J, H). A candidate with a NaN is the worst.
      noise: standard normal, (I, J, H, A), for every iteration.
      settings: elites, std and discount are used; the noise has the other sizes.
    Returns: mean and std (H, A) after the last iteration. The plan is the mean.
    """
    mean = np.zeros(noise.shape[2:])
    std = np.ones_like(mean)
    discount = settings.discount ** np.arange(len(mean))  # (H,)
    for one in noise:
        actions = np.clip(mean + std * one, -1, 1)
        mean, std = refit(actions, (discount * rewards(actions)).sum(1), settings.elites, std=settings.std)
    return mean, std


# ------------------------------------------------------------------------------------------------ copies


class Copy:
    """A second simulator that follows the episodes of the first."""

    def __init__(self, make: Callable[[], Simulator]):
        self.simulator = make()
        self.episode: tuple | None = None

    def rewards(self, seed: SeedSequence, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """What candidates (J, H, A) would earn from a state of the episode with this seed, (J, H)."""
        if self.episode != (seed.entropy, seed.spawn_key):
            self.simulator.restart(seed)  # what the task draws into its model or keeps for itself
            self.episode = (seed.entropy, seed.spawn_key)
        return np.stack([self.simulator.rewards(state, candidate) for candidate in actions])

    def close(self) -> None:
        self.simulator.close()


class Copies:
    """Copies in worker processes that share the candidates. A candidate's rewards do not depend on who computes them.

    Raises:
      UserError: a process died.
    """

    copy: Copy  # of this process, if it is a worker

    def __init__(self, make: Callable[[], Simulator], workers: int):
        self.workers = workers
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_be_a_copy, initargs=(make,))

    def rewards(self, seed: SeedSequence, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """As Copy.rewards."""
        shares = np.array_split(actions, self.workers)
        try:
            return np.concatenate(list(self.pool.map(functools.partial(_share, seed, state), shares)))
        except BrokenProcessPool:
            raise UserError(
                "a process that tries out candidates died; if the machine is short of memory use fewer --workers. The "
                "same command continues after the last finished episode"
            ) from None

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def _be_a_copy(make: Callable[[], Simulator]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    Copies.copy = Copy(make)


def _share(seed: SeedSequence, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
    if len(actions) == 0:  # more workers than candidates
        return np.zeros(actions.shape[:2])
    return Copies.copy.rewards(seed, state, actions)


# ------------------------------------------------------------------------------------------------ episodes


class Player:
    """The simulator that is played, copies of it (in `workers` processes, or one here for 0), and the planner."""

    def __init__(self, make: Callable[[], Simulator], settings: Planner, workers: int):
        self.simulator, self.settings = make(), settings  # says first if there is no such task
        self.copies = Copies(make, workers) if workers else Copy(make)

    def episode(self, seed: SeedSequence, generator: Generator, step: Callable[[int], Any]) -> tuple[float, int]:
        """Play one episode: at every decision plan in a copy, then execute the plan's first action without noise.

        The planner does not know the time limit, as a planner in a model does not.
        Args: seed: of the episode. generator: the planner's noise. step: is told the env steps of every decision.
        Returns: undiscounted return, number of decisions.
        """
        settings, simulator = self.settings, self.simulator
        sizes = (settings.iterations, settings.candidates, settings.horizon, simulator.act_spec.size)
        simulator.restart(seed)
        total, decisions, last = 0.0, 0, False
        while not last:
            rewards = functools.partial(self.copies.rewards, seed, simulator.state())
            mean, _ = plan(rewards, generator.standard_normal(sizes), settings)
            reward, last, _, env_steps = simulator.advance(mean[0])
            total, decisions = total + reward, decisions + 1
            step(env_steps)
        return total, decisions

    def close(self) -> None:
        self.copies.close()
        self.simulator.close()


def play(options: argparse.Namespace) -> None:
    """Play config.evaluation.episodes episodes and write a run file that has nothing but their returns.

    An interrupted run continues after its last finished episode.
    Args: options: config, task, framework, seed, out, workers and command, as train.py has them.
    """
    resolved = configs.read_resolved(options.config)
    config = configs.build(Config, resolved["values"], where=str(options.config))
    check(options, resolved, config)
    identity = launch.identity_of(options, resolved)
    limit = config.environment.time_limit_env_steps
    display = Display(launch.label(identity), config.evaluation.episodes * limit)
    repeat = config.environment.action_repeat[options.task]
    make = functools.partial(Simulator, options.task, action_repeat=repeat, time_limit_env_steps=limit)
    text = configs.to_text(resolved)
    with contextlib.closing(Player(make, config.planner, options.workers)) as player, claim.only_writer(options.out):
        if not claim.clear_way(options.out, identity, text, display.say):
            display.say(f"{options.out} is complete; delete it to play again")
            return
        writer = RunWriter(
            options.out,
            identity=identity,
            config_text=text,
            overrides=resolved["overrides"],
            provenance=facts(options),
            total_env_steps=0,  # of training
        )
        with contextlib.closing(display):
            play_all(player, config.evaluation.episodes, options, writer, display)
        shutil.rmtree(claim.checkpoint_folder(options.out), ignore_errors=True)


def play_all(player: Player, episodes: int, options: argparse.Namespace, writer: RunWriter, display: Display) -> None:
    """Every episode that is in no checkpoint yet; a checkpoint after each, the result after the last."""
    starts, noises = (stream.spawn(episodes) for stream in SeedSequence(options.seed).spawn(len(STREAMS)))
    checkpoints = Checkpoints(claim.checkpoint_folder(options.out), say=display.say)
    played, score = 0, None

    def step(env_steps: int) -> None:
        nonlocal played
        played += env_steps
        display.update(played, 0, returned=score)

    for episode in range(restore(checkpoints, writer, display), episodes):
        started = time.perf_counter()
        score, length = player.episode(starts[episode], Generator(PCG64(noises[episode])), step)
        writer.add("eval/episode", env_steps=0, updates=0, episode=episode, length=length, **{"return": score})
        writer.add("time/segment", env_steps=0, updates=0, wall_seconds=time.perf_counter() - started)
        checkpoints.save(episode + 1, {"writer": writer.save()})
        writer.flush()
    writer.finish()


def restore(checkpoints: Checkpoints, writer: RunWriter, display: Display) -> int:
    """The number of episodes that an interrupted session finished; their rows are in the writer then."""
    found = checkpoints.latest()
    if found is None:
        return 0
    done, tree = found
    for fact, (before, now) in writer.load(tree["writer"]).items():
        display.say(f"warning: {fact} was {before!r} and is {now!r} now (the result file lists both sessions)")
    display.say(f"continuing after {done} episodes")
    return done


def check(options: argparse.Namespace, resolved: Mapping[str, Any], config: Config) -> None:
    """Refuse what this program cannot play."""
    if not resolved["variant"].startswith(VARIANTS):
        raise UserError(
            f"{options.config}: variant {resolved['variant']!r} trains a model, and here is none: a variant that plans "
            f"in the true simulator is called {VARIANTS} or {VARIANTS}-...; for this one use --framework torch or jax"
        )
    if options.task not in config.environment.action_repeat:
        known = config.environment.action_repeat
        raise UserError(
            f"--task {options.task!r}: {options.config} has no environment.action_repeat for it"
            f"{configs.did_you_mean(options.task, known)}; it has {configs.listing(known)}"
        )
    if config.planner.method != "cem":
        raise UserError(
            f"{options.config}: planner.method is {config.planner.method!r}, and the simulator has no gradient; set cem"
        )


def facts(options: argparse.Namespace) -> dict[str, object]:
    """Provenance of this session. The number of workers is in the command: it changes no number."""
    own = Path(__file__).parent
    return provenance.collect(
        command=options.command,
        device="cpu",
        threads=1,
        seeds={"seed": options.seed, "streams": STREAMS},
        code_paths=[*(ROOT / path for path in CODE), own / "config.py", own / "simulator.py"],
        libraries=["numpy", "mujoco", "dm_control"],
    )
