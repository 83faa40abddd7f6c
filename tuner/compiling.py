"""Compiles programs for their memory alone: several children at a time, every answer kept on disk.

Apart from the bench, which is one device measured by one child at a time: nothing here runs what
it compiles, so that as many children work as the host has cores and memory for.
"""

import hashlib
import importlib.metadata
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.names import is_factory
from storage.atomic import atomic_write_text
from tuner.bench import ANSWERS
from tuner.classification import classify
from tuner.devices.cpu import memory_available_bytes, usable_cores
from tuner.errors import TunerError, UsageError
from tuner.footprint import Program
from tuner.interrupts import Interrupts
from tuner.isolation import Child
from tuner.protocol import Event, MemoryRequest, Question, Workload
from tuner.space import HardwareConfig

COMPILER_BYTES = 1_500_000_000
"""Host memory set aside for a child that compiles: 0.6 GB for one program, more for the next."""
SOURCES = ("tuner/ppo", "tuner/child", "tuner/protocol.py", "envs")
"""What the text of a program follows from, beside the workload: a change here compiles anew."""
PACKAGES = ("jax", "jaxlib", "optax", "gymnax", "brax")
"""Whose versions a program follows from."""
POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """What compiles, and for what: see `MemoryRequest` for `target` and `written_for`.

    `identity` names it in the cache: versions, and the device where it is the one at hand.
    """

    python: str
    variables: Mapping[str, str]
    identity: tuple[str, ...]
    target: str | None = None
    written_for: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One config to be compiled."""

    compiler: Compiler
    config: HardwareConfig


class ProgramCache:
    """Answers on disk, one file each, so that plans beside each other do not disturb one another.

    A program is named by what it follows from, which is known without jax: the workload, the
    config, the compiler and our code. What code of the user's own becomes only its text tells:
    there the child looks its answer up by that.
    """

    def __init__(self, folder: Path, workload: Workload, data: Mapping[str, Any]) -> None:
        """Keep answers in `folder`; `data` are the files behind the workload by their digests."""
        self.folder = folder
        self._workload = workload
        self._by_text_only = is_factory(workload.env) or workload.trainer is not None
        self._common = json.dumps([asdict(workload), data, _code_digest()], sort_keys=True)

    def get(self, job: Job) -> Program | None:
        """Return what is known of a program, None if nothing is."""
        if self._by_text_only:
            return None
        with suppress(OSError, ValueError, TypeError):
            return Program(**json.loads(self._path(job).read_text(encoding="utf-8")))
        return None

    def put(self, job: Job, program: Program) -> None:
        """Keep an answer; what failed is tried again the next time."""
        if self._by_text_only or program.failed is not None:
            return
        answer = {
            "predicted_bytes": program.predicted_bytes,
            "argument_bytes": program.argument_bytes,
        }
        with suppress(OSError):  # what cannot be kept is compiled again
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write_text(self._path(job), json.dumps(answer))

    def request(self, job: Job, cache_dir: Path) -> MemoryRequest:
        """Return the question that a job is to a child."""
        return MemoryRequest(
            workload=self._workload,
            hardware=job.config.as_dict(),
            cache_dir=str(cache_dir),
            programs_dir=str(self.folder),
            target=job.compiler.target,
            written_for=job.compiler.written_for,
        )

    def _path(self, job: Job) -> Path:
        compiler = job.compiler
        told = [self._common, job.config.as_dict(), compiler.target, compiler.written_for]
        text = json.dumps([*told, compiler.identity, _flags(compiler)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


class Compilers:
    """Children that compile, as many as fit; to be used as a context manager."""

    def __init__(
        self, logs: Path, interrupts: Interrupts, *, timeout_s: float, most: int | None
    ) -> None:
        """Start nothing yet.

        Args:
            logs: folder of the children's logs.
            interrupts: what the user asks meanwhile.
            timeout_s: of one compilation.
            most: children at a time, None for what cores and memory allow.
        """
        by_memory = max(1, (memory_available_bytes() or COMPILER_BYTES) // COMPILER_BYTES)
        self.width = max(1, min(int(usable_cores()), int(by_memory), most or 64))
        self._logs, self._interrupts, self._timeout_s = logs, interrupts, timeout_s
        self._idle: dict[str, list[Child]] = {}
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._started = 0
        # A child ends with the thread that started it, so that these live as long as this object.
        self._threads = ThreadPoolExecutor(self.width)

    def __enter__(self) -> "Compilers":
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled.set()
        self._threads.shutdown(cancel_futures=True)
        for children in self._idle.values():
            for child in children:
                child.end(grace_s=0)
        self._idle.clear()

    def ask(self, compiler: Compiler, request: Question) -> Event:
        """Return the answer to one question.

        Raises:
            UsageError: what was asked is at fault: the target, the environment or the trainer.
            TunerError: the child ended or was silent.
        """
        child = self._take(compiler)
        child.send(request)
        deadline = time.monotonic() + self._timeout_s
        events: list[Event] = []
        while not child.has_ended and time.monotonic() < deadline:
            if self._cancelled.is_set():
                child.end(0)
                raise KeyboardInterrupt
            event = child.next_event(POLL_S)
            if event is None:
                continue
            events.append(event)
            if event.name == ANSWERS[request.kind]:
                with self._lock:
                    self._idle.setdefault(compiler.python, []).append(child)
                return event
        silent = not child.has_ended
        returncode = child.end(0)
        if events and events[-1].name == "rejected":
            raise UsageError(events[-1].data["text"])
        if silent:
            raise TunerError(f"still compiling after {self._timeout_s:g} s; raise --timeout")
        raise TunerError(classify(events, returncode, child.log_tail()).reason)

    def run(
        self,
        jobs: Sequence[Job],
        request_of: Callable[[Job], MemoryRequest],
        on_answer: Callable[[Job, Program, float], None],
    ) -> None:
        """Compile every job; a failed one is an answer too.

        Args:
            jobs: in the order to begin them.
            request_of: the question that a job is.
            on_answer: told in this thread of each program and the seconds it took.

        Raises:
            UsageError: the target, the environment or the trainer is at fault.
            KeyboardInterrupt: the user stopped it; what was answered before is kept.
        """
        answers: queue.Queue[tuple[Job, Program, float]] = queue.Queue()

        def work(job: Job) -> None:
            began = time.monotonic()
            if not self._cancelled.is_set():
                program = self._program(job.compiler, request_of(job))
                answers.put((job, program, time.monotonic() - began))

        pending: set[Future[None]] = {self._threads.submit(work, job) for job in jobs}
        while pending:
            done, pending = wait(pending, timeout=POLL_S)
            while not answers.empty():
                on_answer(*answers.get())
            if self._interrupts.count:
                raise KeyboardInterrupt
            for future in done:
                future.result()

    def _program(self, compiler: Compiler, request: MemoryRequest) -> Program:
        try:
            told = self.ask(compiler, request).data
        except UsageError:
            raise
        except TunerError as error:
            return Program(failed=str(error))
        if told["failed"] is not None:
            return Program(failed=told["failed"])
        return Program(told["predicted_bytes"], told["argument_bytes"])

    def _take(self, compiler: Compiler) -> Child:
        with self._lock:
            children = self._idle.get(compiler.python, [])
            if children:
                return children.pop()
            self._started += 1
            log = self._logs / f"compiler-{self._started}.log"
        variables = compiler.variables
        return Child(log, preload=None, python=compiler.python, variables=variables)


def package_versions(names: Sequence[str] = PACKAGES) -> tuple[str, ...]:
    """Return name and version of those of the packages that are here, for a compiler's identity."""
    found = []
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return tuple(found)


def _flags(compiler: Compiler) -> dict[str, str]:
    """Return the variables by which a user changes what jax and XLA make of a program."""
    environ = {**os.environ, **compiler.variables}
    return {
        name: value
        for name, value in environ.items()
        if name == "XLA_FLAGS" or (name.startswith("JAX_") and "CACHE" not in name)
    }


def _code_digest() -> str:
    """Return the digest of the code that makes programs."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for source in SOURCES:
        path = root / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
