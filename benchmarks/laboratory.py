"""Measures configs for the benchmarks, each in a fresh process, on one bench that stays open.

Apart from the benchmarks because every one that measures does so in the same way: as a study would,
with the same cache, spare and monitor, and nothing written but its own result.
"""

import shlex
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tuner.bench import SAMPLE_S, Bench, Order
from tuner.config import StudyConfig
from tuner.devices.detect import open_device
from tuner.hardware import device_kind, hardware_facts, probe_device
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.measurement import Measurement
from tuner.protocol import Question, TrainRequest
from tuner.space import HardwareConfig

TIMEOUT_S = 600.0


class Laboratory:
    """An open bench on this machine's device; use it as a context manager."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        interrupts = self._stack.enter_context(Interrupts())
        launcher = Launcher(self._folder / "logs", preload=None)
        self._bench = self._stack.enter_context(
            Bench(open_device(), launcher, interrupts, timeout_s=TIMEOUT_S, say=_say)
        )
        self._probed = probe_device(self._bench)
        self.kind = device_kind(self._probed)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def cache_dir(self) -> Path:
        """Where compiled programs are kept while it is open."""
        return self._folder / "xla"

    def facts(self) -> dict[str, Any]:
        """Return what a reader must know of any result: command, date, device, versions."""
        return {
            "command": shlex.join([".venv/bin/python", *sys.argv]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": hardware_facts(self._bench, self._probed),
            "versions": self._probed["versions"],
        }

    def measure(
        self,
        config: StudyConfig,
        hardware: HardwareConfig,
        *,
        env_steps: int,
        seed: int = 0,
        is_watched: bool = True,
        probe: bool = False,
    ) -> Measurement:
        """Run one trial; anything but a success ends the benchmark."""
        _say(f"{hardware}, seed {seed}")
        measurement = self.try_to_measure(
            config, hardware, env_steps=env_steps, seed=seed, is_watched=is_watched, probe=probe
        )
        if measurement.throughput is None or measurement.record.status != "success":
            raise SystemExit(
                f"{hardware} must be measured, but ended as {measurement.record.status}: "
                f"{measurement.record.reason}"
            )
        return measurement

    def try_to_measure(
        self,
        config: StudyConfig,
        hardware: HardwareConfig,
        *,
        env_steps: int,
        seed: int = 0,
        is_watched: bool = True,
        probe: bool = False,
    ) -> Measurement:
        """Run one trial, however it ends."""
        request = TrainRequest(
            workload=config.workload_for(hardware),
            hardware=hardware.as_dict(),
            seed=seed,
            env_steps=env_steps,
            cache_dir=str(self.cache_dir),
            at_milestones=config.trainer is None,
            probe=probe,
        )
        order = Order(config=hardware, trial=0, replicate=seed, request=request)
        self._bench.sample_s = SAMPLE_S if is_watched else None
        return self._bench.measure(order, on_block=lambda block: None)

    def ask(self, request: Question) -> dict[str, Any]:
        """Return the answer to a question about device, environment or memory."""
        return self._bench.ask(request).data


def _say(line: str) -> None:
    print(line, file=sys.stderr)
