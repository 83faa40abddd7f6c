"""The trading environments as the command line makes them: data, parameters, refusals."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from envs.bars import MarketSource
from envs.base import Discrete
from envs.errors import EnvError, InvalidEnvParam, InvalidMarketData
from envs.registry import make
from envs.trading import make_trading
from envs.trading_params import Phase

NASDAQ = str(Path(__file__).resolve().parents[1] / "data" / "nasdaq-daily.csv")
SMALL = MarketSource(bars=1_000)


def test_the_two_phases_by_default() -> None:
    one, params_1 = make("trading-phase1", {}, SMALL)
    two, params_2 = make("trading-phase2", {}, SMALL)
    assert (one.obs_shape, one.action_space, one.eval_steps) == ((225,), Discrete(3), 400)
    assert (two.obs_shape, two.action_space, two.eval_steps) == ((233,), Discrete(6), 400)
    assert not one.per_step_return
    assert one.best_return(params_1) is None
    assert hash(one) != hash(two)
    rules = params_1.rules
    # NQ: 20 USD a point, a quarter point a tick and as much slippage.
    assert [float(x) for x in rules[:4]] == [20, 0.25, 2.25, 0.25]
    assert float(rules.drawdown_limit) == 15_000
    assert float(params_2.rules.drawdown_limit) == 2_500
    assert float(rules.start_balance) == 50_000
    dtypes = {leaf.dtype for leaf in params_1[1:] for leaf in jax.tree.leaves(leaf)}
    assert dtypes == {jnp.dtype(jnp.float32)}


def test_parameters_are_read() -> None:
    given = {"stop_atr": "2", "slippage_ticks": 2, "max_episode_steps": "50", "best_return": 9}
    env, params = make("trading-phase1", given, SMALL)
    assert env.max_episode_steps == 50
    assert env.best_return(params) == 9
    assert float(params.rules.stop_atr) == 2
    assert float(params.rules.slippage) == 0.5


def test_the_seed_draws_other_bars() -> None:
    one, again, other = (make("trading-phase1", {"seed": s}, SMALL)[1].market for s in (0, 0, 1))
    assert jnp.array_equal(one.close, again.close)
    assert not jnp.array_equal(one.close, other.close)


def test_what_the_user_is_told() -> None:
    env, params = make("trading-phase1", {}, SMALL)
    starts = params.market.starts.shape[0]
    assert env.notes == (
        f"1,000 bars, of which {starts} may start an episode",
        "NQ: 20 USD a point, tick 0.25",
        "synthetic bars: drawn from a seed, with a planted pattern",
        "1,000 bars open from 09:30 to 16:00 in New York, times without an offset being UTC",
    )


def test_daily_bars_and_dropped_rows_are_told(tmp_path: Path) -> None:
    lines = Path(NASDAQ).read_text(encoding="utf-8").splitlines()
    lines[50] = lines[50].partition(",")[0] + ",x,x,x,x,x"
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = MarketSource(data=str(path), drop_bad_rows=True)
    env, params = make_trading(1, {}, source)
    num_bars = params.market.close.shape[0]
    assert num_bars == len(lines) - 2
    assert env.notes[2:] == (
        f"1 bad row was dropped of {len(lines) - 1:,}",
        "no session: every bar with enough data around it may start an episode",
    )


@pytest.mark.parametrize("phase", [1, 2])
def test_real_bars_can_be_traded(phase: Phase) -> None:
    env, params = make_trading(phase, {}, MarketSource(data=NASDAQ))
    obs, state = env.reset(jax.random.key(0), params)
    assert obs.shape == env.obs_shape
    assert state.allowed[:3].tolist() == [True, True, True]
    timestep = env.step(jax.random.key(0), state, jnp.int32(1), params)
    assert bool(jnp.isfinite(timestep.obs).all())
    assert float(timestep.reward) != 0


@pytest.mark.parametrize(
    ("phase", "given", "message"),
    [
        (1, {"stop_atr": 0}, "stop_atr must be above 0 and at most a billion, but got 0"),
        (1, {"holding_cost": -1}, "holding_cost must be at least 0 and at most a billion"),
        (1, {"stop_atr": 1e12}, "but got 1e+12"),
        (2, {"risk_share": 1.5}, "risk_share must be above 0 and at most 1, but got 1.5"),
        (2, {"forced_position_ratio": 2}, "must be at least 0 and at most 1, but got 2"),
        (1, {"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
        (1, {"max_episode_steps": 1.5}, "max_episode_steps of trading-phase1 must be a whole"),
        (1, {"seed": -1}, "seed must be at least 0"),
        (1, {"max_risk": 4}, "max_risk must be at least 5 USD, a tick of one contract, but got 4"),
        (2, {"drawdown_limit": 4}, "drawdown_limit must be at least 5 USD"),
        (2, {"risk_share": 5e-5}, "risk_share of start_balance must be at least 5 USD"),
        (1, {"risk_share": 0.01}, "env param of trading-phase1 must be one of"),
        (2, {"max_risk": 100}, "env param of trading-phase2 must be one of"),
        (1, {"stop_art": 1}, "did you mean stop_atr?"),
    ],
)
def test_values_out_of_range_are_refused(
    phase: Phase, given: dict[str, float], message: str
) -> None:
    with pytest.raises(InvalidEnvParam) as error:
        make_trading(phase, given, SMALL)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_seed_and_data_are_refused_together() -> None:
    with pytest.raises(InvalidEnvParam, match="seed must be left out, but got 3 with data"):
        make_trading(1, {"seed": 3}, MarketSource(data=NASDAQ))


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({}, MarketSource(bars=300)),
        ({"max_episode_steps": 960}, SMALL),
        ({}, MarketSource(market="XX")),
    ],
)
def test_data_that_cannot_be_traded_is_refused_in_one_line(
    given: dict[str, float], source: MarketSource
) -> None:
    with pytest.raises(EnvError) as error:
        make_trading(1, given, source)
    assert isinstance(error.value, InvalidMarketData)
    assert "\n" not in str(error.value)
