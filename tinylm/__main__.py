"""`python -m tinylm`: train a small language model, sample text from it, export it, or count its
parameters."""

import fcntl
import glob
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tinylm import config as cfg
from tinylm import machine, signals
from tinylm.counts import count as short
from tinylm.counts import times
from tinylm.exits import (
    Code,
    CommandError,
    LockedError,
    RefusedError,
    reported,
    storing,
)
from tinylm.files import replacing, sync
from tinylm.options import Changes
from tinylm.size import size
from tinylm.streams import lose_unheard_output

if TYPE_CHECKING:
    from tinylm.data import Corpus
    from tinylm.train import Record, State

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)


Saved = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A checkpoint file, or a folder with a checkpoint.pt."
    ),
]


class RecordsError(CommandError):
    """The records of a run are damaged."""

    code = Code.DAMAGED


def kept_records(file: Path, step: int) -> int:
    """The size of a records file up to a step, without a last line that a crash cut short."""
    kept = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                is_beyond = json.loads(line)["step"] > step
            except (ValueError, TypeError, LookupError) as error:
                raise RecordsError(
                    f"{file}: line {number} is damaged. Delete the line to resume without its record, or "
                    f"{file.parent} to train from the beginning"
                ) from error
            if is_beyond:
                break
            kept += len(line)
    return kept


@contextmanager
def _locked(records: Path) -> Iterator[BinaryIO]:
    """The records file of a run, to read and to append to; `LockedError` if another process has it."""
    records.parent.mkdir(parents=True, exist_ok=True)
    with records.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"{records.parent}: another process trains this run") from error
        yield stream


@app.command()
def count(
    config: Annotated[str, typer.Argument(help="A shipped config's name or a YAML file.")],
    changes: Changes = [],  # noqa: B006 typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print a config's parameter counts and training FLOPs."""
    with reported():
        settings = cfg.overlay(cfg.load(config), cfg.parse_assignments(changes))
        if as_json:
            print(json.dumps(_size_facts(settings), indent=1))
        else:
            _print_size(config, settings)


def _size_facts(settings: cfg.Config) -> dict[str, int]:
    counted = size(settings.model)
    return {
        **asdict(counted),
        "tokens": settings.budget.tokens,
        "updates": settings.steps,
        "flops": counted.flops_per_token * settings.budget.tokens,
    }


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


def _resumed(settings: cfg.Config, corpus: "Corpus", saved: Path) -> "State":
    """The run as its last whole checkpoint left it, or a new one."""
    from tinylm import checkpoint
    from tinylm import train as training

    before = _before(saved)
    if not saved.exists() and before.exists():  # a crash came between two renames
        before.rename(saved)
    if not saved.exists():
        return training.start(settings)
    try:
        _refuse_other_config(saved, checkpoint.load_model(saved).config, settings)
        return checkpoint.load(saved, corpus, settings)
    except checkpoint.CheckpointError as error:
        if isinstance(error, checkpoint.UnreadableCheckpointError):
            raise
        if not before.exists():
            what = (
                "there is none before it. Delete it, and the same command trains from the beginning"
            )
            raise checkpoint.CheckpointError(f"{error}; {what}") from error
        state = checkpoint.load(before, corpus, settings)
        print(f"{error}; resuming from the checkpoint before, step {state.step}", file=sys.stderr)
        before.replace(saved)
        return state


def _before(saved: Path) -> Path:
    """The checkpoint before a checkpoint, while its run goes on."""
    return saved.with_name(f"{saved.stem}.before{saved.suffix}")


def _keep(saved: Path, state: "State", corpus: "Corpus", settings: cfg.Config, last: bool) -> None:
    """Save a checkpoint, and keep the one before it unless the run has ended."""
    from tinylm import checkpoint

    new, before = saved.with_name(f"{saved.stem}.new{saved.suffix}"), _before(saved)
    checkpoint.save(new, state, corpus, settings)
    if saved.exists():
        saved.replace(before)
    new.replace(saved)
    sync(saved.parent)
    if last:
        before.unlink(missing_ok=True)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """End the run at once; the last checkpoint is complete."""
    message = "interrupted; run the same command again to resume from the last checkpoint"
    raise signals.Interrupted(number, message)


@app.command()
def train(
    out: Annotated[
        Path, typer.Option(help="Folder for the config, the records and the checkpoint.")
    ],
    config: Annotated[str, typer.Option(help="A shipped config's name or a YAML file.")] = "cpu",
    changes: Changes = [],  # noqa: B006 typer copies it
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
        try:
            return machine.as_begun(settings, json.loads(began.read_text()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            from tinylm.checkpoint import CheckpointError

            raise CheckpointError(f"{began}: not the config of a run: {error}") from error
    chosen, tried = machine.choose(settings, lambda note: print(note, file=sys.stderr))
    for one in tried:
        print(one.words, file=sys.stderr)
    return chosen


def _begin_or_resume(settings: cfg.Config, out: Path) -> None:
    """Train what is left of the run in a folder."""
    from tinylm import data
    from tinylm import train as training

    training.require(settings.run.device)  # before anything is measured or downloaded
    saved = out / "checkpoint.pt"
    settings = _with_choices(settings, out / "config.json")
    corpus = data.prepare(settings, lambda message: print(message, file=sys.stderr))
    with storing(out), _locked(out / "records.jsonl") as records:
        state = _resumed(settings, corpus, saved)
        if training.is_over(state, settings):
            print(f"{saved} is finished ({state.step} updates); nothing is left to do")
            return
        passes = settings.budget.tokens / len(corpus.train.ids)
        if passes > 1 and settings.budget.seconds is None:
            tokens = f"{len(corpus.train.ids):,} tokens"
            often = times(passes, passes)
            print(f"the run reads the training text ({tokens}) about {often}", file=sys.stderr)
        with replacing(out / "config.json") as stream:
            stream.write(json.dumps(settings.model_dump(), indent=1).encode() + b"\n")
        records.truncate(kept_records(out / "records.jsonl", state.step))
        _train(settings, corpus, state, records, saved)


def _train(
    settings: cfg.Config, corpus: "Corpus", state: "State", records: BinaryIO, saved: Path
) -> None:
    from tinylm import checkpoint
    from tinylm import train as training

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    print("  step     tokens  train loss  val loss  bits/byte        lr  tokens/s", flush=True)
    try:
        with bar:
            task = bar.add_task("training", total=1.0)
            bar.update(task, completed=_share(state, settings))
            for record in training.train(state, corpus, settings):
                records.write(json.dumps(asdict(record)).encode() + b"\n")
                records.flush()
                os.fsync(records.fileno())
                print(_line(record), flush=True)
                bar.update(task, completed=_share(state, settings))
                if checkpoint.is_due(record, settings):
                    _keep(saved, state, corpus, settings, record.last)
    except training.Diverged as diverged:
        print(f"diverged: {diverged}")
        return
    print(f"checkpoint: {saved}")


def _checkpoint_file(saved: Path) -> Path:
    """The checkpoint that a path names, as a file or as its folder; `ConfigError` if there is none."""
    file = saved / "checkpoint.pt" if saved.is_dir() else saved
    if not file.is_file():
        named = Path().glob(f"*/{glob.escape(saved.name)}") if saved.name else ()
        folders = [saved, *named]
        below = sorted(one for folder in folders for one in folder.glob("*/checkpoint.pt"))
        hint = f"; did you mean {below[0].parent}?" if below else ""
        raise cfg.ConfigError([f"{file}: no such checkpoint{hint}"])
    return file


@app.command()
def export(
    saved: Saved,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write; it must be new.")
    ],
    to: Annotated[
        Literal["hf"],
        typer.Option(help="The format: hf is a folder that Hugging Face's transformers loads."),
    ] = "hf",
    custom_code: Annotated[
        bool,
        typer.Option(
            "--custom-code",
            help="Write the model's own code beside it, so that any model can be exported.",
        ),
    ] = False,
) -> None:
    """Write a checkpoint as a folder that another program loads."""
    with reported():
        from tinylm import checkpoint
        from tinylm.export import loads_as, write_hf

        trained = checkpoint.load_model(_checkpoint_file(saved))
        with storing(folder):
            write_hf(trained, folder, custom_code=custom_code)
        print(f"{folder}: {loads_as(custom_code)}")


@app.command()
def generate(
    saved: Saved,
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
        trained = checkpoint.load_model(_checkpoint_file(saved))
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
