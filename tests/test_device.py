"""The noise that device_torch.py and device_jax.py draw several numbers at a time: uniform, independent, repeatable;
and which of XLA's kernels JAX is given."""

import os

import jax
import numpy as np
import pytest
import torch

from shared import device_jax, device_torch
from shared.config import ROOT

LEVELS = 2**16
OLDER = "--xla_cpu_use_fusion_emitters=false"
YNN = "--xla_cpu_experimental_ynn_fusion_type=dot,reduce,eltwise"


def draw(framework: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    if framework == "torch":
        return device_torch.uniform(torch.Generator().manual_seed(seed), shape).numpy()
    return np.asarray(device_jax.uniform(jax.random.key(seed), shape))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_uniform_noise_is_uniform_over_its_levels(framework):
    noise = draw(framework, 0, (1000, 1000))
    assert noise.dtype == np.float32 and noise.min() == 0 and noise.max() == 1 - 1 / LEVELS
    levels = noise.ravel() * LEVELS
    assert (levels == levels.round()).all()
    counts = np.bincount(levels.astype(int) // 256, minlength=256)  # 256 bins, 3906.25 expected in each
    assert ((counts - 3906.25) ** 2 / 3906.25).sum() < 345  # chi-square, 255 degrees of freedom, p = 0.0001


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_numbers_of_one_draw_are_independent(framework):
    noise = draw(framework, 1, (250_000, 4)).astype(np.float64)
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.01


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("shape", [(1,), (3, 7), (2, 0), (5, 1, 3)])
def test_any_shape_is_filled_and_a_seed_repeats_it(framework, shape):
    noise = draw(framework, 2, shape)
    assert noise.shape == shape
    np.testing.assert_array_equal(noise, draw(framework, 2, shape))
    if noise.size > 2:
        assert (noise != draw(framework, 3, shape)).any()


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("0.10.2", None, f"{OLDER} {YNN}"),
        ("0.10.2", "--xla_dump_to=/tmp/x", f"--xla_dump_to=/tmp/x {OLDER} {YNN}"),
        ("0.10.2", "--xla_cpu_use_fusion_emitters=true", f"--xla_cpu_use_fusion_emitters=true {YNN}"),  # the user's own
        ("0.10.2", f"{YNN},individual_convolution", f"{YNN},individual_convolution {OLDER}"),
        ("0.10.3", "", ""),  # XLA would end the process, were a flag gone
    ],
)
def test_kernels_are_chosen_where_the_flags_are_known(monkeypatch, version, before, after):
    monkeypatch.setattr(device_jax.jaxlib, "__version__", version)
    monkeypatch.setenv("XLA_FLAGS", "")  # so that it is put back afterwards
    if before is None:
        monkeypatch.delenv("XLA_FLAGS")
    else:
        monkeypatch.setenv("XLA_FLAGS", before)
    device_jax.choose_kernels()
    assert os.environ.get("XLA_FLAGS", "") == after


def test_the_kernels_are_those_of_the_pinned_version():
    """With another one: try the flags, measure, and change device_jax.JAXLIB."""
    assert f"jaxlib=={device_jax.JAXLIB}" in (ROOT / "requirements.lock").read_text().splitlines()


def test_the_tests_of_agents_are_compiled_with_the_kernels_of_runs():
    makefile = (ROOT / "Makefile").read_text()
    assert 'XLA_FLAGS="$(KERNELS)" $(PYTEST) $(AGENTS)' in makefile
    (line,) = (x for x in makefile.splitlines() if x.startswith("KERNELS = "))
    assert dict(flag.removeprefix("--").split("=") for flag in line.split()[2:]) == device_jax.KERNELS
