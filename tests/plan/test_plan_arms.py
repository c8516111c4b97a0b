"""Arms: what a study plans, what its re-tune grids choose, and what is refused."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, conduct, is_bare, loss, study
from fakes import MACHINE, driver, problems, request, size
from ledgers import studied

from sweeps import ledger as led
from sweeps.engine.left import Left
from sweeps.findings.everything import findings
from sweeps.plan import trials as pl
from sweeps.plan.arms import LEAST_UPDATES, PlannedArm, planned_arms, runs, tuning
from sweeps.plan.request import Machine
from sweeps.plan.space import TUNING_SEED
from tinylm import config as cfg

BASE = cfg.load("smoke")


def batches(values: Any, path: str = "optim.batch_size", **more: Any) -> dict[str, Any]:
    """A study of batch sizes, or of the values of another path."""
    each = {"path": path, "values": values, "hypothesis": "h", **more}
    return {"question": "q?", "each": each, "seeds": [0, 1], "schedule": {"policy": "none"}}


def planned(tree: dict[str, Any]) -> pl.Plan:
    return pl.plan(request(tree), MACHINE)


def arm(tree: dict[str, Any], name: str) -> PlannedArm:
    return next(one for one in planned_arms(request(tree), MACHINE)[0] if one.name == name)


def test_without_a_re_tune_grid_every_arm_runs_on_every_seed() -> None:
    labels = [one.label for one in planned(study()).trials]
    assert labels == ["baseline seed=0", "baseline seed=1", "nope seed=0", "nope seed=1"]


def test_runs_are_in_no_pool() -> None:
    assert {one.pool for one in planned(study()).trials} == {None}


def test_arms_share_seeds_data_and_windows_with_the_baseline() -> None:
    first, _, nope, _ = (one.config.model_dump() for one in planned(study()).trials)
    assert list(cfg.difference(first, nope)) == ["model.position"]


def test_a_re_tune_grid_is_a_pool_on_a_seed_of_its_own() -> None:
    trials = planned(study(retune=RETUNE)).trials
    assert [(one.role, one.arm) for one in trials] == [
        *[("tuning", "baseline")] * 3,
        *[("tuning", "nope")] * 3,
    ]
    assert len({one.pool for one in trials}) == 2
    assert {one.config.run.seed for one in trials} == {TUNING_SEED}


def test_multiples_are_of_what_the_arm_has() -> None:
    tree = batches([4, 16], scale={"optim.lr": 0.5}) | {"retune": {"optim.lr": {"times": [1, 2]}}}
    grid = tuning(request(tree), arm(tree, "batch_size=16"))
    own = BASE.optim.lr * math.sqrt(2)
    assert [one.config.optim.lr for one in grid] == pytest.approx([own, 2 * own])


def test_an_arm_that_is_not_re_tuned_has_no_grid() -> None:
    tree = study(arms={"nope": {**NOPE, "retune": False}}, retune=RETUNE)
    assert tuning(request(tree), arm(tree, "nope")) == []


def test_a_matched_arm_has_the_parameters_of_the_baseline() -> None:
    silu = {"hypothesis": "h", "set": {"model.ffn": "silu"}, "match": "params"}
    config = runs(
        request(study(arms={"silu": silu})), arm(study(arms={"silu": silu}), "silu"), {}, 3
    )[0]
    assert config.config.model.d_ff == BASE.model.d_ff * 3 // 2
    assert size(config.config.model) == size(BASE.model)


def test_the_baselines_own_value_is_the_baseline() -> None:
    names = [one.name for one in planned_arms(request(batches([4, 8, 16])), MACHINE)[0]]
    assert names == ["baseline", "batch_size=4", "batch_size=16"]


def test_batch_sizes_are_compared_at_equal_tokens() -> None:
    assert {one.config.budget.tokens for one in planned(batches([1, 16])).trials} == {8_192}


def test_a_batch_larger_than_the_records_has_fewer_records() -> None:
    tree = batches([256])
    config = runs(request(tree), arm(tree, "batch_size=256"), {}, 2)[0].config
    assert (config.tokens_per_step, config.eval.every_tokens) == (8192, 8192)


def test_batches_up_to_memory_end_where_the_machine_says() -> None:
    longer = {"base": {"budget.tokens": 16_384}}
    found, notes = planned_arms(
        request(batches({"powers_of_two": [2, "memory"]}) | longer), MACHINE
    )
    assert [one.name for one in found[1:]] == ["batch_size=2", "batch_size=4", "batch_size=16"]
    assert notes == ["batch sizes up to 16: 32 leaves 16 updates, fewer than 32"]
    assert LEAST_UPDATES == 32


def test_batches_that_do_not_fit_in_memory_are_left_out() -> None:
    machine = Machine(size, lambda config: config.optim.batch_size <= 4)
    found, notes = planned_arms(request(batches({"powers_of_two": [1, "memory"]})), machine)
    assert [one.name for one in found[1:]] == ["batch_size=1", "batch_size=2", "batch_size=4"]
    assert notes == ["batch sizes up to 4: 8 does not fit in memory"]


def test_the_baseline_is_repeated_where_equal_runs_may_differ() -> None:
    what = request(study(base={"run.device": "cuda"}))
    repeats = [one.config.run.repeat for one in pl.plan(what, MACHINE).trials]
    assert repeats == [0, 0, 1, 2, 0, 0]


def test_no_run_is_repeated_where_equal_ones_are_equal_bit_for_bit() -> None:
    what = request(study(base={"run.device": "cuda", "run.deterministic": True}))
    assert {one.config.run.repeat for one in pl.plan(what, MACHINE).trials} == {0}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown path": (
        {"arms": {"nope": {**NOPE, "set": {"model.positon": "none"}}}},
        "arms.nope.set.model.positon: unknown path; did you mean 'model.position'?",
    ),
    "an unknown value": (
        {"arms": {"nope": {**NOPE, "set": {"model.position": "nine"}}}},
        "arms.nope.set.model.position: expected 'rope', 'none' or 'learned', got \"nine\"; "
        "did you mean 'none'?",
    ),
    "the baseline's config": (
        {"arms": {"nope": {**NOPE, "set": {"model.position": "rope"}}}},
        "arms.nope: same config as baseline",
    ),
    "two arms with one config": (
        {"arms": {"nope": NOPE, "again": copy.deepcopy(NOPE)}},
        "arms.again: same config as nope",
    ),
    "an arm called baseline": (
        {"arms": {"baseline": NOPE}},
        "arms.baseline: the baseline is the base config itself, and is not listed among the arms",
    ),
    "a name with a path in it": (
        {"arms": {"a/b": NOPE}},
        "arms.a/b: expected a name of letters, digits, _, - and .",
    ),
    "one seed": ({"seeds": [0]}, "seeds: a study needs two or more, got [0]"),
    "no hypothesis": ({"arms": {"nope": {"set": NOPE["set"]}}}, "arms.nope.hypothesis: missing"),
    "no change": ({"arms": {"nope": {**NOPE, "set": {}}}}, "arms.nope.set: "),
    "a misspelled key": ({"arms": {"nope": {**NOPE, "sets": {}}}}, "arms.nope.sets: unknown key"),
    "a search": ({"search": {"method": "grid"}}, "search: not allowed in a study"),
    "confirmation": ({"confirm": 2}, "confirm: not allowed in a study"),
    "arms of both kinds": (
        {"each": {"path": "optim.lr", "values": [1.0], "hypothesis": "h"}},
        "each: a study has arms or each, not both",
    ),
    "a re-tuned path in an arm": (
        {"retune": RETUNE, "arms": {"fast": {"hypothesis": "h", "set": {"optim.lr": 1.0}}}},
        "arms.fast.set.optim.lr: retune sets this path in every arm",
    ),
    "the tuning seed": (
        {"retune": RETUNE, "seeds": [0, 1000]},
        "seeds: 1000 and above are reserved for re-tuning and confirming, got 1000",
    ),
    "a width that is solved for and set": (
        {"arms": {"x": {"hypothesis": "h", "set": {"model.d_ff": 8}, "match": "params"}}},
        "arms.x.set.model.d_ff: match sets this path",
    ),
    "a width that is solved for and re-tuned": (
        {
            "retune": {"model.d_ff": {"grid": [44, 88]}},
            "arms": {"x": {"hypothesis": "h", "set": {"model.ffn": "silu"}, "match": "params"}},
        },
        "retune.model.d_ff: arms.x.match sets this path",
    ),
    "an arm too large to be matched": (
        {"arms": {"x": {"hypothesis": "h", "set": {"model.n_layers": 9}, "match": "params"}}},
        "arms.x.match: the baseline has",
    ),
    "other validation windows": (
        {"arms": {"x": {"hypothesis": "h", "set": {"eval.tokens": 2048}}}},
        "arms.x.set.eval.tokens: every trial must be evaluated on the same windows",
    ),
    "the baseline's config at the baseline's rates": (
        {
            "retune": RETUNE,
            "arms": {"x": {"hypothesis": "h", "set": {"model.position": "rope"}, "retune": False}},
        },
        "arms.x: same config as baseline",
    ),
    "multiples of a word": (
        {"retune": {"optim.clip_norm": {"times": [1, 2]}}, "base": {"optim.clip_norm": "none"}},
        "retune.optim.clip_norm.times: expected a number in baseline, got 'none'",
    ),
    "another budget": (
        {"arms": {"x": {"hypothesis": "h", "set": {"budget.tokens": 1024}}}},
        "arms.x.set.budget.tokens: every arm must have the same token budget",
    ),
    "another corpus by losses per token": (
        {"arms": {"x": {"hypothesis": "h", "set": {"data.corpus": "python"}}}},
        "metric: losses per token of two tokenizers can't be compared; use bits_per_byte",
    ),
    "a seed as a change": (
        {"arms": {"x": {"hypothesis": "h", "set": {"run.seed": 5}}}},
        "arms.x.set.run.seed: list seeds under `seeds`",
    ),
    "an unknown retuned path": (
        {"retune": {"optim.lrr": {"grid": [1]}}},
        "did you mean 'optim.lr'?",
    ),
    "a sampled retuned path": (
        {"retune": {"optim.lr": {"uniform": [1, 2]}}},
        'retune.optim.lr: expected one of {grid: [..]}, {times: [..]}, got {"uniform": [1, 2]}',
    ),
    "a retuned path without a grid": (
        {"retune": {"optim.lr": [1, 2]}},
        "retune.optim.lr: expected one of {grid: [..]}, {times: [..]}, got [1, 2]",
    ),
    "multiples that are no whole number": (
        {"retune": {"model.d_ff": {"times": [0.3, 1]}}},
        "retune.model.d_ff.times: 88 in baseline times 0.3 is not a whole number",
    ),
    "arms without one": ({"arms": None}, "asked.yaml: arms: empty"),
    "a re-tuned length of unequal updates": (
        {"retune": {"model.context_length": {"grid": [16, 32]}}},
        "retune.model.context_length: the grid would compare updates of different sizes; "
        "add match: tokens_per_update",
    ),
    "a match of one arm that is for all": (
        {
            "arms": {
                "x": {
                    "hypothesis": "h",
                    "set": {"model.context_length": 16},
                    "match": "tokens_per_update",
                }
            }
        },
        "arms.x.match: expected params or flops; match: tokens_per_update belongs at the top level of the file",
    ),
    "an arm that no batch size matches": (
        {
            "match": "tokens_per_update",
            "arms": {"x": {"hypothesis": "h", "set": {"model.context_length": 512}}},
        },
        "arms.x: match: the 256 tokens of an update are not a multiple of model.context_length 512",
    ),
    "an arm named as the policy": (
        {
            "schedule": {"policy": "none"},
            "arms": {"none": {"hypothesis": "h", "set": {"model.x": 1}}},
        },
        "arms.none.set.model.x: unknown path",
    ),
    "a misspelled key of an arm": (
        {"arms": {"x": {"hypotesis": "h", "set": {"model.norm": "none"}}}},
        "arms.x.hypotesis: unknown key; did you mean 'arms.x.hypothesis'?",
    ),
    "an arm that is a word": ({"arms": {"x": "none"}}, 'arms.x: expected a mapping, got "none"'),
    "a nested change": (
        {"arms": {"x": {"hypothesis": "h", "set": {"model": {"norm": "none"}}}}},
        "arms.x.set.model: write whole paths, e.g. model.norm",
    ),
    "a blank hypothesis": (
        {"arms": {"x": {"hypothesis": " ", "set": {"model.norm": "none"}}}},
        'arms.x.hypothesis: expected text that is not blank, got " "',
    ),
    "an arm named as the baseline": (
        {"arms": {"Baseline": {"hypothesis": "h", "set": {"model.norm": "none"}}}},
        "arms.Baseline: the baseline is the base config itself, and is not listed among the arms",
    ),
    "another split": (
        {
            "metric": "bits_per_byte",
            "arms": {"x": {"hypothesis": "h", "set": {"data.split_seed": 3}}},
        },
        "arms.x.set.data.split_seed: every trial must be evaluated on the same windows",
    ),
    "more repeats than anyone runs": ({"repeats": 10**7}, "repeats: expected at most"),
}
BAD_EACH: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown path": ({"path": "optim.batchsize"}, "did you mean 'optim.batch_size'?"),
    "memory for something else": (
        {"path": "model.d_ff", "values": {"powers_of_two": [1, "memory"]}},
        "memory can bound optim.batch_size only, not model.d_ff",
    ),
    "memory as the lower bound": (
        {"values": {"powers_of_two": ["memory", 4]}},
        "the lower bound must be a number, got memory",
    ),
    "reversed bounds": (
        {"values": {"powers_of_two": [8, 4]}},
        "lower bound 8 must not be above upper bound 4",
    ),
    "a value twice": ({"values": [4, 4]}, "4 is listed twice"),
    "the baseline's own value alone": (
        {"values": [8]},
        "each.values: only the baseline's own value, 8",
    ),
    "a number that a float does not hold": (
        {"values": [4, 2**53 + 1]},
        "each.values.1: expected text, a number below 2**53, true or false, got 9007199254740993",
    ),
    "a power that is too much": (
        {"path": "model.norm_eps", "values": [1e30], "scale": {"optim.lr": 10.0}},
        "each.scale.optim.lr: the power 10 is too large for 1e+30",
    ),
    "a number for a switch": (
        {"path": "model.tie_embeddings", "values": [0]},
        "model.tie_embeddings: expected true or false, got 0",
    ),
    "a number of four hundred digits": (
        {"values": [4, 10**400]},
        "each.values.1: expected text, a number below 2**53, true or false, got 1000",
    ),
    "no list of values": (
        {"values": "memory"},
        'each.values: expected a list of values, or {powers_of_two: [a, b]}, got "memory"',
    ),
    "a bound that is a word": (
        {"values": {"powers_of_two": [1, "mem"]}},
        'each.values.powers_of_two.1: expected a whole number above 0, or memory, got "mem"',
    ),
    "a path scaled by itself": (
        {"scale": {"optim.batch_size": 0.5}},
        "each.scale.optim.batch_size: each sets this path",
    ),
    "a power beyond sense": (
        {"scale": {"optim.lr": 1e308}},
        "each.scale.optim.lr: expected at most 10",
    ),
    "a word for a number": (
        {"values": ["big"]},
        'optim.batch_size: expected a whole number, got "big"',
    ),
    "a scaled word": (
        {"scale": {"model.norm": 0.5}},
        "each.scale.model.norm: expected numbers above 0",
    ),
    "not one that fits": (
        {"values": {"powers_of_two": [64, "memory"]}},
        "each.values: not even 64 is possible: 64 leaves 4 updates",
    ),
    "a batch that the budget is no multiple of": (
        {"values": [7]},
        "budget.tokens 8192 is not a multiple of 224",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_study_is_refused_with_file_path_and_value(tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    errors = problems(tmp_path, study(**changes))
    assert (message in errors, "asked.yaml" in errors) == (True, True), errors


@pytest.mark.parametrize("name", BAD_EACH)
def test_wrong_values_are_refused_with_file_path_and_value(tmp_path: Path, name: str) -> None:
    changes, message = BAD_EACH[name]
    errors = problems(tmp_path, batches(**{"values": [4], **changes}))
    assert (message in errors, "asked.yaml" in errors) == (True, True), errors


STUDY = study(retune=RETUNE, schedule={"policy": "asha", "eta": 3, "grace": "1/8"})


def chosen(sweep: led.Sweep) -> dict[str, Any]:
    return {name: row["values"] for name, row in sweep.chosen.items()}


def test_every_arm_runs_at_the_values_that_its_own_grid_chose(tmp_path: Path) -> None:
    sweep = conduct(tmp_path, STUDY)
    assert chosen(sweep) == {"baseline": {"optim.lr": 4e-3}, "nope": {"optim.lr": 1e-3}}
    rows = sweep.chosen.values()
    ends = {sweep.trials[trial].status for row in rows for trial in row["trials"].values()}
    assert ends == {"finished"}


def test_grids_are_stopped_early_and_runs_are_not(tmp_path: Path) -> None:
    trials = conduct(tmp_path, STUDY).trials.values()
    tuned = {t.status for t in trials if (t.role, t.arm) == ("tuning", "nope")}
    assert tuned == {"finished", "stopped"}
    assert {t.status for t in trials if t.pool is None} == {"finished"}


def test_arms_are_not_stopped_by_each_others_losses(tmp_path: Path) -> None:
    """Every loss of one arm is higher than all of the other, and yet each has a finisher."""
    trials = conduct(
        tmp_path, STUDY, lambda c, s: loss(c, s) + 9 * (c["model"]["position"] == "none")
    )
    ended = [t for t in trials.trials.values() if t.status == "finished"]
    finished = {t.arm if t.role == "tuning" else None for t in ended}
    assert finished == {"baseline", "nope", None}


def test_an_arm_may_take_what_the_baseline_chose(tmp_path: Path) -> None:
    tree = {**STUDY, "arms": {"nope": NOPE, "same": {**NOPE, "retune": False}}}
    assert chosen(conduct(tmp_path, tree))["same"] == {"optim.lr": 4e-3}


@pytest.mark.parametrize("records", range(1, 40, 3))
def test_a_crash_at_any_record_changes_no_choice_and_no_curve(tmp_path: Path, records: int) -> None:
    whole = conduct(tmp_path / "whole", STUDY)
    conduct(tmp_path / "cut", STUDY, records=records)
    again = conduct(tmp_path / "cut", STUDY)
    assert chosen(again) == chosen(whole)
    ends = [{t.label: t.curve[-1]["val_loss"] for t in s.trials.values()} for s in (again, whole)]
    assert ends[0] == ends[1]


def test_a_study_that_has_ended_has_nothing_left_to_do(tmp_path: Path) -> None:
    conduct(tmp_path, STUDY)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(STUDY))
        assert conductor.is_done() and Left.of(conductor.state).tokens == 0


def test_at_most_what_a_study_trains_is_left_of_it(tmp_path: Path) -> None:
    before = conduct(tmp_path, STUDY, records=10)
    most = Left.of(driver(led.ReadLedger(led.Files(tmp_path)), request(STUDY)).state).tokens
    assert 0 < conduct(tmp_path, STUDY).spent_tokens - before.spent_tokens <= most


def test_more_seeds_add_runs_and_keep_the_choice(tmp_path: Path) -> None:
    before = conduct(tmp_path, STUDY)
    after = conduct(tmp_path, {**STUDY, "seeds": [0, 1, 2]})
    assert chosen(after) == chosen(before)
    assert set(after.trials) > set(before.trials)
    assert len(after.chosen["nope"]["trials"]) == 3


def test_an_arm_that_diverges_at_every_rate_chooses_none(tmp_path: Path) -> None:
    def diverging(config: dict[str, Any], share: float) -> float:
        return math.inf if config["model"]["position"] == "none" else loss(config, share)

    sweep = conduct(tmp_path, STUDY, diverging)
    assert chosen(sweep)["nope"] is None
    assert sweep.chosen["nope"]["trials"] == {}


def test_a_choice_is_written_with_the_numbers_it_was_made_on(tmp_path: Path) -> None:
    row = conduct(tmp_path, STUDY).chosen["nope"]
    assert (row["tried"], row["seeds"], row["hypothesis"]) == (3, [0, 1], "Worse.")
    assert row["score"] == pytest.approx(
        loss({"model": {"position": "none"}, "optim": {"lr": 1e-3}, "run": {"seed": 1000}}, 1)
    )


def search(**more: Any) -> dict[str, Any]:
    """A random search of a rate and a width."""
    space = {"optim.lr": {"loguniform": [1e-3, 1e-2]}, "model.d_ff": {"int": [8, 88]}}
    tree = {"question": "q?", "search": {"method": "random", "samples": 6}, "space": space}
    return {**tree, "schedule": {"policy": "none"}, **more}


def test_the_best_is_confirmed_on_fresh_seeds(tmp_path: Path) -> None:
    sweep = conduct(tmp_path, search(confirm=2))
    row = sweep.confirming
    assert row is not None
    best = min(
        (t for t in sweep.trials.values() if t.role == "search"),
        key=lambda t: t.curve[-1]["val_loss"],
    )
    again = [sweep.trials[trial] for trial in row["trials"].values()]
    assert [(t.seed, t.status, t.values) for t in again] == [
        (2000, "finished", best.values),
        (2001, "finished", best.values),
    ]


def test_confirming_trials_are_not_ranked(tmp_path: Path) -> None:
    conduct(tmp_path, search(confirm=2))
    found = findings(studied(led.Files(tmp_path))).as_json()
    assert len(found["ranking"]["trials"]) == 6
    assert len(found["selection"]["confirmed"]) == 2


def test_every_sample_meets_the_constraint_and_its_draws_are_counted() -> None:
    found = pl.plan(request(search(constraint={"params": [12_000, 15_000]})), MACHINE)
    assert all(12_000 <= size(one.config.model)[0] <= 15_000 for one in found.trials)
    draws = sum(one.draws for one in found.trials)
    assert draws > 6
    (note,) = found.notes
    assert note.startswith(f"{draws - 6} of {draws} draws discarded: ")
    assert note.endswith("FLOPs per token, not 12000 to 15000 parameters (and others like it)")


def test_more_samples_under_a_constraint_keep_those_before() -> None:
    few = search(constraint={"params": [12_000, 15_000]})
    more = {**few, "search": {"method": "random", "samples": 9}}
    assert planned(more).trials[:6] == planned(few).trials


def test_a_constraint_that_nothing_meets_is_refused(tmp_path: Path) -> None:
    errors = problems(tmp_path, search(constraint={"params": [1, 2]}))
    assert "space: nothing in it is possible\nasked.yaml: 1000 of 1000 draws: " in errors
    assert "FLOPs per token, not 1 to 2 parameters" in errors


def test_a_constraint_with_its_bounds_reversed_is_refused(tmp_path: Path) -> None:
    errors = problems(tmp_path, search(constraint={"params": [10, 1]}))
    assert "constraint.params: lower bound 10 must not be above upper bound 1" in errors


def test_a_whole_multiple_is_whole_although_it_is_not_in_binary() -> None:
    tree = study(base={"model.d_ff": 100}, retune={"model.d_ff": {"times": [1, 1.1]}})
    found = tuning(request(tree), arm(tree, "baseline"))
    assert [one.config.model.d_ff for one in found] == [100, 110]


def test_a_constraint_on_a_grid_is_refused(tmp_path: Path) -> None:
    tree = search(search={"method": "grid"}, space={"optim.lr": {"grid": [1.0]}})
    assert "constraint: a grid has no draws" in problems(
        tmp_path, {**tree, "constraint": {"params": [1, 2]}}
    )


def test_optuna_keeps_to_the_constraint(tmp_path: Path) -> None:
    tree = search(
        search={"method": "optuna", "samples": 5}, constraint={"params": [12_000, 15_000]}
    )
    trials = conduct(tmp_path, tree).trials.values()
    sizes = [size(cfg.validate(t.config, t.label).model)[0] for t in trials]
    assert len(sizes) == 5 and all(12_000 <= params <= 15_000 for params in sizes)


def test_the_first_seed_is_repeated_under_ids_of_its_own() -> None:
    tree = {"question": "q?", "search": {"method": "grid"}, "seeds": [3, 4], "repeats": 3}
    found = planned({**tree, "schedule": {"policy": "none"}}).trials
    assert [(one.config.run.seed, one.config.run.repeat) for one in found] == [
        (3, 0),
        (4, 0),
        (3, 1),
        (3, 2),
    ]
    assert len({one.trial for one in found}) == 4


def rewritten(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> led.Sweep:
    """A study whose file was rewritten when it had ended."""
    conduct(folder, before)
    return conduct(folder, after)


def test_an_arm_that_is_redefined_is_tuned_anew(tmp_path: Path) -> None:
    """Its old grid chose 0.001; without a bare model 0.004 is best."""
    wide = {"hypothesis": "h", "set": {"model.d_ff": 96}}
    after = rewritten(tmp_path, STUDY, {**STUDY, "arms": {"nope": wide}})
    assert chosen(after)["nope"] == {"optim.lr": 4e-3}
    assert after.chosen["nope"]["tried"] == 3


def test_another_path_to_re_tune_is_another_grid(tmp_path: Path) -> None:
    more = {**STUDY, "retune": {**RETUNE, "optim.weight_decay": {"grid": [0.0, 0.1]}}}
    after = rewritten(tmp_path, STUDY, more)
    assert set(chosen(after)["nope"]) == {"optim.lr", "optim.weight_decay"}


def test_a_path_whose_grid_is_the_bases_value_may_be_added(tmp_path: Path) -> None:
    """The trials are those of before, planned when the path was not re-tuned."""
    own = {"optim.weight_decay": {"grid": [BASE.optim.weight_decay]}}
    after = rewritten(tmp_path, STUDY, {**STUDY, "retune": {**RETUNE, **own}})
    assert chosen(after)["nope"] == {"optim.lr": 1e-3, "optim.weight_decay": 0.1}
    assert "nope" in {
        result["arm"] for result in findings(studied(led.Files(tmp_path))).as_json()["tuning"]
    }


def test_a_larger_grid_adds_to_the_one_before(tmp_path: Path) -> None:
    more = {**STUDY, "retune": {"optim.lr": {"grid": [1e-3, 4e-3, 1.6e-2, 2e-3]}}}
    conduct(tmp_path, STUDY)
    before = led.fold(led.read(led.Files(tmp_path)))
    after = conduct(tmp_path, more)
    assert len(after.trials) == len(before.trials) + 2
    assert after.chosen["nope"]["tried"] == 4


def test_an_arm_that_is_removed_is_forgotten(tmp_path: Path) -> None:
    wide = {"hypothesis": "h", "set": {"model.d_ff": 96}}
    both = {**STUDY, "arms": {"nope": NOPE, "wide": wide}}
    conduct(tmp_path, both)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(STUDY))
        assert (conductor.is_done(), conductor.has_work()) == (False, False)
        conductor.begin({})
        assert conductor.is_done()
        assert set(conductor.sweep.chosen) == {"baseline", "nope"}


def test_a_hypothesis_may_be_reworded_without_training(tmp_path: Path) -> None:
    conduct(tmp_path, STUDY)
    reworded = {**STUDY, "arms": {"nope": {**NOPE, "hypothesis": "Better?"}}}
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(reworded))
        assert not conductor.has_work()
        conductor.begin({})
        assert conductor.sweep.chosen["nope"]["hypothesis"] == "Better?"


def test_a_grid_trial_that_fails_does_not_hide_its_arm(tmp_path: Path) -> None:
    def failing(config: dict[str, Any], share: float) -> float:
        if is_bare(config) and config["optim"]["lr"] == 1.6e-2:
            raise ArithmeticError("no")
        return loss(config, share)

    sweep = conduct(tmp_path, STUDY, failing)
    assert chosen(sweep)["nope"] == {"optim.lr": 1e-3}
    assert sweep.chosen["nope"]["failed"] == 1


def test_more_samples_confirm_the_new_best_and_keep_the_old_runs_apart(tmp_path: Path) -> None:
    for samples in (2, 4, 8, 16):
        tree = search(confirm=2, search={"method": "random", "samples": samples})
        sweep = conduct(tmp_path, tree)
    found = findings(studied(led.Files(tmp_path))).as_json()
    best = min(
        (t for t in sweep.trials.values() if t.role == "search"),
        key=lambda t: t.curve[-1]["val_loss"],
    )
    assert sweep.confirming is not None
    assert found["selection"]["values"] == best.values == sweep.confirming["values"]
    assert len(found["ranking"]["trials"]) == 16
