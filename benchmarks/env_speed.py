"""How many env-steps a second each environment takes by itself: a random policy, no learning.

    .venv/bin/python benchmarks/env_speed.py                     all of ours, gymnax's two, brax's
    .venv/bin/python benchmarks/env_speed.py --only trading-phase1 --num-envs 2048

Every environment is stepped and reset as PPO's rollout does it, in one compiled loop, its
observations summed so that none is optimised away. All take turns, round by round; the speed is the
median over the rounds, and each is compared with Breakout-MinAtar within the same round. On a CPU:
one pinned core, CPU-seconds.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ppo_document import deliver, facts, parser_of, say, this_device

from envs.base import Environment
from envs.errors import UnknownEnvironment
from envs.registry import make
from tuner.ppo.evaluate import random_policy
from tuner.ppo.rollout import action_masks, start_envs, step_envs
from tuner.ppo.types import Envs

YARDSTICK = "gymnax:Breakout-MinAtar"
ENVIRONMENTS = (
    YARDSTICK,
    "gymnax:CartPole-v1",
    "stress",
    "trading-phase1",
    "trading-phase2",
    "brax:fast",
)
NUM_ENVS, NUM_STEPS = 512, 128
ROUNDS, QUICK_ROUNDS = 15, 3
ROUND_S = 0.25
"""CPU-seconds of one environment in a round, roughly."""

Loop = Callable[[Envs, jax.Array], tuple[Envs, jax.Array]]


@dataclass(slots=True)
class Runner:
    """One environment, compiled and ready to go on from where it stands."""

    name: str
    env: Environment
    loop: Loop
    envs: Envs
    calls: int = 1

    def round(self, num_envs: int, clock: Callable[[], float]) -> float:
        """Run the loop `calls` times and return env-steps a second."""
        started = clock()
        for call in range(self.calls):
            self.envs, total = self.loop(self.envs, jax.random.key(call))
        jax.block_until_ready((self.envs, total))
        return self.calls * num_envs * NUM_STEPS / (clock() - started)


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", action="append", help="an environment (default: all)")
    parser.add_argument("--num-envs", type=int, default=NUM_ENVS, help="environments side by side")
    arguments = parser.parse_args()
    device = this_device()
    if device.kind == "cpu":
        # Before the first computation: jax's thread pools are as large as the affinity allows then.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clock = time.process_time if device.kind == "cpu" else time.perf_counter
    wanted = [YARDSTICK, *(name for name in arguments.only or ENVIRONMENTS if name != YARDSTICK)]
    runners, skipped = [], {}
    for name in wanted:
        try:
            runners.append(_runner(name, arguments.num_envs))
        except UnknownEnvironment as error:
            skipped[name] = str(error)
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    speeds = _measure(runners, arguments.num_envs, rounds, clock)
    document = facts(device) | {
        "num_envs": arguments.num_envs,
        "num_steps": NUM_STEPS,
        "rounds": rounds,
        "yardstick": YARDSTICK,
        "environments": [_row(runner, speeds) for runner in runners],
        "skipped": skipped,
    }
    deliver(document, table_of(document), arguments)


def _runner(name: str, num_envs: int) -> Runner:
    say(f"{name}: compiling")
    env, env_params = make(name, {})
    envs = jax.jit(lambda key: start_envs(env, key, env_params, num_envs=num_envs))(
        jax.random.key(0)
    )
    policy = random_policy(env.action_space)

    def step(state: tuple[Envs, jax.Array], key: jax.Array) -> tuple[Any, None]:
        envs, total = state
        action_key, step_key = jax.random.split(key)
        mask = action_masks(env, envs, env_params)
        action = policy(None, action_key, envs.obs, mask)
        envs, timestep = step_envs(env, envs, action, step_key, env_params)
        return (envs, total + envs.obs.sum(dtype=jnp.float32) + timestep.reward.sum()), None

    def loop(envs: Envs, key: jax.Array) -> tuple[Envs, jax.Array]:
        keys = jax.random.split(key, NUM_STEPS)
        result: tuple[Envs, jax.Array] = jax.lax.scan(step, (envs, jnp.float32(0)), keys)[0]
        return result

    compiled = jax.jit(loop, donate_argnums=0).lower(envs, jax.random.key(0)).compile()
    return Runner(name, env, compiled, envs)


def _measure(
    runners: list[Runner], num_envs: int, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the env-steps a second of every round, by environment."""
    for runner in runners:
        runner.round(num_envs, clock)  # warm
        speed = runner.round(num_envs, clock)
        runner.calls = max(1, round(ROUND_S * speed / (num_envs * NUM_STEPS)))
    speeds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for _ in range(rounds):
        for runner in runners:
            speeds[runner.name].append(runner.round(num_envs, clock))
    return speeds


def _row(runner: Runner, speeds: dict[str, list[float]]) -> dict[str, Any]:
    mine, yardstick = speeds[runner.name], speeds[YARDSTICK]
    ratios = [speed / reference for speed, reference in zip(mine, yardstick, strict=True)]
    return {
        "env": runner.name,
        "obs_shape": list(runner.env.obs_shape),
        "env_steps_per_s": statistics.median(mine),
        "env_steps_per_s_quartiles": _quartiles(mine),
        "ratio_to_yardstick": statistics.median(ratios),
        "ratio_quartiles": _quartiles(ratios),
    }


def _quartiles(values: list[float]) -> list[float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    lines = [
        f"{document['num_envs']} environments, random policy, medians of {document['rounds']} "
        "rounds [quartiles]",
        f"{'environment':<26}{'obs':>10}{'env-steps/s':>38}{'against Breakout':>24}",
    ]
    for row in document["environments"]:
        low, high = row["env_steps_per_s_quartiles"]
        speed = f"{row['env_steps_per_s']:,.0f} [{low:,.0f}, {high:,.0f}]"
        low, high = row["ratio_quartiles"]
        ratio = f"{row['ratio_to_yardstick']:.2f} [{low:.2f}, {high:.2f}]"
        shape = "x".join(map(str, row["obs_shape"]))
        lines.append(f"{row['env']:<26}{shape:>10}{speed:>38}{ratio:>24}")
    lines += [f"{name:<26}  skipped: {why}" for name, why in document["skipped"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
