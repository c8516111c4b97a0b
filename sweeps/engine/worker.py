"""One attempt at a trial, the texts that a checkpoint writes and its loss on the test text: all that loads a
model."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sweeps.engine import store
from sweeps.engine.job import Job
from sweeps.engine.limits import gpu_memory
from sweeps.ledger import Row
from tinylm import checkpoint, data, train
from tinylm import config as cfg
from tinylm.generate import generate

SAMPLE_TOKENS, SAMPLE_SEED = 256, 0
TEMPERATURES, TOP_P = (0.7, 1.0), (0.9, 1.0)


class Attempt:
    """One attempt at a trial, which has a share of a GPU. Iterating over `events` trains; `save` is for
    between two events."""

    def __init__(self, job: Job, gpu: float = 0.0) -> None:
        self.job = job
        self.config = cfg.validate(job.config, job.label)
        train.require(self.config.run.device)
        if self.config.run.device == "cuda" and gpu:
            _keep_to_share(gpu)
        self.corpus = data.find(job.corpus) or data.prepare(self.config)
        if self.corpus.digest != job.corpus:
            raise ValueError(
                f"{self.config.data.path or self.config.data.corpus}: the corpus on this machine "
                f"has digest {self.corpus.digest}, the trial was planned with {job.corpus}"
            )

    def save(self, file: Path) -> None:
        """Write a checkpoint of the last event."""
        checkpoint.save(file, self._state, self.corpus, self.config)

    def events(self) -> Iterator[dict[str, Any]]:
        """A `measured` event for each record, with `save` if a checkpoint is due, and a `diverged`
        event at the end of a run that diverges. A failure raises; `CheckpointError` if the checkpoint to
        resume from is damaged, or of another run."""
        config = self.config
        self._state = self._begin()
        try:
            for record in train.train(self._state, self.corpus, config):
                at_rung = record.tokens in self.job.rungs
                save = at_rung or checkpoint.is_due(record, config)
                event = {"event": "measured", "save": save, **asdict(record)}
                if self.job.branch and at_rung:
                    event |= self._branch(record.step)
                yield event
        except train.Diverged as diverged:
            yield {
                "event": "diverged",
                "how": diverged.how,
                "save": False,
                "step": diverged.step,
                "tokens": diverged.tokens,
                "peak_loss": diverged.peak_loss,
                "loss_init": diverged.loss_init,
                "reason": diverged.reason,
            }

    def _begin(self) -> train.State:
        """The state at which the attempt begins."""
        name, config = self.job.checkpoint, self.config
        if name is None:
            return train.start(config)
        if not self.job.store:
            return checkpoint.load(Path(name), self.corpus, config)
        with store.fetched(self.job.store, name) as file:
            try:
                return checkpoint.load(file, self.corpus, config)
            except checkpoint.CheckpointError as error:
                raise type(error)(str(error).replace(str(file), name)) from error

    def _branch(self, step: int) -> dict[str, Any]:
        """The losses at the end of a decay branch from here; None if it diverged."""
        updates = max(1, round(step * self.job.branch))
        last = train.decay_branch(self._state, self.corpus, self.config, updates)
        return {
            "decayed_val_loss": last and last.val_loss,
            "decayed_bits_per_byte": last and last.bits_per_byte,
            "branch_tokens": updates * self.config.tokens_per_step,
        }


def _keep_to_share(gpu: float) -> None:
    """Limit the tensors of this process to its share of the GPU's memory, so that it alone runs out of memory
    if it needs more."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gpu_memory(total, gpu) / total)


def sample_texts(file: Path) -> list[Row]:
    """The documents that the model of a checkpoint writes, one for each temperature and top-p: temperature,
    top_p, seed, text and tokens (how many it has). `CheckpointError` if the file is not a whole checkpoint,
    and `ConfigError` if the device is not here."""
    trained = checkpoint.load_model(file)
    _use(trained)
    return [
        _sampled(trained, temperature, top_p) for temperature in TEMPERATURES for top_p in TOP_P
    ]


def _sampled(trained: checkpoint.TrainedModel, temperature: float, top_p: float) -> Row:
    ids = list(generate(trained, "", SAMPLE_TOKENS, temperature, top_p, SAMPLE_SEED))
    return {
        "temperature": temperature,
        "top_p": top_p,
        "seed": SAMPLE_SEED,
        "text": trained.tokenizer.decode(ids),
        "tokens": len(ids),
    }


def _use(trained: checkpoint.TrainedModel) -> None:
    """Move a model to the device that it was trained on, with as many threads; `ConfigError` if that device is
    not here."""
    run = trained.config.run
    if not train.is_available(run.device):
        raise cfg.ConfigError([f"run.device: {run.device} is not available here"])
    torch.set_num_threads(run.threads)
    trained.model.to(run.device)


def read_test_text(file: Path, digest: str) -> Row:
    """What the model of a checkpoint loses on the test text of the corpus with this digest: loss and
    bits_per_byte (None if not finite), tokens (how many were read) and split (the digest of the text in tokens).

    `CheckpointError` if the file is not a whole checkpoint, and `ConfigError` if the device or the corpus
    is not here.
    """
    trained = checkpoint.load_model(file)
    config = trained.config
    _use(trained)
    corpus = data.find(digest) or data.prepare(config)
    if corpus.digest != digest or corpus.test is None:
        where = config.data.path or config.data.corpus
        raise cfg.ConfigError([f"{where}: has changed: its digest was {digest}"])
    loss, bits_per_byte = train.evaluate(trained.model, corpus, config, "test")
    return {
        "loss": loss if math.isfinite(loss) else None,
        "bits_per_byte": bits_per_byte if math.isfinite(bits_per_byte) else None,
        "tokens": config.eval.tokens // config.eval_block * config.eval_block,
        "split": hashlib.sha256(corpus.test.ids.tobytes()).hexdigest()[:16],
    }
