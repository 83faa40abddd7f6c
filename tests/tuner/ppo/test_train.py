"""What the two functions promise: metrics, runs that repeat, nothing compiled twice."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from envs.registry import make
from tests.envs.jaxprs import impurities
from tests.tuner.ppo.probes import Probe, constant_reward
from tuner.ppo.train import PPO, make_ppo
from tuner.ppo.types import Carry, Hyperparams, PPOConfig

CONFIG = PPOConfig(num_envs=8, num_steps=4, num_minibatches=2, num_epochs=2, network=(8,))
METRICS = {
    "mean_return",
    "entropy",
    "policy_loss",
    "value_loss",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "grad_norm",
}


def block_of(ppo: PPO) -> Callable[[Carry, int], Carry]:
    """Return the updates as a trial runs them: a traced number of them, the carry donated."""

    def block(carry: Carry, num_updates: int) -> Carry:
        return jax.lax.fori_loop(0, num_updates, lambda _, c: ppo.update_fn(c)[0], carry)

    return jax.jit(block, donate_argnums=0)


def leaves(carry: Carry) -> list[jax.Array]:
    """Return the leaves as plain arrays, the key as its data."""
    return jax.tree.leaves(carry._replace(key=jax.random.key_data(carry.key)))


def test_equal_seeds_are_equal_runs() -> None:
    env, env_params = make("stress", {"obs_dim": 3, "episode_length": 5})
    ppo = make_ppo(CONFIG, env)
    block = block_of(ppo)
    first, again, other = (
        leaves(block(ppo.init_fn(jax.random.key(seed), Hyperparams(), env_params), 3))
        for seed in (0, 0, 1)
    )
    assert all(jnp.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not jnp.array_equal(first[0], other[0])


def test_nothing_recompiles_when_hyperparams_params_or_the_count_change() -> None:
    env, _ = make("stress", {"obs_dim": 3})
    ppo = make_ppo(CONFIG, env)
    init, block, update = jax.jit(ppo.init_fn), block_of(ppo), jax.jit(ppo.update_fn)
    for seed, rho in enumerate((0.9, 0.5)):
        _, env_params = make("stress", {"obs_dim": 3, "rho": rho})
        carry = init(jax.random.key(seed), Hyperparams(learning_rate=10.0**-seed), env_params)
        carry = block(block(carry, 1), 2)
        carry, _ = update(carry)
        carry, _ = update(
            carry._replace(hyperparams=carry.hyperparams._replace(gamma=jnp.float32(0.9)))
        )
    assert block._cache_size() == 1
    assert update._cache_size() == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_a_donated_carry_takes_nothing_of_its_owner_along(compiled: bool) -> None:
    env, env_params = make("stress", {"obs_dim": 3})
    ppo = make_ppo(CONFIG, env)
    hyperparams = Hyperparams().as_arrays()
    init = jax.jit(ppo.init_fn) if compiled else ppo.init_fn
    carry = init(jax.random.key(0), hyperparams, env_params)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves(carry) if leaf.size]
    assert len(set(pointers)) == len(pointers)
    after = block_of(ppo)(carry, 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry.params))
    assert float(env_params.rho) == pytest.approx(0.9)
    assert float(hyperparams.gamma) == pytest.approx(0.99)
    assert float(after.env_params.rho) == pytest.approx(0.9)


def test_types_are_stable_and_strong() -> None:
    env, env_params = make("gymnax:CartPole-v1", {})
    ppo = make_ppo(CONFIG, env)
    carry = jax.eval_shape(ppo.init_fn, jax.random.key(0), Hyperparams(), env_params)
    after, metrics = jax.eval_shape(ppo.update_fn, carry)
    assert after == carry
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(carry))
    assert set(metrics) == METRICS
    assert set(metrics.values()) == {jax.ShapeDtypeStruct((), jnp.float32)}


def test_returns_are_of_finished_episodes_and_unknown_without_any() -> None:
    # Episodes of three steps, reward 1: two of eight steps in progress are not counted.
    for length, expected in ((3, 3.0), (100, float("nan"))):
        ppo = make_ppo(CONFIG, Probe(constant_reward, length=length))
        carry = ppo.init_fn(jax.random.key(0), Hyperparams(), jnp.float32(1))
        carry, metrics = jax.jit(ppo.update_fn)(carry)
        assert float(metrics["mean_return"]) == pytest.approx(expected, nan_ok=True)
        # One action: nothing to choose, so nothing changes between old and new policy.
        assert float(metrics["entropy"]) == pytest.approx(0, abs=1e-6)
        assert float(metrics["approx_kl"]) == pytest.approx(0, abs=1e-6)


def test_returns_go_on_across_updates() -> None:
    # Six steps to an episode, four to an update: the first update finishes none, the second all.
    ppo = make_ppo(CONFIG, Probe(constant_reward, length=6))
    update = jax.jit(ppo.update_fn)
    carry, first = update(ppo.init_fn(jax.random.key(0), Hyperparams(), jnp.float32(1)))
    _, second = update(carry)
    assert jnp.isnan(first["mean_return"])
    assert float(second["mean_return"]) == 6


def test_returns_per_step_where_the_environment_says_so() -> None:
    ppo = make_ppo(CONFIG, Probe(constant_reward, length=100, per_step_return=True))
    carry = ppo.init_fn(jax.random.key(0), Hyperparams(), jnp.float32(0.25))
    assert float(jax.jit(ppo.update_fn)(carry)[1]["mean_return"]) == 0.25


def test_a_fresh_policy_is_near_uniform() -> None:
    env, env_params = make("stress", {})
    ppo = make_ppo(CONFIG, env)
    carry = ppo.init_fn(jax.random.key(0), Hyperparams(), env_params)
    actions = ppo.policy_fn(carry.params, jax.random.key(1), jnp.zeros((9000, 32)))
    counts = jnp.bincount(actions, length=3)
    # 3,000 each, standard deviation √(9,000·⅓·⅔) = 45.
    assert jnp.abs(counts - 3000).max() < 5 * 45
    # Clocks are spread evenly over the episode of 1,000 steps.
    assert carry.envs.state.clock.tolist() == [0, 125, 250, 375, 500, 625, 750, 875]


def test_bfloat16_trains_with_float32_parameters() -> None:
    env, env_params = make("stress", {"obs_dim": 3})
    config = PPOConfig(8, 4, 2, 2, network=(8,), dtype="bfloat16")
    ppo = make_ppo(config, env)
    carry, metrics = jax.jit(ppo.update_fn)(
        ppo.init_fn(jax.random.key(0), Hyperparams(), env_params)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(carry.params)} == {jnp.dtype("float32")}
    assert all(jnp.isfinite(metrics[name]) for name in METRICS)


@pytest.mark.parametrize(
    "spec", ["stress", "gymnax:CartPole-v1", "gymnax:Breakout-MinAtar", "gymnax:FourRooms-misc"]
)
def test_an_update_is_pure(spec: str) -> None:
    env, env_params = make(spec, {})
    ppo = make_ppo(CONFIG, env)
    carry = jax.eval_shape(ppo.init_fn, jax.random.key(0), Hyperparams(), env_params)
    assert impurities(ppo.update_fn, carry) == []
