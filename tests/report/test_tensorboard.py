"""TensorBoard shows of a trial what the ledger says, once."""

from datetime import datetime
from pathlib import Path

import pytest
from ledgers import EVERY, loss, lr_sweep, story, studied
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sweeps.findings.everything import findings
from sweeps.ledger import Files
from sweeps.report import tensorboard as events

AT_COMMON = f"val_loss_at_{EVERY}_tokens"  # where both trials were measured


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A trial that was resumed, one with a bold label, and one that never began; written twice."""
    folder = tmp_path_factory.mktemp("sweep")
    with story(folder) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.train(trial, 1e-3, 1, 3)
        tell.start(trial, step=24)
        tell.train(trial, 1e-3, 2, 4)
        bold = tell.plan({"optim.lr": 2e-3}, label="../a b/c|d")
        tell.start(bold)
        tell.measure(bold, EVERY, 3.5, grad_norm=None, lr=0.0)
        tell.plan({"optim.lr": 4e-3})
    for _ in range(2):
        events.write(Files(folder), findings(studied(Files(folder))))
    return Files(folder)


@pytest.fixture(scope="module")
def resumed(files: Files) -> EventAccumulator:
    """What TensorBoard reads of the trial that was resumed."""
    reader = EventAccumulator(str(next(files.events.glob("lr=0.001-*"))))
    reader.Reload()
    return reader


def test_a_resumed_trial_is_one_curve(resumed: EventAccumulator) -> None:
    assert [event.step for event in resumed.Scalars("val_loss")] == [24, 48, 72, 96]


def test_a_curve_holds_the_losses_of_the_ledger(resumed: EventAccumulator) -> None:
    values = [event.value for event in resumed.Scalars("val_loss")]
    assert values == pytest.approx([loss(1e-3, number * EVERY) for number in (1, 2, 3, 4)])


def test_every_scalar_is_there(resumed: EventAccumulator) -> None:
    assert set(resumed.Tags()["scalars"]) == {*events.SCALARS, AT_COMMON}


def test_the_time_of_an_event_is_the_begin_of_the_sweep_and_the_seconds_until_then(
    files: Files, resumed: EventAccumulator
) -> None:
    sweep = studied(files)
    seconds = next(iter(sweep.sweep.trials.values())).moments[0]
    event = resumed.Scalars("val_loss")[0]
    begun = datetime.fromisoformat(sweep.begun).timestamp()
    assert event.wall_time == pytest.approx(begun + seconds, abs=1e-3)


def test_a_number_that_is_missing_is_no_event_and_zero_is_one(files: Files) -> None:
    folder = next(path for path in files.events.iterdir() if "c_d" in path.name)
    reader = EventAccumulator(str(folder))
    reader.Reload()
    assert set(events.SCALARS) - set(reader.Tags()["scalars"]) == {"grad_norm"}


def test_a_label_names_a_folder_in_the_folder_of_events(files: Files) -> None:
    runs = (path for path in files.events.iterdir() if path.name != events.FIGURES)
    names = sorted(path.name.rpartition("-")[0] for path in runs)
    assert names == ["_a_b_c_d", "lr=0.001"]


def hyperparameters(files: Files, run: str) -> HParamsPluginData:
    """What TensorBoard's HParams tab reads of a run's start."""
    reader = EventAccumulator(str(next(files.events.glob(f"{run}*"))))
    reader.Reload()
    content = reader.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    return HParamsPluginData.FromString(content)


def test_the_hyperparameters_of_a_run_are_what_the_sweep_varied(files: Files) -> None:
    found = hyperparameters(files, "lr=0.001").session_start_info.hparams
    assert set(found) == {"optim.lr", "seed", "status"}
    assert (found["optim.lr"].number_value, found["status"].string_value) == (1e-3, "unfinished")


def test_the_metrics_of_the_hyperparameters_are_losses_at_equal_tokens(
    resumed: EventAccumulator,
) -> None:
    content = resumed.PluginTagToContent("hparams")["_hparams_/experiment"]
    metrics = HParamsPluginData.FromString(content).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == [AT_COMMON]
    (event,) = resumed.Scalars(AT_COMMON)
    assert event.value == pytest.approx(loss(1e-3, EVERY))


def test_the_figures_of_the_sweep_are_images(files: Files) -> None:
    reader = EventAccumulator(str(files.events / events.FIGURES))
    reader.Reload()
    assert {"loss_vs_lr", "loss_by_tokens"} <= set(reader.Tags()["images"])


def test_nothing_is_left_beside_the_events(files: Files) -> None:
    assert [path.name for path in files.analysis.iterdir()] == ["tensorboard"]


def test_a_sweep_without_measures_has_an_empty_folder(tmp_path: Path) -> None:
    with story(tmp_path) as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.plan({"optim.lr": 1e-3})
    assert list(events.write(Files(tmp_path), findings(studied(Files(tmp_path)))).iterdir()) == []


@pytest.mark.fault("files of people in analysis/tensorboard/", "they stay, through a link too")
@pytest.mark.parametrize("linked", [False, True])
def test_what_people_put_beside_event_files_stays(tmp_path: Path, linked: bool) -> None:
    """Also a run of their own, and a file beside those of a run."""
    lr = lr_sweep(tmp_path / "lr")
    if linked:
        (tmp_path / "elsewhere").mkdir()
        lr.analysis.mkdir()
        lr.events.symlink_to(tmp_path / "elsewhere")
    events.write(lr, findings(studied(lr)))
    written = set(lr.events.glob("*/*"))
    run = next(one for one in lr.events.iterdir() if one.name != events.FIGURES)
    mine = [lr.events / "mine" / "events.out.tfevents.1", lr.events / "todo.txt", run / "todo.txt"]
    mine[0].parent.mkdir()
    for file in mine:
        file.write_text("mine")
    events.write(lr, findings(studied(lr)))
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert len(list(lr.events.glob("*/events*"))) == len(written) + 1
    assert [one.name for one in lr.analysis.iterdir()] == ["tensorboard"]
