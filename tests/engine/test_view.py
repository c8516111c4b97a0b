"""What a person sees while a sweep runs."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from conducting import RETUNE, study
from fakes import MACHINE, Engine, driver, grid, request, v_shaped
from rich.console import Console

from sweeps import ledger as led
from sweeps import steering
from sweeps.engine.sharing import Share
from sweeps.engine.view import View, show_forecast, show_inits, show_plan, show_time
from sweeps.plan import trials as pl
from sweeps.plan.request import Request
from sweeps.simulate.forecast import Forecast
from tinylm import config as cfg

RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2]


def shown(
    folder: Path,
    *,
    terminal: bool,
    height: int = 40,
    records: float = 7,
    what: Request | None = None,
    width: int = 100,
    free: int = 5,
    expected: int = 10**5,
) -> str:
    """All that is printed while a sweep runs for a number of records, which take 70 seconds."""
    now = [0.0]
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, height=height, no_color=True)
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, what or request(grid(RATES)))
        slots = [Share(5, 5)]
        view = View(conductor, expected, console, lambda: now[0], lambda: slots[0])
        conductor.begin({})
        with view.shown():
            slots[0] = Share(free, 5)
            view.update()
            Engine(conductor, v_shaped).run(records)
            now[0] = 70.0
            view.update()
    return file.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        "lr=0.0005                 started",
        "lr=0.0005                 paused at 1024 tokens, loss 3.1750",
        "lr=0.004                  promoted at 1024 tokens: rank 1 of",
        "lr=0.004                  finished, validation loss 2.0000",
        "lr=0.064                  stopped: rank 8 of 8 at 1024 tokens; 2 continue",
    ],
)
def test_a_file_gets_a_line_for_every_decision(tmp_path: Path, line: str) -> None:
    assert line in shown(tmp_path, terminal=False, records=1e9)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_other_jobs_hold_of_a_cluster_is_shown(tmp_path: Path, terminal: bool) -> None:
    assert "other jobs hold 3 of 5 slots" in shown(tmp_path, terminal=terminal, free=2)


BUDGETS = {
    "question": "Which budget?",
    "search": {"method": "grid"},
    "space": {"budget.tokens": {"grid": [8192, 16384]}},
    "schedule": {"policy": "asha", "eta": 2, "grace": "1/4"},
}


@pytest.mark.parametrize(
    "line",
    [
        "tokens=16384              paused at 1/4 of its budget (4096 tokens), loss",
        "promoted at 1/4 of its budget (2048 tokens): rank 1 of",
        "stopped: rank 2 of 2 at 1/4 of its budget (4096 tokens); 1 continues",
    ],
)
def test_a_rung_of_budgets_that_differ_is_named_as_a_share(tmp_path: Path, line: str) -> None:
    assert line in shown(tmp_path, terminal=False, records=1e9, what=request(BUDGETS))


def test_the_next_rung_is_one_of_the_trials_own_budget(tmp_path: Path) -> None:
    table = shown(tmp_path, terminal=True, records=3, what=request(BUDGETS))
    rows = [line for line in drawn(table) if line.strip().startswith("16384")]
    assert "4.1k" in rows[-1]


def test_rungs_of_budgets_that_differ_are_forecast_as_shares() -> None:
    expected = Forecast(
        1_000, 1_000, 1_000, None, {"1/4": 2.0, "1": 1.0}, "made-up curves", 6, 6, 6, 0.0
    )
    file = io.StringIO()
    show_forecast(request(BUDGETS), expected, 2_000, 0.0, Console(file=file, width=200))
    words = (
        "trials expected to reach each rung (a share of each trial's budget): 2 at 25%, 1 at 100%"
    )
    assert words in file.getvalue()


def test_a_checkpoint_that_cannot_be_used_is_told_in_a_terminal_too(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], policy="none")))
        conductor.begin({})
        Engine(conductor, v_shaped).run(1)
        file = io.StringIO()
        terminal = Console(file=file, width=200, force_terminal=True)
        view = View(conductor, 1_000, terminal)
        with view.shown():
            conductor.failed(
                conductor.state.under_way[0].trial, "checkpoint", "x.pt: damaged", "trace"
            )
            view.update()
    assert "the checkpoint of step 4 can't be used: x.pt: damaged" in file.getvalue()


def test_that_a_sweep_was_ended_by_hand_is_told_in_a_terminal_too(tmp_path: Path) -> None:
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES)))
        conductor.begin({})
        file = io.StringIO()
        view = View(conductor, 1_000, Console(file=file, width=200, force_terminal=True))
        with view.shown():
            steering.ask(ledger.files, steering.Request("end"))
            Engine(conductor, v_shaped).run(1)
            view.update()
    assert "ends by hand: nothing new starts" in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_happens_to_nodes_is_told_and_where_attempts_begin(
    tmp_path: Path, terminal: bool
) -> None:
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=terminal)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES[:1], policy="none")))
        conductor.begin({})
        view = View(conductor, 1_000, console)
        with view.shown():
            conductor.note({"host": "a (10.0.0.1)", "state": "joined", "slots": 1})
            conductor.note({"host": "b (10.0.0.2)", "state": "refused", "reason": "no torch"})
            job = conductor.next_job()
            assert job is not None
            conductor.began(job.trial, worker="a:7", address="10.0.0.1", device="GPU 0")
            conductor.note({"host": "a (10.0.0.1)", "state": "lost"})
            conductor.note({"host": "c (10.0.0.3)", "state": "released"})
            view.update()
    said = file.getvalue()
    assert re.search(r"a \(10\.0\.0\.1\) +joined: 1 trial at once\n", said)
    assert re.search(r"b \(10\.0\.0\.2\) +left out: no torch\n", said)
    assert re.search(r"a \(10\.0\.0\.1\) +lost\n", said)
    assert re.search(r"c \(10\.0\.0\.3\) +released: no trial needed it\n", said)
    assert terminal or re.search(r"lr=0\.0005 +started on a, GPU 0\n", said)


def test_a_file_gets_no_control_characters(tmp_path: Path) -> None:
    assert "\x1b" not in shown(tmp_path, terminal=False, records=1e9)


@pytest.mark.parametrize(
    "cell", ["0.001", "starting", "paused", "8.19k", "rung", "trials in full: 65.5k", "left"]
)
def test_a_terminal_shows_every_trial_and_the_whole(tmp_path: Path, cell: str) -> None:
    assert cell in shown(tmp_path, terminal=True, expected=50_000)


def test_a_whole_that_is_not_planned_yet_is_not_shown(tmp_path: Path) -> None:
    """The re-tune trials of a study are fewer than what it will train."""
    table = shown(tmp_path, terminal=True, what=request(study(retune=RETUNE)))
    assert "of about 100k tokens" in drawn(table)[-2]
    assert "in full" not in drawn(table)[-2]


LOAD = "workers start, load torch"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("compiles", "words"),
    [
        (True, f"{LOAD}, compile the model and train to the first record"),
        (False, f"{LOAD} and train to the first record"),
    ],
)
def test_before_the_first_record_it_is_said_that_workers_start(
    tmp_path: Path, terminal: bool, compiles: bool, words: str
) -> None:
    what = request({**grid(RATES), "base": {"run.compile": compiles}})
    printed = shown(tmp_path, terminal=terminal, records=0, what=what)
    last = drawn(printed)[-1].strip() if terminal else printed.strip()
    assert last.endswith(words)


@pytest.mark.parametrize("terminal", [True, False])
def test_after_the_first_record_nothing_is_starting_any_longer(
    tmp_path: Path, terminal: bool
) -> None:
    printed = shown(tmp_path, terminal=terminal)
    assert (LOAD in drawn(printed)[-1], printed.count(LOAD) > 0) == (False, True)


def plan_of(what: Request) -> list[str]:
    """The lines of a plan, without where they break."""
    file = io.StringIO()
    plan = pl.plan(what, MACHINE)
    show_plan(what, plan, pl.load(what, plan), {}, Console(file=file, width=300))
    return [line.strip() for line in file.getvalue().splitlines()]


def test_a_plan_says_what_the_seed_of_re_tuning_is_for() -> None:
    lines = plan_of(request(study(retune=RETUNE), seed=1))
    assert (
        "seed 1001 is for re-tuning: its trials find the best optim.lr of each arm, and no arm is judged by them"
        in lines
    )
    assert "then 4 runs of 2 arms, each arm at its best optim.lr, on the seeds 1 and 2" in lines


def test_a_plan_says_which_seeds_confirm_the_best() -> None:
    lines = plan_of(request({**grid(RATES), "confirm": 3}))
    assert "then the best values again, on 3 fresh seeds (2000 to 2002)" in lines


MANY = {
    "question": "Which values?",
    "search": {"method": "random", "samples": 8},
    "space": {
        "optim.lr": {"loguniform": [1e-4, 1e-2]},
        "optim.weight_decay": {"loguniform": [1e-3, 1.0]},
        "optim.beta2": {"uniform": [0.9, 0.99]},
        "optim.batch_size": {"choice": [2, 4, 8]},
        "model.position": {"choice": ["rope", "none"]},
    },
    "seeds": [0, 1],
    "schedule": {"policy": "none"},
}


def drawn(output: str) -> list[str]:
    """The lines that a terminal shows last, without the codes that move its cursor and change colors."""
    last = output.rpartition("\x1b[2K")[2]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last).splitlines()


def heading(output: str) -> set[str]:
    """The words above the last table."""
    lines = drawn(output)
    end = next(number for number, line in enumerate(lines) if "state" in line)
    return {word for line in lines[: end + 1] for word in line.split()}


def test_each_varied_value_has_a_column(tmp_path: Path) -> None:
    table = shown(tmp_path, terminal=True, what=request(MANY), width=120)
    words = "weight batch val lr decay beta2 size position seed state tokens of loss tokens/s"
    assert heading(table) == set(words.split())


def test_a_narrow_table_keeps_the_values_and_leaves_out_how_far_trials_are(tmp_path: Path) -> None:
    table = shown(tmp_path, terminal=True, what=request(MANY), width=74)
    kept = "weight batch val lr decay beta2 size position seed state loss"
    assert heading(table) == set(kept.split())


def test_no_line_of_a_terminal_is_longer_than_it_is_wide(tmp_path: Path) -> None:
    table = shown(tmp_path, terminal=True, what=request(MANY), width=80)
    assert max(map(len, drawn(table))) <= 80


def test_a_value_with_the_name_of_another_column_is_named_by_its_path(tmp_path: Path) -> None:
    table = shown(tmp_path, terminal=True, what=request(BUDGETS))
    assert heading(table) >= {"budget.tokens", "tokens"}


@pytest.mark.parametrize(
    ("more", "asked"),
    [({}, {"arm", "seed"}), ({"retune": RETUNE}, {"arm", "lr", "role"})],
)
def test_a_study_has_columns_of_the_arm_and_the_values_tuned(
    tmp_path: Path, more: dict[str, Any], asked: set[str]
) -> None:
    table = shown(tmp_path, terminal=True, what=request(study(**more)), records=3)
    reached = "state tokens of val loss tokens/s"
    assert heading(table) == asked | set(reached.split())


def test_the_time_left_is_that_of_the_tokens_left_at_the_speed_so_far(tmp_path: Path) -> None:
    """7 records of 1024 tokens took 70 s; the other 92,832 of 100,000 take 907 s."""
    assert "70 s so far, about 15 min left" in shown(tmp_path, terminal=True)


def test_a_low_terminal_says_how_many_trials_it_leaves_out(tmp_path: Path) -> None:
    assert "and 5 more" in shown(tmp_path, terminal=True, height=11)


@pytest.mark.parametrize(
    "line",
    [
        "baseline lr=0.004 (re-tune)  finished, validation loss",
        "nope                      runs at lr=0.004, the best of 3 values, on 2 seeds",
        "nope lr=0.004 seed=1      finished, validation loss",
        "nope                      no difference, after 2 seeds",
    ],
)
def test_a_study_gets_a_line_for_every_choice(tmp_path: Path, line: str) -> None:
    what = request(study(retune=RETUNE))
    assert line in shown(tmp_path, terminal=False, records=1e9, what=what)


def test_the_time_of_a_plan_says_what_it_leaves_out() -> None:
    expected = Forecast(1_000, 1_000, 1_000, 40.0, {1_024: 8.0}, "made-up curves", 8, 8, 8, 6.0)
    file = io.StringIO()
    show_time(expected, [100.0], 2, Console(file=file, width=300))
    assert file.getvalue() == (
        "time: about 46 s, 2 trials at a time, with 6 s of start-up (a trial alone trains at 100 tokens/s here; the "
        "start of Ray, evaluation and the analysis are not included)\n"
    )


def test_a_cap_that_will_be_reached_has_its_unit() -> None:
    what = request({**grid(RATES), "caps": {"hours": 1}})
    expected = Forecast(
        1_000, 1_000, 1_000, 5 * 3600, {1_024: 8.0}, "no early stopping", 8, 8, 8, 900.0
    )
    file = io.StringIO()
    show_forecast(what, expected, 2_000, 0.0, Console(file=file, width=200))
    assert (
        "caps.hours will end the sweep early; without it, it would use about 5.25 hours\n"
        in file.getvalue()
    )


def said_of_inits(*losses: float) -> str:
    """What is printed of trials with tied embeddings of unit variance that start at these losses."""
    tied = {"model.tie_embeddings": True, "model.embedding_std": 1.0}
    config, file = cfg.overlay(cfg.load("smoke"), tied), io.StringIO()
    show_inits([config] * len(losses), losses, Console(file=file, width=200))
    return file.getvalue()


def test_trials_that_start_high_are_counted_with_the_setting_that_helps() -> None:
    assert said_of_inits(6.3, 24.2, 23.0) == (
        "The loss at init is too high in 2 of 3 trials. The highest loss at init, 24.20, is 17.96 nats above ln V (6.24), the "
        "loss of a uniform guess; `model.embedding_std: standard` lowers it.\n"
    )


def test_of_trials_that_start_at_ln_v_nothing_is_said() -> None:
    assert said_of_inits(6.3, 6.2) == ""
