import jax
import jax.numpy as jnp
import pytest

from envs.registry import make
from tests.tuner.ppo.probes import Probe, ProbeParams
from tuner.ppo.evaluate import make_evaluate, random_policy

KEY = jax.random.key(0)


def match_sign(params: jax.Array, key: jax.Array, obs: jax.Array) -> jax.Array:
    """Choose the rewarded action where `params` is 1, the other where it is 0."""
    return jnp.where((obs[:, 0] > 0) == (params == 1), 1, 0)


@pytest.fixture(scope="module")
def evaluate():  # type: ignore[no-untyped-def]
    return jax.jit(make_evaluate(Probe(), match_sign, num_envs=8))


def test_one_whole_episode_is_summed(evaluate) -> None:  # type: ignore[no-untyped-def]
    # Seven steps of reward 2; the environments that reset go on, but earn no more.
    returns = evaluate(jnp.int32(1), KEY, ProbeParams(constant=2.0, length=7).as_arrays())
    assert returns.tolist() == [14.0] * 8


def test_parameters_choose_the_policy(evaluate) -> None:  # type: ignore[no-untyped-def]
    env_params = ProbeParams(by_match=1.0, has_sign=True).as_arrays()
    assert evaluate(jnp.int32(1), KEY, env_params).tolist() == [1.0] * 8
    assert evaluate(jnp.int32(0), KEY, env_params).tolist() == [-1.0] * 8


def test_an_episode_that_does_not_end_is_unknown(evaluate) -> None:  # type: ignore[no-untyped-def]
    env_params = ProbeParams(constant=1.0, length=Probe().eval_steps + 1).as_arrays()
    assert jnp.isnan(evaluate(jnp.int32(1), KEY, env_params)).all()
    env_params = ProbeParams(constant=1.0, length=Probe().eval_steps).as_arrays()
    assert evaluate(jnp.int32(1), KEY, env_params).tolist() == [16.0] * 8


def test_nothing_of_that_compiled_anew(evaluate) -> None:  # type: ignore[no-untyped-def]
    evaluate(jnp.int32(1), KEY, ProbeParams().as_arrays())
    assert evaluate._cache_size() == 1


def test_random_stress_earns_its_closed_form_per_step() -> None:
    env, params = make("stress", {"obs_dim": 2})
    evaluate = jax.jit(make_evaluate(env, random_policy(3)))
    returns = evaluate(None, KEY, params)
    # 64 × 2,000 steps of deviation about 0.8: a standard error of 0.003 or so.
    assert returns.shape == (64,)
    assert float(returns.mean()) == pytest.approx(-0.2, abs=0.01)
    assert float(returns.std()) < 0.05


def test_random_cartpole_falls_soon() -> None:
    env, params = make("gymnax:CartPole-v1", {})
    returns = jax.jit(make_evaluate(env, random_policy(2)))(None, KEY, params)
    assert float(returns.min()) >= 8
    assert 15 < float(returns.mean()) < 30
