"""What the two functions promise: metrics, runs that repeat, nothing compiled twice."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.base import Environment
from envs.registry import make
from tests.envs.jaxprs import impurities
from tests.tuner.ppo.probes import BoxProbe, MaskedProbe, Probe, ProbeParams
from tuner.ppo.rollout import EpisodeStats, mean_return
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Actor, Carry, Hyperparams, PPOConfig, RunningStats

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


EVERYTHING = replace(
    CONFIG,
    lr_schedule="linear",
    normalize_obs=True,
    normalize_reward=True,
    clip_value_loss=True,
)


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
def everything() -> Compiled:
    """Continuous actions with every option on; `block` is `update` again."""
    ppo = make_ppo(EVERYTHING, BoxProbe())
    update = jax.jit(ppo.update_fn)
    return Compiled(init=jax.jit(ppo.init_fn), update=update, block=update)


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
    actions = ppo.policy_fn(carry.actor, jax.random.key(1), jnp.zeros((9000, 32)), None)
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


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING])
@pytest.mark.parametrize(
    "spec",
    [
        "stress",
        "gymnax:CartPole-v1",
        "gymnax:Breakout-MinAtar",
        "gymnax:FourRooms-misc",
        "gymnax:Pendulum-v1",
    ],
)
def test_an_update_is_pure_and_keeps_its_types(spec: str, config: PPOConfig) -> None:
    env, env_params = make(spec, {})
    ppo = make_ppo(config, env)
    carry = jax.eval_shape(ppo.init_fn, jax.random.key(0), Hyperparams(), env_params)
    assert impurities(ppo.update_fn, carry) == []
    assert jax.eval_shape(ppo.update_fn, carry)[0] == carry


@pytest.mark.parametrize(
    ("env", "extra"),
    [(Probe(), set()), (BoxProbe(), {"sigma_share"}), (MaskedProbe(), {"max_entropy"})],
)
def test_metrics_that_only_some_policies_have(env: Environment, extra: set[str]) -> None:
    ppo = make_ppo(CONFIG, env)
    env_params = ProbeParams().as_arrays()
    carry = jax.eval_shape(ppo.init_fn, jax.random.key(0), Hyperparams(), env_params)
    assert set(jax.eval_shape(ppo.update_fn, carry)[1]) == METRICS | extra


def test_a_run_that_was_saved_goes_on_as_if_it_had_not_been(everything: Compiled) -> None:
    env_params = ProbeParams(length=3, has_sign=True).as_arrays()
    hyperparams = Hyperparams(learning_rate=1e-2, lr_anneal_env_steps=128.0)
    carry = everything.init(jax.random.key(0), hyperparams, env_params)
    for _ in range(2):
        carry, _ = everything.update(carry)
    saved = pickle.dumps(jax.device_get(carry._replace(key=jax.random.key_data(carry.key))))
    restored: Carry = jax.tree.map(jnp.asarray, pickle.loads(saved))
    restored = restored._replace(key=jax.random.wrap_key_data(restored.key))
    for _ in range(2):
        carry, metrics = everything.update(carry)
        restored, again = everything.update(restored)
        for name, value in metrics.items():
            assert jnp.array_equal(value, again[name], equal_nan=True), name
    assert all(
        jnp.array_equal(one, other)
        for one, other in zip(leaves(carry), leaves(restored), strict=True)
    )
    assert everything.update._cache_size() == 1


def test_the_rate_falls_to_nothing_at_the_end_of_the_schedule(everything: Compiled) -> None:
    # 32 env-steps an update, the end at 64: two updates learn, the third does not. With an end
    # elsewhere the same program learns in the third one too.
    env_params = ProbeParams(has_sign=True).as_arrays()
    for end, learns in ((64.0, [True, True, False]), (128.0, [True, True, True])):
        hyperparams = Hyperparams(lr_anneal_env_steps=end)
        carry = everything.init(jax.random.key(0), hyperparams, env_params)
        changed = []
        for _ in range(3):
            before = carry.params
            carry, _ = everything.update(carry)
            moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, carry.params)
            changed.append(any(jax.tree.leaves(moved)))
        assert changed == learns
        assert int(carry.env_steps) == 96
    assert everything.update._cache_size() == 1


def test_observations_are_seen_through_the_statistics_of_before_the_update(
    everything: Compiled,
) -> None:
    # At a rate of 0 the policy of an update is the one that acted, so that the ratio is 1, only if
    # both have seen the same observations; the statistics change after each of the updates.
    env_params = ProbeParams(length=3, has_sign=True).as_arrays()
    carry = everything.init(jax.random.key(0), Hyperparams(learning_rate=0.0), env_params)
    assert carry.obs_stats is not None
    assert carry.return_stats is not None
    for number in (1, 2, 3):
        carry, metrics = everything.update(carry)
        assert float(metrics["approx_kl"]) == pytest.approx(0, abs=1e-5)
        assert float(carry.obs_stats.num_values) == 32 * number
        assert float(carry.return_stats.stats.num_values) == 32 * number
    assert bool((carry.obs_stats.variance != 1).all())


def test_an_actor_sees_through_its_own_statistics() -> None:
    ppo = make_ppo(EVERYTHING, BoxProbe())
    carry = ppo.init_fn(jax.random.key(0), Hyperparams(), ProbeParams().as_arrays())
    # Mean 1 and variance 4: observations of 5 are seen as 2.
    stats = RunningStats(jnp.float32(9), jnp.full(2, 1.0), jnp.full(2, 4.0))
    raw, seen = jnp.full((3, 2), 5.0), jnp.full((3, 2), 2.0)
    key = jax.random.key(1)
    action = ppo.policy_fn(carry.actor._replace(obs_stats=stats), key, raw, None)
    assert jnp.allclose(action, ppo.policy_fn(Actor(carry.params), key, seen, None), atol=1e-6)
