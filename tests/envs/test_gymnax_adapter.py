from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import pytest

from envs.base import Box, Discrete, Environment
from envs.errors import InvalidEnvParam
from envs.names import GYMNAX
from envs.registry import make
from tests.envs.jaxprs import impurities


@pytest.mark.parametrize("name", ["CartPole-v1", "FourRooms-misc", "Pendulum-v1"])
def test_a_trajectory_equals_gymnax_own_until_done(name: str) -> None:
    env, params = make(f"gymnax:{name}", {"max_steps_in_episode": 60})
    theirs, _ = gymnax.make(name)
    their_step, our_step = jax.jit(theirs.step), jax.jit(env.step)
    sample = jax.jit(theirs.action_space(params).sample)
    obs, state = env.reset(jax.random.key(0), params)
    their_obs, their_state = theirs.reset(jax.random.key(0), params)
    assert jnp.array_equal(obs, their_obs)

    for index in range(61):
        action = sample(jax.random.key(index))
        # gymnax splits its key in two: the first for `step_env`, the second for the reset.
        step_key = jax.random.split(jax.random.key(index))[0]
        ours = our_step(step_key, state, action, params)
        _, their_state, reward, terminated, truncated, info = their_step(
            jax.random.key(index), their_state, action, params
        )
        assert jnp.array_equal(ours.obs, info["final_observation"])
        assert float(ours.reward) == float(reward)
        assert bool(ours.terminated) == bool(terminated)
        assert bool(ours.truncated) == bool(truncated)
        state = ours.state
        if terminated or truncated:
            return
    pytest.fail("no episode ended within its time limit")


def test_a_time_limit_truncates_and_does_not_terminate() -> None:
    env, params = make("gymnax:CartPole-v1", {"max_steps_in_episode": 2})
    _, state = env.reset(jax.random.key(0), params)
    first = env.step(jax.random.key(0), state, jnp.int32(0), params)
    second = env.step(jax.random.key(0), first.state, jnp.int32(1), params)
    assert (bool(first.terminated), bool(first.truncated)) == (False, False)
    assert (bool(second.terminated), bool(second.truncated)) == (False, True)


def test_a_fallen_pole_terminates_and_is_not_truncated() -> None:
    env, params = make("gymnax:CartPole-v1", {})
    _, state = env.reset(jax.random.key(0), params)
    timestep = env.step(
        jax.random.key(0), state.replace(theta=jnp.float32(1.0)), jnp.int32(0), params
    )
    assert (bool(timestep.terminated), bool(timestep.truncated)) == (True, False)


@pytest.mark.parametrize("name", sorted(GYMNAX))
def test_every_accepted_environment_is_pure_and_of_stable_types(name: str) -> None:
    env, params = make(f"gymnax:{name}", {})
    key, action = jax.random.key(0), jnp.int32(0)
    if isinstance(env.action_space, Box):
        action = jnp.zeros(env.action_space.shape)
    # gymnax's own swimmer promotes ranks.
    with jax.numpy_rank_promotion("allow"):
        check_types_and_purity(env, params, key, action)


def check_types_and_purity(
    env: Environment, params: Any, key: jax.Array, action: jax.Array
) -> None:
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))
    obs, state = jax.eval_shape(env.reset, key, params)
    timestep = jax.eval_shape(env.step, key, state, action, params)
    assert obs.shape == env.obs_shape
    assert timestep.obs == obs
    assert timestep.state == state
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    assert timestep.reward == jax.ShapeDtypeStruct((), jnp.float32)
    assert timestep.terminated == timestep.truncated == jax.ShapeDtypeStruct((), jnp.bool_)
    assert impurities(env.step, key, state, action, params) == []
    assert impurities(env.reset, key, params) == []
    assert env.eval_steps == int(params.max_steps_in_episode)


def test_action_spaces_are_gymnax_own() -> None:
    assert make("gymnax:CartPole-v1", {})[0].action_space == Discrete(2)
    assert make("gymnax:Pendulum-v1", {})[0].action_space == Box((-2.0,), (2.0,), (1,))
    reacher, _ = make("gymnax:Reacher-misc", {})
    assert reacher.action_space == Box((-1.0, -1.0), (1.0, 1.0), (2,))
    assert hash(reacher.action_space)
    weak, _ = make("gymnax:Pendulum-v1", {"max_torque": 0.5})
    assert weak.action_space == Box((-0.5,), (0.5,), (1,))
    with pytest.raises(InvalidEnvParam, match=r"Pendulum-v1: bounds must be .* low below high"):
        make("gymnax:Pendulum-v1", {"max_torque": 0})


def test_declared_maxima() -> None:
    env, params = make("gymnax:CartPole-v1", {})
    assert env.best_return(params) == 500
    env, params = make("gymnax:CartPole-v1", {"max_steps_in_episode": 200})
    assert env.best_return(params) == 200
    env, params = make("gymnax:CartPole-v1", {"best_return": 450})
    assert env.best_return(params) == 450
    env, params = make("gymnax:MountainCar-v0", {})
    assert env.best_return(params) is None
    assert not env.per_step_return


def test_discrete_observations_become_one_hot() -> None:
    env, params = make("gymnax:FrozenLake-misc", {})
    obs, _ = env.reset(jax.random.key(0), params)
    assert obs.shape == env.obs_shape == (16,)
    assert float(obs.sum()) == 1


def test_parameters_are_set_by_name_and_checked() -> None:
    _, params = make("gymnax:CartPole-v1", {"gravity": "4.9"})
    assert float(params.gravity) == pytest.approx(4.9)
    with pytest.raises(InvalidEnvParam, match="did you mean gravity"):
        make("gymnax:CartPole-v1", {"gravty": 4.9})
    with pytest.raises(InvalidEnvParam, match="must be a whole number"):
        make("gymnax:CartPole-v1", {"max_steps_in_episode": "long"})
    with pytest.raises(InvalidEnvParam, match="must be at least 1, but got 0"):
        make("gymnax:CartPole-v1", {"max_steps_in_episode": 0})
