"""The verdict on an arm, from the differences between its runs and the baseline's.

Differences are paired: arm less baseline at the same seed. Both runs then have the same initial
weights (where the models share them), data order and validation windows. Lower is better.
"""

from dataclasses import dataclass
from typing import Literal

from sweeps.findings.doubts import Doubt
from sweeps.stats import (
    ALPHA,
    NOISE_MARGIN,
    Decision,
    Effect,
    Noise,
    decide,
    is_within,
    seeds_to_bound,
    seeds_to_settle,
)

Kind = Literal["baseline", "void", "better", "worse", "no difference", "no conclusion"]


@dataclass(frozen=True)
class Verdict:
    """The conclusion that the runs of an arm support. Each part can be shown alone."""

    kind: Kind
    headline: str
    detail: str = ""  # the reason, or what would settle the question
    seeds: int | None = None  # more seeds needed to detect a difference of the observed size
    doubts: tuple[Doubt, ...] = ()  # about the losses that it rests on

    @property
    def words(self) -> str:
        """The headline, the detail and the doubts."""
        said = f"{self.headline}: {self.detail}" if self.detail else self.headline
        return said + "".join(f", and {doubt.words}" for doubt in self.doubts)


def undecided(detail: str, seeds: int | None = None) -> Verdict:
    """A verdict without a conclusion, which more data may give."""
    return Verdict("no conclusion", "no conclusion yet", detail, seeds)


def judge(
    effect: Effect, p_holm: float | None, noise: Noise | None, unit: str, tested: int = 1
) -> Verdict:
    """The verdict on an arm. There is a difference if its adjusted p is below `ALPHA`, and no
    difference if its interval is within `NOISE_MARGIN` times the noise; else the question is open.

    The noise is the one measured in the sweep. `tested` is the number of arms whose p-values were
    adjusted.
    """
    if effect.low is None or effect.high is None or effect.sd is None or p_holm is None:
        return undecided("one seed has no interval")
    margin = None if noise is None else NOISE_MARGIN * noise.sd
    decision = decide(effect, p_holm, margin)
    if decision != "no conclusion":
        return settled(decision, effect, unit, margin=margin)
    return undecided(*further(effect, tested, margin))


def settled(
    decision: Decision,
    effect: Effect,
    unit: str,
    interval_words: str = "95% interval",
    *,
    margin: float | None,
) -> Verdict:
    """The verdict that an effect settles, whose interval is of this kind; it has none where runs diverged. A
    difference may be found that is within the margin and does not matter."""
    if effect.low is None or effect.high is None:
        return Verdict(decision, decision)
    near, far = sorted((abs(effect.low), abs(effect.high)))
    if decision == "no difference":
        return Verdict(decision, f"no difference larger than {far:.4f} {unit}")
    interval = f"{interval_words} {_size(near)} to {_size(far)}"
    small = f", smaller than what matters ({margin:.4f})" if is_within(effect, margin) else ""
    return Verdict(decision, f"{decision} by {_size(abs(effect.mean))} {unit} ({interval}){small}")


def _size(difference: float) -> str:
    """A difference without its sign; one that four decimals do not show, in two digits."""
    return f"{difference:.4f}" if difference >= 5e-5 else f"{difference:.2g}"


def further(
    effect: Effect, tested: int, margin: float | None = None, rest: int = 0
) -> tuple[str, int | None]:
    """What would settle an open question, in words, and as a number of seeds; None if too many. The scatter of the
    effect is that of its test: pooled, if the rest of the study has degrees of freedom.

    A difference that is too small to be found is bounded: by the margin, within which there is none.
    """
    assert effect.sd is not None
    needed = seeds_to_settle(effect.mean, effect.sd, ALPHA / tested, rest) if effect.sd else None
    if needed is not None:
        more = _more(needed, effect)
        seeds = "1 more seed" if more == 1 else f"{more} more seeds"
        return f"{seeds} would settle a difference of the size seen", more
    bound = ""
    if effect.low is not None and effect.high is not None:
        bound = f"the difference is between {effect.low:+.4f} and {effect.high:+.4f}, and "
    enough = seeds_to_bound(effect.mean, effect.sd, margin, rest) if margin is not None else None
    if enough is None:
        return f"{bound}more seeds would not settle so small a difference", None
    more = _more(enough, effect)
    seeds = "1 more seed" if more == 1 else f"{more} more seeds"
    return f"{bound}{seeds} would show that none is larger than {margin:.4f}", more


def _more(needed: int, effect: Effect) -> int:
    """The further seeds: the current number may be enough on average, but was not enough here."""
    return max(1, needed - effect.n)
