"""What phase 2 adds to the rules, bar by bar; prices and contract as in `test_trading_scenarios`.

1 % of 50,000 USD pays for four contracts of 120 USD risk, so a position risks 480 USD, a point is
worth 80 USD and a trade costs 16 USD.
"""

import jax
import numpy as np
import pytest

from envs.trading import BREAK_EVEN, BUY, HOLD, STOP_TRAILING, TRAIL
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
def test_break_even_needs_a_gain_above_half_an_atr(side: str) -> None:
    # 1 % of 50,000 USD buys four contracts of 120 USD risk. At a close of 102.25 the gain is 2.0,
    # half an ATR and not above it.
    for close, allowed in ((102.25, False), (102.5, True)):
        market = market_of([START, (100, 103, 99, close), QUIET, QUIET])
        timesteps, _ = run(side, 2, market, [BUY])
        assert bool(timesteps[0].state.allowed[BREAK_EVEN]) is allowed


@sides
def test_break_even_moves_the_stop_to_the_entry(side: str) -> None:
    # The stop at the entry of 100.25 sells at 100.00: −0.25 · 20 · 4 − 4 · 4.
    bars = [START, (100, 103, 99, 102.5), (102, 103, 100.25, 101), QUIET]
    timesteps, profits = run(side, 2, market_of(bars), [BUY, BREAK_EVEN])
    assert profits == [0, -36]
    assert float(timesteps[1].reward) == pytest.approx(-36 / 480)
    _, profits = run(side, 2, market_of(bars), [BUY, HOLD])
    assert profits == [0, 0]


@sides
def test_a_stop_at_break_even_cannot_go_there_again(side: str) -> None:
    bars = [START, (100, 103, 99, 102.5), (102, 103, 101, 102.5), QUIET]
    timesteps, _ = run(side, 2, market_of(bars), [BUY, BREAK_EVEN])
    assert not bool(timesteps[1].state.allowed[BREAK_EVEN])
    assert int(timesteps[1].state.position.stop_moves) == 1


RISING: list[OHLC] = [
    START,
    (101, 111, 100, 110),
    (110, 115, 107, 114),
    (113, 114, 109, 112),
    (111, 112, 105, 106),
    QUIET,
]


@sides
def test_the_trail_follows_the_previous_close(side: str) -> None:
    # Enabled at the close of 110, the stop is 110 − 4 = 106 while bar 2 trades down to 107 and
    # closes at 114: its own close would have put the stop at 110. In bar 3 the stop is
    # 114 − 4 = 110, and 109 touches it: sold at 109.75, 9.5 · 20 · 4 − 16.
    timesteps, profits = run(side, 2, market_of(RISING), [BUY, TRAIL, HOLD])
    assert profits == [0, 0, 744]
    assert float(timesteps[1].state.position.stop) == 5.75
    assert float(timesteps[2].reward) == pytest.approx(744 / 480)


@sides
def test_a_trail_that_is_disabled_leaves_the_stop_where_it_was(side: str) -> None:
    # The stop stays at 106: bar 3 does not touch it, bar 4 does. Sold at 105.75: 5.5 · 80 − 16.
    timesteps, profits = run(side, 2, market_of(RISING), [BUY, TRAIL, STOP_TRAILING, HOLD])
    assert profits == [0, 0, 0, 424]
    assert [int(step.state.position.stop_moves) for step in timesteps] == [0, 1, 1, 0]


@sides
def test_a_trail_never_moves_the_stop_back(side: str) -> None:
    bars = [*RISING[:2], (110, 115, 107, 108), (108, 109, 107, 108), QUIET]
    timesteps, _ = run(side, 2, market_of(bars), [BUY, TRAIL, HOLD])
    assert [float(step.state.position.stop) for step in timesteps] == [-6, 5.75, 5.75]


@sides
@pytest.mark.parametrize(
    ("given", "size", "distance"),
    [
        # 1 % of 50,000 is 500 USD, a contract risks 120.
        pytest.param({}, 4, 6, id="one per cent"),
        pytest.param({"risk_share": 0.02}, 8, 6, id="two per cent"),
        # 475 USD pay for 3.96 contracts.
        pytest.param({"risk_share": 0.0095}, 3, 6, id="whole contracts only"),
        pytest.param({"drawdown_limit": 300}, 2, 6, id="the room left"),
        # Slippage, commissions and a tick to spare take 0.25 + 4 / 20 + 0.25 = 0.7 points of the 5
        # that 100 USD pay for.
        pytest.param({"drawdown_limit": 100}, 1, 4.3, id="one contract always fits"),
        # 2 · (6 + 0.7) · 20 = 268, and a third contract makes 402.
        pytest.param({"drawdown_limit": 400}, 2, 6, id="the room left after costs"),
        pytest.param({"drawdown_limit": 403}, 3, 6, id="room for one more"),
    ],
)
def test_the_size_of_phase_2(
    side: str, given: dict[str, float], size: int, distance: float
) -> None:
    # A wide quiet bar would breach; this one does not move.
    timesteps, _ = run(side, 2, market_of([START] * 3), [BUY], **given)
    position = timesteps[0].state.position
    assert float(position.size) == size
    assert float(position.stop) == pytest.approx(-distance)
    assert float(position.risk) == pytest.approx(size * distance * 20)


@sides
def test_no_entry_where_the_room_does_not_pay_for_a_tick(side: str) -> None:
    # The stop costs 6.25 · 20 + 4 = 129 of 135 USD; a tick and the costs of 0.7 points take 19.
    market = market_of([START, (100, 101, 94, 95), QUIET, QUIET])
    timesteps, profits = run(side, 2, market, [BUY, BUY], drawdown_limit=135)
    assert profits == [-129, 0]
    assert [ending(step) for step in timesteps] == ["goes on", "goes on"]
    assert timesteps[0].state.allowed.tolist() == [True, *[False] * 5]
    # 20 USD left pay for a stop 0.3 below 95.25 and a target 0.9 above: 0.9 · 20 − 4.
    timesteps, profits = run(side, 2, market, [BUY, BUY], drawdown_limit=149)
    assert timesteps[0].state.allowed.tolist() == [True, True, True, False, False, False]
    assert profits == pytest.approx([-129, 14], abs=0.01)


@sides
@pytest.mark.parametrize("limit", [20, 60, 100, 250, 400, 401, 402, 403, 520])
def test_a_stop_is_reached_before_the_drawdown_limit(side: str, limit: float) -> None:
    # However little room is left, slippage and commissions of a stop-out fit into it.
    market = market_of([START, START, (100, 100, 90, 90), (90, 90, 90, 90)])
    timesteps, profits = run(side, 2, market, [BUY, HOLD], drawdown_limit=limit)
    stop = float(timesteps[0].state.position.stop)
    size = float(timesteps[0].state.position.size)
    assert ending(timesteps[1]) == "goes on"
    assert profits[1] == pytest.approx(size * ((stop - 0.25) * 20 - 4), abs=0.01)


@sides
def test_profits_move_the_risk_of_the_next_position(side: str) -> None:
    # The target pays 4 · 18 · 20 − 16 = 1,424; then 1 % of 51,424 pays for four contracts and,
    # with a stop of 1.5 · 4 = 6 points, risks 480 again. A share of 0.07 tells the balances apart:
    # 3,500 / 120 = 29.2 but 0.07 · (50,000 + 29 · 356) = 4,222.7 / 120 = 35.2 contracts.
    market = market_of([START, (101, 118.25, 100, 100), START, START])
    timesteps, profits = run(side, 2, market, [BUY, BUY], risk_share=0.07, drawdown_limit=10_000)
    assert profits == [29 * 356, 0]
    assert float(timesteps[1].state.position.size) == 35


def test_a_share_of_episodes_starts_in_a_position() -> None:
    market = market_of([START] * 3, starts=[1])
    keys = jax.random.split(jax.random.key(5), 400)
    directions = {}
    for share in (0.0, 0.5, 1.0):
        env, params = small_trading(2, market, forced_position_ratio=share)
        _, states = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
        directions[share] = np.asarray(states.position.direction)
        entered = directions[share] != 0
        expected = np.where(entered, 100 + 0.25 * directions[share], 0)
        np.testing.assert_array_equal(states.position.entry, expected)
        np.testing.assert_array_equal(states.position.size, np.where(entered, 4, 0))
    assert np.all(directions[0.0] == 0)
    # 400 draws of one half: 200 ± 10; of the sides the same, and of both at once 100 ± 9.
    assert 150 < np.count_nonzero(directions[0.5]) < 250
    assert 60 < np.count_nonzero(directions[0.5] == 1) < 140
    assert 150 < np.count_nonzero(directions[1.0] == 1) < 250
    assert np.all(directions[1.0] != 0)


def test_a_forced_position_is_settled_like_any_other() -> None:
    market = market_of([START, (100, 101, 99, 103)], starts=[0])
    env, params = small_trading(2, market, forced_position_ratio=1.0)
    states, (timestep,) = play(env, params, [HOLD])
    # In at 100.25 and out at 102.75, or in at 99.75 and out at 103.25; four contracts.
    expected = {1: 2.5, -1: -3.5}[int(states[0].position.direction)] * 80 - 16
    assert float(timestep.state.account.profit) == expected
    assert float(timestep.reward) == pytest.approx(expected / 480)


@sides
def test_what_phase_2_shows_beyond_that(side: str) -> None:
    # Four contracts earn 3.75 · 80 − 16 = 284 USD, 284 / 480 of the risk, a new peak. Bar 2 trails
    # once, to 104 − 4 = 100, and closes at 102: equity 1.75 · 80 − 16 = 124 is 160 below the peak.
    market = market_of([START, (100, 105, 99, 104), (104, 104, 101, 102), QUIET])
    timesteps, _ = run(side, 2, market, [BUY, TRAIL])
    np.testing.assert_allclose(
        timesteps[0].obs[-8:], [0, 284 / 480, 0, 0, 1, 1, 1, 0], rtol=1e-6, atol=1e-7
    )
    used = 160 / 2500
    np.testing.assert_allclose(
        timesteps[1].obs[-8:], [1, 124 / 480, 0.1, used, 1 - used, 0, 0, 1], rtol=1e-6, atol=1e-7
    )
