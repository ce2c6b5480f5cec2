"""One run from its seeds to its result file: resume, drive the loop, record, evaluate, save, finish.

Generic over the agents; replications/<paper>/train.py composes the parts. Everything on disk lies beside the result:
`seed_0.h5.partial` (readable while it runs), `seed_0.ckpt/` (checkpoints and replay), then `seed_0.h5` and
`seed_0.safetensors`. Read shared/training/loop.py first.
"""

import contextlib
import ctypes
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from shared.checkpoint import Checkpoints, write_whole
from shared.claim import checkpoint_folder, set_aside
from shared.envs.vector import VectorEnv
from shared.errors import UserError
from shared.replay.buffer import Replay
from shared.replay.streams import StreamReplay
from shared.results import RunWriter
from shared.training.evaluate import evaluate, record
from shared.training.loop import (
    CheckpointDue,
    Counters,
    EpisodeEnded,
    EvaluationDue,
    Event,
    Progress,
    UpdateDone,
    interact,
)
from shared.training.progress import Display
from shared.training.schedule import RatioPlan, Schedule

CHECKPOINT_SCHEMA = 1
PHASES = ("act", "learn", "env", "eval", "replay")


@dataclass(frozen=True)
class Parts:
    """What one run is made of. `batch` is (B, T) in chunks and rows; `video` is (context, length) in rows.

    video_envs: None where the agent sees no images, of which a video could be made.
    rows: of replay that a whole run makes, about; tells what it will need of memory and disk.
    """

    agent: Any
    prefill: Any
    envs: VectorEnv
    evaluation_envs: VectorEnv
    video_envs: VectorEnv | None
    replay: Replay | StreamReplay
    rows: int
    plan: Schedule | RatioPlan
    batch: tuple[int, int]
    evaluation_episodes: int
    video: tuple[int, int]


class Runner:
    """Consumes the loop's events. Only this class writes files."""

    def __init__(self, parts: Parts, writer: RunWriter, out: Path, display: Display):
        self.parts, self.writer, self.out, self.display = parts, writer, out, display
        self.checkpoints = Checkpoints(checkpoint_folder(out), say=display.say)
        self.clock = Stopwatch()
        self.clock.watch(parts.agent, act="act", learn="learn")
        self.clock.watch(parts.envs, step="env")
        self.clock.watch(parts.replay, sample="replay")
        if isinstance(parts.replay, StreamReplay):
            self.clock.watch(parts.replay, update="replay")
        self.kept_replay: Mapping[str, Any] | None = None  # replay state of the newest checkpoint
        self.untimed: Counters | None = None  # of the newest event whose time no segment holds yet

    def execute(self) -> None:
        """Train to the end, continuing from the newest usable checkpoint; write the result under its final name."""
        parts = self.parts
        try:
            self.display.say(parts.replay.fit(parts.rows))
            start = self.restore()
            batch_size, batch_length = parts.batch
            for event in interact(
                parts.agent,
                parts.prefill,
                parts.envs,
                parts.replay,
                parts.plan,
                batch_size=batch_size,
                batch_length=batch_length,
                start=start,
            ):
                self.handle(event)
            self.finish()
        finally:
            self.display.close()
            for envs in (parts.envs, parts.evaluation_envs, parts.video_envs):
                if envs is not None:
                    envs.close()

    def handle(self, event: Event) -> None:
        """Record one event and do what it asks for."""
        at, add = event.counters, self.writer.add
        self.untimed = at
        match event:
            case EpisodeEnded():
                add(
                    "train/episode",
                    env_steps=at.env_steps,
                    agent_steps=at.agent_steps,
                    updates=at.updates,
                    episode=at.episodes,
                    length=event.length,
                    **{"return": event.episode_return},
                )
                self.display.update(at.env_steps, at.updates, returned=event.episode_return)
                give_back_memory()
            case UpdateDone():
                add("learn/update", updates=at.updates, env_steps=at.env_steps, **event.metrics)
                self.display.update(at.env_steps, at.updates)
            case EvaluationDue():
                self.evaluate(event)
            case CheckpointDue():
                self.save(event.progress)

    def evaluate(self, event: EvaluationDue) -> None:
        at = event.counters
        with self.clock.pause(), self.clock.measure("eval"):
            scores = evaluate(self.parts.agent, self.parts.evaluation_envs, self.parts.evaluation_episodes)
        for index, (score, length) in enumerate(scores):
            self.writer.add(
                "eval/episode",
                env_steps=at.env_steps,
                updates=at.updates,
                episode=index,
                length=length,
                **{"return": score},
            )
        self.display.update(at.env_steps, at.updates, evaluated=float(np.mean([score for score, _ in scores])))

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, then let go of the replay files that only older ones needed."""
        parts, at = self.parts, progress.counters
        self.end_segment(at)
        replay_state = parts.replay.save()
        self.checkpoints.save(
            at.env_steps,
            {
                "schema": CHECKPOINT_SCHEMA,
                "progress": progress.tree(),
                "agent": parts.agent.save(),
                "prefill": parts.prefill.save(),
                "envs": parts.envs.save(),
                "evaluation_envs": parts.evaluation_envs.save(),
                "replay": replay_state,
                "writer": self.writer.save(),
            },
        )
        if self.kept_replay is not None:
            parts.replay.forget(self.kept_replay)
        self.kept_replay = replay_state
        self.writer.flush()

    def end_segment(self, at: Counters) -> None:
        """Record the time since the last checkpoint, or since the start."""
        self.writer.add("time/segment", env_steps=at.env_steps, updates=at.updates, **self.clock.lap())
        self.untimed = None

    def restore(self) -> Progress | None:
        """The newest checkpoint whose replay files are whole, loaded into the parts; None to start afresh.

        If there are checkpoints and all are damaged, they are set aside, not deleted.
        Raises:
          UserError: a whole checkpoint that this machine or command cannot continue; it stays where it is.
        """
        found = self.checkpoints.steps()
        for step, tree in self.checkpoints.candidates():
            try:
                if tree.get("schema") != CHECKPOINT_SCHEMA:
                    raise UserError(f"it has schema {tree.get('schema')}, this code reads {CHECKPOINT_SCHEMA}")
                self.parts.replay.load(tree["replay"])  # changes nothing when it refuses
            except UserError as error:
                self.display.say(f"warning: the checkpoint at {step:,} env steps cannot be used: {error}")
            else:
                return self.load(step, tree)
        if found:
            set_aside(self.out, "because none of its checkpoints can be used", self.display.say)
            self.display.say("starting anew")
        return None

    def load(self, step: int, tree: Mapping[str, Any]) -> Progress:
        """Put every part but the replay back to where the checkpoint was taken."""
        parts = self.parts
        parts.agent.load(tree["agent"])
        parts.prefill.load(tree["prefill"])
        parts.envs.load(tree["envs"])
        parts.evaluation_envs.load(tree["evaluation_envs"])
        for fact, (before, now) in self.writer.load(tree["writer"]).items():
            self.display.say(
                f"warning: {fact} was {before!r} and is {now!r} now; from here on the numbers are not those of an "
                "uninterrupted run (the result file lists both sessions)"
            )
        self.kept_replay = tree["replay"]
        self.display.start_at(step)
        self.display.say(f"continuing at {step:,} env steps")
        return Progress.from_tree(tree["progress"])

    def finish(self) -> None:
        """Video, parameters, result, in this order: the result's final name says that all is there."""
        parts = self.parts
        if self.untimed is not None:
            self.end_segment(self.untimed)
        parameters = {name: np.ascontiguousarray(value) for name, value in parts.agent.parameters().items()}
        write_whole(self.out.with_suffix(".safetensors"), safetensors_bytes(parameters))
        filmed = parts.video_envs is not None
        self.writer.finish(video=record_video(parts.agent, parts.video_envs, *parts.video) if filmed else None)
        shutil.rmtree(checkpoint_folder(self.out), ignore_errors=True)  # the run is complete, whatever happens here


def record_video(agent: Any, envs: VectorEnv, context: int, length: int) -> dict[str, Any]:
    """Play the first `length` rows of one episode per environment and let the agent predict all but `context` of them.

    Returns: truth and prediction (N, T, H, W, C) uint8, context (frames the model saw), source (what was played).
    """
    batch = record(agent, envs, length)
    batch["action_before"] = np.zeros_like(batch["action"][:, 0])
    source = "first rows of held-out episodes, played without exploration by the finished agent"
    return {**agent.predict(batch, context=context), "context": context, "source": source}


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can.

    An episode's rows lie scattered among the much larger arrays of updates, and what is freed around them is too small
    for the next update's: without this, a run of Dreamer held 4 GB of freed memory after 15 episodes, and ever more.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's
        libc.malloc_trim(0)


class Stopwatch:
    """Seconds spent per phase since the last lap. Work on an accelerator counts where it is awaited."""

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.paused = False
        self.lap_started = time.perf_counter()

    def watch(self, thing: Any, **phases: str) -> None:
        """Time the named methods of one object: watch(agent, act="act") wraps agent.act."""
        for method, phase in phases.items():
            setattr(thing, method, self._timed(getattr(thing, method), phase))

    def _timed(self, function, phase: str):
        def timed(*args, **kwargs):
            if self.paused:
                return function(*args, **kwargs)
            with self.measure(phase):
                return function(*args, **kwargs)

        return timed

    @contextlib.contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Watched methods are not timed: their caller is measured as a whole."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def lap(self) -> dict[str, float]:
        """{"<phase>_seconds": ..., "wall_seconds": ...} since the last lap."""
        now = time.perf_counter()
        lap = {f"{phase}_seconds": seconds for phase, seconds in self.seconds.items()}
        lap["wall_seconds"] = now - self.lap_started
        self.seconds, self.lap_started = dict.fromkeys(PHASES, 0.0), now
        return lap
