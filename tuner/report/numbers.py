"""Numbers as people read them, the same in every report."""

from collections.abc import Sequence

ABSENT = "–"


def number(value: float | None, form: str) -> str:
    """Return a number in a format, or a dash where there is none."""
    return ABSENT if value is None else format(value, form)


def duration(seconds: float) -> str:
    """Return seconds as `7.5 s`, `3:05` or `1:02:03`."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def clock(seconds: float) -> str:
    """Return seconds as `0:07`, `3:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """Return a line of bars for a series, at most `width` of them."""
    picked = (
        [values[i * len(values) // width] for i in range(width)] if len(values) > width else values
    )
    low, high = min(picked), max(picked)
    if high == low:
        return "▄" * len(picked)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / (high - low))] for value in picked)
