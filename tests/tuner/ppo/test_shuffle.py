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


@pytest.mark.parametrize("size", [256, 512, 16 * 257, 6000, 2**18, 2**20 + 2**10])
def test_nothing_is_sorted_where_a_size_has_two_large_factors(size: int) -> None:
    assert "sort" not in str(jax.make_jaxpr(lambda key: shuffle(key, size))(jax.random.key(0)))
    assert np.array_equal(np.sort(shuffle(jax.random.key(0), size)), np.arange(size))


@pytest.mark.parametrize("size", [1, 255, 2 * 4099, 16 * 22_003, 2**20 + 7])
def test_other_sizes_are_sorted(size: int) -> None:
    assert "sort" in str(jax.make_jaxpr(lambda key: shuffle(key, size))(jax.random.key(0)))
    assert np.array_equal(np.sort(shuffle(jax.random.key(0), size)), np.arange(size))


@pytest.mark.parametrize("size", [256, 16 * 257])
def test_minibatches_are_drawn_as_without_replacement(size: int) -> None:
    # Statistics of 2,000 shuffles against those of a random permutation; each is allowed five
    # standard errors. What a batch's neighbours are, an environment's next row or another
    # environment's, lies any distance apart.
    times, parts = 2000, 4
    keys = jax.random.split(jax.random.key(1), times)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: shuffle(key, size)))(keys))
    places = np.argsort(orders, axis=1)
    part = places // (size // parts)
    rows = size // parts
    # Of the first quarter of the rows, so many are in the first minibatch: hypergeometric.
    counts = (part[:, :rows] == 0).sum(axis=1)
    variance = rows / parts * (1 - 1 / parts) * (size - rows) / (size - 1)
    assert abs(counts.mean() - rows / parts) < 5 * np.sqrt(variance / times)
    assert counts.var() / variance == pytest.approx(1, abs=5 * np.sqrt(2 / times))
    together = (rows - 1) / (size - 1)
    for distance in (1, 2, 16, size // 16, size // 2):
        pairs = (part[:, distance:] == part[:, :-distance]).mean(axis=1)
        assert abs(pairs.mean() - together) < 5 * pairs.std() / np.sqrt(times)
        expected = np.sqrt(together * (1 - together) / (size - distance))
        assert pairs.std() / expected == pytest.approx(1, abs=0.1)
    # As many rows stay where they were, and as many pairs change their order, as by chance.
    assert abs((orders == np.arange(size)).sum(axis=1).mean() - 1) < 5 / np.sqrt(times)
    descents = (orders[:, 1:] < orders[:, :-1]).sum(axis=1)
    assert abs(descents.mean() - (size - 1) / 2) < 5 * np.sqrt((size + 1) / 12 / times)


def test_two_places_are_filled_independently() -> None:
    # 200,000 shuffles of 256: all 65,280 pairs of the first two places are alike likely.
    counts = np.zeros((256, 256), np.int64)
    first_two = jax.jit(jax.vmap(lambda key: shuffle(key, 256)[:2]))
    for seed in range(20):
        found = np.asarray(first_two(jax.random.split(jax.random.key(seed), 10_000)))
        np.add.at(counts, (found[:, 0], found[:, 1]), 1)
    pairs = counts[~np.eye(256, dtype=bool)]
    expected, freedom = 200_000 / len(pairs), len(pairs) - 1
    chi_square = ((pairs - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


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
