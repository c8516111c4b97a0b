"""Policies over recorded learning curves, in virtual time.

    python -m sweeps.replay CURVES.csv --policy asha --workers 8 --repeats 200
    python -m sweeps.replay CURVES.csv --compare

The policy is the very class that runs a sweep; workers, trials and the clock are simulated, so
that a sweep of any size can be planned, and a policy judged on curves whose ends are known.
"""

import heapq
import json
import math
import random
import statistics
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from sweeps import text as words
from sweeps.policies import SCHEDULES, Policy, Promotion, Schedule, Stop
from sweeps.simulate.curves import SCORE, Curve, reaches, read_curves
from tinylm.config import ConfigError, did_you_mean, problems

_CONFIDENCE = 0.95


# One replay ----------------------------------------------------------------------------------------


@dataclass
class ReplayResult:
    """What became of the trials of one replay."""

    workers: int
    tokens: int = 0  # trained
    seconds: float = 0.0  # of the virtual clock, from the first start to the last end
    busy: float = 0.0  # seconds in which a worker trained, summed
    finished: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)  # tokens of every trial


@dataclass
class _ReplayTrial:
    """A trial between its start and its end."""

    curve: Curve
    record: int = 0  # how many of its records the policy has seen
    tokens: int = 0
    seconds: float = 0.0


class _Replay:
    """The virtual machine: workers that train recorded trials for a policy."""

    def __init__(
        self, curves: Sequence[Curve], policy: Policy, workers: int, branch: float
    ) -> None:
        self._policy = policy
        self._branch = branch
        self._runs = {curve.trial: _ReplayTrial(curve) for curve in curves}
        self._waiting = [curve.trial for curve in reversed(curves)]
        self._free = workers
        self._now = 0.0
        # (time, number, trial) of every attempt under way: when it gets to its next stop.
        self._due: list[tuple[float, int, str]] = []
        self._pushed = 0
        self.result = ReplayResult(workers)

    def run(self) -> ReplayResult:
        """Train until nothing is left to do."""
        self._policy.observe({"kind": "session"})
        for trial in self._runs:
            self._policy.observe({"kind": "planned", "trial": trial})
        self._fill()
        while self._due:
            self._now, _, trial = heapq.heappop(self._due)
            if not self._arrive(self._runs[trial]):
                self._free += 1
            self._fill()
        self.result.seconds = self._now
        self.result.reached = {trial: run.tokens for trial, run in self._runs.items()}
        return self.result

    def _fill(self) -> None:
        """Give every free worker something to do, in the order in which the driver does."""
        while self._free:
            promotion = self._policy.promotion(idle=False)
            if promotion is None and not self._waiting:
                promotion = self._policy.promotion(idle=True)
            if promotion is not None:
                self._observe("promoted", **promotion.fields())
                trial = promotion.trial
            elif self._waiting:
                trial = self._waiting.pop()
            else:
                return
            self._free -= 1
            self._observe("started", trial=trial)
            self._depart(self._runs[trial])

    def _observe(self, kind: str, **fields: Any) -> None:
        self._policy.observe({"kind": kind, **fields})

    def _next_stop(self, run: _ReplayTrial) -> tuple[int, float]:
        """Tokens and seconds of the next rung of a trial, or of its end."""
        curve = run.curve
        rung = next((tokens for tokens in self._policy.rungs if tokens > run.tokens), None)
        if rung is None or rung >= curve.tokens[-1]:
            return curve.tokens[-1], curve.seconds[-1]
        after = next(i for i in range(run.record, len(curve.tokens)) if curve.tokens[i] >= rung)
        if after == 0:
            return rung, curve.seconds[0] * rung / curve.tokens[0]
        low, high = curve.tokens[after - 1], curve.tokens[after]
        share = (rung - low) / (high - low)
        return rung, curve.seconds[after - 1] * (1 - share) + curve.seconds[after] * share

    def _depart(self, run: _ReplayTrial) -> None:
        tokens, seconds = self._next_stop(run)
        if tokens < run.curve.tokens[-1]:  # a rung, and the branch there at the speed so far
            seconds += seconds * self._branch
        self._pushed += 1
        due = self._now + seconds - run.seconds
        heapq.heappush(self._due, (due, self._pushed, run.curve.trial))

    def _arrive(self, run: _ReplayTrial) -> bool:
        """A trial is at its next stop; whether it goes on from there."""
        tokens, seconds = self._next_stop(run)
        self.result.tokens += tokens - run.tokens
        self.result.busy += seconds - run.seconds
        run.tokens, run.seconds = tokens, seconds
        curve, trial = run.curve, run.curve.trial
        while run.record < len(curve.tokens) and curve.tokens[run.record] <= tokens:
            at, score = curve.tokens[run.record], curve.scores[run.record]
            run.record += 1
            if not math.isfinite(score):
                self.result.diverged.append(trial)
                self._observe("diverged", trial=trial, tokens=at)
                return False
            if at < tokens or at == curve.tokens[-1]:
                self._observe("measured", trial=trial, tokens=at, **{SCORE: score})
        if tokens == curve.tokens[-1]:
            self.result.finished.append(trial)
            self._observe("finished", trial=trial, tokens=tokens)
            return False
        score = curve.scores[run.record - 1]  # the last, where the rung lies between two records
        if self._branch:
            score = curve.decayed.get(tokens, score)
            self.result.tokens += round(self._branch * tokens)
            self.result.busy += self._branch * seconds
        self._observe("measured", trial=trial, tokens=tokens, **{SCORE: score})
        decision = self._policy.decide(trial, tokens)
        if decision == "pause":
            self._observe("paused", trial=trial, rung=tokens, score=score)
            return False
        if isinstance(decision, Stop):
            self._observe("stopped", trial=trial, **decision.fields())
            return False
        if isinstance(decision, Promotion):
            self._observe("promoted", **decision.fields())
        self._depart(run)
        return True


def replay(
    curves: Sequence[Curve], policy: Policy, workers: int, branch: float = 0.0
) -> ReplayResult:
    """What becomes of the trials when they are planned in this order under a new policy.

    With a branch, every arrival at a rung costs that share of the tokens so far once more, and is
    scored by the curve's decayed score where it has one.
    """
    return _Replay(curves, policy, workers, branch).run()


# Many replays ----------------------------------------------------------------------------------------


def rounded_rungs(schedule: Schedule, budget: int) -> tuple[int, ...]:
    """The schedule's rungs in tokens of a budget."""
    return tuple(round(share * budget) for share in schedule.shares())


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean of what can't be below 0, and its 95% t interval, which a single value has not."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    from scipy import stats

    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1)) * error
    return {"mean": mean, "low": max(0.0, mean - half), "high": mean + half}


def arrivals(curves: Sequence[Curve], repeats: int, seed: int) -> list[list[Curve]]:
    """The curves in so many random orders."""
    return [
        random.Random(f"{seed} {number}").sample(list(curves), len(curves))  # noqa: S311 no secret
        for number in range(repeats)
    ]


def _chosen(alive: Sequence[Curve], result: ReplayResult) -> Curve:
    """The trial that a replay ends with: of those that came furthest, the best there."""

    def standing(curve: Curve) -> tuple[int, float]:
        reached = result.reached[curve.trial]
        at = bisect_right(curve.tokens, reached) - 1
        return -reached, curve.scores[at] if at >= 0 else math.inf

    finished = [curve for curve in alive if curve.trial in set(result.finished)]
    if finished:
        return min(finished, key=lambda curve: curve.final)
    return min(alive, key=standing)


def judge(curves: Sequence[Curve], replays: Iterable[ReplayResult], top: int) -> dict[str, Any]:
    """What replays of the same curves cost and found, averaged.

    `regret` (mean, low, high: 95% interval) is the final score of the chosen trial, less the best in
    the pool; the chosen is the best that finished or, where none did, the best at the last rung
    that any reached; `best_kept` the share of replays that finished the best; `cost` tokens as
    a share of all curves; `wall_clock` in seconds; `utilisation` the share of the workers' time in
    which they trained; `false_kills` the share of the trials that were stopped whose final score
    is among the best `top` of the pool, finished ones before equal others; `finished` trials;
    `chosen` how often which trial won; `short` curves that end before the longest and do not diverge, whose last scores stand for final
    ones.
    """
    ranked = sorted(
        (curve for curve in curves if not curve.diverged), key=lambda curve: curve.final
    )
    best = {curve.trial for curve in ranked if curve.final == ranked[0].final}
    full = sum(curve.tokens[-1] for curve in curves)
    budget = max(curve.tokens[-1] for curve in curves)
    labels = Counter(curve.label for curve in curves)
    results = list(replays)
    regrets, false_kills, chosen = [], [], Counter[str]()
    for result in results:
        finished = set(result.finished)
        winner = _chosen([curve for curve in curves if curve.trial not in result.diverged], result)
        chosen[winner.label if labels[winner.label] == 1 else winner.trial] += 1
        regrets.append(winner.final - ranked[0].final)
        good = sorted(ranked, key=lambda curve: (curve.final, curve.trial not in finished))[:top]
        killed = len(curves) - len(finished) - len(result.diverged)
        lost = sum(curve.trial not in finished for curve in good)
        false_kills.append(lost / killed if killed else 0.0)
    return {
        "regret": _interval(regrets),
        "best_kept": statistics.fmean(bool(best & set(result.finished)) for result in results),
        "cost": statistics.fmean(result.tokens / full for result in results),
        "wall_clock": statistics.fmean(result.seconds for result in results),
        "utilisation": statistics.fmean(
            result.busy / (result.workers * result.seconds) for result in results
        ),
        "false_kills": statistics.fmean(false_kills),
        "finished": statistics.fmean(len(result.finished) for result in results),
        "chosen": dict(chosen.most_common()),
        "short": sum(1 for curve in ranked if curve.tokens[-1] < budget),
    }


def check_reach(curves: Sequence[Curve], schedule: Schedule, budget: int, source: str) -> None:
    """`ConfigError` where a trial has no score at the first rung and did not diverge before, or
    where the scores are decayed ones and a rung has none."""
    rungs = rounded_rungs(schedule, budget)
    if not rungs:
        return
    missed = [curve for curve in curves if not reaches(curve, rungs[0])]
    if len(missed) == len(curves):  # the fault is the rung's
        first, last = min(c.tokens[0] for c in curves), max(c.tokens[-1] for c in curves)
        raise ConfigError(
            [
                f"{source}: no trial has a score at the first rung, {rungs[0]} of {budget} tokens; "
                f"their rows are from {first} to {last} tokens"
            ]
        )
    wrong = [
        f"{source}: trial {curve.trial} has no score at the first rung, {rungs[0]} tokens: its rows "
        f"are from {curve.tokens[0]} to {curve.tokens[-1]} tokens"
        for curve in missed
    ]
    for curve in curves if schedule.branch else ():
        bare = [r for r in rungs if r < curve.tokens[-1] and r not in curve.decayed]
        if bare:
            wrong.append(f"{source}: trial {curve.trial} has no decayed score at {bare[0]} tokens")
    if wrong:
        raise ConfigError(wrong)


# The command line ----------------------------------------------------------------------------------------


def settings(name: str, given: Mapping[str, Any]) -> Schedule:
    """The settings of a policy by its name; `ConfigError` for what it does not take."""
    if name not in SCHEDULES:
        near = did_you_mean(name, SCHEDULES)
        raise ConfigError(
            [f"--policy {name}: no such policy; there are {', '.join(SCHEDULES)}{near}"]
        )
    schedule = SCHEDULES[name]
    try:
        return schedule.model_validate({"policy": name, **given})
    except ValidationError as error:
        raise ConfigError(problems(error, f"--policy {name}", schedule.model_fields)) from error


def fitting(name: str, given: Mapping[str, Any]) -> Schedule:
    """The settings of a policy, made of those given that it takes."""
    schedule = SCHEDULES[name]
    raw = get_args(schedule.model_fields["score"].annotation) == ("raw",)
    names = set(schedule.model_fields) - ({"score"} if raw else set())
    return settings(name, {key: value for key, value in given.items() if key in names})


def print_table(found: Mapping[str, dict[str, Any]], timed: bool, console: Console) -> None:
    """Print what each policy costs and finds, the cheapest first; untimed curves take tokens."""
    time = words.duration if timed else words.count
    table = Table("policy", box=None, pad_edge=False)
    names = ("cost", "regret", "95% interval", "best kept", "false kills", "finished")
    for name in (*names, "wall-clock" if timed else "wall-clock (tokens)", "busy"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in sorted(found.items(), key=lambda item: item[1]["cost"]):
        regret = result["regret"]
        known = regret["low"] is not None
        table.add_row(
            name,
            f"{result['cost']:.1%}",
            words.loss(regret["mean"]),
            f"{regret['low']:.4f} to {regret['high']:.4f}" if known else "",
            f"{result['best_kept']:.0%}",
            f"{result['false_kills']:.1%}",
            f"{result['finished']:.1f}",
            time(result["wall_clock"]),
            f"{result['utilisation']:.0%}",
        )
    console.print(table)


def run(
    curves: Sequence[Curve],
    schedule: Schedule,
    workers: int,
    orders: Sequence[Sequence[Curve]],
    top: int,
) -> dict[str, Any]:
    """`judge` of one replay for each order of the curves."""
    rungs = rounded_rungs(schedule, max(curve.tokens[-1] for curve in curves))
    return judge(
        curves,
        (
            replay(order, schedule.policy_at(rungs, SCORE), workers, float(schedule.branch))
            for order in orders
        ),
        top,
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    path: Annotated[Path, typer.Argument(metavar="CURVES.csv", help="trial, tokens, score, ..")],
    *,
    policy: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(SCHEDULES)}; asha.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Replay and draw all policies.")
    ] = False,
    eta: Annotated[int | None, typer.Option(help="One in eta goes on; 3.")] = None,
    grace: Annotated[
        str | None, typer.Option(help="First rung, a share of the budget; 1/8.")
    ] = None,
    finish: Annotated[int | None, typer.Option(help="Trials that finish at least; 1.")] = None,
    score: Annotated[
        str | None, typer.Option(help="decayed: by the column of that name, branches counted.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials that train at once.")] = 2,
    repeats: Annotated[
        int, typer.Option(min=1, max=100_000, help="Replays, each in another order.")
    ] = 200,
    order: Annotated[
        str, typer.Option(help="random, or given: one replay in the order of the file.")
    ] = "random",
    top: Annotated[
        int | None, typer.Option(min=1, help="A stopped trial among so many best is a false kill.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random orders.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path, typer.Option(help="Where --compare draws cost against regret.")] = Path(
        "replay.svg"
    ),
) -> None:
    """Replay a policy of early stopping over recorded curves."""
    given = {
        name: value
        for name, value in {
            "eta": eta,
            "grace": grace,
            "finish": finish,
            "score": score,
        }.items()
        if value is not None
    }
    try:
        if compare and out.suffix not in {".svg", ".png", ".pdf"}:
            raise ConfigError([f"--out {out}: a name that ends in .svg, .png or .pdf is due"])
        if order not in {"random", "given"}:
            raise ConfigError([f"--order: random or given is due, got {order!r}"])
        if compare and policy is not None:
            raise ConfigError([f"--policy {policy}: --compare replays all of them"])
        policy = policy or "asha"
        takes_grace = compare or "grace" in SCHEDULES.get(policy, Schedule).model_fields
        defaults = {"grace": "1/8"} if takes_grace else {}
        chosen = (
            {name: fitting(name, defaults | given) for name in SCHEDULES}
            if compare
            else {policy: settings(policy, defaults | given)}
        )
        curves = read_curves(path)
        budget = max(curve.tokens[-1] for curve in curves)
        for schedule in chosen.values():
            check_reach(curves, schedule, budget, str(path))
    except ConfigError as error:
        typer.echo(error.shown, err=True)
        raise typer.Exit(2) from error
    short = [c for c in curves if c.tokens[-1] < budget and not c.diverged]
    if short:
        typer.echo(
            f"caution: {len(short)} of {len(curves)} curves end before {budget} tokens. Their last "
            "scores stand for final ones: cost and regret mean little",
            err=True,
        )
    orders = [curves] if order == "given" else arrivals(curves, repeats, seed)
    best = top or finish or 1
    found = {name: run(curves, one, workers, orders, best) for name, one in chosen.items()}
    if as_json:
        print(json.dumps(found if compare else found[policy or "asha"], indent=1))
    else:
        timed = any(curve.seconds != curve.tokens for curve in curves)
        print_table(found, timed, Console() if sys.stdout.isatty() else Console(width=160))
    if compare:
        from sweeps import ledger
        from sweeps.report import plots

        try:
            drawn = plots.cost_against_regret(found, out.suffix.removeprefix("."))
            ledger.write_whole(out, drawn)
        except OSError as error:
            typer.echo(f"{out}: can't be written: {error.strerror or error}", err=True)
            raise typer.Exit(7) from error
        typer.echo(out, err=as_json)


if __name__ == "__main__":
    app()
