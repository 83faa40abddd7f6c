"""A study on a real server that asks for a password: nobody who should not ever reads it."""

import json
import os
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import psutil
import pytest
import sqlalchemy as sa

from storage.database import hide_password, without_password
from tests.postgres import PASSWORD
from tests.storage.conftest import postgres_server, postgres_url  # noqa: F401
from tests.tuner.studies import SMALL, Studies, kill_tree, wait_for_line

pytestmark = pytest.mark.timeout(600)

SPELLINGS = {PASSWORD, quote(PASSWORD), quote_plus(PASSWORD)}


@pytest.fixture
def secret_url(
    postgres_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> str:
    """The address with its password; HOME is empty, and nothing else knows the password."""
    for name in ("TUNER_STORAGE", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return postgres_url


def tells(text: str | bytes) -> bool:
    """Whether a text holds the password, in any spelling."""
    whole = text if isinstance(text, bytes) else text.encode()
    return any(spelling.encode() in whole for spelling in SPELLINGS)


def watched_start(studies: Studies) -> tuple[int, str, str, set[str]]:
    """Start a study of its baseline only and look at every process that it starts."""
    seen: set[str] = set()
    with studies.begin(*studies.start_arguments("pg", *SMALL, "--trials", "1")) as process:
        try:
            family = psutil.Process(process.pid)
            while process.poll() is None:
                for child in family.children(recursive=True):
                    try:
                        folder = Path("/proc") / str(child.pid)
                        command = (folder / "cmdline").read_bytes()
                        whole = command + (folder / "environ").read_bytes()
                    except (psutil.Error, OSError):
                        continue
                    if b"tuner.child" in command:
                        seen.add("child")
                        seen |= {"told"} if tells(whole) or b"TUNER_STORAGE" in whole else set()
                time.sleep(0.2)
            out, err = process.communicate()
        except BaseException:
            kill_tree(process.pid)
            raise
    return process.returncode, out, err, seen


@pytest.mark.long
def test_a_password_is_in_no_file_no_output_and_no_process_of_a_study(
    studies: Studies, secret_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", secret_url)
    code, out, err, seen = watched_start(studies)
    assert code == 7, err  # one config is too few for profiles
    assert seen == {"child"}
    said = [out, err]

    commands = (
        ("status", "pg", "--json"),
        ("show", "pg", "0", "--json"),
        ("report", "pg"),
        ("list", "--json"),
        ("doctor", "--json"),
        ("start", "pg"),
        ("resume", "pg"),
    )
    for command in commands:
        ended = studies.run(*command)
        said += [ended.out, ended.err]
        if command == ("status", "pg", "--json"):
            assert json.loads(ended.out)["storage"] == hide_password(secret_url)
        if command[0] == "list":
            assert json.loads(ended.out)[0]["state"] == "ended"
    with studies.begin("dashboard", "pg", "--port", "0") as process:
        try:
            said.append(wait_for_line(process, "ssh -L") or "no line")
        finally:
            kill_tree(process.pid)
    assert "127.0.0.1" in said[-1]

    written = [path for path in (studies.folder / "runs").rglob("*") if path.is_file()]
    assert {"config.yaml", "trials.csv"} <= {path.name for path in written}
    assert [path for path in written if tells(path.read_bytes())] == []
    assert [text for text in said if tells(text)] == []
    _require_no_secret_in_the_database(secret_url)

    # Without the address in the environment, PostgreSQL finds its password by itself, or is asked.
    monkeypatch.delenv("TUNER_STORAGE")
    ended = studies.run("status", "pg")
    assert ended.code == 2
    assert "must be given again" in ended.err
    assert "TUNER_STORAGE" in ended.err
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert studies.run("status", "pg").code == 0
    monkeypatch.delenv("PGPASSWORD")
    server = sa.make_url(secret_url)
    passfile = Path(os.environ["HOME"]) / ".pgpass"
    passfile.write_text(f"{server.host}:{server.port}:*:{server.username}:{PASSWORD}\n")
    passfile.chmod(0o600)
    bare = without_password(secret_url)
    assert studies.run("status", "pg", "--storage", bare).code == 0


def _require_no_secret_in_the_database(url: str) -> None:
    """Look through every text of every table: who may read the study need not know its owner."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            rows = connection.execute(sa.text(f'SELECT t::text FROM "{table}" t')).scalars()
            assert not any(tells(row) for row in rows), table
    engine.dispose()


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(
    studies: Studies, secret_url: str
) -> None:
    ended = studies.run("status", "nope", "--storage", secret_url)
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert "the password in --storage can be read" in first
    assert "PGPASSWORD" in first
    assert "'nope'" in second
    ended = studies.run("status", "nope", secret_url)  # in the wrong place
    assert ended.code == 2
    wrong = sa.make_url(secret_url).set(port=1).render_as_string(hide_password=False)
    gone = studies.run("status", "nope", f"--storage={wrong}")
    assert gone.code == 8
    assert not any(tells(text) for text in (ended.out, ended.err, gone.out, gone.err))
