"""Take the pictures of the documentation from one real study: `make pictures`.

    python -m docs.take_pictures [flags of `tuner start`]

runs the study `demo` on a terminal of its own, in a folder that is thrown away, and replaces
`docs/pictures/`: the live view amid a trial, the top of the page of plots, the dashboard.
"""

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.browser import DESKTOP, PROGRAMS, Browser, open_browser
from tests.screen import Screen
from tests.tuner.studies import wait_for_line

COLUMNS, ROWS = 100, 30
PICTURES = Path(__file__).resolve().parent / "pictures"
TUNER = (sys.executable, "-m", "tuner")
STUDY = "demo"
PROFILES = 3
COLOURS = 64
"""Of a PNG: plots and text need no more, and the repository keeps every version."""
_NEW_FRAME = re.compile(r"(?=\r\x1b\[)")
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""What would be loaded from elsewhere."""
_SHARE = re.compile(r"^env-steps .* (\d+) %", re.MULTILINE)
_WANTED = (r"^left ", r"^now +trial \d+: ", r"^return ", r"^util ", r"^memory ", r"^best ")


def run_study(folder: Path, flags: list[str]) -> str:
    """Run a study in `folder` on a terminal, show it, and return what it wrote.

    Raises:
        SystemExit: it wrote no three profiles.
    """
    variables = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    os.environ.update(variables)
    os.environ.pop("NO_COLOR", None)
    chunks = []

    def read(terminal: int) -> bytes:
        chunks.append(os.read(terminal, 1 << 16))
        return chunks[-1]

    os.chdir(folder)
    code = os.waitstatus_to_exitcode(pty.spawn([*TUNER, "start", STUDY, *flags], read))
    written = len(list(folder.glob(f"runs/{STUDY}/profiles/*.yaml")))
    if code or written != PROFILES:
        raise SystemExit(f"pictures need a study that ends with 0 and {PROFILES} profiles, "
                         f"but got {code} and {written}; try a longer --budget")  # fmt: skip
    return b"".join(chunks).decode()


def screens(output: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what a terminal showed after each frame: its text, and its rows in colours."""
    screen = Screen(COLUMNS)
    for piece in _NEW_FRAME.split(output):
        screen.feed(piece)
        yield "\n".join(screen.text.splitlines()[1 - ROWS :]), screen.coloured[-ROWS:]


def told(screen: tuple[str, list[str]]) -> tuple[int, int, int]:
    """Return how much a screen tells, and how near its trial is to its middle."""
    text, _ = screen
    share = _SHARE.search(text)
    parts = sum(re.search(part, text, re.MULTILINE) is not None for part in _WANTED)
    if share is None:
        return 0, 0, 0
    return parts, len(re.findall(r"^trial \d+ ", text, re.MULTILINE)), -abs(50 - int(share[1]))


def draw_terminal(rows: list[str], file: Path) -> None:
    """Write a terminal's rows as an SVG that loads nothing."""
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True)
    for row in rows:
        console.print(Text.from_ansi(row), no_wrap=True, overflow="crop", highlight=False)
    svg = console.export_svg(title=f"tuner start {STUDY}", unique_id=file.stem)
    file.write_text(_FONTS.sub("", svg), encoding="utf-8")


def photograph(browser: Browser, file: Path) -> None:
    """Write what a window shows as a PNG of few colours."""
    with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as shot:
        shot.convert("RGB").quantize(COLOURS).save(file, optimize=True)


@contextmanager
def dashboard() -> Iterator[str]:
    """Serve the study's dashboard; yield the address of the study in it."""
    command = [*TUNER, "dashboard", STUDY, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = wait_for_line(process, "http://") or ""
            address = next(word for word in line.split() if word.startswith("http://"))
            with urllib.request.urlopen(f"{address}api/studies", timeout=60) as answer:
                (study,) = json.loads(answer.read())["study_summaries"]
            yield f"{address}dashboard/studies/{study['study_id']}"
        finally:
            process.send_signal(signal.SIGINT)


def main() -> None:
    """Take all pictures."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise SystemExit(f"pictures need {' and '.join(PROGRAMS)} on PATH, but got none of "
                         f"{', '.join(missing)}; install them")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        output = run_study(folder, sys.argv[1:])
        PICTURES.mkdir(exist_ok=True)
        _, rows = max(screens(output), key=told)
        draw_terminal(rows, PICTURES / "live.svg")
        with open_browser() as browser:
            browser.resize(DESKTOP)
            browser.prefer("light")
            browser.driver.get((folder / "runs" / STUDY / "report.html").as_uri())
            browser.wait_for("document.querySelector('#plot-pareto .main-svg')")
            photograph(browser, PICTURES / "report.png")
            with dashboard() as address:
                browser.driver.get(address)
                plot = '[id="user-defined-plot:pareto"] .main-svg'
                browser.wait_for(f"document.querySelector('{plot}')")
                photograph(browser, PICTURES / "dashboard.png")


if __name__ == "__main__":
    main()
