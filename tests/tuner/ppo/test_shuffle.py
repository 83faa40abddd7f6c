import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ppo.shuffle import shuffle


@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
def test_every_index_comes_once(size: int, seed: int) -> None:
    order = shuffle(jax.random.key(seed), size)
    assert order.dtype == jnp.int32
    assert np.array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize(("size", "num_operands"), [(2**20, 1), (2**20 + 1, 2)])
def test_one_operand_is_sorted_while_twelve_random_bits_remain(
    size: int, num_operands: int
) -> None:
    jaxpr = jax.make_jaxpr(lambda key: shuffle(key, size))(jax.random.key(0))
    sorts = [equation for equation in jaxpr.eqns if equation.primitive.name == "sort"]
    assert [len(equation.invars) for equation in sorts] == [num_operands]


def test_a_large_batch_is_a_permutation_too() -> None:
    order = shuffle(jax.random.key(0), 2**20 + 1)
    assert np.array_equal(np.sort(order), np.arange(2**20 + 1))


def test_every_position_is_equally_likely() -> None:
    # 20,000 shuffles of five: each index lands in each place 4,000 times, standard deviation
    # √(20,000·0.2·0.8) = 57; five of them are allowed.
    keys = jax.random.split(jax.random.key(0), 20_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: shuffle(key, 5)))(keys))
    counts = np.stack([np.bincount(column, minlength=5) for column in orders.T])
    assert np.abs(counts - 4000).max() < 5 * 57


def test_neighbours_are_spread_over_minibatches_as_by_chance() -> None:
    # 4,096 rows in 4 minibatches: of the 1,024 first rows each has 256, hypergeometric standard
    # deviation √(1024·¼·¾·¾) = 12; and where a row lies says nothing of where the next one does.
    for seed in range(8):
        order = np.asarray(shuffle(jax.random.key(seed), 4096))
        counts = [(part < 1024).sum() for part in np.split(order, 4)]
        assert np.abs(np.array(counts) - 256).max() < 5 * 12
        place = np.argsort(order)
        assert abs(np.corrcoef(place[:-1], place[1:])[0, 1]) < 5 / 64
        assert abs(np.corrcoef(place, np.arange(4096))[0, 1]) < 5 / 64


def test_orders_of_two_keys_are_unrelated() -> None:
    keys = jax.random.split(jax.random.key(0), 20)
    places = np.stack([np.argsort(np.asarray(shuffle(key, 4096))) for key in keys])
    # 190 pairs, each with a standard deviation of 1/64.
    correlations = np.corrcoef(places)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 5 / 64
    assert np.sqrt((correlations**2).mean()) == pytest.approx(1 / 64, rel=0.2)


def test_the_key_decides() -> None:
    first, again, other = (shuffle(jax.random.key(seed), 100) for seed in (0, 0, 1))
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, other)
