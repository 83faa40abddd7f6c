import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import DeviceSample
from tests.tuner.devices.samples import GPU
from tuner.devices.replay import RecordingEnded, ReplayDevice, read_samples
from tuner.errors import UsageError

SAMPLES = (
    DeviceSample(t=1.0, util=50.0, memory_bytes=10**10),
    DeviceSample(
        t=1.25,
        util=0.0,
        throttle_reasons=8,
        energy_j=2.5,
        gpu_util=99.0,
        sm_occupancy=12.5,
        tensor_util=0.0,
        sm_clock_mhz=1755.0,
        other_device_percent=3.0,
    ),
)


def test_samples_come_in_order_and_then_end() -> None:
    device = ReplayDevice(SAMPLES, GPU)
    device.watch(1)
    assert device.info() is GPU
    assert device.util_source == "replay"
    assert ReplayDevice(SAMPLES, GPU, util_source="gpm").util_source == "gpm"
    assert (device.sample(), device.sample()) == SAMPLES
    with pytest.raises(RecordingEnded, match="no more samples"):
        device.sample()
    device.close()


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(asdict(sample)) for sample in SAMPLES) + "\n\n")
    assert read_samples(path) == SAMPLES
    assert ReplayDevice.from_file(path, GPU).sample() == SAMPLES[0]


def test_csv_with_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text(
        "t,util,memory_bytes,throttle_reasons,energy_j,gpu_util,sm_occupancy,tensor_util,"
        "sm_clock_mhz,other_device_percent\n"
        "1.0,50,10000000000,,,,,,,\n"
        "1.25,0,,8,2.5,99,12.5,0,1755,3\n"
    )
    assert read_samples(path) == SAMPLES


@given(
    rows=st.lists(
        st.tuples(
            st.floats(0.001, 10.0),
            st.none() | st.floats(0, 100),
            st.none() | st.integers(0, 2**40),
        ),
        max_size=10,
    )
)
def test_json_lines_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, float | None, int | None]],
) -> None:
    samples, t = [], 0.0
    for step, util, memory in rows:
        t += step
        samples.append(DeviceSample(t=t, util=util, memory_bytes=memory))
    path = tmp_path_factory.mktemp("replay") / "run.jsonl"
    path.write_text("\n".join(json.dumps(asdict(sample)) for sample in samples))
    assert read_samples(path) == tuple(samples)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.txt", "", "must be a .jsonl or .csv file"),
        ("a.jsonl", "{", "line 1"),
        ("a.jsonl", "[1]", "must be a JSON object"),
        ("a.jsonl", '{"t": 1, "utl": 3}', "but got utl at"),
        ("a.jsonl", '{"t": 1}\n{"util": 3}', "t must be given .* line 2"),
        ("a.jsonl", '{"t": 2}\n{"t": 2}', "times must increase"),
        ("a.csv", "t,util\n1,high\n", "util must be a number, but got 'high' .* line 2"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        read_samples(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_samples(tmp_path / "absent.csv")
