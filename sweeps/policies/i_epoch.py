"""`i_epoch`: one early look at every trial."""

from fractions import Fraction
from typing import Literal

from sweeps.policies.base import Finish, Grace, Schedule
from sweeps.policies.sha import Sha


class IEpochSchedule(Schedule):
    """All trials to one rung, then the best of them to the end (arXiv:2404.04111)."""

    policy: Literal["i_epoch"]
    grace: Grace
    finish: Finish

    def shares(self) -> tuple[Fraction, ...]:
        """The one rung."""
        return (self.grace,)

    def policy_at(self, rungs: tuple[int, ...], field: str) -> Sha:
        """Successive halving with one rung, from which `finish` trials go on."""
        return Sha(rungs, field, None, self.finish)
