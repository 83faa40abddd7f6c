"""Stub libraries of NVIDIA's driver, compiled from C, that the real bindings run against.

What they answer stands in a file of `key=value` lines that they read anew at every call; keys are
explained in `control.h`, `nvml.c` and `cuda.c`.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
LIBRARIES = {"nvml.c": "libnvidia-ml.so.1", "cuda.c": "libcuda.so.1"}
FLAGS = ("-shared", "-fPIC", "-O1", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Werror")

NAME = "NVIDIA H100 80GB HBM3"
UUIDS = tuple(f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "123")
MIG_UUIDS = tuple(f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "ab")

H100: dict[str, object] = {
    "name": NAME,
    "uuid": UUIDS[0],
    "pci": "00000000:65:00.0",
    "capability": "9.0",
    "memory_total": 85_520_809_984,
    "memory_used": 5_000_000_000,
    "memory_reserved": 600_000_000,
    "util": 97,
    "power_mw": 350_500,
    "power_limit_mw": 700_000,
    "energy_mj": 123_456_789,
    "temperature": 61,
    # A power cap, 0x4, is no fault; hardware thermal slowdown, 0x40, is.
    "reasons": 0x44,
    "sm_clock": 1755,
    "sm_clock_max": 1980,
}


def compile_driver(folder: Path) -> Path:
    """Compile the libraries into `folder`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip(
            "NO C COMPILER: what reads NVIDIA's devices is NOT TESTED on this machine; install "
            "gcc or clang"
        )
    for source, library in LIBRARIES.items():
        subprocess.run(
            [compiler, *FLAGS, "-o", str(folder / library), str(SOURCES / source)], check=True
        )
    return folder


class Driver:
    """A machine with NVIDIA's driver, as far as the stub libraries in `folder` play it."""

    def __init__(self, folder: Path, control: Path) -> None:
        self.folder = folder
        self.nvml = ctypes.CDLL(str(folder / LIBRARIES["nvml.c"]))
        self._control = control
        self._settings: dict[str, object] = {"driver": "570.124.06", "gpus": 0}
        self._write()

    @property
    def environ(self) -> dict[str, str]:
        """Variables under which a process finds the libraries and what they shall answer."""
        paths = [str(self.folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": ":".join(paths), "TUNER_TEST_DRIVER": str(self._control)}

    def set(self, settings: dict[str, object]) -> None:
        """Set keys; one that is None is taken away."""
        self._settings |= settings
        self._write()

    def set_card(self, gpu: int = 0, mig: int | None = None, **settings: object) -> None:
        """Set keys of one card, or of one MIG instance of it."""
        prefix = f"gpu{gpu}." if mig is None else f"gpu{gpu}.mig{mig}."
        self.set({f"{prefix}{key}": value for key, value in settings.items()})

    def add_card(self, **settings: object) -> int:
        """Add an H100 that differs from the others in UUID and bus, and return its index."""
        gpu = int(str(self._settings["gpus"]))
        place = {"uuid": UUIDS[gpu], "pci": f"00000000:{gpu + 0x65:02X}:00.0"}
        card = H100 | place | settings
        self.set({"gpus": gpu + 1} | {f"gpu{gpu}.{key}": value for key, value in card.items()})
        return gpu

    def divide(self, gpu: int = 0) -> None:
        """Divide a card into two MIG instances; NVML tells less of them than of cards."""
        self.set_card(gpu, migs=len(MIG_UUIDS))
        for mig, uuid in enumerate(MIG_UUIDS):
            self.set_card(
                gpu,
                mig,
                uuid=uuid,
                gi=7 + mig,
                name=f"{NAME} MIG 1g.10gb",
                memory_total=10_000_000_000,
                memory_used=1_000_000_000 * (mig + 1),
                memory_reserved=0,
            )

    def fail(self, *functions: str, code: int) -> None:
        """Let functions return `code`, 0 to let them answer again."""
        self.set({f"fail.{function}": code for function in functions})

    def _write(self) -> None:
        lines = [f"{key}={value}" for key, value in self._settings.items() if value is not None]
        fresh = self._control.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self._control)
