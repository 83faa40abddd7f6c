import jax
import jax.numpy as jnp
import pytest

from envs.registry import make
from tests.tuner.ppo.probes import BoxProbe, MaskedProbe, Probe, ProbeParams
from tuner.ppo.evaluate import make_evaluate, random_policy

KEY = jax.random.key(0)


def match_sign(
    params: jax.Array, key: jax.Array, obs: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """Choose the rewarded action where `params` is 1, the other where it is 0."""
    return jnp.where((obs[:, 0] > 0) == (params == 1), 1, 0)


@pytest.fixture(scope="module")
def evaluate():  # type: ignore[no-untyped-def]
    return jax.jit(make_evaluate(Probe(), match_sign, num_envs=8))


def test_one_whole_episode_is_summed(evaluate) -> None:  # type: ignore[no-untyped-def]
    # Seven steps of reward 2; the environments that reset go on, but earn no more.
    returns = evaluate(jnp.int32(1), KEY, ProbeParams(constant=2.0, length=7).as_arrays())
    assert returns.total.tolist() == [14.0] * 8
    assert returns.ended.all()


def test_parameters_choose_the_policy(evaluate) -> None:  # type: ignore[no-untyped-def]
    env_params = ProbeParams(by_match=1.0, has_sign=True).as_arrays()
    assert evaluate(jnp.int32(1), KEY, env_params).total.tolist() == [1.0] * 8
    assert evaluate(jnp.int32(0), KEY, env_params).total.tolist() == [-1.0] * 8


@pytest.mark.parametrize(("longer", "ended"), [(0, True), (1, False), (100, False)])
def test_an_episode_that_outlasts_the_evaluation_has_what_it_earned(  # type: ignore[no-untyped-def]
    evaluate, longer: int, ended: bool
) -> None:
    env_params = ProbeParams(constant=1.0, length=Probe().eval_steps + longer).as_arrays()
    returns = evaluate(jnp.int32(1), KEY, env_params)
    assert returns.total.tolist() == [16.0] * 8
    assert returns.ended.tolist() == [ended] * 8


def test_nothing_of_that_compiled_anew(evaluate) -> None:  # type: ignore[no-untyped-def]
    evaluate(jnp.int32(1), KEY, ProbeParams().as_arrays())
    assert evaluate._cache_size() == 1


def test_random_stress_earns_its_closed_form_per_step() -> None:
    env, params = make("stress", {"obs_dim": 2})
    evaluate = jax.jit(make_evaluate(env, random_policy(env.action_space)))
    returns = evaluate(None, KEY, params).total
    # 64 × 2,000 steps of deviation about 0.8: a standard error of 0.003 or so.
    assert returns.shape == (64,)
    assert float(returns.mean()) == pytest.approx(-0.2, abs=0.01)
    assert float(returns.std()) < 0.05


def test_random_cartpole_falls_soon() -> None:
    env, params = make("gymnax:CartPole-v1", {})
    returns = jax.jit(make_evaluate(env, random_policy(env.action_space)))(None, KEY, params).total
    assert float(returns.min()) >= 8
    assert 15 < float(returns.mean()) < 30


def test_random_actions_are_uniform_over_the_box() -> None:
    box = BoxProbe().action_space
    actions = random_policy(box)(None, KEY, jnp.zeros((9000, 2)), None)
    assert actions.shape == (9000, 2)
    # Uniform over [−1, 1] and [−½, ½]: deviations 2/√12 = 0.577 and 0.289; errors over √9,000.
    assert actions.mean(axis=0).tolist() == pytest.approx([0, 0], abs=0.03)
    assert actions.std(axis=0).tolist() == pytest.approx([0.577, 0.289], abs=0.01)
    assert jnp.abs(actions).max(axis=0).tolist() == pytest.approx([1, 0.5], abs=0.01)


def test_random_actions_are_uniform_over_the_allowed_ones() -> None:
    mask = jnp.tile(jnp.array([[True, False, True, False]]), (9000, 1))
    actions = random_policy(MaskedProbe().action_space)(None, KEY, jnp.zeros((9000, 2)), mask)
    counts = jnp.bincount(actions, length=4).tolist()
    # 4,500 each, standard deviation √(9,000·½·½) = 47.
    assert counts == pytest.approx([4500, 0, 4500, 0], abs=5 * 47)
    assert counts[1] == counts[3] == 0


def test_random_actions_in_an_environment_with_masks_are_allowed_ones() -> None:
    # A forbidden action would earn 100.
    env = MaskedProbe()
    evaluate = jax.jit(make_evaluate(env, random_policy(env.action_space), num_envs=64))
    returns = evaluate(None, KEY, ProbeParams(has_sign=True).as_arrays()).total
    assert set(returns.tolist()) == {0.0, 1.0}
