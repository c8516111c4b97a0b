"""Checkpoints: written completely or not at all, read without running any code in them.

A checkpoint is a file written by torch.save, followed by its SHA-256. The checksums inside such a
file cover its members only; a flipped bit between them could change what torch reads.
"""

import hashlib
import os
import pickle
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tokenizers import Tokenizer

from tinylm import config as cfg
from tinylm import train
from tinylm.data import Corpus
from tinylm.exits import Code, CommandError
from tinylm.files import replacing
from tinylm.model import build

_FORMAT = 2
_DIGEST_BYTES = hashlib.sha256().digest_size
_WATCHED = tuple(field.name for field in fields(train.LossWatch))


class CheckpointError(CommandError):
    """A checkpoint that is missing, damaged, or from another run."""

    code = Code.DAMAGED


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
        torch.save(content, stream)
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


def _read(path: Path, device: str) -> dict[str, Any]:
    """The content of a checkpoint, after its checksum has been verified."""
    try:
        with path.open("rb") as stream:
            if not _whole(stream):
                raise CheckpointError(
                    f"{path}: damaged, or not a checkpoint: the checksum does not match"
                )
            stream.seek(0)
            content = torch.load(stream, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    number = content.get("format") if isinstance(content, dict) else None
    if number != _FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {number}, this version reads {_FORMAT}")
    return content


def load(path: Path, corpus: Corpus, config: cfg.Config) -> train.State:
    """The saved state of a run; `CheckpointError` if its config or corpus is another one."""
    content = _read(path, config.run.device)
    if cfg.difference(content["config"], config.model_dump()):
        raise CheckpointError(f"{path}: checkpoint of a run with another config")
    if content["provenance"]["corpus"] != corpus.digest:
        raise CheckpointError(
            f"{path}: trained on corpus {content['provenance']['corpus']}, got {corpus.digest}"
        )
    state = train.start(config)
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step, state.seconds = content["step"], content["seconds"]
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
    content = _read(path, "cpu")
    config = cfg.validate(content["config"], str(path))
    model = build(config.model, config.run.seed)
    model.load_state_dict(content["model"])
    return TrainedModel(model, Tokenizer.from_str(content["tokenizer"]), config, content["step"])
