"""Agents in JAX compile for longer than they are tested: XLA does without most of its optimisations here.

tests/formulas runs with all of them.
"""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()  # compiled agents of all modules would be gigabytes
