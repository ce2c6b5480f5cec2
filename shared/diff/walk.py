"""What a walk is: one update of an implementation, taken apart into named tensors in the order of the computation.

A paper that can be walked has three files: replications/<paper>/walk.py (NumPy alone) has `prepare`, which takes away
what would hide a difference, and `draw`, which makes the inputs; walk_torch.py and walk_jax.py each have a class `Walk`
with the methods below. Everything is NumPy at this border. numbers.py compares two walks; side.py runs one, in its own
process.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Arrays = dict[str, np.ndarray]
ACTIONS = 3  # size of an action in a walk
SIZE, LENGTH = 2, 5  # chunks and rows of a walk's batch: B, T
UNMOVED = ("action_before", "deter", "stoch")  # of rows: what belongs to the row before, not to a row of the chunk
BELIEFS, SAMPLES = ("belief", "deter"), ("sample", "stoch")  # as the papers' latent states call them


class Captured(Exception):
    """Raised in place of an update, to look at what an agent's own `learn` would have fed it."""

    def __init__(self, inputs: Mapping[str, Any]):
        super().__init__("captured")
        self.inputs = dict(inputs)


def flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of inputs taken apart: {"state": {"deter": x}} is {"state deter": x}."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        found |= {f"{name} {key}": x for key, x in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


class Walk(Protocol):
    """One implementation at work. Made from (config, task, parameters or None); float64.

    rows: as replay stores them (action, action_before, is_first, is_terminal, reward). entries: what the agent makes of
    rows. noise: every random number, by the name that the agent gives it. image: (B, T, H, W, C), as the networks see;
    of no entries where the agent's reading of images draws no noise, so that they are rows like others.
    """

    def parameters(self) -> Arrays: ...

    def entries(self, rows: Arrays) -> Arrays:
        """What the update takes from replayed rows, by name: action, reward and so on; (B, T, ...)."""

    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        """(embedding and what else the encoder makes, prior, posterior), each part (B, T, ...)."""

    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        """What the heads predict from the posterior features, and what is imagined from them, in order."""

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        """One update: (named losses, gradients by parameter, norms of gradients). The parameters are changed."""


def places(walk: Walk, image: np.ndarray, rows: Arrays, noise: Arrays) -> Arrays:
    """Every tensor of one update, by name, in order; the walk's parameters are those after it.

    Names are "stage / what": rows, encoder, RSSM step t, heads, imagination, loss terms, gradients, norms, optimiser.
    """
    entries = walk.entries(rows)
    found = {f"rows / {name}": value for name, value in entries.items()}
    seen, prior, post = walk.states(image, entries, noise)
    found |= {f"encoder / {name}": value for name, value in seen.items()}
    for step in range(next(iter(post.values())).shape[1]):
        found |= {f"RSSM step {step + 1} / {name}": value[:, step] for name, value in ordered(prior, post).items()}
    found |= walk.heads(image, entries, noise)
    losses, gradients, norms = walk.update(image, entries, noise)
    found |= {f"loss terms / {name}": value for name, value in terms_first(losses).items()}
    found |= {f"gradients / {name}": value for name, value in gradients.items()}
    found |= {f"norms / {name}": value for name, value in norms.items()}
    found |= {f"optimiser step / {name}": value for name, value in walk.parameters().items()}
    return found


def ordered(prior: Arrays, post: Arrays) -> Arrays:
    """The parts of one step in the order in which they arise: the shared belief, prior, posterior and its sample."""
    found = {name: post[name] for name in BELIEFS if name in post}
    found |= {f"prior {name}": value for name, value in prior.items() if name not in (*BELIEFS, *SAMPLES)}
    found |= {f"posterior {name}": value for name, value in post.items() if name not in (*BELIEFS, *SAMPLES)}
    return found | {f"posterior {name}": post[name] for name in SAMPLES if name in post}


def imagined(features: np.ndarray, actions: np.ndarray) -> Arrays:
    """Imagination step by step, from (H, N, .) of each; step 0 is the start where features have it: (H + 1, N, .)."""
    found: Arrays = {}
    offset = len(features) - len(actions)
    if offset:
        found["imagination / step 0 features"] = features[0]
    for step, action in enumerate(actions):
        found[f"imagination / step {step + 1} action"] = action
        found[f"imagination / step {step + 1} features"] = features[step + offset]
    return found


def terms_first(losses: Arrays) -> Arrays:
    """The KL and the terms before the total that is made of them."""
    total = {name: value for name, value in losses.items() if name == "loss"}
    kl = {name: value for name, value in losses.items() if name == "kl"}
    return kl | {name: value for name, value in losses.items() if name not in ("loss", "kl")} | total


def influence(walk: Walk, image: np.ndarray, rows: Arrays, noise: Arrays) -> dict[str, int]:
    """Time alignment: the first RSSM step (from 1) whose belief and posterior feel a change of one row of an input.

    The middle row of each input is changed; rows of replay go through the agent's own reading of them. 0: no step.
    """
    middle = LENGTH // 2
    base = walk.states(image, walk.entries(rows), noise)
    changed: dict[str, tuple[np.ndarray, Arrays, Arrays]] = {}
    for name in (name for name in rows if name not in UNMOVED and rows[name].dtype.kind == "f"):
        changed[name] = (image, {**rows, name: moved(rows[name], middle)}, noise)
    if image.size:
        changed["image"] = (moved(image, middle), rows, noise)
    changed["noise"] = (image, rows, {**noise, "noise": moved(noise["noise"], middle)})
    found = {}
    for name, (picture, stored, draws) in changed.items():
        after = walk.states(picture, walk.entries(stored), draws)
        for kind, parts in (("belief", BELIEFS), ("posterior", ("mean", "logit", *SAMPLES))):
            found[f"{name} of row {middle + 1} -> {kind}"] = first_step(base[2], after[2], parts)
    return found


def moved(values: np.ndarray, row: int) -> np.ndarray:
    """The array with one row of time reversed along its last axis and moved a little: different, and still in range."""
    values = np.array(values)
    flipped = values[:, row, ..., ::-1] if values.ndim > 2 else values[:, row]
    values[:, row] = 0.5 * flipped + 0.25
    return values


def first_step(before: Arrays, after: Arrays, parts: tuple[str, ...]) -> int:
    """The first step, from 1, at which one of these parts differs; 0 if none does."""
    steps = [
        int(apart.argmax()) + 1
        for name in parts
        if name in before
        and (apart := np.any(before[name] != after[name], axis=(0, *range(2, before[name].ndim)))).any()
    ]
    return min(steps, default=0)
