"""The lines of shared/formulas/README.md that say how each paper slices and clips: they run, and do what is written."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import shared.formulas
from shared.formulas import divergences, returns
from shared.formulas._backend import stop_gradient
from tests.formulas.test_core import FORMULAS

README = (Path(shared.formulas.__file__).parent / "README.md").read_text(encoding="utf-8")
LAMBDA = 0.95


def code(heading):
    """The Python block below a heading."""
    return re.search(rf"^## {heading}$.*?^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]


def run_line(line, names):
    library = {"xp": np, "lambda_return": returns.lambda_return, "stop_gradient": stop_gradient}
    library |= {"floor_nats": divergences.floor_nats, "balanced": divergences.balanced}
    return eval(line.partition("=")[2] if re.match(r"\w+ = ", line) else line, library | names)


def imagined(states=5, batch=3):
    rng = np.random.default_rng(0)
    names = ("reward", "discount", "value", "cont", "boot")
    arrays = dict(zip(names, rng.uniform(0, 1, (len(names), states, batch)), strict=True))
    term, last = rng.random((2, states, batch)) < [[[0.3]], [[0.5]]]
    return arrays | {"term": term * 1.0, "last": last * 1.0}


def recursion(reward, discount, next_value, bootstrap, rows, share=lambda t: LAMBDA):
    """R_t for t = rows - 1, ..., 0 from functions of t: the papers' words."""
    result, later = [], bootstrap
    for t in reversed(range(rows)):
        later = reward(t) + discount(t) * ((1 - share(t)) * next_value(t) + share(t) * later)
        result.append(later)
    return np.stack(result[::-1])


def expected_returns():
    """In the order of the README: Dreamer TF2 and TF1, DreamerV2, DreamerV3 imagined and replayed."""
    x = imagined()
    r, d, v, c, boot, term, last = (x[n] for n in ("reward", "discount", "value", "cont", "boot", "term", "last"))
    here, at, after = (lambda t: r[t]), (lambda t: d[t]), (lambda t: v[t + 1])
    return [
        recursion(here, at, after, v[4], 4),
        recursion(here, at, lambda t: v[min(t + 1, 3)], v[3], 4),
        recursion(here, lambda t: c[t], after, v[4], 4),
        recursion(lambda t: r[t + 1], lambda t: c[t + 1], after, v[4], 4),
        recursion(
            lambda t: r[t + 1], lambda t: (1 - term[t + 1]) * (1 - 1 / 333), lambda t: boot[t + 1], boot[4], 4,
            lambda t: LAMBDA * (1 - last[t + 1]),
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("place", range(5))
def test_each_paper_slices_as_written(place):
    lines = [line for line in code("Who slices how").splitlines() if line.startswith("lambda_return(")]
    assert len(lines) == 5
    assert_allclose(run_line(lines[place], imagined()), expected_returns()[place], rtol=1e-14)


def test_each_paper_clips_as_written():
    # KL of 1 and 6 nats: PlaNet max(0, KL - 3) -> mean of 0 and 3; Dreamer TF2 max(3.5, 3); DreamerV2, 4 nats free:
    # max(3.5, 4); DreamerV3: mean of 1 and 6, both ways round.
    lines = [line for line in code("Who clips how").splitlines() if line]
    planet, dreamer, v2, dyn, rep = lines
    names = {"kl": np.array([1.0, 6.0])}
    assert run_line(planet, names) == 1.5
    assert run_line(dreamer, names) == 3.5
    statistics = {"post": np.array([1.0, 6.0]), "prior": np.zeros(2), "free": 4.0, "kl": lambda p, q: p - q}
    assert run_line(v2, statistics) == 4.0
    assert run_line(dyn, statistics) == run_line(rep, statistics) == 3.5


def test_every_name_in_the_table_is_a_formula():
    table = re.search(r"^## Which formula is whose$(.*?)^## ", README, re.MULTILINE | re.DOTALL)[1]
    rows = [line for line in table.splitlines() if re.match(r"\| `", line)]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(name.rpartition(".")[2] for name in FORMULAS)


def test_every_link_leads_to_a_file():
    folder = Path(shared.formulas.__file__).parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 15
    assert [link for link in links if not (folder / link).is_file()] == []
