"""DreamerV3's mixed precision against float32: the numbers by hand, one update in either framework, a planted error."""

import numpy as np
import pandas as pd
import pytest
import torch

from replications.dreamerv3 import objectives_torch, precision

LOSSES = {
    "loss", "image_loss", "vector_loss", "reward_loss", "continuation_loss", "dynamics_loss", "representation_loss",
    "actor_loss", "critic_loss", "replay_value_loss",
}  # fmt: skip
# bfloat16 rounds to one part in 256. Held draws: no class differs, so that nothing but products is rounded. The worst
# of a loss, of a module's gradient (relative) and of its cosine; measured in torch and in JAX: 0.3 % and 0.5 %; 9 % and
# 10 %, the encoder's, where bfloat16 has many equal pixels under a maximum; 0.996 and 0.995.
LOSS, GRADIENT, COSINE = 0.01, 0.15, 0.99


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def held(frame):
    """Rows with held draws, by kind and name."""
    return frame[frame["draws"] == "held"].set_index(["kind", "name"])


def test_differences_by_hand():
    """3 and 4 against 3 and 5: 1 / 5, cosine 29 / (5 sqrt 34); a loss of 2 and 2.5: 0.25; one class of four."""
    slopes = {
        what: {f"{begin}weight": np.array([3.0]), f"{begin}zz": np.array([[last]])}
        for what, last in (("exact", 4.0), ("mixed", 5.0))
        for begin in ["actor."]
    }
    rest = {f"{begin}bias": np.ones(2) for module, begin in precision.MODULES.items() if module != "actor"}
    exact, mixed = (
        precision.Measured({"loss": np.float32(loss)}, slopes[what] | rest, np.array([1, 2, 3, last]))
        for what, loss, last in (("exact", 2.0, 0), ("mixed", 2.5, 4))
    )
    found = pd.DataFrame(list(precision.compared(exact, mixed))).set_index(["kind", "name"])
    assert found.loc[("loss", "loss"), ["float32", "mixed", "relative"]].tolist() == [2.0, 2.5, 0.25]
    actor = found.loc[("gradient", "actor")]
    assert actor["relative"] == pytest.approx(0.2) and actor["cosine"] == pytest.approx(29 / (5 * 34**0.5))
    assert (actor["float32"], actor["mixed"]) == (5.0, pytest.approx(34**0.5))
    assert found.loc[("gradient", "critic"), "relative"] == 0 == found.loc[("gradient", "encoder"), "relative"]
    assert found.loc[("classes", "classes of the posterior"), ["float32", "mixed", "relative"]].tolist() == [4, 1, 0.25]


@pytest.mark.parametrize("framework", precision.FRAMEWORKS)
def test_an_update_in_mixed_precision_is_near_float32(framework):
    """Every loss term and the gradient of every module; some are not the same, else nothing was rounded."""
    frame = precision.measure("tiny", [framework])
    assert set(frame["draws"]) == {"held", "free"} and set(frame["device"]) == {"cpu"}
    for _, of_draws in frame.groupby("draws"):
        assert set(of_draws.loc[of_draws["kind"] == "loss", "name"]) == LOSSES
        assert of_draws.loc[of_draws["kind"] == "gradient", "name"].tolist() == list(precision.MODULES)
    found = held(frame)
    assert found.loc["classes", "relative"].tolist() == [0.0]
    assert (found.loc["loss", "relative"] < LOSS).all() and (found.loc["loss", "relative"] > 0).sum() > 5
    gradients = found.loc["gradient"]
    assert gradients["relative"].between(1e-4, GRADIENT).all(), gradients
    assert (gradients["cosine"] > COSINE).all(), gradients
    assert (gradients["float32"] > 1e-4).all(), "no module is without a gradient"


def test_a_term_scaled_in_mixed_precision_is_seen(monkeypatch):
    """The continuation's loss, a fifth too large: in its own row, in its module's gradient, and in no other head's."""
    own = objectives_torch.bernoulli_log_prob

    def planted(*arguments):
        return own(*arguments) * (1.2 if torch.is_autocast_enabled("cpu") else 1.0)

    monkeypatch.setattr(objectives_torch, "bernoulli_log_prob", planted)
    found = held(precision.measure("tiny", ["torch"]))["relative"]
    assert found["loss", "continuation_loss"] == pytest.approx(0.2, abs=0.05)
    assert found["gradient", "continuation"] == pytest.approx(0.2, abs=0.05)
    assert found["loss", "reward_loss"] < LOSS and found["gradient", "reward"] < LOSS


def test_the_command_writes_the_numbers(tmp_path, monkeypatch):
    frame = pd.DataFrame([{"framework": "torch", "relative": 0.25}])
    monkeypatch.setattr(precision, "measure", lambda size: frame if size == "tiny" else None)
    assert precision.main(["--numbers", str(tmp_path / "new" / "p.csv"), "--size", "tiny"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "p.csv"), frame)
