"""The summary puts the facts into words, and adds none."""

import io
import re
from pathlib import Path

import pytest
from ledgers import (
    BASE,
    BUDGET,
    EVERY,
    FIRST,
    audited_seeds,
    audited_sweep,
    bowl,
    ended,
    read_often,
    story,
    studied,
    two_draws,
)
from rich.console import Console

from sweeps.findings.everything import findings
from sweeps.ledger import Files
from sweeps.report import summary
from sweeps.report.answer import ONE_SEED
from sweeps.report.entries import entries_under
from sweeps.report.markdown import escaped
from sweeps.report.terminal import broken, print_experiment, print_result


def words(files: Files) -> str:
    """summary.md of a sweep."""
    return summary.markdown(findings(studied(files)), [])


def test_an_unfinished_sweep_says_so(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.plan({"optim.lr": 2e-3})
    assert "**unfinished:** results for 1 of 2 trials" in words(Files(tmp_path))


def test_a_sweep_that_has_measured_nothing_has_a_summary(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    assert "No trial has finished." in words(Files(tmp_path))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("two\nlines", "two lines"),
        ("`code` *x*", r"\`code\` \*x\*"),
    ],
)
def test_text_stays_text_in_markdown(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_every_table_of_the_summary_has_as_many_cells_as_headers(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3}, label="a|b")
        tell.start(trial)
        tell.fail(trial, "x | y\nz")
    lines = [line for line in words(Files(tmp_path)).splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {7}


def test_sizes_stand_in_the_tables_where_the_models_differ(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"model.n_layers": {"grid": [2, 4]}})
        tell.whole(tell.plan({"model.n_layers": 2}, params=700_000), 2e-3)
        tell.whole(tell.plan({"model.n_layers": 4}, params=1_300_000), 2e-3)
    assert "| parameters | FLOPs/token |" in words(Files(tmp_path))


def test_the_summary_says_that_an_edge_need_not_be_the_optimum(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", bowl([1e-3, 2e-3, 4e-3], 4e-3))
    assert "the optimum may lie beyond it.**" in words(files)


def test_what_a_stopped_neighbor_would_have_become_is_not_known(lr: Files) -> None:
    assert "Next to it: 0.001 (finished), 0.004 (stopped early). A stopped neighbor might" in words(
        lr
    )


def test_one_finished_trial_is_the_lowest_of_nothing(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: 3.0})
    assert "**lr=0.001: validation loss 3.0000 nats per token" in words(files)


def test_one_seed_is_said_in_words(lr: Files) -> None:
    assert ONE_SEED in words(lr)


def test_several_seeds_are_not_called_one(tmp_path: Path) -> None:
    files = ended(tmp_path, "model.norm", {"pre": (3.0, 3.01), "post": (3.02, 3.03)})
    assert ONE_SEED not in words(files)


LR = "optim.lr"


def printed(files: Files, width: int = 80) -> str:
    """The ranking as a terminal shows it."""
    stream = io.StringIO()
    print_result(findings(studied(files)), Console(file=stream, width=width))
    return stream.getvalue()


def test_a_question_of_several_lines_is_one_in_the_terminal(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({LR: {"grid": [1e-3]}}, "Which?\n\nlr=1: the best of all.")
    first = printed(Files(tmp_path / "s")).splitlines()[0]
    assert first == "Which? lr=1: the best of all."


def test_an_experiment_whose_why_has_several_lines_is_shown_with_one(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({LR: {"grid": [1e-3]}}, "Which?\nverdict   better by 0.5")
        tell.whole(tell.plan({LR: 1e-3}), 1e-3)
    stream = io.StringIO()
    print_experiment(entries_under(tmp_path)[0], Console(file=stream, width=200))
    assert "Which? verdict better by 0.5" in stream.getvalue()


def test_every_trial_is_one_line_of_80_columns(lr: Files) -> None:
    lines = [line for line in printed(lr).splitlines()[2:10] if "lr=" in line]
    assert (len(lines), max(map(len, lines)) <= 80) == (8, True)


def test_the_line_of_a_diverged_trial_names_its_step(lr: Files) -> None:
    line = next(line for line in printed(lr).splitlines() if "lr=0.032" in line)
    assert line.split()[-4:] == ["diverged", "at", "step", "28"]


def test_the_ranking_is_printed_with_the_finished_trials_first(lr: Files) -> None:
    rates = re.findall(r"(?m)^ .* lr=([0-9.]+)", printed(lr))
    assert rates == ["0.002", "0.001", "0.004", "0.008", "0.0005", "0.00025", "0.016", "0.032"]


def test_the_last_line_compares_what_was_used_with_the_forecast(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        expected = {
            "tokens": 2 * BUDGET,
            "low": BUDGET,
            "high": 2 * BUDGET,
            "seconds": 90.0,
            "start_up": 8.0,
        }
        tell.ledger.append("forecast", **expected, occupancy={}, basis="made up")
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    last = printed(Files(tmp_path)).splitlines()[-1]
    assert last.endswith("786k tokens. Forecast: 98 s with start-up, 1.57M tokens."), last


def test_a_label_is_no_markup(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"data.path": {"grid": ["[red]"]}}, metric="bits_per_byte")
        tell.plan({"optim.lr": 1e-3}, label="path=[red]")
    assert "path=[red]" in printed(Files(tmp_path))


def test_what_is_not_printed_is_counted(tmp_path: Path) -> None:
    assert "and 6 more" in printed(two_draws(tmp_path, 30))


def test_an_audit_says_its_rate_with_the_interval_and_what_it_implies(tmp_path: Path) -> None:
    said = words(audited_sweep(tmp_path, {2.0: 2.75, 3.0: 3.5, 4.0: 3.6}, audited=2))
    assert "2 of 3 stopped trials, drawn at random, were trained to the end" in said
    assert "a false-kill rate of 50% (95% interval 1% to 99%)" in said
    assert "The best of them ends 0.2500 below the best ranked trial." in said


def test_the_seeds_of_an_audited_value_are_told_as_one(tmp_path: Path) -> None:
    said = words(audited_seeds(tmp_path, {0: 3.0, 1: 3.0}, {0: 2.0, 1: 3.5}, by_value=True))
    assert "1 of 1 value would have been the best, a false-kill rate of 100%" in said


def test_an_audit_in_which_alone_something_finished_is_told(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        kept, stopped = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3))
        tell.start(kept)
        tell.diverge(kept, EVERY)
        tell.start(stopped)
        tell.measure(stopped, FIRST, 5.0)
        tell.stop(stopped, FIRST, 5.0)
        audit = f"{stopped}-audit"
        tell.ledger.append("audited", trial=audit, of=stopped, stopped=1, share=1.0)
        tell.start(audit, FIRST // BASE.tokens_per_step)
        tell.measure(audit, BUDGET, 3.0)
        tell.finish(audit)
    said = words(Files(tmp_path))
    assert "Only stopped trials finished, in an audit: lr=0.002 ended at 3.0000." in said
    assert "1 of 1 stopped trial was trained to the end, but not ranked." in said


def test_an_audit_that_finds_nothing_says_so(tmp_path: Path) -> None:
    said = words(audited_sweep(tmp_path, {2.0: 3.5}))
    assert "None ends below the best ranked trial." in said


def test_the_forecast_stands_beside_what_was_used(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        row = {
            "low": 1,
            "high": 2,
            "seconds": None,
            "basis": "replay of 8 curves of earlier sweeps",
        }
        tell.ledger.append("forecast", tokens=393_216, **row)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    said = words(Files(tmp_path))
    assert "(replay of 8 curves of earlier sweeps) was 393,216 tokens" in said
    assert "The sweep used 786,432 (+100%)." in said


def extended(folder: Path, *, ended: bool = True) -> Files:
    """A sweep of two rates, of which one was replaced by another; each plan was forecast."""
    row = {"seconds": 60.0, "start_up": 8.0, "basis": "made up"}
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.ledger.append("forecast", tokens=BUDGET, low=BUDGET, high=BUDGET, **row)
        gone, kept = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3))
        tell.whole(gone, 1e-3)
        tell.whole(kept, 2e-3)
        tell.ask({"optim.lr": {"grid": [2e-3, 4e-3]}})
        half = BUDGET + BUDGET // 2
        tell.ledger.append("forecast", tokens=half, low=BUDGET, high=2 * BUDGET, **row)
        tell.ledger.append("withdrawn", trial=gone)
        new = tell.plan({"optim.lr": 4e-3})
        if ended:
            tell.whole(new, 4e-3)
        else:
            tell.start(new)
            tell.measure(new, FIRST, 5.0)
    return Files(folder)


def test_the_forecast_of_a_changed_sweep_is_compared_with_what_was_used_since(
    tmp_path: Path,
) -> None:
    files = extended(tmp_path)
    said = words(files)
    assert (
        "When the sweep was last changed, its trials had been trained on 786,432 tokens. The forecast (made up) "
        "was 393,216 more (0 to 786,432). Since then it used 786,432 (+100%). The sweep took "
    ) in said
    assert " s, including withdrawn trials.\n" in said
    assert "Trained on 1,572,864 tokens, 100% of the 1,572,864 tokens that" in said
    assert "Trials that the space no longer has used 786,432 more tokens." in said
    assert printed(files).endswith(
        ", 1.57M tokens, and 786k in withdrawn trials. Of these, 786k since the last change of the "
        "sweep; forecast for it: 393k tokens.\n"
    )


def test_what_an_unfinished_sweep_used_is_no_miss_of_its_forecast(tmp_path: Path) -> None:
    said = words(extended(tmp_path, ended=False))
    assert f"Since then it has used {FIRST:,} so far. The sweep has taken " in said


def test_decayed_scores_stand_where_they_decided(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        for rate, raw, decayed in [(1e-3, 5.0, 4.25), (2e-3, 4.5, 4.375)]:
            trial = tell.plan({"optim.lr": rate})
            tell.start(trial)
            tell.measure(trial, FIRST, raw, decayed_val_loss=decayed)
            if rate == 1e-3:
                tell.measure(trial, BUDGET, 3.0)
                tell.finish(trial)
            else:
                tell.stop(trial, FIRST, decayed)
    said = words(Files(tmp_path))
    assert "after a decay branch" in said
    assert "| 4.5000 | 5.0000 | 4.3750 | 4.2500 |" in said


def test_a_finished_trial_that_overfitted_says_so_in_the_terminal(tmp_path: Path) -> None:
    text = " ".join(printed(read_often(tmp_path, {1e-3: 4.1174, 2e-3: 3.4})).split())
    assert "4.1174" in text and "finished, overfitted" in text
    assert "1 of 2 trials overfitted" in text
    assert "Its lowest validation loss was 3.4718, at 196,608 tokens; it ended at 4.1174." in text
    assert "Each trial reads the training text (19,660 tokens) about 40 times." in text


def test_the_summary_has_the_gap_where_the_loss_was_lowest_and_at_the_end(tmp_path: Path) -> None:
    text = summary.markdown(findings(studied(read_often(tmp_path, {1e-3: 4.1174}))), [])
    assert "| lr=0.001 | 3.4718 | 196,608 | +0.1718 | 4.1174 | 786,432 | +2.1174 |" in text


def test_a_stopped_trial_that_blew_up_is_told_apart(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 10.0]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        hot = tell.plan({"optim.lr": 10.0})
        tell.start(hot)
        tell.measure(hot, FIRST, 60.0)
        tell.stop(hot, FIRST, 60.0)
    found = findings(studied(Files(tmp_path)))
    stream = io.StringIO()
    print_result(found, Console(file=stream, width=500))
    assert "stopped early, blown up" in stream.getvalue()
    stopped = summary.markdown(found, []).partition("## Stopped early")[2].partition("##")[0]
    assert "| blown up |" in stopped


TWO_SEEDS = {1e-3: (3.0, 3.4), 2e-3: (3.1, 3.1), 4e-3: (3.5, 3.5)}


def test_values_are_ranked_by_the_mean_over_their_seeds(tmp_path: Path) -> None:
    """The single best run is one of 0.001, whose mean is 3.2."""
    rows = re.findall(
        r"^ +(\d) +lr=(\S+) +(\d) +(\S+) +(\S+)",
        printed(ended(tmp_path, LR, TWO_SEEDS)),
        re.MULTILINE,
    )
    assert rows == [
        ("1", "0.002", "2", "3.1000", "0.0000"),
        ("2", "0.001", "2", "3.2000", "0.2828"),
        ("3", "0.004", "2", "3.5000", "0.0000"),
    ]


def test_the_summary_has_a_line_for_each_value_with_its_spread(tmp_path: Path) -> None:
    text = words(ended(tmp_path, LR, TWO_SEEDS))
    assert "| 1 | lr=0.002 | 2 of 2 | 3.1000 | 0.0000 | 3.1000 | 3.1000 | 0.0000 |" in text
    assert "| 2 | lr=0.001 | 2 of 2 | 3.2000 | 0.2828 | 3.0000 | 3.4000 | 0.1000 |" in text


def test_a_value_with_fewer_finished_seeds_comes_last(tmp_path: Path) -> None:
    """As in the answer: its one seed may have been lucky."""
    text = words(ended(tmp_path, LR, {1e-3: (2.0,), 2e-3: (3.1, 3.1)}))
    assert "| 2 | lr=0.001 | 1 of 1 | 2.0000 |  | 2.0000 | 2.0000 | -1.1000 |" in text
    assert "Values with fewer finished seeds come last." in text
    assert "**lr=0.002 is the best of 2" in text


def test_with_one_seed_there_are_no_values_beside_the_trials(tmp_path: Path) -> None:
    assert "## Finished values" not in words(ended(tmp_path, LR, {1e-3: 3.0, 2e-3: 3.1}))


def test_of_several_seeds_an_unfinished_sweep_names_the_value_that_leads(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({LR: {"grid": [1e-3, 2e-3]}})
        for rate, losses in {1e-3: (3.0, 3.4), 2e-3: (3.1, 3.1)}.items():
            for seed, loss in enumerate(losses):
                trial = tell.plan({LR: rate}, seed)
                tell.start(trial)
                tell.measure(trial, EVERY, loss)
    said = f"At {EVERY:,} tokens, lr=0.002 has the lowest of 2 mean losses so far: 3.1000 nats per token"
    assert f"{said} (mean over 2 seeds)." in words(Files(tmp_path))


def test_lines_break_between_words_and_never_within_a_command() -> None:
    command = "`python -m sweeps.run lr --scale smoke`"
    words = f"The best rate is at the edge. Next: run {command}."
    assert broken(words, 20) == [
        "The best rate is at",
        "the edge. Next: run",
        f"{command}.",
    ]
    assert broken("an odd ` stays", 80) == ["an odd ` stays"]
