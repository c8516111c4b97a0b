"""Factual sentences on the runs of an experiment."""

import statistics
from collections.abc import Iterator, Sequence

from sweeps.findings.everything import SearchFindings
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import Results, status_of, tokens_per_s
from sweeps.ledger import Trial
from sweeps.report.experiments import Experiment
from sweeps.selection import Measured, records
from sweeps.text import count, quantity, tally

TAIL = 0.1  # last part of a run that shows whether the loss still falls


def observations(one: Experiment) -> Iterator[str]:
    """Factual sentences on smoothness, overfitting, the gap, and problems."""
    found, finished, ends = one.findings, one.finished, one.ends
    if not one.are_alike:
        kinds = tally(outcome(trial) or status_of(trial) for trial in one.runs)
        yield f"None of the {len(one.runs)} trials finished: {kinds}."
        return
    for trial in one.runs:
        kind = outcome(trial)
        if kind:
            yield f"Seed {trial.seed}: {kind}" + (f" ({trial.reason})." if trial.reason else ".")
    going = len([trial for trial in one.runs if trial.status not in {"finished", "diverged"}])
    if going:
        yield f"Not finished: {going} of {quantity(len(one.runs), 'run')}."
    if not finished:
        return
    yield _count_of_seeds(finished, ends)
    if isinstance(found, SearchFindings):
        yield from _chosen(found)
    spikes = [spike for end in ends if (spike := end.spike) is not None]
    if len(spikes) == len(finished):
        yield (
            "After warm-up, the smoothed training loss never rose more than "
            f"{max(0.01, *spikes):.2f} nats above its minimum."
        )
    yield from _slope(finished)
    yield from _gap(finished)
    yield from _throughput(found.results, finished)
    if isinstance(found, SearchFindings) and found.stopped:
        yield _stopped_early(found)


def _count_of_seeds(finished: Sequence[Trial], ends: Sequence[Measured]) -> str:
    if len(finished) == 1:
        return f"One seed ({finished[0].seed}): a difference smaller than the seed noise means nothing."
    losses = [end.val_loss for end in ends]
    return (
        f"{len(finished)} seeds: final validation losses from {min(losses):.4f} to "
        f"{max(losses):.4f}."
    )


def _chosen(found: SearchFindings) -> Iterator[str]:
    """A sentence on whether a search's best was chosen by the losses shown."""
    chosen = found.selection
    if chosen is None or chosen.among < 2:
        return
    if chosen.confirmed:
        yield f"It is the best of {chosen.among}, and these losses are from fresh seeds."
    elif chosen.is_stable:
        yield (
            f"It is the best of {chosen.among}, chosen by these losses. Leaving out any one seed gives the "
            "same choice."
        )
    elif chosen.optimism is not None:
        yield (
            f"It is the best of {chosen.among}, chosen by these losses. Expect new seeds to end "
            f"{chosen.optimism:.4f} higher."
        )
    else:
        yield (
            f"It is the best of {chosen.among}, chosen by this loss, so it won partly by luck. How much is "
            "not known."
        )


def _slope(finished: Sequence[Trial]) -> Iterator[str]:
    """The change of the validation loss over the last tenth, or from the last record before that;
    mean over the seeds."""
    falls, spans = [], []
    for trial in finished:
        *_, end = curve = records(trial)
        before = [record for record in curve if record.tokens <= (1 - TAIL) * end.tokens]
        if before:
            falls.append(end.val_loss - before[-1].val_loss)
            spans.append(1 - before[-1].tokens / end.tokens)
    if falls:
        mean = statistics.fmean(falls)
        how = "fell" if mean < 0 else "rose"
        yield (
            f"Over the last {max(spans):.0%} of training, the validation loss {how} by {abs(mean):.4f} "
            "nats."
        )


def _gap(finished: Sequence[Trial]) -> Iterator[str]:
    """Validation loss minus training loss at the end and halfway."""
    gaps = [(_gap_at(trial, 0.5), _gap_at(trial, 1.0)) for trial in finished]
    half = [gap for gap, _ in gaps if gap is not None]
    end = statistics.fmean(gap for _, gap in gaps if gap is not None)
    text = (
        f"At the end, the validation loss is {_above(end)} the training loss (its mean since the "
        "previous record)."
    )
    if half:
        mean = statistics.fmean(half)
        text += f" Halfway it was {_above(mean)} it."
        widens = end > 0 and end - mean > 0
        text += f" The gap {'widens' if widens else 'does not widen'}."
    yield text


def _throughput(results: Results, finished: Sequence[Trial]) -> Iterator[str]:
    """The FLOPs per second of the runs, and their share of the speed of a matrix product."""
    rates = [speed * trial.flops_per_token for trial in finished if (speed := tokens_per_s(trial))]
    if not rates:
        return
    rate = statistics.median(rates)
    machines = [session.get("machine") or {} for session in results.sweep.sessions]
    peaks = [peak for session in results.sweep.sessions if (peak := session.get("product_flops"))]
    peak = max(peaks) if peaks and all(one == machines[0] for one in machines) else None
    slots = max((int(session.get("slots") or 0) for session in results.sweep.sessions), default=0)
    # Above 100%, the matrix product was measured while something else ran.
    share = (
        f", {rate / peak:.0%} of this machine's matmul peak ({_flops_per_s(peak)})"
        if peak is not None and peak >= rate
        else ""
    )
    beside = f" Up to {slots} trials ran at once." if slots > 1 else ""
    yield f"Each trial ran at {_flops_per_s(rate)}{share}.{beside}"


def _flops_per_s(rate: float) -> str:
    """FLOPs per second with a unit: 30.5 GFLOP/s."""
    short = count(rate)
    digits = short.rstrip("kMGTPE")
    return f"{digits} {short[len(digits) :]}FLOP/s"


def _stopped_early(found: SearchFindings) -> str:
    """How many trials were stopped early, and whether an audit trained any of them to the end."""
    stopped, trials = len(found.stopped), quantity(len(found.results.trials), "trial")
    text = f"{stopped} of {trials} {'was' if stopped == 1 else 'were'} stopped early."
    if found.audit is None:
        return f"{text} What the final losses would have been is not known."
    return f"{text} An audit trained {found.audit.audited} of {stopped} to the end."


def _above(gap: float) -> str:
    return f"{abs(gap):.4f} nats {'above' if gap >= 0 else 'below'}"


def _gap_at(trial: Trial, share: float) -> float | None:
    curve = records(trial)
    until = [record for record in curve if record.tokens <= share * curve[-1].tokens]
    return until[-1].val_loss - until[-1].train_loss if until else None
