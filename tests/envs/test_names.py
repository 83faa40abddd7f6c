import subprocess
import sys

import pytest

from envs import names
from envs.errors import EnvError, UnknownEnvironment
from envs.names import EnvName, parse


def test_accepted_names_are_split_into_kind_and_name() -> None:
    assert parse("stress") == EnvName("stress", "stress", "stress")
    assert parse("gymnax:CartPole-v1") == EnvName("gymnax", "CartPole-v1", "gymnax:CartPole-v1")
    assert parse("gymnax:Pendulum-v1") == EnvName("gymnax", "Pendulum-v1", "gymnax:Pendulum-v1")


@pytest.mark.parametrize(
    ("spec", "suggestion"),
    [
        ("stres", "did you mean stress?"),
        ("gymnax:Cartpole-v1", "did you mean gymnax:CartPole-v1?"),
        ("CartPole-v1", "did you mean gymnax:CartPole-v1?"),
        ("pendulum-v1", "did you mean gymnax:Pendulum-v1?"),
        ("gymnax:Breakout", "did you mean gymnax:Breakout-MinAtar?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(spec: str, suggestion: str) -> None:
    with pytest.raises(UnknownEnvironment, match="must be one of stress, gymnax:") as error:
        parse(spec)
    assert str(error.value).endswith(suggestion)
    assert repr(spec) in str(error.value)


@pytest.mark.parametrize("spec", ["", "gymnax:", "trading-phase1", "brax:ant", "module:factory"])
def test_what_is_not_offered_is_refused(spec: str) -> None:
    with pytest.raises(UnknownEnvironment):
        parse(spec)


def test_what_downloads_is_refused_as_such() -> None:
    with pytest.raises(UnknownEnvironment, match="downloads a data set"):
        parse("gymnax:MNISTBandit-bsuite")


def test_errors_are_standard_errors_too() -> None:
    assert issubclass(UnknownEnvironment, EnvError)
    assert issubclass(UnknownEnvironment, ValueError)


def test_the_table_is_gymnax_own_registry() -> None:
    import gymnax
    from gymnax.environments import spaces

    tables = (names.GYMNAX_DISCRETE, names.GYMNAX_CONTINUOUS, names.GYMNAX_DOWNLOADS)
    assert frozenset().union(*tables) == set(gymnax.registered_envs)
    assert sum(map(len, tables)) == len(gymnax.registered_envs)
    for name in names.GYMNAX:
        env, params = gymnax.make(name)
        is_discrete = isinstance(env.action_space(params), spaces.Discrete)
        assert is_discrete == (name in names.GYMNAX_DISCRETE), name


def test_checking_a_name_needs_the_standard_library_only() -> None:
    script = (
        "import sys; import envs.names; "
        "print([m for m in ('jax', 'numpy', 'gymnax') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
