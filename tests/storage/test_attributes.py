"""Measurements that came through a proxy: kept with their trials, copied into the table once."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from storage import attributes
from storage.attributes import AttributeTelemetry, adopt
from storage.database import sqlite_url
from storage.proxy import ProxiedStorage
from storage.records import CurvePoint, DeviceSample, TrialRecord
from storage.recovery import RECORD_ATTR
from storage.studies import create_study, load_study
from storage.telemetry import Telemetry
from tests.storage.proxies import Proxy

optuna.logging.set_verbosity(optuna.logging.WARNING)
Opened = Callable[..., RDBStorage]
MakeRecord = Callable[..., TrialRecord]


@pytest.fixture
def study(url: str, opened: Opened) -> optuna.Study:
    return create_study(opened(url), "demo")


@pytest.fixture
def telemetry(study: optuna.Study, url: str) -> Iterator[Telemetry]:
    with Telemetry(url) as table:
        yield table


@pytest.mark.parametrize("part_chars", [50, attributes.PART_CHARS])
def test_a_measurement_is_read_back_and_adopted_once(
    monkeypatch: pytest.MonkeyPatch,
    part_chars: int,
    study: optuna.Study,
    telemetry: Telemetry,
    make_record: MakeRecord,
    curve: list[CurvePoint],
    samples: list[DeviceSample],
) -> None:
    monkeypatch.setattr(attributes, "PART_CHARS", part_chars)
    first, again = make_record(trial=0), make_record(trial=0, replicate=1, sps=None)
    with AttributeTelemetry(study) as kept:
        trial = study.ask()
        kept.save("demo", first, curve, samples)
        kept.save("demo", first, curve, samples)
        kept.save("demo", again, curve)
        assert kept.records("demo") == [first, again]
        study.tell(trial, 0.5)
        assert kept.records("demo") == kept.records("demo") == [first, again]
        assert kept.records_of("demo", 0) == [first, again]
        assert kept.record("demo", 0, 1) == again
        assert kept.record("demo", 1) is None
        assert kept.trials("demo") == [0]
    assert adopt(study, telemetry) == [first, again]
    assert adopt(study, telemetry) == []
    assert telemetry.records("demo") == [first, again]
    assert telemetry.curve("demo", 0) == curve
    assert telemetry.samples("demo", 0) == samples


def test_what_workers_with_sql_measured_is_read_from_their_trials(
    study: optuna.Study, make_record: MakeRecord
) -> None:
    record = make_record(trial=0)
    trial = study.ask()
    trial.set_user_attr(RECORD_ATTR, json.dumps(record.as_dict()))
    study.tell(trial, 0.5)
    study.ask()
    assert AttributeTelemetry(study).records("demo") == [record]


def test_the_measurement_of_a_trial_that_was_taken_away_is_kept(
    study: optuna.Study, telemetry: Telemetry, make_record: MakeRecord, curve: list[CurvePoint]
) -> None:
    record = make_record(trial=0)
    telemetry.save("demo", replace(record, status="interrupted"))
    study.tell(study.ask(), state=TrialState.FAIL)
    kept = AttributeTelemetry(study)
    kept.save("demo", record, curve)
    assert kept.records("demo") == [record]
    assert not kept.add("demo", make_record(trial=0, status="interrupted"))
    assert adopt(study, telemetry) == [record]
    assert (telemetry.records("demo"), telemetry.curve("demo", 0)) == ([record], curve)
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert [value for key, value in attrs.items() if key.startswith(attributes.PREFIX)] == [
        None,
        None,
    ]
    assert adopt(study, telemetry) == []


def test_an_interrupted_measurement_is_adopted_once_and_gives_way(
    study: optuna.Study, telemetry: Telemetry, make_record: MakeRecord
) -> None:
    study.tell(study.ask(), state=TrialState.FAIL)
    kept, record = AttributeTelemetry(study), make_record(trial=0)
    interrupted = replace(record, status="interrupted")
    kept.save("demo", interrupted)
    assert not kept.add("demo", interrupted)
    for adopted in ([interrupted], []):
        kept.save("demo", interrupted)  # as if it could not be forgotten
        assert adopt(study, telemetry) == adopted
    kept.save("demo", record)
    assert adopt(study, telemetry) == [record]


def test_a_measurement_that_arrives_late_outlives_the_word_that_it_was_cut_off(
    study: optuna.Study, telemetry: Telemetry, make_record: MakeRecord
) -> None:
    """One process looked for it, another saved it, and then the first one wrote."""
    kept, record = AttributeTelemetry(study), make_record(trial=study.ask().number)
    kept.save("demo", record)
    kept.save("demo", replace(record, status="interrupted"))
    assert AttributeTelemetry(study).records("demo") == [record]
    assert adopt(study, telemetry)[-1] == record
    assert telemetry.records("demo") == [record]


def test_a_measurement_that_is_not_whole_is_none(
    study: optuna.Study, telemetry: Telemetry, make_record: MakeRecord
) -> None:
    """Its process was killed between two of its attributes; the last says that it is whole."""
    trial = study.ask()
    for key, value in list(attributes._to_attrs(_entry(make_record(trial=0))).items())[:-1]:
        study._storage.set_trial_system_attr(trial._trial_id, key, value)
    assert AttributeTelemetry(study).records("demo") == []
    assert adopt(study, telemetry) == []


def _entry(record: TrialRecord) -> attributes.Entry:
    return attributes.Entry("demo", record)


def test_two_may_adopt_at_once(
    study: optuna.Study, telemetry: Telemetry, url: str, opened: Opened, make_record: MakeRecord
) -> None:
    kept = AttributeTelemetry(study)
    for number in range(8):
        study.tell(study.ask(), state=TrialState.FAIL)
        kept.save("demo", make_record(trial=number))
    adopted: list[TrialRecord] = []

    def do() -> None:
        with Telemetry(url) as table:
            adopted.extend(adopt(load_study(opened(url), "demo"), table))

    threads = [threading.Thread(target=do) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.trial for record in adopted) == list(range(8))
    assert len(telemetry.records("demo")) == 8


@pytest.mark.long
def test_a_series_longer_than_a_message_goes_through_a_proxy_in_parts(
    tmp_path_factory: pytest.TempPathFactory, opened: Opened, make_record: MakeRecord
) -> None:
    url = sqlite_url(tmp_path_factory.mktemp("long") / "study.db")
    direct = create_study(opened(url), "demo")
    # As irregular as measured numbers, so that packing does not make them short.
    chance = random.Random(7)
    samples = [DeviceSample(t=chance.random(), util=chance.random()) for n in range(300_000)]
    server = Proxy(url)
    server.start()
    try:
        storage = ProxiedStorage(server.url)
        study = load_study(storage, "demo")
        trial = study.ask()
        with AttributeTelemetry(study) as kept:
            kept.save("demo", make_record(trial=0), samples=samples)
        study.tell(trial, 0.5)
        storage.close()
    finally:
        server.stop()
    parts = [key for key in direct.trials[0].system_attrs if ":series-" in key]
    assert len(parts) > 4
    with Telemetry(url) as telemetry:
        assert len(adopt(direct, telemetry)) == 1
        assert telemetry.samples("demo", 0) == samples
