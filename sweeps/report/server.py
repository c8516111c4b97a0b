"""The report of a sweep over HTTP: a page that follows the ledger while the sweep runs.

Reads only the ledger, so it may run in another process, or on another machine that sees results/.
"""

import json
import re
import secrets
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sweeps import ledger
from sweeps.exits import UsageError, message_of
from sweeps.findings.everything import findings
from sweeps.findings.results import read_results
from sweeps.ledger import Files
from sweeps.report import page as report
from sweeps.report.head import best_words

HOST = "127.0.0.1"
FEED = "/feed"
POLL_SECONDS = 0.5
REQUEST_SECONDS = 5.0  # that a browser may take to send a request
_OWN_HOST = re.compile(rf"({re.escape(HOST)}|localhost)(:[0-9]{{1,5}})?")
# The chart library compiles what it draws with WebGL, and styles what it draws.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Shown until the sweep begins; the page reloads itself.
_WAITING = (
    b"<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=1>"
    b"<title>waiting</title><p>The sweep has not begun yet."
)
_BEAT_SECONDS = 15.0  # between comments on an idle feed, which detect closed connections


def content(files: Files) -> report.Content:
    """The current content of a sweep's page."""
    found = findings(read_results(files))
    return report.page(found, best_words(files, found))


class Server(ThreadingHTTPServer):
    """Serves the page of one sweep, and a feed of its content as the ledger grows."""

    daemon_threads = True

    def __init__(self, files: Files, port: int) -> None:
        self.files = files
        self.closing = threading.Event()
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that ended early."""

    def shutdown(self) -> None:
        """Stop serving, and end the feeds."""
        self.closing.set()
        super().shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def setup(self) -> None:
        super().setup()
        # A request that is sent in part, or byte by byte, must not hold a thread.
        self._nonce = secrets.token_urlsafe(16)
        self._patience = threading.Timer(REQUEST_SECONDS, self._hang_up)
        self._patience.daemon = True
        self._patience.start()

    def _hang_up(self) -> None:
        with suppress(OSError):  # it was closed
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        self._patience.cancel()
        with suppress(OSError):  # it was closed
            super().finish()

    def do_GET(self) -> None:
        self._patience.cancel()
        # A page of another site must not read this page through its own host name.
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _OWN_HOST.fullmatch(hosts[0]):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._page()
        elif self.path == FEED:
            self._feed()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _page(self) -> None:
        try:
            body = report.html(content(self.server.files), FEED, self._nonce).encode()
        except ledger.LedgerError as error:
            self._cannot(message_of(error))
            return
        except UsageError:  # the driver has written nothing yet
            body = _WAITING
        except Exception as error:  # noqa: BLE001 whatever it is, the page says so
            code = message_of(error) if isinstance(error, OSError) else f"{type(error).__name__}"
            self._cannot(f"the ledger can't be shown: {code}")
            return
        self._head("text/html; charset=utf-8", len(body))
        self.wfile.write(body)

    def _cannot(self, why: str) -> None:
        self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=why)

    def end_headers(self) -> None:
        """The end of the head of every answer, after what keeps other pages and scripts out."""
        self.send_header("Content-Security-Policy", _POLICY.format(nonce=self._nonce))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

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
            while not self.server.closing.wait(0 if seen < 0 else POLL_SECONDS):
                size = self.server.files.ledger.stat().st_size
                silent += POLL_SECONDS
                if size != seen:
                    seen, silent = size, 0.0
                    self._send(f"data: {json.dumps(content(self.server.files))}\n\n")
                elif silent >= _BEAT_SECONDS:
                    silent = 0.0
                    self._send(": still here\n\n")
        except Exception:  # noqa: BLE001 the connection was closed or the ledger can't be read
            return  # the browser asks again

    def _send(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()

    def log_message(self, *parts: Any) -> None:
        """Log no requests."""
