"""A driver that is steered while it runs, on made-up losses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, arm, conduct, facts_of, steer, study
from conducting import loss as losses
from fakes import Engine, Loss, driver, grid, request, v_shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import ledger as led
from sweeps.engine.driver import Driver
from sweeps.engine.left import Left
from sweeps.steering import Request, ask, settle, waits

RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.128, 0.256]
POLICIES = ["asha", "sha", "hyperband", "i_epoch", "median", "asha_stopping", "none"]
FIRST_RUNG = 1024


def schedule(policy: str) -> dict[str, Any]:
    """A space of the rates under a policy."""
    more = {} if policy == "none" else {"grace": "1/8"}
    return grid(RATES, policy=policy, **more)


@contextmanager
def going(
    folder: Path, tree: dict[str, Any], loss: Loss = v_shaped, slots: int = 2
) -> Iterator[Engine]:
    """A session of a sweep that can be run record by record."""
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(tree))
        conductor.begin({})
        yield Engine(conductor, loss, slots)


def of_rate(conductor: Driver, rate: float) -> led.Trial:
    """The first trial of a rate."""
    trials = conductor.sweep.trials.values()
    return next(one for one in trials if one.value("optim.lr") == rate)


def asked(engine: Engine, action: Any, rate: float) -> Request:
    """A request about the trial of a rate, which waits for the driver."""
    one = Request(action, of_rate(engine.driver, rate).trial)
    ask(engine.driver.ledger.files, one)
    return one


def read(folder: Path) -> led.Sweep:
    return led.fold(led.read(led.Files(folder)))


def steered(folder: Path) -> list[tuple[str, int]]:
    rows = led.read(led.Files(folder))
    return [(row["action"], row.get("tokens", 0)) for row in rows if row["kind"] == "steered"]


def test_a_trial_that_trains_is_stopped_at_its_next_record_and_the_request_is_gone(
    tmp_path: Path,
) -> None:
    with going(tmp_path, schedule("none")) as engine:
        engine.run(2)  # a record of each of the first two
        one = asked(engine, "stop", 1e-3)
        engine.run(1)
        trial = of_rate(engine.driver, 1e-3)
        said = (trial.status, trial.reason, trial.tokens, trial.step * 256)
        assert said == ("stopped", "stopped by hand", 2048, 2048)
        assert not waits(engine.driver.ledger.files, one)
    assert steered(tmp_path) == [("stop", 2048)]


def test_a_trial_that_is_stopped_leaves_a_checkpoint_of_its_last_record(tmp_path: Path) -> None:
    """Also where none was due."""
    tree = schedule("none") | {"base": {"run.checkpoint_every_tokens": 8192}}
    with going(tmp_path, tree) as engine:
        engine.run(2)
        asked(engine, "stop", 1e-3)
        engine.run(1)
        saved = of_rate(engine.driver, 1e-3).checkpoint
    assert saved is not None and saved["tokens"] == 2048


def test_a_slot_that_a_stopped_trial_left_takes_the_next_one(tmp_path: Path) -> None:
    with going(tmp_path, schedule("none")) as engine:
        engine.run(2)
        asked(engine, "stop", 1e-3)
        engine.run(3)
        labels = sorted(trial.label for trial in engine.driver.state.under_way)
        assert (labels, engine.most) == (["lr=0.002", "lr=0.004"], 2)


def test_a_trial_that_has_not_started_never_does(tmp_path: Path) -> None:
    with going(tmp_path, schedule("none")) as engine:
        engine.run(1)
        asked(engine, "stop", 8e-3)
        engine.run()
    trials = {trial.label: trial for trial in read(tmp_path).trials.values()}
    never = trials.pop("lr=0.008")
    assert (never.status, never.attempt, never.curve) == ("stopped", 0, [])
    assert {trial.status for trial in trials.values()} == {"finished"}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("records", [1, 5, 9, 13])
def test_a_trial_that_is_stopped_gets_no_further_tokens_and_the_sweep_ends(
    tmp_path: Path, policy: str, records: int
) -> None:
    """Whatever it does then: it waits to start, trains, waits at a rung or has ended."""
    with going(tmp_path, schedule(policy)) as engine:
        engine.run(records)
        before = of_rate(engine.driver, 2e-3)
        asked(engine, "stop", 2e-3)
        had, running = before.tokens, before.status == "running"
        engine.run()
        assert not engine.driver.has_work()
    trials = {trial.label: trial for trial in read(tmp_path).trials.values()}
    one = trials["lr=0.002"]
    ended_before = not one.is_stopped_by_hand
    assert ended_before or one.tokens - had <= 1024 * running
    assert {trial.status for trial in trials.values()} <= {"finished", "stopped"}
    assert any(trial.status == "finished" for trial in trials.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("rate", [1e-3, 0.256])
@pytest.mark.parametrize("records", [1, 5, 9])
def test_a_trial_that_is_to_be_finished_is_trained_to_its_end(
    tmp_path: Path, policy: str, rate: float, records: int
) -> None:
    """Also the worst of all, and the best is trained to its end beside it."""
    with going(tmp_path, schedule(policy)) as engine:
        engine.run(records)
        asked(engine, "finish", rate)
        engine.run()
        assert not engine.driver.has_work()
    trials = read(tmp_path).trials.values()
    finished = {trial.value("optim.lr") for trial in trials if trial.status == "finished"}
    assert finished >= {rate, 4e-3}


@pytest.mark.parametrize("policy", ["asha", "sha", "i_epoch", "median", "asha_stopping"])
def test_a_trial_that_is_to_be_finished_while_it_trains_neither_pauses_nor_holds_up_the_others(
    tmp_path: Path, policy: str
) -> None:
    """The worst of three has had one record of the two before the first rung; a better one goes on from there
    before it has finished."""
    with going(tmp_path, grid([0.256, 4e-3, 8e-3], policy=policy, grace="1/4")) as engine:
        engine.run(1)
        asked(engine, "finish", 0.256)
        engine.run()
    trial, best = (of_rate(engine.driver, rate) for rate in (0.256, 4e-3))
    assert (trial.status, trial.attempt, best.status) == ("finished", 1, "finished")
    rows = [(row["kind"], row.get("trial")) for row in led.read(led.Files(tmp_path))]
    assert rows.index(("promoted", best.trial)) < rows.index(("finished", trial.trial))


@pytest.mark.parametrize("policy", ["asha", "sha", "i_epoch"])
def test_a_trial_that_waits_at_a_rung_is_no_candidate_once_it_is_stopped(
    tmp_path: Path, policy: str
) -> None:
    """The best one: another is promoted in its place."""
    with going(tmp_path, schedule(policy), slots=1) as engine:
        while of_rate(engine.driver, 4e-3).status != "paused":
            engine.run(1)
        asked(engine, "stop", 4e-3)
        engine.run()
    trials = {trial.label: trial for trial in read(tmp_path).trials.values()}
    assert (trials["lr=0.004"].status, trials["lr=0.004"].tokens) == ("stopped", FIRST_RUNG)
    finished = [label for label, trial in trials.items() if trial.status == "finished"]
    assert finished and set(finished) <= {"lr=0.002", "lr=0.008"}


def test_the_losses_of_a_stopped_trial_stay_in_the_ranks_of_the_others(tmp_path: Path) -> None:
    with going(tmp_path, schedule("asha"), slots=1) as engine:
        while of_rate(engine.driver, 4e-3).status != "paused":
            engine.run(1)
        asked(engine, "stop", 4e-3)
        engine.run()
    rows = [row for row in read(tmp_path).decisions if row["kind"] == "promoted"]
    first = [(row["rank"], row["arrived"]) for row in rows if row["rung"] == FIRST_RUNG]
    assert first == [(2, 9), (3, 9)]


def test_what_somebody_finishes_is_none_of_those_that_the_policy_lets_finish(
    tmp_path: Path,
) -> None:
    """Two rates, of which the policy finishes one; the worse one is finished by hand."""
    with going(tmp_path, grid([4e-3, 0.256], policy="asha", grace="1/8"), slots=1) as engine:
        engine.run(1)
        asked(engine, "finish", 0.256)
        engine.run()
    assert [trial.status for trial in read(tmp_path).trials.values()] == ["finished", "finished"]


def test_a_trial_that_was_stopped_can_be_finished_after_all(tmp_path: Path) -> None:
    with going(tmp_path, schedule("none")) as engine:
        engine.run(2)
        asked(engine, "stop", 1e-3)
        engine.run(3)
        asked(engine, "finish", 1e-3)
        engine.run()
    one = next(iter(read(tmp_path).trials.values()))
    assert (one.status, one.by_hand, one.attempt) == ("finished", "finish", 2)
    assert steered(tmp_path) == [("stop", 2048), ("finish", 2048)]


def test_a_request_about_a_trial_that_has_ended_changes_nothing_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with going(tmp_path, schedule("none")) as engine:
        while of_rate(engine.driver, 1e-3).status != "finished":
            engine.run(1)
        one = asked(engine, "stop", 1e-3)
        engine.run()
        assert not waits(engine.driver.ledger.files, one)
    assert steered(tmp_path) == []
    said = "stop lr=0.001: it has finished; nothing was changed"
    assert capsys.readouterr().err == f"{tmp_path}: {said}\n"
    assert read(tmp_path).refused == said


def test_a_request_about_a_trial_that_there_is_not_changes_nothing_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with going(tmp_path, schedule("none")) as engine:
        ask(engine.driver.ledger.files, Request("finish", "nobody"))
        engine.run()
        assert not waits(engine.driver.ledger.files, Request("finish", "nobody"))
    assert steered(tmp_path) == []
    said = "finish nobody: no such trial; nothing was changed"
    assert capsys.readouterr().err == f"{tmp_path}: {said}\n"
    assert read(tmp_path).refused == said


def test_the_next_request_that_is_done_or_the_next_session_forgets_a_refusal(
    tmp_path: Path,
) -> None:
    with going(tmp_path, schedule("none")) as engine:
        engine.run(1)
        files = engine.driver.ledger.files
        ask(files, Request("finish", "nobody"))
        engine.run(1)
        assert engine.driver.sweep.refused
        asked(engine, "stop", 1e-3)
        engine.run(1)
        assert not engine.driver.sweep.refused
        ask(files, Request("finish", "nobody"))
        engine.run(1)
    with going(tmp_path, schedule("none")) as engine:
        assert not engine.driver.sweep.refused


def test_a_run_of_a_study_that_was_stopped_can_be_finished_after_all(tmp_path: Path) -> None:
    tree = study(seeds=[0, 1, 2, 3])
    after = stopping_nope(tmp_path, tree, lambda one: one.arm == "nope" and one.seed == 2)
    gone = next(one for one in after.trials.values() if one.is_stopped_by_hand)
    ask(led.Files(tmp_path), Request("finish", gone.trial))
    settle(led.Files(tmp_path))
    assert conduct(tmp_path, tree, losses).trials[gone.trial].status == "finished"


def test_a_trial_that_diverges_at_the_record_at_which_it_would_be_stopped_has_diverged(
    tmp_path: Path,
) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        return float("inf") if config["optim"]["lr"] == 1e-3 and share > 0.2 else 3.0 - share

    with going(tmp_path, schedule("none"), how) as engine:
        engine.run(2)
        asked(engine, "stop", 1e-3)
        engine.run()
    assert next(iter(read(tmp_path).trials.values())).status == "diverged"
    assert steered(tmp_path) == []


def test_a_trial_that_fails_before_the_record_at_which_it_would_be_stopped_is_not_tried_again(
    tmp_path: Path,
) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        if config["optim"]["lr"] == 1e-3 and share > 0.2:
            raise ArithmeticError
        return 3.0 - share

    with going(tmp_path, schedule("none"), how) as engine:
        engine.run(2)
        asked(engine, "stop", 1e-3)
        engine.run()
    one = next(iter(read(tmp_path).trials.values()))
    assert (one.status, one.attempt) == ("stopped", 1)


END = Request("end")


def ended(folder: Path, tree: dict[str, Any], records: float) -> Driver:
    """A sweep that is ended by hand after so many records."""
    with going(folder, tree) as engine:
        engine.run(records)
        ask(engine.driver.ledger.files, END)
        engine.run()
        assert not waits(engine.driver.ledger.files, END)
    return engine.driver


def test_what_trains_goes_on_to_its_end_and_nothing_new_starts(tmp_path: Path) -> None:
    conductor = ended(tmp_path, schedule("none"), 3)
    statuses = [trial.status for trial in conductor.sweep.trials.values()]
    assert statuses == ["finished"] * 2 + ["planned"] * 7
    assert conductor.is_capped()


def test_what_trains_goes_on_to_its_next_rung(tmp_path: Path) -> None:
    tree = schedule("asha") | {"schedule": {"policy": "asha", "grace": "1/4"}}
    conductor = ended(tmp_path, tree, 3)
    statuses = [trial.status for trial in conductor.sweep.trials.values()]
    assert statuses == ["paused"] * 2 + ["planned"] * 7


def test_what_waits_when_a_sweep_is_ended_is_not_stopped(tmp_path: Path) -> None:
    conductor = ended(tmp_path, schedule("asha"), 5)
    assert not any(trial.status == "stopped" for trial in conductor.sweep.trials.values())


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_command_goes_on_with_a_sweep_that_was_ended(tmp_path: Path, policy: str) -> None:
    ended(tmp_path / "cut", schedule(policy), 5)
    with going(tmp_path / "cut", schedule(policy)) as engine:
        assert engine.driver.has_work() and not engine.driver.is_capped()
        engine.run()
        assert not engine.driver.has_work()
    after = read(tmp_path / "cut").trials.values()
    assert any(one.value("optim.lr") == 4e-3 and one.status == "finished" for one in after)


def test_a_sweep_is_ended_once(tmp_path: Path) -> None:
    with going(tmp_path, schedule("none")) as engine:
        engine.run(3)
        ask(engine.driver.ledger.files, END)
        engine.run(1)
        ask(engine.driver.ledger.files, END)
        engine.run()
    assert steered(tmp_path) == [("end", 0)]


def test_a_sweep_that_has_nothing_left_when_it_is_ended_ends_as_usual(tmp_path: Path) -> None:
    conductor = ended(tmp_path, grid(RATES[:2], policy="none"), 3)
    assert not conductor.is_capped()
    assert [trial.status for trial in conductor.sweep.trials.values()] == ["finished"] * 2


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("action", ["stop", "finish"])
def test_a_crash_after_a_trial_was_steered_changes_nothing(
    tmp_path: Path, policy: str, action: str
) -> None:
    def run(folder: Path, cut: bool) -> list[tuple[str, str, int]]:
        with going(folder, schedule(policy), slots=1) as engine:
            engine.run(4)
            asked(engine, action, 8e-3)
            engine.run(2 if cut else 1e9)
        if cut:
            with going(folder, schedule(policy), slots=1) as engine:
                engine.run()
        trials = read(folder).trials.values()
        return [(trial.label, trial.status, trial.tokens) for trial in trials]

    assert run(tmp_path / "cut", cut=True) == run(tmp_path / "whole", cut=False)


def test_a_policy_that_is_set_up_again_has_seen_the_losses_before_a_trial_was_steered(
    tmp_path: Path,
) -> None:
    """A driver that resumes decides as the one before would have."""
    with going(tmp_path, schedule("asha"), slots=1) as engine:
        while of_rate(engine.driver, 4e-3).status != "paused":
            engine.run(1)
        asked(engine, "finish", 4e-3)
        engine.run(6)
    with going(tmp_path, schedule("asha"), slots=1) as engine:
        engine.run()
    rows = [row for row in read(tmp_path).decisions if row["kind"] == "promoted"]
    first = [(row["rank"], row["arrived"]) for row in rows if row["rung"] == FIRST_RUNG]
    assert first == [(2, 9), (3, 9)]


def test_a_trial_that_somebody_stopped_is_not_audited(tmp_path: Path) -> None:
    with going(tmp_path, schedule("asha")) as engine:
        engine.run(1)
        asked(engine, "stop", 2e-3)
        engine.run()
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(schedule("asha")), audit=1.0)
        conductor.begin({})
        Engine(conductor, v_shaped).run()
    after = read(tmp_path)
    others = {t.trial for t in after.trials.values() if t.status == "stopped" and not t.by_hand}
    assert after.audit_of.keys() == others
    assert {
        row["stopped"] for row in led.read(led.Files(tmp_path)) if row["kind"] == "audited"
    } == {len(others)}


SEEDS = {**grid(RATES), "seeds": [0, 1]}


def test_no_further_seed_starts_of_a_value_whose_first_is_stopped_before_its_rung(
    tmp_path: Path,
) -> None:
    with going(tmp_path, SEEDS) as engine:
        asked(engine, "stop", 4e-3)
        engine.run()
    assert [t.seed for t in read(tmp_path).trials.values() if t.value("optim.lr") == 4e-3] == [0]


def test_no_further_seed_starts_of_a_value_that_waits_and_whose_only_one_is_stopped(
    tmp_path: Path,
) -> None:
    """It waits at its second rung when the sweep is ended; then it is stopped, and a seed more is asked for."""
    with going(tmp_path, schedule("asha"), slots=1) as engine:

        def waiting() -> list[led.Trial]:
            trials = engine.driver.sweep.trials.values()
            return [t for t in trials if t.status == "paused" and t.tokens > FIRST_RUNG]

        while not waiting():
            engine.run(1)
        one = waiting()[0]
    with going(tmp_path, SEEDS) as engine:
        ask(engine.driver.ledger.files, Request("stop", one.trial))
        engine.run()
        assert not engine.driver.has_work()
    rate = one.value("optim.lr")
    assert [t.seed for t in read(tmp_path).trials.values() if t.value("optim.lr") == rate] == [0]


def test_a_value_of_which_a_seed_is_stopped_is_judged_by_the_others(tmp_path: Path) -> None:
    """The best value has passed its first rung when its second seed is stopped; the first goes on."""
    with going(tmp_path, SEEDS) as engine:
        while len(seeds_of(engine.driver, 4e-3)) < 2:
            engine.run(1)
        ask(engine.driver.ledger.files, Request("stop", seeds_of(engine.driver, 4e-3)[1].trial))
        engine.run()
        assert not engine.driver.has_work()
    ends = [one.status for one in read(tmp_path).trials.values() if one.value("optim.lr") == 4e-3]
    assert ends == ["finished", "stopped"]


def seeds_of(conductor: Driver, rate: float) -> list[led.Trial]:
    """The trials of a rate, by seed."""
    trials = conductor.sweep.trials.values()
    return [one for one in trials if one.value("optim.lr") == rate]


def test_a_value_has_finished_once_its_last_seed_is_stopped(tmp_path: Path) -> None:
    """So the policy lets no other value finish in its place."""
    tree = {**grid([2e-3, 4e-3], policy="asha", grace="1/8"), "seeds": [0, 1]}
    with going(tmp_path, tree, slots=1) as engine:
        while not any(one.status == "finished" for one in seeds_of(engine.driver, 4e-3)):
            engine.run(1)
        left = [one for one in seeds_of(engine.driver, 4e-3) if one.status != "finished"]
        ask(engine.driver.ledger.files, Request("stop", left[0].trial))
        engine.run()
    ends = [(one.value("optim.lr"), one.status) for one in read(tmp_path).trials.values()]
    assert sorted(ends) == [(2e-3, "stopped"), (4e-3, "finished"), (4e-3, "stopped")]


def test_a_seed_whose_value_was_promoted_is_not_promoted_once_it_is_stopped(tmp_path: Path) -> None:
    tree = {**grid(RATES, policy="asha", grace="1/8"), "seeds": [0, 1]}
    with going(tmp_path, tree, slots=1) as engine:

        def promoted() -> list[led.Row]:
            rows = engine.driver.sweep.decisions
            return [row for row in rows if row["kind"] == "promoted" and row["rung"] > FIRST_RUNG]

        while not promoted():
            engine.run(1)
        (first,) = promoted()
        rate = engine.driver.sweep.trials[first["trial"]].value("optim.lr")
        (other,) = [t for t in seeds_of(engine.driver, rate) if t.trial != first["trial"]]
        assert other.status == "paused"
        ask(engine.driver.ledger.files, Request("stop", other.trial))
        engine.run()
        assert not any(row["trial"] == other.trial for row in promoted())
    assert read(tmp_path).trials[other.trial].status == "stopped"


def test_what_is_left_of_a_sweep_is_without_what_somebody_stopped(tmp_path: Path) -> None:
    with going(tmp_path, grid([1e-3, 4e-3], policy="none")) as engine:
        engine.run(2)
        asked(engine, "stop", 1e-3)
        engine.run(1)
        assert Left.of(engine.driver.state).tokens == 8192 - 1024


def test_an_arm_all_of_whose_grid_was_stopped_is_not_settled(tmp_path: Path) -> None:
    tree = study(retune={"optim.lr": {"grid": [1e-3, 4e-3]}})
    with going(tmp_path, tree, losses) as engine:
        for one in list(engine.driver.sweep.trials.values()):
            if one.arm == "nope":
                ask(engine.driver.ledger.files, Request("stop", one.trial))
        engine.run()
    assert read(tmp_path).chosen.keys() == {"baseline"}


def stopping_nope(
    folder: Path, tree: dict[str, Any], choose: Callable[[led.Trial], bool]
) -> led.Sweep:
    """A study in which the first run of the arm that is chosen is stopped as soon as it is planned."""
    with going(folder, tree, losses) as engine:
        done = False
        while not done:
            engine.run(1)
            for one in engine.driver.sweep.trials.values():
                if choose(one):
                    ask(engine.driver.ledger.files, Request("stop", one.trial))
                    done = True
                    break
        engine.run()
        assert engine.driver.is_done()
    return read(folder)


def test_a_study_whose_run_is_stopped_is_looked_at_without_it(tmp_path: Path) -> None:
    tree = study(seeds=[0, 1, 2, 3])
    after = stopping_nope(tmp_path, tree, lambda one: one.arm == "nope" and one.seed == 2)
    assert after.looks[-1]["arms"]["nope"]["n"] == 3


@pytest.mark.parametrize(
    ("arm_of", "words"), [("nope", "1 of its 4 runs"), ("baseline", "1 of the baseline's 4 runs")]
)
def test_a_verdict_without_a_run_that_was_stopped_says_so(
    tmp_path: Path, arm_of: str, words: str
) -> None:
    """Who stops a bad seed by hand has chosen the seeds."""
    tree = study(seeds=[0, 1, 2, 3])
    stopping_nope(tmp_path, tree, lambda one: one.arm == arm_of and one.seed == 2)
    assert arm(facts_of(tmp_path))["words"].endswith(f": {words} was stopped by hand")


@pytest.mark.parametrize(
    ("arm_of", "words"), [("nope", "1 of its 2 runs"), ("baseline", "1 of the baseline's 2 runs")]
)
def test_an_open_verdict_without_a_run_that_was_stopped_says_so(
    tmp_path: Path, arm_of: str, words: str
) -> None:
    stopping_nope(tmp_path, study(), lambda one: one.arm == arm_of and one.seed == 1)
    said = f"no conclusion yet: one seed has no interval; {words} was stopped by hand"
    assert arm(facts_of(tmp_path))["words"] == said


def test_a_run_that_was_stopped_is_not_under_way(tmp_path: Path) -> None:
    tree = study(seeds=[0, 1, 2])
    conduct(tmp_path, tree, records=1)
    steer(tmp_path, "stop", lambda one: one.arm == "nope" and one.seed == 1)
    conduct(tmp_path, tree, records=35)
    words = "no conclusion yet: its runs are at 4,096 of 8,192 tokens; 1 of its 3 runs was stopped by hand"
    assert arm(facts_of(tmp_path))["words"] == words


def test_a_verdict_says_that_a_trial_of_the_baselines_grid_was_stopped(tmp_path: Path) -> None:
    """A baseline that is tuned worse flatters the arm."""
    tree = study(retune={"optim.lr": {"grid": [2e-3, 4e-3]}}, seeds=[0, 1, 2, 3])

    def is_best(one: led.Trial) -> bool:
        return (one.role, one.arm, one.value("optim.lr")) == ("tuning", "baseline", 4e-3)

    stopping_nope(tmp_path, tree, is_best)
    words = "1 of the 2 trials of the baseline's re-tune grid was stopped by hand"
    assert arm(facts_of(tmp_path))["words"].endswith(f": {words}")


def test_a_re_tune_grid_of_which_a_trial_is_stopped_chooses_from_the_others(tmp_path: Path) -> None:
    tree = study(retune={"optim.lr": {"grid": [1e-3, 4e-3]}}, arms={"nope": NOPE})

    def is_best(one: led.Trial) -> bool:
        return one.role == "tuning" and one.arm == "nope" and one.value("optim.lr") == 1e-3

    chosen = stopping_nope(tmp_path, tree, is_best).chosen["nope"]
    assert (chosen["values"], chosen["tried"]) == ({"optim.lr": 4e-3}, 2)


def test_an_optuna_search_counts_a_trial_that_is_stopped(tmp_path: Path) -> None:
    tree = {
        **grid(RATES, policy="none"),
        "search": {"method": "optuna", "samples": 4},
        "space": {"optim.lr": {"loguniform": [1e-3, 1e-1]}},
    }
    with going(tmp_path, tree) as engine:
        engine.run(2)
        first = next(iter(engine.driver.sweep.trials.values()))
        ask(engine.driver.ledger.files, Request("stop", first.trial))
        engine.run()
    statuses = [trial.status for trial in read(tmp_path).trials.values()]
    assert statuses == ["stopped"] + ["finished"] * 3


def test_an_audit_can_be_stopped(tmp_path: Path) -> None:
    conduct(tmp_path, schedule("asha"), v_shaped)
    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(schedule("asha")), audit=0.1)
        conductor.begin({})
        engine = Engine(conductor, v_shaped)
        engine.run(1)
        (audit,) = conductor.sweep.audits.values()
        ask(ledger.files, Request("stop", audit.trial))
        engine.run()
        assert (audit.status, conductor.has_work()) == ("stopped", False)


STEERED = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(["stop", "finish"]), st.integers(0, 20)),
    min_size=1,
    max_size=6,
)


@given(
    policy=st.sampled_from(POLICIES),
    grace=st.sampled_from(["1/8", "1/4"]),
    seeds=st.integers(1, 3),
    slots=st.integers(1, 3),
    steered=STEERED,
)
@settings(max_examples=50)
def test_whatever_is_asked_and_when_every_trial_ends_as_it_was_asked(
    tmp_path_factory: pytest.TempPathFactory,
    policy: str,
    grace: str,
    seeds: int,
    slots: int,
    steered: list[tuple[int, Any, int]],
) -> None:
    more = {} if policy == "none" else {"grace": grace}
    tree = {**grid(RATES[:5], policy=policy, **more), "seeds": list(range(seeds))}
    with going(tmp_path_factory.mktemp("steered"), tree, slots=slots) as engine:
        for records, action, number in steered:
            engine.run(records)
            trials = list(engine.driver.sweep.trials.values())
            ask(engine.driver.ledger.files, Request(action, trials[number % len(trials)].trial))
        engine.run(1000)
        assert not (engine.running or engine.driver.has_work())
        found = engine.driver.sweep.trials.values()
        ends = {"stop": "stopped", "finish": "finished"}
        assert all(one.status == ends[one.by_hand] for one in found if one.by_hand in ends)
        assert {one.status for one in found} <= {"finished", "stopped"}
