"""What `sweeps.load` and `sweeps.sweep` return and do; see the package for how they are called."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeps.exits import (
    ClusterError,
    Code,
    CommandError,
    LockedError,
    RefusedError,
    StorageError,
    UsageError,
    by_signal,
    refuse_url,
)
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings
from sweeps.ledger import (
    RESULTS,
    Files,
    LedgerError,
    Row,
    Trial,
    find_sweep,
    is_name,
    read,
    write_whole,
)
from sweeps.report.answer import answer_words
from sweeps.report.best import best_model
from sweeps.report.next_steps import steps_of
from sweeps.report.tables import ARMS, CURVE, Table, arms_table, trials_table
from tinylm import config as cfg

if TYPE_CHECKING:
    import pandas as pd
    import tokenizers
    import torch

    from tinylm.checkpoint import TrainedModel


@dataclass(frozen=True)
class BestModel:
    """The best model of a sweep: the one in `best/`, whose card says how it was chosen."""

    run: Trial
    checkpoint: Path

    @property
    def label(self) -> str:
        """The run in words."""
        return self.run.label

    @property
    def values(self) -> dict[str, Any]:
        """The values of the paths that the sweep varied."""
        return self.run.values

    @cached_property
    def config(self) -> cfg.Config:
        """The whole config of the run."""
        return cfg.validate(self.run.config, self.label)

    def model(self) -> "torch.nn.Module":
        """The model on the CPU, in evaluation mode; it maps token ids (B, T) to logits (B, T, V)."""
        return self._trained.model

    def tokenizer(self) -> "tokenizers.Tokenizer":
        """Its tokenizer."""
        return self._trained.tokenizer

    @cached_property
    def _trained(self) -> "TrainedModel":
        from tinylm.checkpoint import load_model

        return load_model(self.checkpoint)


@dataclass(frozen=True, repr=False)
class LoadedSweep:
    """A sweep as its ledger was when it was loaded. Tables are made when they are first asked for.

    Losses are in nats per token, `seconds` are those of training without evaluation, and what was not
    measured is NaN.
    """

    files: Files
    found: SearchFindings | StudyFindings

    def __repr__(self) -> str:
        trials = self.found.results.trials
        return f"<sweep {self.files.name}: {self.found.count('finished')} of {len(trials)} trials finished>"

    @property
    def answer(self) -> list[str]:
        """The answer and its caveats, one sentence each, as every report has them."""
        return answer_words(self.found)

    @property
    def next_steps(self) -> list[str]:
        """What to do next, as every report has it; `sweeps next` writes the space of the first that needs
        one."""
        return [step.words for step in steps_of(self.found)]

    @cached_property
    def findings(self) -> Row:
        """All that was found, as in `analysis/summary.json`, without the names of the figures."""
        facts: Row = json.loads(json.dumps(self.found.as_json()))
        return facts

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """A row per trial, with the columns of `analysis/trials.csv`.

        They are the id (`trial`), `label`, `arm`, `role` (what it was trained for), `status`, `outcome` (a
        problem by a stated rule), `reason`, `seed`, the varied paths, `params`, and of the run `steps`,
        `tokens`, losses, `seconds` and `tokens_per_s`. `*_final` is the last value that was measured: of a
        stopped trial, the one where it stopped.
        """
        return _frame(trials_table(self.found.results))

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """A row per record of a trial, by trial and step.

        They are `trial`, `label`, `seed`, the varied paths, then `step`, `tokens`, `seconds`,
        `train_loss` (the mean since the record before), `val_loss`, `bits_per_byte`, `lr`, `grad_norm`,
        `decayed` (the metric of the sweep after a decay branch) and `audited` (whether an audit of a
        stopped trial added the record).
        """
        return _frame(_curves(self.found))

    @cached_property
    def arms(self) -> "pd.DataFrame":
        """A row per arm of a study, the baseline first, with the columns of `analysis/arms.csv`; no rows
        for other sweeps.

        `difference` is the mean over seeds of the arm less the baseline, `low` and `high` its interval
        (of 95% where `level` is 5), `p_holm` the p-value adjusted for all arms.
        """
        compared = self.found.comparison if isinstance(self.found, StudyFindings) else None
        return _frame(Table(ARMS, []) if compared is None else arms_table(compared))

    @cached_property
    def best(self) -> BestModel:
        """The best model.

        Raises `UsageError` if no run has finished, and `StorageError` if its checkpoint is gone.
        """
        _, run, file = best_model(self.files, self.found)
        return BestModel(run, file)


def _frame(table: Table) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(table.rows, columns=list(table.columns))


def _curves(found: SearchFindings | StudyFindings) -> Table:
    """The records of the trials and of their audits."""
    results = found.results
    paths = [swept.path for swept in results.swept]
    rows = []
    for trial in results.trials:
        whole = (
            results.sweep.audit(trial.trial) or trial
        )  # an audit's curve begins with its trial's
        same = {"trial": trial.trial, "label": trial.label, "seed": trial.seed}
        same |= {path: trial.value(path) for path in paths}
        for number, row in enumerate(whole.curve):
            measured = {name: row[name] for name in CURVE}
            decayed = row.get(f"decayed_{results.metric}")
            more = {"decayed": decayed, "audited": number >= len(trial.curve)}
            rows.append(same | measured | more)
    columns = ("trial", "label", "seed", *paths, *CURVE, "decayed", "audited")
    return Table(columns, rows)


def load(name: str | os.PathLike[str]) -> LoadedSweep:
    """See `sweeps.load`."""
    files = find_sweep(os.fspath(name))
    return LoadedSweep(files, Reader().findings(files))


def sweep(
    space: str | os.PathLike[str] | Mapping[str, Any],
    scale: str,
    *,
    name: str,
    changes: Mapping[str, Any] | None,
    out: str | os.PathLike[str] | None,
    seed: int,
    audit: float,
    slots: int | None,
) -> LoadedSweep:
    """See `sweeps.sweep`."""
    from sweeps.engine.machine import default_scale
    from sweeps.plan.request import read_request

    scale = scale or default_scale()
    assigned = [f"{path}={json.dumps(_plain(value))}" for path, value in (changes or {}).items()]
    folder = None if out is None else Path(out)
    if folder is not None:
        refuse_url("out", folder)
    if isinstance(space, Mapping):
        if not name and folder is None:
            raise UsageError(
                f"name: missing; a space that is a mapping needs one: add name={_name_for(space)!r}"
            )
        if not name and folder is not None:
            name = folder.name
        folder = folder or RESULTS / f"{name}-{Path(scale).stem}"
        source = Files(folder).space
        content = _written(space)
        _check(content, name, lambda file: read_request(file, scale, assigned, seed))
        with _restored(Files(folder)):
            write_whole(source, content)
            return _run_sweep(source, folder, scale, assigned, seed, audit, slots)
    if name:
        raise UsageError(f"name={name!r}: is for a space that is a mapping; out chooses the folder")
    return _run_sweep(Path(space), folder, scale, assigned, seed, audit, slots)


def _name_for(space: Mapping[str, Any]) -> str:
    """A name for a space, after what it varies."""
    varied = space.get("space") or space.get("arms")
    names = [str(one).rpartition(".")[2] for one in varied] if isinstance(varied, Mapping) else []
    found = "my_" + "_".join(names[:2])
    return found if names and is_name(found) else "my_sweep"


@contextmanager
def _restored(files: Files) -> Iterator[None]:
    """Restore the space of a sweep after an error, unless the ledger was asked for a new one."""
    before = files.space.read_bytes() if files.space.is_file() else None
    asked = _last_request(files)
    try:
        yield
    except BaseException as error:
        # What another driver asked for is not ours.
        if isinstance(error, LockedError) or _last_request(files) == asked:
            if before is None:
                files.space.unlink(missing_ok=True)
            else:
                write_whole(files.space, before)
        raise


def _last_request(files: Files) -> int | None:
    """The number of the row that last asked a sweep for something; None if there is none."""
    try:
        asked = [row["seq"] for row in read(files) if row["kind"] == "sweep"]
    except (CommandError, OSError):  # no ledger, or a damaged one
        return None
    return asked[-1] if asked else None


def _run_sweep(
    source: Path,
    folder: Path | None,
    scale: str,
    assigned: list[str],
    seed: int,
    audit: float,
    slots: int | None,
) -> LoadedSweep:
    """Run or resume the sweep of a space file, in a process of its own."""
    from sweeps.plan.request import read_request, sweep_folder

    folder = sweep_folder(read_request(str(source), scale, assigned, seed), folder)
    options = {"--scale": scale, "--out": folder, "--seed": seed, "--audit": audit}
    command = [sys.executable, "-m", "sweeps.run", str(source)]
    command += [str(part) for option in options.items() for part in option]
    command += [part for change in assigned for part in ("--set", change)]
    command += ["--slots", str(slots)] if slots is not None else []
    conclude(*_run(command))
    return load(folder)


def _written(space: Mapping[str, Any]) -> bytes:
    """The YAML file of a space; `ConfigError` for a value that no such file can hold."""
    try:
        return yaml.safe_dump(_plain(space), sort_keys=False).encode()
    except yaml.YAMLError as error:
        words = " ".join(map(str, error.args))[:200]
        raise cfg.ConfigError(
            [f"space: only numbers, texts, lists and mappings: {words}"]
        ) from error


def _plain(value: Any) -> Any:
    """A value of Python or numpy as the lists, mappings and numbers of YAML."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _check(content: bytes, name: str, read: Callable[[str], object]) -> None:
    """Raise what is wrong with a space before its file is written where it stays."""
    if not is_name(name):
        raise UsageError(f"name={name!r}: expected a name of letters, digits, _, - and .")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_bytes(content)
        try:
            read(str(file))
        except cfg.ConfigError as error:
            problems = [problem.replace(f"{folder}/", "") for problem in error.problems]
            raise cfg.ConfigError(problems) from None


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command and print its lines as they come; its exit code, and what it wrote to stderr."""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as running:
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    print(line, end="", flush=True)
            except KeyboardInterrupt:  # the command resumes where it is told to end
                running.send_signal(signal.SIGINT)
                running.communicate()
                raise
        errors.seek(0)
        return running.returncode, errors.read().strip()


_ERRORS = {
    Code.USAGE: UsageError,
    Code.LOCKED: LockedError,
    Code.DAMAGED: LedgerError,
    Code.STORAGE: StorageError,
    Code.CLUSTER: ClusterError,
    Code.REFUSED: RefusedError,
}


def conclude(code: int, said: str) -> None:
    """Raise the error that a command ended with, by its exit code and what it said; a warning for a sweep
    with results that is not as asked."""
    if code == by_signal(signal.SIGINT):
        raise KeyboardInterrupt(said)
    if code in {Code.FAILED, Code.NONE_SUCCEEDED, Code.CAPPED}:
        warnings.warn(said or f"the sweep ended with exit code {code}", stacklevel=4)
    elif code in _ERRORS:
        raise _ERRORS[Code(code)](said)
    elif code:
        raise RuntimeError(f"the sweep ended with exit code {code}: {said}")
    elif said:
        print(said, file=sys.stderr)
