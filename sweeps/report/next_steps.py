"""What to try next, by the rules of docs/experiment_log.md."""

from collections.abc import Iterator, Sequence

from sweeps.findings.arms import ArmFindings
from sweeps.findings.everything import SearchFindings
from sweeps.findings.results import Results
from sweeps.ledger import Trial
from sweeps.report.experiments import Experiment
from sweeps.selection import at, records
from sweeps.text import named, portable, show


def next_steps(one: Experiment) -> Iterator[str]:
    """What to try next, by the rules of docs/experiment_log.md."""
    if isinstance(one.findings, SearchFindings):
        yield from _next_of_search(one.findings, one)
    elif one.arm is not None:
        yield from _next_of_arm(one, one.arm)


def _next_of_search(found: SearchFindings, one: Experiment) -> Iterator[str]:
    if found.unfinished:
        planned = len(found.results.trials)
        step = f"Resume: {len(found.unfinished)} of {planned} trials have no result yet."
        command = portable(found.results.sweep.session.get("command", ""))
        yield f"{step} Run {command}." if command else step
    for best in found.best:
        if best.edge:
            more = " and ".join(show(value) for value in best.next)
            step = f"{best.path}: the best value, {show(best.best)}, is at the {best.edge} edge of what was tried."
            yield (
                f"{step} Add {more} under space.{best.path} and run the sweep again."
                if more
                else step
            )
    yield from _cut_short(found.results, one.runs)
    if len(one.runs) == 1:
        values = named(one.runs[0].values)
        yield (
            f"More seeds: {values} was run with one seed. List more under seeds and run the sweep again."
            if values
            else "More seeds: it was run with one seed. Run it under another name with --set run.seed=1."
        )


def _next_of_arm(one: Experiment, arm: ArmFindings) -> Iterator[str]:
    for caution in arm.cautions:
        if caution.kind in {"grid edge", "grid missed"}:
            yield f"Re-tune: {caution.text}."
    if not arm.runs.retuned and not one.has_twin and not one.is_baseline:
        yield (
            "Re-tune: it ran at the baseline's values, which may not be its best. Add retune to the space "
            "and run the sweep again."
        )
    if arm.verdict.seeds is not None:
        yield f"More seeds: {arm.verdict.detail}. List more under seeds and run the sweep again."


def _cut_short(results: Results, best: Sequence[Trial]) -> Iterator[str]:
    """The stopped trials whose loss fell faster than that of the best, where they were stopped."""
    early = []
    for trial in results.having("stopped") if best else []:
        if len(trial.curve) < 2 or results.sweep.audit(trial.trial) is not None:
            continue
        before, last = records(trial)[-2:]
        best_before, best_last = (at(best[0], record.tokens) for record in (before, last))
        if best_before is None or best_last is None:
            continue
        metric = results.metric
        fall = before.loss(metric) - last.loss(metric)
        best_fall = best_before.loss(metric) - best_last.loss(metric)
        if fall > best_fall:
            early.append(
                f"{trial.label} (at {last.tokens:,} tokens {fall:.4f} against {best_fall:.4f})"
            )
    if early:
        trials = "1 trial was" if len(early) == 1 else f"{len(early)} trials were"
        yield (
            f"Audit: {trials} stopped while improving faster than the best trial, since the previous "
            f"record: {', '.join(early)}. Run the sweep again with --audit 1."
        )
