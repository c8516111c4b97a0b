"""`python -m sweeps.run SPACE`: run a sweep, or go on with it."""

import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sweeps import ledger as led
from sweeps import space as sp
from sweeps.driver import Asked, Driver, RefusedError
from sweeps.view import View
from sweeps.words import count, duration, show
from tinylm import config as cfg
from tinylm import data
from tinylm.__main__ import assignments, fail
from tinylm.yaml import YamlError

FAILED, NONE_SUCCEEDED, LOCKED, DAMAGED, STORAGE, CLUSTER, REFUSED = 3, 4, 5, 6, 7, 8, 9

_SHOWN = 50  # lines of a long list that are printed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def default_scale() -> str:
    """The config of a sweep that names none: `tinystories_17m` with a CUDA device, else `cpu`."""
    import torch

    return "tinystories_17m" if torch.cuda.is_available() else "cpu"


def ask(space: str, scale: str, changes: list[str], seed: int) -> Asked:
    """What a command line asks for; `ConfigError` with what is wrong in it."""
    path = sp.find(space)
    parsed, written = sp.read(path)
    try:
        named = assignments(changes)
    except YamlError as error:
        raise cfg.ConfigError([str(error)]) from error
    swept = [f"--set {name}: {path} sweeps this path" for name in named if name in parsed.space]
    if "run.seed" in named:
        swept.append("--set run.seed: trials take their seeds from `seeds` and --seed")
    if swept:
        raise cfg.ConfigError(swept)
    source = f"{path} with --set" if named else f"{path}: base"
    base = cfg.overlay(cfg.load(scale), {**parsed.base, **named}, source)
    return Asked(parsed, written, str(path), base, scale, seed)


def folder(asked: Asked, out: Path | None) -> Path:
    """Where the sweep lives: `--out`, else `results/<space>-<scale>`."""
    name = f"{Path(asked.source).stem}-{Path(asked.scale).stem}"
    place = out if out is not None else led.RESULTS / name
    wrong = []
    if not led.NAME.fullmatch(place.name) or ".." in place.parts:
        wrong.append(f"--out {place}: a folder named by letters, digits, _, - and . is due")
    if place.exists() and not place.is_dir():
        wrong.append(f"--out {place}: not a folder")
    if wrong:
        raise cfg.ConfigError(wrong)
    return place


@cache
def size(model: cfg.Model) -> tuple[int, int]:
    """Parameters and FLOPs per training token of a model."""
    from tinylm.model import size as counted

    found = counted(model)
    return found.params, found.flops_per_token


def show_plan(asked: Asked, planned: list[sp.Planned], console: Console) -> None:
    """Print the trials, what they cost, and how long they take here."""
    search = asked.space.search
    trials = len(planned)
    if isinstance(search, sp.OptunaSearch):
        trials = search.samples
        console.print(f"{trials} trials, suggested by Optuna while the sweep runs")
    table = Table("trial", *asked.space.space, "seed", "params", "tokens", "FLOPs", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    flops = []
    for number, one in enumerate(planned):
        params, per_token = size(one.config.model)
        flops.append(per_token * one.config.budget.tokens)
        if number >= _SHOWN:
            continue
        table.add_row(
            one.trial, *(show(value) for value in one.values.values()),
            str(one.config.run.seed), count(params), count(one.config.budget.tokens),
            count(flops[-1]),
        )  # fmt: skip
    if planned:
        console.print(table)
    if trials > _SHOWN and planned:
        console.print(f"and {trials - _SHOWN} more")
    config = planned[0].config if planned else asked.base
    budget = config.budget.tokens
    full = sum(one.config.budget.tokens for one in planned) or trials * budget
    expected = asked.policy().expected_tokens(trials, budget)
    total = sum(flops) or trials * budget * size(config.model)[1]
    console.print(f"full grid: {count(full)} tokens, {count(total)} FLOPs")
    console.print(f"with {asked.space.schedule.policy}: about {count(expected)} tokens")
    from tinylm import train

    try:
        rate = train.probe(config)
    except cfg.ConfigError as error:
        console.print(f"time: unknown here ({error})")
        return
    console.print(
        f"time: about {duration(expected / rate)} of one slot "
        f"({rate:.0f} tokens/s measured here, evaluation and start-up aside)"
    )


class Facts:
    """What a trial's planned row says beside its config: counts, and the digest of its corpus.

    Tokenizes each corpus at its first call, so that the trials find it ready and bad data ends
    here.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._corpora: dict[str, data.Corpus] = {}

    def __call__(self, config: cfg.Config) -> dict[str, Any]:
        """`params`, `flops_per_token` and `corpus`; `ConfigError` for a corpus that won't do."""
        key = cfg.digest([config.data.model_dump(), config.model.vocab_size])
        if key not in self._corpora:
            self._corpora[key] = data.prepare(config, self._tell)
        data.check_size(self._corpora[key], config)
        params, flops = size(config.model)
        return {"params": params, "flops_per_token": flops, "corpus": self._corpora[key].digest}


def refuse_other_corpus(sweep: led.Sweep, facts: Facts) -> None:
    """Raise `RefusedError` where the documents of unfinished trials are not those they had."""
    for trial in sweep.trials.values():
        if trial.status in {"finished", "diverged"}:
            continue
        config = cfg.validate(trial.config, trial.label)
        digest = facts(config)["corpus"]
        if digest != trial.corpus:
            where = config.data.path or config.data.corpus
            raise RefusedError(
                f"data: {where} has changed since the sweep began: its digest was {trial.corpus}, "
                f"it is {digest}"
            )


def conclude(driver: Driver, ended_by: int | None, command: str, console: Console) -> int:
    """Write the analysis, print the ranking and what is left; the exit code."""
    from sweeps import analyze

    analyze.present(analyze.write(driver.ledger.files), console)
    if ended_by is not None:
        print(f"interrupted; what was measured is kept. To go on: {command}", file=sys.stderr)
        return 128 + ended_by
    trials = driver.sweep.trials.values()
    failed = [trial for trial in trials if trial.status == "failed"]
    for trial in failed:
        print(f"failed: {trial.label}: {trial.reason}", file=sys.stderr)
    if failed:
        print(f"the same command tries them again: {command}", file=sys.stderr)
    if len(failed) == len(trials):
        return NONE_SUCCEEDED
    return FAILED if failed else 0


@app.command()
def main(
    space: Annotated[str, typer.Argument(help="A name in search_spaces/, or a YAML file.")],
    scale: Annotated[str, typer.Option(help="A shipped config's name or a YAML file.")] = "",
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="PATH=VALUE", help="Replace a value in every trial."),
    ] = [],  # noqa: B006 typer copies it
    out: Annotated[Path | None, typer.Option(help="Folder; results/<space>-<scale>.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Added to the space's seeds.")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run, and end.")] = False,
    address: Annotated[
        str, typer.Option(help="A running Ray cluster: auto or HOST:PORT.")
    ] = "local",
) -> None:
    """Run the sweep of a search space under Ray Tune. The same command again goes on with it."""
    # A file or a pipe has no width; 80 columns would cut the tables.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    try:
        asked = ask(space, scale or default_scale(), changes, seed)
        planned = sp.plan(asked.space, asked.base, seed, asked.source)
        place = folder(asked, out)
        if plan:
            show_plan(asked, planned, console)
            return
        if address == "local":
            from tinylm import train

            train.require(asked.base.run.device)
        console.print(f"scale: {asked.scale}{'' if scale else ' (none was named)'}; sweep: {place}")
        facts = Facts(lambda message: print(message, flush=True))
        for one in planned:
            facts(one.config)
        facts(asked.base)
        raise typer.Exit(_run(asked, planned, facts, place, address, console))
    except cfg.ConfigError as error:
        more = len(error.problems) - _SHOWN
        said = [*error.problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise fail("\n".join(said)) from error
    except RefusedError as error:
        raise fail(
            f"{error}\nname another --out, or go back to the config above", REFUSED
        ) from error
    except led.LockedError as error:
        raise fail(error, LOCKED) from error
    except led.LedgerError as error:
        raise fail(error, DAMAGED) from error
    except OSError as error:
        where = error.filename or out or led.RESULTS
        raise fail(f"{where}: {error.strerror or error}", STORAGE) from error


def _run(
    asked: Asked,
    planned: list[sp.Planned],
    facts: Facts,
    place: Path,
    address: str,
    console: Console,
) -> int:
    files = led.Files(place)
    command = shlex.join([sys.executable, "-m", "sweeps.run", *sys.argv[1:]])

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:
        print(f"interrupted; what was measured is kept. To go on: {command}", file=sys.stderr)
        raise SystemExit(128 + number)

    with led.Ledger(files) as ledger:
        driver = Driver(ledger, asked, planned, facts)
        refuse_other_corpus(driver.sweep, facts)
        if driver.is_done():
            summary = files.analysis / "summary.md"
            print(f"{place}: nothing is left to do; see {summary}", flush=True)
            written = summary.exists() and summary.stat().st_mtime >= files.ledger.stat().st_mtime
            return 0 if written else conclude(driver, None, command, console)
        from sweeps import engine, provenance

        engine.listen(interrupted)
        session: dict[str, Any] = {"command": command, **provenance.describe()}
        resources, device = asked.space.resources, asked.base.run.device
        if not driver.has_work():  # a driver died when only its last words were missing
            driver.begin({**session, "dashboard": None, "slots": 0})
            driver.end()
            return conclude(driver, None, command, console)
        try:
            with engine.cluster(address) as dashboard:
                engine.listen(interrupted)  # ray.init has a handler of its own
                slots = engine.slots(resources, device)
                if dashboard:
                    print(f"dashboard: {dashboard} (`make dashboard` prints its token)", flush=True)
                driver.begin({**session, "dashboard": dashboard, "slots": slots})
                view = View(driver, console)
                with view.shown():
                    ended_by = engine.run(driver, resources, device, view.update)
                    if ended_by is None:
                        driver.end()
        except engine.ClusterError as error:
            raise fail(f"{error}\nto go on: {command}", CLUSTER) from error
        return conclude(driver, ended_by, command, console)


if __name__ == "__main__":
    app()
