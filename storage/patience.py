"""Waiting for a database that is away: restarted, unreachable, locked, read-only or out of disk.

Apart from the calls that wait because all of them wait alike: a fault that may pass is tried again
with growing pauses, the user is told once and reminded, and after ten minutes, or when the user
asks to stop, waiting is given up. That leaves a study as a kill would, for the recovery of the next
command: `GivenUp` is no `Exception`, so that nothing on its way takes it for a failed trial and
tells Optuna so.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from storage.database import hide_password, passing_fault
from storage.errors import StorageUnavailable

OPENING_LIMIT_S = 120.0
"""How long a command that goes on with a study waits for its database to answer at first."""
_REFUSALS = ("authentication failed", "does not exist", "no password supplied", "pg_hba.conf")
"""What a server says that answers, but does not let us in: a setting is wrong, as a rule."""
LIMIT_S = 600.0
"""How long a database may be away before waiting for it is given up."""
REMIND_S = 60.0
"""Time between two lines that say that it is still away."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
STOPPED_LIMIT_S = 3.0
"""How long a database is waited for once the user has asked to stop."""

Result = TypeVar("Result")


class GivenUp(BaseException):
    """The database stayed away; its text is the line for the user."""


class Patience:
    """Repeats calls to one database while they fail with faults that may pass.

    `waiting` says what waits meanwhile, and `on_pause` is called before each new try.
    """

    def __init__(
        self,
        url: str,
        *,
        say: Callable[[str], None],
        is_stopped: Callable[[], bool] = lambda: False,
        limit_s: float = LIMIT_S,
        hopeless: tuple[str, ...] = (),
    ) -> None:
        """Make the patience of one command.

        Args:
            url: address of the database.
            say: tells the user a line.
            is_stopped: whether the user has asked to stop.
            limit_s: how long one call is tried again.
            hopeless: words of faults that are not waited for all the same.
        """
        self._url = url
        self._say = say
        self._is_stopped = is_stopped
        self._limit_s = limit_s
        self._hopeless = hopeless
        self._here = threading.local()
        self.waiting: Callable[[], str] = lambda: "the study waits"
        self.on_pause: Callable[[], None] = lambda: None

    def call(
        self,
        attempt: Callable[[], Result],
        *,
        again: Callable[[], Result] | None = None,
        reconnect: Callable[[], None] = lambda: None,
    ) -> Result:
        """Return what `attempt` returns, trying again while the database is away.

        Args:
            attempt: the call; faults that cannot pass come through as they are.
            again: called in its place after a fault, where a first call that seemed to fail may
                have been carried out and must not be carried out twice.
            reconnect: drops connections before each new try: one that was opened while a file was
                read-only stays so.

        Raises:
            GivenUp: the database was away for too long, or the user asked to stop.
        """
        since = None
        while True:
            try:
                result = attempt()
            except Exception as error:
                fault = passing_fault(error, self._url)
                if fault is None or self._is_off or any(w in fault for w in self._hopeless):
                    raise
                if since is None:
                    since = _Outage()
                    self._tell(f"{fault}): {self.waiting()}, trying again")
                self._pause(since, fault, error)
                reconnect()
                attempt = again or attempt
            else:
                if since is not None:
                    self._say(f"the database answers again after {since.elapsed_s:.0f} s")
                return result

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Let faults come through at once in the body, to this thread.

        Waiting would disturb a measurement, or hold up the heartbeat.
        """
        before, self._here.is_off = self._is_off, True
        try:
            yield
        finally:
            self._here.is_off = before

    @property
    def _is_off(self) -> bool:
        return getattr(self._here, "is_off", False)

    def _pause(self, outage: "_Outage", fault: str, error: Exception) -> None:
        end = time.monotonic() + outage.next_pause_s()
        while True:
            limit_s = STOPPED_LIMIT_S if self._is_stopped() else self._limit_s
            if outage.elapsed_s > limit_s:
                raise GivenUp(self._last_words(fault, outage)) from error
            left_s = end - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(left_s, 0.1))
        self.on_pause()
        if outage.is_reminder_due():
            self._tell(f"{fault}) for {outage.elapsed_s:.0f} s: {self.waiting()}, trying again")

    def _tell(self, words: str) -> None:
        self._say(f"the database does not answer ({words}")

    def _last_words(self, fault: str, outage: "_Outage") -> str:
        return (
            f"{hide_password(self._url)} must answer, but got: {fault}, for "
            f"{outage.elapsed_s:.0f} s; {self.waiting()}; `tuner resume` goes on once it answers"
        )


def once_it_answers(
    url: str,
    attempt: Callable[[], Result],
    *,
    say: Callable[[str], None],
    is_stopped: Callable[[], bool] = lambda: False,
) -> Result:
    """Return what `attempt` returns of a database that answered before and may be restarting.

    Not for an address that nobody has reached yet: a wrong one should be refused at once.

    Raises:
        StorageUnavailable: it did not answer within `OPENING_LIMIT_S`, or the user asked to stop.
    """
    patience = Patience(
        url, say=say, is_stopped=is_stopped, limit_s=OPENING_LIMIT_S, hopeless=_REFUSALS
    )
    try:
        return patience.call(attempt)
    except GivenUp as lost:
        raise StorageUnavailable(str(lost)) from lost


class _Outage:
    """The time for which a call has failed."""

    def __init__(self) -> None:
        self._began = self._reminded = time.monotonic()
        self._pause_s = FIRST_PAUSE_S

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def next_pause_s(self) -> float:
        """Return the length of the next pause: each is twice the one before, up to a longest."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s

    def is_reminder_due(self) -> bool:
        """Whether the user was told long ago, in which case it counts as told now."""
        if time.monotonic() - self._reminded < REMIND_S:
            return False
        self._reminded = time.monotonic()
        return True
