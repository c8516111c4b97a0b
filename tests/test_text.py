"""Numbers and values are short, and none is rounded to another power of ten."""

import re

import pytest

from sweeps.plan.sections import Caps
from sweeps.text import (
    UNITS_OF_CAPS,
    cap_amount,
    count,
    duration,
    hours,
    init_words,
    loss,
    named,
    one_line,
    passes_words,
    percent,
    portable,
    probability,
    quantity,
    sentence,
    show,
    whole,
    with_option,
)


def test_a_long_text_is_shown_by_its_beginning_and_its_end() -> None:
    shown = show("/a" + "x" * 900_000 + "b.txt")
    begin, digest, end = shown.split("…")
    assert (begin, end) == ("/a" + "x" * 98, "x" * 95 + "b.txt")
    assert re.fullmatch(r"\[[0-9a-f]{8}\]", digest)
    assert show("x" * 200) == "x" * 200


def test_long_texts_that_differ_in_the_middle_are_told_apart() -> None:
    assert show("a" * 150 + "b" + "a" * 150) != show("a" * 150 + "c" + "a" * 150)


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
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (999.97, "1k"), (128_625_408, "128.6M"), (2.5e17, "250P"), (5e18, "5E")],
)
def test_a_count_may_have_more_digits(number: float, text: str) -> None:
    assert count(number, digits=4) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(30.5e9, "30.5 GFLOP/s"), (999.7e9, "1 TFLOP/s"), (12, "12 FLOP/s"), (2e18, "2 EFLOP/s")],
)
def test_the_prefix_of_a_count_stands_before_its_unit(number: float, text: str) -> None:
    assert count(number, "FLOP/s") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.3521, "0.4 s"),
        (0.0042, "0.004 s"),
        (45, "45 s"),
        (99, "99 s"),
        (100, "2 min"),
        (719, "12 min"),
        (12_240, "3.4 h"),
    ],
)
def test_a_duration_has_the_unit_that_a_person_would_take(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, ""), (0, "0"), (9.778e-5, "0.00009778"), (0.03654321, "0.03654"), (12.5, "12.5")],
)
def test_hours_have_no_exponent(number: float | None, text: str) -> None:
    assert hours(number) == text


@pytest.mark.parametrize("given", ["--name {}", "--name={}"])
def test_an_option_of_a_command_gets_another_value(given: str) -> None:
    before, after = (f"run {given.format(name)} --why 'a b'" for name in ("'my wide'", "deep"))
    assert with_option(before, "--name", "deep") == after


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.002, "0.002"),
        (3e-05, "3e-05"),
        (0.00031622776, "0.0003162"),
        (0.10001, "0.10001"),
        (0.1 + 0.2, "0.3"),
        (1.0, "1"),
        (65_536, "65536"),
        (True, "true"),
        ("pre", "pre"),
        (None, ""),
    ],
)
def test_a_swept_value_is_shown_in_few_characters(value: object, text: str) -> None:
    assert show(value) == text


def test_values_are_named_by_the_last_parts_of_their_paths() -> None:
    assert named({"optim.lr": 3e-4, "model.norm": "pre"}) == "lr=0.0003 norm=pre"


def test_a_missing_number_is_empty() -> None:
    assert (whole(None), loss(None)) == ("", "")


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
    assert portable(command) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0312, "0.031"), (0.0005, "0.001"), (0.0004, "< 0.001"), (None, "")]
)
def test_a_p_value_is_never_zero(value: float | None, text: str) -> None:
    assert probability(value) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 seeds"), (1, "1 seed"), (2, "2 seeds"), (1_024, "1,024 seeds")]
)
def test_only_one_is_singular(number: int, text: str) -> None:
    assert quantity(number, "seed") == text


@pytest.mark.parametrize(
    ("cap", "amounts", "text"),
    [
        ("hours", (5.25, 5), "5.25 of 5 hours"),
        ("tokens", (3_100_000,), "3.1M tokens"),
        ("gpu_hours", (2,), "2 GPU hours"),
        ("money", (12.5,), "12.5 in the currency of price_per_hour"),
    ],
)
def test_what_a_cap_limits_has_its_unit(cap: str, amounts: tuple[float, ...], text: str) -> None:
    assert cap_amount(cap, *amounts) == text


def test_every_cap_has_a_unit() -> None:
    assert UNITS_OF_CAPS.keys() | {"price_per_hour"} == Caps.model_fields.keys()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-12.345, "-12.35%"),
        (0.005, "+0.01%"),
        (-0.0035, "-0.0035%"),
        (0.0, "+0.00%"),
        (None, ""),
    ],
)
def test_a_percentage_other_than_zero_is_not_shown_as_zero(value: float | None, text: str) -> None:
    assert percent(value) == text


def test_what_people_wrote_becomes_one_line_without_control_characters() -> None:
    assert one_line("Better?\n\n\x1b[1mYes.\x85 \u2028By\t far. ") == "Better? [1mYes. By far."


def test_a_clause_becomes_a_sentence() -> None:
    assert sentence("its lr is the lowest") == "Its lr is the lowest."


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        ([(40.2, 24_576)], "the training text (24,576 tokens) about 40 times"),
        ([(1.02, 24_576)], "the training text (24,576 tokens) about once"),
        ([(0.352, 24_576)], "about 35% of the training text (24,576 tokens)"),
        ([(0.037, 100), (0.0017, 100)], "about 0.17% to 3.7% of the training text (100 tokens)"),
        ([(0.0999, 100)], "about 10% of the training text (100 tokens)"),
        ([(0.5, 100), (2.0, 400)], "the training text (100 to 400 tokens) about 0.5 to 2 times"),
        ([(40.2, 100), (9.6, 400)], "the training text (100 to 400 tokens) about 10 to 40 times"),
    ],
)
def test_passes_are_told_with_the_size_of_the_text(
    trials: list[tuple[float, int]], text: str
) -> None:
    assert passes_words(trials) == f"each trial reads {text}"


def test_a_high_loss_at_init_is_told_with_the_setting_that_lowers_it() -> None:
    assert init_words(24.2, 6.24, {"model.embedding_std": "standard"}) == (
        "loss at init, 24.20, is 17.96 nats above ln V (6.24), the loss of a uniform guess; "
        "`model.embedding_std: standard` lowers it"
    )
