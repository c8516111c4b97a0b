"""Train the first updates of a sweep's trials again, and compare the losses with its ledger.

sweeps verify NAME [TRIAL] [--updates N]
"""

from typing import TYPE_CHECKING, Annotated

import typer

from sweeps import exits
from sweeps import ledger as led

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweeps.engine.verify import Verified

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME or DIR", help="Name of a sweep under results/, or its folder."
        ),
    ],
    trial: Annotated[
        str, typer.Argument(help="A trial, by its id or its label. Default: all trials.")
    ] = "",
    updates: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many updates to make again; always at least those before a trial's first record.",
        ),
    ] = 1,
) -> None:
    """Train the first updates of trials again, and compare the losses with those in the ledger.

    They have to be equal bit for bit on the same kind of processor, with the same versions. Elsewhere
    they may differ by a thousandth. Exits with 6 if a trial differs. Nothing is written.
    """
    with exits.reported():
        from sweeps.engine import verify as verifying

        files = led.find_sweep(name)
        sweep = led.fold(led.rows(files), str(files.ledger))
        trials = verifying.find_trials(sweep, trial)
        asked = [points[-1].step for one in trials if (points := verifying.recorded(one, updates))]
        print(f"{files.folder}: {sum(asked):,} updates of {len(asked)} trials, one after the other")
        found = [
            verifying.verify(sweep, one, updates, lambda line: print(line, flush=True))
            for one in trials
        ]
        _print(found)
        if any(one.result == "differs" for one in found):
            raise typer.Exit(exits.Code.DAMAGED)


def _print(found: "Sequence[Verified]") -> None:
    """Print what was found of each trial, and the reasons why trials differ, each once."""
    from rich.table import Table
    from rich.text import Text

    from sweeps.commands.shared import console
    from sweeps.engine.verify import TOLERANCE

    words = {
        "equal": "equal, bit for bit",
        "close": f"equal within {TOLERANCE:g}",
        "differs": "differs",
        "not comparable": "not compared",
    }
    table = Table(box=None, pad_edge=False)
    for heading in ("trial", "id"):
        table.add_column(heading, overflow="fold")
    for heading in ("updates", "records"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("losses", no_wrap=True)
    for one in found:
        counts = (f"{one.updates:,}", f"{one.points:,}") if one.points else ("", "")
        table.add_row(*map(Text, (one.trial.label, one.trial.trial, *counts, words[one.result])))
    console().print(table)
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.reason:
            reasons.setdefault(one.reason, []).append(one.trial.label)
    for reason, labels in reasons.items():
        print(f"{', '.join(labels)}: {reason}")


if __name__ == "__main__":
    app()
