"""Markets made by hand, and playing the trading environments on them bar by bar."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Timestep
from envs.contracts import Contract
from envs.market import MarketData
from envs.trading import BUY, NUM_INPUTS, SELL, Trading, TradingState
from envs.trading_params import Phase, TradingParams, trading_params

OHLC = tuple[float, float, float, float]

CONTRACT = Contract(point_value=20.0, tick_size=0.25, commission=2.0)
"""As NQ: 20 USD a point, a tick of 5 USD; 2 USD per contract and side."""
PLAIN = {"holding_cost": 0.0, "breach_penalty": 0.0, "commission": 2.0}
KEY = jax.random.key(0)
START: OHLC = (100, 100, 100, 100)
QUIET: OHLC = (100, 101, 99, 100)
SWAPPED = {BUY: SELL, SELL: BUY}


def market_of(
    bars: Sequence[OHLC],
    *,
    atr: float = 4.0,
    ends: Iterable[int] = (),
    finer: dict[int, tuple[float, float]] | None = None,
    starts: Sequence[int] = (0,),
) -> MarketData:
    """Return a market of a constant ATR; `finer` gives the low and the high of single bars."""
    opened, high, low, close = np.asarray(bars, np.float32).T
    low_s, high_s = low.copy(), high.copy()
    for index, (lowest, highest) in (finer or {}).items():
        low_s[index], high_s[index] = lowest, highest
    num_bars = len(bars)
    draws = np.random.default_rng(0).normal(size=(num_bars, NUM_INPUTS))
    return MarketData(
        open=jnp.asarray(opened),
        high=jnp.asarray(high),
        low=jnp.asarray(low),
        close=jnp.asarray(close),
        low_s=jnp.asarray(low_s),
        high_s=jnp.asarray(high_s),
        atr=jnp.full((num_bars,), atr, jnp.float32),
        inputs=jnp.asarray(draws, jnp.float32),
        in_session=jnp.ones((num_bars,), jnp.bool_),
        ends_session=jnp.asarray(np.isin(np.arange(num_bars), list(ends))),
        starts=jnp.asarray(starts, jnp.int32),
    )


def mirrored(market: MarketData) -> MarketData:
    """Return the market in which 100 is what it was and up is down."""
    return market._replace(
        open=200 - market.open,
        high=200 - market.low,
        low=200 - market.high,
        close=200 - market.close,
        low_s=200 - market.high_s,
        high_s=200 - market.low_s,
    )


def random_market(seed: int, num_bars: int, *, window: int = 20, session: int = 60) -> MarketData:
    """Return a random walk around 1,000 in sessions of `session` bars, with gaps between them."""
    draws = np.random.default_rng(seed)
    steps = draws.normal(scale=2.0, size=num_bars)
    steps[::session] *= 10
    close = 1000 + np.cumsum(steps)
    opened = close - 0.7 * steps
    spread = np.abs(draws.normal(scale=2.0, size=(2, num_bars)))
    bars = [opened, np.maximum(opened, close) + spread[0], np.minimum(opened, close) - spread[1]]
    ticks = np.round(np.stack([*bars, close], axis=1) / 0.25) * 0.25
    ends = range(session - 1, num_bars, session)
    starts = [i for i in range(window - 1, num_bars - 1) if i not in ends]
    market = market_of([tuple(bar) for bar in ticks], ends=ends, starts=starts)
    return market._replace(atr=jnp.asarray(draws.uniform(1.0, 6.0, num_bars), jnp.float32))


def small_trading(
    phase: Phase, market: MarketData, *, max_episode_steps: int = 400, window: int = 1, **given: Any
) -> tuple[Trading, TradingParams]:
    """Return an environment whose rewards are profits and nothing else, unless `given` says so."""
    env = Trading(phase=phase, max_episode_steps=max_episode_steps, window=window)
    return env, trading_params(market, CONTRACT, phase, PLAIN | given)


def play(
    env: Trading, params: TradingParams, actions: Sequence[int]
) -> tuple[list[TradingState], list[Timestep]]:
    """Play the actions from a reset; states before each of them, and what each of them returned."""
    _, state = env.reset(KEY, params)
    states, timesteps = [state], []
    for action in actions:
        timestep = env.step(KEY, states[-1], jnp.int32(action), params)
        timesteps.append(timestep)
        states.append(timestep.state)
    return states, timesteps


def run(
    side: str, phase: Phase, market: MarketData, actions: list[int], **given: Any
) -> tuple[list[Timestep], list[float]]:
    """Play until the episode ends or actions do; return the steps and each one's profit in USD."""
    if side == "short":
        market, actions = mirrored(market), [SWAPPED.get(action, action) for action in actions]
    env, params = small_trading(phase, market, **given)
    states, timesteps = play(env, params, actions[: len(market.close) - 1])
    profits = np.diff([float(state.account.profit) for state in states])
    return timesteps, profits.tolist()


def ending(timestep: Timestep) -> str:
    """Return how a step ended its episode."""
    return {(False, False): "goes on", (True, False): "terminated", (False, True): "truncated"}[
        bool(timestep.terminated), bool(timestep.truncated)
    ]
