"""What every report starts from: a study's config, facts, records and references, read-only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from storage import overview
from storage.records import TrialRecord
from storage.telemetry import Telemetry
from tuner.aggregate import SUMMARISED, ConfigSummary, summarise
from tuner.config import StudyConfig
from tuner.goal import objective_of
from tuner.lookup import find, groups_of
from tuner.references import References


@dataclass(frozen=True)
class StudyReading:
    """A study as it stands; `references` is None until it is calibrated.

    `groups` are the names of its groups of other hardware, see `tuner.study.group_here`. `dead` are
    the trials whose worker is gone and which nobody has closed yet; `counts` has them as failed,
    which the next worker or a resume makes of them.
    """

    name: str
    config: StudyConfig
    facts: dict[str, Any]
    counts: dict[str, int]
    statuses: dict[str, int]
    records: list[TrialRecord]
    references: References | None
    groups: tuple[str, ...] = ()
    dead: tuple[int, ...] = ()

    @cached_property
    def summaries(self) -> list[ConfigSummary]:
        """One summary for each config that was measured, without the interval of its SPS."""
        return summarise(self.records, with_intervals=False)

    def best(self) -> ConfigSummary | None:
        """Return the eligible config that is best by the study's goal, None while there is none.

        Where quality is not in use none is eligible for a profile, and all that ran are ranked.
        """
        return best_of(self.summaries, self.references)

    def baseline(self) -> ConfigSummary | None:
        """Return the baseline, None until it is measured."""
        return next((s for s in self.summaries if s.trial == 0), None)


def best_of(
    summaries: Sequence[ConfigSummary], references: References | None
) -> ConfigSummary | None:
    """Return the best of some configs, see `StudyReading.best`."""
    judged = references is not None and "quality" in references.components
    scored = [s for s in summaries if objective_of(s) is not None and (s.eligible or not judged)]
    return max(scored, key=lambda s: objective_of(s) or 0.0, default=None)


BRIEF = (*SUMMARISED, "duration")
"""The fields of a record that a study's status is made of."""


def read_study(
    name: str, places: Mapping[str, object], *, only: Sequence[str] | None = None
) -> StudyReading:
    """Read a study straight from SQL, without Optuna.

    Args:
        name: of the study.
        places: `runs_dir` and `storage`, as flags give them.
        only: the fields of its records to read, see `Telemetry.records`.

    Raises:
        StorageError: there is no such study, or its database cannot be read.
    """
    config, facts = find(name, places)
    url = config.storage_url(name)
    with Telemetry(url, create=False) as telemetry:
        records, statuses = telemetry.records(name, only=only), telemetry.status_counts(name)
    stored = facts.get("references")
    counts, dead = overview.counts(url, name), overview.dead_trials(url, name)
    counts["running"] = max(0, counts["running"] - len(dead))  # one may have ended in between
    counts["fail"] += len(dead)
    return StudyReading(
        name=name,
        config=config,
        facts=facts,
        counts=counts,
        statuses=statuses,
        records=records,
        references=None if stored is None else References.from_json(stored),
        groups=tuple(groups_of(url, name)),
        dead=tuple(dead),
    )
