"""No golden number is ignored in silence, and none is claimed that is not there."""

import numpy as np
import pytest

from tests.conftest import DEFAULT_GOLDEN
from tests.golden.ledger import LATER, PARTLY, Claim, claims, unknown
from tests.golden.loading import PAPERS

TESTED = claims()


@pytest.fixture(params=["data/golden", "--golden-dir"])
def folder(request):
    return DEFAULT_GOLDEN if request.param == "data/golden" else request.config.getoption("--golden-dir")


def test_every_case_is_tested_or_listed_for_a_later_issue(folder):
    missed = unknown(folder, TESTED | LATER.keys())
    assert not missed, "no test knows these golden numbers (ledger.py, LATER): " + "; ".join(missed)


@pytest.mark.parametrize("claim", sorted(TESTED | LATER.keys(), key=str), ids=str)
def test_every_claim_has_numbers_in_the_repository(claim):
    """A missing file would turn its tests into skips."""
    assert claim.cases(DEFAULT_GOLDEN)


def test_what_is_listed_for_later_is_not_tested_yet():
    tested = {case for claim in TESTED for case in claim.cases(DEFAULT_GOLDEN)}
    for claim in LATER:
        assert tested.isdisjoint(claim.cases(DEFAULT_GOLDEN)), f"{claim} is tested: take it off the list"


def test_what_is_listed_as_tested_in_part_is_tested():
    assert PARTLY.keys() <= TESTED


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_is_tested(paper):
    assert any(claim.paper == paper for claim in TESTED)


# The judge is judged


def test_unknown_files_and_cases_are_named(tmp_path):
    (tmp_path / "dreamerv3").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("dreamerv3/twohot_x", "dreamerv3/threehot", "twohot_y", "elsewhere/twohot_z"):
        np.savez(tmp_path / f"{name}.npz", **{"a/bins": np.zeros(3), "b/bins": np.zeros(3)})
    np.savez(tmp_path / "empty.npz")
    known = {Claim("dreamerv3", "twohot", "a")}
    assert unknown(tmp_path, known) == [
        "dreamerv3/threehot.npz case a", "dreamerv3/threehot.npz case b", "dreamerv3/twohot_x.npz case b",
        "elsewhere/twohot_z.npz case a", "elsewhere/twohot_z.npz case b", "empty.npz (empty)", "twohot_y.npz case b",
    ]  # fmt: skip


def test_claims_are_read_off_the_marks(tmp_path):
    marks = ('"misc", case="layer"', '"cem"', '"gru", paper="planet"')
    text = "\n".join(f"@pytest.mark.golden({mark})\ndef test_{i}(case): ..." for i, mark in enumerate(marks))
    (tmp_path / "test_dreamerv2_x.py").write_text(text)
    (tmp_path / "other.py").write_text(text)
    expected = {Claim("dreamerv2", "misc", "layer"), Claim("dreamerv2", "cem"), Claim("planet", "gru")}
    assert claims(tmp_path) == expected
