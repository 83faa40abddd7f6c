import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.base import Box
from envs.brax_adapter import BACKENDS, make_brax
from envs.errors import InvalidEnvParam
from envs.names import BRAX
from tests.envs.jaxprs import impurities

LIGHT = ("fast", "inverted_pendulum")


@pytest.fixture(autouse=True)
def their_ranks() -> Iterator[None]:
    """Let brax promote ranks; only ours must not."""
    with jax.numpy_rank_promotion("allow"):
        yield


def their_environment(name: str, episode_length: int) -> Any:
    """Return brax's own, in the backend that compiles the quickest."""
    from brax import envs
    from brax.envs.wrappers.training import EpisodeWrapper

    return EpisodeWrapper(
        envs.get_environment(name, backend="spring"), episode_length, action_repeat=1
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["fast", pytest.param("inverted_pendulum", marks=pytest.mark.long)]
)
def test_a_trajectory_equals_that_of_brax_own_wrapper_until_done(name: str) -> None:
    length = 12
    env, params = make_brax(name, {"episode_length": length, "backend": "spring"})
    theirs = their_environment(name, length)
    key = jax.random.key(0)
    # Of one program each, in which the compiler finds the same physics twice and keeps it once.
    (obs, state), their_state = jax.jit(lambda key: (env.reset(key, params), theirs.reset(key)))(
        key
    )
    assert jnp.array_equal(obs, their_state.obs)
    # Always pushing right topples the pendulum before the limit; `fast` never terminates.
    action = jnp.ones(env.action_space.shape)
    step = jax.jit(
        lambda ours, other: (env.step(key, ours, action, params), theirs.step(other, action))
    )

    for index in range(length):
        ours, their_state = step(state, their_state)
        assert jnp.array_equal(ours.obs, their_state.obs)
        assert float(ours.reward) == float(their_state.reward)
        assert bool(ours.truncated) == bool(index + 1 == length)
        assert bool(ours.terminated | ours.truncated) == bool(their_state.done)
        cut = ours.truncated & ~ours.terminated
        assert bool(cut) == bool(their_state.info["truncation"])
        state = ours.state
        if bool(ours.terminated):
            break
    assert bool(ours.terminated) == (name == "inverted_pendulum")
    assert bool(their_state.done)


@pytest.mark.parametrize("name", LIGHT)
def test_it_is_pure_and_of_stable_types(name: str) -> None:
    env, params = make_brax(name, {})
    key = jax.random.key(0)
    obs, state = jax.eval_shape(env.reset, key, params)
    action = jnp.zeros(env.action_space.shape)
    timestep = jax.eval_shape(env.step, key, state, action, params)
    assert obs.shape == env.obs_shape
    assert timestep.obs == obs
    assert timestep.state == state
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, timestep)))
    assert timestep.reward == jax.ShapeDtypeStruct((), jnp.float32)
    assert timestep.terminated == timestep.truncated == jax.ShapeDtypeStruct((), jnp.bool_)
    assert impurities(env.reset, key, params) == []
    assert impurities(env.step, key, state, action, params) == []


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(BRAX))
def test_every_environment_steps_in_every_backend(name: str) -> None:
    for backend in BACKENDS:
        env, params = make_brax(name, {"backend": backend})
        obs, state = jax.eval_shape(env.reset, jax.random.key(0), params)
        action = jnp.zeros(env.action_space.shape)
        timestep = jax.eval_shape(env.step, jax.random.key(0), state, action, params)
        assert (timestep.obs, timestep.state) == (obs, state)
        assert impurities(env.step, jax.random.key(0), state, action, params) == []


def test_only_the_physics_and_a_clock_are_carried() -> None:
    env, params = make_brax("fast", {})
    _, state = env.reset(jax.random.key(0), params)
    assert state._fields == ("physics", "clock")
    assert not hasattr(state.physics, "obs")


def test_sizes_and_parameters() -> None:
    env, params = make_brax("fast", {})
    assert (env.obs_shape, env.action_space) == ((2,), Box((-1.0,), (1.0,), (1,)))
    assert (env.eval_steps, params, env.best_return(params)) == (1000, (), None)
    assert env.bootstraps_truncation
    given = {"episode_length": "7", "best_return": 3, "backend": "spring"}
    env, params = make_brax("fast", given)
    assert (env.eval_steps, env.best_return(params)) == (7, 3.0)
    chosen, _ = make_brax("inverted_pendulum", {"backend": "positional"})
    assert chosen.inner.inner.backend == "positional"


def test_stagger_sets_the_clock_only() -> None:
    env, params = make_brax("fast", {"episode_length": 8})
    _, state = env.reset(jax.random.key(0), params)
    staggered = env.stagger(state, jnp.float32(0.8))
    assert int(staggered.clock) == 6
    timestep = env.step(jax.random.key(0), staggered, jnp.ones(1), params)
    assert not bool(timestep.truncated)
    assert bool(env.step(jax.random.key(0), timestep.state, jnp.ones(1), params).truncated)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backend": "warp"}, "env param backend must be one of generalized, positional, spring, "
         "mjx, but got 'warp'; leave it out (environment fast)"),
        ({"bakend": "mjx"}, "must be one of backend, best_return, episode_length, but got "
         "'bakend'; did you mean backend?"),
        ({"episode_length": 0}, "episode_length must be at least 1, but got 0; leave it out"),
        ({"episode_length": "long"}, "episode_length of fast must be a whole number"),
    ],
)  # fmt: skip
def test_parameters_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEnvParam) as error:
        make_brax("fast", given)
    assert message in str(error.value)


def test_the_table_is_brax_own_registry_without_what_fails() -> None:
    make_brax("fast", {})  # imports brax quietly
    from brax import envs

    assert BRAX | {"swimmer"} == set(envs._envs)
    # brax 0.14.2 calls jnp.clip there by an argument that JAX no longer has.
    env, params = make_brax("swimmer", {})
    _, state = jax.eval_shape(env.reset, jax.random.key(0), params)
    with pytest.raises(TypeError, match="a_min"):
        jax.eval_shape(env.step, jax.random.key(0), state, jnp.zeros(2), params)


def test_a_backend_that_an_environment_does_not_support_is_refused() -> None:
    with pytest.raises(InvalidEnvParam, match=r"backend of swimmer must be .* Unsupported backend"):
        make_brax("swimmer", {"backend": "mjx"})


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    script = f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_a_process_that_uses_it_prints_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    """The half-cheetah's model makes MuJoCo write a log file in the working directory."""
    done = run(
        "from envs.brax_adapter import make_brax\n"
        "import jax\n"
        "env, params = make_brax('halfcheetah', {})\n"
        "jax.eval_shape(env.reset, jax.random.key(0), params)\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_without_brax_the_extra_is_named(tmp_path: Path) -> None:
    done = run(
        "sys.modules['brax'] = None\n"
        "from envs.brax_adapter import make_brax\n"
        "from envs.errors import UnknownEnvironment\n"
        "try:\n"
        "    make_brax('fast', {})\n"
        "except UnknownEnvironment as error:\n"
        "    print(error)\n",
        tmp_path,
    )
    assert done.stdout == (
        "an environment of brax needs brax, but got no module 'brax'; "
        "install the extra: pip install -e '.[brax]'\n"
    )
