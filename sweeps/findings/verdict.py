"""The verdict on an arm, from the differences between its runs and the baseline's.

Differences are paired: arm less baseline at the same seed. Both runs then have the same initial
weights (where the models share them), data order and validation windows. Lower is better.
"""

from dataclasses import dataclass
from typing import Literal

from sweeps.findings.outcomes import Doubt
from sweeps.stats import ALPHA, MOST_SEEDS, Effect, Noise, decide, seeds_to_settle

NOISE_MARGIN = 2.0  # a difference within this many noise standard deviations is no difference

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
    kind = decide(effect, p_holm, noise and NOISE_MARGIN * noise.sd)
    if kind in {"better", "worse"}:
        near, far = sorted((abs(effect.low), abs(effect.high)))
        size = f"{abs(effect.mean):.4f} {unit}"
        return Verdict(kind, f"{kind} by {size} (95% interval {near:.4f} to {far:.4f})")
    if kind == "no difference":
        largest = max(abs(effect.low), abs(effect.high))
        return Verdict("no difference", f"no difference larger than {largest:.4f} {unit}")
    needed = seeds_to_settle(effect.mean, effect.sd, ALPHA / tested) if effect.sd else None
    if needed is None:
        return undecided(
            f"more than {MOST_SEEDS} seeds would be needed to settle a difference so small"
        )
    # The current number of seeds may be enough on average, but was not enough here.
    further = max(1, needed - effect.n)
    seeds = "1 more seed" if further == 1 else f"{further} more seeds"
    return undecided(f"{seeds} would settle a difference of the size seen", further)
