"""What a study would try and what each config would take, with nothing run and nothing allocated.

For the device at hand, or for GPUs that are not here (`tuner.targets`). What fits is judged by the
same gate as in a study.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tuner.bench import QUESTION_S, Say
from tuner.compiling import (
    PACKAGES,
    Compiler,
    Compilers,
    Job,
    ProgramCache,
    package_versions,
)
from tuner.config import StudyConfig
from tuner.data_files import data_facts
from tuner.devices.base import SharedDevice
from tuner.devices.cpu import memory_available_bytes
from tuner.devices.detect import open_device
from tuner.errors import UsageError
from tuner.footprint import Footprint, Program, Row, footprint
from tuner.gate import GATE, allocator_share, allowed_bytes
from tuner.interrupts import Interrupts
from tuner.protocol import ProbeRequest, TargetRequest
from tuner.space import HardwareConfig
from tuner.targets.table import Target
from tuner.targets.toolchain import PLUGINS, find_toolchain

QUIET = {"JAX_PLATFORMS": "cpu"}
NO_POOL = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""On a GPU: leave the memory of the device to whoever measures there."""

STOPPING = ("what has been compiled is kept", "stopping")

Method = Literal["device", "target", "cpu estimate"]
USUAL_S: dict[Method, float] = {"device": 6.0, "target": 20.0, "cpu estimate": 6.0}
"""CPU-seconds of one program, as on the two cores of `benchmarks/results` (plan.txt there)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """Where a study would run: the device at hand, or a target.

    `limit_bytes` is what the gate allows (None where nothing tells), `limit` says how it comes
    about. `method` is what the programs were compiled for.
    """

    name: str
    kind: str
    memory_bytes: int | None
    limit_bytes: int | None
    limit: str
    method: Method
    source: str | None
    compiler: Compiler


@dataclass(slots=True)
class Plan:
    """The memory of every config in one place, and what finding it took.

    Configs are the four numbers: a learning rate changes neither memory nor program.
    """

    place: PlannedDevice
    config: StudyConfig
    configs: list[HardwareConfig]
    known: dict[HardwareConfig, Program] = field(default_factory=dict)
    footprint: Footprint = field(default_factory=Footprint)
    compiled: int = 0
    compile_s: float = 0.0

    @property
    def rows(self) -> dict[HardwareConfig, Row]:
        """The memory of every config."""
        return self.footprint.rows

    def fits(self, row: Row) -> bool | None:
        """Return whether a config passes the gate, None where that cannot be told."""
        if row.bytes is None or self.place.limit_bytes is None:
            return None
        return row.bytes <= self.place.limit_bytes

    def num_runs(self) -> int:
        """Return how many configs would run, each learning rate counted."""
        tried = self.config.space().configs()
        return sum(self.fits(self.rows[config.shape]) is not False for config in tried)

    def largest(self) -> HardwareConfig | None:
        """Return the config of the largest batch that fits, with the least memory of those."""
        fitting = [(c.batch_size, -(row.bytes or 0), c) for c, row in self.rows.items()
                   if self.fits(row)]  # fmt: skip
        return max(fitting, key=lambda found: found[:2])[2] if fitting else None

    def wanted(self) -> set[HardwareConfig]:
        """Find out anew what the known programs tell, and return what must still be compiled."""
        of_ppo = self.config.trainer is None
        self.footprint = footprint(self.configs, self.known, of_ppo=of_ppo)
        return self.footprint.wanted


def plan(config: StudyConfig, targets: Sequence[Target], *, say: Say) -> list[Plan]:
    """Return a plan for the device at hand, or one for each target.

    Args:
        config: settings as for `tuner start`; not resolved.
        targets: GPUs that are not here; none for the device at hand.
        say: tells the user a line.

    Raises:
        UsageError: a setting, the environment, the trainer or a target is at fault.
        KeyboardInterrupt: the user stopped it; what was compiled is kept for the next time.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as logs, Interrupts(*STOPPING) as interrupts:
        most = None if targets else _children_here()
        timeout_s = max(config.timeout, QUESTION_S)
        with Compilers(Path(logs), interrupts, timeout_s=timeout_s, most=most) as compilers:
            if targets:
                config = config.resolved("gpu")
                places = [_place_of(target, config, compilers) for target in targets]
            else:
                config, here = _place_here(config, compilers)
                places = [here]
            plans = [Plan(place, config, config.space().shapes()) for place in places]
            config.require_configs()
            _fill(plans, compilers, say)
    say(f"planned in {time.monotonic() - started:.0f} s")
    return plans


def _fill(plans: Sequence[Plan], compilers: Compilers, say: Say) -> None:
    """Compile what the plans want until they want nothing more."""
    config = plans[0].config
    cache_dir = config.compilation_cache().resolve()
    workload = config.workload()
    cache = ProgramCache(cache_dir.parent / "programs", workload, data_facts(config))
    progress = _Progress(sum(len(one.configs) for one in plans), compilers.width, say)
    while True:
        jobs: list[tuple[Plan, Job]] = []
        found = False
        for one in plans:
            for wanted in sorted(
                one.wanted(), key=lambda c: (-c.batch_size, *c.as_dict().values())
            ):
                job = Job(one.place.compiler, wanted)
                program = cache.get(job)
                if program is None:
                    jobs.append((one, job))
                else:
                    one.known[wanted], found = program, True
        if not jobs and not found:
            return
        of = {id(job): one for one, job in jobs}

        def on_answer(job: Job, program: Program, seconds: float, of: dict[int, Plan] = of) -> None:
            one = of[id(job)]
            one.known[job.config] = program
            one.compiled, one.compile_s = one.compiled + 1, one.compile_s + seconds
            cache.put(job, program)
            progress.tell(one, job, program, seconds)

        progress.begin([one for one, _ in jobs])
        compilers.run(
            [job for _, job in jobs], lambda job: cache.request(job, cache_dir), on_answer
        )


class _Progress:
    """Tells how far compiling is, and how long it will take."""

    def __init__(self, num_configs: int, width: int, say: Say) -> None:
        self._num_configs, self._width, self._say = num_configs, width, say
        self._done = self._jobs = 0
        self._seconds = 0.0

    def begin(self, jobs: Sequence[Plan]) -> None:
        """Begin a round, of one job for each of these plans; a second one is rare."""
        if not jobs:
            return
        self._jobs += len(jobs)
        usual_s = sum(USUAL_S[one.place.method] for one in jobs) / self._width
        self._say(
            f"compiling {len(jobs)} programs for {self._num_configs} configs, {self._width} at a "
            f"time: about {usual_s / 60:.1f} min if this machine is as quick as usual; the first "
            "will tell"
        )

    def tell(self, one: Plan, job: Job, program: Program, seconds: float) -> None:
        """Tell of one program."""
        self._done += 1
        self._seconds += seconds
        left_s = (self._jobs - self._done) * self._seconds / self._done / self._width
        what = program.failed or f"{(program.predicted_bytes or 0) / 1e9:.3g} GB"
        self._say(
            f"  {one.place.name} {job.config}: {what} ({seconds:.0f} s); "
            f"{self._done} of {self._jobs} compiled, about {left_s / 60:.1f} min left"
        )


def _children_here() -> int | None:
    """Return how many children may open the device at hand: one, if it is a GPU."""
    device = open_device()
    try:
        return None if device.info().kind == "cpu" else 1
    finally:
        device.close()


def _place_here(config: StudyConfig, compilers: Compilers) -> tuple[StudyConfig, PlannedDevice]:
    """Return the resolved config, and the device that jax computes on."""
    compiler = Compiler(python=sys.executable, variables=NO_POOL, identity=())
    probed = compilers.ask(compiler, ProbeRequest()).data
    kind = "cpu" if probed["platform"] == "cpu" else "gpu"
    config = config.resolved(kind)
    device = open_device()
    try:
        info = device.info()
        held = 0
        if isinstance(device, SharedDevice):
            device.watch(None)
            held = device.memory_of_others_bytes() or 0
    finally:
        device.close()
    free = memory_available_bytes() if kind == "cpu" else probed["bytes_limit"]
    of = "the memory available now" if kind == "cpu" else "what jax's allocator may use"
    name = info.name if info.kind == kind else probed["device_kind"]
    identity = (probed["platform"], name, *package_versions((*PACKAGES, *PLUGINS)))
    return config, PlannedDevice(
        name=name,
        kind=kind,
        memory_bytes=info.memory_bytes,
        limit_bytes=allowed_bytes(
            free, lowered_to=config.memory_limit, reserve=config.reserve + held
        ),
        limit=_limit_words(f"{GATE:g} × {of}", config),
        method="device",
        source=None,
        compiler=Compiler(python=sys.executable, variables=NO_POOL, identity=identity, name=name),
    )


def _place_of(target: Target, config: StudyConfig, compilers: Compilers) -> PlannedDevice:
    """Return a target, with the compiler for it or, where that is not installed, the CPU's."""
    toolchain = find_toolchain()
    packages = package_versions()
    if toolchain is None:
        method: Method = "cpu estimate"
        compiler = Compiler(
            python=sys.executable,
            variables=QUIET,
            identity=("cpu for cuda", *packages),
            written_for="cuda",
            name=target.name,
        )
    else:
        method = "target"
        compiler = Compiler(
            python=toolchain.python,
            variables=QUIET,
            identity=(*packages, *toolchain.versions),
            target=target.description,
            name=target.name,
        )
        if not target.is_known:
            _require_parsed(target, compiler, compilers)
    if target.memory_bytes is None:
        raise UsageError(
            f"--target-file must give its device_memory_size, but got {target.source} without one; "
            "`tuner targets --json` shows those of known GPUs"
        )
    share = allocator_share()
    return PlannedDevice(
        name=target.name,
        kind="gpu",
        memory_bytes=target.memory_bytes,
        limit_bytes=allowed_bytes(
            int(share * target.memory_bytes), lowered_to=config.memory_limit, reserve=config.reserve
        ),
        limit=_limit_words(
            f"{GATE:g} × {share:g} (jax's share) × {target.memory_bytes / 1e9:.4g} GB", config
        ),
        method=method,
        source=target.source,
        compiler=compiler,
    )


def _require_parsed(target: Target, compiler: Compiler, compilers: Compilers) -> None:
    """Require that XLA takes the description of a target, and name its file where it does not."""
    try:
        compilers.ask(compiler, TargetRequest(target=target.description))
    except UsageError as error:
        raise UsageError(f"{target.source}: {error}") from None


def _limit_words(rule: str, config: StudyConfig) -> str:
    """Return how a limit comes about."""
    words = rule
    if config.reserve:
        words += f" − {config.reserve / 1e9:.4g} GB (--reserve)"
    if config.memory_limit is not None:
        words += f", at most {config.memory_limit / 1e9:.4g} GB (--memory-limit)"
    return words
