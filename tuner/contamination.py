"""What disturbs a measurement, and when a disturbed one is made again.

Apart from the measurement because the same rules say what counts, what is repeated and when a
whole machine is too noisy.
"""

from collections.abc import Sequence

from storage.records import TrialRecord
from tuner.devices.base import SLOWDOWN_REASONS
from tuner.devices.stats import DeviceStats

FOREIGN_LOAD_PERCENT = 10.0
"""Steal or load of other processes above which a measurement is contaminated."""
COMPUTING_PERCENT = 1.0
"""Share of a device above which another process computes on it rather than holds memory."""
MOST_IN_VAIN = 3
"""Repeats in a row that were disturbed again, after which repeating is given up."""


def contamination(stats: DeviceStats) -> str | None:
    """Say what else used the machine or slowed the device during the window.

    A power cap that software holds is the device's normal state and no disturbance.
    """
    if (stats.throttle_reasons or 0) & SLOWDOWN_REASONS:
        return f"the device slowed itself down (reasons {stats.throttle_reasons:#x})"
    if (stats.other_device_percent or 0.0) > COMPUTING_PERCENT:
        return f"another process computed on {stats.other_device_percent:.0f} % of the device"
    if (stats.steal_percent or 0.0) > FOREIGN_LOAD_PERCENT:
        return f"steal of {stats.steal_percent:.0f} % of its cores"
    if (stats.other_cpu_percent or 0.0) > FOREIGN_LOAD_PERCENT:
        return f"load of other processes of {stats.other_cpu_percent:.0f} % of its cores"
    return None


def is_noisy(records: Sequence[TrialRecord]) -> bool:
    """Whether more than half of the measurements that succeeded were disturbed."""
    measured = [record for record in records if record.status == "success"]
    return 2 * sum(record.contaminated is not None for record in measured) > len(measured)


class Repeats:
    """Decides whether a disturbed measurement is made again: once, while that helps at all."""

    def __init__(self) -> None:
        self._in_vain = 0

    def wants(self, record: TrialRecord) -> bool:
        """Whether a measurement that was not a repeat should be made again."""
        if record.status != "success":
            return False
        if record.contaminated is None:
            self._in_vain = 0
            return False
        return self._in_vain < MOST_IN_VAIN

    def saw(self, record: TrialRecord) -> None:
        """Take note of what became of a repeat."""
        helped = record.status == "success" and record.contaminated is None
        self._in_vain = 0 if helped else self._in_vain + 1
