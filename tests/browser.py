"""A real headless Chromium, driven as a person would look: a window's size, light or dark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromedriver")
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-first-run", "--disable-background-networking")  # fmt: skip
PHONE, DESKTOP = (360, 740), (1280, 900)
WAIT_S = 120
"""Only a loaded machine comes near it."""


class Browser:
    """A window; `driver` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        mobile = width < 500
        self._tell("Emulation.setDeviceMetricsOverride", width=width, height=height,
                   deviceScaleFactor=1, mobile=mobile)  # fmt: skip
        self._tell("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def prefer(self, scheme: str) -> None:
        """Have pages see a person's choice, `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._tell("Emulation.setEmulatedMedia", features=[feature])

    def run(self, script: str) -> Any:
        """Run a function's body in the page and return what it returns."""
        return self.driver.execute_script(script)

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT_S).until(lambda _: self.run(f"return {condition}"))

    def complaints(self) -> list[str]:
        """Return what the page has written to the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def _tell(self, command: str, **arguments: Any) -> None:
        self.driver.execute_cdp_cmd(command, arguments)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open a window, or skip the test loudly where there is no browser."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"NO PAGE IS TESTED IN A BROWSER: {', '.join(missing)} not on PATH")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(WAIT_S)
        yield Browser(driver)
    finally:
        driver.quit()
