"""Whole files, replaced at once."""

import random
import stat
import time
from pathlib import Path

import pytest

from storage.atomic import atomic_write_text
from tests.storage.processes import FORK


def test_text_is_written_as_it_is_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old\n")
    atomic_write_text(path, "ä\r\nb\n")
    assert path.read_bytes() == b"\xc3\xa4\r\nb\n"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert stat.S_ISREG(path.stat().st_mode)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        atomic_write_text(tmp_path / "missing" / "a.txt", "new")


def _write_for_ever(path: Path) -> None:
    while True:
        for letter in "ab":
            atomic_write_text(path, letter * 1_000_000)


def test_a_kill_never_leaves_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for seed in range(4):
        child = FORK.Process(target=_write_for_ever, args=(path,))
        child.start()
        deadline = time.monotonic() + 30
        while not path.exists():
            assert time.monotonic() < deadline
        time.sleep(random.Random(seed).uniform(0.0, 0.05))
        child.kill()
        child.join(30)
        text = path.read_text()
        assert text in ("a" * 1_000_000, "b" * 1_000_000)
