"""Losses are compared where text, tokenizer, budget and windows are the same."""

from dataclasses import replace
from typing import Any

import pytest
from ledgers import BASE

from sweeps.findings.experiments import Terms, comparable

TERMS = Terms(
    metric="val_loss",
    corpus="c" * 16,
    text=BASE.data.model_dump(),
    vocabulary=2048,
    budget={"tokens": 786_432, "seconds": None},
    validation_tokens=16_384,
    block=128,
    is_whole=True,
)
OTHER_TEXT = BASE.data.model_dump() | {"corpus": "python"}


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({}, ()),
        ({"metric": "bits_per_byte"}, ("metric",)),
        ({"corpus": "d" * 16}, ("text",)),
        ({"corpus": "d" * 16, "text": OTHER_TEXT}, ("text",)),
        ({"text": OTHER_TEXT}, ()),
        ({"corpus": "d" * 16, "vocabulary": 512}, ("tokenizer",)),
        ({"corpus": "d" * 16, "vocabulary": 512, "text": OTHER_TEXT}, ("text", "tokenizer")),
        ({"budget": {"tokens": 786_432, "seconds": 60.0}}, ("budget",)),
        ({"validation_tokens": 8192}, ("validation tokens",)),
        ({"block": 64}, ("validation blocks",)),
    ],
)
def test_what_keeps_losses_apart_is_named(changes: dict[str, Any], differ: tuple[str, ...]) -> None:
    """Equal digests are equal texts, wherever these are."""
    assert TERMS.differing(replace(TERMS, **changes)) == differ


def test_bits_per_byte_are_compared_between_tokenizers() -> None:
    one = replace(TERMS, metric="bits_per_byte")
    assert one.differing(replace(one, corpus="d" * 16, vocabulary=512)) == ()


def test_losses_are_compared_within_groups() -> None:
    short = replace(TERMS, budget={"tokens": 8192, "seconds": None})
    assert comparable([TERMS, short, TERMS, short]) == [0, 1, 0, 1]
