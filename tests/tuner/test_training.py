"""`tuner train` as a user runs it: real processes, real kills, real checkpoints."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.metrics_log import read_metrics
from storage.profile import Profile
from storage.profile_files import write
from tests.conftest import Finished
from tests.tuner.studies import PATIENCE_S, Ended, Studies, kill_tree, wait_for_line
from tests.tuner.trials import wait_until

pytestmark = pytest.mark.timeout(900)

UPDATES = 48
BATCH = 256
WORKLOAD = {
    "env": "stress",
    "env_params": {"obs_dim": 8},
    "network": [16],
    "normalize_obs": True,
    "normalize_reward": True,
    "lr_schedule": "linear",
    "ppo": {"gamma": 0.98},
}
PROFILE = Profile(
    profile="balanced",
    num_envs=16,
    num_steps=16,
    num_minibatches=2,
    num_epochs=2,
    learning_rate=1e-3,
    workload=WORKLOAD,
)


def arguments(
    studies: Studies, folder: str, *flags: str, steps: int = UPDATES * BATCH
) -> list[str]:
    """A command that trains with `PROFILE` and has its programs in the shared cache."""
    path = write(studies.folder, PROFILE)
    cache = ("--cache-dir", str(studies._cache_dir))
    budget = ("--total-steps", str(steps))
    return ["train", "--profile", str(path), "--checkpoint-dir", folder, *budget, *cache, *flags]


def train(studies: Studies, folder: str, *flags: str, **options: int) -> Ended:
    return studies.run(*arguments(studies, folder, *flags, **options))


def newest(saved: Path) -> int:
    return max((int(path.name) for path in saved.glob("*") if path.name.isdigit()), default=0)


def kill_after(studies: Studies, folder: str, *flags: str, checkpoints: int = 3) -> None:
    """Begin a training that saves after every block; kill it −9 once it has saved some."""
    often = ("--checkpoint-every", "0.001s", *flags)
    saved = studies.folder / folder / "checkpoints"
    with studies.begin(*arguments(studies, folder, *often)) as process:
        wait_until(lambda: newest(saved) >= checkpoints or process.poll() is not None)
        kill_tree(process.pid)
    assert not (studies.folder / folder / "result.json").exists()


def arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The newest checkpoint, as any reader of orbax sees it."""
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager(folder / "checkpoints")
    restored = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())
    return {name: np.asarray(array) for name, array in restored.items()}


def learned(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics without what the clock says."""
    lines = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ("seconds", "sps")} for line in lines]


def test_a_killed_training_that_goes_on_equals_one_that_was_never_stopped(
    studies: Studies,
) -> None:
    whole = train(studies, "whole", "--json")
    assert whole.code == 0, whole.err
    kill_after(studies, "killed")
    ended = train(studies, "killed", "--resume", "--json")
    assert ended.code == 0, ended.err
    assert "going on after update" in ended.err

    before, after = arrays(studies.folder / "whole"), arrays(studies.folder / "killed")
    assert before.keys() == after.keys()
    assert {"key", "env_steps", "params/policy/0/kernel", "obs_stats/mean"} <= before.keys()
    for name, array in before.items():
        assert array.tobytes() == after[name].tobytes(), name
    assert learned(studies.folder / "whole") == learned(studies.folder / "killed")
    updates = [line["update"] for line in learned(studies.folder / "killed")]
    assert updates == list(range(1, UPDATES + 1))
    first, second = json.loads(whole.out), json.loads(ended.out)
    assert first["mean_return"] == second["mean_return"]
    assert first["resumed_after_update"] is None
    assert 3 <= second["resumed_after_update"] < UPDATES
    assert (second["updates"], second["env_steps"]) == (UPDATES, UPDATES * BATCH)

    again = train(studies, "whole")
    assert (again.code, again.out) == (4, "")
    assert "holds a training; add --resume to go on with it" in again.err
    other = train(studies, "whole", "--resume", "--seed", "1")
    assert other.code == 4
    assert "with seed 0, but got 1" in other.err
    finished = train(studies, "whole", "--resume")
    assert finished.code == 0
    assert "is trained already, to 12,288 env-steps" in finished.err
    assert "evaluation: mean return" in finished.out


@pytest.mark.long
def test_asked_once_it_saves_and_ends_with_5_and_goes_on(studies: Studies) -> None:
    with studies.begin(*arguments(studies, "asked", steps=4_000_000)) as process:
        assert wait_for_line(process, "env-steps/s") is not None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 5
    assert "training ends after its block, with a checkpoint" in err
    assert "stopped; the last checkpoint is of update" in err
    assert max(int(p.name) for p in (studies.folder / "asked" / "checkpoints").iterdir()) > 0


@pytest.mark.long
def test_asked_twice_it_ends_at_once(studies: Studies) -> None:
    with studies.begin(*arguments(studies, "asked", steps=400_000_000)) as process:
        assert wait_for_line(process, "env-steps/s") is not None
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 5


@pytest.mark.long
def test_what_does_not_fit_steps_down_and_goes_on_with_what_it_was(studies: Studies) -> None:
    whole = json.loads(train(studies, "roomy", "--json", "--num-envs", "64").out)
    tight = ("--num-envs", "4096", "--memory-limit", "3MB")
    ended = train(studies, "tight", "--json", *tight)
    assert ended.code == 0, ended.err
    assert "WARNING: the training must fit in the 0.003 GB" in ended.err
    assert "stepping down to num_envs=2048, which was not measured" in ended.err
    assert "--num-envs 4096 wins over the profile's 16" in ended.err
    document = json.loads(ended.out)
    assert document["num_envs"] < 2048
    assert document["not_comparable"][0].startswith("num_envs is")
    assert whole["num_envs"] == 64
    again = train(studies, "tight", "--json", "--resume", *tight, steps=2 * UPDATES * BATCH)
    assert again.code == 4  # the schedule falls over the total: another one
    assert "lr_anneal_env_steps" in again.err
    none = train(studies, "none", "--memory-limit", "1KB")
    assert none.code == 3
    assert "even with the fewest environments" in none.err


@pytest.mark.long
def test_strict_trains_with_no_fewer_environments(studies: Studies, finished: Finished) -> None:
    profile = finished.studies.folder / "runs" / "done" / "profiles" / "balanced.yaml"
    tight = ("--num-envs", "4096", "--memory-limit", "3MB", "--strict")
    chosen = ("--profile", str(profile), "--checkpoint-dir", "strict", "--total-steps", "12288")
    ended = studies.run("train", *chosen, "--cache-dir", str(studies._cache_dir), *tight)
    assert ended.code == 4
    assert "--strict must train with the numbers that it is given, but the training" in ended.err


@pytest.mark.long
@pytest.mark.parametrize("env", ["gymnax:CartPole-v1", "brax:fast", "trading-phase2"])
def test_any_environment_outlives_a_kill(studies: Studies, env: str) -> None:
    flags = ("--env", env)
    whole = train(studies, "whole", *flags)
    assert whole.code == 0, whole.err
    assert f"WARNING: env was 'stress' when it was measured, and is '{env}' here" in whole.err
    kill_after(studies, "killed", *flags)
    ended = train(studies, "killed", "--resume", *flags)
    assert ended.code == 0, ended.err
    before, after = arrays(studies.folder / "whole"), arrays(studies.folder / "killed")
    assert {name: array.tobytes() for name, array in before.items()} == {
        name: array.tobytes() for name, array in after.items()
    }
    strict = train(studies, "strict", "--strict", *flags)
    assert strict.code == 4
    assert "--strict must have the profile's device and workload" in strict.err


@pytest.mark.long
def test_a_disk_that_takes_no_more_keeps_the_last_checkpoint(studies: Studies) -> None:
    begun = arguments(studies, "full", "--checkpoint-every", "0.001s")
    limited = ("bash", "-c", 'ulimit -f 9; trap "" XFSZ; exec "$@"', "bash")
    with studies.begin(*begun, under=limited) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 8, err
    assert "must be written to the disk, but got" in err
    ended = train(studies, "full", "--resume")
    assert ended.code == 0, ended.err
    assert len(learned(studies.folder / "full")) == UPDATES


@pytest.mark.long
def test_a_learning_rate_that_diverges_ends_it(studies: Studies) -> None:
    ended = train(studies, "wild", "--learning-rate", "1e30")
    assert ended.code == 1
    assert "losses must stay finite" in ended.err
    assert "Traceback" not in ended.err
