"""Opens the study that a command goes on with, in a database that may be away for a moment.

Apart from `tuner.study` because the leader and every worker do it: one that was killed is often
started again while the database is restarted too.
"""

from functools import partial

import optuna

from storage.patience import once_it_answers
from storage.studies import StudyStorage, close_storage, load_study, open_storage
from tuner.bench import Say
from tuner.config import StudyConfig
from tuner.interrupts import Interrupts
from tuner.search.sampler import make_pruner, make_sampler

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
