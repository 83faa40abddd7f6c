"""The types that PPO passes around: what is static, what is traced, what is collected.

Read this first. Shape letters, used throughout `tuner.ppo`: `T` = `num_steps`, `B` = `num_envs`,
`N = T·B` env-steps of one update, `M` rows of a minibatch, `O` = the shape of one observation,
`D` = the number of components of a continuous action.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Activation: TypeAlias = Literal["tanh", "relu", "elu", "swish"]
LrSchedule: TypeAlias = Literal["constant", "linear"]

Metrics: TypeAlias = dict[str, Float[Array, ""]]
"""Float32 scalars by name; NaN where there is nothing to say, as a return without episodes."""


@dataclass(frozen=True, slots=True)
class PPOConfig:
    """Everything that fixes shapes or code: hashable, and a new value compiles a new program.

    `dtype` is what the networks compute in; parameters, losses and returns stay float32.
    `microbatch` is the number of rows whose gradient, or values, are computed at once: it changes
    memory and speed, not learning. None leaves the choice to `tuner.ppo.update.microbatch_size`.

    `lr_schedule` is explained in `tuner.ppo.schedule`, `normalize_obs` and `normalize_reward` in
    `tuner.ppo.normalize`, `clip_value_loss` in `tuner.ppo.loss`. What is switched off is no part of
    the program.

    Raises:
        ValueError: A number is not positive, a name is unknown, or the batch does not divide into
            its minibatches.
    """

    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int
    network: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    dtype: Literal["float32", "bfloat16"] = "float32"
    microbatch: int | None = None
    lr_schedule: LrSchedule = "constant"
    normalize_obs: bool = False
    normalize_reward: bool = False
    clip_value_loss: bool = False

    def __post_init__(self) -> None:
        sizes = {
            "num_envs": self.num_envs,
            "num_steps": self.num_steps,
            "num_minibatches": self.num_minibatches,
            "num_epochs": self.num_epochs,
            **{f"network[{index}]": width for index, width in enumerate(self.network)},
        }
        if self.microbatch is not None:
            sizes["microbatch"] = self.microbatch
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, but got {size}; choose a larger one")
        if self.batch_size % self.num_minibatches:
            raise ValueError(
                f"num_envs × num_steps must be a multiple of num_minibatches, but got "
                f"{self.batch_size} and {self.num_minibatches}; use powers of two"
            )
        _require_choice("activation", self.activation, get_args(Activation))
        _require_choice("lr_schedule", self.lr_schedule, get_args(LrSchedule))
        _require_choice("dtype", self.dtype, ("float32", "bfloat16"))

    @property
    def batch_size(self) -> int:
        """Env-steps that one update collects, `N`."""
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        """Env-steps in one gradient step, `M`."""
        return self.batch_size // self.num_minibatches


class Layer(NamedTuple):
    """One affine map: `kernel: [inputs, outputs]`, `bias: [outputs]`, float32."""

    kernel: Array
    bias: Array


MLP: TypeAlias = tuple[Layer, ...]


class Params(NamedTuple):
    """Parameters of the two networks; the leaves that learning changes.

    `log_std: [D]` is the Gaussian policy's logarithm of σ, the same in every state; None where
    actions are discrete.
    """

    policy: MLP
    value: MLP
    log_std: Array | None = None


class Hyperparams(NamedTuple):
    """PPO's scalars: float32 arrays once inside a `Carry`, so that no change compiles anew.

    `max_grad_norm` clips the global norm of the gradient; `adam_eps` is added to what Adam divides
    by: parameters whose gradients are about that small learn slower. `vf_clip_eps` is used under
    `PPOConfig.clip_value_loss` only, `lr_anneal_env_steps` under a linear `lr_schedule`: the
    env-steps after which the rate is 0, by default never.
    """

    learning_rate: Array | float = 3e-4
    gamma: Array | float = 0.99
    gae_lambda: Array | float = 0.95
    clip_eps: Array | float = 0.2
    ent_coef: Array | float = 0.01
    vf_coef: Array | float = 0.5
    max_grad_norm: Array | float = 0.5
    vf_clip_eps: Array | float = 0.2
    adam_eps: Array | float = 1e-8
    lr_anneal_env_steps: Array | float = math.inf

    def as_arrays(self) -> "Hyperparams":
        """Return the same values as float32 arrays of shape []."""
        return Hyperparams(*(jnp.asarray(value, jnp.float32) for value in self))


class Envs(NamedTuple):
    """Where the `B` environments stand between two steps.

    `state` is theirs, `obs: [B, *O]` what they show now, `episode_return: [B]` the reward since
    each one's reset.
    """

    state: Any
    obs: Array
    episode_return: Array


class RunningStats(NamedTuple):
    """Mean and variance of all values seen so far, and how many those were.

    `num_values: []` float32; `mean` and `variance` have the shape of one value, `[*O]` or [].
    """

    num_values: Array
    mean: Array
    variance: Array


class ReturnStats(NamedTuple):
    """What rewards are scaled by: `stats` of the discounted returns, `discounted: [B]` their sums.

    `discounted` is the sum of each environment's rewards since its reset, each discounted by the
    steps since.
    """

    stats: RunningStats
    discounted: Array


class Actor(NamedTuple):
    """What acting needs: the parameters, and the statistics that observations are seen through.

    `obs_stats` is None without `PPOConfig.normalize_obs`.
    """

    params: Params
    obs_stats: RunningStats | None = None


class Carry(NamedTuple):
    """All that one update hands to the next; every leaf is an array and may be donated.

    `env_steps: []` counts the env-steps learned from so far, uint32; at 2³² − 1 it stays there.
    `obs_stats` and `return_stats` are None unless `PPOConfig` asks for them.
    """

    params: Params
    opt_state: Any
    envs: Envs
    key: PRNGKeyArray
    hyperparams: Hyperparams
    env_params: Any
    env_steps: Array
    obs_stats: RunningStats | None = None
    return_stats: ReturnStats | None = None

    @property
    def actor(self) -> Actor:
        """What acts now; shares its leaves with the carry."""
        return Actor(self.params, self.obs_stats)


class Transition(NamedTuple):
    """One step of all environments; stacked over a rollout every leaf is `[T, B, …]`.

    `obs: [B, *O]` is what was acted on, raw; `value` and `log_prob` are the policy's at that time.
    `action` is `[B]` int32 or `[B, D]` float32, as sampled, before any clipping to its bounds.
    `final_value` is the value of an episode's last observation where a time limit cut it, else 0:
    it takes the place of the next value wherever `done`. `mask: [B, actions]` says which actions
    were allowed; None in environments without masks.
    """

    obs: Array
    action: Array
    log_prob: Array
    value: Array
    reward: Array
    done: Array
    final_value: Array
    mask: Array | None = None


class Batch(NamedTuple):
    """What the loss needs of `N` (or fewer) env-steps; every leaf is `[N, …]`.

    `obs` is what the networks saw: normalised under `PPOConfig.normalize_obs`. `mask` is None in
    environments without masks, `value` (of the network that acted) without
    `PPOConfig.clip_value_loss`.
    """

    obs: Array
    action: Array
    log_prob: Array
    advantage: Array
    target: Array
    mask: Array | None = None
    value: Array | None = None


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but got {value!r}")
