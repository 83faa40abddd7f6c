"""Opens the study that a command goes on with, in a database that may be away for a moment.

Apart from `tuner.study` because the leader and every worker do it: one that was killed is often
started again while the database is restarted too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import optuna

from storage.attributes import AttributeTelemetry
from storage.database import is_proxy
from storage.patience import Patience, once_it_answers
from storage.patient import patient
from storage.studies import (
    StudyStorage,
    close_storage,
    load_study,
    open_storage,
    optuna_faults_of,
)
from storage.telemetry import Telemetry
from tuner.bench import Bench, Say
from tuner.config import StudyConfig
from tuner.interrupts import Interrupts
from tuner.search.pruner import make_pruner
from tuner.search.sampler import make_sampler
from tuner.session import LEADER, Session

SEEDS_OF_A_SLOT = 100_003
"""Between the seeds of two workers' samplers."""


def open_to_continue(
    config: StudyConfig, name: str, *, slot: int = 0, say: Say, interrupts: Interrupts
) -> tuple[StudyStorage, optuna.Study]:
    """Open a study to run more trials of; a worker of another `slot` proposes others.

    Raises:
        StorageError: see `storage.studies.open_storage`; a database that is away is waited for.
    """
    return once_it_answers(
        config.storage_url(name),
        partial(_open, config, name, slot),
        say=say,
        is_stopped=lambda: interrupts.count > 0,
    )


@contextmanager
def open_session(
    config: StudyConfig,
    database: StudyStorage,
    study: optuna.Study,
    bench: Bench,
    *,
    say: Say,
    started: float,
    worker: str = LEADER,
) -> Iterator[Session]:
    """Hold a study in a database that is waited for while it is away.

    `worker` is the name of a process that does not hold the study's lock.
    """
    url = config.storage_url(study.study_name)

    opened: list[Session] = []

    def is_stopped() -> bool:
        # What is only in memory would be lost: for that it takes a second Ctrl-C.
        is_unsaved = any(session.journal.fault is not None for session in opened)
        return bench.interrupts.count > is_unsaved

    patience = Patience(url, say=say, is_stopped=is_stopped)
    with (
        optuna_faults_of(url),
        patient(database, patience),
        patience.call(partial(_measurements_of, study, url, patience)) as telemetry,
    ):
        session = Session(
            config=config,
            study=study,
            telemetry=telemetry,
            bench=bench,
            say=say,
            started=started,
            patience=patience,
            worker=worker,
        )
        opened.append(session)
        yield session


def _open(config: StudyConfig, name: str, slot: int) -> tuple[StudyStorage, optuna.Study]:
    database = open_storage(config.storage_url(name), create=False)
    try:
        study = load_study(database, name)
        seed = config.seed + len(study.get_trials(deepcopy=False)) + SEEDS_OF_A_SLOT * slot
    except BaseException:
        close_storage(database)
        raise
    study.sampler = make_sampler(config.sampler, config.space(), seed=seed)
    study.pruner = make_pruner(config.pruner)
    return database, study


def _measurements_of(
    study: optuna.Study, url: str, patience: Patience
) -> Telemetry | AttributeTelemetry:
    """Return where measurements are kept: our table, or their trials where SQL is out of reach."""
    return AttributeTelemetry(study) if is_proxy(url) else Telemetry(url, patience=patience)
