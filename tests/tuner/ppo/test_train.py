"""What the two functions promise: metrics, runs that repeat, nothing compiled twice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.base import Environment
from envs.registry import make
from tests.envs.jaxprs import impurities
from tests.tuner.ppo.probes import Probe, ProbeParams
from tuner.ppo.rollout import EpisodeStats, mean_return
from tuner.ppo.train import make_ppo
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


@dataclass(frozen=True)
class Compiled:
    """PPO as a trial runs it: `block` runs a traced number of updates on a donated carry."""

    init: Callable[..., Carry]
    update: Any
    block: Any


def compiled(env: Environment) -> Compiled:
    ppo = make_ppo(CONFIG, env)

    def block(carry: Carry, num_updates: int) -> Carry:
        return jax.lax.fori_loop(0, num_updates, lambda _, c: ppo.update_fn(c)[0], carry)

    return Compiled(
        init=jax.jit(ppo.init_fn),
        update=jax.jit(ppo.update_fn),
        block=jax.jit(block, donate_argnums=0),
    )


@pytest.fixture(scope="module")
def stress() -> Compiled:
    return compiled(make("stress", {"obs_dim": 3, "episode_length": 5})[0])


@pytest.fixture(scope="module")
def probe() -> Compiled:
    return compiled(Probe())


def stress_params(rho: float = 0.9) -> Any:
    return make("stress", {"rho": rho})[1]


def leaves(carry: Carry) -> list[jax.Array]:
    """Return the leaves as plain arrays, the key as its data."""
    return jax.tree.leaves(carry._replace(key=jax.random.key_data(carry.key)))


def test_equal_seeds_are_equal_runs(stress: Compiled) -> None:
    first, again, other = (
        leaves(stress.block(stress.init(jax.random.key(seed), Hyperparams(), stress_params()), 3))
        for seed in (0, 0, 1)
    )
    assert all(jnp.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not jnp.array_equal(first[0], other[0])


def test_nothing_recompiles_when_values_or_the_count_change(stress: Compiled) -> None:
    for seed, rho in enumerate((0.9, 0.5)):
        hyperparams = Hyperparams(learning_rate=10.0**-seed)
        carry = stress.init(jax.random.key(seed), hyperparams, stress_params(rho))
        carry = stress.block(stress.block(carry, 1), 2)
        hyperparams = carry.hyperparams._replace(ent_coef=jnp.float32(0.1 * seed))
        carry = stress.block(carry._replace(hyperparams=hyperparams), 1)
    assert stress.block._cache_size() == 1
    assert stress.init._cache_size() == 1


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_donated_carry_takes_nothing_of_its_owner_along(
    stress: Compiled, is_compiled: bool
) -> None:
    hyperparams, env_params = Hyperparams().as_arrays(), stress_params()
    env, _ = make("stress", {"obs_dim": 3, "episode_length": 5})
    init = stress.init if is_compiled else make_ppo(CONFIG, env).init_fn
    carry = init(jax.random.key(0), hyperparams, env_params)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves(carry) if leaf.size]
    assert len(set(pointers)) == len(pointers)

    after = stress.block(carry, 1)
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


def test_returns_are_of_finished_episodes_and_go_on_across_updates(probe: Compiled) -> None:
    # Reward 1 a step and four steps an update. Episodes of three: each update finishes some.
    # Of six: the first update finishes none, the second all. Of a hundred: none.
    nan = float("nan")
    for length, expected in ((3, [3, 3]), (6, [nan, 6]), (100, [nan, nan])):
        env_params = ProbeParams(constant=1.0, length=length).as_arrays()
        carry = probe.init(jax.random.key(0), Hyperparams(), env_params)
        carry, first = probe.update(carry)
        carry, second = probe.update(carry)
        returns = [float(first["mean_return"]), float(second["mean_return"])]
        assert returns == pytest.approx(expected, nan_ok=True)
    assert probe.update._cache_size() == 1


def test_a_fresh_policy_reports_a_fresh_policy(probe: Compiled) -> None:
    # A policy head near zero: entropy ln 2; a learning rate of 0 changes no parameter, so that
    # the ratio stays 1: no divergence, nothing clipped, and a policy loss of −mean(A) = 0.
    carry = probe.init(
        jax.random.key(0), Hyperparams(learning_rate=0.0), ProbeParams(constant=1.0).as_arrays()
    )
    after, metrics = probe.update(carry)
    assert float(metrics["entropy"]) == pytest.approx(0.693147, abs=1e-3)
    for name in ("approx_kl", "clip_fraction", "policy_loss"):
        assert float(metrics[name]) == pytest.approx(0, abs=1e-5)
    for before, now in zip(
        jax.tree.leaves(carry.params), jax.tree.leaves(after.params), strict=True
    ):
        assert jnp.array_equal(before, now)


def test_returns_per_step_where_the_environment_says_so() -> None:
    # Reward 6 over 24 env-steps, of which two episodes with returns 1 and 3 finished.
    stats = EpisodeStats(jnp.float32(6), jnp.float32(4), jnp.float32(2))
    assert float(mean_return(stats, env=Probe(), num_env_steps=24)) == 2
    assert float(mean_return(stats, env=make("stress", {})[0], num_env_steps=24)) == 0.25


def test_actions_are_sampled_and_clocks_are_spread() -> None:
    env, env_params = make("stress", {})
    ppo = make_ppo(CONFIG, env)
    carry = jax.jit(ppo.init_fn)(jax.random.key(0), Hyperparams(), env_params)
    actions = ppo.policy_fn(carry.params, jax.random.key(1), jnp.zeros((9000, 32)))
    counts = jnp.bincount(actions, length=3)
    # 3,000 each, standard deviation √(9,000·⅓·⅔) = 45.
    assert jnp.abs(counts - 3000).max() < 5 * 45
    # Eight clocks spread evenly over the episode of 1,000 steps.
    assert carry.envs.state.clock.tolist() == [0, 125, 250, 375, 500, 625, 750, 875]


def test_bfloat16_computes_low_and_keeps_every_type_of_the_carry() -> None:
    env, env_params = make("stress", {"obs_dim": 3})
    ppo = make_ppo(PPOConfig(8, 4, 2, 2, network=(8,), dtype="bfloat16"), env)
    carry = jax.eval_shape(ppo.init_fn, jax.random.key(0), Hyperparams(), env_params)
    after, metrics = jax.eval_shape(ppo.update_fn, carry)
    assert after == carry
    assert {leaf.dtype for leaf in jax.tree.leaves(carry.params)} == {jnp.dtype("float32")}
    assert set(metrics.values()) == {jax.ShapeDtypeStruct((), jnp.float32)}
    assert "bf16" in str(jax.make_jaxpr(ppo.update_fn)(carry))


@pytest.mark.parametrize(
    "spec", ["stress", "gymnax:CartPole-v1", "gymnax:Breakout-MinAtar", "gymnax:FourRooms-misc"]
)
def test_an_update_is_pure(spec: str) -> None:
    env, env_params = make(spec, {})
    ppo = make_ppo(CONFIG, env)
    carry = jax.eval_shape(ppo.init_fn, jax.random.key(0), Hyperparams(), env_params)
    assert impurities(ppo.update_fn, carry) == []
