"""From bars to what an environment reads: prices, indicators, sessions and episode starts.

Nothing here looks ahead: whatever is computed for a bar depends on that bar and on earlier ones
only, the standardisation included, which therefore uses the mean and the standard deviation of the
bars *so far* and not of the whole part in use. Sessions depend on times alone, never on prices.

Apart from `bars` because it decides what an agent may see, and `bars` what a file may hold.
`T` bars, `S` episode starts.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from numpy.typing import NDArray

from envs.bars import Bars
from envs.errors import InvalidMarketData

FEATURES = ("close", "volume", "sma_5", "sma_20", "rsi_14", "macd", "momentum_10", "atr_14")
"""Standardised indicators, in the order of the first columns of `MarketData.inputs`."""

TIME_FEATURES = ("sin_time_of_day", "cos_time_of_day", "minutes_to_close")
"""The columns after them: the time of day in New York on a circle, and the share of a session of
390 minutes that is left when the bar opens, 1 before it, 0 after it and without sessions."""

WARM_UP = 50
"""Bars before the first that a window may hold. The slowest indicator (MACD) needs 26; the others
make the standard deviation so far worth dividing by."""

INPUT_LIMIT = 10.0
"""Standardised values are clipped to ± this."""

NEW_YORK = "America/New_York"
SESSION_OPEN_MINUTE, SESSION_CLOSE_MINUTE = 9 * 60 + 30, 16 * 60
SESSION_MINUTES = SESSION_CLOSE_MINUTE - SESSION_OPEN_MINUTE
MINUTES_PER_DAY = 24 * 60
SATURDAY = 5

SLOW_BARS_HOURS = 20
"""Bars at least this far apart (the median) have no session within them."""

SATURDAY_SHARE = 0.01
"""Markets that trade around the clock have a seventh of their bars on Saturdays; more than this
share is no stray bar."""

LEAST_ATR_SHARE = 1e-6
"""The ATR is at least this share of the close, so that prices which stand still divide nothing by
zero."""

LEAST_DEVIATION_SHARE = 1e-9
"""A standard deviation below this share of the values is rounding: the value counts as its mean."""


class MarketData(NamedTuple):
    """A market, ready for the device; part of an environment's traced parameters.

    `open`, `high`, `low`, `close`: [T] float32, prices. `low_s`, `high_s`: [T] float32, the
    extremes within the bar, of finer bars where there were such. `atr`: [T] float32, ATR 14 in
    units of price, above 0. `inputs`: [T, 11] float32, `FEATURES` then `TIME_FEATURES`, finite
    and within ± `INPUT_LIMIT`. `in_session`: [T] bool, whether the bar lies in regular trading
    hours, all true where the data has no sessions. `ends_session`: [T] bool, whether it is the
    last bar of its session, all false where there are none. `starts`: [S] int32, the bars at which
    an episode may start.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    low_s: Array
    high_s: Array
    atr: Array
    inputs: Array
    in_session: Array
    ends_session: Array
    starts: Array


def market_data(bars: Bars, *, episode_length: int, window: int = 20) -> MarketData:
    """Compute everything that an environment reads from the bars in use.

    An episode may start at a bar within a session, not its last, that has `WARM_UP` bars and a
    whole window behind and `episode_length` bars ahead in these same bars. So a part of the data
    is used by passing that part.

    Args:
        bars: The part of the data in use.
        episode_length: Most steps of an episode, at least 1.
        window: Bars in an observation, the one at which the episode starts included; at least 1.

    Returns:
        The market's arrays.

    Raises:
        InvalidMarketData: No bar may start an episode.
    """
    frame = bars.frame
    clock = _clock(pd.DatetimeIndex(frame.index))
    ranges = _atr(frame["high"].to_numpy(), frame["low"].to_numpy(), frame["close"].to_numpy())
    inputs = np.column_stack([_features(frame, ranges), clock.features])
    starts = _starts(clock, episode_length, window)
    prices = {
        name: jnp.asarray(frame[name].to_numpy(), jnp.float32)
        for name in ("open", "high", "low", "close", "low_s", "high_s")
    }
    floor = LEAST_ATR_SHARE * frame["close"].to_numpy()
    return MarketData(
        **prices,
        atr=jnp.asarray(np.maximum(ranges, floor), jnp.float32),
        inputs=jnp.asarray(inputs, jnp.float32),
        in_session=jnp.asarray(clock.in_session),
        ends_session=jnp.asarray(clock.ends_session),
        starts=jnp.asarray(starts, jnp.int32),
    )


class _Clock(NamedTuple):
    """What times alone say: `in_session`, `ends_session`: [T]; `features`: [T, 3]."""

    in_session: NDArray[np.bool_]
    ends_session: NDArray[np.bool_]
    features: NDArray[np.float64]
    has_sessions: bool


def _clock(times: pd.DatetimeIndex) -> _Clock:
    local = times.tz_convert(NEW_YORK)
    minute = np.asarray(local.hour * 60 + local.minute + local.second / 60, np.float64)
    weekday = np.asarray(local.day_of_week)
    angle = 2 * np.pi * minute / MINUTES_PER_DAY
    circle = [np.sin(angle), np.cos(angle)]
    num_bars = len(times)
    if not _has_sessions(times, weekday):
        features = np.column_stack([*circle, np.zeros(num_bars)])
        return _Clock(np.ones(num_bars, np.bool_), np.zeros(num_bars, np.bool_), features, False)
    in_hours = (minute >= SESSION_OPEN_MINUTE) & (minute < SESSION_CLOSE_MINUTE)
    in_session = (weekday < SATURDAY) & in_hours
    day = np.asarray(local.year * 1000 + local.day_of_year)
    goes_on = in_session[1:] & (day[1:] == day[:-1])
    left = np.clip((SESSION_CLOSE_MINUTE - minute) / SESSION_MINUTES, 0, 1)
    return _Clock(
        in_session=in_session,
        ends_session=in_session & ~np.append(goes_on, False),
        features=np.column_stack([*circle, np.where(weekday < SATURDAY, left, 0)]),
        has_sessions=True,
    )


def _has_sessions(times: pd.DatetimeIndex, weekday: NDArray[np.int64]) -> bool:
    """Return False for daily or slower bars, and for markets that trade around the clock."""
    step = pd.Series(times).diff().median()
    return bool(
        step < pd.Timedelta(hours=SLOW_BARS_HOURS)
        and np.mean(weekday == SATURDAY) <= SATURDAY_SHARE
    )


def _starts(clock: _Clock, episode_length: int, window: int) -> NDArray[np.int64]:
    num_bars = len(clock.in_session)
    first = WARM_UP + window - 1
    needed = first + 1 + episode_length
    if num_bars < needed:
        raise InvalidMarketData(
            f"an episode must have {WARM_UP} bars to warm up, a window of {window} and "
            f"{episode_length} bars ahead, {needed} in all, but got {num_bars}; give more bars "
            "(--bars), or a smaller max_episode_steps"
        )
    bar = np.arange(num_bars)
    fits = (bar >= first) & (bar + episode_length <= num_bars - 1)
    starts = np.flatnonzero(fits & clock.in_session & ~clock.ends_session)
    if not len(starts):
        raise InvalidMarketData(
            f"an episode must start between 09:30 and 16:00 in New York, with {first} bars behind "
            f"and {episode_length} ahead, but got no such bar among {num_bars}, of which "
            f"{int(clock.in_session.sum())} lie in those hours; check --tz or give more bars"
        )
    return starts


def _features(frame: pd.DataFrame, ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standardised indicators, [T, 8]; 0 where one has too few bars behind."""
    close, volume = frame["close"].to_numpy(), frame["volume"].to_numpy()
    momentum = np.full_like(close, np.nan)
    momentum[10:] = close[10:] - close[:-10]
    known_ranges = np.where(np.arange(len(close)) < 14, np.nan, ranges)
    columns = (
        close,
        volume,
        _sma(close, 5),
        _sma(close, 20),
        _rsi(close),
        _ema(close, 12) - _ema(close, 26),
        momentum,
        known_ranges,
    )
    return np.column_stack([_standardised(column) for column in columns])


def _sma(values: NDArray[np.float64], num_bars: int) -> NDArray[np.float64]:
    """Return the mean of the last `num_bars` values, NaN before there are so many."""
    means = np.full_like(values, np.nan)
    means[num_bars - 1 :] = np.lib.stride_tricks.sliding_window_view(values, num_bars).mean(axis=1)
    return means


def _smoothed(values: NDArray[np.float64], num_bars: int, share: float) -> NDArray[np.float64]:
    """Return `s' = s + share·(x − s)`, started from the mean of the first `num_bars` values.

    NaN before there are so many.
    """
    smooth = np.full_like(values, np.nan)
    seeded = np.append(values[:num_bars].mean(), values[num_bars:])
    smooth[num_bars - 1 :] = pd.Series(seeded).ewm(alpha=share, adjust=False).mean().to_numpy()
    return smooth


def _ema(values: NDArray[np.float64], num_bars: int) -> NDArray[np.float64]:
    """Return the exponential average with the usual share 2 / (`num_bars` + 1) (Appel's MACD)."""
    return _smoothed(values, num_bars, 2 / (num_bars + 1))


def _wilder(values: NDArray[np.float64], num_bars: int) -> NDArray[np.float64]:
    """Return Wilder's average, whose share is 1 / `num_bars`."""
    return _smoothed(values, num_bars, 1 / num_bars)


def _rsi(close: NDArray[np.float64], num_bars: int = 14) -> NDArray[np.float64]:
    """Return the relative strength index, 0 to 100, and 50 where nothing moved.

    J. Welles Wilder, New Concepts in Technical Trading Systems, 1978, section VI.
    """
    change = np.diff(close)
    gain = _wilder(np.maximum(change, 0), num_bars)
    loss = _wilder(np.maximum(-change, 0), num_bars)
    moved = gain + loss
    index = np.divide(100 * gain, moved, out=np.full_like(moved, 50), where=moved != 0)
    return np.append(np.nan, index)


def _atr(
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    num_bars: int = 14,
) -> NDArray[np.float64]:
    """Return the average true range in units of price; the mean so far before there are enough.

    J. Welles Wilder, New Concepts in Technical Trading Systems, 1978, section III. The first bar's
    true range, without a close before it, is its own range and is left out afterwards.
    """
    true_range = high - low
    true_range[1:] = np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1])
    mean_so_far = np.cumsum(true_range) / np.arange(1, len(high) + 1)
    average = np.append(np.nan, _wilder(true_range[1:], num_bars))
    return np.where(np.isnan(average), mean_so_far, average)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values less their mean so far, over their standard deviation so far, clipped.

    Leading NaN become 0. Sums are of differences from the first value, so that prices of
    20,000 ± 1 lose no digits to their level.
    """
    known = values[np.isfinite(values)]
    count = np.arange(1, len(known) + 1)
    shifted = known - known[:1]
    mean = np.cumsum(shifted) / count
    variance = np.maximum(np.cumsum(shifted**2) / count - mean**2, 0)
    deviation = np.sqrt(variance)
    varies = deviation > LEAST_DEVIATION_SHARE * np.maximum.accumulate(np.abs(known))
    scores = np.divide(shifted - mean, deviation, out=np.zeros_like(known), where=varies)
    padding = np.zeros(len(values) - len(known))
    return np.append(padding, np.clip(scores, -INPUT_LIMIT, INPUT_LIMIT))
