"""The laws of every policy, as a class that the tests of a policy inherit.

    class TestMine(PolicySuite):
        schedule = MySchedule(policy="mine", grace=Fraction(1, 9))

Sweeps are replayed on made-up curves of 90 tokens with a record every 10 of them.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sweeps.ledger import Row
from sweeps.policies import Decision, Policy, Promotion, Schedule, Stop
from sweeps.policies.pools import Pools
from sweeps.simulate.curves import SCORE, Curve
from sweeps.simulate.machine import Replay, ReplayResult, replay

BUDGET = 90
FINALS = st.lists(st.integers(0, 100).map(float) | st.just(math.inf), min_size=1, max_size=30)
WORKERS = st.integers(1, 5)
# Scores after 10, 30 and 90 tokens: few different ones, so that ranks change and scores are equal.
SCORES = st.lists(st.integers(0, 20).map(float) | st.just(math.inf), min_size=3, max_size=3)
PLANS = st.lists(SCORES, min_size=1, max_size=30)
LATE = st.lists(st.booleans(), min_size=30, max_size=30)  # whether a sweep is extended by a trial
# Budgets of which every rung is a whole number, one for each trial.
BUDGETS = st.lists(st.integers(1, 50).map(lambda times: 9 * times), min_size=30, max_size=30)
any_sweep = given(finals=FINALS, workers=WORKERS)
any_extension = given(plan=PLANS, late=LATE, workers=WORKERS)
# Each policy's class is a test of its own, although the method is inherited.
few = settings(max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
more = settings(few, max_examples=50)


class Recorded:
    """A policy that keeps the rows it has observed."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rungs = policy.rungs
        self.rows: list[Row] = []

    def observe(self, row: Row) -> None:
        self.rows.append(row)
        self.policy.observe(row)

    def of_kind(self, *kinds: str) -> list[Row]:
        """The rows of some kinds."""
        return [row for row in self.rows if row["kind"] in kinds]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


def curves(finals: list[float]) -> list[Curve]:
    """Curves with nine records that keep their order; an infinite one diverges at the second."""
    tokens = tuple(range(10, BUDGET + 1, 10))

    def curve(number: int, final: float) -> Curve:
        if math.isinf(final):
            return Curve(str(number), "", tokens[:2], (1e3, math.inf), tokens[:2])
        return Curve(str(number), "", tokens, tuple(final + 90 / t for t in tokens), tokens)

    return [curve(number, final) for number, final in enumerate(finals)]


def crossing_curves(plan: list[list[float]]) -> list[Curve]:
    """Curves with these three scores, which need not keep their order; an infinite one ends its curve."""

    def curve(number: int, scores: list[float]) -> Curve:
        length = scores.index(math.inf) + 1 if math.inf in scores else 3
        tokens = (10, 30, BUDGET)[:length]
        return Curve(str(number), "", tokens, tuple(scores[:length]), tokens)

    return [curve(number, scores) for number, scores in enumerate(plan)]


def in_two_parts(pool: list[Curve], late: list[bool]) -> list[list[Curve]]:
    """The curves that are not late, and those that are."""
    pairs = list(zip(pool, late, strict=False))
    return [[curve for curve, is_late in pairs if is_late == part] for part in (False, True)]


def fold(policy: Policy, rows: Iterable[Row]) -> Policy:
    """The policy, once it has observed the rows."""
    for row in rows:
        policy.observe(row)
    return policy


def last_records(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The last record of every trial that runs after the rows; an empty list before the first."""
    last: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] == "started":
            last[row["trial"]] = []
        elif row["kind"] == "measured":
            last[row["trial"]] = [row]
        elif row["kind"] in {"paused", "stopped", "finished", "diverged"}:
            last.pop(row["trial"], None)  # a trial that has paused is stopped at the end
    return last


def killed_and_resumed(policy: Policy, rows: list[Row]) -> Policy:
    """The policy of a sweep that was killed after the rows and resumed.

    What ran then is started again, and repeats its last record.
    """
    fold(policy, [*rows, {"kind": "session"}])
    for trial, records in last_records(rows).items():
        fold(policy, [{"kind": "started", "trial": trial}, *records])
    return policy


def answers(policy: Policy, rows: Iterable[Row]) -> list[tuple[Decision | None, Promotion | None]]:
    """What the policy says after each row: of the trial just measured, and who is promoted next."""
    pairs = []
    for row in rows:
        policy.observe(row)
        pairs.append((decision_on(policy, row), policy.promotion(idle=True)))
    return pairs


def decision_on(policy: Policy, row: Row) -> Decision | None:
    """What becomes of a trial that was just measured; None for other rows."""
    return policy.decide(row["trial"], row["tokens"]) if row["kind"] == "measured" else None


def decisions_on(policy: Policy, rows: Iterable[Row]) -> list[Decision | None]:
    """The decisions on records, none of which is observed by asking."""
    return [decision_on(policy, row) for row in rows]


def last_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """The last row of every trial."""
    return {row["trial"]: row for row in rows if "trial" in row}


def stops_at_the_end(recorded: Recorded) -> list[Row]:
    """The rows of the trials that still wait when the sweep ends."""
    waiting = [t for t, row in last_rows(recorded.rows).items() if row["kind"] == "paused"]
    stops = {trial: recorded.standing(trial).fields() for trial in waiting}
    return [{"kind": "stopped", "trial": trial, **stop} for trial, stop in stops.items()]


def with_budgets(rows: Iterable[Row], budgets: Sequence[int]) -> list[Row]:
    """The rows of a search whose trials have these budgets and are measured at the same shares of them."""

    def with_budget(row: Row) -> Row:
        budget = budgets[int(row["trial"])]
        counts = {"tokens", "rung", "to"} & {name for name in row if row[name] is not None}
        scaled = {name: row[name] * budget // BUDGET for name in counts}
        values = {"values": {"n": row["trial"]}, "seed": 0}
        return {**row, **scaled, "config": {"budget": {"tokens": budget}}, **values, **SEARCH}

    return [with_budget(row) if "trial" in row else row for row in rows]


SEARCH = {"role": "search", "arm": "", "grid": ""}


def with_records_between(rows: Iterable[Row]) -> list[Row]:
    """The rows with another record, of a high loss, three tokens before each."""
    dense = []
    for row in rows:
        if row["kind"] == "measured":
            dense.append({**row, "tokens": row["tokens"] - 3, SCORE: 1e3})
        dense.append(row)
    return dense


def decided(policy: Any, rows: Iterable[Row]) -> list[Decision | None]:
    """The decision on each record, asked as soon as it was observed."""
    said = []
    for row in rows:
        policy.observe(row)
        said.append(decision_on(policy, row))
    return said


def in_tokens(decision: Decision | None) -> Decision | None:
    """A decision whose reason names the tokens of its rung."""
    if not isinstance(decision, Stop):
        return decision
    return replace(decision, reason=decision.reason.format(rung=f"{decision.rung} tokens"))


def in_shares(answer: Decision | None, budget: int) -> object:
    """A decision with its token counts as shares of the budget, and without those in its reason."""
    if answer is None or isinstance(answer, str):
        return answer
    fields = asdict(answer)
    for name in ("rung", "to"):
        if fields.get(name) is not None:
            fields[name] = Fraction(fields[name], budget)
    return fields | {"reason": re.sub(r" \(\d+ tokens\)", "", fields.get("reason", ""))}


def answers_in_shares(pools: Pools, rows: Sequence[Row], budgets: Sequence[int]) -> list[object]:
    """What the pools say after each row, in shares of these budgets, and why each stop at the end."""
    said: list[object] = []
    for row in with_budgets(rows, budgets):
        pools.observe(row)
        if row["kind"] == "measured":
            decision = pools.decide(row["trial"], row["tokens"])
            said.append(in_shares(decision, budgets[int(row["trial"])]))
        promotion = pools.promotion(idle=True)
        said.append(promotion and in_shares(promotion, budgets[int(promotion.trial)]))
    waiting = [trial for trial, row in last_rows(rows).items() if row["kind"] == "paused"]
    return said + [in_shares(pools.standing(t), budgets[int(t)]) for t in waiting]


def arrivals(rows: Iterable[Row]) -> dict[tuple[str, int], tuple[float, int]]:
    """The key by which a trial is ranked at a token count: its first score there, then its turn."""
    first: dict[tuple[str, int], tuple[float, int]] = {}
    for turn, row in enumerate(rows):
        if row["kind"] == "measured":
            first.setdefault((row["trial"], row["tokens"]), (row[SCORE], turn))
    return first


class PolicySuite:
    """The laws. A subclass names the settings of its policy, with a grace of 1/9 if it has one."""

    schedule: Schedule

    def new(self) -> Policy:
        """The policy before any row."""
        rungs = tuple(int(share * BUDGET) for share in self.schedule.shares())
        return self.schedule.policy_at(rungs, SCORE)

    def rivals(self, policy: Any, trial: str) -> object:
        """Which trials a trial is ranked among: all, unless the policy has brackets."""
        return None

    def run(self, finals: list[float], workers: int) -> tuple[Recorded, ReplayResult]:
        """A sweep of curves that end at these losses, and what became of it."""
        recorded = Recorded(self.new())
        return recorded, replay(curves(finals), recorded, workers)

    def run_in_parts(self, parts: list[list[Curve]], workers: int) -> tuple[Recorded, ReplayResult]:
        """A sweep that is extended part by part, each to its end, and what became of it."""
        recorded = Recorded(self.new())
        machine = Replay(recorded, workers)
        for part in parts:
            machine.run(part)
            fold(recorded, stops_at_the_end(recorded))
        return recorded, machine.result

    def measured(self, tokens: int, score: float) -> Policy:
        """The policy when one trial, "a", has been measured once."""
        row = {"kind": "measured", "trial": "a", "tokens": tokens, SCORE: score}
        return fold(self.new(), [{"kind": "planned", "trial": "a"}, row])

    @any_sweep
    @few
    def test_every_trial_ends_in_exactly_one_way(self, finals: list[float], workers: int) -> None:
        recorded, result = self.run(finals, workers)
        diverged = {row["trial"] for row in recorded.of_kind("diverged")}
        waiting = {str(n) for n in range(len(finals)) if recorded.holds(str(n))}
        stopped = {row["trial"] for row in recorded.of_kind("stopped")}
        ends = [set(result.finished), diverged, waiting | stopped]
        assert sum(len(end) for end in ends) == len(set.union(*ends)) == len(finals)

    @any_sweep
    @few
    def test_something_finishes_unless_all_diverge(self, finals: list[float], workers: int) -> None:
        _, result = self.run(finals, workers)
        assert bool(result.finished) == any(math.isfinite(final) for final in finals)

    @any_sweep
    @example(finals=[math.inf, math.inf], workers=1)  # where one diverges in every policy
    @few
    def test_what_diverged_never_continues(self, finals: list[float], workers: int) -> None:
        recorded, _ = self.run(finals, workers)
        ends = {row["trial"]: n for n, row in enumerate(recorded.rows) if row["kind"] == "diverged"}
        later = [
            row
            for n, row in enumerate(recorded.rows)
            if row["kind"] in {"started", "promoted"} and n > ends.get(row["trial"], n)
        ]
        assert later == []

    @any_sweep
    @few
    def test_the_best_of_curves_that_keep_their_order_is_kept(
        self, finals: list[float], workers: int
    ) -> None:
        _, result = self.run([*finals, 50.0], workers)
        assert min(*finals, 50.0) in {[*finals, 50.0][int(trial)] for trial in result.finished}

    @any_sweep
    @few
    def test_a_policy_that_observes_the_same_rows_is_in_the_same_state(
        self, finals: list[float], workers: int
    ) -> None:
        recorded, _ = self.run(finals, workers)
        again = fold(self.new(), recorded.rows)
        trials = [str(number) for number in range(len(finals))]
        assert [again.holds(t) for t in trials] == [recorded.holds(t) for t in trials]
        assert again.promotion(idle=True) == recorded.promotion(idle=True)

    @given(finals=FINALS, late=LATE, workers=WORKERS, data=st.data())
    @few
    def test_a_sweep_that_was_killed_resumes_where_it_was(
        self, finals: list[float], late: list[bool], workers: int, data: st.DataObject
    ) -> None:
        """Killed after any row before the last record: every answer from then on is the same."""
        rows = self.run_in_parts(in_two_parts(curves(finals), late), workers)[0].rows
        last = max(number for number, row in enumerate(rows) if row["kind"] == "measured")
        cut = data.draw(st.integers(1, last), "cut")
        repeated = [row for records in last_records(rows[:cut]).values() for row in records]
        whole, resumed = fold(self.new(), rows[:cut]), killed_and_resumed(self.new(), rows[:cut])
        assert decisions_on(resumed, repeated) == decisions_on(whole, repeated)
        later = answers(resumed, rows[cut:])
        assert later == answers(whole, rows[cut:])
        assert {decision for decision, _ in later} != {None}

    @any_sweep
    @few
    def test_a_policy_with_rungs_decides_and_every_decision_has_its_numbers(
        self, finals: list[float], workers: int
    ) -> None:
        recorded, _ = self.run(finals, workers)
        last = stops_at_the_end(recorded)
        decisions = [*recorded.of_kind("promoted", "stopped"), *last]
        assert bool(decisions) == bool(recorded.rungs)
        assert all(1 <= row["rank"] <= row["arrived"] for row in decisions)
        assert all(row["rung"] in recorded.rungs for row in decisions)
        json.dumps(decisions, allow_nan=False)

    @any_extension
    @more
    def test_no_trial_is_stopped_where_a_worse_one_went_on(
        self, plan: list[list[float]], late: list[bool], workers: int
    ) -> None:
        """At whatever rung, in one session or after an extension, whatever the curves do."""
        if self.schedule.decides_on_arrival:
            pytest.skip("its decisions are taken on the trials that arrived before")
        parts = in_two_parts(crossing_curves(plan), late)
        recorded, _ = self.run_in_parts(parts, workers)
        key = arrivals(recorded.rows)
        last = last_rows(recorded.rows).values()
        wronged = [
            (stop["trial"], promoted["trial"])
            for stop in last
            for promoted in recorded.of_kind("promoted")
            if stop["kind"] == "stopped" and stop["rung"] == promoted["rung"]
            if key[stop["trial"], stop["rung"]] < key[promoted["trial"], stop["rung"]]
            if self.rivals(recorded, stop["trial"]) == self.rivals(recorded, promoted["trial"])
        ]
        assert wronged == []

    @given(
        finals=st.lists(st.integers(0, 100), min_size=1, max_size=30, unique=True),
        late=LATE,
        workers=WORKERS,
    )
    @more
    def test_an_extended_sweep_of_curves_that_keep_their_order_chooses_as_one_that_was_whole(
        self, finals: list[float], late: list[bool], workers: int
    ) -> None:
        pool = curves(finals)
        ends = [
            self.run_in_parts(parts, workers)[1] for parts in ([pool], in_two_parts(pool, late))
        ]
        whole, extended = (min(end.finished, key=lambda t: finals[int(t)]) for end in ends)
        assert extended == whole

    @any_extension
    @few
    def test_no_reason_contradicts_itself(
        self, plan: list[list[float]], late: list[bool], workers: int
    ) -> None:
        """Whoever has a rank among the trials that are said to continue is not stopped."""
        recorded, _ = self.run_in_parts(in_two_parts(crossing_curves(plan), late), workers)
        reasons = [row["reason"].rpartition(": ")[2] for row in recorded.of_kind("stopped")]
        ranks = [re.search(r"rank (\d+) of \d+ .*; (\d+) continues?$", text) for text in reasons]
        assert all(int(found[1]) > int(found[2]) for found in ranks if found)
        above = [re.search(r"^([^ ,]+).* is above the cutoff (.+)$", text) for text in reasons]
        assert all(float(found[1]) > float(found[2]) for found in above if found)
        rest = [text for text, *found in zip(reasons, ranks, above, strict=True) if not any(found)]
        assert set(rest) <= {"score is not finite"}

    @given(plan=PLANS, late=LATE, workers=WORKERS, budgets=BUDGETS)
    @few
    def test_the_budgets_of_trials_change_no_decision(
        self, plan: list[list[float]], late: list[bool], workers: int, budgets: list[int]
    ) -> None:
        """A rung is a share of each trial's own budget, so losses at equal shares decide alone."""
        rows = self.run_in_parts(in_two_parts(crossing_curves(plan), late), workers)[0].rows
        equal, own = (
            answers_in_shares(Pools(self.schedule, SCORE, None), rows, each)
            for each in ([BUDGET] * 30, budgets)
        )
        assert own == equal

    @any_extension
    @few
    def test_records_between_the_rungs_of_budgets_that_differ_do_not_count(
        self, plan: list[list[float]], late: list[bool], workers: int
    ) -> None:
        """A longer run has more of them, at shares where others have none."""
        rows = self.run_in_parts(in_two_parts(crossing_curves(plan), late), workers)[0].rows
        few_records, many_records = (
            decided(Pools(self.schedule, SCORE, None), with_budgets(each, [BUDGET] * 30))
            for each in (rows, with_records_between(rows))
        )
        at_rungs = [one for one in many_records if one != "continue"]
        assert at_rungs == [one for one in few_records if one != "continue"]

    @any_extension
    @few
    def test_a_pool_of_one_budget_says_what_its_policy_says(
        self, plan: list[list[float]], late: list[bool], workers: int
    ) -> None:
        """Also of records between rungs, which policies for budgets that differ do not see."""
        pool = [*crossing_curves(plan), *curves([50.0, 60.0])]
        numbered = [replace(curve, trial=str(number)) for number, curve in enumerate(pool)]
        rows = self.run_in_parts(in_two_parts(numbered, [*late, False, True]), workers)[0].rows
        rows = with_budgets(rows, [BUDGET] * 32)
        said = decided(Pools(self.schedule, SCORE, BUDGET), rows)
        assert said == [in_tokens(decision) for decision in decided(self.new(), rows)]

    @any_sweep
    @few
    def test_asking_for_decisions_changes_nothing(self, finals: list[float], workers: int) -> None:
        recorded, _ = self.run(finals, workers)
        trials = [str(number) for number in range(len(finals))]
        held = [recorded.holds(trial) for trial in trials]
        first = decisions_on(recorded.policy, recorded.of_kind("measured"))
        second = decisions_on(recorded.policy, recorded.of_kind("measured"))
        assert (bool(first), first) == (True, second)
        assert [recorded.holds(trial) for trial in trials] == held

    def test_a_trial_that_is_asked_about_at_a_rung_does_not_wait_there_yet(self) -> None:
        policy = self.measured(10, 9.0)
        assert policy.decide("a", 10) == policy.decide("a", 10)
        assert not policy.holds("a")

    def test_a_trial_continues_between_rungs(self) -> None:
        assert self.measured(7, 1.0).decide("a", 7) == "continue"

    @pytest.mark.parametrize("score", [math.nan, math.inf])
    def test_a_score_that_is_not_finite_ends_a_trial_at_a_rung(self, score: float) -> None:
        policy = self.measured(10, score)
        decision = policy.decide("a", 10)
        assert not isinstance(decision, Promotion)
        assert (decision == "continue") == (10 not in policy.rungs)
        assert policy.promotion(idle=True) is None
