"""How far the tool's readings can be trusted: memory predicted against measured, SPS run again.

    .venv/bin/python benchmarks/measurement.py                        memory over a grid
    .venv/bin/python benchmarks/measurement.py --profile FILE         and that profile, five times

Every measurement is a trial on the bench, in a process of its own, exactly as in a study.
"""

import argparse
import itertools
import json
import shlex
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.profile_files import load_profile
from storage.records import TrialRecord
from tuner.bench import Bench, Order
from tuner.config import StudyConfig, load_config
from tuner.devices.detect import open_device
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.protocol import ProbeRequest, TrainRequest
from tuner.space import HardwareConfig

GRID_ENVS, GRID_STEPS = (2048, 4096, 8192), (64, 128)
QUICK_ENVS = (2048, 4096)
TIMES = 5


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="a profile to run again in fresh processes")
    parser.add_argument("--times", type=int, default=TIMES, help="how often (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="about a minute on two cores")
    parser.add_argument("--out", type=Path, help="folder to write measurement.json to")
    arguments = parser.parse_args()
    document = measure_all(arguments)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "measurement.json").write_text(text + "\n", encoding="utf-8")
    print(text if arguments.json else in_words(document))


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the document: device, versions, command and what was measured."""
    device = open_device()
    with tempfile.TemporaryDirectory() as folder, Interrupts() as interrupts:
        launcher = Launcher(Path(folder) / "logs", preload=None)
        with Bench(device, launcher, interrupts, timeout_s=600, say=_say) as bench:
            probed = bench.ask(ProbeRequest()).data
            document = {
                "command": shlex.join([".venv/bin/python", *sys.argv]),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "device": device.info().as_dict(),
                "versions": probed["versions"],
                "memory": memory_grid(bench, Path(folder), quick=arguments.quick),
            }
            errors = [abs(row["error"]) for row in document["memory"]]
            document["memory_error"] = {"max": max(errors), "median": statistics.median(errors)}
            if arguments.profile is not None:
                again = run_again(bench, Path(folder), arguments.profile, arguments.times)
                document |= again
    return document


def memory_grid(bench: Bench, folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Return predicted and measured memory of stress configs with 128 observations."""
    config = load_config(None, {"env_params": ["obs_dim=128"]}).resolved("cpu")
    rows = []
    for num_envs, num_steps in itertools.product(QUICK_ENVS if quick else GRID_ENVS, GRID_STEPS):
        hardware = HardwareConfig(num_envs, num_steps, 8, 2)
        record = _measure(bench, folder, config, hardware, env_steps=2 * hardware.batch_size)
        predicted, measured = record.predicted_memory_gb, record.peak_memory_gb
        if predicted is None or measured is None:
            raise SystemExit(f"memory must be measured, but {hardware} gave: {record.reason}")
        rows.append(
            {
                **hardware.as_dict(),
                "predicted_mb": predicted * 1e3,
                "measured_mb": measured * 1e3,
                "error": predicted / measured - 1,
            }
        )
    return rows


def run_again(bench: Bench, folder: Path, path: Path, times: int) -> dict[str, Any]:
    """Return the SPS of a profile's config in fresh processes, beside the recorded interval."""
    profile = load_profile(path)
    workload = profile.workload
    flags = {key: workload[key] for key in ("env", "env_params", "network", "activation", "dtype")}
    rate = {"learning_rate": profile.learning_rate}
    config = load_config(flags | workload["ppo"] | rate, {}).resolved(profile.device or "cpu")
    hardware = HardwareConfig(
        profile.num_envs, profile.num_steps, profile.num_minibatches, profile.num_epochs
    )
    rates = []
    for seed in range(times):
        record = _measure(
            bench, folder, config, hardware, env_steps=profile.measured["env_steps"], seed=seed
        )
        rates.append(record.sps)
    low, high = profile.expected_sps_ci95 or (None, None)
    inside = [low <= sps <= high for sps in rates if low is not None and high is not None and sps]
    return {
        "profile": {"name": profile.profile, **hardware.as_dict()},
        "recorded_sps": profile.expected_sps,
        "recorded_ci95": profile.expected_sps_ci95,
        "sps": rates,
        "sps_cv": statistics.stdev(r for r in rates if r) / statistics.fmean(r for r in rates if r),
        "interval_coverage": statistics.fmean(inside) if inside else None,
    }


def in_words(document: dict[str, Any]) -> str:
    """Return the document as tables."""
    lines = [f"{document['device']['name']}, {document['command']}", ""]
    lines.append(f"{'config':>22} {'predicted MB':>13} {'measured MB':>12} {'error':>7}")
    for row in document["memory"]:
        name = str(HardwareConfig(*(row[key] for key in HardwareConfig.__slots__)))
        lines.append(
            f"{name:>22} {row['predicted_mb']:>13.1f} {row['measured_mb']:>12.1f} "
            f"{row['error']:>+7.1%}"
        )
    if "sps" in document:
        low, high = document["recorded_ci95"] or (float("nan"), float("nan"))
        lines.append(f"\nrecorded {document['recorded_sps']:,.0f} ({low:,.0f}–{high:,.0f})")
        lines += [f"again    {sps:,.0f}" for sps in document["sps"]]
        lines.append(f"coefficient of variation {document['sps_cv']:.1%}")
    return "\n".join(lines)


def _measure(
    bench: Bench,
    folder: Path,
    config: StudyConfig,
    hardware: HardwareConfig,
    *,
    env_steps: int,
    seed: int = 0,
) -> TrialRecord:
    _say(f"{hardware}, seed {seed}")
    request = TrainRequest(
        workload=config.workload(),
        hardware=hardware.as_dict(),
        seed=seed,
        env_steps=env_steps,
        cache_dir=str(folder / "xla"),
    )
    order = Order(config=hardware, trial=0, replicate=seed, request=request)
    return bench.measure(order, on_block=lambda block: None).record


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
