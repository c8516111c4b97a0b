"""Why a run failed, by the exception that its process raised, or by what Ray says of its end."""

import errno
import os
import pickle
import sys
from pathlib import Path

import pytest

from sweeps.engine.failures import (
    AttemptError,
    Failure,
    failure_in,
    failure_of,
    storage_words,
    told,
)
from sweeps.exits import StorageError
from tinylm.checkpoint import CheckpointError, UnreadableCheckpointError


class OutOfMemoryError(RuntimeError):
    """As torch names the one of a CUDA device."""


class CppCompileError(RuntimeError):
    """As torch.compile names that of its compiler."""


def caused(error: Exception, cause: Exception) -> Exception:
    """An error that is raised from another."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("a line\nDefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        caused(RuntimeError("backend='inductor' raised"), MemoryError()),
    ],
    ids=str,
)
def test_memory_that_ran_out_is_known_by_type_or_text(error: Exception) -> None:
    assert failure_of(error).how == "out of memory"


def test_the_reason_is_the_first_line_of_the_error_that_caused_the_others() -> None:
    error = caused(RuntimeError("Set TORCHDYNAMO_VERBOSE=1"), ValueError("\nno such arm\nmore"))
    assert failure_of(error).reason == "ValueError: no such arm"


def test_an_error_without_words_is_named_by_its_type() -> None:
    assert failure_of(ZeroDivisionError()).reason == "ZeroDivisionError"


def test_an_error_with_words_of_its_own_keeps_them() -> None:
    """An error that was raised while another was handled is the one to read."""
    error = ValueError("no such arm")
    error.__context__ = KeyError("arm")
    assert failure_of(error).reason == "ValueError: no such arm"


@pytest.mark.fault("a disk that fills while torch saves", "told as a full disk")
def test_a_full_disk_is_known_behind_what_torch_makes_of_it() -> None:
    error = RuntimeError("inline_container.cc unexpected pos")
    error.__context__ = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: no")
    found = failure_of(error)
    assert (found.how, found.number) == ("storage", errno.ENOSPC)
    assert found.reason == os.strerror(errno.ENOSPC)


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EIO, errno.EROFS])
@pytest.mark.fault("a limit of the size of files, or a broken disk", "the sweep ends with 7")
def test_what_another_attempt_would_meet_too_is_a_matter_of_storage(number: int) -> None:
    found = failure_of(caused(RuntimeError("x"), OSError(number, "x", "/a/checkpoint.pt")))
    assert (found.how, found.number, found.file) == ("storage", number, "/a/checkpoint.pt")


def test_the_file_that_failed_is_named_with_its_room_and_what_is_needed(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "checkpoint.pt"
    failure = failure_of(OSError(errno.ENOSPC, "x", str(gone)))
    words = storage_words(failure, Path("results/lr"), 2_500_000)
    assert words.startswith(f"{gone}: No space left on device; {tmp_path} has ")
    assert words.endswith(" MB free, and a checkpoint takes up to 2.5 MB there")


def test_the_folder_of_a_sweep_stands_for_a_file_that_is_not_known(tmp_path: Path) -> None:
    words = storage_words(failure_of(OSError(errno.ENOSPC, "x")), tmp_path, 1)
    assert words.startswith(f"{tmp_path}: No space left on device; {tmp_path} has ")


def test_a_missing_file_is_no_matter_of_storage() -> None:
    assert failure_of(FileNotFoundError(errno.ENOENT, "gone", "x")).how == "error"


@pytest.mark.parametrize(("prefix", "said"), [("/a b/.venv", True), ("/a/.venv", False)])
def test_a_compiler_that_cannot_link_below_a_path_with_a_space_says_so(
    monkeypatch: pytest.MonkeyPatch, prefix: str, said: bool
) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    reason = failure_of(caused(RuntimeError("x"), CppCompileError("C++ compile error"))).reason
    assert ("whose path has a space: /a b/.venv" in reason) is said


def raised(error: Exception) -> AttemptError:
    """What leaves the process of an attempt in which this is raised."""
    with pytest.raises(AttemptError) as caught, told():
        raise error
    return caught.value


def test_a_failure_comes_out_of_the_text_that_ray_makes_of_it() -> None:
    error = ValueError("two\nlines and a {brace}")
    marked = (
        f"Failure # 1\nray::x() (pid=1)\nsweeps.engine.failures.AttemptError: {raised(error)}\n"
    )
    found = failure_in(marked, killed=True)
    assert (found.how, found.reason) == ("error", "ValueError: two")
    assert "ValueError: two\nlines and a {brace}" in found.traceback


def test_a_failure_survives_the_way_between_processes() -> None:
    error = raised(ValueError("two"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.fault("the kernel kills a worker for lack of memory", "the row says: out of memory")
def test_a_process_that_the_kernel_killed_ran_out_of_memory() -> None:
    assert failure_in("ActorDiedError: x", killed=True).how == "out of memory"


def test_a_process_that_ended_without_a_word_died() -> None:
    """Ray's own words name the out-of-memory killer, whatever the cause was."""
    text = "(1) The process is killed by SIGKILL by OOM killer due to high memory usage."
    assert failure_in(text, killed=False) == Failure(
        "died",
        "the worker process was killed or crashed (with SIGKILL often for lack of memory; the "
        "kernel's log would say)",
        text,
    )


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (CheckpointError("x.pt: damaged"), "checkpoint"),
        (UnreadableCheckpointError("x.pt: not a readable checkpoint"), "error"),
    ],
)
def test_only_a_damaged_checkpoint_is_one(error: Exception, how: str) -> None:
    assert failure_of(error).how == how


def test_a_store_that_fails_a_worker_ends_the_sweep_with_what_it_said(tmp_path: Path) -> None:
    failure = failure_of(StorageError("s3://bucket/x: does not answer"))
    assert failure.how == "storage"
    assert storage_words(failure, tmp_path, 100) == "s3://bucket/x: does not answer"


@pytest.mark.parametrize(
    "text",
    [
        "The actor 4604f1a2 is unavailable: The actor is temporarily unavailable: RpcError",
        "The actor died because its node has died. Node Id: 0a1b",
    ],
)
def test_a_lost_node_is_told_from_a_process_that_died(text: str) -> None:
    assert failure_in(f"Failure # 1\n{text}", killed=False).how == "node"
