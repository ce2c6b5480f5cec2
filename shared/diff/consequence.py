"""How much a hyperparameter decides: the order in which differences of two configurations are told.

Seven classes, by what a value acts on; within a class, changes of kind (words, switches, lists) before changes of size,
and large factors before small ones. A judgement of ours, not a measurement: it says what to look at first.
"""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

# (class, what it decides, patterns of dotted keys); the first that fits counts.
CLASSES: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("no number", "not what is learned: what is shown, kept or saved",
     ("video.*", "*.checkpoint_every_env_steps", "*.memory_rows", "*.prefetch_chunks", "*.mode_samples")),
    ("objective", "what is minimised",
     ("loss.*", "behaviour.*", "model.latent", "model.latents", "model.mean_only", "model.future_rnn",
      "model.contrastive", "model.continuation", "model.discount_head", "model.scalars", "model.unimix",
      "model.symlog")),
    ("task", "what is seen and done, and how it is counted", ("environment.*", "model.image_bits", "model.dequantise")),
    ("learning", "how fast, from what and how often is learned",
     ("optimiser.*", "optimisers.*", "batch.*", "replay.*", "schedule.updates_per_learn", "schedule.train_ratio",
      "schedule.learn_every_env_steps", "schedule.pretrain_updates", "precision")),
    ("deciding", "how actions are chosen", ("planner.*", "exploration.*")),
    ("network", "sizes and layers", ("model.*", "sizes.*")),
    ("length", "how long a run is and how it is measured", ("schedule.*", "evaluation.*")),
)  # fmt: skip
ORDER = ("objective", "task", "learning", "deciding", "network", "length", "other", "no number")
MEANING = {name: meaning for name, meaning, _ in CLASSES} | {"other": "not classified"}


def consequence(key: str) -> str:
    """The class of a dotted key."""
    for name, _, patterns in CLASSES:
        if any(fnmatchcase(key, pattern) for pattern in patterns):
            return name
    return "other"


def rank(key: str, before: Any, after: Any) -> tuple[int, int, float, str]:
    """Sorts differences, most consequential first. A key that only one side has counts as a change of kind."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after)]
    factor = 0.0
    if all(numbers):
        low, high = sorted(abs(float(value)) for value in (before, after))
        factor = math.log(high / low) if low > 0 else math.inf
    return (ORDER.index(consequence(key)), int(all(numbers)), -factor, key)
