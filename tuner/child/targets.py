"""Compiles an update for a device without running it: the one at hand, or a GPU that is not here.

XLA needs no driver and no card for that, only a description of the target: the whole GPU pipeline
runs, ptxas included, and the compiled program says what memory it takes. The process must have the
CUDA plugin and `JAX_PLATFORMS=cpu`, or the plugin looks for a driver (see `tuner.targets`).
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

from envs.errors import EnvError
from storage.atomic import atomic_write_text
from tuner.child.facts import versions
from tuner.child.memory import predicted_bytes
from tuner.child.program import build, lower_block
from tuner.ppo.platform import written_for
from tuner.protocol import MemoryRequest
from tuner.targets.toolchain import PLUGINS

Emit = Callable[..., None]

COMPILERS = (*PLUGINS, "nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvcc")
CALLBACK = re.compile(r'custom_call_target="[^"]*callback')
"""A call by which a compiled program returns to the host, as XLA's text has it."""


class UnusableTarget(EnvError, ValueError):
    """XLA does not take the description of the target, or has no compiler for it here."""


def analyse_memory(request: MemoryRequest, emit: Emit) -> None:
    """Say what the compiled update of one config takes, or why it does not compile.

    Emits `analysed`: `predicted_bytes`, `argument_bytes`, `lower_s`, `compile_s` (None where the
    program was known), `host_callbacks`; or `failed`, a line, where this config cannot be compiled.

    Raises:
        EnvError: The target, the environment or the trainer is at fault: no config will do.
    """
    platform = "cuda" if request.target else request.written_for or jax.default_backend()
    device = describe(request.target) if request.target else jax.devices()[0]
    built = build(request.workload, request.hardware)
    try:
        with written_for(platform):
            found = _analyse(request, built, device)
    except EnvError:
        raise
    except Exception as error:
        failed = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        emit("analysed", hardware=request.hardware, failed=failed)
        return
    emit("analysed", hardware=request.hardware, failed=None, **found)


@lru_cache(maxsize=1)
def describe(text: str) -> jax.Device:
    """Return the device that a description makes, to lower for and never to run on.

    Args:
        text: A `GpuTargetConfigProto` (XLA, `stream_executor/device_description.proto`) as text.

    Raises:
        UnusableTarget: XLA's own message, in one line.
    """
    from jax.experimental import topologies

    _require_same_version()
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology="1x1x1", target_config=text
        )
    except Exception as error:
        raise UnusableTarget(" ".join(str(error).split())[:500]) from error
    return topology.devices[0]


def _require_same_version() -> None:
    """Require the compiler of CUDA programs to be of the version of jaxlib."""
    compilers = [found for name in PLUGINS if (found := _version(name))]
    jaxlib = _version("jaxlib")
    if jaxlib not in compilers:
        raise UnusableTarget(
            f"the CUDA compiler must have jaxlib's version, {jaxlib}, but got "
            f"{' and '.join(compilers) or 'none'}; run: make targets"
        )


def _analyse(request: MemoryRequest, built: Any, device: jax.Device) -> dict[str, Any]:
    """Return what is known of the program of a config, compiling it if nothing is."""
    started = time.monotonic()
    carry = jax.eval_shape(built.init, jax.eval_shape(jax.random.key, 0))
    lowered = lower_block(built.update_fn, carry, device if request.target else None)
    text = lowered.as_text()
    path = Path(request.programs_dir) / f"{_program_key(text, request, device)}.json"
    lower_s = time.monotonic() - started
    with contextlib.suppress(OSError, ValueError):
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known | {"lower_s": lower_s, "compile_s": None}
    compiling = time.monotonic()
    compiled = lowered.compile()
    found = {
        "predicted_bytes": predicted_bytes(compiled, device.platform),
        "argument_bytes": compiled.memory_analysis().argument_size_in_bytes,
        "host_callbacks": len(CALLBACK.findall(compiled.as_text())),
    }
    with contextlib.suppress(OSError):  # what cannot be kept is compiled again
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(found))
    return found | {"lower_s": lower_s, "compile_s": time.monotonic() - compiling}


def _program_key(text: str, request: MemoryRequest, device: jax.Device) -> str:
    """Return what names a program on a target: its text, the target, and what compiles it."""
    compilers = {name: _version(name) for name in COMPILERS}
    target = request.target or f"{device.platform} {device.device_kind}"
    flags = os.environ.get("XLA_FLAGS")  # what jax is told is in the text
    parts = json.dumps([text, target, versions(), compilers, flags], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
