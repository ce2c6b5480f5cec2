"""Number level: torch and JAX part nowhere; a planted bug in a copy of an implementation is found and named.

Copies are of replications/<paper> alone, changed in one line. Sizes are those of scale smoke; two chunks of five rows.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.checkpoint import load_tree, save_tree
from shared.config import ROOT, papers
from shared.diff import numbers
from shared.diff import side as side_process
from shared.diff.cli import main
from shared.diff.numbers import Side
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME
from shared.diff.things import default_scale
from shared.errors import UserError

SCALE = numbers.read_scale(default_scale())
VARIANTS = {"planet": "rssm", "dreamer": "atari", "dreamerv2": "control", "dreamerv3": "dreamerv3"}
WALKED = [paper for paper in papers() if (ROOT / "replications" / paper / "walk_jax.py").is_file()]
# What is planted: file -> (line as it is, line with the bug).
SHIFT_IN_ROWS = (
    "agent_torch.py",
    'before = previous_actions(rows["action"], rows["is_first"], rows["action_before"])',
    'before = rows["action"]',
)
SHIFT_IN_RSSM = (
    "model_torch.py",
    "x, belief = self._advance(state, action[:, t])",
    "x, belief = self._advance(state, action[:, max(t - 1, 0)])",
)
KL_TURNED = (
    "agent_torch.py",
    'kl = gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)',
    'kl = gaussian_kl(prior["mean"], prior["std"], post["mean"], post["std"]).sum(-1)',
)
GRADIENT_CUT = (
    "agent_torch.py",
    '"reward": (loss.reward_scale, cost(reward, model.reward(features)).mean()),',
    '"reward": (loss.reward_scale, cost(reward, model.reward(features.detach())).mean()),',
)
EPSILON = (
    "agent_torch.py",
    'self.optimiser.param_groups[0]["eps"] = settings.epsilon / math.sqrt(1 - settings.beta2**self.updates)',
    'self.optimiser.param_groups[0]["eps"] = settings.epsilon',
)


@pytest.fixture(autouse=True, scope="module")
def quick(tmp_path_factory):
    """JAX compiles with the older emitters: half the time."""
    patch = pytest.MonkeyPatch()
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    patch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """(question, folder with it and the answer of the repository's own PlaNet in torch, that answer)."""
    folder = tmp_path_factory.mktemp("asked")
    question = numbers.question("planet", "rssm", None, SCALE, 10)
    save_tree(folder / "question.h5", question)
    return question, folder, numbers.run(Side("planet", "torch"), folder, "a", ask=True)


def copy_with(tmp_path: Path, planted) -> Path:
    """A copy of PlaNet's folder with one line changed."""
    name, line, bug = planted
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "replications" / "planet", folder)
    text = (folder / name).read_text()
    assert text.count(line) == 1, "the line to change has changed"
    (folder / name).write_text(text.replace(line, bug))
    return folder


def walked(folder: Path, question) -> dict:
    """A copy's answer from this process, which spares importing torch again; what the command does is tested below."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("replications.planet")}
    try:
        side_process.overlay("planet", folder)
        return side_process.answer("planet", "torch", question)
    finally:
        for name in [name for name in sys.modules if name.startswith("replications.planet")]:
            del sys.modules[name]
        sys.modules.update(kept)


def outcome_of(asked, tmp_path, planted):
    question, folder, own = asked
    side = Side("planet", "torch", copy_with(tmp_path, planted))
    other = walked(side.folder, load_tree(folder / "question.h5"))
    return numbers.judge(Side("planet", "torch"), side, own, other, question, numbers.TOLERANCE, plots=False)


@pytest.mark.parametrize(
    ("planted", "first", "words", "shift"),
    [
        (SHIFT_IN_ROWS, "rows / action", "the action acts 1 step earlier in B", -1),
        (SHIFT_IN_RSSM, "RSSM step 2 / belief", "the action acts 1 step later in B", 1),
    ],
    ids=["rows", "rssm"],
)
def test_a_shifted_action_is_found_and_named(asked, tmp_path, planted, first, words, shift):
    outcome = outcome_of(asked, tmp_path, planted)
    assert (outcome.verdict, outcome.status) == (DIFFERS, 1)
    assert outcome.facts["first"] == first and first in outcome.reason
    assert words in outcome.reason, outcome.reason
    assert outcome.facts["alignment"]["action of row 3 -> belief"] == shift
    assert not any(key.startswith(("image", "noise")) for key in outcome.facts["alignment"])


@pytest.mark.parametrize(
    ("planted", "first"),
    [
        (KL_TURNED, "loss terms / kl"),
        (GRADIENT_CUT, "gradients / encoder.convs.0.weight"),
        (EPSILON, "optimiser step / "),
    ],
    ids=["kl", "gradient", "epsilon"],
)
def test_other_bugs_are_found_where_they_are(asked, tmp_path, planted, first):
    outcome = outcome_of(asked, tmp_path, planted)
    assert outcome.verdict == DIFFERS and outcome.facts["first"].startswith(first), outcome.reason
    assert outcome.facts["alignment"] == {} and "Shifted" not in outcome.reason
    stages = {row[0]: row[2] for row in next(t for t in outcome.tables if "stage by stage" in t.title).rows}
    assert stages["optimiser step"] > 0, "free nats hide no gradient"
    growth = outcome.facts["growth"]["parameters"]
    assert growth["10"] > 1e-6


def test_an_unchanged_copy_is_the_same_bit_by_bit(asked, tmp_path):
    question, folder, own = asked
    shutil.copytree(ROOT / "replications" / "planet", tmp_path / "copy")
    side = Side("planet", "torch", tmp_path / "copy")
    other = walked(side.folder, load_tree(folder / "question.h5"))
    outcome = numbers.judge(Side("planet", "torch"), side, own, other, question, 0.0, plots=False)
    assert outcome.verdict == SAME and max(outcome.facts["growth"]["parameters"].values()) == 0
    stages = [row[0] for row in next(t for t in outcome.tables if "stage by stage" in t.title).rows]
    assert stages[0] == "rows" and stages[1] == "encoder" and stages[-1] == "optimiser step"
    assert "heads" in stages and stages.index("gradients") > stages.index("loss terms") > stages.index("heads")


@pytest.mark.parametrize("paper", WALKED)
def test_torch_and_jax_part_nowhere(paper):
    """The whole walk; parity over a hundred updates is held by tests/replications/test_*_parity.py."""
    outcome = numbers.compare(
        Side(paper, "torch"), Side(paper, "jax"), variant=VARIANTS[paper], scale=SCALE, updates=2, plots=False
    )
    assert outcome.verdict == SAME, outcome.reason
    assert outcome.facts["tensors"] > 100 and outcome.facts["alignment"] == {}
    table = next(t for t in outcome.tables if t.title == "Time alignment")
    reach = {row[0]: row[1] for row in table.rows}
    context = int(paper == "dreamerv3")  # its windows begin with a row that is not learned from
    assert reach["action of row 3 -> belief"] == 4 - context, "the action of a row leads to the next"
    assert reach["noise of row 3 -> posterior"] == 3
    if not context:
        assert reach["image of row 3 -> posterior"] == 3
        assert reach["image of row 3 -> belief"] in (4, 0), "0: a small change leaves every one-hot sample as it was"
    assert reach["reward of row 3 -> posterior"] == 0, "a reward is predicted, not seen"


def test_a_part_that_only_one_side_has_is_told():
    base = {"places": {"rows / action": np.ones(2), "heads / image": np.ones(2)}, "influence": {}, "seconds": 0.0}
    base["growth"] = {"1": {"losses": {"loss": np.ones(())}, "parameters": {"w": np.ones(2)}}}
    other = {**base, "places": {"rows / action": np.ones(2)}}
    asked = {"variant": "rssm", "task": "t"}
    outcome = numbers.judge(Side("planet", "torch"), Side("planet", "jax"), base, other, asked, 1e-10, plots=False)
    assert outcome.verdict == DIFFERS and outcome.tables[0].rows == [("heads / image", "A")]


def test_the_command_finds_the_bug_in_a_copy(tmp_path, capsys):
    """As a new user types it: python -m shared.diff planet/torch planet/torch=COPY."""
    folder = copy_with(tmp_path, SHIFT_IN_RSSM)
    files = ["--json", str(tmp_path / "diff.json"), "--updates", "1"]
    assert main(["planet/torch", f"planet/torch={folder}", *files]) == 1
    said = capsys.readouterr().out
    assert "they part first at RSSM step 2 / belief" in said and "Shifted: the action acts 1 step later in B" in said
    assert json.loads((tmp_path / "diff.json").read_text())["facts"]["first"] == "RSSM step 2 / belief"


def test_two_papers_are_not_comparable():
    outcome = numbers.compare(Side("planet", "torch"), Side("dreamer", "torch"), variant="rssm", scale=SCALE)
    assert (outcome.verdict, outcome.status) == (NOT_COMPARABLE, 2) and "different papers" in outcome.reason


def test_a_side_that_fails_says_why(asked, tmp_path):
    folder = copy_with(tmp_path, ("model_torch.py", "class Encoder(nn.Module):", "class Encode(nn.Module):"))
    with pytest.raises(UserError, match="its walk failed") as caught:
        numbers.run(Side("planet", "torch", folder), asked[1], "b", ask=False)
    assert "Encoder" in str(caught.value)


def test_the_task_of_a_variant_is_its_experiments_first():
    assert numbers.task_of("dreamer", "atari").startswith("atari_")
    assert numbers.task_of("planet", "rssm") == "cartpole_swingup"
    assert numbers.task_of("dreamerv3", "crafter-size12m") == "crafter_reward"  # of its own: a pattern of `special`
    with pytest.raises(UserError, match="no experiment runs"):
        numbers.task_of("planet", "nothing")
