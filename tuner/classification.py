"""How a trial ended that nobody stopped: from its events, its exit status and its last words."""

import signal
from collections.abc import Sequence

from tuner.outcome import Completed, Crashed, Outcome, OutOfMemory, PredictedOutOfMemory
from tuner.protocol import Event

_PHASES = {
    "ready": "starting",
    "started": "compiling",
    "compiled": "warming up",
    "warm": "training",
    "block": "training",
    "fitted": "training",
    "trained": "training",
    "measured": "evaluating",
    "done": "ending",
}
_OOM_TEXTS = (
    "RESOURCE_EXHAUSTED",
    "Out of memory",
    "bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "failed to map segment",  # of a shared library that is loaded late
)
_THREAD_TEXTS = (
    "can't start new thread",
    "pthread_create",
    "Resource temporarily unavailable",
)
_TOO_MANY = "; it may have met a limit on processes and threads (ulimit -u, or the container's)"


def phase_of(events: Sequence[Event]) -> str:
    """Return what a trial was doing after these events."""
    names = [event.name for event in events if event.name in _PHASES]
    return _PHASES[names[-1]] if names else "starting"


def classify(
    events: Sequence[Event], returncode: int, log_tail: str, *, lived_on: bool = False
) -> Outcome:
    """Say how a trial ended.

    Args:
        events: what it sent.
        returncode: its exit status, or the negative number of the signal that ended it.
        log_tail: the end of its log.
        lived_on: it sent nothing any more but had to be killed.
    """
    last = events[-1] if events else None
    phase = phase_of(events)
    if last is not None and last.name == "done":
        return Completed()
    if last is not None and last.name == "refused":
        predicted, limit = last.data["predicted_bytes"] / 1e9, last.data["limit_bytes"] / 1e9
        return PredictedOutOfMemory(
            f"the compiled program needs {predicted:.4g} GB, but the gate allows {limit:.4g} GB"
        )
    if last is not None and last.name in ("error", "rejected"):
        text = f"{last.data['type']} while {phase}: {last.data['text']}"
        return OutOfMemory(text) if _has(text, _OOM_TEXTS) else Crashed(text + _hint(text))
    if lived_on:
        return Crashed(f"the process closed its pipe while {phase} and lived on; it was killed")
    if returncode >= 0:
        ended = f"the process ended with status {returncode} while {phase}"
        return Crashed(ended + _hint(log_tail))
    name = signal_name(-returncode)
    if _has(log_tail, _OOM_TEXTS):
        return OutOfMemory(f"the process ended by {name} while {phase}, out of memory by its log")
    hint = "; the host may be out of memory" if -returncode == signal.SIGKILL else _hint(log_tail)
    return Crashed(f"the process ended by {name} while {phase}{hint}")


def signal_name(number: int) -> str:
    """Return a signal's name, `signal N` for most real-time signals, which have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _has(text: str, marks: Sequence[str]) -> bool:
    return any(mark in text for mark in marks)


def _hint(text: str) -> str:
    return _TOO_MANY if _has(text, _THREAD_TEXTS) else ""
