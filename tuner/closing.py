"""Ends the trials whose worker is gone, as what was saved of them says.

Apart from the search because it happens beside it: any worker that notices a dead one closes its
trial, in the heartbeat's thread, and two may do it at once.
"""

from typing import Any

from optuna.trial import FrozenTrial

from storage.heartbeat import Heartbeat, dead_trials
from storage.records import TrialRecord
from storage.recovery import close_trial, queue_again
from tuner.objective import RETRY_ATTR, value_of
from tuner.outcome import Crashed, Interrupted
from tuner.search.sampler import config_of
from tuner.session import Session

CUT_OFF = "its process was killed while it ran"
MOST_RETRIES = 1
"""Times that the trial of a dead worker is queued: its config may be what kills workers."""


def heartbeat_of(session: Session) -> Heartbeat:
    """Return the heartbeat of this worker, which ends the trials of dead ones."""
    return Heartbeat(
        session.study, worker=session.worker, on_dead=lambda trial: close_dead(session, trial)
    )


def close_stale_trials(session: Session) -> None:
    """End every trial of which one look tells that its worker is gone."""
    for trial in dead_trials(session.study):
        close_dead(session, trial)


def close_dead(session: Session, trial: FrozenTrial) -> None:
    """End a trial that a dead worker left RUNNING; one that is to run again is queued.

    What it measured may wait in a journal that this machine has.
    """
    session.save_leftovers()
    record = _best_record(session, trial.number) or _cut_off(session, trial)
    value = None
    if record is not None and record.status == "success":
        value = value_of(session, record)
    crashed = record is not None and record.status == Crashed.status
    if crashed and not trial.user_attrs.get(RETRY_ATTR, False):
        queue_again(session.study, trial.number, user_attrs={RETRY_ATTR: True})
    state = close_trial(
        session.study,
        trial.number,
        reason=CUT_OFF,
        record=record,
        value=value,
        requeue=not crashed,
        max_retries=MOST_RETRIES,
    )
    session.say(f"trial {trial.number} was cut off: now {state.name.lower()}")


def _cut_off(session: Session, trial: FrozenTrial) -> TrialRecord | None:
    """Save and return the record of a trial that left none, None if it had no config yet."""
    config = config_of(trial.params)
    if config is None:
        return None
    params: dict[str, Any] = config.as_dict()
    record = TrialRecord(
        trial=trial.number, replicate=0, status=Interrupted.status, reason=CUT_OFF, **params
    )
    name = session.study.study_name
    if session.telemetry.add(name, record):
        return record
    return _best_record(session, trial.number)  # it has arrived after all


def _best_record(session: Session, trial: int) -> TrialRecord | None:
    """Return the record that stands for a trial: the last clean success, else its first."""
    records = [r for r in session.records() if r.trial == trial]
    clean = [r for r in records if r.status == "success" and r.contaminated is None]
    return clean[-1] if clean else next(iter(records), None)
