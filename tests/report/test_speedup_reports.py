"""What arms are worth stands in tables, figures, the page and the log."""

import csv
import itertools
from pathlib import Path

import pytest
from conducting import conduct, study, worth
from ledgers import studied

import sweeps
from sweeps.findings.everything import Reader, StudyFindings, findings
from sweeps.ledger import Files
from sweeps.report import log, paper
from sweeps.report.page import page
from sweeps.report.plots import arms as drawn
from sweeps.report.speedup import ticks
from sweeps.report.tables import ARMS, arms_table, trials_table

NEW = ("speedup", "speedup_low", "speedup_high", "speedup_time")


def told(folder: Path, times: float = 1.25) -> StudyFindings:
    """A study whose arm has the loss of the baseline at this many times the tokens."""
    conduct(folder, study(speedup={"seeds": 3}) | {"seeds": [0, 1, 2, 3]}, worth(times))
    found = findings(studied(Files(folder)))
    assert isinstance(found, StudyFindings)
    return found


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> StudyFindings:
    """A study whose arm is worth 1.25 times its tokens."""
    return told(tmp_path_factory.mktemp("results") / "worth")


def test_the_table_of_arms_has_the_speedup_and_its_interval(better: StudyFindings) -> None:
    assert better.comparison is not None
    table = arms_table(better.comparison)
    assert table.columns == (*ARMS, *NEW)
    assert table.rows[1]["speedup"] == pytest.approx(1.25, rel=1e-3)
    assert table.rows[1]["speedup_low"] < 1.25 < table.rows[1]["speedup_high"]


def test_the_table_of_trials_tells_runs_at_other_horizons_from_those_of_the_baseline(
    better: StudyFindings,
) -> None:
    rows = trials_table(better.results).rows
    roles = {(row["role"], row["tokens"]) for row in rows if row["arm"] == "baseline"}
    assert roles == {("run", 8192), ("horizon", 4096), ("horizon", 16384)}


def test_the_baseline_has_empty_cells(better: StudyFindings) -> None:
    assert better.comparison is not None
    lines = arms_table(better.comparison).csv().decode().splitlines()
    first = next(csv.DictReader(lines))
    assert [first[name] for name in NEW] == [""] * 4


def test_a_study_without_a_speedup_has_the_columns_that_it_had(tmp_path: Path) -> None:
    conduct(tmp_path, study(), worth(1.25))
    found = findings(studied(Files(tmp_path)))
    assert isinstance(found, StudyFindings) and found.comparison is not None
    assert arms_table(found.comparison).columns == ARMS


def test_python_reads_the_speedup(tmp_path: Path) -> None:
    told(tmp_path)
    table = sweeps.load(tmp_path).arms.set_index("arm")
    assert table.loc["nope", "speedup"] == pytest.approx(1.25, rel=1e-3)


def test_the_forest_plot_has_an_axis_of_speedups(better: StudyFindings) -> None:
    (top,) = drawn.forest(better).axes[0].child_axes
    assert top.get_xlabel() == "token speedup"
    assert "1x" in [label.get_text() for label in top.get_xticklabels()]


def test_the_forest_plot_of_another_study_has_one_axis(tmp_path: Path) -> None:
    conduct(tmp_path, study(), worth(1.25))
    found = findings(studied(Files(tmp_path)))
    assert isinstance(found, StudyFindings)
    assert drawn.forest(found).axes[0].child_axes == []


def test_a_tick_stands_where_the_baseline_has_its_loss(better: StudyFindings) -> None:
    compared = better.comparison
    assert compared is not None and compared.scaling is not None
    found = {name: at for at, name in ticks(compared, -0.5, 0.5)}
    assert found["1x"] == 0
    assert found["2x"] == pytest.approx(-compared.scaling.law.below)
    assert found["0.5x"] == pytest.approx(compared.scaling.law.above)


def test_ticks_are_apart(better: StudyFindings) -> None:
    assert better.comparison is not None
    found = [at for at, _ in ticks(better.comparison, -0.5, 0.5)]
    assert min(b - a for a, b in itertools.pairwise(found)) >= 1 / 12


def test_the_page_has_the_speedup_and_where_the_others_stand(better: StudyFindings) -> None:
    content = page(better)
    assert content["arms"][1]["speedup"].startswith("1.25x (95% interval 1.2")
    assert "1x" in [tick["name"] for tick in content["speedups"]]


def test_the_paper_table_has_the_speedup(better: StudyFindings) -> None:
    table = paper.paper_table(better)
    column = table.columns.index("speedup")
    assert [row[column][:5] for row in table.rows] == ["", "1.25x"]
    assert "token speedup" in table.caption


def test_the_log_says_what_an_arm_is_worth(tmp_path: Path) -> None:
    told(tmp_path / "worth")
    written = log.write(tmp_path, Reader()).read_text()
    assert "- Token speedup: 1.25x (95% interval" in written
    assert written.count("Token speedup") == 1
