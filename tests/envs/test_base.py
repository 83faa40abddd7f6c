import math

import jax.numpy as jnp
import pytest

from envs.base import Box, Discrete, action_mask_of
from envs.registry import make


def test_a_space_counts_its_actions_or_components() -> None:
    assert Discrete(3).num_actions == 3
    assert Box((0.0,) * 6, (1.0,) * 6, (2, 3)).num_components == 6
    assert Box((0.0,), (1.0,), ()).num_components == 1


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ((0.0,), (1.0, 1.0), r"must have 2 bounds each, .* shape \(2,\), but got 1 and 2"),
        ((0.0, 1.0), (1.0, 1.0), "finite and low below high, but got"),
        ((0.0, 0.0), (1.0, math.inf), "finite and low below high, but got"),
        ((0.0, math.nan), (1.0, 1.0), "finite and low below high, but got"),
    ],
)
def test_bounds_that_bound_nothing_are_refused(
    low: tuple[float, ...], high: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Box(low, high, (2,))


def test_a_space_without_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="num_actions must be at least 1, but got 0"):
        Discrete(0)


def test_an_environment_has_masks_only_if_it_offers_them() -> None:
    env, params = make("stress", {})
    assert action_mask_of(env) is None

    class Masked:
        def action_mask(self, state: object, params: object) -> object:
            return jnp.array([True, False])

    action_mask = action_mask_of(Masked())  # type: ignore[arg-type]
    assert action_mask is not None
    assert action_mask(None, params).tolist() == [True, False]
