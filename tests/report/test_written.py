"""What people wrote, or changed in what a program wrote, is never overwritten without a copy."""

from pathlib import Path

import pytest
from ledgers import analyzed, lr_sweep, studied

from sweeps.findings.everything import Reader, findings
from sweeps.ledger import Files
from sweeps.report import index, log, paper
from sweeps.report.written import Written

OF_SWEEPS = [
    "analysis/summary.md",
    "analysis/report.html",
    "analysis/trials.csv",
    "analysis/paper/table.tex",
]
OF_ALL = ["index.html", "compare.html", "EXPERIMENT_LOG.html", "EXPERIMENT_LOG.md"]


def everything(lr: Files) -> None:
    """Write all that an analysis writes."""
    analyzed(lr)
    paper.write(lr, findings(studied(lr)))
    index.write_index(lr.folder.parent, Reader())
    log.write(lr.folder.parent, Reader())


@pytest.fixture
def lr(tmp_path: Path) -> Files:
    return lr_sweep(tmp_path / "lr-cpu")


def copies(lr: Files) -> dict[str, str]:
    """The copies under the results folder."""
    found = lr.folder.parent.rglob("*.bak*")
    return {str(one.relative_to(lr.folder.parent)): one.read_text() for one in found}


@pytest.mark.fault(
    "files of people that an analysis would overwrite", "a copy of each, which is said"
)
def test_what_people_wrote_is_kept_as_a_copy(lr: Files, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"lr-cpu/{name}" for name in OF_SWEEPS] + OF_ALL
    for name in names:
        path = lr.folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    everything(lr)
    assert copies(lr) == {f"{name}.bak": "mine" for name in names}
    assert capsys.readouterr().err.count("was not written by this program") == len(names)


def test_what_a_program_wrote_gets_no_copy(lr: Files) -> None:
    everything(lr)
    everything(lr)
    assert copies(lr) == {}


@pytest.mark.fault("changes of people in what an analysis wrote", "a copy of each, which is said")
def test_what_people_changed_is_kept_as_a_copy(lr: Files) -> None:
    everything(lr)
    names = [f"lr-cpu/{name}" for name in OF_SWEEPS] + OF_ALL
    changed = {}
    for name in names:
        path = lr.folder.parent / name
        changed[f"{name}.bak"] = path.read_text().replace("\n", "\nmine\n", 1)
        path.write_text(changed[f"{name}.bak"])
    everything(lr)
    assert copies(lr) == changed


def test_what_an_older_version_wrote_gets_no_copy(lr: Files) -> None:
    """One that kept no digests; its files had other words."""
    everything(lr)
    lr.written.unlink()
    lr.results.written.unlink()
    for name in OF_SWEEPS + OF_ALL[:3]:
        path = (lr.folder if name in OF_SWEEPS else lr.folder.parent) / name
        path.write_text(path.read_text() + "old")
    everything(lr)
    assert copies(lr) == {}


def test_a_note_in_the_log_is_no_change_of_the_log(lr: Files) -> None:
    everything(lr)
    path = lr.results.log
    text = path.read_text().replace("\n<!-- end of notes", "\nmine\n<!-- end of notes", 1)
    path.write_text(text)
    everything(lr)
    assert (copies(lr), "mine" in path.read_text()) == ({}, True)


def test_a_list_that_is_cut_off_or_a_link_keeps_nobodys_file(lr: Files, tmp_path: Path) -> None:
    """A crash cuts its last line; who plants a link can make no other file grow."""
    everything(lr)
    lr.written.write_bytes(lr.written.read_bytes()[:-9])
    everything(lr)
    everything(lr)
    assert len(list(lr.folder.rglob("*.bak"))) <= 1  # of the file whose line was cut off
    (tmp_path / "other").write_text("other")
    lr.written.unlink()
    lr.written.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic link"):
        everything(lr)
    assert (tmp_path / "other").read_text() == "other"


def test_the_list_of_what_was_written_is_shortened(lr: Files) -> None:
    everything(lr)
    lr.written.write_text(lr.written.read_text() + "0  analysis/gone\n" * 10_000)
    everything(lr)
    assert lr.written.stat().st_size < 20_000
    assert copies(lr) == {}


def test_a_first_analysis_of_this_version_that_was_cut_off_keeps_its_own_files(lr: Files) -> None:
    everything(lr)
    paths = sorted(lr.analysis.iterdir())
    lr.written.unlink()
    Written(lr.written, earlier=True, folder=lr.analysis).adopt(paths[:1] + paths)
    everything(lr)
    assert copies(lr) == {}


def test_what_another_process_wrote_meanwhile_is_known(tmp_path: Path) -> None:
    here, there = (Written(tmp_path / ".written", earlier=False) for _ in range(2))
    here.write(tmp_path / "a", b"one")
    there.write(tmp_path / "a", b"two")
    there.write(tmp_path / "b", b"three")
    assert here.is_own(tmp_path / "a") and here.is_own(tmp_path / "b")


def test_a_list_that_was_removed_or_written_anew_is_read_anew(tmp_path: Path) -> None:
    own = Written(tmp_path / ".written", earlier=False)
    own.write(tmp_path / "a", b"one")
    (tmp_path / ".written").unlink()
    assert not own.is_own(tmp_path / "a")
    own.write(tmp_path / "b", b"two")
    assert own.is_own(tmp_path / "b") and not own.is_own(tmp_path / "a")
