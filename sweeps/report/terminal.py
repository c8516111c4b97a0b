"""Tables for the terminal: the result of a sweep, experiments, replays of policies."""

import re
import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.findings.compute import Compute
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.experiments import Comparison
from sweeps.findings.results import TrialResult, status_words
from sweeps.ledger import AT_TARGET, Row
from sweeps.outcomes import outcome
from sweeps.report.entries import Entry, differing_words, group_names, group_words
from sweeps.report.head import head_words
from sweeps.report.next_steps import as_yaml
from sweeps.report.study_summary import OWN_SEEDS
from sweeps.selection import Metric, groups, last_record
from sweeps.simulate.judge import KEPT, Judgment, recommended
from sweeps.text import count, duration, loss, one_line, signed, whole


def print_result(found: SearchFindings | StudyFindings, console: Console, best: str = "") -> None:
    """Print the result of a sweep: a table that fits in 80 columns, and what the head of every text says;
    `best` says where the best checkpoint is."""
    console.print(Text(one_line(found.results.question)), style="bold")
    if isinstance(found, StudyFindings):
        _print_arms(found, console)
    else:
        _print_ranking(found, console)
    for number, words in enumerate(head_words(found, best)):
        for line in broken(words, console.width) if console.is_terminal else [words]:
            console.print(Text(line, style="" if number else "bold"), soft_wrap=True)
    if not found.is_unfinished:
        console.print(_time_words(found.compute), highlight=False, soft_wrap=True)


# A word, or a text between backquotes with what surrounds it, which is never broken.
_UNBROKEN = re.compile(r"(?:[^\s`]|`[^`]*`)+|`")


def broken(words: str, width: int) -> list[str]:
    """Sentences as lines that fit; a text between backquotes, such as a command that is copied, stays whole."""
    lines = [""]
    for word in _UNBROKEN.findall(words):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and cell_len(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _time_words(spent: Compute) -> str:
    """How long the sweep took, and how long it was expected to take; audits and withdrawn trials are not in a
    forecast."""
    others = {"audits": spent.tokens_audit, "withdrawn trials": spent.tokens_withdrawn}
    apart = [f", and {count(tokens)} in {what}" for what, tokens in others.items() if tokens]
    own = count(spent.tokens_kept - spent.tokens_audit)
    took = f"Took {duration(spent.wall_clock)}, {own} tokens{''.join(apart)}."
    planned = spent.forecast
    if planned is None:
        return took
    if planned.before:
        left = planned.left(planned.tokens)
        expected_then = f"; forecast for it: {count(left)} tokens" if left else ""
        since = f"{count(planned.since)} since the last change of the sweep"
        return f"{took} Of these, {since}{expected_then}."
    expected = [planned.words, f"{count(planned.tokens)} tokens"]
    return f"{took} Forecast: {', '.join(filter(None, expected))}."


def _print_arms(found: StudyFindings, console: Console) -> None:
    """Print the arms with their losses; the verdicts follow in sentences."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold", max_width=24)
    for name in ("seeds", "loss", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for arm in found.comparison.arms if found.comparison is not None else ():
        mean, difference = loss(arm.mean), signed(arm.effect and arm.effect.mean)
        table.add_row(*map(Text, (arm.name, str(arm.n), mean, difference, arm.verdict.kind)))
    console.print(table)
    if found.comparison is not None and found.comparison.seeds_differ:
        console.print(OWN_SEEDS, soft_wrap=True)


_PRINTED = 24
_SHORT: Mapping[Metric, str] = {"val_loss": "val loss", "bits_per_byte": "bits/byte"}


def _print_ranking(found: SearchFindings, console: Console) -> None:
    """Print the trials: the finished ones by rank, then the others. Where seeds are repeats, print the
    values."""
    if found.values:
        _print_values(found, console)
        return
    unequal = found.results.budgets_differ
    ended = (*found.stopped, *found.unfinished, *found.diverged, *found.failed)
    rest = (*ended, *found.withdrawn)
    trial_results: list[tuple[TrialResult, int | None]] = [
        (one, one.rank) for one in found.ranking.trial_results
    ]
    rows = [
        _printed(found, result, rank)
        for result, rank in [*trial_results, *((one, None) for one in rest)]
    ]
    numbers = ("val loss", "FLOPs" if unequal else "bits/byte", "at tokens")
    _print_rows("trial", numbers, rows, console)


def _print_values(found: SearchFindings, console: Console) -> None:
    """Print the values, each with the mean over its seeds: those that finished by rank, then the others."""
    others = (*found.stopped, *found.unfinished, *found.diverged, *found.failed)
    results: dict[str, TrialResult] = {one.trial.trial: one for one in others}
    results |= {one.trial.trial: one for one in found.ranking.trial_results}
    rank = {value.trials[0].trial: value.rank for value in found.values}
    best = [trial for value in found.values for trial in value.trials]
    rows = [
        _printed_value(found, [results[one.trial] for one in group if one.trial in results], rank)
        for group in groups([*best, *(one.trial for one in others)])
    ]
    numbers = ("seeds", _SHORT[found.results.metric], "std", "at tokens")
    _print_rows("value", numbers, rows, console)


def _print_rows(
    of: str, numbers: Sequence[str], rows: Sequence[Sequence[str]], console: Console
) -> None:
    """Print a table of ranks: of what, its numbers, and how each ended; the first rows of it."""
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column(of, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for row in rows[:_PRINTED]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(rows) > _PRINTED:
        console.print(f"and {len(rows) - _PRINTED} more", highlight=False)


def _printed_value(
    found: SearchFindings, group: Sequence[TrialResult], rank: Mapping[str, int]
) -> tuple[str, ...]:
    """The cells of a value: of its finished trials, or of those that got as far as the furthest."""
    finished = [one for one in group if one.status == "finished"]
    most = max((one.record.tokens for one in finished or group if one.record), default=None)
    measured = [one for one in finished or group if one.record and one.record.tokens == most]
    losses = [x for one in measured if (x := one.loss(found.results.metric)) is not None]
    endings = dict.fromkeys(_ending(found, one) for one in group)
    return (
        whole(rank.get(group[0].trial.trial)),
        found.results.called(group[0].trial.values),
        str(len(losses)),
        loss(statistics.fmean(losses) if losses else None),
        loss(statistics.stdev(losses) if len(losses) > 1 else None),
        whole(most),
        textwrap.shorten("; ".join(endings), 34, placeholder="…"),
    )


def _ending(found: SearchFindings, result: TrialResult) -> str:
    """How a trial ended, in a few words; the summary has the full reason."""
    audit = found.results.ended_audit(result.trial)
    match result.status:
        case "stopped" if audit is not None:
            end = last_record(audit) if audit.status == "finished" else None
            return f"audited: {loss(end.val_loss) if end else audit.status}"
        case "diverged":
            return f"diverged at step {result.trial.step or None}"
        case "unfinished":
            return textwrap.shorten(result.reason, 24, placeholder="…")
        case "finished" | "stopped":
            how = "at the target" if result.trial.how == AT_TARGET else status_words(result.trial)
            return ", ".join(filter(None, (how, outcome(result.trial))))
        case _:
            return status_words(result.trial)


def _printed(found: SearchFindings, result: TrialResult, rank: int | None) -> tuple[str, ...]:
    compute = "" if result.flops is None else count(result.flops)
    unequal = found.results.budgets_differ
    return (
        whole(rank),
        result.trial.label,
        loss(result.loss("val_loss")),
        compute if unequal else loss(result.loss("bits_per_byte")),
        whole(result.record and result.record.tokens),
        _ending(found, result),
    )


def _difference(found: Comparison | None) -> str:
    """The difference from the baseline in the units of the metric, as the report has it."""
    return f"{signed(found.difference)} {found.unit}" if found else ""


_ROWS: dict[str, Callable[[Entry], str]] = {
    "date": lambda entry: entry.date,
    "why": lambda entry: one_line(entry.why),
    "changes": lambda entry: "\n".join(f"{path}={now}" for path, (_, now) in entry.changes.items()),
    "parameters": lambda entry: whole(entry.params),
    "FLOPs of a run": lambda entry: count(entry.flops),
    "runs": lambda entry: f"{entry.finished} of {entry.runs} finished",
    "training loss": lambda entry: loss(entry.train_loss),
    "validation loss": lambda entry: loss(entry.val_loss),
    "bits per byte": lambda entry: loss(entry.bits_per_byte),
    "best validation loss": lambda entry: loss(entry.best_val_loss),
    "at step": lambda entry: whole(entry.best_step),
    "training time": lambda entry: "" if entry.hours is None else duration(3600 * entry.hours),
    "tokens/s": lambda entry: whole(entry.tokens_per_s),
    "difference": lambda entry: _difference(entry.comparison),
    "to baseline": lambda entry: entry.comparison.words if entry.comparison else "",
    "verdict": lambda entry: entry.verdict or entry.doubts,
    "observations": lambda entry: "\n".join(entry.observations),
    "next": lambda entry: "\n".join(entry.next_steps),
}
_LISTED = ("date", "changes", "validation loss", "training time", "to baseline", "verdict")
_OF_ONE = {"why", "observations", "next"}  # too long to stand side by side


def print_experiment(entry: Entry, console: Console) -> None:
    """Print everything that the log says about one experiment."""
    _print_columns([entry], list(_ROWS), console)


def print_comparison(entries: Sequence[Entry], console: Console) -> None:
    """Print experiments side by side, and what keeps the losses of some from being compared with
    those of the first."""
    _print_columns(entries, [row for row in _ROWS if row not in _OF_ONE], console)
    first, *others = entries
    for other in others:
        if other.terms.differing(first.terms):
            words = differing_words(other.terms, first.terms)
            console.print(Text(f"{other.name} is not compared with {first.name}: {words}."))


def _print_columns(entries: Sequence[Entry], rows: Sequence[str], console: Console) -> None:
    """Print a column for each experiment; rows in which none has anything are left out."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for entry in entries:
        table.add_column(Text(entry.name), overflow="fold")
    for row in rows:
        cells = [_ROWS[row](entry) for entry in entries]
        if any(cells):
            table.add_row(row, *map(Text, cells))
    console.print(table)


def print_experiments(entries: Sequence[Entry], console: Console) -> None:
    """Print one line for each experiment, and the groups within which losses can be compared."""
    terms = [entry.terms for entry in entries]
    groups = group_names(terms)
    table = Table(box=None, pad_edge=False)
    for title in ("name", *(["group"] if any(groups) else []), *_LISTED):
        table.add_column(title, overflow="fold")
    for entry, group in zip(entries, groups, strict=True):
        cells = [entry.name, *filter(None, [group])]
        cells += [_ROWS[row](entry).replace("\n", " ") for row in _LISTED]
        table.add_row(*map(Text, cells))
    console.print(table)
    for words in group_words(terms):
        console.print(Text(words))


def print_replays(results: Mapping[str, Judgment], timed: bool, console: Console) -> None:
    """Print what each policy costs and finds, the cheapest first; untimed curves count in tokens."""
    time = duration if timed else count
    table = Table("policy", box=None, pad_edge=False)
    names = ("cost", "regret", "95% interval", "best kept", "false kills", "finished")
    for name in (*names, "wall-clock" if timed else "wall-clock (tokens)", "busy"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in sorted(results.items(), key=lambda item: item[1].cost):
        regret = result.regret
        table.add_row(
            name,
            f"{result.cost:.1%}",
            loss(regret.mean),
            "" if regret.low is None else f"{regret.low:.4f} to {regret.high:.4f}",
            f"{result.best_kept:.0%}",
            f"{result.false_kills:.1%}",
            f"{result.finished:.1f}",
            time(result.wall_clock),
            f"{result.utilization:.0%}",
        )
    console.print(table)


def print_recommended(
    results: Mapping[str, Judgment], schedules: Mapping[str, Row], console: Console
) -> None:
    """Print the schedule that the replays speak for, as it stands in a space, or why they speak for none."""
    name = recommended(results)
    if name is None:  # policies that stop nothing always keep the best
        console.print(
            Text(
                "No policy is recommended: some curves end early, so it is not known which is the best. Run their "
                "sweep with `--audit 1`, which trains the stopped trials to the end."
            ),
            soft_wrap=True,
        )
        return
    kept = f"kept the best in at least {KEPT:.0%} of the replays of these curves"
    console.print(
        Text(f"Recommended policy: {name}, the cheapest that {kept}. In a space:"), soft_wrap=True
    )
    schedule = as_yaml({"schedule": schedules[name]}).rstrip()
    console.print(Text(schedule), soft_wrap=True)


def warn_of_short(short: int, curves: int) -> None:
    """Print a warning to stderr if some of the replayed curves end before the longest one."""
    if short:
        print(
            f"warning: curves that end before the longest one: {short} of {curves}. Their last scores "
            "are used as final scores, so cost and regret are not reliable",
            file=sys.stderr,
        )
