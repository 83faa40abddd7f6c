"""Numbers as people read them, the same in every report."""

ABSENT = "–"


def number(value: float | None, form: str) -> str:
    """Return a number in a format, or a dash where there is none."""
    return ABSENT if value is None else format(value, form)
