"""`python -m sweeps.watch NAME`: serve the report of a sweep while it runs."""

from typing import Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import SweepName
from sweeps.ledger import find_sweep

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: SweepName,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1. 0 picks a free one.")
    ] = 8266,
) -> None:
    """Serve the report of a sweep as a web page that updates while the sweep runs."""
    with exits.reported():
        exits.lose_unheard_output()
        from sweeps.report.server import HOST, Server

        files = find_sweep(name)
        try:
            server = Server(files, port)
        except OSError as error:
            raise exits.UsageError(
                f"--port {port}: {error.strerror}; --port 0 picks a free one"
            ) from error
        with server:
            print(
                f"http://{HOST}:{server.server_port} shows {name}; stop it with Ctrl-C", flush=True
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                server.closing.set()


if __name__ == "__main__":
    app()
