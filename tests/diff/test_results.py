"""Result level: the grid, the statistics, the rule, and what must not be compared; a weaker learner is found."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest

from shared.diff import published, rule, statistics
from shared.diff.compare import TaskPair, compare, conclude, obstacles, scaled, tail
from shared.diff.grid import Curves, on_grid, pair, threshold
from shared.diff.groups import EVALUATION, TRAINING, Group, of_release
from shared.diff.measured import measured
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME
from shared.figures import aggregate

VISION = "dreamerv3/2024/dmc_vision"


def release(name=VISION, task="*"):
    return of_release(published.releases()[name], task)


def seeds(group, which, name="ours", **changes):
    """Some seeds of a release as a group of our runs."""
    points = {kind: table[table["seed"].isin(which)].reset_index(drop=True) for kind, table in group.points.items()}
    values = {"paper": group.paper, "version": group.variants[0], "scale": "paper", "framework": "torch"}
    return Group(name, **{**values, "points": points, **changes})


def weaker(group, share):
    """The same runs with a share of their returns lost (control tasks begin near 0)."""
    points = {kind: table.assign(**{"return": (1 - share) * table["return"]}) for kind, table in group.points.items()}
    return Group(group.name, group.paper, group.version, "paper", points, framework="torch")


# ------------------------------------------------------------------------------------------------ planted


@pytest.fixture(scope="module")
def halves():
    """The published seeds in two halves: one as ours, one as what is published."""
    whole = release()
    return seeds(whole, range(5)), seeds(whole, range(5, 10), "rest", published=True, variants=whole.variants)


def test_the_published_agent_itself_is_inside_its_band(halves):
    outcome = compare(*halves, plots=False)
    assert outcome.verdict == SAME and outcome.facts["over_tasks"] == rule.INSIDE
    assert outcome.facts["counts"][rule.INSIDE] >= 14, outcome.facts


def test_a_weaker_learner_is_found(halves):
    """Planted: five of the published seeds, a quarter of every return lost."""
    ours, reference = halves
    outcome = compare(weaker(ours, 0.25), reference, plots=False)
    assert outcome.verdict == DIFFERS and outcome.facts["over_tasks"] == rule.BELOW
    assert outcome.facts["counts"][rule.BELOW] >= 12 and outcome.facts["counts"][rule.ABOVE] == 0
    better = next(row for row in outcome.tables[2].rows if row[0] == "probability of improvement")
    assert better[5] < 0.5, "the interval excludes equality"
    assert "below" in outcome.reason


def test_a_weaker_learner_on_one_task_is_named(halves):
    ours, reference = halves
    tables = {kind: table.copy() for kind, table in ours.points.items()}
    for table in tables.values():
        table.loc[table["task"] == "walker_walk", "return"] *= 0.5
    outcome = compare(Group("ours", ours.paper, ours.version, "paper", tables), reference, plots=False)
    assert outcome.facts["tasks"]["walker_walk"] == rule.BELOW and outcome.facts["tasks"]["walker_stand"] == rule.INSIDE


# ------------------------------------------------------------------------------------------------ not comparable


def group(**changes):
    points = pd.DataFrame(
        {"task": "walker_walk", "seed": [0, 0, 1, 1], "env_steps": [1e5, 1e6] * 2, "return": [1.0, 2.0, 3.0, 4.0]}
    )
    start = {"name": "ours", "paper": "dreamerv3", "version": "vision-2024", "scale": "paper"}
    return Group(**{**start, "points": {TRAINING: points}, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "decisions"}, "units: .* decisions"),
        ({"scale": "smoke"}, "scale: ours is of scale smoke"),
        ({"version": "proprio-2023"}, "version: .* vision-2024 is set as, ours is proprio-2023"),
        ({"paper": "dreamerv2"}, "version: ours is dreamerv2"),
        ({"faults": ("MIXED code in torch",)}, "mixture: MIXED code"),
    ],
)
def test_what_cannot_be_compared_is_told_by_its_kind(changes, words):
    ours, reference = group(**changes), release(task="walker_walk")
    assert any(re.search(words, reason) for reason in obstacles(ours, reference))
    outcome = compare(ours, reference, plots=False)
    assert outcome.verdict == NOT_COMPARABLE and outcome.status == 2 and outcome.tables, "numbers for orientation"


def test_evaluation_and_training_returns_are_not_compared():
    points = group().points[TRAINING]
    outcome = compare(group(points={EVALUATION: points}), release(task="walker_walk"), plots=False)
    assert outcome.verdict == NOT_COMPARABLE and "protocol" in outcome.reason


def test_no_task_in_common_is_not_comparable():
    other = group(points={TRAINING: group().points[TRAINING].assign(task="dog_run")})
    outcome = compare(other, release(), plots=False)
    assert outcome.verdict == NOT_COMPARABLE and "tasks: none in common" in outcome.reason


def test_a_run_a_tenth_as_long_is_not_comparable():
    short = group().points[TRAINING].assign(env_steps=lambda t: t["env_steps"] / 10)
    assert any("length" in reason for reason in obstacles(group(points={TRAINING: short}), release(task="walker_walk")))


def test_two_seeds_are_too_few_to_say():
    outcome = compare(group(), release(task="walker_walk"), plots=False)
    assert outcome.verdict == NOT_COMPARABLE and rule.TOO_FEW in outcome.reason


# ------------------------------------------------------------------------------------------------ grid


def test_the_grid_by_hand():
    """Bins (0, 10], (10, 20]: run 0 has 1 and 3, then 5; run 1 ends early and keeps its 4."""
    points = pd.DataFrame({"seed": [0, 0, 0, 1], "env_steps": [5, 10, 20, 10], "return": [1.0, 3.0, 5.0, 4.0]})
    curves = on_grid("t", points, np.array([10.0, 20.0]))
    np.testing.assert_allclose(curves.values, [[2, 5], [4, 4]])
    assert curves.short == 1 and curves.start == 3.0
    np.testing.assert_allclose(curves.area, [3.5, 4])
    np.testing.assert_allclose(curves.final, [5, 4])
    np.testing.assert_allclose(curves.reach(4.0), [20, 10])
    assert np.isinf(curves.reach(9.0)).all()
    assert threshold(curves) == pytest.approx(3 + 0.8 * 1.5)


def test_both_sides_share_the_grid_of_the_shorter():
    def table(steps):
        return pd.DataFrame({"task": "t", "seed": 0, "env_steps": steps, "return": np.asarray(steps, float)})

    one, other = pair("t", table([100, 200, 300, 400]), table([50, 100, 150, 200]))
    np.testing.assert_allclose(one.edges, [100, 200])
    np.testing.assert_allclose(one.values, [[100, 200]])
    np.testing.assert_allclose(other.values, [[75, 175]])


# ------------------------------------------------------------------------------------------------ statistics


def scores(random, *counts):
    return [random.normal(size=count) for count in counts]


def test_aggregates_are_those_of_the_figures():
    found = scores(np.random.default_rng(0), 5, 5, 7)
    every = np.concatenate(found)
    assert statistics.interquartile_mean(found) == pytest.approx(aggregate.interquartile_mean(every))
    assert statistics.mean(found) == pytest.approx(np.mean([x.mean() for x in found]))
    assert statistics.median(found) == pytest.approx(np.median([x.mean() for x in found]))
    assert statistics.optimality_gap([np.array([0.5, 2.0])]) == 0.25


def test_probability_of_improvement_by_hand():
    """1 beats 0, ties with 1, loses to 2: (1 + 0.5 + 0) / 3."""
    assert statistics.improvement([np.array([1.0])], [np.array([0.0, 1.0, 2.0])]) == pytest.approx(0.5)
    a, b = scores(np.random.default_rng(0), 4, 3), scores(np.random.default_rng(1), 5, 2)
    by_pairs = np.mean([np.mean([(x > y) for x, y in itertools.product(p, q)]) for p, q in zip(a, b, strict=True)])
    assert statistics.improvement(a, b) == pytest.approx(by_pairs)


def test_the_interval_of_a_difference_is_the_bootstraps():
    """Against the figures' own bootstrap of one side, the other side being a constant."""
    one = scores(np.random.default_rng(2), 8, 8)
    value, low, high = statistics.estimate(one, [np.zeros(8)] * 2, statistics.difference(statistics.mean))
    strata = [[np.array([x]) for x in task] for task in one]
    expected = aggregate.bootstrap_interval(strata, aggregate.mean, np.random.default_rng(0))
    np.testing.assert_allclose((low, high), expected, atol=0.05)
    assert value == pytest.approx(np.mean([x.mean() for x in one])) and low < value < high


def test_one_seed_has_no_interval():
    value, low, high = statistics.estimate([np.array([1.0])], [np.array([0.0, 2.0])], statistics.improvement)
    assert value == 0.5 and math.isnan(low) and math.isnan(high)


# ------------------------------------------------------------------------------------------------ rule


def test_the_band_by_hand():
    """Five seeds of mean 10 and std 2, four more: 10 +- 2.776 * 2 * sqrt(1/5 + 1/4)."""
    published_ = 10 + 2 * np.array([-1.26491106, -0.63245553, 0, 0.63245553, 1.26491106])
    low, high = rule.band(published_, 4, 0.0)
    reach = 2.776445 * 2 * math.sqrt(1 / 5 + 1 / 4)
    assert (low, high) == (pytest.approx(10 - reach, abs=1e-5), pytest.approx(10 + reach, abs=1e-5))


def test_equal_seeds_leave_two_percent():
    assert rule.band(np.full(5, 1000.0), 5, 0.0) == (980.0, 1020.0)


@pytest.mark.parametrize(
    ("ours", "found"),
    [
        ([900, 910, 905], rule.INSIDE),
        ([700, 710, 690], rule.BELOW),
        ([1200, 1210, 1190], rule.ABOVE),
        ([900], rule.TOO_FEW),
    ],
)
def test_the_verdict(ours, found):
    published_ = np.array([880.0, 900, 920, 910, 890])
    assert rule.verdict(np.array(ours, float), published_, 10.0)[0] == found


def test_seeds_that_scatter_cannot_say_inside():
    """Half the gain would go unnoticed, so a mean inside the band says nothing."""
    assert rule.verdict(np.array([400.0, 600, 500]), np.array([0.0, 1000, 500, 900, 100]), 0.0)[0] == rule.TOO_FEW


def test_the_false_alarms_are_those_of_normal_seeds():
    """2000 tasks of normal seeds: 5% by construction, measured to half a percent."""
    random = np.random.default_rng(0)
    found = rule.false_alarms([random.normal(1, 1, 6) for _ in range(2000)], 3, [1.0] * 2000)
    assert (found.seeds, found.left, found.tasks) == (3, 3, 2000)
    assert found.rate == pytest.approx(0.05, abs=0.005)


def test_the_verdict_over_tasks_keeps_its_level():
    """Normal seeds on ten tasks, one of them scattering ten times as much: outside in about 5% of 1000 experiments."""
    random = np.random.default_rng(1)
    spread = np.array([10.0, *[1.0] * 9])[:, None]
    out = 0
    for _ in range(1000):
        one, other = random.normal(size=(10, 5)) * spread, random.normal(size=(10, 5)) * spread
        out += rule.verdict_over_tasks(list(one), list(other))[0] != rule.INSIDE
    assert 0.025 <= out / 1000 <= 0.065


def test_the_false_alarms_over_tasks_are_those_of_normal_seeds():
    random = np.random.default_rng(3)
    rates = [rule.false_alarms_over_tasks([random.normal(size=6) for _ in range(20)], 3) for _ in range(30)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.03)


def test_power_grows_with_weakness_and_with_seeds():
    published_ = np.random.default_rng(0).normal(800, 100, 10)
    by_weakness = [rule.power(published_, 5, 0.0, weakness) for weakness in (0.0, 0.1, 0.25, 0.5)]
    by_seeds = [rule.power(published_, seeds, 0.0, 0.25) for seeds in (1, 3, 10)]
    assert by_weakness == sorted(by_weakness) and by_weakness[0] < 0.08 and by_weakness[-1] > 0.95
    assert by_seeds == sorted(by_seeds)
    chance = rule.power_over_tasks([published_] * 3, 5, [0.0] * 3, 0.25)
    assert chance > rule.power(published_, 5, 0.0, 0.25)


def test_the_false_alarms_of_the_published_seeds_are_as_the_readme_says():
    outcome = measured(["dreamerv3/2024/dmc_vision", "dreamer"])
    rates = {(row[0], row[2], row[3]): row[5] for row in outcome.tables[0].rows}
    assert rates[(VISION, 5, 5)] < 0.07
    assert outcome.facts["mean"] < 0.1


def test_many_tasks_outside_are_more_than_chance():
    assert tail(0, 20, 0.05) == pytest.approx(1.0)
    assert tail(1, 1, 0.05) == pytest.approx(0.05)
    assert tail(4, 20, 0.05) < 0.05 < tail(3, 20, 0.05)
    curves = Curves("t", np.array([1.0]), np.ones((5, 1)), 0)

    class Pair:
        task, ours, reference = "t", curves, curves

    inside, below = (rule.INSIDE, ""), (rule.BELOW, "")
    assert conclude([Pair] * 20, [inside] * 18 + [below] * 2, inside)[0] == SAME
    found, reason = conclude([Pair] * 20, [inside] * 16 + [below] * 4, inside)
    assert found == DIFFERS and "4 of 20 tasks outside" in reason


def test_games_are_normalised_by_a_gamer_and_say_who_is_left_out():
    outcome = compare(release("dreamerv3/2024/atari"), release("dreamerv3/2023/atari"), plots=False)
    assert any("gamer-normalised" in note for note in outcome.notes)
    assert len(outcome.facts["tasks"]) == 55


def test_the_57_games_of_dreamerv3_have_a_scale_and_the_55_of_dreamerv2_keep_theirs():
    for names, random in ((["atari_alien"], 228.8), (["atari_alien", "atari_surround", "atari_defender"], 227.8)):
        kept, units, note = scaled([TaskPair(name, None, None) for name in names])
        assert [p.task for p in kept] == names and "left out" not in note
        assert units[0] == pytest.approx((random, 7127.7 - random))
