"""Files and folders that are either complete or unchanged, and on disk once they are written."""

import ctypes
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: Path, *, follow: bool = True) -> BinaryIO:
    """A file to read. Never waits: `OSError` if it is a pipe, a device or a folder, or without `follow` a
    link."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink() and not follow:
            raise OSError(errno.ELOOP, "a link", str(path)) from error
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.ENXIO, "not a file", str(path)) from error
        raise
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a file", str(path))


def read_file(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """The content of a file that `open_file` opens; `OSError` if it has more than `limit` bytes."""
    with open_file(path, follow=follow) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit / 1e6:.3g} MB", str(path))
    return content


def backup_names(path: Path) -> Iterator[Path]:
    """Names for copies of a file, beside it: NAME.bak, NAME.bak1, NAME.bak2 and so on."""
    return (path.with_name(f"{path.name}.bak{number or ''}") for number in itertools.count())


@contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """A stream for a file's new content; at any moment `path` has either all of it or the old content.

    The stream can also be read. If the context ends with an error, the file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder that replaces the one at `path` with all that it holds when the context ends.

    If the context ends with an error, or the new folder can't take the place, the old one stays as it
    was. What a process with the same number left when it was killed is removed.
    """
    new = path.with_name(f".{path.name}.new.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        _replace(new, path)
        sync(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(new: Path, path: Path) -> None:
    """Put a folder in the place of what may be there, which then has the folder's name or is gone."""
    try:
        new.rename(path)
    except OSError:  # something is there
        try:
            exchange(new, path)
        except OSError as error:
            if error.errno not in {errno.ENOSYS, errno.EINVAL}:
                raise
            _replace_in_steps(new, path)


def _replace_in_steps(new: Path, path: Path) -> None:
    """Do the same where the system can't swap two folders. If the process is killed in between, the old
    one is left as `.NAME.old.PID`."""
    old = path.with_name(f".{path.name}.old.{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        with suppress(OSError):  # another process has put its own there
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Swap two files or folders atomically.

    Raises `OSError` if one is missing, and with ENOSYS or EINVAL if the system (Linux before 3.15) or
    the file system (NFS) does not support it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), swap):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
