"""Measure how many tokens a second we train on, beside other trainers.

    python -m benchmarks.trainer [--shape cpu] [--precision fp32] [--rounds 9] [--out trainer.json]

The peers are Hugging Face Llama (`transformers`), `x-transformers` (both in the extra `bench`), and
nanoGPT, whose folder the variable NANOGPT names. A peer that is missing is skipped. All models have tied
embeddings, as nanoGPT has, equal shapes, and parameters within 5% of ours; a model outside is an error.
Each makes its own updates: zeroed gradients, loss, backward, clipping to norm 1, fused AdamW.

Every model runs in each precision, eager and compiled, each in a process of its own: how it uses memory
is a part of its speed. They take turns, in an order that turns around every round. The clock counts the
CPU seconds of the process. With one thread these are the seconds that an idle machine takes; on a busy
one they are less disturbed than wall-clock seconds, which are written to the JSON file too. What counts
is the ratio within one run.
"""

import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm import measure
from tinylm.size import size

# Changes to the shipped config `cpu`; the batch has 2,048 tokens in each.
SHAPES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "wide": {
        "model.d_model": 256, "model.context_length": 256, "model.n_heads": 8, "model.d_ff": 688,
        "optim.batch_size": 8,
    },
    "tinystories_17m": {
        "model.vocab_size": 10_000, "model.context_length": 256, "model.d_model": 512,
        "model.n_heads": 16, "model.d_ff": 1344, "optim.batch_size": 8,
    },
}  # fmt: skip
PRECISIONS = ("fp32", "bf16")
OURS = "tinylm"
Update = Callable[[], object]
LossOf = Callable[[Tensor], Tensor]  # windows of tokens (B, T + 1) -> loss


app = typer.Typer()


class Missing(Exception):  # noqa: N818 a peer that this machine has not
    """Why a peer is skipped."""


def nanogpt(c: cfg.Model) -> tuple[nn.Module, LossOf]:
    """The model of a checkout of nanoGPT, without biases, which its author calls faster."""
    folder = os.environ.get("NANOGPT")
    if folder is None:
        raise Missing("set NANOGPT to a checkout of github.com/karpathy/nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt", Path(folder) / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the compiler looks for it
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise Missing(f"NANOGPT is not a checkout of nanoGPT: {error}") from error
    settings = module.GPTConfig(
        block_size=c.context_length, vocab_size=c.vocab_size, n_layer=c.n_layers,
        n_head=c.n_heads, n_embd=c.d_model, dropout=0.0, bias=False,
    )  # fmt: skip
    model = module.GPT(settings)

    def loss(window_BT: Tensor) -> Tensor:
        return model(window_BT[:, :-1].contiguous(), window_BT[:, 1:].contiguous())[1]

    return model, loss


def llama(c: cfg.Model) -> tuple[nn.Module, LossOf]:
    """Llama of Hugging Face's transformers."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise Missing(f"pip install transformers ({error})") from error
    settings = LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.d_model, intermediate_size=c.d_ff,
        num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads,
        max_position_embeddings=c.context_length, tie_word_embeddings=True, use_cache=False,
        attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaForCausalLM(settings)

    def loss(window_BT: Tensor) -> Tensor:
        return model(input_ids=window_BT[:, :-1], labels=window_BT[:, :-1]).loss

    return model, loss


def x_transformers(c: cfg.Model) -> tuple[nn.Module, LossOf]:
    """A decoder of x-transformers with the switches of our default: RMSNorm, RoPE, SwiGLU."""
    try:
        from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper
    except ImportError as error:
        raise Missing(f"pip install x-transformers ({error})") from error
    layers = Decoder(
        dim=c.d_model, depth=c.n_layers, heads=c.n_heads, attn_dim_head=c.d_model // c.n_heads,
        attn_flash=True, rotary_pos_emb=True, use_rmsnorm=True, ff_glu=True, ff_swish=True,
        ff_no_bias=True, ff_mult=c.d_ff / c.d_model,
    )  # fmt: skip
    model = TransformerWrapper(
        num_tokens=c.vocab_size, max_seq_len=c.context_length, attn_layers=layers,
        tie_embedding=True, use_abs_pos_emb=False,
    )  # fmt: skip
    return model, AutoregressiveWrapper(model)


PEERS: dict[str, Callable[[cfg.Model], tuple[nn.Module, LossOf]]] = {
    "nanoGPT": nanogpt,
    "Llama": llama,
    "x-transformers": x_transformers,
}


def peer_update(model: nn.Module, loss_of: LossOf, config: cfg.Config) -> Update:
    """An update of a peer on random tokens, as its own loop makes it."""
    c = config.optim
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": c.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, c.lr, (c.beta1, c.beta2), c.eps, fused=True)
    loss_of = torch.compile(loss_of) if config.run.compile else loss_of
    shape = (c.batch_size, config.model.context_length + 1)
    window_BT = torch.randint(config.model.vocab_size, shape)
    in_bf16 = config.run.precision == "bf16"

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            loss = loss_of(window_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return update


@dataclass
class Contender:
    """A trainer in one setting, and what was measured of it."""

    name: str
    precision: str
    compiled: bool
    params: int = 0
    first_seconds: float = 0.0  # wall-clock, of the first two updates: with compiling
    cpu_seconds: list[float] = field(default_factory=list)  # of an update, by round
    wall_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """CPU seconds of an update."""
        return statistics.median(self.cpu_seconds)

    def prepared(self, config: cfg.Config) -> Update:
        """Its update, with its parameters counted; `Missing` if the trainer is not here."""
        here = cfg.overlay(config, {"run.precision": self.precision, "run.compile": self.compiled})
        ours = size(config.model).params
        if self.name == OURS:
            self.params = ours
            return measure.updates(here)
        model, loss_of = PEERS[self.name](config.model)
        self.params = sum(p.numel() for p in model.parameters())
        if abs(self.params / ours - 1) > 0.05:
            raise Missing(f"it has {self.params:,} parameters, {OURS} {ours:,}")
        return peer_update(model.train(), loss_of, here)


def timed(update: Update, updates: int) -> tuple[float, float]:
    """CPU seconds and wall-clock seconds of an update."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(updates):
        update()
    return (time.process_time() - cpu) / updates, (time.perf_counter() - wall) / updates


def lane(contender: Contender, config: cfg.Config, updates: int, pipe: Connection) -> None:
    """The process of a contender: sends its parameters and the seconds of its first updates, or why it
    can't run; then, each time it is asked, the seconds of an update."""
    torch.set_num_threads(1)
    try:
        update = contender.prepared(config)
        start = time.perf_counter()
        update()
        update()
    except Exception as error:  # noqa: BLE001 a compiler may raise anything
        pipe.send(str(error) if isinstance(error, Missing) else f"{error!r:.300}")
        return
    pipe.send((contender.params, time.perf_counter() - start))
    while pipe.recv():
        pipe.send(timed(update, updates))


def started(contender: Contender, config: cfg.Config, updates: int) -> Connection:
    """The pipe to a new process of a contender."""
    processes = multiprocessing.get_context("spawn")
    pipe, other = processes.Pipe()
    processes.Process(target=lane, args=(contender, config, updates, other), daemon=True).start()
    return pipe


def together(one: Contender, config: cfg.Config, rounds: int, updates: int) -> float:
    """How many times the updates of one process two make at once: the median over rounds, by wall-clock."""
    pipes = [started(one, config, updates) for _ in range(2)]
    for pipe in pipes:
        pipe.recv()
    times = []
    for _ in range(rounds):
        seconds = []
        for asked in (pipes[:1], pipes):
            for pipe in asked:
                pipe.send(True)
            seconds.append(max(pipe.recv()[1] for pipe in asked))
        alone, both = seconds
        times.append(2 * alone / both)
    for pipe in pipes:
        pipe.send(False)
    return statistics.median(times)


def race(
    entered: list[Contender], config: cfg.Config, rounds: int, updates: int
) -> list[Contender]:
    """Those that can run here, with what was measured of them; says why others can't."""
    pipes: dict[int, Connection] = {}
    able = []
    for one in entered:
        pipe = started(one, config, updates)
        first = pipe.recv()
        if isinstance(first, str):
            print(f"{one.name} {one.precision} {_how(one)} is skipped: {first}")
            continue
        one.params, one.first_seconds = first
        pipes[id(one)] = pipe
        able.append(one)
    for number in range(rounds):
        for one in able if number % 2 == 0 else reversed(able):
            pipes[id(one)].send(True)
            cpu, wall = pipes[id(one)].recv()
            one.cpu_seconds.append(cpu)
            one.wall_seconds.append(wall)
    for pipe in pipes.values():
        pipe.send(False)
    return able


def _how(one: Contender) -> str:
    return "compiled" if one.compiled else "eager"


def processor() -> str:
    """The model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def versions() -> dict[str, str]:
    """The versions of what is compared."""
    found = {}
    for name in ("torch", "transformers", "x-transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@app.command()
def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = "cpu",
    precision: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(PRECISIONS)}; both by default.")
    ] = None,
    eager_only: Annotated[bool, typer.Option(help="Compile nothing.")] = False,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    updates: Annotated[int, typer.Option(min=1, help="Of each in a round.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Print the training speed of tinylm and its peers, medians over rounds."""
    changes = {"model.tie_embeddings": True, **SHAPES[shape]}
    config = cfg.overlay(cfg.load("cpu"), changes)
    settings = product(
        (OURS, *PEERS), precision or PRECISIONS, (False,) if eager_only else (False, True)
    )
    able = race([Contender(*setting) for setting in settings], config, rounds, updates)
    print(
        f"{processor()}, one thread, {versions()}, shape {shape}, {rounds} rounds of {updates} updates"
    )
    print(
        f"{'':16s} {'':5s} {'':9s} {'parameters':>10s} {'first s':>8s} {'tokens/s':>9s} {'ratio':>6s}"
    )
    best = min((one for one in able if one.name == OURS), key=lambda one: one.median)
    # Of the same rounds, so that changes of the machine's speed count less.
    ratios = {
        id(one): statistics.median(
            b / a for a, b in zip(one.cpu_seconds, best.cpu_seconds, strict=True)
        )
        for one in able
    }
    rows = []
    for one in sorted(able, key=lambda one: -ratios[id(one)]):
        speed, ratio = config.tokens_per_step / one.median, ratios[id(one)]
        print(
            f"{one.name:16s} {one.precision:5s} {_how(one):9s} "
            f"{one.params:10,} {one.first_seconds:8.1f} {speed:9,.0f} {ratio:6.2f}"
        )
        rows.append({**asdict(one), "tokens_per_cpu_second": speed, "ratio_to_our_best": ratio})
    twice = together(best, config, rounds, 10 * updates)
    print(f"two at once make {twice:.2f} times the updates of one, by wall-clock")
    if out is not None:
        table = {
            "processor": processor(), "versions": versions(), "shape": shape,
            "config": config.model_dump(), "rounds": rounds, "updates": updates, "rows": rows,
            "two_at_once": twice,
        }  # fmt: skip
        out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    app()
