"""Whether the losses of a trial are those that its config gives: its first updates are made again.

A worker's `Attempt` makes them, in this process: so the bits are those of a worker. They depend on the
training code, on torch and numpy, on the kind of processor, and on settings that the config holds (threads,
precision, compiled or not). Where these are the same, losses have to be equal bit for bit; on another
processor or GPU, or with other versions, within `TOLERANCE`. Nothing is written.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from sweeps import ledger as led
from sweeps.engine import provenance
from sweeps.engine.failures import failure_of
from sweeps.engine.job import Job
from sweeps.engine.machine import is_too_large
from sweeps.exits import CommandError, UsageError, message_of
from sweeps.steering import find_trial
from sweeps.text import quantity
from tinylm import config as cfg
from tinylm import data

TOLERANCE = 1e-3  # largest relative difference of a loss on another kind of machine
_LOSSES = ("train_loss", "val_loss", "bits_per_byte")

Result = Literal["equal", "close", "differs", "not comparable"]


@dataclass(frozen=True)
class Point:
    """What is compared after so many updates."""

    step: int
    losses: tuple[float, ...]  # none where the run diverged


@dataclass(frozen=True)
class Verified:
    """What came of a trial that was trained again."""

    trial: led.Trial
    result: Result
    points: int = 0  # that were compared
    updates: int = 0  # up to the last of them
    reason: str = ""  # in words, unless all is equal

    def as_json(self) -> led.Row:
        """The fields that `sweeps verify --json` prints of a trial."""
        return {
            "trial": self.trial.trial,
            "label": self.trial.label,
            "result": self.result,
            "records": self.points,
            "updates": self.updates,
            "reason": self.reason,
        }


def find_trials(sweep: led.Sweep, name: str) -> list[led.Trial]:
    """The trial that a name means, or all trials if there is no name; `UsageError` as of
    `steering.find_trial`, or if no trial has anything to compare with."""
    found = [find_trial(sweep.everything, name)] if name else list(sweep.trials.values())
    if not any(recorded(one, 1) for one in found):
        raise UsageError(
            f"{name or sweep.source}: nothing is measured yet, so nothing can be verified"
        )
    return found


def recorded(trial: led.Trial, updates: int) -> list[Point]:
    """What the ledger has of a trial's first updates: at least its first record, if it has one, or where
    it diverged before."""
    points = [_point(row) for row in trial.curve]
    if trial.status == "diverged":
        points.append(Point(trial.step, ()))
    return [one for one in points if one.step <= updates] or points[:1]


def _point(row: Mapping[str, Any]) -> Point:
    """The point of a record, or of an event of an attempt."""
    diverged = row.get("event") == "diverged"
    return Point(row["step"], () if diverged else tuple(row[name] for name in _LOSSES))


def verify(
    sweep: led.Sweep, trial: led.Trial, updates: int, tell: Callable[[str], None]
) -> Verified:
    """Make the first updates of a trial again, at least up to its first record, and compare the losses.

    It can't be compared if its corpus or its device is not here, if this version does not know its config,
    or if it can't be trained here, as for lack of memory.
    """
    try:
        return _verified(sweep, trial, updates, tell)
    except (CommandError, OSError) as error:
        return Verified(trial, "not comparable", reason=message_of(error))
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        why = f"it can't be trained here: {failure_of(error).reason}"
        return Verified(trial, "not comparable", reason=why)


def _verified(
    sweep: led.Sweep, trial: led.Trial, updates: int, tell: Callable[[str], None]
) -> Verified:
    expected = recorded(trial, updates)
    if not expected:
        return Verified(trial, "not comparable", reason="nothing is measured yet")
    if trial.config["budget"]["seconds"] is not None:
        why = "with a budget in seconds the learning rate depends on the speed of the machine"
        return Verified(trial, "not comparable", reason=why)
    config = cfg.validate(trial.config, trial.label)
    _require(config.run.device, trial)
    if is_too_large(config):
        return Verified(
            trial, "not comparable", reason="it does not fit in the memory of this machine"
        )
    corpus = _corpus(trial, config, tell)
    if corpus != trial.corpus:
        why = f"data: the digest of the corpus was {trial.corpus}, it is {corpus} here"
        return Verified(trial, "differs", reason=why)
    tell(f"{trial.label} ({trial.trial}): training {quantity(expected[-1].step, 'update')}")
    found = list(_again(trial, expected[-1].step))
    here = provenance.describe(config.run.device)
    changes = [change for session in _sessions(sweep, trial) for change in differing(session, here)]
    return compare(trial, expected, found, list(dict.fromkeys(changes)))


def _require(device: str, trial: led.Trial) -> None:
    """Raise `UsageError` if a trial's device is not available here."""
    from tinylm import train

    try:
        train.require(device)
    except cfg.ConfigError as error:
        raise UsageError(
            f"{trial.label}: was trained on {device}, which is not available here; verify it on a "
            "machine that has it"
        ) from error


def _corpus(trial: led.Trial, config: cfg.Config, tell: Callable[[str], None]) -> str:
    """The digest of a trial's corpus here; `ConfigError`, with what to do, if it is not here."""
    if data.find(trial.corpus) is not None:
        return trial.corpus
    try:
        return data.prepare(config, tell).digest
    except cfg.ConfigError as error:
        folder = data.cache_folder() / "corpora" / trial.corpus
        advice = (
            f"the corpus of the sweep is not here: put its files there, or copy the folder "
            f"corpora/{trial.corpus} of the cache of a machine that has it to {folder}"
        )
        raise cfg.ConfigError([*str(error).splitlines(), advice]) from error


def _again(trial: led.Trial, updates: int) -> Iterator[Point]:
    """The points of a trial that is trained from its beginning for so many updates."""
    from sweeps.engine.worker import Attempt

    job = Job(trial.trial, trial.label, 0, trial.config, trial.corpus, (), 0.0, None)
    for event in Attempt(job).events():
        yield _point(event)
        if event["step"] >= updates:
            return


def _sessions(sweep: led.Sweep, trial: led.Trial) -> list[led.Row]:
    """The sessions that trained a trial's curve."""
    return [sweep.sessions[number] for number in trial.sessions if number >= 0]


@dataclass(frozen=True)
class Change:
    """Something that is not as it was when a trial was trained."""

    what: Literal["code", "versions", "machine"]
    words: str


# What the bits of a loss depend on, besides the code and the config.
_VERSIONS = ("torch", "numpy", "cuda")
_MACHINE = ("processor", "gpu")


def differing(session: led.Row, here: Mapping[str, Any]) -> list[Change]:
    """What differs between the row of a session and this machine, or is not known of the session."""
    found = []
    if session.get("code") != here["code"]:
        was = f"was {session['code']}" if session.get("code") else _UNKNOWN
        found.append(
            Change("code", f"the training code of tinylm {was}, it is {here['code']} here")
        )
    parts: tuple[tuple[Literal["versions", "machine"], Iterable[str]], ...] = (
        ("versions", _VERSIONS),
        ("machine", _MACHINE),
    )
    for what, names in parts:
        before, now = session.get(what, {}), here[what]
        for name in names:
            if before.get(name) != now.get(name):
                was = f"was {before[name]}" if name in before else _UNKNOWN
                found.append(Change(what, f"{name} {was}, it is {now.get(name, 'missing')} here"))
    return found


_UNKNOWN = "is not in the ledger"


def compare(
    trial: led.Trial, expected: Sequence[Point], found: Sequence[Point], changes: Sequence[Change]
) -> Verified:
    """What the points say, where so much has changed since the trial was trained."""
    gaps = [_difference(was, now) for was, now in zip(expected, found, strict=False)]
    same = list(takewhile(math.isfinite, gaps))  # of which the steps are those of the ledger
    updates, whole = expected[-1].step, len(same) == len(expected)
    if whole and not any(same):
        return Verified(trial, "equal", len(same), updates)
    if whole:
        first = next(was.step for was, gap in zip(expected, same, strict=True) if gap)
        reason = (
            f"the losses differ from step {first:,} on, by {max(same):.1e} of their values at most"
        )
    else:
        now = _words(found[len(same)]) if len(same) < len(found) else "the end of the run"
        reason = f"{_words(expected[len(same)])} in the ledger; {now} here"
    causes = [f"{change.what}: {change.words}" for change in changes] or [
        "code, data, versions and machine are those of the sweep"
    ]
    repeatable = cfg.validate(trial.config, trial.label).is_repeatable
    elsewhere = not repeatable or any(change.what != "code" for change in changes)
    close = whole and elsewhere and max(same) <= TOLERANCE
    words = "\n".join([reason, *causes])
    return Verified(trial, "close" if close else "differs", len(same), updates, words)


def _difference(was: Point, now: Point) -> float:
    """The largest relative difference of two points' losses; infinite if they are not of one step, or if
    only one of them diverged."""
    if was.step != now.step or len(was.losses) != len(now.losses):
        return math.inf
    pairs = zip(was.losses, now.losses, strict=True)
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b), default=0.0)


def _words(point: Point) -> str:
    return f"{'a record' if point.losses else 'divergence'} at step {point.step:,}"
