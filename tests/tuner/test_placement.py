"""Where workers measure: shares of cores, GPUs, and what is refused."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.config import StudyConfig
from tuner.devices.cpu import memory_limit_bytes, own_cores
from tuner.errors import UsageError
from tuner.placement import (
    VISIBLE,
    Place,
    gpus,
    in_order_of_sharing,
    places_for,
    shares,
    visible_names,
    with_own_share,
)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cores = own_cores()
    yield
    os.sched_setaffinity(0, cores)


def test_shares_are_equal_and_apart_and_what_does_not_divide_is_left_idle() -> None:
    assert shares([0, 1, 2, 3, 4], 2) == [(0, 1), (2, 3)]
    assert shares([5, 1, 7], 3) == [(5,), (1,), (7,)]
    assert shares([0, 4, 1, 5], 2) == [(0, 4), (1, 5)]


def test_more_workers_than_cores_are_refused_with_the_number_of_cores() -> None:
    with pytest.raises(UsageError, match=r"which is 2 here, but got 3; give --workers 2 or fewer"):
        shares([0, 1], 3)


def test_threads_of_one_core_and_cores_of_one_package_are_neighbours(tmp_path: Path) -> None:
    # Two packages of two cores of two threads, numbered as Linux does: second threads last.
    for core in range(8):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{core}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{core % 2}\n")
        (topology / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    ordered = in_order_of_sharing(range(8), tmp_path)
    assert ordered == [0, 4, 2, 6, 1, 5, 3, 7]
    assert shares(ordered, 2) == [(0, 2, 4, 6), (1, 3, 5, 7)]
    assert in_order_of_sharing([3, 1], tmp_path / "nowhere") == [1, 3]


def test_one_worker_measures_wherever_it_may_and_several_in_different_places() -> None:
    assert places_for(StudyConfig()) == [Place()]
    count = len(own_cores())
    found = places_for(StudyConfig(workers=count))
    assert sorted(core for place in found for core in place.cores or ()) == list(own_cores())
    with pytest.raises(UsageError, match="--workers must be at most the number of cores"):
        places_for(StudyConfig(workers=count + 1))


def test_gpus_that_are_not_here_are_refused_with_what_is() -> None:
    with pytest.raises(UsageError, match=r"got 0,1 where jax has none \(JAX_PLATFORMS=cpu"):
        places_for(StudyConfig(devices=(0, 1)))
    with pytest.raises(UsageError, match="--workers must be left out with --devices"):
        places_for(StudyConfig(devices=(0,), workers=2))
    with pytest.raises(UsageError, match="--devices must name GPUs of this machine, but got 3"):
        gpus([3])


def test_gpus_are_counted_among_those_that_are_shown() -> None:
    assert visible_names([1, 0], None) == ["1", "0"]
    assert visible_names([1], "GPU-8a, 5") == ["5"]


def test_a_place_is_taken_in_the_body_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "7")
    before = own_cores()
    with Place(cores=before[:1], gpu="1").taken():
        assert own_cores() == before[:1]
        assert os.environ[VISIBLE] == "1"
    assert own_cores() == before
    assert os.environ[VISIBLE] == "7"
    monkeypatch.delenv(VISIBLE)
    with Place(gpu="1").taken():
        assert own_cores() == before
    assert VISIBLE not in os.environ


def test_workers_on_one_machine_share_its_memory() -> None:
    assert with_own_share(StudyConfig()).memory_limit is None
    assert with_own_share(StudyConfig(workers=2)).memory_limit == memory_limit_bytes() // 2
    assert with_own_share(StudyConfig(workers=2, memory_limit=10)).memory_limit == 10


def test_where_no_process_can_be_pinned_one_worker_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(os, "sched_setaffinity")
        assert places_for(StudyConfig()) == [Place()]
        with pytest.raises(UsageError, match="--workers must be 1 where a process cannot be"):
            places_for(StudyConfig(workers=2))
