"""`i_epoch`: one early comparison of all trials."""

from fractions import Fraction
from typing import Literal

from sweeps.policies.base import Finish, Grace, Schedule
from sweeps.policies.sha import Sha


class IEpochSchedule(Schedule):
    """Run all trials to one rung, and the best of them to the end (arXiv:2404.04111)."""

    policy: Literal["i_epoch"]
    grace: Grace
    finish: Finish

    def shares(self) -> tuple[Fraction, ...]:
        """The one rung."""
        return (self.grace,)

    @property
    def finishers(self) -> int:
        """The setting `finish`."""
        return self.finish

    def policy_at(self, rungs: tuple[int, ...], field: str) -> Sha:
        """Successive halving with one rung, from which `finish` trials continue."""
        return Sha(rungs, field, None, self.finish)
