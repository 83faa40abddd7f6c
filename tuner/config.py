"""Everything that a study can be told, by file or by flag: typed, validated, frozen.

The settings are one flat record, because a key of `study.yaml`, a flag and a field are the same
name; its parts are the base classes, so that code can ask for no more than the part it needs.
`tuner.flags` makes flags from these fields: a setting is declared here and nowhere else.
"""

from dataclasses import astuple, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tuner import parse
from tuner.errors import UsageError
from tuner.protocol import Workload
from tuner.score import CPU_WEIGHTS, Weights
from tuner.space import (
    CPU_BASELINE,
    CPU_SPACE,
    DIMENSIONS,
    GPU_BASELINE,
    GPU_SPACE,
    HardwareConfig,
    SearchSpace,
)

Seconds = Annotated[float, BeforeValidator(parse.seconds), Field(gt=0, allow_inf_nan=False)]
Budget = Annotated[float, BeforeValidator(parse.budget), Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(parse.memory_bytes), Field(ge=0)]
Choices = Annotated[tuple[int, ...] | None, BeforeValidator(parse.choices)]
Indices = Annotated[tuple[int, ...] | None, BeforeValidator(parse.indices)]
Sizes = Annotated[tuple[int, ...] | None, BeforeValidator(parse.positive_integers)]
Share = Annotated[
    float | None, BeforeValidator(lambda value: None if value is None else parse.share(value))
]
Files = Annotated[tuple[Path, ...] | None, BeforeValidator(parse.paths)]
DataFile = Annotated[Path | None, AfterValidator(lambda path: path and path.absolute())]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rates = Annotated[Rate | tuple[Positive, ...], BeforeValidator(parse.learning_rates)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """A part of the settings of a command: frozen, and no key but its own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True
    )


class WorkloadSettings(Settings):
    """What is trained: the part of a study that must stay the same when it is resumed."""

    env: str = Field(
        "stress",
        description="stress, trading-phase1 or 2, gymnax:CartPole-v1, brax:ant or your "
        "own as package.module:factory",
    )
    phase: int | None = Field(
        None, ge=1, le=2, description="1 or 2: short for --env trading-phase1 or trading-phase2"
    )
    env_params: Annotated[
        dict[str, str | int | float | bool], BeforeValidator(parse.env_params)
    ] = Field(default={}, description="key=value for the environment (repeatable)")
    trainer: str | None = Field(
        None, description="your own trainer in place of PPO, as package.module:factory"
    )
    learning_rate: Rates = Field(
        3e-4, description="Adam's step size; several, as 3e-4,1e-3, are a dimension of the search"
    )
    lr_scaling: Literal["none", "sqrt"] = Field(
        "none", description="sqrt: learning rate × √(minibatch / the baseline's minibatch)"
    )
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear: the learning rate falls to 0 over the env-steps"
    )
    lr_anneal_env_steps: int | None = Field(
        None, ge=1, description="where a linear schedule reaches 0 [the trial's env-steps]"
    )
    gamma: Fraction = Field(0.99, description="discount")
    gae_lambda: Fraction = Field(0.95, description="λ of the generalised advantage estimate")
    clip_eps: Positive = Field(0.2, description="range of PPO's clipped ratio")
    ent_coef: float = Field(0.01, allow_inf_nan=False, description="weight of the entropy bonus")
    vf_coef: Positive = Field(0.5, description="weight of the value loss")
    max_grad_norm: Positive = Field(0.5, description="clip of the gradient's global norm")
    adam_eps: Positive = Field(1e-8, description="added to what Adam divides by")
    clip_value_loss: bool = Field(False, description="whether the value loss is clipped too")
    vf_clip_eps: Positive = Field(0.2, description="range of the clipped value loss")
    normalize_obs: bool = Field(False, description="by the running mean and deviation")
    normalize_reward: bool = Field(
        False, description="by the deviation of discounted returns, cut to ±10"
    )
    network: Sizes = Field(
        None, description="hidden layer sizes, as 128,128 [64,64; on a GPU 256,256]"
    )
    activation: Literal["tanh", "relu", "elu", "swish"] = Field(
        "tanh", description="of the hidden layers"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="type to compute in")
    microbatch: int | None = Field(
        None, gt=0, description="rows whose gradient is computed at once; saves memory"
    )


class MarketSettings(Settings):
    """The bars of a trading environment; part of the workload, too."""

    data: DataFile = Field(None, description="CSV of bars [seeded synthetic bars]")
    finer_data: DataFile = Field(
        None, description="CSV of finer bars, for the extremes within a bar of --data"
    )
    market: str = Field("NQ", description="contract: ES, NQ, MES, MNQ, YM or RTY")
    tz: str | None = Field(None, description="time zone of times without one [UTC]")
    bars: int = Field(50_000, ge=1, description="use at most so many bars, the last ones")
    drop_bad_rows: bool = Field(False, description="drop and count bad rows instead of refusing")
    point_value: Positive | None = Field(
        None, description="USD a point of one contract [the market's]"
    )


GROUP_MARK = "@"
"""Between a study's name and that of a group of other hardware, which is a study of its own."""

DATA_FILES = ("data", "finer_data")
"""Settings that are files: their content belongs to the workload, where they lie does not."""


class SpaceSettings(Settings):
    """The configs to choose from, and the one to compare with."""

    num_envs: Choices = Field(None, description="choices, as 512,1024")
    num_steps: Choices = Field(None, description="choices, as 128,256")
    num_minibatches: Choices = Field(None, description="choices, as 4,8")
    num_epochs: Choices = Field(None, description="choices, as 4,8")
    only: Annotated[tuple[HardwareConfig, ...] | None, BeforeValidator(parse.hardware_list)] = (
        Field(None, description="try these combinations alone, as 512,16,8,2;64,64,4,4")
    )
    baseline: Annotated[HardwareConfig | None, BeforeValidator(parse.hardware)] = Field(
        None,
        description="what you run today, as 1024,64,4,4; its learning rate is the first of "
        "several, or a fifth number [64,64,4,4; on a GPU 2048,128,8,4]",
    )
    baseline_replicates: int = Field(3, ge=3, le=20, description="times the baseline is measured")


class StopSettings(Settings):
    """When a study, and when one of its trials, ends."""

    trials: int | None = Field(None, ge=1, description="at most so many trials [the whole space]")
    budget: Budget | None = Field(None, description="wall-clock of this command, as 45m [no limit]")
    timeout: Seconds = Field(300.0, description="of one trial, from request to evaluation")
    patience: int = Field(15, ge=1, description="end after so many trials without a gain")
    min_gain: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="what counts as a gain of the score [ε]"
    )
    until_regret: Share = Field(
        None, description="end when less than this share of the score is left to gain, as 1%"
    )
    min_trials: int = Field(
        20, ge=1, description="neither patience nor a small regret ends a study before so many"
    )


class MeasureSettings(Settings):
    """How a trial is measured, how configs are sampled and how they are scored."""

    env_steps: int | None = Field(
        None, ge=1, description="every trial trains for so many [8 × the largest batch]"
    )
    goal: Literal["composite", "time-to-return"] = Field(
        "composite",
        description="what is maximised; time-to-return: trials train until they reach the target "
        "return, and the sooner the better",
    )
    sampler: Literal["auto", "tpe", "gp", "structured", "grid", "random"] = Field(
        "auto", description="how configs are proposed; gp needs the extra of that name"
    )
    warm_start: Files = Field(
        None,
        description="profiles to begin with: their configs, or the nearest of the space, are the "
        "first trials (repeatable)",
    )
    pruner: Literal["none", "median", "lossless"] = Field(
        "none", description="which trials are cut: weak ones, or those that no profile could be"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler and of the training")
    weights: Annotated[tuple[float, float, float] | None, BeforeValidator(parse.weights)] = Field(
        None,
        description="of utilisation, quality and throughput in the score [GPU: 0.4,0.4,0.2; "
        "CPU: 0.2,0.6,0.2]",
    )
    min_feasible: int = Field(
        3, ge=1, description="fewest feasible configs to export profiles from"
    )
    repeat_disturbed: bool = Field(
        True, description="whether a measurement that something disturbed is made once more"
    )
    probe: bool = Field(
        True, description="whether the device's speed is measured beside what profiles rest on"
    )
    memory_limit: Bytes | None = Field(None, description="lower the memory gate to this, as 2GB")
    reserve: Bytes = Field(0, description="memory to leave for what else will run, as 4GB")


class PlaceSettings(Settings):
    """Where trials are measured, and where things are kept."""

    workers: int = Field(
        1,
        ge=1,
        description="processes that measure at once, each on its own share of the cores; they "
        "share caches and memory bandwidth, so rates are lower than alone",
    )
    devices: Indices = Field(None, description="GPUs to measure on, as 0,1, one worker each")
    storage: str | None = Field(
        None, description="database URL [TUNER_STORAGE, else SQLite in runs/NAME/study.db]"
    )
    runs_dir: Path = Field(Path("runs"), description="folder of all studies")
    cache_dir: Path | None = Field(None, description="of compiled programs [runs/.cache/xla]")

    def folder(self, name: str) -> Path:
        """Return the folder of a study; that of a group is inside its study's."""
        study, _, group = name.partition(GROUP_MARK)
        return self.runs_dir / study / "groups" / group if group else self.runs_dir / name

    def profiles_folder(self, name: str) -> Path:
        """Return where the profiles of a study, or of a group of it, are written."""
        study, _, group = name.partition(GROUP_MARK)
        return self.runs_dir / study / "profiles" / group

    def storage_url(self, name: str) -> str:
        """Return the address of the database that holds a study."""
        if self.storage is not None:
            return self.storage
        from storage.database import sqlite_url  # SQLAlchemy: not for `tuner --help`

        return sqlite_url(self.folder(name.partition(GROUP_MARK)[0]) / "study.db")

    def compilation_cache(self) -> Path:
        """Return the folder of compiled programs, shared by all studies of a runs folder."""
        return self.cache_dir or self.runs_dir / ".cache" / "xla"


class StudyConfig(
    WorkloadSettings, MarketSettings, SpaceSettings, StopSettings, MeasureSettings, PlaceSettings
):
    """All settings of a study. `resolved` fills in what depends on the device."""

    def resolved(self, device_kind: str) -> "StudyConfig":
        """Return this config with the defaults of a `gpu` or a `cpu` filled in."""
        on_gpu = device_kind == "gpu"
        space = GPU_SPACE if on_gpu else CPU_SPACE
        filled: dict[str, Any] = {
            name: getattr(self, name) or self._used(name) or choices
            for name, choices in space.choices().items()
        }
        baseline = self.baseline or (GPU_BASELINE if on_gpu else CPU_BASELINE)
        if self.has_rates and baseline.learning_rate is None:
            baseline = replace(baseline, learning_rate=self.learning_rates[0])
        filled["baseline"] = baseline
        filled["weights"] = self.weights or astuple(Weights() if on_gpu else CPU_WEIGHTS)
        if self.trainer is None:
            filled["network"] = self.network or ((256, 256) if on_gpu else (64, 64))
        if self.env == "stress":
            filled["env_params"] = {"obs_dim": 128 if on_gpu else 32, **self.env_params}
        return self.model_copy(update=filled)

    def space(self) -> SearchSpace:
        """Return the space of a resolved config."""
        choices = {name: getattr(self, name) for name in DIMENSIONS}
        if any(value is None for value in choices.values()):
            raise ValueError("a config must be resolved before its space is known")
        return SearchSpace(
            **choices,
            only=None if self.only is None else frozenset(self.only),
            learning_rate=self.learning_rates if self.has_rates else (),
        )

    def require_configs(self) -> None:
        """Refuse a space without a valid config.

        Raises:
            UsageError: no batch divides into its minibatches.
        """
        if not self.space().configs():
            raise UsageError(
                "the space must have a config whose batch divides into its minibatches, but got "
                "none; choose --num-minibatches that divide num_envs × num_steps"
            )

    def score_weights(self) -> Weights:
        """Return the weights of a resolved config."""
        if self.weights is None:
            raise ValueError("a config must be resolved before its weights are known")
        return Weights(*self.weights)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates to choose from, in the order given: one, unless it is a list."""
        rate = self.learning_rate
        return rate if isinstance(rate, tuple) else (rate,)

    @property
    def has_rates(self) -> bool:
        """Whether each config has a learning rate of its own, as there are several."""
        return len(self.learning_rates) > 1

    def _used(self, dimension: str) -> tuple[int, ...]:
        """Return the choices that the configs of `only` make of a dimension, none without it."""
        return tuple(sorted({getattr(config, dimension) for config in self.only or ()}))

    def workload(self) -> Workload:
        """Return what a child needs to know of a resolved config; of several rates the first."""
        if self.network is None and self.trainer is None:
            raise ValueError("a config must be resolved before its workload is known")
        return Workload(
            env=self.env,
            env_params=self.env_params,
            network=self.network or (),
            activation=self.activation,
            dtype=self.dtype,
            microbatch=self.microbatch,
            hyperparams={name: getattr(self, name) for name in HYPERPARAMS}
            | {"learning_rate": self.learning_rates[0]},
            lr_schedule=self.lr_schedule,
            lr_anneal_env_steps=self.lr_anneal_env_steps,
            normalize_obs=self.normalize_obs,
            normalize_reward=self.normalize_reward,
            clip_value_loss=self.clip_value_loss,
            trainer=self.trainer,
            market=self.market_source(),
        )

    def workload_for(self, hardware: HardwareConfig) -> Workload:
        """Return the workload at the learning rate that a config trains with."""
        workload, rate = self.workload(), self.learning_rate_for(hardware)
        return replace(workload, hyperparams={**workload.hyperparams, "learning_rate": rate})

    def market_source(self) -> dict[str, Any] | None:
        """Return the fields of `envs.bars.MarketSource`; None unless the environment has bars."""
        if self.phase is None:
            return None
        return self.model_dump(mode="json", include=set(MarketSettings.model_fields))

    def learning_rate_for(self, config: HardwareConfig) -> float:
        """Return the learning rate that a config trains with, after `lr_scaling`.

        `sqrt` multiplies by √(minibatch / the baseline's), the rule for Adam (arXiv 2205.10287).
        """
        rate = self.learning_rates[0] if config.learning_rate is None else config.learning_rate
        return float(rate * self.lr_scale(config))

    def lr_scale(self, config: HardwareConfig) -> float:
        """Return by what `lr_scaling` multiplies the learning rate of a config."""
        if self.lr_scaling == "none" or self.baseline is None:
            return 1.0
        return float((config.minibatch_size / self.baseline.minibatch_size) ** 0.5)

    def as_data(self) -> dict[str, Any]:
        """Return the settings as plain data that `load_config` takes, no password in it."""
        data = self.model_dump(mode="json")
        if self.baseline is not None:
            data["baseline"] = list(self.baseline.params().values())
        if self.only is not None:
            data["only"] = [list(config.params().values()) for config in self.only]
        if self.storage is not None:
            from storage.database import hide_password

            data["storage"] = hide_password(self.storage)
        return data

    def as_yaml(self) -> str:
        """Return the settings as the text of a `study.yaml`, no password in it."""
        return yaml.safe_dump(self.as_data(), sort_keys=False, allow_unicode=True)


HYPERPARAMS = (
    "learning_rate",
    "gamma",
    "gae_lambda",
    "clip_eps",
    "ent_coef",
    "vf_coef",
    "max_grad_norm",
    "adam_eps",
    "vf_clip_eps",
)


def flag(name: str) -> str:
    """Return the flag of a setting: `num_envs` is `--num-envs`."""
    if name == "env_params":
        return "--env-param"
    return "--" + name.replace("_", "-")
