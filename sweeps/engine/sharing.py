"""What of a running cluster is free for a sweep, and what other jobs hold of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.text import quantity

TOLD_SECONDS = 5.0  # for which others hold something else before it is said

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Share:
    """The slots of a cluster that a sweep may use: so many of its trials run at once."""

    free: int  # where nobody else holds what they take
    total: int  # if there were no other jobs
    is_awaited: bool = False  # no node can run a trial before an autoscaler has started one

    @property
    def others(self) -> int:
        """Slots that other jobs hold."""
        return self.total - self.free

    @property
    def planned(self) -> int:
        """How many trials are expected to run at once: if others hold all, those that will when they end."""
        return self.free or self.total

    @property
    def to_ask_for(self) -> int:
        """How many trials may run or wait. One may wait for what others hold: Ray gives it in the order in which
        it was asked for."""
        return min(self.total, self.free + 1)

    @property
    def words(self) -> str:
        """What is free and what others hold, or that nodes are waited for."""
        if self.is_awaited:
            return (
                "no node can run a trial yet; the cluster's autoscaler has to start one. How many it may start is "
                f"not known here. The time assumes {quantity(self.total, 'trial')} at once (`--slots`)"
            )
        if not self.others:
            return f"no other job holds any of the {quantity(self.total, 'slot')} of the cluster"
        if not self.free:
            held = quantity(self.total, "slot")
            return f"other jobs hold all that the cluster has ({held}); waiting for one"
        return f"other jobs hold {self.others} of {self.total} slots of the cluster"


@dataclass(frozen=True)
class Use:
    """How the nodes of a cluster are used, by Ray's id of each."""

    free: Mapping[str, Resources]  # that nobody holds
    held: Mapping[str, Resources]  # that this sweep holds

    def left(self, node: str, has: Resources) -> Resources:
        """What a node with these resources has for this sweep."""
        free, held = self.free.get(node, {}), self.held.get(node, {})
        # Free resources are known a little later than those that are held.
        return {
            name: min(all_of_it, free.get(name, 0.0) + held.get(name, 0.0))
            for name, all_of_it in has.items()
        }


class Sharing:
    """Says how many slots other jobs hold, whenever that has changed for a while."""

    def __init__(self, told: int) -> None:
        self._told = told  # slots that others held when it was last said
        self._since: float | None = None  # when it was first another number

    def look(self, share: Share, now: float) -> str:
        """What is to be said at a time; empty if nothing."""
        if share.others == self._told:
            self._since = None
            return ""
        if self._since is None:
            self._since = now
        if now - self._since < TOLD_SECONDS:
            return ""
        self._told, self._since = share.others, None
        return share.words
