"""What this program wrote, by digest: only that is overwritten or deleted; what people wrote or changed is kept."""

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from sweeps.ledger import write_whole
from tinylm.files import backup_names, open_file, read_file

_LARGEST = 10**9  # bytes of a file
_TO_SHORTEN = (
    10**5
)  # bytes of the list: lines of files that are gone, or were written anew, are dropped


class Written:
    """The files of a folder that this program wrote.

    A list has a line for each content that a file was given, as `sha256sum` prints it. Lines are only
    appended, before the file is written: neither a crash nor another process makes a file another's.
    """

    def __init__(self, files: Path, *, earlier: bool, folder: Path | None = None) -> None:
        """`files` is the list, beside or above what it lists. `earlier` is whether a version that kept no
        list wrote there: then a file that is not listed is its own; with a folder, as long as the list has
        nothing in it."""
        self._list = files
        self._known: dict[str, list[str]] = {}
        self._read = (0, 0)  # the file, and how many of its bytes are known
        known = self._digests()
        listed = folder and any(folder in (files.parent / name).parents for name in known)
        self._earlier = earlier and not listed
        if files.is_file() and files.stat().st_size > _TO_SHORTEN:
            last = {
                # A line is added before its file is written, which may have failed.
                name: each[-2:]
                for name, each in known.items()
                if (files.parent / name).exists()
            }
            lines = [_line(name, digest) for name, each in last.items() for digest in each]
            write_whole(files, "".join(lines).encode())

    def _digests(self) -> dict[str, list[str]]:
        """The digests of the contents that each file was given; only new lines of the list are read."""
        try:
            with open_file(self._list, follow=False) as stream:
                there = os.fstat(stream.fileno())
                file, known = self._read
                if file != there.st_ino or known > there.st_size:
                    self._known, known = {}, 0
                stream.seek(known)
                whole, end, _ = stream.read(_LARGEST).rpartition(b"\n")
                self._read = there.st_ino, known + len(whole) + len(end)
        except OSError:
            self._known, self._read = {}, (0, 0)
            return self._known
        for line in filter(None, whole.decode(errors="replace").splitlines()):
            digest, _, name = line.partition("  ")
            self._known.setdefault(name, []).append(digest)
        return self._known

    def _name(self, path: Path) -> str:
        return path.relative_to(self._list.parent).as_posix()

    def is_known(self, path: Path) -> bool:
        """Whether the list has a file."""
        return self._name(path) in self._digests()

    def is_content(self, path: Path, digest: str | None) -> bool:
        """Whether a digest is that of a content that this program gave a file."""
        known = self._digests().get(self._name(path))
        return self._earlier if known is None else digest in known

    def is_own(self, path: Path) -> bool:
        """Whether a file is as this program wrote it."""
        return self.is_content(path, _digest_of(path))

    def add(self, path: Path, digest: str) -> None:
        """Keep the digest of what a file will have."""
        self._list.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(self._list, flags, 0o666), "ab") as stream:
            # Of its own line, also after one that a crash has cut off.
            stream.write(f"\n{_line(self._name(path), digest)}".encode())

    def adopt(self, paths: Iterable[Path]) -> None:
        """List files that a version without a list wrote, before any of them is written anew."""
        for path in paths if self._earlier else ():
            if (digest := _digest_of(path)) is not None and not self.is_known(path):
                self.add(path, digest)

    def write(self, path: Path, content: bytes) -> None:
        """Write a whole file. What is there and is not this program's becomes a copy beside it, which is
        said."""
        if os.path.lexists(path) and not self.is_own(path):
            copy = next(one for one in backup_names(path) if not os.path.lexists(one))
            path.rename(copy)
            print(
                f"{path} was not written by this program, or was changed: it is now {copy}",
                file=sys.stderr,
            )
        self.add(path, digest_of(content))
        write_whole(path, content)


def _line(name: str, digest: str) -> str:
    return f"{digest}  {name}\n"


def digest_of(content: bytes) -> str:
    """The digest of a content."""
    return hashlib.sha256(content).hexdigest()


def _digest_of(path: Path) -> str | None:
    """The digest of a file; None if it is none, or can't be read."""
    try:
        return digest_of(read_file(path, _LARGEST))
    except OSError:
        return None
