"""`python -m sweeps.run SPACE`: run a sweep, or resume it."""

from pathlib import Path
from typing import Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import (
    Address,
    Allow,
    Gpus,
    Slots,
    Tracker,
    aside,
    command_line,
    console,
    print_json,
    print_result_json,
    readers,
)
from sweeps.engine.address import LOCAL
from sweeps.ledger import Files
from tinylm.options import Changes
from tinylm.signals import held_back

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    space: Annotated[
        str, typer.Argument(help="A space's name in search_spaces/, or its YAML file.")
    ],
    scale: Annotated[
        str,
        typer.Option(
            help="The base config: a shipped config's name, or a YAML file. Default: tinystories_17m on "
            "a GPU, else cpu."
        ),
    ] = "",
    changes: Changes = [],  # noqa: B006 typer copies it
    out: Annotated[
        str | None,
        typer.Option(
            help="The sweep's folder, or s3:// or gs://BUCKET/PREFIX/NAME to run it in results/NAME and keep a copy "
            "there. Default: results/SPACE-SCALE."
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=4_000_000_000, help="A number to add to every seed of the space."),
    ] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the plan and its expected cost, then exit.")
    ] = False,
    audit: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the stopped trials to train to the end, to see what stopping cost.",
        ),
    ] = 0.0,
    slots: Slots = None,
    gpus: Gpus = None,
    address: Address = LOCAL,
    tracker: Tracker = None,
    allow: Allow = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the result, or the plan, as JSON; what happens goes to stderr."
        ),
    ] = False,
) -> None:
    """Run the sweep of a search space under Ray Tune. Run the same command again to resume it."""
    with exits.reported():
        with held_back():  # numpy's threads would take it where only the main thread may
            from sweeps.engine import session, store
        from sweeps.engine.machine import default_scale
        from sweeps.plan.request import read_request, sweep_folder

        with aside(as_json):
            if not scale:
                scale = default_scale()
                print(f"no --scale given: using {scale}", flush=True)
            request = read_request(space, scale, changes, seed)
            url = out if out is not None and store.is_url(out) else ""
            place = store.folder_of(url) if url else out
            folder = sweep_folder(request, None if place is None else Path(place))
            options = session.Options(
                command_line("sweeps.run"),
                "--out",
                address,
                tracker,
                audit,
                slots,
                gpus,
                allow,
                store=url,
            )
            if plan:
                planned = session.preview(request, folder, options, console())
            else:
                exits.lose_unheard_output()
                code = session.run(request, folder, options, readers(), console())
        if as_json and plan:
            print_json(planned)
        elif as_json:
            print_result_json(Files(folder))
        if not plan:
            raise typer.Exit(code)


if __name__ == "__main__":
    app()
