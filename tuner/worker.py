"""`tuner worker`: runs trials of a study that another process has started, here or elsewhere.

Apart from the study's own commands because a worker holds no lock of the study, calibrates nothing
and exports nothing: it needs the database and its own device, and none of the leader's files.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from storage.errors import AlreadyLed, StorageUnavailable, StudyExists, StudyNotFound
from tuner.bench import NotWanted, Say
from tuner.closing import heartbeat_of
from tuner.config import GROUP_MARK, StudyConfig
from tuner.data_files import data_facts, refuse_other_data
from tuner.errors import NotBegun, TunerError, UsageError
from tuner.fingerprint import fingerprint, refuse_other_code
from tuner.hardware import (
    APART,
    OtherHardware,
    hardware_facts,
    learn_peaks,
    open_bench,
    probe_device,
    refuse_other_hardware,
)
from tuner.interrupts import Interrupts, LeadersOrders, own_slot
from tuner.lookup import facts_of, find
from tuner.opening import open_session, open_to_continue
from tuner.placement import Place, places_for
from tuner.references import References
from tuner.settings import load_config
from tuner.study import begin, group_here, util_source_of
from tuner.trials import CLOSING, INTERRUPTED, search
from tuner.workload import require_named_code

POLL_S = 2.0
"""Time between two looks at a study that is being calibrated."""


def work(
    name: str,
    flags: Mapping[str, object],
    *,
    wait_s: float,
    allow_mixed: bool = False,
    say: Say,
) -> str:
    """Join a study and run its trials until there is a reason to stop; return it.

    Args:
        name: of the study.
        flags: settings given to this worker; those of workload and space must be the study's own.
        wait_s: how long a study may still be calibrated.
        allow_mixed: whether other hardware begins or joins its own group, see `study.group_here`.
        say: tells the user a line.

    Raises:
        Refused: this machine has another hardware, code or workload than the study.
        StudyNotFound: there was no such study within `wait_s`.
        TunerError: it was not calibrated in time.
        UsageError: it was stopped before it had its baseline.
    """
    try:
        return _join(name, flags, wait_s=wait_s, say=say)
    except OtherHardware as error:
        if not allow_mixed or GROUP_MARK in name:
            raise
        config, group, exists, facts = group_here(name, _joining(flags), error.here)
    say(f"this is other hardware than that of {name}: measured apart, as {group}")
    if not exists:
        # Another of this hardware may begin it at this moment.
        with _place(flags).taken(), suppress(StudyExists, AlreadyLed):
            ending = begin(config, group, say=say, facts=facts)
            if ending.refusal is not None:
                say(f"{group}: {ending.refusal}")
            return ending.reason
    return _join(group, flags, wait_s=wait_s, say=say)


def _join(name: str, flags: Mapping[str, object], *, wait_s: float, say: Say) -> str:
    """Join a study, or a group of one, whose hardware this must be."""
    started, slot, place = time.monotonic(), own_slot(), _place(flags)
    with Interrupts() if slot is None else LeadersOrders() as interrupts:
        found = _once_calibrated(name, _joining(flags), interrupts, wait_s=wait_s, say=say)
        if found is None:
            return INTERRUPTED
        config, facts = found
        require_named_code(config, flags, f"the study {name!r}")
        over = _why_over(facts)
        if over is not None:
            return f"the search has ended already: {over}; `tuner resume {name}` can go on with it"
        data = data_facts(config)
        refuse_other_data(facts.get("data", {}), data, "a study", "give --data its file")
        with place.taken(), suppress(NotWanted):
            bench = open_bench(
                config,
                config.folder(name) / "logs",
                interrupts,
                say,
                util_source=util_source_of(config, name, facts),
                log_name=f"worker-{os.getpid() if slot is None else slot}.log",
            )
            bench.is_wanted = lambda: not _is_over_now(config, name)
            with bench:
                probed = probe_device(bench)
                here = fingerprint(config, probed["versions"], data)
                refuse_other_code(facts.get("fingerprint"), here, name)
                refuse_other_hardware(
                    facts["hardware"], hardware_facts(bench, probed), "a study", remedy=APART
                )
                learn_peaks(bench, config, probed)
                database, study = open_to_continue(
                    config, name, slot=slot or os.getpid(), say=say, interrupts=interrupts
                )
                worker = f"{socket.gethostname()}-{os.getpid()}"
                with open_session(
                    config, database, study, bench, say=say, started=started, worker=worker
                ) as session:
                    if not study.get_trials(deepcopy=False):  # its first trial is the baseline
                        raise UsageError(
                            f"a study must have its baseline before a worker joins it, but "
                            f"{name!r} was stopped before that; go on with `tuner resume {name}`"
                        )
                    session.references = References.from_json(facts["references"])
                    session.use_measured_baseline()
                    session.save_leftovers()
                    with heartbeat_of(session) as heartbeat:
                        return search(session, heartbeat)
        return "the search has ended while the device was waited for"


def _why_over(facts: Mapping[str, Any]) -> str | None:
    """Return why the search of a study has ended, by its facts; None if it goes on."""
    return (facts.get("ended") or {}).get("reason") or facts.get(CLOSING)


def _is_over_now(config: StudyConfig, name: str) -> bool:
    """Whether a search has ended; one whose database is away may go on."""
    try:
        return _why_over(facts_of(config.storage_url(name), name)) is not None
    except StorageUnavailable:
        return False


def _joining(flags: Mapping[str, object]) -> dict[str, object]:
    """Return the flags that change a study's settings for this worker, which has a place itself."""
    return {key: value for key, value in flags.items() if key not in ("devices", "workers")}


def _place(flags: Mapping[str, object]) -> Place:
    """Return where this worker measures.

    Raises:
        UsageError: it is to measure in several places at once, or where there is no device.
    """
    wanted = load_config(None, {key: flags.get(key) for key in ("devices", "workers")})
    found = places_for(wanted)
    if len(found) > 1:
        raise UsageError(
            f"a worker must measure on one device, but got {len(found)}; start a `tuner worker` "
            "for each"
        )
    return found[0]


def _once_calibrated(
    name: str,
    flags: Mapping[str, object],
    interrupts: Interrupts,
    *,
    wait_s: float,
    say: Say,
) -> tuple[StudyConfig, dict[str, Any]] | None:
    """Return a study's settings and facts once it has its references, None if interrupted.

    A scheduler may start a worker before the study: unless a leader did, it waits for that, too.
    """
    until, is_told = time.monotonic() + wait_s, False
    while interrupts.count == 0:
        is_over = time.monotonic() > until
        missing = ""
        try:
            config, facts = find(name, flags, say=say, is_stopped=lambda: interrupts.count > 0)
            if "references" in facts:
                return config, facts
        except (StudyNotFound, NotBegun):
            if is_over or own_slot() is not None:
                raise
            missing = "begun and "
        if is_over:
            raise TunerError(
                f"a study must be calibrated before a worker joins it, but {name!r} was not within "
                f"{wait_s:g} s; see whether `tuner start` is still at work, or give --wait"
            )
        if not is_told:
            say(f"waiting for {name} to be {missing}calibrated, for up to {wait_s:g} s")
            is_told = True
        time.sleep(min(POLL_S, max(0.0, until - time.monotonic()) + 0.01))
    return None
