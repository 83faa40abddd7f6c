"""Events read from a pipe into which anything may be written.

Apart from the trial process because garbage has rules of its own: what is no event is passed over,
however long it is and however fast it comes.
"""

import contextlib
import os
import selectors
import time
from collections import deque

from tuner.protocol import Event, parse_event

LONGEST_EVENT_BYTES = 2**20
"""What goes on for longer without the end of a line is no event."""


class EventReader:
    """Reads events from a descriptor, which it closes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._lines: deque[bytes] = deque()
        self._begun = b""
        self._is_begun_too_long = False
        self.has_ended = False
        """Whether the other end was closed; what it wrote before may still be here."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing that could be an event has come and was not returned yet."""
        return not self._lines and (self.has_ended or not self._selector.select(0))

    def next(self, timeout_s: float) -> Event | None:
        """Return the next event, or None when there is none within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            if (event := self._buffered_event()) is not None:
                return event
            left_s = deadline - time.monotonic()
            if self.has_ended or not self._selector.select(max(0.0, left_s)):
                return None
            chunk = os.read(self._descriptor, 1 << 16)
            self.has_ended = not chunk
            self._add(chunk)
            if left_s <= 0:
                return self._buffered_event()

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        if self._descriptor >= 0:
            self._selector.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def _add(self, chunk: bytes) -> None:
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        if lines and self._is_begun_too_long:
            self._is_begun_too_long = False
            lines.pop(0)
        self._lines.extend(line for line in lines if line.startswith(b"{"))
        if len(self._begun) > LONGEST_EVENT_BYTES:
            self._begun, self._is_begun_too_long = b"", True

    def _buffered_event(self) -> Event | None:
        """Take lines up to the first one that is an event, and return it."""
        while self._lines:
            with contextlib.suppress(ValueError):
                return parse_event(self._lines.popleft())
        return None
