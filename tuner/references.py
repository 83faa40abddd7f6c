"""What a study's trials are judged against: fixed at calibration, stored on the study, never moved.

Apart from the calibration that makes them, because every later trial, report and profile reads
them, in other processes and on other days.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from storage.records import TrialRecord
from tuner.goal import time_score
from tuner.measurement import MUST_BE_FINITE, Evaluation, Measurement, seconds_to
from tuner.quality import JUDGED_METRICS, QualityReferences, TrainingQualityValidator
from tuner.score import ScoreReferences, Weights, score
from tuner.throughput import RunSpread, interval


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The yardsticks of a study.

    `components` are those of the score that this study uses; `quality_reason` says why quality is
    not among them. `sps` is the baseline's, in env-steps per second; `epsilon` the width of a tie
    at calibration; `target_return` what `seconds_to_target` counts to; `env_steps` what every
    trial trains for. `target_s` is set under `--goal time-to-return` alone: the seconds in which
    the baseline reached the target, or those of its whole training where it did not.
    """

    quality: QualityReferences
    quality_reason: str | None
    components: tuple[str, ...]
    weights: Weights
    sps: float
    spread: RunSpread | None
    epsilon: float | None
    target_return: float | None
    env_steps: int
    target_s: float | None = None

    def scores(self) -> ScoreReferences:
        """Return what the composite score refers to."""
        return ScoreReferences(self.sps, self.components, self.weights)

    def as_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "References":
        """Return the references that were stored."""
        spread = data["spread"]
        return cls(
            **{
                **data,
                "quality": QualityReferences(**data["quality"]),
                "components": tuple(data["components"]),
                "weights": Weights(**data["weights"]),
                "spread": None if spread is None else RunSpread(**spread),
            }
        )


def assess(measurement: Measurement, quality: QualityReferences) -> TrainingQualityValidator:
    """Return a validator that has seen the whole measurement."""
    learned = [point.metrics for point in measurement.curve if point.learning]
    return assess_training(learned, measurement.evaluation, quality)


def assess_training(
    blocks: Iterable[Mapping[str, float | None]],
    evaluation: Evaluation | None,
    quality: QualityReferences,
) -> TrainingQualityValidator:
    """Return a validator that has seen a training: the metrics of its blocks, and its policy."""
    validator = TrainingQualityValidator(quality)
    for metrics in blocks:
        validator.add_metrics(**_as_measured(metrics))
    if evaluation is not None:
        validator.set_evaluation(
            evaluation.mean_return,
            evaluation.return_se,
            params_changed=evaluation.params_changed,
            learning_return=evaluation.learning_return(quality.random_return),
        )
    return validator


def diagnose(measurement: Measurement, quality: QualityReferences) -> dict[str, Any]:
    """Return `diagnosis`, `reason`, `acceptable` and `quality_score` of a measurement.

    What is kept of an earlier training was judged then, and is not judged again.
    """
    if measurement.kept is None:
        return assess(measurement, quality).get_diagnostics()
    return {
        "diagnosis": "learning",
        "reason": measurement.kept.reason,
        "acceptable": measurement.kept.acceptable,
        "quality_score": measurement.kept.quality_score,
    }


def judge(measurement: Measurement, references: References) -> TrialRecord:
    """Return the measurement's record with interval, quality and scores.

    Only a trial that succeeded is scored. One that ran to its end but moved its policy too far at
    every update, or ended far below chance, has the status `diverged`.
    """
    record = measurement.record
    if measurement.throughput is not None:
        bounds = interval(measurement.throughput, references.spread)
        record = replace(record, sps_ci95=bounds)
    record = replace(
        record, seconds_to_target=seconds_to(measurement.curve, references.target_return)
    )
    if record.status == "diverged":
        return replace(record, quality_acceptable=False)
    if record.status != "success":
        return record
    diagnostics = diagnose(measurement, references.quality)
    if diagnostics["diagnosis"] == "diverged":
        return replace(
            record, status="diverged", reason=diagnostics["reason"], quality_acceptable=False
        )
    if measurement.evaluation is not None:
        learned = measurement.evaluation.learning_return(references.quality.random_return)
        record = replace(record, learning_return=learned)
    in_use = "quality" in references.components
    scores = score(
        references.scores(),
        device_util=record.device_util,
        quality_score=diagnostics["quality_score"] if in_use else None,
        sps=record.sps,
    )
    return replace(
        record,
        quality_acceptable=diagnostics["acceptable"] if in_use else None,
        quality_reason=diagnostics["reason"] if in_use else references.quality_reason,
        gpu_score=scores.gpu_score,
        quality_score=scores.quality_score,
        sps_score=scores.sps_score,
        final_score=scores.final_score,
        goal_score=goal_score(measurement, references),
    )


def goal_score(measurement: Measurement, references: References) -> float | None:
    """Return the score of `--goal time-to-return`, None in a study of the composite."""
    target, start = references.target_return, references.quality.random_return
    if references.target_s is None or target is None:
        return None
    returns = [point.metrics.get("mean_return") for point in measurement.curve if point.learning]
    return time_score(
        seconds_to(measurement.curve, target),
        reference_s=references.target_s,
        best_return=max((value for value in returns if value is not None), default=None),
        start=start,
        target=target,
    )


def stored_references(measured: Mapping[str, Any]) -> QualityReferences | None:
    """Return what a profile was judged by; None where its `measured` does not say it in numbers."""
    stored = measured.get("quality_references")
    if not isinstance(stored, Mapping):
        return None
    numbers = [value for value in stored.values() if value is not None]
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return None
    try:
        return QualityReferences(**stored)
    except TypeError:
        return None


def _as_measured(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the metrics that are judged, with NaN where a null stands for what was not finite.

    A trainer of the user's may tell others too.
    """
    lost = {name: math.nan for name in MUST_BE_FINITE if metrics.get(name, 0.0) is None}
    return {name: value for name, value in {**metrics, **lost}.items() if name in JUDGED_METRICS}
