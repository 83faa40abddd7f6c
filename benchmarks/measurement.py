"""How far the tool's readings can be trusted: repeatability, coverage, memory, the monitor's cost.

    .venv/bin/python benchmarks/measurement.py                  everything: 15 minutes on 2 cores
    .venv/bin/python benchmarks/measurement.py --quick          the same on fewer points
    .venv/bin/python benchmarks/measurement.py --profile FILE   only that profile, run again

Every measurement is a trial on the bench, in a process of its own, exactly as in a study. Nothing
else should run beside it; what did is told by the steal and the load that are recorded.
"""

import argparse
import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laboratory import Laboratory
from measurement_tables import in_words

from storage.profile_files import load_profile
from tuner.aggregate import summarise
from tuner.config import StudyConfig
from tuner.measurement import Measurement, memory_error
from tuner.probe import sps_per_reach
from tuner.settings import load_config
from tuner.space import CPU_BASELINE, GPU_BASELINE, HardwareConfig
from tuner.throughput import interval, run_spread, student_t
from tuner.workload import config_of, hardware_config


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    configs: tuple[HardwareConfig, ...]
    times: int
    baseline: HardwareConfig
    baseline_times: int
    window_s: float
    memory_envs: tuple[int, ...]
    pairs: int
    max_env_steps: int


CPU_PLAN = Plan(
    configs=(
        HardwareConfig(8, 32, 4, 4),
        HardwareConfig(32, 128, 2, 2),
        HardwareConfig(64, 64, 8, 2),
        HardwareConfig(128, 32, 4, 4),
        HardwareConfig(256, 128, 4, 2),
        HardwareConfig(512, 64, 8, 4),
    ),
    times=11,
    baseline=CPU_BASELINE,
    baseline_times=3,
    window_s=3.0,
    memory_envs=(2048, 4096, 8192),
    pairs=10,
    max_env_steps=1_000_000,
)
GPU_PLAN = replace(
    CPU_PLAN,
    configs=(
        HardwareConfig(512, 128, 4, 4),
        HardwareConfig(1024, 256, 8, 4),
        HardwareConfig(2048, 128, 16, 8),
        HardwareConfig(4096, 128, 4, 4),
        HardwareConfig(8192, 256, 8, 4),
        HardwareConfig(16384, 128, 4, 4),
    ),
    baseline=GPU_BASELINE,
    memory_envs=(2048, 8192, 16384),
    max_env_steps=200_000_000,
)
MEMORY_STEPS = (64, 128)


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="only run this profile again")
    parser.add_argument("--times", type=int, default=5, help="how often that is (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="about a minute on two cores")
    parser.add_argument("--out", type=Path, help="folder to write measurement.json to")
    arguments = parser.parse_args()
    with Laboratory() as laboratory:
        document = laboratory.facts()
        if arguments.profile is not None:
            document |= run_again(laboratory, arguments.profile, arguments.times)
        else:
            document |= measure_all(laboratory, quick=arguments.quick)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "measurement.json").write_text(text + "\n", encoding="utf-8")
    print(text if arguments.json else in_words(document))


def measure_all(laboratory: Laboratory, *, quick: bool) -> dict[str, Any]:
    """Return everything that is measured without a profile."""
    plan = GPU_PLAN if laboratory.kind == "gpu" else CPU_PLAN
    if quick:
        plan = quickened(plan)
    config = load_config(None, {}).resolved(laboratory.kind)
    lengths, baseline, first = calibrate(laboratory, config, plan)
    repeats = repeat(laboratory, config, plan, lengths)
    memory = memory_grid(laboratory, plan)
    errors = [abs(row["error"]) for row in memory if row["error"] is not None]
    return {
        "sps_cv": repeatability(repeats),
        "interval_coverage": coverage(baseline, first, repeats),
        "memory_error": {"median": statistics.median(errors), "max": max(errors), "grid": memory},
        "monitor_overhead": overhead(laboratory, config, plan, lengths, repeats),
    }


def quickened(plan: Plan) -> Plan:
    """Return a plan of about a minute on two cores."""
    return replace(
        plan,
        configs=plan.configs[2:4],
        memory_envs=plan.memory_envs[:1],
        times=2,
        window_s=1.0,
        pairs=1,
    )


def calibrate(
    laboratory: Laboratory, config: StudyConfig, plan: Plan
) -> tuple[dict[HardwareConfig, int], list[Measurement], dict[HardwareConfig, Measurement]]:
    """Return env-steps for windows of the plan's length, the baseline's replicates, and firsts."""
    lengths: dict[HardwareConfig, int] = {}
    for hardware in (plan.baseline, *plan.configs):
        trial = laboratory.measure(config, hardware, env_steps=16 * hardware.batch_size)
        rate = trial.record.sps or 0.0
        lengths[hardware] = min(
            plan.max_env_steps, max(16 * hardware.batch_size, int(rate * plan.window_s))
        )
    baseline = [
        laboratory.measure(config, plan.baseline, env_steps=lengths[plan.baseline], seed=seed)
        for seed in range(plan.baseline_times)
    ]
    first = {
        hardware: laboratory.measure(config, hardware, env_steps=lengths[hardware])
        for hardware in plan.configs
    }
    return lengths, baseline, first


def repeat(
    laboratory: Laboratory,
    config: StudyConfig,
    plan: Plan,
    lengths: dict[HardwareConfig, int],
) -> dict[HardwareConfig, list[Measurement]]:
    """Measure every config several times in fresh processes, in an order mixed by a fixed seed."""
    orders = list(itertools.product(plan.configs, range(1, plan.times + 1)))
    random.Random(0).shuffle(orders)
    found: dict[HardwareConfig, list[Measurement]] = {hardware: [] for hardware in plan.configs}
    for hardware, seed in orders:
        found[hardware].append(
            laboratory.measure(config, hardware, env_steps=lengths[hardware], seed=seed, probe=True)
        )
    return found


def repeatability(repeats: dict[HardwareConfig, list[Measurement]]) -> dict[str, Any]:
    """Return the coefficients of variation of SPS, memory and utilisation of each config."""
    rows = []
    for hardware, measurements in repeats.items():
        records = [m.record for m in measurements]
        rows.append(
            {
                "config": str(hardware),
                **{
                    f"{name}_cv": variation([getattr(record, name) for record in records])
                    for name in ("sps", "peak_memory_gb", "device_util")
                },
                "sps_per_reach_cv": variation(sps_per_reach(records)),
                "sps": [record.sps for record in records],
                "probe": [record.probe for record in records],
                "steal_percent": [record.steal_percent for record in records],
                "other_cpu_percent": [record.other_cpu_percent for record in records],
                "contaminated": sum(record.contaminated is not None for record in records),
            }
        )
    rates = [[m.record.sps for m in measurements] for measurements in repeats.values()]
    known = [cv for cv in map(variation, rates) if cv is not None]
    relative = [variation(sps_per_reach([m.record for m in ms])) for ms in repeats.values()]
    related = [cv for cv in relative if cv is not None]
    return {
        "median": statistics.median(known),
        "max": max(known),
        "relative_to_probe_median": statistics.median(related) if related else None,
        "configs": rows,
    }


def variation(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation over the mean of what is known."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or statistics.fmean(known) == 0:
        return None
    return statistics.stdev(known) / statistics.fmean(known)


def coverage(
    baseline: Sequence[Measurement],
    first: dict[HardwareConfig, Measurement],
    repeats: dict[HardwareConfig, list[Measurement]],
) -> dict[str, Any]:
    """Return how often the interval that a study would record holds another process's SPS.

    As a study does, from the baseline's replicates, each config's first measurement and a second
    one later; judged on the runs after that. These share their config's interval, so that the
    interval of the share itself, which takes them as independent, is too narrow.
    """
    spread = run_spread([m.throughput for m in baseline if m.throughput is not None])
    groups = [list(baseline), *([first[hardware], repeats[hardware][0]] for hardware in repeats)]
    records = [
        replace(
            m.record,
            trial=trial,
            replicate=replicate,
            sps_ci95=None if m.throughput is None else interval(m.throughput, spread),
        )
        for trial, group in enumerate(groups)
        for replicate, m in enumerate(group)
    ]
    recorded = {summary.config: summary.sps_ci95 for summary in summarise(records)}
    held, widths = [], []
    for hardware, measurements in repeats.items():
        low, high = recorded[hardware] or (math.nan, math.nan)
        held += [low <= (m.record.sps or math.nan) <= high for m in measurements[1:]]
        widths.append((high - low) / (high + low))
    return {
        "share": statistics.fmean(held),
        "runs": len(held),
        "wilson95": wilson(sum(held), len(held)),
        "relative_half_width": statistics.median(widths),
        "baseline_run_sd": None if spread is None else math.sqrt(spread.run_variance),
    }


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / runs
    centre = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z / (1 + z * z / runs) * math.sqrt(share * (1 - share) / runs + (z / (2 * runs)) ** 2)
    return centre - half, centre + half


def memory_grid(laboratory: Laboratory, plan: Plan) -> list[dict[str, Any]]:
    """Return predicted and measured memory of stress configs with 128 observations."""
    config = load_config(None, {"env_params": ["obs_dim=128"]}).resolved(laboratory.kind)
    rows = []
    for num_envs, num_steps in itertools.product(plan.memory_envs, MEMORY_STEPS):
        hardware = HardwareConfig(num_envs, num_steps, 8, 2)
        record = laboratory.measure(config, hardware, env_steps=2 * hardware.batch_size).record
        rows.append(
            {
                "config": str(hardware),
                "predicted_mb": (record.predicted_memory_gb or math.nan) * 1e3,
                "measured_mb": (record.peak_memory_gb or math.nan) * 1e3,
                "error": memory_error(record),
            }
        )
    return rows


def overhead(
    laboratory: Laboratory,
    config: StudyConfig,
    plan: Plan,
    lengths: dict[HardwareConfig, int],
    repeats: dict[HardwareConfig, list[Measurement]],
) -> dict[str, Any]:
    """Return the monitor's own CPU time, and the SPS lost to it, from runs in alternating pairs."""
    losses = []
    for seed in range(plan.pairs):
        rates = {}
        for is_watched in (True, False) if seed % 2 else (False, True):
            measurement = laboratory.measure(
                config,
                plan.baseline,
                env_steps=lengths[plan.baseline],
                seed=seed,
                is_watched=is_watched,
            )
            rates[is_watched] = measurement.record.sps or math.nan
        losses.append(1 - rates[True] / rates[False])
    own = [m.record.monitor_percent for ms in repeats.values() for m in ms]
    known = [percent for percent in own if percent is not None]
    half = None
    if len(losses) > 1:
        half = student_t(len(losses) - 1) * statistics.stdev(losses) / math.sqrt(len(losses))
    mean = statistics.fmean(losses)
    return {
        "own_cpu_percent": {"median": statistics.median(known), "max": max(known)},
        "sps_loss": mean,
        "sps_loss_ci95": None if half is None else (mean - half, mean + half),
        "pairs": len(losses),
    }


def run_again(laboratory: Laboratory, path: Path, times: int) -> dict[str, Any]:
    """Return the SPS of a profile's config in fresh processes, beside the recorded interval."""
    profile = load_profile(path)
    config = config_of(profile, {})
    hardware = hardware_config(profile)
    records = [
        laboratory.measure(
            config, hardware, env_steps=profile.measured["env_steps"], seed=seed
        ).record
        for seed in range(times)
    ]
    rates = [record.sps for record in records]
    low, high = profile.expected_sps_ci95 or (math.nan, math.nan)
    return {
        "profile": {"name": profile.profile, **hardware.as_dict()},
        "recorded_sps": profile.expected_sps,
        "recorded_ci95": profile.expected_sps_ci95,
        "sps": rates,
        "steal_percent": [record.steal_percent for record in records],
        "sps_cv": variation(rates),
        "interval_coverage": statistics.fmean(low <= (sps or math.nan) <= high for sps in rates),
    }


if __name__ == "__main__":
    main()
