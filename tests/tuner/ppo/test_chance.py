import jax
import jax.numpy as jnp
import pytest

from envs.base import Box, Discrete
from tuner.ppo.chance import draw, reset_key
from tuner.ppo.types import PPOConfig

CONFIG = PPOConfig(64, 32, 4, 3)


def test_shapes_and_no_key_twice() -> None:
    chance = draw(jax.random.key(0), Discrete(3), CONFIG)
    assert chance.action_noise.shape == (32, 64)
    assert (chance.epoch_keys.shape, chance.step_keys.shape) == ((3,), (32,))
    resets = reset_key(chance.step_keys)
    keys = [chance.next_key[None], chance.epoch_keys, chance.step_keys, resets]
    words = jax.random.key_data(jnp.concatenate(keys))
    assert len({tuple(word) for word in words.tolist()}) == 1 + 3 + 2 * 32


def test_a_box_has_noise_for_every_component() -> None:
    space = Box(low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,))
    assert draw(jax.random.key(0), space, CONFIG).action_noise.shape == (32, 64, 2)


def test_what_steps_and_resets_draw_is_unrelated() -> None:
    keys = jax.random.split(jax.random.key(0), 2048)
    of_steps, of_resets = (jax.vmap(jax.random.normal)(k) for k in (keys, reset_key(keys)))
    # Two independent samples of 2,048: the standard deviation of their correlation is 0.022.
    correlation = jnp.corrcoef(jnp.stack([of_steps, of_resets]))[0, 1]
    assert float(correlation) == pytest.approx(0, abs=5 * 0.022)


def test_keys_stay_of_the_kind_that_they_were() -> None:
    typed, raw = (
        draw(key, Discrete(3), CONFIG) for key in (jax.random.key(0), jax.random.PRNGKey(0))
    )
    assert raw.next_key.dtype == jnp.uint32
    assert jnp.array_equal(jax.random.key_data(typed.step_keys), raw.step_keys)
    assert jnp.array_equal(
        jax.random.key_data(reset_key(typed.step_keys)), reset_key(raw.step_keys)
    )
