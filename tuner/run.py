"""The work of a study on an open bench: calibrate, search, measure the finalists, export.

Every step asks the tables where things stand, so that a process that was killed at any moment is
followed by one that goes on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from optuna.trial import TrialState, create_trial

from storage.heartbeat import Heartbeat
from storage.records import TrialRecord
from storage.recovery import CONSTRAINT, running_trials
from storage.studies import set_study_fact, study_facts
from tuner import warm_start
from tuner.aggregate import MEANS, hardware_of, summarise, that_count
from tuner.calibration import (
    budget_env_steps,
    check_traceable,
    measure_baseline,
    measure_chance,
)
from tuner.closing import close_stale_trials, heartbeat_of
from tuner.crew import Crew
from tuner.errors import ExportRefused, NothingFeasible
from tuner.finalists import export, hold_contest
from tuner.objective import HARDWARE_ATTR, dashboard_attrs, value_of
from tuner.observer import Opened
from tuner.outcome import Completed, Interrupted, Pruned
from tuner.outlook import in_words
from tuner.references import References
from tuner.search.known import MEASUREMENTS_ATTR
from tuner.search.sampler import distributions
from tuner.session import Session
from tuner.space import config_of
from tuner.trials import INTERRUPTED, close_search, reason_now, search, wait_for_others

FEASIBLE = (Completed.status, Pruned.status)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command left its study: why the search ended, and what came of it.

    `outlook` says what is believed still to be had, None of a search that did not end by itself.
    `exit_code` and `refusal` say why there are no profiles, if there are none. `is_news` says that
    there is something to publish: not of a study that had ended before, nor before anything was
    measured, nor for a user who asked twice to stop.
    """

    reason: str
    profiles: tuple[str, ...] = ()
    refusal: str | None = None
    exit_code: int = 0
    notes: tuple[str, ...] = ()
    is_news: bool = True
    outlook: str | None = None


def run(session: Session, crew: Crew) -> Ending:
    """Take a study from wherever it stands to its end, and remember that it ended.

    Args:
        session: the leader's hold on the study.
        crew: the workers that search beside it; not started yet.
    """
    info = session.bench.device.info()
    opened = Opened(study=session.study.study_name, device=info.name, kind=info.kind)
    session.bench.observer.see(opened)
    facts = study_facts(session.study)
    if "references" in facts:
        session.references = References.from_json(facts["references"])
        session.use_measured_baseline()
    if facts.get("ended") is not None:
        set_study_fact(session.study, "ended", None)  # a kill from now on leaves it unfinished
    close_search(session, None)
    session.save_leftovers()
    session.adopt()
    close_stale_trials(session)
    session.rewrite_csv()
    try:
        with heartbeat_of(session) as heartbeat, crew:
            calibrate(session)
            warm_start.queue(session.study, facts)
            reason = lead(session, crew, heartbeat)
    except KeyboardInterrupt:
        reason = INTERRUPTED
    except NothingFeasible as error:
        ending = Ending("nothing fits in memory", refusal=str(error), exit_code=error.exit_code)
        set_study_fact(session.study, "ended", asdict(ending))
        return ending
    session.make_sure_of_lead()
    session.adopt()
    session.add_rows()
    if reason == INTERRUPTED:
        return _stopped(session, reason)
    session.say(f"search ended: {reason}")
    left = in_words(session.records(), session.config.space())
    ending = replace(finish(session, reason), outlook=left)
    if ending.exit_code != 5:
        set_study_fact(session.study, "ended", asdict(ending))
    return ending


def calibrate(session: Session) -> None:
    """Measure the study's references, if it has none, and add the baseline as trial 0.

    The references are stored after the baseline's records and before its trial: a process that is
    killed in between leaves everything that the next one needs.
    """
    study, name = session.study, session.study.study_name
    if session.references is None:
        check_traceable(session)
        session.say("calibrating: chance, budget, baseline")
        chance = measure_chance(session)
        references, measurements = measure_baseline(session, chance, budget_env_steps(session))
        session.references = references
        # A calibration that was killed while it was saved may have left more rows than this one.
        session.table.discard(name, 0)
        for measurement in measurements:
            session.keep(measurement)
        session.rewrite_csv()
        environment = {"obs_shape": list(chance.obs_shape), "num_actions": chance.num_actions}
        set_study_fact(study, "environment", environment)
        set_study_fact(study, "environment_notes", list(chance.notes))
        set_study_fact(study, "references", references.as_json())
    if not study.get_trials(deepcopy=False):
        _add_baseline(session, [r for r in session.records() if r.trial == 0])


def _add_baseline(session: Session, records: Sequence[TrialRecord]) -> None:
    """Tell Optuna of the baseline; outside the space it is a trial without parameters.

    It has the means of its measurements that count, and their verdict: a search starts from what
    the baseline is worth, and one measurement may have been disturbed.
    """
    first = next(iter(that_count(records)), None)
    if first is None:
        raise ValueError("a calibrated study must have the record of its baseline")
    (summary,) = summarise(records, with_intervals=False)
    means = {name: getattr(summary, name) for name in (*MEANS, "quality_acceptable")}
    record = replace(first, replicate=0, sps_ci95=None, **means)
    space = session.config.space()
    params = {name: getattr(record, name) for name in distributions(space)}
    inside = config_of(params) in space.config_set()
    group = {} if session.group is None else {HARDWARE_ATTR: session.group}
    session.study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            value=value_of(session, record),
            params=params if inside else {},
            distributions=distributions(space) if inside else {},
            user_attrs=dashboard_attrs(record) | {MEASUREMENTS_ATTR: summary.replicates} | group,
            system_attrs={f"constraints:{CONSTRAINT}": 0.0},
        )
    )


def lead(session: Session, crew: Crew, heartbeat: Heartbeat) -> str:
    """Search together with the crew and with whoever else has joined; return why it ended.

    What a worker leaves undone when it dies is done here, after the others have ended.
    """
    crew.start(session.time_left_s())
    while True:
        reason = search(session, heartbeat)
        if reason == INTERRUPTED:
            return reason
        close_search(session, reason)
        crew.wait(partial(_is_busy, session, heartbeat))
        session.save_leftovers()  # of a worker that died while the database was away
        wait_for_others(session, heartbeat)
        if session.bench.interrupts.count:
            return INTERRUPTED
        now = reason_now(session)
        if now is not None:
            return now
        close_search(session, None)


def _is_busy(session: Session, heartbeat: Heartbeat) -> bool:
    heartbeat.check()
    return bool(running_trials(session.study))


def finish(session: Session, reason: str) -> Ending:
    """Measure the finalists once more and write the profiles, or say why there are none."""
    name, space = session.study.study_name, session.config.space().config_set()
    records = [r for r in session.records() if r.status != Interrupted.status]
    tried = [r for r in records if hardware_of(r) in space]
    if tried and all(r.status not in FEASIBLE for r in tried):
        refusal = NothingFeasible(
            f"a study must have a feasible config, but got none of {len(tried)} that were tried; "
            f"see `tuner status {name}` for what ended them"
        )
        return Ending(reason, refusal=str(refusal), exit_code=refusal.exit_code)
    try:
        notes = hold_contest(session)
        if session.bench.interrupts.count:
            return _stopped(session, reason, notes)
        paths = export(session, session.config.profiles_folder(name), reservations=notes)
    except ExportRefused as error:
        return Ending(reason, refusal=str(error), exit_code=error.exit_code)
    return Ending(reason, profiles=tuple(str(path) for path in paths), notes=tuple(notes))


def _stopped(session: Session, reason: str, notes: Sequence[str] = ()) -> Ending:
    is_news = session.bench.interrupts.count < 2 and bool(session.records())
    return Ending(reason, notes=tuple(notes), exit_code=5, is_news=is_news)
