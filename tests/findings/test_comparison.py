"""Arms against their baseline: differences, verdicts, corrections, the critical batch size."""

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from conducting import (
    NOPE,
    RETUNE,
    SEEDS,
    arm,
    both_diverge,
    conduct,
    dead,
    facts_of,
    facts_of_study,
    is_bare,
    loss,
    noisy,
    study,
    without_looks,
)


def test_the_difference_is_that_of_the_means_at_the_common_tokens(tmp_path: Path) -> None:
    facts = facts_of_study(tmp_path, lambda c, s: noisy(c, s, 0.25, 1.0))
    result = arm(facts)
    assert result["difference"] == pytest.approx(0.25)
    assert result["difference"] == pytest.approx(result["mean"] - arm(facts, "baseline")["mean"])
    assert facts["arms"]["tokens"] == 8_192


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    """The seeds are far apart, but in both arms alike: the interval knows nothing of it."""
    result = arm(facts_of_study(tmp_path, lambda c, s: noisy(c, s, 0.25, 1.0)))
    assert result["high"] - result["low"] == pytest.approx(2 * 3.1824 * 0.011547 / 2, rel=1e-3)
    assert result["verdict"] == "worse"


def test_a_lower_loss_is_better(tmp_path: Path) -> None:
    assert (
        arm(facts_of_study(tmp_path, lambda c, s: noisy(c, s, -0.25, 1.0)))["verdict"] == "better"
    )


def test_a_difference_within_the_noise_is_none(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, lambda c, s: noisy(c, s, 0.001, 0.1)))
    assert (result["verdict"], result["words"]) == (
        "no difference",
        "no difference larger than 0.0028 nats per token",
    )


def test_an_open_question_says_how_many_seeds_would_settle_it(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, lambda c, s: noisy(c, s, 0.02, 3.0)))
    assert result["verdict"] == "no conclusion"
    assert "more seeds would settle a difference of the size seen" in result["words"]


def test_several_arms_are_held_to_a_stricter_bar(tmp_path: Path) -> None:
    arms = {f"width{n}": {"hypothesis": "h", "set": {"model.d_ff": n}} for n in (40, 48, 56)}
    facts = facts_of_study(
        tmp_path, lambda c, s: loss(c, s) + c["run"]["seed"] * c["model"]["d_ff"] / 1e3, arms=arms
    )
    trial_results = facts["arms"]["arms"][1:]
    assert all(result["p_holm"] >= result["p"] for result in trial_results)
    assert min(result["p_holm"] for result in trial_results) == pytest.approx(
        3 * min(p["p"] for p in trial_results)
    )


def test_arms_that_run_the_same_trials_are_one_test(tmp_path: Path) -> None:
    """Both run at 4e-3, which the one chose and the other takes from the baseline."""

    def how(config: dict[str, Any], share: float) -> float:
        return noisy(config, share, 0.25, 1.0) + abs(math.log2(config["optim"]["lr"] / 4e-3))

    facts = facts_of_study(
        tmp_path, how, retune=RETUNE, arms={"nope": NOPE, "same": {**NOPE, "retune": False}}
    )
    assert [arm(facts, name)["p_holm"] / arm(facts, name)["p"] for name in ("nope", "same")] == [
        1,
        1,
    ]


def test_a_void_arm_takes_no_part_in_the_correction(tmp_path: Path) -> None:
    arms = {"nope": NOPE, "wide": {"hypothesis": "h", "set": {"model.d_ff": 96}}}
    result = arm(
        facts_of_study(
            tmp_path,
            lambda c, s: dead(c, s) + (c["model"]["d_ff"] == 96) * (0.1 + c["run"]["seed"] / 999),
            arms=arms,
        ),
        "wide",
    )
    assert result["p_holm"] == result["p"]


def diverging(*seeds: int) -> Any:
    """The arm diverges on these seeds."""

    def how(config: dict[str, Any], share: float) -> float:
        lost = is_bare(config) and config["run"]["seed"] in seeds
        return math.inf if lost else noisy(config, share, -0.25, 1.0)

    return how


def test_an_arm_that_diverges_on_every_seed_is_worse(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, diverging(*SEEDS)))
    assert (result["verdict"], result["words"]) == ("worse", "worse: it diverged on every seed")


def test_an_arm_that_diverges_on_a_seed_is_not_better(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, diverging(2)))
    assert (result["verdict"], result["n"]) == ("no conclusion", 3)
    assert "1 of 4 runs diverged" in result["cautions"]


def test_an_arm_that_diverges_at_every_rate_is_worse(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, diverging(1000), retune=RETUNE))
    assert result["words"] == "worse: it diverged at every value tried"


def test_a_baseline_that_diverges_at_every_rate_is_the_worse(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, both_diverge(1000), retune=RETUNE))
    assert result["words"] == "better: the baseline diverged at every value tried"


def test_where_all_diverge_nothing_is_concluded(tmp_path: Path) -> None:
    result = arm(facts_of_study(tmp_path, lambda c, s: math.inf, retune=RETUNE))
    every = "diverged at every value tried"
    assert result["words"] == f"no conclusion: it {every}, and the baseline {every}"


@pytest.mark.parametrize(
    ("seeds", "verdict", "words"),
    [
        ((1, 2), "no conclusion", "no conclusion yet: the baseline diverged on 2 of 4 seeds"),
        (SEEDS, "better", "better: the baseline diverged on every seed"),
    ],
)
def test_a_baseline_that_diverges_is_held_to_the_same_rule(
    tmp_path: Path, seeds: tuple[int, ...], verdict: str, words: str
) -> None:
    result = arm(facts_of_study(tmp_path, both_diverge(*seeds)))
    assert (result["verdict"], result["words"]) == (verdict, words)
    assert f"{len(seeds)} of 4 runs of the baseline diverged" in result["cautions"]


@pytest.mark.parametrize("how", [loss, dead])
def test_runs_that_have_not_ended_have_no_verdict(tmp_path: Path, how: Any) -> None:
    conduct(tmp_path, study(seeds=SEEDS), how, records=20)
    result = arm(facts_of(tmp_path))
    assert result["verdict"] == "no conclusion"
    assert " of 8,192 tokens" in result["words"]


def test_an_arm_that_has_just_begun_does_not_take_the_others_back(tmp_path: Path) -> None:
    """One arm is ahead early and behind at the end; another one begins when it has ended."""
    arms = {name: {"hypothesis": "h", "set": {"model.d_ff": n}} for name, n in ARMS.items()}
    tree = study(seeds=SEEDS, arms=arms)

    def how(config: dict[str, Any], share: float) -> float:
        gap = (0.2 if share == 1 else -0.2) * (config["model"]["d_ff"] == ARMS["early"])
        return loss(config, share) + gap + config["model"]["d_ff"] / 1e5

    conduct(tmp_path, tree, how, records=SEEDS_END + 2)
    result = arm(facts_of(tmp_path), "early")
    assert (result["n"], result["difference"] > 0) == (4, True)


ARMS = {"early": 40, "late": 48}


SEEDS_END = 2 * 4 * 8  # records of the baseline and of the first arm


def test_tests_to_come_count_for_the_correction(tmp_path: Path) -> None:
    arms = {name: {"hypothesis": "h", "set": {"model.d_ff": n}} for name, n in ARMS.items()}

    def how(config: dict[str, Any], share: float) -> float:
        return loss(config, share) + config["run"]["seed"] * config["model"]["d_ff"] / 1e3

    conduct(tmp_path, study(seeds=SEEDS, arms=arms), how, records=SEEDS_END)
    without_looks(tmp_path)
    result = arm(facts_of(tmp_path), "early")
    assert result["p_holm"] == pytest.approx(2 * result["p"])


def by_batch(rise: float) -> Any:
    """Losses that rise by so much with every doubling beyond a batch of 8, and a little noise."""

    def how(config: dict[str, Any], share: float) -> float:
        doublings = max(0.0, math.log2(config["optim"]["batch_size"] / 8))
        return 3.0 + rise * doublings + config["run"]["seed"] / 100 + (1 - share)

    return how


@pytest.mark.parametrize(
    ("rise", "largest", "beyond"), [(0.2, 8, 16), (0.02, 16, 32), (0.0, 32, None)]
)
def test_the_critical_batch_size_is_the_last_within_the_noise(
    tmp_path: Path, rise: float, largest: int, beyond: int | None
) -> None:
    """The noise over seeds is 0.0129."""
    each = {"path": "optim.batch_size", "values": [4, 8, 16, 32], "hypothesis": "h"}
    tree = {k: v for k, v in study(seeds=SEEDS, each=each).items() if k != "arms"}
    conduct(tmp_path, tree, by_batch(rise))
    found = facts_of(tmp_path)["arms"]["critical_batch"]
    assert (found["largest"], found["beyond"]) == (largest, beyond)
    assert (found["smallest"], found["retuned"]) == (True, False)


def test_a_re_tuned_rate_and_the_smallest_size_are_known(tmp_path: Path) -> None:
    """The losses rise with every doubling; or 4 is worse than 8, and the weight decay is tuned."""
    each = {"path": "optim.batch_size", "values": [16, 32], "hypothesis": "h"}
    tree = {k: v for k, v in study(seeds=SEEDS, each=each, retune=RETUNE).items() if k != "arms"}
    conduct(tmp_path / "rates", tree, by_batch(0.2))
    tree["each"] = each | {"values": [4, 16, 32]}
    tree["retune"] = {"optim.weight_decay": {"grid": [0.1]}}
    conduct(
        tmp_path / "decay", tree, lambda c, s: by_batch(0.2)(c, s) + (c["optim"]["batch_size"] == 4)
    )
    found = {
        name: facts_of(tmp_path / name)["arms"]["critical_batch"] for name in ("rates", "decay")
    }
    assert [(f["smallest"], f["retuned"]) for f in found.values()] == [(True, True), (False, False)]


def test_the_correlation_over_seeds_is_that_of_the_losses(tmp_path: Path) -> None:
    """Both losses rise by 0.01 a seed; those of the arm also alternate by 0.01 either way."""
    facts = facts_of_study(tmp_path, lambda c, s: noisy(c, s, 0.25, 1.0))
    own = [3.24, 3.27, 3.26, 3.29]
    found = statistics.correlation(own, [3.0, 3.01, 3.02, 3.03])
    assert arm(facts)["correlation"] == pytest.approx(found)


def test_three_seeds_have_no_correlation(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2]), lambda c, s: noisy(c, s, 0.25, 1.0))
    assert "correlation" not in arm(facts_of(tmp_path))


@pytest.mark.parametrize(
    ("how", "verdict", "words"),
    [
        ("arm", "worse", "worse: its runs up to seed 1 diverged"),
        ("baseline", "better", "better: the baseline's runs up to seed 1 diverged"),
    ],
)
def test_what_a_look_settled_by_divergence_stays_when_later_runs_do_not(
    tmp_path: Path, how: str, verdict: str, words: str
) -> None:
    def lost(config: dict[str, Any], share: float) -> float:
        diverges = is_bare(config) == (how == "arm") and config["run"]["seed"] < 2
        return math.inf if diverges else noisy(config, share, 0.25, 1.0)

    conduct(tmp_path, study(seeds=[0, 1]), lost)
    conduct(tmp_path, study(seeds=SEEDS), lost)
    found = arm(facts_of(tmp_path))
    assert (found["verdict"], found["words"]) == (verdict, words)


def test_a_settled_arm_keeps_the_numbers_of_its_look(tmp_path: Path) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2]), lambda c, s: noisy(c, s, 0.25, 0.1))
    numbers = ("difference", "low", "high", "p_holm", "words")
    before = arm(facts_of(tmp_path))
    conduct(tmp_path, study(seeds=[0, 1, 2, 3, 4]), lambda c, s: noisy(c, s, 0.25, 0.1))
    after = arm(facts_of(tmp_path))
    assert [after[name] for name in numbers] == [before[name] for name in numbers]
    assert (before["n"], after["n"]) == (3, 3)
