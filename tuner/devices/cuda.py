"""Which GPUs CUDA programs of this environment see, in CUDA's order, by the driver's own word.

JAX names a device by its CUDA ordinal; what stands behind an ordinal depends on
`CUDA_VISIBLE_DEVICES`, `CUDA_DEVICE_ORDER` and MIG, whose rules only the driver knows. It is asked
in a process of its own, because `cuInit` ties a process to the device, and the parent of trials
must stay free of it. Standard library only, for that process to start quickly.
"""

import ctypes
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuner.devices.base import DeviceUnavailable

LIBRARY = "libcuda.so.1"
ANSWER_S = 10.0
"""How long the driver may take; `cuInit` on a machine of eight cards takes one to three seconds."""
NAME_BYTES = 256
BUS_ID_BYTES = 32
NO_DEVICE = (
    "the CUDA driver must show a device, but got {}; see CUDA_VISIBLE_DEVICES and nvidia-smi -L"
)


class CudaMissing(DeviceUnavailable):
    """There is no CUDA driver library here, so no program computes on a GPU through CUDA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaDevice:
    """One GPU, or one MIG instance of a card, as CUDA counts them.

    `ordinal` is JAX's `local_hardware_id`. `uuid` is spelled as NVML does, "GPU-…" or "MIG-…";
    `pci_bus_id` (domain:bus:device.function) is the card's.
    """

    ordinal: int
    uuid: str
    pci_bus_id: str
    name: str


def visible_devices(environ: Mapping[str, str] | None = None) -> tuple[CudaDevice, ...]:
    """Return the devices that CUDA shows to a process with `environ`, by default this one's.

    Source: `cuDeviceGetCount`, `cuDeviceGetUuid_v2` and `cuDeviceGetPCIBusId` of the CUDA driver
    API, in a process of its own.

    Raises:
        CudaMissing: the driver's library is not there.
        DeviceUnavailable: the driver shows no device, or does not answer; the message says why.
    """
    answer = ask_driver("tuner.devices.cuda", environ)
    if not answer["devices"]:
        raise DeviceUnavailable(NO_DEVICE.format("none"))
    return tuple(CudaDevice(**device) for device in answer["devices"])


def ask_driver(module: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what `module` answers when it is run: `answer_with` in a process of its own.

    Raises:
        CudaMissing: the driver's library is not there.
        DeviceUnavailable: the driver refuses, or does not answer; the message says why.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", module],
            env=dict(os.environ if environ is None else environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
        )
    except subprocess.TimeoutExpired:
        raise DeviceUnavailable(
            f"the CUDA driver must answer within {ANSWER_S:g} s, but gave no answer; "
            "see whether nvidia-smi hangs too"
        ) from None
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeviceUnavailable(
            f"the CUDA driver must tell its devices, but the question ended with "
            f"{ended.returncode}: {last}; see whether nvidia-smi works"
        )
    answer: dict[str, Any] = json.loads(ended.stdout)
    if answer["missing"] is not None:
        raise CudaMissing(
            f"a GPU must have the CUDA driver to compute, but got {answer['missing']}; "
            "install the driver, or give this container access to it"
        )
    if answer["fault"] is not None:
        raise DeviceUnavailable(NO_DEVICE.format(answer["fault"]))
    return answer


def answer_with(question: Callable[["Driver"], dict[str, Any]]) -> None:
    """Print what the driver answers, or why it does not, for `ask_driver` to read."""
    answer: dict[str, Any] = {"missing": None, "fault": None}
    try:
        driver = Driver(ctypes.CDLL(LIBRARY))
        driver.call("cuInit", 0)
        answer |= question(driver)
    except OSError as error:
        answer["missing"] = str(error)
    except CudaError as error:
        answer["fault"] = str(error)
    json.dump(answer, sys.stdout)


class CudaError(Exception):
    """A call of the driver that failed."""


class Driver:
    """The few calls of libcuda that name devices; every one raises `CudaError` where it fails."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:
        """Call `name`; raises `CudaError` where it fails or is not there."""
        try:
            code = getattr(self._library, name)(*arguments)
        except AttributeError:
            raise CudaError(f"no {name} in {LIBRARY}") from None
        if code:
            raise CudaError(f"{self._explain(code)} from {name}")

    def count(self) -> int:
        """Return how many devices there are."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def device(self, ordinal: int) -> CudaDevice:
        """Return what identifies device `ordinal`."""
        handle = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(handle), ordinal)
        name = ctypes.create_string_buffer(NAME_BYTES)
        self.call("cuDeviceGetName", name, NAME_BYTES, handle)
        bus_id = ctypes.create_string_buffer(BUS_ID_BYTES)
        self.call("cuDeviceGetPCIBusId", bus_id, BUS_ID_BYTES, handle)
        return CudaDevice(
            ordinal=ordinal,
            uuid=self._spelled_uuid(handle),
            pci_bus_id=bus_id.value.decode(),
            name=name.value.decode(),
        )

    def _spelled_uuid(self, handle: ctypes.c_int) -> str:
        """Return the UUID with its prefix; only version 2 tells a MIG instance from its card."""
        card = self._uuid("cuDeviceGetUuid", handle)
        device = self._uuid("cuDeviceGetUuid_v2", handle) or card
        if device is None:
            raise CudaError("no UUID from cuDeviceGetUuid_v2")
        return f"GPU-{device}" if card in (device, None) else f"MIG-{device}"

    def _uuid(self, call: str, handle: ctypes.c_int) -> uuid.UUID | None:
        octets = (ctypes.c_ubyte * 16)()
        try:
            self.call(call, octets, handle)
        except CudaError:
            return None
        return uuid.UUID(bytes=bytes(octets))

    def _explain(self, code: int) -> str:
        text = ctypes.c_char_p()
        known = self._library.cuGetErrorString(code, ctypes.byref(text)) == 0
        return f"{text.value.decode()} ({code})" if known and text.value else f"error {code}"


def _devices(driver: Driver) -> dict[str, Any]:
    return {"devices": [asdict(driver.device(i)) for i in range(driver.count())]}


if __name__ == "__main__":
    answer_with(_devices)
