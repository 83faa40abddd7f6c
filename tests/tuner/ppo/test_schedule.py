import jax
import jax.numpy as jnp
import pytest

from tuner.ppo.schedule import MOST_ENV_STEPS, advanced, scheduled
from tuner.ppo.types import Hyperparams, LrSchedule, PPOConfig


def config_of(lr_schedule: LrSchedule) -> PPOConfig:
    return PPOConfig(64, 4, 1, 1, lr_schedule=lr_schedule)


def rate(lr_schedule: LrSchedule, env_steps: int, **scalars: float) -> float:
    hyperparams = Hyperparams(learning_rate=0.1, **scalars).as_arrays()
    now = scheduled(hyperparams, jnp.uint32(env_steps), config_of(lr_schedule))
    assert now._replace(learning_rate=hyperparams.learning_rate) == hyperparams
    return float(now.learning_rate)


@pytest.mark.parametrize(
    ("env_steps", "expected"),
    [(0, 0.0875), (256, 0.0625), (512, 0.0375), (768, 0.0125), (1024, 0.0), (5000, 0.0)],
)
def test_a_linear_rate_by_hand(env_steps: int, expected: float) -> None:
    # 0.1·(1 − n / 1024) at the middle of 256 env-steps; the update that starts at 768 is the last
    # before the end, and learns.
    assert rate("linear", env_steps, lr_anneal_env_steps=1024) == pytest.approx(expected)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 11, 16, 40])
def test_the_rates_of_long_and_short_updates_add_up_to_the_same(num_steps: int) -> None:
    # Also where the batch does not divide the end, or is more than twice as large.
    config = PPOConfig(64, num_steps, 1, 1, lr_schedule="linear")
    hyperparams = Hyperparams(learning_rate=0.1, lr_anneal_env_steps=1024).as_arrays()
    starts = range(0, 1024, config.batch_size)
    rates = [float(scheduled(hyperparams, jnp.uint32(n), config).learning_rate) for n in starts]
    assert all(rate > 0 for rate in rates)
    assert sum(rates) * config.batch_size == pytest.approx(0.05 * 1024)


def test_a_constant_rate_is_constant() -> None:
    assert rate("constant", 1024, lr_anneal_env_steps=1024) == pytest.approx(0.1)


def test_without_an_end_a_linear_rate_does_not_fall() -> None:
    assert rate("linear", 10**9) == pytest.approx(0.1)


def test_another_end_compiles_nothing() -> None:
    compiled = jax.jit(scheduled, static_argnames="config")
    for end in (100.0, 200.0):
        hyperparams = Hyperparams(lr_anneal_env_steps=end).as_arrays()
        compiled(hyperparams, jnp.uint32(10), config=config_of("linear"))
    assert compiled._cache_size() == 1


def test_the_count_advances_by_the_batch_and_stays_at_its_maximum() -> None:
    config = config_of("constant")
    assert int(advanced(jnp.uint32(512), config)) == 768
    assert int(advanced(jnp.uint32(MOST_ENV_STEPS - 5), config)) == MOST_ENV_STEPS
    assert int(advanced(jnp.uint32(MOST_ENV_STEPS), config)) == MOST_ENV_STEPS
