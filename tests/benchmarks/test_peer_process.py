"""The processes of peers, started for real: with peers that need no jax."""

import os
from pathlib import Path

import pytest
from peer import PeerConfig
from peer_process import ROOT, PeerFailed, PeerProcess
from ppo_peers import alternate, compare

CONFIG = PeerConfig(num_envs=4, num_steps=8, num_minibatches=2, num_epochs=1, updates=2)
FAKES = "tests.benchmarks.fake_peers"
CORE = min(os.sched_getaffinity(0))


def test_a_peer_compiles_and_runs_in_its_own_process() -> None:
    with PeerProcess(f"{FAKES}:Quick", core=None, num_peers=1) as process:
        process.wait_until_imported()
        # 2 updates of 4 × 8 env-steps, in compiling as in a round.
        assert process.compile(CONFIG).env_steps == 64
        done = process.run()
        assert done.env_steps == 64
        assert done.cpu_s > 0
        assert done.wall_s > 0


def test_a_peer_is_pinned_before_it_is_imported() -> None:
    with PeerProcess(f"{FAKES}:Pinned", core=CORE, num_peers=1) as process:
        process.wait_until_imported()
        process.compile(CONFIG)
        assert process.run().env_steps == 1


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("no_such_module:Peer", "No module named"),
        (f"{FAKES}:Nobody", "must define Nobody"),
        (f"{FAKES}:Aborting", "ended with 3: .*the last words"),
    ],
)
def test_a_peer_that_fails_says_why(spec: str, reason: str) -> None:
    def use() -> None:
        with PeerProcess(spec, core=None, num_peers=1) as process:
            process.wait_until_imported()
            process.compile(CONFIG)

    with pytest.raises(PeerFailed, match=f"(?s){spec}: .*{reason}"):
        use()


def test_a_broken_peer_is_left_out_and_the_others_are_measured() -> None:
    specs = {"ours": f"{FAKES}:Quick", "twin": f"{FAKES}:Quick", "broken": f"{FAKES}:Broken"}
    row = compare(CONFIG, specs, rounds=2, core=None, clock="wall_s")
    assert "no such thing" in row["peers"]["broken"]["error"]
    assert row["best_peer"] == "twin"
    assert row["ours_sps"] > 0
    assert row["ratio_quartiles"][0] <= row["ratio_to_best"] <= row["ratio_quartiles"][1]
    assert (row["num_envs"], row["num_epochs"]) == (4, 1)


def test_a_tree_runs_its_own_checkout(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for name in ("peer.py", "peer_child.py"):
        (tmp_path / "benchmarks" / name).write_text((ROOT / "benchmarks" / name).read_text())
    (tmp_path / "its_own.py").write_text("raise RuntimeError('of this tree')")
    with (
        pytest.raises(PeerFailed, match="of this tree"),
        PeerProcess("its_own:Peer", core=None, num_peers=1, root=tmp_path) as process,
    ):
        process.wait_until_imported()


def test_ours_must_not_fail() -> None:
    with pytest.raises(PeerFailed, match="no such thing"):
        alternate(CONFIG, {"ours": f"{FAKES}:Broken"}, rounds=1, core=None)
