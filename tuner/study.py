"""Studies as a user names them: create, find, resume, refuse.

What may be resumed is decided here, before anything runs: a study's numbers can be compared with
each other only while space, workload and hardware stay what they were. The work itself is in
`tuner.run`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from storage import overview
from storage.atomic import atomic_write_text
from storage.database import hide_password, is_proxy, sqlite_path
from storage.errors import StudyExists
from storage.leadership import only_leader
from storage.patience import once_it_answers
from storage.profile_files import read
from storage.studies import (
    create_study,
    load_study,
    new_study_id,
    open_storage,
    optuna_faults_of,
    set_study_fact,
    study_facts,
)
from storage.telemetry import Telemetry
from tuner import warm_start
from tuner.bench import Say
from tuner.config import (
    GROUP_MARK,
    MeasureSettings,
    PlaceSettings,
    StopSettings,
    StudyConfig,
)
from tuner.crew import crew_beside
from tuner.data_files import data_facts, refuse_other_data
from tuner.errors import ExportRefused, Refused, UsageError
from tuner.finalists import confirm, export, unconfirmed
from tuner.fingerprint import fingerprint, refuse_other_code
from tuner.hardware import (
    APART,
    OtherHardware,
    device_kind,
    group_name,
    hardware_facts,
    learn_peaks,
    open_bench,
    probe_device,
    refuse_other_hardware,
)
from tuner.interrupts import Interrupts
from tuner.kept_learning import FACT as KEPT_LEARNING
from tuner.lookup import find, groups_of, require_name
from tuner.observer import NOBODY, Observer
from tuner.opening import open_session, open_to_continue
from tuner.placement import Place, places_for, with_own_share
from tuner.profiles import TRANSFERRED_FROM
from tuner.references import References
from tuner.run import Ending, run
from tuner.search.pruner import make_pruner
from tuner.search.sampler import make_sampler
from tuner.settings import load_config

optuna.logging.set_verbosity(optuna.logging.ERROR)  # progress is told by `say`

KEPT_BY_RESUME = {*StopSettings.model_fields, "min_feasible"} - {"budget"}
"""Settings that `resume` may change for good; a budget is that of a command."""


def start(
    config: StudyConfig,
    name: str,
    *,
    say: Say,
    facts: Mapping[str, Any] | None = None,
    observer: Observer = NOBODY,
) -> Ending:
    """Create a study and run it to its end, with an observer looking on.

    `facts` are stored on it as they are.

    Raises:
        TunerError: see `tuner.errors`.
        StorageError: see `storage.errors`; among them `StudyExists`.
    """
    require_name(name)
    return begin(config, name, say=say, facts=facts, observer=observer)


def begin(
    config: StudyConfig,
    name: str,
    *,
    say: Say,
    facts: Mapping[str, Any] | None = None,
    observer: Observer = NOBODY,
) -> Ending:
    """Create a study, or the group of one for other hardware, and run it to its end."""
    started = time.monotonic()
    url = config.storage_url(name)
    require_database_itself(url)  # a wrong address is refused before the study's folder is made
    profiles = [read(path) for path in config.warm_start or ()]
    data, spots = data_facts(config), places_for(config)
    with (
        _hold(config, name) as make_sure,
        Interrupts(warn=observer.warn) as interrupts,
        spots[0].taken(),
    ):
        _refuse_existing(url, name)
        logs = config.folder(name) / "logs"
        with open_bench(config, logs, interrupts, say, observer=observer) as bench:
            probed = probe_device(bench)
            config = config.resolved(device_kind(probed))
            learn_peaks(bench, config, probed)
            config.require_configs()
            starts = warm_start.starts_in(profiles, config.space(), config.lr_scale)
            sampler = make_sampler(config.sampler, config.space(), seed=config.seed)
            database, pruner = open_storage(url, create=True), make_pruner(config.pruner)
            to_keep = {
                **(facts or {}),
                "hardware": hardware_facts(bench, probed),
                "util_source": bench.device.util_source,
                "versions": probed["versions"],
                "data": data,
                "fingerprint": fingerprint(config, probed["versions"], data),
                warm_start.FACT: warm_start.as_fact(starts),
                "id": new_study_id(),
                "config": config.as_data(),  # the last: with it the study has begun
            }
            with optuna_faults_of(url):
                study = create_study(database, name, sampler=sampler, pruner=pruner)
                for fact, value in to_keep.items():
                    set_study_fact(study, fact, value)
            warm_start.tell(starts, say)
            written = config.folder(name) / "config.yaml"
            atomic_write_text(written, config.as_yaml())
            try:
                shared = with_own_share(config)  # not stored: a resume may have other workers
                with open_session(shared, database, study, bench, say=say, started=started) as held:
                    held.make_sure_of_lead = make_sure
                    return run(held, crew_beside(held, spots[1:]))
            except UsageError:
                # Nothing was measured that counts: with another setting the name is to be had.
                if "references" not in study_facts(study):
                    written.unlink()
                    optuna.delete_study(study_name=name, storage=database)
                raise


def resume(
    name: str,
    flags: Mapping[str, object],
    *,
    allow_mixed: bool = False,
    say: Say,
    observer: Observer = NOBODY,
) -> Ending:
    """Go on with a study where it stands.

    A study that has ended by itself stays as it is, unless a flag says when to stop instead, or
    changes another setting that may change.

    Args:
        name: of the study.
        flags: settings given anew; those of workload and space must be the study's own.
        allow_mixed: whether other hardware goes on with its own group instead, see `group_here`.
        say: tells the user a line.
        observer: looks on.

    Raises:
        Refused: another space, workload or hardware than the study's.
        StudyNotFound: there is no such study.
    """
    try:
        return _resume(name, flags, say=say, observer=observer)
    except OtherHardware as error:
        if not allow_mixed or GROUP_MARK in name:
            raise
        config, group, exists, facts = group_here(name, flags, error.here)
    say(f"this is other hardware than that of {name}: measured apart, as {group}")
    if exists:
        return _resume(group, flags, say=say, observer=observer)
    return begin(config, group, say=say, facts=facts, observer=observer)


def group_here(
    name: str, flags: Mapping[str, object], here: Mapping[str, Any]
) -> tuple[StudyConfig, str, bool, dict[str, Any]]:
    """Return settings and name of a study's group for this hardware, if it exists, and its facts.

    A group is a study of its own in the same database, of the same workload, code and space, with
    its own baseline, references and profiles: measurements of two devices cannot be compared. What
    its study keeps of an earlier one it keeps as well.
    """
    config, facts = find(name, flags)
    group = f"{name}{GROUP_MARK}{group_name(here)}"
    exists = group in groups_of(config.storage_url(name), name)
    # A profile's file may be on another machine, and the group was not asked for by it.
    changed = {"workers": 1, "devices": None, "warm_start": None}
    kept = {fact: facts[fact] for fact in (KEPT_LEARNING, TRANSFERRED_FROM) if fact in facts}
    return config.model_copy(update=changed), group, exists, kept


def _resume(name: str, flags: Mapping[str, object], *, say: Say, observer: Observer) -> Ending:
    started = time.monotonic()
    config, facts = find(name, flags, say=say)
    require_database_itself(config.storage_url(name))
    is_to_go_on = any(flags.get(key) is not None for key in StopSettings.model_fields)
    if facts.get("ended") is not None and not is_to_go_on and not _is_changed(config, facts):
        return Ending(**{**facts["ended"], "is_news": False})
    data, spots = data_facts(config), places_for(config)
    refuse_other_data(facts.get("data", {}), data, "a study", "start another study for these")
    with (
        _hold(
            config, name, patiently=partial(once_it_answers, config.storage_url(name), say=say)
        ) as make_sure,
        Interrupts(warn=observer.warn) as interrupts,
        spots[0].taken(),
        open_bench(
            config,
            config.folder(name) / "logs",
            interrupts,
            say,
            util_source=util_source_of(config, name, facts),
            observer=observer,
        ) as bench,
    ):
        probed = probe_device(bench)
        here = fingerprint(config, probed["versions"], data)
        refuse_other_code(facts.get("fingerprint"), here, name)
        refuse_other_hardware(
            facts["hardware"], hardware_facts(bench, probed), "a study", remedy=APART
        )
        learn_peaks(bench, config, probed)
        database, study = open_to_continue(config, name, say=say, interrupts=interrupts)
        # Who reads, exports or resumes the study later is to judge and to end it alike.
        now = {k: v for k, v in config.as_data().items() if k in KEPT_BY_RESUME}
        if any(facts["config"].get(k) != v for k, v in now.items()):
            set_study_fact(study, "config", {**facts["config"], **now})
        config = with_own_share(config)
        with open_session(config, database, study, bench, say=say, started=started) as session:
            session.make_sure_of_lead = make_sure
            return run(session, crew_beside(session, spots[1:]))


def _is_changed(config: StudyConfig, facts: Mapping[str, Any]) -> bool:
    """Whether a flag gave a setting that may change another value; where files lie is none."""
    stored = load_config(facts["config"], {})
    names = {*MeasureSettings.model_fields, *PlaceSettings.model_fields}
    names -= {"runs_dir", "storage", "cache_dir"}
    return any(getattr(config, name) != getattr(stored, name) for name in names)


def export_profiles(
    name: str, places: Mapping[str, object], *, directory: Path | None, say: Say
) -> list[Path]:
    """Write a study's profiles again, measuring chosen configs once more where none has.

    Raises:
        ExportRefused: quality was not measured, or too few configs are feasible.
        Refused: something must be measured, and this is other hardware than the study's.
    """
    started = time.monotonic()
    config, facts = find(name, places)
    try:
        place = places_for(config)[0]
    except UsageError:
        place = Place()  # of another machine: what needs no measuring can be written here too
    with _hold(config, name), Interrupts() as interrupts, place.taken():
        logs, source = config.folder(name) / "logs", util_source_of(config, name, facts)
        bench = open_bench(config, logs, interrupts, say, util_source=source)
        database = open_storage(config.storage_url(name), create=False)
        study = load_study(database, name)
        with open_session(config, database, study, bench, say=say, started=started) as session:
            session.references = _stored_references(facts, name)
            session.save_leftovers()
            session.adopt()
            session.use_measured_baseline()
            notes: list[str] = []
            if unconfirmed(session):
                with bench:
                    probed = probe_device(bench)
                    here = hardware_facts(bench, probed)
                    remedy = "export it on the machine that measured it"
                    refuse_other_hardware(facts["hardware"], here, "a study", remedy=remedy)
                    learn_peaks(bench, config, probed)
                    notes = confirm(session)
            if interrupts.count:
                raise KeyboardInterrupt
            return export(session, directory or config.profiles_folder(name), reservations=notes)


def require_database_itself(url: str) -> None:
    """Require an address that leads to our tables: who leads a study measures and writes there.

    Raises:
        UsageError: it is that of a proxy.
        InvalidStorageUrl: it is no address of a database.
    """
    if is_proxy(url):
        raise UsageError(
            f"--storage must be the database itself to start or resume a study, but got the proxy "
            f"{hide_password(url)}; use `tuner worker` behind a proxy"
        )


@contextmanager
def _hold(
    config: StudyConfig, name: str, **patience: Callable[[Callable[[], None]], None]
) -> Iterator[Callable[[], None]]:
    """Be the study's one leader; the locks die with this process, however it ends.

    `patience` and what is yielded are those of `storage.leadership.only_leader`.
    """
    folder = config.folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise Refused(
            f"a study must have one process at a time, but {name!r} is running in another; wait "
            "for it or stop it"
        ) from None
    except OSError as error:
        raise UsageError(
            f"--runs-dir must be a folder that can be written, but got {config.runs_dir}: "
            f"{error.strerror or error}; choose another"
        ) from None
    with lock, only_leader(config.storage_url(name), name, **patience) as make_sure:
        yield make_sure


def _refuse_existing(url: str, name: str) -> None:
    """Refuse a name that is taken; a study that was killed before it began gives way."""
    path = sqlite_path(url)
    if (path is not None and not path.exists()) or name not in overview.study_names(url):
        return
    if "config" in overview.study_facts(url, name):
        raise StudyExists(
            f"start must have a NAME that is new, but got {name!r}, which exists; continue it "
            f"with `tuner resume {name}` or choose another name"
        )
    optuna.delete_study(study_name=name, storage=open_storage(url, create=False))


def util_source_of(config: StudyConfig, name: str, facts: Mapping[str, Any]) -> str | None:
    """Return what a study's utilisation was first read from, None before its first measurement."""
    if facts.get("util_source") is not None:
        return str(facts["util_source"])
    with Telemetry(config.storage_url(name), create=False) as telemetry:
        records = telemetry.records(name)
    return next((record.util_source for record in records if record.util_source), None)


def _stored_references(facts: Mapping[str, Any], name: str) -> References:
    if "references" not in facts:
        raise ExportRefused(
            f"a study must be calibrated before it is exported, but {name!r} is not; go on with "
            f"`tuner resume {name}`"
        )
    return References.from_json(facts["references"])
