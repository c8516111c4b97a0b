"""Validate the verdicts on runs with a known difference: the numbers of docs/validation.md.

    python benchmarks/validation/study.py [--studies 4000]

Reads losses_*.csv, the final losses of runs that differ only by seed (`seeds.yaml` at scale smoke,
search_spaces/seeds.yaml at scale cpu), and makes studies of them. The baseline and each arm are seeds
drawn without replacement. The true difference of an arm is a constant added to its losses. Nothing is
trained. It takes a minute on one core.
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
from sweeps.stats import effect, holm, pooled_noise

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "validation"
KINDS = ("better", "worse", "no difference", "no conclusion")


def losses(path: Path) -> list[float]:
    """The final losses in a file."""
    with path.open(newline="") as stream:
        return [float(row["val_loss"]) for row in csv.DictReader(stream)]


def study(pool: Sequence[float], seeds: int, arms: int, gap: float, draw: random.Random) -> Any:
    """The effect of each arm of one study, and the verdict on it."""
    drawn = draw.sample(pool, seeds * (arms + 1))
    groups = [drawn[n * seeds : (n + 1) * seeds] for n in range(arms + 1)]
    base, tried = groups[0], [[loss + gap for loss in group] for group in groups[1:]]
    effects = [effect([a - b for a, b in zip(arm, base, strict=True)]) for arm in tried]
    adjusted = holm([found.p for found in effects if found.p is not None])
    noise = pooled_noise([base, *tried])
    return effects, [
        judge(found, p, noise, "nats") for found, p in zip(effects, adjusted, strict=True)
    ]


def rate(times: int, of: int) -> dict[str, float]:
    """A share with its exact 95% interval (Clopper and Pearson, 1934)."""
    interval = stats.binomtest(times, of).proportion_ci(0.95, method="exact")
    return {"rate": times / of, "low": float(interval.low), "high": float(interval.high)}


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
        effects, verdicts = study(pool, seeds, arms, gap, draw)
        found = {verdict.kind for verdict in verdicts}
        called += bool(found & {"better", "worse"})
        kinds.update(verdict.kind for verdict in verdicts)
        for each, verdict in zip(effects, verdicts, strict=True):
            covered += each.low <= gap <= each.high
            largest = max(abs(each.low), abs(each.high))
            # The opposite of the true difference, or a bound that is smaller than it.
            opposite = {"better"} if gap else {"better", "worse"}
            wrong += verdict.kind in opposite or (verdict.kind == "no difference" and largest < gap)
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
        print(parts[-1], flush=True)
    (DOCS / "tables.md").write_text("\n".join(parts))
    (DOCS / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
