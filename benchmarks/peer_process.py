"""The parent's side of a peer's process: start it, ask it, end it.

Apart from the benchmark so that what is measured and how it is asked for can be read alone.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from peer import PeerConfig

ROOT = Path(__file__).parent.parent
CHILD = Path("benchmarks") / "peer_child.py"
LOG_TAIL = 400
GPU_MEMORY_SHARE = 0.8
"""Of the device, shared by all peers' processes: each one's pool is set aside when it starts."""


class PeerFailed(RuntimeError):
    """A peer cannot be measured here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one request took."""

    env_steps: int
    cpu_s: float
    wall_s: float


class PeerProcess:
    """A running peer; use it as a context manager."""

    def __init__(self, spec: str, *, core: int | None, num_peers: int, root: Path = ROOT) -> None:
        """Start the process; it imports the peer meanwhile.

        Args:
            spec: `package.module:factory`.
            core: the core that it is pinned to, None for all.
            num_peers: processes that share the device's memory.
            root: the checkout of this project that it runs.
        """
        self.spec = spec
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 — closed by __exit__
        path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")]), os.getcwd()]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # a cached program would cost no compile time
            "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{GPU_MEMORY_SHARE / num_peers:.3f}",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(root / CHILD), spec, "all" if core is None else str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def wait_until_imported(self) -> None:
        """Return when the peer is ready to be compiled; PeerFailed if it cannot be imported."""
        self._answer()

    def compile(self, config: PeerConfig) -> Round:
        """Build and compile for `config`; `env_steps` are those trained on the way."""
        return self._ask({"do": "compile", "config": config.as_dict()})

    def run(self) -> Round:
        """Run one round."""
        return self._ask({"do": "run"})

    def _ask(self, request: dict[str, Any]) -> Round:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise PeerFailed(self._why("its process has ended")) from error
        return Round(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(self._why(f"its process ended with {self._process.wait()}"))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{self.spec}: {answer['error']}")
        return answer

    def _why(self, what: str) -> str:
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace").strip()[-LOG_TAIL:]
        return f"{self.spec}: {what}: {tail}"
