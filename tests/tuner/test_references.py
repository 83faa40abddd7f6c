"""What trials are judged against: stored without loss, and judged by hand."""

import json
from dataclasses import replace
from typing import Any

import pytest

from storage.records import CurvePoint
from tests.tuner.measurements import failure, record
from tuner.measurement import Evaluation, Measurement
from tuner.outcome import Completed, Diverged, Outcome
from tuner.quality import QualityReferences
from tuner.references import References, assess, judge
from tuner.score import Weights
from tuner.throughput import RunSpread, Throughput

# Random gets 20 ± 1, the best is 120: a return R has made p = (R − 20)/100 of the way.
QUALITY = QualityReferences(random_return=20.0, random_se=1.0, best_return=120.0, max_entropy=0.69)
REFERENCES = References(
    quality=QUALITY,
    quality_reason=None,
    components=("gpu", "quality", "sps"),
    weights=Weights(0.4, 0.4, 0.2),
    sps=1000.0,
    spread=RunSpread(between_variance=0.0004, within_variance=0.0001, num_replicates=3),
    epsilon=0.01,
    target_return=50.0,
    env_steps=4000,
)
HALF_WAY = Evaluation(70.0, 1.0, params_changed=True)
COMPLETED = Completed()
HEALTHY: dict[str, float | None] = {
    "mean_return": 60.0,
    "entropy": 0.5,
    "policy_loss": -0.01,
    "value_loss": 1.0,
    "approx_kl": 0.01,
    "explained_variance": 0.7,
    "grad_norm": 0.5,
    "clip_fraction": 0.1,
}


def measurement(
    evaluation: Evaluation | None = HALF_WAY,
    *,
    outcome: Outcome = COMPLETED,
    learning: bool = True,
    **changed: float | None,
) -> Measurement:
    """Four blocks of 1 s; in the last, metrics are changed; 3000 env-steps/s and a use of 40 %."""
    points = [
        CurvePoint(
            block=number,
            env_steps=1000 * (number + 1),
            seconds=1.0,
            metrics={**HEALTHY, **(changed if number == 3 else {})},
            learning=learning or number < 3,
        )
        for number in range(4)
    ]
    kept = record(1, sps=3000.0, sps_ci95=None, device_util=40.0)
    unscored = replace(
        kept, gpu_score=None, quality_score=None, sps_score=None, final_score=None,
        quality_acceptable=None, status=outcome.status, reason=outcome.reason,
    )  # fmt: skip
    return Measurement(
        record=unscored,
        curve=tuple(points),
        samples=(),
        throughput=Throughput(3000.0, 0.0001, 11),
        evaluation=evaluation,
        outcome=outcome,
    )


def test_references_survive_being_stored() -> None:
    stored = json.loads(json.dumps(REFERENCES.as_json()))
    assert References.from_json(stored) == REFERENCES
    bare = replace(REFERENCES, spread=None, epsilon=None, target_return=None, quality_reason="x")
    assert References.from_json(json.loads(json.dumps(bare.as_json()))) == bare


def test_a_success_has_all_its_scores() -> None:
    # gpu 40/80 = 0.5; p = (70 − 20)/100 = 0.5, all health terms 1; sps 3000/(3000 + 1000) = 0.75
    # 0.4 · 0.5 + 0.4 · 0.5 + 0.2 · 0.75 = 0.55
    judged = judge(measurement(), REFERENCES)
    assert judged.gpu_score == 0.5
    assert judged.quality_score == pytest.approx(0.5)
    assert judged.sps_score == 0.75
    assert judged.final_score == pytest.approx(0.55)
    assert judged.quality_acceptable is True
    assert judged.status == "success"


def test_the_interval_is_that_of_a_fresh_process() -> None:
    # By hand in test_throughput: ± 121.7 at 1000 env-steps/s, so ± 365.1 at 3000.
    low, high = judge(measurement(), REFERENCES).sps_ci95 or (0.0, 0.0)
    assert (low, high) == pytest.approx((3000 - 365.1, 3000 + 365.1), abs=0.1)
    assert judge(measurement(), replace(REFERENCES, spread=None)).sps_ci95 is None


def test_seconds_count_to_the_target_of_the_study() -> None:
    # Every block returns 60: the first, of 1 s, has reached 50.
    assert judge(measurement(), REFERENCES).seconds_to_target == 1.0
    beyond = replace(REFERENCES, target_return=61.0)
    assert judge(measurement(), beyond).seconds_to_target is None


def test_a_component_that_is_not_in_use_is_not_scored() -> None:
    # (0.4 · 0.5 + 0.2 · 0.75) / 0.6 = 0.35/0.6
    without = replace(REFERENCES, components=("gpu", "sps"), quality_reason="too little data: x")
    judged = judge(measurement(), without)
    assert (judged.quality_score, judged.quality_acceptable) == (None, None)
    assert judged.quality_reason == "too little data: x"
    assert judged.final_score == pytest.approx(0.35 / 0.6)


def test_a_component_in_use_that_was_not_measured_leaves_no_composite() -> None:
    judged = judge(measurement(None), REFERENCES)
    assert (judged.quality_score, judged.quality_acceptable, judged.final_score) == (None,) * 3
    assert judged.sps_score == 0.75
    assert "not evaluated" in (judged.quality_reason or "")


@pytest.mark.parametrize("status", ["predicted_oom", "oom", "timeout", "crashed", "pruned"])
def test_a_failure_has_no_score(status: str) -> None:
    failed = replace(measurement(), record=failure(1, status))
    judged = judge(failed, REFERENCES)
    assert (judged.gpu_score, judged.quality_score, judged.sps_score) == (None,) * 3
    assert (judged.final_score, judged.quality_acceptable) == (None, None)
    assert judged.status == status


def test_a_diverged_trial_is_not_acceptable() -> None:
    judged = judge(measurement(None, outcome=Diverged("it blew up")), REFERENCES)
    assert (judged.status, judged.reason) == ("diverged", "it blew up")
    assert judged.quality_acceptable is False
    assert judged.final_score is None


def test_a_trial_that_ended_far_below_chance_is_diverged() -> None:
    # p = (−90 − 20)/100 = −1.1
    judged = judge(measurement(Evaluation(-90.0, 1.0, params_changed=True)), REFERENCES)
    assert judged.status == "diverged"
    assert "further below random" in (judged.reason or "")
    assert (judged.quality_acceptable, judged.final_score) == (False, None)


@pytest.mark.parametrize("name", ["policy_loss", "value_loss", "entropy", "approx_kl", "grad_norm"])
def test_a_null_among_losses_is_what_was_not_finite(name: str) -> None:
    # JSON has no NaN: the child sends null. A NaN policy acts, and could even return well.
    changed: dict[str, Any] = {name: None}
    found = assess(measurement(**changed), QUALITY).get_diagnostics()
    assert (found["diagnosis"], found["acceptable"]) == ("diverged", False)
    assert found["reason"] == f"{name} became nan in block 3."


@pytest.mark.parametrize("name", ["mean_return", "explained_variance"])
def test_a_null_return_or_explained_variance_is_merely_unknown(name: str) -> None:
    changed: dict[str, Any] = {name: None}
    found = assess(measurement(**changed), QUALITY).get_diagnostics()
    assert (found["diagnosis"], found["acceptable"]) == ("learning", True)


def test_blocks_that_only_timed_are_not_judged() -> None:
    validator = assess(measurement(learning=False, value_loss=None), QUALITY)
    found = validator.get_diagnostics()
    assert (found["diagnosis"], found["num_blocks"]) == ("learning", 3)


def test_what_was_learned_on_the_way_is_scored_and_recorded() -> None:
    evaluation = Evaluation(70.0, 1.0, params_changed=True, earlier=(None, 40.0, 60.0))
    judged = judge(measurement(evaluation), REFERENCES)
    # No episode ended at the first milestone, which counts as chance: (20 + 40 + 60 + 70) / 4.
    assert judged.learning_return == 47.5
    end = judge(measurement(Evaluation(47.5, 1.0, params_changed=True)), REFERENCES)
    assert judged.quality_score == pytest.approx(end.quality_score)
    assert end.learning_return == 47.5


def test_chance_is_judged_by_the_error_of_the_policy_too() -> None:
    # 64 episodes with a standard error of 3 may return 20 + 2 · 3 = 26 by chance, though three
    # seeds of the random policy agree within 1.
    def diagnosis(mean_return: float, error: float) -> str:
        evaluated = measurement(Evaluation(mean_return, error, params_changed=True))
        return str(assess(evaluated, QUALITY).get_diagnostics()["diagnosis"])

    assert diagnosis(25.9, 3.0) == "random"
    assert diagnosis(26.1, 3.0) == "learning"
    assert diagnosis(22.1, 0.5) == "learning"


def test_parameters_that_never_changed_are_frozen() -> None:
    judged = judge(measurement(Evaluation(20.0, 1.0, params_changed=False)), REFERENCES)
    assert (judged.status, judged.quality_score) == ("success", 0.0)
    assert judged.quality_acceptable is False
    assert judged.quality_reason == "No parameter changed during training."
