"""One leader for a study on a database server, whichever machine it runs on.

Apart from the database because it is a connection that is held, not used. A study in a file of its
own folder needs none: a lock in that folder says the same.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from storage.database import engine_options, faults_of, is_proxy, missing_driver, sqlite_path
from storage.errors import AlreadyLed

_ASK = sa.text("SELECT pg_try_advisory_lock(hashtext('tuner leader'), hashtext(:study))")
_KEEPALIVES = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
"""Seconds, and probes, after which the server takes a silent machine for gone; else two hours."""


@contextmanager
def only_leader(
    url: str, study: str, *, patiently: Callable[[Callable[[], None]], None] = lambda take: take()
) -> Iterator[Callable[[], None]]:
    """Be the one leader of a study in the body; the server ends that with our connection.

    Args:
        url: address of the database.
        study: its name.
        patiently: calls what takes the lead, again while the server is away.

    Yields:
        What makes sure of it again: a server that restarted has forgotten it, and another leader
        may have begun. It raises as this does.

    Raises:
        AlreadyLed: another process leads it, here or on another machine.
        StorageUnavailable: the server does not answer.
        InvalidStorageUrl: its driver is not installed.
    """
    if is_proxy(url) or sqlite_path(url) is not None:
        yield lambda: None
        return
    options = {k: v for k, v in engine_options(url).items() if k != "pool_pre_ping"}
    try:
        engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **options)
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise missing_driver(url) from error
    held: list[sa.Connection] = []

    def take() -> None:
        with ExitStack() as unless_ours:
            with faults_of(url):
                connection = unless_ours.enter_context(engine.connect())
                for name, value in _KEEPALIVES.items():
                    connection.execute(sa.text(f"SET {name} = {value}"))
                is_ours = connection.execute(_ASK, {"study": study}).scalar()
            if not is_ours:
                raise AlreadyLed(
                    f"a study must have one leader at a time, but {study!r} has one on another "
                    f"machine; wait for it, stop it, or join it with `tuner worker {study}`"
                )
            unless_ours.pop_all()
        held.append(connection)  # held[-1] leads, and no connection that does not

    def make_sure() -> None:
        try:
            held[-1].execute(sa.text("SELECT 1"))
        except sa.exc.SQLAlchemyError:
            patiently(take)

    try:
        patiently(take)
        yield make_sure
    finally:
        for connection in held:
            with suppress(sa.exc.SQLAlchemyError):  # the server may be what has gone
                connection.close()
