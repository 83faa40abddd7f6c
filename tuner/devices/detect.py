"""Which device this machine offers.

Apart from the devices because it is the one place that prefers one to another.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.devices.base import Device, DeviceUnavailable
from tuner.devices.cpu import CpuDevice
from tuner.devices.cuda import CudaDevice, CudaMissing, visible_devices
from tuner.devices.nvml import NvmlDevice
from tuner.devices.unread import UnreadDevice


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


@dataclass(frozen=True, slots=True)
class Found:
    """The device that JAX computes on; `no_gpu_reason` is set where that is the CPU."""

    device: Device
    no_gpu_reason: str | None


def open_device(
    ordinal: int = 0, *, util_source: str | None = None, environ: Mapping[str, str] | None = None
) -> Device:
    """Open the device that JAX computes on, as `find_device` does.

    Raises:
        DeviceUnavailable: `ordinal` is not 0 and there is no such GPU.
    """
    return find_device(ordinal, util_source=util_source, environ=environ).device


def find_device(
    ordinal: int = 0, *, util_source: str | None = None, environ: Mapping[str, str] | None = None
) -> Found:
    """Open the device that JAX computes on: GPU `ordinal` as CUDA counts them, else the CPU.

    Args:
        ordinal: JAX's `local_hardware_id`, which counts the GPUs that CUDA shows to a process.
        util_source: "gpm" or "nvml", to measure a GPU's utilisation by nothing else, as a study
            that goes on must; `None` takes the best there is. A CPU's source is always "psutil".
        environ: the environment variables to go by; by default those of this process.

    Returns:
        An `NvmlDevice` where NVML reads the GPU, an `UnreadDevice` where CUDA has it and NVML does
        not, a `CpuDevice` with the reason where CUDA has none. Without CUDA's library, NVML's
        index stands in for the ordinal.

    Raises:
        DeviceUnavailable: `ordinal` is not 0 and there is no such GPU: measuring the CPU instead of
            a device that was named would be a guess.
    """
    reason = hidden_gpu_reason(environ)
    if reason is None:
        try:
            return Found(_open_gpu(ordinal, util_source, environ), None)
        except DeviceUnavailable as error:
            if ordinal != 0:
                raise
            reason = str(error)
    elif ordinal != 0:
        raise DeviceUnavailable(f"device {ordinal} must be visible, but got {reason}; unset it")
    return Found(CpuDevice(), reason)


def _open_gpu(
    ordinal: int, util_source: str | None, environ: Mapping[str, str] | None
) -> NvmlDevice | UnreadDevice:
    try:
        visible = visible_devices(environ)
    except CudaMissing:
        return NvmlDevice(ordinal, util_source=util_source)
    if ordinal not in range(len(visible)):
        raise DeviceUnavailable(
            f"the device must be one of {len(visible)} GPUs counted from 0, but got {ordinal}; "
            "see CUDA_VISIBLE_DEVICES and nvidia-smi -L"
        )
    try:
        return NvmlDevice(visible[ordinal], util_source=util_source)
    except DeviceUnavailable as error:
        return _unread(visible[ordinal], str(error))


def _unread(device: CudaDevice, reason: str) -> UnreadDevice:
    """Stand in for a GPU on which training works but which NVML does not show."""
    return UnreadDevice(
        device.name,
        platform="cuda",
        reason=reason,
        uuid=device.uuid,
        pci_bus_id=device.pci_bus_id,
    )
