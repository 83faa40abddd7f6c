"""The child's end of the pipes: events out, requests in, and the parent's death noticed.

Apart from the session because it needs no jax. A thread reads stdin all the time, so that `stop` is
heard during a block and the parent's death (which closes stdin) ends this process even inside a
compiled loop that never returns.
"""

import argparse
import io
import json
import os
import queue
import sys
import threading
from typing import Any

from tuner.child.life import end_group, live_with_parent
from tuner.protocol import Request, event, parse_request


class Channel:
    """A conversation with the parent; `stop` is set once the parent wants training to end."""

    def __init__(self, events_fd: int) -> None:
        self.stop = threading.Event()
        self._events_fd = events_fd
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen(self) -> None:
        """Begin to hear requests, and the parent's end."""
        threading.Thread(target=self._listen, daemon=True).start()

    def emit(self, name: str, **data: Any) -> None:
        """Send an event; a line is written in one piece."""
        line = event(name, **data).line()
        while line:
            line = line[os.write(self._events_fd, line) :]

    def fail(self, name: str, error: Exception) -> None:
        """Send `error` or `rejected` with the exception's type and text."""
        text = " ".join(str(error).split())[:500]
        self.emit(name, type=type(error).__name__, text=text)

    def next_request(self) -> Request:
        """Wait for a request."""
        return parse_request(self._requests.get())

    def _listen(self) -> None:
        # Unbuffered: a thread inside a buffered read makes the interpreter abort at its end.
        for line in io.FileIO(0, closefd=False):
            data = json.loads(line)
            if data["kind"] == "stop":
                self.stop.set()
            else:
                self._requests.put(data)
        end_group()


def begin() -> argparse.Namespace:
    """Read the arguments that every trial process is started with, and live with the parent.

    Returns:
        `events_fd`, and `preload`: the environment whose imports to do, or None.
    """
    parser = argparse.ArgumentParser(prog="tuner.child")
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="its process id")
    parser.add_argument("--preload")
    arguments = parser.parse_args()
    live_with_parent(arguments.parent)
    sys.path.append(os.getcwd())
    return arguments
