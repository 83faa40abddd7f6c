"""What is kept of an earlier training: put to a measurement, judged, and told apart from others."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from storage.records import CurvePoint
from tests.tuner.measurements import failure, record
from tuner.aggregate import MEAN_KEPT, is_copy, summarise
from tuner.errors import UsageError
from tuner.finalists import tie_width
from tuner.kept_learning import KeptLearning, learnings
from tuner.measurement import Measurement
from tuner.outcome import Completed
from tuner.quality import QualityReferences
from tuner.references import References, judge
from tuner.score import Weights
from tuner.space import HardwareConfig

QUALITY = QualityReferences(random_return=20.0, random_se=1.0, best_return=120.0)
REFERENCES = References(
    quality=QUALITY, quality_reason=None, components=("gpu", "quality", "sps"), weights=Weights(),
    sps=1000.0, spread=None, epsilon=None, target_return=None, env_steps=4000,
)  # fmt: skip
BASELINE, OTHER = HardwareConfig(64, 64, 4, 4), HardwareConfig(128, 64, 4, 4)
CURVE = {"env_steps": [2000, 4000], "mean_return": [None, 60.0], "entropy": [0.6, 0.5]}
KEPT = KeptLearning.model_validate(
    {
        "origin": "done, measured on a GPU",
        "env_steps": 4000,
        "references": QUALITY,
        "environment": {},
        "configs": [
            {
                "config": [64, 64, 4, 4],
                "quality_score": [0.4, 0.5, 0.6],
                "acceptable": [True, False, True],
                "mean_return": [60.0, 70.0, 80.0],
                "entropy": [0.5, 0.4, None],
                "curve": CURVE,
            },
            {
                "config": [128, 64, 4, 4],
                "quality_score": [0.7, 0.8],
                "acceptable": [True, True],
                "mean_return": [90.0, 100.0],
                "entropy": [None, 0.3],
                "curve": CURVE,
            },
        ],
    }
)


def block(
    number: int, env_steps: int, seconds: float, value: float | None = None, *, learning: bool
) -> CurvePoint:
    return CurvePoint(
        block=number,
        env_steps=env_steps,
        seconds=seconds,
        metrics={"mean_return": value},
        learning=learning,
    )


def timed(trial: int, replicate: int = 0) -> Measurement:
    """A measurement that was timed only: 2000 env-steps/s over two blocks."""
    told = record(trial, replicate=replicate, sps=2000.0, env_steps=300)
    bare = replace(
        told, mean_return=None, entropy=None, quality_score=None, final_score=None,
        quality_acceptable=None,
    )  # fmt: skip
    blocks = tuple(block(i, 150 * (i + 1), 0.075, learning=False) for i in range(2))
    return Measurement(bare, blocks, (), None, None, Completed())


def test_each_measurement_of_the_baseline_has_a_training_of_its_own() -> None:
    kept = [KEPT.put_to(timed(0, replicate), BASELINE) for replicate in range(4)]
    judged = [judge(measurement, REFERENCES) for measurement in kept]
    # There are three; a fourth measurement has their mean, and is no further seed.
    assert [r.quality_score for r in judged] == [0.4, 0.5, 0.6, pytest.approx(0.5)]
    assert [r.mean_return for r in judged] == [60.0, 70.0, 80.0, 70.0]
    assert [r.entropy for r in judged] == [0.5, 0.4, None, pytest.approx(0.45)]
    assert [r.quality_acceptable for r in judged] == [True, False, True, True]
    assert [is_copy(r) for r in judged] == [False, False, False, True]
    (summary,) = summarise(judged)
    assert summary.quality_score_sd == pytest.approx(0.1)


def test_another_config_has_the_mean_of_its_trainings() -> None:
    first, again = (judge(KEPT.put_to(timed(1, n), OTHER), REFERENCES) for n in (0, 1))
    assert first.quality_score == again.quality_score == pytest.approx(0.75)
    assert (first.mean_return, first.entropy, first.env_steps) == (95.0, 0.3, 4000)
    assert first.quality_reason == "the mean of what was kept from done, measured on a GPU"
    # gpu 50/80, quality 0.75, sps 2000/3000, by 0.4, 0.4, 0.2.
    assert first.final_score == pytest.approx(0.25 + 0.3 + 0.4 / 3)
    assert is_copy(first)
    assert is_copy(again)


def test_two_measurements_of_one_training_say_nothing_of_ties() -> None:
    def scored(trial: int, replicate: int, score: float, reason: str | None) -> object:
        return record(trial, replicate=replicate, final_score=score, quality_reason=reason)

    baseline = [scored(0, 0, 0.5, "kept from a"), scored(0, 1, 0.6, "kept from a")]
    copies = [scored(1, replicate, 0.7, f"{MEAN_KEPT}a") for replicate in (0, 1)]
    # 2 × the standard deviation of 0.5 and 0.6; with the copies it would be less by √2.
    assert tie_width([*baseline, *copies]) == pytest.approx(2 * 0.1 / 2**0.5)  # type: ignore[list-item]


def test_the_kept_curve_comes_before_the_timed_blocks_at_the_rate_measured_here() -> None:
    curve = KEPT.put_to(timed(1), OTHER).curve
    assert [p.env_steps for p in curve] == [2000, 4000, 4150, 4300]
    assert [p.block for p in curve] == [0, 1, 2, 3]
    assert [p.learning for p in curve] == [True, True, False, False]
    assert [p.seconds for p in curve] == [1.0, 1.0, 0.075, 0.075]
    assert [p.metrics.get("mean_return") for p in curve] == [None, 60.0, None, None]


def test_what_did_not_run_has_learned_nothing() -> None:
    refused = Measurement(failure(1, "predicted_oom"), (), (), None, None, Completed())
    assert KEPT.put_to(refused, OTHER) is refused


def test_a_config_that_nothing_is_known_of_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be known"):
        KEPT.put_to(timed(2), HardwareConfig(8, 64, 4, 4))


@pytest.mark.parametrize(
    ("obs_shape", "random_return", "words"),
    [([5], 20.0, "obs_shape is still"), ([4], 30.0, "still returns 20 ± 1, but got 30")],
)
def test_another_environment_is_refused(
    obs_shape: list[int], random_return: float, words: str
) -> None:
    kept = KEPT.model_copy(update={"environment": {"obs_shape": [4]}})
    kept.require_same({"obs_shape": [4]}, 24.0)  # within four standard errors of the difference
    with pytest.raises(UsageError, match=words):
        kept.require_same({"obs_shape": obs_shape}, random_return)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": [float("inf"), 64, 4, 4]},
        {"mean_return": [1e308, 1e308]},
        {"quality_score": [0.5]},
        {"curve": {"env_steps": [], "mean_return": [], "entropy": []}},
        {"curve": {**CURVE, "env_steps": [4000, 2000]}},
    ],
)
def test_figures_that_no_training_gives_are_refused(changes: dict[str, Any]) -> None:
    entry = {**KEPT.configs[1].model_dump(), **changes}
    with pytest.raises(ValidationError):
        KeptLearning.model_validate({**KEPT.model_dump(), "configs": [entry]})


def test_a_wide_front_stays_a_small_file() -> None:
    blocks = [block(i, 100 * (i + 1), 1.0, 1.0, learning=True) for i in range(32)]
    groups = {HardwareConfig(n, 64, 4, 4): [record(0)] for n in range(1, 401)}
    entries = learnings(groups, lambda measured: blocks)
    assert {len(e["curve"]["env_steps"]) for e in entries} == {10}
    assert all(e["curve"]["env_steps"][-1] == 3200 for e in entries)


def test_a_config_of_two_rates_is_known_by_its_rate() -> None:
    entry = KEPT.configs[0]
    two = KEPT.model_copy(
        update={"configs": tuple(entry.model_copy(update={"config": (*entry.config, rate)})
                                 for rate in (1e-3, 3e-4))}
    )  # fmt: skip
    assert two.learning_of(BASELINE) is None
    found = two.learning_of(replace(BASELINE, learning_rate=3e-4))
    assert found is not None
    assert found.config[-1] == 3e-4


def test_what_configs_learned_is_written_down_with_a_thinned_curve() -> None:
    blocks = [block(i, 100 * (i + 1), 1.0, i + 1 / 3, learning=i < 32) for i in range(40)]
    told = [record(0), record(0, replicate=1, quality_score=0.6), failure(0, "crashed")]
    (entry,) = learnings({BASELINE: told}, lambda measured: blocks)
    assert entry["config"] == [64, 64, 4, 4]
    assert entry["quality_score"] == [0.5, 0.6]
    assert entry["curve"]["env_steps"] == [200 * (i + 1) for i in range(16)]
    assert entry["curve"]["mean_return"][-1] == 31.333
    assert learnings({BASELINE: [failure(0, "crashed")]}, lambda measured: []) == []
