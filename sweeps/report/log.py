"""`results/EXPERIMENT_LOG.md` and the same as a page: every experiment of all sweeps, filled from their ledgers, with the
notes that people wrote in it or in a sweep's `notes.md`."""

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jinja2

from sweeps.exits import message_of
from sweeps.findings.arms import ArmFindings
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings
from sweeps.findings.results import METRICS, Results, tokens_per_s
from sweeps.ledger import Files, ResultsFolder, Row
from sweeps.outcomes import outcome
from sweeps.report import log_page, notes
from sweeps.report.answer import better_words, chosen_words, unfinished_words
from sweeps.report.entries import Entry, entries_of, group_names, group_words
from sweeps.report.head import best_words
from sweeps.report.markdown import anchor, escaped, nested, paragraph, with_code
from sweeps.report.next_steps import next_space, steps_of
from sweeps.report.nodes import node_lines
from sweeps.report.overfitting import init_of
from sweeps.report.stability import SENSITIVITY, stability_words
from sweeps.text import (
    between,
    duration,
    hours,
    loss,
    named,
    perplexity,
    portable,
    quantity,
    short_name,
    show,
    tally,
    whole,
)
from tinylm.files import read_file

TEMPLATE = "EXPERIMENT_LOG.md.j2"
Content = dict[str, Any]  # the values that fill the template
_RECOMMENDATIONS = "/recommendations"  # key of their notes; no experiment has it
_HEADINGS = "## Hypothesis\n\n\n## Observations\n\n\n## Next steps\n\n"
_CURVES = {
    "By gradient steps": "loss_by_step",
    "By wallclock time": "loss_by_seconds",
    "By tokens": "loss_by_tokens",
}


class Markdown(str):
    """Text that is Markdown already, and is not escaped."""

    __slots__ = ()


def _shown(value: Any) -> Any:
    """The value of a template expression as Markdown."""
    return (
        value
        if isinstance(value, Markdown)
        else escaped(value)
        if isinstance(value, str)
        else value
    )


def _code(text: str) -> Markdown:
    """Text as code on one line, between more backquotes than it contains."""
    flat = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    return Markdown(f"{fence}{flat}{fence}" if len(fence) == 1 else f"{fence} {flat} {fence}")


def _template() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps.report"),
        autoescape=False,  # noqa: S701 this is Markdown, which `finalize` escapes
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "loss": loss,
        "perplexity": perplexity,
        "whole": whole,
        "code": _code,
        "paragraph": lambda text: Markdown(paragraph(text)),
        "with_code": lambda text: Markdown(with_code(text)),
        "link": lambda text: Markdown(quote(str(text))),
        "anchor": lambda heading: Markdown(anchor(heading)),
        "hours": hours,
        "time": lambda number: "" if number is None else _time(number),
    }
    return environment.get_template(TEMPLATE)


def _time(number: float) -> str:
    """A training time in hours, and as people say it."""
    return f"{hours(number)} hours ({duration(3600 * number)})"


_LARGEST = 10**6  # bytes of the notes on a sweep


def begin_notes(files: Files) -> None:
    """Create the `notes.md` of a sweep with its headings, if it does not exist and can be created."""
    with contextlib.suppress(OSError), files.notes.open("x") as stream:
        stream.write(_HEADINGS)


def _own_notes(files: Files) -> Markdown:
    """The quoted content of a sweep's `notes.md`, or why it is not quoted; empty if it has only the
    headings."""
    try:
        # A link could lead to any file of its reader, and a log is shared.
        text = read_file(files.notes, _LARGEST, follow=False).decode(errors="replace")
    except FileNotFoundError:
        return Markdown()
    except OSError as error:
        print(f"{files.notes}: {error.strerror}; it is not quoted in the log", file=sys.stderr)
        return Markdown(f"> `{files.notes.name}`: {error.strerror}; it is not quoted here.")
    if text.split() == _HEADINGS.split():
        return Markdown()
    text = nested(_PICTURE.sub(lambda found: _from_log(files, found), text))
    return Markdown("\n".join(f"> {line}".rstrip() for line in text.splitlines()))


_PICTURE = re.compile(r"(!\[[^\]\n]*\]\(<?)([^\s<>()]+)")


def _from_log(files: Files, found: re.Match[str]) -> str:
    """A picture in the notes of a sweep by its path from the log, if it is a file beside them."""
    begin, path = found.groups()
    is_beside = log_page.is_local(path) and (files.folder / unquote(path)).is_file()
    return f"{begin}{quote(files.name)}/{path}" if is_beside else found[0]


def as_json(folder: Path, reader: Reader, found: Content) -> Row:
    """The log for programs, once it is written: what it says, and what people wrote in it."""
    there = ResultsFolder(folder)
    own = notes.notes(read_file(there.log, notes.LARGEST))
    return {
        "log": str(there.log),
        "page": str(there.log_page),
        "experiments": [
            {
                **section.entry.as_json(),
                "figure": section.figure,
                "notes": notes.note(own, section.entry.name),
            }
            for section in found["experiments"]
        ],
        "groups": found["groups"],
        "findings": found["key_findings"],
        "recommendations": found["recommendations"],
        "notes": notes.note(own, _RECOMMENDATIONS),
        "commands": found["commands"],
        "nodes": found["nodes"],
        "waiting": found["waiting"],
        "left_out": {name: message_of(why) for name, why in reader.left_out(folder).items()},
    }


def write(folder: Path, reader: Reader, found: Content | None = None) -> Path:
    """Write the log of the sweeps in a folder, and the same as a page, and keep people's notes; returns
    the path of the log.

    Raises `NotesError` and leaves the log unchanged if a note in it has no end.
    """
    for one in reader.under(folder):
        begin_notes(Files(folder / one.results.name))
    left_out = {name: message_of(why) for name, why in reader.left_out(folder).items()}
    text = _template().render(**(found or content(folder, reader)), left_out=left_out)
    there = ResultsFolder(folder)
    path, own = there.log, notes.written(there)
    copy = notes.write(path, text.encode())
    whole_log = read_file(path, notes.LARGEST).decode(errors="replace")  # with people's notes
    own.write(there.log_page, log_page.html(whole_log, folder).encode())
    if copy is not None:
        print(
            f"{path} was not written by this program, was cut off, or was changed outside of its notes: as it "
            f"was, it is now {copy}",
            file=sys.stderr,
        )
    return path


@dataclass(frozen=True)
class Section:
    """An experiment in the log: its entry, and where its curves and notes are."""

    entry: Entry
    like: str  # the heading of the first part of its sweep, which tells the strategy; empty in that part
    figure: str  # the path of the one that is shown; empty if there is none
    curves: list[tuple[str, str]]  # label and path of each figure
    key_change: str
    notes_cell: str  # of the table of all experiments
    block: Markdown  # of the notes in the log
    best: str  # where the best checkpoint of the sweep is, in its first section
    space: Markdown  # of the next sweep, the same
    notes: Markdown  # of the sweep, if they are not quoted above
    notes_path: str

    def heading(self, number: int) -> str:
        """The heading of its part, which has this number."""
        return f"Experiment {number}: {self.entry.name}"


def _sections(
    folder: Path, entries: Sequence[Entry], sweeps: Mapping[str, SearchFindings | StudyFindings]
) -> Iterator[Section]:
    firsts: dict[str, str] = {}  # a sweep -> the heading of its first part
    groups = group_names([entry.terms for entry in entries])
    for number, (entry, group) in enumerate(zip(entries, groups, strict=True), 1):
        sweep, files = entry.sweep, Files(Path(entry.sweep))  # as the log links them
        found, is_first = sweeps[sweep], sweep not in firsts
        changes = [f"{short_name(path)}={now}" for path, (_, now) in entry.changes.items()]
        section = Section(
            entry=entry,
            like=firsts.get(sweep, ""),
            figure=_figure(folder, entry, found),
            curves=[(label, str(files.figure(name))) for label, name in _CURVES.items()],
            key_change=" ".join(changes) or "Baseline",
            notes_cell=". ".join(
                filter(
                    None,
                    (
                        f"Group {group}" * bool(group),
                        entry.verdict or "Reference" * entry.is_baseline,
                        entry.doubts.capitalize(),
                    ),
                )
            ),
            block=Markdown(notes.block(entry.name)),
            best=best_words(Files(folder / sweep), found) if is_first else "",
            space=Markdown(next_space(found.results, steps_of(found)) if is_first else ""),
            notes=_own_notes(Files(folder / sweep)) if is_first else Markdown(),
            notes_path=str(files.notes),
        )
        firsts.setdefault(sweep, section.heading(number))
        yield section


def _figure(folder: Path, entry: Entry, found: SearchFindings | StudyFindings) -> str:
    """The figure that shows an experiment, by its path from the log; empty if it was not drawn."""
    if isinstance(found, StudyFindings):
        names = ["loss_by_tokens" if entry.is_baseline else "arms"]
    else:
        names = [f"loss_vs_{swept.name}" for swept in found.results.swept]
    for name in (*names, "loss_by_tokens"):
        path = Files(Path(entry.sweep)).figure(name)
        if (folder / path).is_file():
            return str(path)
    return ""


def content(folder: Path, reader: Reader) -> Content:
    """What the log of the sweeps in a folder says: the values that fill the template."""
    all_findings = reader.under(folder)
    entries = entries_of(all_findings)
    all_results = [found.results for found in all_findings]
    names = {results.name for results in all_results}
    return {
        "results": str(folder),
        "experiments": list(
            _sections(folder, entries, {found.results.name: found for found in all_findings})
        ),
        "groups": group_words([entry.terms for entry in entries]),
        "commands": {
            results.name: portable(results.sweep.session.get("command", ""))
            for results in all_results
        },
        "environments": _environments(all_results),
        "nodes": {r.name: lines for r in all_results if (lines := node_lines(r))},
        "key_findings": _key_findings(all_findings),
        "recommendations": _recommendations(all_findings, entries),
        "block_of_all": Markdown(notes.block(_RECOMMENDATIONS)),
        "waiting": sorted(names - {entry.sweep for entry in entries}),
    }


@dataclass(frozen=True)
class Environment:
    """The environment that a session ran in."""

    device: str
    versions: dict[str, str]
    machine: Row
    commit: str | None
    changed: bool | None  # since the commit
    constraints: str | None


def _environments(all_results: Sequence[Results]) -> list[tuple[list[str], Environment]]:
    """The environments of all sessions, each once with the names of its sweeps."""
    found: list[tuple[list[str], Environment]] = []
    for results in all_results:
        for session in results.sweep.sessions:
            here = _environment(results, session)
            same = next((names for names, there in found if there == here), None)
            if same is None:
                found.append(([results.name], here))
            elif results.name not in same:
                same.append(results.name)
    return found


def _environment(results: Results, session: Row) -> Environment:
    devices = Counter(trial.config["run"]["device"] for trial in results.trials)
    return Environment(
        device=", ".join(devices),
        versions=session.get("versions", {}),
        machine=_MACHINE | session.get("machine", {}),
        commit=session.get("commit"),
        changed=session.get("changed"),
        constraints=session.get("constraints"),
    )


_MACHINE = dict.fromkeys(("system", "processor", "cpus", "memory", "gpu"))


def _key_findings(
    all_findings: Sequence[SearchFindings | StudyFindings],
) -> dict[str, list[str]]:
    studies = [found for found in all_findings if isinstance(found, StudyFindings)]
    rates = [line for found in all_findings for line in _rates(found)]
    return {
        "Learning Rate Sensitivity": rates
        and [f"Learning rate sensitivity is {SENSITIVITY}.", *rates],
        "Architecture Ablations": [line for found in studies for line in _verdicts(found)],
        "Training Dynamics": [_dynamics(found) for found in all_findings],
        "Efficiency Observations": [line for found in all_findings for line in _efficiency(found)],
    }


def _rates(found: SearchFindings | StudyFindings) -> Iterator[str]:
    """Sentences on stability from the rates of a sweep or of its arms' re-tune grids."""
    sweep = found.results.name
    pools = (
        {sweep: found.stability}
        if isinstance(found, SearchFindings)
        else {f"{sweep}/{grid.arm}": grid.stability for grid in found.tuning}
    )
    for name, stability in pools.items():
        for sentence in stability_words(stability, defines=False):
            yield f"`{name}`: {sentence}"


def _compared(found: StudyFindings) -> tuple[ArmFindings, ...]:
    """The arms that were compared with the baseline."""
    return () if found.comparison is None else found.comparison.arms[1:]


def _verdicts(found: StudyFindings) -> Iterator[str]:
    """The verdicts on arms that change the model."""
    for arm in _compared(found):
        if _changes_model(arm):
            yield f"`{found.results.name}/{arm.name}` ({_ran_at(arm)}): {arm.verdict.words}."


def _changes_model(arm: ArmFindings) -> bool:
    return any(path.startswith("model.") for path in arm.runs.changes)


def _ran_at(arm: ArmFindings) -> str:
    """The changes of an arm, and the values that its re-tune grid chose."""
    chosen = arm.runs.chosen or {}
    changes = {path: value for path, value in arm.runs.changes.items() if path not in chosen}
    return " at ".join(named(part) for part in (changes, chosen) if part)


def _dynamics(found: SearchFindings | StudyFindings) -> str:
    trials = found.results.asked
    troubles = tally(kind for trial in trials if (kind := outcome(trial)))
    ended = f"{found.count('finished')} of {quantity(len(trials), 'trial')} finished"
    problems = (
        f"Problems: {troubles}." if troubles else "No trial diverged, spiked, overfitted or failed."
    )
    return f"`{found.results.name}`: {ended}. {problems}"


def _efficiency(found: SearchFindings | StudyFindings) -> Iterator[str]:
    trials, spent = found.results.trials, found.compute
    speeds = [speed for trial in trials if (speed := tokens_per_s(trial))]
    if not speeds or spent.share is None:
        return
    memory = max(trial.peak_memory for trial in trials)
    gone, kept = spent.tokens_withdrawn, spent.tokens_kept
    withdrawn = f", {gone:,} of them in withdrawn trials. The others are {kept:,}" if gone else ""
    yield (
        f"`{found.results.name}`: each trial ran at {between(round(speed) for speed in speeds)} "
        f"tokens/s and used at most {memory / 1e9:.2f} GB of memory. The sweep trained on "
        f"{spent.tokens:,} tokens in {duration(spent.wall_clock)}{withdrawn}, "
        f"{spent.share:.0%} of what training every trial to the end would take."
    )


def _recommendations(
    all_findings: Sequence[SearchFindings | StudyFindings], entries: Sequence[Entry]
) -> dict[str, list[str]]:
    advice: dict[str, list[str]] = {
        "Model Architecture": [],
        "Hyperparameters": [],
        "Training Procedure": [],
        "Future Work": [],
    }
    for found in all_findings:
        if isinstance(found, SearchFindings):
            advice["Hyperparameters"] += _values_to_take(found)
            continue
        for arm in _compared(found):
            title = "Model Architecture" if _changes_model(arm) else "Training Procedure"
            advice[title] += _arm_to_take(found, arm)
    for entry in entries:
        advice["Future Work"] += [f"`{entry.name}`: {line}" for line in entry.next_steps]
    return advice


def _arm_to_take(found: StudyFindings, arm: ArmFindings) -> Iterator[str]:
    if arm.verdict.kind not in {"better", "worse"}:
        return
    advice = "Use this" if arm.verdict.kind == "better" else "Keep the baseline"
    if arm.verdict.doubts:  # the difference may be due to them
        advice = "Not settled"
    caveats = f" Caveats: {arm.caveats}" if arm.cautions else ""
    name = f"`{found.results.name}/{arm.name}` ({_ran_at(arm)})"
    yield f"{advice}: {name} is {arm.verdict.words}.{caveats}"


def _values_to_take(found: SearchFindings) -> Iterator[str]:
    """The values that a search chose, with no more than its runs support."""
    results = found.results
    doubtful = found.overfitted or init_of(results.trials)
    if doubtful or any(outcome(trial) for trial in found.winner):
        return
    if found.answer.better is not None:
        yield f"`{results.name}`: {better_words(found.answer)}"
    elif found.not_settled:
        yield f"`{results.name}`: {' '.join(chosen_words(found))}"
    if found.not_settled:
        paths = " and ".join(f"`{one.path}`" for one in found.not_settled)
        them = "it" if len(found.not_settled) == 1 else "them"
        yield f"`{results.name}`: not settled: {paths}, because other values varied with {them}."
    if found.answer.better is not None or found.not_settled:
        return
    unfinished = f" {unfinished_words(results)}" if found.unfinished else ""
    seeds = f"with {quantity(len(found.winner), 'seed')}"
    for best in found.best:
        yield (
            f"`{best.path}`: in `{results.name}`, {show(best.best)} has the lowest "
            f"{METRICS[results.metric]} of the values tried from {show(best.lowest)} to "
            f"{show(best.highest)}, {seeds}."
            f"{' It is at the edge of that range.' * bool(best.edge)}{unfinished}"
        )
