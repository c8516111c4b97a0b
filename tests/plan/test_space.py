"""Search spaces: what they may say, and the trials that they plan."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import MACHINE, grid, problems, request

from sweeps.ledger import RESULTS
from sweeps.plan import trials as pl
from sweeps.plan.reading import find, parse, read
from sweeps.plan.request import (
    PlannedTrial,
    Request,
    base_config,
    experiment_request,
    read_request,
    sweep_folder,
)
from sweeps.plan.sections import Looks
from sweeps.plan.space import Space, schema
from tinylm import config as cfg
from tinylm.config import PROBLEMS_SHOWN, ConfigError

BASE = cfg.load("smoke")
RANDOM = {"method": "random", "samples": 20}
NONE = {"policy": "none"}


def plan(tree: dict[str, Any], seed: int = 0) -> list[PlannedTrial]:
    return pl.plan(request(tree, seed=seed), MACHINE).trials


def shipped(name: str, scale: str) -> list[PlannedTrial]:
    """What a shipped space plans at a scale."""
    path = Path("search_spaces") / f"{name}.yaml"
    space, tree = read(path)
    base = base_config(scale, space.base, str(path))
    return pl.plan(Request(space, tree, str(path), base, scale, 0), MACHINE).trials


def random_space(**space: Any) -> dict[str, Any]:
    return {"question": "q", "search": RANDOM, "space": space, "schedule": NONE}


def test_a_grid_is_planned_in_its_order() -> None:
    assert [one.values["optim.lr"] for one in plan(grid([3e-3, 1e-3]))] == [3e-3, 1e-3]


def test_grids_are_crossed_with_the_first_slowest() -> None:
    tree = {**grid([1e-3, 2e-3])}
    tree["space"] |= {"optim.beta2": {"grid": [0.9, 0.99]}}
    pairs = [(one.values["optim.lr"], one.values["optim.beta2"]) for one in plan(tree)]
    assert pairs == [(1e-3, 0.9), (1e-3, 0.99), (2e-3, 0.9), (2e-3, 0.99)]


def test_a_plan_is_a_pure_function() -> None:
    tree = random_space(**{"optim.lr": {"loguniform": [1e-4, 1e-2]}})
    assert plan(tree) == plan(tree)


def test_more_samples_keep_the_trials_before() -> None:
    tree = random_space(**{"optim.lr": {"loguniform": [1e-4, 1e-2]}})
    more = {**tree, "search": {"method": "random", "samples": 30}}
    assert plan(more)[:20] == plan(tree)


def test_another_seed_draws_other_values() -> None:
    tree = random_space(**{"optim.lr": {"loguniform": [1e-4, 1e-2]}})
    assert plan(tree)[0].values != plan(tree, seed=1)[0].values


@pytest.mark.parametrize(
    ("written", "looks"),
    [
        ({"looks": [2, 7]}, (2, 7)),
        ({"until": "settled"}, (3, 5, 8, 12)),
        ({"first": 5}, (5, 8, 12)),
        ({"at_most": 6}, (3, 5, 6)),
        ({"first": 4, "at_most": 20}, (4, 5, 8, 12, 20)),
        ({"first": 15}, (15,)),
        ({"at_most": 2}, (2,)),
    ],
)
def test_first_and_at_most_cut_the_looks(written: dict[str, Any], looks: tuple[int, ...]) -> None:
    assert Looks.model_validate(written).numbers == looks


def test_a_list_of_seeds_is_one_look_at_its_length() -> None:
    space = Space.model_validate({**grid([1e-3]), "seeds": [4, 7, 9]})
    assert (space.looks, space.every_seed) == ((3,), [4, 7, 9])


def test_the_seeds_of_looks_are_the_first_ones() -> None:
    assert Space.model_validate({**A_STUDY, "seeds": {"at_most": 4}}).every_seed == [0, 1, 2, 3]


A_STUDY = {
    "question": "q",
    "arms": {"nope": {"hypothesis": "h", "set": {"model.position": "none"}}},
    "schedule": {"policy": "none"},
}


def test_the_seed_is_added_to_the_seeds_of_the_space() -> None:
    assert [one.config.run.seed for one in plan({**grid([1e-3]), "seeds": [0, 2]}, 5)] == [5, 7]


def test_an_id_is_the_digest_of_the_whole_config() -> None:
    (one,) = plan(grid([1e-3]))
    assert one.trial == cfg.identity(one.config)


def test_equal_draws_are_one_trial() -> None:
    assert len(plan(random_space(**{"model.tie_embeddings": {"choice": [True, False]}}))) == 2


@pytest.mark.parametrize(
    ("domain", "low", "high"),
    [({"uniform": [0.1, 0.4]}, 0.1, 0.4), ({"loguniform": [1e-4, 1e-2]}, 1e-4, 1e-2)],
)
def test_draws_stay_within_their_bounds(domain: dict[str, Any], low: float, high: float) -> None:
    drawn = [one.config.optim.lr for one in plan(random_space(**{"optim.lr": domain}))]
    assert low <= min(drawn) < max(drawn) <= high


def test_whole_numbers_reach_both_bounds() -> None:
    drawn = {
        one.values["model.n_layers"]
        for one in plan(random_space(**{"model.n_layers": {"int": [1, 3]}}))
    }
    assert drawn == {1, 2, 3}


def lengths(*values: int, **more: Any) -> dict[str, Any]:
    """A grid of context lengths."""
    space = {"model.context_length": {"grid": list(values)}}
    return {"question": "q", "search": {"method": "grid"}, "space": space, "schedule": NONE, **more}


def blocks(tree: dict[str, Any]) -> set[Any]:
    """The blocks of validation tokens of all trials."""
    return {one.config.eval.block for one in plan(tree)}


VARYING = {
    "a grid": lengths(8, 16, 64),
    "a choice": random_space(**{"model.context_length": {"choice": [8, 16, 64]}}),
    "a range": random_space(**{"model.context_length": {"int": [8, 64], "step": 8}}),
    "a multiple": random_space(**{
        "model.n_layers": {"int": [1, 4]},
        "model.context_length": {"times": 8, "of": "model.n_layers"},
    }),
    "an arm": {
        "question": "q",
        "arms": {"short": {"hypothesis": "h", "set": {"model.context_length": 8}}},
        "seeds": [0, 1],
        "schedule": NONE,
    },
    "each": {
        "question": "q",
        "each": {"path": "model.context_length", "values": [8, 64], "hypothesis": "h"},
        "seeds": [0, 1],
        "schedule": NONE,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARYING)
def test_trials_of_all_context_lengths_predict_the_same_validation_tokens(name: str) -> None:
    assert blocks(VARYING[name]) == {BASE.eval.tokens}


def test_without_other_context_lengths_the_windows_are_as_before() -> None:
    assert blocks(grid([1e-3, 2e-3])) == {"window"}


def test_blocks_that_the_space_states_stay() -> None:
    assert blocks(lengths(8, 16, 64, base={"eval.block": 512})) == {512}


def test_further_context_lengths_keep_the_trials_before() -> None:
    assert plan(lengths(8, 16, 64, 128))[:3] == plan(lengths(8, 16, 64))


def test_a_context_length_into_which_the_validation_tokens_cannot_be_cut_is_skipped() -> None:
    planned = pl.plan(request(lengths(8, 48)), MACHINE)
    assert [one.values["model.context_length"] for one in planned.trials] == [8]
    assert planned.notes == [
        "1 of 2 combinations skipped: budget.tokens 8192 is not a multiple of 384 (tokens of one "
        "update); eval.every_tokens 1024 is not a multiple of 384 (tokens of one update); eval.tokens "
        "2048 is not a multiple of 48 (model.context_length)"
    ]


MATCHED = {"match": "tokens_per_update"}


@pytest.mark.parametrize("name", VARYING)
def test_matched_updates_have_as_many_tokens_at_every_context_length(name: str) -> None:
    updates = {one.config.tokens_per_step for one in plan({**VARYING[name], **MATCHED})}
    assert updates == {BASE.tokens_per_step}


def test_the_batch_size_is_what_matches() -> None:
    planned = plan(lengths(8, 16, 64, **MATCHED))
    assert [one.config.optim.batch_size for one in planned] == [32, 16, 4]


def test_a_context_length_that_no_batch_size_matches_is_skipped_and_named() -> None:
    planned = pl.plan(request(lengths(8, 512, **MATCHED)), MACHINE)
    assert [one.values["model.context_length"] for one in planned.trials] == [8]
    assert planned.notes == [
        "1 of 2 combinations skipped: match: the 256 tokens of an update are not a multiple of "
        "model.context_length 512"
    ]


def test_a_re_tuned_context_length_is_matched_too() -> None:
    study = {
        **VARYING["an arm"],
        "arms": {"post": {"hypothesis": "h", "set": {"model.norm": "post"}}},
    }
    study |= {"retune": {"model.context_length": {"grid": [16, 64]}}, **MATCHED}
    assert {one.config.optim.batch_size for one in plan(study)} == {4, 16}


DEPENDENT = {
    "model.norm": {"choice": ["pre", "none"]},
    "optim.lr": {
        "depends": {
            "on": "model.norm",
            "cases": {"pre": {"uniform": [1.0, 2.0]}, "none": {"uniform": [3.0, 4.0]}},
        }
    },
}


def test_a_dependent_path_draws_from_the_case_that_holds() -> None:
    drawn = {
        (one.values["model.norm"], int(one.values["optim.lr"]))
        for one in plan(random_space(**DEPENDENT))
    }
    assert drawn == {("pre", 1), ("none", 3)}


def test_dependent_grids_cross_within_their_case() -> None:
    tree = grid([1.0])
    tree["space"] = {
        "model.tie_embeddings": {"grid": [True, False]},
        "optim.lr": {
            "depends": {
                "on": "model.tie_embeddings",
                "cases": {"true": {"grid": [1e-3]}, "false": {"grid": [2e-3, 4e-3]}},
            }
        },
    }
    assert [tuple(one.values.values()) for one in plan(tree)] == [
        (True, 1e-3),
        (False, 2e-3),
        (False, 4e-3),
    ]


@pytest.mark.parametrize(
    ("grace", "rungs"),
    [("1/8", (1024, 3072)), (0.125, (1024, 3072)), ("1/4", (2048, 6144)), ("1/2", (4096,))],
)
def test_rungs_are_a_share_of_the_budget_and_its_multiples(
    grace: object, rungs: tuple[int, ...]
) -> None:
    space = request(grid([1e-3], policy="asha", eta=3, grace=grace)).space
    assert space.schedule.rungs(BASE.budget.tokens) == rungs


MULTIPLES = {
    "model.d_model": {"choice": [32, 64, 96]},
    "optim.lr": {"loguniform": [1e-3, 1e-2]},
    "budget.tokens": {"times": 256, "of": "model.d_model"},
}


@pytest.mark.parametrize("samples", [1, 20])
@pytest.mark.parametrize("method", ["random", "optuna"])
def test_budgets_with_records_at_their_rungs_are_planned(method: str, samples: int) -> None:
    tree = grid([1.0], policy="asha", grace="1/8")
    tree |= {"search": {"method": method, "samples": samples}, "space": MULTIPLES}
    assert (
        pl.plan(request(tree), MACHINE).notes[0].startswith("trials are compared at equal shares")
    )


@pytest.mark.parametrize("samples", [1, 20])
def test_whether_drawn_budgets_are_allowed_does_not_depend_on_the_draws(
    tmp_path: Path, samples: int
) -> None:
    """No draw of one sample is wider than 32; one of 20 samples would be."""
    paths = {**MULTIPLES, "model.d_model": {"choice": [32, 48]}}
    tree = grid([1.0], policy="asha", grace="1/8")
    tree |= {"search": {"method": "random", "samples": samples}, "space": paths}
    assert "these are multiples of 4096" in problems(tmp_path, tree)


def test_a_start_point_without_a_record_at_its_rungs_is_skipped() -> None:
    tree = grid([1.0], policy="asha", grace="1/8")
    point = {"model.d_model": 32, "budget.tokens": 8448}
    tree |= {"search": RANDOM, "space": MULTIPLES, "start": [point]}
    note = "skipped: no record falls on the rung at 1056 tokens (1/8 of 8448): eval.every_tokens is 1024"
    assert any(note in line for line in pl.plan(request(tree), MACHINE).notes)


def test_the_advised_interval_of_records_is_accepted() -> None:
    tree = grid([1.0], policy="asha", grace="1/8")
    tree["space"] = {"budget.tokens": {"grid": [4096, 8192]}}
    tree["base"] = {"eval.every_tokens": 512}
    assert len(plan(tree)) == 2


def test_the_shipped_rates_are_a_factor_of_two_apart_where_the_best_may_lie() -> None:
    rates = list(dict.fromkeys(one.config.optim.lr for one in shipped("lr", "cpu")))
    assert [b / a for a, b in pairwise(rates[:8])] == pytest.approx([2.0] * 7)
    assert rates == sorted(rates)


SHIPPED = sorted(path.stem for path in Path("search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("scale", ["smoke", "cpu", "tinystories_17m", "baseline_17m"])
@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "architecture_joint"])
def test_a_shipped_space_fits_every_scale(name: str, scale: str) -> None:
    assert shipped(name, scale)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """The values of a tree of JSON by their paths; an empty list or mapping is a value."""
    if not isinstance(tree, dict | list) or not tree:
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {k: v for name, part in items for k, v in leaves(part, f"{path}/{name}").items()}


def test_the_shipped_schema_is_that_of_the_models() -> None:
    shipped_schema = leaves(json.loads(Path("search_spaces/schema.json").read_text()))
    current = leaves(schema())
    paths = dict.fromkeys([*shipped_schema, *current])
    differing = [p for p in paths if shipped_schema.get(p, ...) != current.get(p, ...)]
    assert not differing, "search_spaces/schema.json is out of date; run `make schema`"


@pytest.mark.parametrize("path", sorted(Path("search_spaces").glob("*.yaml")), ids=str)
def test_every_shipped_space_names_the_schema_and_asks_a_question(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json")
    assert read(path)[0].question.endswith("?")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_space_that_a_ledger_holds_is_parsed_as_it_was_read(name: str) -> None:
    space, tree = read(Path("search_spaces") / f"{name}.yaml")
    assert parse(json.loads(json.dumps(tree)), "ledger.jsonl") == space


def test_a_key_without_a_value_is_parsed_as_missing() -> None:
    assert parse({**grid([1e-3]), "metric": None}, "x") == parse(grid([1e-3]), "x")


def test_every_problem_of_a_parsed_space_names_its_source() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**grid([1e-3]), "seeds": [1, 1], "repeats": 0}, "ledger.jsonl")
    paths = [problem.rpartition(": ")[0] for problem in caught.value.problems]
    assert paths == ["ledger.jsonl: seeds", "ledger.jsonl: repeats"]


@pytest.mark.fault("a ledger whose space is of other types", "an error with its path")
@pytest.mark.parametrize("method", [["grid"], {"a": 1}, None, 3, True])
def test_a_method_that_is_no_name_is_refused(method: object) -> None:
    with pytest.raises(ConfigError, match=r"ledger.jsonl: search"):
        parse({**grid([1e-3]), "search": {"method": method}}, "ledger.jsonl")


def test_a_parsed_space_may_name_paths_that_a_config_no_longer_has() -> None:
    tree = {**grid([1e-3]), "space": {"optim.gone": {"grid": [1]}}}
    assert list(parse(tree, "ledger.jsonl").space) == ["optim.gone"]


DRAWN_RATE = {"space": {"optim.lr": {"loguniform": [1e-3, 1e-2]}}}
HUGE = ["optim.lr", "optim.beta1", "optim.beta2"]
ARM: dict[str, Any] = {"hypothesis": "Worse.", "set": {"model.position": "none"}}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "misspelled key": ({"serch": 1}, "serch: unknown key; did you mean 'search'?"),
    "misspelled path": (
        {"space": {"optim.lrr": {"grid": [1]}}},
        "space.optim.lrr: unknown path; did you mean 'optim.lr'?",
    ),
    "a precision for each trial": (
        {"space": {"run.precision": {"choice": ["fp32", "fastest"]}}, "search": {"method": "grid"}},
        "space.run.precision: fastest is for the base: it is the same for all trials",
    ),
    "what is spelled like fastest in a trial": (
        {"space": {"run.compile": {"grid": ["fast", True]}}, "search": {"method": "grid"}},
        "space.run.compile: fastest is for the base: it is the same for all trials",
    ),
    "updates matched where none differ": (
        {"match": "tokens_per_update"},
        "match: nothing here varies model.context_length",
    ),
    "a match of an arm in a search": (
        {"match": "params"},
        'match: expected tokens_per_update; params and flops are for the match of an arm, got "params"',
    ),
    "a batch size that match sets": (
        {
            "match": "tokens_per_update",
            "space": {
                "model.context_length": {"grid": [8, 16]},
                "optim.batch_size": {"grid": [8, 16]},
            },
        },
        "space.optim.batch_size: match sets this path",
    ),
    "a multiple of the batch size that match sets": (
        {
            "match": "tokens_per_update",
            "space": {
                "model.context_length": {"grid": [8, 16]},
                "optim.lr": {"times": 1e-3, "of": "optim.batch_size"},
            },
        },
        "space.optim.lr.of: match sets optim.batch_size afterwards",
    ),
    "blocks that vary": (
        {"space": {"eval.block": {"grid": [64, 128]}}},
        "space.eval.block: every trial must be evaluated on the same windows",
    ),
    "misspelled base": ({"base": {"optim.lrr": 1}}, "base.optim.lrr: unknown path"),
    "empty grid": ({"space": {"optim.lr": {"grid": []}}}, "space.optim.lr.grid"),
    "empty random space": ({"search": RANDOM, "space": {}}, "space: random search needs paths"),
    "value twice": ({"space": {"optim.lr": {"grid": [1, 1.0]}}}, "1.0 is listed twice"),
    "no kind": (
        {"space": {"optim.lr": [1, 2]}},
        "space.optim.lr: write {grid: [1, 2]}, or {choice: [1, 2]} where values are drawn, got [1, 2]",
    ),
    "a list of lists": (
        {"space": {"optim.lr": [[1], [2]]}},
        "write {grid: [..]}, or {choice: [..]}",
    ),
    "a list as text": ({"space": {"optim.lr": "1e-3, 2e-3"}}, "write {grid: [1e-3, 2e-3]}"),
    "a list without brackets": (
        {"space": {"model.d_model": {"grid": 32, "64": None}}},
        "space.model.d_model: the brackets of the list are missing; write {grid: [32, 64]}",
    ),
    "a range without brackets": (
        {"space": {"optim.lr": {"loguniform": 1e-4, "1e-2": None}}},
        "the brackets of the list are missing; write {loguniform: [0.0001, 1e-2]}",
    ),
    "a case without brackets": (
        {
            "space": {
                "model.norm": {"grid": ["pre"]},
                "optim.lr": {
                    "depends": {"on": "model.norm", "cases": {"pre": {"grid": 1, "2": None}}}
                },
            }
        },
        "space.optim.lr.depends.cases.pre: the brackets of the list are missing; write {grid: [1, 2]}",
    ),
    "one value": (
        {"space": {"optim.beta2": 0.9}},
        "space.optim.beta2: a value that every trial has belongs under base, got 0.9",
    ),
    "a misspelled kind": (
        {"space": {"optim.lr": {"loguniforms": [1, 2]}}},
        "space.optim.lr: unknown kind; the nearest is {loguniform: [a, b]}",
    ),
    "a kind without bounds": (
        {"space": {"optim.beta2": {"normal": [0.9, 0.1]}}},
        "{uniform: [a, b]} or {loguniform: [a, b]}; every domain has bounds",
    ),
    "a spacing": (
        {"space": {"optim.lr": {"logspace": [-4, -2, 3]}}},
        "here it is {grid: [..]}, or {choice: [..]} where values are drawn, with the values themselves",
    ),
    "wrong type": ({"space": {"optim.lr": {"grid": ["fast"]}}}, 'got "fast"'),
    "range in a grid search": (
        {"space": {"optim.lr": {"uniform": [1, 2]}}},
        "space.optim.lr: grid search needs {grid: [..]}, got uniform",
    ),
    "grid in a random search": (
        {"search": RANDOM},
        "random search draws values, got grid; use choice",
    ),
    "bounds reversed": (
        {"search": RANDOM, "space": {"optim.lr": {"loguniform": [1e-2, 1e-3]}}},
        "lower bound 0.01 must be below upper bound 0.001",
    ),
    "bound not positive": (
        {"search": RANDOM, "space": {"optim.lr": {"loguniform": [0, 1e-3]}}},
        "expected a number above 0",
    ),
    "no samples": (
        {"search": {"method": "random", "samples": 0}},
        "search.samples: expected at least 1, got 0",
    ),
    "unknown method": ({"search": {"method": "grdi"}}, "'grdi'"),
    "a method of Weights & Biases": (
        {"search": {"method": "bayes", "samples": 3}},
        "unknown method 'bayes'; expected one of grid, random, optuna; did you mean 'optuna'?",
    ),
    "rung that no record hits": (
        {"schedule": {"policy": "asha", "grace": "1/7"}},
        "eval.every_tokens is 1024; the nearest grace with a record is 1/8",
    ),
    "grace beyond the budget": ({"schedule": {"policy": "asha", "grace": 2}}, "got 2"),
    "grace is no share": (
        {"schedule": {"policy": "asha", "grace": "x"}},
        "expected a share such as 1/8 or 0.125, got 'x'",
    ),
    "eta below 2": ({"schedule": {"policy": "asha", "grace": "1/8", "eta": 1}}, "eta"),
    "no such policy": (
        {"schedule": {"policy": "ahsa", "grace": "1/8"}},
        "schedule.policy: unknown policy 'ahsa'; expected one of none, asha, asha_stopping, sha, hyperband, "
        "i_epoch, median; did you mean 'asha'?",
    ),
    "no policy": (
        {"schedule": {"polcy": "asha"}},
        "schedule.policy: missing; expected one of none, asha",
    ),
    "a misspelled setting": (
        {"schedule": {"policy": "asha", "grace": "1/8", "finsh": 2}},
        "schedule.finsh: unknown key; did you mean 'schedule.finish'?",
    ),
    "settings of Ray's ASHA": (
        {"schedule": {"policy": "asha", "grace_period": 4}},
        "schedule.grace_period: unknown key; did you mean 'schedule.grace: 1/8, a share of budget.tokens'?",
    ),
    "the longest run of Ray's ASHA": (
        {"schedule": {"policy": "asha", "grace": "1/8", "max_t": 4}},
        "schedule.max_t: unknown key; did you mean 'base: {budget.tokens: N}'?",
    ),
    "the factor of Ray's ASHA": (
        {"schedule": {"policy": "asha", "grace": "1/8", "reduction_factor": 4}},
        "schedule.reduction_factor: unknown key; did you mean 'schedule.eta'?",
    ),
    "a policy under another key": (
        {"schedule": {"type": "hyperband", "min_iter": 3}},
        "schedule.type: unknown key; did you mean 'schedule.policy'?",
    ),
    "a policy in capitals": (
        {"schedule": {"policy": "ASHA", "grace": "1/8"}},
        "median; did you mean 'asha'?",
    ),
    "samples of a grid": (
        {"search": {"method": "grid", "samples": 5}},
        "asked.yaml: search.samples: unknown key; known keys: method",
    ),
    "a short path at the top": ({"lr": [1e-3]}, "lr: unknown key; did you mean 'optim.lr'?"),
    "a policy alone": (
        {"schedule": "asha"},
        'schedule: expected a mapping, got "asha"; write {policy: asha}',
    ),
    "a metric of Weights & Biases": (
        {"metric": {"name": "val_loss", "goal": "minimize"}},
        "metric: expected val_loss, of which lower is better, got {",
    ),
    "another name of the metric": (
        {"metric": "eval/loss"},
        'metric: expected val_loss, of which lower is better, got "eval/loss"',
    ),
    "a misspelled metric": (
        {"metric": "val_los"},
        "expected 'val_loss' or 'bits_per_byte', got \"val_los\"; did you mean 'val_loss'?",
    ),
    "the direction of a metric": (
        {"mode": "min"},
        "mode: unknown key; did you mean 'metric: val_loss",
    ),
    "a random search of Weights & Biases": (
        {"method": "random"},
        "method: unknown key; did you mean 'search: {method: random, samples: N}'?",
    ),
    "a grid of Weights & Biases": (
        {"method": "grid"},
        "method: unknown key; did you mean 'search: {method: grid}'?",
    ),
    "a Bayesian search of Weights & Biases": (
        {"method": "bayes"},
        "method: unknown key; did you mean 'search: {method: optuna, samples: N}'?",
    ),
    "looks of a search": (
        {"seeds": {"looks": [3, 5]}},
        "seeds: only a study has looks; list the seeds, e.g. [0, 1]",
    ),
    "looks that do not ascend": (
        {"seeds": {"looks": [3, 8, 5]}},
        "seeds.looks: must ascend, got 5 after 8",
    ),
    "one look twice": ({"seeds": {"looks": [3, 3]}}, "seeds.looks: must ascend, got 3 after 3"),
    "a look after one seed": (
        {"seeds": {"looks": [1, 3]}},
        "seeds.looks.0: expected at least 2, got 1",
    ),
    "too many looks": (
        {"seeds": {"looks": [*range(2, 23)]}},
        "seeds.looks: expected at most 20 values, got [2, 3, 4",
    ),
    "no look": ({"seeds": {"looks": []}}, "seeds.looks: expected at least 1 value, got []"),
    "at most below first": (
        {"seeds": {"first": 9, "at_most": 5}},
        "seeds.at_most: must not be below first, 9, got 5",
    ),
    "at most below the first by default": (
        {"seeds": {"first": 4, "at_most": 3}},
        "seeds.at_most: must not be below first, 4, got 3",
    ),
    "looks and first": (
        {"seeds": {"looks": [3], "first": 2}},
        "seeds.first: only without looks, which name the first and the last",
    ),
    "a misspelt key of looks": (
        {"seeds": {"lookss": [3]}},
        "seeds.lookss: unknown key; did you mean 'seeds.looks'?",
    ),
    "a misspelt until": (
        {"seeds": {"until": "setled"}},
        "seeds.until: expected 'settled', got \"setled\"; did you mean 'settled'?",
    ),
    "a difference of interest of a search": (
        {"matters": 0.1},
        "matters: only for studies, which compare arms with a baseline",
    ),
    "a variance that is not known": (
        {"variance": "shared"},
        "variance: expected 'own' or 'pooled', got \"shared\"",
    ),
    "a pooled variance in a search": (
        {"variance": "pooled"},
        "variance: only for studies, which compare arms with a baseline",
    ),
    "a difference of interest of zero": (
        {"matters": 0},
        "matters: expected a number above 0, got 0",
    ),
    "a number of seeds": (
        {"seeds": 3},
        "seeds: expected a list of the seeds themselves, e.g. [0, 1, 2] for three, got 3",
    ),
    "a misspelled method": (
        {"search": {"methd": "grid"}},
        "search.methd: unknown key; did you mean 'method'?",
    ),
    "a misspelled key of the search": (
        {"search": {"method": "random", "sample": 5}},
        "search.sample: unknown key; did you mean 'search.samples'?",
    ),
    "a number in quotes": (
        {"search": RANDOM, "space": {"optim.lr": {"loguniform": ["0.0001", 1]}}},
        'space.optim.lr.loguniform.0: expected a number, got "0.0001"; write it without quotes',
    ),
    "values in quotes": (
        {"space": {"model.n_layers": {"grid": ["1", "2"]}}},
        'space.model.n_layers: expected a whole number, got "1", "2"; write it without quotes',
    ),
    "samples as a power": (
        {"search": {"method": "random", "samples": 1e2}, **DRAWN_RATE},
        "search.samples: expected a whole number, got 100.0; write 100",
    ),
    "a word for a switch": (
        {"base": {"model.qk_norm": "yes"}},
        'base.model.qk_norm: expected true or false, got "yes"; write true',
    ),
    "a name or a number": (
        {"base": {"model.init_std": -1}},
        "base.model.init_std: expected a number above 0 or 'glorot', got -1",
    ),
    "three bounds": (
        {"search": RANDOM, "space": {"optim.lr": {"uniform": [0, 1, 2]}}},
        "space.optim.lr.uniform: expected at most 2 values, got [0, 1, 2]",
    ),
    "a list of paths": (
        {"space": [{"optim.lr": {"grid": [1]}}]},
        "space: expected a mapping without dashes, got [",
    ),
    "a search under space": (
        {"search": ..., "space": {"search": {"method": "grid"}}},
        "space.search: move search to the top level of the file",
    ),
    "a space under search": (
        {"search": {"method": "grid", "space": {}}},
        "search.space: unknown key; move space to the top level of the file",
    ),
    "a misspelled setting of a domain": (
        {"search": RANDOM, "space": {"model.d_ff": {"int": [16, 64], "steps": 16}}},
        "space.model.d_ff.steps: unknown key; did you mean 'space.model.d_ff.step'?",
    ),
    "a tiny grace": (
        {"schedule": {"policy": "median", "grace": "1e-99999"}},
        "expected a share of the budget between 1e-06 and 1, got 0.0",
    ),
    "a grace near the end": (
        {"schedule": {"policy": "asha", "grace": 0.97}},
        "the nearest grace with a record is 7/8",
    ),
    "a setting of another policy": (
        {"schedule": {"policy": "median", "grace": "1/8", "eta": 3}},
        "schedule.eta: unknown key; known keys: score, policy, grace",
    ),
    "a multiple of the grace that no record hits": (
        {"schedule": {"policy": "median", "grace": "1/9"}},
        "schedule.grace: no record falls on the rung at",
    ),
    "a cap of zero": (
        {"caps": {"tokens": 0}},
        "caps.tokens: expected a number above 0, got 0",
    ),
    "an unknown cap": (
        {"caps": {"token": 5}},
        "caps.token: unknown key; did you mean 'caps.tokens'?",
    ),
    "rungs in a budget of seconds": (
        {"base": {"budget.seconds": 5.0}},
        "schedule.policy: asha needs a budget of tokens, but budget.seconds is 5; use {policy: none}",
    ),
    "rungs by default in a budget of seconds": (
        {"base": {"budget.seconds": 5.0}, "schedule": ...},
        "schedule.policy: missing; by default asha needs a budget of tokens, but budget.seconds is 5",
    ),
    "a rung by default that no record hits": (
        {
            "base": {"eval.every_tokens": 3072, "run.checkpoint_every_tokens": 3072},
            "schedule": ...,
        },
        "schedule.grace: missing; by default no record falls on the rung at 1024 tokens (1/8 of 8192): "
        "eval.every_tokens is 3072; the nearest grace with a record is 3/8",
    ),
    "money without a price": (
        {"caps": {"money": 5}},
        "money and price_per_hour must be set together",
    ),
    "GPU hours without a GPU": ({"caps": {"gpu_hours": 5}}, "caps.gpu_hours: run.device is cpu"),
    "seed swept": (
        {"space": {"run.seed": {"grid": [1]}}},
        "space.run.seed: list seeds under `seeds`",
    ),
    "seed twice": ({"seeds": [1, 1]}, "seeds: 1 is listed twice"),
    "two seeds twice": ({"seeds": [1, 2, 1, 2]}, "seeds: 1, 2 are listed twice"),
    "no seed": ({"seeds": []}, "seeds: "),
    "rungs of a budget without records": (
        {"space": {"budget.tokens": {"grid": [4096, 8192]}}},
        "space.budget.tokens: a record must fall on each rung of every trial (1/8, 3/8 of its budget). With "
        "eval.every_tokens 1024, every budget must be a multiple of 8192, and these are multiples of 4096. "
        "Use budgets like that (round_to: 8192), or base: {eval.every_tokens: 512}, or grace: 1/4",
    ),
    "rungs of budgets that no interval of records fits": (
        {"space": {"budget.tokens": {"grid": [256, 8192]}}},
        "and these are multiples of 256. Use budgets like that (round_to: 8192)",
    ),
    "rungs of drawn budgets without records": (
        {
            "search": RANDOM,
            "space": {
                "model.d_model": {"int": [32, 64], "step": 8},
                "budget.tokens": {"times": 256, "of": "model.d_model", "round_to": 1024},
            },
        },
        "every budget must be a multiple of 8192, and these are multiples of 2048",
    ),
    "rungs in a budget of seconds that has a limit of tokens": (
        {"base": {"budget.seconds": 5.0}, "space": {"budget.tokens": {"grid": [8192, 16384]}}},
        "schedule.policy: asha needs a budget of tokens, but budget.seconds is 5; use {policy: none}",
    ),
    "tokens of two vocabularies": (
        {"space": {"model.vocab_size": {"grid": [512, 300]}}},
        "use bits_per_byte",
    ),
    "heads": ({"space": {"model.n_heads": {"grid": [5]}}}, "n_heads 5 must divide d_model 32"),
    "unknown case": (
        {"search": RANDOM, "space": {**DEPENDENT, "model.norm": {"choice": ["pre", "post"]}}},
        "model.norm takes post, pre, but the cases are none, pre",
    ),
    "depends on a path that is listed below": (
        {"search": RANDOM, "space": dict(reversed(DEPENDENT.items()))},
        "space.optim.lr.depends.on: model.norm must be listed above",
    ),
    "depends on a range": (
        {
            "search": RANDOM,
            "space": {
                "optim.beta2": {"uniform": [0.9, 0.99]},
                "optim.lr": {"depends": {"on": "optim.beta2", "cases": {"0.9": {"choice": [1]}}}},
            },
        },
        "space.optim.lr.depends.on: optim.beta2 must list its values, got uniform",
    ),
    "bound not finite": (
        {"search": RANDOM, "space": {"optim.lr": {"uniform": [0.0, float("inf")]}}},
        "space.optim.lr.uniform",
    ),
    "bound beyond integers": (
        {"search": RANDOM, "space": {"model.d_ff": {"int": [1, 10**30]}}},
        "space.model.d_ff.int",
    ),
    "seconds swept": (
        {"space": {"budget.seconds": {"grid": [1.0, 2.0]}}},
        "space.budget.seconds: every trial must have the same time; set it under base",
    ),
    "a method without samples": (
        {"search": {"method": "random"}},
        "search.samples: missing",
    ),
    "no method": ({"search": {}}, "search.method: missing; expected one of grid, random, optuna"),
    "a cap without a number": ({"caps": {"hours": None}}, "caps.hours: empty"),
    "an unknown method": (
        {"search": {"method": "bayes"}},
        "search.method: unknown method 'bayes'; expected one of grid, random, optuna",
    ),
    "device swept": (
        {"space": {"run.device": {"grid": ["cpu"]}}},
        "space.run.device: every trial must use the same resources",
    ),
    "a value that its path can't have": (
        {"space": {"optim.lr": {"grid": [1e-3, -1, -2]}}},
        "asked.yaml: space.optim.lr: expected a number above 0, got -1, -2",
    ),
    "a range that its path can't have": (
        {"search": RANDOM, "space": {"model.n_layers": {"uniform": [1, 4]}}},
        "space.model.n_layers: expected whole numbers, got uniform; write {int: [1, 4]}",
    ),
    "a logarithmic range between fractions of what is counted": (
        {"search": RANDOM, "space": {"model.d_ff": {"loguniform": [16.5, 64]}}},
        "space.model.d_ff: expected whole numbers, got loguniform; write {logint: [17, 64]}",
    ),
    "a range without a whole number": (
        {"search": RANDOM, "space": {"model.d_ff": {"one_minus_loguniform": [0.1, 0.5]}}},
        "space.model.d_ff: expected whole numbers, got one_minus_loguniform; write {int: [a, b]}",
    ),
    "a range of what is counted that begins too low": (
        {"search": RANDOM, "space": {"model.n_layers": {"uniform": [0, 4]}}},
        "space.model.n_layers: expected at least 1, got 0",
    ),
    "a range beyond those of its path": (
        {"search": RANDOM, "space": {"optim.lr_final_fraction": {"uniform": [-1, 1]}}},
        "space.optim.lr_final_fraction: expected at least 0, got -1.0",
    ),
    "a range of names": (
        {"search": RANDOM, "space": {"model.norm": {"uniform": [0, 2]}}},
        "space.model.norm: no number is a value of this path, got uniform; write {choice: [pre, post, none]}",
    ),
    "a range of a switch": (
        {"search": RANDOM, "space": {"run.compile": {"int": [0, 1]}}},
        "space.run.compile: no number is a value of this path, got int; write {choice: [false, true]}",
    ),
    "a start point that is not in the space": (
        {"search": RANDOM, "start": [{"optim.lrr": 1}], **DRAWN_RATE},
        "start.0.optim.lrr: not under space; did you mean 'optim.lr'?",
    ),
    "a start point of a grid": ({"start": ["base"]}, "start: a grid tries all its points"),
    "a start point that is no mapping": (
        {"search": RANDOM, "start": ["best"], **DRAWN_RATE},
        'start.0: expected base, or a mapping of paths to values, got "best"',
    ),
    "an exclusion of a value that is not there": (
        {"exclude": [{"optim.lr": [2e-3, 3]}]},
        "exclude.0.optim.lr: the space never has 3 here",
    ),
    "a multiple of a path below": (
        {
            "search": RANDOM,
            "space": {
                "model.d_ff": {"times": 4, "of": "model.d_model"},
                "model.d_model": {"choice": [32]},
            },
        },
        "space.model.d_ff.of: model.d_model must be listed above",
    ),
    "a multiple of an unknown path": (
        {"base": {"model.d_ff": {"times": 4, "of": "model.d_modl"}}},
        "base.model.d_ff.of: model.d_modl: unknown path; did you mean 'model.d_model'?",
    ),
    "a multiple of what is no number": (
        {"base": {"model.d_ff": {"times": 4, "of": "model.norm"}}},
        "base.model.d_ff.of: model.norm is not a number",
    ),
    "a multiple that is not whole": (
        {"base": {"model.d_ff": {"times": "8/3", "of": "model.d_model"}}},
        "base.model.d_ff: expected a whole number; add round_to",
    ),
    "a multiple in the base of what the space varies": (
        {"base": {"optim.weight_decay": {"times": 10, "of": "optim.lr"}}},
        "base.optim.weight_decay: space.optim.lr varies optim.lr",
    ),
    "too many cells": (
        {"space": {path: {"grid": [k / 1000 for k in range(1, 999)]} for path in HUGE}},
        "space: 994,011,992 combinations; the most are 100,000",
    ),
    "too many cells that depend on one another": (
        {
            "space": {
                "model.norm": {"grid": ["pre", "none"]},
                "optim.lr": {
                    "depends": {
                        "on": "model.norm",
                        "cases": {
                            "pre": {"grid": [k / 10**6 for k in range(1, 599)]},
                            "none": {"grid": [k / 10**6 for k in range(1, 9)]},
                        },
                    }
                },
                "optim.weight_decay": {"grid": [k / 1000 for k in range(170)]},
            }
        },
        "space: more than 100,000 combinations; the most are 100,000",
    ),
    "too many samples": (
        {"search": {"method": "random", "samples": 10**12}, **DRAWN_RATE},
        "search.samples: 1000000000000 samples on each of 1 seeds are more than 100,000 trials",
    ),
    "too many runs of arms": (
        {
            "arms": {
                f"decay_{n}": {"hypothesis": "Worse.", "set": {"optim.weight_decay": n / 1000}}
                for n in range(99)
            },
            "space": ...,
            "search": ...,
            "seeds": list(range(1001)),
        },
        "seeds: 100 arms, 1001 times each, are more than 100,000 trials",
    ),
    "whole sections": (
        {"space": {"optim": {"lr": {"grid": [1]}}}},
        "space.optim: write whole paths, e.g. optim.lr",
    ),
    "a section as a path": (
        {"space": {"budget": {"grid": [1]}}},
        "space.budget: is a section; write one of its paths: budget.tokens, budget.seconds",
    ),
    "a multiple of a section": (
        {"base": {"model.d_ff": {"times": 4, "of": "budget"}}},
        "base.model.d_ff.of: budget: is a section; write one of its paths: budget.tokens, budget.seconds",
    ),
    "a section at the top": (
        {"model": {"n_layers": 2}},
        "model: unknown key; did you mean 'base: {model.NAME: ..}, with whole paths'?",
    ),
    "a blank question": ({"question": " "}, 'question: expected text that is not blank, got " "'),
    "a name of nanoGPT": (
        {"space": {"n_embd": {"grid": [32]}}},
        "space.n_embd: unknown path; did you mean 'model.d_model'?",
    ),
    "a path without its section": (
        {"base": {"batch_size": 8}},
        "base.batch_size: unknown path; did you mean 'optim.batch_size'?",
    ),
    "two settings under one name": (
        {"base": {"betas": 8}},
        "base.betas: unknown path; did you mean 'optim.beta1 and optim.beta2'?",
    ),
    "a key of Weights & Biases": (
        {"parameters": {}},
        "parameters: unknown key; did you mean 'space'?",
    ),
    "a path at the top": (
        {"optim.lr": {"grid": [1]}},
        "optim.lr: unknown key; did you mean 'space: {optim.lr: ..}, or base for one value'?",
    ),
    "two seeds for optuna": (
        {
            "search": {"method": "optuna", "samples": 3},
            "space": {"optim.lr": {"uniform": [1, 2]}},
            "seeds": [0, 1],
        },
        "optuna searches one seed",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_space_is_refused_with_file_path_and_value(tmp_path: Path, name: str) -> None:
    errors = problems(tmp_path, bad(name))
    assert BAD[name][1] in errors
    assert "asked.yaml" in errors


def bad(name: str) -> dict[str, Any]:
    """The whole tree of a wrong space."""
    tree = {**grid([1e-3, 2e-3]), **BAD[name][0]}
    return {key: value for key, value in tree.items() if value is not ...}


def told(folder: Path, tree: dict[str, Any]) -> set[str]:
    """Everything that one reading of a space file says is wrong."""
    path = folder / "asked.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    try:
        read(path)
    except ConfigError as error:
        return {problem.removeprefix(f"{path}: ") for problem in error.problems}
    return set()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"notes": 1}, "notes: unknown key; "),
        ({"resources": {"cpus": -1}}, "resources.cpus: expected a number above 0, got -1"),
    ],
)
@pytest.mark.parametrize("name", BAD)
def test_a_mistake_hides_no_other(
    tmp_path: Path, name: str, other: dict[str, Any], said: str
) -> None:
    alone = told(tmp_path, bad(name))
    (more,) = told(tmp_path, {**bad(name), **other}) - alone
    assert more.startswith(said)
    assert alone <= told(tmp_path, {**bad(name), **other})


def test_a_trial_takes_one_device_at_most(tmp_path: Path) -> None:
    assert told(tmp_path, {**grid([1e-3, 2e-3]), "resources": {"gpus": 1.5, "cpus": -1}}) == {
        "resources.gpus: expected at most 1, got 1.5: a trial trains on one device",
        "resources.cpus: expected a number above 0, got -1",
    }


MISTAKES = {
    "question": "q",
    "serch": 1,
    "metric": {"name": "val_loss"},
    "search": {"method": "random", "samples": 0},
    "base": {"optim.lrr": 3, "optim.weight_decay": -1},
    "space": {
        "optim.lr": {"loguniform": [1e-2, 1e-3]},
        "optim.beta2": {"choice": [0.9, 1.5, 2.5, "x"]},
        "model.n_layers": {"grid": [1, 2]},
        "model.norm": {"choise": ["pre", "post"]},
        "model.d_ff": {
            "depends": {
                "on": "model.norm",
                "cases": {"pre": {"choice": [64]}, "post": {"choice": [-64]}},
            }
        },
    },
    "exclude": [{"model.n_layers": 3, "model.norm": "none"}],
    "caps": {"tokens": -1, "money": 5},
}


def test_one_reading_tells_every_mistake(tmp_path: Path) -> None:
    assert {problem.partition(": ")[0] for problem in told(tmp_path, MISTAKES)} == {
        "serch",
        "metric",
        "search.samples",
        "base.optim.lrr",
        "base.optim.weight_decay",
        "space.optim.lr.loguniform",
        "space.optim.beta2",
        "space.model.n_layers",
        "space.model.norm",
        "space.model.d_ff",
        "exclude.0.model.n_layers",
        "caps.tokens",
        "caps.money",
    }


def test_an_arm_says_once_where_its_changes_belong_and_that_the_baseline_is_none(
    tmp_path: Path,
) -> None:
    arms = {
        "baseline": {},
        "post": {"hypothesis": "h", "model.norm": "post"},
        "deep": {"hypothesis": "h", "model": {"norm": "post"}},
        "both": {"hypothesis": "h", "model.norm": "post", "set": 5},
    }
    speedup = {"horizons": [0.5, 2], "seeds": 2}
    assert told(tmp_path, {"question": "q", "arms": arms, "seeds": 3, "speedup": speedup}) == {
        "arms.baseline: the baseline is the base config itself, and is not listed among the arms",
        "arms.post.model.norm: unknown key; did you mean 'arms.post.set: {model.norm: ..}'?",
        "arms.deep.model: unknown key; did you mean 'arms.deep.set: {model.norm: ..}'?",
        "arms.both.model.norm: unknown key; did you mean 'arms.both.set: {model.norm: ..}'?",
        "arms.both.set: expected a mapping, got 5",
        "seeds: expected a list of the seeds themselves, e.g. [0, 1, 2] for three, got 3",
    }


def test_mistakes_of_an_arm_hide_no_others(tmp_path: Path) -> None:
    arms = {
        "a": {"hypotesis": "h", "set": {"model.norm": "post"}},
        "b": {"hypothesis": "h", "set": {"optim.lr": -1}},
        "baseline": {"hypothesis": "h", "set": {"optim.lr": 1}},
    }
    assert told(tmp_path, {"question": "q", "arms": arms, "seeds": [0]}) == {
        "arms.a.hypothesis: missing",
        "arms.a.hypotesis: unknown key; did you mean 'arms.a.hypothesis'?",
        "arms.b.set.optim.lr: expected a number above 0, got -1",
        "arms.baseline: the baseline is the base config itself, and is not listed among the arms",
        "seeds: a study needs two or more, got [0]",
    }


def test_a_study_without_seeds_is_told_how_they_are_written(tmp_path: Path) -> None:
    assert told(tmp_path, {"question": "q", "arms": {"a": ARM}, "speedup": {"seeds": 2}}) == {
        "seeds: missing; a study needs two or more, e.g. seeds: [0, 1, 2], or seeds: {looks: [3, 5, 8, 12]} "
        "to add seeds to the arms that are not settled"
    }


def test_a_sweep_file_of_weights_and_biases_is_translated_key_by_key(tmp_path: Path) -> None:
    tree = {
        "method": "bayes",
        "metric": {"name": "val_loss", "goal": "minimize"},
        "parameters": {"lr": {"min": 1e-3, "max": 0.1}},
        "early_terminate": {"type": "hyperband", "min_iter": 3},
        "run_cap": 20,
        "question": "q",
    }
    paths = [problem.partition(": ")[0] for problem in told(tmp_path, tree)]
    assert sorted(paths) == ["early_terminate", "method", "metric", "parameters", "run_cap"]


def test_a_wrong_path_is_told_once(tmp_path: Path) -> None:
    """What is written for it is not judged: it may be right for the path that was meant."""
    tree = {**grid([1e-3]), "base": {"optim": {"lr": 1}}, "space": {"learning_rate": [1, 2]}}
    assert problems(tmp_path, tree).splitlines() == [
        f"{tmp_path}/asked.yaml: base.optim: write whole paths, e.g. optim.lr",
        f"{tmp_path}/asked.yaml: space.learning_rate: unknown path; did you mean 'optim.lr'?",
    ]


@pytest.mark.parametrize(
    ("written", "here"),
    [
        (
            {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
            "{loguniform: [1e-05, 0.1]}",
        ),
        ({"distribution": "uniform", "min": 0, "max": 1}, "{uniform: [0, 1]}"),
        ({"min": 1, "max": 8}, "{int: [1, 8]}"),
        ({"min": 0.5, "max": 0.75}, "{uniform: [0.5, 0.75]}"),
        ({"values": [16, 32]}, "{grid: [16, 32]}, or {choice: [16, 32]} where values are drawn"),
        ({"distribution": "categorical", "values": [1]}, "{grid: [1]}, or {choice: [1]}"),
        ({"low": 1e-4, "high": 1e-2, "log": True}, "{loguniform: [0.0001, 0.01]}"),
        ({"low": 0.5, "high": 0.75}, "{uniform: [0.5, 0.75]}"),
        ({"low": 1, "high": 4, "log": True}, "{logint: [1, 4]}"),
        ({"low": 16, "high": 64, "step": 16}, "{int: [16, 64], step: 16}"),
        ({"type": "float", "low": 1, "high": 4}, "{uniform: [1, 4]}"),
        ({"type": "categorical", "choices": [16, 32]}, "{choice: [16, 32]}"),
        (
            {"type": "range", "bounds": [1e-4, 0.1], "log_scale": True},
            "{loguniform: [0.0001, 0.1]}",
        ),
        ({"lower": 0, "upper": 0.5}, "{uniform: [0, 0.5]}"),
        ("interval(1e-4, 0.1)", "{uniform: [1e-4, 0.1]}"),
        ("tag(log, interval(1e-4, 0.1))", "{loguniform: [1e-4, 0.1]}"),
        ("choice(16, 32)", "{choice: [16, 32]}"),
        ("tune.choice([True, False])", "{choice: [True, False]}"),
        ("tune.randint(1, 4)", "{int: [1, 3]}"),
        ("trial.suggest_int('x', 16, 64, step=16)", "{int: [16, 64], step: 16}"),
        ("tune.uniform(0.8)", "{uniform: [a, b]}"),
        ({"suggest_int": [1, 8]}, "{int: [1, 8]}"),
        ({"suggest_float": [1e-5, 0.1], "log": True}, "{loguniform: [1e-05, 0.1]}"),
        ({"int": [1, 64], "log": True}, "{logint: [1, 64]}"),
        ("tune.loguniform(1e-4, 1e-1)", "{loguniform: [1e-4, 1e-1]}"),
        ("trial.suggest_float('lr', 1e-5, 1e-1, log=True)", "{loguniform: [1e-5, 1e-1]}"),
        ("tune.grid_search([1, 2, 3])", "{grid: [1, 2, 3]}"),
    ],
    ids=str,
)
def test_a_domain_of_another_program_is_translated(
    tmp_path: Path, written: object, here: str
) -> None:
    tree = {**grid([1e-3]), "space": {"optim.lr": written}}
    assert f"space.optim.lr: here it is {here}" in problems(tmp_path, tree)


def test_exponents_are_not_taken_for_bounds(tmp_path: Path) -> None:
    written = {"distribution": "log_uniform", "min": -9, "max": -2}
    errors = problems(tmp_path, {**grid([1e-3]), "space": {"optim.lr": written}})
    assert (
        "here it is {loguniform: [a, b]} with the values themselves; its bounds are exponents"
        in errors
    )


def test_a_file_may_have_a_space_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my space.yaml"
    path.write_text(json.dumps(grid([1e-3])))
    asked = read_request(str(path), "smoke", [], 0)
    assert sweep_folder(asked, None) == RESULTS / "my_space-smoke"


def test_what_is_wrong_with_set_is_told_with_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(json.dumps({**grid([1e-3]), "questin": "?"}))
    changes = ["optim.lrr=1", "budget.tokens=all", "model.d_model=33"]  # 33: n_heads may change too
    with pytest.raises(ConfigError) as caught:
        read_request(str(path), "smoke", changes, 0)
    assert [line.removeprefix(f"{path}: ") for line in caught.value.problems] == [
        "questin: unknown key; did you mean 'question'?",
        "--set: optim.lrr: unknown path; did you mean 'optim.lr'?",
        '--set: budget.tokens: expected a whole number, got "all"',
    ]


def test_a_scale_that_is_not_there_hides_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(json.dumps({**grid([1e-3]), "questin": "?"}))
    with pytest.raises(ConfigError) as caught:
        read_request(str(path), "smok", ["optim.lrr=1"], 0)
    scale, file, change = caught.value.problems
    assert scale.endswith("did you mean 'smoke'?")
    assert file == f"{path}: questin: unknown key; did you mean 'question'?"
    assert change == "--set: optim.lrr: unknown path; did you mean 'optim.lr'?"


def test_a_scale_and_a_space_that_are_not_there_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        read_request("lrr", "smok", [], 0)
    scale, space = caught.value.problems
    assert (scale[:5], space[-18:]) == ("smok:", "did you mean 'lr'?")


def test_with_a_wrong_scale_it_is_told_that_the_sweep_varies_what_is_set(tmp_path: Path) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(json.dumps(grid([1e-3])))
    with pytest.raises(ConfigError) as caught:
        read_request(str(path), "smok", ["optim.lr=1"], 0)
    assert list(caught.value.problems[1:]) == ["--set optim.lr: the sweep varies optim.lr"]


@pytest.mark.parametrize("name", ["a folder with a space", "my space/lr", "lr-1.b_c"])
def test_the_folder_of_a_sweep_may_have_spaces_in_its_path(name: str) -> None:
    assert sweep_folder(request(grid([1e-3])), Path(name)) == Path(name)


@pytest.mark.parametrize("name", ["l:r", "../lr", "-lr", "a" * 255, "out/" + "a" * 300])
def test_other_names_of_a_folder_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits, spaces, _, - and"):
        sweep_folder(request(grid([1e-3])), Path(name))


def test_the_cases_of_a_dependent_path_compare_as_numbers() -> None:
    tree = grid([3e-5, 1e-3])
    cases = {"0.00003": {"grid": [0.9]}, "1.0e-3": {"grid": [0.95]}}
    tree["space"] |= {"optim.beta2": {"depends": {"on": "optim.lr", "cases": cases}}}
    assert [tuple(one.values.values()) for one in plan(tree)] == [(3e-5, 0.9), (1e-3, 0.95)]


def test_all_problems_of_a_file_are_raised_together(tmp_path: Path) -> None:
    tree = {**grid([1e-3]), "serch": 1, "seeds": [], "base": {"optim.lrr": 1}}
    assert len(problems(tmp_path, tree).splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": {"method": None}}, "search.method: empty"),
        ({"arms": None, "search": None}, "search: empty; arms: empty"),
        ({"arms": None, "search": ..., "seeds": None}, "arms: empty; seeds: empty"),
    ],
)
def test_a_key_that_is_empty_has_no_other_problem(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    tree = {**grid([1e-3]), "search": {"method": "grid"}, **changes}
    asked = {key: value for key, value in tree.items() if value is not ...}
    lines = problems(tmp_path, asked).splitlines()
    assert {line.partition("asked.yaml: ")[2] for line in lines} == set(said.split("; "))


@pytest.mark.parametrize(
    "name", ["a/b", "..", "../lr", ".hidden", "", "a" * 255, "a" * 300, "a" * 255 + ".yaml"]
)
def test_a_name_with_a_path_in_it_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a space's name"):
        find(name)


def test_an_unknown_space_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        find("lrr")


HEADS = {
    "model.n_heads": {"choice": [2, 3, 4, 8]},
    "optim.lr": {"loguniform": [1e-3, 1e-2]},
}


def sampled(count: int, **space: Any) -> dict[str, Any]:
    return {**random_space(**space), "search": {"method": "random", "samples": count}}


def found(tree: dict[str, Any], earlier: Sequence[pl.Sample] = ()) -> pl.Plan:
    return pl.plan(request(tree), MACHINE, earlier)


def test_an_impossible_draw_is_drawn_again() -> None:
    heads = [one.config.model.n_heads for one in plan(sampled(12, **HEADS))]
    assert len(heads) == 12 and set(heads) == {2, 4, 8}


def test_more_samples_of_a_space_with_impossible_draws_keep_those_before() -> None:
    assert plan(sampled(12, **HEADS))[:5] == plan(sampled(5, **HEADS))


def test_impossible_draws_are_counted_with_their_reason() -> None:
    draws = [one.draws for one in plan(sampled(12, **HEADS))]
    (note,) = found(sampled(12, **HEADS)).notes
    skipped, total = sum(draws) - 12, sum(draws)
    assert note == (
        f"{skipped} of {total} draws discarded: model: n_heads 3 must divide d_model 32"
    )


@pytest.mark.parametrize(
    ("tree", "number"),
    [
        (grid([0.1, 0.2, 0.3]) | {"seeds": [0, 1]}, 6),
        ({**random_space(**{"optim.lr": {"choice": [0.1, 0.2]}}), "seeds": [0, 1]}, 40),
        (
            grid([0.1])
            | {
                "space": {
                    "model.norm": {"grid": ["pre", "none"]},
                    "optim.lr": {
                        "depends": {
                            "on": "model.norm",
                            "cases": {"pre": {"grid": [0.1]}, "none": {"grid": [0.1, 0.2]}},
                        }
                    },
                }
            },
            None,
        ),
    ],
    ids=["grid", "random", "depends"],
)
def test_it_is_known_how_many_trials_are_asked_for(
    tree: dict[str, Any], number: int | None
) -> None:
    assert pl.number_asked(request(tree)) == number


def test_impossible_cells_of_a_grid_are_skipped_with_one_line_for_each_reason() -> None:
    tree = {**grid([1e-3, 2e-3], **NONE)}
    tree["space"] |= {"model.n_heads": {"grid": [2, 3, 4, 5, 32]}}
    assert [one.values["model.n_heads"] for one in plan(tree)] == [2, 4, 2, 4]
    assert found(tree).notes == [
        "4 of 10 combinations skipped: model: n_heads 3 must divide d_model 32 "
        "(and others like it)",
        "2 of 10 combinations skipped: model: rope needs an even head width, got 1 "
        "(d_model 32 / n_heads 32)",
    ]


def test_a_space_in_which_nothing_is_possible_is_refused_with_the_reasons(tmp_path: Path) -> None:
    tree = sampled(3, **{**HEADS, "model.n_heads": {"choice": [3, 5]}})
    assert problems(tmp_path, tree) == (
        "asked.yaml: space: nothing in it is possible\n"
        "asked.yaml: 1000 of 1000 draws: model: n_heads 5 must divide d_model 32 "
        "(and others like it)"
    )


def test_samples_of_a_small_space_are_all_different() -> None:
    small = {"model.n_layers": {"choice": [1, 2, 3]}, "model.n_heads": {"choice": [2, 4, 8]}}
    assert len({one.trial for one in plan(sampled(8, **small))}) == 8


def test_a_space_with_too_few_trials_says_how_many_there_are() -> None:
    tied = {"model.tie_embeddings": {"choice": [True, False]}, "model.n_layers": {"int": [1, 2]}}
    plans = found(sampled(8, **tied))
    assert len(plans.trials) == 4
    assert plans.notes[-1] == "only 4 different draws are possible, fewer than search.samples"


def test_a_rare_combination_is_found_in_a_space_that_can_be_listed() -> None:
    """One of 4001 combinations is possible; a thousand draws are likely to miss it."""
    rare = {"model.d_model": {"int": [8, 4008]}, "model.n_heads": {"choice": [2003]}}
    assert [one.config.model.d_model for one in plan(sampled(3, **rare))] == [4006]


RATES = {"optim.lr": {"loguniform": [1e-3, 1e-2]}}
WIDER = {"optim.lr": {"loguniform": [1e-3, 1e-1]}}
OTHER = {"optim.lr": {"loguniform": [3e-3, 1e-1]}}


def drawn(tree: dict[str, Any]) -> list[pl.Sample]:
    return [pl.Sample(one.values, one.draws) for one in plan(tree)]


def test_wider_bounds_keep_the_draws_before() -> None:
    before = drawn(sampled(8, **RATES))
    assert drawn(sampled(8, **WIDER)) != before
    assert [one.values for one in found(sampled(8, **WIDER), before).trials] == [
        sample.values for sample in before
    ]


def test_draws_outside_the_new_bounds_are_drawn_anew() -> None:
    before = drawn(sampled(8, **RATES))
    rates = [one.config.optim.lr for one in found(sampled(8, **OTHER), before).trials]
    inside = [s.values["optim.lr"] for s in before if s.values["optim.lr"] >= 3e-3]  # type: ignore[operator]
    assert 0 < len(inside) < 8
    assert rates[: len(inside)] == inside
    assert len(rates) == 8 and min(rates) >= 3e-3


@pytest.mark.parametrize("written", range(1, 8))
def test_a_crash_while_draws_are_written_changes_no_plan(written: int) -> None:
    """What was planned before the crash are earlier draws after it."""
    before = drawn(sampled(8, **RATES))
    whole = found(sampled(8, **OTHER), before).trials
    some = [*before, *(pl.Sample(one.values) for one in whole[:written])]
    assert {one.trial for one in found(sampled(8, **OTHER), some).trials} == {
        one.trial for one in whole
    }


def test_fewer_samples_keep_the_first_draws() -> None:
    before = drawn(sampled(8, **RATES))
    assert found(sampled(3, **RATES), before).trials == plan(sampled(3, **RATES))


def rows(seed: int, *planned: dict[str, Any]) -> list[dict[str, Any]]:
    search = [{"kind": "planned", "role": "search", "values": values} for values in planned]
    return [{"kind": "sweep", "seed": seed}, *search]


def test_earlier_draws_are_those_of_the_same_seed() -> None:
    ledger = [*rows(0, {"a": 1}), *rows(1, {"a": 2}, {"a": 3}), *rows(0, {"a": 4})]
    assert [one.values for one in pl.earlier_draws(ledger, 0)] == [{"a": 1}, {"a": 4}]


def test_two_seeds_of_one_draw_are_one_earlier_draw() -> None:
    assert pl.earlier_draws(rows(0, {"a": 1}, {"a": 1.0}), 0) == [pl.Sample({"a": 1})]


WIDTHS = {
    "model.d_model": {"choice": [16, 32, 64]},
    "model.d_ff": {"times": "8/3", "of": "model.d_model", "round_to": 8},
}


def test_a_multiple_follows_the_path_that_it_is_a_multiple_of() -> None:
    both = {(one.config.model.d_model, one.config.model.d_ff) for one in plan(sampled(3, **WIDTHS))}
    assert both == {(16, 40), (32, 88), (64, 168)}


def test_a_multiple_in_a_grid_adds_no_cells() -> None:
    tree = {**grid([1e-3, 2e-3], **NONE)}
    tree["space"] = {"optim.lr": {"grid": [1e-3, 2e-3]}, **GROWING}
    assert [tuple(one.values.values()) for one in plan(tree)] == [(1e-3, 1e-4), (2e-3, 2e-4)]


GROWING = {"optim.weight_decay": {"times": 0.1, "of": "optim.lr"}}


def test_a_multiple_in_the_base_is_that_of_the_whole_base() -> None:
    times = {"model.d_ff": {"times": 4, "of": "model.d_model"}, "model.d_model": 48}
    (one,) = plan({**grid([1e-3], **NONE), "base": times})
    assert one.config.model.d_ff == 192


def test_a_multiple_may_be_one_of_the_base_config() -> None:
    tree = sampled(2, **RATES, **{"model.d_ff": {"times": 4, "of": "model.d_model"}})
    assert {one.config.model.d_ff for one in plan(tree)} == {4 * BASE.model.d_model}


def test_excluded_cells_are_left_out_and_counted() -> None:
    tree = {**grid([1e-3, 2e-3], **NONE), "exclude": [{"optim.lr": 2e-3, "optim.beta2": [0.9]}]}
    tree["space"] |= {"optim.beta2": {"grid": [0.9, 0.99]}}
    pairs = [tuple(one.values.values()) for one in plan(tree)]
    assert pairs == [(1e-3, 0.9), (1e-3, 0.99), (2e-3, 0.99)]
    assert found(tree).notes == ["1 of 4 combinations skipped: excluded"]


def test_an_excluded_draw_is_drawn_again() -> None:
    tree = {**sampled(6, **HEADS), "exclude": [{"model.n_heads": [2, 4]}]}
    assert {one.config.model.n_heads for one in plan(tree)} == {8}
    assert len(plan(tree)) == 6


def test_the_base_config_is_tried_first_and_beside_the_samples() -> None:
    tree = {**sampled(5, **RATES), "start": ["base", {"optim.lr": 4e-3}]}
    first, second, *rest = plan(tree)
    assert first.trial == cfg.identity(BASE)
    assert second.config.optim.lr == 4e-3
    assert rest == plan(sampled(5, **RATES))


def test_a_start_point_that_was_drawn_is_one_trial() -> None:
    (drawn_one, *_) = plan(sampled(5, **RATES))
    tree = {**sampled(5, **RATES), "start": [drawn_one.values]}
    assert len(plan(tree)) == 6


def test_a_start_point_is_no_earlier_draw() -> None:
    tree = {**sampled(5, **RATES), "start": ["base"]}
    ledger = [{"kind": "sweep", "seed": 0}]
    ledger += [
        {"kind": "planned", "role": "search", "values": one.values, "draws": one.draws}
        for one in plan(tree)
    ]
    assert len(pl.earlier_draws(ledger, 0)) == 5
    assert found(tree, pl.earlier_draws(ledger, 0)).trials == plan(tree)


def test_a_start_point_that_is_impossible_is_skipped_with_its_reason() -> None:
    tree = {**sampled(2, **HEADS), "start": [{"model.n_heads": 3}]}
    assert len(plan(tree)) == 2
    assert found(tree).notes[0] == (
        f"start point n_heads=3 lr={BASE.optim.lr:g} skipped: "
        "model: n_heads 3 must divide d_model 32"
    )


def test_an_impossible_start_point_that_is_listed_twice_is_told_once() -> None:
    start = [{"model.n_heads": 3}, {"model.n_heads": 3, "optim.lr": BASE.optim.lr}]
    notes = found({**sampled(2, **HEADS), "start": start}).notes
    assert sum("skipped" in note for note in notes) == 1


@pytest.mark.parametrize(("samples", "planned"), [(1, 1), (2, 2), (4, 2), (200, 2)])
def test_the_plan_of_an_optuna_search_has_the_trials_that_are_possible(
    samples: int, planned: int
) -> None:
    tree = sampled(samples, **{"model.qk_norm": {"choice": [True, False]}})
    tree["search"]["method"] = "optuna"
    assert found(tree).suggested == planned
    assert len(pl.load(request(tree), found(tree)).configs) == planned


def test_optuna_tries_the_start_points_beside_its_samples() -> None:
    tree = {**sampled(5, **RATES), "search": {"method": "optuna", "samples": 5}, "start": ["base"]}
    assert [one.trial for one in plan(tree)] == [cfg.identity(BASE)]
    assert len(pl.load(request(tree), found(tree)).configs) == 6


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ({}, "target: expected val_loss or bits_per_byte, one of them"),
        ({"val_loss": 2.0, "bits_per_byte": 1.0}, "target: expected val_loss or bits_per_byte"),
        ({"val_loss": 0.0}, "target.val_loss: "),
        ({"loss": 2.0}, "target.loss: unknown key; did you mean 'target.val_loss'?"),
        ({"val_loss": 2.0, "ends": "trials"}, "target.ends: "),
    ],
)
def test_a_wrong_target_is_named(tmp_path: Path, target: dict[str, Any], wrong: str) -> None:
    assert wrong in problems(tmp_path, grid([1e-3]) | {"target": target})


def test_a_target_ends_no_run_that_others_are_compared_with(tmp_path: Path) -> None:
    target = {"target": {"val_loss": 2.0, "ends": "trial"}}
    optuna = grid([1e-3]) | {"search": {"method": "optuna", "samples": 3}}
    optuna |= {"space": {"optim.lr": {"loguniform": [1e-3, 1e-2]}}}
    assert "target.ends: optuna compares whole runs" in problems(tmp_path, optuna | target)


@pytest.mark.parametrize("ends", ["sweep", "trial"])
def test_fresh_seeds_run_to_the_end(tmp_path: Path, ends: str) -> None:
    tree = grid([1e-3]) | {"confirm": 2, "target": {"val_loss": 2.0, "ends": ends}}
    assert f"confirm: runs to the end, but target.ends is {ends}" in problems(tmp_path, tree)


def test_a_target_in_nats_is_not_for_several_tokenizers(tmp_path: Path) -> None:
    tree = grid([1e-3]) | {"metric": "bits_per_byte", "target": {"val_loss": 2.0}}
    tree["space"] = {"model.vocab_size": {"grid": [300, 400]}}
    assert "target.val_loss: losses per token of two tokenizers" in problems(tmp_path, tree)


def test_a_grid_search_tries_every_value_of_a_choice() -> None:
    cases = {"32": {"choice": [16384]}, "64": {"choice": [8192, 4096]}}
    tree = grid([1e-3], policy="none") | {
        "space": {
            "model.d_model": {"choice": [32, 64]},
            "budget.tokens": {"depends": {"on": "model.d_model", "cases": cases}},
        }
    }
    plan = pl.plan(request(tree), MACHINE)
    assert [tuple(trial.values.values()) for trial in plan.trials] == [
        (32, 16384),
        (64, 8192),
        (64, 4096),
    ]


def test_a_grid_search_takes_no_range(tmp_path: Path) -> None:
    tree = grid([1e-3]) | {"space": {"optim.lr": {"uniform": [1e-3, 1e-2]}}}
    assert "space.optim.lr: grid search needs {grid: [..]}, got uniform" in problems(tmp_path, tree)


def test_what_other_programs_call_the_samples_is_one_fault(tmp_path: Path) -> None:
    tree = grid([1e-3]) | {"search": {"method": "random", "n_trials": 4}}
    tree["space"] = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
    said = problems(tmp_path, tree)
    assert said.endswith("search.n_trials: unknown key; did you mean 'search.samples'?")
    assert len(said.splitlines()) == 1


CASES = """
question: q
search: {method: grid}
space:
  model.norm: {grid: [pre]}
  %s
  optim.lr: {depends: {on: %s, cases: {%s: {grid: [1e-3]}, %s: {grid: [2e-3]}}}}
"""


@pytest.mark.parametrize(
    ("above", "on", "one", "other"),
    [
        ("model.n_heads: {grid: [2, 4]}", "model.n_heads", "2", "4"),
        ("model.qk_norm: {grid: [true, false]}", "model.qk_norm", "True", "false"),
        ("optim.eps: {grid: [3e-8, 1e-8]}", "optim.eps", "0.00000003", "1e-8"),
    ],
)
def test_cases_need_no_quotes(tmp_path: Path, above: str, on: str, one: str, other: str) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(CASES % (above, on, one, other))
    asked = read_request(str(path), "smoke", [], 0)
    assert [one.config.optim.lr for one in pl.plan(asked, MACHINE).trials] == [1e-3, 2e-3]


def test_an_experiment_has_a_name_that_files_can_have() -> None:
    with pytest.raises(ConfigError, match=r"--name aaa.* at most 200 characters"):
        experiment_request("a" * 255, "smoke", [], "")


def test_all_that_is_wrong_with_an_experiment_is_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        experiment_request("a/b", "smok", ["optim.lrr=1"], "")
    name, config, change = caught.value.problems
    assert name.startswith("--name a/b: expected letters")
    assert config.endswith("did you mean 'smoke'?")
    assert change.endswith("did you mean 'optim.lr'?")


def test_of_many_unknown_keys_the_first_are_shown_with_the_nearest_names(tmp_path: Path) -> None:
    path = tmp_path / "asked.json"
    path.write_text(json.dumps({**grid([1e-3]), "base": {f"optim.l{k}": 1 for k in range(1000)}}))
    with pytest.raises(ConfigError) as caught:
        read(path)
    shown = caught.value.shown.splitlines()
    assert shown[0].endswith("base.optim.l0: unknown path; did you mean 'optim.lr'?")
    assert (len(shown), shown[-1]) == (PROBLEMS_SHOWN + 1, f"and {1000 - PROBLEMS_SHOWN} more")
