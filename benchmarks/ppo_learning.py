"""What our PPO learns beside rejax's: same environment, budget, network and hyperparameters.

    .venv/bin/python benchmarks/ppo_learning.py            20 or 5 seeds each: twenty minutes
    .venv/bin/python benchmarks/ppo_learning.py --quick    CartPole, 3 seeds
    .venv/bin/python benchmarks/ppo_learning.py --only Acrobot-v1

Hyperparameters are those that rejax publishes for its own PPO. Ours is trained twice: with the
value loss clipped, as rejax's is, and as studies train unless told otherwise, with no clip.
Pendulum is also trained with scaled rewards on both sides: without them our values, which look past
a time limit, have further to go, and their gradient, clipped together with the policy's, may leave
it little. The final policy of
every seed is evaluated by rejax's evaluation, ours as well: the first whole episode of 128 fresh
environments.
Groups of seeds are compared by their interquartile means with bootstrap intervals (arXiv
2108.13264); seeds are independent, and what the time of training was does not count here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from gymnax_five_values import make_five_values
from peer import PeerConfig
from peer_ours import ppo_config
from peer_rejax import make_rejax
from ppo_document import deliver, facts, parser_of, say, this_device
from ppo_statistics import bootstrap, bootstrap_relative
from rejax.evaluate import evaluate

from envs.errors import EnvError
from envs.registry import make
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, PPOConfig

EPISODES = 128
QUICK_SEEDS = 3
WORST_RATIO = 0.9
WAYS = {"clipped": True, "as studies": PPOConfig(1, 1, 1, 1).clip_value_loss}
"""Whether the value loss is clipped, by what the table calls a way to train. Adam's ε is optax's in
all of them, which rejax leaves as it is, too."""

Trainer = Callable[[jax.Array], jax.Array]
"""`train(key) -> returns [EPISODES]` of the final policy."""


@dataclass(frozen=True, slots=True)
class Task:
    """An environment, what is trained on it, and for how long."""

    peer: PeerConfig
    env_steps: int
    num_seeds: int
    normalize_obs: bool = False
    normalize_reward: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        return self.peer.env + (", scaled" if self.normalize_reward else "")

    @property
    def updates(self) -> int:
        """Updates that reach the budget."""
        return -(-self.env_steps // self.peer.batch_size)


def _hyperparams(**change: float) -> dict[str, float]:
    shared = PeerConfig(num_envs=1, num_steps=1, num_minibatches=1, num_epochs=1).hyperparams
    return shared | change


CARTPOLE = Task(
    PeerConfig(
        num_envs=5,
        num_steps=100,
        num_minibatches=5,
        num_epochs=5,
        hyperparams=_hyperparams(learning_rate=7.5e-4),
    ),
    env_steps=100_000,
    num_seeds=20,
)
PENDULUM = Task(
    PeerConfig(
        env="Pendulum-v1",
        num_envs=100,
        num_steps=100,
        num_minibatches=10,
        num_epochs=10,
        activation="swish",
        hyperparams=_hyperparams(learning_rate=1e-3, gamma=0.995, ent_coef=0.0, max_grad_norm=10.0),
    ),
    env_steps=150_000,
    num_seeds=20,
    normalize_obs=True,
)
TASKS = (
    CARTPOLE,
    replace(CARTPOLE, peer=replace(CARTPOLE.peer, env="Acrobot-v1"), normalize_obs=True),
    Task(
        PeerConfig(
            env="Breakout-MinAtar",
            num_envs=32,
            num_steps=32,
            num_minibatches=4,
            num_epochs=4,
            hyperparams=_hyperparams(learning_rate=2.57e-4, gamma=0.995, max_grad_norm=1.0),
        ),
        env_steps=1_000_000,
        num_seeds=5,
    ),
    PENDULUM,
    replace(PENDULUM, normalize_reward=True),
)

DIFFERENCES = (
    "rejax: value loss clipped, gradients clipped element-wise, two Adams, truncation treated as "
    "an ending, flax's default initialisation, an observation normalised by statistics that change "
    "within the rollout. Ours: the value loss as in its column, gradients clipped by "
    "global norm, one Adam, truncation bootstraps, orthogonal initialisation, statistics of before "
    "the update."
)


def main() -> None:
    """Train, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", action="append", help="an environment (default: all)")
    parser.add_argument("--seeds", type=int, help="seeds of each environment")
    arguments = parser.parse_args()
    tasks = [CARTPOLE] if arguments.quick and not arguments.only else list(TASKS)
    if arguments.only:
        tasks = [task for task in TASKS if task.peer.env in arguments.only]
    seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else None)
    document = facts(this_device()) | {
        "differences": DIFFERENCES,
        "episodes": EPISODES,
        "worst_ratio": WORST_RATIO,
        "environments": [row for task in tasks for row in compare(task, seeds or task.num_seeds)],
    }
    deliver(document, table_of(document), arguments)


def compare(task: Task, num_seeds: int) -> list[dict[str, Any]]:
    """Return a row of the document for each way, or one with a reason where ours is refused."""
    about: dict[str, Any] = {
        "name": task.name,
        "env": task.peer.env,
        **task.peer.sizes,
        "env_steps": task.updates * task.peer.batch_size,
        "network": list(task.peer.network),
        "activation": task.peer.activation,
        "normalize_obs": task.normalize_obs,
        "normalize_reward": task.normalize_reward,
        "hyperparams": task.peer.hyperparams,
        "seeds": num_seeds,
    }
    try:
        trainers = {name: ours_trainer(task, clip_value_loss=way) for name, way in WAYS.items()}
    except EnvError as error:
        say(f"{task.peer.env}: skipped: {error}")
        return [about | {"skipped": str(error)}]
    theirs = returns_of(rejax_trainer(task), f"{task.name}: rejax", num_seeds)
    rows = []
    for way, trainer in trainers.items():
        mine = returns_of(trainer, f"{task.name}: ours, {way}", num_seeds)
        ratio = bootstrap_relative(mine, theirs)
        rows.append(
            about
            | {
                "way": way,
                "ours": _group(mine),
                "peers": {"rejax": _group(theirs)},
                "ratio": ratio.value,
                "ratio_ci95": [ratio.lower, ratio.upper],
                "reaches_worst_ratio": ratio.value >= WORST_RATIO,
            }
        )
    return rows


def ours_trainer(task: Task, *, clip_value_loss: bool) -> Trainer:
    """Return a compiled training of our PPO; EnvError where the environment is refused."""
    peer = task.peer
    env, env_params = make(f"gymnax:{peer.env}", {})
    config = replace(
        ppo_config(peer),
        normalize_obs=task.normalize_obs,
        normalize_reward=task.normalize_reward,
        clip_value_loss=clip_value_loss,
    )
    ppo = make_ppo(config, env)
    hyperparams = Hyperparams(**peer.hyperparams)

    def train(key: jax.Array) -> jax.Array:
        train_key, eval_key = jax.random.split(key)
        carry = ppo.init_fn(train_key, hyperparams, env_params)
        carry = jax.lax.fori_loop(0, task.updates, lambda _, carry: ppo.update_fn(carry)[0], carry)

        def act(obs: jax.Array, act_key: jax.Array) -> jax.Array:
            return ppo.policy_fn(carry.actor, act_key, obs[None], None)[0]

        return _evaluate(act, eval_key, peer.env)

    return jax.jit(train)


def rejax_trainer(task: Task) -> Trainer:
    """Return a compiled training of rejax's PPO."""
    ppo = make_rejax(task.peer).replace(
        normalize_observations=task.normalize_obs, normalize_rewards=task.normalize_reward
    )

    def train(key: jax.Array) -> jax.Array:
        train_key, eval_key = jax.random.split(key)
        state = jax.lax.fori_loop(
            0,
            task.updates,
            lambda _, state: ppo.train_iteration(state),
            ppo.init_state(train_key),
        )
        return _evaluate(ppo.make_act(state), eval_key, task.peer.env)

    return jax.jit(train)


def returns_of(train: Trainer, name: str, num_seeds: int) -> list[float]:
    """Return the mean return of each seed's final policy."""
    means = []
    for seed in range(num_seeds):
        means.append(float(train(jax.random.PRNGKey(seed)).mean()))
        say(f"{name}, seed {seed}: {means[-1]:.1f}")
    return means


def _evaluate(act: Callable[..., jax.Array], key: jax.Array, env_name: str) -> jax.Array:
    env, env_params = make_five_values(env_name)
    _, returns = evaluate(act, key, env, env_params, EPISODES, env_params.max_steps_in_episode)
    return jnp.asarray(returns)


def _group(returns: list[float]) -> dict[str, Any]:
    estimate = bootstrap(returns)
    return {
        "iqm": estimate.value,
        "iqm_ci95": [estimate.lower, estimate.upper],
        "returns": returns,
    }


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    lines = [
        "interquartile mean of seeds' returns [95 % interval]; ratio 1 + (ours − rejax) / |rejax|",
        f"{'environment':<20}{'way':>11}{'env-steps':>11}{'seeds':>6}"
        f"{'ours':>28}{'rejax':>28}{'ratio':>22}",
    ]
    for row in document["environments"]:
        head = f"{row['name']:<20}{row.get('way', ''):>11}{row['env_steps']:>11,}{row['seeds']:>6}"
        if "skipped" in row:
            lines.append(f"{head}  skipped: {row['skipped']}")
            continue
        groups = (row["ours"], row["peers"]["rejax"])
        cells = [_interval(group["iqm"], group["iqm_ci95"], ".1f") for group in groups]
        ratio = _interval(row["ratio"], row["ratio_ci95"], ".2f")
        lines.append(f"{head}{cells[0]:>28}{cells[1]:>28}{ratio:>22}")
    return "\n".join([*lines, document["differences"]])


def _interval(value: float, bounds: list[float], form: str) -> str:
    return f"{value:{form}} [{bounds[0]:{form}}, {bounds[1]:{form}}]"


if __name__ == "__main__":
    main()
