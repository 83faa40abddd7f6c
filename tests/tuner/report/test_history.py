"""The versions of a study's profiles, with what each changed."""

from dataclasses import replace

import pytest

from storage.profile_files import read, write
from tests.tuner.studies import Studies
from tuner.report.history import print_history, profile_history

pytestmark = pytest.mark.timeout(600)


def test_each_version_says_what_it_changed(
    copied: Studies, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied.folder / "runs" / "done" / "profiles"
    first = read(folder / "balanced.yaml")
    assert first.expected_sps is not None
    second = replace(
        first,
        num_envs=2 * first.num_envs,
        expected_sps=1.1 * first.expected_sps,
        versions={**first.versions, "jax": "9.9"},
        measured={**first.measured, "date": "2999-01-01T00:00:00+00:00"},
    )
    write(folder, second)
    history = profile_history("done", {"runs_dir": str(copied.folder / "runs")})
    assert [e["profile"] for e in history] == ["balanced", "max_gpu", "max_quality", "balanced"]
    assert [e["changes"] is None for e in history] == [True, True, True, False]
    assert history[-1]["changes"] == {
        "num_envs": [first.num_envs, second.num_envs],
        "expected_sps": [first.expected_sps, second.expected_sps],
    }
    assert history[-1]["circumstances"] == [f"jax: {first.versions['jax']} → 9.9"]
    print_history(history)
    text = " ".join(capsys.readouterr().out.split())
    assert f"config {first.num_envs}x" in text
    assert "(+10.0%)" in text
    assert "quality 0" in text


def test_an_export_that_changed_nothing_says_so(
    copied: Studies, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied.folder / "runs" / "done" / "profiles"
    first = read(folder / "max_gpu.yaml")
    write(folder, replace(first, measured={**first.measured, "date": "2999-01-01"}))
    print_history(profile_history("done", {"runs_dir": str(copied.folder / "runs")}))
    assert "changed: nothing that shows" in capsys.readouterr().out
