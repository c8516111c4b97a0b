"""What people may ask of a sweep: to stop a trial, to finish one, or to end after those that train.

A driver is its ledger's only writer, so a request is a file that it looks for: `stop-TRIAL`, `finish-TRIAL`
or `end` in a folder of the sweep. The name says all, the file is empty and nobody reads it: it is there or
it is not. The driver writes a row, also of what it refuses, acts, and removes the file. Where no driver
runs, whoever asks writes the row of what can be done: the next driver acts on it.
"""

import contextlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sweeps.exits import Code, CommandError, LockedError, UsageError
from sweeps.ledger import Action, Files, Ledger, Row, Sweep, Trial, fold, has_driver, rows
from sweeps.rows import tell

LOOK_SECONDS: Final = 1.0  # between two looks of a driver
_MOST = 1000  # files that a look sees
_SHOWN = 12  # labels in a message
_NAME = re.compile(r"(?:(stop|finish)-([A-Za-z0-9_-]{1,100})|(end))")


class NotRunningError(CommandError):
    """No driver runs the sweep that is to be ended, or steered from its page."""

    code = Code.REFUSED


@dataclass(frozen=True)
class Request:
    """What somebody asks of a sweep."""

    action: Action
    trial: str = ""  # its id; empty for `end`

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.action}-{self.trial}" if self.trial else self.action


def named(name: str) -> Request | None:
    """The request of a file with this name; None for a file of somebody else."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    action, trial, _ = found.groups()
    if action is None:
        return Request("end")
    return Request("stop" if action == "stop" else "finish", trial)


def ask(files: Files, request: Request) -> None:
    """Write a request; no change if it waits already."""
    files.requests.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (files.requests / request.file_name).open("x").close()


def waits(files: Files, request: Request) -> bool:
    """Whether no driver has taken a request yet."""
    return os.path.lexists(files.requests / request.file_name)


def withdraw(files: Files, request: Request) -> None:
    """Remove a request that no driver will take, and the folder if it is empty without it."""
    (files.requests / request.file_name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        files.requests.rmdir()


def settle(files: Files) -> list[Request] | None:
    """Do what waits in a sweep that no driver runs, as far as that can be done; what was done. None if a driver
    runs it, which looks for itself. What is refused is said. The folder is removed if it is empty then.

    Errors as of `Ledger`, and the requests stay.
    """
    inbox, done = Inbox(files, is_silent=True), list[Request]()
    try:
        if inbox.look():
            # The row is of no session.
            with Ledger(files, clock=lambda: 0.0, trains=False) as ledger:
                sweep = fold(ledger.rows(), str(files.ledger))
                for request in inbox.look():
                    if why := _late(sweep, request):
                        refuse(files, why)
                    else:
                        sweep.observe(ledger.append("steered", **fields_of(sweep, request)))
                        done.append(request)
                    inbox.remove(request)
    except LockedError:
        return None
    with contextlib.suppress(OSError):  # it is not there, or holds other files
        files.requests.rmdir()
    return done


def refuse(files: Files, why: str) -> None:
    """Say why nothing is done of a request."""
    tell(f"{files.folder}: {why}")


def _late(sweep: Sweep, request: Request) -> str:
    """Why nothing can be done of a request where no driver runs; empty if it can."""
    if request.action == "end":
        return "end was asked for when nothing was training; nothing was changed"
    return refusal(sweep, request)


class Inbox:
    """The requests that wait for the driver of a sweep. Only what is in the folder itself is ever removed; a
    link is not followed, and what is no request is left alone and said once."""

    def __init__(
        self,
        files: Files,
        clock: Callable[[], float] = lambda: 0.0,
        *,
        is_silent: bool = False,
    ) -> None:
        self._files = files
        self._clock = clock
        self._looked = -math.inf
        self._has_told = is_silent

    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return self._clock() - self._looked >= LOOK_SECONDS

    def look(self) -> list[Request]:
        """The requests that wait, by name."""
        self._looked = self._clock()
        found, others = list[Request](), list[str]()
        with self._opened() as folder:
            if folder is None:
                return []
            with os.scandir(folder) as entries:
                for entry in itertools.islice(entries, _MOST):
                    request = named(entry.name)
                    if request is not None and entry.is_file(follow_symlinks=False):
                        found.append(request)
                    else:
                        others.append(entry.name)
        if others:
            names = ", ".join(map(ascii, sorted(others)[:_SHOWN]))
            self._tell(f"not a request to steer, and left alone: {names}")
        return sorted(found, key=lambda one: one.file_name)

    def remove(self, request: Request) -> None:
        """Remove a request."""
        with self._opened() as folder:
            if folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(request.file_name, dir_fd=folder)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The folder of the requests; None if there is none. An error with it is said, and harms nothing."""
        folder = None
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            folder = os.open(self._files.requests, flags)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._tell(f"no requests to steer are taken: {error.strerror}")
        try:
            yield folder
        except OSError as error:
            self._tell(f"requests to steer can't be taken: {error.strerror}")
        finally:
            if folder is not None:
                os.close(folder)

    def _tell(self, message: str) -> None:
        if not self._has_told:
            self._has_told = True
            tell(f"{self._files.requests}: {message}")


_ENDED = {"finished": "it has finished", "diverged": "it has diverged", "failed": "it has failed"}


def why_not(trial: Trial, action: Action) -> str:
    """Why a trial can't be stopped or finished; empty if it can."""
    if trial.status in _ENDED:
        return _ENDED[trial.status]
    if action == "stop":
        return "it is stopped already" if trial.status == "stopped" else ""
    is_free = trial.pool is None and not trial.is_stopped_by_hand
    return "it is trained to its end already" if is_free or trial.by_hand == "finish" else ""


def _trial_of(sweep: Sweep, request: Request) -> Trial | None:
    """The trial or the audit that a request is about; None for the sweep, and if there is no such trial."""
    return sweep.trials.get(request.trial) or sweep.audits.get(request.trial)


def refusal(sweep: Sweep, request: Request) -> str:
    """Why nothing can be done of a request; empty if it can."""
    if request.action == "end":
        return ""
    trial = _trial_of(sweep, request)
    if trial is None:
        return f"{request.action} {request.trial}: no such trial; nothing was changed"
    why = why_not(trial, request.action)
    return f"{request.action} {trial.label}: {why}; nothing was changed" if why else ""


def fields_of(sweep: Sweep, request: Request) -> Row:
    """The fields of the row of a request that can be done."""
    trial = _trial_of(sweep, request)
    of_trial = {} if trial is None else {"trial": trial.trial, "tokens": trial.tokens}
    return {"action": request.action, **of_trial}


_ID_START = 4  # characters of an id that name a trial, at least


def _words_of(label: str) -> set[str]:
    """The words of a label, and the values in them."""
    words = label.split()
    return {*words, *(word.rpartition("=")[2] for word in words)}


def find_trial(trials: Sequence[Trial], name: str) -> Trial:
    """The trial of an id or a label, or the only one whose id begins with the name or whose label has all its
    words, or the values of them; one that was withdrawn only if no other is meant. `UsageError` with the
    nearest name, or all that match, if there is none or several."""
    found = [one for one in trials if name in {one.trial, one.label}]
    if not found:
        words = set(name.split())
        found = [
            one
            for one in trials
            if (len(name) >= _ID_START and one.trial.startswith(name))
            or (words and words <= _words_of(one.label))
        ]
    found = [one for one in found if not one.is_withdrawn] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{name}: several trials match: {_listed(found)}")
    from tinylm.config import did_you_mean  # loads pydantic

    names = [text for one in trials for text in (one.label, one.trial)]
    hint = did_you_mean(name, names) or f"; there are {_listed(trials) or 'none'}"
    raise UsageError(f"{name}: no such trial{hint}")


def require_driver(files: Files, request: Request) -> None:
    """Raise `NotRunningError` if no driver runs the sweep, with what can be done then."""
    if has_driver(files):
        return
    command = f"sweeps steer {files.name} {request.action} {request.trial}"
    instead = f"; `{command}` in a terminal is for its next run"
    what = ", so there is nothing to end" if request.action == "end" else instead
    raise NotRunningError(f"{files.folder}: the sweep is not running{what}")


def ask_driver(files: Files, request: Request) -> None:
    """Write a request for the driver, which judges it: a ledger that may be large is not read for it.
    `NotRunningError` if no driver runs the sweep."""
    require_driver(files, request)
    ask(files, request)
    if waits(files, request):
        try:
            require_driver(files, request)
        except NotRunningError:  # it ended just now
            withdraw(files, request)
            raise


def request_of(files: Files, action: Action, name: str = "") -> Request:
    """The request to do something with the trial of a name, or with the sweep. `UsageError` if there is no
    such trial, or it can't be steered so; `NotRunningError` if the sweep is to be ended and does not run."""
    if action == "end":
        if name:
            raise UsageError(f"{name}: end is about the whole sweep; a trial is ended by stop")
        require_driver(files, Request(action))
        return Request(action)
    if not name:
        raise UsageError(f"{action}: which trial? Its label or its id follows")
    trial = find_trial(fold(rows(files), str(files.ledger)).attempted, name)
    if why := why_not(trial, action):
        raise UsageError(f"{trial.label}: {why}; nothing was changed")
    return Request(action, trial.trial)


def _listed(trials: Sequence[Trial]) -> str:
    """Trials by label and id; the first of many."""
    more = f" and {len(trials) - _SHOWN} more" if len(trials) > _SHOWN else ""
    return ", ".join(f"{one.label} ({one.trial})" for one in trials[:_SHOWN]) + more
