import json
import shlex
from pathlib import Path

import pytest
from peer import PeerConfig, resolve
from ppo_document import deliver, finite, parser_of

CONFIG = PeerConfig(num_envs=64, num_steps=128, num_minibatches=4, num_epochs=2, updates=3)


def test_a_round_has_the_env_steps_of_its_updates() -> None:
    # 3 updates of 64 × 128 = 8,192.
    assert CONFIG.env_steps == 24_576


def test_a_config_survives_json() -> None:
    assert PeerConfig.from_dict(json.loads(json.dumps(CONFIG.as_dict()))) == CONFIG


@pytest.mark.parametrize("spec", ["module", ":factory", "module:", ""])
def test_a_peer_needs_a_module_and_a_factory(spec: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:factory, but got"):
        resolve(spec)


def test_a_peer_that_its_module_does_not_define_is_named() -> None:
    with pytest.raises(ValueError, match="must define Nobody"):
        resolve("json:Nobody")


def test_what_json_cannot_hold_is_null() -> None:
    assert finite({"a": [float("nan"), 1.0], "b": (float("inf"), "x")}) == {
        "a": [None, 1.0],
        "b": [None, "x"],
    }


def test_out_holds_the_document_and_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/ppo_peers.py"])
    document = {"command": "c", "date": "d", "device": {"name": "chip"}, "ratio": float("nan")}
    arguments = parser_of("A line.").parse_args(shlex.split(f"--json --out {tmp_path}/new"))
    deliver(document, "the table", arguments)
    assert json.loads(capsys.readouterr().out) == document | {"ratio": None}
    assert json.loads((tmp_path / "new" / "ppo_peers.json").read_text())["ratio"] is None
    assert (tmp_path / "new" / "ppo_peers.txt").read_text() == "$ c\nd, chip\n\nthe table\n"
