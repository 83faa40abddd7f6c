"""Bars of a market that does not exist, for whoever has no data: seeded, and learnable.

Prices follow a geometric walk whose volatility clusters, GARCH(1, 1): the variance of a bar is
`h' = ω + α·r² + β·h` with `r` the last bar's return (Bollerslev, J. Econometrics 31, 1986). Bars
lie on a real session clock, one a minute from 09:30 to 16:00 in New York, Monday to Friday, with
gaps overnight.

A pattern is planted so that training has something to learn: while the price of the last closed
bar lies above that of `MOMENTUM_BARS` bars before, the next bar drifts upwards by `pattern`
standard deviations, below it downwards. Observations show that momentum. Without it (`pattern` 0)
no policy beats the costs, as befits a random walk.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NEW_YORK = "America/New_York"
FIRST_DAY = "2024-10-28"
"""A week before clocks go back in New York. They go forward after 37,000 bars, on 2025-03-09."""

BARS_PER_SESSION = 390
MOMENTUM_BARS = 10
PATTERN = 0.15
"""Standard deviations of drift per bar; enough that PPO finds it, far more than a market offers."""

START_TICKS = 40_000
VOLATILITY = 6.4e-4
"""Long-run standard deviation of a minute's return: 20 % a year of 252 sessions."""

OVERNIGHT_MINUTES = 60
"""A gap between sessions varies like this many minutes of trading."""

ARCH, GARCH = 0.08, 0.9
"""α and β; shocks to the variance fade with 0.98 a bar, so they last about half an hour."""

USUAL_VOLUME = 1_000
"""Contracts traded in a usual minute."""


def synthetic_bars(
    num_bars: int, seed: int = 0, tick_size: float = 0.25, pattern: float = PATTERN
) -> pd.DataFrame:
    """Return seeded synthetic bars of one minute.

    Args:
        num_bars: Number of bars, at least 1.
        seed: Same seed, same bars; more bars only extend fewer.
        tick_size: Prices are multiples of it, and start at `START_TICKS` of it.
        pattern: Strength of the planted pattern, in standard deviations of a bar; 0 for none.

    Returns:
        Columns open, high, low, close, volume, and low_s and high_s, which repeat low and high;
        float64, by the opening time in UTC.
    """
    minutes = np.arange(num_bars) % BARS_PER_SESSION
    draws = _draws(num_bars, seed)
    gaps = np.where(minutes == 0, draws.gap * VOLATILITY * math.sqrt(OVERNIGHT_MINUTES), 0)
    gaps[0] = 0
    opens, closes, deviations = _walk(draws.shock, gaps, pattern)
    highs, lows = _extremes(opens, closes, deviations, draws)
    start = math.log(START_TICKS)
    ticks = {
        "open": np.round(np.exp(start + opens)),
        "high": np.round(np.exp(start + highs)),
        "low": np.round(np.exp(start + lows)),
        "close": np.round(np.exp(start + closes)),
    }
    ticks["high"] = np.maximum.reduce([ticks["high"], ticks["open"], ticks["close"]])
    ticks["low"] = np.minimum.reduce([ticks["low"], ticks["open"], ticks["close"]])
    # Rounded because 3 × 0.1 is not 0.3, and a price is what its decimals say.
    frame = pd.DataFrame({name: np.round(n * tick_size, 10) for name, n in ticks.items()})
    frame["volume"] = _volume(minutes, deviations, draws.volume)
    frame["low_s"], frame["high_s"] = frame["low"], frame["high"]
    frame.index = _session_clock(num_bars)
    return frame


class _Draws(NamedTuple):
    """Independent random series, each [T]: standard normal, or (up, down) exponential."""

    shock: NDArray[np.float64]
    gap: NDArray[np.float64]
    up: NDArray[np.float64]
    down: NDArray[np.float64]
    volume: NDArray[np.float64]


def _draws(num_bars: int, seed: int) -> _Draws:
    """Draw every series from a generator of its own, so that more bars only extend them."""
    shock, gap, up, down, volume = np.random.default_rng(seed).spawn(5)
    return _Draws(
        shock=shock.normal(size=num_bars),
        gap=gap.normal(size=num_bars),
        up=-np.log1p(-up.random(num_bars)),
        down=-np.log1p(-down.random(num_bars)),
        volume=volume.normal(size=num_bars),
    )


def _walk(
    shocks: NDArray[np.float64], gaps: NDArray[np.float64], pattern: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the logarithms of open and close, and each bar's standard deviation; all [T].

    `shocks` are standard normal; `gaps` are the jumps of the logarithm before each bar.
    """
    num_bars = len(shocks)
    opens, closes, deviations = (np.zeros(num_bars) for _ in range(3))
    constant = (1 - ARCH - GARCH) * VOLATILITY**2
    variance, price = VOLATILITY**2, 0.0
    for bar in range(num_bars):
        deviation = math.sqrt(variance)
        price += gaps[bar]
        opens[bar], deviations[bar] = price, deviation
        if bar > MOMENTUM_BARS:
            momentum = closes[bar - 1] - closes[bar - 1 - MOMENTUM_BARS]
            price += pattern * deviation * float(np.sign(momentum))
        shock = deviation * shocks[bar]
        price += shock
        closes[bar] = price
        variance = constant + ARCH * shock**2 + GARCH * variance
    return opens, closes, deviations


def _extremes(
    opens: NDArray[np.float64],
    closes: NDArray[np.float64],
    deviations: NDArray[np.float64],
    draws: _Draws,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the highest and lowest logarithm of a Brownian path from open to close.

    Its maximum above the start is `(x + √(x² + 2σ²·E)) / 2`, with `x` the whole move and E a
    standard exponential variable (Glasserman, Monte Carlo Methods, 2003, section 6.4).
    """
    move = closes - opens
    high = (move + np.sqrt(move**2 + 2 * deviations**2 * draws.up)) / 2
    low = (move - np.sqrt(move**2 + 2 * deviations**2 * draws.down)) / 2
    return opens + high, opens + low


def _volume(
    minutes: NDArray[np.int64], deviations: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return contracts traded: more at both ends of a session and while prices move."""
    middle = (minutes / BARS_PER_SESSION - 0.5) * 2
    usual = USUAL_VOLUME * (0.6 + 1.2 * middle**2) * deviations / VOLATILITY
    return np.maximum(1, np.round(usual * np.exp(0.4 * normal)))


def _session_clock(num_bars: int) -> pd.DatetimeIndex:
    """Return the opening times of `num_bars` bars in UTC, session after session."""
    num_days = -(-num_bars // BARS_PER_SESSION)
    days = pd.bdate_range(FIRST_DAY, periods=num_days)
    opening = (days + pd.Timedelta(hours=9, minutes=30)).tz_localize(NEW_YORK).tz_convert("UTC")
    minutes = pd.to_timedelta(np.arange(BARS_PER_SESSION), unit="min").to_numpy()
    times = opening.tz_localize(None).to_numpy()[:, None] + minutes[None, :]
    return pd.DatetimeIndex(times.ravel()[:num_bars], name="time").as_unit("ns").tz_localize("UTC")
