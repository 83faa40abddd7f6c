"""The parameters of the trading environments: their defaults, their ranges and their arrays.

Apart from the environment because a phase is the same program whatever these are. The keys that a
phase accepts are those of `DEFAULTS` and of its own `DEFAULTS_OF_PHASE`, `commission` (USD per
contract and side; its default is the market's), `max_episode_steps`, `best_return`, and without
data `seed`, which draws the synthetic bars.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from envs import params as env_params
from envs.account import Rules
from envs.contracts import Contract
from envs.market import MarketData
from envs.params import RawValue, Scalar, require

Phase = Literal[1, 2]

DEFAULTS: dict[str, float] = {
    "stop_atr": 1.5,
    "target_ratio": 3.0,
    "start_balance": 50_000.0,
    "slippage_ticks": 1.0,
    "holding_cost": 0.001,
    "breach_penalty": 1.0,
    "entry_bonus": 0.0,
}
DEFAULTS_OF_PHASE: dict[Phase, dict[str, float]] = {
    1: {"drawdown_limit": 15_000.0, "max_risk": 1_000.0},
    2: {
        "drawdown_limit": 2_500.0,
        "risk_share": 0.01,
        "breakeven_atr": 0.5,
        "trail_atr": 1.0,
        "forced_position_ratio": 0.0,
    },
}
MAY_BE_ZERO = frozenset(
    {
        "slippage_ticks",
        "commission",
        "holding_cost",
        "breach_penalty",
        "entry_bonus",
        "breakeven_atr",
        "forced_position_ratio",
    }
)
SHARES = frozenset({"risk_share", "forced_position_ratio"})
GREATEST = 1e9
"""Values beyond this are mistakes, and lose their digits in float32."""
MAX_EPISODE_STEPS = 400


class Settings(NamedTuple):
    """What the user chose, checked; `values` holds a number for every key of the phase."""

    values: Mapping[str, float]
    max_episode_steps: int
    seed: int
    best_return: float | None


class TradingParams(NamedTuple):
    """What may change without compiling anew: the market, the account's rules and the rewards.

    `holding_cost` per bar in a position, `breach_penalty` and `entry_bonus` (per entry) are in
    units of the risk taken, `forced_position_ratio` is the share of episodes that start in a
    position; float32.
    """

    market: MarketData
    rules: Rules
    holding_cost: Array
    breach_penalty: Array
    entry_bonus: Array
    forced_position_ratio: Array


def read_settings(
    phase: Phase, given: Mapping[str, RawValue], contract: Contract, *, has_data: bool
) -> Settings:
    """Read and check the user's parameters.

    Args:
        phase: 1 or 2.
        given: Values by key, as text or as numbers.
        contract: What a point and a tick are worth, and the commission that is the default.
        has_data: Whether the bars are the user's, which no seed draws.

    Raises:
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
    """
    name = f"trading-phase{phase}"
    defaults = DEFAULTS | {"commission": contract.commission} | DEFAULTS_OF_PHASE[phase]
    kinds: dict[str, type[Scalar]] = dict.fromkeys(defaults, float)
    whole: dict[str, type[Scalar]] = {"max_episode_steps": int, "seed": int}
    read = env_params.read(name, given, kinds | whole)
    require(
        not has_data or "seed" not in read,
        name,
        f"seed must be left out, but got {read.get('seed')} with data; it draws the synthetic bars",
    )
    steps, seed = int(read.pop("max_episode_steps", MAX_EPISODE_STEPS)), int(read.pop("seed", 0))
    for key, value, least in (("max_episode_steps", steps, 1), ("seed", seed, 0)):
        require(
            least <= value <= GREATEST,
            name,
            f"{key} must be at least {least} and at most a billion, but got {value}; leave it out",
        )
    best = read.pop(env_params.BEST_RETURN, None)
    values = defaults | {key: float(value) for key, value in read.items()}
    _check(name, values, contract)
    return Settings(values, steps, seed, None if best is None else float(best))


def trading_params(
    market: MarketData, contract: Contract, phase: Phase, chosen: Mapping[str, float]
) -> TradingParams:
    """Return the traced parameters; what a phase does not know takes the other's default.

    Args:
        market: The bars.
        contract: What a point is worth, the tick and the commission.
        phase: 1 or 2.
        chosen: Values by key, checked; what is missing takes its default.
    """
    other: Phase = 2 if phase == 1 else 1
    values = DEFAULTS | DEFAULTS_OF_PHASE[other] | DEFAULTS_OF_PHASE[phase]
    values |= {"commission": contract.commission, **chosen}
    values |= {
        "point_value": contract.point_value,
        "tick_size": contract.tick_size,
        "slippage": values["slippage_ticks"] * contract.tick_size,
    }
    arrays = {key: jnp.asarray(value, jnp.float32) for key, value in values.items()}
    return TradingParams(
        market=market,
        rules=Rules(**{key: arrays[key] for key in Rules._fields}),
        holding_cost=arrays["holding_cost"],
        breach_penalty=arrays["breach_penalty"],
        entry_bonus=arrays["entry_bonus"],
        forced_position_ratio=arrays["forced_position_ratio"],
    )


def _check(name: str, values: Mapping[str, float], contract: Contract) -> None:
    """Refuse what lies outside its range, naming the key."""
    for key, value in values.items():
        may_be_zero = key in MAY_BE_ZERO
        limit, greatest = (1.0, "1") if key in SHARES else (GREATEST, "a billion")
        require(
            (value > 0 or (may_be_zero and value == 0)) and value <= limit,
            name,
            f"{key} must be {'at least' if may_be_zero else 'above'} 0 and at most {greatest}, "
            f"but got {value:g}; leave it out for its default",
        )
    tick = contract.tick_size * contract.point_value
    for key in ("max_risk", "drawdown_limit"):
        money = values.get(key, tick)
        require(
            money >= tick,
            name,
            f"{key} must be at least {tick:g} USD, a tick of one contract, but got {money:g}; "
            "raise it",
        )
    share, balance = values.get("risk_share"), values["start_balance"]
    require(
        share is None or share * balance >= tick,
        name,
        f"risk_share of start_balance must be at least {tick:g} USD, a tick of one contract, "
        f"but got {(share or 0) * balance:g}; raise either",
    )
