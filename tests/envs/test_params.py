import pytest

from envs.errors import InvalidEnvParam
from envs.params import RawValue, Scalar, read

KINDS: dict[str, type[Scalar]] = {"rate": float, "size": int, "random": bool}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": "0.5"}, {"rate": 0.5}),
        ({"rate": 2}, {"rate": 2.0}),
        ({"size": "32"}, {"size": 32}),
        ({"size": 32.0}, {"size": 32}),
        ({"random": "True"}, {"random": True}),
        ({"random": False}, {"random": False}),
        ({"best_return": "-3"}, {"best_return": -3.0}),
        ({}, {}),
    ],
)
def test_values_become_their_declared_type(
    given: dict[str, RawValue], expected: dict[str, Scalar]
) -> None:
    values = read("env", given, KINDS)
    assert values == expected
    assert [type(value) for value in values.values()] == [
        type(value) for value in expected.values()
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": "fast"}, "rate of env must be a finite number, but got 'fast'; write rate=VALUE"),
        ({"rate": "nan"}, "a finite number, but got 'nan'"),
        ({"rate": True}, "a finite number, but got True"),
        ({"size": 3.5}, "size of env must be a whole number, but got 3.5"),
        ({"size": "many"}, "a whole number, but got 'many'"),
        ({"random": "maybe"}, "random of env must be true or false, but got 'maybe'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(given: dict[str, RawValue], message: str) -> None:
    with pytest.raises(InvalidEnvParam) as error:
        read("env", given, KINDS)
    assert message in str(error.value)


def test_an_unknown_key_is_refused_with_the_nearest_and_all() -> None:
    with pytest.raises(InvalidEnvParam) as error:
        read("env", {"sizes": 3}, KINDS)
    assert str(error.value) == (
        "env param of env must be one of best_return, random, rate, size, but got 'sizes'; "
        "did you mean size?"
    )
