"""The journal on real files: torn lines, full disks, dead and living owners."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.journal import Entry, Journal, Leftovers, save_leftovers
from storage.records import CurvePoint, DeviceSample, TrialRecord
from tests.storage.disks import largest_file
from tests.storage.processes import FORK

Make = Callable[..., TrialRecord]
ID = "5eed5eed5eed5eed"


def leave(folder: Path, *entries: Entry) -> Path:
    """Let a process write a journal and end."""
    process = FORK.Process(target=_write, args=(folder, *entries))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    (path,) = folder.glob("journal-*")
    return path


def _write(folder: Path, *entries: Entry) -> None:
    journal = Journal(folder, ID)
    for entry in entries:
        journal.add(entry)


def saved(folder: Path) -> list[Entry]:
    entries: list[Entry] = []
    assert list(save_leftovers(folder, ID, entries.append).entries) == entries
    return entries


def test_a_study_from_before_there_were_ids_finds_its_journals(
    tmp_path: Path, entry: Entry
) -> None:
    path = leave(tmp_path, entry)
    path.rename(tmp_path / path.name.replace(f"{ID}-", ""))
    assert list(save_leftovers(tmp_path, "", lambda entry: None).entries) == [entry]


@pytest.fixture
def entry(make_record: Make, curve: list[CurvePoint], samples: list[DeviceSample]) -> Entry:
    return Entry("demo", make_record(), tuple(curve), tuple(samples))


def test_what_an_ended_process_left_is_saved_whole_and_once(tmp_path: Path, entry: Entry) -> None:
    other = Entry("demo", entry.record)
    leave(tmp_path, entry, other)
    assert saved(tmp_path) == [entry, other]
    assert list(tmp_path.iterdir()) == []
    assert saved(tmp_path) == []


def test_a_journal_is_there_only_while_something_waits(tmp_path: Path, entry: Entry) -> None:
    journal, kept = Journal(tmp_path, ID), list[Entry]()
    for _ in range(2):
        journal.add(entry)
        assert journal.path.exists()
        assert journal.describe() == f"the measurement of trial 7 waits in {journal.path}"
        journal.settle(kept.append)
        assert list(tmp_path.iterdir()) == []
    assert kept == [entry, entry]
    assert journal.describe() == "the study waits"


def test_an_entry_that_was_not_saved_stays(tmp_path: Path, entry: Entry) -> None:
    path = leave(tmp_path, entry)

    def refuse(entry: Entry) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        save_leftovers(tmp_path, ID, refuse)
    assert path.exists()
    assert saved(tmp_path) == [entry]


def test_a_torn_last_line_is_no_entry(tmp_path: Path, entry: Entry) -> None:
    whole = leave(tmp_path, entry).read_bytes()
    for size in (1, len(whole) // 2, len(whole) - 1):
        (tmp_path / f"journal-{ID}-a.jsonl").write_bytes(whole + whole[:size])
        for path in tmp_path.glob(f"journal-{ID}-[!a]*"):
            path.unlink()
        assert saved(tmp_path) == [entry]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", [b"{}\n", b"[]\n", b"\xff\n", b'{"version":2}\n', b'{"version":1,"record":{"x":1}}\n']
)
def test_lines_that_are_not_ours_are_kept_and_the_others_saved(
    tmp_path: Path, entry: Entry, line: bytes
) -> None:
    path = leave(tmp_path, entry)
    whole = line + path.read_bytes()
    path.write_bytes(whole)
    left = save_leftovers(tmp_path, ID, lambda entry: None)
    assert left.entries == (entry,)
    assert left.unreadable == (path.with_suffix(".unreadable"),)
    assert left.unreadable[0].read_bytes() == whole
    assert saved(tmp_path) == []


def test_the_journal_of_a_living_process_is_left_alone(tmp_path: Path, entry: Entry) -> None:
    path = leave(tmp_path, entry)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert saved(tmp_path) == []
        assert path.exists()
    assert saved(tmp_path) == [entry]


def test_another_study_of_the_same_name_leaves_a_journal_alone(
    tmp_path: Path, entry: Entry
) -> None:
    path = leave(tmp_path, entry)
    for other in ("5eed5eed5eed5ee0", ""):
        assert save_leftovers(tmp_path, other, pytest.fail) == Leftovers()
    assert path.exists()
    assert saved(tmp_path) == [entry]


def test_what_the_disk_does_not_take_waits_in_memory_and_is_written_later(
    tmp_path: Path, entry: Entry
) -> None:
    journal, kept = Journal(tmp_path, ID), list[Entry]()
    journal.add(entry)
    size = journal.path.stat().st_size
    with largest_file(size + size // 2):
        journal.add(entry)
    assert journal.fault is not None
    assert "waits in memory only" in journal.describe()
    assert journal.path.stat().st_size == size  # no half a line
    journal.write()
    assert journal.fault is None
    assert journal.path.stat().st_size == 2 * size
    with largest_file(0):
        journal.add(entry)
    journal.settle(kept.append)
    assert kept == [entry] * 3
    assert list(tmp_path.iterdir()) == []
