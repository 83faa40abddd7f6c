"""The folder of locks against those who share the temporary folder."""

import os
import tempfile
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.private_folder import private_folder


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_folder_is_the_users_alone_and_found_again() -> None:
    folder = private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder() == folder


def test_a_link_in_its_place_is_refused_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"tuner-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="must be a folder of yours with mode 0700"):
        private_folder()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_others_may_write_is_refused() -> None:
    private_folder().chmod(0o777)
    with pytest.raises(UsageError, match="with mode 0777; remove it or set TMPDIR"):
        private_folder()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused() -> None:
    os.chown(private_folder(), 12345, -1)
    with pytest.raises(UsageError, match="of user 12345"):
        private_folder()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"tuner-{os.getuid()}").touch()
    with pytest.raises(UsageError, match="set TMPDIR"):
        private_folder()
