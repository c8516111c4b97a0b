"""Tables and figures for a paper: embedded fonts, a column's width, captions with n, tokens, intervals."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, conduct, noisy, study
from ledgers import BUDGET, ended, lr_sweep, story, studied

from sweeps.findings.everything import StudyFindings, findings
from sweeps.ledger import Files
from sweeps.report import paper
from sweeps.report.tables import arms_table


def written(files: Files) -> Path:
    return paper.write(files, findings(studied(files)))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(lr_sweep(tmp_path_factory.mktemp("search") / "lr-cpu"))


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "nope-cpu"
    conduct(folder, study(retune=RETUNE), lambda c, s: noisy(c, s, 0.25, 1.0))
    return written(Files(folder))


def test_every_figure_has_a_file_and_a_caption(search: Path) -> None:
    named = re.findall(r"\{(\w+\.pdf)\}", (search / "figures.tex").read_text())
    assert sorted(named) == sorted(path.name for path in search.glob("*.pdf"))
    assert "loss_vs_lr.pdf" in named


def test_fonts_are_embedded_as_outlines(search: Path) -> None:
    content = (search / "loss_vs_lr.pdf").read_bytes()
    assert (b"/FontFile2" in content, b"/Type3" in content) == (True, False)


def test_a_figure_is_as_wide_as_a_column(search: Path) -> None:
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", (search / "loss_by_tokens.pdf").read_bytes())
    assert box is not None and float(box[1]) == pytest.approx(3.25 * 72)


def test_the_same_ledger_gives_the_same_files(tmp_path: Path) -> None:
    files = ended(tmp_path / "lr-cpu", "optim.lr", {1e-3: 3.0, 2e-3: 3.1})
    before = {path.name: path.read_bytes() for path in written(files).iterdir()}
    assert {path.name: path.read_bytes() for path in written(files).iterdir()} == before


def test_the_table_of_a_search_has_means_and_intervals_over_seeds(tmp_path: Path) -> None:
    losses = {1e-3: (3.0, 3.2), 2e-3: (2.9, 2.9), 4e-3: (3.5,)}
    table = written(ended(tmp_path / "lr-cpu", "optim.lr", losses)) / "table.md"
    assert table.read_text().splitlines()[2:5] == [
        f"| lr=0.002 | 2 | {BUDGET:,} | 2.9000 | 2.9000 to 2.9000 |",
        f"| lr=0.001 | 2 | {BUDGET:,} | 3.1000 | 1.8294 to 4.3706 |",
        f"| lr=0.004 | 1 | {BUDGET:,} | 3.5000 |  |",
    ]


def test_the_caption_of_a_search_says_n_tokens_and_intervals(search: Path) -> None:
    text = (search / "table.tex").read_text()
    assert (
        r"\caption{Which peak learning rate is best? The validation loss (nats per token)" in text
    )
    assert "at 786,432 tokens, the mean over n seeds with its 95\\% t interval" in text
    assert "Not shown: 6 trials of 8 that did not finish." in text


def test_the_caption_of_a_figure_says_n_and_tokens(search: Path) -> None:
    counted = "n = 8 trials on 1 seed, of which 2 finished, compared at 786,432 tokens."
    assert (search / "figures.tex").read_text().count(counted) == len(list(search.glob("*.pdf")))


def test_the_table_of_a_study_has_a_row_for_each_arm(arms: Path) -> None:
    lines = (arms / "table.md").read_text().splitlines()
    assert lines[2].startswith("| baseline | 2 | 3.0050 |")
    words = "worse by 0.2500 nats per token (95% interval 0.1229 to 0.3771)"
    assert lines[3] == f"| nope | 2 | 3.2550 | +0.2500 | 0.1229 to 0.3771 | 0.025 | {words} |"


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> StudyFindings:
    """A study of two arms whose second was settled at level 10%."""
    folder = tmp_path_factory.mktemp("later") / "nope-cpu"
    also = {"hypothesis": "Worse.", "set": {"model.position": "learned"}}

    def how(config: dict[str, Any], share: float) -> float:
        more = 0.2 + config["run"]["seed"] / 100
        return noisy(config, share, 0.25, 1.0) + more * (config["model"]["position"] == "learned")

    conduct(folder, study(arms={"nope": NOPE, "also": also}), how)
    found = findings(studied(Files(folder)))
    assert isinstance(found, StudyFindings) and found.comparison is not None
    baseline, nope, also_found = found.comparison.arms
    nope = replace(nope, level=10, verdict=replace(nope.verdict, detail="at level 10%"))
    arms = (baseline, nope, also_found)
    return replace(found, comparison=replace(found.comparison, arms=arms))


def test_the_table_says_which_interval_is_of_which_kind(later: StudyFindings) -> None:
    table = paper.paper_table(later)
    assert table.columns[4] == "95% interval or 90% interval"
    assert [row[4].partition(" (")[2] for row in table.rows] == [
        "",
        "90% interval)",
        "95% interval)",
    ]


def test_the_table_has_the_whole_verdict(later: StudyFindings) -> None:
    assert paper.paper_table(later).rows[1][-1].endswith(": at level 10%")


@pytest.mark.parametrize("name", ["arms", ""])
def test_intervals_that_allow_for_looks_are_not_called_t_intervals(
    later: StudyFindings, name: str
) -> None:
    words = paper.caption(later, name) if name else paper.paper_table(later).caption
    assert "95% interval or 90% interval, which allows for all looks" in words
    assert "t interval" not in words


def test_arms_csv_has_the_level_of_each_verdict(later: StudyFindings) -> None:
    assert later.comparison is not None
    assert [row["level"] for row in arms_table(later.comparison).rows] == [None, 10, 5]


def test_re_tuning_is_counted_apart(arms: Path) -> None:
    text = (arms / "figures.tex").read_text()
    counts = re.findall(r"n = (\d+) trials on .*?\\label\{fig:(\w+)\}", text, re.DOTALL)
    assert {name: number for number, name in counts}["arms"] == "4"
    assert {name: number for number, name in counts}["retuning"] == "6"


def test_latex_shows_what_is_written() -> None:
    assert paper._latex("50% of a_b & $x^2$ {~}\\ #1 < 2\nend") == (
        r"50\% of a\_b \& \$x\textasciicircum{}2\$ \{\textasciitilde{}\}\textbackslash{} \#1 "
        r"\textless{} 2 end"
    )


def test_a_sweep_without_a_result_has_an_empty_table(tmp_path: Path) -> None:
    with story(tmp_path / "lr-cpu") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    text = (written(Files(tmp_path / "lr-cpu")) / "table.md").read_text()
    assert len(text.splitlines()) == 4
    assert "Not shown: 1 trial of 1 that did not finish." in text
