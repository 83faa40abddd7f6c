"""A block of updates: what it sums, what it means, and that one program serves every length."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from tests.tuner.trials import TINY, workload
from tuner.child.compiles import CompileCounter
from tuner.child.evaluation import evaluate_policies
from tuner.child.facts import environment_facts
from tuner.child.program import block_fn, block_means, build, build_environment, lower_block
from tuner.ppo.types import Metrics


def update(carry: jax.Array) -> tuple[jax.Array, Metrics]:
    """Count updates from 1; episodes end in every third alone, returning ten times the number."""
    count = carry + 1
    ended = count % 3 == 0
    return count, {
        "mean_return": jnp.where(ended, 10.0 * count, jnp.nan),
        "entropy": 2.0 * count,
        "value_loss": jnp.where(count < 5, 1.0, jnp.nan),
    }


def means_of(first: int, updates: int) -> tuple[int, dict[str, float | None]]:
    carry, sums = jax.jit(block_fn(update))(jnp.float32(first), jnp.int32(updates))
    return int(carry), block_means(sums)


def test_a_block_runs_its_updates_and_means_their_metrics() -> None:
    # Updates 1 to 4: entropies 2, 4, 6, 8 -> 5; the one return that exists is 30.
    carry, means = means_of(0, 4)
    assert carry == 4
    assert means == {"mean_return": 30.0, "entropy": 5.0, "value_loss": 1.0}


def test_returns_are_meant_over_updates_with_episodes() -> None:
    # Updates 3 to 6 (from a count of 2): returns 30 and 60.
    assert means_of(2, 4)[1]["mean_return"] == 45.0


def test_a_block_without_episodes_has_no_return() -> None:
    assert means_of(0, 2)[1]["mean_return"] is None


def test_a_loss_that_is_not_finite_in_one_update_is_so_in_the_block() -> None:
    value_loss = means_of(0, 5)[1]["value_loss"]
    assert value_loss is not None
    assert math.isnan(value_loss)


def test_blocks_of_any_length_are_one_program() -> None:
    compiled = jax.jit(block_fn(update))
    start, few, many = jnp.float32(0), jnp.int32(1), jnp.int32(7)
    compiled(start, few)
    counter = CompileCounter()
    compiled(start, many)
    assert counter.compiles == 0


def test_the_counter_sees_what_does_compile() -> None:
    start, number = jnp.float32(0), jnp.int32(1)
    counter = CompileCounter()
    jax.jit(lambda x, y: x * 3 + y)(start, number)
    assert counter.compiles == 1


def test_a_factor_multiplies_the_learning_rate_alone() -> None:
    plain, faster = build(workload(1e-3), TINY), build(workload(1e-3), TINY, lr_factor=100.0)
    assert faster.hyperparams.learning_rate == pytest.approx(0.1)
    assert faster.hyperparams._replace(learning_rate=1e-3) == plain.hyperparams


def test_a_linear_schedule_ends_with_the_trial_unless_the_workload_says_otherwise() -> None:
    linear = replace(workload(), lr_schedule="linear")
    assert build(linear, TINY, env_steps=5000).hyperparams.lr_anneal_env_steps == 5000
    chosen = replace(linear, lr_anneal_env_steps=700)
    assert build(chosen, TINY, env_steps=5000).hyperparams.lr_anneal_env_steps == 700
    assert build(linear, TINY).hyperparams.lr_anneal_env_steps == math.inf


def test_options_of_the_workload_reach_ppo() -> None:
    built = build(
        replace(workload(), normalize_obs=True, normalize_reward=True, clip_value_loss=True), TINY
    )
    carry = jax.eval_shape(built.init, jax.random.key(0))
    assert carry.obs_stats.mean.shape == (8,)
    assert carry.return_stats.discounted.shape == (TINY["num_envs"],)
    plain = jax.eval_shape(build(workload(), TINY).init, jax.random.key(0))
    assert plain.obs_stats is plain.return_stats is None


def test_what_a_child_tells_of_actions() -> None:
    discrete = environment_facts(*build_environment(workload()))
    assert (discrete["action_space"], discrete["num_actions"]) == ("discrete", 3)
    box = environment_facts(*build_environment(workload(env="gymnax:Reacher-misc")))
    assert (box["action_space"], box["num_actions"]) == ("box", 2)


def test_a_gaussian_policy_is_evaluated_through_its_statistics() -> None:
    normalised = replace(workload(env="gymnax:Pendulum-v1"), normalize_obs=True)
    built = build(normalised, TINY)
    actor = jax.jit(built.init)(jax.random.key(0)).actor
    assert actor.obs_stats is not None
    # Untrained is about random: −1,200, deviation 300 over 64 episodes.
    assert evaluate_policies(built, [actor])["mean_return"] == pytest.approx(-1250, abs=250)


def test_another_learning_rate_is_the_same_program_of_updates() -> None:
    def text(learning_rate: float) -> str:
        built = build(workload(learning_rate), TINY, env_steps=1024)
        carry = jax.eval_shape(built.init, jax.eval_shape(jax.random.key, 0))
        return str(lower_block(built.update_fn, carry).as_text())

    assert text(3e-4) == text(3e-3)
