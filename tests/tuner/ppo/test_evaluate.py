import jax
import jax.numpy as jnp
import pytest

from envs.registry import make
from tests.tuner.ppo.probes import Probe, constant_reward, sign_action_reward
from tuner.ppo.evaluate import make_evaluate, random_policy

KEY = jax.random.key(0)


def follow_sign(params: jax.Array, key: jax.Array, obs: jax.Array) -> jax.Array:
    """Choose the rewarded action where `params` is 1, the other where it is 0."""
    return jnp.where((obs[:, 0] > 0) == (params == 1), 1, 0)


def test_one_whole_episode_is_summed() -> None:
    # Seven steps of reward 1, scaled by 2 through the environment's parameters.
    evaluate = jax.jit(make_evaluate(Probe(constant_reward, length=7), random_policy(1)))
    returns = evaluate(None, KEY, jnp.float32(2))
    assert returns.shape == (64,)
    assert returns.tolist() == [14.0] * 64


def test_parameters_choose_the_policy_without_compiling_anew() -> None:
    env = Probe(sign_action_reward, num_actions=2, has_sign=True)
    evaluate = jax.jit(make_evaluate(env, follow_sign, num_envs=8))
    assert evaluate(jnp.int32(1), KEY, jnp.float32(1)).tolist() == [1.0] * 8
    assert evaluate(jnp.int32(0), KEY, jnp.float32(1)).tolist() == [-1.0] * 8
    assert evaluate._cache_size() == 1


def test_an_episode_that_does_not_end_is_unknown() -> None:
    class Endless(Probe):
        @property
        def eval_steps(self) -> int:
            return 3

    evaluate = jax.jit(make_evaluate(Endless(constant_reward, length=7), random_policy(1)))
    assert jnp.isnan(evaluate(None, KEY, jnp.float32(1))).all()


def test_random_stress_earns_its_closed_form_per_step() -> None:
    env, params = make("stress", {"obs_dim": 2})
    evaluate = jax.jit(make_evaluate(env, random_policy(3)))
    returns = evaluate(None, KEY, params)
    # 64 × 2,000 steps of deviation about 0.8: a standard error of 0.003 or so.
    assert float(returns.mean()) == pytest.approx(-0.2, abs=0.01)
    assert float(returns.std()) < 0.05


def test_random_cartpole_falls_soon() -> None:
    env, params = make("gymnax:CartPole-v1", {})
    returns = jax.jit(make_evaluate(env, random_policy(2)))(None, KEY, params)
    assert float(returns.min()) >= 8
    assert 15 < float(returns.mean()) < 30
