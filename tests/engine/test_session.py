"""What a session does when nothing is left to train: no Ray, and the exit code of what was found."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import MACHINE, Engine, driver, grid, request, v_shaped
from rich.console import Console

from sweeps import ledger as led
from sweeps import steering
from sweeps.engine import session
from sweeps.engine.driver import Driver
from sweeps.engine.machine import CorpusFacts
from sweeps.exits import Code, RefusedError, StorageError, UsageError
from sweeps.plan import trials as pl
from sweeps.plan.request import Request
from tinylm import config as cfg
from tinylm import train
from tinylm.checkpoint import save
from tinylm.data import Corpus, prepare

RATES = [1e-3, 4e-3]
OPTIONS = session.Options("python -m sweeps.run lr", "--out")


@dataclass
class Analysis:
    """Stands in for the analysis: counts how often it is published, and knows the void arms. Somebody asks for
    something while it is written for the first time."""

    void: Sequence[str] = ()
    tested: Sequence[led.Trial] = ()
    late: Sequence[steering.Request] = ()
    published: list[led.Files] = field(default_factory=list)

    def publish(self, files: led.Files) -> None:
        for one in [] if self.published else self.late:
            assert led.has_driver(files)
            steering.ask(files, one)
        self.published.append(files)

    def readers(self) -> session.Readers:
        return session.Readers(
            lambda files, console: self.publish(files),
            lambda sweep: self.void,
            lambda files: [],
            lambda files: self.tested,
        )


def asked(
    folder: Path, base: Mapping[str, float], question: str = "Which rate?", **more: Any
) -> Request:
    """Two rates on the text beside the folder of their sweep, with changes of its base."""
    text = {"data.corpus": "text", "data.path": str(folder.parent / "text.txt")}
    tree = {**grid(RATES, policy="none"), "base": {**text, "model.vocab_size": 257, **base}}
    return request({**tree, "question": question, **more})


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """The folder of a sweep that has nothing left to do, and no analysis."""
    folder = tmp_path / "rates"
    (tmp_path / "text.txt").write_text("one two three\n" * 4000)
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, asked(folder, {}))
        conductor.begin({})
        Engine(conductor, v_shaped).run()
    return folder


def again(folder: Path, analysis: Analysis, **base: float) -> int:
    """The exit code of a session that asks for the same sweep, with changes of its base."""
    what = asked(folder, base)
    return session.run(what, folder, OPTIONS, analysis.readers(), Console(file=io.StringIO()))


def test_a_sweep_that_is_done_exits_0(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert again(done, Analysis()) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_sweep_with_a_void_arm_exits_3_and_names_it(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert again(done, Analysis(void=["nope"])) == 3
    assert (
        "void: arm nope did not apply: its losses equal the baseline's" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("failing", "code"), [((), Code.DONE), (RATES[:1], Code.FAILED), (RATES, Code.NONE_SUCCEEDED)]
)
def test_failed_trials_exit_3_and_4_if_none_succeeded(
    tmp_path: Path, failing: Sequence[float], code: Code
) -> None:
    def how(config: dict[str, Any], share: float) -> float:
        if config["optim"]["lr"] in failing:
            raise ArithmeticError
        return v_shaped(config, share)

    with led.Ledger(led.Files(tmp_path)) as ledger:
        conductor = driver(ledger, request(grid(RATES, policy="none")))
        conductor.begin({})
        Engine(conductor, how).run()
        assert session.exit_code(conductor.sweep, []) == code


def test_the_test_text_is_read_where_a_crash_prevented_it(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoints of this sweep are none, so what is tried is told."""
    trial = next(iter(led.fold(led.read(led.Files(done))).trials.values()))
    again(done, Analysis(tested=[trial]))
    assert "no test loss of lr=0.001: " in capsys.readouterr().err


def test_a_test_text_that_was_read_in_part_is_read_to_the_end(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = led.fold(led.read(led.Files(done))).trials.values()
    read = {"loss": 3.0, "bits_per_byte": 1.0, "tokens": 2048, "split": "ab"}
    with led.Ledger(led.Files(done)) as ledger:
        runs = [first.trial, second.trial]
        ledger.append("tested", runs=runs, trials={first.trial: read})
    again(done, Analysis(tested=[first, second]))
    said = capsys.readouterr().err
    assert ("no test loss of lr=0.004: " in said, "lr=0.001" in said) == (True, False)


def test_a_sweep_that_its_target_has_ended_reads_its_test_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rates"
    (tmp_path / "text.txt").write_text("one two three\n" * 4000)
    what = asked(folder, {}, target={"val_loss": 2.5, "ends": "sweep"})
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = Driver(ledger, what, pl.plan(what, MACHINE), MACHINE, CorpusFacts(print))
        conductor.begin({})
        Engine(conductor, v_shaped, slots=1).run()
        assert conductor.is_capped()
        trials = list(conductor.sweep.trials.values())
    analysis = Analysis(tested=trials[:1])
    ended = session.run(what, folder, OPTIONS, analysis.readers(), Console(file=io.StringIO()))
    assert "no test loss of lr=0.001: " in capsys.readouterr().err
    assert (ended, analysis.published) == (0, [led.Files(folder)])


def test_a_text_that_cannot_be_prepared_again_is_told(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = cfg.overlay(tiny, {"data.test_fraction": 0.2})
    corpus, file = prepare(config), tmp_path / "checkpoint.pt"
    save(file, train.start(config), corpus, config)
    run = replace(next(iter(planned(config).trials.values())), corpus=corpus.digest)
    no_folder = tmp_path / "cache"
    no_folder.write_text("")
    monkeypatch.setenv("TINYLM_CACHE", str(no_folder))
    assert session._read_test_text(run, file) is None
    said = capsys.readouterr().err
    assert said.startswith(f"no test loss of {run.label}: FileExistsError: ")
    assert said.count("\n") == 1


def test_a_sweep_without_a_test_fraction_asks_for_no_runs(tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    (tmp_path / "text.txt").write_text("one two three\n" * 4000)
    what = asked(folder, {"data.test_fraction": 0.0})
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, what)
        conductor.begin({})
        Engine(conductor, v_shaped).run()
    readers = replace(Analysis().readers(), to_test=lambda files: pytest.fail("asked"))
    assert session.run(what, folder, OPTIONS, readers, Console(file=io.StringIO())) == 0


def test_a_run_whose_checkpoint_is_gone_is_told(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = next(iter(led.fold(led.read(led.Files(done))).trials.values()))
    assert session._read_test_text(trial, done / "checkpoint.pt") is None
    assert capsys.readouterr().err == "no test loss of lr=0.001: its checkpoint is gone\n"


def test_a_missing_analysis_is_written(done: Path) -> None:
    analysis = Analysis()
    again(done, analysis)
    assert analysis.published == [led.Files(done)]


def test_an_analysis_that_is_there_is_kept(done: Path) -> None:
    led.write_whole(led.Files(done).summary, b"")
    analysis = Analysis()
    again(done, analysis)
    assert analysis.published == []


def of_rate(folder: Path, rate: float) -> led.Trial:
    trials = led.fold(led.read(led.Files(folder))).trials.values()
    return next(one for one in trials if one.value("optim.lr") == rate)


def stopped_at_its_start(folder: Path) -> Path:
    """A sweep of which one rate has finished, and the other was stopped by hand before it began."""
    (folder.parent / "text.txt").write_text("one two three\n" * 4000)
    what = asked(folder, {})
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = Driver(ledger, what, pl.plan(what, MACHINE), MACHINE, CorpusFacts(print))
        conductor.begin({})
        rate = next(t for t in conductor.sweep.trials.values() if t.value("optim.lr") == 4e-3)
        steering.ask(ledger.files, steering.Request("stop", rate.trial))
        Engine(conductor, v_shaped).run()
    return folder


def test_a_trial_that_is_taken_back_while_the_analysis_is_written_is_left_for_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped_at_its_start(tmp_path / "rates")
    wish = steering.Request("finish", of_rate(folder, 4e-3).trial)
    analysis = Analysis(late=[wish])
    assert (again(folder, analysis), len(analysis.published)) == (Code.CAPPED, 2)
    assert capsys.readouterr().err == (
        "lr=0.004 is to be trained to its end, as was asked at the end\n"
        "To go on: python -m sweeps.run lr\n"
    )
    assert not led.Files(folder).requests.exists()
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, asked(folder, {}))
        conductor.begin({})
        Engine(conductor, v_shaped).run()
    assert of_rate(folder, 4e-3).status == "finished"


LATE: dict[str, tuple[led.Action, str]] = {
    "end": ("end", "end was asked for when nothing was training; nothing was changed"),
    "a finished trial": ("stop", "stop lr=0.001: it has finished; nothing was changed"),
}


@pytest.mark.parametrize("what", LATE)
def test_what_can_not_be_done_while_the_analysis_is_written_is_told(
    done: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    action, why = LATE[what]
    trial = "" if action == "end" else of_rate(done, 1e-3).trial
    analysis = Analysis(late=[steering.Request(action, trial)])
    assert (again(done, analysis), len(analysis.published)) == (0, 1)
    assert capsys.readouterr().err == f"{done}: {why}\n"
    assert not led.Files(done).requests.exists()


def test_what_was_asked_of_a_driver_that_was_killed_is_done_before_the_next_one(
    tmp_path: Path,
) -> None:
    folder = stopped_at_its_start(tmp_path / "rates")
    trial = of_rate(folder, 4e-3).trial
    with led.Ledger(led.Files(folder)) as ledger:
        ledger.append("steered", action="finish", trial=trial, tokens=0)
    steering.ask(led.Files(folder), steering.Request("stop", trial))
    assert again(folder, Analysis()) == 0
    assert of_rate(folder, 4e-3).is_stopped_by_hand


def test_a_refused_sweep_says_what_to_do(done: Path) -> None:
    with pytest.raises(RefusedError, match="undo this change, or choose another --out"):
        again(done, Analysis(), **{"optim.weight_decay": 0.3})


def planned(config: cfg.Config) -> led.Sweep:
    """A sweep with one trial, planned on a corpus that has changed since."""
    row = {"label": "lr=1", "config": config.model_dump(), "values": {}, "seed": 0, "params": 1}
    row |= {"flops_per_token": 1, "unigram_entropy": 1.0, "train_tokens": 1, "draws": None}
    row |= {"kind": "planned", "trial": "a" * 12, "role": "search", "corpus": "another"}
    sweep = led.Sweep()
    sweep.observe({"seq": 0, "time": "2026-01-01T00:00:00+00:00", "arm": None, "grid": None, **row})
    return sweep


def test_a_changed_corpus_is_refused_while_trials_are_unfinished(tiny: cfg.Config) -> None:
    with pytest.raises(RefusedError, match="has changed since the sweep began"):
        session.refuse_other_corpus(planned(tiny), CorpusFacts(lambda message: None))


class Unreachable(CorpusFacts):
    """Corpora that can't be had."""

    def corpus(self, config: cfg.Config) -> Corpus:
        raise cfg.ConfigError([f"{config.data.corpus} can't be downloaded"])


def test_a_plan_of_a_sweep_that_began_elsewhere_downloads_nothing() -> None:
    sweep = planned(request({**grid(RATES), "base": {"data.corpus": "tinystories"}}).base)
    facts = Unreachable(lambda message: None)
    session.refuse_other_corpus(sweep, facts, downloads=False)
    with pytest.raises(cfg.ConfigError, match="tinystories can't be downloaded"):
        session.refuse_other_corpus(sweep, facts)


def test_gpus_are_not_declared_of_a_running_cluster(tmp_path: Path) -> None:
    options = replace(OPTIONS, address="auto", gpus=2)
    with pytest.raises(UsageError, match="--gpus 2: a running cluster has its own"):
        session.run(
            asked(tmp_path, {}),
            tmp_path,
            options,
            Analysis().readers(),
            Console(file=io.StringIO()),
        )


def test_where_ray_cannot_start_no_text_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("four five six\n" * 4000)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/".ljust(99, "a"))
    with pytest.raises(StorageError, match="Set TMPDIR to a shorter path"):
        again(tmp_path / "rates", Analysis())
    assert "preparing" not in capsys.readouterr().out
    assert not (tmp_path / "rates").exists()


def test_a_change_of_the_space_that_needs_no_training_is_written_and_told(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analysis = Analysis()
    what = asked(done, {}, "Again?")
    code = session.run(what, done, OPTIONS, analysis.readers(), Console(file=io.StringIO()))
    sweep = led.fold(led.read(led.Files(done)))
    assert sweep.request and sweep.request["space"]["question"] == "Again?"
    assert (code, len(analysis.published)) == (0, 1)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{done}: nothing is left to train",
        "writing the analysis",
    ]


def test_a_sweep_goes_on_with_the_settings_that_it_began_with(tmp_path: Path) -> None:
    """Whatever is the fastest here."""
    began = request({**grid(RATES, policy="none"), "base": {"run.precision": "bf16"}})
    now = request({**grid(RATES, policy="none"), "base": {"run.precision": "fastest"}})
    rows = [{"kind": "sweep", **began.row()}]
    assert session.with_choices(now, rows, print) == (replace(now, base=began.base), [])


# Another program

FIRST = led.Program("a" * 12, "2.1", "2.4")
ASHA: dict[str, Any] = {"policy": "asha", "eta": 2, "grace": "1/8"}
FURTHER = [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5]


def begun(
    folder: Path,
    *programs: led.Program,
    records: int = 8,
    more: Sequence[float] = (),
    **schedule: Any,
) -> Driver:
    """The driver, with `more` rates, of a sweep whose trials were begun and trained a while in a session of
    each program."""
    for program in programs:
        with led.Ledger(led.Files(folder)) as ledger:
            conductor = driver(ledger, request(grid(RATES, **(schedule or {"policy": "none"}))))
            conductor.begin(
                {"code": program.code, "versions": {"torch": program.torch, "numpy": program.numpy}}
            )
            Engine(conductor, v_shaped).run(records)
            if not conductor.has_work():
                conductor.end()
    now = grid([*RATES, *more], **(schedule or {"policy": "none"}))
    return driver(led.ReadLedger(led.Files(folder)), request(now))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (led.Program("b" * 12, "2.1"), "tinylm was aaaaaaaaaaaa, it is bbbbbbbbbbbb here"),
        (led.Program("a" * 12, "2.2"), "torch was 2.1, it is 2.2 here"),
        (led.Program("a" * 12, "2.1", "2.5"), "numpy was 2.4, it is 2.5 here"),
    ],
)
@pytest.mark.fault(
    "other training code or another torch at a resume", "exit code 9, with both versions"
)
def test_runs_that_were_begun_do_not_go_on_under_another_program(
    tmp_path: Path, now: led.Program, told: str
) -> None:
    rule = rf"{told} \(lr=0.001, lr=0.004\)\n.* add --allow code$"
    with pytest.raises(RefusedError, match=rule):
        session.refuse_other_code(begun(tmp_path, FIRST), lambda: now)


@pytest.mark.parametrize("now", [FIRST, led.Program(None, "2.1"), led.Program("a" * 12, None)])
def test_runs_go_on_under_the_program_that_they_were_begun_with(
    tmp_path: Path, now: led.Program
) -> None:
    """An old ledger does not say with which code."""
    session.refuse_other_code(begun(tmp_path, FIRST), lambda: now)


def test_a_change_that_was_allowed_once_is_not_refused_again(tmp_path: Path) -> None:
    other = led.Program("b" * 12, "2.1")
    session.refuse_other_code(begun(tmp_path, FIRST, other), lambda: other)


@pytest.mark.parametrize("records", [0, 1000], ids=["none begun", "all finished"])
def test_trials_of_which_none_goes_on_may_run_under_another_program(
    tmp_path: Path, records: int
) -> None:
    conductor = begun(tmp_path, FIRST, records=records)
    session.refuse_other_code(conductor, lambda: led.Program("b" * 12, "2.2"))


def test_a_sweep_that_ended_may_be_shown_under_another_program(tmp_path: Path) -> None:
    conductor = begun(tmp_path, FIRST, records=1000, **ASHA)
    session.refuse_other_code(conductor, lambda: led.Program("b" * 12, "2.1"))


def test_stopped_runs_that_more_values_may_promote_do_not_go_on_under_another_program(
    tmp_path: Path,
) -> None:
    conductor = begun(tmp_path, FIRST, records=1000, more=FURTHER, **ASHA)
    with pytest.raises(RefusedError, match="add --allow code"):
        session.refuse_other_code(conductor, lambda: led.Program("b" * 12, "2.1"))
