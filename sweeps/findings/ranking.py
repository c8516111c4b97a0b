"""The trials of a search: ranking, stopped and ended trials, spread over seeds, best values,
importance of paths."""

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sweeps.findings.results import Results, SweptPath, TrialResult, status_of, tokens_per_s, varied
from sweeps.findings.stability import LR
from sweeps.ledger import BY_HAND, Row, Trial
from sweeps.outcomes import overfit
from sweeps.plan.sections import CONTEXT
from sweeps.selection import (
    Measured,
    Point,
    at,
    best_record,
    first_at_most,
    groups,
    last_record,
    losses_at,
    predicts,
    same_point,
)
from tinylm import config as cfg

Side = Literal["low", "high"]
# A value closer to a bound than this share of the sampled range is at its edge.
EDGE_SHARE = 0.05
# Values above these are not advised, although a config may have them.
HIGHEST = {LR: 1.0, "optim.weight_decay": 3.0, "model.dropout": 0.5}
# A logarithmic range is widened at most by this factor, and values around the best one are that far apart.
_FACTORS = (2.0, 4.0)


@dataclass(frozen=True)
class Ranked(TrialResult):
    """A trial compared with others at one point."""

    rank: int  # equal losses share a rank
    behind: float  # loss less the best one

    @property
    def best(self) -> Measured | None:
        """The trial's record with the lowest validation loss."""
        return best_record(self.trial)

    @property
    def tokens_per_s(self) -> float | None:
        """Training tokens per second over the whole run."""
        return tokens_per_s(self.trial)

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {"rank": self.rank, "behind": self.behind, **super().as_json()}


@dataclass(frozen=True)
class Ranking:
    """Trials at the point of their comparison, best first."""

    point: Point | None  # None if they share none
    trial_results: tuple[Ranked, ...]

    @property
    def leader(self) -> Trial | None:
        """The best trial; None if there is none."""
        return self.trial_results[0].trial if self.trial_results else None

    def as_json(self, *, of_finished: bool) -> Row:
        """The fields of summary.json; finished trials have more fields."""
        trial_results = [
            {
                **result.as_json(),
                "val_loss_best": result.best and result.best.val_loss,
                "step_best": result.best and result.best.step,
                "tokens_per_s": result.tokens_per_s,
            }
            if of_finished
            else result.as_json()
            for result in self.trial_results
        ]
        return {"tokens": self.point, "trials": trial_results}


def ranked(results: Results, trials: Iterable[Trial], point: Point | None) -> Ranking:
    """The trials measured at the point, best first, with rank and distance from the best."""
    measured = [(trial, record) for trial in trials if (record := at(trial, point)) is not None]
    measured.sort(key=lambda pair: pair[1].loss(results.metric))
    losses = [record.loss(results.metric) for _, record in measured]
    trial_results = [
        Ranked(trial, record, 1 + bisect_left(losses, loss), loss - losses[0])
        for (trial, record), loss in zip(measured, losses, strict=True)
    ]
    return Ranking(point, tuple(trial_results))


def ranking(results: Results) -> Ranking:
    """The finished trials at the point of their comparison, best first. Where the target ends trials,
    those that reached it come first, the one of the fewest tokens leading."""
    by_loss = ranked(results, results.having("finished"), results.final)
    target = results.space.target
    if target is None or not results.to_target:
        return by_loss

    def key(one: Ranked) -> tuple[float, float]:
        record = first_at_most(one.trial, target.metric, target.limit)
        return (record.tokens, 0.0) if record is not None else (math.inf, one.behind)

    order = sorted(by_loss.trial_results, key=key)
    keys = [key(one) for one in order]
    trial_results = (replace(one, rank=1 + bisect_left(keys, key(one))) for one in order)
    return Ranking(by_loss.point, tuple(trial_results))


@dataclass(frozen=True)
class RankedValue:
    """A value with finished trials, compared with others by their mean at one point."""

    rank: int
    trials: tuple[Trial, ...]  # that finished, one per seed
    planned: int  # trials that were begun
    losses: tuple[float, ...]
    behind: float  # the mean less that of the best

    @property
    def values(self) -> dict[str, Any]:
        """What its trials share."""
        return self.trials[0].values

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses)

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None for one seed."""
        return statistics.stdev(self.losses) if len(self.losses) > 1 else None


def ranked_values(results: Results) -> tuple[RankedValue, ...]:
    """The values by the mean over their finished seeds, best first, after those with the most seeds the
    others; none where no value has several trials, or where trials end at a target."""
    planned = groups(results.trials)
    if results.to_target or max(map(len, planned), default=0) < 2:
        return ()
    number = {trial.trial: len(group) for group in planned for trial in group}
    found = []
    for group in groups(t for t in results.having("finished") if t.role == "search"):
        losses = losses_at(group, results.final, results.metric)
        if losses:
            found.append((group, losses))
    most = max((len(losses) for _, losses in found), default=0)
    found.sort(key=lambda pair: (len(pair[1]) < most, statistics.fmean(pair[1])))
    return tuple(
        RankedValue(
            rank,
            tuple(group),
            number[group[0].trial],
            tuple(losses),
            statistics.fmean(losses) - statistics.fmean(found[0][1]),
        )
        for rank, (group, losses) in enumerate(found, start=1)
    )


@dataclass(frozen=True)
class Stopped(TrialResult):
    """A trial that was stopped early, compared with the leader as far in its schedule."""

    leader: float | None  # loss of the leader
    decayed: float | None  # loss after a decay branch, which the policy compared
    leader_decayed: float | None

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            **super().as_json(),
            "leader": self.leader,
            "decayed": self.decayed,
            "leader_decayed": self.leader_decayed,
        }


def stopped(results: Results, leader: Trial | None) -> tuple[Stopped, ...]:
    """The trials that were stopped early, the longest first, each beside the leader at the same tokens
    or, if its budget is another one, at the same share of its budget."""
    trial_results = []
    for trial in results.having("stopped"):
        record = last_record(trial)
        beside = None
        if leader is not None and record is not None:
            beside = at(leader, same_point(trial, record.tokens, leader))
        trial_results.append(
            Stopped(
                trial,
                record,
                beside and beside.loss(results.metric),
                record and record.decayed(results.metric),
                beside and beside.decayed(results.metric),
            )
        )

    def order(result: Stopped) -> tuple[int, float]:
        record = result.record
        return (-record.tokens, record.loss(results.metric)) if record is not None else (0, 0.0)

    return tuple(sorted(trial_results, key=order))


@dataclass(frozen=True)
class Ended(TrialResult):
    """A trial at its last record, and the last step that it is known to have reached."""

    @property
    def reached_step(self) -> int | None:
        """The last step that the trial is known to have reached."""
        return self.trial.step or None

    @property
    def reached_tokens(self) -> int | None:
        """Tokens at that step."""
        return self.trial.tokens or None

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            **super().as_json(),
            "reached_step": self.reached_step,
            "reached_tokens": self.reached_tokens,
        }


def ended(results: Results, status: str) -> tuple[Ended, ...]:
    """The trials with this status, in plan order."""
    return tuple(Ended(trial, last_record(trial)) for trial in results.having(status))


def withdrawn(results: Results) -> tuple[Ended, ...]:
    """The trials that the space no longer has, in the order in which they were withdrawn."""
    gone = results.sweep.withdrawn.values()
    return tuple(Ended(trial, last_record(trial)) for trial in gone if trial.role != "audit")


@dataclass(frozen=True)
class Spread:
    """The losses of one choice of values over its seeds, at the common token count."""

    values: dict[str, Any]
    planned: int
    n: int
    mean: float | None
    std: float | None  # sample standard deviation; None for one seed
    min: float | None
    max: float | None
    finished: int
    finished_mean: float | None  # at the final token count

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


def spread(results: Results) -> tuple[Spread, ...]:
    """The losses of each choice of values over its seeds."""
    return tuple(_spread(results, group) for group in groups(results.trials))


def _spread(results: Results, group: Sequence[Trial]) -> Spread:
    losses = losses_at(group, results.common, results.metric)
    finals = final_losses(results, group)
    return Spread(
        values=group[0].values,
        planned=len(group),
        n=len(losses),
        mean=statistics.fmean(losses) if losses else None,
        std=statistics.stdev(losses) if len(losses) > 1 else None,
        min=min(losses, default=None),
        max=max(losses, default=None),
        finished=len(finals),
        finished_mean=statistics.fmean(finals) if finals else None,
    )


def final_losses(results: Results, trials: Iterable[Trial]) -> list[float]:
    """The losses of the finished trials at the final token count."""
    finished = [trial for trial in trials if trial.status == "finished"]
    return losses_at(finished, results.final, results.metric)


@dataclass(frozen=True)
class Neighbor:
    """A value of a list next to the best one, and how its trials ended."""

    value: float
    statuses: tuple[str, ...]  # BY_HAND for those that somebody stopped
    audited: bool  # whether all its stopped trials were audited


@dataclass(frozen=True)
class BestValue:
    """The best value of a numeric path, and whether the tried values bracket it."""

    path: str
    name: str
    best: float
    tried: int
    lowest: float
    highest: float
    edge: Side | None
    used_up: bool  # whether there is no room beyond the edge in the space: of a range, draws came near its bound
    next: tuple[float, ...]  # past the edge: values to add to a list, or the new bound of a range
    beside: tuple[Neighbor, ...]

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return asdict(self)


def _ratio(bounds: tuple[float, float]) -> float:
    """How far apart values of a logarithmic range are tried: a quarter of it, within `_FACTORS`."""
    low, high = bounds
    return min(max((high / low) ** 0.25, _FACTORS[0]), _FACTORS[1])


def _beyond(swept: SweptPath, tried: Sequence[float], side: Side) -> tuple[float, ...]:
    """The new bound of a range, or two values past the edge of a list, spaced like the tried ones; none
    that would cross zero."""
    sign = -1 if side == "low" else 1
    if swept.bounds is not None:
        low, high = swept.bounds
        start = low if side == "low" else high
        # In round numbers: the bounds of a range are.
        new = (
            [float(f"{start * _ratio(swept.bounds) ** sign:.1g}")]
            if swept.log
            else [float(f"{start + sign * (high - low) / 4:.6g}")]
        )
    else:
        start, inner = (tried[0], tried[1]) if side == "low" else (tried[-1], tried[-2])
        ratio = max(start, inner) / min(start, inner) if swept.log else 1.0
        step = abs(start - inner)
        new = [
            start * ratio ** (sign * n) if swept.log else start + sign * n * step for n in (1, 2)
        ]
    whole = all(isinstance(value, int) for value in tried)
    highest = HIGHEST.get(swept.path, math.inf)
    rounded = [round(x) if whole else float(f"{min(x, highest):.4g}") for x in new]
    kept = [x for x in dict.fromkeys(rounded) if x not in tried]
    return tuple(x for x in kept if x > 0) if tried[0] >= 0 else tuple(kept)


def is_sensible(config: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether values are worth trying: a config accepts them, and none is above `HIGHEST`."""
    if any(value > HIGHEST[path] for path, value in values.items() if path in HIGHEST):
        return False
    try:
        cfg.overlay(cfg.validate(dict(config), "config"), values)
    except cfg.ConfigError:
        return False
    return True


def _edge(swept: SweptPath, tried: Sequence[float], best: float) -> Side | None:
    """`low` or `high` if no tried value brackets the best one on that side, else None."""
    if len(tried) < 2:
        return None
    low, high = tried[0], tried[-1]
    return _near_bound(swept, best) or ("low" if best == low else "high" if best == high else None)


def _near_bound(swept: SweptPath, value: float) -> Side | None:
    """The bound of a range that a value is near to; None for none, and of a list."""
    if swept.bounds is None:
        return None
    scale = math.log if swept.log else float
    low, high = map(scale, swept.bounds)
    if scale(value) - low < EDGE_SHARE * (high - low):
        return "low"
    return "high" if high - scale(value) < EDGE_SHARE * (high - low) else None


def _beside(
    results: Results, swept: SweptPath, tried: Sequence[float], best: float
) -> tuple[Neighbor, ...]:
    """The next lower and the next higher value of a list."""
    position = tried.index(best)
    near = [*tried[max(position - 1, 0) : position], *tried[position + 1 : position + 2]]
    return tuple(_neighbor(results, swept.path, value) for value in near)


def _neighbor(results: Results, path: str, value: float) -> Neighbor:
    trials = [trial for trial in results.trials if varied(trial, path) == value]
    early = [trial for trial in trials if trial.status == "stopped"]
    return Neighbor(
        value,
        tuple(sorted({BY_HAND if t.is_stopped_by_hand else status_of(t) for t in trials})),
        all(trial.trial in results.sweep.audit_of for trial in early),
    )


def best_values(results: Results, winner: Sequence[Trial]) -> tuple[BestValue, ...]:
    """The winner's value of each numeric path with several, whether it is at the edge, and what to try.

    The edge is that of all planned values, except those whose trials all failed, or were stopped by hand
    before their first record: a value that diverged or was stopped early brackets the best one, a failed
    one does not. Where the budgets
    differ there are none: a longer run has the lower loss whatever the other values are. Nor is there a
    best context length where the updates of one have more tokens than those of another. The learning
    rate has no edge where trials overfitted: the rate that ends best is the one that learned least. Where
    the target has ended the sweep, the other values were not tried.
    """
    if not winner or results.budgets_differ or results.is_over:
        return ()
    return tuple(
        _best_value(results, swept, winner[0])
        for swept in _comparable(results)
        if swept.numeric and swept.path in winner[0].values
    )


def _comparable(results: Results) -> list[SweptPath]:
    """The paths whose values the losses compare: not a context length with updates of its own size."""
    lengths = results.context_lengths
    confounded = {CONTEXT} if lengths is not None and lengths.updates_differ else set()
    return [swept for swept in results.swept if swept.path not in confounded]


def _best_value(results: Results, swept: SweptPath, winner: Trial) -> BestValue:
    known = [t for t in results.trials if t.status != "failed" and not t.is_untried]
    alive = {varied(t, swept.path) for t in known}
    tried = [value for value in swept.values if value in alive]
    best = winner.value(swept.path)
    learned_least = swept.path == LR and any(overfit(trial) for trial in results.trials)
    side = None if learned_least else _edge(swept, tried, best)
    used_up = side is not None and (swept.bounds is None or side == _near_bound(swept, best))
    further = _beyond(swept, tried, side) if side and used_up else ()
    if swept.path == CONTEXT:  # only longer ones, into which the validation tokens can be cut
        _, block = predicts(winner.config)
        further = tuple(x for x in further if side == "high" and block % x == 0)
    further = tuple(x for x in further if is_sensible(winner.config, {swept.path: x}))
    return BestValue(
        path=swept.path,
        name=swept.name,
        best=best,
        tried=len(tried),
        lowest=tried[0],
        highest=tried[-1],
        edge=side,
        used_up=used_up,
        next=further,
        beside=_beside(results, swept, tried, best) if swept.bounds is None else (),
    )


def lowest_rate(results: Results) -> BestValue | None:
    """The lowest learning rate of a sweep of rates, as its edge; what is below it is to be tried where all
    trials diverged. None for one rate."""
    swept = next((one for one in results.swept if one.path == LR), None)
    if swept is None or len(swept.values) < 2:
        return None
    low, high = swept.values[0], swept.values[-1]
    below = _beyond(swept, swept.values, "low")
    return BestValue(
        LR,
        swept.name,
        low,
        len(swept.values),
        low,
        high,
        "low",
        used_up=True,
        next=below,
        beside=(),
    )


@dataclass(frozen=True)
class NotSettled:
    """A chosen value of one of several paths that varied together, which the runs do not show to be the
    best at the chosen values of the others."""

    path: str
    best: Any
    seeds: int  # of the choice
    others: dict[str, Any]  # the chosen values of the other paths
    values: tuple[Any, ...]  # to compare at those: of a range, around the best


def not_settled(results: Results, winner: Sequence[Trial]) -> tuple[NotSettled, ...]:
    """The paths whose chosen value is not settled, the learning rate last; empty if one path was varied.

    A value is settled if it finished on several seeds, and runs of another value of its path, with all
    other values the same, ended on as many: finished, stopped early or diverged.
    """
    if sum(len(swept.values) > 1 for swept in results.swept) < 2:
        return ()
    if not winner or results.budgets_differ or results.is_over:
        return ()
    chosen = {path: _short(value) for path, value in winner[0].values.items()}
    ended = groups(t for t in results.trials if t.status in {"finished", "stopped", "diverged"})
    found = []
    for swept in _comparable(results):
        if len(swept.values) < 2:
            continue
        others = {path: value for path, value in chosen.items() if path != swept.path}
        alone = [
            group
            for group in ended
            if {p for p, v in group[0].values.items() if winner[0].values.get(p) != v}
            == {swept.path}
        ]
        if len(winner) == 1 or not any(len(group) >= len(winner) for group in alone):
            best = chosen[swept.path]
            domain = results.space.space.get(swept.path)
            values = _around(swept, best, domain.every() if domain is not None else None)
            kept = [x for x in values if is_sensible(winner[0].config, {**others, swept.path: x})]
            found.append(NotSettled(swept.path, best, len(winner), others, tuple(kept)))
    return tuple(sorted(found, key=lambda one: one.path == LR))


def _short(value: Any) -> Any:
    """A value as it is shown: a number that was drawn, with four digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _around(swept: SweptPath, best: Any, every: Iterable[Any] | None) -> list[Any]:
    """The values of a path to compare with the best: those of a list, or five around it in a range, of
    whole numbers as many steps apart as `every` has them."""
    if swept.bounds is None:
        return list(swept.values)
    low, high = swept.bounds
    if swept.log:
        near = [float(f"{best * _ratio(swept.bounds) ** n:.2g}") for n in (-2, -1, 1, 2)]
    else:
        near = [float(f"{best + n * (high - low) / 8:.3g}") for n in (-2, -1, 1, 2)]
        near = [x for x in near if low <= x <= high]
    step = every.step if isinstance(every, range) else 1
    whole = (best + step * round((x - best) / step) for x in near)
    return sorted({best, *(whole if isinstance(best, int) else near)})


@dataclass(frozen=True)
class Importance:
    """How much of the ranking of trials each path explains by itself, at one point."""

    point: Point
    trials: int  # that were measured there
    shares: dict[str, float]  # by path, the highest first; they need not add up to 1


def importance(results: Results) -> Importance | None:
    """How much of the ranking of a joint search each path explains by itself, where all trials were last
    measured, so that early stopping takes none away; None for fewer than ten trials, equal losses or a
    single path.

    For numbers the adjusted R^2 of a parabola through the ranks, for others that of the mean rank of each
    value. Ranks, because one very high loss would outweigh all others; adjusted, because every path
    explains some of a few trials by chance.
    """
    several = [swept for swept in results.swept if len(swept.values) > 1]
    point = results.final if results.common is None else results.common
    whole = [
        (trial, record.loss(results.metric))
        for trial in results.trials
        if trial.status not in {"diverged", "failed"}
        and (record := at(trial, point)) is not None
        and all(swept.path in trial.values for swept in several)
    ]
    if (
        point is None
        or len(several) < 2
        or len(whole) < 10
        or len({loss for _, loss in whole}) == 1
    ):
        return None
    from scipy.stats import rankdata

    rank_N = rankdata([loss for _, loss in whole])
    shares = {
        swept.path: _explained(swept, [trial.value(swept.path) for trial, _ in whole], rank_N)
        for swept in several
    }
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return Importance(point, len(whole), dict(ordered))


def _explained(swept: SweptPath, values: Sequence[Any], rank_N: Any) -> float:
    """The share of the ranks that the values of one path explain, adjusted for chance; at least 0."""
    import numpy as np

    known = list(dict.fromkeys(values))
    if swept.numeric:
        x_N = np.log(values) if swept.log else np.array(values, float)
        x_N = (x_N - x_N.mean()) / (x_N.std() or 1.0)
        design_NP = np.vander(x_N, min(3, len(known)))
    else:
        design_NP = np.array([[value == one for one in known] for value in values], float)
    n, parameters = design_NP.shape
    if n <= parameters:
        return 0.0
    fit_P = np.linalg.lstsq(design_NP, rank_N)[0]
    missed = ((rank_N - design_NP @ fit_P) ** 2).sum() / (n - parameters)
    return max(0.0, float(1 - missed / rank_N.var(ddof=1)))
