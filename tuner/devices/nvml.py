"""An NVIDIA GPU, read through NVML (the module `pynvml` of nvidia-ml-py).

Apart from `cpu` because every call here may be refused by card, driver or permission on its own.
The parent process reads it without opening the device for computing.
"""

import time
from typing import Any

import psutil

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo, DeviceUnavailable, DeviceUser
from tuner.devices.cpu import CpuDevice

FATAL = ("UNINITIALIZED", "DRIVER_NOT_LOADED", "GPU_IS_LOST", "RESET_REQUIRED", "GPU_NOT_FOUND")
"""Errors after which nothing can be read any more; any other makes one reading absent."""


class NvmlDevice:
    """One GPU by its NVML index, which counts every card in bus order.

    `util` is `nvmlDeviceGetUtilizationRates().gpu`: the share of the last 1/6 to 1 s in which any
    kernel ran, a sign of life rather than of work. `memory_bytes` is NVML's "used", everyone's
    together. `cpu_s`, `other_cpu_percent` and `steal_percent` describe the host, as `CpuDevice`.
    """

    util_source = "nvml"

    def __init__(self, index: int = 0) -> None:
        """Open GPU `index`.

        Raises:
            DeviceUnavailable: nvidia-ml-py or the driver is missing, or there is no such GPU.
        """
        self._nvml = _initialised()
        self._is_open = True
        self._index = index
        self._unavailable: dict[str, str] = {}
        self._fatal = frozenset(getattr(self._nvml, f"NVML_ERROR_{name}") for name in FATAL)
        self._last_seen_us = 0
        self._watched: int | None = None
        self._host = CpuDevice()
        try:
            self._handle = self._open()
            self._seen_before = frozenset(self._holders() or {})
            self._info = self._describe()
        except DeviceUnavailable:
            self.close()
            raise

    def info(self) -> DeviceInfo:
        """Return the card's full name, memory, driver and limits, and its host."""
        return self._info

    @property
    def unavailable(self) -> dict[str, str]:
        """Readings that were refused when last tried, by name, with NVML's reason."""
        return dict(self._unavailable)

    def watch(self, pid: int | None) -> None:
        """Take process `pid` and its children as ours; `None`: this process.

        Processes on the device when nothing but this process is watched belong to others.
        """
        self._host.watch(pid)
        self._watched = pid
        if pid is None:
            self._seen_before = frozenset(self._holders() or {})

    def sample(self) -> DeviceSample:
        """Read every counter now.

        Raises:
            DeviceUnavailable: the GPU or its driver has gone.
        """
        host = self._host.sample()
        rates = self._read("utilisation", ("nvmlDeviceGetUtilizationRates",))
        memory = self._read_memory()
        power = self._read("power", ("nvmlDeviceGetPowerUsage",))
        energy = self._read("energy", ("nvmlDeviceGetTotalEnergyConsumption",))
        return DeviceSample(
            t=time.monotonic(),
            util=None if rates is None else float(rates.gpu),
            cpu_s=host.cpu_s,
            memory_bytes=None if memory is None else int(memory.used),
            temperature_c=self._read_temperature(),
            power_w=None if power is None else power / 1e3,
            energy_j=None if energy is None else energy / 1e3,
            throttle_reasons=self._read(
                "throttling",
                ("nvmlDeviceGetCurrentClocksEventReasons",),
                ("nvmlDeviceGetCurrentClocksThrottleReasons",),
            ),
            other_cpu_percent=host.other_cpu_percent,
            steal_percent=host.steal_percent,
        )

    def users(self) -> tuple[DeviceUser, ...] | None:
        """Return the processes that hold the device, `None` where the driver does not tell.

        A driver may give the host's numbers to a container. One that is not visible here, came
        after the trial was started and is the only such is then the trial's own.
        """
        holders = self._holders()
        if holders is None:
            return None
        busy = self._read_sm_utils()
        ours = self._ours(holders)
        return tuple(
            DeviceUser(
                pid=pid,
                name=_process_name(pid),
                memory_bytes=memory,
                sm_util=None if busy is None else busy.get(pid, 0.0),
                is_ours=ours[pid],
            )
            for pid, memory in sorted(holders.items())
        )

    def memory_of_others_bytes(self) -> int | None:
        """Return what others hold: the memory in use less that of our own processes.

        `None` where the memory of a process, or whose it is, cannot be told.
        """
        memory, users = self._read_memory(), self.users()
        if memory is None or users is None or any(user.is_ours is None for user in users):
            return None
        ours = [user.memory_bytes for user in users if user.is_ours]
        known = [held for held in ours if held is not None]
        return max(0, int(memory.used) - sum(known)) if len(known) == len(ours) else None

    def close(self) -> None:
        """Shut NVML down for this device; safe to call twice."""
        if self._is_open:
            self._is_open = False
            self._nvml.nvmlShutdown()

    def _open(self) -> Any:
        try:
            return self._nvml.nvmlDeviceGetHandleByIndex(self._index)
        except self._nvml.NVMLError as error:
            raise DeviceUnavailable(
                f"the device must be one of {self._nvml.nvmlDeviceGetCount()} GPUs counted from "
                f"0, but got {self._index} ({error}); see nvidia-smi -L"
            ) from error

    def _describe(self) -> DeviceInfo:
        host = self._host.info()
        memory = self._read_memory()
        limit = self._read("power limit", ("nvmlDeviceGetEnforcedPowerLimit",))
        return DeviceInfo(
            kind="gpu",
            name=self._read("name", ("nvmlDeviceGetName",)) or f"NVIDIA GPU {self._index}",
            memory_bytes=None if memory is None else int(memory.total),
            uuid=self._read("uuid", ("nvmlDeviceGetUUID",)),
            driver=self._driver_version(),
            platform="cuda",
            cpu=host.cpu,
            cores=host.cores,
            compute_capability=self._read(
                "compute capability", ("nvmlDeviceGetCudaComputeCapability",)
            ),
            power_limit_w=None if limit is None else limit / 1e3,
        )

    def _read(self, reading: str, *calls: tuple[Any, ...]) -> Any | None:
        """Return the first of `calls` (name, arguments…) that answers, `None` if none does."""
        for name, *arguments in calls:
            try:
                value = getattr(self._nvml, name)(self._handle, *arguments)
            except self._nvml.NVMLError as error:
                if error.value in self._fatal:
                    raise DeviceUnavailable(
                        f"GPU {self._index} must answer, but got {error}; see dmesg for its fault"
                    ) from error
                self._unavailable[reading] = str(error)
            else:
                self._unavailable.pop(reading, None)
                return value
        return None

    def _driver_version(self) -> str | None:
        try:
            return str(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            return None

    def _read_memory(self) -> Any | None:
        """Return total and used bytes; version 2 leaves the driver's reserve out of "used"."""
        versions = (self._nvml.nvmlMemory_v2, None)
        return self._read("memory", *(("nvmlDeviceGetMemoryInfo", v) for v in versions))

    def _read_temperature(self) -> float | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        celsius = self._read(
            "temperature",
            ("nvmlDeviceGetTemperatureV", sensor),
            ("nvmlDeviceGetTemperature", sensor),
        )
        return None if celsius is None else float(celsius)

    def _holders(self) -> dict[int, int | None] | None:
        """Return the bytes held by each process on the device, `None` where it does not tell."""
        # By version, for the names without one raise no NVMLError under an older driver.
        compute, graphics = (
            self._read(
                f"{kind.lower()} processes",
                (f"nvmlDeviceGet{kind}RunningProcesses_v3",),
                (f"nvmlDeviceGet{kind}RunningProcesses_v2",),
            )
            for kind in ("Compute", "Graphics")
        )
        if compute is None:
            return None
        return {process.pid: process.usedGpuMemory for process in [*(graphics or []), *compute]}

    def _ours(self, holders: dict[int, int | None]) -> dict[int, bool | None]:
        family = self._host.watched_pids()
        ours: dict[int, bool | None] = {pid: pid in family for pid in holders}
        if self._watched is not None and not any(ours.values()):
            hidden = [p for p in holders if p not in self._seen_before and not psutil.pid_exists(p)]
            ours.update(dict.fromkeys(hidden, True if len(hidden) == 1 else None))
        return ours

    def _read_sm_utils(self) -> dict[int, float] | None:
        """Return the highest SM share of each process since the last call, in percent.

        The driver lists only processes that computed, and finds nothing when none did.
        """
        nothing = (self._nvml.NVML_SUCCESS, self._nvml.NVML_ERROR_NOT_FOUND)
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, self._last_seen_us)
        except self._nvml.NVMLError as error:
            return {} if error.value in nothing else None
        shares: dict[int, float] = {}
        for sample in samples:
            self._last_seen_us = max(self._last_seen_us, sample.timeStamp)
            shares[sample.pid] = max(shares.get(sample.pid, 0.0), float(sample.smUtil))
        return shares


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


def _process_name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None
