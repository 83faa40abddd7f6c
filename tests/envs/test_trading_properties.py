"""What holds of the trading environments whatever is played, on whatever bars."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import checkify

from envs.market import MarketData
from envs.trading import BREAK_EVEN, BUY, HOLD, OBS_BOUND, SELL, STOP_TRAILING, TRAIL, Trading
from envs.trading_params import Phase, TradingParams
from tests.envs.jaxprs import impurities
from tests.envs.markets import random_market, small_trading

phases = pytest.mark.parametrize("phase", [1, 2])
seeds = st.integers(0, 2**20)

NUM_BARS, NUM_STEPS, WINDOW = 160, 40, 20
TIGHT = {"holding_cost": 0.01, "breach_penalty": 1.0, "forced_position_ratio": 0.3}
"""Costs that leave a trace, and with `limits` below accounts that are spent in an episode."""


class Played(NamedTuple):
    """A random play, `[steps, …]`: what was seen before each action, and what came of it."""

    obs: Any
    state: Any
    action: Any
    timestep: Any
    alive: Any


@cache
def environment(phase: Phase, limit: float) -> tuple[Trading, TradingParams]:
    """Return an environment on random bars; every random market has the same shapes."""
    given = TIGHT | {"drawdown_limit": limit}
    return small_trading(phase, market(0), max_episode_steps=NUM_STEPS - 5, window=WINDOW, **given)


def market(seed: int) -> MarketData:
    return random_market(seed, NUM_BARS, window=WINDOW)


@cache
def player(phase: Phase) -> Any:
    """Return the compiled random play of one episode; allowed or not, all actions are drawn."""
    env, _ = environment(phase, 2_500.0)

    def play(key: jax.Array, params: TradingParams) -> Played:
        def step(carry: Any, key: jax.Array) -> tuple[Any, Played]:
            obs, state, alive = carry
            action = jax.random.randint(key, (), 0, env.action_space.num_actions)
            timestep = env.step(key, state, action, params)
            done = timestep.terminated | timestep.truncated
            played = Played(obs, state, action, timestep, alive)
            return (timestep.obs, timestep.state, alive & ~done), played

        reset_key, key = jax.random.split(key)
        obs, state = env.reset(reset_key, params)
        keys = jax.random.split(key, NUM_STEPS)
        return jax.lax.scan(step, (obs, state, jnp.bool_(True)), keys)[1]

    return jax.jit(play)


def played(phase: Phase, seed: int, limit: float = 2_500.0) -> tuple[TradingParams, Played]:
    """Play one episode at random and return what happened until it ended."""
    params = environment(phase, limit)[1]._replace(market=market(seed))
    play = player(phase)(jax.random.key(seed), params)
    length = int(play.alive.sum())
    return params, jax.tree.map(lambda leaf: np.asarray(leaf)[:length], play)


@phases
@given(seed=seeds, bar=st.integers(WINDOW, NUM_BARS - 1), change=st.floats(0.5, 2.0))
@settings(max_examples=25, deadline=None)
def test_changing_future_bars_changes_nothing_before_them(
    phase: Phase, seed: int, bar: int, change: float
) -> None:
    params, before = played(phase, seed)
    future = jnp.arange(NUM_BARS) > bar
    market = params.market
    other = market._replace(
        **{
            name: jnp.where(future, getattr(market, name) * change, getattr(market, name))
            for name in ("open", "high", "low", "close", "low_s", "high_s", "atr")
        },
        inputs=jnp.where(future[:, None], -market.inputs + 0.1, market.inputs),
    )
    after = player(phase)(jax.random.key(seed), params._replace(market=other))
    # What has happened by the close of `bar`: observations and masks of states that stand there or
    # before, and the rewards and fills of the steps that led to them.
    known = int((before.timestep.state.bar_index <= bar).sum())
    for one, two in zip(
        jax.tree.leaves(jax.tree.map(lambda leaf: leaf[:known], before)),
        jax.tree.leaves(jax.tree.map(lambda leaf: np.asarray(leaf)[:known], after)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


@phases
def test_changing_the_next_bar_does_change_what_follows(phase: Phase) -> None:
    """The property above would hold of an environment that never looks at its market."""
    params, before = played(phase, 3)
    moved = params.market._replace(inputs=params.market.inputs + 0.1)
    after = player(phase)(jax.random.key(3), params._replace(market=moved))
    assert not np.array_equal(before.obs, np.asarray(after.obs)[: len(before.obs)])


@cache
def stepper(phase: Phase) -> Any:
    """Return a compiled step of every state with every action: leaves `[states, actions, …]`."""
    env, _ = environment(phase, 2_500.0)
    actions = jnp.arange(env.action_space.num_actions)
    of_all_actions = jax.vmap(env.step, in_axes=(None, None, 0, None))
    of_all_states = jax.vmap(of_all_actions, in_axes=(None, 0, None, None))
    return jax.jit(lambda states, params: of_all_states(jax.random.key(0), states, actions, params))


def are_equal(one: Any, two: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


@phases
@given(seed=seeds, limit=st.sampled_from([60.0, 400.0, 2_500.0]))
@settings(max_examples=20, deadline=None)
def test_the_mask_and_the_step_agree_on_every_state_of_random_play(
    phase: Phase, seed: int, limit: float
) -> None:
    """A forbidden action is exactly a hold; an allowed one does what it says."""
    params, play = played(phase, seed, limit)
    env, _ = environment(phase, limit)
    masks = np.asarray(jax.vmap(env.action_mask, in_axes=(0, None))(play.state, params))
    # Padded to one length, so that one program serves all.
    padded = jax.tree.map(lambda leaf: np.resize(leaf, (NUM_STEPS, *leaf.shape[1:])), play.state)
    outcomes = jax.tree.map(np.asarray, stepper(phase)(padded, params))
    for index, mask in enumerate(masks):
        held, *acted = (
            jax.tree.map(lambda leaf, at=(index, action): leaf[at], outcomes)
            for action in range(len(mask))
        )
        assert mask[HOLD]
        for action, outcome in enumerate(acted, start=1):
            if not mask[action]:
                assert are_equal(outcome, held)
            elif action in (BUY, SELL):
                assert not are_equal(outcome, held)
            elif outcome.state.position.direction != 0:
                position = outcome.state.position
                assert not are_equal(outcome, held)
                assert action != BREAK_EVEN or position.stop >= 0
                assert action != TRAIL or position.trailing
                assert action != STOP_TRAILING or not position.trailing


@phases
def test_random_play_meets_every_action_allowed_and_forbidden(phase: Phase) -> None:
    """The property above would hold of masks that never change."""
    masks = np.concatenate([played(phase, seed)[1].state.allowed for seed in range(30)])
    assert masks[:, 1:].any(axis=0).all()
    assert not masks[:, 1:].all(axis=0).any()


@phases
@given(seed=seeds, limit=st.sampled_from([60.0, 400.0, 2_500.0]))
@settings(max_examples=25, deadline=None)
def test_accounts_add_up(phase: Phase, seed: int, limit: float) -> None:
    _, play = played(phase, seed, limit)
    after, before = play.timestep.state, play.state
    profits = after.account.profit - before.account.profit
    # The money is the sum of all profits, and none of it is left open when the episode ends.
    assert after.account.profit[-1] == pytest.approx(profits.sum(), abs=0.05)
    assert after.position.direction[-1] == 0
    # Profit appears exactly where a position closes, and is rewarded in units of its risk. An entry
    # may close within its first bar, so its risk is looked up where the state before has none.
    is_held = (before.position.direction != 0) | np.isin(play.action, [BUY, SELL]) & (
        np.take_along_axis(before.allowed, play.action[:, None], axis=1)[:, 0]
    )
    closed = is_held & (after.position.direction == 0)
    assert not profits[~closed].any()
    breached = play.timestep.terminated
    in_risk = play.timestep.reward + 0.01 * is_held + 1.0 * breached
    known = closed & (before.position.risk > 0)
    np.testing.assert_allclose(
        in_risk[known] * before.position.risk[known], profits[known], rtol=1e-3, atol=0.1
    )
    np.testing.assert_allclose(in_risk[~closed], 0, atol=1e-6)
    assert np.all(np.sign(in_risk[closed]) == np.sign(profits[closed]))
    # The peak never falls, and what lies a whole limit below it has ended the episode.
    assert np.all(np.diff(after.account.peak) >= 0)
    drawdown = after.account.peak - after.account.profit
    flat = after.position.direction == 0
    np.testing.assert_array_equal(breached, flat & (drawdown >= limit))


@phases
@given(seed=seeds, limit=st.sampled_from([60.0, 2_500.0]))
@settings(max_examples=25, deadline=None)
def test_observations_are_finite_and_bounded(phase: Phase, seed: int, limit: float) -> None:
    _, play = played(phase, seed, limit)
    for obs in (play.obs, play.timestep.obs):
        assert np.isfinite(obs).all()
        assert np.abs(obs).max() <= OBS_BOUND
    assert obs.shape[1:] == (225 if phase == 1 else 233,)


@phases
@pytest.mark.parametrize("scale", [1e-6, 1e7])
def test_observations_are_bounded_on_absurd_prices(phase: Phase, scale: float) -> None:
    params = environment(phase, 2_500.0)[1]
    market = params.market
    prices = {
        name: getattr(market, name) * scale
        for name in ("open", "high", "low", "close", "low_s", "high_s", "atr")
    }
    play = player(phase)(jax.random.key(1), params._replace(market=market._replace(**prices)))
    assert np.isfinite(play.timestep.obs).all()
    assert np.isfinite(play.timestep.reward).all()
    assert np.abs(play.timestep.obs).max() <= OBS_BOUND


@phases
def test_an_episode_ends_in_time_wherever_its_clock_was_set(phase: Phase) -> None:
    env, params = environment(phase, 2_500.0)
    _, state = env.reset(jax.random.key(0), params)
    staggered = env.stagger(state, jnp.float32(0.5))
    # Half of 35 steps.
    assert int(staggered.clock) == 17
    assert are_equal(staggered._replace(clock=state.clock), state)
    assert env.eval_steps == env.max_episode_steps == NUM_STEPS - 5


@phases
def test_it_is_pure_and_of_stable_types(phase: Phase) -> None:
    env, params = environment(phase, 2_500.0)
    key = jax.random.key(0)
    with jax.checking_leaks():
        assert impurities(env.reset, key, params) == []
        obs, state = jax.eval_shape(env.reset, key, params)
        assert impurities(env.step, key, state, jnp.int32(0), params) == []
    timestep = jax.eval_shape(env.step, key, state, jnp.int32(0), params)
    # Shapes, types and whether those are weak.
    assert timestep.state == state
    assert timestep.obs == obs
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((obs, state, timestep)))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} == {"float32", "int32", "bool"}
    assert (timestep.reward.dtype, timestep.terminated.dtype) == (jnp.float32, jnp.bool_)


@phases
def test_vmap_equals_a_loop(phase: Phase) -> None:
    env, params = environment(phase, 2_500.0)
    keys = jax.random.split(jax.random.key(7), 4)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    resets = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    actions = jnp.arange(4) % env.action_space.num_actions
    steps = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys, resets[1], actions, params)
    for index in range(4):
        one = reset(keys[index], params)
        other = step(keys[index], one[1], actions[index], params)
        for leaf, rows in zip(
            jax.tree.leaves((one, other)), jax.tree.leaves((resets, steps)), strict=True
        ):
            np.testing.assert_allclose(leaf, rows[index], rtol=1e-6)


@phases
def test_random_play_reads_nothing_out_of_bounds(phase: Phase) -> None:
    env, params = environment(phase, 400.0)

    def play(key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            action_key, reset_key = jax.random.split(key)
            action = jax.random.randint(action_key, (), 0, env.action_space.num_actions)
            timestep = env.step(key, carry, action, params)
            _, fresh = env.reset(reset_key, params)
            done = timestep.terminated | timestep.truncated
            state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, timestep.state)
            return state, timestep.reward

        _, state = env.reset(key, params)
        return jax.lax.scan(step, state, jax.random.split(key, 3_000))[1]

    error, rewards = jax.jit(checkify.checkify(play, errors=checkify.index_checks))(
        jax.random.key(0)
    )
    error.throw()
    assert np.isfinite(rewards).all()


def test_checks_of_indices_would_see_a_step_beyond_the_data() -> None:
    env, params = environment(1, 2_500.0)
    _, state = env.reset(jax.random.key(0), params)
    beyond = state._replace(bar_index=jnp.int32(NUM_BARS))
    error, _ = checkify.checkify(env.step, errors=checkify.index_checks)(
        jax.random.key(0), beyond, jnp.int32(0), params
    )
    assert "out-of-bounds" in error.get()
