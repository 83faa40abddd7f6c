"""What the gate allows, of a device at hand or of one that is not here."""

import pytest

from tuner.errors import UsageError
from tuner.gate import allocator_share, allowed_bytes


@pytest.mark.parametrize(
    ("free", "lowered_to", "reserve", "allowed"),
    [
        (1000, None, 0, 950),
        (1000, None, 100, 850),
        (1000, 300, 100, 300),
        (1000, 900, 100, 850),
        (100, None, 500, 0),
        (None, 300, 100, 300),
        (None, None, 100, None),
    ],
)
def test_the_gate(
    free: int | None, lowered_to: int | None, reserve: int, allowed: int | None
) -> None:
    assert allowed_bytes(free, lowered_to=lowered_to, reserve=reserve) == allowed


def test_the_share_of_the_allocator_is_jax_s_own_unless_its_variables_say() -> None:
    assert allocator_share({}) == 0.75
    assert allocator_share({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".9"}) == 0.9


@pytest.mark.parametrize("text", ["x", "nan", "inf", "0", "-1"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="XLA_CLIENT_MEM_FRACTION must be a positive number"):
        allocator_share({"XLA_CLIENT_MEM_FRACTION": text})
