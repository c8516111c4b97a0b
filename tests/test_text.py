"""Numbers and values are short, and none is rounded to another power of ten."""

import pytest

from sweeps import text as words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.7, "1k"),
        (786_432, "786k"),
        (999_700, "1M"),
        (6_291_456, "6.29M"),
        (327_680_000, "328M"),
        (4.47e13, "44.7T"),
        (5e18, "5E"),
    ],
)
def test_a_count_has_three_digits_and_a_unit(number: float, text: str) -> None:
    assert words.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (999.97, "1k"), (128_625_408, "128.6M"), (2.5e17, "250P"), (5e18, "5E")],
)
def test_a_count_may_have_more_digits(number: float, text: str) -> None:
    assert words.count(number, digits=4) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(30.5e9, "30.5 GFLOP/s"), (999.7e9, "1 TFLOP/s"), (12, "12 FLOP/s"), (2e18, "2 EFLOP/s")],
)
def test_the_prefix_of_a_count_stands_before_its_unit(number: float, text: str) -> None:
    assert words.count(number, "FLOP/s") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (99, "99 s"), (100, "2 min"), (719, "12 min"), (12_240, "3.4 h")],
)
def test_a_duration_has_the_unit_that_a_person_would_take(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize("given", ["--name {}", "--name={}"])
def test_an_option_of_a_command_gets_another_value(given: str) -> None:
    before, after = (f"run {given.format(name)} --why 'a b'" for name in ("'my wide'", "deep"))
    assert words.with_option(before, "--name", "deep") == after


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.002, "0.002"),
        (3e-05, "3e-05"),
        (0.00031622776, "0.0003162"),
        (1.0, "1"),
        (65_536, "65536"),
        (True, "true"),
        ("pre", "pre"),
        (None, ""),
    ],
)
def test_a_swept_value_is_shown_in_few_characters(value: object, text: str) -> None:
    assert words.show(value) == text


def test_values_are_named_by_the_last_parts_of_their_paths() -> None:
    assert words.named({"optim.lr": 3e-4, "model.norm": "pre"}) == "lr=0.0003 norm=pre"


def test_a_missing_number_is_empty() -> None:
    assert (words.whole(None), words.loss(None)) == ("", "")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("/home/me/.venv/bin/python -m sweeps.run lr", "python -m sweeps.run lr"),
        ("'/home/my own/bin/python3' -m sweeps.run 'a b'", "python -m sweeps.run 'a b'"),
        ("make sweep", "make sweep"),
        ("", ""),
    ],
)
def test_a_command_names_no_folder_of_its_interpreter(command: str, text: str) -> None:
    assert words.portable(command) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0312, "0.031"), (0.0005, "0.001"), (0.0004, "< 0.001"), (None, "")]
)
def test_a_p_value_is_never_zero(value: float | None, text: str) -> None:
    assert words.probability(value) == text
