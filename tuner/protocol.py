"""What the command-line process and the trial process say to each other.

Requests go down the child's stdin, events come up a pipe of their own, both as JSON lines, so that
nothing a library prints can be taken for an answer. Apart from both sides because both import it:
standard library only, and no jax.

A child answers `probe`, `peaks`, `preflight`, `random`, `fit`, `memory` and `target` requests as
often as it is asked, and ends after one `train` or `checkpointed`. Its events for `train`, in this
order:

    ready       imports are done; the device is not open yet
    started     the device is open: what it is; what the environment is
    compiled    seconds, cache hit or not, predicted memory; the work in one update
    refused     (instead of all that follows) the prediction is over the limit
    warm        one update was run and thrown away; the measuring window opens
    block       a timed block ended: env-steps so far, seconds, reduced training metrics
    measured    the window has closed: peak memory, recompilations, the probe if asked for
    done        the policy was evaluated, as it was at each milestone and at the end; or training
                was stopped on request
    error       an exception ended the trial: its type and text
    rejected    the request itself is at fault (unknown environment parameter, …)

A `checkpointed` request is answered by `started`, `refused`, `done`, `error`, `rejected`, and by

    fitted      compiled, for these numbers: seconds, predicted memory
    stepped     the config does not fit in memory: how many environments are tried next
    restored    a checkpoint was read: its update, and those that could not be
    trained     a block ended: update and env-steps so far, seconds, reduced training metrics
    saved       a checkpoint is on the disk: its update
    diverged    (instead of `done`) a loss is not finite
    disk        (instead of `done`) a file could not be written: why
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MILESTONES = (0.25, 0.5, 0.75)
"""Shares of the budget at which training is looked at, beside its end."""

EnvParams = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained, apart from the four numbers: environment, network, algorithm.

    `lr_anneal_env_steps` is where a linear `lr_schedule` reaches 0; None for the env-steps of the
    trial. `trainer` is the user's own, `package.module:factory`, which trains in place of PPO and
    knows nothing of the network and the scalars. `market` holds the fields of
    `envs.bars.MarketSource`, None for environments without bars.
    """

    env: str
    env_params: EnvParams
    network: tuple[int, ...]
    activation: Literal["tanh", "relu", "elu", "swish"]
    dtype: Literal["float32", "bfloat16"]
    microbatch: int | None
    hyperparams: dict[str, float]
    lr_schedule: Literal["constant", "linear"] = "constant"
    lr_anneal_env_steps: int | None = None
    normalize_obs: bool = False
    normalize_reward: bool = False
    clip_value_loss: bool = False
    trainer: str | None = None
    market: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """One trial: what to train, on how many env-steps, and how much memory it may take.

    With `until_return` it trains past or short of the env-steps: until a block returns so much on
    average, or `training_s` seconds have passed since the request was read. With `is_timed_only` it
    runs no longer than its throughput takes to be known, learns nothing that counts and is not
    evaluated. With `at_milestones` the policy is evaluated as it was there, too.

    `memory_limit_bytes` lowers the gate below what the device itself gives; `reserve_bytes` is
    left free for others. With `probe` the device's reach is measured right after the window.
    `fault` is set by tests alone (see `tuner.child.faults`).
    """

    workload: Workload
    hardware: dict[str, int]
    seed: int
    env_steps: int
    cache_dir: str
    until_return: float | None = None
    training_s: float | None = None
    is_timed_only: bool = False
    at_milestones: bool = False
    memory_limit_bytes: int | None = None
    reserve_bytes: int = 0
    probe: bool = False
    fault: str | None = None
    kind: str = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointedRequest:
    """A training that is kept: to the user's own total, with checkpoints, perhaps gone on with.

    `hardware` is stepped down to fewer environments where it does not fit, unless it
    `is_resumed`: its state then has the shapes that it has. A block holds about
    `block_env_steps`, and exactly `updates_per_block` updates where that is given. `facts` are
    written to `folder` beside what the training became, for whoever resumes it.
    """

    workload: Workload
    hardware: dict[str, int]
    seed: int
    total_steps: int
    block_env_steps: float
    updates_per_block: int | None
    folder: str
    facts: dict[str, Any]
    is_resumed: bool
    checkpoint_every_s: float
    keep_checkpoints: int
    cache_dir: str
    memory_limit_bytes: int | None = None
    reserve_bytes: int = 0
    kind: str = "checkpointed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """What is the device, and what are the versions?"""

    kind: str = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeaksRequest:
    """What does the device reach: arithmetic, memory, launches? It must be idle."""

    cache_dir: str
    kind: str = "peaks"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightRequest:
    """Can the environment and the update of every one of these configs be traced?"""

    workload: Workload
    configs: tuple[dict[str, int], ...]
    cache_dir: str
    kind: str = "preflight"


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomRequest:
    """What does a policy return that draws uniformly among the allowed actions?"""

    workload: Workload
    seeds: tuple[int, ...]
    cache_dir: str
    kind: str = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """Which is the first of these configs (largest batch first) whose program fits in memory?"""

    workload: Workload
    candidates: tuple[dict[str, int], ...]
    cache_dir: str
    memory_limit_bytes: int | None = None
    reserve_bytes: int = 0
    kind: str = "fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRequest:
    """What memory does the compiled update of a config take? Nothing is allocated.

    `target` is the description of a GPU that is not here (see `tuner.targets`), None for the
    device at hand. With `written_for`, the update is written for that platform (`cuda`), whatever
    it is compiled for: the CPU's own takes less memory than the one a GPU would run.
    `programs_dir` keeps what is known, by program.
    """

    workload: Workload
    hardware: dict[str, int]
    cache_dir: str
    programs_dir: str
    target: str | None = None
    written_for: str | None = None
    kind: str = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRequest:
    """Does the compiler take this description of a GPU?"""

    target: str
    kind: str = "target"


Question = (
    ProbeRequest
    | PeaksRequest
    | PreflightRequest
    | RandomRequest
    | FitRequest
    | MemoryRequest
    | TargetRequest
)
Request = TrainRequest | CheckpointedRequest | Question


@dataclass(frozen=True, slots=True)
class Event:
    """One answer of the child; `t` is its monotonic clock in seconds, common to both processes."""

    name: str
    t: float
    data: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the event as one line of JSON."""
        text = json.dumps({"event": self.name, "t": self.t, **_finite(self.data)}, allow_nan=False)
        return text.encode() + b"\n"


def event(name: str, **data: Any) -> Event:
    """Return an event stamped with the present monotonic time."""
    return Event(name, time.monotonic(), data)


FIELDS: dict[str, tuple[str, ...]] = {
    "ready": (),
    "started": ("platform", "device_kind"),
    "compiled": ("lower_s", "compile_s", "cached", "predicted_bytes", "limit_bytes", "flops",
                 "bytes", "kernels", "work_is_lower_bound"),
    "refused": ("predicted_bytes", "limit_bytes"),
    "warm": ("seconds",),
    "block": ("block", "env_steps", "block_env_steps", "seconds", "metrics", "learning",
              "threads", "held_bytes", "resident_bytes"),
    "measured": ("peak_bytes", "memory_source", "recompiles", "env_steps", "probe"),
    "done": ("stopped",),
    "error": ("type", "text"),
    "rejected": ("type", "text"),
    "probed": ("platform", "device_kind", "versions"),
    "peaks": (),
    "traced": ("traced", "seconds"),
    "random": ("returns",),
    "fits": ("hardware", "limit_bytes", "tried"),
    "analysed": ("hardware", "failed"),
    "described": ("device",),
    "fitted": ("hardware", "compile_s", "predicted_bytes", "limit_bytes"),
    "stepped": ("num_envs", "predicted_bytes", "limit_bytes"),
    "restored": ("update", "unread"),
    "trained": ("update", "env_steps", "block_env_steps", "seconds", "metrics"),
    "saved": ("update",),
    "diverged": ("names", "env_steps"),
    "disk": ("text",),
}  # fmt: skip
"""Every event, and what it must say for the parent to use it."""

LAST = ("done", "refused", "error", "rejected", "diverged", "disk")
"""Events after which nothing more is to come of a trial."""


def parse_event(line: bytes) -> Event:
    """Return the event in a line of JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        data = json.loads(line)
        name, t = data.pop("event"), float(data.pop("t"))
        missing = set(FIELDS[name]) - set(data)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a line must hold an event, but got {line[:80]!r}") from error
    if missing or not math.isfinite(t):
        raise ValueError(f"the event {name} must say {FIELDS[name]}, but got {line[:80]!r}")
    return Event(name, t, data)


def request_line(request: Request | dict[str, str]) -> bytes:
    """Return a request as one line of JSON."""
    data = request if isinstance(request, dict) else asdict(request)
    return json.dumps(data).encode() + b"\n"


def parse_request(data: dict[str, Any]) -> Request:
    """Return the typed request that a parsed line holds."""
    kinds: dict[str, type[Any]] = {
        "train": TrainRequest,
        "checkpointed": CheckpointedRequest,
        "probe": ProbeRequest,
        "peaks": PeaksRequest,
        "preflight": PreflightRequest,
        "random": RandomRequest,
        "fit": FitRequest,
        "memory": MemoryRequest,
        "target": TargetRequest,
    }
    if "workload" in data:
        workload = data["workload"]
        workload["network"] = tuple(workload["network"])
        data["workload"] = Workload(**workload)
    request: Request = kinds[data["kind"]](**data)
    return request


STOP: dict[str, str] = {"kind": "stop"}
"""Asks a training child to end after its present block."""


def _finite(value: Any) -> Any:
    """Replace floats that JSON has no name for by None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
