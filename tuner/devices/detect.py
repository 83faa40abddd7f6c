"""Which device this machine offers.

Apart from the devices because it is the one place that prefers one to another.
"""

import os
from collections.abc import Mapping

from tuner.devices.base import Device, DeviceUnavailable
from tuner.devices.cpu import CpuDevice
from tuner.devices.nvml import NvmlDevice


def hidden_gpu_reason(environ: Mapping[str, str] | None = None) -> str | None:
    """Say which environment variable keeps JAX off the GPU; `None` when none does."""
    environ = os.environ if environ is None else environ
    platforms = environ.get("JAX_PLATFORMS", "").lower()
    # JAX computes on the first platform of the list.
    if platforms and platforms.split(",")[0].strip() not in ("cuda", "gpu"):
        return f"JAX_PLATFORMS={platforms} makes JAX compute on another platform"
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    return None


def open_device(index: int = 0) -> Device:
    """Open GPU `index` if NVML answers for it and JAX may use it, else the CPU.

    Raises:
        DeviceUnavailable: `index` is not 0 and there is no such GPU: measuring the CPU instead of
            a device that was named would be a guess.
    """
    reason = hidden_gpu_reason()
    if reason is None:
        try:
            return NvmlDevice(index)
        except DeviceUnavailable:
            if index != 0:
                raise
    elif index != 0:
        raise DeviceUnavailable(f"device {index} must be visible, but got {reason}; unset it")
    return CpuDevice()
