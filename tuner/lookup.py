"""Finds a study by its name, and refuses settings that are not its own.

Apart from `tuner.study` because a command that only reads (status, show, report) needs neither
Optuna nor a device to find what it reads.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from storage import overview
from storage.database import is_proxy
from storage.patience import once_it_answers
from tuner.address import of_study
from tuner.config import (
    DATA_FILES,
    GROUP_MARK,
    MarketSettings,
    SpaceSettings,
    StudyConfig,
    WorkloadSettings,
    flag,
)
from tuner.errors import NotBegun, Refused, UsageError
from tuner.goal import TIME_TO_RETURN
from tuner.settings import load_config, read_settings

FIXED_MEASURES = ("env_steps", "seed", "weights", "goal", "warm_start")
"""Settings of the measurement that are settled when a study begins."""

NAME_CHARACTERS = "letters, digits, '-', '_' and '.'"


def find(
    name: str,
    flags: Mapping[str, object],
    *,
    say: Callable[[str], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[StudyConfig, dict[str, Any]]:
    """Return the config of a study, with flags on top, and the facts stored with it.

    Reads SQL only, but behind a proxy: no Optuna, no device, no lock. With `say` a database that
    does not answer is waited for where the study has a folder here: it was reached before.

    Raises:
        StudyNotFound: there is no such study.
        NotBegun: it was killed before it began, or is being started.
        Refused: a flag, or an edited config.yaml, differs from the study's workload or space.
        UsageError: a flag is wrong, or the storage's password is nowhere to be found.
    """
    require_name(name, may_be_group=True)
    places = StudyConfig(
        **{k: v for k, v in flags.items() if k in ("runs_dir", "storage") and v is not None}
    )
    written = places.folder(name) / "config.yaml"
    in_file = read_settings(written) if written.exists() else {}
    storage = of_study(places.storage, in_file, places.folder(name))
    places = places.model_copy(update={"storage": storage})
    url = places.storage_url(name)
    if say is not None and places.folder(name).exists():
        facts = once_it_answers(url, partial(facts_of, url, name), say=say, is_stopped=is_stopped)
    else:
        facts = facts_of(url, name)
    if "config" not in facts:
        raise NotBegun(
            f"the study {name!r} must have begun, but was stopped before; start it again with "
            f"`tuner start {name}`"
        )
    stored = load_config(facts["config"], {})
    refuse_other_settings(stored, in_file, lambda key: f"{written}: {key}")
    refuse_other_settings(stored, flags, flag)
    moved = {"runs_dir": places.runs_dir, "storage": storage}
    config = load_config(
        {**facts["config"], **{k: None if v is None else str(v) for k, v in moved.items()}}, flags
    )
    return config, facts


def facts_of(url: str, name: str) -> dict[str, Any]:
    """Return the facts of a study, read by SQL, or by Optuna behind its gRPC proxy.

    Raises:
        StudyNotFound: there is no such study.
        StorageUnavailable: the database does not answer.
    """
    if not is_proxy(url):
        return overview.study_facts(url, name)
    from storage.studies import close_storage, load_study, open_storage, study_facts  # Optuna

    storage = open_storage(url, create=False)
    try:
        return study_facts(load_study(storage, name))
    finally:
        close_storage(storage)


def require_name(name: str, *, may_be_group: bool = False) -> None:
    """Refuse a name that cannot be a folder's; that of a group is two names with a mark between.

    Raises:
        UsageError: it has other characters than letters, digits, '-', '_' and '.'.
    """
    parts = name.split(GROUP_MARK, 1) if may_be_group else [name]
    if not all(map(_is_folder_name, parts)):
        raise UsageError(
            f"NAME must be of {NAME_CHARACTERS} and not start with '.', but got {name!r}; try "
            f"{as_name(name)}"
        )


def as_name(text: str) -> str:
    """Return the name for a study that is nearest to a text."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return plain.strip("-_.")[:100] or "demo"


def groups_of(url: str, name: str) -> list[str]:
    """Return the names of a study's groups of other hardware, which are studies themselves."""
    return [other for other in overview.study_names(url) if other.startswith(name + GROUP_MARK)]


def _is_folder_name(name: str) -> bool:
    allowed = all(c.isalnum() or c in "-_." for c in name)
    return bool(name) and allowed and not name.startswith(".") and len(name) <= 100


def refuse_other_settings(
    stored: StudyConfig, given: Mapping[str, object], place: Callable[[str], str]
) -> None:
    """Refuse settings of the workload or the space that are not the study's own."""
    parts = (WorkloadSettings, MarketSettings, SpaceSettings)
    settings = (name for part in parts for name in part.model_fields)
    # Data may move: what is in them is held to the study's when it is resumed.
    fixed = [*(name for name in settings if name not in DATA_FILES), *FIXED_MEASURES]
    if stored.goal == TIME_TO_RETURN:
        fixed.append("timeout")  # how long a trial may take to the target is what is measured
    named = {k: v for k, v in given.items() if k in fixed and v not in (None, [], ())}
    wanted = load_config(None, named)
    for key in named:
        before, now = getattr(stored, key), getattr(wanted, key)
        if key == "env_params":
            before = {k: before.get(k) for k in now}
        if key == "baseline" and stored.has_rates and now.learning_rate is None:
            now = replace(now, learning_rate=stored.learning_rates[0])
        if before != now:
            raise Refused(
                f"{place(key)} must stay {before} in this study, but got {now}; start another "
                "study for it"
            )
