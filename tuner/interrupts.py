"""Ctrl-C and SIGTERM: asked once, twice, three times.

Once: the running trial ends after its present block and everything is saved. Twice: the trial is
killed and everything is saved. Three times: this process ends at once; its children notice.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_INTERRUPTED = 5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OF_A_STUDY = ("the running trial ends after its block", "the running trial is killed")


class Interrupts:
    """Counts requests to stop while it is entered; a third one ends the process."""

    def __init__(self, words: tuple[str, str] = OF_A_STUDY) -> None:
        """Say `words[0]` at the first request and `words[1]` at the second."""
        self.count = 0
        self._words = words
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
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
        self.count += 1
        if self.count >= 3:
            os._exit(EXIT_INTERRUPTED)
        line = f"\ninterrupted: {self._words[self.count - 1]}\n"
        os.write(2, line.encode())
