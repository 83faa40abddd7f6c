"""What storage uses of Optuna beneath its public interface, by name.

An Optuna that has changed one of these fails here and is named, rather than in a running study. Its
remedy is to look through `storage.patient`, `storage.proxy` and `storage.recovery`, or to narrow
the versions of Optuna in pyproject.toml.
"""

import inspect

import optuna
import pytest
from optuna.storages import GrpcStorageProxy, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._grpc import client
from optuna.storages._rdb import models, storage
from optuna.trial import FrozenTrial, TrialState

NAMES = [
    (storage, ["_create_scoped_session"]),
    (models, ["StudyModel", "TrialModel", "TrialSystemAttributeModel"]),
    (models.StudyModel, ["find_or_raise_by_id"]),
    (models.TrialModel, ["find_or_raise_by_id", "trial_id", "study_id", "state", "datetime_start"]),
    (models.TrialSystemAttributeModel, ["find_by_trial_and_key", "trial_id", "key", "value_json"]),
    (
        RDBStorage,
        [
            "_create_new_trial",
            "_set_trial_param",
            "_get_trials",
            "_get_best_trial_id",
            "_get_prepared_new_trial",
            "_build_frozen_trial_from_trial_model",
            "_set_trial_attr_without_commit",
            "check_trial_is_updatable",
            "remove_session",
        ],
    ),
    (GrpcStorageProxy, ["_setup", "set_trial_param", "close"]),
    (client.GrpcClientCache, ["get_all_trials"]),
]
PARAMETERS = [
    (RDBStorage._create_new_trial, ["self", "study_id", "template_trial"]),
    (RDBStorage._get_prepared_new_trial, ["self", "study_id", "template_trial", "session"]),
    (
        RDBStorage._set_trial_attr_without_commit,
        ["self", "session", "model_cls", "trial_id", "key", "value"],
    ),
    (RDBStorage.set_trial_state_values, ["self", "trial_id", "state", "values"]),
    (GrpcStorageProxy.set_trial_state_values, ["self", "trial_id", "state", "values"]),
    (GrpcStorageProxy.create_new_trial, ["self", "study_id", "template_trial"]),
    (storage._create_scoped_session, ["scoped_session", "ignore_integrity_error"]),
]


def _name(value: object) -> str:
    return str(getattr(value, "__qualname__", getattr(value, "__name__", "")))


@pytest.mark.parametrize(("owner", "names"), NAMES, ids=_name)
def test_optuna_has_what_storage_uses_of_it(owner: object, names: list[str]) -> None:
    missing = [name for name in names if not hasattr(owner, name)]
    assert not missing, f"Optuna {optuna.__version__} has no {missing} in {owner}"


@pytest.mark.parametrize(("function", "names"), PARAMETERS, ids=_name)
def test_it_takes_what_storage_gives(function: object, names: list[str]) -> None:
    found = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    assert found == names, f"Optuna {optuna.__version__} takes {found} in {function}"


def test_a_study_has_its_parts_where_storage_looks() -> None:
    study = optuna.create_study(storage="sqlite://")
    study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    assert isinstance(study._storage, _CachedStorage)
    assert isinstance(study._storage._backend, RDBStorage)
    assert isinstance(study._study_id, int)
    assert isinstance(study.trials[0], FrozenTrial)
    assert isinstance(study.trials[0]._trial_id, int)
    assert hasattr(study._storage._backend, "scoped_session")
    cache = client.GrpcClientCache(None)
    assert (cache.studies, cache.grpc_client) == ({}, None)
    study._storage._backend.remove_session()
    study._storage._backend.engine.dispose()
