"""First search spaces: what is tried of a path around the value that the scale has."""

from typing import Any

import pytest

from sweeps.plan.draft import space_of
from sweeps.plan.reading import parse
from tinylm import config as cfg

BASE = cfg.load("cpu")


def varied(*vary: str) -> dict[str, Any]:
    found: dict[str, Any] = space_of("q?", vary, BASE)["space"]
    return found


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("optim.lr", [5e-4, 1e-3, 2e-3, 4e-3, 8e-3]),  # by factors of two
        ("optim.beta1", [0.6, 0.8, 0.9, 0.95, 0.975]),  # its distance from 1 is
        ("model.dropout", [0, 0.1, 0.2]),  # from 0
        ("model.d_model", [64, 128, 256]),  # a size
        ("run.threads", [1, 2]),  # of which half is none
        ("model.norm", ["pre", "post", "none"]),  # all of them
        ("model.qk_norm", [False, True]),
        ("run.precision", ["fp32", "bf16"]),  # fastest is none of its own
        ("data.corpus", ["sotu", "python", "tinystories", "openwebtext"]),  # text needs a path
        ("budget.tokens", [393216, 786432, 1572864]),
    ],
)
def test_one_path_is_a_grid_of_what_its_config_can_have(path: str, values: list[Any]) -> None:
    assert varied(path) == {path: {"grid": values}}


def test_several_paths_are_drawn_from_ranges_and_lists() -> None:
    assert varied("optim.lr", "optim.beta2", "model.ffn") == {
        "optim.lr": {"loguniform": [5e-4, 8e-3]},
        "optim.beta2": {"one_minus_loguniform": [0.012, 0.2]},
        "model.ffn": {"choice": ["swiglu", "silu", "gelu"]},
    }


def test_values_that_are_given_are_taken() -> None:
    assert varied("optim.lr=[1e-3, 2e-3]", "optim.eps={loguniform: [1e-9, 1e-7]}") == {
        "optim.lr": {"choice": [1e-3, 2e-3]},
        "optim.eps": {"loguniform": [1e-9, 1e-7]},
    }


def test_a_range_of_one_path_is_drawn_from() -> None:
    found = space_of("q?", ["optim.lr={loguniform: [1e-4, 1e-2]}"], BASE)
    assert found["search"] == {"method": "random", "samples": 16}


def test_a_range_ends_where_the_config_does() -> None:
    base = cfg.overlay(BASE, {"model.dropout": 0.3, "optim.beta2": 0.5})
    found = space_of("q?", ["model.dropout", "optim.beta2"], base)["space"]
    assert found == {
        "model.dropout": {"loguniform": [0.075, 0.6]},
        "optim.beta2": {"one_minus_loguniform": [0.125, 1.0]},
    }


@pytest.mark.parametrize("vary", [["optim.lr"], ["optim.lr", "model.ffn", "optim.beta1"]], ids=len)
def test_a_draft_is_a_space(vary: list[str]) -> None:
    assert parse(space_of("q?", vary, BASE), "draft").space.keys() == set(vary)


def test_all_that_is_wrong_is_told() -> None:
    vary = [
        "optim.learning_rate",
        "budget",
        "data.path",
        "optim.lr=[1e-3",
        "model.ffn",
        "model.ffn",
    ]
    with pytest.raises(cfg.ConfigError) as caught:
        space_of(" ", vary, BASE)
    assert caught.value.problems == (
        "--question: expected text that is not blank, got ' '",
        "--vary optim.learning_rate: unknown path; did you mean 'optim.lr'?",
        "--vary budget: is a section; write one of its paths: budget.tokens, budget.seconds",
        "--vary data.path: say what to try, e.g. --vary 'data.path=[A, B]'",
        "--vary optim.lr: line 1 expected ',' or ']', but got '<stream end>'",
        "--vary model.ffn: is listed twice",
    )
