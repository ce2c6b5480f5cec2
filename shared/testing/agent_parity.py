"""Do the agents of two frameworks act, predict and load alike? Used by tests/replications/test_*_parity.py.

`agents` is always {"torch": agent, "jax": agent} of one paper, drawing the same noise. parity.py compares the numbers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from shared.testing.agent_suite import rows_of
from shared.testing.parity import assert_same
from shared.training.loop import to_numpy

FLOAT32 = 1e-4  # of losses, beliefs and actions; norms of gradients, which add up millions of squares: ten times that


def share_parameters(agents: Mapping[str, Any], trained: str, folder: Path) -> None:
    """What one framework has learned and saved, both load."""
    path = folder / "parameters.safetensors"
    save_file(agents[trained].parameters(), path)
    for agent in agents.values():
        agent.load_parameters(load_file(path))


def check_metrics(learned: Mapping[str, Any], what: str) -> None:
    """Losses and norms of gradients of one update, of both frameworks ({framework: what `learn` returned})."""
    got, expected = ({name: float(x) for name, x in learned[f].metrics.items()} for f in ("jax", "torch"))
    for tolerance, norms in ((FLOAT32, False), (10 * FLOAT32, True)):
        ours, theirs = ({n: x for n, x in xs.items() if n.endswith("_norm") == norms} for xs in (got, expected))
        assert_same(ours, theirs, tolerance, what)


def check_decisions(agents: Mapping[str, Any], batch: dict, what: str, *, steps: int = 4) -> None:
    """Belief, action and memo at every row, exploring at every other, over a restart of the second row's episode."""
    carries = {name: agent.initial_carry(len(batch["reward"])) for name, agent in agents.items()}
    for time in range(steps):
        rows = rows_of(batch, time, is_first=time == 0)
        rows["is_first"][1] |= time == 2
        acted = {name: agent.act(rows, carries[name], explore=time % 2 == 1) for name, agent in agents.items()}
        carries = {name: done.carry for name, done in acted.items()}
        got, expected = ({name: to_numpy(x) for name, x in carries[f].items()} for f in ("jax", "torch"))
        assert_same(got, {name: expected[name] for name in got}, FLOAT32, f"{what}, decision {time}")
        assert_same(acted["jax"].memo, acted["torch"].memo, FLOAT32, f"{what}, memo of decision {time}")
        assert np.abs(got["action"]).max() > 0.01, "actions of zero show nothing"


def check_films(agents: Mapping[str, Any], batch: dict, *, levels: int = 256) -> None:
    """The predicted film, but for pixels (1 in 1000) at the edge between two of its levels."""
    films = {name: agent.predict(batch, context=2) for name, agent in agents.items()}
    np.testing.assert_array_equal(films["jax"]["truth"], films["torch"]["truth"])
    steps = np.abs(films["jax"]["prediction"].astype(int) - films["torch"]["prediction"]) // (256 // levels)
    assert steps.max() <= 1 and steps.mean() <= 1e-3, (steps.max(), steps.mean())
    assert np.ptp(films["jax"]["prediction"]) >= 8, "a film without contrast shows little"


def check_one_parameter_file(agents: Mapping[str, Any], folder: Path) -> None:
    """Parameters have the same names in the same order, and what one writes the other reads, to the bit."""
    ours, theirs = agents["jax"], agents["torch"]
    assert list(ours.parameters()) == list(theirs.parameters()), "the same names in the same order"
    for source, target in ((ours, theirs), (theirs, ours)):
        save_file(source.parameters(), folder / "parameters.safetensors")
        target.load_parameters(load_file(folder / "parameters.safetensors"))
        written, read = source.parameters(), target.parameters()
        for name, value in written.items():
            np.testing.assert_array_equal(read[name], value, err_msg=name)
