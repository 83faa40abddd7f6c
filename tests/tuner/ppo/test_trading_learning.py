"""PPO finds the pattern planted in the synthetic bars, in both phases of trading."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Environment
from envs.registry import make
from tuner.ppo.evaluate import make_evaluate, random_policy
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, PPOConfig

CONFIG = PPOConfig(num_envs=64, num_steps=64, num_minibatches=4, num_epochs=4)
HYPERPARAMS = Hyperparams(learning_rate=1e-3)
HOLD = 0
NUM_EPISODES = 256

phases = pytest.mark.parametrize("phase", [1, 2])


def untrained_returns(env: Environment, env_params: Any) -> tuple[float, float]:
    """Return the mean evaluated returns of never trading and of acting at random."""
    random = random_policy(env.action_space)

    def policy_fn(
        is_random: jax.Array, key: jax.Array, obs: jax.Array, mask: jax.Array | None
    ) -> jax.Array:
        return jnp.where(is_random, random(None, key, obs, mask), HOLD)

    evaluate = jax.jit(make_evaluate(env, policy_fn, num_envs=NUM_EPISODES))
    flat, acting = (
        float(evaluate(jnp.bool_(is_random), jax.random.key(1), env_params).total.mean())
        for is_random in (False, True)
    )
    return flat, acting


def trained_returns(
    env: Environment, env_params: Any, *, env_steps: int, num_seeds: int
) -> list[float]:
    """Train from each seed and return the mean evaluated return of each."""
    ppo = make_ppo(CONFIG, env)
    evaluate = make_evaluate(env, ppo.policy_fn, num_envs=NUM_EPISODES)
    num_updates = env_steps // CONFIG.batch_size

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        carry = ppo.init_fn(key, HYPERPARAMS, env_params)
        carry = jax.lax.fori_loop(0, num_updates, lambda _, c: ppo.update_fn(c)[0], carry)
        return evaluate(carry.actor, jax.random.key(1), env_params).total.mean()

    return [float(run(jax.random.key(seed))) for seed in range(num_seeds)]


@pytest.mark.long
@pytest.mark.parametrize("phase", [2])
def test_the_planted_pattern_is_learned(phase: int) -> None:
    # The planted trend favours whoever is in it with a near stop and a far target, whatever side
    # was taken: random actions return 1.2 ± 0.2 (1,024 episodes). Seeds of PPO return 4.3 to 5.0,
    # each with a standard error of 0.4.
    env, env_params = make(f"trading-phase{phase}", {})
    flat, random = untrained_returns(env, env_params)
    (returned,) = trained_returns(env, env_params, env_steps=100_000, num_seeds=1)
    assert flat == 0
    assert returned > max(random, flat) + 1.5


@pytest.mark.long
@phases
def test_the_planted_pattern_is_learned_from_every_seed(phase: int) -> None:
    env, env_params = make(f"trading-phase{phase}", {})
    _, random = untrained_returns(env, env_params)
    returned = trained_returns(env, env_params, env_steps=300_000, num_seeds=4)
    assert min(returned) > max(random, 0) + 2
    # What was learned is worth far more than the deviation between seeds.
    assert np.mean(returned) - random > 4 * np.std(returned)
