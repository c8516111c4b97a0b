"""Policies as folds: the suite that each of them passes, then what each does."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from conformance import PolicySuite, curves, fold
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.policies import SCHEDULES, Policy, Promotion, Stop
from sweeps.policies.asha import Asha, AshaSchedule
from sweeps.policies.asha_stopping import AshaStopping, AshaStoppingSchedule
from sweeps.policies.hyperband import Hyperband, HyperbandSchedule
from sweeps.policies.i_epoch import IEpochSchedule
from sweeps.policies.median import Median, MedianSchedule
from sweeps.policies.none import NoSchedule, RunAll
from sweeps.policies.sha import Sha, ShaSchedule
from sweeps.simulate.curves import SCORE, Curve
from sweeps.simulate.machine import replay

RUNGS = (10, 30)
GRACE = Fraction(1, 9)


class TestNone(PolicySuite):
    schedule = NoSchedule(policy="none")


class TestAshaThatStartsFirst(PolicySuite):
    schedule = AshaSchedule(policy="asha", eta=3, grace=GRACE, finish=1, first="start", score="raw")


class TestAshaThatPromotesFirst(PolicySuite):
    schedule = AshaSchedule(
        policy="asha", eta=3, grace=GRACE, finish=1, first="promote", score="raw"
    )


class TestAshaStopping(PolicySuite):
    schedule = AshaStoppingSchedule(policy="asha_stopping", eta=3, grace=GRACE, score="raw")


class TestSha(PolicySuite):
    schedule = ShaSchedule(policy="sha", eta=3, grace=GRACE, finish=1, score="raw")


class TestHyperband(PolicySuite):
    schedule = HyperbandSchedule(policy="hyperband", eta=3, grace=GRACE, score="raw")

    def rivals(self, policy: Any, trial: str) -> object:
        """Each bracket has a first rung of its own, and ranks only its own trials."""
        return policy.bracket(trial)


class TestIEpoch(PolicySuite):
    schedule = IEpochSchedule(policy="i_epoch", grace=GRACE, finish=1, score="raw")


class TestMedian(PolicySuite):
    schedule = MedianSchedule(policy="median", grace=GRACE)


def test_every_policy_has_a_suite() -> None:
    tested = {type(suite.schedule) for suite in PolicySuite.__subclasses__()}
    assert tested == set(SCHEDULES.values())


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


def test_no_trial_is_promoted_before_eta_trials_have_arrived() -> None:
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


def test_the_last_rung_leads_to_the_end_of_the_run() -> None:
    policy = arrive(asha(), {"a": 3.0, "b": 1.0, "c": 2.0}, tokens=30)
    promotion = policy.promotion(idle=False)
    assert promotion is not None and promotion.to is None


def test_a_higher_rung_is_promoted_from_first() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    arrive(policy, {"d": 9.0, "e": 8.0, "f": 7.0}, tokens=30)
    assert promote(policy, policy.promotion(idle=False)) == "f"


def test_no_trial_is_promoted_twice_from_one_rung() -> None:
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


def test_a_promoted_trial_that_passes_its_rung_again_continues() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    promote(policy, policy.promotion(idle=False))
    assert policy.decide("a", 10) == "continue"


def test_the_first_score_at_a_rung_is_kept() -> None:
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


def test_standing_says_the_rank_and_how_many_continue() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert policy.standing("c").reason == "rank 3 of 3 at {rung}; 1 continues"


def test_standing_says_how_many_continue_where_there_are_several() -> None:
    policy = arrive(asha(), dict(zip("abcdef", range(6), strict=True)))
    assert policy.standing("f").reason == "rank 6 of 6 at {rung}; 2 continue"


def test_standing_counts_a_trial_that_was_promoted_beyond_the_quota() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0})
    promote(policy, policy.promotion(idle=True))
    assert policy.standing("b").reason == "rank 2 of 2 at {rung}; 1 continues"


def test_standing_gives_no_rank_to_a_score_that_is_not_finite() -> None:
    policy = arrive(asha(), dict.fromkeys("abc", math.inf))
    assert policy.standing("a").reason == "score is not finite"


def test_a_late_trial_that_is_better_than_a_promoted_one_is_promoted_as_well() -> None:
    policy = arrive(asha(), {"a": 1.0, "b": 2.0})
    promote(policy, policy.promotion(idle=True))  # so that enough trials finish
    arrive(policy, {"c": 0.5, "d": 1.5, "e": 0.6})
    assert [promote(policy, policy.promotion(idle=False)) for _ in "ce"] == ["c", "e"]
    assert policy.promotion(idle=False) is None


def test_a_slot_that_can_start_a_trial_promotes_none_if_starts_come_first() -> None:
    policy = Asha(RUNGS, SCORE, 3, 1, "start")
    arrive(policy, {"a": 3.0, "b": 1.0, "c": 2.0})
    assert policy.promotion(idle=False) is None
    assert promote(policy, policy.promotion(idle=True)) == "b"


def arrived(policy: Policy, scores: dict[str, float], tokens: int = 10) -> list[Any]:
    """The decisions on trials that are measured at a rung one after the other."""
    decisions = []
    for trial, score in scores.items():
        policy.observe({"kind": "measured", "trial": trial, "tokens": tokens, SCORE: score})
        decisions.append(policy.decide(trial, tokens))
    return decisions


def planned(policy: Policy, trials: list[str]) -> Policy:
    """The policy when the trials have been planned."""
    return fold(policy, [{"kind": "planned", "trial": trial} for trial in trials])


SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@given(scores=SCORES, order=st.randoms(), eta=st.integers(2, 5))
@settings(max_examples=200)
def test_asha_stopping_decides_as_ray_does(scores: list[float], order: Any, eta: int) -> None:
    from ray.tune.schedulers import AsyncHyperBandScheduler

    theirs = AsyncHyperBandScheduler("tokens", SCORE, "min", 90, 10, eta)
    rungs = tuple(sorted(int(milestone) for milestone, _ in theirs._brackets[0]._rungs))
    ours = AshaStopping(tuple(rung for rung in rungs if rung < 90), SCORE, eta)
    stops = stops_of_both(ours, theirs, scores, order)
    assert [our for our, _ in stops] == [their for _, their in stops]


def stops_of_both(
    ours: AshaStopping, theirs: Any, scores: list[float], order: Any
) -> list[tuple[bool, bool]]:
    """Whether our policy, and whether Ray's, stops a trial, for one stream of reports.

    Every trial reports at both rungs for as long as ours does not stop it.
    """
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    stops = []
    waiting = [(str(number), 0, score) for number, score in enumerate(scores)]
    for trial, _, _ in waiting:
        theirs.on_trial_add(None, _RayTrial(trial))
    while waiting:
        trial, stage, score = waiting.pop(order.randrange(len(waiting)))
        tokens = ours.rungs[stage]
        their = theirs.on_trial_result(None, _RayTrial(trial), {"tokens": tokens, SCORE: score})
        (our,) = arrived(ours, {trial: score}, tokens)
        stops.append((isinstance(our, Stop), their == TrialScheduler.STOP))
        if not isinstance(our, Stop) and stage + 1 < len(ours.rungs):
            waiting.append((trial, stage + 1, score + order.uniform(-1, 1)))
    return stops


class _RayTrial:
    """All that Ray's scheduler asks of a trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def test_the_first_to_arrive_is_never_stopped_by_asha_stopping() -> None:
    assert isinstance(arrived(AshaStopping(RUNGS, SCORE, 3), {"a": 99.0})[0], Promotion)


def test_asha_stopping_names_the_cutoff() -> None:
    stop = arrived(AshaStopping(RUNGS, SCORE, 2), {"a": 1.0, "b": 2.0, "c": 3.0})[2]
    assert stop == Stop("3.0000 at {rung} is above the cutoff 1.5000", 10, 3.0, 3, 3, 1.5)


def test_a_score_and_a_cutoff_that_differ_are_never_written_alike() -> None:
    stop = arrived(AshaStopping(RUNGS, SCORE, 2), {"a": 1.0, "b": 1.00001})[1]
    assert stop.reason == "1.00001 at {rung} is above the cutoff 1.0"


def test_a_diverged_trial_is_the_worst_that_asha_stopping_knows() -> None:
    policy = AshaStopping(RUNGS, SCORE, 2)
    arrived(policy, {"a": 1.0, "b": 2.0})
    policy.observe({"kind": "diverged", "trial": "c", "tokens": 5})
    assert isinstance(arrived(policy, {"d": 2.5})[0], Stop)


def test_what_was_stopped_is_held_and_runs_once_started_again() -> None:
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


def promoted_in_turn(policy: Policy) -> list[str]:
    """The trials that idle slots promote and start, until no trial is promoted."""
    trials = []
    while (promotion := policy.promotion(idle=True)) is not None:
        policy.observe({"kind": "promoted", **promotion.fields()})
        policy.observe({"kind": "started", "trial": promotion.trial})
        trials.append(promotion.trial)
    return trials


def test_sha_promotes_one_in_eta_once_all_have_arrived() -> None:
    assert promoted_in_turn(waiting_at_ten(Sha(RUNGS, SCORE, 3, 1), NINE)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "policy",
    [Asha(RUNGS, SCORE, 3, 1, "start"), Sha(RUNGS, SCORE, 3, 1), Sha((10,), SCORE, None, 1)],
    ids=["asha", "sha", "i_epoch"],
)
def test_a_survivor_that_diverges_is_replaced(policy: Policy) -> None:
    tokens = (10, 20, 90)
    pool = [
        Curve("bad", "", tokens[:2], (0.0, math.inf), tokens[:2]),
        Curve("good", "", tokens, (1.0, 1.0, 1.0), tokens),
    ]
    assert replay(pool, policy, 1).finished == ["good"]


def test_i_epoch_finishes_as_many_as_asked_for() -> None:
    result = replay(curves([4.0, 1.0, 3.0, 2.0]), Sha((10,), SCORE, None, 2), 1)
    assert sorted(result.finished) == ["1", "3"]


def test_hyperband_deals_trials_to_brackets_by_the_shares_of_its_loop() -> None:
    """Of 17 trials 9, ceil(4.5) and 3: those of bracket b pause first at rung b."""
    trials = [str(number) for number in range(17)]
    policy = planned(Hyperband(RUNGS, SCORE, 3), trials)
    low, high = (arrived(policy, dict.fromkeys(trials, 1.0), rung) for rung in RUNGS)
    pairs = Counter(zip(low, high, strict=True))
    assert pairs == {("pause", "pause"): 9, ("continue", "pause"): 5, ("continue", "continue"): 3}


def test_a_trial_of_a_later_bracket_passes_the_first_rung() -> None:
    policy = planned(Hyperband(RUNGS, SCORE, 3), ["a", "b", "c"])
    assert arrived(policy, {"a": 1.0, "b": 1.0}) == ["pause", "continue"]


def test_a_reason_of_hyperband_names_the_bracket_that_its_rank_is_of() -> None:
    policy = planned(Hyperband(RUNGS, SCORE, 3), ["a", "b"])  # one in each of the first two
    policy.observe({"kind": "measured", "trial": "b", "tokens": 30, SCORE: 1.0})
    policy.observe({"kind": "paused", "trial": "b", "rung": 30, "score": 1.0})
    assert policy.standing("b").reason == "bracket 2 of 3: rank 1 of 1 at {rung}; 0 continue"


def test_median_stops_no_trial_before_three_others_have_come_as_far() -> None:
    decisions = arrived(Median((10, 20), SCORE), {"a": 1.0, "b": 1.0, "c": 9.0})
    assert not any(isinstance(decision, Stop) for decision in decisions)


def with_records(policy: Median, records: list[tuple[str, int, float]]) -> Median:
    """The policy when trials have been measured: (trial, tokens, score)."""
    kind = {"kind": "measured"}
    fold(policy, [{**kind, "trial": t, "tokens": tokens, SCORE: s} for t, tokens, s in records])
    return policy


def test_median_compares_the_best_score_with_the_running_averages_of_others() -> None:
    scores = {"a": (4.0, 2.0), "b": (6.0, 4.0), "c": (8.0, 6.0), "d": (5.5, 9.0)}
    records = [
        (trial, tokens, score)
        for trial, both in scores.items()
        for tokens, score in zip((10, 20), both, strict=True)
    ]
    # The averages of a, b and c are 3, 5 and 7; the best of d, 5.5, was its first score.
    assert with_records(Median((20,), SCORE), records).decide("d", 20) == Stop(
        "5.5000, its best by {rung}, is above the cutoff 5.0000", 20, 5.5, 3, 4, 5.0
    )


def test_records_that_a_resumed_trial_repeats_count_once() -> None:
    """The average of a is 3, the median of 1, 3 and 9; with 4 counted twice it would be 10/3."""
    repeated = [("a", 10, 4.0), ("a", 10, 4.0), ("a", 20, 2.0)]
    others = [("b", 20, 1.0), ("c", 20, 9.0), ("d", 20, 3.2)]
    decision = with_records(Median((20,), SCORE), [*repeated, *others]).decide("d", 20)
    assert isinstance(decision, Stop) and decision.cutoff == 3.0


def test_without_a_schedule_every_trial_continues() -> None:
    assert RunAll().decide("a", 10) == "continue"
