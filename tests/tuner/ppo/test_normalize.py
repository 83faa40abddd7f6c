import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ppo.normalize import (
    OBS_CLIP,
    REWARD_CLIP,
    fresh_return_stats,
    fresh_stats,
    merge,
    normalize_obs,
    scale_reward,
)
from tuner.ppo.types import Hyperparams, RunningStats


def test_merging_by_hand() -> None:
    """1, 3 have mean 2 and variance 1; 5, 5, 8, 8 have mean 6.5 and variance 2.25.

    Together: mean (2·2 + 4·6.5) / 6 = 5, variance the mean of 16, 4, 0, 0, 9, 9 = 38/6.
    """
    first = merge(fresh_stats(()), jnp.array([[1.0], [3.0]]))
    assert [float(part) for part in first] == pytest.approx([2, 2, 1])
    both = merge(first, jnp.array([[5.0, 5.0], [8.0, 8.0]]))
    assert [float(part) for part in both] == pytest.approx([6, 5, 38 / 6])


@settings(max_examples=10, deadline=None)
@given(
    scale=st.floats(0.1, 100),
    shift=st.floats(-100, 100),
    sizes=st.lists(st.sampled_from([1, 2, 7]), min_size=1, max_size=4),
)
def test_batches_merge_to_the_statistics_of_the_whole(
    scale: float, shift: float, sizes: list[int]
) -> None:
    draws = np.random.default_rng(0).normal(size=(sum(sizes), 3, 2)) * scale + shift
    stats = fresh_stats((2,))
    for batch in np.split(draws, np.cumsum(sizes)[:-1]):
        stats = merge(stats, jnp.asarray(batch, jnp.float32))
    whole = draws.reshape(-1, 2)
    assert np.allclose(stats.mean, whole.mean(axis=0), rtol=1e-4, atol=1e-3 * scale)
    assert np.allclose(stats.variance, whole.var(axis=0), rtol=2e-3)


def test_statistics_stay_exact_after_very_many_values() -> None:
    # After 10⁹ values of mean 5 and variance 4, a million more of the same change nothing.
    stats = RunningStats(jnp.float32(1e9), jnp.float32(5), jnp.float32(4))
    values = jnp.tile(jnp.array([3.0, 7.0]), (500, 1000))
    after = merge(stats, values)
    assert [float(part) for part in after] == pytest.approx([1.001e9, 5, 4], rel=1e-6)


def test_observations_by_hand() -> None:
    # Mean 2 and deviation 2: 6 becomes 2, 2 becomes 0; a thousand is cut off; types become float.
    stats = RunningStats(jnp.float32(10), jnp.full((1,), 2.0), jnp.full((1,), 4.0))
    obs = jnp.array([[6], [2], [1000]], jnp.int32)
    assert normalize_obs(stats, obs).ravel().tolist() == pytest.approx([2, 0, OBS_CLIP])
    assert normalize_obs(stats, obs[None]).shape == (1, 3, 1)
    assert normalize_obs(None, obs) is obs


def test_fresh_statistics_only_cut_observations() -> None:
    obs = jax.random.normal(jax.random.key(0), (5, 2, 3))
    assert jnp.allclose(normalize_obs(fresh_stats((2, 3)), obs), obs, atol=1e-6)
    assert normalize_obs(fresh_stats((1,)), jnp.array([[4000.0]])).item() == OBS_CLIP


def test_a_reward_after_many_zeros_is_cut() -> None:
    # 9,999 zeros and a one at an episode's end: deviation about 0.01, so that it would become 100.
    reward = jnp.zeros((100, 100)).at[-1, -1].set(1.0)
    done = jnp.ones((100, 100), bool)
    _, scaled = scale_reward(fresh_return_stats(100), reward, done, hyperparams=Hyperparams())
    assert scaled.max() == REWARD_CLIP
    assert scaled.min() == 0.0


def test_rewards_by_hand() -> None:
    """γ = ½, two environments; the first ends after its second step.

    Rewards:            2, 4, 6 and 0, 0, 8
    discounted returns: 2, 5, 6 (begun anew) and 0, 0, 8: mean 3.5, variance 129/6 − 12.25 = 9.25
    Scaled rewards are those over √9.25. They go on from 6 and 8: with a reward of 1 next,
    returns are 4 and 5.
    """
    hyperparams = Hyperparams(gamma=0.5)
    reward = jnp.array([[2.0, 0.0], [4.0, 0.0], [6.0, 8.0]])
    done = jnp.array([[False, False], [True, False], [False, False]])
    stats, scaled = scale_reward(fresh_return_stats(2), reward, done, hyperparams=hyperparams)
    assert [float(part) for part in stats.stats] == pytest.approx([6, 3.5, 9.25], rel=1e-5)
    assert jnp.allclose(scaled, reward / 9.25**0.5)
    assert stats.discounted.tolist() == [6, 8]
    stats, _ = scale_reward(stats, jnp.ones((1, 2)), done[:1], hyperparams=hyperparams)
    assert stats.discounted.tolist() == [4, 5]
    # Eight returns now: sum 21 + 9 = 30, squares 129 + 41 = 170; variance 170/8 − 3.75² = 7.1875.
    assert [float(part) for part in stats.stats] == pytest.approx([8, 3.75, 7.1875], rel=1e-5)
