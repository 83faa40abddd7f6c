"""Signs of life of a running trial: what one holds, and which tell that its process is gone.

Apart from `storage.heartbeat`, which writes and watches them, because whoever merely looks at a
study (`tuner status`) needs neither Optuna nor a thread.
"""

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

BEAT_ATTR = "tuner:beat"
"""System attribute of a running trial: who measures it, and since when."""

HEARTBEAT_S = 10.0
CLOCKS_AGREE_S = 60.0
"""How far the clocks of two machines may be apart where no watching is possible."""
LONG_SILENCE_S = CLOCKS_AGREE_S + 2 * HEARTBEAT_S

Beat = Mapping[str, Any]


@cache
def machine() -> str | None:
    """Return what two processes have in common that see each other's process ids.

    That is one boot of one kernel and one process namespace: containers share the former only.
    `None` where the system does not tell (it is not Linux): nobody is on the same machine then.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def new_beat(worker: str, n: int) -> dict[str, Any]:
    """Return the `n`-th sign of life of this process, plain JSON."""
    pid = os.getpid()
    return {
        "worker": worker,
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": pid,
        "pid_started": start_ticks(pid),
        "n": n,
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; no clock that is set changes it.

    `None` where it has ended (a zombie has), or the system does not tell.
    """
    try:
        # The name in parentheses may hold anything; see proc(5) for the fields after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_process_gone(beat: Beat) -> bool:
    """Whether the process of a beat was one of this machine and has ended."""
    if beat["machine"] is None or beat["machine"] != machine():
        return False
    try:
        os.kill(beat["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's: it is there, though /proc may be hidden from us
    if not Path(f"/proc/{beat['pid']}").exists():
        return False
    return bool(start_ticks(beat["pid"]) != beat["pid_started"])


def age_s(beat: Beat, now: datetime) -> float:
    """Return the seconds since a beat, by the clocks of two machines."""
    return (now - datetime.fromisoformat(beat["utc"])).total_seconds()


def is_surely_dead(beat: Beat | None, started: datetime | None, now: datetime) -> bool:
    """Whether a running trial is dead, as far as one look can tell.

    One of this machine is when its process is gone, whatever the clock says; one of another when it
    has been silent for `LONG_SILENCE_S`, where clocks are assumed to agree to a minute.

    Args:
        beat: Its last, `None` if it had none yet.
        started: When it started.
        now: The time; both with their time zone.
    """
    if beat is None:
        return started is not None and (now - started).total_seconds() > LONG_SILENCE_S
    if beat["machine"] is not None and beat["machine"] == machine():
        return is_process_gone(beat)
    return age_s(beat, now) > LONG_SILENCE_S
