"""A policy for each pool, for sweeps with several pools of trials that do not compete."""

from collections.abc import Callable, Iterator

from sweeps.ledger import Row, pool_of
from sweeps.policies.base import Decision, Policy, Promotion, Stop


class Pools:
    """One policy for each pool: only the scores of its own pool stop or promote a trial.

    A search has one pool, a study one for the re-tune grid of each arm.
    """

    def __init__(self, rungs: tuple[int, ...], new: Callable[[], Policy]) -> None:
        self.rungs = rungs
        self._new = new
        self._policies: dict[str, Policy] = {}
        self._pool: dict[str, str | None] = {}

    def of(self, pool: str) -> Policy:
        """The policy of a pool."""
        if pool not in self._policies:
            self._policies[pool] = self._new()
        return self._policies[pool]

    def _policy(self, trial: str) -> Policy:
        pool = self._pool[trial]
        assert pool is not None  # a trial without a pool is never decided on
        return self.of(pool)

    def observe(self, row: Row) -> None:
        """Update the policy of the row's pool; a row of no trial updates all of them."""
        if row["kind"] == "planned":
            self._pool[row["trial"]] = pool_of(row["role"], row["arm"], row["grid"])
        if "trial" in row:
            self._policy(row["trial"]).observe(row)
        else:
            for policy in self._policies.values():
                policy.observe(row)

    def decide(self, trial: str, tokens: int) -> Decision:
        """The decision of its pool's policy."""
        return self._policy(trial).decide(trial, tokens)

    def promotion(self, *, idle: bool) -> Promotion | None:
        """The promotion of the first pool that has one."""
        return next(self._promotions(idle=idle), None)

    def _promotions(self, *, idle: bool) -> Iterator[Promotion]:
        for policy in self._policies.values():
            promotion = policy.promotion(idle=idle)
            if promotion is not None:
                yield promotion

    def holds(self, trial: str) -> bool:
        """Whether the trial waits in its pool."""
        return self._policy(trial).holds(trial)

    def standing(self, trial: str) -> Stop:
        """The reason of its pool's policy."""
        return self._policy(trial).standing(trial)
