"""What was measured and is not in the database yet, in a file beside the study's logs.

A measurement takes minutes and a database can be away, so it goes to a file first and is deleted
from it when the database has it. Each process has a file of its own, whose lock dies with it: what
an ended process left is saved by the next one that runs the study. Saving it twice changes nothing.
A file's name holds the study's id: another study of the same name, in another database or begun
anew, leaves it alone.
"""

import fcntl
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from storage.atomic import sync_folder
from storage.records import CurvePoint, DeviceSample, TrialRecord, record_from_dict
from storage.series import finite, from_columns, to_columns

VERSION = 1
_HAS_ID = re.compile(r"journal-[0-9a-f]{16}-")


@dataclass(frozen=True, slots=True)
class Entry:
    """One measurement of a study, with its training curve and device samples."""

    study: str
    record: TrialRecord
    curve: tuple[CurvePoint, ...] = ()
    samples: tuple[DeviceSample, ...] = ()


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What ended processes left: the entries that are saved now, and files with lines not ours.

    `busy` are files that others hold: who wrote them, or who is saving them at this moment.
    """

    entries: tuple[Entry, ...] = ()
    unreadable: tuple[Path, ...] = ()
    busy: tuple[Path, ...] = ()


class Journal:
    """The measurements of this process that wait for the database.

    Where the disk does not take them they wait in memory, `fault` says why, and `write` tries
    again.
    """

    def __init__(self, folder: Path, study_id: str) -> None:
        """Make a study's journal in a folder; there is no file while nothing waits."""
        own = _prefix(study_id, socket.gethostname(), os.getpid())
        self.path = folder / f"{own}{secrets.token_hex(4)}.jsonl"
        self.fault: str | None = None
        self._file: BinaryIO | None = None
        self._waiting: list[Entry] = []
        self._written = 0

    def add(self, entry: Entry) -> None:
        """Let a measurement wait; it is on the disk when this returns, unless there is a fault."""
        self._waiting.append(entry)
        self.write()

    def write(self) -> None:
        """Bring to the disk what waits in memory only."""
        try:
            for entry in self._waiting[self._written :]:
                self._append(entry)
                self._written += 1
        except OSError as error:
            self.fault = error.strerror or str(error)
        else:
            self.fault = None

    def settle(self, save: Callable[[Entry], None]) -> None:
        """Save every measurement that waits, and forget it."""
        for entry in self._waiting:
            save(entry)
        self._waiting.clear()
        self._written = 0
        self.fault = None
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def describe(self) -> str:
        """Return what waits and where, in words."""
        if not self._waiting:
            return "the study waits"
        trials = ", ".join(
            str(number) for number in sorted({e.record.trial for e in self._waiting})
        )
        what = f"the measurement of trial {trials} waits"
        if self.fault is None:
            return f"{what} in {self.path}"
        return f"{what} in memory only, for {self.path} cannot be written ({self.fault})"

    def _append(self, entry: Entry) -> None:
        """Write one line whole or not at all."""
        file = self._file or self._open()
        line, end = _to_line(entry), file.seek(0, os.SEEK_END)
        try:
            written = file.write(line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise

    def _open(self) -> BinaryIO:
        # The name comes last: a file that has it and no lock belongs to a process that has ended.
        hidden = self.path.with_name(f".{self.path.name}.tmp")
        file = open(hidden, "xb", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            hidden.rename(self.path)
            sync_folder(self.path.parent)
        except BaseException:
            file.close()
            hidden.unlink(missing_ok=True)
            raise
        self._file = file
        return file


def save_leftovers(folder: Path, study_id: str, save: Callable[[Entry], None]) -> Leftovers:
    """Save what ended processes of a study left in a folder, and delete their files.

    A torn last line, which a kill or a full disk leaves, is no entry. A file with other lines that
    cannot be read is kept under another name.

    Raises:
        OSError: a file cannot be read or deleted.
    """
    entries: list[Entry] = []
    unreadable: list[Path] = []
    busy: list[Path] = []
    for path in _journals(folder, study_id):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue  # another process has just saved it
        with file:
            if not _is_ours_now(file):
                busy.append(path)
                continue
            found, is_sound = _read(file.read().splitlines(keepends=True))
            for entry in found:
                save(entry)
            entries += found
            if is_sound:
                path.unlink(missing_ok=True)
            else:
                unreadable.append(path.rename(path.with_suffix(".unreadable")))
    return Leftovers(tuple(entries), tuple(unreadable), tuple(busy))


def is_journal_of(path: Path, study_id: str, host: str, pid: int) -> bool:
    """Whether a process of this id on this host wrote a journal of a study."""
    return path.name.startswith(_prefix(study_id, host, pid))


def _prefix(study_id: str, host: str, pid: int) -> str:
    return f"{_start(study_id)}{''.join(c if c.isalnum() else '-' for c in host)}-{pid}-"


def _start(study_id: str) -> str:
    return f"journal-{study_id}-" if study_id else "journal-"


def _journals(folder: Path, study_id: str) -> list[Path]:
    """Return the journals of a study; of one begun before there were ids, those without."""
    paths = sorted(folder.glob(f"{_start(study_id)}*.jsonl"))
    return paths if study_id else [path for path in paths if not _HAS_ID.match(path.name)]


def _is_ours_now(file: BinaryIO) -> bool:
    """Take the lock of a file, unless a living process holds it or the file has just gone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


def _read(lines: Iterable[bytes]) -> tuple[list[Entry], bool]:
    """Return the entries of a journal, and whether every whole line is one."""
    entries, is_sound = [], True
    for line in lines:
        if not line.endswith(b"\n"):
            continue
        try:
            entries.append(entry_from_data(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            is_sound = False
    return entries, is_sound


def _to_line(entry: Entry) -> bytes:
    data = json.dumps(entry_to_data(entry), allow_nan=False, separators=(",", ":"))
    return data.encode() + b"\n"


def entry_to_data(entry: Entry) -> dict[str, Any]:
    """Return a measurement as plain JSON."""
    return {
        "version": VERSION,
        "study": entry.study,
        "record": finite(entry.record.as_dict()),
        "curve": to_columns(entry.curve),
        "samples": to_columns(entry.samples),
    }


def entry_from_data(data: Mapping[str, Any]) -> Entry:
    """Return the measurement that `entry_to_data` was given.

    Raises:
        ValueError: If another version wrote it.
    """
    if data["version"] != VERSION:
        raise ValueError(f"a measurement must have version {VERSION}, but got {data['version']}")
    return Entry(
        data["study"],
        record_from_dict(data["record"]),
        tuple(from_columns(CurvePoint, data["curve"])),
        tuple(from_columns(DeviceSample, data["samples"])),
    )
