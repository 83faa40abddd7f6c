"""The commands that the documentation shows, page by page and in their order."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
         "examples/README.md", "envs/README.md")  # fmt: skip
HELP = "the commands' own help"


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it: the words of its line."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def shown(page: str) -> list[Shown]:
    """Return the commands of a page's blocks, or the examples of all commands' help."""
    if page == HELP:
        return list(_examples())
    found = []
    for number, line in _block_lines((ROOT / page).read_text(encoding="utf-8")):
        for part in re.split(r"\|\||&&|;", re.sub(r"(^|\s)#.*", "", line)):
            words = tuple(shlex.split(part.strip().removeprefix("$ ")))
            words = words[1:] if words[:1] == ("srun",) else words
            if words:
                found.append(Shown(page, number, words))
    return found


def spans(page: str) -> list[str]:
    """Return the commands of `tuner` that stand within sentences, as `tuner resume demo`."""
    prose = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`(tuner [^`]+)`", prose)]


def prose(page: str) -> str:
    """Return a page without its blocks: what explains them."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    blocks = {number for number, _ in _block_lines("\n".join(lines))}
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in blocks)


def links(page: str) -> list[str]:
    """Return what a page links or shows that is not elsewhere, as `scoring.md#the-profiles`."""
    found = re.findall(r"\]\(([^)]+)\)|<img [^>]*src=\"([^\"]+)\"", prose(page))
    return [link for pair in found for link in pair if link and "://" not in link]


def anchors(page: str) -> set[str]:
    """Return what can stand behind `#` in a link to a page: its headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _block_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines to type, with their numbers; of a `console` block those after `$`."""
    to_type = {None: r" {4}(tuner|\S*python|make) ", "sh": r"\s*\S", "console": r"\$ "}
    language = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            language = line.removeprefix("```").strip() if language is None else None
        elif language in to_type and re.match(to_type[language], line):
            yield number, line.strip()


def _examples() -> Iterator[Shown]:
    for number, command in zip(itertools.count(1), app.registered_commands, strict=False):
        words = shlex.split((command.epilog or "").removeprefix("Example: "))
        yield Shown(HELP, number, tuple(words))
