"""Optuna's storage in SQL, made to outlast a database that is away for a while.

Every call that a running study makes is repeated while the database is away. Most calls set a value
and may be made twice. Three may not, and what a lost connection leaves open, whether the call was
carried out, is looked up first: a new trial, and the start of a queued one, are known by a token
that is written in the same transaction and that no other worker has; the end of a trial by its
state.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial

from storage.beats import BEAT_ATTR, Beat
from storage.errors import StorageUnavailable
from storage.patience import GivenUp, Patience

Result = TypeVar("Result")

_REPEATABLE = (
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "_set_trial_param",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
    "_get_trials",
    "_get_best_trial_id",
)
"""What may be called twice with the same arguments: those methods that Optuna's cache calls."""


MADE_ATTR = "tuner:made"
"""System attribute of a trial: the token of the call that made it."""
STARTED_ATTR = "tuner:started"
"""System attribute of a trial that was queued: the token of the call that started it."""


class WaitingStorage(Protocol):
    """What our storages have beside what Optuna asks of one.

    Each waits for its database while it is lent a `patience`; `on_start`, if set, is given the id
    of each trial that this process starts.
    """

    url: str
    patience: Patience | None
    on_start: Callable[[int], None] | None

    def beats_of_running(self, study_id: int) -> dict[int, Beat | None]:
        """Return the last beat of each running trial, by the trial's id; None if it had none."""
        ...


class PatientStorage(RDBStorage):
    """Optuna's storage in SQL; see `WaitingStorage`."""

    def __init__(self, url: str, **options: Any) -> None:
        """Open the database; `options` are those of Optuna's class."""
        self.patience: Patience | None = None
        self.on_start: Callable[[int], None] | None = None
        super().__init__(url, **options)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        template = template_with_token(template_trial)
        trial = self._wait(
            partial(self._add_trial, study_id, template),
            again=lambda: (
                self._find_trial(study_id, template) or self._add_trial(study_id, template)
            ),
        )
        if template_trial is None and self.on_start is not None:
            self.on_start(trial._trial_id)
        return trial

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a change that was made before the connection was lost is not made anew."""
        if state == TrialState.RUNNING:
            return self._start(trial_id)
        change = partial(super().set_trial_state_values, trial_id, state, values)
        return self._wait(
            change, again=lambda: self._has_ended(trial_id, state, values) or change()
        )

    def beats_of_running(self, study_id: int) -> dict[int, Beat | None]:
        """As `WaitingStorage` says, in one query: each of many workers looks at all the others."""
        return self._wait(partial(self._read_beats, study_id))

    def _read_beats(self, study_id: int) -> dict[int, Beat | None]:
        trial, attribute = models.TrialModel, models.TrialSystemAttributeModel
        is_beat = sa.and_(attribute.trial_id == trial.trial_id, attribute.key == BEAT_ATTR)
        query = (
            sa.select(trial.trial_id, attribute.value_json)
            .outerjoin(attribute, is_beat)
            .where(trial.study_id == study_id, trial.state == TrialState.RUNNING)
            .order_by(trial.trial_id)
        )
        with _create_scoped_session(self.scoped_session) as session:
            return {
                trial_id: None if beat is None else json.loads(beat)
                for trial_id, beat in session.execute(query)
            }

    def _start(self, trial_id: int) -> bool:
        """Start a queued trial; return whether it is this process's now."""
        is_ours = self._wait(partial(self._try_to_start, trial_id, secrets.token_hex(8)))
        if is_ours and self.on_start is not None:
            self.on_start(trial_id)
        return is_ours

    def _wait(
        self, attempt: Callable[[], Result], again: Callable[[], Result] | None = None
    ) -> Result:
        if self.patience is None:
            return attempt()
        return self.patience.call(attempt, again=again, reconnect=self._reconnect)

    def _reconnect(self) -> None:
        self.remove_session()
        self.engine.dispose()

    def _add_trial(self, study_id: int, template: FrozenTrial) -> FrozenTrial:
        """As Optuna's own, which repeats a call that may have been carried out."""
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            trial = self._get_prepared_new_trial(study_id, template, session)
            return self._build_frozen_trial_from_trial_model(trial)

    def _find_trial(self, study_id: int, template: FrozenTrial) -> FrozenTrial | None:
        attribute = models.TrialSystemAttributeModel
        query = (
            sa.select(models.TrialModel)
            .join(attribute, attribute.trial_id == models.TrialModel.trial_id)
            .where(
                models.TrialModel.study_id == study_id,
                attribute.key == MADE_ATTR,
                attribute.value_json == json.dumps(template.system_attrs[MADE_ATTR]),
            )
        )
        with _create_scoped_session(self.scoped_session) as session:
            trial = session.scalars(query).first()
            return None if trial is None else self._build_frozen_trial_from_trial_model(trial)

    def _try_to_start(self, trial_id: int, token: str) -> bool:
        """As Optuna's own change to RUNNING, with a token; called twice it is made once."""
        attribute = models.TrialSystemAttributeModel
        with _create_scoped_session(self.scoped_session) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            self.check_trial_is_updatable(trial_id, trial.state)
            if trial.state != TrialState.WAITING:
                found: Any = attribute.find_by_trial_and_key(trial, STARTED_ATTR, session)
                return found is not None and json.loads(found.value_json) == token
            self._set_trial_attr_without_commit(session, attribute, trial_id, STARTED_ATTR, token)
            trial.state = TrialState.RUNNING
            trial.datetime_start = datetime.now()
        return True

    def _has_ended(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        return has_ended(super().get_trial(trial_id), state, values)


def template_with_token(template: FrozenTrial | None) -> FrozenTrial:
    """Return a copy of a new trial that a token tells from all others; `None` is a running one."""
    marked = deepcopy(template) or create_trial(state=TrialState.RUNNING)
    marked.system_attrs = {**marked.system_attrs, MADE_ATTR: secrets.token_hex(8)}
    return marked


def has_ended(trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> bool:
    """Whether a trial has ended in just this way."""
    return trial.state == state and (values is None or trial.values == list(values))


def _repeatable(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self._wait(lambda: method(self, *args, **kwargs))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in _REPEATABLE:
    setattr(PatientStorage, _name, _repeatable(_name))


def storage_of(study: optuna.Study) -> WaitingStorage:
    """Return the storage that `open_storage` made, without the cache that Optuna puts before it."""
    storage: Any = study._storage
    backend: Any = storage._backend if isinstance(storage, _CachedStorage) else storage
    ours: WaitingStorage = backend
    return ours


@contextmanager
def patient(storage: WaitingStorage, patience: Patience) -> Iterator[None]:
    """Let a storage wait for its database in the body.

    Raises:
        StorageUnavailable: waiting was given up.
    """
    storage.patience = patience
    try:
        yield
    except GivenUp as lost:
        raise StorageUnavailable(str(lost)) from lost
    finally:
        storage.patience = None
