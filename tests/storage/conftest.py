"""Real databases: an SQLite file for each test, and a PostgreSQL server for the session."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage

from storage.database import sqlite_url
from storage.records import CurvePoint, DeviceSample, TrialRecord
from storage.studies import close_storage, open_storage
from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    """The address of a server of our own."""
    server = PostgresServer()
    server.start()
    yield server.url
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: sa.URL) -> str:
    """The address of an empty database; one serves all tests, since making one takes 0.2 s."""
    engine = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # Connections that killed processes left would hold locks on what is dropped.
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return postgres_server.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database of each kind; the SQLite file does not exist yet."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "study.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def opened() -> Iterator[Callable[..., RDBStorage]]:
    """`open_storage`, creating unless told otherwise, whose storages are closed after the test."""
    storages = []

    def open_it(url: str, *, create: bool = True) -> RDBStorage:
        storages.append(open_storage(url, create=create))
        return storages[-1]

    yield open_it
    for storage in storages:
        close_storage(storage)


@pytest.fixture
def make_record() -> Callable[..., TrialRecord]:
    """A successful record, any field of which can be given."""

    def make(**values: object) -> TrialRecord:
        filled: dict[str, object] = {
            "trial": 7,
            "replicate": 0,
            "num_envs": 64,
            "num_steps": 32,
            "num_minibatches": 4,
            "num_epochs": 2,
            "status": "success",
            "sps": 125_000.5,
            "sps_ci95": (124_000.0, 126_000.0),
            "env_steps": 5_000_000_000,
            "compile_cached": False,
            "final_score": 0.625,
            "quality_acceptable": True,
            "phases": {"compile_s": 3.5, "window_s": 8.25},
        }
        return TrialRecord(**(filled | values))  # type: ignore[arg-type]

    return make


@pytest.fixture
def curve() -> list[CurvePoint]:
    return [
        CurvePoint(block=0, env_steps=2048, seconds=0.5, metrics={"mean_return": None}),
        CurvePoint(
            block=1, env_steps=4096, seconds=0.25, metrics={"mean_return": 0.75}, learning=False
        ),
    ]


@pytest.fixture
def samples() -> list[DeviceSample]:
    return [DeviceSample(t=1.0, util=90.0), DeviceSample(t=1.5, memory_bytes=7_200_000_000)]
