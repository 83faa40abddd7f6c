"""Throughput relative to what the device reached right beside it.

Apart from those who judge by it and those who export it, because both must relate the same two
figures: a machine that is slower today is slower at matrix products and copies too.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from storage.records import TrialRecord


def reach(probe: Mapping[str, Any]) -> float | None:
    """Return the geometric mean of what matmul and copy reached beside a measurement."""
    rates = [probe.get(name) for name in ("matmul_flops_per_s", "copy_bytes_per_s")]
    known = [float(rate) for rate in rates if rate]
    return statistics.geometric_mean(known) if len(known) == len(rates) else None


def sps_per_reach(records: Sequence[TrialRecord]) -> list[float]:
    """Return SPS over the reach measured beside it, for each record that has both."""
    return [
        record.sps / reached
        for record in records
        if record.sps is not None and (reached := reach(record.probe or {}))
    ]
