"""Values of a whole rollout: the right one for every step of every environment."""

import jax
import jax.numpy as jnp
import pytest

from envs.base import Discrete, Timestep
from tuner.ppo.networks import init_params, value_of
from tuner.ppo.normalize import normalize_obs
from tuner.ppo.rollout import _final_value, values_of
from tuner.ppo.types import Actor, PPOConfig, RunningStats

STATS = RunningStats(jnp.float32(9), jnp.array([1.0, -2.0, 0.5]), jnp.array([4.0, 0.25, 1.0]))


@pytest.mark.parametrize("microbatch", [1, 3, 12])
@pytest.mark.parametrize("stats", [None, STATS], ids=["raw", "normalised"])
def test_a_value_is_that_of_its_own_observation(
    microbatch: int, stats: RunningStats | None
) -> None:
    config = PPOConfig(6, 4, 2, 1, network=(8,), microbatch=microbatch)
    params = init_params(jax.random.key(0), config, obs_shape=(3,), action_space=Discrete(2))
    obs = 3 * jax.random.normal(jax.random.key(1), (4, 6, 3))
    found = values_of(Actor(params, stats), obs, config)
    assert found.shape == (4, 6)
    for step in range(4):
        alone = value_of(params, normalize_obs(stats, obs[step]), config)
        assert jnp.allclose(found[step], alone, atol=1e-6)


def test_what_terminates_at_its_time_limit_has_no_value_left() -> None:
    # gymnax tells of both side by side: a pole that falls at the last step is not to be balanced.
    config = PPOConfig(4, 4, 2, 1, network=(8,))
    params = init_params(jax.random.key(0), config, obs_shape=(3,), action_space=Discrete(2))
    obs = jax.random.normal(jax.random.key(1), (4, 3))
    ends = Timestep(
        obs=obs,
        state=None,
        reward=jnp.zeros(4),
        terminated=jnp.array([False, True, False, True]),
        truncated=jnp.array([False, False, True, True]),
    )
    found = _final_value(Actor(params, STATS), ends, config)
    cut = value_of(params, normalize_obs(STATS, obs), config)[2]
    assert found.tolist() == [0.0, 0.0, pytest.approx(float(cut)), 0.0]
    assert float(cut) != 0.0
