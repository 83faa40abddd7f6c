"""Rows of a dataclass as columns of plain JSON, and back.

Apart from the tables because it is the format of what they hold: `{"t": [0.0, 0.1], "util":
[null, 98.0]}`. A column of nothing but `None` is left out. NaN and infinity become `None`: JSON has
no word for them, and in a record they mean that there is no number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

Row = TypeVar("Row")


def finite(value: Any) -> Any:
    """Return `value` with `None` for every float in it that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def to_columns(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Turn dataclass instances of one kind into a list for each field, all as long as `rows`."""
    if not rows:
        return {}
    names = [field.name for field in fields(rows[0])]
    columns = {name: [finite(getattr(row, name)) for row in rows] for name in names}
    return {
        name: column
        for name, column in columns.items()
        if any(value is not None for value in column)
    }


def from_columns(kind: type[Row], columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Rebuild the rows that `to_columns` was given; a missing column takes the field's default."""
    names = list(columns)
    return [
        kind(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]
