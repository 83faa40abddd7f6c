"""Whole files that are replaced at once, so that no reader and no kill ever sees half of one."""

import os
import secrets
from pathlib import Path


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, replacing what is there in one step.

    The text goes to a temporary file in the same folder (a rename is atomic only within a file
    system), reaches the disk, and takes the name of `path`. Line ends are written as they are.

    Args:
        path: The file; its folder must exist.
        text: The whole new content.

    Raises:
        OSError: If the folder is missing or not writable, or the disk is full. `path` is then as
            it was, and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk, so that a new or renamed file outlives power loss.

    Raises:
        OSError: If the folder cannot be opened or the disk reports a fault.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
