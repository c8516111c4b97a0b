"""`python -m sweeps.watch [NAME]`: show sweeps while they run, as web pages or in the terminal."""

import contextlib
import errno
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import console
from sweeps.ledger import RESULTS, Files, find_sweep, find_sweeps, has_driver

if TYPE_CHECKING:
    from sweeps.report.server import Server

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

PORT = 8266
_TRIED = 100  # ports, from the default one
_LOOK_SECONDS = 1.0  # between two looks at a ledger
_SHARE = 0.1  # of the time, at most, is spent reading a ledger


@app.command()
def main(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME or DIR]",
            help="Name of a sweep under results/, or its folder. Default: the index of all sweeps.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Port on 127.0.0.1. 0 picks a free one. Default: {PORT}, or the next free one.",
        ),
    ] = None,
    steer: Annotated[
        bool,
        typer.Option(
            "--steer",
            help="Let who has the printed address, which holds a token, stop and finish trials from the page of "
            "NAME, and of other sweeps in its folder, and end these sweeps.",
        ),
    ] = False,
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="Print the result so far of NAME instead, and in a terminal again whenever it changes, until the "
            "sweep ends or Ctrl-C: for a connection that shows no web pages.",
        ),
    ] = False,
) -> None:
    """Serve the reports of the sweeps as web pages that update while the sweeps run."""
    with exits.reported():
        exits.lose_unheard_output()
        if text:
            if name is None:
                raise exits.UsageError("--text: name the sweep")
            if steer or port is not None:
                raise exits.UsageError("--text: serves no page, so it takes no --port or --steer")
            _print(find_sweep(name))
            return
        from sweeps.report.server import HOST, PARAMETER, address_of

        if steer and name is None:
            raise exits.UsageError("--steer: name the sweep that is to be steered")
        if name is None:
            find_sweeps([])  # says that there is none
            folder, address, shown = RESULTS, "/", f"the sweeps under {RESULTS}/"
        else:
            sweep = find_sweep(name).folder.resolve()
            folder, address, shown = sweep.parent, address_of(sweep.name), name
        token = secrets.token_urlsafe() if steer else ""
        if token:
            address, shown = f"{address}?{PARAMETER}={token}", f"{shown} and steers it"
        with _server(folder, port, token) as server:
            print(
                f"http://{HOST}:{server.server_port}{address} shows {shown}; stop it with Ctrl-C",
                flush=True,
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                server.closing.set()


def _print(files: Files) -> None:
    """Print the result so far of a sweep; in a terminal again whenever its ledger has grown, until no driver
    runs it or Ctrl-C."""
    from sweeps.findings.everything import Reader
    from sweeps.report.terminal import print_result

    out, shown = console(), None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            begun, is_running = time.monotonic(), out.is_terminal and has_driver(files)
            if shown != (shown := (files.ledger.stat().st_size, is_running)):
                found = Reader().findings(files)
                if out.is_terminal:
                    out.clear()
                print_result(found, out)
                if is_running:
                    out.print("The sweep is running; Ctrl-C ends this view alone.", style="dim")
            if not is_running:
                return
            time.sleep(max(_LOOK_SECONDS, (time.monotonic() - begun) / _SHARE))


def _server(folder: Path, port: int | None, token: str = "") -> "Server":
    """A server at the port, or at the first free one from the default on; `UsageError` if it is taken."""
    from sweeps.report.server import Server

    number, last = (PORT, PORT + _TRIED) if port is None else (port, port)
    while True:
        try:
            return Server(folder, number, token)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or number == last:
                raise exits.UsageError(
                    f"--port {number}: {error.strerror}; --port 0 picks a free one"
                ) from error
            number += 1


if __name__ == "__main__":
    app()
