"""`results/EXPERIMENT_LOG.md`: every experiment of all sweeps, filled from their ledgers, with what
people wrote into it or into a sweep's `notes.md`."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from sweeps import text as words
from sweeps.findings.arms import comparison, tuning
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import (
    METRICS,
    UNITS,
    Facts,
    Results,
    best_values,
    compute,
    tokens_per_s,
)
from sweeps.findings.stability import stability
from sweeps.ledger import Files, Row, sweeps
from sweeps.report import notes
from sweeps.report.experiments import experiments
from sweeps.report.summary import escaped, paragraph, stability_words
from sweeps.selection import best_group

NAME = "EXPERIMENT_LOG.md"
NOTES = "notes.md"  # of a sweep
_RECOMMENDATIONS = "/recommendations"  # key of the notes on them, which no experiment has
_HEADINGS = "## Hypothesis\n\n\n## Observations\n\n\n## Next steps\n\n"
_CURVES = {
    "By gradient steps": "loss_by_step.svg",
    "By wallclock time": "loss_by_seconds.svg",
    "By tokens": "loss_by_tokens.svg",
}


class Markdown(str):
    """Text that is Markdown already, and is not escaped."""

    __slots__ = ()


def _shown(value: Any) -> Any:
    """What an expression of the template comes to."""
    return (
        value
        if isinstance(value, Markdown)
        else escaped(value)
        if isinstance(value, str)
        else value
    )


def _code(text: str) -> Markdown:
    """Text as code, in one line, between more backquotes than it has."""
    flat = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    return Markdown(f"{fence}{flat}{fence}" if len(fence) == 1 else f"{fence} {flat} {fence}")


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("sweeps.report"),
        autoescape=False,  # noqa: S701 this is Markdown, which `finalize` escapes
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "loss": words.loss,
        "perplexity": words.perplexity,
        "whole": words.whole,
        "percent": words.percent,
        "code": _code,
        "paragraph": lambda text: Markdown(paragraph(text)),
        "link": lambda text: Markdown(quote(str(text))),
    }
    return environment.get_template(f"{NAME}.j2")


def begin_notes(files: Files) -> None:
    """Create the `notes.md` of a sweep with its headings, where there is none."""
    try:
        with (files.folder / NOTES).open("x") as stream:
            stream.write(_HEADINGS)
    except FileExistsError:
        return


def _own_notes(files: Files) -> Markdown:
    """What a person wrote into a sweep's `notes.md`, quoted; nothing where that is its headings."""
    try:
        text = (files.folder / NOTES).read_text(errors="replace")
    except FileNotFoundError:
        return Markdown()
    if text.split() == _HEADINGS.split():
        return Markdown()
    return Markdown("\n".join(f"> {line}".rstrip() for line in text.splitlines()))


def write(folder: Path, all_results: Sequence[Results]) -> Path:
    """Write the log of the sweeps in a folder; what people wrote into it stays. Where it is.

    `NotesError`, with the log as it is, where a note in it has no end.
    """
    for results in all_results:
        begin_notes(Files(folder / results.name))
    content = _template().render(**_content(folder, all_results))
    path = folder / NAME
    notes.write(path, content.encode())
    return path


def _content(folder: Path, all_results: Sequence[Results]) -> dict[str, Any]:
    entries = experiments(all_results)
    quoted: set[str] = set()
    for one in entries:
        sweep = one["sweep"]
        one["curves"] = [(label, f"{sweep}/analysis/{file}") for label, file in _CURVES.items()]
        one["place"] = Markdown(notes.place(one["name"]))
        one["notes"] = "" if sweep in quoted else _own_notes(Files(folder / sweep))
        one["notes_path"] = f"{sweep}/{NOTES}"
        one["key_change"] = _key_change(one)
        quoted.add(sweep)
    return {
        "results": str(folder),
        "experiments": entries,
        "commands": {
            results.name: words.portable(results.sweep.session.get("command", ""))
            for results in all_results
        },
        "environments": _environments(all_results),
        "key_findings": _key_findings(all_results),
        "recommendations": _recommendations(all_results, entries),
        "place_of_all": Markdown(notes.place(_RECOMMENDATIONS)),
        "left_out": sorted(
            {files.name for files in sweeps(folder)} - {results.name for results in all_results}
        ),
        "waiting": sorted(
            {results.name for results in all_results} - {one["sweep"] for one in entries}
        ),
    }


def _key_change(one: Facts) -> str:
    changes = [f"{path.rpartition('.')[2]}={now}" for path, (_, now) in one["changes"].items()]
    return " ".join(changes) or "Baseline"


def _environments(all_results: Sequence[Results]) -> list[tuple[list[str], Facts]]:
    """On what the sweeps ran, as their sessions say: each environment once, with its sweeps."""
    found: list[tuple[list[str], Facts]] = []
    for results in all_results:
        for session in results.sweep.sessions:
            here = _environment(results, session)
            same = next((names for names, there in found if there == here), None)
            if same is None:
                found.append(([results.name], here))
            elif results.name not in same:
                same.append(results.name)
    return found


def _environment(results: Results, session: Row) -> Facts:
    devices = Counter(trial.config["run"]["device"] for trial in results.trials)
    return {
        "device": ", ".join(devices),
        "versions": session.get("versions", {}),
        "machine": _MACHINE | session.get("machine", {}),
        **{name: session.get(name) for name in ("commit", "changed", "constraints")},
    }


_MACHINE = dict.fromkeys(("system", "processor", "cpus", "memory", "gpu"))


# Findings and recommendations -----------------------------------------------------------------------


def _key_findings(all_results: Sequence[Results]) -> dict[str, list[Any]]:
    return {
        "Learning Rate Sensitivity": [line for results in all_results for line in _rates(results)],
        "Architecture Ablations": [line for results in all_results for line in _verdicts(results)],
        "Training Dynamics": [line for results in all_results for line in _dynamics(results)],
        "Efficiency Observations": [
            line for results in all_results for line in _efficiency(results)
        ],
    }


def _rates(results: Results) -> Iterator[Any]:
    """What the rates of a sweep, or of the re-tune grids of its arms, tell of stability."""
    pools = (
        {pool["arm"]: pool["stability"] for pool in tuning(results)}
        if results.is_study
        else {"": stability(results.audited(results.trials), results.metric)}
    )
    for name, found in pools.items():
        for line in stability_words(found):
            if line:
                where = f"`{results.name}{f'/{name}' if name else ''}`"
                yield Markdown(f"{where}: {line.removeprefix('- ')}")


def _verdicts(results: Results) -> Iterator[str]:
    """The verdicts on arms that change the model."""
    for place in (comparison(results) or {"arms": []})["arms"][1:]:
        if _changes_model(place):
            yield f"{results.name}/{place['arm']} ({_ran_at(place)}): {place['words']}."


def _changes_model(place: Facts) -> bool:
    return any(path.startswith("model.") for path in place["changes"])


def _ran_at(place: Facts) -> str:
    """What an arm changes, and the values that its re-tune grid chose."""
    chosen = place["chosen"] or {}
    changes = {path: value for path, value in place["changes"].items() if path not in chosen}
    return ", at ".join(words.named(part) for part in (changes, chosen) if part)


def _dynamics(results: Results) -> Iterator[str]:
    count = len(results.trials)
    said = words.tally(kind for trial in results.trials if (kind := outcome(trial)))
    finished = len(results.having("finished"))
    yield f"{results.name}: {finished} of {count} trials came to their ends" + (
        f"; {said}." if said else ", none diverged, spiked or failed."
    )


def _efficiency(results: Results) -> Iterator[str]:
    spent = compute(results)
    speeds = [speed for trial in results.trials if (speed := tokens_per_s(trial))]
    memory = [trial.curve[-1].get("peak_memory", 0) for trial in results.trials if trial.curve]
    if not speeds:
        return
    yield (
        f"{results.name}: {min(speeds):,.0f} to {max(speeds):,.0f} tokens/s a trial, at most "
        f"{max(memory) / 1e9:.2f} GB of memory; {spent['tokens']:,} tokens trained, "
        f"{spent['tokens'] / spent['tokens_full']:.0%} of all trials to their ends, in "
        f"{words.duration(spent['wall_clock'])}."
    )


def _unfinished(results: Results) -> str:
    """How many trials have no result yet, to be said behind what the others say."""
    going = len(results.having("unfinished"))
    return f"; {going} of {len(results.trials)} trials have no result yet" if going else ""


def _recommendations(
    all_results: Sequence[Results], entries: Sequence[Facts]
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {
        "Model Architecture": [],
        "Hyperparameters": [],
        "Training Procedure": [],
        "Future Work": [],
    }
    for results in all_results:
        for place in (comparison(results) or {"arms": []})["arms"][1:]:
            title = "Model Architecture" if _changes_model(place) else "Training Procedure"
            advice = {"better": "take", "worse": "do without"}.get(place["verdict"])
            if advice:
                careful = "; ".join(["", *place["cautions"]])
                found[title].append(
                    f"{advice} {_ran_at(place)}: {place['words']} ({results.name}{careful})."
                )
        sound = not any(outcome(trial) for trial in best_group(results.trials, results.metric))
        for best in best_values(results) if sound and not results.is_study else []:
            found["Hyperparameters"].append(
                f"{best['path']}: {words.show(best['best'])}, of what was tried from "
                f"{words.show(best['lowest'])} to {words.show(best['highest'])}"
                f"{', on its edge' * bool(best['edge'])}, by {METRICS[results.metric]} "
                f"({UNITS[results.metric]}; {results.name}{_unfinished(results)})."
            )
    for one in entries:
        found["Future Work"] += [f"{one['name']}: {line}" for line in one["next"]]
    return found
