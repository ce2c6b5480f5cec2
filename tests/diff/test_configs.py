"""Config level and ledger: a changed hyperparameter is found, named with its source, and told in the right order."""

import pytest

from shared.config import leaves, paper_folder, papers, read_variants, read_yaml, resolve, write_resolved
from shared.diff import configs
from shared.diff.consequence import ORDER, consequence
from shared.diff.ledger import ROWS, ledger
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME
from shared.errors import UserError

PAPER = {"name": "paper"}


def rows_of(outcome, title):
    return next(table.rows for table in outcome.tables if table.title.startswith(title))


def test_a_changed_hyperparameter_is_found_and_named(tmp_path):
    """Planted: the free nats in a copy of a config, among 74 equal values."""
    resolved = resolve("planet", "rssm", PAPER)
    write_resolved(tmp_path / "a.yaml", resolved)
    resolved["values"]["loss"]["free_nats"] = 2.0
    write_resolved(tmp_path / "b.yaml", resolved)
    outcome = configs.compare(configs.read(tmp_path / "a.yaml"), configs.read(tmp_path / "b.yaml"))
    assert outcome.verdict == DIFFERS and outcome.status == 1
    (row,) = outcome.tables[0].rows
    assert row[:4] == ("loss.free_nats", "objective", 3.0, 2.0)
    assert row[4] == "paper: Appendix A; code: scripts/configs.py:189"
    assert "loss.free_nats" in outcome.reason and "what is minimised" in outcome.reason


def test_equal_configs_are_the_same():
    outcome = configs.compare(configs.of_paper("planet"), configs.of_paper("planet", "rssm"))
    assert (outcome.verdict, outcome.status, outcome.tables) == (SAME, 0, [])


def test_a_variant_is_told_by_its_layer_and_the_most_consequential_comes_first():
    outcome = configs.compare(configs.of_paper("planet", "rssm"), configs.of_paper("planet", "first-release"))
    rows = outcome.tables[0].rows
    order = [ORDER.index(row[1]) for row in rows]
    assert order == sorted(order) and order[0] == 0 and rows[-1][0] == "replay.prefetch_chunks"
    assert {row[5] for row in rows} == {"variant first-release of experiments.yaml"}
    assert outcome.facts["equal"] + len(rows) == len(configs.of_paper("planet").values)


def test_nothing_in_common_is_not_comparable():
    one = configs.Settings("one", "one", {"a": 1}, {})
    outcome = configs.compare(one, configs.Settings("two", "two", {"b": 1}, {}))
    assert (outcome.verdict, outcome.status) == (NOT_COMPARABLE, 2)


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (2.0, 2)])
def test_a_whole_number_equals_its_decimal(one, other):
    settings = [configs.Settings("x", "x", {"a": value}, {}) for value in (one, other)]
    assert configs.differences(*settings) == []


def test_true_is_not_one():
    settings = [configs.Settings("x", "x", {"a": value}, {}) for value in (True, 1)]
    assert len(configs.differences(*settings)) == 1


@pytest.mark.parametrize("paper", papers())
def test_every_value_of_every_paper_has_a_source_and_a_class(paper):
    settings = configs.of_paper(paper)
    assert [key for key in settings.values if settings.sources[key] == "not told"] == []
    assert [key for key in settings.values if consequence(key) == "other"] == []


def test_the_ledger_leaves_nothing_out():
    """Every value of every paper is in a row of the ledger or below it."""
    outcome = ledger()
    named = {(row[1], row[3]) for row in rows_of(outcome, "Where each value")}
    rest = {row[0] for row in rows_of(outcome, "All other values")}
    for paper in outcome.facts["columns"]:
        settings = configs.of_paper(*paper.split("/"))
        left = {key for key in settings.values if (paper, key) not in named and key not in rest}
        assert not left, (paper, left)


def test_the_ledger_says_what_changed_from_v1_to_v2():
    changes = {row[1]: row[2:] for row in rows_of(ledger(), "From dreamer to dreamerv2")}
    assert changes["latents"] == ("gaussian", "categorical")
    assert changes["KL balance (share of the prior)"] == (None, 0.8)
    assert changes["free nats"] == (3.0, 0.0)
    assert changes["learning rate, world model"] == (6e-4, 2e-4)
    assert "stochastic variables" in changes and "lambda of the returns" not in changes


def test_every_key_of_the_ledger_exists_somewhere():
    """A row that no paper of this checkout answers is for DreamerV3, until that is here."""
    keys = {key for paper in papers() for key, _ in leaves(read_yaml(paper_folder(paper) / "paper.yaml"), where=paper)}
    unanswered = [
        thing
        for things in read_yaml(ROWS)["rows"].values()
        for thing, row in things.items()
        if not any(key in keys or "{" in key for key in row["keys"])
    ]
    assert "dreamerv3" not in papers() or unanswered == []
    assert "latents" not in unanswered and "free nats" not in unanswered


def test_what_the_ledger_says_of_papers_without_a_key_is_of_papers_without_it():
    for things in read_yaml(ROWS)["rows"].values():
        for thing, row in things.items():
            for paper in set(row.get("without") or {}) & set(papers()):
                assert not set(row["keys"]) & set(configs.of_paper(paper).values), (thing, paper)


def test_columns_are_chosen_by_name_and_a_wrong_one_is_told():
    variant = next(name for name in read_variants("dreamer") if name == "atari")
    assert ledger([f"dreamer/{variant}", "dreamerv2"]).facts["columns"] == ["dreamer/atari", "dreamerv2"]
    with pytest.raises(UserError, match="did you mean 'dreamer'"):
        ledger(["dreame", "planet"])
    with pytest.raises(UserError, match="two or more"):
        ledger(["planet"])
