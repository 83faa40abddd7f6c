"""The report and the dashboard in a real browser."""

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.browser import DESKTOP, PHONE, Browser, open_browser
from tests.conftest import Finished
from tests.tuner.report.test_dashboard import serving
from tests.tuner.studies import config_of

pytestmark = pytest.mark.timeout(600)
NUM_PLOTS = 11
"""Pareto, four dimensions, space, curves, memory, seconds, and two of the selected trial."""
COLOURS = """
const text = document.querySelector("#plot-pareto .xtick text");
return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill];
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def test_the_report_of_a_finished_study_is_readable_everywhere(
    finished: Finished, browser: Browser
) -> None:
    page = finished.studies.folder / "runs" / "done" / "report.html"
    colours = {}
    for size in (DESKTOP, PHONE):
        browser.resize(size)
        browser.prefer("light")
        browser.driver.get(page.as_uri())
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            drawn = "document.querySelectorAll('.js-plotly-plot .main-svg').length"
            browser.wait_for(f"{drawn} >= {NUM_PLOTS}")
            ink = "getComputedStyle(document.documentElement).getPropertyValue('--text').trim()"
            place = "document.querySelector('#plot-pareto').layout.font.color"
            browser.wait_for(f"{place} === {ink}")
            assert browser.run("return document.documentElement.scrollWidth") == size[0]
            colours[scheme] = browser.run(COLOURS)
            assert browser.complaints() == []
        assert colours["light"] != colours["dark"]
    for size in (
        (360, 700),
        (340, 700),
        (740, 360),
    ):  # a hidden bar, a split screen, a turned phone
        browser.resize(size)
        plot = "document.querySelector('#plot-pareto')"
        browser.wait_for(f"{plot}._fullLayout.width === {plot}.clientWidth")
        assert browser.run(f"return {plot}._fullLayout.height") > size[0] / 2
        assert browser.complaints() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    browser.run(
        "const s = document.getElementById('trial'); s.value = '0';"
        "s.dispatchEvent(new Event('change'));"
    )
    told = browser.run("return document.getElementById('trial-story').textContent")
    assert told.startswith(f"{config_of(finished.studies.record('done', 0))} ran at")
    assert browser.complaints() == []


def test_the_dashboard_shows_story_plots_and_images(finished: Finished, browser: Browser) -> None:
    browser.resize(DESKTOP)
    browser.prefer("light")
    with serving(finished.studies) as (_, address):
        with urllib.request.urlopen(f"{address}api/studies", timeout=60) as answer:
            (study,) = json.loads(answer.read())["study_summaries"]
        pages = f"{address}dashboard/studies/{study['study_id']}"
        browser.driver.get(pages)
        browser.wait_for("document.querySelector('[id=\"user-defined-plot:pareto\"] .main-svg')")
        browser.driver.get(f"{pages}/trials?numbers=1")
        pictures = "[...document.images].filter(i => i.src.includes('/artifacts/'))"
        browser.wait_for(f"{pictures}.filter(i => i.naturalWidth > 0).length === 2")
        assert "env-steps/s and scored" in browser.run("return document.body.innerText")
        assert browser.complaints() == []
