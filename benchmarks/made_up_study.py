"""A study of thousands of trials that nobody measured, as a real one would have left it.

What is made up is the numbers: facts, records, curves, samples and Optuna's trials are stored as a
study stores them. Optuna's rows go in by the thousand, since its `add_trial` takes 20 ms for each.
"""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState

from storage import csv_file
from storage.atomic import atomic_write_text
from storage.records import INFEASIBLE_STATUSES, CurvePoint, DeviceSample, TrialRecord
from storage.recovery import CONSTRAINT
from storage.studies import close_storage, create_study, open_database, set_study_fact
from storage.telemetry import Telemetry
from tuner.aggregate import hardware_of
from tuner.config import StudyConfig
from tuner.finalists import contest_of
from tuner.objective import dashboard_attrs
from tuner.profile_rules import contenders
from tuner.profiles import choose
from tuner.quality import QualityReferences
from tuner.references import References
from tuner.score import Weights, score
from tuner.search.sampler import distributions
from tuner.settings import load_config
from tuner.space import DIMENSIONS, HardwareConfig
from tuner.throughput import RunSpread

SPACE: dict[str, tuple[int, ...]] = {
    "num_envs": tuple(range(16, 16 * 81, 16)),
    "num_steps": tuple(range(16, 16 * 41, 16)),
    "num_minibatches": tuple(2**i for i in range(9)),
    "num_epochs": (1, 2, 4, 8),
}
"""115,200 configs; every one divides."""
BASELINE = HardwareConfig(64, 64, 4, 4)
ENV_STEPS = 1_048_576
BLOCKS = 32
SAMPLES = 40
"""Ten seconds of a monitor."""
REFERENCES = References(
    quality=QualityReferences(
        random_return=20.0,
        random_se=0.5,
        best_return=500.0,
        baseline_return=260.0,
        baseline_se=4.0,
        max_entropy=math.log(2),
    ),
    quality_reason=None,
    components=("gpu", "quality", "sps"),
    weights=Weights(),
    sps=100_000.0,
    spread=RunSpread(between_variance=4e-4, within_variance=1e-4, num_replicates=3),
    epsilon=0.01,
    target_return=260.0,
    env_steps=ENV_STEPS,
)
STATES = {"success": "COMPLETE", "crashed": "FAIL"}
"""Optuna's state by a record's status; of every other status it is PRUNED."""
_KINDS = ("success",) * 17 + ("predicted_oom", "oom", "diverged")


def build(folder: Path, name: str, num_trials: int, facts: Mapping[str, Any]) -> StudyConfig:
    """Make a study whose search has ended but whose end was not noted, with its finalists measured.

    Args:
        folder: the runs folder.
        name: of the study.
        num_trials: the baseline included.
        facts: `hardware`, `versions` and `util_source`, as a study stores them.

    Returns:
        The study's config; `--trials` in it is what has been reached.
    """
    config = _config(folder, num_trials, str(facts["hardware"]["kind"]))
    storage = open_database(config.storage_url(name), create=True)
    try:
        study = create_study(storage, name)
        own, _ = generated = _records(num_trials)
        with Telemetry(config.storage_url(name)) as telemetry:
            for record in (*own, *generated[1]):
                telemetry.save(name, record, _curve(record), _samples(record))
            for record in _finalists([*own, *generated[1]]):
                telemetry.save(name, record, _curve(record), _samples(record))
            csv_file.rewrite(config.folder(name) / "trials.csv", telemetry.records(name))
        _insert_trials(storage, study._study_id, own)
        _set_facts(study, config, facts)
    finally:
        close_storage(storage)
    atomic_write_text(config.folder(name) / "config.yaml", config.as_yaml())
    return config


def _config(folder: Path, num_trials: int, device_kind: str) -> StudyConfig:
    settings: dict[str, object] = {
        **{name: ",".join(map(str, choices)) for name, choices in SPACE.items()},
        "baseline": ",".join(map(str, BASELINE.as_dict().values())),
        "trials": str(num_trials),
        "runs_dir": str(folder),
        "env_steps": str(ENV_STEPS),
    }
    return load_config(None, settings).resolved(device_kind)


def _set_facts(study: optuna.Study, config: StudyConfig, facts: Mapping[str, Any]) -> None:
    stored = {
        **facts,
        "data": {},
        "config": config.as_data(),
        "environment": {"obs_shape": [4], "num_actions": 2},
        "environment_notes": [],
        "references": REFERENCES.as_json(),
    }
    for key, value in stored.items():
        set_study_fact(study, key, value)


def _records(num_trials: int) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Return the records of the trials, and the replicates of the baseline."""
    draw = random.Random(0)
    baseline = _success(0, BASELINE, draw)
    own = [baseline]
    for trial, config in enumerate(islice(_configs(draw), num_trials - 1), start=1):
        kind = draw.choice(_KINDS)
        success = _success(trial, config, draw)
        own.append(success if kind == "success" else _failure(success, kind))
    again = [replace(_success(0, BASELINE, draw), replicate=number) for number in (1, 2)]
    return own, again


def _configs(draw: random.Random) -> Iterator[HardwareConfig]:
    """Return configs at random, none twice, the baseline not among them."""
    seen = {BASELINE}
    while True:
        config = HardwareConfig(*(draw.choice(choices) for choices in SPACE.values()))
        if config not in seen:
            seen.add(config)
            yield config


def _success(trial: int, config: HardwareConfig, draw: random.Random) -> TrialRecord:
    batch = config.batch_size
    sps = 4e5 * batch / (batch + 8e3 * config.num_epochs) * draw.gauss(1.0, 0.02)
    util = min(100.0, 100.0 * batch / (batch + 5e3) * draw.gauss(1.0, 0.02))
    updates = math.log2(ENV_STEPS / batch * config.num_epochs * config.num_minibatches)
    quality = min(1.0, max(0.0, updates / 16 + draw.gauss(0.0, 0.03)))
    scores = score(REFERENCES.scores(), device_util=util, quality_score=quality, sps=sps)
    seconds = ENV_STEPS / sps
    hardware: dict[str, Any] = {**config.as_dict()}
    return TrialRecord(
        trial=trial,
        replicate=0,
        **hardware,
        status="success",
        device_util=util,
        util_source="psutil",
        peak_memory_gb=0.4 + batch / 1e6,
        predicted_memory_gb=0.38 + batch / 1e6,
        memory_limit_gb=8.0,
        memory_source="rss",
        mean_return=20.0 + 480.0 * quality,
        entropy=0.4,
        policy_loss=-0.01,
        value_loss=12.5,
        approx_kl=0.004,
        explained_variance=0.71,
        sps=sps,
        sps_ci95=(0.96 * sps, 1.04 * sps),
        end_to_end_sps=0.5 * sps,
        compile_s=4.2,
        compile_cached=False,
        window_s=seconds,
        duration=seconds + 8.0,
        env_steps=ENV_STEPS,
        seconds_to_target=0.6 * seconds,
        gpu_score=scores.gpu_score,
        quality_score=scores.quality_score,
        sps_score=scores.sps_score,
        final_score=scores.final_score,
        quality_acceptable=quality > 0.2,
        quality_reason=f"The return is {quality:.0%} of the way from random to best.",
        contaminated="steal of 14 % of the host" if draw.random() < 0.1 else None,
        steal_percent=2.0,
        other_cpu_percent=1.5,
        window_env_steps=ENV_STEPS,
        recompiles=0,
        monitor_percent=0.4,
        steady_from_block=2,
        drift=0.003,
        flops_per_s=2.1e9,
        bytes_per_s=1.4e9,
        compute_fraction=0.12,
        memory_fraction=0.2,
        launch_fraction=0.05,
        host_fraction=0.1,
        bound="memory",
        phases={"start_s": 2.1, "compile_s": 4.2, "window_s": seconds, "evaluate_s": 1.4},
    )


def _failure(like: TrialRecord, status: str) -> TrialRecord:
    config: dict[str, Any] = {name: getattr(like, name) for name in DIMENSIONS}
    return TrialRecord(
        trial=like.trial,
        replicate=0,
        **config,
        status=status,
        reason=f"ended as {status} at 9.1 of 8.0 GB",
        predicted_memory_gb=9.1,
        memory_limit_gb=8.0,
        duration=5.0,
        phases={"start_s": 2.1, "compile_s": 2.9},
    )


def _finalists(records: list[TrialRecord]) -> list[TrialRecord]:
    """Return a clean second record of every config that profiles are made of, or nearly."""
    added: list[TrialRecord] = []
    while True:
        everything = [*records, *added]
        contest = contest_of(everything, REFERENCES, min_feasible=3)
        wanted = [choice.summary for choice in choose(contest).values()]
        wanted += [candidate.summary for candidate in contenders(contest.eligible, contest.rules)]
        once = {summary.trial for summary in wanted if summary.replicates < 2}
        if not once:
            return added
        for trial in once:
            of_trial = [r for r in everything if r.trial == trial]
            again = replace(of_trial[0], replicate=len(of_trial), contaminated=None)
            added.append(again)


def _curve(record: TrialRecord) -> list[CurvePoint]:
    if record.status != "success":
        return []
    noise = random.Random(record.trial)
    names = ("mean_return", "entropy", "policy_loss", "value_loss", "approx_kl")
    more = ("explained_variance", "grad_norm", "clip_fraction")
    return [
        CurvePoint(
            block=block,
            env_steps=(block + 1) * ENV_STEPS // BLOCKS,
            seconds=(record.window_s or 0.0) / BLOCKS,
            metrics={metric: noise.random() for metric in (*names, *more)},
            threads=20,
            resident_bytes=600_000_000,
        )
        for block in range(BLOCKS)
    ]


def _samples(record: TrialRecord) -> list[DeviceSample]:
    if record.status != "success":
        return []
    noise = random.Random(record.trial)
    return [
        DeviceSample(
            t=1000.0 + 0.25 * number,
            util=100.0 * noise.random(),
            cpu_s=0.25 * number * noise.random(),
            memory_bytes=600_000_000,
            other_cpu_percent=noise.random(),
            steal_percent=noise.random(),
        )
        for number in range(SAMPLES)
    ]


def _insert_trials(storage: RDBStorage, study_id: int, records: Sequence[TrialRecord]) -> None:
    """Write what `Study.add_trial` would, in a transaction for all."""
    kinds = distributions(StudyConfig(**SPACE).space())
    texts = {name: distribution_to_json(kind) for name, kind in kinds.items()}
    began = datetime(2026, 1, 1)
    rows: dict[type, list[dict[str, Any]]] = {}
    for record in records:
        number = record.trial
        state = TrialState[STATES.get(record.status, "PRUNED")]
        row = {
            "trial_id": number + 1,
            "number": number,
            "study_id": study_id,
            "state": state,
            "datetime_start": began + timedelta(seconds=20 * number),
            "datetime_complete": began + timedelta(seconds=20 * number + 19),
        }
        rows.setdefault(models.TrialModel, []).append(row)
        at = {"trial_id": number + 1}
        for name, kind in kinds.items():
            value = kind.to_internal_repr(getattr(hardware_of(record), name))
            param = {"param_name": name, "param_value": value, "distribution_json": texts[name]}
            rows.setdefault(models.TrialParamModel, []).append(at | param)
        if state is TrialState.COMPLETE:
            told = {"objective": 0, "value": record.final_score}
            kind_of = models.TrialValueModel.TrialValueType.FINITE
            rows.setdefault(models.TrialValueModel, []).append(at | told | {"value_type": kind_of})
        for key, attr in dashboard_attrs(record).items():
            shown = {"key": key, "value_json": json.dumps(attr)}
            rows.setdefault(models.TrialUserAttributeModel, []).append(at | shown)
        infeasible = float(record.status in INFEASIBLE_STATUSES)
        mark = {"key": f"constraints:{CONSTRAINT}", "value_json": json.dumps(infeasible)}
        rows.setdefault(models.TrialSystemAttributeModel, []).append(at | mark)
    with storage.engine.begin() as connection:
        for model, values in rows.items():
            connection.execute(sa.insert(model), values)
