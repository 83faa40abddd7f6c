"""What a profile says of its workload, and the settings that train the same workload again.

Apart from the profiles because those who read one (`validate`, the benchmarks) need both
directions, and must agree with those who write one to the last field.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from storage.profile import Profile
from tuner.config import HYPERPARAMS, StudyConfig, load_config
from tuner.errors import Refused, UsageError
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
SETTINGS = (*REQUIRED, *OPTIONAL)


def workload_facts(config: StudyConfig, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile's `workload`, with a hash that leaves the seed out.

    Args:
        config: the study's settings.
        environment: `obs_shape` and `num_actions`, as the environment itself told them.
    """
    workload = config.workload()
    facts: dict[str, Any] = {
        "env": workload.env,
        "env_params": dict(workload.env_params),
        "trainer": None,
        "data": None,
        "ppo": dict(workload.hyperparams),
        "network": list(workload.network),
        "activation": workload.activation,
        "dtype": workload.dtype,
        "microbatch": workload.microbatch,
        **{name: getattr(workload, name) for name in OPTIONAL},
        **environment,
    }
    return facts | {"hash": workload_hash(facts)}


def workload_hash(facts: Mapping[str, Any]) -> str:
    """Return the hash of everything in `facts` but the hash itself."""
    hashed = {name: value for name, value in facts.items() if name != "hash"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]


def config_of(profile: Profile, places: Mapping[str, object]) -> StudyConfig:
    """Return the settings that a profile was measured with; its learning rate is the effective one.

    Args:
        profile: from a file.
        places: `runs_dir`, `cache_dir`, `timeout` and other settings that no workload holds.

    Raises:
        UsageError: the profile does not name its workload.
        Refused: the workload or its learning rate was changed since it was measured.
    """
    facts = profile.workload
    missing = [key for key in (*REQUIRED, "ppo", "hash") if key not in facts]
    if missing or not isinstance(facts.get("ppo"), Mapping):
        raise UsageError(
            f"a profile must name its workload to be measured again, but {profile.profile} lacks "
            f"{', '.join(missing) or 'the scalars of ppo'}; export it anew"
        )
    if workload_hash(facts) != facts["hash"]:
        raise Refused(
            f"the workload must be the one that was measured, whose hash is {facts['hash']}, but "
            f"got one of hash {workload_hash(facts)}: it was edited; tune the new one instead"
        )
    for what in ("trainer", "data"):
        if facts.get(what) is not None:
            raise Refused(
                f"a workload must train our PPO on a built-in environment to be measured again, "
                f"but got {what} {facts[what]!r}; run it where it was tuned"
            )
    unknown = [name for name in facts["ppo"] if name not in HYPERPARAMS]
    if unknown or profile.learning_rate is None:
        raise UsageError(
            f"a profile must hold a learning rate and PPO's scalars only, but got "
            f"{', '.join(unknown) or 'no learning_rate'}; export it anew"
        )
    measured_rate = facts["ppo"].get("learning_rate", profile.learning_rate)
    if profile.lr_scaling in (None, "none") and measured_rate != profile.learning_rate:
        raise Refused(
            f"the learning rate must be the one that was measured, {measured_rate}, but got "
            f"{profile.learning_rate}: it was edited; tune the new one instead"
        )
    settings = {
        **{name: facts[name] for name in SETTINGS if name in facts},
        **facts["ppo"],
        "learning_rate": profile.learning_rate,
    }
    return load_config(settings, places).resolved(profile.device or "cpu")


def hardware_config(profile: Profile) -> HardwareConfig:
    """Return the four numbers of a profile."""
    return HardwareConfig(
        profile.num_envs, profile.num_steps, profile.num_minibatches, profile.num_epochs
    )
