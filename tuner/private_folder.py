"""A folder of the user's own in the machine's temporary folder, where locks are kept.

Everyone may write to `/tmp`: a lock file of a known name there could be somebody else's link to a
file of the user's, or held by another for ever. In a folder that only its owner may enter, neither
can be.
"""

import os
import stat
import tempfile
from pathlib import Path

from tuner.errors import UsageError


def private_folder() -> Path:
    """Return the folder, the same for all of a user's processes on a machine; made if missing.

    Raises:
        UsageError: it cannot be made, or what has its name is a link or open to others.
    """
    folder = Path(tempfile.gettempdir()) / f"tuner-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UsageError(
            f"{folder} must be a folder that can be made, but got: {error.strerror}; set TMPDIR to "
            "a folder that you can write"
        ) from None
    is_private = not stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.getuid()
    if not stat.S_ISDIR(found.st_mode) or not is_private:
        raise UsageError(
            f"{folder} must be a folder of yours with mode 0700, but got one of user "
            f"{found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}; remove it or set TMPDIR"
        )
    return folder
