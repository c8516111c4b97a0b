"""Looks at a study: how many seeds each arm has now, and what is found of it.

An arm has the seeds of its next look, until one has settled it; the baseline has as many as the arm with
the most. Where the seeds are listed, there is one look, and all arms have all of them. Everything follows
from the ledger, so a driver that resumes takes the same looks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeps import ledger as led
from sweeps import stats
from sweeps.outcomes import outcome
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
        """What the last look found of an arm as it is now, by the bound that is asked for now; None before
        its first look."""
        found = self._recorded(name)
        return None if found is None else self._read_again(name, found)

    def _recorded(self, name: str) -> led.Row | None:
        """What the row of the last look has of an arm as it is now."""
        return self.sweep.seen(name, self._version(name))

    def _version(self, name: str) -> led.Version:
        """The version of an arm that is compared now."""
        return led.Version(
            metric=self.request.space.metric,
            trial=self._first(name),
            against=self._first(led.BASELINE),
            changes=dict(self.arms[name].changes),
            seeds=self.request.seeds,
            variance=self.request.space.variance,
        )

    def _read_again(self, name: str, found: led.Row) -> led.Row:
        """What a look found of an arm, by the bound that is asked for now if that decides otherwise: the
        interval is the same, so nothing has to be measured for it."""
        matters, last = self.request.space.matters, self.sweep.looks[-1]
        decision = stats.read_again(_seen(found), stats.margin_of(matters, last["noise"]))
        if found["matters"] == matters or found["decision"] == decision:
            return found
        own, base = (self._fate(one, len(found["seeds"])) for one in (name, led.BASELINE))
        if decision not in stats.possible(own, base):
            return found
        return {**found, "matters": matters, "decision": decision}

    def _first(self, name: str) -> str | None:
        """The run of an arm on the first seed, which says all but the seeds about its runs; None without
        values."""
        values, seed = self.values.get(name), str(self.request.seeds[0])
        if values is None:
            return None
        chosen, asked = self.sweep.chosen.get(name), self.sweep.request
        is_current = asked is not None and asked["space"] == self.request.written
        if chosen is not None and is_current and chosen["values"] == values:
            known: dict[str, str] = chosen["trials"]  # `--seed` may give the study others
            if trial := known.get(seed):
                return trial
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
        if not self._is_settled(name):
            now = next((number for number in looks if number > now), now)
        return min(now, looks[-1])  # of an arm that was looked at with more than are asked for now

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
            name not in before
            or self._is_new(before[name], seeds[name], paired[name])
            or before[name] != self._recorded(name)
            for name in losses
        ):
            return None
        noise = self._noise(runs, losses, base)
        margin = stats.margin_of(self.request.space.matters, noise)
        registered = self._registered(before)
        fates = {name: self._fate(name, number) for name, number in seeds.items()}
        can_be = {name: stats.possible(fates[name], fates[led.BASELINE]) for name in losses}
        ends = self.sweep.ends or [self.request.looks[-1]]
        earlier = {name: _seen(seen) for name, seen in before.items()}
        changed = self._changed(losses)
        variance = self.request.space.variance
        found = stats.look(
            base, losses, earlier, ends, registered, margin, changed, can_be, variance
        )
        return {
            "metric": metric,
            "ends": ends,
            "registered": registered,
            "noise": noise,
            "matters": self.request.space.matters,
            "variance": variance,
            "margin": margin,
            "arms": {
                name: before[name]
                if earlier.get(name, found[name]).is_settled and name in before
                else self._row(name, found[name], before.get(name), seeds[name], ends)
                for name in losses
            },
        }

    def _noise(
        self,
        runs: Mapping[str, Sequence[led.Trial]],
        losses: Mapping[str, Mapping[int, float]],
        base: Mapping[int, float],
    ) -> led.Row | None:
        """The noise of a run, as the row has it; arms with a run that went wrong show another one."""
        again = [*runs[led.BASELINE][:1], *self._repeats()]
        metric = self.request.space.metric
        repeats = [loss for one in again for loss in losses_by_seed([one], metric).values()]
        quiet = [
            [*own.values()]
            for name, own in losses.items()
            if own != base and not any(map(outcome, runs[name]))
        ]
        noise, of = stats.noise_of_runs([*base.values()], quiet, repeats)
        return None if noise is None else {**vars(noise), "of": of}

    def _is_new(self, seen: led.Row, seeds: int, paired: int) -> bool:
        """Whether there is more of an arm than the last look saw."""
        is_open = seen["decision"] == "no conclusion"
        return is_open and (len(seen["seeds"]) < seeds or seen["n"] < paired)

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
        """The arms that were planned at the first record, by the names that they have now. One that has been
        changed since is another, but the one that it was still counts."""
        row = self.sweep.registered or self.sweep.request or {}
        looked_at = {name for one in self.sweep.looks for name in one["arms"]}
        names = [name for name in self.arms if name != led.BASELINE]

        def has_it(name: str, then: str) -> bool:
            is_known = name in before or looked_at.isdisjoint({name, then})
            is_it = name == then or self._is_renamed(name, row, then)
            return is_known and is_it and not self._is_changed(name, row, then)

        found = []
        for then in row.get("arms", names):
            gone = _before(then, 1) if then in self.arms else then
            own_first = sorted(names, key=lambda name: name != then)
            found.append(next((name for name in own_first if has_it(name, then)), gone))
        return found

    def _is_renamed(self, name: str, row: led.Row, then: str) -> bool:
        """Whether an arm has the runs that were chosen for a registered one; its changes, if none were chosen."""
        choice = self.sweep.registered_choices.get(then)
        if choice is None and "arms" in row:
            changes = row["arms"][then]["changes"], self.arms[name].changes
            return self.request.config(changes[0]) == self.request.config(changes[1])
        if choice is None:
            return False
        trial = choice["trials"].get(str(self.request.seeds[0]))
        return trial is not None and trial == self._first(name)

    def _is_changed(self, name: str, row: led.Row, then: str) -> bool:
        """Whether an arm has other runs now than it had, by its name then, in the registered request or at a look."""
        seeds = zip(self.request.seeds, row.get("seeds", ()), strict=False)
        now = self._version(name)
        versions = [*self._looked_at(name), *self._looked_at(then)]
        looked_at = [one for one in versions if replace(one, seeds=now.seeds).agrees(now)]
        changes = self.arms[name].changes
        asked = row["arms"][then]["changes"] if "arms" in row else changes
        space = self.request.space.model_copy(update={"match": row["space"].get("match")})
        return (
            any(one != other for one, other in seeds)
            or replace(self.request, space=space).config(asked) != self.request.config(changes)
            or not all(one.agrees(now) for one in looked_at)
            or self._had_others(then)
        )

    def _had_others(self, then: str) -> bool:
        """Whether other runs were chosen for a registered arm or the baseline, on seeds of now, which have records."""
        choices = self.sweep.registered_choices
        rows = [choices[name] for name in (then, led.BASELINE) if name in choices]
        ids = {trial for row in rows for trial in row["trials"].values()}
        gone = [self.sweep.withdrawn[trial] for trial in ids & self.sweep.withdrawn.keys()]
        return any(one.curve and one.seed in self.request.seeds for one in gone)

    def _looked_at(self, name: str) -> list[led.Version]:
        """The versions of an arm that looks have seen."""
        rows = [row for row in self.sweep.looks if name in row["arms"]]
        return [led.Version.of(row["arms"][name], row) for row in rows]

    def _changed(self, names: Collection[str]) -> list[str]:
        """A name for each test that looks made of other runs than those that the arms have now."""
        found: list[str] = []
        known = [self._version(name) for name in names]
        for name in dict.fromkeys(name for row in self.sweep.looks for name in row["arms"]):
            others = len(known)
            for one in self._looked_at(name):
                if not any(one.agrees(version) for version in known):
                    known.append(one)
            found += [_before(name, number + 1) for number in range(len(known) - others)]
        return found

    def _row(
        self,
        name: str,
        seen: stats.Seen,
        before: led.Row | None,
        seeds: int,
        ends: Sequence[int],
    ) -> led.Row:
        """What a look finds of an arm, as the row has it; an earlier look may have had more seeds than are
        asked for now."""
        effect, looks = seen.effect, list(seen.looks)
        asked = self.request.seeds[:seeds]
        return {
            "seeds": asked if before is None else max(asked, before["seeds"], key=len),
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
            "boundary": stats.boundaries(looks, ends, rests=seen.rests)[-1] if looks else None,
            "spent": stats.ALPHA * stats.spent(looks[-1], ends) if looks else 0.0,
            "matters": self.request.space.matters,
            "decision": seen.decision,
            **({"rests": list(seen.rests)} if seen.rests else {}),
        }

    def _fate(self, name: str, seeds: int) -> stats.Fate:
        """What has become of the runs of an arm on its first seeds."""
        values, arm = self.values[name], self.arms[name]
        if values is None:
            grid = [one for one in self.sweep.trials.values() if one.pool == arm.pool]
            return stats.Fate.of([one.status for one in grid if arm.retune])
        planned = planned_runs(self.request, arm, values, seeds)
        ids = {one.trial for one in planned if one.role == "run"}
        known = {**self.sweep.withdrawn, **self.sweep.trials}
        return stats.Fate.of([known[trial].status for trial in ids & known.keys()])


def _before(name: str, number: int) -> str:
    """A name for an arm as it was before it was changed."""
    return f"{name} (before)" if number == 1 else f"{name} (before, {number})"


def _seen(row: led.Row) -> stats.Seen:
    """What a look found of an arm, from its row."""
    effect = stats.Effect.of(row) if row["n"] else None
    return stats.Seen(
        tuple(row["looks"]), effect, row["p_holm"], row["decision"], tuple(row.get("rests", ()))
    )
