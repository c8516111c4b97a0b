"""summary.md: the findings of a sweep in words."""

from collections import Counter
from collections.abc import Sequence

from sweeps.findings.compute import Compute, Forecast
from sweeps.findings.everything import Findings, SearchFindings, StudyFindings
from sweeps.findings.ranking import Ended
from sweeps.findings.results import ENDINGS, METRICS, status_words
from sweeps.outcomes import RULES
from sweeps.report import search_summary as search
from sweeps.report import study_summary as study
from sweeps.report.head import answer_and_best
from sweeps.report.markdown import (
    ID,
    REASON,
    TRIAL,
    Column,
    escaped,
    listed,
    models,
    sizes,
    table,
    with_code,
)
from sweeps.report.next_steps import next_space, steps_of
from sweeps.report.overfitting import overfit_section, passes_of
from sweeps.report.race import race_table
from sweeps.report.tested import tested_section
from sweeps.selection import when
from sweeps.text import count, duration, joined, quantity, sentence, whole


def markdown(found: SearchFindings | StudyFindings, figures: Sequence[str], best: str = "") -> str:
    """summary.md, with links to the figures of these names; `best` says where the best checkpoint is."""
    lines = [*_title(found), *_head_words(found, best)]
    if isinstance(found, StudyFindings):
        lines += study.verdict_words(found)
        lines += overfit_section(found)
        lines += tested_section(found)
        lines += study.tuning_words(found)
        lines += _noise_words(found)
        lines += _ended_words(found)
    else:
        lines += search.values_words(found)
        lines += search.ranking_words(found)
        lines += overfit_section(found)
        lines += search.best_words(found)
        lines += search.rate_words(found)
        lines += search.selection_words(found)
        lines += search.stopped_words(found)
        lines += search.audit_words(found)
        lines += _ended_words(found)
        lines += search.common_words(found)
        lines += search.spread_words(found)
        lines += _noise_words(found)
    if found.race is not None:
        lines += race_table(found.race)
    lines += [*_rule_words(found), *_compute_words(found)]
    links = [f"![{name.replace('_', ' ')}]({name}.svg)\n" for name in figures]
    return "\n".join([*lines, "## Figures", "", *links])


REACHED = (
    Column[Ended]("reached step", lambda p: whole(p.reached_step)),
    Column[Ended]("reached tokens", lambda p: whole(p.reached_tokens)),
    Column[Ended](
        "last validation loss (step)",
        lambda p: "" if p.record is None else f"{p.record.val_loss:.4f} ({p.record.step:,})",
    ),
)


def _title(found: Findings) -> list[str]:
    results = found.results
    planned, unfinished = len(results.asked), found.count("unfinished")
    counts = Counter(status_words(one) for status in ENDINGS for one in results.having(status))
    parts = [f"{count} {ending}" for ending, count in counts.items()]
    state = "**unfinished:** " * found.is_unfinished
    state += f"results for {planned - unfinished} of {quantity(planned, 'trial')}"
    lines = [
        f"# {escaped(results.question)}",
        "",
        f"`{results.name}` at scale `{results.scale}`, "
        f"{results.begun[:16].replace('T', ' ')} to {results.latest[:16].replace('T', ' ')} UTC; "
        f"{state}"
        f"{': ' + ', '.join(parts) if parts else ''}.",
        "",
    ]
    return lines + [line for note in found.notes for line in (escaped(sentence(note)), "")]


def _head_words(found: SearchFindings | StudyFindings, best: str) -> list[str]:
    """The answer with its caveats, the best checkpoint, and what to do next."""
    first, *rest = map(with_code, answer_and_best(found, best))
    steps = steps_of(found)
    words = [with_code(step.words) for step in steps] or ["None suggested by the data."]
    space = next_space(found.results, steps)
    block = [f"The space of the first step that needs a new sweep:\n\n```yaml\n{space}```\n"]
    return [
        f"**{first}**",
        "",
        *(line for words in rest for line in (words, "")),
        "## Next steps",
        "",
        *listed(words),
        *(block if space else []),
    ]


def _ended_words(found: Findings) -> list[str]:
    lines = []
    titles = {
        "Diverged": found.diverged,
        "Failed": found.failed,
        "Unfinished": found.unfinished,
        "Withdrawn": found.withdrawn,
    }
    for title, trial_results in titles.items():
        if trial_results:
            gone = " The space no longer has these trials." * (title == "Withdrawn")
            lines += [f"## {title}", "", f"Not ranked. {models(trial_results)}{gone}", ""]
            lines += table(trial_results, TRIAL, *REACHED, REASON, ID, *sizes(trial_results))
    return lines


def _noise_words(found: Findings) -> list[str]:
    if found.noise is None:
        return []
    lines = ["## Noise", ""]
    noise = found.noise.noise
    if noise is not None:
        groups = ", ".join(map(str, found.noise.groups))
        lines += [
            f"Over seeds, the {METRICS[found.results.metric]} {when(found.noise.point)} has "
            f"a standard deviation of **{noise.sd:.4f}** (95% interval {noise.low:.4f} to "
            f"{noise.high:.4f}; {noise.freedom} degrees of freedom, seeds per group: {groups}).",
            "",
        ]
    apart = found.noise.repeats_apart
    if apart is not None:
        how = (
            "are identical bit for bit"
            if apart == 0
            else f"differ by up to {apart:.2g} in their recorded losses"
        )
        runs = ", ".join(map(str, found.noise.repeats))
        lines += [f"Repeats of one config and seed ({runs} runs) {how}.", ""]
    return lines


def _rule_words(found: Findings) -> list[str]:
    """The rules of the problems found in any trial."""
    if not found.outcomes:
        return []
    lines = [f"- {kind}: {RULES[kind]}." for kind in found.outcomes]
    return ["## Problems, by rule", "", *lines, ""]


def _compute_words(found: Findings) -> list[str]:
    spent = found.compute
    parts = {
        "repeated": spent.tokens_repeated,
        "in decay branches": spent.tokens_branches,
        "in audits": spent.tokens_audit,
    }
    detail = ", ".join(f"{tokens:,} {what}" for what, tokens in parts.items() if tokens)
    share = "none" if spent.share is None else f"{spent.share:.0%}"
    gone = spent.tokens_withdrawn
    withdrawn = f" Trials that the space no longer has used {gone:,} more tokens." if gone else ""
    passes = passes_of(found.results.trials)
    lines = [
        "## Compute",
        "",
        *([passes, ""] if passes else []),
        f"Trained on {spent.tokens_kept:,} tokens{f' ({detail})' if detail else ''}, {share} of the "
        f"{spent.tokens_full:,} tokens that training every trial to the end would take. Used "
        f"{count(spent.flops - spent.flops_withdrawn)} of {count(spent.flops_full)} FLOPs and "
        f"{duration(spent.seconds)} of training time, summed over trials and without evaluation."
        f"{withdrawn}",
        "",
    ]
    if spent.forecast is not None:
        lines += [_forecast_words(spent, spent.forecast, ended=not found.is_unfinished), ""]
    return lines


def _forecast_words(spent: Compute, planned: Forecast, *, ended: bool) -> str:
    """What was expected and what was used: since the space was last changed, if something was trained before. The time
    is known for the whole sweep alone."""
    numbers = (planned.tokens, planned.low, planned.high)
    tokens, low, high = (planned.left(number) for number in numbers)
    spread = f" ({low:,} to {high:,})" if low < high else ""
    more = f" ({planned.since / tokens - 1:+.0%})" if ended and tokens else ""
    used = f"used {planned.since:,}{more}" if ended else f"has used {planned.since:,} so far"
    others = {"the audit": spent.tokens_audit, "withdrawn trials": spent.tokens_withdrawn}
    apart = joined([what for what, number in others.items() if number])
    took = f"{'took' if ended else 'has taken'} {duration(spent.wall_clock)}"
    took = f"The sweep {took}{f', including {apart}' if apart else ''}."
    if planned.before:
        then = f" The forecast ({planned.basis}) was {tokens:,} more{spread}." if tokens else ""
        return (
            f"When the sweep was last changed, its trials had been trained on {planned.before:,} tokens."
            f"{then} Since then it {used}. {took}"
        )
    words = planned.words
    expected = f" The expected time was {words}, without evaluation." if words else ""
    return (
        f"The forecast ({planned.basis}) was {tokens:,} tokens{spread}. The sweep {used}.{expected} "
        f"{took}"
    )
