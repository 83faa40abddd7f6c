"""What a workload is: which settings make one, what a profile says of it, and the way back.

Apart from the profiles because those who read one (`validate`, the benchmarks) need both
directions, and must agree with those who write one to the last field.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.contracts import contract_of
from envs.names import is_factory, parse, require_own_module
from storage.profile import Profile
from tuner.config import DATA_FILES, HYPERPARAMS, MarketSettings, StudyConfig, flag
from tuner.data_files import data_facts, refuse_other_data
from tuner.errors import Refused, UsageError
from tuner.goal import TIME_TO_RETURN
from tuner.settings import load_config
from tuner.space import HardwareConfig

REQUIRED = ("env", "env_params", "network", "activation", "dtype", "microbatch")
OPTIONAL = (
    "lr_schedule",
    "lr_anneal_env_steps",
    "normalize_obs",
    "normalize_reward",
    "clip_value_loss",
)
"""Settings that a profile need not name: it was then measured with their defaults, in effect."""
FORMER = {"adam_eps": 1e-5}
"""What a profile was measured with that does not name a scalar, where that is no default now."""
PPO_BUILD = (*REQUIRED[2:], *OPTIONAL)
"""What our PPO is built with, beside its scalars; a trainer of the user's has none of it."""
PPO_SETTINGS = (*PPO_BUILD, *HYPERPARAMS)


def require_named_code(
    config: StudyConfig, flags: Mapping[str, object], source: Path | str
) -> None:
    """Require code of the user's to be named by a flag: settings may come from anyone.

    Args:
        config: the settings, flags included.
        flags: those given on the command line.
        source: where the other settings come from, a file or a study.

    Raises:
        UsageError: the source alone names it.
    """
    for name in ("env", "trainer"):
        named = getattr(config, name)
        if named is not None and is_factory(named) and flags.get(name) is None:
            raise UsageError(
                f"{flag(name)} must name code of your own on the command line, but got {named} "
                f"from {source}, which alone may not run it; add {flag(name)} {named}"
            )


def require_sound(config: StudyConfig) -> None:
    """Require names that can exist, and no setting that would have no effect.

    Raises:
        UsageError: the environment or the trainer cannot exist, or a flag belongs to another one.
    """
    try:
        kind = parse(config.env).kind
    except ValueError as error:
        raise UsageError(f"--env: {error}") from None
    _require_bars_are_used(config, has_bars=kind == "trading")
    _require_rates_are_listed(config)
    if (
        config.goal == TIME_TO_RETURN
        and config.lr_schedule == "linear"
        and config.lr_anneal_env_steps is None
    ):
        raise UsageError(
            f"--goal {TIME_TO_RETURN} must know where a linear learning rate reaches 0, as trials "
            "have no common end, but got none; add --lr-anneal-env-steps"
        )
    if config.trainer is None:
        return
    if not is_factory(config.trainer):
        raise UsageError(
            f"--trainer must have the form package.module:factory, but got {config.trainer!r}; "
            "see examples/my_trainer.py"
        )
    try:
        require_own_module(config.trainer)
    except ValueError as error:
        raise UsageError(f"--trainer: {error}") from None
    for name in (*PPO_SETTINGS, "lr_scaling"):
        if getattr(config, name) != StudyConfig.model_fields[name].default:
            raise UsageError(
                f"{flag(name)} must be left out with a trainer of your own, which it would not "
                f"reach, but got {getattr(config, name)}; set it inside {config.trainer}"
            )


def _require_rates_are_listed(config: StudyConfig) -> None:
    """Require several learning rates where a config names its own, and those of --only among them.

    The baseline may have another, as it may lie outside the space.
    """
    named = {"baseline": [config.baseline], "only": config.only or ()}
    for name, configs in named.items():
        for rate in (c.learning_rate for c in configs if c and c.learning_rate is not None):
            if not config.has_rates:
                raise UsageError(
                    f"{flag(name)} may have a learning rate where --learning-rate lists several, "
                    f"but got {rate:g} and one; give --learning-rate {rate:g} or add it to a list"
                )
            if name == "only" and rate not in config.learning_rates:
                listed = ",".join(f"{listed:g}" for listed in config.learning_rates)
                raise UsageError(
                    f"--only must have learning rates of --learning-rate, but got {rate:g}, which "
                    f"is none of {listed}; add it there"
                )


def _require_bars_are_used(config: StudyConfig, *, has_bars: bool) -> None:
    given = [
        name
        for name, field in MarketSettings.model_fields.items()
        if getattr(config, name) != field.default
    ]
    if given and not has_bars:
        raise UsageError(
            f"{flag(given[0])} must go with a trading environment, but got --env {config.env}; add "
            "--phase 1 or leave it out"
        )
    for name in ("finer_data", "tz", "drop_bad_rows"):
        if name in given and config.data is None:
            raise UsageError(f"{flag(name)} must go with --data, but got none; add --data FILE.csv")
    if has_bars:
        try:
            contract_of(config.market, config.point_value)
        except ValueError as error:
            raise UsageError(str(error)) from None


def workload_facts(
    config: StudyConfig, environment: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a profile's `workload`, with a hash that leaves out the seed and where data lie.

    Args:
        config: the study's settings.
        environment: `obs_shape` and `num_actions`, as the environment itself told them.
        data: what `data_facts` returned when the study began.
    """
    workload = config.workload()
    is_ppo = workload.trainer is None
    facts: dict[str, Any] = {
        "env": workload.env,
        "env_params": dict(workload.env_params),
        "trainer": workload.trainer,
        "data": data.get("data"),
        "ppo": dict(workload.hyperparams) if is_ppo else None,
        **{name: _plain(getattr(workload, name)) if is_ppo else None for name in PPO_BUILD},
        **environment,
    }
    if workload.market is not None:
        facts["market"] = {**workload.market, **{name: data.get(name) for name in DATA_FILES}}
        del facts["market"]["data"]
    return facts | {"hash": workload_hash(facts)}


def workload_hash(facts: Mapping[str, Any]) -> str:
    """Return the hash of everything in `facts` but the hash itself and the paths of data files."""
    hashed = {name: value for name, value in facts.items() if name != "hash"}
    hashed["data"] = _without_path(hashed.get("data"))
    if isinstance(market := hashed.get("market"), Mapping):
        hashed["market"] = {**market, "finer_data": _without_path(market.get("finer_data"))}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]


def config_of(profile: Profile, given: Mapping[str, object]) -> StudyConfig:
    """Return the settings that a profile was measured with; its learning rate is the effective one.

    Args:
        profile: from a file.
        given: `runs_dir`, `cache_dir`, `timeout` and other settings that no workload holds, and
            `env`, `trainer` and `data` as the user named them. Code of the user's is run only if
            the user names it here: a profile may come from anywhere.

    Raises:
        UsageError: the profile does not name its workload, or code that it may not run.
        Refused: the workload or its learning rate was changed since it was measured.
    """
    facts = profile.workload
    trainer = facts.get("trainer")
    required = (*REQUIRED, "ppo", "hash") if trainer is None else ("env", "env_params", "hash")
    missing = [key for key in required if key not in facts]
    if missing or not isinstance(facts.get("ppo"), Mapping if trainer is None else object):
        raise UsageError(
            f"a profile must name its workload to be measured again, but {profile.profile} lacks "
            f"{', '.join(missing) or 'the scalars of ppo'}; export it anew"
        )
    if workload_hash(facts) != facts["hash"]:
        raise Refused(
            f"the workload must be the one that was measured, whose hash is {facts['hash']}, but "
            f"got one of hash {workload_hash(facts)}: it was edited; tune the new one instead"
        )
    for what in ("env", "trainer"):
        _require_named(what, facts.get(what), given.get(what))
    settings = {"env": facts["env"], "env_params": facts["env_params"], "trainer": trainer}
    settings |= market_settings(facts)
    if trainer is None:
        _refuse_edited_rate(profile)
        settings |= ppo_settings(profile)
    flags = {name: value for name, value in given.items() if name not in ("env", "trainer")}
    config = load_config(settings, flags).resolved(profile.device or "cpu")
    require_sound(config)
    stored = {"data": facts.get("data"), **(facts.get("market") or {})}
    refuse_other_data(
        stored, data_facts(config), "a profile", "give --data the file that it was tuned on"
    )
    return config


def _require_named(what: str, measured: Any, named: object) -> None:
    """Require code of the user's, and nothing else, to be named beside a profile.

    Raises:
        UsageError: it is not named, or another one is.
    """
    if named == measured or (named is None and not is_factory(str(measured))):
        return
    remedy = "leave it out"
    if measured is not None and is_factory(str(measured)):
        remedy = "a profile alone may not run code: name it yourself"
    raise UsageError(
        f"--{what} must be {measured or 'left out'}, as the profile was measured, but got "
        f"{named or 'none'}; {remedy}"
    )


def market_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the bars that a profile was measured on.

    Raises:
        UsageError: they are no settings of bars.
    """
    market = facts.get("market") or {}
    files = {"data": facts.get("data")}
    if isinstance(market, Mapping):
        files["finer_data"] = market.get("finer_data")
    paths = {name: _path_of(file) for name, file in files.items() if file is not None}
    if not isinstance(market, Mapping) or None in paths.values():
        raise UsageError(
            "the bars of a profile must be keys and values, with files of a path and a sha256, but "
            "got others; export it anew"
        )
    unknown = [name for name in market if name not in MarketSettings.model_fields]
    if unknown:
        raise UsageError(
            f"the bars of a profile must have known settings only, but got {', '.join(unknown)}; "
            "export it anew"
        )
    return {**market, "finer_data": None, **paths}


def _path_of(file: Any) -> str | None:
    """Return where a data file of a profile was, None if that is no path."""
    path = file.get("path") if isinstance(file, Mapping) and "sha256" in file else None
    return path if isinstance(path, str) and "\0" not in path else None


def ppo_settings(profile: Profile) -> dict[str, Any]:
    """Return the settings of PPO that a profile was measured with; its rate is the effective one.

    Raises:
        UsageError: it lacks a learning rate, or names scalars that PPO does not have.
    """
    facts = profile.workload
    scalars = facts.get("ppo") or {}
    unknown = [name for name in scalars if name not in HYPERPARAMS]
    if unknown or profile.learning_rate is None:
        raise UsageError(
            f"a profile must hold a learning rate and PPO's scalars only, but got "
            f"{', '.join(unknown) or 'no learning_rate'}; export it anew"
        )
    return {
        **{name: facts[name] for name in PPO_BUILD if name in facts},
        **({} if facts.get("ppo") is None else FORMER),
        **scalars,
        "learning_rate": profile.learning_rate,
    }


def edited_rate(profile: Profile) -> float | None:
    """Return the learning rate that a profile was measured with, where it now holds another."""
    measured = measured_rate(profile)
    is_edited = profile.lr_scaling in (None, "none") and measured != profile.learning_rate
    return measured if is_edited else None


def measured_rate(profile: Profile) -> float | None:
    """Return the learning rate of a profile's workload: its study's, or which of several."""
    scalars = profile.workload.get("ppo")
    if not isinstance(scalars, Mapping):
        return profile.learning_rate
    rate: float | None = scalars.get("learning_rate", profile.learning_rate)
    return rate


def is_of(profile: Profile, config: HardwareConfig) -> bool:
    """Whether a profile is of this config of its study."""
    rates = (None, measured_rate(profile))
    return hardware_config(profile) == config.shape and config.learning_rate in rates


def _refuse_edited_rate(profile: Profile) -> None:
    measured = edited_rate(profile)
    if measured is not None:
        raise Refused(
            f"the learning rate must be the one that was measured, {measured}, but got "
            f"{profile.learning_rate}: it was edited; tune the new one instead"
        )


def _plain(value: Any) -> Any:
    """Return a value as YAML and JSON have it."""
    return list(value) if isinstance(value, tuple) else value


def _without_path(file: Any) -> Any:
    """Return what is known of a data file but where it lies."""
    if not isinstance(file, Mapping):
        return file
    return {name: value for name, value in file.items() if name != "path"}


def hardware_config(profile: Profile) -> HardwareConfig:
    """Return the four numbers of a profile."""
    return HardwareConfig(
        profile.num_envs, profile.num_steps, profile.num_minibatches, profile.num_epochs
    )
