"""What was measured, beside Optuna's tables in the same database.

Apart from Optuna's trials because a config may be measured again (a replicate is no Optuna trial),
because each of Optuna's attributes is a transaction of its own, and because a record must be either
wholly there or not at all when its writer is killed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa

from storage.database import (
    connect,
    faults_of,
    hold_writers_off,
    make_database,
    require_database,
)
from storage.errors import StudyNotFound
from storage.patience import Patience
from storage.records import STATUSES, CurvePoint, DeviceSample, TrialRecord, record_from_dict
from storage.schema import (
    CURVES,
    RECORDS,
    SAMPLES,
    SCHEMA_VERSION,
    prepare,
    require_known_version,
)
from storage.series import Row, finite, from_columns, to_columns

Result = TypeVar("Result")

_RECORD_COLUMNS = tuple(field.name for field in fields(TrialRecord))
_SELECTED = tuple(RECORDS.c[name] for name in _RECORD_COLUMNS)

_Stamp = tuple[Any, ...]
_STAMP = ("trial", "replicate", "status", "duration", "sps", "final_score")
"""What tells a record from another that took its place."""
_FEW = 100
"""Trials that are read one by one rather than with all others."""


def _select(study: str, names: Sequence[str]) -> sa.Select[*tuple[Any, ...]]:
    """Return the query for these fields of all records, by trial and replicate."""
    return (
        sa.select(*(RECORDS.c[name] for name in names))
        .where(RECORDS.c.study == study)
        .order_by(RECORDS.c.trial, RECORDS.c.replicate)
    )


class Telemetry:
    """The trial records of a database, with their training curves and device samples.

    NaN and infinity are stored as `None`, in records and series alike: they mean that there is no
    number, and neither JSON nor SQLite's REAL columns can hold both. May be shared by threads. Use
    it as a context manager or `close` it.
    """

    def __init__(self, url: str, *, create: bool = True, patience: Patience | None = None) -> None:
        """Open the database.

        Args:
            url: Its address, see `storage.database.parse_url`.
            create: Whether a missing SQLite file and missing tables are made; false for a reader.
            patience: Waits for a database that is away once it is open; without it every call
                raises at once.

        Raises:
            StudyNotFound: If `create` is false and the file or our tables are missing.
            NotADatabase: If the file is something else than an SQLite database.
            NewerSchema: If a newer tuner wrote our tables.
            StorageUnavailable: If the database does not answer.
            InvalidStorageUrl: If the address is not usable.
        """
        if create:
            make_database(url)
        require_database(url)
        self.url = url
        self._known: dict[str, dict[_Stamp, TrialRecord]] = {}
        self._patience = patience
        self._engine = connect(url)
        try:
            with faults_of(url):
                if create:
                    prepare(self._engine)
                else:
                    _require_tables(self._engine)
        except BaseException:
            self._engine.dispose()
            raise

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
        """Write a measurement whole, in one transaction, in place of an earlier one of its key.

        The key is (study, trial, replicate), so saving the same measurement twice changes nothing.

        Raises:
            StorageUnavailable: If it could not be written; nothing has changed then.
        """
        self._write(partial(_replace, _rows(study, record, curve, samples)))

    def add(
        self,
        study: str,
        record: TrialRecord,
        curve: Iterable[CurvePoint] = (),
        samples: Iterable[DeviceSample] = (),
    ) -> bool:
        """Write a measurement as `save` does, unless there is one of its key.

        One that was interrupted gives way to one that was not, so that of a dead worker's mark and
        the measurement that arrives after all the latter stays, in whatever order they come.

        Returns:
            Whether it was written.

        Raises:
            StorageUnavailable: If it could not be written; nothing has changed then.
        """
        key = {"study": study, "trial": record.trial, "replicate": record.replicate}
        rows = _rows(study, record, curve, samples)

        def add(connection: sa.Connection) -> bool:
            status = connection.scalar(sa.select(RECORDS.c.status).where(*_at(RECORDS, key)))
            if status is not None and (status != "interrupted" or record.status == status):
                return False
            _replace(rows, connection)
            return True

        return self._write(add)

    def discard(self, study: str, trial: int) -> None:
        """Delete every measurement of a trial, in one transaction.

        Raises:
            StorageUnavailable: If that was not possible; nothing has changed then.
        """

        def delete(connection: sa.Connection) -> None:
            for table in (RECORDS, CURVES, SAMPLES):
                connection.execute(
                    sa.delete(table).where(table.c.study == study, table.c.trial == trial)
                )

        self._write(delete)

    def records(self, study: str, *, only: Sequence[str] | None = None) -> list[TrialRecord]:
        """Return every record of a study, by trial and replicate.

        Called again it reads only the records that are new or have changed; a search asks before
        every trial.

        Args:
            study: Its name.
            only: The fields to read, for whoever needs few of thousands of records. The others have
                their defaults; those without one must be among them.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        if only is not None:
            return [_to_record(row, only) for row in self._read(_select(study, only))]
        known = self._known.get(study, {})
        stamps: list[_Stamp] = []
        if known:
            stamps = [tuple(row) for row in self._read(_select(study, _STAMP))]
        changed = {stamp[0] for stamp in stamps if stamp not in known}
        if known and len(changed) <= _FEW:
            # A record that another process replaces between the reads is left to the next call.
            found = known | self._stamped(study, changed) if changed else known
            now = {stamp: found[stamp] for stamp in stamps if stamp in found}
        else:
            now = self._stamped(study, None)
        self._known = {**self._known, study: now}
        return list(now.values())

    def records_of(self, study: str, trial: int) -> list[TrialRecord]:
        """Return the records of one trial, by replicate.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        key = {"study": study, "trial": trial}
        query = sa.select(*_SELECTED).where(*_at(RECORDS, key)).order_by(RECORDS.c.replicate)
        return [_to_record(row, _RECORD_COLUMNS) for row in self._read(query)]

    def trials(self, study: str) -> list[int]:
        """Return the numbers of the trials that have a record, ascending.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        trial = RECORDS.c.trial
        query = sa.select(trial).where(RECORDS.c.study == study).distinct().order_by(trial)
        return [row[0] for row in self._read(query)]

    def record(self, study: str, trial: int, replicate: int = 0) -> TrialRecord | None:
        """Return one record, `None` where that measurement was not finished.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        key = {"study": study, "trial": trial, "replicate": replicate}
        rows = self._read(sa.select(*_SELECTED).where(*_at(RECORDS, key)))
        return _to_record(rows[0], _RECORD_COLUMNS) if rows else None

    def curve(self, study: str, trial: int, replicate: int = 0) -> list[CurvePoint]:
        """Return the training curve of a measurement, empty where there is none.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        key = {"study": study, "trial": trial, "replicate": replicate}
        return self._series(CURVES, key, CurvePoint)

    def samples(self, study: str, trial: int, replicate: int = 0) -> list[DeviceSample]:
        """Return the device samples of a measurement, empty where there are none.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        key = {"study": study, "trial": trial, "replicate": replicate}
        return self._series(SAMPLES, key, DeviceSample)

    def status_counts(self, study: str) -> dict[str, int]:
        """Count a study's trials by how they ended, replicates left out.

        Returns:
            The number for every status of `STATUSES`, in that order, 0 included.

        Raises:
            StorageUnavailable: If the database does not answer.
        """
        query = (
            sa.select(RECORDS.c.status, sa.func.count())
            .where(RECORDS.c.study == study, RECORDS.c.replicate == 0)
            .group_by(RECORDS.c.status)
        )
        found = {row[0]: row[1] for row in self._read(query)}
        return {status: found.get(status, 0) for status in STATUSES}

    def close(self) -> None:
        """Close every connection; a later call would open new ones."""
        self._engine.dispose()

    def _stamped(self, study: str, trials: set[int] | None) -> dict[_Stamp, TrialRecord]:
        """Read the records of some trials, or of all, by what tells them apart."""
        query = _select(study, _RECORD_COLUMNS)
        if trials is not None:
            query = query.where(RECORDS.c.trial.in_(trials))
        records = [_to_record(row, _RECORD_COLUMNS) for row in self._read(query)]
        return {tuple(getattr(record, name) for name in _STAMP): record for record in records}

    def _series(self, table: sa.Table, key: dict[str, Any], kind: type[Row]) -> list[Row]:
        rows = self._read(sa.select(table.c.points).where(*_at(table, key)))
        return from_columns(kind, rows[0].points) if rows else []

    def _read(self, query: sa.Select[*tuple[Any, ...]]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        def read() -> Sequence[sa.Row[*tuple[Any, ...]]]:
            with faults_of(self.url), self._engine.connect() as connection:
                return connection.execute(query).all()

        return self._wait(read)

    def _write(self, change: Callable[[sa.Connection], Result]) -> Result:
        """Make a change in one transaction, one process after the other.

        Made twice, it must be as if made once.
        """

        def write() -> Result:
            with faults_of(self.url), self._engine.begin() as connection:
                hold_writers_off(connection)
                return change(connection)

        return self._wait(write)

    def _wait(self, attempt: Callable[[], Result]) -> Result:
        if self._patience is None:
            return attempt()
        return self._patience.call(attempt, reconnect=self._engine.dispose)


def _require_tables(engine: sa.Engine) -> None:
    """Require our tables, and bring older ones up to date."""
    with engine.connect() as connection:
        version = require_known_version(connection)
    if version is None:
        raise StudyNotFound("the database must hold a study of tuner, but has no table of ours")
    if version < SCHEMA_VERSION:
        prepare(engine)


_Rows = Sequence[tuple[sa.Table, dict[str, Any]]]


def _rows(
    study: str, record: TrialRecord, curve: Iterable[CurvePoint], samples: Iterable[DeviceSample]
) -> _Rows:
    """Return what each table gets of a measurement."""
    key = {"study": study, "trial": record.trial, "replicate": record.replicate}
    values = {name: finite(getattr(record, name)) for name in _RECORD_COLUMNS}
    return (
        (RECORDS, key | values),
        (CURVES, {**key, "points": to_columns(list(curve))}),
        (SAMPLES, {**key, "points": to_columns(list(samples))}),
    )


def _replace(rows: _Rows, connection: sa.Connection) -> None:
    """Put rows in the place of those of their key."""
    for table, values in rows:
        key = {column.name: values[column.name] for column in table.primary_key}
        connection.execute(sa.delete(table).where(*_at(table, key)))
        connection.execute(sa.insert(table).values(values))


def _at(table: sa.Table, key: dict[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key.items()]


def _to_record(row: sa.Row[*tuple[Any, ...]], columns: Sequence[str]) -> TrialRecord:
    return record_from_dict(dict(zip(columns, row, strict=True)))
