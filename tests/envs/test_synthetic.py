from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.bars import MAX_SYNTHETIC_BARS, MarketSource, load_bars
from envs.synthetic import MOMENTUM_BARS, PATTERN, synthetic_bars

BOTH_CHANGES = 38_000
"""Bars that reach beyond both daylight-saving changes."""


def log_returns(frame: pd.DataFrame) -> np.ndarray:
    """Return the change of the logarithm within each bar, from its open to its close."""
    return np.log(frame["close"].to_numpy() / frame["open"].to_numpy())


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_written_to_a_file_they_pass_every_check_and_come_back_equal(tmp_path: Path) -> None:
    written = synthetic_bars(2_000, seed=3, tick_size=0.1)
    written.to_csv(tmp_path / "bars.csv")
    bars = load_bars(MarketSource(data=str(tmp_path / "bars.csv")))
    assert bars.dropped == 0
    assert bars.frame.equals(written)


def test_the_seed_fixes_them_and_more_bars_only_extend_them() -> None:
    assert synthetic_bars(500, seed=1).equals(synthetic_bars(900, seed=1).iloc[:500])
    assert not np.allclose(synthetic_bars(500, seed=1)["close"], synthetic_bars(500)["close"])


@pytest.mark.parametrize("tick_size", [0.25, 0.1, 1, 0.01])
def test_prices_are_whole_ticks(tick_size: float) -> None:
    prices = synthetic_bars(1_000, tick_size=tick_size)[["open", "high", "low", "close"]]
    ticks = prices.to_numpy() / tick_size
    assert np.abs(ticks - np.round(ticks)).max() < 1e-6
    assert ticks[0, 0] == pytest.approx(40_000)


def test_sessions_are_those_of_new_york_through_both_clock_changes() -> None:
    index = synthetic_bars(BOTH_CHANGES).index
    local = index.tz_convert("America/New_York")
    minute = np.asarray(local.hour * 60 + local.minute)
    assert (minute.min(), minute.max()) == (9 * 60 + 30, 15 * 60 + 59)
    assert np.asarray(local.day_of_week).max() == 4
    assert (np.bincount(np.asarray(local.normalize().factorize()[0]))[:-1] == 390).all()
    # 09:30 in New York is 13:30 UTC in summer and 14:30 in winter.
    openings = {str(time.date()): time.hour for time in index[::390]}
    assert [openings[day] for day in ("2024-11-01", "2024-11-04")] == [13, 14]
    assert [openings[day] for day in ("2025-03-07", "2025-03-10")] == [14, 13]


def test_prices_jump_overnight_and_not_within_a_session() -> None:
    frame = synthetic_bars(10 * 390)
    gaps = np.abs(frame["open"].to_numpy()[1:] - frame["close"].to_numpy()[:-1])
    overnight = np.arange(1, len(frame)) % 390 == 0
    assert np.median(gaps[overnight]) > 10
    assert gaps[~overnight].max() == 0


def test_volatility_clusters_and_without_the_pattern_returns_do_not() -> None:
    returns = log_returns(synthetic_bars(20_000, pattern=0))
    # White noise of 20,000 returns has correlations of ±0.014 (two standard errors).
    assert abs(correlation(returns[:-1], returns[1:])) < 0.02
    assert correlation(returns[:-1] ** 2, returns[1:] ** 2) > 0.08
    assert correlation(returns[:-20] ** 2, returns[20:] ** 2) > 0.04


@pytest.mark.parametrize(("pattern", "low", "high"), [(0.0, -0.02, 0.02), (PATTERN, 0.13, 0.17)])
def test_the_momentum_that_is_visible_tells_the_next_bar(
    pattern: float, low: float, high: float
) -> None:
    close = synthetic_bars(40_000, pattern=pattern)["close"].to_numpy()
    momentum = np.sign(close[MOMENTUM_BARS:-1] - close[: -MOMENTUM_BARS - 1])
    following = np.diff(np.log(close))[MOMENTUM_BARS:]
    within = np.arange(MOMENTUM_BARS + 1, len(close)) % 390 != 0
    # A drift of 0.15 standard deviations with the sign; the standard error is 0.005.
    score = np.mean((momentum * following)[within]) / following[within].std()
    assert low < score < high


def test_without_data_the_default_bars_are_synthetic_and_hold_a_pattern() -> None:
    bars = load_bars(MarketSource(market="RTY"))
    assert len(bars.frame) == MAX_SYNTHETIC_BARS
    assert (bars.dropped, bars.num_rows) == (0, 0)
    assert bars.frame.equals(synthetic_bars(MAX_SYNTHETIC_BARS, 0, 0.1, PATTERN))
    assert len(load_bars(MarketSource(bars=500), seed=2).frame) == 500
