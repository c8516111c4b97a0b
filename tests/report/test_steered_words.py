"""What somebody steered is told from what the policy decided, wherever reasons stand."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conducting import RETUNE, conduct, loss, steer, study
from fakes import grid
from ledgers import studied
from rich.console import Console

from sweeps.findings.everything import Reader, SearchFindings, StudyFindings, findings
from sweeps.ledger import Files, fold, read
from sweeps.report import log, page
from sweeps.report.answer import answer_words
from sweeps.report.next_steps import steps_of
from sweeps.report.summary import markdown
from sweeps.report.tables import trials_table
from sweeps.report.terminal import print_result

RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]
CAVEAT = (
    "2 of 6 trials were stopped by hand and 1 was trained to the end by hand. "
    "To train one after all: `sweeps steer s finish TRIAL`."
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A search whose worst rate is trained to its end; one rate is stopped at its first record, and one
    before it."""
    folder = tmp_path_factory.mktemp("results") / "s"
    conduct(folder, grid(RATES), loss, records=1)
    steer(folder, "stop", lambda one: one.value("optim.lr") in {1e-3, 2e-3})
    steer(folder, "finish", lambda one: one.value("optim.lr") == 3.2e-2)
    conduct(folder, grid(RATES), loss)
    return Files(folder)


@pytest.fixture(scope="module")
def found(files: Files) -> SearchFindings:
    one = findings(studied(files))
    assert isinstance(one, SearchFindings)
    return one


def terminal(found: SearchFindings) -> str:
    stream = io.StringIO()
    print_result(found, Console(file=stream, width=500))
    return stream.getvalue()


TEXTS: Mapping[str, Callable[[SearchFindings], str]] = {
    "answer": lambda found: "\n".join(answer_words(found)),
    "terminal": terminal,
    "summary": lambda found: markdown(found, []),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_answer_of_a_search_says_that_it_was_steered(found: SearchFindings, text: str) -> None:
    assert CAVEAT in TEXTS[text](found)


def test_the_log_says_so_and_how_many_of_those_that_stopped_early(files: Files) -> None:
    text = log.write(files.folder.parent, Reader()).read_text()
    assert CAVEAT in text
    assert "4 of 6 trials were stopped early, 2 of them by hand." in text


SAID = [
    "Next to it: 0.001 (stopped by hand), 0.008 (stopped early).",
    "3 trials were stable until they were stopped, 1 of them by hand.",
    "too few to fit a parabola. `--audit 1` trains 2 of the others to the end.",
    "2 finished, 2 stopped by hand, 2 stopped early.",
]


@pytest.mark.parametrize("words", SAID)
def test_the_summary_tells_the_policy_from_people(found: SearchFindings, words: str) -> None:
    assert words in markdown(found, [])


def test_nothing_is_said_of_an_audit_where_all_others_were_stopped_by_hand(tmp_path: Path) -> None:
    tree = grid(RATES[:3], policy="none")
    conduct(tmp_path / "s", tree, loss, records=1)
    steer(tmp_path / "s", "stop", lambda one: one.value("optim.lr") == 1e-3)
    conduct(tmp_path / "s", tree, loss)
    one = findings(studied(Files(tmp_path / "s")))
    text = markdown(one, [])
    assert "Only 2 of 3 rates were trained to the end, too few to fit a parabola.\n" in text


def test_the_terminal_tells_who_stopped_a_trial(found: SearchFindings) -> None:
    ends = {line.split()[0]: line for line in terminal(found).splitlines() if "lr=" in line}
    assert ends["lr=0.001"].endswith("stopped by hand")
    assert ends["lr=0.002"].endswith("stopped by hand")
    assert ends["lr=0.008"].rstrip().endswith("stopped early")


def test_the_table_of_trials_tells_who_decided(found: SearchFindings) -> None:
    rows = csv.DictReader(io.StringIO(trials_table(found.results).csv().decode()))
    reasons = {row["label"]: (row["status"], row["reason"]) for row in rows}
    assert reasons["lr=0.002"] == ("stopped", "stopped by hand")
    assert reasons["lr=0.032"] == ("finished", "trained to its end by hand")
    assert reasons["lr=0.008"][1].startswith("rank ")


def test_the_page_tells_who_stopped_a_trial_and_marks_where(found: SearchFindings) -> None:
    facts = {one.label: page._facts(found.results, one) for one in found.results.trials}
    marks = {one.label: page._marks(found.results, one) for one in found.results.trials}
    assert [facts[one]["by_hand"] for one in ("lr=0.001", "lr=0.008")] == ["stopped by hand", ""]
    assert marks["lr=0.001"][-1] == {"kind": "stopped", "tokens": 1024, "words": "stopped by hand"}


def test_a_value_that_was_stopped_before_its_first_record_is_none_of_those_tried(
    found: SearchFindings,
) -> None:
    (best,) = found.best
    assert found.answer.choice is not None
    assert (best.tried, best.lowest, found.answer.choice.among) == (5, 1e-3, 5)


def test_a_value_at_whose_side_nothing_was_trained_is_at_the_edge(tmp_path: Path) -> None:
    conduct(tmp_path / "s", grid(RATES[:3], policy="none"), loss, records=0)
    steer(tmp_path / "s", "stop", lambda one: one.value("optim.lr") == 1e-3)
    conduct(tmp_path / "s", grid(RATES[:3], policy="none"), lambda c, s: c["optim"]["lr"] - s)
    one = findings(studied(Files(tmp_path / "s")))
    assert isinstance(one, SearchFindings)
    assert (one.best[0].best, one.best[0].edge) == (2e-3, "low")


def test_a_baseline_whose_whole_grid_was_stopped_has_a_next_step_that_trains_it(
    tmp_path: Path,
) -> None:
    tree, folder = study(retune=RETUNE), tmp_path / "s"
    conduct(folder, tree, records=1)
    steer(folder, "stop", lambda one: one.arm == "baseline")
    conduct(folder, tree)
    found = findings(studied(Files(folder)))
    said = "The re-tune grid of baseline chose no values: 3 of 3 trials were stopped by hand."
    assert said in answer_words(found)
    trials = fold(read(Files(folder))).trials.values()
    furthest = max((t for t in trials if t.is_stopped_by_hand), key=lambda one: one.tokens)
    (step,) = steps_of(found)
    assert f"`sweeps steer s finish {furthest.trial}`" in step.words
    steer(folder, "finish", lambda one: one.arm == "baseline")
    conduct(folder, tree)
    done = findings(studied(Files(folder)))
    assert isinstance(done, StudyFindings) and done.comparison is not None
