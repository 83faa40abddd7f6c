"""What a training measured of itself, as JSON lines, and for TensorBoard where it is installed.

Written by the process that trains, because a line must be on the disk before the checkpoint that
stands after it: a training that goes on then lacks no line, and has none twice.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from storage.atomic import atomic_write_text

FILE_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """The metrics of a training, one line a block."""

    def __init__(self, folder: Path, *, after_update: int) -> None:
        """Open the file, without what it says of updates after `after_update`.

        `lines` are those that stay, oldest first.

        Raises:
            OSError: it cannot be read or written.
        """
        path = folder / FILE_NAME
        self.lines = [line for line in read_metrics(path) if line["update"] <= after_update]
        atomic_write_text(path, "".join(_text(line) for line in self.lines))
        self._file = path.open("a", encoding="utf-8")
        env_steps = self.lines[-1]["env_steps"] if self.lines else 0
        self._board = _board(folder / TENSORBOARD_FOLDER, purge_step=env_steps + 1)

    def add(self, line: dict[str, Any]) -> None:
        """Add a line: `update`, `env_steps`, and whatever else of the block.

        Raises:
            OSError: it could not be written.
        """
        self.lines.append(line)
        self._file.write(_text(line))
        self._file.flush()
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._board.add_scalar(name, value, line["env_steps"])

    def sync(self) -> None:
        """Bring all lines to the disk.

        Raises:
            OSError: they could not be written.
        """
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of metrics up to the first that a kill cut short."""
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _text(line: dict[str, Any]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in line.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def _board(folder: Path, *, purge_step: int) -> Any:
    """Return a writer for TensorBoard, None where none is installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)
