"""Times in which this process did not run: it was stopped, or the machine was suspended.

Whoever waits for another process must know: a deadline that passed meanwhile says nothing about
that process, and what was measured meanwhile was not watched.
"""

import time
from dataclasses import dataclass

STANDSTILL_S = 5.0
"""A wait of a fraction of a second that takes so long was no wait."""
SUSPENDED_S = 1.0
"""Suspension of the machine that counts; its clocks are compared to the millisecond."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """One such time: between which monotonic times it lies, and how long it was, in seconds."""

    start: float
    end: float
    seconds: float


class RunningTime:
    """Adds up the seconds in which this process ran, and notes the standstills between."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.standstills: list[Standstill] = []
        self._seen = time.monotonic()
        self._suspended_s = _suspended_s()

    def see_work(self) -> None:
        """Take note of the time until now, in which this process may have been busy for long."""
        self._see(is_wait=False)

    def see_wait(self) -> None:
        """Take note of the time until now, in which this process waited for a fraction of a second.

        A longer time is a standstill.
        """
        self._see(is_wait=True)

    def _see(self, *, is_wait: bool) -> None:
        before, self._seen = self._seen, time.monotonic()
        slept_before, self._suspended_s = self._suspended_s, _suspended_s()
        took_s, slept_s = self._seen - before, self._suspended_s - slept_before
        self.seconds += min(took_s, STANDSTILL_S)
        still_s = took_s if is_wait and took_s > STANDSTILL_S else 0.0
        still_s += slept_s if slept_s > SUSPENDED_S else 0.0
        if still_s:
            self.standstills.append(Standstill(before, self._seen, still_s))


def _suspended_s() -> float:
    """Return how long the machine was suspended since it was started, 0 where it does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
