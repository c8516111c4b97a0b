"""Check the ledger of a sweep, or save what can be saved of a damaged one.

sweeps ledger check NAME
sweeps ledger repair NAME
"""

import typer

from sweeps import exits
from sweeps.commands.shared import AsJson, SweepName, print_json
from sweeps.ledger import find_sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Check the ledger of a sweep, or save what can be saved of a damaged one."""


@app.command()
def check(name: SweepName, as_json: AsJson = False) -> None:
    """Read every row of a ledger and its checksum. Exits with 6 if one is damaged."""
    with exits.reported():
        from sweeps.repair import examine

        files = find_sweep(name)
        found = examine(files)
        if found.damage is not None:
            raise found.damage
        if as_json:
            print_json({"ledger": str(files.ledger), "rows": found.rows, "rest": found.rest})
            return
        print(f"{files.ledger}: {found.rows:,} whole rows")
        if found.rest:
            print(
                f"The last {found.rest:,} bytes are no row; the next run of the sweep drops them."
            )


@app.command()
def repair(name: SweepName, as_json: AsJson = False) -> None:
    """Keep the whole rows before the first damage, in a new ledger. The old one is kept beside it."""
    with exits.reported():
        from sweeps import repair as repairing

        files = find_sweep(name)
        done = repairing.repair(files)
        if as_json:
            repaired = None if done is None else done.as_json()
            print_json({"ledger": str(files.ledger), "repaired": repaired})
            return
        if done is None:
            print(f"{files.ledger}: is not damaged; nothing was written")
            return
        print(done.found.damage)
        print(
            f"Kept {done.found.rows:,} rows. Dropped {done.lines:,} lines: all from the damage on. "
            "The sweep's reports will say so."
        )
        print(f"Trials to train again, from their last checkpoint: {done.trials:,}")
        print(f"That takes {done.tokens:,} tokens at most. Run the sweep again to do so.")
        print(f"The ledger as it was: {done.backup}")


if __name__ == "__main__":
    app()
