"""A study from its first line to its profiles: create or resume, calibrate, search, finish.

The database is the study; this process can end at any moment and another goes on from what is
stored. So every step here asks the tables where things stand, and keeps nothing in memory that
the next step needs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout

from storage.atomic import atomic_write_text
from storage.records import TrialRecord
from storage.recovery import CONSTRAINT, close_trial, running_trials
from storage.studies import create_study, load_study, open_storage, set_study_fact, study_facts
from storage.telemetry import Telemetry
from tuner.bench import Bench, Say
from tuner.calibration import budget_env_steps, measure_baseline, measure_chance
from tuner.config import StudyConfig
from tuner.devices.detect import open_device
from tuner.errors import NothingFeasible, Refused, TunerError
from tuner.finalists import confirm, export, tie_width
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.objective import Objective, TrialFailed, describe, fill_in_score
from tuner.protocol import ProbeRequest
from tuner.references import References, judge
from tuner.score import default_min_gain
from tuner.search.sampler import config_of, distributions, make_pruner, make_sampler, untried
from tuner.session import Session
from tuner.space import HardwareConfig
from tuner.stopping import reason_to_stop


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command left its study: why the search stopped, and what was written."""

    reason: str
    interrupted: bool
    profiles: tuple[Path, ...]
    refusal: TunerError | None


def start(config: StudyConfig, name: str, *, say: Say) -> Ending:
    """Create a study and run it to its end.

    Raises:
        TunerError: see `tuner.errors`; StorageError: see `storage.errors`.
    """
    started = time.monotonic()
    folder = config.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    with _study_lock(folder, name), Interrupts() as interrupts:
        with _bench(config, name, interrupts, say) as bench:
            probed = bench.ask(ProbeRequest()).data
            kind = "cpu" if probed["platform"] == "cpu" else "gpu"
            config = config.resolved(kind)
            storage = open_storage(config.storage_url(name), create=True)
            sampler = make_sampler(config.sampler, config.space(), seed=config.seed)
            study = create_study(
                storage, name, sampler=sampler, pruner=make_pruner(config.pruner)
            )
            hardware = bench.device.info().as_dict() | {
                "kind": kind,
                "platform": probed["platform"],
            }
            for fact, value in (
                ("config", config.as_data()),
                ("space", config.space().digest()),
                ("hardware", hardware),
                ("versions", probed["versions"]),
            ):
                set_study_fact(study, fact, value)
            atomic_write_text(folder / "config.yaml", config.as_yaml())
            with Telemetry(config.storage_url(name)) as telemetry:
                session = Session(
                    config=config,
                    study=study,
                    telemetry=telemetry,
                    bench=bench,
                    say=say,
                    started=started,
                )
                return _run(session)
