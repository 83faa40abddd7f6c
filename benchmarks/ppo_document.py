"""What the PPO benchmarks have in common at their edges: flags, facts of the machine, writing.

No jax here: `ppo_peers.py` must not open the device beside the processes that it measures.
"""

import argparse
import importlib.metadata
import json
import math
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuner.devices.base import DeviceInfo
from tuner.devices.detect import open_device

PACKAGES = ("tuner", "jax", "jaxlib", "flax", "optax", "gymnax", "rejax", "brax")


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark takes."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="about a minute on two cores")
    parser.add_argument("--out", type=Path, help="folder to write the document and table to")
    return parser


def this_device() -> DeviceInfo:
    """Return what this machine's device is, without jax."""
    device = open_device()
    try:
        return device.info()
    finally:
        device.close()


def facts(device: DeviceInfo) -> dict[str, Any]:
    """Return what a reader must know of any result: command, date, device, versions."""
    return {
        "command": shlex.join([".venv/bin/python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.as_dict(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
    }


def deliver(document: dict[str, Any], table: str, arguments: argparse.Namespace) -> None:
    """Print the document or its table, and write both where `--out` asks for it."""
    text = json.dumps(finite(document), indent=1, ensure_ascii=False, allow_nan=False)
    if arguments.out is not None:
        folder, name = arguments.out, Path(sys.argv[0]).stem
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        head = f"$ {document['command']}\n{document['date']}, {document['device']['name']}\n\n"
        (folder / f"{name}.txt").write_text(head + table + "\n", encoding="utf-8")
    print(text if arguments.json else table)


def say(line: str) -> None:
    """Tell whoever waits what is being done."""
    print(line, file=sys.stderr, flush=True)


def finite(value: Any) -> Any:
    """Return `value` with numbers that JSON cannot hold as None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
