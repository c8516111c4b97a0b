"""The experiment log: every field of its template from the data, and people's words as they are."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, conduct, is_bare, study
from ledgers import BASE, BUDGET, EVERY, Story, ended, loss, lr_sweep, rewrite, story, studied
from typer.testing import CliRunner

from sweeps import analyze
from sweeps.commands import log as log_command
from sweeps.findings.everything import Reader
from sweeps.ledger import Files, read
from sweeps.report import log, log_page, notes
from sweeps.report.answer import answer_words
from sweeps.report.entries import entries_under
from tinylm import config as cfg

HEADINGS = [
    "## Experiment Summary Table",
    "**Date**",
    "**Experiment Name**",
    "**Hypothesis/Motivation**",
    "**Configuration**",
    "**Configuration Changes**",
    "**Search Strategy**",
    "**Results**",
    "**Loss Curves**",
    "**Observations**",
    "**Next Steps**",
    "## Key Findings and Insights",
    "### Learning Rate Sensitivity",
    "### Architecture Ablations",
    "### Training Dynamics",
    "### Efficiency Observations",
    "## Recommendations",
    "**Model Architecture**",
    "**Hyperparameters**",
    "**Training Procedure**",
    "**Future Work**",
    "### How to Reproduce",
    "### Computing Environment",
]


def apart(config: dict[str, Any], share: float) -> float:
    """The arm is 0.3 higher than a baseline of 3, give or take a hundredth by seed."""
    odd = 0.01 if config["run"]["seed"] % 2 else -0.01
    return 3.0 + (0.3 + odd) * is_bare(config) + (1 - share)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of rates and a re-tuned study."""
    folder = tmp_path_factory.mktemp("results")
    lr_sweep(folder / "lr-cpu")
    conduct(folder / "nope-smoke", study(seeds=[0, 1, 2, 3], retune=RETUNE), apart)
    return folder


def write(results: Path) -> Path:
    """Write the log of all sweeps in a folder; where it is."""
    return log.write(results, Reader())


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return write(results).read_text()


def section(text: str, name: str) -> str:
    """The part of the log on one experiment."""
    return text.partition(f": {name}\n")[2].partition("\n---\n")[0]


def test_the_fields_of_the_template_come_in_its_order(text: str) -> None:
    positions = [text.find(heading) for heading in HEADINGS]
    assert positions == sorted(positions) and min(positions) > 0


def test_no_placeholder_is_left(text: str) -> None:
    told = re.sub(r"`[\w.]+: [^`\n]*`", "", text)  # settings to write into a space
    assert re.findall(r"\[[^\]]*\](?!\()|To be filled|None|nan", told) == []


def test_every_arm_is_an_experiment_and_a_search_is_one(text: str) -> None:
    assert re.findall(r"## Experiment \d+: (.*)", text) == [
        "lr-cpu",
        "nope-smoke/baseline",
        "nope-smoke/nope",
    ]


def test_the_comparison_is_in_per_cent_with_its_interval(text: str) -> None:
    """0.3 of 3 are 10%; the interval is that of four differences of 0.29 and 0.31."""
    said = section(text, "nope-smoke/nope")
    assert (
        "- Comparison to baseline: +10.00% validation loss "
        "(95% interval +9.39% to +10.61%, 4 seeds)" in said
    )


def test_an_arm_lists_only_what_it_changes(text: str) -> None:
    said = section(text, "nope-smoke/nope")
    assert "**Configuration**" not in said
    assert "**Configuration Changes**:\n- `model.position`: changed from rope to none\n" in said


def test_a_search_is_held_against_the_bases_own_values(tmp_path: Path) -> None:
    """The base's rate is 0.002."""
    ended(tmp_path / "lr-cpu", "optim.lr", {2e-3: 4.0, 4e-3: 3.0})
    (one,) = entries_under(tmp_path)
    found = one.comparison
    assert found is not None
    assert found.percent == pytest.approx(-25.0)
    assert (found.low, found.seeds) == (None, 1)


def test_a_single_config_has_the_name_of_its_sweep(tmp_path: Path) -> None:
    tree = {"question": "Is it good?", "search": {"method": "grid"}, "schedule": {"policy": "none"}}
    conduct(tmp_path / "wide-cpu", tree)
    found = Reader().findings(Files(tmp_path / "wide-cpu"))
    assert [trial.label for trial in found.results.trials] == ["wide-cpu"]
    assert answer_words(found)[0].startswith("wide-cpu: validation loss ")


def test_one_seed_is_said_to_be_one(text: str) -> None:
    said = section(text, "lr-cpu")
    assert "One seed: a difference smaller than the seed noise means nothing." in said
    assert "trials were stopped early. What the final losses would have been is not known." in said


def test_a_value_on_the_edge_is_a_next_step(tmp_path: Path) -> None:
    ended(tmp_path / "lr-cpu", "optim.lr", {1e-3: 3.2, 2e-3: 3.1, 4e-3: 3.0})
    (one,) = entries_under(tmp_path)
    assert (
        "Widen: the best `optim.lr`, 0.004, is at the high end of what was tried. Set `optim.lr: {grid: [0.001, "
        "0.002, 0.004, 0.008, 0.016]}` in the space. Run `python -m sweeps.run lr`."
        in one.next_steps
    )


def test_the_command_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.ledger.append("session", command="/home/me/.venv/bin/python -m sweeps.run lr", slots=1)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    assert "- `a`: `python -m sweeps.run lr`" in write(tmp_path).read_text()


def test_the_throughput_is_a_share_of_the_peak(tmp_path: Path) -> None:
    """10,000 tokens a second at 7.9 MFLOPs each are 79 GFLOP/s."""
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.ledger.append("session", command="", slots=1, product_flops=316e9)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    (one,) = entries_under(tmp_path)
    assert (
        "Each trial ran at 79 GFLOP/s, 25% of this machine's matmul peak (316 GFLOP/s). Up to 2 trials "
        "ran at once." in one.observations
    )


def test_a_trial_that_was_stopped_while_it_fell_faster_is_a_next_step(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        tell.whole(tell.plan({"optim.lr": 2e-3}), 2e-3)
        for lr, falls in ((1e-3, 0.5), (4e-3, 0.01)):
            trial = tell.plan({"optim.lr": lr})
            tell.start(trial)
            tell.measure(trial, EVERY, 6.0)
            tell.measure(trial, 2 * EVERY, 6.0 - falls)
            tell.stop(trial, 2 * EVERY, 6.0 - falls)
    (one,) = entries_under(tmp_path)
    (said,) = (line for line in one.next_steps if line.startswith("Audit"))
    assert (
        "lr=0.001 (by 0.5000 against 0.3515 since the previous record, at 98,304 tokens). Run "
        "`python -m sweeps.run lr --audit 1`." in said
    )


def test_an_arm_that_was_not_re_tuned_is_a_next_step(tmp_path: Path) -> None:
    conduct(tmp_path / "plain", study(), apart)
    conduct(tmp_path / "tuned", study(retune=RETUNE), apart)
    told = {
        one.name: any("ran at the baseline's values" in line for line in one.next_steps)
        for one in entries_under(tmp_path)
        if not one.is_baseline
    }
    assert told == {"plain/nope": True, "tuned/nope": False}


def alone(folder: Path, how: Callable[[Story, str], None], **changes: Any) -> None:
    """A sweep of one config, with what becomes of its only run."""
    with story(folder) as tell:
        tell.ask({})
        config = cfg.overlay(BASE, {path.replace("__", "."): v for path, v in changes.items()})
        how(tell, tell.plan({}, config=config.model_dump()))


def whole(tell: Story, trial: str) -> None:
    tell.whole(trial, 2e-3)


def diverging(tell: Story, trial: str) -> None:
    tell.start(trial)
    tell.diverge(trial, 5 * EVERY)


def test_an_experiment_that_diverged_is_one(tmp_path: Path) -> None:
    alone(tmp_path / "hot", diverging)
    (one,) = entries_under(tmp_path)
    assert (one.finished, one.val_loss) == (0, None)
    assert one.observations[0].startswith("Seed 0: non-finite (training loss nan")
    assert "No run finished." in section(write(tmp_path).read_text(), "hot")


def test_a_search_in_which_everything_diverged_says_so(tmp_path: Path) -> None:
    with story(tmp_path / "hot") as tell:
        tell.ask({"optim.lr": {"grid": [1.0, 2.0]}})
        for lr in (1.0, 2.0):
            diverging(tell, tell.plan({"optim.lr": lr}))
    (one,) = entries_under(tmp_path)
    assert one.observations == ["None of the 2 trials finished: 2 non-finite."]
    assert one.changes == {}


def test_a_seed_that_diverged_is_named(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        whole(tell, tell.plan({"optim.lr": 1e-3}, 0))
        diverging(tell, tell.plan({"optim.lr": 1e-3}, 1))
    (one,) = entries_under(tmp_path)
    assert (one.runs, one.finished) == (2, 1)
    assert one.observations[0].startswith("Seed 1: non-finite")


def test_problems_that_the_patterns_count_are_no_caveats_too(tmp_path: Path) -> None:
    conduct(tmp_path / "s", study(seeds=[0, 1]))
    files = Files(tmp_path / "s")
    (run, *_) = [one.trial for one in studied(files).trials if one.arm == "nope"]
    rewrite(
        files,
        [
            row | {"spike": 2.0} if row["kind"] == "measured" and row["trial"] == run else row
            for row in read(files)
        ],
    )
    entry = next(one for one in entries_under(tmp_path) if one.name == "s/nope")
    assert entry.patterns == "1 of 2 runs spiked"
    assert "Seed 0: spiked." in entry.observations
    assert [line for line in entry.observations if "1 of 2" in line] == []


def test_context_lengths_with_equal_blocks_are_compared(tmp_path: Path) -> None:
    alone(tmp_path / "baseline_cpu", whole)
    alone(tmp_path / "other", whole, model__context_length=64, eval__block=128)
    found = {one.name: one for one in entries_under(tmp_path)}
    assert found["other"].comparison is not None


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"budget__tokens": BUDGET // 2}, "budget (393,216 tokens, not 786,432 tokens)"),
        ({"eval__tokens": 8_192}, "validation tokens (8,192, not 16,384)"),
        ({"model__context_length": 64}, "validation blocks (of 64 tokens, not of 128 tokens)"),
    ],
)
def test_losses_of_other_text_or_budget_are_no_comparison(
    tmp_path: Path, changes: dict[str, Any], differ: str
) -> None:
    alone(tmp_path / "baseline_cpu", whole)
    alone(tmp_path / "other", whole, **changes)
    found = {one.name: one for one in entries_under(tmp_path)}
    assert found["other"].comparison is None
    assert found["other"].no_comparison == f"not compared: other {differ}"


def test_a_precision_is_a_change(tmp_path: Path) -> None:
    alone(tmp_path / "baseline_cpu", whole)
    alone(tmp_path / "half", whole, run__precision="bf16")
    found = {one.name: one.changes for one in entries_under(tmp_path)}
    assert found == {"baseline_cpu": {}, "half": {"run.precision": ("fp32", "bf16")}}


def test_an_experiment_without_a_baseline_is_none_itself(tmp_path: Path) -> None:
    alone(tmp_path / "wide", whole, model__d_ff=512)
    (one,) = entries_under(tmp_path)
    assert not one.is_baseline
    assert one.no_comparison == "none (no experiment has a name that begins with baseline)"


def test_the_losses_of_a_best_that_was_confirmed_are_those_of_fresh_seeds(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 4e-3]}}, confirm=2)
        for lr in (1e-3, 4e-3):
            tell.whole(tell.plan({"optim.lr": lr}), lr)
        fresh = {str(s): tell.plan({"optim.lr": 1e-3}, s, role="confirm") for s in (1, 2)}
        tell.ledger.append("confirming", values={"optim.lr": 1e-3}, trials=fresh)
        for trial in fresh.values():
            tell.whole(trial, 1e-3, plus=0.3)
    (one,) = entries_under(tmp_path)
    assert one.val_loss == pytest.approx(loss(1e-3, BUDGET) + 0.3)
    assert (
        "It is the best of 2, and these losses are from fresh seeds (3.3300 in the search, which chose "
        "it)." in one.observations
    )
    assert not any(line.startswith("More seeds") for line in one.next_steps)


def test_a_search_says_that_its_loss_is_a_selection(text: str) -> None:
    said = section(text, "lr-cpu")
    assert "It is the best of 8, chosen by this loss, so it won partly by luck" in said


def test_recommendations_name_the_values_that_the_arm_ran_at(text: str) -> None:
    assert "Keep the baseline: `nope-smoke/nope` (position=none at lr=0.001) is worse by" in text


def test_what_has_no_result_yet_is_said(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        whole(tell, tell.plan({"optim.lr": 1e-3}))
        tell.plan({"optim.lr": 2e-3})
    assert "No result yet for 1 of 2 trials." in write(tmp_path).read_text()


def test_an_environment_of_an_earlier_session_is_told(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        for commit in ("aaaa", "bbbb"):
            tell.ledger.append("session", command="", slots=1, commit=commit, changed=False)
        whole(tell, tell.plan({"optim.lr": 1e-3}))
    assert re.findall(r"Commit: (\w{4});", write(tmp_path).read_text()) == ["aaaa", "bbbb"]


def test_markup_in_a_hypothesis_is_text(tmp_path: Path) -> None:
    words = "<script>alert(1)</script> | a\n<!-- notes: x -->\n[link](http://e)"
    arms = {"nope": {**NOPE, "hypothesis": words}}
    conduct(tmp_path / "s", study(arms=arms), apart)
    content = write(tmp_path).read_text()
    assert (
        "&lt;script&gt;alert(1)&lt;/script&gt; \\| a &lt;!-- notes: x --&gt; \\[link\\]" in content
    )
    assert b"x" not in notes.notes(content.encode())


def test_a_command_over_several_lines_writes_no_marker(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.ledger.append("session", command="run --why 'x\n<!-- notes: k -->\ny'", slots=1)
        whole(tell, tell.plan({"optim.lr": 1e-3}))
    assert b"k" not in notes.notes(write(tmp_path).read_bytes())


@pytest.mark.parametrize(
    ("words", "shown"), [("---", "\\---"), ("1. x", "1\\. x"), ("__x__", "\\_\\_x\\_\\_")]
)
def test_a_question_is_no_heading_list_or_emphasis(tmp_path: Path, words: str, shown: str) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}}, words)
        whole(tell, tell.plan({"optim.lr": 1e-3}))
    assert f"**Hypothesis/Motivation**:\n{shown}\n" in write(tmp_path).read_text()


def test_what_people_write_in_the_log_stays_byte_for_byte(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    path = write(tmp_path)
    mine = b"# My own *words*\r\n\n| a | b |\n<!-- a comment -->\n\xff\n"
    path.write_bytes(notes.filled(path.read_bytes(), {b"lr-cpu": mine}))
    write(tmp_path)
    assert notes.notes(path.read_bytes())[b"lr-cpu"] == mine


def test_the_notes_of_a_sweep_are_created_once_and_quoted(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    write(tmp_path)
    own = tmp_path / "lr-cpu" / "notes.md"
    assert own.read_text().startswith("## Hypothesis\n")
    own.write_text("## Observations\n\nIt *rose*.\n")
    said = section(write(tmp_path).read_text(), "lr-cpu")
    assert "From `lr-cpu/notes.md`:\n\n> ### Observations\n>\n> It *rose*.\n" in said
    assert own.read_text() == "## Observations\n\nIt *rose*.\n"


def test_a_damaged_sweep_does_not_keep_the_others_out(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ledger.jsonl").write_text("xx\n")
    text = write(tmp_path).read_text()
    assert "## Experiment 1: lr-cpu" in text
    assert "\n- `broken`: " in text and "line 1 is damaged" in text


def test_analyze_writes_the_log_of_all_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lr_sweep(Path("results/lr-cpu"))
    conduct(Path("results/nope-smoke"), study(), apart)
    done = CliRunner().invoke(analyze.app, ["lr-cpu"])
    assert done.exit_code == 0
    assert "results/EXPERIMENT_LOG.md" in done.output
    assert "nope-smoke/nope" in Path("results/EXPERIMENT_LOG.md").read_text()


@pytest.fixture
def log_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of one sweep under the results/ of the current folder."""
    monkeypatch.chdir(tmp_path)
    lr_sweep(Path("results/lr-cpu"))
    return write(Path("results"))


def test_the_log_for_programs_has_what_people_wrote(log_here: Path) -> None:
    path = log_here
    path.write_bytes(notes.filled(path.read_bytes(), {b"lr-cpu": b"Mine.\n"}))
    done = CliRunner().invoke(log_command.app, ["--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["log"]) == (0, str(path))
    assert [(one["name"], one["notes"]) for one in found["experiments"]] == [("lr-cpu", "Mine.\n")]
    assert notes.notes(path.read_bytes())[b"lr-cpu"] == b"Mine.\n"


def test_a_log_whose_note_has_no_end_is_left_and_said(log_here: Path) -> None:
    path = log_here
    broken = path.read_bytes().replace(b"<!-- end of notes: lr-cpu -->\n", b"")
    path.write_bytes(broken)
    done = CliRunner().invoke(analyze.app, ["lr-cpu"])
    assert (done.exit_code, path.read_bytes()) == (2, broken)
    assert "the notes of lr-cpu have no last line" in done.output


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), "a link"),
        (os.mkfifo, "not a file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"x" * 2 * 10**6), "larger than 1 MB"),
    ],
)
def test_notes_that_are_no_small_file_of_the_sweep_are_not_quoted(
    tmp_path: Path, plant: Callable[[Path], object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(tmp_path)
    plant(files.notes)
    log.begin_notes(files)
    assert log._own_notes(files) == f"> `notes.md`: {why}; it is not quoted here."
    assert capsys.readouterr().err == f"{files.notes}: {why}; it is not quoted in the log\n"


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    return write(results).with_suffix(".html").read_text()


def test_the_page_has_what_the_log_has(page: str, text: str) -> None:
    titles = re.findall(r"^##+ (.*)", text, re.MULTILINE)
    assert re.findall(r"<h[23] id=\".+\">(.*)</h[23]>", page) == titles
    assert "<table>" in page


def test_the_page_loads_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    assert (
        re.findall(r"<(script|img|iframe|object|embed|link(?! rel=.icon. href=.data:,.>))", page)
        == []
    )


def test_every_link_of_the_contents_leads_to_a_heading(page: str) -> None:
    links = re.findall(r'<a href="#(.+?)">', page)
    assert "experiment-3-nope-smokenope" in links
    assert set(links) <= set(re.findall(r'<h[23] id="(.+)">', page))


def test_headings_of_the_same_words_have_names_of_their_own() -> None:
    page = log_page.html("## Layer\\_norm & more\n\n## Layer_norm & more\n")
    assert re.findall(r'<h2 id="(.+)">', page) == ["layer_norm--more", "layer_norm--more-1"]


def test_headings_in_notes_stand_below_those_of_the_log_on_the_page() -> None:
    note = "# Mine\n```\n# no heading\n```\n## Deeper\n"
    log = f"## Experiment 1: a\n\n<!-- notes: a -->\n{note}<!-- end of notes: a -->\n"
    page = log_page.html(log)
    assert re.findall(r"<h(\d) id=.+>(.+)</h", page) == [
        ("2", "Experiment 1: a"),
        ("3", "Mine"),
        ("4", "Deeper"),
    ]
    assert "# no heading" in page


def test_an_experiment_shows_its_figure_once_drawn(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    assert "![" not in section(write(tmp_path).read_text(), "lr-cpu")
    figure = Files(tmp_path / "lr-cpu").figure("loss_vs_lr")
    figure.parent.mkdir(exist_ok=True)
    figure.write_text("<svg/>")
    path = write(tmp_path)
    assert "![lr-cpu](lr-cpu/analysis/loss_vs_lr.svg)" in section(path.read_text(), "lr-cpu")
    page = path.with_suffix(".html").read_text()
    assert '<img src="data:image/svg+xml;base64,PHN2Zy8+" alt="lr-cpu" />' in page


def test_the_search_strategy_says_what_was_searched_seeded_and_stopped(text: str) -> None:
    assert (
        section(text, "lr-cpu")
        .partition("**Search Strategy**:\n")[2]
        .startswith("- Search: grid, every value of `optim.lr: {grid: [")
    )
    assert strategy(text, "nope-smoke/baseline") == [
        "- Search: none; 1 arm beside the baseline",
        "- Re-tune grid of each arm: `optim.lr: {grid: [0.001, 0.004, 0.016]}`",
        "- Seeds: 0, 1, 2 and 3",
        "- Early stopping: none",
    ]


def strategy(text: str, name: str) -> list[str]:
    """The lines of the log on how an experiment searched."""
    said = section(text, name).partition("**Search Strategy**:\n")[2]
    return said.partition("\n\n")[0].splitlines()


def test_the_strategy_of_a_study_is_told_once(text: str) -> None:
    heading = "Experiment 2: nope-smoke/baseline"
    assert strategy(text, "nope-smoke/nope") == [
        f"- Same as [{heading}](#experiment-2-nope-smokebaseline)"
    ]
    assert f"\n## {heading}\n" in text


def test_what_sensitivity_is_stands_once_in_a_log_of_several_grids(text: str) -> None:
    found = [
        line for line in text.splitlines() if line.startswith("- `nope-smoke/") and "sensit" in line
    ]
    assert len(found) == 2
    assert text.count("the mean loss over the rates, each capped at") == 1


def test_the_nodes_of_a_cluster_are_told_with_what_ran_there(tmp_path: Path) -> None:
    with story(tmp_path / "a") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.ledger.append("session", command="", slots=2)
        tell.ledger.append("node", node="1", host="a (10.0.0.1)", state="joined", slots=2)
        tell.ledger.append(
            "node", node="2", host="b (10.0.0.2)", state="refused", reason="no torch"
        )
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.measure(trial, EVERY, 3.0, worker="a:17")
        tell.ledger.append("node", node="1", host="a (10.0.0.1)", state="lost")
    text = write(tmp_path).read_text()
    assert (
        "  - Node of `a`: `a (10.0.0.1)`: joined: 2 trials at once; lost; 1 attempt at trials\n"
        in text
    )
    assert "  - Node of `a`: `b (10.0.0.2)`: left out: no torch\n" in text


HOSTILE = """<script>alert(1)</script> <img src=x onerror=alert(1)>
[a](javascript:alert(1)) ![b](https://example.org/b.png)
</main><b>bold</b>
"""


def test_notes_are_on_the_page_and_html_in_them_is_text(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    path = write(tmp_path)
    marker = "<!-- notes: lr-cpu -->\n"
    path.write_text(path.read_text().replace(marker, marker + HOSTILE))
    page = write(tmp_path).with_suffix(".html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "[a](javascript:alert(1))" in page
    assert re.findall("<script|<img src=.?x|<b>|href=.?javascript|notes: ", page) == []


DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@pytest.mark.parametrize("source", ["curves/a%20b.png", "./lr/plot.svg", DOT])
def test_a_picture_of_the_results_folder_is_on_the_page(source: str) -> None:
    assert f'<img src="{source}" alt="b" />' in log_page.html(f"![b]({source})")


REMOTE = [
    "https://example.org/b.png",
    "//example.org/b.png",
    "/b.png",
    "../b.png",
    "lr/../../b.png",
    "lr/%2e%2e/%2e%2e/b.png",
    r"\\example.org\b.png",
    "HTTP://example.org",
    "http://[",
]


@pytest.mark.parametrize("source", REMOTE)
def test_any_other_picture_is_a_link_and_not_loaded(source: str) -> None:
    page = log_page.html(f"![b]({source})")
    assert ("<img" in page, ">b</a>" in page) == (False, True)


def test_a_picture_beside_the_notes_of_a_sweep_is_found_from_the_log(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    (tmp_path / "lr-cpu" / "loss 1.png").write_bytes(b"")
    (tmp_path / "lr-cpu" / "notes.md").write_text("![b](loss%201.png) ![c](lr-cpu/elsewhere.png)\n")
    text = write(tmp_path).read_text()
    assert "> ![b](lr-cpu/loss%201.png) ![c](lr-cpu/elsewhere.png)\n" in text
