"""How commands and trials slow down as a study grows to ten thousand trials.

Commands run in fresh processes on studies that `made_up_study.py` makes; `resume` finds its trials
reached, so that it loads, chooses, exports and ends. A trial is run on a bench that answers at
once: what is timed is all that a study does around a measurement.
"""

import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import optuna
from made_up_study import REFERENCES, SPACE, build
from ppo_document import deliver, facts, parser_of, say, this_device

from storage.records import TrialRecord
from storage.studies import close_storage, load_study, open_storage
from storage.telemetry import Telemetry
from tuner.bench import Bench, Order
from tuner.closing import heartbeat_of
from tuner.config import StudyConfig
from tuner.finalists import choose_from
from tuner.hardware import hardware_facts, open_bench, probe_device
from tuner.interrupts import Interrupts
from tuner.measurement import Evaluation, Measurement
from tuner.outcome import Completed
from tuner.search.sampler import distributions, make_sampler, num_untried
from tuner.session import Session
from tuner.stopping import counted, reason_to_stop
from tuner.trials import search

NAME = "many"
SIZES = (100, 1_000, 10_000)
COMMANDS = {
    "status": ("status", NAME, "--json"),
    "list": ("list",),
    "show": ("show", NAME, "7", "--json"),
    "report": ("report", NAME),
    "export": ("export", NAME),
}
NEW_TRIALS = 5
TUNER = Path(sys.executable).with_name("tuner")


class InstantBench:
    """Answers every order at once with one measurement, and notes when it was asked."""

    def __init__(self, answer: Measurement) -> None:
        self.interrupts = Interrupts()
        self.asked_at: list[float] = []
        self._answer = answer

    def measure(self, order: Order, **_: object) -> Measurement:
        self.asked_at.append(time.monotonic())
        numbers: dict[str, Any] = {"trial": order.trial, "replicate": order.replicate}
        # No two measurements take equally long, and a record is known by what it says.
        took = time.monotonic()
        numbers |= order.config.as_dict()
        record = replace(self._answer.record, **numbers, duration=took)
        return replace(self._answer, record=record)

    def util_so_far(self) -> float | None:
        return None


def time_study(folder: Path, size: int, stored: dict[str, Any], runs: int) -> dict[str, Any]:
    """Make a study of `size` trials and time what is done with it; seconds."""
    say(f"{size:,} trials: making the study")
    began = time.monotonic()
    config = build(folder, NAME, size, stored)
    found: dict[str, Any] = {"trials": size, "made_s": time.monotonic() - began}
    # What the device reaches is measured by the first resume, and kept beside the cache.
    resume = ("resume", NAME, "--trials", str(size), "--cache-dir", str(folder.parent / "xla"))
    run(folder, resume)
    for command, words in {**COMMANDS, "resume": resume}.items():
        say(f"{size:,} trials: tuner {' '.join(words)}")
        found[f"{command}_s"] = statistics.median(run(folder, words) for _ in range(runs))
    return found | time_trials(config)


def run(folder: Path, words: tuple[str, ...]) -> float:
    """Run a command, which must measure nothing, and return its wall-clock in seconds."""
    began = time.monotonic()
    ended = subprocess.run(
        [TUNER, *words, "--runs-dir", str(folder)],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    lines = ended.stderr.splitlines()
    if ended.returncode != 0 or any(line.startswith(("trial ", "finalist ")) for line in lines):
        raise SystemExit(f"tuner {' '.join(words)} must only read, but told: {ended.stderr}")
    return seconds


def time_trials(config: StudyConfig) -> dict[str, Any]:
    """Run a few more trials in this process; return the seconds of loading and of a trial."""
    watch = Watch()
    storage = open_storage(config.storage_url(NAME), create=False)
    study = load_study(storage, NAME)
    with Telemetry(config.storage_url(NAME)) as telemetry:
        with watch("load_trials_s"):
            size = len(study.get_trials(deepcopy=False))
        with watch("load_records_s"):
            records = telemetry.records(NAME)
        with watch("choose_s"):
            choose_from(records, REFERENCES, min_feasible=3)
        study.sampler = make_sampler(config.sampler, config.space(), seed=size)
        bench = InstantBench(_last(telemetry, records))
        more = {"trials": len(counted(records)) + NEW_TRIALS, "patience": 2 * size}
        session = Session(
            config=config.model_copy(update={**more, "repeat_disturbed": False}),
            study=study,
            telemetry=telemetry,
            bench=cast(Bench, bench),
            say=lambda line: None,
            started=time.monotonic(),
            references=REFERENCES,
        )
        with heartbeat_of(session) as heartbeat:
            search(session, heartbeat)
        seconds = [after - before for before, after in itertools.pairwise(bench.asked_at)]
        watch.seconds["trial_s"] = statistics.median(seconds)
        _time_parts(session, watch)
    close_storage(storage)
    return watch.seconds


def _last(telemetry: Telemetry, records: list[TrialRecord]) -> Measurement:
    """Return the last success as it was measured."""
    last = [r for r in records if r.status == "success"][-1]
    curve, samples = telemetry.curve(NAME, last.trial), telemetry.samples(NAME, last.trial)
    judged = Evaluation(last.mean_return or 0.0, 2.0, True)
    return Measurement(last, tuple(curve), tuple(samples), None, judged, Completed())


def _time_parts(session: Session, watch: "Watch") -> None:
    """Time what a trial is made of, once each."""
    study, space = session.study, session.config.space()
    warnings.filterwarnings("ignore", "Heartbeat of storage")  # this trial ends at once
    with watch("trial_records_s"):
        records = session.records()
    with watch("trial_untried_s"):
        left = num_untried(study.get_trials(deepcopy=False), space)
    limits: dict[str, Any] = {"trials": None, "patience": len(records), "min_trials": 1}
    with watch("trial_stopping_s"):
        reason_to_stop(records, **limits, min_gain=0.01, untried=left, time_left_s=None)
    with watch("trial_ask_s"):
        trial = study.ask(distributions(space))
    with watch("trial_tell_s"):
        study.tell(trial, 0.0)


class Watch:
    """Times named blocks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def table(document: dict[str, Any]) -> str:
    """Return the figures, a column for each size."""
    sizes = document["sizes"]
    rows = [f"{'seconds at trials':>20}" + "".join(f"{s['trials']:>10,}" for s in sizes)]
    for name in (key for key in sizes[0] if key.endswith("_s")):
        rows.append(f"{name[:-2]:>20}" + "".join(f"{s[name]:>10.2f}" for s in sizes))
    return "\n".join(rows)


def hardware() -> dict[str, Any]:
    """Return the facts by which `resume` knows this machine again."""
    config = StudyConfig()
    with (
        tempfile.TemporaryDirectory() as folder,
        Interrupts() as interrupts,
        open_bench(config, Path(folder), interrupts, say) as bench,
    ):
        probed = probe_device(bench)
        return {
            "hardware": hardware_facts(bench, probed),
            "versions": probed["versions"],
            "util_source": bench.device.util_source,
        }


def main() -> None:
    """Time studies of each size and deliver what was found."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="of the largest study")
    parser.add_argument("--runs", type=int, default=5, help="of each command; the median counts")
    arguments = parser.parse_args()
    largest, runs = (1_000, 1) if arguments.quick else (arguments.trials, arguments.runs)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    document, stored, sizes = facts(this_device()), hardware(), []
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted({largest, *(s for s in SIZES if s < largest)}):
            sizes.append(time_study(Path(folder) / str(size), size, stored, runs))
    configs = math.prod(map(len, SPACE.values()))
    document |= {"runs": runs, "configs": configs, "sizes": sizes}
    deliver(document, table(document), arguments)


if __name__ == "__main__":
    main()
