"""What the multiprocessors of a GPU really did between two moments: NVIDIA's GPM counters.

Apart from `nvml` because these figures describe an interval between two samples that must be kept,
where NVML's other readings describe the moment. Hopper and newer; a card may say that it supports
them and still answer nothing, so they count only once they have been seen to answer.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

from tuner.devices.base import DeviceUnavailable
from tuner.devices.nvml_handle import NvmlHandle

MIN_INTERVAL_S = 0.1
"""NVML asks for at least 100 ms between two samples."""
METRICS = {
    "sm_util": ("sm activity", "NVML_GPM_METRIC_SM_UTIL"),
    "sm_occupancy": ("sm occupancy", "NVML_GPM_METRIC_SM_OCCUPANCY"),
    "tensor_util": ("tensor activity", "NVML_GPM_METRIC_ANY_TENSOR_UTIL"),
    "dram_util": ("dram bandwidth", "NVML_GPM_METRIC_DRAM_BW_UTIL"),
}
"""By field: what a refusal is kept under, and the metric's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpmMetrics:
    """Percent over the interval between two samples; `None` where the metric did not answer.

    `sm_util` is the share of multiprocessors that were busy, `sm_occupancy` that of warps that
    were resident, `tensor_util` the time with tensor instructions, `dram_util` the share of the
    memory's bandwidth.
    """

    sm_util: float | None = None
    sm_occupancy: float | None = None
    tensor_util: float | None = None
    dram_util: float | None = None


class GpmReader:
    """Reads GPM between one call and the next. Holds two samples of the driver: close it.

    Source: `nvmlGpmSampleGet` (`nvmlGpmMigSampleGet` for a MIG instance), `nvmlGpmMetricsGet`.
    """

    def __init__(self, handle: NvmlHandle) -> None:
        """Take two samples 100 ms apart, to see whether the card answers.

        Raises:
            DeviceUnavailable: it does not; the message is the reason.
        """
        self._handle = handle
        self._nvml = handle.nvml
        self._request = self._make_request()
        self._samples: list[Any] = []
        self._before_t: float | None = None
        try:
            self._require_support()
            self._samples = [self._nvml.nvmlGpmSampleAlloc()]
            self._samples.append(self._nvml.nvmlGpmSampleAlloc())
            self._probe()
        except self._nvml.NVMLError as error:
            self.close()
            handle.raise_if_fatal(error)
            raise DeviceUnavailable(f"GPM must answer, but got {error}") from error
        except DeviceUnavailable:
            self.close()
            raise

    def restart(self) -> None:
        """Begin the next interval now.

        Raises:
            DeviceUnavailable: the GPU or its driver has gone.
        """
        self._before_t = None
        self.read()

    def read(self) -> GpmMetrics:
        """Return the figures since the call before; all absent within 100 ms of it.

        A metric that fails, is not finite or lies outside 0 to 100 is absent, with its reason in
        `NvmlHandle.unavailable`.

        Raises:
            DeviceUnavailable: the GPU or its driver has gone.
        """
        now = time.monotonic()
        if self._before_t is not None and now - self._before_t < MIN_INTERVAL_S:
            return GpmMetrics()
        try:
            self._take(self._samples[1])
        except self._nvml.NVMLError as error:
            self._handle.raise_if_fatal(error)
            self._refuse_all(str(error))
            return GpmMetrics()
        is_first, self._before_t = self._before_t is None, now
        # The newer sample becomes the older of the next interval, its memory is used again.
        before, after = self._samples
        self._samples = [after, before]
        return GpmMetrics() if is_first else self._between(before, after)

    def close(self) -> None:
        """Free the samples; safe to call twice."""
        samples, self._samples = self._samples, []
        for sample in samples:
            self._nvml.nvmlGpmSampleFree(sample)

    def _require_support(self) -> None:
        support = self._nvml.nvmlGpmQueryDeviceSupport(self._handle.card)
        if not support.isSupportedDevice:
            raise DeviceUnavailable("GPM must be supported, but got a card without it")

    def _probe(self) -> None:
        self.restart()
        time.sleep(MIN_INTERVAL_S)
        while time.monotonic() - (self._before_t or 0.0) < MIN_INTERVAL_S:
            time.sleep(MIN_INTERVAL_S / 10)
        if self.read().sm_util is None:
            what, _ = METRICS["sm_util"]
            reason = self._handle.unavailable.get(what, "nothing")
            raise DeviceUnavailable(f"GPM must answer, but got {reason}")

    def _make_request(self) -> Any:
        request = self._nvml.c_nvmlGpmMetricsGet_t()
        request.version = self._nvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(METRICS)
        for index, (_, metric) in enumerate(METRICS.values()):
            request.metrics[index].metricId = getattr(self._nvml, metric)
        return request

    def _take(self, sample: Any) -> None:
        instance = self._handle.gpu_instance
        if instance is None:
            self._nvml.nvmlGpmSampleGet(self._handle.card, sample)
        else:
            self._nvml.nvmlGpmMigSampleGet(self._handle.card, instance, sample)

    def _between(self, before: Any, after: Any) -> GpmMetrics:
        self._request.sample1, self._request.sample2 = before, after
        try:
            self._nvml.nvmlGpmMetricsGet(self._request)
        except self._nvml.NVMLError as error:
            self._handle.raise_if_fatal(error)
            self._refuse_all(str(error))
            return GpmMetrics()
        values = {field: self._value(index, field) for index, field in enumerate(METRICS)}
        return GpmMetrics(**values)

    def _value(self, index: int, field: str) -> float | None:
        what, _ = METRICS[field]
        metric = self._request.metrics[index]
        value = float(metric.value)
        if metric.nvmlReturn != self._nvml.NVML_SUCCESS:
            self._handle.unavailable[what] = str(self._nvml.NVMLError(metric.nvmlReturn))
        elif not (math.isfinite(value) and 0.0 <= value <= 100.0):
            self._handle.unavailable[what] = f"{value:g} is no percentage"
        else:
            self._handle.unavailable.pop(what, None)
            return value
        return None

    def _refuse_all(self, reason: str) -> None:
        self._handle.unavailable.update({what: reason for what, _ in METRICS.values()})
