"""The account of the trading environments: positions, fills, exits and the drawdown limit.

Apart from the environment because this is bookkeeping that knows nothing of observations, actions
or episodes, and is checked to the cent on its own.

Everything is for one account, without branches: every argument and result is an array of shape
[]. Prices are in points, money in USD. A *gain* is points per contract in the position's favour,
so that one arithmetic serves both sides: for a short, prices are mirrored at the entry. Gains are
small numbers, which keeps float32 exact to the cent where prices of 20,000 would not.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SIDES = 2
"""A contract pays commission when it is bought and when it is sold."""


class Rules(NamedTuple):
    """What trading costs and what it may risk; all float32, traced.

    `point_value` USD per point and contract, `tick_size` points, `commission` USD per contract and
    side, `slippage` points lost by every market order. `stop_atr` is the stop's distance in ATR,
    `target_ratio` the target's in stop distances. `max_risk` USD is what a position may risk in
    phase 1, `risk_share` of the balance in phase 2. `start_balance` and `drawdown_limit` in USD;
    `breakeven_atr` is the gain above which a stop may go to the entry, `trail_atr` the trailing
    stop's distance, both in ATR.
    """

    point_value: Array
    tick_size: Array
    commission: Array
    slippage: Array
    stop_atr: Array
    target_ratio: Array
    max_risk: Array
    risk_share: Array
    start_balance: Array
    drawdown_limit: Array
    breakeven_atr: Array
    trail_atr: Array


class Position(NamedTuple):
    """A position; every leaf is zero where there is none.

    `direction` −1, 0 or 1 and `entry`, the price of its fill; `stop` and `target` are gains
    (a stop below zero is a loss); `size` contracts; `risk` USD between the entry and the first
    stop, without costs: float32. `held` bars and `stop_moves`: int32. `trailing`: bool.
    """

    direction: Array
    entry: Array
    stop: Array
    target: Array
    size: Array
    risk: Array
    held: Array
    trailing: Array
    stop_moves: Array

    @property
    def is_open(self) -> Bool[Array, ""]:
        """Whether there is a position."""
        return self.direction != 0


class Account(NamedTuple):
    """Money since the episode's start, USD, float32.

    `profit` is the sum of all closed positions, after costs; `peak` the highest equity so far.
    Both leave the start balance out, which would cost them their cents.
    """

    profit: Array
    peak: Array


class Budget(NamedTuple):
    """What a position may lose, USD: `risk` at its stop without costs, `room` with all of them."""

    risk: Array
    room: Array


class Bar(NamedTuple):
    """One bar: prices in points (`low` and `high` as the finer data saw them) and what it allows.

    `volatility` is its ATR, at least one tick: all distances are measured in it.
    """

    open: Array
    low: Array
    high: Array
    close: Array
    volatility: Array
    may_enter: Array
    ends_session: Array


class Settled(NamedTuple):
    """What a bar did: `closed` and `breached` bool, `profit` USD of the position that it closed."""

    account: Account
    closed: Array
    breached: Array
    profit: Array


def no_position() -> Position:
    """Return the state of being flat."""
    zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return Position(zero, zero, zero, zero, zero, zero, none, jnp.zeros((), jnp.bool_), none)


def new_account() -> Account:
    """Return an account that has earned nothing yet."""
    return Account(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def gain_at(position: Position, price: Float[Array, ""]) -> Float[Array, ""]:
    """Return the points per contract by which `price` is better than the entry."""
    return (price - position.entry) * position.direction


def profit_of(position: Position, gain: Float[Array, ""], rules: Rules) -> Float[Array, ""]:
    """Return the USD that closing at `gain` leaves after both commissions; 0 without a position."""
    return position.size * (gain * rules.point_value - SIDES * rules.commission)


def equity_at(
    position: Position, account: Account, price: Float[Array, ""], rules: Rules
) -> Float[Array, ""]:
    """Return what the account would have earned if the position were closed at `price`, USD."""
    return account.profit + profit_of(position, gain_at(position, price), rules)


def room_left(equity: Float[Array, ""], account: Account, rules: Rules) -> Float[Array, ""]:
    """Return the USD that `equity` may still lose before the drawdown limit."""
    return rules.drawdown_limit - (account.peak - equity)


def budget_of(account: Account, rules: Rules) -> Budget:
    """Return what a flat account of phase 2 may spend on a position."""
    balance = rules.start_balance + account.profit
    return Budget(rules.risk_share * balance, room_left(account.profit, account, rules))


def costs(rules: Rules) -> Float[Array, ""]:
    """Return the points per contract that a stop-out loses beyond the stop, and a tick to spare.

    The room must pay for them too: the drawdown limit would otherwise end what the stop should.
    """
    commissions = SIDES * rules.commission / rules.point_value
    return rules.slippage + commissions + rules.tick_size


def fits_a_tick(budget: Budget, rules: Rules) -> Bool[Array, ""]:
    """Return whether the budget pays for a stop one tick away."""
    tick = rules.tick_size
    return (budget.risk >= tick * rules.point_value) & (
        budget.room >= (tick + costs(rules)) * rules.point_value
    )


def stop_distance(bar: Bar, budget: Budget, rules: Rules) -> Float[Array, ""]:
    """Return the points from entry to stop: in ATR, within the budget, a tick or more.

    The budget must pay for a tick, else the stop risks more than it.
    """
    paid_for = jnp.minimum(
        budget.risk / rules.point_value, budget.room / rules.point_value - costs(rules)
    )
    return jnp.maximum(jnp.minimum(rules.stop_atr * bar.volatility, paid_for), rules.tick_size)


def enter(
    direction: Float[Array, ""],
    bar: Bar,
    budget: Budget,
    rules: Rules,
    *,
    is_sized: bool,
) -> Position:
    """Open a position at the close of `bar`.

    Args:
        direction: −1 or 1.
        bar: The bar whose close is paid, made worse by slippage.
        budget: What may be lost.
        rules: Costs and distances.
        is_sized: Whether as many contracts as the budget pays for are taken, rather than one.
    """
    distance = stop_distance(bar, budget, rules)
    risk_per_contract = distance * rules.point_value
    size = jnp.ones((), jnp.float32)
    if is_sized:
        loss_per_contract = (distance + costs(rules)) * rules.point_value
        paid_for = jnp.minimum(budget.risk / risk_per_contract, budget.room / loss_per_contract)
        size = jnp.maximum(jnp.floor(paid_for), 1.0)
    return no_position()._replace(
        direction=direction,
        entry=bar.close + direction * rules.slippage,
        stop=-distance,
        target=rules.target_ratio * distance,
        size=size,
        risk=size * risk_per_contract,
    )


def may_break_even(position: Position, bar: Bar, rules: Rules) -> Bool[Array, ""]:
    """Return whether the gain allows the stop to go to the entry, and it is not there or better."""
    has_gained = gain_at(position, bar.close) > rules.breakeven_atr * bar.volatility
    return position.is_open & has_gained & (position.stop < 0)


def break_even(position: Position) -> Position:
    """Move the stop to the entry."""
    return position._replace(stop=jnp.zeros_like(position.stop), stop_moves=position.stop_moves + 1)


def trail(position: Position, bar: Bar, rules: Rules) -> Position:
    """Let the stop of a trailing position follow the close of `bar`, which is over."""
    level = gain_at(position, bar.close) - rules.trail_atr * bar.volatility
    moves = position.trailing & (level > position.stop)
    return position._replace(
        stop=jnp.where(moves, level, position.stop),
        stop_moves=position.stop_moves + moves.astype(jnp.int32),
    )


def settle(
    position: Position, account: Account, bar: Bar, is_last: Bool[Array, ""], rules: Rules
) -> Settled:
    """Take the position and the account through one bar.

    The adverse level is the stop, or the price at which the drawdown limit is reached if that
    comes first. A bar that touches it closes there, or at the open beyond it, less slippage; it
    counts before the target, which pays its own price and no better. What is left when
    `is_last` closes at the bar's close, less slippage.
    """
    floor = _breach_gain(position, account, rules)
    level = jnp.maximum(position.stop, floor)
    is_hit = position.is_open & (_worst_gain(position, bar) <= level)
    reached = _best_gain(position, bar) >= position.target
    closed = is_hit | (position.is_open & (reached | is_last))

    at_level = jnp.minimum(gain_at(position, bar.open), level) - rules.slippage
    at_close = gain_at(position, bar.close) - rules.slippage
    gain = jnp.where(is_hit, at_level, jnp.where(reached, position.target, at_close))
    profit = jnp.where(closed, profit_of(position, gain, rules), 0.0)

    earned = account.profit + profit
    equity = jnp.where(closed, earned, equity_at(position, account, bar.close, rules))
    after = Account(earned, jnp.maximum(account.peak, equity))
    # Closing at the very floor breaches, whichever way the last bit of the profit was rounded.
    is_spent = (is_hit & (floor >= position.stop)) | (room_left(equity, after, rules) <= 0)
    return Settled(after, closed, closed & is_spent, profit)


def _breach_gain(position: Position, account: Account, rules: Rules) -> Float[Array, ""]:
    """Return the gain at which equity is the drawdown limit below its peak."""
    room = room_left(account.profit, account, rules)
    contracts = jnp.maximum(position.size, 1.0)
    return (SIDES * rules.commission - room / contracts) / rules.point_value


def _worst_gain(position: Position, bar: Bar) -> Float[Array, ""]:
    worst = jnp.where(position.direction > 0, bar.low, bar.high)
    # Finer data need not hold the bar's own close, and no position may close a bar in breach.
    return jnp.minimum(gain_at(position, worst), gain_at(position, bar.close))


def _best_gain(position: Position, bar: Bar) -> Float[Array, ""]:
    return gain_at(position, jnp.where(position.direction > 0, bar.high, bar.low))
