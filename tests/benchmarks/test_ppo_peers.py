from pathlib import Path

import pytest
from peer_process import Round
from ppo_peers import Timed, compile_ratio, config_of, named_trees, table_of, wall_ratio


def test_the_time_of_training_is_taken_off_a_compile_that_includes_it() -> None:
    rounds = [Round(100, cpu_s=1.0, wall_s=2.0), Round(100, cpu_s=2.0, wall_s=2.0)]
    timed = Timed(Round(150, cpu_s=10.0, wall_s=20.0), [*rounds, rounds[0]])
    summary = timed.summary("cpu_s")
    # Rates are 100, 50, 100 a CPU-second and 50 a second. 150 env-steps took 1.5 CPU-seconds of
    # the 10 and 3 seconds of the 20.
    assert summary["sps"] == summary["sps_per_cpu_s"] == 100
    assert summary["sps_wall"] == 50
    assert summary["sps_lower_quartile"] == 75
    assert summary["compile_cpu_s"] == 8.5
    assert summary["compile_s"] == 17


def test_compiling_is_compared_with_the_peer_that_compiles_fastest() -> None:
    peers = [{"compile_cpu_s": 8.0}, {"compile_cpu_s": 5.0}]
    assert compile_ratio({"compile_cpu_s": 6.0}, peers) == pytest.approx(1.2)
    assert compile_ratio({"compile_cpu_s": 6.0}, []) is None


def test_by_wall_clock_the_fastest_peer_counts() -> None:
    assert wall_ratio({"sps_wall": 6.0}, [{"sps_wall": 4.0}, {"sps_wall": 5.0}]) == 1.2
    assert wall_ratio({"sps_wall": 6.0}, []) is None


def test_a_tree_is_named_by_its_folder(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other" / "here"
    for folder in (here, other):
        folder.mkdir(parents=True)
    assert named_trees([here / "."]) == {"here": here}
    with pytest.raises(ValueError, match="and none of them ours, but got here, here"):
        named_trees([here, other])
    with pytest.raises(ValueError, match="but got ours; rename one"):
        named_trees([tmp_path / "ours"])


def test_rounds_are_of_about_equal_length() -> None:
    # 2¹⁵ env-steps: 64 updates of 512, and one of 262,144, which is more.
    assert config_of((4, 128, 4, 4), "cpu").updates == 64
    assert config_of((2048, 128, 8, 4), "cpu").updates == 1


def test_the_table_shows_a_peer_that_failed_as_absent() -> None:
    row = {
        "num_envs": 4,
        "num_steps": 128,
        "num_minibatches": 4,
        "num_epochs": 4,
        "ours_sps": 90_000.0,
        "ours": {"compile_cpu_s": 6.0},
        "peers": {"rejax": {"sps": 45_000.0, "compile_cpu_s": 5.0}, "brax": {"error": "why"}},
        "ratio_to_best": 2.0,
        "ratio_quartiles": [1.9, 2.1],
        "wall_ratio_to_best": 1.95,
        "compile_ratio_to_fastest": 1.2,
    }
    document = {
        "clock": "cpu_s",
        "rounds": 3,
        "configs": [row],
        "geomean_ratio": 2.0,
        "differences": {"rejax": "clips element-wise"},
    }
    line = table_of(document).splitlines()[2].split()
    assert " ".join(line) == "4,128,4,4 90,000 45,000 – 2.00 1.90–2.10 1.95 6.0, 5.0, –; 1.20"
