"""`results/<sweep>/best/`: the best checkpoint with its config, its tokenizer and a model card."""

import hashlib
import json
import os
import pickletools
import shutil
import statistics
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from sweeps.exits import StorageError, UsageError
from sweeps.findings.best import best_runs
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.results import METRICS, UNITS
from sweeps.ledger import Files, Row, Trial
from sweeps.report.answer import answer_words
from sweeps.report.entries import configuration
from sweeps.report.markdown import escaped, listed, paragraph, with_code
from sweeps.selection import last_record
from sweeps.text import loss, quantity
from tinylm.config import did_you_mean
from tinylm.files import read_file, replacing, replacing_folder, sync

_LARGEST = 10**8  # bytes of a file besides the checkpoint


def write(files: Files, found: SearchFindings | StudyFindings) -> Path | None:
    """Write the best model of a sweep into a new folder, in place of the one before; returns the folder,
    or None if no run has finished.

    The checkpoint is a hard link to that of the run, or a copy where there are no links. So it stays
    when `checkpoints/` is pruned. A folder that people have changed, and the model of a run whose
    checkpoint is gone, are left as they are, which is said.
    """
    runs = best_runs(found)
    if not any(run.checkpoint for run in runs):
        return None
    saved = next(checkpoints(files, runs), None)
    if saved is None:
        _tell(files, f"not written: the checkpoint of {runs[0].label} is gone or damaged")
        return None
    if os.path.lexists(files.best) and not _is_own(files):
        _tell(
            files,
            "has files that the analysis did not write; left unchanged (move it to get a new one)",
        )
        return None
    run, file = saved
    facts = _facts(found, run)
    contents = {
        "config.yaml": yaml.safe_dump(run.config, sort_keys=False).encode(),
        "tokenizer.json": _tokenizer(file) or b"",
        "README.md": card(found, runs, run).encode(),
    }
    facts["files"] = {name: _digest(content) for name, content in contents.items()}
    contents[files.best_facts.name] = json.dumps(facts, indent=1, allow_nan=False).encode() + b"\n"
    with replacing_folder(files.best) as new:
        _link(file, new / Files.CHECKPOINT)
        for name, content in contents.items():
            with replacing(new / name) as stream:
                stream.write(content)
    return files.best


def checkpoints(files: Files, runs: Sequence[Trial]) -> Iterator[tuple[Trial, Path]]:
    """The runs whose checkpoint is there, with its file: that of the ledger, or the one in the folder of
    the best model."""
    kept = _written(files).get("trial")
    for run in runs:
        own = [] if run.checkpoint is None else [files.checkpoint(run.checkpoint)]
        for file in (*own, *([files.best_checkpoint] if run.trial == kept else [])):
            if file.is_file() and _tokenizer(file) is not None:
                yield run, file
                break


def kept(files: Files, found: SearchFindings | StudyFindings) -> Trial | None:
    """The run whose checkpoint is in the folder of the best model; None if it is none of the best runs."""
    trial = _written(files).get("trial") if files.best_checkpoint.is_file() else None
    return next((run for run in best_runs(found) if run.trial == trial), None)


def best_model(
    files: Files, found: SearchFindings | StudyFindings, arm: str = ""
) -> tuple[list[Trial], Trial, Path]:
    """The finished runs of the best values of a sweep or an arm, the first of them whose checkpoint is
    there, and its file.

    Raises `UsageError` if there is no such arm or no run has finished, and `StorageError` if every
    checkpoint is gone or damaged.
    """
    name = f"{files.name}/{arm}" if arm else files.name
    arms = [one.name for one in found.settled] if isinstance(found, StudyFindings) else []
    if arm and arm not in arms:
        there = f"; there are {', '.join(arms) or 'none'}"
        raise UsageError(f"{name}: no settled arm {arm!r}{did_you_mean(arm, arms) or there}")
    runs = best_runs(found, arm)
    if not runs:
        raise UsageError(f"{name}: no run has finished, so there is no model yet")
    saved = next(checkpoints(files, runs), None)
    if saved is None:
        raise StorageError(f"{name}: the checkpoint of {runs[0].label} is gone or damaged")
    return runs, *saved


def _written(files: Files) -> Row:
    """The facts of the best model that was written; empty if none was."""
    try:
        facts = json.loads(read_file(files.best_facts, _LARGEST))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_own(files: Files) -> bool:
    """Whether the folder of the best model has what the analysis wrote as it wrote it, and no other file."""
    digests = _written(files).get("files")
    if not isinstance(digests, dict) or files.best.is_symlink():
        return False
    names = {Files.CHECKPOINT, files.best_facts.name}
    others = [path for path in files.best.iterdir() if path.name not in names]
    return all(_digest_of(path) == digests.get(path.name, "") for path in others)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(path: Path) -> str | None:
    """The digest of a small file; None if it is none, or can't be read."""
    try:
        return _digest(read_file(path, _LARGEST, follow=False))
    except OSError:
        return None


def _tell(files: Files, words: str) -> None:
    print(f"{files.best}: {words}", file=sys.stderr)


def _link(file: Path, target: Path) -> None:
    """Make a target with the content of a file that nobody changes."""
    try:
        os.link(file, target)
    except OSError:  # another file system, one without links, or the file of another user
        shutil.copyfile(file, target)
        sync(target)


def _tokenizer(file: Path) -> bytes | None:
    """The tokenizer in a checkpoint; None if the file is damaged.

    Its texts are listed and nothing is built: torch need not be loaded, and no code in the file can run.
    """
    try:
        with zipfile.ZipFile(file) as members:
            member = next(one for one in members.infolist() if one.filename.endswith("/data.pkl"))
            if member.compress_type:  # torch writes it as it is; a packed one could be of any size
                return None
            codes = pickletools.genops(members.read(member))
            texts = [argument for code, argument, _ in codes if code.name.endswith("UNICODE")]
        tokenizer = texts[texts.index("tokenizer") + 1]
    except (OSError, ValueError, LookupError, StopIteration, zipfile.BadZipFile):
        return None
    return str(tokenizer).encode()


def _facts(found: SearchFindings | StudyFindings, run: Trial) -> Row:
    """What a program has to know of the best model."""
    end = last_record(run)
    assert end is not None  # it has finished
    return {
        "sweep": found.results.name,
        "trial": run.trial,
        "label": run.label,
        "values": run.values,
        "seed": run.seed,
        "step": end.step,
        "tokens": end.tokens,
        "val_loss": end.val_loss,
        "bits_per_byte": end.bits_per_byte,
        "answer": answer_words(found),
    }


def card(
    found: SearchFindings | StudyFindings, runs: Sequence[Trial], run: Trial, arm: str = ""
) -> str:
    """The model card of a run, the best of its sweep or of an arm: the answer of the sweep with the
    caveats, the run among those of the same values, and its config."""
    results, end = found.results, last_record(run)
    assert end is not None  # it has finished
    measured = {
        METRICS["val_loss"]: f"{loss(end.val_loss)} {UNITS['val_loss']}",
        METRICS["bits_per_byte"]: loss(end.bits_per_byte),
        "trained on": f"{end.tokens:,} tokens, {end.step:,} updates",
        "parameters": f"{run.params:,}",
        "seed": str(run.seed),
        "trial": f"`{run.trial}`",
    }
    of = f"the arm `{arm}` of " if arm else ""
    lines = [
        f"# {escaped(run.label)}",
        "",
        f"The best model of {of}the sweep `{results.name}`, at scale `{results.scale}`.",
        "",
        "## Question and answer",
        "",
        paragraph(results.question),
        "",
        *listed([with_code(words) for words in answer_words(found)]),
        "## This run",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in measured.items()),
        "",
        *_among(found, runs, run),
        "## Its config",
        "",
        *listed([escaped(line) for line in configuration(run)]),
    ]
    return "\n".join(lines)


def _among(found: SearchFindings | StudyFindings, runs: Sequence[Trial], run: Trial) -> list[str]:
    """That a run is one of several with the same values, and the loss to expect instead of its own; empty
    for one run."""
    metric = found.results.metric
    ends = [end.loss(metric) for one in runs if (end := last_record(one)) is not None]
    if len(ends) < 2:
        return []
    same = f"{quantity(len(ends), 'run')} with the same values, which differ by their seeds"
    is_lowest = run.trial == runs[0].trial
    return [
        (
            f"It has the lowest loss of {same}."
            if is_lowest
            else f"It is one of {same}. No checkpoint is left of those with a lower loss."
        )
        + f" Expect their mean: {METRICS[metric]} {loss(statistics.fmean(ends))} "
        f"{UNITS[metric]} ({loss(min(ends))} to {loss(max(ends))}).",
        "",
    ]
