"""What do the pieces that PPO computes in a way of its own take, beside the compiler's?

    .venv/bin/python benchmarks/ppo_pieces.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/ppo_pieces.py --quick

Layers of 64, float32, and shuffles of batches beside `jax.random.permutation`, on one pinned CPU
core; the least CPU time of each, both in turns. Elsewhere than on a CPU there is little to compare:
PPO leaves layers to the compiler there.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ppo_document import deliver, facts, parser_of, say, this_device
from ppo_floor import CHAINED, in_a_loop
from ppo_statistics import best_seconds

from tuner.ppo.activations import tanh
from tuner.ppo.affine import (
    FEW_OUTPUTS,
    FEW_TERMS,
    NARROW,
    bias_gradient,
    kernel_gradient,
    matmul,
)
from tuner.ppo.shuffle import shuffle

WIDTH = 64
ROWS = (4, 128, 1024)
"""As a step of 4 environments has, a small minibatch, and a chunk of a large one."""
BATCHES = (512, 8_192, 65_536)
"""Env-steps that are shuffled: those of 4, 64 and 512 environments of 128 steps."""
TURNS = 5
BUDGET_S = 0.2
"""Of one measurement of one piece in one turn."""

Piece = tuple[str, Callable[..., jax.Array], Callable[..., jax.Array], tuple[tuple[int, int], ...]]
"""Its name, ours, the compiler's, and the shapes of what both are given."""


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = parser_of(__doc__)
    arguments = parser.parse_args()
    device = this_device()
    if device.kind != "cpu":
        parser.error(f"this needs a CPU as jax's device, but got {device.kind}: nothing differs")
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    turns = 1 if arguments.quick else TURNS
    found = [{"rows": rows} | measure(piece, turns) for rows in ROWS for piece in pieces(rows)]
    found += [{"rows": rows} | measure(shuffle_of(rows), turns) for rows in BATCHES]
    document = facts(device) | {"pinned_to_core": core, "pieces": found}
    deliver(document, table_of(document), arguments)


def pieces(rows: int) -> list[Piece]:
    """Return what is computed in a way of its own for so many rows."""
    hidden = (rows, WIDTH)
    found: list[Piece] = [
        ("tangent", tanh, jnp.tanh, (hidden,)),
        ("bias's gradient", bias_gradient, lambda grads: grads.sum(axis=0), (hidden,)),
    ]
    found += [
        (f"product, {n} outputs", matmul, jnp.matmul, (hidden, (WIDTH, n)))
        for n in range(1, FEW_OUTPUTS + 1)
    ]
    # What comes next belongs to it: a sum of products is joined with it by the compiler.
    found += [
        (
            f"product, {n} terms, times a derivative",
            lambda left, right, y: matmul(left, right) * (1 - y * y),
            lambda left, right, y: jnp.matmul(left, right) * (1 - y * y),
            ((rows, n), (n, WIDTH), hidden),
        )
        for n in (1, 2, 4, FEW_TERMS)
    ]
    return found + [
        (
            f"kernel's gradient, {n} outputs",
            kernel_gradient,
            lambda inputs, grads: inputs.T @ grads,
            (hidden, (rows, n)),
        )
        for n in (1, 2, 4, NARROW)
    ]


def shuffle_of(rows: int) -> Piece:
    """Return a batch's random order, whose key is made of the number that changes in the loop."""

    def with_key(order: Callable[[jax.Array, int], jax.Array]) -> Callable[..., jax.Array]:
        def ordered(number: jax.Array) -> jax.Array:
            seed = jax.lax.bitcast_convert_type(number[0, 0], jnp.uint32)
            return order(jax.random.key(seed), rows)

        return ordered

    return "shuffle", with_key(shuffle), with_key(jax.random.permutation), ((1, 1),)


def measure(piece: Piece, turns: int) -> dict[str, Any]:
    """Return a piece's row of the document."""
    name, *ways, shapes = piece
    say(name)
    runs = [in_a_loop(way, *shapes) for way in ways]
    taken = [
        [best_seconds(run, time.process_time, budget_s=BUDGET_S) for run in runs]
        for _ in range(turns)
    ]
    ours, compilers = (min(turn[way] for turn in taken) / CHAINED for way in (0, 1))
    return {"piece": name, "ours_s": ours, "compilers_s": compilers, "ratio": compilers / ours}


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    lines = [f"CPU µs each{'':<29}{'rows':>8}{'ours':>8}{'XLA':>8}{'ratio':>8}"]
    lines += [
        f"{row['piece']:<40}{row['rows']:>8,}{row['ours_s'] * 1e6:>8.1f}"
        f"{row['compilers_s'] * 1e6:>8.1f}{row['ratio']:>8.2f}"
        for row in document["pieces"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
