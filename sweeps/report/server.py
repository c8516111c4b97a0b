"""The reports of the sweeps in a folder over HTTP: pages that follow their ledgers while the sweeps run.

Reads only the ledgers, the files that an analysis wrote and pictures of people's notes; with a token it also takes requests to steer a
running sweep, and writes them for its driver. So it may run in another process, or on another
machine that sees results/. The addresses are those of the files, so that links are the same as on the disk.
"""

import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sweeps import ledger, steering
from sweeps.exits import CommandError, UsageError, message_of
from sweeps.findings.earlier import Beside
from sweeps.findings.everything import Reader, findings
from sweeps.findings.results import read_results
from sweeps.ledger import Files, ResultsFolder
from sweeps.report import index
from sweeps.report import page as report
from sweeps.report.head import best_words
from sweeps.report.log_page import is_local
from tinylm.files import read_file

HOST = "127.0.0.1"
FEED = "feed"  # below the folder of a sweep
STEER = "steer"  # the same
PARAMETER = "steer"  # of an address that steers: the token
HEADER = "X-Steer"  # with the token in a request to steer, which no page of another site can set
_LONGEST_REQUEST = 1000  # bytes of such a request
POLL_SECONDS = 0.5
REQUEST_SECONDS = 5.0  # that a browser may take to send a request
_OWN_HOST = re.compile(rf"({re.escape(HOST)}|localhost)(:[0-9]{{1,5}})?")
# The chart library compiles what it draws with WebGL, and styles what it draws.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Shown until the sweep begins; the page reloads itself.
_WAITING = (
    b"<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=1>"
    b"<title>waiting</title><p>The sweep has not begun yet."
)
_BEAT_SECONDS = 15.0  # between comments on an idle feed, which detect closed connections
_HTML = "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
# The files of an analysis that are served as they are; pictures also from elsewhere, for people's notes.
_PICTURES = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_KINDS = {**_PICTURES, ".csv": _TEXT, ".md": _TEXT, ".json": _TEXT}
_LONGEST = 50_000_000  # bytes of such a file


def content(files: Files) -> report.Content:
    """The current content of a sweep's page."""
    found = findings(read_results(files, Beside()))
    return report.page(found, best_words(files, found))


def address_of(name: str) -> str:
    """The address of the page of a sweep, below that of its server."""
    return quote(f"/{Files(Path(name)).report}")


def _state(files: Files) -> tuple[int, bool]:
    """The size of a ledger, and whether a driver has said that it runs the sweep: what a page depends on."""
    try:
        return files.ledger.stat().st_size, files.driver.exists()
    except OSError:  # the page says why it can't be read
        return -1, False


def _request(body: bytes) -> steering.Request | None:
    """The request to steer that a browser sent; None if it is none."""
    try:
        asked = json.loads(body)
        request = steering.Request(asked["action"], asked["trial"])
        return request if steering.named(request.file_name) == request else None
    except (ValueError, TypeError, KeyError):
        return None


class Server(ThreadingHTTPServer):
    """Serves the pages of the sweeps in a folder, and feeds of their content as the ledgers grow."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int, token: str = "") -> None:
        self.folder = folder
        self.token = token  # of those who may steer; empty if nobody may
        self.closing = threading.Event()
        # The sizes of the ledgers, and what read them: one attribute, since requests are threads.
        self._latest: tuple[dict[str, tuple[int, bool]], Reader] = ({}, Reader())
        super().__init__((HOST, port), _Handler)

    def sweep(self, name: str) -> Files | None:
        """The sweep of a name in the folder; None if there is none."""
        files = Files(self.folder / name)
        is_name = bool(name) and "/" not in name and not name.startswith(".")
        return files if is_name and os.path.lexists(files.ledger) else None

    def reader(self) -> Reader:
        """A reader of the ledgers as they are now, which does not read them again until one has grown."""
        sizes = {files.name: _state(files) for files in ledger.sweeps(self.folder)}
        known, reader = self._latest
        if sizes != known:
            reader = Reader()
            self._latest = (sizes, reader)
        return reader

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
        if self._is_own_host():
            self._answer(unquote(self.path.partition("?")[0]))
        else:
            self.send_error(HTTPStatus.FORBIDDEN)

    def do_POST(self) -> None:
        given = self.headers.get(HEADER, "").encode(errors="replace")
        knows = secrets.compare_digest(given, self.server.token.encode())
        if not (self.server.token and knows and self._is_own_host()):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        name, _, rest = unquote(self.path).removeprefix("/").partition("/")
        files = self.server.sweep(name)
        if files is None or rest != STEER:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, words = self._steer(files)
        self._send_whole(_TEXT, words.encode(), status)

    def _is_own_host(self) -> bool:
        """Whether the request is for this server: a page of another site must not read this page, or steer,
        through its own host name."""
        hosts = self.headers.get_all("Host", [])
        return len(hosts) == 1 and _OWN_HOST.fullmatch(hosts[0]) is not None

    def _steer(self, files: Files) -> tuple[HTTPStatus, str]:
        """Ask the driver of a sweep for what the body says; the status of the answer, and what it says. The driver
        judges it: nothing is read here, however large the ledger is."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST_REQUEST:
            return HTTPStatus.BAD_REQUEST, "a request has at most 1,000 bytes"
        body = self.rfile.read(int(length))
        self._patience.cancel()
        request = _request(body)
        if request is None:
            return HTTPStatus.BAD_REQUEST, "not a request to steer"
        try:
            steering.ask_driver(files, request)
        except (CommandError, OSError) as error:
            return HTTPStatus.CONFLICT, message_of(error)
        return (
            HTTPStatus.ACCEPTED,
            "Asked. The page shows when it is done; the driver says if it can't be.",
        )

    def _answer(self, path: str) -> None:
        folder = self.server.folder
        there = ResultsFolder(folder)
        if path in {"/", f"/{there.index.name}"}:
            self._page(lambda: index.index_html(folder, self.server.reader(), self._nonce))
        elif path == f"/{there.compare.name}":
            self._page(
                lambda: index.compare_html(
                    index.compared(folder, self.server.reader()), self._nonce
                )
            )
        elif path == f"/{there.log.name}":
            self._file(there.log)
        elif path == f"/{there.log_page.name}":
            self._file(there.log_page, _HTML)
        elif Path(path).suffix in _PICTURES and is_local(path.removeprefix("/")):
            self._file(folder / path.removeprefix("/"))
        else:
            name, _, rest = path.removeprefix("/").partition("/")
            files = self.server.sweep(name)
            if files is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._of_sweep(files, rest)

    def _of_sweep(self, files: Files, rest: str) -> None:
        """Answer with a file of a sweep's analysis, its page or its feed."""
        if rest == str(files.report.relative_to(files.folder)):
            steer = f"../{STEER}" if self.server.token else ""
            self._page(lambda: report.html(content(files), f"../{FEED}", self._nonce, steer))
        elif rest == FEED:
            self._feed(files)
        else:
            folder, _, name = rest.rpartition("/")
            if folder == files.analysis.name and ledger.is_name(name):
                self._file(files.analysis / name)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

    def _page(self, make: Callable[[], str]) -> None:
        try:
            body = make().encode()
        except ledger.LedgerError as error:
            self._cannot(message_of(error))
            return
        except UsageError:  # the driver has written nothing yet
            body = _WAITING
        except Exception as error:  # noqa: BLE001 whatever it is, the page says so
            code = message_of(error) if isinstance(error, OSError) else f"{type(error).__name__}"
            self._cannot(f"the ledger can't be shown: {code}")
            return
        self._send_whole(_HTML, body)

    def _file(self, path: Path, kind: str | None = None) -> None:
        """Answer with a file of the results folder, not one that a link leads to; its suffix says of which
        kind it is, if nothing else does."""
        kind = kind or _KINDS.get(path.suffix)
        try:
            own = path.resolve().is_relative_to(self.server.folder.resolve())
            found = read_file(path, _LONGEST, follow=False) if own and kind else None
        except OSError:
            found = None
        if kind is None or found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send_whole(kind, found)

    def _cannot(self, why: str) -> None:
        self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=why)

    def end_headers(self) -> None:
        """The end of the head of every answer, after what keeps other pages and scripts out."""
        self.send_header("Content-Security-Policy", _POLICY.format(nonce=self._nonce))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def _head(self, kind: str, length: int | None, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_whole(self, kind: str, body: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._head(kind, len(body), status)
        self.wfile.write(body)

    def _feed(self, files: Files) -> None:
        """Server-sent events: the content of the page, whenever the ledger has grown."""
        self._head("text/event-stream", None)
        seen, silent = None, 0.0
        try:
            while not self.server.closing.wait(0 if seen is None else POLL_SECONDS):
                state = _state(files)
                silent += POLL_SECONDS
                if state != seen:
                    seen, silent = state, 0.0
                    self._send(f"data: {json.dumps(content(files))}\n\n")
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
