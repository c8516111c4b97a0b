"""Temporary folders: those of dead drivers go, all others stay."""

import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.engine.scratch import (
    DESCRIPTORS,
    FILE,
    LONGEST,
    private_folder,
    require_descriptors,
    require_file_size,
    require_short_paths,
    require_token,
)
from sweeps.exits import StorageError

DRIVER = """
import sys
from pathlib import Path
from sweeps.engine.scratch import private_folder
with private_folder(Path(sys.argv[1])) as folder:
    (folder / "ray").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


def driver(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder, and the folder."""
    command = [sys.executable, "-c", DRIVER, str(place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def left_behind(place: Path) -> Path:
    """The folder of a driver that was killed."""
    process, folder = driver(place)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert folder.is_dir()
    return folder


def test_a_folder_is_private_and_goes_with_its_driver(tmp_path: Path) -> None:
    with private_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("SIGKILL of a driver with a temporary folder", "the next start removes it")
def test_the_folder_of_a_killed_driver_goes_at_the_next_start(tmp_path: Path) -> None:
    left_behind(tmp_path)
    with private_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_the_folder_of_a_living_driver_stays(tmp_path: Path) -> None:
    process, folder = driver(tmp_path)
    with private_folder(tmp_path):
        assert (folder / "ray").is_dir()
    process.communicate("")
    assert process.returncode == 0


def made_again(folder: Path) -> Path:
    """The folder of a dead driver, as a process of its Ray makes it anew to write into it."""
    (folder / "ray" / "session_1" / "logs").mkdir(parents=True)
    return folder


@pytest.mark.fault("Ray's processes outlive their driver", "the next start removes what they wrote")
def test_a_folder_that_processes_of_ray_made_again_goes_when_they_have_ended(
    tmp_path: Path,
) -> None:
    folder = made_again(tmp_path / "sweep-one")
    wait = "import sys; sys.stdin.read()"
    words = [sys.executable, "-c", wait, f"--session-dir={folder}/ray/session_1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE), private_folder(tmp_path):
        assert folder.is_dir()
    with private_folder(tmp_path) as own:
        assert list(tmp_path.iterdir()) == [own]


def test_a_folder_that_has_more_than_ray_stays(tmp_path: Path) -> None:
    folder = made_again(tmp_path / "sweep-mine")
    (folder / "thesis.txt").touch()
    with private_folder(tmp_path):
        assert (folder / "thesis.txt").exists()


def test_a_folder_that_no_driver_locked_stays(tmp_path: Path) -> None:
    (tmp_path / "sweep-mine").mkdir(mode=0o700)
    with private_folder(tmp_path):
        pass
    assert (tmp_path / "sweep-mine").is_dir()


def test_a_folder_that_others_can_read_stays(tmp_path: Path) -> None:
    folder = left_behind(tmp_path)
    folder.chmod(0o755)
    with private_folder(tmp_path):
        pass
    assert folder.is_dir()


def test_a_link_to_a_folder_stays_with_what_it_names(tmp_path: Path) -> None:
    folder = left_behind(tmp_path)
    named = folder.rename(tmp_path / "precious")
    (tmp_path / "sweep-link").symlink_to(named)
    with private_folder(tmp_path):
        pass
    assert (named / "ray").is_dir() and (tmp_path / "sweep-link").is_symlink()


@pytest.mark.parametrize(("length", "refused"), [(LONGEST, False), (LONGEST + 1, True)])
@pytest.mark.fault("a TMPDIR whose path is too long for sockets", "exit code 7, with what to do")
def test_a_temporary_folder_too_long_for_sockets_is_refused(
    monkeypatch: pytest.MonkeyPatch, length: int, refused: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/".ljust(length, "a"))
    if refused:
        with pytest.raises(
            StorageError, match=r"at most 75 will do\. Set TMPDIR to a shorter path"
        ):
            require_short_paths()
    else:
        require_short_paths()


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "token is empty"),
        ("a b", 0o600, "without spaces"),
        ("a\x01", 0o600, "of ASCII"),
        ("a1", 0o644, "can read"),
        ("a1", 0o660, "can read"),
    ],
)
@pytest.mark.fault("a token that others can read, or an empty one", "exit code 7, with what to do")
def test_a_token_that_protects_nothing_is_refused(
    tmp_path: Path, content: str, mode: int, message: str
) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    token.chmod(mode)
    with pytest.raises(StorageError, match=f"{message}.*: rm {token}"):
        require_token({"RAY_AUTH_TOKEN_PATH": str(token)})


@pytest.mark.parametrize("given", ["", " "])
def test_a_token_of_its_owner_is_used(tmp_path: Path, given: str) -> None:
    token = tmp_path / "token"
    token.write_text("a1\n")
    token.chmod(0o600)
    require_token({"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": given})


def test_a_new_token_and_its_folder_are_of_their_owner_only(tmp_path: Path) -> None:
    """Whatever the umask; the token is made when the engine is imported."""
    environment = {
        name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN_PATH"
    }
    words = [sys.executable, "-c", "import os; os.umask(0); import sweeps.engine.tune"]
    subprocess.run(words, env={**environment, "HOME": str(tmp_path)}, check=True)
    folder = tmp_path / ".ray"
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (folder, folder / "auth_token")]
    assert modes == [0o700, 0o600]


@pytest.mark.fault("a token that Ray can't send", "exit code 7, with what to do")
@pytest.mark.parametrize("token", ["é", "a b", "a\x01b", "\udc80", "a\nb"])
def test_a_token_that_ray_cannot_send_is_refused(token: str) -> None:
    """Ray would end the process with an assertion."""
    with pytest.raises(StorageError, match=r"RAY_AUTH_TOKEN: .*: unset RAY_AUTH_TOKEN"):
        require_token({"RAY_AUTH_TOKEN": token})


def test_a_token_that_is_given_needs_no_file() -> None:
    require_token({"RAY_AUTH_TOKEN": " 0af-_~! "})


def limited(kind: int, value: int, check: Callable[[], None], *, enough: bool) -> None:
    """Check under a limit of this process, which is told unless it is enough."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        told = contextlib.nullcontext() if enough else pytest.raises(StorageError, match="ulimit")
        with told:
            check()
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.mark.parametrize(("less", "enough"), [(0, True), (1, False)])
def test_ray_needs_so_many_open_files(less: int, enough: bool) -> None:
    limited(resource.RLIMIT_NOFILE, DESCRIPTORS - less, require_descriptors, enough=enough)


@pytest.mark.parametrize(("less", "enough"), [(0, True), (1, False)])
def test_ray_needs_files_of_some_size(less: int, enough: bool) -> None:
    limited(resource.RLIMIT_FSIZE, FILE - less, require_file_size, enough=enough)
