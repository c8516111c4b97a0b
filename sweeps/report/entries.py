"""The entries of an experiment log, from the findings of each sweep."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from sweeps.exits import UsageError
from sweeps.findings.doubts import doubts
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings
from sweeps.findings.experiments import (
    Comparison,
    Experiment,
    Incomparable,
    Term,
    Terms,
    changes,
    comparable,
    compared,
    experiments,
)
from sweeps.findings.results import METRICS
from sweeps.ledger import BASELINE, Row, Trial
from sweeps.report.answer import better_words, caveat_words, chosen_words
from sweeps.report.next_steps import next_steps
from sweeps.report.observations import observations
from sweeps.report.overfitting import init_of
from sweeps.report.risk import risk_words
from sweeps.report.speedup import speedup_words, target_words
from sweeps.report.strategy import strategy
from sweeps.report.tested import arm_test_words, tested_words
from sweeps.text import quantity, sentence, share, show, times
from tinylm import config as cfg


@dataclass(frozen=True)
class Entry:
    """The content of one experiment in the log."""

    name: str
    sweep: str
    date: str  # of the first record
    why: str
    is_baseline: bool
    baseline: str
    terms: Terms
    configuration: list[str]
    changes: dict[str, tuple[str, str]]  # path -> before and after
    strategy: list[str]  # how the values were found
    params: int
    flops: int  # of the longest run
    runs: int
    finished: int
    train_loss: float | None  # mean over the finished runs, like the next three
    val_loss: float | None
    bits_per_byte: float | None
    best_val_loss: float | None
    best_step: int | None
    hours: float | None  # median
    tokens_per_s: float | None  # median
    comparison: Comparison | None
    no_comparison: str  # why there is no comparison
    compared: str  # the comparison in words, without the doubts that the verdict tells, or why there is none
    answer: list[str]  # of a search: what it chose, with the loss to quote
    verdict: str
    speedup: str  # of an arm, in tokens of the baseline; empty if it is not known
    test: list[str]  # what the test text says
    doubts: str  # about its losses, if the verdict does not say so
    patterns: str
    observations: list[str]
    next_steps: list[str]

    def as_json(self) -> Row:
        """The entry for programs. `terms` are what its losses can be compared on."""
        return asdict(self)


def entries_under(folder: Path, reader: Reader | None = None) -> list[Entry]:
    """The experiments of all sweeps in a folder that can be read."""
    return entries_of((reader or Reader()).under(folder))


def find_entries(folder: Path, names: Sequence[str]) -> list[Entry]:
    """The experiments of these names in a folder; `UsageError` with every name that does not exist, and
    the error of a sweep that can't be read."""
    reader = Reader()
    found = {entry.name: entry for entry in entries_under(folder, reader)}
    for name, why in reader.left_out(folder).items():
        if name in {asked.partition("/")[0] for asked in names}:
            raise why
    there = f"; there are {', '.join(found) or 'none'}"
    wrong = []
    for name in names:
        inner = [entry.name for entry in found.values() if entry.sweep == name]
        if name in found:
            continue
        if inner:
            wrong.append(f"{name} is a study; its experiments are {', '.join(inner)}")
        else:
            near = cfg.did_you_mean(name, found) or there
            wrong.append(f"{name}: no such experiment under {folder}/{near}")
    if wrong:
        raise UsageError("\n".join(wrong))
    return [found[name] for name in names]


def entries_of(all_findings: Sequence[SearchFindings | StudyFindings]) -> list[Entry]:
    """The log entries of the experiments of sweeps."""
    return [_entry(one) for one in experiments(all_findings)]


def _entry(one: Experiment) -> Entry:
    first, alike, best, comparison = one.runs[0], one.are_alike, one.best, compared(one)
    in_verdict = one.arm is not None and bool(one.arm.verdict.doubts)
    told = one.arm.runs.changes if one.arm is not None else {}
    why_not = _why_not(one, comparison) if isinstance(comparison, Incomparable) else ""
    found = comparison if isinstance(comparison, Comparison) else None
    measured = "" if found is None else found.measured if in_verdict else found.words
    return Entry(
        name=one.name,
        sweep=one.results.name,
        date=one.date,
        why=one.why,
        is_baseline=one.is_baseline,
        baseline=one.baseline,
        terms=one.terms,
        configuration=configuration(first) if one.whole and alike else [],
        changes={
            path: (_value(was), _value(now))
            for path, (was, now) in changes(one.base, first.config).items()
            if alike or path in told
        },
        strategy=strategy(one.results),
        params=first.params,
        flops=one.flops,
        runs=len(one.runs),
        finished=len(one.finished),
        train_loss=one.train_loss,
        val_loss=one.val_loss,
        bits_per_byte=one.bits_per_byte,
        best_val_loss=best and best.val_loss,
        best_step=best and best.step,
        hours=None if one.seconds is None else one.seconds / 3600,
        tokens_per_s=one.tokens_per_s,
        comparison=found,
        no_comparison=why_not,
        compared=why_not or measured,
        answer=_answer(one),
        verdict=_verdict(one),
        speedup=_speedup(one),
        test=_test(one),
        doubts="" if in_verdict else " and ".join(doubt.words for doubt in doubts(one.runs)),
        patterns=_patterns(one),
        observations=list(
            dict.fromkeys(
                [
                    *_caveats(one),
                    *observations(one),
                    *_risk(one),
                    *_to_target(one),
                    *_cautions(one),
                ]
            )
        ),
        next_steps=[step.words for step in next_steps(one)],
    )


def _verdict(one: Experiment) -> str:
    """The verdict on an arm; of a search, what an audit found to be better than its choice."""
    if isinstance(one.findings, SearchFindings):
        return better_words(one.findings.answer)
    return one.arm.verdict.words if one.arm and not one.is_baseline else ""


def _speedup(one: Experiment) -> str:
    """What an arm is worth in tokens of the baseline; empty if that is not known."""
    compared = one.findings.comparison if isinstance(one.findings, StudyFindings) else None
    return "" if one.arm is None or compared is None else speedup_words(one.arm, compared)


def _to_target(one: Experiment) -> list[str]:
    """What an arm took to the target of its study."""
    words = "" if one.arm is None else target_words(one.arm, one.results)
    return [sentence(words)] if words else []


def _answer(one: Experiment) -> list[str]:
    """What a search chose; empty for a single config, which had no choice."""
    if not isinstance(one.findings, SearchFindings) or not one.results.swept:
        return []
    return chosen_words(one.findings)


def _test(one: Experiment) -> list[str]:
    """What the test text says of the choice of a search, or of an arm."""
    if isinstance(one.findings, SearchFindings):
        return tested_words(one.findings)
    return [] if one.arm is None else arm_test_words(one.findings, one.arm.name)


def _caveats(one: Experiment) -> list[str]:
    """The caveats of a search; of an arm without a comparison, that its runs start too high."""
    if isinstance(one.findings, SearchFindings):
        return caveat_words(one.findings)
    words = init_of(one.runs) if one.arm is None else ""
    return [words] if words else []


def _risk(one: Experiment) -> list[str]:
    """How risky the choice of a search is."""
    found = one.findings
    return risk_words(found.risk, found.results.name) if isinstance(found, SearchFindings) else []


def _cautions(one: Experiment) -> Iterator[str]:
    """The caveats of an arm's comparison with its baseline, without those that its patterns are."""
    for caution in one.arm.cautions if one.arm is not None else ():
        if caution.kind != "outcomes":
            yield f"Caveat: {caution.text}."


def _value(value: Any) -> str:
    return "none" if value is None else show(value)


def configuration(trial: Trial) -> list[str]:
    """A whole config in the template's words, one line per setting."""
    config = cfg.validate(trial.config, trial.label)
    model, optim, budget = config.model, config.optim, config.budget
    end = (
        f"{budget.seconds:g} seconds"
        if budget.seconds is not None
        else f"{config.steps:,} iterations"
    )
    decay = f"{optim.schedule} decay"
    if optim.schedule == "wsd":
        decay = f"warm-up-stable-decay with a decay over the last {optim.decay_fraction:.0%}"
    warmup = (
        f"a warm-up over {optim.warmup_fraction:.0%} of the time"
        if budget.seconds is not None
        else f"{round(config.steps * optim.warmup_fraction)}-step warm-up"
    )
    corpus = f"{config.data.corpus} {config.data.path}" if config.data.path else config.data.corpus
    lowest = optim.lr * optim.lr_final_fraction
    often = ""
    if trial.passes is not None:
        read = trial.passes, trial.passes
        often = f"; a run reads {f'{share(*read)} of it' if trial.passes < 1 else f'it about {times(*read)}'}"
    clip = "none" if optim.clip_norm == "none" else f"gradient clipping at {optim.clip_norm:g}"
    return [
        f"Model: {model.n_layers} layers, {model.d_model} hidden dim, {model.n_heads} heads, "
        f"{model.d_ff} FFN dim ({trial.params:,} parameters); norm {model.norm}, position "
        f"{model.position}, FFN {model.ffn}",
        f"Training: {end}, batch size {optim.batch_size}, context length {model.context_length}",
        f"Learning rate: {show(optim.lr)} (peak), {show(lowest)} (min), {warmup}, {decay}",
        f"Optimizer: AdamW (β1={optim.beta1:g}, β2={optim.beta2:g}, weight "
        f"decay={show(optim.weight_decay)})",
        f"Regularization: {clip}",
        f"Dataset: {corpus} (vocabulary of {model.vocab_size:,} tokens; digest of documents, split and "
        f"vocabulary: {trial.corpus}){often}",
    ]


def _patterns(one: Experiment) -> str:
    """The problems in the curves of the runs, by kind."""
    kinds = Counter(one.outcomes)
    total = quantity(len(one.begun), "run")
    found = ", ".join(f"{number} of {total} {kind}" for kind, number in kinds.items())
    return found or "no run spiked, diverged, overfitted or got stuck"


def _why_not(one: Experiment, found: Incomparable) -> str:
    """Why an experiment can't be compared with its baseline."""
    is_single = not one.results.is_study and not one.results.swept
    match found.kind:
        case "void":
            return "none (the change had no effect)"
        case "no baseline":
            return (
                f"none (no experiment has a name that begins with {BASELINE})"
                if is_single
                else "none (the baseline has not been run)"
            )
        case "no run finished":
            return "none (no run finished)"
        case "other terms":
            assert found.terms is not None  # of this kind
            return f"not compared: {differing_words(*found.terms)}"
        case "other seeds":
            there = (
                "the baseline"
                if one.results.is_study or is_single
                else "the run at the base config's values"
            )
            return f"none ({there} did not finish on the same seeds)"


def _term_words(terms: Terms, term: Term) -> str:
    match term:
        case "metric":
            return METRICS[terms.metric]
        case "text":
            return f"{terms.text['path'] or terms.text['corpus']} with digest {terms.corpus}"
        case "tokenizer":
            return f"vocabulary of {terms.vocabulary:,}"
        case "budget" if terms.budget["seconds"] is not None:
            return f"{terms.budget['seconds']:g} seconds"
        case "budget":
            return f"{terms.budget['tokens']:,} tokens"
        case "validation tokens":
            return f"{terms.validation_tokens:,}"
        case "validation blocks":
            return f"of {terms.block:,} tokens"
        case "end":
            return "that of its budget" if terms.is_whole else "at the target"


def differing_words(one: Terms, other: Terms) -> str:
    """What keeps the losses of one from being compared with those of the other."""
    parts = [
        f"other {term} ({_term_words(one, term)}, not {_term_words(other, term)})"
        for term in one.differing(other)
    ]
    return ", ".join(parts)


def group_names(all_terms: Sequence[Terms]) -> list[str]:
    """The letter of each one's group: losses can be compared within a group only. All are empty if
    there is one group."""
    numbers = comparable(all_terms)
    return [_letters(number) if any(numbers) else "" for number in numbers]


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)


def group_terms(all_terms: Sequence[Terms]) -> dict[str, str]:
    """What each group is by its letter, in the terms that differ between groups; empty if there is one
    group."""
    firsts: dict[str, Terms] = {}
    for name, one in zip(group_names(all_terms), all_terms, strict=True):
        firsts.setdefault(name, one)
    pairs = itertools.combinations(firsts.values(), 2)
    differ = {term for one, other in pairs for term in one.differing(other)}
    ordered = [term for term in get_args(Term) if term in differ]
    words = {
        name: ", ".join(f"{term} {_term_words(one, term)}" for term in ordered)
        for name, one in firsts.items()
    }
    return words if differ else {}


def group_words(all_terms: Sequence[Terms]) -> list[str]:
    """That losses can be compared within a group only, and what each group is; empty if there is one."""
    groups = group_terms(all_terms)
    lines = [f"Group {name}: {words}" for name, words in groups.items()]
    return ["Losses can be compared within a group only.", *lines] if groups else []
