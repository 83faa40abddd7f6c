import jax.numpy as jnp
import pytest

from tuner.ppo.types import Hyperparams, PPOConfig


def test_sizes_follow_from_the_four_numbers() -> None:
    config = PPOConfig(num_envs=64, num_steps=32, num_minibatches=4, num_epochs=2)
    assert (config.batch_size, config.minibatch_size) == (2048, 512)
    assert hash(config) == hash(PPOConfig(64, 32, 4, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, but got 0"),
        ({"network": (64, 0)}, r"network\[1\] must be at least 1, but got 0"),
        ({"microbatch": 0}, "microbatch must be at least 1, but got 0"),
        ({"num_minibatches": 3}, "must be a multiple of num_minibatches, but got 64 and 3"),
        (
            {"activation": "gelu"},
            "activation must be one of tanh, relu, elu, swish, but got 'gelu'",
        ),
        (
            {"lr_schedule": "cosine"},
            "lr_schedule must be one of constant, linear, but got 'cosine'",
        ),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, but got 'float16'"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, object], message: str) -> None:
    sizes = {"num_envs": 8, "num_steps": 8, "num_minibatches": 2, "num_epochs": 1}
    with pytest.raises(ValueError, match=message):
        PPOConfig(**(sizes | change))  # type: ignore[arg-type]


def test_hyperparams_become_float32_scalars() -> None:
    arrays = Hyperparams(learning_rate=1).as_arrays()
    assert all(jnp.shape(leaf) == () and leaf.dtype == jnp.float32 for leaf in arrays)
    assert not any(leaf.weak_type for leaf in arrays)
