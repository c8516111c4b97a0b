"""Find a learning rate with our sweep, with stock Ray Tune, and with Optuna, and say what each took.

    python -m benchmarks.peers [--scale cpu] [--seeds 3] [--out peers.json]

All have the same learning rates, the same training loop in the same precision, two trials at once with one
thread each, and successive halving from an eighth of the budget by a factor of 3: Ray Tune its `ASHAScheduler`
on a class that it reuses (`reuse_actors`), Optuna its `SuccessiveHalvingPruner` and two processes that share a
study. Each is what its manual shows; both compare the validation losses that a run reports on its way. Ours
compares losses after a short decay of the rate.

The seconds are those from the start of the program to its answer: with Ray's start where there is one; ours
with the dashboard, a ledger, checkpoints, the analysis and its pages, which the others are spared. The fastest
precision is measured before, once for all. The regret is how much higher the final loss of the rate that it names
is than that of the best rate, in nats: all rates are trained in full beforehand, with the same seed. The
systems take turns.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tinylm import config as cfg
from tinylm import machine
from tinylm.yaml import read_mapping

LR = Path(__file__).parents[1] / "search_spaces" / "lr.yaml"
RATES: list[float] = read_mapping(LR)["space"]["optim.lr"]["grid"]
ETA, SHARE = 3, 8  # rungs are a factor of this apart, and begin at this part of the budget
AT_ONCE = 2  # trials

app = typer.Typer()


@dataclass(frozen=True)
class Answer:
    """What a system found, and what it trained for that."""

    rate: float
    tokens: int


@dataclass(frozen=True)
class Run:
    """A system with a seed."""

    system: str
    seed: int
    seconds: float
    rate: float
    tokens: int
    regret: float  # nats


def losses(config: cfg.Config, rate: float) -> Iterator[tuple[int, float]]:
    """Tokens and validation loss at each record of a run; infinite where it diverges."""
    from tinylm import data, train

    changed = cfg.overlay(config, {"optim.lr": rate})
    corpus = data.prepare(changed)
    try:
        for record in train.train(train.start(changed), corpus, changed):
            yield record.tokens, record.val_loss
    except train.Diverged as diverged:
        yield diverged.tokens, math.inf


def final(config: cfg.Config, rate: float) -> float:
    """The loss at the end of a run."""
    *_, (_, loss) = losses(config, rate)
    return loss


def ours(config: cfg.Config, folder: Path) -> Answer:
    """The sweep of this package, from its command line."""
    space = {
        "question": "Which learning rate gives the lowest validation loss?",
        "metric": "val_loss",
        "search": {"method": "grid"},
        "space": {"optim.lr": {"grid": RATES}},
        "seeds": [config.run.seed],
        "schedule": {
            "policy": "asha", "eta": ETA, "grace": f"1/{SHARE}", "finish": 1, "score": "decayed",
        },
    }  # fmt: skip
    file, scale, out = folder / "rates.yaml", folder / "scale.yaml", folder / "sweep"
    file.write_text(yaml.safe_dump(space))
    scale.write_text(yaml.safe_dump(config.model_dump()))
    command: list[str | Path] = [sys.executable, "-m", "sweeps.run", file, "--scale", scale]
    command += ["--out", out, "--slots", str(AT_ONCE), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    (best,) = found["best"]
    return Answer(best["best"], found["compute"]["tokens"])


def ray_tune(config: cfg.Config, folder: Path) -> Answer:
    """Ray Tune's own ASHA."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    class Training(tune.Trainable):  # type: ignore[misc]
        """A run, which reports each record."""

        def setup(self, trial: dict[str, Any]) -> None:
            self._losses = losses(config, trial["lr"])

        def reset_config(self, trial: dict[str, Any]) -> bool:
            self.setup(trial)
            return True

        def step(self) -> dict[str, Any]:
            tokens, loss = next(self._losses)
            is_over = tokens == config.budget.tokens or math.isinf(loss)
            return {"tokens": tokens, "loss": loss, "done": is_over}

    ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    budget = config.budget.tokens
    scheduler = ASHAScheduler(
        time_attr="tokens", max_t=budget, grace_period=budget // SHARE, reduction_factor=ETA
    )
    results = tune.Tuner(
        Training,
        param_space={"lr": tune.grid_search(RATES)},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", scheduler=scheduler, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
    best = results.get_best_result().config
    assert best is not None
    return Answer(best["lr"], sum(result.metrics["tokens"] for result in results if result.metrics))


def optuna_processes(config: cfg.Config, folder: Path) -> Answer:
    """Optuna with a process for each trial that runs at once."""
    study = _study(config, folder)
    for rate in RATES:
        study.enqueue_trial({"lr": rate})
    with ProcessPoolExecutor(AT_ONCE, get_context("spawn")) as processes:
        for each in [processes.submit(_optimize, config, folder) for _ in range(AT_ONCE)]:
            each.result()
    tokens = sum(max(trial.intermediate_values, default=0) for trial in study.trials)
    return Answer(study.best_params["lr"], tokens)


def _study(config: cfg.Config, folder: Path) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=config.budget.tokens // SHARE, reduction_factor=ETA
    )
    return optuna.create_study(
        study_name="rates",
        storage=JournalStorage(JournalFileBackend(str(folder / "journal"))),
        pruner=pruner,
        load_if_exists=True,
    )


def _optimize(config: cfg.Config, folder: Path) -> None:
    """Train the trials that wait until none does."""
    import optuna

    study = _study(config, folder)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", RATES[0], RATES[-1], log=True)
        loss = math.inf
        for tokens, loss in losses(config, rate):
            trial.report(loss, tokens)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    while study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        study.optimize(objective, n_trials=1)


SYSTEMS: dict[str, Callable[[cfg.Config, Path], Answer]] = {
    "tinylm-sweeps": ours,
    "Ray Tune": ray_tune,
    "Optuna": optuna_processes,
}


def _settings(folder: Path) -> cfg.Config:
    return cfg.load(str(folder / "config.json"))


def measured(system: str, config: cfg.Config) -> tuple[float, Answer]:
    """The seconds that a system takes in a process of its own, and its answer."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        (folder / "config.json").write_text(json.dumps(config.model_dump()))
        command = [sys.executable, "-m", "benchmarks.peers", "--system", system, "--folder", place]
        start = time.perf_counter()
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{system} ended with {done.returncode}: {done.stdout[-2000:]}")
        return seconds, Answer(**json.loads((folder / "answer.json").read_text()))


def reference(config: cfg.Config) -> dict[float, float]:
    """The final loss of every rate."""
    with ProcessPoolExecutor(AT_ONCE, get_context("spawn")) as processes:
        each = {rate: processes.submit(final, config, rate) for rate in RATES}
        return {rate: one.result() for rate, one in each.items()}


def compared(config: cfg.Config, turn: int, in_full: Mapping[float, float]) -> Iterator[Run]:
    """Every system, in an order that depends on whose turn it is, beside the final losses of all rates."""
    names, lowest = list(SYSTEMS), min(in_full.values())
    first = turn % len(names)
    for system in names[first:] + names[:first]:
        seconds, answer = measured(system, config)
        regret = in_full[answer.rate] - lowest
        yield Run(system, config.run.seed, seconds, answer.rate, answer.tokens, regret)


@app.command()
def main(
    scale: Annotated[str, typer.Option(help="A shipped config's name or a YAML file.")] = "cpu",
    seeds: Annotated[int, typer.Option(min=1, help="How often, each with another seed.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
    system: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print what each system took and found, medians over the seeds."""
    if system is not None and folder is not None:  # the process of one
        answer = SYSTEMS[system](_settings(folder), folder)
        (folder / "answer.json").write_text(json.dumps(asdict(answer)))
        return
    config, _ = machine.choose(cfg.load(scale), print)
    whole, runs = len(RATES) * config.budget.tokens, list[Run]()
    print(f"{machine.processor()}, {os.cpu_count()} cores, scale {scale}, {len(RATES)} rates")
    print(f"{'':16s} {'seed':>6s} {'seconds':>8s} {'tokens':>7s} {'rate':>8s} {'regret':>8s}")
    finals = {}
    for seed in range(seeds):
        seeded = cfg.overlay(config, {"run.seed": seed})
        finals[seed] = reference(seeded)
        for run in compared(seeded, seed, finals[seed]):
            runs.append(run)
            print(_line(run.system, str(run.seed), [run], whole), flush=True)
    for name in SYSTEMS:
        print(_line(name, "median", [run for run in runs if run.system == name], whole))
    if out is not None:
        found = {"config": config.model_dump(), "tokens": whole, "final_losses": finals}
        found |= {"processor": machine.processor(), "runs": [asdict(run) for run in runs]}
        out.write_text(json.dumps(found, indent=1) + "\n")


def _line(name: str, seed: str, runs: Sequence[Run], whole: int) -> str:
    seconds = statistics.median(run.seconds for run in runs)
    tokens = statistics.median(run.tokens for run in runs) / whole
    regret = statistics.median(run.regret for run in runs)
    rate = f"{runs[0].rate:g}" if len(runs) == 1 else ""
    return f"{name:16s} {seed:>6s} {seconds:8.0f} {tokens:7.0%} {rate:>8s} {regret:8.4f}"


if __name__ == "__main__":
    app()
