import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.quality import QualityReferences, TrainingQualityValidator

# Random gets 20 ± 1, the best is 120: a return R has made p = (R − 20)/100 of the way.
KNOWN = QualityReferences(
    random_return=20.0, random_se=1.0, best_return=120.0, max_entropy=math.log(2)
)
# The baseline gets 60 ± 3, so the scale is 2·(60 − 20) = 80 and the baseline's p is 0.5.
UNKNOWN = QualityReferences(
    random_return=20.0,
    random_se=1.0,
    baseline_return=60.0,
    baseline_se=3.0,
    max_entropy=math.log(2),
)
HEALTHY: dict[str, float | None] = {
    "mean_return": 50.0,
    "entropy": 0.5,
    "policy_loss": -0.01,
    "value_loss": 1.0,
    "approx_kl": 0.01,
    "explained_variance": 0.7,
    "grad_norm": 0.5,
    "clip_fraction": 0.1,
}


def judge(
    evaluated: float | None,
    /,
    *,
    references: QualityReferences = KNOWN,
    standard_error: float | None = 1.0,
    params_changed: bool | None = True,
    blocks: int = 8,
    learned: float | None = None,
    **series: Any,
) -> TrainingQualityValidator:
    """Judge a healthy training of `blocks` blocks in which `series` went another way."""
    validator = TrainingQualityValidator(references)
    for block in range(blocks):
        changed = {
            name: values[block] if isinstance(values, list) else values
            for name, values in series.items()
        }
        validator.add_metrics(**(HEALTHY | changed))
    validator.set_evaluation(
        evaluated, standard_error, params_changed=params_changed, learning_return=learned
    )
    return validator


def diagnosis(validator: TrainingQualityValidator) -> Any:
    return validator.get_diagnostics()["diagnosis"]


def test_a_healthy_policy_scores_its_progress() -> None:
    # p = (80 − 20)/100 = 0.6; all terms 1: 0.6 · (0.3 + 0.3 + 0.2 + 0.2) = 0.6
    validator = judge(80.0)
    assert validator.calculate_quality_score() == pytest.approx(0.6)
    assert validator.is_quality_acceptable() is True
    assert diagnosis(validator) == "learning"


def test_quality_is_of_the_training_and_soundness_of_its_end() -> None:
    # p = (50 − 20)/100 = 0.3 of the learning return; the final policy is judged by its own 80.
    assert judge(80.0, learned=50.0).calculate_quality_score() == pytest.approx(0.3)
    # What was unlearned again is not acceptable, however well it did on the way; and a final
    # policy that may be certain of itself (p = 0.95) has not collapsed.
    assert judge(20.5, learned=60.0).is_quality_acceptable() is False
    assert diagnosis(judge(20.5, learned=60.0)) == "random"
    assert diagnosis(judge(115.0, learned=70.0, entropy=0.01)) == "learning"
    assert diagnosis(judge(70.0, learned=115.0, entropy=0.01)) == "collapsed"
    assert diagnosis(judge(80.0, learned=math.inf)) == "diverged"
    assert diagnosis(judge(22.5, learned=-90.0)) == "diverged"  # p = −1.1


def test_the_baseline_scores_one_half_by_what_it_learned_on_the_way() -> None:
    references = replace(UNKNOWN, baseline_learning=40.0, baseline_learning_se=2.0)
    assert references.scale == 2 * (40.0 - 20.0)
    judged = judge(60.0, learned=40.0, references=references)
    assert judged.calculate_quality_score() == pytest.approx(0.5)
    # It must stand out from chance on the way, too: 20 is not more than 3 · √(8² + 1²).
    noisy = replace(references, baseline_learning_se=8.0)
    assert (noisy.baseline_learned, noisy.scale) == (False, None)


def test_the_baseline_scores_one_half_where_the_best_return_is_unknown() -> None:
    assert judge(60.0, references=UNKNOWN).calculate_quality_score() == pytest.approx(0.5)


def test_progress_is_clipped_but_told_unclipped() -> None:
    found = judge(140.0).get_diagnostics()
    assert (found["progress"], found["progress_unclipped"]) == (1.0, pytest.approx(1.2))
    assert found["quality_score"] == 1.0


def test_earlier_failure_6_a_trained_policy_scores_clearly_above_an_untrained() -> None:
    trained, untrained = judge(100.0), judge(20.5)
    high, low = trained.calculate_quality_score(), untrained.calculate_quality_score()
    assert high is not None
    assert low is not None
    assert high > low + 0.5
    assert trained.is_quality_acceptable() is True
    assert untrained.is_quality_acceptable() is False


def test_earlier_failure_8_nothing_returned_is_unknown_not_zero() -> None:
    validator = TrainingQualityValidator(KNOWN)
    assert validator.calculate_quality_score() is None
    assert validator.is_quality_acceptable() is None
    assert diagnosis(validator) == "too_little_data"


def test_earlier_failure_8_an_episode_that_never_ends_gives_no_score() -> None:
    validator = judge(None, standard_error=None, mean_return=None)
    assert validator.calculate_quality_score() is None
    assert validator.is_quality_acceptable() is None
    assert "not evaluated" in validator.get_diagnostics()["reason"]


def test_the_four_are_told_apart() -> None:
    #                  learning      random       frozen                             diverged
    validators = [judge(80.0), judge(20.0), judge(20.0, params_changed=False), judge(-90.0)]
    assert [diagnosis(v) for v in validators] == ["learning", "random", "frozen", "diverged"]
    assert [v.is_quality_acceptable() for v in validators] == [True, False, False, False]
    learning, *others = [v.calculate_quality_score() for v in validators]
    assert learning is not None
    assert all(score is not None and score < learning - 0.5 for score in others)


def test_random_is_two_standard_errors_of_the_random_policy() -> None:
    # 20 + 2·1 = 22: at it is random, above it is not.
    assert diagnosis(judge(22.0)) == "random"
    assert diagnosis(judge(22.1)) == "learning"


@pytest.mark.parametrize("name", ["policy_loss", "value_loss", "grad_norm", "approx_kl"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_nan_or_infinity_is_divergence(name: str, value: float) -> None:
    series: list[float | None] = [*[0.01] * 5, value, *[0.01] * 2]
    validator = judge(80.0, **dict[str, Any]({name: series}))
    assert diagnosis(validator) == "diverged"
    assert validator.is_quality_acceptable() is False
    assert f"{name} became {value} in block 5" in validator.get_diagnostics()["reason"]


def test_a_return_that_is_nan_is_divergence_without_a_score() -> None:
    validator = judge(math.nan)
    assert validator.is_quality_acceptable() is False
    assert validator.calculate_quality_score() is None


def test_runaway_kl_must_last_throughout() -> None:
    assert diagnosis(judge(80.0, approx_kl=0.6)) == "diverged"
    once: list[float | None] = [0.4, *[0.6] * 7]
    assert diagnosis(judge(80.0, approx_kl=once)) == "learning"


def test_progress_below_minus_one_is_divergence() -> None:
    # p = (−81 − 20)/100 = −1.01
    assert diagnosis(judge(-81.0)) == "diverged"
    assert diagnosis(judge(-79.0)) == "random"


def test_non_finite_losses_take_the_loss_term() -> None:
    # l = 0: 0.6 · (0.3 + 0.3 + 0 + 0.2) = 0.48
    validator = judge(80.0, value_loss=math.inf)
    assert validator.calculate_quality_score() == pytest.approx(0.48)


def test_exploding_value_loss_is_a_fault_only_while_returns_do_not_rise() -> None:
    # The second half goes from 1 to 11: more than tenfold.
    exploding: list[float | None] = [1, 1, 1, 1, 1, 2, 5, 11]
    rising: list[float | None] = [1, 2, 3, 4, 5, 6, 7, 8]
    assert judge(80.0, value_loss=exploding).get_diagnostics()["terms"]["l"] == 0.0
    improving = judge(80.0, value_loss=exploding, mean_return=rising)
    assert improving.get_diagnostics()["terms"]["l"] == 1.0
    # 1 to 10 is tenfold, not more; and a growth in the first half is no fault.
    assert judge(80.0, value_loss=[*exploding[:7], 10]).get_diagnostics()["terms"]["l"] == 1.0
    early: list[float | None] = [1, 5, 10, 50, 50, 50, 50, 50]
    assert judge(80.0, value_loss=early).get_diagnostics()["terms"]["l"] == 1.0


def test_exploding_value_loss_without_returns_is_not_measured_as_a_fault() -> None:
    validator = judge(80.0, value_loss=[1, 1, 1, 1, 1, 2, 5, 11], mean_return=None)
    assert validator.get_diagnostics()["terms"]["l"] == 1.0


@pytest.mark.parametrize(
    ("kl", "term"),
    # 1 up to 0.05; then 1 − (kl − 0.05)/0.45: at 0.275 it is 0.5, at 0.5 it is 0.
    [(0.0, 1.0), (0.05, 1.0), (0.275, 0.5), (0.5, 0.0), (None, 1.0)],
)
def test_the_kl_term_falls_linearly(kl: float | None, term: float) -> None:
    validator = judge(80.0, approx_kl=kl)
    assert validator.get_diagnostics()["terms"]["k"] == pytest.approx(term)
    # 0.6 · (0.8 + 0.2·k)
    assert validator.calculate_quality_score() == pytest.approx(0.6 * (0.8 + 0.2 * term))


COLLAPSED: list[float | None] = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.03]
# The limit is 0.05 · ln 2 = 0.0347.


def test_collapse_with_a_known_best_return_is_judged_below_nine_tenths() -> None:
    # p = 0.5 < 0.9: e = 0, 0.5 · (0.3 + 0 + 0.2 + 0.2) = 0.35; it did learn, so it is acceptable.
    validator = judge(70.0, entropy=COLLAPSED)
    assert diagnosis(validator) == "collapsed"
    assert validator.calculate_quality_score() == pytest.approx(0.35)
    assert validator.is_quality_acceptable() is True
    # p = 0.95: an expert may be certain.
    expert = judge(115.0, entropy=COLLAPSED)
    assert diagnosis(expert) == "learning"
    assert expert.calculate_quality_score() == pytest.approx(0.95)


def test_collapse_with_an_unknown_best_return_is_judged_against_the_baseline() -> None:
    # Two standard errors of the difference: 2·√(3² + 4²) = 10, so below 60 − 10 = 50.
    short = judge(49.9, references=UNKNOWN, standard_error=4.0, entropy=COLLAPSED)
    assert short.get_diagnostics()["terms"]["e"] == 0.0
    level = judge(50.1, references=UNKNOWN, standard_error=4.0, entropy=COLLAPSED)
    assert level.get_diagnostics()["terms"]["e"] == 1.0
    assert diagnosis(level) == "learning"


def test_collapse_with_progress_near_zero_is_not_acceptable() -> None:
    # p = (24 − 20)/100 = 0.04, though more than two standard errors above random.
    validator = judge(24.0, entropy=COLLAPSED)
    assert diagnosis(validator) == "collapsed"
    assert validator.is_quality_acceptable() is False


def test_a_gaussian_policy_collapses_by_its_sigma_and_not_by_its_entropy() -> None:
    # Entropies are negative for narrow policies, and far below ln 2 without any fault.
    negative: list[float | None] = [-2.0] * 8
    narrowing: list[float | None] = [0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.06, 0.04]
    collapsed = judge(70.0, sigma_share=narrowing, entropy=negative)
    assert diagnosis(collapsed) == "collapsed"
    assert collapsed.get_diagnostics()["terms"]["e"] == 0.0
    wide: list[float | None] = [*narrowing[:7], 0.06]
    assert diagnosis(judge(70.0, sigma_share=wide, entropy=negative)) == "learning"
    # p = 0.95: so good a policy may be as certain as it likes.
    assert diagnosis(judge(115.0, sigma_share=narrowing, entropy=negative)) == "learning"


def test_a_masked_policy_collapses_against_what_its_allowed_actions_leave() -> None:
    # 0.02 is below 5 % of ln 2 = 0.693, but 20 % of 0.1: nine in ten states leave no choice.
    assert diagnosis(judge(70.0, entropy=0.02)) == "collapsed"
    assert diagnosis(judge(70.0, entropy=0.02, max_entropy=0.1)) == "learning"
    assert diagnosis(judge(70.0, entropy=0.004, max_entropy=0.1)) == "collapsed"
    # Without a choice anywhere there is nothing to be certain of.
    assert diagnosis(judge(70.0, entropy=0.0, max_entropy=0.0)) == "learning"


def test_low_kl_high_entropy_and_poor_explained_variance_are_no_faults() -> None:
    validator = judge(80.0, approx_kl=0.0, entropy=math.log(2), explained_variance=-5.0)
    assert validator.calculate_quality_score() == pytest.approx(0.6)


def test_unknown_health_is_not_held_against_a_trainer_that_reports_none() -> None:
    unknown: dict[str, Any] = dict.fromkeys(HEALTHY)
    validator = judge(80.0, **unknown)
    assert validator.calculate_quality_score() == pytest.approx(0.6)
    assert set(validator.get_diagnostics()["trends"].values()) == {None}


@pytest.mark.parametrize(
    "references",
    [
        QualityReferences(random_return=20.0, random_se=1.0),
        # One replicate: no standard error.
        QualityReferences(random_return=20.0, random_se=1.0, baseline_return=60.0),
        # 3·√(1² + 3²) = 9.49: a baseline of 29 is not above 20 by that.
        QualityReferences(20.0, 1.0, baseline_return=29.0, baseline_se=3.0),
    ],
)
def test_without_a_scale_there_is_too_little_data(references: QualityReferences) -> None:
    validator = judge(80.0, references=references)
    assert diagnosis(validator) == "too_little_data"
    assert validator.calculate_quality_score() is None
    assert validator.is_quality_acceptable() is None


def test_a_baseline_three_standard_errors_above_random_is_a_scale() -> None:
    # 20 + 9.49 = 29.49 < 29.6: scale 2·9.6 = 19.2
    references = QualityReferences(20.0, 1.0, baseline_return=29.6, baseline_se=3.0)
    assert references.baseline_learned is True
    assert references.scale == pytest.approx(19.2)


def test_a_best_return_that_is_not_above_random_is_said() -> None:
    references = QualityReferences(random_return=20.0, random_se=1.0, best_return=10.0)
    assert "check best_return" in judge(80.0, references=references).get_diagnostics()["reason"]


def test_a_fault_is_told_even_without_a_scale() -> None:
    references = QualityReferences(random_return=20.0, random_se=1.0)
    assert judge(80.0, references=references, params_changed=False).is_quality_acceptable() is False


def test_unknown_whether_parameters_changed_is_too_little_data() -> None:
    validator = judge(80.0, params_changed=None)
    assert validator.is_quality_acceptable() is None
    assert validator.calculate_quality_score() is None


def test_trends_are_slopes_per_block_over_the_known_blocks() -> None:
    # 10, –, 30, 40 at blocks 0, 2, 3: exactly 10 a block.
    found = judge(
        80.0, blocks=4, mean_return=[10, None, 30, 40], entropy=[0.6, 0.5, 0.4, 0.3]
    ).get_diagnostics()
    assert found["trends"]["mean_return"] == pytest.approx(10.0)
    assert found["trends"]["entropy"] == pytest.approx(-0.1)
    assert found["trends"]["value_loss"] == 0.0


def test_reset_forgets_the_trial() -> None:
    validator = judge(80.0)
    validator.reset()
    assert diagnosis(validator) == "too_little_data"
    assert validator.get_diagnostics()["num_blocks"] == 0


def test_diagnostics_are_json() -> None:
    for validator in (judge(80.0), judge(None), judge(20.0), judge(70.0, entropy=COLLAPSED)):
        assert json.loads(json.dumps(validator.get_diagnostics(), allow_nan=False))


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.none() | st.floats(0, 2),
    st.none() | st.floats(0, 10),
    st.booleans(),
)
def test_quality_is_in_the_unit_interval(
    mean_return: float, entropy: float | None, kl: float | None, changed: bool
) -> None:
    validator = judge(mean_return, entropy=entropy, approx_kl=kl, params_changed=changed)
    quality = validator.calculate_quality_score()
    assert quality is not None
    assert 0 <= quality <= 1


@given(st.floats(-500, 500), st.floats(-500, 500))
def test_quality_never_falls_with_the_return(one: float, other: float) -> None:
    low, high = (judge(r).calculate_quality_score() for r in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert low <= high
