"""What people ask of a running sweep: files in its folder, and names of trials."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ledgers import BUDGET, story

from sweeps import ledger as led
from sweeps import steering
from sweeps.exits import UsageError
from sweeps.steering import Inbox, Request, ask, find_trial, settle, waits, why_not

STOP, FINISH, END = Request("stop", "a1"), Request("finish", "b-2_c"), Request("end")


@pytest.fixture
def files(tmp_path: Path) -> led.Files:
    """The folder of a sweep that nobody steers."""
    folder = tmp_path / "s"
    folder.mkdir()
    return led.Files(folder)


@pytest.mark.parametrize("request_", [STOP, FINISH, END], ids=lambda one: one.action)
def test_a_request_is_read_as_it_was_asked_and_is_gone_when_it_is_removed(
    files: led.Files, request_: Request
) -> None:
    ask(files, request_)
    inbox = Inbox(files)
    found = inbox.look()
    inbox.remove(request_)
    assert (found, inbox.look(), waits(files, request_)) == ([request_], [], False)


def test_a_request_that_waits_is_not_asked_twice(files: led.Files) -> None:
    ask(files, STOP)
    ask(files, STOP)
    assert Inbox(files).look() == [STOP]


def test_without_a_request_there_is_no_folder_and_nothing_is_said(
    files: led.Files, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (Inbox(files).look(), files.requests.exists(), capsys.readouterr().err) == (
        [],
        False,
        "",
    )


def test_a_request_that_nobody_took_leaves_nothing(files: led.Files) -> None:
    ask(files, STOP)
    steering.withdraw(files, STOP)
    assert not files.requests.exists()


@pytest.fixture
def over(tmp_path: Path) -> led.Files:
    """A sweep that no driver runs: one rate has finished, one is stopped, and one trained when its driver was
    killed."""
    with story(tmp_path / "over") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}, trial="whole"), 1e-3)
        stopped = tell.plan({"optim.lr": 2e-3}, trial="stopped")
        tell.start(stopped)
        tell.measure(stopped, BUDGET // 8, 5.0)
        tell.stop(stopped, BUDGET // 8, 5.0)
        killed = tell.plan({"optim.lr": 4e-3}, trial="killed")
        tell.start(killed)
        tell.measure(killed, BUDGET // 8, 5.0)
    return led.Files(tmp_path / "over")


def ends(files: led.Files) -> dict[str, tuple[str, str | None]]:
    trials = led.fold(led.read(files)).trials
    return {name: (trial.status, trial.by_hand) for name, trial in trials.items()}


def test_a_row_that_is_written_between_two_sessions_takes_no_time(over: led.Files) -> None:
    before = led.fold(led.read(over)).seconds
    ask(over, Request("stop", "killed"))
    settle(over)
    assert led.fold(led.read(over)).seconds == before


def test_where_no_driver_runs_what_waits_is_written_and_its_folder_removed(
    over: led.Files,
) -> None:
    asked = [Request("finish", "stopped"), Request("stop", "killed")]
    for one in asked:
        ask(over, one)
    assert settle(over) == asked
    assert ends(over) == {
        "whole": ("finished", None),
        "stopped": ("planned", "finish"),
        "killed": ("stopped", "stop"),
    }
    assert not over.requests.exists()


REFUSED = [
    (END, "end was asked for when nothing was training"),
    (Request("stop", "whole"), "stop lr=0.001: it has finished"),
    (Request("stop", "nobody"), "stop nobody: no such trial"),
]


@pytest.mark.parametrize(("request_", "said"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_can_not_be_done_without_a_driver_is_told_and_removed(
    over: led.Files, request_: Request, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ends(over)
    ask(over, request_)
    assert (settle(over), ends(over), over.requests.exists()) == ([], before, False)
    assert capsys.readouterr().err == f"{over.folder}: {said}; nothing was changed\n"


def test_what_is_asked_of_a_driver_is_left_to_it(over: led.Files) -> None:
    ask(over, Request("finish", "stopped"))
    with led.Ledger(over):
        assert settle(over) is None
    assert waits(over, Request("finish", "stopped"))


def test_what_is_asked_of_a_sweep_that_has_not_begun_leaves_no_ledger(
    files: led.Files, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(files, END)
    assert (settle(files), files.ledger.exists()) == ([], False)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


# Things that somebody may put there under the name of a request, and how.
STRANGE: dict[str, Callable[[Path], None]] = {
    "link": link,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_is_no_request_and_stays(
    files: led.Files, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files.requests.mkdir()
    strange = files.requests / "stop-a1"
    STRANGE[kind](strange)
    inbox = Inbox(files)
    assert (inbox.look(), inbox.look(), os.path.lexists(strange)) == ([], [], True)
    assert capsys.readouterr().err.count("left alone: 'stop-a1'") == 1


@pytest.mark.parametrize(
    "name", ["stop", "stop-", "stop-a b", "ends", ".end", "stop-\x1b[2J", "finish-" + "a" * 101]
)
def test_a_file_of_another_name_is_no_request_and_stays(files: led.Files, name: str) -> None:
    files.requests.mkdir()
    (files.requests / name).touch()
    settle(files)
    assert (Inbox(files).look(), (files.requests / name).exists()) == ([], True)


def test_a_name_that_would_move_the_cursor_is_told_by_its_escapes(
    files: led.Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.requests.mkdir()
    (files.requests / "\x1b[2J").touch()
    Inbox(files).look()
    assert "'\\x1b[2J'" in capsys.readouterr().err


def test_what_a_file_holds_does_not_matter(files: led.Files) -> None:
    ask(files, STOP)
    with (files.requests / STOP.file_name).open("wb") as stream:
        stream.truncate(2**40)
    assert Inbox(files).look() == [STOP]


def test_a_folder_that_is_a_link_is_neither_read_nor_emptied(
    files: led.Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "end").touch()
    files.requests.symlink_to(elsewhere)
    settle(files)
    assert (Inbox(files).look(), (elsewhere / "end").exists()) == ([], True)
    assert "no requests to steer are taken" in capsys.readouterr().err


def test_a_driver_looks_once_a_second(files: led.Files) -> None:
    times = iter([0.0, 0.0, 0.5, 1.0])
    inbox = Inbox(files, times.__next__)
    first = inbox.is_due()
    inbox.look()
    assert [first, inbox.is_due(), inbox.is_due()] == [True, False, True]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> led.Sweep:
    """Rates of which one has finished, one trains, one is stopped and one waits for its start; one with two
    seeds."""
    folder = tmp_path_factory.mktemp("steered") / "s"
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3, 0.25]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.start(tell.plan({"optim.lr": 2e-3}))
        stopped = tell.plan({"optim.lr": 4e-3})
        tell.start(stopped)
        tell.measure(stopped, BUDGET // 8, 5.0)
        tell.stop(stopped, BUDGET // 8, 5.0)
        tell.plan({"optim.lr": 0.25})
        tell.plan({"optim.lr": 0.25}, 1)
        tell.plan({}, role="run", label="arm seed=0", trial="arm")
        gone = tell.plan({}, role="run", label="arm seed=1", trial="gone")
        tell.ledger.append("steered", action="stop", trial=gone, tokens=0)
    return led.fold(led.read(led.Files(folder)))


@pytest.mark.parametrize("name", ["lr=0.002", "0.002", "id", "beginning of the id"])
def test_a_trial_is_found_by_its_label_its_id_or_a_part_of_them(
    sweep: led.Sweep, name: str
) -> None:
    wanted = next(one for one in sweep.trials.values() if one.label == "lr=0.002")
    asked = {"id": wanted.trial, "beginning of the id": wanted.trial[:8]}.get(name, name)
    assert find_trial(sweep.attempted, asked) is wanted


def test_a_label_is_meant_although_another_one_has_it_as_a_part(sweep: led.Sweep) -> None:
    assert find_trial(sweep.attempted, "lr=0.25").seed == 0


def test_a_part_that_several_have_is_told_with_all_of_them(sweep: led.Sweep) -> None:
    with pytest.raises(UsageError, match=r"several trials match: lr=0\.25 \(\w+\), lr=0\.25 "):
        find_trial(sweep.attempted, "0.25")


def test_a_trial_that_was_withdrawn_is_meant_only_if_no_other_is(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [0.25]}})
        tell.plan({"optim.lr": 0.25})
        tell.ledger.append("withdrawn", trial=tell.plan({"optim.lr": 0.25}, 1))
    every = led.fold(led.read(led.Files(tmp_path / "s"))).everything
    assert [find_trial(every, name).seed for name in ("0.25", "seed=1")] == [0, 1]


def test_a_part_of_a_number_is_no_trial(sweep: led.Sweep) -> None:
    with pytest.raises(UsageError, match=r"lr=0\.2: no such trial; did you mean 'lr=0\.25'"):
        find_trial(sweep.attempted, "lr=0.2")


def test_an_unknown_trial_is_told_with_the_nearest_one(sweep: led.Sweep) -> None:
    with pytest.raises(UsageError, match=r"lr=0\.022: no such trial; did you mean 'lr=0\.002'"):
        find_trial(sweep.attempted, "lr=0.022")


@pytest.mark.parametrize(
    ("name", "stop", "finish"),
    [
        ("lr=0.001", "it has finished", "it has finished"),
        ("lr=0.002", "", ""),
        ("lr=0.004", "it is stopped already", ""),
        ("lr=0.25", "", ""),
        ("arm seed=0", "", "it is trained to its end already"),
        ("arm seed=1", "it is stopped already", ""),
    ],
)
def test_what_can_be_asked_of_a_trial(sweep: led.Sweep, name: str, stop: str, finish: str) -> None:
    trial = find_trial(sweep.attempted, name)
    assert (why_not(trial, "stop"), why_not(trial, "finish")) == (stop, finish)
