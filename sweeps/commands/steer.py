"""Stop or finish a trial of a sweep, also after it has ended, or end a running sweep early.

sweeps steer NAME stop|finish TRIAL
sweeps steer NAME end
"""

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sweeps import exits
from sweeps import ledger as led
from sweeps.commands.shared import AsJson, SweepName, print_json
from sweeps.text import portable

if TYPE_CHECKING:
    from sweeps.steering import Request

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_PAUSE_SECONDS = 0.1  # between two looks whether it has
_GONE = "the request is gone, but the ledger has no row of it, so it was not done; ask again"


@app.command()
def main(
    name: SweepName,
    action: Annotated[
        Literal["stop", "finish", "end"],
        typer.Argument(
            help="stop: the trial gets no further tokens. finish: it is trained to its end, whatever the "
            "policy says, also after it was stopped. end: nothing new starts, and the sweep ends after what "
            "trains now.",
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
    as_json: AsJson = False,
) -> None:
    """Stop or finish a trial of a sweep, or end a running sweep early; the ledger says that you did.

    A trial that trains now is stopped at its next record. After end, the same command as before goes on
    with the sweep. If the sweep is not running, stop and finish are for its next run: finish takes back
    that a trial was stopped, and `sweeps run` then trains it. end exits with 9 if the sweep is not running.
    """
    with exits.reported():
        from sweeps import steering

        files = led.find_sweep(name)
        request = steering.request_of(files, action, trial)
        with exits.storing(files.requests):
            steering.ask(files, request)
            try:
                taken = _is_taken(files, request, wait)
            except exits.CommandError:
                steering.withdraw(files, request)
                raise
        words = _done(files, request) if taken else _waiting(files, request)
        if as_json:
            trial_id = request.trial or None
            asked = {"sweep": str(files.folder), "action": action, "trial": trial_id}
            print_json({**asked, "taken": taken, "words": words})
        else:
            print(words)


def _sweep(files: led.Files) -> led.Sweep:
    """What the ledger says now."""
    return led.fold(led.rows(files), str(files.ledger))


def _is_taken(files: led.Files, request: "Request", wait: float) -> bool:
    """Wait so many seconds for the driver to take a request, which is taken here if none runs; whether it was."""
    from sweeps import steering

    deadline = time.monotonic() + wait
    while True:
        if not led.has_driver(files):
            steering.settle(files)
        if not steering.waits(files, request):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)


def _done(files: led.Files, request: "Request") -> str:
    """What was done of a request; `UsageError` if nothing could be, `NotRunningError` if the sweep ended by itself."""
    from sweeps import steering

    sweep = _sweep(files)
    if request.action == "end":
        if not sweep.is_ending:
            steering.require_driver(files, request)
            raise exits.UsageError(f"{files.name}: {_GONE}")
        going = ", ".join(sweep.find(one).label for one in sorted(sweep.running)) or "nothing"
        return f"{files.name}: nothing new starts; the sweep ends after what trains now: {going}"
    trial = sweep.find(request.trial)
    if trial.by_hand != request.action:
        why = steering.why_not(trial, request.action)
        raise exits.UsageError(f"{trial.label}: {f'{why}; nothing was changed' if why else _GONE}")
    if request.action == "stop":
        return f"{trial.label}: stopped at {trial.tokens:,} tokens"
    budget = f"{trial.tokens:,} of {trial.budget:,} tokens so far"
    if led.has_driver(files):
        return f"{trial.label}: is trained to its end, whatever the policy says ({budget})"
    command = portable(sweep.session.get("command", "")) or "sweeps run"
    return f"{trial.label}: will be trained to its end ({budget}) by: {command}"


def _waiting(files: led.Files, request: "Request") -> str:
    """When a request will be taken that the driver has not taken yet."""
    if request.action == "stop":
        trial = _sweep(files).find(request.trial)
        if trial.status == "running":
            return f"{trial.label}: trains now; it will be stopped at its next record"
    return f"{files.name}: asked; the driver has not answered yet, which it does at its end at the latest"


if __name__ == "__main__":
    app()
