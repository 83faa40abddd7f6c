import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.base import Box, Discrete
from tuner.ppo.distributions import (
    Categorical,
    DiagonalGaussian,
    action_noise,
    categorical,
    max_entropy,
    noise_of,
)

KEY = jax.random.key(0)


def test_log_prob_is_that_of_the_action_taken() -> None:
    policy = Categorical(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]))
    assert policy.log_prob(jnp.array([1, 0])).tolist() == [-2.0, -3.0]


def test_a_categorical_by_hand() -> None:
    # Logits ln 3 and 0: probabilities ¾ and ¼, entropy −(¾·ln ¾ + ¼·ln ¼) = 0.562335.
    policy = categorical(jnp.array([[math.log(3), 0.0]]), None)
    assert jnp.exp(policy.log_probs)[0].tolist() == pytest.approx([0.75, 0.25])
    assert policy.entropy().tolist() == pytest.approx([0.562335], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5),
    allowed=st.lists(st.booleans(), min_size=5, max_size=5).filter(any),
)
def test_a_masked_categorical_is_the_categorical_of_what_is_allowed(
    logits: list[float], allowed: list[bool]
) -> None:
    mask = jnp.array([allowed])
    policy = categorical(jnp.array([logits]), mask)
    # The same distribution over the allowed logits alone.
    few = [logit for logit, is_allowed in zip(logits, allowed, strict=True) if is_allowed]
    alone = categorical(jnp.array([few]), None)
    probabilities = jnp.exp(policy.log_probs)
    assert probabilities[mask].tolist() == pytest.approx(jnp.exp(alone.log_probs)[0].tolist())
    assert probabilities[~mask].tolist() == [0.0] * (5 - len(few))
    assert policy.entropy().tolist() == pytest.approx(alone.entropy().tolist(), abs=1e-5)
    assert float(policy.entropy()[0]) <= float(max_entropy(mask)[0]) + 1e-5
    assert float(max_entropy(mask)[0]) == pytest.approx(math.log(len(few)))


def test_a_forbidden_action_is_never_sampled_however_likely() -> None:
    noise = action_noise(KEY, Discrete(3), (5000,))
    logits = jnp.tile(jnp.array([[0.0, 80.0, 0.0]]), (5000, 1))
    mask = jnp.tile(jnp.array([[True, False, True]]), (5000, 1))
    counts = jnp.bincount(categorical(logits, mask).sample(noise), length=3).tolist()
    # 2,500 each, standard deviation √(5,000·¼) = 35.
    assert counts[1] == 0
    assert counts[0] == pytest.approx(2500, abs=5 * 35)


def test_the_largest_noise_still_chooses_an_allowed_action() -> None:
    # Shares of three actions are 1/3, 1/3, 1/3 and 0; the greatest uniform number is 1 − 2⁻²⁴.
    policy = categorical(
        jnp.array([[0.0, 0.0, 0.0, 9.0]] * 3), jnp.array([[True, True, True, False]] * 3)
    )
    noise = jnp.array([2**-24, 0.5, 1 - 2**-24])
    assert policy.sample(noise).tolist() == [0, 1, 2]


def test_the_extreme_words_are_noise_within_bounds() -> None:
    words = jnp.array([0, 2**31, 2**32 - 1], jnp.uint32)
    uniform = noise_of(words, Discrete(3))
    assert uniform.tolist() == [2**-24, 0.5 + 2**-24, 1 - 2**-24]
    # Φ⁻¹(2⁻²⁴) = −5.294; the middle part lies 2⁻²⁴ from ½, the density there is 0.399.
    normal = noise_of(words, Box(low=(-1.0,), high=(1.0,), shape=(1,)))
    assert normal.tolist() == pytest.approx([-5.294, 1.5e-7, 5.294], abs=0.01)


def test_samples_of_a_gaussian_have_its_moments() -> None:
    policy = DiagonalGaussian(
        jnp.tile(jnp.array([[1.0, -2.0]]), (20_000, 1)), jnp.log(jnp.array([0.5, 2.0]))
    )
    space = Box(low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,))
    actions = policy.sample(action_noise(KEY, space, (20_000,)))
    # Standard errors of the mean 0.0035 and 0.014, of the deviation about √½ of that.
    assert actions.mean(axis=0).tolist() == pytest.approx([1, -2], abs=0.07)
    assert actions.std(axis=0).tolist() == pytest.approx([0.5, 2], abs=0.05)
    # The entropy is the mean of −log-prob: standard error √(2·½) / √20,000 = 0.007.
    assert float(-policy.log_prob(actions).mean()) == pytest.approx(
        float(policy.entropy()[0]), abs=0.035
    )


def test_the_density_of_a_gaussian_by_hand() -> None:
    # Two standard deviations off in a component of σ ½: −2 − ln ½ − ½·ln 2π = −2.225791.
    policy = DiagonalGaussian(jnp.array([[1.0]]), jnp.log(jnp.array([0.5])))
    assert policy.log_prob(jnp.array([[2.0]])).tolist() == pytest.approx([-2.225791], abs=1e-5)
    # ½·ln(2πe·¼) = 0.725791.
    assert policy.entropy().tolist() == pytest.approx([0.725791], abs=1e-5)
