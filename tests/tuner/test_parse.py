import pytest

from tuner import parse
from tuner.space import HardwareConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300", 300.0), (300, 300.0), ("300s", 300.0), ("45m", 2700.0), ("2h", 7200.0),
        ("1d", 86400.0), ("1.5h", 5400.0), (" 10 M ", 600.0), ("1e2", 100.0),
    ],
)  # fmt: skip
def test_seconds_of_a_duration(text: object, expected: float) -> None:
    assert parse.seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2_000_000_000), ("2GiB", 2_147_483_648), ("500MB", 500_000_000),
        ("1.5kb", 1500), ("1KiB", 1024), ("1tb", 10**12), (4096, 4096), ("4096b", 4096), ("0", 0),
    ],
)  # fmt: skip
def test_bytes_of_an_amount_of_memory(text: object, expected: int) -> None:
    assert parse.memory_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 5", "5mb", "5 parsecs", "1e", "nan", "inf"])
def test_a_duration_must_be_a_number_with_a_known_unit(text: str) -> None:
    with pytest.raises(ValueError, match="number with a unit, such as 300s"):
        parse.seconds(text)


@pytest.mark.parametrize("text", ["45", " 0.5 ", "45."])
def test_a_budget_without_its_unit_is_refused_as_text_only(text: str) -> None:
    with pytest.raises(ValueError, match="a time with a unit, such as 300s, 45m or 2h"):
        parse.budget(text)
    assert parse.budget(45) == parse.budget("45s") == 45.0
    assert parse.budget(None) is None


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 apples", "5m"])
def test_an_amount_of_memory_must_be_a_number_with_a_known_unit(text: str) -> None:
    with pytest.raises(ValueError, match="number with a unit, such as 500MB"):
        parse.memory_bytes(text)


@pytest.mark.parametrize("text", ["1.2.3", ".", "1.2.3GB"])
def test_a_number_with_two_points_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(ValueError, match="number with a unit"):
        parse.seconds(text.removesuffix("GB"))
    with pytest.raises(ValueError, match="number with a unit"):
        parse.memory_bytes(text)


def test_choices_are_sorted_and_without_repeats() -> None:
    assert parse.choices("32, 8,16,8") == (8, 16, 32)
    assert parse.choices([32, 8, 8]) == (8, 32)
    assert parse.choices(8) == (8,)
    assert parse.choices(None) is None


def test_layer_sizes_keep_their_order_and_repeats() -> None:
    assert parse.positive_integers("256,64,256") == (256, 64, 256)
    assert parse.positive_integers((64, 64)) == (64, 64)


@pytest.mark.parametrize("value", ["", ",", [], "0", "8,0", "-8", "8.0", [8.5], "a", [True], {}])
def test_a_list_of_anything_but_positive_integers_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="list of positive integers"):
        parse.choices(value)


def test_three_weights_are_read_from_text_and_from_a_list() -> None:
    assert parse.weights("0.4,0.4,0.2") == (0.4, 0.4, 0.2)
    assert parse.weights([1, 0, 0]) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "value", ["1,1", "1,1,1,1", "0,0,0", "-1,1,1", "a,b,c", "nan,1,1", "inf,1,1", 1]
)
def test_other_weights_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="three numbers"):
        parse.weights(value)


@pytest.mark.parametrize(
    "value",
    [
        "2048,128,8,4",
        [2048, 128, 8, 4],
        {"num_epochs": 4, "num_envs": 2048, "num_minibatches": 8, "num_steps": 128},
    ],
)
def test_a_config_is_read_from_text_a_list_and_a_mapping(value: object) -> None:
    assert parse.hardware(value) == HardwareConfig(2048, 128, 8, 4)


LACKING = {"num_envs": 8, "num_steps": 8, "num_minibatches": 2, "learning_rate": 1}


@pytest.mark.parametrize(
    "value", ["1,2,3", "1,2,3,4,5", "1,2,3,x", "1,2,0,4", {"num_envs": 8}, LACKING, ""]
)
def test_a_config_without_four_positive_integers_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="num_envs,num_steps,num_minibatches,num_epochs"):
        parse.hardware(value)


def test_a_config_whose_batch_does_not_divide_is_refused_with_the_batch() -> None:
    # 7 × 3 = 21 env-steps do not divide into 2 minibatches.
    with pytest.raises(ValueError, match=r"= 21.*2 minibatches"):
        parse.hardware("7,3,2,2")


def test_env_params_are_read_as_yaml_scalars() -> None:
    assert parse.env_params(["obs_dim=64", "rho=0.5", "name=a=b", "is_on=true"]) == {
        "obs_dim": 64, "rho": 0.5, "name": "a=b", "is_on": True,
    }  # fmt: skip
    assert parse.env_params({"obs_dim": 64}) == {"obs_dim": 64}
    assert parse.env_params(None) == {}


@pytest.mark.parametrize("text", ["obs_dim", "=64", " =64"])
def test_an_env_param_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key=value"):
        parse.env_params([text])


def test_an_env_param_that_is_broken_yaml_is_refused_as_a_value() -> None:
    with pytest.raises(ValueError, match="key=value"):
        parse.env_params(["obs_dim=[1"])
