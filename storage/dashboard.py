"""What optuna-dashboard shows beside Optuna's own columns: notes, plots, files of the trials.

Apart from `storage.studies` because the dashboard keeps all of it in system attributes: thousands
for a long study, and Optuna writes each in a transaction of its own. Here all go into one.
"""

import io
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages._rdb import models

from storage.database import connect, faults_of, hold_writers_off
from storage.errors import StudyNotFound

Attributes = dict[str, Any]

_ARTIFACT = "artifacts:"
"""Start of the key under which Optuna lists a trial's file."""
_METRIC_NAMES = "study:metric_names"
_NAMESPACE = uuid.UUID("6f0c9d0e-58a4-4a0c-9f6e-0d4f0a7b1c55")
_STUDY = models.StudySystemAttributeModel.__table__
_TRIAL = models.TrialSystemAttributeModel.__table__


def metric_name(name: str) -> Attributes:
    """Return the attributes of a study that name what it maximises."""
    return {_METRIC_NAMES: [name]}


def plot(name: str, figure: Mapping[str, Any]) -> Attributes:
    """Return the attributes of a study that are one of its plots.

    Args:
        name: a valid HTML id; a later plot of that name takes this one's place.
        figure: plotly's `data` and `layout`, as plain data.
    """
    from optuna_dashboard import save_plotly_graph_object

    recorder = _Recorder()
    # Plotly's own class would check for half a second what is plain data already.
    drawn = SimpleNamespace(to_json=lambda: json.dumps(figure))
    save_plotly_graph_object(recorder, drawn, graph_object_id=name)
    return recorder.attributes


def note(text: str, trial_id: int | None = None) -> Attributes:
    """Return the attributes of a study that are its note, or that of one of its trials."""
    from optuna_dashboard import save_note

    recorder = _Recorder(trial_id)
    save_note(recorder, text)
    return recorder.attributes


def write_file(folder: Path, trial_id: int, name: str, content: str) -> None:
    """Write an SVG image of a trial's; one of the same name is replaced.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    store = FileSystemArtifactStore(folder)
    store.write(_file_id(trial_id, name), io.BytesIO(content.encode()))


def has_file(folder: Path, trial_id: int, name: str) -> bool:
    """Whether a trial's image has been written."""
    return (folder / _file_id(trial_id, name)).exists()


def file(trial_id: int, name: str) -> Attributes:
    """Return the attribute of a trial that lists one of its images."""
    identity = _file_id(trial_id, name)
    listed = {"artifact_id": identity, "filename": name, "mimetype": "image/svg+xml"}
    return {_ARTIFACT + identity: json.dumps(listed | {"encoding": None})}


def show(
    url: str,
    name: str,
    of_study: Callable[[Mapping[int, int]], Iterable[Attributes]],
    of_trials: Callable[[Mapping[int, int]], Mapping[int, Attributes]],
) -> int:
    """Set what the dashboard shows of a study, in one transaction; return how many rows changed.

    What is shown already is not written again, and a note that somebody has edited in the
    dashboard stays theirs.

    Args:
        url: the database's address.
        name: of the study.
        of_study: returns what `metric_name`, `plot` and `note` return; it is given Optuna's ids of
            the trials by their numbers.
        of_trials: returns what `file` returns, by Optuna's id of the trial.

    Raises:
        StorageError: there is no such study, or its database cannot be written.
    """
    engine = connect(url)
    try:
        with faults_of(url), engine.connect() as connection:
            study_id = _study_id(connection, name)
            ids = _trial_ids(connection, study_id)
        groups, files = list(of_study(ids)), of_trials(ids)
        sa.event.listen(engine, "begin", hold_writers_off)
        with faults_of(url), engine.begin() as connection:
            return _show(connection, study_id, groups, files)
    finally:
        engine.dispose()


def _study_id(connection: sa.Connection, name: str) -> int:
    table = models.StudyModel.__table__
    found = connection.scalar(sa.select(table.c.study_id).where(table.c.study_name == name))
    if found is None:
        raise StudyNotFound(f"the study must exist, but got {name!r}; see `tuner list`")
    return int(found)


def _trial_ids(connection: sa.Connection, study_id: int) -> dict[int, int]:
    """Return Optuna's ids of a study's trials, by number."""
    table = models.TrialModel.__table__
    query = sa.select(table.c.number, table.c.trial_id).where(table.c.study_id == study_id)
    return {row[0]: row[1] for row in connection.execute(query)}


def _show(
    connection: sa.Connection,
    study_id: int,
    groups: Iterable[Attributes],
    files: Mapping[int, Attributes],
) -> int:
    query = sa.select(_STUDY.c.key, _STUDY.c.value_json).where(_STUDY.c.study_id == study_id)
    stored: dict[str, str] = {row[0]: row[1] for row in connection.execute(query)}
    wanted, series = _wanted(groups, stored)
    stale = [k for k in stored if k not in wanted and k.rpartition(":")[0] in series]
    changed = _write(connection, _STUDY, _STUDY.c.study_id, study_id, wanted, stored, stale)
    for trial_id, attributes in files.items():
        values = {key: json.dumps(value) for key, value in attributes.items()}
        query = sa.select(_TRIAL.c.key, _TRIAL.c.value_json).where(_TRIAL.c.trial_id == trial_id)
        known = {row[0]: row[1] for row in connection.execute(query)}
        changed += _write(connection, _TRIAL, _TRIAL.c.trial_id, trial_id, values, known, [])
    return changed


def _file_id(trial_id: int, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{trial_id}/{name}"))


class _Recorder:
    """Stands for a study or one of its trials, and keeps what the dashboard sets on it.

    How the dashboard keeps things stays its own affair; it asks for these names alone.
    """

    def __init__(self, trial_id: int | None = None) -> None:
        self.attributes: Attributes = {}
        self.storage = self._storage = self.study = self
        self._study_id = 0
        self._trial_id = trial_id

    def get_study_system_attrs(self, _: int) -> Attributes:
        return self.attributes

    def set_study_system_attr(self, _: int, key: str, value: Any) -> None:
        self.attributes[key] = value


def _wanted(
    groups: Iterable[Attributes], stored: Mapping[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Return values by key, and the series (notes and plots in numbered pieces) among them."""
    wanted: dict[str, str] = {}
    series: set[str] = set()
    for attributes in groups:
        if any(
            key.endswith(":note_ver") and int(json.loads(stored.get(key, "0"))) > version
            for key, version in attributes.items()
        ):
            continue
        wanted |= {key: json.dumps(value) for key, value in attributes.items()}
        numbered = (key.rpartition(":") for key in attributes)
        series |= {start for start, _, number in numbered if number.isdigit()}
    return wanted, series


def _write(
    connection: sa.Connection,
    table: sa.Table,
    owner: sa.Column[Any],
    owner_id: int,
    wanted: Mapping[str, str],
    stored: Mapping[str, str],
    stale: Iterable[str],
) -> int:
    """Make rows hold what is wanted and remove those that are stale; return how many changed."""
    new = {key: value for key, value in wanted.items() if stored.get(key) != value}
    old = [{"named": key} for key in (*stale, *(key for key in new if key in stored))]
    if old:
        at = (owner == owner_id, table.c.key == sa.bindparam("named"))
        connection.execute(sa.delete(table).where(*at), old)
    if new:
        rows = [{owner.name: owner_id, "key": k, "value_json": v} for k, v in new.items()]
        connection.execute(sa.insert(table), rows)
    return len(new)
