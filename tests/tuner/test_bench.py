"""The bench: real questions and real trials on this machine's device."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tuner.trials import PATIENCE_S, TINY, request, wait_until, workload
from tuner.bench import Bench, Order
from tuner.devices.detect import open_device
from tuner.errors import TunerError, UsageError
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.measurement import Measurement
from tuner.outcome import Completed, Outcome, Pruned
from tuner.peaks import reachable, read
from tuner.protocol import Event, FitRequest, PeaksRequest, ProbeRequest, RandomRequest
from tuner.space import HardwareConfig

CONFIG = HardwareConfig(**TINY)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def make_bench(
    logs: Path,
    *,
    lock: str = "",
    interrupts: Interrupts | None = None,
    said: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Return a bench with the device's lock where no other study, nor other test, looks."""
    locks = logs.parent / f"lock-{lock or logs.name}"
    locks.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(locks))
        return Bench(
            open_device(),
            Launcher(logs, preload=None),
            interrupts or Interrupts(),
            timeout_s=PATIENCE_S,
            say=said,
        )


@pytest.fixture(scope="module")
def bench(logs: Path) -> Iterator[Bench]:
    with make_bench(logs) as bench:
        yield bench


def order(cache_dir: Path, *, trial: int = 1, replicate: int = 0, **changes: Any) -> Order:
    asked = replace(request(cache_dir), **changes)
    return Order(config=CONFIG, trial=trial, replicate=replicate, request=asked)


@pytest.fixture(scope="module")
def measured(bench: Bench, cache_dir: Path) -> Measurement:
    # Blocks of 64 updates: the window lasts a second or more, and the monitor looks in.
    ordered = order(cache_dir, trial=7, replicate=2, env_steps=32 * 64 * CONFIG.batch_size)
    return bench.measure(ordered, on_block=lambda block: None)


def test_chance_on_stress_is_what_the_formula_says(bench: Bench, cache_dir: Path) -> None:
    asked = RandomRequest(workload=workload(), seeds=(0, 1, 2), cache_dir=str(cache_dir))
    answer = bench.ask(asked).data
    # Of three actions two pay the cost of 0.3, and the signal has mean 0: −2 · 0.3 / 3 = −0.2.
    # 64 environments · 2000 steps, signals of variance 1 with correlation 0.9 through independent
    # positions: √(2/3 / 128000) = 0.0023 for a mean; five of them.
    assert answer["returns"] == pytest.approx([-0.2] * 3, abs=0.012)
    # 2·(ρφ(c/ρ) − c(1 − Φ(c/ρ))), c/ρ = 1/3: φ = 0.37738, 1 − Φ = 0.36944
    assert answer["best_return"] == pytest.approx(2 * (0.9 * 0.37738 - 0.3 * 0.36944), abs=1e-4)
    assert (answer["obs_shape"], answer["num_actions"], answer["per_step_return"]) == ([8], 3, True)


def test_the_first_candidate_that_fits_is_found(bench: Bench, cache_dir: Path) -> None:
    smaller = {**TINY, "num_envs": 8}
    asked = FitRequest(workload=workload(), candidates=(TINY, smaller), cache_dir=str(cache_dir))
    free = bench.ask(asked).data
    assert free["hardware"] == TINY
    (tried,) = free["tried"]
    assert tried["hardware"] == TINY

    short = replace(asked, memory_limit_bytes=tried["predicted_bytes"] - 1)
    found = bench.ask(short).data
    assert found["hardware"] == smaller
    assert [t["hardware"] for t in found["tried"]] == [TINY, smaller]
    assert found["tried"][1]["predicted_bytes"] <= found["limit_bytes"]


def test_where_nothing_fits_there_is_no_candidate(bench: Bench, cache_dir: Path) -> None:
    asked = FitRequest(
        workload=workload(), candidates=(TINY,), cache_dir=str(cache_dir), memory_limit_bytes=1
    )
    assert bench.ask(asked).data["hardware"] is None


def test_the_device_says_what_it_is_and_which_versions_run(bench: Bench) -> None:
    answer = bench.ask(ProbeRequest()).data
    assert answer["platform"] in ("cpu", "gpu", "cuda")
    assert {"tuner", "jax", "jaxlib", "python"} <= set(answer["versions"])


def test_what_the_device_reaches_is_measured_once(
    bench: Bench, cache_dir: Path, tmp_path: Path
) -> None:
    path, asked = tmp_path / "peaks.json", PeaksRequest(cache_dir=str(cache_dir))
    peaks = reachable(bench.ask, path, "here", request=asked)
    assert None not in (peaks.matmul_flops_per_s, peaks.copy_bytes_per_s, peaks.launch_s)
    # What something held up is not kept for the next study.
    assert read(path) == ({} if peaks.is_disturbed else {"here": peaks})


def test_questions_are_answered_by_one_process_that_a_trial_ends(
    logs: Path, cache_dir: Path
) -> None:
    others = set(psutil.Process().children())

    def children() -> set[psutil.Process]:
        started = set(psutil.Process().children()) - others
        return {process for process in started if "--events-fd" in process.cmdline()}

    with make_bench(logs / "questions") as bench:
        bench.ask(ProbeRequest())
        asked = children()
        bench.ask(ProbeRequest())
        assert children() == asked
        assert len(asked) == 1
        ended = bench.measure(order(cache_dir), on_block=lambda block: Pruned("enough"))
        assert ended.outcome == Pruned("enough")
        assert not asked & children()
    assert not children()


def test_a_parameter_at_fault_is_a_usage_error(logs: Path, cache_dir: Path) -> None:
    asked = workload(env_params={"rhoo": 1.0})
    with make_bench(logs / "fault") as bench, pytest.raises(UsageError, match="rhoo"):
        bench.ask(RandomRequest(workload=asked, seeds=(0,), cache_dir=str(cache_dir)))


def test_a_child_that_dies_of_a_question_is_an_error_with_its_last_words(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")  # jax ends the process over it
    with make_bench(logs / "dead") as bench, pytest.raises(TunerError, match="xla_no_such_flag"):
        bench.ask(ProbeRequest())


def test_a_trial_is_measured_whole(measured: Measurement) -> None:
    assert measured.outcome == Completed()
    kept = measured.record
    assert (kept.trial, kept.replicate, kept.status) == (7, 2, "success")
    assert kept.env_steps == 32 * 64 * CONFIG.batch_size
    assert None not in (kept.sps, kept.end_to_end_sps, kept.mean_return, kept.peak_memory_gb)
    assert measured.evaluation is not None


def test_the_phases_of_a_real_trial_add_up_to_its_duration(measured: Measurement) -> None:
    kept = measured.record
    assert list(kept.phases) == ["start", "compile", "warm_up", "window", "evaluate"]
    assert sum(kept.phases.values()) == pytest.approx(kept.duration)
    assert kept.phases["window"] == kept.window_s
    assert kept.end_to_end_sps is not None
    assert kept.sps is not None
    assert kept.end_to_end_sps < kept.sps


def test_utilisation_comes_with_its_source_and_a_plausible_value(measured: Measurement) -> None:
    kept = measured.record
    assert kept.util_source == open_device().util_source
    assert measured.samples
    if kept.device_util is not None:  # a window of a fast machine may hold too few samples
        assert 0 < kept.device_util <= 100


def test_a_replicate_has_a_log_of_its_own(measured: Measurement, logs: Path) -> None:
    assert (logs / "trial-0007-r2.log").exists()
    assert order(Path()).log_name == "trial-0001.log"


def test_a_spare_waits_once_a_window_has_closed(measured: Measurement, logs: Path) -> None:
    assert list(logs.glob(f"spare-{os.getpid()}-*.log"))


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(
    bench: Bench, cache_dir: Path
) -> None:
    seen: list[Event] = []

    def note(block: Event) -> Outcome | None:
        seen.append(block)
        return None

    ended = bench.measure(order(cache_dir, trial=2, fault="diverge"), on_block=note)
    assert ended.record.status == "diverged"
    assert "stopped being finite within" in (ended.record.reason or "")
    assert len(seen) < 32


def test_a_bench_waits_for_its_device_and_says_so(logs: Path) -> None:
    said: list[str] = []
    inside = threading.Event()

    def enter() -> None:
        with make_bench(logs / "second", lock="shared", said=said.append):
            inside.set()

    waiting = threading.Thread(target=enter)
    with make_bench(logs / "first", lock="shared"):
        waiting.start()
        wait_until(lambda: bool(said))
        assert not inside.is_set()
    assert inside.wait(PATIENCE_S)
    waiting.join()
    assert "another study is measuring on it" in said[0]


def test_waiting_for_a_device_can_be_interrupted(logs: Path) -> None:
    def interrupt(line: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with make_bench(logs / "first", lock="shared"), Interrupts() as interrupts:
        second = make_bench(logs / "second", lock="shared", interrupts=interrupts, said=interrupt)
        with pytest.raises(KeyboardInterrupt):
            second.__enter__()
