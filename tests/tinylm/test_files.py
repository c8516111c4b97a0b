"""Files that others may have put in a place, and folders that replace others as a whole."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tinylm import files
from tinylm.files import read_file, replacing_folder


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


# A folder that replaces another


def no_exchange(one: Path, other: Path) -> None:
    """As on NFS."""
    raise OSError(errno.EINVAL, "no exchange")


@pytest.fixture(params=["with an exchange", "without"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, on a file system that can swap folders or can't."""
    if request.param == "without":
        monkeypatch.setattr(files, "exchange", no_exchange)
    folder = tmp_path / "there" / "best"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    return folder


def beside(place: Path) -> list[str]:
    """What is in the folder above: the place, and what was left over."""
    return [path.name for path in place.parent.iterdir()]


def test_a_new_folder_takes_the_place_of_the_old_one(place: Path) -> None:
    with replacing_folder(place) as new:
        (new / "new").write_text("new")
    assert ([path.name for path in place.iterdir()], beside(place)) == (["new"], ["best"])


def test_a_new_folder_takes_an_empty_place(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "best") as new:
        (new / "new").write_text("new")
    assert (tmp_path / "best" / "new").read_text() == "new"


def test_an_error_leaves_the_old_folder(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing_folder(place):
        raise ZeroDivisionError
    assert ((place / "old").read_text(), beside(place)) == ("old", ["best"])


def test_a_new_folder_that_can_not_take_the_place_leaves_the_old_one(place: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing_folder(place) as new:
        new.rmdir()
    assert ((place / "old").read_text(), beside(place)) == ("old", ["best"])


def test_what_a_killed_process_with_the_same_number_left_is_removed(place: Path) -> None:
    (place.parent / f".best.new.{os.getpid()}").mkdir()
    (place.parent / f".best.new.{os.getpid()}" / "half").write_text("half")
    with replacing_folder(place) as new:
        (new / "new").write_text("new")
    assert ([path.name for path in place.iterdir()], beside(place)) == (["new"], ["best"])
