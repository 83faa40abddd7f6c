"""How a fact of a study (its space, workload, references, device) is kept as a study attribute.

Each fact is one attribute of Optuna's study, `tuner:NAME`, with a version around its JSON value. As
an attribute it is deleted with the study and shown by the dashboard; a fact of its own rather than
one large document, because two workers that set different facts must not undo each other's.
"""

import json
from typing import Any

from storage.errors import NewerSchema

FACT_PREFIX = "tuner:"
FACT_VERSION = 1


def wrap_fact(name: str, value: Any) -> dict[str, Any]:
    """Put the version around a value.

    Raises:
        ValueError: If the value is not plain JSON; NaN and infinity are not.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the fact {name!r} must be plain JSON, but got: {error}; unknown is None"
        ) from error
    return {"version": FACT_VERSION, "value": value}


def unwrap_fact(key: str, stored: dict[str, Any]) -> Any:
    """Return the value that `wrap_fact` was given.

    Raises:
        NewerSchema: If a newer tuner stored it.
    """
    version = stored["version"]
    if version > FACT_VERSION:
        raise NewerSchema(
            f"the study's attribute {key!r} must be of version {FACT_VERSION} or older, but got "
            f"version {version}; install the tuner that wrote it, or a newer one"
        )
    return stored["value"]
