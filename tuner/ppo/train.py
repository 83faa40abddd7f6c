"""PPO (arXiv 1707.06347) as two pure functions: make the first carry, and update it.

One update is: collect a rollout, estimate advantages, then epochs of minibatches on the clipped
loss. Everything that may change between two updates is a traced leaf of the carry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from envs.base import Environment, EnvParams, strongly_typed
from tuner.ppo.chance import draw
from tuner.ppo.distributions import action_noise, max_entropy
from tuner.ppo.gae import gae
from tuner.ppo.networks import init_params, policy_of, sigma_share, value_of
from tuner.ppo.normalize import (
    fresh_return_stats,
    fresh_stats,
    merge,
    normalize_obs,
    scale_reward,
)
from tuner.ppo.rollout import collect_rollout, mean_return, start_envs
from tuner.ppo.schedule import advanced, scheduled
from tuner.ppo.types import (
    Actor,
    Batch,
    Carry,
    Hyperparams,
    Metrics,
    Params,
    PPOConfig,
    Transition,
)
from tuner.ppo.update import Learner, learn, microbatch_size, optimizer


@dataclass(frozen=True, slots=True)
class PPO:
    """PPO for one static configuration and one environment.

    `params_fn(key)` draws parameters. `init_fn(key, hyperparams, env_params, params=None)` returns
    a carry that shares no buffer with its arguments or within itself, so it may be donated; its
    parameters are `params_fn(key)` unless given. They are apart because the orthogonal start takes
    seconds to compile and, unlike the rest, not anew for every hardware config.
    `update_fn(carry)` collects and learns from `num_envs × num_steps` env-steps and returns the
    carry and `Metrics`. `policy_fn(actor, key, obs, mask)` samples actions; `carry.actor` is an
    actor. `microbatch` is the number of rows it was resolved to.
    """

    params_fn: Callable[[PRNGKeyArray], Params]
    init_fn: Callable[..., Carry]
    update_fn: Callable[[Carry], tuple[Carry, Metrics]]
    policy_fn: Callable[[Actor, PRNGKeyArray, Array, Array | None], Array]
    microbatch: int


def make_ppo(config: PPOConfig, env: Environment) -> PPO:
    """Bind PPO to its static configuration.

    Args:
        config: Sizes, networks and dtype.
        env: The environment; its parameters are given to `init_fn`.

    Returns:
        Pure functions, to be compiled by the caller:
        `jax.jit(ppo.update_fn, donate_argnums=0)`.
    """
    return PPO(
        params_fn=partial(_init_params, env=env, config=config),
        init_fn=partial(_init, env=env, config=config),
        update_fn=partial(_update, env=env, config=config),
        policy_fn=partial(_sample_action, env=env, config=config),
        microbatch=microbatch_size(config),
    )


def _init_params(key: PRNGKeyArray, *, env: Environment, config: PPOConfig) -> Params:
    params_key = jax.random.split(key, 3)[1]
    return init_params(params_key, config, obs_shape=env.obs_shape, action_space=env.action_space)


def _init(
    key: PRNGKeyArray,
    hyperparams: Hyperparams,
    env_params: EnvParams,
    params: Params | None = None,
    *,
    env: Environment,
    config: PPOConfig,
) -> Carry:
    if params is None:
        params = _init_params(key, env=env, config=config)
    key, _, env_key = jax.random.split(key, 3)  # the second one drew the parameters
    hyperparams = hyperparams.as_arrays()
    env_params = strongly_typed(env_params)
    carry = Carry(
        params=params,
        opt_state=optimizer(hyperparams).init(params),
        envs=start_envs(env, env_key, env_params, num_envs=config.num_envs),
        key=key,
        hyperparams=hyperparams,
        env_params=env_params,
        env_steps=jnp.zeros((), jnp.uint32),
        obs_stats=fresh_stats(env.obs_shape) if config.normalize_obs else None,
        return_stats=fresh_return_stats(config.num_envs) if config.normalize_reward else None,
    )
    # An argument passed through, or an observation that is also part of the state, would be one
    # buffer in two places, and a donated carry would then destroy what its owner still needs.
    owned: Carry = jax.tree.map(jnp.copy, carry)
    return owned


def _update(carry: Carry, *, env: Environment, config: PPOConfig) -> tuple[Carry, Metrics]:
    chance = draw(carry.key, env.action_space, config)
    hyperparams = scheduled(carry.hyperparams, carry.env_steps, config)

    envs, raw, stats = collect_rollout(carry, chance, env=env, config=config)
    carry, rollout = _normalize(carry, raw)
    last_value = value_of(carry.params, normalize_obs(carry.obs_stats, envs.obs), config)
    advantages, targets = gae(rollout, last_value, hyperparams)
    learner, steps = learn(
        Learner(carry.params, carry.opt_state),
        _flatten(rollout, advantages, targets, config=config),
        epoch_keys=chance.epoch_keys,
        hyperparams=hyperparams,
        config=config,
    )

    metrics = {
        "mean_return": mean_return(stats, env=env, num_env_steps=config.batch_size),
        "explained_variance": _explained_variance(rollout.value, targets),
        "grad_norm": steps.grad_norm,
        **steps.loss._asdict(),
        **_exploration(learner.params, rollout),
    }
    carry = carry._replace(
        params=learner.params,
        opt_state=learner.opt_state,
        envs=envs,
        key=chance.next_key,
        env_steps=advanced(carry.env_steps, config),
        obs_stats=None if carry.obs_stats is None else merge(carry.obs_stats, raw.obs),
    )
    return carry, metrics


def _normalize(carry: Carry, raw: Transition) -> tuple[Carry, Transition]:
    """Return the rollout as the networks see it, and the carry with merged returns.

    The statistics of observations are left as they are: the rest of the update needs them still.
    """
    rollout = raw._replace(obs=normalize_obs(carry.obs_stats, raw.obs))
    if carry.return_stats is None:
        return carry, rollout
    return_stats, reward = scale_reward(
        carry.return_stats, raw.reward, raw.done, hyperparams=carry.hyperparams
    )
    return carry._replace(return_stats=return_stats), rollout._replace(reward=reward)


def _exploration(params: Params, rollout: Transition) -> Metrics:
    """Return what a policy's certainty is judged against, where `entropy` alone does not tell.

    `sigma_share` of a Gaussian policy: its σ over its start. `max_entropy` of a masked one: the
    mean over the batch of the entropy that the allowed actions leave room for.
    """
    metrics: Metrics = {}
    if params.log_std is not None:
        metrics["sigma_share"] = sigma_share(params.log_std)
    if rollout.mask is not None:
        metrics["max_entropy"] = max_entropy(rollout.mask).mean()
    return metrics


def _sample_action(
    actor: Actor,
    key: PRNGKeyArray,
    obs: Shaped[Array, "B ..."],
    mask: Bool[Array, "B actions"] | None = None,
    *,
    env: Environment,
    config: PPOConfig,
) -> Shaped[Array, "B ..."]:
    seen = normalize_obs(actor.obs_stats, obs)
    noise = action_noise(key, env.action_space, obs.shape[:1])
    return policy_of(actor.params, seen, config, mask=mask).sample(noise)


def _flatten(
    rollout: Transition,
    advantages: Float[Array, "T B"],
    targets: Float[Array, "T B"],
    *,
    config: PPOConfig,
) -> Batch:
    """Turn `[T, B, …]` into `[T·B, …]`, keeping what the loss needs."""
    batch = Batch(
        obs=rollout.obs,
        action=rollout.action,
        log_prob=rollout.log_prob,
        advantage=advantages,
        target=targets,
        mask=rollout.mask,
        value=rollout.value if config.clip_value_loss else None,
    )
    flat: Batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    return flat


def _explained_variance(
    values: Float[Array, "T B"], targets: Float[Array, "T B"]
) -> Float[Array, ""]:
    """Return 1 − Var(target − value) / Var(target); NaN where the targets do not vary."""
    variance = targets.var()
    return jnp.where(variance > 0, 1 - (targets - values).var() / variance, jnp.nan)
