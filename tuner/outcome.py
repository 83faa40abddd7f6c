"""How a trial ended, as a value.

One class for each way, so that whoever handles an outcome must say what it does with every one.
`reason` is a sentence for the user: what happened and, where there is one, the remedy.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Completed:
    """The trial trained for its whole budget and was evaluated."""

    status: ClassVar[str] = "success"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PredictedOutOfMemory:
    """The compiled program needs more memory than the gate allows; the device was not touched."""

    status: ClassVar[str] = "predicted_oom"
    reason: str


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The device, or the host, refused an allocation."""

    status: ClassVar[str] = "oom"
    reason: str


@dataclass(frozen=True, slots=True)
class Diverged:
    """Losses or parameters stopped being finite, or the policy moved too far at every update."""

    status: ClassVar[str] = "diverged"
    reason: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The trial was still running at its deadline and was killed."""

    status: ClassVar[str] = "timeout"
    reason: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process ended by a signal, or with an exception that is none of the above."""

    status: ClassVar[str] = "crashed"
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """Optuna's pruner stopped the trial at a milestone."""

    status: ClassVar[str] = "pruned"
    reason: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user or the scheduler stopped the study while the trial was running."""

    status: ClassVar[str] = "interrupted"
    reason: str


Outcome: TypeAlias = (
    Completed
    | PredictedOutOfMemory
    | OutOfMemory
    | Diverged
    | TimedOut
    | Crashed
    | Pruned
    | Interrupted
)
