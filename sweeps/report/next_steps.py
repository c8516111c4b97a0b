"""What to do next, by the rules of docs/experiment_log.md, and the search space that does it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from sweeps.findings.arms import ArmFindings
from sweeps.findings.cautions import edge_of
from sweeps.findings.doubts import HighInit, doubts, high_init
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.experiments import Experiment, changes, experiments
from sweeps.findings.ranking import BestValue, NotSettled, is_sensible, lowest_rate
from sweeps.findings.results import Results
from sweeps.findings.stability import LR
from sweeps.findings.trends import DIGITS
from sweeps.findings.tuning import Unsettled
from sweeps.ledger import Row, Trial
from sweeps.outcomes import Overfit, overfit
from sweeps.plan.sections import BATCH, CONTEXT, Looks, Times
from sweeps.plan.space import Space
from sweeps.report.answer import unfinished_words
from sweeps.report.overfitting import passes_of
from sweeps.selection import when
from sweeps.text import (
    between,
    joined,
    named,
    portable,
    quantity,
    short_name,
    show,
    with_option,
)
from tinylm import config as cfg

MORE_SEEDS = 2  # additional seeds to run if the best has one seed
_RANK_ALL = (
    "Set `schedule: {policy: none}` in the space, which trains and ranks the stopped trials."
)
_EVERY_TRIAL = {"schedule": {"policy": "none"}}
LONG = 30  # longer lists of seeds are abbreviated
SHOWN = 3  # steps beside the answer; the summary has all


@dataclass(frozen=True)
class Step:
    """Something to do next."""

    words: str  # what, why and how; text in backquotes is code
    space: Row | None = None  # what differs in the space that does it; None if none does
    is_new: bool = False  # whether that is the space of another sweep
    path: str = ""  # whose best value it settles

    @property
    def why(self) -> str:
        """The sentence that says why."""
        return re.split(r"(?<=[.]) (?=[A-Z])", self.words, maxsplit=1)[0]


def steps_of(found: SearchFindings | StudyFindings) -> list[Step]:
    """What to do next after a sweep; of a study, each arm's steps begin with its name."""
    steps = [_resume(found)] if found.is_unfinished else []
    if isinstance(found, StudyFindings):
        steps += [_take_back(found.results, one) for one in found.unsettled if one.is_stopped]
    arms: dict[str, tuple[Step, list[str]]] = {}  # a step by its words, and the arms that it is for
    for one in experiments([found]):
        for step in next_steps(one):
            names = arms.setdefault(step.words, (step, []))[1]
            names += [] if one.arm is None else [f"`{one.arm.name}`"]
    for step, names in arms.values():
        if step.words not in {known.words for known in steps}:
            head = f"{joined(names)}: " if names else ""
            steps.append(replace(step, words=f"{head}{step.words}"))
    return steps


def next_words(found: SearchFindings | StudyFindings) -> list[str]:
    """The first steps, as they stand beside the answer; how many more there are."""
    steps = [f"Next: {step.words}" for step in steps_of(found)]
    more = len(steps) - SHOWN
    rest = f"{quantity(more, 'more step')} in the summary." if more > 0 else ""
    return [*steps[:SHOWN], *([rest] if rest else [])]


def space_of(results: Results, step: Step) -> Row | None:
    """The whole search space that takes a step, which runs at the scale of the sweep; None if the step
    needs none."""
    if step.space is None or results.sweep.request is None:
        return None
    base = cfg.flatten(results.base)
    try:
        scale = cfg.flatten(cfg.load(results.scale).model_dump())
    except cfg.ConfigError:  # its file is gone
        scale = {}
    written: Row = results.sweep.request["space"]
    changed = {path: value for path, value in base.items() if value != scale.get(path)}
    changed |= step.space.get("base", {})
    # Another sweep asks its own question, under the same conditions.
    same = {name: written[name] for name in _CONDITIONS if name in written}
    if step.path == CONTEXT and "match" in written:
        same["match"] = written["match"]
    kept = same if step.path else written
    whole = {**kept, **step.space, "base": changed}
    order = ("question", "base", *whole)
    return {name: whole[name] for name in dict.fromkeys(order) if whole.get(name, {}) != {}}


_CONDITIONS = ("metric", "resources", "caps", "target")


def next_space(results: Results, steps: Sequence[Step]) -> str:
    """The file of the space of the first step that is another sweep; empty if none is."""
    first = next((step for step in steps if step.is_new and step.space is not None), None)
    space = first and space_of(results, first)
    return as_yaml(space) if space else ""


def as_yaml(space: Row) -> str:
    """A search space as its file."""
    return yaml.safe_dump(space, sort_keys=False, default_flow_style=None, width=100)


def next_steps(one: Experiment) -> Iterator[Step]:
    """What to do next after an experiment, by the rules of docs/experiment_log.md."""
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


def _resume(found: SearchFindings | StudyFindings) -> Step:
    left = unfinished_words(found.results)
    if not left and isinstance(found, StudyFindings) and found.comparison is not None:
        worth = found.comparison.speedups
        left = "" if worth is None else f"{worth.why_not}."
    if found.results.is_running:
        return Step(
            f"Wait: the sweep is running{'; ' * bool(left)}{left[:1].lower()}{left[1:] or '.'}"
        )
    return Step(f"Resume: {left[:1].lower()}{left[1:]} {_again(found.results)}")


def _take_back(results: Results, one: Unsettled) -> Step:
    """The step after somebody stopped so many trials of an arm's re-tune grid that it chose no values."""
    stopped = [trial for trial in one.grid if trial.is_stopped_by_hand]
    furthest = max(stopped, key=lambda trial: trial.tokens)
    others = " and the same for the others that were stopped" * (len(stopped) > 1)
    steer = f"sweeps steer {results.name} finish {furthest.trial}"
    return Step(
        f"Take back: the re-tune grid of `{one.arm}` chose no values, because it was stopped by hand. "
        f"Run `{steer}` (`{furthest.label}`){others}. {_again(results)}"
    )


def _next_of_search(found: SearchFindings, one: Experiment) -> Iterator[Step]:
    results = found.results
    if found.is_unfinished:
        yield _resume(found)
    yield from _mend_search(found, one)
    if doubts(one.runs) or found.unfinished:
        # What is tried next would have the same problem; and nothing is tried in a sweep that its target
        # has ended, or before it has finished.
        return
    if found.answer.better is not None:
        words = f"Rank all: a stopped trial was better. {_RANK_ALL} {_again(results)}"
        yield Step(words, _EVERY_TRIAL)
    if found.diverged and not found.winner and not found.unfinished:
        yield _lower_rate(results, len(found.diverged))
    edges = [best for best in found.best if best.edge]
    if used_up := [best for best in edges if best.used_up]:
        yield _widen(results, used_up)
    elif edges:
        yield _draw_more(results, edges)
    yield from _cut_short(one)
    if found.not_settled:
        better = found.answer.better
        run = (found.winner if better is None else better.runs)[0]
        yield from (_settle(results, path, run) for path in found.not_settled)
    elif len(one.runs) == 1 and found.answer.better is None:
        yield _more_seeds_of_best(results, one.runs[0])


def _mend_search(found: SearchFindings, one: Experiment) -> Iterator[Step]:
    """What to change where trials overfit or start too high."""
    each = [init for run in found.results.trials if (init := high_init([run])) is not None]
    if each:
        whose = "the" if len(found.results.trials) == 1 else "the highest"
        worst, high = max(each, key=lambda init: init.loss), high_init(found.results.trials)
        where = "with `--set`" if found.results.is_named else "under `base`"
        lower = {"base": high.setting} if high is not None and high.setting else None
        yield Step(_initialize_words(whose, worst, where), lower, is_new=True)
    if found.overfitted or one.overfitted:
        yield Step(_less_overfitting(found.overfitted or one.overfitted))


def _less_overfitting(overfitted: Sequence[Overfit]) -> str:
    """The step that ends overfitting; another text or budget is another sweep."""
    lowest = between(one.best.tokens for one in overfitted)
    read = f" {passes}" if (passes := passes_of([one.trial for one in overfitted])) else ""
    return (
        f"Overfitting:{read} Use more training text (`data.path`), or fewer tokens (`budget.tokens`; the "
        f"validation loss was lowest at {lowest}), or regularize more (`optim.weight_decay`, "
        "`model.dropout`). Another text or budget needs another folder."
    )


def _widen(results: Results, edges: Sequence[BestValue]) -> Step:
    """The step to try values past the edge of what was tried."""
    sides = [
        f"the best `{best.path}`, {show(best.best)}, is at the {best.edge} end" for best in edges
    ]
    return _with_wider(results, edges, f"Widen: {joined(sides)} of what was tried.")


def _draw_more(results: Results, edges: Sequence[BestValue]) -> Step:
    """The step to draw more values from ranges in which nothing was drawn past the best one."""
    sides = [
        f"the best `{one.path}`, {show(one.best)}, is the {'lowest' if one.edge == 'low' else 'highest'}"
        for one in edges
    ]
    room = "its range has room beyond it" if len(sides) == 1 else "their ranges have room beyond"
    text = f"Draw more: {joined(sides)} that was drawn, and {room}."
    search = results.space.search
    if search is None or search.method == "grid":
        return Step(text)
    more = {**search.model_dump(), "samples": 2 * search.samples}
    words = f"Set `search: {flow(more)}` in the space."
    return Step(f"{text} {words} {_again(results)}", {"search": more})


def _lower_rate(results: Results, diverged: int) -> Step:
    """The step after a search in which trials diverged and none finished."""
    trials = quantity(len(results.trials), "trial")
    text = f"Lower the learning rate: {diverged} of {trials} diverged, and none finished."
    lowest = lowest_rate(results)
    if lowest is not None:
        return _with_wider(results, [lowest], text)
    return Step(
        f"{text} Set `optim.lr` below {show(results.base['optim']['lr'])}, in another folder."
    )


def _with_wider(results: Results, edges: Sequence[BestValue], text: str) -> Step:
    """A step that adds values past edges to the space."""
    space = results.space
    wider = {best.path: domain for best in edges if (domain := _wider(space, best))}
    if not wider:
        return Step(text)
    lines = [f"`{path}: {flow(domain)}`" for path, domain in wider.items()]
    tree = results.sweep.request["space"]["space"] if results.sweep.request else {}
    wide: Row = {"space": {**tree, **wider}}
    if space.search is not None and space.search.method != "grid":  # else no draw would be new
        wide["search"] = {**space.search.model_dump(), "samples": 2 * space.search.samples}
        lines.append(f"`search: {flow(wide['search'])}`")
    return Step(f"{text} Set {' and '.join(lines)} in the space. {_again(results)}", wide)


def flow(tree: Mapping[str, Any]) -> str:
    """A mapping in one line of YAML."""
    written = yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=True, width=10**6)
    return written.strip()


def _wider(space: Space, best: BestValue) -> Row:
    """The domain of a path with values past the edge; empty if there are none, the space no longer has the
    path, or its domain has no bounds or list of its own."""
    domain = space.space.get(best.path)
    if domain is None or not best.next:
        return {}
    kind = domain.kind()
    if domain.bounds is None:
        listed = [*domain.values, *best.next]
        return {kind: listed if best.edge == "high" else [*reversed(best.next), *domain.values]}
    if kind not in {"uniform", "loguniform", "int", "logint"}:
        return {}
    low, high = min(*domain.bounds, *best.next), max(*domain.bounds, *best.next)
    if kind in {"uniform", "loguniform"}:
        return {kind: [low, high]}
    step = domain.model_dump().get("step", 1)
    first, last = map(int, domain.bounds)
    return {
        **domain.model_dump(exclude_defaults=True),
        kind: [first - (first - int(low)) // step * step, last + (int(high) - last) // step * step],
    }


def _settle(results: Results, one: NotSettled, run: Trial) -> Step:
    """The step to compare the values of one path at the chosen values of the others."""
    name = short_name(one.path)
    others = joined([f"`{path}`" for path in one.others])
    ran = "compared on one seed while" if one.seeds == 1 else "because"
    fixed = joined([f"`{path}: {show(value)}`" for path, value in one.others.items()])
    text = f"Not settled: `{one.path}` (best: {show(one.best)}), {ran} {others} varied with it."
    if len(one.values) < 2:
        return Step(text)
    # What goes with the other values, such as a width that is a multiple of another, is in its config.
    whole = {path: now for path, (_, now) in changes(results.base, run.config).items()}
    own = {one.path, BATCH} if one.path == CONTEXT and results.space.match else {one.path}
    base = {path: value for path, value in {**whole, **one.others}.items() if path not in own}
    command = f"sweeps next {results.name} --path {one.path}"
    space = {
        "question": f"Which {name} is best at {named(one.others)}?",
        "base": base,
        "search": {"method": "grid"},
        "space": {one.path: {"grid": list(one.values)}},
        "seeds": list(range(1 + MORE_SEEDS)),
        **_EVERY_TRIAL,
    }
    return Step(
        f"{text} Fix {fixed}, and sweep `{one.path}` with {1 + MORE_SEEDS} seeds. `{command}` writes the "
        "space.",
        space,
        is_new=True,
        path=one.path,
    )


def _more_seeds_of_best(results: Results, run: Trial) -> Step:
    """The step to run more seeds, because one is not enough."""
    what = named(run.values) or "it"
    if run.role == "confirm":
        confirm = 1 + MORE_SEEDS
        text = f"More seeds: {what} is confirmed on one fresh seed. Set `confirm: {confirm}` in the space."
        return Step(f"{text} {_again(results)}", {"confirm": confirm})
    step = f"More seeds: {what} was run with one seed."
    if results.is_named:
        other = f"{results.name}-seed{run.seed + 1}"
        command = with_option(_command(results), "--name", other)
        return Step(f"{step} Run `{command} --set run.seed={run.seed + 1}`.")
    if results.space.search is not None and results.space.search.method == "optuna":
        text = f"{step} Set `confirm: {MORE_SEEDS}` in the space. {_again(results)}"
        return Step(text, {"confirm": MORE_SEEDS})
    words, space = _with_seeds(results, MORE_SEEDS)
    return Step(f"{step} {words} {_again(results)}", space)


def _with_seeds(results: Results, further: int) -> tuple[str, Row]:
    """What to write in the space to run this many more seeds, in words and as it is written."""
    seeds = results.space.seeds
    if isinstance(seeds, Looks):
        number = seeds.numbers[-1] + further
        written = seeds.model_dump(exclude_none=True)
        if seeds.looks is not None:
            looks = {**written, "looks": [*seeds.looks, number]}
            return f"Add {number} to `seeds.looks` in the space.", {"seeds": looks}
        at_most = {**written, "at_most": number}
        return f"Set `seeds.at_most: {number}` in the space.", {"seeds": at_most}
    every = [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + further)]
    shown = [str(seed) for seed in every]
    if len(shown) > LONG:
        shown = [*shown[:3], "...", shown[-1]]
    return f"Set `seeds: [{', '.join(shown)}]` in the space.", {"seeds": every}


def _next_of_arm(one: Experiment, arm: ArmFindings) -> Iterator[Step]:
    results = one.results
    yield from _mend_arm(one, arm)
    if doubts(one.runs, one.against):
        return  # as in a search
    ways: dict[str, tuple[str, Row | None]] = {
        "grid edge": _extended(results, arm),
        "grid missed": ("Use a finer grid under `retune`.", None),
        "audit": (_RANK_ALL, _EVERY_TRIAL),
    }
    for caution in arm.cautions:
        if caution.kind in ways:
            way, space = ways[caution.kind]
            yield Step(f"Re-tune: {caution.text}. {way} {_again(results)}", space)
    if not arm.runs.retuned and not one.has_twin and not one.is_baseline:
        way, space = _retuned(results, arm)
        text = "Re-tune: it ran at the baseline's values, which may not be its best."
        yield Step(f"{text} {way} {_again(results)}", space)
    if arm.verdict.seeds is not None:
        words, space = _with_seeds(results, arm.verdict.seeds)
        looks = results.sweep.looks
        level = (
            f" The verdict will have an error rate of {arm.level + 5}% in place of 5%."
            if looks
            else ""
        )
        yield Step(f"More seeds: {arm.verdict.detail}.{level} {words} {_again(results)}", space)


def _extended(results: Results, arm: ArmFindings) -> tuple[str, Row | None]:
    """What to change in the space where values that an arm's grid chose are at its edge, in words and as it
    is written."""
    wider: Row = {}
    for path, chosen in (arm.runs.chosen or {}).items():
        domain, edge = (results.space.retune or {}).get(path), edge_of(arm.runs, path, chosen)
        if domain is None or edge is None:
            continue
        side, further = edge
        further = round(further) if isinstance(chosen, int) else float(f"{further:.4g}")
        if further == chosen or not is_sensible(arm.runs.grid[0].config, {path: further}):
            continue
        if isinstance(domain, Times):  # of the value that the arm has
            end = min(domain.times) if side == "lowest" else max(domain.times)
            wider[path] = {"times": sorted([*domain.times, float(f"{end * further / chosen:.4g}")])}
        else:
            wider[path] = {"grid": sorted([*domain.values, further])}
    if not wider:
        return "Extend the grid under `retune`.", None
    tree = results.sweep.request["space"]["retune"] if results.sweep.request else {}
    lines = [f"`{path}: {flow(domain)}`" for path, domain in wider.items()]
    words = f"Extend the grid: set {' and '.join(lines)} under `retune`."
    return words, {"retune": {**tree, **wider}}


def _mend_arm(one: Experiment, arm: ArmFindings) -> Iterator[Step]:
    """What to change where runs of an arm or of its baseline overfit or start too high."""
    overfitted = [found for run in (*one.runs, *one.against) if (found := overfit(run)) is not None]
    if overfitted:
        yield Step(_less_overfitting(overfitted))
    own = "" if one.is_baseline else arm.name
    for whose, runs, of in (("the baseline's", one.against, ""), ("its", one.runs, own)):
        if (high := high_init(runs)) is not None:
            yield _initialize(one.results, whose, high, of)
            return  # the arm shares what the base config sets


def _initialize_words(whose: str, high: HighInit, where: str) -> str:
    """That a loss at init is too high, and where to set what lowers it."""
    above = f"Initialize: {whose} loss at init is {high.loss - high.uniform:.2f} nats above that of a uniform guess."
    return f"{above} Set `{flow(high.setting)[1:-1]}` {where}." if high.setting else above


def _initialize(results: Results, whose: str, high: HighInit, arm: str) -> Step:
    """The step to lower the loss at init of an arm, or without one in the base config: another sweep."""
    tree: Row = results.sweep.request["space"] if results.sweep.request else {}
    if not arm:
        lower = {"base": high.setting} if high.setting else None
        words = _initialize_words(whose, high, "under `base`, in another folder")
        return Step(words, lower, is_new=True)
    own = tree.get("arms", {}).get(arm)
    set_of_arm = own and {
        "arms": {**tree["arms"], arm: {**own, "set": {**own["set"], **high.setting}}}
    }
    text = f"{_initialize_words(whose, high, f'under `arms.{arm}.set`')} {_again(results)}"
    return Step(text, set_of_arm if high.setting else None)


def _retuned(results: Results, arm: ArmFindings) -> tuple[str, Row | None]:
    """What to change in the space to re-tune an arm, in words and as it is written."""
    space, tree = results.space, results.sweep.request["space"] if results.sweep.request else {}
    if space.retune:
        arms = tree.get("arms", {})
        own = {name: value for name, value in arms.get(arm.name, {}).items() if name != "retune"}
        return f"Remove `arms.{arm.name}.retune: false`.", {"arms": {**arms, arm.name: own}}
    scaled = space.each.scale if space.each else {}
    if LR in arm.runs.changes and LR not in scaled:  # the arms set the learning rate themselves
        return "Add `retune` to the space.", None
    retune = {LR: {"times": [0.5, 1, 2]}}
    return f"Add `retune: {flow(retune)}` to the space.", {"retune": retune}


def _cut_short(one: Experiment) -> Iterator[Step]:
    """Stopped trials whose loss was falling faster than the best trial's as far in its schedule."""
    early = [
        f"{cut.label} (by {cut.fall:.{DIGITS}f} against {cut.best_fall:.{DIGITS}f} since the previous "
        f"record, {when(cut.point)})"
        for cut in one.cut_short
    ]
    if early:
        trials = "1 trial was" if len(early) == 1 else f"{len(early)} trials were"
        its = "its" if len(early) == 1 else "their"
        yield Step(
            f"Audit: {trials} stopped while {its} loss was falling faster than the best trial's: "
            f"{', '.join(early)}. {_again(one.results, '--audit 1')}"
        )
