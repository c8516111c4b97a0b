"""One attempt at a trial, and the text that a checkpoint writes: all that loads a model."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sweeps.engine.driver import Job
from sweeps.ledger import Row
from tinylm import checkpoint, data, train
from tinylm import config as cfg
from tinylm.generate import generate

SAMPLE_TOKENS = 200
TEMPERATURE, TOP_P, SAMPLE_SEED = 0.8, 0.95, 0


class Attempt:
    """One attempt at a trial. Iterating over `events` trains; `save` is for between two events."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.config = cfg.validate(job.config, job.label)
        self.corpus = data.find(job.corpus) or data.prepare(self.config)
        if self.corpus.digest != job.corpus:
            raise ValueError(
                f"{self.config.data.path or self.config.data.corpus}: the corpus on this machine "
                f"has digest {self.corpus.digest}, the trial was planned with {job.corpus}"
            )
        self._from = Path(job.checkpoint) if job.checkpoint else None

    def save(self, file: Path) -> None:
        """Write a checkpoint of the last event."""
        checkpoint.save(file, self._state, self.corpus, self.config)

    def events(self) -> Iterator[dict[str, Any]]:
        """A `measured` event for each record, with `save` if a checkpoint is due, and a `diverged`
        event at the end of a run that diverges. A failure raises; `CheckpointError` if the checkpoint to
        resume from is damaged, or of another run."""
        config = self.config
        self._state = (
            checkpoint.load(self._from, self.corpus, config) if self._from else train.start(config)
        )
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

    def _branch(self, step: int) -> dict[str, Any]:
        """The losses at the end of a decay branch from here; None if it diverged."""
        updates = max(1, round(step * self.job.branch))
        last = train.decay_branch(self._state, self.corpus, self.config, updates)
        return {
            "decayed_val_loss": last and last.val_loss,
            "decayed_bits_per_byte": last and last.bits_per_byte,
            "branch_tokens": updates * self.config.tokens_per_step,
        }


def sample_text(file: Path) -> Row:
    """A document that the model of a checkpoint writes: text, tokens (how many), temperature, top_p
    and seed. `CheckpointError` if the file is not a whole checkpoint."""
    trained = checkpoint.load_model(file)
    torch.set_num_threads(trained.config.run.threads)
    ids = list(generate(trained, "", SAMPLE_TOKENS, TEMPERATURE, TOP_P, SAMPLE_SEED))
    return {
        "text": trained.tokenizer.decode(ids),
        "tokens": len(ids),
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "seed": SAMPLE_SEED,
    }
