"""One trial, start to finish: suggest, run, judge, record, tell Optuna.

What Optuna is told of each outcome decides what its samplers learn. Neither TPE nor GP sees FAIL;
TPE learns from PRUNED, GP only from COMPLETE. So a config that cannot work is PRUNED with a
constraint under TPE and COMPLETE with the worst score seen under GP, and FAIL is kept for faults
that are not the config's: a first crash, an interruption. Those are tried again.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import NopPruner

from storage.errors import StorageUnavailable
from storage.patience import Patience
from storage.records import TrialRecord
from storage.recovery import (
    CONSTRAINT,
    DASHBOARD_FIELDS,
    QUEUED_TWICE,
    RECORD_ATTR,
    is_surplus,
    queue_again,
    record_text,
    running_trials,
)
from tuner.finalists import num_finalists
from tuner.goal import objective_of
from tuner.open_study import OpenStudy
from tuner.outcome import Outcome, Pruned
from tuner.protocol import MILESTONES, Event
from tuner.search.pruner import SO_FAR_ATTR, LosslessPruner
from tuner.session import Session
from tuner.space import config_of
from tuner.stopping import finalists_reserve_s

RETRY_ATTR = "retry"
"""User attribute of a trial that tries a crashed config once more."""


HARDWARE_ATTR = "hardware"
"""User attribute of a trial in a group of other hardware: the group's name."""


class TrialFailed(Exception):
    """Tells Optuna FAIL: the fault is not the config's."""


class Objective:
    """What `study.optimize` calls: measures a config and returns its score."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, trial: optuna.Trial) -> float:
        """Run one trial.

        Raises:
            optuna.TrialPruned: the config is infeasible, or the pruner stopped it.
            TrialFailed: it crashed for the first time, or was interrupted; it is queued again.
        """
        session, references = self._session, self._session.references
        if references is None:
            raise ValueError("a study must be calibrated before its trials run")
        if is_surplus(session.study, trial.number):
            trial.set_user_attr("reason", QUEUED_TWICE)
            raise TrialFailed(QUEUED_TWICE)
        for name, choices in session.config.space().choices().items():
            trial.suggest_categorical(name, choices)
        if session.group is not None:
            trial.set_user_attr(HARDWARE_ATTR, session.group)
        config = config_of(trial.params)
        if config is None:
            raise ValueError(f"a trial must have all dimensions, but got {trial.params}")
        session.say(f"trial {trial.number}: {config}")
        milestones = Milestones(
            trial, references.env_steps, session.patience, util_so_far=session.bench.util_so_far
        )
        others = len(running_trials(session.study)) - 1
        finalists = num_finalists(session, others=others)
        reserve_s = finalists_reserve_s(session.records(), finalists)
        measurement = session.measure(
            config,
            trial=trial.number,
            replicate=0,
            env_steps=references.env_steps,
            on_block=milestones.see,
            reserve_s=reserve_s,
        )
        record = session.keep(measurement)
        milestones.report()
        again = session.repeat_if_disturbed(record, reserve_s=reserve_s)
        is_better = again is not None and again.status == "success" and not again.contaminated
        return self._tell(trial, again if again is not None and is_better else record)

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> float:
        for name, value in dashboard_attrs(record).items():
            trial.set_user_attr(name, value)
        if record.status == "success":
            trial.set_constraint(CONSTRAINT, 0.0)
            return value_of(self._session, record)
        if record.status == "interrupted" or self._is_first_crash(trial, record):
            attrs = {RETRY_ATTR: True} if record.status == "crashed" else {}
            queue_again(trial.study, trial.number, user_attrs=attrs)
            raise TrialFailed(record.reason)
        pruned = record.status == Pruned.status
        trial.set_constraint(CONSTRAINT, 0.0 if pruned else 1.0)
        if not pruned and self._session.config.sampler == "gp":
            return min(self._scores(), default=0.0)
        raise optuna.TrialPruned(record.reason)

    def _is_first_crash(self, trial: optuna.Trial, record: TrialRecord) -> bool:
        return record.status == "crashed" and not trial.user_attrs.get(RETRY_ATTR, False)

    def _scores(self) -> list[float]:
        records = self._session.records()
        return [score for r in records if (score := objective_of(r)) is not None]


def dashboard_attrs(record: TrialRecord) -> dict[str, Any]:
    """Return what Optuna's trial shows of a record: a few columns, and the whole as one JSON."""
    shown = {name: getattr(record, name) for name in DASHBOARD_FIELDS}
    columns = {name: value for name, value in shown.items() if value is not None}
    return {**columns, RECORD_ATTR: record_text(record)}


def value_of(opened: OpenStudy, record: TrialRecord) -> float:
    """Return what Optuna is told of a success, filled in where a component is missing."""
    value = objective_of(record)
    return fill_in_score(opened, record) if value is None else value


def fill_in_score(opened: OpenStudy, record: TrialRecord) -> float:
    """Return the composite with the study's median for each component that was not measured."""
    if opened.references is None:
        raise ValueError("a study must be calibrated before scores are filled in")
    weights = opened.references.weights.as_dict()
    total = weighted = 0.0
    for component in opened.references.components:
        name = f"{component}_score"
        value = getattr(record, name)
        if value is None:
            known = [v for r in opened.records() if (v := getattr(r, name)) is not None]
            value = statistics.median(known) if known else 0.5
        total += weights[component]
        weighted += weights[component] * value
    return weighted / total


class Milestones:
    """Reports the training return at `MILESTONES` of the budget and asks whether to prune.

    Returns are interpolated between blocks, so that every config is judged at the same env-steps.
    A pruner is told at once, but never waited for: what the database did not take then, and all
    that no pruner wants to know, is reported by `report` when the trial has been measured.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        env_steps: int,
        patience: Patience | None = None,
        *,
        util_so_far: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._trial, self._util_so_far = trial, util_so_far
        self._rates: list[float] = []
        self._left = [int(env_steps * share) for share in MILESTONES]
        self._points: list[tuple[int, float]] = []
        self._unreported: dict[int, float] = {}
        self._env_steps = 0
        self._patience = patience
        self._is_asked = not isinstance(trial.study.pruner, NopPruner)
        self._is_lossless = isinstance(trial.study.pruner, LosslessPruner)

    def see(self, block: Event) -> Outcome | None:
        """Take a block; return `Pruned` when the pruner stops the trial."""
        if self._is_lossless:
            self._rates.append(self._rate(block))
        value = block.data["metrics"].get("mean_return")
        if value is None or not block.data["learning"]:
            return None
        self._points.append((block.data["env_steps"], value))
        while self._left and self._points[-1][0] >= self._left[0]:
            milestone = self._left.pop(0)
            self._unreported[milestone] = interpolate(self._points, milestone)
            if self._is_asked and self._is_cut():
                return Pruned(f"pruned at {milestone:,} env-steps: {self._why()}")
        return None

    def _why(self) -> str:
        if self._is_lossless:
            return "no profile would choose it, however well it learned"
        return "its return lags behind others'"

    def _rate(self, block: Event) -> float:
        """Return a block's env-steps per second."""
        before, self._env_steps = self._env_steps, block.data["env_steps"]
        return float((self._env_steps - before) / block.data["seconds"])

    def _tell_so_far(self) -> None:
        """Tell the lossless pruner how fast and busy the trial has been."""
        so_far = {"sps": statistics.median(self._rates), "device_util": self._util_so_far()}
        self._trial.storage.set_trial_system_attr(self._trial._trial_id, SO_FAR_ATTR, so_far)

    def report(self) -> None:
        """Tell Optuna of the milestones that it does not know yet."""
        for milestone, value in list(self._unreported.items()):
            self._trial.report(value, step=milestone)
            del self._unreported[milestone]

    def _is_cut(self) -> bool:
        """Ask the pruner; not again in this trial once the database has not answered."""
        at_once = nullcontext() if self._patience is None else self._patience.without_waiting()
        try:
            with at_once:
                self.report()
                if self._is_lossless:
                    self._tell_so_far()
                return self._trial.should_prune()
        except (StorageInternalError, StorageUnavailable):
            self._is_asked = False
            return False


def interpolate(points: Sequence[tuple[int, float]], x: float) -> float:
    """Return y at `x` on the line through `points` (x ascending); constant beyond its ends."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[0][1] if x < points[0][0] else points[-1][1]
