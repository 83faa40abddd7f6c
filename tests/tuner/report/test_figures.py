"""Figures made of a few numbers, checked by hand."""

from dataclasses import replace
from xml.etree import ElementTree

from storage.records import CurvePoint, DeviceSample
from tests.tuner.measurements import failure, record
from tuner.config import StudyConfig
from tuner.report.figures import MOST_POINTS, plain, rounded, thinned
from tuner.report.pictures import svg
from tuner.report.plots import by_dimension, memory, pareto, seconds
from tuner.report.reading import StudyReading
from tuner.report.space_map import heat_map
from tuner.report.trial_plots import device_line, returns
from tuner.space import HardwareConfig

SPACE = {
    "num_envs": (64, 128, 192),
    "num_steps": (64,),
    "num_minibatches": (4,),
    "num_epochs": (4,),
}


def study(*records: object, **space: tuple[int, ...]) -> StudyReading:
    config = StudyConfig(**(SPACE | space))
    return StudyReading("s", config, {}, {}, {}, list(records), None)  # type: ignore[arg-type]


def block(number: int, **metrics: float | None) -> CurvePoint:
    return CurvePoint(block=number, env_steps=100 * number, seconds=1.0, metrics=metrics)


def test_numbers_and_text_are_cut_to_what_is_read() -> None:
    assert rounded(123456.789) == 123460.0
    assert rounded(None) is None
    assert plain("<b>&") == "&lt;b&gt;&amp;"
    many = thinned(list(range(1000)))
    assert (len(many), many[0], many[-1]) == (MOST_POINTS, 0, 999)
    assert thinned([1, 2]) == [1, 2]


def test_the_map_tells_untried_from_infeasible_and_from_scored() -> None:
    drawn = heat_map(study(record(0, final_score=0.5), failure(2, "oom")))
    assert drawn.figure is not None
    scores, crosses = drawn.figure["data"]
    assert scores["z"] == [[0.5, None, None]]  # 64 scored, 128 never tried, 192 out of memory
    assert (crosses["name"], crosses["x"], crosses["y"]) == (
        "infeasible", ["192"], ["64 · mb4 · ep4"]
    )  # fmt: skip
    assert drawn.caption == "2 of 3 configs were tried; an empty cell was not."


def test_a_large_space_is_mapped_over_two_of_its_dimensions() -> None:
    steps = tuple(range(64, 64 * 61, 64))
    better = replace(record(1, final_score=0.7), num_envs=64, num_minibatches=2)
    drawn = heat_map(study(record(0, final_score=0.5), better, num_steps=steps,
                           num_minibatches=(2, 4)))  # fmt: skip
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["z"][0] == [0.7, None, None]
    assert len(drawn.figure["data"][0]["y"]) == 60
    assert "best of all minibatches and epochs" in drawn.caption


def test_a_dimension_joins_medians() -> None:
    records = [replace(record(n, sps=sps), num_envs=64, num_epochs=n + 1)
               for n, sps in enumerate((1e5, 2e5, 6e5))]  # fmt: skip
    drawn = by_dimension(study(*records), "num_envs")
    assert drawn.figure is not None
    assert drawn.figure["data"][1]["y"] == [2e5]


def test_memory_says_how_far_predictions_were_off() -> None:
    # 0.9 / 1.0 − 1 and 2.4 / 2.0 − 1: −10 % and +20 %, median +5 %.
    drawn = memory(study(record(0), record(1, predicted_memory_gb=2.4, peak_memory_gb=2.0)))
    assert "the median one was off by +5.0%" in drawn.caption


def test_seconds_go_from_most_to_least() -> None:
    drawn = seconds(study(record(0, phases={"window": 3.0, "warm_up": 1.0, "compile": 4.0})))
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["y"] == ["compile", "window", "warm-up"]
    assert drawn.figure["data"][0]["text"] == ["4 s, 50%", "3 s, 38%", "1 s, 12%"]


def test_the_front_marks_profiles_and_baseline() -> None:
    drawn = pareto(study(record(0), record(1)), {"balanced": HardwareConfig(128, 64, 4, 4)})
    assert drawn.figure is not None
    assert [trace["name"] for trace in drawn.figure["data"]] == ["measured", "baseline", "balanced"]


def test_what_was_not_measured_is_a_gap_or_no_plot_and_never_0() -> None:
    points = [block(1, mean_return=None, entropy=0.7), block(2, mean_return=2.0, entropy=0.6)]
    drawn = returns(record(0), points)
    assert drawn.figure is not None
    assert [trace["y"] for trace in drawn.figure["data"]] == [[None, 2.0], [0.7, 0.6]]
    silent = device_line(record(0, util_reason="too few samples"), [])
    assert (silent.figure, silent.missing) == (None, "too few samples")
    failed = returns(failure(1, "oom"), [])
    assert failed.missing == "128x64 mb4 ep4 ended as oom: it did not work"


def test_a_picture_has_a_lane_for_each_unit() -> None:
    samples = [DeviceSample(t=10.0 + n, util=50.0 * n, memory_bytes=10**9) for n in range(3)]
    image = svg(device_line(record(0), samples))
    assert image is not None
    lines = [e for e in ElementTree.fromstring(image).iter() if e.tag.endswith("polyline")]
    # 568 wide, 96 high from 20 down: 0, 50 and 100 % from the bottom to the top.
    assert [e.attrib["points"] for e in lines] == [
        "0.0,116.0 284.0,68.0 568.0,20.0",
        "0.0,116.0 284.0,116.0 568.0,116.0",
    ]
    assert svg(device_line(record(0), [])) is None
