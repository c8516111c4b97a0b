"""The verdict on an arm, from the differences between its runs and the baseline's.

Differences are paired: arm less baseline at the same seed, so with the same initial weights where
the models share them, the same data order and the same validation windows. Lower is better.
"""

from dataclasses import dataclass
from typing import Literal

from sweeps.stats import ALPHA, MOST_SEEDS, Effect, Noise, seeds_to_settle

NOISE_MARGIN = 2.0  # a difference within this many standard deviations of the noise is none

Kind = Literal["better", "worse", "no difference", "no conclusion"]


@dataclass(frozen=True)
class Verdict:
    """What the runs of an arm support, and how a person would say it."""

    kind: Kind
    words: str
    seeds: int | None = None  # further ones that would settle a difference of the size seen


def judge(
    found: Effect, p_holm: float | None, noise: Noise | None, unit: str, tested: int = 1
) -> Verdict:
    """The verdict on an arm: a difference is called where its adjusted p is below `ALPHA`; it is
    none where its interval lies within `NOISE_MARGIN` times the noise; else the question is open.

    The noise is the one measured in the sweep; `tested` the arms whose p-values were adjusted.
    """
    if found.low is None or found.high is None or found.sd is None or p_holm is None:
        return Verdict("no conclusion", f"no conclusion yet: {found.n} seed is no comparison")
    if p_holm < ALPHA:
        kind: Kind = "better" if found.mean < 0 else "worse"
        near, far = sorted((abs(found.low), abs(found.high)))
        size = f"{abs(found.mean):.4f} {unit}"
        return Verdict(kind, f"{kind} by {size} (95% interval {near:.4f} to {far:.4f})")
    largest = max(abs(found.low), abs(found.high))
    if noise is not None and largest <= NOISE_MARGIN * noise.sd:
        return Verdict("no difference", f"no difference larger than {largest:.4f} {unit}")
    needed = seeds_to_settle(found.mean, found.sd, ALPHA / tested) if found.sd else None
    if needed is None:
        more = f"more than {MOST_SEEDS} seeds would be needed to settle a difference so small"
        return Verdict("no conclusion", f"no conclusion yet: {more}")
    # Those that it has may be enough on average, and were not.
    further = max(1, needed - found.n)
    seeds = "1 more seed" if further == 1 else f"{further} more seeds"
    more = f"{seeds} would settle a difference of the size seen"
    return Verdict("no conclusion", f"no conclusion yet: {more}", further)
