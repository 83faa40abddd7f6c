"""The process of one peer: pinned, it compiles once and then answers "run one round" requests.

    python peer_child.py package.module:factory CORE|all

Requests come as JSON lines on stdin: `{"do": "compile", "config": …}`, then `{"do": "run"}` as
often as wanted. Answers go to what stdout was at the start; whatever a library prints goes to
stderr. CPU seconds are this process's, all threads together.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from peer import Peer, PeerConfig, resolve


def main() -> None:
    """Pin, import the peer, and answer until stdin ends."""
    spec, core = sys.argv[1:]
    # Before jax is imported, because its thread pools are as large as the affinity then allows.
    if core != "all":
        os.sched_setaffinity(0, {int(core)})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        serve(spec, answers)
    except Exception as error:  # the parent decides what the failure of a peer means
        _answer(answers, error=f"{type(error).__name__}: {error}")
        raise


def serve(spec: str, answers: TextIO) -> None:
    """Say `ready` when the peer is imported, then do what is asked."""
    factory = resolve(spec)
    _answer(answers, ready=True)
    peer: Peer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "compile":
            config = PeerConfig.from_dict(request["config"])

            def compile_peer(config: PeerConfig = config) -> int:
                nonlocal peer
                peer = factory(config)
                return peer.compile() or 0

            _answer(answers, **_timed(compile_peer))
        elif peer is not None:
            _answer(answers, **_timed(peer.run))


def _timed(work: Callable[[], int]) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    env_steps = work()
    return {
        "env_steps": env_steps,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def _answer(answers: TextIO, **data: Any) -> None:
    answers.write(json.dumps(data) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
