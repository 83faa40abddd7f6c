"""What the structured sampler proposes in a study of tuner's, whose score it knows the parts of."""

import json
import math
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from storage.records import TrialRecord
from storage.recovery import RECORD_ATTR
from storage.studies import set_study_fact, study_facts
from tests.benchmarks.made_up_grid import ENV_STEPS, made_up_grid, quality
from tests.tuner.measurements import failure, record
from tests.tuner.search.test_pruner import REFERENCES
from tests.tuner.search.test_sampler import suggest
from tuner.aggregate import hardware_of
from tuner.goal import objective_of
from tuner.score import score
from tuner.search.expectation import Measured
from tuner.search.known import MEASUREMENTS_ATTR
from tuner.search.priors import PRIORS
from tuner.search.sampler import distributions, make_sampler
from tuner.search.structured import _measured, _parts, _priors, _references
from tuner.space import CPU_SPACE, HardwareConfig

BASELINE = HardwareConfig(64, 64, 4, 4)
BUDGET = 12


def study_of(*records: TrialRecord, seed: int = 0, **references: object) -> optuna.Study:
    """Return a study in which these were measured."""
    sampler = make_sampler("structured", CPU_SPACE, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    known = replace(REFERENCES, env_steps=ENV_STEPS, **references)
    set_study_fact(study, "references", known.as_json())
    for measurement in records:
        add(study, measurement)
    return study


def add(study: optuna.Study, known: TrialRecord) -> None:
    is_inside = hardware_of(known) in CPU_SPACE.config_set()
    study.add_trial(
        optuna.create_trial(
            state=TrialState.COMPLETE if known.status == "success" else TrialState.PRUNED,
            value=objective_of(known),
            params=hardware_of(known).params() if is_inside else {},
            distributions=distributions(CPU_SPACE) if is_inside else {},
            user_attrs={RECORD_ATTR: json.dumps(known.as_dict())},
        )
    )


def measured(config: HardwareConfig, **changes: object) -> TrialRecord:
    return record(0, **config.as_dict(), **changes)


def apart(one: HardwareConfig, other: HardwareConfig) -> float:
    """Return over how many doublings of the four numbers two configs lie."""
    pairs = zip(one.as_dict().values(), other.as_dict().values(), strict=True)
    return sum(abs(math.log2(mine / theirs)) for mine, theirs in pairs)


@pytest.fixture(scope="module")
def table() -> dict[HardwareConfig, TrialRecord]:
    """A measurement of every config of a made-up table, scored against the baseline."""
    rows = {row.config: row for row in made_up_grid(repeats=1).rows}
    scale = replace(REFERENCES.scores(), sps=rows[BASELINE].record.sps or 0.0)
    found = {}
    for config, row in rows.items():
        scores = score(
            scale,
            device_util=row.record.device_util,
            quality_score=quality(config),
            sps=row.record.sps,
        )
        found[config] = replace(
            row.record,
            gpu_score=scores.gpu_score,
            quality_score=scores.quality_score,
            sps_score=scores.sps_score,
            final_score=scores.final_score,
            quality_acceptable=True,
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_dozen_trials_find_what_is_nearly_the_best_of_168(
    table: dict[HardwareConfig, TrialRecord], seed: int
) -> None:
    study = study_of(table[BASELINE], seed=seed, sps=table[BASELINE].sps)
    for _ in range(BUDGET):
        trial = study.ask()
        known = table[suggest(trial, CPU_SPACE)]
        trial.set_user_attr(RECORD_ATTR, json.dumps(known.as_dict()))
        study.tell(trial, known.final_score)
    scores = sorted((r.final_score or 0.0 for r in table.values()), reverse=True)
    assert study.best_value >= scores[8]  # one of the best twentieth


def test_a_baseline_outside_the_space_is_learned_from() -> None:
    outside = HardwareConfig(48, 64, 4, 4)
    proposed = [
        suggest(study_of(measured(outside, device_util=util)).ask(), CPU_SPACE)
        for util in (20.0, 100.0)
    ]
    # A device that the baseline leaves idle wants larger minibatches than one that it fills.
    assert proposed[0].minibatch_size > proposed[1].minibatch_size


@pytest.mark.parametrize("status", ["diverged", "timeout", "crashed"])
def test_what_did_not_work_is_kept_away_from(status: str) -> None:
    first = suggest(study_of(measured(BASELINE)).ask(), CPU_SPACE)
    burnt = study_of(measured(BASELINE), replace(failure(1, status), **first.as_dict()))
    next_one = suggest(burnt.ask(), CPU_SPACE)
    assert next_one != first
    assert apart(next_one, first) >= 2


@pytest.mark.parametrize("status", ["oom", "predicted_oom"])
def test_nothing_is_tried_that_is_larger_in_every_way_than_what_ran_out_of_memory(
    status: str,
) -> None:
    lost = HardwareConfig(64, 32, 4, 4)
    study = study_of(measured(BASELINE), replace(failure(1, status), **lost.as_dict()))
    for _ in range(10):
        config = suggest(study.ask(), CPU_SPACE)
        assert config.num_envs < 64 or config.batch_size < 64 * 32 or config.minibatch_size < 512


def test_where_all_is_larger_than_what_ran_out_of_memory_all_may_be_tried() -> None:
    least = HardwareConfig(8, 16, 8, 2)
    study = study_of(measured(BASELINE), replace(failure(1, "oom"), **least.as_dict()))
    assert suggest(study.ask(), CPU_SPACE) != least


def test_a_trial_that_was_cut_tells_its_speed() -> None:
    cut = replace(failure(1, "pruned"), **BASELINE.as_dict())
    told = _parts(replace(cut, sps=50_000.0, device_util=40.0), 1)
    assert told == Measured(BASELINE, 40.0, None, 50_000.0)
    assert _parts(cut, 1) is None


def test_the_baseline_counts_as_its_measurements() -> None:
    known = [measured(BASELINE), replace(measured(BASELINE), trial=1)]
    trials = study_of(*known).get_trials()
    # In a study from before their number was noted they count as one.
    assert [parts.times for parts in _measured(trials, known)] == [1, 1]
    trials[0].user_attrs[MEASUREMENTS_ATTR] = 3
    assert [parts.times for parts in _measured(trials, known)] == [3, 1]


def test_luck_does_not_raise_the_bar() -> None:
    # What is sought is more than the best is expected to be, not than it happened to score.
    # Held against these scores themselves, three different configs would be tried next.
    shorter = replace(measured(replace(BASELINE, num_steps=32), quality_score=0.3), trial=1)
    proposed = {
        suggest(study_of(measured(BASELINE), replace(shorter, final_score=it)).ask(), CPU_SPACE)
        for it in (0.3, 0.6, 1.0)
    }
    assert len(proposed) == 1


def test_two_workers_at_once_do_not_try_neighbours() -> None:
    study = study_of(measured(BASELINE))
    first = suggest(study.ask(), CPU_SPACE)
    beside = suggest(study.ask(), CPU_SPACE)
    # Had the first one brought what was expected and no other doubt been settled, its nearest
    # neighbours would come next; as it may settle theirs, the second goes elsewhere.
    assert apart(first, beside) >= 2


def test_a_cpu_is_expected_to_be_busy_whatever_its_config() -> None:
    assert _priors({"hardware": {"kind": "cpu"}}) is PRIORS["cpu"]
    assert _priors({"hardware": {"kind": "gpu"}}) is PRIORS["gpu"]
    assert _priors({"hardware": {"kind": "tpu"}}) is _priors({}) is PRIORS["gpu"]


def test_a_study_for_seconds_is_searched_by_its_values() -> None:
    assert _references(study_facts(study_of(target_s=10.0))) is None
    assert _references(study_facts(optuna.create_study())) is None
    assert _references(study_facts(study_of())) == replace(REFERENCES, env_steps=ENV_STEPS)
    study = study_of(measured(BASELINE), target_s=10.0)
    assert suggest(study.ask(), CPU_SPACE) in CPU_SPACE.configs()


def test_a_study_for_seconds_keeps_away_from_what_diverged() -> None:
    sizes = (8, 16, 32, 64, 128, 256)
    known = [
        measured(HardwareConfig(n, 32, 4, 4), goal_score=0.5 + 0.05 * i)
        for i, n in enumerate(sizes)
    ]
    best = suggest(study_of(*known, target_s=10.0).ask(), CPU_SPACE)
    assert best.num_envs == 512
    lost = [
        replace(failure(1, "diverged"), **replace(best, num_steps=n, num_epochs=e).as_dict())
        for n in (16, 32, 64, 128) for e in (2, 4)
    ]  # fmt: skip
    assert suggest(study_of(*known, *lost, target_s=10.0).ask(), CPU_SPACE).num_envs < 512
