"""Which profiles an argument of the command line means: a file, a study, or one of a study's three.

Apart from the files because a name is looked up under the runs folder, and from the studies
because a profile outlives the database that it came from: none is opened here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from storage.profile import Profile
from storage.profile_files import read
from tuner.config import PlaceSettings
from tuner.errors import UsageError
from tuner.lookup import require_name
from tuner.profiles import PROFILE_NAMES


@dataclass(frozen=True, slots=True)
class Source:
    """A profile, its file, and what to call it: the file as given, or `STUDY/PROFILE`."""

    name: str
    path: Path
    profile: Profile

    @property
    def folder(self) -> Path:
        """Where the study's profiles are, that of an earlier version in `history/` as well."""
        folder = self.path.resolve().parent
        return folder.parent if folder.name == "history" else folder


def resolve(argument: str, runs_dir: Path) -> list[Source]:
    """Return the profiles that an argument means; those of a study in their usual order.

    Args:
        argument: a profile's file; else `NAME`, all profiles of that study; else `NAME/balanced`.
        runs_dir: folder of all studies.

    Raises:
        UsageError: there is no such file and no such study, or the study has no profiles.
        InvalidProfile: the file is no profile.
    """
    path = Path(argument)
    if os.path.exists(argument) and not path.is_dir():
        return [Source(argument, path, read(path))]
    study, _, wanted = argument.partition("/")
    names = (wanted,) if wanted else PROFILE_NAMES
    if not _may_be_study(study) or not set(names) <= set(PROFILE_NAMES):
        raise _unknown(argument)
    folder = PlaceSettings(runs_dir=runs_dir).profiles_folder(study)
    found = [name for name in names if (folder / f"{name}.yaml").exists()]
    if not found:
        if not folder.parent.exists():
            raise _unknown(argument)
        raise UsageError(
            f"a study must have profiles to be named for them, but {study!r} has none in {folder}; "
            f"write them with `tuner export {study}`"
        )
    files = {name: folder / f"{name}.yaml" for name in found}
    return [Source(f"{study}/{name}", file, read(file)) for name, file in files.items()]


def _may_be_study(name: str) -> bool:
    try:
        require_name(name, may_be_group=True)
    except UsageError:
        return False
    return True


def _unknown(argument: str) -> UsageError:
    return UsageError(
        "PROFILE must be a profile's file, the NAME of a study, or NAME/balanced, NAME/max_gpu or "
        f"NAME/max_quality, but got {argument!r}; see `tuner list`"
    )
