"""Write the experiment log of all sweeps.

sweeps log [--json]
"""

import typer

from sweeps import exits, ledger
from sweeps.commands.shared import AsJson, console, print_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(as_json: AsJson = False) -> None:
    """Write results/EXPERIMENT_LOG.md and EXPERIMENT_LOG.html from the ledgers of all sweeps.

    What people wrote in the log stays. `sweeps analyze` does the same, and draws the figures.
    """
    with exits.reported():
        from sweeps.findings.everything import Reader
        from sweeps.report import analysis, log

        ledger.find_sweeps([])  # an error where there is none
        reader = Reader()
        found = log.content(ledger.RESULTS, reader)
        path = analysis.enter_in_log(reader, found)
        if as_json:
            print_json(log.as_json(ledger.RESULTS, reader, found))
        else:
            analysis.print_path(path, console())
            analysis.print_path(ledger.ResultsFolder().log_page, console())
        analysis.tell_left_out(reader, ())
        left_out = reader.left_out(ledger.RESULTS).values()
        raise typer.Exit(max((why.code for why in left_out), default=exits.Code.DONE))


if __name__ == "__main__":
    app()
