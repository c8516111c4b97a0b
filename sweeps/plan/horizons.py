"""The trials of the baseline at other numbers of tokens, which say what an arm is worth in tokens.

Each horizon has its own whole schedule and its own learning rate, since the best rate moves with the horizon: a
baseline that is not tuned there would flatter the arms. Three rates are trained on the seed of re-tune grids, so that
no loss is one that chose its own rate. The best of them is then trained on seeds of the study. The baseline's own runs
are the horizon in the middle.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sweeps import ledger as led
from sweeps.plan import arms
from sweeps.plan.arms import PlannedArm
from sweeps.plan.domains import Value
from sweeps.plan.request import PlannedTrial, Request, label_of
from sweeps.plan.sections import BUDGET
from sweeps.text import show
from tinylm.config import ConfigError


@dataclass(frozen=True)
class Choice:
    """What is settled of a horizon: the fields of its row, and the trials that follow."""

    fields: dict[str, Any]
    runs: list[PlannedTrial]


LR = "optim.lr"
# Of the baseline's rate. A re-tune grid usually goes in steps of 2, so the baseline is tuned as closely at the other
# horizons as at its own; the best rate moves by less than a step where the tokens double.
FACTORS = (0.5, 1.0, 2.0)
_ENDED = {"finished", "diverged", "failed", "stopped"}


def horizons(request: Request) -> tuple[int, ...]:
    """The horizons in tokens, without the baseline's own; none if the space asks for no speedup."""
    asked = request.space.speedup
    budget = request.base.budget.tokens
    shares = () if asked is None else asked.horizons
    return tuple(int(Fraction(str(share)) * budget) for share in shares)


def check(request: Request, baseline: PlannedArm) -> None:
    """Raise `ConfigError` if the baseline can't be trained at a horizon, whatever its re-tune grid chooses."""
    base, asked = request.base, request.space.speedup
    if asked is None:
        return
    if base.budget.seconds is not None:
        problem = f"needs a budget of tokens, but budget.seconds is {base.budget.seconds:g}"
        raise ConfigError([f"{request.source}: speedup: {problem}"])
    every, wrong = base.eval.every_tokens, []
    for share in asked.horizons:
        exact = Fraction(str(share)) * base.budget.tokens
        if exact % every:
            wrong.append(
                f"{request.source}: speedup.horizons: no record falls on the end of {share:g} times the "
                f"{base.budget.tokens} tokens: {float(exact):g} is not a multiple of eval.every_tokens, {every}"
            )
    if wrong:
        raise ConfigError(wrong)
    choices = [one.values for one in arms.tuning(request, baseline)] or [{}]
    for values in choices:
        for tokens in horizons(request):
            rates(request, baseline, values, tokens)


def rates(
    request: Request, baseline: PlannedArm, values: Mapping[str, Value], tokens: int
) -> list[PlannedTrial]:
    """The trials at a horizon that choose its learning rate, around the one of the baseline's values."""
    own = values.get(LR, request.flat[LR])
    assert isinstance(own, int | float)  # a config has no other rate
    tried = [{**values, LR: factor * own} for factor in FACTORS]
    return [
        _trial(request, baseline, one, tokens, request.tuning_seed, f"lr={show(one[LR])}")
        for one in tried
    ]


def runs(
    request: Request, baseline: PlannedArm, values: Mapping[str, Value], tokens: int
) -> list[PlannedTrial]:
    """The trials at a horizon on seeds of the study, at the values of its best rate."""
    asked = request.space.speedup
    assert asked is not None  # there are horizons
    seeds = request.seeds[: asked.seeds]
    label = label_of(values)
    return [
        _trial(request, baseline, values, tokens, seed, f"{label} seed={seed}") for seed in seeds
    ]


def likely(request: Request, baseline: PlannedArm) -> Iterator[PlannedTrial]:
    """The trials at all horizons, as if every choice were the base config's own."""
    values = {LR: request.flat[LR]}
    for tokens in horizons(request):
        yield from rates(request, baseline, values, tokens)
        yield from runs(request, baseline, values, tokens)


def found(
    request: Request, baseline: PlannedArm, chosen: led.Row, sweep: led.Sweep
) -> Iterator[Choice]:
    """What is settled of each horizon, given the row of the baseline's values: first its three rates, and once they
    have ended, the best of them and its runs."""
    values, metric = chosen["values"], request.space.metric
    for tokens in horizons(request) if values is not None else ():
        tried = rates(request, baseline, values, tokens)
        ids, known = [one.trial for one in tried], sweep.horizons.get(tokens)
        ended = [one for one in ids if one in sweep.trials and sweep.trials[one].status in _ENDED]
        if len(ended) < len(ids) and known is not None and known["rates"] == ids:
            continue  # they are going
        finished = [one for one in map(sweep.find, ended) if one.status == "finished"]
        is_chosen = len(ended) == len(ids) and bool(finished)
        best = min(finished, key=lambda one: float(one.curve[-1][metric])) if is_chosen else None
        own = None if best is None else _without_budget(best.values)
        planned = tried if own is None else runs(request, baseline, own, tokens)
        fields = {
            "tokens": tokens,
            "rates": ids,
            "values": own,
            "failed": sum(sweep.trials[one].status == "failed" for one in ended),
            "trials": {}
            if own is None
            else {str(one.config.run.seed): one.trial for one in planned},
        }
        yield Choice(fields, planned)


def _without_budget(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values of a trial that are no horizon."""
    return {path: value for path, value in values.items() if path != BUDGET}


def wanted(request: Request, baseline: PlannedArm, sweep: led.Sweep) -> Iterator[str]:
    """The trials that horizons may have, at the values that the baseline has now."""
    chosen = sweep.chosen.get(baseline.name)
    if chosen is None or chosen["values"] is None:
        return
    for tokens in horizons(request):
        for one in rates(request, baseline, chosen["values"], tokens):
            yield one.trial
            own = _without_budget(one.values)
            yield from (run.trial for run in runs(request, baseline, own, tokens))


def _trial(
    request: Request,
    baseline: PlannedArm,
    values: Mapping[str, Value],
    tokens: int,
    seed: int,
    label: str,
) -> PlannedTrial:
    """A trial of the baseline with these values at a horizon."""
    varied: dict[str, Value] = {**values, BUDGET: tokens}
    config = request.config({**varied, "run.seed": seed}, "speedup.horizons")
    share = tokens / request.base.budget.tokens
    return PlannedTrial(
        config, varied, f"{baseline.name} {share:g}x {label}", "horizon", baseline.name
    )
