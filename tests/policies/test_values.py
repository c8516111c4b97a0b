"""Seeds of a value, which continue or stop together under every policy."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.ledger import Row
from sweeps.policies import Promotion, Schedule, Stop
from sweeps.policies.asha import AshaSchedule
from sweeps.policies.asha_stopping import AshaStoppingSchedule
from sweeps.policies.hyperband import HyperbandSchedule
from sweeps.policies.i_epoch import IEpochSchedule
from sweeps.policies.median import MedianSchedule
from sweeps.policies.none import NoSchedule
from sweeps.policies.sha import ShaSchedule
from sweeps.policies.values import Values
from sweeps.simulate.curves import SCORE, Curve, by_value
from sweeps.simulate.machine import ReplayResult, replay

GRACE = Fraction(1, 9)
RUNGS = (10, 30)
ASHA = AshaSchedule(policy="asha", eta=3, grace=GRACE, finish=1, score="raw")
STOPPING = AshaStoppingSchedule(policy="asha_stopping", eta=3, grace=GRACE, score="raw")
SCHEDULES: list[Schedule] = [
    NoSchedule(policy="none"),
    ASHA,
    ASHA.model_copy(update={"first": "promote"}),
    ASHA.model_copy(update={"finish": 2}),
    STOPPING,
    ShaSchedule(policy="sha", eta=3, grace=GRACE, finish=1, score="raw"),
    HyperbandSchedule(policy="hyperband", eta=3, grace=GRACE, score="raw"),
    IEpochSchedule(policy="i_epoch", grace=GRACE, finish=1, score="raw"),
    MedianSchedule(policy="median", grace=GRACE),
]


def values(schedule: Schedule = ASHA, alone: int = 1) -> Values:
    """The policy for values before any row."""
    rungs = tuple(int(share * 90) for share in schedule.shares())
    return Values(schedule, rungs, SCORE, alone)


def planned(trial: str) -> dict[str, Any]:
    """A trial is named by its value and its seed, such as a0."""
    return {"kind": "planned", "trial": trial, "value": trial[0], "seed": int(trial[1:])}


def measured(trial: str, score: float, tokens: int = 10) -> list[dict[str, Any]]:
    """The rows of a trial that is planned, starts and is measured at a rung."""
    row = {"kind": "measured", "trial": trial, "tokens": tokens, SCORE: score}
    return [planned(trial), {"kind": "started", "trial": trial}, row]


def paused(trial: str, score: float, tokens: int = 10) -> list[dict[str, Any]]:
    """The same, and it pauses there."""
    last = {"kind": "paused", "trial": trial, "rung": tokens, "score": score}
    return [*measured(trial, score, tokens), last]


def seen(policy: Values, rows: Iterable[Row]) -> Values:
    """The policy, once it has observed the rows."""
    for row in rows:
        policy.observe(row)
    return policy


def waiting(scores: dict[str, float], schedule: Schedule = ASHA, alone: int = 0) -> Values:
    """The policy when these trials wait at the first rung."""
    policy = values(schedule, alone)
    seen(policy, [planned(trial) for trial in scores])
    for trial, score in scores.items():
        seen(policy, paused(trial, score)[1:])
    return policy


def promote(policy: Values, promotion: Promotion | None) -> str:
    assert promotion is not None
    policy.observe({"kind": "promoted", **promotion.fields()})
    return promotion.trial


SIX = {"a0": 1.0, "b0": 3.0, "c0": 5.0, "a1": 9.0, "b1": 4.0, "c1": 6.0}  # means 5, 3.5 and 5.5


def test_a_value_is_promoted_by_the_mean_of_its_seeds() -> None:
    policy = waiting(SIX)
    promotion = policy.promotion(idle=True)
    assert promotion == Promotion("b0", 10, 30, 3.5, rank=1, arrived=3)


def test_the_other_seeds_of_a_promoted_value_are_promoted_next() -> None:
    """With the same numbers, before any other value."""
    policy = waiting(SIX)
    promote(policy, policy.promotion(idle=True))
    assert policy.promotion(idle=False) == Promotion("b1", 10, 30, 3.5, rank=1, arrived=3)


def test_the_seeds_of_a_stopped_value_have_one_reason() -> None:
    policy = waiting(SIX)
    assert policy.standing("a0") == policy.standing("a1")
    assert policy.standing("a0") == Stop("rank 2 of 3 at {rung}; 1 continues", 10, 5.0, 2, 3)


def test_a_value_does_not_arrive_before_all_its_seeds() -> None:
    policy = seen(waiting({"a0": 1.0}), [planned("b1"), *measured("b0", 2.0)])
    assert policy.decide("b0", 10) == "pause"
    assert policy.standing("a0").arrived == 1


def test_a_seed_waits_for_the_others_even_if_no_trial_waits_in_the_policy() -> None:
    policy = values(STOPPING, 0)
    seen(policy, [planned("a1"), *measured("a0", 1.0)])
    assert policy.decide("a0", 10) == "pause"


def test_the_last_seed_to_arrive_is_decided_on_by_the_mean() -> None:
    policy = waiting({"b0": 2.0, "b1": 2.0, "a0": 1.0, "a1": 1.0}, STOPPING)
    seen(policy, [planned("c1"), *paused("c0", 1.0), *measured("c1", 9.0)[1:]])
    decision = policy.decide("c1", 10)
    assert isinstance(decision, Stop) and decision.score == 5.0


def test_further_seeds_start_when_their_value_has_passed_the_first_rung() -> None:
    policy = waiting({"a0": 1.0, "b0": 2.0, "c0": 3.0}, alone=1)
    before = [policy.wants_seed(value) for value in "abc"]
    promote(policy, policy.promotion(idle=True))
    assert (before, [policy.wants_seed(value) for value in "abc"]) == (
        [False] * 3,
        [True, False, False],
    )


def test_a_value_that_waits_gets_no_further_seed() -> None:
    policy = waiting({"a0": 1.0, "b0": 2.0, "c0": 3.0}, alone=1)
    promote(policy, policy.promotion(idle=True))
    seen(policy, paused("a0", 1.0, 30)[1:])
    assert not policy.wants_seed("a")


@pytest.mark.parametrize("action", ["stop", "finish"])
def test_a_value_that_waits_gets_no_further_seed_once_its_only_one_is_steered(
    action: str,
) -> None:
    """It has passed its first rung, and waits at the second."""
    policy = waiting({"a0": 1.0, "b0": 2.0, "c0": 3.0}, alone=1)
    promote(policy, policy.promotion(idle=True))
    seen(policy, paused("a0", 1.0, 30)[1:])
    policy.observe({"kind": "steered", "trial": "a0", "action": action})
    assert not policy.wants_seed("a")


def test_a_value_whose_first_seed_failed_gets_another() -> None:
    policy = seen(values(), measured("a0", 1.0)[:2])
    failed = {"kind": "failed", "trial": "a0"}
    policy.observe({**failed, "final": False})
    before = policy.wants_seed("a")
    policy.observe({**failed, "final": True})
    assert (before, policy.wants_seed("a")) == (False, True)


def test_a_value_is_not_judged_by_a_seed_that_failed() -> None:
    policy = values(alone=0)
    rows = [planned("a1"), *paused("a0", 1.0), *paused("b0", 3.0), *paused("c0", 5.0)]
    seen(policy, [*rows, {"kind": "failed", "trial": "a1", "final": True}])
    promotion = policy.promotion(idle=True)
    assert promotion is not None and (promotion.trial, promotion.score) == ("a0", 1.0)


def test_a_policy_that_decides_on_arrival_decides_when_the_last_awaited_seed_fails() -> None:
    policy = values(STOPPING, 0)
    rows = [planned("a1"), *paused("a0", 1.0), {"kind": "failed", "trial": "a1", "final": True}]
    seen(policy, rows)
    promotion = policy.promotion(idle=False)
    assert promotion is not None and promotion.trial == "a0"


DIVERGED = {"kind": "diverged", "trial": "a1", "tokens": 5}
BOTH = [planned("a1"), *paused("a0", 1.0)]


@pytest.mark.parametrize("rows", [[*BOTH, DIVERGED], [*BOTH[:2], DIVERGED, *BOTH[2:]]])
def test_a_value_with_a_seed_that_diverged_is_never_promoted(rows: list[Row]) -> None:
    policy = seen(values(alone=0), rows)
    assert policy.promotion(idle=True) is None
    assert policy.standing("a0").reason == "score is not finite"


def test_values_are_compared_over_the_seeds_of_the_first_that_arrived() -> None:
    """The third seed of c, which a and b lack, does not count."""
    policy = waiting({**SIX, "c2": 0.0})
    assert policy.standing("c0").score == 5.5


def test_a_value_that_lacks_a_seed_is_compared_on_those_that_both_have() -> None:
    """Seed 1 is harder by 4. On seed 0, b is 1 above a, although its mean is lower."""
    policy = waiting({"a0": 1.0, "c0": 7.0, "a1": 5.0, "c1": 7.0}, alone=0)
    failed = {"kind": "failed", "trial": "b1", "final": True}
    seen(policy, [planned("b1"), failed, *paused("b0", 2.0)])
    assert policy.standing("b0").score == 4.0
    promotion = policy.promotion(idle=True)
    assert promotion is not None and (promotion.trial, promotion.score) == ("a0", 3.0)


def test_a_score_that_is_not_finite_is_no_measure_of_a_seed() -> None:
    policy = waiting({"a0": math.inf, "a1": 5.0, "b0": 2.0, "c0": 1.0, "c1": 5.0}, alone=0)
    assert [policy.standing(trial).score for trial in ("a0", "b0", "c0")] == [None, 2.0, 1.0]


def test_a_seed_that_is_added_to_a_finished_value_runs_to_the_end() -> None:
    policy = waiting({"a0": 1.0, "b0": 2.0, "c0": 3.0})
    promote(policy, policy.promotion(idle=True))
    seen(policy, [{"kind": "finished", "trial": "a0", "tokens": 90}, *measured("a1", 1e3)])
    assert policy.decide("a1", 10) == "continue"


def test_enough_values_finish_not_enough_seeds() -> None:
    """Two of three values finish, with two seeds each."""
    pool = curves([[1.0] * 3, [2.0] * 3, [3.0] * 3], 2)
    result = replay(pool, values(ASHA.model_copy(update={"finish": 2})), 1)
    assert sorted(result.finished) == ["0 0", "0 1", "1 0", "1 1"]


def test_no_more_is_trained_of_what_the_first_seed_rules_out() -> None:
    """Three to the first rung; of the best one three seeds to the end: 2 x 10 + 3 x 90 tokens."""
    assert replay(curves([[1.0] * 3, [2.0] * 3, [3.0] * 3], 3), values(), 1).tokens == 290


def curves(scores: Sequence[Sequence[float]], seeds: int, noise: Any = None) -> list[Curve]:
    """Curves with scores at 10, 30 and 90 tokens; an infinite one ends its curve."""
    found = []
    for seed in range(seeds):
        for value, own in enumerate(scores):
            ends = [score + (noise[value][seed] if noise else 0.0) for score in own]
            length = ends.index(math.inf) + 1 if math.inf in ends else 3
            tokens = (10, 30, 90)[:length]
            name = f"{value} {seed}"
            found.append(
                Curve(name, "", tokens, tuple(ends[:length]), tokens, values=str(value), seed=seed)
            )
    return found


SCORES = st.lists(st.integers(0, 20).map(float) | st.just(math.inf), min_size=3, max_size=3)
NOISE = st.lists(st.integers(-5, 5) | st.just(math.inf), min_size=3, max_size=3)
sweeps = given(
    plan=st.lists(SCORES, min_size=1, max_size=12),
    noise=st.lists(NOISE, min_size=12, max_size=12),
    workers=st.integers(1, 4),
    alone=st.integers(0, 2),
)


def ends_of(policy: Values, result: ReplayResult, seeds: Sequence[Curve]) -> set[str]:
    """How the trials of a value ended, without those that diverged."""
    begun = [seed.trial for seed in seeds if seed.trial in result.reached]
    left = [trial for trial in begun if trial not in result.diverged]
    return {"finished" if trial in result.finished else str(policy.holds(trial)) for trial in left}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@sweeps
@settings(max_examples=25, deadline=None)
def test_all_seeds_of_a_value_end_in_one_way(
    schedule: Schedule, plan: Any, noise: Any, workers: int, alone: int
) -> None:
    """Those that were started and did not diverge: all finish, or all are held."""
    pool = curves(plan, 3, noise)
    policy = values(schedule, alone)
    result = replay(pool, policy, workers)
    ends = [ends_of(policy, result, seeds) for seeds in by_value(pool).values()]
    assert all(end in (set(), {"finished"}, {"True"}) for end in ends)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@sweeps
@settings(max_examples=25, deadline=None)
def test_what_is_left_waiting_has_a_standing(
    schedule: Schedule, plan: Any, noise: Any, workers: int, alone: int
) -> None:
    policy = values(schedule, alone)
    result = replay(curves(plan, 3, noise), policy, workers)
    held = [trial for trial in result.reached if policy.holds(trial)]
    standings = [policy.standing(trial) for trial in held]
    assert all(isinstance(standing, Stop) for standing in standings)


@sweeps
@settings(max_examples=25, deadline=None)
def test_with_one_seed_it_is_the_policy(plan: Any, noise: Any, workers: int, alone: int) -> None:
    pool = curves(plan, 1)
    assert replay(pool, values(ASHA, alone), workers) == replay(
        pool, ASHA.policy_at(RUNGS, SCORE), workers
    )
