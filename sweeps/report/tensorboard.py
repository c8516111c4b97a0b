"""TensorBoard event files, made from the ledger, so a resumed sweep shows one curve per trial.

Each trial is a run with its scalars and hyperparameters. One more run has the sweep's figures.
"""

import contextlib
import re
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.results import Results, status_of
from sweeps.ledger import Files, Trial
from sweeps.report.written import Written, digest_of
from sweeps.selection import Point, at, when

FIGURES = "figures"  # the run that has the figures
SCALARS = ("train_loss", "val_loss", "bits_per_byte", "lr", "grad_norm", "tokens_per_s")


def run_name(trial: Trial) -> str:
    """The folder of a trial: its label, limited to what a file system allows, and its id."""
    label = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", trial.label)[:100].lstrip(".")
    return f"{label}-{trial.trial}"


def _hyperparameters(results: Results, trial: Trial) -> dict[str, Any]:
    """The swept values, the seed, and how the trial ended."""
    paths = [swept.path for swept in results.swept]
    values = {path: trial.value(path) for path in paths}
    return {**values, "seed": trial.seed, "status": status_of(trial)}


def _compared(results: Results) -> dict[str, Point]:
    """The points at which trials are compared, by the name of the scalar that has the losses there."""
    from sweeps.report.plots.trials import levels_of  # loads matplotlib

    points = [level.point for level in levels_of(results)]
    words = {point: f"{results.metric} {when(point)}".replace(",", "") for point in points}
    return {re.sub(r"[^\w.-]+", "_", words[point]): point for point in points}


def _write_trial(results: Results, trial: Trial, folder: Path) -> None:
    from tensorboardX import SummaryWriter  # takes seconds if torch is installed
    from tensorboardX.summary import hparams

    with SummaryWriter(str(folder)) as writer:
        # Its HParams tab shows these scalars, each of one point: the last losses of trials that were stopped
        # at different ones can't be compared.
        points = _compared(results)
        for summary in hparams(_hyperparameters(results, trial), dict.fromkeys(points)):
            writer.file_writer.add_summary(summary)
        # The time of day may be set while a sweep runs; the seconds of its sessions go on evenly.
        begun = datetime.fromisoformat(results.begun).timestamp()
        for row, seconds in zip(trial.curve, trial.moments, strict=True):
            for name in SCALARS:
                if row[name] is not None:
                    writer.add_scalar(name, row[name], row["step"], begun + seconds)
        for name, point in points.items():
            record = at(trial, point)
            if record is not None:
                writer.add_scalar(name, record.loss(results.metric), record.step, begun)


def _write_figures(found: SearchFindings | StudyFindings, folder: Path) -> None:
    import matplotlib.style
    from tensorboardX import SummaryWriter

    from sweeps.report import plots
    from sweeps.report.plots.look import STYLE

    with matplotlib.style.context(["default", STYLE]), SummaryWriter(str(folder)) as writer:
        for name, figure in plots.figures(found).items():
            writer.add_figure(name, figure)


def write(files: Files, found: SearchFindings | StudyFindings) -> Path:
    """Rewrite the event files of every measured trial; returns the folder for TensorBoard.

    New files are written next to the old ones and then replace them, so that no curve appears twice. What
    else people put there stays.
    """
    results = found.results
    measured = [trial for trial in results.sweep.trials.values() if trial.curve]
    # Older versions wrote no list of files.
    own = Written(files.written, earlier=True, folder=files.events)
    runs = {FIGURES, *map(run_name, results.sweep.everything)}
    files.events.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tensorboard.", dir=files.analysis) as new:
        for trial in measured:
            _write_trial(results, trial, Path(new) / run_name(trial))
        if measured:
            _write_figures(found, Path(new) / FIGURES)
        for old in files.events.glob("*/events.out.tfevents.*"):
            if (own.is_known(old) or old.parent.name in runs) and own.is_own(old):
                old.unlink()
                with contextlib.suppress(OSError):  # others are beside it
                    old.parent.rmdir()
        for file in Path(new).glob("*/*"):
            target = files.events / file.relative_to(new)
            target.parent.mkdir(exist_ok=True)
            own.add(target, digest_of(file.read_bytes()))
            shutil.move(file, target)
    return files.events
