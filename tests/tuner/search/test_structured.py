"""What the structured sampler proposes in a study of tuner's, whose score it knows the parts of."""

import json
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from storage.records import TrialRecord
from storage.recovery import RECORD_ATTR
from storage.studies import set_study_fact
from tests.benchmarks.made_up_grid import made_up_grid
from tests.tuner.measurements import failure, record
from tests.tuner.search.test_pruner import REFERENCES
from tests.tuner.search.test_sampler import suggest
from tuner.aggregate import hardware_of
from tuner.goal import objective_of
from tuner.score import score
from tuner.search.sampler import distributions, make_sampler
from tuner.space import CPU_SPACE, HardwareConfig

BASELINE = HardwareConfig(64, 64, 4, 4)
BUDGET = 12


def study_of(*records: TrialRecord, seed: int = 0, **references: object) -> optuna.Study:
    """Return a study in which these were measured."""
    sampler = make_sampler("structured", CPU_SPACE, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    set_study_fact(study, "references", replace(REFERENCES, **references).as_json())
    for known in records:
        add(study, known)
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


@pytest.fixture(scope="module")
def table() -> dict[HardwareConfig, TrialRecord]:
    """A measurement of every config of a made-up table, scored against the baseline."""
    rows = {row.config: row for row in made_up_grid(repeats=1).rows}
    scale = replace(REFERENCES.scores(), sps=rows[BASELINE].record.sps or 0.0)
    found = {}
    for config, row in rows.items():
        quality = (row.record.mean_return or 0.0) / 0.45
        scores = score(
            scale,
            device_util=row.record.device_util,
            quality_score=min(1.0, max(0.0, quality)),
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


def test_what_diverged_is_kept_away_from() -> None:
    calm = study_of(measured(BASELINE))
    first = suggest(calm.ask(), CPU_SPACE)
    burnt = study_of(measured(BASELINE), failure(1, "diverged", **{}))
    add(burnt, replace(failure(2, "diverged"), **first.as_dict()))
    next_one = suggest(burnt.ask(), CPU_SPACE)
    assert next_one != first
    assert next_one.minibatch_size <= first.minibatch_size


def test_two_workers_at_once_do_not_try_neighbours() -> None:
    study = study_of(measured(BASELINE))
    first = suggest(study.ask(), CPU_SPACE)
    second = suggest(study.ask(), CPU_SPACE)
    assert first != second


def test_a_study_for_seconds_is_searched_by_its_values() -> None:
    study = study_of(measured(BASELINE), target_s=10.0)
    proposed = [suggest(study.ask(), CPU_SPACE) for _ in range(4)]
    assert len({config.num_envs for config in proposed}) > 1
