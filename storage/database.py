"""The database of a study: its address, its connections and what their faults mean.

Apart from `storage.studies` because it needs SQLAlchemy only: what merely reads a study (`tuner
status`) does not pay for importing Optuna.

SQLite keeps its rollback journal; write-ahead logging is not switched on. It would let readers
and the writer overlap, but it does not work on network file systems, where people keep their runs,
and leaves the newest rows in a second file that is forgotten when `study.db` is copied. Without it
they wait for each other for milliseconds, well inside the busy timeout.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from storage.errors import (
    InvalidStorageUrl,
    NotADatabase,
    NotWritable,
    ProxyUnavailable,
    StorageUnavailable,
    StudyNotFound,
)

BUSY_TIMEOUT_S = 10
"""How long a statement waits for another process's write lock (Optuna's default is 5 s).

A running study waits longer, see `storage.patience`: this is how soon it says so.
"""

CONNECT_TIMEOUT_S = 10
"""How long to wait for a server to answer before it counts as gone."""

SILENCE_S = 20
"""How long an open connection may be without an answer from the server's machine."""

HELD_S = 60
"""How long a client of a server may do nothing within a transaction, and so hold its locks."""

PROXY = "grpc"
"""Kind of an address that leads to Optuna's gRPC proxy."""

HIDDEN = "***"
"""What stands in the place of a password wherever an address is shown or written."""


def sqlite_url(path: Path | str) -> str:
    """Return the address of the SQLite file at `path`, whatever characters its name holds."""
    absolute = os.path.abspath(path)
    return sa.URL.create("sqlite", database=absolute).render_as_string(hide_password=False)


def parse_url(url: str) -> sa.URL:
    """Take a storage address apart.

    Args:
        url: `sqlite:///FILE`, `postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE`, or for a
            worker `grpc://HOST:PORT`.

    Returns:
        The parts.

    Raises:
        InvalidStorageUrl: If it is malformed, of another kind of database, or names no database.
    """
    accepted = "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The text may hold a password in a place that cannot be told apart, so it is not repeated.
        raise InvalidStorageUrl(
            f"--storage must be {accepted}, but got text that is no database address; "
            "write special characters of a password as %XX"
        ) from None
    if parsed.get_backend_name() == "postgresql" and url.count("@") > 1:
        raise InvalidStorageUrl(
            f"--storage must be {accepted}, but got one with several @; write those of a password "
            "or a user as %40"
        )
    if parsed.drivername == PROXY:
        return _proxy_address(parsed)
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidStorageUrl(
            f"--storage must be {accepted}, but got {parsed.drivername}; use one of the two"
        )
    if parsed.database in (None, "", ":memory:"):
        raise InvalidStorageUrl(
            f"--storage must name a database, but got {hide_password(parsed)}; use {accepted}"
        )
    return parsed


def _proxy_address(parsed: sa.URL) -> sa.URL:
    """Return the address of a proxy, which has a host and may have a port."""
    if not parsed.host or sa.URL.create(PROXY, host=parsed.host, port=parsed.port) != parsed:
        raise InvalidStorageUrl(
            "--storage must be grpc://HOST:PORT for a proxy, but got something before or after "
            "that; leave it out"
        )
    return parsed


def is_proxy(url: str) -> bool:
    """Whether an address is that of Optuna's gRPC proxy, behind which there is no SQL."""
    return parse_url(url).drivername == PROXY


def hide_password(url: sa.URL | str) -> str:
    """Return the address for people to read, with *** in place of every password."""
    parsed = parse_url(url) if isinstance(url, str) else url
    hidden = dict.fromkeys(_secret_keys(parsed), HIDDEN)
    shown = parsed.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", HIDDEN)  # among the options the stars are escaped


def without_password(url: str) -> str:
    """Return the address without any password: PostgreSQL then looks for its own.

    Raises:
        InvalidStorageUrl: If it is not usable.
    """
    parsed = parse_url(url)
    bare = sa.URL.create(
        parsed.drivername,
        username=parsed.username,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
        query=parsed.query,
    )
    return bare.difference_update_query(_secret_keys(parsed)).render_as_string(hide_password=False)


def _secret_keys(url: sa.URL) -> list[str]:
    """Return the options of an address that hold a secret: `password`, `sslpassword`, …"""
    return [key for key in url.query if re.search("password|secret", key, re.IGNORECASE)]


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite address, `None` for a server."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    assert parsed.database is not None
    return Path(parsed.database)


def engine_options(url: str) -> dict[str, Any]:
    """Return the arguments for `sqlalchemy.create_engine`, for our engine and Optuna's alike."""
    if sqlite_path(url) is not None:
        return {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    # A trial keeps its connection idle for minutes; a dropped one is replaced before it is used.
    # Of a machine that is cut off the system itself would learn after a quarter of an hour.
    silence = {
        "keepalives_idle": SILENCE_S // 2,
        "keepalives_interval": SILENCE_S // 4,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENCE_S * 1000,
    }
    return {
        "connect_args": {"connect_timeout": CONNECT_TIMEOUT_S, **silence},
        "pool_pre_ping": True,
        "pool_events": [(_end_idle_transactions, "connect")],
    }


def _end_idle_transactions(connection: Any, record: object) -> None:
    """Let the server end a transaction of a client that is stopped or cut off.

    It would hold its locks, and every other worker of the study, until the client comes back, or
    for the two hours after which the server's system asks whether it is still there. Not an option
    of the connection, which a pool such as PgBouncer refuses.
    """
    before, connection.autocommit = connection.autocommit, True
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{HELD_S}s'")
    connection.autocommit = before


def connect(url: str) -> sa.Engine:
    """Return an engine on the database; nothing is opened before it is first used.

    JSON columns are written compactly and refuse NaN and infinity, which are not JSON.

    Raises:
        InvalidStorageUrl: If the address is not usable or its driver is not installed.
    """
    if is_proxy(url):
        raise InvalidStorageUrl(
            f"--storage must be a database here, but got {url}; only workers go through a proxy"
        )
    compact = partial(json.dumps, allow_nan=False, separators=(",", ":"))
    try:
        return sa.create_engine(url, json_serializer=compact, **engine_options(url))
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise missing_driver(url) from error


def missing_driver(url: str) -> InvalidStorageUrl:
    """Return the error that says which driver the address asks for and how to install one."""
    return InvalidStorageUrl(
        f"--storage must use an installed driver, but got {parse_url(url).drivername}; "
        "write postgresql+psycopg://… and install the extra: pip install -e '.[postgres]'"
    )


def make_database(url: str) -> None:
    """Make an empty SQLite file, with its folder, where there is none; a server is left alone.

    The file may be read and written by its owner only; SQLite gives its journal the same mode.

    Raises:
        InvalidStorageUrl: If the address is not usable.
        NotWritable: If the file or its folder cannot be made.
    """
    path = sqlite_path(url)
    if path is None or path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise NotWritable(
            f"{path} must be writable, but got: {error.strerror}; choose another folder"
        ) from error


def require_database(url: str) -> None:
    """See that there is a file to open; SQLite itself would make a missing one.

    The file is not read here: closing it would drop every lock that this process's connections
    hold on it (https://sqlite.org/howtocorrupt.html section 2.2). Whether it is a database, SQLite
    says at the first statement, see `faults_of`.

    Raises:
        InvalidStorageUrl: If the address is not usable.
        StudyNotFound: If the file is missing.
        NotADatabase: If it is no file.
    """
    path = sqlite_path(url)
    if path is None or path.is_file():
        return
    if path.exists():
        raise NotADatabase(f"{path} must be an SQLite file, but got a folder; choose another path")
    raise StudyNotFound(f"a study must exist at {path}, but got no file; see `tuner list`")


def require_writable(url: str) -> None:
    """See that an SQLite file can be written, and its folder too, where the journal goes.

    Raises:
        NotWritable: If one of them cannot.
    """
    path = sqlite_path(url)
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise NotWritable(
            f"{path} and its folder must be writable, but are not; change their mode or owner"
        )


def hold_writers_off(connection: sa.Connection) -> None:
    """Let no other process write what we are about to read and change, until the commit.

    SQLite knows no `SELECT … FOR UPDATE`: without an early write lock two processes can both read
    a state, both find it free and both take it. On PostgreSQL a lock of our own is taken, which
    only our own code respects (https://www.postgresql.org/docs/current/explicit-locking.html).
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('tuner'))"))


@contextmanager
def faults_of(url: str) -> Iterator[None]:
    """Turn the database faults of the body into errors of this package.

    Raises:
        NotADatabase: If SQLite finds the file to be damaged or encrypted.
        NotWritable: If the database is read-only for us.
        StorageUnavailable: For every other fault of the database.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        where, what = hide_password(url), _describe(error, parse_url(url))
        if "not a database" in what or "malformed" in what:
            raise NotADatabase(
                f"{where} must be an intact SQLite database, but got: {what}; restore a copy"
            ) from error
        if "readonly database" in what:
            raise NotWritable(f"{where} must be writable, but got: {what}") from error
        raise StorageUnavailable(
            f"{where} must answer, but got: {what}; see that it runs, is not locked and has space"
        ) from error
    except (sa.exc.TimeoutError, sa.exc.PendingRollbackError) as error:
        raise StorageUnavailable(
            f"{hide_password(url)} must answer, but got {_no_answer(error)}; try again"
        ) from error


def passing_fault(error: BaseException | None, url: str) -> str | None:
    """Return what the driver said of a fault that may pass by itself, `None` for any other error.

    Such faults are a server that is gone or starting, a lock, a full disk, and a file or server
    that takes no writes for now. A missing table or a damaged file does not mend itself.
    """
    silent = sa.exc.TimeoutError | sa.exc.PendingRollbackError
    ours = sa.exc.DBAPIError | silent | ProxyUnavailable
    while error is not None and not isinstance(error, ours):
        error = error.__cause__
    if isinstance(error, ProxyUnavailable):
        return error.fault
    if isinstance(error, silent):
        return _no_answer(error)
    if error is None:
        return None
    words = _describe(error, parse_url(url))
    is_away = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    may_pass = is_away or error.connection_invalidated or "read-only transaction" in words
    return words if may_pass and "no such" not in words else None


def _no_answer(error: sa.exc.TimeoutError | sa.exc.PendingRollbackError) -> str:
    """Say what went wrong before a statement was sent.

    Optuna goes on in a transaction whose connection was lost: it takes any fault of the query for
    trials for too long a list of them, and asks again in another way.
    """
    is_lost = isinstance(error, sa.exc.PendingRollbackError)
    return "a lost connection" if is_lost else "no free connection"


def _describe(error: sa.exc.DBAPIError, url: sa.URL) -> str:
    """Return the driver's words on one line, without the statement, its values or a password."""
    words = " ".join(str(error.orig).split())
    for secret in filter(None, (url.password, *(url.query[key] for key in _secret_keys(url)))):
        words = words.replace(str(secret), HIDDEN)
    return words
