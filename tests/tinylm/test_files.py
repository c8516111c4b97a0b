"""Files that others may have put in a place: read at once, or refused with a reason."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tinylm.files import read_file


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


PLANTED: dict[str, Callable[[Path], object]] = {
    "a fifo": os.mkfifo,
    "a socket": a_socket,
    "a folder": Path.mkdir,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a large file": lambda path: path.write_bytes(bytes(1001)),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_no_file_of_that_size_is_refused_at_once(tmp_path: Path, what: str) -> None:
    PLANTED[what](tmp_path / "x")
    with pytest.raises(OSError, match=r"file|directory|link|larger than 0.001 MB"):
        read_file(tmp_path / "x", 1000)


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1000))
    assert read_file(tmp_path / "x", 1000) == bytes(1000)


@pytest.mark.parametrize("follow", [True, False])
def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path, follow: bool) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x").symlink_to("secret")
    if follow:
        assert read_file(tmp_path / "x", 1000) == b"secret"
        return
    with pytest.raises(OSError, match="a link"):
        read_file(tmp_path / "x", 1000, follow=False)
