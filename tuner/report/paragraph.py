"""A line for a terminal that may need several: those after the first are set in, words stay whole.

Apart from the reports because rich wraps to the margin and breaks a path that is to be copied.
"""

import re
import textwrap

from rich.console import Console

_AT_A_NUMBER = re.compile(r"(?<=\d) (?=[%×]|(?:s|GB)\b)")
_UNBROKEN = "\N{NO-BREAK SPACE}"


def print_paragraph(
    console: Console, text: str, *, label: str = "", indent: int | None = None, style: str = ""
) -> None:
    """Print a text within a console's width.

    Args:
        console: where to.
        text: without markup.
        label: what the first line begins with, blanks included.
        indent: blanks before every other line; as many as the label has columns if None.
        style: rich's name of one.
    """
    lines = textwrap.wrap(
        _AT_A_NUMBER.sub(_UNBROKEN, text),
        max(1, console.width),
        initial_indent=label,
        subsequent_indent=" " * (len(label) if indent is None else indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    told = "\n".join(lines).replace(_UNBROKEN, " ") or label
    console.print(told, style=style, markup=False, emoji=False, soft_wrap=True)
