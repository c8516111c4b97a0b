"""Factual sentences on the runs of an experiment."""

from collections.abc import Iterator, Sequence

from sweeps.findings.compute import Throughput
from sweeps.findings.everything import SearchFindings
from sweeps.findings.experiments import Experiment
from sweeps.findings.results import status_of
from sweeps.findings.trends import Gap, Slope
from sweeps.ledger import Trial
from sweeps.outcomes import Overfit, outcome
from sweeps.report.answer import ONE_SEED, budgets_words, claim
from sweeps.report.overfitting import passes_of
from sweeps.report.race import race_words
from sweeps.selection import Measured
from sweeps.text import count, loss, quantity, sentence, tally


def observations(one: Experiment) -> Iterator[str]:
    """Factual sentences on smoothness, overfitting, the gap, and problems."""
    found, finished, ends = one.findings, one.finished, one.ends
    if not one.are_alike:
        kinds = tally(outcome(trial) or status_of(trial) for trial in one.runs)
        yield f"None of the {len(one.runs)} trials finished: {kinds}."
        return
    programs = found.results.programs_words(one.runs)
    if programs:
        yield sentence(programs)
    yield from _problems(one)
    if not finished:
        return
    yield _count_of_seeds(finished, ends)
    if isinstance(found, SearchFindings):
        yield from _chosen(found)
        lengths = found.results.context_lengths
        yield from [" ".join(lengths.words)] if lengths is not None else []
    if one.spike is not None:
        yield (
            "After warm-up, the smoothed training loss never rose more than "
            f"{max(0.01, one.spike):.2f} nats above its minimum."
        )
    if one.slope is not None:
        yield _slope(one.slope)
    if one.gap is not None:
        yield _gap(one.gap)
    if one.throughput is not None:
        yield _throughput(one.throughput)
    yield from [race_words(found.race)] if found.race is not None else []
    if isinstance(found, SearchFindings) and found.stopped:
        yield _stopped_early(found)


def _problems(one: Experiment) -> Iterator[str]:
    """Sentences on runs that had a problem or have not finished, and on a text that is read again."""
    for trial in one.runs:
        kind = outcome(trial)
        if kind and kind != "overfitted":
            yield f"Seed {trial.seed}: {kind}" + (f" ({trial.reason})." if trial.reason else ".")
    for overfitted in one.overfitted:
        yield _overfit(overfitted)
    if any((trial.passes or 0.0) > 1 for trial in one.runs):
        yield passes_of(one.runs)
    going = len([trial for trial in one.runs if trial.status not in {"finished", "diverged"}])
    if going:
        yield f"Not finished: {going} of {quantity(len(one.runs), 'run')}."


def _count_of_seeds(finished: Sequence[Trial], ends: Sequence[Measured]) -> str:
    if len(finished) == 1:
        return ONE_SEED
    losses = [end.val_loss for end in ends]
    return (
        f"{len(finished)} seeds: final validation losses from {min(losses):.4f} to "
        f"{max(losses):.4f}."
    )


def _chosen(found: SearchFindings) -> Iterator[str]:
    """Whether a search's best was chosen by the losses shown, and whether the budgets differ."""
    chosen, choice = found.selection, found.answer.choice
    if chosen is None or choice is None or chosen.among < 2:
        return
    it_is = f"It {claim(found.answer, chosen.among)}"
    if choice.is_confirmed:
        yield (
            f"{it_is}, and these losses are from fresh seeds ({loss(choice.searched)} in the search, "
            "which chose it)."
        )
    elif chosen.is_stable:
        yield f"{it_is}, chosen by these losses. Leaving out any one seed gives the same choice."
    elif chosen.optimism is not None:
        yield f"{it_is}, chosen by these losses. Expect new seeds to end {chosen.optimism:.4f} higher."
    else:
        yield f"{it_is}, chosen by this loss, so it won partly by luck; one seed cannot say how much."
    if found.results.budgets_differ:
        yield budgets_words(found.results)


def _slope(slope: Slope) -> str:
    how = "fell" if slope.change < 0 else "rose"
    return (
        f"Over the last {slope.share:.0%} of training, the validation loss {how} by "
        f"{abs(slope.change):.4f} nats."
    )


def _gap(gap: Gap) -> str:
    text = (
        f"At the end, the validation loss is {_above(gap.end)} the training loss (its mean since the "
        "previous record)."
    )
    if gap.best is not None:
        text += f" At the lowest validation loss it was {_above(gap.best)} it."
    if gap.half is not None:
        text += f" Halfway it was {_above(gap.half)} it."
        text += f" The gap {'widens' if gap.widens else 'does not widen'}."
    return text


def _overfit(one: Overfit) -> str:
    """Where the validation loss of an overfitted run was lowest, and how far it rose from there."""
    share = one.best.tokens / one.end.tokens
    return (
        f"Seed {one.trial.seed} overfitted: the validation loss was lowest, {one.best.val_loss:.4f}, at "
        f"{one.best.tokens:,} tokens, {share:.0%} of the run, and rose by {one.rise:.4f} nats from there."
    )


def _throughput(speed: Throughput) -> str:
    """The FLOPs per second of the runs, and their share of the speed of a matrix product."""
    share = (
        f", {speed.share:.0%} of this machine's matmul peak ({count(speed.peak, 'FLOP/s')})"
        if speed.peak is not None
        else ""
    )
    beside = f" Up to {speed.slots} trials ran at once." if speed.slots > 1 else ""
    return f"Each trial ran at {count(speed.flops_per_s, 'FLOP/s')}{share}.{beside}"


def _stopped_early(found: SearchFindings) -> str:
    """How many trials were stopped early, and whether an audit trained any of them to the end."""
    stopped, trials = len(found.stopped), quantity(len(found.results.trials), "trial")
    by_hand = sum(one.trial.is_stopped_by_hand for one in found.stopped)
    who = f", {by_hand} of them by hand" if by_hand else ""
    text = f"{stopped} of {trials} {'was' if stopped == 1 else 'were'} stopped early{who}."
    audit = found.audit
    if audit is None:
        return f"{text} What the final losses would have been is not known."
    text += f" An audit trained {audit.audited} of {stopped} to the end."
    if found.answer.better is None:
        text += " None was better."
    if audit.audited < stopped:
        text += " What the others would have reached is not known."
    return text


def _above(gap: float) -> str:
    return f"{abs(gap):.4f} nats {'above' if gap >= 0 else 'below'}"
