"""One answer for all texts: what an audit found leads it, and a confirmed loss is the one quoted."""

import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ledgers import (
    BASE,
    BUDGET,
    EVERY,
    FIRST,
    SECOND,
    Story,
    audited_seeds,
    audited_sweep,
    bowl,
    ended,
    loss,
    rates,
    story,
    studied,
)
from rich.console import Console

from sweeps.findings.answer import Answer, Better
from sweeps.findings.everything import Reader, SearchFindings, findings
from sweeps.ledger import Files, Ledger, fold
from sweeps.report import log, page, summary
from sweeps.report.answer import answer_words
from sweeps.report.best import write
from sweeps.report.head import best_words
from sweeps.report.index import write_index
from sweeps.report.terminal import print_result
from tinylm import config as cfg


def found(files: Files) -> SearchFindings:
    """The findings of a search."""
    one = findings(studied(files))
    assert isinstance(one, SearchFindings)
    return one


def answer(files: Files) -> Answer:
    return found(files).answer


def better(files: Files) -> Better:
    one = answer(files).better
    assert one is not None
    return one


def terminal(files: Files) -> str:
    stream = io.StringIO()
    best = best_words(files, found(files))
    print_result(found(files), Console(file=stream, width=500), best)
    return stream.getvalue()


def index(files: Files) -> str:
    folder = files.folder.parent
    return write_index(folder, Reader()).read_text()


def logged(files: Files) -> str:
    folder = files.folder.parent
    return log.write(folder, Reader()).read_text()


def paged(files: Files) -> str:
    content = page.page(found(files), best_words(files, found(files)))
    return "\n".join([*content["verdict"], *content["next"]])


TEXTS: Mapping[str, Callable[[Files], str]] = {
    "terminal": terminal,
    "summary": lambda files: summary.markdown(found(files), [], best_words(files, found(files))),
    "page": paged,
    "index": index,
    "log": logged,
}


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_says_that_a_stopped_trial_was_better(tmp_path: Path, text: str) -> None:
    said = TEXTS[text](audited_sweep(tmp_path / "s", {2.0: 2.75, 3.0: 3.5}))
    lead = "A stopped trial was better: lr=2 ended at 2.7500; the policy's choice has 3.0000."
    assert lead in said.replace("&#39;", "'")


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_says_that_what_was_measured_is_not_known(tmp_path: Path, text: str) -> None:
    said = TEXTS[text](audited_sweep(tmp_path / "s", {2.0: 2.75, 3.0: 3.5}))
    assert "final losses would have been" not in said


def confirmed(folder: Path, ends: Callable[[Story, str], None]) -> Files:
    """A search that chose lr=0.001 at 3.33, and what became of its two fresh seeds."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 5e-4]}}, confirm=2)
        for lr in (1e-3, 5e-4):
            tell.whole(tell.plan({"optim.lr": lr}), lr)
        fresh = {str(s): tell.plan({"optim.lr": 1e-3}, s, role="confirm") for s in (2000, 2001)}
        tell.ledger.append("confirming", values={"optim.lr": 1e-3}, trials=fresh)
        tell.whole(fresh["2000"], 1e-3, plus=0.3)
        ends(tell, fresh["2001"])
    return Files(folder)


def higher(tell: Story, trial: str) -> None:
    tell.whole(trial, 1e-3, plus=0.5)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_quotes_the_confirmed_loss(tmp_path: Path, text: str) -> None:
    """3.63 and 3.83 on two fresh seeds."""
    assert "3.7300" in TEXTS[text](confirmed(tmp_path / "s", higher))


def test_the_loss_of_the_search_stands_beside_the_confirmed_one(tmp_path: Path) -> None:
    assert (
        "validation loss 3.7300 nats per token at 786,432 tokens, the mean over 2 fresh seeds (3.3300 in "
        "the search, which chose it)." in terminal(confirmed(tmp_path / "s", higher))
    )


def test_fresh_seeds_that_are_under_way_are_not_quoted(tmp_path: Path) -> None:
    one = answer(confirmed(tmp_path / "s", lambda tell, trial: tell.start(trial)))
    assert one.choice is not None
    assert (one.choice.kind, one.choice.loss) == ("selected", loss(1e-3, BUDGET))
    assert "confirming" in one.caveats


def test_fresh_seeds_that_diverged_are_counted(tmp_path: Path) -> None:
    def gone(tell: Story, trial: str) -> None:
        tell.start(trial)
        tell.diverge(trial, FIRST)

    said = terminal(confirmed(tmp_path / "s", gone))
    assert "validation loss 3.6300 nats per token at 786,432 tokens, on 1 fresh seed" in said
    assert "Of 2 fresh seeds, 1 diverged." in said


def test_an_audit_that_ends_higher_changes_no_answer(tmp_path: Path) -> None:
    assert answer(audited_sweep(tmp_path, {2.0: 3.5, 3.0: math.inf})).better is None


def test_the_best_of_several_better_trials_is_named(tmp_path: Path) -> None:
    files = audited_sweep(tmp_path, {2.0: 2.75, 3.0: 2.5, 4.0: 3.5})
    assert (better(files).values, better(files).among) == ({"optim.lr": 3.0}, 2)
    assert "2 stopped trials were better: lr=3, the best, ended at 2.5000;" in terminal(files)


def test_the_ranking_stays_the_policys(tmp_path: Path) -> None:
    one = found(audited_sweep(tmp_path, {2.0: 2.75}))
    assert one.ranking.leader is not None
    assert one.ranking.leader.label == "lr=1"


def test_the_edge_of_a_range_is_judged_by_the_lowest_known_loss(tmp_path: Path) -> None:
    """1 is the low edge, but 2 is known to be better, and has a neighbor on either side."""
    (best,) = found(audited_sweep(tmp_path, {2.0: 2.75, 3.0: 3.5})).best
    assert (best.best, best.edge) == (2.0, None)


def seeded(folder: Path, chosen: Mapping[int, float], audits: Mapping[int, float]) -> Files:
    """A rate with these losses by seed, and another one that was stopped, with those of its audits."""
    return audited_seeds(folder, chosen, audits, by_value=True)


def test_an_audited_seed_is_compared_with_the_same_seed(tmp_path: Path) -> None:
    """2.9 is below the mean of 3.0, but not below 2.8 on the same seed."""
    assert answer(seeded(tmp_path, {0: 2.8, 1: 3.2}, {0: 2.9})).better is None


def test_a_lucky_seed_that_the_choice_does_not_have_counts_nothing(tmp_path: Path) -> None:
    assert answer(seeded(tmp_path, {0: 3.0}, {0: 3.1, 1: 2.0})).better is None


def test_audited_seeds_are_a_mean(tmp_path: Path) -> None:
    one = better(seeded(tmp_path, {0: 3.0, 1: 3.5}, {0: 2.5, 1: 3.5}))
    assert (one.seeds, one.loss, one.chosen) == (2, 3.0, 3.25)


def test_values_with_fewer_seeds_that_are_better_on_those_are_told(tmp_path: Path) -> None:
    one = found(ended(tmp_path, "optim.lr", {1e-3: (3.0, 3.0, 2.7), 2e-3: (2.9, 2.9)}))
    assert one.winner[0].values == {"optim.lr": 1e-3}
    assert (
        "lr=0.002 has finished on fewer seeds, but has a lower loss on the 2 seeds that both have: 2.9000 against "
        "3.0000. Train it on the others before choosing."
    ) in answer_words(one)


def test_values_with_fewer_seeds_that_are_worse_on_those_are_no_rival(tmp_path: Path) -> None:
    """2.95 is below the mean of 3.0, but not below 2.9 on the same seed."""
    assert answer(ended(tmp_path, "optim.lr", {1e-3: (2.9, 3.1), 2e-3: (2.95,)})).rival is None


def lost_a_seed(folder: Path) -> Files:
    """A search of whose best rate a seed diverged."""
    files = ended(folder, "optim.lr", {1e-3: (3.0, 3.0), 2e-3: (2.9,)})
    with Ledger(files) as ledger:
        tell = Story(ledger)
        lost = tell.plan({"optim.lr": 2e-3}, 1)
        tell.start(lost)
        tell.diverge(lost, SECOND)
    return files


def test_values_of_which_a_seed_diverged_are_no_rival(tmp_path: Path) -> None:
    assert answer(lost_a_seed(tmp_path)).rival is None


def without(files: Files, *labels: str) -> Files:
    """The sweep after its space has lost the trials with these labels."""
    with Ledger(files) as ledger:
        for trial in [t for t in fold(ledger.rows()).trials.values() if t.label in labels]:
            ledger.append("withdrawn", trial=trial.trial)
    return files


NO_LONGER = "which the space no longer has, ended lower"


@pytest.mark.parametrize("text", [name for name in TEXTS if name != "index"])
def test_every_text_says_that_values_which_the_space_no_longer_has_ended_lower(
    tmp_path: Path, text: str
) -> None:
    files = ended(tmp_path / "s", "optim.lr", {1e-3: 3.3, 2e-3: 3.0, 4e-3: 3.5})
    said = TEXTS[text](without(files, "lr=0.002"))
    assert f"lr=0.002, {NO_LONGER} on the 1 seed that both have: 3.0000 against 3.3000." in said


def test_values_that_the_space_no_longer_has_are_compared_on_the_seeds_that_both_have(
    tmp_path: Path,
) -> None:
    """2.9 is above 2.8 on the same seed, though below the mean of 3.0."""
    files = ended(tmp_path, "optim.lr", {1e-3: (2.8, 3.2), 2e-3: (2.9,)})
    assert answer(without(files, "lr=0.002")).withdrawn_lower is None


def test_seeds_of_the_choice_that_the_space_no_longer_has_are_compared_too(tmp_path: Path) -> None:
    """Of 0.001 the space has kept a seed that 0.002 does not have."""
    files = ended(tmp_path, "optim.lr", {1e-3: (3.1, 2.0), 2e-3: (3.0,)})
    one = answer(without(files, "lr=0.002", "lr=0.001")).withdrawn_lower
    assert one is not None
    assert (one.seeds, one.loss, one.chosen) == (1, 3.0, 3.1)


def test_values_that_the_space_no_longer_has_and_that_ran_on_other_seeds_are_told_so(
    tmp_path: Path,
) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}, 1), 1e-3)
        gone = tell.plan({"optim.lr": 2e-3})
        tell.whole(gone, 2e-3)
        tell.ledger.append("withdrawn", trial=gone)
    said = f"lr=0.002, {NO_LONGER} on other seeds: 3.3000 against 3.3300."
    assert said in answer_words(found(Files(tmp_path)))


def test_the_lowest_of_several_values_that_the_space_no_longer_has_is_named(tmp_path: Path) -> None:
    files = ended(tmp_path, "optim.lr", {1e-3: (3.3, 3.3), 2e-3: (3.0, 3.2), 4e-3: (3.2, 3.2)})
    labels = [f"lr={lr}{seed}" for lr in ("0.002", "0.004") for seed in ("", " seed=1")]
    assert (
        "2 choices of values that the space no longer has ended lower. The lowest is lr=0.002, on the 2 seeds that "
        "both have: 3.1000 against 3.3000."
    ) in answer_words(found(without(files, *labels)))


@pytest.mark.parametrize(
    ("losses", "gone"),
    [
        ({1e-3: 3.0, 2e-3: 3.3}, ["lr=0.002"]),  # it ended higher
        ({1e-3: (3.0, 3.2), 2e-3: (3.3, 2.5)}, ["lr=0.002 seed=1"]),  # other seeds are still there
        ({1e-3: 3.0}, ["lr=0.001"]),  # nothing is left to compare it with
    ],
)
def test_other_values_that_were_withdrawn_are_not_told_to_be_lower(
    tmp_path: Path, losses: Mapping[float, Any], gone: list[str]
) -> None:
    files = ended(tmp_path, "optim.lr", losses)
    assert answer(without(files, *gone)).withdrawn_lower is None


def test_values_of_which_a_seed_diverged_are_not_told_to_be_lower(tmp_path: Path) -> None:
    files = lost_a_seed(tmp_path)
    assert answer(without(files, "lr=0.002", "lr=0.002 seed=1")).withdrawn_lower is None


def shrunk(folder: Path, keep: int, ends: Callable[[Story, str], None] = higher) -> Files:
    """A search whose two fresh seeds have ended, the space of which asks for so many of them now."""
    files = confirmed(folder, ends)
    with Ledger(files) as ledger:
        fresh = {str(t.seed): t.trial for t in fold(ledger.rows()).trials.values() if t.seed}
        kept = dict(list(fresh.items())[:keep])
        ledger.append("confirming", values={"optim.lr": 1e-3}, trials=kept)
        for trial in list(fresh.values())[keep:]:
            ledger.append("withdrawn", trial=trial)
    return files


@pytest.mark.parametrize("text", [name for name in TEXTS if name != "index"])
def test_every_text_says_that_fresh_seeds_are_left_out(tmp_path: Path, text: str) -> None:
    """3.63 is quoted, and the other one has 3.83."""
    assert (
        "Left out: 1 fresh seed that the space no longer asks for. The mean over all 2 fresh seeds that finished is "
        "3.7300."
    ) in TEXTS[text](shrunk(tmp_path / "s", 1))


def test_a_fresh_seed_that_diverged_and_is_left_out_is_told(tmp_path: Path) -> None:
    def gone(tell: Story, trial: str) -> None:
        tell.start(trial)
        tell.diverge(trial, FIRST)

    said = answer_words(found(shrunk(tmp_path, 1, gone)))
    assert (
        "Left out: 1 fresh seed that the space no longer asks for (1 diverged). The loss of the one that "
        "finished is 3.6300."
    ) in said


def test_fresh_seeds_are_told_where_none_is_asked_for_any_more(tmp_path: Path) -> None:
    one = answer(shrunk(tmp_path, 0))
    assert one.choice is not None and one.left_out is not None
    assert (one.choice.kind, len(one.left_out.trials)) == ("selected", 2)


def test_no_fresh_seed_is_left_out_of_the_rest(tmp_path: Path) -> None:
    assert answer(confirmed(tmp_path, higher)).left_out is None


CLOSE = {
    1e-3: (3.0, 3.2),
    2e-3: (3.1, 3.2),
    4e-3: (9.0, 9.0),
}  # a noise of sqrt((0.02 + 0.005) / 3)


@pytest.mark.parametrize("text", [name for name in TEXTS if name != "index"])
def test_every_text_says_that_the_choice_is_within_the_noise_of_the_runner_up(
    tmp_path: Path, text: str
) -> None:
    said = TEXTS[text](ended(tmp_path / "s", "optim.lr", CLOSE))
    assert (
        "lr=0.001 is within the noise of lr=0.002: their mean losses over 2 seeds differ by 0.0500, and 2 "
        "standard deviations of such a difference are 0.1826."
    ) in said


def test_the_noise_of_a_mean_over_seeds_falls_with_their_number(tmp_path: Path) -> None:
    one = answer(ended(tmp_path / "s", "optim.lr", CLOSE)).runner_up
    assert one is not None
    assert (one.values, one.seeds) == ({"optim.lr": 2e-3}, 2)
    assert one.behind == pytest.approx(0.05)
    assert one.noise == pytest.approx(2 * (0.025 / 3) ** 0.5)


@pytest.mark.parametrize(
    "losses",
    [
        {1e-3: (3.0, 3.1), 2e-3: (3.5, 3.6)},  # farther apart than the noise
        {1e-3: (3.0, 3.1), 2e-3: (3.1, 3.0)},  # tied
        {1e-3: 3.0, 2e-3: 3.001},  # no noise is known
        {1e-3: (3.0, 3.1), 2e-3: 3.06},  # on fewer seeds
    ],
)
def test_other_choices_are_not_told_to_be_within_the_noise(
    tmp_path: Path, losses: Mapping[float, Any]
) -> None:
    assert answer(ended(tmp_path / "s", "optim.lr", losses)).runner_up is None


def test_values_without_effect_are_told_to_tie(tmp_path: Path) -> None:
    said = terminal(ended(tmp_path, "model.norm", {"pre": 3.0, "post": 3.0}))
    assert "norm=pre is the best of 2, with the same loss as norm=post: validation loss" in said


LENGTHS = {32: 3.0, 64: 3.1}


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_says_that_a_context_length_with_more_updates_is_the_best(
    tmp_path: Path, text: str
) -> None:
    said = TEXTS[text](ended(tmp_path / "s", "model.context_length", LENGTHS))
    assert "is the best of 2" not in said and "as the lowest loss of 2" in said


def test_the_headline_says_what_the_context_lengths_have_in_common_and_what_not(
    tmp_path: Path,
) -> None:
    first, *_ = answer_words(found(ended(tmp_path, "model.context_length", LENGTHS)))
    updates = [BUDGET // (length * BASE.optim.batch_size) for length in (64, 32)]
    assert first.endswith(
        f" All trials train on the same number of tokens, but make {updates[0]:,} to {updates[1]:,} "
        "updates, so this does not show which context length is the best."
    )


def test_the_best_of_context_lengths_with_equal_updates_is_the_best(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        space = {"model.context_length": {"grid": [32, 64]}}
        tell.ask(space, match="tokens_per_update")
        for length, loss_ in LENGTHS.items():
            values = {"model.context_length": length}
            more = {"optim.batch_size": 1024 // length, "eval.block": 64}
            config = cfg.overlay(BASE, {**values, **more}).model_dump()
            trial = tell.plan(values, config=config)
            tell.start(trial)
            tell.measure(trial, BUDGET, loss_)
            tell.finish(trial)
    assert answer_words(found(Files(tmp_path)))[0].startswith("context_length=32 is the best of 2")


def interrupted(folder: Path) -> Files:
    """Of three trials, two were measured when the driver ended; none has finished."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        for lr, last in ((1e-3, 3), (2e-3, 2)):
            trial = tell.plan({"optim.lr": lr})
            tell.start(trial)
            tell.train(trial, lr, 1, last)
        tell.plan({"optim.lr": 4e-3})
    return Files(folder)


def test_before_anything_has_finished_the_lowest_loss_at_equal_tokens_is_told(
    tmp_path: Path,
) -> None:
    first, *_ = answer_words(found(interrupted(tmp_path)))
    assert first == (
        f"No trial has finished yet. At {2 * EVERY:,} tokens, lr=0.002 has the lowest of 2 losses so far: "
        f"{loss(2e-3, 2 * EVERY):.4f} nats per token."
    )


def test_losses_of_trials_that_have_not_finished_are_not_final(tmp_path: Path) -> None:
    words = answer_words(found(interrupted(tmp_path)))[-1]
    measured = "2 of 3 trials have not finished; their losses so far are not final."
    assert words == f"{measured} No result yet for 1 of 3 trials."


@pytest.mark.parametrize("text", ["terminal", "summary", "page"])
def test_no_text_says_that_a_trial_runs_which_a_ledger_cannot_know(
    tmp_path: Path, text: str
) -> None:
    assert "running" not in TEXTS[text](interrupted(tmp_path / "s"))


def overfitted(folder: Path, stopped_at: float, end: float = 3.5, **more: float) -> Files:
    """A search whose best overfits from 3.0, with one trial that was stopped at this loss."""
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        best, stopped = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3))
        tell.start(best)
        tell.measure(best, FIRST, 3.0, train_loss=2.9)
        tell.measure(best, BUDGET, end, train_loss=2.0)
        tell.finish(best)
        tell.start(stopped)
        tell.measure(stopped, FIRST, stopped_at, **more)
        tell.stop(stopped, FIRST, stopped_at)
    return Files(folder)


@pytest.mark.parametrize(
    ("losses", "there"),
    [
        ({"stopped_at": 3.49}, "3.4900"),
        ({"stopped_at": 3.51}, ""),
        ({"stopped_at": 3.6, "decayed_val_loss": 3.4}, "3.4000 after a decay branch"),
        ({"stopped_at": 2.99, "end": 3.0}, ""),  # it did not overfit
    ],
)
def test_a_trial_that_was_stopped_below_the_end_of_an_overfitted_best_is_told(
    tmp_path: Path, losses: dict[str, float], there: str
) -> None:
    said = [
        line for line in answer_words(found(overfitted(tmp_path, **losses))) if "lr=0.002" in line
    ]
    lead = "The best trial overfitted: lr=0.002 had a lower loss when it was stopped"
    told = f"{lead} ({there} at {FIRST:,} tokens) than the best has at its end."
    assert said == ([told] if there else [])


BEST = "Best checkpoint: `"
RATES_OF = {1e-3: (3.3, 3.0), 2e-3: (3.0, 3.1), 4e-3: (3.5, 3.6)}


@pytest.fixture
def kept(tmp_path: Path, saved: Path) -> Files:
    """A sweep of three rates with two seeds each, whose best checkpoint is kept."""
    files, _ = rates(tmp_path / "s", saved, RATES_OF)
    write(files, found(files))
    return files


def unquoted(text: str) -> str:
    """A text without the signs that its format needs."""
    return re.sub("</?code>", "`", text.replace("&#39;", "'").replace("\\", ""))


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_says_the_answer_with_the_mean_of_the_seeds(kept: Files, text: str) -> None:
    answer = "lr=0.002 is the best of 3: validation loss 3.0500 nats per token at 786,432 tokens, the mean over 2 seeds."
    assert answer in unquoted(TEXTS[text](kept))


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_says_where_the_best_checkpoint_is(kept: Files, text: str) -> None:
    """That of the best values, although one run of others has a loss as low."""
    assert f"{BEST}{kept.best}`, of lr=0.002." in unquoted(TEXTS[text](kept))


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_says_the_next_step_with_its_command(tmp_path: Path, text: str) -> None:
    files = ended(tmp_path / "s", "optim.lr", bowl([1e-3, 2e-3, 4e-3], 2e-3))
    step = (
        "More seeds: lr=0.002 was run with one seed. Set `seeds: [0, 1, 2]` in the space. Run "
        "`python -m sweeps.run lr`."
    )
    assert step in unquoted(TEXTS[text](files))


def test_a_best_checkpoint_that_is_not_kept_is_not_named(tmp_path: Path) -> None:
    files = ended(tmp_path / "s", "optim.lr", bowl([1e-3, 2e-3, 4e-3], 2e-3))
    assert BEST not in terminal(files)


@pytest.mark.parametrize("text", ["terminal", "log"])
def test_the_answer_stands_after_the_table_and_before_the_next_steps(
    kept: Files, text: str
) -> None:
    said = TEXTS[text](kept)
    assert said.index("lr=0.002 is the best of 3") < said.index(BEST)
