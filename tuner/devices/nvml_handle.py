"""A GPU, or an instance of one, found through NVML, and the calls that may be refused one by one.

Apart from `nvml` because finding the right handle and living with refusals has nothing to do with
what the readings mean.
"""

from typing import Any

from tuner.devices.base import DeviceUnavailable
from tuner.devices.cuda import CudaDevice

FATAL = ("UNINITIALIZED", "DRIVER_NOT_LOADED", "GPU_IS_LOST", "RESET_REQUIRED", "GPU_NOT_FOUND")
"""Errors after which nothing can be read any more; any other makes one reading absent."""
MIG_ENABLED = 1


class NvmlHandle:
    """NVML's handles of one device, and why what could not be read was refused.

    `device` is what computes: a card, or a MIG instance of it, of which `gpu_instance` is
    then the number and `card` the whole card. Without MIG that is `None`, and both are the same.
    """

    def __init__(self, which: int | CudaDevice) -> None:
        """Find a device as CUDA names it, or else by NVML's index of cards in bus order.

        Raises:
            DeviceUnavailable: nvidia-ml-py or the driver is missing, or there is no such device.
        """
        self.nvml = _initialised()
        self.unavailable: dict[str, str] = {}
        self.fatal = frozenset(getattr(self.nvml, f"NVML_ERROR_{name}") for name in FATAL)
        self._is_open = True
        self._label = f"GPU {which if isinstance(which, int) else which.ordinal}"
        try:
            self.device = self._by_index(which) if isinstance(which, int) else self._by_cuda(which)
            self.gpu_instance = self._instance()
            self.card = self.device
            if self.gpu_instance is not None:
                self.card = self.nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self.device)
            elif isinstance(which, CudaDevice):
                self._require_undivided(which)
        except self.nvml.NVMLError as error:
            self.close()
            raise DeviceUnavailable(
                f"{self._label} must be found by NVML, but got {error}; see nvidia-smi -L"
            ) from error
        except DeviceUnavailable:
            self.close()
            raise

    def read(self, reading: str, *calls: tuple[Any, ...]) -> Any | None:
        """Return the first of `calls` (name, arguments…) that answers, `None` if none does.

        Args:
            reading: what is read, under which a refusal is kept in `unavailable`.
            calls: functions of `pynvml` with all their arguments, the preferred one first.

        Raises:
            DeviceUnavailable: the GPU or its driver has gone.
        """
        for name, *arguments in calls:
            try:
                value = getattr(self.nvml, name)(*arguments)
            except self.nvml.NVMLError as error:
                self.raise_if_fatal(error)
                self.unavailable[reading] = str(error)
            else:
                self.unavailable.pop(reading, None)
                return value
        return None

    def raise_if_fatal(self, error: Any) -> None:
        """Raise `DeviceUnavailable` where an `NVMLError` means that nothing can be read any more.

        Raises:
            DeviceUnavailable: the GPU or its driver has gone.
        """
        if error.value in self.fatal:
            raise DeviceUnavailable(
                f"{self._label} must answer, but got {error}; see dmesg for its fault"
            ) from error

    def close(self) -> None:
        """Shut NVML down for this device; safe to call twice."""
        if self._is_open:
            self._is_open = False
            self.nvml.nvmlShutdown()

    def _by_index(self, index: int) -> Any:
        try:
            handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
        except self.nvml.NVMLError as error:
            raise DeviceUnavailable(
                f"the device must be one of {self.nvml.nvmlDeviceGetCount()} GPUs counted from "
                f"0, but got {index} ({error}); see nvidia-smi -L"
            ) from error
        self.unavailable["mapping"] = (
            "opened by NVML's index, which need not be the GPU of that number under CUDA"
        )
        return handle

    def _by_cuda(self, device: CudaDevice) -> Any:
        """Find what CUDA shows: by UUID under either prefix, else by where the card sits."""
        octets = device.uuid.partition("-")[2]
        for uuid in (device.uuid, f"GPU-{octets}", f"MIG-{octets}"):
            try:
                return self.nvml.nvmlDeviceGetHandleByUUID(uuid)
            except self.nvml.NVMLError as error:
                self.raise_if_fatal(error)
        return self.nvml.nvmlDeviceGetHandleByPciBusId(device.pci_bus_id)

    def _require_undivided(self, card: CudaDevice) -> None:
        """Refuse a whole card where CUDA can only have meant a part of it."""
        try:
            current, _ = self.nvml.nvmlDeviceGetMigMode(self.device)
        except self.nvml.NVMLError as error:
            # Most cards cannot be divided, and so do not know the question.
            self.raise_if_fatal(error)
            return
        if current == MIG_ENABLED:
            raise DeviceUnavailable(
                f"a MIG instance must be found by its UUID, but NVML knows none for {card.uuid} "
                f"on the card at {card.pci_bus_id}; the card's figures are not the instance's"
            )

    def _instance(self) -> int | None:
        try:
            is_instance = self.nvml.nvmlDeviceIsMigDeviceHandle(self.device).value
        except self.nvml.NVMLError as error:
            # A driver from before MIG does not know the question.
            self.raise_if_fatal(error)
            return None
        return int(self.nvml.nvmlDeviceGetGpuInstanceId(self.device)) if is_instance else None


def _initialised() -> Any:
    """Return `pynvml` with the driver's library loaded; imported only here, for few need it."""
    try:
        import pynvml
    except ImportError as error:
        raise DeviceUnavailable(
            f"NVML must be importable to read a GPU, but got {error}; install nvidia-ml-py"
        ) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DeviceUnavailable(
            f"a GPU must have NVIDIA's driver to be read, but got {error}; "
            "install the driver, or give this container access to it"
        ) from error
    return pynvml
