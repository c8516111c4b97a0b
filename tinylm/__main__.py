"""`python -m tinylm`: train a small language model, sample text from it, or count its parameters."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tinylm import config as cfg
from tinylm import machine, signals
from tinylm.counts import count as short
from tinylm.counts import times
from tinylm.exits import RefusedError, by_signal, lose_unheard_output, reported, storing
from tinylm.files import replacing
from tinylm.size import size

if TYPE_CHECKING:
    from tinylm.data import Corpus
    from tinylm.train import Record, State

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
Set = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a value of the config, e.g. optim.lr=3e-3."
    ),
]


def kept_records(file: Path, step: int) -> str:
    """The lines of a records file up to a step, without a last line that a crash cut short."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return "".join(
        line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step
    )


@app.command()
def count(
    config: Annotated[str, typer.Argument(help="A shipped config's name or a YAML file.")],
    changes: Set = [],  # noqa: B006 typer copies it
) -> None:
    """Print a config's parameter counts and training FLOPs."""
    with reported():
        _print_size(config, cfg.overlay(cfg.load(config), cfg.parse_assignments(changes)))


def _print_size(title: str, settings: cfg.Config) -> None:
    counted = size(settings.model)
    table = Table(title=title, box=None, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right", style="bold")
    for name, value in (
        ("parameters", counted.params),
        ("  without embeddings", counted.params_without_embeddings),
        ("  without the input embedding", counted.params_without_input_embedding),
        ("FLOPs per training token", counted.flops_per_token),
        ("training tokens", settings.budget.tokens),
        ("updates", settings.steps),
        ("training FLOPs", counted.flops_per_token * settings.budget.tokens),
    ):
        table.add_row(name, f"{value:,}", short(value, digits=4))
    Console().print(table)


def _refuse_other_config(saved: Path, before: cfg.Config, settings: cfg.Config) -> None:
    different = cfg.difference(before.model_dump(), settings.model_dump())
    if different:
        head = f"{saved} belongs to a run with another config:"
        lines = [head, *different.values(), "use another --out"]
        raise RefusedError("\n".join(lines))


def _share(state: "State", settings: cfg.Config) -> float:
    """The share of a run that is done."""
    from tinylm.optim import Progress

    return Progress.after(state.step, state.seconds, settings).share


def _line(record: "Record") -> str:
    return (
        f"{record.step:6d} {record.tokens:10d}  {record.train_loss:10.4f}"
        f"  {record.val_loss:8.4f}  {record.bits_per_byte:9.4f}"
        f"  {record.lr:8.2e}  {record.tokens_per_s:8.0f}"
    )


def _open(settings: cfg.Config, saved: Path) -> tuple["Corpus", "State"]:
    """The corpus, and the run as its checkpoint left it, or a new one."""
    from tinylm import checkpoint, data
    from tinylm import train as training

    corpus = data.prepare(settings, lambda message: print(message, file=sys.stderr))
    if not saved.exists():
        return corpus, training.start(settings)
    _refuse_other_config(saved, checkpoint.load_model(saved).config, settings)
    return corpus, checkpoint.load(saved, corpus, settings)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """End the run at once; the last checkpoint is complete."""
    message = "interrupted; run the same command again to resume from the last checkpoint"
    print(message, file=sys.stderr)
    raise SystemExit(by_signal(number))


@app.command()
def train(
    out: Annotated[
        Path, typer.Option(help="Folder for the config, the records and the checkpoint.")
    ],
    config: Annotated[str, typer.Option(help="A shipped config's name or a YAML file.")] = "cpu",
    changes: Set = [],  # noqa: B006 typer copies it
) -> None:
    """Train one model. Run the same command again to resume from the last checkpoint."""
    with reported():
        lose_unheard_output()
        settings = cfg.overlay(cfg.load(config), cfg.parse_assignments(changes))
        if out.exists() and not out.is_dir():
            raise cfg.ConfigError([f"--out {out}: not a folder"])
        with signals.listening(_interrupted):
            _begin_or_resume(settings, out)


def _with_choices(settings: cfg.Config, began: Path) -> cfg.Config:
    """The config with the settings that its run began with in place of `fastest`, or with those that are
    the fastest here if it is new."""
    if machine.to_choose(settings) and began.exists():
        return machine.as_begun(settings, json.loads(began.read_text()))
    chosen, tried = machine.choose(settings, lambda note: print(note, file=sys.stderr))
    for one in tried:
        print(one.words, file=sys.stderr)
    return chosen


def _begin_or_resume(settings: cfg.Config, out: Path) -> None:
    """Train what is left of the run in a folder."""
    from tinylm import train as training

    training.require(settings.run.device)  # before anything is measured or downloaded
    saved = out / "checkpoint.pt"
    settings = _with_choices(settings, out / "config.json")
    corpus, state = _open(settings, saved)
    if training.is_over(state, settings):
        print(f"{saved} is finished ({state.step} updates); nothing is left to do")
        return
    passes = settings.budget.tokens / len(corpus.train.ids)
    if passes > 1 and settings.budget.seconds is None:
        tokens = f"{len(corpus.train.ids):,} tokens"
        often = times(passes, passes)
        print(f"the run reads the training text ({tokens}) about {often}", file=sys.stderr)
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "config.json") as stream:
            stream.write(json.dumps(settings.model_dump(), indent=1).encode() + b"\n")
        _train(settings, corpus, state, out / "records.jsonl", saved)


def _train(
    settings: cfg.Config, corpus: "Corpus", state: "State", records: Path, saved: Path
) -> None:
    from tinylm import checkpoint
    from tinylm import train as training

    kept = kept_records(records, state.step)
    with replacing(records) as whole:
        whole.write(kept.encode())
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    print("  step     tokens  train loss  val loss  bits/byte        lr  tokens/s", flush=True)
    try:
        with bar, records.open("a") as stream:
            task = bar.add_task("training", total=1.0)
            bar.update(task, completed=_share(state, settings))
            for record in training.train(state, corpus, settings):
                stream.write(json.dumps(asdict(record)) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
                print(_line(record), flush=True)
                bar.update(task, completed=_share(state, settings))
                if checkpoint.is_due(record, settings):
                    checkpoint.save(saved, state, corpus, settings)
    except training.Diverged as diverged:
        print(f"diverged: {diverged}")
        return
    print(f"checkpoint: {saved}")


@app.command()
def generate(
    saved: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint file.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")] = 256,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="Sampling temperature. 0 always takes the most probable token."),
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Sample from the most probable tokens with this total probability.",
        ),
    ] = 0.95,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed for sampling. The same seed gives the same text.")
    ] = 0,
) -> None:
    """Generate text from a checkpoint, and print it after the prompt."""
    from tinylm import checkpoint
    from tinylm.generate import generate as sample

    with reported():
        if not saved.is_file():
            raise cfg.ConfigError([f"{saved}: no such checkpoint"])
        trained = checkpoint.load_model(saved)
        print(prompt, end="", flush=True)
        ids: list[int] = []
        shown = ""
        for token in sample(trained, prompt, max_tokens, temperature, top_p, seed):
            ids.append(token)
            text = trained.tokenizer.decode(ids)
            # A character of several bytes is complete only with its last token.
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                print(text[len(shown) :], end="", flush=True)
                shown = text
        print()


if __name__ == "__main__":
    app()
