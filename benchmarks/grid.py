"""An exhaustive table of measurements: every config of a space, several times, with its curves.

Apart from `record_grid.py` because what replays a table measures nothing. A finished table is one
compressed JSON document; while it is recorded it is a file of JSON lines, which a killed recording
is resumed from.
"""

import argparse
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from storage.records import CurvePoint, TrialRecord
from storage.series import finite, from_columns, to_columns
from tuner.aggregate import hardware_of
from tuner.hardware import differing_fact
from tuner.measurement import Evaluation, Measurement
from tuner.outcome import Outcome
from tuner.space import HardwareConfig
from tuner.throughput import measure_throughput

VERSION = 1
SUFFIX = ".json.gz"
_MUST_AGREE = ("version", "settings", "space", "env_steps")
"""What a recording must share with the one that it goes on with, beside device and versions."""
_OF_A_SITTING = ("command", "date", "device", "versions")
"""What it need not: a table that was gone on with has these facts of its first and last sitting."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of the table; `repeat` is its seed as well."""

    record: TrialRecord
    curve: tuple[CurvePoint, ...]
    evaluation: Evaluation | None

    @property
    def config(self) -> HardwareConfig:
        """What was measured."""
        return hardware_of(self.record)

    @property
    def repeat(self) -> int:
        """Which time it was, from 0."""
        return self.record.replicate

    @classmethod
    def of(cls, measurement: Measurement) -> "Row":
        """Return the row of a measurement; samples of the device are left out."""
        return cls(measurement.record, measurement.curve, measurement.evaluation)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        """Return the row that `as_json` gave."""
        record = dict(data["record"])
        if record.get("sps_ci95") is not None:
            record["sps_ci95"] = tuple(record["sps_ci95"])
        evaluation = data["evaluation"]
        if evaluation is not None:
            evaluation = Evaluation(
                **{**evaluation, "earlier": tuple(evaluation.get("earlier", ()))}
            )
        return cls(
            TrialRecord(**record), tuple(from_columns(CurvePoint, data["curve"])), evaluation
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain data, without what was not measured."""
        record = {name: value for name, value in self.record.as_dict().items() if value is not None}
        evaluation = None if self.evaluation is None else asdict(self.evaluation)
        data = {"record": record, "curve": to_columns(self.curve), "evaluation": evaluation}
        return {name: finite(value) for name, value in data.items()}

    def measurement(self, outcome: Outcome) -> Measurement:
        """Return the measurement again, as a study takes it."""
        blocks = [(self._block_env_steps(index), point.seconds)
                  for index, point in enumerate(self.curve)]  # fmt: skip
        return Measurement(
            record=self.record,
            curve=self.curve,
            samples=(),
            throughput=measure_throughput(blocks),
            evaluation=self.evaluation,
            outcome=outcome,
        )

    def _block_env_steps(self, index: int) -> int:
        before = self.curve[index - 1].env_steps if index else 0
        return self.curve[index].env_steps - before


@dataclass(frozen=True, slots=True)
class Grid:
    """A recorded table: what it was recorded on and with (`facts`), and its rows."""

    facts: dict[str, Any]
    rows: tuple[Row, ...]


def add_grids(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where recorded tables lie; see `tables_of`."""
    parser.add_argument("--grids", type=Path, default=Path(__file__).with_name("grids"))


def tables_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[Path]:
    """Return the recorded tables that were asked for; it is wrong usage if there are none."""
    tables = sorted(arguments.grids.glob(f"*{SUFFIX}"))
    if not tables:
        parser.error(f"--grids must hold recorded tables, but got {arguments.grids}; record one")
    return tables


def name_of(table: Path) -> str:
    """Return the name that a table was recorded under."""
    return table.name.removesuffix(SUFFIX)


def environment_of(grid: Grid) -> str:
    """Return what a table's configs were trained on: its tables are no strangers to each other."""
    settings = grid.facts["settings"]
    return json.dumps({name: settings.get(name) for name in ("env", "env_params")})


def write_grid(path: Path, grid: Grid) -> None:
    """Write a finished table; equal tables make equal files."""
    document = {**grid.facts, "rows": [row.as_json() for row in grid.rows]}
    text = json.dumps(finite(document), ensure_ascii=False, allow_nan=False)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_grid(path: Path) -> Grid:
    """Read a finished table.

    Raises:
        ValueError: it is of another version of this format.
    """
    document = json.loads(gzip.decompress(path.read_bytes()))
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path} must be a grid of version {VERSION}, but got {document.get('version')!r}"
        )
    rows = tuple(Row.from_json(row) for row in document.pop("rows"))
    return Grid(document, rows)


def reopen(path: Path, grid: Grid) -> None:
    """Write a finished table as the recording that it was, to be gone on with.

    Raises:
        ValueError: its policies were evaluated at their end alone, which new ones would not be.
    """
    if any(row.evaluation is not None and not row.evaluation.earlier for row in grid.rows):
        raise ValueError(
            "a table that is gone on with must hold evaluations at milestones, but this one has "
            "final ones alone; record it anew, with another --out"
        )
    lines = [grid.facts, *(row.as_json() for row in grid.rows)]
    path.write_bytes(b"".join(_line(data) for data in lines))


class Recording:
    """A table that is being recorded: a file of JSON lines, the facts first.

    Use it as a context manager. A last line that was cut off is dropped and measured again.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Begin a recording, or go on with the one in `path`.

        Raises:
            ValueError: that one was made on another device, or with other versions or settings.
        """
        self.path = path
        self.facts = dict(facts)
        self.rows: list[Row] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = 0
        if path.exists():
            for number, line in enumerate(_whole_lines(path)):
                data = json.loads(line)
                if number == 0:
                    self._require_same(data)
                    self.facts = data | {"last_sitting": {n: facts.get(n) for n in _OF_A_SITTING}}
                else:
                    self.rows.append(Row.from_json(data))
                kept += len(line)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "wb")
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._add(self.facts)

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Add a row; it is in the file when this returns."""
        self.rows.append(row)
        self._add(row.as_json())

    def row(self, config: HardwareConfig, repeat: int) -> Row | None:
        """Return a measurement, the best one where it was made more than once; see `_rank`."""
        return self._best().get((config, repeat))

    def grid(self) -> Grid:
        """Return the table, by config and repeat."""
        return Grid(self.facts, tuple(row for _, row in sorted(self._best().items())))

    def _best(self) -> dict[tuple[HardwareConfig, int], Row]:
        found: dict[tuple[HardwareConfig, int], Row] = {}
        for row in self.rows:
            before = found.get((row.config, row.repeat))
            if before is None or _rank(row) > _rank(before):
                found[row.config, row.repeat] = row
        return found

    def _add(self, data: Mapping[str, Any]) -> None:
        self._file.write(_line(data))
        self._file.flush()

    def _require_same(self, stored: Mapping[str, Any]) -> None:
        here = finite(json.loads(json.dumps(self.facts)))
        differing = [name for name in _MUST_AGREE if stored.get(name) != here.get(name)]
        # As a study: the memory of a host may move a little from one start to the next.
        if differing_fact(stored["device"], here["device"]) is not None:
            differing.append("device")
        then, now = stored["versions"], here["versions"]
        if any(then[name] != now[name] for name in then.keys() & now.keys()):
            differing.append("versions")
        if differing:
            name = differing[0]
            raise ValueError(
                f"a recording must go on with the same {name}, but {self.path} has "
                f"{stored.get(name)!r} and got {here.get(name)!r}; finish it as it was begun, "
                "or move that file away"
            )


def _rank(row: Row) -> tuple[bool, bool]:
    """Return how much a measurement tells: what crashed says nothing, what was disturbed less."""
    return row.record.status != "crashed", row.record.contaminated is None


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(finite(data), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
