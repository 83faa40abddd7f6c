"""What all steps of one command share: the study, its config, its bench and where results go.

Apart from the steps (calibration, trials, finalists) because each of them measures and records in
the same way: run on the bench, judge, keep.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from storage import csv_file
from storage.errors import StorageError
from storage.journal import Entry
from storage.patience import Patience
from storage.records import TrialRecord
from storage.studies import study_facts
from storage.telemetry import Telemetry
from tuner.aggregate import hardware_of
from tuner.bench import Bench, Order
from tuner.config import GROUP_MARK
from tuner.contamination import Repeats
from tuner.data_files import data_facts, refuse_other_data
from tuner.goal import TIME_TO_RETURN, TRAINING_SHARE
from tuner.kept_learning import KeptLearning
from tuner.measurement import Measurement
from tuner.observer import Kept
from tuner.open_study import OpenStudy
from tuner.outcome import Outcome
from tuner.protocol import Event, TrainRequest
from tuner.references import judge
from tuner.space import HardwareConfig

CSV_NAME = "trials.csv"
LEADER = "leader"
FAULT_VARIABLE = "TUNER_TEST_FAULT"
"""Orders faults for the tests: `3:kill,5:hang`, by trial; never for the baseline."""

OnBlock = Callable[[Event], Outcome | None]


@dataclass(slots=True, kw_only=True)
class Session(OpenStudy):
    """One command's hold on a study; `worker` is the name under which it measures.

    With `kept`, what configs learned in an earlier study, measurements are timed only.

    The leader, one process at a time, holds the study's lock and alone writes its trials.csv.
    """

    bench: Bench
    started: float
    repeats: Repeats = field(default_factory=Repeats)
    patience: Patience | None = None
    worker: str = LEADER
    make_sure_of_lead: Callable[[], None] = lambda: None
    kept: KeptLearning | None = field(default=None, init=False)
    _in_csv: dict[tuple[int, int], str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        OpenStudy.__post_init__(self)  # `super` does not reach it in a class with slots
        self.kept = KeptLearning.of(study_facts(self.study))
        if self.patience is not None:
            self.patience.waiting = self.journal.describe
            self.patience.on_pause = self.journal.write

    @property
    def is_leader(self) -> bool:
        """Whether this process holds the study's lock."""
        return self.worker == LEADER

    def time_left_s(self) -> float | None:
        """Return what is left of the budget, None without one."""
        if self.config.budget is None:
            return None
        return self.config.budget - (self.now_s() - self.started)

    def now_s(self) -> float:
        """Return the clock that budgets are counted on, in seconds since some time."""
        return time.monotonic()

    def use_measured_baseline(self) -> None:
        """Scale learning rates from the baseline that was measured, should it be another one.

        A baseline that does not fit in memory gives way to a smaller config at calibration.
        """
        baseline = self.telemetry.record(self.study.study_name, 0)
        if baseline is not None:
            self.config = self.config.model_copy(update={"baseline": hardware_of(baseline)})

    @property
    def group(self) -> str | None:
        """The name of the hardware's group, None in a study that is no group."""
        return self.study.study_name.partition(GROUP_MARK)[2] or None

    @property
    def table(self) -> Telemetry:
        """The table itself, which a worker behind a proxy does not reach."""
        if not isinstance(self.telemetry, Telemetry):
            raise ValueError("a leader must reach the database, but got a proxy")
        return self.telemetry

    @property
    def at_milestones(self) -> bool:
        """Whether policies are evaluated on the way, too: all train alike, by our PPO, and now."""
        is_ours, is_kept = self.config.trainer is None, self.kept is not None
        return is_ours and not is_kept and self.config.goal != TIME_TO_RETURN

    def order(
        self,
        config: HardwareConfig,
        *,
        trial: int,
        replicate: int,
        env_steps: int,
        probe: bool,
        target_return: float | None = None,
    ) -> Order:
        """Return the order for one measurement of a config.

        Under `--goal time-to-return` it trains to the study's target; `target_return` is that of a
        study which has no references yet, None where it is not known before the baseline.

        Raises:
            Refused: the data were changed while the study ran.
        """
        refuse_other_data(
            study_facts(self.study).get("data", {}),
            data_facts(self.config),
            "a running study",
            "put them back and resume, or start another study",
        )
        if self.references is not None:
            target_return = self.references.target_return
        is_timed = self.config.goal == TIME_TO_RETURN and target_return is not None
        request = TrainRequest(
            workload=self.config.workload_for(config),
            hardware=config.as_dict(),
            seed=self.config.seed + replicate,
            env_steps=env_steps,
            cache_dir=str(self.config.compilation_cache().resolve()),
            until_return=target_return if is_timed else None,
            training_s=TRAINING_SHARE * self.config.timeout if is_timed else None,
            is_timed_only=self.kept is not None,
            at_milestones=self.at_milestones,
            memory_limit_bytes=self.config.memory_limit,
            reserve_bytes=self.config.reserve,
            probe=probe and self.config.probe,
            fault=_ordered_fault(trial),
        )
        return Order(config=config, trial=trial, replicate=replicate, request=request)

    def measure(
        self,
        config: HardwareConfig,
        *,
        trial: int,
        replicate: int,
        env_steps: int,
        on_block: OnBlock = lambda block: None,
        reserve_s: float | None = None,
        probe: bool = False,
        target_return: float | None = None,
    ) -> Measurement:
        """Run one measurement on the bench.

        With `reserve_s` it is interrupted when only so much of the budget is left; with `probe`
        the device's reach is measured beside it; `target_return` as for `order`.
        """
        order = self.order(
            config,
            trial=trial,
            replicate=replicate,
            env_steps=env_steps,
            probe=probe,
            target_return=target_return,
        )
        left_s = self.time_left_s()
        give_up_at = None
        if left_s is not None and reserve_s is not None:
            give_up_at = self.now_s() + left_s - reserve_s
        measurement = self.bench.measure(order, on_block=on_block, give_up_at=give_up_at)
        return measurement if self.kept is None else self.kept.put_to(measurement, config)

    def repeat_if_disturbed(
        self, record: TrialRecord, *, reserve_s: float | None
    ) -> TrialRecord | None:
        """Measure a config again if its measurement was contaminated and repeating helps.

        Args:
            record: of a measurement that was not such a repeat itself.
            reserve_s: as in `measure`.

        Returns:
            The repeat's record, `None` where there was none.
        """
        if self.references is None or self.bench.interrupts.count or not self.wants_repeat(record):
            return None
        left_s = self.time_left_s()
        if left_s is not None and left_s - (reserve_s or 0.0) < (record.duration or 0.0):
            return None
        self.say(f"  disturbed ({record.contaminated}): measured once more")
        again = self.keep(
            self.measure(
                hardware_of(record),
                trial=record.trial,
                replicate=self.next_replicate(record.trial),
                env_steps=self.references.env_steps,
                reserve_s=reserve_s,
                probe=record.probe is not None,
            )
        )
        self.repeats.saw(again)
        return again

    def wants_repeat(self, record: TrialRecord) -> bool:
        """Whether a measurement that is no repeat was disturbed and should be made once more."""
        return self.config.repeat_disturbed and self.repeats.wants(record)

    def next_replicate(self, trial: int) -> int:
        """Return the number of a trial's next measurement."""
        return 1 + max((r.replicate for r in self.records() if r.trial == trial), default=-1)

    def keep(self, measurement: Measurement) -> TrialRecord:
        """Judge a measurement, write it down, tell the user; return its record.

        It is in the journal until the database has it.

        Raises:
            StorageError: it could not be written.
        """
        record = measurement.record
        if self.references is not None:
            record = judge(measurement, self.references)
        curve, samples = tuple(measurement.curve), tuple(measurement.samples)
        self.journal.add(Entry(self.study.study_name, record, curve, samples))
        self.journal.settle(self.save)
        self.add_rows()
        self.say(describe(record))
        self.bench.observer.see(Kept(record))
        return record

    def rewrite_csv(self) -> None:
        """Make trials.csv anew from the table, if the disk takes it."""
        records = self.records()
        self._in_csv = None
        try:
            csv_file.rewrite(self.folder / CSV_NAME, records)
        except StorageError as error:
            self.say(f"{CSV_NAME} is behind the table: {error}")
        else:
            self._in_csv = {(r.trial, r.replicate): r.status for r in records}

    def add_rows(self) -> None:
        """Add to trials.csv what has come into the table since, of other workers too.

        The table is what counts; where a row is missing, or was replaced, the file is made anew.
        """
        if not self.is_leader:
            return
        records, known = self.records(), self._in_csv
        if known is None or any(
            known.get((r.trial, r.replicate), r.status) != r.status for r in records
        ):
            self.rewrite_csv()
            return
        try:
            for record in records:
                if (key := (record.trial, record.replicate)) not in known:
                    csv_file.append(self.folder / CSV_NAME, record)
                    known[key] = record.status
        except StorageError as error:
            self._in_csv = None
            self.say(f"{CSV_NAME} lacks a row: {error}")


def describe(record: TrialRecord) -> str:
    """Return one line on how a trial ended."""
    if record.status != "success":
        return f"  {record.status}: {record.reason}"
    parts = [f"score {record.final_score:.3f}"] if record.final_score is not None else []
    parts.append(f"{record.sps:,.0f} env-steps/s" if record.sps is not None else "")
    if record.goal_score is not None and record.seconds_to_target is None:
        parts.append("target not reached")
    elif record.goal_score is not None:
        parts.append(f"{record.seconds_to_target:.3g} s to the target")
    if record.quality_score is not None:
        parts.append(f"quality {record.quality_score:.2f}")
    if record.device_util is not None:
        parts.append(f"util {record.device_util:.0f} %")
    parts.append(f"{record.duration:.1f} s" if record.duration is not None else "")
    parts.append("disturbed" if record.contaminated else "")
    return "  " + ", ".join(part for part in parts if part)


def _ordered_fault(trial: int) -> str | None:
    orders = dict(item.split(":") for item in os.environ.get(FAULT_VARIABLE, "").split(",") if item)
    return orders.get(str(trial)) if trial > 0 else None
