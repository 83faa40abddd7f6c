"""One leader for a study on a database server, whichever machine it runs on.

Apart from the database because it is a connection that is held, not used. A study in a file of its
own folder needs none: a lock in that folder says the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from storage.database import engine_options, faults_of, is_proxy, missing_driver, sqlite_path
from storage.errors import AlreadyLed


@contextmanager
def only_leader(url: str, study: str) -> Iterator[None]:
    """Be the one leader of a study in the body; the server ends that with our connection.

    A server that restarts forgets it, so that another leader could then begin: a study that was
    cut off from its database for that long has its trials given to others anyway.

    Raises:
        AlreadyLed: another process leads it, here or on another machine.
        StorageUnavailable: the server does not answer.
        InvalidStorageUrl: its driver is not installed.
    """
    if is_proxy(url) or sqlite_path(url) is not None:
        yield
        return
    options = {k: v for k, v in engine_options(url).items() if k != "pool_pre_ping"}
    try:
        engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **options)
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise missing_driver(url) from error
    with faults_of(url):
        connection = engine.connect()
        asked = sa.text("SELECT pg_try_advisory_lock(hashtext('tuner leader'), hashtext(:study))")
        is_ours = bool(connection.execute(asked, {"study": study}).scalar())
    try:
        if not is_ours:
            raise AlreadyLed(
                f"a study must have one leader at a time, but {study!r} has one on another "
                f"machine; wait for it, stop it, or join it with `tuner worker {study}`"
            )
        yield
    finally:
        with suppress(sa.exc.SQLAlchemyError):  # the server may be what has gone
            connection.close()
