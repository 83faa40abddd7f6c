import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.score import (
    COMPONENTS,
    ScoreReferences,
    Scores,
    Weights,
    default_min_gain,
    epsilon,
    score,
)

REFERENCES = ScoreReferences(sps=100_000.0)
UTIL = st.floats(0, 100)
QUALITY = st.floats(0, 1)
SPS = st.floats(0, 1e12)
MAYBE = st.none()


def test_composite_by_hand() -> None:
    # gpu 60/80 = 0.75, sps 300k/(300k+100k) = 0.75
    # 0.4·0.75 + 0.4·0.5 + 0.2·0.75 = 0.3 + 0.2 + 0.15 = 0.65
    scores = score(REFERENCES, device_util=60.0, quality_score=0.5, sps=300_000.0)
    assert (scores.gpu_score, scores.quality_score, scores.sps_score) == (0.75, 0.5, 0.75)
    assert scores.final_score == pytest.approx(0.65)


def test_the_baseline_has_a_throughput_score_of_one_half() -> None:
    scores = score(REFERENCES, device_util=None, quality_score=None, sps=100_000.0)
    assert scores.sps_score == 0.5


def test_composite_is_renormalised_over_the_components_in_use() -> None:
    # Without gpu: (0.4·0.5 + 0.2·0.75) / 0.6 = 0.35/0.6 = 0.58333
    references = ScoreReferences(sps=100_000.0, components=("quality", "sps"))
    scores = score(references, device_util=None, quality_score=0.5, sps=300_000.0)
    assert scores.final_score == pytest.approx(0.58333, abs=1e-5)
    assert scores.gpu_score is None


def test_a_component_that_is_not_in_use_is_told_but_not_counted() -> None:
    references = ScoreReferences(sps=100_000.0, components=("sps",))
    scores = score(references, device_util=40.0, quality_score=0.1, sps=100_000.0)
    assert (scores.gpu_score, scores.quality_score, scores.final_score) == (0.5, 0.1, 0.5)


@pytest.mark.parametrize("missing", ["device_util", "quality_score", "sps"])
def test_a_missing_component_leaves_no_composite(missing: str) -> None:
    measured: dict[str, float | None] = {"device_util": 60.0, "quality_score": 0.5, "sps": 1e5}
    measured[missing] = None
    assert score(REFERENCES, **measured).final_score is None


def test_earlier_failure_1_min_gain_lies_where_scores_can_reach_it() -> None:
    # 0.5 on a score that tops out near 1 stopped the search after four runs.
    for tie in (None, 0.0, 0.01, 0.3, 10.0):
        assert 0.005 <= default_min_gain(tie) <= 0.02


def test_earlier_failure_5_a_saturated_gpu_scores_full() -> None:
    scores = score(REFERENCES, device_util=97.5, quality_score=0.5, sps=1.0)
    assert scores.gpu_score == 1.0
    assert score(REFERENCES, device_util=100.0, quality_score=0.5, sps=1.0).gpu_score == 1.0


@given(UTIL, QUALITY, SPS)
def test_earlier_failure_7_every_score_is_bounded(util: float, quality: float, sps: float) -> None:
    scores = score(REFERENCES, device_util=util, quality_score=quality, sps=sps)
    for value in (
        scores.gpu_score,
        scores.quality_score,
        scores.sps_score,
        scores.final_score,
    ):
        assert value is not None
        assert 0 <= value <= 1


@given(UTIL | MAYBE, QUALITY | MAYBE, SPS | MAYBE)
def test_earlier_failure_7_no_score_is_a_sentinel(
    util: float | None, quality: float | None, sps: float | None
) -> None:
    scores = score(REFERENCES, device_util=util, quality_score=quality, sps=sps)
    assert (scores.final_score is None) == (None in (util, quality, sps))


def test_earlier_failure_15_nothing_measured_is_none_and_divides_by_nothing() -> None:
    scores = score(REFERENCES, device_util=None, quality_score=None, sps=None)
    assert scores == Scores(None, None, None, None)


@given(
    st.tuples(UTIL, QUALITY, SPS),
    st.tuples(UTIL, QUALITY, SPS),
    st.sets(st.sampled_from(COMPONENTS), min_size=1),
)
def test_better_in_everything_is_never_scored_lower(
    one: tuple[float, float, float], other: tuple[float, float, float], used: set[str]
) -> None:
    references = ScoreReferences(sps=100_000.0, components=tuple(sorted(used)))
    low = [min(pair) for pair in zip(one, other, strict=True)]
    high = [max(pair) for pair in zip(one, other, strict=True)]
    worse = score(references, device_util=low[0], quality_score=low[1], sps=low[2])
    better = score(references, device_util=high[0], quality_score=high[1], sps=high[2])
    assert worse.final_score is not None
    assert better.final_score is not None
    assert better.final_score >= worse.final_score - 1e-12


@pytest.mark.parametrize(
    "measured",
    [{"device_util": -1.0}, {"quality_score": 1.1}, {"sps": math.inf}, {"sps": math.nan}],
)
def test_impossible_measurements_are_refused(measured: dict[str, float]) -> None:
    values: dict[str, float | None] = {"device_util": None, "quality_score": None, "sps": None}
    with pytest.raises(ValueError, match="must be finite and within 0–"):
        score(REFERENCES, **(values | measured))


@pytest.mark.parametrize("weights", [(-0.1, 0.5, 0.6), (math.nan, 1, 1), (0, 0, 0)])
def test_weights_are_validated(weights: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match=r"must .*, but got"):
        Weights(*weights)


def test_only_ratios_of_weights_matter() -> None:
    doubled = ScoreReferences(sps=100_000.0, weights=Weights(0.8, 0.8, 0.4))
    one = score(REFERENCES, device_util=30.0, quality_score=0.7, sps=5e4)
    other = score(doubled, device_util=30.0, quality_score=0.7, sps=5e4)
    assert one.final_score == pytest.approx(other.final_score)


@pytest.mark.parametrize("components", [(), ("gpu", "gpu"), ("speed",)])
def test_components_are_validated(components: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="components must be some of gpu, quality, sps"):
        ScoreReferences(sps=1.0, components=components)


@pytest.mark.parametrize("sps", [0.0, -1.0, math.inf, math.nan])
def test_the_reference_must_be_a_speed(sps: float) -> None:
    with pytest.raises(UsageError, match="reference sps must be above 0, but got"):
        ScoreReferences(sps=sps)


def test_weights_in_use_must_not_all_be_zero() -> None:
    with pytest.raises(UsageError, match="weights of the components in use"):
        ScoreReferences(sps=1.0, components=("gpu",), weights=Weights(0.0, 1.0, 1.0))


def test_epsilon_pools_over_configs() -> None:
    # [0.5, 0.6, 0.7]: s² = 0.01, 2 degrees; [0.3, 0.5]: s² = 0.02, 1 degree; [0.9]: nothing.
    # pooled (2·0.01 + 1·0.02)/3 = 0.013333, √ = 0.115470, twice = 0.230940
    assert epsilon([[0.5, 0.6, 0.7], [0.3, 0.5], [0.9]]) == pytest.approx(0.230940, abs=1e-6)


def test_epsilon_without_replicates_is_unknown() -> None:
    assert epsilon([]) is None
    assert epsilon([[0.5], [0.6]]) is None


def test_epsilon_recovers_the_spread_of_simulated_replicates() -> None:
    # 300 configs of different level, three replicates each, σ = 0.01: ε = 0.02 ± √(1/(2·600)) 3 %
    generator = random.Random(3)
    levels = [generator.uniform(0.2, 0.9) for _ in range(300)]
    replicates = [[level + generator.gauss(0, 0.01) for _ in range(3)] for level in levels]
    assert epsilon(replicates) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("tie", "expected"), [(0.001, 0.005), (0.012, 0.012), (0.5, 0.02), (None, 0.005)]
)
def test_default_min_gain_is_epsilon_held_within_its_range(
    tie: float | None, expected: float
) -> None:
    assert default_min_gain(tie) == expected
