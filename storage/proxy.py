"""Optuna's storage behind its gRPC proxy, made to outlast a proxy that is away for a while.

For workers that reach a study's database through `optuna.storages.run_grpc_proxy_server` only. As
`storage.patient` does for SQL, calls are repeated while the proxy, or the database behind it, does
not answer; a new trial is known by its token. Whether a queued trial was started by a call whose
answer was lost, nobody can tell here: it is left RUNNING, and the heartbeats of others queue it
again.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.client import GrpcClientCache
from optuna.trial import FrozenTrial, TrialState

from storage.beats import BEAT_ATTR, Beat
from storage.database import parse_url
from storage.errors import InvalidStorageUrl, ProxyUnavailable
from storage.patience import Patience
from storage.patient import MADE_ATTR, has_ended, template_with_token

CALL_TIMEOUT_S = 60
"""How long one call may go without an answer; reading 10,000 trials takes seconds."""
LONGEST_RECONNECT_S = 5

_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
_PASSING_BEHIND = ("during the commit", "OperationalError", "InterfaceError", "Stream removed")
"""What the proxy says, as UNKNOWN, of a fault of its own database or connection."""

_REPEATABLE = (
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
    "get_all_trials",
)
"""What may be called twice with the same arguments."""

Result = TypeVar("Result")


class ProxiedStorage(GrpcStorageProxy):
    """Optuna's storage behind a proxy; see `storage.patient.WaitingStorage`."""

    def __init__(self, url: str) -> None:
        """Make the way to a proxy; nothing is sent before it is first used.

        Raises:
            InvalidStorageUrl: If the address is not usable or grpcio is not installed.
        """
        parsed = parse_url(url)
        self.url = url
        self.patience: Patience | None = None
        self.on_start: Callable[[int], None] | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                super().__init__(host=str(parsed.host), port=parsed.port or 13000)
        except ImportError as error:
            raise InvalidStorageUrl(
                "--storage grpc://… must have grpcio and protobuf installed, but got: "
                f"{error}; install the extra: pip install -e '.[grpc]'"
            ) from error

    def _setup(self) -> None:
        """As Optuna's, which has no timeout: a proxy that falls silent would be waited for."""
        import grpc
        from optuna.storages._grpc.auto_generated.api_pb2_grpc import StorageServiceStub

        target = f"{self._host}:{self._port}"
        self._channel = grpc.insecure_channel(target, options=_options())
        self._stub = StorageServiceStub(self._channel)
        self._cache = GrpcClientCache(self._stub)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's; a trial that was made before the connection was lost is not made anew."""
        template = template_with_token(template_trial)
        make = partial(super().create_new_trial, study_id, template)

        def make_again() -> int:
            found = self._find_trial(study_id, template.system_attrs[MADE_ATTR])
            return make() if found is None else found

        trial_id = self._wait(make, again=make_again)
        if template_trial is None and self.on_start is not None:
            self.on_start(trial_id)
        return trial_id

    def set_trial_param(self, trial_id: int, *args: Any) -> None:
        """As Optuna's; a proxy that was started anew learns of the trial first."""
        change = partial(super().set_trial_param, trial_id, *args)

        def set_it() -> None:
            try:
                change()
            except KeyError:
                # The cache in the proxy knows no trial that it was not asked for.
                for study_id in list(self._cache.studies):
                    super(ProxiedStorage, self).get_all_trials(study_id, deepcopy=False)
                change()

        self._wait(set_it)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a change that was made before the connection was lost is not made anew."""
        change = partial(super().set_trial_state_values, trial_id, state, values)
        is_start = state == TrialState.RUNNING

        def change_again() -> bool:
            is_made = has_ended(super(ProxiedStorage, self).get_trial(trial_id), state, values)
            return not is_start if is_made else change()

        is_changed = self._wait(change, again=change_again)
        if is_start and is_changed and self.on_start is not None:
            self.on_start(trial_id)
        return is_changed

    def beats_of_running(self, study_id: int) -> dict[int, Beat | None]:
        """As `WaitingStorage` says; a proxy gives whole trials only."""
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return {trial._trial_id: trial.system_attrs.get(BEAT_ATTR) for trial in running}

    def remove_session(self) -> None:
        """Do nothing: a channel serves all threads."""

    def _find_trial(self, study_id: int, token: str) -> int | None:
        for trial in super().get_all_trials(study_id, deepcopy=False):
            if trial.system_attrs.get(MADE_ATTR) == token:
                return trial._trial_id
        return None

    def _wait(
        self, attempt: Callable[[], Result], again: Callable[[], Result] | None = None
    ) -> Result:
        def translated(call: Callable[[], Result]) -> Result:
            with _faults_of(self.url):
                return call()

        if self.patience is None:
            return translated(attempt)
        return self.patience.call(
            partial(translated, attempt),
            again=None if again is None else partial(translated, again),
            reconnect=self._reconnect,
        )

    def _reconnect(self) -> None:
        """Take a new channel: a silent network is given up by the old one after minutes only.

        The old one ends with the last call that another thread makes through it.
        """
        cache = self._cache
        self._setup()
        cache.grpc_client = self._stub
        self._cache = cache


def _options() -> tuple[tuple[str, Any], ...]:
    calls = {"methodConfig": [{"name": [{}], "timeout": f"{CALL_TIMEOUT_S}s"}]}
    return (
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_reconnect_backoff_ms", 1000 * LONGEST_RECONNECT_S),
        ("grpc.service_config", json.dumps(calls)),
    )


@contextmanager
def _faults_of(url: str) -> Iterator[None]:
    """Turn the faults of the proxy in the body into errors of this package."""
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        code, details = error.code().name, " ".join(str(error.details()).split())
        fault = f"{code.lower()}: {details}"
        may_pass = code in _PASSING or any(words in details for words in _PASSING_BEHIND)
        raise ProxyUnavailable(
            f"{url} must answer, but got {fault}; see that the proxy and its database run",
            fault=fault if may_pass else None,
        ) from error


def _repeatable(name: str) -> Callable[..., Any]:
    method = getattr(GrpcStorageProxy, name)

    def call(self: ProxiedStorage, *args: Any, **kwargs: Any) -> Any:
        return self._wait(lambda: method(self, *args, **kwargs))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in _REPEATABLE:
    setattr(ProxiedStorage, _name, _repeatable(_name))
