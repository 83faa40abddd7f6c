from tests.tuner.measurements import failure, record
from tuner.contamination import Repeats, is_noisy

NOISE = "steal of 30 % of the host"


def test_a_disturbed_measurement_is_wanted_again() -> None:
    repeats = Repeats()
    assert repeats.wants(record(1, contaminated=NOISE))
    assert not repeats.wants(record(2))


def test_what_did_not_succeed_is_not_repeated_for_noise() -> None:
    assert not Repeats().wants(failure(1, "diverged", contaminated=NOISE))


def test_three_vain_repeats_in_a_row_end_repeating() -> None:
    repeats = Repeats()
    for trial in range(3):
        assert repeats.wants(record(trial, contaminated=NOISE))
        repeats.saw(record(trial, replicate=1, contaminated=NOISE))
    assert not repeats.wants(record(4, contaminated=NOISE))


def test_a_repeat_that_helped_starts_the_count_anew() -> None:
    repeats = Repeats()
    for number in range(9):
        assert repeats.wants(record(number, contaminated=NOISE))
        helped = number % 3 == 2
        repeats.saw(record(number, replicate=1, contaminated=None if helped else NOISE))


def test_a_quiet_measurement_makes_repeating_worth_while_again() -> None:
    repeats = Repeats()
    for trial in range(3):
        repeats.saw(record(trial, replicate=1, contaminated=NOISE))
    assert not repeats.wants(record(4, contaminated=NOISE))
    assert not repeats.wants(record(5))
    assert repeats.wants(record(6, contaminated=NOISE))


def test_a_study_is_noisy_when_more_than_half_of_it_was_disturbed() -> None:
    quiet, loud = record(0), record(1, contaminated=NOISE)
    assert not is_noisy([])
    assert not is_noisy([quiet, loud])
    assert is_noisy([quiet, loud, loud])
    # What did not succeed has no say.
    assert is_noisy([loud, *[failure(trial, "oom") for trial in range(2, 9)]])
