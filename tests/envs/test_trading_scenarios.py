"""The trading rules, bar by bar, with profits derived by hand.

The contract is worth 20 USD a point, a tick is 0.25 points and commission 2 USD per side, so a
trade of one contract costs 4 USD. With an ATR of 4 a long that enters at a close of 100 is filled
at 100.25, its stop lies 6 points below at 94.25 and its target 18 above at 118.25, and it risks
6 · 20 = 120 USD. Every scenario runs a second time with prices mirrored at 100 and sides swapped:
the profits are the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.trading import BUY, HOLD, SELL
from tests.envs.markets import (
    OHLC,
    QUIET,
    START,
    ending,
    market_of,
    play,
    run,
    small_trading,
)

sides = pytest.mark.parametrize("side", ["long", "short"])


@sides
def test_an_entry_is_filled_a_tick_beyond_the_close(side: str) -> None:
    timesteps, profits = run(side, 1, market_of([START, QUIET, QUIET]), [BUY])
    position = timesteps[0].state.position
    assert float(position.entry) == (100.25 if side == "long" else 99.75)
    assert float(position.direction) == (1 if side == "long" else -1)
    # The stop lies 1.5 · 4 = 6 points away and the target 3 · 6 = 18.
    assert [float(x) for x in (position.stop, position.target)] == [-6, 18]
    assert [float(position.size), float(position.risk), int(position.held)] == [1, 120, 1]
    assert profits == [0]
    assert float(timesteps[0].reward) == 0


@sides
@pytest.mark.parametrize(
    ("bar", "profit"),
    [
        # Touches 94.25: sold a tick lower at 94.00, −6.25 · 20 − 4.
        pytest.param((100, 101, 94.25, 95), -129, id="stop"),
        # 118.25 is a limit order's price: 18 · 20 − 4.
        pytest.param((101, 118.25, 100, 117), 356, id="target"),
        pytest.param((100, 119, 94, 100), -129, id="both in one bar: the stop counts"),
        # Opens at 90 below the stop: sold at 89.75, −10.5 · 20 − 4.
        pytest.param((90, 92, 88, 91), -214, id="gap through the stop"),
        pytest.param((125, 126, 124, 125), 356, id="gap beyond the target is no better"),
    ],
)
def test_one_bar_closes_the_position(side: str, bar: OHLC, profit: float) -> None:
    timesteps, profits = run(side, 1, market_of([START, bar, QUIET]), [BUY, *[HOLD] * 9])
    assert profits[0] == profit
    assert float(timesteps[0].reward) == pytest.approx(profit / 120, abs=1e-6)
    assert ending(timesteps[0]) == "goes on"
    assert float(timesteps[0].state.position.direction) == 0


@sides
def test_a_bar_short_of_stop_and_target_closes_nothing(side: str) -> None:
    timesteps, profits = run(side, 1, market_of([START, (100, 118, 94.5, 100), QUIET]), [BUY])
    assert profits == [0]
    assert bool(timesteps[0].state.position.is_open)


@sides
def test_the_extremes_are_those_of_the_finer_bars(side: str) -> None:
    bars = [START, (100, 119, 94, 100), QUIET]
    untouched, profits = run(side, 1, market_of(bars, finer={1: (94.5, 118)}), [BUY])
    assert profits == [0]
    assert bool(untouched[0].state.position.is_open)
    # Finer bars that never saw the close of 94 do not keep a position open beyond its stop.
    _, profits = run(
        side, 1, market_of([START, (100, 101, 94, 94), QUIET], finer={1: (99, 101)}), [BUY]
    )
    assert profits == [-129]


@sides
def test_the_end_of_the_session_closes_at_its_close(side: str) -> None:
    # Sold at 103 − 0.25 = 102.75: 2.5 · 20 − 4.
    market = market_of([START, QUIET, (100, 104, 99, 103), QUIET], ends=[2])
    timesteps, profits = run(side, 1, market, [BUY, HOLD])
    assert profits == [0, 46]
    assert [ending(step) for step in timesteps] == ["goes on", "truncated"]
    assert float(timesteps[1].reward) == pytest.approx(46 / 120)


@sides
def test_the_time_limit_closes_at_the_close(side: str) -> None:
    market = market_of([START, QUIET, (100, 104, 99, 103), QUIET])
    timesteps, profits = run(side, 1, market, [BUY, HOLD], max_episode_steps=2)
    assert profits == [0, 46]
    assert [ending(step) for step in timesteps] == ["goes on", "truncated"]


@sides
def test_the_end_of_the_data_closes_at_the_close(side: str) -> None:
    timesteps, profits = run(
        side, 1, market_of([START, QUIET, (100, 104, 99, 103)]), [BUY, *[HOLD] * 9]
    )
    assert profits == [0, 46]
    assert [ending(step) for step in timesteps] == ["goes on", "truncated"]


@sides
def test_a_stop_in_the_last_bar_is_a_stop(side: str) -> None:
    timesteps, profits = run(side, 1, market_of([START, (100, 106, 94, 105)]), [BUY])
    assert profits == [-129]
    assert ending(timesteps[0]) == "truncated"


@sides
def test_costs_are_exact_to_the_cent_far_from_zero(side: str) -> None:
    # A trade to where it began, at 20,000 points: two ticks of 5 USD and two commissions.
    bars = [(20_000, 20_001, 19_999, 20_000.0)] * 2
    market = market_of(bars, ends=[1])
    env, params = small_trading(1, market, commission=2.25)
    _, (timestep,) = play(env, params, [BUY if side == "long" else SELL])
    assert float(timestep.state.account.profit) == -14.50


@sides
def test_no_slippage_and_no_commission_cost_nothing(side: str) -> None:
    market = market_of([START, (100, 101, 94, 95), QUIET])
    _, profits = run(side, 1, market, [BUY], commission=0, slippage_ticks=0)
    assert profits == [-120]
    # Two ticks of slippage: in at 100.5, stop at 94.5, out at 94.0: −6.5 · 20 − 4.
    _, profits = run(side, 1, market, [BUY], slippage_ticks=2)
    assert profits == [-134]


@sides
def test_the_money_limit_draws_the_stop_nearer(side: str) -> None:
    # 100 USD are 5 points of 20: stop at 95.25, out at 95.00, −5.25 · 20 − 4; target 15 points.
    market = market_of([START, (100, 101, 95, 96), QUIET])
    timesteps, profits = run(side, 1, market, [BUY], max_risk=100)
    assert profits == [-109]
    assert float(timesteps[0].reward) == pytest.approx(-1.09)
    _, profits = run(
        side, 1, market_of([START, (100, 115.25, 99, 115), QUIET]), [BUY], max_risk=100
    )
    assert profits == [296]


@sides
def test_a_stop_is_at_least_a_tick_away(side: str) -> None:
    # An ATR of 0.01 counts as a tick, and 0.1 of that still makes a stop of 0.25 points:
    # −0.25 · 20 − 4.
    market = market_of([START, (100, 100.5, 99.75, 100), QUIET], atr=0.01)
    _, profits = run(side, 1, market, [BUY], stop_atr=0.1, slippage_ticks=0)
    assert profits == [-9]


@sides
def test_a_breach_closes_before_the_stop_and_terminates(side: str) -> None:
    # Equity is −80 where the gain is (−80 + 4) / 20 = −3.8, at 96.45: out at 96.20,
    # −4.05 · 20 − 4.
    market = market_of([START, (100, 101, 96.25, 98), QUIET])
    timesteps, profits = run(side, 1, market, [BUY], drawdown_limit=80)
    assert profits == pytest.approx([-85], abs=1e-3)
    assert ending(timesteps[0]) == "terminated"
    assert float(timesteps[0].reward) == pytest.approx(-85 / 120)
    timesteps, profits = run(
        side, 1, market_of([START, (100, 101, 96.5, 98), QUIET]), [BUY], drawdown_limit=80
    )
    assert ending(timesteps[0]) == "goes on"


def test_a_breach_without_slippage_terminates_however_its_profit_is_rounded() -> None:
    # Equity at the exit is the limit below the peak, give or take the last bit of a float.
    env, params = small_trading(
        1, market_of([START, (100, 101, 94.5, 98), QUIET]), slippage_ticks=0
    )
    _, state = env.reset(jax.random.key(0), params)

    def breach(limit: jax.Array, peak: jax.Array) -> jax.Array:
        rules = params.rules._replace(drawdown_limit=limit)
        account = state.account._replace(profit=peak, peak=peak)
        timestep = env.step(
            jax.random.key(0),
            state._replace(account=account),
            jnp.int32(BUY),
            params._replace(rules=rules),
        )
        return timestep.terminated

    limits, peaks = jnp.linspace(10.0, 110.0, 501), jnp.linspace(0.0, 12_345.6, 501)
    assert bool(jax.vmap(breach)(limits, peaks).all())


@sides
def test_a_gap_through_the_breach_pays_the_open(side: str) -> None:
    # Out at 92 − 0.25: −8.5 · 20 − 4.
    market = market_of([START, (92, 93, 91, 92), QUIET])
    timesteps, profits = run(side, 1, market, [BUY], drawdown_limit=80)
    assert profits == [-174]
    assert ending(timesteps[0]) == "terminated"


@sides
def test_a_stop_that_spends_the_limit_terminates(side: str) -> None:
    market = market_of([START, (100, 101, 94, 95), QUIET])
    for limit, expected in ((129, "terminated"), (129.5, "goes on")):
        timesteps, profits = run(side, 1, market, [BUY], drawdown_limit=limit)
        assert profits == [-129]
        assert ending(timesteps[0]) == expected


@sides
def test_the_limit_trails_the_highest_equity_at_a_close(side: str) -> None:
    # At a close of 110 equity is 9.75 · 20 − 4 = 191. A limit of 200 is then reached at −9, a gain
    # of −0.25, at 100.0: out at 99.75, −0.5 · 20 − 4. The high of 112 counts for nothing.
    bars = [START, (101, 112, 100, 110), (109, 110, 100, 105), QUIET]
    timesteps, profits = run(side, 1, market_of(bars), [BUY, HOLD], drawdown_limit=200)
    assert profits == [0, -14]
    assert float(timesteps[0].state.account.peak) == 191
    assert [ending(step) for step in timesteps] == ["goes on", "terminated"]


@sides
def test_a_breach_at_the_last_bar_is_terminated_and_not_truncated(side: str) -> None:
    market = market_of([START, (100, 101, 96.25, 98)])
    timesteps, _ = run(side, 1, market, [BUY], drawdown_limit=80)
    assert ending(timesteps[0]) == "terminated"


@sides
def test_an_episode_ends_flat_and_a_new_entry_waits_for_the_session(side: str) -> None:
    market = market_of([START] * 4, ends=[2])
    timesteps, _ = run(side, 1, market, [HOLD, BUY])
    assert timesteps[0].state.allowed.tolist() == [True, True, True]
    assert ending(timesteps[1]) == "truncated"
    assert timesteps[1].state.allowed.tolist() == [True, False, False]
    closed = market._replace(in_session=jnp.zeros((4,), jnp.bool_))
    timesteps, _ = run(side, 1, closed, [BUY])
    assert not bool(timesteps[0].state.position.is_open)


def test_costs_of_holding_bonus_and_penalty() -> None:
    bars = [START, START, (100, 101, 96.25, 98), QUIET]
    given = {"holding_cost": 0.01, "breach_penalty": 2.0, "entry_bonus": 0.5}
    env, params = small_trading(1, market_of(bars), drawdown_limit=80, **given)
    _, timesteps = play(env, params, [HOLD, BUY])
    # Nothing while flat; then the breach's −85 of 120, a bar held, the penalty and the bonus.
    assert float(timesteps[0].reward) == 0
    assert float(timesteps[1].reward) == pytest.approx(-85 / 120 - 0.01 - 2 + 0.5)
    env, params = small_trading(1, market_of(bars), **given)
    _, timesteps = play(env, params, [BUY, HOLD])
    assert [float(step.reward) for step in timesteps] == pytest.approx([0.49, -0.01])


@sides
def test_what_the_account_shows_of_itself(side: str) -> None:
    # At a close of 104 the gain is 3.75 points, 0.9375 ATR; the stop of −6 is 9.75 points away,
    # the target of 18 is 14.25 away. One bar of ten held.
    market = market_of([START, (100, 105, 99, 104), QUIET])
    direction = 1 if side == "long" else -1
    expected = [direction, 0.9375, 2.4375, 3.5625, 0.1]
    timesteps, _ = run(side, 1, market, [BUY], max_episode_steps=10)
    np.testing.assert_allclose(timesteps[0].obs[-5:], expected, rtol=1e-6)
    flat, _ = run(side, 1, market, [HOLD], max_episode_steps=10)
    np.testing.assert_array_equal(flat[0].obs[-5:], 0)


def test_a_window_ends_with_the_last_closed_bar_and_starts_with_the_oldest() -> None:
    market = market_of([START] * 6, starts=[2])
    env, params = small_trading(1, market, window=3)
    obs, state = env.reset(jax.random.key(0), params)
    np.testing.assert_array_equal(obs[:33], market.inputs[0:3].ravel())
    timestep = env.step(jax.random.key(0), state, jnp.int32(HOLD), params)
    np.testing.assert_array_equal(timestep.obs[:33], market.inputs[1:4].ravel())
