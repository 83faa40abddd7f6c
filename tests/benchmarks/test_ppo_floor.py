import jax.numpy as jnp
from ppo_floor import Product, copied_bytes, products_of

from tuner.ppo.types import Batch, PPOConfig


def test_the_products_of_an_update() -> None:
    # 8 × 4 = 32 env-steps in 2 epochs are 64 rows: 4 chunks of 16. Two networks of one hidden
    # layer: 3 → 5 → 2 and 3 → 5 → 1.
    config = PPOConfig(num_envs=8, num_steps=4, num_minibatches=2, num_epochs=2, network=(5,))
    found = products_of(config, microbatch=16, obs_size=3, num_outputs=2)
    assert found == {
        # Acting: 4 steps of 8 rows. Values: 32 rows in 2 chunks. The first layers of both are of
        # one shape, with 4 chunks each in learning.
        Product("forward", 8, 3, 5): 4,
        Product("forward", 16, 3, 5): 2 + 8,
        Product("kernel_gradient", 16, 3, 5): 8,
        Product("forward", 8, 5, 2): 4,
        Product("forward", 16, 5, 2): 4,
        Product("kernel_gradient", 16, 5, 2): 4,
        Product("input_gradient", 16, 5, 2): 4,
        Product("forward", 16, 5, 1): 2 + 4,
        Product("kernel_gradient", 16, 5, 1): 4,
        Product("input_gradient", 16, 5, 1): 4,
    }
    assert Product("forward", 8, 3, 5).flops == 240


def test_a_shape_of_rollout_and_learning_is_counted_for_both() -> None:
    config = PPOConfig(num_envs=16, num_steps=2, num_minibatches=2, num_epochs=2, network=())
    found = products_of(config, microbatch=16, obs_size=3, num_outputs=2)
    # 2 steps of 16 rows, and 64 rows in chunks of 16.
    assert found[Product("forward", 16, 3, 2)] == 2 + 4


def test_a_batch_is_written_once_and_gathered_every_epoch() -> None:
    column = jnp.zeros((10,), jnp.float32)
    batch = Batch(jnp.zeros((10, 3)), column.astype(jnp.int32), column, column, column)
    # A row holds 3 + 4 words of 4 bytes; gathering reads and writes it.
    assert copied_bytes(batch, num_epochs=4) == 10 * 28 * (1 + 2 * 4)
