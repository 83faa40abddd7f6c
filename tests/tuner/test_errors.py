import pytest

from tuner import errors

EXIT_CODES = {
    errors.TunerError: 1,
    errors.UsageError: 2,
    errors.NotBegun: 2,
    errors.NothingFeasible: 3,
    errors.Refused: 4,
    errors.ExportRefused: 7,
}


def test_every_error_has_the_exit_code_of_the_contract() -> None:
    found = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert {kind: kind.exit_code for kind in found} == EXIT_CODES


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_the_module_names_every_error_with_its_exit_code(kind: type[errors.TunerError]) -> None:
    assert errors.__doc__ is not None
    line = next(line for line in errors.__doc__.splitlines() if kind.__name__ in line)
    assert f"exit {kind.exit_code}" in line


def test_a_wrong_setting_is_a_value_error() -> None:
    assert issubclass(errors.UsageError, ValueError)
