"""Makes JAX strict while these tests run: operands of unequal rank are an error."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield
