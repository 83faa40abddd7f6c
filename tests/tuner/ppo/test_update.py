import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tuner.ppo.networks import init_params
from tuner.ppo.types import Batch, Hyperparams, PPOConfig
from tuner.ppo.update import Learner, learn, microbatch_size, optimizer


def config_of(**change: object) -> PPOConfig:
    sizes = {"num_envs": 16, "num_steps": 8, "num_minibatches": 2, "num_epochs": 2}
    return PPOConfig(**(sizes | change))  # type: ignore[arg-type]


def random_batch(size: int) -> Batch:
    obs, advantage, target = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    return Batch(
        obs=jnp.asarray(obs)[:, None],
        action=jnp.arange(size) % 3,
        log_prob=jnp.full((size,), -1.1),
        advantage=jnp.asarray(advantage),
        target=jnp.asarray(target),
    )


def learned(config: PPOConfig, hyperparams: Hyperparams) -> tuple[Learner, dict[str, float]]:
    params = init_params(jax.random.key(0), config, obs_shape=(1,), num_actions=3)
    learner = Learner(params, optimizer(hyperparams).init(params))
    batch = random_batch(config.batch_size)
    key = jax.random.key(1)
    learner, metrics = jax.jit(
        lambda learner: learn(learner, batch, key=key, hyperparams=hyperparams, config=config)
    )(learner)
    return learner, {**metrics.loss._asdict(), "grad_norm": metrics.grad_norm}


def test_cutting_a_minibatch_up_changes_nothing_that_is_learned() -> None:
    hyperparams = Hyperparams(learning_rate=1e-3)
    whole, whole_metrics = learned(config_of(microbatch=64), hyperparams)
    cut, cut_metrics = learned(config_of(microbatch=16), hyperparams)
    for expected, got in zip(
        jax.tree.leaves(whole.params), jax.tree.leaves(cut.params), strict=True
    ):
        assert jnp.allclose(expected, got, rtol=0, atol=1e-6)
    for name, expected in whole_metrics.items():
        assert float(cut_metrics[name]) == pytest.approx(float(expected), abs=1e-5)


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
    # Adam's first step moves every parameter by about the learning rate, whatever the gradient's
    # size; a gradient clipped to 1e-9 is far below Adam's eps of 1e-5, and moves them 1e-4 of it.
    config = config_of(num_epochs=1, num_minibatches=1)
    start = init_params(jax.random.key(0), config, obs_shape=(1,), num_actions=3)
    moved = []
    for max_grad_norm in (0.5, 1e-9):
        hyperparams = Hyperparams(learning_rate=1e-3, max_grad_norm=max_grad_norm)
        learner, metrics = learned(config, hyperparams)
        change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), learner.params, start)
        moved.append(float(jnp.stack(jax.tree.leaves(change)).max()))
        assert float(metrics["grad_norm"]) > 0.01
    assert moved[0] == pytest.approx(1e-3, rel=0.05)
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
