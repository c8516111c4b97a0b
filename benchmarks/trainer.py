"""Measure how many tokens a second we train on, beside other trainers.

    python -m benchmarks.trainer [--shape cpu] [--precision fp32] [--rounds 9] [--out trainer.json]
    python -m benchmarks.trainer --device cuda --shape tinystories_17m --precision bf16

The peers are Hugging Face Llama (`transformers`), `x-transformers` (both in the extra `bench`), and
nanoGPT, whose folder the variable NANOGPT names. A peer that is missing is skipped. All models have tied
embeddings, as nanoGPT has, equal shapes, and parameters within 5% of ours; a model outside is an error.
nanoGPT's feed-forward layers are 4 times as wide as the model; where ours have more weights, they are made
as wide as it takes to have as many.
Each makes its own updates: zeroed gradients, loss, backward, clipping to norm 1, fused AdamW.

Every model runs in each precision, eager and compiled, each in a process of its own: how it uses memory
is a part of its speed. They take turns, in an order that turns around every round. On a CPU, the clock
counts the CPU seconds of the process. With one thread these are the seconds that an idle machine takes; on
a busy one they are less disturbed than wall-clock seconds, which are written to the JSON file too. On a
CUDA device, the wall-clock seconds count, until the device is done. What counts is the ratio within one
run.
"""

import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm import machine, measure, train
from tinylm.size import MATRICES, size

# Changes to the shipped config `cpu`, on a CPU; the batch has 2,048 tokens in each.
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
CUDA_SHAPES = ("cpu", "tinystories_17m", "baseline_17m")  # shipped configs, as they are
DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "bf16")
CPU_UPDATES = 3  # of a contender in a round
CUDA_SECONDS = (
    0.5  # that those of a round take on a CUDA device, where it is not said how many they are
)
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
    hidden = MATRICES[c.ffn] * c.d_ff // 2
    if hidden > 1.05 * 4 * c.d_model:
        for block in model.transformer.h:
            block.mlp.c_fc = nn.Linear(c.d_model, hidden, bias=False)
            block.mlp.c_proj = nn.Linear(hidden, c.d_model, bias=False)

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
    c, device = config.optim, config.run.device
    model.to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": c.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, c.lr, (c.beta1, c.beta2), c.eps, fused=True)
    loss_of = torch.compile(loss_of) if config.run.compile else loss_of
    shape = (c.batch_size, config.model.context_length + 1)
    window_BT = torch.randint(config.model.vocab_size, shape, device=device)
    in_bf16 = config.run.precision == "bf16"

    def update() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=in_bf16):
            loss = loss_of(window_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


@dataclass
class Contender:
    """A trainer in one setting, and what was measured of it."""

    name: str
    precision: str
    compiled: bool
    changes: dict[str, Any] = field(default_factory=dict)  # of the config that is raced
    skipped: str = ""  # why it can't run here
    params: int = 0
    first_seconds: float = 0.0  # wall-clock, of the first two updates: with compiling
    peak_memory: int = 0  # bytes, as `train.peak_memory` counts them
    updates: int = 0  # in a round
    cpu_seconds: list[float] = field(default_factory=list)  # of an update, by round
    wall_seconds: list[float] = field(default_factory=list)

    def seconds(self, device: str) -> list[float]:
        """The seconds of an update that count on a device, by round."""
        return self.wall_seconds if device == "cuda" else self.cpu_seconds

    def speed(self, config: cfg.Config) -> float:
        """Tokens per second."""
        return config.tokens_per_step / statistics.median(self.seconds(config.run.device))

    def ratio(self, other: "Contender", device: str) -> float:
        """How many times as fast as another it is: the median over rounds, so that changes of the
        machine's speed count less."""
        pairs = zip(self.seconds(device), other.seconds(device), strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    def prepared(self, config: cfg.Config) -> Update:
        """Its update, with its parameters counted; `Missing` if the trainer is not here."""
        own = {"run.precision": self.precision, "run.compile": self.compiled}
        here = cfg.overlay(config, own | self.changes)
        ours = size(here.model).params
        if self.name == OURS:
            self.params = ours
            return measure.updates(here)
        model, loss_of = PEERS[self.name](here.model)
        self.params = sum(p.numel() for p in model.parameters())
        if abs(self.params / ours - 1) > 0.05:
            raise Missing(f"it has {self.params:,} parameters, {OURS} {ours:,}")
        return peer_update(model.train(), loss_of, here)


def timed(update: Update, updates: int, device: str) -> tuple[float, float]:
    """CPU seconds and wall-clock seconds of an update."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(updates):
        update()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.process_time() - cpu) / updates, (time.perf_counter() - wall) / updates


def work(contender: Contender, config: cfg.Config, pipe: Connection) -> None:
    """The process of a contender: sends its parameters and the seconds of its first updates, or why it
    can't run; then, each time it is told a number of updates, the seconds of one and the peak memory."""
    torch.set_num_threads(1)
    device = config.run.device
    try:
        update = contender.prepared(config)
        _, wall = timed(update, 2, device)
    except Exception as error:  # noqa: BLE001 a compiler may raise anything
        pipe.send(str(error) if isinstance(error, Missing) else f"{error!r:.300}")
        return
    pipe.send((contender.params, 2 * wall))
    while updates := pipe.recv():
        pipe.send((*timed(update, updates, device), train.peak_memory(device)))


class Lane:
    """A contender, and the process that makes its updates."""

    def __init__(self, contender: Contender, config: cfg.Config) -> None:
        self.contender = contender
        self._is_waited_for = True
        processes = multiprocessing.get_context("spawn")
        self._pipe, other = processes.Pipe()
        arguments = (contender, config, other)
        self._process = processes.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        other.close()

    def wait(self) -> None:
        """Wait for the first updates."""
        if not self._is_waited_for:
            return
        self._is_waited_for = False
        try:
            first = self._pipe.recv()
        except EOFError:
            first = "its process was killed"
        if isinstance(first, str):
            self.contender.skipped = first
        else:
            self.contender.params, self.contender.first_seconds = first

    @property
    def is_ready(self) -> bool:
        """Whether the contender can run here; waits for its first updates."""
        self.wait()
        return not self.contender.skipped

    def begin(self, updates: int) -> None:
        """Let it make updates."""
        self._pipe.send(updates)

    def end(self) -> tuple[float, float]:
        """Wait until they are made; CPU seconds and wall-clock seconds of an update."""
        cpu, wall, self.contender.peak_memory = self._pipe.recv()
        return cpu, wall

    def turn(self) -> None:
        """Measure the updates of a round."""
        self.begin(self.contender.updates)
        cpu, wall = self.end()
        self.contender.cpu_seconds.append(cpu)
        self.contender.wall_seconds.append(wall)

    def choose_updates(self, updates: int | None) -> None:
        """Make so many updates in a round, or as many as take `CUDA_SECONDS`."""
        if updates is None:
            self.begin(5)
            _, wall = self.end()
            updates = max(1, round(CUDA_SECONDS / wall))
        self.contender.updates = updates

    def close(self) -> None:
        """End the process."""
        self._pipe.send(0)
        self._process.join()


def together(one: Contender, config: cfg.Config, rounds: int, updates: int) -> float:
    """How many times the updates of one process two make at once: the median over rounds, by wall-clock."""
    lanes = opened([replace(one), replace(one)], config)
    if not all(lane.is_ready for lane in lanes):
        return math.nan
    times = []
    for _ in range(rounds):
        seconds = []
        for asked in (lanes[:1], lanes):
            for lane in asked:
                lane.begin(updates)
            seconds.append(max(lane.end()[1] for lane in asked))
        alone, both = seconds
        times.append(2 * alone / both)
    for lane in lanes:
        lane.close()
    return statistics.median(times)


def opened(entered: Sequence[Contender], config: cfg.Config) -> list[Lane]:
    """The lanes of contenders. On a CUDA device they compile at the same time, elsewhere one by one, so
    that their first seconds are their own."""
    lanes = []
    for one in entered:
        lanes.append(Lane(one, config))
        if config.run.device != "cuda":
            lanes[-1].wait()
    return lanes


def race(lanes: Sequence[Lane], rounds: int, updates: int | None) -> list[Contender]:
    """Those that can run here, with what was measured of them in rounds of so many updates, or of as
    many as take `CUDA_SECONDS`."""
    able = [lane for lane in lanes if lane.is_ready]
    for lane in able:
        lane.choose_updates(updates)
    for number in range(rounds):
        for lane in able if number % 2 == 0 else reversed(able):
            lane.turn()
    for lane in able:
        lane.close()
    return [lane.contender for lane in able]


def _how(one: Contender) -> str:
    return "compiled" if one.compiled else "eager"


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
    shape: Annotated[
        str, typer.Option(help=f"Of {', '.join(SHAPES)}; on cuda, of {', '.join(CUDA_SHAPES)}.")
    ] = "cpu",
    device: Annotated[str, typer.Option(help=f"Of {', '.join(DEVICES)}.")] = "cpu",
    precision: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(PRECISIONS)}; both by default.")
    ] = None,
    eager_only: Annotated[bool, typer.Option(help="Compile nothing.")] = False,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    updates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of each in a round; default: {CPU_UPDATES}, on cuda those of {CUDA_SECONDS} s.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Print the training speed of tinylm and its peers, medians over rounds."""
    on_cuda = device == "cuda"
    base = cfg.load(shape) if on_cuda else cfg.overlay(cfg.load("cpu"), SHAPES[shape])
    config = cfg.overlay(base, {"model.tie_embeddings": True, "run.device": device})
    settings = product(
        (OURS, *PEERS), precision or PRECISIONS, (False,) if eager_only else (False, True)
    )
    entered = [Contender(*setting) for setting in settings]
    updates = updates or (None if on_cuda else CPU_UPDATES)
    able = race(opened(entered, config), rounds, updates)
    for one in entered:
        if one.skipped:
            print(f"{one.name} {one.precision} {_how(one)} is skipped: {one.skipped}")
    print(f"{_where(device)}, {versions()}, shape {shape}, {rounds} rounds")
    print(
        f"{'':16s} {'':5s} {'':9s} {'parameters':>10s} {'first s':>8s} {'tokens/s':>9s} {'ratio':>6s}"
    )
    ours = [one for one in able if one.name == OURS]
    best = max(ours, key=lambda one: one.speed(config))
    rows = []
    for one in sorted(able, key=lambda one: -one.ratio(best, device)):
        speed, ratio = one.speed(config), one.ratio(best, device)
        print(
            f"{one.name:16s} {one.precision:5s} {_how(one):9s} "
            f"{one.params:10,} {one.first_seconds:8.1f} {speed:9,.0f} {ratio:6.2f}"
        )
        rows.append({**asdict(one), "tokens_per_s": speed, "ratio_to_our_best": ratio})
    twice = together(best, config, rounds, 10 * best.updates)
    print(f"two at once make {twice:.2f} times the updates of one, by wall-clock")
    if out is not None:
        table = {
            "device": _where(device), "versions": versions(), "shape": shape,
            "config": config.model_dump(), "rounds": rounds, "rows": rows, "two_at_once": twice,
        }  # fmt: skip
        out.write_text(json.dumps(table, indent=1) + "\n")


def _where(device: str) -> str:
    """The device in words."""
    return (
        torch.cuda.get_device_name() if device == "cuda" else f"{machine.processor()}, one thread"
    )


if __name__ == "__main__":
    app()
