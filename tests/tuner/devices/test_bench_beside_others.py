"""The memory gate on a GPU that others use too: a real child beside the stub driver's card."""

import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.tuner.devices.driver import Driver
from tests.tuner.trials import PATIENCE_S, TINY, workload
from tuner.bench import Bench
from tuner.devices.cpu import memory_available_bytes
from tuner.devices.nvml import NvmlDevice
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.protocol import FitRequest


@pytest.mark.parametrize("graphics", ["", "1:3000000000"], ids=["alone", "beside a desktop"])
def test_the_gate_leaves_what_others_hold(
    driver: Driver,
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    graphics: str,
) -> None:
    # The driver's own reserve is no process's; 3 GB are a desktop's, or nobody's.
    held = 3_000_000_000 if graphics else 0
    driver.set_card(memory_used=held)
    driver.set({"gpu0.compute": "", "gpu0.graphics": graphics})
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # for the child: no JAX can compute on a stub
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked = FitRequest(
        workload=workload(),
        candidates=(TINY,),
        cache_dir=str(cache_dir),
        reserve_bytes=1_000_000_000,
    )
    with (
        closing(NvmlDevice()) as device,
        Bench(
            device,
            Launcher(tmp_path / "logs", preload=None),
            Interrupts(),
            timeout_s=PATIENCE_S,
            say=lambda line: None,
        ) as bench,
    ):
        free = memory_available_bytes()
        limit = bench.ask(asked).data["limit_bytes"]
    # Half a gigabyte of room: what the host has free moves while the child starts.
    assert limit == pytest.approx(0.95 * free - 1_000_000_000 - held, abs=5e8)
