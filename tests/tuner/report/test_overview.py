"""Documents of a real study, read in this process."""

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Finished
from tests.tuner.measurements import failure, record
from tuner.report.numbers import number, sparkline
from tuner.report.overview import front_of, print_status, status_document
from tuner.report.reading import StudyReading, read_study
from tuner.report.story import headline, reservations, time_line

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def reading(finished: Finished) -> StudyReading:
    return read_study("done", {"runs_dir": str(finished.studies.folder / "runs")})


def test_a_number_that_was_not_measured_is_a_dash() -> None:
    assert number(None, ",.0f") == "–"
    assert number(0.0, ".2f") == "0.00"
    assert number(1234.5, ",.0f") == "1,234"


def test_a_sparkline_spans_the_lowest_to_the_highest_bar() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    # (0, 1, 2, … 7) / 7 × 7 levels.
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0, 2.0]) == "▄▄▄"
    assert len(sparkline([float(n) for n in range(100)])) == 32


def test_the_share_of_measured_training_by_hand() -> None:
    # 6 + 4 of 20 + 20 seconds are 25 %; compiling took 20 of 40, starting 10 of 40.
    first = record(0, duration=20.0, phases={"start": 5.0, "compile": 9.0, "window": 6.0})
    second = record(1, duration=20.0, phases={"start": 5.0, "compile": 11.0, "window": 4.0})
    assert time_line([first, second]) == (
        "measured training: 25% of 40 s in 2 measurements; the rest went to compile 50%, start 25%"
    )


def test_without_a_window_there_is_no_share() -> None:
    assert (
        time_line([])
        == time_line([failure(1, "crashed", duration=3.0)])
        == ("measured training: nothing yet")
    )


def test_the_front_leaves_out_what_may_not_become_a_profile(reading: StudyReading) -> None:
    assert reading.references is not None
    references = replace(reading.references, components=("gpu", "quality", "sps"))
    # Trial 1 beats 0 everywhere; 2 is faster but not acceptable; 3 lacks its utilisation; 4 failed.
    records = [
        record(0, device_util=50.0, quality_score=0.5, sps=1e5),
        record(1, device_util=60.0, quality_score=0.6, sps=2e5),
        record(2, device_util=90.0, quality_score=0.0, sps=9e5, quality_acceptable=False),
        record(3, device_util=None, quality_score=0.9, sps=9e5),
        failure(4, "oom"),
    ]
    assert front_of(replace(reading, records=records, references=references)) == [1]
    without_util = replace(references, components=("quality", "sps"))
    assert front_of(replace(reading, records=records, references=without_util)) == [3]


def test_a_study_that_is_not_calibrated_has_no_front_and_no_best(reading: StudyReading) -> None:
    bare = replace(reading, records=[], references=None, facts={})
    assert front_of(bare) == []
    assert bare.best() is None
    assert bare.baseline() is None
    assert headline(bare) == "done on this machine: nothing measured yet"


def test_a_study_disturbed_more_than_half_of_the_time_is_called_noisy(
    reading: StudyReading,
) -> None:
    noisy = [record(n, contaminated="steal of 40 % of the host") for n in (0, 1)]
    lines = reservations(replace(reading, records=[*noisy, record(2)]))
    assert lines[0] == (
        "noisy machine: 2 of 3 measurements were disturbed (steal of 40 % of the host)"
    )
    quiet = reservations(replace(reading, records=[*noisy, record(2), record(3)]))
    assert not any("noisy" in line for line in quiet)


def test_the_best_config_has_the_best_mean_and_not_the_best_measurement(
    reading: StudyReading,
) -> None:
    # Means of 0.5 for trial 1 and 0.6 for trial 2, though 1 was measured at 0.8 once.
    records = [
        record(1, final_score=0.8),
        record(1, replicate=1, final_score=0.2),
        record(2, final_score=0.6),
    ]
    best = replace(reading, records=records).best()
    assert best is not None
    assert (best.trial, best.final_score) == (2, 0.6)


def test_the_headline_compares_with_the_baseline(reading: StudyReading) -> None:
    records = [
        record(0, sps=100_000.0, quality_score=0.5, final_score=0.5),
        record(1, sps=150_000.0, quality_score=0.6, final_score=0.7),
    ]
    line = headline(replace(reading, records=records))
    assert "best is 128x64 mb4 ep4, 150,000 env-steps/s, 1.50 × the baseline" in line
    assert "at quality 0.60 (baseline 0.50)" in line


def test_a_study_without_success_can_be_printed(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"runs_dir": str(finished.studies.folder / "runs")}
    document: dict[str, Any] = status_document("done", places) | {
        "best": None,
        "baseline": None,
        "device": None,
        "groups": ["s@other-1a2b3c"],
        "ended": {"reason": "a [reason] in [/brackets]", "refusal": "none of [3] works"},
    }
    print_status(document)
    out = capsys.readouterr().out
    assert "device not known yet" in out
    assert "ended: a [reason] in [/brackets]" in out
    assert "none: none of [3] works" in out
