"""The hardware of a study: opening its bench, saying what it is, refusing another.

Apart from the study because a profile is held to the same hardware as the study it came from.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.bench import Bench, Say
from tuner.config import StudyConfig
from tuner.devices.detect import open_device
from tuner.errors import Refused, TunerError
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.observer import NOBODY, Observer
from tuner.peaks import key_of, path_beside, reachable
from tuner.protocol import PeaksRequest, ProbeRequest

IDENTITY = ("kind", "platform", "name", "cores")
"""Facts that must be equal for measurements to be compared."""


MOST_NAME_CHARACTERS = 40
"""Of a device's name in the name of its group."""


def open_bench(
    config: StudyConfig,
    logs: Path,
    interrupts: Interrupts,
    say: Say,
    *,
    util_source: str | None = None,
    log_name: str = "calibration.log",
    observer: Observer = NOBODY,
) -> Bench:
    """Return a bench on this machine's device, to be used as a context manager.

    Args:
        config: settings of the workload and of where things are kept.
        logs: folder of the trial processes' logs.
        interrupts: what the user asks meanwhile.
        say: tells the user a line.
        util_source: what utilisation must be read from, None for the best there is.
        log_name: of the process that answers questions; each worker has its own.
        observer: sees what is asked and measured.
    """
    return Bench(
        open_device(util_source=util_source),
        Launcher(logs, preload=config.env),
        interrupts,
        timeout_s=config.timeout,
        say=say,
        log_name=log_name,
        observer=observer,
    )


def probe_device(bench: Bench) -> dict[str, Any]:
    """Ask jax what its device is, and watch that one."""
    probed = bench.ask(ProbeRequest()).data
    bench.watch_what_jax_uses(probed["platform"], probed["device_kind"])
    return probed


def learn_peaks(bench: Bench, config: StudyConfig, probed: Mapping[str, Any]) -> None:
    """Tell the bench what its device reaches, measured unless this machine's file knows it.

    A study can do without: what bounds its trials is then not named.
    """
    cache_dir = config.compilation_cache().resolve()
    key = key_of(bench.device.info(), jax_version=probed["versions"]["jax"])
    request = PeaksRequest(cache_dir=str(cache_dir))
    try:
        bench.peaks = reachable(bench.ask, path_beside(cache_dir), key, request=request)
    except TunerError as error:
        bench.say(f"what bounds a trial will not be named: {error}")


def device_kind(probed: Mapping[str, Any]) -> str:
    """Return `cpu` or `gpu`."""
    return "cpu" if probed["platform"] == "cpu" else "gpu"


def hardware_facts(bench: Bench, probed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the device is, by the driver's word and by jax's."""
    info = bench.device.info()
    memory = info.memory_bytes
    limit = probed["bytes_limit"]
    return {
        "kind": device_kind(probed),
        "platform": probed["platform"],
        "name": info.name,
        "memory_gb": None if memory is None else memory / 1e9,
        "uuid": info.uuid,
        "driver": info.driver,
        "cpu": info.cpu,
        "cores": info.cores,
        "mem_fraction": round(limit / memory, 4) if limit and memory else None,
    }


APART = "start another study here, or keep both apart with --allow-mixed"
"""What to do where a study is to go on with another device."""


class OtherHardware(Refused):
    """This is another hardware than a study's; `here` is what it is."""

    def __init__(self, message: str, here: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.here = here


def refuse_other_hardware(
    stored: Mapping[str, Any], here: Mapping[str, Any], what: str, *, remedy: str
) -> None:
    """Require this to be the hardware that `what` (a study, a profile) was measured on.

    `remedy` is what to do on another device; on too many or too few cores one is always there.

    Raises:
        OtherHardware: the first fact that differs is named.
    """
    key = differing_fact(stored, here)
    if key is not None:
        raise OtherHardware(
            f"{what} must stay on its hardware, whose {key} is {stored.get(key)!r}, but got "
            f"{here[key]!r}; {_cores(stored) if key == 'cores' else remedy}",
            here,
        )


def differing_fact(stored: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Return the first fact in which two devices differ so that they cannot be compared."""
    for key in IDENTITY:
        if stored.get(key) != here[key]:
            return key
    sizes = stored.get("memory_gb"), here["memory_gb"]
    # A host's limit may move a little; cards of one name differ by gigabytes.
    if here["kind"] == "gpu" and None not in sizes and abs(sizes[0] - sizes[1]) > 1:
        return "memory_gb"
    return None


def group_name(here: Mapping[str, Any]) -> str:
    """Return the name of the group of a study that is measured on this hardware."""
    identity = [here[key] for key in IDENTITY]
    if here["kind"] == "gpu" and here["memory_gb"] is not None:
        identity.append(round(here["memory_gb"]))
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:6]
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in here["name"]).split()
    return f"{'-'.join(words)[:MOST_NAME_CHARACTERS].strip('-') or here['kind']}-{digest}"


def _cores(stored: Mapping[str, Any]) -> str:
    last = max(0, int(stored["cores"]) - 1)
    return f"pin it to as many, as with `taskset -c 0-{last}`, or use as many workers"
