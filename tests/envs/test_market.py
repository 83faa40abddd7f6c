from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.bars import Bars, MarketSource, load_bars
from envs.errors import InvalidMarketData
from envs.market import (
    FEATURES,
    INPUT_LIMIT,
    TIME_FEATURES,
    WARM_UP,
    MarketData,
    _atr,
    _ema,
    _rsi,
    _sma,
    _standardised,
    market_data,
)
from envs.synthetic import synthetic_bars

NASDAQ = Path(__file__).parent.parent / "data" / "nasdaq-daily.csv"


def bars_at(times: pd.DatetimeIndex, seed: int = 0) -> Bars:
    """Return bars of a random walk at these times."""
    frame = synthetic_bars(len(times), seed)
    frame.index = times.tz_convert("UTC").as_unit("ns")
    return Bars(frame)


def session(day: str, first: str = "09:30", last: str = "15:59") -> pd.DatetimeIndex:
    """Return the minutes of a day from `first` to `last`, on the clock of New York."""
    return pd.date_range(f"{day} {first}", f"{day} {last}", freq="min", tz="America/New_York")


def joined(first: pd.DatetimeIndex, *others: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return first.tz_convert("UTC").append([other.tz_convert("UTC") for other in others])


# --- sessions -------------------------------------------------------------------------------------


def test_sessions_follow_daylight_saving_through_both_changes() -> None:
    # Around the clock on the trading days beside both changes; a Friday and a Monday each.
    days = ("2024-03-08", "2024-03-11", "2024-11-01", "2024-11-04")
    times = joined(*(session(day, "00:00", "23:59") for day in days))
    data = market_data(bars_at(times), episode_length=10)
    inside = times[np.asarray(data.in_session)]
    ends = times[np.asarray(data.ends_session)]
    # 09:30 in New York is 14:30 UTC in winter and 13:30 in summer; the last minute is 15:59.
    assert [str(time)[5:16] for time in inside[::390]] == [
        "03-08 14:30", "03-11 13:30", "11-01 13:30", "11-04 14:30",
    ]  # fmt: skip
    assert [str(time)[5:16] for time in ends] == [
        "03-08 20:59", "03-11 19:59", "11-01 19:59", "11-04 20:59",
    ]  # fmt: skip
    assert int(data.in_session.sum()) == 4 * 390


def test_minutes_to_the_close_and_the_time_of_day_by_hand() -> None:
    times = joined(session("2024-03-08", "00:00", "23:59"), session("2024-03-09", "12:00", "12:01"))
    clock = np.asarray(market_data(bars_at(times), episode_length=10).inputs)[:, len(FEATURES) :]
    noon = 12 * 60
    # 359 minutes are left at 10:01, 240 at noon, one at 15:59; before it is all, after it none.
    expected = {0: 1, 570: 1, 601: 359 / 390, noon: 240 / 390, 959: 1 / 390, 960: 0, 1439: 0}
    for minute, left in expected.items():
        assert clock[minute, 2] == pytest.approx(left)
    # A quarter of the day is at 06:00, half of it at noon.
    assert clock[360, :2] == pytest.approx([1, 0], abs=1e-6)
    assert clock[noon, :2] == pytest.approx([0, -1], abs=1e-6)
    assert clock[-1, 2] == 0  # noon of a Saturday
    assert len(FEATURES) + len(TIME_FEATURES) == 11


def test_a_session_ends_with_its_last_bar_on_half_days_and_where_bars_are_missing() -> None:
    half = session("2024-11-29", last="12:59")
    gappy = session("2024-12-02").delete(slice(100, 130))
    cut = session("2024-12-03", last="11:00")
    times = joined(half, gappy, cut)
    data = market_data(bars_at(times), episode_length=10)
    # The data's own last bar ends a session too: nothing follows.
    assert np.flatnonzero(data.ends_session).tolist() == [
        len(half) - 1, len(half) + len(gappy) - 1, len(times) - 1,
    ]  # fmt: skip
    starts = set(np.asarray(data.starts).tolist())
    assert len(half) - 1 not in starts
    assert len(half) - 2 in starts


def test_evening_bars_end_no_session_and_start_no_episode() -> None:
    times = joined(*(session(f"2024-03-0{day}", "00:00", "23:59") for day in (5, 6)))
    data = market_data(bars_at(times), episode_length=10)
    starts = np.asarray(data.starts)
    minutes = starts % 1440
    assert (minutes.min(), minutes.max()) == (570, 958)
    assert np.asarray(data.in_session)[starts].all()


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2024-01-01", periods=300, freq="B", tz="UTC"),
        pd.date_range("2024-01-01", periods=300, freq="W", tz="UTC"),
        pd.date_range("2024-01-05", periods=300, freq="h", tz="UTC"),
    ],
    ids=["daily", "weekly", "around the clock"],
)
def test_without_sessions_every_bar_that_fits_may_start(times: pd.DatetimeIndex) -> None:
    data = market_data(bars_at(times), episode_length=100)
    assert np.asarray(data.in_session).all()
    assert not np.asarray(data.ends_session).any()
    assert np.asarray(data.inputs)[:, 10].tolist() == [0] * 300
    # First: 50 bars to warm up and a window of 20, so index 69. Last: 299 − 100.
    assert np.asarray(data.starts).tolist() == list(range(69, 200))


def test_a_stray_bar_on_a_saturday_makes_no_market_that_never_closes() -> None:
    times = joined(session("2024-03-08"), session("2024-03-09", "12:00", "12:00"))
    data = market_data(bars_at(times), episode_length=10)
    assert int(data.in_session.sum()) == 390
    assert not bool(data.in_session[-1])


def test_the_real_daily_bars_have_no_session_and_all_valid_starts() -> None:
    data = market_data(load_bars(MarketSource(data=str(NASDAQ))), episode_length=400)
    # Of 5,031 bars: from 69 to 5030 − 400.
    assert np.asarray(data.starts).tolist() == list(range(69, 4631))
    assert np.asarray(data.in_session).all()
    assert float(data.close[-1]) == pytest.approx(6635.279785)


# --- starts of a part -----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    first=st.integers(0, 2_000),
    num_bars=st.integers(100, 2_000),
    episode_length=st.integers(1, 400),
    window=st.integers(1, 30),
)
def test_starts_of_any_part_lie_within_that_part(
    first: int, num_bars: int, episode_length: int, window: int
) -> None:
    frame = synthetic_bars(4_000).iloc[first : first + num_bars]
    try:
        data = market_data(Bars(frame), episode_length=episode_length, window=window)
    except InvalidMarketData:
        last = np.arange(WARM_UP + window - 1, num_bars - episode_length)
        minute = (np.arange(first, first + num_bars) % 390)[last]
        assert (minute == 389).all()
        return
    starts = np.asarray(data.starts)
    assert starts.dtype == np.int32
    assert starts.min() - window + 1 >= WARM_UP
    assert starts.max() + episode_length <= num_bars - 1
    assert np.asarray(data.in_session)[starts].all()
    assert not np.asarray(data.ends_session)[starts].any()


def test_too_few_bars_say_how_many_are_needed() -> None:
    # 50 + 20 + 400 = 470: the last bar of the window is the one at which the episode starts.
    bars = Bars(synthetic_bars(600).iloc[-469:])
    with pytest.raises(InvalidMarketData) as refused:
        market_data(bars, episode_length=400)
    assert str(refused.value) == (
        "an episode must have 50 bars to warm up, a window of 20 and 400 bars ahead, 470 in all, "
        "but got 469; give more bars (--bars), or a smaller max_episode_steps"
    )
    enough = Bars(synthetic_bars(600).iloc[-470:])
    assert np.asarray(market_data(enough, episode_length=400).starts).tolist() == [69]


def test_no_bar_in_trading_hours_says_so() -> None:
    times = joined(*(session(f"2024-03-0{day}", "17:00", "23:00") for day in (5, 6)))
    with pytest.raises(InvalidMarketData) as refused:
        market_data(bars_at(times), episode_length=10)
    assert str(refused.value) == (
        "an episode must start between 09:30 and 16:00 in New York, with 69 bars behind and 10 "
        "ahead, but got no such bar among 722, of which 0 lie in those hours; check --tz or give "
        "more bars"
    )


# --- no look-ahead --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    now=st.integers(0, 298),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-3, 0.9, 1.1, 1e3]),
)
def test_no_future_bar_changes_anything_before_it(now: int, seed: int, scale: float) -> None:
    frame = synthetic_bars(300, seed=5)
    changed = frame.copy()
    later = synthetic_bars(300, seed=seed + 6) * scale
    changed.iloc[now + 1 :] = later.iloc[now + 1 :]
    before = market_data(Bars(frame), episode_length=50)
    after = market_data(Bars(changed), episode_length=50)
    assert not jnp.array_equal(before.close, after.close)
    for name in MarketData._fields:
        if name == "starts":
            continue
        first, second = (np.asarray(getattr(data, name))[: now + 1] for data in (before, after))
        np.testing.assert_array_equal(first, second, err_msg=name)
    np.testing.assert_array_equal(before.starts, after.starts)


def test_what_is_seen_of_a_bar_does_not_depend_on_how_many_follow() -> None:
    frame = synthetic_bars(1_000)
    whole = market_data(Bars(frame), episode_length=50)
    part = market_data(Bars(frame.iloc[:500]), episode_length=50)
    np.testing.assert_allclose(part.inputs, whole.inputs[:500], atol=1e-6)
    np.testing.assert_allclose(part.atr, whole.atr[:500], rtol=1e-6)


# --- indicators by hand ---------------------------------------------------------------------------


def test_simple_and_exponential_averages_by_hand() -> None:
    values = np.array([1.0, 2, 3, 10])
    # (1+2+3)/3 = 2; (2+3+10)/3 = 5.
    np.testing.assert_allclose(_sma(values, 3), [np.nan, np.nan, 2, 5])
    # Starts from the mean of three, share 2/(3+1): 2 + (10 − 2)/2 = 6.
    np.testing.assert_allclose(_ema(values, 3), [np.nan, np.nan, 2, 6])


def test_rsi_by_hand() -> None:
    # 14 changes: seven of +1 and seven of −0.5. Mean gain 0.5, mean loss 0.25:
    # 100 − 100/(1 + 0.5/0.25) = 66.6667. Then +1: gain (13·0.5 + 1)/14 = 0.535714, loss
    # 13·0.25/14 = 0.232143: 100 − 100/(1 + 2.307692) = 69.7674.
    changes = [1, -0.5] * 7 + [1]
    close = 100 + np.concatenate([[0.0], np.cumsum(changes)])
    index = _rsi(close)
    assert np.isnan(index[:14]).all()
    np.testing.assert_allclose(index[14:], [200 / 3, 69.767442], rtol=1e-7)
    assert _rsi(np.full(20, 7.0))[14:].tolist() == [50] * 6
    assert _rsi(np.arange(1.0, 21))[14:].tolist() == [100] * 6
    assert _rsi(np.arange(20.0, 0, -1))[14:].tolist() == [0] * 6


def test_atr_by_hand() -> None:
    # Fourteen bars of range 2 after the first whose closes stay at 100: true ranges of 2. Then a
    # bar that gaps up to 109–110: its true range counts from the close before, 110 − 100 = 10, so
    # the average is (13·2 + 10)/14 = 36/14. The first bar's own range of 6 is left out from bar 14.
    high = np.array([103.0] + [101.0] * 14 + [110.0])
    low = np.array([97.0] + [99.0] * 14 + [109.0])
    close = np.array([100.0] * 15 + [109.5])
    average = _atr(high, low, close)
    assert average[0] == 6
    assert average[1] == pytest.approx((6 + 2) / 2)
    assert average[13] == pytest.approx((6 + 13 * 2) / 14)
    assert average[14] == pytest.approx(2)
    assert average[15] == pytest.approx(36 / 14)


def test_standardisation_uses_the_bars_so_far_by_hand() -> None:
    # Means so far 1, 2, 3; deviations 0, 1, √(((1−3)² + (3−3)² + (5−3)²)/3) = √(8/3).
    scores = _standardised(np.array([np.nan, 1, 3, 5]))
    np.testing.assert_allclose(scores, [0, 0, 1, 2 / np.sqrt(8 / 3)])
    assert _standardised(np.full(50, 0.1)).tolist() == [0] * 50
    spike = np.append(np.tile([1.0, -1.0], 500), 1e6)
    assert _standardised(spike)[-1] == INPUT_LIMIT


@pytest.mark.parametrize("first", [20_000.0, 1.0])
def test_standardisation_keeps_its_digits_at_a_high_level(first: float) -> None:
    values = np.append(first, 20_000 + np.random.default_rng(0).normal(size=5_000))
    scores = _standardised(values)
    for index in (10, 1_000, 5_000):
        so_far = values[: index + 1]
        expected = (values[index] - so_far.mean()) / so_far.std()
        assert scores[index] == pytest.approx(expected, abs=1e-9)


def test_inputs_are_the_indicators_in_their_order() -> None:
    frame = synthetic_bars(400)
    data = market_data(Bars(frame), episode_length=10)
    close, volume = frame["close"], frame["volume"]
    # By pandas, another implementation; it starts the exponential averages otherwise.
    change = close.diff()
    gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-change).clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    expected = {
        "close": close,
        "volume": volume,
        "sma_5": close.rolling(5).mean(),
        "sma_20": close.rolling(20).mean(),
        "rsi_14": 100 - 100 / (1 + gain / loss),
        "macd": macd,
        "momentum_10": close.diff(10),
    }
    for name, values in expected.items():
        column = np.asarray(data.inputs)[200:, FEATURES.index(name)]
        score = ((values - values.expanding().mean()) / values.expanding().std(ddof=0)).iloc[200:]
        assert np.corrcoef(column, score)[0, 1] > 0.998, name
        if name not in ("rsi_14", "macd"):
            np.testing.assert_allclose(column, score, atol=1e-5, err_msg=name)
    ranges = np.asarray(data.inputs)[200:, FEATURES.index("atr_14")]
    assert np.corrcoef(ranges, np.asarray(data.atr)[200:])[0, 1] > 0.9


@pytest.mark.parametrize("value", [1e-9, 100.0, 1e9])
def test_prices_that_stand_still_give_finite_inputs_and_a_range_above_zero(value: float) -> None:
    frame = synthetic_bars(200)
    frame.loc[:, ["open", "high", "low", "close", "low_s", "high_s"]] = value
    frame["volume"] = 0.0
    data = market_data(Bars(frame), episode_length=10)
    assert np.isfinite(np.asarray(data.inputs)).all()
    assert float(data.atr.min()) > 0
    assert not np.asarray(data.inputs)[:, : len(FEATURES)].any() or value != 100.0


def test_everything_is_finite_scaled_and_of_the_declared_type() -> None:
    data = market_data(load_bars(MarketSource()), episode_length=400)
    num_bars = 20_000
    for name in ("open", "high", "low", "close", "low_s", "high_s", "atr"):
        values = getattr(data, name)
        assert (values.shape, values.dtype) == ((num_bars,), jnp.float32), name
        assert np.isfinite(np.asarray(values)).all()
    assert (data.inputs.shape, data.inputs.dtype) == ((num_bars, 11), jnp.float32)
    assert np.abs(np.asarray(data.inputs)).max() <= INPUT_LIMIT
    assert (data.in_session.dtype, data.ends_session.dtype) == (jnp.bool_, jnp.bool_)
    assert not any(leaf.weak_type for leaf in data)
