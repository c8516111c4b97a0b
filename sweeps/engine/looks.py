"""Looks at a study: how many seeds each arm has now, and what is found of it.

An arm has the seeds of its next look, until one has settled it; the baseline has as many as the arm with
the most. Where the seeds are listed, there is one look, and all arms have all of them. Everything follows
from the ledger, so a driver that resumes takes the same looks.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from sweeps import ledger as led
from sweeps import stats
from sweeps.plan.arms import PlannedArm
from sweeps.plan.arms import runs as planned_runs
from sweeps.plan.domains import Value
from sweeps.plan.request import Request
from sweeps.selection import losses_by_seed

Values = Mapping[str, Value] | None  # of an arm; None if all trials of its re-tune grid diverged


@dataclass(frozen=True)
class Study:
    """The arms whose values are known, in a sweep."""

    request: Request
    sweep: led.Sweep
    arms: Mapping[str, PlannedArm]  # the baseline among them
    values: Mapping[str, Values]

    def seen(self, name: str) -> led.Row | None:
        """What the last look found of an arm as it is now; None before its first look."""
        first = self._first(name), self._first(led.BASELINE)
        return self.sweep.seen(name, *first, self.arms[name].changes, self.request.seeds)

    def _first(self, name: str) -> str | None:
        """The run of an arm on the first seed, which says all but the seeds about its runs; None without
        values."""
        values, seed = self.values.get(name), str(self.request.seeds[0])
        if values is None:
            return None
        chosen, asked = self.sweep.chosen.get(name), self.sweep.request
        is_current = asked is not None and asked["space"] == self.request.written
        if chosen is not None and is_current and chosen["values"] == values:
            return str(chosen["trials"][seed])
        return planned_runs(self.request, self.arms[name], values, 1)[0].trial

    def seeds(self) -> dict[str, int]:
        """How many seeds each arm has now, those of its next look among them."""
        found = {name: self._seeds(name) for name in self.arms if name != led.BASELINE}
        most = max(found.values(), default=self.request.looks[0])
        return {led.BASELINE: most, **found} if led.BASELINE in self.arms else found

    def _seeds(self, name: str) -> int:
        looks, seen = self.request.looks, self.seen(name)
        if seen is None or len(looks) == 1:  # a list of seeds is for all arms
            return looks[0]
        now = len(seen["seeds"])
        if self._is_settled(name):
            return now
        return next((number for number in looks if number > now), now)

    def most_seeds(self) -> dict[str, int]:
        """The most seeds that each arm may get: no more than it has, once it is settled."""
        now, last = self.seeds(), self.request.looks[-1]
        others = {
            name: number if self._is_settled(name) else last
            for name, number in now.items()
            if name != led.BASELINE
        }
        return {**others, led.BASELINE: max(others.values(), default=last)}

    def _is_settled(self, name: str) -> bool:
        """Whether more seeds would change nothing: a look has settled it, or there is nothing to compare,
        however many seeds there are."""
        seen = self.seen(name)
        lost = None in (self.values[name], self.values.get(led.BASELINE, {}))
        return seen is not None and (lost or seen["decision"] != "no conclusion")

    def look(self) -> dict[str, Any] | None:
        """The fields of the row of a look; None if there is nothing new to see."""
        if led.BASELINE not in self.arms:
            return None
        seeds, metric = self.seeds(), self.request.space.metric
        runs = {name: self._runs(name, number) for name, number in seeds.items()}
        losses = {name: losses_by_seed(own, metric) for name, own in runs.items()}
        base = losses.pop(led.BASELINE)
        before = {name: seen for name in losses if (seen := self.seen(name)) is not None}
        paired = {name: len(own.keys() & base.keys()) for name, own in losses.items()}
        if not any(
            name not in before or self._is_new(before[name], seeds[name], paired[name])
            for name in losses
        ):
            return None
        again = [*runs[led.BASELINE][:1], *self._repeats()]
        repeats = [loss for one in again for loss in losses_by_seed([one], metric).values()]
        others = [[*own.values()] for own in losses.values() if own != base]
        noise, noise_of = stats.noise_of_runs([*base.values()], others, repeats)
        matters = self.request.space.matters
        margin = None if noise is None else stats.NOISE_MARGIN * noise.sd
        margin = margin if matters is None else matters
        registered = self._registered(before)
        can_be = {name: self._can_be(runs[name], runs[led.BASELINE]) for name in losses}
        ends = self.sweep.ends or [self.request.looks[-1]]
        earlier = {name: _seen(seen) for name, seen in before.items()}
        changed = self._changed(losses)
        found = stats.look(base, losses, earlier, ends, registered, margin, changed, can_be)
        return {
            "metric": metric,
            "ends": ends,
            "registered": registered,
            "noise": noise and {**vars(noise), "of": noise_of},
            "matters": matters,
            "margin": margin,
            "arms": {
                name: before[name]
                if earlier.get(name, found[name]).is_settled and name in before
                else self._row(name, found[name], runs, seeds[name], ends)
                for name in losses
            },
        }

    def _is_new(self, seen: led.Row, seeds: int, paired: int) -> bool:
        """Whether there is more of an arm than the last look saw."""
        is_open = seen["decision"] == "no conclusion"
        return is_open and (len(seen["seeds"]), seen["n"]) != (seeds, paired)

    def _runs(self, name: str, seeds: int) -> list[led.Trial]:
        """The runs of an arm on its first seeds, as far as they are planned."""
        chosen = self.sweep.chosen.get(name)
        ids = {} if chosen is None else chosen["trials"]
        wanted = map(str, self.request.seeds[:seeds])
        return [self.sweep.find(ids[seed]) for seed in wanted if seed in ids]

    def _repeats(self) -> list[led.Trial]:
        chosen = self.sweep.chosen.get(led.BASELINE)
        return [self.sweep.find(trial) for trial in (chosen["repeats"] if chosen else ())]

    def _registered(self, before: Mapping[str, led.Row]) -> list[str]:
        """The arms that were planned when the first run ended. One that has been changed since is another,
        but the one that it was still counts."""
        row = self.sweep.registered or self.sweep.request or {}
        names = row.get("arms", [name for name in self.arms if name != led.BASELINE])
        looked_at = {name for one in self.sweep.looks for name in one["arms"]}
        changed = (looked_at & self.arms.keys()) - before.keys()
        changed |= {name for name in self.arms if name in names and self._is_changed(name, row)}
        return [_before(name, 1) if name in changed else name for name in names]

    def _is_changed(self, name: str, row: led.Row) -> bool:
        """Whether an arm has other runs now than in the registered request."""
        seeds = zip(self.request.seeds, row.get("seeds", ()), strict=False)
        return (
            any(now != then for now, then in seeds)
            or row["space"].get("match") != self.request.written.get("match")
            or ("arms" in row and row["arms"][name]["changes"] != self.arms[name].changes)
        )

    def _changed(self, names: Collection[str]) -> list[str]:
        """A name for each test that looks made of other runs than those that the arms have now."""
        metric, against = self.request.space.metric, self._first(led.BASELINE)
        now = {(name, self._first(name), against, metric) for name in names}
        made = {
            (name, one["trial"], one["against"], row["metric"]): None
            for row in self.sweep.looks
            for name, one in row["arms"].items()
        }
        count: Counter[str] = Counter()
        found = []
        for name, *runs in made:
            if (name, *runs) not in now:
                count[name] += 1
                found.append(_before(name, count[name]))
        return found

    def _row(
        self,
        name: str,
        seen: stats.Seen,
        runs: Mapping[str, Sequence[led.Trial]],
        seeds: int,
        ends: Sequence[int],
    ) -> led.Row:
        """What a look finds of an arm, as the row has it."""
        effect, looks = seen.effect, list(seen.looks)
        return {
            "seeds": self.request.seeds[:seeds],
            "changes": dict(self.arms[name].changes),
            "values": self.values[name],
            "trial": self._first(name),
            "against": self._first(led.BASELINE),
            "looks": looks,
            "n": 0 if effect is None else effect.n,
            "mean": effect and effect.mean,
            "sd": effect and effect.sd,
            "low": effect and effect.low,
            "high": effect and effect.high,
            "p": effect and effect.p,
            "p_holm": seen.p_holm,
            "boundary": stats.boundaries(looks, ends)[-1] if looks else None,
            "spent": stats.ALPHA * stats.spent(looks[-1], ends) if looks else 0.0,
            "decision": self._decision(name, seen.decision, runs),
        }

    def _decision(
        self, name: str, decision: stats.Decision, runs: Mapping[str, Sequence[led.Trial]]
    ) -> stats.Decision:
        """What is decided on an arm of which, or of whose baseline, every run may have diverged."""
        gone, base_gone = (self._is_gone(one, runs[one]) for one in (name, led.BASELINE))
        if gone:
            return "no conclusion" if base_gone else "worse"
        if base_gone:
            whole = bool(runs[name]) and all(one.status == "finished" for one in runs[name])
            return "better" if whole else "no conclusion"
        return decision

    def _is_gone(self, name: str, runs: Sequence[led.Trial]) -> bool:
        """Whether every run of an arm diverged, or every trial of its grid."""
        diverged = bool(runs) and all(one.status == "diverged" for one in runs)
        return diverged or self.values[name] is None

    def _can_be(
        self, own: Sequence[led.Trial], base: Sequence[led.Trial]
    ) -> Collection[stats.Decision]:
        """What the losses of an arm can be evidence for: once the worst runs of one side have diverged, the
        remaining ones are not a fair sample."""
        lost, base_lost = (any(one.status == "diverged" for one in runs) for runs in (own, base))
        if lost and base_lost:
            return ["no conclusion"]
        if lost or base_lost:
            return ["worse" if lost else "better"]
        return get_args(stats.Decision)


def _before(name: str, number: int) -> str:
    """A name for an arm as it was before it was changed."""
    return f"{name} (before)" if number == 1 else f"{name} (before, {number})"


def _seen(row: led.Row) -> stats.Seen:
    """What a look found of an arm, from its row."""
    effect = stats.Effect.of(row) if row["n"] else None
    return stats.Seen(tuple(row["looks"]), effect, row["p_holm"], row["decision"])
