"""What is known of the learning rate, in sentences."""

from sweeps import text as words
from sweeps.findings.stability import FIT_FACTOR, Stability
from sweeps.selection import when


def stability_words(found: Stability | None) -> list[str]:
    """What is known of the learning rate, in sentences."""
    if found is None:
        return []
    return [_edge_words(found), _fit_words(found), *_sensitivity_words(found)]


def _edge_words(found: Stability) -> str:
    if found.first_unstable is None:
        line = (
            f"Training was stable up to {words.show(found.highest_stable)}, the highest measured rate. "
            "The edge of stability lies higher."
        )
    else:
        line = (
            f"Edge of stability: {words.show(found.highest_stable)} is the highest stable rate and "
            f"{words.show(found.first_unstable)} the lowest unstable one "
            f"({' and '.join(found.unstable_how)}). The best rate is {_times(found.edge_ratio)}the highest "
            "stable one."
        )
    if found.first_diverging is not None:
        line += (
            f" The lowest rate that diverged is {words.show(found.first_diverging)}; the best rate is "
            f"{_times(found.diverging_ratio)}that."
        )
    if found.unmeasured:
        line += f" Rates not measured: {found.unmeasured}."
    if found.stopped_unseen:
        line += f" Trials stopped early, and stable until then: {found.stopped_unseen}."
    if found.highest_whole is not None and found.highest_whole < found.highest_stable:
        line += (
            f" The highest rate that was stable to the end is {words.show(found.highest_whole)}."
        )
    return line


def _times(ratio: float | None) -> str:
    """A ratio as the factor of a phrase; empty for a ratio of one."""
    return "" if ratio is None or ratio == 1 else f"{ratio:.3g} times "


def _fit_words(found: Stability) -> str:
    fit = found.fit
    if fit is not None:
        interval = (
            f"95% interval {fit.low:.2g} to {fit.high:.2g}"
            if fit.low is not None
            else "too few points, or too flat, for an interval"
        )
        return (
            f"A parabola in the logarithm of the rate, fitted to {fit.points} final losses within a "
            f"factor of {FIT_FACTOR:g} of the best rate, has its minimum at {fit.rate:.3g} ({interval})."
        )
    if found.rates_finished < found.rates:
        were = "was" if found.rates_finished == 1 else "were"
        return (
            f"Only {found.rates_finished} of {found.rates} rates {were} trained to the end, not enough to "
            "fit a parabola; `--audit 1` finishes the others."
        )
    return "No parabola is fitted: the lowest loss is not bracketed."


def _sensitivity_words(found: Stability) -> list[str]:
    sensitivity = found.sensitivity
    if sensitivity is None:
        return []
    return [
        f"Sensitivity to the rate: {words.loss(sensitivity.nats)} nats over "
        f"{sensitivity.decades:.1f} decades, {when(sensitivity.point)} "
        "(mean loss, capped at the loss at init, minus the lowest)."
    ]
