"""Checkpoints: written completely or not at all, read without running any code in them.

A checkpoint is a file written by torch.save, followed by its SHA-256. The checksums inside such a
file cover its members only; a flipped bit between them could change what torch reads.
"""

import hashlib
import math
import os
import pickle
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tinylm import config as cfg
from tinylm import train
from tinylm.data import END_OF_TEXT, Corpus
from tinylm.exits import Code, CommandError, system_error
from tinylm.files import replacing
from tinylm.machine import memory
from tinylm.model import build
from tinylm.size import size

_FORMAT = 2
_DIGEST_BYTES = hashlib.sha256().digest_size
_WATCHED = tuple(field.name for field in fields(train.LossWatch))
_LONGEST = 1e9  # seconds of training: thirty years
_MOST = 1e100  # a loss, as in a ledger
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of a parameter
_COUNTED = 2**24  # updates up to which it counts: the counter is a float32
# Fields of its groups that the run sets, or that change how it computes and not what.
_FREE = {"lr", "capturable", "foreach", "fused", "differentiable"}
_SHARE = 4  # the tables of a model that no checkpoint holds take this part of the memory at most


class CheckpointError(CommandError):
    """A checkpoint that is damaged, or from another run."""

    code = Code.DAMAGED


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint that may be whole, but can't be opened here, or is of another version."""


def is_due(record: train.Record, config: cfg.Config) -> bool:
    """Whether a run saves a checkpoint after this record: at every `run.checkpoint_every_tokens`,
    and at the end."""
    return record.last or record.tokens % config.run.checkpoint_every_tokens == 0


def save(path: Path, state: train.State, corpus: Corpus, config: cfg.Config) -> None:
    """Write the state of a run; at any moment `path` is either the old file or the complete new one."""
    content = {
        "format": _FORMAT,
        "config": config.model_dump(),
        "step": state.step,
        "seconds": state.seconds,
        **asdict(state.watch),
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "tokenizer": corpus.tokenizer().to_str(),
        "provenance": {
            "corpus": corpus.digest,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "machine": platform.platform(),
        },
    }
    with replacing(path) as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # that is how torch says that the disk is full
            if (cause := system_error(error)) is None:
                raise
            raise OSError(cause.errno, os.strerror(cause.errno or 0), str(path)) from error
        stream.seek(0)
        stream.write(hashlib.file_digest(stream, "sha256").digest())


def _whole(stream: BinaryIO) -> bool:
    """Whether the file ends with the digest of everything before it."""
    left = stream.seek(0, os.SEEK_END) - _DIGEST_BYTES
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(max(0, min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
    return stream.read() == digest.digest()


def _read(path: Path) -> tuple[dict[str, Any], cfg.Config]:
    """The content of a checkpoint, in main memory, and its config, after both have been verified."""
    try:
        with path.open("rb") as stream:
            if not _whole(stream):
                raise CheckpointError(
                    f"{path}: damaged, or not a checkpoint: the checksum does not match"
                )
            # torch writes what it saves as it is; packed members could be of any size.
            with zipfile.ZipFile(stream) as members:
                if any(member.compress_type for member in members.infolist()):
                    raise ValueError("its members are compressed")
            stream.seek(0)
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:  # of the disk or the system
        reason = error.strerror
        raise UnreadableCheckpointError(f"{path}: not a readable checkpoint: {reason}") from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: not a readable checkpoint: {reason}") from error
    number = content.get("format") if isinstance(content, dict) else None
    if number != _FORMAT:
        text = f"{path}: checkpoint format {number!r:.20}, this version reads {_FORMAT}"
        newer = isinstance(number, int) and number > _FORMAT
        raise UnreadableCheckpointError(text) if newer else CheckpointError(text)
    config = _config(path, content)
    problem = _problem(content, config)
    if problem:
        raise CheckpointError(f"{path}: not a checkpoint of this program: {problem}")
    return content, config


def _config(path: Path, content: Mapping[str, Any]) -> cfg.Config:
    """The config of a checkpoint; `CheckpointError` if it has none that is valid."""
    tree = content.get("config")
    if not isinstance(tree, dict) or not all(isinstance(part, dict) for part in tree.values()):
        raise CheckpointError(f"{path}: not a checkpoint of this program: config is missing")
    try:
        return cfg.validate(cfg.with_implied(tree), "config")
    except cfg.ConfigError as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of this program: {str(error).partition(chr(10))[0]:.200}"
        ) from error


def _problem(content: Mapping[str, Any], config: cfg.Config) -> str:
    """What keeps a content from being the checkpoint of a run with this config; empty if nothing does.

    Nothing of the model's size is allocated.
    """
    kinds: dict[str, type | tuple[type, ...]] = {
        "model": dict,
        "optimizer": dict,
        "tokenizer": str,
        "provenance": dict,
        "step": int,
        "seconds": (int, float),
        **dict.fromkeys(_WATCHED, (int, float)),
    }
    for name, kind in kinds.items():
        if name not in content:
            return f"{name} is missing"
        if not isinstance(content[name], kind):
            return f"{name} is {type(content[name]).__name__}"
    if not isinstance(content["provenance"].get("corpus"), str):
        return "the digest of its corpus is missing"
    if not 0 <= content["step"] <= config.steps:
        return f"step {content['step']} of {config.steps}"
    if not 0 <= content["seconds"] <= _LONGEST:
        return f"seconds is {content['seconds']!s:.20}"
    watched = [content[name] for name in _WATCHED]
    unused = str(watched) == str([*asdict(train.LossWatch()).values()])  # NaN is not equal to NaN
    if not (all(-_MOST <= one <= _MOST for one in watched) if content["step"] else unused):
        return "what it says of the losses is not finite"
    return _problem_of_weights(content["model"], config.model)


def _is_plain(tensor: object) -> bool:
    """Whether something is a tensor of floating-point numbers, each of which is in memory.

    One that repeats its values, or has none, may claim to be of any size.
    """
    return (
        isinstance(tensor, Tensor)
        and tensor.is_floating_point()
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
    )


def _problem_of_weights(weights: Mapping[str, Any], model: cfg.Model) -> str:
    """The same for the weights of a model."""
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return f"{name!s:.80} is not a tensor of numbers"
        if not _is_plain(tensor):
            return f"{name!s:.80} is not contiguous"
    tied = weights.get("head.weight") if model.tie_embeddings else None
    held = sum(tensor.numel() for tensor in weights.values()) - (
        0 if tied is None else tied.numel()
    )
    expected = size(model).params
    if held != expected:
        return f"its config has {expected:,} parameters, the file has {held:,}"
    if 4 * model.context_length * model.d_model > memory() // _SHARE:
        return f"model.context_length: {model.context_length:,} tokens don't fit in memory"
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        return "a weight is not a finite number"
    return ""


def _filled(path: Path, model: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Give a model the weights of a checkpoint; `CheckpointError` if they are of another model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = lines[min(1, len(lines) - 1)].strip()
        raise CheckpointError(f"{path}: the weights are of another model: {reason:.200}") from error


def _resume_optimizer(path: Path, state: train.State, saved: Mapping[str, Any]) -> None:
    """Give the optimizer its saved moments; `CheckpointError` if they are not those of this run.

    Nothing of their size is allocated before they have been checked.
    """
    # How it computes is a matter of this program, not of the one that saved it.
    groups = state.optimizer.state_dict()["param_groups"]
    parameters = [
        parameter for group in state.optimizer.param_groups for parameter in group["params"]
    ]
    try:
        problem = _problem_of_groups(saved["param_groups"], groups) or _problem_of_moments(
            saved["state"], parameters, state.step
        )
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its optimizer state can't be used: {error!s:.200}"
        ) from error
    if problem:
        raise CheckpointError(f"{path}: the optimizer state belongs to another run: {problem}")
    groups = [
        here | {"lr": there["lr"]}
        for here, there in zip(groups, saved["param_groups"], strict=True)
    ]
    state.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def _problem_of_groups(
    saved: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> str:
    """What keeps saved groups of parameters from being these; empty if nothing does."""
    if len(saved) != len(groups):
        return f"{len(saved)} groups of parameters, not {len(groups)}"
    for there, here in zip(saved, groups, strict=True):
        if not isinstance(there["lr"], float | Tensor) or not math.isfinite(there["lr"]):
            return "its lr is not a number"
        for name in here.keys() & there.keys() - _FREE:  # versions of torch differ in the others
            value = list(there[name]) if isinstance(here[name], list | tuple) else there[name]
            own = list(here[name]) if isinstance(here[name], tuple) else here[name]
            if value != own:
                return f"its {name} is another"
    return ""


def _problem_of_moments(
    saved: Mapping[int, Mapping[str, Any]], parameters: Sequence[Tensor], step: int
) -> str:
    """What keeps a saved state from being that of these parameters after so many updates; empty if
    nothing does."""
    if saved.keys() != set(range(len(parameters) if step else 0)):
        return f"it has {len(saved)} parameters at step {step}"
    for number, moments in saved.items():
        if moments.keys() != _MOMENTS or not all(map(_is_plain, moments.values())):
            return f"the moments of parameter {number} are not tensors of numbers"
        if moments["step"].numel() != 1 or moments["step"].item() != min(step, _COUNTED):
            return f"it is not at step {step}"
        for name in ("exp_avg", "exp_avg_sq"):
            moment, parameter = moments[name], parameters[number]
            if moment.shape != parameter.shape or moment.dtype != parameter.dtype:
                return f"{name} of parameter {number} is of another shape or type"
            if not moment.isfinite().all():
                return f"{name} of parameter {number} is not finite"
        if moments["exp_avg_sq"].min() < 0:
            return f"exp_avg_sq of parameter {number} is negative"
    return ""


def load(path: Path, corpus: Corpus, config: cfg.Config) -> train.State:
    """The saved state of a run; `CheckpointError` if its config or corpus is another one."""
    content, _ = _read(path)
    if cfg.difference(content["config"], config.model_dump()):
        raise CheckpointError(f"{path}: checkpoint of a run with another config")
    if content["provenance"]["corpus"] != corpus.digest:
        raise CheckpointError(
            f"{path}: trained on corpus {content['provenance']['corpus']:.40}, got {corpus.digest}"
        )
    state = train.start(config)
    _filled(path, state.model, content["model"])
    state.step, state.seconds = content["step"], content["seconds"]
    _resume_optimizer(path, state, content["optimizer"])
    state.watch = train.LossWatch(**{name: content[name] for name in _WATCHED})
    return state


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, with what is needed to use it."""

    model: torch.nn.Module
    tokenizer: Tokenizer
    config: cfg.Config
    step: int


def load_model(path: Path) -> TrainedModel:
    """The model of a checkpoint, on the CPU and with its tokenizer; needs no corpus."""
    content, config = _read(path)
    try:
        tokenizer = Tokenizer.from_str(content["tokenizer"])
    except Exception as error:  # tokenizers raises nothing more special
        raise CheckpointError(f"{path}: its tokenizer can't be read") from error
    if tokenizer.token_to_id(END_OF_TEXT) is None or (
        tokenizer.get_vocab_size() > config.model.vocab_size
    ):
        raise CheckpointError(f"{path}: the tokenizer does not match the model")
    model = build(config.model, config.run.seed)
    _filled(path, model, content["model"])
    return TrainedModel(model, tokenizer, config, content["step"])
