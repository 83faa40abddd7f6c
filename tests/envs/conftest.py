"""Makes JAX strict while these tests run, and quick to compile."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_rank_promotion() -> Iterator[None]:
    """Make operands of unequal rank an error."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True)
def quick_compilation() -> Iterator[None]:
    """Leave most of XLA's optimisations out: nothing here runs for long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
