"""An NVIDIA GPU, or a MIG instance of one, read through NVML (`pynvml` of nvidia-ml-py).

Apart from `cpu` because every call here may be refused by card, driver or permission on its own.
The parent process reads it without opening the device for computing.
"""

import time
from typing import Any

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo, DeviceUnavailable, DeviceUser
from tuner.devices.cpu import CpuDevice
from tuner.devices.cuda import CudaDevice
from tuner.devices.gpm import METRICS, GpmMetrics, GpmReader
from tuner.devices.nvml_handle import NvmlHandle
from tuner.devices.nvml_processes import DeviceProcesses

WHOLE_CARD = "the card measures it for all its MIG instances together"
"""Why a MIG instance has no power, energy or temperature of its own."""


class NvmlDevice:
    """One GPU. What `util` means is fixed when it is opened, and told by `util_source`.

    "gpm": the share of multiprocessors that were busy since the sample before. "nvml":
    `nvmlDeviceGetUtilizationRates().gpu`, the share of the last 1/6 to 1 s in which any kernel
    ran, a sign of life rather than of work; `gpu_util` is always that one. `memory_bytes` is
    NVML's "used", everyone's together. `cpu_s`, `other_cpu_percent` and `steal_percent` describe
    the host, as `CpuDevice`. Of a MIG instance, clocks and throttle reasons are the card's.
    """

    def __init__(self, which: int | CudaDevice = 0, *, util_source: str | None = None) -> None:
        """Open a GPU.

        Args:
            which: what CUDA shows, or else NVML's index, which counts every card in bus order.
            util_source: "gpm" or "nvml" to measure utilisation by nothing else, even if it does
                not answer; `None` takes GPM if it answers, else NVML's figure.

        Raises:
            DeviceUnavailable: nvidia-ml-py or the driver is missing, or there is no such GPU.
        """
        self._handle = NvmlHandle(which)
        self._gpm: GpmReader | None = None
        try:
            self._host = CpuDevice()
            self._processes = DeviceProcesses(self._handle, self._host)
            self._gpm = self._open_gpm()
            best = "nvml" if self._gpm is None else "gpm"
            self._util_source = best if util_source is None else util_source
            self._info = self._describe(which)
        except DeviceUnavailable:
            self.close()
            raise

    @property
    def util_source(self) -> str:
        """What `util` comes from: "gpm" or "nvml", or what was asked for."""
        return self._util_source

    def info(self) -> DeviceInfo:
        """Return the card's full name, memory, driver and limits, and its host."""
        return self._info

    @property
    def unavailable(self) -> dict[str, str]:
        """Readings that were refused when last tried, by name, with the reason."""
        return dict(self._handle.unavailable)

    def watch(self, pid: int | None) -> None:
        """Take process `pid` and its children as ours; `None`: this process.

        Processes on the device when nothing but this process is watched belong to others.
        """
        self._host.watch(pid)
        self._processes.watch(pid)
        if self._gpm is not None:
            self._gpm.restart()

    def sample(self) -> DeviceSample:
        """Read every counter now.

        Raises:
            DeviceUnavailable: the GPU or its driver has gone.
        """
        host = self._host.sample()
        metrics = GpmMetrics() if self._gpm is None else self._gpm.read()
        t = time.monotonic()
        gpu_util = self._read_gpu_util()
        memory = self._read_memory()
        clock = self._read_card("clocks", ("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM))
        power, energy, temperature = self._read_whole_card()
        return DeviceSample(
            t=t,
            util={"gpm": metrics.sm_util, "nvml": gpu_util}.get(self._util_source),
            cpu_s=host.cpu_s,
            memory_bytes=None if memory is None else int(memory.used),
            gpu_util=gpu_util,
            sm_util=metrics.sm_util,
            sm_occupancy=metrics.sm_occupancy,
            tensor_util=metrics.tensor_util,
            dram_util=metrics.dram_util,
            sm_clock_mhz=None if clock is None else float(clock),
            other_device_percent=self._processes.other_device_percent(),
            temperature_c=temperature,
            power_w=power,
            energy_j=energy,
            throttle_reasons=self._read_card(
                "throttling",
                ("nvmlDeviceGetCurrentClocksEventReasons",),
                ("nvmlDeviceGetCurrentClocksThrottleReasons",),
            ),
            other_cpu_percent=host.other_cpu_percent,
            steal_percent=host.steal_percent,
        )

    def users(self) -> tuple[DeviceUser, ...] | None:
        """Return the processes that hold the device, `None` where the driver does not tell.

        A driver may give the host's numbers to a container; see `DeviceProcesses`.
        """
        return self._processes.users()

    def memory_of_others_bytes(self) -> int | None:
        """Return what others hold: the memory in use less that of our own processes.

        `None` where the memory of a process, or whose it is, cannot be told.
        """
        memory = self._read_memory()
        return None if memory is None else self._processes.memory_of_others_bytes(int(memory.used))

    def close(self) -> None:
        """Free GPM's samples and shut NVML down for this device; safe to call twice."""
        try:
            if self._gpm is not None:
                self._gpm.close()
        finally:
            self._handle.close()

    @property
    def _nvml(self) -> Any:
        return self._handle.nvml

    @property
    def _is_mig(self) -> bool:
        return self._handle.gpu_instance is not None

    def _open_gpm(self) -> GpmReader | None:
        try:
            return GpmReader(self._handle)
        except DeviceUnavailable as error:
            refused = {what: str(error) for what, _ in METRICS.values()}
            self._handle.unavailable.update(refused)
            return None

    def _describe(self, which: int | CudaDevice) -> DeviceInfo:
        host = self._host.info()
        memory = self._read_memory()
        pci = self._read_card("pci bus id", ("nvmlDeviceGetPciInfo",))
        clock = self._read_card(
            "max clock", ("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM)
        )
        limit = None
        if not self._is_mig:
            limit = self._read_card("power limit", ("nvmlDeviceGetEnforcedPowerLimit",))
        return DeviceInfo(
            kind="gpu",
            name=self._read_name() or _fallback_name(which),
            memory_bytes=None if memory is None else int(memory.total),
            uuid=self._handle.read("uuid", ("nvmlDeviceGetUUID", self._handle.device)),
            driver=self._handle.read("driver", ("nvmlSystemGetDriverVersion",)),
            platform="cuda",
            cpu=host.cpu,
            cores=host.cores,
            compute_capability=self._read_card(
                "compute capability", ("nvmlDeviceGetCudaComputeCapability",)
            ),
            power_limit_w=None if limit is None else limit / 1e3,
            pci_bus_id=None if pci is None else str(pci.busId),
            sm_clock_max_mhz=None if clock is None else float(clock),
            is_mig=self._is_mig,
            no_util_reason=self._no_util_reason(),
        )

    def _no_util_reason(self) -> str | None:
        """Say why no sample will have a utilisation; `None` if one may."""
        refused = self._handle.unavailable
        if self._util_source == "gpm":
            what, _ = METRICS["sm_util"]
            return refused[what] if self._gpm is None else None
        if self._util_source != "nvml":
            return f'the source must be "gpm" or "nvml" on a GPU, but got "{self._util_source}"'
        return None if self._read_gpu_util() is not None else refused["utilisation"]

    def _read_name(self) -> str | None:
        """Return the whole name: a MIG instance's with the card's."""
        name = self._handle.read("name", ("nvmlDeviceGetName", self._handle.device))
        if not self._is_mig:
            return None if name is None else str(name)
        card = self._read_card("card name", ("nvmlDeviceGetName",))
        if name is None or card is None or name.startswith(card):
            return name or card
        return f"{card} {name}"

    def _read_card(self, reading: str, *calls: tuple[Any, ...]) -> Any | None:
        """Read from the whole card; the handle goes before the other arguments of a call."""
        card = self._handle.card
        return self._handle.read(reading, *((name, card, *arguments) for name, *arguments in calls))

    def _read_gpu_util(self) -> float | None:
        if self._is_mig:
            self._handle.unavailable["utilisation"] = "NVML has no utilisation of a MIG instance"
            return None
        rates = self._read_card("utilisation", ("nvmlDeviceGetUtilizationRates",))
        return None if rates is None else float(rates.gpu)

    def _read_memory(self) -> Any | None:
        """Return total and used bytes; version 2 leaves the driver's reserve out of "used"."""
        versions = (self._nvml.nvmlMemory_v2, None)
        device = self._handle.device
        calls = (("nvmlDeviceGetMemoryInfo", device, version) for version in versions)
        return self._handle.read("memory", *calls)

    def _read_whole_card(self) -> tuple[float | None, float | None, float | None]:
        """Return power (W), energy so far (J) and temperature (°C), all of the whole card."""
        if self._is_mig:
            for what in ("power", "energy", "temperature"):
                self._handle.unavailable[what] = WHOLE_CARD
            return None, None, None
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        power = self._read_card("power", ("nvmlDeviceGetPowerUsage",))
        energy = self._read_card("energy", ("nvmlDeviceGetTotalEnergyConsumption",))
        celsius = self._read_card(
            "temperature",
            ("nvmlDeviceGetTemperatureV", sensor),
            ("nvmlDeviceGetTemperature", sensor),
        )
        return (
            None if power is None else power / 1e3,
            None if energy is None else energy / 1e3,
            None if celsius is None else float(celsius),
        )


def _fallback_name(which: int | CudaDevice) -> str:
    return f"NVIDIA GPU {which}" if isinstance(which, int) else which.name
