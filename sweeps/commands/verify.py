"""Train the first updates of a sweep's trials again, and compare the losses with its ledger.

sweeps verify NAME [TRIAL] [--updates N]
"""

from typing import TYPE_CHECKING, Annotated

import typer

from sweeps import exits
from sweeps import ledger as led
from sweeps.commands.shared import AsJson, SweepName, aside, print_json
from sweeps.text import quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sweeps.engine.verify import Verified

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: SweepName,
    trial: Annotated[
        str,
        typer.Argument(
            help="A trial, by its id, its label or a part of it that no other has. Default: all trials."
        ),
    ] = "",
    updates: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many updates to make again; always at least those before a trial's first record.",
        ),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Train the first updates of trials again, and compare the losses with those in the ledger.

    They have to be equal bit for bit on the same kind of processor, with the same versions. Elsewhere
    they may differ by a thousandth. Exits with 6 if a trial differs, and with 2 if none could be
    compared. Nothing is written.
    """
    with exits.reported():
        from sweeps.engine import verify as verifying
        from sweeps.engine.verify import Verified

        files = led.find_sweep(name)
        sweep = led.fold(led.rows(files), str(files.ledger))
        trials = verifying.find_trials(sweep, trial)
        asked = [points[-1].step for one in trials if (points := verifying.recorded(one, updates))]
        work = f"{quantity(sum(asked), 'update')} of {quantity(len(asked), 'trial')}"
        every, reasons = list[Verified](), dict[str, str]()
        with aside(as_json):
            print(f"{files.folder}: {work}, one after the other")
            for one in trials:
                found = verifying.verify(sweep, one, updates, lambda line: print(line, flush=True))
                print(_words(found, reasons), flush=True)
                reasons.setdefault(found.reason, one.label)
                every.append(found)
        if as_json:
            print_json({"sweep": str(files.folder), "trials": [one.as_json() for one in every]})
        results = {found.result for found in every}
        if "differs" in results:
            raise typer.Exit(exits.Code.DAMAGED)
        if results == {"not comparable"}:
            raise exits.UsageError(
                f"{files.folder}: no trial could be compared, for the reasons above"
            )


def _words(found: "Verified", told: "Mapping[str, str]") -> str:
    """What was found of a trial; `told` has the reasons that were said before, and of which trial."""
    from sweeps.engine.verify import TOLERANCE

    words = {
        "equal": "equal, bit for bit",
        "close": f"equal within {TOLERANCE:g}",
        "differs": "differs",
        "not comparable": "not compared",
    }[found.result]
    if found.points:
        records = quantity(found.points, "record")
        words += f", in {records} up to {quantity(found.updates, 'update')}"
    if found.reason:
        why = found.reason.replace("\n", "\n  ")
        words += f": as {told[found.reason]}" if found.reason in told else f": {why}"
    return f"{found.trial.label} ({found.trial.trial}): {words}"


if __name__ == "__main__":
    app()
