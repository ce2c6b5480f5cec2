"""State diagnostics: the small networks, features of both frameworks, the file of a whole run, and messages."""

import functools
import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from numpy.random import PCG64, Generator, SeedSequence
from safetensors.numpy import save_file

from replications.planet import diagnostics
from replications.planet.config import Config
from replications.planet.train import framework_module
from shared.config import build, to_text
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.formulas.images import quantise
from shared.results import RunWriter
from tests import tiny
from tests.envs.conftest import renderer  # noqa: F401  a fixture
from tests.figures.conftest import PROVENANCE

TASK = "cheetah_run"
CHANGES = {
    "environment__time_limit_env_steps": 80,
    "environment__shadow_size": 64,
    "batch__length": 3,
    "video__length": 8,
    "video__context": 3,
    "evaluation__episodes": 2,
}
IMAGE = {"image": ArraySpec((64, 64, 3), "uint8")}


def generator(seed=0):
    return Generator(PCG64(seed))


def new_agent(framework, seed=1, **changes):
    config = build(Config, tiny.values(**{**CHANGES, **changes}), where="a test")
    return framework_module(framework).PlanetAgent(config, IMAGE, ActSpec(6), seed=SeedSequence(seed))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The file of a finished run of an untrained agent, with its parameters; cached by framework."""

    @functools.cache
    def make(framework):
        path = tmp_path_factory.mktemp(framework) / "seed_0.h5"
        write_run(path, framework=framework)
        save_file({name: np.ascontiguousarray(v) for name, v in new_agent(framework).parameters().items()},
                  path.with_suffix(".safetensors"))  # fmt: skip
        return path

    return make


def write_run(path, *, framework="torch", complete=True, task=TASK, **changes):
    resolved = {"paper": "planet", "variant": "rssm", "scale": "smoke", "overrides": []}
    writer = RunWriter(
        path,
        identity={**{key: resolved[key] for key in ("paper", "variant", "scale")}, "framework": framework, "task": task,
                  "seed": 0},
        config_text=to_text({**resolved, "values": tiny.values(**{**CHANGES, **changes})}),
        overrides=[],
        provenance=PROVENANCE,
        total_env_steps=0,
    )  # fmt: skip
    (writer.finish if complete else writer.flush)()
    return path if complete else writer.partial


# ------------------------------------------------------------------------------------------------ small networks


def test_gradients_equal_torchs():
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=shape), rng.normal(size=shape[1])) for shape in ((3, 5), (5, 4), (4, 2))]
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    tensors = [[torch.tensor(part, requires_grad=True) for part in layer] for layer in layers]
    value = torch.tensor(x)
    for number, (weight, bias) in enumerate(tensors):
        value = value @ weight + bias
        value = value.relu() if number < 2 else value
    torch.nn.functional.mse_loss(value, torch.tensor(y)).backward()
    np.testing.assert_allclose(diagnostics.forward(layers, x)[-1], value.detach(), rtol=1e-12)
    for layer, expected in zip(diagnostics.gradients(layers, x, y), tensors, strict=True):
        for got, want in zip(layer, expected, strict=True):
            np.testing.assert_allclose(got, want.grad, rtol=1e-10, atol=1e-12)


def test_a_fit_reads_what_is_there_and_not_what_is_not(monkeypatch):
    # Targets: a bent function of the features in other units, pure noise, and a constant.
    monkeypatch.setattr(diagnostics, "PASSES", 50)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (4000, 4))
    known = 100 + 50 * np.abs(x[:, 0] - 3)
    y = np.stack([known, rng.normal(size=4000), np.full(4000, 7.0)], 1)
    read = diagnostics.fit(x[:3000], y[:3000], generator())
    got = read(x[3000:].reshape(10, 100, 4)).reshape(1000, 3)
    unexplained = ((got - y[3000:]) ** 2).mean(0)[:2] / y[3000:].var(0)[:2]
    assert unexplained[0] < 0.03 and unexplained[1] > 0.9
    np.testing.assert_allclose(got[:, 2], 7, atol=0.2)


def test_a_fit_depends_on_its_seed_alone(monkeypatch):
    monkeypatch.setattr(diagnostics, "PASSES", 15)
    x, y = np.random.default_rng(0).normal(size=(2, 50, 2))
    one, same, other = (diagnostics.fit(x, y, generator(seed))(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


# ------------------------------------------------------------------------------------------------ features


def inputs(agent, length=6, size=2):
    rng = np.random.default_rng(3)
    image = quantise(rng.integers(0, 256, (size, length, 64, 64, 3)).astype(np.float32), 5)
    action = rng.uniform(-1, 1, (size, length, 6)).astype(np.float32)
    noise = rng.standard_normal((size, length, agent.config.model.stoch_size)).astype(np.float32)
    return image, action, noise


def features(framework, agent, *arrays, context):
    module = __import__(f"replications.planet.diagnostics_{framework}", fromlist=["latent_features"])
    return module.latent_features(agent.model, *arrays, context=context)


@pytest.mark.parametrize("latent", ["rssm", "ssm"])
def test_both_frameworks_have_the_same_features(latent):
    agents = {framework: new_agent(framework, model__latent=latent) for framework in ("torch", "jax")}
    agents["jax"].load_parameters(agents["torch"].parameters())
    arrays = inputs(agents["torch"])
    for context in (2, 6):
        one, other = (features(name, agent, *arrays, context=context) for name, agent in agents.items())
        assert one.shape == (2, 6, {"rssm": 12, "ssm": 4}[latent])
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_images_after_the_context_are_not_seen_and_actions_are(framework):
    agent = new_agent(framework)
    image, action, noise = inputs(agent)
    got = features(framework, agent, image, action, noise, context=2)
    other = image.copy()
    other[:, 2:] = 0
    np.testing.assert_array_equal(features(framework, agent, other, action, noise, context=2), got)
    whole = features(framework, agent, image, action, noise, context=6)
    np.testing.assert_allclose(whole[:, :2], got[:, :2], rtol=1e-5, atol=1e-6)
    assert not np.allclose(whole[:, 2:], got[:, 2:], atol=1e-3)
    turned = action.copy()
    turned[:, 4] *= -1
    moved = features(framework, agent, image, turned, noise, context=2)
    np.testing.assert_allclose(moved[:, :4], got[:, :4], rtol=1e-5, atol=1e-6)
    assert not np.allclose(moved[:, 4:], got[:, 4:], atol=1e-4)


# ------------------------------------------------------------------------------------------------ a whole run


def call(run, out, *extra):
    return diagnostics.main(["--run", str(run), "--out", str(out), "--threads", "1", "--device", "cpu", *extra])


@pytest.fixture(scope="module")
def diagnosed(finished_run, renderer):  # noqa: F811
    """Framework -> the diagnostics of its run, and the positions in its training episodes. Little is fitted."""

    @functools.cache
    def make(framework):
        run, seen, fit = finished_run(framework), [], diagnostics.fit
        out = run.with_suffix(".diagnostics.h5")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(diagnostics, "PASSES", 20)
            patch.setattr(diagnostics, "fit", lambda *arrays: seen.append(arrays[1]) or fit(*arrays))
            assert call(run, out) == 0
        return diagnostics.read_diagnostics(out), seen[0].reshape(4, 21, 8)  # four episodes of 20 decisions

    return make


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_run_becomes_series_of_held_out_episodes(framework, diagnosed):
    found, _ = diagnosed(framework)
    sizes = {"position": 8, "velocity": 9, "reward": 1}  # the suite's own states of the cheetah
    for series in (found.truth, found.prediction, found.filtered):
        assert {name: value.shape for name, value in series.items()} == {n: (2, 8, k) for n, k in sizes.items()}
        assert all(np.isfinite(value).all() for value in series.values())
    for name, value in found.prediction.items():
        np.testing.assert_allclose(value[:, :3], found.filtered[name][:, :3], rtol=1e-3, atol=1e-4)  # the context
        assert not np.allclose(value[:, 3:], found.filtered[name][:, 3:])
        assert found.spread[name].shape == (sizes[name],)
    assert found.attrs["context"] == 3 and found.attrs["training_episodes"] == 4
    assert json.loads(found.attrs["kinds"]) == ["agent", "random"]
    assert (found.attrs["framework"], found.attrs["task"], found.attrs["seed"]) == (framework, TASK, 0)
    with h5py.File(found.path) as file:
        assert file["provenance"].attrs["code_digest"] and "--run" in file["provenance"].attrs["command"]
    assert sorted(path.suffix for path in found.path.parent.iterdir()) == [".h5", ".h5", ".safetensors"]


def test_random_episodes_are_the_same_in_both_frameworks_and_no_training_episode_is_held_out(diagnosed):
    (one, trained), (other, _) = diagnosed("torch"), diagnosed("jax")
    for name in one.truth:
        np.testing.assert_array_equal(one.truth[name][1], other.truth[name][1])
    for held_out in one.truth["position"]:
        assert all(not np.array_equal(held_out, episode[:8]) for episode in trained)


@pytest.mark.usefixtures("renderer")
def test_episodes_are_whole_and_rewards_belong_to_the_row_arrived_at():
    from shared.envs.dmc import Simulator
    from shared.envs.vector import VectorEnv
    from shared.training.random_agent import RandomAgent

    config = build(Config, tiny.values(**CHANGES), where="a test")
    envs = VectorEnv(diagnostics.make_env(config, TASK), 2, SeedSequence(5))
    rows = diagnostics.episodes(RandomAgent(envs.act_spec, SeedSequence(6)), envs)
    envs.close()
    assert rows["image"].shape == (2, 21, 64, 64, 3) and rows["is_last"][:, -1].all() and rows["is_first"][:, 0].all()
    states = diagnostics.states_of(rows)
    assert list(states) == ["position", "velocity", "reward"]
    oracle = Simulator(TASK, action_repeat=4, time_limit_env_steps=80)
    oracle.restart(SeedSequence(5, spawn_key=(1, 0)))
    for step in range(3):
        np.testing.assert_array_equal(states["position"][1, step], oracle.observation()["position"])
        reward = oracle.advance(rows["action"][1, step])[0]
        assert states["reward"][1, step + 1, 0] == np.float32(reward)
    oracle.close()


# ------------------------------------------------------------------------------------------------ messages


def told(capsys, run, out, *words):
    assert call(run, out) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"complete": False}, ["not finished", "finish it first"]),
        ({"framework": "numpy"}, ["framework numpy has no model"]),
        ({"task": "all_tasks"}, ["'all_tasks' is no single task"]),
        ({"task": "toy_reach"}, ["'toy_reach' is none of dm_control's suite"]),
        ({}, ["seed_0.safetensors: no such file"]),
    ],
)
def test_a_run_without_what_is_needed(tmp_path, capsys, changes, words):
    told(capsys, write_run(tmp_path / "seed_0.h5", **changes), tmp_path / "seed_0.diagnostics.h5", *words)


@pytest.mark.usefixtures("renderer")
def test_parameters_of_another_run_and_damaged_ones(finished_run, tmp_path, capsys):
    write_run(tmp_path / "seed_0.h5", model__deter_size=9)
    shutil.copy(finished_run("torch").with_suffix(".safetensors"), tmp_path)
    told(capsys, tmp_path / "seed_0.h5", tmp_path / "a.diagnostics.h5", "not of one run", "(")
    (tmp_path / "seed_0.safetensors").write_bytes(b"no weights")
    told(capsys, tmp_path / "seed_0.h5", tmp_path / "a.diagnostics.h5", "not a safetensors file")


def test_a_name_that_would_be_taken_for_a_run(finished_run, tmp_path, capsys):
    assert call(tmp_path / "seed_0.h5", tmp_path / "seed_1.h5") == 2
    assert "ends in .diagnostics.h5" in capsys.readouterr().err


def test_a_file_that_is_no_diagnostics_is_told(tmp_path):
    run = write_run(tmp_path / "seed_0.h5")
    (tmp_path / "text").write_text("no HDF5")
    for path, words in (
        (run, "no state diagnostics"),
        (tmp_path / "text", "damaged"),
        (tmp_path / "x", "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            diagnostics.read_diagnostics(path)
