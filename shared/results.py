"""One run is one HDF5 file: config, provenance and every curve with its unit. Written whole or not at all.

`<name>.h5.partial` is a run that goes on (always readable), `<name>.h5` a complete one. Schema and path scheme are told
in results/README.md; where provenance comes from, in shared/provenance.py.
"""

import hashlib
import json
import operator
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import h5py
import numpy as np
import pandas as pd

from shared.checkpoint import hdf5_image, write_whole
from shared.errors import UserError
from shared.provenance import now

SCHEMA = 1
IDENTITY = ("paper", "framework", "variant", "task", "seed", "scale")
PROVENANCE_TEXTS = ("packages", "git_diff")  # long: datasets, not attributes
DECISIVE_FACTS = ("code_digest", "device", "threads", "cpu", "gpu", "renderer", "libraries")  # may change the numbers
SESSION_FACTS = ("started", "git_commit", "git_dirty", *DECISIVE_FACTS)
GZIP_LEVEL = 4
LEARNERS = ("model", "actor", "value", "critic")
DIVERGENCE = frozenset(  # not finite: the run has diverged
    {"loss", "grad_norm", *(f"{name}_loss" for name in LEARNERS[1:]), *(f"{name}_grad_norm" for name in LEARNERS)}
)
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# column -> (unit, meaning). A column that is not listed here cannot be written.
METRICS: dict[str, tuple[str, str]] = {
    "env_steps": ("simulator steps", "simulator steps of the run so far, action repeat included"),
    "agent_steps": ("decisions", "decisions of the run so far"),
    "updates": ("gradient steps", "gradient steps of the run so far"),
    "episode": ("episodes", "training: episodes of the run so far; evaluation: place in this evaluation, from 0"),
    "return": ("reward", "undiscounted sum of the episode's rewards"),
    "length": ("decisions", "decisions in the episode"),
    "loss": ("nats", "the objective that is minimised: weighted sum of the terms, mean over batch and time"),
    "image_loss": ("nats", "minus the log-likelihood of the image, summed over pixels, unweighted"),
    "reward_loss": ("nats", "minus the log-likelihood of the reward, unweighted"),
    "overshooting_loss": ("nats", "KL beyond the free nats of predictions over several steps, unweighted"),
    "overshooting_reward_loss": ("nats", "minus the log-likelihood of the reward several steps ahead, unweighted"),
    "global_prior_loss": ("nats", "KL of the posterior from the unit Gaussian, unweighted"),
    "divergence_loss": ("nats", "KL beyond the free nats, unweighted"),
    "contrastive_loss": ("nats", "minus the bound that tells the true features from shifted ones, unweighted"),
    "continuation_loss": ("nats", "minus the log-likelihood of the episode going on, unweighted"),
    "discount_loss": ("nats", "minus the log-likelihood of the discount, 0 after the end, unweighted"),
    "vector_loss": ("squared symlog", "squared error of observed vectors, summed over their entries, unweighted"),
    "dynamics_loss": ("nats", "KL that trains the prior, at least the free nats, unweighted"),
    "representation_loss": ("nats", "KL that trains the posterior, at least the free nats, unweighted"),
    "kl": ("nats", "KL from posterior to prior, before free nats"),
    "actor_loss": (
        "reward",
        "minus what the actor maximises: imagined return, or log-probability times advantage, and entropy where it "
        "counts; weighted, mean over starts and steps",
    ),
    "value_loss": ("nats", "minus the log-likelihood of the imagined return, weighted, mean over starts and steps"),
    "critic_loss": ("nats", "minus the log-likelihood of the imagined return, weighted, mean over starts and steps"),
    "replay_value_loss": ("nats", "the same of the returns of replayed states, mean over batch and time"),
    "return_range": ("reward", "what imagined returns are divided by: their range, at least 1"),
    "actor_entropy": ("nats", "entropy of the policy in imagined states, unweighted, mean over starts and steps"),
    "imagined_return": ("reward", "imagined return, unweighted, mean over starts and steps"),
    "grad_norm": ("nats", "global norm of the gradient before clipping"),
    "model_grad_norm": ("nats", "the same of the world model's parameters"),
    "decoder_grad_norm": ("nats", "the same of the image decoder's, where it has an optimiser of its own"),
    "actor_grad_norm": ("reward", "the same of the actor's parameters"),
    "value_grad_norm": ("nats", "the same of the value's parameters"),
    "critic_grad_norm": ("nats", "the same of the critic's parameters"),
    "wall_seconds": ("seconds", "wall time of the segment"),
    "learn_seconds": ("seconds", "wall time in gradient steps during the segment"),
    "act_seconds": ("seconds", "wall time in choosing actions during the segment"),
    "env_seconds": ("seconds", "wall time in environments during the segment"),
    "replay_seconds": ("seconds", "wall time in drawing batches during the segment"),
    "eval_seconds": ("seconds", "wall time in evaluation during the segment"),
}
COUNTERS = frozenset({"env_steps", "agent_steps", "updates", "episode", "length"})  # int64; the rest is float64

# table -> columns that every row has. Further columns of METRICS are welcome, the same in every row of the run.
TABLES: dict[str, tuple[str, ...]] = {
    "train/episode": ("env_steps", "agent_steps", "updates", "episode", "return", "length"),
    "eval/episode": ("env_steps", "updates", "episode", "return", "length"),
    "learn/update": ("updates", "env_steps"),
    "time/segment": ("env_steps", "updates", "wall_seconds"),
}


class RunWriter:
    """Collects the curves of one run and writes its file: flush() the partial one, finish() the complete one."""

    def __init__(
        self,
        path: Path,
        *,
        identity: Mapping[str, Any],
        config_text: str,
        overrides: Sequence[Mapping[str, Any]],
        provenance: Mapping[str, Any],
        total_env_steps: int,
    ):
        """
        Args:
            path: final name, `....h5`.
            identity: paper, framework, variant, task, seed and scale.
            config_text: the resolved YAML.
            overrides: of the paper's values, each {key, value, layer}.
            provenance: from shared.provenance.collect, of this session.
            total_env_steps: length of the complete run.
        """
        if set(identity) != set(IDENTITY):
            raise ValueError(f"RunWriter: identity has {sorted(identity)}, expected {sorted(IDENTITY)}")
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self._identity = dict(identity)
        self._config_text = config_text
        self._overrides = list(overrides)
        self._provenance = dict(provenance)
        self._total_env_steps = total_env_steps
        self._columns: dict[str, tuple[str, ...]] = {}  # of tables that have rows
        self._pending: dict[str, list[tuple]] = {table: [] for table in TABLES}  # rows of maybe lazy values
        self._arrays = {table: _empty(columns) for table, columns in TABLES.items()}
        self._sessions = [{fact: self._provenance.get(fact, "unknown") for fact in SESSION_FACTS}]
        self._wall_before = 0.0
        self._clock = time.monotonic()

    @property
    def wall_seconds(self) -> float:
        """Wall time of the run so far. Work that was lost and done again since a checkpoint counts once."""
        return self._wall_before + time.monotonic() - self._clock

    def add(self, table: str, **columns: SupportsFloat) -> None:
        """Add one row. Counters are ints; other values may be lazy (a scalar on a device): converted when written."""
        known = self._columns.get(table) or self._first_row(table, columns)
        if columns.keys() != set(known):
            raise ValueError(f"RunWriter.add: {table} got columns {sorted(columns)}, expected {sorted(known)}")
        for name in COUNTERS & columns.keys():
            operator.index(columns[name])
        self._pending[table].append(tuple(columns[name] for name in known))

    def save(self) -> dict[str, Any]:
        """The rows so far, sessions and wall time, as a tree for a checkpoint."""
        self._convert()
        tables = {table: dict(arrays) for table, arrays in self._arrays.items()}
        return {"tables": tables, "sessions": list(self._sessions), "wall_seconds": self.wall_seconds}

    def load(self, tree: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Go on from a saved tree: rows added since are dropped; this session joins those before it.

        Returns: {fact: (before, now)} of what differs between the last session and this one and may change the numbers.
        """
        self._arrays = {table: dict(arrays) for table, arrays in tree["tables"].items()}
        self._columns = {table: tuple(arrays) for table, arrays in self._arrays.items() if len(arrays["env_steps"])}
        self._pending = {table: [] for table in TABLES}
        self._sessions = [*tree["sessions"], self._sessions[-1]]
        self._wall_before, self._clock = tree["wall_seconds"], time.monotonic()
        before, now_ = self._sessions[-2:]
        return {fact: (before.get(fact), now_[fact]) for fact in DECISIVE_FACTS if before.get(fact) != now_[fact]}

    def flush(self) -> None:
        """Write `<path>.partial`: the run so far, readable, status "running"."""
        self._write(self.partial, "running", None)

    def finish(self, video: Mapping[str, Any] | None = None) -> None:
        """Write the complete run under its final name and remove the partial one.

        Args:
            video: truth and prediction, uint8 (N, T, H, W, 3), the number of context frames and their source.
        """
        self._write(self.path, "complete", video)
        self.partial.unlink(missing_ok=True)

    def _first_row(self, table: str, columns: Mapping[str, Any]) -> tuple[str, ...]:
        """The first row of a table fixes its columns."""
        if table not in TABLES:
            raise ValueError(f"RunWriter.add: unknown table {table!r}; expected one of {sorted(TABLES)}")
        missing, unknown = sorted(set(TABLES[table]) - columns.keys()), sorted(columns.keys() - METRICS.keys())
        if missing or unknown:
            raise ValueError(
                f"RunWriter.add: {table} lacks columns {missing} and has unknown columns {unknown}; "
                "a new column needs its unit and meaning in METRICS"
            )
        self._columns[table] = (*TABLES[table], *sorted(columns.keys() - set(TABLES[table])))
        self._arrays[table] = _empty(self._columns[table])
        return self._columns[table]

    def _convert(self) -> None:
        """Lazy values become numbers here, once."""
        for table, rows in self._pending.items():
            if rows:
                new = zip(self._columns[table], zip(*rows, strict=True), strict=True)
                new = {name: np.array([_number(name)(value) for value in values], _dtype(name)) for name, values in new}
                if table == "learn/update":
                    _check_finite(new)
                self._arrays[table] = {name: np.append(old, new[name]) for name, old in self._arrays[table].items()}
                rows.clear()

    def _write(self, path: Path, status: str, video: Mapping[str, Any] | None) -> None:
        self._convert()
        reached = max(int(arrays["env_steps"].max(initial=0)) for arrays in self._arrays.values())

        def fill(file: h5py.File) -> None:
            file.attrs.update({"schema": SCHEMA, **self._identity, "status": status})
            file.attrs.update({"total_env_steps": self._total_env_steps, "env_steps": reached})
            self._fill_config(file)
            self._fill_provenance(file)
            for table, arrays in self._arrays.items():
                _fill_table(file.create_group(table), arrays)
            if video is not None:
                _fill_video(file.create_group("video"), video)

        data = hdf5_image(fill)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)

    def _fill_config(self, file: h5py.File) -> None:
        config = file.create_dataset("config", data=self._config_text)
        config.attrs["sha256"] = hashlib.sha256(self._config_text.encode()).hexdigest()
        config.attrs["overrides"] = json.dumps(self._overrides)

    def _fill_provenance(self, file: h5py.File) -> None:
        group = file.create_group("provenance")
        for name, value in self._provenance.items():
            if name in PROVENANCE_TEXTS:
                group.create_dataset(name, data=value)
            else:
                group.attrs[name] = value
        group.create_dataset("sessions", data=json.dumps(self._sessions))
        group.attrs["started"] = self._sessions[0]["started"]
        group.attrs["finished"] = now()
        group.attrs["wall_seconds"] = self.wall_seconds


def _check_finite(columns: Mapping[str, np.ndarray]) -> None:
    """A run whose loss is no number any more has nothing further to tell: it must not end as a complete one."""
    for name in DIVERGENCE.intersection(columns):
        values = columns[name]
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise UserError(
                f"the run diverged: {name} is {values[bad[0]]} at update {columns['updates'][bad[0]]:,}; nothing was "
                "written after the last checkpoint. Look at /learn/update of the .partial file; a lower learning rate "
                "or another seed may help"
            )


@dataclass(frozen=True)
class Run:
    """A run file in memory.

    attrs: identity, status ("running" or "complete"), env_steps reached, total_env_steps.
    overrides: changes of the paper's values, each {key, value, layer}.   provenance: attributes and texts, sessions.
    tables: "train/episode", "eval/episode", "learn/update", "time/segment".
    video: truth, prediction, context, source; None where there is none.
    """

    path: Path
    attrs: dict[str, Any]
    config_text: str
    config_sha256: str
    overrides: list[dict[str, Any]]
    provenance: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    video: dict[str, Any] | None

    @property
    def code_digests(self) -> tuple[str, ...]:
        """Digests of the code of all sessions: more than one means that the code changed between them."""
        return tuple(sorted({session["code_digest"] for session in self.provenance["sessions"]}))


def read_run(path: Path) -> Run:
    """Read a run file, complete or partial.

    Raises:
        UserError: no such file, not HDF5, truncated, or of another schema.
    """
    path = Path(path)
    with _opened(path) as file:
        _check_schema(path, file)
        try:
            return Run(
                path=path,
                attrs=_attrs(file),
                config_text=file["config"].asstr()[()],
                config_sha256=file["config"].attrs["sha256"],
                overrides=json.loads(file["config"].attrs["overrides"]),
                provenance=_provenance(file["provenance"]),
                tables={table: pd.DataFrame({k: v[()] for k, v in file[table].items()}) for table in TABLES},
                video=_video(file["video"]) if "video" in file else None,
            )
        except (KeyError, OSError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"read_run: {path} is damaged ({error}); {MAKE_ANEW}") from error


def list_runs(
    root: Path,
    *,
    scale: str | None = None,
    paper: str | None = None,
    framework: str | None = None,
    variant: str | None = None,
    task: str | None = None,
) -> pd.DataFrame:
    """Every run below a folder, complete or partial, one row each, sorted by path; None means any.

    A run's partial file is not listed beside its complete one. A file that cannot be read has status "unreadable", the
    identity that its path tells, and the reason in `problem` (empty for the others).
    """
    wanted = {"scale": scale, "paper": paper, "framework": framework, "variant": variant, "task": task}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    rows = [_summary(path) for path in _run_files(Path(root))]
    rows = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return pd.DataFrame(rows, columns=list(LISTED))


LISTED = (
    "path",
    *IDENTITY,
    "status",
    "env_steps",
    "total_env_steps",
    "git_commit",
    "code_digest",
    "config_sha256",
    "wall_seconds",
    "problem",
)
MAKE_ANEW = "delete it and run the command that makes it again"


def partial_path(path: Path) -> Path:
    """Where an unfinished run lies: `<path>.partial`."""
    return path.with_name(path.name + ".partial")


def _number(column: str) -> Callable[[Any], int | float]:
    return operator.index if column in COUNTERS else float


def _dtype(column: str) -> type:
    return np.int64 if column in COUNTERS else np.float64


def _empty(columns: Iterable[str]) -> dict[str, np.ndarray]:
    return {name: np.zeros(0, _dtype(name)) for name in columns}


def _run_files(root: Path) -> Iterator[Path]:
    """seed_<n>.h5 and seed_<n>.h5.partial below root, checkpoint folders left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.endswith(".ckpt"))
        for name in sorted(names):
            complete = name.removesuffix(".partial")
            if re.fullmatch(r"seed_\d+\.h5", complete) and (complete == name or complete not in names):
                yield Path(folder, name)


def _summary(path: Path) -> dict[str, Any]:
    """One row of list_runs."""
    row: dict[str, Any] = dict.fromkeys(LISTED) | {"path": str(path), "problem": ""}
    try:
        with _opened(path) as file:
            _check_schema(path, file)
            facts = {**_attrs(file["provenance"]), **_attrs(file), "config_sha256": file["config"].attrs["sha256"]}
            return row | {name: facts[name] for name in LISTED if name not in ("path", "problem")}
    except (UserError, KeyError, OSError) as error:
        if len(path.parts) > len(IDENTITY):
            row |= dict(zip(("scale", "paper", "framework", "variant", "task"), path.parts[-6:-1], strict=True))
        seed = re.search(r"seed_(\d+)", path.name)
        return row | {"seed": int(seed[1]) if seed else None, "status": "unreadable", "problem": str(error)}


def _opened(path: Path) -> h5py.File:
    try:
        with path.open("rb") as file:
            signature = file.read(len(HDF5_SIGNATURE))
    except FileNotFoundError:
        raise UserError(f"read_run: {path} does not exist; run the command that makes it") from None
    except IsADirectoryError:
        raise UserError(f"read_run: {path} is a folder; name a run file (seed_<n>.h5) in it") from None
    if signature != HDF5_SIGNATURE:
        raise UserError(f"read_run: {path} is not an HDF5 file; expected a run file (seed_<n>.h5); {MAKE_ANEW}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"read_run: {path} is truncated or damaged ({error}); {MAKE_ANEW}") from error


def _check_schema(path: Path, file: h5py.File) -> None:
    schema = file.attrs.get("schema")
    if schema is None:
        raise UserError(f"read_run: {path} is an HDF5 file but no run file (no attribute `schema`); name a seed_<n>.h5")
    if schema != SCHEMA:
        raise UserError(
            f"read_run: {path} has schema {schema}, this code reads schema {SCHEMA}; "
            "check out the commit in its /provenance attribute git_commit, or delete it and run it again"
        )


def _attrs(node: h5py.HLObject) -> dict[str, Any]:
    """Attributes as Python values."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in node.attrs.items()}


def _provenance(group: h5py.Group) -> dict[str, Any]:
    texts = {name: group[name].asstr()[()] for name in group}
    return {**_attrs(group), **texts, "sessions": json.loads(texts["sessions"])}


def _video(group: h5py.Group) -> dict[str, Any]:
    return {"truth": group["truth"][()], "prediction": group["prediction"][()], **_attrs(group)}


def _fill_table(group: h5py.Group, arrays: Mapping[str, np.ndarray]) -> None:
    for name, column in arrays.items():
        dataset = group.create_dataset(name, data=column)
        dataset.attrs["unit"], dataset.attrs["meaning"] = METRICS[name]


def _fill_video(group: h5py.Group, video: Mapping[str, Any]) -> None:
    if set(video) != {"truth", "prediction", "context", "source"}:
        raise ValueError(f"RunWriter.finish: video has {sorted(video)}, expected context, prediction, source, truth")
    for name in ("truth", "prediction"):
        frames = video[name]
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape != video["truth"].shape:
            raise ValueError(
                f"RunWriter.finish: video {name} is {frames.dtype} {frames.shape}, expected uint8 (N, T, H, W, 3), "
                "the same for truth and prediction"
            )
        one = (1, *frames.shape[1:])
        group.create_dataset(name, data=frames, chunks=one, compression="gzip", compression_opts=GZIP_LEVEL)
    group.attrs["context"], group.attrs["source"] = video["context"], video["source"]
