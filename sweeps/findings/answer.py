"""The answer of a search: the values that it chose, the loss to quote, and what speaks against them."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sweeps.findings.noise import SeedNoise
from sweeps.findings.optimism import Selection, confirming
from sweeps.findings.results import ENDINGS, Results, status_of, steered_words
from sweeps.ledger import Trial
from sweeps.outcomes import overfit
from sweeps.selection import (
    Point,
    at,
    budgets,
    groups,
    last_record,
    losses_at,
    losses_by_seed,
    losses_by_seed_at,
    means_on_shared_seeds,
)
from sweeps.stats import NOISE_MARGIN

Kind = Literal[
    "selected",  # the loss of the search, which chose the values by it
    "confirmed",  # on fresh seeds, after the choice
]
Caveat = Literal[
    "budgets differ",  # a longer run has a lower loss
    "context lengths",  # how their losses and updates compare
    "rival",  # other values, with fewer seeds, may be better
    "within noise",  # the choice is no farther below the runner-up than seeds alone may put it
    "one seed",  # no choice of values was run with more, nor confirmed with more
    "confirming",  # fresh seeds have no result yet
    "lost",  # fresh seeds diverged or failed
    "steered",  # somebody stopped trials, or had them trained to their end
    "unfinished",  # trials have not finished
    "stopped lower",  # a stopped trial had a lower loss than the overfitted choice has at its end
    "withdrawn lower",  # values that the space no longer has ended below the choice
    "left out",  # fresh seeds of the choice that the space no longer asks for
]
# What the trials do not have in common, so that the lowest loss does not show which values are best.
Unequal = Literal["budgets", "updates", "validation tokens"]


@dataclass(frozen=True)
class Choice:
    """The values that a search chose, and the loss to quote for them."""

    values: dict[str, Any]
    tied: tuple[dict[str, Any], ...]  # other values with the same loss
    among: int  # choices of values with a result
    kind: Kind
    loss: float  # the one to quote; a mean over the seeds
    seeds: int
    searched: float  # the loss in the search

    @property
    def is_confirmed(self) -> bool:
        """Whether the loss is from fresh seeds."""
        return self.kind == "confirmed"


@dataclass(frozen=True)
class Better:
    """Stopped trials that ended below the choice when an audit trained them: the best values of them."""

    runs: tuple[Trial, ...]  # of these values, one per seed
    seeds: int  # that the two losses are means over
    loss: float
    chosen: (
        float | None
    )  # of the choice, over the same seeds if it has them; None if nothing finished
    among: int  # choices of values with a stopped trial that ended below the choice

    @property
    def values(self) -> dict[str, Any]:
        """The values of its runs."""
        return self.runs[0].values


@dataclass(frozen=True)
class Rival:
    """Values that have finished on fewer seeds than the choice, and are better on those that both have."""

    values: dict[str, Any]
    seeds: int  # that both have
    loss: float  # the mean over these
    chosen: float  # of the choice


@dataclass(frozen=True)
class RunnerUp:
    """Values whose mean loss is that of the choice within the noise over seeds."""

    values: dict[str, Any]
    seeds: int  # of each of the two means
    behind: float  # their mean less that of the choice
    noise: float  # `NOISE_MARGIN` standard deviations of a difference of two such means


@dataclass(frozen=True)
class StoppedLower:
    """A trial that was stopped at a lower loss than the overfitted choice has at its end."""

    trial: Trial
    tokens: int  # where it was stopped
    loss: float
    is_decayed: bool  # whether the loss is that of a decay branch from there


@dataclass(frozen=True)
class WithdrawnLower:
    """Values that the space no longer has, and that ended below the choice: the lowest of them."""

    values: dict[str, Any]
    seeds: int  # that both have, over which the two losses are means; if 0, each is over its own
    loss: float
    chosen: float  # of the choice in the search
    among: int  # choices of values that the space no longer has and that ended below the choice


@dataclass(frozen=True)
class LeftOut:
    """Fresh seeds of the choice that have ended, and that the space no longer asks for."""

    trials: tuple[Trial, ...]
    every: tuple[
        float, ...
    ]  # the losses on all fresh seeds that finished, those in the answer included


@dataclass(frozen=True)
class Answer:
    """What a search found, and what a reader of it has to know."""

    point: Point | None  # where the finished trials are compared
    choice: Choice | None  # None if no trial has finished
    better: Better | None
    caveats: tuple[Caveat, ...]
    unequal: tuple[Unequal, ...]
    stopped_lower: tuple[StoppedLower, ...]  # the lowest first
    rival: Rival | None
    runner_up: RunnerUp | None  # None if the choice is farther below it than the noise
    withdrawn_lower: WithdrawnLower | None
    left_out: LeftOut | None


def answer(
    results: Results,
    winner: Sequence[Trial],
    selected: Selection | None,
    noise: SeedNoise | None,
) -> Answer:
    """The answer of a search whose policy chose the values of the winner; without a choice where trials
    end at a target, and their final losses say nothing. The noise is that of its runs over seeds."""
    choice = _choice(results, selected) if selected is not None else None
    audited = None if results.to_target else better(results, winner, results.trials)
    lower = sorted(_stopped_lower(results, winner), key=lambda one: one.loss)
    beside = None if results.to_target else rival(results, winner)
    unequal = tuple(_unequal(results))
    close = None if results.to_target or unequal else runner_up(results, winner, noise)
    caveats: list[Caveat] = ["rival"] if beside is not None else []
    caveats += ["within noise"] if close is not None else []
    caveats += _caveats(results, choice)
    caveats += ["stopped lower"] if lower else []
    gone, left_out = withdrawn_lower(results, winner), _left_out(results, winner)
    caveats += ["withdrawn lower"] if gone is not None else []
    caveats += ["left out"] if left_out is not None else []
    return Answer(
        point=results.final,
        choice=choice,
        better=audited,
        caveats=tuple(caveats),
        unequal=unequal,
        stopped_lower=tuple(lower),
        rival=beside,
        runner_up=close,
        withdrawn_lower=gone,
        left_out=left_out,
    )


def _unequal(results: Results) -> Iterator[Unequal]:
    if results.budgets_differ:
        yield "budgets"
    lengths = results.context_lengths
    if lengths is not None and lengths.updates_differ:
        yield "updates"
    if lengths is not None and not lengths.are_same:
        yield "validation tokens"


def _stopped_lower(results: Results, winner: Sequence[Trial]) -> Iterator[StoppedLower]:
    """The stopped trials, without audits, whose last loss or that of a decay branch is below the loss
    that an overfitted winner has at its end."""
    ends = losses_by_seed(winner, results.metric)
    if results.to_target or not ends or not any(map(overfit, winner)):
        return
    for trial in results.having("stopped"):
        record = last_record(trial)
        if record is None or results.ended_audit(trial) is not None:
            continue
        undecayed, decayed = record.loss(results.metric), record.decayed(results.metric)
        lowest = undecayed if decayed is None else min(undecayed, decayed)
        if lowest < statistics.fmean(ends.values()):
            yield StoppedLower(trial, record.tokens, lowest, is_decayed=lowest != undecayed)


def _choice(results: Results, selected: Selection) -> Choice:
    ends = selected.confirmed
    return Choice(
        values=selected.values,
        tied=_tied(results, selected),
        among=selected.among,
        kind="confirmed" if ends else "selected",
        loss=statistics.fmean(ends) if ends else selected.mean,
        seeds=len(ends) or selected.seeds,
        searched=selected.mean,
    )


def _tied(results: Results, selected: Selection) -> tuple[dict[str, Any], ...]:
    """Other values with as many seeds and the same loss, such as those of a switch without effect."""
    found = []
    for group in groups(results.having("finished")):
        losses = [end.loss(results.metric) for t in group if (end := at(t, results.final))]
        alike = len(losses) == selected.seeds and statistics.fmean(losses) == selected.mean
        if alike and group[0].values != selected.values:
            found.append(group[0].values)
    return tuple(found)


def better(results: Results, winner: Sequence[Trial], trials: Sequence[Trial]) -> Better | None:
    """The values with an audited trial whose loss is the farthest below that of the winner, over the
    seeds that both have; None if an audit found nothing better."""
    finished = [t for t in results.audited(trials) if t.status == "finished"]
    point = results.point_of([*winner, *finished])
    chosen = losses_by_seed_at(winner, point, results.metric)
    found = []
    for group in groups(finished):
        own = losses_by_seed_at(group, point, results.metric)
        is_audited = any(trial.role == "audit" for trial in group)
        if not is_audited or (winner and group[0].values == winner[0].values):
            continue
        seeds = len((own.keys() & chosen.keys()) or own)
        loss, against = means_on_shared_seeds(own, chosen or own)
        if not chosen or loss < against:
            found.append(Better(tuple(group), seeds, loss, against if chosen else None, among=1))
    if not found:
        return None
    best = min(found, key=lambda one: one.loss - (one.chosen or 0.0))
    return replace(best, among=len(found))


def rival(results: Results, winner: Sequence[Trial]) -> Rival | None:
    """The values that are the farthest below the winner on the seeds that both have, among those that have
    finished on fewer; None if there are none. A value of which a seed diverged is no rival."""
    chosen = losses_by_seed_at(winner, results.final, results.metric)
    ended = [t for t in results.trials if t.status in {"finished", "diverged"}]
    found = []
    for group in groups(ended):
        own = losses_by_seed_at(group, results.final, results.metric)
        shared = len(own.keys() & chosen.keys())
        if shared and len(own) < len(chosen) and all(t.status == "finished" for t in group):
            loss, against = means_on_shared_seeds(own, chosen)
            if loss < against:
                found.append(Rival(group[0].values, shared, loss, against))
    return min(found, key=lambda one: one.loss - one.chosen, default=None)


def runner_up(
    results: Results, winner: Sequence[Trial], noise: SeedNoise | None
) -> RunnerUp | None:
    """The values with the lowest mean loss after that of the winner, among those with as many seeds, if the
    two differ by no more than the noise. None if they have one loss: these are tied."""
    if not winner or noise is None or noise.noise is None:
        return None
    best = statistics.fmean(losses_at(winner, results.final, results.metric))
    means = [
        (statistics.fmean(losses_at(group, results.final, results.metric)) - best, group[0].values)
        for group in groups(results.having("finished"))
        if len(group) == len(winner) and group[0].values != winner[0].values
    ]
    behind, values = min(means, key=lambda one: one[0], default=(math.inf, {}))
    margin = NOISE_MARGIN * noise.noise.sd * math.sqrt(2 / len(winner))
    return RunnerUp(values, len(winner), behind, margin) if 0 < behind <= margin else None


def withdrawn_lower(results: Results, winner: Sequence[Trial]) -> WithdrawnLower | None:
    """The values that the space no longer has and that ended the farthest below the winner, over the seeds that
    both have, those of the winner that were withdrawn included; None if there are none. Values of which a seed
    diverged are none, nor are those with another budget."""
    if results.to_target or not winner:
        return None
    ended = [t for t in _withdrawn(results, "search") if t.status in {"finished", "diverged"}]
    same = [*winner, *(t for t in ended if t.values == winner[0].values)]
    chosen = losses_by_seed(same, results.metric)
    kept = [trial.values for trial in results.trials]
    found = []
    for group in groups(t for t in ended if t.values not in kept):
        own = losses_by_seed(group, results.metric)
        if len(own) < len(group) or budgets([*group, *winner]) != budgets(winner):
            continue
        loss, against = means_on_shared_seeds(own, chosen)
        if loss < against:
            seeds = len(own.keys() & chosen.keys())
            found.append(WithdrawnLower(group[0].values, seeds, loss, against, among=1))
    if not found:
        return None
    return replace(min(found, key=lambda one: one.loss - one.chosen), among=len(found))


def _left_out(results: Results, winner: Sequence[Trial]) -> LeftOut | None:
    """The fresh seeds of the winner that ended and that the space no longer asks for; None if there are none."""
    gone = [
        trial
        for trial in _withdrawn(results, "confirm")
        if winner and trial.values == winner[0].values and trial.status in ENDINGS
    ]
    every = losses_by_seed([*confirming(results), *gone], results.metric)
    return LeftOut(tuple(gone), tuple(every.values())) if gone else None


def _withdrawn(results: Results, role: str) -> list[Trial]:
    """The trials with this role that the space no longer has."""
    return [trial for trial in results.sweep.withdrawn.values() if trial.role == role]


def every_run(results: Results) -> list[Trial]:
    """The trials that answer the question of a search, the fresh seeds of its choice, and repeats of runs."""
    repeats = [trial for trial in results.sweep.trials.values() if trial.role == "repeat"]
    return [*results.trials, *confirming(results), *repeats]


def _caveats(results: Results, choice: Choice | None) -> Iterator[Caveat]:
    if results.budgets_differ:
        yield "budgets differ"
    if results.context_lengths is not None:
        yield "context lengths"
    seeds = max(map(len, groups(results.trials)), default=0)
    unfinished = results.having("unfinished")
    has_losses = results.having("finished") or any(trial.curve for trial in unfinished)
    if seeds == 1 and has_losses and (choice is None or choice.seeds == 1):
        yield "one seed"
    fresh = {status_of(trial) for trial in confirming(results)}
    if fresh & {"diverged", "failed"}:
        yield "lost"
    if "unfinished" in fresh:
        yield "confirming"
    if steered_words(every_run(results), "trial"):
        yield "steered"
    if unfinished and not results.is_over:
        yield "unfinished"
