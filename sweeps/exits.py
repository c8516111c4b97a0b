"""How commands end: one tree of exceptions, with the exit code of each.

    CommandError              a message that ends a command                   (tinylm.exits)
    |-- UsageError        2   what the user wrote is wrong
    |   `-- NotesError        a note in a generated file lost a marker        (report.notes)
    |-- ConfigError       2   a config or a space is wrong                    (tinylm.config)
    |-- YamlError         2   a file is not YAML                              (tinylm.yaml)
    |-- LockedError       5   another process has the sweep, or the run       (tinylm.exits)
    |-- LedgerError       6   the ledger is damaged                           (rows)
    |-- RecordsError      6   the records of a run are damaged                (tinylm)
    |-- CheckpointError   6   a checkpoint is damaged, or of another run      (tinylm.checkpoint)
    |   `-- UnreadableCheckpointError  it may be whole, but not here, or is of another version
    |-- StorageError      7   a file or folder can't be read or written       (tinylm.exits)
    |-- ClusterError      8   the cluster can't be reached, or was lost
    |-- RefusedError      9   the command would change what was measured      (tinylm.exits)
    `-- NotRunningError   9   no driver runs the sweep that is to be ended    (steering)

An `OSError` from elsewhere ends a command with 7, a `KeyboardInterrupt` with 130, and a pipe whose
reader has ended one that only prints with 141. Everything else is a
bug and keeps its traceback. `tinylm.exits` has the codes and maps exceptions to them. This module is
at the ground: the ledger imports it.
"""

import re
from pathlib import Path

from tinylm.exits import (
    Code,
    CommandError,
    LockedError,
    RefusedError,
    StorageError,
    by_signal,
    code_of,
    reported,
    storing,
)
from tinylm.messages import masked, masked_words, message_of
from tinylm.streams import lose_unheard_output

__all__ = [
    "ClusterError",
    "Code",
    "CommandError",
    "LockedError",
    "RefusedError",
    "StorageError",
    "UsageError",
    "by_signal",
    "code_of",
    "lose_unheard_output",
    "masked",
    "masked_words",
    "message_of",
    "refuse_url",
    "reported",
    "storing",
]


class UsageError(CommandError, ValueError):
    """What the user wrote is wrong."""

    code = Code.USAGE


class ClusterError(CommandError):
    """The cluster can't be reached, or was lost."""

    code = Code.CLUSTER


def refuse_url(option: str, path: Path) -> None:
    """Raise `UsageError` if a path to be written is a URL: it would be a local folder named `s3:`."""
    scheme, *rest = path.parts or ("",)
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:", scheme):
        raise UsageError(
            f"{option} {scheme}//{'/'.join(rest)}: expected a path; results are written to a local or mounted "
            "file system"
        )
