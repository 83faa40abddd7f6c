"""A device that plays recorded samples, so that what reads devices is tested with none.

Also shows a study's recorded samples through the same door as live ones.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo
from tuner.errors import UsageError

WHOLE_NUMBERS = ("memory_bytes", "throttle_reasons")
FIELDS = tuple(field.name for field in fields(DeviceSample))


class RecordingEnded(EOFError):
    """Every recorded sample has been played."""


class ReplayDevice:
    """Plays samples in their order, one for each call, with the times they were recorded at."""

    def __init__(
        self, samples: Iterable[DeviceSample], info: DeviceInfo, *, util_source: str = "replay"
    ) -> None:
        """Play `samples` of a device; `util_source` is what their `util` came from, if known."""
        self._samples = iter(tuple(samples))
        self._info = info
        self._util_source = util_source

    @classmethod
    def from_file(
        cls, path: Path, info: DeviceInfo, *, util_source: str = "replay"
    ) -> "ReplayDevice":
        """Play the samples of a file.

        Raises:
            UsageError: as `read_samples`.
        """
        return cls(read_samples(path), info, util_source=util_source)

    @property
    def util_source(self) -> str:
        """What `util` of the recorded samples came from."""
        return self._util_source

    def info(self) -> DeviceInfo:
        """Return what the recorded device was."""
        return self._info

    def watch(self, pid: int | None) -> None:
        """Do nothing: the recording knows one process."""

    def sample(self) -> DeviceSample:
        """Return the next recorded sample.

        Raises:
            RecordingEnded: after the last one.
        """
        for sample in self._samples:
            return sample
        raise RecordingEnded("the recording has no more samples")

    def close(self) -> None:
        """Do nothing: no handle is held."""


def read_samples(path: Path) -> tuple[DeviceSample, ...]:
    """Read samples from JSON lines (`.jsonl`, one object a line) or CSV (`.csv`, with a header).

    Names are the fields of `DeviceSample`; an absent, null or empty one was not measured.

    Raises:
        UsageError: the file or a line of it cannot be read, or times do not increase.
    """
    rows = {".jsonl": _json_rows, ".csv": _csv_rows}.get(path.suffix)
    if rows is None:
        raise UsageError(f"recorded samples must be a .jsonl or .csv file, but got {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"recorded samples must be readable, but got {error.strerror} for {path}"
        ) from error
    samples = []
    for line, row in rows(text, path):
        samples.append(_parse(row, f"{path} line {line}"))
    _require_order(samples, path)
    return tuple(samples)


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(
                f"each line must be a JSON object, but got {line[:40]!r} at {path} line {number}"
            ) from error
        if not isinstance(row, dict):
            raise UsageError(
                f"each line must be a JSON object, but got {line[:40]!r} at {path} line {number}"
            )
        yield number, row


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    del path
    yield from enumerate(csv.DictReader(text.splitlines()), start=2)


def _parse(row: Mapping[str, Any], where: str) -> DeviceSample:
    unknown = [str(name) for name in row if name not in FIELDS]
    if unknown:
        raise UsageError(
            f"fields must be among {', '.join(FIELDS)}, but got {', '.join(unknown)} at {where}"
        )
    values: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value == "":
            continue
        try:
            values[name] = int(value) if name in WHOLE_NUMBERS else float(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name} must be a number, but got {value!r} at {where}") from error
    if "t" not in values:
        raise UsageError(f"t must be given in every sample, but got none at {where}")
    return DeviceSample(**values)


def _require_order(samples: Sequence[DeviceSample], path: Path) -> None:
    for before, after in pairwise(samples):
        if after.t <= before.t:
            raise UsageError(
                f"times must increase, but got {after.t} after {before.t} in {path}; sort the file"
            )
