"""Peaks on disk: kept, found again, and never taken for another machine's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.devices.base import DeviceInfo
from tuner.peaks import Peaks, key_of, path_beside, reachable, read, write
from tuner.protocol import Event, PeaksRequest

PEAKS = Peaks(
    matmul_flops_per_s=1.2e11,
    matmul_spread=0.4,
    copy_bytes_per_s=2.4e10,
    copy_spread=0.0,
    launch_s=5e-8,
    launch_spread=1.5,
    reason="bfloat16_flops_per_s: a CPU is held against float32",
)
REQUEST = PeaksRequest(cache_dir="xla")


class Asked:
    """Stands where a child's answer comes from, and counts how often it is wanted."""

    def __init__(self, peaks: Peaks = PEAKS) -> None:
        self.peaks = peaks
        self.times = 0

    def __call__(self, request: PeaksRequest) -> Event:
        assert request == REQUEST
        self.times += 1
        return Event("peaks", 0.0, {**self.peaks.as_json(), "of a newer child": 1})


def positive() -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(1e-12, 1e18)


@given(positive(), positive(), positive(), st.none() | st.text())
def test_peaks_come_back_from_json_as_they_were(
    matmul: float | None, copy: float | None, launch: float | None, reason: str | None
) -> None:
    peaks = Peaks(matmul_flops_per_s=matmul, copy_bytes_per_s=copy, launch_s=launch, reason=reason)
    assert Peaks.from_json(json.loads(json.dumps(peaks.as_json()))) == peaks


@pytest.mark.parametrize(
    "change",
    [
        {"matmul_flops_per_s": 0},
        {"matmul_flops_per_s": "fast"},
        {"copy_bytes_per_s": -1.0},
        {"launch_s": True},
        {"launch_s": float("inf")},
        {"reason": 3},
        {"another": 1.0},
    ],
)
def test_what_is_no_peak_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="but got"):
        Peaks.from_json(PEAKS.as_json() | change)


@pytest.mark.parametrize("data", [None, [], "peaks", {}])
def test_what_is_no_record_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="must have the fields"):
        Peaks.from_json(data)


def test_peaks_are_measured_once_and_found_afterwards(tmp_path: Path) -> None:
    path, asked = path_beside(tmp_path / ".cache" / "xla"), Asked()
    assert path == tmp_path / ".cache" / "peaks.json"
    assert reachable(asked, path, "here", request=REQUEST) == PEAKS
    assert reachable(asked, path, "here", request=REQUEST) == PEAKS
    assert asked.times == 1


def test_another_device_is_measured_and_both_are_kept(tmp_path: Path) -> None:
    path, faster = tmp_path / "peaks.json", replace(PEAKS, matmul_flops_per_s=4e14)
    reachable(Asked(), path, "cpu", request=REQUEST)
    assert reachable(Asked(faster), path, "gpu", request=REQUEST) == faster
    assert read(path) == {"cpu": PEAKS, "gpu": faster}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"schema": 1, "machines": {"here"',
        "[]",
        '{"schema": 2, "machines": {}}',
        '{"schema": 1, "machines": []}',
        '{"schema": 1, "machines": {"here": {"matmul_flops_per_s": 1}}}',
    ],
    ids=["empty", "cut", "list", "newer", "no table", "other fields"],
)
def test_a_broken_or_foreign_file_is_measured_anew_and_replaced(tmp_path: Path, text: str) -> None:
    path, asked = tmp_path / "peaks.json", Asked()
    path.write_text(text)
    assert reachable(asked, path, "here", request=REQUEST) == PEAKS
    assert asked.times == 1
    assert read(path) == {"here": PEAKS}


def test_a_file_that_is_no_text_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "peaks.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert reachable(Asked(), path, "here", request=REQUEST) == PEAKS


def test_one_entry_at_fault_loses_no_other(tmp_path: Path) -> None:
    path = tmp_path / "peaks.json"
    write(path, {"here": PEAKS, "there": PEAKS})
    document = json.loads(path.read_text())
    document["machines"]["there"]["launch_s"] = "quick"
    path.write_text(json.dumps(document))
    assert read(path) == {"here": PEAKS}


def test_peaks_that_cannot_be_kept_hold_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    path = tmp_path / "file" / "peaks.json"
    assert reachable(Asked(), path, "here", request=REQUEST) == PEAKS


def test_peaks_that_are_not_whole_are_tried_again(tmp_path: Path) -> None:
    path, lacking = tmp_path / "peaks.json", replace(PEAKS, copy_bytes_per_s=None)
    assert reachable(Asked(lacking), path, "here", request=REQUEST) == lacking
    assert reachable(Asked(), path, "here", request=REQUEST) == PEAKS
    assert read(path) == {"here": PEAKS}


def test_bfloat16_is_held_against_float32_where_it_has_no_peak() -> None:
    assert PEAKS.flops_per_s("float32") == PEAKS.flops_per_s("bfloat16") == 1.2e11
    gpu = Peaks(matmul_flops_per_s=4e14, bfloat16_flops_per_s=8e14)
    assert gpu.flops_per_s("bfloat16") == 8e14
    assert Peaks().flops_per_s("float32") is None


def test_a_key_tells_devices_cores_and_versions_apart() -> None:
    def info(cores: float, uuid: str | None = None) -> DeviceInfo:
        return DeviceInfo(
            kind="cpu" if uuid is None else "gpu",
            name="Some Processor",
            memory_bytes=None,
            uuid=uuid,
            driver=None,
            platform="cpu" if uuid is None else "cuda",
            cpu="Some Processor",
            cores=cores,
        )

    keys = {
        key_of(info(2.0), jax_version="0.10.2"),
        key_of(info(1.5), jax_version="0.10.2"),
        key_of(info(2.0), jax_version="0.11.0"),
        key_of(info(2.0, "GPU-1"), jax_version="0.10.2"),
        key_of(info(2.0, "GPU-2"), jax_version="0.10.2"),
    }
    assert len(keys) == 5
    # What a GPU reaches does not depend on the host's cores.
    here, there = (key_of(info(cores, "GPU-1"), jax_version="0.10.2") for cores in (2.0, 4.0))
    assert here == there


@pytest.mark.parametrize("name", ["matmul_spread", "copy_spread", "launch_spread"])
def test_peaks_that_something_held_up_are_measured_again_by_the_next_study(
    tmp_path: Path, name: str
) -> None:
    path, asked = tmp_path / "peaks.json", Asked(replace(PEAKS, **{name: 2.1}))
    for times in (1, 2):
        assert reachable(asked, path, "here", request=REQUEST) == asked.peaks
        assert asked.times == times
    assert read(path) == {}
