"""shared/config.py: layers, strict models, and a person's words for every mistake."""

import math
import textwrap
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from shared.config import (
    Strict,
    build,
    for_task,
    papers,
    read_resolved,
    read_variants,
    read_yaml,
    resolve,
    to_text,
    write_resolved,
)
from shared.errors import UserError

PAPER = """
model:
  deter_size: 200        # paper: Appendix A
  min_std: 0.1           # code: configs.py
  latent: rssm           # paper: Section 3
  shadow: null           # ours: none
  relu: true             # paper: Appendix A
optimiser:
  learning_rate: 1.0e-3  # paper: Appendix A
environment:
  action_repeat:
    cartpole_swingup: 8  # paper: Appendix A
    walker_walk: 2       # paper: Appendix A
"""
EXPERIMENTS = """
figure_4:
  variants:
    rssm: {}
    small: {model: {deter_size: 8}}
figure_5:
  variants:
    small: {model: {deter_size: 8}}
"""


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "replications" / "planet"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text(PAPER)
    (folder / "experiments.yaml").write_text(EXPERIMENTS)
    return tmp_path


def scale(**overrides):
    return {"name": "smoke", "overrides": {"planet": overrides} if overrides else {}}


def refused(call, *parts):
    """The message of the UserError that call raises; every part must be in it."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"
    return message


# ------------------------------------------------------------------------------------------------ layers


def test_the_paper_alone_is_untouched(root):
    got = resolve("planet", "rssm", scale(), root=root)
    assert (got["paper"], got["variant"], got["scale"], got["overrides"]) == ("planet", "rssm", "smoke", [])
    assert got["values"] == yaml.safe_load(PAPER)


def test_variant_then_scale_and_each_override_is_recorded_with_its_layer(root):
    got = resolve("planet", "small", scale(optimiser={"learning_rate": 0.5}), root=root)
    assert got["values"]["model"]["deter_size"] == 8
    assert got["values"]["optimiser"]["learning_rate"] == 0.5
    assert got["overrides"] == [
        {"key": "model.deter_size", "value": 8, "layer": "variant"},
        {"key": "optimiser.learning_rate", "value": 0.5, "layer": "scale"},
    ]


def test_a_scale_does_not_undo_what_a_variant_is_and_the_value_is_recorded_once(root):
    got = resolve("planet", "small", scale(model={"deter_size": 4}), root=root)
    assert got["values"]["model"]["deter_size"] == 8
    assert got["overrides"] == [{"key": "model.deter_size", "value": 8, "layer": "variant"}]
    other = resolve("planet", "rssm", scale(model={"deter_size": 4}), root=root)
    assert other["overrides"] == [{"key": "model.deter_size", "value": 4, "layer": "scale"}]


@pytest.mark.parametrize("pattern", ["small", "sm*"])
def test_a_scale_that_names_a_variant_wins_over_it(root, pattern):
    small = scale(model={"deter_size": 4})
    small["overrides"][f"planet/{pattern}"] = {"model": {"deter_size": 2}}
    got = resolve("planet", "small", small, root=root)
    assert got["values"]["model"]["deter_size"] == 2
    assert got["overrides"] == [{"key": "model.deter_size", "value": 2, "layer": "scale"}]
    assert resolve("planet", "rssm", small, root=root)["values"]["model"]["deter_size"] == 4


def test_a_scale_that_names_no_variant_is_told_for_every_variant(root):
    small = scale()
    small["overrides"]["planet/smal"] = {"model": {"deter_size": 2}}
    refused(lambda: resolve("planet", "rssm", small, root=root), "'planet/smal'", "did you mean 'small'?")


def test_an_override_equal_to_the_paper_is_no_override(root):
    small = scale()
    small["overrides"]["planet/small"] = {"model": {"deter_size": 200}}
    assert resolve("planet", "small", small, root=root)["overrides"] == []


def test_null_may_be_filled_and_a_whole_number_fits_a_decimal(root):
    got = resolve("planet", "rssm", scale(model={"shadow": 512, "min_std": 1}), root=root)
    assert got["values"]["model"]["shadow"] == 512
    assert got["values"]["model"]["min_std"] == 1


def test_the_order_of_lines_and_comments_mean_nothing(root):
    before = resolve("planet", "rssm", scale(), root=root)
    path = root / "replications" / "planet" / "paper.yaml"
    turned = yaml.safe_load(PAPER)
    turned = {group: dict(reversed(turned[group].items())) for group in reversed(turned)}
    path.write_text("# a comment\n" + yaml.safe_dump(turned, sort_keys=False))
    after = resolve("planet", "rssm", scale(), root=root)
    assert to_text(after) == to_text(before)


def test_for_task_keeps_only_what_concerns_the_task(root):
    resolved = resolve("planet", "rssm", scale(environment={"action_repeat": {"walker_walk": 4}}), root=root)
    mine = for_task(resolved, "cartpole_swingup")
    assert mine["values"]["environment"]["action_repeat"] == {"cartpole_swingup": 8}
    assert mine["overrides"] == []
    theirs = for_task(resolved, "walker_walk")
    assert theirs["values"]["environment"]["action_repeat"] == {"walker_walk": 4}
    assert [o["key"] for o in theirs["overrides"]] == ["environment.action_repeat.walker_walk"]
    assert mine["values"]["model"] == resolved["values"]["model"]


def test_unknown_paper(root):
    refused(lambda: resolve("planett", "rssm", scale(), root=root), "'planett'", "did you mean 'planet'?")


def test_unknown_variant(root):
    refused(lambda: resolve("planet", "smal", scale(), root=root), "'smal'", "did you mean 'small'?", "rssm, small")


GRID = """
figure_12:
  grid:
    name: "r{:.0e}-d{:03}-{}"
    axes:
      optimiser.learning_rate: [1.0e-3, 1.0e-2]
      model.deter_size, model.latent: [[8, rssm], [16, ssm]]
"""


@pytest.fixture
def grid(root):
    """Writes experiments with a grid, a part of its text changed; returns the root."""

    def write(old="", new=""):
        assert old in GRID
        path = root / "replications" / "planet" / "experiments.yaml"
        path.write_text(EXPERIMENTS + GRID.replace(old, new, 1) if old else EXPERIMENTS + GRID)
        return root

    return write


def test_a_grid_is_every_combination_named_by_its_values(grid):
    root = grid()
    added = {
        name: changes for name, changes in read_variants("planet", root=root).items() if name[0] == "r" and "-" in name
    }
    rate, size, latent = "optimiser.learning_rate", "model.deter_size", "model.latent"
    assert added == {
        "r1e-03-d008-rssm": {rate: 1e-3, size: 8, latent: "rssm"},
        "r1e-03-d016-ssm": {rate: 1e-3, size: 16, latent: "ssm"},
        "r1e-02-d008-rssm": {rate: 1e-2, size: 8, latent: "rssm"},
        "r1e-02-d016-ssm": {rate: 1e-2, size: 16, latent: "ssm"},
    }
    got = resolve("planet", "r1e-02-d016-ssm", scale(model={"deter_size": 4}), root=root)
    assert got["values"]["model"] | {"deter_size": 16, "latent": "ssm"} == got["values"]["model"]
    assert [(o["key"], o["layer"]) for o in got["overrides"]] == [
        (size, "variant"),
        (latent, "variant"),
        (rate, "variant"),
    ]


def test_a_scale_cuts_axes_of_a_grid_and_the_names_follow(grid):
    root = grid()
    small = {**scale(), "grids": {"planet": {"figure_12": {"model.deter_size, model.latent": [[2, "rssm"]]}}}}
    assert [name for name in read_variants("planet", small, root=root) if "-" in name] == [
        "r1e-03-d002-rssm",
        "r1e-02-d002-rssm",
    ]
    assert resolve("planet", "r1e-02-d002-rssm", small, root=root)["values"]["model"]["deter_size"] == 2
    refused(lambda: resolve("planet", "r1e-02-d016-ssm", small, root=root), "no variant 'r1e-02-d016-ssm'")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("r{:.0e}-d{:03}-{}", "d{1:03}", ["two combinations", "a place for every value"]),
        ("-{}", "-{}-{}", ["cannot hold the values", "a place such as"]),
        ("{:03}", "{:03x2}", ["cannot hold the values"]),
        ("[16, ssm]", "16", ["16 on axis 'model.deter_size, model.latent'", "a list of 2 values"]),
        ("[16, ssm]", "[16]", ["[16] on axis", "a list of 2 values"]),
        ("    name:", "    nam:", ["figure_12, grid", "'nam'", "did you mean 'name'?"]),
        (
            "optimiser.learning_rate: [1.0e-3, 1.0e-2]",
            "optimiser.learning_rate: []",
            ["figure_12, grid", "learning_rate"],
        ),
    ],
)
def test_a_grid_that_means_nothing_is_told(grid, old, new, words):
    root = grid(old, new)
    refused(lambda: read_variants("planet", root=root), *words)


def test_a_grid_may_only_change_a_key_that_the_paper_has(grid):
    root = grid("optimiser.learning_rate", "optimiser.learnin_rate")
    refused(
        lambda: resolve("planet", "r1e-03-d008-rssm", scale(), root=root), "learnin_rate", "optimiser.learning_rate"
    )


def test_a_scale_cannot_make_the_name_of_a_grids_variant_untrue(grid):
    root, small = grid(), scale(optimiser={"learning_rate": 0.5}, model={"min_std": 0.5})
    small["overrides"]["planet/r1e*"] = {"model": {"min_std": 0.2}}
    assert resolve("planet", "r1e-03-d008-rssm", small, root=root)["values"]["model"]["min_std"] == 0.2
    small["overrides"]["planet/r1e*"] = {"model": {"deter_size": 16}}
    assert resolve("planet", "r1e-03-d016-ssm", small, root=root)["values"]["model"]["deter_size"] == 16
    words = ["planet/r1e*: model.deter_size = 16", "the name of r1e-03-d008-rssm untrue", "`grids`"]
    refused(lambda: resolve("planet", "r1e-03-d008-rssm", small, root=root), *words)


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ({"figure_13": {}}, ["'figure_13'", "did you mean 'figure_12'?"]),
        ({"figure_4": {}}, ["'figure_4'", "figure_12"]),
        ({"figure_12": {"model.deter_size": [1]}}, ["no axis 'model.deter_size'", "model.deter_size, model.latent"]),
    ],
)
def test_a_scale_can_cut_only_what_a_grid_has(grid, cut, words):
    root = grid()
    refused(lambda: read_variants("planet", {**scale(), "grids": {"planet": cut}}, root=root), *words)


def test_one_variant_name_means_one_thing(root):
    path = root / "replications" / "planet" / "experiments.yaml"
    path.write_text(EXPERIMENTS.replace("deter_size: 8", "deter_size: 9", 1))
    refused(lambda: resolve("planet", "rssm", scale(), root=root), "'small'", "figure_4", "figure_5", "another name")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"model": {"deter_sise": 8}}, ["model.deter_sise", "did you mean 'model.deter_size'?", "scale smoke"]),
        ({"planner": {"learning_rate": 1.0}}, ["planner.learning_rate", "did you mean 'optimiser.learning_rate'?"]),
        ({"model": {"deter_size": "5e6"}}, ["model.deter_size = '5e6' is text", "a whole number", "write 5_000_000"]),
        ({"optimiser": {"learning_rate": "1e-3"}}, ["'1e-3' is text", "a decimal number", "write 1.0e-3"]),
        ({"model": {"deter_size": 8.5}}, ["8.5 is a decimal number", "a whole number (200)"]),
        ({"model": {"latent": False}}, ["False is true or false", "the paper has text", "put the word in quotes"]),
        ({"model": {"relu": 1}}, ["1 is a whole number", "true or false"]),
        ({"model": 3}, ["model is a group", "model.deter_size"]),
        ({"model": {"deter_size": {"x": 1}}}, ["model.deter_size is one value (200)", "write model.deter_size: VALUE"]),
    ],
)
def test_override_that_does_not_fit(root, overrides, parts):
    refused(lambda: resolve("planet", "rssm", scale(**overrides), root=root), *parts)


def test_overrides_that_are_no_group(root):
    refused(lambda: resolve("planet", "rssm", {"name": "x", "overrides": {"planet": [1]}}, root=root), "expected keys")


def test_papers_lists_what_stands():
    assert "planet" in papers()


# ------------------------------------------------------------------------------------------------ typed models


class Inner(Strict):
    deter_size: int
    latent: Literal["rssm", "ssm"]
    min_std: float
    shadow: int | None
    relu: bool
    repeat: dict[str, int]
    widths: tuple[int, ...]


class Outer(Strict):
    model: Inner

    @model_validator(mode="after")
    def small_enough(self):
        if self.model.deter_size > 1000:
            raise ValueError(f"model.deter_size ({self.model.deter_size}) exceeds 1000; lower it")
        return self


GOOD = {
    "deter_size": 8,
    "latent": "rssm",
    "min_std": 1,
    "shadow": None,
    "relu": True,
    "repeat": {"cartpole": 8},
    "widths": [1, 2],
}


def built(**changes):
    values = {key: value for key, value in {**GOOD, **changes}.items() if value != "MISSING"}
    return build(Outer, {"model": values}, where="paper.yaml")


def test_build_keeps_values_and_is_frozen():
    model = built().model
    assert (model.deter_size, model.min_std, model.widths, model.shadow) == (8, 1.0, (1, 2), None)
    with pytest.raises(ValueError, match="frozen"):
        model.deter_size = 9


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"deter_size": "5e6"}, ["model.deter_size = '5e6'", "expected integer", "got text", "write 5_000_000"]),
        ({"min_std": "1e-3"}, ["model.min_std = '1e-3'", "YAML 1.1 reads 1e-3 as text: write 1.0e-3"]),
        ({"min_std": "wide"}, ["model.min_std = 'wide'", "expected number"]),
        ({"min_std": math.nan}, ["model.min_std", "finite number"]),
        ({"deter_size": 2.5}, ["model.deter_size = 2.5", "a decimal number"]),
        ({"deter_size": True}, ["model.deter_size = True", "got true or false"]),
        ({"latent": "rsm"}, ["model.latent = 'rsm'", "'rssm' or 'ssm'"]),
        ({"latent": False}, ["model.latent = False", "in quotes"]),
        ({"shadow": "big"}, ["model.shadow = 'big'", "expected integer"]),
        ({"relu": "maybe"}, ["model.relu = 'maybe'", "boolean"]),
        ({"repeat": {"cartpole": "x"}}, ["model.repeat.cartpole = 'x'"]),
        ({"widths": [1, "x"]}, ["model.widths.1 = 'x'"]),
        ({"widths": 3}, ["model.widths = 3", "a whole number"]),
        ({"deter_sise": 3}, ["unknown key 'model.deter_sise'", "did you mean 'deter_size'?", "known here: deter_size"]),
        ({"deter_size": "MISSING"}, ["key 'model.deter_size' is missing", "add it"]),
        ({"deter_size": 5000}, ["model.deter_size (5000) exceeds 1000; lower it"]),
    ],
)
def test_build_names_key_value_expected_and_way_out(changes, parts):
    message = refused(lambda: built(**changes), *parts)
    assert message.startswith("paper.yaml: ")


def test_build_tells_every_problem_at_once():
    refused(lambda: built(deter_size="x", latent="y"), "model.deter_size", "model.latent")


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_the_way_out_of_the_float_trap_is_the_same_number(number):
    text = f"{number:.0e}"  # as in 1e-03: no point
    with pytest.raises(UserError) as caught:
        built(min_std=text)
    assert yaml.safe_load(str(caught.value).rpartition("write ")[2]) == float(text)


# ------------------------------------------------------------------------------------------------ files


def test_resolved_survives_a_round_trip(root, tmp_path):
    resolved = resolve("planet", "small", scale(optimiser={"learning_rate": 1e-7}), root=root)
    path = tmp_path / "deep" / "config.yaml"
    write_resolved(path, resolved)
    assert read_resolved(path) == resolved
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\na: 2\n", ["line 2", "'a' is written twice"]),
        ("a: {b: 1, b: 2}\n", ["'b' is written twice"]),
        ("on: 1\n", ["'on' is read as true or false", "quotes"]),
        ("a: [1\n", ["line"]),
        ("- 1\n", ["expected keys with values, got a list"]),
        ("", ["expected keys with values, got null"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["could not determine a constructor"]),
    ],
)
def test_yaml_that_is_no_config(tmp_path, text, parts):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    refused(lambda: read_yaml(path), str(path), *parts)


def test_missing_and_binary_files(tmp_path):
    refused(lambda: read_yaml(tmp_path / "no.yaml"), "no file", "no.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    refused(lambda: read_yaml(tmp_path / "x.yaml"), "not UTF-8")


def test_a_file_that_is_no_resolved_config(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text(textwrap.dedent(PAPER))
    refused(lambda: read_resolved(path), "not a resolved config", "environment, model, optimiser", "paper, scale")


def test_a_failed_write_leaves_nothing(tmp_path):
    class Odd:
        pass

    with pytest.raises(yaml.YAMLError):
        write_resolved(tmp_path / "config.yaml", {"values": Odd()})
    assert list(tmp_path.iterdir()) == []
