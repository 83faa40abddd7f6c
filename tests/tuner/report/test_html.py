"""The page of a study, as text: what is in it, what is kept out, and studies of every kind."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from storage.telemetry import Telemetry
from tests.conftest import Finished
from tests.tuner.measurements import failure, record
from tuner.errors import UsageError
from tuner.report.html import render, write_html
from tuner.report.publish import literal
from tuner.report.reading import StudyReading, read_study

pytestmark = pytest.mark.timeout(600)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def reading(finished: Finished) -> StudyReading:
    return read_study("done", {"runs_dir": str(finished.studies.folder / "runs")})


@pytest.fixture
def telemetry(finished: Finished) -> Iterator[Telemetry]:
    with Telemetry(finished.studies.url("done"), create=False) as opened:
        yield opened


def without_plotly(page: str) -> str:
    start = page.index("/**\n* plotly.js")
    return page[:start] + page[page.index("</script>", start) :]


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data"[^>]*>(.*?)</script>', page)
    assert found is not None
    return dict(json.loads(found[1]))


def absent(page: str) -> list[str]:
    return re.findall(r'class="absent">(No [^<]+)<', page)


def test_a_finished_study_has_every_plot_and_nothing_from_elsewhere(
    reading: StudyReading, telemetry: Telemetry
) -> None:
    page = render(reading, telemetry)
    ours = without_plotly(page)
    assert absent(ours) == []
    assert not re.search(r'(src|href)="(?!#|data:,")', ours)
    plots = data_of(page)["plots"]
    assert len(plots) == 9
    trials = data_of(page)["trials"].values()
    figures = [*plots.values(), *(plot["figure"] for trial in trials for plot in trial["plots"])]
    for figure in figures:
        go.Figure(figure)  # plotly's own schema: an unknown key raises
    assert "would be chosen if" in ours


def test_text_from_elsewhere_stays_text(reading: StudyReading, telemetry: Telemetry) -> None:
    facts = reading.facts | {
        "hardware": {"name": HOSTILE, "kind": "cpu"},
        "versions": {HOSTILE: HOSTILE},
        "ended": {"reason": HOSTILE},
    }
    records = [*reading.records, failure(9, "crashed")]
    records[-1] = replace(records[-1], reason=HOSTILE)
    page = render(replace(reading, facts=facts, records=records), telemetry)
    assert HOSTILE not in page
    assert "<img" not in without_plotly(page)
    # Only the scripts with the page's own token: data, plotly.js, ours.
    tokens = re.findall(r"<script[^>]*nonce=\"([^\"]+)\"", without_plotly(page))
    assert len(set(tokens)) == 1
    assert len(re.findall("<script", without_plotly(page))) == 3
    assert f"script-src 'nonce-{tokens[0]}'" in page


def test_a_study_that_has_measured_nothing_says_so_everywhere(
    reading: StudyReading, telemetry: Telemetry
) -> None:
    bare = replace(reading, records=[], references=None, facts={"config": {}})
    page = without_plotly(render(bare, telemetry))
    assert len(absent(page)) == 12  # profiles, nine plots, trials, table
    assert "nothing measured yet" in page
    assert data_of(render(bare, telemetry))["plots"] == {}


def test_a_study_of_one_trial(reading: StudyReading, telemetry: Telemetry) -> None:
    one = [r for r in reading.records if r.trial == 0]
    page = without_plotly(render(replace(reading, records=one), telemetry))
    assert "but got 1; `tuner resume` with a longer --budget" in page
    assert any("no config of the space has been tried" in line for line in absent(page))


def test_where_nothing_was_feasible_the_ways_of_failing_are_told(
    reading: StudyReading, telemetry: Telemetry
) -> None:
    failures = [failure(1, "predicted_oom"), failure(2, "oom")]
    failures = [
        replace(f, num_envs=envs, num_steps=16, num_minibatches=2, num_epochs=2)
        for f, envs in zip(failures, (8, 16), strict=True)
    ]
    page = render(replace(reading, records=failures), telemetry)
    assert "without result: 1 oom, 1 predicted_oom" in page
    traces = data_of(page)["plots"]["heat_map"]["data"]
    assert [trace["name"] for trace in traces if "name" in trace] == ["infeasible"]
    assert {tuple(row) for row in traces[0]["z"]} == {(None, None)}


def test_without_quality_the_front_is_drawn_over_utilisation(
    reading: StudyReading, telemetry: Telemetry
) -> None:
    assert reading.references is not None
    references = replace(
        reading.references, components=("gpu", "sps"), quality_reason="the budget is too short"
    )
    records = [record(n, quality_score=None, quality_acceptable=None) for n in range(3)]
    page = render(replace(reading, records=records, references=references), telemetry)
    plots = data_of(page)["plots"]
    assert plots["pareto"]["layout"]["yaxis"]["title"]["text"] == "utilisation, %"
    assert "yaxis2" not in plots["num_envs"]["layout"]
    assert "Quality was not judged: the budget is too short." in page
    assert "<dt>quality</dt>" in page


def test_a_search_in_the_middle_shows_what_would_be_chosen(
    reading: StudyReading, telemetry: Telemetry, tmp_path: Path
) -> None:
    config = reading.config.model_copy(update={"runs_dir": tmp_path})
    facts = {k: v for k, v in reading.facts.items() if k != "ended"}
    page = render(replace(reading, config=config, facts=facts), telemetry)
    assert "The search has not ended." in page
    assert "Not written yet: this is how the study stands now." in page


def test_a_file_that_cannot_be_written_is_refused(finished: Finished, tmp_path: Path) -> None:
    places = {"runs_dir": str(finished.studies.folder / "runs")}
    with pytest.raises(UsageError, match="--html must be a file that can be written"):
        write_html("done", places, tmp_path / "missing" / "page.html")


def test_markdown_shows_text_as_it_is() -> None:
    assert literal("<b>&lt; a_b *c*\n# d") == r"\<b\>\&lt; a\_b \*c\* \# d"
