"""What to try next, by the rules of docs/experiment_log.md."""

from collections.abc import Iterator, Sequence

from sweeps.findings.arms import ArmFindings
from sweeps.findings.everything import SearchFindings
from sweeps.findings.experiments import Experiment
from sweeps.findings.outcomes import Overfit, doubts, high_init, overfit
from sweeps.findings.ranking import BestValue
from sweeps.findings.results import Results
from sweeps.findings.stability import LR
from sweeps.findings.trends import DIGITS
from sweeps.ledger import Trial
from sweeps.plan.space import Looks, Space
from sweeps.report.answer import unfinished_words
from sweeps.report.overfitting import init_of, passes_of
from sweeps.selection import when
from sweeps.text import between, init_words, named, portable, show, with_option

MORE_SEEDS = 2  # additional seeds to run if the best has one seed
_RANK_ALL = (
    "Set `schedule: {policy: none}` in the space, which trains and ranks the stopped trials."
)
LONG = 30  # longer lists of seeds are abbreviated


def next_steps(one: Experiment) -> Iterator[str]:
    """What to try next, by the rules of docs/experiment_log.md; text in backquotes is code."""
    if isinstance(one.findings, SearchFindings):
        yield from _next_of_search(one.findings, one)
    elif one.arm is not None and not one.arm.is_void:  # other values of a void arm are void too
        yield from _next_of_arm(one, one.arm)


def _command(results: Results) -> str:
    """The command of the last session; empty if the ledger has none."""
    return portable(results.sweep.session.get("command", ""))


def _again(results: Results, option: str = "") -> str:
    """The end of a step: the sweep's command, with one more option."""
    command = _command(results)
    if command:
        return f"Run `{' '.join(filter(None, (command, option)))}`."
    return f"Run the sweep again with `{option}`." if option else "Run the sweep again."


def _next_of_search(found: SearchFindings, one: Experiment) -> Iterator[str]:
    results = found.results
    if found.unfinished and not results.is_over:
        left = unfinished_words(results)
        yield f"Resume: {left[:1].lower()}{left[1:]} {_again(results)}"
    yield from _mend_search(found, one)
    if doubts(one.runs):
        return  # what is tried next, at other values or on more seeds, would have the same problem
    if found.answer.better is not None:
        yield f"Rank all: a stopped trial was better. {_RANK_ALL} {_again(results)}"
    for best in found.best:
        if best.edge:
            step = f"Widen: the best `{best.path}`, {show(best.best)}, is at the {best.edge} edge of what was tried."
            wider = _wider(results.space, best)
            yield f"{step} {wider} {_again(results)}" if wider else step
    yield from _cut_short(one)
    if len(one.runs) == 1 and found.answer.better is None:
        yield _more_seeds_of_best(results, one.runs[0])


def _mend_search(found: SearchFindings, one: Experiment) -> Iterator[str]:
    """What to change where trials overfit or start too high."""
    if init := init_of(found.results.trials):
        where = "with `--set`" if found.results.is_named else "under `base`"
        yield f"Initialize: {init} Set it {where}."
    if found.overfitted or one.overfitted:
        yield _less_overfitting(found.overfitted or one.overfitted)


def _less_overfitting(overfitted: Sequence[Overfit]) -> str:
    """The step that ends overfitting; another text or budget is another sweep."""
    lowest = between(one.best.tokens for one in overfitted)
    read = f" {passes}" if (passes := passes_of([one.trial for one in overfitted])) else ""
    return (
        f"Overfitting:{read} Use more training text (`data.path`), or fewer tokens (`budget.tokens`; the "
        f"validation loss was lowest at {lowest}), or regularize more (`optim.weight_decay`, "
        "`model.dropout`). Another text or budget needs another folder."
    )


def _wider(space: Space, best: BestValue) -> str:
    """What to change in the space to try values past the edge; empty if there are none or the space
    no longer has the path."""
    domain = space.space.get(best.path)
    if domain is None or not best.next:
        return ""
    key = f"space.{best.path}.{domain.kind()}"
    if domain.bounds is None:
        return f"Add {' and '.join(map(show, best.next))} to `{key}`."
    low, high = min(*domain.bounds, *best.next), max(*domain.bounds, *best.next)
    return f"Set `{key}: [{low:.15g}, {high:.15g}]`."


def _more_seeds_of_best(results: Results, run: Trial) -> str:
    """The step to run more seeds, because one is not enough."""
    step = f"More seeds: {named(run.values) or 'it'} was run with one seed."
    if results.is_named:
        other = f"{results.name}-seed{run.seed + 1}"
        command = with_option(_command(results), "--name", other)
        return f"{step} Run `{command} --set run.seed={run.seed + 1}`."
    if results.space.search is not None and results.space.search.method == "optuna":
        return f"{step} Set `confirm: {MORE_SEEDS}` in the space. {_again(results)}"
    return f"{step} {_with_seeds(results, MORE_SEEDS)} {_again(results)}"


def _with_seeds(results: Results, further: int) -> str:
    """What to write in the space to run this many more seeds."""
    seeds = results.space.seeds
    if isinstance(seeds, Looks):
        number = seeds.numbers[-1] + further
        if seeds.looks is not None:
            return f"Add {number} to `seeds.looks` in the space."
        return f"Set `seeds.at_most: {number}` in the space."
    after = range(max(seeds) + 1, max(seeds) + 1 + further)
    written = [str(seed) for seed in (*seeds, *after)]
    if len(written) > LONG:
        written = [*written[:3], "...", written[-1]]
    return f"Set `seeds: [{', '.join(written)}]` in the space."


def _next_of_arm(one: Experiment, arm: ArmFindings) -> Iterator[str]:
    results = one.results
    yield from _mend_arm(one, arm)
    if doubts(one.runs, one.against):
        return  # as in a search
    ways = {
        "grid edge": "Extend the grid under `retune`.",
        "grid missed": "Use a finer grid under `retune`.",
        "audit": _RANK_ALL,
    }
    for caution in arm.cautions:
        if caution.kind in ways:
            yield f"Re-tune: {caution.text}. {ways[caution.kind]} {_again(results)}"
    if not arm.runs.retuned and not one.has_twin and not one.is_baseline:
        yield (
            "Re-tune: it ran at the baseline's values, which may not be its best. "
            f"{_retuned(results.space, arm)} {_again(results)}"
        )
    if arm.verdict.seeds is not None:
        more = _with_seeds(results, arm.verdict.seeds)
        looks = results.sweep.looks
        level = f" The verdict will be at level {arm.level + 5}%." if looks else ""
        yield f"More seeds: {arm.verdict.detail}.{level} {more} {_again(results)}"


def _mend_arm(one: Experiment, arm: ArmFindings) -> Iterator[str]:
    """What to change where runs of an arm or of its baseline overfit or start too high."""
    overfitted = [found for run in (*one.runs, *one.against) if (found := overfit(run)) is not None]
    if overfitted:
        yield _less_overfitting(overfitted)
    own = "base" if one.is_baseline else f"arms.{arm.name}.set"
    for whose, runs, where in (("the baseline's", one.against, "base"), ("its", one.runs, own)):
        if (high := high_init(runs)) is not None:
            words = init_words(high.loss, high.uniform, high.setting)
            yield f"Initialize: {whose} {words}. Set it under `{where}`. {_again(one.results)}"
            return  # the arm shares what the base config sets


def _retuned(space: Space, arm: ArmFindings) -> str:
    """What to change in the space to re-tune an arm."""
    if space.retune:
        return f"Remove `arms.{arm.name}.retune: false`."
    scaled = space.each.scale if space.each else {}
    if LR in arm.runs.changes and LR not in scaled:  # the arms set the learning rate themselves
        return "Add `retune` to the space."
    return f"Add `retune: {{{LR}: {{times: [0.5, 1, 2]}}}}` to the space."


def _cut_short(one: Experiment) -> Iterator[str]:
    """Stopped trials whose loss was falling faster than the best trial's as far in its schedule."""
    early = [
        f"{cut.label} (by {cut.fall:.{DIGITS}f} against {cut.best_fall:.{DIGITS}f} since the previous "
        f"record, {when(cut.point)})"
        for cut in one.cut_short
    ]
    if early:
        trials = "1 trial was" if len(early) == 1 else f"{len(early)} trials were"
        its = "its" if len(early) == 1 else "their"
        yield (
            f"Audit: {trials} stopped while {its} loss was falling faster than the best trial's: "
            f"{', '.join(early)}. {_again(one.results, '--audit 1')}"
        )
