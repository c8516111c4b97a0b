"""TensorBoard event files: a fold over the ledger, so a resumed sweep shows one curve a trial."""

import os
import re
import shutil
from datetime import datetime
from pathlib import Path

from sweeps import ledger
from sweeps.ledger import Files, Row, Trial

SCALARS = ("train_loss", "val_loss", "bits_per_byte", "lr", "grad_norm", "tokens_per_s")


def run_name(trial: Trial) -> str:
    """The folder of a trial: its label as far as a file system takes it, and its id."""
    label = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", trial.label)[:100].lstrip(".")
    return f"{label}-{trial.trial}"


def moment(row: Row) -> float:
    """When a row was written, in seconds since 1970."""
    return datetime.fromisoformat(row["time"]).timestamp()


def _write_trial(trial: Trial, folder: Path) -> None:
    from tensorboardX import SummaryWriter  # takes seconds where torch is installed

    with SummaryWriter(str(folder)) as writer:
        for row in trial.curve:
            for name in SCALARS:
                if row[name] is not None:
                    writer.add_scalar(name, row[name], row["step"], moment(row))


def write(files: Files) -> Path:
    """Write the event files of every measured trial anew; the folder that TensorBoard reads.

    They are written beside the old ones and then take their place, so that no curve stands twice.
    """
    sweep = ledger.fold(ledger.read(files))
    new = files.events.with_name(f".tensorboard.new.{os.getpid()}")
    old = files.events.with_name(f".tensorboard.old.{os.getpid()}")
    try:
        new.mkdir(parents=True)
        for trial in sweep.trials.values():
            if trial.curve:
                _write_trial(trial, new / run_name(trial))
        if files.events.exists():
            files.events.rename(old)
        new.rename(files.events)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return files.events
