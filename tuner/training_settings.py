"""What `tuner train` can be told beside its workload: how to train on, where, for how long.

Apart from the settings of a study because a training measures nothing and chooses nothing.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from tuner import parse
from tuner.config import Bytes, PlaceSettings, Seconds, Settings
from tuner.errors import UsageError
from tuner.settings import explain
from tuner.space import DIMENSIONS

Count = Annotated[int | None, Field(ge=1)]
Total = Annotated[int, BeforeValidator(parse.whole_number), Field(ge=1)]


class TrainingSettings(Settings):
    """Settings of one training; the four numbers are the profile's unless given."""

    total_steps: Total = Field(description="env-steps to train for, as 10_000_000 or 1e7; required")
    num_envs: Count = Field(None, description="environments [the profile's]")
    num_steps: Count = Field(None, description="steps of each in one update [the profile's]")
    num_minibatches: Count = Field(None, description="minibatches of an epoch [the profile's]")
    num_epochs: Count = Field(None, description="epochs of an update [the profile's]")
    seed: int = Field(0, ge=0, lt=2**31, description="of the training")
    checkpoint_every: Seconds = Field(
        60.0, description="time between checkpoints, to the end of a block"
    )
    keep_checkpoints: int = Field(3, ge=1, description="how many of the newest stay")
    memory_limit: Bytes | None = Field(None, description="lower the memory gate to this, as 2GB")
    reserve: Bytes = Field(0, description="memory to leave for what else will run, as 4GB")
    runs_dir: Path = Field(Path("runs"), description="folder of the studies, for their cache")
    cache_dir: Path | None = Field(None, description="of compiled programs [runs/.cache/xla]")

    def compilation_cache(self) -> Path:
        """Return the folder of compiled programs, which the studies of a runs folder share."""
        return PlaceSettings(runs_dir=self.runs_dir, cache_dir=self.cache_dir).compilation_cache()

    def numbers(self) -> dict[str, int]:
        """Return those of the four numbers that were given."""
        given = {name: getattr(self, name) for name in DIMENSIONS}
        return {name: number for name, number in given.items() if number is not None}


def training_settings(flags: dict[str, object]) -> TrainingSettings:
    """Return the settings in `flags`, where None means not given; others are passed over.

    Raises:
        UsageError: one of them is wrong; the message names the flag.
    """
    given = {
        name: value
        for name, value in flags.items()
        if name in TrainingSettings.model_fields and value is not None
    }
    if "total_steps" not in given:
        raise UsageError(
            "--total-steps must be given, but got none: a profile holds no budget; add "
            "--total-steps 10000000"
        )
    try:
        return TrainingSettings.model_validate(given)
    except ValidationError as error:
        raise UsageError(explain(error, None, given)) from None
