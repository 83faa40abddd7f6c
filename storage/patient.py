"""Optuna's storage in SQL, made to outlast a database that is away for a while.

Every call that a running study makes is repeated while the database is away. Most calls set a value
and may be made twice. Two may not, and what a lost connection leaves open, whether the call was
carried out, is looked up first: a new trial is known by the time at which it started, which we
choose; the end of a trial by its state.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial

from storage.database import passing_fault
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


class PatientStorage(RDBStorage):
    """Optuna's storage; it waits for its database while it is lent a `patience`."""

    def __init__(self, url: str, **options: Any) -> None:
        """Open the database; `options` are those of Optuna's class."""
        self.patience: Patience | None = None
        self._fault_at = -float("inf")
        self._faults = threading.Lock()
        super().__init__(url, **options)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        template = deepcopy(template_trial) or create_trial(state=TrialState.RUNNING)
        if template.datetime_start is None:
            template.datetime_start = datetime.now()  # of a waiting trial; set anew when it starts
        return self._wait(
            partial(self._add_trial, study_id, template),
            again=lambda: (
                self._find_trial(study_id, template) or self._add_trial(study_id, template)
            ),
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a change that was made before the connection was lost is not made anew."""
        change = partial(super().set_trial_state_values, trial_id, state, values)
        return self._wait(
            change, again=lambda: self._has_changed(trial_id, state, values) or change()
        )

    def record_heartbeat(self, trial_id: int) -> None:
        """As Optuna's; a beat that the database misses is left out, for another follows."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if passing_fault(error, self.url) is None:
                raise
            self._note_fault()

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # While the database was away no worker's beats arrived, so that all look dead.
        grace_s = self.grace_period or 2 * (self.heartbeat_interval or 0)
        found: list[int] = self._wait(partial(super()._get_stale_trial_ids, study_id))
        with self._faults:
            return [] if time.monotonic() - self._fault_at < grace_s else found

    def _wait(
        self, attempt: Callable[[], Result], again: Callable[[], Result] | None = None
    ) -> Result:
        if self.patience is None:
            return attempt()
        return self.patience.call(attempt, again=again, reconnect=self._reconnect)

    def _reconnect(self) -> None:
        self._note_fault()
        self.remove_session()
        self.engine.dispose()

    def _note_fault(self) -> None:
        with self._faults:
            self._fault_at = time.monotonic()

    def _add_trial(self, study_id: int, template: FrozenTrial) -> FrozenTrial:
        """As Optuna's own, which repeats a call that may have been carried out."""
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            trial = self._get_prepared_new_trial(study_id, template, session)
            return self._build_frozen_trial_from_trial_model(trial)

    def _find_trial(self, study_id: int, template: FrozenTrial) -> FrozenTrial | None:
        assert template.datetime_start is not None
        started = template.datetime_start.astimezone(UTC).replace(tzinfo=None)  # as it is stored
        query = sa.select(models.TrialModel).filter_by(
            study_id=study_id, _datetime_start_utc=started
        )
        with _create_scoped_session(self.scoped_session) as session:
            trial = session.scalars(query).first()
            return None if trial is None else self._build_frozen_trial_from_trial_model(trial)

    def _has_changed(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None
    ) -> bool:
        trial = super().get_trial(trial_id)
        if trial.state != state:
            return False
        if state == TrialState.RUNNING:
            return self._is_unclaimed(trial_id)
        return values is None or trial.values == list(values)

    def _is_unclaimed(self, trial_id: int) -> bool:
        """Whether no other worker has taken a trial: it would soon show signs of life."""
        time.sleep(1.5 * (self.heartbeat_interval or 0))
        query = sa.select(models.TrialHeartbeatModel).filter_by(trial_id=trial_id)
        with _create_scoped_session(self.scoped_session) as session:
            return session.scalars(query).first() is None


def _repeatable(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self._wait(lambda: method(self, *args, **kwargs))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in _REPEATABLE:
    setattr(PatientStorage, _name, _repeatable(_name))


@contextmanager
def patient(storage: PatientStorage, patience: Patience) -> Iterator[None]:
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
