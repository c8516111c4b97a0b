"""Policies as folds: the suite that each of them passes, then what each does."""

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.ledger import Row
from sweeps.policies import SCHEDULES, Policy, Promotion, Stop
from sweeps.policies.asha import Asha
from sweeps.policies.asha_stopping import AshaStopping
from sweeps.policies.hyperband import Hyperband
from sweeps.policies.median import Median
from sweeps.policies.sha import Sha
from sweeps.replay import fitting
from sweeps.simulate.curves import SCORE, Curve
from sweeps.simulate.judge import rounded_rungs
from sweeps.simulate.machine import ReplayResult, replay

RUNGS = (10, 30)
BUDGET = 90
GIVEN: dict[str, Any] = {"eta": 3, "grace": "1/9", "finish": 1}
NAMES = (*SCHEDULES, "asha promote")


def new(name: str) -> Policy:
    """A policy by its name, with the settings of `GIVEN` that it takes."""
    policy, _, first = name.partition(" ")
    schedule = fitting(policy, GIVEN | ({"first": first} if first else {}))
    return schedule.policy_at(rounded_rungs(schedule, BUDGET), SCORE)


class Recorded:
    """A policy whose rows and answers are kept."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rungs = policy.rungs
        self.rows: list[Row] = []

    def observe(self, row: Row) -> None:
        self.rows.append(row)
        self.policy.observe(row)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


def curves(finals: list[float]) -> list[Curve]:
    """Curves with nine records that keep their order; an infinite one diverges at the second."""
    tokens = tuple(range(10, 91, 10))

    def curve(number: int, final: float) -> Curve:
        if math.isinf(final):
            return Curve(str(number), "", tokens[:2], (1e3, math.inf), tokens[:2])
        return Curve(str(number), "", tokens, tuple(final + 90 / t for t in tokens), tokens)

    return [curve(number, final) for number, final in enumerate(finals)]


def run(name: str, finals: list[float], workers: int) -> tuple[Recorded, ReplayResult]:
    recorded = Recorded(new(name))
    return recorded, replay(curves(finals), recorded, workers)


def stopped(recorded: Recorded) -> set[str]:
    return {row["trial"] for row in recorded.rows if row["kind"] == "stopped"}


FINALS = st.lists(st.integers(0, 100).map(float) | st.just(math.inf), min_size=1, max_size=30)
WORKERS = st.integers(1, 5)
each_policy = pytest.mark.parametrize("name", NAMES)


# The suite ---------------------------------------------------------------------------------------


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_every_trial_ends_in_exactly_one_way(name: str, finals: list[float], workers: int) -> None:
    recorded, result = run(name, finals, workers)
    diverged = {row["trial"] for row in recorded.rows if row["kind"] == "diverged"}
    waiting = {str(n) for n in range(len(finals)) if recorded.holds(str(n))}
    ends = [set(result.finished), diverged, waiting | stopped(recorded)]
    assert sum(len(end) for end in ends) == len(set.union(*ends)) == len(finals)


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_something_finishes_unless_all_diverge(
    name: str, finals: list[float], workers: int
) -> None:
    _, result = run(name, finals, workers)
    assert bool(result.finished) == any(math.isfinite(final) for final in finals)


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_what_diverged_never_goes_on(name: str, finals: list[float], workers: int) -> None:
    recorded, _ = run(name, finals, workers)
    diverged = {row["trial"]: n for n, row in enumerate(recorded.rows) if row["kind"] == "diverged"}
    later = [
        row
        for n, row in enumerate(recorded.rows)
        if row["kind"] in {"started", "promoted"} and n > diverged.get(row["trial"], n)
    ]
    assert later == []


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_the_best_of_curves_that_keep_their_order_is_kept(
    name: str, finals: list[float], workers: int
) -> None:
    _, result = run(name, finals, workers)
    best = min(finals)
    assert math.isinf(best) or best in {finals[int(trial)] for trial in result.finished}


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_a_policy_fed_the_same_rows_stands_the_same(
    name: str, finals: list[float], workers: int
) -> None:
    recorded, _ = run(name, finals, workers)
    again = new(name)
    for row in recorded.rows:
        again.observe(row)
    trials = [str(number) for number in range(len(finals))]
    assert [again.holds(trial) for trial in trials] == [recorded.holds(trial) for trial in trials]
    assert again.promotion(idle=True) == recorded.promotion(idle=True)


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_a_killed_sweep_goes_on_where_it_was(name: str, finals: list[float], workers: int) -> None:
    """Killed after any pause, with the trials that ran begun again: the same trial is next."""
    rows = run(name, finals, workers)[0].rows
    for cut in [number for number, row in enumerate(rows) if row["kind"] == "paused"]:
        told, again = new(name), new(name)
        running: dict[str, None] = {}
        for row in rows[: cut + 1]:
            told.observe(row)
            again.observe(row)
            if row["kind"] == "started":
                running[row["trial"]] = None
            elif row["kind"] in {"paused", "stopped", "finished", "diverged"}:
                running.pop(row["trial"])
        again.observe({"kind": "session"})
        for trial in running:
            again.observe({"kind": "started", "trial": trial})
        assert again.promotion(idle=True) == told.promotion(idle=True)


@each_policy
@given(finals=FINALS, workers=WORKERS)
@settings(max_examples=25)
def test_every_decision_has_its_numbers(name: str, finals: list[float], workers: int) -> None:
    recorded, _ = run(name, finals, workers)
    for number in range(len(finals)):
        if recorded.holds(str(number)) and str(number) not in stopped(recorded):
            fields = recorded.standing(str(number)).fields()
            recorded.rows.append({"kind": "stopped", "trial": str(number), **fields})
    decisions = [row for row in recorded.rows if row["kind"] in {"promoted", "stopped"}]
    assert all(1 <= row["rank"] <= row["arrived"] for row in decisions)
    assert all(row["rung"] in recorded.rungs for row in decisions)
    json.dumps(decisions, allow_nan=False)


@each_policy
def test_asking_for_a_verdict_changes_nothing(name: str) -> None:
    policy = new(name)
    rows: list[Row] = [{"kind": "planned", "trial": trial} for trial in "abcd"]
    for trial, score in {"a": 3.0, "b": 1.0, "c": 2.0, "d": 9.0}.items():
        rows.append({"kind": "started", "trial": trial})
        rows.append({"kind": "measured", "trial": trial, "tokens": 10, SCORE: score})
    for row in rows:
        policy.observe(row)
    assert [policy.decide("d", 10) for _ in range(3)] == [policy.decide("d", 10)] * 3
    assert not policy.holds("d")


@each_policy
def test_asking_for_the_verdict_of_one_that_waits_lets_it_wait(name: str) -> None:
    policy = new(name)
    policy.observe({"kind": "planned", "trial": "a"})
    policy.observe({"kind": "measured", "trial": "a", "tokens": 10, SCORE: 1.0})
    if policy.rungs and policy.decide("a", 10) == "pause":
        policy.observe({"kind": "paused", "trial": "a", "rung": 10, "score": 1.0})
    held = policy.holds("a")
    policy.decide("a", 10)
    assert policy.holds("a") == held


@each_policy
def test_a_trial_goes_on_between_rungs(name: str) -> None:
    policy = new(name)
    policy.observe({"kind": "planned", "trial": "a"})
    policy.observe({"kind": "measured", "trial": "a", "tokens": 7, SCORE: 1.0})
    assert policy.decide("a", 7) == "continue"


@each_policy
@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_goes_nowhere(name: str, score: float) -> None:
    policy = new(name)
    policy.observe({"kind": "planned", "trial": "a"})
    policy.observe({"kind": "measured", "trial": "a", "tokens": 10, SCORE: score})
    on = policy.decide("a", 10) if policy.rungs else "pause"
    assert on == "pause" or isinstance(on, Stop)
    assert policy.promotion(idle=True) is None


# asha ------------------------------------------------------------------------------------------


def asha(eta: int = 3, finish: int = 1) -> Asha:
    return Asha(RUNGS, SCORE, eta, finish, "promote")


def arrive(policy: Asha, scores: dict[str, float], tokens: int = 10) -> Asha:
    """Let each trial be measured at a rung and pause there."""
    for trial, score in scores.items():
        policy.observe({"kind": "measured", "trial": trial, "tokens": tokens, SCORE: score})
        policy.observe({"kind": "paused", "trial": trial, "rung": tokens, "score": score})
    return policy


def promote(policy: Asha, promotion: Promotion | None) -> str:
    assert promotion is not None
    policy.observe({"kind": "promoted", **promotion.fields()})
    return promotion.trial


def test_nobody_is_promoted_before_eta_trials_have_arrived() -> None:
    assert arrive(asha(), {"a": 1.0, "b": 2.0}).promotion(idle=False) is None


def test_the_best_of_eta_arrivals_is_promoted_whatever_their_order() -> None:
    orders = itertools.permutations({"a": 3.0, "b": 1.0, "c": 2.0}.items())
    chosen = {
        promote(p, p.promotion(idle=False)) for p in (arrive(asha(), dict(o)) for o in orders)
    }
    assert chosen == {"b"}


def test_a_promotion_carries_the_numbers_it_was_taken_on() -> None:
    promotion = arrive(asha(), {"a": 3.0, "b": 1.0, "c": 2.0}).promotion(idle=False)
    assert promotion == Promotion("b", 10, 30, 1.0, rank=1, arrived=3, forced=False)


def test_the_last_rung_leads_to_the_end_of_the_training() -> None:
    policy = arrive(asha(), {"a": 3.0, "b": 1.0, "c": 2.0}, tokens=30)
    promotion = policy.promotion(idle=False)
    assert promotion is not None and promotion.to is None


def test_a_higher_rung_is_promoted_from_first() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    arrive(policy, {"d": 9.0, "e": 8.0, "f": 7.0}, tokens=30)
    assert promote(policy, policy.promotion(idle=False)) == "f"


def test_nobody_is_promoted_twice_from_one_rung() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    promote(policy, policy.promotion(idle=False))
    assert policy.promotion(idle=False) is None


def test_a_trial_that_is_next_in_line_keeps_its_slot() -> None:
    policy = arrive(asha(), {"a": 3.0, "b": 2.0})
    policy.observe({"kind": "measured", "trial": "c", "tokens": 10, SCORE: 1.0})
    decision = policy.decide("c", 10)
    assert isinstance(decision, Promotion) and decision.trial == "c"


def test_a_trial_that_is_not_next_in_line_pauses() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "measured", "trial": "c", "tokens": 10, SCORE: 3.0})
    assert policy.decide("c", 10) == "pause"


def test_a_promoted_trial_that_passes_its_rung_again_goes_on() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    promote(policy, policy.promotion(idle=False))
    assert policy.decide("a", 10) == "continue"


def test_the_first_score_at_a_rung_stands() -> None:
    policy = arrive(asha(), {"a": 1.0})
    policy.observe({"kind": "measured", "trial": "a", "tokens": 10, SCORE: 9.0})
    assert policy.standing("a").score == 1.0


def test_a_diverged_trial_counts_as_an_arrival() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "diverged", "trial": "c", "tokens": 5})
    assert promote(policy, policy.promotion(idle=False)) == "a"


def test_diverged_trials_are_never_promoted() -> None:
    policy = asha(eta=2)
    for trial in "abcd":
        policy.observe({"kind": "diverged", "trial": trial, "tokens": 5})
    assert policy.promotion(idle=True) is None


def test_equal_scores_rank_by_arrival() -> None:
    policy = arrive(asha(), {"b": 1.0, "a": 1.0, "c": 1.0})
    assert promote(policy, policy.promotion(idle=False)) == "b"


def test_an_idle_slot_takes_the_best_of_the_highest_rung() -> None:
    policy = arrive(asha(), {"a": 1.0})
    arrive(policy, {"b": 5.0, "c": 4.0}, tokens=30)
    promotion = policy.promotion(idle=True)
    assert promotion is not None and (promotion.trial, promotion.forced) == ("c", True)


def test_an_idle_slot_is_for_sweeps_with_too_few_finished() -> None:
    policy = arrive(asha(finish=1), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "finished", "trial": "c"})
    assert policy.promotion(idle=True) is None


def test_running_trials_may_still_finish() -> None:
    policy = arrive(asha(finish=1), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "started", "trial": "c"})
    assert policy.promotion(idle=True) is None


def test_no_trial_runs_when_a_session_begins() -> None:
    policy = arrive(asha(finish=1), {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "started", "trial": "c"})
    policy.observe({"kind": "session"})
    assert policy.promotion(idle=True) is not None


def test_standing_says_the_rank_and_how_many_go_on() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert policy.standing("c").reason == "rank 3 of 3 at 10 tokens; 1 go on"


def test_a_slot_that_can_start_a_trial_promotes_none_if_starts_come_first() -> None:
    policy = Asha(RUNGS, SCORE, 3, 1, "start")
    arrive(policy, {"a": 3.0, "b": 1.0, "c": 2.0})
    assert policy.promotion(idle=False) is None
    assert promote(policy, policy.promotion(idle=True)) == "b"


# The others --------------------------------------------------------------------------------------


def arrived(policy: Policy, scores: dict[str, float], tokens: int = 10) -> list[Any]:
    """The verdicts of trials that are measured at a rung one after the other."""
    verdicts = []
    for trial, score in scores.items():
        policy.observe({"kind": "measured", "trial": trial, "tokens": tokens, SCORE: score})
        verdicts.append(policy.decide(trial, tokens))
    return verdicts


SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@given(first=SCORES, second=st.randoms(), eta=st.integers(2, 5))
@settings(max_examples=200)
def test_asha_stopping_decides_as_ray_does(first: list[float], second: Any, eta: int) -> None:
    """The same stream of reports: every trial at both rungs for as long as neither stops it."""
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    theirs = AsyncHyperBandScheduler("tokens", SCORE, "min", 90, 10, eta)
    rungs = tuple(sorted(int(milestone) for milestone, _ in theirs._brackets[0]._rungs))
    ours = AshaStopping(tuple(rung for rung in rungs if rung < 90), SCORE, eta)
    waiting = [(str(number), 0, score) for number, score in enumerate(first)]
    for trial, _, _ in waiting:
        theirs.on_trial_add(None, _RayTrial(trial))
    while waiting:
        trial, stage, score = waiting.pop(second.randrange(len(waiting)))
        tokens = ours.rungs[stage]
        their = theirs.on_trial_result(None, _RayTrial(trial), {"tokens": tokens, SCORE: score})
        ours.observe({"kind": "measured", "trial": trial, "tokens": tokens, SCORE: score})
        our = ours.decide(trial, tokens)
        assert isinstance(our, Stop) == (their == TrialScheduler.STOP)
        if not isinstance(our, Stop) and stage + 1 < len(ours.rungs):
            waiting.append((trial, stage + 1, score + second.uniform(-1, 1)))


class _RayTrial:
    """All that Ray's scheduler asks of a trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def test_the_first_to_arrive_is_never_stopped_by_asha_stopping() -> None:
    assert isinstance(arrived(AshaStopping(RUNGS, SCORE, 3), {"a": 99.0})[0], Promotion)


def test_asha_stopping_says_what_it_held_the_score_against() -> None:
    stop = arrived(AshaStopping(RUNGS, SCORE, 2), {"a": 1.0, "b": 2.0, "c": 3.0})[2]
    assert stop == Stop("3.0000 at 10 tokens is above the cutoff 1.5000", 10, 3.0, 3, 3, 1.5)


def test_a_diverged_trial_is_the_worst_that_asha_stopping_knows() -> None:
    policy = AshaStopping(RUNGS, SCORE, 2)
    arrived(policy, {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "diverged", "trial": "c", "tokens": 5})
    assert isinstance(arrived(policy, {"d": 2.5})[0], Stop)


def test_what_was_stopped_is_held_and_goes_on_once_started_again() -> None:
    policy = AshaStopping(RUNGS, SCORE, 2)
    stop = arrived(policy, {"a": 1.0, "b": 2.0, "c": 3.0})[2]
    policy.observe({"kind": "stopped", "trial": "c", **stop.fields()})
    held = policy.holds("c")
    policy.observe({"kind": "started", "trial": "c"})
    assert (held, policy.holds("c")) == (True, False)


def waiting_at_ten(policy: Sha, scores: dict[str, float]) -> Sha:
    for trial, score in scores.items():
        policy.observe({"kind": "started", "trial": trial})
        policy.observe({"kind": "measured", "trial": trial, "tokens": 10, SCORE: score})
        policy.observe({"kind": "paused", "trial": trial, "rung": 10, "score": score})
    return policy


NINE = {trial: float(number) for number, trial in enumerate("abcdefghi")}


def test_sha_waits_while_trials_are_left_to_start() -> None:
    assert waiting_at_ten(Sha(RUNGS, SCORE, 3, 1), NINE).promotion(idle=False) is None


def test_sha_waits_for_the_last_on_the_way_to_a_rung() -> None:
    policy = waiting_at_ten(Sha(RUNGS, SCORE, 3, 1), NINE)
    policy.observe({"kind": "started", "trial": "late"})
    assert policy.promotion(idle=True) is None


def test_sha_lets_one_in_eta_go_on_once_all_have_arrived() -> None:
    policy = waiting_at_ten(Sha(RUNGS, SCORE, 3, 1), NINE)
    chosen = []
    while (promotion := policy.promotion(idle=True)) is not None:
        policy.observe({"kind": "promoted", **promotion.fields()})
        policy.observe({"kind": "started", "trial": promotion.trial})
        chosen.append(promotion.trial)
    assert chosen == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["asha", "sha", "i_epoch"])
def test_a_survivor_that_diverges_is_replaced(name: str) -> None:
    tokens = (10, 20, 90)
    pool = [
        Curve("bad", "", tokens[:2], (0.0, math.inf), tokens[:2]),
        Curve("good", "", tokens, (1.0, 1.0, 1.0), tokens),
    ]
    assert replay(pool, new(name), 1).finished == ["good"]


def test_i_epoch_finishes_as_many_as_asked_for() -> None:
    result = replay(curves([4.0, 1.0, 3.0, 2.0]), Sha((10,), SCORE, None, 2), 1)
    assert sorted(result.finished) == ["1", "3"]


def test_hyperband_deals_trials_to_brackets_by_the_shares_of_its_loop() -> None:
    policy = Hyperband(RUNGS, SCORE, 3)
    for number in range(17):
        policy.observe({"kind": "planned", "trial": str(number)})
    assert policy._dealt == [9, 5, 3]  # of 9, ceil(4.5) and 3 in 17


def test_a_trial_of_a_later_bracket_passes_the_first_rung() -> None:
    policy = Hyperband(RUNGS, SCORE, 3)
    for trial in "abc":
        policy.observe({"kind": "planned", "trial": trial})
    assert arrived(policy, {"a": 1.0, "b": 1.0}) == ["pause", "continue"]


def test_median_stops_nobody_before_three_others_have_come_as_far() -> None:
    verdicts = arrived(Median((10, 20), SCORE), {"a": 1.0, "b": 1.0, "c": 9.0})
    assert not any(isinstance(decision, Stop) for decision in verdicts)


def test_median_holds_the_best_score_against_the_running_averages_of_others() -> None:
    policy = Median((20,), SCORE)
    for trial, scores in {"a": (4, 2), "b": (6, 4), "c": (8, 6), "d": (5.5, 9)}.items():
        for tokens, score in zip((10, 20), scores, strict=True):
            policy.observe({"kind": "measured", "trial": trial, "tokens": tokens, SCORE: score})
    # The averages of a, b and c are 3, 5 and 7; the best of d, 5.5, was its first score.
    assert policy.decide("d", 20) == Stop(
        "5.5000 at 20 tokens is above the cutoff 5.0000", 20, 5.5, 3, 4, 5.0
    )


def test_records_that_a_resumed_trial_repeats_count_once() -> None:
    policy = Median((20,), SCORE)
    for tokens, score in [(10, 4.0), (10, 4.0), (20, 2.0)]:
        policy.observe({"kind": "measured", "trial": "a", "tokens": tokens, SCORE: score})
    assert policy._averages[20].score("a") == 3.0


def test_without_a_schedule_everything_goes_on() -> None:
    assert new("none").decide("a", 10) == "continue"
