"""Sentences on the effect of the learning rate."""

from sweeps.findings.stability import FIT_FACTOR, Stability
from sweeps.selection import when
from sweeps.text import loss, quantity, show

SENSITIVITY = "the mean loss over the rates, each capped at the loss at init, minus the lowest loss"


def stability_words(found: Stability | None, *, defines: bool = True) -> list[str]:
    """Sentences on the effect of the learning rate, with what sensitivity is or without; empty if none was
    found."""
    if found is None:
        return []
    return [_edge_words(found), _fit_words(found), *_sensitivity_words(found, defines)]


def _edge_words(found: Stability) -> str:
    if found.first_unstable is None:
        line = (
            f"Training was stable up to lr={show(found.highest_stable)}, the highest measured rate. "
            "The edge of stability lies higher."
        )
    else:
        line = (
            f"Edge of stability: {show(found.highest_stable)} is the highest stable rate and "
            f"{show(found.first_unstable)} the lowest unstable one "
            f"({' and '.join(found.unstable_how)}). {_compared('highest stable rate', found.edge_ratio)}"
        )
    if found.first_diverging is not None:
        line += (
            f" The lowest rate that diverged is {show(found.first_diverging)}"
            f"{_times(found.diverging_ratio)}."
        )
    if found.unmeasured:
        line += f" Rates not measured: {found.unmeasured}."
    if found.stopped_unseen:
        by_hand = f", {found.stopped_by_hand} of them by hand" * bool(found.stopped_by_hand)
        trials = quantity(found.stopped_unseen, "trial")
        was = (
            "was stable until it was"
            if found.stopped_unseen == 1
            else "were stable until they were"
        )
        line += f" {trials} {was} stopped{'' if by_hand else ' early'}{by_hand}."
    if found.highest_whole is not None and found.highest_whole < found.highest_stable:
        line += f" The highest rate that was stable to the end is {show(found.highest_whole)}."
    if found.overfitted:
        line += (
            f" Rates at which runs overfitted: {', '.join(map(show, found.overfitted))}. A lower rate "
            "learns less and overfits less, so with more text a higher rate may be the best."
        )
    return line


def _compared(what: str, ratio: float | None) -> str:
    """How a rate compares with the best one, which is this part of it."""
    if ratio == 1:
        return f"The best rate is the {what}."
    return f"The {what} is {1 / ratio:.3g} times the best one." if ratio else ""


def _times(ratio: float | None) -> str:
    """How many times the best rate a rate is, of which that is this part; empty where it is not known."""
    return f", {1 / ratio:.3g} times the best one" if ratio else ""


def _fit_words(found: Stability) -> str:
    fit = found.fit
    if fit is not None:
        interval = (
            f"95% interval {fit.low:.2g} to {fit.high:.2g}"
            if fit.low is not None
            else "no interval: too few points, or too flat"
        )
        return (
            f"A parabola in the log of the rate, fitted to the {fit.points} final losses within a "
            f"factor of {FIT_FACTOR:g} of the best rate, has its minimum at {fit.rate:.3g} ({interval})."
        )
    if found.rates_finished < found.rates:
        were = "was" if found.rates_finished == 1 else "were"
        return (
            f"Only {found.rates_finished} of {found.rates} rates {were} trained to the end, too few to "
            f"fit a parabola.{_audit_words(found)}"
        )
    return "No parabola is fitted: the lowest loss is not bracketed."


def _audit_words(found: Stability) -> str:
    """Which of the rates that were not trained to the end an audit would train; empty if none."""
    number, others = found.rates_to_audit, found.rates - found.rates_finished
    which = "the others" if number == others else f"{number} of the others"
    return f" `--audit 1` trains {which} to the end." if number else ""


def _sensitivity_words(found: Stability, defines: bool) -> list[str]:
    sensitivity = found.sensitivity
    if sensitivity is None:
        return []
    definition = f" ({SENSITIVITY})" if defines else ""
    return [
        f"Learning rate sensitivity: {loss(sensitivity.nats)} nats over "
        f"{sensitivity.decades:.1f} decades, {when(sensitivity.point)}{definition}."
    ]
