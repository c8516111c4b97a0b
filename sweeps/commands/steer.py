"""Stop or finish a trial of a running sweep, or end the sweep early.

sweeps steer NAME stop|finish TRIAL
sweeps steer NAME end
"""

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sweeps import exits
from sweeps import ledger as led
from sweeps.commands.shared import SweepName

if TYPE_CHECKING:
    from sweeps.steering import Request

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_PAUSE_SECONDS = 0.1  # between two looks whether it has


@app.command()
def main(
    name: SweepName,
    action: Annotated[
        Literal["stop", "finish", "end"],
        typer.Argument(
            help="stop: the trial gets no further tokens. finish: it is trained to its end, whatever the "
            "policy says. end: nothing new starts, and the sweep ends after what trains now.",
        ),
    ],
    trial: Annotated[
        str,
        typer.Argument(
            help="A trial, by its id, its label or a part of it that no other has; none for end."
        ),
    ] = "",
    wait: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to wait until it is done; it is done all the same afterwards."
        ),
    ] = 5.0,
) -> None:
    """Stop or finish a trial of a running sweep, or end the sweep early; the ledger says that you did.

    A trial that trains now is stopped at its next record. After end, the same command as before goes on
    with the sweep. Exits with 9 if no driver runs it.
    """
    with exits.reported():
        from sweeps import steering

        files = led.find_sweep(name)
        request = steering.request_of(files, action, trial)
        with exits.storing(files.requests):
            steering.ask(files, request)
            taken = _is_taken(files, request, wait)
        print(_done(files, request) if taken else _waiting(files, request))


def _sweep(files: led.Files) -> led.Sweep:
    """What the ledger says now."""
    return led.fold(led.rows(files), str(files.ledger))


def _is_taken(files: led.Files, request: "Request", wait: float) -> bool:
    """Wait so many seconds for the driver to take a request; whether it has. If the driver has ended, the
    request is withdrawn, and it is an error."""
    from sweeps import steering

    deadline = time.monotonic() + wait
    while steering.waits(files, request):
        if not led.has_driver(files):
            steering.withdraw(files, request)
            steering.require_driver(files)
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def _done(files: led.Files, request: "Request") -> str:
    """What the driver did of a request; `UsageError` if it found that it could do nothing."""
    from sweeps import steering

    sweep = _sweep(files)
    if request.action == "end":
        if not sweep.is_ending:
            raise exits.UsageError(f"{files.name}: the sweep has ended; nothing was changed")
        going = ", ".join(sweep.find(one).label for one in sorted(sweep.running)) or "nothing"
        return f"{files.name}: nothing new starts; the sweep ends after what trains now: {going}"
    trial = sweep.find(request.trial)
    if trial.by_hand != request.action:
        why = steering.why_not(trial, request.action) or "the sweep has ended"
        raise exits.UsageError(f"{trial.label}: {why}; nothing was changed")
    if request.action == "stop":
        return f"{trial.label}: stopped at {trial.tokens:,} tokens"
    budget = f"{trial.tokens:,} of {trial.budget:,} tokens so far"
    return f"{trial.label}: is trained to its end, whatever the policy says ({budget})"


def _waiting(files: led.Files, request: "Request") -> str:
    """When a request will be taken that the driver has not taken yet."""
    if request.action == "stop":
        trial = _sweep(files).find(request.trial)
        if trial.status == "running":
            return f"{trial.label}: trains now; it will be stopped at its next record"
    return f"{files.name}: asked; the driver has not answered yet"


if __name__ == "__main__":
    app()
