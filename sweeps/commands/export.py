"""Write the best model of a sweep or of an experiment for another program.

sweeps export NAME --to hf DIR
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sweeps import exits
from sweeps.commands.shared import AsJson, print_json
from sweeps.ledger import Files, find_sweep

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of a sweep or of an experiment under results/ (of an arm: SWEEP/ARM), or a "
            "sweep's folder.",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write; it must be new.")
    ],
    to: Annotated[
        Literal["hf"],
        typer.Option(help="The format: hf is a folder that Hugging Face's transformers loads."),
    ] = "hf",
    custom_code: Annotated[
        bool,
        typer.Option(
            "--custom-code",
            help="Write the model's own code beside it, so that any model can be exported.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the best model of a sweep or of an experiment, with a model card, for another program."""
    with exits.reported():
        from sweeps.findings.everything import Reader
        from sweeps.report.best import best_model, card

        exits.refuse_url("DIR", folder)
        files, arm = _named(name)
        found = Reader().findings(files)
        runs, run, file = best_model(files, found, arm)
        from tinylm.checkpoint import load_model
        from tinylm.export import loads_as, write_hf

        trained = load_model(file)
        with exits.storing(folder):
            write_hf(trained, folder, card(found, runs, run, arm), custom_code=custom_code)
        if as_json:
            of = {
                "sweep": str(files.folder),
                "arm": arm or None,
                "trial": run.trial,
                "label": run.label,
            }
            print_json({"folder": str(folder), "to": to, "custom_code": custom_code, **of})
        else:
            print(f"{folder}: {run.label}; {loads_as(custom_code)}")


def _named(name: str) -> tuple[Files, str]:
    """The sweep of a name, and the arm in it if the name has one; `UsageError` if there is none."""
    try:
        return find_sweep(name), ""
    except exits.UsageError:
        sweep, slash, arm = name.rpartition("/")
        if not slash or not arm:
            raise
        return find_sweep(sweep), arm


if __name__ == "__main__":
    app()
