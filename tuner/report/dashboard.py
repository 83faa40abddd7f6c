"""optuna-dashboard on a study: on the loopback address only, because it has no login."""

import contextlib
import copy
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tuner.errors import UsageError
from tuner.lookup import find

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from optuna.trial import FrozenTrial

    from storage.studies import StudyStorage

OUR_HOSTS = ("127.0.0.1", "localhost")

POLL_S = 0.2
"""How soon a request to stop is noticed, in seconds."""


def serve(
    name: str, places: Mapping[str, object], *, port: int, say: Callable[[str], None]
) -> None:
    """Serve the dashboard until Ctrl-C.

    Raises:
        StorageError: there is no such study.
        UsageError: the port is taken.
    """
    from storage.studies import open_storage
    from tuner.report.publish import show_in_dashboard

    config, _ = find(name, places)
    folder = show_in_dashboard(name, places)
    database = open_storage(config.storage_url(name), create=False)
    _mark_infeasible(database)
    from wsgiref.simple_server import make_server

    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    page = wsgi(database, artifact_store=FileSystemArtifactStore(folder))
    try:
        server = make_server("127.0.0.1", port, _for_this_machine(page))
    except OSError as error:
        raise UsageError(
            f"--port must be free on 127.0.0.1, but got {port}: {error.strerror}; try another"
        ) from None
    stops: list[int] = []

    def stop(number: int, _: object) -> None:
        # Raised inside a request, an exception would be swallowed there and the stop forgotten.
        stops.append(number)
        if len(stops) > 1:
            raise KeyboardInterrupt

    # A shell starts what runs in its background with SIGINT ignored; a scheduler sends SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.timeout = POLL_S
    say(
        f"{name} on http://127.0.0.1:{server.server_port}/ until Ctrl-C; from elsewhere: "
        f"ssh -L {server.server_port}:127.0.0.1:{server.server_port} THIS-MACHINE"
    )
    try:
        # Asked twice in the middle of a request, it does not wait for the request to end.
        with contextlib.suppress(KeyboardInterrupt):
            while not stops:
                server.handle_request()
    finally:
        server.server_close()
    say("stopped")


def _mark_infeasible(storage: "StudyStorage") -> None:
    """Have a storage's trials carry the list of constraints that the dashboard looks at.

    It knows no named constraints. The list is added on the way to it and never stored: a sampler
    would count it beside the named one.
    """
    read = storage.get_all_trials

    def marked(*args: Any, **options: Any) -> list["FrozenTrial"]:
        trials = [copy.copy(trial) for trial in read(*args, **options)]
        for trial in trials:
            listed = list(trial.constraints.values())
            trial.system_attrs = {**trial.system_attrs, "constraints": listed}
        return trials

    storage.get_all_trials = marked  # type: ignore[method-assign]


def _for_this_machine(page: "WSGIApplication") -> "WSGIApplication":
    """Return the application, refusing requests that name another host.

    A web page from elsewhere could point a name of its own at 127.0.0.1 and have the browser read
    and delete studies (DNS rebinding); its requests carry that name. The port is any: the local end
    of a tunnel may have another.
    """

    def guarded(request: "WSGIEnvironment", respond: "StartResponse") -> Iterable[bytes]:
        host = str(request.get("HTTP_HOST", "")).rpartition(":")[0] or request.get("HTTP_HOST")
        if host in OUR_HOSTS:
            return page(request, respond)
        respond("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"the dashboard must be asked for as 127.0.0.1 or localhost\n"]

    return guarded
