"""Files that are whole or not there, and on the disk when they are said to be."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """A stream to write a file's new content to; `path` holds all of it or what it held before.

    The stream may be read as well. Where the context ends with an error, nothing changes.
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


def exchange(one: Path, other: Path) -> None:
    """Let two files change places, both at once.

    `OSError` where one is missing; with ENOSYS or EINVAL where the system or the file system has no
    such call (Linux has, since 3.15; NFS has not).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    here, exchanged = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchanged):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
