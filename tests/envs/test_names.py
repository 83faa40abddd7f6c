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
        ("trading-phase3", "did you mean trading-phase2?"),
        ("trading_phase2", "did you mean trading-phase2?"),
        ("brax:ants", "did you mean brax:ant?"),
        ("gymnax:ant", "did you mean brax:ant?"),
        ("my_env.make_env", "did you mean my_env:make_env?"),
        ("my_env.py:make_env", "did you mean my_env:make_env?"),
        ("code/my_env.py", "did you mean code.my_env:FACTORY?"),
        ("humanoid", "did you mean brax:humanoid?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(spec: str, suggestion: str) -> None:
    with pytest.raises(UnknownEnvironment, match="the environment must be ") as error:
        parse(spec)
    assert str(error.value).endswith(suggestion)
    assert repr(spec) in str(error.value)


def test_the_nearest_name_is_told_without_a_list_of_all() -> None:
    with pytest.raises(UnknownEnvironment) as error:
        parse("gymnax:CartPole")
    assert len(str(error.value)) < 130
    assert "one of the 25 that begin with gymnax:" in str(error.value)


def test_the_names_of_every_kind_are_accepted() -> None:
    assert parse("trading-phase2") == EnvName("trading", "trading-phase2", "trading-phase2")
    assert parse("brax:ant") == EnvName("brax", "ant", "brax:ant")
    assert parse("my_envs.nav:make") == EnvName("factory", "my_envs.nav:make", "my_envs.nav:make")


def test_a_wrong_name_of_a_kind_lists_that_kind() -> None:
    with pytest.raises(UnknownEnvironment, match=r"one of brax:ant, .*brax:walker2d, but"):
        parse("brax:dog")
    with pytest.raises(UnknownEnvironment, match=r"one of gymnax:Acrobot-v1, .*Chain-bsuite, but"):
        parse("gymnax:dog")
    with pytest.raises(UnknownEnvironment, match=r"must be stress, trading-phase1, .* or your own"):
        parse("dog")


def test_only_trading_has_phases() -> None:
    specs = ("trading-phase1", "trading-phase2", "stress", "gymnax:CartPole-v1", "my_envs:make")
    assert [parse(spec).phase for spec in specs] == [1, 2, None, None, None]


@pytest.mark.parametrize(
    "spec", ["", "gymnax:", "brax:", "brax:Ant", ":make", "module:", "a-b:make", "a.b", "m:f:g"]
)
def test_what_is_not_offered_is_refused(spec: str) -> None:
    with pytest.raises(UnknownEnvironment):
        parse(spec)


@pytest.mark.parametrize("package", ["envs", "storage", "tuner"])
def test_a_module_that_ours_would_hide_is_refused_with_the_remedy(package: str) -> None:
    with pytest.raises(UnknownEnvironment, match=f"is a package of tuner; rename.*my_{package}"):
        parse(f"{package}.mine:make")
    assert parse(f"my_{package}:make").kind == "factory"


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
