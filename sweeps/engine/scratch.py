"""The files that Ray needs: temporary folders, one a driver and none of a driver that is dead, and the
token."""

import contextlib
import errno
import fcntl
import os
import re
import resource
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sweeps.exits import StorageError

PLACE = Path("/tmp")  # noqa: S108 its sockets need a short path
DESCRIPTORS = 256  # with which Ray starts
ROOM = 8_000_000  # bytes, with which it starts
FILE = 200_000_000  # bytes that a file may have, with which it starts
_STORE = 100_000_000  # bytes of its shared memory, a file, where the size of files is limited
RAY = "ray"  # in the folder of a driver, that of Ray
_PREFIX = "sweep-"
_TOKEN = re.compile(r"[!-~]+")  # what a header may hold
_LOCK = "driver.lock"  # locked as long as the driver lives
# Characters of a socket's path, less those of the names that Python gives one in $TMPDIR.
LONGEST = 107 - len("/pymp-12345678/listener-12345678")


def require_a_place() -> None:
    """Raise `StorageError` if a Ray of its own can't start here."""
    require_short_paths()
    require_descriptors()
    require_file_size()
    require_room()


def require_short_paths() -> None:
    """Raise `StorageError` if the folder for temporary files has no room for a socket's name."""
    folder = tempfile.gettempdir()
    if len(folder) > LONGEST:
        raise StorageError(
            f"TMPDIR: {folder} has {len(folder)} characters; Ray needs sockets there, whose paths are "
            f"limited, so at most {LONGEST} will do. Set TMPDIR to a shorter path, e.g. TMPDIR=/tmp"
        )


def require_room(place: Path = PLACE) -> None:
    """Raise `StorageError` if Ray has no room for its sockets and logs: it would wait for ever."""
    free = shutil.disk_usage(place).free
    if free < ROOM:
        raise StorageError(
            f"{place}: has {free / 1e6:.1f} MB of room, and Ray needs {ROOM / 1e6:.0f} MB there for its "
            "sockets and logs; make room"
        )


def require_descriptors() -> None:
    """Raise `StorageError` if this process may open fewer files than Ray needs: it would end without a
    word."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < DESCRIPTORS:
        raise StorageError(
            f"a process may open {allowed} files here, and Ray needs {DESCRIPTORS}; raise the limit: "
            f"ulimit -n {DESCRIPTORS * 16}"
        )


def require_file_size() -> None:
    """Raise `StorageError` if the files of this process may not grow as large as those of Ray, which would
    wait for ever."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if 0 <= allowed < FILE:
        raise StorageError(
            f"a file may have {allowed / 1e6:,.1f} MB here, and Ray needs {FILE / 1e6:,.0f} MB for its shared "
            "memory; raise the limit: ulimit -f unlimited"
        )


def shared_memory() -> dict[str, int]:
    """Ray's setting for its shared memory, of which next to nothing is used: it is one file, by default of a
    third of the machine's memory."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return {} if allowed == resource.RLIM_INFINITY else {"object_store_memory": _STORE}


def require_token(environment: Mapping[str, str]) -> None:
    """Raise `StorageError` if Ray's token is not one that it can send, or if other users can read its file:
    Ray would end the process in the middle of it, or protect nothing."""
    given = environment.get("RAY_AUTH_TOKEN", "").strip()
    if given:
        if not _TOKEN.fullmatch(given):
            raise StorageError(
                "RAY_AUTH_TOKEN: Ray's token has to be letters, digits and signs of ASCII, without spaces; "
                "unset it, and the one in a file is used: unset RAY_AUTH_TOKEN"
            )
        return
    path = Path(environment["RAY_AUTH_TOKEN_PATH"])
    advice = f"remove it, and a new one will be made: rm {shlex.quote(str(path))}"
    text = path.read_text(errors="replace").strip()
    if not text:
        raise StorageError(f"{path}: Ray's token is empty; {advice}")
    if not _TOKEN.fullmatch(text):
        raise StorageError(
            f"{path}: Ray's token has to be letters, digits and signs of ASCII, without spaces; {advice}"
        )
    if path.stat().st_mode & 0o077:
        raise StorageError(f"{path}: other users can read or write Ray's token; {advice}")


@contextlib.contextmanager
def private_folder(parent: Path = PLACE) -> Iterator[Path]:
    """A folder that no other user can read while the context lasts. What drivers that are dead have left
    is removed first."""
    for folder in left_by_the_dead(parent):
        remove_if_dead(folder)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(folder / "new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        # A folder with the lock's name in it, and no lock, is that of a dead driver.
        with contextlib.suppress(OSError):  # without locks the folder is never taken for one
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "new").rename(folder / _LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def left_by_the_dead(parent: Path = PLACE) -> list[Path]:
    """The folders that drivers of this user left which are dead."""
    found = []
    for folder in sorted(parent.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError), _held(folder):
            found.append(folder)
    return found + _made_again(sorted(parent.glob(f"{_PREFIX}*/")))


def _made_again(folders: Iterable[Path]) -> list[Path]:
    """Those of the folders that were removed and that processes of Ray made again, which outlive a killed
    driver by a minute, if they have ended."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            is_own = not folder.is_symlink() and folder.stat().st_uid == os.getuid()
            if (
                is_own
                and [*folder.iterdir()] == [folder / RAY]
                and [*folder.glob(f"{RAY}/session_*")]
            ):
                found.append(folder)
    used = b"".join(_command_lines()) if found else b""
    return [folder for folder in found if os.fsencode(folder) not in used]


def _command_lines() -> Iterator[bytes]:
    """Those of the processes of this machine, as far as they can be read."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            yield file.read_bytes()


def remove_if_dead(folder: Path) -> None:
    """Remove the folder of a driver of this user, if that is dead."""
    with contextlib.suppress(OSError), _held(folder):
        shutil.rmtree(folder, ignore_errors=True)
    for made_again in _made_again([folder]):
        shutil.rmtree(made_again, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that a driver of this user made; `OSError` if it is none, or if the driver
    is alive."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OSError(errno.EPERM, "not the folder of a driver", str(folder))
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
