from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import profile_files
from storage.profile import Profile, from_mapping
from storage.records import TrialRecord
from tests.tuner.measurements import failure, record
from tuner.aggregate import ConfigSummary, summarise
from tuner.errors import ExportRefused
from tuner.finalists import contest_of
from tuner.pareto import pareto_front
from tuner.profiles import (
    PROFILE_NAMES,
    Choice,
    ProfileContext,
    choose,
    contest_between,
    document,
)
from tuner.quality import QualityReferences
from tuner.references import References
from tuner.score import Weights

ALL = ("gpu", "quality", "sps")
REFERENCES = References(
    quality=QualityReferences(random_return=0.0, random_se=0.1, best_return=10.0),
    quality_reason=None, components=ALL, weights=Weights(),
    sps=100_000.0, spread=None, epsilon=0.01, target_return=None, env_steps=400,
)  # fmt: skip


def choose_from(records: list[TrialRecord], **changes: Any) -> dict[str, Choice]:
    summaries = summarise(records)
    arguments: dict[str, Any] = {
        "components": ALL,
        "epsilon": 0.02,
        "baseline": summaries[0],
        "util_is_gpu": False,
        "quality_tie": 0.02,
    }
    return choose(contest_between(summaries, **(arguments | changes)))


THREE = [
    record(0, quality_score=0.5, sps=100e3, device_util=50.0, final_score=0.5),
    record(1, quality_score=0.7, sps=120e3, device_util=60.0, final_score=0.7),
    record(2, quality_score=0.9, sps=110e3, device_util=55.0, final_score=0.6),
]


def test_there_are_three_profiles_and_each_says_why() -> None:
    choices = choose_from(THREE)
    assert tuple(choices) == PROFILE_NAMES == ("balanced", "max_gpu", "max_quality")
    for name, choice in choices.items():
        assert choice.name == name
        assert "of 3 measured configs; " in choice.reason
        assert "runner-up" in choice.reason


def test_a_config_alone_on_the_front_says_so_and_coincides_with_itself() -> None:
    best = record(3, quality_score=0.95, sps=500e3, device_util=99.0, final_score=0.95)
    choices = choose_from([*THREE, best])
    assert {choice.summary.trial for choice in choices.values()} == {3}
    assert choices["balanced"].coincides_with == ("max_gpu", "max_quality")
    assert choices["max_quality"].coincides_with == ("balanced", "max_gpu")
    assert all(choice.reason.endswith("alone on the front") for choice in choices.values())


def test_earlier_failure_10_profiles_that_coincide_name_each_other() -> None:
    choices = choose_from(THREE)
    assert choices["balanced"].coincides_with == ("max_gpu",)
    assert choices["max_gpu"].coincides_with == ("balanced",)
    assert choices["max_quality"].coincides_with == ()


def test_a_choice_that_was_only_measured_disturbed_says_so() -> None:
    disturbed = [*THREE[:1], record(1, **BETTER, contaminated="throttled"), THREE[2]]
    assert "disturbed" in choose_from(disturbed)["balanced"].notes[0]


BETTER: dict[str, Any] = {
    "quality_score": 0.7,
    "sps": 120e3,
    "device_util": 60.0,
    "final_score": 0.7,
}


def test_earlier_failure_8_unmeasured_quality_is_not_exported() -> None:
    with pytest.raises(ExportRefused, match="measured learning quality, but got none"):
        choose_from(THREE, components=("gpu", "sps"))


def test_earlier_failure_8_configs_without_quality_are_not_exported() -> None:
    unmeasured = [
        record(trial, quality_score=None, final_score=None, quality_acceptable=None)
        for trial in range(3)
    ]
    with pytest.raises(ExportRefused, match="its learning quality was not measured"):
        choose_from(unmeasured)


def test_earlier_failure_10_profiles_of_quality_zero_are_refused() -> None:
    untrained = [
        record(
            trial,
            quality_score=0.0,
            final_score=0.4,
            quality_acceptable=False,
            quality_reason="The return is not above the random policy's.",
        )
        for trial in range(4)
    ]
    with pytest.raises(ExportRefused, match=r"none of 4 .*not above the random policy's"):
        choose_from(untrained)


def test_too_few_feasible_configs_are_refused() -> None:
    two = [*THREE[:2], failure(2, "oom"), failure(3, "predicted_oom"), failure(4, "timeout")]
    with pytest.raises(ExportRefused, match="at least 3 feasible configs, but got 2"):
        choose_from(two)
    assert set(choose_from(two, min_feasible=2)) == set(PROFILE_NAMES)


def test_the_baseline_counts_as_one_of_them_even_when_it_stands_apart() -> None:
    baseline, *rest = summarise(THREE)
    contest = contest_between(
        rest,
        components=ALL,
        epsilon=None,
        baseline=baseline,
        util_is_gpu=False,
        quality_tie=None,
    )
    assert (contest.num_measured, set(choose(contest))) == (3, set(PROFILE_NAMES))


def test_a_refusal_has_the_exit_code_of_refused_exports() -> None:
    with pytest.raises(ExportRefused) as refusal:
        choose_from(THREE, min_feasible=4)
    assert refusal.value.exit_code == 7
    assert "\n" not in str(refusal.value)


def coordinates(summary: ConfigSummary) -> tuple[float, float, float]:
    values = (summary.device_util, summary.quality_score, summary.sps)
    return tuple(value for value in values if value is not None)  # type: ignore[return-value]


@st.composite
def studies(draw: st.DrawFn) -> list[TrialRecord]:
    records = []
    for trial in range(draw(st.integers(1, 12))):
        sps = draw(st.integers(50, 200)) * 1e3
        half_width = draw(st.sampled_from([0.0, 0.01, 0.1])) * sps
        scored: dict[str, Any] = {
            "device_util": float(draw(st.integers(0, 100))),
            "quality_score": draw(st.integers(0, 20)) / 20,
            "sps": sps,
            "sps_ci95": draw(st.sampled_from([None, (sps - half_width, sps + half_width)])),
            "final_score": draw(st.integers(0, 20)) / 20,
            "quality_acceptable": draw(st.sampled_from([True, True, False, None])),
            "peak_memory_gb": draw(st.sampled_from([None, 1.0, 2.0])),
        }
        ran = draw(st.sampled_from([True, True, True, False]))
        records.append(record(trial, **scored) if ran else failure(trial, "oom"))
    return records


@given(studies(), st.booleans(), st.sampled_from([None, 0.0, 0.05, 0.3]))
def test_choices_are_eligible_and_on_the_front_or_the_export_is_refused(
    records: list[TrialRecord], util_is_gpu: bool, width: float | None
) -> None:
    summaries = summarise(records)
    feasible = [summary for summary in summaries if summary.status == "success"]
    eligible = [summary for summary in summaries if summary.eligible]
    arguments: dict[str, Any] = {
        "util_is_gpu": util_is_gpu,
        "epsilon": width,
        "quality_tie": width,
    }
    if len(feasible) < 3 or not eligible:
        with pytest.raises(ExportRefused):
            choose_from(records, **arguments)
        return
    front = pareto_front([coordinates(summary) for summary in eligible])
    allowed = {eligible[index].config for index in front}
    choices = choose_from(records, **arguments)
    assert {choice.summary.config for choice in choices.values()} <= allowed
    for choice in choices.values():
        for other in choice.coincides_with:
            assert choices[other].summary.config == choice.summary.config
            assert choice.name in choices[other].coincides_with


@given(studies(), st.randoms(use_true_random=False))
def test_the_order_of_configs_does_not_matter(records: list[TrialRecord], generator: Any) -> None:
    records = [record(90), record(91), record(92), *records]
    summaries = summarise(records)
    baseline, shuffled = summaries[0], list(summaries)
    generator.shuffle(shuffled)

    def trials(order: list[ConfigSummary]) -> list[int]:
        contest = contest_between(
            order,
            components=ALL,
            epsilon=0.05,
            baseline=baseline,
            util_is_gpu=True,
            quality_tie=0.05,
        )
        return [choice.summary.trial for choice in choose(contest).values()]

    assert trials(summaries) == trials(shuffled)


CONTEXT = ProfileContext(
    hardware={"name": "NVIDIA H100 80GB HBM3", "memory_gb": 85.5},
    versions={"jax": "0.10.2"},
    workload={"env": "stress", "hash": "abc"},
    measured={"study": "demo", "date": "2026-11-22T00:00:00Z", "trials": 37},
    device="gpu",
    learning_rate=3e-4,
    util_source="nvml",
    mem_fraction=0.75,
)


def test_a_document_has_exactly_the_keys_of_a_profile_in_their_order() -> None:
    choice = choose_from(THREE)["max_quality"]
    assert list(document(choice, context=CONTEXT)) == [field.name for field in fields(Profile)]


def test_a_document_holds_what_was_measured() -> None:
    content = document(choose_from(THREE)["max_quality"], context=CONTEXT)
    expected = {
        "profile": "max_quality",
        "num_envs": 192,
        "num_steps": 64,
        "num_minibatches": 4,
        "num_epochs": 4,
        "expected_sps": 110e3,
        "expected_sps_ci95": pytest.approx([107_800.0, 112_200.0]),
        "expected_device_util": 55.0,
        "expected_gpu_util": None,
        "expected_memory_gb": 1.0,
        "quality_score": 0.9,
        "learning_rate": 3e-4,
        "notes": None,
    }
    assert {key: content[key] for key in expected} == expected
    assert content["measured"] == {
        "study": "demo",
        "date": "2026-11-22T00:00:00Z",
        "trials": 37,
        "trial": 2,
        "replicates": 1,
        "env_steps": 1_000_000,
    }


def test_gpu_utilisation_is_told_only_where_a_gpu_was_measured() -> None:
    records = [record(trial, gpu_util=99.0) for trial in range(3)]
    choice = choose_from(records)["balanced"]
    assert document(choice, context=CONTEXT)["expected_gpu_util"] == 99.0
    on_cpu = ProfileContext(
        hardware={},
        versions={},
        workload={},
        measured={},
        device="cpu",
        learning_rate=3e-4,
    )
    assert document(choice, context=on_cpu)["expected_gpu_util"] is None


def test_a_document_is_accepted_written_and_read_back(tmp_path: Path) -> None:
    for choice in choose_from(THREE).values():
        content = document(choice, context=CONTEXT)
        profile = from_mapping(content, source="the profile")
        path = profile_files.write(tmp_path, profile)
        assert profile_files.read(path) == profile


def test_a_profile_holds_no_training_budget() -> None:
    content = document(choose_from(THREE)["balanced"], context=CONTEXT)
    assert not {"total_steps", "env_steps", "num_updates", "total_timesteps"} & set(content)


def test_a_tie_is_as_wide_as_repeats_say_and_as_the_calibration_without_any() -> None:
    once, again = [record(0), record(1)], record(1, replicate=1)
    ties = [
        contest_of([*once, *repeats], REFERENCES, min_feasible=1).rules.epsilon
        for repeats in ([], [again], [record(1, replicate=1, final_score=0.65)])
    ]
    # Two measurements that agree exactly leave none; ± 0.05 are 2 · 0.05 · √2.
    assert ties == pytest.approx([0.01, 0.0, 0.1 * 2**0.5])
