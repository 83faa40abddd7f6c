"""Optuna studies in a database: opened, created, loaded, with the facts that belong to them.

Optuna does the distributed work; what is added here is what it leaves to its users: a busy timeout
that outlives a long write lock, a private file, refusal of files and schemas that are not ours, and
a write lock that keeps two processes from taking the same queued trial out of one SQLite file.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import DuplicatedStudyError, StorageInternalError

from storage.database import (
    connect,
    engine_options,
    faults_of,
    hide_password,
    hold_writers_off,
    is_proxy,
    make_database,
    require_database,
    require_writable,
)
from storage.errors import NewerSchema, OlderSchema, StudyExists, StudyNotFound
from storage.facts import FACT_PREFIX, unwrap_fact, wrap_fact
from storage.patient import PatientStorage
from storage.proxy import ProxiedStorage
from storage.schema import prepare, purge, require_known_version

StudyStorage = PatientStorage | ProxiedStorage
"""What Optuna's studies are kept in: a database, or a proxy that leads to one."""


def open_storage(url: str, *, create: bool) -> StudyStorage:
    """Open a database, see `open_database`, or the way to one through Optuna's gRPC proxy.

    Args:
        url: Its address, see `storage.database.parse_url`.
        create: Whether a missing file and missing tables are made; a proxy made its own.

    Raises:
        StorageError: As `open_database`; a proxy is not asked yet.
    """
    return ProxiedStorage(url) if is_proxy(url) else open_database(url, create=create)


def open_database(url: str, *, create: bool) -> PatientStorage:
    """Open a database for writing studies into it.

    Nothing of an existing database is changed before both schemas, Optuna's and ours, are known to
    fit. Several processes may open one at once; of a *new SQLite file* the caller sees to it (by
    the study's lock) that one process makes it.

    Args:
        url: Its address, see `storage.database.parse_url`.
        create: Whether a missing file and missing tables are made.

    Returns:
        Optuna's storage, to be passed to `create_study` and `load_study`, then `close_storage`.

    Raises:
        InvalidStorageUrl: If the address is not usable.
        StudyNotFound: If `create` is false and the file or the tables are missing.
        NotADatabase: If the file is something else than an SQLite database.
        NotWritable: If it may not be written.
        NewerSchema: If a newer Optuna or a newer tuner wrote it.
        OlderSchema: If an Optuna wrote it whose schema must be upgraded first.
        StorageUnavailable: If it does not answer.
    """
    if create:
        make_database(url)
    require_database(url)
    require_writable(url)
    engine = connect(url)
    try:
        with optuna_faults_of(url):
            with engine.begin() as connection:
                if connection.dialect.name != "sqlite":
                    hold_writers_off(connection)
                require_known_version(connection)
                is_new = not sa.inspect(connection).has_table("studies")
                if is_new and not create:
                    raise StudyNotFound(
                        f"{hide_password(url)} must hold a study, but holds none; see `tuner list`"
                    )
                storage = _open_optuna(url, is_new)
            _require_known_optuna_schema(storage, url)
            prepare(engine)
    finally:
        engine.dispose()
    if engine.dialect.name == "sqlite":
        sa.event.listen(storage.engine, "begin", hold_writers_off)
    return storage


def close_storage(storage: StudyStorage) -> None:
    """Close every connection; no trial may be running."""
    if isinstance(storage, ProxiedStorage):
        storage.close()
        return
    storage.remove_session()
    storage.engine.dispose()


def create_study(
    storage: StudyStorage,
    name: str,
    *,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """Create a study that maximises one number.

    Rows that a deleted study of the same name left in our tables are deleted.

    Raises:
        StudyExists: If there is one of that name.
        StorageUnavailable: If the database does not answer.
    """
    with optuna_faults_of(storage.url):
        try:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=sampler,
                pruner=pruner,
                direction="maximize",
            )
        except DuplicatedStudyError as error:
            raise StudyExists(
                f"the study must be new, but got {name!r}, which exists; "
                f"continue it with `tuner resume {name}` or choose another name"
            ) from error
        if isinstance(storage, PatientStorage):
            purge(storage.engine, name)
    return study


def load_study(
    storage: StudyStorage,
    name: str,
    *,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """Load a study; Optuna does not store its sampler and pruner, so they must be given again.

    Raises:
        StudyNotFound: If there is none of that name.
        StorageUnavailable: If the database does not answer.
    """
    with optuna_faults_of(storage.url):
        try:
            return optuna.load_study(
                study_name=name, storage=storage, sampler=sampler, pruner=pruner
            )
        except KeyError as error:
            raise StudyNotFound(
                f"the study must exist in {hide_password(storage.url)}, but got {name!r}; "
                "see `tuner list`"
            ) from error


def study_facts(study: optuna.Study) -> dict[str, Any]:
    """Return the facts that were set on a study, by name.

    Raises:
        NewerSchema: If a newer tuner stored one of them.
    """
    return {
        key.removeprefix(FACT_PREFIX): unwrap_fact(key, stored)
        for key, stored in study.user_attrs.items()
        if key.startswith(FACT_PREFIX)
    }


def new_study_id() -> str:
    """Return an id that no other study has, to be stored as the fact `id`: 16 hex digits."""
    return secrets.token_hex(8)


def study_id(study: optuna.Study) -> str:
    """Return what tells a study from others of its name; "" of one begun before there were ids."""
    return str(study_facts(study).get("id", ""))


def set_study_fact(study: optuna.Study, name: str, value: Any) -> None:
    """Store a fact of the study, in place of an earlier one of that name.

    Raises:
        ValueError: If the value is not plain JSON; NaN and infinity are not.
    """
    study.set_user_attr(FACT_PREFIX + name, wrap_fact(name, value))


@contextmanager
def optuna_faults_of(url: str) -> Iterator[None]:
    """Turn what Optuna raises for a fault of the database into errors of this package.

    Raises:
        NotADatabase: If SQLite finds the file to be damaged.
        NotWritable: If the database is read-only for us.
        StorageUnavailable: For every other fault of the database.
    """
    with faults_of(url):
        try:
            yield
        except StorageInternalError as error:
            # Optuna wraps the driver's error in one that says "typically … invalid data".
            raise error.__cause__ or error from error


def _open_optuna(url: str, is_new: bool) -> PatientStorage:
    return PatientStorage(
        url.replace("{", "{{").replace("}", "}}"),  # Optuna formats the address
        engine_kwargs=engine_options(url),
        skip_compatibility_check=True,
        skip_table_creation=not is_new,
    )


def _require_known_optuna_schema(storage: PatientStorage, url: str) -> None:
    found, known = storage.get_current_version(), storage.get_head_version()
    if found == known:
        return
    problem = (
        f"{hide_password(url)} must have Optuna's schema {known}, the one of the installed Optuna "
        f"{optuna.__version__}, but got schema {found}"
    )
    close_storage(storage)
    if found in storage.get_all_versions():
        raise OlderSchema(f"{problem}; upgrade it with `optuna storage upgrade --storage URL`")
    raise NewerSchema(f"{problem}; install a newer Optuna")
