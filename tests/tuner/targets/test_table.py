"""The table of GPUs: every figure has a source, names are matched, descriptions are complete."""

from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.targets.table import Gpu, architectures, find, from_file, known

FIELDS = (
    "threads_per_block_limit", "threads_per_warp", "shared_memory_per_block",
    "shared_memory_per_core", "shared_memory_per_block_optin", "threads_per_core_limit",
    "core_count", "fpus_per_core", "block_dim_limit_x", "block_dim_limit_y", "block_dim_limit_z",
    "thread_dim_limit_x", "thread_dim_limit_y", "thread_dim_limit_z", "memory_bandwidth",
    "l2_cache_size", "clock_rate_ghz", "device_memory_size", "registers_per_core_limit",
    "registers_per_block_limit",
)  # fmt: skip
EXPECTED = ("V100", "T4", "A100 40GB", "A100 80GB", "L4", "L40S", "RTX 3090", "RTX 4090",
            "RTX 5090", "H100 PCIe", "H100 SXM 80GB", "H200", "B200")  # fmt: skip


@pytest.mark.parametrize("gpu", known(), ids=lambda gpu: gpu.name)
def test_every_entry_is_sourced_and_plausible(gpu: Gpu) -> None:
    assert "http" in gpu.source or "cuda-device-query" in gpu.source
    assert gpu.architecture["source"]
    assert 10e9 < gpu.memory_bytes < 300e9
    assert 0.2e12 < gpu.memory_bandwidth < 10e12
    assert 1.0 < gpu.clock_ghz < 3.0
    assert 40 <= gpu.core_count <= 200


@pytest.mark.parametrize("gpu", known(), ids=lambda gpu: gpu.name)
def test_memory_is_what_cuda_shows_and_not_what_the_data_sheet_says(gpu: Gpu) -> None:
    # CUDA keeps some for itself: a round number of GiB is a size that was never read on a device.
    assert gpu.memory_bytes % 2**30


@pytest.mark.parametrize("gpu", known(), ids=lambda gpu: gpu.name)
def test_a_description_has_every_field_that_xla_reads_once(gpu: Gpu) -> None:
    text = gpu.target().description
    lines = [line.split(":")[0].strip() for line in text.splitlines()]
    assert [field for field in FIELDS if lines.count(field) != 1] == []
    major, minor = gpu.compute_capability.split(".")
    assert f"cuda_compute_capability {{ major: {major} minor: {minor}" in text
    # XLA gives Hopper and the large Blackwells their own instructions, and no other.
    assert ("ACCELERATED_FEATURES" in text) == (gpu.compute_capability in ("9.0", "10.0"))
    # With any of these XLA looks for a device when it compiles a sort.
    assert not [word for word in ("cub_version", "\n  name:", "driver_version") if word in text]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_gpus_that_people_rent_are_known(name: str) -> None:
    assert find(name).architecture == architectures()[find(name).compute_capability]


def test_no_name_stands_for_two_gpus() -> None:
    names = [name.lower() for gpu in known() for name in (gpu.name, *gpu.also)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("h100 sxm 80gb", "NVIDIA H100 80GB HBM3"),
        ("H100-SXM-80 GB", "NVIDIA H100 80GB HBM3"),
        ("80GB H100 SXM", "NVIDIA H100 80GB HBM3"),
        ("nvidia geforce rtx 4090", "NVIDIA GeForce RTX 4090"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        ("Tesla T4", "Tesla T4"),
        ("t4", "Tesla T4"),
    ],
)
def test_names_are_matched_forgivingly(asked: str, found: str) -> None:
    assert find(asked).name == found


@pytest.mark.parametrize("asked", ["A100", "H1000", "RTX 409", "", "RX 7900"])
def test_another_name_is_refused_with_the_nearest(asked: str) -> None:
    with pytest.raises(UsageError, match="--target must be a GPU that `tuner targets` lists") as e:
        find(asked)
    assert f"but got {asked!r}; " in str(e.value)
    if asked == "A100":  # 40 or 80 GB is not for us to guess
        assert "A100-SXM4-40GB" in str(e.value)
        assert "A100-SXM4-80GB" in str(e.value)


def test_a_description_of_the_user_s_own_is_read_as_it_stands(tmp_path: Path) -> None:
    written = find("L4").target()
    file = tmp_path / "mine.txtpb"
    file.write_text(written.description)
    target = from_file(file)
    assert (target.name, target.memory_bytes) == ("NVIDIA L4", written.memory_bytes)
    assert target.description == written.description
    assert not target.is_known


def test_a_description_may_stand_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.txtpb"
    file.write_text(
        "# device_memory_size: 1\n"
        'gpu_device_info { device_memory_size: 80 core_count: 2 } device_description_str: "mine"'
    )
    assert (from_file(file).name, from_file(file).memory_bytes) == ("mine", 80)


def test_a_file_that_says_nothing_is_left_to_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nonsense")
    assert from_file(tmp_path / "x").memory_bytes is None


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--target-file must be a text file that can be read"):
        from_file(tmp_path / "none")
