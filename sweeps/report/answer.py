"""The answer of a sweep in sentences: the same in the terminal, the summary, the page and the index."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Literal

from sweeps.findings.answer import (
    Answer,
    Caveat,
    Choice,
    LeftOut,
    Rival,
    RunnerUp,
    StoppedLower,
    WithdrawnLower,
    every_run,
)
from sweeps.findings.everything import Findings, SearchFindings, StudyFindings
from sweeps.findings.optimism import confirming
from sweeps.findings.results import (
    METRICS,
    UNITS,
    Results,
    back_words,
    status_of,
    steered_words,
)
from sweeps.report.overfitting import init_of, overfit_words, passes_of
from sweeps.report.race import race_words
from sweeps.report.risk import risk_words
from sweeps.report.speedup import speedup_sentences, target_sentences
from sweeps.report.tested import tested_words
from sweeps.selection import when
from sweeps.stats import NOISE_MARGIN
from sweeps.text import between, loss, named, quantity, sentence, tally

POLICYS_RANKING = "The ranking is the policy's, without the audited trials."
ONE_SEED = "One seed: a difference smaller than the seed noise means nothing."


def answer_words(found: SearchFindings | StudyFindings) -> list[str]:
    """The answer of a sweep: what it chose with the loss to quote, and the caveats; for a study, one
    sentence per arm; what the test text says, and how risky the choice is."""
    if isinstance(found, StudyFindings):
        return [*_of_study(found), *tested_words(found), *about_words(found)]
    more = [*tested_words(found), *risk_words(found.risk, found.results.name)]
    return [*chosen_words(found), *more, *caveat_words(found)]


def chosen_words(found: SearchFindings) -> list[str]:
    """What a search chose, after what an audit found to be better; empty if trials ended at a target."""
    return [] if found.results.to_target else list(_of_search(found))


def caveat_words(found: SearchFindings) -> list[str]:
    """What a reader of a search's answer has to know."""
    caveats = (_caveat(found, caveat) for caveat in found.answer.caveats)
    return [*about_words(found), *caveats]


def about_words(found: Findings) -> list[str]:
    """What a reader of the answer has to know of the runs: the race to a target, overfitting with the
    passes over the text, and a high loss at init."""
    race = [race_words(found.race)] if found.race is not None else []
    passes = [passes_of(found.results.trials)] if found.overfitted else []
    arms = found.comparison.arms if isinstance(found, StudyFindings) and found.comparison else ()
    told = {arm.name for arm in arms}  # the loss at init is in the caveats of each
    init = init_of([trial for trial in found.results.trials if trial.arm not in told])
    said = [*race, *overfit_words(found), *passes, init]
    return [words for words in said if words]


def _of_study(found: StudyFindings) -> Iterator[str]:
    """The verdict on each arm with its caveats, then those of the baseline alone."""
    arms = found.comparison.arms if found.comparison is not None else ()
    if len(arms) < 2:
        yield "No arm is settled yet."
    for one in found.unsettled:
        if one.is_stopped:
            said = steered_words(one.grid, "trial")
            yield f"The re-tune grid of {one.arm} chose no values: {said}."
    for arm in (*arms[1:], *arms[:1]):
        if not arm.runs.is_baseline:
            yield f"{arm.name}: {arm.verdict.words}."
        if arm.cautions:
            yield f"Caveats of {arm.name}: {arm.caveats}"
    if found.comparison is not None:
        yield from speedup_sentences(found.comparison, found.results)
        yield from target_sentences(found.comparison, found.results)


def better_words(found: Answer) -> str:
    """What an audit found to be better than the choice of the policy; empty if nothing is."""
    better = found.better
    if better is None:
        return ""
    ended = f"ended at {loss(better.loss)}" + _over(better.seeds)
    if better.chosen is None:
        return f"Only stopped trials finished, in an audit: {named(better.values)} {ended}."
    lead = (
        f"A stopped trial was better: {named(better.values)} {ended}"
        if better.among == 1
        else f"{better.among} stopped trials were better: {named(better.values)}, the best, {ended}"
    )
    where = " in the search" if found.choice is not None and found.choice.is_confirmed else ""
    return f"{lead}; the policy's choice has {loss(better.chosen)}{where}."


def _over(seeds: int) -> str:
    return f" (mean over {seeds} seeds)" if seeds > 1 else ""


def budgets_words(results: Results) -> str:
    """The caveat of a search whose trials were trained for different budgets."""
    tokens = between(trial.budget for trial in results.trials)
    return (
        f"The budgets differ ({tokens} tokens), and a longer run has a lower loss. Compare the losses "
        "with their compute in mind."
    )


def _of_search(found: SearchFindings) -> Iterator[str]:
    results, chosen = found.results, found.answer
    if chosen.better is not None:
        yield f"{better_words(chosen)} {POLICYS_RANKING}"
    if chosen.choice is not None:
        yield _choice(results, chosen, chosen.choice)
    elif chosen.better is None:
        yield f"No trial has finished yet.{_so_far(found)}"


def _so_far(found: SearchFindings) -> str:
    """The lowest loss of trials that have not finished; empty if they were measured at no common point."""
    results, so_far = found.results, found.common
    if not so_far.trial_results or not found.unfinished:
        return ""
    measured = [group for group in found.spread if group.mean is not None]
    most = max(group.n for group in measured)
    first = min((g for g in measured if g.n == most), key=lambda g: g.mean or 0.0)
    number, what = len(measured), "mean losses" if most > 1 else "losses"
    lowest = f"lowest of {number} {what}" if number > 1 else f"only {what.removesuffix('es')}"
    value = f"{loss(first.mean)} {UNITS[results.metric]}"
    point = when(so_far.point)
    name = results.called(first.values)
    return (
        f" {point[:1].upper()}{point[1:]}, {name} has the {lowest} so far: {value}{_over(first.n)}."
    )


def claim(found: Answer, among: int) -> str:
    """The end of a sentence on the choice: no more than its comparison supports."""
    if found.better is not None:
        return f"is the policy's choice of {among}"
    return f"has the lowest loss of {among}" if found.unequal else f"is the best of {among}"


def _updates_words(results: Results) -> str:
    """That context lengths whose updates differ in size do not show which one is the best."""
    lengths = results.context_lengths
    assert lengths is not None  # `unequal` names the updates
    updates = set.union(*lengths.updates.values())
    if results.budgets_differ or not updates:
        differ = f"Updates have {between(set.union(*lengths.per_update.values()))} tokens"
    else:
        differ = (
            f"All trials train on the same number of tokens, but make {between(updates)} updates"
        )
    return f" {differ}, so this does not show which context length is the best."


def _choice(results: Results, found: Answer, choice: Choice) -> str:
    """What was chosen, with the loss to quote and what that rests on."""
    what = results.called(choice.values)
    if choice.among > 1:
        what += f" {claim(found, choice.among)}"
    if choice.tied:
        what += f", with the same loss as {' and '.join(map(named, choice.tied))}"
    differ = _updates_words(results) if "updates" in found.unequal and choice.among > 1 else ""
    return f"{what}: {quoted(results, choice)} {when(found.point)}, {_basis(choice)}.{differ}"


def quoted(results: Results, choice: Choice) -> str:
    """The loss of a choice, with its name and unit."""
    return f"{METRICS[results.metric]} {loss(choice.loss)} {UNITS[results.metric]}"


def _basis(choice: Choice) -> str:
    if choice.is_confirmed:
        seeds = quantity(choice.seeds, "fresh seed")
        return (
            f"{'the mean over' if choice.seeds > 1 else 'on'} {seeds} "
            f"({loss(choice.searched)} in the search, which chose it)"
        )
    return f"the mean over {choice.seeds} seeds" if choice.seeds > 1 else "with 1 seed"


def unfinished_words(results: Results) -> str:
    """How many trials have not finished, and that what they have measured is not final."""
    going, every = results.having("unfinished"), quantity(len(results.asked), "trial")
    measured = sum(bool(trial.curve) for trial in going)
    said = []
    if measured == 1:
        said.append(f"1 of {every} has not finished; its loss so far is not final.")
    elif measured:
        said.append(f"{measured} of {every} have not finished; their losses so far are not final.")
    if measured < len(going):
        said.append(f"No result yet for {len(going) - measured} of {every}.")
    return " ".join(said)


def _stopped_lower_words(lower: Sequence[StoppedLower]) -> str:
    """That stopped trials had a lower loss than the best, which overfitted, has at its end."""
    first = lower[0]
    branch = " after a decay branch" if first.is_decayed else ""
    there = f"{loss(first.loss)}{branch} at {first.tokens:,} tokens"
    if len(lower) == 1:
        return (
            f"The best trial overfitted: {first.trial.label} had a lower loss when it was stopped ({there}) than "
            "the best has at its end."
        )
    return (
        f"The best trial overfitted: {len(lower)} trials had a lower loss when they were stopped than the best "
        f"has at its end. The lowest is that of {first.trial.label}: {there}."
    )


def _withdrawn_lower_words(gone: WithdrawnLower) -> str:
    """That values that the space no longer has are better than the choice."""
    shared = quantity(gone.seeds, "seed")
    on = f"on the {shared} that both have" if gone.seeds else "on other seeds"
    losses = f"{on}: {loss(gone.loss)} against {loss(gone.chosen)}"
    if gone.among == 1:
        return f"{named(gone.values)}, which the space no longer has, ended lower {losses}."
    return (
        f"{gone.among} choices of values that the space no longer has ended lower. The lowest is "
        f"{named(gone.values)}, {losses}."
    )


def _left_out_words(left: LeftOut) -> str:
    """That fresh seeds are not in the loss that is quoted, and what it would be with them."""
    number = len(left.trials)
    lost = [status for trial in left.trials if (status := trial.status) != "finished"]
    which = f"{quantity(number, 'fresh seed')} that the space no longer asks for"
    said = f"Left out: {which}{f' ({tally(lost)})' if lost else ''}."
    if not left.every:
        return said
    finished = quantity(len(left.every), "fresh seed")
    which = (
        f"The mean over all {finished} that finished"
        if len(left.every) > 1
        else "The loss of the one that finished"
    )
    return f"{said} {which} is {loss(statistics.fmean(left.every))}."


def _rival_words(rival: Rival) -> str:
    """That values with fewer seeds than the choice may be better."""
    return (
        f"{named(rival.values)} has finished on fewer seeds, but has a lower loss on the {quantity(rival.seeds, 'seed')} "
        f"that both have: {loss(rival.loss)} against {loss(rival.chosen)}. Train it on the others before choosing."
    )


def _noise_words(choice: Choice, other: RunnerUp) -> str:
    """That the choice is within the noise of the runner-up."""
    means = f"mean losses over {other.seeds} seeds" if other.seeds > 1 else "losses"
    where = " in the search" if choice.is_confirmed else ""
    return (
        f"{named(choice.values)} is within the noise of {named(other.values)}: their {means}{where} differ "
        f"by {loss(other.behind)}, and {NOISE_MARGIN:g} standard deviations of such a difference are "
        f"{loss(other.noise)}."
    )


def _fresh_words(found: SearchFindings, caveat: Literal["lost", "confirming", "left out"]) -> str:
    """What a reader has to know of the fresh seeds."""
    left = found.answer.left_out
    fresh = [status_of(trial) for trial in confirming(found.results)]
    every = quantity(len(fresh), "fresh seed")
    if caveat == "left out":
        return "" if left is None else _left_out_words(left)
    if caveat == "confirming":
        return f"No result yet for {fresh.count('unfinished')} of {every}."
    lost = tally(status for status in fresh if status in {"diverged", "failed"})
    return f"Of {every}, {lost}."


def _caveat(found: SearchFindings, caveat: Caveat) -> str:
    results = found.results
    match caveat:
        case "budgets differ":
            return budgets_words(results)
        case "context lengths":
            lengths = results.context_lengths
            return " ".join(lengths.words) if lengths is not None else ""
        case "rival":
            return "" if found.answer.rival is None else _rival_words(found.answer.rival)
        case "within noise":
            other, choice = found.answer.runner_up, found.answer.choice
            return "" if other is None or choice is None else _noise_words(choice, other)
        case "one seed":
            return ONE_SEED
        case "lost" | "confirming" | "left out":
            return _fresh_words(found, caveat)
        case "steered":
            runs = every_run(results)
            said = (steered_words(runs, "trial"), back_words(results, runs))
            return " ".join(sentence(words) for words in said if words)
        case "unfinished":
            return unfinished_words(results)
        case "stopped lower":
            return _stopped_lower_words(found.answer.stopped_lower)
        case "withdrawn lower":
            gone = found.answer.withdrawn_lower
            return "" if gone is None else _withdrawn_lower_words(gone)
