"""Validate the verdicts on runs with a known difference: the numbers of docs/validation.md.

    python benchmarks/validation/study.py [--studies 4000]

Reads losses_*.csv, the final losses of runs that differ only by seed (`seeds.yaml` at scale smoke,
seeds_cpu.yaml at scale cpu), and makes studies of them. The baseline and each arm are seeds
drawn without replacement. The true difference of an arm is a constant added to its losses. Nothing is
trained. It takes six minutes on one core.
"""

import csv
import json
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy import stats

from sweeps.findings.verdict import judge
from sweeps.stats import (
    NOISE_MARGIN,
    Decision,
    Effect,
    Seen,
    decide,
    effect,
    holm,
    look,
    noise_of_runs,
    pooled_noise,
    share_interval,
)

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "validation"
SHIPPED, EVERY_SEED = (3, 5, 8, 12), tuple(range(2, 13))  # looks
KINDS = ("better", "worse", "no difference", "no conclusion")


def losses(path: Path) -> list[float]:
    """The final losses in a file."""
    with path.open(newline="") as stream:
        return [float(row["val_loss"]) for row in csv.DictReader(stream)]


def margin_of(base: Sequence[float], arms: Sequence[Sequence[float]]) -> float | None:
    """Within which there is no difference."""
    noise, _ = noise_of_runs(base, arms, [])
    return None if noise is None else NOISE_MARGIN * noise.sd


def study(
    pool: Sequence[float], seeds: int, arms: int, gap: float, draw: random.Random
) -> tuple[list[Effect], list[Decision]]:
    """The effect of each arm of one study, and what is decided on it."""
    drawn = draw.sample(pool, seeds * (arms + 1))
    groups = [drawn[n * seeds : (n + 1) * seeds] for n in range(arms + 1)]
    base, tried = groups[0], [[loss + gap for loss in group] for group in groups[1:]]
    effects = [effect([a - b for a, b in zip(arm, base, strict=True)]) for arm in tried]
    adjusted = holm([found.p for found in effects if found.p is not None])
    margin = margin_of(base, tried)
    return effects, [decide(one, p, margin) for one, p in zip(effects, adjusted, strict=True)]


def rate(times: int, of: int) -> dict[str, float]:
    """A share with its 95% interval."""
    low, high = share_interval(times, of)
    return {"rate": times / of, "low": low, "high": high}


def is_wrong(kind: str, interval: tuple[float, float], gap: float) -> bool:
    """Whether a verdict is the opposite of the true difference, or gives a bound that is smaller than it."""
    opposite = {"better"} if gap else {"better", "worse"}
    return kind in opposite or (kind == "no difference" and max(map(abs, interval)) < gap)


def interval(found: Effect | None) -> tuple[float, float]:
    """The interval of an arm."""
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def tried(
    pool: Sequence[float], seeds: int, arms: int, sigmas: float, studies: int
) -> dict[str, Any]:
    """How often each verdict was given, over studies of arms that are worse by a multiple of the
    noise."""
    sigma = statistics.stdev(pool)
    gap = sigmas * sigma
    draw = random.Random(f"{seeds} {arms} {sigmas}")  # noqa: S311 no secret
    called = covered = wrong = 0
    kinds: Counter[str] = Counter()
    for _ in range(studies):
        effects, decisions = study(pool, seeds, arms, gap, draw)
        called += not {"better", "worse"}.isdisjoint(decisions)
        kinds.update(decisions)
        for each, decision in zip(effects, decisions, strict=True):
            low, high = interval(each)
            covered += low <= gap <= high
            wrong += is_wrong(decision, (low, high), gap)
    total = studies * arms
    return {
        "seeds": seeds,
        "arms": arms,
        "sigmas": sigmas,
        "any_called": rate(called, studies),
        "coverage": rate(covered, total),
        "said": {kind: kinds[kind] / total for kind in KINDS},
        "wrong": rate(wrong, total),
    }


def in_looks(
    pool: Sequence[float], looks: Sequence[int], arms: int, gap: float, draw: random.Random
) -> list[dict[str, Seen]]:
    """What each look of a study finds, until it has settled every arm or is the last."""
    drawn = draw.sample(pool, looks[-1] * (arms + 1))
    losses = [dict(enumerate(drawn[n :: arms + 1])) for n in range(arms + 1)]
    base = losses[0]
    tried = {str(n): {s: loss + gap for s, loss in own.items()} for n, own in enumerate(losses[1:])}
    found: list[dict[str, Seen]] = []
    for seeds in looks:
        before = found[-1] if found else {}
        settled = {name: before[name].looks[-1] for name in before if before[name].is_settled}
        if len(settled) == arms:
            break
        far = {n: dict(list(own.items())[: settled.get(n, seeds)]) for n, own in tried.items()}
        own = dict(list(base.items())[:seeds])
        margin = margin_of([*own.values()], [[*one.values()] for one in far.values()])
        found.append(look(own, far, before, looks[-1:], list(tried), margin))
    return found


def misses(found: Sequence[dict[str, Seen]], gap: float) -> int:
    """How many arms have an interval at some look that does not cover their true difference."""
    ever = set()
    for at_look in found:
        for name, seen in at_look.items():
            low, high = interval(seen.effect)
            if not low <= gap <= high:
                ever.add(name)
    return len(ever)


def tried_in_looks(
    pool: Sequence[float], looks: Sequence[int], arms: int, sigmas: float, studies: int
) -> dict[str, Any]:
    """How often each verdict is given in the end, and after how many seeds."""
    gap = sigmas * statistics.stdev(pool)
    draw = random.Random(f"{looks} {arms} {sigmas}")  # noqa: S311 no secret
    called = missed = seeds = wrong = 0
    kinds: Counter[str] = Counter()
    for _ in range(studies):
        found = in_looks(pool, looks, arms, gap, draw)
        ends = [found[-1][name] for name in found[-1]]
        decisions = [end.decision for end in ends]
        called += not {"better", "worse"}.isdisjoint(decisions)
        kinds.update(decisions)
        missed += misses(found, gap)
        seeds += sum(end.looks[-1] for end in ends)
        wrong += sum(is_wrong(end.decision, interval(end.effect), gap) for end in ends)
    total = studies * arms
    return {
        "looks": looks,
        "arms": arms,
        "sigmas": sigmas,
        "any_called": rate(called, studies),
        "coverage": 1 - missed / total,
        "said": {kind: kinds[kind] / total for kind in KINDS},
        "wrong": rate(wrong, total),
        "seeds": seeds / total,
    }


def advised(pool: Sequence[float], first: int, studies: int) -> dict[str, float]:
    """How often equal arms are called different by t tests at 5%, one after another, by a reader who adds
    the seeds that would settle the difference seen, at most twice."""
    draw = random.Random(first)  # noqa: S311 no secret
    called = 0
    for _ in range(studies):
        drawn = draw.sample(pool, len(pool))
        base, arm = drawn[::2], drawn[1::2]
        seeds = first
        for _ in range(3):
            now = effect([a - b for a, b in zip(arm[:seeds], base[:seeds], strict=True)])
            said = judge(now, now.p, pooled_noise([base[:seeds], arm[:seeds]]), "nats")
            if said.seeds is None:
                break
            seeds = min(seeds + said.seeds, len(base))
        called += said.kind in {"better", "worse"}
    return rate(called, studies)


def looks_table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the results of studies in looks."""
    head = (
        "looks", "arms", "truth", "a difference is called (95% interval)", "better", "worse",
        "no difference", "no conclusion", "seeds", "intervals of all looks cover the truth",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    for one in found:
        called, looks = one["any_called"], one["looks"]
        cells = (
            ", ".join(map(str, looks))
            if len(looks) < 5
            else f"every one from {looks[0]} to {looks[-1]}",
            str(one["arms"]),
            f"{one['sigmas']:g} sigma" if one["sigmas"] else "equal",
            f"{called['rate']:.1%} ({called['low']:.1%} to {called['high']:.1%})",
            *(f"{one['said'][kind]:.1%}" for kind in KINDS),
            f"{one['seeds']:.1f}",
            f"{one['coverage']:.1%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the results."""
    head = (
        "arms", "seeds", "truth", "a difference is called (95% interval)", "better", "worse",
        "no difference", "no conclusion", "interval covers the truth",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    for one in found:
        called, covers = one["any_called"], one["coverage"]
        cells = (
            str(one["arms"]),
            str(one["seeds"]),
            f"{one['sigmas']:g} sigma" if one["sigmas"] else "equal",
            f"{called['rate']:.1%} ({called['low']:.1%} to {called['high']:.1%})",
            *(f"{one['said'][kind]:.1%}" for kind in KINDS),
            f"{covers['rate']:.1%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(
    studies: Annotated[int, typer.Option(min=100, help="Studies of each kind.")] = 4000,
) -> None:
    """Write docs/validation/."""
    DOCS.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    parts = []
    for path in sorted(HERE.glob("losses_*.csv")):
        pool = losses(path)
        name = path.stem.removeprefix("losses_")
        shape = stats.shapiro(pool)
        found = [
            tried(pool, seeds, arms, sigmas, studies)
            for arms, seeds in ((1, 2), (1, 3), (1, 5), (3, 3), (8, 3))
            for sigmas in (0.0, 1.0, 2.0, 4.0)
            if seeds * (arms + 1) <= len(pool)
        ]
        results[name] = {
            "runs": len(pool),
            "sigma": statistics.stdev(pool),
            "shapiro_p": float(shape.pvalue),
            "studies": found,
        }
        title = f"## {name}: {len(pool)} runs, sigma {statistics.stdev(pool):.4f} nats per token"
        parts.append(f"{title}\n\n{table(found)}")
        sequential = [
            tried_in_looks(pool, looks, arms, sigmas, max(1000, studies // arms))
            for looks, arms in (
                ((7,), 1), ((12,), 1), ((9,), 3), ((10,), 8), (SHIPPED, 1), (SHIPPED, 3), (SHIPPED, 8),
                (EVERY_SEED, 1), (EVERY_SEED, 3), (EVERY_SEED, 8),
            )
            for sigmas in (0.0, 0.5, 1.0, 2.0, 4.0)
            if looks[-1] * (arms + 1) <= len(pool)
        ]  # fmt: skip
        if sequential:
            results[name]["looks"] = sequential
            results[name]["advised"] = {n: advised(pool, n, studies) for n in (3, 5)}
            parts.append(looks_table(sequential))
            for seeds, false in results[name]["advised"].items():
                called = f"{false['rate']:.1%} ({false['low']:.1%} to {false['high']:.1%})"
                parts.append(
                    "Equal arms, t tests at 5% after "
                    f"{seeds} seeds and after those that were advised, at most twice: called different "
                    f"in {called}.\n"
                )
        print(parts[-1], flush=True)
    (DOCS / "tables.md").write_text("\n".join(parts))
    (DOCS / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
