"""Recorded learning curves, and the CSV files that hold them."""

import csv
import io
import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from sweeps.text import short_name
from tinylm.config import ConfigError, did_you_mean
from tinylm.files import read_file

BUDGET = "budget.tokens"  # a column of sweeps whose trials have budgets of their own
SCORE = "score"  # the metric's name in files of curves and in replayed rows


@dataclass(frozen=True)
class Curve:
    """The recorded curve of one trial. If its last score is not finite, it diverged there."""

    trial: str
    label: str
    tokens: tuple[int, ...]  # of its records, ascending
    scores: tuple[float, ...]
    seconds: tuple[float, ...]  # since its start
    decayed: Mapping[int, float] = field(default_factory=dict)  # by tokens, after a decay branch
    scale: Fraction = Fraction(1)  # the trial trains this many tokens for each of the curve's
    values: str | None = None  # shared by trials that differ only by seed; None for one without any
    seed: int = 0

    @property
    def value(self) -> str:
        """What it is named by among values, of which seeds are repeats."""
        return self.trial if self.values is None else self.values

    @property
    def final(self) -> float:
        """The last score."""
        return self.scores[-1]

    @property
    def diverged(self) -> bool:
        """Whether the trial ended without a finite score."""
        return not math.isfinite(self.final)


_COLUMNS = ("trial", "tokens", SCORE)
_MEASURED = {"seconds", "decayed", "step", "train_loss", "val_loss", "bits_per_byte", "grad_norm"}
_LARGEST_FILE = 10**9  # bytes
_LARGEST = 1e15  # of tokens, seconds and scores; larger ones are typing errors


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: expected a number, got {text!r}") from error


def _finite(text: str, where: str) -> float:
    number = _number(text, where)
    if not abs(number) <= _LARGEST:
        raise ValueError(f"{where}: expected a number of at most {_LARGEST:g}, got {text!r}")
    return number


def _seconds(row: Mapping[str, str], tokens: float, score: float, where: str) -> float | None:
    """The seconds of a row; its tokens if the file has no seconds, None if the trial diverged before
    the next record."""
    if "seconds" not in row:
        return tokens
    if not row["seconds"] and not math.isfinite(score):
        return None
    return _finite(row["seconds"], f"{where}: seconds")


def _at_own_speed(tokens: Sequence[int], seconds: Sequence[float | None]) -> tuple[float, ...]:
    """The seconds, with a missing last one at the speed before it; one second per token if there are
    none."""
    *before, last = seconds
    known = [each for each in before if each is not None]
    if last is None:
        speed = tokens[-2] / known[-1] if known else 1.0
        last = tokens[-1] / speed
    return (*known, last)


def _curve(trial: str, rows: list[tuple[int, dict[str, str]]], source: str) -> Curve:
    """The curve of one trial's numbered lines; `ValueError` with the line that is wrong."""
    points: dict[int, tuple[float, float | None]] = {}
    decayed: dict[int, float] = {}
    for line, row in rows:
        where = f"{source}: line {line}"
        tokens = _finite(row["tokens"], f"{where}: tokens")
        if tokens <= 0 or tokens != int(tokens):
            raise ValueError(
                f"{where}: tokens: expected a positive whole number, got {row['tokens']!r}"
            )
        if tokens in points:
            raise ValueError(f"{where}: trial {trial} already has a row at {tokens:.0f} tokens")
        score = _number(row[SCORE], f"{where}: {SCORE}")
        if math.isfinite(score):
            score = _finite(row[SCORE], f"{where}: {SCORE}")
        points[int(tokens)] = (score, _seconds(row, tokens, score, where))
        if row.get("decayed"):
            decayed[int(tokens)] = _number(row["decayed"], f"{where}: decayed")
    line = rows[0][0]
    # A swept value is the same in all rows of a trial; `lr` at a record is not a swept value.
    swept = {short_name(name) for name in rows[0][1] if "." in name}
    values = {
        name: cells.pop()
        for name in rows[0][1]
        if name not in {*_COLUMNS, *_MEASURED, *swept}
        and len(cells := {row[name] for _, row in rows}) == 1
        and "" not in cells
    }
    label = " ".join(f"{short_name(path)}={value}" for path, value in values.items())
    ordered = sorted(points)
    ends = next((i for i, t in enumerate(ordered) if not math.isfinite(points[t][0])), None)
    kept = ordered if ends is None else ordered[: ends + 1]
    seconds = _at_own_speed(kept, [points[tokens][1] for tokens in kept])
    if any(later <= earlier for earlier, later in zip((0.0, *seconds), seconds, strict=False)):
        raise ValueError(f"{source}: line {line}: trial {trial}: seconds must increase with tokens")
    scores = tuple(points[tokens][0] for tokens in kept)
    return Curve(trial, label or trial, tuple(kept), scores, seconds, decayed)


def read_curves(path: Path) -> list[Curve]:
    """The curves of a CSV file, in order of appearance; `ConfigError` with everything wrong in it.

    Columns: trial, tokens and score; optional are seconds, decayed (the score after a decay branch
    from there) and swept values. Without seconds, each token takes one second.
    """
    try:
        text = read_file(path, _LARGEST_FILE).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, row) for row in reader]
        names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"{path}: {getattr(error, 'strerror', None) or error}"]) from error
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ConfigError([f"{path}: two columns are named {name!r}" for name in twice])
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        near = [f"{name}{did_you_mean(name, names)}" for name in missing]
        raise ConfigError([f"{path}: no column {name}" for name in near])
    ragged = [line for line, row in rows if None in row or None in row.values()]
    if ragged:
        raise ConfigError([f"{path}: line {line}: expected {len(names)} cells" for line in ragged])
    if len({row[BUDGET] for _, row in rows} if BUDGET in names else ()) > 1:
        problem = f"the trials have different {BUDGET}, and a replay compares them at equal tokens"
        raise ConfigError([f"{path}: {problem}"])
    by_trial: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in rows:
        by_trial.setdefault(row["trial"], []).append((line, row))
    curves, wrong = [], []
    for trial, lines in by_trial.items():
        try:
            curves.append(_curve(trial, lines, str(path)))
        except ValueError as error:
            wrong.append(str(error))
    wrong = wrong or [f"{path}: {problem}" for problem in _useless(curves)]
    if wrong:
        raise ConfigError(wrong)
    return _by_value(curves, {trial: lines[0][1] for trial, lines in by_trial.items()})


def _by_value(curves: Sequence[Curve], first: Mapping[str, Mapping[str, str]]) -> list[Curve]:
    """The curves with what they share with those that differ only by seed, by the first row of each; as
    they are where several have the same values and the same seed."""
    names = [name for name in first[curves[0].trial] if "." in name]
    seeds = {trial: row.get("seed", "") for trial, row in first.items()}
    values = {trial: " ".join(row[name] for name in names) for trial, row in first.items()}
    pairs = {(values[curve.trial], seeds[curve.trial]) for curve in curves}
    if len(pairs) < len(curves) or not all(seed.isdecimal() for seed in seeds.values()):
        return list(curves)
    return [
        replace(curve, values=values[curve.trial], seed=int(seeds[curve.trial])) for curve in curves
    ]


def by_value(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    """The curves of each value, in their order."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.value, []).append(curve)
    return found


def mean_curve(value: str, seeds: Sequence[Curve]) -> Curve:
    """The mean of the curves of a value, where all have a score; if one diverged, it diverges there."""
    if len(seeds) == 1:
        return replace(seeds[0], trial=value)
    scores = [dict(zip(curve.tokens, curve.scores, strict=True)) for curve in seeds]
    shared = sorted(set.intersection(*map(set, scores)))
    means = {tokens: statistics.fmean(each[tokens] for each in scores) for tokens in shared}
    end = min((curve.tokens[-1] for curve in seeds if curve.diverged), default=None)
    if end is not None:
        means = {tokens: mean for tokens, mean in means.items() if tokens < end} | {end: math.inf}
    parts = [set(curve.label.split()) for curve in seeds]
    label = " ".join(word for word in seeds[0].label.split() if word in set.intersection(*parts))
    return Curve(value, label or value, tuple(means), tuple(means.values()), tuple(means))


def _useless(curves: Sequence[Curve]) -> Iterator[str]:
    """Why no policy can be replayed on the curves."""
    short = [curve for curve in curves if len(curve.tokens) == 1 and not curve.diverged]
    if not curves:
        yield "no rows"
    elif all(curve.diverged for curve in curves):
        yield "no trial has a finite final score"
    elif short:
        trials = "1 trial has" if len(short) == 1 else f"{len(short)} trials have"
        yield (
            f"{trials} one row (the first is {short[0].trial}); a curve needs at least two. "
            "Run the sweep with `--audit 1`, which trains the stopped trials to the end"
        )


def reaches(curve: Curve, rung: int) -> bool:
    """Whether a curve has a score at a rung, or diverges before it."""
    return curve.tokens[0] <= rung <= curve.tokens[-1] or (
        curve.diverged and curve.tokens[-1] <= rung
    )


def ended_early(curves: Sequence[Curve]) -> list[Curve]:
    """The curves that end before the longest one, without having diverged."""
    budget = max(curve.tokens[-1] for curve in curves)
    return [curve for curve in curves if curve.tokens[-1] < budget and not curve.diverged]


def arrivals(curves: Sequence[Curve], repeats: int, seed: int) -> list[list[Curve]]:
    """The curves in random orders of their values, one for each repeat; first the first seeds of all."""
    values = list(by_value(curves).values())
    orders = (
        random.Random(f"{seed} {number}").sample(values, len(values))  # noqa: S311 no secret
        for number in range(repeats)
    )
    return [
        [curve for turn in itertools.zip_longest(*order) for curve in turn if curve]
        for order in orders
    ]
