"""Where an address comes from, and the password of one that was written without."""

from pathlib import Path

import pytest

from storage.database import hide_password
from tuner.address import (
    complete,
    has_visible_password,
    hide_in_text,
    of_study,
    without_secrets,
)
from tuner.errors import UsageError

WHOLE = "postgresql+psycopg://me:s3cret@host:5432/db"
HIDDEN = "postgresql+psycopg://me:***@host:5432/db"
BARE = "postgresql+psycopg://me@host:5432/db"


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TUNER_STORAGE", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_what_is_named_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(None) is None
    monkeypatch.setenv("TUNER_STORAGE", WHOLE)
    assert complete(None) == WHOLE
    assert complete("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    monkeypatch.setenv("TUNER_STORAGE", "")
    assert complete(None) is None


def test_a_hidden_password_is_that_of_the_same_address_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", WHOLE)
    assert complete(HIDDEN) == WHOLE
    for other in (HIDDEN.replace("host", "evil"), HIDDEN.replace("/db", "/other")):
        with pytest.raises(UsageError, match="must be given again") as caught:
            complete(other)
        assert "s3cret" not in str(caught.value)


def test_a_hidden_password_is_left_to_postgresql_where_it_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"set TUNER_STORAGE .* PGPASSWORD, or use ~/\.pgpass"):
        complete(HIDDEN)
    (tmp_path / ".pgpass").touch()
    assert complete(HIDDEN) == BARE
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError):
        complete(HIDDEN)
    monkeypatch.setenv("PGPASSWORD", "x")
    assert complete(HIDDEN) == BARE
    written = hide_password(BARE + "?sslmode=require&password=s3cret")
    assert written == BARE + "?password=***&sslmode=require"
    assert complete(written) == BARE + "?sslmode=require"


def test_a_study_is_where_its_own_files_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", WHOLE)
    assert of_study(None, {}, tmp_path) == WHOLE
    assert of_study(None, {"storage": HIDDEN}, tmp_path) == WHOLE
    assert of_study(BARE, {"storage": HIDDEN}, tmp_path) == BARE
    (tmp_path / "study.db").touch()
    assert of_study(None, {}, tmp_path) is None
    with pytest.raises(UsageError, match=r"config.yaml: storage must be .* but got a list; give"):
        of_study(None, {"storage": [WHOLE]}, tmp_path)


def test_passwords_in_a_text_are_hidden() -> None:
    text = f"tuner: extra argument {WHOLE}, and host=h password=s3cret&x 'Password=s3cret'"
    hidden = hide_in_text(text)
    assert "s3cret" not in hidden
    assert HIDDEN in hidden
    for plain in (BARE, "http://127.0.0.1:8080/ until Ctrl-C: a@b", "sqlite:///a:b/c.db"):
        assert hide_in_text(plain) == plain


def test_a_password_on_the_command_line_is_seen() -> None:
    assert has_visible_password(["start", "x", "--storage", WHOLE])
    assert has_visible_password(["start", f"--storage={WHOLE.replace('s3', 's 3')}"])
    assert has_visible_password(["start", "--storage", BARE + "?password=s3cret"])
    for harmless in (["--storage", BARE], ["--storage", HIDDEN], ["--storage"], [WHOLE], []):
        assert not has_visible_password(harmless)


def test_a_trial_process_gets_no_password() -> None:
    environment = {"TUNER_STORAGE": WHOLE, "PGPASSWORD": "x", "PATH": "/bin", "PGHOST": "h"}
    assert without_secrets(environment) == {"PATH": "/bin", "PGHOST": "h"}
