"""The reader of golden files."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEFAULT_GOLDEN
from tests.golden.loading import Case, find, options, weights

KINDS = [
    "gru_block", "rssm_cell", "ssm_cell", "drnn_cell", "unroll", "kl_free_nats", "overshooting_toy",
    "overshooting_rssm", "cem", "preprocess", "conv_small", "conv_full", "reward_head", "loss_full", "adam_clip",
    "schedule",
]  # fmt: skip


@pytest.mark.parametrize("prefix", KINDS)
def test_every_kind_is_in_the_repository(prefix):
    """A missing file would turn its tests into skips."""
    assert find(DEFAULT_GOLDEN, prefix)


def test_files_are_found_by_their_beginning_with_and_without_subfolder(tmp_path):
    (tmp_path / "planet").mkdir()
    (tmp_path / "dreamer").mkdir()
    for name in ("cem_b.npz", "planet/cem_a.npz", "planet/cement.txt", "planet/old_cem.npz", "dreamer/cem_c.npz"):
        (tmp_path / name).touch()
    assert [path.name for path in find(tmp_path, "cem")] == ["cem_a.npz", "cem_b.npz"]
    assert [path.name for path in find(tmp_path / "planet", "cem")] == ["cem_a.npz"]


def test_meta_is_split_where_a_name_begins():
    meta = "seed=91 divisor=8 (depths [4, 8]) feature=12; input = level/32 - 0.5 "
    meta += "scales={'a': 1.0, 'b': 0} act=relu os=True f=0.5"
    assert options({"meta": np.array(meta)}) == {
        "seed": 91, "divisor": 8, "feature": 12, "scales": {"a": 1.0, "b": 0}, "act": "relu", "os": True, "f": 0.5,
    }  # fmt: skip
    assert options({}) == {}


def test_weights_are_named_without_their_prefix():
    arrays = {"w/gru/b_c": 1, "g_w/gru/b_c": 2, "x": 3}
    assert weights(arrays) == {"gru/b_c": 1}
    assert weights(arrays, "g_w/") == {"gru/b_c": 2}


def test_pickled_contents_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Case(Path(tmp_path / "bad.npz")).load()
