"""What the log advises to do next, and the observations that advice rests on."""

import math
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, conduct, is_bare, loss, study
from ledgers import (
    BUDGET,
    EVERY,
    Story,
    ended,
    read_often,
    rewrite,
    starts_high,
    story,
    studied,
)

from sweeps.findings.everything import search_findings
from sweeps.ledger import Files, Ledger, read
from sweeps.report.entries import Entry, entries_under

SEEDS = [0, 1, 2, 3]


def entry_of(folder: Path, name: str) -> Entry:
    """An experiment of the only sweep in a folder."""
    return next(entry for entry in entries_under(folder) if entry.name == name)


def arm_of(folder: Path, how: Any = loss, **more: Any) -> Entry:
    """The experiment of the arm of a study of four seeds."""
    conduct(folder / "s", study(seeds=SEEDS, **more), how)
    return entry_of(folder, "s/nope")


def beginning(entry: Entry, rule: str) -> list[str]:
    """The next steps by a rule."""
    return [step for step in entry.next_steps if step.startswith(rule)]


def test_trials_without_a_result_are_to_be_resumed(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.plan({"optim.lr": 2e-3})
    (step,) = beginning(entry_of(tmp_path, "a"), "Resume")
    assert step == "Resume: no result yet for 1 of 2 trials. Run `python -m sweeps.run lr`."


def test_nothing_is_to_be_resumed_once_all_have_ended(tmp_path: Path) -> None:
    ended(tmp_path / "a", "optim.lr", {1e-3: 3.1, 2e-3: 3.0, 4e-3: 3.1})
    assert beginning(entry_of(tmp_path, "a"), "Resume") == []


@pytest.mark.parametrize(("losses", "steps"), [((3.0,), 1), ((3.0, 3.01), 0)])
def test_a_best_that_was_run_with_one_seed_needs_more(
    tmp_path: Path, losses: tuple[float, ...], steps: int
) -> None:
    ended(tmp_path / "a", "optim.lr", {1e-3: 3.2, 2e-3: losses, 4e-3: 3.1})
    assert len(beginning(entry_of(tmp_path, "a"), "More seeds")) == steps


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_best_that_is_confirmed_on_one_fresh_seed_needs_more_of_these(
    tmp_path: Path, seeds: int
) -> None:
    files = ended(tmp_path / "a", "optim.lr", {1e-3: (3.2,) * seeds, 2e-3: (3.0,) * seeds})
    with Ledger(files) as ledger:
        tell = Story(ledger)
        fresh = tell.plan({"optim.lr": 2e-3}, 2000, role="confirm")
        ledger.append("confirming", values={"optim.lr": 2e-3}, trials={"2000": fresh})
        tell.whole(fresh, 2e-3)
    (step,) = beginning(entry_of(tmp_path, "a"), "More seeds")
    assert step == (
        "More seeds: lr=0.002 is confirmed on one fresh seed. Set `confirm: 3` in the space. Run "
        "`python -m sweeps.run lr`."
    )


def test_further_seeds_are_those_after_the_highest(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}}, seeds=[5])
        tell.whole(tell.plan({"optim.lr": 1e-3}, 5), 1e-3)
    (step,) = beginning(entry_of(tmp_path, "a"), "More seeds")
    assert "lr=0.001 was run with one seed. Set `seeds: [5, 6, 7]` in the space. Run `" in step


def test_a_search_by_optuna_has_one_seed_and_confirms_its_best(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        search = {"method": "optuna", "samples": 2}
        tell.ask({"optim.lr": {"loguniform": [1e-4, 1e-2]}}, search=search)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    (step,) = beginning(entry_of(tmp_path, "a"), "More seeds")
    assert "Set `confirm: 2` in the space." in step


@pytest.mark.parametrize("name", ["--name wide", "--name=wide"])
def test_a_single_config_is_run_again_under_another_name_with_the_next_seed(
    tmp_path: Path, name: str
) -> None:
    command = f"python -m sweeps.experiment {name} --config cpu"
    with story(tmp_path / "wide") as tell:
        tell.ask({}, seeds=[3])
        tell.ledger.append("session", command=f"/home/me/bin/{command}", slots=1)
        tell.whole(tell.plan({}, 3), 2e-3)
    (step,) = beginning(entry_of(tmp_path, "wide"), "More seeds")
    other = command.replace("wide", "wide-seed4")
    assert step == f"More seeds: it was run with one seed. Run `{other} --set run.seed=4`."


@pytest.mark.parametrize(("best", "steps"), [(2e-3, 0), (4e-3, 1)])
def test_only_a_best_on_the_edge_needs_further_values(
    tmp_path: Path, best: float, steps: int
) -> None:
    rates = {rate: 3 + abs(math.log(rate / best)) for rate in (1e-3, 2e-3, 4e-3)}
    ended(tmp_path / "a", "optim.lr", rates)
    assert len(beginning(entry_of(tmp_path, "a"), "Widen")) == steps


@pytest.mark.parametrize(
    ("best", "bounds"), [(1.1e-3, "[0.0005, 0.02]"), (1.9e-2, "[0.001, 0.04]")]
)
def test_a_range_whose_edge_is_best_is_to_be_widened(
    tmp_path: Path, best: float, bounds: str
) -> None:
    """By a quarter of it, on its logarithmic scale, to a round number."""
    rates = {rate: 3 + abs(math.log(rate / best)) for rate in (1.1e-3, 4e-3, 1.9e-2)}
    ended(tmp_path / "a", "optim.lr", rates, {"loguniform": [1e-3, 2e-2]})
    (step,) = beginning(entry_of(tmp_path, "a"), "Widen")
    assert f"Set `optim.lr: {{loguniform: {bounds}}}` and `" in step


def test_a_range_with_room_beyond_its_best_draw_is_drawn_from_again(tmp_path: Path) -> None:
    rates = {1.1e-3: 3.2, 4e-3: 3.1, 8e-3: 3.0}
    ended(tmp_path / "a", "optim.lr", rates, {"loguniform": [1e-3, 2e-2]})
    assert beginning(entry_of(tmp_path, "a"), "Widen") == []
    (step,) = beginning(entry_of(tmp_path, "a"), "Draw more")
    assert step.startswith(
        "Draw more: the best `optim.lr`, 0.008, is the highest that was drawn, and its range has room beyond "
        "it. Set `search: {method: random, samples: 2}` in the space."
    )


def test_a_widened_range_of_whole_numbers_is_one_of_whole_numbers(tmp_path: Path) -> None:
    sizes = {16_384: 3.2, 40_000: 3.1, 65_000: 3.0}
    ended(tmp_path / "a", "model.d_ff", sizes, {"int": [16_384, 65_536]})
    (step,) = beginning(entry_of(tmp_path, "a"), "Widen")
    assert "Set `model.d_ff: {int: [16384, 77824]}` and `" in step


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((1.0, 2.0), "Set `optim.lr: {grid: [0.25, 0.5, 1.0, 2.0]}` in the space."),
        ((1.0,), "Set `optim.lr` below 0.002, in another folder."),
    ],
)
def test_a_search_that_diverged_needs_lower_rates(
    tmp_path: Path, values: tuple[float, ...], told: str
) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": list(values)}} if len(values) > 1 else {})
        for rate in values:
            trial = tell.plan({"optim.lr": rate} if len(values) > 1 else {})
            tell.start(trial)
            tell.diverge(trial, EVERY)
    (step,) = beginning(entry_of(tmp_path, "a"), "Lower the learning rate")
    number = len(values)
    assert (
        f"{number} of {number} trial{'s' * (number > 1)} diverged, and none finished. {told}"
        in step
    )


def test_a_search_that_draws_is_widened_with_more_samples(tmp_path: Path) -> None:
    """The draws that it has count as its first samples."""
    ended(tmp_path / "a", "optim.lr", {1e-3: 3.2, 1.9e-2: 3.0}, {"loguniform": [1e-3, 2e-2]})
    (step,) = beginning(entry_of(tmp_path, "a"), "Widen")
    assert "and `search: {method: random, samples: 2}` in the space." in step


@pytest.mark.parametrize(
    ("path", "low", "high", "told"),
    [
        ("optim.weight_decay", 0.03, 1.0, "{loguniform: [0.03, 2.0]}"),
        ("optim.weight_decay", 0.03, 2.9, "{loguniform: [0.03, 3.0]}"),
        ("optim.weight_decay", 0.03, 3.0, ""),
        ("optim.lr", 1e-2, 1.0, ""),
        ("optim.beta1", 0.5, 0.95, ""),  # a config has it below 1
    ],
)
def test_no_value_is_advised_that_makes_no_sense(
    tmp_path: Path, path: str, low: float, high: float, told: str
) -> None:
    kind = "uniform" if path == "optim.beta1" else "loguniform"
    files = ended(tmp_path / "a", path, {low: 3.2, high: 3.0}, {kind: [low, high]})
    (best,) = search_findings(studied(files)).best
    assert best.edge == "high"
    (step,) = beginning(entry_of(tmp_path, "a"), "Widen")
    assert (f"Set `{path}: {told}`" in step) if told else ("Set" not in step)


@pytest.mark.parametrize(("more", "steps"), [(4e-5, 0), (6e-5, 1)])
def test_falls_of_the_loss_are_compared_by_the_digits_that_are_shown(
    tmp_path: Path, more: float, steps: int
) -> None:
    """The loss of the best falls by 0.5 there."""
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        best, stopped = (tell.plan({"optim.lr": rate}) for rate in (1e-3, 2e-3))
        for trial, fall in ((best, 0.5), (stopped, 0.5 + more)):
            tell.start(trial)
            tell.measure(trial, EVERY, 6.0)
            tell.measure(trial, 2 * EVERY, 6.0 - fall)
        tell.measure(best, BUDGET, 3.0)
        tell.finish(best)
        tell.stop(stopped, 2 * EVERY, 5.5)
    assert len(beginning(entry_of(tmp_path, "a"), "Audit")) == steps


@pytest.mark.parametrize(
    ("behind", "more", "steps"), [(0.69, {}, 1), (0.71, {}, 0), (0.0, {"spike": 1.1}, 0)]
)
def test_only_a_sound_trial_that_could_catch_up_is_to_be_audited(
    tmp_path: Path, behind: float, more: dict[str, float], steps: int
) -> None:
    """It gains 0.05 on the best per record, of which 14 are left."""
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        best, stopped = (tell.plan({"optim.lr": rate}) for rate in (1e-3, 2e-3))
        for trial, first, fall in ((best, 6.0, 0.5), (stopped, 6.05 + behind, 0.55)):
            tell.start(trial)
            tell.measure(trial, EVERY, first)
            tell.measure(trial, 2 * EVERY, first - fall, **(more if trial == stopped else {}))
        tell.measure(best, BUDGET, 3.0)
        tell.finish(best)
        tell.stop(stopped, 2 * EVERY, 5.5)
    assert len(beginning(entry_of(tmp_path, "a"), "Audit")) == steps


PAIR = ("optim.lr", "optim.weight_decay")


def two_paths(folder: Path, losses: dict[tuple[float, float], tuple[float, ...]]) -> Files:
    """A finished search of two paths with these losses, one for each seed; each lists its values."""
    lists = (sorted({values[number] for values in losses}) for number in (0, 1))
    with story(folder) as tell:
        tell.ask({path: {"grid": one} for path, one in zip(PAIR, lists, strict=True)})
        for values, given in losses.items():
            for seed, val_loss in enumerate(given):
                trial = tell.plan(dict(zip(PAIR, values, strict=True)), seed)
                tell.start(trial)
                tell.measure(trial, BUDGET, val_loss)
                tell.finish(trial)
    return Files(folder)


MIDDLE = (2e-3, 0.1)
APART = {(1e-3, 0.01): (3.2, 3.2), (4e-3, 1.0): (3.1, 3.1)}


@pytest.mark.parametrize(
    ("losses", "paths"),
    [
        ({MIDDLE: (3.0,), (1e-3, 0.1): (3.1,), (2e-3, 1.0): (3.1,), (4e-3, 0.01): (3.2,)}, 2),
        ({MIDDLE: (3.0, 3.0), **APART}, 2),  # no other run has one of its values
        ({MIDDLE: (3.0, 3.0), (1e-3, 0.1): (3.1, 3.1), **APART}, 1),
        ({MIDDLE: (3.0, 3.0), (1e-3, 0.1): (3.1, 3.1), (2e-3, 1.0): (3.1, 3.1), **APART}, 0),
    ],
)
def test_a_value_is_settled_by_several_seeds_at_equal_other_values(
    tmp_path: Path, losses: dict[tuple[float, float], tuple[float, ...]], paths: int
) -> None:
    two_paths(tmp_path / "a", losses)
    assert len(beginning(entry_of(tmp_path, "a"), "Not settled")) == paths


def test_a_neighbor_that_ended_early_settles_a_value_too(tmp_path: Path) -> None:
    """It was stopped at one seed, and diverged at the other."""
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}, "optim.weight_decay": {"grid": [0.1, 1.0]}})
        for values in ((2e-3, 0.1), (1e-3, 0.1), (2e-3, 1.0)):
            for seed in (0, 1):
                trial = tell.plan(dict(zip(PAIR, values, strict=True)), seed)
                tell.start(trial)
                tell.measure(trial, EVERY, 4.0)
                if values == (2e-3, 0.1):
                    tell.measure(trial, BUDGET, 3.0)
                    tell.finish(trial)
                elif seed:
                    tell.diverge(trial, EVERY)
                else:
                    tell.stop(trial, EVERY, 4.0)
    assert not beginning(entry_of(tmp_path, "a"), "Not settled")


def test_before_a_sweep_has_finished_it_is_only_resumed(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 2e-3}), 2e-3)
        tell.plan({"optim.lr": 1e-3})
    steps = entry_of(tmp_path, "a").next_steps
    assert [step.partition(":")[0] for step in steps] == ["Resume"]


def test_a_value_that_is_not_settled_is_swept_alone(tmp_path: Path) -> None:
    """The learning rate comes last."""
    two_paths(
        tmp_path / "a", {values: losses[:1] for values, losses in {MIDDLE: (3.0,), **APART}.items()}
    )
    (step, _) = beginning(entry_of(tmp_path, "a"), "Not settled")
    assert step == (
        "Not settled: `optim.weight_decay` (best: 0.1), compared on one seed while `optim.lr` varied with it. "
        "Fix `optim.lr: 0.002`, and sweep `optim.weight_decay` with 3 seeds. `sweeps next a --path "
        "optim.weight_decay` writes the space."
    )


def test_one_path_alone_is_not_confounded(tmp_path: Path) -> None:
    ended(tmp_path / "a", "optim.lr", {1e-3: 3.2, 2e-3: 3.0, 4e-3: 3.1})
    assert beginning(entry_of(tmp_path, "a"), "Not settled") == []


def around_best(folder: Path, best: dict[str, float], domains: dict[str, Any]) -> list[Any]:
    """The values to compare with the best one of the second path."""
    with story(folder) as tell:
        tell.ask(domains)
        for values, val_loss in ((best, 3.0), ({path: x / 1.1 for path, x in best.items()}, 3.5)):
            trial = tell.plan(values)
            tell.start(trial)
            tell.measure(trial, BUDGET, val_loss)
            tell.finish(trial)
    first = search_findings(studied(Files(folder))).not_settled[0]
    return list(first.values)


def test_the_values_around_a_draw_are_a_quarter_of_its_range_apart(tmp_path: Path) -> None:
    """On its logarithmic scale; none is above what makes sense."""
    domains = {
        "optim.lr": {"loguniform": [1e-3, 0.1]},
        "optim.weight_decay": {"loguniform": [0.01, 1]},
    }
    best = {"optim.lr": 0.061651760351308316, "optim.weight_decay": 0.52580976}
    assert around_best(tmp_path, best, domains) == [0.053, 0.17, 0.5258, 1.7]


def test_the_values_around_a_draw_stay_within_a_linear_range(tmp_path: Path) -> None:
    domains = {"optim.lr": {"loguniform": [1e-3, 0.1]}, "optim.beta1": {"uniform": [0.8, 1.0]}}
    best = {"optim.lr": 0.01, "optim.beta1": 0.98}
    assert around_best(tmp_path, best, domains) == [0.93, 0.955, 0.98]


def test_the_whole_numbers_around_a_draw_are_steps_apart(tmp_path: Path) -> None:
    """Heads divide them; others could not be trained."""
    domains = {
        "optim.lr": {"loguniform": [1e-3, 0.1]},
        "model.d_model": {"logint": [64, 512], "step": 16},
    }
    with story(tmp_path / "a") as tell:
        tell.ask(domains)
        for lr, width, val_loss in ((0.01, 128, 3.0), (0.009, 112, 3.5)):
            trial = tell.plan({"optim.lr": lr, "model.d_model": width})
            tell.start(trial)
            tell.measure(trial, BUDGET, val_loss)
            tell.finish(trial)
    (first, _) = search_findings(studied(Files(tmp_path / "a"))).not_settled
    assert (first.path, first.values) == ("model.d_model", (32, 64, 128, 256, 512))


def test_an_arm_on_the_edge_of_its_grid_is_to_be_re_tuned(tmp_path: Path) -> None:
    (step,) = beginning(arm_of(tmp_path, retune=RETUNE), "Re-tune")
    told = "Extend the grid: set `optim.lr: {grid: [0.00025, 0.001, 0.004, 0.016]}` under `retune`."
    assert f"(try 0.00025). {told}" in step


@pytest.mark.parametrize(
    ("arms", "retune", "told"),
    [
        ({"nope": NOPE}, None, "Add `retune: {optim.lr: {times: [0.5, 1, 2]}}` to the space."),
        ({"nope": {**NOPE, "retune": False}}, RETUNE, "Remove `arms.nope.retune: false`."),
        ({"nope": {**NOPE, "set": {**NOPE["set"], "optim.lr": 1e-3}}}, None, "Add `retune` to"),
    ],
)
def test_an_arm_at_values_of_another_is_to_be_re_tuned(
    tmp_path: Path, arms: dict[str, Any], retune: dict[str, Any] | None, told: str
) -> None:
    more = {"retune": retune} if retune else {}
    (step,) = beginning(arm_of(tmp_path, arms=arms, **more), "Re-tune")
    assert told in step


@pytest.mark.parametrize("more", [{}, {"retune": RETUNE}])
def test_a_void_arm_is_not_to_be_re_tuned(tmp_path: Path, more: dict[str, Any]) -> None:
    """Its switch changes nothing; with a grid, its best rate is the lowest one."""

    def alike(config: dict[str, Any], share: float) -> float:
        return 2.0 + config["optim"]["lr"] + config["run"]["seed"] / 100 + (1 - share)

    entry = arm_of(tmp_path, alike, **more)
    assert (entry.verdict.partition(":")[0], beginning(entry, "Re-tune")) == ("void", [])


def test_an_arm_inside_its_grid_is_not_to_be_re_tuned(tmp_path: Path) -> None:
    grid = {"optim.lr": {"grid": [2.5e-4, 1e-3, 4e-3]}}
    assert beginning(arm_of(tmp_path, retune=grid), "Re-tune") == []


def test_a_trial_of_a_grid_that_failed_is_no_reason_to_re_tune(tmp_path: Path) -> None:
    def failing(config: dict[str, Any], share: float) -> float:
        if is_bare(config) and config["optim"]["lr"] == 1.6e-2:
            raise ArithmeticError("no")
        return loss(config, share)

    entry = arm_of(tmp_path, failing, retune={"optim.lr": {"grid": [2.5e-4, 1e-3, 1.6e-2]}})
    assert any("1 of 3 trials" in line and "failed" in line for line in entry.observations)
    assert beginning(entry, "Re-tune") == []


def test_a_grid_that_missed_a_better_value_is_to_be_re_tuned(tmp_path: Path) -> None:
    """On the tuning seed the arm likes 1e-3; on the others 4e-3, where its twin runs, is better."""

    def misled(config: dict[str, Any], share: float) -> float:
        early = is_bare(config) and config["run"]["seed"] < 1000 and config["optim"]["lr"] < 4e-3
        return loss(config, share) + early

    arms = {"nope": NOPE, "same": {**NOPE, "retune": False}}
    entry = arm_of(tmp_path, misled, retune={"optim.lr": {"grid": [2.5e-4, 1e-3, 4e-3]}}, arms=arms)
    (step,) = beginning(entry, "Re-tune")
    assert "same" in step


def scattered(gap: float) -> Any:
    """An arm whose differences are 0.03 up or down by seed, around a gap."""

    def how(config: dict[str, Any], share: float) -> float:
        seed = config["run"]["seed"]
        own = (0.03 if seed % 2 else -0.03) * is_bare(config)
        return 3.0 + 0.01 * seed + gap * is_bare(config) + own + (1 - share)

    return how


def test_an_open_question_asks_for_the_seeds_that_would_settle_it(tmp_path: Path) -> None:
    """0.02 give or take 0.0346: a paired t test finds that in 26 seeds with a power of 80%."""
    (step,) = beginning(arm_of(tmp_path, scattered(0.02)), "More seeds")
    assert "22 more seeds" in step
    assert f"Set `seeds: {list(range(26))}` in the space." in step


def test_a_long_list_of_seeds_is_abbreviated(tmp_path: Path) -> None:
    """0.015 give or take 0.0346 needs 44."""
    (step,) = beginning(arm_of(tmp_path, scattered(0.015)), "More seeds")
    assert "40 more seeds" in step
    assert "Set `seeds: [0, 1, 2, ..., 43]` in the space." in step


def test_a_settled_question_asks_for_no_seeds(tmp_path: Path) -> None:
    assert beginning(arm_of(tmp_path, scattered(1.0)), "More seeds") == []


def observed(folder: Path, tell_records: Any) -> list[str]:
    """The observations on a single run with these records."""
    with story(folder / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell_records(tell, trial)
        tell.finish(trial)
    return entry_of(folder, "a").observations


@pytest.mark.parametrize(
    ("half", "end", "widens"),
    [(0.1, 0.2, True), (0.2, 0.1, False), (-0.2, -0.1, False), (-0.1, 0.1, True)],
)
def test_the_gap_widens_where_it_is_above_zero_and_grew(
    tmp_path: Path, half: float, end: float, widens: bool
) -> None:
    def gaps(tell: Story, trial: str) -> None:
        tell.measure(trial, BUDGET // 2, 3.5, train_loss=3.5 - half)
        tell.measure(trial, BUDGET, 3.0, train_loss=3.0 - end)

    (said,) = [line for line in observed(tmp_path, gaps) if "the training loss" in line]
    assert ("The gap widens" in said) is widens


def test_the_slope_is_that_from_the_last_record_before_the_last_tenth(tmp_path: Path) -> None:
    """Of 16 records, 14 are before 90% of the tokens; 15 are before 95%, and 12 before 80%."""

    def falling(tell: Story, trial: str) -> None:
        for number in range(1, 17):
            tell.measure(trial, number * EVERY, 4 - number / 100)

    assert any("12%" in line and "fell by 0.0200" in line for line in observed(tmp_path, falling))


@pytest.mark.parametrize(("highest", "steps"), [(4.1174, (0, 1)), (3.5, (1, 0))])
def test_where_trials_overfit_the_step_is_another_text_and_no_other_rate(
    tmp_path: Path, highest: float, steps: tuple[int, int]
) -> None:
    """The lowest rate ends best; a higher one overfits, or does not."""
    read_often(tmp_path / "a", {1e-3: 3.4, 2e-3: highest})
    entry = entry_of(tmp_path, "a")
    found = (len(beginning(entry, "Widen")), len(beginning(entry, "Overfitting")))
    assert found == steps


def test_the_step_against_overfitting_names_what_to_change(tmp_path: Path) -> None:
    read_often(tmp_path / "a", {1e-3: 4.1174})
    (step,) = beginning(entry_of(tmp_path, "a"), "Overfitting")
    assert "about 40 times. Use more training text (`data.path`)" in step
    assert f"the validation loss was lowest at {BUDGET // 4:,})" in step


def test_a_high_loss_at_init_is_to_be_lowered(tmp_path: Path) -> None:
    starts_high(tmp_path / "a")
    (step,) = beginning(entry_of(tmp_path, "a"), "Initialize")
    assert step == (
        "Initialize: the loss at init is 16.58 nats above that of a uniform guess. Set "
        "`model.init_std: 0.02` under `base`."
    )


def test_the_high_loss_at_init_of_an_arm_is_lowered_in_the_arm(tmp_path: Path) -> None:
    conduct(tmp_path / "s", study(seeds=SEEDS))
    files = Files(tmp_path / "s")
    runs = [t.trial for t in studied(files).trials if t.arm == "nope"]
    rows = read(files)
    high = [
        row | {"loss_init": 24.2} if row.get("trial") in runs and row["kind"] == "measured" else row
        for row in rows
    ]
    rewrite(files, high)
    (step,) = beginning(entry_of(tmp_path, "s/nope"), "Initialize")
    assert "Set `model.init_std: 0.02` under `arms.nope.set`." in step
