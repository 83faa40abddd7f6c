"""The trading environments: phase 1 learns entries, phase 2 also to manage the position.

The state stands at the last *closed* bar. An action is carried out at that bar's close, then the
next bar happens to the position; `envs/README.md` tells the rules in plain words and gives their
reasons. An episode closes whatever it opened, so its return holds all of its profit.

Shape letters: `T` bars of the market, `W` bars of the observed window, `F` inputs per bar.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from envs import account as accounts
from envs.account import Account, Bar, Position, Rules
from envs.bars import Bars, MarketSource, load_bars
from envs.base import Discrete, Timestep
from envs.contracts import Contract, contract_of
from envs.market import FEATURES, TIME_FEATURES, MarketData, market_data
from envs.params import RawValue
from envs.trading_params import (
    MAX_EPISODE_STEPS,
    Phase,
    TradingParams,
    read_settings,
    trading_params,
)

HOLD, BUY, SELL, BREAK_EVEN, TRAIL, STOP_TRAILING = range(6)
WINDOW = 20
NUM_INPUTS = len(FEATURES) + len(TIME_FEATURES)
OBS_BOUND = 10.0
"""No value of an observation lies beyond this, in either direction."""
MANY_STOP_MOVES = 10.0


class TradingState(NamedTuple):
    """`bar_index: []` int32 is the last closed bar, `clock: []` int32 the steps since the start.

    `allowed: [actions]` bool is the mask: it is worked out once, and whoever acts, observes or
    samples an action reads the same array.
    """

    bar_index: Array
    clock: Array
    position: Position
    account: Account
    allowed: Array


@dataclass(frozen=True, slots=True)
class Trading:
    """One phase; its fields fix shapes and are therefore static.

    `notes` are lines to tell the user once, on what was made of the data.
    """

    phase: Phase
    max_episode_steps: int = MAX_EPISODE_STEPS
    window: int = WINDOW
    notes: tuple[str, ...] = ()
    declared_best: float | None = None

    per_step_return: ClassVar[bool] = False

    @property
    def action_space(self) -> Discrete:
        """Hold, buy, sell; in phase 2 also break-even, enable and disable the trailing stop."""
        return Discrete(num_actions=3 if self.phase == 1 else 6)

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation: the window, and 5 or 13 values of the account."""
        return (self.window * NUM_INPUTS + (5 if self.phase == 1 else 13),)

    @property
    def eval_steps(self) -> int:
        """Steps within which every episode has ended."""
        return self.max_episode_steps

    def best_return(self, params: TradingParams) -> float | None:
        """Return what was declared by hand: nobody knows a market's optimum."""
        del params
        return self.declared_best

    def reset(
        self, key: PRNGKeyArray, params: TradingParams
    ) -> tuple[Float[Array, " obs_dim"], TradingState]:
        """Start an episode at a bar drawn from the market's starts, perhaps in a position."""
        draws = jax.random.bits(key, (3,))
        index = _draw_start(draws[0], params.market.starts)
        bar = _bar_at(params.market, index, params.rules)
        clock = jnp.zeros((), jnp.int32)
        position, account = accounts.no_position(), accounts.new_account()
        state = self._state(index, clock, position, account, bar, params.rules)
        if self.phase == 2:
            is_forced = _uniform(draws[1]) < params.forced_position_ratio
            side = jnp.where(_uniform(draws[2]) < 0.5, BUY, SELL)
            position = self._act(state, jnp.where(is_forced, side, HOLD), bar, params.rules)
            state = self._state(index, clock, position, account, bar, params.rules)
        return self._observe(state, bar, params), state

    def step(
        self, key: PRNGKeyArray, state: TradingState, action: Int[Array, ""], params: TradingParams
    ) -> Timestep:
        """Carry the action out at the last bar's close, then let the next bar happen."""
        del key
        market, rules = params.market, params.rules
        position = self._act(state, action, _bar_at(market, state.bar_index, rules), rules)
        was_flat = ~state.position.is_open

        index, clock = state.bar_index + 1, state.clock + 1
        bar = _bar_at(market, index, rules)
        is_over = (clock >= self.max_episode_steps) | (index >= market.close.shape[0] - 1)
        is_last = is_over | bar.ends_session
        settled = accounts.settle(position, state.account, bar, is_last, rules)
        survivor = _survivor(position, settled.closed)
        after = self._state(index, clock, survivor, settled.account, bar, rules)
        return Timestep(
            obs=self._observe(after, bar, params),
            state=after,
            reward=settled.profit / jnp.where(position.is_open, position.risk, 1.0)
            - jnp.where(position.is_open, params.holding_cost, 0.0)
            - jnp.where(settled.breached, params.breach_penalty, 0.0)
            + jnp.where(position.is_open & was_flat, params.entry_bonus, 0.0),
            terminated=settled.breached,
            truncated=is_last & ~settled.breached,
        )

    def action_mask(self, state: TradingState, params: TradingParams) -> Bool[Array, " actions"]:
        """Return which actions have an effect in `state`; holding always may be chosen."""
        del params
        return state.allowed

    def stagger(self, state: TradingState, fraction: Float[Array, ""]) -> TradingState:
        """Set the episode clock, which only shortens the episode."""
        clock = jnp.floor(fraction * self.max_episode_steps).astype(jnp.int32)
        return state._replace(clock=clock)

    def _state(
        self,
        index: Int[Array, ""],
        clock: Int[Array, ""],
        position: Position,
        account: Account,
        bar: Bar,
        rules: Rules,
    ) -> TradingState:
        """Return the state at the close of `bar`, with the actions that it allows."""
        enter = bar.may_enter & ~position.is_open
        allowed = [jnp.ones((), jnp.bool_), enter, enter]
        if self.phase == 2:
            enter &= accounts.fits_a_tick(accounts.budget_of(account, rules), rules)
            allowed = [
                allowed[HOLD],
                enter,
                enter,
                accounts.may_break_even(position, bar, rules),
                position.is_open & ~position.trailing,
                position.is_open & position.trailing,
            ]
        return TradingState(index, clock, position, account, jnp.stack(allowed))

    def _act(self, state: TradingState, action: Int[Array, ""], bar: Bar, rules: Rules) -> Position:
        """Return the position after the action, which changes nothing where it is not allowed."""
        taken = state.allowed & (action == jnp.arange(self.action_space.num_actions))
        is_sized = self.phase == 2
        if is_sized:
            budget = accounts.budget_of(state.account, rules)
        else:
            budget = accounts.Budget(rules.max_risk, jnp.full_like(rules.max_risk, jnp.inf))
        direction = taken[BUY].astype(jnp.float32) - taken[SELL].astype(jnp.float32)
        entered = accounts.enter(direction, bar, budget, rules, is_sized=is_sized)
        position = _choose(direction != 0, entered, state.position)
        if self.phase == 1:
            return position
        position = _choose(taken[BREAK_EVEN], accounts.break_even(position), position)
        is_trailing = (position.trailing | taken[TRAIL]) & ~taken[STOP_TRAILING]
        return accounts.trail(position._replace(trailing=is_trailing), bar, rules)

    def _observe(
        self, state: TradingState, bar: Bar, params: TradingParams
    ) -> Float[Array, " obs_dim"]:
        """Return the window up to the last closed bar, and what the account makes of it."""
        values = self._account_values(state, bar, params.rules)
        window = _window_at(params.market.inputs, state.bar_index, self.window)
        return jnp.concatenate([window, jnp.clip(values, -OBS_BOUND, OBS_BOUND)])

    def _account_values(
        self, state: TradingState, bar: Bar, rules: Rules
    ) -> Float[Array, " values"]:
        position = state.position
        gain = accounts.gain_at(position, bar.close)
        of_position = [
            position.direction,
            gain / bar.volatility,
            (gain - position.stop) / bar.volatility,
            (position.target - gain) / bar.volatility,
            position.held.astype(jnp.float32) / self.max_episode_steps,
        ]
        if self.phase == 1:
            return jnp.stack(_zero_when_flat(position, of_position))
        equity = accounts.equity_at(position, state.account, bar.close, rules)
        room = accounts.room_left(equity, state.account, rules) / rules.drawdown_limit
        of_position += [
            position.trailing.astype(jnp.float32),
            accounts.profit_of(position, gain, rules) / jnp.maximum(position.risk, 1e-6),
            position.stop_moves.astype(jnp.float32) / MANY_STOP_MOVES,
        ]
        validity = state.allowed[BREAK_EVEN:].astype(jnp.float32)
        of_account = jnp.stack([*_zero_when_flat(position, of_position), 1 - room, room])
        return jnp.concatenate([of_account, validity])


def _zero_when_flat(position: Position, values: list[Array]) -> list[Array]:
    return [jnp.where(position.is_open, value, 0.0) for value in values]


def _choose(condition: Bool[Array, ""], chosen: Position, otherwise: Position) -> Position:
    return Position(*(jnp.where(condition, *pair) for pair in zip(chosen, otherwise, strict=True)))


def _survivor(position: Position, closed: Bool[Array, ""]) -> Position:
    """Return the position one bar older, or none if it was closed."""
    older = position._replace(held=position.held + position.is_open.astype(jnp.int32))
    return _choose(closed, accounts.no_position(), older)


def _draw_start(bits: UInt32[Array, ""], starts: Int[Array, " S"]) -> Int[Array, ""]:
    """Return one of the starts; the remainder favours the first of them by `S` in four billion."""
    return starts[(bits % starts.shape[0]).astype(jnp.int32)]


def _uniform(bits: UInt32[Array, ""]) -> Float[Array, ""]:
    """Return a number in [0, 1), of the 24 upper bits."""
    return (bits >> 8).astype(jnp.float32) / 2**24


def _bar_at(market: MarketData, index: Int[Array, ""], rules: Rules) -> Bar:
    """Return one bar of the market."""
    ends_session = market.ends_session[index]
    return Bar(
        open=market.open[index],
        low=market.low_s[index],
        high=market.high_s[index],
        close=market.close[index],
        volatility=jnp.maximum(market.atr[index], rules.tick_size),
        may_enter=market.in_session[index] & ~ends_session,
        ends_session=ends_session,
    )


def _window_at(
    inputs: Float[Array, "T F"], index: Int[Array, ""], window: int
) -> Float[Array, " W_F"]:
    """Return the inputs of the `window` bars that end with `index`, oldest first."""
    num_inputs = inputs.shape[1]
    first = (index - window + 1) * num_inputs
    return jax.lax.dynamic_slice(inputs.reshape(-1), (first,), (window * num_inputs,))


def make_trading(
    phase: Phase, given: Mapping[str, RawValue], source: MarketSource
) -> tuple[Trading, TradingParams]:
    """Build one phase from the user's parameters and data.

    Args:
        phase: 1 or 2.
        given: Values by key; see `envs.trading_params`.
        source: The data and the market; without data the bars are synthetic.

    Returns:
        The environment and its traced parameters.

    Raises:
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
        InvalidMarketData: The data or the market cannot be used.
    """
    contract = contract_of(source.market, source.point_value)
    settings = read_settings(phase, given, contract, has_data=source.data is not None)
    bars = load_bars(source, seed=settings.seed)
    market = market_data(bars, episode_length=settings.max_episode_steps, window=WINDOW)
    env = Trading(
        phase=phase,
        max_episode_steps=settings.max_episode_steps,
        notes=_notes(source, contract, bars, market),
        declared_best=settings.best_return,
    )
    return env, trading_params(market, contract, phase, settings.values)


def _notes(
    source: MarketSource, contract: Contract, bars: Bars, market: MarketData
) -> tuple[str, ...]:
    """Return what the user should know of the data, a line each."""
    num_bars, num_starts = market.close.shape[0], market.starts.shape[0]
    notes = [
        f"{num_bars:,} bars, of which {num_starts:,} may start an episode",
        f"{source.market}: {contract.point_value:g} USD a point, tick {contract.tick_size:g}",
    ]
    if source.data is None:
        notes.append("synthetic bars: drawn from a seed, with a planted pattern")
    if bars.dropped:
        rows = "row was" if bars.dropped == 1 else "rows were"
        notes.append(f"{bars.dropped:,} bad {rows} dropped of {bars.num_rows:,}")
    if not bool(market.ends_session.any()):
        notes.append("no session: every bar with enough data around it may start an episode")
    else:
        notes.append(
            f"{int(market.in_session.sum()):,} bars open from 09:30 to 16:00 in New York, times "
            f"without an offset being {source.tz or 'UTC'}"
        )
    return tuple(notes)
