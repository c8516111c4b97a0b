"""Where runs overfit or start too high, every verdict says so, and the advice is to mend that first."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conducting import doubtful, is_bare
from ledgers import read_often, starts_high, story
from rich.console import Console

from sweeps.findings.everything import Reader, StudyFindings
from sweeps.report import log
from sweeps.report.answer import answer_words
from sweeps.report.entries import Entry, entries_under
from sweeps.report.plots.arms import forest
from sweeps.report.terminal import print_comparison, print_experiments, print_result

DOUBTS = "and both overfitted, and it has a high loss at init"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose arms both overfit, and one of which starts too high."""
    folder = tmp_path_factory.mktemp("results")
    doubtful(folder / "s", "baseline", "nope")
    return folder


def printed(print_to: Callable[[Console], None]) -> str:
    stream = io.StringIO()
    print_to(Console(file=stream, width=1000))
    return stream.getvalue()


def logged(folder: Path) -> str:
    return log.write(folder, Reader()).read_text()


def line_of(text: str, beginning: str) -> str:
    """The only line of a text that begins like this."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(beginning)]
    return line


TEXTS: Mapping[str, Callable[[Path], str]] = {
    "list": lambda folder: printed(lambda c: print_experiments(entries_under(folder), c)),
    "compare": lambda folder: printed(lambda c: print_comparison(entries_under(folder), c)),
    "terminal": lambda folder: printed(lambda c: print_result(Reader().under(folder)[0], c)),
    "answer": lambda folder: "\n".join(answer_words(Reader().under(folder)[0])),
    "summary table": lambda folder: line_of(logged(folder), "| 2 |"),
    "ablations": lambda folder: line_of(logged(folder), "- `s/nope` ("),
    "recommendation": lambda folder: line_of(logged(folder), "- Not settled: `"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_verdict_on_doubtful_arms_says_so_wherever_it_stands(folder: Path, text: str) -> None:
    assert DOUBTS in TEXTS[text](folder)


def test_a_doubt_that_the_verdict_tells_is_not_told_again_in_per_cent(folder: Path) -> None:
    line = line_of(logged(folder), "- Comparison to baseline")
    assert "% validation loss (95% interval" in line
    assert "both overfitted" not in line


def test_the_loss_at_init_of_an_arm_stands_beside_its_verdict(folder: Path) -> None:
    verdict, caveats, *_ = answer_words(Reader().under(folder)[0])
    assert (verdict.partition(":")[0], caveats.partition(":")[0]) == ("nope", "Caveats of nope")
    assert "nats above ln V" in caveats


def test_the_forest_plot_says_so(folder: Path) -> None:
    (found,) = Reader().under(folder)
    assert isinstance(found, StudyFindings)
    words = [text.get_text() for text in forest(found).axes[0].texts]
    assert words == ["both overfitted and it has a high loss at init"]


def test_the_row_of_a_baseline_that_overfitted_says_so(folder: Path) -> None:
    assert line_of(logged(folder), "| 1 |").endswith("| Reference. It overfitted |")


def entry_of(folder: Path, name: str) -> Entry:
    return next(entry for entry in entries_under(folder) if entry.name == name)


def rules_of(entry: Entry) -> list[str]:
    """The rules of the next steps, in order."""
    return [step.partition(":")[0] for step in entry.next_steps]


def test_doubtful_arms_are_mended_before_anything_else_is_tried(folder: Path) -> None:
    """Without the doubts, the lowest rate of the grid would be one to re-tune."""
    assert rules_of(entry_of(folder, "s/nope")) == ["Overfitting", "Initialize"]


def test_an_arm_whose_baseline_alone_overfitted_is_not_re_tuned(tmp_path: Path) -> None:
    doubtful(tmp_path / "s", "baseline")
    assert rules_of(entry_of(tmp_path, "s/nope")) == ["Overfitting", "Initialize"]


def test_an_overfitted_best_is_not_run_with_more_seeds(tmp_path: Path) -> None:
    read_often(tmp_path / "a", {1e-3: 4.1174})
    assert rules_of(entry_of(tmp_path, "a")) == ["Overfitting"]


def test_a_best_that_starts_too_high_is_initialized_before_anything_else(tmp_path: Path) -> None:
    starts_high(tmp_path / "a")
    assert rules_of(entry_of(tmp_path, "a")) == ["Initialize"]


def test_an_edge_of_rates_says_nothing_where_the_best_starts_too_high(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        for lr, loss in ((1e-3, 3.0), (2e-3, 3.1)):
            trial = tell.plan({"optim.lr": lr})
            tell.start(trial)
            tell.measure(trial, 786_432, loss, loss_init=24.2)
            tell.finish(trial)
    assert rules_of(entry_of(tmp_path, "a")) == ["Initialize"]


def test_a_difference_within_the_scatter_asks_for_no_seeds_where_runs_overfitted(
    tmp_path: Path,
) -> None:
    """Without the doubts, more seeds would settle it."""

    def scattered(config: dict[str, Any], share: float) -> float:
        seed = config["run"]["seed"]
        own = (0.05 if seed % 2 else -0.01) * is_bare(config)
        return 3.0 + 0.01 * seed + own + (1 - share)

    doubtful(tmp_path / "s", "baseline", "nope", how=scattered)
    entry = entry_of(tmp_path, "s/nope")
    assert (
        entry.verdict
        == f"no conclusion yet: the difference is within the scatter over seeds, {DOUBTS}"
    )
    assert "More seeds" not in rules_of(entry)
