"""What a study tells of itself while it runs, to whoever looks on.

Apart from `say` because a view needs values and not lines; apart from any view because a study runs
alike with and without one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from storage.records import DeviceSample, TrialRecord
from tuner.interrupts import warn_at_once
from tuner.protocol import Event
from tuner.references import References
from tuner.space import HardwareConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A command has a study at hand, on a device of a kind (see `DeviceInfo`)."""

    study: str
    device: str
    kind: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question was put to device or environment: the `kind` of a `tuner.protocol.Question`."""

    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """A measurement begins; `samples` returns what its monitor has seen so far, from any thread."""

    trial: int
    replicate: int
    config: HardwareConfig
    env_steps: int
    samples: Callable[[], Sequence[DeviceSample]]


@dataclass(frozen=True, slots=True)
class Heard:
    """The process of the present measurement said something."""

    event: Event


@dataclass(frozen=True, slots=True)
class Kept:
    """A measurement was judged and written down."""

    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """Where a search stands before its next trial, and what could end it.

    The fields are the arguments of `stopping.reason_to_stop`; `records` are of all workers.
    """

    records: Sequence[TrialRecord]
    references: References
    trials: int | None
    untried: int
    time_left_s: float | None
    running: int


Notice: TypeAlias = Opened | Asked | Began | Heard | Kept | Stood


class Observer:
    """Looks away: what a study runs with where nobody looks on."""

    owns_terminal = False
    """Whether nobody else may write to the terminal: then workers say their lines through `say`."""

    def see(self, notice: Notice) -> None:
        """Take what a study tells; called between measurements and at each event, so be quick."""

    def warn(self, text: str) -> None:
        """Show what a signal does; called by its handler, which may stand anywhere."""
        warn_at_once(text)


NOBODY = Observer()
