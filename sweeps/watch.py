"""`python -m sweeps.watch NAME`: the report of a sweep while it runs, on a page that follows the ledger.

Reads the ledger alone, so it may run in another process, or on another machine that sees results/;
it knows neither ray nor torch.
"""

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from sweeps import ledger
from sweeps.analyze import find
from sweeps.findings.everything import findings
from sweeps.findings.results import results_of
from sweeps.ledger import Files
from sweeps.report import page as report
from tinylm.__main__ import fail

HOST = "127.0.0.1"
FEED = "/feed"
POLL_SECONDS = 0.5
# Of a sweep that has not begun; comes again by itself.
_WAITING = (
    b"<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=1>"
    b"<title>waiting</title><p>The sweep has not begun yet."
)
_BEAT_SECONDS = 15.0  # after which a silent feed says so, and learns whether anybody listens

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def content(files: Files) -> report.Content:
    """What the page shows of a sweep now."""
    rows = ledger.read(files)
    return report.page(findings(results_of(files.name, rows)), rows)


class Server(ThreadingHTTPServer):
    """Serves the page of one sweep, and a feed of its content as the ledger grows."""

    daemon_threads = True

    def __init__(self, files: Files, port: int) -> None:
        self.files = files
        self.over = threading.Event()
        super().__init__((HOST, port), _Handler)

    def shutdown(self) -> None:
        """Stop serving; feeds end."""
        self.over.set()
        super().shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        # A page of another site must not read this one by a name that leads here.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in {HOST, "localhost"}:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._page()
        elif self.path == FEED:
            self._feed()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _page(self) -> None:
        try:
            body = report.html(content(self.server.files), FEED).encode()
        except ledger.LedgerError as error:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
            return
        except ValueError:  # the driver has written nothing yet
            body = _WAITING
        self._head("text/html; charset=utf-8", len(body))
        self.wfile.write(body)

    def _head(self, kind: str, length: int | None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _feed(self) -> None:
        """Server-sent events: the content of the page, whenever the ledger has grown."""
        self._head("text/event-stream", None)
        seen, silent = -1, 0.0
        try:
            while not self.server.over.wait(0 if seen < 0 else POLL_SECONDS):
                size = self.server.files.ledger.stat().st_size
                silent += POLL_SECONDS
                if size != seen:
                    seen, silent = size, 0.0
                    self._send(f"data: {json.dumps(content(self.server.files))}\n\n")
                elif silent >= _BEAT_SECONDS:
                    silent = 0.0
                    self._send(": still here\n\n")
        except (ConnectionError, ledger.LedgerError, OSError, ValueError):
            return  # nobody listens any more, or there is nothing to tell; the browser asks again

    def _send(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()

    def log_message(self, *parts: Any) -> None:
        """Say nothing of requests."""


@app.command()
def main(
    name: Annotated[str, typer.Argument(metavar="NAME or DIR", help="A sweep under results/.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = 8266,
) -> None:
    """Serve the report of a sweep, which follows the sweep while it runs."""
    try:
        server = Server(find(name), port)
    except ValueError as error:
        raise fail(error) from error
    except OSError as error:
        raise fail(f"--port {port}: {error.strerror}; 0 takes a free one") from error
    with server:
        print(f"http://{HOST}:{server.server_port} shows {name}; Ctrl-C ends this", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.over.set()


if __name__ == "__main__":
    app()
