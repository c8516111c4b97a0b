"""How commands end: each exception has its exit code, and only what ends a command is caught."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sweeps import exits
from sweeps.commands.shared import command_line
from sweeps.engine.failures import failure_of
from sweeps.exits import LockedError, UsageError, masked, message_of
from sweeps.ledger import LedgerError
from sweeps.report.notes import NotesError
from sweeps.text import portable
from tinylm.checkpoint import CheckpointError
from tinylm.config import ConfigError
from tinylm.yaml import YamlError


class UnlistedError(Exception):
    """An exception that no table names."""


def ended(error: BaseException) -> int:
    """The code of a command that raises an exception."""
    with pytest.raises(typer.Exit) as caught, exits.reported():
        raise error
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exits.UsageError("x"), 2),
        (NotesError("x"), 2),
        (ConfigError(["x"]), 2),
        (YamlError("x"), 2),
        (LockedError("x"), 5),
        (LedgerError("x"), 6),
        (CheckpointError("x"), 6),
        (exits.StorageError("x"), 7),
        (FileNotFoundError(2, "gone", "x"), 7),
        (exits.ClusterError("x"), 8),
        (exits.RefusedError("x"), 9),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_ends_a_command_with_its_code(error: BaseException, code: int) -> None:
    assert ended(error) == code


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(UnlistedError), exits.reported():
        raise UnlistedError


def test_the_message_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ended(exits.UsageError("what is wrong"))
    assert capsys.readouterr() == ("", "what is wrong\n")


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    ended(FileNotFoundError(2, "No such file", "a.csv"))
    assert capsys.readouterr().err == "a.csv: No such file\n"


def test_a_full_disk_names_the_place_that_was_written_to() -> None:
    full = pytest.raises(exits.StorageError, match=r"^results/lr: No space left$")
    with full, exits.storing(Path("results/lr")):
        raise OSError(28, "No space left")


def test_a_signal_is_added_to_128() -> None:
    assert exits.by_signal(15) == 143


@pytest.mark.parametrize("module", ["tinylm_sweeps", "sweeps", "sweeps.run"])
@pytest.mark.fault("SIGINT while the program is loaded", "it ends at once, without a traceback")
def test_a_signal_that_comes_while_a_command_is_loaded_ends_it_in_silence(module: str) -> None:
    """Python says what it imports; it loads on for a while after the first part of typer."""
    words = [sys.executable, "-X", "importtime", "-m", module, *["run"][: module != "sweeps.run"]]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        next(line for line in started.stderr if line.endswith(" typer.colors\n"))
        started.send_signal(signal.SIGINT)
        said = started.stderr.read()
    assert "Traceback" not in said
    assert started.returncode in {-signal.SIGINT, exits.by_signal(signal.SIGINT)}


def test_to_import_the_package_leaves_the_signals_of_a_program_alone() -> None:
    says = "import signal, sweeps; print(signal.getsignal(2) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_message_never_moves_the_cursor() -> None:
    assert message_of(UsageError("a\x1b[31m\udc80é\nb\t")) == "a\\x1b[31m\\udc80é\nb\t"


def test_a_long_line_of_a_message_is_cut() -> None:
    assert len(message_of(UsageError("x" * 10**6))) == 2001


def test_a_message_of_many_lines_is_cut() -> None:
    assert message_of(UsageError("x\n" * 10**6)) == "x\n" * 200 + "…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pa55@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:p%40s@db/x, then", "postgresql://***@db/x, then"),
        ("--set 'data.path=https://h/x?token=abc&b=1'", "--set 'data.path=https://h/x?token=***&b=1'"),
        ("https://h/x?X-Amz-Signature=abc&access_token=d", "https://h/x?X-Amz-Signature=***&access_token=***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("WANDB_API_KEY=abc", "WANDB_API_KEY=***"),
        ("key hf_abcdefghijklmnopqrst, said", "key ***, said"),
        ("sk-proj-0123456789abcdef_x, gho_0123456789abcdef", "***, ***"),
        ("https:/me:pa55@h/x?token=abcdef is no file", "https:/***@h/x?token=*** is no file"),
        ("https://me:p@ss@h/x", "https://***@h/x"),
        ("--token abcdef --api-key=ghi", "--token *** --api-key=***"),
        ('{"password": "a b", "x": 1, "client_secret":"c"}', '{"password": "***", "x": 1, "client_secret":"***"}'),
        ("{'api_key': 'a\"b', 'pwd': 12}", "{'api_key': '***', 'pwd': ***"),
        (r'"{\"password\": \"a\"}"', r'"{\"password\": \"***\"}"'),
        ("Authorization: Basic bWU6cGE=", "Authorization: Basic ***"),
        ("password: hunter2", "password: ***"),
        ("a: 1\n  db_password: hunter2  # of mine\n- token: x", "a: 1\n  db_password: ***  # of mine\n- token: ***"),
        ("{user: me, data.password: hunter2}", "{user: me, data.password: ***}"),
        ("--set password: hunter2", "--set password: ***"),
        ("--set: expected PATH=VALUE, got 'password: a'b' here", "--set: expected PATH=VALUE, got 'password: ***' here"),
        ("x.yaml: base.api_key: hunter2; more", "x.yaml: base.api_key: ***; more"),
    ],
)  # fmt: skip
def test_a_message_shows_no_secret(text: str, shown: str) -> None:
    assert message_of(UsageError(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "python -m sweeps.run lr --set budget.tokens=1_000_000 --set eval.every_tokens=5",
        "http://127.0.0.1:8265 shows lr; stop it with Ctrl-C",
        "design=3 tokens=5 me@example.org",
        "RAY_AUTH_TOKEN: Ray's token has to be letters",
        "x.yaml: password: unknown key; x.yaml: api_key: missing",
        "loss per token: 5",
        "data.tokenizer: bytes; data.path: /home/me@work/x; C:/me@x; the token: it is empty",
        "RAY_AUTH_MODE=token --tokens 5 --token --help risk-of-a-very-long-name",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


def test_the_command_that_a_ledger_keeps_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run", "--set", "data.path=http://a:b@c/d?token=e"])
    assert command_line("sweeps.run").endswith("--set 'data.path=http://***@c/d?token=***'")


def test_the_word_after_the_option_of_a_secret_is_kept_by_no_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["run", "--token", "it's mine", "--set", "a=b"])
    assert command_line("sweeps.run").endswith("-m sweeps.run --token '***' --set a=b")


def test_an_old_command_is_shown_without_its_secret() -> None:
    assert (
        portable("/usr/bin/python3 -m x --set p=http://a:b@c")
        == "python -m x --set 'p=http://***@c'"
    )


def test_the_failure_that_a_ledger_keeps_has_no_secret() -> None:
    failure = failure_of(ValueError("no answer from https://a:b@c"))
    assert failure.reason == "ValueError: no answer from https://***@c"
    assert "a:b" not in failure.traceback


# What nobody reads

PRINTS = "print('line', flush=True); print('line', flush=True); raise SystemExit(3)"
COMMAND = """
import typer
from tinylm import exits, streams

def main():
    with exits.reported():
        {lost}
        {program}

typer.run(main)
"""


def shell(redirection: str, *, works: bool, program: str = PRINTS) -> tuple[int, str]:
    """The exit code and the errors of a command that prints twice and ends with 3; `works` for one that
    does more than print. Descriptor 3 is a pipe whose reader has ended."""
    lost = "streams.lose_unheard_output()" if works else ""
    text = COMMAND.format(lost=lost, program=program)
    line = f'exec 3> >(true); wait $!; "$0" -c "$1" {redirection}'
    asked = ["bash", "-c", line, sys.executable, text]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("redirection", [">&3", ">&-", "> /dev/full", "2>&-", "2>&3 >&3"])
@pytest.mark.fault("a closed pipe, a closed or full standard output", "the sweep goes on")
def test_what_nobody_reads_does_not_end_a_command_that_works(redirection: str) -> None:
    assert shell(redirection, works=True) == (3, "")


@pytest.mark.parametrize(
    ("redirection", "ended"),
    [
        (">&3", (128 + 13, "")),
        (">&-", (3, "")),
        ("> /dev/full", (7, "No space left on device\n")),
    ],
)
def test_a_command_that_only_prints_ends_as_others_do(
    redirection: str, ended: tuple[int, str]
) -> None:
    assert shell(redirection, works=False) == ended


def test_a_file_never_takes_the_place_of_a_closed_output() -> None:
    program = "raise SystemExit(open('/dev/null').fileno() > 2)"
    assert shell(">&-", works=False, program=program) == (1, "")


def test_a_message_that_nobody_reads_leaves_the_exit_code() -> None:
    program = "raise exits.RefusedError('no')"
    assert shell("2> /dev/full", works=False, program=program) == (9, "")
