"""A study from a script or a notebook: `tuner.tune(env=…, budget=…)`.

Apart from the commands because it returns what they print. Trials are processes of their own, made
from a command line and not by forking, so that a script needs no `if __name__ == "__main__"`; a
thread that is not the main one may call it, too, and then hears no Ctrl-C.
"""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.profile import Profile
from storage.profile_files import read
from tuner.address import complete
from tuner.aggregate import ConfigSummary
from tuner.config import StopSettings, StudyConfig
from tuner.profiles import PROFILE_NAMES
from tuner.run import Ending
from tuner.settings import load_config
from tuner.workload import require_sound

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """A study as it stood when it was read.

    `ending` says why its search ended, and why there are no profiles if there are none.
    """

    name: str
    folder: Path
    ending: Ending
    places: dict[str, str | None]

    @cached_property
    def records(self) -> "pd.DataFrame":
        """All measurements, one row each; the columns are those of `trials.csv` and more."""
        import pandas as pd

        return pd.DataFrame([record.as_dict() for record in self._reading.records])

    @property
    def best(self) -> ConfigSummary | None:
        """The config with the best composite score, None while none may become a profile."""
        found: ConfigSummary | None = self._reading.best()
        return found

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The profiles that were written, by name; none where export was refused."""
        paths = {name: self.folder / "profiles" / f"{name}.yaml" for name in PROFILE_NAMES}
        return {name: read(path) for name, path in paths.items() if path.exists()}

    def report(self) -> str:
        """Return what `tuner report` prints."""
        from tuner.report.summary import print_report

        with contextlib.redirect_stdout(io.StringIO()) as printed:
            print_report(self.name, self.places)
        return printed.getvalue()

    @cached_property
    def _reading(self) -> Any:
        from tuner.report.reading import read_study

        return read_study(self.name, self.places)


def tune(name: str = "demo", *, say: Callable[[str], None] | None = None, **settings: Any) -> Study:
    """Run a study to its end, or go on with it if it exists, and return it.

    One that has ended is returned as it is, so that a script or a notebook can be run again, unless
    a setting that may change has changed: more `trials` or `patience` search on. A budget does not;
    `tuner resume NAME --budget 1h` does.

    Args:
        name: of the study.
        say: is told every line of progress; None prints them on stderr.
        **settings: those of `tuner start` by name, as `env="gymnax:CartPole-v1"`, `budget="10m"`,
            `num_envs=(512, 1024)` or `env_params={"obs_dim": 64}`. Code of your own is named as
            `module:factory` and found in the working directory.

    Returns:
        The study; stopped by Ctrl-C too, with what was measured until then.

    Raises:
        TunerError: see `tuner.errors`. A study of the name with another space, workload or
            hardware is refused.
        StorageError: see `storage.errors`.
    """
    from tuner import study as studies

    tell = say or _print
    config = load_config(None, settings)
    require_sound(config)
    config = config.model_copy(update={"storage": complete(config.storage)})
    places = {"runs_dir": str(config.runs_dir), "storage": config.storage}
    facts = _facts(config, name)
    if "config" in facts:
        given = {**settings, **places}
        if facts.get("ended") is not None:
            stored = load_config(facts["config"], {})
            same = {
                k for k in StopSettings.model_fields if getattr(config, k) == getattr(stored, k)
            }
            given = {k: v for k, v in given.items() if k not in same | {"budget"}}
        ending = studies.resume(name, given, say=tell)
    else:
        ending = studies.start(config, name, say=tell)
    return Study(name=name, folder=config.folder(name), ending=ending, places=places)


def _facts(config: StudyConfig, name: str) -> dict[str, Any]:
    """Return what is stored on the study, nothing where there is none."""
    from storage.errors import StudyNotFound
    from storage.overview import study_facts
    from tuner.lookup import require_name

    require_name(name)
    try:
        return study_facts(config.storage_url(name), name)
    except StudyNotFound:
        return {}


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
