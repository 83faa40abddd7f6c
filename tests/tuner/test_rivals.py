"""What would have to change for the runner-up to win, against numbers found by hand."""

from typing import Any

import pytest

from tests.tuner.measurements import record
from tuner.aggregate import summarise
from tuner.profiles import Contest, choose, contest_between
from tuner.rivals import changes
from tuner.score import ScoreReferences

REFERENCES = ScoreReferences(100e3)


def scored(trial: int, util: float, quality: float, sps: float, **more: Any) -> Any:
    """Return a record whose score is what the formula says, and whose SPS is known exactly."""
    final_score = 0.4 * min(1, util / 80) + 0.4 * quality + 0.2 * sps / (sps + 100e3)
    return record(
        trial, device_util=util, quality_score=quality, sps=sps, sps_ci95=(sps, sps),
        final_score=final_score, **more,
    )  # fmt: skip


def contest_of(*records: Any, epsilon: float = 0.0) -> Contest:
    summaries = summarise(records)
    return contest_between(
        summaries,
        components=("gpu", "quality", "sps"),
        epsilon=epsilon,
        baseline=summaries[0],
        util_is_gpu=False,
        quality_tie=0.0,
        min_feasible=1,
    )


def needed(contest: Contest, profile: str) -> dict[str, float]:
    return {c.quantity: c.needed for c in changes(choose(contest)[profile], contest, REFERENCES)}


def test_the_runner_up_of_balanced_needs_the_difference_of_the_scores() -> None:
    # Scores 0.4·0.5 + 0.4·0.9 + 0.2·0.5 = 0.66 and 0.4·0.5 + 0.4·0.6 + 0.2·0.75 = 0.59.
    contest = contest_of(scored(0, 40.0, 0.9, 100e3), scored(1, 40.0, 0.6, 300e3))
    found = needed(contest, "balanced")
    # It lacks 0.07: 0.07 / 0.4 = 0.175 of quality, or 0.175 · 80 = 14 points of utilisation.
    assert found["quality_score"] == pytest.approx(0.775, abs=1e-4)
    assert found["device_util"] == pytest.approx(54.0, abs=1e-2)
    # 0.07 / 0.2 = 0.35 more of sps / (sps + 100k) would be 1.1: no speed is enough.
    assert "sps" not in found
    assert "peak_memory_gb" not in found


def test_the_runner_up_of_max_gpu_needs_utilisation() -> None:
    contest = contest_of(scored(0, 70.0, 0.5, 100e3), scored(1, 40.0, 0.6, 90e3))
    # Within two points it is a tie, which the faster wins: it must be above 72.
    assert needed(contest, "max_gpu")["device_util"] == pytest.approx(72.0, abs=1e-2)


def test_where_memory_decides_less_memory_wins() -> None:
    heavy = scored(0, 50.0, 0.5, 100e3, peak_memory_gb=2.0)
    light = scored(1, 50.0, 0.5, 100e3, peak_memory_gb=1.0)
    contest = contest_of(heavy, light, epsilon=0.01)
    assert choose(contest)["balanced"].summary.trial == 1
    # Of 8 GB, 0.08 is no difference; between equals the baseline, the first trial, wins.
    assert needed(contest, "balanced")["peak_memory_gb"] == pytest.approx(1.08, abs=1e-5)


def test_where_seconds_are_sought_the_runner_up_needs_to_be_sooner() -> None:
    def timed(trial: int, seconds: float, quality: float) -> Any:
        goal_score = 0.5 + 0.5 * 10.0 / (10.0 + seconds)
        return scored(trial, 50.0, quality, 100e3, goal_score=goal_score, seconds_to_target=seconds)

    contest = contest_of(timed(0, 8.0, 0.5), timed(1, 12.0, 0.6))
    assert choose(contest)["balanced"].summary.trial == 0
    # Nothing else would do: its score hangs on its seconds alone.
    assert needed(contest, "balanced") == {"seconds_to_target": pytest.approx(8.0, abs=1e-4)}


def test_alone_on_the_front_nothing_would_change() -> None:
    contest = contest_of(scored(0, 50.0, 0.5, 100e3))
    choice = choose(contest)["balanced"]
    assert choice.runner_up is None
    assert changes(choice, contest, REFERENCES) == []
