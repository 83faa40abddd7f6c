"""The description of this machine's own GPU, for `tuner plan --target-file` elsewhere.

Asked of the CUDA driver, as XLA does when it describes a device (`CudaExecutor`), in a process of
its own: `cuInit` ties a process to the device. Never compared with XLA's own description of a real
device yet.
"""

import ctypes
from collections.abc import Mapping
from typing import Any

from tuner.devices.base import DeviceUnavailable
from tuner.devices.cuda import Driver, answer_with, ask_driver
from tuner.errors import UsageError
from tuner.targets.table import architectures, describe

ATTRIBUTES = {
    "threads_per_block_limit": 1,
    "thread_dim_limit_x": 2,
    "thread_dim_limit_y": 3,
    "thread_dim_limit_z": 4,
    "block_dim_limit_x": 5,
    "block_dim_limit_y": 6,
    "block_dim_limit_z": 7,
    "shared_memory_per_block": 8,
    "threads_per_warp": 10,
    "registers_per_block_limit": 12,
    "core_count": 16,
    "l2_cache_size": 38,
    "threads_per_core_limit": 39,
    "shared_memory_per_core": 81,
    "registers_per_core_limit": 82,
    "shared_memory_per_block_optin": 97,
}
"""XLA's fields by `CUdevice_attribute`, the numbers of cuda.h."""
CLOCK_KHZ, MEMORY_CLOCK_KHZ, BUS_BITS, MAJOR, MINOR = 13, 36, 37, 75, 76
FPUS_PER_CORE = 128
"""Of an architecture that is not in the table; all since 8.6 have so many."""


def describe_here(environ: Mapping[str, str] | None = None) -> str:
    """Return the description of the first GPU that CUDA shows, as text.

    Raises:
        UsageError: there is none, or its driver does not tell.
    """
    try:
        told = ask_driver("tuner.targets.here", environ)
    except DeviceUnavailable as error:
        raise UsageError(f"--export must run where there is a GPU: {error}") from None
    capability = f"{told['major']}.{told['minor']}"
    known = architectures().get(capability, {})
    figures = {
        **told["figures"],
        "fpus_per_core": known.get("fpus_per_core", FPUS_PER_CORE),
        # Two transfers a clock, as XLA reckons.
        "memory_bandwidth": 2 * told["memory_clock_khz"] * 1000 * told["bus_bits"] // 8,
        "clock_rate_ghz": told["clock_khz"] / 1e6,
        "device_memory_size": told["memory_bytes"],
    }
    return describe(told["name"], capability, figures)


def _figures(driver: Driver) -> dict[str, Any]:
    """Return what the driver tells of its first device."""
    handle = ctypes.c_int()
    driver.call("cuDeviceGet", ctypes.byref(handle), 0)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.call("cuDeviceGetAttribute", ctypes.byref(value), number, handle)
        return value.value

    memory = ctypes.c_size_t()
    driver.call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    return {
        "name": driver.device(0).name,
        "memory_bytes": memory.value,
        "figures": {name: attribute(number) for name, number in ATTRIBUTES.items()},
        "major": attribute(MAJOR),
        "minor": attribute(MINOR),
        "clock_khz": attribute(CLOCK_KHZ),
        "memory_clock_khz": attribute(MEMORY_CLOCK_KHZ),
        "bus_bits": attribute(BUS_BITS),
    }


if __name__ == "__main__":
    answer_with(_figures)
