"""What arms are worth in tokens and in time, in sentences and tables."""

import math
from collections.abc import Iterator

from sweeps.findings.arms import ArmFindings, ArmSpeedup
from sweeps.findings.comparison import ArmsComparison
from sweeps.findings.results import METRICS, Results, back_words, steered_words
from sweeps.findings.speedup import Horizon, Speedups
from sweeps.report.markdown import Column, listed, table
from sweeps.stats import Scaling, Speedup
from sweeps.text import duration, joined, loss, named, quantity, sentence, show, signed, whole

_ENDS = 1e-9  # how near to a horizon a number is a bound


def _bound(number: float, known: Scaling) -> str:
    """What is said before a speedup that is at an outer horizon: there it is a bound."""
    if number <= known.law.low + _ENDS:
        return "less than "
    return "more than " if number >= known.law.high - _ENDS else ""


def times_words(number: float, known: Scaling) -> str:
    """A speedup: 1.17x; at an outer horizon it is a bound: less than 0.5x, more than 2x."""
    bound = _bound(number, known)
    return f"{bound}{number:g}x" if bound else f"{number:.2f}x"


def range_words(found: Speedup, known: Scaling) -> str:
    """The interval of a speedup: 1.09x to 1.25x; one bound where all of it is beyond a horizon."""
    low, high = times_words(found.low, known), times_words(found.high, known)
    return low if found.low == found.high else f"{low} to {high}"


def time_words(found: ArmSpeedup, known: Scaling) -> str:
    """The speedup in time, at the speeds of both; empty if these are not known or overlap."""
    if found.time is None:
        return ""
    return f"{_bound(found.tokens.times, known)}{found.time.times:.2f}x"


def _paces(found: ArmSpeedup) -> str:
    """The range of the speeds of runs, as shares of the baseline's: 1.20 to 1.31; empty if it is one number."""
    low, high = (f"{one:.2f}" for one in found.paces or (1.0, 1.0))
    return "" if low == high else f"{low} to {high}"


def _pace_words(found: ArmSpeedup, known: Scaling) -> str:
    """What an arm is worth in training time, as a clause; empty if the speeds are not known."""
    if found.pace is None:
        return ""
    paces = _paces(found)
    if found.speeds_overlap:
        return "at about the baseline's tokens/s" + f" ({paces} times over the runs)" * bool(paces)
    scatter = f" ({paces} over the runs)" * bool(paces)
    pace = f"at {found.pace:.2f} times the baseline's tokens/s{scatter}"
    return f"{pace}, that is a speedup of {time_words(found, known)} in training time"


def speedup_words(arm: ArmFindings, compared: ArmsComparison) -> str:
    """What an arm is worth, as a clause that ends without a period; empty if that is not known.

    What a number means is said only where the verdict is that there is a difference.
    """
    found, known = arm.speedup, compared.scaling
    if found is None or known is None:
        return ""
    tokens = found.tokens
    said = f"{times_words(tokens.times, known)} ({arm.interval_words} {range_words(tokens, known)})"
    if arm.verdict.kind in {"better", "worse"} and not _bound(tokens.times, known):
        said += f": the baseline needs {_needs(tokens.times)} tokens for the same loss"
    in_time = _pace_words(found, known)
    return f"{said}; {in_time}" if in_time else said


def _needs(times: float) -> str:
    """How many tokens it takes to have this many times the tokens: 17% more, 20% fewer, about as many."""
    size = f"{abs(times - 1):.0%}"
    if size == "0%":
        return "about as many"
    return f"{size} {'more' if times > 1 else 'fewer'}"


def speedup_sentences(compared: ArmsComparison, results: Results) -> Iterator[str]:
    """What each arm is worth, why that is not known, and what a reader has to know of it."""
    found = compared.speedups
    for arm in compared.arms:
        if words := speedup_words(arm, compared):
            yield f"Token speedup of {arm.name}: {words}."
    if found is not None and found.why_not:
        yield f"No token speedups: {found.why_not}."
    if found is not None:
        yield from _cautions(found, results)


def _cautions(found: Speedups, results: Results) -> Iterator[str]:
    """What a reader of speedups, or of the reason why there are none, has to know."""
    if found.scaling is not None:
        yield from _cautions_of_law(found)
    if found.may_need_tuning:
        yield _tuning_words(found)
    yield from _steered(found, results)


def _tuning_words(found: Speedups) -> str:
    """That a loss may not fall with the tokens because the learning rate was not tuned at the baseline's own."""
    own = next(one.rate for one in found.horizons if not one.rates)
    others = joined([f"{show(h.rate)} at {h.share:g} times" for h in found.horizons if h.rates])
    return (
        f"The baseline's learning rate was tuned at the other numbers of tokens ({others}), but not at its own "
        f"({show(own)}), which may be why. Add `optim.lr` under `retune`."
    )


def _steered(found: Speedups, results: Results) -> Iterator[str]:
    """What somebody stopped at other numbers of tokens, and how to train it after all."""
    outer = [one for one in found.horizons if one.rates]
    for one in outer:
        side = "above" if one.share > 1 else "below"
        for noun, trials in (("learning rate", one.rates), ("run", one.runs)):
            if words := steered_words(trials, noun, " of the baseline"):
                better = (
                    f" If a better one is among them, the token speedups {side} 1x are too high."
                )
                is_rate = found.scaling is not None and trials is one.rates
                yield f"At {one.share:g} times the tokens, {words}.{better * is_rate}"
    if words := back_words(results, [run for one in outer for run in (*one.rates, *one.runs)]):
        yield sentence(words)


def _cautions_of_law(found: Speedups) -> Iterator[str]:
    """What a reader of speedups has to know of how they were found."""
    if not found.is_tuned:
        yield (
            "The baseline's learning rate was tuned at the other numbers of tokens, but not at its own, so the token "
            "speedups may be off. Add `optim.lr` under `retune`."
        )
    for one in found.horizons:
        side = "above" if one.share > 1 else "below"
        if one.failed:
            yield (
                f"At {one.share:g} times the tokens, {one.failed} of {len(one.rates)} learning rates of the baseline "
                f"failed. If a better one is among them, the token speedups {side} 1x are too high."
            )
        if one.edge is not None:
            further = "lower" if one.edge == "lowest" else "higher"
            yield (
                f"At {one.share:g} times the tokens, the baseline's best learning rate is the {one.edge} of "
                f"{len(one.tried)}. If an even {further} one is better, the token speedups {side} 1x are too high."
            )


_TICKS = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 3.0, 4.0, 6.0, 10.0,
)  # fmt: skip


def ticks(compared: ArmsComparison, low: float, high: float) -> list[tuple[float, str]]:
    """Where speedups stand on an axis of differences with these ends, and their names; none if they are not
    known. Those that would be too close to another are left out, beginning with the ones far from 1x."""
    known = compared.scaling
    if known is None:
        return []
    law, kept = known.law, list[tuple[float, str]]()
    shares = {law.low, law.high, *(share for share in _TICKS if law.low < share < law.high)}
    for share in sorted(shares, key=lambda share: abs(math.log(share))):
        at = law.difference(share)
        if low <= at <= high and all(abs(at - other) >= (high - low) / 12 for other, _ in kept):
            kept.append((at, f"{share:g}x"))
    return sorted(kept)


def target_words(arm: ArmFindings, results: Results) -> str:
    """What the runs of an arm took to the target, beside the baseline's; empty without a target."""
    found, target = arm.to_target, results.space.target
    if found is None or target is None or not found.runs:
        return ""
    goal = f"{METRICS[target.metric]} {target.limit:g}"
    if found.steps is None or found.tokens is None or found.seconds is None:
        return f"none of {quantity(found.runs, 'run')} reached {goal}"
    some = "" if found.reached == found.runs else f"{found.reached} of {found.runs} runs reached "
    some = some or "reached "
    said = (
        f"{some}{goal} after {whole(found.steps)} steps, {whole(found.tokens)} tokens and "
        f"{duration(found.seconds)} of training"
    )
    if found.times_tokens is None or found.times_seconds is None or arm.runs.is_baseline:
        return said
    return (
        f"{said}; over {quantity(found.shared, 'seed')} on which both did, the baseline took "
        f"{found.times_tokens:.2f} times the tokens and "
        f"{found.times_seconds:.2f} times the time"
    )


def target_sentences(compared: ArmsComparison, results: Results) -> Iterator[str]:
    """What each arm took to the target."""
    for arm in compared.arms:
        if words := target_words(arm, results):
            yield f"{arm.name}: {words}."


def speedup_section(compared: ArmsComparison, results: Results) -> list[str]:
    """The section of the summary on what arms are worth; empty if nobody asked."""
    found = compared.speedups
    if found is None:
        return _target_section(compared, results)
    lines = ["## Token speedup", ""]
    if found.scaling is None:
        lines += [sentence(f"not known: {found.why_not}"), ""]
    else:
        lines += [_how(found, found.scaling), ""]
        lines += table([arm for arm in compared.arms if arm.speedup], *_arms(found.scaling))
    lines += [_HORIZONS, "", *table(found.horizons, *_OF_HORIZON)]
    lines += listed(list(_cautions(found, results)))
    return [*lines, *_target_section(compared, results)]


_HORIZONS = (
    "The baseline by its tokens, with a whole schedule for each number of them, at the best of the learning rates "
    "that were tried on the seed of re-tune grids:"
)


def _target_section(compared: ArmsComparison, results: Results) -> list[str]:
    lines = [
        f"`{arm.name}`: {words}." for arm in compared.arms if (words := target_words(arm, results))
    ]
    told = "## Steps and time to the target"
    return (
        [told, "", "Each run at its first record at or below it.", "", *listed(lines)]
        if lines
        else []
    )


def _how(found: Speedups, known: Scaling) -> str:
    """What the numbers mean, the law behind them, and how a simpler one fares."""
    law, straight = known.law, found.straight
    assert straight is not None  # where there is a law
    misses = "within the noise" if straight.fits else "more than the noise, so the curve bends"
    return (
        "The speedup says how many times its tokens the baseline needs to reach the loss of an arm. The baseline's loss "
        "with D tokens is taken as E + A D^-b. The curve through its losses at "
        f"{law.low:g}, 1 and {law.high:g} times the tokens, on {quantity(known.seeds, 'seed')}, has b = "
        f"{law.exponent:.2f}. Beyond these numbers of tokens there are only bounds. The interval allows for the noise of "
        "the difference and of the baseline's losses, and for a law that holds only roughly. From one of these losses to "
        f"the next, the drop varies over seeds by {known.spread:.0%} of its size. As a check, a law without E through the "
        f"outer two losses predicts {loss(straight.predicted)} in the middle. The measured loss differs from that by "
        f"{signed(straight.miss)} (95% interval {signed(straight.low)} to {signed(straight.high)}). That is {misses}. The "
        "speedup in time is the speedup times the arm's tokens/s, divided by the baseline's tokens/s. These are as measured, "
        "with the range over the runs where they scatter; where they overlap with the baseline's, no speedup in time is "
        "told."
    )


def _pace_cell(found: ArmSpeedup) -> str:
    """The speed as a share of the baseline's, with the range over the runs."""
    if found.pace is None:
        return ""
    return f"{found.pace:.2f}x" + (f" ({paces})" if (paces := _paces(found)) else "")


def _arms(known: Scaling) -> tuple[Column[ArmFindings], ...]:
    def of(arm: ArmFindings) -> ArmSpeedup:
        assert arm.speedup is not None  # only such arms are in the table
        return arm.speedup

    return (
        Column("arm", lambda a: f"`{a.name}`", is_text=True),
        Column("speedup", lambda a: times_words(of(a).tokens.times, known)),
        Column("interval", lambda a: f"{range_words(of(a).tokens, known)} ({a.interval_words})"),
        Column("tokens/s", lambda a: _pace_cell(of(a))),
        Column("in time", lambda a: time_words(of(a), known)),
    )


_OF_HORIZON = (
    Column[Horizon]("tokens", lambda h: whole(h.tokens)),
    Column[Horizon]("share", lambda h: f"{h.share:g}x"),
    Column[Horizon]("runs at", lambda h: named(h.values or {}), True),
    Column[Horizon]("seeds", lambda h: f"{len(h.losses)} of {len(h.runs)}" if h.runs else ""),
    Column[Horizon](
        "mean loss",
        lambda h: loss(sum(h.losses.values()) / len(h.losses)) if h.losses else "",
    ),
)
