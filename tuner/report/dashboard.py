"""optuna-dashboard on a study: on the loopback address only, because it has no login."""

import signal
from collections.abc import Callable, Mapping

from tuner.errors import UsageError
from tuner.lookup import find


def serve(
    name: str, places: Mapping[str, object], *, port: int, say: Callable[[str], None]
) -> None:
    """Serve the dashboard until Ctrl-C.

    Raises:
        StorageError: there is no such study.
        UsageError: the port is taken.
    """
    from storage.studies import open_storage

    config, _ = find(name, places)
    database = open_storage(config.storage_url(name), create=False)
    from wsgiref.simple_server import make_server

    from optuna_dashboard import wsgi

    try:
        server = make_server("127.0.0.1", port, wsgi(database))
    except OSError as error:
        raise UsageError(
            f"--port must be free on 127.0.0.1, but got {port}: {error.strerror}; try another"
        ) from None
    # A shell starts what runs in its background with SIGINT ignored; a scheduler sends SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    say(
        f"{name} on http://127.0.0.1:{server.server_port}/ until Ctrl-C; from elsewhere: "
        f"ssh -L {server.server_port}:127.0.0.1:{server.server_port} THIS-MACHINE"
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        server.server_close()
