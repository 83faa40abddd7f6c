"""What a database knows of its studies, straight from SQL.

Apart from `storage.studies` because it imports no Optuna: Optuna would read every trial with every
attribute (seconds for thousands of trials) to count them. The tables and columns named here are
Optuna's schema `v3.2.0.a`, unchanged since Optuna 3.2; `open_storage` refuses another.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from storage.beats import BEAT_ATTR, is_surely_dead
from storage.database import connect, faults_of, require_database
from storage.errors import StudyNotFound
from storage.facts import FACT_PREFIX, unwrap_fact

STATES = ("complete", "pruned", "fail", "running", "waiting")

_STUDIES = sa.table("studies", sa.column("study_id"), sa.column("study_name"))
_TRIALS = sa.table(
    "trials",
    sa.column("trial_id"),
    sa.column("study_id"),
    sa.column("number"),
    sa.column("state"),
    sa.column("datetime_start", sa.DateTime),
)
_TRIAL_ATTRS = sa.table(
    "trial_system_attributes", sa.column("trial_id"), sa.column("key"), sa.column("value_json")
)
_ATTRS = sa.table(
    "study_user_attributes", sa.column("study_id"), sa.column("key"), sa.column("value_json")
)


def study_names(url: str) -> list[str]:
    """Return the names of the studies in a database, oldest first; none in an empty one.

    Raises:
        StudyNotFound: If the file is missing.
        NotADatabase: If the file is something else than an SQLite database.
        StorageUnavailable: If the database does not answer.
    """
    with _reading(url) as connection:
        if not sa.inspect(connection).has_table(_STUDIES.name):
            return []
        query = sa.select(_STUDIES.c.study_name).order_by(_STUDIES.c.study_id)
        return list(connection.scalars(query))


def counts(url: str, study: str) -> dict[str, int]:
    """Count the trials of a study by Optuna's state.

    Returns:
        The number of complete, pruned, fail, running and waiting trials, in that order.

    Raises:
        StudyNotFound: If the file or the study is missing.
        NotADatabase: If the file is something else than an SQLite database.
        StorageUnavailable: If the database does not answer.
    """
    with _reading(url) as connection:
        # PostgreSQL has an enumeration type here, SQLite text: both read as the state's name.
        state = sa.cast(_TRIALS.c.state, sa.String).label("state")
        query = (
            sa.select(state, sa.func.count())
            .where(_TRIALS.c.study_id == _study_id(connection, study))
            .group_by(state)
        )
        found = {name.lower(): number for name, number in connection.execute(query)}
    return {name: found.get(name, 0) for name in STATES}


def dead_trials(url: str, study: str) -> list[int]:
    """Return the numbers of the running trials that one look shows to be dead, ascending.

    As `storage.heartbeat.dead_trials`, in time for `tuner status`.

    Raises:
        StudyNotFound: If the file or the study is missing.
        NotADatabase: If the file is something else than an SQLite database.
        StorageUnavailable: If the database does not answer.
    """
    now = datetime.now(UTC)
    is_beat = (_TRIAL_ATTRS.c.trial_id == _TRIALS.c.trial_id) & (_TRIAL_ATTRS.c.key == BEAT_ATTR)
    with _reading(url) as connection:
        query = (
            sa.select(_TRIALS.c.number, _TRIALS.c.datetime_start, _TRIAL_ATTRS.c.value_json)
            .select_from(_TRIALS.outerjoin(_TRIAL_ATTRS, is_beat))
            .where(
                _TRIALS.c.study_id == _study_id(connection, study),
                sa.cast(_TRIALS.c.state, sa.String) == "RUNNING",
            )
            .order_by(_TRIALS.c.number)
        )
        return [
            number
            for number, started, beat in connection.execute(query)
            if is_surely_dead(
                None if beat is None else json.loads(beat),
                started and started.replace(tzinfo=UTC),
                now,
            )
        ]


def study_facts(url: str, study: str) -> dict[str, Any]:
    """Return the facts that `storage.studies.set_study_fact` stored, by name.

    Raises:
        StudyNotFound: If the file or the study is missing.
        NotADatabase: If the file is something else than an SQLite database.
        NewerSchema: If a newer tuner stored one of them.
        StorageUnavailable: If the database does not answer.
    """
    with _reading(url) as connection:
        query = sa.select(_ATTRS.c.key, _ATTRS.c.value_json).where(
            _ATTRS.c.study_id == _study_id(connection, study),
            _ATTRS.c.key.startswith(FACT_PREFIX, autoescape=True),
        )
        return {
            key.removeprefix(FACT_PREFIX): unwrap_fact(key, json.loads(value_json))
            for key, value_json in connection.execute(query)
        }


def _study_id(connection: sa.Connection, study: str) -> int:
    query = sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == study)
    found = None
    if sa.inspect(connection).has_table(_STUDIES.name):
        found = connection.scalar(query)
    if found is None:
        raise StudyNotFound(
            f"the study must exist in the database, but got {study!r}; see `tuner list`"
        )
    return int(found)


@contextmanager
def _reading(url: str) -> Iterator[sa.Connection]:
    require_database(url)
    engine = connect(url)
    try:
        with faults_of(url), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
