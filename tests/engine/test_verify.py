"""Trials that are trained again: what is equal, what differs, and what is said of it."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from ledgers import BUDGET, EVERY, lr_sweep, story
from typer.testing import CliRunner, Result

from sweeps import ledger as led
from sweeps.commands import verify as command
from sweeps.engine import provenance
from sweeps.engine.verify import Change, Point, Verified, compare, differing, find_trials, recorded
from sweeps.exits import UsageError
from tinylm import config as cfg
from tinylm import train
from tinylm.data import Corpus

HERE: dict[str, Any] = {
    "code": "aaa",
    "versions": {"torch": "2.7", "numpy": "2.0", "ray": "2.60"},
    "machine": {"processor": "x86", "cpus": 2},
}
CODE = Change("code", "the training code of tinylm was bbb, it is aaa here")
MACHINE = Change("machine", "processor was arm, it is x86 here")
HUGE_BATCHES = {
    "optim.batch_size": 10**12,
    "budget.tokens": 11 * 13 * 10**12,
    "eval.every_tokens": 3 * 13 * 10**12,
    "run.checkpoint_every_tokens": 3 * 13 * 10**12,
}
RECORDS = [Point(3, (5.0, 6.0, 7.0)), Point(6, (4.0, 5.0, 6.0))]


@dataclass
class Sweep:
    """A sweep of one trial, trained without Ray."""

    files: led.Files
    records: list[train.Record]

    def verify(self, *more: str) -> Result:
        """What the command says of it."""
        return CliRunner().invoke(command.app, [str(self.files.folder), *more])


def begin(files: led.Files, config: cfg.Config, corpus: str, **session: Any) -> led.Ledger:
    """A ledger in which this program, or the given one, starts to train a trial."""
    ledger = led.Ledger(files)
    space = {
        "question": "q?",
        "search": {"method": "grid"},
        "space": {"optim.lr": {"grid": [3e-3]}},
    }
    ledger.append("sweep", space=space, base=config.model_dump(), scale="tiny", seed=0)
    ledger.append("session", **{**provenance.describe("cpu"), **session})
    ledger.append(
        "planned",
        trial=cfg.identity(config),
        label="lr=0.003",
        config=config.model_dump(),
        values={"optim.lr": 3e-3},
        seed=0,
        role="search",
        arm="",
        grid="",
        params=1,
        flops_per_token=1,
        corpus=corpus,
    )
    ledger.append("started", trial=cfg.identity(config), attempt=1, step=0, checkpoint=None)
    return ledger


def sweep_of(
    folder: Path, config: cfg.Config, corpus: Corpus, change: float = 1.0, **session: Any
) -> Sweep:
    """A sweep whose trial was trained here; its validation losses are multiplied by a number."""
    files = led.Files(folder)
    records = list(train.train(train.start(config), corpus, config))
    with begin(files, config, corpus.digest, **session) as ledger:
        for record in records:
            row = asdict(record) | {"val_loss": record.val_loss * change}
            ledger.append("measured", trial=cfg.identity(config), attempt=1, **row)
    return Sweep(files, records)


def test_a_trial_that_was_trained_here_is_equal_bit_for_bit(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    done = sweep_of(tmp_path / "s", tiny, corpus).verify()
    assert (done.exit_code, "equal, bit for bit" in done.stdout) == (0, True), done.output


def test_json_has_every_trial_and_the_exit_code_stays(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    done = sweep_of(tmp_path / "s", tiny, corpus, 1 + 1e-12).verify("--json")
    (trial,) = json.loads(done.stdout)["trials"]
    assert list(trial) == ["trial", "label", "result", "records", "updates", "reason"]
    assert (done.exit_code, trial["result"]) == (6, "differs")


def test_as_many_updates_are_made_as_are_asked_for(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    done = sweep_of(tmp_path / "s", tiny, corpus).verify("lr=0.003", "--updates", "9")
    assert "training 9 updates" in done.stdout


def test_by_default_they_are_those_before_the_first_record(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    done = sweep_of(tmp_path / "s", tiny, corpus).verify("lr=0.003")
    assert "training 3 updates" in done.stdout


@pytest.mark.fault(
    "losses in a ledger that no run gives", "exit code 6, with the step and what changed"
)
def test_a_loss_that_differs_in_its_last_digits_is_found(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    done = sweep_of(tmp_path / "s", tiny, corpus, 1 + 1e-12).verify()
    assert (done.exit_code, "differ from step 3 on" in done.stdout) == (6, True), done.output
    assert "code, data, versions and machine are those of the sweep" in done.stdout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.d_ff": 10**11}, "it does not fit in the memory of this machine"),
        (HUGE_BATCHES, "it can't be trained here"),
    ],
    ids=str,
)
@pytest.mark.fault(
    "a ledger with trials that no machine can train", "not compared, with the reason"
)
def test_a_trial_that_can_not_be_trained_here_is_not_compared(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus, changes: dict[str, Any], reason: str
) -> None:
    """The second is small, and its batches are huge."""
    config, files = cfg.overlay(tiny, changes), led.Files(tmp_path / "s")
    with begin(files, config, corpus.digest) as ledger:
        one_record(ledger, config)
    done = Sweep(files, []).verify()
    assert (done.exit_code, reason in done.stdout) == (2, True), done.output


def test_on_another_processor_it_is_equal_within_the_tolerance(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    other = {"machine": {"processor": "another"}}
    done = sweep_of(tmp_path / "s", tiny, corpus, 1 + 1e-5, **other).verify()
    assert (done.exit_code, "equal within 0.001" in done.stdout) == (0, True), done.output
    assert "machine: processor was another, it is" in done.stdout


def test_nothing_is_written(tmp_path: Path, tiny: cfg.Config, corpus: Corpus) -> None:
    sweep = sweep_of(tmp_path / "s", tiny, corpus)
    before = sweep.files.ledger.read_bytes()
    sweep.verify()
    assert [path.name for path in sweep.files.folder.iterdir()] == ["ledger.jsonl"]
    assert sweep.files.ledger.read_bytes() == before


def one_record(tell: led.Ledger, config: cfg.Config) -> None:
    """A record of a trial."""
    record = dict.fromkeys(("seconds", "train_loss", "val_loss", "bits_per_byte", "lr"), 1.0)
    where = {"trial": cfg.identity(config), "attempt": 1, "step": 3, "tokens": 195, "last": False}
    tell.append("measured", **where, **record, grad_norm=1.0, tokens_per_s=1.0)


def test_a_corpus_that_is_not_here_exits_2_with_what_to_do(
    tmp_path: Path, tiny: cfg.Config
) -> None:
    moved = cfg.overlay(tiny, {"data.path": str(tmp_path / "gone")})
    with begin(led.Files(tmp_path / "s"), moved, "c" * 16) as ledger:
        one_record(ledger, moved)
    done = Sweep(ledger.files, []).verify()
    assert (done.exit_code, "copy the folder corpora/cccc" in done.stdout) == (2, True), done.output
    assert "no trial could be compared" in done.stderr


@pytest.mark.parametrize(("change", "code"), [(1.0, 0), (1.01, 6)])
def test_a_trial_that_can_not_be_compared_hides_no_other(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus, change: float, code: int
) -> None:
    sweep = sweep_of(tmp_path / "s", tiny, corpus, change)
    moved = cfg.overlay(tiny, {"data.path": str(tmp_path / "gone")})
    with begin(sweep.files, moved, "c" * 16) as ledger:
        one_record(ledger, moved)
    done = sweep.verify()
    assert (done.exit_code, "copy the folder corpora/cccc" in done.stdout) == (code, True)


@pytest.mark.fault("another text under a sweep that is verified", "exit code 6, with both digests")
def test_another_corpus_exits_6_and_trains_nothing(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    sweep = sweep_of(tmp_path / "s", tiny, corpus)
    text = sweep.files.ledger.read_text().replace(corpus.digest, "c" * 16)
    lines = [line.rpartition(',"sum"')[0] + "}\n" for line in text.splitlines()]
    sweep.files.ledger.write_text("".join(lines))
    done = sweep.verify()
    assert (done.exit_code, "data: the digest of the corpus was cccc" in done.stdout) == (6, True)
    assert "training" not in done.stdout


@pytest.mark.fault("a sweep that was moved, then verified", "equal bit for bit")
def test_a_sweep_whose_folder_was_moved_is_verified_there(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    sweep = sweep_of(tmp_path / "s", tiny, corpus)
    shutil.move(sweep.files.folder, tmp_path / "moved")
    assert Sweep(led.Files(tmp_path / "moved"), []).verify().exit_code == 0


def test_a_sweep_that_runs_can_be_verified(
    tmp_path: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    sweep = sweep_of(tmp_path / "s", tiny, corpus)
    with led.Ledger(sweep.files):
        assert sweep.verify().exit_code == 0


# What is compared


def trial(folder: Path, **run: Any) -> led.Trial:
    """A trial on a device."""
    sweep = led.fold(led.read(lr_sweep(folder)))
    one = next(iter(sweep.trials.values()))
    one.config = {**one.config, "run": {**one.config["run"], **run}}
    return one


@pytest.mark.parametrize(
    ("found", "changes", "result"),
    [
        (RECORDS, [], "equal"),
        (RECORDS, [CODE, MACHINE], "equal"),
        ([RECORDS[0], Point(6, (4.0, 5.0, 6.001))], [], "differs"),
        ([RECORDS[0], Point(6, (4.0, 5.0, 6.001))], [CODE], "differs"),
        ([RECORDS[0], Point(6, (4.0, 5.0, 6.001))], [MACHINE], "close"),
        ([RECORDS[0], Point(6, (4.0, 5.0, 6.01))], [MACHINE], "differs"),
        ([RECORDS[0], Point(5, ())], [MACHINE], "differs"),
        ([RECORDS[0]], [MACHINE], "differs"),
    ],
)
def test_losses_are_equal_bit_for_bit_or_close_elsewhere(
    tmp_path: Path, found: list[Point], changes: list[Change], result: str
) -> None:
    assert compare(trial(tmp_path / "s"), RECORDS, found, changes).result == result


def test_the_bits_of_a_gpu_are_no_promise(tmp_path: Path) -> None:
    found = [RECORDS[0], Point(6, (4.0, 5.0, 6.001))]
    assert compare(trial(tmp_path / "s", device="cuda"), RECORDS, found, []).result == "close"


def test_the_reason_names_what_happened_and_what_changed(tmp_path: Path) -> None:
    done = compare(trial(tmp_path / "s"), RECORDS, [RECORDS[0], Point(5, ())], [CODE])
    assert done.reason.splitlines() == [
        "a record at step 6 in the ledger; divergence at step 5 here",
        "code: the training code of tinylm was bbb, it is aaa here",
    ]


@pytest.mark.parametrize(
    ("session", "found"),
    [
        (HERE, []),
        (
            {"machine": {"processor": "x86"}, "versions": {"torch": "2.7"}},
            [
                Change("code", "the training code of tinylm is not in the ledger, it is aaa here"),
                Change("versions", "numpy is not in the ledger, it is 2.0 here"),
            ],
        ),
        ({**HERE, "code": "bbb"}, [CODE]),
        ({**HERE, "machine": {"processor": "arm", "cpus": 2}}, [MACHINE]),
        ({**HERE, "machine": {"processor": "x86", "cpus": 64}}, []),
        (
            {**HERE, "versions": {"torch": "2.6", "numpy": "2.0", "ray": "2.50"}},
            [Change("versions", "torch was 2.6, it is 2.7 here")],
        ),
        (
            {**HERE, "machine": {"processor": "x86", "gpu": "H100"}},
            [Change("machine", "gpu was H100, it is missing here")],
        ),
    ],
)
def test_what_a_loss_depends_on_is_compared_with_the_session(
    session: led.Row, found: list[Change]
) -> None:
    assert differing(session, HERE) == found


@pytest.mark.parametrize(("updates", "records"), [(1, 1), (BUDGET, 16)])
def test_at_least_the_first_record_is_compared(tmp_path: Path, updates: int, records: int) -> None:
    sweep = led.fold(led.read(lr_sweep(tmp_path / "s")))
    (one,) = find_trials(sweep, "lr=0.002")
    assert len(recorded(one, updates)) == records


def test_a_trial_that_diverges_before_its_first_record_has_to_do_so_again(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1.0]}})
        lost = tell.plan({"optim.lr": 1.0})
        tell.start(lost)
        tell.diverge(lost, EVERY // 2)
    sweep = led.fold(led.read(led.Files(tmp_path / "s")))
    (point,) = recorded(sweep.trials[lost], 1)
    assert (point.step, point.losses) == (sweep.trials[lost].step, ())
    assert compare(sweep.trials[lost], [point], [point], []) == Verified(
        sweep.trials[lost], "equal", 1, point.step
    )


# Which trials


@pytest.mark.parametrize("name", ["id", "beginning of the id", "0.002"])
def test_a_trial_is_found_by_its_label_its_id_or_a_part_of_them(tmp_path: Path, name: str) -> None:
    sweep = led.fold(led.read(lr_sweep(tmp_path / "s")))
    (one,) = find_trials(sweep, "lr=0.002")
    asked = {"id": one.trial, "beginning of the id": one.trial[:8]}.get(name, name)
    assert find_trials(sweep, asked) == [one]


def test_a_trial_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    sweep = led.fold(led.read(lr_sweep(tmp_path / "s")))
    with pytest.raises(UsageError, match=r"lr=0.0021: no such trial; did you mean 'lr=0.002'\?"):
        find_trials(sweep, "lr=0.0021")


def test_trials_without_a_record_can_not_be_verified(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1.0]}})
        tell.plan({"optim.lr": 1.0})
    sweep = led.fold(led.read(led.Files(tmp_path / "s")))
    with pytest.raises(UsageError, match="nothing is measured yet"):
        find_trials(sweep, "")
