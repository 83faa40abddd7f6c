"""What one futures contract is worth, trades at and costs, by market.

Apart from the environments because the command line checks a market's name too: this module needs
the standard library only.
"""

import difflib
import math
from dataclasses import dataclass, replace

from envs.errors import InvalidMarketData


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One contract of a market.

    `point_value` is USD per point of price and contract, `tick_size` the smallest price step in
    points, `commission` USD per contract and side.
    """

    point_value: float
    tick_size: float
    commission: float


MARKETS: dict[str, Contract] = {
    "ES": Contract(point_value=50, tick_size=0.25, commission=2.25),
    "NQ": Contract(point_value=20, tick_size=0.25, commission=2.25),
    "MES": Contract(point_value=5, tick_size=0.25, commission=0.6),
    "MNQ": Contract(point_value=2, tick_size=0.25, commission=0.6),
    "YM": Contract(point_value=5, tick_size=1, commission=2.25),
    "RTY": Contract(point_value=50, tick_size=0.1, commission=2.25),
}
"""Point values and tick sizes as CME Group specifies the contracts (outright futures). Commissions
are assumptions: about what a retail broker and the exchange ask together."""

UNKNOWN_TICK_SIZE = 0.01
"""Points; the tick of a market that is not in the table: a cent, as for shares in the USA."""


def contract_of(market: str, point_value: float | None = None) -> Contract:
    """Return the contract of a market.

    Args:
        market: A name of `MARKETS` in any letter case, or any other with `point_value`.
        point_value: USD per point and contract; replaces the table's.

    Returns:
        The contract; of a market not in the table the tick is `UNKNOWN_TICK_SIZE` and the
        commission 0.

    Raises:
        InvalidMarketData: The market is unknown and has no `point_value`, or that is not positive.
    """
    if point_value is not None and not 0 < point_value < math.inf:
        raise InvalidMarketData(
            f"--point-value must be a positive number of USD a point, but got {point_value}; "
            "leave it out for a known market"
        )
    known = MARKETS.get(market.strip().upper())
    if known is not None:
        return known if point_value is None else replace(known, point_value=point_value)
    if point_value is None:
        raise InvalidMarketData(
            f"--market must be one of {', '.join(MARKETS)}, but got {market!r}"
            f"{_suggestion(market)}; another market needs --point-value"
        )
    return Contract(point_value=point_value, tick_size=UNKNOWN_TICK_SIZE, commission=0)


def _suggestion(market: str) -> str:
    """Return ", did you mean …?" for the known market nearest to `market`, or nothing."""
    nearest = difflib.get_close_matches(market.strip().upper(), MARKETS, n=1)
    return f", did you mean {nearest[0]}?" if nearest else ""
