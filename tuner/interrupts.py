"""Ctrl-C, SIGTERM and the end of the terminal: asked once, twice, three times.

Once: the running trial ends after its present block and everything is saved. Twice: the trial is
killed and everything is saved. Three times: this process ends at once; its children notice.

What this process was started to ignore it goes on to ignore: Ctrl-C behind a script's `&`, the end
of the terminal under `nohup`.

A worker that a leader has started hears these from the leader alone: signals may reach a whole
process group or control group, and would count twice.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

EXIT_INTERRUPTED = 5
SLOT_VARIABLE = "TUNER_SLOT"
"""Set by a leader for the workers that it starts: the worker's number."""
ORDER = b"stop\n"
"""What a leader writes to a worker's standard input for each request to stop."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def warn_at_once(text: str) -> None:
    """Write a line to stderr from a signal's handler, past buffers that it may have interrupted."""
    with contextlib.suppress(OSError):  # the terminal may be what has gone
        os.write(2, f"\n{text}\n".encode())


class Interrupts:
    """Counts requests to stop while it is entered; a third one ends the process.

    Signals reach the main thread alone: entered in another, it counts none.
    """

    def __init__(
        self,
        first: str = "the running trial ends after its block",
        second: str = "the running trial is killed",
        *,
        warn: Callable[[str], None] = warn_at_once,
    ) -> None:
        """Say what the first and the second request do, in words for the user.

        `warn` shows them, from within the signal's handler.
        """
        self.count = 0
        self._warn = warn
        self._words = (first, second)
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self  # signals reach the main thread alone
        self._previous = {
            number: signal.signal(number, self._note)
            for number in _SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count()
        self._warn(f"interrupted: {self._words[self.count - 1]}")

    def _count(self) -> None:
        self.count += 1
        if self.count >= 3:
            os._exit(EXIT_INTERRUPTED)


class LeadersOrders(Interrupts):
    """Counts the leader's orders; ends the process at once when the leader is gone."""

    def __enter__(self) -> "LeadersOrders":
        super().__enter__()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Do nothing: the leader hears the same and says what it means."""

    def _listen(self) -> None:
        with open(0, "rb", buffering=0, closefd=False) as orders:
            for _ in orders:
                self._count()
        os._exit(EXIT_INTERRUPTED)


def own_slot() -> int | None:
    """Return the number of this worker, None for a process that no leader has started."""
    slot = os.environ.get(SLOT_VARIABLE)
    return int(slot) if slot else None
