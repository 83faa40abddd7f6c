import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Discrete
from envs.errors import InvalidEnvParam
from envs.registry import make
from envs.stress import Stress, StressParams, make_stress
from tests.envs.jaxprs import impurities


def simulate(
    rho: float, cost: float, *, num_steps: int = 2_000_000, seed: int = 0
) -> tuple[float, float]:
    """Return the mean rewards per step of the best and of the random policy, in plain numpy.

    The best policy sees `s`: it buys where ρ·s > c, sells where ρ·s < −c.
    """
    draws = np.random.default_rng(seed)
    signal = draws.normal(size=num_steps)
    following = rho * signal + math.sqrt(1 - rho**2) * draws.normal(size=num_steps)
    best = np.where(rho * signal > cost, 1, np.where(rho * signal < -cost, -1, 0))
    random = draws.integers(-1, 2, size=num_steps)
    return tuple(float(np.mean(p * following - cost * abs(p))) for p in (best, random))


@pytest.mark.parametrize(("rho", "cost"), [(0.9, 0.3), (0.5, 0.1), (0.99, 0.0), (0.3, 0.9)])
def test_closed_forms_agree_with_long_simulation(rho: float, cost: float) -> None:
    env, params = make_stress({"rho": rho, "cost": cost})
    best, random = simulate(rho, cost)
    # Standard error of two million rewards of deviation at most about 1: below 0.001.
    assert env.best_return(params) == pytest.approx(best, abs=0.004)
    assert env.random_return(params) == pytest.approx(random, abs=0.004)


def test_best_return_by_hand() -> None:
    # Without a cost k = 0: 2·ρ·φ(0) = 2·0.9·0.398942 = 0.718096.
    env, params = make_stress({"cost": 0})
    assert env.best_return(params) == pytest.approx(0.718096, abs=1e-6)
    assert env.random_return(params) == 0


def test_always_trading_reaches_the_documented_share_of_the_optimum() -> None:
    # Always trading earns E|ρ·s| − c = 0.9·0.797885 − 0.3 = 0.418096, 91 % of the optimum.
    env, params = make_stress({})
    assert 0.418096 / env.best_return(params) == pytest.approx(0.91, abs=0.005)


def test_the_environment_earns_what_the_closed_forms_say() -> None:
    """The best policy needs `s`, which the first axis of the undone mix shows."""
    env, params = make_stress({"obs_dim": 4, "episode_length": 10**6})
    num_envs, num_steps = 256, 400
    state = jax.vmap(env.reset, in_axes=(0, None))(
        jax.random.split(jax.random.key(0), num_envs), params
    )[1]

    def step(state, key):  # type: ignore[no-untyped-def]
        expected = params.rho * state.signal
        best = jnp.where(expected > params.cost, 1, jnp.where(expected < -params.cost, 2, 0))
        keys = jax.random.split(key, num_envs)
        timestep = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, best, params)
        return timestep.state, timestep.reward.mean()

    keys = jax.random.split(jax.random.key(1), num_steps)
    rewards = jax.jit(lambda state: jax.lax.scan(step, state, keys)[1])(state)
    # 102,400 rewards, correlated over about 19 steps: standard error about 0.01.
    assert float(rewards.mean()) == pytest.approx(env.best_return(params), abs=0.03)


def test_a_step_follows_the_definition() -> None:
    env, params = make_stress({"obs_dim": 8})
    obs, state = env.reset(jax.random.key(3), params)
    held, bought, sold = (
        env.step(jax.random.key(4), state, jnp.int32(action), params) for action in range(3)
    )
    assert float(held.reward) == 0
    assert float(bought.reward) == pytest.approx(float(bought.state.signal) - 0.3, abs=1e-6)
    assert float(sold.reward) == pytest.approx(-float(bought.state.signal) - 0.3, abs=1e-6)
    # An orthogonal map keeps lengths: the observation hides the signal but loses nothing.
    draws = jax.random.normal(jax.random.key(3), (8,))
    assert float(jnp.linalg.norm(obs)) == pytest.approx(float(jnp.linalg.norm(draws)), rel=1e-5)
    assert float(state.signal) == float(draws[0])
    assert abs(float(obs[0] - draws[0])) > 1e-3


def test_the_mix_is_fixed_by_the_seed() -> None:
    first, again, other = (
        make_stress({"obs_dim": 8, "seed": seed})[0].reset(jax.random.key(0), None)[0]
        for seed in (1, 1, 2)
    )
    assert jnp.array_equal(first, again)
    assert not jnp.allclose(first, other)


def test_episodes_end_truncated_after_their_length() -> None:
    env, params = make_stress({"episode_length": 3, "obs_dim": 1})
    _, state = env.reset(jax.random.key(0), params)
    truncated = []
    for _ in range(3):
        timestep = env.step(jax.random.key(0), state, jnp.int32(0), params)
        assert not bool(timestep.terminated)
        truncated.append(bool(timestep.truncated))
        state = timestep.state
    assert truncated == [False, False, True]


def test_stagger_sets_the_clock_only() -> None:
    env, params = make_stress({})
    _, state = env.reset(jax.random.key(0), params)
    staggered = env.stagger(state, jnp.float32(0.25))
    assert int(staggered.clock) == 250
    assert staggered.clock.dtype == state.clock.dtype
    assert staggered.signal is state.signal


def test_load_changes_cost_and_not_the_problem() -> None:
    plain, params = make_stress({"obs_dim": 4})
    loaded, _ = make_stress({"obs_dim": 4, "state_bytes": 4096, "work": 16})
    trajectories = []
    for env in (plain, loaded):
        _, state = env.reset(jax.random.key(0), params)
        step = jax.jit(env.step)
        for index in range(5):
            timestep = step(jax.random.key(index), state, jnp.int32(1), params)
            state = timestep.state
        trajectories.append(timestep)
    assert float(trajectories[0].reward) == pytest.approx(float(trajectories[1].reward))
    assert trajectories[1].state.payload.nbytes == 4096
    assert trajectories[1].state.workspace.shape == (16, 16)
    norms = jnp.linalg.norm(trajectories[1].state.workspace, axis=0)
    assert jnp.allclose(norms, 1, atol=1e-5)


def test_defaults_and_declared_best() -> None:
    env, params = make("stress", {})
    assert env == Stress()
    assert (env.obs_shape, env.action_space, env.eval_steps) == ((32,), Discrete(3), 2000)
    assert env.per_step_return
    assert hash(env) == hash(Stress())
    declared, _ = make("stress", {"best_return": "0.4"})
    assert declared.best_return(params) == 0.4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rho": 0}, "rho must be above 0 and at most 1, but got 0"),
        ({"rho": 1.5}, "but got 1.5"),
        ({"cost": -1}, "cost must be at least 0, but got -1"),
        ({"obs_dim": 0}, "obs_dim must be at least 1, but got 0"),
        ({"work": -1}, "work must be at least 0, but got -1"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidEnvParam) as error:
        make("stress", given)
    assert message in str(error.value)


def test_it_is_pure_and_of_stable_types() -> None:
    env, params = make("stress", {"state_bytes": 64, "work": 4})
    key = jax.random.key(0)
    assert impurities(env.reset, key, params) == []
    obs, state = jax.eval_shape(env.reset, key, params)
    assert impurities(env.step, key, state, jnp.int32(0), params) == []
    timestep = jax.eval_shape(env.step, key, state, jnp.int32(0), params)
    assert timestep.state == state
    assert timestep.obs == obs
    assert isinstance(params, StressParams)
