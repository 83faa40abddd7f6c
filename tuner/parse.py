"""What people write for a quantity, a list or a config, turned into values.

Each function takes a string from a flag or a value from YAML and returns what the field of
`tuner.config` holds, or raises ValueError with what is required; the caller adds what was got.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from tuner.space import DIMENSIONS, LEARNING_RATE, HardwareConfig, in_order

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS_BYTES = {
    "": 1,
    **{f"{p}b": 1000**k for k, p in enumerate(("", "k", "m", "g", "t"))},
    **{f"{p}ib": 1024**k for k, p in enumerate(("k", "m", "g", "t"), 1)},
}


def _quantity(value: object, units: Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e\d+)?)\s*([a-z]*)\s*", str(value).lower())
    if match is None or match[2] not in units:
        raise ValueError(f"must be a number with a unit, such as {example}")
    quantity = float(match[1]) * units[match[2]]
    if not math.isfinite(quantity):
        raise ValueError(f"must be a finite number with a unit, such as {example}")
    return quantity


def seconds(value: object) -> object:
    """Return seconds of `300`, `300s`, `45m`, `2h` or `1d`."""
    return None if value is None else _quantity(value, _UNITS_S, "300s, 45m or 2h")


def budget(value: object) -> object:
    """Return seconds of `45m` as `seconds` does; of a text the unit is required.

    Who writes `--budget 30` may mean minutes, and finds out when nothing has come of it.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*[\d.]+\s*", value):
        raise ValueError("must be a time with a unit, such as 300s, 45m or 2h")
    return seconds(value)


def memory_bytes(value: object) -> object:
    """Return bytes of `500MB` (10⁶) or `4GiB` (2³⁰)."""
    return None if value is None else int(_quantity(value, _UNITS_BYTES, "500MB or 2GB"))


def whole_number(value: object) -> object:
    """Return the integer of `1000000`, `1_000_000`, `1e6`; anything else as it is."""
    text = str(value).replace("_", "")
    if re.fullmatch(r"\d+(\.\d+)?e\d{1,2}", text, re.IGNORECASE) and float(text).is_integer():
        return int(float(text))
    return value


def share(value: object) -> float:
    """Return the share, between 0 and 1, in `10%` or `0.1`."""
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*(%?)\s*", str(value))
    found = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < found < 1:
        raise ValueError("must be a share between 0 and 1, such as 10% or 0.1")
    return found


def listed(value: object) -> object:
    """Return the items of a comma-separated string; anything else but a number as it is."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return [value] if isinstance(value, int | float) else value


def paths(value: object) -> object:
    """Return the paths of `a.yaml,b.yaml`, or of a list of such, made absolute.

    A comma belongs to a path where there is such a file.
    """
    if value is None:
        return None
    items = value if isinstance(value, list | tuple) else [value]
    if not items or not all(isinstance(item, str | Path) and str(item).strip() for item in items):
        raise ValueError("must be files, such as balanced.yaml,max_gpu.yaml")
    texts = [str(item) for item in items]
    parts = [[text] if Path(text).exists() else text.split(",") for text in texts]
    return tuple(Path(p.strip()).absolute() for part in parts for p in part if p.strip())


def positive_integers(value: object) -> object:
    """Return the positive integers of `256,256`, in the order given."""
    items = listed(value)
    if items is None:
        return None
    shape = "must be a list of positive integers, such as 512,1024"
    if not isinstance(items, list | tuple) or not items:
        raise ValueError(shape)
    if not all(re.fullmatch(r"[1-9]\d*", str(item)) for item in items):
        raise ValueError(shape)
    return tuple(int(str(item)) for item in items)


def indices(value: object) -> object:
    """Return the numbers from 0 of `0,1`, in the order given."""
    items = listed(value)
    if items is None:
        return None
    if not isinstance(items, list | tuple) or not items:
        raise ValueError("must be a list of numbers from 0, such as 0,1")
    if not all(re.fullmatch(r"\d{1,4}", str(item)) for item in items):
        raise ValueError("must be a list of numbers from 0, such as 0,1")
    return tuple(int(str(item)) for item in items)


def choices(value: object) -> object:
    """Return the choices of one dimension, sorted and without repeats."""
    numbers = positive_integers(value)
    return tuple(sorted(set(numbers))) if isinstance(numbers, tuple) else numbers


def weights(value: object) -> object:
    """Return the three weights of `0.4,0.4,0.2`."""
    items = listed(value)
    if items is None:
        return None
    shape = "must be three numbers of at least 0 that are not all 0, such as 0.4,0.4,0.2"
    if not isinstance(items, list | tuple) or len(items) != 3:
        raise ValueError(shape)
    try:
        numbers = [float(str(item)) for item in items]
    except ValueError:
        raise ValueError(shape) from None
    if not all(0 <= number < float("inf") for number in numbers) or not any(numbers):
        raise ValueError(shape)
    return tuple(numbers)


def learning_rates(value: object) -> object:
    """Return the learning rates of `3e-4,1e-3` in their order, without repeats; of one, itself."""
    if not isinstance(value, list | tuple) and not (isinstance(value, str) and "," in value):
        return value
    items = listed(value)
    rates = [_rate(item) for item in items] if isinstance(items, list | tuple) else []
    found = [rate for rate in dict.fromkeys(rates) if rate is not None]
    if not found or None in rates:
        raise ValueError("must be a number, or several between 0 and 1, such as 3e-4,1e-3")
    return tuple(found) if len(found) > 1 else found[0]


def _rate(value: object) -> float | None:
    """Return a number between 0 and 1, None of anything else; YAML reads `3e-4` as text."""
    try:
        rate = float(str(value))
    except ValueError:
        return None
    return rate if 0 < rate < 1 else None


def hardware(value: object) -> object:
    """Return the config of `2048,128,8,4`, or with a learning rate of `2048,128,8,4,3e-4`."""
    if isinstance(value, Mapping):
        rate = value.get(LEARNING_RATE)
        value = [value.get(name) for name in DIMENSIONS] + ([] if rate is None else [rate])
    items = listed(value)
    if items is None:
        return None
    shape = (
        f"must be four positive integers {','.join(DIMENSIONS)}, such as 2048,128,8,4 (and a "
        "learning rate below 1, where --learning-rate lists several)"
    )
    if not isinstance(items, list | tuple):
        raise ValueError(shape)
    numbers, rest = items[: len(DIMENSIONS)], items[len(DIMENSIONS) :]
    rates = [rate for item in rest if (rate := _rate(item)) is not None]
    if len(numbers) < len(DIMENSIONS) or len(rest) > 1 or len(rates) < len(rest):
        raise ValueError(shape)
    if not all(re.fullmatch(r"[1-9]\d*", str(number)) for number in numbers):
        raise ValueError(shape)
    config = HardwareConfig(*(int(str(number)) for number in numbers))
    if not config.is_valid:
        raise ValueError(
            f"must have a batch (num_envs × num_steps = {config.batch_size}) that divides into "
            f"{config.num_minibatches} minibatches"
        )
    return replace(config, learning_rate=rates[0]) if rates else config


def hardware_list(value: object) -> object:
    """Return the configs of `512,16,8,2;64,64,4,4`, sorted and without repeats.

    A config may have a learning rate, as for `hardware`.
    """
    if value is None:
        return None
    items = [i for i in value.split(";") if i.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError("must be configs, such as 512,16,8,2;64,64,4,4")
    configs = [config for item in items if isinstance(config := hardware(item), HardwareConfig)]
    if len(configs) < len(items):
        raise ValueError("must be configs, such as 512,16,8,2;64,64,4,4")
    return in_order(configs)


def env_params(value: object) -> dict[str, object]:
    """Return the mapping of `key=value` items; values are read as YAML scalars."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    params: dict[str, object] = {}
    for item in value if isinstance(value, list | tuple) else [value]:
        key, separator, text = str(item).partition("=")
        if not separator or not key.strip():
            raise ValueError("must be key=value, such as obs_dim=64")
        try:
            params[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError("must be key=value with a number or a word as value") from None
    return params
