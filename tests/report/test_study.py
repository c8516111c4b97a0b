"""The table, summary and figures of a study."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from conducting import (
    RETUNE,
    SEEDS,
    conduct,
    loss,
    noisy,
    study,
)
from ledgers import analyzed, points, studied

from sweeps import ledger as led
from sweeps.findings.everything import findings
from sweeps.report import analysis, summary
from sweeps.report.plots import figures
from sweeps.report.plots.look import CROSSES


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> analysis.Analysis:
    """The analysis of a re-tuned study."""
    folder = tmp_path_factory.mktemp("studies") / "positions"
    conduct(folder, study(seeds=SEEDS, retune=RETUNE))
    return analyzed(led.Files(folder))


def read(written: analysis.Analysis, name: str) -> str:
    return next(path for path in written.paths if path.name == name).read_text()


def test_arms_csv_has_a_row_an_arm(written: analysis.Analysis) -> None:
    rows = list(csv.DictReader(read(written, "arms.csv").splitlines()))
    assert [(row["arm"], row["chosen"], row["n"]) for row in rows] == [
        ("baseline", "lr=0.004", "4"),
        ("nope", "lr=0.001", "4"),
    ]
    assert float(rows[1]["low"]) < float(rows[1]["difference"]) < float(rows[1]["high"])


def test_the_summary_says_verdict_hypothesis_and_noise(written: analysis.Analysis) -> None:
    said = read(written, "summary.md")
    assert "worse by 0." in said and "- `nope`: Worse." in said
    assert "The noise (standard deviation of a run over seeds) is 0." in said


def test_every_table_of_a_study_has_as_many_cells_as_headers(written: analysis.Analysis) -> None:
    tables = read(written, "summary.md").split("\n\n")
    widths = [{line.count("|") for line in t.splitlines()} for t in tables if t.startswith("|")]
    assert len(widths) == 4 and all(len(each) == 1 for each in widths)


def test_a_study_draws_arms_grids_and_curves(written: analysis.Analysis) -> None:
    stems = {path.stem for path in written.paths if path.suffix == ".svg"}
    assert stems == {"arms", "retuning", "loss_by_step", "loss_by_tokens", "loss_by_seconds"}


def diverging_at_the_highest_rate(config: dict[str, Any], share: float) -> float:
    return math.inf if config["optim"]["lr"] == 1.6e-2 else loss(config, share)


def test_the_crosses_of_arms_that_diverge_at_one_rate_lie_apart(tmp_path: Path) -> None:
    conduct(tmp_path, study(retune=RETUNE), diverging_at_the_highest_rate)
    axes = figures(findings(studied(led.Files(tmp_path))))["retuning"].axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == CROSSES["non-finite"]]
    spots = [points(line)[0] for line in crosses]
    assert len(set(spots)) == 2 and {x for x, _ in spots} == {1.6e-2}


def test_many_arms_look_unlike_each_other(tmp_path: Path) -> None:
    arms = {f"w{n}": {"hypothesis": "h", "set": {"model.d_ff": 8 * n}} for n in range(1, 10)}
    conduct(tmp_path, study(arms=arms, retune=RETUNE))
    drawn = figures(findings(studied(led.Files(tmp_path))))
    marks = {
        (line.get_color(), line.get_linestyle(), line.get_marker())
        for line in drawn["retuning"].axes[0].lines
        if line.get_linewidth() > 1
    }
    lines = {
        (line.get_color(), line.get_linestyle()) for line in drawn["loss_by_step"].axes[0].lines
    }
    assert (len(marks), len(lines)) == (10, 10)


def test_a_long_arm_name_is_shown_whole(tmp_path: Path) -> None:
    name = "feed_forward_network_twice_as_wide_as_that"
    arms = {name: {"hypothesis": "h", "set": {"model.d_ff": 96}}}
    conduct(tmp_path, study(arms=arms))
    labels = figures(findings(studied(led.Files(tmp_path))))["arms"].axes[0].get_yticklabels()
    assert [label.get_text().replace("\n", "") for label in labels] == [name]


@pytest.mark.parametrize("records", [0, 1, 9, 30, 60])
def test_an_unfinished_study_has_figures_and_a_summary(tmp_path: Path, records: int) -> None:
    conduct(tmp_path, study(retune=RETUNE), records=records)
    found = findings(studied(led.Files(tmp_path)))
    assert {"arms", "loss_by_tokens"} <= set(figures(found))
    assert "## Arms" in summary.markdown(found, [])


POWER = "With 'N more seeds', the chance of detecting"


def test_the_chance_of_a_detection_stands_beside_a_verdict_that_names_more_seeds(
    tmp_path: Path,
) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2]), lambda c, s: noisy(c, s, gap=0.005, apart=1.0))
    said = summary.markdown(findings(studied(led.Files(tmp_path))), [])
    assert "more seeds would settle" in said and POWER in said


def test_the_chance_of_a_detection_is_not_told_where_no_verdict_names_more_seeds(
    tmp_path: Path,
) -> None:
    conduct(tmp_path, study(seeds=[0, 1, 2]), lambda c, s: noisy(c, s, gap=0.5, apart=1.0))
    said = summary.markdown(findings(studied(led.Files(tmp_path))), [])
    assert "| worse by" in said and POWER not in said


def test_a_study_of_values_draws_the_loss_against_them(tmp_path: Path) -> None:
    each = {"path": "optim.batch_size", "values": [4, 8, 16], "hypothesis": "h"}
    tree = {k: v for k, v in study(each=each).items() if k != "arms"}
    conduct(tmp_path, tree)
    figure = figures(findings(studied(led.Files(tmp_path))))["loss_vs_value"]
    left, right = figure.axes
    assert [x for x, _ in points(left.lines[0])] == [4, 8, 16]
    assert right.get_xlabel().startswith("training time")
