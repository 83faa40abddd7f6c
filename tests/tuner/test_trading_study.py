"""Studies on market data, through the command line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.studies import SPACE, Studies

pytestmark = pytest.mark.timeout(600)

NASDAQ = Path(__file__).resolve().parents[1] / "data" / "nasdaq-daily.csv"
QUICK = (*SPACE, "--baseline", "16,16,2,2", "--env-steps", "32768", "--trials", "1",
         "--network", "32", "--learning-rate", "1e-3", "--min-feasible", "9",
         "--repeat-disturbed", "false", "--probe", "false",
         "--env-param", "max_episode_steps=64")  # fmt: skip


@pytest.fixture
def studies(tmp_path: Path, cache_dir: Path) -> Studies:
    return Studies(tmp_path, cache_dir)


def profile_of(studies: Studies, name: str) -> dict[str, Any]:
    path = studies.folder / "runs" / name / "profiles" / "balanced.yaml"
    profile: dict[str, Any] = yaml.safe_load(path.read_text())
    return profile


@pytest.mark.long
def test_the_phase_and_the_bars_land_in_the_profile(studies: Studies) -> None:
    ended = studies.start("n", "--env", "trading-phase2", "--bars", "3000", "--baseline",
                          "64,64,4,4", "--env-steps", "131072", "--env-param", "best_return=20",
                          "--learning-rate", "1e-3", "--trials", "1", "--min-feasible", "1",
                          "--repeat-disturbed", "false", "--probe", "false")  # fmt: skip
    assert ended.code == 0, ended.err
    profile = profile_of(studies, "n")
    assert profile["phase"] == 2
    assert profile["workload"]["data"] is None
    assert profile["workload"]["market"]["bars"] == 3000
    assert profile["workload"]["obs_shape"] == [233]
    assert profile["workload"]["num_actions"] == 6
    assert "synthetic bars" in profile["notes"]


@pytest.mark.long
def test_real_bars_may_move_but_not_change(studies: Studies) -> None:
    bars = studies.folder / "bars.csv"
    bars.write_bytes(NASDAQ.read_bytes())
    first = studies.start("n", "--phase", "1", "--data", "bars.csv", *QUICK)
    assert first.code == 7, first.err  # one config is too few to export
    assert "5,031 bars" in first.err
    record = studies.record("n", 0)
    assert record.status == "success"
    assert record.mean_return is not None
    config = yaml.safe_load((studies.folder / "runs" / "n" / "config.yaml").read_text())
    assert (config["env"], config["phase"], config["data"]) == ("trading-phase1", 1, str(bars))
    moved = bars.rename(studies.folder / "moved.csv")
    ended = studies.resume("n", "--trials", "1")
    assert ended.code == 2
    assert "no such file; give --data its place" in ended.err
    assert studies.resume("n", "--trials", "1", "--data", "moved.csv").code == 7
    moved.write_text(moved.read_text().replace("2018-12-31", "2019-01-01"))
    ended = studies.resume("n", "--trials", "2", "--data", "moved.csv")
    assert ended.code == 4, ended.err
    assert "the data of a study must stay what they were" in ended.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--data", "nowhere.csv"), "--data must be a CSV file that can be read, but got"),
        (("--data", "bad.csv"), "bad.csv, line 3, column high; correct the row or pass"),
        (("--data", "bad.csv", "--drop-bad-rows"), "but got"),
        (("--market", "XY"), "--point-value"),
        (("--env-param", "stop_atr=-1"), "stop_atr"),
        (("--env-param", "stop_art=1"), "did you mean stop_atr?"),
    ],
)
def test_bad_bars_end_the_command_with_one_line(
    studies: Studies, flags: tuple[str, ...], words: str
) -> None:
    header = "time,open,high,low,close,volume\n"
    (studies.folder / "bad.csv").write_text(
        header + "2024-01-02,1,2,1,2,5\n2024-01-03,1,0.5,1,2,5\n"
    )
    ended = studies.start("n", "--phase", "1", *flags, *QUICK)
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("tuner: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in ended.err
