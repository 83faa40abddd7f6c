from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Discrete
from tuner.ppo.networks import init_params
from tuner.ppo.types import Batch, Hyperparams, Params, PPOConfig
from tuner.ppo.update import Learner, StepMetrics, learn, microbatch_size, optimizer


def config_of(**change: object) -> PPOConfig:
    sizes = {"num_envs": 16, "num_steps": 8, "num_minibatches": 2, "num_epochs": 2}
    return PPOConfig(network=(8,), **(sizes | change))  # type: ignore[arg-type]


def random_batch(size: int) -> Batch:
    obs, advantage, target = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    return Batch(
        obs=jnp.asarray(obs)[:, None],
        action=jnp.arange(size) % 3,
        log_prob=jnp.full((size,), -1.1),
        advantage=jnp.asarray(advantage),
        target=jnp.asarray(target),
    )


@partial(jax.jit, static_argnames="config")
def learned(config: PPOConfig, hyperparams: Hyperparams) -> tuple[Params, Params, StepMetrics]:
    """Return the parameters before and after four gradient steps, and their metrics."""
    params = init_params(jax.random.key(0), config, obs_shape=(1,), action_space=Discrete(3))
    learner, metrics = learn(
        Learner(params, optimizer(hyperparams).init(params)),
        random_batch(config.batch_size),
        epoch_keys=jax.random.split(jax.random.key(1), config.num_epochs),
        hyperparams=hyperparams,
        config=config,
    )
    return params, learner.params, metrics


def test_cutting_a_minibatch_up_changes_nothing_that_is_learned() -> None:
    hyperparams = Hyperparams(learning_rate=1e-3).as_arrays()
    _, *whole = learned(config_of(microbatch=64), hyperparams)
    _, *cut = learned(config_of(microbatch=16), hyperparams)
    for expected, got in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        assert jnp.allclose(expected, got, rtol=0, atol=1e-6)


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
    # Adam moves a parameter by about the learning rate a step, whatever the gradient's size. But a
    # gradient clipped to 1e-12 is far below Adam's eps of 1e-8: it moves 1e-4 of that at most.
    moved = []
    for max_grad_norm in (0.5, 1e-12):
        hyperparams = Hyperparams(learning_rate=1e-3, max_grad_norm=max_grad_norm).as_arrays()
        before, after, metrics = learned(config_of(microbatch=64), hyperparams)
        change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), before, after)
        moved.append(float(jnp.stack(jax.tree.leaves(change)).max()))
        assert float(metrics.grad_norm) > 0.01
    assert 2e-3 < moved[0] < 4.5e-3
    assert moved[1] < 1e-6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"microbatch": 50, "num_envs": 24}, 48),  # 96 rows: the divisors are … 32, 48, 96
        ({"microbatch": 64}, 64),
        ({"microbatch": 1000}, 64),  # not above the minibatch itself
        ({"microbatch": 1}, 1),
        ({"num_envs": 2048}, 1024),  # 8,192 rows, no wish, on a CPU
        ({"num_envs": 192}, 768),  # 768 rows, not above 1,024: whole
        ({"num_envs": 1536}, 1024),  # 6,144 rows
        ({"num_envs": 2053, "num_steps": 2}, 2053),  # a prime: not cut up
    ],
)
def test_microbatch_size(change: dict[str, int], expected: int) -> None:
    assert microbatch_size(config_of(**change)) == expected
