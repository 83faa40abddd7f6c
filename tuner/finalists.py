"""The end of a study: what would become a profile is measured once more, then exported.

The winner of a search is partly lucky, and who came close may only have had less luck. A fresh
process with another seed tells how much, for the chosen configs and for those that may truly score
as high. What a profile expects is the mean over both.
"""

import datetime
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage.profile import from_mapping
from storage.profile_files import write
from storage.records import TrialRecord
from storage.studies import study_facts
from tuner.aggregate import NUMBERS, ConfigSummary, hardware_of, is_copy, summarise
from tuner.data_files import data_facts, refuse_other_data
from tuner.errors import ExportRefused
from tuner.goal import objective_of
from tuner.kept_learning import KEPT, MEASURED_KEY, ORIGIN, SOURCE, TRAININGS, learnings
from tuner.outcome import Crashed, Interrupted
from tuner.probe import reach, sps_per_reach
from tuner.profile_rules import contenders
from tuner.profiles import (
    LEARNING_RATES,
    TRANSFERRED_FROM,
    Choice,
    Contest,
    ProfileContext,
    choose,
    contest_between,
    document,
)
from tuner.references import References
from tuner.score import epsilon
from tuner.session import Session
from tuner.space import HardwareConfig
from tuner.stopping import FINALISTS, expected_again_s, finalists_reserve_s
from tuner.workload import workload_facts

GPU_SOURCES = ("gpm", "nvml")
ENOUGH_REPLICATES = 2
"""Of a config that is chosen, or may truly score highest: then what is closer than ε is tied."""
MOST_CONTENDERS = 3
"""Configs beside the chosen ones that are measured again, those with the best scores."""
MAX_ATTEMPTS = 4
"""A config whose measurements are disturbed again and again is exported with what there is."""
MAX_ROUNDS = 5
"""A measurement can move the choice to another config; after so many moves it is left there."""


def choose_from(
    records: Sequence[TrialRecord], references: References, *, min_feasible: int
) -> dict[str, Choice]:
    """Choose the profiles' configs from a study's measurements.

    Raises:
        ExportRefused: quality was not measured, or too few configs are feasible or acceptable.
    """
    return choose(contest_of(records, references, min_feasible=min_feasible))


def contest_of(
    records: Sequence[TrialRecord], references: References, *, min_feasible: int
) -> Contest:
    """Return what the profiles of a study are chosen among, from its measurements.

    Raises:
        ExportRefused: quality was not measured, or too few configs are feasible or acceptable.
    """
    summaries = summarise(records)
    baseline = next((s for s in summaries if s.trial == 0), None)
    if baseline is None:
        raise ExportRefused("profiles must be compared with a baseline, but got none; resume first")
    deviation, width = baseline.quality_score_sd, tie_width(records)
    return contest_between(
        summaries,
        components=references.components,
        epsilon=references.epsilon if width is None else width,
        baseline=baseline,
        util_is_gpu=any(record.util_source in GPU_SOURCES for record in records),
        quality_tie=None if deviation is None else 2 * deviation,
        min_feasible=min_feasible,
    )


def tie_width(records: Sequence[TrialRecord]) -> float | None:
    """Return ε from the configs of a study that were measured, and trained, more than once."""
    scores: dict[tuple[float | None, ...], list[float]] = {}
    for r in records:
        if (score := objective_of(r)) is not None and not r.contaminated and not is_copy(r):
            scores.setdefault(NUMBERS(r), []).append(score)
    return epsilon(scores.values())


def hold_contest(session: Session) -> list[str]:
    """Confirm the choice, hold what came close to the best score against it, confirm it again.

    Contenders are measured with time that is left over, so long as there is enough for one and for
    a choice that it moves. Returns the reservations of `confirm`.
    """
    if reservations := confirm(session):
        return reservations
    for summary in close_behind(session):
        left = session.time_left_s()
        needed_s = 2 * expected_again_s(session.records())
        if session.bench.interrupts.count or (left is not None and left < needed_s):
            break
        _measure_again(session, summary)
    return confirm(session)


def confirm(session: Session) -> list[str]:
    """Measure each chosen config once more, until every chosen one has been; return reservations.

    Ends early, saying so, when the budget or the user's patience does.
    """
    for _ in range(MAX_ROUNDS):
        pending = unconfirmed(session)
        if not pending:
            return []
        for summary in pending:
            left = session.time_left_s()
            if session.bench.interrupts.count:
                return ["not measured again: the study was interrupted"]
            if left is not None and left < expected_again_s(session.records()):
                return ["not measured again: the budget was spent"]
            _measure_again(session, summary)
    if not unconfirmed(session):
        return []
    return [f"the choice still moved after {MAX_ROUNDS} rounds of measuring again"]


def export(session: Session, directory: Path, *, reservations: Sequence[str] = ()) -> list[Path]:
    """Write the three profiles and return their files.

    Raises:
        ExportRefused: see `contest_of`.
        OSError: the folder cannot be written.
    """
    contest = _contest(session)
    known = study_facts(session.study)
    refuse_other_data(
        known.get("data", {}),
        data_facts(session.config),
        "a study",
        "put them back before profiles are written",
    )
    paths = []
    for choice in choose(contest).values():
        data = document(choice, context=_context(session, choice, contest))
        notes = [data["notes"], *known.get("environment_notes", ())]
        if choice.summary.replicates < ENOUGH_REPLICATES:
            notes += reservations
        if session.kept is not None:
            count = _kept(session, choice.summary.config)[TRAININGS]
            notes.append(
                f"its learning is {KEPT}{session.kept.origin}: {count} "
                + ("training" if count == 1 else "trainings")
            )
        if choice.summary.replicates < ENOUGH_REPLICATES and not reservations:
            notes.append("rests on one measurement: no second one counted")
        data["notes"] = "; ".join(note for note in notes if note) or None
        paths.append(write(directory, from_mapping(data, source=f"profile {choice.name}")))
    return paths


def _contest(session: Session) -> Contest:
    if session.references is None:
        raise ExportRefused("profiles must have a calibrated study, but got none; resume it first")
    return contest_of(
        session.records(), session.references, min_feasible=session.config.min_feasible
    )


def unconfirmed(session: Session) -> list[ConfigSummary]:
    """Return the chosen configs that have only one measurement that counts.

    Raises:
        ExportRefused: see `contest_of`.
    """
    chosen = {c.summary.config: c.summary for c in choose(_contest(session)).values()}
    return _measured_once(session, list(chosen.values()))


def close_behind(session: Session) -> list[ConfigSummary]:
    """Return those that may truly score highest, rest on one measurement and are not chosen.

    Bad luck may have kept them off the front, so that every eligible config may be one. At most
    `MOST_CONTENDERS`, the best scores first; none where learning was kept from elsewhere, of which
    another measurement tells nothing.

    Raises:
        ExportRefused: see `contest_of`.
    """
    if session.kept is not None:
        return []
    contest = _contest(session)
    chosen = {choice.summary.config for choice in choose(contest).values()}
    close = [candidate.summary for candidate in contenders(contest.eligible, contest.rules)]
    others = [summary for summary in close if summary.config not in chosen]
    return _measured_once(session, others)[:MOST_CONTENDERS]


def _measured_once(session: Session, summaries: Sequence[ConfigSummary]) -> list[ConfigSummary]:
    """Return those with too few measurements that count, unless more of them came to nothing."""
    attempts: dict[int, int] = {}
    crashed: set[int] = set()
    for record in session.records():
        if record.status == Crashed.status and record.trial not in crashed:
            crashed.add(record.trial)  # a first crash is no verdict on the config
        elif record.status != Interrupted.status:
            attempts[record.trial] = attempts.get(record.trial, 0) + 1
    return [
        s
        for s in summaries
        if s.replicates < ENOUGH_REPLICATES and attempts.get(s.trial, 0) < MAX_ATTEMPTS
    ]


def num_finalists(session: Session, *, others: int) -> int:
    """Return how many configs are expected to be measured once more, after one more trial.

    Those that are chosen now and rest on one measurement, and the trial's own; those close behind
    take the time that is left over. What is kept of a budget for more than these is lost to the
    search; a choice that moves further, or a finalist that takes longer than most, may find too
    little left and rest on one measurement. `FINALISTS` where `others`, a number of workers,
    measure meanwhile, where nothing can be chosen yet, and while there is time for them and the
    longest trial: choosing takes a second among thousands of records.
    """
    left_s, records = session.time_left_s(), session.records()
    most_s = finalists_reserve_s(records, FINALISTS) + session.config.timeout
    if others or left_s is None or left_s >= most_s:
        return FINALISTS
    try:
        pending = len(unconfirmed(session))
    except ExportRefused:
        return FINALISTS
    return min(FINALISTS, pending + 1)


def _measure_again(session: Session, summary: ConfigSummary) -> None:
    if session.references is None:
        raise ValueError("a study must be calibrated before configs are measured again")
    session.say(f"finalist {summary.config}, measured once more")
    measurement = session.measure(
        summary.config,
        trial=summary.trial,
        replicate=session.next_replicate(summary.trial),
        env_steps=session.references.env_steps,
        reserve_s=0.0,
        probe=True,
    )
    session.repeat_if_disturbed(session.keep(measurement), reserve_s=0.0)


def probe_of(records: Sequence[TrialRecord], summary: ConfigSummary) -> dict[str, Any] | None:
    """Return what the device reached beside a config's measurements, as medians.

    Clean measurements count, disturbed ones where there is no clean one. `sps_per_reach` relates
    each SPS to the probe beside it, `sps` is the figure that the profile promises.
    """
    probed = [
        r for r in records if hardware_of(r) == summary.config and r.sps and reach(r.probe or {})
    ]
    counted = [r for r in probed if r.contaminated is None] or probed
    readings = [r.probe for r in counted if r.probe]
    if not readings:
        return None
    medians = {name: statistics.median(r[name] for r in readings) for name in readings[0]}
    per_reach = sps_per_reach(counted)
    return {**medians, "sps_per_reach": statistics.median(per_reach), "sps": summary.sps}


def _quality_scale(session: Session, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return what quality was judged against and how it varied over the baseline's seeds."""
    if session.references is None:
        return {}
    scores = [
        r.quality_score
        for r in records
        if r.trial == 0 and r.quality_score is not None and not is_copy(r)
    ]
    return {
        "quality_references": asdict(session.references.quality),
        "quality_sd": statistics.stdev(scores) if len(scores) > 1 else None,
    }


def _origin(session: Session, contest: Contest) -> dict[str, Any]:
    """Return what `tuner.transfer` needs to measure the front anew on another machine."""
    baseline, references = session.config.baseline, session.references
    if baseline is None or references is None:
        return {}
    return {
        "budget_env_steps": references.env_steps,
        "weights": list(references.weights.as_dict().values()),
        "baseline": list(baseline.params().values()),
        "front": [list(c.summary.config.params().values()) for c in contest.front],
        MEASURED_KEY: _learnings(session, contest),
        SOURCE: (study_facts(session.study).get("fingerprint") or {}).get("source"),
        **(
            {LEARNING_RATES: list(rates)} if len(rates := session.config.learning_rates) > 1 else {}
        ),
    }


def _learnings(session: Session, contest: Contest) -> list[Any]:
    """Return what the baseline and the front learned, as it goes into a profile."""
    records, study = session.records(), session.study.study_name
    if session.kept is not None:
        return [learning.model_dump(mode="json") for learning in session.kept.configs]
    wanted = {c.summary.config for c in contest.front} | {session.config.baseline}
    groups: dict[HardwareConfig, list[TrialRecord]] = {}
    for record in records:
        if (config := hardware_of(record)) in wanted:
            groups.setdefault(config, []).append(record)
    return learnings(
        groups, lambda record: session.table.curve(study, record.trial, record.replicate)
    )


def _kept(session: Session, chosen: HardwareConfig) -> dict[str, Any]:
    """Return what a profile says of learning that was kept, nothing where it was measured."""
    learning = None if session.kept is None else session.kept.learning_of(chosen)
    if session.kept is None or learning is None:
        return {}
    return {ORIGIN: session.kept.origin, TRAININGS: len(learning.quality_score)}


def _context(session: Session, choice: Choice, contest: Contest) -> ProfileContext:
    chosen, facts = choice.summary.config, study_facts(session.study)
    records, study = session.records(), session.study.study_name
    config = session.config
    if chosen.learning_rate is not None:  # of several: each profile's workload has its own
        config = config.model_copy(update={"learning_rate": chosen.learning_rate})
    return ProfileContext(
        hardware=facts["hardware"],
        versions=facts["versions"],
        workload=workload_facts(config, facts.get("environment", {}), facts.get("data", {})),
        measured={
            "study": study,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "trials": len([r for r in records if r.replicate == 0 and r.status == "success"]),
            "blocks": len(session.table.curve(study, choice.summary.trial)),
            "probe": probe_of(records, choice.summary),
            **_quality_scale(session, records),
            **_origin(session, contest),
            **_kept(session, chosen),
            **{name: facts[name] for name in (TRANSFERRED_FROM,) if name in facts},
        },
        device=facts["hardware"]["kind"],
        learning_rate=config.learning_rate_for(chosen) if config.trainer is None else None,
        lr_scaling=config.lr_scaling,
        phase=config.phase,
        util_source=next((r.util_source for r in records if r.util_source), None),
        mem_fraction=facts["hardware"].get("mem_fraction"),
    )
