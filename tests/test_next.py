"""`sweeps next`: the search space of the next sweep, as a file that runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conducting import NOPE, conduct, is_bare, study
from fakes import MACHINE, Engine, driver
from ledgers import rewrite, studied
from typer.testing import CliRunner, Result

from sweeps import ledger as led
from sweeps.commands.next import app
from sweeps.findings.everything import findings
from sweeps.plan import trials as pl
from sweeps.plan.request import Request, experiment_request, read_request
from sweeps.report.next_steps import as_yaml, space_of, steps_of
from tinylm import config as cfg

PAIR = {
    "question": "Which pair?",
    "search": {"method": "random", "samples": 6},
    "space": {
        "optim.lr": {"loguniform": [1e-3, 1e-1]},
        "optim.weight_decay": {"loguniform": [0.01, 1.0]},
    },
    "schedule": {"policy": "none"},
}


def by_lr(config: dict[str, Any], share: float) -> float:
    """Higher rates are better."""
    return 3.0 - config["optim"]["lr"] + (1 - share) + config["run"]["seed"] / 100


def inner(config: dict[str, Any], share: float) -> float:
    """The best pair is inside of the range."""
    return 2.0 + abs(config["optim"]["lr"] - 0.02) + (1 - share)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps are under results/ of an empty folder."""
    monkeypatch.chdir(tmp_path)


def swept(tree: dict[str, Any], how: Any, records: float = 1e9) -> led.Files:
    """A sweep under results/."""
    folder = Path("results/s")
    conduct(folder, tree, how, records=records)
    return led.Files(folder)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["s", *arguments])


def planned(file: str) -> tuple[Request, pl.Plan]:
    """The request of a written space, and its plan after the sweep that it may extend."""
    request = read_request(file, "smoke", [], 0)
    rows = led.read(led.Files(Path("results/s")))
    return request, pl.plan(request, MACHINE, pl.earlier_draws(rows, 0))


def values(plan: pl.Plan) -> list[dict[str, Any]]:
    return [one.values for one in plan.trials]


def test_a_wider_range_keeps_the_trials_of_the_sweep_and_has_as_many_new_ones() -> None:
    swept(PAIR, by_lr)
    assert ask("wider.yaml").exit_code == 0
    _, plan = planned("wider.yaml")
    before = led.fold(led.read(led.Files(Path("results/s")))).trials
    assert len(plan.trials) == 12 and before.keys() <= {one.trial for one in plan.trials}


def test_a_wider_range_runs_in_the_folder_of_the_sweep() -> None:
    swept(PAIR, by_lr)
    command = "python -m sweeps.run search_spaces/s-next.yaml --scale smoke --out results/s"
    assert ask().stdout.splitlines()[-1] == f"Run: {command}"


def test_json_has_the_space_that_was_written_and_its_command() -> None:
    swept(PAIR, by_lr)
    told = json.loads(ask("a.yaml", "--json").stdout)
    assert (list(told), told["file"]) == (["file", "why", "run", "space"], "a.yaml")
    assert told["space"] == yaml.safe_load(Path("a.yaml").read_text())


def test_an_error_with_json_has_its_exit_code_and_no_output() -> None:
    swept(PAIR, inner, records=3)
    done = ask("--json")
    assert (done.exit_code, done.stdout) == (2, "")


def test_data_that_suggest_no_step_are_said_to() -> None:
    rates = {"optim.lr": {"grid": [0.01, 0.02, 0.03]}}
    swept({**PAIR, "search": {"method": "grid"}, "space": rates, "seeds": [0, 1]}, inner)
    done = ask()
    assert (done.exit_code, done.stderr) == (2, "s: the data suggest no next step\n")


def test_a_value_that_is_not_settled_is_swept_with_three_seeds_at_the_best_others() -> None:
    files = swept(PAIR, inner)
    assert ask("--path", "optim.weight_decay").exit_code == 0
    request, plan = planned("search_spaces/s-next-weight_decay.yaml")
    best = min(led.fold(led.read(files)).trials.values(), key=lambda one: one.curve[-1]["val_loss"])
    assert request.base.optim.lr == pytest.approx(best.value("optim.lr"), rel=1e-3)
    assert {tuple(one) for one in values(plan)} == {("optim.weight_decay",)}
    assert {one.config.run.seed for one in plan.trials} == {0, 1, 2}


def test_another_question_is_another_sweep() -> None:
    swept(PAIR, inner)
    command = "python -m sweeps.run a.yaml --scale smoke"
    assert ask("a.yaml", "--path", "optim.lr").stdout.splitlines()[-1] == f"Run: {command}"


def test_the_space_has_what_the_base_config_has_beside_its_scale() -> None:
    swept({**PAIR, "base": {"optim.warmup_fraction": 0.125}}, inner)
    ask("a.yaml", "--path", "optim.lr")
    request, _ = planned("a.yaml")
    assert request.base.optim.warmup_fraction == 0.125


def test_more_seeds_of_a_study_keep_its_runs() -> None:
    def open_question(config: dict[str, Any], share: float) -> float:
        seed = config["run"]["seed"]
        return 3.0 + (1 - share) + is_bare(config) * (0.03 if seed % 2 else -0.01)

    files = swept(study(seeds=[0, 1, 2, 3]), open_question)
    results = studied(files)
    asked = [step for step in steps_of(findings(results)) if "seeds" in (step.space or {})]
    Path("more.yaml").write_text(as_yaml(space_of(results, asked[0]) or {}))
    _, plan = planned("more.yaml")
    assert led.fold(led.read(files)).trials.keys() < {one.trial for one in plan.trials}


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    swept(PAIR, by_lr)
    Path("mine.yaml").write_text("mine")
    again = ask("mine.yaml")
    assert (again.exit_code, Path("mine.yaml").read_text()) == (2, "mine")
    assert "mine.yaml: is already there; choose another" in again.stderr


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("weight_decay", "; did you mean 'optim.weight_decay'?"),
        ("model.norm", "; there are optim.weight_decay, optim.lr"),
    ],
)
def test_only_a_path_that_is_not_settled_can_be_chosen(path: str, hint: str) -> None:
    swept(PAIR, inner)
    wrong = ask("--path", path)
    assert (wrong.exit_code, wrong.stderr.strip().endswith(hint)) == (2, True)
    assert not Path("search_spaces").exists()


def test_a_sweep_that_has_not_finished_is_resumed_first() -> None:
    swept(PAIR, by_lr, records=40)
    for asked in (ask(), ask("--path", "optim.lr")):
        assert (asked.exit_code, "has not finished; Resume: " in asked.stderr) == (2, True)


LENGTHS = {
    **PAIR,
    "search": {"method": "grid"},
    "space": {"model.context_length": {"grid": [16, 32, 64]}, "optim.lr": {"grid": [1e-3, 4e-3]}},
    "match": "tokens_per_update",
}


def by_length(config: dict[str, Any], share: float) -> float:
    """Longer contexts are better."""
    return 3.0 - config["model"]["context_length"] / 1000 + (1 - share)


@pytest.mark.parametrize(
    ("path", "sizes"),
    [("model.context_length", {(16, 16), (32, 8), (64, 4)}), ("optim.lr", {(64, 4)})],
)
def test_every_update_has_as_many_tokens_as_in_the_sweep(
    path: str, sizes: set[tuple[int, int]]
) -> None:
    """The base config has 8 sequences of 32 tokens."""
    swept(LENGTHS, by_length)
    ask("a.yaml", "--path", path)
    _, plan = planned("a.yaml")
    configs = [one.config for one in plan.trials]
    assert {(one.model.context_length, one.optim.batch_size) for one in configs} == sizes


def test_an_arm_that_starts_too_high_gets_the_setting_that_lowers_it() -> None:
    changes = {"model.tie_embeddings": True, "model.embedding_std": 1.0}

    def worse(config: dict[str, Any], share: float) -> float:
        return inner(config, share) + config["model"]["tie_embeddings"]

    files = swept(study(arms={"tied": {"hypothesis": "Worse.", "set": changes}}), worse)
    rows = led.read(files)
    tied = {row["trial"] for row in rows if row["kind"] == "planned" and row["arm"] == "tied"}
    rewrite(
        files, [{**row, "loss_init": 25.0 if row.get("trial") in tied else 6.0} for row in rows]
    )
    assert ask("a.yaml").exit_code == 0
    _, plan = planned("a.yaml")
    assert plan.arms[1].changes == changes | {"model.embedding_std": "standard"}


@pytest.mark.parametrize("retune", [None, {"optim.lr": {"times": [1, 8, 64]}}])
def test_an_arm_that_was_not_re_tuned_gets_a_grid(retune: dict[str, Any] | None) -> None:
    arms = {"nope": {**NOPE, "retune": False}} if retune else {"nope": NOPE}
    tree = study(arms=arms, **({"retune": retune} if retune else {}))
    swept(tree, lambda config, share: inner(config, share) + 0.1 * is_bare(config))
    assert ask("a.yaml").exit_code == 0
    _, plan = planned("a.yaml")
    assert [arm.retune for arm in plan.arms] == [True, True]


@pytest.mark.parametrize(
    ("retune", "wider"),
    [
        ({"grid": [4e-3, 1e-3, 1.6e-2]}, {"grid": [2.5e-4, 1e-3, 4e-3, 1.6e-2]}),
        ({"times": [1, 2, 4]}, {"times": [0.5, 1, 2, 4]}),
    ],
)
def test_an_arm_on_the_edge_of_its_grid_gets_a_wider_one(
    retune: dict[str, Any], wider: dict[str, Any]
) -> None:
    """The sweep is extended: all its trials are kept."""

    def low_is_best(config: dict[str, Any], share: float) -> float:
        return 3.0 + config["optim"]["lr"] + (1 - share) + 0.1 * is_bare(config)

    files = swept(study(retune={"optim.lr": retune}), low_is_best)
    assert ask("a.yaml").exit_code == 0
    request, plan = planned("a.yaml")
    assert request.space.model_dump()["retune"]["optim.lr"] == wider
    before = led.fold(led.read(files)).trials.values()
    grids = {one.trial for one in before if one.role == "tuning"}
    assert grids < {one.trial for one in plan.trials}


def test_an_experiment_of_a_file_asks_for_a_sweep_at_the_scale_in_that_file() -> None:
    high = {"model.tie_embeddings": True, "model.embedding_std": 1.0}
    config = cfg.overlay(cfg.load("smoke"), high)
    Path("mine").mkdir()
    Path("mine/own.yaml").write_text(yaml.safe_dump(config.model_dump()))
    asked = experiment_request("s", "mine/own.yaml", [], "")
    files = led.Files(Path("results/s"))
    with led.Ledger(files) as ledger:
        conductor = driver(ledger, asked)
        conductor.begin({"folder_option": "--name", "command": "python -m sweeps.experiment"})
        Engine(conductor, inner).run()
    rows = [
        {**row, **({"loss_init": 25.0} if row["kind"] == "measured" else {})}
        for row in led.read(files)
    ]
    rewrite(files, rows)
    said = ask("a.yaml").stdout.splitlines()[-1]
    assert said == "Run: python -m sweeps.run a.yaml --scale mine/own.yaml"
    again = read_request("a.yaml", "mine/own.yaml", [], 0)
    assert again.base.model == config.model.model_copy(update={"embedding_std": "standard"})
