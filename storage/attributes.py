"""Measurements as attributes of their trials, for workers behind a gRPC proxy.

There is no SQL there and so no table of ours. Such a worker keeps what it measured with its running
trial; whoever reaches the database copies it into the table (`adopt`). A trial that was taken from
it meanwhile can be given nothing any more: its measurement is kept with the study until then.
"""

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from storage.journal import Entry, entry_from_data, entry_to_data
from storage.records import CurvePoint, DeviceSample, TrialRecord
from storage.recovery import record_of
from storage.telemetry import Telemetry

PREFIX = "tuner:measured:"
"""Of the attributes of a measurement: `…TRIAL:REPLICATE:record`, `…TRIAL:REPLICATE:series-0`, …"""

PART_CHARS = 1_000_000
"""Length of one attribute of a series; gRPC refuses messages of more than 4 MB."""

_RECORD = ":record"
_INTERRUPTED = "interrupted"
Attrs = Mapping[str, Any]


class AttributeTelemetry:
    """What a worker needs of `storage.telemetry.Telemetry`, without SQL; for one study."""

    def __init__(self, study: optuna.Study) -> None:
        """Keep measurements in the trials of a study, in whatever storage it is."""
        self._study = study
        self._known: dict[int, list[TrialRecord]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def save(
        self,
        study: str,
        record: TrialRecord,
        curve: Iterable[CurvePoint] = (),
        samples: Iterable[DeviceSample] = (),
    ) -> None:
        """Keep a measurement, in place of an earlier one of its key; see `Telemetry.save`.

        Raises:
            StorageUnavailable: If the proxy does not answer.
        """
        storage, study_id = self._study._storage, self._study._study_id
        attrs = _to_attrs(Entry(study, record, tuple(curve), tuple(samples)))
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, record.trial)
        try:
            for key, value in attrs.items():
                storage.set_trial_system_attr(trial_id, key, value)
        except UpdateFinishedTrialError:
            for key, value in attrs.items():
                storage.set_study_system_attr(study_id, key, value)

    def add(
        self,
        study: str,
        record: TrialRecord,
        curve: Iterable[CurvePoint] = (),
        samples: Iterable[DeviceSample] = (),
    ) -> bool:
        """Keep a measurement unless there is one of its key; see `Telemetry.add`.

        Raises:
            StorageUnavailable: If the proxy does not answer.
        """
        known = self.record(study, record.trial, record.replicate)
        if known is not None and (known.status != "interrupted" or record.status == known.status):
            return False
        self.save(study, record, curve, samples)
        return True

    def records(self, study: str) -> list[TrialRecord]:
        """Return every record of the study, by trial and replicate.

        Those that workers with SQL measured are known by what their trials show.

        Raises:
            StorageUnavailable: If the proxy does not answer.
        """
        found = [
            record
            for trial in self._study.get_trials(deepcopy=False)
            for record in self._records_of_trial(trial)
        ]
        late = _late(self._study)
        found += [entry_from_data(late[key]).record for _, key in _measurements(late)]
        found.sort(key=lambda record: record.status != _INTERRUPTED)  # it gives way to others
        by_key = {(record.trial, record.replicate): record for record in found}
        return [by_key[key] for key in sorted(by_key)]

    def records_of(self, study: str, trial: int) -> list[TrialRecord]:
        """Return the records of one trial, by replicate.

        Raises:
            StorageUnavailable: If the proxy does not answer.
        """
        return [record for record in self.records(study) if record.trial == trial]

    def trials(self, study: str) -> list[int]:
        """Return the numbers of the trials that have a record, ascending.

        Raises:
            StorageUnavailable: If the proxy does not answer.
        """
        return sorted({record.trial for record in self.records(study)})

    def record(self, study: str, trial: int, replicate: int = 0) -> TrialRecord | None:
        """Return one record, `None` where that measurement was not finished.

        Raises:
            StorageUnavailable: If the proxy does not answer.
        """
        found = [r for r in self.records_of(study, trial) if r.replicate == replicate]
        return found[0] if found else None

    def close(self) -> None:
        """Do nothing: the study's storage is its owner's to close."""

    def _records_of_trial(self, trial: FrozenTrial) -> list[TrialRecord]:
        known = self._known.get(trial.number)
        if known is not None:
            return known
        attrs = trial.system_attrs
        records = [entry_from_data(attrs[key]).record for _, key in _measurements(attrs)]
        if not records and (shown := record_of(trial)) is not None:
            records = [shown]
        if trial.state.is_finished():
            self._known[trial.number] = records
        return records


def adopt(
    study: optuna.Study, telemetry: Telemetry, trials: Sequence[FrozenTrial] | None = None
) -> list[TrialRecord]:
    """Copy the measurements that came through a proxy into the table, each once.

    `trials` are the study's, of a caller who has just read them. Any number of processes may do so
    at once. An interrupted measurement in the table gives way.

    Returns:
        The records that are new in the table.

    Raises:
        StorageUnavailable: If the database does not answer.
    """
    name = study.study_name
    known = {
        (record.trial, record.replicate)
        for record in telemetry.records(name)
        if record.status != "interrupted"
    }
    adopted: list[TrialRecord] = []

    def copy(attrs: Attrs, done: Callable[[str], None] = lambda key: None) -> None:
        for at, key in _measurements(attrs):
            if at not in known:
                entry = _to_entry(attrs, key)
                if telemetry.add(name, entry.record, entry.curve, entry.samples):
                    adopted.append(entry.record)
            done(key)

    def forget(key: str) -> None:
        for part in (key, *_series_keys(late, key)):
            study._storage.set_study_system_attr(study._study_id, part, None)

    for trial in study.get_trials(deepcopy=False) if trials is None else trials:
        copy(trial.system_attrs)
    late = _late(study)
    copy(late, done=forget)
    return adopted


def _late(study: optuna.Study) -> dict[str, Any]:
    """Return the attributes of those measurements that the study keeps itself."""
    attrs = study._storage.get_study_system_attrs(study._study_id)
    return {key: value for key, value in attrs.items() if value is not None}


def _measurements(attrs: Attrs) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield trial and replicate of each measurement, and the attribute that holds its record."""
    for key in attrs:
        if key.startswith(PREFIX) and key.endswith(_RECORD):
            trial, replicate, *_ = key.removeprefix(PREFIX).removesuffix(_RECORD).split(":")
            yield (int(trial), int(replicate)), key


def _series_keys(attrs: Attrs, record_key: str) -> list[str]:
    base = record_key.removesuffix(_RECORD)
    return [f"{base}:series-{part}" for part in range(attrs[record_key]["parts"])]


def _to_attrs(entry: Entry) -> dict[str, Any]:
    """Return the attributes of a measurement; the last of them says that it is whole."""
    data = entry_to_data(entry)
    series = {name: data[name] for name in ("curve", "samples")}
    packed = zlib.compress(json.dumps(series, separators=(",", ":")).encode())
    text = base64.b64encode(packed).decode()
    parts = [text[at : at + PART_CHARS] for at in range(0, len(text), PART_CHARS)]
    base = f"{PREFIX}{entry.record.trial}:{entry.record.replicate}"
    if entry.record.status == _INTERRUPTED:
        base += f":{_INTERRUPTED}"  # never in place of a measurement that arrives meanwhile
    attrs: dict[str, Any] = {f"{base}:series-{i}": part for i, part in enumerate(parts)}
    return {**attrs, base + _RECORD: {**data, "curve": {}, "samples": {}, "parts": len(parts)}}


def _to_entry(attrs: Attrs, key: str) -> Entry:
    packed = base64.b64decode("".join(attrs[part] for part in _series_keys(attrs, key)))
    return entry_from_data({**attrs[key], **json.loads(zlib.decompress(packed))})
