"""A policy for each pool of trials that compete, at rungs that are shares of each trial's own budget."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from sweeps.ledger import Row, pool_of, value_of
from sweeps.policies.base import Decision, Promotion, Schedule, Stop
from sweeps.policies.values import Values


class Pools:
    """One policy for each pool: only the scores of its own pool stop or promote a trial.

    A search has one pool, a study one for the re-tune grid of each arm. The trials of a pool that differ
    only by seed continue or stop together, unless `each_seed` is its own. Rows and decisions have the
    tokens of their trial. The policies know one budget only, to which each trial's tokens are scaled.
    It is the budget of all trials or, if each has its own (`budget` is None), the smallest one at which
    every rung is a whole number of tokens. In that case policies see no records between the rungs, since other
    budgets have none at the same share.
    """

    def __init__(
        self, schedule: Schedule, field: str, budget: int | None, *, each_seed: bool = False
    ) -> None:
        self._schedule = schedule
        self._field = field
        self._each_seed = each_seed
        self._has_one_budget = budget is not None
        self._whole = budget or schedule.least_budget
        self._policies: dict[str, Values] = {}
        self._pool: dict[str, str | None] = {}
        self._budget: dict[str, int] = {}
        self._rungs: dict[int, tuple[int, ...]] = {}  # by budget

    def rungs(self, budget: int) -> tuple[int, ...]:
        """The rungs of a trial with this budget, in its tokens, lowest first."""
        if budget not in self._rungs:
            self._rungs[budget] = self._schedule.rungs(budget)
        return self._rungs[budget]

    def rung_words(self, budget: int, rung: int) -> str:
        """A rung of a trial with this budget in words: 512 tokens, or 1/8 of its budget (512 tokens)."""
        tokens = f"{rung} tokens"
        share = f"{Fraction(rung, budget)} of its budget"
        return tokens if self._has_one_budget else f"{share} ({tokens})"

    def of(self, pool: str) -> Values:
        """The policy of a pool, which sees all its trials scaled to one budget."""
        if pool not in self._policies:
            self._policies[pool] = Values(self._schedule, self.rungs(self._whole), self._field)
        return self._policies[pool]

    def wants_seed(self, pool: str, values: Mapping[str, Any]) -> bool:
        """Whether a further seed of values may start, or their first one."""
        return self._each_seed or self.of(pool).wants_seed(value_of(values))

    def _policy(self, trial: str) -> Values:
        pool = self._pool[trial]
        assert pool is not None  # a trial without a pool is never decided on
        return self.of(pool)

    def _scaled(self, trial: str, tokens: int) -> int | Fraction:
        """The tokens of a trial as those of the budget that the policies know."""
        budget = self._budget[trial]
        return tokens if budget == self._whole else Fraction(tokens * self._whole, budget)

    def _own(self, trial: str, tokens: int) -> int:
        """Tokens of the budget that the policies know as those of a trial."""
        return tokens * self._budget[trial] // self._whole

    def observe(self, row: Row) -> None:
        """Update the policy of the row's pool; a row of no trial updates all of them."""
        if row["kind"] == "planned":
            self._pool[row["trial"]] = pool_of(row["role"], row["arm"], row["grid"])
            self._budget[row["trial"]] = row["config"]["budget"]["tokens"]
            value = row["trial"] if self._each_seed else value_of(row["values"])
            row = {**row, "value": value}
        if "trial" not in row:
            for policy in self._policies.values():
                policy.observe(row)
            return
        policy, trial = self._policy(row["trial"]), row["trial"]
        counts = (name for name in ("tokens", "rung", "to") if row.get(name) is not None)
        scaled = row | {name: self._scaled(trial, row[name]) for name in counts}
        between = row["kind"] == "measured" and scaled["tokens"] not in policy.rungs
        if self._has_one_budget or not between:
            policy.observe(scaled)

    def decide(self, trial: str, tokens: int) -> Decision:
        """The decision of its pool's policy."""
        scaled = self._scaled(trial, tokens)
        policy = self._policy(trial)
        if scaled not in policy.rungs:
            return "continue"
        decision = policy.decide(trial, int(scaled))
        if isinstance(decision, Promotion):
            return self._promoted(decision)
        return self._stopped(trial, decision) if isinstance(decision, Stop) else decision

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The promotion of the first pool that has one."""
        return next(self._promotions(idle=idle), None)

    def _promotions(self, *, idle: bool) -> Iterator[Promotion]:
        for policy in self._policies.values():
            promotion = policy.promotion(idle=idle)
            if promotion is not None:
                yield self._promoted(promotion)

    def _promoted(self, one: Promotion) -> Promotion:
        to = None if one.to is None else self._own(one.trial, one.to)
        return replace(one, rung=self._own(one.trial, one.rung), to=to)

    def _stopped(self, trial: str, stop: Stop) -> Stop:
        rung = self._own(trial, stop.rung)
        reason = stop.reason.format(rung=self.rung_words(self._budget[trial], rung))
        return replace(stop, rung=rung, reason=reason)

    def holds(self, trial: str) -> bool:
        """Whether the trial waits in its pool."""
        return self._policy(trial).holds(trial)

    def standing(self, trial: str) -> Stop:
        """The reason of its pool's policy."""
        return self._stopped(trial, self._policy(trial).standing(trial))
