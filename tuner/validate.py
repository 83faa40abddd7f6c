"""Measure a profile's workload again, in fresh processes and for long, and say whether it holds.

The measurements are trials on the bench like those of a study; what they mean is decided in
`tuner.drift`. Nothing is written but logs.
"""

import math
import shlex
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from storage.profile import Profile
from storage.profile_files import read
from storage.records import TrialRecord
from tuner.bench import Bench, Order, Say
from tuner.config import StudyConfig
from tuner.contamination import is_noisy
from tuner.drift import (
    Check,
    check_flat,
    check_memory,
    check_quality,
    check_throughput,
    check_utilisation,
)
from tuner.errors import Refused, UsageError
from tuner.hardware import hardware_facts, open_bench, probe_device, refuse_other_hardware
from tuner.interrupts import Interrupts
from tuner.kept_learning import TRAININGS
from tuner.measurement import Measurement
from tuner.outcome import Crashed, Interrupted
from tuner.protocol import RandomRequest, TrainRequest
from tuner.quality import QualityReferences
from tuner.references import assess, stored_references
from tuner.workload import config_of, hardware_config

FRESH_PROCESSES = 5
FEWEST_CLEAN = 3
"""Undisturbed measurements that are judged alone; with fewer the disturbed ones count too."""
FIRST_SEED = 1000
"""Far from the seeds of a study, whose best config owes something to them."""
SOAK_S = 20.0
SOAK_UPDATES = 150
"""Updates that a soak should see; a known failure came after 130."""
LONGEST_SOAK_S = 120.0

EXIT_DRIFTED, EXIT_UNCLEAR = 6, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What was found: the checks, the records behind them, and what to leave the command with."""

    profile: Profile
    checks: tuple[Check, ...]
    records: tuple[TrialRecord, ...]

    @property
    def exit_code(self) -> int:
        """0 if the profile holds, 6 if it has drifted, 9 if the machine cannot tell as it is."""
        verdicts = {check.verdict for check in self.checks}
        if "drifted" in verdicts:
            return EXIT_DRIFTED
        return EXIT_UNCLEAR if "unclear" in verdicts else 0

    @property
    def reason(self) -> str:
        """Why, in words."""
        wanted = {EXIT_DRIFTED: "drifted", EXIT_UNCLEAR: "unclear"}.get(self.exit_code, "holds")
        found = [f"{c.what}: {c.reason}" for c in self.checks if c.verdict == wanted]
        return "; ".join(found)

    def as_dict(self) -> dict[str, Any]:
        """Return the document of `tuner validate --json`."""
        return {
            "profile": self.profile.profile,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "noisy": is_noisy(self.records),
            "checks": [check.as_dict() for check in self.checks],
            "records": [record.as_dict() for record in self.records],
        }


def validate(path: Path, given: Mapping[str, object], *, tolerance: float, say: Say) -> Validation:
    """Measure the workload of the profile at `path` again and judge it.

    Args:
        path: a profile file.
        given: `runs_dir`, where the caches and logs are, and other settings of no workload; `env`,
            `trainer` and `data` as in `tuner.workload.config_of`.
        tolerance: relative loss of what was promised that still counts as holding, in (0, 1).
        say: tells the user a line.

    Raises:
        InvalidProfile: the file is no profile.
        UsageError: it does not say what would have to be measured.
        Refused: its hardware or workload is not the one at hand.
        KeyboardInterrupt: the user stopped it.
    """
    profile = read(path)
    _require_measured(profile, path)
    config = config_of(profile, given)
    logs = config.runs_dir / ".validate" / time.strftime("%Y%m%d-%H%M%S")
    with (
        Interrupts() as interrupts,
        open_bench(config, logs, interrupts, say, util_source=profile.util_source) as bench,
    ):
        here = hardware_facts(bench, probe_device(bench))
        remedy = f"carry it over with `tuner transfer {shlex.quote(str(path))}`"
        refuse_other_hardware(profile.hardware, here, "a profile", remedy=remedy)
        _refuse_other_environment(bench, config, profile)
        return _measure_and_judge(bench, config, profile, tolerance, say)


def order(
    profile: Profile,
    config: StudyConfig,
    *,
    number: int,
    env_steps: int,
    seed: int,
    at_milestones: bool = False,
) -> Order:
    """Return the order for one measurement of a profile's config, with the probe beside it."""
    hardware = hardware_config(profile)
    request = TrainRequest(
        workload=config.workload(),
        hardware=hardware.as_dict(),
        seed=seed,
        env_steps=env_steps,
        cache_dir=str(config.compilation_cache().resolve()),
        reserve_bytes=config.reserve,
        at_milestones=at_milestones,
        probe=True,
    )
    return Order(config=hardware, trial=0, replicate=number, request=request)


def _measure_and_judge(
    bench: Bench, config: StudyConfig, profile: Profile, tolerance: float, say: Say
) -> Validation:
    measurements: list[Measurement] = []
    references = stored_references(profile.measured)
    at_milestones = references is not None and references.num_evaluations > 1
    budget = _budget(profile)
    for number in range(FRESH_PROCESSES + 1):
        is_soak = number == FRESH_PROCESSES
        kind = "soak" if is_soak else f"measurement {number + 1}"
        env_steps = _soak_env_steps(profile, measurements) if is_soak else budget
        say(f"{kind} of {hardware_config(profile)}, {env_steps:,} env-steps")
        wanted = order(
            profile,
            config,
            number=number,
            env_steps=env_steps,
            seed=FIRST_SEED + number,
            at_milestones=at_milestones and not is_soak,
        )
        measurement = bench.measure(wanted, on_block=lambda block: None)
        if isinstance(measurement.outcome, Crashed):
            say(f"  crashed, once more: {measurement.outcome.reason}")
            measurement = bench.measure(wanted, on_block=lambda block: None)
        record = measurement.record
        if isinstance(measurement.outcome, Interrupted):
            raise KeyboardInterrupt
        measurements.append(measurement)
        if record.status != "success":
            records = tuple(m.record for m in measurements)
            return Validation(profile=profile, checks=(_ended(profile, record),), records=records)
        say(f"  {record.sps:,.0f} env-steps/s" + (", disturbed" if record.contaminated else ""))
    return _judge(profile, measurements, tolerance)


def _ended(profile: Profile, record: TrialRecord) -> Check:
    """Judge a measurement that had no result: less memory for all is no fault of the profile."""
    then, now = profile.memory_limit_gb, record.memory_limit_gb
    is_crowded = then is not None and now is not None and now < then
    refused = record.status == "predicted_oom"
    return Check(
        what="training",
        unit="",
        expected=None,
        measured=None,
        verdict="unclear" if refused and is_crowded else "drifted",
        reason=f"it ended as {record.status}: {record.reason}",
    )


def _judge(profile: Profile, measurements: list[Measurement], tolerance: float) -> Validation:
    records = [measurement.record for measurement in measurements]
    fresh = records[:FRESH_PROCESSES]
    clean = [record for record in fresh if record.contaminated is None]
    counted = clean if len(clean) >= FEWEST_CLEAN else fresh
    checks = [
        check_throughput(profile, counted, tolerance),
        check_memory(profile, fresh, tolerance),
        check_utilisation(profile, counted, tolerance),
        check_quality(profile, _scores(profile, measurements[:FRESH_PROCESSES]), tolerance),
        *check_flat(measurements[-1].curve),
    ]
    return Validation(profile=profile, checks=tuple(checks), records=tuple(records))


def _scores(profile: Profile, measurements: list[Measurement]) -> list[float]:
    """Return the quality scores, judged against the references that the profile was judged by."""
    references = stored_references(profile.measured)
    if references is None:
        return []
    found = [assess(m, references).get_diagnostics()["quality_score"] for m in measurements]
    return [score for score in found if score is not None]


def _budget(profile: Profile) -> int:
    """Return the env-steps to train for: of which the study's milestones were shares.

    Where training went on to a return, or the study's budget is not told, those that it took.
    """
    measured = profile.measured
    is_timed = "seconds_to_target" in measured
    name = "env_steps" if is_timed or "budget_env_steps" not in measured else "budget_env_steps"
    return int(measured[name])


def _soak_env_steps(profile: Profile, measurements: list[Measurement]) -> int:
    """Return env-steps for 150 updates, but for at least 20 s and at most two minutes."""
    rate = statistics.fmean(m.record.sps or 0.0 for m in measurements)
    updates = SOAK_UPDATES * hardware_config(profile).batch_size
    return int(min(max(updates, SOAK_S * rate), LONGEST_SOAK_S * rate))


def _require_measured(profile: Profile, path: Path) -> None:
    """Require everything that is judged, before minutes are spent on measuring.

    Raises:
        UsageError: something is missing or no number.
    """
    measured = profile.measured
    numbers = {
        "env_steps": measured.get("env_steps"),
        "budget_env_steps": measured.get("budget_env_steps", measured.get("env_steps")),
        "replicates": measured.get("replicates", 1),
        TRAININGS: measured.get(TRAININGS, 1),
        "quality_sd": measured.get("quality_sd") or 0.0,
        **{f"probe.{key}": value for key, value in (_mapping(measured, "probe")).items()},
    }
    references = _mapping(measured, "quality_references")
    known = {field.name for field in fields(QualityReferences)}
    is_sound = (
        bool(profile.expected_sps)
        and all(_is_number(value) and value >= 0 for value in numbers.values())
        and numbers["env_steps"] >= 1
        and numbers["budget_env_steps"] >= 1
        and numbers["replicates"] >= 1
        and numbers[TRAININGS] >= 1
        and set(references) <= known
        and all(value is None or _is_number(value) for value in references.values())
        and (not references or {"random_return", "random_se"} <= set(references))
    )
    if not is_sound:
        raise UsageError(
            "a profile must hold expected_sps, measured.env_steps and what it was judged by to be "
            f"validated, but {path} does not; export it anew with `tuner export`"
        )


def _mapping(measured: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping in `measured`; one whose only value is no number where it is no mapping."""
    value = measured.get(key) or {}
    return value if isinstance(value, Mapping) else {"": None}


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def _refuse_other_environment(bench: Bench, config: StudyConfig, profile: Profile) -> None:
    """Refuse an environment whose shapes have changed since the profile was measured."""
    answer = bench.ask(
        RandomRequest(
            workload=config.workload(),
            seeds=(),
            cache_dir=str(config.compilation_cache().resolve()),
        )
    )
    for key in ("obs_shape", "num_actions"):
        if key in profile.workload and profile.workload[key] != answer.data[key]:
            raise Refused(
                f"the environment must have the {key} that was measured, "
                f"{profile.workload[key]}, but got {answer.data[key]}; tune it anew"
            )
