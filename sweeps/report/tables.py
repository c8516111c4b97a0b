"""The CSV tables of a sweep: trials, curves, and the arms of a study."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sweeps.findings.arms import ArmFindings
from sweeps.findings.comparison import ArmsComparison
from sweeps.findings.results import METRICS, Results, reason_of, status_of, tokens_per_s, varied
from sweeps.ledger import Row, Trial
from sweeps.outcomes import outcome
from sweeps.selection import Metric, best_record, last_record
from sweeps.text import named

CURVE = ("step", "tokens", "seconds", "train_loss", "val_loss", "bits_per_byte", "lr", "grad_norm")
MEASURED = (
    "steps",
    "tokens",
    "train_loss_final",
    "val_loss_final",
    "val_loss_best",
    "step_best",
    "bits_per_byte_final",
    "seconds",
    "tokens_per_s",
)
ARMS = (
    "arm", "hypothesis", "changes", "chosen", "n", "params", "more_params", "flops_per_token",
    "more_flops", "seconds", "tokens_per_s", "loss", "difference", "low", "high", "level", "correlation",
    *(f"difference_{metric}" for metric in METRICS), "p", "p_holm", "verdict", "words", "cautions",
)  # fmt: skip


_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:e\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Rows that all have these columns; missing measurements are None."""

    columns: tuple[str, ...]
    rows: list[Row]

    def csv(self) -> bytes:
        """The content of a CSV file."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([cell(row[name]) for name in self.columns] for row in self.rows)
        return stream.getvalue().encode()


def cell(value: Any) -> Any:
    """A value as a CSV cell: None is empty, and no text can become a formula or number of a
    spreadsheet, such as the id 1234e5678901."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        reads = value.startswith(("=", "+", "-", "@", "\t", "\r")) or _NUMBER.fullmatch(value)
        return f"'{value}" if reads else value
    return "" if value is None or not math.isfinite(value) else value


def trials_table(results: Results) -> Table:
    """One row per trial, in plan order.

    `*_final` is the last measured value: for a stopped trial, the value where it stopped. The last
    value of its audit is `val_loss_audited`. Steps and tokens of a diverged trial are those at which
    it diverged, past its last record.
    """
    paths = [swept.path for swept in results.swept]
    head = ("trial", "label", "arm", "role", "status", "outcome", "reason", "seed")
    columns = (*head, *paths, "params", *MEASURED, "val_loss_audited")
    trials = [trial for trial in results.sweep.everything if trial.role != "audit"]
    rows = [_trial_row(trial, results.sweep.audit(trial.trial), paths) for trial in trials]
    return Table(columns, rows)


def _trial_row(trial: Trial, audit: Trial | None, paths: Sequence[str]) -> Row:
    last, best = last_record(trial), best_record(trial)
    audited = last_record(audit) if audit is not None and audit.status == "finished" else None
    reached = last is not None or trial.status == "diverged"
    return {
        "trial": trial.trial,
        "label": trial.label,
        "arm": trial.arm or None,
        "role": trial.role,
        "status": status_of(trial),
        "outcome": outcome(trial),
        "reason": reason_of(trial),
        "seed": trial.seed,
        **{path: varied(trial, path) for path in paths},
        "params": trial.params,
        "steps": trial.step if reached else None,
        "tokens": trial.tokens if reached else None,
        "train_loss_final": last and last.train_loss,
        "val_loss_final": last and last.val_loss,
        "val_loss_best": best and best.val_loss,
        "step_best": best and best.step,
        "bits_per_byte_final": last and last.bits_per_byte,
        "seconds": last and last.seconds,
        "tokens_per_s": tokens_per_s(trial),
        "val_loss_audited": audited and audited.val_loss,
    }


def curves_csv(results: Results) -> bytes:
    """A CSV file with one row per record, by trial and step; `score` is the sweep's metric, and
    `decayed` is the metric after a decay branch.

    Rows that an audit added to a stopped trial are marked. A diverged trial ends with a row whose
    score is nan, so that `sweeps.replay` can read the file. It is by far the longest file: what is the
    same in all rows of a trial is formatted once.
    """
    paths = [swept.path for swept in results.swept]
    stream = io.BytesIO()
    stream.write(_line(["trial", *CURVE, "score", "decayed", *paths, "seed", "audited"]).encode())
    for trial in results.trials:
        audit = results.sweep.audit(trial.trial)
        stream.write("".join(_curve_lines(trial, audit, results.metric, paths)).encode())
    return stream.getvalue()


def _line(cells: Sequence[Any]) -> str:
    """A line of a CSV file."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _curve_lines(
    trial: Trial, audit: Trial | None, metric: Metric, paths: Sequence[str]
) -> Iterator[str]:
    """The records of a trial and of its audit."""
    name = _line([cell(trial.trial)]).removesuffix("\n")
    values = (*(cell(varied(trial, path)) for path in paths), trial.seed)
    own, added = (_line([*values, cell(audited)]) for audited in (None, True))
    whole = audit or trial  # an audit's curve begins with its trial's
    measured, score, decayed = itemgetter(*CURVE), CURVE.index(metric), f"decayed_{metric}"
    for number, row in enumerate(whole.curve):
        cells = list(map(repr, measured(row)))  # finite numbers, and None for what was not measured
        numbers = ",".join([*cells, cells[score], repr(row.get(decayed))]).replace("None", "")
        yield f"{name},{numbers},{own if number < len(trial.curve) else added}"
    if whole.status == "diverged":
        where = [{"step": whole.step, "tokens": whole.tokens}.get(column, "") for column in CURVE]
        yield f"{name},{','.join(map(str, where))},nan,,{own if audit is None else added}"


def arms_table(compared: ArmsComparison) -> Table:
    """One row per arm, the baseline first. `level` is that of the verdict, in percent: the interval from
    `low` to `high` covers the truth in the rest. `correlation` is that with the baseline over seeds.

    Where the study asks for speedups, there are columns for them: a `speedup` or an end of its interval that is one
    of the horizons is a bound. Where it has a target, the columns `target_*` say what it took.
    """
    more = _SPEEDUP * (compared.speedups is not None)
    more += _TARGET * any(arm.to_target is not None for arm in compared.arms)
    return Table((*ARMS, *more), [_arm_row(arm) for arm in compared.arms])


_SPEEDUP = ("speedup", "speedup_low", "speedup_high", "speedup_time")
_TARGET = ("target_reached", "target_steps", "target_tokens", "target_seconds")


def _arm_row(arm: ArmFindings) -> Row:
    fields = arm.as_json()
    return {
        **{name: fields.get(name) for name in ARMS},
        "changes": named(arm.runs.changes),
        "chosen": named(arm.runs.chosen or {}),
        "loss": arm.mean,
        "level": None if arm.runs.is_baseline else arm.level,
        "cautions": arm.caveats,
        **dict(zip(_SPEEDUP, _speedup_cells(arm), strict=True)),
        **dict(zip(_TARGET, _target_cells(arm), strict=True)),
    }


def _speedup_cells(arm: ArmFindings) -> tuple[float | None, ...]:
    if arm.speedup is None:
        return (None,) * len(_SPEEDUP)
    tokens, time = arm.speedup.tokens, arm.speedup.time
    return tokens.times, tokens.low, tokens.high, time and time.times


def _target_cells(arm: ArmFindings) -> tuple[float | None, ...]:
    found = arm.to_target
    if found is None:
        return (None,) * len(_TARGET)
    return found.reached, found.steps, found.tokens, found.seconds
