"""Ends the trials whose worker is gone, as what was saved of them says.

Apart from the search because it happens beside it: any worker that notices a dead one closes its
trial, in the heartbeat's thread, and two may do it at once.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from optuna.trial import FrozenTrial

from storage.beats import BEAT_ATTR
from storage.errors import StorageError
from storage.heartbeat import Heartbeat, dead_trials, is_dead_here
from storage.journal import is_journal_of
from storage.records import TrialRecord
from storage.recovery import close_trial, queue_again
from storage.studies import close_storage, load_study, open_storage, optuna_faults_of
from storage.telemetry import Telemetry
from tuner.aggregate import hardware_of
from tuner.bench import Say
from tuner.lookup import find
from tuner.objective import RETRY_ATTR, value_of
from tuner.open_study import OpenStudy
from tuner.outcome import Crashed, Interrupted
from tuner.references import References
from tuner.session import Session
from tuner.space import config_of

CUT_OFF = "its process was killed while it ran"
MOST_RETRIES = 1
"""Times that the trial of a dead worker is queued at once: its config may be what kills workers."""
MOST_DEATHS = 5
"""Workers that may die while they measure one config; then it counts as one that cannot work."""


def heartbeat_of(session: Session) -> Heartbeat:
    """Return the heartbeat of this worker, which ends the trials of dead ones."""
    return Heartbeat(
        session.study, worker=session.worker, on_dead=lambda trial: close_dead(session, trial)
    )


def close_stale_trials(opened: OpenStudy) -> None:
    """End every trial of which one look tells that its worker is gone."""
    for trial in dead_trials(opened.study):
        close_dead(opened, trial)


def close_in_passing(name: str, places: Mapping[str, object], *, say: Say) -> None:
    """End the trials of dead workers in a study that this command only reads.

    So that none runs for ever whose study nobody goes on with. Only those whose process was one of
    this machine: of others one look tells no more than the clocks of two machines do. Where the
    study cannot be written they stay as they are, and its next worker ends them.
    """
    config, facts = find(name, places)
    url = config.storage_url(name)
    with suppress(StorageError, OSError), optuna_faults_of(url):
        database = open_storage(url, create=False)
        try:
            with Telemetry(url, create=False) as telemetry:
                opened = OpenStudy(
                    config=config,
                    study=load_study(database, name),
                    telemetry=telemetry,
                    say=say,
                    references=References.from_json(facts["references"]),
                )
                for trial in filter(is_dead_here, dead_trials(opened.study)):
                    close_dead(opened, trial)
        finally:
            close_storage(database)


def close_dead(opened: OpenStudy, trial: FrozenTrial) -> None:
    """End a trial that a dead worker left RUNNING; one that is to run again is queued.

    What it measured may be in attributes of the trial, or wait in a journal that this machine has:
    while another process saves that, the trial is left to the next look.
    """
    opened.adopt()
    busy = opened.save_leftovers()
    if is_dead_here(trial) and any(_left_by(opened, trial, path) for path in busy):
        return
    record = _best_record(opened, trial.number) or _cut_off(opened, trial)
    value = None
    if record is not None and record.status == "success":
        value = value_of(opened, record)
    crashed = record is not None and record.status == Crashed.status
    crashed_before = trial.user_attrs.get(RETRY_ATTR, False)
    is_deadly = record is not None and _num_deaths(opened, record) >= MOST_DEATHS
    if crashed and not crashed_before and not is_deadly:
        queue_again(opened.study, trial.number, user_attrs={RETRY_ATTR: True})
    state = close_trial(
        opened.study,
        trial.number,
        reason=CUT_OFF,
        record=record,
        value=value,
        is_last=is_deadly or (crashed and crashed_before),
        max_retries=MOST_RETRIES,
    )
    opened.say(f"trial {trial.number} was cut off: now {state.name.lower()}")


def _left_by(opened: OpenStudy, trial: FrozenTrial, journal: Path) -> bool:
    beat = trial.system_attrs[BEAT_ATTR]
    return is_journal_of(journal, opened.study_id, beat["host"], beat["pid"])


def _num_deaths(opened: OpenStudy, record: TrialRecord) -> int:
    """Return how many processes have died of, or beside, the config of a record."""
    config = hardware_of(record)
    return sum(r.reason == CUT_OFF and hardware_of(r) == config for r in opened.records())


def _cut_off(opened: OpenStudy, trial: FrozenTrial) -> TrialRecord | None:
    """Save and return the record of a trial that left none, None if it had no config yet."""
    config = config_of(trial.params)
    if config is None:
        return None
    params = config.params()
    record = TrialRecord(
        trial=trial.number, replicate=0, status=Interrupted.status, reason=CUT_OFF, **params
    )
    name = opened.study.study_name
    if opened.telemetry.add(name, record):
        return record
    return _best_record(opened, trial.number)  # it has arrived after all


def _best_record(opened: OpenStudy, trial: int) -> TrialRecord | None:
    """Return the record that stands for a trial: the last clean success, else its first."""
    records = [r for r in opened.records() if r.trial == trial]
    clean = [r for r in records if r.status == "success" and r.contaminated is None]
    return clean[-1] if clean else next(iter(records), None)
