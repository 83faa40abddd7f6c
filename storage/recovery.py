"""Closing the trials that a killed process left RUNNING.

Apart from `storage.studies` because only they need it who find such a trial: a resume, or the
workers that watch each other (`storage.heartbeat`). Several may close one at the same time.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from storage.records import INFEASIBLE_STATUSES, TrialRecord, record_from_dict

DASHBOARD_FIELDS = (
    "status",
    "reason",
    "sps",
    "device_util",
    "quality_score",
    "peak_memory_gb",
    "mean_return",
    "final_score",
)
"""The fields of a record that Optuna's trial carries too, as columns of the dashboard."""

UNFINISHED_STATUSES = ("crashed", "interrupted")
CONSTRAINT = "feasible"
"""Name of the one constraint that our trials have: 0 where the config works, 1 where it cannot."""

LINE = 88
"""Characters in a line of `RECORD_ATTR`: the dashboard breaks none, and its page grows as wide."""
RECORD_ATTR = "record"
"""The attribute that holds the whole record as JSON."""

RETRY_OF = "tuner:retry_of"
"""System attribute of a trial that repeats another: that one's number."""
_NUM_RETRIES = "tuner:num_retries"
QUEUED_TWICE = "queued twice at once"
"""The reason of a trial that was taken back."""


def record_text(record: TrialRecord) -> str:
    """Return a record as JSON for `RECORD_ATTR`, in lines that fit the dashboard's page."""
    lines = [""]
    for token in json.JSONEncoder().iterencode(record.as_dict()):
        if len(lines[-1]) + len(token) > LINE:
            lines.append("")
        lines[-1] += token
    return "\n".join(lines)


def record_of(trial: FrozenTrial) -> TrialRecord | None:
    """Return the record that a trial shows, None if it shows none."""
    stored: str | None = trial.user_attrs.get(RECORD_ATTR)
    return None if stored is None else record_from_dict(json.loads(stored))


def running_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that are RUNNING, by number.

    All of them are dead when the caller holds the lock of a study that has one process; among
    several workers see `storage.heartbeat`.
    """
    return study.get_trials(states=(TrialState.RUNNING,))


def close_trial(
    study: optuna.Study,
    number: int,
    *,
    reason: str,
    record: TrialRecord | None = None,
    value: float | None = None,
    is_last: bool = False,
    max_retries: int | None = None,
) -> TrialState:
    """End a trial whose process is gone, as its record says.

    A record of a finished measurement is told to Optuna: COMPLETE with its score, or PRUNED with
    the constraint that says whether the config works. Without one (or with one that says crashed or
    interrupted) the trial becomes FAIL and is queued again with the same parameters and user
    attributes. Each step can be cut off by another kill: closing the trial once more takes up where
    the last attempt ended, and queues nothing twice; so does another process that closes it at the
    same time. A trial that is finished stays as it is.

    Args:
        study: The study.
        number: The trial's number.
        reason: What happened to its process; stored unless the record has its own reason.
        record: What was saved of its measurement, if anything was.
        value: What Optuna is told in place of `record.final_score`; with it a finished record that
            is not a success becomes COMPLETE too (see DESIGN on the GP sampler).
        is_last: Whether the fault is the config's: it crashed, or its worker died, too often. Even
            a record that says crashed or interrupted is finished then.
        max_retries: How often, see `queue_again`.

    Returns:
        The state in which the trial now is.

    Raises:
        ValueError: If the record says success but there is neither a score nor a `value`.
        KeyError: If the study has no such trial.
    """
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    trial = storage.get_trial(trial_id)
    if trial.state.is_finished():
        return trial.state
    is_finished = record is not None and record.status not in UNFINISHED_STATUSES
    try:
        if record is not None and (is_finished or is_last):
            _tell_record(study, trial, record, value)
        else:
            # Before its end: a kill between the two leaves a trial that is closed again.
            queue_again(study, number, max_retries=max_retries)
            _fail(study, trial, reason if record is None else record.reason or reason)
    except (UpdateFinishedTrialError, ValueError) as error:
        if not is_taken_over(error):
            raise
        # Another process closed it in the meantime; or its own, which was alive after all, told it.
        if storage.get_trial(trial_id).state in (TrialState.COMPLETE, TrialState.PRUNED):
            for retry in _retries(study, number):
                if retry.state == TrialState.WAITING:
                    _withdraw(study, retry)
    return storage.get_trial(trial_id).state


def is_surplus(study: optuna.Study, number: int) -> bool:
    """Whether a trial repeats one that another trial, queued before it, repeats already.

    Two processes may queue the same trial at once, and the later entry may be started before it is
    taken back. Trials are numbered one by one, so whoever starts it knows.
    """
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    original = storage.get_trial(trial_id).system_attrs.get(RETRY_OF)
    return original is not None and any(
        trial.system_attrs.get(RETRY_OF) == original
        and trial.user_attrs.get("reason") != QUEUED_TWICE
        for trial in study.get_trials(deepcopy=False)[:number]
    )


def is_taken_over(error: Exception) -> bool:
    """Whether Optuna raised this because our trial was finished by somebody else meanwhile.

    So it is told by a worker that was cut off or stopped for so long that others took it for dead,
    from each change of the trial and from `Study.optimize`. Its measurement counts nevertheless,
    once it is saved in the table.
    """
    if isinstance(error, AssertionError) and isinstance(error.__context__, Exception):
        error = error.__context__  # `Study.optimize` expects that only it ends a trial
    is_refused = isinstance(error, ValueError) and re.match(r"Cannot tell a \w+ trial", str(error))
    return isinstance(error, UpdateFinishedTrialError) or bool(is_refused)


def _tell_record(
    study: optuna.Study, trial: FrozenTrial, record: TrialRecord, value: float | None
) -> None:
    if value is None and record.status == "success":
        value = record.final_score
        if value is None or not math.isfinite(value):
            raise ValueError(
                f"trial {trial.number} must have a score to be COMPLETE, but its record has "
                f"{value}; pass value="
            )
    storage = study._storage
    # What `Trial.set_constraint` stores; a `Trial` would ask the sampler to begin the trial anew.
    infeasible = float(record.status in {*INFEASIBLE_STATUSES, *UNFINISHED_STATUSES})
    storage.set_trial_system_attr(trial._trial_id, f"constraints:{CONSTRAINT}", infeasible)
    for name in DASHBOARD_FIELDS:
        shown = getattr(record, name)
        if shown is not None:
            storage.set_trial_user_attr(trial._trial_id, name, shown)
    storage.set_trial_user_attr(trial._trial_id, RECORD_ATTR, record_text(record))
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    study.tell(trial.number, value, state=state)


def _fail(study: optuna.Study, trial: FrozenTrial, reason: str) -> None:
    storage = study._storage
    storage.set_trial_user_attr(trial._trial_id, "status", "interrupted")
    storage.set_trial_user_attr(trial._trial_id, "reason", reason)
    study.tell(trial.number, state=TrialState.FAIL)


def queue_again(
    study: optuna.Study,
    number: int,
    *,
    user_attrs: Mapping[str, Any] | None = None,
    max_retries: int | None = None,
) -> None:
    """Queue a trial's parameters once more; a second call for the same trial does nothing.

    Two processes may call it at once: whose entry is the later one takes it back.

    Args:
        study: The study.
        number: The trial that did not finish.
        user_attrs: Added to the attributes that the trial was queued with, if it was.
        max_retries: Nothing is done for a trial that is this many repeats after the first already:
            a config that takes its worker down would go on for ever. `None` for no bound.
    """
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    trial = study._storage.get_trial(trial_id)
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    of_measurement = (*DASHBOARD_FIELDS, RECORD_ATTR)
    attrs = {k: v for k, v in trial.user_attrs.items() if k not in of_measurement}
    attrs |= user_attrs or {}
    is_blank = not params and not attrs
    retries = trial.system_attrs.get(_NUM_RETRIES, 0)
    is_enough = max_retries is not None and retries >= max_retries
    if is_blank or is_enough or _retries(study, trial.number):
        return
    # As `Study.enqueue_trial`, which cannot mark whose retry it is.
    marks = {"fixed_params": params, RETRY_OF: trial.number, _NUM_RETRIES: retries + 1}
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=attrs, system_attrs=marks))
    # Another may have queued it between our look and our entry: no lock reaches through a proxy.
    for retry in _retries(study, trial.number)[1:]:
        if retry.state == TrialState.WAITING:
            _withdraw(study, retry)


def _retries(study: optuna.Study, number: int) -> list[FrozenTrial]:
    """Return the trials that repeat this one, by number."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.system_attrs.get(RETRY_OF) == number]


def _withdraw(study: optuna.Study, queued: FrozenTrial) -> None:
    with suppress(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(queued._trial_id, "reason", QUEUED_TWICE)
        study._storage.set_trial_state_values(queued._trial_id, TrialState.FAIL)
