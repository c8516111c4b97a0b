"""Slots that a sweep asks of a cluster's autoscaler.

They are asked for as placement groups. Ray's autoscaler starts nodes for those that wait, and they end with the
process that made them, however it ends. `ray.autoscaler.sdk.request_resources` would not do: a cluster has one
request of that kind, which another sweep replaces, and which stays when a driver is killed.
Import `sweeps.engine.tune` before this module: it makes the settings that Ray reads.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray
from ray.util.placement_group import PlacementGroup

MOST = 100  # slots that are asked for at a time
_LOOKS = 3  # in a row that have to find slots lacking: what is free is known a little late
_NODE_LABEL = "ray.io/node-id"  # which Ray gives each node


def elsewhere(nodes: Sequence[str]) -> dict[str, str]:
    """The label selector of what may not be on these nodes, by Ray's id; there has to be one."""
    return {_NODE_LABEL: f"!in({','.join(nodes)})"}


class Groups(Protocol):
    """What a demand needs of a cluster."""

    def make(self, takes: Mapping[str, float], without: Sequence[str]) -> Any:
        """A placement group for a trial, on none of these nodes."""

    def remove(self, group: Any) -> None:
        """Remove a placement group."""


class RayGroups:
    """Placement groups of the cluster that this process has joined."""

    def make(self, takes: Mapping[str, float], without: Sequence[str]) -> PlacementGroup:
        selectors = [elsewhere(without)] if without else None
        return ray.util.placement_group([dict(takes)], bundle_label_selector=selectors)

    def remove(self, group: PlacementGroup) -> None:
        ray.util.remove_placement_group(group)


class Demand:
    """The slots that are asked for now, each with what a trial takes."""

    def __init__(self, groups: Groups | None = None) -> None:
        self._groups: Groups = groups or RayGroups()
        self._asked: list[Any] = []
        self._without: list[str] = []
        self._lacking = deque([0] * _LOOKS, maxlen=_LOOKS)

    def look(self, lacking: int, takes: Mapping[str, float], without: Sequence[str]) -> None:
        """Ask for the slots that were lacking at each of the last looks, this one included."""
        self._lacking.append(lacking)
        self.ask(min(self._lacking), takes, without)

    def joined(self, slots: int) -> None:
        """Count on the slots of a node that has joined, before it is known what is free there."""
        self._lacking.append(max(0, len(self._asked) - slots))

    def ask(self, number: int, takes: Mapping[str, float], without: Sequence[str]) -> None:
        """Ask for so many slots, `MOST` at most, on none of the nodes `without`, and no longer for others. On nodes
        that trials may run on, they would be taken from these."""
        if self._without != list(without):
            self._give_up(self._asked)
            self._without = list(without)
        number = max(0, min(number, MOST))
        self._give_up(self._asked[number:])
        missing = number - len(self._asked)
        self._asked += [self._groups.make(takes, without) for _ in range(missing)]

    def _give_up(self, groups: Sequence[Any]) -> None:
        for one in groups:
            self._groups.remove(one)
        self._asked = [one for one in self._asked if one not in groups]
