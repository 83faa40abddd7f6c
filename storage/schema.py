"""Our tables beside Optuna's, and the version of their layout.

A study is referred to by its name, not by Optuna's number for it: SQLite gives the number of a
deleted study to the next one. `purge` clears what a deleted study of the same name left behind.

Series (training curves, device samples) take one row for each measurement, column by column in one
JSON value: they are only ever read whole, a row for each point would be a hundred times as many
rows to insert in the transaction that ends a trial, and JSON stays readable without our code.
"""

import os
import secrets
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import sqlalchemy as sa

from storage.atomic import sync_folder
from storage.database import hold_writers_off
from storage.errors import NewerSchema, StorageUnavailable
from storage.records import TrialRecord

SCHEMA_VERSION = 5
"""Raised by one whenever a table or the meaning of a column changes.

1 → 2 → 3 → 4 → 5: more columns of `TrialRecord`, all of them null in older rows.
"""

METADATA = sa.MetaData()

_COLUMN_TYPES: dict[type, type[sa.types.TypeEngine[Any]]] = {
    bool: sa.Boolean,
    int: sa.BigInteger,
    float: sa.Double,
    str: sa.Text,
}
_KEY = ("trial", "replicate")


def _column_type(hint: Any) -> sa.types.TypeEngine[Any]:
    """Return the column type for `X` or `X | None`; everything that is no scalar becomes JSON."""
    scalars = [t for t in _COLUMN_TYPES if hint == t or hint == t | None]
    return _COLUMN_TYPES[scalars[0]]() if scalars else sa.JSON(none_as_null=True)


def _key_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("study", sa.String(512), primary_key=True),
        *(sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False) for name in _KEY),
    ]


def _record_columns() -> list[sa.Column[Any]]:
    hints = get_type_hints(TrialRecord)
    names = [field.name for field in fields(TrialRecord) if field.name not in _KEY]
    return [sa.Column(name, _column_type(hints[name])) for name in names]


META = sa.Table(
    "tuner_meta",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
RECORDS = sa.Table("tuner_records", METADATA, *_key_columns(), *_record_columns())
CURVES = sa.Table(
    "tuner_curves", METADATA, *_key_columns(), sa.Column("points", sa.JSON, nullable=False)
)
SAMPLES = sa.Table(
    "tuner_samples", METADATA, *_key_columns(), sa.Column("points", sa.JSON, nullable=False)
)


def stored_version(connection: sa.Connection) -> int | None:
    """Return the version of our tables in this database, `None` where they are missing."""
    if not sa.inspect(connection).has_table(META.name):
        return None
    value = connection.scalar(sa.select(META.c.value).where(META.c.key == "schema_version"))
    return None if value is None else int(value)


def require_known_version(connection: sa.Connection) -> int | None:
    """Return `stored_version`, refusing tables that this tuner cannot read.

    Raises:
        NewerSchema: If a newer tuner wrote them.
    """
    version = stored_version(connection)
    if version is not None and version > SCHEMA_VERSION:
        raise NewerSchema(
            f"the study's tables must be of schema {SCHEMA_VERSION} or older, but got schema "
            f"{version}; install the tuner that wrote them, or a newer one"
        )
    return version


def prepare(engine: sa.Engine) -> None:
    """Make our tables, or bring older ones up to date; any number of processes may do so at once.

    Older tables of an SQLite file are changed only after the file was copied, see `keep_copy`. On a
    server the change is one transaction, and copies are its administrator's (`pg_dump`).

    Raises:
        NewerSchema: If they are there and newer than we know.
        StorageUnavailable: If the copy cannot be written; nothing has changed then.
    """
    with engine.connect() as connection:
        if require_known_version(connection) == SCHEMA_VERSION:
            return
    with engine.begin() as connection:
        hold_writers_off(connection)
        version = require_known_version(connection)
        if version is None:
            METADATA.create_all(connection)
            row = {"key": "schema_version", "value": str(SCHEMA_VERSION)}
            connection.execute(sa.insert(META).values(row))
        elif version < SCHEMA_VERSION:
            path = connection.engine.url.database
            if connection.dialect.name == "sqlite" and path is not None:
                keep_copy(Path(path), version)
            _add_missing_columns(connection, RECORDS)
            connection.execute(
                sa.update(META)
                .where(META.c.key == "schema_version")
                .values(value=str(SCHEMA_VERSION))
            )


def keep_copy(path: Path, version: int) -> Path:
    """Copy an SQLite file beside itself: `study.db` of schema 1 becomes `study.schema-1.db`.

    SQLite copies it, as it stands between two transactions: reading the file ourselves would drop
    the locks that this process holds on it (https://sqlite.org/howtocorrupt.html section 2.2). The
    copy takes its name when it is whole, and like a study may be read by its owner only.

    Raises:
        StorageUnavailable: If it cannot be written.
    """
    copy = path.with_name(f"{path.stem}.schema-{version}{path.suffix}")
    temporary = path.with_name(f".{copy.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(temporary)) as target,
        ):
            source.backup(target)
        temporary.replace(copy)
        sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        temporary.unlink(missing_ok=True)
        raise StorageUnavailable(
            f"{copy} must be writable, to keep a copy of the study before its tables are brought "
            f"up to date, but got: {error}; free space or change the folder's mode"
        ) from error
    return copy


def _add_missing_columns(connection: sa.Connection, table: sa.Table) -> None:
    """Add the columns that an older table lacks; its rows, where they are null, are not touched."""
    present = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    dialect = connection.dialect
    for column in table.columns:
        if column.name not in present:
            kind = column.type.compile(dialect)
            name = dialect.identifier_preparer.format_column(column)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}"))


def purge(engine: sa.Engine, study: str) -> None:
    """Delete every row of `study` from our tables, in one transaction."""
    with engine.begin() as connection:
        for table in (RECORDS, CURVES, SAMPLES):
            connection.execute(sa.delete(table).where(table.c.study == study))
