"""The proof that what we train on is pure: traced, lowered for a GPU, checked while it runs.

A few configs of every environment here; every config of the default spaces in `make test-long`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

from envs.registry import make
from tests.envs.jaxprs import impurities
from tests.tuner.trials import workload
from tuner.child.program import Built, block_fn, build
from tuner.child.tracing import require_same_tree
from tuner.ppo.evaluate import random_policy
from tuner.ppo.rollout import action_masks, start_envs, step_envs
from tuner.space import CPU_SPACE, GPU_SPACE, HardwareConfig

ENVIRONMENTS = (
    "stress",
    "trading-phase1",
    "trading-phase2",
    "gymnax:CartPole-v1",
    "gymnax:Breakout-MinAtar",
    "gymnax:Pendulum-v1",
    "brax:fast",
)
SPACES = {"cpu": CPU_SPACE.configs(), "gpu": GPU_SPACE.configs()}
CORNERS = [config for configs in SPACES.values() for config in (configs[0], configs[-1])]
SMALL = HardwareConfig(8, 16, 2, 2)
QUICK = {"stress": {"obs_dim": 8}}
environments = pytest.mark.parametrize("env", ENVIRONMENTS)


def built(env: str, config: HardwareConfig) -> Built:
    return build(workload(env=env, env_params=dict(QUICK.get(env, {}))), config.as_dict())


def carry_of(made: Built) -> Any:
    return jax.eval_shape(made.init, jax.eval_shape(jax.random.key, 0))


def require_pure(env: str, config: HardwareConfig) -> None:
    made = built(env, config)
    carry = carry_of(made)
    assert impurities(made.update_fn, carry) == []
    require_same_tree(carry, jax.eval_shape(made.update_fn, carry)[0], "the carry")


@environments
@pytest.mark.parametrize("config", CORNERS, ids=str)
def test_the_update_of_a_corner_of_the_default_spaces_is_pure(
    env: str, config: HardwareConfig
) -> None:
    require_pure(env, config)


@pytest.mark.long
@pytest.mark.timeout(1200)
@environments
@pytest.mark.parametrize("space", SPACES)
def test_the_update_of_every_config_of_a_default_space_is_pure(env: str, space: str) -> None:
    for config in SPACES[space]:
        require_pure(env, config)


@environments
def test_the_whole_training_lowers_for_a_gpu_that_is_not_here(env: str) -> None:
    made = built(env, SMALL)
    block = jax.jit(block_fn(made.update_fn), donate_argnums=0)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    exported = jax.export.export(block, platforms=["cuda"])(carry_of(made), number)
    assert exported.platforms == ("cuda",)
    assert "callback" not in exported.mlir_module()


@environments
def test_stepping_a_batch_equals_stepping_one_by_one(env: str) -> None:
    made, env_params = make(env, dict(QUICK.get(env, {})))
    policy = random_policy(made.action_space)
    key_of_step = jax.random.key(2)
    keys = jax.random.split(key_of_step, 3)

    @jax.jit
    def together(key: jax.Array) -> Any:
        envs = start_envs(made, key, env_params, num_envs=3)
        mask = action_masks(made, envs, env_params)
        action = policy(None, jax.random.key(1), envs.obs, mask)
        return envs, action, step_envs(made, envs, action, key_of_step, env_params)[1]

    envs, action, batch = together(jax.random.key(0))
    step = jax.jit(made.step)
    for index in range(3):
        state = jax.tree.map(lambda leaf, i=index: leaf[i], envs.state)
        alone = step(keys[index], state, action[index], env_params)
        for mine, theirs in zip(jax.tree.leaves(alone), jax.tree.leaves(batch), strict=True):
            assert jnp.allclose(_numbers(mine), _numbers(theirs[index]), atol=1e-5, rtol=1e-5)


def _numbers(leaf: jax.Array) -> jax.Array:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


@pytest.mark.long
@pytest.mark.parametrize(
    "env", ["stress", "trading-phase2", "gymnax:Breakout-MinAtar", "brax:fast"]
)
def test_an_update_runs_without_index_errors_leaks_or_lost_numbers(env: str) -> None:
    made = built(env, SMALL)
    carry = jax.jit(made.init)(jax.random.key(0))
    checked = jax.jit(checkify.checkify(made.update_fn, errors=checkify.index_checks))
    error, (after, _) = checked(carry)
    error.throw()
    with jax.checking_leaks():
        jax.eval_shape(made.update_fn, carry)
    with jax.debug_nans(True):
        # The metrics say NaN where no episode ended; what training hands on never may.
        jax.block_until_ready(jax.jit(lambda carry: made.update_fn(carry)[0])(after))


def test_both_phases_of_trading_return_the_same_metrics() -> None:
    first, second = (built(f"trading-phase{phase}", SMALL) for phase in (1, 2))
    metrics = [jax.eval_shape(made.update_fn, carry_of(made))[1] for made in (first, second)]
    assert metrics[0] == metrics[1]
    assert {"mean_return", "entropy", "policy_loss", "value_loss", "approx_kl"} <= set(metrics[0])
