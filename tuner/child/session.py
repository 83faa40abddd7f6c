"""The child's side of the conversation: read requests, answer with events, end with the parent.

A thread reads stdin all the time, so that `stop` is heard during a block and the parent's death
(which closes stdin) ends this process even inside a compiled loop that never returns.
"""

import io
import json
import os
import queue
import sys
import threading
import traceback
from typing import Any

import jax

from envs import registry
from envs.errors import EnvError
from tuner.child import calibrate, preflight, targets, trial
from tuner.protocol import (
    FitRequest,
    MemoryRequest,
    PeaksRequest,
    PreflightRequest,
    ProbeRequest,
    RandomRequest,
    Request,
    TargetRequest,
    TrainRequest,
    event,
    parse_request,
)


class Session:
    """One child's life: answers questions, runs at most one trial, then ends."""

    def __init__(self, events_fd: int) -> None:
        self._events_fd = events_fd
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stop = threading.Event()

    def emit(self, name: str, **data: Any) -> None:
        """Send an event; a line is written in one piece."""
        line = event(name, **data).line()
        while line:
            line = line[os.write(self._events_fd, line) :]

    def serve(self, *, preload: str | None) -> None:
        """Answer requests until a trial has been run or the parent is gone."""
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            if preload is not None:
                registry.preload(preload)
        except EnvError as error:
            self.emit("rejected", type=type(error).__name__, text=str(error))
            return
        self.emit("ready")
        while True:
            request = parse_request(self._requests.get())
            try:
                self._answer(request)
            except EnvError as error:
                self._fail("rejected", error)
                return
            except Exception as error:
                traceback.print_exc()
                self._fail("error", error)
                return
            if isinstance(request, TrainRequest):
                sys.stdout.flush()
                os._exit(0)  # the interpreter's own end would cost half a second for nothing

    def _answer(self, request: Request) -> None:
        if not isinstance(request, ProbeRequest | TargetRequest):
            _use_cache(request.cache_dir)
        match request:
            case TrainRequest():
                trial.train(request, self.emit, self._stop)
            case ProbeRequest():
                calibrate.probe(self.emit)
            case PeaksRequest():
                calibrate.peaks(self.emit)
            case PreflightRequest():
                preflight.preflight(request, self.emit)
            case RandomRequest():
                calibrate.random_policy(request, self.emit)
            case FitRequest():
                calibrate.largest_fit(request, self.emit)
            case MemoryRequest():
                targets.analyse_memory(request, self.emit)
            case TargetRequest():
                self.emit("described", device=targets.describe(request.target).device_kind)

    def _fail(self, name: str, error: Exception) -> None:
        text = " ".join(str(error).split())[:500]
        self.emit(name, type=type(error).__name__, text=text)

    def _listen(self) -> None:
        # Unbuffered: a thread inside a buffered read makes the interpreter abort at its end.
        for line in io.FileIO(0, closefd=False):
            data = json.loads(line)
            if data["kind"] == "stop":
                self._stop.set()
            else:
                self._requests.put(data)
        os._exit(0)


def _use_cache(cache_dir: str) -> None:
    """Keep every compiled program in `cache_dir`, however small and quick to compile."""
    jax.config.update("jax_compilation_cache_dir", cache_dir)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
