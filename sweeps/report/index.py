"""`results/index.html`, which lists the sweeps in a folder."""

from pathlib import Path
from urllib.parse import quote

from sweeps.exits import message_of
from sweeps.findings.everything import Reader
from sweeps.findings.experiments import Terms, experiments
from sweeps.ledger import Files, ResultsFolder, write_whole
from sweeps.report.entries import group_names, group_words
from sweeps.report.page import render, verdict


def write_index(folder: Path, reader: Reader) -> Path:
    """Write `index.html`, which lists the sweeps in a folder; returns its path."""
    all_findings = reader.under(folder)
    sweeps = []
    terms: dict[str, Terms] = {}  # of the first experiment of each sweep
    for one in experiments(all_findings):
        terms.setdefault(one.results.name, one.terms)
    groups = dict(zip(terms, group_names(list(terms.values())), strict=True))
    for found in all_findings:
        results = found.results
        group = groups.get(results.name)
        sweeps.append(
            {
                "name": results.name,
                "question": results.question,
                "scale": results.scale,
                "to": results.latest[:16].replace("T", " "),
                "planned": len(results.trials),
                "unfinished": found.count("unfinished"),
                "verdict": verdict(found),
                "group": f"group {group}, " if group else "",
                "link": quote(str(Files(folder / results.name).report.relative_to(folder))),
            }
        )
    path = ResultsFolder(folder).index
    content = render(
        "index.html",
        sweeps=sweeps,
        groups=group_words(list(terms.values())),
        left_out={name: message_of(why) for name, why in reader.left_out(folder).items()},
    )
    write_whole(path, content.encode())
    return path
