import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ppo.gae import gae
from tuner.ppo.types import Hyperparams, Transition


def rollout_of(
    reward: list[list[float]],
    value: list[list[float]],
    done: list[list[bool]],
    final_value: list[list[float]],
) -> Transition:
    rewards = jnp.array(reward, jnp.float32)
    nothing = jnp.zeros_like(rewards)
    return Transition(
        obs=nothing,
        action=nothing,
        log_prob=nothing,
        value=jnp.array(value, jnp.float32),
        reward=rewards,
        done=jnp.array(done),
        final_value=jnp.array(final_value, jnp.float32),
    )


def test_by_hand_without_an_end_terminated_and_truncated() -> None:
    """γ = λ = ½, so γλ = ¼; rewards 1, 2, 3, all values 1, last value 2; one column a case.

    No end:      δ₂ = 3 + ½·2 − 1 = 3      δ₁ = 2 + ½·1 − 1 = 1.5   δ₀ = 1 + ½·1 − 1 = 0.5
                 A₂ = 3                    A₁ = 1.5 + ¼·3 = 2.25    A₀ = 0.5 + ¼·2.25 = 1.0625
    Terminated   δ₁ = 2 + 0 − 1 = 1        A₁ = 1                   A₀ = 0.5 + ¼·1 = 0.75
    at t = 1:
    Truncated at t = 1, last observation worth 4:
                 δ₁ = 2 + ½·4 − 1 = 3      A₁ = 3                   A₀ = 0.5 + ¼·3 = 1.25
    """
    rollout = rollout_of(
        reward=[[1, 1, 1], [2, 2, 2], [3, 3, 3]],
        value=[[1, 1, 1]] * 3,
        done=[[False] * 3, [False, True, True], [False] * 3],
        final_value=[[0, 0, 0], [0, 0, 4], [0, 0, 0]],
    )
    hyperparams = Hyperparams(gamma=0.5, gae_lambda=0.5)
    advantages, targets = gae(rollout, jnp.array([2.0, 2.0, 2.0]), hyperparams)
    expected = [[1.0625, 0.75, 1.25], [2.25, 1, 3], [3, 3, 3]]
    assert advantages.tolist() == expected
    assert targets.tolist() == [[advantage + 1 for advantage in row] for row in expected]


@settings(max_examples=20, deadline=None)
@given(
    rewards=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    values=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    gamma=st.floats(0, 1, width=32),
)
def test_lambda_one_telescopes_to_discounted_rewards(
    rewards: list[float], values: list[float], gamma: float
) -> None:
    # With λ = 1 the values cancel: target_t = Σ γ^k·r_{t+k} + γ^{T−t}·v_last.
    rollout = rollout_of([[r] for r in rewards], [[v] for v in values], [[False]] * 4, [[0.0]] * 4)
    _, targets = gae(rollout, jnp.array([1.0]), Hyperparams(gamma=gamma, gae_lambda=1.0))
    expected = 1.0
    for step in reversed(range(4)):
        expected = rewards[step] + gamma * expected
        assert float(targets[step, 0]) == pytest.approx(expected, abs=1e-4)
