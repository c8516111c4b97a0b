"""Validate `variance: pooled`: the numbers of docs/validation.md.

    python benchmarks/validation/pooling.py [--studies 4000]

Makes studies of the 200 final losses in losses_smoke.csv, as study.py does, and tests them by each arm's own variance,
by one pooled as if all runs had the same, and by the pooled one of sweeps/stats.py, with boundaries that it simulates
by itself. Some runs have a multiple of the variance of the others. Nothing is trained. It takes eight minutes on one
core.

The model of a study is a two-way layout: a loss is the sum of an effect of the arm, one of the seed, and noise. The
residual sum of squares over all arms, the baseline among them, is that of contrasts between each arm and the mean of
those before it, in an order of falling numbers of seeds (Helmert's contrasts). One of them is the paired difference of
an arm that is tested; the others are independent of it, if all have the same noise.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import special

from sweeps.stats import ALPHA, NOISE_MARGIN, RATIO, SHARED, share_interval, spent

Floats = NDArray[np.float64]
HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "validation"
SHIPPED = (3, 5, 8, 12)  # looks
DRAWS = 2**18


@dataclass(frozen=True)
class Test:
    """A paired t test whose variance is pooled with the rest of the study's: how many degrees of freedom it takes
    from there at most, and up to which ratio of variances its boundaries hold (that of an arm's differences to what
    the rest says of it)."""

    name: str
    most: float
    ratio: float = 1.0

    def weight(self, rest: Any) -> Any:
        """How much a degree of freedom of the rest counts beside one of its own, given how many it has."""
        return np.minimum(1.0, self.most / np.maximum(rest, 1))


OWN = Test("`own`", 0)
TESTS = (OWN, Test("as if all were equal", np.inf), Test("`pooled`", SHARED, RATIO))


@lru_cache(maxsize=4)
def own_process(looks: tuple[int, ...]) -> list[tuple[Floats, Floats]]:
    """Draws of the mean and of the sum of squares at each look, of differences with variance 1."""
    draw = np.random.default_rng(0)
    total, squares = np.zeros(DRAWS), np.zeros(DRAWS)
    found = []
    for n in range(1, looks[-1] + 1):
        values = draw.standard_normal(DRAWS)
        total, squares = total + values, squares + values * values
        if n in looks:
            found.append((total / n, squares - total * total / n))
    return found


@lru_cache(maxsize=1024)
def boundaries(
    test: Test, looks: tuple[int, ...], last: int, rest: tuple[int, ...], levels: int
) -> Floats:
    """What the statistic has to exceed at each look, with so many degrees of freedom of the rest at each; in a row
    for each of the levels `ALPHA`, `ALPHA` / 2, and so on. `last` is the number of seeds at the last look planned."""
    draw = np.random.default_rng(1)
    squares, known, statistics_ = np.zeros(DRAWS), 0, []
    processes = own_process(tuple(sorted({*looks, last})))
    for n, freedom, (mean, own) in zip(looks, rest, processes, strict=False):
        if freedom > known:
            squares = squares + draw.chisquare(freedom - known, DRAWS)
            known = freedom
        weight = test.weight(freedom) if freedom else 0.0
        variance = (own + weight * squares / test.ratio) / (n - 1 + weight * freedom)
        statistics_.append(np.abs(mean) / np.sqrt(variance / n))
    found = np.full((levels, len(looks)), np.inf)
    for number in range(levels):
        left, before = np.ones(DRAWS, dtype=bool), 0.0
        for look, n in enumerate(looks):
            now = ALPHA / (number + 1) * spent(n, [last])
            at = statistics_[look][left]
            exceed = round((now - before) * DRAWS)
            found[number, look] = np.partition(at, len(at) - exceed - 1)[len(at) - exceed - 1]
            left &= statistics_[look] <= found[number, look]
            before = now
    return found


def residuals(x: Floats, seeds: NDArray[np.int64]) -> Floats:
    """The residual sums of squares of studies of shape (studies, arms and baseline, seeds), whose arms have so many
    seeds; the baseline, which is the first, has as many as any."""
    order = np.argsort(-seeds, axis=1, kind="stable")
    arms = np.take_along_axis(x[:, 1:], order[:, :, None], axis=1)
    number = np.take_along_axis(seeds, order, axis=1)[:, :, None]
    every = np.concatenate([x[:, :1], arms], axis=1)
    before = np.arange(1, every.shape[1])[:, None]
    contrasts = arms - np.cumsum(every, axis=1)[:, :-1] / before
    has = np.arange(x.shape[2]) < number
    centered = np.where(has, contrasts, 0.0)
    squares = (centered**2).sum(2) - centered.sum(2) ** 2 / number[:, :, 0]
    return (squares * (before / (before + 1))[:, 0]).sum(1)


def margins(x: Floats, seeds: NDArray[np.int64], own: int) -> Floats:
    """Within which there is no difference: by the noise of the baseline and of the arms that don't have more."""
    has = np.arange(x.shape[2]) < seeds[:, :, None]
    arms = np.where(has, x[:, 1:], 0.0)
    squares = (arms**2).sum(2) - arms.sum(2) ** 2 / seeds
    freedom, base = seeds - 1, x[:, 0, :own].var(axis=1) * own
    ratio = squares / freedom / (base / (own - 1))[:, None]
    alike = special.fdtrc(freedom, own - 1, ratio) >= ALPHA
    total = base + (squares * alike).sum(1)
    return NOISE_MARGIN * np.sqrt(total / (own - 1 + (freedom * alike).sum(1)))


def holm(crossed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The arms that differ after Holm's correction, given which levels each has crossed: `ALPHA` over 1, 2, and so
    on, on the last axis."""
    studies, arms, _ = crossed.shape
    rejected = np.zeros(studies, dtype=np.int64)
    each = np.arange(studies)
    for _ in range(arms):
        level = np.maximum(arms - rejected, 1) - 1
        rejected = np.maximum(rejected, crossed[each, :, level].sum(1))
    level = np.maximum(arms - rejected, 1) - 1
    found: NDArray[np.bool_] = crossed[each, :, level]
    return found


@dataclass(frozen=True)
class Noise:
    """The variances of a study's runs, as multiples of those of most of its arms."""

    name: str
    base: float = 1.0
    arm: float = 1.0  # of the last arm


NOISES = (
    Noise("all the same"),
    Noise("one arm: 4 times the variance", arm=4),
    Noise("one arm: 16 times the variance", arm=16),
    Noise("baseline: 4 times the variance", base=4),
    Noise("both: 4 times the variance", base=4, arm=4),
)


def drawn(pool: Floats, arms: int, seeds: int, noise: Noise, studies: int) -> Floats:
    """Losses of studies without a difference, in standard deviations of the recorded ones."""
    draw = np.random.default_rng([arms, seeds])
    order = np.argsort(draw.random((studies, len(pool))), axis=1)[:, : (arms + 1) * seeds]
    x = ((pool - pool.mean()) / pool.std(ddof=1))[order].reshape(studies, arms + 1, seeds)
    scale = np.ones(arms + 1)
    scale[0], scale[-1] = np.sqrt(noise.base), np.sqrt(noise.arm)
    scaled: Floats = x * scale[:, None]
    return scaled


def tried(test: Test, x: Floats, looks: tuple[int, ...], gap: float) -> dict[str, Any]:
    """What studies find in the end, of arms that are worse by a gap."""
    studies, arms = x.shape[0], x.shape[1] - 1
    x = x + np.concatenate([[0.0], np.full(arms, gap)])[:, None]
    settled = np.zeros((studies, arms), dtype=np.int64)  # seeds at which it was
    differs, missed = (np.zeros((studies, arms), dtype=bool) for _ in range(2))
    crossed = np.zeros((studies, arms, arms), dtype=bool)
    history = np.zeros((studies, 0), dtype=np.int64)
    first = 0.0
    for look, n in enumerate(looks):
        active = settled == 0
        seeds = np.where(active, n, settled)
        d = x[:, 1:, :n] - x[:, :1, :n]
        mean = d.mean(2)
        own = d.var(2) * n
        rest = (seeds - 1).sum(1) - (n - 1)
        history = np.concatenate([history, rest[:, None]], axis=1)
        weight = test.weight(rest)[:, None] * (rest > 0)[:, None]
        others = 2 * residuals(x[:, :, :n], seeds)[:, None] - own
        variance = (own + weight * others) / (n - 1 + weight * rest[:, None])
        error = np.sqrt(variance / n)
        bound = np.zeros((studies, arms))
        which = active.any(1)
        for one in np.unique(history[which], axis=0) if test.most else [np.zeros(look + 1, int)]:
            found = boundaries(test, looks[: look + 1], looks[-1], tuple(map(int, one)), arms)
            same = (history == one).all(1) & which if test.most else which
            bound[same] = found[:, -1]
        crossed |= active[:, :, None] & (
            np.abs(mean)[:, :, None] > bound[:, None] * error[:, :, None]
        )
        half = bound[:, :1] * error
        missed |= active & (np.abs(mean - gap) > half)
        calls = holm(crossed) & active
        within = active & (np.abs(mean) + half <= margins(x[:, :, :n], seeds, n)[:, None])
        differs |= calls
        settled[calls | within] = n
        first = differs.mean() if not look else first
    return {
        "any_called": differs.any(1).mean(),
        "any_called_interval": share_interval(int(differs.any(1).sum()), studies),
        "called": differs.mean(),
        "called_last": differs[:, -1].mean(),
        "called_first_look": first,
        "coverage": 1 - missed.mean(),
        "coverage_last": 1 - missed[:, -1].mean(),
        "seeds": np.where(settled > 0, settled, looks[-1]).mean(),
    }


def false_table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of studies without a difference."""
    head = (
        "arms", "noise", "variance of the test", "a difference is called (95% interval)", "of the noisy arm",
        "of another arm", "intervals cover the truth", "of the noisy arm",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "| ---: | --- | --- |" + " ---: |" * 5]
    for one in found:
        (low, high), is_arm = one["any_called_interval"], one["noisy_arm"]
        arms = one["arms"]
        other = (one["called"] * arms - one["called_last"]) / (arms - 1)
        cells = (
            str(arms),
            one["noise"],
            one["test"],
            f"{one['any_called']:.1%} ({low:.1%} to {high:.1%})",
            f"{one['called_last']:.1%}" if is_arm else "",
            f"{other if is_arm else one['called']:.1%}",
            f"{one['coverage']:.1%}",
            f"{one['coverage_last']:.1%}" if is_arm else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def power_table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of studies with a difference, in pairs of share called and seeds of an arm."""
    every = {(one["arms"], one["looks"], one["test"]): None for one in found}
    lines = [
        "| arms | looks after seeds | variance of the test |"
        + "".join(f" called at {sigmas:g} sigma | seeds |" for sigmas in SIGMAS),
        "| ---: | --- | --- |" + " ---: |" * 2 * len(SIGMAS),
    ]
    for arms, looks, test in every:
        own = [
            one for one in found if (one["arms"], one["looks"], one["test"]) == (arms, looks, test)
        ]
        numbers = [f"{one['called']:.1%} | {one['seeds']:.1f}" for one in own]
        lines.append(f"| {arms} | {looks} | {test} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


SIGMAS = (1.0, 2.0, 4.0)


def main(
    studies: Annotated[int, typer.Option(min=100, help="Studies of each kind.")] = 4000,
) -> None:
    """Write docs/validation/pooling.md and pooling.json."""
    pool = np.genfromtxt(HERE / "losses_smoke.csv", delimiter=",", names=True)["val_loss"]
    one: dict[str, Any]
    false, power = [], []
    for arms in (3, 8):
        for noise, test in itertools.product(NOISES, TESTS):
            x = drawn(pool, arms, SHIPPED[-1], noise, studies)
            one = {"arms": arms, "noise": noise.name, "test": test.name, "noisy_arm": noise.arm > 1}
            false.append(one | tried(test, x, SHIPPED, 0.0))
            print(json.dumps(false[-1]), flush=True)
        for looks, test, sigmas in itertools.product(((3,), SHIPPED), TESTS, SIGMAS):
            x = drawn(pool, arms, looks[-1], NOISES[0], studies)
            one = {
                "arms": arms,
                "looks": ", ".join(map(str, looks)),
                "test": test.name,
                "sigmas": sigmas,
            }
            power.append(one | tried(test, x, looks, sigmas))
            print(json.dumps(power[-1]), flush=True)
    text = f"## Arms without a difference\n\n{false_table(false)}\n## Arms that are worse\n\n{power_table(power)}"
    (DOCS / "pooling.md").write_text(text)
    (DOCS / "pooling.json").write_text(
        json.dumps({"false": false, "power": power}, indent=1) + "\n"
    )


if __name__ == "__main__":
    typer.run(main)
