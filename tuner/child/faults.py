"""Faults that the tests order, to prove that no trial can hurt a study.

A fault comes in the request of one trial (the setting is the environment variable
`TUNER_TEST_FAULT`, see `tuner.session`); it happens for real, in this process.
"""

import os
import resource
import signal

import jax
import jax.numpy as jnp
import psutil

FAULT_BLOCK = 1
"""Faults of training strike after this block."""


def learning_rate_factor(fault: str | None) -> float:
    """Return what the learning rate is multiplied by: enough to diverge under `diverge`."""
    return 1e30 if fault == "diverge" else 1.0


def before_allocating(fault: str | None) -> bool:
    """Leave this process almost no address space under `oom`; return whether the gate is off."""
    if fault != "oom":
        return False
    too_much = jax.jit(lambda: jnp.ones(2**29)).lower().compile()
    limit = psutil.Process().memory_info().vms + 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    too_much()  # the arrays of a small config might still fit in what the process has already
    return True


def after_block(fault: str | None, block: int) -> None:
    """Hang in compiled code, die by a signal, abort, or interrupt the parent."""
    if fault is None or block != FAULT_BLOCK:
        return
    if fault == "hang":
        # A body that the compiler cannot see through: it leaves out a loop that changes nothing.
        forever = jax.jit(lambda x: jax.lax.while_loop(lambda y: y < 2, jnp.sin, x))
        forever(jnp.float32(1)).block_until_ready()
    elif fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "abort":
        os.abort()
    elif fault == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
