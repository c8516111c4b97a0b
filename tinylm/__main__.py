"""`python -m tinylm train | generate | count`."""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tinylm import config as cfg
from tinylm.yaml import parse

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
Set = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="Replace one value, e.g. optim.lr=3e-3."),
]
DAMAGED, REFUSED = 6, 9


def assignments(texts: list[str]) -> dict[str, object]:
    """The changes that `PATH=VALUE` texts name; values are read as YAML."""
    changes = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise cfg.ConfigError([f"--set: {text!r}: PATH=VALUE is due, e.g. optim.lr=3e-3"])
        changes[path.strip()] = parse(value, f"--set {path}")
    return changes


def fail(message: object, code: int = 2) -> typer.Exit:
    """Print what is wrong; the exit to raise."""
    print(message, file=sys.stderr)
    return typer.Exit(code)


def human(number: float) -> str:
    """A count in three digits and a unit: 128.6M."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g}Z"


@app.command()
def count(
    config: Annotated[str, typer.Argument(help="A shipped config's name or a YAML file.")],
    changes: Set = [],  # noqa: B006: typer copies it
) -> None:
    """Print the parameters of a config's model and the FLOPs of its training."""
    try:
        settings = cfg.overlay(cfg.load(config), assignments(changes))
    except ValueError as error:
        raise fail(error) from error
    from tinylm.model import size

    counted = size(settings.model)
    table = Table(title=config, box=None, show_header=False, title_justify="left")
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
        table.add_row(name, f"{value:,}", human(value))
    Console().print(table)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for config, records and checkpoint.")],
    config: Annotated[str, typer.Option(help="A shipped config's name or a YAML file.")] = "cpu",
    changes: Set = [],  # noqa: B006
) -> None:
    """Train one model; the same command again goes on from the last checkpoint."""
    try:
        settings = cfg.overlay(cfg.load(config), assignments(changes))
        if out.exists() and not out.is_dir():
            raise cfg.ConfigError([f"--out {out}: not a folder"])
    except ValueError as error:
        raise fail(error) from error
    from tinylm import checkpoint, data
    from tinylm import train as training

    saved, records_file = out / "checkpoint.pt", out / "records.jsonl"
    try:
        corpus = data.prepare(settings, lambda message: print(message, file=sys.stderr))
        state = training.start(settings)
        if saved.exists():
            before = cfg.flatten(checkpoint.load_model(saved).config.model_dump())
            now = cfg.flatten(settings.model_dump())
            different = [f"  {p}: {before[p]!r} there, {now[p]!r} here" for p in now if before.get(p) != now[p]]
            if different:
                lines = [f"{saved} is a training of another config:", *different]
                raise fail("\n".join([*lines, "name another --out"]), REFUSED)
            state = checkpoint.load(saved, corpus, settings)
    except ValueError as error:
        raise fail(error) from error
    except checkpoint.CheckpointError as error:
        raise fail(error, DAMAGED) from error
    if state.step == settings.steps:
        print(f"{saved} is finished ({state.step} updates); nothing is left to do")
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(settings.model_dump(), indent=1) + "\n")
    kept = []
    if records_file.exists():
        kept = [line for line in records_file.read_text().splitlines() if json.loads(line)["step"] <= state.step]
    records_file.write_text("".join(f"{line}\n" for line in kept))

    # Ctrl-C and SIGTERM end the training between two updates; the last checkpoint is whole.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )
    every = settings.run.checkpoint_every_tokens
    print("  step     tokens  train loss  val loss  bits/byte        lr  tokens/s")
    try:
        with progress, records_file.open("a") as stream:
            bar = progress.add_task("training", total=settings.steps, completed=state.step)
            for record in training.train(state, corpus, settings):
                progress.console.file.flush()
                line = (
                    f"{record.step:6d} {record.tokens:10d}  {record.train_loss:10.4f}"
                    f"  {record.val_loss:8.4f}  {record.bits_per_byte:9.4f}"
                    f"  {record.lr:8.2e}  {record.tokens_per_s:8.0f}"
                )
                print(line, flush=True)
                stream.write(json.dumps(asdict(record)) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
                progress.update(bar, completed=record.step)
                if record.tokens % every == 0 or record.step == settings.steps:
                    checkpoint.save(saved, state, corpus, settings)
    except training.Diverged as diverged:
        print(f"diverged: {diverged}")
        return
    except KeyboardInterrupt as error:
        raise fail(f"interrupted; the same command goes on from {saved}", 130) from error
    print(f"checkpoint: {saved}")


@app.command()
def generate(
    saved: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint file.")],
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most probable.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus mass.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Print the prompt and what the model makes of it."""
    from tinylm import checkpoint
    from tinylm.generate import generate as sample

    try:
        trained = checkpoint.load_model(saved)
    except checkpoint.CheckpointError as error:
        raise fail(error, 2 if not saved.is_file() else DAMAGED) from error
    print(prompt, end="", flush=True)
    ids: list[int] = []
    shown = ""
    for token in sample(trained, prompt, max_tokens, temperature, top_p, seed):
        ids.append(token)
        text = trained.tokenizer.decode(ids)
        # A character of several bytes is whole only with its last token.
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()


if __name__ == "__main__":
    app()
