"""The reader of golden files."""

import shutil

import numpy as np
import pytest

from tests.conftest import DEFAULT_GOLDEN
from tests.golden.conftest import checked, paper_of
from tests.golden.ledger import LATER, claims
from tests.golden.loading import PAPERS, Case, cases, find, options, take, weights

FLAT = {"meta": np.array("seed=1"), "x": np.zeros(2)}


def ids(found):
    return [case.id for case in found]


def test_files_are_found_by_their_beginning_with_and_without_subfolder(tmp_path):
    (tmp_path / "planet").mkdir()
    (tmp_path / "dreamer").mkdir()
    for name in ("cem_b", "planet/cem_a", "planet/old_cem", "dreamer/cem_c"):
        np.savez(tmp_path / f"{name}.npz", **FLAT)
    (tmp_path / "planet" / "cement.txt").touch()
    assert ids(find(tmp_path, "planet", "cem")) == ["cem_a", "cem_b"]
    assert ids(find(tmp_path / "planet", "planet", "cem")) == ["cem_a"]
    assert ids(find(tmp_path / "planet", "dreamer", "cem")) == []           # the folder's own name counts too


def test_a_file_is_one_case_or_several(tmp_path):
    np.savez(tmp_path / "one.npz", **{"x": np.ones(2, np.float32), "w/gru/bias": np.zeros(3)})
    np.savez(tmp_path / "two.npz", **{"num_cases": 2, "a/x": np.zeros(1), "b/x": np.zeros(2), "a/w/gru": np.zeros(3)})
    assert ids(cases(tmp_path / "one.npz")) == ["one"]
    assert ids(cases(tmp_path / "two.npz")) == ["two.a", "two.b"]
    assert list(cases(tmp_path / "two.npz")[0].load()) == ["x", "w/gru"]
    assert ids(find(tmp_path, "planet", "two", "b")) == ["two.b"]
    (case,) = cases(tmp_path / "one.npz")
    assert (case.load()["x"].dtype, case.double()["x"].dtype) == (np.float32, np.float64)


def test_name_and_contents_tell_the_paper_of_a_file_outside_of_a_papers_folder(tmp_path):
    """For every file there is. PlaNet's and Dreamer's adam_clip are one format: each is a case of both."""
    for path in DEFAULT_GOLDEN.glob("*/*.npz"):
        shutil.copy(path, tmp_path / f"{path.stem}_{path.parent.name}.npz")
    for claim in claims() | LATER.keys():
        papers = {case.path.stem.rpartition("_")[2] for case in claim.cases(tmp_path)}
        assert papers == ({"planet", "dreamer"} if claim.prefix == "adam_clip" else {claim.paper}), claim


def test_a_file_of_no_telltale_belongs_to_nobody(tmp_path):
    np.savez(tmp_path / "lambda_return_x.npz", **{"a/returns": np.zeros(3)})
    assert not any(find(tmp_path, paper, "lambda_return") for paper in PAPERS)


def test_the_paper_is_in_the_modules_name():
    assert paper_of("tests.golden.test_dreamerv3_core") == "dreamerv3"
    for name in ("tests.golden.test_loading", "test_dreamerv4_core", "dreamer_core"):
        with pytest.raises(pytest.UsageError, match="test_<paper>_"):
            paper_of(name)


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(pytest.UsageError, match="no such folder"):
        checked(tmp_path / "nowhere")
    with pytest.raises(pytest.UsageError, match="no .npz file in it"):
        checked(tmp_path)


def test_meta_is_split_where_a_name_begins():
    meta = "seed=91 divisor=8 (depths [4, 8]) feature=12; input = level/32 - 0.5 "
    meta += "scales={'a': 1.0, 'b': 0} act=relu os=True f=0.5 lambda=0.95 discount: 0.99"
    assert options({"meta": np.array(meta)}) == {
        "seed": 91, "divisor": 8, "feature": 12, "scales": {"a": 1.0, "b": 0}, "act": "relu", "os": True, "f": 0.5,
        "lambda": 0.95,
    }  # fmt: skip
    assert options({}) == {}


def test_hyperparameters_become_python_values():
    arrays = {"hp_lam": np.array(0.95), "hp_mults": np.array([2, 3]), "hp_norm": np.array("rms"), "x": np.zeros(2)}
    assert options(arrays) == {"lam": 0.95, "mults": [2, 3], "norm": "rms"}


def test_weights_are_named_without_their_prefix():
    arrays = {"w/gru/b_c": 1, "g_w/gru/b_c": 2, "x": 3}
    assert weights(arrays) == {"gru/b_c": 1}
    assert weights(arrays, "g_w/") == {"gru/b_c": 2}
    assert list(take(arrays, "x", "w/gru/b_c").values()) == [3, 1]


def test_pickled_contents_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Case(tmp_path / "bad.npz").load()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "cem_x.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cem_x.npz is no .npz file"):
        find(tmp_path, "planet", "cem")
